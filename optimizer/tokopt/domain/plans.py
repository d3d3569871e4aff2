"""Requests and plans: the records that the Python API takes and returns, and that plan files hold."""

from __future__ import annotations

from enum import StrEnum, unique

from pydantic import BaseModel, ConfigDict, Field

from tokopt.domain.deployments import Deployment, Pool, ServingMode
from tokopt.domain.estimates import Interval, LatencyMs, MemoryGib, Record
from tokopt.domain.workloads import Sla


@unique
class Status(StrEnum):
    """What is known of a plan."""

    OPTIMAL = "optimal"  # no plan over the same columns is better, proven to the stated gap
    FEASIBLE = "feasible"  # meets every limit; the search for a better one was cut short
    INFEASIBLE = "infeasible"  # proven: nothing meets every limit


@unique
class Objective(StrEnum):
    """What a plan makes best."""

    COST = "cost"  # USD an hour for a given demand, USD per million tokens when filling the power
    THROUGHPUT = "throughput"  # tokens a second within power, budget and inventory


@unique
class PowerBasis(StrEnum):
    """Where a power limit is measured."""

    UTILITY = "utility"  # everything up to the utility feed, provisioned
    IT = "it"  # nameplate of the servers


class WorkloadShape(BaseModel):
    """A workload as a request states it, resolved from the catalog so that a plan can be solved again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    input_tokens: float = Field(gt=0, allow_inf_nan=False)
    output_tokens: float = Field(gt=0, allow_inf_nan=False)
    input_cv: float = Field(default=0.0, ge=0, le=10, allow_inf_nan=False)
    output_cv: float = Field(default=0.0, ge=0, le=10, allow_inf_nan=False)
    prefix_share: float = Field(default=0.0, ge=0, le=1, allow_inf_nan=False)
    arrival_cv2: float = Field(default=1.0, ge=0, le=1000, allow_inf_nan=False)


class PlanRequest(BaseModel):
    """Everything that decides a plan. Names are the catalog's canonical ones."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    llm: str
    workload: WorkloadShape
    sla: Sla
    ttft_by_default: bool = False  # the TTFT limit was not given: it is tokopt's default for the prompt length
    power_kw: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    power_basis: PowerBasis = PowerBasis.UTILITY
    demand_requests_per_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)  # None = fill the power
    budget_usd_per_hour: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    objective: Objective = Objective.COST
    prices: tuple[str, ...]
    rates: dict[str, float] = Field(default_factory=dict)  # currency of prices -> US dollars for one
    regions: tuple[str, ...] = ()
    markets: tuple[str, ...] = ()
    accelerators: tuple[str, ...] = ()  # empty = all that have a price
    excluded_accelerators: tuple[str, ...] = ()
    frameworks: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ()
    kv_precisions: tuple[str, ...] = ()
    modes: tuple[ServingMode, ...] = ()
    most_accelerator_types: int | None = Field(default=None, ge=1)
    inventory: dict[str, int] = Field(default_factory=dict)  # accelerator -> most accelerators to be had
    robust: float = Field(default=0.0, ge=0, lt=0.9)  # share by which throughput may fall short of the prediction
    time_limit_s: float = Field(default=60.0, gt=0, allow_inf_nan=False)
    gap_target: float = Field(default=1e-6, ge=0, lt=1)
    catalog: str | None = None  # overlay directory


class FleetItem(Record):
    """Replicas of one set-up on one offer."""

    accelerator: str
    provider: str
    region: str
    market: str
    instance_type: str
    model: str
    precision: str
    kv_precision: str
    framework: str
    mode: ServingMode
    deployment: Deployment  # the whole set-up of one replica, as the other commands take it
    tp: int | None  # of the decode pool where disaggregated
    pp: int | None
    ep: int | None
    dp: int | None
    prefill: Pool | None = None
    decode: Pool | None = None
    features: dict[str, int | float | str | bool]  # what is switched on, with its setting
    concurrency_per_replica: int  # most requests in service at a time: the running cap
    mean_running_per_replica: float
    load: float  # arrival rate over saturation
    replicas: int
    gpus: int
    gpus_per_replica: int
    units: int  # instances, nodes or racks bought whole
    gpus_per_unit: int
    nodes: int
    usd_per_unit_hour: float
    usd_per_hour: float
    power_kw: float | None  # on the request's basis
    provisioned_kw: float | None
    rated_kw: float | None
    drawn_kw: float | None
    requests_per_s: float
    output_tokens_per_s: float
    capacity_requests_per_s: float  # of one replica within the SLA
    share_of_traffic: dict[str, float]
    ttft_ms: LatencyMs
    tpot_ms: LatencyMs
    e2e_ms: LatencyMs
    memory_gib: MemoryGib
    bottleneck: str
    price_source: str
    price_as_of: str
    price_flags: tuple[str, ...] = ()  # doubts about the price


class Binding(Record):
    """A constraint that holds the plan back."""

    constraint: str
    detail: str
    slack: float


class Marginal(Record):
    """What one more unit of something scarce is worth."""

    of: str
    unit: str
    output_tokens_per_s: float | None
    usd_per_hour: float | None
    usd_per_million_output_tokens: float | None
    note: str


class RunnerUp(Record):
    """The best plan without the winner's accelerator."""

    without: str
    accelerators: dict[str, int]
    usd_per_million_output_tokens: float
    usd_per_hour: float
    output_tokens_per_s: float
    tokens_per_s_per_mw: float | None
    worse_by: float  # relative, in the objective


class NearestFeasible(Record):
    """What would have to give for a plan to exist."""

    constraint: str
    requested: str
    nearest: str
    detail: str


class SearchCounts(Record):
    """What was looked at to find the columns."""

    deployments_considered: int
    did_not_fit: int
    missed_limits: int
    evaluated_with_queueing: int
    columns: int


class Provenance(Record):
    """What a plan was made with."""

    tokopt_version: str
    catalog_version: str
    calibration: str
    calibration_made_on: str
    calibration_summary: str
    constants_origin: str  # weakest origin among the constants used
    price_lists: tuple[str, ...]
    prices_as_of: str  # oldest to newest date of the lists
    used_prices_as_of: str = ""  # the same of the offers in the fleet
    rejected_price_rows: dict[str, int]
    solver: str
    seed: int
    sources: dict[str, str]


class Plan(Record):
    """A fleet, what it costs and delivers, and how sure that is."""

    status: Status
    gap: float | None
    usd_per_million_output_tokens: float | None
    usd_per_million_total_tokens: float | None
    usd_per_hour: float | None
    output_tokens_per_s: float | None
    total_tokens_per_s: float | None
    requests_per_s: float | None
    power_kw: float | None
    power_limit_kw: float | None
    power_basis: PowerBasis
    it_power_kw: float | None
    drawn_power_kw: float | None
    tokens_per_s_per_mw: float | None
    fleet: tuple[FleetItem, ...]
    binding: tuple[Binding, ...]
    marginal: tuple[Marginal, ...]
    runner_up: RunnerUp | None
    interval: dict[str, Interval]
    extrapolated: bool
    nearest_feasible: tuple[NearestFeasible, ...] = ()
    excluded: dict[str, str]  # accelerator -> why it could not be used
    assumptions: tuple[str, ...]
    search: SearchCounts
    request: PlanRequest
    provenance: Provenance
