"""Two-batch overlap and copies of experts, as people ask for them: estimates, plans, checks, audits, explanations."""

from __future__ import annotations

from typing import Any

import pytest

import tokopt
from tokopt.catalog import Catalog
from tokopt.domain.deployments import Layout
from tokopt.domain.plans import Plan
from tokopt.errors import InputError

WIDE: dict[str, Any] = {
    "model": "deepseek-r1",
    "gpu": "h100_sxm",
    "framework": "sglang",
    "precision": "fp8",
    "ep": 32,
    "dp": 32,
    "isl": 2000,
    "osl": 1000,
    "concurrency": 4096,
}
SAID = ("redundant_experts", "two_batch_overlap")
ASKED: dict[str, Any] = {"power": "1MW", "sla": "50ms", "gpus": "h100_sxm", "frameworks": "vllm"}


@pytest.fixture(scope="module")
def skewed(catalog: Catalog) -> Plan:
    return tokopt.plan(catalog=catalog, expert_traffic="skewed", **ASKED)


def layouts(plan: Plan) -> list[Layout]:
    pools = [pool for item in plan.fleet for pool in (item.prefill, item.decode) if pool is not None]
    return [pool.layout for pool in pools] + [i.deployment.layout for i in plan.fleet if i.deployment.layout]


def test_estimates_take_both(catalog: Catalog) -> None:
    plain, halved, uneven, copied = (
        tokopt.estimate(catalog=catalog, **WIDE, **more)
        for more in (
            {},
            {"two_batch_overlap": True},
            {"expert_traffic": "skewed"},
            {"expert_traffic": "skewed", "redundant_experts": 32},
        )
    )
    tokens = [e.output_tokens_per_s_per_gpu or 0.0 for e in (plain, halved, uneven, copied)]
    assert tokens[1] > 1.1 * tokens[0] and tokens[2] < 0.6 * tokens[0]
    assert tokens[3] == pytest.approx(tokens[0], rel=0.02)
    assert copied.memory_gib.weights > plain.memory_gib.weights
    assert copied.deployment.layout is not None and copied.deployment.layout.redundant_experts == 32
    assert "2.56 times" in copied.assumptions[-1] and "asked for alike" in plain.assumptions[-1]


