"""What a buyer should ask of a platform, answered with numbers: an accelerator with the frameworks that run there."""

from __future__ import annotations

from enum import StrEnum, unique

from tokopt.domain.deployments import Deployment, Layout
from tokopt.domain.estimates import Interval, Record


@unique
class AnswerBasis(StrEnum):
    """What an answer rests on."""

    MODEL = "model"  # tokopt's performance model and price lists
    PUBLISHED = "published"  # somebody measured and published it
    DOCUMENTED = "documented"  # the vendor or project says so


class Case(Record):
    """The best that a platform does under a condition, within the latency limits; figures are None where it cannot."""

    condition: str
    usd_per_million_output_tokens: float | None = None
    usd_per_million_total_tokens: float | None = None
    output_tokens_per_s_per_gpu: float | None = None
    tokens_per_s_per_mw: float | None = None
    deployment: Deployment | None = None
    why_not: str = ""  # why there are no figures


class Gain(Record):
    """One figure with something and without it."""

    condition: str  # under which both were found
    figure: str  # `usd_per_million_output_tokens`, `output_tokens_per_s_per_gpu` or `tokens_per_s_per_user`
    with_it: float | None  # None = nothing meets the condition like that
    without: float | None
    worth: float | None  # 0.2 = a token is 20 % dearer without it, or speed 20 % higher with it
    why_not: str = ""


class PublishedCost(Record):
    """What somebody published of the same model there, at an operating point of their own."""

    title: str
    operating_point: str
    token_basis: str  # which tokens are counted: `total`, `output` or `input`
    usd_per_million_tokens: float
    tokens_per_s_per_gpu: float
    tokens_per_s_per_mw: float
    basis: AnswerBasis = AnswerBasis.PUBLISHED
    sources: tuple[str, ...]


class CostAnswer(Record):
    """What a token costs within the limits, and what power it takes."""

    filled: str  # what the plan fills: 1 MW, or one unit that is bought whole
    best: Case
    interval: Interval | None  # 80 % range of the cost of output tokens
    usd_per_gpu_hour: float | None
    price_note: str  # why there is no price; empty if there is
    utility_kw_per_gpu: float | None  # provisioned, everything up to the feed
    extrapolated: bool  # outside of what the calibration was fitted to
    published: tuple[PublishedCost, ...]
    basis: AnswerBasis = AnswerBasis.MODEL
    sources: tuple[str, ...]


class ExchangePoint(Record):
    """A decode step at a batch: what the all-to-alls take of it."""

    requests_per_gpu: float
    exchange_ms: float  # as far as the step waits for it
    hidden_ms: float = 0.0  # what else it takes while the other half of the step computes
    step_ms: float
    share: float
    headroom: float  # time that accelerators compute over that of the all-to-alls
    binds: bool  # the largest part of the step


class ExchangeReach(Record):
    """All-to-alls of the best wide expert-parallel layout over a number of accelerators."""

    expert_parallel: int
    scale_up_domains: int
    framework: str
    precision: str
    layout: Layout
    speculation_depth: int
    bytes_per_token_and_layer: float  # over an accelerator's links, there and back
    bytes_out_of_domain: float  # of them, out of the scale-up domain
    points: tuple[ExchangePoint, ...]  # by rising batch, up to what memory holds
    most_share: float
    most_share_at: float  # requests a GPU
    least_headroom: float
    share_within_limit: float | None  # at the largest batch within the TPOT limit; None = no batch is
    within_limit_at: float | None  # that batch
    binds_from: float | None  # requests a GPU from which on they are the largest part; None = at no batch
    binds_up_to: float | None  # they stop being it, as it is latency that binds small batches
    answer: str


class ExchangeAnswer(Record):
    """Can the interconnect carry the all-to-all traffic of the model, and from what batch on does it bind?"""

    applies: bool
    why_not: str = ""  # for the model, or for the frameworks there
    inside: ExchangeReach | None = None  # one scale-up domain
    inside_why_not: str = ""
    across: ExchangeReach | None = None  # two of them
    across_why_not: str = ""
    scale_up_gb_per_s: float
    scale_up_size: int
    scale_out_gb_per_s: float | None
    basis: AnswerBasis = AnswerBasis.MODEL
    sources: tuple[str, ...]


