"""One fleet item: replicas of a set-up on an offer, with everything a plan says of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tokopt.catalog import Catalog
from tokopt.cost import usd_per_million_tokens
from tokopt.domain.deployments import Deployment, ServingMode
from tokopt.domain.estimates import LatencyMs, MemoryGib
from tokopt.domain.features import ON_BY_DEFAULT, Feature
from tokopt.domain.llms import Llm
from tokopt.domain.plans import FleetItem, ItemPart, ItemPeriod, PlanRequest
from tokopt.domain.workloads import Workload
from tokopt.perf.caching import served
from tokopt.perf.deployed import decode_layout, decode_worker
from tokopt.perf.describe import memory_shares, steady_at, time_shares
from tokopt.perf.fluctuation import Draw
from tokopt.perf.queueing import Loaded, at_rate, saturation
from tokopt.perf.replica import Worker
from tokopt.perf.serving import Steady
from tokopt.search import Candidate
from tokopt.search.space import Family
from tokopt.units import GIB, KW, MS

from .bought import Bought
from .exchanges import all_to_all
from .expert_traffic import layouts_by_role
from .found import Found
from .power import counted_w, fleet_draw, with_peaks


def latency_ms(seconds: dict[str, float]) -> LatencyMs:
    """Return a latency in milliseconds."""
    return LatencyMs(**{name: seconds[name] / MS for name in ("mean", "p50", "p90", "p99")})


def decoder(family: Family, deployment: Deployment) -> Worker:
    """Return the decoding worker of a deployment as the performance model takes it."""
    return decode_worker(deployment, float(family.accepted[deployment.speculation_depth]))


def known_loss(llm: Llm, deployment: Deployment) -> float | None:
    """Return the share of the original's scores that a deployment's precisions lose, None where nobody published it."""
    loss = llm.quality_loss(deployment.precision, deployment.kv_precision)
    return loss if math.isfinite(loss) else None


def features(family: Family, deployment: Deployment) -> dict[str, int | float | str | bool]:
    """Return what is switched on in a deployment, with its setting."""
    on: dict[str, int | float | str | bool] = {
        "continuous_batching": True,
        "chunk_tokens": deployment.chunk_tokens,
        "kv_precision": deployment.kv_precision,
        **{feature.value: True for feature in ON_BY_DEFAULT if feature in family.features},
    }
    if deployment.speculation_depth:
        on["speculation"] = family.speculator.method.value if family.speculator else Feature.MTP.value
        if family.speculator is None:
            on["mtp_depth"] = deployment.speculation_depth
        else:
            on["speculator"] = family.speculator.name
        on["speculation_depth"] = deployment.speculation_depth
        on["tokens_per_step"] = float(family.accepted[deployment.speculation_depth])
    if deployment.mode is ServingMode.DISAGG:
        on["disaggregated"] = True
    if deployment.mixed:
        on["prefill_accelerator"] = deployment.prefill_accelerator
    if deployment.caching is not None:
        caching = deployment.caching
        on |= {"prefix_hit_share": caching.hit_share, "router": caching.router.value}
        on |= {"device_hit_share": caching.device_share, "kv_offload": caching.offload.value}
    layout, _ = decode_layout(deployment)
    if layout.ep > 1:
        on["expert_parallel"] = layout.ep
    if layout.dp > 1:
        on["attention_data_parallel"] = layout.dp
    prompts = layout if deployment.prefill is None else deployment.prefill.layout
    if prompts.cp > 1:
        on["prefill_context_parallel"] = prompts.cp
    if layout.dcp > 1:
        on["decode_context_parallel"] = layout.dcp
    layouts = layouts_by_role(deployment)
    copies = max(each.redundant_experts for each in layouts.values())
    if copies:
        on["redundant_experts"] = copies
    halved = [role for role, each in layouts.items() if each.two_batch_overlap]
    if halved:
        on["two_batch_overlap"] = " and ".join(halved)
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
        served(workload, candidate.deployment.caching),
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


def serving_fields(llm: Llm, candidate: Candidate, workload: Workload, rate: float) -> dict[str, Any]:
    """Return the fields of an item that its set-up and the rate of a replica decide. `rate` is below saturation."""
    deployment, family = candidate.deployment, candidate.family
    loaded = at_rate(candidate.profile, rate)
    shares = time_shares(mean_state(candidate, workload, loaded))
    layout, _ = decode_layout(deployment)
    cap = deployment.max_running_requests or 0
    return {
        "model": deployment.llm,
        "precision": deployment.precision,
        "kv_precision": deployment.kv_precision,
        "framework": deployment.framework,
        "quality_loss": known_loss(llm, deployment),
        "mode": deployment.mode,
        "deployment": deployment,
        "tp": layout.tp,
        "pp": layout.pp,
        "ep": layout.ep,
        "dp": layout.dp,
        "cp": deployment.prefill.layout.cp if deployment.prefill is not None else layout.cp,
        "dcp": layout.dcp,
        "prefill": deployment.prefill,
        "decode": deployment.decode,
        "features": features(family, deployment),
        "concurrency_per_replica": cap,
        "mean_running_per_replica": loaded.mean_in_service,
        "load": loaded.load,
        "gpus_per_replica": candidate.accelerators,
        "capacity_requests_per_s": candidate.capacity_requests_per_s,
        "ttft_ms": latency_ms(loaded.ttft_s),
        "tpot_ms": latency_ms(loaded.tpot_s),
        "e2e_ms": latency_ms(loaded.e2e_s),
        "memory_gib": memory_gib(family, deployment, workload, cap),
        "bottleneck": max(shares, key=lambda name: shares[name]),
        "all_to_all": all_to_all(family, deployment, workload),
    }


def fleet_items(found: Found, rows: Sequence[Bought]) -> tuple[FleetItem, ...]:
    """Return the items of a fleet, in the order of its columns, with what each draws and counts."""
    served: dict[int, float] = {}
    for bought in rows:
        served[bought.row.service] = served.get(bought.row.service, 0.0) + bought.rate
    draws = [_draw(found, bought) for bought in rows]
    items = [
        fleet_item(found, bought, total=served[bought.row.service], drawn_w=None if draw is None else draw.mean_w)
        for bought, draw in zip(rows, draws, strict=True)
    ]
    stated = with_peaks(items, draws, found.request, found.catalog, found.counting)
    if not found.request.periods:
        return stated
    return tuple(
        item.model_copy(update={"by_period": _by_period(found, bought, item.power_kw)})
        for item, bought in zip(stated, rows, strict=True)
    )


def _draw(found: Found, bought: Bought) -> Draw | None:
    """Return what a column draws in the period in which most of it runs."""
    t = max(range(len(bought.blocks)), key=lambda n: (bought.blocks[n], bought.rates[n]))
    workload = found.services[bought.row.service].workload
    return fleet_draw(bought.row, workload, blocks=bought.blocks[t], rate=bought.rates[t])


def fleet_item(found: Found, bought: Bought, *, total: float, drawn_w: float | None) -> FleetItem:
    """Return the item of a column: sizes of the period with most units, latencies of the one with the highest load.

    Args:
        found: The request and what was found for it.
        bought: Blocks and requests of the column.
        total: Requests/s of its class over the whole fleet.
        drawn_w: What all of it draws on average, where that is known.
    """
    row = bought.row
    candidate, offer = row.candidate, row.offer
    asked, service = found.classes[row.service], found.services[row.service]
    parts = _parts(found, bought)
    t = bought.fullest
    rate = bought.rates[t] / (bought.blocks[t] * row.column.replicas_per_block)
    return FleetItem(
        **serving_fields(service.llm, candidate, service.workload, rate),
        accelerator=row.accelerator.name,
        provider=offer.provider,
        region=offer.region,
        market=offer.market.value,
        instance_type=offer.instance_type,
        replicas=bought.most_blocks * row.column.replicas_per_block,
        gpus=sum(part.gpus for part in parts),
        units=sum(part.units for part in parts),
        gpus_per_unit=offer.accelerator_count,
        nodes=sum(part.nodes for part in parts),
        usd_per_unit_hour=offer.usd_per_hour,
        carbon_usd_per_unit_hour=parts[0].carbon_usd_per_unit_hour,
        usd_per_hour=sum(part.usd_per_hour for part in parts),
        power_kw=together([counted_kw(found.catalog, found.request, part.accelerator, part.gpus) for part in parts]),
        provisioned_kw=together([part.provisioned_kw for part in parts]),
        rated_kw=together([part.rated_kw for part in parts]),
        drawn_kw=None if drawn_w is None else drawn_w / KW,
        requests_per_s=bought.rate,
        output_tokens_per_s=bought.rate * service.workload.output_tokens,
        share_of_traffic={asked.name: bought.rate / total},
        price_source=offer.source,
        price_as_of=offer.as_of,
        price_flags=offer.flags,
        parts=parts if len(parts) > 1 else (),
    )


def counted_kw(catalog: Catalog, request: PlanRequest, accelerator: str, gpus: int) -> float | None:
    """Return what accelerators count in a request's mode, None where that is not known. [kW]"""
    watts = counted_w(catalog.accelerators[accelerator], request)
    return kw(None if math.isnan(watts) else watts, gpus)


