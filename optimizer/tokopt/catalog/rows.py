"""What the hardware side of a catalog may say: one model a table, in the units that people write.

Each field's description is what the documentation prints; a suffix is the unit, so a wrong unit is an unknown key.
Values that are not known are left out: `null` is refused.
"""

from __future__ import annotations

import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from tokopt.catalog.files import Row
from tokopt.domain.accelerators import NumberFormat, PurchaseUnit, Topology
from tokopt.domain.caching import Reuse
from tokopt.domain.features import Feature
from tokopt.domain.llms import AttentionKind
from tokopt.domain.measurements import PowerMeter, PowerWork
from tokopt.domain.platforms import Stage
from tokopt.domain.power_settings import SettingBasis
from tokopt.domain.speculators import Domain
from tokopt.domain.workloads import Burstiness, Scenario, Statistic


def _refuse_null(value: Any) -> Any:
    if value is None:
        raise PydanticCustomError("null_refused", "a value that is not known is left out")
    return value


Given = BeforeValidator(_refuse_null)
Text = Annotated[str, Field(min_length=1)]
Positive = Annotated[float, Field(gt=0, strict=True)]
Count = Annotated[int, Field(ge=1, strict=True)]
Share = Annotated[float, Field(ge=0, le=1, strict=True)]
NotNegative = Annotated[float, Field(ge=0, strict=True)]
OptionalPositive = Annotated[Positive | None, Given]
OptionalCount = Annotated[Count | None, Given]
Rates = dict[NumberFormat, Positive]


class SourcedRow(Row):
    """A row whose every value can be traced."""

    source: Text = Field(description="Key in sources.yaml that every value of the row comes from")
    sources: dict[str, Text] = Field(default={}, description="Key in sources.yaml of single fields that differ")
    observed_on: datetime.date = Field(description="Day on which the values were read from their source")
    note: str = Field(default="", description="What a reader should know about the values")


class SourceRow(Row):
    """One source (sources.yaml)."""

    title: Text = Field(description="Title of the document or data set")
    publisher: Text = Field(description="Who published it")
    retrieved_on: datetime.date = Field(description="Day on which it was read")
    locator: Text = Field(description="Repository, path and commit, or name of the document")
    note: str = Field(default="", description="Licence, doubts")


class PowerCurveRow(Row):
    """How the power of a board follows its core clock, and the clock the power that a cap leaves."""

    exponent: Annotated[float, Field(ge=1, le=4, strict=True)] = Field(
        description="Power above idle goes with the core clock to the power of this"
    )
    clock_mhz: OptionalPositive = Field(
        default=None, description="Core clock that dense_tflops are quoted at; without it no clock can be locked [MHz]"
    )
    traffic_share: Share = Field(
        description="Of what memory traffic draws above idle, the part that follows the core clock"
    )
    source: Text = Field(description="Key in sources.yaml")
    note: str = Field(default="", description="What a reader should know about the values")


class PowerSettingRow(Row):
    """A power setting that plans may choose: a cap of the board, or a lock of its core clock."""

    cap_w: OptionalPositive = Field(default=None, description="Power cap of the board [W]")
    clock_mhz: OptionalPositive = Field(default=None, description="Core clock that it is locked to [MHz]")
    basis: SettingBasis = Field(description="What the speed under it rests on")
    source: Text = Field(description="Key in sources.yaml")
    note: str = Field(default="", description="What a reader should know about it")


