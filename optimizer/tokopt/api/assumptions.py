"""What a plan takes for granted, and what it was made with."""

from __future__ import annotations

import math
from collections.abc import Iterable

from tokopt.domain.demand import Survive
from tokopt.domain.deployments import ServingMode
from tokopt.domain.features import Feature
from tokopt.domain.plans import FleetItem, PlanRequest, Provenance
from tokopt.domain.workloads import Workload
from tokopt.perf.constants import weakest_origin
from tokopt.search.caching import Caches
from tokopt.version import __version__

from .expert_traffic import said_of_traffic, spreads_experts
from .found import Found, Service
from .long_inputs import context_said, tried_said
from .power import said_of_power
from .speculating import acceptance_said
from .switched_off import switched_off_said, whole_prompts_said

SEED = 0  # nothing in a plan is random; recorded so that it stays true
INTERRUPTIBLE = "spot"


def assumptions_of(found: Found, items: tuple[FleetItem, ...]) -> tuple[str, ...]:
    """Return everything that a plan takes for granted, in sentences."""
    request = found.request
    said = [line for number in range(len(found.services)) for line in _of_class(found, number)]
    said += [
        "latencies are those of a queueing model of Poisson arrivals routed at random (--verify: and of a simulation)",
        f"no replica is loaded above 95 % of saturation; prices: {', '.join(request.prices)}",
        "a unit (instance, node or rack) hosts replicas of one set-up only",
        *_of_several(request),
        *_of_mixed(found),
        *_of_spot(found),
        *_of_dates(found, items),
    ]
    if request.robust:
        said.append(
            f"throughput {request.robust:.0%} below prediction, and latencies to match: every figure is for that case"
        )
    if request.power_kw is not None:
        said.append(f"the power limit counts {said_of_power(request)}")
    if request.current and request.change_usd_per_gpu:
        said.append(
            f"moving an accelerator costs ${request.change_usd_per_gpu:,.2f} once, spread over "
            f"{request.change_over_hours:,.0f} hours; it is weighed in the choice, not in usd_per_hour"
        )
    if any(spreads_experts(item.deployment) for item in items):
        said.append(said_of_traffic(found.catalog, request.expert_traffic))
    if any("two_batch_overlap" in item.features for item in items):
        said.append("a step runs as two halves wherever that takes less time: an engine's threshold is to be set so")
    said += _of_quality(found, items)
    said += _of_caches(found, items)
    said.append(tried_said(service.workload.input_tokens for service in found.services))
    said += context_said(item.deployment for item in items)
    llms = {service.llm.name for service in found.services}
    said += _of_speculators(found, items)
    said += switched_off_said(found.catalog, [item.deployment for item in items])
    said += _of_whole_prompts(found, items)
    own = (item.deployment for item in items if item.deployment.speculator is None)
    for depth in sorted({deployment.speculation_depth for deployment in own} - {0}):
        chances = llms <= found.catalog.calibration.acceptance.keys()
        origin = "published for the first token" if chances else "an assumption"
        said.append(f"multi-token prediction of depth {depth}: acceptance is {origin}")
    return tuple(said)


def _of_quality(found: Found, items: tuple[FleetItem, ...]) -> list[str]:
    """Say where a narrower precision may lose quality that nobody published."""
    unknown: list[str] = []
    for item in items:
        if item.quality_loss is None:
            llm = found.services[found.service_of(item)].llm
            weights = not math.isfinite(llm.quality_loss(item.precision))
            cache = not math.isfinite(llm.quality_loss(llm.native_precision, item.kv_precision))
            parts = [f"weights in {item.precision}"] * weights + [f"a cache in {item.kv_precision}"] * cache
            unknown.append(f"{llm.name} with {' and '.join(parts)}")
    if not unknown:
        return []
    return [
        f"loss of quality is unknown, since no scores are published: {'; '.join(dict.fromkeys(unknown))} "
        "(--max-quality-loss 100% refuses what is unknown)"
    ]


