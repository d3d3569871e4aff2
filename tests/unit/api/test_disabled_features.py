"""Plans that do without a feature."""

from __future__ import annotations

from typing import Any

import pytest

import tokopt
from tokopt.catalog import Catalog
from tokopt.domain.deployments import Layout, ServingMode
from tokopt.domain.features import ON_BY_DEFAULT, SWITCHABLE, Feature
from tokopt.domain.plans import Plan
from tokopt.errors import InputError

DRAFTERS = (Feature.EAGLE3, Feature.DRAFT_MODEL, Feature.NGRAM)
ASKED: dict[str, Any] = {"power": "1MW", "sla": "50ms", "gpus": "h200_sxm"}


@pytest.fixture(scope="module")
def free(catalog: Catalog) -> Plan:
    return tokopt.plan(catalog=catalog, **ASKED)


def layouts(plan: Plan) -> list[Layout]:
    found = [pool.layout for item in plan.fleet for pool in (item.prefill, item.decode) if pool is not None]
    return found + [item.deployment.layout for item in plan.fleet if item.deployment.layout is not None]


@pytest.mark.parametrize("feature", SWITCHABLE)
def test_a_disabled_feature_is_not_used_and_never_lowers_the_cost(
    catalog: Catalog, free: Plan, feature: Feature
) -> None:
    plan = tokopt.plan(catalog=catalog, disable=feature, **ASKED)
    assert plan.request.disabled_features == (feature,)
    assert tokopt.check(plan, catalog=catalog) == []
    assert plan.usd_per_million_output_tokens is not None and free.usd_per_million_output_tokens is not None
    assert plan.usd_per_million_output_tokens >= free.usd_per_million_output_tokens * (1 - 1e-9)
    used = {
        Feature.MTP: any(item.deployment.speculation_depth for item in plan.fleet),
        **{feature: any(item.features.get("speculation") == feature for item in plan.fleet) for feature in DRAFTERS},
        Feature.DISAGG: any(item.mode is ServingMode.DISAGG for item in plan.fleet),
        Feature.EXPERT_PARALLEL: any(layout.ep > 1 for layout in layouts(plan)),
        Feature.ATTENTION_DP: any(layout.dp > 1 for layout in layouts(plan)),
        Feature.PIPELINE_PARALLEL: any(layout.pp > 1 for layout in layouts(plan)),
        Feature.PREFILL_CONTEXT_PARALLEL: any(layout.cp > 1 for layout in layouts(plan)),
        Feature.DECODE_CONTEXT_PARALLEL: any(layout.dcp > 1 for layout in layouts(plan)),
        Feature.TWO_BATCH_OVERLAP: any(layout.two_batch_overlap for layout in layouts(plan)),
        Feature.EXPERT_REDUNDANCY: any(layout.redundant_experts for layout in layouts(plan)),
        # Nothing repeats in these prompts: no caches are asked for.
        **dict.fromkeys(
            (Feature.PREFIX_CACHING, Feature.KV_ROUTING, Feature.KV_OFFLOAD),
            any(item.deployment.caching is not None for item in plan.fleet),
        ),
        **{
            feature: any(feature not in item.deployment.without or feature in item.features for item in plan.fleet)
            for feature in ON_BY_DEFAULT
        },
    }
    assert not used[feature]


def test_what_is_not_used_costs_nothing_to_disable(catalog: Catalog, free: Plan) -> None:
    unused = [Feature.PIPELINE_PARALLEL] if all(layout.pp == 1 for layout in layouts(free)) else []
    assert unused
    plan = tokopt.plan(catalog=catalog, disable=unused, **ASKED)
    assert plan.fleet == free.fleet


def test_the_checker_finds_a_feature_that_the_request_does_without(catalog: Catalog, free: Plan) -> None:
    assert any(item.deployment.speculation_depth for item in free.fleet)
    request = free.request.model_copy(update={"disabled_features": (Feature.MTP,)})
    faults = tokopt.check(free.model_copy(update={"request": request}), catalog=catalog)
    assert any("mtp is disabled" in fault for fault in faults)


def test_features_that_nobody_can_switch_off_are_refused(catalog: Catalog) -> None:
    with pytest.raises(
        InputError, match="--disable: 'head_padding' is not one of mtp, eagle3, draft_model, ngram, disagg"
    ):
        tokopt.plan(catalog=catalog, disable="mtp,head_padding", **ASKED)


@pytest.mark.parametrize(
    ("model", "workload", "feature"),
    [
        ("llama-3.1-8b", "chat", Feature.EAGLE3),
        ("qwen3-32b", "summarise", Feature.DRAFT_MODEL),
        ("llama-3.1-70b", "summarise", Feature.NGRAM),
    ],
)
def test_plans_choose_what_drafts_and_can_do_without(
    catalog: Catalog, model: str, workload: str, feature: Feature
) -> None:
    """A tight limit asks for speculation; the plan says by what, and the checker finds the same figures."""
    asked = {"model": model, "workload": workload, "gpus": "h200_sxm", "power": "1MW", "sla": "tpot=12ms,mean"}
    others = [other for other in DRAFTERS if other is not feature]
    plan = tokopt.plan(catalog=catalog, disable=others, **asked)
    drafting = [item for item in plan.fleet if item.deployment.speculator is not None]
    assert drafting
    for item in drafting:
        speculator = catalog.speculators[str(item.features["speculator"])]
        assert item.features["speculation"] == feature == speculator.method
        assert 1 <= int(item.features["speculation_depth"]) <= speculator.deepest
        assert 1.0 < float(item.features["tokens_per_step"]) < 1 + speculator.deepest
        assert any(line.startswith(f"{speculator.name}: acceptance") for line in plan.assumptions)
    assert tokopt.check(plan, catalog=catalog) == []
    without = tokopt.plan(catalog=catalog, disable=DRAFTERS, **asked)
    assert all(item.deployment.speculator is None for item in without.fleet)
    assert without.usd_per_million_output_tokens is not None and plan.usd_per_million_output_tokens is not None
    assert without.usd_per_million_output_tokens > plan.usd_per_million_output_tokens
    # Acceptance of what was never fitted widens the range.
    wide, narrow = (p.interval["usd_per_million_output_tokens"] for p in (plan, without))
    assert wide.high / wide.low > narrow.high / narrow.low


def test_a_frontier_does_without_too(catalog: Catalog) -> None:
    asked = {"gpus": "b200_sxm", "catalog": catalog}
    plain = tokopt.frontier(disable=SWITCHABLE, **asked)
    assert all(p.deployment.mode is ServingMode.AGG and not p.deployment.speculation_depth for p in plain.points)
    best = max(p.output_tokens_per_s_per_gpu for p in tokopt.frontier(**asked).points)
    assert max(p.output_tokens_per_s_per_gpu for p in plain.points) < best
