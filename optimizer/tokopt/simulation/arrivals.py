"""Requests made up from the statistics of workloads: when they come, how long they are, what they repeat."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from tokopt.domain.traces import TraceChunk
from tokopt.domain.workloads import Workload
from tokopt.perf.caching import Pattern, pattern_of
from tokopt.units import SECONDS_PER_DAY

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CHUNK_REQUESTS = 4096
BLOCK_TOKENS = 256  # of a hash of a prompt that is made up
BLOCKS_APART = 1 << 18  # room for the blocks of one prefix or conversation
FIRST_OWN = 1 << 40  # hashes of conversations, beyond those of shared prefixes
HISTORY = 1.5  # of a conversation's mean length: how long before time zero the first ones start


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """Requests of one class: their workload and how many there are."""

    workload: Workload
    requests_per_s: float
    arrival_cv2: float | None = None  # of the times between arrivals; None = the workload's; 0 = one after another
    longest_tokens: int = 1 << 40  # that the model takes, prompt and answer together
    answer_s: float = 0.0  # mean time that an answer takes, before which no next turn comes
    daily: tuple[float, ...] = ()  # factors on the rate in equal parts of a day; empty = the same all day

    @property
    def cv2(self) -> float:
        """Squared coefficient of variation of the times between arrivals."""
        return self.workload.arrival_cv2 if self.arrival_cv2 is None else self.arrival_cv2


def synthesised(
    streams: Sequence[Stream],
    *,
    seed: int | Sequence[int],
    end_s: float = math.inf,
    chunk_requests: int = CHUNK_REQUESTS,
) -> Iterator[TraceChunk]:
    """Return requests of all classes in the order of their arrival, stretch by stretch, without end or until `end_s`.

    Times between arrivals have a gamma distribution with the stated variation: Poisson arrivals for 1, even ones for 0.
    Where the rate has a shape over the day, that distribution is of the expected number of arrivals instead of time.
    Lengths are log-normal, as plans take them; prompts that repeat come as conversations, or with shared prefixes.

    Args:
        streams: The classes; a request's class is its number here.
        seed: Of the random numbers: the same seed gives the same requests, whatever the length of a stretch.
        end_s: No requests from this time on.
        chunk_requests: Mean length of a stretch.
    """
    seeds = np.random.SeedSequence(seed).spawn(len(streams))
    sources = [_source(stream, np.random.default_rng(s)) for stream, s in zip(streams, seeds, strict=True)]
    total = sum(stream.requests_per_s for stream in streams)
    if not total > 0.0:
        return
    window = chunk_requests / total
    blocks = BLOCK_TOKENS if any(stream.workload.reuse is not None for stream in streams) else 0
    start = 0.0
    while start < end_s:
        until = min(start + window, end_s)
        yield _merged([source.until(until) for source in sources], blocks)
        start = until


@dataclass(frozen=True, slots=True)
class _Part:
    """Requests of one class in a stretch of time."""

    time_s: Floats
    prompt: Ints
    output: Ints
    hashes: list[Ints]


class _Clock:
    """Times of arrivals, in order."""

    def __init__(self, stream: Stream, rate: float, rng: Generator) -> None:
        self._cv2, self._rate, self._rng = stream.cv2, rate, rng
        self._left = np.zeros(0)
        self._shape = np.array(stream.daily, dtype=float)
        # Streams of even pace are not in step.
        self._reached = -float(rng.random()) if self._cv2 == 0.0 else 0.0

    def _work(self, time: float) -> float:
        """Return the expected arrivals from time zero on."""
        if not self._shape.size:
            return time * self._rate
        share = SECONDS_PER_DAY / self._shape.size
        day, within = divmod(time, SECONDS_PER_DAY)
        edges = np.concatenate([[0.0], np.cumsum(self._shape)]) * share
        inside = float(np.interp(within, np.arange(edges.size) * share, edges))
        return self._rate * (day * float(edges[-1]) + inside)

    def _time(self, work: Floats) -> Floats:
        """Return the times by which so many arrivals are expected."""
        if not self._shape.size:
            return work / self._rate
        share = SECONDS_PER_DAY / self._shape.size
        edges = np.concatenate([[0.0], np.cumsum(self._shape)]) * share * self._rate
        day, within = np.divmod(work, edges[-1])
        return day * SECONDS_PER_DAY + np.interp(within, edges, np.arange(edges.size) * share)

    def until(self, end: float) -> Floats:
        """Return the arrivals before a time that were not returned yet."""
        limit = self._work(end)
        found = [self._left]
        while self._reached < limit:
            some = max(int((limit - self._reached) * 1.1) + 16, 16)
            gaps = np.ones(some) if self._cv2 == 0.0 else self._rng.gamma(1.0 / self._cv2, self._cv2, some)
            work = np.cumsum(np.concatenate([[self._reached], gaps]))[1:]
            self._reached = float(work[-1])
            found.append(work)
        work = np.concatenate(found)
        here = work < limit
        self._left = work[~here]
        return np.maximum(self._time(work[here]), 0.0)


def _source(stream: Stream, rng: Generator) -> _Plain | _Talks:
    workload = stream.workload
    if workload.reuse is None:
        return _Plain(stream, rng)
    return _Talks(stream, pattern_of(workload), rng)


def _lengths(rng: Generator, mean: float, cv: float, size: int) -> Floats:
    """Draw log-normal lengths; all the same where they do not vary."""
    if cv <= 0.0:
        return np.full(size, mean)
    sigma2 = math.log1p(cv * cv)
    return np.exp(rng.normal(math.log(mean) - 0.5 * sigma2, math.sqrt(sigma2), size))


def whole_lengths(prompt: Floats, output: Floats, longest: int) -> tuple[Ints, Ints]:
    """Return lengths in whole tokens, at least one each, cut to what the model takes."""
    inputs = np.clip(np.rint(prompt), 1, max(longest - 1, 1)).astype(np.int64)
    outputs = np.clip(np.rint(output), 1, np.maximum(longest - inputs, 1)).astype(np.int64)
    return inputs, outputs


class _Plain:
    """Requests that have nothing in common."""

    def __init__(self, stream: Stream, rng: Generator) -> None:
        self._stream = stream
        clock, self._prompts, self._outputs = rng.spawn(3)  # apart, so that stretches of any length have the same
        self._clock = _Clock(stream, stream.requests_per_s, clock)

    def until(self, end: float) -> _Part:
        """Return the requests before a time that were not returned yet."""
        times = self._clock.until(end)
        workload = self._stream.workload
        prompt = _lengths(self._prompts, workload.input_tokens, workload.input_cv, times.size)
        output = _lengths(self._outputs, workload.output_tokens, workload.output_cv, times.size)
        return _Part(times, *whole_lengths(prompt, output, self._stream.longest_tokens), hashes=[])


class _Talks:
    """Conversations: prompts start with a prefix that many share, and grow from turn to turn.

    The next turn comes an exponential time after the answer, as `perf.caching` takes it. What is a prompt's own varies
    as the workload says, over turns and conversations together: conversations vary by what turns do not.
    """

    def __init__(self, stream: Stream, pattern: Pattern, rng: Generator) -> None:
        self._stream, self._pattern = stream, pattern
        clock, self._begun, self._lasts, self._scales, self._prefixes, self._gaps, self._outputs = rng.spawn(7)
        reuse = stream.workload.reuse
        assert reuse is not None
        self._turns = reuse.turns
        own = pattern.input_tokens - pattern.shared_tokens
        self._growth = 2.0 * own / (reuse.turns + 1.0) if reuse.turn_tokens is None else reuse.turn_tokens
        self._first = own - 0.5 * self._growth * (reuse.turns - 1.0)
        of_turns2 = self._growth**2 * (reuse.turns**2 - 1.0) / 12.0 / own**2  # as the numbers 1 … T vary
        self._scale_cv = math.sqrt(max((1.0 + stream.workload.input_cv**2) / (1.0 + of_turns2) - 1.0, 0.0))
        self._gap = pattern.gap_s if reuse.turns > 1.0 else 0.0
        length = reuse.turns * (self._gap + stream.answer_s) * HISTORY
        history = length if reuse.turns > 1.0 else 0.0
        self._clock = _Clock(stream, stream.requests_per_s / reuse.turns, clock)
        self._waiting: list[tuple[float, int, int, float, int]] = []  # time, conversation, turn, scale, prefix
        self._talks = 0
        self._old = -history

    def until(self, end: float) -> _Part:
        """Return the requests before a time that were not returned yet."""
        if self._old < 0.0:  # conversations that began before time zero
            self._open(self._begun_before())
            self._old = 0.0
        self._open(self._clock.until(end))
        here = []
        while self._waiting and self._waiting[0][0] < end:
            here.append(heapq.heappop(self._waiting))
        workload = self._stream.workload
        times = np.array([each[0] for each in here])
        prompt = np.array([self._prompt(turn, scale) for _, _, turn, scale, _ in here])
        output = _lengths(self._outputs, workload.output_tokens, workload.output_cv, times.size)
        inputs, outputs = whole_lengths(prompt, output, self._stream.longest_tokens)
        hashes = [self._hashes(talk, prefix, int(n)) for (_, talk, _, _, prefix), n in zip(here, inputs, strict=True)]
        return _Part(times, inputs, outputs, hashes)

    def _begun_before(self) -> Floats:
        rate = self._stream.requests_per_s / self._turns
        count = int(self._begun.poisson(-self._old * rate))
        return np.sort(self._begun.random(count)) * -self._old + self._old

    def _open(self, starts: Floats) -> None:
        """Begin conversations: all of their turns wait for their time."""
        count = starts.size
        whole = math.floor(self._turns)
        turns = whole + (self._lasts.random(count) < self._turns - whole)
        scales = _lengths(self._scales, 1.0, self._scale_cv, count)
        prefixes = self._prefixes.integers(0, max(round(self._pattern.prefixes), 1), count)
        for start, length, scale, prefix in zip(starts, turns, scales, prefixes, strict=True):
            gaps = self._gaps.exponential(1.0, int(length) - 1) * self._gap + self._stream.answer_s
            times = start + np.concatenate([[0.0], np.cumsum(gaps)])
            for turn, time in enumerate(times.tolist()):
                if time >= 0.0:
                    heapq.heappush(self._waiting, (time, self._talks, turn, float(scale), int(prefix)))
            self._talks += 1

    def _prompt(self, turn: int, scale: float) -> float:
        return self._pattern.shared_tokens + max((self._first + turn * self._growth) * scale, 1.0)

    def _hashes(self, talk: int, prefix: int, tokens: int) -> Ints:
        blocks = tokens // BLOCK_TOKENS
        shared = min(int(self._pattern.shared_tokens) // BLOCK_TOKENS, blocks)
        own = FIRST_OWN + talk * BLOCKS_APART + np.arange(shared, blocks)
        return np.concatenate([prefix * BLOCKS_APART + np.arange(shared), own]).astype(np.int64)


def _merged(parts: Sequence[_Part], block_tokens: int) -> TraceChunk:
    """Return the requests of several classes in the order of their arrival."""
    times = np.concatenate([part.time_s for part in parts])
    order = np.argsort(times, kind="stable")
    classes = np.concatenate([np.full(part.time_s.size, n, dtype=np.int64) for n, part in enumerate(parts)])
    start = np.zeros(times.size + 1, dtype=np.int64)
    hashes = np.zeros(0, dtype=np.int64)
    if block_tokens:
        none = np.zeros(0, dtype=np.int64)
        # Numbers of their own for each class: what two classes send has nothing in common.
        each = [h * len(parts) + n for n, part in enumerate(parts) for h in (part.hashes or [none] * part.time_s.size)]
        lists = [each[i] for i in order]
        start[1:] = np.cumsum([h.size for h in lists])
        hashes = np.concatenate([hashes, *lists])
    return TraceChunk(
        time_s=times[order],
        input_tokens=np.concatenate([part.prompt for part in parts])[order],
        output_tokens=np.concatenate([part.output for part in parts])[order],
        classes=classes[order],
        hash_start=start,
        hashes=hashes,
        block_tokens=block_tokens,
    )
