"""Requests and plans: the records that the Python API takes and returns, and that plan files hold."""

from __future__ import annotations

from enum import StrEnum, unique
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from tokopt.domain.demand import CurrentUnits, PlanPeriod, Survive, WorkloadClass, WorkloadShape
from tokopt.domain.deployments import Deployment, Pool, ServingMode
from tokopt.domain.estimates import Interval, LatencyMs, MemoryGib, Record
from tokopt.domain.expert_traffic import UNIFORM
from tokopt.domain.features import Feature
from tokopt.domain.verifying import CapacityCut, Verification
from tokopt.domain.workloads import Limited, Sla


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
    PROFIT = "profit"  # what tokens earn less what the fleet costs; demand is what could be sold
    POWER = "power"  # least power for a given demand
    CARBON = "carbon"  # least carbon for a given demand


@unique
class PowerBasis(StrEnum):
    """Where a power limit is measured."""

    UTILITY = "utility"  # everything up to the utility feed, provisioned
    IT = "it"  # nameplate of the servers


@unique
class PowerMode(StrEnum):
    """Which power of a fleet a limit counts."""

    PROVISIONED = "provisioned"  # what is set aside for it: the planning figure for everything, or the nameplate
    RATED = "rated"  # nameplate of the servers, with cooling and distribution of the site where utility power counts
    DRAWN = "drawn"  # what it draws, but for a stated chance of more


@unique
class PowerSettings(StrEnum):
    """Which power settings of accelerators a plan may choose besides those that are named."""

    DEFAULT = "default"  # none: boards run at their own limits
    ALL = "all"  # every one that the catalog lists


class PlanRequest(BaseModel):
    """Everything that decides a plan. Names are the catalog's canonical ones."""

    model_config = ConfigDict(frozen=True, defer_build=True, extra="forbid")

    llm: str  # this and what follows: of the first class, where `classes` are given
    workload: WorkloadShape
    sla: Sla
    ttft_by_default: bool = False  # the TTFT limit was not given: it is tokopt's default for the prompt length
    power_kw: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    power_basis: PowerBasis = PowerBasis.UTILITY
    power_mode: PowerMode = PowerMode.PROVISIONED
    exceed: float = Field(default=0.01, gt=0, lt=0.5)  # chance that the fleet draws more than is counted as drawn
    pue: float = Field(default=1.0, ge=1, le=3)  # utility over server power, of rated and drawn power
    power_settings: PowerSettings = PowerSettings.DEFAULT
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
    disabled_features: tuple[Feature, ...] = ()  # to do without
    expert_traffic: str = UNIFORM  # how unlike experts are asked for
    most_accelerator_types: int | None = Field(default=None, ge=1)
    # Accelerator -> most accelerators to be had.
    inventory: dict[str, Annotated[int, Field(ge=0, le=1_000_000_000)]] = Field(default_factory=dict)
    robust: float = Field(default=0.0, ge=0, lt=0.9)  # share by which throughput may fall short of the prediction
    classes: tuple[WorkloadClass, ...] = ()  # several kinds of requests in one plan; empty = the one above
    periods: tuple[PlanPeriod, ...] = ()  # of the horizon; empty = one, the same hour for ever
    then: tuple[Objective, ...] = ()  # made best in this order among the plans that tie in the first objective
    most_spot_share: float | None = Field(default=None, ge=0, le=1)  # of each class's requests
    spot_reserve: float = Field(default=0.0, ge=0, lt=1)  # share of spot capacity kept idle, for interruptions
    survive: Survive = Survive.NOTHING
    most_carbon_kg_per_hour: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    carbon_usd_per_tonne: float = Field(default=0.0, ge=0, allow_inf_nan=False)  # added to what units cost
    most_quality_loss: float | None = Field(default=None, ge=0, le=1)  # of weights and cache; None = unknown is fine
    mixed_pools: bool = False  # prefill and decode pools of a replica may be on different accelerators
    site_power_kw: dict[str, float] = Field(default_factory=dict)  # region or site -> most power there
    current: tuple[CurrentUnits, ...] = ()  # today's fleet
    change_usd_per_gpu: float = Field(default=0.0, ge=0, allow_inf_nan=False)  # of moving one accelerator, once
    change_over_hours: float = Field(default=720.0, gt=0, allow_inf_nan=False)  # that the cost is spread over
    capacity_cuts: tuple[CapacityCut, ...] = ()  # what simulation found to be too much
    limit_margins: dict[str, dict[Limited, Annotated[float, Field(gt=0, le=1)]]] = Field(
        default_factory=dict
    )  # class -> limit -> share of it to plan for
    time_limit_s: float = Field(default=60.0, gt=0, allow_inf_nan=False)
    gap_target: float = Field(default=1e-6, ge=0, lt=1)
    catalog: str | None = None  # overlay directory

    def served_classes(self) -> tuple[WorkloadClass, ...]:
        """Return what has to be served, also where it is one kind of requests only."""
        if self.classes:
            return self.classes
        return (
            WorkloadClass(
                name=self.workload.name,
                llm=self.llm,
                workload=self.workload,
                sla=self.sla,
                ttft_by_default=self.ttft_by_default,
                demand_requests_per_s=self.demand_requests_per_s,
                most_quality_loss=self.most_quality_loss,
            ),
        )

    def class_named(self, name: str) -> WorkloadClass | None:
        """Return a class by name, None where there is none."""
        return next((each for each in self.served_classes() if each.name == name), None)


