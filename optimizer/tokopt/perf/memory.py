"""What fits: weights, cache and working memory of the fullest accelerator of a worker."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tokopt.perf.arithmetic import LlmArithmetic, resident_kv_bytes
from tokopt.perf.arrays import Floats
from tokopt.perf.layouts import Layouts
from tokopt.perf.machine import Machine

# Live activations while a chunk passes one layer: residual, normed input, projections and the feed-forward's widest
# tensor, each about the hidden size in 16 bits (counted from the layer's data flow;
# tensors of earlier layers are free).
LIVE_TENSORS = 12.0
LIVE_BYTES = 2.0


def resident_tokens(input_tokens: Floats, output_tokens: Floats, output_cv: Floats, *, reserved: Floats) -> Floats:
    """Mean tokens whose cache a running request takes up. [tokens]

    I + O·(1 + cv²)·(1 + r)/2: a cache that grows with the output, or, to the extent `reserved`, one that is set aside
    for the whole output when a request is admitted; long outputs stay longer.
    """
    return input_tokens + 0.5 * output_tokens * (1.0 + np.square(output_cv)) * (1.0 + np.asarray(reserved))


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryUse:
    """Bytes on the fullest accelerator, one element a deployment. [B]"""

    weights: Floats
    working: Floats  # activations of a prefill chunk
    available: Floats  # left for the cache; negative = does not fit
    per_sequence: Floats  # cache of one mean sequence on one accelerator
    sequences: Floats  # that fit, over the whole worker


def weight_bytes(model: LlmArithmetic, layouts: Layouts, draft_depth: Floats) -> Floats:
    """Weights on the fullest accelerator: layers split over stages, an end stage also holds a vocabulary table.

    bytes = ceil(L/pp)/L · (projections + dense)/tp + experts/(tp·dp·cp) + tables/tp + drafter  [B]

    An accelerator of the E experts of a layer and their R copies holds ceil((E + R)/ep).
    """
    share = np.ceil(model.layers / np.asarray(layouts.pp, dtype=float)) / model.layers
    # Experts are placed whole: uneven counts leave one accelerator with the ceiling.
    per_group = np.ceil((model.experts + layouts.redundant_experts) / np.asarray(layouts.ep, dtype=float))
    experts = model.moe_layers * per_group * model.expert_bytes / layouts.expert_split
    body = (model.projection_bytes + model.dense_bytes) / layouts.tp + experts
    both = model.embedding_bytes + model.head_bytes
    larger = np.maximum(model.embedding_bytes, model.head_bytes)
    tables = np.where(np.asarray(layouts.pp) > 1, larger, both) / layouts.tp
    draft = np.where(np.asarray(draft_depth) > 0, model.draft_bytes / layouts.stage, 0.0)
    if model.drafter is not None:
        # Split as the model is, and copied to every attention rank.
        draft = draft + np.where(np.asarray(draft_depth) > 0, model.drafter.weight_bytes / layouts.tp, 0.0)
    return share * body + tables + draft


def sequence_bytes(model: LlmArithmetic, layouts: Layouts, tokens: Floats, draft_depth: Floats = 0.0) -> Floats:
    """Cache of one sequence of `tokens` tokens on each accelerator of its rank: split over stages and cache shards. [B]

    Tensor parallelism wider than the key-value heads (or than one, for a latent cache) copies instead of splitting,
    unless decode context parallelism splits the tokens of the copies (`Layouts.cache_shards`); prefill context
    parallelism copies the cache to each of its ranks. A drafter of its own, which goes with one stage only, caches the
    same tokens, and its cache is not split by tokens.
    """
    per_stage = np.ceil(model.layers / np.asarray(layouts.pp, dtype=float)) / model.layers
    total: Floats = 0.0
    for part in model.attention:
        shards = layouts.cache_shards(part.kv_shards, part.state_bytes)
        cached = part.kv_bytes_per_token * np.minimum(tokens, part.resident_limit_tokens)
        total = total + (cached + part.index_bytes_per_token * tokens + part.state_bytes) / shards
    own = per_stage * total
    if model.drafter is None:
        return own
    drafted = sequence_bytes(model.drafter, replace(layouts, dcp=1.0), tokens)
    return own + np.where(np.asarray(draft_depth) > 0, drafted, 0.0)


def memory_use(
    model: LlmArithmetic,
    machine: Machine,
    layouts: Layouts,
    *,
    chunk_tokens: Floats,
    draft_depth: Floats,
    mean_resident_tokens: Floats,
    longest_tokens: Floats,
) -> MemoryUse:
    """Return what is taken and how many sequences fit.

    Args:
        model: Bytes of the model.
        machine: Usable memory of one accelerator, after the framework's own share and reserve.
        layouts: Parallel degrees.
        chunk_tokens: Prompt tokens in one step.
        draft_depth: Depth of speculation; above 0 the draft module, or the drafter and its cache, is resident.
        mean_resident_tokens: Mean cached tokens of a running sequence: see `resident_tokens`.
        longest_tokens: Tokens of a whole request: if not even one fits, none run.

    Returns:
        Memory of the fullest accelerator, and sequences that fit over all ranks and stages.
    """
    weights = weight_bytes(model, layouts, draft_depth)
    working = chunk_tokens / layouts.cp * (model.hidden_size * LIVE_TENSORS * LIVE_BYTES) + 0.0 * weights
    available = machine.usable_memory_bytes - weights - working
    per_sequence = sequence_bytes(model, layouts, mean_resident_tokens, draft_depth)
    fits_one = available >= sequence_bytes(model, layouts, longest_tokens, draft_depth)
    held = np.floor(np.maximum(available, 0.0) / np.maximum(per_sequence, 1.0))
    sequences = np.where(fits_one, held * layouts.dp, 0.0)
    return MemoryUse(
        weights=weights, working=working, available=available, per_sequence=per_sequence, sequences=sequences
    )


def serving_memory(
    model: LlmArithmetic,
    machine: Machine,
    layouts: Layouts,
    *,
    role: str,
    input_tokens: Floats,
    output_tokens: Floats,
    output_cv: Floats,
    chunk_tokens: Floats,
    draft_depth: Floats,
) -> MemoryUse:
    """Return the memory of a worker for its role: `agg`, `prefill` (prompts only) or `decode` (no chunk).

    Args:
        model: Bytes of the model.
        machine: Memory of one accelerator.
        layouts: Parallel degrees.
        role: What the worker does.
        input_tokens: Mean prompt.
        output_tokens: Mean output.
        output_cv: Coefficient of variation of the output.
        chunk_tokens: Prompt tokens in one step, where there are any.
        draft_depth: Depth of speculation.
    """
    if role == "prefill":
        resident = longest = input_tokens
    else:
        resident = resident_tokens(input_tokens, output_tokens, output_cv, reserved=machine.reserved_output)
        longest = input_tokens + output_tokens
    return memory_use(
        model,
        machine,
        layouts,
        chunk_tokens=0.0 if role == "decode" else chunk_tokens,
        draft_depth=draft_depth,
        mean_resident_tokens=resident,
        longest_tokens=longest,
    )


def cache_bytes_per_request(model: LlmArithmetic, input_tokens: Floats) -> Floats:
    """Cache that moves from prefill to decode for one request, before copies. [B]"""
    return resident_kv_bytes(model, input_tokens)
