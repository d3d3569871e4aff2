"""Context parallelism: what it splits and exchanges, by hand on a machine of round numbers, and what always holds."""

from dataclasses import fields, replace
from math import log2

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokopt.catalog import load_catalog
from tokopt.perf.arithmetic import llm_arithmetic
from tokopt.perf.collectives import all_gather_s
from tokopt.perf.context import pipelined
from tokopt.perf.layouts import Layouts, stacked_layouts
from tokopt.perf.memory import memory_use, sequence_bytes, weight_bytes
from tokopt.perf.replica import prefill_times
from tokopt.perf.serving import lengths, steady_state
from tokopt.perf.step import StepTime, step_time

CATALOG = load_catalog()
MODELS = ("llama-3.1-8b", "llama-3.1-405b", "deepseek-r1", "deepseek-v3.2", "qwen3-235b-a22b", "gpt-oss-120b")


def model_of(name, kv_bits=8.0):
    llm = CATALOG.llm(name)
    return llm_arithmetic(llm, CATALOG.precision(llm.native_precision), kv_bits)


def layouts(tp=1, pp=1, ep=1, dp=1, cp=1, dcp=1):
    return Layouts(tp=float(tp), pp=float(pp), ep=float(ep), dp=float(dp), cp=float(cp), dcp=float(dcp))


def a_step(model, machine, where, *, sequences=0.0, tokens=0.0, context=0.0, prefill_context=0.0, width=1.0):
    return step_time(
        model,
        machine,
        where,
        sequences=sequences,
        width=width,
        context=context,
        prefill_tokens=tokens,
        prefill_context=prefill_context,
    )


# --- what it splits ---


@pytest.mark.parametrize(
    ("name", "tp", "dcp", "ways"),
    [
        ("deepseek-r1", 8, 1, 1),  # one latent vector a token: eight copies ...
        ("deepseek-r1", 8, 8, 8),  # ... none of which is left (vLLM's documentation, -tp 8 -dcp 8)
        ("kimi-k2", 16, 8, 8),  # two copies are left (the same, -tp 16 -dcp 8)
        ("qwen3-235b-a22b", 8, 2, 8),  # four key-value heads (the same, -tp 8 -dcp 2)
        ("llama-3.1-8b", 8, 1, 8),  # nothing to split beyond the heads
    ],
)
def test_a_cache_is_split_as_documented(name, tp, dcp, ways) -> None:
    model = model_of(name)
    whole = sequence_bytes(model, layouts(), 100_000.0)
    assert sequence_bytes(model, layouts(tp=tp, dcp=dcp), 100_000.0) == pytest.approx(whole / ways, rel=1e-12)


def test_prompts_share_work_but_not_weights_or_cache(ideal) -> None:
    model = model_of("llama-3.1-8b")
    one, four = layouts(tp=2), layouts(tp=2, cp=4)
    assert weight_bytes(model, four, 0.0) == weight_bytes(model, one, 0.0)
    assert sequence_bytes(model, four, 1e5) == sequence_bytes(model, one, 1e5)
    room = {"draft_depth": 0.0, "mean_resident_tokens": 1e5, "longest_tokens": 1e5}
    least = memory_use(model, ideal, four, chunk_tokens=16384.0, **room)
    assert least.working == memory_use(model, ideal, one, chunk_tokens=4096.0, **room).working
    alone = a_step(model, ideal, one, tokens=4096.0, prefill_context=5e4)
    split = a_step(model, ideal, four, tokens=16384.0, prefill_context=5e4)
    for part in ("dense", "attention", "overhead"):
        assert getattr(split, part) == pytest.approx(getattr(alone, part), rel=1e-12)
    assert split.collectives > alone.collectives


def test_experts_are_spread_over_ranks_that_share_a_prompt() -> None:
    model = model_of("deepseek-r1")
    spread = weight_bytes(model, layouts(tp=2, cp=4, ep=8), 0.0)
    ranks = weight_bytes(model, layouts(tp=2, dp=4, ep=8), 0.0)
    assert spread == ranks < weight_bytes(model, layouts(tp=2), 0.0)


# --- what it exchanges ---


