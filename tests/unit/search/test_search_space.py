"""The space: every legal layout once, no illegal one, and what frameworks and checkpoints allow."""

from dataclasses import replace

import numpy as np
import pytest

from tokopt.api.resolved import check_layout
from tokopt.domain.deployments import Layout
from tokopt.domain.features import Feature
from tokopt.search.setups import BATCH_GRID, legal_layouts, powers_of_two, setups
from tokopt.search.space import families

PAIRS = [
    ("qwen3-8b", "h100_sxm"),
    ("qwen3-30b-a3b", "h100_sxm"),
    ("deepseek-r1", "gb300_nvl72"),
    ("deepseek-r1", "h200_sxm"),
    ("llama-3.1-70b", "mi300x"),
    ("gpt-oss-120b", "b200_sxm"),
    ("qwen2-7b", "l40s"),
]


def first_family(catalog, model: str, gpu: str):
    return next(
        families(
            catalog.accelerator(gpu),
            tuple(catalog.frameworks.values()),
            tuple(catalog.precisions.values()),
            {"bf16": 16.0, "fp8": 8.0},
            catalog.llm(model),
            catalog.calibration,
        )
    )


def all_families(catalog, model: str, gpu: str, **more):
    return list(
        families(
            catalog.accelerator(gpu),
            tuple(catalog.frameworks.values()),
            tuple(catalog.precisions.values()),
            {"bf16": 16.0, "fp8": 8.0},
            catalog.llm(model),
            catalog.calibration,
            **more,
        )
    )


def test_powers_of_two() -> None:
    assert powers_of_two(1) == [1]
    assert powers_of_two(8) == [1, 2, 4, 8]
    assert powers_of_two(72) == [1, 2, 4, 8, 16, 32, 64]


@pytest.mark.parametrize(("model", "gpu"), PAIRS)
@pytest.mark.parametrize("widest", [1, 8, 72])
def test_layouts_are_legal_and_unique(catalog, resolved, model: str, gpu: str, widest: int) -> None:
    family = first_family(catalog, model, gpu)
    found = legal_layouts(family, widest)
    assert found
    assert len(found) == len(set(found))
    of = resolved(model, gpu, family.precision.name, None, family.framework.name)
    for tp, pp, ep, dp in found:
        assert tp * pp * dp <= widest
        check_layout(of, Layout(tp=tp, pp=pp, ep=ep, dp=dp), "layout")
        assert dp == 1 or family.model.experts > 0
        assert ep in (1, tp * dp)


def test_dense_models_have_neither_experts_nor_ranks(catalog) -> None:
    found = legal_layouts(first_family(catalog, "qwen3-8b", "h100_sxm"), 8)
    assert {(ep, dp) for _, _, ep, dp in found} == {(1, 1)}
    assert {(tp, pp) for tp, pp, _, _ in found} == {(t, p) for t in (1, 2, 4, 8) for p in (1, 2, 4, 8) if t * p <= 8}


def test_heads_limit_tensor_parallelism(catalog) -> None:
    """qwen2-7b has 28 heads: 8 does not divide them."""
    assert {tp for tp, *_ in legal_layouts(first_family(catalog, "qwen2-7b", "l40s"), 8)} == {1, 2, 4}


def test_a_whole_rack_may_be_one_worker(catalog) -> None:
    found = legal_layouts(first_family(catalog, "deepseek-r1", "gb300_nvl72"), 72)
    assert (1, 1, 72, 72) in found
    assert max(tp * pp * dp for tp, pp, _, dp in found) == 72


def test_unknown_scale_out_keeps_workers_inside_the_domain(catalog) -> None:
    family = first_family(catalog, "deepseek-r1", "h200_sxm")
    lonely = replace(family, machine=replace(family.machine, scale_out_bytes_per_s=0.0))
    assert max(tp * pp * dp for tp, pp, _, dp in legal_layouts(family, 64)) == 64
    assert max(tp * pp * dp for tp, pp, _, dp in legal_layouts(lonely, 64)) == 8


@pytest.mark.parametrize("feature", ["expert_parallel", "attention_dp", "pipeline_parallel"])
def test_features_that_a_framework_lacks_are_not_used(catalog, feature: str) -> None:
    family = first_family(catalog, "deepseek-r1", "h200_sxm")
    bare = replace(family, features=family.features - {feature})
    for _, pp, ep, dp in legal_layouts(bare, 64):
        assert feature != "pipeline_parallel" or pp == 1
        assert feature != "attention_dp" or dp == 1
        assert feature != "expert_parallel" or (ep, dp) == (1, 1)


@pytest.mark.parametrize("role", ["agg", "prefill", "decode"])
def test_setups_are_the_product_of_their_choices(catalog, role: str) -> None:
    family = first_family(catalog, "deepseek-r1", "h200_sxm")
    chosen = setups(family, 16, role=role)
    depths = 1 if role == "prefill" else len(family.depths)
    chunks = {"agg": 3, "prefill": 3, "decode": 1}[role]
    assert len(chosen) == len(legal_layouts(family, 16)) * depths * chunks
    rows = list(zip(chosen.tp, chosen.pp, chosen.ep, chosen.dp, chosen.depth, chosen.chunk_tokens, strict=True))
    assert len(rows) == len(set(rows))
    expected = family.accepted[chosen.depth.astype(int)] if role != "prefill" else np.ones(len(chosen))
    assert chosen.accepted.tolist() == expected.tolist()
    picked = chosen.pick(chosen.tp == 8)
    assert set(picked.tp.tolist()) == {8.0}
    assert len(picked) < len(chosen)


def test_families_follow_the_catalog(catalog) -> None:
    for model, gpu in PAIRS:
        llm = catalog.llm(model)
        found = all_families(catalog, model, gpu)
        keys = [(f.framework.name, f.precision.name, f.kv_precision) for f in found]
        assert len(keys) == len(set(keys))
        for f in found:
            support = f.framework.support[gpu]
            assert f.precision.name in support.precisions and f.precision.name in llm.precisions
            assert f.kv_precision in support.kv_precisions
            assert f.precision.name == llm.native_precision or f.accelerator.vendor in f.precision.converted_for
            assert (max(f.depths) > 0) == ("mtp" in support.features and llm.mtp_layers > 0)


def test_chosen_precisions_widen_the_space(catalog) -> None:
    usual = {f.precision.name for f in all_families(catalog, "qwen3-8b", "h100_sxm")}
    chosen = {f.precision.name for f in all_families(catalog, "qwen3-8b", "h100_sxm", chosen_precisions=True)}
    assert usual < chosen
    assert "int4" in chosen - usual


@pytest.mark.parametrize(("role", "budgets"), [("agg", {20_000, 32_768}), ("prefill", {20_000}), ("decode", {1024})])
def test_prompts_that_are_not_cut_need_room_in_a_step(catalog, role: str, budgets: set[int]) -> None:
    family = replace(first_family(catalog, "deepseek-r1", "h200_sxm"), whole_tokens=20_000)
    assert Feature.CHUNKED_PREFILL in family.features
    assert min(setups(family, 16, role=role).chunk_tokens) <= 2048
    whole = replace(family, features=family.features - {Feature.CHUNKED_PREFILL})
    assert set(setups(whole, 16, role=role).chunk_tokens) == budgets


def test_batches_rise() -> None:
    assert (np.diff(BATCH_GRID) > 0).all()
    assert (BATCH_GRID[0], BATCH_GRID[-1]) == (1.0, 4096.0)
