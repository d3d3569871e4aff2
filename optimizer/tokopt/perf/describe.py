"""A replica's figures that plans and estimates report besides rates and latencies: memory, bottleneck, power."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tokopt.domain.accelerators import Accelerator
from tokopt.domain.workloads import Workload
from tokopt.perf.arithmetic import LlmArithmetic
from tokopt.perf.machine import Machine
from tokopt.perf.memory import MemoryUse, serving_memory
from tokopt.perf.power import PowerShares, board_watts, throttled_w
from tokopt.perf.replica import Worker, prompts_a_batch
from tokopt.perf.serving import Steady, steady_state, workload_lengths
from tokopt.perf.step import StepSource, worker_steps


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryShares:
    """Memory of the fullest accelerator of a worker. [B]"""

    weights: float
    kv: float
    other: float
    free: float


def _memory(
    model: LlmArithmetic, machine: Machine, worker: Worker, workload: Workload, *, prefill: bool, role: str = ""
) -> MemoryUse:
    return serving_memory(
        model,
        machine,
        worker.layouts,
        role=role or ("agg" if prefill else "decode"),
        input_tokens=workload.input_tokens,
        output_tokens=workload.output_tokens,
        output_cv=workload.output_cv,
        chunk_tokens=float(worker.chunk_tokens),
        draft_depth=float(worker.depth),
    )


def memory_shares(
    model: LlmArithmetic, machine: Machine, worker: Worker, workload: Workload, *, slots: int, prefill: bool
) -> MemoryShares:
    """Return how a worker's memory is taken when `slots` mean requests are resident.

    `other` is what the framework keeps for itself and a prefill chunk's activations (none in a decode pool).
    """
    use = _memory(model, machine, worker, workload, prefill=prefill)
    return _shares(use, machine, held=slots / worker.dp)


def prompt_memory_shares(model: LlmArithmetic, machine: Machine, worker: Worker, workload: Workload) -> MemoryShares:
    """Return how a prefill worker's memory is taken while each rank and stage works on a batch of prompts."""
    use = _memory(model, machine, worker, workload, prefill=True, role="prefill")
    batch = float(prompts_a_batch(workload_lengths(workload), float(worker.chunk_tokens)))
    return _shares(use, machine, held=worker.pp * batch)


def _shares(use: MemoryUse, machine: Machine, *, held: float) -> MemoryShares:
    """Return the shares of memory with a cache of `held` sequences on a rank."""
    weights = float(use.weights)
    kv = held * float(use.per_sequence)
    memory = float(machine.memory_bytes)
    other = float(use.working) + memory - float(machine.usable_memory_bytes)
    return MemoryShares(weights=weights, kv=kv, other=other, free=memory - weights - kv - other)


def memory_slots(model: LlmArithmetic, machine: Machine, worker: Worker, workload: Workload, *, prefill: bool) -> float:
    """Return the requests that a worker's memory holds; 0 if it cannot hold one."""
    use = _memory(model, machine, worker, workload, prefill=prefill)
    return float(use.sequences)


def steady_at(
    model: LlmArithmetic,
    machine: Machine,
    worker: Worker,
    workload: Workload,
    *,
    running: float,
    prefill: bool,
    source: StepSource = worker_steps,
) -> Steady:
    """Return one worker's steady state with `running` decoding sequences."""
    return steady_state(
        model,
        machine,
        worker.layouts,
        workload_lengths(workload),
        running=np.array([max(running, 1e-6)]),
        depth=float(worker.depth),
        accepted=worker.accepted,
        chunk_tokens=float(worker.chunk_tokens),
        prefill=prefill,
        source=source,
    )


def time_shares(state: Steady) -> dict[str, float]:
    """Return what a worker's time goes to, as shares that add up to one."""
    decode = state.decode
    step = float(np.squeeze(state.step_s))
    shares = {
        "weights and dense layers": float(np.squeeze(decode.dense)) / step,
        "experts": float(np.squeeze(decode.experts)) / step,
        "attention over the cache": float(np.squeeze(decode.attention)) / step,
        "collectives": float(np.squeeze(decode.collectives)) / step,
        "launch and scheduling": float(np.squeeze(decode.overhead)) / step,
        "prefill": float(np.squeeze(state.prefill_share)),
    }
    return shares


def replica_drawn_w(
    accelerator: Accelerator, shares: PowerShares, *, accelerators: float, busy: float, compute_share: float
) -> float | None:
    """Return the mean wall power of a replica, or None where the catalog lacks idle, board or server power. [W]"""
    if accelerator.idle_w is None or accelerator.board_w is None or accelerator.server_w is None:
        return None
    each = throttled_w(shares, board_watts(accelerator), busy=busy, compute_share=compute_share)
    return float(each) * accelerators
