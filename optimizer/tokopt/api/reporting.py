"""`report_html` and `plots`: everything that a report needs, gathered into one record, and that record as a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokopt.catalog import Catalog, load_catalog
from tokopt.domain.comparing import Comparison
from tokopt.domain.plans import FleetItem, Plan, PlanRequest, Status
from tokopt.domain.reporting import BoardReport, PlannedFrontier, PlanPoint, ReportPart, SourceTitle
from tokopt.errors import InputError, TokoptError

from .checking import read_plan
from .comparing import Prepared, run_comparison
from .comparing_scenarios import PriceGroup, Scenario, cells_of, price_content, price_groups
from .cost_breakdown import cost_breakdown
from .explaining import explain
from .frontiers import cheapest_by_accelerator, frontier
from .headline import headline_of
from .power_breakdown import power_breakdown
from .progress import Progress, silent
from .requests import names, workload_of

MOST_FRONTIERS = 4  # classes of requests whose frontiers are drawn, those with the most output first
MOST_WINNERS = 10  # accelerators that are set side by side
MOST_S = 10.0  # of the solver, for one price list
QUICK = (ReportPart.FRONTIER, ReportPart.COST, ReportPart.POWER)  # what takes a second or two
OWNERSHIP = "ownership-"
AS_ASKED = "as asked"
# Of the whole work, when each part begins; the rest is drawing.
BEGINS = {
    ReportPart.FRONTIER: 0.0,
    ReportPart.PRICE_LISTS: 0.2,
    ReportPart.EXPLANATION: 0.35,
}
DRAWING = 0.85


def report_html(
    plan: Plan | str | Path | Mapping[str, Any],
    *,
    catalog: str | Catalog | None = None,
    parts: str | Sequence[str] | None = None,
    quick: bool = False,
    jobs: int = 1,
    progress: Progress = silent,
) -> str:
    """Return a plan as one self-contained HTML page that says what a board asks.

    Args:
        plan: A plan, its JSON as a mapping, or the path of a plan file.
        catalog: A catalog or an overlay directory; None = what the plan's request names.
        parts: What is shown beyond the plan itself: `frontier`, `cost`, `power`, `explanation`, `price_lists`. None =
            all of them.
        quick: Leave out what takes long: `explanation` and `price_lists`, unless `parts` names them.
        jobs: Most processes; more than one has to be asked for under `if __name__ == "__main__":`.
        progress: Told what is being done.

    Returns:
        The page. The same plan gives the same bytes.

    Raises:
        InputError: The plan cannot be read, a part is unknown, or the extra `report` is missing. In one line.
    """
    from tokopt.report.html import page, require_pages

    require_pages()
    report = board_report(plan, catalog=catalog, parts=parts, quick=quick, jobs=jobs, progress=progress)
    progress("drawing", DRAWING)
    return page(report)


def plots(
    plan: Plan | str | Path | Mapping[str, Any],
    *,
    form: str = "png",
    catalog: str | Catalog | None = None,
    parts: str | Sequence[str] | None = None,
    quick: bool = False,
    jobs: int = 1,
    progress: Progress = silent,
) -> dict[str, bytes]:
    """Return the pictures of a plan's report: name of a file -> its content. See `report_html`.

    Args:
        plan: A plan, its JSON as a mapping, or the path of a plan file.
        form: `png` or `svg`.
        catalog: A catalog or an overlay directory; None = what the plan's request names.
        parts: As in `report_html`.
        quick: As in `report_html`.
        jobs: Most processes.
        progress: Told what is being done.

    Raises:
        InputError: As in `report_html`, or a form that is not known.
    """
    from tokopt.report.board_charts import pictures
    from tokopt.report.plots import require_form, require_plots

    require_form(form)
    require_plots()
    report = board_report(plan, catalog=catalog, parts=parts, quick=quick, jobs=jobs, progress=progress)
    progress("drawing", DRAWING)
    return dict(pictures(report, form))


def board_report(
    plan: Plan | str | Path | Mapping[str, Any],
    *,
    catalog: str | Catalog | None = None,
    parts: str | Sequence[str] | None = None,
    quick: bool = False,
    jobs: int = 1,
    progress: Progress = silent,
) -> BoardReport:
    """Return what a report shows, as a record; see `report_html`. What cannot be had is left out, and says why."""
    read = read_plan(plan)
    wanted = _parts(parts, quick=quick)
    loaded = catalog if isinstance(catalog, Catalog) else load_catalog(catalog or read.request.catalog)
    left_out = {
        part: "left out to be quick" if parts is None else "not asked for" for part in ReportPart if part not in wanted
    }
    found: dict[str, Any] = {}
    makers: dict[ReportPart, tuple[str, Any]] = {
        ReportPart.FRONTIER: ("frontiers", lambda told: _frontiers(read, loaded, told)),
        ReportPart.COST: ("cost", lambda _: cost_breakdown(read, loaded)),
        ReportPart.POWER: ("power", lambda _: power_breakdown(read, loaded)),
        ReportPart.PRICE_LISTS: ("comparison", lambda told: _compared(read, loaded, jobs, told)),
        ReportPart.EXPLANATION: ("explanation", lambda told: _explained(read, loaded, jobs, told)),
    }
    ends = [*(begin for begin in BEGINS.values() if begin), DRAWING]
    for part, (field, make) in makers.items():
        if part not in wanted:
            continue
        start = BEGINS.get(part, 0.0)
        try:
            answer = make(_between(progress, start, next(end for end in ends if end > start)))
        except TokoptError as error:
            left_out[part] = str(error)
            continue
        if answer is None:
            left_out[part] = _nothing(read, part)
        elif isinstance(answer, _Compared):
            found |= {name: getattr(answer, name) for name in ("comparison", "by_accelerator", "uncompared")}
        else:
            found[field] = answer
    return BoardReport(
        plan=read,
        titles=_titles(read, loaded, found.get("frontiers", ())),
        headline=headline_of(read),
        sources=_sources(read, loaded),
        left_out=left_out,
        **found,
    )


def _parts(asked: str | Sequence[str] | None, *, quick: bool) -> tuple[ReportPart, ...]:
    """Return the parts that are wanted.

    Raises:
        InputError: One is unknown.
    """
    if asked is None:
        return QUICK if quick else tuple(ReportPart)
    known = {part.value: part for part in ReportPart}
    for name in names(asked):
        if name not in known:
            raise InputError(f"parts: {name!r} is not one of {', '.join(known)}")
    return tuple(known[name] for name in names(asked))


def _between(progress: Progress, start: float, end: float) -> Progress:
    return lambda doing, done: progress(doing, start + (end - start) * done)


def _nothing(plan: Plan, part: ReportPart) -> str:
    if plan.status is Status.INFEASIBLE:
        return "the plan is infeasible: there is no fleet to take apart"
    return {
        ReportPart.POWER: "the power of the fleet is not known",
        ReportPart.COST: "the plan states no cost",
    }.get(part, "there is nothing to show")


# --- frontiers ---


def _frontiers(plan: Plan, catalog: Catalog, progress: Progress) -> tuple[PlannedFrontier, ...]:
    """Return the frontier of each class of requests over the accelerators that have a price."""
    request = plan.request
    classes = list(request.served_classes())
    outputs = {each.name: each.output_tokens_per_s for each in plan.classes}
    chosen = sorted(classes, key=lambda each: -outputs.get(each.name, 0.0))[:MOST_FRONTIERS]
    gpus = _searched(request, catalog)
    found = []
    for number, asked in enumerate(chosen):
        shape = workload_of(asked.workload)
        curve = frontier(
            model=asked.llm,
            gpus=gpus,
            workload=shape,
            prices=request.prices,
            rates=request.rates,
            frameworks=request.frameworks,
            precisions=request.precisions,
            kv_precisions=request.kv_precisions,
            modes=[mode.value for mode in request.modes],
            disable=[feature.value for feature in request.disabled_features],
            expert_traffic=request.expert_traffic,
            catalog=catalog,
            progress=_between(progress, number / len(chosen), (number + 1) / len(chosen)),
        )
        points = tuple(
            plan_point(place, item)
            for place, item in enumerate(plan.fleet, start=1)
            if asked.name in item.share_of_traffic and item.gpus and item.output_tokens_per_s > 0.0
        )
        found.append(PlannedFrontier(of_class=asked.name, frontier=curve, points=points))
    return tuple(found)


def _searched(request: PlanRequest, catalog: Catalog) -> tuple[str, ...]:
    """Return the accelerators that a request may choose from."""
    if request.accelerators:
        return tuple(name for name in request.accelerators if name not in request.excluded_accelerators)
    lowest, _ = cheapest_by_accelerator(catalog, request.prices, request.rates)
    return tuple(name for name in lowest if name not in request.excluded_accelerators)


def plan_point(place: int, item: FleetItem) -> PlanPoint:
    """Return where the `place`-th item lies; where it has periods, in its fullest one, whose latencies it states."""
    output, usd, gpus = item.output_tokens_per_s, item.usd_per_hour, item.gpus
    full = item.busiest
    if full is not None and full.requests_per_s and item.requests_per_s:
        output *= full.requests_per_s / item.requests_per_s
        usd, gpus = full.usd_per_hour, full.units * item.gpus_per_unit if not item.parts else item.gpus
    return PlanPoint(
        item=place,
        accelerator=item.accelerator,
        deployment=item.deployment,
        replicas=item.replicas,
        gpus=item.gpus,
        tokens_per_s_per_user=1e3 / item.tpot_ms.mean,
        output_tokens_per_s_per_gpu=output / gpus,
        usd_per_million_output_tokens=usd / (output * 3600.0) * 1e6,
    )


# --- price lists ---


@dataclass(frozen=True, slots=True, kw_only=True)
class _Compared:
    """A plan's request under price lists: of all accelerators, and of single ones; and the lists that are not there."""

    comparison: Comparison
    by_accelerator: Comparison | None
    uncompared: dict[str, str]


