"""Popular experts: what the fullest accelerator gets, with copies and without."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokopt.api.expert_traffic import popularity_spread
from tokopt.api.resolved import Resolved
from tokopt.catalog import Catalog
from tokopt.perf.expert_balance import (
    as_placed,
    balanced,
    popularity,
    redundancies,
    spread_of,
    traffic_imbalance,
)
from tokopt.perf.layouts import Layouts
from tokopt.perf.memory import weight_bytes
from tokopt.perf.step import StepTime, step_time

SPREAD = 1.119  # of the published load


def test_the_published_load_sets_the_spread(catalog: Catalog) -> None:
    """TensorRT LLM, examples/ep_load_balancer: the fullest of 32 ranks has 1 + 1.564 times the mean."""
    spread = popularity_spread(catalog, "skewed")
    assert spread == pytest.approx(SPREAD, abs=1e-3)
    assert as_placed(256, 32, spread) == pytest.approx(2.564, rel=1e-12)
    assert popularity_spread(catalog, "benchmark") == 0.0


def test_copies_balance_as_published(catalog: Catalog, resolved: Callable[..., Resolved]) -> None:
    """The same: 288 slots on 36 ranks leave 1 + 0.115. The residual of steps with few tokens is in the fit."""
    residual = resolved("deepseek-r1", "gb200_nvl72", "fp8", "fp8", framework="tensorrt-llm").machine.expert_imbalance
    found = balanced(256, 36, 32, popularity_spread(catalog, "skewed")) * residual
    assert found == pytest.approx(1.115, rel=0.08)


def test_random_placements_agree_with_the_closed_form() -> None:
    """The mean of the fullest over random placements of log-normal experts, drawn anew each time."""
    rng = np.random.default_rng(7)
    for experts, group in ((256, 8), (256, 32), (128, 16), (256, 64)):
        draws = np.exp(SPREAD * rng.standard_normal((4000, group, experts // group)))
        loads = draws.sum(axis=2)
        drawn = (loads.max(axis=1) / loads.mean(axis=1)).mean()
        assert as_placed(experts, group, SPREAD) == pytest.approx(drawn, rel=0.12)


def test_popularities_have_their_mean_and_fall() -> None:
    loads = popularity(256, SPREAD)
    assert loads.mean() == pytest.approx(1.0)
    assert np.all(np.diff(loads) < 0) and loads[0] > 10
    np.testing.assert_allclose(popularity(64, 0.0), 1.0)


@given(
    experts=st.sampled_from([8, 16, 60, 64, 128, 160, 256]),
    group=st.sampled_from([2, 4, 8, 16, 32, 36, 72]),
    spread=st.floats(0.01, 2.0),
)
@settings(max_examples=60, deadline=None)
def test_more_copies_never_make_it_worse(experts: int, group: int, spread: float) -> None:
    if group > experts:
        return
    loads = [balanced(experts, group, copies, spread) for copies in (0, *redundancies(experts, group, (1, 2, 3)))]
    assert all(after <= before for before, after in pairwise(loads))
    assert min(loads) >= 1.0 - 1e-12
    # Nothing is below what the most popular expert leaves on each of its copies, nor below the mean.
    copies = redundancies(experts, group, (3,))[-1]
    hottest = popularity(experts, spread)[0] / (1 + copies)
    assert loads[-1] >= min(hottest * group / experts, 1.0) - 1e-12


def test_slots_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="do not divide over 32"):
        balanced(256, 32, 30, SPREAD)
    with pytest.raises(ValueError, match="has a load of 40"):
        spread_of(40.0, experts=256, group=32)


def test_slots_that_fill() -> None:
    assert redundancies(256, 32, (1,)) == (32,)
    assert redundancies(256, 72, (1,)) == (32, 104)  # 288 slots are four a GPU, and cost no memory
    assert redundancies(256, 1, (1,)) == () == redundancies(8, 16, (1,))


def test_layouts_without_spread_experts_or_skew_stay_at_one() -> None:
    assert traffic_imbalance(256, 32.0, 0.0, 0.0) == 1.0
    found = traffic_imbalance(256, np.array([[1.0], [8.0], [32.0]]), np.array([[0.0], [8.0], [0.0]]), SPREAD)
    assert found[0] == 1.0 and found[1] < 1.01 and found[2] > 2.5


@pytest.fixture(scope="module")
def wide(resolved: Callable[..., Resolved]) -> Resolved:
    return resolved("deepseek-r1", "h200_sxm", "fp8", "fp8")


def step(found: Resolved, spread: float, copies: float, sequences: float = 128.0) -> StepTime:
    return step_time(
        found.model,
        replace(found.machine, popularity_spread=spread),
        Layouts(tp=1.0, pp=1.0, ep=32.0, dp=32.0, redundant_experts=copies),
        sequences=sequences,
        width=1.0,
        context=4096.0,
        prefill_tokens=0.0,
        prefill_context=0.0,
    )


def test_skew_slows_experts_and_exchange_alone_and_copies_make_up_for_it(wide: Resolved) -> None:
    plain, skewed, copied = step(wide, 0.0, 0.0), step(wide, SPREAD, 0.0), step(wide, SPREAD, 32.0)
    assert float(skewed.experts) > 1.5 * float(plain.experts)
    assert float(skewed.collectives) > float(plain.collectives)
    for name in ("dense", "attention", "overhead"):
        assert float(np.squeeze(getattr(skewed, name))) == float(np.squeeze(getattr(plain, name)))
    assert float(copied.total) == pytest.approx(float(plain.total), rel=0.03)
    # Reading: copies are read too, so a batch that touches all of them reads 288 instead of 256.
    reads = [float(step(wide, 0.0, copies, 16.0).experts) for copies in (0.0, 32.0)]
    assert reads[1] > reads[0]


def test_copies_take_memory(wide: Resolved) -> None:
    expert = 58 * 3 * 7168 * 2048  # bytes of one slot, all layers, in FP8 with its scales
    slots = {
        copies: float(
            weight_bytes(
                wide.model, Layouts(tp=1.0, pp=1.0, ep=ep, dp=ep, redundant_experts=float(copies)), draft_depth=0.0
            )
        )
        for ep, copies in ((32.0, 0), (32.0, 32), (32.0, 64))
    }
    assert slots[32] - slots[0] == pytest.approx(expert, rel=1e-3) == pytest.approx(slots[64] - slots[32], rel=1e-3)
    full, filled = (
        float(weight_bytes(wide.model, Layouts(tp=1.0, pp=1.0, ep=72.0, dp=72.0, redundant_experts=r), draft_depth=0.0))
        for r in (0.0, 32.0)
    )
    assert full == filled
