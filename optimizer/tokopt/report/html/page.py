"""The page: its sections in the order in which a board asks, the charts in them, and the template that holds them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files

from rich.console import RenderableType

from tokopt.domain.plans import Status
from tokopt.domain.reporting import BoardReport
from tokopt.errors import InputError
from tokopt.report.answer import answer_sentence, headline_rows
from tokopt.report.board import SectionText, board_sections
from tokopt.report.board_charts import cost_charts, frontier_charts, power_charts, price_list_charts, why_charts
from tokopt.report.html.blocks import Block, blocks_of
from tokopt.report.html.charts import Figure, figure_of
from tokopt.report.plots import Chart, require_plots

CHARTS = {
    "frontier": frontier_charts,
    "cost": cost_charts,
    "power": power_charts,
    "price-lists": price_list_charts,
}


@dataclass(frozen=True, slots=True)
class PageSection:
    """A section of the page."""

    id: str
    title: str
    lead: str
    figures: tuple[Figure, ...]
    opening: tuple[Block, ...]
    blocks: tuple[Block, ...]


def require_pages() -> None:
    """Raise InputError where pages cannot be made.

    Raises:
        InputError: The extra `report` is not installed.
    """
    try:
        import jinja2  # noqa: F401

        require_plots()
    except (ImportError, InputError):
        raise InputError("an HTML report needs the extra 'report': pip install 'tokopt[report]'") from None


def page(report: BoardReport) -> str:
    """Return a report as one self-contained page; the same report gives the same text."""
    import jinja2
    from markupsafe import Markup

    marks: dict[str, tuple[str, ...]] = {}
    why = {chart.name: chart for chart in why_charts(report)}
    sections = [_section(each, report, why, marks) for each in board_sections(report)]
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_file),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    plan = report.plan
    return environment.get_template("page.html.j2").render(
        title=_title(report),
        answer=answer_sentence(report),
        status=plan.status.value,
        feasible=plan.status is not Status.INFEASIBLE,
        made=plan.provenance,
        headline=list(headline_rows(report)),
        sections=sections,
        long_figures=[figure for section in sections for figure in section.figures if figure.long],
        marks=marks,
        style=Markup(_file("page.css")),
        script=Markup(_file("page.js")),
    )


def _file(name: str) -> str:
    return files("tokopt.report.html").joinpath(name).read_text(encoding="utf-8")


def _title(report: BoardReport) -> str:
    request = report.plan.request
    if request.classes:
        return f"Fleet for {len(request.classes)} kinds of requests"
    return f"Fleet for {report.titles.get(request.llm, request.llm)}, {request.workload.name} workload"


def _section(
    text: SectionText, report: BoardReport, why: dict[str, Chart], marks: dict[str, tuple[str, ...]]
) -> PageSection:
    drawn: Iterable[Chart] = ()
    if text.id in CHARTS:
        drawn = CHARTS[text.id](report)
    elif text.id in why:
        drawn = (why[text.id],)
    return PageSection(
        id=text.id,
        title=text.title,
        lead=text.lead,
        figures=tuple(figure_of(chart, marks) for chart in drawn),
        opening=_blocks(text.opening, text.title),
        blocks=_blocks(text.content, text.title),
    )


def _blocks(parts: Iterable[RenderableType], title: str) -> tuple[Block, ...]:
    """Return parts as blocks, without headings that say what the section's title has said."""
    blocks = (block for part in parts for block in blocks_of(part))
    return tuple(b for b in blocks if b.kind != "heading" or b.cells[0].text != title)
