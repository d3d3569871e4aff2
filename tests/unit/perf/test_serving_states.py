"""Steady states of continuous batching, profiles made of them, and the prefill pool."""

import math
from dataclasses import replace

import numpy as np
import pytest

from tokopt.domain.workloads import Workload
from tokopt.perf.arithmetic import llm_arithmetic
from tokopt.perf.describe import memory_shares, memory_slots, steady_at, time_shares
from tokopt.perf.layouts import Layouts
from tokopt.perf.replica import (
    Worker,
    aggregated_profile,
    aggregated_profiles,
    disaggregated_profile,
    knots,
    prefill_times,
    prompts_a_batch,
    transfer_s,
)
from tokopt.perf.serving import lengths, steady_state, workload_lengths
from tokopt.perf.step import step_time

CHAT = Workload(name="fixed", input_tokens=1000, output_tokens=201)


def worker(tp=1, pp=1, ep=1, dp=1, depth=0, accepted=1.0, chunk=8192) -> Worker:
    return Worker(tp=tp, pp=pp, ep=ep, dp=dp, depth=depth, accepted=accepted, chunk_tokens=chunk)


@pytest.fixture(scope="module")
def llama(catalog):
    return llm_arithmetic(catalog.llm("llama-3.1-8b"), catalog.precision("bf16"), 16)


@pytest.fixture(scope="module")
def deepseek(catalog):
    return llm_arithmetic(catalog.llm("deepseek-r1"), catalog.precision("fp8"), 16)


def steady(model, machine, who, running, workload=CHAT, *, prefill=True):
    return steady_state(
        model,
        machine,
        who.layouts,
        workload_lengths(workload),
        running=np.asarray(running, dtype=float),
        depth=float(who.depth),
        accepted=who.accepted,
        chunk_tokens=float(who.chunk_tokens),
        prefill=prefill,
    )


def test_lengths_as_steps_see_them() -> None:
    size = lengths(1000.0, 201.0, 0.25, input_cv=0.0, output_cv=0.0)
    assert (float(size.new), float(size.cached), float(size.decoded)) == (750.0, 250.0, 200.0)
    assert float(size.decode_context) == 1100.0  # the prompt and half of what is decoded
    assert float(size.prefill_context) == 250 + 375


@pytest.mark.parametrize("share", [0.9999, 1.0])
def test_one_prompt_token_is_always_computed(share: float) -> None:
    size = lengths(1000.0, 201.0, share, input_cv=0.0, output_cv=0.0)
    assert float(size.new) == pytest.approx(1.0, abs=1e-9)
    assert float(lengths(1.0, 1.0, 1.0, input_cv=0.0, output_cv=0.0).new) == 1.0


def test_a_decode_pool_is_its_step(llama, ideal) -> None:
    state = steady(llama, ideal, worker(), [1.0, 16.0], prefill=False)
    for k, n in enumerate((1.0, 16.0)):
        step = step_time(
            llama,
            ideal,
            worker().layouts,
            sequences=n,
            width=1.0,
            context=1100.0,
            prefill_tokens=0.0,
            prefill_context=0.0,
        )
        assert state.tpot_s[k] == pytest.approx(float(step.total), rel=1e-12)
        assert state.requests_per_s[k] == pytest.approx(n / (200 * float(step.total)), rel=1e-12)
    assert state.prefill_share.tolist() == [0.0, 0.0]
    assert state.in_service.tolist() == [1.0, 16.0]


def test_speculation_divides_the_step_by_what_it_yields(deepseek, ideal) -> None:
    who = worker(tp=8, depth=2, accepted=2.4)
    state = steady(deepseek, ideal, who, 4.0, prefill=False)
    assert float(state.tpot_s) == pytest.approx(float(state.step_s) / 2.4, rel=1e-12)


RUNNING = np.array([0.01, 1.0, 2.0, 7.0, 40.0, 300.0, 2000.0])


