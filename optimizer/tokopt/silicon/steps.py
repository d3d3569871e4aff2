"""Step times from tables, one a layout, behind the interface of `perf.step`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from tokopt.domain.deployments import Layout
from tokopt.perf.arithmetic import LlmArithmetic
from tokopt.perf.arrays import Floats
from tokopt.perf.layouts import Layouts
from tokopt.perf.machine import Machine
from tokopt.perf.step import Steps, StepTime, step_time
from tokopt.silicon.tables import PARTS, Tables

Key = tuple[int, int, int, int, int]  # tp, pp, ep, dp and speculation depth
NO_CONTEXT_PARALLELISM = "the operator database has no times of context parallelism"
NEARLY = 1e-6  # of a token of speculation depth


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What the database says about one layout: tables, or a reason why there are none."""

    tables: Tables | None = None
    reason: str = ""
    mode: str = ""
    checkpoint: str = ""


class SiliconSteps:
    """Step times of one model on one accelerator, framework and precision: a stand-in for `perf.step.worker_steps`.

    Kernel times only: what a framework spends between kernels is in none of its parts (`overhead` is 0).
    """

    def __init__(self, answers: Callable[[Key], Answers], source: Mapping[str, str]) -> None:
        """Ask `answers` once a layout; `source` is the part of the provenance that is known from the start."""
        self._ask = answers
        self._source = source
        self._answers: dict[Key, Answers] = {}

    def __call__(
        self,
        model: LlmArithmetic,
        machine: Machine,
        layouts: Layouts,
        *,
        width: Floats,
        context: Floats,
        prefill_context: Floats,
        draft_depth: Floats = 0.0,
    ) -> Steps:
        """Return what times the steps of workers; the arguments are those of `perf.step.step_time`."""
        return partial(
            self.step_time,
            model,
            machine,
            layouts,
            width=width,
            context=context,
            prefill_context=prefill_context,
            draft_depth=draft_depth,
        )

    def step_time(
        self,
        model: LlmArithmetic,
        machine: Machine,
        layouts: Layouts,
        *,
        sequences: Floats,
        width: Floats,
        context: Floats,
        prefill_tokens: Floats,
        prefill_context: Floats,
        draft_depth: Floats = 0.0,
    ) -> StepTime:
        """Return the time of one step of one micro-batch; the arguments are those of `perf.step.step_time`.

        A mixed step is composed as the package composes one: everything but attention once, for all tokens together,
        as in a prefill pass; then attention of the prompts and attention of the decoding sequences on their own. Where
        attention is measured as a block with its projections, or is linear, both count here; the package counts such
        operations once, in the prefill pass, and leaves out what the decoding sequences read.

        `model` and `machine` decide `compute_share` alone, which the database does not know.

        Returns:
            The step's time by part, NaN where the database has no answer. [s]
        """
        degrees = (layouts.tp, layouts.pp, layouts.ep, layouts.dp)
        loads = (sequences, width, context, prefill_tokens, prefill_context)
        arrays = np.broadcast_arrays(draft_depth, *degrees, *loads)
        shape = arrays[0].shape
        depth, *flat = (np.asarray(array, dtype=float).ravel() for array in arrays)
        whole = np.floor(depth + NEARLY)
        seconds = self._seconds(flat[:4], whole, flat[4:])
        share = depth - whole
        between = share > NEARLY
        if between.any():
            # A mean over rows, some of which speculate one token deeper than others.
            some = [array[between] for array in flat]
            deeper = self._seconds(some[:4], whole[between] + 1.0, some[4:])
            seconds[:, between] += share[between] * (deeper - seconds[:, between])
        if layouts.splits_prompts or layouts.splits_cache:
            split = np.broadcast_to((np.asarray(layouts.cp) > 1) | (np.asarray(layouts.dcp) > 1), shape)
            seconds[:, split.ravel()] = np.nan
        dense, experts, attention, collectives = (part.reshape(shape) for part in seconds)
        physics = step_time(
            model,
            machine,
            layouts,
            sequences=sequences,
            width=width,
            context=context,
            prefill_tokens=prefill_tokens,
            prefill_context=prefill_context,
            draft_depth=draft_depth,
        )
        return StepTime(
            dense=dense,
            experts=experts,
            attention=attention,
            collectives=collectives,
            overhead=np.zeros(shape),
            compute_share=physics.compute_share,
        )

    def _seconds(
        self,
        degrees: Sequence[NDArray[np.float64]],
        depth: NDArray[np.float64],
        loads: Sequence[NDArray[np.float64]],
    ) -> NDArray[np.float64]:
        """Return the times of the parts of steps at whole speculation depths, part x element. [s]"""
        keys, which = _distinct((*degrees, depth))
        seconds = np.full((PARTS, which.size), np.nan)
        for number, key in enumerate(keys):
            tables = self._of(key).tables
            if tables is not None:
                rows = which == number
                seconds[:, rows] = tables.step(*(load[rows] for load in loads))
        return seconds

    def reason(self, layout: Layout, depth: float = 0) -> str:
        """Return why the database has no answer for a layout and speculation depth; empty if it has one."""
        if layout.cp > 1 or layout.dcp > 1:
            return NO_CONTEXT_PARALLELISM
        return next((answers.reason for answers in self._around(layout, depth) if answers.reason), "")

    def mode(self, layout: Layout, depth: float = 0) -> str:
        """Return the database mode that a layout is answered in, SILICON or HYBRID; empty if it is not."""
        if layout.cp > 1 or layout.dcp > 1:
            return ""
        modes = {answers.mode for answers in self._around(layout, depth)}
        return "" if "" in modes else min(modes)

    def _around(self, layout: Layout, depth: float) -> list[Answers]:
        """Return what is said about the whole depths on both sides of one."""
        depths = {math.floor(depth + NEARLY), math.ceil(depth - NEARLY)}
        return [self._of((layout.tp, layout.pp, layout.ep, layout.dp, whole)) for whole in sorted(depths)]

    @property
    def provenance(self) -> Mapping[str, str]:
        """Where the times come from: package, system, backend and version; modes and checkpoints used so far."""
        used = [answers for answers in self._answers.values() if answers.tables is not None]
        return {
            **self._source,
            "mode": ", ".join(sorted({answers.mode for answers in used}, reverse=True)),
            "checkpoint": ", ".join(sorted({answers.checkpoint for answers in used})),
        }

    def _of(self, key: Key) -> Answers:
        if key not in self._answers:
            self._answers[key] = self._ask(key)
        return self._answers[key]


def _distinct(degrees: Sequence[NDArray[np.float64]]) -> tuple[list[Key], NDArray[np.intp]]:
    """Return the distinct layouts and which of them each element has."""
    table = np.rint(np.stack(degrees)).astype(np.int64)
    base = int(table.max(initial=0)) + 1
    codes = np.zeros(table.shape[1], dtype=np.int64)
    for row in table:
        codes = codes * base + row
    _, first, which = np.unique(codes, return_index=True, return_inverse=True)
    tp, pp, ep, dp, depth = table[:, first].tolist()
    return list(zip(tp, pp, ep, dp, depth, strict=True)), which