class AcceleratorRow(SourcedRow):
    """One accelerator with the node and rack that it comes in (accelerators/<name>.yaml)."""

    title: Text = Field(description="Name as the vendor writes it")
    vendor: Text = Field(description="Vendor; accelerators of one vendor share priors of efficiency")
    generation: Text = Field(description="Architecture; accelerators of one generation share priors of efficiency")
    aliases: tuple[Text, ...] = Field(default=(), description="Other names that people type")
    price_names: tuple[Text, ...] = Field(default=(), description="Names in price lists")
    per_package: Count = Field(
        default=1, description="Entries of this kind in what price lists count as one: cores of a chip"
    )
    memory_gb: OptionalPositive = Field(default=None, description="Memory as the vendor quotes it [1e9 bytes]")
    memory_gib: OptionalPositive = Field(
        default=None, description="Memory as the driver reports it [GiB]; used instead of memory_gb where given"
    )
    memory_bandwidth_gb_per_s: Positive = Field(description="Peak memory bandwidth [1e9 bytes/s]")
    dense_tflops: Rates = Field(min_length=1, description="Peak dense rate by number format [1e12 FLOP/s]")
    sparse_tflops: Rates = Field(default={}, description="Peak rate with structured sparsity, where quoted")
    scale_up_size: Count = Field(description="Accelerators in one scale-up domain")
    scale_up_gb_per_s: Positive = Field(
        description="Bandwidth of an accelerator inside its scale-up domain, one way [1e9 bytes/s]"
    )
    scale_up_topology: Topology = Field(description="How a scale-up domain is wired")
    scale_out_gbit_per_s: OptionalPositive = Field(
        default=None, description="Network bandwidth of an accelerator between domains, one way [1e9 bit/s]"
    )
    accelerators_per_node: Count = Field(description="Accelerators in one server or tray")
    nodes_per_rack: OptionalCount = Field(default=None, description="Nodes in a rack, where the vendor defines one")
    purchase_unit: PurchaseUnit = Field(description="What is bought and powered as a whole")
    board_w: OptionalPositive = Field(default=None, description="Rated power of the accelerator itself [W]")
    server_w: OptionalPositive = Field(
        default=None, description="Nameplate power of the whole server or rack, per accelerator [W]"
    )
    all_in_kw: OptionalPositive = Field(
        default=None, description="Utility power provisioned for everything, per accelerator [kW]"
    )
    idle_w: OptionalPositive = Field(default=None, description="Power drawn with nothing running [W]")
    host_memory_gb: OptionalPositive = Field(
        default=None, description="Memory of the server's processors, per accelerator [1e9 bytes]"
    )
    host_gb_per_s: OptionalPositive = Field(
        default=None,
        description="Copies from host memory to an accelerator, one way, as measured [1e9 bytes/s]",
    )
    ssd_gb: OptionalPositive = Field(
        default=None, description="Local storage of the server, per accelerator [1e9 bytes]"
    )
    ssd_gb_per_s: OptionalPositive = Field(
        default=None, description="Reads from it, per accelerator, as measured [1e9 bytes/s]"
    )
    ssd_writes_per_day: OptionalPositive = Field(
        default=None, description="Times a day that its drives may be written over for as long as they are warranted"
    )
    power_curve: Annotated[PowerCurveRow | None, Given] = Field(
        default=None, description="How power follows the core clock; caps and locks need it"
    )
    power_settings: tuple[PowerSettingRow, ...] = Field(
        default=(), description="Caps and clock locks that plans may choose"
    )


class PrecisionRow(SourcedRow):
    """How a checkpoint stores and multiplies its weights (precisions.yaml). Bits include scales."""

    title: Text = Field(description="Name in words")
    aliases: tuple[Text, ...] = Field(default=(), description="Other names that people type")
    ffn_bits: Positive = Field(description="Bits an element of dense and expert feed-forward weights")
    attention_bits: Positive = Field(description="Bits an element of projections of ordinary attention")
    latent_attention_bits: Positive = Field(description="Bits an element of projections of latent attention (MLA)")
    other_bits: Positive = Field(description="Bits an element of embeddings, output head, router and norms")
    ffn_compute: NumberFormat = Field(description="Format that feed-forward matrices multiply in")
    attention_compute: NumberFormat = Field(description="Format that attention projections multiply in")
    latent_attention_compute: NumberFormat = Field(description="The same for latent attention (MLA)")
    fallback_compute: NumberFormat = Field(description="Format used where the accelerator lacks the one above")
    weight_only: Annotated[bool, Field(strict=True)] = Field(
        description="Weights are dequantised before they are multiplied"
    )
    converted_for: tuple[Text, ...] = Field(
        default=(), description="Vendors for whose accelerators published checkpoints are converted to it"
    )
    default_kv_precision: Text = Field(description="Precision of the KV cache unless told otherwise")


