"""Rules on a fleet over periods: units, prices and power of each, and what is fixed over the horizon."""

from __future__ import annotations

from tokopt.checking.case import TOLERANCE, Case, number, same, within
from tokopt.checking.purchase import matching
from tokopt.domain.demand import PlanPeriod
from tokopt.domain.plans import ItemPart, Plan
from tokopt.units import KW

FIXED = ("owned", "reserved", "reserved_1y", "reserved_3y")  # markets whose units are had for the whole horizon


def periods_complete(case: Case) -> list[str]:
    """Check that an item says what it does in each period, in their order, and in none where there are none."""
    said, asked = [p.period for p in case.item.by_period], [p.name for p in case.request.periods]
    return [] if said == asked else [case.fault(f"by_period is of {said}, but the request's periods are {asked}")]


def units_over_periods(case: Case) -> list[str]:
    """Check that the item's units are the most of any period, and that what is owned or reserved stays the same.

    Machines that come to market later are had from some period on.
    """
    item = case.item
    if not item.by_period:
        return []
    counts = [p.units for p in item.by_period]
    faults = case.differs("units", item.units, max(counts), "most of any period")
    if item.market in FIXED:
        had = [n for n in counts if n]
        if had and (len(set(had)) > 1 or counts[-len(had) :] != had):
            faults.append(case.fault(f"units change from period to period, {counts}, but the market is {item.market}"))
    return faults


def rates_over_periods(case: Case) -> list[str]:
    """Check that requests/s are the mean of the periods', and none are served without units."""
    item, periods = case.item, case.request.periods
    if not item.by_period or len(item.by_period) != len(periods):
        return []
    hours = sum(p.hours for p in periods)
    mean = sum(p.hours * i.requests_per_s for p, i in zip(periods, item.by_period, strict=True)) / hours
    faults = case.differs("requests_per_s", item.requests_per_s, mean, "mean over the periods")
    faults += [
        case.fault(f"requests are served in {p.period}, but there are no units")
        for p in item.by_period
        if p.requests_per_s > 0.0 and not p.units
    ]
    if item.power_kw is not None and item.units:
        each = item.power_kw / item.units
        for p in item.by_period:
            faults += case.differs(f"power_kw in {p.period}", p.power_kw, each * p.units, "units x power of a unit")
    return faults


def prices_over_periods(case: Case) -> list[str]:
    """Check each period's cost: units at the offer's price, with the period's factors on market, energy and carbon.

    price · market factor + energy part · (energy factor - 1) + carbon charge · carbon factor   [USD/h]
    """
    item = case.item
    faults = []
    for period, stated in zip(case.request.periods, item.by_period, strict=False):
        # Blocks hold the same units of each offer in every period.
        each = sum(_unit_in(case, part, period) * part.units / item.units for part in item.bought)
        why = f"{stated.units:,} units at ${number(each)}/h"
        faults += case.differs(f"usd_per_hour in {period.name}", stated.usd_per_hour, stated.units * each, why)
    return faults


def _unit_in(case: Case, part: ItemPart, period: PlanPeriod) -> float:
    """Return what a unit of a part costs in a period. [USD/h]"""
    offers = [o for o in matching(case.item, part, case.inputs.offers) if same(o.usd_per_hour, part.usd_per_unit_hour)]
    energy, site = (offers[0].energy_usd_per_hour, offers[0].site) if offers else (0.0, None)
    power, carbon = period.usd_per_kwh_factor, period.carbon_factor
    if site is not None and period.start_hour is not None:
        if site.usd_per_kwh and site.usd_per_kwh_by_hour:
            power = (site.usd_per_kwh_over(period.start_hour, period.hours) or 0.0) / site.usd_per_kwh
        if site.carbon_g_per_kwh and site.carbon_g_per_kwh_by_hour:
            carbon = (site.carbon_g_per_kwh_over(period.start_hour, period.hours) or 0.0) / site.carbon_g_per_kwh
    each = part.usd_per_unit_hour * period.price_factors.get(case.item.market, 1.0)
    return each + energy * (power - 1.0) + part.carbon_usd_per_unit_hour * carbon


def demand_met_in_periods(plan: Plan) -> list[str]:
    """Check that each class gets what it asks for in each period; for profit, no more than that."""
    faults = []
    for t, period in enumerate(plan.request.periods):
        for asked in plan.request.served_classes():
            if asked.demand_requests_per_s is None or not plan.fleet:
                continue
            own = [i for i in plan.fleet if asked.name in i.share_of_traffic and t < len(i.by_period)]
            got, wanted = sum(i.by_period[t].requests_per_s for i in own), asked.demand_requests_per_s
            wanted *= period.factor(asked.name)
            for_profit = plan.request.objective.value == "profit"
            if not (within(got, wanted, TOLERANCE) if for_profit else same(got, wanted)):
                said = f"the fleet serves {number(got)} req/s of {asked.name}, but {number(wanted)} was asked for"
                faults.append(f"{period.name}: {said}")
    return faults


def schedule_agrees(plan: Plan) -> list[str]:
    """Check that the schedule is the sum of the items, period by period."""
    periods = plan.request.periods
    if [p.name for p in plan.schedule] != [p.name for p in periods] and plan.fleet:
        return [f"schedule is of {[p.name for p in plan.schedule]}, but the request's periods are others"]
    faults = []
    for t, stated in enumerate(plan.schedule):
        rows = [item.by_period[t] for item in plan.fleet if t < len(item.by_period)]
        for figure in ("usd_per_hour", "requests_per_s", "units"):
            should = sum(getattr(row, figure) for row in rows)
            if not same(float(getattr(stated, figure)), float(should)):
                said = f"{figure} is {number(getattr(stated, figure))}, but its items add up to {number(should)}"
                faults.append(f"schedule {stated.name}: {said}")
        limit = plan.request.power_kw
        if limit is not None and stated.power_kw is not None and not within(stated.power_kw, limit):
            faults.append(f"schedule {stated.name}: {number(stated.power_kw * KW)} W is above the limit")
    return faults
