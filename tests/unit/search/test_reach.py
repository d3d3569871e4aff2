"""The longest prompt that fits, against one setting at a time."""

from dataclasses import replace

import pytest

import tokopt
from tokopt.api.space import search_space
from tokopt.domain.workloads import Sla, Workload
from tokopt.perf.memory import serving_memory
from tokopt.search import longest_input
from tokopt.search.setups import setups
from tokopt.search.space import families_in

LONG = Workload(name="long", input_tokens=1000, output_tokens=500)


def space_of(catalog, model, context=None, **changes):
    llm = catalog.llm(model)
    if context is not None:
        llm = replace(llm, max_context_tokens=context)
    return search_space(
        catalog,
        llm=llm,
        workload=LONG,
        sla=Sla(tpot_ms=50),
        frameworks=("vllm",),
        precisions=("bf16",),
        kv_precisions=("bf16",),
        modes=(),
        **changes,
    )


def fits(family, space, tokens):
    """Whether any set-up of a family holds one request of so many tokens, each looked at by itself."""
    chosen = setups(family, space.widest, role="agg")
    use = serving_memory(
        family.model,
        family.machine,
        chosen.flat_layouts,
        role="agg",
        input_tokens=float(tokens),
        output_tokens=500.0,
        output_cv=0.0,
        chunk_tokens=chosen.chunk_tokens,
        draft_depth=chosen.depth,
    )
    return bool((use.sequences >= 1).any())


@pytest.mark.parametrize(("model", "gpu"), [("qwen3-8b", "l4"), ("llama-3.1-8b", "a10g"), ("qwen3-32b", "l40s")])
def test_one_more_token_does_not_fit(catalog, model, gpu) -> None:
    space = replace(space_of(catalog, model, context=10_000_000), widest=2)
    accelerator = catalog.accelerator(gpu)
    found = longest_input(accelerator, space)
    every = list(families_in(space, accelerator))
    if found is None:
        assert not any(fits(family, space, 1) for family in every)
        return
    assert not found.by_model
    assert any(fits(family, space, found.tokens) for family in every)
    assert not any(fits(family, space, found.tokens + 1) for family in every)


def test_the_model_ends_it_where_memory_does_not(catalog) -> None:
    found = longest_input(catalog.accelerator("h200_sxm"), space_of(catalog, "qwen3-8b", context=4000))
    assert found is not None
    assert (found.tokens, found.by_model) == (3500, True)


def test_more_memory_never_shortens_it(catalog) -> None:
    reached = 0
    for gigabytes in (20, 24, 40, 80, 140):
        accelerator = replace(catalog.accelerator("h100_sxm"), memory_bytes=gigabytes * 1e9)
        found = longest_input(accelerator, replace(space_of(catalog, "qwen3-8b", context=10_000_000), widest=1))
        tokens = 0 if found is None else found.tokens
        assert tokens >= reached
        reached = tokens
    assert reached > 0


def test_nothing_where_the_model_does_not_fit(catalog) -> None:
    assert longest_input(catalog.accelerator("l4"), replace(space_of(catalog, "llama-3.1-70b"), widest=1)) is None


def test_a_frontier_says_how_far_each_accelerator_goes(catalog) -> None:
    found = tokopt.frontier(model="qwen3-8b", gpus="h100_sxm,l4", workload="chat", catalog=catalog)
    assert [each.accelerator for each in found.reach] == ["h100_sxm", "l4"]
    for each in found.reach:
        points = [p.tokens_per_s_per_user for p in found.points if p.accelerator == each.accelerator]
        assert each.fastest_tokens_per_s_per_user == max(points)
        assert each.longest_input_tokens > 0
        assert each.longest_input_ttft_ms > 0
    fast, slow = found.reach
    assert fast.longest_input_ttft_ms < slow.longest_input_ttft_ms
