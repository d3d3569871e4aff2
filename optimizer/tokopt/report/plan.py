"""A plan as a report: what it costs, what to buy, what holds it back, and where the numbers come from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from tokopt.domain.plans import Marginal, Objective, Plan, PlanRequest, Status
from tokopt.report.blocks import bullets, columns, counted, pairs, section
from tokopt.report.deployments import letters_used
from tokopt.report.figures import UNKNOWN, number, plural, power, rate, share, spread, usd, usd_range
from tokopt.report.fleet import fleet_sections
from tokopt.report.outlook import outlook_sections
from tokopt.report.power import power_lines
from tokopt.report.verification import verification_section

MANY_CLASSES = 8  # of requests that are named in the first line
BEST = {
    Objective.COST: "the lowest cost",
    Objective.THROUGHPUT: "the most output",
    Objective.PROFIT: "the most profit",
    Objective.POWER: "the least power",
    Objective.CARBON: "the least carbon",
}


def plan_report(plan: Plan) -> RenderableType:
    """Return the report of a plan, or of the proof that there is none."""
    if plan.status is Status.INFEASIBLE:
        parts = [verdict(plan), *nearest_section(plan), *verification_section(plan)]
    else:
        parts = [verdict(plan), headline_section(plan), *fleet_sections(plan), *verification_section(plan)]
        parts += [*outlook_sections(plan), *margin_sections(plan)]
    return Group(*parts, *left_out_section(plan), assumptions_section(plan), provenance_section(plan))


def _some(names: Sequence[str]) -> str:
    """Return names, of many the first ones and how many more there are."""
    left = len(names) - MANY_CLASSES
    return ", ".join(names) if left <= 1 else f"{', '.join(names[:MANY_CLASSES])} and {left:,} more"


def verdict(plan: Plan) -> Text:
    """Return what was found for which task, and how far it is proven."""
    request = plan.request
    task = f"{request.llm}, {request.workload.name} workload"
    if request.classes:
        task = f"{len(request.classes)} kinds of requests ({_some([c.name for c in request.classes])})"
    if plan.status is Status.OPTIMAL:
        proof = proof_text(plan)
        return Text.assemble(
            (f"Optimal plan for {task}", "bold green"),
            f": {BEST[request.objective]} of all fleets over the set-ups that the search kept, proven ({proof})",
        )
    if plan.status is Status.FEASIBLE:
        gap_text = UNKNOWN if plan.gap is None else share(plan.gap)
        return Text.assemble(
            (f"Feasible plan for {task}", "bold yellow"),
            f": meets every limit; the search was cut short, and the best possible is at most {gap_text} better",
        )
    return Text.assemble((f"No plan for {task}", "bold red"), ": proven that nothing meets every limit")


def proof_text(plan: Plan) -> str:
    """Return the proven gap of an optimal plan."""
    gap = plan.gap or 0.0
    return "gap 0" if gap < 1e-9 else f"gap {gap:.1e}"


def headline_section(plan: Plan) -> RenderableType:
    """Return the headline figures with their ranges, and power."""
    ranges = plan.interval
    rows: list[tuple[str, str, str]] = []

    def add(name: str, value: str, range_text: str = "") -> None:
        rows.append((name, value, range_text))

    for name, field in (
        ("per M output tokens", "usd_per_million_output_tokens"),
        ("per M tokens in and out", "usd_per_million_total_tokens"),
    ):
        value = getattr(plan, field)
        if value is not None:
            add(name, usd(value), usd_range(ranges[field]) if field in ranges else "")
    if plan.usd_per_hour is not None:
        known = ranges.get("usd_per_hour")
        add(
            "cost", f"{usd(plan.usd_per_hour)}/h", usd_range(known) if known and known.high > known.low * 1.0001 else ""
        )
    if plan.output_tokens_per_s is not None:
        known = ranges.get("output_tokens_per_s")
        add("output", rate(plan.output_tokens_per_s, "tok/s"), spread(known, "tok/s") if known else "")
    if plan.requests_per_s is not None:
        add("requests", f"{number(plan.requests_per_s, 4)} req/s")
    if plan.profit_usd_per_hour is not None:
        add("profit", f"{_signed(plan.profit_usd_per_hour).strip('+')}{usd(abs(plan.profit_usd_per_hour))}/h")
    if plan.carbon_kg_per_hour is not None:
        add("carbon", f"{number(plan.carbon_kg_per_hour, 4)} kg/h")
    if plan.tokens_per_s_per_mw is not None:
        known = ranges.get("tokens_per_s_per_mw")
        add("output per megawatt", rate(plan.tokens_per_s_per_mw, "tok/s"), spread(known, "tok/s") if known else "")
    return Group(Text(""), columns(("", "", "80 % range"), rows, left=(0, 2)), power_lines(plan))


def nearest_section(plan: Plan) -> Iterator[RenderableType]:
    """Yield what binds where nothing is feasible, and the nearest values that would do."""
    if not plan.nearest_feasible:
        together = (
            f"no single limit, given up alone, makes a plan possible; they are: {', '.join(_limits(plan.request))}"
        )
        yield section("What stands in the way", Text(together))
        return
    rows = [(n.constraint, n.requested, n.nearest) for n in plan.nearest_feasible]
    details = [n.detail for n in plan.nearest_feasible if n.detail]
    yield section(
        "What stands in the way, and the nearest value that would do",
        columns(("constraint", "asked", "nearest feasible"), rows, left=(0, 1, 2)),
        *([bullets(details)] if details else []),
    )


def _limits(request: PlanRequest) -> list[str]:
    """Return what a request limits, with the values asked for."""
    limits = []
    for asked in request.served_classes():
        sla, whose = asked.sla, f" of {asked.name}" if request.classes else ""
        limits += [
            f"{name}{whose} {value:,.4g} ms at {sla.statistic.value}"
            for name, value in (("TPOT", sla.tpot_ms), ("TTFT", sla.ttft_ms), ("E2E", sla.e2e_ms))
            if value is not None
        ]
        if asked.demand_requests_per_s is not None:
            limits.append(f"demand{whose} {number(asked.demand_requests_per_s, 4)} req/s")
    if request.power_kw is not None:
        limits.append(f"power {power(request.power_kw)}")
    if request.budget_usd_per_hour is not None:
        limits.append(f"budget {usd(request.budget_usd_per_hour)}/h")
    limits += [f"power in {site} {power(kw)}" for site, kw in request.site_power_kw.items()]
    if request.most_carbon_kg_per_hour is not None:
        limits.append(f"carbon {number(request.most_carbon_kg_per_hour, 4)} kg/h")
    if request.most_spot_share is not None:
        limits.append(f"at most {share(request.most_spot_share)} on spot units")
    if request.survive.value != "none":
        limits.append(f"spare capacity for any one {request.survive.value}")
    limits += [f"at most {count:,} {name}" for name, count in request.inventory.items()]
    if request.most_accelerator_types is not None:
        limits.append(f"at most {plural(request.most_accelerator_types, 'kind')} of accelerator")
    return limits


def margin_sections(plan: Plan) -> Iterator[RenderableType]:
    """Yield what holds a plan back, what a little more would be worth, and the second best."""
    if plan.binding:
        yield section("What holds it back", pairs((b.constraint, b.detail) for b in plan.binding))
    worth = [line for line in map(worth_of, plan.marginal) if line is not None]
    if worth:
        yield section("What a little more would be worth", pairs(worth))
    second = plan.runner_up
    if second is not None:
        mix = ", ".join(f"{count:,} {name}" for name, count in second.accelerators.items())
        efficiency = "" if second.tokens_per_s_per_mw is None else f", {rate(second.tokens_per_s_per_mw, 'tok/s')} a MW"
        yield section(
            f"Second best, without {second.without}: {share(second.worse_by)} worse",
            Text(
                f"{mix}: {usd(second.usd_per_million_output_tokens)} per M output tokens, "
                f"{usd(second.usd_per_hour)}/h, {rate(second.output_tokens_per_s, 'tok/s')}{efficiency}"
            ),
        )


def worth_of(margin: Marginal) -> tuple[str, str] | None:
    """Return what one more unit of a limit is worth, name and figures; None where nothing is known of it."""
    said = []
    if margin.output_tokens_per_s is not None:
        said.append(f"{_signed(margin.output_tokens_per_s)}{rate(abs(margin.output_tokens_per_s), 'tok/s')} of output")
    if margin.usd_per_hour is not None:
        said.append(f"{_signed(margin.usd_per_hour)}{usd(abs(margin.usd_per_hour))}/h")
    price = margin.usd_per_million_output_tokens
    if price is not None and abs(price) >= 5e-7:
        said.append(f"{_signed(price)}{usd(abs(price))} per M output tokens")
    if not said:
        return None
    return f"one more {margin.unit} of {margin.of}", f"{', '.join(said)} ({margin.note})"


def _signed(value: float) -> str:
    return "+" if value > 0 else "-" if value < 0 else ""


def left_out_section(plan: Plan) -> Iterator[RenderableType]:
    """Yield the accelerators that could not be used, and why."""
    if plan.excluded:
        yield section("Accelerators left out", pairs(sorted(plan.excluded.items())))


def assumptions_section(plan: Plan) -> RenderableType:
    """Return what a plan takes for granted, and what its words mean."""
    lines = list(plan.assumptions)
    if plan.extrapolated:
        lines.append("predictions rest on constants that were not fitted to measurements of this set-up")
    if plan.fleet:
        lines.append(f"in layouts: {letters_used(item.deployment for item in plan.fleet)}")
    lines.append(
        "TPOT = time per output token after the first, TTFT = time to first token, E2E = the whole request; "
        "p99 = 99 % of requests do better"
    )
    return section("Assumptions", bullets(lines))


def _prices(plan: Plan) -> str:
    """Return the lists with their dates, those of the offers that are used, and rates of currencies."""
    made = plan.provenance
    said = f"{', '.join(made.price_lists)} as of {made.prices_as_of or UNKNOWN}"
    if plan.fleet and made.used_prices_as_of != made.prices_as_of:
        said += f"; the offers used: {made.used_prices_as_of or 'not dated'}"
    rates = ", ".join(f"1 {code} = {rate:g} USD" for code, rate in plan.request.rates.items())
    return f"{said}; {rates}" if rates else said


def provenance_section(plan: Plan) -> RenderableType:
    """Return versions, calibration, prices and the size of the search."""
    made, looked = plan.provenance, plan.search
    rows = [
        ("tokopt", f"{made.tokopt_version}, catalog {made.catalog_version}, solver {made.solver}"),
        (
            "calibration",
            f"{made.calibration} of {made.calibration_made_on} (weakest constant: {made.constants_origin}). "
            f"{made.calibration_summary}",
        ),
        ("prices", _prices(plan)),
    ]
    if made.rejected_price_rows:
        rejected = sum(made.rejected_price_rows.values())
        said = "; ".join(counted(made.rejected_price_rows)[:6])
        rows.append(("price rows", f"{plural(rejected, 'row')} not used: {said}"))
    rows.append(
        (
            "search",
            f"{looked.deployments_considered:,} deployments considered: {looked.did_not_fit:,} did not fit in memory, "
            f"{looked.missed_limits:,} missed a limit, {looked.columns:,} went into the fleet program",
        )
    )
    return section("Where the numbers come from", pairs(rows))
