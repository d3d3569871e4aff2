"""What went on over time in a simulation, as small plots of letters."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from tokopt.domain.simulations import Simulation
from tokopt.report.blocks import GAP, INDENT, QUIET, section
from tokopt.report.figures import number, short

LINES = 4  # of a plot
LEAST_WIDE, MOST_WIDE = 30, 44  # of a plot with its labels
LABEL = 7  # columns of the labels of an axis
EMPTY_CELL = "\u2800"  # a braille cell without dots, which looks like a blank but is none
FEWEST = 4  # bins of a plot
UNITS_OF_TIME = ((86_400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))
TWO_UNITS = 3.0  # of a time, from which on it is written in them


@dataclass(frozen=True, slots=True)
class Panel:
    """One plot."""

    title: str
    values: Sequence[float | None]
    whole: bool = False  # a share, of which the axis ends at one


def timeline(found: Simulation, *, columns_wide: int) -> Iterator[RenderableType]:
    """Yield the section with the plots of a simulation that has something to plot."""
    panels = [panel for panel in _panels(found) if sum(value is not None for value in panel.values) >= FEWEST]
    if not panels:
        return
    room = columns_wide - INDENT
    beside = max(1, min((room + GAP) // (LEAST_WIDE + GAP), 3))
    wide = min((room - GAP * (beside - 1)) // beside, MOST_WIDE)
    table = Table.grid(padding=(0, GAP, 0, 0))
    for _ in range(beside):
        table.add_column(width=wide, no_wrap=True)
    cells = [_drawn(panel, found, wide) for panel in panels]
    for first in range(0, len(cells), beside):
        row = cells[first : first + beside]
        table.add_row(*row, *([Text("")] * (beside - len(row))))
    yield section(f"Over time, first replication (│ = {_measured(found)})", table)


def _measured(found: Simulation) -> str:
    return "where measuring begins and ends" if found.warm_up_s else "where measuring ends"


def _panels(found: Simulation) -> list[Panel]:
    series = found.series
    panels = [
        Panel("TTFT, mean, ms", series.ttft_mean_ms),
        Panel("TPOT, mean, ms", series.tpot_mean_ms),
        Panel("requests waiting", series.queued),
        Panel("requests in service", series.running),
        Panel("KV cache held, %", _percent(series.cache_used), whole=True),
        Panel("power, kW", series.drawn_kw or ()),
        Panel("output, tok/s", series.output_tokens_per_s),
    ]
    if found.goodput is not None and found.goodput < 1.0:
        panels.append(Panel("goodput, %", _percent(series.goodput), whole=True))
    up = [value for value in series.replicas_up if value is not None]
    if up and min(up) < max(up):
        panels.append(Panel("replicas up", series.replicas_up))
    return panels


def _percent(values: Sequence[float | None]) -> list[float | None]:
    return [None if value is None else 100.0 * value for value in values]


def _drawn(panel: Panel, found: Simulation, wide: int) -> Text:
    """Return a plot: title, rows with the axis, and the ends of time below."""
    import plotille

    series = found.series
    end = len(series.time_s) * series.bin_s
    points = [
        (time + 0.5 * series.bin_s, value)
        for time, value in zip(series.time_s, panel.values, strict=False)
        if value is not None
    ]
    top = 100.0 if panel.whole and max(v for _, v in points) > 50.0 else _round_up(max(v for _, v in points))
    across = wide - LABEL - 1
    canvas = plotille.Canvas(width=across, height=LINES, xmin=0.0, xmax=end, ymin=0.0, ymax=1.02 * top)
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        canvas.line(x0, y0, x1, y1)
    rows = canvas.plot().replace(EMPTY_CELL, " ").splitlines()[:LINES]
    marks = [time for time in (found.warm_up_s, found.warm_up_s + found.measured_s) if 0.0 < time < end]
    text = Text(f"{' ' * (LABEL + 1)}{panel.title}\n", no_wrap=True, overflow="crop")
    for place, row in enumerate(rows):
        label = axis_label(top) if place == 0 else "0" if place == LINES - 1 else ""
        text.append(f"{label:>{LABEL}}┤" if label else f"{'':>{LABEL}}│", style=QUIET)
        text.append_text(_marked(row.ljust(across), [int(time / end * across) for time in marks]))
        text.append("\n")
    text.append(f"{'':>{LABEL}} {_time_axis(end, across)}\n", style=QUIET)
    return text


def _marked(row: str, places: Sequence[int]) -> Text:
    """Return a row of a plot with bars where nothing is drawn."""
    text = Text(row, style="cyan")
    for place in places:
        if row[place] == " ":
            text = Text.assemble(text[:place], ("│", QUIET), text[place + 1 :])
    return text


def _time_axis(end: float, across: int) -> str:
    first, last = "0", written_time(end)
    return f"{first}{last:>{across - len(first)}}"


def written_time(seconds: float) -> str:
    """Return a time in the unit that suits its length: 282 s, 12 min, 3.5 h."""
    size, unit = unit_of_time(seconds)
    return f"{number(seconds / size)} {unit}"


def unit_of_time(seconds: float) -> tuple[float, str]:
    """Return the unit for an axis up to a time, and its seconds."""
    return next((each for each in UNITS_OF_TIME if seconds >= TWO_UNITS * each[0]), UNITS_OF_TIME[-1])


def axis_label(value: float) -> str:
    """Return a figure at an axis: 0.5, 2,500, 60k."""
    if value < 10_000:
        return f"{value:,.5g}"
    figure = short(value)
    return f"{figure[:-1].rstrip('0').rstrip('.')}{figure[-1]}" if "." in figure else figure


def _round_up(value: float) -> float:
    """Return an end of an axis at or above a value: 1, 1.5, 2, 2.5, 3, 4, 5, 6, 8 times a power of ten."""
    if value <= 0.0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0) if step * power >= value)
