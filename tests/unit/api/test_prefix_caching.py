"""Prompts that repeat: in estimates, in plans, and in the checker."""

from __future__ import annotations

from typing import Any

import pytest

import tokopt
from tokopt.api.reuse import parse_reuse
from tokopt.catalog import Catalog
from tokopt.domain.caching import Caching, Offload, Reuse, Router
from tokopt.domain.plans import Plan
from tokopt.errors import InputError

TURNS = "turns=8,gap=300s"
ASKED: dict[str, Any] = {"power": "1MW", "sla": "50ms", "gpus": "mi325x", "frameworks": "vllm"}
ONE: dict[str, Any] = {
    "model": "llama-3.1-70b",
    "gpu": "h200_sxm",
    "framework": "vllm",
    "precision": "fp8",
    "tp": 4,
    "isl": 8192,
    "osl": 512,
    "concurrency": 64,
}


@pytest.fixture(scope="module")
def plan(catalog: Catalog) -> Plan:
    return tokopt.plan(catalog=catalog, reuse=TURNS, **ASKED)


def caching(plan: Plan) -> Caching:
    found = plan.fleet[0].deployment.caching
    assert found is not None
    return found


def cost(plan: Plan) -> float:
    assert plan.usd_per_million_output_tokens is not None
    return plan.usd_per_million_output_tokens


def test_what_repeats_is_read_as_people_write_it() -> None:
    assert parse_reuse("prefix=6kx150") == Reuse(shared_tokens=6000, shared_prefixes=150)
    assert parse_reuse("turns=8, gap=30s, growth=600") == Reuse(turns=8, turn_gap_s=30, turn_tokens=600)
    assert parse_reuse("share=0.6,set=5Mtok") == Reuse(reusable_share=0.6, working_set_tokens=5e6)
    assert parse_reuse("none") is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("sometimes", "not understood"),
        ("turns=8,turns=9", "twice"),
        ("turns=many", "not a number"),
        ("turns=0.5,gap=1s", "turns"),
        ("share=2,set=1M", "reusable share"),
        ("turns=8", "time between"),
        ("share=0.5", "go together"),
        ("share=0.5,set=100", "working set"),
        ("prefix=9000", "whole prompt"),
        ("turns=8,gap=1s,growth=9000", "at most"),
        ("prefix=0", "nothing repeats"),
    ],
)
def test_what_cannot_repeat_is_refused(catalog: Catalog, text: str, why: str) -> None:
    with pytest.raises(InputError, match=why):
        tokopt.estimate(catalog=catalog, reuse=text, **ONE)


def test_an_endless_cache_is_the_share_given(catalog: Catalog) -> None:
    """A prefix of half the prompt that is always asked for is found like a share of a half."""
    given = tokopt.estimate(catalog=catalog, prefix_share=0.5, **ONE)
    found = tokopt.estimate(catalog=catalog, reuse="prefix=4096", **ONE)
    assert found.deployment.caching is not None
    assert found.deployment.caching.hit_share == pytest.approx(0.5, rel=1e-6)
    assert found.output_tokens_per_s_per_gpu == pytest.approx(given.output_tokens_per_s_per_gpu, rel=1e-5)


