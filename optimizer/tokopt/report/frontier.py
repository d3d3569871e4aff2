"""Throughput against interactivity: a plot, a table of points, and all points as CSV."""

from __future__ import annotations

import csv
import io
import math
import string
from collections.abc import Iterator, Mapping, Sequence

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.text import Text

from tokopt.domain.comparisons import Frontier, FrontierPoint, Reach
from tokopt.domain.deployments import Layout
from tokopt.domain.estimates import Interval
from tokopt.report.blocks import bullets, columns, pairs, section
from tokopt.report.deployments import letters_used, short_text
from tokopt.report.figures import UNKNOWN, number, plural, short, usd

MARKERS = string.ascii_uppercase + string.digits
COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "red")
LEAST_WIDTH, MOST_WIDTH = 24, 100  # of the plot's canvas
LEAST_HEIGHT, MOST_HEIGHT = 10, 24
EMPTY_CELL = "\u2800"  # a braille cell without dots, which looks like a blank but is none
MARGIN = 32  # columns that plotille puts around a canvas


def frontier_report(
    frontier: Frontier, *, columns_wide: int, lines_high: int, most_points: int | None = None
) -> RenderableType:
    """Return plot and table of a frontier; `most_points` thins the table, and the report says so."""
    by_accelerator = _grouped(frontier.points)
    shown = [p for points in by_accelerator.values() for p in thinned(points, _share(most_points, by_accelerator))]
    title = Text.assemble(
        (f"Frontier of {frontier.model}, {frontier.workload} workload", "bold"),
        f": {plural(len(frontier.points), 'point')} out of {frontier.deployments_considered:,} deployments considered",
    )
    parts: list[RenderableType] = [title]
    if frontier.points:
        parts += [Text(""), frontier_plot(by_accelerator, columns_wide=columns_wide, lines_high=lines_high)]
        some = f"{len(shown)} of {len(frontier.points)} points" if len(shown) < len(frontier.points) else "all points"
        parts.append(section(f"Operating points ({some})", _table(shown)))
    if frontier.reach:
        parts.append(section("How far each accelerator goes", _reach_table(frontier.reach)))
    if frontier.excluded:
        parts.append(section("Accelerators left out", pairs(sorted(frontier.excluded.items()))))
    parts.append(section("Assumptions", bullets(_assumptions(frontier, shown))))
    parts.append(section("Where the numbers come from", _provenance(frontier)))
    return Group(*parts)


def _grouped(points: Sequence[FrontierPoint]) -> dict[str, list[FrontierPoint]]:
    groups: dict[str, list[FrontierPoint]] = {}
    for point in points:
        groups.setdefault(point.accelerator, []).append(point)
    return groups


