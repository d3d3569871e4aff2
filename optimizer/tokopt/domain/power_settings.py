"""Power settings of an accelerator: caps of its board, locks of its clock, and the curve that says what they cost."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum, unique

SEPARATOR = "@"  # between an accelerator and a setting of it


@unique
class SettingBasis(StrEnum):
    """What the speed under a setting rests on."""

    PUBLISHED = "published"  # somebody published what the setting costs; the curve agrees with it
    FITTED = "fitted"  # the curve was fitted to runs under the setting
    EXTRAPOLATED = "extrapolated"  # the curve alone: ranges are wider


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerCurve:
    """How the power of a board follows its core clock: P(f) = idle + (board - idle)·(f / clock)^exponent."""

    exponent: float
    clock_hz: float | None  # core clock that the peak rates are quoted at; None = not known: no clock locks
    traffic_share: float  # of what memory traffic draws above idle, the part that follows the core clock
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerSetting:
    """One setting: exactly one of a cap of the board and a lock of the core clock."""

    name: str  # 500w, 1200mhz
    cap_w: float | None
    clock_hz: float | None
    basis: SettingBasis
    source: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Throttle:
    """What a setting does to a board. Without a setting nothing: shares of one, and no more than its own limit."""

    setting: PowerSetting
    hardware: str  # name of the accelerator that is set
    full_board_w: float | None  # the board's own limit, whatever it is capped to
    clock_share: float  # core clock under full arithmetic over the clock without the setting
    products_share: float = 1.0  # of what arithmetic draws above idle without the setting
    traffic_share: float = 1.0  # of what memory traffic draws above idle without the setting
