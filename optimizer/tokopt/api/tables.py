"""`estimate --batch`: predictions for a table of deployments, in the columns of published measurements."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tokopt.catalog import Catalog, load_catalog
from tokopt.errors import InputError

from .progress import Progress, silent
from .row_predictions import predict_records
from .second_opinion import MODEL, SILICON, Databases, check_perf

if TYPE_CHECKING:
    import polars as pl

DATABASE = "predicted_database"
NEEDED = ("vendor_system", "model", "framework", "isl", "osl")


def estimate_many(
    frame: Any,
    *,
    catalog: str | Catalog | None = None,
    measured: bool = False,
    perf: str = MODEL,
    progress: Progress = silent,
) -> pl.DataFrame:
    """Return a frame of deployments with predictions next to it, vectorised over rows that share a machine and model.

    Args:
        frame: A polars frame, or anything that `polars.DataFrame` takes, with the columns of the measurement tables:
            `vendor_system`, `model`, `framework`, `isl`, `osl`, and, where they matter, `weight_precision`,
            `kv_precision`, `tp`, `pp`, `ep`, `dp`, `concurrency_or_batch`, `scenario`, `mtp_depth`, `prefix_share`,
            `prefill_workers`, `prefill_tp` … and `decode_workers`, `decode_tp` ….
        catalog: A catalog or an overlay directory.
        measured: The rows were measured, so they did fit: what they leave out or write down wrongly is filled in by
            what benchmarks do, and `predicted_note` says so.
        perf: Where step times come from: `model`, or `silicon`: NVIDIA's measured operator database (needs the extra
            `silicon`), whose figures have no ranges; `predicted_database` names the part of it that answered.
        progress: Told what is being done.

    Returns:
        The same rows in the same order with `predicted_ttft_ms`, `predicted_tpot_ms`,
        `predicted_output_tok_s_per_gpu`, the ends of the 80 % range of each (`…_low`, `…_high`), `predicted_power_kw`
        (drawn at the wall by the `n_gpus` accelerators, or by one replica where they are not stated), and
        `predicted_reason`: why a row has no prediction, empty if it has one. Rows are never dropped.

    Raises:
        InputError: A column that is needed is missing.
    """
    import polars as pl

    check_perf(perf, (MODEL, SILICON))
    loaded = catalog if isinstance(catalog, Catalog) else load_catalog(catalog)
    table = frame if isinstance(frame, pl.DataFrame) else pl.DataFrame(frame)
    missing = [name for name in NEEDED if name not in table.columns]
    if missing:
        raise InputError(f"missing column {', '.join(missing)}; needed are {', '.join(NEEDED)}")
    databases = None if perf == MODEL else Databases()
    found = predict_records(loaded, table.to_dicts(), measured=measured, progress=progress, databases=databases)
    columns = []
    for name, values in found.figures.items():
        ranged = (("", values), ("_low", found.low[name]), ("_high", found.high[name]))
        columns += [
            pl.Series(f"predicted_{name}{end}", np.round(column, 6), nan_to_null=True) for end, column in ranged
        ]
    columns += [
        pl.Series("predicted_running_batch", np.round(found.running, 6), nan_to_null=True),
        pl.Series("predicted_power_kw", np.round(found.power_kw, 6), nan_to_null=True),
        pl.Series("predicted_extrapolated", found.extrapolated, dtype=pl.Boolean),
    ]
    if databases is not None:
        columns.append(pl.Series(DATABASE, [used or None for used in found.databases], dtype=pl.String))
    columns += [
        pl.Series("predicted_note", [note or None for note in found.notes], dtype=pl.String),
        pl.Series("predicted_reason", found.reasons, dtype=pl.String),
    ]
    return table.with_columns(columns)


def estimate_table(
    path: str | Path,
    out: str | Path,
    *,
    catalog: str | Catalog | None = None,
    perf: str = MODEL,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Predict every row of a CSV file as `estimate_many` does, and write the table with predictions.

    The file is written whole or not at all.

    Returns:
        How many rows there were, how many were answered, and why others were not.

    Raises:
        InputError: The file cannot be read as a table, or the other one not be written.
    """
    import polars as pl

    check_perf(perf, (MODEL, SILICON))
    try:
        frame = pl.read_csv(path, infer_schema_length=None, null_values=[""])
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputError(f"{path}: cannot be read as CSV: {str(error).splitlines()[0]}") from None
    try:
        answered = estimate_many(frame, catalog=catalog, perf=perf, progress=progress)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    target = Path(out)
    partial = target.with_name(target.name + ".partial")
    try:
        answered.write_csv(partial)
        partial.replace(target)
    except OSError as error:
        raise InputError(f"{out}: cannot be written: {error.strerror or error}") from None
    reasons = Counter(r for r in answered["predicted_reason"].to_list() if r)
    return {
        "rows": answered.height,
        "answered": answered.height - sum(reasons.values()),
        "out": str(out),
        "reasons": dict(reasons.most_common()),
    }
