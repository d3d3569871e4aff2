"""What went on over time in a simulation as pictures (extra `report`): one of all, and one of each."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tokopt.domain.simulations import Arrivals, Simulation
from tokopt.report.figures import number, share
from tokopt.report.plots import blank_figure, png
from tokopt.report.simulation_timeline import axis_label, unit_of_time

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DPI = 130
# Colours of the palette of Okabe and Ito, told apart by the colour-blind; dashes keep lines apart in black and white.
BLUE, ORANGE, GREEN, SKY, RED = "#0072b2", "#e69f00", "#009e73", "#56b4e9", "#d55e00"
UNMEASURED, GRID = "0.90", "0.88"
OVERVIEW = "overview.png"
ACROSS = 2  # panels of the overview
LIMIT_STYLES = (":", "-.", (0, (5, 1)))
FAR = 4.0  # times all that is drawn: from there on, a limit is named only

Values = Sequence[float | None]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a panel."""

    label: str
    values: Values
    colour: str
    style: str = "-"


@dataclass(frozen=True, slots=True)
class Panel:
    """One plot over time."""

    name: str  # of its file
    label: str  # of its axis, with the unit
    lines: tuple[Line, ...]
    limits: tuple[tuple[str, float], ...] = ()
    most: float | None = None  # where the axis ends; None = as the lines ask


