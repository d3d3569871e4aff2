"""Simulations of plans: what decides one, and what came of it."""

from __future__ import annotations

from enum import StrEnum, unique

from pydantic import BaseModel, ConfigDict, Field

from tokopt.domain.estimates import LatencyMs, Record
from tokopt.domain.workloads import Burstiness


@unique
class Arrivals(StrEnum):
    """How requests come."""

    PLANNED = "planned"  # with the variation of times between arrivals that each workload states
    POISSON = "poisson"
    GAMMA = "gamma"  # times between arrivals vary as much as is stated
    CONSTANT = "constant"  # one after another at an even pace
    CLOSED_LOOP = "closed_loop"  # whoever is answered sends the next request at once
    TRACE = "trace"


@unique
class Routing(StrEnum):
    """Which of its replicas a request is sent to."""

    RANDOM = "random"
    ROUND_ROBIN = "round_robin"
    LEAST_LOADED = "least_loaded"  # fewest tokens, of prompts to come and of caches
    SHORTEST_QUEUE = "shortest_queue"  # fewest requests
    KV_AWARE = "kv_aware"  # least to compute before the first token, given what is cached where


@unique
class Split(StrEnum):
    """How a class's requests are dealt out to the items of a fleet that serve it."""

    PLAN = "plan"  # in the proportions of the plan
    TOGETHER = "together"  # by the router, over all of their replicas


@unique
class Verdict(StrEnum):
    """Whether a simulated latency is within its limit, as far as can be told from the runs."""

    KEPT = "kept"
    MISSED = "missed"
    UNSURE = "unsure"  # the limit is within the confidence interval


class SimulationSettings(BaseModel):
    """Everything that decides a simulation of a plan."""

    model_config = ConfigDict(frozen=True, defer_build=True, extra="forbid")

    arrivals: Arrivals = Arrivals.PLANNED
    burstiness: Burstiness | None = None  # of gamma arrivals: squared variation
    load: float = Field(default=1.0, gt=0, le=100, allow_inf_nan=False)  # of the plan's rates
    concurrency: int | None = Field(default=None, ge=1, le=10_000_000)  # of a closed loop, over the whole fleet
    trace: str | None = None
    trace_speed: float = Field(default=1.0, gt=0, allow_inf_nan=False)  # times as fast as it was
    trace_block_tokens: int = Field(
        default=0, ge=0
    )  # of a block whose hash a trace states; 0 = nothing is known to repeat
    router: Routing | None = None  # None = what the plan assumes
    split: Split = Split.PLAN
    requests: int = Field(default=20_000, ge=100, le=1_000_000_000)  # that are measured, in one replication
    replications: int = Field(default=5, ge=1, le=1000)
    seed: int = Field(default=0, ge=0, lt=2**63)
    replicas: int | None = Field(default=None, ge=1)  # most of an item that are simulated; None = chosen
    warm_up_s: float | None = Field(default=None, ge=0, allow_inf_nan=False)  # None = chosen
    period: str = ""  # of a plan that has several; empty = the one with the highest load
    node_mtbf_hours: float | None = Field(default=None, gt=0, allow_inf_nan=False)  # None = nodes do not fail
    spot_interruptions_per_hour: float = Field(default=0.0, ge=0, allow_inf_nan=False)  # of a unit on a spot market
    recovery_s: float = Field(default=600.0, gt=0, allow_inf_nan=False)
    autoscale_target: float | None = Field(default=None, gt=0, le=1)  # of the planned load; None = all run
    autoscale_least: int = Field(default=1, ge=1)  # replicas of an item
    autoscale_delay_s: float = Field(default=300.0, ge=0, allow_inf_nan=False)
    autoscale_every_s: float = Field(default=30.0, ge=0.1, allow_inf_nan=False)


class SimulatedMs(Record):
    """A latency over simulated requests. [ms]"""

    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    plus_minus: dict[str, float]  # half the 95 % confidence interval, from independent replications; empty with one