def _share(most: int | None, groups: Mapping[str, Sequence[FrontierPoint]]) -> int | None:
    return None if most is None else max(most // max(len(groups), 1), 2)


def thinned(points: Sequence[FrontierPoint], most: int | None) -> list[FrontierPoint]:
    """Return at most `most` points, evenly spread over the list, the first and the last among them."""
    if most is None or len(points) <= most:
        return list(points)
    return [points[round(n * (len(points) - 1) / (most - 1))] for n in range(most)]


def frontier_plot(
    by_accelerator: Mapping[str, Sequence[FrontierPoint]], *, columns_wide: int, lines_high: int
) -> RenderableType:
    """Return output per GPU (log scale) over tokens a second a user, one letter and colour an accelerator."""
    import plotille

    letters = dict(zip(by_accelerator, MARKERS * 9, strict=False))
    every = [p for points in by_accelerator.values() for p in points]
    y_low, y_high = _decades([p.output_tokens_per_s_per_gpu for p in every])
    figure = plotille.Figure()
    figure.with_colors = False
    figure.origin = False
    figure.width = min(max(columns_wide - MARGIN, LEAST_WIDTH), MOST_WIDTH)
    figure.height = min(max(lines_high // 2, LEAST_HEIGHT), MOST_HEIGHT)
    figure.set_x_limits(min_=0.0, max_=_round_up(max(p.tokens_per_s_per_user for p in every)))
    figure.set_y_limits(min_=y_low, max_=y_high)
    figure.x_label, figure.y_label = "tok/s/user", "tok/s/GPU"
    figure.y_ticks_fkt = lambda low, _high: f"{number(10.0**low):>10}"
    figure.x_ticks_fkt = lambda low, _high: f"{low:.0f}"
    for name, points in by_accelerator.items():
        figure.scatter(
            [p.tokens_per_s_per_user for p in points],
            [math.log10(p.output_tokens_per_s_per_gpu) for p in points],
            marker=letters[name],
        )
    colours = {letter: COLOURS[n % len(COLOURS)] for n, letter in enumerate(letters.values())}
    legend = [Text(f"{letter} {name}", style=colours[letter]) for name, letter in letters.items()]
    return Group(_coloured(figure.show(), colours), Text(""), Columns(legend, padding=(0, 2)))


def _coloured(plot: str, colours: Mapping[str, str]) -> Text:
    """Return a plot with its markers coloured; what stands left of the axis or below it is not marked."""
    text = Text(no_wrap=True, overflow="crop")
    for line in plot.replace(EMPTY_CELL, " ").splitlines():
        axis, bar, canvas = line.partition("| ")
        text.append(axis + bar)
        for sign in canvas:
            text.append(sign, style=colours.get(sign, ""))
        text.append("\n")
    text.rstrip()
    return text


def _decades(values: Sequence[float]) -> tuple[float, float]:
    low, high = math.log10(min(values)), math.log10(max(values))
    room = max((high - low) * 0.05, 0.05)
    return low - room, high + room


def _round_up(value: float) -> float:
    step = 10.0 ** math.floor(math.log10(value)) / 2
    return math.ceil(value / step * 1.02) * step


def _table(points: Sequence[FrontierPoint]) -> RenderableType:
    rows = []
    for point in points:
        price, efficiency = point.usd_per_million_output_tokens, point.tokens_per_s_per_mw
        rows.append(
            (
                Text(point.accelerator, style="bold" if point.on_overall_frontier else ""),
                ("*" if point.on_overall_frontier else ""),
                number(point.tokens_per_s_per_user),
                number(point.output_tokens_per_s_per_gpu),
                "-" if price is None else usd(price),
                "-" if efficiency is None else short(efficiency),
                short_text(point.deployment),
            )
        )
    headings = ("", "", "/user", "/GPU", "$/M out", "/MW", "set-up")
    return columns(headings, rows, left=(0, 6))


def _reach_table(reach: Sequence[Reach]) -> RenderableType:
    rows = [
        (
            Text(each.accelerator),
            number(each.fastest_tokens_per_s_per_user),
            short_text(each.fastest),
            f"{each.longest_input_tokens:,}" + ("" if each.longest_input_by_model else " (memory)"),
            f"{each.longest_input_ttft_ms / 1e3:,.1f} s",
            short_text(each.longest),
        )
        for each in reach
    ]
    headings = ("", "fastest /user", "by", "longest input", "its TTFT", "by")
    return columns(headings, rows, left=(0, 2, 5))


def frontier_notes(frontier: Frontier) -> list[str]:
    """Return what the points of a frontier take for granted, for where they are drawn."""
    priced = "costs are at the lowest price of each accelerator in the price lists"
    return [*frontier.assumptions, priced, *_how_sure(frontier, frontier.points)]


def frontier_bars(frontier: Frontier, *, columns_wide: int, lines_high: int) -> RenderableType:
    """Return the plot of a frontier as text, nothing where it has no points."""
    if not frontier.points:
        return Text("")
    return frontier_plot(_grouped(frontier.points), columns_wide=columns_wide, lines_high=lines_high)


def _assumptions(frontier: Frontier, shown: Sequence[FrontierPoint]) -> list[str]:
    lines = [
        "/user, /GPU and /MW are output tokens a second for each user, GPU and MW of all-in utility power; $/M out is "
        "the cost of a million output tokens; set-up: layout, precision of weights/KV cache, framework",
        "* = no point of any accelerator beats it on both axes",
        *frontier.assumptions,
    ]
    if any(each.longest_input_by_model for each in frontier.reach):
        lines.append(
            "longest input: one prompt alone with the workload's output; the model's own context ends it, unless "
            "memory is named"
        )
    return [*lines, *_how_sure(frontier, shown)]


def _how_sure(frontier: Frontier, shown: Sequence[FrontierPoint]) -> Iterator[str]:
    """Yield the range of throughput, and what the words of layouts mean."""
    around = frontier.interval.get("output_tokens_per_s_per_gpu")
    if around is not None:
        yield f"80 % range of throughput: {_multipliers(around)} the figure shown, and of cost the other way"
    if frontier.extrapolated:
        yield "predictions rest on constants that were not fitted to measurements of these set-ups"
    yield f"in layouts: {letters_used(p.deployment for p in shown)}"


def _multipliers(around: Interval) -> str:
    return f"{around.low:.2f} to {around.high:.2f} times"


def _provenance(frontier: Frontier) -> RenderableType:
    made = frontier.provenance
    return pairs(
        [
            ("tokopt", f"{made.tokopt_version}, catalog {made.catalog_version}"),
            ("calibration", f"{made.calibration} (weakest constant: {made.constants_origin})"),
            ("prices", f"{', '.join(frontier.price_lists)} as of {frontier.prices_as_of or UNKNOWN}"),
        ]
    )


def frontier_csv(frontier: Frontier) -> str:
    """Return all points as CSV, the deployment in columns of its own."""
    out = io.StringIO()
    writer: csv.DictWriter[str] | None = None
    for row in _records(frontier.points):
        if writer is None:
            writer = csv.DictWriter(out, list(row), lineterminator="\n")
            writer.writeheader()
        writer.writerow(row)
    return out.getvalue()


def _records(points: Sequence[FrontierPoint]) -> Iterator[dict[str, object]]:
    for point in points:
        deployment = point.deployment
        pools = {"": deployment.layout, "prefill_": deployment.prefill, "decode_": deployment.decode}
        record: dict[str, object] = point.model_dump(exclude={"deployment"})
        record |= {
            "framework": deployment.framework,
            "precision": deployment.precision,
            "kv_precision": deployment.kv_precision,
            "mode": deployment.mode.value,
            "speculation_depth": deployment.speculation_depth,
            "speculator": deployment.speculator or "",
            "chunk_tokens": deployment.chunk_tokens,
            "max_running_requests": deployment.max_running_requests,
        }
        for prefix, pool in pools.items():
            layout = getattr(pool, "layout", pool)
            if prefix:
                record[f"{prefix}workers"] = getattr(pool, "workers", None)
            record |= {f"{prefix}{name}": getattr(layout, name, None) for name in Layout.model_fields}
        record["without"] = " ".join(deployment.without)
        yield record