class ItemPeriod(Record):
    """What an item does in one period."""

    period: str
    units: int
    requests_per_s: float
    load: float
    usd_per_hour: float
    power_kw: float | None


class ItemPart(Record):
    """What an item buys of one offer."""

    pool: str  # "prefill" or "decode"; empty where an item is of one offer
    accelerator: str
    instance_type: str
    units: int
    gpus: int
    gpus_per_unit: int
    nodes: int
    usd_per_unit_hour: float
    carbon_usd_per_unit_hour: float
    usd_per_hour: float  # mean over the horizon
    provisioned_kw: float | None
    rated_kw: float | None
    price_source: str
    price_as_of: str
    price_flags: tuple[str, ...] = ()


class AllToAll(Record):
    """What carrying tokens to their experts and back takes of a decode step, in a replica with its running cap."""

    share: float  # of a step at the cap that waits for it
    hidden_share: float  # of that step, while the other half of the batch computes
    headroom: float  # at the cap, time that accelerators compute over all that the links take
    binds_from: float | None  # requests a GPU from which on it is the largest part of a step; None = at none
    binds_up_to: float | None  # it stops being it there, as latency binds small batches; None = it does not
    answer: str


class FleetItem(Record):
    """Replicas of one set-up on one offer, or on two where the pools are on different accelerators (`parts`).

    Counts, costs and power are of the whole item; accelerator, instance type, unit size and price of a unit are those
    that decode.
    """

    accelerator: str
    provider: str
    region: str
    market: str
    instance_type: str
    model: str
    precision: str
    kv_precision: str
    framework: str
    quality_loss: float | None  # published share of the original's scores that weights and cache lose; None = unknown
    mode: ServingMode
    deployment: Deployment  # the whole set-up of one replica, as the other commands take it
    tp: int | None  # of the decode pool where disaggregated
    pp: int | None
    ep: int | None
    dp: int | None
    cp: int | None = 1  # of the prefill pool where disaggregated
    dcp: int | None = 1
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
    carbon_usd_per_unit_hour: float = 0.0  # at the price of carbon asked for, on top
    usd_per_hour: float
    power_kw: float | None  # on the request's basis, in its mode
    provisioned_kw: float | None
    rated_kw: float | None
    drawn_kw: float | None
    peak_drawn_kw: float | None = None  # its part of what the fleet draws but for the request's chance of exceeding
    requests_per_s: float
    output_tokens_per_s: float
    capacity_requests_per_s: float  # of one replica within the SLA
    share_of_traffic: dict[str, float]  # of a class's requests, by class
    by_period: tuple[ItemPeriod, ...] = ()  # where the plan has periods; the item's other figures are of the fullest
    ttft_ms: LatencyMs
    tpot_ms: LatencyMs
    e2e_ms: LatencyMs
    memory_gib: MemoryGib
    bottleneck: str
    all_to_all: AllToAll | None = None  # None = no tokens travel between decoding ranks
    price_source: str
    price_as_of: str
    price_flags: tuple[str, ...] = ()  # doubts about the price
    parts: tuple[ItemPart, ...] = ()  # by offer, what decodes first; empty = all is of the offer above

    @property
    def of_class(self) -> str:
        """Name of the class that it serves; empty where it names none."""
        return next(iter(self.share_of_traffic), "")

    @property
    def busiest(self) -> ItemPeriod | None:
        """The period that loads its replicas most; None where the plan has no periods."""
        return max((each for each in self.by_period if each.units), key=lambda each: each.load, default=None)

    @property
    def busiest_requests_per_s(self) -> float:
        """What one replica serves in that period: what its latencies and its load are of."""
        busiest = self.busiest
        if busiest is None:
            return self.requests_per_s / self.replicas
        return busiest.requests_per_s / self.replicas_with(busiest.units)

    def replicas_with(self, units: int) -> int:
        """Return how many replicas run on the units of a period; `replicas` is of the one with most of them."""
        return round(self.replicas * units / max(each.units for each in self.by_period))

    @property
    def bought(self) -> tuple[ItemPart, ...]:
        """What the item buys, offer by offer."""
        return self.parts or (
            ItemPart(
                pool="",
                accelerator=self.accelerator,
                instance_type=self.instance_type,
                units=self.units,
                gpus=self.gpus,
                gpus_per_unit=self.gpus_per_unit,
                nodes=self.nodes,
                usd_per_unit_hour=self.usd_per_unit_hour,
                carbon_usd_per_unit_hour=self.carbon_usd_per_unit_hour,
                usd_per_hour=self.usd_per_hour,
                provisioned_kw=self.provisioned_kw,
                rated_kw=self.rated_kw,
                price_source=self.price_source,
                price_as_of=self.price_as_of,
                price_flags=self.price_flags,
            ),
        )


