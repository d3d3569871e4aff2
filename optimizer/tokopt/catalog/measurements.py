"""Tables of measurements as people have them: read, and every cell that cannot be right turned into a reason.

A row is never dropped. What is wrong with one row becomes its fault; only a table of which no row can be used is an
error.
"""

from __future__ import annotations

import csv
import io
import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tokopt.errors import InputError

if TYPE_CHECKING:
    import polars as pl


class Limits(NamedTuple):
    """What a number in a column may be, beyond which it is a slip or another unit."""

    unit: str
    least: float
    most: float


MEASURED: Final = {
    "ttft_ms": Limits("ms", 1.0, 3.6e6),
    "tpot_ms": Limits("ms", 0.1, 6e4),
    "output_tok_s_per_gpu": Limits("tokens/s/GPU", 1e-3, 1e6),
    "derived_output_tok_s_per_gpu": Limits("tokens/s/GPU", 1e-3, 1e6),
}
POWER: Final = {"power_kw": Limits("kW", 0.01, 2000.0)}  # at the wall, of all accelerators that a row states
_POOLS: Final = ("", "prefill_", "decode_")
# Numbers that describe a deployment and its load; whether they make sense together is for the prediction to say.
DEPLOYMENT: Final = {
    "isl": "tokens",
    "osl": "tokens",
    "concurrency_or_batch": "requests",
    "request_rate": "requests/s",
    "n_gpus": "GPUs",
    "prefix_share": "as a share",
    "mtp_depth": "tokens",
    **{f"{pool}{degree}": "" for pool in _POOLS for degree in ("tp", "pp", "ep", "dp", "cp", "dcp")},
    "prefill_workers": "",
    "decode_workers": "",
}
OTHER_NUMBERS: Final = ("tok_s_user", "total_tok_s_per_gpu")
TEXTS: Final = (
    "id", "source", "vendor_system", "model", "weight_precision", "kv_precision", "framework", "framework_version",
    "serving_mode", "speculative", "scenario", "measured_date", "stat", "role",
)  # fmt: skip
NEEDED: Final = ("vendor_system", "model", "framework", "isl", "osl")
KNOWN: Final = (*TEXTS, *DEPLOYMENT, *MEASURED, *OTHER_NUMBERS, *POWER)
PREDICTED: Final = "predicted_"
_NOTHING: Final = ("", "-", "na", "n/a", "nan", "none", "null")
_LONGEST_TEXT: Final = 300
_SEPARATORS: Final = ",;\t|"
_FIRST_TOKEN_AT_LEAST: Final = 0.5  # of a TPOT: a first token takes a step too
_PARQUET: Final = b"PAR1"
RAGGED: Final = "__cells"  # column: how many cells a row had, where not as many as the header


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasurementTable:
    """A table of measurements, row by row as it was given."""

    frame: pl.DataFrame  # as read, without predictions of an earlier run
    parsed: pl.DataFrame  # the columns that are known, as numbers and stripped texts; unusable cells are null
    faults: tuple[str, ...]  # one a row; empty = sound
    notes: tuple[str, ...]


def read_measurements(path: str | Path) -> pl.DataFrame:
    """Return the table of a CSV or Parquet file, a CSV's cells as texts; separator and byte-order mark are recognised.

    Raises:
        InputError: It cannot be read as a table, in one line.
    """
    import polars as pl

    file = Path(path)
    try:
        content = file.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    if content.startswith(_PARQUET) or file.suffix.lower() in (".parquet", ".pq"):
        try:
            return pl.read_parquet(io.BytesIO(content))
        except (pl.exceptions.PolarsError, OSError, ValueError) as error:
            raise InputError(f"{path}: cannot be read as Parquet: {str(error).splitlines()[0]}") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text (byte {error.start}); CSV or Parquet is needed") from None
    if "\0" in text:
        raise InputError(f"{path}: is no text; CSV or Parquet is needed")
    try:
        return _from_text(text)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _from_text(text: str) -> pl.DataFrame:
    import polars as pl

    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    header = next((line for line in lines.splitlines() if line.strip()), "")
    separator = max(_SEPARATORS, key=header.count)
    reader = csv.reader(io.StringIO(lines), delimiter=separator, strict=True)
    try:
        rows = list(itertools.dropwhile(lambda row: not any(map(str.strip, row)), (row for row in reader if row)))
    except csv.Error as error:
        raise InputError(f"line {reader.line_num}: not well-formed CSV: {error}") from None
    if not rows:
        raise InputError("is empty: a header row and at least one row are needed")
    names = _header(rows)
    doubles = sorted(name for name, count in Counter(names).items() if count > 1 and name)
    if doubles:
        raise InputError(f"column named twice: {', '.join(repr(name) for name in doubles)}")
    width = len(names)
    cells = {
        name: [row[place] if place < len(row) else None for row in rows[1:]] for place, name in enumerate(names) if name
    }
    frame = pl.DataFrame({name: [cell or None for cell in column] for name, column in cells.items()},
                         schema=dict.fromkeys(cells, pl.String))  # fmt: skip
    ragged = [len(row) if len(row) != width else None for row in rows[1:]]
    if any(ragged):
        frame = frame.with_columns(pl.Series(RAGGED, ragged, dtype=pl.Int64))
    return frame


