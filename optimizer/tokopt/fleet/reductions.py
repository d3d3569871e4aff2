"""Exact reductions: columns that some optimal fleet does without.

Each rule replaces blocks of a column by as many blocks of another that serve no less, cost no more in any period, and
count against every limit no more. None applies to a column that is in today's fleet or is committed to.

- A column that serves nothing is of no use.
- *Dominated set-ups*: of one offer in blocks of one size, a set-up that no class is served faster by than by another.
- *Dearer offers*: of offers that are alike but for their price, the cheapest ones up to the stock that could ever be
  needed. With prices by period, those that are among them in any period.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokopt.fleet.bounds import SCALED, most_blocks
from tokopt.fleet.problem import Goal, Survive
from tokopt.fleet.table import Bools, Floats, Ints, Table, distinct_rows

HUGE = 1e10  # units, where stock is endless


def reduce(table: Table) -> Table:
    """Return the table without columns that some optimal fleet does without."""
    bound = (table.least > 0) | ((table.current > 0) & (table.problem.change_usd_per_accelerator_hour > 0))
    committed = any(cap.least > 0 for cap in table.problem.caps)
    useful = bound | committed | ((table.rates > 0).any(axis=1) & (most_blocks(table).max(axis=1) >= 1))
    table, bound = table.take(useful), bound[useful]
    if table.count == 0 or committed:
        return table
    kept = bound | ~_dominated(table)
    table, bound = table.take(kept), bound[kept]
    return table.take(bound | _worth_their_price(table, bound))


def _worth_their_price(table: Table, bound: Bools) -> Bools:
    """Return the columns that are kept for their price. Blocks of several offers are, and their stock is not only ours.

    An offer of limited stock that such blocks take from too may not have for a kind what it has in all.
    """
    several = table.several
    if not several.any():
        return _cheap_enough(table, bound)
    limited = np.array([name in table.problem.offer_units for name in table.values["offer"]])
    shared = np.isin(table.labels["offer"], table.parts.labels["offer"][several]) & limited[table.labels["offer"]]
    kept = several.copy()
    alone = table.take(~several)
    if not alone.count:
        return kept
    kept[~several] = _cheap_enough(alone, (bound | shared)[~several]) | shared[~several]
    return kept


def terms_of(table: Table, *, offers: bool) -> Ints:
    """Return the number of the group of columns that count alike against every limit, but for price and rates.

    With `offers` columns of different offers are never alike; without, those are whose offers differ in stock alone.
    """
    problem = table.problem
    named = {"accelerator", *(("offer",) if offers else ())}
    named |= {"site"} if problem.site_power_w else set()
    named |= {"zone"} if problem.survive is Survive.ZONE else set()
    named |= {label for cap in problem.caps for label in table.labels if getattr(cap, label)}
    carbon = np.nan_to_num(table.carbon, nan=-1.0) if _counts_carbon(table) else np.zeros(table.count)
    keys: list[NDArray[Any]] = [np.stack([table.labels[name] for name in sorted(named)], axis=1)]
    keys += [table.units, table.accelerators, table.power, carbon, table.flexible, table.first, table.spot, table.most]
    if table.parts.units.shape[1] > 1:
        labels = ("accelerator", "offer") if offers else ("accelerator",)
        keys += [table.parts.labels[label] for label in labels] + [table.parts.units, table.parts.accelerators]
    return distinct_rows(*keys)


def _counts_carbon(table: Table) -> bool:
    problem = table.problem
    return problem.carbon_g_per_hour is not None or Goal.CARBON in (problem.goal, *problem.then)


def _dominated(table: Table) -> Bools:
    """Return the set-ups that another of the same offer, price and size beats or equals in every class."""
    group = distinct_rows(terms_of(table, offers=True), table.cost)
    own_limit = np.isfinite(table.most)
    rates = distinct_rows(table.rates)
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    dominated = np.zeros(table.count, dtype=np.bool_)
    settled: dict[bytes, Bools] = {}  # offers of one accelerator have the same set-ups: each family is compared once
    for members in np.split(order, starts[1:]):
        if len(members) < 2:
            continue
        family = rates[members].tobytes() + own_limit[members].tobytes()
        if family not in settled:
            settled[family] = _beaten(table.rates[members], own_limit[members])
        dominated[members] = settled[family]
    return dominated


def _beaten(rates: Floats, own_limit: Bools) -> Bools:
    """Return which rows another one equals or exceeds everywhere; of equal rows the first is kept."""
    beaten = np.zeros(len(rates), dtype=np.bool_)
    for i in range(len(rates)):
        above = (rates >= rates[i]).all(axis=1) & ~beaten & ~own_limit
        above[i] = False
        equal = (rates == rates[i]).all(axis=1)
        beaten[i] = bool((above & ~(equal & (np.arange(len(rates)) > i))).any())
    return beaten


def _cheap_enough(table: Table, bound: Bools) -> Bools:
    """Return the columns whose offers are among the cheapest of their kind, up to what could ever be needed."""
    order = np.lexsort((np.arange(table.count), distinct_rows(table.rates), table.labels["offer"]))
    offers, starts = np.unique(table.labels["offer"][order], return_index=True)
    members = np.split(order, starts[1:])
    first = order[starts]
    kind, own = _kinds(table, members, first, bound | np.isfinite(table.most))
    stocks = np.array([table.problem.offer_units.get(name, math.inf) for name in table.values["offer"]])
    stock = stocks[offers]
    needed = _most_units(table, members, kind)
    prices = (
        np.where(table.flexible[:, None], table.cost, table.mean_cost[:, None])[first] / table.units[first][:, None]
    )
    shown = own.copy()
    for t in range(prices.shape[1] if table.flexible.any() else 1):
        ranked = np.lexsort((np.arange(len(first)), np.isfinite(stock), prices[:, t], kind))
        heads = np.flatnonzero(np.diff(kind[ranked], prepend=-1))
        counts = np.diff(np.append(heads, len(ranked)))
        # Stock of all cheaper offers of the kind; an endless one is all that could be needed.
        amount = np.minimum(stock[ranked], needed[kind[ranked]])
        amount = np.where(np.isinf(amount) | np.isinf(stock[ranked]), HUGE, amount)
        before = np.cumsum(amount) - amount
        before -= np.repeat(before[heads], counts)
        shown[ranked[before < np.minimum(needed[kind[ranked]], HUGE)]] = True
    kept = np.zeros(table.count, dtype=np.bool_)
    kept[np.concatenate([m for m, keep in zip(members, shown.tolist(), strict=True) if keep])] = True
    return kept


def _kinds(table: Table, members: list[Ints], first: Ints, special: Bools) -> tuple[Ints, Bools]:
    """Return each offer's kind, and which offers are of no kind but their own.

    Offers of one kind have the same set-ups, which count alike, in blocks that cost in the same proportions.
    """
    setup = distinct_rows(terms_of(table, offers=False), table.rates)
    base = table.mean_cost[first] / table.units[first]
    of = np.empty(table.count, dtype=np.int64)
    for position, group in enumerate(members):
        of[group] = position
    with np.errstate(divide="ignore", invalid="ignore"):
        proportion = np.round(table.mean_cost / table.units / base[of], 9)
    numbers: dict[object, int] = {}
    kind = np.empty(len(members), dtype=np.int64)
    own = np.zeros(len(members), dtype=np.bool_)
    mixed = np.bincount(of, weights=table.flexible) % np.bincount(of) > 0
    own |= mixed | (np.bincount(of, weights=special) > 0)
    for position, group in enumerate(members):
        key: object = setup[group].tobytes() + proportion[group].tobytes()
        kind[position] = numbers.setdefault(position if own[position] else key, len(numbers))
    return kind, own


def _most_units(table: Table, members: list[Ints], kind: Ints) -> Floats:
    """Return the most units of each kind that are ever of use: what serves the whole demand by its slowest set-ups."""
    needed = np.full(int(kind.max(initial=-1)) + 1, math.inf)
    if table.problem.goal in SCALED:
        return needed
    most = table.demand.max(axis=0)
    spare = 1.0 if table.problem.survive is Survive.NONE else 2.0
    seen: set[int] = set()
    for number, group in zip(kind.tolist(), members, strict=True):
        if number in seen:
            continue
        seen.add(number)
        with np.errstate(divide="ignore"):
            load = np.where(table.rates[group] > 0, 1.0 / table.rates[group], 0.0).max(axis=0)
        usable = max(1.0 - table.problem.spot_reserve, 1e-9) if table.spot[group].any() else 1.0
        needed[number] = (float(load @ most) / usable + spare * len(group)) * float(table.units[group].max())
    return needed
