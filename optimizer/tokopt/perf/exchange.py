"""What carrying tokens to their experts takes of a decode step: can links carry it, and from what batch on?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tokopt.perf.arithmetic import LlmArithmetic
from tokopt.perf.arrays import Floats
from tokopt.perf.collectives import expert_copies
from tokopt.perf.layouts import Layouts
from tokopt.perf.machine import Machine
from tokopt.perf.step import COMBINE_BYTES, DISPATCH_BYTES, expert_exchange_s, step_time


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """The all-to-alls of a decode step against what the accelerators do themselves, one element a deployment. [s]"""

    exchange_s: Floats  # all-to-alls of expert parallelism
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
        """How often all-to-alls would fit into the time that the accelerators compute; infinite where there are none.

        Other collectives are left out of that time: they slow down with the same links, and would look like room.
        """
        with np.errstate(divide="ignore"):
            room: Floats = np.divide(self.computing_s, np.asarray(self.exchange_s, dtype=float))
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
    """Return what all-to-alls take of a decode step; nothing overlaps them. The arguments are those of `step_time`."""
    step = step_time(
        model,
        machine,
        layouts,
        sequences=sequences,
        width=width,
        context=context,
        prefill_tokens=0.0,
        prefill_context=0.0,
        draft_depth=draft_depth,
    )
    waits = machine.slowdown * (1.0 + machine.pipeline_bubble * (np.asarray(layouts.pp) - 1.0))
    exchange_s = np.minimum(
        expert_exchange_s(model, machine, layouts, draft_depth)(sequences * width) * waits, step.collectives
    )
    links_s = step.collectives - exchange_s
    parts = (step.dense, step.experts, step.attention, step.overhead)
    largest = links_s
    for part in parts:
        largest = np.maximum(largest, part)
    return Exchange(
        exchange_s=exchange_s,
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
