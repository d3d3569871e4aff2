"""Continuous batching in a steady state: step time, throughput and latencies of one worker at a running batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tokopt.domain.workloads import Workload
from tokopt.perf.arithmetic import LlmArithmetic
from tokopt.perf.arrays import Floats
from tokopt.perf.context import pipelined
from tokopt.perf.layouts import Layouts
from tokopt.perf.machine import Machine
from tokopt.perf.step import StepSource, StepTime, worker_steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Mean lengths of a request as the steps see them, and their coefficients of variation. [tokens]"""

    new: Floats  # prompt tokens to be computed
    cached: Floats  # prompt tokens found in the prefix cache
    decoded: Floats  # tokens produced by decode steps: all but the first
    input_cv: Floats
    output_cv: Floats

    @property
    def decode_context(self) -> Floats:
        """Mean cached tokens of a decoding sequence: its prompt and half of its output.

        Long outputs are met more often than short ones, since they decode longer: E[O²]/E[O] = O·(1 + cv²).
        """
        return self.new + self.cached + 0.5 * self.decoded * (1.0 + self.output_cv**2)

    @property
    def prefill_context(self) -> Floats:
        """Mean tokens that a prompt token attends to: the cached prefix and half of the rest (causal mask).

        Long prompts have more of the tokens: E[I²]/E[I] = I·(1 + cv²).
        """
        return (self.cached + 0.5 * self.new) * (1.0 + self.input_cv**2)


def lengths(
    input_tokens: Floats, output_tokens: Floats, prefix_share: Floats, *, input_cv: Floats, output_cv: Floats
) -> Lengths:
    """Return the lengths of requests; at least one prompt token is always computed, for the first output token."""
    cached = np.clip(input_tokens * np.asarray(prefix_share), 0.0, np.maximum(np.asarray(input_tokens) - 1.0, 0.0))
    return Lengths(
        new=input_tokens - cached,
        cached=cached,
        decoded=np.maximum(np.asarray(output_tokens) - 1.0, 1.0),
        input_cv=input_cv,
        output_cv=output_cv,
    )


