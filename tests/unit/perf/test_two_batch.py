"""Two-batch overlap: the schedule against an event-by-event simulation, and what halves must never do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokopt.api.resolved import Resolved
from tokopt.perf.exchange import exchange
from tokopt.perf.layouts import Layouts
from tokopt.perf.machine import Machine
from tokopt.perf.step import Steps, StepTime, expert_exchange_s, step_time, worker_steps
from tokopt.perf.two_batch import two_batch_steps, two_batches_s

Resolve = Callable[..., Resolved]
PARTS = ("dense", "experts", "attention", "collectives", "overhead")


def simulated_s(computing: float, links: float, latency: float, rounds: int) -> float:
    """Two halves, one processor, one link: whoever is ready first goes first."""
    processor = link = end = 0.0
    ready, done = [0.0, 0.0], [0, 0]
    while min(done) < rounds:
        half = min((h for h in (0, 1) if done[h] < rounds), key=lambda h: (ready[h], done[h], h))
        processor = max(ready[half], processor) + computing
        link = max(processor, link) + links
        ready[half] = link + latency
        done[half] += 1
        end = max(end, ready[half])
    return end


@given(
    computing=st.floats(1e-6, 1.0),
    links=st.floats(1e-6, 1.0),
    latency=st.floats(0.0, 3.0),
    rounds=st.integers(1, 60),
)
@settings(max_examples=200, deadline=None)
def test_the_formula_is_the_schedule(computing: float, links: float, latency: float, rounds: int) -> None:
    found = two_batches_s(
        computing=computing * rounds, links=links * rounds, latency=latency * rounds, rounds=float(rounds)
    )
    assert float(found) == pytest.approx(simulated_s(computing, links, latency, rounds), rel=1e-9)


def test_each_of_three_things_may_decide() -> None:
    """Ten layers: computing twice, one half's chain, or the links twice, with what cannot overlap."""
    of = lambda c, w, wait: float(two_batches_s(computing=c, links=w, latency=wait, rounds=10.0))  # noqa: E731
    assert of(10.0, 1.0, 1.0) == pytest.approx(20.0 + 0.2)
    assert of(1.0, 1.0, 10.0) == pytest.approx(12.0 + 0.1)
    assert of(1.0, 10.0, 1.0) == pytest.approx(20.0 + 0.2)


@pytest.fixture(scope="module")
def wide(resolved: Resolve) -> Resolved:
    return resolved("deepseek-r1", "h100_sxm", "fp8", "fp8", framework="sglang")


def layouts(*, ep: float = 32.0, tp: float = 1.0, halved: float = 1.0, copies: float = 0.0) -> Layouts:
    return Layouts(tp=tp, pp=1.0, ep=ep, dp=ep / tp, redundant_experts=copies, two_batch_overlap=halved)


def timed(found: Resolved, machine: Machine, where: Layouts) -> Steps:
    return worker_steps(found.model, machine, where, width=1.0, context=2000.0, prefill_context=1000.0)


def forced(found: Resolved, where: Layouts) -> tuple[Steps, Steps]:
    """A step whole, and the same as halves whether that pays or not."""
    whole = timed(found, found.machine, replace(where, two_batch_overlap=0.0))
    exchanges = expert_exchange_s(found.model, found.machine, where, 0.0)
    return whole, two_batch_steps(whole, exchanges, found.model, found.machine, where, width=1.0, modules=0.0)


