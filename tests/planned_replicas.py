"""Replicas of models and accelerators of the catalog, as simulations of plans make them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tokopt.api.describing import described, step_budget
from tokopt.api.expert_traffic import with_spread_experts
from tokopt.api.loads import slots_per_worker
from tokopt.api.pools import asked_pools
from tokopt.api.resolved import Resolved, resolve
from tokopt.api.simulated_fleet import setup_of
from tokopt.catalog import Catalog
from tokopt.domain.deployments import Deployment
from tokopt.domain.features import Feature
from tokopt.domain.workloads import Workload
from tokopt.perf.deployed import decode_layout, replica_profile
from tokopt.perf.queueing import Profile
from tokopt.simulation.replicas import Kind, ReplicaSetup, kind_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A replica, with all that it was made of."""

    resolved: Resolved
    deployment: Deployment
    workload: Workload
    profile: Profile
    setup: ReplicaSetup
    kind: Kind


def planned(
    catalog: Catalog,
    model: str,
    gpu: str = "h100_sxm",
    *,
    framework: str = "vllm",
    tp: int = 1,
    pp: int = 1,
    ep: int = 1,
    dp: int = 1,
    cp: int = 1,
    dcp: int = 1,
    prefill: str | None = None,
    decode: str | None = None,
    chunk: int = 8192,
    drafts: int = 0,
    speculator: str | None = None,
    disable: tuple[Feature, ...] = (),
    two_batch: bool = False,
    max_running: int | None = None,
    **workload: Any,
) -> Planned:
    """Return a replica of a layout, and its profile in the performance model."""
    resolved = resolve(
        catalog,
        llm=catalog.llm(model),
        gpu=gpu,
        framework=framework,
        precision=None,
        kv_precision=None,
        speculator=speculator,
        disabled=disable,
    )
    asked = Workload(**({"name": "x", "input_tokens": 2048, "output_tokens": 512} | workload))
    budget = step_budget(resolved, asked, chunk)
    degrees = (tp, pp, ep, dp, cp, dcp)
    deployment = described(resolved, degrees, asked_pools(prefill, decode), drafts, budget, max_running)
    deployment = with_spread_experts(resolved, deployment, redundant=0, two_batch=two_batch)
    slots = slots_per_worker(resolved, deployment, asked)
    profile = replica_profile(
        resolved.model, resolved.machine, deployment, asked, accepted=resolved.accepted(drafts), slots=slots
    )
    _, workers = decode_layout(deployment)
    setup = setup_of(resolved, deployment, asked, cap=slots * workers)
    return Planned(
        resolved=resolved,
        deployment=deployment,
        workload=asked,
        profile=profile,
        setup=setup,
        kind=kind_of(setup),
    )
