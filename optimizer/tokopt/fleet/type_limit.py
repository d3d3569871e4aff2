"""At most K accelerator types, exactly: branching over sets of types, each bounded by its linear relaxation.

The program's own rows  n_jt ≤ M_j z_g  have a weak relaxation where fleets are large. There a node of this search is a
set of types that may be used, of which some must be; its bound is the relaxation over the columns of those types. A
node whose set is small enough is solved in whole blocks. The bound of all is the least of what is open and what was
solved.
"""

from __future__ import annotations

import heapq
import itertools
import math
from dataclasses import replace

import numpy as np

from tokopt.errors import InputError
from tokopt.fleet.engine import minimise
from tokopt.fleet.formulation import formulate
from tokopt.fleet.grouping import grouped
from tokopt.fleet.outcome import Outcome, nothing, objective_of
from tokopt.fleet.pricing import cheapest, relax
from tokopt.fleet.problem import Goal, Stop
from tokopt.fleet.program import NONE, Floats
from tokopt.fleet.search import Search, best
from tokopt.fleet.table import NO_PART, Table

LARGE_FLEET = 300.0  # blocks of the relaxation: smaller fleets are solved with the program's own rows
Node = tuple[float, int, frozenset[int], frozenset[int], Floats]  # bound, age, allowed, needed, use of each type


def best_of_few_types(table: Table, goal: Goal, search: Search) -> Outcome:
    """Return the best fleet for a linear goal that keeps the limit on types, if there is one."""
    limit = table.problem.most_accelerator_types
    numbers = table.parts.labels["accelerator"]
    present = frozenset(np.unique(numbers[numbers != NO_PART]).tolist())
    if limit is None or limit >= len(present):
        return best(table, goal, search)
    free = replace(table, problem=replace(table.problem, most_accelerator_types=None))
    root = _relaxed(free, goal, search, present)
    if root is None:
        return nothing(table, "HiGHS", "infeasible with any number of types")
    if len(table.hours) == 1 and root[2] < LARGE_FLEET:
        return best(table, goal, search)
    return _branch(free, goal, search, present, limit, root)


def _branch(
    table: Table, goal: Goal, search: Search, present: frozenset[int], limit: int, root: tuple[float, Floats, float]
) -> Outcome:
    """Search the sets of types, the most promising first."""
    age = itertools.count()
    queue: list[Node] = [(root[0], next(age), present, frozenset(), root[1])]
    found = nothing(table, "HiGHS", f"no {limit} types of accelerators will do")
    solved = math.inf  # least bound of the sets that were solved
    tried: dict[frozenset[int], float] = {}

    def solve(types: frozenset[int]) -> float:
        nonlocal found
        if types not in tried:
            outcome = _solved(table, goal, search, types)
            tried[types] = outcome.bound
            if outcome.found and outcome.objective < found.objective:
                found = outcome
        return tried[types]

    while queue and (not found.found or queue[0][0] < found.objective - search.gap * abs(found.objective)):
        if found.found and search.effort().seconds <= 0.06:
            break
        _, _, allowed, needed, use = heapq.heappop(queue)
        by_use = sorted(allowed - needed, key=lambda g: (-use[g], g))
        guess = frozenset([*needed, *by_use[: limit - len(needed)]])
        if len(allowed) <= limit or len(needed) == limit:
            solved = min(solved, solve(allowed if len(allowed) <= limit else needed))
            continue
        solve(guess)
        chosen = by_use[0]
        for ways in ((allowed, needed | {chosen}), (allowed - {chosen}, needed)):
            types = ways[1] if len(ways[1]) == limit else ways[0]
            node = _relaxed(table, goal, search, types)
            if node is not None:
                heapq.heappush(queue, (node[0], next(age), types, ways[1], node[1]))
    bound = min([solved, *(node[0] for node in queue), found.objective])
    if not found.found:
        return found
    closed = replace(found, bound=bound)
    return replace(closed, stop=Stop.OPTIMAL if closed.gap <= search.gap else Stop.TIME_LIMIT)


def _solved(table: Table, goal: Goal, search: Search, types: frozenset[int]) -> Outcome:
    """Return the best fleet of some types; one that was not found in time has only the bound of none."""
    some = table.take(_of(table, types))
    if not some.count:  # blocks of several types alone may leave none for one type
        return nothing(table, "HiGHS")
    try:
        return best(some, goal, search)
    except InputError:
        return replace(nothing(table, "HiGHS"), bound=-math.inf)


def _of(table: Table, types: frozenset[int]) -> np.ndarray:
    numbers = table.parts.labels["accelerator"]
    return np.asarray((np.isin(numbers, sorted(types)) | (numbers == NO_PART)).all(axis=1))


def _used(table: Table, blocks: Floats) -> Floats:
    """Return how much of each type blocks use, in money: a block of several types counts for each of them."""
    use = np.zeros(len(table.values["accelerator"]))
    for own in table.parts.labels["accelerator"].T:
        some = own != NO_PART
        np.add.at(use, own[some], (blocks * np.abs(table.mean_cost))[some])
    return use


def _relaxed(table: Table, goal: Goal, search: Search, types: frozenset[int]) -> tuple[float, Floats, float] | None:
    """Return the relaxation's bound over some types, how much it uses of each, and its blocks; None if infeasible."""
    some = table.take(_of(table, types))
    if not some.count:
        return None
    groups = grouped(some)
    if groups is not None and len(table.hours) > 1:
        priced = relax(some, goal, search.failures, cheapest(some), search.effort(share=0.3, relaxed=True))
        if priced is not None:
            blocks = priced.blocks @ some.weight
            return priced.bound, _used(some, blocks), float(blocks.sum())
    some = some if groups is None else groups.table
    form = formulate(some, search.failures, keep=frozenset({goal}))
    answer = minimise(form.program, objective_of(form, goal), search.effort(relaxed=True))
    if not answer.found:
        return None
    blocks = np.where(form.n == NONE, 0.0, answer.values[form.n]) @ some.weight
    return answer.bound, _used(some, blocks), float(blocks.sum())
