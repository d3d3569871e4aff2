"""Least cost per token, a ratio, by Dinkelbach's method.

min cost(n)/tokens(x) over fleets that fill the limits. For a guess q, F(q) = min cost - q·tokens; F(q) = 0 exactly at
the optimum, and the minimiser's own ratio is the next guess (Dinkelbach, Management Science 13(7), 1967). With a proven
bound b ≤ F(q) every fleet's ratio is at least q + b/(most tokens), which is the bound reported.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from tokopt.errors import InputError
from tokopt.fleet.engine import Effort, minimise
from tokopt.fleet.formulation import MILLION_TOKENS_PER_HOUR, Formulation, formulate
from tokopt.fleet.grouping import grouped, promising
from tokopt.fleet.outcome import SAME, Outcome, nothing, read
from tokopt.fleet.problem import Stop
from tokopt.fleet.program import Floats
from tokopt.fleet.search import Search, start_of
from tokopt.fleet.table import Table

ROUNDS = 30  # gains digits superlinearly; 3 is the usual number
FINE = 1e-5  # gaps below are closed to the last digit that solvers have
ROUNDING = 1e-6  # of the largest block, by which the limits may be less than full: solvers' tolerance


@dataclass(frozen=True, slots=True)
class Ratio:
    """The fleet with the least cost per token, over a program with the rows of its being full."""

    outcome: Outcome  # its objective is the ratio
    form: Formulation


def cheapest_tokens(table: Table, search: Search) -> Ratio:
    """Return the fleet with the least cost per token; its bound holds for all columns of the table.

    Groups of columns bound the ratio as they bound costs: they have the same costs and power and make no fewer tokens.
    The fleet is then looked for over the set-ups that they suggest, and over all columns if that is not close enough.
    """
    groups = grouped(table)
    if groups is None or not _fills_power(table) or table.problem.then:
        return _dinkelbach(table, search)
    bound, inner = -math.inf, None
    try:
        outer = _dinkelbach(groups.table, _part(search, 0.3, search.gap / 3.0)).outcome
        if outer.found:
            bound = outer.bound
            small = table.take(promising(table, groups, outer.x[outer.split].max(axis=2) * outer.used[:, None]))
            inner = _dinkelbach(small, _part(search, 0.4, search.gap / 3.0), full=_full_power(table, search))
    except InputError:
        pass
    if inner is not None and inner.outcome.found:
        close = replace(inner.outcome, bound=min(bound, inner.outcome.objective))
        if close.gap <= search.gap:
            return Ratio(replace(close, stop=Stop.OPTIMAL), inner.form)
        inner = Ratio(replace(close, stop=Stop.TIME_LIMIT), inner.form)
    try:
        whole = _dinkelbach(table, search)
    except InputError:
        if inner is None or not inner.outcome.found:
            raise
        return inner
    if not whole.outcome.found:
        return whole
    if inner is None or not inner.outcome.found or whole.outcome.objective <= inner.outcome.objective:
        best = whole
    else:
        best = inner
    sharper = min(max(bound, whole.outcome.bound), best.outcome.objective)
    outcome = replace(best.outcome, bound=sharper)
    return Ratio(replace(outcome, stop=Stop.OPTIMAL if outcome.gap <= search.gap else Stop.TIME_LIMIT), best.form)


def _part(search: Search, share: float, gap: float) -> Search:
    """Return a search with a share of the time that is left."""
    return replace(search, deadline=search.effort(share=share).deadline, gap=gap)


def _dinkelbach(table: Table, search: Search, *, full: float | None = None) -> Ratio:
    form = formulate(table, search.failures)
    filled = fill(form, search, full)
    if filled is None:
        return Ratio(nothing(table, "HiGHS", "nothing can be served"), form)
    most_tokens, start = filled
    cost, tokens = form.cost() + form.change(), form.tokens()
    # From a fleet that serves something on, every guess is reached or beaten: none that serves nothing can win.
    answer = minimise(form.program, -tokens, search.effort(share=0.3), start_of(form, start))
    if not answer.found or float(tokens @ answer.values) <= 0.0:
        return Ratio(nothing(table, answer.solver, answer.detail), form)
    ratio = float(cost @ answer.values) / float(tokens @ answer.values)
    for _ in range(ROUNDS):
        before = start_of(form, read(form, answer))
        answer = minimise(form.program, cost - ratio * tokens, _near_zero(search, ratio * most_tokens), before)
        if not answer.found:
            return Ratio(nothing(table, answer.solver, answer.detail), form)
        made = float(tokens @ answer.values)
        found = float(cost @ answer.values) / made if made > 0.0 else ratio
        if abs(found - ratio) <= SAME * ratio:
            ratio = min(ratio, found)
            break
        ratio = min(found, ratio) if answer.stop is Stop.TIME_LIMIT else found
        if answer.stop is Stop.TIME_LIMIT:
            break
    below = answer.bound
    if below == -math.inf:
        relaxed = minimise(form.program, cost - ratio * tokens, replace(search.effort(), relaxed=True))
        below = relaxed.bound
    slack = max(0.0, -(below - min(answer.objective, 0.0)))
    bound = ratio - slack / most_tokens
    # Dinkelbach's last objective is zero up to rounding: a bound as close as rounding allows is exact.
    bound = ratio if ratio - bound <= SAME * ratio else bound
    return Ratio(replace(read(form, answer), objective=ratio, bound=bound), form)


def _near_zero(search: Search, scale: float) -> Effort:
    """Return the effort for an objective whose optimum is zero at the end, where a relative gap means nothing."""
    return replace(search.effort(), absolute_gap=0.3 * search.gap * scale if search.gap > FINE else 1e-9)


def fill(form: Formulation, search: Search, full: float | None = None) -> tuple[float, Outcome] | None:
    """Require that the fleet fills its limits; return the most million tokens an hour they allow, and that fleet.

    Without this the cheapest token might come from one lone machine. A fleet is full when the power that is left could
    not take one more of the largest block:  Σ w_j n_j ≥ (most power that can be used) - max_j w_j. Where there is no
    power limit, or there are several periods, tokens take the place of power.
    """
    table, tokens = form.table, form.tokens()
    most = minimise(form.program, -tokens, search.effort(share=0.5))
    if not most.found or float(tokens @ most.values) <= 0.0:
        return None
    start = read(form, most)
    if not _fills_power(table):
        biggest = float(biggest_tokens(table).max())
        form.program.at_most(-tokens, -max(float(tokens @ most.values) - biggest * (1.0 + ROUNDING), 0.0))
        return -most.bound, start
    form.program.at_most(-form.energy(), -(_full_power(table, search) if full is None else full))
    return -most.bound, start


def _fills_power(table: Table) -> bool:
    return table.problem.power_w is not None and bool((table.power > 0).any()) and len(table.hours) == 1


def _full_power(table: Table, search: Search) -> float:
    """Return the power of a fleet that is full: the most that can be used, less that of the largest block   [kW]."""
    return max(_usable(table, search) - float(table.power.max()) * 1e-3 * (1.0 + ROUNDING), 0.0)


def _usable(table: Table, search: Search) -> float:
    if _only_power_limits(table) and table.problem.power_w is not None:
        counts = np.floor(table.problem.power_w / np.where(table.power > 0, table.power, np.inf) * (1 + 1e-12))
        return float((counts * table.power).max()) * 1e-3
    form = formulate(table, search.failures)
    used = minimise(form.program, -form.energy(), search.effort(share=0.2))
    return float(form.energy() @ used.values) if used.found else 0.0


def _only_power_limits(table: Table) -> bool:
    problem = table.problem
    several = (problem.budget_usd_per_hour, problem.most_accelerator_types, problem.carbon_g_per_hour)
    mappings = (problem.offer_units, problem.accelerator_stock, problem.site_power_w, problem.caps)
    own = bool(np.isfinite(table.most).any())
    return all(limit is None for limit in several) and not any(mappings) and not own


def biggest_tokens(table: Table) -> Floats:
    """Return J: the most million tokens/h that a block of each column makes."""
    return np.asarray((table.rates * table.tokens).max(axis=1, initial=0.0) * MILLION_TOKENS_PER_HOUR)
