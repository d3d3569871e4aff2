"""Audits: answers that are the plans, frontiers and catalog rows that they say they are."""

from __future__ import annotations

from typing import Any

import pytest

import tokopt
from tokopt.api.auditing import published_costs
from tokopt.api.auditing_bench import Asked, Bench
from tokopt.api.auditing_features import _gains, platforms_with, unsuited
from tokopt.api.exchanges import binding_batches, in_words
from tokopt.catalog import Catalog
from tokopt.domain.auditing import Audit, ExchangePoint, FeatureAnswer, PlatformAudit
from tokopt.domain.features import SWITCHABLE, Feature
from tokopt.errors import InputError

EXPERTS: dict[str, Any] = {"model": "qwen3-30b-a3b", "workload": "chat", "sla": "50ms"}
DENSE: dict[str, Any] = {"model": "llama-3.1-8b", "workload": "chat", "sla": "50ms"}


@pytest.fixture(scope="module")
def experts(catalog: Catalog) -> Audit:
    return tokopt.audit("h200_sxm", catalog=catalog, frameworks="vllm", **EXPERTS)


@pytest.fixture(scope="module")
def dense(catalog: Catalog) -> Audit:
    return tokopt.audit("gaudi3", catalog=catalog, **DENSE)


def only(found: Audit) -> PlatformAudit:
    (platform,) = found.platforms
    return platform


def bench_of(model: str, accelerator: str, catalog: Catalog) -> Bench:
    asked = Asked(
        catalog=catalog,
        model=model,
        llm=catalog.llm(model),
        workload=catalog.workload("chat"),
        sla="50ms",
        prices="ownership-hyperscaler",
        rates={},
        prices_by_accelerator={},
    )
    return Bench(asked=asked, accelerator=catalog.accelerator(accelerator), frameworks=("vllm",))


def feature(platform: PlatformAudit, name: str) -> FeatureAnswer:
    return next(each for each in platform.features if each.feature == name)


# --- cost ---


def test_the_cost_is_that_of_the_plan_which_fills_a_megawatt(experts: Audit, catalog: Catalog) -> None:
    plan = tokopt.plan(power="1MW", gpus="h200_sxm", frameworks="vllm", catalog=catalog, **EXPERTS)
    cost = only(experts).cost
    assert cost is not None and cost.filled == "1 MW of utility power"
    assert cost.best.usd_per_million_output_tokens == plan.usd_per_million_output_tokens
    assert cost.best.usd_per_million_total_tokens == plan.usd_per_million_total_tokens
    assert cost.best.tokens_per_s_per_mw == plan.tokens_per_s_per_mw
    assert cost.interval == plan.interval["usd_per_million_output_tokens"]
    assert cost.utility_kw_per_gpu == catalog.accelerator("h200_sxm").all_in_w / 1e3  # type: ignore[operator]
    assert cost.best.deployment in [item.deployment for item in plan.fleet]


def test_a_platform_without_a_price_is_answered_in_tokens(dense: Audit) -> None:
    cost = only(dense).cost
    assert cost is not None and "no offer" in cost.price_note
    assert cost.best.usd_per_million_output_tokens is None and cost.usd_per_gpu_hour is None
    assert cost.best.output_tokens_per_s_per_gpu is not None and cost.best.output_tokens_per_s_per_gpu > 0
    assert {gain.figure for each in only(dense).features for gain in each.gains} == {"output_tokens_per_s_per_gpu"}


def test_published_costs_stand_beside_the_models(experts: Audit, catalog: Catalog) -> None:
    bench = bench_of("deepseek-r1", "h200_sxm", catalog)
    (line,) = (row for row in catalog.published_economics["nvidia-2026-04"].lines if row.accelerator == "h200_sxm")
    (published,) = published_costs(bench)
    assert published.usd_per_million_tokens == line.published.usd_per_million_tokens
    assert published.basis == "published" and published.sources == ("nvidia-rethinking-ai-tco",)
    cost = only(experts).cost
    assert cost is not None and cost.published == ()


# --- features ---


def test_every_feature_that_requests_can_do_without_is_compared_with_doing_without(
    experts: Audit, catalog: Catalog
) -> None:
    platform = only(experts)
    assert [each.feature for each in platform.features] == [
        *(each for each in SWITCHABLE if each is not Feature.PREFIX_CACHING),
        Feature.PREFIX_CACHING,
    ]
    for name in (Feature.DISAGG, Feature.EXPERT_PARALLEL):
        gain = feature(platform, name).gains[0]
        off = tokopt.plan(
            power="1MW", gpus="h200_sxm", frameworks="vllm", disable=name.value, catalog=catalog, **EXPERTS
        )
        assert gain.without == off.usd_per_million_output_tokens
        assert gain.with_it is not None and gain.without is not None and gain.worth is not None
        assert gain.worth == pytest.approx(gain.without / gain.with_it - 1) and gain.worth >= -1e-9


