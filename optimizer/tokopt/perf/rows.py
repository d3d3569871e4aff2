"""Predictions for tables: rows of all kinds at once, over stacked machines and models.

A row of a published table may leave out how it ran. What is assumed then are habits of benchmarks (`with_habits`), kept
apart from the physics: no prediction of a deployment that is described in full uses them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tokopt.domain.calibration import Constants
from tokopt.perf.arithmetic import LlmArithmetic
from tokopt.perf.arrays import Floats
from tokopt.perf.closed_loop import MOST_STEPS, ClosedLoop, aggregated_closed_loop, disaggregated_closed_loop
from tokopt.perf.layouts import SETTINGS, Layouts, stacked_layouts
from tokopt.perf.machine import Machine
from tokopt.perf.memory import MemoryUse, serving_memory, weight_bytes
from tokopt.perf.replica import prefill_times, transfer_s
from tokopt.perf.serving import Lengths, steady_state
from tokopt.perf.static_batch import static_batch
from tokopt.perf.step import StepSource, worker_steps

# What someone who must make a model fit leaves of the memory: drivers and buffers only.
MOST_MEMORY = 0.98
LEAST_RESERVE_BYTES = 1e9
TYPICAL_CONCURRENCY = 64.0
MOST_EXTRA = 3.0  # tokens that speculation adds to a step, at most
DRAFT_YIELD = 0.7  # tokens accepted a draft token, to turn the yield of unlabelled speculation into a depth
SLIGHTLY_MORE = 1.25  # concurrency over a power of two up to which the power of two is taken for the engine's limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Deployments under a load, one element a row; `prefill` means nothing where rows are aggregated."""

    decode: Layouts  # the only worker of an aggregated row
    decode_workers: NDArray[np.float64]  # not a number: not stated
    prefill: Layouts
    prefill_workers: NDArray[np.float64]
    size: Lengths
    input_tokens: NDArray[np.float64]
    output_tokens: NDArray[np.float64]
    concurrency: NDArray[np.float64]  # 0: as many as memory and settings let run
    running_cap: NDArray[np.float64]  # requests in service that settings allow, a decode worker
    depth: NDArray[np.float64]
    accepted: NDArray[np.float64]
    may_speculate: NDArray[np.float64]  # 1 where a row may or may not have speculated
    chunk_tokens: NDArray[np.float64]

    def take(self, index: NDArray[np.int64]) -> Rows:
        """Return some of the rows."""

        def layouts(of: Layouts) -> Layouts:
            return stacked_layouts({name: _at(getattr(of, name), index) for name in SETTINGS})

        plain = {
            name: _at(getattr(self, name), index)
            for name in self.__dataclass_fields__
            if name not in ("decode", "prefill", "size")
        }
        size = replace(
            self.size,
            new=_at(self.size.new, index),
            cached=_at(self.size.cached, index),
            decoded=_at(self.size.decoded, index),
            input_cv=_at(self.size.input_cv, index),
            output_cv=_at(self.size.output_cv, index),
        )
        return Rows(decode=layouts(self.decode), prefill=layouts(self.prefill), size=size, **plain)


def _at(values: Floats, index: NDArray[np.int64]) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=float)
    return array[index] if array.ndim else np.full(len(index), float(array))


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicted:
    """Predictions of rows, one element a row. [SI]"""

    ttft_s: NDArray[np.float64]
    tpot_s: NDArray[np.float64]
    output_tokens_per_s: NDArray[np.float64]  # an accelerator
    running: NDArray[np.float64]  # sequences that decode at a time
    fits: NDArray[np.bool_]
    accelerators: NDArray[np.float64]
    loop: ClosedLoop | None = None  # in full, where it was one


def with_habits(rows: Rows, constants: Constants) -> Rows:
    """Return rows of published tables with what they do not say filled in by the habits of such tables.

    Where a row may have speculated, it is given the mean yield of such rows: y · (C / 64)^-decline.
    """
    crowd = np.maximum(rows.concurrency, 1.0) / TYPICAL_CONCURRENCY
    extra = constants.unlabelled_speculation * crowd**-constants.unlabelled_decline
    extra = np.where(rows.may_speculate > 0, np.minimum(extra, MOST_EXTRA), 0.0)
    return replace(rows, depth=rows.depth + extra / DRAFT_YIELD, accepted=rows.accepted + extra)


