"""Fitted or prior constants of the performance model, with their pedigree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tokopt.domain.accelerators import NumberFormat
from tokopt.domain.provenance import Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class Constants:
    """Efficiencies and overheads for one accelerator, framework and precision. Efficiencies are shares of peak."""

    memory_efficiency: float  # weights streamed from device memory
    kv_efficiency: float  # cache reads
    bf16_efficiency: float  # large matrix products
    fp8_efficiency: float
    fp4_efficiency: float
    int8_efficiency: float
    grouped_gemm_efficiency: float  # experts' products, relative to dense ones
    attention_efficiency: float  # score and value products
    scale_up_efficiency: float
    scale_out_efficiency: float
    scale_up_latency_s: float
    scale_out_latency_s: float
    layer_overhead_s: float  # launches that do not overlap, a layer
    step_overhead_s: float  # scheduler and sampling, a step
    sequence_overhead_s: float  # scheduler and sampling, a running sequence
    request_overhead_s: float  # front end, tokenizer and first scheduling, a request
    expert_imbalance: float  # load of the fullest accelerator over the mean, experts spread
    rank_imbalance: float  # share of a prefill that the other attention ranks wait for
    pipeline_bubble: float  # idle share of an endless pipeline: uneven micro-batches leave stages waiting
    mixing: float  # share of prefill work that rides along in decode steps
    wave_share: float  # synchronisation of closed-loop requests
    reserved_bytes: float  # framework, communication buffers, CUDA graphs
    throughput_log_sd: float  # standard deviation of ln(measured / predicted)
    latency_log_sd: float
    origins: Mapping[str, Origin] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)

    def compute_efficiency(self, number_format: NumberFormat) -> float:
        """Share of the dense peak that large products reach in a format."""
        return {
            NumberFormat.BF16: self.bf16_efficiency,
            NumberFormat.FP8: self.fp8_efficiency,
            NumberFormat.FP4: self.fp4_efficiency,
            NumberFormat.INT8: self.int8_efficiency,
        }[number_format]


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """Constants that replace the base where every trait matches."""

    match: Mapping[str, str]  # accelerator, generation, vendor, framework, precision -> name
    values: Mapping[str, float]
    origin: Origin
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """A set of constants: base values and overrides, later ones winning."""

    name: str
    version: str
    made_on: str
    data_hash: str  # of the measurements that it was fitted to; empty for priors
    summary: str
    base: Mapping[str, float]
    origins: Mapping[str, Origin]
    sources: Mapping[str, str]
    overrides: tuple[Override, ...]
    acceptance: Mapping[str, tuple[float, ...]]  # model or "default" -> chance that draft token i is accepted
    acceptance_sources: Mapping[str, str]
