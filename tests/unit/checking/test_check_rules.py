"""Every rule of the checker: a plan made by hand has no fault, and each figure that is tampered with is named."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from tokopt.catalog import load_catalog
from tokopt.checking import CheckInputs, check_plan
from tokopt.domain.deployments import Deployment, Layout, Pool, ServingMode
from tokopt.domain.estimates import Interval, LatencyMs, MemoryGib
from tokopt.domain.offers import Market, Offer
from tokopt.domain.plans import (
    FleetItem,
    NearestFeasible,
    Plan,
    PlanRequest,
    PowerBasis,
    Provenance,
    SearchCounts,
    Status,
    WorkloadShape,
)
from tokopt.domain.workloads import Sla, Statistic, Workload
from tokopt.perf.deployed import decode_layout, decode_worker
from tokopt.perf.describe import memory_shares
from tokopt.perf.queueing import Limits, at_rate
from tokopt.search import Candidate, SearchSpace, find_candidates

CATALOG = load_catalog()
LLM = CATALOG.llms["qwen3-8b"]
H100 = CATALOG.accelerators["h100_sxm"]
GIB = 2.0**30
WORKLOAD = Workload(name="chat", input_tokens=1024.0, output_tokens=256.0, input_cv=0.5, output_cv=0.5)
SHAPE = WorkloadShape(**{name: getattr(WORKLOAD, name) for name in WorkloadShape.model_fields})
SLA = Sla(tpot_ms=50.0, ttft_ms=2000.0, e2e_ms=30_000.0, statistic=Statistic.P99)
LIMITS = Limits(tpot_s=0.050, ttft_s=2.0, e2e_s=30.0, statistic="p99")
OFFER = Offer(
    provider="acme",
    region="north",
    zone="north-1",
    instance_type="eight-of-them",
    accelerator="h100_sxm",
    accelerator_count=8,
    market=Market.ON_DEMAND,
    usd_per_hour=20.0,
    as_of="2026-11-01",
    source="made-up",
    available_units=12,
)
ELSEWHERE = replace(OFFER, region="south", zone="south-1", usd_per_hour=22.0, available_units=None)
SINGLE = replace(OFFER, instance_type="one-of-them", accelerator_count=1, usd_per_hour=3.0, available_units=None)
INPUTS = CheckInputs(
    llms={LLM.name: LLM},
    accelerators=CATALOG.accelerators,
    frameworks=CATALOG.frameworks,
    precisions=CATALOG.precisions,
    kv_bits={name: kv.bits for name, kv in CATALOG.kv_precisions.items()},
    calibration=CATALOG.calibration,
    offers=(OFFER, ELSEWHERE, SINGLE, replace(OFFER, provider="other", usd_per_hour=99.0)),
    speculators=CATALOG.speculators,
)


@cache
def candidate(mode: ServingMode) -> Candidate:
    space = SearchSpace(
        llm=LLM,
        workload=WORKLOAD,
        limits=LIMITS,
        frameworks=(CATALOG.frameworks["sglang"],),
        precisions=(CATALOG.precisions["fp8"],),
        kv_bits={"fp8": CATALOG.kv_precisions["fp8"].bits},
        modes=(mode,),
        calibration=CATALOG.calibration,
        widest=8,
    )
    return find_candidates(H100, space, (8,)).candidates[0]


def milliseconds(seconds: Mapping[str, float]) -> LatencyMs:
    return LatencyMs(**{name: seconds[name] * 1e3 for name in ("mean", "p50", "p90", "p99")})


def memory_of(chosen: Candidate) -> MemoryGib:
    deployment, family = chosen.deployment, chosen.family
    _, workers = decode_layout(deployment)
    assert deployment.max_running_requests is not None
    shares = memory_shares(
        family.model,
        family.machine,
        decode_worker(deployment, 1.0),
        WORKLOAD,
        slots=deployment.max_running_requests // workers,
        prefill=deployment.mode is ServingMode.AGG,
    )
    return MemoryGib(weights=shares.weights / GIB, kv=shares.kv / GIB, other=shares.other / GIB, free=shares.free / GIB)


def an_item(mode: ServingMode, offer: Offer, units: int, *, load: float, share: float) -> FleetItem:
    chosen = candidate(mode)
    deployment = chosen.deployment
    layout, _ = decode_layout(deployment)
    replicas = units * (offer.accelerator_count // deployment.accelerators)
    gpus = units * offer.accelerator_count
    rate = load * chosen.capacity_requests_per_s * replicas
    loaded = at_rate(chosen.profile, rate / replicas)
    assert H100.all_in_w is not None
    assert H100.server_w is not None
    return FleetItem(
        accelerator="h100_sxm",
        provider=offer.provider,
        region=offer.region,
        market=offer.market.value,
        instance_type=offer.instance_type,
        model=deployment.llm,
        precision=deployment.precision,
        kv_precision=deployment.kv_precision,
        framework=deployment.framework,
        quality_loss=None,  # nobody published what an FP8 cache loses of it
        mode=mode,
        deployment=deployment,
        tp=layout.tp,
        pp=layout.pp,
        ep=layout.ep,
        dp=layout.dp,
        prefill=deployment.prefill,
        decode=deployment.decode,
        features={"chunk_tokens": deployment.chunk_tokens},
        concurrency_per_replica=deployment.max_running_requests or 0,
        mean_running_per_replica=loaded.mean_in_service,
        load=loaded.load,
        replicas=replicas,
        gpus=gpus,
        gpus_per_replica=deployment.accelerators,
        units=units,
        gpus_per_unit=offer.accelerator_count,
        nodes=math.ceil(gpus / 8),
        usd_per_unit_hour=offer.usd_per_hour,
        usd_per_hour=units * offer.usd_per_hour,
        power_kw=H100.all_in_w * gpus / 1e3,
        provisioned_kw=H100.all_in_w * gpus / 1e3,
        rated_kw=H100.server_w * gpus / 1e3,
        drawn_kw=0.6 * H100.server_w * gpus / 1e3,
        peak_drawn_kw=0.7 * H100.server_w * gpus / 1e3,
        requests_per_s=rate,
        output_tokens_per_s=rate * WORKLOAD.output_tokens,
        capacity_requests_per_s=chosen.capacity_requests_per_s,
        share_of_traffic={"chat": share},
        ttft_ms=milliseconds(loaded.ttft_s),
        tpot_ms=milliseconds(loaded.tpot_s),
        e2e_ms=milliseconds(loaded.e2e_s),
        memory_gib=memory_of(chosen),
        bottleneck="weights",
        price_source=offer.source,
        price_as_of=offer.as_of,
    )


def a_fleet() -> tuple[FleetItem, ...]:
    whole = (
        an_item(ServingMode.AGG, OFFER, 10, load=1.0, share=0.0),
        an_item(ServingMode.DISAGG, ELSEWHERE, 3, load=0.7, share=0.0),
    )
    requests = sum(item.requests_per_s for item in whole)
    return tuple(i.model_copy(update={"share_of_traffic": {"chat": i.requests_per_s / requests}}) for i in whole)


def around(value: float) -> Interval:
    return Interval(low=value / 1.4, high=value * 1.4)


def a_plan(**changes: Any) -> Plan:
    fleet = a_fleet()
    requests = sum(item.requests_per_s for item in fleet)
    usd, power = sum(item.usd_per_hour for item in fleet), sum(item.power_kw or 0.0 for item in fleet)
    output, total = requests * 256.0, requests * 1280.0
    request = PlanRequest(
        llm=LLM.name,
        workload=SHAPE,
        sla=SLA,
        power_kw=power * 1.01,
        demand_requests_per_s=requests,
        budget_usd_per_hour=usd + 1.0,
        prices=("made-up",),
        regions=("north", "south"),
        markets=("on_demand",),
        accelerators=("h100_sxm",),
        most_accelerator_types=1,
        inventory={"h100_sxm": 104},
    )
    figures: dict[str, Any] = {
        "status": Status.OPTIMAL,
        "gap": 0.0,
        "usd_per_million_output_tokens": usd / (output * 3600.0) * 1e6,
        "usd_per_million_total_tokens": usd / (total * 3600.0) * 1e6,
        "usd_per_hour": usd,
        "output_tokens_per_s": output,
        "total_tokens_per_s": total,
        "requests_per_s": requests,
        "power_kw": power,
        "power_limit_kw": request.power_kw,
        "power_basis": PowerBasis.UTILITY,
        "provisioned_power_kw": power,
        "it_power_kw": sum(item.rated_kw or 0.0 for item in fleet),
        "peak_drawn_power_kw": sum(item.peak_drawn_kw or 0.0 for item in fleet),
        "drawn_power_kw": sum(item.drawn_kw or 0.0 for item in fleet),
        "tokens_per_s_per_mw": output / (power / 1e3),
        "fleet": fleet,
        "binding": (),
        "marginal": (),
        "runner_up": None,
        "interval": {"usd_per_hour": around(usd), "tokens_per_s_per_mw": around(output / (power / 1e3))},
        "extrapolated": True,
        "excluded": {},
        "assumptions": (),
        "search": SearchCounts(
            deployments_considered=1, did_not_fit=0, missed_limits=0, evaluated_with_queueing=1, columns=2
        ),
        "request": request,
        "provenance": a_provenance(),
    }
    return Plan(**(figures | changes))


def a_provenance() -> Provenance:
    return Provenance(
        tokopt_version="0",
        catalog_version="0",
        calibration="0",
        calibration_made_on="",
        calibration_summary="",
        constants_origin="prior",
        price_lists=("made-up",),
        prices_as_of="",
        rejected_price_rows={},
        solver="none",
        seed=0,
        sources={},
    )


def infeasible(**changes: Any) -> Plan:
    nothing = dict.fromkeys(
        (
            "gap",
            "usd_per_million_output_tokens",
            "usd_per_million_total_tokens",
            "usd_per_hour",
            "output_tokens_per_s",
            "total_tokens_per_s",
            "requests_per_s",
            "power_kw",
            "provisioned_power_kw",
            "it_power_kw",
            "drawn_power_kw",
            "peak_drawn_power_kw",
            "tokens_per_s_per_mw",
        )
    )
    why = NearestFeasible(constraint="power", requested="1 W", nearest="1 kW", detail="")
    blank = {"status": Status.INFEASIBLE, "fleet": (), "interval": {}, "nearest_feasible": (why,)}
    return a_plan(**(nothing | blank | changes))


def on_item(plan: Plan, number: int, change: Callable[[FleetItem], dict[str, Any]]) -> Plan:
    fleet = list(plan.fleet)
    fleet[number] = fleet[number].model_copy(update=change(fleet[number]))
    return plan.model_copy(update={"fleet": tuple(fleet)})


def on_request(plan: Plan, **changes: Any) -> Plan:
    return plan.model_copy(update={"request": plan.request.model_copy(update=changes)})


def on_deployment(plan: Plan, number: int, **changes: Any) -> Plan:
    """Change a deployment and the fields that repeat it, so that only the change itself is wrong."""

    def change(item: FleetItem) -> dict[str, Any]:
        deployment = item.deployment.model_copy(update=changes)
        layout, _ = decode_layout(deployment)
        repeated = {name: getattr(deployment, name) for name in ("precision", "kv_precision", "framework", "mode")}
        pools = {"prefill": deployment.prefill, "decode": deployment.decode}
        cap = deployment.max_running_requests or item.concurrency_per_replica
        size = {"gpus_per_replica": deployment.accelerators, "concurrency_per_replica": cap}
        return {"deployment": deployment, **repeated, **layout.model_dump(), **pools, **size, "features": {}}

    return on_item(plan, number, change)


def test_a_plan_made_by_hand_has_no_fault() -> None:
    assert check_plan(a_plan(), INPUTS) == []


def test_a_plan_read_back_from_json_has_no_fault() -> None:
    assert check_plan(Plan.model_validate_json(a_plan().model_dump_json()), INPUTS) == []


def test_an_infeasible_plan_that_says_why_has_no_fault() -> None:
    assert check_plan(infeasible(), INPUTS) == []


def times(field: str, factor: float) -> Callable[[FleetItem], dict[str, Any]]:
    return lambda item: {field: getattr(item, field) * factor}


def plus(field: str, more: int) -> Callable[[FleetItem], dict[str, Any]]:
    return lambda item: {field: getattr(item, field) + more}


def part(field: str, statistic: str, factor: float = 1.0001) -> Callable[[FleetItem], dict[str, Any]]:
    def change(item: FleetItem) -> dict[str, Any]:
        record = getattr(item, field)
        return {field: record.model_copy(update={statistic: getattr(record, statistic) * factor})}

    return change


def to(**values: Any) -> Callable[[FleetItem], dict[str, Any]]:
    return lambda item: values


ITEM_TAMPERING: dict[str, tuple[Callable[[FleetItem], dict[str, Any]], str]] = {
    "more replicas than units hold": (plus("replicas", 1), "replicas"),
    "no replicas": (to(replicas=0), "replicas"),
    "negative units": (to(units=-3), "units"),
    "one unit fewer": (plus("units", -1), "units"),
    "one unit more": (plus("units", 1), "units"),
    "more gpus": (plus("gpus", 8), "gpus"),
    "more gpus a unit": (to(gpus_per_unit=9), "gpus_per_unit"),
    "other replica size": (plus("gpus_per_replica", 1), "gpus_per_replica"),
    "more nodes": (plus("nodes", 1), "nodes"),
    "cheaper units": (times("usd_per_unit_hour", 0.99), "usd_per_unit_hour"),
    "cheaper item": (times("usd_per_hour", 0.9999), "usd_per_hour"),
    "costless item": (to(usd_per_hour=float("nan")), "usd_per_hour"),
    "less power": (times("power_kw", 0.9999), "power_kw"),
    "unknown power": (to(power_kw=None), "power_kw"),
    "less provisioned power": (times("provisioned_kw", 0.9999), "provisioned_kw"),
    "less rated power": (times("rated_kw", 0.9999), "rated_kw"),
    "draws more than rated": (times("drawn_kw", 2.0), "drawn_kw"),
    "draws less than idle": (to(drawn_kw=0.001), "drawn_kw"),
    "draws what its boards do, and its servers nothing": (times("drawn_kw", 0.4), "drawn_kw"),
    "draws what its servers are rated": (times("drawn_kw", 1 / 0.6), "drawn_kw"),
    "draws nobody knows what": (to(drawn_kw=None), "drawn_kw"),
    "draws less at its peak than on average": (times("peak_drawn_kw", 0.8), "peak_drawn_kw"),
    "draws more than rated at its peak": (times("peak_drawn_kw", 1.5), "peak_drawn_kw"),
    "runs at a setting that was not asked for": (to(accelerator="h100_sxm@500w"), "accelerator"),
    "more requests": (times("requests_per_s", 1.01), "requests_per_s"),
    "no number of requests": (to(requests_per_s=float("nan")), "requests_per_s"),
    "more tokens": (times("output_tokens_per_s", 1.0001), "output_tokens_per_s"),
    "more capacity than its limits allow": (times("capacity_requests_per_s", 1.1), "capacity_requests_per_s"),
    "less capacity than it serves": (times("capacity_requests_per_s", 0.5), "capacity_requests_per_s"),
    "no capacity": (to(capacity_requests_per_s=0.0), "capacity_requests_per_s"),
    "other share": (to(share_of_traffic={"chat": 0.5}), "share_of_traffic"),
    "other class": (to(share_of_traffic={"batch": 1.0}), "share_of_traffic"),
    "other load": (times("load", 1.0001), "load"),
    "other mean running": (times("mean_running_per_replica", 1.0001), "mean_running_per_replica"),
    "other provider": (to(provider="nobody"), "provider"),
    "other region": (to(region="east"), "region"),
    "other market": (to(market="spot"), "market"),
    "other instance": (to(instance_type="nine-of-them"), "instance"),
    "other accelerator": (to(accelerator="h200_sxm"), "accelerator"),
    "unknown accelerator": (to(accelerator="h9000"), "accelerator"),
    "other model": (to(model="qwen3-32b"), "model"),
    "other precision": (to(precision="bf16"), "precision"),
    "other cache precision": (to(kv_precision="bf16"), "kv_precision"),
    "other framework": (to(framework="vllm"), "framework"),
    "other features": (to(features={"mtp_depth": 3}), "mtp_depth"),
    "other tp": (plus("tp", 1), "tp"),
    "other pp": (plus("pp", 1), "pp"),
    "other ep": (plus("ep", 1), "ep"),
    "other dp": (plus("dp", 1), "dp"),
    "other cap": (plus("concurrency_per_replica", 1), "concurrency_per_replica"),
    **{
        f"other {field} {statistic}": (part(field, statistic), f"{field} {statistic}")
        for field in ("ttft_ms", "tpot_ms", "e2e_ms")
        for statistic in ("mean", "p50", "p90", "p99")
    },
    **{
        f"other memory for {what}": (part("memory_gib", what), f"memory_gib {what}")
        for what in ("weights", "kv", "other", "free")
    },
}


@pytest.mark.parametrize("number", [0, 1], ids=["aggregated", "disaggregated"])
@pytest.mark.parametrize("what", ITEM_TAMPERING)
def test_a_tampered_item_is_named(what: str, number: int) -> None:
    change, figure = ITEM_TAMPERING[what]
    faults = check_plan(on_item(a_plan(), number, change), INPUTS)
    assert [f for f in faults if f.startswith((f"fleet[{number}]", figure)) and figure in f], faults


def test_mode_and_pools_must_match() -> None:
    plan = a_plan()
    pool = Pool(workers=1, layout=Layout())
    for number, changes in (
        (0, {"layout": None}),
        (0, {"prefill": pool}),
        (1, {"decode": None}),
        (1, {"layout": pool}),
    ):
        item = plan.fleet[number]
        broken = item.deployment.model_copy(update=changes)
        faults = check_plan(on_item(plan, number, to(deployment=broken)), INPUTS)
        assert any("mode" in fault for fault in faults), faults


SINGLE_LAYOUT = Layout(tp=1, pp=1, ep=1, dp=1)
DEPLOYMENT_TAMPERING: dict[str, tuple[dict[str, Any], str]] = {
    "model that was not asked for": ({"llm": "qwen3-32b"}, "model"),
    "unknown precision": ({"precision": "fp7"}, "precision"),
    "precision that the model is not served in": ({"precision": "mxfp4"}, "precision mxfp4"),
    "unknown framework": ({"framework": "nobody"}, "framework"),
    "unknown cache precision": ({"kv_precision": "fp7"}, "kv_precision"),
    "drafts without a draft module": ({"speculation_depth": 1}, "speculation_depth"),
    "an unknown speculator": ({"speculation_depth": 1, "speculator": "oracle"}, "speculator 'oracle'"),
    "another model's head": ({"speculation_depth": 1, "speculator": "eagle3-llama-3.1-8b"}, "does not draft for"),
    "a head that drafts nothing": ({"speculator": "eagle3-qwen3-8b"}, "speculation_depth"),
    "deeper than published": ({"speculation_depth": 4, "speculator": "eagle3-qwen3-8b"}, "drafts 1 to 3"),
    "tp beyond the domain": ({"layout": Layout(tp=16)}, "tp"),
    "ep that does not divide": ({"layout": Layout(tp=4, ep=3)}, "ep"),
    "ep without experts": ({"layout": Layout(tp=4, ep=4)}, "ep"),
    "deeper than the model": ({"layout": Layout(pp=64)}, "pp"),
    "prompts split where nothing splits them": ({"layout": Layout(tp=2, cp=4)}, "cp above 1"),
    "more ways than copies of the cache": ({"layout": Layout(tp=8, dcp=2)}, "dcp is 2, but tp = 8 makes 1 copies"),
    "dcp that does not divide": ({"layout": Layout(tp=2, dcp=3)}, "dcp is 3"),
    "caches split where nothing splits them": ({"layout": Layout(tp=8, dcp=2)}, "dcp above 1"),
    "cap that is not stated": ({"max_running_requests": None}, "concurrency_per_replica"),
    "cap beyond what an engine runs": ({"max_running_requests": 4097, "layout": SINGLE_LAYOUT}, "run at a time"),
    "cap beyond memory": ({"max_running_requests": 1024, "layout": SINGLE_LAYOUT}, "memory"),
    "absurd cap": ({"max_running_requests": 10**12}, "concurrency_per_replica"),
    "cap that changes latencies": ({"max_running_requests": 3, "layout": SINGLE_LAYOUT}, "requests_per_s"),
}


@pytest.mark.parametrize("what", DEPLOYMENT_TAMPERING)
def test_an_unlawful_deployment_is_named(what: str) -> None:
    changes, figure = DEPLOYMENT_TAMPERING[what]
    faults = check_plan(on_deployment(a_plan(), 0, **changes), INPUTS)
    assert any(fault.startswith("fleet[0]") and figure in fault for fault in faults), faults


def test_features_need_support() -> None:
    support = {name: replace(s, features=()) for name, s in CATALOG.frameworks["sglang"].support.items()}
    bare = replace(CATALOG.frameworks["sglang"], support=support)
    inputs = replace(INPUTS, frameworks={**CATALOG.frameworks, "sglang": bare})
    assert any("mode disagg" in fault for fault in check_plan(a_plan(), inputs))
    wide = Layout(tp=2, dp=2, ep=2, pp=2)
    faults = "\n".join(check_plan(on_deployment(a_plan(), 0, layout=wide), inputs))
    for setting in ("dp above 1", "ep above 1", "pp above 1"):
        assert setting in faults


def test_frameworks_that_do_not_run_there_are_named() -> None:
    absent = replace(CATALOG.frameworks["sglang"], support={})
    inputs = replace(INPUTS, frameworks={**CATALOG.frameworks, "sglang": absent})
    assert any("framework sglang does not run on h100_sxm" in fault for fault in check_plan(a_plan(), inputs))


def test_frameworks_of_the_past_serve_only_who_names_them() -> None:
    past = replace(CATALOG.frameworks["sglang"], recommended=False)
    inputs = replace(INPUTS, frameworks={**CATALOG.frameworks, "sglang": past})
    assert any("framework sglang is not recommended" in fault for fault in check_plan(a_plan(), inputs))
    assert check_plan(on_request(a_plan(), frameworks=("sglang",)), inputs) == []


def test_links_beyond_the_domain_must_be_known() -> None:
    lonely = replace(H100, scale_out_bytes_per_s=None)
    inputs = replace(INPUTS, accelerators={**CATALOG.accelerators, "h100_sxm": lonely})
    faults = check_plan(on_deployment(a_plan(), 0, layout=Layout(tp=8, pp=2)), inputs)
    assert any("no bandwidth beyond it" in fault for fault in faults), faults
    pools = {
        "prefill": Pool(workers=2, layout=Layout(tp=4)),
        "decode": Pool(workers=1, layout=Layout(tp=4)),
        "max_running_requests": 8,
    }
    faults = check_plan(on_deployment(a_plan(), 1, **pools), inputs)
    assert any("disagg over 12 accelerators" in fault for fault in faults), faults


def test_the_cap_splits_over_decode_workers() -> None:
    pools = {"decode": Pool(workers=2, layout=SINGLE_LAYOUT), "max_running_requests": 9}
    faults = check_plan(on_deployment(a_plan(), 1, **pools), INPUTS)
    assert any("does not split over 2" in fault for fault in faults), faults


def test_prefill_workers_hold_their_prompts() -> None:
    small = replace(H100, memory_bytes=13e9)
    inputs = replace(INPUTS, accelerators={**CATALOG.accelerators, "h100_sxm": small})
    faults = check_plan(a_plan(), inputs)
    assert any(fault.startswith("fleet[1]") and "prefill worker holds 0 prompts" in fault for fault in faults), faults


def test_small_instances_are_not_joined() -> None:
    def change(item: FleetItem) -> dict[str, Any]:
        units = item.gpus
        return {"instance_type": "one-of-them", "units": units, "gpus_per_unit": 1, "usd_per_unit_hour": 3.0}

    plan = on_item(on_deployment(a_plan(), 0, layout=Layout(tp=2)), 0, change)
    assert any("cannot be joined" in fault for fault in check_plan(plan, INPUTS))


def test_a_replica_of_several_nodes_takes_whole_nodes() -> None:
    plan = on_deployment(a_plan(), 0, layout=Layout(tp=8, pp=2))
    faults = check_plan(on_item(plan, 0, to(replicas=6)), INPUTS)
    assert any("6 replicas of 16 need 12 units of 8, not 10" in fault for fault in faults), faults
    faults = check_plan(on_item(plan, 0, to(replicas=5)), INPUTS)
    assert not any("units" in fault for fault in faults), faults


PLAN_TAMPERING: dict[str, tuple[Callable[[Plan], Plan], str]] = {
    **{
        f"other {figure}": (
            lambda plan, figure=figure: plan.model_copy(update={figure: getattr(plan, figure) * 1.0001}),
            figure,
        )
        for figure in (
            "usd_per_hour",
            "output_tokens_per_s",
            "total_tokens_per_s",
            "requests_per_s",
            "usd_per_million_output_tokens",
            "usd_per_million_total_tokens",
            "power_kw",
            "power_limit_kw",
            "provisioned_power_kw",
            "it_power_kw",
            "drawn_power_kw",
            "peak_drawn_power_kw",
            "tokens_per_s_per_mw",
        )
    },
    "unknown power": (lambda plan: plan.model_copy(update={"power_kw": None}), "power_kw"),
    "other basis": (lambda plan: plan.model_copy(update={"power_basis": PowerBasis.IT}), "power_basis"),
    "gap below zero": (lambda plan: plan.model_copy(update={"gap": -0.1}), "gap"),
    "no gap": (lambda plan: plan.model_copy(update={"gap": None}), "gap"),
    "optimal with a gap": (lambda plan: plan.model_copy(update={"gap": 0.01}), "gap"),
    "infeasible with a fleet": (lambda plan: plan.model_copy(update={"status": Status.INFEASIBLE}), "status"),
    "no fleet": (lambda plan: plan.model_copy(update={"fleet": ()}), "fleet is empty"),
    "range that is upside down": (
        lambda plan: plan.model_copy(update={"interval": {"usd_per_hour": Interval(low=9.0, high=1.0)}}),
        "interval usd_per_hour",
    ),
    "range beside its figure": (
        lambda plan: plan.model_copy(update={"interval": {"usd_per_hour": Interval(low=1.0, high=2.0)}}),
        "interval usd_per_hour",
    ),
    "range of nothing": (
        lambda plan: plan.model_copy(update={"interval": {"happiness": Interval(low=1.0, high=2.0)}}),
        "interval happiness",
    ),
    "more demand": (lambda plan: on_request(plan, demand_requests_per_s=1e6), "demand_requests_per_s"),
    "less demand": (lambda plan: on_request(plan, demand_requests_per_s=1.0), "demand_requests_per_s"),
    "less power to be had": (lambda plan: on_request(plan, power_kw=50.0), "power_kw"),
    "power on another basis": (lambda plan: on_request(plan, power_basis=PowerBasis.IT), "power_kw"),
    "smaller budget": (lambda plan: on_request(plan, budget_usd_per_hour=100.0), "budget"),
    "fewer in stock": (lambda plan: on_request(plan, inventory={"h100_sxm": 103}), "inventory"),
    "other regions": (lambda plan: on_request(plan, regions=("north",)), "region south"),
    "other markets": (lambda plan: on_request(plan, markets=("spot",)), "market on_demand"),
    "other accelerators": (lambda plan: on_request(plan, accelerators=("b200_sxm",)), "accelerator h100_sxm"),
    "accelerator not wanted": (lambda plan: on_request(plan, excluded_accelerators=("h100_sxm",)), "excluded"),
    "other frameworks": (lambda plan: on_request(plan, frameworks=("vllm",)), "framework sglang"),
    "other precisions": (lambda plan: on_request(plan, precisions=("bf16",)), "precision fp8"),
    "other cache precisions": (lambda plan: on_request(plan, kv_precisions=("bf16",)), "kv_precision fp8"),
    "other modes": (lambda plan: on_request(plan, modes=(ServingMode.AGG,)), "mode disagg"),
    "tighter tpot": (lambda plan: on_request(plan, sla=SLA.model_copy(update={"tpot_ms": 5.0})), "tpot_ms p99"),
    "tighter ttft": (lambda plan: on_request(plan, sla=SLA.model_copy(update={"ttft_ms": 9.0})), "ttft_ms p99"),
    "tighter e2e": (lambda plan: on_request(plan, sla=SLA.model_copy(update={"e2e_ms": 99.0})), "e2e_ms p99"),
    "longer prompts": (
        lambda plan: on_request(plan, workload=SHAPE.model_copy(update={"input_tokens": 2048.0})),
        "memory_gib kv",
    ),
    "longer than the context": (
        lambda plan: on_request(plan, workload=SHAPE.model_copy(update={"input_tokens": 1e6})),
        "takes",
    ),
}


@pytest.mark.parametrize("what", PLAN_TAMPERING)
def test_a_tampered_plan_is_named(what: str) -> None:
    change, figure = PLAN_TAMPERING[what]
    faults = check_plan(change(a_plan()), INPUTS)
    assert any(figure in fault for fault in faults), faults


def test_infeasible_plans_say_why_and_state_nothing() -> None:
    assert any("nothing says why" in fault for fault in check_plan(infeasible(nearest_feasible=()), INPUTS))
    assert any("power_kw is stated" in fault for fault in check_plan(infeasible(power_kw=3.0), INPUTS))


def test_no_more_units_than_an_offer_has() -> None:
    scarce = replace(INPUTS, offers=(replace(OFFER, available_units=9), *INPUTS.offers[1:]))
    assert any("takes 10 of eight-of-them" in fault for fault in check_plan(a_plan(), scarce))
    zones = replace(scarce, offers=(replace(OFFER, zone="north-2", available_units=1), *scarce.offers))
    assert check_plan(a_plan(), zones) == []


def test_accelerator_types_are_counted() -> None:
    plan = on_item(a_plan(), 0, to(accelerator="b200_sxm"))
    assert any("most_accelerator_types" in fault for fault in check_plan(plan, INPUTS))


def test_a_power_limit_needs_known_power() -> None:
    unknown = replace(H100, all_in_w=None, idle_w=None)
    inputs = replace(INPUTS, accelerators={**CATALOG.accelerators, "h100_sxm": unknown})
    plan = on_item(a_plan(), 0, to(power_kw=None, provisioned_kw=None))
    faults = [fault for fault in check_plan(plan, inputs) if fault.startswith("fleet[0]")]
    assert any("power_kw is not known, which a power limit needs" in fault for fault in faults)
    assert any("drawn_kw" in fault and "lacks" in fault for fault in faults)


def test_what_the_catalog_lacks_is_a_fault_and_not_an_exception() -> None:
    blunt = replace(H100, dense_flop_per_s={})
    inputs = replace(INPUTS, accelerators={**CATALOG.accelerators, "h100_sxm": blunt})
    assert any("no peak rate" in fault for fault in check_plan(a_plan(), inputs))


def test_traffic_beyond_saturation_is_named() -> None:
    plan = on_item(a_plan(), 0, times("requests_per_s", 5.0))
    assert any("more than its queues can settle" in fault for fault in check_plan(plan, INPUTS))


def test_faults_are_one_line_each() -> None:
    plan = on_request(on_item(a_plan(), 0, to(units=3, usd_per_hour=7.0)), demand_requests_per_s=1.0)
    faults = check_plan(plan, INPUTS)
    assert len(faults) > 3
    assert not any("\n" in fault or len(fault) > 250 for fault in faults)
    assert "fleet[0] (h100_sxm): 3 units of 8 hold 24 accelerators, not 80 (units, gpus_per_unit, gpus)" in faults


def test_deployments_of_one_shape_are_told_apart() -> None:
    """Evaluations are remembered: what differs must not be mixed up."""
    assert check_plan(a_plan(), INPUTS) == []
    slower = replace(H100, memory_bytes_per_s=H100.memory_bytes_per_s * 0.9)
    inputs = replace(INPUTS, accelerators={**CATALOG.accelerators, "h100_sxm": slower})
    assert any("tpot_ms" in fault for fault in check_plan(a_plan(), inputs))
    assert check_plan(a_plan(), INPUTS) == []
    assert isinstance(a_plan().fleet[0].deployment, Deployment)
