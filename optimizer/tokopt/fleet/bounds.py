"""The most blocks of a column that any sensible fleet has, and what caps count."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from tokopt.fleet.problem import Cap, Counted, FleetProblem, Goal, Survive
from tokopt.fleet.table import Bools, Floats, Table

SCALED = (Goal.COST_PER_TOKEN, Goal.THROUGHPUT)
ROOM = 1.0 + 1e-12  # rounding that a whole number of blocks may need to fit into a limit


def cap_terms(table: Table, cap: Cap) -> tuple[Bools, Floats]:
    """Return which columns a cap counts, and what a block of each counts for, by column or column and period."""
    parts = table.matching_parts(**{label: getattr(cap, label) for label in table.labels if getattr(cap, label)})
    amount: dict[Counted, Callable[[Bools], Floats]] = {
        Counted.UNITS: table.units_in,
        Counted.ACCELERATORS: table.accelerators_in,
        Counted.USD_PER_HOUR: table.cost_of,
        Counted.POWER_W: table.power_of,
    }
    return np.asarray(parts.any(axis=1)), amount[cap.counted](parts)


def most_blocks(table: Table) -> Floats:
    """Return J x T: the most blocks of a column that any sensible fleet has, what the tightest limit allows."""
    problem, periods = table.problem, len(table.hours)
    most = np.repeat(table.most[:, None], periods, axis=1)

    def limit(amount: Floats, total: float | Floats, which: Bools | None = None) -> None:
        some = np.broadcast_to((amount > 0).T, most.T.shape).T if which is None else ((amount > 0).T & which).T
        some = np.broadcast_to(some.reshape(table.count, -1), most.shape)
        with np.errstate(divide="ignore", invalid="ignore"):
            room = np.floor(np.asarray(total / amount * ROOM)).reshape(table.count, -1)
        most[some] = np.minimum(most, room)[some]

    if problem.power_w is not None:
        limit(table.power, problem.power_w)
    for site, watts in problem.site_power_w.items():
        limit(table.power, watts, table.matches("site", site))
    if problem.budget_usd_per_hour is not None:
        # A block in one period alone, or in all periods that a fixed column stays for.
        spent = np.where(table.flexible[:, None], table.cost * table.weight, table.mean_cost[:, None])
        limit(spent, problem.budget_usd_per_hour)
    units = np.array([problem.offer_units.get(name, math.inf) for name in table.values["offer"]])
    stock = np.array([problem.accelerator_stock.get(name, math.inf) for name in table.values["accelerator"]])
    held = table.parts
    for p in range(held.units.shape[1]):  # a part that a block does not have counts nothing: no limit
        limit(held.units[:, p].astype(np.float64), units[held.labels["offer"][:, p]])
        limit(held.accelerators[:, p].astype(np.float64), stock[held.labels["accelerator"][:, p]])
    for cap in problem.caps:
        matching, amount = cap_terms(table, cap)
        limit(amount, cap.most, matching)
    if problem.goal not in SCALED:
        most = np.minimum(most, _whole_demand(table, problem))
    return np.asarray(np.maximum(most, table.least[:, None]))


def _whole_demand(table: Table, problem: FleetProblem) -> Floats:
    """Return J x T: the blocks of a column that serve everything that it can serve, alone; more are never of use."""
    with np.errstate(divide="ignore"):
        load = np.where(table.rates > 0, 1.0 / table.rates, 0.0)
    usable = np.where(table.spot, 1.0 - problem.spot_reserve, 1.0)
    spare = 1.0 if problem.survive is Survive.NONE else 2.0
    whole = np.ceil((load / np.maximum(usable, 1e-9)[:, None]) @ table.demand.T) + spare
    wanted = np.where(np.isfinite(table.most), table.most, np.inf)[:, None]
    # A commitment or today's fleet may be worth more blocks than the demand.
    kept = np.maximum(whole, table.current[:, None] if problem.change_usd_per_accelerator_hour else 0)
    if any(cap.least > 0 for cap in problem.caps):
        least = np.zeros_like(kept)
        for cap in problem.caps:
            matching, amount = cap_terms(table, cap)
            each = np.broadcast_to(amount.reshape(table.count, -1), kept.shape)
            some = matching[:, None] & (each > 0) & (cap.least > 0)
            with np.errstate(divide="ignore", invalid="ignore"):
                least[some] = np.maximum(least, np.ceil(cap.least / each) + 1)[some]
        kept = np.maximum(kept, least)
    return np.asarray(np.minimum(kept, wanted))
