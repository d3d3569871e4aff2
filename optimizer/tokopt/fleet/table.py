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
OF_PARTS = ("accelerator", "offer")  # labels that differ between the parts of a block
NO_PART = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What blocks buy, offer by offer: J x P, where P is the most parts of any block."""

    labels: dict[str, Ints]  # label of `OF_PARTS` -> number of the value, NO_PART where a block has fewer parts
    units: Ints
    accelerators: Ints
    cost: Floats | None  # J x P x T, USD/h; None where every block is one part
    power: Floats | None  # J x P, W

    def take(self, kept: Ints | Bools) -> Parts:
        """Return the parts of some columns."""
        return Parts(
            labels={name: numbers[kept] for name, numbers in self.labels.items()},
            units=self.units[kept],
            accelerators=self.accelerators[kept],
            cost=None if self.cost is None else self.cost[kept],
            power=None if self.power is None else self.power[kept],
        )


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
    parts: Parts
    labels: dict[str, Ints]  # label -> J: number of the value, of the first part where there are several
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
        labels = {k: v[kept] for k, v in self.labels.items()}
        return replace(self, labels=labels, parts=self.parts.take(kept), **parts)

    def period(self, t: int) -> Table:
        """Return the table of one period, as if it were the whole horizon."""
        problem = replace(self.problem, periods=(self.problem.periods[t],), demand_by_period=())
        there = self.take(self.first <= t)
        cost = there.parts.cost
        return replace(
            there,
            parts=replace(there.parts, cost=None if cost is None else cost[:, :, t : t + 1]),
            problem=problem,
            hours=self.hours[t : t + 1],
            demand=self.demand[t : t + 1],
            **{name: getattr(self, name)[self.first <= t, t : t + 1] for name in ("cost", "carbon")},
            first=np.zeros(int((self.first <= t).sum()), dtype=np.int64),
        )

    @property
    def several(self) -> Bools:
        """Return which columns buy units of several offers."""
        numbers = self.parts.labels["offer"]
        return np.asarray((numbers != NO_PART).sum(axis=1) > 1)

    def matches(self, label: str, value: str) -> Bools:
        """Return which columns have a value of a label, in any part."""
        return np.asarray(self.matching_parts(**{label: value}).any(axis=1))

    def matching_parts(self, **values: str) -> Bools:
        """Return J x P: which parts have all values of labels."""
        number = self.parts.labels["offer"]
        some = number != NO_PART
        for label, value in values.items():
            known = self.values[label]
            found = known.index(value) if value in known else NO_PART - 1
            of = self.parts.labels[label] if label in OF_PARTS else self.labels[label][:, None]
            some = some & (of == found)
        return np.asarray(some)

    def units_in(self, parts: Bools) -> Floats:
        """Return J: the units of some parts in a block."""
        return np.asarray((self.parts.units * parts).sum(axis=1), dtype=np.float64)

    def accelerators_in(self, parts: Bools) -> Floats:
        """Return J: the accelerators of some parts in a block."""
        return np.asarray((self.parts.accelerators * parts).sum(axis=1), dtype=np.float64)

    def cost_of(self, parts: Bools) -> Floats:
        """Return J x T: what some parts of a block cost. [USD/h]"""
        if self.parts.cost is None:
            return self.cost * parts
        return np.asarray((self.parts.cost * parts[:, :, None]).sum(axis=1))

    def power_of(self, parts: Bools) -> Floats:
        """Return J: what some parts of a block take. [W]"""
        if self.parts.power is None:
            return self.power * parts[:, 0]
        return np.asarray((self.parts.power * parts).sum(axis=1))


def tabulate(problem: FleetProblem) -> Table:
    """Return a problem as arrays."""
    columns, periods = problem.columns, len(problem.periods)
    labels: dict[str, Ints] = {}
    values: dict[str, tuple[str, ...]] = {}
    for label in LABELS:
        labels[label], values[label] = _numbered([getattr(c, label) for c in columns])
    parts = _parts(columns, labels, values, periods)
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
        parts=parts,
        labels=labels,
        values=values,
        hours=np.array([p.hours for p in problem.periods], dtype=np.float64),
        demand=np.array(problem.demand_by_period or (problem.demand,) * periods, dtype=np.float64),
        tokens=np.array(problem.tokens_per_request, dtype=np.float64),
        revenue=np.array(problem.usd_per_request or (0.0,) * len(problem.demand), dtype=np.float64),
    )


def _parts(
    columns: Sequence[Column], labels: dict[str, Ints], values: dict[str, tuple[str, ...]], periods: int
) -> Parts:
    """Return the parts of all blocks; names that only further parts have join `values`."""
    widest = max((len(c.parts) for c in columns), default=0)
    units, accelerators = (
        _ints(columns, lambda c: c.units_per_block),
        _ints(columns, lambda c: c.accelerators_per_block),
    )
    if widest <= 1:
        first = {label: labels[label][:, None] for label in OF_PARTS}
        return Parts(labels=first, units=units[:, None], accelerators=accelerators[:, None], cost=None, power=None)
    numbers = {label: np.full((len(columns), widest), NO_PART) for label in OF_PARTS}
    counts = {name: np.zeros((len(columns), widest), dtype=np.int64) for name in ("units", "accelerators")}
    cost, power = np.zeros((len(columns), widest, periods)), np.zeros((len(columns), widest))
    known = {label: {name: number for number, name in enumerate(values[label])} for label in OF_PARTS}
    for j, column in enumerate(columns):
        for p, part in enumerate(column.held):
            for label in OF_PARTS:
                numbers[label][j, p] = known[label].setdefault(getattr(part, label), len(known[label]))
            counts["units"][j, p], counts["accelerators"][j, p] = part.units, part.accelerators
            cost[j, p] = part.usd_per_hour_by_period or part.usd_per_hour
            power[j, p] = np.nan_to_num(part.power_w)
    values |= {label: tuple(known[label]) for label in OF_PARTS}
    return Parts(labels=numbers, cost=cost, power=power, **counts)


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
