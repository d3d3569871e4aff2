"""What one accelerator sustains under one framework and precision: peak rates times efficiencies, and overheads."""

from __future__ import annotations

from dataclasses import dataclass

from tokopt.domain.accelerators import Accelerator, Framework, NumberFormat, Precision, Topology
from tokopt.domain.calibration import Constants
from tokopt.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Sustained rates and overheads of one accelerator. [SI]"""

    memory_bytes: float
    usable_memory_bytes: float
    weight_bytes_per_s: float
    kv_bytes_per_s: float
    projection_flop_per_s: float
    latent_projection_flop_per_s: float
    dense_flop_per_s: float
    expert_flop_per_s: float
    head_flop_per_s: float
    attention_flop_per_s: float
    scale_up_size: int
    scale_up_mesh: bool
    scale_up_bytes_per_s: float
    scale_out_bytes_per_s: float  # 0 = not known: nothing may span scale-up domains
    scale_up_latency_s: float
    scale_out_latency_s: float
    layer_overhead_s: float
    step_overhead_s: float
    sequence_overhead_s: float
    request_overhead_s: float
    expert_imbalance: float
    rank_imbalance: float
    pipeline_bubble: float
    mixing: float
    wave_share: float
    board_w: float | None
    idle_w: float | None


def compute_format(accelerator: Accelerator, wanted: NumberFormat, precision: Precision) -> NumberFormat:
    """Return the format that the matrix units multiply in: `wanted` where they have it, else the fallback.

    Raises:
        InputError: The accelerator's peak rate for neither format is known.
    """
    for candidate in (wanted, precision.fallback_compute, NumberFormat.BF16):
        if candidate in accelerator.dense_flop_per_s:
            return candidate
    raise InputError(f"{accelerator.name}: no peak rate for {wanted} nor {precision.fallback_compute} in the catalog")


def machine(accelerator: Accelerator, framework: Framework, precision: Precision, constants: Constants) -> Machine:
    """Return the sustained rates of `accelerator`: peak rates of the catalog times the calibrated efficiencies.

    Raises:
        InputError: A rate that is needed is not in the catalog.
    """
    latent = compute_format(accelerator, precision.latent_attention_compute, precision)
    plain = compute_format(accelerator, precision.attention_compute, precision)
    ffn = compute_format(accelerator, precision.ffn_compute, precision)
    bf16 = accelerator.dense_flop_per_s[compute_format(accelerator, NumberFormat.BF16, precision)]
    peak = accelerator.dense_flop_per_s
    gemm = {fmt: constants.compute_efficiency(fmt) for fmt in peak}
    return Machine(
        memory_bytes=accelerator.memory_bytes,
        usable_memory_bytes=accelerator.memory_bytes * framework.memory_fraction - constants.reserved_bytes,
        weight_bytes_per_s=accelerator.memory_bytes_per_s * constants.memory_efficiency,
        kv_bytes_per_s=accelerator.memory_bytes_per_s * constants.kv_efficiency,
        projection_flop_per_s=peak[plain] * gemm[plain],
        latent_projection_flop_per_s=peak[latent] * gemm[latent],
        dense_flop_per_s=peak[ffn] * gemm[ffn],
        expert_flop_per_s=peak[ffn] * gemm[ffn] * constants.grouped_gemm_efficiency,
        head_flop_per_s=bf16 * constants.compute_efficiency(NumberFormat.BF16),
        attention_flop_per_s=bf16 * constants.attention_efficiency,
        scale_up_size=accelerator.scale_up_size,
        scale_up_mesh=accelerator.scale_up_topology is Topology.MESH,
        scale_up_bytes_per_s=accelerator.scale_up_bytes_per_s * constants.scale_up_efficiency,
        scale_out_bytes_per_s=(accelerator.scale_out_bytes_per_s or 0.0) * constants.scale_out_efficiency,
        scale_up_latency_s=constants.scale_up_latency_s,
        scale_out_latency_s=constants.scale_out_latency_s,
        layer_overhead_s=constants.layer_overhead_s,
        step_overhead_s=constants.step_overhead_s,
        sequence_overhead_s=constants.sequence_overhead_s,
        request_overhead_s=constants.request_overhead_s,
        expert_imbalance=constants.expert_imbalance,
        rank_imbalance=constants.rank_imbalance,
        pipeline_bubble=constants.pipeline_bubble,
        mixing=constants.mixing,
        wave_share=constants.wave_share,
        board_w=accelerator.board_w,
        idle_w=accelerator.idle_w,
    )
