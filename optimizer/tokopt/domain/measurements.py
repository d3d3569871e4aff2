"""Published measurements: what a family of them is, and where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum, unique


@unique
class Load(StrEnum):
    """What loads a deployment while it is measured."""

    CLOSED_LOOP = "closed_loop"  # a constant number of requests in flight
    STATIC_BATCH = "static_batch"  # a batch that starts and ends together
    SATURATION = "saturation"  # as many requests as it takes
    LIMITED = "limited"  # arrivals at the highest rate that keeps latency limits


@unique
class PowerWork(StrEnum):
    """What kept an accelerator busy while its power was read."""

    DECODE = "decode"  # memory traffic alone: decode steps of small batches
    PRODUCTS = "products"  # matrix products alone: prompts, or large batches
    CAPPED = "capped"  # whatever it takes to draw a power cap


@unique
class PowerMeter(StrEnum):
    """What a power meter saw."""

    BOARD = "board"
    SERVER = "server"  # at the wall, with the accelerator's part of the server


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerReading:
    """Power that was read while an accelerator worked. [W], an accelerator"""

    name: str
    title: str
    accelerator: str
    work: PowerWork
    meter: PowerMeter
    power_limit_w: float | None  # of the board, where a cap binds
    low_w: float
    high_w: float
    source: str
    sources: Mapping[str, str]
    observed_on: str
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasurementFamily:
    """Measurements of one publisher and kind; the ids of its rows begin with its name and a colon."""

    name: str
    title: str
    publisher: str
    locator: str
    observed_on: str
    trust: str
    measures: str
    caveats: str
    weight: float = 1.0  # how far a fit believes its rows, against a measurement of one's own
    of_today: bool = True  # False: software so old that its errors say nothing of today's deployments
    load: Load | None = None  # of its rows with a fixed number of requests; None = as their serving mode says
    era: str = ""  # software and hardware of its time, where that is not today's
    harnesses: Mapping[str, str] = field(default_factory=dict)  # part of a row's source -> how its lengths are chosen
