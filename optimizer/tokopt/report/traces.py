"""A trace in words, tables and small plots, and a workload that is like it as a workloads file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from tokopt.domain.trace_summaries import (
    ArrivalSummary,
    LengthSummary,
    MadeTrace,
    ReuseSummary,
    StreamSummary,
    TraceFit,
    TraceSummary,
)
from tokopt.report.blocks import QUIET, bullets, columns, pairs, section
from tokopt.report.figures import number, plural, rate, share, short, times

LEAST_WIDTH, MOST_WIDTH = 24, 96  # of the plot's canvas
PLOT_LINES = 8
MARGIN = 30  # columns that plotille puts around a canvas
EMPTY_CELL = "\u2800"  # a braille cell without dots, which looks like a blank but is none
HEIGHTS = "▁▂▃▄▅▆▇█"
BAR = "█"
EIGHTHS = " ▏▎▍▌▋▊▉"
LONGEST_BAR = 24
LEAST_SHOWN = 5e-4  # share of a row of the histogram
MOST_CURVE_ROWS = 12
UNITS_OF_TIME = ((86_400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))
TWO_UNITS = 2.0  # a span is written in a unit that it has so many of


def trace_report(trace: TraceSummary, *, columns_wide: int) -> RenderableType:
    """Return what a trace looks like."""
    title = Text.assemble(
        (f"{plural(trace.requests, 'request')} in {span(trace.span_s)}", "bold"),
        f": {trace.file}, {trace.format_title}",
    )
    parts: list[RenderableType] = [title, section("Arrivals", pairs(_facts(trace)))]
    if len(trace.timeline.requests_per_s) > 1:
        parts += [Text(""), arrivals_plot(trace, columns_wide=columns_wide)]
    if trace.arrivals.windows:
        parts.append(section("Bursts: requests in windows of one length", _windows(trace.arrivals)))
    if trace.arrivals.hourly:
        parts.append(section("Shape of the day, against its mean", *_day(trace)))
    parts.append(section("Lengths, tokens", _lengths(trace), Text(""), _histogram(trace)))
    if trace.reuse is not None:
        parts.append(section("Prefix reuse", *_reuse(trace.reuse)))
    if trace.classes:
        parts.append(section("Classes", _classes(trace)))
    return Group(*parts)


def span(seconds: float) -> str:
    """Return a length of time in the unit that suits it: 58.4 min, 6.9 d."""
    size, unit = next((each for each in UNITS_OF_TIME if seconds >= TWO_UNITS * each[0]), UNITS_OF_TIME[-1])
    figure = number(seconds / size)
    return f"{figure.rstrip('0').rstrip('.') if '.' in figure else figure} {unit}"


def _facts(trace: TraceSummary) -> Iterator[tuple[str, RenderableType]]:
    arrivals = trace.arrivals
    yield "rate", Text(rate(arrivals.requests_per_s, "req/s"))
    tokens = [arrivals.requests_per_s * each.mean for each in (trace.input_tokens, trace.output_tokens)]
    yield "tokens", Text(f"{rate(tokens[0], 'tok/s')} in, {rate(tokens[1], 'tok/s')} out")
    yield "burstiness", Text(f"{_burstiness(arrivals)} ({_basis(arrivals)}; 1 = Poisson)")
    whole, stretches = number(arrivals.gap_cv2), number(arrivals.short_gap_cv2)
    yield "gaps", Text(f"squared variation {whole} over the whole trace, {stretches} within 128 requests")
    if arrivals.simultaneous_share > 0.0:
        yield "at once", Text(f"{share(arrivals.simultaneous_share)} of requests come at the time of the one before")
    if trace.starts_at is not None:
        yield "starts", Text(f"{trace.starts_at:%Y-%m-%d %H:%M:%S} UTC")
    if trace.failures:
        yield "left out", Text(f"{plural(trace.failures, 'row')} of requests without an answer")


def _burstiness(arrivals: ArrivalSummary) -> str:
    return f"{number(arrivals.burstiness)} ± {number(arrivals.burstiness_sd, 2)}"


def _basis(arrivals: ArrivalSummary) -> str:
    if arrivals.burstiness_window_s is not None:
        return f"between neighbouring windows of {span(arrivals.burstiness_window_s)}"
    if arrivals.burstiness_from == "gaps":
        return "of the times between requests"
    return "assumed: too few requests, or too coarse a clock, to tell"


def arrivals_plot(trace: TraceSummary, *, columns_wide: int) -> RenderableType:
    """Return requests a second over time."""
    import plotille

    line = trace.timeline
    size, unit = next((each for each in UNITS_OF_TIME if trace.span_s >= TWO_UNITS * each[0]), UNITS_OF_TIME[-1])
    wide = min(max(columns_wide - MARGIN, LEAST_WIDTH), MOST_WIDTH)
    rates = _thinned(line.requests_per_s, 2 * wide)
    figure = plotille.Figure()
    figure.with_colors = False
    figure.origin = False
    figure.width, figure.height = wide, PLOT_LINES
    figure.set_x_limits(min_=0.0, max_=trace.span_s / size)
    figure.set_y_limits(min_=0.0, max_=max(rates) * 1.05)
    figure.x_label, figure.y_label = unit, "req/s"
    figure.y_ticks_fkt = lambda low, _high: f"{number(low):>10}"
    figure.x_ticks_fkt = lambda low, _high: number(low, 2) if low > 0 else "0"
    step = trace.span_s / len(rates) / size
    figure.plot([step * (n + 0.5) for n in range(len(rates))], rates)
    return Text(figure.show().replace(EMPTY_CELL, " "), no_wrap=True, overflow="crop")


def _thinned(values: Sequence[float], most: int) -> list[float]:
    """Return means of neighbours, at most so many."""
    together = -(-len(values) // most)
    groups = [values[start : start + together] for start in range(0, len(values), together)]
    return [sum(group) / len(group) for group in groups]


def _windows(arrivals: ArrivalSummary) -> RenderableType:
    rows = [
        (
            span(each.window_s),
            f"{each.windows:,}",
            number(each.mean_requests),
            number(each.dispersion),
            number(each.steady_dispersion),
            times(each.peak_to_mean),
        )
        for each in arrivals.windows
    ]
    headings = ("window", "windows", "mean requests", "variance / mean", "of neighbours", "peak / mean")
    return columns(headings, rows)


def _day(trace: TraceSummary) -> Iterator[RenderableType]:
    """Yield a row of 24 columns a stream, from nothing to the busiest hour of all."""
    streams: Sequence[StreamSummary] = (trace, *trace.classes)
    room = max(len(each.name) for each in streams)
    top = max(max(each.arrivals.hourly) for each in streams)
    marks = "".join(f"{hour:<6d}" for hour in range(0, 24, 3))
    yield Text(f"{'hour':<{room}}  {marks}", style=QUIET, no_wrap=True, overflow="crop")
    for each in streams:
        hourly = each.arrivals.hourly
        levels = [min(int(factor / top * len(HEIGHTS)), len(HEIGHTS) - 1) for factor in hourly]
        row = "".join(HEIGHTS[level] * 2 if factor else "  " for level, factor in zip(levels, hourly, strict=True))
        low, high = min(hourly), max(hourly)
        said = f"{number(low, 2)} at {hourly.index(low):02d}:00 to {number(high)} at {hourly.index(high):02d}:00"
        yield Text(f"{each.name:<{room}}  {row}  {said}", no_wrap=True, overflow="crop")
    where = "UTC" if trace.starts_at is not None else "counted from the start of the trace"
    guessed = f"; not in the trace: {', '.join(f'{hour}' for hour in trace.arrivals.hours_guessed)}"
    yield Text(f"hours {where}{guessed if trace.arrivals.hours_guessed else ''}", style=QUIET)


def _lengths(trace: TraceSummary) -> RenderableType:
    rows = [
        (name, short(each.mean), f"{each.cv:.2f}", *(short(value) for value in _percentiles(each)))
        for name, each in (("input", trace.input_tokens), ("output", trace.output_tokens))
    ]
    headings = ("", "mean", "CV", "least", "5 %", "25 %", "50 %", "75 %", "90 %", "95 %", "99 %", "most")
    together = pairs(
        [
            ("correlation", f"{trace.correlation:.2f}, of logarithms {trace.log_correlation:.2f}"),
            ("longest", f"{trace.longest_tokens:,} tokens in and out"),
        ]
    )
    return Group(columns(headings, rows), Text(""), together)


def _percentiles(length: LengthSummary) -> tuple[float, ...]:
    low = (length.least, length.p5, length.p25, length.p50)
    return (*low, length.p75, length.p90, length.p95, length.p99, length.most)


def _histogram(trace: TraceSummary) -> RenderableType:
    """Return shares of requests by powers of two, prompts beside answers."""
    inputs, outputs = (_octaves(each) for each in (trace.input_tokens, trace.output_tokens))
    shown = [
        n for n in sorted(inputs.keys() | outputs.keys()) if max(inputs.get(n, 0), outputs.get(n, 0)) >= LEAST_SHOWN
    ]
    most = max(max(inputs.values()), max(outputs.values()))
    rows = [
        (
            f"{2**n:,}",
            _bar(inputs.get(n, 0.0) / most),
            share(inputs.get(n, 0.0)),
            _bar(outputs.get(n, 0.0) / most),
            share(outputs.get(n, 0.0)),
        )
        for n in range(min(shown), max(shown) + 1)
    ]
    return columns(("from tokens", "input", "", "output", ""), rows, left=(1, 3), whole=(1, 3))


def _octaves(length: LengthSummary) -> dict[int, float]:
    found: dict[int, float] = {}
    for each in length.histogram:
        octave = int(each.low).bit_length() - 1
        found[octave] = found.get(octave, 0.0) + each.share
    return found


def _bar(part: float) -> str:
    eighths = round(part * LONGEST_BAR * 8)
    return BAR * (eighths // 8) + (EIGHTHS[eighths % 8] if eighths % 8 else "")


def _reuse(reuse: ReuseSummary) -> Iterator[RenderableType]:
    found = f"{share(reuse.reusable_share)} of input tokens, in blocks of {reuse.block_tokens}"
    if reuse.late_share is not None:
        found += f"; {share(reuse.late_share)} in the second half of the trace"
    facts = [("an endless cache finds", found), ("distinct tokens", short(reuse.distinct_tokens))]
    if reuse.reusable_share > 0.0:
        sizes = (reuse.cached_for_half, reuse.cached_for_90, reuse.cached_for_99)
        gaps = (reuse.gap_p10_s, reuse.gap_p50_s, reuse.gap_p90_s)
        facts += [
            ("cached for 50, 90, 99 % of it", f"{', '.join(short(each) for each in sizes)} tokens (LRU)"),
            ("time between uses", f"{', '.join(span(each) for each in gaps)} at 10, 50, 90 %"),
        ]
    yield pairs((name, Text(value)) for name, value in facts)
    curve = [each for each in reuse.curve if each.share >= LEAST_SHOWN]
    if curve:
        step = -(-len(curve) // MOST_CURVE_ROWS)
        rows = [(short(each.cached_tokens), _bar(each.share), share(each.share)) for each in curve[::-step][::-1]]
        yield Text("")
        yield columns(("cached tokens", "found of input tokens", ""), rows, left=(1,), whole=(1,))


def _classes(trace: TraceSummary) -> RenderableType:
    hashed = trace.reuse is not None
    rows: list[list[RenderableType]] = [
        [
            Text(each.name),
            f"{each.requests:,}",
            share(each.requests / trace.requests),
            number(each.arrivals.requests_per_s),
            short(each.input_tokens.mean),
            short(each.output_tokens.mean),
            _burstiness(each.arrivals),
            *([share(each.reuse.reusable_share) if each.reuse is not None else "-"] if hashed else []),
        ]
        for each in trace.classes
    ]
    headings = ("", "requests", "share", "req/s", "input", "output", "burstiness", *(["reusable"] if hashed else []))
    return columns(headings, rows)


def fit_report(fit: TraceFit) -> RenderableType:
    """Return the classes that a trace was made into, and what was assumed."""
    classes: dict[str, dict[str, Any]] = fit.workloads["workloads"]
    rows = [
        (
            Text(name),
            Text(str(each["model"])),
            Text(str(each["demand"])),
            _length_cell(each, "input"),
            _length_cell(each, "output"),
            number(each["burstiness"]),
            Text(str(each.get("reuse", "-"))),
        )
        for name, each in classes.items()
    ]
    headings = ("", "model", "demand", "input (CV)", "output (CV)", "burstiness", "reuse")
    shape = "24 hours" if "hourly_demand" in fit.workloads else f"{len(fit.workloads.get('periods', ()))} periods"
    title = Text.assemble((f"{fit.summary.file} as a workload", "bold"), f": {plural(fit.summary.requests, 'request')}")
    parts: list[RenderableType] = [title, section("Classes", columns(headings, rows, left=(0, 1, 6)))]
    if shape != "0 periods":
        parts.append(section("Demand over time", Text(shape)))
    if fit.notes:
        parts.append(section("Notes", bullets(fit.notes)))
    return Group(*parts)


def _length_cell(row: dict[str, Any], which: str) -> str:
    if "histogram" in row:
        return f"{len(row['histogram'])} bins / {row['split']}"
    return f"{number(row[f'{which}_tokens'], 4)} ({row[f'{which}_cv']:.2f})"


def workloads_yaml(fit: TraceFit) -> str:
    """Return the workload as a workloads file, with what was assumed as comments."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """Writes bins of histograms and periods as one line each."""

    def on_a_line(dumper: yaml.SafeDumper, row: _OnALine) -> yaml.Node:
        return dumper.represent_mapping("tag:yaml.org,2002:map", row, flow_style=True)

    def hours_on_a_line(dumper: yaml.SafeDumper, row: _HoursOnALine) -> yaml.Node:
        return dumper.represent_sequence("tag:yaml.org,2002:seq", row, flow_style=True)

    Dumper.add_representer(_OnALine, on_a_line)
    Dumper.add_representer(_HoursOnALine, hours_on_a_line)
    document = dict(fit.workloads)
    document["workloads"] = {
        name: {key: [_OnALine(bin_) for bin_ in value] if key == "histogram" else value for key, value in each.items()}
        for name, each in document["workloads"].items()
    }
    if "periods" in document:
        document["periods"] = [_OnALine({**each, "demand": _flat(each["demand"])}) for each in document["periods"]]
    if "hourly_demand" in document:
        document["hourly_demand"] = _HoursOnALine(document["hourly_demand"])
    about = [
        f"From {fit.summary.file}: {plural(fit.summary.requests, 'request')} in {span(fit.summary.span_s)}",
        *fit.notes,
    ]
    text: str = yaml.dump(document, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=118)
    return "".join(f"# {' '.join(line.split())}\n" for line in about) + text


class _OnALine(dict[str, Any]):
    """A mapping that is written as one line."""


class _HoursOnALine(list[float]):
    """A list that is written as one line."""


def _flat(demand: Any) -> Any:
    return _OnALine(demand) if isinstance(demand, dict) else demand


def made_report(made: MadeTrace) -> RenderableType:
    """Return what a trace that was written has come to."""
    summary = made.summary
    title = Text.assemble((f"{plural(made.requests, 'request')} in {span(made.span_s)}", "bold"), f": {made.file}")
    facts: list[tuple[str, RenderableType]] = [
        ("rate", Text(rate(summary.arrivals.requests_per_s, "req/s"))),
        ("burstiness", Text(_burstiness(summary.arrivals))),
        ("input tokens", Text(f"{number(summary.input_tokens.mean, 4)} (CV {summary.input_tokens.cv:.2f})")),
        ("output tokens", Text(f"{number(summary.output_tokens.mean, 4)} (CV {summary.output_tokens.cv:.2f})")),
    ]
    if summary.reuse is not None:
        facts.append(("reusable", Text(f"{share(summary.reuse.reusable_share)} of input tokens")))
    facts.append(("seed", Text(str(made.seed))))
    return Group(title, section("As it came out", pairs(facts)))
