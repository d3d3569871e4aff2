"""What the performance model says of a worker's steps, as tables that the inner loop looks things up in.

There is no second model: every entry is a step of `perf`, whatever its source of step times. Between entries figures
are taken as straight lines; they are straight in the context of most models, and dense in everything else.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tokopt.perf.arithmetic import LlmArithmetic
from tokopt.perf.machine import Machine
from tokopt.perf.power import BoardWatts, throttled_w
from tokopt.perf.replica import Worker
from tokopt.perf.serving import Lengths
from tokopt.perf.step import StepSource, StepTime, worker_steps

Array = NDArray[np.float64]

EVERY_COUNT = 256  # up to so many sequences each count has a step of its own; beyond, one in fifty
COUNT_GROWTH = 1.02
PROMPT_GROWTH = 2.0**0.125
CONTEXT_GROWTH = 2.0**0.5
FINE_GROWTH = 2.0**0.0625  # where steps wait for launches up to some context, another for each number of sequences
SHORTEST_CONTEXT = 16.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTables:
    """Steps of a worker on one engine (a pipeline stage's batch): seconds, and joules above idling."""

    contexts: Array  # tokens that a decoding sequence has cached
    decode_s: Array  # [sequences of the engine, contexts]; row 0 is empty
    decode_j: Array
    prompts: Array  # tokens of a chunk, a rank
    seen: Array  # tokens that each of them attends to
    own_s: Array  # [prompts, seen] of a chunk alone
    own_j: Array
    saving_s: Array  # [sequences, prompts] what a mixed step takes less than both apart


def step_tables(
    model: LlmArithmetic,
    machine: Machine,
    worker: Worker,
    size: Lengths,
    *,
    sequences: int,
    longest_tokens: float,
    decodes: bool,
    watts: BoardWatts | None,
    source: StepSource = worker_steps,
) -> StepTables:
    """Return the steps of a worker.

    Args:
        model: Bytes and FLOPs of the model.
        machine: Sustained rates of one accelerator.
        worker: Its layout and settings.
        size: Mean lengths: where mixed steps are compared with steps apart.
        sequences: Most sequences of one engine, over all its ranks.
        longest_tokens: Most tokens that a sequence may have.
        decodes: Whether it decodes. One that does prefills as well: in a pool of its own, what lost its cache.
        watts: Of one accelerator; None or not a number = no energy.
        source: What says how long a step takes.
    """
    maker = _Maker(model, machine, worker, source, watts)
    growth = FINE_GROWTH if machine.eager_layer_s else CONTEXT_GROWTH
    contexts = _axis(SHORTEST_CONTEXT, longest_tokens, growth, _kinks(model, machine), start=1.0)
    most = float(worker.chunk_tokens)
    own = (float(size.new), float(size.new) % most or most)
    prompts = _axis(1.0, most, PROMPT_GROWTH, own, start=1.0)
    counts = _counts(sequences) if decodes else np.zeros(1)
    rows = np.arange(sequences + 1.0) if decodes else np.zeros(1)
    decode_s = decode_j = np.zeros((rows.size, contexts.size))
    saving = np.zeros((rows.size, prompts.size))
    own_s, own_j = maker.own(prompts, contexts)
    if decodes:
        decode_s, decode_j = (_filled(rows, counts, each) for each in maker.decode(counts, contexts))
        saving = _filled(rows, counts, maker.saving(counts, prompts, size))
    return StepTables(
        contexts=contexts,
        decode_s=decode_s,
        decode_j=decode_j,
        prompts=prompts,
        seen=contexts,
        own_s=own_s,
        own_j=own_j,
        saving_s=saving,
    )


class _Maker:
    """Asks for steps of one worker."""

    def __init__(
        self,
        model: LlmArithmetic,
        machine: Machine,
        worker: Worker,
        source: StepSource,
        watts: BoardWatts | None,
    ) -> None:
        self._model, self._machine, self._worker, self._source = model, machine, worker, source
        self._watts = watts

    def _steps(self, context: object, seen: object, sequences: object, tokens: object) -> StepTime:
        steps = self._source(
            self._model,
            self._machine,
            self._worker.layouts,
            width=1.0 + self._worker.depth,
            context=context,  # type: ignore[arg-type]
            prefill_context=seen,  # type: ignore[arg-type]
            draft_depth=float(self._worker.depth),
        )
        return steps(sequences=sequences, prefill_tokens=tokens)  # type: ignore[arg-type]

    def _joules(self, step: StepTime) -> Array:
        """Energy of steps above idling, of the accelerators of one of the worker's pipeline stages. [J]"""
        total = np.asarray(step.total, dtype=float)
        watts = self._watts
        if watts is None or np.isnan(float(watts.idle_w) + float(watts.board_w) + float(watts.server_w)):
            return np.zeros_like(total)
        busy = throttled_w(self._machine, watts, busy=1.0, compute_share=step.compute_share)
        idle = throttled_w(self._machine, watts, busy=0.0, compute_share=0.0)
        return np.asarray((busy - idle) * total * (self._worker.accelerators / self._worker.pp), dtype=float)

    def decode(self, counts: Array, contexts: Array) -> tuple[Array, Array]:
        """Return seconds and joules of decode steps, by sequences of the engine and their context."""
        seconds, joules = np.zeros((2, counts.size, contexts.size))
        step = self._steps(contexts[None, :], 0.0, counts[1:, None] / self._worker.dp, 0.0)
        seconds[1:], joules[1:] = step.total, self._joules(step)
        return seconds, joules

    def own(self, prompts: Array, seen: Array) -> tuple[Array, Array]:
        """Return seconds and joules of chunks alone, by their tokens and what these attend to."""
        step = self._steps(0.0, seen[None, :], 0.0, prompts[:, None])
        shape = (prompts.size, seen.size)
        return np.broadcast_to(step.total, shape).copy(), np.broadcast_to(self._joules(step), shape).copy()

    def saving(self, counts: Array, prompts: Array, size: Lengths) -> Array:
        """Return what steps with both save, by sequences and chunk tokens, at mean contexts."""
        context, seen = size.decode_context, size.prefill_context
        each = counts[1:, None] / self._worker.dp
        decode = self._steps(context, seen, each, 0.0).total
        own = self._steps(context, seen, 0.0, prompts[None, :]).total
        mixed = self._steps(context, seen, each, prompts[None, :]).total
        saving = np.zeros((counts.size, prompts.size))
        saving[1:] = decode + own - mixed
        return saving


def _kinks(model: LlmArithmetic, machine: Machine) -> tuple[float, ...]:
    """Return contexts at which a step's time bends: ends of windows, and of what was measured."""
    limits = [float(part.read_limit_tokens) for part in model.attention]
    measured = float(machine.measured_input_tokens), float(machine.measured_output_tokens)
    return (*limits, sum(measured), 0.5 * measured[0])


def _axis(first: float, last: float, growth: float, points: tuple[float, ...], *, start: float) -> Array:
    """Return the points of an axis, each a bit above the one before, and those of `points` that are on it."""
    last = max(last, first * growth)
    steps = int(np.ceil(np.log(last / first) / np.log(growth)))
    inside = [x for x in points if start < x < last]
    return np.unique(np.concatenate([[start], np.geomspace(first, last, steps + 1), inside]))


def _counts(most: int) -> Array:
    """Return the numbers of sequences that have a step of their own, from 0 to the most."""
    beyond = np.unique(np.ceil(_axis(EVERY_COUNT, max(most, EVERY_COUNT + 1), COUNT_GROWTH, (), start=EVERY_COUNT)))
    counts = np.concatenate([np.arange(EVERY_COUNT), beyond])
    return counts[counts <= most] if most < counts[-1] else counts


def _filled(rows: Array, counts: Array, values: Array) -> Array:
    """Return a table with a row for each number of sequences, straight lines between those that were asked for."""
    if rows.size == counts.size:
        return values
    high = np.clip(np.searchsorted(counts, rows), 1, counts.size - 1)
    share = (rows - counts[high - 1]) / (counts[high] - counts[high - 1])
    return np.asarray(values[high - 1] + share[:, None] * (values[high] - values[high - 1]))
