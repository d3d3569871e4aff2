"""Static batches: every prompt is computed first, then every output, with nothing arriving in between."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tokopt.perf.arithmetic import LlmArithmetic
from tokopt.perf.arrays import Floats
from tokopt.perf.layouts import Layouts
from tokopt.perf.machine import Machine
from tokopt.perf.serving import Lengths
from tokopt.perf.step import StepSource, worker_steps


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticBatch:
    """One batch from start to end, one element a deployment. [s]"""

    ttft_s: Floats  # until all prompts are computed
    tpot_s: Floats  # a decode step
    total_s: Floats


def static_batch(
    model: LlmArithmetic,
    machine: Machine,
    layouts: Layouts,
    size: Lengths,
    *,
    batch: Floats,
    slots: Floats,
    chunk_tokens: Floats,
    source: StepSource = worker_steps,
) -> StaticBatch:
    """Return the time of a batch of `batch` equal requests, of which at most `slots` fit at a time.

        total = prompts / chunk · pass + max(1, batch / slots) · decoded · step

    A batch that does not fit runs one load of slots after another.
    """
    queues = layouts.queues
    prompt_tokens = batch * size.new / queues
    chunk = np.minimum(prompt_tokens, np.maximum(chunk_tokens, 1.0))

    steps = source(
        model, machine, layouts, width=1.0, context=size.decode_context, prefill_context=size.prefill_context
    )
    loads = np.maximum(batch / slots, 1.0)
    passes_s = steps(sequences=0.0, prefill_tokens=chunk).total * prompt_tokens / chunk
    step_s = steps(sequences=np.minimum(batch, slots) / queues, prefill_tokens=0.0).total
    return StaticBatch(
        ttft_s=machine.request_overhead_s + passes_s / loads,
        tpot_s=step_s,
        total_s=machine.request_overhead_s + passes_s + loads * size.decoded * step_s,
    )
