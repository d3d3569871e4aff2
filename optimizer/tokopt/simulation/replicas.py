"""Replicas of one set-up as the inner loop takes them: tables of steps, slots, caches, pools."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from tokopt.domain.accelerators import Accelerator
from tokopt.domain.caching import Offload
from tokopt.domain.deployments import Deployment, ServingMode
from tokopt.domain.workloads import Workload
from tokopt.perf.arithmetic import LlmArithmetic
from tokopt.perf.caching import offload_of, tiers, token_bytes
from tokopt.perf.context import pipelined
from tokopt.perf.deployed import decode_layout, decode_worker, prefill_worker
from tokopt.perf.fluctuation import idle_w
from tokopt.perf.machine import Machine
from tokopt.perf.memory import serving_memory
from tokopt.perf.power import BoardWatts
from tokopt.perf.replica import Worker, front_s, transfer_s
from tokopt.perf.serving import Lengths, workload_lengths
from tokopt.perf.step import StepSource, worker_steps
from tokopt.simulation.step_tables import StepTables, step_tables

Array = NDArray[np.float64]

LONGEST_FACTOR = 4.0  # of mean lengths and their spread: contexts beyond follow the last straight line


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaSetup:
    """Replicas of one set-up, in the terms of the performance model, and what is asked of them."""

    model: LlmArithmetic
    machine: Machine  # with which first tokens do not wait for caches that come back: that is simulated
    deployment: Deployment
    workload: Workload  # its means are what mixed steps are tabled for
    slots: int  # requests in service of a worker that decodes
    accepted: float
    chances: tuple[float, ...]  # of each draft to be accepted, as deep as the deployment drafts
    longest_tokens: int  # of a request, by the model
    watts: BoardWatts | None = None
    sending: tuple[Machine, BoardWatts | None] | None = None  # what prefills, where that is another accelerator
    accelerator: Accelerator | None = None  # whose memory is behind a cache; None = nothing is
    block_tokens: int = 0  # that prompts repeat by; 0 = nothing is cached
    source: StepSource = field(default=worker_steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What replicas of one set-up are made of."""

    steps: StepTables
    fields: dict[str, float]  # columns of the table of kinds that are numbers of their own
    engines: int = 1  # of a replica
    ranks: int = 1  # of an engine
    most_tokens: int = 1 << 40  # of a request that fits
    chances: tuple[float, ...] = ()  # of each draft to be accepted
    pool: StepTables | None = None
    servers: int = 0  # of its prefill pool
    server_cache_tokens: int = 0
    block_tokens: int = 0  # that prompts repeat by; 0 = nothing is cached
    host_tokens: int = 0  # behind the cache of a rank, or of a server


