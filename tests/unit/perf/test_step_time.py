"""The time of a step, against values worked out by hand on a machine of round numbers."""

from dataclasses import replace
from math import hypot

import numpy as np
import pytest

from tokopt.perf.arithmetic import llm_arithmetic
from tokopt.perf.collectives import all_reduce_s, all_to_all_s
from tokopt.perf.layouts import Layouts
from tokopt.perf.step import roofline_s, step_time, touched_experts

# llama-3.1-8b, from its config.json: 32 layers, hidden 4,096, 32 heads, 8 KV heads of 128, FFN 14,336, 128,256 words.
ATTENTION = 32 * (2 * 4096 * 4096 + 2 * 4096 * 8 * 128)
FFN = 32 * (3 * 4096 * 14336 + 2 * 4096)  # with both norms
HEAD = 128_256 * 4096
KV = 131_072  # B/token: 2 x 8 heads x 128 x 32 layers x 2 B
PAIR = 32 * 4 * 32 * 128  # FLOP of one query against one key and value, all layers
READ = (ATTENTION + FFN + HEAD) * 2 / 2e12  # all weights once [s]
PASSED = 32 * 4096 * 2 * 10 / 2e12  # a token's hidden vector, ten times a layer [s]
# deepseek-r1: 61 layers of which 58 have 256 experts of 3 x 7,168 x 2,048, 8 of them used.
EXPERT = 3 * 7168 * 2048


def layouts(tp=1, pp=1, ep=1, dp=1):
    return Layouts(tp=float(tp), pp=float(pp), ep=float(ep), dp=float(dp))


@pytest.fixture(scope="module")
def llama(catalog):
    return llm_arithmetic(catalog.llm("llama-3.1-8b"), catalog.precision("bf16"), 16)


@pytest.fixture(scope="module")
def deepseek(catalog):
    return llm_arithmetic(catalog.llm("deepseek-r1"), catalog.precision("fp8"), 16)


def decode(model, machine, where, *, sequences=1.0, width=1.0, context=1000.0, depth=0.0):
    return step_time(
        model,
        machine,
        where,
        sequences=sequences,
        width=width,
        context=context,
        prefill_tokens=0.0,
        prefill_context=0.0,
        draft_depth=depth,
    )


def prefill(model, machine, where, *, tokens, context=0.0):
    return step_time(
        model,
        machine,
        where,
        sequences=0.0,
        width=1.0,
        context=0.0,
        prefill_tokens=float(tokens),
        prefill_context=context,
    )


def test_a_roofline_with_a_round_corner() -> None:
    assert roofline_s(3.0, 4.0) == 5.0
    assert roofline_s(0.0, 7.0) == 7.0
    assert roofline_s(7.0, 0.0) == 7.0
    assert roofline_s(1.0, 1.0) == pytest.approx(2**0.5, rel=1e-15)
    # Far from the corner it is the larger of both.
    assert roofline_s(1.0, 1e-4) == pytest.approx(1.0, abs=1e-8)
    assert roofline_s(np.array([3.0, 5.0]), np.array([4.0, 12.0])).tolist() == [5.0, 13.0]


def test_one_sequence_is_bound_by_reading_the_weights(llama, ideal) -> None:
    step = decode(llama, ideal, layouts())
    products = 2 * (ATTENTION / 4e14 + FFN / 6e14 + HEAD / 2e14)
    assert products < 0.01 * READ
    assert step.dense == pytest.approx(hypot(READ, products) + PASSED, rel=1e-12)
    assert step.attention == pytest.approx(1000 * hypot(KV / 1e12, PAIR / 1e14), rel=1e-12)
    assert step.overhead == pytest.approx(32 * 5e-5 + 1e-3 + 1e-5, rel=1e-12)
    assert (float(step.experts), float(step.collectives)) == (0.0, 0.0)
    assert step.total == pytest.approx(step.dense + step.attention + step.overhead, rel=1e-12)