def worker_memory(
    model: LlmArithmetic, machine: Machine, layouts: Layouts, rows: Rows, *, role: str, depth: Floats
) -> MemoryUse:
    """Return the memory of one worker of rows for its role; see `serving_memory`."""
    return serving_memory(
        model,
        machine,
        layouts,
        role=role,
        input_tokens=rows.input_tokens,
        output_tokens=rows.output_tokens,
        output_cv=rows.size.output_cv,
        chunk_tokens=rows.chunk_tokens,
        draft_depth=depth,
    )


def _all_but_least(machine: Machine) -> Floats:
    """Memory that someone uses who must make a model fit. [B]"""
    return MOST_MEMORY * machine.memory_bytes - LEAST_RESERVE_BYTES


def widened(model: LlmArithmetic, machine: Machine, rows: Rows) -> tuple[Rows, NDArray[np.bool_]]:
    """Return rows of measurements with tensor parallelism doubled until the weights fit, and which rows changed.

    What was measured did fit: a layout that cannot hold the weights was written down wrongly.
    """
    room = _all_but_least(machine)

    def wide(layouts: Layouts) -> Layouts:
        for _ in range(6):
            tight = np.asarray(weight_bytes(model, layouts, 0.0)) > room
            layouts = replace(layouts, tp=np.where(tight, 2.0 * np.asarray(layouts.tp), layouts.tp))
        return layouts

    decode, prefill = wide(rows.decode), wide(rows.prefill)
    changed = np.asarray(decode.tp != rows.decode.tp) | np.asarray(prefill.tp != rows.prefill.tp)
    return replace(rows, decode=decode, prefill=prefill), changed


def _slots(model: LlmArithmetic, machine: Machine, rows: Rows, *, role: str, measured: bool) -> NDArray[np.float64]:
    """Sequences that one decode worker holds; where it was measured, with more memory than by default if need be."""
    held = np.asarray(worker_memory(model, machine, rows.decode, rows, role=role, depth=rows.depth).sequences)
    if measured:
        tight = replace(machine, usable_memory_bytes=_all_but_least(machine))
        lean = replace(rows, chunk_tokens=np.minimum(rows.chunk_tokens, 1024.0))
        tightly = worker_memory(model, tight, rows.decode, lean, role=role, depth=0.0).sequences
        held = np.where(held >= 1.0, held, tightly)
    return np.asarray(np.minimum(held, rows.running_cap), dtype=float)


def predict_aggregated(
    model: LlmArithmetic,
    machine: Machine,
    rows: Rows,
    *,
    measured: bool = False,
    start: Floats | None = None,
    steps: int = MOST_STEPS,
    source: StepSource = worker_steps,
) -> Predicted:
    """Return closed-loop predictions of aggregated rows."""
    slots = _slots(model, machine, rows, role="agg", measured=measured)
    fits = slots >= 1.0
    held = np.maximum(slots, 1.0)
    loop = aggregated_closed_loop(
        model,
        machine,
        rows.decode,
        rows.size,
        concurrency=np.where(rows.concurrency > 0, rows.concurrency, held),
        slots=held,
        depth=rows.depth,
        accepted=rows.accepted,
        chunk_tokens=rows.chunk_tokens,
        start=start,
        steps=steps,
        source=source,
    )
    each = np.asarray(rows.decode.accelerators, dtype=float)
    return Predicted(
        ttft_s=np.asarray(loop.ttft_s),
        tpot_s=np.asarray(loop.tpot_s),
        output_tokens_per_s=np.asarray(loop.requests_per_s) * rows.output_tokens / each,
        running=np.asarray(loop.running),
        fits=fits,
        accelerators=each,
        loop=loop,
    )


def predict_static(
    model: LlmArithmetic, machine: Machine, rows: Rows, *, measured: bool = False, source: StepSource = worker_steps
) -> Predicted:
    """Return predictions of static batches: all prompts at once, then all outputs."""
    slots = _slots(model, machine, rows, role="agg", measured=measured)
    batch = static_batch(
        model,
        machine,
        rows.decode,
        rows.size,
        batch=np.maximum(rows.concurrency, 1.0),
        slots=np.maximum(slots, 1.0),
        chunk_tokens=rows.chunk_tokens,
        source=source,
    )
    each = np.asarray(rows.decode.accelerators, dtype=float)
    return Predicted(
        ttft_s=np.asarray(batch.ttft_s),
        tpot_s=np.asarray(batch.tpot_s),
        output_tokens_per_s=rows.concurrency * rows.output_tokens / np.asarray(batch.total_s) / each,
        running=np.minimum(rows.concurrency, np.maximum(slots, 1.0)),
        fits=slots >= 1.0,
        accelerators=each,
    )


