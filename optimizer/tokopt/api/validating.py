"""`validate`: a table of measurements against predictions of the same rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tokopt.calibration.errors import is_known
from tokopt.catalog import Catalog, load_catalog
from tokopt.catalog.measurements import (
    PREDICTED,
    MeasurementTable,
    as_frame,
    checked_measurements,
    read_measurements,
)
from tokopt.domain.validation import COMPARED, DEFAULT_BY, CalibrationUsed, Validation
from tokopt.errors import InputError, unknown_name
from tokopt.version import __version__

from .error_groups import DERIVED, PREFIX, Compared, Labels, both, compare, group, grouped, prefixes
from .progress import Progress, silent
from .second_opinion import MODEL, SILICON, check_perf
from .tables import DATABASE, estimate_many
from .written import write_table

if TYPE_CHECKING:
    import polars as pl

EXTRAPOLATED = PREDICTED + "extrapolated"
EMBEDDED = "the embedded measurements"
SCENARIO = ("scenario", "serving_mode")
DOUBT = ("role", "speculative")
SHOWN_UNKNOWN = 6


def validate(
    table_or_path: Any = None,
    *,
    out: str | Path | None = None,
    by: str | Sequence[str] | None = None,
    prefix: str = "",
    perf: str = MODEL,
    catalog: str | Catalog | None = None,
    progress: Progress = silent,
) -> Validation:
    """Return how far predictions are from a table of measurements.

    Args:
        table_or_path: A CSV or Parquet file, or anything that `polars.DataFrame` takes, in the columns of the
            measurement tables; None = the measurements of the catalog.
        out: File for the table with predictions and, for rows without, reasons; `.parquet` or CSV.
        by: Columns that errors are grouped by; None = system, framework, model, precision and serving mode.
        prefix: Only rows whose id begins with this are looked at.
        perf: Where step times come from: `model`, or `silicon`: NVIDIA's measured operator database.
        catalog: A catalog or an overlay directory.
        progress: Told what is being done.

    Raises:
        InputError: The table cannot be read or compared, `out` not be written, or no row be predicted.
    """
    import polars as pl

    check_perf(perf, (MODEL, SILICON))
    loaded = catalog if isinstance(catalog, Catalog) else load_catalog(catalog)
    said = said_of(table_or_path)
    keep_input(table_or_path, out)
    progress(f"reading {said}", 0.0)
    try:
        table = checked_measurements(frame_of(loaded, table_or_path))
        columns = _columns(by, table)
        chosen = _chosen(table, prefix)
    except InputError as error:
        raise InputError(f"{said}: {error}") from None
    left_out = f"id does not begin with {prefix!r}"
    reasons = [fault if ours else left_out for fault, ours in zip(table.faults, chosen, strict=True)]
    predictions, reasons = _predictions(loaded, table, reasons, perf, progress)
    predicted = [column.name for column in predictions]
    for name in columns:
        if name.startswith(PREDICTED) and name not in predicted:
            raise unknown_name("column to group by", name, predicted)
    if out is not None:
        write_table(table.frame.with_columns(predictions), out)
    compared = compare(table.parsed, predictions, reasons)
    counts = Counter(reason for reason, ours in zip(reasons, chosen, strict=True) if ours and reason)
    if not compared.answered.any():
        raise _nothing_answered(said, counts, out)
    labels = Labels(loaded, [table.parsed, table.frame, pl.DataFrame(predictions)])
    rows = np.flatnonzero(chosen)
    return Validation(
        table=said,
        rows=len(rows),
        answered=int(compared.answered.sum()),
        compared=int(np.any([both(compared, figure) for figure in COMPARED], axis=0).sum()),
        by=columns,
        overall=group({}, rows, compared),
        groups=grouped(columns, labels, rows, compared),
        by_prefix=grouped((PREFIX,), labels, rows, compared),
        by_scenario=grouped(SCENARIO, labels, rows, compared),
        by_role=grouped(DOUBT, labels, rows, compared),
        reasons=dict(counts.most_common()),
        left_out={left_out: len(chosen) - len(rows)} if len(rows) < len(chosen) else {},
        notes=(
            *table.notes,
            *_derived(table, compared),
            *_extrapolated(predictions, compared),
            *_unknown_names(labels, table, rows),
            *_pedigree(loaded, table_or_path, perf),
        ),
        perf=perf,
        databases=_databases(predictions, compared),
        calibration=_calibration_used(loaded),
        catalog_version=loaded.version,
        tokopt_version=__version__,
        points=_points(compared),
    )


# --- the table ---


def said_of(table_or_path: Any) -> str:
    """Return what a table is called in messages."""
    if table_or_path is None:
        return EMBEDDED
    return str(table_or_path) if isinstance(table_or_path, str | Path) else "the table"


def keep_input(table_or_path: Any, out: str | Path | None) -> None:
    """Refuse to write over the table that is read.

    Raises:
        InputError: Both are the same file.
    """
    if out is None or not isinstance(table_or_path, str | Path):
        return
    source, target = Path(table_or_path), Path(out)
    if target.exists() and source.exists() and target.samefile(source):
        raise InputError(f"{out}: is the table that is read; name another file for the predictions")


def frame_of(catalog: Catalog, table_or_path: Any) -> pl.DataFrame:
    """Return the table of a file, of a frame, or of the catalog where none is given."""
    if table_or_path is None:
        return catalog.measurements()
    if isinstance(table_or_path, str | Path):
        try:
            return read_measurements(table_or_path)
        except InputError as error:
            raise InputError(str(error).removeprefix(f"{table_or_path}: ")) from None
    return as_frame(table_or_path)


def _columns(by: str | Sequence[str] | None, table: MeasurementTable) -> tuple[str, ...]:
    if by is None:
        return DEFAULT_BY
    names = tuple(dict.fromkeys(n.strip() for n in (by.split(",") if isinstance(by, str) else by) if n.strip()))
    for name in names:
        if name not in (*table.frame.columns, *DEFAULT_BY) and not name.startswith(PREDICTED):
            raise unknown_name("column to group by", name, table.frame.columns)
    if not names:
        raise InputError("no column to group by; name one or more, like vendor_system,framework")
    return names


def _chosen(table: MeasurementTable, prefix: str) -> NDArray[np.bool_]:
    if not prefix:
        return np.ones(table.frame.height, dtype=bool)
    if "id" not in table.parsed.columns:
        raise InputError("has no column id, which a prefix is of")
    chosen: NDArray[np.bool_] = table.parsed["id"].fill_null("").str.starts_with(prefix).to_numpy()
    if not chosen.any():
        known = sorted({f"{name}:" for name in prefixes(table.parsed)})
        raise InputError(f"no id begins with {prefix!r}; ids begin with {', '.join(known[:12])}")
    return chosen


def _predictions(
    catalog: Catalog, table: MeasurementTable, reasons: Sequence[str], perf: str, progress: Progress
) -> tuple[list[pl.Series], list[str]]:
    """Return the predicted columns for all rows, and why rows have none; only rows without a reason are predicted."""
    import polars as pl

    sound = [number for number, reason in enumerate(reasons) if not reason]
    extra = [name for name in table.frame.columns if name not in table.parsed.columns]
    asked = table.parsed.hstack(table.frame.select(extra))[sound]
    answered = estimate_many(asked, catalog=catalog, measured=True, perf=perf, progress=progress)
    said = list(reasons)
    for number, reason in zip(sound, answered[PREDICTED + "reason"].to_list(), strict=True):
        said[number] = reason or ""
    columns = []
    for name in (name for name in answered.columns if name.startswith(PREDICTED)):
        values: list[Any] = [None] * table.frame.height
        for number, value in zip(sound, answered[name].to_list(), strict=True):
            values[number] = value
        columns.append(pl.Series(name, said if name == PREDICTED + "reason" else values, dtype=answered[name].dtype))
    return columns, said


def _nothing_answered(said: str, counts: Counter[str], out: str | Path | None) -> InputError:
    reason, rows = counts.most_common(1)[0]
    total = sum(counts.values())
    why = f"{reason}" if len(counts) == 1 else f"most often, in {rows:,}: {reason}"
    where = f" (all reasons are in {out})" if out is not None else ""
    return InputError(f"{said}: no row of {total:,} can be predicted: {why}{where}")


# --- what to know about it ---


def _points(compared: Compared) -> tuple[tuple[float, float], ...]:
    measured, predicted = compared.measured[COMPARED[0]], compared.predicted[COMPARED[0]]
    rows = is_known(measured) & is_known(predicted)
    return tuple(zip(measured[rows].tolist(), predicted[rows].tolist(), strict=True))


def _derived(table: MeasurementTable, compared: Compared) -> list[str]:
    if DERIVED not in table.parsed.columns:
        return []
    given = table.parsed[DERIVED].is_not_null()
    if COMPARED[0] in table.parsed.columns:
        given &= table.parsed[COMPARED[0]].is_null()
    rows = int((given.to_numpy() & both(compared, COMPARED[0])).sum())
    return [f"throughput of {_rows(rows)} is derived from latencies, not measured"] if rows else []


def _extrapolated(predictions: Sequence[pl.Series], compared: Compared) -> list[str]:
    flags = next((column for column in predictions if column.name == EXTRAPOLATED), None)
    if flags is None:
        return []
    outside = np.array([flag is True for flag in flags.to_list()]) & compared.answered
    said = f"{_rows(int(outside.sum()))} of {compared.answered.sum():,} predicted are outside the calibrated range"
    return [f"{said} (--by {EXTRAPOLATED} sets them apart)"] if outside.any() else []


def _databases(predictions: Sequence[pl.Series], compared: Compared) -> dict[str, int]:
    """Return the parts of the operator database that answered, with the rows of each."""
    used = next((column for column in predictions if column.name == DATABASE), None)
    if used is None:
        return {}
    counts = Counter(name for name, ours in zip(used.to_list(), compared.answered, strict=True) if ours and name)
    return dict(counts.most_common())


def _rows(count: int) -> str:
    return f"{count:,} {'row' if count == 1 else 'rows'}"


def _unknown_names(labels: Labels, table: MeasurementTable, rows: NDArray[np.intp]) -> list[str]:
    """Return one line for each kind of name that the catalog does not have, with the rows that use it."""
    notes = []
    for column, kind in (("vendor_system", "accelerators"), ("model", "models"), ("framework", "frameworks")):
        texts = table.parsed[column].to_list()
        used = Counter(texts[row] for row in rows.tolist() if texts[row])
        unknown = [(name, count) for name, count in used.most_common() if not labels.name(column, name)]
        if unknown:
            some = ", ".join(f"{name} ({count:,})" for name, count in unknown[:SHOWN_UNKNOWN])
            more = f" and {len(unknown) - SHOWN_UNKNOWN} more" if len(unknown) > SHOWN_UNKNOWN else ""
            total = sum(count for _, count in unknown)
            verb = "names" if total == 1 else "name"
            notes.append(f"{_rows(total)} {verb} {kind} that the catalog does not have: {some}{more}")
    return notes


def _pedigree(catalog: Catalog, table_or_path: Any, perf: str) -> list[str]:
    if perf != MODEL:
        return [
            "step times are the operator database's, which is fitted to none of these rows; what is made of them "
            "(batching, queueing, time outside the engine) has the constants of the calibration"
        ]
    if catalog.calibration.fitted and table_or_path is None:
        return ["the constants were fitted to published measurements; errors on rows among these are in-sample"]
    return []


def _calibration_used(catalog: Catalog) -> CalibrationUsed:
    made = catalog.calibration
    return CalibrationUsed(
        name=made.name,
        version=made.version,
        made_on=made.made_on,
        fitted=made.fitted,
        data_hash=made.data_hash,
    )
