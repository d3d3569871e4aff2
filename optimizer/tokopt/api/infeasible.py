"""The answer that there is none: which constraint stands in the way, and the nearest value that would do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from tokopt.domain.demand import Survive
from tokopt.domain.plans import NearestFeasible, Plan, PlanRequest, Status
from tokopt.errors import InputError
from tokopt.fleet import Column, FleetProblem, Goal, best_possible, solve_fleet
from tokopt.fleet import Survive as Withstand
from tokopt.units import KW, format_si

from .answer import is_extrapolated, search_counts
from .assumptions import assumptions_of, plan_provenance
from .columns import allowed_offers, hardware_of
from .electricity import carbon_matters
from .found import Found, Service
from .program import GRAMS


def infeasible(found: Found, problem: FleetProblem | None) -> Plan:
    """Return the plan that says that there is none, which constraint stands in the way, and the nearest value."""
    request = found.request
    unserved = [number for number in range(len(found.services)) if not any(c.service == number for c in found.columns)]
    nearest = [near for number in unserved for near in _nearest_limits(found, number)]
    if problem is not None and not unserved:
        nearest = _nearest_sizes(found, problem)
    return Plan(
        status=Status.INFEASIBLE,
        gap=None,
        usd_per_million_output_tokens=None,
        usd_per_million_total_tokens=None,
        usd_per_hour=None,
        output_tokens_per_s=None,
        total_tokens_per_s=None,
        requests_per_s=None,
        power_kw=None,
        power_limit_kw=request.power_kw,
        power_basis=request.power_basis,
        power_mode=request.power_mode,
        it_power_kw=None,
        drawn_power_kw=None,
        tokens_per_s_per_mw=None,
        fleet=(),
        binding=(),
        marginal=(),
        runner_up=None,
        interval={},
        extrapolated=is_extrapolated(found, ()),
        nearest_feasible=tuple(dict.fromkeys(nearest)),  # classes alike say the same
        excluded=found.excluded,
        assumptions=assumptions_of(found, ()),
        search=search_counts(found),
        request=request,
        provenance=plan_provenance(found, "none" if problem is None else "HiGHS", ()),
    )


def why_nothing(found: Found, problem: FleetProblem) -> InputError:
    """Return the error that the best plan is to buy nothing: nothing pays, or next to nothing is asked."""
    if problem.goal is not Goal.PROFIT:
        return InputError(f"the demand is too small to be told from none: {_rates(found, 1.0)}")
    least = best_possible(problem, Goal.COST)
    costs = f": to serve all of it costs ${least.usd_per_hour:,.2f}/h at least" if least.feasible else ""
    earns = f"{' and' if costs else ', which'} earns ${_most_earned(problem):,.2f}/h"
    return InputError(f"--objective profit: no part of the demand pays{costs}{earns}; raise what tokens earn")


def _most_earned(problem: FleetProblem) -> float:
    """Return what the whole demand earns, mean over the horizon. [USD/h]"""
    earned = hours = 0.0
    for number, period in enumerate(problem.periods):
        asked = problem.demand_by_period[number] if problem.demand_by_period else problem.demand
        earned += period.hours * sum(rate * usd for rate, usd in zip(asked, problem.usd_per_request, strict=True))
        hours += period.hours
    return earned / hours * 3600.0


def _nearest_limits(found: Found, number: int) -> list[NearestFeasible]:
    """Return which latency limit of a class nothing meets, with the best value of any deployment."""
    asked, service = found.classes[number], found.services[number]
    sla, reports = asked.sla, service.reports
    which = f" of {asked.name}" if found.request.classes else ""
    if any(report.candidates for report in reports.values()):
        return [_nearest_offer(found, service)]  # the limits can be met, but not on machines as they are sold
    nearest: list[NearestFeasible] = []
    fastest = _least({name: r.fastest_tpot_s for name, r in reports.items()})
    if sla.tpot_ms is not None and fastest and fastest[1] * 1e3 > sla.tpot_ms:
        nearest.append(
            NearestFeasible(
                constraint=f"sla tpot{which}",
                requested=f"{sla.tpot_ms:g} ms",
                nearest=f"{math.ceil(fastest[1] * 1e4) / 10:g} ms",
                detail=f"the fastest TPOT that any set-up reaches, on {fastest[0]}, with one request a rank",
            )
        )
    prompt = _least({name: r.fastest_first_token_s for name, r in reports.items()})
    if not nearest and prompt and sla.ttft_ms is not None:
        nearest.append(
            NearestFeasible(
                constraint=f"sla ttft{which}",
                requested=f"{sla.ttft_ms:g} ms",
                nearest=f"{math.ceil(prompt[1] * 1.02e3):g} ms",
                detail=f"the fastest first token that any set-up reaches, on {prompt[0]}, hardly loaded",
            )
        )
    if not nearest and sla.e2e_ms is not None:
        nearest.append(
            NearestFeasible(constraint=f"sla e2e{which}", requested=f"{sla.e2e_ms:g} ms", nearest="longer", detail="")
        )
    if not nearest:
        nearest.append(
            NearestFeasible(
                constraint="memory",
                requested=service.llm.name,
                nearest="other accelerators, or a narrower precision",
                detail="; ".join(f"{name}: {why}" for name, why in found.excluded.items()),
            )
        )
    return nearest


def _nearest_offer(found: Found, service: Service) -> NearestFeasible:
    """Return what offers lack: a known place where carbon counts and units are large enough, or else size."""
    replicas = sorted(
        (candidate.accelerators, name) for name, report in service.reports.items() for candidate in report.candidates
    )
    largest: dict[str, int] = {}
    for offer in allowed_offers(found.prices.offers, found.request):
        largest[offer.accelerator] = max(largest.get(offer.accelerator, 0), offer.accelerator_count)
    if carbon_matters(found.request) and any(size <= largest[hardware_of(name)] for size, name in replicas):
        return NearestFeasible(
            constraint="carbon",
            requested="offers whose carbon is known",
            nearest="offers of a known place",
            detail=f"{', '.join(found.request.prices)} names no place whose electricity the catalog knows; "
            "clouds do (--prices aws), and an owned file with a site",
        )
    size, name = replicas[0]
    return NearestFeasible(
        constraint="unit size",
        requested=f"{largest[hardware_of(name)]} {name} in one machine",
        nearest=f"{size} {name} in one machine",
        detail="the smallest replica that meets the limits; machines smaller than a whole node cannot be joined",
    )


def _least(values: Mapping[str, float]) -> tuple[str, float] | None:
    known = {name: v for name, v in values.items() if math.isfinite(v)}
    return min(known.items(), key=lambda pair: pair[1]) if known else None


def _nearest_sizes(found: Found, problem: FleetProblem) -> list[NearestFeasible]:
    """Return how little power, money or stock would do, and how much demand the limits carry; each alone is enough.

    Where several limits stand in the way together, each is stated with all others lifted.
    """
    request = found.request
    if request.demand_requests_per_s is None:
        return _smallest_unit(found, problem)
    nearest = []
    free = replace(problem, power_w=None, budget_usd_per_hour=None)
    for goal, limit in ((Goal.POWER, request.power_kw), (Goal.COST, request.budget_usd_per_hour)):
        if limit is None:
            continue
        least = best_possible(problem, goal)
        others = ""
        if not least.feasible:
            least, others = best_possible(free, goal), ", the other limits lifted"
        if least.feasible:
            needed = least.objective + (found.counting.reserve_w if goal is Goal.POWER else 0.0)
            nearest.append(_least_limit(request, goal, needed, f"serves the whole demand{others}"))
    nearest += _without_terms(found, problem)
    if problem.power_w is not None or problem.budget_usd_per_hour is not None or _stock_limits(problem):
        most = best_possible(problem, Goal.THROUGHPUT)
        if most.feasible:
            nearest.append(
                NearestFeasible(
                    constraint="demand",
                    requested=_rates(found, 1.0),
                    nearest=_rates(found, most.objective),
                    detail="the most that fits within power, budget and stock",
                )
            )
    return nearest or _smallest_unit(found, problem)


def _stock_limits(problem: FleetProblem) -> bool:
    """Whether stock alone keeps a fleet from growing without end."""
    return all(
        any(p.offer in problem.offer_units or p.accelerator in problem.accelerator_stock for p in c.held)
        for c in problem.columns
    )


def _without_terms(found: Found, problem: FleetProblem) -> list[NearestFeasible]:
    """Return which of a request's terms stands in the way alone: types, failures, carbon, spot, power of places."""
    request = found.request
    nearest = []

    def add(constraint: str, requested: str, value: str, detail: str) -> None:
        nearest.append(NearestFeasible(constraint=constraint, requested=requested, nearest=value, detail=detail))

    if request.most_accelerator_types is not None:
        free = solve_fleet(replace(problem, most_accelerator_types=None, goal=Goal.COST, then=()), shadow_prices=False)
        if free.feasible:
            used = {kind for c, n in zip(problem.columns, free.blocks, strict=True) if n for kind in c.kinds}
            add(
                "types",
                f"{request.most_accelerator_types}",
                f"{len(used)}",
                f"the cheapest fleet has {', '.join(used)}",
            )
    if request.survive is not Survive.NOTHING:
        free = solve_fleet(replace(problem, survive=Withstand.NONE, goal=Goal.COST, then=()), shadow_prices=False)
        if free.feasible:
            add("survive", request.survive.value, "none", "without spare capacity the limits can be met")
    if request.most_carbon_kg_per_hour is not None:
        least = solve_fleet(replace(problem, carbon_g_per_hour=None, goal=Goal.CARBON, then=()), shadow_prices=False)
        if least.feasible:
            asked, value = request.most_carbon_kg_per_hour, least.objective / GRAMS
            add("carbon", f"{asked:,.6g} kg/h", f"{value * (1 + 1e-6):,.6g} kg/h", "the least that serves the demand")
    if request.most_spot_share is not None:
        free = solve_fleet(replace(problem, most_spot_share=None, goal=Goal.COST, then=()), shadow_prices=False)
        if free.feasible:
            add("spot share", f"{request.most_spot_share:.0%}", "more", "with more on spot units the limits can be met")
    if request.site_power_kw:
        free = solve_fleet(replace(problem, site_power_w={}, goal=Goal.COST, then=()), shadow_prices=False)
        if free.feasible:
            said = ", ".join(f"{site} {kw:,.6g} kW" for site, kw in request.site_power_kw.items())
            add("site power", said, "more", "with more power in these places the limits can be met")
    return nearest