@pytest.mark.parametrize(
    "who", [worker(), worker(tp=8), worker(pp=4), worker(dp=4), worker(chunk=512)], ids=["1", "tp", "pp", "dp", "chunk"]
)
def test_balances_of_a_steady_state(llama, ideal, who) -> None:
    state = steady(llama, ideal, who, RUNNING)
    # Tokens: what decodes finishes; Little's law for decoding and for service.
    assert state.requests_per_s * 200 * state.tpot_s == pytest.approx(RUNNING, rel=1e-12)
    held = RUNNING + state.requests_per_s * (state.prefill_s + state.prefill_wait_s)
    assert state.in_service == pytest.approx(held, rel=1e-12)
    # Time: the share of prefill is arrivals times the worker time of each.
    assert state.requests_per_s * state.occupancy_s == pytest.approx(np.asarray(state.prefill_share), rel=1e-9)
    assert state.step_s * (1 - state.prefill_share) == pytest.approx(np.asarray(state.decode_step_s), rel=1e-9)
    assert (state.prefill_share >= 0).all()
    assert (state.prefill_share < 1).all()
    assert (np.asarray(state.compute_share) <= 1 + 1e-9).all()


def test_throughput_grows_and_tpot_too_with_the_batch(llama, ideal) -> None:
    state = steady(llama, ideal, worker(), np.geomspace(1, 3000, 200))
    assert (np.diff(state.requests_per_s) > 0).all()
    assert (np.diff(state.tpot_s) > 0).all()
    assert (np.diff(state.in_service) > 0).all()


def test_saturation_is_bound_by_the_arithmetic_of_prompt_and_output(llama, ideal) -> None:
    """With an endless batch every request costs its tokens' products: no schedule beats that."""
    state = steady(llama, ideal, worker(), 1e7)
    projections = 32 * (2 * 4096 * 4096 + 2 * 4096 * 8 * 128)
    ffn = 32 * 3 * 4096 * 14336
    floor = 1200 * 2 * (projections / 4e14 + ffn / 6e14)
    assert float(state.requests_per_s) < 1 / floor


def test_nothing_to_mix_runs_apart(llama, ideal) -> None:
    """Without mixing, a prompt adds its own pass to the steps; with it, less."""
    apart = steady(llama, replace(ideal, mixing=0.0), worker(), 8.0)
    step = step_time(
        llama,
        ideal,
        worker().layouts,
        sequences=0.0,
        width=1.0,
        context=0.0,
        prefill_tokens=1000.0,
        prefill_context=500.0,
    )
    assert float(apart.occupancy_s) == pytest.approx(float(step.total), rel=1e-9)
    assert float(apart.prefill_s) == pytest.approx(float(step.total), rel=1e-9)
    mixed = steady(llama, replace(ideal, mixing=1.0), worker(), 8.0)
    assert float(mixed.occupancy_s) < float(step.total)
    assert float(mixed.prefill_s) > float(step.total)


def test_a_cached_prefix_saves_prefill_and_memory_stays(llama, ideal) -> None:
    plain = steady(llama, ideal, worker(), 16.0)
    cached = steady(llama, ideal, worker(), 16.0, replace(CHAT, prefix_share=0.8))
    assert float(cached.prefill_s) < float(plain.prefill_s)
    assert float(cached.requests_per_s) > float(plain.requests_per_s)
    assert float(cached.decode_step_s) == float(plain.decode_step_s)


def test_knots() -> None:
    assert knots(5).tolist() == [1, 2, 3, 4, 5]
    widest = knots(100_000).tolist()
    for slots in (48, 49, 100, 5000):
        k = knots(slots)
        assert k[0] == 1.0
        assert k[-2] < slots <= k[-1]
        assert (np.diff(k) > 0).all()
        assert k.tolist() == widest[: k.size]  # the same for every number of slots


