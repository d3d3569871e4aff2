"""Fitted or prior constants of the performance model, with their pedigree."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum, unique

from tokopt.domain.provenance import Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class Constants:
    """Efficiencies and overheads of one deployment's kind, or arrays of them. Efficiencies are shares of peak."""

    memory_efficiency: float  # weights streamed from device memory
    expert_memory_efficiency: float  # experts' weights, relative to that
    kv_efficiency: float  # cache reads
    bf16_efficiency: float  # large matrix products
    fp8_efficiency: float
    fp4_efficiency: float
    int8_efficiency: float
    grouped_gemm_efficiency: float  # experts' products, relative to dense ones
    attention_efficiency: float  # score and value products of decoding
    prefill_attention_efficiency: float  # of prompts
    scale_up_efficiency: float
    scale_out_efficiency: float
    scale_up_latency_s: float  # of a collective between two
    latency_growth: float  # of it, a doubling of the group
    exchange_latency_s: float  # of dispatch or combine of an all-to-all
    scale_out_latency_s: float
    activation_passes: float  # times that a token's hidden vector is read or written a layer, besides the products
    layer_overhead_s: float  # launches that do not overlap, a layer
    expert_layer_overhead_s: float  # on top of it: routing and permuting tokens
    linear_layer_overhead_s: float  # on top of it: recurrent attention
    sparse_layer_overhead_s: float  # on top of it: choosing the tokens that are attended to
    step_overhead_s: float  # scheduler and sampling, a step
    sequence_overhead_s: float  # scheduler and sampling, a running sequence
    request_overhead_s: float  # front end, tokenizer and first scheduling, a request
    expert_imbalance: float  # load of the fullest accelerator over the mean, experts spread
    rank_imbalance: float  # share of a prefill that the other attention ranks wait for
    pipeline_bubble: float  # time that each further stage adds, as a share: uneven micro-batches leave stages waiting
    mixing: float  # share of prefill work that rides along in decode steps
    slowdown: float  # time of a step over the sum of its parts
    wave_share: float  # synchronisation of closed-loop requests
    prefill_wave_share: float  # the same where prefill has a pool of its own
    prefill_pool_efficiency: float  # share of its rate that a pool of prefill workers keeps up
    handover_s: float  # routing and scheduling of a request that changes pools, besides the transfer
    reserved_bytes: float  # framework, communication buffers, CUDA graphs
    memory_bound_power_share: float  # of the span from idle to board power, while memory traffic alone fills a step
    compute_bound_power_share: float  # the same while matrix units alone fill it
    host_power_share: float  # of what a server's nameplate has beyond its boards, drawn whenever it is on
    # Habits of published benchmarks, for rows that leave something out; no prediction of a deployment uses them.
    unlabelled_speculation: float  # tokens beyond the first of a step, where a row may or may not speculate, at C = 64
    unlabelled_decline: float  # -d ln(that) / d ln(C): engines speculate less at high concurrency
    unstated_decode_workers: float  # decode workers of a row that does not say how many
    unstated_prefill_share: float  # prefill workers of such a row, over what its decode workers ask for
    oversubscription: float  # share of requests in flight that wait, where concurrency is not a power of two
    measured_input_tokens: float = math.inf  # the longest prompts and outputs that constants were fitted to
    measured_output_tokens: float = math.inf
    margin: float = 1.0  # of `slowdown`, what was not fitted but asked for: see `Calibration.slower`
    origins: Mapping[str, Origin] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)


# Constants of drawn power: no throughput or latency depends on them.
POWER_SHARES = ("memory_bound_power_share", "compute_bound_power_share", "host_power_share")


@unique
class Link(StrEnum):
    """The scale on which effects of traits add up."""

    LOG = "log"  # ln x, for positive numbers
    LOGIT = "logit"  # ln(x / (1 - x)), for shares
    EXCESS = "excess"  # ln(x - 1), for ratios from one


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One constant before effects: its value, how far it may differ, and its pedigree."""

    value: float
    link: Link
    spread: float  # standard deviation of the prior, on the scale of the link
    effects: Mapping[str, float]  # trait, or traits joined by "+" -> standard deviation of differences
    sd: float | None  # standard deviation of the fit, on the scale of the link; None for a prior
    origin: Origin
    source: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """How one level of a trait shifts a constant, on the scale of its link."""

    constant: str
    trait: str  # "accelerator", "framework+llm" …
    level: str  # "h100_sxm", "vllm+llama-3.1-8b" …
    shift: float
    sd: float
    rows: int  # measurements of that level
    origin: Origin
    source: str


@unique
class Novelty(StrEnum):
    """What of a deployment was never measured, least first."""

    MEASURED = "measured"  # accelerator, framework and model were, together or apart
    NEW_LLM = "new_llm"  # the model was not
    NEW_SYSTEM = "new_system"  # the accelerator or the framework was not


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """Ends of the 80 % range of one figure: factors on the prediction, from residuals of cross-validation."""

    figure: str  # output_tok_s_per_gpu, tpot_ms, ttft_ms
    novelty: Novelty | None  # None = any
    mode: str  # agg, disagg, any
    low: float
    high: float
    rows: int  # residuals that it stands on; 0 = an assumption


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredRange:
    """What the measurements cover that a calibration was fitted to."""

    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # trait -> levels
    numbers: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # input_tokens, … -> least, most


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """A set of constants with the effects of traits, ranges and what they were fitted to."""

    name: str
    version: str
    made_on: str
    data_hash: str  # of the measurements that it was fitted to; empty for priors
    summary: str
    entries: Mapping[str, Entry]
    effects: tuple[Effect, ...]
    intervals: tuple[Interval, ...]
    measured: MeasuredRange
    errors: tuple[Mapping[str, str | float], ...]  # of cross-validation, one row a set of measurements
    acceptance: Mapping[str, tuple[float, ...]]  # model or "default" -> chance that draft token i is accepted
    margin: float = 1.0  # by how much `slowdown` is above what was fitted
    acceptance_sources: Mapping[str, str]
    # constant -> trait -> level -> shift: the effects again, as they are looked up
    shifts: Mapping[str, Mapping[str, Mapping[str, float]]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        shifts: dict[str, dict[str, dict[str, float]]] = {}
        for effect in self.effects:
            shifts.setdefault(effect.constant, {}).setdefault(effect.trait, {})[effect.level] = effect.shift
        object.__setattr__(self, "shifts", shifts)

    @property
    def longest(self) -> Mapping[str, float]:
        """The longest prompts and outputs that were measured, as `Constants` name them; endless for priors. [tokens]"""
        numbers = self.measured.numbers
        return {
            f"measured_{name}": numbers[name][1] if name in numbers else math.inf
            for name in ("input_tokens", "output_tokens")
        }

    @property
    def fitted(self) -> bool:
        """Whether the constants were fitted to measurements."""
        return bool(self.data_hash)

    def slower(self, share: float) -> Calibration:
        """Return the calibration under which every step takes so long that throughput falls by a share of it."""
        if not share:
            return self
        entry, margin = self.entries["slowdown"], 1.0 / (1.0 - share)
        slower = replace(entry, value=entry.value * margin)
        return replace(self, entries={**self.entries, "slowdown": slower}, margin=self.margin * margin)
