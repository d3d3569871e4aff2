"""Building blocks of every report: headings, pairs of name and value, tables without frames, lists."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

INDENT = 2
GAP = 2  # between columns
UNLIMITED = 10_000  # wider than any cell
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


@dataclass(frozen=True, slots=True)
class Columns:
    """A table without a frame, as wide as its cells where there is room; where there is not, cells wrap at spaces.

    What a reader came for is never cut off: a column is at least as wide as its longest word. The widest columns give
    way first, those of names at the left edge last.
    """

    headings: Sequence[str]
    rows: Sequence[Sequence[RenderableType]]
    left: frozenset[int]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the table at the widths that fit."""
        yield self._table(console, options)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """Return the width of the table."""
        return Measurement.get(console, options, self._table(console, options))

    def _table(self, console: Console, options: ConsoleOptions) -> Table:
        table = Table(
            box=None,
            show_edge=False,
            show_header=any(self.headings),
            pad_edge=False,
            padding=(0, GAP, 0, 0),
            header_style="bold",
        )
        measured = [self._measured(number, console, options) for number in range(len(self.headings))]
        room = options.max_width - GAP * (len(measured) - 1)
        for number, (heading, width) in enumerate(zip(self.headings, fitted(measured, room), strict=True)):
            aligned = "left" if number in self.left else "right"
            table.add_column(heading, justify=aligned, width=width)  # type: ignore[arg-type]
        for row in self.rows:
            table.add_row(*row)
        return table

    def _measured(self, number: int, console: Console, options: ConsoleOptions) -> Measurement:
        """Return the longest word and the longest cell of a column."""
        heading = Text(self.headings[number])
        cells = [heading, *(row[number] for row in self.rows if number < len(row))]
        free = options.update(width=UNLIMITED)
        widths = [Measurement.get(console, free, cell) for cell in cells]
        return Measurement(max(w.minimum for w in widths), max(w.maximum for w in widths))


def fitted(columns: Sequence[Measurement], room: int) -> list[int]:
    """Return widths that fill no more than the room, none below the longest word unless nothing else fits."""
    widths = [column.maximum for column in columns]
    while (over := sum(widths) - room) > 0:
        loose = [n for n in range(1, len(widths)) if widths[n] > columns[n].minimum] or [
            n for n in range(len(widths)) if widths[n] > columns[n].minimum
        ]
        if not loose:
            return _squeezed(widths, over)
        widths[max(loose, key=lambda n: widths[n])] -= 1
    return widths


def _squeezed(widths: list[int], over: int) -> list[int]:
    """Return widths with words cut after all, the widest first."""
    for _ in range(over):
        widest = max(range(len(widths)), key=lambda n: widths[n])
        widths[widest] = max(widths[widest] - 1, 1)
    return widths


def columns(
    headings: Sequence[str], rows: Iterable[Sequence[RenderableType]], *, left: Iterable[int] = (0,)
) -> Columns:
    """Return a table without a frame; columns are aligned to the right but for those in `left`."""
    return Columns(headings, tuple(rows), frozenset(left))


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
