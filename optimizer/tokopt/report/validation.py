"""How far predictions are from measurements: errors by group, a plot, and why rows were not answered."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from tokopt.domain.validation import COMPARED, NOT_STATED, ErrorGroup, Validation
from tokopt.report.blocks import QUIET, bullets, columns, counted, pairs, section
from tokopt.report.figures import number, plural

TITLES: Mapping[str, str] = {
    "output_tok_s_per_gpu": "tok/s/GPU",
    "tpot_ms": "TPOT",
    "ttft_ms": "TTFT",
    "power_kw": "power",
}
HEADINGS = ("", "", "compared", "mean", "median", "p90", "bias", "in range")
WIDTHS = (9, 9, 6, 8, 7, 7, 9)  # of the columns but the first, where there is no room for a key beside them
ROOM_BESIDE = 92  # columns that a key beside the figures needs
CAPPED = "mean: of absolute errors, each counted as at most 100 %; median and p90 are not capped"
FEW_GROUPS = 20  # as many are shown whatever their size
SMALL_GROUP = 30  # rows; smaller ones say little
MOST_REASONS = 12
LONGEST_REASON = 150
LEAST_WIDTH, MOST_WIDTH, MARGIN = 24, 64, 32  # of the plot's canvas; what plotille puts around it
LEAST_HEIGHT, MOST_HEIGHT = 10, 22
EMPTY_CELL = "\u2800"  # a braille cell without dots, which looks like a blank but is none


def validation_report(
    validation: Validation,
    *,
    columns_wide: int,
    lines_high: int,
    plot: bool = True,
    least_rows: int | None = None,
    everything: bool = False,
) -> RenderableType:
    """Return the report; groups below `least_rows` are folded into one line unless `everything` is asked for."""
    v = validation
    title = Text.assemble(
        (f"Predictions {_from(v)}against {v.table}", "bold"),
        f": {v.answered:,} of {plural(v.rows, 'row')} predicted, {v.compared:,} compared with what was measured",
    )
    parts: list[RenderableType] = [
        title,
        section("All rows", error_table([v.overall], columns_wide=columns_wide), Text(CAPPED, style=QUIET)),
    ]
    for heading, groups in (
        ("By scenario and serving mode", v.by_scenario),
        ("By id prefix", v.by_prefix),
        ("By what is doubtful in a row", v.by_role),
    ):
        if len(groups) > 1:
            parts.append(section(heading, error_table(groups, columns_wide=columns_wide, labelled=groups is v.by_role)))
    shown = _groups(v.groups, columns_wide=columns_wide, least_rows=least_rows, everything=everything)
    parts.append(section(f"By {', '.join(v.by)}", *shown))
    if plot and v.points:
        parts.append(section("Output tok/s/GPU: predicted over measured, both logarithmic",
                             scatter(v.points, columns_wide=columns_wide, lines_high=lines_high)))  # fmt: skip
    if v.reasons:
        parts.append(section("Rows not predicted", bullets(_reasons(v.reasons, everything))))
    if v.left_out:
        parts.append(section("Rows not looked at", bullets(counted(v.left_out))))
    parts.append(section("How to read it", bullets(_explained(v))))
    parts.append(section("Where the numbers come from", _provenance(v)))
    return Group(*parts)


def _from(v: Validation) -> str:
    return "with step times of the operator database " if v.databases else ""


def _groups(
    groups: Sequence[ErrorGroup], *, columns_wide: int, least_rows: int | None, everything: bool
) -> list[RenderableType]:
    """Return the groups, those that are small or of which nothing was predicted folded into a line each."""
    few = least_rows is None and len(groups) <= FEW_GROUPS
    if everything or few:
        return [error_table(groups, columns_wide=columns_wide)]
    least = SMALL_GROUP if least_rows is None else least_rows
    empty = [g for g in groups if not g.answered]
    small = [g for g in groups if g.answered and g.rows < least]
    large = [g for g in groups if g.answered and g.rows >= least]
    parts: list[RenderableType] = [error_table(large, columns_wide=columns_wide)] if large else []
    if small:
        parts.append(Text(folded_line(small, f"of fewer than {least} rows")))
    if empty:
        parts.append(Text(folded_line(empty, "of which no row is predicted")))
    return parts


def error_table(groups: Iterable[ErrorGroup], *, columns_wide: int, labelled: bool = False) -> RenderableType:
    """Return errors, a line for each figure that was compared, next to the group's key or, for want of room, below it.

    Args:
        groups: What to show.
        columns_wide: Width of the terminal.
        labelled: Name the columns of a key.
    """
    beside: list[Sequence[RenderableType]] = []
    below = [_in_columns(HEADINGS[1:])]
    for group in groups:
        key = _key_text(group.key, labelled=labelled)
        counts = f"{plural(group.rows, 'row')}, {group.answered:,} predicted"
        lines = [_cells(group, figure) for figure in COMPARED if group.compared[figure] or group.not_predicted[figure]]
        stacked = ("\n".join(line[place] for line in lines) for place in range(len(HEADINGS) - 1))
        beside.append((Text.assemble(key, "\n", (counts, QUIET)), *stacked))
        below += [Text.assemble(key, (f": {counts}", QUIET)), *map(_in_columns, lines)]
    return columns(HEADINGS, beside) if columns_wide >= ROOM_BESIDE else Group(*below)


def _cells(group: ErrorGroup, figure: str) -> Sequence[str]:
    missing = group.not_predicted[figure]
    return (
        TITLES[figure],
        f"{group.compared[figure]:,}" + (f" of {group.compared[figure] + missing:,}" if missing else ""),
        _percent(group.mape_capped[figure]),
        _percent(group.median_ape[figure]),
        _percent(group.p90_ape[figure]),
        _percent(group.bias[figure], signed=True),
        _percent(group.interval_coverage_by_figure[figure]),
    )


def _in_columns(cells: Sequence[str]) -> Text:
    return Text("  " + "".join(cell.rjust(width) for cell, width in zip(cells, WIDTHS, strict=True)), no_wrap=True)


def _key_text(key: Mapping[str, str], *, labelled: bool) -> str:
    if labelled:
        return ", ".join(f"{column} {'-' if value == NOT_STATED else value}" for column, value in key.items())
    return " ".join(value for value in key.values() if value != NOT_STATED) or (NOT_STATED if key else "all")


def _percent(value: float | None, *, signed: bool = False) -> str:
    if value is None:
        return "-"
    if abs(value) >= 999.5:
        return f"{'-' if value < 0 else '>'}999 %"
    return f"{value:+.0f} %" if signed and round(value) else f"{abs(value) if round(value) == 0 else value:.0f} %"


def folded_line(groups: Sequence[ErrorGroup], which: str) -> str:
    """Return one line that stands for groups that are not shown, with their pooled mean errors."""
    rows, answered = sum(g.rows for g in groups), sum(g.answered for g in groups)
    said = []
    for figure in COMPARED:
        known = [(g.compared[figure], g.mape_capped[figure]) for g in groups]
        total = sum(count for count, error in known if error is not None)
        if total:
            mean = sum(count * error for count, error in known if error is not None) / total
            said.append(f"{TITLES[figure]} {_percent(mean)}")
    predicted = f", {answered:,} predicted" if answered else ""
    errors = f"; mean errors: {', '.join(said)}" if said else ""
    return f"{plural(len(groups), 'group')} {which}, {plural(rows, 'row')} in all{predicted}{errors} (--all)"


def _reasons(reasons: Mapping[str, int], everything: bool) -> list[str]:
    # Names that are known fill lines; the JSON has them.
    brief: dict[str, int] = {}
    for reason, count in reasons.items():
        said = reason.partition("; known:")[0]
        said = said if len(said) <= LONGEST_REASON else f"{said[:LONGEST_REASON]}..."
        brief[said] = brief.get(said, 0) + count
    lines = counted(brief)
    if everything or len(lines) <= MOST_REASONS:
        return lines
    rest = sorted(brief.values(), reverse=True)[MOST_REASONS:]
    return [*lines[:MOST_REASONS], f"{sum(rest):,} × {len(rest)} other reasons (--all)"]


def _explained(v: Validation) -> list[str]:
    lines = [
        "errors are |predicted - measured| / measured; the mean is capped because tables hold broken runs, ten times "
        "off; nine in ten rows are off by less than p90",
        "bias: mean of (predicted - measured) / measured, each within ±100 %; + = predicted too high",
        "in range: how often the stated 80 % range held what was measured; near 80 % is right",
    ]
    if v.databases:
        lines[-1] = "in range: nothing, since step times of the operator database have no stated range"
    plain = [f"{TITLES[figure]} {_percent(v.overall.mape[figure])}" for figure in COMPARED if v.overall.mape[figure]]
    if plain:
        lines.append(f"the mean over all rows without that cap: {', '.join(plain)}")
    return [*lines, *v.notes]


def _provenance(v: Validation) -> RenderableType:
    made = v.calibration
    kind = "fitted to measurements" if made.fitted else "priors, not fitted"
    return pairs(
        [
            ("tokopt", f"{v.tokopt_version}, catalog {v.catalog_version}"),
            ("calibration", f"{made.version} of {made.made_on} ({kind})"),
            *(("step times", said) for said in _databases(v.databases)),
        ]
    )


def _databases(used: Mapping[str, int]) -> list[str]:
    """Return a line a package: the rows that it answered, by mode, which is what its parts' names end in."""
    unit = "row"
    modes: dict[str, dict[str, int]] = {}
    for name, rows in used.items():
        package, mode = name.partition(", ")[0], name.rpartition(", ")[2]
        counts = modes.setdefault(package, {})
        counts[mode] = counts.get(mode, 0) + rows
    return [
        f"{package}: {', '.join(f'{mode} {plural(rows, unit)}' for mode, rows in counts.items())}"
        " (--by predicted_database sets its parts apart)"
        for package, counts in modes.items()
    ]


