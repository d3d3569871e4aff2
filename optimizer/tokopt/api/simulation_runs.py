"""Replications of a simulation: independent runs, here or in processes of our own."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, wait
from dataclasses import dataclass, replace

import numpy as np

from tokopt.domain.simulations import Arrivals, SimulationSettings
from tokopt.domain.traces import TraceChunk
from tokopt.errors import InputError
from tokopt.simulation import world as w
from tokopt.simulation.arrivals import Stream, synthesised
from tokopt.simulation.loading import is_kept, load
from tokopt.simulation.replication import MOST_REQUESTS, Outcome, Snapshot, Window, replicate
from tokopt.simulation.statistics import half_width
from tokopt.units import MS

from .interrupts import noted_interrupts
from .outages import outages_of
from .processes import local_processes
from .progress import Progress
from .shared_board import Board
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
    over: Callable[[w.World], bool] | None = None  # asked between stretches whether to end; None = at lost balance


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What came of one replication."""

    outcome: Outcome
    stopped_s: float | None  # of simulated time, when an interrupt ended it; None = it ended by itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """What came of all replications."""

    outcomes: tuple[Outcome, ...]
    window: Window
    interrupted: bool
    partial: bool = False  # the only outcome is of a replication that was cut short


def window_of(fleet: SimulatedFleet, settings: SimulationSettings) -> Window:
    """Return which requests are measured: those that arrive after a warm-up, for as long as their number takes."""
    p99_s = max(part.item.e2e_ms.p99 for part in fleet.parts) * 1e-3
    if settings.arrivals is Arrivals.TRACE:
        return Window(start_s=ANSWERS_OF_WARM_UP * p99_s if settings.warm_up_s is None else settings.warm_up_s)
    rate, cycle_s = fleet.requests_per_s, 0.0
    if settings.arrivals is Arrivals.CLOSED_LOOP:
        # As fast as the plan says that so many are answered: with fewer than planned at the rate of their answers, with
        # more at the planned one, at which it takes a while until all that came at once at the start are through.
        answer_s = max(part.item.e2e_ms.mean for part in fleet.parts) * MS
        cycle_s = ANSWERS_OF_WARM_UP * fleet.in_flight / rate
        rate = min(rate, fleet.in_flight / answer_s)
    measured = settings.requests / rate
    talks = max((conversation_s(stream) for stream in fleet.streams), default=0.0)
    warm = max(ANSWERS_OF_WARM_UP * p99_s, SHARE_OF_WARM_UP * measured, talks, cycle_s)
    start = warm if settings.warm_up_s is None else settings.warm_up_s
    return Window(start_s=start, end_s=start + measured)


def conversation_s(stream: Stream) -> float:
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
    if settings.arrivals is Arrivals.CLOSED_LOOP and fleet.in_flight > MOST_REQUESTS:
        raise InputError(
            f"--concurrency: {settings.concurrency:,} are {fleet.in_flight:,} on the replicas that are simulated; "
            f"at most {MOST_REQUESTS:,} can be"
        )
    count = min(processes, len(jobs))
    _compiled(fleet, progress)
    with noted_interrupts() as interrupted:
        progress("loading the simulator", 0.0)
        load(fleet.fleet)
        if count > 1 and asked >= PARALLEL_FROM_REQUESTS:
            try:
                return _kept(_run_apart(jobs, count, progress, interrupted), window, len(jobs))
            except BrokenExecutor:
                progress("a process was killed: going on in this one", 0.0)
        return _kept(_run_here(jobs, progress, interrupted), window, len(jobs))


def _compiled(fleet: SimulatedFleet, progress: Progress) -> None:
    """Make the machine code of the inner loop where no earlier process has left any; an interrupt ends that at once."""
    if not is_kept():
        progress("compiling the simulator (once, about 20 s)", 0.0)
        load(fleet.fleet)


def _run_here(jobs: Sequence[Job], progress: Progress, interrupted: Callable[[], bool]) -> list[Ran]:
    done: list[Ran] = []
    try:
        for job in jobs:
            if interrupted():
                break
            done.append(run(job, _teller(progress, job, len(jobs)), interrupted))
    except KeyboardInterrupt:
        if not done:
            raise
    return done


