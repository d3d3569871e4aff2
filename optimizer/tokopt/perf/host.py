"""What an accelerator waits for where nothing hides the work of its host: launches, and the scheduling of steps."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

from tokopt.domain.features import HIDING_THE_HOST, Feature
from tokopt.domain.host_times import HostTime, HostTimes, HostWork
from tokopt.perf.machine import Machine

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


def exposes(without: Collection[str]) -> bool:
    """Whether doing without some features makes an accelerator wait for its host."""
    return any(feature in without for feature in HIDING_THE_HOST)


def extremes(
    machine: Machine, without: Collection[str], published: Mapping[str, HostTime]
) -> Iterator[tuple[str, Machine]]:
    """Yield the machine with the least and with the most that is published of its host."""
    for which in (LOW, HIGH):
        yield which, exposed(machine, without, host_times(published, which))