class ExpertTrafficRow(SourcedRow):
    """How unlike the experts of a layer are asked for (expert_traffic.yaml)."""

    title: Text = Field(description="Name in words")
    aliases: tuple[Text, ...] = Field(default=(), description="Other names that people type")
    kind: Literal["published", "assumed"] = Field(description="Whether the load was published")
    experts: OptionalCount = Field(default=None, description="Experts a layer; left out: all are asked for alike")
    expert_parallel: OptionalCount = Field(default=None, description="Accelerators that they were spread over")
    fullest: OptionalPositive = Field(
        default=None, description="Load of the fullest of these over the mean, nothing balanced"
    )


class KvPrecisionRow(SourcedRow):
    """How a KV cache is stored (kv_precisions.yaml)."""

    title: Text = Field(description="Name in words")
    aliases: tuple[Text, ...] = Field(default=(), description="Other names that people type")
    bits: Positive = Field(description="Bits an element, scales included")


class FeatureLimitRow(Row):
    """Where alone a framework has a feature."""

    attention: tuple[AttentionKind, ...] = Field(default=(), description="Kinds of attention that the model may have")
    experts: Annotated[bool, Field(strict=True)] = Field(default=False, description="Mixture-of-experts models only")
    apart: Annotated[bool, Field(strict=True)] = Field(
        default=False, description="Only where prefill and decode have pools of their own"
    )


class FrameworkSupportRow(Row):
    """What a framework supports on a group of accelerators."""

    accelerators: tuple[Text, ...] = Field(min_length=1, description="Names of accelerators that the entry is about")
    precisions: tuple[Text, ...] = Field(min_length=1, description="Weight precisions that it serves there")
    kv_precisions: tuple[Text, ...] = Field(min_length=1, description="Precisions of the KV cache that it has there")
    features: tuple[Feature, ...] = Field(default=(), description="Features that it has there")
    source: Text = Field(description="Key in sources.yaml")
    sources: dict[Feature, Text] = Field(default={}, description="Key in sources.yaml of single features that differ")
    limits: dict[Feature, FeatureLimitRow] = Field(
        default={}, description="Where alone a feature is: `attention` kinds, only with `experts`, only pools `apart`"
    )
    note: str = Field(default="", description="Doubts and limits")


class FrameworkRow(SourcedRow):
    """A serving framework: its defaults, and what it supports where (frameworks.yaml)."""

    title: Text = Field(description="Name as the project writes it")
    aliases: tuple[Text, ...] = Field(default=(), description="Other names that people type")
    memory_fraction: Annotated[float, Field(gt=0, le=1, strict=True)] = Field(
        description="Share of device memory that it fills by default"
    )
    reserved_output: float = Field(
        default=0.0, ge=0, le=1, description="Share of an output's cache that is set aside when a request is admitted"
    )
    max_running_requests: Count = Field(
        description="Requests that one attention-data-parallel rank runs at a time, by default"
    )
    chunk_tokens: Count = Field(description="Token budget of a prefill chunk, by default")
    two_batch_tokens: Annotated[int, Field(ge=2, strict=True)] = Field(
        default=2, description="Tokens of an attention rank from which on two_batch_overlap may be used"
    )
    recommended: Annotated[bool, Field(strict=True)] = Field(
        default=True, description="Whether plans and frontiers may choose it without being told to"
    )
    feature_sources: dict[Feature, Text] = Field(
        default={}, description="Keys in sources.yaml of features that have sources of their own, wherever it has them"
    )
    support: tuple[FrameworkSupportRow, ...] = Field(min_length=1, description="One entry a group of accelerators")


class HostTimeRow(SourcedRow):
    """How long a host takes for a piece of its work for a step, where nothing hides it (host_times.yaml)."""

    title: Text = Field(description="What the host does, in words")
    value_us: Positive = Field(description="Time that it takes [us]")
    low_us: Positive = Field(description="Least of the published figures, on the fastest engine [us]")
    high_us: Positive = Field(description="Most of the published figures, on the slowest engine [us]")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low_us <= self.value_us <= self.high_us:
            raise PydanticCustomError("unordered", "low_us, value_us and high_us rise in this order")
        return self


