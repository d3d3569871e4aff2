"""Calibration files: fitted or prior constants with their pedigree."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields
from itertools import groupby
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from tokopt.catalog.files import Row, read_yaml, validate
from tokopt.domain.calibration import Calibration, Constants, Effect, Entry, Interval, Link, MeasuredRange, Novelty
from tokopt.domain.provenance import Origin
from tokopt.errors import CatalogError

CONSTANT_NAMES = tuple(f.name for f in fields(Constants) if f.default is MISSING and f.default_factory is MISSING)
TRAITS = ("accelerator", "generation", "vendor", "framework", "precision", "llm", "harness", "era", "month", "mode")
FIGURES = ("output_tok_s_per_gpu", "tpot_ms", "ttft_ms")
NUMBERS = ("shift", "sd", "rows")  # of an effect, the columns of a table of them
ANY = "any"
MODES = (ANY, "agg", "disagg", "gaps")  # gaps: rows of tables that leave out workers or speculation


class EntryRow(Row):
    """One constant: its value in SI, how far it may differ, how it was obtained and from where."""

    value: float = Field(ge=0)
    link: Link
    spread: float = Field(gt=0)
    effects: dict[str, float] = Field(default_factory=dict)
    sd: float | None = Field(default=None, ge=0)
    origin: Origin
    source: str = Field(min_length=1)
    note: str = ""


class EffectRow(Row):
    """How one level of a trait shifts a constant; a fitted one of the constant's own source is just its numbers."""

    shift: float
    sd: float = Field(gt=0)
    rows: int = Field(default=0, ge=0)
    origin: Origin = Origin.FITTED
    source: str = ""
    note: str = ""

    @model_validator(mode="before")
    @classmethod
    def _numbers(cls, given: Any) -> Any:
        if isinstance(given, list) and len(given) == len(NUMBERS):
            return dict(zip(NUMBERS, given, strict=True))
        return given


class IntervalRow(Row):
    """The 80 % range of one figure as factors on the prediction."""

    figure: str
    novelty: str
    mode: str
    low: float = Field(gt=0, le=1)
    high: float = Field(ge=1)
    rows: int = Field(ge=0)


class AcceptanceRow(Row):
    """Chance that draft token i is accepted, all before it being accepted."""

    chances: tuple[float, ...] = Field(min_length=1)
    source: str = Field(min_length=1)
    note: str = ""


class MeasuredRow(Row):
    """What the measurements cover."""

    names: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    numbers: dict[str, tuple[float, float]] = Field(default_factory=dict)


class CalibrationRow(Row):
    """A calibration file."""

    name: str
    version: str
    made_on: str
    data_hash: str
    summary: str
    fitted_to: dict[str, str | int | float] = Field(default_factory=dict)
    constants: dict[str, EntryRow]
    effects: dict[str, dict[str, dict[str, EffectRow]]] = Field(default_factory=dict)
    intervals: tuple[IntervalRow, ...]
    measured: MeasuredRow = Field(default_factory=MeasuredRow)
    cross_validation: tuple[dict[str, str | int | float], ...] = ()
    acceptance: dict[str, AcceptanceRow]


def load_calibration(path: Path) -> Calibration:
    """Return the calibration of a file.

    Raises:
        CatalogError: In one line with file and key: unknown or missing constants, values outside their link, unknown
            traits or figures, no default chances.
    """
    data = read_yaml(path)
    if isinstance(data, dict):
        data = {**data, "made_on": str(data.get("made_on", "")), "effects": _read_tables(path, data.get("effects", {}))}
    row = validate(CalibrationRow, data, where=str(path))
    _check_names(path, row)
    for name, entry in row.constants.items():
        _check_value(path, name, entry)
    for llm, accepted in row.acceptance.items():
        if not all(0.0 <= chance < 1.0 for chance in accepted.chances):
            raise CatalogError(f"{path}: acceptance.{llm}: chances must lie in 0 to 1, not {list(accepted.chances)}")
    if "default" not in row.acceptance:
        raise CatalogError(f"{path}: acceptance: missing default")
    return Calibration(
        name=row.name,
        version=row.version,
        made_on=row.made_on,
        data_hash=row.data_hash,
        summary=row.summary,
        entries={name: Entry(**entry.model_dump()) for name, entry in row.constants.items()},
        effects=tuple(_effects(row)),
        intervals=tuple(
            Interval(
                figure=i.figure,
                novelty=None if i.novelty == ANY else Novelty(i.novelty),
                mode=i.mode,
                low=i.low,
                high=i.high,
                rows=i.rows,
            )
            for i in row.intervals
        ),
        measured=MeasuredRange(names=row.measured.names, numbers=row.measured.numbers),
        errors=row.cross_validation,
        acceptance={llm: accepted.chances for llm, accepted in row.acceptance.items()},
        acceptance_sources={llm: accepted.source for llm, accepted in row.acceptance.items()},
    )


