"""What went on over time in a simulation."""

from __future__ import annotations

import math

import numpy as np

from tokopt.domain.simulations import SimulatedSeries
from tokopt.simulation import world as w
from tokopt.units import KW, MS

from .simulated_fleet import SimulatedFleet
from .simulation_runs import Runs


def series_of(fleet: SimulatedFleet, runs: Runs, scale: float) -> SimulatedSeries:
    """Return the first replication over time, scaled up to the whole fleet.

    One factor stands for all items: sums over items of which different shares are simulated are no more than close.
    """
    world = runs.outcomes[0].world
    bin_s, now = float(world.totals[0].bin_s), float(world.totals[0].now)
    bins = min(max(round(now / bin_s), 1), world.series.shape[0])  # a last one that has hardly begun says nothing
    rows = world.series[:bins]
    engines = max(world.engines.size, 1)
    lasts_s = np.full(bins, bin_s)
    lasts_s[-1] = min(max(now - (bins - 1) * bin_s, 1e-3 * bin_s), bin_s)  # it ends when the run does

    def rate(column: int) -> tuple[float, ...]:
        return tuple((rows[:, column] / lasts_s * scale).tolist())

    def gauge(column: int, factor: float = 1.0) -> tuple[float | None, ...]:
        # Where rounding puts two looks into one bin and none into the next, the ones before stand for it.
        samples = rows[:, w.SAMPLES]
        seen = np.maximum.accumulate(np.where(samples > 0, np.arange(bins), 0))
        return _ratios(rows[seen, column] * factor, samples[seen])

    idle = sum(p.kind.fields["idle_w"] * p.simulated for p in fleet.parts)
    up = np.array([math.nan if each is None else each for each in gauge(w.REPLICAS_UP)])
    share_up = np.nan_to_num(up / max(sum(p.simulated for p in fleet.parts), 1), nan=1.0)
    drawn = None if math.isnan(idle) else (idle * share_up + rows[:, w.EXTRA_J] / lasts_s) * scale / KW
    return SimulatedSeries(
        time_s=tuple((np.arange(len(rows)) * bin_s).tolist()),
        bin_s=bin_s,
        arrivals_per_s=rate(w.ARRIVED),
        completions_per_s=rate(w.FINISHED),
        output_tokens_per_s=rate(w.TOKENS),
        goodput=_ratios(rows[:, w.WITHIN], rows[:, w.FINISHED]),
        ttft_mean_ms=_ratios(rows[:, w.TTFT_SUM] / MS, rows[:, w.TTFT_COUNT]),
        ttft_max_ms=_ratios(rows[:, w.TTFT_MOST] / MS, (rows[:, w.TTFT_COUNT] > 0).astype(float)),
        tpot_mean_ms=_ratios(rows[:, w.TPOT_SUM] / MS, rows[:, w.TPOT_COUNT]),
        tpot_max_ms=_ratios(rows[:, w.TPOT_MOST] / MS, (rows[:, w.TPOT_COUNT] > 0).astype(float)),
        queued=gauge(w.QUEUED, scale),
        running=gauge(w.RUNNING, scale),
        cache_used=gauge(w.CACHE_USED),
        utilisation=tuple(np.minimum(rows[:, w.BUSY_S] / (lasts_s * engines), 1.0).tolist()),
        replicas_up=gauge(w.REPLICAS_UP, scale),
        drawn_kw=None if drawn is None else tuple(drawn.tolist()),
        preemptions=rate(w.PREEMPTED),
    )


def _ratios(above: np.ndarray, below: np.ndarray) -> tuple[float | None, ...]:
    """Return quotients, None where there is nothing below."""
    return tuple(float(a / b) if b > 0 else None for a, b in zip(above, below, strict=True))
