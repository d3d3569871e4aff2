"""How far tokopt's predictions are from published measurements: `python tools/measure_accuracy.py measurements.csv`.

Reads a table of measurements (columns: docs/accuracy.md), predicts every usable row with `tokopt.estimate_many` and
prints errors by accelerator, framework and serving mode as a Markdown table. Nothing is fitted.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np
import polars as pl
from numpy.typing import NDArray

import tokopt

SCENARIO = "fixed_concurrency"
DOUBTFUL_ROLES = ("maybe_mtp", "ambiguous", "latency_only")
WORST_ERROR = 1.0  # absolute relative errors count as at most 100 %: a few published rows are broken runs
GROUP = ("vendor_system", "framework", "serving_mode")
TARGETS = ("throughput", "TPOT", "TTFT")
Z80 = NormalDist().inv_cdf(0.9)  # half-width of a central 80 % range, in standard deviations


@dataclass(frozen=True)
class Left:
    """Rows that were not compared, by reason."""

    counts: Counter[str]

    def lines(self) -> list[str]:
        return [f"- {count:,} rows: {reason}" for reason, count in self.counts.most_common()]


def read_table(path: Path) -> pl.DataFrame:
    """Return a measurement table; empty cells are missing values."""
    return pl.read_csv(path, infer_schema_length=None, null_values=[""])


def column(table: pl.DataFrame, name: str, kind: type[pl.DataType]) -> pl.Series:
    """Return a column as a type, or missing values where the table does not have it."""
    if name not in table.columns:
        return pl.Series(name, [None] * table.height, dtype=kind)
    return table[name].cast(kind, strict=False)


def usable(table: pl.DataFrame, prefix: str) -> tuple[pl.DataFrame, Counter[str]]:
    """Return the rows to compare, and why the others were left out."""
    left: Counter[str] = Counter()

    def drop(mask: pl.Series, reason: str, rows: pl.DataFrame) -> pl.DataFrame:
        out = mask.fill_null(False)
        if out.any():
            left[reason] += int(out.sum())
        return rows.filter(~out)

    if prefix:
        table = drop(~column(table, "id", pl.String).fill_null("").str.starts_with(prefix), "another id prefix", table)
    table = drop(column(table, "scenario", pl.String).fill_null("") != SCENARIO, f"scenario is not {SCENARIO}", table)
    for role in DOUBTFUL_ROLES:
        table = drop(column(table, "role", pl.String).fill_null("") == role, f"role is {role}", table)
    speculative = column(table, "speculative", pl.String).fill_null("")
    table = drop(
        speculative == "unlabelled", "with and without speculation mixed up (speculative is unlabelled)", table
    )
    return table, left


def throughput(table: pl.DataFrame) -> NDArray[np.float64]:
    """Return measured output tokens/s/GPU: as published, else as derived from latencies and concurrency."""
    published = column(table, "output_tok_s_per_gpu", pl.Float64)
    derived = column(table, "derived_output_tok_s_per_gpu", pl.Float64)
    return (
        table.select(pl.coalesce(published.alias("a"), derived.alias("b")).alias("measured"))["measured"]
        .to_numpy()
        .astype(float)
    )


def ratios(answered: pl.DataFrame) -> dict[str, NDArray[np.float64]]:
    """Return predicted over measured by target; NaN where either is missing."""

    def figure(name: str) -> NDArray[np.float64]:
        return column(answered, name, pl.Float64).to_numpy().astype(float)

    measured = {"throughput": throughput(answered), "TPOT": figure("tpot_ms"), "TTFT": figure("ttft_ms")}
    predicted = {
        "throughput": figure("predicted_output_tok_s_per_gpu"),
        "TPOT": figure("predicted_tpot_ms"),
        "TTFT": figure("predicted_ttft_ms"),
    }
    with np.errstate(all="ignore"):
        return {t: np.where(measured[t] > 0, predicted[t] / measured[t], np.nan) for t in TARGETS}


def held(answered: pl.DataFrame) -> NDArray[np.float64]:
    """Return 1 where the stated 80 % range holds the measured throughput, 0 where not, NaN where unknown."""
    measured = throughput(answered)
    low = column(answered, "predicted_output_tok_s_per_gpu_low", pl.Float64).to_numpy().astype(float)
    high = column(answered, "predicted_output_tok_s_per_gpu_high", pl.Float64).to_numpy().astype(float)
    known = np.isfinite(measured) & np.isfinite(low)
    return np.where(known, ((low <= measured) & (measured <= high)).astype(float), np.nan)


def line(name: str, rows: int, by_target: dict[str, NDArray[np.float64]], inside: NDArray[np.float64]) -> str:
    """Return one line of the table."""
    answered = int(np.isfinite(by_target["throughput"]).sum())
    cells = [name, f"{rows:,}", f"{answered:,}"]
    for target in TARGETS:
        each = by_target[target]
        each = each[np.isfinite(each)]
        if not each.size:
            cells.append("-")
            continue
        errors = np.minimum(np.abs(each - 1.0), WORST_ERROR) * 100.0
        cells.append(f"{np.median(each):.2f}: {errors.mean():.0f} / {np.median(errors):.0f}")
    known = inside[np.isfinite(inside)]
    cells.append(f"{known.mean():.0%}" if known.size else "-")
    return f"| {' | '.join(cells)} |"


def report(answered: pl.DataFrame, left: Counter[str]) -> str:
    """Return the whole report as Markdown."""
    by_target, inside = ratios(answered), held(answered)
    keys = list(zip(*(column(answered, name, pl.String).fill_null("?").to_list() for name in GROUP), strict=True))
    lines = [
        "| accelerator, framework, mode | rows | answered | tok/s/GPU | TPOT | TTFT | in 80 % range |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]

    def add(name: str, mask: NDArray[np.bool_]) -> None:
        lines.append(line(name, int(mask.sum()), {t: v[mask] for t, v in by_target.items()}, inside[mask]))

    for key in sorted(set(keys)):
        add(", ".join(key), np.array([k == key for k in keys]))
    for mode in sorted({k[2] for k in keys}):
        add(f"**all, {mode}**", np.array([k[2] == mode for k in keys]))
    add("**all**", np.ones(len(keys), dtype=bool))
    unanswered = Counter(reason for reason in answered["predicted_reason"].to_list() if reason)
    parts = ["\n".join(lines)]
    parts.append("Rows left out:\n\n" + ("\n".join(Left(left).lines()) or "- none"))
    parts.append("Rows without an answer:\n\n" + ("\n".join(Left(unanswered).lines()) or "- none"))
    return "\n\n".join(parts)


def range_line(answered: pl.DataFrame, base: Mapping[str, float]) -> str:
    """Return how often the stated 80 % range held what was measured, by target."""
    shares = []
    for target, ratio in ratios(answered).items():
        spread = math.exp(Z80 * base["throughput_log_sd" if target == "throughput" else "latency_log_sd"])
        known = ratio[np.isfinite(ratio)]
        shares.append(f"{target} {((known >= 1.0 / spread) & (known <= spread)).mean():.0%}")
    return f"The 80 % range held what was measured: {', '.join(shares)} of the rows."


def main(arguments: list[str] | None = None) -> int:
    """Print the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path, help="measurements as CSV")
    parser.add_argument("--prefix", default="", help="only rows whose id starts with this")
    chosen = parser.parse_args(arguments)
    rows, left = usable(read_table(chosen.table), chosen.prefix)
    if not rows.height:
        print("no usable row", file=sys.stderr)
        return 2
    catalog = tokopt.load_catalog()
    answered = tokopt.estimate_many(rows, catalog=catalog)
    calibration = catalog.calibration
    print(f"Calibration {calibration.version} of {calibration.made_on}; {rows.height:,} rows compared.\n")
    print("Cells: median of predicted / measured, then mean / median absolute error in % (each capped at 100 %).\n")
    print(report(answered, left))
    print(f"\n{range_line(answered, calibration.base)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
