"""The pictures of a report for a board, each where there is something to show."""

from __future__ import annotations

from collections.abc import Iterator

from tokopt.domain.reporting import BoardReport
from tokopt.report.comparing_files import accelerator_map
from tokopt.report.explaining_plots import charts as explaining_charts
from tokopt.report.frontier_plots import frontier_chart
from tokopt.report.ownership_plot import cost_chart
from tokopt.report.plots import Chart, pictures_of
from tokopt.report.power_plots import power_chart
from tokopt.report.price_list_plots import price_list_chart


def frontier_charts(report: BoardReport) -> Iterator[Chart]:
    """Yield the frontier of each class that has points."""
    for number, each in enumerate(report.frontiers, start=1):
        if each.frontier.points:
            yield frontier_chart(each, report.plan, report.titles, number_of_class=number)


def cost_charts(report: BoardReport) -> Iterator[Chart]:
    """Yield what an accelerator-hour costs by part, where prices have more than one part or one line."""
    if report.cost is not None and report.cost.usd_per_hour > 0.0:
        yield cost_chart(report.cost)


def power_charts(report: BoardReport) -> Iterator[Chart]:
    """Yield the power from the boards to the limit."""
    if report.power is not None and report.power.parts:
        yield power_chart(report.power, report.plan)


def why_charts(report: BoardReport) -> Iterator[Chart]:
    """Yield waterfall and tornado."""
    if report.explanation is not None:
        yield from explaining_charts(report.explanation, stacked=True)


def price_list_charts(report: BoardReport) -> Iterator[Chart]:
    """Yield the cost under each price list."""
    if report.comparison is not None:
        chart = price_list_chart(report.comparison)
        if chart is not None:
            yield chart
    if report.by_accelerator is not None:
        chart = accelerator_map(report.by_accelerator)
        if chart is not None:
            yield chart


def charts(report: BoardReport) -> Iterator[Chart]:
    """Yield every picture, in the order of the page."""
    for some in (frontier_charts, cost_charts, power_charts, why_charts, price_list_charts):
        yield from some(report)


def pictures(report: BoardReport, form: str = "png") -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each picture's file."""
    return pictures_of(charts(report), form)
