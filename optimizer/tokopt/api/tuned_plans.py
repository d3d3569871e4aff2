"""A plan with tuned settings: what the closed-form model says of them, at rates that it and the simulator both keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokopt.catalog import Catalog
from tokopt.domain.estimates import Interval
from tokopt.domain.plans import ClassPlan, FleetItem, Plan, PowerMode, PowerSettings, Status
from tokopt.domain.simulations import Routing
from tokopt.perf.fluctuation import Draw
from tokopt.perf.queueing import saturation
from tokopt.search import Candidate
from tokopt.search.fixed import as_given
from tokopt.search.space import family_of
from tokopt.units import KW

from .items import counted_kw, kw, peak_kw, serving_fields, together, usd_per_million
from .power import Counting, replicas_draw, with_peaks
from .requests import workload_of
from .services import class_space
from .simulated_fleet import ROUTER
from .sound_plans import class_of
from .tuning_knobs import Setup

NEAR_SATURATION = 0.995  # beyond it the model has no latencies to state


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """An item's new settings."""

    number: int  # of the item, from 0
    setup: Setup
    load: float  # of the planned rate, that they keep the limits at for sure in simulation
    planned_rate: float  # of a replica


@dataclass(frozen=True, slots=True, kw_only=True)
class Restated:
    """A plan with new settings, and what has to be said of it."""

    plan: Plan
    rates: Mapping[int, tuple[float, float]]  # of a replica, before and after, by item


def tuned_plan(catalog: Catalog, plan: Plan, changed: Sequence[Tuned], said: Sequence[str], *, alone: bool) -> Restated:
    """Return a plan with some items' settings changed; units, offers and demands are as they were.

    Where a demand was asked for, it still is what is served. A fleet that fills a limit serves what the new settings
    keep the limits at: in simulation and by the closed-form model, or in simulation `alone`.

    Args:
        catalog: What the plan's names mean.
        plan: The plan as it was.
        changed: Items with new settings.
        said: What is added to the assumptions.
        alone: The model does not matter.
    """
    if not changed:
        return Restated(plan=plan, rates={})
    by_number = {each.number: each for each in changed}
    items, candidates, rates = [], [], {}
    for number, item in enumerate(plan.fleet):
        tuned = by_number.get(number)
        candidate = _as_planned(catalog, plan, item) if tuned is None else tuned.setup.candidate
        candidates.append(candidate)
        if tuned is not None:
            rate = rate_of(plan, item, tuned, alone=alone)
            rates[number] = (tuned.planned_rate, rate)
            item = _restated(catalog, plan, item, tuned, rate)
        items.append(item)
    fleet = _with_power(catalog, plan, _with_shares(items), candidates)
    return Restated(plan=_totals(plan, fleet, changed, said), rates=rates)


def _as_planned(catalog: Catalog, plan: Plan, item: FleetItem) -> Candidate | None:
    """Return what the model says of an item that stays as it is."""
    asked = class_of(plan, item)
    space, deployment = class_space(plan.request, catalog, asked), item.deployment
    families = [
        family_of(space, catalog.accelerators[name], deployment)
        for name in dict.fromkeys((deployment.accelerator, deployment.prefill_accelerator))
    ]
    if families[0] is None or families[-1] is None:
        return None
    return as_given(space, families[0], deployment, sending=families[1] if deployment.mixed else None)


def rate_of(plan: Plan, item: FleetItem, tuned: Tuned, *, alone: bool) -> float:
    """Return what a plan has a replica serve in the period that loads it most. [requests/s]"""
    candidate, rate = tuned.setup.candidate, tuned.planned_rate
    if class_of(plan, item).demand_requests_per_s is None:
        rate = tuned.load * tuned.planned_rate
        if not alone:
            rate = min(rate, candidate.capacity_requests_per_s)
        if plan.request.power_mode is PowerMode.DRAWN:
            rate = min(rate, tuned.planned_rate)  # what is drawn fills the limit already
    return float(min(rate, NEAR_SATURATION * saturation(candidate.profile)))


