"""Time of one forward step of a worker: decode, prefill, or both mixed.

One function serves all three, since a continuous-batching engine runs decode tokens and prefill chunks through the
same weights. All arguments are per micro-batch and per attention-data-parallel rank unless said otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, TypeAlias

import numpy as np

from tokopt.perf.arithmetic import LlmArithmetic
from tokopt.perf.arrays import Floats
from tokopt.perf.collectives import all_reduce_s, all_to_all_s, point_to_point_s
from tokopt.perf.context import context_exchanges
from tokopt.perf.expert_balance import traffic_imbalance
from tokopt.perf.host import waiting_for_host
from tokopt.perf.layouts import Layouts
from tokopt.perf.machine import Machine
from tokopt.perf.two_batch import better_of_both, two_batch_steps

ACTIVATION_BYTES = 2.0  # activations travel and reduce in 16 bits
DISPATCH_BYTES = 1.0  # tokens are dispatched to experts in FP8 ...
COMBINE_BYTES = 2.0  # ... and combined in 16 bits (DeepSeek-V3 report, arXiv 2412.19437, §3.2.2)
DRAFT_WIDTH = 2.0  # tokens of a sequence that a pass of a drafter takes in, on average


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTime:
    """Time of one step by what it is spent on, one element a deployment. [s]"""

    dense: Floats  # projections, dense feed-forward, output head, and what passes between them
    experts: Floats
    attention: Floats
    collectives: Floats
    overhead: Floats
    compute_share: Floats  # share of the step that the matrix units bound, for power

    @property
    def total(self) -> Floats:
        """Time of the whole step. [s]"""
        return self.dense + self.experts + self.attention + self.collectives + self.overhead


class Steps(Protocol):
    """What says how long a step of one kind of worker takes, whatever is in it."""

    def __call__(self, *, sequences: Floats, prefill_tokens: Floats) -> StepTime:
        """Return the time of one step by part; the arguments are those of `step_time`."""


class StepSource(Protocol):
    """What says how long steps take: `worker_steps`, or measured tables that are asked like it."""

    def __call__(
        self,
        model: LlmArithmetic,
        machine: Machine,
        layouts: Layouts,
        *,
        width: Floats,
        context: Floats,
        prefill_context: Floats,
        draft_depth: Floats = 0.0,
    ) -> Steps:
        """Return what times the steps of workers; the arguments are those of `step_time`."""


def roofline_s(memory: Floats, compute: Floats) -> Floats:
    """Time of a part that needs `memory` seconds of traffic and `compute` seconds of arithmetic: √(m² + c²). [s]

    The roofline max(m, c) (Williams, Waterman & Patterson, Commun. ACM 52(4), 2009) with its corner rounded: neither
    overlaps the other perfectly where both take long, and at the corner itself measured kernels take about √2 as long.
    """
    seconds: Floats = np.sqrt(np.square(memory) + np.square(compute))
    return seconds


def touched_experts(experts: Floats, active: Floats, tokens: Floats) -> Floats:
    """Distinct experts that `tokens` tokens choose: E·(1 - (1 - k/E)^n), choices taken as uniform."""
    missed = np.log1p(-np.minimum(active / np.maximum(experts, 1.0), 1.0 - 1e-12))
    touched = np.asarray(experts * -np.expm1(np.asarray(tokens) * missed), dtype=float)
    return np.where(np.asarray(active) >= experts, experts, touched)


def step_time(
    model: LlmArithmetic,
    machine: Machine,
    layouts: Layouts,
    *,
    sequences: Floats,
    width: Floats,
    context: Floats,
    prefill_tokens: Floats,
    prefill_context: Floats,
    draft_depth: Floats = 0.0,
) -> StepTime:
    """Return the time of one step of one micro-batch through all pipeline stages.

    Every part is a roofline with its corner rounded; parts follow one another.

    Args:
        model: Bytes and FLOPs of the model.
        machine: Sustained rates of one accelerator.
        layouts: Parallel degrees.
        sequences: Sequences that decode, a rank and micro-batch.
        width: Tokens that each of them verifies in the step (1 + speculation depth).
        context: Mean cached tokens of a decoding sequence.
        prefill_tokens: Prompt tokens in the step, a rank.
        prefill_context: Mean cached tokens that a prompt token attends to.
        draft_depth: Draft tokens a sequence: passes through the multi-token-prediction module, or through a drafter.

    Returns:
        The step's time by part. [s]
    """
    steps = worker_steps(
        model,
        machine,
        layouts,
        width=width,
        context=context,
        prefill_context=prefill_context,
        draft_depth=draft_depth,
    )
    return steps(sequences=sequences, prefill_tokens=prefill_tokens)


def worker_steps(
    model: LlmArithmetic,
    machine: Machine,
    layouts: Layouts,
    *,
    width: Floats,
    context: Floats,
    prefill_context: Floats,
    draft_depth: Floats = 0.0,
) -> Steps:
    """Return what times the steps of workers: `step_time` with all that does not depend on a step's load worked out.

    A steady state asks for several steps of the same workers, and most of what goes into a step follows from the
    layout alone. The arguments are those of `step_time`.
    """
    modules = draft_depth * model.draft_modules
    dense = _dense(model, machine, layouts, modules)
    activations = _activations(model, machine)
    experts = _experts(model, machine, layouts, modules)
    decode_attention = _decode_attention(model, machine, layouts, width, context)
    prefill_attention_s = _prefill_attention_s(model, machine, layouts, prefill_context)
    exchange_s = expert_exchange_s(model, machine, layouts, modules)
    collectives = _collectives(model, machine, layouts, modules, exchange_s)
    context_exchange = context_exchanges(model, machine, layouts, width, prefill_context)
    overhead = _overhead(model, machine, layouts, modules)
    drafting = None
    if model.drafter is not None and np.any(draft_depth):
        drafting = _drafting(model.drafter, machine, layouts, draft_depth, context, prefill_context)
    # Stages of a pipeline wait for one another where micro-batches differ: each further stage adds to it.
    waits = machine.slowdown * (1.0 + machine.pipeline_bubble * (layouts.pp - 1.0))

    def step(*, sequences: Floats, prefill_tokens: Floats) -> StepTime:
        decode = sequences * width
        # Context-parallel ranks share a prompt's tokens, and each decodes all sequences.
        prompt = prefill_tokens / layouts.cp if layouts.splits_prompts else prefill_tokens
        tokens = decode + prompt
        dense_s, dense_compute = dense(tokens, decode)
        expert_s, expert_compute = experts(tokens * layouts.ranks)
        # A plain zero means that the step has no such part at all: most steps are one or the other.
        nothing: Floats = 0.0
        idle = isinstance(sequences, float) and sequences == 0.0
        decode_s, decode_compute = (nothing, nothing) if idle else decode_attention(sequences)
        alone = isinstance(prefill_tokens, float) and prefill_tokens == 0.0
        prefill_s = nothing if alone else prompt * prefill_attention_s
        collective_s = collectives(tokens)
        if context_exchange is not None:
            collective_s = collective_s + context_exchange(sequences, prefill_tokens)
        dense_s = dense_s + activations(tokens)
        overhead_s = overhead(sequences)
        attention_s = decode_s + prefill_s
        bound = dense_compute + expert_compute + decode_compute + prefill_s
        if drafting is not None:
            drafts = drafting(sequences, prompt, idle)
            dense_s = dense_s + drafts.dense
            attention_s = attention_s + drafts.attention
            collective_s = collective_s + drafts.collectives
            overhead_s = overhead_s + drafts.overhead
            bound = bound + drafts.compute
        total = dense_s + expert_s + attention_s + collective_s + overhead_s
        return StepTime(
            dense=dense_s * waits,
            experts=expert_s * waits,
            attention=attention_s * waits,
            collectives=collective_s * waits,
            overhead=overhead_s * waits,
            compute_share=np.minimum(bound / total, 1.0),
        )

    waiting = partial(waiting_for_host, model, machine, layouts, draft_depth)
    halved = np.asarray(layouts.two_batch_overlap) * layouts.has_all_to_all
    if not np.any(halved):
        return waiting(step, 1.0)
    halves = two_batch_steps(step, exchange_s, model, machine, layouts, width=width, modules=modules)
    return better_of_both(
        waiting(step, 1.0), waiting(halves, 2.0), halved > 0.0, width=width, least_tokens=machine.two_batch_tokens
    )


# Each part of a step is a function of the step's load; what the layout alone decides is worked out beforehand.
Part: TypeAlias = Callable[[Floats], Floats]  # -> its time [s]
Rooflined: TypeAlias = Callable[[Floats], tuple[Floats, Floats]]  # -> its time, and that of its arithmetic alone [s]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Drafts:
    """What the passes of a drafter add to a step. [s]"""

    dense: Floats
    attention: Floats
    collectives: Floats
    overhead: Floats
    compute: Floats  # arithmetic alone


def _drafting(
    drafter: LlmArithmetic,
    machine: Machine,
    layouts: Layouts,
    depth: Floats,
    context: Floats,
    prefill_context: Floats,
) -> Callable[[Floats, Floats, bool], _Drafts]:
    """Return what a head or a model of its own adds: passes one after another, each over its weights, cache and head.

    Of the d passes of a step the first takes in the 1 + d tokens that were verified, and each later one the token
    drafted before it: 2·d tokens a sequence in all, counted as two a pass. Prompts pass once, with the first. The
    drafter is split over `tp` as the model is, multiplies in 16 bits, and is launched like any other layers; a step
    without decoding sequences drafts nothing.
    """
    wide = machine.head_flop_per_s
    machine = replace(machine, projection_flop_per_s=wide, latent_projection_flop_per_s=wide, dense_flop_per_s=wide)
    dense = _dense(drafter, machine, layouts, 0.0)
    activations = _activations(drafter, machine)
    # A drafter's own cache is split by heads alone.
    attention = _decode_attention(drafter, machine, replace(layouts, dcp=1.0), DRAFT_WIDTH, context)
    prefill_attention_s = _prefill_attention_s(drafter, machine, layouts, prefill_context)
    collectives = _collectives(drafter, machine, layouts, 0.0, expert_exchange_s(drafter, machine, layouts, 0.0))
    launches = _launches(drafter, machine)
    some = np.minimum(depth, 1.0)

    def drafts(sequences: Floats, prefill_tokens: Floats, idle: bool) -> _Drafts:
        passes = some if idle else np.asarray(depth, dtype=float)
        prompt = prefill_tokens / np.maximum(passes, 1.0)
        tokens = DRAFT_WIDTH * sequences + prompt
        dense_s, dense_compute = dense(tokens, sequences)
        decode_s, decode_compute = attention(sequences)
        prefill_s = prompt * prefill_attention_s
        return _Drafts(
            dense=passes * (dense_s + activations(tokens)),
            attention=passes * (decode_s + prefill_s),
            collectives=passes * collectives(tokens),
            overhead=passes * launches,
            compute=passes * (dense_compute + decode_compute + prefill_s),
        )

    return drafts


def _dense(
    model: LlmArithmetic, machine: Machine, layouts: Layouts, drafts: Floats
) -> Callable[[Floats, Floats], tuple[Floats, Floats]]:
    """Projections, dense and shared feed-forward, output head: weights split over `tp`, copied over `dp`."""
    body = model.projection_parameters + model.latent_projection_parameters + model.dense_parameters
    passes = 1.0 + drafts * (model.draft_parameters / body)
    body_bytes = (model.projection_bytes + model.dense_bytes) * passes + model.head_bytes * (1.0 + drafts)
    per_token = 2.0 * (
        model.projection_parameters / machine.projection_flop_per_s
        + model.latent_projection_parameters / machine.latent_projection_flop_per_s
        + model.dense_parameters / machine.dense_flop_per_s
    )
    each = per_token * passes
    head = 2.0 * model.head_parameters / machine.head_flop_per_s * (1.0 + drafts)
    memory = body_bytes / machine.weight_bytes_per_s / layouts.tp

    def seconds(tokens: Floats, outputs: Floats) -> tuple[Floats, Floats]:
        compute = (tokens * each + outputs * head) / layouts.tp
        return roofline_s(memory, compute), compute

    return seconds


def _activations(model: LlmArithmetic, machine: Machine) -> Part:
    """Norms, residuals, rotary embeddings and quantisation: hidden vectors to and from memory, not split by `tp`."""
    vector_bytes = model.layers * model.hidden_size * ACTIVATION_BYTES
    passes = machine.activation_passes / machine.weight_bytes_per_s
    return lambda tokens: tokens * vector_bytes * passes


def _overhead(model: LlmArithmetic, machine: Machine, layouts: Layouts, drafts: Floats) -> Part:
    """Time for launches of every layer by its kind, scheduling of the step and of every sequence of all its queues."""
    fixed = _launches(model, machine) * (1.0 + drafts / model.layers) + machine.step_overhead_s
    queues = layouts.queues
    return lambda sequences: fixed + sequences * queues * machine.sequence_overhead_s


def _launches(model: LlmArithmetic, machine: Machine) -> Floats:
    """Return the time for launches of all layers by their kind, once. [s]"""
    return (
        model.layers * machine.layer_overhead_s
        + model.moe_layers * machine.expert_layer_overhead_s
        + model.linear_layers * machine.linear_layer_overhead_s
        + model.sparse_layers * machine.sparse_layer_overhead_s
    )


def _experts(model: LlmArithmetic, machine: Machine, layouts: Layouts, drafts: Floats) -> Rooflined:
    """Routed experts of all layers: the fullest accelerator reads its touched experts and multiplies its tokens."""
    if not np.any(model.experts):
        return lambda tokens: (0.0 * tokens, 0.0 * tokens)
    stage = layouts.stage
    passes = model.moe_layers * (1.0 + drafts / model.layers)
    imbalance = np.where(np.asarray(layouts.ep) > 1, machine.expert_imbalance, 1.0)
    slots = model.experts + layouts.redundant_experts
    held = slots / stage
    read_s = passes * model.expert_bytes / machine.expert_bytes_per_s
    multiplied_s = (
        imbalance * (passes * 2.0 * model.active_experts * model.expert_parameters / machine.expert_flop_per_s) / stage
    )
    if np.any(machine.popularity_spread):
        multiplied_s = multiplied_s * _traffic_imbalance(model, machine, layouts)

    def seconds(tokens: Floats) -> tuple[Floats, Floats]:
        local = touched_experts(slots, model.active_experts, tokens) / stage
        # An accelerator never reads more than the experts it holds, however unbalanced the choices.
        memory = np.minimum(local * imbalance, held) * read_s
        compute = tokens * multiplied_s
        return roofline_s(memory, compute), compute

    return seconds


def timed_tokens(machine: Machine, tokens: Floats, longest: float) -> Floats:
    """Return a context as attention's time counts it: tokens beyond the longest measured one gain by no `slowdown`.

    A `slowdown` below one was fitted to whole steps of short contexts, where attention is a small part. What it gave
    attention on top of its own fitted efficiency must not grow with the context: beyond, each token counts for 1/s. A
    margin that was asked for stays.
    """
    if math.isinf(longest) or not np.any(np.asarray(tokens) > longest):
        return tokens
    gained = np.maximum(machine.margin / np.asarray(machine.slowdown) - 1.0, 0.0)
    timed: Floats = tokens + gained * np.maximum(np.asarray(tokens) - longest, 0.0)
    return timed


def _decode_attention(
    model: LlmArithmetic, machine: Machine, layouts: Layouts, width: Floats, context: Floats
) -> Rooflined:
    """Cache reads, once a sequence and step; see `Layouts.cache_shards` for how many ways the cache splits."""
    each: list[tuple[Floats, Floats]] = []  # traffic and arithmetic of a sequence, by kind of attention [s]
    longest = machine.measured_input_tokens + machine.measured_output_tokens
    seen = timed_tokens(machine, context, longest)
    for part in model.attention:
        read = timed_tokens(machine, np.minimum(context, part.read_limit_tokens), longest)
        shards = layouts.cache_shards(part.kv_shards, part.state_bytes)
        bytes_read = part.kv_bytes_per_token * read + part.index_bytes_per_token * seen + 2.0 * part.state_bytes
        flop = part.decode_flop_per_pair * read + part.index_flop_per_pair * seen
        each.append(
            (bytes_read / machine.kv_bytes_per_s / shards, width * flop / machine.attention_flop_per_s / layouts.tp)
        )

    def seconds(sequences: Floats) -> tuple[Floats, Floats]:
        total: Floats = 0.0
        compute_total: Floats = 0.0
        for read_s, multiplied_s in each:
            compute = sequences * multiplied_s
            total = total + roofline_s(sequences * read_s, compute)
            compute_total = compute_total + compute
        return total, compute_total

    return seconds


def _prefill_attention_s(model: LlmArithmetic, machine: Machine, layouts: Layouts, context: Floats) -> Floats:
    """Score and value products of a prompt token against the mean context it sees: compute-bound. [s]"""
    flop: Floats = 0.0
    longest = 0.5 * machine.measured_input_tokens  # the causal mean of the longest prompt
    seen = timed_tokens(machine, context, longest)
    for part in model.attention:
        read = timed_tokens(machine, np.minimum(context, part.read_limit_tokens), longest)
        flop = flop + part.prefill_flop_per_pair * read + part.index_flop_per_pair * seen
    return flop / machine.prefill_attention_flop_per_s / layouts.tp


def _collectives(model: LlmArithmetic, machine: Machine, layouts: Layouts, drafts: Floats, exchange_s: Part) -> Part:
    """All-reduces of tensor parallelism, all-to-alls of expert parallelism, hand-overs of pipeline parallelism.

    A tensor-parallel layer reduces twice, after attention and after the feed-forward part (Megatron-LM, arXiv
    1909.08053, §3); where tokens travel to their experts, the all-to-all replaces the second.
    """
    passes = 1.0 + drafts / model.layers
    reduces = (2.0 * model.layers - model.moe_layers * layouts.has_all_to_all) * passes
    stages = np.asarray(layouts.pp)
    hand_overs = np.where(stages > 1, stages, 0.0)
    reduce_s = all_reduce_s(machine, layouts.tp)
    hand_over_s = point_to_point_s(machine, worker=layouts.accelerators)

    def seconds(tokens: Floats) -> Floats:
        message = tokens * (model.hidden_size * ACTIVATION_BYTES)
        time = reduces * reduce_s(message) + exchange_s(tokens)
        return time + hand_overs * hand_over_s(message / layouts.tp)

    return seconds


def expert_exchange_s(model: LlmArithmetic, machine: Machine, layouts: Layouts, drafts: Floats) -> Part:
    """All-to-alls of a step: what carries tokens to their experts and back, by the tokens of a rank. [s]

    Without tensor parallelism, experts that are split or spread over ranks still exchange; zero where none are.
    """
    exchanges = model.moe_layers * layouts.has_all_to_all * (1.0 + drafts / model.layers)
    exchange_s = all_to_all_s(
        machine,
        group=layouts.ep,
        choices=np.maximum(model.active_experts, 1.0),
        bytes_per_token=model.hidden_size * (DISPATCH_BYTES + COMBINE_BYTES),
        slices=layouts.expert_split,
    )
    slices = layouts.tp
    if np.any(machine.popularity_spread):  # the fullest receives and sends back as much more
        slices = layouts.tp / _traffic_imbalance(model, machine, layouts)
    return lambda tokens: exchanges * exchange_s(tokens / slices)


def _traffic_imbalance(model: LlmArithmetic, machine: Machine, layouts: Layouts) -> Floats:
    """Load of the fullest accelerator over the mean that the traffic alone makes, beside `expert_imbalance`."""
    experts = int(np.max(model.experts))
    return traffic_imbalance(experts, layouts.ep, layouts.redundant_experts, machine.popularity_spread)