def test_many_sequences_are_bound_by_arithmetic(llama, ideal) -> None:
    step = decode(llama, ideal, layouts(), sequences=4096.0, context=0.0)
    products = 4096 * 2 * (ATTENTION / 4e14 + FFN / 6e14 + HEAD / 2e14)
    assert step.dense == pytest.approx(hypot(READ, products) + 4096 * PASSED, rel=1e-12)
    assert step.compute_share == pytest.approx(products / step.total, rel=1e-12)


def test_hidden_vectors_pass_through_memory_whole_on_every_accelerator(llama, ideal) -> None:
    lean = replace(ideal, activation_passes=0.0)
    for where in (layouts(), layouts(tp=8), layouts(dp=4)):
        for n, width in ((1.0, 1.0), (64.0, 1.0), (64.0, 3.0)):
            with_, without = (decode(llama, m, where, sequences=n, width=width).dense for m in (ideal, lean))
            assert with_ - without == pytest.approx(n * width * PASSED, rel=1e-9)
    assert prefill(llama, ideal, layouts(), tokens=500).dense - prefill(
        llama, lean, layouts(), tokens=500
    ).dense == pytest.approx(500 * PASSED, rel=1e-9)


def test_overhead_by_kind_of_layer(catalog, ideal) -> None:
    def overhead(name: str, where=None, **ask) -> float:
        model = llm_arithmetic(catalog.llm(name), catalog.precision("bf16"), 16)
        return float(decode(model, ideal, where or layouts(), **ask).overhead)

    step = 1e-3 + 1e-5
    assert overhead("llama-3.1-8b") == pytest.approx(32 * 5e-5 + step, rel=1e-12)
    assert overhead("qwen3-30b-a3b") == pytest.approx(48 * (5e-5 + 3e-5) + step, rel=1e-12)
    assert overhead("deepseek-r1") == pytest.approx(61 * 5e-5 + 58 * 3e-5 + step, rel=1e-12)
    assert overhead("deepseek-v3.2") == pytest.approx(61 * (5e-5 + 4e-5) + 58 * 3e-5 + step, rel=1e-12)
    # All 60 layers have experts, three in four recurrent attention (full_attention_interval in its config.json).
    assert overhead("qwen3.5-397b-a17b") == pytest.approx(60 * 8e-5 + 45 * 2e-5 + step, rel=1e-12)
    # A draft token passes one layer more; one scheduler serves the sequences of all ranks and stages.
    drafted = (61 * 5e-5 + 58 * 3e-5) * 62 / 61 + 1e-3 + 8 * 5 * 1e-5
    assert overhead("deepseek-r1", layouts(ep=8, dp=8), sequences=5.0, depth=1.0) == pytest.approx(drafted, rel=1e-12)


def test_slowdown_stretches_every_part(deepseek, ideal) -> None:
    slow = replace(ideal, slowdown=1.25)
    plain, slowed = (decode(deepseek, m, layouts(ep=8, dp=8, pp=2), sequences=4.0) for m in (ideal, slow))
    for part in ("dense", "experts", "attention", "collectives", "overhead", "total"):
        assert getattr(slowed, part) == pytest.approx(1.25 * getattr(plain, part), rel=1e-12)
    assert slowed.compute_share == pytest.approx(plain.compute_share, rel=1e-12)


def test_tensor_parallelism_splits_weights_cache_and_pays_two_all_reduces_a_layer(llama, ideal) -> None:
    one, four = decode(llama, ideal, layouts()), decode(llama, ideal, layouts(tp=4))
    assert four.dense == pytest.approx((one.dense - PASSED) / 4 + PASSED, rel=1e-12)
    assert four.attention == pytest.approx(one.attention / 4, rel=1e-12)
    each = float(all_reduce_s(ideal, 4.0)(4096 * 2.0))
    assert four.collectives == pytest.approx(2 * 32 * each, rel=1e-12)
    assert four.overhead == one.overhead


