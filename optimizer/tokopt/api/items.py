"""One fleet item: replicas of a set-up on an offer, with everything a plan says of them."""

from __future__ import annotations

import math

import numpy as np

from tokopt.cost import usd_per_million_tokens
from tokopt.domain.accelerators import Accelerator
from tokopt.domain.deployments import Deployment, ServingMode
from tokopt.domain.estimates import LatencyMs, MemoryGib
from tokopt.domain.plans import FleetItem, PowerBasis
from tokopt.domain.workloads import Workload
from tokopt.perf.deployed import decode_layout, decode_worker
from tokopt.perf.describe import memory_shares, replica_drawn_w, steady_at, time_shares
from tokopt.perf.queueing import Loaded, at_rate
from tokopt.perf.replica import Worker
from tokopt.perf.serving import Steady
from tokopt.search import Candidate
from tokopt.search.space import Family
from tokopt.units import GIB, KW, MS

from .columns import PricedCandidate


def latency_ms(seconds: dict[str, float]) -> LatencyMs:
    """Return a latency in milliseconds."""
    return LatencyMs(**{name: seconds[name] / MS for name in ("mean", "p50", "p90", "p99")})


def decoder(family: Family, deployment: Deployment) -> Worker:
    """Return the decoding worker of a deployment as the performance model takes it."""
    return decode_worker(deployment, float(family.accepted[deployment.speculation_depth]))


def features(family: Family, deployment: Deployment) -> dict[str, int | float | str | bool]:
    """Return what is switched on in a deployment, with its setting."""
    on: dict[str, int | float | str | bool] = {
        "continuous_batching": True,
        "chunk_tokens": deployment.chunk_tokens,
        "kv_precision": deployment.kv_precision,
    }
    if deployment.speculation_depth:
        on["mtp_depth"] = deployment.speculation_depth
        on["tokens_per_step"] = float(family.accepted[deployment.speculation_depth])
    if deployment.mode is ServingMode.DISAGG:
        on["disaggregated"] = True
    layout, _ = decode_layout(deployment)
    if layout.ep > 1:
        on["expert_parallel"] = layout.ep
    if layout.dp > 1:
        on["attention_data_parallel"] = layout.dp
    return on


def mean_state(candidate: Candidate, workload: Workload, loaded: Loaded) -> Steady:
    """Return the steady state of a decoding worker at the mean occupancy of a loaded replica."""
    _, workers = decode_layout(candidate.deployment)
    worker = decoder(candidate.family, candidate.deployment)
    prefill = candidate.deployment.mode is ServingMode.AGG
    return steady_at(
        candidate.family.model,
        candidate.family.machine,
        worker,
        workload,
        running=loaded.mean_in_service / workers,
        prefill=prefill,
    )


def memory_gib(family: Family, deployment: Deployment, workload: Workload, cap: int) -> MemoryGib:
    """Return the memory of the fullest accelerator of a decoding worker when its running cap is reached."""
    _, workers = decode_layout(deployment)
    shares = memory_shares(
        family.model,
        family.machine,
        decoder(family, deployment),
        workload,
        slots=cap // workers,
        prefill=deployment.mode is ServingMode.AGG,
    )
    return MemoryGib(weights=shares.weights / GIB, kv=shares.kv / GIB, other=shares.other / GIB, free=shares.free / GIB)


def kw(watts: float | None, accelerators: int) -> float | None:
    """Return the power of `accelerators` of `watts` each, None where it is not known. [kW]"""
    return None if watts is None else watts * accelerators / KW


def on_basis(accelerator: Accelerator, accelerators: int, basis: PowerBasis) -> float | None:
    """Return the power that counts against a limit on `basis`. [kW]"""
    watts = accelerator.all_in_w if basis is PowerBasis.UTILITY else accelerator.server_w
    return kw(watts, accelerators)


def fleet_item(
    row: PricedCandidate, *, blocks: int, rate: float, share: float, workload: Workload, basis: PowerBasis
) -> FleetItem:
    """Return the item for `blocks` of a column that takes `rate` requests a second."""
    candidate, offer, accelerator = row.candidate, row.offer, row.accelerator
    deployment, family = candidate.deployment, candidate.family
    replicas, units = blocks * row.column.replicas_per_block, blocks * row.column.units_per_block
    gpus = units * offer.accelerator_count
    loaded = at_rate(candidate.profile, rate / replicas)
    state = mean_state(candidate, workload, loaded)
    layout, _ = decode_layout(deployment)
    cap = deployment.max_running_requests or 0
    drawn = replica_drawn_w(
        accelerator,
        candidate.family.machine,
        accelerators=gpus,
        busy=loaded.busy,
        compute_share=float(np.squeeze(state.compute_share)),
    )
    shares = time_shares(state)
    return FleetItem(
        accelerator=accelerator.name,
        provider=offer.provider,
        region=offer.region,
        market=offer.market.value,
        instance_type=offer.instance_type,
        model=deployment.llm,
        precision=deployment.precision,
        kv_precision=deployment.kv_precision,
        framework=deployment.framework,
        mode=deployment.mode,
        deployment=deployment,
        tp=layout.tp,
        pp=layout.pp,
        ep=layout.ep,
        dp=layout.dp,
        prefill=deployment.prefill,
        decode=deployment.decode,
        features=features(family, deployment),
        concurrency_per_replica=cap,
        mean_running_per_replica=loaded.mean_in_service,
        load=loaded.load,
        replicas=replicas,
        gpus=gpus,
        gpus_per_replica=candidate.accelerators,
        units=units,
        gpus_per_unit=offer.accelerator_count,
        nodes=math.ceil(gpus / accelerator.accelerators_per_node),
        usd_per_unit_hour=offer.usd_per_hour,
        usd_per_hour=units * offer.usd_per_hour,
        power_kw=on_basis(accelerator, gpus, basis),
        provisioned_kw=kw(accelerator.all_in_w, gpus),
        rated_kw=kw(accelerator.server_w, gpus),
        drawn_kw=None if drawn is None else drawn / KW,
        requests_per_s=rate,
        output_tokens_per_s=rate * workload.output_tokens,
        capacity_requests_per_s=candidate.capacity_requests_per_s,
        share_of_traffic={workload.name: share},
        ttft_ms=latency_ms(loaded.ttft_s),
        tpot_ms=latency_ms(loaded.tpot_s),
        e2e_ms=latency_ms(loaded.e2e_s),
        memory_gib=memory_gib(family, deployment, workload, cap),
        bottleneck=max(shares, key=lambda name: shares[name]),
        price_source=offer.source,
        price_as_of=offer.as_of,
        price_flags=offer.flags,
    )


def usd_per_million(usd_per_hour: float, tokens_per_s: float) -> float:
    """Return the cost of a million tokens. [USD]"""
    return float(usd_per_million_tokens(usd_per_hour, tokens_per_s))
