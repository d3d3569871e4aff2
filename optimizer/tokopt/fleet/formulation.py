"""The mixed-integer program: variables, one function per constraint, objectives."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ortools.math_opt.python import mathopt

from tokopt.fleet.problem import Column, FleetProblem

MILLION_TOKENS_PER_HOUR = 3600.0 / 1e6  # of one token a second


@dataclass(slots=True)
class Formulation:
    """A model with its variables, by position of column and class."""

    model: Any
    blocks: list[Any]  # n_j
    rates: list[dict[int, Any]]  # x_jk where column j can serve class k
    scale: Any | None  # s: multiple of the mix that is served, where the goal scales it
    cost: Any  # Σ_j c_j n_j  [USD/h]
    power: Any  # Σ_j w_j n_j  [W]
    tokens: Any  # Σ_jk o_k x_jk · 3600/10⁶  [million output tokens/h]
    rows: dict[str, Any]  # constraints whose shadow prices are asked for


def formulate(problem: FleetProblem, *, scaled: bool, relaxed: bool = False) -> Formulation:
    """Return the program with all its constraints and no objective.

    Args:
        problem: Columns, demand and limits.
        scaled: The mix is served to a multiple that is a variable, instead of exactly once.
        relaxed: Blocks may be fractional: the linear relaxation, for bounds and shadow prices.
    """
    model = mathopt.Model(name="fleet")
    columns = problem.columns
    add = model.add_variable if relaxed else model.add_integer_variable
    blocks = [add(lb=0.0, ub=_most_blocks(problem, c), name=f"n[{c.name}]") for c in columns]
    rates = [
        {k: model.add_variable(lb=0.0, name=f"x[{c.name},{k}]") for k, rate in enumerate(c.requests_per_s) if rate > 0}
        for c in columns
    ]
    scale = model.add_variable(lb=0.0, name="scale") if scaled else None
    total = mathopt.fast_sum
    form = Formulation(
        model=model,
        blocks=blocks,
        rates=rates,
        scale=scale,
        cost=total(c.usd_per_hour * n for c, n in zip(columns, blocks, strict=True)),
        power=total(c.power_w * n for c, n in zip(columns, blocks, strict=True) if math.isfinite(c.power_w)),
        tokens=total(
            problem.tokens_per_request[k] * MILLION_TOKENS_PER_HOUR * x for row in rates for k, x in row.items()
        ),
        rows={},
    )
    serve_every_class(form, problem)
    keep_within_capacity(form, problem)
    keep_within_power(form, problem)
    keep_within_budget(form, problem)
    keep_within_stock(form, problem)
    limit_accelerator_types(form, problem)
    return form


def serve_every_class(form: Formulation, problem: FleetProblem) -> None:
    """Every class is served whole:  Σ_j x_jk = d_k  (or s·d_k)  for all k   [requests/s]."""
    for k, wanted in enumerate(problem.demand):
        served = mathopt.fast_sum(row[k] for row in form.rates if k in row)
        target = wanted if form.scale is None else wanted * form.scale
        form.rows[f"demand[{k}]"] = form.model.add_linear_constraint(served == target, name=f"demand[{k}]")


def keep_within_capacity(form: Formulation, problem: FleetProblem) -> None:
    """Load adds up over classes:  Σ_k x_jk / r_jk ≤ n_j  for all j   (r: requests/s of a block within the limits)."""
    for column, n, row in zip(problem.columns, form.blocks, form.rates, strict=True):
        load = mathopt.fast_sum(x * (1.0 / column.requests_per_s[k]) for k, x in row.items())
        form.model.add_linear_constraint(load <= n, name=f"capacity[{column.name}]")


def keep_within_power(form: Formulation, problem: FleetProblem) -> None:
    """Power stays below the limit:  Σ_j w_j n_j ≤ W   [kW]."""
    if problem.power_w is None:
        return
    # In kW: rows of like size keep the solver's tolerances meaningful.
    form.rows["power"] = form.model.add_linear_constraint(form.power * 1e-3 <= problem.power_w * 1e-3, name="power")


def keep_within_budget(form: Formulation, problem: FleetProblem) -> None:
    """Spending stays below the budget:  Σ_j c_j n_j ≤ B   [USD/h]."""
    if problem.budget_usd_per_hour is not None:
        form.rows["budget"] = form.model.add_linear_constraint(form.cost <= problem.budget_usd_per_hour, name="budget")


def keep_within_stock(form: Formulation, problem: FleetProblem) -> None:
    """Stock is not exceeded:  Σ_{j of offer} u_j n_j ≤ units,  Σ_{j of type} a_j n_j ≤ accelerators."""
    for offer, units in problem.offer_units.items():
        used = [c.units_per_block * n for c, n in zip(problem.columns, form.blocks, strict=True) if c.offer == offer]
        if used:
            form.rows[f"offer[{offer}]"] = form.model.add_linear_constraint(
                mathopt.fast_sum(used) <= units, name=f"offer[{offer}]"
            )
    for accelerator, stock in problem.accelerator_stock.items():
        used = [
            c.accelerators_per_block * n
            for c, n in zip(problem.columns, form.blocks, strict=True)
            if c.accelerator == accelerator
        ]
        if used:
            form.rows[f"stock[{accelerator}]"] = form.model.add_linear_constraint(
                mathopt.fast_sum(used) <= stock, name=f"stock[{accelerator}]"
            )


def limit_accelerator_types(form: Formulation, problem: FleetProblem) -> None:
    """At most K types are used:  n_j ≤ M_j z_g  for all j of type g,  Σ_g z_g ≤ K,  z binary."""
    if problem.most_accelerator_types is None:
        return
    used = {a: form.model.add_binary_variable(name=f"z[{a}]") for a in sorted({c.accelerator for c in problem.columns})}
    for column, n in zip(problem.columns, form.blocks, strict=True):
        most = _most_blocks(problem, column)
        form.model.add_linear_constraint(n <= most * used[column.accelerator], name=f"type[{column.name}]")
    form.model.add_linear_constraint(mathopt.fast_sum(used.values()) <= problem.most_accelerator_types, name="types")


def _most_blocks(problem: FleetProblem, column: Column) -> float:
    """Return the most blocks of a column that any sensible fleet has: what the tightest limit allows."""
    most = math.inf
    if problem.power_w is not None and math.isfinite(column.power_w) and column.power_w > 0:
        most = min(most, math.floor(problem.power_w / column.power_w * (1 + 1e-12)))
    if problem.budget_usd_per_hour is not None and column.usd_per_hour > 0:
        most = min(most, math.floor(problem.budget_usd_per_hour / column.usd_per_hour * (1 + 1e-12)))
    if column.offer in problem.offer_units:
        most = min(most, problem.offer_units[column.offer] // column.units_per_block)
    if column.accelerator in problem.accelerator_stock:
        most = min(most, problem.accelerator_stock[column.accelerator] // column.accelerators_per_block)
    if math.isinf(most):
        # Serving everything alone needs this many; a demand that is only a mix has some other limit.
        whole = sum(d / r for d, r in zip(problem.demand, column.requests_per_s, strict=True) if r > 0 and d > 0)
        most = math.ceil(whole) + 1
    return float(max(most, 0))