def _read_tables(path: Path, effects: Any) -> Any:
    """Return effects with the levels of every trait as a mapping, also where they are written as a table."""
    if not isinstance(effects, dict):
        return effects
    return {
        constant: {
            trait: _levels(levels, f"{path}: effects.{constant}.{trait}") if isinstance(levels, str) else levels
            for trait, levels in traits.items()
        }
        if isinstance(traits, dict)
        else traits
        for constant, traits in effects.items()
    }


def _levels(table: str, where: str) -> dict[str, list[str]]:
    """Return the numbers of each level of a table: YAML reads one text much faster than a thousand small lists.

    Raises:
        CatalogError: A line is not a level and its numbers, or a level appears twice.
    """
    levels: dict[str, list[str]] = {}
    for line in table.splitlines():
        level, *numbers = line.split() or [""]
        if len(numbers) != len(NUMBERS):
            raise CatalogError(f"{where}: a line is a level with its {', '.join(NUMBERS)}, not {line!r}")
        if level in levels:
            raise CatalogError(f"{where}: level {level!r} appears twice")
        levels[level] = numbers
    return levels


HEADER = """# Constants of the performance model, fitted to measurements by `{command}`: not edited by hand.
#
# A constant is its value and the sum of the effects of a deployment's traits, on the scale of `link`: log for positive
# numbers, logit for shares, excess (ln(x - 1)) for ratios from one. `spread` is the prior's standard deviation on that
# scale, `sd` the fit's. Fitted effects of a trait are a table: level, shift, sd, number of measurements that it stands
# on; its source is that of the constant. Ranges are factors on a prediction.
"""


def calibration_text(calibration: Calibration, command: str) -> str:
    """Return a calibration as the text of its file."""
    lines = [HEADER.format(command=command).rstrip()]
    for name in ("name", "version", "made_on", "data_hash"):
        lines.append(f"{name}: {_scalar(getattr(calibration, name))}")
    lines += [f"summary: {_scalar(calibration.summary)}", "", "constants:"]
    for name, entry in calibration.entries.items():
        sd = "" if entry.sd is None else f", sd: {_scalar(entry.sd)}"
        effects = "".join(f"{trait}: {_scalar(spread)}, " for trait, spread in entry.effects.items()).rstrip(", ")
        own = f"value: {_scalar(entry.value)}, link: {entry.link.value}, spread: {_scalar(entry.spread)}{sd}"
        pedigree = f"origin: {entry.origin.value}, source: {entry.source}, note: {_scalar(entry.note)}"
        lines.append(f"  {name}: {{{own}, effects: {{{effects}}}, {pedigree}}}")
    lines += ["", "effects:" if calibration.effects else "effects: {}"]
    for constant, of_constant in groupby(calibration.effects, key=lambda effect: effect.constant):
        lines.append(f"  {constant}:")
        for trait, of_trait in groupby(of_constant, key=lambda effect: effect.trait):
            lines += _trait_lines(trait, list(of_trait), calibration.entries[constant].source)
    lines += ["", "intervals:"]
    for i in calibration.intervals:
        novelty = i.novelty.value if i.novelty else ANY
        lines.append(
            f"  - {{figure: {i.figure}, novelty: {novelty}, mode: {i.mode}, low: {_scalar(i.low)}, "
            f"high: {_scalar(i.high)}, rows: {i.rows}}}"
        )
    lines += ["", "measured:", "  names:"]
    for name, levels in calibration.measured.names.items():
        lines.append(f"    {name}: [{', '.join(levels)}]")
    lines.append("  numbers:")
    for name, (low, high) in calibration.measured.numbers.items():
        lines.append(f"    {name}: [{_scalar(low)}, {_scalar(high)}]")
    lines += ["", "cross_validation:" if calibration.errors else "cross_validation: []"]
    for row in calibration.errors:
        lines.append("  - {" + ", ".join(f"{key}: {_scalar(value)}" for key, value in row.items()) + "}")
    lines += ["", "acceptance:"]
    for llm, chances in calibration.acceptance.items():
        given = ", ".join(_scalar(chance) for chance in chances)
        lines.append(f"  {llm}: {{chances: [{given}], source: {calibration.acceptance_sources[llm]}}}")
    return "\n".join(lines) + "\n"


