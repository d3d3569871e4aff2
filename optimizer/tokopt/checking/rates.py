"""What one accelerator sustains: peak rates of the catalog times calibrated efficiencies, and overheads."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tokopt.domain.accelerators import Accelerator, Framework, NumberFormat, Precision, Topology
from tokopt.domain.calibration import Calibration, Constants
from tokopt.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Sustained rates of one accelerator under one framework and precision. [SI]"""

    constants: Constants  # overheads, latencies and shares that need no peak rate
    memory_bytes: float
    usable_bytes: float
    weight_bytes_per_s: float
    cache_bytes_per_s: float
    plain_projection_flop_per_s: float
    latent_projection_flop_per_s: float
    dense_flop_per_s: float
    expert_flop_per_s: float
    head_flop_per_s: float
    attention_flop_per_s: float
    domain: int  # accelerators of one scale-up domain
    mesh: bool
    inside_bytes_per_s: float
    outside_bytes_per_s: float  # not a number where the catalog lacks it


def constants_of(
    calibration: Calibration, accelerator: Accelerator, framework: Framework, precision: Precision
) -> Constants:
    """Return base constants, each replaced by the last override that matches."""
    traits = {
        "accelerator": accelerator.name,
        "generation": accelerator.generation,
        "vendor": accelerator.vendor,
        "framework": framework.name,
        "precision": precision.name,
    }
    values = dict(calibration.base)
    for override in calibration.overrides:
        if all(traits[trait] == wanted for trait, wanted in override.match.items()):
            values |= override.values
    return Constants(**values, origins={}, sources={})


def product_rate(
    accelerator: Accelerator, wanted: NumberFormat, precision: Precision, constants: Constants
) -> tuple[float, float]:
    """Return the peak and the sustained rate of large products in `wanted`, or in what replaces it. [FLOP/s]

    Raises:
        InputError: No peak rate is known that would do.
    """
    for number_format in (wanted, precision.fallback_compute, NumberFormat.BF16):
        peak = accelerator.dense_flop_per_s.get(number_format)
        if peak is not None:
            return peak, peak * constants.compute_efficiency(number_format)
    raise InputError(f"no peak rate of {accelerator.name} for {wanted} in the catalog")


def sustained_rates(
    accelerator: Accelerator, framework: Framework, precision: Precision, constants: Constants
) -> Rates:
    """Return the sustained rates of an accelerator: peak · efficiency.

    Raises:
        InputError: A peak rate that is needed is not in the catalog.
    """
    _, plain = product_rate(accelerator, precision.attention_compute, precision, constants)
    _, latent = product_rate(accelerator, precision.latent_attention_compute, precision, constants)
    _, ffn = product_rate(accelerator, precision.ffn_compute, precision, constants)
    wide, _ = product_rate(accelerator, NumberFormat.BF16, precision, constants)
    outside = (accelerator.scale_out_bytes_per_s or 0.0) * constants.scale_out_efficiency
    return Rates(
        constants=constants,
        memory_bytes=accelerator.memory_bytes,
        usable_bytes=accelerator.memory_bytes * framework.memory_fraction - constants.reserved_bytes,
        weight_bytes_per_s=accelerator.memory_bytes_per_s * constants.memory_efficiency,
        cache_bytes_per_s=accelerator.memory_bytes_per_s * constants.kv_efficiency,
        plain_projection_flop_per_s=plain,
        latent_projection_flop_per_s=latent,
        dense_flop_per_s=ffn,
        expert_flop_per_s=ffn * constants.grouped_gemm_efficiency,
        head_flop_per_s=wide * constants.bf16_efficiency,
        attention_flop_per_s=wide * constants.attention_efficiency,
        domain=accelerator.scale_up_size,
        mesh=accelerator.scale_up_topology is Topology.MESH,
        inside_bytes_per_s=accelerator.scale_up_bytes_per_s * constants.scale_up_efficiency,
        outside_bytes_per_s=outside or math.nan,
    )


def tokens_per_step(calibration: Calibration, llm_name: str, depth: int) -> float:
    """Return the mean tokens of a step that verifies `depth` draft tokens: 1 + p₁ + p₁p₂ + … + p₁…p_d.

    Leviathan, Kalman & Matias, arXiv 2211.17192, §3.1; the last chance holds for deeper tokens.
    """
    chances = calibration.acceptance.get(llm_name, calibration.acceptance["default"])
    total = product = 1.0
    for position in range(depth):
        product *= chances[min(position, len(chances) - 1)]
        total += product
    return total