def predict_disaggregated(
    model: LlmArithmetic,
    machine: Machine,
    rows: Rows,
    *,
    constants: Constants | None = None,
    measured: bool = False,
    start: Floats | None = None,
    steps: int = MOST_STEPS,
    source: StepSource = worker_steps,
    sending: Machine | None = None,
) -> Predicted:
    """Return closed-loop predictions of disaggregated rows; `constants` hold the habits for rows with gaps.

    `sending` is the machine of prefill pools that are on another one than decode pools.
    """
    slots = _slots(model, machine, rows, role="decode", measured=measured)
    prompts = worker_memory(model, sending or machine, rows.prefill, rows, role="prefill", depth=0.0)
    fits = (slots >= 1.0) & (measured | (np.asarray(prompts.sequences) >= 1.0))
    slots = np.maximum(slots, 1.0)
    decode_workers, prefill_workers = rows.decode_workers, rows.prefill_workers
    stated = np.isfinite(decode_workers) & np.isfinite(prefill_workers)
    if constants is not None:
        # Nobody measures far more requests in flight than a deployment can serve.
        enough = np.maximum(constants.unstated_decode_workers, rows.concurrency / slots)
        decode_workers = np.where(stated, decode_workers, enough)
        slots = np.minimum(slots, _engine_limit(rows, decode_workers, stated, constants) / decode_workers)
    concurrency = np.where(rows.concurrency > 0, rows.concurrency, slots * decode_workers)
    if constants is not None and not np.all(stated):
        running = np.minimum(concurrency, slots * decode_workers)
        asked = _prefill_asked(model, machine, rows, running, decode_workers, source)
        unstated = np.maximum(constants.unstated_prefill_share * asked, 1.0)
        prefill_workers = np.where(stated, prefill_workers, unstated)
    accelerators = prefill_workers * rows.prefill.accelerators + decode_workers * rows.decode.accelerators
    loop = disaggregated_closed_loop(
        model,
        machine,
        rows.size,
        prefill=rows.prefill,
        prefill_workers=prefill_workers,
        decode=rows.decode,
        decode_workers=decode_workers,
        transfer_s=transfer_s(
            model,
            machine,
            input_tokens=rows.input_tokens,
            sender=rows.prefill.accelerators,
            receiver=rows.decode.accelerators,
            replica=accelerators,
            sending=sending,
        ),
        concurrency=concurrency,
        slots=slots,
        depth=rows.depth,
        accepted=rows.accepted,
        chunk_tokens=rows.chunk_tokens,
        start=start,
        steps=steps,
        source=source,
        sending=sending,
    )
    return Predicted(
        ttft_s=np.asarray(loop.ttft_s),
        tpot_s=np.asarray(loop.tpot_s),
        output_tokens_per_s=np.asarray(loop.requests_per_s) * rows.output_tokens / accelerators,
        running=np.asarray(loop.running),
        fits=fits,
        accelerators=np.asarray(accelerators, dtype=float),
        loop=loop,
    )


def _engine_limit(
    rows: Rows, decode_workers: NDArray[np.float64], stated: NDArray[np.bool_], constants: Constants
) -> NDArray[np.float64]:
    """Return the requests that decode workers were set to run at a time, all together.

    Engines are built for batches of powers of two. Benchmarks that ask for slightly more a worker (9, 18, 36 …) keep a
    queue in front of it; where workers are not stated, the mean of such rows is taken.
    """
    each = rows.concurrency / np.where(stated, decode_workers, 1.0)
    power = np.exp2(np.floor(np.log2(np.maximum(each, 1.0))))
    over = each / power
    known = np.where((over > 1.0) & (over <= SLIGHTLY_MORE), power * decode_workers, np.inf)
    guessed = np.where(over > 1.0, rows.concurrency * (1.0 - constants.oversubscription), np.inf)
    return np.where(stated, known, guessed)


def _prefill_asked(
    model: LlmArithmetic,
    machine: Machine,
    rows: Rows,
    running: NDArray[np.float64],
    workers: NDArray[np.float64],
    source: StepSource,
) -> NDArray[np.float64]:
    """Prefill workers that feed `running` decoding requests."""
    state = steady_state(
        model,
        machine,
        rows.decode,
        rows.size,
        running=running / workers,
        depth=rows.depth,
        accepted=rows.accepted,
        chunk_tokens=0.0,
        prefill=False,
        source=source,
    )
    one = prefill_times(model, machine, rows.prefill, rows.size, rows.chunk_tokens, source=source).requests_per_s
    rate = running / (rows.size.decoded * state.tpot_s)
    return np.asarray(rate / (one * rows.prefill.queues), dtype=float)
