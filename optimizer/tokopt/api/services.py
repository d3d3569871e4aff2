"""For each class of requests: what it asks for, where it could run, and what that costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from tokopt.catalog import Catalog
from tokopt.domain.accelerators import Accelerator
from tokopt.domain.demand import Survive, WorkloadClass
from tokopt.domain.offers import Offer, PriceList
from tokopt.domain.plans import Objective, PlanRequest, PowerMode
from tokopt.errors import InputError, unknown_name
from tokopt.search import MixedReport, Search, SearchReport, SearchSpace, evaluated, find_candidates
from tokopt.search.space import Fleet
from tokopt.units import KW

from .columns import (
    PricedCandidate,
    allowed_offers,
    cheapest_offers,
    hardware_of,
    offer_key,
    priced,
    selected_prices,
    variants_of,
)
from .cuts import limits_to_plan_for
from .electricity import carbon_g_per_hour, carbon_matters
from .found import Found, Service
from .mixing import MixedSearch, cheapest_of, machines_of, mixed_candidates
from .power import Counting, count_drawn, counted_w, missing_power
from .progress import Progress, silent
from .requests import workload_of
from .space import search_space, supported
from .standing import same_setup


def gather(
    request: PlanRequest, catalog: Catalog, progress: Progress = silent, search: Search = find_candidates
) -> Found:
    """Load what a request needs, search every accelerator that has a price, and price what was found."""
    classes = request.served_classes()
    spaces = [class_space(request, catalog, asked) for asked in classes]
    prices = catalog.price_list(request.prices, rates=request.rates, selection=selected_prices(request))
    offers = offers_for(catalog, prices, request)
    units: dict[str, set[int]] = {}
    for offer in offers:
        units.setdefault(offer.accelerator, set()).add(offer.accelerator_count)
    known: dict[tuple[object, ...], Service] = {}
    services: list[Service] = []
    excluded: dict[str, str] = {}
    for number, (asked, space) in enumerate(zip(classes, spaces, strict=True)):
        limits = limits_to_plan_for(request, asked)
        key = (asked.llm, asked.workload.model_copy(update={"name": ""}), limits, asked.most_quality_loss)
        if key not in known:
            share = (number / len(classes), (number + 1) / len(classes))
            known[key] = _searched(request, catalog, space, units, excluded, _part(progress, *share), search)
        services.append(_with_standing(request, catalog, replace(known[key], workload=space.workload)))
    for name in request.accelerators:
        if hardware_of(name) not in units:
            excluded[name] = "no price for it in the price list"
    columns = priced_services(request, catalog, services, offers)
    mixed = MixedReport()
    if request.mixed_pools:
        columns += mixed_services(request, catalog, services, allowed_offers(prices.offers, request), columns, mixed)
    columns = _with_carbon_known(request, columns)
    counting = Counting()
    if request.power_mode is PowerMode.DRAWN:
        columns, counting = count_drawn(columns, request, catalog, [service.workload for service in services])
    used = {part.accelerator.name for c in columns for part in c.parts}
    for name in dict.fromkeys(name for service in services for name in service.reports):
        if name not in used and name not in excluded:
            excluded[name] = _why_no_column(request, name, services)
    return Found(
        request=request,
        catalog=catalog,
        prices=prices,
        services=tuple(services),
        excluded={name: why for name, why in excluded.items() if name not in used},
        columns=columns,
        counting=counting,
        mixed=mixed,
    )


def offers_for(catalog: Catalog, prices: PriceList, request: PlanRequest) -> list[Offer]:
    """Return the offers that a request may use, without those that another replaces.

    Raises:
        InputError: None is left.
    """
    allowed = allowed_offers(prices.offers, request)
    offers = cheapest_offers(allowed, places=places_matter(request), terms=terms_matter(request))
    if not offers:
        raise InputError(_no_offer(catalog.price_list(request.prices, rates=request.rates), request))
    return offers


def places_matter(request: PlanRequest) -> bool:
    """Whether it matters where a machine is, so that a dearer one elsewhere has its use."""
    return bool(request.site_power_kw or request.survive is Survive.ZONE or carbon_matters(request) or request.current)


def terms_matter(request: PlanRequest) -> bool:
    """Whether it matters on what terms a machine is had, so that a dearer one on others has its use."""
    return bool(request.periods or request.most_spot_share is not None or request.spot_reserve or request.current)


def needs_power(request: PlanRequest) -> bool:
    """Whether a plan cannot do without knowing what its accelerators take."""
    return bool(
        request.power_kw is not None
        or request.site_power_kw
        or carbon_matters(request)
        or Objective.POWER in (request.objective, *request.then)
    )


def class_space(request: PlanRequest, catalog: Catalog, asked: WorkloadClass) -> SearchSpace:
    """Return the space of one class of a request.

    Raises:
        InputError: A name that the catalog does not know, or a precision that the model does not have.
    """
    llm = catalog.llm(asked.llm)
    space = search_space(
        catalog,
        llm=llm,
        workload=workload_of(asked.workload),
        sla=limits_to_plan_for(request, asked),
        frameworks=request.frameworks,
        precisions=tuple(p for p in request.precisions if p in llm.precisions or not request.classes),
        kv_precisions=request.kv_precisions,
        modes=request.modes,
        disabled=request.disabled_features,
        expert_traffic=request.expert_traffic,
        robust=request.robust,
    )
    if space.workload.reuse is not None:
        power_w = None if request.power_kw is None else request.power_kw * KW
        space = replace(space, fleet=Fleet(requests_per_s=asked.demand_requests_per_s, power_w=power_w))
    if asked.most_quality_loss is None:
        return space
    pairs = [(p.name, kv) for p in space.precisions if p.name in llm.precisions for kv in space.kv_bits]
    if not any(llm.quality_loss(*pair) <= asked.most_quality_loss for pair in pairs):
        losses = {f"{weights} with a {kv} cache": llm.quality_loss(weights, kv) for weights, kv in pairs}
        known = [f"{pair} {loss:.2%}" for pair, loss in losses.items() if loss < math.inf]
        raise InputError(
            f"--max-quality-loss: no precision of {llm.name} is known to lose at most {asked.most_quality_loss:.3g}; "
            f"published: {', '.join(known) or 'nothing'}"
        )
    return replace(space, most_quality_loss=asked.most_quality_loss)


def _part(progress: Progress, start: float, end: float) -> Progress:
    return lambda what, done: progress(what, start + (end - start) * done)


def _searched(
    request: PlanRequest,
    catalog: Catalog,
    space: SearchSpace,
    units: Mapping[str, set[int]],
    excluded: dict[str, str],
    progress: Progress,
    search: Search,
) -> Service:
    """Return what a search of every accelerator finds for one class; why one cannot be used goes to `excluded`."""
    reports: dict[str, SearchReport] = {}
    for number, (hardware, sizes) in enumerate(units.items()):
        for accelerator in variants_of(hardware, request, catalog.accelerators):
            if hardware in excluded and accelerator.throttle is not None:
                continue  # what the accelerator itself cannot do, no power setting of it can
            progress(f"searching {accelerator.title}", number / len(units))
            reason = _unusable(accelerator, request, space)
            if not reason:
                report = search(accelerator, space, tuple(sorted(sizes)))
                reports[accelerator.name] = report
                reason = "" if report.candidates else _why_nothing(report, space)
            if reason:
                excluded[accelerator.name] = reason
    return Service(llm=space.llm, workload=space.workload, space=space, reports=reports)


def _with_standing(request: PlanRequest, catalog: Catalog, service: Service) -> Service:
    """Return a service whose candidates include what runs today, so that it may stay as it is."""
    reports = dict(service.reports)
    for unit in request.current:
        deployment = unit.deployment
        if deployment is None or deployment.llm != service.llm.name or unit.accelerator not in reports:
            continue
        if deployment.mixed:
            continue  # belongs to two accelerators: see `api/mixing.py`
        report = reports[unit.accelerator]
        if any(same_setup(candidate.deployment, deployment) for candidate in report.candidates):
            continue
        standing = evaluated(catalog.accelerators[unit.accelerator], service.space, deployment)
        if standing is not None:
            reports[unit.accelerator] = replace(report, candidates=[*report.candidates, standing])
    return replace(service, reports=reports)


def priced_services(
    request: PlanRequest, catalog: Catalog, services: Sequence[Service], offers: Sequence[Offer]
) -> list[PricedCandidate]:
    """Return the columns of all classes: each replica set-up serves the class that it was found for."""
    carbon = _carbon_of(request, catalog)
    columns: list[PricedCandidate] = []
    for number, service in enumerate(services):
        candidates = {name: report.candidates for name, report in service.reports.items()}
        columns += priced(
            candidates,
            offers,
            catalog.accelerators,
            lambda accelerator: counted_w(accelerator, request),
            service=number,
            services=len(services),
            first=len(columns),
            carbon=carbon,
        )
    return columns


def _carbon_of(request: PlanRequest, catalog: Catalog) -> Callable[[Offer, Accelerator], float]:
    """Return what gives the carbon of one unit of an offer, each looked up once. [g/h]"""
    matters = carbon_matters(request)
    known: dict[str, float] = {}

    def carbon(offer: Offer, accelerator: Accelerator) -> float:
        key = offer_key(offer)
        if key not in known:
            known[key] = carbon_g_per_hour(catalog, offer, accelerator, look_up=matters)
        return known[key]

    return carbon


def mixed_services(
    request: PlanRequest,
    catalog: Catalog,
    services: Sequence[Service],
    allowed: Sequence[Offer],
    columns: Sequence[PricedCandidate],
    tally: MixedReport,
) -> list[PricedCandidate]:
    """Return the columns of all classes whose pools are on different accelerators; what was looked at goes to `tally`.

    Both are bought at one place and on one market, so there the cheapest offer of each counts, not that of anywhere.
    """
    offers = cheapest_offers(allowed, places=True, terms=True)
    carbon = _carbon_of(request, catalog)
    found: list[PricedCandidate] = []
    for number, service in enumerate(services):
        search = MixedSearch(
            request=request,
            space=service.space,
            reports=service.reports,
            service=number,
            services=len(services),
            reached=cheapest_of(columns, request, number),
            alike=not (places_matter(request) or terms_matter(request)),
            tally=tally,
        )
        found += mixed_candidates(search, machines_of(offers, catalog.accelerators, search, carbon))
    return found


def _with_carbon_known(request: PlanRequest, columns: list[PricedCandidate]) -> list[PricedCandidate]:
    """Leave out what a request about carbon cannot judge: offers whose electricity is not known."""
    if not carbon_matters(request):
        return columns
    return [row for row in columns if not math.isnan(row.column.carbon_g_per_hour)]


def _why_no_column(request: PlanRequest, name: str, services: Sequence[Service]) -> str:
    if carbon_matters(request) and any(s.reports[name].candidates for s in services if name in s.reports):
        return "the carbon of its electricity is not known at any place on offer"
    return "no unit on offer is large enough for a replica, and smaller instances cannot be joined"


def _no_offer(prices: PriceList, request: PlanRequest) -> str:
    selections = {
        "accelerators": request.accelerators,
        "regions": request.regions,
        "markets": request.markets,
        "without": request.excluded_accelerators,
        "inventory": [f"{name}={most}" for name, most in request.inventory.items()],
    }
    asked = "; ".join(f"{what} {', '.join(values)}" for what, values in selections.items() if values)
    lists = ", ".join(request.prices)
    places = {offer.region for offer in prices.offers if offer.region}
    strange = next((name for name in request.regions if name not in places), None)
    if strange is not None and places:
        return f"--region: {unknown_name('region', strange, places)} ({lists})"
    there = ", ".join(sorted({o.accelerator for o in prices.offers}))
    return f"no offer in {lists} is left ({asked or 'none in stock'}); it has: {there or 'nothing'}"


def _unusable(accelerator: Accelerator, request: PlanRequest, space: SearchSpace) -> str:
    missing = missing_power(accelerator, request) if needs_power(request) else ""
    if missing:
        return missing
    if not supported(accelerator, space):
        return f"no framework in the catalog runs on it ({', '.join(f.name for f in space.frameworks)})"
    return ""


def _why_nothing(report: SearchReport, space: SearchSpace) -> str:
    if report.considered == 0:
        return "no framework serves the model there in the precisions asked for"
    if report.fastest_tpot_s == float("inf"):
        return "the model does not fit in any layout"
    limit_s = space.limits.tpot_s
    if report.fastest_tpot_s > limit_s:
        return f"its fastest TPOT is {report.fastest_tpot_s * 1e3:.1f} ms, above the limit of {limit_s * 1e3:g} ms"
    first_ms = report.fastest_first_token_s * 1e3
    return f"no set-up meets the limits (its fastest first token takes {first_ms:,.0f} ms at the same statistic)"
