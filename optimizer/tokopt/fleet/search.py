"""Making one linear goal best: bound by groups, find by diving and by period, close with the whole program."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np

from tokopt.errors import InputError
from tokopt.fleet.bounds import SCALED
from tokopt.fleet.diving import dive
from tokopt.fleet.engine import Effort, Start, minimise
from tokopt.fleet.failures import not_survived
from tokopt.fleet.formulation import Failure, Formulation, formulate, serves_one_class
from tokopt.fleet.grouping import Groups, grouped, promising
from tokopt.fleet.outcome import SAME, Outcome, figures, nothing, objective_of, read, value_of
from tokopt.fleet.pricing import cheapest, relax
from tokopt.fleet.problem import Goal, Stop, Survive
from tokopt.fleet.program import NONE, Floats, Ints
from tokopt.fleet.table import Bools, Table

SEPARABLE = (Goal.COST, Goal.PROFIT, Goal.CARBON)  # sums over periods
ROOMY_NODES = 200  # of a search for a fleet with room, which need not be the one with most
MOST_COPIES = 400_000  # rate variables of failures in a relaxation over all columns
MOST_KNOWN = 3_000  # blocks by column and period
LARGE = 40_000  # rate variables: from there on the search of fleets goes by period


@dataclass(frozen=True, slots=True)
class Search:
    """What one search is given: what has to be survived, until when, and how close."""

    failures: tuple[Failure, ...]
    deadline: float  # time.monotonic()
    gap: float

    def effort(self, *, share: float = 1.0, **changes: object) -> Effort:
        """Return the effort for one call of a solver: a share of the time that is left."""
        until = time.monotonic() + share * max(self.deadline - time.monotonic(), 0.05)
        return replace(Effort(deadline=until, gap=self.gap), **changes)  # type: ignore[arg-type]


def best(table: Table, goal: Goal, search: Search) -> Outcome:
    """Return the best fleet for a linear goal, with a bound that holds for all columns of the table.

    Raises:
        InputError: Nothing was found in time.
    """
    groups = grouped(table)
    if groups is None or _all_failures_known(table):
        return direct(table, goal, search)
    if len(table.hours) > 1 or groups.table.count * table.rates.shape[1] > LARGE:
        return _large(table, groups, goal, search)
    try:
        outer = direct(groups.table, goal, search, bound_first=True, share=0.5, gap=search.gap / 3.0)
    except InputError:
        return direct(table, goal, search)
    if not outer.found:
        return nothing(table, outer.solver, outer.detail)
    enough = outer.bound + search.gap * abs(outer.bound)
    found, small = _dealt(table, groups, outer, goal, search)
    if found is None and goal is Goal.COST:
        roomy = _roomy(groups.table, outer, enough, search)
        found, small = (None, small) if roomy is None else _dealt(table, groups, roomy, goal, search)
        found = None if found is None else valued(found, goal, outer.bound)
    bound = outer.bound
    if found is None or found.objective > enough:
        bound = _sharper(groups.table, goal, search, outer)
        enough = bound + search.gap * abs(bound)
        found = None if found is None else valued(found, goal, bound)
    if found is None or found.objective > enough:
        inner = _tried(small, goal, search, bound, enough, found, share=0.5)
        found = inner if inner is not None and (found is None or inner.objective <= found.objective) else found
    if found is not None and found.gap <= search.gap:
        return replace(found, stop=Stop.OPTIMAL)
    return closed(table, goal, search, bound, found)


def _all_failures_known(table: Table) -> bool:
    """Whether the program itself has all failures, which groups know nothing of, and is small enough to be solved."""
    known = table.problem.survive is not Survive.NONE and serves_one_class(table)
    return known and table.count * len(table.hours) <= MOST_KNOWN


def _dealt(table: Table, groups: Groups, outer: Outcome, goal: Goal, search: Search) -> tuple[Outcome | None, Table]:
    """Return the groups' fleet dealt out to set-ups, if that works, and the columns that are worth using for it."""
    served = outer.x[outer.split].max(axis=2) * (outer.blocks.max(axis=1) > 0)[:, None]
    kept = promising(table, groups, served)
    small = table.take(kept)
    if goal in SCALED or goal is Goal.PROFIT or not small.count:
        return None, small
    found = dive(small, groups.of[kept], outer.blocks, search.failures)
    return (None if found is None else valued(found, goal, outer.bound)), small


def _roomy(table: Table, outer: Outcome, enough: float, search: Search) -> Outcome | None:
    """Return the groups' fleet that could serve most at a cost that is good enough: it leaves set-ups some room."""
    problem = replace(table.problem, goal=Goal.THROUGHPUT, then=(), most_accelerator_types=None)
    limit = outer.bound + 0.95 * (enough - outer.bound)
    if problem.change_usd_per_accelerator_hour:
        return None
    budget = limit if problem.budget_usd_per_hour is None else min(limit, problem.budget_usd_per_hour)
    roomy = replace(table, problem=replace(problem, budget_usd_per_hour=budget))
    try:
        found = direct(roomy, Goal.THROUGHPUT, search, start=outer, share=0.05, gap=search.gap / 5.0, nodes=ROOMY_NODES)
    except InputError:
        return None
    return found if found.found and -found.objective >= 1.0 else None


