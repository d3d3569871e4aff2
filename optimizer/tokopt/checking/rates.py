"""What one accelerator sustains: peak rates of the catalog times calibrated efficiencies, and overheads."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from tokopt.domain.accelerators import Accelerator, Framework, NumberFormat, Precision, Topology
from tokopt.domain.calibration import Calibration, Constants, Link
from tokopt.domain.features import Feature
from tokopt.domain.host_times import HostTime, HostWork
from tokopt.domain.speculators import Domain, Speculator
from tokopt.errors import InputError

JOINED = "+"  # between the traits of a combination and between its levels


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Sustained rates of one accelerator under one framework and precision. [SI]"""

    constants: Constants  # overheads, latencies and shares that need no peak rate
    memory_bytes: float
    usable_bytes: float
    reserved_output: float  # share of an output whose cache is set aside when a request is admitted
    weight_bytes_per_s: float
    expert_bytes_per_s: float
    cache_bytes_per_s: float
    plain_projection_flop_per_s: float
    latent_projection_flop_per_s: float
    dense_flop_per_s: float
    expert_flop_per_s: float
    head_flop_per_s: float
    attention_flop_per_s: float  # decoding
    prompt_attention_flop_per_s: float
    domain: int  # accelerators of one scale-up domain
    mesh: bool
    inside_bytes_per_s: float
    outside_bytes_per_s: float  # not a number where the catalog lacks it
    pipelines_chunks: bool = False  # chunks of one prompt are on several pipeline stages at a time
    popularity_sigma: float = 0.0  # of the logarithm of how much experts are asked for; 0 = alike
    halved_from: float = 2.0  # tokens of a rank from which on a step may run as halves
    launched_layer_s: float = 0.0  # by the host, kernel by kernel; 0 = graphs are replayed
    launched_experts_s: float = 0.0  # on top of it, where a layer has experts
    idle_step_s: float = 0.0  # while a step is scheduled; 0 = that overlaps the step before
    idle_sequence_s: float = 0.0  # the same for each sequence in it


def shifted(value: float, link: Link, shift: float) -> float:
    """Return a constant moved by `shift` on the scale of its link: x·eˢ, odds·eˢ, or 1 + (x - 1)·eˢ."""
    factor = math.exp(shift)
    if link is Link.LOG:
        return value * factor
    if link is Link.EXCESS:
        return 1.0 + (value - 1.0) * factor
    return value * factor / (1.0 - value + value * factor)


def constants_of(
    calibration: Calibration, accelerator: Accelerator, framework: Framework, precision: Precision, llm_name: str
) -> Constants:
    """Return the calibrated constants, each moved by the effects of the traits that a deployment has.

    An effect of a trait that only published tables have, such as their harness, applies to none.
    """
    traits = {
        "accelerator": accelerator.hardware,
        "generation": accelerator.generation,
        "vendor": accelerator.vendor,
        "framework": framework.name,
        "precision": precision.name,
        "llm": llm_name,
    }
    shifts = dict.fromkeys(calibration.entries, 0.0)
    for effect in calibration.effects:
        parts = effect.trait.split(JOINED)
        if all(part in traits for part in parts) and effect.level == JOINED.join(traits[part] for part in parts):
            shifts[effect.constant] += effect.shift
    values = {name: shifted(entry.value, entry.link, shifts[name]) for name, entry in calibration.entries.items()}
    numbers = calibration.measured.numbers
    return Constants(
        **values,
        measured_input_tokens=numbers["input_tokens"][1] if "input_tokens" in numbers else math.inf,
        measured_output_tokens=numbers["output_tokens"][1] if "output_tokens" in numbers else math.inf,
        margin=calibration.margin,
        origins={},
        sources={},
    )


def _efficiency(constants: Constants, number_format: NumberFormat) -> float:
    return {
        NumberFormat.BF16: constants.bf16_efficiency,
        NumberFormat.FP8: constants.fp8_efficiency,
        NumberFormat.FP4: constants.fp4_efficiency,
        NumberFormat.INT8: constants.int8_efficiency,
    }[number_format]


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
            return peak, peak * _efficiency(constants, number_format)
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
    weights = accelerator.memory_bytes_per_s * constants.memory_efficiency
    support = framework.support.get(accelerator.hardware)
    outside = (accelerator.scale_out_bytes_per_s or 0.0) * constants.scale_out_efficiency
    return Rates(
        constants=constants,
        memory_bytes=accelerator.memory_bytes,
        usable_bytes=accelerator.memory_bytes * framework.memory_fraction - constants.reserved_bytes,
        reserved_output=framework.reserved_output,
        weight_bytes_per_s=weights,
        expert_bytes_per_s=weights * constants.expert_memory_efficiency,
        cache_bytes_per_s=accelerator.memory_bytes_per_s * constants.kv_efficiency,
        plain_projection_flop_per_s=plain,
        latent_projection_flop_per_s=latent,
        dense_flop_per_s=ffn,
        expert_flop_per_s=ffn * constants.grouped_gemm_efficiency,
        head_flop_per_s=wide * constants.bf16_efficiency,
        attention_flop_per_s=wide * constants.attention_efficiency,
        prompt_attention_flop_per_s=wide * constants.prefill_attention_efficiency,
        domain=accelerator.scale_up_size,
        mesh=accelerator.scale_up_topology is Topology.MESH,
        inside_bytes_per_s=accelerator.scale_up_bytes_per_s * constants.scale_up_efficiency,
        outside_bytes_per_s=outside or math.nan,
        pipelines_chunks=support is not None and "chunked_pipeline" in support.features,
    )


def with_host_exposed(rates: Rates, without: Collection[str], host_times: Mapping[str, HostTime]) -> Rates:
    """Return the rates of an accelerator that waits for its host where a deployment lacks what hides it."""

    def seconds(work: HostWork) -> float:
        return host_times[work.value].value_s

    if Feature.CUDA_GRAPHS in without:
        layer, experts = seconds(HostWork.LAYER), seconds(HostWork.EXPERT_LAYER)
        rates = replace(rates, launched_layer_s=layer, launched_experts_s=experts)
    if Feature.OVERLAP_SCHEDULING in without:
        rates = replace(rates, idle_step_s=seconds(HostWork.STEP), idle_sequence_s=seconds(HostWork.SEQUENCE))
    return rates


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


def drafted_tokens_per_step(speculator: Speculator, domain: Domain | None, depth: int) -> float:
    """Return the mean tokens of a step of `depth` drafts by a speculator, in a domain or over all of them."""
    if domain is not None and domain in speculator.acceptance:
        domains = [speculator.acceptance[domain]]
    else:
        domains = list(speculator.acceptance.values())
    total = 0.0
    for each in domains:
        total += sum(math.prod(each.chances[:position]) for position in range(depth + 1))
    return total / len(domains)
