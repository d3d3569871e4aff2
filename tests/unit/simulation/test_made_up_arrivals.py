"""Requests that are made up from a workload: their times, their lengths, and what they repeat."""

from __future__ import annotations

from itertools import takewhile
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from tokopt.domain.caching import Reuse
from tokopt.domain.traces import TraceChunk, joined
from tokopt.domain.workloads import Workload
from tokopt.perf.caching import pattern_of
from tokopt.simulation.arrivals import BLOCK_TOKENS, Stream, synthesised
from tokopt.units import SECONDS_PER_DAY


def stream(rate: float = 10.0, more: dict[str, Any] | None = None, **workload: Any) -> Stream:
    given_ = {"name": "x", "input_tokens": 2000, "output_tokens": 300, "input_cv": 0.8, "output_cv": 0.5} | workload
    return Stream(workload=Workload(**given_), requests_per_s=rate, **(more or {}))


def until(end_s: float, *streams: Stream, seed: int = 1, chunk_requests: int = 4096) -> TraceChunk:
    return joined(list(synthesised(streams, seed=seed, end_s=end_s, chunk_requests=chunk_requests)))


def kolmogorov(values: np.ndarray, cumulative: Any) -> float:
    """Return the largest distance of a sample's distribution from what it should be, times the root of its size."""
    wanted = cumulative(np.sort(values))
    steps = np.arange(1, values.size + 1) / values.size
    return float(np.sqrt(values.size) * max(np.max(steps - wanted), np.max(wanted - steps + 1.0 / values.size)))


TALKS = Reuse(turns=6.0, turn_gap_s=20.0)


@pytest.mark.parametrize("reuse", [None, TALKS, Reuse(turns=2.5, turn_gap_s=5.0, shared_tokens=700, shared_prefixes=9)])
@settings(max_examples=10, deadline=None)
@given(pieces=some.integers(5, 300), seed=some.integers(0, 1 << 40), cv2=some.sampled_from([0.0, 0.4, 1.0, 5.0]))
def test_requests_do_not_depend_on_how_long_a_stretch_is(
    reuse: Reuse | None, pieces: int, seed: int, cv2: float
) -> None:
    both = stream(more={"arrival_cv2": cv2, "answer_s": 2.0}, reuse=reuse), stream(3.0)
    whole, cut = (until(60.0, *both, seed=seed, chunk_requests=size) for size in (10_000, pieces))
    for name in ("time_s", "input_tokens", "output_tokens", "classes", "hash_start", "hashes"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(cut, name))
    assert np.all(np.diff(whole.time_s) >= 0.0) and whole.time_s[-1] < 60.0


def test_another_seed_gives_other_requests() -> None:
    one, other = until(100.0, stream(), seed=1), until(100.0, stream(), seed=2)
    assert one.requests != other.requests or not np.array_equal(one.time_s, other.time_s)


def test_poisson_arrivals() -> None:
    times = until(5000.0, stream()).time_s
    assert times.size == pytest.approx(50_000, abs=4.0 * np.sqrt(50_000))
    gaps = np.diff(times) * 10.0
    assert kolmogorov(gaps, lambda x: 1.0 - np.exp(-x)) < 1.95  # 0.1 % of samples are that far off
    assert kolmogorov(gaps, lambda x: np.minimum(x / 2.0, 1.0)) > 10.0
    assert abs(np.corrcoef(gaps[1:], gaps[:-1])[0, 1]) < 0.02
    counts = np.histogram(times, bins=np.arange(0.0, 5001.0))[0]
    assert counts.var() / counts.mean() == pytest.approx(1.0, abs=0.08)


