"""Replications of a simulation: independent runs, here or in processes of our own."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Future, wait
from dataclasses import dataclass, replace

import numpy as np

from tokopt.domain.simulations import Arrivals, SimulationSettings
from tokopt.domain.traces import TraceChunk
from tokopt.simulation import world as w
from tokopt.simulation.arrivals import Stream, synthesised
from tokopt.simulation.replication import Outcome, Snapshot, Window, replicate

from .outages import Outages
from .processes import local_processes
from .progress import Progress
from .simulated_fleet import SimulatedFleet, SimulatedPart
from .simulated_traces import OpenTrace, trace_chunks

STRETCHES = 32  # of the measured time: how often a run is looked at
FEWEST_IN_STRETCH = 64
SHARE_OF_WARM_UP = 0.2  # of the time that is measured, at least
ANSWERS_OF_WARM_UP = 2.0  # of the planned 99th percentile of an answer's whole time, at least
BINS = 200  # of the series over a whole run
QUEUES_FULL = 20.0  # requests in the system over slots, from which on a run has lost its balance
AND_MORE = 5000
PARALLEL_FROM_REQUESTS = 400_000  # over all replications, from which on processes pay for being started
LOOKS_S = 0.5  # between two looks at the progress of processes


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One replication."""

    fleet: SimulatedFleet
    settings: SimulationSettings
    window: Window
    number: int
    trace: OpenTrace | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """What came of all replications."""

    outcomes: tuple[Outcome, ...]
    window: Window
    interrupted: bool


def window_of(fleet: SimulatedFleet, settings: SimulationSettings) -> Window:
    """Return which requests are measured: those that arrive after a warm-up, for as long as their number takes."""
    p99_s = max(part.item.e2e_ms.p99 for part in fleet.parts) * 1e-3
    if settings.arrivals is Arrivals.TRACE:
        return Window(start_s=ANSWERS_OF_WARM_UP * p99_s if settings.warm_up_s is None else settings.warm_up_s)
    measured = settings.requests / fleet.requests_per_s
    talks = max((_conversation_s(stream) for stream in fleet.streams), default=0.0)
    warm = max(ANSWERS_OF_WARM_UP * p99_s, SHARE_OF_WARM_UP * measured, talks)
    start = warm if settings.warm_up_s is None else settings.warm_up_s
    return Window(start_s=start, end_s=start + measured)


def _conversation_s(stream: Stream) -> float:
    """Return how long a conversation lasts, before which caches are not what they will be."""
    reuse = stream.workload.reuse
    if reuse is None or reuse.turn_gap_s is None:
        return 0.0
    return float(reuse.turns * (reuse.turn_gap_s + stream.answer_s))


def run_all(
    fleet: SimulatedFleet,
    settings: SimulationSettings,
    *,
    trace: OpenTrace | None,
    processes: int,
    progress: Progress,
) -> Runs:
    """Run all replications; an interrupt from the keyboard keeps what has come of them by then."""
    window = window_of(fleet, settings)
    bin_s = (window.end_s if math.isfinite(window.end_s) else window.start_s + 1.0) / BINS
    fleet = replace(fleet, fleet=replace(fleet.fleet, bin_s=max(bin_s, 1e-6)))
    jobs = [
        Job(fleet=fleet, settings=settings, window=window, number=n, trace=trace) for n in range(settings.replications)
    ]
    asked = settings.replications * settings.requests * (1.0 + window.start_s / max(window.end_s - window.start_s, 1.0))
    if trace is not None:
        asked = settings.replications * (trace.requests or settings.requests)
    count = min(processes, len(jobs))
    if count > 1 and asked >= PARALLEL_FROM_REQUESTS:
        try:
            return _run_apart(jobs, window, count, progress)
        except BrokenExecutor:
            progress("a process was killed: going on in this one", 0.0)
    return _run_here(jobs, window, progress)


def _run_here(jobs: Sequence[Job], window: Window, progress: Progress) -> Runs:
    outcomes: list[Outcome] = []
    teller = _Teller(progress, len(jobs))
    try:
        for job in jobs:
            outcomes.append(run(job, teller.of(job.number)))
    except KeyboardInterrupt as interrupt:
        kept = getattr(interrupt, "outcome", None)
        if kept is not None:
            outcomes.append(kept)
        if not outcomes:
            raise
        return Runs(outcomes=tuple(outcomes), window=window, interrupted=True)
    return Runs(outcomes=tuple(outcomes), window=window, interrupted=False)


def _run_apart(jobs: Sequence[Job], window: Window, count: int, progress: Progress) -> Runs:
    done: dict[int, Outcome] = {}
    try:
        with local_processes(count) as pool:
            futures: dict[Future[Outcome], int] = {pool.submit(run, job): job.number for job in jobs}
            left = set(futures)
            while left:
                finished, left = wait(left, timeout=LOOKS_S)
                for future in finished:
                    done[futures[future]] = future.result()
                progress(f"replication {min(len(done) + 1, len(jobs))} of {len(jobs)}", len(done) / len(jobs))
    except KeyboardInterrupt:
        if not done:
            raise
        return Runs(outcomes=tuple(done[n] for n in sorted(done)), window=window, interrupted=True)
    return Runs(outcomes=tuple(done[n] for n in sorted(done)), window=window, interrupted=False)