def test_offload_finds_more_and_chance_finds_less(catalog: Catalog) -> None:
    def found(**settings: Any) -> Caching:
        answer = tokopt.estimate(catalog=catalog, reuse="turns=8,gap=120s", **ONE, **settings).deployment.caching
        assert answer is not None
        return answer

    plain, behind = found(), found(kv_offload="host")
    assert plain.device_share == plain.hit_share < behind.hit_share
    assert behind.offload is Offload.HOST and behind.restore_ms > 0.0
    by_chance = {r: found(router=r.value, replicas=8) for r in Router if not r.returns}
    assert len({c.hit_share for c in by_chance.values()}) == 1
    assert all(c.hit_share < plain.hit_share / 4 for c in by_chance.values())


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"kv_offload": "host"}, "--reuse"),
        ({"reuse": TURNS, "kv_offload": "tape"}, "not one of none, host, ssd"),
        ({"reuse": TURNS, "gpu": "h200_nvl", "kv_offload": "ssd"}, "does not know how much ssd"),
        ({"reuse": TURNS, "gpu": "a10g", "precision": "int8", "kv_offload": "host"}, "does not know how much host"),
        ({"reuse": TURNS, "gpu": "gaudi3", "kv_offload": "host"}, "not known to offload"),
        ({"reuse": TURNS, "router": "psychic"}, "not one of random"),
        ({"reuse": TURNS, "replicas": 0}, "at least 1"),
        ({"reuse": TURNS, "prefix_share": 0.5}, "give one of them"),
    ],
)
def test_settings_that_are_not_there_are_refused(catalog: Catalog, settings: dict[str, Any], why: str) -> None:
    with pytest.raises(InputError, match=why):
        tokopt.estimate(catalog=catalog, **{**ONE, **settings})


def test_a_plan_uses_caches_where_prompts_repeat(catalog: Catalog, plan: Plan) -> None:
    assert tokopt.check(plan, catalog=catalog) == []
    item, settled = plan.fleet[0], caching(plan)
    assert 0.5 < settled.hit_share < plan.request.workload.prefix_share
    assert (settled.router, settled.offload) == (Router.KV_AWARE, Offload.HOST)
    assert item.features["prefix_hit_share"] == settled.hit_share
    assert any("found in prefix caches" in line and "routed at random" in line for line in plan.assumptions)
    assert tokopt.plan(catalog=catalog, **ASKED).usd_per_million_output_tokens > cost(plan)  # type: ignore[operator]


@pytest.mark.parametrize("accelerator", ["mi355x", "gb300_nvl72"])
def test_drives_are_taken_where_they_find_more(catalog: Catalog, accelerator: str) -> None:
    """Nodes with one NVMe drive an accelerator hold many times what their host memory does."""
    asked = {**ASKED, "gpus": accelerator, "reuse": TURNS}
    with_it = tokopt.plan(catalog=catalog, **asked)
    without = tokopt.plan(catalog=catalog, disable="kv_offload", **asked)
    assert tokopt.check(with_it, catalog=catalog) == []
    assert caching(with_it).offload is Offload.SSD
    assert caching(with_it).hit_share > caching(without).hit_share
    assert cost(with_it) < cost(without)


@pytest.mark.parametrize("feature", ["prefix_caching", "kv_routing", "kv_offload"])
def test_doing_without_never_lowers_the_cost(catalog: Catalog, plan: Plan, feature: str) -> None:
    without = tokopt.plan(catalog=catalog, reuse=TURNS, disable=feature, **ASKED)
    assert tokopt.check(without, catalog=catalog) == []
    assert cost(without) >= cost(plan) * (1.0 - 1e-9)
    used = without.fleet[0].deployment.caching
    if feature == "prefix_caching":
        assert used is None
    elif feature == "kv_routing":
        assert used is not None and used.router is Router.RANDOM and used.hit_share < 0.01
    else:
        assert used is not None and used.offload is Offload.NONE


def test_what_a_drafter_keeps_takes_room_in_the_caches(catalog: Catalog) -> None:
    """A small fleet of one conversation each: the drafter's share of the cache leaves room for fewer of them."""
    asked = {**ONE, "model": "llama-3.1-8b", "gpu": "h100_sxm", "tp": 1, "isl": 6000, "concurrency": 8}
    asked["reuse"] = "share=0.8,set=4M"
    plain = tokopt.estimate(catalog=catalog, **asked)
    drafted = tokopt.estimate(catalog=catalog, speculator="eagle3-llama-3.1-8b", depth=3, **asked)
    found, less = plain.deployment.caching, drafted.deployment.caching
    assert found is not None and less is not None
    # The head is one layer beside 32, with keys and values of the same size; its weights take room too.
    assert found.device_share * 32 / 33 * 0.9 < less.device_share < found.device_share * 32 / 33
    ask = {"power": "100kW", "sla": "6ms", "gpus": "h100_sxm", "frameworks": "vllm", "model": "llama-3.1-8b"}
    plan = tokopt.plan(catalog=catalog, workload="chat", reuse="prefix=500,turns=4,gap=30s", **ask)
    assert plan.fleet[0].deployment.speculator == "eagle3-llama-3.1-8b"
    assert tokopt.check(plan, catalog=catalog) == []


