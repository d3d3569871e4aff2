"""What carrying tokens to their experts takes of a decode step: can links carry it, and from what batch on?"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tokopt.perf.arithmetic import LlmArithmetic
from tokopt.perf.arrays import Floats
from tokopt.perf.collectives import expert_copies
from tokopt.perf.layouts import Layouts
from tokopt.perf.machine import Machine
from tokopt.perf.step import COMBINE_BYTES, DISPATCH_BYTES, expert_exchange_s, worker_steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """The all-to-alls of a decode step against what the accelerators do themselves, one element a deployment. [s]"""

    exchange_s: Floats  # all-to-alls of expert parallelism, as far as the step waits for them
    hidden_s: Floats  # what else they take, while the other half of the step computes
    links_s: Floats  # other collectives: all-reduces, hand-overs of pipelines
    computing_s: Floats  # all that no link carries: dense parts, experts, attention, launches
    largest_other_s: Floats  # the largest other part of the step

    @property
    def step_s(self) -> Floats:
        """Time of the whole step. [s]"""
        return self.exchange_s + self.links_s + self.computing_s

    @property
    def share(self) -> Floats:
        """Share of the step that all-to-alls take."""
        return self.exchange_s / self.step_s

    @property
    def headroom(self) -> Floats:
        """How often all-to-alls, hidden or not, would fit into the time of computing; infinite without any.

        Other collectives are left out of that time: they slow down with the same links, and would look like room.
        """
        with np.errstate(divide="ignore"):
            room: Floats = np.divide(self.computing_s, np.asarray(self.exchange_s + self.hidden_s, dtype=float))
        return room

    @property
    def binds(self) -> NDArray[np.bool_]:
        """Whether all-to-alls are the largest part of the step."""
        return np.asarray(self.exchange_s) > np.asarray(self.largest_other_s)


def exchange(
    model: LlmArithmetic,
    machine: Machine,
    layouts: Layouts,
    *,
    sequences: Floats,
    width: Floats,
    context: Floats,
    draft_depth: Floats = 0.0,
) -> Exchange:
    """Return what all-to-alls take of a decode step, and what of it two-batch overlap hides.

    The arguments are those of `step_time`. Steps run as halves where the layouts allow it and it takes less.
    """
    load = {"width": width, "context": context, "prefill_context": 0.0, "draft_depth": draft_depth}
    alone = worker_steps(model, machine, replace(layouts, two_batch_overlap=0.0), **load)
    step = worker_steps(model, machine, layouts, **load)(sequences=sequences, prefill_tokens=0.0)
    whole = alone(sequences=sequences, prefill_tokens=0.0)
    half = alone(sequences=0.5 * sequences, prefill_tokens=0.0)
    waits = machine.slowdown * (1.0 + machine.pipeline_bubble * (np.asarray(layouts.pp) - 1.0))
    carried = expert_exchange_s(model, machine, layouts, draft_depth * model.draft_modules)
    in_whole = np.minimum(carried(sequences * width) * waits, whole.collectives)
    in_half = np.minimum(carried(0.5 * sequences * width) * waits, half.collectives)
    halved = step.total < whole.total
    links_s = np.where(halved, 2.0 * (half.collectives - in_half), whole.collectives - in_whole)
    exchange_s = np.where(halved, np.maximum(step.collectives - links_s, 0.0), in_whole)
    hidden_s = np.where(halved, 2.0 * in_half - exchange_s, 0.0)
    parts = (step.dense, step.experts, step.attention, step.overhead)
    largest = links_s
    for part in parts:
        largest = np.maximum(largest, part)
    return Exchange(
        exchange_s=exchange_s,
        hidden_s=hidden_s,
        links_s=links_s,
        computing_s=step.dense + step.experts + step.attention + step.overhead,
        largest_other_s=largest,
    )


def bytes_per_token(model: LlmArithmetic, machine: Machine, layouts: Layouts) -> tuple[Floats, Floats]:
    """Bytes that a token sends and gets back in one layer over its accelerator's links, and out of its domain. [B]

    Copies of the hidden vector: dispatched in FP8, combined in 16 bits; zero where no all-to-all is needed.
    """
    near, far = expert_copies(
        machine, group=layouts.ep, choices=np.maximum(model.active_experts, 1.0), slices=layouts.expert_split
    )
    each = model.hidden_size * (DISPATCH_BYTES + COMBINE_BYTES) * layouts.has_all_to_all
    return near * each, far * each
