"""From a deployment record to the workers and the profile that the model computes with."""

from __future__ import annotations

from tokopt.domain.deployments import Deployment, Layout, ServingMode
from tokopt.domain.workloads import Workload
from tokopt.perf.arithmetic import LlmArithmetic
from tokopt.perf.machine import Machine
from tokopt.perf.queueing import Profile
from tokopt.perf.replica import Worker, aggregated_profile, disaggregated_profile
from tokopt.perf.step import StepSource, worker_steps


def decode_layout(deployment: Deployment) -> tuple[Layout, int]:
    """Return the layout of the workers that decode, and how many of them a replica has."""
    if deployment.mode is ServingMode.AGG:
        assert deployment.layout is not None
        return deployment.layout, 1
    assert deployment.decode is not None
    return deployment.decode.layout, deployment.decode.workers


def decode_worker(deployment: Deployment, accepted: float) -> Worker:
    """Return the worker that decodes; `accepted` tokens a step at the deployment's speculation depth."""
    layout, _ = decode_layout(deployment)
    return _worker(layout, deployment.speculation_depth, accepted, deployment.chunk_tokens)


def prefill_worker(deployment: Deployment) -> Worker:
    """Return a worker of the prefill pool of a disaggregated deployment."""
    assert deployment.prefill is not None
    return _worker(deployment.prefill.layout, 0, 1.0, deployment.chunk_tokens)


def _worker(layout: Layout, depth: int, accepted: float, chunk_tokens: int) -> Worker:
    return Worker(
        tp=layout.tp,
        pp=layout.pp,
        ep=layout.ep,
        dp=layout.dp,
        cp=layout.cp,
        dcp=layout.dcp,
        depth=depth,
        accepted=accepted,
        chunk_tokens=chunk_tokens,
        redundant_experts=layout.redundant_experts,
        two_batch_overlap=layout.two_batch_overlap,
    )


def replica_profile(
    model: LlmArithmetic,
    machine: Machine,
    deployment: Deployment,
    workload: Workload,
    *,
    accepted: float,
    slots: int,
    source: StepSource = worker_steps,
    sending: Machine | None = None,
) -> Profile:
    """Return the profile of a replica whose decode workers each serve up to `slots` requests at a time.

    `source` says how long a step takes; `sending` is the machine of a prefill pool that is on another one.
    """
    worker = decode_worker(deployment, accepted)
    if deployment.mode is ServingMode.AGG:
        return aggregated_profile(model, machine, worker, workload, slots=slots, source=source)
    assert deployment.prefill is not None
    assert deployment.decode is not None
    return disaggregated_profile(
        model,
        machine,
        prefill=prefill_worker(deployment),
        prefill_workers=deployment.prefill.workers,
        decode=worker,
        decode_workers=deployment.decode.workers,
        workload=workload,
        slots=slots,
        source=source,
        sending=sending,
    )
