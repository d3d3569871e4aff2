"""From a solved fleet program to a plan."""

from __future__ import annotations

import math

import numpy as np

from tokopt.domain.estimates import Interval
from tokopt.domain.plans import FleetItem, Plan, PlanRequest, RunnerUp, SearchCounts, Status
from tokopt.fleet import FleetProblem, FleetSolution, Goal, Stop

from .assumptions import assumptions_of, plan_provenance
from .bought import FILLING, bought
from .found import Found
from .items import fleet_items, peak_kw, usd_per_million
from .margins import binding_constraints, gain_of_a_millisecond, marginal_values
from .outlook import break_even, carbon_kg_per_hour, changes, class_plans, schedule
from .ranges import THROUGHPUT, Factors, clock_unsure, factors, named_traits, outside, together, widest
from .speculating import speculation_unsure
from .switched_off import host_unsure


def assemble(
    found: Found,
    problem: FleetProblem,
    solution: FleetSolution,
    second: tuple[str, FleetProblem, FleetSolution] | None,
    *,
    margins: bool = True,
) -> Plan:
    """Return the plan of a solution; without `margins`, not what binds it, nor what more or other prices would do."""
    request = found.request
    rows = bought(found, problem, solution)
    items = fleet_items(found, rows)
    rate = sum(item.requests_per_s for item in items)
    usd = sum(item.usd_per_hour for item in items)
    output = sum(item.output_tokens_per_s for item in items)
    total = sum(i.requests_per_s * tokens_of(found, i) for i in items)
    power = peak_kw(items)
    per_mw = None if not power else output / (power / 1e3)
    price = usd_per_million(usd, output)
    carbon = carbon_kg_per_hour(rows, problem)
    earned = sum(i.requests_per_s * found.classes[found.service_of(i)].usd_per_request for i in items) * 3600.0
    gain = gain_of_a_millisecond(found, items[0]) if margins else 0.0
    return Plan(
        status=status_of(solution, request),
        gap=solution.gap,
        usd_per_million_output_tokens=price,
        usd_per_million_total_tokens=usd_per_million(usd, total),
        usd_per_hour=usd,
        output_tokens_per_s=output,
        total_tokens_per_s=total,
        requests_per_s=rate,
        power_kw=power,
        power_limit_kw=request.power_kw,
        power_basis=request.power_basis,
        power_mode=request.power_mode,
        provisioned_power_kw=_total([item.provisioned_kw for item in items]),
        it_power_kw=_total([item.rated_kw for item in items]),
        drawn_power_kw=_total([item.drawn_kw for item in items]),
        peak_drawn_power_kw=_total([item.peak_drawn_kw for item in items]),
        tokens_per_s_per_mw=per_mw,
        fleet=items,
        binding=binding_constraints(found, problem, solution, items, gain) if margins else (),
        marginal=marginal_values(found, problem, solution, items, gain) if margins else (),
        runner_up=_runner_up(second, problem.goal, solution.objective),
        classes=class_plans(found, items) if request.classes or earned else (),
        schedule=schedule(found, problem, rows, items),
        break_even=break_even(found, problem, solution) if margins else (),
        changes=changes(found, rows),
        profit_usd_per_hour=earned - usd if earned else None,
        carbon_kg_per_hour=carbon,
        interval=_intervals(found, problem, items, usd, output, total, per_mw),
        extrapolated=is_extrapolated(found, items),
        excluded=found.excluded,
        assumptions=assumptions_of(found, items),
        search=search_counts(found),
        request=request,
        provenance=plan_provenance(found, solution.solver, items),
    )


def tokens_of(found: Found, item: FleetItem) -> float:
    """Return the tokens in and out of a request that an item serves."""
    workload = found.services[found.service_of(item)].workload
    return workload.input_tokens + workload.output_tokens


