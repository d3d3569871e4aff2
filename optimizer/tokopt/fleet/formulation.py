"""The mixed-integer program: variables, one function per constraint, objectives.

Columns j, classes k, periods t; h_t is the period's share of the horizon. Columns with the same rates that are alike in
what can fail or be taken away share their rate variables: such a *split* is i below, with r_ik and n_it = Σ_{j in i}
n_jt. Sharing is exact, since the load of a split can be spread over its columns in proportion to their blocks.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from tokopt.fleet.bounds import SCALED, cap_terms, most_blocks
from tokopt.fleet.problem import Goal, Survive
from tokopt.fleet.program import NONE, Floats, Ints, Program
from tokopt.fleet.table import NO_PART, Bools, Table, distinct_rows

MILLION_TOKENS_PER_HOUR = 3600.0 / 1e6  # of one token a second
LEAST_LOAD = 1e-5  # of a block, by a whole class


@dataclass(frozen=True, slots=True)
class Failure:
    """What is lost in a period: one block of a family of columns that share a split, or all blocks of a zone."""

    period: int
    family: int = NONE  # of columns
    zone: int = NONE


@dataclass(slots=True)
class Formulation:
    """A program with its variables, by position of column, split, class and period."""

    program: Program
    table: Table
    n: Ints  # J x T: blocks; a column that is fixed over the horizon has one variable for all its periods
    split: Ints  # J: number of the column's split
    rates: Floats  # I x K: r_ik
    x: Ints  # I x K x T: requests/s
    scale: int  # s: multiple of the mix that is served, where the goal scales it
    peak: int  # P: power of the period that needs most [kW], where it is a goal
    changes: list[tuple[Ints, Floats]]  # |n - n0| by variables and weights
    rows: dict[str, Ints]  # rows by name, for shadow prices

    # Objectives, means over the horizon, as coefficients of the variables

    def cost(self) -> Floats:
        """Return  Σ_jt h_t c_jt n_jt   [USD/h]."""
        return self.program.vector((self.n, self.table.cost * self.table.weight))

    def energy(self) -> Floats:
        """Return  Σ_jt h_t w_j n_jt   [kW]."""
        return self.program.vector((self.n, self.table.power[:, None] * 1e-3 * self.table.weight))

    def carbon(self) -> Floats:
        """Return  Σ_jt h_t g_jt n_jt   [g/h]."""
        return self.program.vector((self.n, np.nan_to_num(self.table.carbon) * self.table.weight))

    def change(self) -> Floats:
        """Return the penalty on changes, by the accelerators that are moved   [USD/h]."""
        usd = self.table.problem.change_usd_per_accelerator_hour
        return self.program.vector(*((v, usd * w) for v, w in self.changes))

    def tokens(self) -> Floats:
        """Return  Σ_ikt h_t o_k x_ikt · 3600/10⁶   [million output tokens/h]."""
        each = self.table.tokens[None, :, None] * MILLION_TOKENS_PER_HOUR * self.table.weight
        return self.program.vector((self.x, each))

    def revenue(self) -> Floats:
        """Return  Σ_ikt h_t p_k x_ikt · 3600   [USD/h]."""
        each = self.table.revenue[None, :, None] * 3600.0 * self.table.weight
        return self.program.vector((self.x, each))


def formulate(table: Table, failures: tuple[Failure, ...] = (), *, keep: frozenset[Goal] = frozenset()) -> Formulation:
    """Return the program with all its constraints and no objective.

    Args:
        table: Columns, demand and limits.
        failures: What has to be survived; more are added as they are found to matter.
        keep: Goals that will be asked for, besides the problem's own; the peak of power is only there where it is one.
    """
    problem = table.problem
    program = Program()
    columns, periods, classes = table.count, len(table.hours), table.rates.shape[1]
    most = most_blocks(table)
    split, rates = splits(table)
    x = np.full((len(rates), classes, periods), NONE)
    there = np.zeros((len(rates), periods), dtype=np.bool_)
    np.logical_or.at(there, split, table.bought)
    used = (rates > 0)[:, :, None] & there[:, None, :]
    x[used] = program.add_variables(int(used.sum()))
    form = Formulation(
        program=program,
        table=table,
        n=_blocks(program, table, most),
        split=split,
        rates=rates,
        x=x,
        scale=int(program.add_variables(1)[0]) if problem.goal in SCALED else NONE,
        peak=NONE,
        changes=[],
        rows={},
    )
    assert form.n.shape == (columns, periods)
    serve_every_class(form, form.x)
    form.rows["capacity"] = keep_within_capacity(form, form.x)
    keep_within_power(form)
    keep_within_site_power(form)
    keep_within_budget(form)
    keep_within_stock(form)
    keep_within_caps(form)
    keep_within_spot_share(form)
    keep_within_carbon(form)
    limit_accelerator_types(form, most)
    penalise_changes(form)
    if Goal.POWER in (problem.goal, *problem.then, *keep):
        bound_peak_power(form)
    if problem.survive is not Survive.NONE and serves_one_class(table):
        survive_apart(form, most)
    for failure in failures:
        survive(form, failure, most)
    return form


def splits(table: Table) -> tuple[Ints, Floats]:
    """Return each column's split, and the rates of splits."""
    zone = table.labels["zone"] if table.problem.survive is Survive.ZONE else np.zeros(table.count)
    number = distinct_rows(table.rates, table.spot, zone)
    _, first = np.unique(number, return_index=True)
    return number, table.rates[first]


