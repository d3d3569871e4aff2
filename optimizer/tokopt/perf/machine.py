"""What one accelerator sustains under one framework and precision: peak rates times efficiencies, and overheads."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tokopt.domain.accelerators import Accelerator, Framework, NumberFormat, Precision, Topology
from tokopt.domain.calibration import Constants
from tokopt.domain.features import Feature
from tokopt.errors import InputError
from tokopt.perf.arrays import Floats

FORMATS = (NumberFormat.BF16, NumberFormat.FP8, NumberFormat.FP4, NumberFormat.INT8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Peaks:
    """Peak rates of one accelerator for the formats that a precision multiplies in. [SI]

    Fields are numbers, or arrays of one element a row where machines are stacked (`perf.stacking`).
    """

    memory_bytes: Floats
    framework_bytes: Floats  # that a framework fills by default
    reserved_output: Floats  # share of an output's cache that is set aside when a request is admitted
    memory_bytes_per_s: Floats
    projection_flop_per_s: Floats
    latent_projection_flop_per_s: Floats
    ffn_flop_per_s: Floats
    bf16_flop_per_s: Floats
    projection_format: Floats  # index into FORMATS
    latent_projection_format: Floats
    ffn_format: Floats
    bf16_format: Floats
    scale_up_size: Floats
    scale_up_mesh: Floats  # 1 on a full mesh, else 0
    scale_up_bytes_per_s: Floats
    scale_out_bytes_per_s: Floats  # 0 = not known: nothing may span scale-up domains
    chunked_pipeline: Floats = 0.0  # 1 where chunks of one prompt are on several pipeline stages at a time
    two_batch_tokens: Floats = 2.0  # of an attention rank, from which on a step may run as two halves


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Sustained rates and overheads of one accelerator. [SI] Fields as those of `Peaks`."""

    memory_bytes: Floats
    usable_memory_bytes: Floats
    reserved_output: Floats
    weight_bytes_per_s: Floats
    expert_bytes_per_s: Floats
    kv_bytes_per_s: Floats
    projection_flop_per_s: Floats
    latent_projection_flop_per_s: Floats
    dense_flop_per_s: Floats
    expert_flop_per_s: Floats
    head_flop_per_s: Floats
    attention_flop_per_s: Floats
    prefill_attention_flop_per_s: Floats
    scale_up_size: Floats
    scale_up_mesh: Floats
    scale_up_bytes_per_s: Floats
    scale_out_bytes_per_s: Floats  # 0 = not known: nothing may span scale-up domains
    scale_up_latency_s: Floats
    latency_growth: Floats
    exchange_latency_s: Floats
    scale_out_latency_s: Floats
    activation_passes: Floats
    layer_overhead_s: Floats
    expert_layer_overhead_s: Floats
    linear_layer_overhead_s: Floats
    sparse_layer_overhead_s: Floats
    step_overhead_s: Floats
    sequence_overhead_s: Floats
    request_overhead_s: Floats
    expert_imbalance: Floats
    rank_imbalance: Floats
    pipeline_bubble: Floats
    mixing: Floats
    slowdown: Floats
    wave_share: Floats
    prefill_wave_share: Floats
    prefill_pool_efficiency: Floats
    handover_s: Floats
    memory_bound_power_share: Floats
    compute_bound_power_share: Floats
    host_power_share: Floats
    chunked_pipeline: Floats = 0.0
    measured_input_tokens: float = math.inf  # the longest prompts and outputs that constants were fitted to
    measured_output_tokens: float = math.inf
    margin: float = 1.0  # of `slowdown`, what was not fitted but asked for
    popularity_spread: float = 0.0  # of experts in the traffic: see `perf.expert_balance`; 0 = all alike
    two_batch_tokens: Floats = 2.0
    # What the accelerator waits for where a feature that hides the host is off (`perf.host`); 0 = hidden.
    eager_layer_s: float = 0.0  # launching a layer's kernels one by one
    eager_expert_layer_s: float = 0.0  # on top of it, where the layer routes to experts
    exposed_step_s: float = 0.0  # scheduling a step
    exposed_sequence_s: float = 0.0  # scheduling and sampling, a running sequence


def compute_format(accelerator: Accelerator, wanted: NumberFormat, precision: Precision) -> NumberFormat:
    """Return the format that the matrix units multiply in: `wanted` where they have it, else the fallback.

    Raises:
        InputError: The accelerator's peak rate for neither format is known.
    """
    for candidate in (wanted, precision.fallback_compute, NumberFormat.BF16):
        if candidate in accelerator.dense_flop_per_s:
            return candidate
    raise InputError(f"{accelerator.name}: no peak rate for {wanted} nor {precision.fallback_compute} in the catalog")


