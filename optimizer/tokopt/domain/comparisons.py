"""Tables that set accelerators or operating points side by side."""

from __future__ import annotations

from enum import StrEnum, unique

from tokopt.domain.deployments import Deployment
from tokopt.domain.estimates import EstimateProvenance, Interval, Record


class FrontierPoint(Record):
    """One operating point that no other beats on both axes."""

    accelerator: str
    deployment: Deployment
    concurrency: float  # requests in flight, one replica
    tokens_per_s_per_user: float
    output_tokens_per_s_per_gpu: float
    total_tokens_per_s_per_gpu: float
    ttft_ms: float  # mean
    tpot_ms: float  # mean
    usd_per_gpu_hour: float | None
    usd_per_million_output_tokens: float | None
    tokens_per_s_per_mw: float | None
    on_overall_frontier: bool  # no point of any accelerator beats it on both axes


class Reach(Record):
    """How far an accelerator goes: the fastest it serves a single user, and the longest prompt that it takes at all."""

    accelerator: str
    fastest_tokens_per_s_per_user: float  # of any deployment, for the workload's lengths
    fastest: Deployment
    longest_input_tokens: int  # that one replica holds with the workload's output
    longest_input_by_model: bool  # the model's context ends there, not the memory
    longest_input_ttft_ms: float  # of that prompt alone, nothing of it cached
    longest: Deployment


class Frontier(Record):
    """Throughput against interactivity, by accelerator."""

    model: str
    workload: str
    input_tokens: float
    output_tokens: float
    points: tuple[FrontierPoint, ...]  # by accelerator, then by rising interactivity
    reach: tuple[Reach, ...]  # of every accelerator with points
    deployments_considered: int
    excluded: dict[str, str]
    price_lists: tuple[str, ...]
    prices_as_of: str
    interval: dict[str, Interval]  # multipliers of the 80 % range of throughput
    extrapolated: bool
    assumptions: tuple[str, ...]
    provenance: EstimateProvenance


@unique
class Basis(StrEnum):
    """Where an economics row's throughput comes from."""

    PUBLISHED = "published"
    MODEL = "model"  # the best at the published speed, with all features
    MODEL_AS_NAMED = "model_as_named"  # without the features that the published line does not name


class EconomicsComparisonRow(Record):
    """What an accelerator-hour buys, from input prices down to tokens."""

    accelerator: str
    basis: Basis
    model: str
    precision: str
    operating_point: str
    usd_per_gpu_hour: float
    pflops_per_usd: float
    pflops_basis: str  # which peak: format, dense or sparse
    tokens_per_s_per_gpu: float
    tokens_per_s_per_mw: float
    usd_per_million_tokens: float
    published: dict[str, float]  # figures as published, to the digits given; empty for model rows
    difference: dict[str, float]  # model rows: relative to the published row of the same accelerator
    deployment: Deployment | None
    source: str


class Economics(Record):
    """Cost per accelerator-hour, FLOPS per dollar and cost per token, side by side."""

    title: str
    published_on: str
    token_basis: str
    rows: tuple[EconomicsComparisonRow, ...]
    ratios: dict[str, dict[str, float]]  # basis -> figure -> ratio of the last to the first accelerator
    published_ratios: dict[str, float]
    prices: str
    prices_as_of: str
    notes: tuple[str, ...]