def _header(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the names of columns; one without a name that holds nothing, as spreadsheets append, keeps none."""
    names = [name.strip() for name in rows[0]]
    for place, name in enumerate(names):
        if not name and any(row[place].strip() for row in rows[1:] if place < len(row)):
            names[place] = f"column {place + 1}"
    return names


def checked_measurements(frame: pl.DataFrame) -> MeasurementTable:
    """Return a table with its known columns parsed, and what is wrong with each row.

    Raises:
        InputError: No rows, columns that are needed are missing, or nothing was measured.
    """
    import polars as pl

    ragged = frame[RAGGED].to_list() if RAGGED in frame.columns else [None] * frame.height
    kept = frame.select(name for name in frame.columns if name != RAGGED and not name.startswith(PREDICTED))
    _require_columns(kept.columns)
    if not kept.height:
        raise InputError("has no rows: at least one measurement is needed")
    faults: list[list[str]] = [[] for _ in range(kept.height)]
    for number, cells in enumerate(ragged):
        if cells is not None:
            faults[number].append(f"{cells} cells where the header has {len(kept.columns)} columns")
    columns = []
    for name in (name for name in KNOWN if name in kept.columns):
        if name in TEXTS:
            columns.append(_texts(kept[name], faults))
        else:
            columns.append(_numbers(kept[name], name in OTHER_NUMBERS, faults))
    parsed = pl.DataFrame(columns)
    _check_empty(parsed, faults)
    _check_measured(parsed, faults)
    measured = [name for name in MEASURED if name in parsed.columns]
    if not any(parsed[name].drop_nulls().len() for name in measured) and not any(faults):
        raise InputError(f"nothing was measured: {', '.join(measured)} {_is(measured)} empty in every row")
    return MeasurementTable(
        frame=kept,
        parsed=parsed,
        faults=tuple("; ".join(dict.fromkeys(said)) for said in faults),
        notes=tuple(_notes(frame.columns, parsed)),
    )


def _is(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _require_columns(columns: Sequence[str]) -> None:
    missing = [name for name in NEEDED if name not in columns]
    found = ", ".join(repr(name) for name in columns[:12]) + (" ..." if len(columns) > 12 else "")
    if missing:
        raise InputError(f"missing column {', '.join(missing)}; needed are {', '.join(NEEDED)}; found are {found}")
    if not any(name in columns for name in MEASURED):
        raise InputError(
            f"nothing to compare with: a column {', '.join(MEASURED)} is needed, in those units; found are {found}"
        )


def _texts(column: pl.Series, faults: list[list[str]]) -> pl.Series:

    texts = _written(column).str.strip_chars()
    for number in _where(texts.str.len_chars() > _LONGEST_TEXT):
        faults[number].append(f"{column.name} is a text of {len(texts[number]):,} characters")
    return texts.set((texts == "").fill_null(False), None)


def _numbers(column: pl.Series, lenient: bool, faults: list[list[str]]) -> pl.Series:
    """Return a column as numbers; a cell that is none becomes a fault, unless nothing depends on the column."""
    import polars as pl

    if column.dtype.is_numeric():
        numbers = column.cast(pl.Float64, strict=False)
        numbers = numbers.fill_nan(None)
        wrong = numbers.is_infinite().fill_null(False)
        written = column
    else:
        written = _written(column).str.strip_chars()
        numbers = written.cast(pl.Float64, strict=False)
        given = ~written.str.to_lowercase().is_in(_NOTHING).fill_null(True)
        wrong = given & ~numbers.is_finite().fill_null(False)
        numbers = numbers.set(~given | wrong, None)
    limited = {**MEASURED, **POWER}
    unit = limited[column.name].unit if column.name in limited else DEPLOYMENT.get(column.name, "")
    for number in () if lenient else _where(wrong):
        cell = str(written[number])[:40]
        point = " with a decimal point" if "," in cell else ""
        said = f"{column.name} is {cell!r}; a plain number{point} is needed"
        faults[number].append(
            f"{said}, in {unit}" if unit and not unit.startswith("as ") else f"{said} {unit}".rstrip()
        )
    return numbers


def _written(column: pl.Series) -> pl.Series:
    import polars as pl

    try:
        return column.cast(pl.String, strict=False)
    except pl.exceptions.PolarsError:  # lists and the like
        return pl.Series(column.name, [None if v is None else str(v) for v in column.to_list()], dtype=pl.String)


def _where(mask: pl.Series) -> list[int]:
    return list(mask.fill_null(False).arg_true())


def _check_empty(parsed: pl.DataFrame, faults: list[list[str]]) -> None:
    import polars as pl

    for number in _where(parsed.select(pl.all_horizontal(pl.all().is_null())).to_series()):
        faults[number] = faults[number] or ["empty row"]


def _check_measured(parsed: pl.DataFrame, faults: list[list[str]]) -> None:
    """Find measurements that cannot be right: not positive, absurd, or in another unit."""
    for name, limits in {**MEASURED, **POWER}.items():
        if name not in parsed.columns:
            continue
        for number in _where((parsed[name] < limits.least) | (parsed[name] > limits.most)):
            faults[number].append(_out_of_limits(name, parsed[name][number], limits))
    if {"ttft_ms", "tpot_ms"} <= set(parsed.columns):
        for number in _where(parsed["ttft_ms"] < parsed["tpot_ms"] * _FIRST_TOKEN_AT_LEAST):
            if not faults[number]:
                ttft, tpot = parsed["ttft_ms"][number], parsed["tpot_ms"][number]
                faults[number].append(f"ttft_ms of {ttft:g} is under half of tpot_ms, {tpot:g}: is it in seconds?")


def _out_of_limits(name: str, value: float, limits: Limits) -> str:
    if value <= 0 or not math.isfinite(value):
        return f"{name} is not a positive number: {value:g}"
    low = value < limits.least
    said = (
        f"{name} of {value:g} is {'below' if low else 'above'} {limits.least if low else limits.most:,g} {limits.unit}"
    )
    other = {("ms", True): "seconds", ("kW", False): "watts"}.get((limits.unit, low))
    return f"{said}: is it in {other}?" if other else f"{said}, which is absurd"


def _notes(columns: Sequence[str], parsed: pl.DataFrame) -> Iterator[str]:
    earlier = [name for name in columns if name.startswith(PREDICTED)]
    if earlier:
        yield f"predictions that stood in the table were replaced ({', '.join(earlier[:3])} ...)"
    doubtful = [n for n in columns if n not in KNOWN and n.lower().startswith(("ttft", "tpot", "output_tok"))]
    if doubtful:
        yield f"not read: {', '.join(repr(name) for name in doubtful)}; measured are {', '.join(MEASURED)}"
    if "id" in parsed.columns:
        doubles = [str(key) for key, count in Counter(parsed["id"].drop_nulls().to_list()).items() if count > 1]
        if doubles:
            some = ", ".join(doubles[:3]) + (" ..." if len(doubles) > 3 else "")
            yield f"{len(doubles):,} {'id' if len(doubles) == 1 else 'ids'} on more than one row: {some}"


def as_frame(table: Any) -> pl.DataFrame:
    """Return anything that polars takes for a data frame as one.

    Raises:
        InputError: It is none.
    """
    import polars as pl

    if isinstance(table, pl.DataFrame):
        return table
    try:
        return pl.DataFrame(table, infer_schema_length=None, strict=False)
    except (TypeError, ValueError, pl.exceptions.PolarsError) as error:
        raise InputError(f"not a table: {str(error).splitlines()[0]}") from None
