"""Two-batch overlap: a step whose tokens are halved, so that one half computes while the other exchanges."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tokopt.perf.arrays import Floats

if TYPE_CHECKING:
    from tokopt.perf.arithmetic import LlmArithmetic
    from tokopt.perf.layouts import Layouts
    from tokopt.perf.machine import Machine
    from tokopt.perf.step import Steps, StepTime


def two_batches_s(*, computing: Floats, links: Floats, latency: Floats, rounds: Floats) -> Floats:
    """Time of two halves that take turns in computing and in exchanging, round by round (layer by layer). [s]

    In each of r rounds a half computes C/r, then sends W/r over the links and waits Λ/r until all of it has arrived.
    One half computes at a time and one sends at a time; both may wait at once. Whichever of three things is longest
    decides, each with what cannot overlap it at the start or end:

        T = max(2·C + (W + Λ)/r,  C + W + Λ + max(C, W)/r,  2·W + (C + Λ)/r)

    accelerators that always compute, then the last exchange; either half's own chain, the second a turn later; links
    that always carry. The schedule that lets whoever comes first go first takes exactly that
    (DeepSeek-V3 report, arXiv 2412.19437, §3.4; github.com/deepseek-ai/profile-data).

    Args:
        computing: C, of one half over all rounds. [s]
        links: W, of one half: what the bandwidth takes. [s]
        latency: Λ, of one half: what passes without occupying links. [s]
        rounds: Layers that exchange.
    """
    exchange = links + latency
    turn = 1.0 / rounds
    accelerators = 2.0 * computing + exchange * turn
    chain = computing + exchange + np.maximum(computing, links) * turn
    carried = 2.0 * links + (computing + latency) * turn
    longest: Floats = np.maximum(np.maximum(accelerators, chain), carried)
    return longest


def two_batch_steps(
    step: Steps,
    exchange_s: Callable[[Floats], Floats],
    model: LlmArithmetic,
    machine: Machine,
    layouts: Layouts,
    *,
    width: Floats,
    modules: Floats,
) -> Steps:
    """Return what times steps that run as two halves: while one exchanges, the other computes (`two_batches_s`).

    Each half reads weights and launches kernels for itself; the scheduler runs once. Layers without an exchange hide
    nothing, and computing counts as spread evenly over layers.

    Args:
        step: What times a step of one batch.
        exchange_s: All-to-alls of a step by the tokens of a rank, as if no stage waited. [s]
        model: Bytes and FLOPs of the model.
        machine: Sustained rates of one accelerator.
        layouts: Parallel degrees.
        width: Tokens that a decoding sequence verifies.
        modules: Passes through the draft module.
    """
    waits = machine.slowdown * (1.0 + machine.pipeline_bubble * (layouts.pp - 1.0))
    latency_s = exchange_s(0.0) * waits
    rounds = np.maximum(model.moe_layers * (1.0 + modules / model.layers), 1.0)
    scheduler_s = machine.step_overhead_s * waits
    inside = model.moe_layers / model.layers

    def halves(*, sequences: Floats, prefill_tokens: Floats) -> StepTime:
        half = step(sequences=0.5 * sequences, prefill_tokens=0.5 * prefill_tokens)
        prompt = prefill_tokens / layouts.cp if layouts.splits_prompts else prefill_tokens
        exchanging = exchange_s(0.5 * (sequences * width + prompt)) * waits
        scheduling = scheduler_s + 0.5 * sequences * layouts.queues * machine.sequence_overhead_s * waits
        computing = (half.total - exchanging - scheduling) * inside
        both = two_batches_s(computing=computing, links=exchanging - latency_s, latency=latency_s, rounds=rounds)
        exposed = np.maximum(both - 2.0 * computing, 0.0)
        collectives = 2.0 * (half.collectives - exchanging) + exposed
        overhead = 2.0 * half.overhead - scheduler_s
        total = 2.0 * (half.dense + half.experts + half.attention) + collectives + overhead
        return replace(
            half,
            dense=2.0 * half.dense,
            experts=2.0 * half.experts,
            attention=2.0 * half.attention,
            collectives=collectives,
            overhead=overhead,
            compute_share=np.minimum(2.0 * half.compute_share * half.total / total, 1.0),
        )

    return halves


def better_of_both(
    whole: Steps, halves: Steps, may: NDArray[np.bool_], *, width: Floats, least_tokens: Floats
) -> Steps:
    """Return what times steps that run as halves where they `may`, have tokens enough, and that takes less time.

    Engines have a threshold of tokens for it, or a switch.

    Args:
        whole: What times steps of one batch.
        halves: What times steps of two.
        may: Layouts that exchange and may be halved.
        width: Tokens that a decoding sequence verifies.
        least_tokens: Tokens of a rank from which on the engine does it.
    """

    def better(*, sequences: Floats, prefill_tokens: Floats) -> StepTime:
        one = whole(sequences=sequences, prefill_tokens=prefill_tokens)
        two = halves(sequences=sequences, prefill_tokens=prefill_tokens)
        enough = np.asarray(sequences * width + prefill_tokens) >= least_tokens
        chosen = may & enough & (two.total < one.total)
        if not np.any(chosen):
            return one
        parts = {name: np.where(chosen, getattr(two, name), getattr(one, name)) for name in type(one).__slots__}
        return type(one)(**parts)

    return better
