"""All-to-alls against the rest of a decode step: reference values on paper, and what bandwidth must never do."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokopt.api.resolved import Resolved
from tokopt.perf.exchange import Exchange, bytes_per_token, exchange
from tokopt.perf.layouts import Layouts
from tokopt.perf.machine import Machine
from tokopt.perf.step import step_time

BATCHES = np.geomspace(1.0, 512.0, 10)
Resolve = Callable[..., Resolved]


def wide(ep: float, tp: float = 1.0) -> Layouts:
    return Layouts(tp=tp, pp=1.0, ep=ep, dp=ep / tp)


def at(found: Resolved, machine: Machine, layouts: Layouts, batches: object = BATCHES) -> Exchange:
    return exchange(found.model, machine, layouts, sequences=batches, width=1.0, context=4096.0)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def experts(resolved: Resolve) -> Resolved:
    return resolved("deepseek-r1", "h200_sxm", "fp8", "fp8")


def test_a_token_sends_a_copy_to_each_distinct_accelerator_and_domain(experts: Resolved, ideal: Machine) -> None:
    near, far = bytes_per_token(experts.model, ideal, wide(16.0))
    each = 7168 * 3.0  # FP8 there, 16 bits back
    assert near == pytest.approx(16 * (1 - (15 / 16) ** 8) * 15 / 16 * each)
    assert far == pytest.approx(2 * (1 - 0.5**8) * 0.5 * each)
    assert float(bytes_per_token(experts.model, ideal, wide(8.0))[1]) == 0.0


def test_the_parts_are_those_of_the_step(experts: Resolved) -> None:
    layouts = wide(8.0)
    found = at(experts, experts.machine, layouts)
    step = step_time(
        experts.model,
        experts.machine,
        layouts,
        sequences=BATCHES,
        width=1.0,
        context=4096.0,
        prefill_tokens=0.0,
        prefill_context=0.0,
    )
    np.testing.assert_allclose(found.step_s, step.total)
    np.testing.assert_allclose(found.exchange_s, step.collectives, rtol=1e-12)  # without tp there are no others
    np.testing.assert_allclose(found.headroom, found.computing_s / found.exchange_s)
    assert np.all((found.share > 0) & (found.share < 1))


def test_nothing_is_exchanged_where_nothing_is_spread(experts: Resolved, resolved: Resolve) -> None:
    split = at(experts, experts.machine, Layouts(tp=8.0, pp=1.0, ep=1.0, dp=1.0))
    assert not np.any(split.exchange_s) and np.all(split.links_s > 0)
    assert np.all(np.isinf(split.headroom)) and not np.any(split.binds)
    dense = resolved("qwen3-8b", "h100_sxm", "bf16", "bf16")
    assert not np.any(at(dense, dense.machine, Layouts(tp=2.0, pp=1.0, ep=1.0, dp=1.0)).exchange_s)


def test_it_binds_where_it_is_the_largest_part(experts: Resolved) -> None:
    slow = replace(experts.machine, scale_up_bytes_per_s=1e8)
    found = at(experts, slow, wide(8.0))
    assert found.binds[-1] and found.share[-1] > 0.5
    fast = replace(experts.machine, scale_up_bytes_per_s=1e14, exchange_latency_s=0.0)
    assert not np.any(at(experts, fast, wide(8.0)).binds)


@settings(max_examples=60, deadline=None)
@given(
    ep=st.sampled_from([2.0, 4.0, 8.0, 16.0, 32.0]),
    tp=st.sampled_from([1.0, 2.0]),
    batch=st.floats(1.0, 2048.0),
    up=st.floats(0.01, 1.0),
    out=st.floats(0.01, 1.0),
    mesh=st.booleans(),
)
def test_less_bandwidth_never_helps(
    experts: Resolved, ep: float, tp: float, batch: float, up: float, out: float, mesh: bool
) -> None:
    """A wider all-to-all never gets faster by having less bandwidth, and headroom never rises."""
    machine = replace(experts.machine, scale_up_mesh=float(mesh))
    less = replace(
        machine,
        scale_up_bytes_per_s=machine.scale_up_bytes_per_s * up,
        scale_out_bytes_per_s=machine.scale_out_bytes_per_s * out,
    )
    if ep / tp <= 1.0:
        return
    before, after = (at(experts, each, wide(ep, tp), batch) for each in (machine, less))
    assert float(after.exchange_s) >= float(before.exchange_s) * (1 - 1e-12)
    assert float(after.headroom) <= float(before.headroom) * (1 + 1e-12)
    assert float(after.step_s) >= float(before.step_s) * (1 - 1e-12)


@settings(max_examples=40, deadline=None)
@given(batch=st.floats(1.0, 2048.0), ep=st.sampled_from([2.0, 4.0, 8.0, 16.0]))
def test_a_token_more_never_takes_less_time(experts: Resolved, batch: float, ep: float) -> None:
    more, less = (at(experts, experts.machine, wide(ep), b) for b in (batch * 1.5, batch))
    assert float(more.exchange_s) >= float(less.exchange_s)


def test_arrays_of_layouts_and_batches_broadcast(experts: Resolved) -> None:
    layouts = Layouts(
        tp=np.ones((3, 1)), pp=np.ones((3, 1)), ep=np.array([[2.0], [4.0], [8.0]]), dp=np.array([[2.0], [4.0], [8.0]])
    )
    found = at(experts, experts.machine, layouts, BATCHES[None, :])
    assert np.shape(found.share) == (3, BATCHES.size)
    single = at(experts, experts.machine, wide(4.0))
    np.testing.assert_allclose(np.asarray(found.share)[1], single.share)
    assert math.isfinite(float(np.max(found.share)))