def test_keys_and_values_of_a_prompt_are_gathered_once_a_layer(ideal) -> None:
    """32 layers, 8 key-value heads split over tp = 2, caches of 8 bits: 2 · 4 · 128 B a token and layer."""
    model = model_of("llama-3.1-8b")
    tokens, layers = 10_000.0, 32
    inside = layouts(tp=2, cp=4)
    exchanged = a_step(model, ideal, inside, tokens=tokens).collectives - _others(model, ideal, inside, tokens)
    each = 2 * 4 * 128 * tokens * 3 / 4 / 4e11 + 1e-5 * (1 + 0.2 * log2(4 / 2))
    assert exchanged == pytest.approx(layers * each, rel=1e-9)
    outside = layouts(tp=8, cp=4)  # 32 accelerators: more than a domain of eight
    exchanged = a_step(model, ideal, outside, tokens=tokens).collectives - _others(model, ideal, outside, tokens)
    assert exchanged == pytest.approx(layers * (2 * 1 * 128 * tokens * 3 / 4 / 5e10 + 3e-5), rel=1e-9)


def _others(model, machine, where, tokens):
    """All-reduces of the tokens of one context-parallel rank; there is nothing else in a dense model on one stage."""
    rank = a_step(model, machine, replace(where, cp=1.0), tokens=tokens / where.cp)
    return rank.collectives * (1.0 + machine.pipeline_bubble * 0.0)


def test_queries_sums_and_outputs_are_exchanged_while_decoding(ideal) -> None:
    """61 layers of 128 heads: queries of 576 and outputs of 512 dimensions in 16 bits, sums in 32; three a layer."""
    model = model_of("deepseek-r1")
    sequences, dcp, tp = 32.0, 4, 8
    plain = a_step(model, ideal, layouts(tp=tp), sequences=sequences, context=1e5)
    split = a_step(model, ideal, layouts(tp=tp, dcp=dcp), sequences=sequences, context=1e5)
    moved = sequences * 128 * dcp / tp * ((576 + 512) * 2 + 4 * dcp)
    each = 3 * 1e-5 * (1 + 0.2 * log2(dcp / 2)) + moved * 3 / 4 / 4e11
    assert split.collectives - plain.collectives == pytest.approx(61 * each, rel=1e-9)
    assert split.attention < plain.attention
    longer = a_step(model, ideal, layouts(tp=tp, dcp=dcp), sequences=sequences, context=1e6)
    assert longer.collectives == split.collectives  # whatever the context


def test_a_chunk_gathers_what_others_hold_of_its_prompt(ideal) -> None:
    model = model_of("deepseek-r1")
    at = {"tokens": 2048.0, "prefill_context": 5e4}
    more = (
        a_step(model, ideal, layouts(tp=8, dcp=8), **at).collectives
        - a_step(model, ideal, layouts(tp=8), **at).collectives
    )
    assert more == pytest.approx(61 * (576 * 5e4 * 7 / 8 / 4e11 + 1e-5 * (1 + 0.2 * 2)), rel=1e-9)


def test_nothing_is_gathered_by_one(ideal) -> None:
    assert all_gather_s(ideal, 1.0, reach=1.0)(1e9) == 0.0
    assert all_gather_s(ideal, 2.0, reach=2.0)(8e9) == pytest.approx(1e-5 + 4e9 / 4e11)


# --- pipelines ---


@pytest.mark.parametrize(
    ("chunks", "stages", "share"), [(1, 8, 1.0), (21, 8, 28 / 168), (32, 4, 35 / 128), (0.5, 4, 1)]
)
def test_chunks_fill_a_pipeline(ideal, chunks, stages, share) -> None:
    filled = replace(ideal, chunked_pipeline=1.0)
    assert pipelined(filled, layouts(pp=stages), float(chunks)) == pytest.approx(share, rel=1e-12)
    assert pipelined(ideal, layouts(pp=stages), float(chunks)) == 1.0


def test_a_full_pool_takes_no_more_prompts_for_it(ideal) -> None:
    """What overlaps in a lone prompt overlaps with other prompts in a full pool: the rate stays."""
    model, size = model_of("llama-3.1-8b"), lengths(1e5, 100.0, 0.0, input_cv=0.0, output_cv=0.0)
    where = layouts(tp=2, pp=4)
    one = prefill_times(model, ideal, where, size, 8192.0)
    filled = prefill_times(model, replace(ideal, chunked_pipeline=1.0), where, size, 8192.0)
    assert filled.requests_per_s == one.requests_per_s
    m = 1e5 / 8192
    assert filled.single_s == pytest.approx(one.single_s * (m + 3) / (4 * m), rel=1e-12)


# --- what always holds ---

