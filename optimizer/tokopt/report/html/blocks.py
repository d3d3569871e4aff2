"""From what the terminal shows to what a page shows: the same sections, tables, pairs and lists, as plain records."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.style import Style
from rich.table import Table
from rich.text import Text

from tokopt.report.blocks import Bullets, Columns, Pairs, Section


@dataclass(frozen=True, slots=True)
class Span:
    """Letters of one look."""

    text: str
    look: str  # class names, separated by blanks; empty = plain


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a table, or a paragraph."""

    spans: tuple[Span, ...]
    number: bool = False  # aligned to the right

    @property
    def text(self) -> str:
        """All letters, without looks."""
        return "".join(span.text for span in self.spans)

    def __bool__(self) -> bool:
        """Whether anything is in it."""
        return bool(self.text.strip())


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a section; its kind says which of the fields it has."""

    kind: str  # heading, paragraph, table, pairs, bullets
    cells: tuple[Cell, ...] = ()  # of a heading or paragraph: one; of a list: one a line
    headings: tuple[Cell, ...] = ()
    rows: tuple[tuple[Cell, ...], ...] = ()


def blocks_of(renderable: RenderableType) -> list[Block]:
    """Return what a renderer made, as blocks in its order.

    Raises:
        TypeError: It is of a kind that no report uses.
    """
    return list(_blocks(renderable))


def _blocks(part: Any) -> Iterator[Block]:
    if isinstance(part, Section):
        yield Block("heading", cells=(cell(part.title),))
        for each in part.content:
            yield from _blocks(each)
    elif isinstance(part, Group):
        for each in part.renderables:
            yield from _blocks(each)
    elif isinstance(part, Padding):
        yield from _blocks(part.renderable)
    elif isinstance(part, Bullets):
        yield Block("bullets", cells=tuple(cell(each) for each in part.columns[1].cells))
    elif isinstance(part, Pairs):
        yield Block("pairs", rows=_merged(_rows(part)))
    elif isinstance(part, Columns):
        headings = tuple(cell(each, number=n not in part.left) for n, each in enumerate(part.headings))
        rows = tuple(tuple(cell(c, number=n not in part.left) for n, c in enumerate(row)) for row in part.rows)
        yield Block("table", headings=headings, rows=rows)
    elif isinstance(part, Table):
        number = [column.justify == "right" for column in part.columns]
        headings = tuple(cell(column.header, number=n) for column, n in zip(part.columns, number, strict=True))
        yield Block("table", headings=headings, rows=_rows(part, number))
    elif isinstance(part, (str, Text)):
        paragraph = cell(part)
        if paragraph:
            yield Block("paragraph", cells=(paragraph,))
    else:
        raise TypeError(f"a page has no place for {type(part).__name__}")


def _rows(table: Table, number: Sequence[bool] = ()) -> tuple[tuple[Cell, ...], ...]:
    right = number or [False] * len(table.columns)
    columns = [[cell(each, number=n) for each in column.cells] for column, n in zip(table.columns, right, strict=True)]
    return tuple(zip(*columns, strict=True))


def _merged(rows: Iterable[tuple[Cell, ...]]) -> tuple[tuple[Cell, ...], ...]:
    """Return pairs, those without a name joined to the one before as a further line."""
    merged: list[tuple[Cell, ...]] = []
    for name, value in rows:
        if merged and not name:
            before = merged[-1]
            merged[-1] = before[0], Cell((*before[1].spans, Span("\n", ""), *value.spans))
        else:
            merged.append((name, value))
    return tuple(merged)


def cell(content: Any, *, number: bool = False) -> Cell:
    """Return text as a cell.

    Raises:
        TypeError: It is no text.
    """
    if isinstance(content, str):
        return Cell((Span(content, ""),), number)
    if not isinstance(content, Text):
        raise TypeError(f"a cell has no place for {type(content).__name__}")
    edges = sorted({0, len(content), *(edge for span in content.spans for edge in (span.start, span.end))})
    spans = []
    for start, end in itertools.pairwise(edges):
        styles = [content.style, *(span.style for span in content.spans if span.start <= start and end <= span.end)]
        spans.append(Span(content.plain[start:end], " ".join(dict.fromkeys(_looks(styles)))))
    return Cell(tuple(spans), number)


def _looks(styles: Iterable[str | Style]) -> Iterator[str]:
    names = {"green": "good", "red": "bad", "yellow": "warn"}
    for each in styles:
        style = Style.parse(each) if isinstance(each, str) else each
        if style.bold:
            yield "strong"
        if style.dim:
            yield "quiet"
        if style.color is not None and style.color.name in names:
            yield names[style.color.name]
