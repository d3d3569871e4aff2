"""Deployments that do without what engines have on by default: what is said of them, and how sure their figures are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tokopt.catalog import Catalog
from tokopt.domain.deployments import Deployment, ServingMode
from tokopt.domain.features import Feature
from tokopt.domain.host_times import HostTime, HostWork
from tokopt.domain.llms import Llm
from tokopt.domain.workloads import Workload
from tokopt.perf.deployed import decode_layout, decode_worker
from tokopt.perf.describe import steady_at
from tokopt.perf.host import exposed, exposes, extremes, host_times
from tokopt.perf.machine import Machine
from tokopt.units import MS, US

from .resolved import resolve

WORK = {
    Feature.CUDA_GRAPHS: (HostWork.LAYER, HostWork.EXPERT_LAYER),
    Feature.OVERLAP_SCHEDULING: (HostWork.STEP, HostWork.SEQUENCE),
}
UNITS = {
    HostWork.LAYER: "a layer",
    HostWork.EXPERT_LAYER: "more a layer with experts",
    HostWork.STEP: "a step",
    HostWork.SEQUENCE: "a running sequence",
}
WAITS = {
    Feature.CUDA_GRAPHS: "without captured graphs a decode step takes no less than its launches",
    Feature.OVERLAP_SCHEDULING: "without overlap scheduling the accelerators wait while each step is scheduled",
}


def host_unsure(catalog: Catalog, llm: Llm, deployment: Deployment, workload: Workload, *, running: float) -> float:
    """Return the share of throughput that may be off, one way or the other, by what is published of hosts.

    One where nothing exposes the host. Else the time per output token of a decode worker that runs its part of
    `running` requests is compared between the least, the usual and the most that is published.
    """
    if not exposes(deployment.without):
        return 1.0
    resolved = resolve(
        catalog,
        llm=llm,
        gpu=deployment.accelerator,
        framework=deployment.framework,
        precision=deployment.precision,
        kv_precision=deployment.kv_precision,
        speculator=deployment.speculator,
        domain=workload.domain,
    )
    _, workers = decode_layout(deployment)

    def tpot_s(machine: Machine) -> float:
        state = steady_at(
            resolved.model,
            machine,
            decode_worker(deployment, resolved.accepted(deployment.speculation_depth)),
            workload,
            running=running / workers,
            prefill=deployment.mode is ServingMode.AGG,
        )
        return float(np.squeeze(state.tpot_s))

    plain, without = resolved.machine, deployment.without
    usual = tpot_s(exposed(plain, without, host_times(catalog.host_times)))
    least, most = (tpot_s(machine) for _, machine in extremes(plain, without, catalog.host_times))
    return min(least / usual, usual / most)


def switched_off_said(catalog: Catalog, deployments: Sequence[Deployment]) -> list[str]:
    """Return what figures without a feature rest on, in sentences."""
    gone = {feature for deployment in deployments for feature in deployment.without}
    said = []
    for feature, works in WORK.items():
        if feature in gone:
            times = " and ".join(_time(catalog.host_times[work]) for work in works)
            said.append(f"{WAITS[feature]}: {times}; published, not measured here")
    return said


def whole_prompts_said(deployment: Deployment, input_tokens: float, stall_s: float) -> str:
    """Return what prompts that are not cut into chunks do to those who wait for their next token.

    Args:
        deployment: What takes prompts whole.
        input_tokens: Mean prompt.
        stall_s: Time that the steps take which compute one; of an aggregated deployment.
    """
    off = Feature.CHUNKED_PREFILL in deployment.without
    why = "chunked prefill is off" if off else f"{deployment.framework} has no chunked prefill there"
    room = f"{why}: a step has room for whole prompts, {deployment.chunk_tokens:,} tokens"
    if deployment.mode is ServingMode.DISAGG:
        return f"{room}, in the prefill pool"
    return (
        f"{room}, and a mean one of {input_tokens:,.0f} holds decoding up for {stall_s / MS:,.3g} ms at a time "
        "(TPOT is the mean of a request's tokens)"
    )


def _time(published: HostTime) -> str:
    value, low, high = (seconds / US for seconds in (published.value_s, published.low_s, published.high_s))
    return f"{value:,.4g} us {UNITS[HostWork(published.name)]} ({low:,.4g} to {high:,.4g}; {published.source})"
