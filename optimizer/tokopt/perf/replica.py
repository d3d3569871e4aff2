"""From one worker's steady states to a whole replica: its profile over occupancies, aggregated or disaggregated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray

from tokopt.domain.workloads import Workload
from tokopt.perf.arithmetic import LlmArithmetic
from tokopt.perf.arrays import Floats
from tokopt.perf.collectives import scale_out_rate
from tokopt.perf.context import pipelined
from tokopt.perf.layouts import SETTINGS, Layouts, stacked_layouts
from tokopt.perf.machine import Machine
from tokopt.perf.memory import cache_bytes_per_request
from tokopt.perf.queueing import PrefillPool, Profile
from tokopt.perf.serving import Lengths, Steady, steady_state, workload_lengths
from tokopt.perf.step import StepSource, worker_steps

KNOT_SHARE = 3, 20  # a knot is at most 3/20 above the one before: between them figures are smooth and interpolated


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One worker and its settings, as plain numbers."""

    tp: int
    pp: int
    ep: int
    dp: int
    depth: int
    accepted: float
    chunk_tokens: int
    cp: int = 1
    dcp: int = 1
    redundant_experts: int = 0
    two_batch_overlap: bool = False

    @property
    def layouts(self) -> Layouts:
        """The worker's degrees as a layout of one element."""
        return Layouts(**{name: float(getattr(self, name)) for name in SETTINGS})

    @property
    def accelerators(self) -> int:
        """Accelerators that the worker spans."""
        return self.tp * self.pp * self.dp * self.cp