@pytest.mark.parametrize("cv2", [0.25, 0.5, 2.0, 6.0])
def test_gamma_arrivals(cv2: float) -> None:
    from scipy.special import gammainc

    gaps = np.diff(until(5000.0, stream(more={"arrival_cv2": cv2})).time_s) * 10.0
    assert gaps.mean() == pytest.approx(1.0, abs=4.0 * np.sqrt(cv2 / gaps.size))
    assert gaps.var() == pytest.approx(cv2, rel=0.1)
    assert kolmogorov(gaps, lambda x: gammainc(1.0 / cv2, x / cv2)) < 1.95
    own = np.diff(until(5000.0, stream(arrival_cv2=cv2)).time_s) * 10.0  # the workload's, unless another is asked for
    np.testing.assert_array_equal(own, gaps)


def test_even_arrivals_of_streams_that_are_not_in_step() -> None:
    found = until(100.0, *[stream(more={"arrival_cv2": 0.0})] * 2)
    for number in (0, 1):
        times = found.time_s[found.classes == number]
        np.testing.assert_allclose(np.diff(times), 0.1, rtol=1e-9)
        assert times.size in (999, 1000, 1001)
    assert 0.001 < (found.time_s[found.classes == 0][0] - found.time_s[found.classes == 1][0]) % 0.1 < 0.099


def test_log_normal_lengths() -> None:
    found = until(5000.0, stream())
    for tokens, mean, cv in ((found.input_tokens, 2000, 0.8), (found.output_tokens, 300, 0.5)):
        assert tokens.mean() == pytest.approx(mean, rel=4.0 * cv / np.sqrt(tokens.size))
        assert tokens.std() / tokens.mean() == pytest.approx(cv, rel=0.05)
        logs = np.log(tokens)
        assert (logs.mean(), logs.std()) == pytest.approx(
            (np.log(mean) - 0.5 * np.log1p(cv * cv), np.sqrt(np.log1p(cv * cv))), rel=0.02
        )
    assert abs(np.corrcoef(found.input_tokens, found.output_tokens)[0, 1]) < 0.02
    assert until(10.0, stream(input_cv=0.0)).input_tokens.tolist() == [2000] * until(10.0, stream()).requests


def test_no_request_is_longer_than_the_model_takes() -> None:
    found = until(200.0, stream(more={"longest_tokens": 2500}, input_cv=2.0, output_cv=2.0))
    assert (found.input_tokens + found.output_tokens).max() == 2500
    assert found.input_tokens.min() >= 1 and found.output_tokens.min() >= 1


def test_the_shape_of_a_day() -> None:
    shape = (0.2, 1.0, 2.0, 0.8)
    found = until(2.0 * SECONDS_PER_DAY, stream(0.5, more={"daily": shape}))
    counts = np.histogram(found.time_s, bins=np.linspace(0.0, 2.0 * SECONDS_PER_DAY, 9))[0]
    wanted = 0.5 * SECONDS_PER_DAY / 4.0 * np.array(shape * 2)
    assert np.all(np.abs(counts - wanted) < 4.0 * np.sqrt(wanted))
    even = until(SECONDS_PER_DAY, stream(0.05, more={"daily": shape, "arrival_cv2": 0.0}))
    assert np.histogram(even.time_s, bins=np.linspace(0.0, SECONDS_PER_DAY, 5))[0] == pytest.approx(
        wanted[:4] / 10, abs=1
    )


def found_share(chunk: TraceChunk, after_s: float) -> float:
    """Return the share of prompt tokens after a time that a cache finds which is endless and was empty at first."""
    seen: set[int] = set()
    found = asked = 0
    for i in range(chunk.requests):
        hashes = chunk.hashes[chunk.hash_start[i] : chunk.hash_start[i + 1]].tolist()
        if chunk.time_s[i] >= after_s:
            asked += int(chunk.input_tokens[i])
            found += chunk.block_tokens * sum(1 for _ in takewhile(seen.__contains__, hashes))
        seen.update(hashes)
    return found / asked


