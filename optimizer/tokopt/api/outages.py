"""Failures of nodes and interruptions of spot instances, drawn at random as they come."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tokopt.domain.offers import Market
from tokopt.domain.simulations import SimulationSettings
from tokopt.simulation.replication import Outage
from tokopt.units import SECONDS_PER_HOUR

from .simulated_fleet import SimulatedFleet, SimulatedPart


class Outages:
    """Failures of all simulated replicas: each unit that is bought whole fails by itself, with all replicas on it.

    Times between failures of a node are exponential with the stated mean, and so are those of a spot unit's
    interruptions. Every one takes the same time to come back.
    """

    def __init__(self, fleet: SimulatedFleet, settings: SimulationSettings, *, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._lasts_s = settings.recovery_s
        self._rates: list[float] = []  # of what fails together [1/s]
        self._replicas: list[tuple[int, ...]] = []
        for part, first in zip(fleet.parts, fleet.first_replicas, strict=True):
            self._add(part, settings, first)
        self._next = np.array([self._gap(rate) for rate in self._rates])

    def _add(self, part: SimulatedPart, settings: SimulationSettings, first: int) -> None:
        """Add the units of an item: each that a replica spans takes it down, and one that several share all of them."""
        each = part.item.units / max(part.item.replicas, 1)
        nodes = part.item.nodes / max(part.item.units, 1)
        rate = 0.0 if settings.node_mtbf_hours is None else nodes / (settings.node_mtbf_hours * SECONDS_PER_HOUR)
        if part.item.market == Market.SPOT.value:
            rate += settings.spot_interruptions_per_hour / SECONDS_PER_HOUR
        together = max(round(1.0 / each), 1) if each < 1.0 else 1
        for start in range(0, part.simulated, together):
            self._replicas.append(tuple(range(first + start, first + min(start + together, part.simulated))))
            self._rates.append(rate * max(each, 1.0))

    def _gap(self, rate: float) -> float:
        return float(self._rng.exponential(1.0 / rate)) if rate > 0.0 else math.inf

    def between(self, start_s: float, end_s: float) -> Sequence[Outage]:
        """Return the failures from one time up to another; calls have to go on where the last one ended."""
        found = []
        for n in np.flatnonzero(self._next < end_s):
            while self._next[n] < end_s:
                at = max(float(self._next[n]), start_s)
                found += [Outage(time_s=at, replica=r, lasts_s=self._lasts_s) for r in self._replicas[n]]
                self._next[n] += self._lasts_s + self._gap(self._rates[n])
        return found