def _run_apart(jobs: Sequence[Job], count: int, progress: Progress, interrupted: Callable[[], bool]) -> list[Ran]:
    done: dict[int, Ran] = {}
    board = Board(len(jobs))
    try:
        with local_processes(count) as pool:
            futures = {pool.submit(run_apart, job, board.name): job.number for job in jobs}
            left = set(futures)
            while left:
                finished, left = wait(left, timeout=LOOKS_S)
                for future in finished:
                    done[futures[future]] = future.result()
                if interrupted():
                    if not done and not board.furthest(len(jobs)):  # they are still being started
                        raise KeyboardInterrupt
                    board.stop()
                    left -= {future for future in left if future.cancel()}
                said = ", ending the others" if interrupted() else ""
                progress(f"{len(done)} of {len(jobs)} replications done{said}", board.done(len(jobs)))
    except KeyboardInterrupt:
        if not done:
            raise
    finally:
        board.close(remove=True)
    return [done[number] for number in sorted(done)]


def _kept(done: Sequence[Ran], window: Window, wanted: int) -> Runs:
    """Return what is kept of an interrupted simulation: all replications that ended, else the one that came furthest.

    Raises:
        KeyboardInterrupt: There is nothing to keep.
    """
    whole = [each for each in done if each.stopped_s is None]
    if len(whole) == wanted:
        return Runs(outcomes=tuple(each.outcome for each in whole), window=window, interrupted=False)
    if whole:
        return Runs(outcomes=tuple(each.outcome for each in whole), window=window, interrupted=True)
    part = max(done, key=lambda each: each.stopped_s or 0.0, default=None)
    if part is None or not part.outcome.world.per_class.finished.sum():
        raise KeyboardInterrupt
    until = Window(start_s=window.start_s, end_s=part.stopped_s or 0.0)
    return Runs(outcomes=(part.outcome,), window=until, interrupted=True, partial=True)


def _teller(progress: Progress, job: Job, count: int) -> Callable[[float, int], None]:
    def told(share: float, requests: int) -> None:
        progress(f"replication {job.number + 1} of {count}, {requests:,} requests", (job.number + share) / count)

    return told


def run_apart(job: Job, board: str) -> Ran:
    """Run one replication in a process of our own, which tells a board how far it is."""
    known = Board(0, board)
    try:
        ran = run(job, lambda share, _: known.tell(job.number, share), known.stopped)
        # What is looked up in while it runs cannot be sent, and of single requests nothing is asked any more.
        rows = ("requests", "hashes", "held", "entries", "running")
        empty = {name: getattr(ran.outcome.world, name)[:0] for name in rows}
        sent = ran.outcome.world._replace(index=None, **empty)
        return replace(ran, outcome=replace(ran.outcome, world=sent))
    finally:
        known.tell(job.number, 1.0)
        known.close()


def run(
    job: Job, told: Callable[[float, int], None] | None = None, interrupted: Callable[[], bool] | None = None
) -> Ran:
    """Run one replication; once it is interrupted, nobody comes any more, and whoever is there is answered."""
    fleet, settings, window = job.fleet, job.settings, job.window
    seeds = np.random.SeedSequence([settings.seed, job.number]).generate_state(4)
    given = tuple(_given(fleet, settings, n) for n in range(len(fleet.streams)))
    outages = outages_of(fleet, settings, seed=int(seeds[2])) if _fails(settings) else None
    active = {n: _at_start(part, settings) for n, part in enumerate(fleet.parts)}
    watch = _Watch(job, told, interrupted)
    closed = settings.arrivals is Arrivals.CLOSED_LOOP  # in which queues have an end
    outcome = replicate(
        fleet.fleet,
        watch.until_interrupted(_chunks(job, int(seeds[0]))),
        window,
        seed=int(seeds[1]),
        given_share=given,
        concurrency=fleet.in_flight if closed else 0,
        outages=None if outages is None else outages.between,
        active=active if settings.autoscale_target is not None else None,
        told=watch.heard,
        overloaded=job.over or (None if closed else lambda world: _lost_balance(world, fleet)),
    )
    cut = watch.stopped_s is not None and watch.stopped_s < window.end_s  # else all that is measured had come
    return Ran(outcome=outcome, stopped_s=watch.stopped_s if cut else None)