def test_a_cache_is_copied_beyond_its_heads(llama, deepseek, ideal) -> None:
    wide = replace(ideal, scale_up_size=32)
    for tp in (8, 16):
        expected = hypot(1e5 * KV / 8 / 1e12, 1e5 * PAIR / tp / 1e14)
        assert decode(llama, wide, layouts(tp=tp), context=1e5).attention == pytest.approx(expected, rel=1e-12)
    # A latent cache has no heads to split; its read is 70,272 B a token on every accelerator.
    for tp in (1, 8):
        read = decode(deepseek, wide, layouts(tp=tp), context=1e5).attention
        compute = 1e5 * 61 * 128 * 2 * (576 + 512) / 1e14 / tp
        assert read == pytest.approx(hypot(1e5 * 70_272 / 1e12, compute), rel=1e-12)


def test_prefill_is_quadratic_in_the_prompt(llama, ideal) -> None:
    # n tokens see n/2 others on average: n^2/2 pairs.
    for n in (1000, 4000):
        step = prefill(llama, ideal, layouts(), tokens=n, context=n / 2)
        assert step.attention == pytest.approx(n * n / 2 * PAIR / 2.5e14, rel=1e-12)
        products = n * 2 * (ATTENTION / 4e14 + FFN / 6e14)
        assert step.dense == pytest.approx(hypot(READ, products) + n * PASSED, rel=1e-12)
        assert step.overhead == pytest.approx(32 * 5e-5 + 1e-3, rel=1e-12)


def test_a_mixed_step_is_no_longer_than_both_apart(llama, ideal) -> None:
    mixed = step_time(
        llama,
        ideal,
        layouts(),
        sequences=32.0,
        width=1.0,
        context=2000.0,
        prefill_tokens=1024.0,
        prefill_context=512.0,
    ).total
    apart = (
        decode(llama, ideal, layouts(), sequences=32.0, context=2000.0).total
        + prefill(llama, ideal, layouts(), tokens=1024, context=512.0).total
    )
    assert mixed < apart
    assert mixed > decode(llama, ideal, layouts(), sequences=32.0, context=2000.0).total


def test_pipeline_stages_wait_for_each_other_and_hand_over(llama, ideal) -> None:
    one, four = decode(llama, ideal, layouts()), decode(llama, ideal, layouts(pp=4))
    waits = 1 + 0.2 * 3
    assert four.dense == pytest.approx(one.dense * waits, rel=1e-12)
    assert four.collectives == pytest.approx(4 * (1e-5 + 4096 * 2 / 4e11) * waits, rel=1e-12)
    assert four.overhead == pytest.approx((32 * 5e-5 + 1e-3 + 4 * 1e-5) * waits, rel=1e-12)


@pytest.mark.parametrize("tokens", [1, 3, 20, 200])
def test_touched_experts_against_random_draws(tokens: int) -> None:
    rng = np.random.default_rng(7)
    rounds = 400
    counts = []
    for _ in range(rounds):
        chosen = np.argsort(rng.random((tokens, 256)), axis=1)[:, :8]
        counts.append(np.unique(chosen).size)
    error = 4 * np.std(counts) / rounds**0.5 + 1e-9
    assert abs(float(touched_experts(256, 8, tokens)) - np.mean(counts)) <= error


def test_touched_experts_ends() -> None:
    assert float(touched_experts(256, 8, 1.0)) == pytest.approx(8.0, rel=1e-12)
    assert float(touched_experts(256, 8, 0.0)) == 0.0
    assert float(touched_experts(256, 8, 1e6)) == pytest.approx(256.0)
    assert float(touched_experts(4, 4, 2.0)) == 4.0


def test_one_token_reads_its_eight_experts(deepseek, ideal) -> None:
    step = decode(deepseek, ideal, layouts(tp=8))
    assert step.experts == pytest.approx(58 * EXPERT * hypot(1 / 1.6e12, 2 / 3e14), rel=1e-12)


def test_the_fullest_accelerator_reads_more_but_never_more_than_it_holds(deepseek, ideal) -> None:
    where = layouts(ep=8, dp=8)
    few = decode(deepseek, ideal, where, sequences=0.125)  # one token over the 8 ranks
    assert few.experts == pytest.approx(58 * EXPERT * 1.2 * hypot(1 / 1.6e12, 2 / 3e14), rel=1e-12)
    many = decode(deepseek, ideal, where, sequences=64.0)  # 512 tokens: all 256 experts are touched
    assert many.experts == pytest.approx(58 * EXPERT * hypot(32 / 1.6e12, 512 * 1.2 * 2 / 3e14), rel=1e-6)