def peaks(accelerator: Accelerator, framework: Framework, precision: Precision) -> Peaks:
    """Return the peak rates of `accelerator` for a precision.

    Raises:
        InputError: A rate that is needed is not in the catalog.
    """
    latent = compute_format(accelerator, precision.latent_attention_compute, precision)
    plain = compute_format(accelerator, precision.attention_compute, precision)
    ffn = compute_format(accelerator, precision.ffn_compute, precision)
    wide = compute_format(accelerator, NumberFormat.BF16, precision)
    rate = accelerator.dense_flop_per_s
    support = framework.support.get(accelerator.hardware)
    return Peaks(
        memory_bytes=accelerator.memory_bytes,
        framework_bytes=accelerator.memory_bytes * framework.memory_fraction,
        reserved_output=framework.reserved_output,
        memory_bytes_per_s=accelerator.memory_bytes_per_s,
        projection_flop_per_s=rate[plain],
        latent_projection_flop_per_s=rate[latent],
        ffn_flop_per_s=rate[ffn],
        bf16_flop_per_s=rate[wide],
        projection_format=FORMATS.index(plain),
        latent_projection_format=FORMATS.index(latent),
        ffn_format=FORMATS.index(ffn),
        bf16_format=FORMATS.index(wide),
        scale_up_size=accelerator.scale_up_size,
        scale_up_mesh=float(accelerator.scale_up_topology is Topology.MESH),
        scale_up_bytes_per_s=accelerator.scale_up_bytes_per_s,
        scale_out_bytes_per_s=accelerator.scale_out_bytes_per_s or 0.0,
        chunked_pipeline=float(support is not None and Feature.CHUNKED_PIPELINE in support.features),
        two_batch_tokens=framework.two_batch_tokens,
    )


def sustained(peak: Peaks, constants: Constants) -> Machine:
    """Return sustained rates: peak rates times the calibrated efficiencies; both may be stacked."""
    efficiencies = [constants.bf16_efficiency, constants.fp8_efficiency]
    efficiencies += [constants.fp4_efficiency, constants.int8_efficiency]

    def products(rate: Floats, number_format: Floats) -> Floats:
        if isinstance(number_format, int):
            return rate * efficiencies[number_format]
        return rate * np.choose(np.asarray(number_format, dtype=int), efficiencies)

    weights = peak.memory_bytes_per_s * constants.memory_efficiency
    dense = products(peak.ffn_flop_per_s, peak.ffn_format)
    return Machine(
        memory_bytes=peak.memory_bytes,
        usable_memory_bytes=peak.framework_bytes - constants.reserved_bytes,
        reserved_output=peak.reserved_output,
        weight_bytes_per_s=weights,
        expert_bytes_per_s=weights * constants.expert_memory_efficiency,
        kv_bytes_per_s=peak.memory_bytes_per_s * constants.kv_efficiency,
        projection_flop_per_s=products(peak.projection_flop_per_s, peak.projection_format),
        latent_projection_flop_per_s=products(peak.latent_projection_flop_per_s, peak.latent_projection_format),
        dense_flop_per_s=dense,
        expert_flop_per_s=dense * constants.grouped_gemm_efficiency,
        head_flop_per_s=products(peak.bf16_flop_per_s, peak.bf16_format),
        attention_flop_per_s=peak.bf16_flop_per_s * constants.attention_efficiency,
        prefill_attention_flop_per_s=peak.bf16_flop_per_s * constants.prefill_attention_efficiency,
        scale_up_size=peak.scale_up_size,
        scale_up_mesh=peak.scale_up_mesh,
        scale_up_bytes_per_s=peak.scale_up_bytes_per_s * constants.scale_up_efficiency,
        scale_out_bytes_per_s=peak.scale_out_bytes_per_s * constants.scale_out_efficiency,
        scale_up_latency_s=constants.scale_up_latency_s,
        latency_growth=constants.latency_growth,
        exchange_latency_s=constants.exchange_latency_s,
        scale_out_latency_s=constants.scale_out_latency_s,
        activation_passes=constants.activation_passes,
        layer_overhead_s=constants.layer_overhead_s,
        expert_layer_overhead_s=constants.expert_layer_overhead_s,
        linear_layer_overhead_s=constants.linear_layer_overhead_s,
        sparse_layer_overhead_s=constants.sparse_layer_overhead_s,
        step_overhead_s=constants.step_overhead_s,
        sequence_overhead_s=constants.sequence_overhead_s,
        request_overhead_s=constants.request_overhead_s,
        expert_imbalance=constants.expert_imbalance,
        rank_imbalance=constants.rank_imbalance,
        pipeline_bubble=constants.pipeline_bubble,
        mixing=constants.mixing,
        slowdown=constants.slowdown,
        wave_share=constants.wave_share,
        prefill_wave_share=constants.prefill_wave_share,
        prefill_pool_efficiency=constants.prefill_pool_efficiency,
        handover_s=constants.handover_s,
        memory_bound_power_share=constants.memory_bound_power_share,
        compute_bound_power_share=constants.compute_bound_power_share,
        host_power_share=constants.host_power_share,
        chunked_pipeline=peak.chunked_pipeline,
        two_batch_tokens=peak.two_batch_tokens,
        measured_input_tokens=constants.measured_input_tokens,
        measured_output_tokens=constants.measured_output_tokens,
        margin=constants.margin,
    )


def machine(accelerator: Accelerator, framework: Framework, precision: Precision, constants: Constants) -> Machine:
    """Return the sustained rates of `accelerator`: peak rates of the catalog times the calibrated efficiencies.

    Raises:
        InputError: A rate that is needed is not in the catalog.
    """
    return sustained(peaks(accelerator, framework, precision), constants)