def test_a_switch_that_nothing_uses_changes_no_digit(catalog: Catalog) -> None:
    """Benchmark traffic and no copies are today's figures; halves below the threshold are no halves."""
    small = {**WIDE, "concurrency": 64, "isl": 16}
    plain = tokopt.estimate(catalog=catalog, **small)
    named = tokopt.estimate(catalog=catalog, **small, expert_traffic="benchmark", redundant_experts=0)
    assert named == plain


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"redundant_experts": 30}, "--redundant-experts: 30 leave slots of 32 accelerators uneven; multiples of 32"),
        ({"redundant_experts": 30, "ep": 72, "dp": 72}, "slots of 72 accelerators uneven; 32, 104, 176"),
        ({"redundant_experts": 8, "ep": 1, "dp": 1, "tp": 8}, "no layout spreads experts"),
        ({"two_batch_overlap": True, "dp": 1, "tp": 8, "ep": 8}, "no layout exchanges tokens"),
        ({"two_batch_overlap": True, "framework": "tensorrt-llm"}, "tensorrt-llm is not documented to do that"),
        ({"expert_traffic": "tidal"}, "--expert-traffic: 'tidal' is not one of benchmark, skewed"),
        ({"expert_traffic": "skewd"}, r"'skewd' is not one of benchmark, skewed; did you mean skewed\?"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(catalog: Catalog, more: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        tokopt.estimate(catalog=catalog, **{**WIDE, **more})


def test_the_operator_database_knows_no_traffic(catalog: Catalog) -> None:
    pytest.importorskip("aiconfigurator_core")
    with pytest.raises(InputError, match="not in the database"):
        tokopt.estimate(catalog=catalog, **{**WIDE, "expert_traffic": "skewed", "perf": "silicon"})


def test_plans_choose_copies_and_halves_where_they_pay(catalog: Catalog, skewed: Plan) -> None:
    assert skewed.request.expert_traffic == "skewed"
    assert any(layout.redundant_experts for layout in layouts(skewed))
    assert any(layout.two_batch_overlap for layout in layouts(skewed))
    item = skewed.fleet[0]
    assert item.features["redundant_experts"] == max(layout.redundant_experts for layout in layouts(skewed))
    assert "prefill" in str(item.features["two_batch_overlap"])
    assert any("2.56 times" in said for said in skewed.assumptions)
    assert tokopt.check(skewed, catalog=catalog) == []
    free = tokopt.plan(catalog=catalog, **ASKED)
    assert not any(layout.redundant_experts for layout in layouts(free))
    without = tokopt.plan(catalog=catalog, expert_traffic="skewed", disable="expert_redundancy", **ASKED)
    costs = [p.usd_per_million_output_tokens or 0.0 for p in (free, skewed, without)]
    assert costs[0] <= costs[1] < costs[2]


def changed(plan: Plan, **update: Any) -> Plan:
    """The plan with another prefill layout, in the deployment and in everything that repeats it."""
    item = plan.fleet[0]
    assert item.prefill is not None
    layout = item.prefill.layout.model_copy(update=update)
    pool = item.prefill.model_copy(update={"layout": layout})
    deployment = item.deployment.model_copy(update={"prefill": pool})
    said = {
        name: value for name, value in item.features.items() if name not in ("redundant_experts", "two_batch_overlap")
    }
    update = {"prefill": pool, "deployment": deployment, "features": said}
    return plan.model_copy(update={"fleet": (item.model_copy(update=update),)})


def test_a_plan_that_says_otherwise_is_caught(catalog: Catalog, skewed: Plan) -> None:
    uneven = tokopt.check(changed(skewed, redundant_experts=3), catalog=catalog)
    assert any("redundant_experts is 3: slots" in fault for fault in uneven)
    for update in ({"redundant_experts": 0}, {"two_batch_overlap": False}):
        faults = tokopt.check(changed(skewed, **update), catalog=catalog)
        assert any("ttft_ms" in fault or "capacity_requests_per_s" in fault for fault in faults), (update, faults)
    layout = {"two_batch_overlap": True, "pp": 2}
    assert any("pp of 1" in fault for fault in tokopt.check(changed(skewed, **layout), catalog=catalog))
    alike = skewed.model_copy(update={"request": skewed.request.model_copy(update={"expert_traffic": "benchmark"})})
    assert tokopt.check(alike, catalog=catalog)


def test_explanations_say_what_they_are_worth(catalog: Catalog, skewed: Plan) -> None:
    found = tokopt.explain(skewed, catalog=catalog)
    titles = " ".join(title for factor in found.factors for title in (factor.title, *factor.parts))
    assert "redundant experts" in titles and "two-batch overlap" in titles


def test_audits_say_what_is_hidden_and_what_copies_are_worth(catalog: Catalog) -> None:
    (platform,) = tokopt.audit(accelerators="h200_sxm", frameworks="vllm", catalog=catalog).platforms
    worth = {answer.feature: answer.gains for answer in platform.features}
    assert worth["expert_redundancy"][0].condition == "with skewed expert traffic"
    assert (worth["expert_redundancy"][0].worth or 0.0) > 0.0
    assert (worth["two_batch_overlap"][0].worth or 0.0) >= 0.0
    assert platform.exchange is not None and platform.exchange.across is not None
    across = platform.exchange.across
    assert across.layout.two_batch_overlap and "two-batch overlap hides" in across.answer
    for point in across.points:
        assert point.exchange_ms <= point.step_ms
        assert point.hidden_ms == 0.0 or point.hidden_ms <= point.step_ms