def kind_of(setup: ReplicaSetup) -> Kind:
    """Return what the replicas of a set-up are made of."""
    deployment, machine, workload = setup.deployment, setup.machine, setup.workload
    layout, workers = decode_layout(deployment)
    worker = decode_worker(deployment, setup.accepted)
    size = workload_lengths(workload)
    agg = deployment.mode is ServingMode.AGG
    slots = _shared_out(setup.slots, layout.pp)
    longest = float(min(setup.longest_tokens, _long(workload)))
    steps = step_tables(
        setup.model,
        machine,
        worker,
        size,
        sequences=slots,
        longest_tokens=longest,
        decodes=True,
        watts=setup.watts,
        source=setup.source,
    )
    capacity = _cache(setup, machine, worker, "agg" if agg else "decode")
    capacity = max(capacity // layout.pp, 1)
    front = float(machine.request_overhead_s)
    fields = {
        "mixing": float(machine.mixing),
        "rank_imbalance": float(machine.rank_imbalance),
        "chunk_tokens": deployment.chunk_tokens,
        "depth": deployment.speculation_depth,
        "accepted": setup.accepted,
        "slots": slots,
        "rank_slots": math.ceil(slots / layout.dp),
        "cache_tokens": capacity,
        "reserved_share": float(machine.reserved_output),
        "front_s": front,
        "wake_s": 0.5 * float(np.interp(size.decode_context, steps.contexts, steps.decode_s[1])) if agg else 0.0,
        "pipelined": _pipelined(machine, worker, size),
        "disaggregated": 0 if agg else 1,
        "pool_efficiency": 1.0,
        "pool_pipelined": 1.0,
        "idle_w": _idle(setup, layout.accelerators * workers),
    }
    pool, servers, server_cache = None, 0, 0
    if not agg:
        pool, servers, server_cache, fields_of_pool = _pool(setup, size, longest)
        fields |= fields_of_pool
    host, restore = _behind(setup, worker if agg else prefill_worker(deployment))
    fields["restore_s_per_token"] = restore
    return Kind(
        chances=setup.chances[: deployment.speculation_depth],
        block_tokens=setup.block_tokens,
        steps=steps,
        pool=pool,
        fields=fields,
        engines=workers * layout.pp,
        ranks=layout.dp,
        servers=servers,
        server_cache_tokens=server_cache,
        host_tokens=host,
        most_tokens=min(setup.longest_tokens, capacity - 2 * (1 + deployment.speculation_depth) - 16),
    )


def _shared_out(slots: int, stages: int) -> int:
    """Return the slots of one of a worker's engines."""
    return max(slots // stages, 1)


def _long(workload: Workload) -> float:
    inputs = workload.input_tokens * (1.0 + LONGEST_FACTOR * workload.input_cv)
    outputs = workload.output_tokens * (1.0 + LONGEST_FACTOR * workload.output_cv)
    return max(2.0 * (workload.input_tokens + workload.output_tokens), inputs + outputs)


def _pipelined(machine: Machine, worker: Worker, size: Lengths) -> float:
    chunks = math.ceil(float(size.new) / worker.chunk_tokens)
    return float(np.squeeze(pipelined(machine, worker.layouts, float(chunks))))


def _idle(setup: ReplicaSetup, decoding: int) -> float:
    """Return what a replica draws with nothing to do, not a number where that is not known. [W]"""
    if setup.watts is None:
        return math.nan
    total = decoding * idle_w(setup.machine, setup.watts)
    if setup.deployment.prefill is not None:
        machine, watts = setup.sending or (setup.machine, setup.watts)
        if watts is None:
            return math.nan
        total += setup.deployment.prefill.accelerators * idle_w(machine, watts)
    return total


def _cache(setup: ReplicaSetup, machine: Machine, worker: Worker, role: str) -> int:
    """Return the tokens that the cache of a rank holds."""
    workload = setup.workload
    use = serving_memory(
        setup.model,
        machine,
        worker.layouts,
        role=role,
        input_tokens=workload.input_tokens,
        output_tokens=workload.output_tokens,
        output_cv=workload.output_cv,
        chunk_tokens=float(worker.chunk_tokens),
        draft_depth=float(worker.depth),
    )
    context = workload.input_tokens + workload.output_tokens
    each = float(np.squeeze(token_bytes(setup.model, worker.layouts, context, float(worker.depth))))
    return int(max(float(np.squeeze(use.available)), 0.0) / each)


def _pool(setup: ReplicaSetup, size: Lengths, longest: float) -> tuple[StepTables, int, int, dict[str, float]]:
    """Return the steps of a prefill worker, how many servers there are, the cache of one, and the pool's figures."""
    deployment, workload = setup.deployment, setup.workload
    prefill, decode = deployment.prefill, deployment.decode
    assert prefill is not None and decode is not None
    machine, watts = setup.sending or (setup.machine, setup.watts)
    other = None if setup.sending is None else machine
    worker = prefill_worker(deployment)
    steps = step_tables(
        setup.model,
        machine,
        worker,
        size,
        sequences=0,
        longest_tokens=longest,
        decodes=False,
        watts=watts,
        source=setup.source,
    )
    # A server is one of the worker's ranks, and works by itself.
    steps = replace(steps, own_j=steps.own_j / worker.dp)

    def moved(tokens: float) -> float:
        return float(
            transfer_s(
                setup.model,
                setup.machine,
                input_tokens=tokens,
                sender=worker.accelerators,
                receiver=decode.layout.accelerators,
                replica=deployment.accelerators,
                sending=other,
            )
        )

    once, twice = moved(workload.input_tokens), moved(2.0 * workload.input_tokens)
    cache = _cache(setup, machine, worker, "prefill")
    return (
        steps,
        prefill.workers * worker.dp * worker.pp,
        cache // worker.pp,
        {
            "pool_efficiency": float(machine.prefill_pool_efficiency),
            "pool_chunk_tokens": deployment.chunk_tokens,
            "pool_pipelined": _pipelined(machine, worker, size),
            "move_s": 2.0 * once - twice,
            "move_s_per_token": (twice - once) / workload.input_tokens,
            "front_s": float(front_s(setup.machine, other)),
        },
    )


def _behind(setup: ReplicaSetup, worker: Worker) -> tuple[int, float]:
    """Return the tokens that memory behind the cache of a rank holds, and what it takes to fetch one. [s]"""
    caching = setup.deployment.caching
    if setup.accelerator is None or caching is None or caching.offload is Offload.NONE or not setup.block_tokens:
        return 0, 0.0
    room = tiers(
        setup.model,
        worker.layouts,
        serving_memory(
            setup.model,
            setup.machine,
            worker.layouts,
            role="agg",
            input_tokens=setup.workload.input_tokens,
            output_tokens=setup.workload.output_tokens,
            output_cv=setup.workload.output_cv,
            chunk_tokens=float(worker.chunk_tokens),
            draft_depth=float(worker.depth),
        ),
        running=0.0,
        context_tokens=setup.workload.input_tokens + setup.workload.output_tokens,
        draft_depth=float(worker.depth),
        behind=offload_of(setup.accelerator, caching.offload),
    )
    return int(float(np.squeeze(room.offload_tokens)) / worker.pp), float(np.squeeze(room.restore_s_per_token))