def together(values: Sequence[float | None]) -> float | None:
    """Return a sum, None as soon as a part is not known."""
    total = 0.0
    for value in values:
        if value is None:
            return None
        total += value
    return total


def _parts(found: Found, bought: Bought) -> tuple[ItemPart, ...]:
    """Return what an item buys of each offer."""
    row = bought.row
    parts = []
    for number, part in enumerate(row.parts):
        before, now = (column.held[number] for column in (row.column, bought.column))
        offer, accelerator, units = part.offer, part.accelerator, bought.most_blocks * part.units
        gpus = units * offer.accelerator_count
        charge = now.usd_per_hour - before.usd_per_hour
        paid = units * offer.usd_per_hour
        if found.request.periods or charge:
            paid = bought.mean_usd_per_hour(now.usd_per_hour_by_period or (now.usd_per_hour,) * len(bought.hours))
        parts.append(
            ItemPart(
                pool="" if row.beside is None else "decode" if number == 0 else "prefill",
                accelerator=accelerator.name,
                instance_type=offer.instance_type,
                units=units,
                gpus=gpus,
                gpus_per_unit=offer.accelerator_count,
                nodes=math.ceil(gpus / accelerator.accelerators_per_node),
                usd_per_unit_hour=offer.usd_per_hour,
                carbon_usd_per_unit_hour=charge / part.units,
                usd_per_hour=paid,
                provisioned_kw=kw(accelerator.all_in_w, gpus),
                rated_kw=kw(accelerator.server_w, gpus),
                price_source=offer.source,
                price_as_of=offer.as_of,
                price_flags=offer.flags,
            )
        )
    return tuple(parts)


