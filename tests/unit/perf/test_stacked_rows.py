"""Rows of several models and machines at once: each is what it is alone."""

from __future__ import annotations

from dataclasses import fields, replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokopt.catalog import load_catalog
from tokopt.domain.calibration import Constants
from tokopt.perf.arithmetic import LlmArithmetic, llm_arithmetic
from tokopt.perf.constants import constant_columns, constants_for, stacked_constants, traits_of
from tokopt.perf.layouts import Layouts
from tokopt.perf.machine import Machine, Peaks, machine, peaks, sustained
from tokopt.perf.memory import memory_use
from tokopt.perf.rows import (
    Rows,
    predict_aggregated,
    predict_disaggregated,
    predict_static,
    widened,
    with_habits,
    worker_memory,
)
from tokopt.perf.serving import lengths, steady_state
from tokopt.perf.stacking import stack_models, stack_peaks

CATALOG = load_catalog()
VLLM = CATALOG.frameworks["vllm"]
# A mesh, a small domain, a rack; dense, experts, latent, sparse, window and recurrent attention.
PAIRS = [
    ("llama-3.1-8b", "l40s", "fp8"),
    ("llama-3.1-70b", "mi300x", "bf16"),
    ("qwen3-30b-a3b", "h100_sxm", "fp8"),
    ("deepseek-r1", "gb300_nvl72", "fp8"),
    ("deepseek-v3.2", "b200_sxm", "fp8"),
    ("gpt-oss-120b", "mi355x", "mxfp4"),
    ("qwen3.5-397b-a17b", "h200_sxm", "bf16"),
]


class Kind:
    """A model on a machine, alone."""

    def __init__(self, llm: str, gpu: str, precision: str) -> None:
        self.llm, self.gpu, self.precision = CATALOG.llms[llm], CATALOG.accelerators[gpu], CATALOG.precisions[precision]
        self.model: LlmArithmetic = llm_arithmetic(self.llm, self.precision, 16.0)
        self.peaks: Peaks = peaks(self.gpu, VLLM, self.precision)
        self.constants: Constants = constants_for(CATALOG.calibration, self.gpu, VLLM, self.precision, llm)
        self.machine: Machine = machine(self.gpu, VLLM, self.precision, self.constants)
        self.traits = traits_of(self.gpu, VLLM, self.precision, llm)


KINDS = [Kind(*pair) for pair in PAIRS]


def stacked(index: np.ndarray) -> tuple[LlmArithmetic, Machine, Constants]:
    columns = constant_columns(CATALOG.calibration, [KINDS[i].traits for i in index])
    constants = stacked_constants(columns, CATALOG.calibration.longest)
    rates = sustained(stack_peaks([kind.peaks for kind in KINDS], index), constants)
    return stack_models([kind.model for kind in KINDS], index), rates, constants