def _of_whole_prompts(found: Found, items: tuple[FleetItem, ...]) -> list[str]:
    """Say where prompts are not cut into chunks, and what that does to the next token of those who decode."""
    said = []
    for item in items:
        if not item.features.get(Feature.CHUNKED_PREFILL.value):
            prompt_s = found.row_of(item).candidate.profile.prompt_s
            running = min(max(round(item.mean_running_per_replica), 1), prompt_s.size)
            tokens = found.services[found.service_of(item)].workload.input_tokens
            said.append(whole_prompts_said(item.deployment, tokens, float(prompt_s[running - 1])))
    return list(dict.fromkeys(said))


def _of_speculators(found: Found, items: tuple[FleetItem, ...]) -> list[str]:
    """Return what is said of the speculators in a fleet: those that draft besides a checkpoint's own modules."""
    used = {
        (item.deployment.speculator, found.services[found.service_of(item)].workload.domain)
        for item in items
        if item.deployment.speculator is not None and item.deployment.speculation_depth
    }
    said = [acceptance_said(found.catalog.speculators[name], domain) for name, domain in sorted(used, key=str)]
    return [line for lines in said for line in lines]


def _of_class(found: Found, number: int) -> list[str]:
    asked, service = found.classes[number], found.services[number]
    workload, sla = service.workload, asked.sla
    named = f"{asked.name}: " if found.request.classes else ""
    limits = [
        f"{what} within {limit:,.4g} ms"
        for what, limit in (("TPOT, the time per output token,", sla.tpot_ms), ("E2E", sla.e2e_ms))
        if limit is not None
    ]
    if sla.ttft_ms is not None and not asked.ttft_by_default:
        limits.append(f"TTFT within {sla.ttft_ms / 1e3:.3g} s")
    said = [
        f"{named}model {service.llm.title}; workload {workload.name}: {workload.input_tokens:,.0f} tokens in, "
        f"{workload.output_tokens:,.0f} out on average (variation {workload.input_cv:.3g} and "
        f"{workload.output_cv:.3g}), {_cached(workload)}",
        f"{named}limits hold at {sla.statistic.value} over requests: {', '.join(limits) or 'none'}",
    ]
    if sla.ttft_ms is not None and asked.ttft_by_default:
        said.append(f"{named}TTFT limit {sla.ttft_ms / 1e3:.3g} s by default (2 s and 1 ms a prompt token)")
    if asked.demand_requests_per_s is None and number == 0:
        said.append("no demand given: the fleet fills its limits at the lowest cost per token")
    if asked.most_quality_loss is not None:
        said.append(
            f"{named}only precisions of weights and cache that are known to lose at most {asked.most_quality_loss:.3g} "
            "of the original's scores"
        )
    return said


def _cached(workload: Workload) -> str:
    if workload.reuse is None:
        return f"{workload.prefix_share * 100:.0f} % of prompts cached"
    return f"{workload.prefix_share * 100:.0f} % of prompts could be found in an endless cache"


def _of_caches(found: Found, items: tuple[FleetItem, ...]) -> list[str]:
    """Say what hit shares rest on, and what routing by chance would make of them."""
    said: dict[str, str] = {}
    for item in items:
        caching, service = item.deployment.caching, found.services[found.service_of(item)]
        if caching is None or service.workload.reuse is None:
            continue
        rate = item.capacity_requests_per_s
        spread = f"{caching.replicas:,.0f} replicas" if caching.replicas else "a number of replicas that is not known"
        line = (
            f"{item.accelerator}: {caching.hit_share:.1%} of prompt tokens found in prefix caches (LRU, at saturation, "
            f"traffic spread over {spread}; published constants, not fitted to measurements)"
        )
        if caching.router.returns and caching.replicas and caching.replicas > 1.0 and rate > 0.0:
            by_chance = caches_of(item, service).by_chance(item.concurrency_per_replica, rate, caching)
            line += f"; routed at random it would be {by_chance:.1%}"
        said[line] = ""
    return list(said)


def caches_of(item: FleetItem, service: Service) -> Caches:
    """Return the caches of an item's replicas."""
    candidates = service.reports[item.accelerator].candidates
    family = next(c.family for c in candidates if c.deployment == item.deployment)
    return Caches(family, service.workload, item.deployment, service.space.fleet)