def _blocks(program: Program, table: Table, most: Floats) -> Ints:
    """Add n_jt: one variable a period where a column is flexible, else one for all its periods."""
    n = np.full(table.bought.shape, NONE)
    each = table.bought & table.flexible[:, None]
    upper = np.maximum(most, table.least[:, None])
    lower = np.broadcast_to(table.least[:, None], n.shape)
    n[each] = program.add_variables(int(each.sum()), lower=lower[each], upper=upper[each], integer=True)
    fixed = ~table.flexible & table.bought.any(axis=1)
    count = int(fixed.sum())
    once = program.add_variables(count, lower=table.least[fixed], upper=upper[fixed].max(axis=1), integer=True)
    n[fixed] = np.where(table.bought[fixed], once[:, None], NONE)
    return n


def serve_every_class(form: Formulation, x: Ints) -> None:
    """Serve every class whole:  Σ_i x_ikt = d_kt  (s·d_kt where the goal scales it, ≤ d_kt for profit)   [requests/s].

    In a failure the same requests are served by what is left.
    """
    table = form.table
    classes, periods = x.shape[1:]
    row = np.arange(classes * periods).reshape(classes, periods)
    demand = table.demand.T
    first = "demand" not in form.rows
    terms: list[tuple[ArrayLike, ArrayLike, ArrayLike]] = [(row[None], x, 1.0)]
    lower = upper = demand.ravel()
    if form.scale != NONE:
        terms.append((row, form.scale, -demand))
        lower = upper = np.zeros(1)
    elif table.problem.goal is Goal.PROFIT:
        if not first:
            terms.append((row[None], form.x, -1.0))
        lower, upper = np.full(1, -np.inf if first else 0.0), upper if first else np.zeros(1)
    rows = form.program.add_rows(classes * periods, *terms, lower=lower, upper=upper)
    if first:
        form.rows["demand"] = rows.reshape(classes, periods)


def keep_within_capacity(form: Formulation, x: Ints) -> Ints:
    """Load adds up over classes:  Σ_k x_ikt / r_ik ≤ (1 - reserve_i) Σ_{j in i} n_jt  for all i, t.

    The reserve is the share of spot capacity that stays idle; it is zero for all others. A whole class loads at least
    LEAST_LOAD of a block: less is within the tolerances of solvers, which would serve it with no block at all. Returns
    the rows, I x T.
    """
    table = form.table
    count, _, periods = x.shape
    row = np.arange(count * periods).reshape(count, periods)
    demand = np.full_like(table.demand.T, np.inf) if form.scale != NONE else table.demand.T
    with np.errstate(divide="ignore"):
        load = np.where(form.rates > 0, 1.0 / form.rates, 0.0)[:, :, None]
        least = np.where((load > 0) & (demand > 0), LEAST_LOAD / demand, 0.0)
    load = np.maximum(load, least)
    usable = 1.0 - table.problem.spot_reserve * table.spot
    rows = form.program.add_rows(
        count * periods,
        (row[:, None, :], x, load),
        (row[form.split], form.n, -usable[:, None]),
        upper=0.0,
    )
    return np.asarray(rows.reshape(count, periods))