class SimulatedClass(Record):
    """What a class of requests met."""

    name: str
    completed: int
    rejected: int
    requests_per_s: float
    output_tokens_per_s: float
    goodput: float | None  # share of its requests that were answered within all limits
    within: dict[str, float]  # the same limit by limit: ttft, tpot, e2e
    statistic: str  # that limits are on
    limits_ms: dict[str, float]
    planned_ms: dict[str, float]  # what the plan says of the same statistic
    planned: dict[str, LatencyMs]  # all that the plan says of ttft, tpot and e2e: of the item that is worst at it
    verdicts: dict[str, Verdict]
    ttft_ms: SimulatedMs | None  # None = nothing was answered, or it is overloaded
    tpot_ms: SimulatedMs | None
    itl_ms: SimulatedMs | None
    e2e_ms: SimulatedMs | None
    waits_ms: dict[str, float]  # mean, by what was waited for


class SimulatedItem(Record):
    """What the replicas of one item of the fleet did."""

    accelerator: str
    provider: str
    instance_type: str
    classes: tuple[str, ...]
    replicas: int  # in the plan, or in the period that is simulated
    simulated_replicas: int
    requests_per_s: float  # of all of them
    overloaded: bool
    utilisation: float  # share of time in which steps run
    prefill_utilisation: float | None  # of a prefill pool
    running: float  # mean requests in service of a replica
    slots: int
    drawn_kw: float | None
    running_replicas: float  # mean, where they fail or are scaled: what is paid for


class SimulatedSeries(Record):
    """What went on over time, of the replicas that were simulated in the first replication; one element a bin."""

    time_s: tuple[float, ...]  # start of the bin
    bin_s: float
    arrivals_per_s: tuple[float, ...]
    completions_per_s: tuple[float, ...]
    output_tokens_per_s: tuple[float, ...]
    goodput: tuple[float | None, ...]
    ttft_mean_ms: tuple[float | None, ...]
    ttft_max_ms: tuple[float | None, ...]
    tpot_mean_ms: tuple[float | None, ...]
    tpot_max_ms: tuple[float | None, ...]
    queued: tuple[float | None, ...]
    running: tuple[float | None, ...]
    cache_used: tuple[float | None, ...]  # share
    utilisation: tuple[float, ...]
    replicas_up: tuple[float | None, ...]
    drawn_kw: tuple[float, ...] | None
    preemptions: tuple[float, ...]


class SimulationProvenance(Record):
    """What a simulation was made with."""

    tokopt_version: str
    catalog_version: str
    calibration: str
    plan_version: str  # of tokopt that made the plan
    trace_format: str = ""


class Simulation(Record):
    """What came of requests sent to a plan's replicas."""

    plan: str  # where it came from
    overloaded: bool
    reason: str  # of an overload, or of an early end; empty without
    interrupted: bool  # ended by the user: what there is, is reported
    completed: int
    rejected: int
    goodput: float | None
    utilisation: float
    ttft_ms: SimulatedMs | None
    tpot_ms: SimulatedMs | None
    itl_ms: SimulatedMs | None
    e2e_ms: SimulatedMs | None
    requests_per_s: float  # answered, of the whole fleet
    planned_requests_per_s: float
    output_tokens_per_s: float
    usd_per_hour: float
    usd_per_million_output_tokens: float | None
    usd_per_million_output_tokens_within_sla: float | None
    drawn_power_kw: float | None  # mean, at the servers
    planned_drawn_power_kw: float | None
    mean_in_system: float
    mean_queued: float
    cache_used: float  # mean share of cache that requests hold
    prefix_hit_share: float  # of prompt tokens
    planned_prefix_hit_share: float | None
    preemptions: int
    retried: int  # requests that started anew after a failure
    bottleneck: str
    bottleneck_detail: str
    classes: tuple[SimulatedClass, ...]
    items: tuple[SimulatedItem, ...]
    series: SimulatedSeries
    simulated_share: float  # of the fleet's replicas
    warm_up_s: float
    measured_s: float
    replications: int
    settings: SimulationSettings
    warnings: tuple[str, ...]  # what is to be known before the figures are used
    assumptions: tuple[str, ...]
    provenance: SimulationProvenance