def valued(outcome: Outcome, goal: Goal, bound: float) -> Outcome:
    """Return a fleet with its value of a goal, and a bound that is known."""
    value = value_of(goal, outcome)
    return replace(outcome, objective=value, bound=min(bound, value))


def _tried(
    small: Table, goal: Goal, search: Search, bound: float, enough: float, start: Outcome | None, *, share: float
) -> Outcome | None:
    """Return the best fleet over some columns, or None; what is proven there says nothing of the others."""
    if not small.count:
        return None
    try:
        found = direct(small, goal, search, start=start, target=enough, share=share, bound=bound)
    except InputError:
        return None
    return replace(found, bound=min(bound, found.objective), stop=Stop.TIME_LIMIT) if found.found else None


def closed(table: Table, goal: Goal, search: Search, bound: float, found: Outcome | None) -> Outcome:
    """Return the best fleet of the whole program, started from one that was found, with the sharper of two bounds."""
    enough = bound + search.gap * abs(bound)
    try:
        whole = direct(table, goal, search, start=found, target=enough, bound=bound)
    except InputError:
        if found is None:
            raise
        return replace(found, stop=Stop.TIME_LIMIT)
    if found is None or (whole.found and whole.objective <= found.objective):
        return whole
    sharper = min(max(bound, whole.bound), found.objective) if whole.found else bound
    found = replace(found, bound=sharper)
    return replace(found, stop=Stop.OPTIMAL if found.gap <= search.gap else Stop.TIME_LIMIT)


def direct(
    table: Table,
    goal: Goal,
    search: Search,
    *,
    start: Outcome | None = None,
    bound: float = -np.inf,
    share: float = 1.0,
    **changes: object,
) -> Outcome:
    """Solve the program as it is."""
    form = formulate(table, search.failures, keep=frozenset({goal}))
    effort = search.effort(share=share, **changes)
    answer = minimise(form.program, objective_of(form, goal), effort, None if start is None else start_of(form, start))
    outcome = read(form, answer, bound)
    if outcome.found and outcome.gap <= search.gap:
        outcome = replace(outcome, stop=Stop.OPTIMAL)
    return outcome


def start_of(form: Formulation, outcome: Outcome) -> Start:
    """Return a fleet as values of the blocks of a program whose table may have more columns."""
    position = {s: i for i, s in enumerate(form.table.source.tolist())}
    blocks = np.zeros(form.n.shape)
    for i, s in enumerate(outcome.table.source.tolist()):
        if s in position:
            blocks[position[s]] = outcome.blocks[i]
    there = form.n != NONE
    variables, first = np.unique(form.n[there], return_index=True)
    return Start(variables, blocks[there][first])


# Many periods, or many columns ----------------------------------------------------------------------------------------


def _large(table: Table, groups: Groups, goal: Goal, search: Search) -> Outcome:
    """Bound by the linear relaxation, find fleets period by period, and close what is left of the gap."""
    few = len(search.failures) * table.rates.shape[1] * table.count < MOST_COPIES
    failures = search.failures if few else ()
    sharper = relax(table, goal, failures, cheapest(table), search.effort(share=0.4, relaxed=True))
    bound, kept = -np.inf, cheapest(table)
    if sharper is None:
        # What is cheap does not serve everything within the limits: groups say what does.
        outer = _relaxed_groups(groups.table, goal, search)
        if outer is not None and not outer.found:
            return nothing(table, outer.solver, outer.detail)
        if outer is not None:
            bound = outer.bound
            kept = promising(table, groups, outer.x[outer.split].max(axis=2) * outer.used[:, None])
            if kept.any():
                sharper = relax(table, goal, failures, kept, search.effort(share=0.5, relaxed=True))
    if sharper is not None:
        bound, kept = sharper.bound, sharper.active
    small = table.take(kept)
    found = by_period(small, goal, search, bound) if small.count else None
    if found is not None and found.gap <= search.gap:
        return replace(found, stop=Stop.OPTIMAL)
    enough = bound + search.gap * abs(bound)
    inner = _tried(small, goal, search, bound, enough, found, share=0.5)
    found = inner if inner is not None and (found is None or inner.objective <= found.objective) else found
    if found is not None and found.gap <= search.gap:
        return replace(found, stop=Stop.OPTIMAL)
    bound = _sharper(groups.table, goal, search, bound)
    if found is not None:
        found = valued(found, goal, bound)
        if found.gap <= search.gap:
            return replace(found, stop=Stop.OPTIMAL)
    return closed(table, goal, search, bound, found)


