"""Time of one forward step of one worker: decode, prefill, or both."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from tokopt.checking.arithmetic import LlmSums
from tokopt.checking.context import cache_split, exchanges_s
from tokopt.checking.experts import fullest_load
from tokopt.checking.rates import Rates
from tokopt.domain.deployments import Layout

ACTIVATION_BYTES = 2.0  # reduced and handed over in 16 bits
EXCHANGE_BYTES = 3.0  # to an expert in FP8 and back in 16 bits (DeepSeek-V3, arXiv 2412.19437, §3.2.2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """What one rank and micro-batch processes in a step."""

    sequences: float  # that decode
    width: float  # tokens that each of them verifies
    context: float  # cached tokens of each
    prompt: float  # prompt tokens
    prompt_context: float  # tokens that each of those attends to
    drafts: float  # draft tokens of each sequence

    @property
    def total(self) -> float:
        """All tokens of the step."""
        return self.sequences * self.width + self.prompt


def step_s(sums: LlmSums, rates: Rates, layout: Layout, tokens: Tokens) -> float:
    """Return the time of a step: whole, or as two halves where the layout may do that and it takes less. [s]

    Stages of a pipeline wait for one another: 1 + bubble · (pp - 1); all of it takes `slowdown` times as long. Of the
    prompt tokens each of `cp` ranks takes its part; sequences decode on all of them.
    """
    constants = rates.constants
    slower = constants.slowdown * (1.0 + constants.pipeline_bubble * (layout.pp - 1))
    launched = _launched_s(sums, rates, tokens) if tokens.sequences else 0.0
    # Launches are queued while earlier kernels run, scheduling comes between steps; halves are launched one by one.
    seconds = max(_whole_s(sums, rates, layout, tokens) * slower, launched)
    exchanging = layout.dp * layout.cp > 1 and layout.ep > 1
    if layout.two_batch_overlap and exchanging and tokens.total >= rates.halved_from:
        seconds = min(seconds, max(_halves_s(sums, rates, layout, tokens) * slower, 2.0 * launched))
    return seconds + rates.idle_step_s + tokens.sequences * layout.dp * layout.pp * rates.idle_sequence_s


def exchanged_s(sums: LlmSums, rates: Rates, layout: Layout, tokens: Tokens) -> float:
    """Time of the all-to-alls of a step of one batch: there and back, in every layer of experts. [s]"""
    if layout.dp == 1 or layout.ep == 1:
        return 0.0
    constants = rates.constants
    slower = constants.slowdown * (1.0 + constants.pipeline_bubble * (layout.pp - 1))
    layers = sums.expert_layers * _layer_passes(sums, tokens)
    return layers * all_to_all_s(sums, rates, layout, tokens.total / layout.tp) * slower


def _halves_s(sums: LlmSums, rates: Rates, layout: Layout, tokens: Tokens) -> float:
    """Time of a step as two halves: one computes while the other's tokens are on their way to experts and back. [s]

    Of the computing of a half, the share of layers that exchange takes part. Over r such layers the longest decides:
    computing twice and the last exchange; one half's chain and the other's head start; links twice and what is before
    and after. The scheduler runs once.
    """
    half = replace(tokens, sequences=tokens.sequences / 2.0, prompt=tokens.prompt / 2.0)
    constants = rates.constants
    layers = sums.expert_layers * _layer_passes(sums, tokens)
    arrival = layers * all_to_all_s(sums, rates, layout, 0.0)
    sent = replace(half, prompt=half.prompt / layout.cp).total
    carried = layers * all_to_all_s(sums, rates, layout, sent / layout.tp) - arrival
    scheduling = half.sequences * layout.dp * layout.pp * constants.sequence_overhead_s
    alone = _whole_s(sums, rates, layout, half) - arrival - carried - scheduling - constants.step_overhead_s
    share = sums.expert_layers / sums.layers
    busy = alone * share
    longest = max(
        2.0 * busy + (carried + arrival) / layers,
        busy + carried + arrival + max(busy, carried) / layers,
        2.0 * carried + (busy + arrival) / layers,
    )
    return constants.step_overhead_s + 2.0 * scheduling + 2.0 * alone * (1.0 - share) + longest


def _whole_s(sums: LlmSums, rates: Rates, layout: Layout, tokens: Tokens) -> float:
    """Time of a step of one batch: rooflines of its parts, collectives and overheads, one after another. [s]"""
    exchanged_s = exchanges_s(
        sums,
        rates,
        layout,
        sequences=tokens.sequences,
        width=tokens.width,
        prompt=tokens.prompt,
        context=tokens.prompt_context,
    )
    tokens = replace(tokens, prompt=tokens.prompt / layout.cp)
    return (
        exchanged_s
        + _dense_s(sums, rates, layout, tokens)
        + _activations_s(sums, rates, tokens)
        + _experts_s(sums, rates, layout, tokens)
        + _attention_s(sums, rates, layout, tokens)
        + _collectives_s(sums, rates, layout, tokens)
        + _overhead_s(sums, rates, layout, tokens)
        + _drafter_s(sums, rates, layout, tokens)
    )


def _drafter_s(sums: LlmSums, rates: Rates, layout: Layout, tokens: Tokens) -> float:
    """Time of a drafter's passes, one a draft token, or one in all where only prompts are in the step. [s]

    A pass takes in two tokens a sequence: over all passes, those verified and those drafted. Prompts pass once.
    """
    drafter = sums.drafter
    if drafter is None or not tokens.drafts:
        return 0.0
    passes = tokens.drafts if tokens.sequences else min(tokens.drafts, 1.0)
    one = Tokens(
        sequences=tokens.sequences,
        width=2.0,
        context=tokens.context,
        prompt=tokens.prompt / max(passes, 1.0),
        prompt_context=tokens.prompt_context,
        drafts=0.0,
    )
    products = drafter.plain_projection_parameters + drafter.latent_projection_parameters + drafter.dense_parameters
    flop = 2.0 * (one.total * products + one.sequences * drafter.head_parameters)
    read = drafter.projection_bytes + drafter.dense_bytes + drafter.head_bytes
    dense_s = both_s(read / rates.weight_bytes_per_s / layout.tp, flop / rates.head_flop_per_s / layout.tp)
    others_s = (
        _activations_s(drafter, rates, one)
        + _attention_s(drafter, rates, layout.model_copy(update={"dcp": 1}), one)
        + _collectives_s(drafter, rates, layout, one)
    )
    return passes * (dense_s + others_s + _launches_s(drafter, rates))


def both_s(memory_s: float, compute_s: float) -> float:
    """Time of a part with its own traffic and products: the hypotenuse of both. [s]

    A roofline (Williams, Waterman & Patterson, Commun. ACM 52(4), 2009) with a round corner.
    """
    return math.hypot(memory_s, compute_s)


def _layer_passes(sums: LlmSums, tokens: Tokens) -> float:
    """Count passes through a layer: each draft token that a module drafts adds one layer to all of them."""
    return 1.0 + tokens.drafts * sums.draft_modules / sums.layers


def _dense_s(sums: LlmSums, rates: Rates, layout: Layout, tokens: Tokens) -> float:
    """Projections, dense feed-forward and output head: split over tp, copied over dp. [s]"""
    parameters = sums.plain_projection_parameters + sums.latent_projection_parameters + sums.dense_parameters
    passes = 1.0 + tokens.drafts * sums.draft_parameters / parameters
    heads = 1.0 + tokens.drafts * sums.draft_modules
    read = (sums.projection_bytes + sums.dense_bytes) * passes + sums.head_bytes * heads
    body_s = 2.0 * (
        sums.plain_projection_parameters / rates.plain_projection_flop_per_s
        + sums.latent_projection_parameters / rates.latent_projection_flop_per_s
        + sums.dense_parameters / rates.dense_flop_per_s
    )
    head_s = 2.0 * sums.head_parameters / rates.head_flop_per_s
    compute = tokens.total * body_s * passes + tokens.sequences * tokens.width * head_s * heads
    return both_s(read / rates.weight_bytes_per_s, compute) / layout.tp


def _activations_s(sums: LlmSums, rates: Rates, tokens: Tokens) -> float:
    """Hidden vectors read and written between the products of every layer, whole on each tensor-parallel rank. [s]"""
    moved = tokens.total * sums.layers * sums.hidden_size * ACTIVATION_BYTES * rates.constants.activation_passes
    return moved / rates.weight_bytes_per_s


def touched_experts(experts: int, active: int, tokens: float) -> float:
    """Distinct experts that tokens choose, choices taken as uniform: E·(1 - (1 - k/E)^n)."""
    if active >= experts:
        return float(experts)
    return -experts * math.expm1(tokens * math.log1p(-active / experts))


def _experts_s(sums: LlmSums, rates: Rates, layout: Layout, tokens: Tokens) -> float:
    """Routed experts on the fullest accelerator: it reads the experts touched there and multiplies its tokens. [s]"""
    if not sums.experts:
        return 0.0
    stage = layout.tp * layout.dp * layout.cp
    chosen = tokens.total * layout.dp * layout.cp
    imbalance = rates.constants.expert_imbalance if layout.ep > 1 else 1.0
    slots = sums.experts + layout.redundant_experts
    touched = touched_experts(slots, sums.active_experts, chosen) * imbalance
    held = min(touched, float(slots)) / stage
    passes = sums.expert_layers * _layer_passes(sums, tokens)
    memory = held * passes * sums.expert_bytes / rates.expert_bytes_per_s
    imbalance *= _skew(sums, rates, layout)
    flop = chosen * imbalance * passes * 2.0 * sums.active_experts * sums.expert_parameters / stage
    return both_s(memory, flop / rates.expert_flop_per_s)


def _skew(sums: LlmSums, rates: Rates, layout: Layout) -> float:
    """Load of the fullest accelerator that popular experts make, over the mean."""
    return fullest_load(sums.experts, layout.ep, layout.redundant_experts, rates.popularity_sigma)


def _attention_s(sums: LlmSums, rates: Rates, layout: Layout, tokens: Tokens) -> float:
    """Cache reads of decoding sequences, and score-value products of prompts. [s]

    The cache splits by key-value heads and by dcp, at most tp ways; a step reads it once however many tokens it
    verifies.
    """
    seconds = 0.0
    limits = rates.constants
    longest = limits.measured_input_tokens + limits.measured_output_tokens, limits.measured_input_tokens / 2.0
    context, ahead = _counted(rates, tokens.context, longest[0]), _counted(rates, tokens.prompt_context, longest[1])
    for group in sums.attention:
        read = _counted(rates, min(tokens.context, group.read_tokens), longest[0])
        moved = group.cache_bytes_per_token * read + group.index_bytes_per_token * context
        moved += 2.0 * group.state_bytes  # read and written
        # A recurrent state has no tokens to split.
        ways = min(layout.tp, group.cache_shards) if group.state_bytes else cache_split(layout, group.cache_shards)
        memory = moved / rates.cache_bytes_per_s / ways
        flop = group.decode_flop_per_pair * read + group.index_flop_per_pair * context
        compute = tokens.width * flop / rates.attention_flop_per_s / layout.tp
        seconds += tokens.sequences * both_s(memory, compute)
        seen = _counted(rates, min(tokens.prompt_context, group.read_tokens), longest[1])
        prompt_flop = group.prefill_flop_per_pair * seen + group.index_flop_per_pair * ahead
        seconds += tokens.prompt * prompt_flop / rates.prompt_attention_flop_per_s / layout.tp
    return seconds


def _counted(rates: Rates, tokens: float, longest: float) -> float:
    """Count a context; beyond the longest measured one, tokens are timed as if no step were faster than its parts."""
    over = max(tokens - longest, 0.0)
    return tokens - over + over / min(rates.constants.slowdown / rates.constants.margin, 1.0)


def _overhead_s(sums: LlmSums, rates: Rates, layout: Layout, tokens: Tokens) -> float:
    """Time for launches of every layer and what its kind adds, scheduling of the step and of all its sequences. [s]

    One scheduler serves the sequences of all ranks and stages.
    """
    constants = rates.constants
    launches = _launches_s(sums, rates)
    scheduled = tokens.sequences * layout.dp * layout.pp
    scheduling = constants.step_overhead_s + scheduled * constants.sequence_overhead_s
    return launches * _layer_passes(sums, tokens) + scheduling


def _launched_s(sums: LlmSums, rates: Rates, tokens: Tokens) -> float:
    """Time of a decode step on a host that launches kernel by kernel: every layer, of the drafter too. [s]"""
    passes = _layer_passes(sums, tokens)
    drafter = sums.drafter.layers * tokens.drafts if sums.drafter is not None else 0.0
    launches = (sums.layers * passes + drafter) * rates.launched_layer_s
    return launches + sums.expert_layers * passes * rates.launched_experts_s


def _launches_s(sums: LlmSums, rates: Rates) -> float:
    """Time for launches of all layers once: a share for each, and what its kind adds. [s]"""
    constants = rates.constants
    launches = sums.layers * constants.layer_overhead_s
    launches += sums.expert_layers * constants.expert_layer_overhead_s
    launches += sums.recurrent_layers * constants.linear_layer_overhead_s
    return launches + sums.choosing_layers * constants.sparse_layer_overhead_s


def _collectives_s(sums: LlmSums, rates: Rates, layout: Layout, tokens: Tokens) -> float:
    """All-reduces of tp (two a layer), all-to-alls of spread experts (in place of the second), hand-overs of pp. [s]"""
    passes = _layer_passes(sums, tokens)
    message = tokens.total * sums.hidden_size * ACTIVATION_BYTES
    exchanging = sums.expert_layers if layout.dp * layout.cp > 1 and layout.ep > 1 else 0
    seconds = (2.0 * sums.layers - exchanging) * passes * all_reduce_s(rates, layout.tp, message)
    if exchanging:
        seconds += exchanging * passes * all_to_all_s(sums, rates, layout, tokens.total / layout.tp)
    if layout.pp > 1:
        bytes_per_s, latency_s = link(rates, layout.accelerators)
        seconds += layout.pp * (latency_s + message / layout.tp / bytes_per_s)
    return seconds


def link(rates: Rates, group: int) -> tuple[float, float]:
    """Return bandwidth and latency between members of a group: outside links once it outgrows the domain."""
    if group <= rates.domain:
        return rates.inside_bytes_per_s, rates.constants.scale_up_latency_s
    return rates.outside_bytes_per_s, rates.constants.scale_out_latency_s


def mesh_share(rates: Rates, group: int) -> float:
    """Share of the inside bandwidth that a group can use: on a full mesh only the links between its members."""
    if not rates.mesh or rates.domain <= 1:
        return 1.0
    return max(min(group, rates.domain) - 1.0, 1.0) / (rates.domain - 1.0)


def all_reduce_s(rates: Rates, group: int, message_bytes: float) -> float:
    """Ring all-reduce: latency + 2 (g - 1)/g · bytes / bandwidth (Patarasuk & Yuan, JPDC 69, 2009). [s]

    Inside the domain, latency grows with every doubling of the group beyond two.
    """
    if group <= 1:
        return 0.0
    bytes_per_s, latency_s = link(rates, group)
    if group <= rates.domain:
        bytes_per_s *= mesh_share(rates, group)
        latency_s *= 1.0 + rates.constants.latency_growth * math.log2(group / 2)
    return latency_s + 2.0 * (group - 1.0) / group * message_bytes / bytes_per_s


def all_to_all_s(sums: LlmSums, rates: Rates, layout: Layout, tokens: float) -> float:
    """Tokens to their experts and back, one layer: copies inside the domain or one a foreign domain, the slower. [s]

    A token reaches n·(1 - (1 - 1/n)^k)·(n - 1)/n other members of n that its k experts are spread over.
    """
    group, choices = layout.ep, max(sums.active_experts, 1)
    bytes_per_token = sums.hidden_size * EXCHANGE_BYTES
    copies = _others_reached(group, choices) * (layout.tp * layout.dp * layout.cp / layout.ep)
    seconds = copies * bytes_per_token / (rates.inside_bytes_per_s * mesh_share(rates, group))
    latency_s = rates.constants.exchange_latency_s
    if group > rates.domain:
        far = _others_reached(math.ceil(group / rates.domain), choices)
        seconds = max(seconds, far * bytes_per_token / rates.outside_bytes_per_s)
        latency_s = rates.constants.scale_out_latency_s
    return 2.0 * latency_s + seconds * tokens * _skew(sums, rates, layout)


def _others_reached(members: float, choices: int) -> float:
    return members * -math.expm1(choices * math.log1p(-1.0 / members)) * (members - 1.0) / members
