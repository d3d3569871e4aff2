"""The linear relaxation over very many columns: solved over some, the others priced, those that would pay added.

With y the duals of the rows, a column is worth adding where its reduced cost is negative. Rates and blocks of a split
that is not in the program yet come together: a block of split i is worth what its best class pays for it,

    β_it = max_k r_ik (A_x'y - c_x)_ikt

so column j pays where  Σ_t (c_jt - (A_n'y)_jt - (1 - reserve_i) β_it) < 0.  When none pays, the optimum over some
columns is the optimum over all. Stopped before, no bound is claimed.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import numpy as np

from tokopt.errors import InputError
from tokopt.fleet.engine import Answer, Effort, minimise
from tokopt.fleet.formulation import Failure, Formulation, formulate
from tokopt.fleet.outcome import objective_of
from tokopt.fleet.problem import Goal
from tokopt.fleet.program import NONE, Floats
from tokopt.fleet.table import NO_PART, Bools, Table

ROUNDS = 30
CHEAPEST = 20  # columns of each class and period to start from
MOST_ADDED = 400  # columns in a round, those that pay best first
PAYS = 1e-7  # USD/h: a reduced cost that is closer to zero is rounding


@dataclass(frozen=True, slots=True)
class Relaxation:
    """The relaxation's optimum over all columns, and the columns that it was found over."""

    form: Formulation  # of all columns
    answer: Answer  # values of all variables, duals of the rows
    active: Bools  # J

    @property
    def bound(self) -> float:
        """Return what no fleet is better than."""
        return self.answer.bound

    @property
    def blocks(self) -> Floats:
        """Return the blocks of each column in each period, J x T."""
        return np.where(self.form.n == NONE, 0.0, self.answer.values[self.form.n])


def relax(table: Table, goal: Goal, failures: tuple[Failure, ...], active: Bools, effort: Effort) -> Relaxation | None:
    """Return the linear relaxation over all columns, started from some; None where it is not solved in time."""
    form = formulate(table, failures, keep=frozenset({goal}))
    return priced_out(form, objective_of(form, goal), active, effort)


def priced_out(form: Formulation, objective: Floats, active: Bools, effort: Effort) -> Relaxation | None:
    """Return the relaxation of a program for an objective, started from some columns; None where time runs out."""
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
            return Relaxation(form, replace(answer, values=values), active)
        best = paying[np.argsort(cost[paying], kind="stable")]
        active[best[: max(MOST_ADDED, int(active.sum()))]] = True
        if effort.seconds <= 0.06:
            return None
    return None


def cheapest(table: Table) -> Bools:
    """Return the columns that serve some class at the lowest cost in some period, and those that are committed to."""
    kept = (table.least > 0) | (table.current > 0)
    with np.errstate(divide="ignore"):
        each = np.where(table.rates > 0, 1.0 / table.rates, np.inf)
    units = np.array([table.problem.offer_units.get(name, np.inf) for name in table.values["offer"]])
    numbers = table.parts.labels["offer"]
    endless = np.where(numbers != NO_PART, np.isinf(units[numbers]), True).all(axis=1)
    for spot, flexible, free in itertools.product((False, True), repeat=3):
        (kind,) = np.nonzero((table.spot == spot) & (table.flexible == flexible) & (endless == free))
        if not len(kind):
            continue
        some = min(CHEAPEST, len(kind))
        for cost in np.unique(np.where(table.bought, table.cost, np.inf)[kind], axis=1).T:
            price = np.maximum(cost, 1e-9)[:, None] * each[kind]
            first = np.argpartition(price, some - 1, axis=0)[:some]
            kept[kind[np.unique(first[np.isfinite(np.take_along_axis(price, first, axis=0))])]] = True
    return np.asarray(kept)


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