def test_experts_at_a_large_batch_are_bound_by_arithmetic(deepseek, ideal) -> None:
    step = decode(deepseek, ideal, layouts(ep=8, dp=8), sequences=4096.0, context=0.0)
    products = 4096 * 8 * 1.2 * 58 * 2 * 8 * EXPERT / 3e14 / 8
    assert step.experts == pytest.approx(hypot(58 * 32 * EXPERT / 1.6e12, products), rel=1e-12)
    assert step.experts == pytest.approx(products, rel=0.01)


def test_expert_parallelism_pays_an_all_to_all_a_moe_layer(deepseek, ideal) -> None:
    step = decode(deepseek, ideal, layouts(ep=8, dp=8), sequences=16.0)
    each = all_to_all_s(ideal, group=8.0, choices=8.0, bytes_per_token=7168 * 3.0, slices=1.0)(16.0)
    assert step.collectives == pytest.approx(58 * float(each), rel=1e-12)


def test_speculation_widens_the_step_and_passes_the_draft_module(deepseek, ideal) -> None:
    plain = decode(deepseek, ideal, layouts(tp=8), sequences=4.0)
    drafted = decode(deepseek, ideal, layouts(tp=8), sequences=4.0, width=3.0, depth=2.0)
    for part in ("dense", "experts", "collectives", "overhead"):
        assert getattr(drafted, part) > getattr(plain, part)
    assert drafted.overhead - plain.overhead == pytest.approx(2 * (5e-5 + 3e-5 * 58 / 61), rel=1e-9)


def test_arrays_are_answered_element_by_element(deepseek, ideal) -> None:
    """One vectorised call equals a call for each deployment."""
    tp, pp, ep, dp = (np.array(c, dtype=float) for c in ([1, 8, 1, 4], [1, 1, 2, 1], [1, 1, 8, 8], [8, 1, 8, 2]))
    whole = Layouts(tp=tp, pp=pp, ep=ep, dp=dp)
    n = np.array([1.0, 7.0, 30.0, 200.0])
    together = decode(deepseek, ideal, whole, sequences=n, width=2.0, depth=1.0, context=3000.0)
    for k in range(4):
        alone = decode(
            deepseek,
            ideal,
            layouts(tp[k], pp[k], ep[k], dp[k]),
            sequences=float(n[k]),
            width=2.0,
            depth=1.0,
            context=3000.0,
        )
        for part in ("dense", "experts", "attention", "collectives", "overhead", "compute_share"):
            got = np.broadcast_to(getattr(together, part), 4)[k]
            assert got == pytest.approx(float(getattr(alone, part)), rel=1e-12)


def test_sparse_attention_reads_its_selection_only(catalog, ideal) -> None:
    model = llm_arithmetic(catalog.llm("deepseek-v3.2"), catalog.precision("fp8"), 16)
    short, long, longer = (decode(model, ideal, layouts(), context=c).attention for c in (2048.0, 60_000.0, 61_000.0))
    dense = llm_arithmetic(catalog.llm("deepseek-v3"), catalog.precision("fp8"), 16)
    assert long < decode(dense, ideal, layouts(), context=60_000.0).attention
    # Beyond the selection only the indexer's keys grow.
    per_token = (longer - long) / 1000
    assert 0 < per_token < (short / 2048) / 2


def test_a_window_stops_the_growth_of_its_layers(catalog, ideal) -> None:
    model = llm_arithmetic(catalog.llm("gpt-oss-120b"), catalog.precision("mxfp4"), 16)
    # 36 layers, half of them with a window of 128 tokens; 8 KV heads of 64: 2 x 8 x 64 x 18 x 2 B a token and half.
    near, far = (float(decode(model, ideal, layouts(), context=c).attention) for c in (10_000.0, 20_000.0))
    products = 2 * 18 * 64 * (64 + 64)  # of 64 heads
    assert far - near == pytest.approx(10_000 * hypot(2 * 8 * 64 * 18 * 2 / 1e12, products / 1e14), rel=1e-9)