class ClassPlan(Record):
    """What a class of requests gets, and what that costs."""

    name: str
    model: str
    demand_requests_per_s: float | None  # mean over the horizon
    served_requests_per_s: float
    output_tokens_per_s: float
    usd_per_hour: float  # of the replicas that serve it
    usd_per_million_output_tokens: float
    earns_usd_per_hour: float | None  # None = no prices were stated
    gpus: int
    statistic: str
    tpot_limit_ms: float | None
    ttft_limit_ms: float | None
    tpot_ms: float  # the worst of its replicas, at that statistic
    ttft_ms: float


class PeriodPlan(Record):
    """The whole fleet in one period."""

    name: str
    hours: float
    units: int
    gpus: int
    usd_per_hour: float
    power_kw: float | None
    carbon_kg_per_hour: float | None
    requests_per_s: float
    output_tokens_per_s: float


class BreakEven(Record):
    """The price at which an accelerator would enter the plan."""

    accelerator: str
    usd_per_gpu_hour: float | None  # None = at no price above zero
    cheapest_usd_per_gpu_hour: float  # on offer
    exact: bool  # otherwise from the linear relaxation


class Change(Record):
    """How an offer's units differ from today's."""

    accelerator: str
    provider: str
    region: str
    market: str
    instance_type: str
    before: int
    after: int


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
    power_mode: PowerMode = PowerMode.PROVISIONED
    provisioned_power_kw: float | None = None  # everything up to the utility feed
    it_power_kw: float | None  # nameplate of the servers
    drawn_power_kw: float | None  # mean, at the servers
    peak_drawn_power_kw: float | None = None  # at the servers; drawn more with the request's chance of exceeding
    tokens_per_s_per_mw: float | None
    fleet: tuple[FleetItem, ...]
    binding: tuple[Binding, ...]
    marginal: tuple[Marginal, ...]
    runner_up: RunnerUp | None
    classes: tuple[ClassPlan, ...] = ()  # where several were asked for, or what they earn is stated
    schedule: tuple[PeriodPlan, ...] = ()
    break_even: tuple[BreakEven, ...] = ()
    changes: tuple[Change, ...] = ()  # against today's fleet
    profit_usd_per_hour: float | None = None
    carbon_kg_per_hour: float | None = None
    interval: dict[str, Interval]
    extrapolated: bool
    nearest_feasible: tuple[NearestFeasible, ...] = ()
    excluded: dict[str, str]  # accelerator -> why it could not be used
    assumptions: tuple[str, ...]
    search: SearchCounts
    verification: Verification | None = None  # None = it was not simulated
    request: PlanRequest
    provenance: Provenance
