"""`plan`: from a request to a fleet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tokopt.catalog import Catalog, load_catalog
from tokopt.domain.accelerators import Accelerator
from tokopt.domain.deployments import ServingMode
from tokopt.domain.offers import Market, PriceList
from tokopt.domain.plans import Objective, Plan, PlanRequest, PowerBasis
from tokopt.domain.workloads import Sla, Workload
from tokopt.errors import InputError
from tokopt.fleet import FleetProblem, FleetSolution, Goal, Stop, solve_fleet
from tokopt.search import Search, SearchReport, SearchSpace, find_candidates
from tokopt.units import KW, POWER, parse_quantity

from .answer import assemble
from .columns import allowed_offers, cheapest_offers, priced, provisioned_w
from .found import Found
from .infeasible import infeasible
from .progress import Progress, silent
from .requests import names, parse_demand, parse_share, parse_sla, resolve_workload, shape_of, with_default_ttft
from .space import search_space, supported

DEFAULT_LLM = "deepseek-r1"
DEFAULT_WORKLOAD = "agentic"
RUNNER_UP_S = 10.0  # the second-best plan is an extra: it does not get as long as the plan itself
DEFAULT_PRICES = "ownership-hyperscaler"
# Spot machines can be taken away, which no plan accounts for yet: they are used only where they are asked for.
BY_DEFAULT = tuple(market.value for market in Market if market is not Market.SPOT)


def make_request(
    catalog: Catalog,
    *,
    power: str | None = None,
    sla: str | Sla = "50ms",
    model: str = DEFAULT_LLM,
    workload: str | Workload = DEFAULT_WORKLOAD,
    demand: str | None = None,
    prices: str | Sequence[str] = DEFAULT_PRICES,
    gpus: str | Sequence[str] | None = None,
    exclude: str | Sequence[str] | None = None,
    frameworks: str | Sequence[str] | None = None,
    precisions: str | Sequence[str] | None = None,
    kv_precisions: str | Sequence[str] | None = None,
    modes: str | Sequence[str] | None = None,
    regions: str | Sequence[str] | None = None,
    markets: str | Sequence[str] | None = None,
    power_basis: str = "utility",
    objective: str = "cost",
    budget_usd_per_hour: float | None = None,
    inventory: dict[str, int] | None = None,
    max_types: int | None = None,
    robust: float | str | None = None,
    isl: float | None = None,
    osl: float | None = None,
    prefix_share: float | None = None,
    time_limit_s: float = 60.0,
    catalog_directory: str | Path | None = None,
) -> PlanRequest:
    """Return a request with every name resolved to the catalog's; see `plan` for the arguments.

    Raises:
        InputError: Whatever is wrong, in one line.
    """
    llm = catalog.llm(model)
    shape = resolve_workload(catalog, workload, input_tokens=isl, output_tokens=osl, prefix_share=prefix_share)
    limits, said_first_token = parse_sla(sla)
    limits, by_default = with_default_ttft(limits, said_first_token, shape)
    goal = _choice("--objective", objective, tuple(o.value for o in Objective))
    if demand is None and power is None and budget_usd_per_hour is None and not inventory:
        raise InputError("nothing says how large the fleet is: give --power (10MW), --demand (400req/s) or --budget")
    if goal == "throughput" and demand is not None:
        raise InputError("--objective throughput makes the demand the answer: leave --demand out")
    if budget_usd_per_hour is not None and not 0 < budget_usd_per_hour < float("inf"):
        raise InputError(f"--budget: {budget_usd_per_hour:g} must be above zero; write it like $500")
    return PlanRequest(
        llm=str(Path(model).resolve()) if _is_path(model) else llm.name,
        workload=shape_of(shape),
        sla=limits,
        ttft_by_default=by_default,
        power_kw=None if power is None else parse_quantity(power, POWER, what="--power") / KW,
        power_basis=PowerBasis(_choice("--power-basis", power_basis, tuple(b.value for b in PowerBasis))),
        demand_requests_per_s=None if demand is None else parse_demand(demand, shape.output_tokens),
        budget_usd_per_hour=budget_usd_per_hour,
        objective=Objective(goal),
        prices=tuple(_price_list(name) for name in names(prices)),
        regions=names(regions),
        markets=tuple(_choice("--market", m, tuple(k.value for k in Market)) for m in names(markets)) or BY_DEFAULT,
        accelerators=tuple(catalog.accelerator(n).name for n in names(gpus)),
        excluded_accelerators=tuple(catalog.accelerator(n).name for n in names(exclude)),
        frameworks=tuple(catalog.framework(n).name for n in names(frameworks)),
        precisions=tuple(catalog.precision(n).name for n in names(precisions)),
        kv_precisions=tuple(catalog.kv_precision(n).name for n in names(kv_precisions)),
        modes=tuple(ServingMode(_choice("--mode", m, ("agg", "disagg"))) for m in names(modes)),
        most_accelerator_types=max_types,
        robust=parse_share(robust, "--robust"),
        inventory={catalog.accelerator(k).name: v for k, v in (inventory or {}).items()},
        time_limit_s=time_limit_s,
        catalog=None if catalog_directory is None else str(Path(catalog_directory).resolve()),
    )


def _price_list(name: str) -> str:
    """Return a price list's name, or the whole path of a file: a plan file is read from other folders too."""
    return str(Path(name).resolve()) if "/" in name or name.lower().endswith(".csv") else name