def same(one: StepTime, other: StepTime) -> None:
    for name in (*PARTS, "compute_share"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_halves_hide_the_exchange_and_read_weights_twice(wide: Resolved) -> None:
    whole, halves = (steps(sequences=256.0, prefill_tokens=0.0) for steps in forced(wide, layouts()))
    assert float(halves.total) < float(whole.total)
    assert float(halves.collectives) < 0.1 * float(whole.collectives)
    assert float(halves.dense) > float(whole.dense) and float(halves.overhead) > float(whole.overhead)
    np.testing.assert_allclose(halves.attention, whole.attention)  # every sequence reads its own cache
    assert float(halves.total) == pytest.approx(sum(float(np.squeeze(getattr(halves, name))) for name in PARTS))
    assert 0.0 < float(halves.compute_share) <= 1.0


def test_one_sequence_a_rank_is_never_halved(wide: Resolved) -> None:
    eager = replace(wide.machine, two_batch_tokens=2.0, scale_out_latency_s=1.0)
    plain, better = (timed(wide, eager, layouts(halved=h)) for h in (0.0, 1.0))
    same(*(steps(sequences=1.0, prefill_tokens=0.0) for steps in (plain, better)))
    assert float(better(sequences=2.0, prefill_tokens=0.0).total) < float(
        plain(sequences=2.0, prefill_tokens=0.0).total
    )


def test_the_engine_waits_for_its_threshold(wide: Resolved) -> None:
    assert wide.machine.two_batch_tokens == 64.0  # SGLang
    plain, better = (timed(wide, wide.machine, layouts(halved=h)) for h in (0.0, 1.0))
    same(*(steps(sequences=63.0, prefill_tokens=0.0) for steps in (plain, better)))
    assert float(better(sequences=64.0, prefill_tokens=0.0).total) < float(
        plain(sequences=64.0, prefill_tokens=0.0).total
    )


def test_nothing_is_halved_where_nothing_is_exchanged(wide: Resolved) -> None:
    for where in (Layouts(tp=8.0, pp=1.0, ep=8.0, dp=1.0), Layouts(tp=1.0, pp=1.0, ep=1.0, dp=8.0)):
        plain, better = (timed(wide, wide.machine, replace(where, two_batch_overlap=h)) for h in (0.0, 1.0))
        same(*(steps(sequences=128.0, prefill_tokens=0.0) for steps in (plain, better)))


@given(
    sequences=st.floats(0.0, 1024.0),
    prompt=st.floats(0.0, 16384.0),
    ep=st.sampled_from([2.0, 8.0, 16.0, 72.0]),
    speed=st.floats(0.01, 100.0),
)
@settings(max_examples=100, deadline=None)
def test_a_switch_is_never_slower_and_never_below_what_has_to_be_done(
    wide: Resolved, sequences: float, prompt: float, ep: float, speed: float
) -> None:
    if sequences + prompt <= 0.0:
        return
    machine = replace(
        wide.machine,
        scale_up_bytes_per_s=wide.machine.scale_up_bytes_per_s * speed,
        scale_out_bytes_per_s=wide.machine.scale_out_bytes_per_s * speed,
    )
    plain, better = (timed(wide, machine, layouts(ep=ep, halved=h)) for h in (0.0, 1.0))
    one, two = (steps(sequences=sequences, prefill_tokens=prompt) for steps in (plain, better))
    assert float(two.total) <= float(one.total)
    carried = float(expert_exchange_s(wide.model, machine, layouts(ep=ep), 0.0)(sequences + prompt))
    assert float(two.total) >= float(one.total) - carried * float(machine.slowdown) * (1 + 1e-9)
    assert float(two.collectives) >= 0.0


def test_arrays_take_the_better_one_by_element(wide: Resolved) -> None:
    batches = np.array([1.0, 16.0, 63.0, 64.0, 256.0, 700.0])
    better = timed(wide, wide.machine, layouts())
    together = better(sequences=batches, prefill_tokens=0.0)
    each = [better(sequences=float(batch), prefill_tokens=0.0) for batch in batches]
    for name in PARTS:
        np.testing.assert_allclose(getattr(together, name), [float(np.squeeze(getattr(e, name))) for e in each])


def test_what_is_hidden_is_said_to_be_hidden(wide: Resolved) -> None:
    batches = np.array([8.0, 63.0, 128.0, 512.0])
    plain, halved = (
        exchange(wide.model, wide.machine, layouts(halved=h), sequences=batches, width=1.0, context=2000.0)
        for h in (0.0, 1.0)
    )
    assert not np.any(plain.hidden_s)
    np.testing.assert_array_equal(halved.exchange_s[:2], plain.exchange_s[:2])
    assert not np.any(halved.hidden_s[:2]) and np.all(halved.hidden_s[2:] > 0.0)
    half = expert_exchange_s(wide.model, wide.machine, layouts(), 0.0)(0.5 * batches) * wide.machine.slowdown
    np.testing.assert_allclose((halved.exchange_s + halved.hidden_s)[2:], 2.0 * half[2:])
    assert np.all(halved.share[2:] < plain.share[2:])
    step = step_time(
        wide.model,
        wide.machine,
        layouts(),
        sequences=batches,
        width=1.0,
        context=2000.0,
        prefill_tokens=0.0,
        prefill_context=0.0,
    )
    np.testing.assert_allclose(halved.step_s, step.total)
    # Links that the computing no longer covers bind, overlap or not.
    slow = replace(wide.machine, scale_out_bytes_per_s=wide.machine.scale_out_bytes_per_s * 0.01)
    found = exchange(wide.model, slow, layouts(), sequences=batches, width=1.0, context=2000.0)
    assert found.binds[-1]
