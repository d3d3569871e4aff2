"""What a deployment is predicted to do."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """A frozen result."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class LatencyMs(Record):
    """A latency over requests. [ms]"""

    mean: float
    p50: float
    p90: float
    p99: float


class Interval(Record):
    """Ends of the 80 % range of a figure."""

    low: float
    high: float


class MemoryGib(Record):
    """Memory of the fullest accelerator. [GiB]"""

    weights: float
    kv: float
    other: float
    free: float


class PowerKw(Record):
    """Three figures that are never mixed, for the whole replica; None = the catalog lacks what it needs. [kW]"""

    drawn: float | None
    rated: float | None
    provisioned: float | None