def test_without_prefix_caching_nothing_is_found(catalog: Catalog) -> None:
    """Neither what is given nor what would repeat: the same plan as for prompts that have nothing in common."""
    plain = tokopt.plan(catalog=catalog, **ASKED)
    for repeating in ({"reuse": TURNS}, {"prefix_share": 0.5}):
        without = tokopt.plan(catalog=catalog, disable="prefix_caching", **repeating, **ASKED)
        assert without.fleet[0].output_tokens_per_s == plain.fleet[0].output_tokens_per_s
        assert tokopt.check(without, catalog=catalog) == []


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"hit_share": 0.775}, "hit_share"),
        ({"device_share": 0.74}, "device_share"),
        ({"restore_ms": 0.0}, "restore_ms"),
        ({"router": Router.RANDOM}, "hit_share"),
        (None, "prompts repeat"),
    ],
)
def test_the_checker_finds_caches_that_are_too_good(
    catalog: Catalog, plan: Plan, changed: dict[str, Any] | None, why: str
) -> None:
    item = plan.fleet[0]
    worse = None if changed is None else caching(plan).model_copy(update=changed)
    deployment = item.deployment.model_copy(update={"caching": worse})
    said = ("prefix_hit_share", "device_hit_share", "router", "kv_offload")
    features = {name: value for name, value in item.features.items() if name not in said}
    other = item.model_copy(update={"deployment": deployment, "features": features})
    forged = plan.model_copy(update={"fleet": (other, *plan.fleet[1:])})
    assert any(why in fault for fault in tokopt.check(forged, catalog=catalog))


def test_a_catalog_workload_may_say_what_repeats(catalog: Catalog) -> None:
    """NVIDIA, TensorRT LLM tech blog 27: an endless cache finds 96.5 % of a coding agent's prompts."""
    agent = tokopt.estimate(catalog=catalog, workload="coding-agent", **{**ONE, "isl": None, "osl": None})
    assert agent.deployment.caching is not None
    assert 0.5 < agent.deployment.caching.hit_share < 0.965
    asked = tokopt.plan(catalog=catalog, workload="coding-agent", **ASKED).request
    assert asked.workload.prefix_share == pytest.approx(0.965, abs=0.001)
    given = tokopt.estimate(
        catalog=catalog, workload="coding-agent", prefix_share=0.1, **{**ONE, "isl": 14400, "osl": 110}
    )
    assert given.deployment.caching is None


def test_classes_of_a_workloads_file_may_say_what_repeats(catalog: Catalog) -> None:
    """A class with turns, one with a share given, and one of the catalog: each by itself, and checked."""
    classes = {
        "talk": {"input_tokens": 4000, "output_tokens": 300, "reuse": "turns=6,gap=20s"},
        "fixed": {"input_tokens": 4000, "output_tokens": 300, "prefix_share": 0.4},
    }
    file = {"workloads": {n: {"model": "llama-3.1-8b", "demand": "20req/s", **row} for n, row in classes.items()}}
    plan = tokopt.plan(catalog=catalog, workloads=file, gpus="h100_sxm", frameworks="vllm")
    assert tokopt.check(plan, catalog=catalog) == []
    settled = {next(iter(item.share_of_traffic)): item.deployment.caching for item in plan.fleet}
    assert settled["fixed"] is None
    assert settled["talk"] is not None and settled["talk"].hit_share > 0.3
