"""How many prefill workers go with how many decode workers: against every combination."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokopt.domain.workloads import Workload
from tokopt.perf.queueing import Limits
from tokopt.search.pools import MOST_WORKERS, pairing, prefills_of, worker_counts
from tokopt.search.screening import fitting, screen
from tokopt.search.setups import setups
from tokopt.search.space import families

CHAT = Workload(name="chat", input_tokens=1024, output_tokens=512, input_cv=1.0, output_cv=0.8)
ANY = Limits(tpot_s=0.05, ttft_s=3.0, e2e_s=float("inf"), statistic="p90")


def best_by_size(combinations, sizes, rates):
    best: dict[int, float] = {}
    for x, y in combinations:
        total = x * sizes[0] + y * sizes[1]
        best[total] = max(best.get(total, 0.0), min(x * rates[0], y * rates[1]))
    return best


@given(
    st.tuples(st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2, 4, 8, 16])),
    st.tuples(st.floats(0.05, 20.0), st.floats(0.05, 20.0)),
    st.sampled_from([2, 8, 24, 72]),
)
def test_no_better_counts_exist(sizes, rates, widest) -> None:
    """For every number of accelerators, no combination serves more than a smaller or equal one that is kept."""
    _, xs, ys = worker_counts(
        np.array([float(sizes[0])]), np.array([float(sizes[1])]), np.array([rates[0]]), np.array([rates[1]]), widest
    )
    kept = best_by_size(zip(xs.tolist(), ys.tolist(), strict=True), sizes, rates)
    every = [
        (x, y)
        for x, y in itertools.product(range(1, MOST_WORKERS + 1), repeat=2)
        if x * sizes[0] + y * sizes[1] <= widest
    ]
    for total, rate in best_by_size(every, sizes, rates).items():
        reached = max((r for size, r in kept.items() if size <= total), default=0.0)
        assert rate <= reached * (1 + 1e-9)


@given(st.floats(0.01, 100.0), st.floats(0.01, 100.0))
def test_counts_are_whole_within_limits_and_unique(a: float, b: float) -> None:
    (p, d), xs, ys = worker_counts(
        np.array([1.0, 4.0]), np.array([2.0, 8.0]), np.array([a, 3 * a]), np.array([b, 5 * b]), 72
    )
    assert ((xs >= 1) & (ys >= 1) & (xs <= MOST_WORKERS) & (ys <= MOST_WORKERS)).all()
    sizes = xs * np.array([1, 4])[p] + ys * np.array([2, 8])[d]
    assert (sizes <= 72).all()
    rows = list(zip(p.tolist(), d.tolist(), xs.tolist(), ys.tolist(), strict=True))
    assert len(rows) == len(set(rows))


def test_no_workers_no_pairs() -> None:
    (p, d), x, y = worker_counts(np.zeros(0), np.array([1.0]), np.zeros(0), np.array([1.0]), 72)
    assert (p.size, d.size, x.size, y.size) == (0, 0, 0, 0)


@pytest.fixture(scope="module")
def family(catalog):
    return next(
        families(
            catalog.accelerator("h100_sxm"),
            (catalog.framework("vllm"),),
            (catalog.precision("bf16"),),
            {"bf16": 16.0},
            catalog.llm("qwen3-8b"),
            catalog.calibration,
        )
    )


def test_pairs_of_a_family(family) -> None:
    decode = screen(family, setups(family, 16, role="decode"), CHAT, ANY, prefill=False)
    pairs = pairing(prefills_of(family, CHAT, ANY, 16), decode, 16)
    assert pairs.sizes == frozenset(range(2, 17))
    for size in pairs.sizes:
        rows = pairs.of_size(size, 0.0)
        total = rows.prefill_workers * pairs.prefills.accelerators[rows.prefill]
        total = total + rows.decode_workers * pairs.decodes.accelerators[rows.decode]
        assert rows.decode.size > 0
        assert (total == size).all()
        slower = rows.decode_workers * decode.bound_requests_per_s[rows.decode]
        assert (rows.bound_requests_per_s <= slower * (1 + 1e-12)).all()


def test_pairs_are_counted_as_if_they_were_listed(family) -> None:
    decode = screen(family, setups(family, 8, role="decode"), CHAT, ANY, prefill=False)
    every = setups(family, 8, role="prefill")
    held = every.pick(fitting(family, every, CHAT, role="prefill")[0])
    listed = sum(
        x * p + y * d <= 8
        for p, d in itertools.product(held.accelerators, decode.setups.accelerators)
        for x, y in itertools.product(range(1, MOST_WORKERS + 1), repeat=2)
    )
    assert pairing(prefills_of(family, CHAT, ANY, 8), decode, 8).considered == len(every) + listed


def test_prefill_workers_need_memory_for_weights_and_one_prompt(catalog) -> None:
    big = next(
        families(
            catalog.accelerator("h100_sxm"),
            (catalog.framework("vllm"),),
            (catalog.precision("bf16"),),
            {"bf16": 16.0},
            catalog.llm("llama-3.1-70b"),
            catalog.calibration,
        )
    )
    every = setups(big, 8, role="prefill")
    fits = every.pick(fitting(big, every, CHAT, role="prefill")[0])
    assert len(fits)
    assert fits.accelerators.min() == 2 or fits.accelerators.min() == 4  # 141 GB of weights


def test_a_prompt_that_takes_too_long_leaves_no_pair(family) -> None:
    hasty = Limits(tpot_s=0.05, ttft_s=1e-4, e2e_s=float("inf"), statistic="p90")
    decode = screen(family, setups(family, 8, role="decode"), CHAT, ANY, prefill=False)
    pairs = pairing(prefills_of(family, CHAT, hasty, 8), decode, 8)
    assert pairs.sizes == frozenset()
    assert pairs.of_size(4, 0.0).decode.size == 0
    assert pairs.missed_limits > 0