def scatter(points: Sequence[tuple[float, float]], *, columns_wide: int, lines_high: int) -> RenderableType:
    """Return predictions over measurements, log-log, as dots, with the line on which both are equal."""
    import plotille

    logs = [(math.log10(measured), math.log10(predicted)) for measured, predicted in points]
    low = min(min(pair) for pair in logs)
    high = max(max(pair) for pair in logs)
    room = max((high - low) * 0.05, 0.05)
    low, high = low - room, high + room
    figure = plotille.Figure()
    figure.with_colors = False
    figure.origin = False
    figure.width = min(max(columns_wide - MARGIN, LEAST_WIDTH), MOST_WIDTH)
    figure.height = min(max(lines_high // 2, LEAST_HEIGHT), MOST_HEIGHT)
    figure.set_x_limits(min_=low, max_=high)
    figure.set_y_limits(min_=low, max_=high)
    figure.x_label, figure.y_label = "measured", "predicted"
    figure.x_ticks_fkt = lambda value, _high: number(10.0**value, 2)
    figure.y_ticks_fkt = lambda value, _high: f"{number(10.0**value, 2):>10}"
    figure.plot([low, high], [low, high])
    figure.scatter([x for x, _ in logs], [y for _, y in logs])
    drawn = "\n".join(line.rstrip() for line in figure.show().replace(EMPTY_CELL, " ").splitlines())
    return Group(Text(drawn, no_wrap=True, overflow="crop"), Text("diagonal: predicted as measured", style=QUIET))