def test_context_parallelism_is_looked_at_on_long_inputs_only(catalog: Catalog) -> None:
    """As many as the model takes, where it takes fewer; and not at all where nobody documents it for the model."""
    bench = bench_of("deepseek-r1", "h200_sxm", catalog)
    (gain,) = _gains(bench, Feature.DECODE_CONTEXT_PARALLEL)
    assert gain.condition == "with 128,000 tokens in"
    assert gain.with_it is not None and gain.without is not None and gain.with_it <= gain.without * (1 + 1e-9)
    assert not bench.having(Feature.PREFILL_CONTEXT_PARALLEL)  # vLLM only
    windows = bench_of("llama-4-maverick", "h200_sxm", catalog)
    assert not windows.having(Feature.DECODE_CONTEXT_PARALLEL)
    assert "attention" in unsuited(Feature.DECODE_CONTEXT_PARALLEL, windows.asked.llm, catalog)


def test_disaggregation_is_looked_at_on_long_inputs_too(experts: Audit) -> None:
    short, long = feature(only(experts), "disagg").gains
    assert "4 times the input (4,096 tokens)" in long.condition
    assert long.with_it is not None and short.with_it is not None and long.with_it > short.with_it


def test_what_a_model_lacks_is_not_asked_of_a_platform(experts: Audit, dense: Audit) -> None:
    assert not feature(only(experts), "mtp").applies  # ships no draft modules
    spread = feature(only(dense), "expert_parallel")
    assert not spread.applies and not spread.gains and "no experts" in spread.note
    exchange = only(dense).exchange
    assert exchange is not None and not exchange.applies and "dense" in exchange.why_not


def test_more_cached_prompts_are_cheaper(experts: Audit) -> None:
    (gain,) = feature(only(experts), "prefix_caching").gains
    assert gain.worth is not None and gain.worth > 0


# --- precisions ---


def test_precisions_are_those_published_for_the_vendor_with_what_is_known_of_accuracy(
    experts: Audit, catalog: Catalog
) -> None:
    llm = catalog.llm("qwen3-30b-a3b")
    found = {each.precision: each for each in only(experts).precisions}
    assert {"bf16", "fp8"} <= set(found)
    assert found["bf16"].native and found["bf16"].saving is None and found["bf16"].quality_loss == 0.0
    assert found["fp8"].saving is not None and found["fp8"].saving > 0 and not found["fp8"].dequantised
    for name, answer in found.items():
        assert answer.quality_loss == (None if llm.quality_loss(name) == float("inf") else llm.quality_loss(name))


# --- all-to-alls ---


def test_all_to_alls_are_answered_for_one_domain_and_for_two(experts: Audit) -> None:
    exchange = only(experts).exchange
    assert exchange is not None and exchange.inside is not None and exchange.across is not None
    assert (exchange.inside.expert_parallel, exchange.across.expert_parallel) == (8, 16)
    assert exchange.inside.bytes_out_of_domain == 0 < exchange.across.bytes_out_of_domain
    for reach in (exchange.inside, exchange.across):
        shares = [point.share for point in reach.points]
        assert reach.most_share == max(shares)
        assert reach.least_headroom == min(point.headroom for point in reach.points)
        batches = [point.requests_per_gpu for point in reach.points]
        assert batches == sorted(batches) and len(batches) > 10


def point(batch: float, share: float, *, binds: bool) -> ExchangePoint:
    return ExchangePoint(
        requests_per_gpu=batch, exchange_ms=share, step_ms=1.0, share=share, headroom=1 / share - 1, binds=binds
    )


@pytest.mark.parametrize(
    ("binds", "batches", "words"),
    [
        ((False, False, False), (None, None), "carries it: at most 30 % of a decode step, at 64 requests a GPU"),
        ((False, True, True), (8.0, None), "binds from 8 requests a GPU on: "),
        ((True, True, True), (1.0, None), "binds at every batch: "),
        ((True, False, False), (1.0, 1.0), "binds up to 1 request a GPU, by its latency"),
        ((False, True, False), (8.0, 8.0), "binds from 8 to 8 requests a GPU: "),
    ],
)
def test_the_answer_in_words(binds: tuple[bool, ...], batches: tuple[float | None, ...], words: str) -> None:
    points = tuple(
        point(batch, share, binds=bound) for batch, share, bound in zip((1, 8, 64), (0.1, 0.2, 0.3), binds, strict=True)
    )
    assert binding_batches(points) == batches
    assert in_words(points).startswith(words)