class ReuseRow(Row):
    """What requests have in common. Either prefixes and turns, or a share with its working set."""

    prefix_tokens: NotNegative = Field(default=0.0, description="Prefix that many requests start with [tokens]")
    prefixes: Annotated[float, Field(ge=1, strict=True)] = Field(
        default=1.0, description="How many such prefixes there are, asked for alike"
    )
    turns: Annotated[float, Field(ge=1, strict=True)] = Field(
        default=1.0, description="Requests of a conversation, mean; each prompt starts with the one before"
    )
    turn_gap_s: OptionalPositive = Field(
        default=None, description="Time from an answer to the next turn, mean; turns need it [s]"
    )
    turn_tokens: OptionalPositive = Field(
        default=None, description="By which prompts grow each turn; left out, evenly from the first [tokens]"
    )
    share: Annotated[Share | None, Given] = Field(
        default=None, description="Share of input tokens that an endless cache finds"
    )
    working_set_tokens: OptionalPositive = Field(
        default=None, description="Tokens that have to stay cached for it; share needs it [tokens]"
    )

    def record(self) -> Reuse:
        """Return the record."""
        return Reuse(
            shared_tokens=self.prefix_tokens,
            shared_prefixes=self.prefixes,
            turns=self.turns,
            turn_gap_s=self.turn_gap_s,
            turn_tokens=self.turn_tokens,
            reusable_share=self.share,
            working_set_tokens=self.working_set_tokens,
        )


class WorkloadRow(SourcedRow):
    """Lengths of requests (workloads.yaml)."""

    title: Text = Field(description="What the workload stands for")
    aliases: tuple[Text, ...] = Field(default=(), description="Other names that people type")
    input_tokens: Positive = Field(description="Mean input tokens a request")
    output_tokens: Positive = Field(description="Mean output tokens a request")
    input_cv: NotNegative = Field(description="Standard deviation of input tokens over their mean")
    output_cv: NotNegative = Field(description="Standard deviation of output tokens over their mean")
    prefix_share: Share = Field(
        default=0.0, description="Share of input tokens whose KV entries are in the prefix cache, whatever it holds"
    )
    reuse: Annotated[ReuseRow | None, Given] = Field(
        default=None,
        description="What repeats, instead of prefix_share: the share that is found follows from the caches",
    )
    arrival_cv2: Annotated[Burstiness, Field(strict=True)] = Field(
        default=1.0, description="Squared coefficient of variation of inter-arrival times; 1 = Poisson"
    )
    domain: Annotated[Domain | None, Given] = Field(
        default=None, description="What the texts are about: decides how well drafts are accepted"
    )


class BenchmarkRow(SourcedRow):
    """Requests of a published benchmark in one scenario, and the latency that it allows (benchmarks.yaml)."""

    title: Text = Field(description="Name in words")
    aliases: tuple[Text, ...] = Field(default=(), description="Other names that people type")
    llm: Text = Field(description="Name of the language model")
    scenario: Scenario = Field(description="How requests arrive: all at once, or at random under limits of latency")
    input_tokens: Positive = Field(description="Mean input tokens a request")
    output_tokens: Positive = Field(description="Mean output tokens a request")
    input_cv: Annotated[NotNegative | None, Given] = Field(
        default=None, description="Standard deviation of input tokens over their mean"
    )
    output_cv: Annotated[NotNegative | None, Given] = Field(
        default=None, description="Standard deviation of output tokens over their mean"
    )
    max_input_tokens: OptionalCount = Field(default=None, description="Most input tokens of a request")
    max_output_tokens: OptionalCount = Field(default=None, description="Most output tokens of a request")
    ttft_ms: OptionalPositive = Field(default=None, description="Limit of the time to first token [ms]")
    tpot_ms: OptionalPositive = Field(default=None, description="Limit of the time per output token [ms]")
    statistic: Statistic = Field(default=Statistic.P99, description="Statistic over requests that limits apply to")


class PowerReadingRow(SourcedRow):
    """Power that was read while an accelerator worked, where no row of a table says it (power_readings.yaml)."""

    title: Text = Field(description="What was read, in words")
    accelerator: Text = Field(description="Name of the accelerator")
    work: PowerWork = Field(description="What kept it busy")
    meter: PowerMeter = Field(description="What the meter saw")
    power_limit_w: OptionalPositive = Field(default=None, description="Power cap of the board, where it binds [W]")
    low_w: Positive = Field(description="Least of what was read, an accelerator [W]")
    high_w: Positive = Field(description="Most of it; the same where one figure was read [W]")


class StageRow(Row):
    """A stage of a model's life that a vendor documents."""

    tools: Text = Field(description="What it is done with, in words")
    source: Text = Field(description="Key in sources.yaml")