def pictures(found: Simulation) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each picture."""
    panels = [panel for panel in _panels(found) if any(_known(line.values) for line in panel.lines)]
    if panels:
        yield OVERVIEW, _overview(found, panels)
    for panel in panels:
        yield f"{panel.name}.png", _single(found, panel)


def _known(values: Values) -> bool:
    return sum(value is not None for value in values) > 1


def _panels(found: Simulation) -> list[Panel]:
    series = found.series
    latencies = []
    for name, letters in (("ttft", "TTFT"), ("tpot", "TPOT")):
        lines = (
            Line("mean of a bin", getattr(series, f"{name}_mean_ms"), BLUE),
            Line("longest of a bin", getattr(series, f"{name}_max_ms"), ORANGE, "--"),
        )
        latencies.append(Panel(name, f"{letters} (ms)", lines, _limits(found, name)))
    rates = (
        Line("come", series.arrivals_per_s, ORANGE, "--"),
        Line("answered", series.completions_per_s, BLUE),
    )
    up = [value for value in series.replicas_up if value is not None]
    panels = [
        *latencies,
        Panel("requests", "requests/s", rates),
        Panel("throughput", "output tokens/s", (Line("", series.output_tokens_per_s, BLUE),)),
        Panel("goodput", "goodput (%)", (Line("", _percent(series.goodput), BLUE),), most=100.0),
        Panel("queue", "requests waiting", (Line("", series.queued, BLUE),)),
        Panel("running", "requests in service", (Line("", series.running, BLUE),)),
        Panel("cache", "KV cache held (%)", (Line("", _percent(series.cache_used), BLUE),), most=100.0),
        Panel("utilisation", "steps run (% of time)", (Line("", _percent(series.utilisation), BLUE),), most=100.0),
    ]
    if series.drawn_kw is not None:
        panels.append(Panel("power", "drawn power (kW)", (Line("", series.drawn_kw, BLUE),)))
    if any(series.preemptions):
        panels.append(Panel("preemptions", "preemptions/s", (Line("", series.preemptions, BLUE),)))
    if up and min(up) < max(up):
        panels.append(Panel("replicas", "replicas up", (Line("", series.replicas_up, BLUE),)))
    return panels


def _limits(found: Simulation, name: str) -> tuple[tuple[str, float], ...]:
    """Return the limits on a latency, by what they are called."""
    several = len(found.classes) > 1
    named: dict[tuple[float, str], list[str]] = {}
    for each in found.classes:
        if name in each.limits_ms:
            named.setdefault((each.limits_ms[name], each.statistic), []).append(each.name)
    if len(named) > len(LIMIT_STYLES):
        return tuple((f"{len(named)} limits" if n == 0 else "", limit) for n, (limit, _) in enumerate(sorted(named)))
    lines = []
    for (limit, statistic), names in named.items():
        whose = f" of {', '.join(names)}" if several else ""
        lines.append((f"limit at {statistic}{whose}: {limit:,.5g}", limit))
    return tuple(lines)


def _percent(values: Values) -> list[float | None]:
    return [None if value is None else 100.0 * value for value in values]


def _overview(found: Simulation, panels: Sequence[Panel]) -> bytes:
    rows = -(-len(panels) // ACROSS)
    figure = blank_figure(6.4 * ACROSS, 0.8 + 1.9 * rows)
    grid = figure.subplots(rows, ACROSS, sharex=True, squeeze=False)
    places = [axes for row in grid for axes in row]
    for axes, panel in zip(places, panels, strict=False):
        _draw(axes, found, panel)
    for axes in places[len(panels) :]:
        axes.set_axis_off()
    for column in range(ACROSS):  # the lowest that is drawn in each column has the time below it
        lowest = max(n for n in range(len(panels)) if n % ACROSS == column)
        _time(places[lowest], found)
        places[lowest].tick_params(labelbottom=True)
    figure.suptitle(_title(found), fontsize=11, x=0.01, ha="left")
    return png(figure, DPI)


def _single(found: Simulation, panel: Panel) -> bytes:
    figure = blank_figure(8.0, 3.6)
    axes = figure.subplots()
    _draw(axes, found, panel)
    _time(axes, found)
    figure.suptitle(_title(found), fontsize=10, x=0.01, ha="left")
    return png(figure, DPI)


def _title(found: Simulation) -> str:
    """Return what was simulated, and that it is the first replication that is seen."""
    settings = found.settings
    how = "" if settings.load == 1.0 else f" at {share(settings.load)} of the planned load"
    if settings.arrivals is Arrivals.TRACE:
        how = f" under {settings.trace}"
    if settings.arrivals is Arrivals.CLOSED_LOOP:
        how = f" with {settings.concurrency:,} requests in flight"
    state = "overloaded; " if found.overloaded else ""
    return f"{found.plan}{how}: {state}first replication, bins of {number(found.series.bin_s)} s; grey = not measured"


def _draw(axes: Axes, found: Simulation, panel: Panel) -> None:
    series = found.series
    size, _ = unit_of_time(len(series.time_s) * series.bin_s)
    times = [(time + 0.5 * series.bin_s) / size for time in series.time_s]
    end = len(series.time_s) * series.bin_s / size
    _shade(axes, found, size, end)
    top = 0.0
    for line in panel.lines:
        values = [float("nan") if value is None else value for value in line.values]
        alone = sum(value is not None for value in line.values) < 2
        axes.plot(times, values, line.style, color=line.colour, linewidth=1.3, label=line.label or None,
                  marker="." if alone else None)  # fmt: skip
        top = max(top, *(value for value in line.values if value is not None), 0.0)
    far = [label for label, limit in panel.limits if limit > FAR * top and label]
    for (label, limit), style in zip(panel.limits, itertools.cycle(LIMIT_STYLES), strict=False):
        if limit <= FAR * top:
            axes.axhline(limit, color=RED, linewidth=1.1, linestyle=style, label=label or None)
    axes.set_ylabel(panel.label)
    axes.set_xlim(0.0, end)
    axes.set_ylim(0.0, panel.most * 1.04 if panel.most else None if top else 1.0)
    axes.yaxis.set_major_formatter(lambda value, _: axis_label(value))
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    _legend(axes, panel, far)


def _shade(axes: Axes, found: Simulation, size: float, end: float) -> None:
    """Shade what is not measured: the warm-up, and the time until the last that are measured are answered."""
    start, stop = found.warm_up_s / size, (found.warm_up_s + found.measured_s) / size
    for low, high in ((0.0, start), (stop, end)):
        if high > low:
            axes.axvspan(low, min(high, end), color=UNMEASURED, linewidth=0.0, zorder=0)


def _legend(axes: Axes, panel: Panel, far: Sequence[str]) -> None:
    """Say what lines are, above the plot; limits that are far above all that is drawn are named only."""
    from matplotlib.lines import Line2D

    handles, _ = axes.get_legend_handles_labels()
    nothing = [Line2D([], [], linestyle="", label=f"{label}, far above") for label in far]
    if len(handles) + len(nothing) > 1 or panel.limits:
        axes.legend(handles=[*handles, *nothing], loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3, fontsize=7.5,
                    frameon=False, borderaxespad=0.1, handlelength=2.2)  # fmt: skip


def _time(axes: Axes, found: Simulation) -> None:
    series = found.series
    _, unit = unit_of_time(len(series.time_s) * series.bin_s)
    axes.set_xlabel(f"simulated time ({unit})", fontsize=9)
