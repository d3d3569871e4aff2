"""Calibration files: fitted or prior constants with their pedigree."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Literal

from pydantic import Field

from tokopt.catalog.files import Row, read_yaml, validate
from tokopt.domain.calibration import Calibration, Constants, Override
from tokopt.domain.provenance import Origin
from tokopt.errors import CatalogError

CONSTANT_NAMES = tuple(f.name for f in fields(Constants) if f.name not in ("origins", "sources"))
# Shares of a peak or of a whole: anything above one is a slip of the pen.
SHARES = {name for name in CONSTANT_NAMES if name.endswith("_efficiency")} | {
    "mixing",
    "wave_share",
    "rank_imbalance",
    "pipeline_bubble",
}
Trait = Literal["accelerator", "generation", "vendor", "framework", "precision"]


class ConstantRow(Row):
    """One constant: its value in SI, how it was obtained and from where."""

    value: float = Field(ge=0)
    origin: Origin
    source: str = Field(min_length=1)
    note: str = ""


class OverrideRow(Row):
    """Constants that replace the base where every trait matches."""

    match: dict[Trait, str] = Field(min_length=1)
    values: dict[str, float] = Field(min_length=1)
    origin: Origin
    source: str = Field(min_length=1)
    note: str = ""


class AcceptanceRow(Row):
    """Chance that draft token i is accepted, all before it being accepted."""

    chances: tuple[float, ...] = Field(min_length=1)
    source: str = Field(min_length=1)
    note: str = ""


class CalibrationRow(Row):
    """A calibration file."""

    name: str
    version: str
    made_on: str
    data_hash: str
    summary: str
    constants: dict[str, ConstantRow]
    overrides: tuple[OverrideRow, ...] = ()
    acceptance: dict[str, AcceptanceRow]


def load_calibration(path: Path) -> Calibration:
    """Return the calibration of a file.

    Raises:
        CatalogError: In one line with file and key: unknown or missing constants, shares above one, no default chances.
    """
    data = read_yaml(path)
    if isinstance(data, dict):
        data = {**data, "made_on": str(data.get("made_on", ""))}
    row = validate(CalibrationRow, data, where=str(path))
    missing = [name for name in CONSTANT_NAMES if name not in row.constants]
    if missing:
        raise CatalogError(f"{path}: constants: missing {', '.join(missing)}")
    _check_values(path, "constants", {name: entry.value for name, entry in row.constants.items()})
    for number, override in enumerate(row.overrides):
        _check_values(path, f"overrides.{number}", override.values)
    for llm, entry in row.acceptance.items():
        if not all(0.0 <= chance < 1.0 for chance in entry.chances):
            raise CatalogError(f"{path}: acceptance.{llm}: chances must lie in 0 to 1, not {list(entry.chances)}")
    if "default" not in row.acceptance:
        raise CatalogError(f"{path}: acceptance: missing default")
    return Calibration(
        name=row.name,
        version=row.version,
        made_on=row.made_on,
        data_hash=row.data_hash,
        summary=row.summary,
        base={name: entry.value for name, entry in row.constants.items()},
        origins={name: entry.origin for name, entry in row.constants.items()},
        sources={name: entry.source for name, entry in row.constants.items()},
        overrides=tuple(
            Override(
                match={str(k): v for k, v in o.match.items()}, values=dict(o.values), origin=o.origin, source=o.source
            )
            for o in row.overrides
        ),
        acceptance={llm: entry.chances for llm, entry in row.acceptance.items()},
        acceptance_sources={llm: entry.source for llm, entry in row.acceptance.items()},
    )


def _check_values(path: Path, where: str, values: dict[str, float]) -> None:
    for name, value in values.items():
        if name not in CONSTANT_NAMES:
            raise CatalogError(f"{path}: {where}: unknown constant {name!r} (allowed: {', '.join(CONSTANT_NAMES)})")
        if name in SHARES and value > 1.0:
            raise CatalogError(f"{path}: {where}.{name}: a share is at most 1, not {value}")
        if name.endswith("_efficiency") and value <= 0.0:
            raise CatalogError(f"{path}: {where}.{name}: must be above 0")