def keep_within_power(form: Formulation) -> None:
    """Power stays below the limit in every period:  Σ_j w_j n_jt ≤ W   [kW]."""
    if form.table.problem.power_w is not None:
        # In kW: rows of like size keep the solver's tolerances meaningful.
        every = np.ones(form.table.count, dtype=np.bool_)
        form.rows["power"] = _sum_by_period(form, form.table.power * 1e-3, every, form.table.problem.power_w * 1e-3)


def keep_within_site_power(form: Formulation) -> None:
    """So does the power of each site:  Σ_{j at site} w_j n_jt ≤ W_site   [kW]."""
    for site, limit in form.table.problem.site_power_w.items():
        there = form.table.matches("site", site)
        if there.any():
            form.rows[f"power[{site}]"] = _sum_by_period(form, form.table.power * 1e-3, there, limit * 1e-3)


def keep_within_budget(form: Formulation) -> None:
    """Mean spending stays below the budget:  Σ_jt h_t c_jt n_jt ≤ B   [USD/h]."""
    if form.table.problem.budget_usd_per_hour is not None:
        form.rows["budget"] = np.array([form.program.at_most(form.cost(), form.table.problem.budget_usd_per_hour)])


def keep_within_stock(form: Formulation) -> None:
    """Stock is not exceeded:  Σ_j u_jo n_jt ≤ units of offer o,  Σ_j a_jg n_jt ≤ accelerators of type g  for all t.

    u_jo and a_jg are zero but for the offers and types that a block has parts of.
    """
    table = form.table
    names, numbers = table.values["offer"], table.parts.labels["offer"]
    limits = np.array([table.problem.offer_units.get(name, math.inf) for name in names])
    limited = np.flatnonzero(np.isfinite(limits))
    limited = limited[np.isin(limited, numbers)]
    if len(limited):
        position = np.full(len(names), NONE)
        position[limited] = np.arange(len(limited))
        periods = len(table.hours)
        entries: list[tuple[ArrayLike, ArrayLike, ArrayLike]] = []
        for own, units in zip(numbers.T, table.parts.units.T, strict=True):
            (of,) = np.nonzero((own != NO_PART) & (position[own] != NONE))
            row = position[own[of]][:, None] * periods + np.arange(periods)
            entries.append((row, form.n[of], units[of][:, None]))
        rows = form.program.add_rows(
            len(limited) * periods, *entries, upper=np.repeat(limits[limited], periods)
        ).reshape(len(limited), periods)
        form.rows |= {f"offer[{names[o]}]": rows[i] for i, o in enumerate(limited.tolist())}
    for accelerator, stock in table.problem.accelerator_stock.items():
        of_type = table.matching_parts(accelerator=accelerator)
        if of_type.any():
            amount = table.accelerators_in(of_type)
            form.rows[f"stock[{accelerator}]"] = _sum_by_period(
                form, amount, np.asarray(of_type.any(axis=1)), float(stock)
            )


def keep_within_caps(form: Formulation) -> None:
    """Quotas and commitments:  least ≤ Σ_{j matching} q_j n_jt ≤ most  for all t, with q what the cap counts."""
    for cap in form.table.problem.caps:
        matching, amount = cap_terms(form.table, cap)
        if matching.any() or cap.least > 0:
            form.rows[f"cap[{cap.name}]"] = _sum_by_period(form, amount, matching, cap.most, least=cap.least)


def _sum_by_period(form: Formulation, amount: Floats, which: Bools, most: float, *, least: float = 0.0) -> Ints:
    """Add  least ≤ Σ_j a_j n_jt ≤ most  for all t and return the rows."""
    (of,) = np.nonzero(which)
    periods = len(form.table.hours)
    each = amount[of] if amount.ndim == 2 else amount[of][:, None]
    lower = least if least > 0 else -np.inf
    return form.program.add_rows(periods, (np.arange(periods)[None], form.n[of], each), lower=lower, upper=most)


def keep_within_spot_share(form: Formulation) -> None:
    """Spot serves at most a share of each class:  (1-σ) Σ_{i spot} x_ikt ≤ σ Σ_{i other} x_ikt  for all k, t."""
    share = form.table.problem.most_spot_share
    if share is None or not form.table.spot.any():
        return
    _, first = np.unique(form.split, return_index=True)
    spot = form.table.spot[first]
    classes, periods = form.x.shape[1:]
    row = np.arange(classes * periods).reshape(classes, periods)
    each = np.where(spot, 1.0 - share, -share)[:, None, None]
    rows = form.program.add_rows(classes * periods, (row[None], form.x, each), upper=0.0)
    form.rows["spot"] = rows.reshape(classes, periods)


