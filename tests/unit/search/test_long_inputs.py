"""Context parallelism in the space: where it is tried, where it is not, and that it never shortens what fits."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokopt.api.resolved import check_layout
from tokopt.api.space import search_space
from tokopt.catalog import load_catalog
from tokopt.domain.accelerators import FeatureLimit
from tokopt.domain.deployments import ServingMode
from tokopt.domain.features import Feature
from tokopt.domain.llms import AttentionKind
from tokopt.domain.workloads import Sla, Workload
from tokopt.search import find_candidates, longest_input
from tokopt.search.screening import decode_steps
from tokopt.search.setups import layout_of, setups
from tokopt.search.space import LONG_INPUT_TOKENS, families_in

CATALOG = load_catalog()
CONTEXT = (Feature.PREFILL_CONTEXT_PARALLEL, Feature.DECODE_CONTEXT_PARALLEL)


def space_of(model, *, tokens=130_000, framework="sglang", disabled=(), ttft_ms=60_000.0, modes=()):
    llm = CATALOG.llm(model)
    return search_space(
        CATALOG,
        llm=llm,
        workload=Workload(name="long", input_tokens=float(tokens), output_tokens=1000.0),
        sla=Sla(tpot_ms=50, ttft_ms=ttft_ms),
        frameworks=(framework,),
        precisions=(llm.native_precision,),
        kv_precisions=("fp8",),
        modes=modes,
        disabled=disabled,
    )


def degrees(space, gpu, role):
    found = set()
    for family in families_in(space, CATALOG.accelerator(gpu)):
        chosen = setups(family, space.widest, role=role)
        found |= {(layout_of(chosen, row).cp, layout_of(chosen, row).dcp) for row in range(len(chosen))}
    return found


@pytest.mark.parametrize("role", ["agg", "prefill", "decode"])
def test_short_inputs_are_searched_as_ever(role) -> None:
    assert degrees(space_of("deepseek-r1", tokens=LONG_INPUT_TOKENS - 1), "h200_sxm", role) == {(1, 1)}
    long = degrees(space_of("deepseek-r1", tokens=LONG_INPUT_TOKENS), "h200_sxm", role)
    assert any(cp > 1 for cp, _ in long) == (role == "prefill")
    assert any(dcp > 1 for _, dcp in long) == (role != "prefill")


@pytest.mark.parametrize(
    ("model", "framework", "gpu", "prompts", "caches", "mixed"),
    [
        ("deepseek-r1", "sglang", "h200_sxm", True, True, True),
        ("deepseek-r1", "sglang", "b200_sxm", False, True, True),  # FlashAttention 3 is of Hopper
        ("deepseek-v3.2", "sglang", "b200_sxm", True, False, False),
        ("qwen3-235b-a22b-2507", "sglang", "h200_sxm", True, False, False),
        ("llama-3.1-70b", "sglang", "h200_sxm", False, False, False),  # dense
        ("deepseek-r1", "vllm", "h200_sxm", False, True, True),
        ("qwen3-235b-a22b-2507", "vllm", "h200_sxm", False, True, True),
        ("deepseek-v3.2", "vllm", "h200_sxm", False, False, False),
        ("llama-4-maverick", "vllm", "h200_sxm", False, False, False),  # windows
        ("deepseek-r1", "tensorrt-llm", "b200_sxm", False, True, False),  # generation servers
        ("deepseek-r1", "tensorrt-llm", "h200_sxm", False, False, False),  # Blackwell
        ("qwen3-235b-a22b-2507", "tensorrt-llm", "b200_sxm", False, False, False),
    ],
)
def test_only_what_is_documented_is_tried(model, framework, gpu, prompts, caches, mixed) -> None:
    family = next(families_in(space_of(model, framework=framework), CATALOG.accelerator(gpu)))
    assert (family.context.prompts, family.context.caches, family.context.mixed_caches) == (prompts, caches, mixed)


@pytest.mark.parametrize("feature", CONTEXT)
def test_a_request_can_do_without(feature) -> None:
    space = space_of("deepseek-r1", disabled=(feature,))
    found = {pair for role in ("agg", "prefill", "decode") for pair in degrees(space, "h200_sxm", role)}
    assert (max(cp for cp, _ in found) == 1) == (feature is Feature.PREFILL_CONTEXT_PARALLEL)
    assert (max(dcp for _, dcp in found) == 1) == (feature is Feature.DECODE_CONTEXT_PARALLEL)


@pytest.mark.parametrize(
    ("model", "framework", "gpu"),
    [
        ("deepseek-r1", "sglang", "h200_sxm"),
        ("deepseek-r1", "tensorrt-llm", "gb200_nvl72"),
        ("qwen3-235b-a22b-2507", "vllm", "gb200_nvl72"),
        ("qwen3-30b-a3b-2507", "sglang", "h100_sxm"),
    ],
)
def test_layouts_are_legal_unique_and_within_reach(resolved, model, framework, gpu) -> None:
    space = space_of(model, framework=framework)
    for family in families_in(space, CATALOG.accelerator(gpu)):
        of = resolved(model, gpu, family.precision.name, None, framework)
        for role in ("agg", "prefill", "decode"):
            chosen = setups(family, 72, role=role)
            rows = [(layout_of(chosen, k), chosen.depth[k], chosen.chunk_tokens[k]) for k in range(len(chosen))]
            assert len(set(rows)) == len(rows)
            for layout in {layout for layout, *_ in rows}:
                check_layout(of, layout, role, role=role)
                assert layout.accelerators <= 72


def test_numbers_of_set_ups_that_decode_alike_agree_between_roles() -> None:
    """TensorRT-LLM splits caches in decode pools only: what both roles have still shares its decode steps."""
    for framework, gpu in (("tensorrt-llm", "b200_sxm"), ("sglang", "h200_sxm")):
        space = space_of("deepseek-r1", framework=framework)
        family = next(families_in(space, CATALOG.accelerator(gpu)))
        decode, agg = (setups(family, 16, role=role) for role in ("decode", "agg"))
        by_number = {int(n): layout_of(decode, k) for k, n in enumerate(decode.decoding)}
        assert all(by_number[int(n)] == layout_of(agg, k) for k, n in enumerate(agg.decoding))
        steps = decode_steps(family, setups(family, 16, role="decode"), space.workload)
        assert steps is not None and set(steps.numbers.tolist()) <= by_number.keys()


def test_a_tight_first_token_needs_prompts_split() -> None:
    """DeepSeek-V3.2 with 128k in: within a few seconds the search splits prompts, and without that finds nothing."""
    gpu = CATALOG.accelerator("h200_sxm")
    tight = {"ttft_ms": 6000.0, "modes": (ServingMode.DISAGG,)}
    split = find_candidates(gpu, space_of("deepseek-v3.2", **tight), (72,)).candidates
    assert any(c.deployment.prefill is not None and c.deployment.prefill.layout.cp > 1 for c in split)
    whole = find_candidates(gpu, space_of("deepseek-v3.2", disabled=CONTEXT, **tight), (72,)).candidates
    most = max((c.capacity_requests_per_s for c in whole), default=0.0)
    assert max(c.capacity_requests_per_s for c in split) > most


@settings(max_examples=12, deadline=None)
@given(
    model=st.sampled_from(["deepseek-r1", "qwen3-235b-a22b-2507", "llama-3.1-405b"]),
    gpu=st.sampled_from(["h100_sxm", "h200_sxm", "b200_sxm", "gb200_nvl72"]),
    framework=st.sampled_from(["vllm", "sglang", "tensorrt-llm"]),
    mode=st.sampled_from([(), (ServingMode.AGG,)]),
    widest=st.sampled_from([8, 16, 32]),
)
def test_the_longest_input_never_falls_with_context_parallelism(model, gpu, framework, mode, widest) -> None:
    """Of models whose context never ends, so that memory decides."""
    found = []
    for disabled in (CONTEXT, (CONTEXT[0],), ()):
        space = space_of(model, framework=framework, disabled=disabled, modes=mode)
        llm = replace(space.llm, max_context_tokens=100_000_000)
        reached = longest_input(CATALOG.accelerator(gpu), replace(space, llm=llm, widest=widest))
        found.append((0, 0.0) if reached is None else (reached.tokens, -reached.prefill_s))
    assert found == sorted(found)


def test_the_longest_input_grows_where_a_cache_was_copied() -> None:
    """DeepSeek-R1 on eight H200 in one stage: eight ranks hold eight parts of a sequence, not eight copies."""
    stage = Feature.PIPELINE_PARALLEL
    space = space_of("deepseek-r1", framework="vllm", modes=(ServingMode.AGG,), disabled=(stage,))
    space = replace(space, llm=replace(space.llm, max_context_tokens=100_000_000), widest=8)
    split = longest_input(CATALOG.accelerator("h200_sxm"), space)
    whole = longest_input(CATALOG.accelerator("h200_sxm"), replace(space, disabled=frozenset({*CONTEXT, stage})))
    assert split is not None and whole is not None
    assert split.deployment.layout is not None and split.deployment.layout.dcp > 1
    assert split.tokens > 7 * whole.tokens


def test_limits_of_features() -> None:
    dense, mixture = CATALOG.llm("llama-3.1-8b"), CATALOG.llm("deepseek-r1")
    assert FeatureLimit().allows(dense, apart=False)
    assert not FeatureLimit(experts=True).allows(dense, apart=True)
    assert FeatureLimit(experts=True).allows(mixture, apart=False)
    assert not FeatureLimit(apart=True).allows(dense, apart=False)
    latent = FeatureLimit(attention=(AttentionKind.LATENT,))
    assert latent.allows(mixture, apart=False) and not latent.allows(dense, apart=False)
