"""MLPerf's rows with rates of arrivals, simulated request by request: the table of docs/accuracy.md.

`python benchmarks/measured_rates.py` takes some 20 minutes of one core; errors by scenario are printed as Markdown.
"""

from __future__ import annotations

import sys

import polars as pl

import tokopt
from tokopt.api.simulated_rows import errors, simulated_rows

LEFT_OUT = ("cpu_xeon", "mixed_mi300x_mi325x")  # systems that are in no catalog
LINES = {
    "rows": ("rows", "", "{:.0f}"),
    "most_rate_error": ("highest rate within the limits, simulated over measured", "mean error", "{:.1f} %"),
    "planned_rate_error": ("the same by the queueing model", "mean error", "{:.1f} %"),
    "overloaded": ("overloaded in simulation at the measured rate", "rows", "{:.0f}"),
    "ttft_error": ("mean TTFT of the others", "mean error", "{:.0f} %"),
    "tpot_error": ("mean TPOT of the others", "mean error", "{:.0f} %"),
    "ttft_p99_kept": ("simulated p99 TTFT within its limit, as measured", "of the others", "{:.0%}"),
    "tpot_p99_kept": ("simulated p99 TPOT within its limit, as measured", "of the others", "{:.0%}"),
}


def main() -> None:
    """Simulate the rows, and print how wrong that is."""
    catalog = tokopt.load_catalog()
    records = (
        catalog.measurements()
        .filter(
            pl.col("id").str.starts_with("mlperf5.1:")
            & pl.col("scenario").is_in(["server", "interactive"])
            & ~pl.col("vendor_system").is_in(LEFT_OUT)
        )
        .to_dicts()
    )
    rows = simulated_rows(catalog, records, lambda doing, _: print(doing, file=sys.stderr, flush=True))
    found = errors(rows, records)
    print(f"| | | {' | '.join(found)} |\n| --- | --- |{' ---: |' * len(found)}")
    for name, (what, of, form) in LINES.items():
        cells = " | ".join(form.format(each[name]).replace("%", " %").replace("  %", " %") for each in found.values())
        print(f"| {what} | {of} | {cells} |")


if __name__ == "__main__":
    main()