# --- the ends, documents, what is lacking ---


def test_the_ends_are_those_of_the_frontier(experts: Audit, catalog: Catalog) -> None:
    behaviour = only(experts).behaviour
    assert behaviour is not None
    front = tokopt.frontier(model="qwen3-30b-a3b", workload="chat", gpus="h200_sxm", frameworks="vllm", catalog=catalog)
    (reach,) = front.reach
    assert behaviour.fastest_tokens_per_s_per_user == reach.fastest_tokens_per_s_per_user
    assert behaviour.longest_input_tokens == reach.longest_input_tokens
    most = max(each.output_tokens_per_s_per_gpu for each in front.points)
    assert behaviour.most_output_tokens_per_s_per_gpu >= most * (1 - 1e-9)
    assert [each.input_tokens for each in behaviour.long_inputs] == [32_000]  # its context ends at 40,960
    assert behaviour.long_inputs[0].ttft_ms is not None


def test_documented_stages_have_sources(experts: Audit, dense: Audit) -> None:
    for found in (experts, dense):
        known = {source.key for source in found.sources}
        for stage in only(found).life_cycle.stages:
            assert not stage.documented or stage.source in known


def test_every_model_counts_once_in_its_kind(experts: Audit, catalog: Catalog) -> None:
    kinds = {each.architecture: each for each in only(experts).architectures}
    assert "qwen3-30b-a3b" in kinds["experts"].models and "llama-3.1-8b" in kinds["full"].models
    members = [name for each in kinds.values() if each.architecture != "experts" for name in each.models]
    assert set(members) <= set(catalog.llms)


def test_what_is_lacking_is_measured_there_or_where_it_is_best_used(dense: Audit, catalog: Catalog) -> None:
    missing = {each.name: each for each in only(dense).missing}
    assert "gaudi3" not in platforms_with(catalog, Feature.DISAGG)
    assert missing["disagg"].measured_on == "gaudi3" and missing["disagg"].gain is not None
    assert missing["fp4"].measured_on in missing["fp4"].platforms
    assert "h200_sxm" in missing["mtp"].platforms and missing["mtp"].gain is None
    chunks = missing["chunked_prefill"]
    assert chunks.measured_on == "gaudi3" and chunks.gain is not None and chunks.gain.worth is not None
    # Its engine was measured as it is, so what its host takes cannot be taken from it: asked where the feature is used.
    overlap = missing["overlap_scheduling"]
    assert overlap.measured_on in overlap.platforms and overlap.gain is not None
    assert overlap.gain.worth is not None and overlap.gain.worth > 0.0


# --- several, none, and bad input ---


@pytest.mark.parametrize(
    ("accelerator", "model", "said"),
    [
        ("sn40l", "llama-3.1-405b", "its weights are 812 GB in bf16, and a scale-up domain of 8 has 512 GB"),
        ("a10g", "deepseek-r1", "none of them is served there by default, only bf16, int8, int4"),
    ],
)
def test_a_platform_that_does_not_serve_the_model_says_why(
    accelerator: str, model: str, said: str, catalog: Catalog
) -> None:
    found = tokopt.audit(accelerator, catalog=catalog, model=model, workload="chat")
    platform = only(found)
    assert not found.answered and platform.cost is None and platform.life_cycle.stages
    assert said in platform.why_not


def test_limits_that_nothing_meets_leave_the_other_answers(catalog: Catalog) -> None:
    found = only(tokopt.audit("h200_sxm", catalog=catalog, frameworks="vllm", **EXPERTS | {"sla": "tpot=0.5ms"}))
    assert found.serves and found.cost is not None and found.behaviour is not None
    assert found.cost.best.usd_per_million_output_tokens is None and "TPOT" in found.cost.best.why_not


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("",), "--accelerator: a name is needed"),
        (("h20",), "unknown accelerator 'h20'"),
        (("mi300x",), "--framework: tensorrt-llm does not run on mi300x; what does: on mi300x: vllm, sglang"),
    ],
)
def test_bad_input_is_one_line(arguments: tuple[str, ...], said: str, catalog: Catalog) -> None:
    with pytest.raises(InputError) as raised:
        tokopt.audit(*arguments, catalog=catalog, frameworks="tensorrt-llm", **DENSE)
    assert said in str(raised.value) and "\n" not in str(raised.value)
