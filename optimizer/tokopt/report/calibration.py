"""A calibration run in the terminal: what was fitted, how wrong it is, and what moved."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from tokopt.domain.calibrating import CalibrationReport, MovedEffect
from tokopt.report.blocks import QUIET, bullets, columns, counted, pairs, section
from tokopt.report.figures import number, plural, signed_share

FIGURES: Mapping[str, str] = {
    "output_tok_s_per_gpu": "tok/s/GPU",
    "tpot_ms": "TPOT",
    "ttft_ms": "TTFT",
    "power_kw": "power",
}
SPLITS: Mapping[str, str] = {
    "layout": "layouts not seen",
    "llm": "models not seen",
    "system": "accelerators not seen",
    "in-sample": "in-sample",
}
ROOM = 88  # columns that a table with both base and fit needs
MOST_REASONS = 8
LONGEST_REASON = 150
CAPPED = "%: mean of absolute errors, each counted as at most 100 %, and median"


def calibration_report(report: CalibrationReport, *, columns_wide: int) -> RenderableType:
    """Return the report, for a terminal of that width."""
    r = report
    title = Text.assemble(
        (f"Constants fitted to {r.table}", "bold"), f": {r.used:,} of {plural(r.rows, 'row')}, on top of {r.base}"
    )
    parts: list[RenderableType] = [
        title,
        section("How wrong it is", _errors(r, columns_wide), Text(CAPPED, style=QUIET)),
    ]
    if r.moved_effects:
        parts.append(section("What moved most: differences", bullets(map(_effect, r.moved_effects))))
    if r.moved:
        parts.append(section("What moved most: values of all", _constants(r)))
    if not r.moved and not r.moved_effects:
        parts.append(section("What moved", Text("hardly anything: the base predicts these measurements as they are")))
    if r.reasons:
        parts.append(section("Rows not fitted", bullets(_reasons(r.reasons))))
    parts.append(section("How to read it", bullets(_explained(r))))
    parts.append(section("What to do with it", bullets(_next(r))))
    parts.append(section("Where the numbers come from", _provenance(r)))
    return Group(*parts)


def _errors(r: CalibrationReport, columns_wide: int) -> RenderableType:
    """Return errors of each set of rows, before the fit and after it."""
    before = {row["rows_of"]: row for row in r.errors_before}
    wide = columns_wide >= ROOM
    headings = ["rows of", "rows", "", "base", "fit", "how"] if wide else ["rows of", "", "base", "fit"]
    lines: list[Sequence[RenderableType]] = []
    for row in r.errors:
        how = SPLITS[str(row["split"])]
        old = before.get(row["rows_of"], {}) if row["split"] in ("layout", "in-sample") else {}
        said = f"{row['rows_of']}" if row["split"] in ("layout", "in-sample") else f"{row['rows_of']}: {how}"
        first = True
        for figure, shown in FIGURES.items():
            if f"{figure}_mape" not in row:
                continue
            cells = [said if first else "", f"{row['rows']:,.0f}" if first else ""] if wide else [said if first else ""]
            cells += [shown, _pair(old, figure), _pair(row, figure)]
            lines.append([*cells, how if first and row["split"] in ("layout", "in-sample") else ""] if wide else cells)
            first = False
    return columns(headings, lines, left=(0, 2, 5) if wide else (0, 1))


def _pair(row: Mapping[str, Any], figure: str) -> str:
    if f"{figure}_mape" not in row:
        return "-"
    return f"{row[f'{figure}_mape']:.1f} / {row[f'{figure}_median_ape']:.1f}"


def _effect(moved: MovedEffect) -> str:
    shown = " ".join(moved.level.split("+"))
    unit = "" if moved.scale == "log" else f" ({moved.scale} scale)"
    was = f" (base: {_shift(moved, moved.before)})" if moved.before else ""
    now = f"{_shift(moved, moved.after)}{unit}{was}"
    return f"{moved.constant} of {shown}: {now}, ±{moved.sd:.2f}, {plural(moved.rows, 'row')}"


def _shift(moved: MovedEffect, value: float) -> str:
    """Return how a level differs from its parents: as a factor where effects are factors."""
    return signed_share(math.expm1(value)) if moved.scale == "log" else f"{value:+.2f}"


def _constants(r: CalibrationReport) -> RenderableType:
    lines = [[m.constant, _value(m.before), _value(m.after), f"{m.prior_sds:.1f}"] for m in r.moved]
    return columns(("", "base", "fit", "prior sds"), lines)


def _value(value: float) -> str:
    return number(value) if 1e-3 <= abs(value) < 1e6 else f"{value:.3g}"


def _reasons(reasons: Mapping[str, int]) -> list[str]:
    brief: dict[str, int] = {}
    for reason, count in reasons.items():
        said = reason.partition("; known:")[0]
        said = said if len(said) <= LONGEST_REASON else f"{said[:LONGEST_REASON]}..."
        brief[said] = brief.get(said, 0) + count
    lines = counted(brief)
    if len(lines) <= MOST_REASONS:
        return lines
    rest = sorted(brief.values(), reverse=True)[MOST_REASONS:]
    return [*lines[:MOST_REASONS], f"{sum(rest):,} × {len(rest)} other reasons (--json has them)"]


def _explained(r: CalibrationReport) -> Iterator[str]:
    if r.cross_validated:
        yield "base: its predictions of these rows; fit: of fits that had not seen a row's group, so a fair estimate"
    else:
        yield "base: its predictions of these rows; fit: of the fit that saw them, so lower than on new ones"
    if r.moved_effects:
        yield "±: standard deviation of what is left open, on the scale on which effects add up (0.1 is about 10 %)"
    yield from r.notes


def _next(r: CalibrationReport) -> list[str]:
    if r.out is None:
        return ["nothing was written: -o FILE writes the constants"]
    return [
        f"to use it, put {r.out} into a directory as calibration/default.yaml, and give that directory as --catalog",
        "tokopt validate FILE --catalog DIR shows its errors row by row",
    ]


def _provenance(r: CalibrationReport) -> RenderableType:
    found = f"{plural(r.parameters, 'parameter')} in {plural(r.rounds, 'round')}, {r.seconds:.1f} s"
    return pairs(
        [
            ("calibration", f"{r.name} {r.version} of {r.made_on}, {r.effects:,} effects"),
            ("measurements", f"{r.data_hash} (hash of what was fitted)"),
            ("fit", found),
        ]
    )
