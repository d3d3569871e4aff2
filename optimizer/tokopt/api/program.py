"""The fleet program of a request: what is asked of its columns, and what limits them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tokopt.domain.demand import PlanPeriod, Survive
from tokopt.domain.plans import Objective, PlanRequest
from tokopt.errors import InputError
from tokopt.fleet import Column, FleetProblem, Goal, Period
from tokopt.fleet import Survive as Withstand
from tokopt.units import KW

from .columns import offer_key
from .found import Found
from .standing import over_time, standing_blocks

GOALS = {
    Objective.THROUGHPUT: Goal.THROUGHPUT,
    Objective.PROFIT: Goal.PROFIT,
    Objective.POWER: Goal.POWER,
    Objective.CARBON: Goal.CARBON,
}
WITHSTAND = {Survive.NOTHING: Withstand.NONE, Survive.NODE: Withstand.NODE, Survive.ZONE: Withstand.ZONE}
GRAMS = 1e3  # in a kilogram


def goal_of(objective: Objective, request: PlanRequest) -> Goal:
    """Return the program's goal: cost is that of the demand, or of a token where the fleet fills its limits."""
    if objective is not Objective.COST:
        return GOALS[objective]
    filling = any(asked.demand_requests_per_s is None for asked in request.served_classes())
    return Goal.COST_PER_TOKEN if filling else Goal.COST


def fleet_problem(found: Found) -> FleetProblem:
    """Return the fleet program of a request.

    Raises:
        InputError: A limit of a site that no offer is at.
    """
    request = found.request
    stock: dict[str, int] = {}
    for row in found.columns:
        if row.offer.available_units is not None:
            stock[row.column.offer] = row.offer.available_units
        if row.beside is not None and row.beside.offer.available_units is not None:
            stock[offer_key(row.beside.offer)] = row.beside.offer.available_units
    columns = tuple(over_time(request, row) for row in found.columns)
    if request.current:
        standing = standing_blocks(request, found.columns)
        columns = tuple(replace(c, current_blocks=n) for c, n in zip(columns, standing, strict=True))
    demand = tuple(asked.demand_requests_per_s or 1.0 for asked in found.classes)
    return FleetProblem(
        columns=columns,
        demand=demand,
        demand_by_period=_demand_by_period(found, demand),
        tokens_per_request=tuple(service.workload.output_tokens for service in found.services),
        usd_per_request=tuple(asked.usd_per_request for asked in found.classes),
        goal=goal_of(request.objective, request),
        then=tuple(goal_of(objective, request) for objective in request.then),
        periods=tuple(Period(name=p.name, hours=p.hours) for p in request.periods) or (Period(name="", hours=1.0),),
        power_w=None if request.power_kw is None else request.power_kw * KW - found.counting.reserve_w,
        site_power_w=_site_power(request, columns),
        budget_usd_per_hour=request.budget_usd_per_hour,
        carbon_g_per_hour=None if request.most_carbon_kg_per_hour is None else request.most_carbon_kg_per_hour * GRAMS,
        offer_units=stock,
        accelerator_stock=request.inventory,
        most_accelerator_types=request.most_accelerator_types,
        most_spot_share=request.most_spot_share,
        spot_reserve=request.spot_reserve,
        survive=WITHSTAND[request.survive],
        change_usd_per_accelerator_hour=request.change_usd_per_gpu / request.change_over_hours,
        time_limit_s=request.time_limit_s,
        gap_target=request.gap_target,
    )


def _demand_by_period(found: Found, demand: Sequence[float]) -> tuple[tuple[float, ...], ...]:
    names = [asked.name for asked in found.classes]
    return tuple(
        tuple(each * period.factor(name) for each, name in zip(demand, names, strict=True))
        for period in found.request.periods
    )


def _site_power(request: PlanRequest, columns: Sequence[Column]) -> dict[str, float]:
    sites = {column.site for column in columns}
    unknown = [site for site in request.site_power_kw if site not in sites]
    if unknown:
        there = ", ".join(sorted(site or "(no region)" for site in sites))
        raise InputError(f"--site-power: no offer is in {unknown[0]}; there are offers in {there}")
    return {site: kw * KW for site, kw in request.site_power_kw.items()}


def hours_of(periods: Sequence[PlanPeriod]) -> float:
    """Return the hours of the horizon; one where there are no periods. [h]"""
    return sum(period.hours for period in periods) or 1.0
