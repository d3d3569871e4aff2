"""From a solved fleet program to a plan."""

from __future__ import annotations

import math

from tokopt.domain.estimates import Interval
from tokopt.domain.plans import (
    FleetItem,
    Plan,
    PlanRequest,
    PowerBasis,
    Provenance,
    RunnerUp,
    SearchCounts,
    Status,
)
from tokopt.fleet import FleetProblem, FleetSolution, Goal, Stop
from tokopt.perf.constants import constants_for, weakest_origin

from .found import Found
from .items import fleet_item, usd_per_million
from .margins import binding_constraints, marginal_values
from .ranges import THROUGHPUT, factors, named_traits, outside, together

SEED = 0  # nothing in a plan is random; recorded so that it stays true


def assemble(
    found: Found,
    problem: FleetProblem,
    solution: FleetSolution,
    second: tuple[str, FleetProblem, FleetSolution] | None,
    *,
    margins: bool = True,
) -> Plan:
    """Return the plan of a solution; without `margins`, not what binds it, nor what more would be worth."""
    request, workload = found.request, found.workload
    rates = column_rates(problem, solution)
    total_rate = sum(rates)
    rows = [(row, n, rate) for row, n, rate in zip(found.columns, solution.blocks, rates, strict=True) if n]
    items = tuple(
        fleet_item(row, blocks=n, rate=rate, share=rate / total_rate, workload=workload, basis=request.power_basis)
        for row, n, rate in sorted(rows, key=lambda r: -r[2])
    )
    usd = sum(item.usd_per_hour for item in items)
    output = total_rate * workload.output_tokens
    total = total_rate * (workload.input_tokens + workload.output_tokens)
    power = _total([item.power_kw for item in items])
    per_mw = None if not power else output / (power / 1e3)
    price = usd_per_million(usd, output)
    plan = Plan(
        status=status_of(solution, request),
        gap=solution.gap,
        usd_per_million_output_tokens=price,
        usd_per_million_total_tokens=usd_per_million(usd, total),
        usd_per_hour=usd,
        output_tokens_per_s=output,
        total_tokens_per_s=total,
        requests_per_s=total_rate,
        power_kw=power,
        power_limit_kw=request.power_kw,
        power_basis=request.power_basis,
        it_power_kw=_total([item.rated_kw for item in items]),
        drawn_power_kw=_total([item.drawn_kw for item in items]),
        tokens_per_s_per_mw=per_mw,
        fleet=items,
        binding=binding_constraints(found, problem, solution, items) if margins else (),
        marginal=marginal_values(found, problem, solution, items) if margins else (),
        runner_up=_runner_up(found, second, problem.goal, solution.objective),
        interval=_intervals(found, problem, items, usd, output, price, per_mw),
        extrapolated=is_extrapolated(found, items),
        excluded=found.excluded,
        assumptions=assumptions_of(found, items),
        search=search_counts(found),
        request=request,
        provenance=plan_provenance(found, solution.solver, items),
    )
    return plan


def column_rates(problem: FleetProblem, solution: FleetSolution) -> list[float]:
    """Return the requests a second of each column.

    With one class, every column that is bought takes its share by capacity: the same load everywhere, all of it where
    the goal is to fill. The program's own split is one of many that cost the same.
    """
    capacity = [c.requests_per_s[0] * n for c, n in zip(problem.columns, solution.blocks, strict=True)]
    if problem.goal in (Goal.COST_PER_TOKEN, Goal.THROUGHPUT):
        return capacity
    share = min(problem.demand[0] / sum(capacity), 1.0)
    return [c * share for c in capacity]


