"""Context parallelism: what its ranks exchange in a step, and how long a prompt takes over the stages of a pipeline."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tokopt.perf.arithmetic import LlmArithmetic
from tokopt.perf.arrays import Floats
from tokopt.perf.collectives import all_gather_s
from tokopt.perf.layouts import Layouts
from tokopt.perf.machine import Machine

QUERY_BYTES = 2.0  # queries and partial outputs travel in 16 bits ...
LOG_SUM_BYTES = 4.0  # ... and the logarithm of each head's sum of exponentials in 32
MERGES = 2.0  # collectives that merge partial outputs: sums are gathered, outputs reduced and scattered

Exchanges = Callable[[Floats, Floats], Floats]  # sequences and prompt tokens of a rank -> time [s]


def context_exchanges(
    model: LlmArithmetic, machine: Machine, layouts: Layouts, width: Floats, prefill_context: Floats
) -> Exchanges | None:
    """Return what ranks of context parallelism exchange in a step, all layers; None where there are none.

    Nothing overlaps it. The arguments are those of `step.step_time`.
    """
    prompts = _prompt_exchange(model, machine, layouts) if layouts.splits_prompts else None
    queries = gathers = None
    if layouts.splits_cache:
        queries = _query_exchange(model, machine, layouts, width)
        gathers = _context_gather_s(model, machine, layouts, prefill_context)
    if prompts is None and queries is None:
        return None

    def seconds(sequences: Floats, prefill_tokens: Floats) -> Floats:
        total: Floats = 0.0
        some = np.asarray(prefill_tokens) > 0
        if prompts is not None:
            total = total + np.where(some, prompts(prefill_tokens), 0.0)
        if queries is not None and gathers is not None:
            total = total + np.where(np.asarray(sequences) > 0, queries(sequences), 0.0) + np.where(some, gathers, 0.0)
        return total

    return seconds


def _prompt_exchange(model: LlmArithmetic, machine: Machine, layouts: Layouts) -> Callable[[Floats], Floats]:
    """Return the all-gathers of a prompt's keys and values over `cp` ranks, by the tokens of the chunk, all layers. [s]

    Each rank computes keys and values of its own tokens and keeps a copy of the whole cache, so that every token's are
    gathered once: bytes = cache bytes a token · tokens / (ways that heads split it), (cp - 1)/cp of them from others
    (all-gather form of context parallelism: Yang et al., arXiv 2411.01783, §3; SGLang's prefill context parallelism).
    """
    each: Floats = 0.0
    layers: Floats = 0.0
    for part in model.attention:
        cached = part.kv_bytes_per_token + part.index_bytes_per_token
        each = each + cached / np.minimum(layouts.tp, part.kv_shards)
        layers = layers + part.layers
    # Of a stage, whose ranks stand next to one another; its stages may be anywhere.
    gather = all_gather_s(machine, layouts.cp, reach=layouts.stage)
    mean = each / np.maximum(layers, 1.0)
    return lambda tokens: layers * gather(mean * tokens)


def _query_exchange(
    model: LlmArithmetic, machine: Machine, layouts: Layouts, width: Floats
) -> Callable[[Floats], Floats]:
    """Return what decoding sequences exchange over `dcp` ranks, by the sequences of a rank, all layers. [s]

    Three collectives a layer: queries are all-gathered, each rank attends with the group's heads to its own tokens, the
    logarithms of the sums of exponentials are all-gathered, and outputs are reduced and scattered (decode context
    parallelism of vLLM; Bhatia et al., Helix Parallelism, arXiv 2507.07120, §2). A token moves, over the group's
    heads h·dcp/tp, the dimensions of a query and of an output: those that 2 FLOPs a cached token each are counted for.
    It does not depend on the context.
    """
    ways = layouts.dcp / layouts.tp
    moved: Floats = 0.0
    layers: Floats = 0.0
    for part in model.attention:
        tokens_cached = np.asarray(part.kv_bytes_per_token) > 0
        sums = part.layers * model.heads * layouts.dcp * LOG_SUM_BYTES
        moved = moved + np.where(tokens_cached, (part.decode_flop_per_pair / 2.0 * QUERY_BYTES + sums) * ways, 0.0)
        layers = layers + np.where(tokens_cached, part.layers, 0.0)
    gather = all_gather_s(machine, layouts.dcp, reach=layouts.tp)
    collectives = layers * (1.0 + MERGES)
    mean = moved * width / np.maximum(collectives, 1.0)
    return lambda sequences: collectives * gather(mean * sequences)


def _context_gather_s(model: LlmArithmetic, machine: Machine, layouts: Layouts, context: Floats) -> Floats:
    """Return the time in which a prefill chunk gathers the cache that `dcp` ranks hold of its prompt, all layers. [s]

    The chunk's tokens attend to all that comes before; its own keys and values are on every rank anyway. bytes = cache
    bytes a token · context / (ways that heads split it). Only workers that prefill and decode do this.
    """
    moved: Floats = 0.0
    layers: Floats = 0.0
    for part in model.attention:
        seen = np.minimum(context, part.read_limit_tokens)
        cached = part.kv_bytes_per_token * seen + part.index_bytes_per_token * context
        moved = moved + cached / np.minimum(layouts.tp, part.kv_shards)
        layers = layers + np.where(np.asarray(part.kv_bytes_per_token) > 0, part.layers, 0.0)
    seconds: Floats = layers * all_gather_s(machine, layouts.dcp, reach=layouts.tp)(moved / np.maximum(layers, 1.0))
    return seconds


def pipelined(machine: Machine, layouts: Layouts, chunks: Floats) -> Floats:
    """Return the time of a lone prompt over pipeline stages as a share of that of its chunks one after another.

    (1 + (pp - 1)/m) / pp for m chunks: while the second stage has the first chunk, the first has the second (chunked
    pipeline parallelism: Li et al., TeraPipe, ICML 2021; SGLang's bubble is (pp - 1)/(pp - 1 + m)). 1 where a framework
    sends the next chunk when the one before has passed all stages, and for a single chunk.
    """
    chunked = machine.chunked_pipeline
    if not np.any(chunked):
        return 1.0
    share: Floats = (1.0 + (layouts.pp - 1.0) / np.maximum(chunks, 1.0)) / layouts.pp
    return share if isinstance(chunked, float) else np.where(np.asarray(chunked) > 0, share, 1.0)
