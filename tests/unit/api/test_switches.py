"""Engines that do without what they have on by default: estimates, what is said, how sure it is, and the checker."""

from __future__ import annotations

import math
from typing import Any

import pytest
from click.testing import CliRunner

import tokopt
from tokopt.catalog import Catalog
from tokopt.cli import app
from tokopt.domain.estimates import Estimate
from tokopt.domain.features import HIDING_THE_HOST, ON_BY_DEFAULT, Feature
from tokopt.domain.plans import Plan
from tokopt.errors import InputError
from tokopt.perf.queueing import lognormal_factor

ASKED: dict[str, Any] = {"power": "1MW", "sla": "50ms", "gpus": "h200_sxm"}
SMALL: dict[str, Any] = {"model": "llama-3-8b", "gpu": "h100_sxm", "framework": "sglang", "isl": 128, "osl": 256}


def ask(catalog: Catalog, **changes: Any) -> Estimate:
    return tokopt.estimate(catalog=catalog, **{**SMALL, "concurrency": 1, **changes})


def tpot(estimate: Estimate) -> float:
    assert estimate.tpot_ms is not None
    return estimate.tpot_ms.mean


# --- estimates ---


@pytest.mark.parametrize("feature", HIDING_THE_HOST)
def test_an_estimate_without_a_feature_is_slower_wider_and_says_why(catalog: Catalog, feature: Feature) -> None:
    plain, off = ask(catalog), ask(catalog, disable=feature)
    assert plain.deployment.without == () and off.deployment.without == (feature,)
    assert tpot(off) > tpot(plain)
    wide, narrow = (e.interval["tpot_ms"] for e in (off, plain))
    assert wide.high / wide.low > 1.5 * narrow.high / narrow.low
    (said,) = set(off.assumptions) - set(plain.assumptions)
    assert "published, not measured here" in said and "sglang-pull" in said


def test_a_large_batch_hides_its_launches(catalog: Catalog) -> None:
    loaded = {"concurrency": 256, "isl": 1024}
    assert tpot(ask(catalog, disable="cuda_graphs", **loaded)) == tpot(ask(catalog, **loaded))


def test_whole_prompts_need_room_and_say_how_long_they_hold_decoding_up(catalog: Catalog) -> None:
    asked = {"model": "llama-3.1-8b", "isl": 20_000, "workload": "chat", "concurrency": 8}
    plain, whole = ask(catalog, **asked), ask(catalog, disable="chunked_prefill", **asked)
    cv = catalog.workload("chat").input_cv
    assert whole.deployment.chunk_tokens == math.ceil(20_000 * lognormal_factor(cv, 0.99)) > 20_000
    assert plain.memory_gib is not None and whole.memory_gib is not None
    more = (whole.deployment.chunk_tokens - plain.deployment.chunk_tokens) * 24 * 4096 / 2**30
    assert whole.memory_gib.other - plain.memory_gib.other == pytest.approx(more)
    assert any("holds decoding up for" in line for line in whole.assumptions)
    assert not any("holds decoding up for" in line for line in plain.assumptions)
    roomy = ask(catalog, disable="chunked_prefill", chunk_tokens=100_000, **asked)
    assert roomy.deployment.chunk_tokens == 100_000


def test_frameworks_without_chunks_take_prompts_whole_anyway(catalog: Catalog) -> None:
    support = catalog.framework("vllm").support["gaudi3"]
    assert Feature.CHUNKED_PREFILL not in support.features
    found = ask(catalog, model="llama-3.1-8b", gpu="gaudi3", framework="vllm", isl=20_000)
    assert found.deployment.chunk_tokens > 20_000 and found.deployment.without == ()
    assert any("vllm has no chunked prefill there" in line for line in found.assumptions)


def test_what_a_framework_does_not_have_costs_nothing_to_disable(catalog: Catalog) -> None:
    asked = {"gpu": "arc_pro_b60", "framework": "vllm", "model": "qwen3-8b", "precision": "int4"}
    plain, off = ask(catalog, **asked), ask(catalog, disable=HIDING_THE_HOST, **asked)
    assert off.deployment.without == () and off == plain


def test_two_pools_wait_for_their_hosts_too(catalog: Catalog) -> None:
    asked = {"prefill": "1xtp1", "decode": "1xtp1", "model": "llama-3-8b", "framework": "vllm"}
    assert tpot(ask(catalog, disable="overlap_scheduling", **asked)) > tpot(ask(catalog, **asked))


