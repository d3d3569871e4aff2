"""One run of a fleet from empty: rows of requests go in, stretch by stretch, and what came of them comes out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokopt.domain.traces import TraceChunk
from tokopt.simulation import world as w
from tokopt.simulation.building import Fleet, built, with_entries, with_requests
from tokopt.simulation.invariants import broken
from tokopt.simulation.loop import inner_loop

MOST_REQUESTS = 1 << 21  # in the system at a time: more are an overload, whatever else

MOST_SNAPSHOTS = 512
AHEAD_BINS = 8  # of the series over time: how far ahead failures are drawn

Told = Callable[[float, int], None]  # simulated time, requests that have arrived


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """A replica that is down for a while; replicas are numbered over the whole fleet."""

    time_s: float
    replica: int
    lasts_s: float


Failures = Callable[[float, float], Sequence[Outage]]  # from one time up to another


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What is measured: requests that arrive from one time to another."""

    start_s: float
    end_s: float = math.inf  # endless: to the last request


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Sums since the start, at one moment: differences of two say what went on between them."""

    time_s: float
    arrived: int
    finished: int
    delivered: int  # tokens
    in_system: int
    area: float  # requests in the system over time
    engine_busy_s: NDArray[np.float64]
    engine_prefill_s: NDArray[np.float64]
    engine_joules: NDArray[np.float64]
    server_busy_s: NDArray[np.float64]
    server_joules: NDArray[np.float64]
    paid_s: NDArray[np.float64]  # of replicas
    up_s: NDArray[np.float64]
    taken: NDArray[np.float64]  # slots of engines, summed over looks
    looks: int
    answered: NDArray[np.int64]  # by class
    answered_tokens: NDArray[np.int64]
    prompt_tokens: int
    found_tokens: int
    preempted: int
    retried: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a run: arrays by class, metric and bin, and the state of everything at its end."""

    world: w.World
    snapshots: tuple[Snapshot, ...]  # between stretches, of a long run some of them
    cut_short: str  # why it ended early; empty = it did not
    broken: tuple[str, ...]  # what does not add up; empty unless there is a defect


def replicate(
    fleet: Fleet,
    chunks: Iterable[TraceChunk],
    window: Window,
    *,
    seed: int | Sequence[int],
    given_share: Sequence[float] = (),
    concurrency: int = 0,
    outages: Failures | None = None,
    active: dict[int, int] | None = None,
    told: Told | None = None,
    overloaded: Callable[[w.World], bool] | None = None,
) -> Outcome:
    """Return what comes of a fleet that starts empty and gets requests until they end, or all measured are answered.

    Args:
        fleet: Replicas, classes, router.
        chunks: Requests in the order of arrival; only lengths count in a closed loop.
        window: Which of them are measured.
        seed: Of choices at random: routes, groups, drafts that are accepted.
        given_share: Of each class's prompts, what need not be computed whatever caches hold.
        concurrency: Requests in flight in a closed loop; 0 = they come by themselves.
        outages: Gives the failures from one time up to another, each call from where the one before ended.
        active: Of items that are scaled, how many replicas run at the start.
        told: Told how far it is, between stretches.
        overloaded: Asked between stretches whether there is no point in going on.
    """
    world = built(fleet)
    totals = world.totals[0]
    totals.measure_from, totals.measure_until = window.start_s, window.end_s
    totals.closed_loop = concurrency
    _stop_at_start(world, active or {})
    rng = np.random.default_rng(seed)
    waiting = _Waiting(fleet, concurrency, outages)
    history = _History(world)
    cut_short = ""

    for chunk in _with_end(chunks):
        rows = rows_of(chunk, given_share, fleet.most_blocks)
        if chunk is None:
            world.totals[0].ended = 1
        world = waiting.advance(world, rows, rng)
        totals = world.totals[0]
        history.add(world)
        if told is not None:
            told(float(totals.now), int(totals.arrived))
        if totals.in_system > MOST_REQUESTS:
            cut_short = f"more than {MOST_REQUESTS:,} requests were in the system at {totals.now:,.0f} s"
        elif overloaded is not None and overloaded(world):
            cut_short = "overloaded"
        if cut_short or (totals.now >= window.end_s and totals.measured_open == 0):
            break
    faults = tuple(broken(world, waiting.events))
    return Outcome(world=world, snapshots=history.with_end(world), cut_short=cut_short, broken=faults)


class _History:
    """Snapshots between stretches: all of a short run, fewer and fewer of a longer one, and always that of its end."""

    def __init__(self, world: w.World) -> None:
        self._kept = [_snapshot(world)]
        self._count, self._each = 0, 1

    def add(self, world: w.World) -> None:
        """Take a snapshot, unless enough are kept that are near it."""
        self._count += 1
        if self._count % self._each == 0:
            self._kept.append(_snapshot(world))
        if len(self._kept) > MOST_SNAPSHOTS:
            del self._kept[1::2]
            self._each *= 2

    def with_end(self, world: w.World) -> tuple[Snapshot, ...]:
        """Return the snapshots, the last one of this moment."""
        last = self._kept[-1]
        totals = world.totals[0]
        now = last.time_s == totals.now and last.arrived == totals.arrived and last.finished == totals.finished
        return tuple(self._kept) if now else (*self._kept, _snapshot(world))