def keep_within_carbon(form: Formulation) -> None:
    """Mean emissions stay below the limit:  Σ_jt h_t g_jt n_jt ≤ G   [kg/h]."""
    limit = form.table.problem.carbon_g_per_hour
    if limit is not None:
        form.rows["carbon"] = np.array([form.program.at_most(form.carbon() * 1e-3, limit * 1e-3)])


def limit_accelerator_types(form: Formulation, most: Floats) -> None:
    """At most K types are used:  n_jt ≤ M_jt z_g  for all j with a part of type g and t,  Σ_g z_g ≤ K,  z binary."""
    limit, numbers = form.table.problem.most_accelerator_types, form.table.parts.labels["accelerator"]
    present = np.unique(numbers[numbers != NO_PART])
    if limit is None or limit >= len(present):
        return
    used = np.full(len(form.table.values["accelerator"]), NONE)
    used[present] = form.program.add_variables(len(present), upper=1.0, integer=True)
    n, at = np.unique(form.n, return_index=True)
    at = at[n != NONE]
    j, t = np.unravel_index(at, form.n.shape)
    variable = form.n[j, t]
    each = np.where(form.table.flexible[j], most[j, t], most[j].max(axis=1))
    for own in numbers[j].T:
        (some,) = np.nonzero(own != NO_PART)
        row = np.arange(len(some))
        form.program.add_rows(len(some), (row, variable[some], 1.0), (row, used[own[some]], -each[some]), upper=0.0)
    form.rows["types"] = form.program.add_rows(1, (np.zeros(len(present)), used[present], 1.0), upper=limit)


def penalise_changes(form: Formulation) -> None:
    """Penalise changes from today's fleet:  δ_jt ≥ n_jt - n0_j,  δ_jt ≥ n0_j - n_jt;  δ = n where n0 = 0."""
    table = form.table
    if not table.problem.change_usd_per_accelerator_hour:
        return
    weight = table.accelerators[:, None] * np.broadcast_to(table.weight, form.n.shape)
    kept = (table.current > 0)[:, None] & (form.n != NONE)
    new = (table.current == 0)[:, None] & (form.n != NONE)
    form.changes.append((form.n[new], weight[new]))
    # A column that is fixed over the horizon has one variable, and one δ with the weight of its periods.
    variable, inverse = np.unique(form.n[kept], return_inverse=True)
    total = np.bincount(inverse, weights=weight[kept], minlength=len(variable))
    before = np.zeros(len(variable))
    before[inverse] = np.broadcast_to(table.current[:, None], form.n.shape)[kept]
    delta = form.program.add_variables(len(variable))
    row = np.arange(len(variable))
    form.program.add_rows(len(variable), (row, variable, 1.0), (row, delta, -1.0), upper=before)
    form.program.add_rows(len(variable), (row, variable, 1.0), (row, delta, 1.0), lower=before)
    form.changes.append((delta, total.astype(np.float64)))


def bound_peak_power(form: Formulation) -> None:
    """Keep the peak no less than any period's power:  Σ_j w_j n_jt ≤ P  for all t   [kW]."""
    form.peak = int(form.program.add_variables(1)[0])
    periods = len(form.table.hours)
    row = np.arange(periods)
    power = form.table.power[:, None] * 1e-3
    form.program.add_rows(periods, (row[None], form.n, power), (row, form.peak, -1.0), upper=0.0)


