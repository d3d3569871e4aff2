"""What a deployment is predicted to do."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from tokopt.domain.deployments import Deployment


class Record(BaseModel):
    """A frozen result."""

    model_config = ConfigDict(frozen=True, defer_build=True, extra="forbid")


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


class PoolEstimate(Record):
    """One of the two pools of a replica that prefills and decodes on different accelerators."""

    pool: str  # prefill or decode
    accelerator: str
    accelerators: int
    load: float | None  # the replica's rate over what the pool keeps up
    saturation_requests_per_s: float | None
    memory_gib: MemoryGib  # prefill: while every rank works on a batch of prompts
    power_kw: PowerKw


class OperatorDatabase(Record):
    """The measured operator database that step times were taken from."""

    package: str  # with its version
    system: str
    backend: str
    version: str  # of the backend
    mode: str  # SILICON: measured kernels; HYBRID: the database's own estimates where none was measured
    checkpoint: str  # the model as the database knows it


class EstimateProvenance(Record):
    """Where an estimate's constants come from."""

    calibration: str
    constants_origin: str  # weakest origin among the constants
    constants: dict[str, str]  # constant -> origin and source
    accelerator_sources: dict[str, str]
    llm_source: str
    catalog_version: str
    tokopt_version: str
    operator_database: OperatorDatabase | None = None  # None = step times are the model's own


class SecondOpinion(Record):
    """The answer of another source of step times; everything else is computed as in the estimate next to it."""

    source: str  # as in --perf
    reason: str  # why there is no answer, or what is to be known about it
    overloaded: bool = False
    ttft_ms: LatencyMs | None = None
    tpot_ms: LatencyMs | None = None
    e2e_ms: LatencyMs | None = None
    requests_per_s: float | None = None
    output_tokens_per_s_per_gpu: float | None = None
    saturation_requests_per_s: float | None = None
    difference_percent: dict[str, float] = Field(default_factory=dict)  # figure -> its mean above the estimate's [%]
    operator_database: OperatorDatabase | None = None


class Estimate(Record):
    """What one replica does under a load."""

    deployment: Deployment
    workload: str
    input_tokens: float
    output_tokens: float
    load: str  # how it is loaded: `concurrency 64` or `8 req/s`
    fits: bool
    overloaded: bool
    reason: str  # why there are no figures; empty if there are
    ttft_ms: LatencyMs | None
    tpot_ms: LatencyMs | None
    e2e_ms: LatencyMs | None
    tokens_per_s_per_user: float | None
    requests_per_s: float | None
    output_tokens_per_s_per_gpu: float | None
    total_tokens_per_s_per_gpu: float | None
    running_batch: float | None
    running_cap: int | None
    saturation_requests_per_s: float | None
    memory_gib: MemoryGib | None
    bottleneck: str | None
    bottleneck_shares: dict[str, float]
    power_kw: PowerKw | None
    accelerators: int
    interval: dict[str, Interval]  # empty where step times are not calibrated
    extrapolated: bool
    assumptions: tuple[str, ...]
    provenance: EstimateProvenance
    second_opinion: SecondOpinion | None = None  # where one was asked for
    pools: tuple[PoolEstimate, ...] = ()  # where they are on different accelerators: each of its own