def _rates(found: Found, share: float) -> str:
    """Return the demand of each class, or the same share of all of them."""
    several = len(found.classes) > 1
    said = []
    for asked in found.classes:
        rate = asked.demand_requests_per_s or 0.0
        written = f"{rate:,.4g}" if share == 1.0 else cut(share * rate)
        said.append(f"{written} req/s{f' of {asked.name}' if several else ''}")
    return ", ".join(said)


def _least_limit(request: PlanRequest, goal: Goal, least: float, what: str) -> NearestFeasible:
    if goal is Goal.POWER:
        return NearestFeasible(
            constraint="power",
            requested=format_si((request.power_kw or 0.0) * KW, "W"),
            nearest=f"{math.ceil(least / KW * (1 - 1e-12) * 10) / 10:,.1f} kW",
            detail=f"the least power that {what}",
        )
    return NearestFeasible(
        constraint="budget",
        requested=f"${request.budget_usd_per_hour or 0.0:,.2f}/h",
        nearest=f"${math.ceil(least * (1 - 1e-12) * 100) / 100:,.2f}/h",
        detail=f"the lowest cost that {what}",
    )


def cut(value: float) -> str:
    """Return a value cut to six significant digits, never rounded up: what is offered has to hold."""
    digits = 5 - math.floor(math.log10(value)) if value > 0 else 0
    return f"{math.floor(value * 10.0**digits) / 10.0**digits:,.{max(digits, 0)}f}".rstrip("0").rstrip(".")


