"""Benchmarks with a fixed number of requests in flight: whoever finishes sends the next request at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tokopt.perf.arithmetic import LlmArithmetic
from tokopt.perf.arrays import Floats
from tokopt.perf.layouts import Layouts
from tokopt.perf.machine import Machine
from tokopt.perf.replica import front_s, prefill_times
from tokopt.perf.serving import Lengths, Steady, steady_state
from tokopt.perf.step import StepSource, worker_steps

MOST_STEPS = 60  # of the search for the running batch; about eight are needed, thirty where a prefill pool is full
CLOSE_ENOUGH = 1e-12  # in the logarithm of what is solved for
STEEPEST = 1e6  # slope on logarithms that a secant is believed
BUSIEST = 0.999  # load at which waits in a prefill pool stop growing: the closed loop bounds them
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
    start: Floats | None = None,
    steps: int = MOST_STEPS,
    source: StepSource = worker_steps,
) -> ClosedLoop:
    """Return means of an aggregated replica with `concurrency` requests in flight, `slots` of them in service.

    Little's law closes the loop: slots in use = requests/s · (time in prefill + decoded · TPOT); requests beyond the
    slots wait (concurrency - slots) / (requests/s). To the extent of `wave_share`, requests of like length prefill
    together and decode together: TTFT then holds half of everybody's prefill, and TPOT is free of it; the time from
    end to end, and so the throughput, is the same.

    `start` is a guess of the running batch, and `steps` bounds the search for it: a fit that changes constants a little
    at a time starts from the last solution. `source` says how long a step takes.
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
            source=source,
        )

    def first_token(state: Steady) -> Floats:
        return machine.request_overhead_s + state.prefill_s + 0.5 * state.decode_step_s + state.prefill_wait_s

    def in_flight(running: Floats) -> Floats:
        state = state_at(running)
        return running + state.requests_per_s * first_token(state)

    running = _solve(in_flight, service, start=start, steps=steps)
    state = state_at(running)
    rate = state.requests_per_s
    slot_wait = np.maximum(concurrency - service, 0.0) / rate
    first = first_token(state)
    together = 0.5 * service * state.occupancy_s
    # Requests of unlike length fall out of step: nothing is left of waves where lengths vary as in real traffic.
    in_step = machine.wave_share * _in_step(size)
    shifted = in_step * np.maximum(together - first, 0.0)
    shifted = np.minimum(shifted, size.decoded * np.maximum(state.tpot_s - state.decode_step_s / accepted, 0.0))
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
    start: Floats | None = None,
    steps: int = MOST_STEPS,
    source: StepSource = worker_steps,
    sending: Machine | None = None,
) -> ClosedLoop:
    """Return means of a disaggregated replica with `concurrency` requests in flight.

    The slower pool sets the rate: prefill at most what its workers keep up, decode what Little's law leaves it. A
    prompt waits for others as in M/D/1 shared among the pool's queues, u/(1 - u)·s/2 (Kleinrock, Queueing Systems I,
    §5.6), and, to the extent of `prefill_wave_share`, behind half of all requests that come at once. Waits in the
    prefill pool take up the rest of the concurrency when prefill is the slower one. `slots` is of one decode worker;
    `sending` is the machine that prefills, where it is another one.
    """
    prompts = sending or machine
    times = prefill_times(model, prompts, prefill, size, chunk_tokens, source=source)
    queues = prefill_workers * prefill.queues
    prompt_s = front_s(machine, sending) + times.single_s
    ceiling = queues * times.requests_per_s
    together = prompts.prefill_wave_share * _in_step(size) * 0.5 * np.maximum(concurrency - 1.0, 0.0) / ceiling

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
            source=source,
        )

    def decode_s(running: Floats) -> Floats:
        return size.decoded * state_at(running).tpot_s

    def in_flight(running: Floats) -> Floats:
        rate = running / decode_s(running)
        load = np.minimum(rate / ceiling, BUSIEST)
        wait = together + load / (1.0 - load) * 0.5 * times.single_s / queues
        return running + rate * (prompt_s + transfer_s + wait)

    def rate_of(running: Floats) -> Floats:
        return running / decode_s(running)

    most = np.asarray(concurrency, dtype=float)
    held = np.minimum(most, slots * decode_workers)
    wanted = np.minimum(_solve(in_flight, most, start=start, steps=steps), held)
    # Where prefill is the slower pool, only as many decode as it lets through.
    full = rate_of(wanted)
    bounded = full > ceiling
    if np.any(bounded):
        share = np.minimum(ceiling / full, 1.0)
        slowed = _solve(rate_of, np.minimum(ceiling, full), most=wanted, start=wanted * share, steps=steps)
        wanted = np.where(bounded, np.minimum(slowed, wanted), wanted)
    state = state_at(wanted)
    rate = np.minimum(wanted / (size.decoded * state.tpot_s), ceiling)
    ttft = np.maximum(concurrency / rate - size.decoded * state.tpot_s, prompt_s + transfer_s)
    wait = ttft - prompt_s - transfer_s
    zero = 0.0 * wait
    return ClosedLoop(
        ttft_s=ttft,
        tpot_s=state.tpot_s,
        requests_per_s=rate,
        running=wanted,
        slot_wait_s=np.where(held < concurrency, wait, zero),
        contention_s=np.where(held < concurrency, zero, wait),
        stall_s=zero,
        compute_share=state.compute_share,
        steady=state,
    )