def _total(values: list[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) if known and len(known) == len(values) else None


def _intervals(
    found: Found,
    problem: FleetProblem,
    items: tuple[FleetItem, ...],
    usd: float,
    output: float,
    total: float,
    per_mw: float | None,
) -> dict[str, Interval]:
    """Return the 80 % ranges of the headline figures: those of its items' throughput, carried through.

    Where a demand is given, the fleet that serves it grows as throughput falls short, and its cost with it.
    """
    predicted = together((item.output_tokens_per_s, _factors(found, item)) for item in items)
    # A robust plan states what is left of the prediction; the range is of the prediction all the same.
    factor = predicted.over(1.0 - found.request.robust)
    ranges = {
        "usd_per_million_output_tokens": factor.against(usd_per_million(usd, output)),
        "usd_per_million_total_tokens": factor.against(usd_per_million(usd, total)),
    }
    if problem.goal in FILLING:
        ranges["output_tokens_per_s"] = factor.around(output)
        ranges["usd_per_hour"] = Interval(low=usd, high=usd)
    else:
        ranges["usd_per_hour"] = factor.against(usd)
    if per_mw is not None:
        ranges["tokens_per_s_per_mw"] = factor.around(per_mw)
    return ranges


def _factors(found: Found, item: FleetItem) -> Factors:
    service = found.services[found.service_of(item)]
    llm = service.llm
    sure = widest(
        factors(found.catalog.calibration, traits, item.mode, THROUGHPUT).widened(
            clock_unsure(found.catalog.accelerators[name])
        )
        for name, traits in _ends(found, item, llm.name)
    )
    running = item.mean_running_per_replica
    sure = sure.widened(host_unsure(found.catalog, llm, item.deployment, service.workload, running=running))
    if item.deployment.speculator is None:
        return sure
    return sure.widened(speculation_unsure(item.deployment, found.catalog.speculators, service.workload.domain))


def is_extrapolated(found: Found, items: tuple[FleetItem, ...]) -> bool:
    """Whether any part of the fleet lies outside what the constants were fitted to."""
    return any(_outside(found, item) for item in items)


def _outside(found: Found, item: FleetItem) -> bool:
    service = found.services[found.service_of(item)]
    lengths = service.workload.input_tokens, service.workload.output_tokens
    return any(
        outside(found.catalog.calibration, traits, *lengths) for _, traits in _ends(found, item, service.llm.name)
    )


def _ends(found: Found, item: FleetItem, llm: str) -> list[tuple[str, dict[str, str]]]:
    """Return the accelerators of an item, the one that decodes first, and the traits of what runs on each."""
    names = dict.fromkeys((item.accelerator, item.deployment.prefill_accelerator))
    of = item.deployment
    return [(name, named_traits(found.catalog, of.model_copy(update={"accelerator": name}), llm)) for name in names]


def _runner_up(second: tuple[str, FleetProblem, FleetSolution] | None, goal: Goal, best: float) -> RunnerUp | None:
    if second is None:
        return None
    winner, problem, solution = second
    used: dict[str, int] = {}
    for column, n in zip(problem.columns, solution.blocks, strict=True):
        if n:
            for part in column.held:
                used[part.accelerator] = used.get(part.accelerator, 0) + n * part.accelerators
    usd = solution.usd_per_hour or sum(
        c.usd_per_hour * n for c, n in zip(problem.columns, solution.blocks, strict=True)
    )
    watts = sum(c.power_w * n for c, n in zip(problem.columns, solution.blocks, strict=True) if n)
    output = float(np.array(solution.rates).sum(axis=0) @ np.array(problem.tokens_per_request))
    if goal is Goal.PROFIT:
        worse = (best - solution.objective) / abs(best) if best else 0.0
    else:
        worse = best / solution.objective - 1.0 if goal is Goal.THROUGHPUT else solution.objective / best - 1.0
    return RunnerUp(
        without=winner,
        accelerators=used,
        usd_per_million_output_tokens=usd_per_million(usd, output),
        usd_per_hour=usd,
        output_tokens_per_s=output,
        tokens_per_s_per_mw=output / (watts / 1e6) if math.isfinite(watts) and watts > 0 else None,
        worse_by=worse,
    )


def search_counts(found: Found) -> SearchCounts:
    """Return what was looked at over all accelerators."""
    reports = [report for service in found.services for report in service.reports.values()]
    reports = list({id(report): report for report in reports}.values())  # classes alike share a search
    return SearchCounts(
        deployments_considered=sum(r.considered for r in reports) + found.mixed.considered,
        did_not_fit=sum(r.did_not_fit for r in reports),
        missed_limits=sum(r.missed_limits for r in reports),
        evaluated_with_queueing=sum(r.evaluated for r in reports) + found.mixed.evaluated,
        columns=len(found.columns),
    )


def status_of(solution: FleetSolution, request: PlanRequest) -> Status:
    """Return what a solution proves: optimal within the asked gap, or feasible."""
    proven = solution.stop is Stop.OPTIMAL and solution.gap <= max(request.gap_target, 1e-9) * 1.01
    return Status.OPTIMAL if proven else Status.FEASIBLE
