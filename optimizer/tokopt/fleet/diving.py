"""A feasible fleet from fractional set-ups: whole numbers of each group are given, and are dealt out to its set-ups.

The linear program  max s  over the set-ups of the groups that are in use, with the groups' blocks fixed, is solved
again and again; each time one fractional set-up is rounded up, the one of the most fractional few that leaves the
largest s. If s ≥ 1 at the end, the fleet serves the demand at the very cost of the groups' program.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tokopt.fleet.engine import LinearProgram
from tokopt.fleet.formulation import Failure, formulate
from tokopt.fleet.outcome import Outcome
from tokopt.fleet.problem import Goal, Stop
from tokopt.fleet.program import NONE, Ints
from tokopt.fleet.table import Table

LOOK_AHEAD = 3  # set-ups that are tried in each step
WHOLE = 1e-6
ENOUGH = 1.0 - 1e-9  # of the demand
HOPELESS = 3e-4  # of the demand: what is missing by more is not made up by swaps
MOST_STEPS = 400
MOST_SWAPS = 400  # that are tried


def dive(table: Table, group: Ints, counts: Ints, failures: tuple[Failure, ...]) -> Outcome | None:
    """Return a fleet with the given blocks of each group and period that serves the demand, or None.

    Args:
        table: Set-ups worth using; every group in use has one at least.
        group: J: the group of each.
        counts: Groups x T.
        failures: What has to be survived.
    """
    problem = replace(table.problem, goal=Goal.THROUGHPUT, then=(), budget_usd_per_hour=None)
    form = formulate(replace(table, problem=problem), failures)
    program = form.program
    variables, first = np.unique(form.n, return_index=True)
    first, variables = first[variables != NONE], variables[variables != NONE]
    j, t = np.unravel_index(first, form.n.shape)
    whole = counts[group[j], t].astype(np.float64)
    program.upper[variables] = np.minimum(program.upper[variables], whole)
    if (program.lower[variables] > program.upper[variables]).any():
        return None
    # A group's set-ups in one period; those that are fixed over the horizon appear once.
    _, row, row_of = np.unique(group[j] * counts.shape[1] + t, return_inverse=True, return_index=True)
    program.add_rows(len(row), (row_of, variables, 1.0), lower=whole[row], upper=whole[row])
    relaxed = LinearProgram(program, program.vector((form.scale, -1.0)))
    values = relaxed.solve()
    for _ in range(MOST_STEPS):
        if values is None or values[form.scale] < ENOUGH - HOPELESS:
            return None
        n = values[variables]
        up = np.ceil(n - WHOLE)
        fractional = np.flatnonzero(up - n > WHOLE)
        if not len(fractional):
            break
        ranked = fractional[np.argsort(up[fractional] - n[fractional], kind="stable")][:LOOK_AHEAD]
        values = _best_step(relaxed, variables, up, ranked, form.scale)
    else:
        return None
    if values[form.scale] < ENOUGH:
        values = _swapped(relaxed, variables, row_of, values, form.scale)
    if values[form.scale] < ENOUGH:
        return None
    blocks = np.where(form.n == NONE, 0, np.round(values[form.n])).astype(np.int64)
    x = np.where(form.x == NONE, 0.0, np.maximum(values[form.x], 0.0)) / values[form.scale]
    return Outcome(
        stop=Stop.TIME_LIMIT,
        table=table,
        blocks=blocks,
        x=x,
        split=form.split,
        objective=np.inf,
        bound=-np.inf,
        solver="HiGHS",
        detail="blocks of groups dealt out to set-ups",
    )


def _best_step(
    relaxed: LinearProgram, variables: Ints, up: np.ndarray, ranked: np.ndarray, scale: int
) -> np.ndarray | None:
    """Round the one set-up up that leaves the largest s, and return the values then."""
    best, best_values = NONE, None
    for i in ranked.tolist():
        lower = relaxed.lower(int(variables[i]), float(up[i]))
        values = relaxed.solve()
        if values is not None and (best_values is None or values[scale] > best_values[scale] + 1e-12):
            best, best_values = i, values
        relaxed.lower(int(variables[i]), lower)
        if values is not None and len(ranked) == 1:
            break
    if best == NONE:
        return None
    relaxed.lower(int(variables[best]), float(up[best]))
    return best_values


def _swapped(relaxed: LinearProgram, variables: Ints, row: Ints, values: np.ndarray, scale: int) -> np.ndarray:
    """Move single blocks from one set-up of a group to another while that raises s, and return the values then."""
    n = np.round(values[variables])
    for variable, count in zip(variables.tolist(), n.tolist(), strict=True):
        relaxed.fix(variable, count)
    tried, improved = 0, True
    while improved and tried < MOST_SWAPS and values[scale] < ENOUGH:
        improved = False
        pairs = [(i, j) for i in np.flatnonzero(n > 0).tolist() for j in np.flatnonzero(row == row[i]).tolist()]
        for a, b in pairs:
            if a == b or n[a] == 0 or not relaxed.allows(int(variables[b]), n[b] + 1.0):
                continue
            tried += 1
            relaxed.fix(int(variables[a]), n[a] - 1.0)
            relaxed.fix(int(variables[b]), n[b] + 1.0)
            after = relaxed.solve()
            if after is not None and after[scale] > values[scale] + 1e-9:
                n[a], n[b], values, improved = n[a] - 1.0, n[b] + 1.0, after, True
                if values[scale] >= ENOUGH:
                    break
            else:
                relaxed.fix(int(variables[a]), n[a])
                relaxed.fix(int(variables[b]), n[b])
    return values
