"""What a calibration run did: the fit, its errors, and where it was written."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

Errors = dict[str, str | int | float]  # split, rows_of, rows; of each figure mean (capped) and median. [%]


class MovedConstant(BaseModel):
    """A base value that the fit moved."""

    model_config = ConfigDict(frozen=True, defer_build=True)

    constant: str
    before: float
    after: float
    prior_sds: float  # how far it moved, in standard deviations of what was believed before


class MovedEffect(BaseModel):
    """An effect that the fit moved: how one level of a trait differs in a constant, on the scale of its link."""

    model_config = ConfigDict(frozen=True, defer_build=True)

    constant: str
    trait: str
    level: str
    before: float
    after: float
    sd: float
    rows: int  # measurements that it stands on
    scale: str  # log, logit or excess


class CalibrationReport(BaseModel):
    """A fit of the constants to a table of measurements."""

    model_config = ConfigDict(frozen=True, defer_build=True)

    name: str
    version: str
    made_on: str
    data_hash: str
    base: str  # name and version that the fit started from
    table: str
    out: str | None
    rows: int
    used: int
    reasons: Mapping[str, int]  # why rows were not used -> how many
    parameters: int
    effects: int  # that are written down
    rounds: int
    seconds: float
    cross_validated: bool
    errors: tuple[Errors, ...]  # of cross-validation, or in-sample where there are too few groups
    errors_before: tuple[Errors, ...]  # of the base on the same rows, before the fit
    moved: tuple[MovedConstant, ...]  # most first
    moved_effects: tuple[MovedEffect, ...]  # most first
    notes: tuple[str, ...]
