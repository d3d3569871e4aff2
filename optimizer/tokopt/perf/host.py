"""What an accelerator waits for where nothing hides the work of its host: launches, and the scheduling of steps."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from tokopt.domain.features import HIDING_THE_HOST, Feature
from tokopt.domain.host_times import HostTime, HostTimes, HostWork
from tokopt.perf.arrays import Floats
from tokopt.perf.machine import Machine

if TYPE_CHECKING:
    from tokopt.perf.arithmetic import LlmArithmetic
    from tokopt.perf.layouts import Layouts
    from tokopt.perf.step import Steps, StepTime

VALUE, LOW, HIGH = "value_s", "low_s", "high_s"


def host_times(published: Mapping[str, HostTime], which: str = VALUE) -> HostTimes:
    """Return the published times of a host's work, or the least or most of them. [s]"""

    def seconds(work: HostWork) -> float:
        return float(getattr(published[work], which))

    return HostTimes(
        layer_s=seconds(HostWork.LAYER),
        expert_layer_s=seconds(HostWork.EXPERT_LAYER),
        step_s=seconds(HostWork.STEP),
        sequence_s=seconds(HostWork.SEQUENCE),
    )


def exposed(machine: Machine, without: Collection[str], host: HostTimes) -> Machine:
    """Return a machine that waits for its host where `without` lacks what hides it.

    Without captured graphs, launches are queued while earlier kernels run, so a step that decodes takes as long as its
    accelerators or its launches, whichever is longer:

        step = max(step, layers · eager_layer + expert layers · eager_expert_layer)

    Without overlap scheduling the accelerator idles while a step is scheduled, so that time is added:

        step = step + exposed_step + sequences · exposed_sequence

    The sequences are those of all ranks and stages: one scheduler serves them.

    Args:
        machine: Sustained rates and overheads as calibrated, everything hidden.
        without: Features that are switched off.
        host: What a host takes.
    """
    if Feature.CUDA_GRAPHS in without:
        machine = replace(machine, eager_layer_s=host.layer_s, eager_expert_layer_s=host.expert_layer_s)
    if Feature.OVERLAP_SCHEDULING in without:
        machine = replace(machine, exposed_step_s=host.step_s, exposed_sequence_s=host.sequence_s)
    return machine


def waiting_for_host(
    model: LlmArithmetic, machine: Machine, layouts: Layouts, depth: Floats, steps: Steps, batches: float
) -> Steps:
    """Return steps with what the accelerators wait for their host, which launches `batches` times a step.

    What `exposed` says: seconds of the host, to which nothing applies that was fitted to accelerators. The
    steps themselves where nothing exposes it.
    """
    if not machine.eager_layer_s and not machine.exposed_step_s:
        return steps
    layers = model.layers + depth * model.draft_modules
    if model.drafter is not None:
        layers = layers + depth * model.drafter.layers
    experts = model.moe_layers * (1.0 + depth * model.draft_modules / model.layers)
    launches = batches * (layers * machine.eager_layer_s + experts * machine.eager_expert_layer_s)
    queues = layouts.queues

    def waiting(*, sequences: Floats, prefill_tokens: Floats) -> StepTime:
        step = steps(sequences=sequences, prefill_tokens=prefill_tokens)
        busy = step.total
        waited = machine.exposed_step_s + sequences * queues * machine.exposed_sequence_s
        # Prefill steps are launched kernel by kernel in any case.
        if not (isinstance(sequences, float) and sequences == 0.0):
            waited = waited + np.maximum(launches - busy, 0.0)
        return replace(step, overhead=step.overhead + waited, compute_share=step.compute_share * busy / (busy + waited))

    return waiting


def exposes(without: Collection[str]) -> bool:
    """Whether doing without some features makes an accelerator wait for its host."""
    return any(feature in without for feature in HIDING_THE_HOST)


def extremes(
    machine: Machine, without: Collection[str], published: Mapping[str, HostTime]
) -> Iterator[tuple[str, Machine]]:
    """Yield the machine with the least and with the most that is published of its host."""
    for which in (LOW, HIGH):
        yield which, exposed(machine, without, host_times(published, which))