def workload_lengths(workload: Workload) -> Lengths:
    """Return the lengths of a workload as plain numbers."""
    size = lengths(
        workload.input_tokens,
        workload.output_tokens,
        workload.prefix_share,
        input_cv=workload.input_cv,
        output_cv=workload.output_cv,
    )
    return Lengths(
        new=float(size.new),
        cached=float(size.cached),
        decoded=float(size.decoded),
        input_cv=size.input_cv,
        output_cv=size.output_cv,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Steady:
    """A worker with a constant number of decoding sequences, one element a deployment."""

    running: Floats  # sequences that decode, whole worker
    in_service: Floats  # sequences that hold cache: decoding or in prefill
    decode_step_s: Floats  # a step without prefill work
    step_s: Floats  # mean step
    tpot_s: Floats
    stall_s: Floats  # mean extra time per token from one prompt's prefill among the running requests
    requests_per_s: Floats
    prefill_s: Floats  # a prompt's own prefill, mixed with the decode steps it rides in
    alone_prefill_s: Floats  # the same where nothing else runs
    occupancy_s: Floats  # worker time that one prompt's prefill adds to the steps
    prefill_share: Floats  # of the worker's time
    prefill_wait_s: Floats  # mean wait for the prefills of others
    decode: StepTime  # parts of the decode step
    compute_share: Floats  # of the mean step, bound by arithmetic


def steady_state(
    model: LlmArithmetic,
    machine: Machine,
    layouts: Layouts,
    size: Lengths,
    *,
    running: Floats,
    depth: Floats,
    accepted: Floats,
    chunk_tokens: Floats,
    prefill: bool = True,
    decode: StepTime | None = None,
    source: StepSource = worker_steps,
) -> Steady:
    """Return the steady state of a worker that decodes `running` sequences and prefills their successors.

    In a steady state every step carries running·accepted/decoded new prompts; they come as chunks that either ride
    along in a decode step (shared weights are read once) or run on their own, as the framework's `mixing` says:

        step = decode step + chunks a step · (mixing · extra of a mixed step + (1 - mixing) · own step)
        TPOT = step / accepted,    requests/s = running / (decoded · TPOT)

    (continuous batching: Yu et al., Orca, OSDI 2022; chunked prefill: Agrawal et al., Sarathi-Serve, OSDI 2024).
    Attention-data-parallel ranks step together, so a chunk on one rank holds up the others to the extent of
    `rank_imbalance`. Waits for others' prefills follow Pollaczek and Khinchine's formula for M/G/1.

    Args:
        model: Bytes and FLOPs of the model.
        machine: Sustained rates of one accelerator.
        layouts: Parallel degrees.
        size: Lengths of requests.
        running: Sequences that decode, over all ranks and pipeline stages of the worker.
        depth: Speculation depth.
        accepted: Tokens a step yields at that depth.
        chunk_tokens: Token budget of a prefill chunk, a rank.
        prefill: False for a decode worker of a disaggregated deployment.
        decode: The step without prefill work, where it is known already.
        source: What says how long a step takes.
    """
    queues = layouts.queues
    sequences = running / queues
    if decode is not None and not prefill:
        return _decode_only(running, decode, size, accepted)
    steps = source(
        model,
        machine,
        layouts,
        width=1.0 + depth,
        context=size.decode_context,
        prefill_context=size.prefill_context,
        draft_depth=depth,
    )
    decode = steps(sequences=sequences, prefill_tokens=0.0) if decode is None else decode
    if not prefill:
        return _decode_only(running, decode, size, accepted)
    base = decode.total
    prompts = running * accepted / size.decoded  # a step, whole worker
    prompt_tokens = prompts * size.new / queues  # a step, a rank and micro-batch
    chunk = np.minimum(size.new, chunk_tokens)
    if np.any(chunk < chunk_tokens):  # else every prompt fills its chunks, whatever else runs
        chunk = np.maximum(np.minimum(prompt_tokens, chunk_tokens), chunk)
    chunks = prompt_tokens / chunk
    mixed = steps(sequences=sequences, prefill_tokens=chunk)
    alone = steps(sequences=0.0, prefill_tokens=chunk)
    extra, own = mixed.total - base, alone.total
    rides = machine.mixing * np.minimum(1.0, 1.0 / np.maximum(chunks, 1e-300))
    per_chunk = rides * extra + (1.0 - rides) * own
    apart = -np.expm1(layouts.dp * np.log1p(-np.minimum(chunks, 1.0 - 1e-12)))  # some rank has a chunk
    held_up = chunks + machine.rank_imbalance * np.maximum(apart - chunks, 0.0)
    added = held_up * per_chunk
    step = base + added
    tpot = step / accepted
    rate = running / (size.decoded * tpot)
    share = added / step
    passes = size.new / chunk * pipelined(machine, layouts, size.new / chunk)
    prefill_s = passes * (own + machine.mixing * np.maximum(mixed.total - own, 0.0))
    wait = share / np.maximum(1.0 - share, 1e-9) * prefill_s * 0.5 * (1.0 + size.input_cv**2)
    occupancy = added / np.maximum(prompts, 1e-300)
    return Steady(
        running=running,
        in_service=running + rate * (prefill_s + wait),
        decode_step_s=base,
        step_s=step,
        tpot_s=tpot,
        stall_s=occupancy / size.decoded,
        requests_per_s=rate,
        prefill_s=prefill_s,
        alone_prefill_s=passes * own,
        occupancy_s=occupancy,
        prefill_share=share,
        prefill_wait_s=wait,
        decode=decode,
        compute_share=(decode.compute_share * base + share * step * alone.compute_share) / step,
    )


def _decode_only(running: Floats, decode: StepTime, size: Lengths, accepted: Floats) -> Steady:
    """Return the steady state of a worker that never prefills."""
    base = decode.total
    zero = 0.0 * base
    tpot = base / accepted
    return Steady(
        running=running,
        in_service=running + zero,
        decode_step_s=base,
        step_s=base,
        tpot_s=tpot,
        stall_s=zero,
        requests_per_s=running / (size.decoded * tpot),
        prefill_s=zero,
        alone_prefill_s=zero,
        occupancy_s=zero,
        prefill_share=zero,
        prefill_wait_s=zero,
        decode=decode,
        compute_share=decode.compute_share,
    )