def _snapshot(world: w.World) -> Snapshot:
    totals, replicas = world.totals[0], world.replicas
    now = float(totals.now)
    return Snapshot(
        time_s=now,
        arrived=int(totals.arrived),
        finished=int(totals.finished),
        delivered=int(totals.delivered),
        in_system=int(totals.in_system),
        area=float(totals.area + totals.in_system * (now - totals.area_at)),
        engine_busy_s=world.engines.busy_s.copy(),
        engine_prefill_s=world.engines.prefill_s.copy(),
        engine_joules=world.engines.joules.copy(),
        server_busy_s=world.servers.busy_s.copy(),
        server_joules=world.servers.joules.copy(),
        paid_s=replicas.paid_s + np.where(replicas.state != w.DOWN, now - replicas.since, 0.0),
        up_s=replicas.up_s + np.where(np.isin(replicas.state, (w.UP, w.DRAINING)), now - replicas.since, 0.0),
        taken=world.engines.taken.copy(),
        looks=int(totals.looks),
        answered=world.per_class.answered.copy(),
        answered_tokens=world.per_class.delivered.copy(),
        prompt_tokens=int(totals.prompt_tokens),
        found_tokens=int(totals.found_tokens),
        preempted=int(totals.preempted),
        retried=int(totals.retried),
    )


def rows_of(chunk: TraceChunk | None, given_share: Sequence[float], most_blocks: int) -> w.Rows:
    """Return a stretch of a trace as the inner loop takes it; None is one without requests."""
    none = np.zeros(0, dtype=np.int64)
    if chunk is None:
        return w.Rows(np.zeros(0), none, none, none, none, np.zeros(1, dtype=np.int64), none)
    shares = np.array([*given_share, 0.0])
    given = (shares[np.minimum(chunk.classes, shares.size - 1)] * chunk.input_tokens).astype(np.int64)
    start, hashes = chunk.hash_start, chunk.hashes
    if not most_blocks or not chunk.block_tokens:
        start, hashes = np.zeros(chunk.requests + 1, dtype=np.int64), none
    return w.Rows(
        np.ascontiguousarray(chunk.time_s, dtype=float),
        np.ascontiguousarray(chunk.classes, dtype=np.int64),
        np.ascontiguousarray(chunk.input_tokens, dtype=np.int64),
        np.ascontiguousarray(chunk.output_tokens, dtype=np.int64),
        given,
        np.ascontiguousarray(start, dtype=np.int64),
        np.ascontiguousarray(hashes, dtype=np.int64),
    )


class _Waiting:
    """The events that are to come, between calls of the inner loop."""

    def __init__(self, fleet: Fleet, concurrency: int, outages: Failures | None) -> None:
        self._outages = outages
        self._known_s = 0.0 if outages is not None else math.inf  # until when failures are known
        self._rows = np.zeros(0, dtype=w.EVENT).view(np.recarray)
        self._count = 0
        first = [(0.0, w.AT_SAMPLE, 0)]
        first += [(rule.every_s, w.AT_SCALING, n) for n, rule in enumerate(fleet.scaling)]
        first += [(0.0, w.AT_NEXT, 0)] * concurrency
        self._room(len(first))
        for n, (time, code, who) in enumerate(first):
            self._rows[n] = (time, n - len(first), code, who, 0)
        self._count = len(first)

    @property
    def events(self) -> Any:
        """The events, one a row."""
        return self._rows[: self._count]

    def _room(self, more: int) -> None:
        rows = np.zeros(self._count + more, dtype=w.EVENT).view(np.recarray)
        rows[: self._count] = self._rows[: self._count]
        self._rows = rows

    def advance(self, world: w.World, rows: w.Rows, rng: np.random.Generator) -> w.World:
        """Let all rows arrive, and all happen that comes before the last of them; make room as it is needed."""
        advance = inner_loop()
        cursor = 0
        while True:
            # At most one event an engine and two a server are under way, and three a request or replica.
            most = 3 * (world.requests.size + world.replicas.size) + world.engines.size + 2 * world.servers.size
            # What a failure makes void stays until its time: steps, batches and repairs of what it takes down.
            void = world.outages.size * (world.engines.size + 2 * world.servers.size + 1)
            self._room(most + void + world.scaling.size + rows.time_s.size + 16)
            why, cursor, self._count = advance(world, rows, cursor, self._known_s, self._rows, self._count, rng)
            if self._count > self._rows.size:
                raise RuntimeError("more events were left than there was room for")
            if why == w.NEEDS_REQUESTS:
                world = with_requests(world, world.requests.size)
            elif why == w.NEEDS_ENTRIES:
                world = with_entries(world, world.entries.size)
            elif why == w.NEEDS_TIME:
                world = self._with_outages(world)
            else:
                return world

    def _with_outages(self, world: w.World) -> w.World:
        """Return the tables with the failures of the time that comes; all that were known are past."""
        assert self._outages is not None
        start = self._known_s
        self._known_s = max(start, float(world.totals[0].now)) + AHEAD_BINS * float(world.totals[0].bin_s)
        world.totals[0].outage_next = 0
        return world._replace(outages=_outage_rows(self._outages(start, self._known_s)))


def _with_end(chunks: Iterable[TraceChunk]) -> Iterator[TraceChunk | None]:
    for chunk in chunks:
        if chunk.requests:
            yield chunk
    yield None


def _outage_rows(outages: Sequence[Outage]) -> np.ndarray:
    rows = np.zeros(len(outages), dtype=w.OUTAGE).view(np.recarray)
    for n, outage in enumerate(sorted(outages, key=lambda each: (each.time_s, each.replica))):
        rows[n] = (outage.time_s, outage.replica, outage.lasts_s)
    return rows


def _stop_at_start(world: w.World, active: dict[int, int]) -> None:
    """Leave only so many replicas of an item running as are wanted at the start."""
    for item, wanted in active.items():
        own = np.flatnonzero(world.replicas["item"] == item)
        world.replicas.state[own[wanted:]] = w.DOWN