DEGREE = st.sampled_from([1, 2, 4, 8])


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(MODELS),
    tp=DEGREE,
    pp=DEGREE,
    sequences=st.sampled_from([0.0, 1.0, 40.0]),
    tokens=st.sampled_from([0.0, 1.0, 8192.0]),
    context=st.floats(0, 1e6),
)
def test_degrees_of_one_change_nothing_to_the_last_digit(ideal, name, tp, pp, sequences, tokens, context) -> None:
    model = model_of(name)
    at = {"sequences": sequences, "tokens": tokens, "context": context, "prefill_context": context / 2}
    four = Layouts(tp=float(tp), pp=float(pp), ep=1.0, dp=1.0)
    ones = Layouts(tp=float(tp), pp=float(pp), ep=1.0, dp=1.0, cp=np.array([1.0]), dcp=np.array([1.0]))
    plain, split = (a_step(model, ideal, where, **at) for where in (four, ones))
    for part in (f.name for f in fields(StepTime)):
        np.testing.assert_array_equal(np.squeeze(getattr(split, part)), getattr(plain, part))
    assert np.squeeze(sequence_bytes(model, ones, context)) == sequence_bytes(model, four, context)
    assert np.squeeze(weight_bytes(model, ones, 0.0)) == weight_bytes(model, four, 0.0)


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(MODELS),
    tp=DEGREE,
    cp=DEGREE,
    dcp=DEGREE,
    faster=st.floats(1.0, 4.0),
    link=st.sampled_from(["scale_up_bytes_per_s", "scale_out_bytes_per_s"]),
    context=st.floats(1e3, 1e6),
)
def test_faster_links_are_never_slower(ideal, name, tp, cp, dcp, faster, link, context) -> None:
    model = model_of(name)
    where = layouts(tp=tp, cp=cp, dcp=min(dcp, tp), ep=cp if model.experts else 1)
    at = {"sequences": 8.0, "tokens": 8192.0, "context": context, "prefill_context": context / 2}
    slow = a_step(model, ideal, where, **at)
    fast = a_step(model, replace(ideal, **{link: getattr(ideal, link) * faster}), where, **at)
    assert fast.total <= slow.total * (1 + 1e-12)


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(MODELS), tp=DEGREE, tokens=st.floats(1.0, 1e6), state=st.sampled_from([1, 2, 4, 8]))
def test_more_ways_never_take_more_memory(name, tp, tokens, state) -> None:
    model = model_of(name)
    held = [float(sequence_bytes(model, layouts(tp=tp, dcp=dcp), tokens)) for dcp in (1, 2, 4, 8) if dcp <= tp]
    assert held == sorted(held, reverse=True)
    assert held[-1] >= float(sequence_bytes(model, layouts(), tokens)) / tp * (1 - 1e-12)


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(MODELS),
    pp=DEGREE,
    tp=DEGREE,
    prompt=st.floats(1.0, 1e6),
    chunk=st.sampled_from([2048.0, 8192.0]),
)
def test_filling_a_pipeline_is_never_slower_and_never_beats_its_stages(ideal, name, pp, tp, prompt, chunk) -> None:
    model, size = model_of(name), lengths(prompt, 100.0, 0.0, input_cv=0.0, output_cv=0.0)
    where, filled = layouts(tp=tp, pp=pp), replace(ideal, chunked_pipeline=1.0)
    slow, fast = (float(prefill_times(model, m, where, size, chunk).single_s) for m in (ideal, filled))
    assert slow / pp * (1 - 1e-12) <= fast <= slow * (1 + 1e-12)
    more = {"running": np.array([4.0 * pp]), "depth": 0.0, "accepted": 1.0, "chunk_tokens": chunk}
    before, after = (steady_state(model, m, where, size, **more) for m in (ideal, filled))
    assert after.requests_per_s == before.requests_per_s
    assert after.prefill_s <= before.prefill_s * (1 + 1e-12)


def test_stacked_layouts_leave_out_what_nobody_has() -> None:
    one, two = np.array([1.0, 1.0]), np.array([1.0, 2.0])
    plain = stacked_layouts({"tp": two, "pp": one, "ep": one, "dp": one, "cp": one, "dcp": one})
    assert (plain.cp, plain.dcp) == (1.0, 1.0)
    mixed = stacked_layouts({"tp": two, "pp": one, "ep": one, "dp": one, "cp": one, "dcp": two})
    assert mixed.cp == 1.0
    np.testing.assert_array_equal(mixed.dcp, two)
    assert mixed.splits_cache and not mixed.splits_prompts
