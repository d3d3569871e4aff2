"""What speculation is worth to one deployment, batch by batch."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from tokopt.domain.deployments import Deployment
from tokopt.domain.estimates import EstimateProvenance

_FROZEN = ConfigDict(frozen=True, defer_build=True, extra="forbid")


class SpeculationCell(BaseModel):
    """A number of draft tokens a step, at one batch."""

    model_config = _FROZEN

    depth: int
    tokens_per_step: float
    tpot_ms: float
    output_tokens_per_s_per_gpu: float
    gain: float  # throughput over that without speculation
    fits: bool  # whether the memory of a worker holds the batch


class SpeculationRow(BaseModel):
    """All numbers of draft tokens at one batch."""

    model_config = _FROZEN

    batch: int  # sequences that decode at a time, a worker
    cells: tuple[SpeculationCell, ...]  # by rising depth, from none
    best_depth: int | None  # of those that fit, the one with the most tokens a second; None where nothing fits
    loses: tuple[int, ...]  # depths whose throughput is below that without speculation


class SpeculationTable(BaseModel):
    """Tokens a second and time per output token by batch and draft tokens a step."""

    model_config = _FROZEN

    deployment: Deployment  # without speculation
    speculator: str
    method: str
    workload: str
    domain: str | None
    input_tokens: float
    output_tokens: float
    rows: tuple[SpeculationRow, ...]
    loses_from: int | None  # smallest batch of the table from which on no depth gains; None = some depth always does
    assumptions: tuple[str, ...]
    provenance: EstimateProvenance
