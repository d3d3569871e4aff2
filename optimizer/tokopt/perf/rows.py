"""Predictions for tables: many deployments that share a machine and a model, all at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tokopt.perf.arithmetic import LlmArithmetic
from tokopt.perf.arrays import Floats
from tokopt.perf.closed_loop import ClosedLoop, aggregated_closed_loop, disaggregated_closed_loop
from tokopt.perf.layouts import Layouts
from tokopt.perf.machine import Machine
from tokopt.perf.memory import MemoryUse, memory_use, resident_tokens
from tokopt.perf.replica import transfer_s
from tokopt.perf.serving import Lengths


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Deployments under a constant concurrency, one element a row; a pool's workers are 0 where rows are aggregated."""

    decode: Layouts  # the only worker of an aggregated row
    decode_workers: NDArray[np.float64]
    prefill: Layouts
    prefill_workers: NDArray[np.float64]
    size: Lengths
    input_tokens: NDArray[np.float64]
    output_tokens: NDArray[np.float64]
    concurrency: NDArray[np.float64]
    running_cap: NDArray[np.float64]  # requests in service that settings allow, whole replica
    depth: NDArray[np.float64]
    accepted: NDArray[np.float64]
    chunk_tokens: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicted:
    """Predictions of rows; NaN where a row does not fit."""

    loop: ClosedLoop
    memory: MemoryUse
    accelerators: Floats
    fits: NDArray[np.bool_]
    output_tokens_per_s: Floats  # of the whole replica


def worker_memory(
    model: LlmArithmetic, machine: Machine, layouts: Layouts, rows: Rows, *, role: str, depth: Floats
) -> MemoryUse:
    """Return the memory of one worker for its role: `agg`, `prefill` (prompts only) or `decode` (no chunk)."""
    whole = rows.input_tokens + rows.output_tokens
    prompt_only = role == "prefill"
    resident = resident_tokens(rows.input_tokens, rows.output_tokens, rows.size.output_cv)
    return memory_use(
        model,
        machine,
        layouts,
        chunk_tokens=0.0 if role == "decode" else rows.chunk_tokens,
        draft_depth=depth,
        mean_resident_tokens=rows.input_tokens if prompt_only else resident,
        longest_tokens=rows.input_tokens if prompt_only else whole,
    )


def predict_aggregated(model: LlmArithmetic, machine: Machine, rows: Rows) -> Predicted:
    """Return closed-loop predictions of aggregated rows."""
    memory = worker_memory(model, machine, rows.decode, rows, role="agg", depth=rows.depth)
    slots = np.minimum(np.asarray(memory.sequences), rows.running_cap)
    fits = slots >= 1.0
    loop = aggregated_closed_loop(
        model,
        machine,
        rows.decode,
        rows.size,
        concurrency=rows.concurrency,
        slots=np.maximum(slots, 1.0),
        depth=rows.depth,
        accepted=rows.accepted,
        chunk_tokens=rows.chunk_tokens,
    )
    return Predicted(
        loop=loop,
        memory=memory,
        accelerators=rows.decode.accelerators,
        fits=fits,
        output_tokens_per_s=loop.requests_per_s * rows.output_tokens,
    )


def predict_disaggregated(model: LlmArithmetic, machine: Machine, rows: Rows) -> Predicted:
    """Return closed-loop predictions of disaggregated rows."""
    memory = worker_memory(model, machine, rows.decode, rows, role="decode", depth=rows.depth)
    prompts = worker_memory(model, machine, rows.prefill, rows, role="prefill", depth=0.0)
    slots = np.minimum(np.asarray(memory.sequences), rows.running_cap / rows.decode_workers)
    fits = (slots >= 1.0) & (np.asarray(prompts.sequences) >= 1.0)
    accelerators = rows.prefill_workers * rows.prefill.accelerators + rows.decode_workers * rows.decode.accelerators
    loop = disaggregated_closed_loop(
        model,
        machine,
        rows.size,
        prefill=rows.prefill,
        prefill_workers=rows.prefill_workers,
        decode=rows.decode,
        decode_workers=rows.decode_workers,
        transfer_s=transfer_s(
            model,
            machine,
            input_tokens=rows.input_tokens,
            sender=rows.prefill.accelerators,
            receiver=rows.decode.accelerators,
            replica=accelerators,
        ),
        concurrency=rows.concurrency,
        slots=np.maximum(slots, 1.0),
        depth=rows.depth,
        accepted=rows.accepted,
        chunk_tokens=rows.chunk_tokens,
    )
    return Predicted(
        loop=loop,
        memory=memory,
        accelerators=accelerators,
        fits=fits,
        output_tokens_per_s=loop.requests_per_s * rows.output_tokens,
    )
