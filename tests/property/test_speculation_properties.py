"""Properties of speculation that hold whatever drafts, on whatever machine."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokopt.catalog import load_catalog
from tokopt.domain.speculators import Domain, Speculator
from tokopt.domain.workloads import Workload
from tokopt.perf.arithmetic import LlmArithmetic, llm_arithmetic
from tokopt.perf.constants import constants_for
from tokopt.perf.describe import steady_at
from tokopt.perf.layouts import Layouts
from tokopt.perf.machine import Machine, machine
from tokopt.perf.memory import memory_use
from tokopt.perf.replica import Worker
from tokopt.perf.speculation import acceptance_unsure, accepted_tokens, draft_chances
from tokopt.perf.step import step_time

CATALOG = load_catalog()
NAMES = sorted(CATALOG.speculators)
speculators = st.sampled_from(NAMES).map(lambda name: CATALOG.speculators[name])
domains = st.sampled_from([None, *Domain])
batches = st.sampled_from([1.0, 3.0, 16.0, 100.0, 700.0])
gpus = st.sampled_from(["h100_sxm", "l40s", "gb300_nvl72"])


@cache
def models(llm: str, speculator: str | None) -> LlmArithmetic:
    drafts = None if speculator is None else CATALOG.speculators[speculator]
    return llm_arithmetic(CATALOG.llm(llm), CATALOG.precisions["bf16"], 16.0, drafts)


@cache
def rates(gpu: str, llm: str) -> Machine:
    accelerator, framework = CATALOG.accelerators[gpu], CATALOG.frameworks["vllm"]
    precision = CATALOG.precisions["bf16"]
    return machine(
        accelerator, framework, precision, constants_for(CATALOG.calibration, accelerator, framework, precision, llm)
    )


def step(model: LlmArithmetic, where: Machine, *, sequences: float, depth: float, prompt: float, tp: float) -> float:
    return float(
        step_time(
            model,
            where,
            Layouts(tp=tp, pp=1.0, ep=1.0, dp=1.0),
            sequences=sequences,
            width=1.0 + depth,
            context=2000.0,
            prefill_tokens=prompt,
            prefill_context=500.0,
            draft_depth=depth,
        ).total
    )


@settings(deadline=None)
@given(speculators, gpus, batches, st.sampled_from([0.0, 512.0]), st.sampled_from([1.0, 4.0]))
def test_no_drafts_cost_nothing(speculator: Speculator, gpu: str, batch: float, prompt: float, tp: float) -> None:
    llm = (speculator.llms or ("llama-3.1-70b",))[0]
    ask = {"sequences": batch, "depth": 0.0, "prompt": prompt, "tp": tp}
    with_drafter = step(models(llm, speculator.name), rates(gpu, llm), **ask)
    assert with_drafter == step(models(llm, None), rates(gpu, llm), **ask)
    layouts = Layouts(tp=tp, pp=1.0, ep=1.0, dp=1.0)
    held = {"chunk_tokens": 512.0, "draft_depth": 0.0, "mean_resident_tokens": 900.0, "longest_tokens": 1500.0}
    one, other = (memory_use(models(llm, name), rates(gpu, llm), layouts, **held) for name in (speculator.name, None))
    assert (one.weights, one.per_sequence) == (other.weights, other.per_sequence)


@settings(deadline=None)
@given(speculators, domains)
def test_longer_drafts_never_yield_fewer_tokens(speculator: Speculator, domain: Domain | None) -> None:
    tokens = accepted_tokens(draft_chances(speculator, domain), np.arange(speculator.deepest + 1.0))
    assert tokens[0] == 1.0
    assert (np.diff(tokens) > 0.0).all()
    assert (tokens <= np.arange(speculator.deepest + 1.0) + 1.0).all()


@settings(deadline=None)
@given(speculators)
def test_without_a_domain_tokens_are_the_mean(speculator: Speculator) -> None:
    depths = np.arange(speculator.deepest + 1.0)
    each = [accepted_tokens(known.chances, depths) for known in speculator.acceptance.values()]
    np.testing.assert_allclose(
        accepted_tokens(draft_chances(speculator, None), depths), np.mean(each, axis=0), rtol=1e-12
    )


@settings(deadline=None)
@given(speculators, domains, st.integers(1, 7))
def test_what_is_unsure_is_a_share_and_no_domain_is_less_sure(
    speculator: Speculator, domain: Domain | None, depth: int
) -> None:
    share = acceptance_unsure(speculator, domain, depth)
    assert 0.0 < share < 1.0
    certain = replace(speculator, spread=1e-12)
    assert acceptance_unsure(certain, domain, depth) >= share


@settings(deadline=None)
@given(speculators, gpus, batches, st.integers(1, 7), st.sampled_from([1.0, 4.0]))
def test_longer_drafts_never_take_less_time_a_step(
    speculator: Speculator, gpu: str, batch: float, depth: int, tp: float
) -> None:
    llm = (speculator.llms or ("llama-3.1-70b",))[0]
    ask = {"sequences": batch, "prompt": 0.0, "tp": tp}
    model, where = models(llm, speculator.name), rates(gpu, llm)
    assert step(model, where, depth=float(depth), **ask) > step(model, where, depth=depth - 1.0, **ask)


@settings(deadline=None)
@given(speculators, gpus, batches, st.integers(1, 7), st.floats(0.05, 0.99))
def test_lower_acceptance_never_raises_throughput(
    speculator: Speculator, gpu: str, batch: float, depth: int, share: float
) -> None:
    llm = (speculator.llms or ("llama-3.1-70b",))[0]
    chances = draft_chances(speculator, None)
    fewer = tuple(chance * share for chance in chances)
    shape = Workload(name="any", input_tokens=700, output_tokens=300, input_cv=1.0, output_cv=0.5)

    def served(of: tuple[float, ...]) -> float:
        accepted = float(accepted_tokens(of, np.array([float(depth)]))[0])
        worker = Worker(tp=4, pp=1, ep=1, dp=1, depth=depth, accepted=accepted, chunk_tokens=2048)
        state = steady_at(models(llm, speculator.name), rates(gpu, llm), worker, shape, running=batch, prefill=True)
        return float(np.squeeze(state.requests_per_s))

    assert served(fewer) <= served(chances) * (1.0 + 1e-9)


def test_a_drafter_is_charged_for_what_it_is() -> None:
    """At batch 1: its weights d times, its launches d times, and a wider step; n-grams the wider step alone."""
    where = rates("h100_sxm", "qwen3-32b")
    plain = step(models("qwen3-32b", None), where, sequences=1.0, depth=0.0, prompt=0.0, tp=4.0)
    added = {
        name: step(models("qwen3-32b", name), where, sequences=1.0, depth=3.0, prompt=0.0, tp=4.0) - plain
        for name in ("ngram", "eagle3-qwen3-32b", "draft-qwen3-0.6b", "draft-qwen3-1.7b")
    }
    assert 0.0 < added["ngram"] < added["eagle3-qwen3-32b"] < added["draft-qwen3-0.6b"] < added["draft-qwen3-1.7b"]
    drafter = models("qwen3-32b", "draft-qwen3-1.7b").drafter
    assert drafter is not None
    least = 3.0 * (drafter.layers * where.layer_overhead_s + drafter.projection_bytes / where.weight_bytes_per_s / 4.0)
    assert added["draft-qwen3-1.7b"] - added["ngram"] > least * where.slowdown
    assert added["ngram"] < 0.05 * plain


def test_models_with_drafters_do_not_stack() -> None:
    from tokopt.perf.stacking import stack_models

    with pytest.raises(ValueError, match="do not stack"):
        stack_models([models("llama-3.1-8b", "eagle3-llama-3.1-8b")], np.array([0]))
