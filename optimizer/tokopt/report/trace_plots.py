"""A trace as pictures (extra `report`): arrivals over time, bursts, lengths, the shape of the day, prefix reuse."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tokopt.domain.trace_summaries import LengthSummary, ReuseSummary, StreamSummary, TraceSummary
from tokopt.report.figures import number, short
from tokopt.report.plots import blank_figure, png
from tokopt.report.traces import TWO_UNITS, UNITS_OF_TIME, span

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DPI = 150
# Colours of the palette of Okabe and Ito, told apart by the colour-blind.
BLUE, ORANGE, GREEN = "#0072b2", "#d55e00", "#009e73"
COLOURS = (BLUE, ORANGE, GREEN, "#cc79a7", "#e69f00", "#56b4e9")
LINES = ("-", "--", "-.", ":")
GRID, QUIET = "0.9", "0.45"
MOST_STREAMS = 6  # in one picture
ARRIVALS, BURSTS, LENGTHS, DAY, REUSE = "arrivals.png", "bursts.png", "lengths.png", "day.png", "reuse.png"


def pictures(trace: TraceSummary) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each picture that the trace has something for."""
    yield ARRIVALS, _arrivals(trace)
    if len(trace.arrivals.windows) > 1:
        yield BURSTS, _bursts(trace)
    yield LENGTHS, _lengths(trace)
    if trace.arrivals.hourly:
        yield DAY, _day(trace)
    if trace.reuse is not None and len(trace.reuse.curve) > 1:
        yield REUSE, _reuse(trace, trace.reuse)


def _arrivals(trace: TraceSummary) -> bytes:
    figure = blank_figure(8.0, 6.4)
    panels = figure.subplots(3, 1, sharex=True, height_ratios=(1.5, 1.0, 1.0))
    size, unit = next((each for each in UNITS_OF_TIME if trace.span_s >= TWO_UNITS * each[0]), UNITS_OF_TIME[-1])
    line = trace.timeline
    edges = [line.step_s * n / size for n in range(len(line.requests_per_s) + 1)]
    for axes, values, colour, name in zip(
        panels,
        (line.requests_per_s, line.input_tokens_per_s, line.output_tokens_per_s),
        ("black", BLUE, ORANGE),
        ("requests/s", "input tokens/s", "output tokens/s"),
        strict=True,
    ):
        axes.stairs(values, edges, color=colour, fill=True, alpha=0.25)
        axes.stairs(values, edges, baseline=None, color=colour, linewidth=1.0)
        mean = sum(values) / len(values)
        axes.axhline(mean, color=QUIET, linewidth=1.0, linestyle="--")
        axes.annotate(f"mean {_tick(mean)}", (1.0, mean), xycoords=("axes fraction", "data"), xytext=(4, 0),
                      textcoords="offset points", va="center", fontsize=8, color=QUIET)  # fmt: skip
        axes.set_ylabel(name)
        axes.set_ylim(bottom=0.0)
        axes.yaxis.set_major_formatter(lambda value, _: _tick(value))
        _plain(axes)
    panels[-1].set_xlabel(f"time from the first request, {unit}")
    panels[-1].set_xlim(0.0, edges[-1])
    _title(panels[0], trace, f"steps of {span(line.step_s)}")
    return png(figure, DPI)


def _bursts(trace: TraceSummary) -> bytes:
    figure = blank_figure(8.0, 4.4)
    axes = figure.subplots()
    windows = trace.arrivals.windows
    sizes = [each.window_s for each in windows]
    axes.plot(sizes, [each.dispersion for each in windows], "o-", color=ORANGE, label="all variation")
    steady = [each.steady_dispersion for each in windows]
    axes.plot(sizes, steady, "s--", color=BLUE, label="between neighbouring windows (without slow changes)")
    axes.axhline(1.0, color=QUIET, linewidth=1.0, linestyle=":")
    axes.annotate("Poisson", (1.0, 1.0), xycoords=("axes fraction", "data"), xytext=(4, 0),
                  textcoords="offset points", va="center", fontsize=8, color=QUIET)  # fmt: skip
    chosen = trace.arrivals.burstiness_window_s
    if chosen is not None:
        label = f"burstiness that plans take: {number(trace.arrivals.burstiness)}"
        axes.plot([chosen], [trace.arrivals.burstiness], "o", markersize=13, markerfacecolor="none", color=GREEN,
                  markeredgewidth=1.6, label=label)  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 0.5), max(high, 2.0))
    axes.set_xticks(sizes, [span(size) for size in sizes])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("window in which requests are counted")
    axes.set_ylabel("variance / mean of the counts")
    _plain(axes)
    _key_on_top(axes, 2)
    figure.suptitle(_said(trace), fontsize=11, x=0.01, ha="left")
    return png(figure, DPI)


def _lengths(trace: TraceSummary) -> bytes:
    figure = blank_figure(9.6, 4.4)
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1.0))
    for length, colour, style, name in (
        (trace.input_tokens, BLUE, "-", "input"),
        (trace.output_tokens, ORANGE, "--", "output"),
    ):
        values, edges = _stairs(length)
        left.stairs(values, edges, color=colour, fill=True, alpha=0.2)
        label = f"{name}: mean {number(length.mean)}, CV {length.cv:.2f}"
        left.stairs(values, edges, color=colour, linestyle=style, linewidth=1.4, label=label)
    _token_axis(left.xaxis, left.set_xscale)
    left.set_xlabel("tokens")
    left.set_ylabel("% of requests")
    left.set_ylim(bottom=0.0)
    _plain(left)
    _key_on_top(left, 1)
    _joint(right, trace)
    figure.suptitle(_said(trace), fontsize=11, x=0.01, ha="left")
    return png(figure, DPI)


