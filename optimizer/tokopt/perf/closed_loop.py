"""Benchmarks with a fixed number of requests in flight: whoever finishes sends the next request at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tokopt.perf.arithmetic import LlmArithmetic
from tokopt.perf.arrays import Floats
from tokopt.perf.layouts import Layouts
from tokopt.perf.machine import Machine
from tokopt.perf.replica import prefill_times
from tokopt.perf.serving import Lengths, Steady, steady_state
from tokopt.perf.step import step_time

ROUNDS = 12  # of the fixed point; each multiplies the error by the small share of time that a request is in prefill


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedLoop:
    """Means under a constant concurrency, one element a deployment."""

    ttft_s: Floats
    tpot_s: Floats
    requests_per_s: Floats  # of the whole replica
    running: Floats  # sequences that decode at a time
    slot_wait_s: Floats  # part of TTFT spent waiting for a slot
    contention_s: Floats  # part of TTFT spent waiting for others' prefills
    stall_s: Floats
    compute_share: Floats
    steady: Steady


def aggregated_closed_loop(
    model: LlmArithmetic,
    machine: Machine,
    layouts: Layouts,
    size: Lengths,
    *,
    concurrency: Floats,
    slots: Floats,
    depth: Floats,
    accepted: Floats,
    chunk_tokens: Floats,
) -> ClosedLoop:
    """Return means of an aggregated replica with `concurrency` requests in flight, `slots` of them in service.

    Little's law closes the loop: slots in use = requests/s · (time in prefill + decoded · TPOT); requests beyond the
    slots wait (concurrency - slots) / (requests/s). To the extent of `wave_share`, requests of like length prefill
    together and decode together: TTFT then holds half of everybody's prefill, and TPOT is free of it; the time from
    end to end, and so the throughput, is the same.
    """
    service = np.maximum(np.minimum(concurrency, slots), 1e-9)

    def state_at(running: Floats) -> Steady:
        return steady_state(
            model,
            machine,
            layouts,
            size,
            running=running,
            depth=depth,
            accepted=accepted,
            chunk_tokens=chunk_tokens,
        )

    running: Floats = np.asarray(service, dtype=float) * 0.95
    state = state_at(running)
    for _ in range(ROUNDS):
        running = service * running / np.maximum(state.in_service, 1e-300)
        state = state_at(running)
    rate = state.requests_per_s
    slot_wait = np.maximum(concurrency - service, 0.0) / rate
    first = machine.request_overhead_s + state.prefill_s + 0.5 * state.decode_step_s + state.prefill_wait_s
    together = 0.5 * service * state.occupancy_s
    shifted = machine.wave_share * np.maximum(together - first, 0.0)
    shifted = np.minimum(shifted, size.decoded * (state.tpot_s - state.decode_step_s / accepted))
    return ClosedLoop(
        ttft_s=first + shifted + slot_wait,
        tpot_s=state.tpot_s - shifted / size.decoded,
        requests_per_s=rate,
        running=state.running,
        slot_wait_s=slot_wait,
        contention_s=state.prefill_wait_s,
        stall_s=state.stall_s,
        compute_share=state.compute_share,
        steady=state,
    )


def disaggregated_closed_loop(
    model: LlmArithmetic,
    machine: Machine,
    size: Lengths,
    *,
    prefill: Layouts,
    prefill_workers: Floats,
    decode: Layouts,
    decode_workers: Floats,
    transfer_s: Floats,
    concurrency: Floats,
    slots: Floats,
    depth: Floats,
    accepted: Floats,
    chunk_tokens: Floats,
) -> ClosedLoop:
    """Return means of a disaggregated replica with `concurrency` requests in flight.

    The slower pool sets the rate: prefill at most servers / prompt time, decode what Little's law leaves it. Waits in
    the prefill pool take up the rest of the concurrency when prefill is the slower one. `slots` is of one decode
    worker.
    """
    single = np.minimum(size.new, chunk_tokens)
    alone = step_time(
        model,
        machine,
        prefill,
        sequences=0.0,
        width=1.0,
        context=0.0,
        prefill_tokens=single,
        prefill_context=size.prefill_context,
    )
    prompt_s = machine.request_overhead_s + alone.total * size.new / single
    times = prefill_times(model, machine, prefill, size, chunk_tokens)
    ceiling = prefill_workers * prefill.queues * times.requests_per_s

    def state_at(running: Floats) -> Steady:
        return steady_state(
            model,
            machine,
            decode,
            size,
            running=running / decode_workers,
            depth=depth,
            accepted=accepted,
            chunk_tokens=0.0,
            prefill=False,
        )

    held = np.minimum(concurrency, slots * decode_workers)
    running: Floats = np.maximum(np.asarray(held, dtype=float), 1e-9)
    state = state_at(running)
    for _ in range(ROUNDS):
        decode_s = size.decoded * state.tpot_s
        wanted = np.minimum(concurrency / (prompt_s + transfer_s + decode_s), ceiling)
        # Half a step at a time: the rate falls as the batch grows, and a full step would swing around the answer.
        running = np.clip(0.5 * (running + wanted * decode_s), 1e-9, held)
        state = state_at(running)
    decode_s = size.decoded * state.tpot_s
    rate = np.minimum(running / decode_s, ceiling)
    ttft = np.maximum(concurrency / rate - decode_s, prompt_s + transfer_s)
    rate = np.minimum(concurrency / (ttft + decode_s), rate)
    wait = ttft - prompt_s - transfer_s
    zero = 0.0 * wait
    return ClosedLoop(
        ttft_s=ttft,
        tpot_s=state.tpot_s,
        requests_per_s=rate,
        running=running,
        slot_wait_s=np.where(held < concurrency, wait, zero),
        contention_s=np.where(held < concurrency, zero, wait),
        stall_s=zero,
        compute_share=state.compute_share,
        steady=state,
    )