def _restated(catalog: Catalog, plan: Plan, item: FleetItem, tuned: Tuned, rate: float) -> FleetItem:
    """Return an item with new settings whose replicas serve a rate."""
    asked = class_of(plan, item)
    candidate, workload, factor = tuned.setup.candidate, workload_of(asked.workload), rate / tuned.planned_rate
    fields: dict[str, Any] = serving_fields(catalog.llm(asked.llm), candidate, workload, rate)
    if item.deployment.caching is not None or tuned.setup.router is not Routing.RANDOM:
        fields["features"] = fields["features"] | {ROUTER: tuned.setup.router.value}
    fields["capacity_requests_per_s"] = max(candidate.capacity_requests_per_s, 0.0) or rate
    requests = item.requests_per_s * factor
    fields |= {
        "accelerator": candidate.deployment.accelerator,
        "requests_per_s": requests,
        "output_tokens_per_s": requests * workload.output_tokens,
        "by_period": tuple(
            each.model_copy(
                update={
                    "requests_per_s": each.requests_per_s * factor,
                    "load": _load(item, each.units, each.requests_per_s * factor, candidate),
                }
            )
            for each in item.by_period
        ),
    }
    if not item.parts:
        name, accelerator = candidate.deployment.accelerator, catalog.accelerators[candidate.deployment.accelerator]
        fields |= {
            "provisioned_kw": kw(accelerator.all_in_w, item.gpus),
            "rated_kw": kw(accelerator.server_w, item.gpus),
            "power_kw": counted_kw(catalog, plan.request, name, item.gpus),
        }
    return item.model_copy(update=fields)


def _load(item: FleetItem, units: int, rate: float, candidate: Candidate) -> float:
    """Return the load of replicas in a period."""
    return rate / item.replicas_with(units) / saturation(candidate.profile) if units else 0.0


def _with_shares(items: Sequence[FleetItem]) -> list[FleetItem]:
    """Return items with their shares of their classes' requests."""
    total: dict[str, float] = {}
    for item in items:
        total[item.of_class] = total.get(item.of_class, 0.0) + item.requests_per_s
    return [
        item.model_copy(update={"share_of_traffic": {item.of_class: item.requests_per_s / total[item.of_class]}})
        if total[item.of_class]
        else item
        for item in items
    ]


def _with_power(
    catalog: Catalog, plan: Plan, items: Sequence[FleetItem], candidates: Sequence[Candidate | None]
) -> tuple[FleetItem, ...]:
    """Return items with what each draws, on average and but for a chance of more."""
    draws: list[Draw | None] = []
    for item, candidate in zip(items, candidates, strict=True):
        asked = class_of(plan, item)
        if candidate is None:
            draws.append(None)
            continue
        replicas, rate, share = item.replicas, item.requests_per_s, 1.0
        if item.by_period:  # of the period in which most of it runs
            fullest = max(item.by_period, key=lambda each: (each.units, each.requests_per_s))
            replicas, rate = item.replicas_with(fullest.units), fullest.requests_per_s
            share = fullest.units / max(each.units for each in item.by_period)
        held = [round(part.gpus * share) for part in item.bought]
        draws.append(replicas_draw(candidate, workload_of(asked.workload), replicas, rate, held))
    drawn = [
        item if draw is None else item.model_copy(update={"drawn_kw": draw.mean_w / KW})
        for item, draw in zip(items, draws, strict=True)
    ]
    stated = with_peaks(drawn, draws, plan.request, catalog, Counting())
    return tuple(_by_period(item) for item in stated)


def _by_period(item: FleetItem) -> FleetItem:
    """Return an item whose periods count their units' part of its power."""
    if not item.by_period:
        return item
    most = max(each.units for each in item.by_period)
    power = item.power_kw
    return item.model_copy(
        update={
            "by_period": tuple(
                each.model_copy(update={"power_kw": None if power is None else power / most * each.units})
                for each in item.by_period
            )
        }
    )