def test_a_table_of_speculation_can_do_without_graphs(catalog: Catalog) -> None:
    asked = {"model": "deepseek-r1", "gpu": "h200_sxm", "tp": 8, "catalog": catalog, "batches": (1,)}
    plain, off = tokopt.speculation_table(**asked), tokopt.speculation_table(disable="cuda_graphs", **asked)
    assert off.deployment.without == (Feature.CUDA_GRAPHS,)
    # What launches take is shared by all tokens of a step, so speculation gains more.
    assert off.rows[0].cells[1].gain > plain.rows[0].cells[1].gain
    assert any("not measured here" in line for line in off.assumptions)


def test_only_what_is_on_by_default_can_be_taken_from_an_estimate(catalog: Catalog) -> None:
    with pytest.raises(InputError, match=r"'mtp' is not one of chunked_prefill, cuda_graphs, overlap_scheduling$"):
        ask(catalog, disable="mtp")
    with pytest.raises(InputError, match=r"'cuda_graph' is not one of .*; did you mean cuda_graphs\?$"):
        ask(catalog, disable="cuda_graph")


def test_the_command_line_takes_and_refuses(catalog: Catalog) -> None:
    words = ["estimate", "--model", "llama-3-8b", "--gpu", "h100_sxm", "--concurrency", "1", "--json", "--disable"]
    answered = CliRunner().invoke(app, [*words, "cuda_graphs,chunked_prefill"])
    assert answered.exit_code == 0
    assert Estimate.model_validate_json(answered.stdout).deployment.without == ON_BY_DEFAULT[:2]
    refused = CliRunner().invoke(app, [*words, "disagg"])
    assert refused.exit_code == 2 and "is not one of chunked_prefill" in refused.stderr


# --- plans ---


@pytest.fixture(scope="module")
def off(catalog: Catalog) -> Plan:
    return tokopt.plan(catalog=catalog, disable=ON_BY_DEFAULT, **ASKED)


def test_a_plan_without_says_so_and_holds(catalog: Catalog, off: Plan) -> None:
    assert all(item.deployment.without == ON_BY_DEFAULT for item in off.fleet)
    assert tokopt.check(off, catalog=catalog) == []
    assert sum("not measured here" in line for line in off.assumptions) == 2
    free = tokopt.plan(catalog=catalog, **ASKED)
    for item in free.fleet:
        assert all(item.features[feature] is True for feature in ON_BY_DEFAULT)
    wide, narrow = (plan.interval["usd_per_million_output_tokens"] for plan in (off, free))
    assert wide.high / wide.low > narrow.high / narrow.low


def test_a_robust_plan_without_holds_too(catalog: Catalog) -> None:
    plan = tokopt.plan(catalog=catalog, disable=ON_BY_DEFAULT, robust=0.15, **ASKED)
    assert tokopt.check(plan, catalog=catalog) == []


def test_the_checker_finds_switches_that_nobody_asked_for(catalog: Catalog, off: Plan) -> None:
    def faults(request: dict[str, Any], **changes: Any) -> str:
        items = tuple(
            item.model_copy(update={"deployment": item.deployment.model_copy(update=changes)}) for item in off.fleet
        )
        changed = off.model_copy(update={"fleet": items, "request": off.request.model_copy(update=request)})
        return " ".join(tokopt.check(changed, catalog=catalog))

    assert "without names cuda_graphs, which the request does not disable" in faults({"disabled_features": ()})
    assert "cuda_graphs is not off, which the request does without" in faults({}, without=())
    assert "only chunked_prefill, cuda_graphs" in faults({}, without=(*ON_BY_DEFAULT, Feature.MTP))
    assert "prompts are not cut there" in faults({}, chunk_tokens=2048)
    slower = off.request.model_copy(update={"disabled_features": ON_BY_DEFAULT[:2]})
    items = tuple(
        i.model_copy(update={"deployment": i.deployment.model_copy(update={"without": ON_BY_DEFAULT[:2]})})
        for i in off.fleet
    )
    assert "tpot_ms mean" in " ".join(
        tokopt.check(off.model_copy(update={"fleet": items, "request": slower}), catalog=catalog)
    )
    lying = tuple(i.model_copy(update={"features": {**i.features, "cuda_graphs": True}}) for i in off.fleet)
    assert "features cuda_graphs is True" in " ".join(
        tokopt.check(off.model_copy(update={"fleet": lying}), catalog=catalog)
    )


def test_a_frontier_without_graphs_says_what_it_rests_on(catalog: Catalog) -> None:
    asked = {"model": "llama-3.1-8b", "gpus": "h100_sxm", "catalog": catalog}
    plain, off = tokopt.frontier(**asked), tokopt.frontier(disable="cuda_graphs", **asked)
    assert max(p.tokens_per_s_per_user for p in off.points) < max(p.tokens_per_s_per_user for p in plain.points)
    assert any("without captured graphs" in line for line in off.assumptions)
    wide, narrow = (f.interval["output_tokens_per_s_per_gpu"] for f in (off, plain))
    assert wide.high / wide.low > narrow.high / narrow.low