class ListedModelsRow(Row):
    """Families of models that a vendor lists."""

    names: Text = Field(description="Names of the families, separated by commas")
    source: Text = Field(description="Key in sources.yaml")


class PlatformRow(SourcedRow):
    """What a vendor documents about its accelerators beyond serving (platforms.yaml).

    A stage that is left out is not documented in the sources read; that does not say that it is impossible.
    """

    title: Text = Field(description="Name in words")
    vendor: Text = Field(description="Vendor of the accelerators, as in their files")
    generations: tuple[Text, ...] = Field(default=(), description="Their generations; none = all of the vendor's")
    stages: dict[Stage, StageRow] = Field(min_length=1, description="Stages of a model's life that are documented")
    listed_models: Annotated[ListedModelsRow | None, Given] = Field(
        default=None, description="Models that are listed as supported"
    )


class SiteRow(SourcedRow):
    """A place that machines stand in (sites.yaml).

    A price or carbon intensity that changes over the day is given by hour instead; the mean of the day is computed.
    """

    title: Text = Field(description="Name in words")
    aliases: tuple[Text, ...] = Field(default=(), description="Other names that people type")
    pue: Annotated[float, Field(ge=1, strict=True)] = Field(description="Power usage effectiveness")
    usd_per_kwh: OptionalPositive = Field(default=None, description="Price of electricity [USD/kWh]")
    usd_per_kwh_by_hour: tuple[Positive, ...] = Field(
        default=(), description="The same by local hour of the day, 24 values [USD/kWh]"
    )
    carbon_g_per_kwh: OptionalPositive = Field(default=None, description="Carbon intensity of electricity [g/kWh]")
    carbon_g_per_kwh_by_hour: tuple[Positive, ...] = Field(
        default=(), description="The same by local hour of the day, 24 values [g/kWh]"
    )


class EconomicsFiguresRow(Row):
    """Published figures of one accelerator, or published ratios of them (challenger over baseline)."""

    usd_per_gpu_hour: Positive = Field(description="Cost of one accelerator for an hour [USD/h]; ratio: increase")
    pflops_per_usd: Positive = Field(description="Peak rate over cost of an hour [1e15 FLOP/s per USD/h]")
    tokens_per_s_per_gpu: Positive = Field(description="Throughput of one accelerator [tok/s]")
    tokens_per_s_per_mw: Positive = Field(description="Throughput over all-in utility power [tok/s/MW]")
    usd_per_million_tokens: Positive = Field(description="Cost of a million tokens [USD]; ratio: decrease")


class EconomicsLineRow(Row):
    """One accelerator of a published comparison."""

    accelerator: Text = Field(description="Name of the accelerator")
    llm: Text = Field(description="Name of the language model")
    precision: Text = Field(description="Name of the precision")
    features: str = Field(default="", description="What else is said of the deployment, in words")
    input_tokens: Positive = Field(description="Input tokens a request, best reading")
    output_tokens: Positive = Field(description="Output tokens a request, best reading")
    tokens_per_s_per_user: Positive = Field(description="Operating point for the model, best reading [tok/s/user]")
    unrounded_tokens_per_s_per_gpu: Positive = Field(
        description="Throughput before rounding, as the other figures imply it [tok/s]"
    )
    peak_format: NumberFormat = Field(description="Number format of the peak rate that was used")
    peak_sparse: Annotated[bool, Field(strict=True)] = Field(
        description="Whether that peak is with structured sparsity"
    )
    published: EconomicsFiguresRow = Field(description="Figures as published, rounded")
    not_named: tuple[Feature, ...] = Field(
        default=(), description="Features that the comparison does not say that it used there"
    )
    note: str = Field(default="", description="Doubts")


class EconomicsRow(SourcedRow):
    """A published comparison of cost per token (published_economics.yaml)."""

    title: Text = Field(description="What is compared")
    published_on: Text = Field(description="Month or day of publication")
    ownership: Text = Field(description="Ownership profile that the cost of an hour comes from")
    token_basis: Literal["total", "output", "input"] = Field(description="Which tokens are counted")
    lines: tuple[EconomicsLineRow, ...] = Field(min_length=2, description="Baseline first, challenger last")
    ratios: EconomicsFiguresRow = Field(description="Challenger against baseline, as published")