def _totals(plan: Plan, fleet: tuple[FleetItem, ...], changed: Sequence[Tuned], said: Sequence[str]) -> Plan:
    """Return a plan with another fleet on the same units; what bound the old one is not told."""
    usd = sum(item.usd_per_hour for item in fleet)
    output = sum(item.output_tokens_per_s for item in fleet)
    total = 0.0
    for item in fleet:
        asked = class_of(plan, item)
        total += item.requests_per_s * (asked.workload.input_tokens + asked.workload.output_tokens)
    power = peak_kw(fleet)
    figures: dict[str, float | None] = {
        "usd_per_hour": usd,
        "usd_per_million_output_tokens": usd_per_million(usd, output),
        "usd_per_million_total_tokens": usd_per_million(usd, total),
        "output_tokens_per_s": output,
        "total_tokens_per_s": total,
        "requests_per_s": sum(item.requests_per_s for item in fleet),
        "power_kw": power,
        "provisioned_power_kw": together([item.provisioned_kw for item in fleet]),
        "it_power_kw": together([item.rated_kw for item in fleet]),
        "drawn_power_kw": together([item.drawn_kw for item in fleet]),
        "peak_drawn_power_kw": together([item.peak_drawn_kw for item in fleet]),
        "tokens_per_s_per_mw": output / (power / KW) if power else None,
    }
    request = plan.request
    variants = [each.setup.candidate.deployment.accelerator for each in changed]
    if any(name not in (plan.fleet[each.number].accelerator,) for name, each in zip(variants, changed, strict=True)):
        request = request.model_copy(update={"power_settings": PowerSettings.ALL})
    return plan.model_copy(
        update={
            **figures,
            "status": Status.FEASIBLE,
            "gap": _gap(plan, figures),
            "fleet": fleet,
            "binding": (),
            "marginal": (),
            "runner_up": None,
            "break_even": (),
            "classes": _classes(plan, fleet),
            "schedule": _schedule(plan, fleet),
            "interval": {name: _moved(plan, name, ends, figures) for name, ends in plan.interval.items()},
            "assumptions": (*plan.assumptions, *said),
            "request": request,
        }
    )


def _gap(plan: Plan, figures: Mapping[str, float | None]) -> float:
    """Return how far a plan may be from the bound that was proven for the one it was made of."""
    before, after = plan.usd_per_million_output_tokens, figures["usd_per_million_output_tokens"]
    if not before or not after:
        return plan.gap or 0.0
    return max(after / (before * (1.0 - min(plan.gap or 0.0, 0.999))) - 1.0, 0.0)


def _moved(plan: Plan, name: str, ends: Interval, figures: Mapping[str, float | None]) -> Interval:
    """Return the range of a figure, moved along with it."""
    before, after = getattr(plan, name, None), figures.get(name)
    if not before or after is None:
        return ends
    return Interval(low=ends.low * after / before, high=ends.high * after / before)


def _classes(plan: Plan, fleet: Sequence[FleetItem]) -> tuple[ClassPlan, ...]:
    rows = []
    for row in plan.classes:
        own = [item for item in fleet if row.name in item.share_of_traffic]
        output = sum(item.output_tokens_per_s for item in own)
        served = sum(item.requests_per_s for item in own)
        earns = row.earns_usd_per_hour
        rows.append(
            row.model_copy(
                update={
                    "served_requests_per_s": served,
                    "output_tokens_per_s": output,
                    "usd_per_million_output_tokens": usd_per_million(row.usd_per_hour, output),
                    "earns_usd_per_hour": None if earns is None else earns * served / row.served_requests_per_s,
                    "tpot_ms": max(getattr(item.tpot_ms, row.statistic) for item in own),
                    "ttft_ms": max(getattr(item.ttft_ms, row.statistic) for item in own),
                }
            )
        )
    return tuple(rows)


def _schedule(plan: Plan, fleet: Sequence[FleetItem]) -> tuple[Any, ...]:
    tokens = [item.output_tokens_per_s / item.requests_per_s if item.requests_per_s else 0.0 for item in fleet]
    rows = []
    for t, row in enumerate(plan.schedule):
        rates = [item.by_period[t].requests_per_s for item in fleet]
        rows.append(
            row.model_copy(
                update={
                    "requests_per_s": sum(rates),
                    "output_tokens_per_s": sum(rate * each for rate, each in zip(rates, tokens, strict=True)),
                    "power_kw": together([item.by_period[t].power_kw for item in fleet]),
                }
            )
        )
    return tuple(rows)
