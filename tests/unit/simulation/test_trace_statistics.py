"""Statistics of traces against the plain way to work them out, with all requests at hand."""

from __future__ import annotations

import tracemalloc
from collections import OrderedDict
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from tokopt.domain.trace_summaries import StreamSummary, TraceSummary
from tokopt.domain.traces import TraceChunk, taken
from tokopt.simulation.trace_arrivals import STRETCH, Gaps, HourCounts, WindowCounts
from tokopt.simulation.trace_lengths import LogHistogram
from tokopt.simulation.trace_reuse import PrefixReuse
from tokopt.simulation.trace_statistics import TraceStatistics

Floats = np.ndarray


def plain_chunk(times: np.ndarray, inputs: np.ndarray, outputs: np.ndarray) -> TraceChunk:
    """Return a stretch of one class in which nothing is known to repeat."""
    return TraceChunk(
        time_s=times,
        input_tokens=inputs,
        output_tokens=outputs,
        classes=np.zeros(times.size, dtype=np.int64),
        hash_start=np.zeros(times.size + 1, dtype=np.int64),
    )


def pieces(chunk: TraceChunk, size: int) -> list[TraceChunk]:
    starts = range(0, chunk.requests, size)
    return [taken(chunk, np.arange(start, min(start + size, chunk.requests))) for start in starts]


def summary_of(chunk: TraceChunk, size: int = 10**9, starts_at: datetime | None = None) -> TraceSummary:
    statistics = TraceStatistics(starts_at)
    for piece in pieces(chunk, size):
        statistics.add(piece)
    return statistics.summary()


def plain(times: Sequence[float] | Floats, seed: int = 0, inputs: Floats | None = None) -> TraceChunk:
    rng = np.random.default_rng(seed)
    times = np.asarray(times, dtype=float)
    lengths = rng.integers(1, 3000, times.size) if inputs is None else inputs
    return plain_chunk(times, lengths, rng.integers(1, 700, times.size))


def gamma_times(rng: np.random.Generator, rate: float, cv2: float, span_s: float) -> Floats:
    gaps = rng.gamma(1.0 / cv2, cv2 / rate, int(span_s * rate * 1.3) + 100)
    times = np.cumsum(gaps) - gaps[0]
    return times[times < span_s]


TIMES = st.lists(
    st.one_of(st.floats(0, 3.0), st.sampled_from([0.0, 0.0, 1.0, 10.0, 700.0, 9000.0])), min_size=1, max_size=80
).map(lambda gaps: np.cumsum([0.0, *gaps]))


# --- arrivals ---


