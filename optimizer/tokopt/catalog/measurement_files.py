"""The catalog's own measurements: `measurements/sources.yaml`, `shared.csv` and one CSV file a family.

A family's file leaves out what all of its rows share; `shared.csv` has that once. The ids in a file lack the family's
name, and the sources what they all begin with.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import Field

from tokopt.catalog.files import Row, read_csv, read_yaml, validate
from tokopt.catalog.measurements import DEPLOYMENT, KNOWN, MEASURED, POWER, TEXTS
from tokopt.catalog.names import checked_name
from tokopt.domain.measurements import Load, MeasurementFamily
from tokopt.errors import CatalogError

if TYPE_CHECKING:
    import polars as pl

FOLDER: Final = "measurements"
SOURCES: Final = "sources.yaml"
SHARED: Final = "shared.csv"
SHARED_COLUMNS: Final = ("family", "column", "value")


class MeasurementFamilyRow(Row):
    """One family of measurements: the rows of `<family>.csv`."""

    title: str = Field(min_length=1, description="What was published")
    publisher: str = Field(min_length=1, description="Who published it")
    locator: str = Field(min_length=1, description="Repository and path, or name of the document")
    observed_on: datetime.date = Field(description="Day on which the figures were read")
    trust: str = Field(min_length=1, description="How far to believe the figures, and why")
    measures: str = Field(min_length=1, description="What was run and which figures are given")
    caveats: str = Field(default="", description="What the rows do not say, or say wrongly")
    weight: float = Field(default=1.0, gt=0, description="How far a fit believes the rows")
    of_today: bool = Field(default=True, description="Whether errors say something of today's deployments")
    load: Load | None = Field(default=None, description="What loads rows with a fixed number of requests")
    era: str = Field(default="", description="Software of its time, where that is not today's: a trait of its rows")
    harnesses: dict[str, str] = Field(default={}, description="Part of a row's source -> how lengths are chosen")


def load_families(folder: Path) -> dict[str, MeasurementFamily]:
    """Return the families that a directory of measurements describes, in its order.

    Raises:
        CatalogError: In one line with file and key.
    """
    path = folder / SOURCES
    content = read_yaml(path)
    if not isinstance(content, Mapping):
        raise CatalogError(f"{path}: a mapping of families to entries is needed, not {type(content).__name__}")
    families = {}
    for key, data in content.items():
        name = checked_name(key, str(path))
        row = validate(MeasurementFamilyRow, data, where=f"{path}: {name}")
        families[name] = MeasurementFamily(
            name=name, **{**row.model_dump(), "observed_on": row.observed_on.isoformat()}
        )
    return families


def load_measurements(folders: Sequence[Path]) -> pl.DataFrame:
    """Return the measurements of directories in the columns of measurement tables; a later directory's family wins.

    Raises:
        CatalogError: A file without an entry, unknown columns, or a cell that is no number, in one line.
    """
    import polars as pl

    home = {family: folder for folder in folders for family in load_families(folder)}
    frames = [_load_family(home[family], family) for family in home]
    empty = pl.DataFrame(schema={name: pl.String if name in TEXTS else pl.Float64 for name in KNOWN})
    return pl.concat([empty.clear(), *frames], how="diagonal")


def _load_family(folder: Path, family: str) -> pl.DataFrame:
    import polars as pl

    path = folder / f"{family}.csv"
    lines = list(read_csv(path))
    names = list(lines[0][1]) if lines else []
    shared = {column: value for (of, column), value in _shared(folder).items() if of == family}
    unknown = [name for name in (*names, *shared) if name not in KNOWN]
    if unknown:
        raise CatalogError(f"{path}: unknown column {', '.join(unknown)} (allowed: {', '.join(KNOWN)})")
    columns: dict[str, list[str | None]] = {name: [cells[name] or None for _, cells in lines] for name in names}
    for column, value in shared.items():
        if column == "source" and column in columns:
            columns[column] = [value + (cell or "") for cell in columns[column]]
        else:
            columns[column] = [value] * len(lines)
    columns["id"] = [f"{family}:{cell}" if cell else None for cell in columns.get("id", [None] * len(lines))]
    frame = pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String))
    numbers = [name for name in frame.columns if name not in TEXTS]
    try:
        return frame.with_columns(pl.col(numbers).cast(pl.Float64))
    except pl.exceptions.InvalidOperationError:
        raise CatalogError(f"{path}: {_first_text(frame, numbers, lines)}") from None


def _first_text(frame: pl.DataFrame, numbers: Sequence[str], lines: Sequence[tuple[int, Mapping[str, str]]]) -> str:
    import polars as pl

    for name in numbers:
        for place in (frame[name].is_not_null() & frame[name].cast(pl.Float64, strict=False).is_null()).arg_true():
            return f"line {lines[place][0]}: {name}: a number is needed, not {frame[name][place]!r}"
    return "a number is needed"


def _shared(folder: Path) -> dict[tuple[str, str], str]:
    path = folder / SHARED
    if not path.is_file():
        return {}
    found = {}
    for line, cells in read_csv(path):
        if set(cells) != set(SHARED_COLUMNS):
            raise CatalogError(f"{path}:{line}: columns {', '.join(SHARED_COLUMNS)} are needed")
        found[cells["family"], cells["column"]] = cells["value"]
    return found


def measurement_problems(folders: Sequence[Path]) -> list[str]:
    """Return what is wrong with the measurements, one readable line a problem."""
    import polars as pl

    described = {family for folder in folders for family in load_families(folder)}
    files = {path.stem: path for folder in folders for path in sorted(folder.glob("*.csv")) if path.name != SHARED}
    problems = [f"{path}: not described in {SOURCES}" for name, path in files.items() if name not in described]
    problems += [f"{FOLDER}/{SOURCES}: {name}: there is no {name}.csv" for name in described if name not in files]
    problems += [
        f"{folder / SHARED}: {family!r} is no family"
        for folder in folders
        for family in dict.fromkeys(of for of, _ in _shared(folder))
        if family not in described
    ]
    if problems:
        return problems
    frame = load_measurements(folders)
    where = pl.concat_str(pl.lit(f"{FOLDER}: "), pl.col("id").fill_null("a row without id"))
    for name in ("id", "source", "vendor_system", "model", "framework"):
        problems += _said(frame, pl.col(name).is_null(), where, f"{name} is missing")
    problems += _said(frame, pl.col("id").is_duplicated() & pl.col("id").is_not_null(), where, "id appears twice")
    positive = [name for name in (*DEPLOYMENT, *MEASURED, *POWER) if name not in ("prefix_share", "mtp_depth")]
    for name in positive:
        bad = (pl.col(name) <= 0) | ~pl.col(name).is_finite()
        problems += _said(frame, bad, where, f"{name} must be a number above zero")
    measured = [pl.col(name).is_null() for name in (*MEASURED, "total_tok_s_per_gpu", "request_rate")]
    return problems + _said(frame, pl.all_horizontal(measured), where, "nothing was measured")


def _said(frame: pl.DataFrame, bad: pl.Expr, where: pl.Expr, problem: str) -> list[str]:
    return [f"{row}: {problem}" for row in frame.filter(bad).select(where).to_series().to_list()]
