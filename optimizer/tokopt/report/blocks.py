"""Building blocks of every report: headings, pairs of name and value, tables without frames, lists."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

INDENT = 2
GAP = 2  # between columns
HEADING = "bold cyan"
QUIET = "dim"
LONGEST_NAME = 30  # of an accelerator, a provider or a class; what is longer may be broken


class Section(Group):
    """A heading and what stands under it; `title` and `content` are for those who show it in other ways."""

    def __init__(self, title: str, content: Sequence[RenderableType]) -> None:
        self.title = title
        self.content = tuple(content)
        super().__init__(Text(""), Text(title, style=HEADING), Padding(Group(*content), (0, 0, 0, INDENT)))


class Pairs(Table):
    """Names with their values next to them."""


class Bullets(Table):
    """Lines, each under a bullet: the second of the two columns."""


def section(title: str, *content: RenderableType) -> Section:
    """Return a heading and what stands under it, with a blank line before it."""
    return Section(title, content)


def pairs(rows: Iterable[tuple[str, RenderableType]]) -> Pairs:
    """Return names with their values next to them."""
    table = cast(Pairs, Pairs.grid(padding=(0, 2, 0, 0)))
    table.add_column(style=QUIET, no_wrap=True)
    table.add_column()
    for name, value in rows:
        table.add_row(name, value)
    return table


def columns(
    headings: Sequence[str],
    rows: Iterable[Sequence[RenderableType]],
    *,
    left: Iterable[int] = (0,),
    whole: Iterable[int] = (),
) -> Columns:
    """Return a table without a frame; columns are aligned to the right but for those in `left`, which may wrap.

    Those of them that are in `whole` do not: bars, for instance.

    Where it is too wide for the page even so, it is cut into several below each other, each with the first column: a
    table that is squeezed instead loses the ends of figures, and the names.
    """
    return Columns(tuple(headings), tuple(tuple(row) for row in rows), frozenset(left), frozenset(whole))


@dataclass(frozen=True, slots=True)
class Columns:
    """A table that knows how wide the page is when it is drawn."""

    headings: tuple[str, ...]
    rows: tuple[tuple[RenderableType, ...], ...]
    left: frozenset[int]
    whole: frozenset[int]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        least = [self._least(console, options, number) for number in range(len(self.headings))]
        groups: list[list[int]] = [[]]
        for number in range(1, len(least)):
            if groups[-1] and sum(least[k] + GAP for k in (0, *groups[-1], number)) - GAP > options.max_width:
                groups.append([])
            groups[-1].append(number)
        for place, group in enumerate(groups):
            if place:
                yield Text("")
            yield self._table((0, *group), least, self._widths(console, options, (0, *group), least))

    def _cells(self, number: int) -> Iterator[RenderableType]:
        yield self.headings[number]
        yield from (row[number] for row in self.rows)

    def _least(self, console: Console, options: ConsoleOptions, number: int) -> int:
        """Return how narrow a column may get: figures stay whole, and so do words as long as a name."""
        if number not in self.left - self.whole:
            return max(Measurement.get(console, options, cell).maximum for cell in self._cells(number))
        texts = [str(cell) for cell in self._cells(number)]
        # What a row is of stands in its first cell, and is read as a whole.
        words = texts if number == 0 else [word for text in texts for word in text.split()]
        return max((width for word in words if (width := cell_len(word)) <= LONGEST_NAME), default=1)

    def _widths(
        self, console: Console, options: ConsoleOptions, shown: Sequence[int], least: Sequence[int]
    ) -> Mapping[int, int]:
        """Return the widths of columns that are too wide together: what is left above the least is shared evenly.

        Empty where they fit as they are, or do not even at their least.
        """
        wanted = {n: max(Measurement.get(console, options, cell).maximum for cell in self._cells(n)) for n in shown}
        room = options.max_width - GAP * (len(shown) - 1)
        widths = {n: min(least[n], wanted[n]) for n in shown}
        left = room - sum(widths.values())
        if sum(wanted.values()) <= room or left < 0:
            return {}
        for place, n in enumerate(sorted(shown, key=lambda n: wanted[n] - widths[n])):
            more = min(wanted[n] - widths[n], left // (len(shown) - place))
            widths[n] += more
            left -= more
        return widths

    def _table(self, shown: Sequence[int], least: Sequence[int], widths: Mapping[int, int]) -> Table:
        table = Table(
            box=None,
            show_edge=False,
            show_header=any(self.headings[number] for number in shown),
            pad_edge=False,
            padding=(0, GAP, 0, 0),
            header_style="bold",
        )
        for number in shown:
            aligned = number in self.left
            # What is too wide goes on in the next line: an ellipsis would lose the ends of names and dates.
            table.add_column(
                self.headings[number],
                justify="left" if aligned else "right",
                no_wrap=not aligned or number in self.whole,
                overflow="fold",
                width=widths.get(number),
                min_width=least[number] if aligned else None,
            )
        for row in self.rows:
            table.add_row(*(row[number] for number in shown))
        return table


def bullets(lines: Iterable[str]) -> Bullets:
    """Return lines, each under a bullet, that wrap beside it."""
    table = cast(Bullets, Bullets.grid(padding=(0, 1, 0, 0)))
    table.add_column(no_wrap=True)
    table.add_column()
    for line in lines:
        table.add_row("-", Text(line))
    return table


def counted(values: Mapping[str, int]) -> list[str]:
    """Return reasons with how often each was met, the most frequent first."""
    return [f"{count:,} × {reason}" for reason, count in sorted(values.items(), key=lambda pair: -pair[1])]