def test_one_request_at_a_time_meets_nobody_elses_prompt(llama, ideal) -> None:
    profile = aggregated_profile(llama, ideal, worker(), CHAT, slots=1)
    state = steady(llama, ideal, worker(), np.array([1.0]))
    decoded = CHAT.output_tokens - 1.0
    step, prompt = float(state.decode_step_s[0]), float(state.alone_prefill_s[0])
    assert profile.tpot_s == pytest.approx([step], rel=1e-12)
    assert profile.prompt_s == pytest.approx([prompt], rel=1e-12)
    assert profile.requests_per_s == pytest.approx([1.0 / (prompt + decoded * step)], rel=1e-12)
    assert profile.stall_s == pytest.approx([0.0])
    assert step < float(state.tpot_s[0])


@pytest.mark.parametrize("slots", [7, 60, 700])
def test_profile_of_an_aggregated_replica(llama, ideal, slots: int) -> None:
    profile = aggregated_profile(llama, ideal, worker(), CHAT, slots=slots)
    assert profile.slots == slots
    assert (np.diff(profile.requests_per_s) > 0).all()
    assert (np.diff(profile.tpot_s) >= 0).all()
    # Each occupancy is one in a steady state: requests in service by Little's law.
    state = steady(llama, ideal, worker(), np.geomspace(0.5, slots, 400))
    exact = np.interp(np.arange(1.0, slots + 1), np.asarray(state.in_service), np.asarray(state.requests_per_s))
    inside = np.arange(1.0, slots + 1) <= float(state.in_service[-1])
    assert profile.requests_per_s[inside] == pytest.approx(exact[inside], rel=5e-3)


def test_profiles_computed_together_are_those_computed_alone(deepseek, ideal) -> None:
    """To the last digit, whatever else is in the batch and however many slots it has."""
    workers = [worker(tp=8), worker(tp=4, pp=2, depth=2, accepted=2.4, chunk=2048), worker(dp=8, ep=8, chunk=2048)]
    slots = [5, 400, 64]
    profile_of = aggregated_profiles(deepseek, ideal, workers, CHAT, slots=slots)
    for number, who in enumerate(workers):
        together, alone = profile_of(number), aggregated_profile(deepseek, ideal, who, CHAT, slots=slots[number])
        assert together.slots == slots[number]
        for name in ("requests_per_s", "tpot_s", "stall_s", "prompt_s", "front_s"):
            assert np.array_equal(getattr(together, name), getattr(alone, name)), name


@pytest.mark.parametrize("prefill", [True, False])
def test_a_decode_step_that_is_known_changes_nothing(deepseek, ideal, prefill: bool) -> None:
    who, running = worker(tp=8, depth=1, accepted=1.8), [1.0, 8.0, 64.0]
    plain = steady(deepseek, ideal, who, running, prefill=prefill)
    known = steady_state(
        deepseek,
        ideal,
        who.layouts,
        workload_lengths(CHAT),
        running=np.array(running),
        depth=1.0,
        accepted=1.8,
        chunk_tokens=8192.0,
        prefill=prefill,
        decode=plain.decode,
    )
    for name in ("in_service", "tpot_s", "stall_s", "requests_per_s", "prefill_s", "compute_share"):
        assert np.array_equal(getattr(known, name), getattr(plain, name)), name


def test_one_request_alone_is_served_at_its_own_pace(llama, ideal) -> None:
    """One at a time: its prefill and its decoding, one after the other."""
    profile = aggregated_profile(llama, ideal, worker(), CHAT, slots=50)
    state = steady(llama, ideal, worker(), 1e-6)
    alone = float(state.prefill_s) + 200 * float(state.decode_step_s)
    assert float(profile.requests_per_s[0]) == pytest.approx(1 / alone, rel=0.05)


def test_prefill_batches() -> None:
    size = lengths(np.array([100.0, 1000.0, 5000.0, 20_000.0]), 10.0, 0.0, input_cv=0.0, output_cv=0.0)
    assert prompts_a_batch(size, 8192.0).tolist() == [81, 8, 1, 1]