def _in_step(size: Lengths) -> Floats:
    """Share of the waves that is left where output lengths vary: all of it for fixed lengths."""
    share: Floats = np.exp(-np.square(size.output_cv / OUT_OF_STEP_CV))
    return share


def _solve(
    function: Callable[[Floats], Floats],
    target: Floats,
    *,
    most: Floats | None = None,
    start: Floats | None = None,
    steps: int = MOST_STEPS,
) -> NDArray[np.float64]:
    """Return x in 0 … most (by default the target) where a rising function reaches the target.

    A secant on logarithms, where the functions are nearly straight, kept inside a bracket. Where waits rise steeply a
    secant may creep: after a step that leaves more than half of both the miss and the bracket, the bracket is halved.
    """
    goal = np.log(np.maximum(np.asarray(target, dtype=float), 1e-12))
    high = np.log(np.maximum(np.asarray(target if most is None else most, dtype=float), 1e-12))
    high, goal = np.broadcast_arrays(high, goal)
    least = low = np.full_like(high, np.log(1e-12))

    def miss(at: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.log(np.maximum(function(np.exp(at)), 1e-300)) - goal, dtype=float)

    x = high if start is None else np.clip(np.log(np.maximum(start, 1e-12)), low, high)
    slope, moved, width = np.ones_like(x), np.zeros_like(x), np.full_like(x, np.inf)
    creeps = np.zeros(x.shape, dtype=bool)
    off = miss(x)
    for _ in range(steps):
        high, low = np.where(off > 0.0, np.minimum(x, high), high), np.where(off > 0.0, low, np.maximum(x, low))
        creeps &= high - low > 0.5 * width
        width = high - low
        guess = x - off / slope
        # As long as nothing below the solution was seen, halving would step far too low.
        back = np.maximum(low, high - np.maximum(np.abs(moved), np.abs(off)))
        halved = np.where(low > least, 0.5 * (low + high), back)
        following = np.where((guess >= low) & (guess <= high) & ~creeps, guess, halved)
        moved = following - x
        missed = miss(following)
        with np.errstate(all="ignore"):
            tangent = (missed - off) / moved
        slope = np.where(np.isfinite(tangent) & (tangent > 0.05), np.minimum(tangent, STEEPEST), slope)
        creeps = np.abs(missed) > np.maximum(0.5 * np.abs(off), CLOSE_ENOUGH)
        x, off = following, missed
        if not np.any(np.minimum(np.abs(off), np.abs(moved)) > CLOSE_ENOUGH):
            break
    return np.asarray(np.exp(x), dtype=float)
