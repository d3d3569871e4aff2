"""Failures that come at random, of what fails together."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tokopt.simulation.replication import Outage


class Outages:
    """Failures of groups of replicas: times between those of a group are exponential, and all last equally long."""

    def __init__(
        self, rates_per_s: Sequence[float], replicas: Sequence[Sequence[int]], *, lasts_s: float, seed: int
    ) -> None:
        """Take how often each group fails while it is up, and the numbers of its replicas."""
        self._rng = np.random.default_rng(seed)
        self._rates, self._replicas, self._lasts_s = rates_per_s, replicas, lasts_s
        self._next = np.array([self._gap(rate) for rate in rates_per_s])

    def _gap(self, rate: float) -> float:
        return float(self._rng.exponential(1.0 / rate)) if rate > 0.0 else math.inf

    def between(self, start_s: float, end_s: float) -> Sequence[Outage]:
        """Return the failures from one time up to another; calls have to go on where the last one ended."""
        found = []
        for n in np.flatnonzero(self._next < end_s).tolist():
            while self._next[n] < end_s:
                at = max(float(self._next[n]), start_s)
                found += [Outage(time_s=at, replica=r, lasts_s=self._lasts_s) for r in self._replicas[n]]
                self._next[n] += self._lasts_s + self._gap(self._rates[n])
        return found