def _compared(plan: Plan, catalog: Catalog, jobs: int, progress: Progress) -> _Compared:
    """Return the plan's request under its own price list and every one of the catalog."""
    request = plan.request
    groups, why = [_own_group(request, catalog)], {}
    shipped = [*(f"{OWNERSHIP}{name}" for name in catalog.ownership), *catalog.price_list_names]
    for name in shipped:
        if (name,) == request.prices:
            continue
        try:
            groups += price_groups(catalog, [name], request.rates)
        except TokoptError as error:
            why[name] = str(error)
    if len(groups) < 2:
        raise InputError("there is no other price list to compare with")
    asked = request.model_copy(update={"time_limit_s": min(request.time_limit_s, MOST_S)})
    first = _solved(catalog, {AS_ASKED: asked}, groups, jobs, _between(progress, 0.0, 0.5))
    winners = dict.fromkeys(row.accelerator for row in first.rows if row.accelerator)
    if not request.classes and not request.periods and len(winners) > 1:
        planned = {row.price_list for row in first.rows if row.accelerator}
        alone = {
            name: asked.model_copy(update={"accelerators": (name,), "excluded_accelerators": ()})
            for name in list(winners)[:MOST_WINNERS]
        }
        some = [group for group in groups if group.name in planned]
        second = _solved(catalog, alone, some, jobs, _between(progress, 0.5, 1.0))
        return _Compared(comparison=first, by_accelerator=second, uncompared=why)
    return _Compared(comparison=first, by_accelerator=None, uncompared=why)