def _of_several(request: PlanRequest) -> list[str]:
    said = []
    if request.classes:
        said.append("a replica serves requests of one class; classes share power, money and stock")
    if request.periods:
        hours = sum(period.hours for period in request.periods)
        said.append(
            f"{len(request.periods)} periods, {hours:,.4g} hours in all: owned and reserved units are paid throughout, "
            "units on demand and spot as they are needed; costs are means over the horizon"
        )
        idle = [c.name for c in request.classes if not any(period.factor(c.name) for period in request.periods)]
        if idle:
            said.append(f"nothing is asked of {', '.join(idle)} in any period, and nothing bought for it")
    if request.survive is not Survive.NOTHING:
        what = "any one unit" if request.survive is Survive.NODE else "all units of any one zone"
        said.append(f"the demand is still served after {what} failed; limits on latency hold then, too")
    return said


def _of_mixed(found: Found) -> list[str]:
    request = found.request
    if not request.mixed_pools:
        return []
    spaces = [service.space for service in found.services]
    if not any(ServingMode.DISAGG in space.modes and Feature.DISAGG not in space.disabled for space in spaces):
        return ["prefill and decode are not in pools of their own, so none are on different accelerators"]
    said = [
        "pools may be on different accelerators of one vendor, bought as whole nodes at one place and on one market; "
        "caches move over links between nodes, as fast as the slower end, and the framework is taken to do so"
    ]
    if any(service.workload.reuse is not None for service in found.services):
        said.append("where prompts repeat, both pools are on one accelerator: caches over two are not modelled")
    return said


def _of_spot(found: Found) -> list[str]:
    request = found.request
    if INTERRUPTIBLE not in request.markets:
        if any(o.market.value == INTERRUPTIBLE for o in found.prices.offers):
            return ["spot offers are left out; --market spot,on_demand takes them in"]
        return []
    share = "" if request.most_spot_share is None else f", at most {request.most_spot_share:.0%} of each class on them"
    return [f"spot units can be taken away: {request.spot_reserve:.0%} of their capacity stays idle{share}"]


def _of_dates(found: Found, items: tuple[FleetItem, ...]) -> list[str]:
    """Return what is said of offers in the fleet that can be had from a date only."""
    used = {(i.provider, i.region, i.market, p.instance_type, p.accelerator) for i in items for p in i.bought}
    offers = [part.offer for row in found.columns for part in row.parts if part.offer.available_from]
    dated = {
        (o.accelerator, o.provider, o.available_from)
        for o in offers
        if (o.provider, o.region, o.market.value, o.instance_type, o.accelerator) in used
    }
    when = "the plan is for a time when it is there"
    if found.request.periods:
        when = "it is used in periods that start on that day or later"
    return [f"{name} of {provider} can be had from {day}; {when}" for name, provider, day in sorted(dated)]


def plan_provenance(found: Found, solver: str, items: tuple[FleetItem, ...]) -> Provenance:
    """Return what a plan was made with."""
    calibration = found.catalog.calibration
    used = {part.accelerator for item in items for part in item.bought}
    sources = {
        f"{name}.{field}": source
        for name in sorted(used)
        for field, source in sorted(found.catalog.accelerators[name].sources.items())
    }
    for service in found.services:
        sources[service.llm.name] = service.llm.source
        known = found.catalog.workloads.get(service.workload.name)
        sources[f"workload {service.workload.name}"] = known.source if known else "the request"
    return Provenance(
        tokopt_version=__version__,
        catalog_version=found.catalog.version,
        calibration=calibration.version,
        calibration_made_on=calibration.made_on,
        calibration_summary=calibration.summary,
        constants_origin=weakest_origin(entry.origin for entry in calibration.entries.values()).value,
        price_lists=found.request.prices,
        prices_as_of=found.prices.as_of,
        used_prices_as_of=_dates(part.price_as_of for item in items for part in item.bought),
        rejected_price_rows=dict(found.prices.rejected_counts),
        solver=solver,
        seed=SEED,
        sources=sources,
    )


def _dates(as_of: Iterable[str]) -> str:
    """Return the oldest and the newest of some dates."""
    dates = sorted({date for date in as_of if date})
    return dates[0] if len(dates) == 1 else " to ".join(dates[:1] + dates[-1:])
