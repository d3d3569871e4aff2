"""Tuning of plans: which knobs were turned, what came of it in simulation, and how sure that is."""

from __future__ import annotations

from enum import StrEnum, unique

from pydantic import BaseModel, ConfigDict, Field

from tokopt.domain.estimates import Record
from tokopt.domain.plans import Plan

MOST_TRIALS = 100_000


@unique
class KnobName(StrEnum):
    """What may be tuned of a replica, or of the router in front of all."""

    MAX_BATCH = "max_batch"  # most requests in service; what they leave of the cache's memory is for prefixes
    CHUNK = "chunk"  # token budget of a step that prefills
    SPECULATION = "speculation"  # draft tokens a step
    POOLS = "pools"  # workers of the prefill and the decode pool, on the same accelerators
    ROUTER = "router"
    OFFLOAD = "offload"  # where prefixes go that memory has no room for
    POWER_CAP = "power_cap"  # power setting of the accelerator


@unique
class Aim(StrEnum):
    """What is made best."""

    COST = "cost"  # USD per million output tokens at the highest rate that keeps the limits
    GOODPUT = "goodput"  # share of requests within all limits at the planned rate
    P99 = "p99"  # worst 99th percentile of a limited latency over its limit, at the planned rate
    ENERGY = "energy"  # joules at the servers per output token, at the highest rate that keeps the limits

    @property
    def maximised(self) -> bool:
        """Whether more of it is better."""
        return self is Aim.GOODPUT


@unique
class Sampler(StrEnum):
    """What proposes settings."""

    TPE = "tpe"
    NSGA2 = "nsga2"
    RANDOM = "random"


@unique
class TrialState(StrEnum):
    """What became of a trial."""

    COMPLETE = "complete"
    PRUNED = "pruned"  # stopped early, or settings that are not possible
    FAILED = "failed"


class TuningSettings(BaseModel):
    """Everything that decides a tuning of a plan."""

    model_config = ConfigDict(frozen=True, defer_build=True, extra="forbid")

    trials: int = Field(default=40, ge=1, le=MOST_TRIALS)  # of the study in all, of each item
    time_limit_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)  # of the search, of all items
    knobs: tuple[KnobName, ...] = ()  # empty = all that the plan has
    objectives: tuple[Aim, ...] = Field(default=(Aim.COST, Aim.GOODPUT, Aim.P99), min_length=1)  # the first decides
    sampler: Sampler = Sampler.TPE
    item: int | None = Field(default=None, ge=1)  # of the fleet, counted from 1; None = each
    requests: int = Field(
        default=10_000, ge=200, le=100_000_000
    )  # that are measured in one replication of the last test
    replications: int = Field(default=8, ge=2, le=1000)
    seed: int = Field(default=0, ge=0, lt=2**31)
    simulator_alone: bool = False  # limits need not hold by the closed-form model


class Sure(Record):
    """A figure from independent replications."""

    value: float
    plus_minus: float | None  # half of its confidence interval; None = it cannot be told


class KnobRange(Record):
    """A knob of an item, and what it may be set to."""

    name: str
    sets: str  # what that is in the plan
    values: tuple[str, ...]
    planned: str


class TunedSettings(Record):
    """What a replica and its router are set to."""

    concurrency_per_replica: int
    chunk_tokens: int
    speculation_depth: int
    prefill_workers: int | None  # None = one pool
    decode_workers: int | None
    router: str
    kv_offload: str | None  # None = nothing repeats
    accelerator: str


class TuningTrial(Record):
    """One trial."""

    number: int
    state: TrialState
    reason: str  # why it was stopped, or failed; empty = it was not
    settings: TunedSettings | None  # None = not possible
    values: dict[str, float]  # figure by aim, in the longest look that it was given
    requests_per_s: float | None  # of a replica, the highest that keeps the limits
    rungs: int  # how many looks it was given
    requests: int  # simulated
    worker: int  # of the study, counted from 0
    front: bool  # no other complete trial is better in one aim and worse in none


class TestedSettings(Record):
    """What settings do over independent replications with seeds that no trial has seen."""

    settings: TunedSettings
    load: Sure  # highest that keeps the limits, over the planned
    requests_per_s: Sure  # of a replica, the same
    usd_per_million_output_tokens: Sure  # at that rate
    goodput: Sure  # at the planned rate
    p99: Sure  # worst over its limit
    ttft_p99_ms: Sure | None  # None = overloaded there
    tpot_p99_ms: Sure | None
    joules_per_output_token: Sure | None  # None = not known
    model_requests_per_s: float  # of a replica, the highest that keeps the limits by the closed-form model


class Importance(Record):
    """How much of what the trials differ by a knob explains; over all knobs it is 1."""

    knob: str
    share: float


class ItemTuning(Record):
    """What came of tuning an item of the fleet."""

    item: int  # counted from 1
    accelerator: str
    offer: str
    setup: str
    replicas: int
    improved: bool
    planned_requests_per_s: float  # of a replica
    planned: TestedSettings
    tuned: TestedSettings  # the same where nothing better was found
    gain: Sure  # in the first aim, relative, of paired replications; positive = better
    confidence: float
    units_needed: tuple[int, int] | None  # before and after, at what each keeps; None where the rate is not given
    knobs: tuple[KnobRange, ...]
    settings_possible: int
    exhausted: bool  # all of them were tried
    trials: tuple[TuningTrial, ...]
    complete: int
    pruned: int
    failed: int
    repeats: int  # proposals that had been tried
    refused: dict[str, int]  # proposals that nobody looked at, and why
    rejected: tuple[str, ...]  # what looked better in the search and was not
    importance: tuple[Importance, ...]


class StudyWorker(Record):
    """A process that worked on a study."""

    number: int  # in the order of coming
    item: int  # whose trials it made
    seed: tuple[int, ...]
    trials: int


class StudyRecord(Record):
    """Where trials are kept."""

    location: str  # without passwords
    name: str
    resumed: bool  # it had trials before
    workers: tuple[StudyWorker, ...]
    search_seeds: tuple[int, ...]  # of simulations in the search: the same for all trials
    test_seeds: tuple[int, ...]  # of those that the answer rests on


class TuningProvenance(Record):
    """What a tuning was made with."""

    tokopt_version: str
    optuna_version: str
    catalog_version: str
    calibration: str
    plan_version: str  # of tokopt that made the plan


class Tuning(Record):
    """The best settings that were found for a plan, which are its own unless others are better for sure."""

    plan: str  # where it came from
    improved: bool
    items: tuple[ItemTuning, ...]
    usd_per_million_output_tokens_planned: float  # as the plan states it
    usd_per_million_output_tokens_before: float  # at the highest rates that keep the limits in simulation
    usd_per_million_output_tokens: float
    output_tokens_per_s_before: float
    output_tokens_per_s: float
    stopped_early: str  # why fewer trials were made than asked for; empty = they were not
    notes: tuple[str, ...]  # where model and simulator do not agree, and what follows
    tuned_plan: Plan
    study: StudyRecord
    settings: TuningSettings
    assumptions: tuple[str, ...]
    provenance: TuningProvenance