class _Teller:
    """Tells how far a number of replications is, and how long the rest takes."""

    def __init__(self, progress: Progress, count: int) -> None:
        self._progress, self._count, self._began = progress, count, time.monotonic()

    def of(self, number: int) -> Callable[[float, int], None]:
        def told(share: float, requests: int) -> None:
            done = (number + min(share, 1.0)) / self._count
            spent = time.monotonic() - self._began
            left = f", {spent / done - spent:,.0f} s left" if done > 0.02 and spent > 2.0 else ""
            self._progress(f"replication {number + 1} of {self._count}, {requests:,} requests{left}", done)

        return told


def run(job: Job, told: Callable[[float, int], None] | None = None) -> Outcome:
    """Run one replication; an interrupt from the keyboard brings along what has come of it by then (`outcome`)."""
    fleet, settings, window = job.fleet, job.settings, job.window
    seeds = np.random.SeedSequence([settings.seed, job.number]).generate_state(4)
    given = tuple(_given(fleet, n) for n in range(len(fleet.streams)))
    end = window.end_s

    def heard(now: float, requests: int) -> None:
        if told is not None:
            share = now / end if math.isfinite(end) else _share_of_trace(job.trace, requests, fleet)
            told(share, requests)

    outages = Outages(fleet, settings, seed=int(seeds[2])) if _fails(settings) else None
    active = {n: _at_start(part, settings) for n, part in enumerate(fleet.parts)}
    return replicate(
        fleet.fleet,
        _chunks(job, int(seeds[0])),
        window,
        seed=int(seeds[1]),
        given_share=given,
        concurrency=settings.concurrency if settings.arrivals is Arrivals.CLOSED_LOOP and settings.concurrency else 0,
        outages=None if outages is None else outages.between,
        active=active if settings.autoscale_target is not None else None,
        told=heard,
        overloaded=lambda world: _lost_balance(world, fleet),
    )


def _fails(settings: SimulationSettings) -> bool:
    return settings.node_mtbf_hours is not None or settings.spot_interruptions_per_hour > 0.0


def _given(fleet: SimulatedFleet, number: int) -> float:
    """Return the share of prompts that need not be computed whatever caches hold: none where caches are simulated."""
    workload = fleet.streams[number].workload
    return 0.0 if workload.reuse is not None else workload.prefix_share


def _at_start(part: SimulatedPart, settings: SimulationSettings) -> int:
    """Return the replicas of an item that run at the start where they are scaled: what the planned load needs."""
    simulated = part.simulated
    wanted = math.ceil(simulated * settings.load / (settings.autoscale_target or 1.0))
    return max(min(wanted, simulated), min(settings.autoscale_least, simulated))


def _chunks(job: Job, seed: int) -> Iterator[TraceChunk]:
    fleet, settings = job.fleet, job.settings
    if job.trace is not None:
        return trace_chunks(job.trace, fleet, settings, seed)
    stretch = int(min(max(settings.requests / STRETCHES, FEWEST_IN_STRETCH), 4096))
    return synthesised(fleet.streams, seed=seed, chunk_requests=stretch)


def _share_of_trace(trace: OpenTrace | None, requests: int, fleet: SimulatedFleet) -> float:
    if trace is None or not trace.requests:
        return 0.0
    return requests / (
        trace.requests * min(1.0, sum(p.simulated for p in fleet.parts) / sum(p.replicas for p in fleet.parts))
    )


def _lost_balance(world: w.World, fleet: SimulatedFleet) -> bool:
    return bool(world.totals[0].in_system > QUEUES_FULL * fleet.slots + AND_MORE)


def overload_of(runs: Runs, fleet: SimulatedFleet, settings: SimulationSettings) -> str:
    """Return how it shows that requests come faster than they are answered; empty = it does not.

    In a balance the number of requests in the system goes up and down around its mean; over the second half of what is
    measured it must not have grown by more than 0.5 % of the requests that came, nor by more than chance explains: four
    standard deviations of the difference of two Poisson counts, or of burstier ones.
    """
    if settings.arrivals is Arrivals.CLOSED_LOOP:
        return ""
    cut = next((outcome.cut_short for outcome in runs.outcomes if outcome.cut_short), "")
    if cut:
        now = max(outcome.snapshots[-1].time_s for outcome in runs.outcomes)
        return f"queues outgrew {QUEUES_FULL:.0f} times what is in service, {now:,.0f} s after the start"
    if settings.arrivals is Arrivals.TRACE:
        return ""
    cv2 = max(stream.cv2 for stream in fleet.streams)
    grown = came = 0.0
    for outcome in runs.outcomes:
        middle, end = _halves(outcome, runs.window)
        grown += end.in_system - middle.in_system
        came += end.arrived - middle.arrived
    chance = 4.0 * math.sqrt(came * (1.0 + cv2))
    if grown > max(0.005 * came, chance):
        return f"the number of requests in the system grows by {grown / came:.1%} of those that come"
    return ""


def _halves(outcome: Outcome, window: Window) -> tuple[Snapshot, Snapshot]:
    """Return the snapshots in the middle and at the end of what is measured."""
    inside = [s for s in outcome.snapshots if window.start_s <= s.time_s <= window.end_s] or list(outcome.snapshots)
    middle = 0.5 * (inside[0].time_s + inside[-1].time_s)
    return min(inside, key=lambda s: abs(s.time_s - middle)), inside[-1]
