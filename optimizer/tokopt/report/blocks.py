"""Building blocks of every report: headings, pairs of name and value, tables without frames, lists."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

INDENT = 2
HEADING = "bold cyan"
QUIET = "dim"


def section(title: str, *content: RenderableType) -> RenderableType:
    """Return a heading and what stands under it, with a blank line before it."""
    return Group(Text(""), Text(title, style=HEADING), Padding(Group(*content), (0, 0, 0, INDENT)))


def pairs(rows: Iterable[tuple[str, RenderableType]]) -> Table:
    """Return names with their values next to them."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style=QUIET, no_wrap=True)
    table.add_column()
    for name, value in rows:
        table.add_row(name, value)
    return table


def columns(headings: Sequence[str], rows: Iterable[Sequence[RenderableType]], *, left: Iterable[int] = (0,)) -> Table:
    """Return a table without a frame; columns are aligned to the right but for those in `left`."""
    to_the_left = set(left)
    table = Table(
        box=None,
        show_edge=False,
        show_header=any(headings),
        pad_edge=False,
        padding=(0, 2, 0, 0),
        header_style="bold",
    )
    for number, heading in enumerate(headings):
        aligned = number in to_the_left
        # What is too wide goes on in the next line: an ellipsis would lose the ends of names and dates.
        table.add_column(heading, justify="left" if aligned else "right", no_wrap=not aligned, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def folded(headings: Sequence[str], rows: Sequence[Sequence[str]], *, wide: int) -> RenderableType:
    """Return a table, cut into several below each other where it is too wide; each starts with the first column.

    A table that is squeezed instead loses the ends of figures, and the names.
    """
    widths = [max(cell_len(cell) for cell in column) + 2 for column in zip(headings, *rows, strict=True)]
    groups: list[list[int]] = [[]]
    for number in range(1, len(widths)):
        if groups[-1] and sum(widths[k] for k in (0, *groups[-1], number)) - 2 > wide:
            groups.append([])
        groups[-1].append(number)
    tables = (
        columns([headings[k] for k in (0, *group)], ([row[k] for k in (0, *group)] for row in rows)) for group in groups
    )
    first, *others = tables
    return Group(first, *(part for table in others for part in (Text(""), table)))


def bullets(lines: Iterable[str]) -> Table:
    """Return lines, each under a bullet, that wrap beside it."""
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column()
    for line in lines:
        table.add_row("-", Text(line))
    return table


def counted(values: Mapping[str, int]) -> list[str]:
    """Return reasons with how often each was met, the most frequent first."""
    return [f"{count:,} × {reason}" for reason, count in sorted(values.items(), key=lambda pair: -pair[1])]
