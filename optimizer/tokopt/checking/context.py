"""What context-parallel ranks send one another in a step, worked out layer group by layer group in plain numbers."""

from __future__ import annotations

import math

from tokopt.checking.arithmetic import LlmSums
from tokopt.checking.rates import Rates
from tokopt.domain.deployments import Layout

NUMBER_BYTES = 2.0  # of a query or of an output, in 16 bits
SUM_BYTES = 4.0  # of a head's sum of exponentials, in 32 bits


def cache_split(layout: Layout, heads: int) -> int:
    """Ways that one sequence's cache is split in a rank: by key-value heads first, then by tokens, at most tp."""
    return min(layout.tp, heads * layout.dcp)


def exchanges_s(
    sums: LlmSums, rates: Rates, layout: Layout, *, sequences: float, width: float, prompt: float, context: float
) -> float:
    """Time of what context parallelism adds to a step; nothing hides it. [s]

    Args:
        sums: The model.
        rates: Links of one accelerator.
        layout: The worker's.
        sequences: That decode, of one rank.
        width: Tokens that each verifies.
        prompt: Prompt tokens of the chunk, before they are split over `cp` ranks.
        context: Tokens that one of them attends to.
    """
    seconds = 0.0
    for group in sums.attention:
        if layout.cp > 1 and prompt > 0.0:
            # Each rank gets the keys and values of the others' tokens, once a layer.
            received = (group.cache_bytes_per_token + group.index_bytes_per_token) * prompt
            received *= (layout.cp - 1) / layout.cp / min(layout.tp, group.cache_shards)
            stage = layout.tp * layout.dp * layout.cp
            seconds += _sent_s(rates, layout.cp, stage, times=group.layers, bytes_received=received)
        if layout.dcp > 1 and group.cache_bytes_per_token > 0.0:
            others = (layout.dcp - 1) / layout.dcp
            if sequences > 0.0:
                heads = layout.dcp / layout.tp  # share of all heads that the ranks of a group have together
                numbers = group.decode_flop_per_pair / 2.0 * heads * NUMBER_BYTES
                exponentials = layout.dcp * group.layers * sums.heads * heads * SUM_BYTES
                received = sequences * width * (numbers + exponentials) * others
                # Queries, sums and outputs: three collectives a layer.
                seconds += _sent_s(rates, layout.dcp, layout.tp, times=3 * group.layers, bytes_received=received)
            if prompt > 0.0:
                seen = group.cache_bytes_per_token * min(context, group.read_tokens)
                seen += group.index_bytes_per_token * context
                received = seen * others / min(layout.tp, group.cache_shards)
                seconds += _sent_s(rates, layout.dcp, layout.tp, times=group.layers, bytes_received=received)
    return seconds


def _sent_s(rates: Rates, group: int, spread: int, *, times: int, bytes_received: float) -> float:
    """Time of `times` all-gathers of a group that receive so much in all; outside links once it outgrows a domain."""
    constants = rates.constants
    if spread > rates.domain:
        return times * constants.scale_out_latency_s + bytes_received / rates.outside_bytes_per_s
    latency_s = constants.scale_up_latency_s * (1.0 + constants.latency_growth * math.log2(group / 2))
    used = 1.0
    if rates.mesh and rates.domain > 1:
        used = max(min(group, rates.domain) - 1.0, 1.0) / (rates.domain - 1.0)
    return times * latency_s + bytes_received / (rates.inside_bytes_per_s * used)


def alone_share(rates: Rates, layout: Layout, chunks: float) -> float:
    """Time of a lone prompt over that of its chunks one after another: (m + pp - 1) of m · pp stage passes.

    1 where a framework does not start a chunk before the last one has left the pipeline.
    """
    if not rates.pipelines_chunks or layout.pp == 1:
        return 1.0
    m = max(chunks, 1.0)
    return (m + layout.pp - 1.0) / (m * layout.pp)