@given(TIMES, st.integers(1, 90), st.sampled_from([1.0, 10.0, 60.0]))
@settings(deadline=None)
def test_windows_are_what_counting_says(times: Floats, size: int, window_s: float) -> None:
    counted = WindowCounts(window_s)
    for start in range(0, times.size, size):
        counted.add(times[start : start + size])
    found = counted.summary(float(times[-1]))
    complete = int(times[-1] // window_s)
    counts = np.histogram(times, bins=np.arange(complete + 1) * window_s)[0] if complete else np.zeros(0)
    if complete:  # the last bin of a histogram has its upper end, too
        counts[-1] -= np.count_nonzero(times == complete * window_s)
    if complete < 10 or not counts.any():
        assert found is None
        return
    assert found is not None
    assert found.windows == complete and found.mean_requests == pytest.approx(counts.mean())
    assert found.dispersion == pytest.approx(counts.var(ddof=1) / counts.mean(), abs=1e-9)
    steps = np.diff(counts.astype(float))
    assert found.steady_dispersion == pytest.approx(np.square(steps).mean() / 2 / counts.mean(), abs=1e-9)
    assert found.peak_to_mean == pytest.approx(counts.max() / counts.mean())


@given(TIMES, st.integers(1, 90))
@settings(deadline=None)
def test_gaps_are_what_differences_say(times: Floats, size: int) -> None:
    gaps = Gaps()
    for start in range(0, times.size, size):
        gaps.add(times[start : start + size])
    every = np.diff(times)
    assert gaps.count == every.size and gaps.zeros == np.count_nonzero(every == 0)
    if every.mean() > 1e-9:
        assert gaps.cv2 == pytest.approx(every.var() / every.mean() ** 2, rel=1e-6, abs=1e-9)


def test_gaps_within_stretches_do_not_mind_a_rate_that_drifts() -> None:
    rng = np.random.default_rng(5)
    gaps = rng.gamma(0.25, 4.0, 200_000) * np.exp(2.0 * np.sin(np.linspace(0, 12, 200_000)))
    found = Gaps()
    found.add(np.cumsum(gaps))
    assert found.cv2 > 8.0
    assert found.short_cv2 == pytest.approx(4.0, rel=0.1)
    assert STRETCH == 128


@pytest.mark.parametrize("cv2", [0.25, 1.0, 4.0, 8.0])
@pytest.mark.parametrize("amplitude", [0.0, 0.8])
def test_burstiness_of_a_day_is_that_of_the_gaps(cv2: float, amplitude: float) -> None:
    """A renewal process in operational time, whose clock runs faster by day: burstiness is that of its gaps."""
    rng = np.random.default_rng(int(cv2 * 100))
    operational = gamma_times(rng, 2.0, cv2, 86_400.0)
    clock = np.linspace(0.0, 86_400.0, 20_001)
    passed = clock - amplitude * 86_400.0 / (2 * np.pi) * np.sin(2 * np.pi * clock / 86_400.0)
    times = np.interp(operational, passed, clock)
    arrivals = summary_of(plain(times - times[0])).arrivals
    assert arrivals.burstiness == pytest.approx(cv2, abs=4 * arrivals.burstiness_sd)
    assert arrivals.burstiness_window_s == (10.0 if cv2 <= 1.0 else 60.0)
    if amplitude:
        assert arrivals.gap_cv2 > 1.3 * cv2
        assert arrivals.windows[-1].dispersion > 100
        expected = 1.0 - amplitude * np.cos(2 * np.pi * (np.arange(24) + 0.5) / 24)
        assert arrivals.hourly == pytest.approx(expected, abs=0.15)


def test_burstiness_does_not_mind_a_clock_that_ticks_in_seconds() -> None:
    times = np.floor(gamma_times(np.random.default_rng(2), 5.0, 1.0, 40_000.0))
    arrivals = summary_of(plain(times)).arrivals
    assert arrivals.gap_cv2 > 3.0 and arrivals.simultaneous_share > 0.5
    assert arrivals.burstiness == pytest.approx(1.0, abs=4 * arrivals.burstiness_sd)


def test_burstiness_of_short_or_sparse_traces() -> None:
    one = summary_of(plain([0.0])).arrivals
    assert (one.burstiness, one.burstiness_window_s, one.windows, one.requests_per_s) == (1.0, None, (), 0.0)
    assert one.burstiness_from == "nothing"
    few = summary_of(plain(gamma_times(np.random.default_rng(3), 30.0, 4.0, 60.0))).arrivals
    assert few.burstiness_window_s is None and few.burstiness == pytest.approx(4.0, abs=4 * few.burstiness_sd)
    at_once = summary_of(plain(np.repeat(np.arange(40.0) * 3.05, 9))).arrivals
    assert (at_once.burstiness, at_once.burstiness_window_s) == (1.0, None)


def test_hours_are_those_of_the_day() -> None:
    rng = np.random.default_rng(8)
    start = datetime(2031, 5, 6, 21, 30, tzinfo=UTC)
    times = np.sort(rng.uniform(0, 22.5 * 3600, 90_000))
    times = times[(times < 3600) | (rng.random(times.size) < 0.5)]  # half as many after 22:30
    found = summary_of(plain(times - times[0]), starts_at=start).arrivals
    assert len(found.hourly) == 24 and sum(found.hourly) == pytest.approx(24.0)
    assert found.hours_guessed == (20,)  # 20:00 to 21:30 is not in it, but for half an hour of 21:00
    assert found.hourly[22] / found.hourly[4] == pytest.approx(1.5, rel=0.05)
    assert found.hourly[20] == pytest.approx((found.hourly[19] + found.hourly[21]) / 2)
    assert summary_of(plain(times[times < 19 * 3600])).arrivals.hourly == ()
    chunk = plain([0.0, 1.0, 2.0, 21.1 * 3600 + 5])
    chunk.classes[:] = [0, 0, 0, 1]  # all that is known of the second class is in five minutes of an hour
    few = summary_of(chunk).classes[1].arrivals
    assert few.hourly == (1.0,) * 24 and few.daily_requests_per_s == few.requests_per_s > 0.0


@given(st.floats(0, 86_399), st.floats(1, 400_000))
@settings(deadline=None)
def test_seconds_of_hours_add_up_to_the_span(offset_s: float, end_s: float) -> None:
    seconds = HourCounts(offset_s).seconds(end_s)
    assert seconds.sum() == pytest.approx(end_s) and (seconds >= 0).all()
    expected = np.zeros(24)
    for hour in range(int((offset_s + end_s) // 3600) + 1):
        expected[hour % 24] += max(min(offset_s + end_s, 3600 * (hour + 1)) - max(offset_s, 3600 * hour), 0.0)
    assert seconds == pytest.approx(expected, abs=1e-6)


# --- lengths ---


@given(st.lists(st.tuples(st.integers(1, 10**6), st.integers(1, 5000)), min_size=1, max_size=60), st.integers(1, 60))
@settings(deadline=None)
def test_lengths_are_what_all_of_them_say(pairs: list[tuple[int, int]], size: int) -> None:
    inputs, outputs = (np.array(column) for column in zip(*pairs, strict=True))
    found = summary_of(plain_chunk(np.arange(inputs.size, dtype=float), inputs, outputs), size)
    for length, values in ((found.input_tokens, inputs), (found.output_tokens, outputs)):
        assert length.mean == pytest.approx(values.mean())
        assert length.cv == pytest.approx(values.std() / values.mean(), abs=1e-6)
        assert (length.least, length.most) == (values.min(), values.max())
        for name, share in (("p5", 0.05), ("p50", 0.5), ("p99", 0.99)):
            exact = np.quantile(values, share, method="inverted_cdf")
            assert getattr(length, name) == pytest.approx(exact, rel=0.011, abs=0.5)
        assert sum(each.share for each in length.histogram) == pytest.approx(1.0)
        for each in length.histogram:
            inside = (values >= each.low) & (values < each.high)
            assert each.share == pytest.approx(inside.mean())
    assert found.longest_tokens == (inputs + outputs).max()
    if inputs.std() > 1e-6 * inputs.mean() and outputs.std() > 1e-6 * outputs.mean():
        assert found.correlation == pytest.approx(np.corrcoef(inputs, outputs)[0, 1], abs=1e-6)
    assert sum(each.share for each in found.lengths) == pytest.approx(1.0)
    assert sum(each.share * each.input_tokens for each in found.lengths) == pytest.approx(inputs.mean())
    assert sum(each.share * each.output_tokens for each in found.lengths) == pytest.approx(outputs.mean())


def test_every_small_length_has_a_bin_of_its_own() -> None:
    histogram = LogHistogram()
    for value in range(1, 64):
        before = histogram.counts.copy()
        histogram.add(np.array([value]))
        assert not before[np.flatnonzero(histogram.counts - before)].any()


# --- reuse ---


def repeating(rng: np.random.Generator, requests: int, block: int, prefixes: int) -> TraceChunk:
    """Prompts that start with one of a few prefixes, and go on with a conversation or something new."""
    lists, talks, fresh = [], {}, 10**6
    for _ in range(requests):
        who = int(rng.integers(0, 3 * prefixes))
        old = talks.get(who) or [who % prefixes]
        grown = [*old, *range(fresh, fresh + int(rng.integers(0, 4)))]
        fresh += 10
        talks[who] = grown if rng.random() < 0.8 else None  # type: ignore[assignment]
        lists.append(grown)
    counts = np.array([len(each) for each in lists])
    return TraceChunk(
        time_s=np.cumsum(rng.exponential(0.5, requests)),
        input_tokens=counts * block + rng.integers(1, block, requests),
        output_tokens=rng.integers(1, 90, requests),
        classes=np.zeros(requests, dtype=np.int64),
        hash_start=np.concatenate([[0], np.cumsum(counts)]),
        hashes=np.concatenate([np.array(each, dtype=np.int64) for each in lists]),
        block_tokens=block,
    )


def found_by_lru(chunk: TraceChunk, blocks: int) -> int:
    """Return the blocks that an LRU cache of a size finds: leading ones, the ends of prompts leaving first."""
    cache: OrderedDict[int, None] = OrderedDict()
    found = 0
    for request in range(chunk.requests):
        prompt = chunk.hashes[chunk.hash_start[request] : chunk.hash_start[request + 1]].tolist()
        for block in prompt:
            if block not in cache:
                break
            found += 1
        for block in reversed(prompt):
            cache[block] = None
            cache.move_to_end(block)
            if len(cache) > blocks:
                cache.popitem(last=False)
    return found


@given(st.integers(0, 10**6), st.integers(1, 150), st.integers(1, 9), st.integers(1, 200))
@settings(max_examples=30, deadline=None)
def test_an_lru_cache_finds_what_stack_distances_say(seed: int, requests: int, prefixes: int, size: int) -> None:
    chunk = repeating(np.random.default_rng(seed), requests, 16, prefixes)
    reuse = PrefixReuse(16)
    found = np.concatenate([reuse.add(piece) for piece in pieces(chunk, size)])
    summary = reuse.summary(None)
    total = chunk.input_tokens.sum()
    assert found.sum() == 16 * found_by_lru(chunk, 10**9)
    assert summary.reusable_share == pytest.approx(found.sum() / total)
    assert summary.distinct_tokens == 16 * np.unique(chunk.hashes).size
    assert (found % 16 == 0).all() and (found <= chunk.input_tokens).all()
    if not found.any():
        return
    for cached, share in (
        (summary.cached_for_half, 0.5),
        (summary.cached_for_90, 0.9),
        (summary.cached_for_99, 0.99),
    ):
        blocks = round(cached / 16)
        assert found_by_lru(chunk, blocks) * 16 >= share * found.sum() - 1e-6
        fewer = int(blocks * 2 ** (-1 / 64)) - 1
        assert fewer < 1 or found_by_lru(chunk, fewer) * 16 < share * found.sum()
    for each in summary.curve:  # a bin ends just below its power of two
        assert each.share * total == pytest.approx(16 * found_by_lru(chunk, int(each.cached_tokens / 16) - 1))


def test_memory_of_reuse_is_that_of_the_distinct_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokopt.simulation.trace_reuse.BLOCKS_AT_A_TIME", 500)
    chunk = repeating(np.random.default_rng(4), 3000, 16, 40)
    once, again = PrefixReuse(16), PrefixReuse(16)
    once.add(chunk)
    for _ in range(20):
        again.add(chunk)
    assert again._tree.size <= 2 * once._tree.size and again._slots.size == once._slots.size
    assert again.summary(None).distinct_tokens == once.summary(None).distinct_tokens


def test_gaps_between_uses() -> None:
    chunk = TraceChunk(
        time_s=np.arange(6) * 30.0,
        input_tokens=np.full(6, 100),
        output_tokens=np.full(6, 10),
        classes=np.zeros(6, dtype=np.int64),
        hash_start=np.arange(7),
        hashes=np.array([1, 2, 1, 2, 1, 2]),
        block_tokens=100,
    )
    found = summary_of(chunk).reuse
    assert found is not None and found.reusable_share == pytest.approx(4 / 6)
    assert found.late_share == pytest.approx(1.0)
    assert found.gap_p50_s == pytest.approx(60.0, rel=0.05)
    assert (found.cached_for_half, found.cached_for_99, found.distinct_tokens) == (200, 200, 200)


# --- all of it ---


def mixed(seed: int, requests: int) -> TraceChunk:
    rng = np.random.default_rng(seed)
    chunk = repeating(rng, requests, 32, 5)
    return TraceChunk(
        **{**{k: getattr(chunk, k) for k in chunk.__slots__}, "classes": np.sort(rng.integers(0, 3, requests)[::-1])}
    )


def close(one: object, other: object, where: str = "") -> None:
    if isinstance(one, BaseModel):
        close(one.model_dump(), other.model_dump(), where)  # type: ignore[attr-defined]
    elif isinstance(one, dict):
        assert isinstance(other, dict) and one.keys() == other.keys()
        for key, value in one.items():
            close(value, other[key], f"{where}.{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), where  # type: ignore[arg-type]
        for number, value in enumerate(one):
            close(value, other[number], f"{where}[{number}]")  # type: ignore[index]
    elif isinstance(one, float):
        assert one == pytest.approx(other, rel=1e-9, abs=1e-12), where
    else:
        assert one == other, where


@given(st.integers(0, 10**6), st.integers(2, 200), st.integers(1, 200), st.booleans())
@settings(max_examples=25, deadline=None)
def test_statistics_do_not_depend_on_how_a_trace_is_cut(seed: int, requests: int, size: int, shuffled: bool) -> None:
    chunk = mixed(seed, requests)
    if shuffled:
        chunk.classes[:] = np.random.default_rng(seed).permutation(chunk.classes)
    chunk.time_s[:] -= chunk.time_s[0]
    close(summary_of(chunk).model_dump(), summary_of(chunk, size).model_dump())


def test_classes_are_traces_of_their_own() -> None:
    chunk = mixed(3, 900)
    chunk.classes[:] = np.random.default_rng(3).integers(0, 3, 900)
    chunk.time_s[:] -= chunk.time_s[0]
    found = summary_of(chunk, 100)
    assert [each.name for each in found.classes] == ["class 0", "class 1", "class 2"]
    assert sum(each.requests for each in found.classes) == found.requests == 900
    rates = sum(each.arrivals.requests_per_s for each in found.classes)
    assert rates == pytest.approx(found.arrivals.requests_per_s) == pytest.approx(899 / chunk.time_s[-1])
    alone = summary_of(taken(chunk, np.flatnonzero(chunk.classes == 1)))
    for name in ("input_tokens", "output_tokens", "lengths", "correlation"):
        close(getattr(found.classes[1], name), getattr(alone, name))
    assert isinstance(found.classes[1], StreamSummary) and found.classes[1].reuse is not None
    assert alone.reuse is not None and found.classes[1].reuse.reusable_share == alone.reuse.reusable_share


def test_the_timeline_adds_up() -> None:
    times = np.sort(np.random.default_rng(6).uniform(0, 5000, 20_000))
    chunk = plain(times - times[0])
    found = summary_of(chunk).timeline
    assert len(found.requests_per_s) == 240 and found.step_s * 240 == pytest.approx(chunk.time_s[-1])
    assert sum(found.requests_per_s) * found.step_s == pytest.approx(20_000)
    assert sum(found.input_tokens_per_s) * found.step_s == pytest.approx(chunk.input_tokens.sum())
    assert summary_of(plain([0.0, 0.0])).timeline.step_s > 0


def test_memory_does_not_grow_with_the_trace() -> None:
    peaks = []
    for requests in (10_000, 200_000):
        statistics = TraceStatistics()
        rng = np.random.default_rng(1)
        tracemalloc.start()
        for start in range(0, requests, 5000):
            times = start + np.sort(rng.uniform(0, 5000, 5000))
            statistics.add(plain_chunk(times, rng.integers(1, 9000, 5000), rng.integers(1, 900, 5000)))
        statistics.summary()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0]
