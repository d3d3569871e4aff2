"""Marginal values: the duals of the linear relaxation, in which blocks may be fractional and any types used."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from tokopt.errors import InputError
from tokopt.fleet.bounds import SCALED
from tokopt.fleet.engine import Answer, Effort, minimise
from tokopt.fleet.formulation import Failure, Formulation, formulate
from tokopt.fleet.outcome import objective_of
from tokopt.fleet.pricing import cheapest, priced_out
from tokopt.fleet.problem import FleetProblem, Goal, ShadowPrices
from tokopt.fleet.program import Floats
from tokopt.fleet.table import Table

LONGEST_S = 60.0
PRICED_FROM = 60_000  # variables


def relaxation(
    table: Table, failures: tuple[Failure, ...], *, ratio: float | None = None, seconds: float = LONGEST_S
) -> tuple[Formulation, Floats, Answer]:
    """Return the relaxation, its objective and its optimum; what fills the limits has the most tokens as its goal.

    With a ratio, cost per token is made best: the cost less what tokens are worth at that ratio. Of very many columns,
    only those that would pay are in the program.

    Raises:
        InputError: It was not solved in time.
    """
    problem = table.problem
    free = replace(table, problem=replace(problem, most_accelerator_types=None))
    form = formulate(free, failures, keep=frozenset({problem.goal}))
    if ratio is not None and problem.goal is Goal.COST_PER_TOKEN:
        objective = form.cost() + form.change() - ratio * form.tokens()
    else:
        objective = -form.tokens() if problem.goal in SCALED else objective_of(form, problem.goal)
    effort = Effort(deadline=time.monotonic() + seconds, relaxed=True)
    if form.program.variables >= PRICED_FROM:
        priced = priced_out(form, objective, cheapest(table), effort)
        if priced is not None:
            return form, objective, priced.answer
    return form, objective, minimise(form.program, objective, effort)


def shadow_prices_of(problem: FleetProblem, table: Table, failures: tuple[Failure, ...]) -> ShadowPrices | None:
    """Return the marginal values: of USD/h for cost and profit, W, g/h, or million tokens/h where limits are filled."""
    try:
        form, _, answer = relaxation(table, failures)
    except InputError:
        return None
    if not answer.found or not len(answer.duals):
        return None
    sign = -1.0 if problem.goal in SCALED or problem.goal is Goal.PROFIT else 1.0
    unit = {Goal.POWER: 1e3, Goal.CARBON: 1e3}.get(problem.goal, 1.0) * sign

    def by_period(name: str) -> Floats:
        rows = form.rows.get(name)
        return np.zeros(1) if rows is None else unit * answer.duals[rows] + 0.0

    def total(name: str) -> float:
        return float(by_period(name).sum())

    demand = by_period("demand")  # K x T
    stocks = [name for name in form.rows if name.startswith(("offer[", "stock[", "cap["))]
    return ShadowPrices(
        power_per_w=total("power") * 1e-3,
        demand=tuple(demand.sum(axis=1).tolist()),
        budget_per_usd=total("budget"),
        offers={name: total(name) for name in stocks},
        site_power_per_w={site: total(f"power[{site}]") * 1e-3 for site in problem.site_power_w},
        demand_by_period=tuple(tuple(row) for row in demand.T.tolist()),
        power_per_w_by_period=tuple((by_period("power") * 1e-3).tolist()) if "power" in form.rows else (),
        spot_share=_share(form, by_period("spot"), answer.values),
        carbon_per_g=total("carbon") * 1e-3,
    )


def _share(form: Formulation, duals: Floats, values: Floats) -> float:
    """Return the worth of one more unit of spot share: each row's limit moves by all that is served of its class."""
    if "spot" not in form.rows:
        return 0.0
    served = np.where(form.x >= 0, values[form.x], 0.0).sum(axis=0)
    return float((duals * served).sum())