def _smallest_unit(found: Found, problem: FleetProblem) -> list[NearestFeasible]:
    """Return what the smallest fleet needs, where nothing says how large it is but limits that hold nothing."""
    request = found.request
    nearest = []
    powered = [c for c in problem.columns if math.isfinite(c.power_w)]
    if request.power_kw is not None and powered:
        least = min(powered, key=lambda c: c.power_w)
        needed = least.power_w + found.counting.reserve_w
        if needed > request.power_kw * KW:
            nearest.append(_least_limit(request, Goal.POWER, needed, f"holds one unit: {_unit(least)}"))
    cheapest = min(problem.columns, key=lambda c: c.usd_per_hour)
    if request.budget_usd_per_hour is not None and cheapest.usd_per_hour > request.budget_usd_per_hour:
        nearest.append(_least_limit(request, Goal.COST, cheapest.usd_per_hour, f"buys one unit: {_unit(cheapest)}"))
    for accelerator, stock in request.inventory.items():
        units = [each for c in problem.columns if (each := c.accelerators_of(accelerator))]
        if units and min(units) > stock:
            nearest.append(
                NearestFeasible(
                    constraint="inventory",
                    requested=f"{stock} {accelerator}",
                    nearest=f"{min(units)} {accelerator}",
                    detail="the smallest whole unit that meets the limits",
                )
            )
    if not nearest:
        asked = [c for c, given in (("power", request.power_kw), ("budget", request.budget_usd_per_hour)) if given]
        nearest.append(
            NearestFeasible(
                constraint=" and ".join([*asked, *(["inventory"] if request.inventory else [])]) or "stock",
                requested="all of them together",
                nearest="more of one of them",
                detail=f"each alone holds a unit, together they hold none; the cheapest is {_unit(cheapest)}",
            )
        )
    return nearest


def _unit(column: Column) -> str:
    return f"{column.accelerators_per_block} accelerators of {column.accelerator}"