class PrecisionAnswer(Record):
    """A weight precision that the platform serves the model in."""

    precision: str
    native: bool  # the checkpoint's own
    multiplies_in: str  # number format of the expert and feed-forward matrices there
    dequantised: bool  # the accelerator lacks the format: weights are stored in it alone
    frameworks: tuple[str, ...]
    case: Case
    saving: float | None  # of the cost against the widest precision there; 0.3 = 30 % cheaper
    quality_loss: float | None  # published share of the score that the weights lose; None = unknown
    kept_wider: str
    basis: AnswerBasis = AnswerBasis.MODEL
    sources: tuple[str, ...]


class FeatureAnswer(Record):
    """A serving feature: supported, used, and what it is worth."""

    feature: str
    title: str
    supported: bool
    frameworks: tuple[str, ...]  # those that have it there
    applies: bool  # to the model
    used: bool | None  # in the best plan; None = there is none, or it does not say
    gains: tuple[Gain, ...]
    note: str = ""
    basis: AnswerBasis = AnswerBasis.MODEL
    sources: tuple[str, ...]


class LongInput(Record):
    """What long prompts cost."""

    input_tokens: int
    case: Case
    ttft_ms: float | None  # of the best set-up, mean


class BehaviourAnswer(Record):
    """The ends of what a platform does: for one user, for all together, and on long prompts."""

    fastest_tokens_per_s_per_user: float
    fastest: Deployment
    fastest_usd_per_million_output_tokens: float | None
    most_output_tokens_per_s_per_gpu: float  # whatever the latency
    most: Deployment
    most_tokens_per_s_per_user: float
    most_usd_per_million_output_tokens: float | None
    longest_input_tokens: int
    longest_input_by_model: bool
    longest_input_ttft_ms: float
    longest: Deployment
    long_inputs: tuple[LongInput, ...]
    basis: AnswerBasis = AnswerBasis.MODEL


class StageAnswer(Record):
    """A stage of a model's life."""

    stage: str
    documented: str  # what it is done with; empty = not documented in the sources of the catalog
    source: str


class LifeCycleAnswer(Record):
    """Stages of a model's life, and models, that the vendor documents."""

    platform: str  # what the row is about; empty = the catalog has none
    stages: tuple[StageAnswer, ...]
    listed_models: str
    note: str
    basis: AnswerBasis = AnswerBasis.DOCUMENTED
    sources: tuple[str, ...]


class ArchitectureAnswer(Record):
    """A kind of architecture, and the catalog's models of it that fit one replica on the platform."""

    architecture: str
    title: str
    models: tuple[str, ...]
    too_large: tuple[str, ...]  # or in no precision that is served there
    basis: AnswerBasis = AnswerBasis.MODEL


class MissingAnswer(Record):
    """Something that other platforms of the catalog have and this one lacks, and what that costs."""

    name: str
    title: str
    platforms: tuple[str, ...]  # accelerators that have it
    measured: str  # how the cost of doing without was found; empty = it was not
    measured_on: str  # accelerator; empty = it was not
    gain: Gain | None
    note: str = ""
    basis: AnswerBasis = AnswerBasis.MODEL
    sources: tuple[str, ...]


class PlatformAudit(Record):
    """The answers of one platform; what cannot be answered is None, and `why_not` says why."""

    accelerator: str
    title: str
    frameworks: tuple[str, ...]
    best_framework: str | None  # that of the best plan
    serves: bool
    why_not: str
    cost: CostAnswer | None
    exchange: ExchangeAnswer | None
    precisions: tuple[PrecisionAnswer, ...]
    features: tuple[FeatureAnswer, ...]
    behaviour: BehaviourAnswer | None
    life_cycle: LifeCycleAnswer
    architectures: tuple[ArchitectureAnswer, ...]
    missing: tuple[MissingAnswer, ...]
    notes: tuple[str, ...]


class AuditSource(Record):
    """What a source key stands for."""

    key: str
    title: str
    publisher: str
    retrieved_on: str


class AuditProvenance(Record):
    """What an audit was made with."""

    tokopt_version: str
    catalog_version: str
    calibration: str
    price_lists: tuple[str, ...]
    prices_as_of: str


class Audit(Record):
    """One page for one platform, or several side by side."""

    model: str
    workload: str
    input_tokens: float
    output_tokens: float
    limits: str  # latency limits, in words
    platforms: tuple[PlatformAudit, ...]
    assumptions: tuple[str, ...]
    sources: tuple[AuditSource, ...]  # of the catalog facts in the answers
    provenance: AuditProvenance

    @property
    def answered(self) -> bool:
        """Whether any of the platforms serves the model at all."""
        return any(platform.serves for platform in self.platforms)
