"""The program's data as arrays: one element a column, so that hundreds of thousands of columns are no loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tokopt.fleet.problem import Column, FleetProblem

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
LABELS = ("accelerator", "offer", "provider", "region", "site", "zone")


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Columns j, classes k and periods t as arrays; limits stay in the problem."""

    problem: FleetProblem  # its limits; its columns are those of `source`
    source: Ints  # J: position in the problem's columns
    cost: Floats  # J x T, USD/h of a block
    power: Floats  # J, W of a block; 0 where not known
    carbon: Floats  # J x T, g/h of a block; NaN where not known
    rates: Floats  # J x K, requests/s of a block
    units: Ints
    accelerators: Ints
    flexible: Bools
    first: Ints  # first period
    spot: Bools
    least: Ints
    most: Floats  # inf where no limit of the column's own
    current: Ints
    family: Ints  # J: number of the columns that lose a block alike, the same in every table made from this one
    labels: dict[str, Ints]  # label -> J: number of the value
    values: dict[str, tuple[str, ...]]  # label -> its values, by number
    hours: Floats  # T
    demand: Floats  # T x K
    tokens: Floats  # K, output tokens of a request
    revenue: Floats  # K, USD of a request

    @property
    def count(self) -> int:
        """Return the number of columns."""
        return len(self.source)

    @property
    def weight(self) -> Floats:
        """Return each period's share of the horizon."""
        return np.asarray(self.hours / self.hours.sum())

    @property
    def bought(self) -> Bools:
        """Return J x T: whether a column can be had in a period."""
        return np.asarray(np.arange(len(self.hours))[None, :] >= self.first[:, None])

    @property
    def mean_cost(self) -> Floats:
        """Return USD/h of a block that is kept from its first period on, mean over the horizon."""
        return np.asarray((self.cost * self.bought) @ self.weight)

    def take(self, kept: Ints | Bools) -> Table:
        """Return the table of some columns."""
        names: tuple[str, ...] = (
            "source",
            "cost",
            "power",
            "carbon",
            "rates",
            "units",
            "accelerators",
            "flexible",
            "first",
            "spot",
        )
        names += ("least", "most", "current", "family")
        parts = {name: getattr(self, name)[kept] for name in names}
        return replace(self, labels={k: v[kept] for k, v in self.labels.items()}, **parts)

    def period(self, t: int) -> Table:
        """Return the table of one period, as if it were the whole horizon."""
        problem = replace(self.problem, periods=(self.problem.periods[t],), demand_by_period=())
        return replace(
            self.take(self.first <= t),
            problem=problem,
            hours=self.hours[t : t + 1],
            demand=self.demand[t : t + 1],
            **{name: getattr(self, name)[self.first <= t, t : t + 1] for name in ("cost", "carbon")},
            first=np.zeros(int((self.first <= t).sum()), dtype=np.int64),
        )

    def matches(self, label: str, value: str) -> Bools:
        """Return which columns have a value of a label."""
        values = self.values[label]
        if value not in values:
            return np.zeros(self.count, dtype=np.bool_)
        return np.asarray(self.labels[label] == values.index(value))


def tabulate(problem: FleetProblem) -> Table:
    """Return a problem as arrays."""
    columns, periods = problem.columns, len(problem.periods)
    labels: dict[str, Ints] = {}
    values: dict[str, tuple[str, ...]] = {}
    for label in LABELS:
        labels[label], values[label] = _numbered([getattr(c, label) for c in columns])
    return Table(
        problem=problem,
        source=np.arange(len(columns)),
        cost=_by_period(columns, periods, "usd_per_hour"),
        power=np.nan_to_num(_floats(columns, lambda c: c.power_w)),
        carbon=_by_period(columns, periods, "carbon_g_per_hour"),
        rates=_rows([c.requests_per_s for c in columns], len(problem.demand)),
        units=_ints(columns, lambda c: c.units_per_block),
        accelerators=_ints(columns, lambda c: c.accelerators_per_block),
        flexible=_ints(columns, lambda c: c.flexible).astype(np.bool_),
        first=_ints(columns, lambda c: c.first_period),
        spot=_ints(columns, lambda c: c.spot).astype(np.bool_),
        least=_ints(columns, lambda c: c.least_blocks),
        most=_floats(columns, lambda c: np.inf if c.most_blocks is None else c.most_blocks),
        current=_ints(columns, lambda c: c.current_blocks),
        family=np.arange(len(columns)),
        labels=labels,
        values=values,
        hours=np.array([p.hours for p in problem.periods], dtype=np.float64),
        demand=np.array(problem.demand_by_period or (problem.demand,) * periods, dtype=np.float64),
        tokens=np.array(problem.tokens_per_request, dtype=np.float64),
        revenue=np.array(problem.usd_per_request or (0.0,) * len(problem.demand), dtype=np.float64),
    )


def _numbered(names: list[str]) -> tuple[Ints, tuple[str, ...]]:
    """Return names as numbers, and the distinct names by number."""
    numbers: dict[str, int] = {}
    which = [numbers.setdefault(name, len(numbers)) for name in names]
    return np.array(which, dtype=np.int64), tuple(numbers)


def _ints(columns: Sequence[Column], of: Callable[[Column], int]) -> Ints:
    return np.fromiter((of(c) for c in columns), dtype=np.int64, count=len(columns))


def _floats(columns: Sequence[Column], of: Callable[[Column], float]) -> Floats:
    return np.fromiter((of(c) for c in columns), dtype=np.float64, count=len(columns))


def _rows(rows: list[tuple[float, ...]], width: int) -> Floats:
    """Return tuples as the rows of an array; a tuple that many columns share is converted once."""
    numbers: dict[int, int] = {}
    distinct: list[tuple[float, ...]] = []
    which = np.empty(len(rows), dtype=np.int64)
    for i, row in enumerate(rows):
        number = numbers.setdefault(id(row), len(distinct))
        if number == len(distinct):
            distinct.append(row)
        which[i] = number
    return np.array(distinct, dtype=np.float64).reshape(-1, width)[which]


def _by_period(columns: Sequence[Column], periods: int, name: str) -> Floats:
    """Return J x T of a figure that may differ by period."""
    always = _floats(columns, lambda c: getattr(c, name))
    table = np.repeat(always[:, None], periods, axis=1)
    given = [j for j, c in enumerate(columns) if getattr(c, f"{name}_by_period")]
    if given:
        table[given] = _rows([getattr(columns[j], f"{name}_by_period") for j in given], periods)
    return table


def distinct_rows(*keys: NDArray[np.generic]) -> Ints:
    """Return the number of the group of rows that are equal in all keys; groups are numbered by first appearance."""
    number = np.zeros(len(keys[0]), dtype=np.int64)
    for key in keys:
        # Rows of floats are compared as bytes: NaN equals NaN, and any width of row is one comparison.
        flat = np.ascontiguousarray(key.reshape(len(key), -1))
        if flat.shape[1] == 0:
            continue
        packed = flat.view(np.dtype((np.void, flat.dtype.itemsize * flat.shape[1]))).ravel()
        _, inverse = np.unique(packed, return_inverse=True)
        _, number = np.unique(number * (int(inverse.max(initial=0)) + 1) + inverse, return_inverse=True)
    _, first, inverse = np.unique(number, return_index=True, return_inverse=True)
    return np.asarray(np.argsort(np.argsort(first))[inverse], dtype=np.int64)