def _trait_lines(trait: str, effects: list[Effect], source: str) -> list[str]:
    """Return the effects of a trait as lines: a table where all are fitted and of the constant's source."""
    rows = [(e, [_scalar(getattr(e, name)) for name in NUMBERS]) for e in effects]
    if all(e.origin is Origin.FITTED and e.source == source for e in effects):
        return [f"    {trait}: |", *(f"      {e.level} {' '.join(numbers)}" for e, numbers in rows)]
    return [
        f"    {trait}:",
        *(
            f"      {e.level}: {{{', '.join(f'{name}: {n}' for name, n in zip(NUMBERS, numbers, strict=True))}, "
            f"origin: {e.origin.value}, source: {e.source}}}"
            for e, numbers in rows
        ),
    ]


def _scalar(value: str | float) -> str:
    """Return a value as YAML writes it, in a form that reads back the same."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, int):
        return str(value)
    text = repr(float(value))
    # YAML 1.1 takes 1e-05 for a text: a point is needed.
    return text.replace("e", ".0e") if "e" in text and "." not in text else text


def _effects(row: CalibrationRow) -> list[Effect]:
    return [
        Effect(
            constant=constant,
            trait=trait,
            level=level,
            shift=effect.shift,
            sd=effect.sd,
            rows=effect.rows,
            origin=effect.origin,
            source=effect.source or row.constants[constant].source,
        )
        for constant, traits in row.effects.items()
        for trait, levels in traits.items()
        for level, effect in levels.items()
    ]


def _check_names(path: Path, row: CalibrationRow) -> None:
    missing = [name for name in CONSTANT_NAMES if name not in row.constants]
    if missing:
        raise CatalogError(f"{path}: constants: missing {', '.join(missing)}")
    for where, names in (("constants", row.constants), ("effects", row.effects)):
        for name in names:
            if name not in CONSTANT_NAMES:
                raise CatalogError(f"{path}: {where}: unknown constant {name!r} (allowed: {', '.join(CONSTANT_NAMES)})")
    used = {trait for entry in row.constants.values() for trait in entry.effects}
    used |= {trait for traits in row.effects.values() for trait in traits}
    for trait in sorted(used):
        for part in trait.split("+"):
            if part not in TRAITS:
                raise CatalogError(f"{path}: effects: unknown trait {part!r} (allowed: {', '.join(TRAITS)})")
    for number, interval in enumerate(row.intervals):
        if interval.figure not in FIGURES:
            raise CatalogError(f"{path}: intervals.{number}: figure is one of {', '.join(FIGURES)}")
        if interval.novelty not in (ANY, *Novelty):
            raise CatalogError(f"{path}: intervals.{number}: novelty is one of {', '.join((ANY, *Novelty))}")
        if interval.mode not in MODES:
            raise CatalogError(f"{path}: intervals.{number}: mode is one of {', '.join(MODES)}")
    for figure in FIGURES:
        if not any(i.figure == figure and i.novelty == i.mode == ANY for i in row.intervals):
            raise CatalogError(f"{path}: intervals: no range of {figure} for any novelty and mode")


def _check_value(path: Path, name: str, entry: EntryRow) -> None:
    limits = {Link.LOG: (0.0, float("inf")), Link.LOGIT: (0.0, 1.0), Link.EXCESS: (1.0, float("inf"))}
    low, high = limits[entry.link]
    if not low < entry.value < high:
        raise CatalogError(f"{path}: constants.{name}: must lie between {low:g} and {high:g}, not {entry.value}")
