"""Which failures a fleet does not survive: a linear program for each block and zone in use."""

from __future__ import annotations

import numpy as np

from tokopt.fleet.engine import LinearProgram
from tokopt.fleet.formulation import Failure
from tokopt.fleet.outcome import Outcome
from tokopt.fleet.problem import Survive
from tokopt.fleet.program import Floats, Program

SERVED = 1.0 - 1e-7  # share of the load that has to be served after a failure
MOST_AT_ONCE = 40  # failures that are added to the program in one round, the worst ones first


def not_survived(outcome: Outcome, known: tuple[Failure, ...]) -> tuple[Failure, ...]:
    """Return the failures after which a fleet cannot serve what it serves now, but for those known, worst first."""
    mode = outcome.table.problem.survive
    if mode is Survive.NONE or not outcome.found:
        return ()
    worst: list[tuple[float, Failure]] = []
    for t in range(len(outcome.table.hours)):
        wanted = outcome.x[:, :, t].sum(axis=0)
        if not wanted.any():
            continue
        capacity = capacities(outcome, t)
        rates = _rates(outcome)
        for failure in _failures(outcome, t, mode):
            if failure in known:
                continue
            left = capacity - _lost(outcome, failure, t)
            share = most_served(rates, left, wanted)
            if share < SERVED:
                worst.append((share, failure))
    worst.sort(key=lambda pair: (pair[0], pair[1].period, pair[1].family, pair[1].zone))
    return tuple(failure for _, failure in worst[:MOST_AT_ONCE])


def capacities(outcome: Outcome, t: int) -> Floats:
    """Return the blocks of each split that may be loaded in a period: without the reserve of spot capacity."""
    table = outcome.table
    usable = 1.0 - table.problem.spot_reserve * table.spot
    total = np.zeros(len(outcome.x))
    np.add.at(total, outcome.split, outcome.blocks[:, t] * usable)
    return total


def _rates(outcome: Outcome) -> Floats:
    rates = np.zeros((len(outcome.x), outcome.table.rates.shape[1]))
    rates[outcome.split] = outcome.table.rates
    return rates


def _failures(outcome: Outcome, t: int, mode: Survive) -> list[Failure]:
    used = outcome.blocks[:, t] > 0
    if mode is Survive.NODE:
        return [Failure(t, family=i) for i in np.unique(outcome.table.family[used]).tolist()]
    return [Failure(t, zone=z) for z in np.unique(outcome.table.labels["zone"][used]).tolist()]


def _lost(outcome: Outcome, failure: Failure, t: int) -> Floats:
    """Return the blocks of each split that a failure takes."""
    table = outcome.table
    usable = 1.0 - table.problem.spot_reserve * table.spot
    lost = np.zeros(len(outcome.x))
    if failure.family >= 0:
        (members,) = np.nonzero(table.family == failure.family)
        lost[outcome.split[members[0]]] = usable[members[0]]
    else:
        there = table.labels["zone"] == failure.zone
        np.add.at(lost, outcome.split[there], (outcome.blocks[:, t] * usable)[there])
    return lost


def most_served(rates: Floats, capacity: Floats, wanted: Floats) -> float:
    """Return the largest multiple of a load, at most 1, that blocks of splits can serve:  max s,  Σ_i y_ik = s·d_k."""
    some = capacity > 1e-9
    rates, capacity = rates[some], capacity[some]
    classes = np.flatnonzero(wanted > 0)
    program = Program()
    y = np.full((len(rates), len(classes)), -1)
    used = rates[:, classes] > 0
    y[used] = program.add_variables(int(used.sum()))
    (s,) = program.add_variables(1, upper=1.0)
    with np.errstate(divide="ignore"):
        load = np.where(used, 1.0 / rates[:, classes], 0.0)
    program.add_rows(len(rates), (np.arange(len(rates))[:, None], y, load), upper=capacity)
    row = np.arange(len(classes))
    program.add_rows(len(classes), (row[None], y, 1.0), (row, s, -wanted[classes]), lower=0.0, upper=0.0)
    values = LinearProgram(program, program.vector((s, -1.0))).solve()
    return 0.0 if values is None else float(values[s])
