"""Where a number comes from."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum, unique


@unique
class Origin(StrEnum):
    """How a number was obtained, weakest last."""

    PUBLISHED = "published"
    FITTED = "fitted"
    PRIOR = "prior"
    EXTRAPOLATED = "extrapolated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One row of `catalogs/sources.yaml`: what a fact's `source` key stands for."""

    key: str
    title: str
    publisher: str
    retrieved_on: str
    locator: str = ""
    note: str = ""