def survive(form: Formulation, failure: Failure, most: Floats) -> None:
    """After a failure in period t a new split y of the load serves everything:

        Σ_i y_ik = Σ_i x_ikt  for all k
        Σ_k y_ik / r_ik ≤ (1 - reserve_i) (n_it - u_it)   a block of split i lost, where any is in use:  n_jt ≤ M_j u_it
        y_ik = 0                                          i in the zone that is lost

    The spot reserve stays idle in a failure too; the limit on the spot share is not asked for then.
    """
    t = failure.period
    gone = np.zeros(len(form.rates), dtype=np.bool_)
    if failure.zone != NONE:
        gone[np.unique(form.split[form.table.labels["zone"] == failure.zone])] = True
    y = np.full(form.x.shape, NONE)
    used = (form.x[:, :, t] != NONE) & ~gone[:, None]
    one = np.full(used.shape, NONE)
    one[used] = form.program.add_variables(int(used.sum()))
    y[:, :, t] = one
    only = [t]
    sliced = _one_period(form, t)
    serve_every_class(sliced, y[:, :, only])
    rows = keep_within_capacity(sliced, y[:, :, only])
    if failure.family != NONE:
        # Where columns are rolled into groups, several splits may have the family: one of them is lost then.
        inside = (form.table.family == failure.family) & (form.n[:, t] != NONE)
        if not inside.any():
            return
        split = int(form.split[inside].min())
        inside &= form.split == split
        (lost,) = form.program.add_variables(1, upper=1.0, integer=True)
        (members,) = np.nonzero(inside)
        usable = 1.0 - form.table.problem.spot_reserve * float(form.table.spot[members[0]])
        # The block that is lost:  n - u  instead of  n  in the split's row.
        form.program.add_entries(rows[split, 0], int(lost), usable)
        row = np.arange(len(members))
        limit = np.maximum(most[members, t] if form.table.flexible[members].all() else most[members].max(axis=1), 1.0)
        form.program.add_rows(len(members), (row, form.n[members, t], 1.0), (row, lost, -limit), upper=0.0)


def serves_one_class(table: Table) -> bool:
    """Whether every column serves one class: what a failure takes is then known without a new split of the load."""
    return bool(((table.rates > 0).sum(axis=1) <= 1).all())


def survive_apart(form: Formulation, most: Floats) -> None:
    """Where columns serve one class each, what is left after any failure is enough, for all k and t:

        Σ_i a_ik n_it - R_kt ≥ Σ_i x_ikt,   R_kt ≥ a_ik u_it,  n_jt ≤ M_j u_it      one block of any split i in use
        Σ_{i not in z} a_ik n_it ≥ Σ_i x_ikt                                        any zone z

    with a_ik = (1 - reserve_i) r_ik. A block that is lost takes its own class's requests only, and the blocks that are
    left take any of them, so the sum is all there is to a new split.
    """
    table = form.table
    usable = 1.0 - table.problem.spot_reserve * table.spot
    able = table.rates * usable[:, None]  # J x K
    zones = table.labels["zone"]
    lost = [NONE] if table.problem.survive is Survive.NODE else np.unique(zones).tolist()
    for k, t, zone in itertools.product(range(able.shape[1]), range(len(table.hours)), lost):
        (serving,) = np.nonzero((able[:, k] > 0) & (form.n[:, t] != NONE))
        if not serving.size:
            continue
        left = serving if zone == NONE else serving[zones[serving] != zone]
        x = form.x[:, k, t][form.x[:, k, t] != NONE]
        entries = [(0, form.n[left, t], able[left, k]), (0, x, -1.0)]
        if zone == NONE:
            entries.append((0, _largest_block(form, serving, able[:, k], most, t), -1.0))
        form.program.add_rows(1, *entries, lower=0.0)


def _largest_block(form: Formulation, serving: Ints, able: Floats, most: Floats, t: int) -> int:
    """Add R_kt: no less than what any block in use serves. Columns of one split have one u."""
    (largest,) = form.program.add_variables(1)
    own, number = np.unique(form.split[serving], return_inverse=True)
    used = form.program.add_variables(len(own), upper=1.0, integer=True)
    rate = np.zeros(len(own))
    rate[number] = able[serving]
    row = np.arange(len(own))
    form.program.add_rows(len(own), (row, np.full(len(own), largest), 1.0), (row, used, -rate), lower=0.0)
    limit = np.maximum(np.where(form.table.flexible[serving], most[serving, t], most[serving].max(axis=1)), 1.0)
    row = np.arange(len(serving))
    form.program.add_rows(len(serving), (row, form.n[serving, t], 1.0), (row, used[number], -limit), upper=0.0)
    return int(largest)


def _one_period(form: Formulation, t: int) -> Formulation:
    """Return a view of the same program with the demand, blocks and rates of one period."""
    table = replace(form.table, hours=form.table.hours[t : t + 1], demand=form.table.demand[t : t + 1])
    return Formulation(
        form.program,
        table,
        form.n[:, t : t + 1],
        form.split,
        form.rates,
        form.x[:, :, t : t + 1],
        form.scale,
        form.peak,
        form.changes,
        form.rows,
    )
