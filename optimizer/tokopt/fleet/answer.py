"""From arrays back to records: blocks and rates of all columns, figures, and which limits bind."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from tokopt.fleet.bounds import cap_terms
from tokopt.fleet.outcome import Outcome, figures, stated
from tokopt.fleet.problem import Binding, FleetProblem, FleetSolution, Goal, GoalValue, Stop
from tokopt.fleet.program import Floats
from tokopt.fleet.table import NO_PART, Bools, Table

FULL = 1e-6  # relative slack below which a limit binds, whatever the size of blocks


def answer_of(problem: FleetProblem, whole: Table, outcome: Outcome, goals: tuple[GoalValue, ...]) -> FleetSolution:
    """Return an outcome as the solution of a problem; `whole` is the table of all its columns."""
    count, periods, classes = len(problem.columns), len(problem.periods), len(problem.demand)
    source, n = outcome.table.source, outcome.blocks
    by_period = np.zeros((periods, count), dtype=np.int64)
    by_period[:, source] = n.T
    used = np.flatnonzero(n.max(axis=1, initial=0) > 0)
    rates = outcome.spread(used)
    none = (0.0,) * classes  # one tuple for all that are not used: there may be hundreds of thousands
    mean = [none] * count
    rows = [[none] * count for _ in range(periods)]
    for position, j in enumerate(source[used].tolist()):
        mean[j] = tuple((rates[position] @ whole.weight).tolist())
        for t in np.flatnonzero(n[used[position]]).tolist():
            rows[t][j] = tuple(rates[position, :, t].tolist())
    f = figures(outcome)
    return FleetSolution(
        stop=outcome.stop,
        blocks=tuple(by_period.max(axis=0).tolist()),
        rates=tuple(mean),
        objective=stated(problem.goal, outcome.objective),
        bound=stated(problem.goal, outcome.bound),
        gap=outcome.gap,
        solver=outcome.solver,
        blocks_by_period=tuple(tuple(row) for row in by_period.tolist()),
        rates_by_period=tuple(tuple(row) for row in rows),
        goals=goals,
        usd_per_hour=f.cost,
        revenue_usd_per_hour=f.revenue,
        change_usd_per_hour=f.change,
        changed_blocks=f.changed,
        power_w=f.peak_w,
        carbon_g_per_hour=f.carbon,
        binding=tuple(_binding(outcome)),
        detail=outcome.detail,
    )


def no_answer(problem: FleetProblem, solver: str, detail: str) -> FleetSolution:
    """Return that there is no fleet."""
    count, periods = len(problem.columns), len(problem.periods)
    nothing, none = (0,) * count, ((0.0,) * len(problem.demand),) * count
    return FleetSolution(
        stop=Stop.INFEASIBLE,
        blocks=nothing,
        rates=none,
        objective=math.inf,
        bound=math.inf,
        gap=0.0,
        solver=solver,
        blocks_by_period=(nothing,) * periods,
        rates_by_period=(none,) * periods,
        detail=detail,
    )


def _binding(outcome: Outcome) -> Iterator[Binding]:
    """Return the limits that leave no room for one more of the smallest block in use that counts against them."""
    table, n = outcome.table, outcome.blocks
    problem = table.problem
    every = np.ones(table.count, dtype=np.bool_)
    if problem.power_w is not None:
        yield from _by_period(outcome, "power", table.power, every, problem.power_w)
    for site, limit in problem.site_power_w.items():
        yield from _by_period(outcome, f"power[{site}]", table.power, table.matches("site", site), limit)
    for number in _numbers_of(table, "offer", n.max(axis=1, initial=0) > 0):
        offer = table.values["offer"][number]
        if offer in problem.offer_units:  # one that is not in use holds nothing back by being small
            parts, units = table.matching_parts(offer=offer), problem.offer_units[offer]
            yield from _by_period(
                outcome, f"offer[{offer}]", table.units_in(parts), np.asarray(parts.any(axis=1)), units
            )
    for accelerator, stock in problem.accelerator_stock.items():
        parts = table.matching_parts(accelerator=accelerator)
        amount = table.accelerators_in(parts)
        yield from _by_period(outcome, f"stock[{accelerator}]", amount, np.asarray(parts.any(axis=1)), stock)
    for cap in problem.caps:
        which, amount = cap_terms(table, cap)
        yield from _by_period(outcome, f"cap[{cap.name}]", amount, which, cap.most, least=cap.least)
    f = figures(outcome)
    bought = n.max(axis=1, initial=0) > 0
    means = [("budget", f.cost, problem.budget_usd_per_hour, table.cost)]
    means.append(("carbon", f.carbon, problem.carbon_g_per_hour, table.carbon))
    for name, used, most, each in means:
        smallest = (each * table.weight)[n > 0].min(initial=math.inf) if bought.any() else math.inf
        if most is not None and (most - used < smallest or most - used <= FULL * most):
            yield Binding(name=name, period="", used=used, limit=most, slack=most - used)
    types = len(_numbers_of(table, "accelerator", bought))
    if problem.most_accelerator_types is not None and types >= problem.most_accelerator_types:
        yield Binding(name="types", period="", used=types, limit=problem.most_accelerator_types, slack=0.0)
    yield from _by_class(outcome)


def _numbers_of(table: Table, label: str, which: Bools) -> list[int]:
    """Return the numbers of a label's values that some columns have parts of."""
    numbers = np.unique(table.parts.labels[label][which])
    return [int(number) for number in numbers if number != NO_PART]


def _by_period(
    outcome: Outcome, name: str, amount: Floats, which: Bools, most: float, *, least: float = 0.0
) -> Iterator[Binding]:
    each = np.broadcast_to(amount if amount.ndim == 2 else amount[:, None], outcome.blocks.shape)
    for t, period in enumerate(outcome.table.problem.periods):
        in_use = which & (outcome.blocks[:, t] > 0) & (each[:, t] > 0)
        used = float((outcome.blocks[:, t] * each[:, t])[which].sum())
        # Where nothing is used that counts, what keeps everything out is what is smaller than the smallest block.
        smallest = each[in_use if in_use.any() else which & (each[:, t] > 0), t].min(initial=math.inf)
        if math.isfinite(smallest) and math.isfinite(most) and (most - used < smallest or most - used <= FULL * most):
            yield Binding(name=name, period=period.name, used=used, limit=most, slack=most - used)
        if least > 0 and used - least < smallest:
            yield Binding(name=f"{name} least", period=period.name, used=used, limit=least, slack=used - least)


def _by_class(outcome: Outcome) -> Iterator[Binding]:
    """Return where spot serves all that it may, and where all that can be sold is sold."""
    table = outcome.table
    problem, served = table.problem, outcome.x.sum(axis=0)
    spot = np.zeros(len(outcome.x), dtype=np.bool_)
    spot[outcome.split] = table.spot
    by_spot = outcome.x[spot].sum(axis=0)
    for t, period in enumerate(problem.periods):
        for k in range(len(problem.demand)):
            total, wanted = float(served[k, t]), float(table.demand[t, k])
            share = problem.most_spot_share
            if share is not None and table.spot.any() and total > 0:
                slack = share * total - float(by_spot[k, t])
                if slack <= FULL * total:
                    used = float(by_spot[k, t])
                    yield Binding(name=f"spot[{k}]", period=period.name, used=used, limit=share * total, slack=slack)
            if problem.goal is Goal.PROFIT and wanted > 0 and wanted - total <= FULL * wanted:
                yield Binding(
                    name=f"demand[{k}]", period=period.name, used=total, limit=wanted, slack=max(wanted - total, 0.0)
                )
