"""Explanations: shares that add up, sets of factors that are whole plans, and what-ifs that are the plans they say."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tokopt
from tokopt.api import explaining_worlds
from tokopt.api.explaining_factors import FACTORS, FactorRow, all_factors, merged
from tokopt.api.explaining_features import uses
from tokopt.api.explaining_what_if import scaled_chances
from tokopt.api.explaining_worlds import typical
from tokopt.catalog import Catalog
from tokopt.domain.explaining import PER_MW, USD, Explanation, Figures, Step, WhatIfCase
from tokopt.domain.features import SWITCHABLE, Feature
from tokopt.domain.offers import Market, Offer
from tokopt.domain.plans import Plan
from tokopt.errors import InputError
from tokopt.perf.speculation import accepted_tokens

DENSE: dict[str, Any] = {
    "model": "qwen3-8b",
    "workload": "chat",
    "sla": "30ms",
    "power": "200kW",
    "gpus": "h100_sxm,h200_sxm",
    "disable": "eagle3,draft_model,ngram",
}
EXPERTS: dict[str, Any] = {"power": "1MW", "sla": "50ms", "gpus": "h200_sxm"}


@pytest.fixture(scope="module")
def dense(catalog: Catalog) -> Plan:
    return tokopt.plan(catalog=catalog, **DENSE)


@pytest.fixture(scope="module")
def explained(catalog: Catalog, dense: Plan) -> Explanation:
    return tokopt.explain(dense, catalog=catalog)


@pytest.fixture(scope="module")
def experts(catalog: Catalog) -> Plan:
    return tokopt.plan(catalog=catalog, **EXPERTS)


@pytest.fixture(scope="module")
def features(catalog: Catalog, experts: Plan) -> Explanation:
    return tokopt.explain(
        experts, factors="speculation,disaggregation,expert_parallelism", baseline="h200_sxm", catalog=catalog
    )


def case(found: Explanation, name: str, change: str) -> WhatIfCase:
    (asked,) = (each for each in found.what_if if each.name == name)
    (answer,) = (c for c in asked.cases if c.change == change)
    return answer


def cost(found: Any) -> float:
    assert found is not None and found.usd_per_million_output_tokens is not None
    return float(found.usd_per_million_output_tokens)


# --- the waterfall ---


@pytest.mark.parametrize("which", ["explained", "features"])
@pytest.mark.parametrize("figure", ["usd_per_million_output_tokens", "tokens_per_s_per_mw"])
def test_shares_add_up_to_the_last_digit(which: str, figure: str, request: pytest.FixtureRequest) -> None:
    found: Explanation = request.getfixturevalue(which)
    start, end = getattr(found.baseline, figure), getattr(found.plan, figure)
    steps: list[Step] = [getattr(factor, figure) for factor in found.factors]
    assert len(steps) >= 2
    assert math.fsum((start, *(step.share for step in steps))) == end
    assert [step.before for step in steps] == [start, *(step.after for step in steps[:-1])]
    assert steps[-1].after == end
    assert math.prod(step.times for step in steps) == pytest.approx(end / start, rel=1e-12)
    for step in steps:
        assert step.after - step.before == pytest.approx(step.share, abs=1e-9 * abs(end))


def test_the_plan_is_stated_exactly_and_the_largest_saving_comes_first(explained: Explanation, dense: Plan) -> None:
    assert explained.plan.usd_per_million_output_tokens == dense.usd_per_million_output_tokens
    assert explained.plan.tokens_per_s_per_mw == dense.tokens_per_s_per_mw
    assert explained.plan.interval[USD] == dense.interval[USD]
    shares = [factor.usd_per_million_output_tokens.share for factor in explained.factors]
    assert shares == sorted(shares)
    assert explained.coalitions == 2 ** len(explained.factors)


def test_the_baseline_is_the_plan_of_the_request_without_the_factors(explained: Explanation, catalog: Catalog) -> None:
    assert explained.baseline.accelerator == "h100_sxm"
    assert [f.name for f in explained.factors if f.name not in ("accelerator", "interconnect")] == ["precision"]
    plain = tokopt.plan(catalog=catalog, **DENSE | {"gpus": "h100_sxm", "precisions": "bf16", "kv_precisions": "bf16"})
    assert cost(explained.baseline) == plain.usd_per_million_output_tokens
    assert explained.baseline.tokens_per_s_per_mw == plain.tokens_per_s_per_mw
    assert explained.baseline.interval == {name: plain.interval[name] for name in (USD, PER_MW)}


def test_a_factor_alone_and_left_out_are_whole_plans(explained: Explanation, dense: Plan, catalog: Catalog) -> None:
    (precision,) = (f for f in explained.factors if f.name == "precision")
    (own,) = {item.accelerator for item in dense.fleet}
    wide = {"precisions": "bf16", "kv_precisions": "bf16"}
    left_out = tokopt.plan(catalog=catalog, **DENSE | {"gpus": own} | wide)
    alone = tokopt.plan(catalog=catalog, **DENSE | {"gpus": "h100_sxm"})
    assert cost(precision.left_out) == left_out.usd_per_million_output_tokens
    assert cost(precision.added_alone) == alone.usd_per_million_output_tokens


def test_features_are_worth_what_all_orders_say(features: Explanation, experts: Plan, catalog: Catalog) -> None:
    """Every set of three features planned by itself, and the shares from the definition."""
    switches = {
        "speculation": ["mtp"],
        "disaggregation": ["disagg"],
        "expert_parallelism": ["expert_parallel", "attention_dp"],
    }
    names = [name for name in switches if name in {factor.name for factor in features.factors}]
    assert len(names) >= 2

    def value(there: set[str]) -> float:
        gone = [feature for name in names if name not in there for feature in switches[name]]
        return cost(tokopt.plan(catalog=catalog, disable=gone, **EXPERTS))

    assert value(set(names)) == experts.usd_per_million_output_tokens
    known: dict[frozenset[str], float] = {}
    for number in range(1 << len(names)):
        there = frozenset(name for k, name in enumerate(names) if number >> k & 1)
        known[there] = value(set(there))
    assert cost(features.baseline) == known[frozenset()]
    for factor in features.factors:
        total = 0.0
        for there, before in known.items():
            if factor.name not in there:
                weight = math.factorial(len(there)) * math.factorial(len(names) - len(there) - 1)
                total += weight / math.factorial(len(names)) * (known[there | {factor.name}] - before)
        assert factor.usd_per_million_output_tokens.share == pytest.approx(total, rel=1e-9)


def test_several_processes_find_the_same(
    explained: Explanation, dense: Plan, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explaining_worlds, "PARALLEL_FROM_S", 0.0)
    assert tokopt.explain(dense, catalog=catalog, jobs=2) == explained


def test_caches_and_electricity_are_factors_where_there_are_any(catalog: Catalog) -> None:
    plan = tokopt.plan(
        catalog=catalog,
        **DENSE | {"workload": "rag", "prices": "ownership-components-hyperscaler@virginia", "gpus": "h200_sxm"},
    )
    found = tokopt.explain(plan, catalog=catalog, factors="caching,power_price", baseline="h200_sxm")
    shares = {f.name: f.usd_per_million_output_tokens.share for f in found.factors}
    assert shares["caching"] < 0 < shares["power_price"]  # electricity is dearer there than the catalog's usual one
    by_power = {f.name: f.tokens_per_s_per_mw for f in found.factors}["power_price"]
    assert by_power is not None and by_power.share == pytest.approx(0.0, abs=1e-6)
    assert cost(case(found, "hit_rate", "+20 points")) < cost(plan) < cost(case(found, "hit_rate", "-20 points"))
    dearer, cheaper = (case(found, "power_price", f"{sign}20 %") for sign in "+-")
    assert cost(cheaper) < cost(plan) < cost(dearer)


def test_a_plan_as_plain_as_its_baseline_has_no_factors(catalog: Catalog) -> None:
    asked = DENSE | {"gpus": "h100_sxm", "precisions": "bf16", "kv_precisions": "bf16", "modes": "agg"}
    plan = tokopt.plan(catalog=catalog, **asked)
    found = tokopt.explain(plan, catalog=catalog)
    assert found.factors == () and found.coalitions == 1
    assert cost(found.baseline) == cost(found.plan) == plan.usd_per_million_output_tokens


def test_without_the_accelerator_among_the_factors_the_baseline_has_the_plans(catalog: Catalog, dense: Plan) -> None:
    found = tokopt.explain(dense, catalog=catalog, factors="precision")
    (own,) = {item.accelerator for item in dense.fleet}
    assert found.baseline.accelerator == own
    wide = tokopt.plan(catalog=catalog, **DENSE | {"gpus": own, "precisions": "bf16", "kv_precisions": "bf16"})
    assert cost(found.baseline) == wide.usd_per_million_output_tokens
    assert any("only the factors that were asked for" in line for line in found.assumptions)


# --- what if ---


def test_what_ifs_are_the_plans_that_they_say(explained: Explanation, dense: Plan, catalog: Catalog) -> None:
    (own,) = {item.accelerator for item in dense.fleet}
    sla = dense.request.sla
    limits = f"tpot={sla.tpot_ms * 0.8}ms,ttft={sla.ttft_ms * 0.8}ms"  # type: ignore[operator]
    for (name, change), asked in {
        (f"without:{own}", "forbidden"): {"exclude": own},
        ("sla", "-20 %"): {"sla": limits},
        ("power", "+20 %"): {"power": "240kW"},
        ("hit_rate", "+20 points"): {"prefix_share": 0.2},
    }.items():
        plan = tokopt.plan(catalog=catalog, **DENSE | asked)
        found = case(explained, name, change)
        assert cost(found) == pytest.approx(cost(plan), rel=1e-12), name
        assert found.usd_difference == cost(found) - cost(dense)
        assert found.interval[USD].low == pytest.approx(plan.interval[USD].low, rel=1e-12), name
    cheaper, dearer = (cost(case(explained, f"price:{own}", f"{sign}20 %")) for sign in "-+")
    assert cheaper == pytest.approx(0.8 * cost(dense), rel=1e-9) and cost(dense) <= dearer <= 1.2 * cost(dense)


def test_pools_on_different_accelerators_are_put_on_one(catalog: Catalog) -> None:
    asked = {"power": "10MW", "sla": "50ms", "model": "llama-3.1-70b", "gpus": "gb300_nvl72,b200_sxm"}
    mixed, same = (tokopt.plan(catalog=catalog, mixed_pools=mixed, **asked) for mixed in (True, False))
    assert any(item.deployment.mixed for item in mixed.fleet)
    found = tokopt.explain(mixed, factors="disaggregation", catalog=catalog)
    assert cost(case(found, "mixed_pools", "off")) == pytest.approx(cost(same), rel=1e-12)
    assert cost(same) > cost(mixed)


def test_every_feature_in_use_is_switched_off_once(features: Explanation, experts: Plan, catalog: Catalog) -> None:
    used = [feature for feature in SWITCHABLE if uses(experts, feature)]
    assert Feature.MTP in used
    for feature in used:
        plan = tokopt.plan(catalog=catalog, disable=feature, **EXPERTS)
        assert cost(case(features, feature.value, "off")) == plan.usd_per_million_output_tokens
    assert {each.name for each in features.what_if} & set(SWITCHABLE) == set(used)
    assert cost(case(features, "acceptance", "+0.3")) < cost(experts) < cost(case(features, "acceptance", "-0.3"))


def test_what_leaves_no_plan_comes_first_and_says_why(features: Explanation) -> None:
    first = features.what_if[0]
    assert first.name == "without:h200_sxm" and first.spread_usd is None
    assert first.cases[0].infeasible == "no offer in ownership-hyperscaler is left"
    spreads = [each.spread_usd for each in features.what_if[1:]]
    assert None not in spreads and spreads == sorted(spreads, reverse=True)  # type: ignore[type-var]


@settings(deadline=None)
@given(st.lists(st.floats(0.05, 0.99), min_size=1, max_size=4), st.integers(1, 4), st.floats(-0.3, 0.3))
def test_chances_are_scaled_to_the_tokens_asked_for(chances: list[float], depth: int, more: float) -> None:
    own = float(accepted_tokens(chances, np.array(depth)))
    scaled = scaled_chances(tuple(chances), depth, more)
    assert all(0.0 <= chance <= 1.0 for chance in scaled)
    wanted = min(max(own + more, 1.0), 1.0 + depth)
    assert float(accepted_tokens(scaled, np.array(depth))) == pytest.approx(wanted, abs=1e-6)


# --- what is refused, and what is said ---


def test_a_plan_of_another_catalog_is_warned_of_and_one_that_differs_refused(dense: Plan, catalog: Catalog) -> None:
    older = dense.provenance.model_copy(update={"catalog_version": "0123456789ab"})
    found = tokopt.explain(dense.model_copy(update={"provenance": older}), factors="precision", catalog=catalog)
    assert found.warnings and "catalog 0123456789ab then" in found.warnings[0]
    assert found.provenance.plan_catalog_version == "0123456789ab"
    other = dense.model_copy(update={"provenance": older, "usd_per_million_output_tokens": 2 * cost(dense)})
    with pytest.raises(InputError, match=r"cannot be reproduced: it states .* solved again .* 0123456789ab then"):
        tokopt.explain(other, catalog=catalog)


def test_bad_input_is_one_line_that_says_what_is_allowed(dense: Plan, catalog: Catalog) -> None:
    for asked, said in (
        ({"factors": "speed"}, "--factors: 'speed' is not one of accelerator, interconnect"),
        ({"factors": "speculation"}, "--factors: the plan does not use speculation; it uses accelerator"),
        ({"baseline": "tpu_v5e"}, "--baseline: tpu_v5e has no price that the request may use; these have: h100_sxm"),
        ({"baseline": "h1000"}, "--baseline: unknown accelerator 'h1000'"),
    ):
        with pytest.raises(InputError) as caught:
            tokopt.explain(dense, catalog=catalog, **asked)
        assert said in str(caught.value) and "\n" not in str(caught.value)
    nothing = tokopt.plan(catalog=catalog, **DENSE | {"sla": "0.1ms"})
    with pytest.raises(InputError, match="the plan is infeasible: there is nothing to explain"):
        tokopt.explain(nothing, catalog=catalog)


def test_a_baseline_that_cannot_do_it_names_others(catalog: Catalog) -> None:
    plan = tokopt.plan(catalog=catalog, **DENSE | {"sla": "3ms", "gpus": "b200_sxm"})
    refusal = r"--baseline: nothing plain on h100_sxm meets the request \(sla tpot.*; this works: h200_sxm, "
    with pytest.raises(InputError, match=refusal):
        tokopt.explain(plan, catalog=catalog, baseline="h100_sxm")


def test_sets_of_factors_that_meet_the_request_in_no_way_are_counted(catalog: Catalog) -> None:
    """In 16 bits the plan's accelerator is too slow, though the baseline's is fast enough."""
    asked = {"model": "qwen3-32b", "workload": "chat", "demand": "5req/s", "prices": "aws", "sla": "14ms"}
    asked |= {"disable": "eagle3,draft_model,ngram"}
    plan = tokopt.plan(catalog=catalog, gpus="l40s", **asked)
    found = tokopt.explain(plan, catalog=catalog, baseline="h100_sxm", factors="accelerator,precision")
    assert (found.coalitions, found.infeasible_coalitions) == (4, 1)
    alone = {factor.name: factor.added_alone for factor in found.factors}
    assert alone["accelerator"] is None and alone["precision"] is not None
    shares = {factor.name: factor.usd_per_million_output_tokens.share for factor in found.factors}
    middle = cost(alone["precision"])  # the missing one counts as the baseline itself
    assert shares["accelerator"] == pytest.approx((cost(plan) - middle) / 2, rel=1e-9)


# --- the table of factors ---


def test_the_table_knows_every_feature_and_no_name_twice() -> None:
    names = [row.name for row in all_factors()]
    assert len(set(names)) == len(names)
    assert [row.name for row in FACTORS] == names[: len(FACTORS)]


def row(name: str, kind: str) -> FactorRow:
    return FactorRow(
        name=name,
        title=name,
        kind=kind,
        used=lambda _: True,
        words=lambda _: ("old", "new"),
        revert=lambda world, _: world,
    )


def test_factors_of_a_kind_are_taken_together_beyond_eight() -> None:
    rows = [row(f"f{n}", "abc"[n % 3]) for n in range(10)]
    kept = merged(rows)
    assert len(kept) == 8
    assert [name for r in kept for name in (r.parts or (r.name,))].count("f9") == 1
    assert {name for r in kept for name in (r.parts or (r.name,))} == {r.name for r in rows}
    assert merged(rows[:8]) == tuple(rows[:8])
    alone = merged([row(f"f{n}", str(n)) for n in range(9)])
    assert alone[-1].parts == ("f7", "f8")


def test_the_usual_offer_is_the_middle_provider_on_demand() -> None:
    def offer(provider: str, usd: float, market: Market = Market.ON_DEMAND) -> Offer:
        return Offer(
            provider=provider, region="", zone="", instance_type="x", accelerator="a", accelerator_count=1,
            market=market, usd_per_hour=usd, as_of="2026-01-01", source="test",
        )  # fmt: skip

    offers = [offer("dear", 9.0), offer("middle", 5.0), offer("cheap", 1.0), offer("cheap", 0.5, Market.RESERVED)]
    assert [o.provider for o in typical(offers)] == ["middle"]
    assert [o.usd_per_hour for o in typical(offers[1:])] == [5.0]
    assert [o.usd_per_hour for o in typical(offers[3:])] == [0.5]


def test_figures_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Figures(usd_per_million_output_tokens=1.0, tokens_per_s_per_mw=None).tokens_per_s_per_mw = 2.0  # type: ignore[misc]
