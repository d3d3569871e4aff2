"""What a solution buys of each column in each period, and how requests are dealt out to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tokopt.fleet import Column, FleetProblem, FleetSolution, Goal

from .columns import PricedCandidate
from .found import Found

FILLING = (Goal.COST_PER_TOKEN, Goal.THROUGHPUT)  # goals that make the demand the answer
MEETING_DEMAND = (Goal.COST, Goal.POWER, Goal.CARBON)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bought:
    """One column of a fleet: one element a period."""

    row: PricedCandidate
    column: Column  # as the program had it
    blocks: tuple[int, ...]
    rates: tuple[float, ...]  # requests/s
    usd_per_block_hour: tuple[float, ...]
    hours: tuple[float, ...]

    @property
    def most_blocks(self) -> int:
        """Blocks of the period that has most."""
        return max(self.blocks)

    @property
    def fullest(self) -> int:
        """The period in which its replicas get most requests each."""
        each = [rate / n if n else 0.0 for rate, n in zip(self.rates, self.blocks, strict=True)]
        return max(range(len(each)), key=lambda t: each[t])

    @property
    def rate(self) -> float:
        """Requests/s, mean over the horizon."""
        return self._mean(self.rates)

    @property
    def usd_per_hour(self) -> float:
        """Mean over the horizon. [USD/h]"""
        return self.mean_usd_per_hour(self.usd_per_block_hour)

    def mean_usd_per_hour(self, usd_per_block_hour: Sequence[float]) -> float:
        """Return what blocks cost at some price a period, mean over the horizon. [USD/h]"""
        return self._mean([n * usd for n, usd in zip(self.blocks, usd_per_block_hour, strict=True)])

    def _mean(self, values: Sequence[float]) -> float:
        if len(values) == 1:
            return values[0]  # to the last digit
        return sum(h * v for h, v in zip(self.hours, values, strict=True)) / sum(self.hours)


def bought(found: Found, problem: FleetProblem, solution: FleetSolution) -> list[Bought]:
    """Return the columns of a solution's fleet, those that serve most first."""
    blocks = np.array(solution.blocks_by_period or [solution.blocks])
    rates = dealt_out(problem, solution, even=found.request.most_spot_share is None)
    hours = tuple(period.hours for period in problem.periods)
    rows = []
    for j, (row, column) in enumerate(zip(found.columns, problem.columns, strict=True)):
        if not blocks[:, j].any():
            continue
        prices = column.usd_per_hour_by_period or (column.usd_per_hour,) * len(hours)
        rows.append(
            Bought(
                row=row,
                column=column,
                blocks=tuple(int(n) for n in blocks[:, j]),
                rates=tuple(float(rate) for rate in rates[:, j, row.service]),
                usd_per_block_hour=prices,
                hours=hours,
            )
        )
    return sorted(rows, key=lambda r: -r.rate)


def dealt_out(problem: FleetProblem, solution: FleetSolution, *, even: bool) -> NDArray[np.float64]:
    """Return requests/s by period, column and class.

    `even`: all columns of a class take their share by capacity, so that every replica has the same load; the program's
    own split is one of many that cost the same. What a class gets in all is the program's. Spot capacity that is kept
    idle for interruptions is no capacity here.
    """
    own = np.array(solution.rates_by_period or [solution.rates], dtype=float)
    if not even:
        return own
    blocks = np.array(solution.blocks_by_period or [solution.blocks], dtype=float)
    able = np.array([c.requests_per_s for c in problem.columns])
    able = able * np.array([1.0 - problem.spot_reserve if c.spot else 1.0 for c in problem.columns])[:, None]
    capacity = blocks[:, :, None] * able[None, :, :]
    serves_several = (able > 0.0).sum(axis=1) > 1
    if serves_several.any():
        return own
    if problem.goal in FILLING and len(problem.demand) == 1:
        filled: NDArray[np.float64] = capacity
        return filled
    total = capacity.sum(axis=1, keepdims=True)
    asked = own.sum(axis=1, keepdims=True)
    if problem.goal in MEETING_DEMAND:
        asked = np.array(problem.demand_by_period or [problem.demand] * len(own), dtype=float)[:, None, :]
    served = np.minimum(asked, total)
    with np.errstate(invalid="ignore", divide="ignore"):
        dealt: NDArray[np.float64] = np.where(total > 0.0, capacity * (served / total), 0.0)
    return dealt
