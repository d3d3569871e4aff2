"""Plans as a page shows them: figures in words, two side by side, and what can be asked of this catalog."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tokopt.catalog import Catalog
from tokopt.domain.comparisons import Frontier
from tokopt.domain.exporting import Target
from tokopt.domain.plan_views import (
    AskedDifference,
    Choice,
    Choices,
    FigureDifference,
    FrontierView,
    MachineDifference,
    PlansCompared,
    PlanView,
    ShownFigure,
    UploadCheck,
)
from tokopt.domain.plans import Objective, Plan
from tokopt.domain.workloads import Statistic
from tokopt.errors import unknown_name
from tokopt.perf.counts import parameter_counts
from tokopt.report.answer import NAMES, answer_sentence, figure_text, range_text
from tokopt.report.deployments import short_text
from tokopt.report.figures import plural
from tokopt.report.plan import worth_of
from tokopt.version import __version__

from .asking import DEFAULT_LLM, DEFAULT_PRICES, DEFAULT_WORKLOAD
from .browsing import Entry, entries
from .headline import FIGURES
from .prices import check_prices
from .reporting import board_report, plan_point

OBJECTIVES = {
    Objective.COST: "Lowest cost",
    Objective.THROUGHPUT: "Most tokens",
    Objective.PROFIT: "Most profit",
    Objective.POWER: "Least power",
    Objective.CARBON: "Least carbon",
}
NEEDS_PRICES_OF_TOKENS = (Objective.PROFIT,)  # which a single question does not state
NOT_ASKED = ("time_limit_s", "gap_target", "ttft_by_default")  # how hard a request is solved, not what it asks


def view_plan(plan: Plan, catalog: Catalog) -> PlanView:
    """Return a plan with its answer in one sentence and its figures in words."""
    report = board_report(plan, catalog=catalog, parts=())
    return PlanView(
        plan=plan,
        sentence=answer_sentence(report),
        headline=tuple(
            ShownFigure(
                name=figure.name,
                title=NAMES[figure.name],
                value=figure.value,
                text=figure_text(figure.name, figure.value),
                certainty=figure.certainty,
                interval=figure.interval,
                range_text=range_text(figure),
            )
            for figure in report.headline
        ),
        setups=tuple(short_text(item.deployment) for item in plan.fleet),
        worth=tuple(line for line in map(worth_of, plan.marginal) if line is not None),
        points=tuple(
            plan_point(place, item)
            for place, item in enumerate(plan.fleet, start=1)
            if item.gpus and item.output_tokens_per_s > 0.0
        ),
        titles=report.titles,
    )


def view_frontier(frontier: Frontier, catalog: Catalog) -> FrontierView:
    """Return a frontier with its set-ups in words."""
    names = {point.accelerator for point in frontier.points} | set(frontier.excluded)
    return FrontierView(
        frontier=frontier,
        setups=tuple(short_text(point.deployment) for point in frontier.points),
        titles={name: catalog.accelerator(name).title for name in sorted(names)},
    )


def compare_plans(first: Plan, second: Plan, catalog: Catalog) -> PlansCompared:
    """Return two plans side by side: their headline figures, their machines, and how their requests differ."""
    views = view_plan(first, catalog), view_plan(second, catalog)
    titles = views[0].titles | views[1].titles
    return PlansCompared(
        first=views[0],
        second=views[1],
        figures=tuple(
            _figure(name, getattr(first, name), getattr(second, name))
            for name in FIGURES
            if getattr(first, name) is not None or getattr(second, name) is not None
        ),
        machines=tuple(_machines(first, second, titles)),
        asked=tuple(_asked(first, second)),
    )


def _figure(name: str, first: float | None, second: float | None) -> FigureDifference:
    change = None if first is None or second is None or first <= 0.0 else (second / first - 1.0) * 100.0
    return FigureDifference(
        name=name,
        title=NAMES[name],
        first=first,
        second=second,
        first_text="none" if first is None else figure_text(name, first),
        second_text="none" if second is None else figure_text(name, second),
        change_percent=change,
    )


def _machines(first: Plan, second: Plan, titles: Mapping[str, str]) -> list[MachineDifference]:
    counts: dict[tuple[str, str, str], list[int]] = {}
    for side, plan in enumerate((first, second)):
        for item in plan.fleet:
            for part in item.bought:
                counts.setdefault((part.accelerator, item.provider, item.market), [0, 0])[side] += part.gpus
    return [
        MachineDifference(
            accelerator=accelerator,
            title=titles.get(accelerator, accelerator),
            provider=provider,
            market=market,
            first_gpus=gpus[0],
            second_gpus=gpus[1],
        )
        for (accelerator, provider, market), gpus in sorted(counts.items(), key=lambda pair: -max(pair[1]))
    ]


def _asked(first: Plan, second: Plan) -> list[AskedDifference]:
    one, other = (plan.request.model_dump(mode="json", exclude=set(NOT_ASKED)) for plan in (first, second))
    return [
        AskedDifference(field=field, first=_said(one[field]), second=_said(other[field]))
        for field in one
        if one[field] != other[field]
    ]


def _said(value: Any) -> str:
    if value is None or value in ([], {}, ""):
        return "none"
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return ", ".join(value)
    if isinstance(value, dict):
        return ", ".join(
            f"{name.replace('_', ' ')} {_said(each)}" for name, each in value.items() if each not in (None, [], {})
        )
    if isinstance(value, float):
        return f"{value:,.6g}"
    return value if isinstance(value, str) else json.dumps(value)


def choices(catalog: Catalog) -> Choices:
    """Return what a question can name, each with its title."""

    def listed(table: str) -> tuple[Choice, ...]:
        return tuple(_choice(each) for each in entries(catalog, table)[table])

    owned = tuple(
        Choice(name=f"ownership-{each.name}", title=each.title, summary=each.summary)
        for each in entries(catalog, "ownership")["ownership"]
    )
    rented = tuple(Choice(name=name, title=f"{name} (rental)") for name in catalog.price_list_names)
    return Choices(
        models=listed("models"),
        workloads=listed("workloads"),
        accelerators=listed("accelerators"),
        price_lists=(*owned, *rented),
        objectives=tuple(
            Choice(name=each.value, title=title)
            for each, title in OBJECTIVES.items()
            if each not in NEEDS_PRICES_OF_TOKENS
        ),
        precisions=listed("precisions"),
        frameworks=listed("frameworks"),
        statistics=tuple(each.value for each in Statistic),
        exports=tuple(each.value for each in Target),
        default_model=DEFAULT_LLM,
        default_workload=DEFAULT_WORKLOAD,
        default_prices=DEFAULT_PRICES,
        tokopt_version=__version__,
        catalog_version=catalog.version,
    )


def _choice(entry: Entry) -> Choice:
    return Choice(name=entry.name, title=entry.title, summary=entry.summary)


def published_model(catalog: Catalog, alias: str) -> str:
    """Return the catalog's name of a model that its publisher calls `alias`, without looking for a file of that name.

    Raises:
        InputError: The catalog has none.
    """
    known = {also.lower(): llm.name for llm in catalog.llms.values() for also in llm.aliases}
    if alias.lower() not in known:
        raise unknown_name("language model", alias, catalog.llms)
    return known[alias.lower()]


def check_model(path: str, catalog: Catalog) -> UploadCheck:
    """Return what a Hugging Face config.json holds.

    Raises:
        CatalogError: It describes no model that is understood, in one line.
    """
    llm = catalog.llm(path)
    counts = parameter_counts(llm)
    active = "" if counts.active == counts.total else f", {counts.active / 1e9:,.1f} B active"
    said = f"{llm.family}, {counts.total / 1e9:,.1f} B parameters{active}, {', '.join(llm.precisions)}"
    return UploadCheck(kind="model", summary=said)


def check_price_file(path: str, catalog: Catalog) -> UploadCheck:
    """Return what a price list holds.

    Raises:
        InputError: It cannot be read, or nothing of it can be used, in one line.
    """
    catalog.price_list([path], most_listed=1)  # raises where nothing can be used
    found = check_prices(path, catalog=catalog)
    dates = f", {found.oldest} to {found.newest}" if found.oldest else ""
    return UploadCheck(
        kind="prices",
        summary=f"{plural(found.offers, 'offer')} of {plural(len(found.accelerators), 'kind')} of accelerator{dates}",
        notes=tuple(f"{plural(count, 'row')} not used: {why}" for why, count in found.rejected_by_reason.items()),
    )