def _relaxed_groups(table: Table, goal: Goal, search: Search) -> Outcome | None:
    """Return the groups' linear relaxation, blocks rounded up; None where it is not solved in time."""
    form = formulate(table, search.failures, keep=frozenset({goal}))
    try:
        answer = minimise(form.program, objective_of(form, goal), search.effort(share=0.5, relaxed=True))
    except InputError:
        return None
    outcome = read(form, answer)
    if not answer.found:
        return outcome
    up = np.ceil(answer.values - 1e-9)
    return replace(outcome, blocks=np.where(form.n == NONE, 0, up[form.n]).astype(np.int64))


def _sharper(table: Table, goal: Goal, search: Search, known: Outcome | float) -> float:
    """Return the bound of the groups' program in whole blocks, where a third of the time left is enough for one."""
    bound, start = (known.bound, known) if isinstance(known, Outcome) else (known, None)
    try:
        found = direct(table, goal, search, start=start, bound_first=True, share=0.35, gap=search.gap / 20.0)
    except InputError:
        return bound
    return max(bound, found.bound)


def by_period(table: Table, goal: Goal, search: Search, bound: float) -> Outcome | None:
    """Return a fleet with the fixed columns rounded from the relaxation, and the flexible ones the best in each period.

    Only where the periods are apart once the fixed columns are known; None where they are not, or none was found.
    """
    problem = table.problem
    if problem.most_accelerator_types is not None or goal not in SEPARABLE or not table.flexible.any():
        return None
    # Failures hardly change what is fixed: they are added in each period.
    form = formulate(table, keep=frozenset({goal}))
    try:
        relaxed = minimise(form.program, objective_of(form, goal), search.effort(share=0.5, relaxed=True))
    except InputError:
        return None
    if not relaxed.found:
        return None
    n = np.where(form.n == NONE, 0.0, relaxed.values[form.n])
    useful = n.max(axis=1) > 1e-9
    candidates: list[Outcome] = []
    for up in (0.5, 1.0):
        fixed = np.floor(n.max(axis=1) + (1e-6 if up == 0.5 else 0.0) + up - (1e-6 if up == 1.0 else 0.0))
        found = _each_period(table, fixed, useful, goal, search)
        if found is not None and _keeps_means(found):
            candidates.append(valued(found, goal, bound))
            if candidates[-1].gap <= search.gap:
                break
    return min(candidates, key=lambda o: o.objective, default=None)


def _keeps_means(outcome: Outcome) -> bool:
    """Return whether a fleet keeps the limits on means over the horizon: budget and emissions."""
    problem, f = outcome.table.problem, figures(outcome)
    limits = ((f.cost, problem.budget_usd_per_hour), (f.carbon, problem.carbon_g_per_hour))
    return all(limit is None or used <= limit * (1.0 + SAME) for used, limit in limits)


def _each_period(table: Table, fixed: Floats, useful: Bools, goal: Goal, search: Search) -> Outcome | None:
    """Return the fleet with the fixed columns as given and each period solved by itself."""
    whole = np.where(table.flexible, 0, np.maximum(fixed, table.least)).astype(np.int64)
    if (whole > table.most).any():
        return None
    set_up = replace(
        table,
        least=np.where(table.flexible, table.least, whole),
        most=np.where(table.flexible, table.most, whole),
    )
    base = formulate(table)
    blocks = np.zeros((table.count, len(table.hours)), dtype=np.int64)
    x = np.zeros(base.x.shape)
    for t in range(len(table.hours)):
        kept = (table.first <= t) & (np.where(table.flexible, useful, whole > 0) | (set_up.least > 0))
        if not kept.any():
            return None
        one = set_up.take(kept)
        one = replace(one, first=np.zeros(one.count, dtype=np.int64), most=np.maximum(one.most, one.least))
        period = one.period(t)
        # Limits on means say nothing of one period; whether they are kept is seen at the end.
        free = replace(period.problem, budget_usd_per_hour=None, carbon_g_per_hour=None)
        period = replace(period, problem=free)
        found = _surviving(period, goal, search, tuple(replace(f, period=0) for f in search.failures if f.period == t))
        if found is None:
            return None
        blocks[kept, t] = found.blocks[:, 0]
        _place(x, base.split[kept], found, t)
    return Outcome(
        stop=Stop.TIME_LIMIT,
        table=table,
        blocks=blocks,
        x=x,
        split=base.split,
        objective=np.inf,
        bound=-np.inf,
        solver="HiGHS",
        detail="found period by period",
    )


def _surviving(table: Table, goal: Goal, search: Search, known: tuple[Failure, ...]) -> Outcome | None:
    """Return the best fleet of one period that survives whatever may fail, or None."""
    while True:
        try:
            found = direct(table, goal, replace(search, failures=known), share=0.2, gap=search.gap / 2.0)
        except InputError:
            return None
        broken = not_survived(found, known)
        if not broken:
            return found if found.found else None
        known += broken


def _place(x: Floats, split: Ints, found: Outcome, t: int) -> None:
    """Copy the rates of one period's splits to those of the whole table."""
    own, first = np.unique(found.split, return_index=True)
    x[split[first], :, t] = found.x[own, :, 0]