def _solved(
    catalog: Catalog, requests: Mapping[str, PlanRequest], groups: Sequence[PriceGroup], jobs: int, progress: Progress
) -> Comparison:
    scenarios = tuple(Scenario(name=name, request=request) for name, request in requests.items())
    prepared = Prepared(
        catalog=catalog,
        scenarios=scenarios,
        groups=tuple(groups),
        cells=cells_of(catalog, scenarios, groups),
        searches=1,
    )
    some = next(iter(requests.values()))
    programs = some.demand_requests_per_s is not None or bool(some.classes)  # otherwise cells are a matter of moments
    return run_comparison(
        prepared,
        jobs=jobs if programs else 1,
        progress=lambda doing, done: progress(f"price lists: {doing}", done),
    )


def _own_group(request: PlanRequest, catalog: Catalog) -> PriceGroup:
    prices = catalog.price_list(request.prices, rates=request.rates)
    return PriceGroup(
        name="+".join(request.prices),
        request_names=request.prices,
        prices=prices,
        rates=request.rates,
        content=price_content(prices),
    )


# --- why, and what names stand for ---


def _explained(plan: Plan, catalog: Catalog, jobs: int, progress: Progress) -> Any:
    return explain(plan, catalog=catalog, jobs=jobs, progress=lambda doing, done: progress(f"why: {doing}", done))


def _titles(plan: Plan, catalog: Catalog, frontiers: Sequence[PlannedFrontier]) -> dict[str, str]:
    """Return what accelerators and models are called, by their names."""
    used = {part.accelerator for item in plan.fleet for part in item.bought}
    used |= {point.accelerator for each in frontiers for point in each.frontier.points}
    used |= set(plan.excluded) | {each.accelerator for each in plan.break_even}
    titles = {}
    for name in sorted(used):
        try:
            titles[name] = catalog.accelerator(name).title
        except TokoptError:
            continue
    for asked in plan.request.served_classes():
        try:
            titles[asked.llm] = catalog.llm(asked.llm).title
        except TokoptError:  # a config.json that is gone
            continue
    return titles


def _sources(plan: Plan, catalog: Catalog) -> dict[str, SourceTitle]:
    """Return what the sources of a plan's facts and prices are, by key."""
    keys = {*plan.provenance.sources.values()}
    keys |= {part.price_source for item in plan.fleet for part in item.bought}
    return {
        key: SourceTitle(
            title=source.title,
            publisher=source.publisher,
            retrieved_on=source.retrieved_on,
            locator=source.locator,
        )
        for key in sorted(keys)
        for source in (catalog.sources.get(key),)
        if source is not None
    }