def test_prefill_times(llama, ideal) -> None:
    def step(tokens: float, context: float) -> float:
        return float(
            step_time(
                llama,
                ideal,
                worker().layouts,
                sequences=0.0,
                width=1.0,
                context=0.0,
                prefill_tokens=tokens,
                prefill_context=context,
            ).total
        )

    short = prefill_times(llama, ideal, worker().layouts, workload_lengths(CHAT), 8192.0)
    assert float(short.batch_s) == pytest.approx(step(8000.0, 500.0), rel=1e-12)
    assert float(short.requests_per_s) == pytest.approx(
        0.8 * 8 / step(8000.0, 500.0), rel=1e-12
    )  # of which the pool keeps up 0.8
    long = replace(CHAT, input_tokens=16_384)
    two = prefill_times(llama, ideal, worker().layouts, workload_lengths(long), 8192.0)
    assert float(two.batch_s) == pytest.approx(2 * step(8192.0, 8192.0), rel=1e-12)
    assert float(two.requests_per_s) == pytest.approx(0.8 / float(two.batch_s), rel=1e-12)


def test_transfer_of_the_cache(llama, ideal) -> None:
    ask = {"input_tokens": 1000.0, "sender": 2.0, "receiver": 4.0}
    # 131 MB over the two senders' links, after 50 ms of routing.
    assert float(transfer_s(llama, ideal, **ask, replica=8.0)) == pytest.approx(
        0.05 + 1e-5 + 131_072_000 / (2 * 4e11), rel=1e-12
    )
    assert float(transfer_s(llama, ideal, **ask, replica=16.0)) == pytest.approx(
        0.05 + 3e-5 + 131_072_000 / (2 * 5e10), rel=1e-12
    )


def test_profile_of_a_disaggregated_replica(llama, ideal) -> None:
    profile = disaggregated_profile(
        llama,
        ideal,
        prefill=worker(dp=2),
        prefill_workers=3,
        decode=worker(tp=4),
        decode_workers=2,
        workload=CHAT,
        slots=100,
    )
    pool = profile.prefill
    assert pool is not None
    assert (pool.servers, profile.workers, profile.slots) == (6, 2, 100)
    # The replica of 14 spans domains of 8, so the cache goes over the slow links.
    move = float(transfer_s(llama, ideal, input_tokens=1000.0, sender=2.0, receiver=4.0, replica=14.0))
    assert pool.transfer_s == pytest.approx(0.1 + move, rel=1e-12)
    state = steady(llama, ideal, worker(tp=4), np.arange(1.0, 101.0), prefill=False)
    assert profile.tpot_s == pytest.approx(np.asarray(state.tpot_s), rel=2e-3)
    assert not profile.stall_s.any()


@pytest.mark.parametrize("running", [0.5, 3.0, 64.0])
@pytest.mark.parametrize("prefill", [True, False])
def test_time_shares_add_up(deepseek, ideal, running: float, prefill: bool) -> None:
    state = steady_at(deepseek, ideal, worker(ep=8, dp=8), CHAT, running=running, prefill=prefill)
    shares = time_shares(state)
    assert sum(shares.values()) == pytest.approx(1.0, rel=1e-9)
    assert all(0 <= s <= 1 for s in shares.values())


def test_memory_shares_add_up_to_the_device(llama, ideal) -> None:
    slots = int(memory_slots(llama, ideal, worker(), CHAT, prefill=True))
    shares = memory_shares(llama, ideal, worker(), CHAT, slots=slots, prefill=True)
    assert shares.weights + shares.kv + shares.other + shares.free == pytest.approx(80e9, rel=1e-12)
    one = 1100.5 * 131_072
    assert 0 <= shares.free < one  # no further sequence fits
    assert shares.kv == pytest.approx(slots * one)


def test_layouts() -> None:
    where = Layouts(tp=2.0, pp=3.0, ep=4.0, dp=8.0)
    assert (where.stage, where.accelerators, where.expert_split, where.queues) == (16.0, 48.0, 4.0, 24.0)
    assert float(where.has_all_to_all) == 1.0
    assert float(Layouts(tp=8.0, pp=1.0, ep=8.0, dp=1.0).has_all_to_all) == 0.0
    assert math.isclose(worker(tp=2, pp=3, dp=4).accelerators, 24)
