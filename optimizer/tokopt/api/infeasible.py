"""The answer that there is none: which constraint stands in the way, and the nearest value that would do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from tokopt.domain.plans import NearestFeasible, Plan, PlanRequest, Status
from tokopt.fleet import Column, FleetProblem, Goal, best_possible
from tokopt.units import KW, format_si

from .answer import assumptions_of, is_extrapolated, plan_provenance, search_counts
from .columns import allowed_offers
from .found import Found


def infeasible(found: Found, problem: FleetProblem | None) -> Plan:
    """Return the plan that says that there is none, which constraint stands in the way, and the nearest value."""
    request = found.request
    nearest = _nearest_limits(found) if problem is None else _nearest_sizes(found, problem)
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
        it_power_kw=None,
        drawn_power_kw=None,
        tokens_per_s_per_mw=None,
        fleet=(),
        binding=(),
        marginal=(),
        runner_up=None,
        interval={},
        extrapolated=is_extrapolated(found, ()),
        nearest_feasible=tuple(nearest),
        excluded=found.excluded,
        assumptions=assumptions_of(found, ()),
        search=search_counts(found),
        request=request,
        provenance=plan_provenance(found, "none" if problem is None else "HiGHS", ()),
    )


def _nearest_limits(found: Found) -> list[NearestFeasible]:
    """Return what nothing meets where there is no column: a latency limit, memory, or the size of what is sold."""
    sla, reports = found.request.sla, found.reports
    if any(report.candidates for report in reports.values()):
        return [_larger_unit(found)]  # the limits can be met, but not on machines as they are sold
    nearest = []
    fastest = _least({name: r.fastest_tpot_s for name, r in reports.items()})
    if sla.tpot_ms is not None and fastest and fastest[1] * 1e3 > sla.tpot_ms:
        nearest.append(
            NearestFeasible(
                constraint="sla tpot",
                requested=f"{sla.tpot_ms:g} ms",
                nearest=f"{math.ceil(fastest[1] * 1e4) / 10:g} ms",
                detail=f"the fastest TPOT that any set-up reaches, on {fastest[0]}, with one request a rank",
            )
        )
    prompt = _least({name: r.fastest_first_token_s for name, r in reports.items()})
    if not nearest and prompt and sla.ttft_ms is not None:
        nearest.append(
            NearestFeasible(
                constraint="sla ttft",
                requested=f"{sla.ttft_ms:g} ms",
                nearest=f"{math.ceil(prompt[1] * 1.02e3):g} ms",
                detail=f"the fastest first token that any set-up reaches, on {prompt[0]}, hardly loaded",
            )
        )
    if not nearest and sla.e2e_ms is not None:
        nearest.append(
            NearestFeasible(constraint="sla e2e", requested=f"{sla.e2e_ms:g} ms", nearest="longer", detail="")
        )
    if not nearest:
        nearest.append(
            NearestFeasible(
                constraint="memory",
                requested=found.llm.name,
                nearest="other accelerators, or a narrower precision",
                detail="; ".join(f"{name}: {why}" for name, why in found.excluded.items()),
            )
        )
    return nearest


def _larger_unit(found: Found) -> NearestFeasible:
    """Return the smallest unit that would hold a replica, where every unit on offer is too small."""
    size, name = min(
        (candidate.accelerators, name) for name, report in found.reports.items() for candidate in report.candidates
    )
    offers = allowed_offers(found.prices.offers, found.request)
    largest = max(offer.accelerator_count for offer in offers if offer.accelerator == name)
    return NearestFeasible(
        constraint="unit size",
        requested=f"{largest} {name} in one machine",
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
    demand = request.demand_requests_per_s
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
            nearest.append(_least_limit(request, goal, least.objective, f"serves the whole demand{others}"))
    most = best_possible(problem, Goal.THROUGHPUT)
    if most.feasible:
        nearest.append(
            NearestFeasible(
                constraint="demand",
                requested=f"{demand:,.4g} req/s",
                nearest=f"{cut(most.objective * demand)} req/s",
                detail="the most that fits within power, budget and stock",
            )
        )
    return nearest or _smallest_unit(found, problem)


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
        if least.power_w > request.power_kw * KW:
            nearest.append(_least_limit(request, Goal.POWER, least.power_w, f"holds one unit: {_unit(least)}"))
    cheapest = min(problem.columns, key=lambda c: c.usd_per_hour)
    if request.budget_usd_per_hour is not None and cheapest.usd_per_hour > request.budget_usd_per_hour:
        nearest.append(_least_limit(request, Goal.COST, cheapest.usd_per_hour, f"buys one unit: {_unit(cheapest)}"))
    for accelerator, stock in request.inventory.items():
        units = [c.accelerators_per_block for c in problem.columns if c.accelerator == accelerator]
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