def _by_period(found: Found, bought: Bought, power_kw: float | None) -> tuple[ItemPeriod, ...]:
    """Return what an item does in each period; each unit counts its part of the item's power."""
    row, periods = bought.row, found.request.periods
    able = row.column.replicas_per_block * saturation(row.candidate.profile)
    return tuple(
        ItemPeriod(
            period=period.name,
            units=n * row.column.units_per_block,
            requests_per_s=rate,
            load=rate / (n * able) if n else 0.0,
            usd_per_hour=n * usd,
            power_kw=None if power_kw is None else power_kw / bought.most_blocks * n,
        )
        for period, n, rate, usd in zip(periods, bought.blocks, bought.rates, bought.usd_per_block_hour, strict=True)
    )


def peak_kw(items: Sequence[FleetItem]) -> float | None:
    """Return the power of the period that needs most, None where a part is not known. [kW]"""
    if not items or any(item.power_kw is None for item in items):
        return None
    if not items[0].by_period:
        return sum(item.power_kw or 0.0 for item in items)
    return max(sum(item.by_period[t].power_kw or 0.0 for item in items) for t in range(len(items[0].by_period)))


def usd_per_million(usd_per_hour: float, tokens_per_s: float) -> float:
    """Return the cost of a million tokens. [USD]"""
    return float(usd_per_million_tokens(usd_per_hour, tokens_per_s))