class _Watch:
    """Hears how far a replication is, and ends its requests when it is interrupted."""

    def __init__(
        self, job: Job, told: Callable[[float, int], None] | None, interrupted: Callable[[], bool] | None
    ) -> None:
        self._job, self._told, self._interrupted = job, told, interrupted
        self._now = 0.0
        # The last requests that are measured take as long as their answers.
        self._end = job.window.end_s + max(part.item.e2e_ms.p99 for part in job.fleet.parts) * MS
        self.stopped_s: float | None = None

    def heard(self, now: float, requests: int) -> None:
        """Take how far it is."""
        self._now = now
        if self._told is not None:
            share = now / self._end
            if self._job.trace is not None:
                share = _share_of_trace(self._job.trace, requests, self._job.fleet)
            self._told(min(share, 1.0), requests)

    def until_interrupted(self, chunks: Iterator[TraceChunk]) -> Iterator[TraceChunk]:
        """Yield stretches of requests until an interrupt."""
        for chunk in chunks:
            if self._interrupted is not None and self._interrupted():
                self.stopped_s = self._now
                return
            yield chunk


def _fails(settings: SimulationSettings) -> bool:
    return settings.node_mtbf_hours is not None or settings.spot_interruptions_per_hour > 0.0


def _given(fleet: SimulatedFleet, settings: SimulationSettings, number: int) -> float:
    """Return the share of prompts that need not be computed whatever caches hold: none where caches are simulated."""
    workload = fleet.streams[number].workload
    return 0.0 if workload.reuse is not None or settings.trace_block_tokens else workload.prefix_share


def _at_start(part: SimulatedPart, settings: SimulationSettings) -> int:
    """Return the replicas of an item that run at the start where they are scaled: what the planned load needs."""
    simulated = part.simulated
    wanted = math.ceil(simulated * settings.load / (settings.autoscale_target or 1.0))
    return max(min(wanted, simulated), part.least_running(settings))


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

    In a balance the number of requests in the system goes up and down around its mean; over the second half of the time
    after the warm-up it must not have grown by more than 0.5 % of the requests that came, nor by more than chance
    explains: four standard deviations of the difference of two Poisson counts, or of burstier ones.
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
        middle, end = _halves(outcome, runs)
        grown += end.in_system - middle.in_system
        came += end.arrived - middle.arrived
    chance = 4.0 * math.sqrt(came * (1.0 + cv2))
    if grown > max(0.005 * came, chance):
        return f"the number of requests in the system grows by {grown / came:.1%} of those that come"
    return ""


def _halves(outcome: Outcome, runs: Runs) -> tuple[Snapshot, Snapshot]:
    """Return the snapshots in the middle and at the end of the time after the warm-up in which requests came.

    They do until all are answered that are measured, but for a run that was cut short.
    """
    until = runs.window.end_s if runs.partial else math.inf
    inside = [s for s in outcome.snapshots if runs.window.start_s <= s.time_s <= until] or list(outcome.snapshots)
    middle = 0.5 * (inside[0].time_s + inside[-1].time_s)
    return min(inside, key=lambda s: abs(s.time_s - middle)), inside[-1]


def drift_of(runs: Runs, settings: SimulationSettings) -> float:
    """Return by what share the requests in the system still rise after the warm-up, 0 where that may be chance.

    From the first to the second half of the time in which requests come; it is no chance where the confidence interval
    over replications is above zero.
    """
    if settings.arrivals in (Arrivals.TRACE, Arrivals.CLOSED_LOOP) or runs.partial:
        return 0.0
    rises = []
    for outcome in runs.outcomes:
        inside = [s for s in outcome.snapshots if s.time_s >= runs.window.start_s]
        if len(inside) < 3:
            return 0.0
        middle = _halves(outcome, runs)[0]
        first, second = (
            (b.area - a.area) / max(b.time_s - a.time_s, 1e-12) for a, b in ((inside[0], middle), (middle, inside[-1]))
        )
        rises.append(second / first - 1.0 if first > 0.0 else 0.0)
    rise, sure = sum(rises) / len(rises), half_width(rises)
    return rise if sure is not None and rise > sure else 0.0