def some_rows(seed: int, count: int = 12) -> tuple[np.ndarray, Rows]:
    rng = np.random.default_rng(seed)
    index = rng.integers(len(KINDS), size=count)
    dense = np.array([KINDS[i].model.experts == 0 for i in index])
    widest = np.array([KINDS[i].gpu.scale_up_size for i in index])

    def layouts() -> Layouts:
        tp = np.minimum(rng.choice([1.0, 2.0, 4.0, 8.0], count), widest)
        dp = np.where(dense, 1.0, np.minimum(rng.choice([1.0, 2.0, 8.0], count), np.maximum(widest // tp, 1)))
        ep = np.where(dense | (rng.random(count) < 0.3), 1.0, tp * dp)
        return Layouts(tp=tp, pp=rng.choice([1.0, 1.0, 2.0], count), ep=ep, dp=dp)

    def numbers(*choices: float) -> np.ndarray:
        return rng.choice(np.array(choices), count)

    input_tokens, output_tokens = numbers(17, 128, 1024, 8192), numbers(1, 64, 1024)
    decode = layouts()
    return index, Rows(
        decode=decode,
        decode_workers=numbers(1, 2, 5),
        prefill=layouts(),
        prefill_workers=numbers(1, 3),
        size=lengths(input_tokens, output_tokens, numbers(0, 0.5), input_cv=0.0, output_cv=numbers(0, 0.3)),
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        concurrency=numbers(0, 1, 9, 64, 700),
        running_cap=numbers(8, 256, 1024),
        depth=numbers(0, 0, 1, 2),
        accepted=numbers(1, 1.7),
        may_speculate=numbers(0, 1),
        chunk_tokens=numbers(512, 8192),
    )


def alone(index: np.ndarray, rows: Rows, row: int) -> tuple[LlmArithmetic, Machine, Rows, Constants]:
    kind = KINDS[index[row]]
    return kind.model, kind.machine, rows.take(np.array([row])), kind.constants


def same(whole: object, one: object, row: int, rel: float) -> None:
    count = len(fields(whole))  # type: ignore[arg-type]
    assert count
    for field in fields(whole):  # type: ignore[arg-type]
        if field.name == "loop":  # the same numbers once more
            continue
        here = np.asarray(getattr(whole, field.name))
        got = here[row] if here.ndim else here
        assert float(got) == pytest.approx(float(np.squeeze(getattr(one, field.name))), rel=rel, nan_ok=True), field


def test_stacked_machines_are_machines() -> None:
    index = np.array([4, 0, 4, 6, 1, 2, 3, 5])
    _, rates, _ = stacked(index)
    for row, kind in enumerate(index):
        same(rates, KINDS[kind].machine, row, 1e-14)


def test_models_with_fewer_kinds_of_attention_are_padded() -> None:
    index = np.array([0, 6])
    model, _, _ = stacked(index)
    assert [len(KINDS[i].model.attention) for i in index] == [1, 2]
    assert len(model.attention) == 2
    assert float(model.attention[1].kv_bytes_per_token[0]) == 0.0
    for field in fields(LlmArithmetic):
        if field.name not in ("attention", "drafter"):
            column = getattr(model, field.name)
            assert column.tolist() == [float(getattr(KINDS[i].model, field.name)) for i in index]
    assert np.asarray(model.weight_bytes).tolist() == [KINDS[i].model.weight_bytes for i in index]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31))
def test_a_stacked_step_and_its_memory_are_those_of_each_row(seed: int) -> None:
    index, rows = some_rows(seed)
    model, rates, _ = stacked(index)
    held = worker_memory(model, rates, rows.decode, rows, role="agg", depth=rows.depth)
    running = np.maximum(rows.concurrency, 0.5)

    def state(model, rates, rows, running):
        return steady_state(
            model,
            rates,
            rows.decode,
            rows.size,
            running=running,
            depth=rows.depth,
            accepted=rows.accepted,
            chunk_tokens=rows.chunk_tokens,
        )

    whole = state(model, rates, rows, running)
    names = [f.name for f in fields(whole) if f.name != "decode"]
    for row in range(len(index)):
        one_model, one_machine, one, _ = alone(index, rows, row)
        same(held, worker_memory(one_model, one_machine, one.decode, one, role="agg", depth=one.depth), row, 1e-12)
        single = state(one_model, one_machine, one, running[[row]])
        for name in names:
            value = float(np.asarray(getattr(whole, name))[row])
            assert value == pytest.approx(float(np.squeeze(getattr(single, name))), rel=1e-12, abs=1e-18), name


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.booleans())
def test_stacked_predictions_are_those_of_each_row(seed: int, measured: bool) -> None:
    index, rows = some_rows(seed)
    model, rates, constants = stacked(index)
    habits = with_habits(rows, constants)
    closed = predict_aggregated(model, rates, habits, measured=measured)
    static = predict_static(model, rates, rows, measured=measured)
    two = predict_disaggregated(model, rates, rows, constants=constants, measured=measured)
    for row in range(len(index)):
        one_model, one_machine, one, own = alone(index, rows, row)
        # Little's law is solved to 1e-12; a time that is left of a difference keeps fewer digits.
        same(closed, predict_aggregated(one_model, one_machine, with_habits(one, own), measured=measured), row, 1e-8)
        same(static, predict_static(one_model, one_machine, one, measured=measured), row, 1e-12)
        single = predict_disaggregated(one_model, one_machine, one, constants=own, measured=measured)
        same(two, single, row, 1e-8)


def test_taking_rows() -> None:
    _, rows = some_rows(5)
    rows = replace(rows, size=replace(rows.size, input_cv=0.25))  # one number for all rows
    index = np.array([3, 0, 3])
    taken = rows.take(index)
    for field in fields(Rows):
        if field.name not in ("decode", "prefill", "size"):
            assert getattr(taken, field.name).tolist() == getattr(rows, field.name)[index].tolist()
    for name in ("tp", "pp", "ep", "dp"):
        assert getattr(taken.decode, name).tolist() == getattr(rows.decode, name)[index].tolist()
        assert getattr(taken.prefill, name).tolist() == getattr(rows.prefill, name)[index].tolist()
    assert taken.size.new.tolist() == rows.size.new[index].tolist()
    assert taken.size.input_cv.tolist() == [0.25] * 3
    assert taken.take(np.array([1])).input_tokens.tolist() == [rows.input_tokens[0]]
    assert rows.take(np.array([], dtype=int)).depth.size == 0


def rows_of(name: str, tp: float, pp: float = 1.0, prefill_tp: float = 8.0) -> tuple[LlmArithmetic, Rows]:
    model = llm_arithmetic(CATALOG.llms[name], CATALOG.precisions["bf16"], 16.0)
    rows = some_rows(1, 1)[1]
    one = np.ones(1)
    return model, replace(
        rows,
        decode=Layouts(tp=tp * one, pp=pp * one, ep=one, dp=one),
        prefill=Layouts(tp=prefill_tp * one, pp=one, ep=one, dp=one),
    )


