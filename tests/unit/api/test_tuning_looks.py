"""Looks at settings: requests in progress are counted beside those that were answered."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tokopt.api.tuning_looks import METRICS, _with
from tokopt.simulation import world as w
from tokopt.simulation.recording import BINS, note


class Tables(NamedTuple):
    """Of a world, those that latencies are counted in."""

    histogram: NDArray[np.int64]
    sums: NDArray[np.float64]


def tables() -> Any:
    shape = (1, 1 + max(METRICS.values()), BINS)
    return Tables(histogram=np.zeros(shape, dtype=np.int64), sums=np.zeros(shape))


def test_latencies_to_come_are_counted_as_the_simulator_counts_them() -> None:
    rng = np.random.default_rng(0)
    ttft, tpot = np.exp(rng.normal(0.0, 2.0, 500)), np.array([0.0, 1e-9, 0.02, 1e9])
    world, recorded = tables(), tables()
    note(world, 0, w.TTFT, 0.3, 7)
    note(world, 0, w.E2E, 5.0, 1)
    told = _with(world, {w.TTFT: ttft, w.TPOT: tpot})
    note(recorded, 0, w.TTFT, 0.3, 7)
    note(recorded, 0, w.E2E, 5.0, 1)
    for metric, latencies in ((w.TTFT, ttft), (w.TPOT, tpot)):
        for seconds in latencies:
            note(recorded, 0, metric, float(seconds), 1)
    for name, metric in METRICS.items():
        counts, sums = told[name]
        np.testing.assert_array_equal(counts, recorded.histogram[0, metric])
        np.testing.assert_array_equal(sums, recorded.sums[0, metric])
    assert world.histogram.sum() == 8  # the simulation's own are left as they were