REUSES = {
    "prefix": Reuse(shared_tokens=6000, shared_prefixes=40),
    "turns": Reuse(turns=8.0, turn_gap_s=10.0),
    "both": Reuse(turns=5.0, turn_gap_s=10.0, shared_tokens=3000, shared_prefixes=20),
    "growth": Reuse(turns=4.0, turn_gap_s=10.0, turn_tokens=1500, shared_tokens=2000),
    "a part of a turn": Reuse(turns=2.4, turn_gap_s=10.0),
    "share": Reuse(reusable_share=0.6, working_set_tokens=500_000),
}


@pytest.mark.parametrize("name", list(REUSES))
def test_an_endless_cache_finds_of_them_what_plans_count_on(name: str) -> None:
    reuse = REUSES[name]
    made = stream(20.0, more={"answer_s": 5.0}, input_tokens=10_000, input_cv=0.5, reuse=reuse)
    found = until(900.0, made, seed=4)
    pattern = pattern_of(made.workload)
    late = found.time_s > 300.0
    assert found.requests == pytest.approx(20.0 * 900.0, rel=0.05)
    assert found.input_tokens[late].mean() == pytest.approx(10_000, rel=0.04)
    # Only whole blocks are found: half a block less where own tokens end, and as much where a prefix does.
    lost = BLOCK_TOKENS / 10_000
    assert pattern.reusable_share - 1.5 * lost - 0.01 < found_share(found, 300.0) < pattern.reusable_share + 0.01
    blocks = np.diff(found.hash_start)
    np.testing.assert_array_equal(blocks, found.input_tokens // BLOCK_TOKENS)


def test_conversations_have_their_turns_and_their_gaps() -> None:
    made = stream(
        50.0, more={"answer_s": 3.0}, input_tokens=8000, input_cv=0.6, reuse=Reuse(turns=6.0, turn_gap_s=20.0)
    )
    found = until(1500.0, made, seed=9)
    talks = found.hashes[found.hash_start[1:] - 1] >> 18  # of the last block of each prompt
    order = np.lexsort((found.time_s, talks))
    talk, times, tokens = talks[order], found.time_s[order], found.input_tokens[order]
    follows = talk[1:] == talk[:-1]
    gaps = np.diff(times)[follows]
    assert gaps.min() >= 3.0 and gaps.mean() == pytest.approx(23.0, rel=0.03)
    assert (gaps - 3.0).std() == pytest.approx(20.0, rel=0.05)  # exponential beyond the answer
    assert np.all(np.diff(tokens)[follows] >= -1)  # prompts grow
    starts = np.concatenate([[0], np.flatnonzero(~follows) + 1])
    lengths = np.diff(np.concatenate([starts, [talk.size]]))
    begun = times[starts]
    inside = (begun > 1.0) & (begun < 1200.0)
    assert set(lengths[inside & (begun < 1100.0)]) <= {1, 2, 3, 4, 5, 6}
    assert np.bincount(lengths[inside])[6] > 0.9 * inside.sum()
    # In a steady state from the start: as many requests a second early on as later.
    counts = np.histogram(found.time_s, bins=np.arange(0.0, 1501.0, 100.0))[0]
    assert counts == pytest.approx(np.full(15, 5000), rel=0.12)
    # Prompts vary as the workload says, turns and conversations together.
    late = found.time_s > 200.0
    assert found.input_tokens[late].std() / found.input_tokens[late].mean() == pytest.approx(0.6, rel=0.1)


def test_prefixes_are_met_alike() -> None:
    made = stream(100.0, input_tokens=4000, reuse=Reuse(shared_tokens=2000, shared_prefixes=16))
    found = until(200.0, made)
    first = found.hashes[found.hash_start[:-1][np.diff(found.hash_start) > 0]]
    counts = np.unique(first, return_counts=True)[1]
    assert counts.size == 16
    assert np.all(np.abs(counts - counts.mean()) < 4.5 * np.sqrt(counts.mean()))


def test_streams_without_requests() -> None:
    assert list(synthesised([stream(0.0)], seed=1)) == []
    assert until(20.0, stream(0.0), stream(5.0)).classes.min() == 1