@pytest.mark.parametrize(
    ("name", "tp", "pp", "expected"),
    [
        ("llama-3.1-8b", 1.0, 1.0, 1.0),  # 16 GB in 77.4
        ("llama-3.1-70b", 1.0, 1.0, 2.0),  # 141 GB: 71 each
        ("llama-3.1-70b", 1.0, 2.0, 1.0),  # halves of the layers
        ("llama-3.1-405b", 2.0, 1.0, 16.0),  # 812 GB: 101 on eight, 51 on sixteen
    ],
)
def test_layouts_that_cannot_hold_the_weights_are_widened(ideal, name, tp, pp, expected) -> None:
    model, rows = rows_of(name, tp, pp, prefill_tp=16.0)
    found, changed = widened(model, ideal, rows)
    assert found.decode.tp.tolist() == [expected]
    assert found.decode.pp.tolist() == [pp]
    assert found.prefill.tp.tolist() == [16.0]
    assert changed.tolist() == [expected != tp]
    assert rows.decode.tp.tolist() == [tp]  # what was passed in stays
    use = memory_use(
        model, ideal, found.decode, chunk_tokens=0.0, draft_depth=0.0, mean_resident_tokens=1.0, longest_tokens=1.0
    )
    assert float(use.weights[0]) <= 0.98 * 80e9 - 1e9


def test_either_pool_is_widened(ideal) -> None:
    model, rows = rows_of("llama-3.1-70b", 8.0, prefill_tp=1.0)
    found, changed = widened(model, ideal, rows)
    assert (found.decode.tp.tolist(), found.prefill.tp.tolist(), changed.tolist()) == ([8.0], [2.0], [True])


def test_habits_fill_gaps_only() -> None:
    _, rows = some_rows(3)
    constants = replace(KINDS[0].constants, unlabelled_speculation=0.35, unlabelled_decline=0.5)
    filled = with_habits(rows, constants)
    # By the square root of the concurrency over 64, and three tokens at the most.
    less = np.sqrt(np.maximum(rows.concurrency, 1.0) / 64)
    extra = np.where(rows.may_speculate > 0, np.minimum(0.35 / less, 3.0), 0.0)
    assert filled.accepted == pytest.approx(rows.accepted + extra)
    assert filled.depth == pytest.approx(rows.depth + extra / 0.7)


def test_workers_that_are_not_stated_follow_from_what_decode_asks_for() -> None:
    """A row without workers gets the habit's decode workers, and prefill workers in proportion to their demand."""
    kind = KINDS[0]
    _, rows = some_rows(9, 1)
    one = np.ones(1)
    rows = replace(
        rows,
        decode=Layouts(tp=one, pp=one, ep=one, dp=one),
        prefill=Layouts(tp=one, pp=one, ep=one, dp=one),
        input_tokens=8192 * one,
        output_tokens=64 * one,
        size=lengths(8192 * one, 64 * one, 0.0, input_cv=0.0, output_cv=0.0),
        concurrency=32 * one,
        running_cap=256 * one,
        depth=0 * one,
        accepted=one,
        decode_workers=np.nan * one,
        prefill_workers=np.nan * one,
    )

    def predicted(share: float):
        habits = replace(kind.constants, unstated_decode_workers=2.0, unstated_prefill_share=share)
        return predict_disaggregated(kind.model, kind.machine, rows, constants=habits)

    few, many = predicted(0.5), predicted(1.0)
    # Long prompts and short outputs: more than one prefill worker, which is the least.
    assert float(few.accelerators[0]) > 3.0
    assert 2.0 * (float(few.accelerators[0]) - 2.0) == pytest.approx(float(many.accelerators[0]) - 2.0, rel=1e-9)
    stated = replace(rows, decode_workers=2 * one, prefill_workers=many.accelerators - 2.0)
    same(predict_disaggregated(kind.model, kind.machine, stated), many, 0, 1e-9)


def test_engines_are_built_for_powers_of_two() -> None:
    """9 in flight a worker queue before an engine for 8; 12 do not; 8 fill it."""
    kind = KINDS[0]
    _, rows = some_rows(9, 1)
    one = np.ones(1)
    rows = replace(
        rows,
        decode=Layouts(tp=one, pp=one, ep=one, dp=one),
        prefill=Layouts(tp=one, pp=one, ep=one, dp=one),
        input_tokens=100 * one,
        output_tokens=1000 * one,
        size=lengths(100 * one, 1000 * one, 0.0, input_cv=0.0, output_cv=0.0),
        running_cap=256 * one,
        depth=0 * one,
        accepted=one,
        decode_workers=one,
        prefill_workers=one,
    )
    running = [
        float(
            predict_disaggregated(
                kind.model, kind.machine, replace(rows, concurrency=n * one), constants=kind.constants
            ).running[0]
        )
        for n in (8.0, 9.0, 10.0, 12.0)
    ]
    assert running[1] == pytest.approx(8.0, rel=1e-9) == running[2]
    assert running[0] < 8.0
    assert running[3] > 10.0
    assert all(a <= b + 1e-9 for a, b in pairwise(running))