def _stairs(length: LengthSummary) -> tuple[list[float], list[float]]:
    """Return shares and edges of bins; small whole numbers have bins of their own, wide ones share theirs."""
    edges = [each.low for each in length.histogram] + [length.histogram[-1].high]
    return [100.0 * each.share for each in length.histogram], edges


def _joint(axes: Axes, trace: TraceSummary) -> None:
    """Draw prompts against answers: the area of a dot is the share of requests about it."""
    most = max(each.share for each in trace.lengths)
    axes.scatter(
        [each.input_tokens for each in trace.lengths],
        [each.output_tokens for each in trace.lengths],
        s=[max(130.0 * each.share / most, 0.6) for each in trace.lengths],
        color=GREEN,
        alpha=0.75,
        linewidths=0,
    )
    _token_axis(axes.xaxis, axes.set_xscale)
    _token_axis(axes.yaxis, axes.set_yscale)
    axes.set_xlabel("input tokens")
    axes.set_ylabel("output tokens")
    axes.set_title(f"area: share of requests; correlation of logarithms {trace.log_correlation:.2f}", fontsize=9)
    _plain(axes)


def _token_axis(axis: Any, set_scale: Any) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    set_scale("log", base=2)
    axis.set_major_locator(LogLocator(base=4.0, numticks=12))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda value, _: _power(value))


def _power(value: float) -> str:
    """Return a power of two as tokens are counted: 256, 4k, 128k, 1M."""
    for size, unit in ((2**20, "M"), (2**10, "k")):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def _day(trace: TraceSummary) -> bytes:
    figure = blank_figure(8.0, 4.0)
    axes = figure.subplots()
    hours = list(range(25))
    axes.stairs(trace.arrivals.hourly, hours, color=QUIET, fill=True, alpha=0.25)
    axes.stairs(trace.arrivals.hourly, hours, color="black", linewidth=1.2, label=trace.name)
    streams: Sequence[StreamSummary] = sorted(trace.classes, key=lambda each: -each.requests)[:MOST_STREAMS]
    for n, each in enumerate(streams):
        middle = [hour + 0.5 for hour in range(24)]
        axes.plot(middle, each.arrivals.hourly, LINES[n % len(LINES)], color=COLOURS[n], linewidth=1.4, label=each.name)
    axes.axhline(1.0, color=QUIET, linewidth=0.8, linestyle=":")
    axes.set_xlim(0, 24)
    axes.set_xticks(range(0, 25, 3), [f"{hour:02d}:00" for hour in range(0, 25, 3)])
    axes.set_ylim(bottom=0.0)
    where = "UTC" if trace.starts_at is not None else "from the start of the trace"
    axes.set_xlabel(f"hour, {where}")
    axes.set_ylabel("requests/s, against the day's mean")
    _plain(axes)
    if streams:
        _key_on_top(axes, 4)
    figure.suptitle(_said(trace), fontsize=11, x=0.01, ha="left")
    return png(figure, DPI)


def _reuse(trace: TraceSummary, reuse: ReuseSummary) -> bytes:
    figure = blank_figure(8.0, 4.4)
    axes = figure.subplots()
    shown: Sequence[StreamSummary] = sorted(trace.classes, key=lambda each: -each.requests)[:MOST_STREAMS]
    curves = [(trace.name, reuse)]
    curves += [(each.name, each.reuse) for each in shown if each.reuse is not None and each.reuse.curve]
    for n, (name, each) in enumerate(curves):
        sizes = [point.cached_tokens for point in each.curve]
        shares = [100.0 * point.share for point in each.curve]
        axes.plot(sizes, shares, LINES[n % len(LINES)], marker="." if n == 0 else None, color=COLOURS[n % len(COLOURS)],
                  label=name)  # fmt: skip
    for cached, share, marker in ((reuse.cached_for_half, 0.5, "o"), (reuse.cached_for_90, 0.9, "D")):
        label = f"{100 * share:.0f} % of what is reusable: {short(cached)} tokens"
        axes.plot([cached], [100.0 * share * reuse.reusable_share], marker, markersize=9, markerfacecolor="none",
                  color=COLOURS[0], markeredgewidth=1.6, linestyle="none", label=label)  # fmt: skip
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: _tick(value))
    axes.set_ylim(bottom=0.0)
    axes.set_xlabel("tokens that stay cached (LRU)")
    axes.set_ylabel("% of input tokens that are found")
    _plain(axes)
    _key_on_top(axes, 3)
    figure.suptitle(_said(trace), fontsize=11, x=0.01, ha="left")
    return png(figure, DPI)


def _tick(value: float) -> str:
    """Return a figure of an axis: 0.05, 5, 75k, 1M."""
    figure = short(value) if abs(value) >= 1e3 else number(value)
    unit = figure.lstrip("-0123456789.,")
    digits = figure.removesuffix(unit) if unit else figure
    return (digits.rstrip("0").rstrip(".") if "." in digits else digits) + unit


def _said(trace: TraceSummary) -> str:
    name = trace.file.replace("\\", "/").rpartition("/")[2]
    return f"{name}: {trace.requests:,} requests in {span(trace.span_s)}"


def _title(axes: Axes, trace: TraceSummary, more: str) -> None:
    axes.set_title(f"{_said(trace)}; {more}", fontsize=11, loc="left")


def _plain(axes: Axes) -> None:
    axes.grid(visible=True, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _key_on_top(axes: Axes, columns: int) -> None:
    """Put the key above the plot, where it hides nothing."""
    axes.legend(
        loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=columns, fontsize=8, frameon=False, borderaxespad=0.2
    )
