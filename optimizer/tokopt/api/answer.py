"""From a solved fleet program to a plan, or from an unsolvable one to what would have to give."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from tokopt.domain.estimates import Interval
from tokopt.domain.plans import (
    FleetItem,
    NearestFeasible,
    Plan,
    PlanRequest,
    PowerBasis,
    Provenance,
    RunnerUp,
    SearchCounts,
    Status,
)
from tokopt.fleet import Column, FleetProblem, FleetSolution, Goal, best_possible
from tokopt.perf.constants import constants_for, weakest_origin
from tokopt.units import KW, format_si

from .items import fleet_item, usd_per_million
from .margins import binding_constraints, marginal_values

if TYPE_CHECKING:
    from .planning import Found

Z80 = 1.2815515655446004  # half-width of a central 80 % range, in standard deviations
SEED = 0  # nothing in a plan is random; recorded so that it stays true


def assemble(
    found: Found,
    problem: FleetProblem,
    solution: FleetSolution,
    second: tuple[str, FleetProblem, FleetSolution] | None,
) -> Plan:
    """Return the plan of a solution."""
    from .planning import status_of

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
        binding=binding_constraints(found, problem, solution, items),
        marginal=marginal_values(found, problem, solution, items),
        runner_up=_runner_up(found, second, problem.goal, solution.objective),
        interval=_intervals(found, problem, usd, output, price, per_mw),
        extrapolated=_extrapolated(found),
        excluded=found.excluded,
        assumptions=_assumptions(found, items),
        search=_counts(found),
        request=request,
        provenance=_provenance(found, solution.solver, items),
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


def _spread(found: Found) -> float:
    """Return the factor between a figure and the ends of its 80 % range."""
    return math.exp(Z80 * found.catalog.calibration.base["throughput_log_sd"])


def _intervals(
    found: Found, problem: FleetProblem, usd: float, output: float, price: float, per_mw: float | None
) -> dict[str, Interval]:
    """Return the 80 % ranges of the headline figures: those of the throughput prediction, carried through.

    Where a demand is given, the fleet that serves it grows as throughput falls short, and its cost with it.
    """
    f = _spread(found)

    def around(value: float) -> Interval:
        return Interval(low=value / f, high=value * f)

    ranges = {"usd_per_million_output_tokens": around(price)}
    ranges["usd_per_million_total_tokens"] = around(
        price * found.workload.output_tokens / (found.workload.input_tokens + found.workload.output_tokens)
    )
    if problem.goal is Goal.COST:
        ranges["usd_per_hour"] = around(usd)
    else:
        ranges["output_tokens_per_s"] = around(output)
        ranges["usd_per_hour"] = Interval(low=usd, high=usd)
    if per_mw is not None:
        ranges["tokens_per_s_per_mw"] = around(per_mw)
    return ranges


def _extrapolated(found: Found) -> bool:
    # Constants that were fitted to nothing have no range to be inside of.
    return not found.catalog.calibration.data_hash


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


def _counts(found: Found) -> SearchCounts:
    reports = found.reports.values()
    return SearchCounts(
        deployments_considered=sum(r.considered for r in reports),
        did_not_fit=sum(r.did_not_fit for r in reports),
        missed_limits=sum(r.missed_limits for r in reports),
        evaluated_with_queueing=sum(r.evaluated for r in reports),
        columns=len(found.columns),
    )


def _assumptions(found: Found, items: tuple[FleetItem, ...]) -> tuple[str, ...]:
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


def _provenance(found: Found, solver: str, items: tuple[FleetItem, ...]) -> Provenance:
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
        extrapolated=_extrapolated(found),
        nearest_feasible=tuple(nearest),
        excluded=found.excluded,
        assumptions=_assumptions(found, ()),
        search=_counts(found),
        request=request,
        provenance=_provenance(found, "none" if problem is None else "HiGHS", ()),
    )


def _nearest_limits(found: Found) -> list[NearestFeasible]:
    """Return which latency limit nothing meets, with the best value of any deployment."""
    sla, reports = found.request.sla, found.reports
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