@lru_cache(maxsize=4096)
def _knots(slots: int) -> tuple[float, ...]:
    n, reached = 1, [1.0]
    while n < slots:
        n += max(1, n * KNOT_SHARE[0] // KNOT_SHARE[1])
        reached.append(float(n))
    return tuple(reached)


def knots(slots: int) -> NDArray[np.float64]:
    """Return occupancies at which a profile is computed, up to the first one that is not below `slots`.

    They are the same for every number of slots, so that a figure at n does not depend on how many more there may be.
    """
    return np.array(_knots(slots))


def aggregated_profile(
    model: LlmArithmetic,
    machine: Machine,
    worker: Worker,
    workload: Workload,
    *,
    slots: int,
    source: StepSource = worker_steps,
) -> Profile:
    """Return the profile of a replica that prefills and decodes on the same accelerators.

    Args:
        model: Bytes and FLOPs of the model.
        machine: Sustained rates of one accelerator.
        worker: The replica's layout and settings.
        workload: Lengths and arrivals.
        slots: Requests that may be in service at a time: what memory holds, or fewer.
        source: What says how long a step takes.
    """
    profile_of = aggregated_profiles(model, machine, [worker], workload, slots=[slots], source=source)
    return profile_of(0)


def aggregated_profiles(
    model: LlmArithmetic,
    machine: Machine,
    workers: Sequence[Worker],
    workload: Workload,
    *,
    slots: Sequence[int],
    source: StepSource = worker_steps,
) -> Callable[[int], Profile]:
    """Return what gives the profile of `aggregated_profile` by the number of its worker: steady states of all at once.

    `slots` are those of each worker.
    """
    size = workload_lengths(workload)
    running = knots(max(slots))

    column = partial(_column, workers)
    state = steady_state(
        model,
        machine,
        _layouts(workers),
        size,
        running=running,
        depth=column("depth"),
        accepted=column("accepted"),
        chunk_tokens=column("chunk_tokens"),
        source=source,
    )

    def one_at_a_time(state: Steady, number: int) -> Profile:
        """Return the profile of a replica that runs one request at a time: nobody else's prompt is ever met. Exact."""
        first = slice(number, number + 1), 0
        step, prompt = np.asarray(state.decode_step_s)[first], np.asarray(state.alone_prefill_s)[first]
        tpot = step / workers[number].accepted
        return Profile(
            requests_per_s=1.0 / (prompt + size.decoded * tpot),
            tpot_s=tpot,
            stall_s=0.0 * tpot,
            prompt_s=prompt,
            front_s=machine.request_overhead_s + 0.5 * step,
            decoded=float(size.decoded),
            input_cv=workload.input_cv,
            output_cv=workload.output_cv,
            arrival_cv2=workload.arrival_cv2,
        )

    def profile(number: int) -> Profile:
        if slots[number] == 1:
            return one_at_a_time(state, number)
        occupancy = np.arange(1.0, slots[number] + 1.0)
        own = len(_knots(slots[number]))
        # Requests in prefill hold slots too: read every figure off at the occupancy that it belongs to.
        held = np.maximum.accumulate(np.asarray(state.in_service)[number, :own])

        def at(values: Floats) -> NDArray[np.float64]:
            # Below one decoding sequence everything scales with the occupancy.
            return np.asarray(np.interp(occupancy, held, np.asarray(values)[number, :own]), dtype=float)

        first = np.asarray(state.requests_per_s)[number, 0] / held[0]
        return Profile(
            requests_per_s=np.where(occupancy < held[0], occupancy * first, at(state.requests_per_s)),
            tpot_s=at(state.tpot_s),
            stall_s=at(state.stall_s),
            prompt_s=at(state.prefill_s),
            front_s=machine.request_overhead_s + 0.5 * at(state.decode_step_s),
            decoded=float(size.decoded),
            input_cv=workload.input_cv,
            output_cv=workload.output_cv,
            arrival_cv2=workload.arrival_cv2,
        )

    return profile


def prompts_a_batch(size: Lengths, chunk_tokens: Floats) -> Floats:
    """Whole prompts that one prefill chunk takes; 1 where a prompt fills it."""
    return np.maximum(1.0, np.floor(chunk_tokens / size.new))


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillTimes:
    """What one prefill worker does, one element a worker."""

    batch_s: Floats  # a batch of prompts, from start to end
    single_s: Floats  # one prompt alone
    requests_per_s: Floats  # of one rank and stage


def prefill_times(
    model: LlmArithmetic,
    machine: Machine,
    layouts: Layouts,
    size: Lengths,
    chunk_tokens: Floats,
    *,
    source: StepSource = worker_steps,
) -> PrefillTimes:
    """Return the time of a batch of prompts that fills the chunk, and the rate at which one queue takes prompts.

    Prompts longer than a chunk take several passes; shorter ones share one. A pool keeps up `prefill_pool_efficiency`
    of its rate: routers do not spread prompts evenly, and chunks are not always full. Where chunks of a lone prompt
    are on several stages at a time it takes less; a full pool takes as many prompts a second as without.
    """
    batch = prompts_a_batch(size, chunk_tokens)
    chunk = np.minimum(size.new * batch, chunk_tokens)
    single = np.minimum(size.new, chunk_tokens)

    steps = source(model, machine, layouts, width=1.0, context=0.0, prefill_context=size.prefill_context)
    batch_s = steps(sequences=0.0, prefill_tokens=chunk).total * size.new * batch / chunk
    single_s = steps(sequences=0.0, prefill_tokens=single).total * size.new / single
    single_s = single_s * pipelined(machine, layouts, size.new / single)
    rate = machine.prefill_pool_efficiency * batch / batch_s
    return PrefillTimes(batch_s=batch_s, single_s=single_s, requests_per_s=rate)


def prefill_pool(
    model: LlmArithmetic,
    machine: Machine,
    worker: Worker,
    size: Lengths,
    *,
    workers: int,
    transfer_s: float,
    source: StepSource = worker_steps,
) -> PrefillPool:
    """Return a pool of `workers` prefill workers: each rank and stage takes a batch of prompts at a time."""
    times = prefill_times(model, machine, worker.layouts, size, float(worker.chunk_tokens), source=source)
    return PrefillPool(
        servers=workers * worker.dp * worker.pp,
        prompt_s=float(times.single_s),
        batch_s=float(times.batch_s),
        prompts_per_s=float(times.requests_per_s),
        transfer_s=transfer_s,
    )


def transfer_s(
    model: LlmArithmetic,
    machine: Machine,
    *,
    input_tokens: Floats,
    sender: Floats,
    receiver: Floats,
    replica: Floats,
    sending: Machine | None = None,
) -> Floats:
    """Time to move one request's cache from a prefill to a decode worker, spread over the smaller one's links. [s]

    Inside the scale-up domain if the whole replica fits in it, over scale-out links otherwise; with the time that
    routing and scheduling it a second time takes. A prefill pool on another machine, `sending`, is in a domain of its
    own:

        t = max(handover) + max(latency) + bytes / min(n_p · rate_p, n_d · rate_d)     over scale-out links
    """
    if sending is not None:
        slower = np.minimum(scale_out_rate(sending) * sender, scale_out_rate(machine) * receiver)
        waits = _slower(sending, machine, "handover_s") + _slower(sending, machine, "scale_out_latency_s")
        return waits + cache_bytes_per_request(model, input_tokens) / slower
    inside = np.asarray(replica) <= machine.scale_up_size
    rate = np.where(inside, machine.scale_up_bytes_per_s, scale_out_rate(machine))
    latency = np.where(inside, machine.scale_up_latency_s, machine.scale_out_latency_s)
    moved_s = cache_bytes_per_request(model, input_tokens) / (rate * np.minimum(sender, receiver))
    return machine.handover_s + latency + moved_s


def _slower(one: Machine, other: Machine, name: str) -> Floats:
    """Return a delay that both ends have a part in: the longer one."""
    longer: Floats = np.maximum(getattr(one, name), getattr(other, name))
    return longer


def _column(workers: Sequence[Worker], name: str) -> NDArray[np.float64]:
    """Return a setting of workers, one row each to broadcast against occupancies."""
    return np.array([[float(getattr(worker, name))] for worker in workers])


def _layouts(workers: Sequence[Worker]) -> Layouts:
    return stacked_layouts({name: _column(workers, name) for name in SETTINGS})


def decode_profiles(
    model: LlmArithmetic,
    machine: Machine,
    workers: Sequence[Worker],
    workload: Workload,
    *,
    slots: Sequence[int],
    source: StepSource = worker_steps,
) -> Callable[[int], Profile]:
    """Return what gives the profile of a decode worker, which never prefills, by its number.

    Nothing comes before the first decode step: that is the prefill pool's (`behind_pool`). `slots` are each worker's.
    """
    size = workload_lengths(workload)
    running = knots(max(slots))

    column = partial(_column, workers)
    state = steady_state(
        model,
        machine,
        _layouts(workers),
        size,
        running=running,
        depth=column("depth"),
        accepted=column("accepted"),
        chunk_tokens=0.0,
        prefill=False,
        source=source,
    )

    def profile(number: int) -> Profile:
        occupancy = np.arange(1.0, slots[number] + 1.0)
        own = len(_knots(slots[number]))
        zero = np.zeros(slots[number])
        rates, tpot = np.asarray(state.requests_per_s)[number, :own], np.asarray(state.tpot_s)[number, :own]
        return Profile(
            requests_per_s=np.interp(occupancy, running[:own], rates),
            tpot_s=np.interp(occupancy, running[:own], tpot),
            stall_s=zero,
            prompt_s=zero,
            front_s=zero,
            decoded=float(size.decoded),
            input_cv=workload.input_cv,
            output_cv=workload.output_cv,
            arrival_cv2=workload.arrival_cv2,
        )

    return profile


def behind_pool(decode: Profile, pool: PrefillPool, workers: int) -> Profile:
    """Return the profile of a replica: `workers` decode workers, each of a profile, behind a prefill pool."""
    return replace(decode, workers=workers, prefill=pool)


def moved_s(
    model: LlmArithmetic,
    machine: Machine,
    *,
    input_tokens: Floats,
    sender: Floats,
    receiver: Floats,
    replica: Floats,
    sending: Machine | None = None,
) -> float:
    """Return what a request's first token takes beside prefill in a replica of two pools; see `transfer_s`. [s]"""
    move = transfer_s(
        model,
        machine,
        input_tokens=input_tokens,
        sender=sender,
        receiver=receiver,
        replica=replica,
        sending=sending,
    )
    return float(move + front_s(machine, sending))


def front_s(machine: Machine, sending: Machine | None = None) -> Floats:
    """Return what the front end takes of a request, whose pools may be on two machines: the longer time. [s]"""
    return machine.request_overhead_s if sending is None else _slower(sending, machine, "request_overhead_s")


def disaggregated_profile(
    model: LlmArithmetic,
    machine: Machine,
    *,
    prefill: Worker,
    prefill_workers: int,
    decode: Worker,
    decode_workers: int,
    workload: Workload,
    slots: int,
    source: StepSource = worker_steps,
    sending: Machine | None = None,
) -> Profile:
    """Return the profile of a replica with a pool of prefill workers and a pool of decode workers.

    `slots` is a decode worker's; the rates in the profile are a decode worker's too, `Profile.workers` of them.
    `sending` is what prefills, where that is not the machine that decodes.
    """
    own = decode_profiles(model, machine, [decode], workload, slots=[slots], source=source)(0)
    pool = prefill_pool(
        model,
        sending or machine,
        prefill,
        workload_lengths(workload),
        workers=prefill_workers,
        transfer_s=moved_s(
            model,
            machine,
            input_tokens=workload.input_tokens,
            sender=prefill.accelerators,
            receiver=decode.accelerators,
            replica=prefill.accelerators * prefill_workers + decode.accelerators * decode_workers,
            sending=sending,
        ),
        source=source,
    )
    return behind_pool(own, pool, decode_workers)
