"""Benchmarks with a fixed number of requests in flight: whoever finishes sends the next request at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tokopt.perf.arithmetic import LlmArithmetic
from tokopt.perf.arrays import Floats
from tokopt.perf.layouts import Layouts
from tokopt.perf.machine import Machine
from tokopt.perf.replica import prefill_times
from tokopt.perf.serving import Lengths, Steady, steady_state

HALVINGS = 50  # of the interval that the running batch lies in: to the last digits
OUT_OF_STEP_CV = 0.25  # variation of output lengths at which a third of the waves is left


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

    def first_token(state: Steady) -> Floats:
        return machine.request_overhead_s + state.prefill_s + 0.5 * state.decode_step_s + state.prefill_wait_s

    def in_flight(running: Floats) -> Floats:
        state = state_at(running)
        return running + state.requests_per_s * first_token(state)

    running = _solve(in_flight, service)
    state = state_at(running)
    rate = state.requests_per_s
    slot_wait = np.maximum(concurrency - service, 0.0) / rate
    first = first_token(state)
    together = 0.5 * service * state.occupancy_s
    # Requests of unlike length fall out of step: nothing is left of waves where lengths vary as in real traffic.
    in_step = machine.wave_share * math.exp(-((size.output_cv / OUT_OF_STEP_CV) ** 2))
    shifted = in_step * np.maximum(together - first, 0.0)
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
    times = prefill_times(model, machine, prefill, size, chunk_tokens)
    prompt_s = machine.request_overhead_s + times.single_s
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

    def decode_s(running: Floats) -> Floats:
        return size.decoded * state_at(running).tpot_s

    def in_flight(running: Floats) -> Floats:
        return running * (1.0 + (prompt_s + transfer_s) / decode_s(running))

    def rate_of(running: Floats) -> Floats:
        return running / decode_s(running)

    held = np.minimum(concurrency, slots * decode_workers)
    wanted = np.minimum(_solve(in_flight, np.asarray(concurrency, dtype=float)), held)
    # Where prefill is the slower pool, only as many decode as it lets through.
    running = np.where(rate_of(wanted) > ceiling, _solve(rate_of, ceiling, most=wanted), wanted)
    state = state_at(running)
    rate = np.minimum(rate_of(running), ceiling)
    ttft = np.maximum(concurrency / rate - size.decoded * state.tpot_s, prompt_s + transfer_s)
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


def _solve(function: Callable[[Floats], Floats], target: Floats, *, most: Floats | None = None) -> NDArray[np.float64]:
    """Return x in 0 … most (by default the target) where a rising function reaches the target, by bisection."""
    high = np.array(target if most is None else most, dtype=float, copy=True)
    low = np.zeros_like(high)
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        above = np.asarray(function(np.maximum(middle, 1e-12))) > target
        high, low = np.where(above, middle, high), np.where(above, low, middle)
    return np.asarray(np.maximum(0.5 * (low + high), 1e-12), dtype=float)