def _is_path(model: str) -> bool:
    return model.endswith(".json") or Path(model).is_file()


def _choice(what: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise InputError(f"{what}: {value!r} is not one of {', '.join(allowed)}")
    return value


def solve_request(
    request: PlanRequest,
    catalog: Catalog | None = None,
    progress: Progress = silent,
    *,
    search: Search = find_candidates,
    extras: bool = True,
) -> Plan:
    """Solve a request, for instance one out of a plan file.

    Args:
        request: The request.
        catalog: The catalog; None = the embedded one with the request's overlay.
        progress: Told what is being done.
        search: Finds candidates; `SharedSearch` remembers them for many requests of one kind.
        extras: Also say what binds, what more of it is worth, and what is best without the winner's accelerator.

    Returns:
        The plan; its status says whether anything meets the request.

    Raises:
        InputError: A name that the catalog does not know, or a request that nothing limits.
    """
    catalog = catalog or load_catalog(request.catalog)
    found = gather(request, catalog, progress, search)
    if not found.columns:
        return infeasible(found, None)
    problem = fleet_problem(found)
    progress("solving the fleet program", 1.0)
    solution = solve_fleet(problem, shadow_prices=extras)
    if solution.stop is Stop.INFEASIBLE:
        return infeasible(found, problem)
    second = _without_winner(problem, solution) if extras else None
    return assemble(found, problem, solution, second, margins=extras)


def gather(
    request: PlanRequest, catalog: Catalog, progress: Progress = silent, search: Search = find_candidates
) -> Found:
    """Load what a request needs, search every accelerator that has a price, and price what was found."""
    llm = catalog.llm(request.llm)
    workload = Workload(**request.workload.model_dump())
    space = search_space(
        catalog,
        llm=llm,
        workload=workload,
        sla=request.sla,
        frameworks=request.frameworks,
        precisions=request.precisions,
        kv_precisions=request.kv_precisions,
        modes=request.modes,
        calibration=catalog.calibration.slower(request.robust),
    )
    prices = catalog.price_list(request.prices)
    offers = cheapest_offers(allowed_offers(prices.offers, request))
    if not offers:
        raise InputError(_no_offer(prices, request))
    by_accelerator: dict[str, set[int]] = {}
    for offer in offers:
        by_accelerator.setdefault(offer.accelerator, set()).add(offer.accelerator_count)
    reports: dict[str, SearchReport] = {}
    excluded: dict[str, str] = {}
    for number, (name, units) in enumerate(by_accelerator.items()):
        accelerator = catalog.accelerators[name]
        progress(f"searching {accelerator.title}", number / len(by_accelerator))
        reason = _unusable(accelerator, request, space)
        if reason:
            excluded[name] = reason
            continue
        reports[name] = search(accelerator, space, tuple(sorted(units)))
        if not reports[name].candidates:
            excluded[name] = _why_nothing(reports[name], request)
    for name in request.accelerators:
        if name not in by_accelerator:
            excluded[name] = "no price for it in the price list"
    candidates = {name: report.candidates for name, report in reports.items()}
    columns = priced(candidates, offers, catalog.accelerators, request.power_basis)
    used = {c.offer.accelerator for c in columns}
    for name in candidates:
        if candidates[name] and name not in used:
            excluded[name] = "no unit on offer is large enough for a replica, and smaller instances cannot be joined"
    return Found(
        request=request,
        catalog=catalog,
        llm=llm,
        workload=workload,
        space=space,
        prices=prices,
        reports=reports,
        excluded=excluded,
        columns=columns,
    )


def _no_offer(prices: PriceList, request: PlanRequest) -> str:
    selections = {
        "accelerators": request.accelerators,
        "regions": request.regions,
        "markets": request.markets,
        "without": request.excluded_accelerators,
    }
    asked = "; ".join(f"{what} {', '.join(values)}" for what, values in selections.items() if values)
    there = ", ".join(sorted({o.accelerator for o in prices.offers}))
    return f"no offer in {', '.join(request.prices)} is left ({asked or 'none in stock'}); it has: {there or 'nothing'}"


def _unusable(accelerator: Accelerator, request: PlanRequest, space: SearchSpace) -> str:
    if request.power_kw is not None:
        each_w = provisioned_w(accelerator, request.power_basis)
        if each_w != each_w:
            missing = "all-in power" if request.power_basis is PowerBasis.UTILITY else "server power"
            return f"the catalog has no {missing} for it, which a power limit needs"
    if not supported(accelerator, space):
        return f"no framework in the catalog runs on it ({', '.join(f.name for f in space.frameworks)})"
    return ""


def _why_nothing(report: SearchReport, request: PlanRequest) -> str:
    if report.considered == 0:
        return "no framework serves the model there in the precisions asked for"
    if report.fastest_tpot_s == float("inf"):
        return "the model does not fit in any layout"
    limit = request.sla.tpot_ms
    if limit is not None and report.fastest_tpot_s * 1e3 > limit:
        return f"its fastest TPOT is {report.fastest_tpot_s * 1e3:.1f} ms, above the limit of {limit:g} ms"
    first_ms = report.fastest_first_token_s * 1e3
    return f"no set-up meets the limits (its fastest first token takes {first_ms:,.0f} ms at the same statistic)"


def fleet_problem(found: Found) -> FleetProblem:
    """Return the fleet program of a request."""
    request = found.request
    if request.objective is Objective.THROUGHPUT:
        goal = Goal.THROUGHPUT
    else:
        goal = Goal.COST if request.demand_requests_per_s is not None else Goal.COST_PER_TOKEN
    stock = {c.column.offer: c.offer.available_units for c in found.columns if c.offer.available_units is not None}
    return FleetProblem(
        columns=tuple(c.column for c in found.columns),
        demand=(request.demand_requests_per_s or 1.0,),
        tokens_per_request=(found.workload.output_tokens,),
        goal=goal,
        power_w=None if request.power_kw is None else request.power_kw * KW,
        budget_usd_per_hour=request.budget_usd_per_hour,
        offer_units=stock,
        accelerator_stock=request.inventory,
        most_accelerator_types=request.most_accelerator_types,
        time_limit_s=request.time_limit_s,
        gap_target=request.gap_target,
    )


def _without_winner(problem: FleetProblem, solution: FleetSolution) -> tuple[str, FleetProblem, FleetSolution] | None:
    """Return the best plan without the accelerator that serves most, or None if nothing else serves."""
    served: dict[str, float] = {}
    for column, rates in zip(problem.columns, solution.rates, strict=True):
        served[column.accelerator] = served.get(column.accelerator, 0.0) + sum(rates)
    winner = max(served, key=lambda name: served[name])
    kept = tuple(c for c in problem.columns if c.accelerator != winner)
    if not kept:
        return None
    rest = replace(problem, columns=kept, time_limit_s=min(problem.time_limit_s, RUNNER_UP_S))
    second = solve_fleet(rest, shadow_prices=False)
    return None if second.stop is Stop.INFEASIBLE else (winner, rest, second)
