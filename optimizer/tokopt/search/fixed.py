"""A replica whose every setting is given: what the model says of it, with the running cap as it is."""

from __future__ import annotations

import numpy as np

from tokopt.domain.caching import Caching, Offload, Router
from tokopt.domain.deployments import Deployment, ServingMode
from tokopt.domain.features import Feature
from tokopt.domain.workloads import Workload
from tokopt.perf.deployed import decode_layout, prefill_worker
from tokopt.perf.memory import serving_memory
from tokopt.perf.queueing import Profile, capacity
from tokopt.search.caching import Caches, choices, exact, profile_with, with_restores
from tokopt.search.candidates import Candidate, most_running
from tokopt.search.space import Family, SearchSpace, as_run, profile_of


def most_of_worker(family: Family, workload: Workload, deployment: Deployment, sending: Family | None = None) -> int:
    """Return the requests that one decoding worker of a deployment runs at most; 0 where a pool does not fit.

    Args:
        family: What the deployment is one of.
        workload: What it serves.
        deployment: Whose running cap does not matter.
        sending: The family of a prefill pool that is on another accelerator.
    """
    deployment = as_run(family, deployment, sending)
    if deployment.mode is ServingMode.DISAGG and not _prompts_fit(sending or family, workload, deployment):
        return 0
    layout, _ = decode_layout(deployment)
    most = most_running(family, deployment, workload)
    return most if most >= layout.dp * layout.pp else 0


def _prompts_fit(family: Family, workload: Workload, deployment: Deployment) -> bool:
    """Whether every rank and stage of a prefill worker holds the prompt that it works on."""
    worker = prefill_worker(deployment)
    use = serving_memory(
        family.model,
        family.machine,
        worker.layouts,
        role="prefill",
        input_tokens=workload.input_tokens,
        output_tokens=workload.output_tokens,
        output_cv=workload.output_cv,
        chunk_tokens=float(worker.chunk_tokens),
        draft_depth=float(worker.depth),
    )
    return float(np.squeeze(use.sequences)) >= worker.dp * worker.pp


def as_given(
    space: SearchSpace,
    family: Family,
    deployment: Deployment,
    *,
    router: Router | None = None,
    sending: Family | None = None,
) -> Candidate | None:
    """Return a set-up as it is given, with what the model says of it; None where it does not fit.

    Its capacity is zero where it keeps the limits at no rate. Where prompts repeat, what its caches find is worked out
    for its own running cap, `router` and the tier behind memory that its caching names. `sending` is the family of a
    prefill pool that is on another accelerator.
    """
    most = most_of_worker(family, space.workload, deployment, sending)
    _, workers = decode_layout(deployment)
    slots = (deployment.max_running_requests or most * workers) // workers
    if not 1 <= slots <= most:
        return None
    fitted = as_run(family, deployment, sending).model_copy(update={"max_running_requests": slots * workers})
    if space.workload.reuse is None:
        fitted = fitted.model_copy(update={"caching": None})
        profile = profile_of(family, fitted, space.workload, slots, sending)
    else:
        fitted, profile = _with_caches(family, space, fitted, router)
    return Candidate(
        family=with_restores(family, fitted),
        deployment=fitted,
        profile=profile,
        capacity_requests_per_s=capacity(profile, space.limits),
        sending=sending,
    )


def _with_caches(
    family: Family, space: SearchSpace, deployment: Deployment, router: Router | None
) -> tuple[Deployment, Profile]:
    """Return a set-up with what its caches find beside all requests that may run, and its profile."""
    _, workers = decode_layout(deployment)
    cap = deployment.max_running_requests or 0
    if Feature.PREFIX_CACHING not in family.features:
        none = Caching(router=Router.RANDOM, hit_share=0.0, device_share=0.0)
        bare = deployment.model_copy(update={"caching": none})
        return bare, profile_with(family, space.workload, bare, cap // workers)
    stated = deployment.caching
    tier = Offload.NONE if stated is None else stated.offload
    router = stated.router if router is None and stated is not None else router
    caches = Caches(family, space.workload, deployment, space.fleet, router=router)
    return exact(caches, choices(caches, np.array([float(cap)]), [tier])[0])
