"""What was found: blocks and rates over a table, with the objective and its bound, all of it minimised."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tokopt.fleet.bounds import SCALED
from tokopt.fleet.engine import Answer
from tokopt.fleet.formulation import MILLION_TOKENS_PER_HOUR, Formulation
from tokopt.fleet.problem import Goal, Stop
from tokopt.fleet.program import NONE, Floats, Ints
from tokopt.fleet.table import Table

SAME = 1e-9  # relative difference below which two objectives are a tie


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A fleet, or none. Objective and bound are as they are minimised: negative where a goal is maximised."""

    stop: Stop
    table: Table
    blocks: Ints  # J x T
    x: Floats  # I x K x T, requests/s of splits
    split: Ints  # J
    objective: float
    bound: float
    solver: str
    detail: str = ""

    @property
    def found(self) -> bool:
        """Whether there is a fleet."""
        return self.stop is not Stop.INFEASIBLE

    @property
    def used(self) -> NDArray[np.bool_]:
        """Return J: whether there are blocks of a column in any period."""
        return np.asarray(self.blocks.max(axis=1, initial=0) > 0)

    @property
    def gap(self) -> float:
        """Return |objective - bound| / |objective|; what rounding explains counts as none."""
        gap = abs(self.objective - self.bound) / max(abs(self.objective), 1e-12)
        return 0.0 if gap <= SAME or self.bound >= self.objective else gap

    def spread(self, used: Ints) -> Floats:
        """Return the rates of some columns, positions x K x T: those of their splits, in proportion to their blocks."""
        total = np.zeros((len(self.x), self.blocks.shape[1]))
        np.add.at(total, self.split, self.blocks)
        whole = total[self.split[used]]
        share = np.divide(self.blocks[used], whole, out=np.zeros(whole.shape), where=whole > 0)
        return np.asarray(self.x[self.split[used]] * share[:, None, :])


def nothing(table: Table, solver: str, detail: str = "") -> Outcome:
    """Return that there is no fleet."""
    shape = (table.count, len(table.hours))
    return Outcome(
        stop=Stop.INFEASIBLE,
        table=table,
        blocks=np.zeros(shape, dtype=np.int64),
        x=np.zeros((0, table.rates.shape[1], shape[1])),
        split=np.zeros(table.count, dtype=np.int64),
        objective=math.inf,
        bound=math.inf,
        solver=solver,
        detail=detail,
    )


def read(form: Formulation, answer: Answer, bound: float = -math.inf) -> Outcome:
    """Return a solver's answer as an outcome; `bound` is one that was known before."""
    if not answer.found:
        return nothing(form.table, answer.solver, answer.detail)
    values = answer.values
    blocks = np.where(form.n == NONE, 0, np.round(values[form.n])).astype(np.int64)
    return Outcome(
        stop=answer.stop,
        table=form.table,
        blocks=blocks,
        x=np.where(form.x == NONE, 0.0, np.maximum(values[form.x], 0.0)),
        split=form.split,
        objective=answer.objective,
        bound=min(max(answer.bound, bound), answer.objective),
        solver=answer.solver,
        detail=answer.detail,
    )


def objective_of(form: Formulation, goal: Goal) -> Floats:
    """Return a goal as coefficients to minimise.

    Raises:
        KeyError: The goal is a ratio, which is no linear objective.
    """
    if goal is Goal.COST:
        return form.cost() + form.change()
    if goal is Goal.PROFIT:
        return form.cost() + form.change() - form.revenue()
    if goal is Goal.POWER:
        return form.program.vector((form.peak, 1.0))
    if goal is Goal.CARBON:
        return form.carbon() * 1e-3
    if goal is Goal.THROUGHPUT:
        return form.program.vector((form.scale, -1.0))
    raise KeyError(goal)


UNITS = {Goal.POWER: 1e3, Goal.CARBON: 1e3}  # the program has kW and kg/h
MAXIMISED = (Goal.THROUGHPUT, Goal.PROFIT)


def stated(goal: Goal, value: float) -> float:
    """Return a minimised value as it is stated: in W and g/h, positive where the goal is maximised."""
    scaled = value * UNITS.get(goal, 1.0)
    return -scaled + 0.0 if goal in MAXIMISED else scaled


@dataclass(frozen=True, slots=True)
class Figures:
    """What a fleet costs, takes, emits, serves and earns: means over the horizon, and the peak of power."""

    cost: float  # USD/h
    change: float  # USD/h
    changed: float  # blocks
    peak_w: float
    carbon: float  # g/h, NaN where a used column's is not known
    tokens: float  # million output tokens/h
    revenue: float  # USD/h
    scale: float  # multiple of the demand, of the class and period that is served least


def figures(outcome: Outcome) -> Figures:
    """Return a fleet's figures from its blocks and rates."""
    table, n = outcome.table, outcome.blocks
    served = outcome.x.sum(axis=0)  # K x T
    wanted = table.demand.T
    changes = np.abs(n - table.current[:, None]) * table.bought  # J x T, in blocks
    changed = float(changes.sum(axis=0) @ table.weight)
    moved = float((table.accelerators @ changes) @ table.weight)
    carbon = np.where(n > 0, table.carbon * np.maximum(n, 1), 0.0).sum(axis=0)
    return Figures(
        cost=float((table.cost * n).sum(axis=0) @ table.weight),
        change=moved * table.problem.change_usd_per_accelerator_hour,
        changed=changed,
        peak_w=float((table.power @ n).max(initial=0.0)),
        carbon=float(carbon @ table.weight),
        tokens=float(table.tokens @ served @ table.weight) * MILLION_TOKENS_PER_HOUR,
        revenue=float(table.revenue @ served @ table.weight) * 3600.0,
        scale=float(np.min(served[wanted > 0] / wanted[wanted > 0], initial=math.inf)) if (wanted > 0).any() else 0.0,
    )


def value_of(goal: Goal, outcome: Outcome) -> float:
    """Return a goal's minimised value of a fleet, from its figures rather than from the solver."""
    f = figures(outcome)
    return {
        Goal.COST: f.cost + f.change,
        Goal.PROFIT: f.cost + f.change - f.revenue,
        Goal.POWER: f.peak_w * 1e-3,
        Goal.CARBON: f.carbon * 1e-3,
        Goal.THROUGHPUT: -f.scale,
        Goal.COST_PER_TOKEN: (f.cost + f.change) / f.tokens if f.tokens > 0 else math.inf,
    }[goal]


def is_scaled(table: Table) -> bool:
    """Return whether the goal scales the mix."""
    return table.problem.goal in SCALED
