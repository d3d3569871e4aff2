"""Charts inside a page: one SVG each, whose names do not meet those of the others, and what its marks say."""

from __future__ import annotations

import re
from dataclasses import dataclass

from markupsafe import Markup

from tokopt.report.plots import Chart, svg

LONG = 40  # rows of data beneath a chart; longer tables stand at the end of the page


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart as a page has it."""

    id: str
    label: str
    svg: Markup
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    long: bool


def figure_of(chart: Chart, marks: dict[str, tuple[str, ...]]) -> Figure:
    """Return a chart for a page, and add what its marks say to `marks`, by the ids that they have there."""
    prefix = f"{chart.name}."
    text = svg(chart)
    text = text[text.index("<svg ") :].strip()
    text = re.sub(r"<[^>]+>", lambda tag: _prefixed(tag[0], prefix), text)  # words between tags stay as they are
    head, rest = text.split(">", 1)
    head = re.sub(r'\s(?:width|height|version|xmlns(?::\w+)?)="[^"]*"', "", head)
    marks |= {f"{prefix}{mark}": words for mark, words in chart.marks.items()}
    return Figure(
        id=chart.name,
        label=chart.label,
        svg=Markup(f"{head}>{rest}"),  # matplotlib has escaped what it draws
        headings=chart.headings,
        rows=chart.rows,
        long=len(chart.rows) > LONG,
    )


def _prefixed(tag: str, prefix: str) -> str:
    """Return a tag whose id and references to ids begin with a prefix."""
    tag = re.sub(r'(?<=\s)id="', f'id="{prefix}', tag)
    tag = re.sub(r'(?<=\s)(?:xlink:)?href="#', f'href="#{prefix}', tag)
    return tag.replace("url(#", f"url(#{prefix}")
