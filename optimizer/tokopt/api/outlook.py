"""What a plan says beyond its items: classes, periods, carbon, changes from today, and prices that would change it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from tokopt.domain.demand import CurrentUnits
from tokopt.domain.plans import BreakEven, Change, ClassPlan, FleetItem, PeriodPlan
from tokopt.fleet import FleetProblem, FleetSolution, break_even_prices

from .bought import Bought
from .found import Found
from .items import usd_per_million

GRAMS = 1e3  # in a kilogram
BREAK_EVEN_S = 3.0  # for all accelerators together: an extra that must not take longer than the plan
OfferKey = tuple[str, str, str, str, str]  # accelerator, provider, region, market, instance type
STATED = ("mean", "p50", "p90", "p99")  # statistics of an item's latencies


def class_plans(found: Found, items: Sequence[FleetItem]) -> tuple[ClassPlan, ...]:
    """Return what each class gets; a class that nothing serves (for profit) has no entry."""
    hours = [period.hours for period in found.request.periods]
    rows = []
    for number, (asked, service) in enumerate(zip(found.classes, found.services, strict=True)):
        own = [item for item in items if found.service_of(item) == number]
        served = sum(item.requests_per_s for item in own)
        if not own or served <= 0.0:
            continue
        usd = sum(item.usd_per_hour for item in own)
        output = served * service.workload.output_tokens
        factors = [period.factor(asked.name) for period in found.request.periods] or [1.0]
        mean = sum(h * f for h, f in zip(hours or [1.0], factors, strict=True)) / sum(hours or [1.0])
        # Items state four statistics; a limit on another is kept by more than the one above it.
        statistic = asked.sla.statistic.value if asked.sla.statistic.value in STATED else STATED[-1]
        rows.append(
            ClassPlan(
                name=asked.name,
                model=service.llm.name,
                demand_requests_per_s=None
                if asked.demand_requests_per_s is None
                else asked.demand_requests_per_s * mean,
                served_requests_per_s=served,
                output_tokens_per_s=output,
                usd_per_hour=usd,
                usd_per_million_output_tokens=usd_per_million(usd, output),
                earns_usd_per_hour=served * 3600.0 * asked.usd_per_request if asked.usd_per_request else None,
                gpus=sum(item.gpus for item in own),
                statistic=statistic,
                tpot_limit_ms=asked.sla.tpot_ms,
                ttft_limit_ms=asked.sla.ttft_ms,
                tpot_ms=max(getattr(item.tpot_ms, statistic) for item in own),
                ttft_ms=max(getattr(item.ttft_ms, statistic) for item in own),
            )
        )
    return tuple(rows)


def schedule(
    found: Found, problem: FleetProblem, rows: Sequence[Bought], items: Sequence[FleetItem]
) -> tuple[PeriodPlan, ...]:
    """Return the whole fleet period by period."""
    plans = []
    for t, period in enumerate(found.request.periods):
        kws = [item.by_period[t].power_kw for item in items]
        served = [bought.rates[t] for bought in rows]
        tokens = [problem.tokens_per_request[bought.row.service] for bought in rows]
        plans.append(
            PeriodPlan(
                name=period.name,
                hours=period.hours,
                units=sum(item.by_period[t].units for item in items),
                gpus=sum(item.by_period[t].units * item.gpus // item.units for item in items),
                usd_per_hour=sum(item.by_period[t].usd_per_hour for item in items),
                power_kw=None if None in kws else sum(kw or 0.0 for kw in kws),
                carbon_kg_per_hour=_carbon_kg(rows, t),
                requests_per_s=sum(served),
                output_tokens_per_s=sum(rate * o for rate, o in zip(served, tokens, strict=True)),
            )
        )
    return tuple(plans)


def carbon_kg_per_hour(rows: Sequence[Bought], problem: FleetProblem) -> float | None:
    """Return the carbon of a fleet, mean over the horizon; None where a part is not known. [kg/h]"""
    hours = [period.hours for period in problem.periods]
    each = [_carbon_kg(rows, t) for t in range(len(hours))]
    if any(kg is None for kg in each):
        return None
    return sum(h * (kg or 0.0) for h, kg in zip(hours, each, strict=True)) / sum(hours)


def _carbon_kg(rows: Sequence[Bought], t: int) -> float | None:
    grams = 0.0
    for bought in rows:
        column = bought.column
        by_period = column.carbon_g_per_hour_by_period
        grams += bought.blocks[t] * (by_period[t] if by_period else column.carbon_g_per_hour)
    return grams / GRAMS if math.isfinite(grams) else None


def changes(found: Found, rows: Sequence[Bought]) -> tuple[Change, ...]:
    """Return how the units of each offer differ from today's fleet, where one was given."""
    if not found.request.current:
        return ()
    planned: Counter[OfferKey] = Counter()
    for bought in rows:
        for part in bought.row.parts:
            offer = part.offer
            key = (offer.accelerator, offer.provider, offer.region, offer.market.value, offer.instance_type)
            planned[key] += bought.most_blocks * part.units
    today = _today(found.request.current, planned)
    return tuple(
        Change(
            accelerator=key[0],
            provider=key[1],
            region=key[2],
            market=key[3],
            instance_type=key[4],
            before=before,
            after=after,
        )
        for key in sorted(today.keys() | planned.keys())
        if (before := today[key]) != (after := planned[key])
    )


def _today(current: Sequence[CurrentUnits], planned: Mapping[OfferKey, int]) -> Counter[OfferKey]:
    """Return today's units by offer: those without a region or a type are of the planned offers that they may be."""
    today: Counter[OfferKey] = Counter()
    for unit in sorted(current, key=lambda unit: not (unit.region and unit.instance_type)):
        own = (unit.accelerator, unit.provider, unit.region, unit.market, unit.instance_type)
        alike = [key for key in planned if all(said in ("", there) for said, there in zip(own, key, strict=True))]
        left = unit.units
        for key in alike:
            taken = min(left, max(planned[key] - today[key], 0))
            today[key] += taken
            left -= taken
        today[alike[0] if alike else own] += left
    return today


def break_even(found: Found, problem: FleetProblem, solution: FleetSolution) -> tuple[BreakEven, ...]:
    """Return the prices at which accelerators that the plan leaves out would enter it."""
    cheapest: dict[str, float] = {}
    for row in found.columns:
        for part in row.parts:
            name = part.offer.accelerator
            cheapest[name] = min(part.offer.usd_per_accelerator_hour, cheapest.get(name, math.inf))
    return tuple(
        BreakEven(
            accelerator=name,
            usd_per_gpu_hour=price.usd_per_accelerator_hour if price.usd_per_accelerator_hour > 0.0 else None,
            cheapest_usd_per_gpu_hour=cheapest[name],
            exact=price.exact,
        )
        for name, price in sorted(break_even_prices(problem, solution, time_limit_s=BREAK_EVEN_S).items())
    )
