"""A linear program with integers as sparse arrays, built block by block."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
NONE = -1  # number of a variable that there is not


@dataclass(slots=True)
class Program:
    """Variables with bounds, rows  lower ≤ A v ≤ upper,  and which variables are whole numbers."""

    lower: Floats = field(default_factory=lambda: np.empty(0))
    upper: Floats = field(default_factory=lambda: np.empty(0))
    integer: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, dtype=np.bool_))
    row_lower: Floats = field(default_factory=lambda: np.empty(0))
    row_upper: Floats = field(default_factory=lambda: np.empty(0))
    _entries: list[tuple[Ints, Ints, Floats]] = field(default_factory=list)
    _matrix: sparse.csr_matrix | None = None

    @property
    def variables(self) -> int:
        """Return the number of variables."""
        return len(self.lower)

    @property
    def rows(self) -> int:
        """Return the number of rows."""
        return len(self.row_lower)

    def add_variables(
        self, count: int, *, lower: ArrayLike = 0.0, upper: ArrayLike = np.inf, integer: bool = False
    ) -> Ints:
        """Add variables and return their numbers."""
        numbers = np.arange(self.variables, self.variables + count)
        self.lower = np.concatenate([self.lower, np.broadcast_to(np.asarray(lower, dtype=np.float64), count)])
        self.upper = np.concatenate([self.upper, np.broadcast_to(np.asarray(upper, dtype=np.float64), count)])
        self.integer = np.concatenate([self.integer, np.full(count, integer)])
        return numbers

    def add_rows(
        self,
        count: int,
        *terms: tuple[ArrayLike, ArrayLike, ArrayLike],
        lower: ArrayLike = -np.inf,
        upper: ArrayLike = np.inf,
    ) -> Ints:
        """Add rows and return their numbers; a term is positions of rows among the new ones, variables, coefficients.

        Entries of variables that there are not are left out; entries of one place add up.
        """
        start = self.rows
        for row, variable, value in terms:
            r, v, a = np.broadcast_arrays(np.asarray(row), np.asarray(variable), np.asarray(value, dtype=np.float64))
            there = (v != NONE) & (a != 0.0)
            self._entries.append((r[there].astype(np.int64) + start, v[there].astype(np.int64), a[there]))
        self.row_lower = np.concatenate([self.row_lower, np.broadcast_to(np.asarray(lower, dtype=np.float64), count)])
        self.row_upper = np.concatenate([self.row_upper, np.broadcast_to(np.asarray(upper, dtype=np.float64), count)])
        self._matrix = None
        return np.arange(start, start + count)

    def add_entries(self, row: int, variable: int, value: float) -> None:
        """Add a term to a row that is there."""
        self._entries.append((np.array([row]), np.array([variable]), np.array([value])))
        self._matrix = None

    def at_most(self, vector: Floats, most: float) -> int:
        """Add one row  vector · v ≤ most  and return its number."""
        (variables,) = np.nonzero(vector)
        return int(self.add_rows(1, (np.zeros(len(variables)), variables, vector[variables]), upper=most)[0])

    def matrix(self) -> sparse.csr_matrix:
        """Return A."""
        if self._matrix is None or self._matrix.shape != (self.rows, self.variables):
            rows, variables, values = (
                np.concatenate(parts) if parts else np.empty(0) for parts in (zip(*self._entries, strict=True))
            )
            shape = (self.rows, self.variables)
            self._matrix = sparse.csr_matrix((values, (rows.astype(np.int64), variables.astype(np.int64))), shape=shape)
        return self._matrix

    def take(self, variables: Ints) -> Program:
        """Return the linear program of some variables, all others zero; its rows are the same."""
        some = Program(
            lower=self.lower[variables],
            upper=self.upper[variables],
            integer=self.integer[variables],
            row_lower=self.row_lower,
            row_upper=self.row_upper,
        )
        some._matrix = self.matrix().tocsc()[:, variables].tocsr()
        return some

    def vector(self, *terms: tuple[ArrayLike, ArrayLike]) -> Floats:
        """Return an objective from variables and their coefficients."""
        total = np.zeros(self.variables)
        for variable, value in terms:
            v, a = np.broadcast_arrays(np.asarray(variable), np.asarray(value, dtype=np.float64))
            np.add.at(total, v[v != NONE], a[v != NONE])
        return total