def _total(values: list[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) if known and len(known) == len(values) else None


def _intervals(
    found: Found,
    problem: FleetProblem,
    items: tuple[FleetItem, ...],
    usd: float,
    output: float,
    price: float,
    per_mw: float | None,
) -> dict[str, Interval]:
    """Return the 80 % ranges of the headline figures: those of its items' throughput, carried through.

    Where a demand is given, the fleet that serves it grows as throughput falls short, and its cost with it.
    """
    calibration = found.catalog.calibration
    predicted = together(
        (
            item.output_tokens_per_s,
            factors(calibration, named_traits(found.catalog, item, found.llm.name), item.mode, THROUGHPUT),
        )
        for item in items
    )
    # A robust plan states what is left of the prediction; the range is of the prediction all the same.
    factor = predicted.over(1.0 - found.request.robust)
    ranges = {"usd_per_million_output_tokens": factor.against(price)}
    ranges["usd_per_million_total_tokens"] = factor.against(
        price * found.workload.output_tokens / (found.workload.input_tokens + found.workload.output_tokens)
    )
    if problem.goal is Goal.COST:
        ranges["usd_per_hour"] = factor.against(usd)
    else:
        ranges["output_tokens_per_s"] = factor.around(output)
        ranges["usd_per_hour"] = Interval(low=usd, high=usd)
    if per_mw is not None:
        ranges["tokens_per_s_per_mw"] = factor.around(per_mw)
    return ranges


def is_extrapolated(found: Found, items: tuple[FleetItem, ...]) -> bool:
    """Whether any part of the fleet lies outside what the constants were fitted to."""
    catalog, workload = found.catalog, found.workload
    return any(
        outside(
            catalog.calibration,
            named_traits(catalog, item, found.llm.name),
            workload.input_tokens,
            workload.output_tokens,
        )
        for item in items
    )


def _runner_up(
    found: Found, second: tuple[str, FleetProblem, FleetSolution] | None, goal: Goal, best: float
) -> RunnerUp | None:
    if second is None:
        return None
    winner, problem, solution = second
    rates = column_rates(problem, solution)
    used: dict[str, int] = {}
    for column, n in zip(problem.columns, solution.blocks, strict=True):
        if n:
            used[column.accelerator] = used.get(column.accelerator, 0) + n * column.accelerators_per_block
    usd = sum(c.usd_per_hour * n for c, n in zip(problem.columns, solution.blocks, strict=True))
    watts = sum(c.power_w * n for c, n in zip(problem.columns, solution.blocks, strict=True) if n)
    output = sum(rates) * found.workload.output_tokens
    worse = solution.objective / best - 1.0 if goal is not Goal.THROUGHPUT else best / solution.objective - 1.0
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
    reports = found.reports.values()
    return SearchCounts(
        deployments_considered=sum(r.considered for r in reports),
        did_not_fit=sum(r.did_not_fit for r in reports),
        missed_limits=sum(r.missed_limits for r in reports),
        evaluated_with_queueing=sum(r.evaluated for r in reports),
        columns=len(found.columns),
    )


def assumptions_of(found: Found, items: tuple[FleetItem, ...]) -> tuple[str, ...]:
    """Return everything that a plan takes for granted, in sentences."""
    request, workload = found.request, found.workload
    said = [
        f"model {found.llm.title}; workload {workload.name}: {workload.input_tokens:,.0f} tokens in, "
        f"{workload.output_tokens:,.0f} out on average (variation {workload.input_cv:g} and {workload.output_cv:g}), "
        f"{workload.prefix_share * 100:.0f} % of prompts cached",
        f"limits hold at {request.sla.statistic.value} over requests, under Poisson arrivals routed at random"
        + (
            ""
            if request.sla.tpot_ms is None
            else f"; TPOT, the time per output token, within {request.sla.tpot_ms:g} ms"
        ),
        f"no replica is loaded above 95 % of saturation; prices: {', '.join(request.prices)}",
        "a unit (instance, node or rack) hosts replicas of one set-up only",
    ]
    if "spot" not in request.markets and any(o.market.value == "spot" for o in found.prices.offers):
        said.append("spot offers are left out; --market spot,on_demand takes them in, without their interruptions")
    if request.robust:
        said.append(
            f"throughput {request.robust:.0%} below prediction, and latencies to match: every figure is for that case"
        )
    if request.ttft_by_default and request.sla.ttft_ms is not None:
        said.insert(1, f"TTFT limit {request.sla.ttft_ms / 1e3:.3g} s by default (2 s and 1 ms a prompt token)")
    if request.demand_requests_per_s is None:
        said.append("no demand given: the fleet fills its limits at the lowest cost per token")
    if request.power_kw is not None:
        basis = "all-in utility power, provisioned" if request.power_basis is PowerBasis.UTILITY else "server nameplate"
        said.append(f"the power limit counts {basis}")
    depths = sorted({item.deployment.speculation_depth for item in items} - {0})
    for depth in depths:
        chances = found.catalog.calibration.acceptance.get(found.llm.name)
        origin = "published for the first token" if chances else "an assumption"
        said.append(f"multi-token prediction of depth {depth}: acceptance is {origin}")
    return tuple(said)


def plan_provenance(found: Found, solver: str, items: tuple[FleetItem, ...]) -> Provenance:
    """Return what a plan was made with."""
    import importlib.metadata

    calibration = found.catalog.calibration
    rejected: dict[str, int] = {}
    for row in found.prices.rejected:
        rejected[row.reason] = rejected.get(row.reason, 0) + 1
    used = {row.accelerator.name: row.accelerator for row in found.columns}
    sources = {
        f"{name}.{field}": source
        for name in sorted({item.accelerator for item in items})
        for field, source in sorted(used[name].sources.items())
    }
    sources[found.llm.name] = found.llm.source
    known = found.catalog.workloads.get(found.workload.name)
    sources[f"workload {found.workload.name}"] = known.source if known else "the request"
    origins = [
        weakest_origin(
            constants_for(
                calibration,
                used[i.accelerator],
                found.catalog.frameworks[i.framework],
                found.catalog.precisions[i.precision],
                found.llm.name,
            )
        )
        for i in items
    ]
    return Provenance(
        tokopt_version=importlib.metadata.version("tokopt"),
        catalog_version=found.catalog.version,
        calibration=calibration.version,
        calibration_made_on=calibration.made_on,
        calibration_summary=calibration.summary,
        constants_origin=max((o.value for o in origins), default="prior"),
        price_lists=found.request.prices,
        prices_as_of=found.prices.as_of,
        rejected_price_rows=rejected,
        solver=solver,
        seed=SEED,
        sources=sources,
    )


def status_of(solution: FleetSolution, request: PlanRequest) -> Status:
    """Return what a solution proves: optimal within the asked gap, or feasible."""
    proven = solution.stop is Stop.OPTIMAL and solution.gap <= max(request.gap_target, 1e-9) * 1.01
    return Status.OPTIMAL if proven else Status.FEASIBLE
