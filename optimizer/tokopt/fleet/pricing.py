"""The linear relaxation over very many columns: solved over some, the others priced, those that would pay added.

With y the duals of the rows, a column is worth adding where its reduced cost is negative. Rates and blocks of a split
that is not in the program yet come together: a block of split i is worth what its best class pays for it,

    β_it = max_k r_ik (A_x'y - c_x)_ikt

so column j pays where  Σ_t (c_jt - (A_n'y)_jt - (1 - reserve_i) β_it) < 0.  When none pays, the optimum over some
columns is the optimum over all. Stopped before, no bound is claimed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tokopt.errors import InputError
from tokopt.fleet.engine import Answer, Effort, minimise
from tokopt.fleet.formulation import Failure, Formulation, formulate
from tokopt.fleet.outcome import objective_of
from tokopt.fleet.problem import Goal
from tokopt.fleet.program import NONE, Floats
from tokopt.fleet.table import Bools, Table

ROUNDS = 30
MOST_ADDED = 400  # columns in a round, those that pay best first
PAYS = 1e-7  # USD/h: a reduced cost that is closer to zero is rounding


@dataclass(frozen=True, slots=True)
class Relaxation:
    """The relaxation's optimum over all columns, and the columns that it was found over."""

    bound: float
    active: Bools  # J
    blocks: Floats  # J x T
    reduced: Floats  # J: the least reduced cost of a column's blocks in any period, 0 where they are used


def relax(table: Table, goal: Goal, failures: tuple[Failure, ...], active: Bools, effort: Effort) -> Relaxation | None:
    """Return the linear relaxation over all columns, started from some; None where it is not solved in time."""
    form = formulate(table, failures, keep=frozenset({goal}))
    objective = objective_of(form, goal)
    active = active.copy()
    for _ in range(ROUNDS):
        answer, kept = _over(form, objective, active, effort)
        if answer is None or not answer.found:
            return None
        cost = _reduced_costs(form, objective, answer)
        paying = np.flatnonzero((cost < -PAYS) & ~active)
        if not len(paying):
            values = np.zeros(form.program.variables)
            values[kept] = answer.values
            blocks = np.where(form.n == NONE, 0.0, values[form.n])
            return Relaxation(answer.bound, active, blocks, np.maximum(cost, 0.0))
        best = paying[np.argsort(cost[paying], kind="stable")]
        active[best[: max(MOST_ADDED, int(active.sum()))]] = True
        if effort.seconds <= 0.06:
            return None
    return None


def _over(form: Formulation, objective: Floats, active: Bools, effort: Effort) -> tuple[Answer | None, np.ndarray]:
    """Solve over some columns: their blocks, the rates of their splits, and whatever belongs to no column."""
    kept = np.ones(form.program.variables, dtype=np.bool_)
    kept[form.n[form.n != NONE]] = False
    kept[form.x[form.x != NONE]] = False
    n = form.n[active]
    kept[n[n != NONE]] = True
    x = form.x[np.unique(form.split[active])]
    kept[x[x != NONE]] = True
    (variables,) = np.nonzero(kept)
    try:
        return minimise(form.program.take(variables), objective[variables], effort), variables
    except InputError:
        return None, variables


def _reduced_costs(form: Formulation, objective: Floats, answer: Answer) -> Floats:
    """Return J: what a block of each column costs beyond what it is worth at the prices of the rows; least period."""
    cost = _beyond_worth(form, objective, answer)
    return np.asarray(np.where(form.n != NONE, cost[form.n], math.inf).min(axis=1))


def worth_of_blocks(form: Formulation, objective: Floats, answer: Answer) -> Floats:
    """Return J x T: what a block of each column is worth at the prices of the rows, -inf where it cannot be had."""
    beyond = _beyond_worth(form, objective - form.cost(), answer)
    return np.asarray(np.where(form.n != NONE, -beyond[form.n], -math.inf))


def _beyond_worth(form: Formulation, objective: Floats, answer: Answer) -> Floats:
    """Return the reduced costs of variables of blocks, those of splits that are not in the program among them."""
    table = form.table
    capacity = form.rows["capacity"]  # I x T
    duals = answer.duals.copy()
    duals[capacity.ravel()] = 0.0
    cost = objective - form.program.matrix().T @ duals
    # What the best class pays for a block of each split; this is no less than the capacity's own dual.
    paid = np.where(form.x == NONE, -math.inf, -cost[form.x]) * np.where(form.rates > 0, form.rates, 1.0)[:, :, None]
    worth = np.maximum(paid.max(axis=1), 0.0)  # I x T
    usable = 1.0 - table.problem.spot_reserve * table.spot
    each = np.where(form.n == NONE, 0.0, -usable[:, None] * worth[form.split])
    total = np.zeros(form.program.variables)
    there = form.n != NONE
    np.add.at(total, form.n[there], each[there])
    return np.asarray(cost + total)
