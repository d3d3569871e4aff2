"""A report for a board as text: its sections in the order in which they are asked for, in a terminal and on a page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.text import Text

from tokopt.domain.plans import Status
from tokopt.domain.reporting import BoardReport, ReportPart
from tokopt.report.answer import answer_sentence, headline_rows
from tokopt.report.blocks import Section, bullets, columns, pairs, section
from tokopt.report.breakdowns import cost_section, power_section, power_table
from tokopt.report.comparing import one_request_answer, one_request_table, without_a_plan
from tokopt.report.explaining import (
    explanation_answer,
    explanation_assumptions,
    factors_section,
    tornado_bars,
    warning_section,
    waterfall_bars,
    what_if_reasons,
)
from tokopt.report.fleet import fleet_sections
from tokopt.report.frontier import frontier_bars, frontier_notes
from tokopt.report.outlook import outlook_sections
from tokopt.report.plan import (
    assumptions_section,
    left_out_section,
    margin_sections,
    nearest_section,
    provenance_section,
)
from tokopt.report.power import power_lines
from tokopt.report.verification import verification_section

TITLES = {
    ReportPart.FRONTIER: "Speed against throughput",
    ReportPart.COST: "Where the money goes",
    ReportPart.POWER: "Where the power goes",
    ReportPart.EXPLANATION: "Why it costs that",
    ReportPart.PRICE_LISTS: "The same request under other price lists",
}


@dataclass(frozen=True, slots=True)
class SectionText:
    """A section: what it is about in a sentence, and its text."""

    id: str
    title: str
    lead: str
    content: tuple[RenderableType, ...]
    opening: tuple[RenderableType, ...] = ()  # what stands before charts and content
    bars: tuple[RenderableType, ...] = ()  # what a terminal shows where a page has a chart


def board_report(report: BoardReport, *, columns_wide: int, lines_high: int) -> RenderableType:
    """Return the whole report as text for a terminal of a size in characters."""
    parts: list[RenderableType] = [Text(answer_sentence(report), style="bold")]
    rows = list(headline_rows(report))
    if rows:
        parts += [Text(""), columns(("", "", "80 % range"), rows, left=(0, 2))]
    for each in board_sections(report, columns_wide=columns_wide, lines_high=lines_high):
        parts += [Text(""), Text(each.title, style="bold underline")]
        parts += [*each.opening, *each.bars, *each.content]
    return Group(*parts)


def board_sections(report: BoardReport, *, columns_wide: int = 100, lines_high: int = 40) -> Iterator[SectionText]:
    """Yield the sections, without those that a plan has nothing for."""
    plan = report.plan
    if plan.status is Status.INFEASIBLE:
        yield _always("nearest", "What stands in the way", "Which limit binds, and the nearest value that would do.",
                      nearest_section(plan))  # fmt: skip
    else:
        yield _always(
            "fleet", "The fleet", "What to buy, how each replica is set up, and the latencies that its users see.",
            [power_lines(plan), *fleet_sections(plan)],
        )  # fmt: skip
    yield from _speed(report, columns_wide, lines_high)
    yield from _money_and_power(report)
    yield from _why(report, columns_wide)
    compared = report.comparison
    if compared is not None:
        yield _always(
            "price-lists", TITLES[ReportPart.PRICE_LISTS],
            "The best plan of the same request when it is bought from each price list that tokopt ships.",
            without_a_plan(compared, report.uncompared), [one_request_table(compared)], [one_request_answer(compared)],
        )  # fmt: skip
    yield from _rest(report)


def _speed(report: BoardReport, columns_wide: int, lines_high: int) -> Iterator[SectionText]:
    if not report.frontiers:
        return
    lead = (
        "Each curve is an accelerator: the set-ups that no other of it beats, from the most tokens a GPU to the "
        "fastest for a single user, as means in a steady state."
    )
    if any(each.points for each in report.frontiers):
        lead += " Stars are the plan's set-ups, which keep their limits at their percentile."
    classes = len(report.plan.request.served_classes())
    if classes > len(report.frontiers):
        lead += f" Of {classes} kinds of requests, the {len(report.frontiers)} with the most output are drawn."
    several = len(report.frontiers) > 1
    content: list[RenderableType] = []
    bars: list[RenderableType] = []
    for each in report.frontiers:
        notes = bullets(frontier_notes(each.frontier))
        content.append(section(each.of_class, notes) if several else notes)
        bars.append(frontier_bars(each.frontier, columns_wide=columns_wide, lines_high=lines_high))
    yield _always("frontier", TITLES[ReportPart.FRONTIER], lead, content, bars)


def _money_and_power(report: BoardReport) -> Iterator[SectionText]:
    plan = report.plan
    if report.cost is not None:
        yield _always(
            "cost", TITLES[ReportPart.COST],
            "What the fleet costs by part: of machines that are owned capital, facility and energy; of those that are "
            "rented, what the provider asks.", [cost_section(report.cost, plan)],
        )  # fmt: skip
    if report.power is not None:
        yield _always("power", TITLES[ReportPart.POWER], "From the accelerators' boards to the limit, part by part.",
                      [power_section(report.power, plan)], [power_table(report.power)])  # fmt: skip


def _why(report: BoardReport, columns_wide: int) -> Iterator[SectionText]:
    found = report.explanation
    if found is None:
        return
    yield _always(
        "waterfall", TITLES[ReportPart.EXPLANATION],
        "From a plain baseline to the plan: what each factor contributes, as its Shapley value.",
        [*factors_section(found), explanation_assumptions(found)], waterfall_bars(found, columns_wide=columns_wide),
        [*warning_section(found), explanation_answer(found)],
    )  # fmt: skip
    if found.what_if:
        yield _always(
            "tornado", "What would change the answer",
            "The plan of the same request with one thing changed, the widest spread first.", what_if_reasons(found),
            tornado_bars(found, columns_wide=columns_wide),
        )  # fmt: skip


def _rest(report: BoardReport) -> Iterator[SectionText]:
    plan = report.plan
    if plan.status is not Status.INFEASIBLE:
        yield _always("limits", "What holds it back", "The limits that bind, and what a little more of each is worth.",
                      margin_sections(plan))  # fmt: skip
        outlook = tuple(outlook_sections(plan))
        first = outlook[0] if len(outlook) == 1 else None
        if outlook:
            title = first.title if isinstance(first, Section) else "Classes, time and prices"
            yield _always("outlook", title, "", outlook)
    verified = tuple(verification_section(plan))
    if verified:
        yield _always("verification", "Simulated", "What the simulator found of the plan before it was recommended.",
                      verified)  # fmt: skip
    out = tuple(left_out_section(plan))
    if out:
        yield _always("left-out", "Not considered", "", out)
    if report.left_out:
        missing = [(TITLES[part], Text(why)) for part, why in report.left_out.items()]
        yield _always("missing", "Not in this report", "", [pairs(missing)])
    provenance = [assumptions_section(plan), provenance_section(plan)]
    sources = _sources(report)
    yield _always("provenance", "Assumptions and provenance", "What the figures rest on.",
                  [*provenance, *([section("Sources of facts", pairs(sources))] if sources else [])])  # fmt: skip


def _sources(report: BoardReport) -> list[tuple[str, RenderableType]]:
    """Return the sources of the facts that a plan used: what each is and what it was used for."""
    used: dict[str, list[str]] = {}
    for fact, key in report.plan.provenance.sources.items():
        used.setdefault(key, []).append(fact)
    for item in report.plan.fleet:
        for part in item.bought:
            used.setdefault(part.price_source, []).append(f"price of {part.accelerator}")
    rows: list[tuple[str, RenderableType]] = []
    for key, facts in used.items():
        title = report.sources.get(key)
        words = "" if title is None else f"{title.title}; {title.publisher}, as of {title.retrieved_on}. "
        rows.append((key, f"{words}For {', '.join(dict.fromkeys(facts))}"))
    return rows


def _always(
    id_: str,
    title: str,
    lead: str,
    content: Iterable[RenderableType],
    bars: Iterable[RenderableType] = (),
    opening: Iterable[RenderableType] = (),
) -> SectionText:
    return SectionText(id_, title, lead, tuple(content), opening=tuple(opening), bars=tuple(bars))
