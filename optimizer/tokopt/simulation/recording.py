"""What a simulation remembers of requests: histograms of latencies, sums by class, and a series over time."""

from __future__ import annotations

import math

from tokopt.simulation.compiled import compiled
from tokopt.simulation.world import (
    CACHE_USED,
    DRAINING,
    E2E,
    FINISHED,
    QUEUED,
    REPLICAS_UP,
    RUNNING,
    SAMPLES,
    SERIES,
    TOKENS,
    TPOT,
    TPOT_COUNT,
    TPOT_MOST,
    TPOT_SUM,
    TTFT,
    TTFT_COUNT,
    TTFT_MOST,
    TTFT_SUM,
    UP,
    WITHIN,
    World,
)

SHORTEST_LN = math.log(1e-7)  # of a latency that has a bin of its own [ln s]
BIN_LN = 0.002  # bins are 0.2 % wide; the mean of a bin's latencies stands for them
BINS = int((math.log(1e7) - SHORTEST_LN) / BIN_LN)


@compiled
def note(world: World, klass: int, metric: int, seconds: float, times: int) -> None:
    """Count a latency that was met a number of times."""
    at = 0
    if seconds > 0.0:
        at = min(max(int((math.log(seconds) - SHORTEST_LN) / BIN_LN), 0), BINS - 1)
    world.histogram[klass, metric, at] += times
    world.sums[klass, metric, at] += seconds * times


@compiled
def bin_of(world: World, now: float) -> int:
    """Return the bin of the series that a time is in; where there are too few, they become twice as wide."""
    totals, series = world.totals[0], world.series
    size = series.shape[0]
    while now >= size * totals.bin_s:
        for i in range(size // 2):
            for column in range(SERIES):
                if column in (TTFT_MOST, TPOT_MOST):
                    series[i, column] = max(series[2 * i, column], series[2 * i + 1, column])
                else:
                    series[i, column] = series[2 * i, column] + series[2 * i + 1, column]
        series[size // 2 :] = 0.0
        totals.bin_s *= 2.0
    return max(int(now / totals.bin_s), 0)


@compiled
def record(world: World, rid: int, end: float) -> None:
    """Count a request that was answered by `end`."""
    request = world.requests[rid]
    klass = request.klass
    limits, sums = world.classes[klass], world.per_class[klass]
    ttft, e2e = request.first - request.arrival, end - request.arrival
    tpot = (end - request.first) / (request.output - 1) if request.output > 1 else 0.0
    first, each, whole = ttft <= limits.ttft_s, tpot <= limits.tpot_s, e2e <= limits.e2e_s
    within = first and each and whole
    sums.answered += 1
    sums.delivered += request.output
    row = world.series[bin_of(world, end)]
    row[FINISHED] += 1.0
    row[WITHIN] += 1.0 if within else 0.0
    row[TOKENS] += request.output
    row[TTFT_SUM] += ttft
    row[TTFT_COUNT] += 1.0
    row[TTFT_MOST] = max(row[TTFT_MOST], ttft)
    if request.output > 1:
        row[TPOT_SUM] += tpot
        row[TPOT_COUNT] += 1.0
        row[TPOT_MOST] = max(row[TPOT_MOST], tpot)
    if not request.measured:
        return
    sums.finished += 1
    sums.output_tokens += request.output
    sums.input_tokens += request.prompt
    if within:
        sums.within += 1
        sums.within_tokens += request.output
    sums.ttft_within += 1 if first else 0
    sums.tpot_within += 1 if each else 0
    sums.e2e_within += 1 if whole else 0
    note(world, klass, TTFT, ttft, 1)
    note(world, klass, E2E, e2e, 1)
    if request.output > 1:
        note(world, klass, TPOT, tpot, 1)


@compiled
def sample(world: World, now: float) -> None:
    """Add what is waiting, running, cached and up at an instant to the series."""
    queued, running, used, room, up = world.totals[0].limbo, 0, 0, 0, 0
    for n in range(world.ranks.size):
        rank = world.ranks[n]
        if rank.engine < 0:
            continue
        queued += rank.waiting
        running += rank.running + rank.prefilling
        used += rank.private + (rank.entries - rank.idle_entries) * rank.entry_tokens
        room += rank.capacity
    for n in range(world.replicas.size):
        queued += world.replicas[n].queued
        up += 1 if world.replicas[n].state in (UP, DRAINING) else 0
    for n in range(world.engines.size):
        world.engines[n].taken += world.engines[n].in_service
    world.totals[0].looks += 1
    row = world.series[bin_of(world, now)]
    row[SAMPLES] += 1.0
    row[QUEUED] += queued
    row[RUNNING] += running
    row[CACHE_USED] += used / room if room > 0 else 0.0
    row[REPLICAS_UP] += up
