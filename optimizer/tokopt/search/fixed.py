"""A replica whose every setting is given: what the model says of it, with the running cap as it is."""

from __future__ import annotations

import numpy as np

from tokopt.domain.accelerators import Accelerator
from tokopt.domain.caching import Caching, Offload, Router
from tokopt.domain.deployments import Deployment, ServingMode
from tokopt.domain.features import Feature
from tokopt.perf.deployed import decode_layout, prefill_worker
from tokopt.perf.memory import serving_memory
from tokopt.perf.queueing import Profile, capacity
from tokopt.search.caching import Caches, choices, exact, profile_with, with_restores
from tokopt.search.candidates import Candidate, most_running
from tokopt.search.space import Family, SearchSpace, as_run, family_of, profile_of


def most_of_worker(
    space: SearchSpace, accelerator: Accelerator, deployment: Deployment, sending: Accelerator | None = None
) -> int:
    """Return the requests that one decoding worker of a deployment runs at most; 0 where a pool does not fit.

    Args:
        space: What the deployment is one of.
        accelerator: That decodes.
        deployment: Whose running cap does not matter.
        sending: The accelerator of a prefill pool that is on another one.
    """
    family = family_of(space, accelerator, deployment)
    prompts = family if sending is None else family_of(space, sending, deployment)
    if family is None or prompts is None:
        return 0
    deployment = as_run(family, deployment, prompts if sending is not None else None)
    if deployment.mode is ServingMode.DISAGG and not _prompts_fit(prompts, space, deployment):
        return 0
    layout, _ = decode_layout(deployment)
    most = most_running(family, deployment, space.workload)
    return most if most >= layout.dp * layout.pp else 0


def _prompts_fit(family: Family, space: SearchSpace, deployment: Deployment) -> bool:
    """Whether every rank and stage of a prefill worker holds the prompt that it works on."""
    worker, workload = prefill_worker(deployment), space.workload
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
    accelerator: Accelerator,
    deployment: Deployment,
    *,
    router: Router | None = None,
    sending: Accelerator | None = None,
) -> Candidate | None:
    """Return a set-up as it is given, with what the model says of it; None where it does not fit, or has no family.

    Its capacity is zero where it keeps the limits at no rate. Where prompts repeat, what its caches find is worked out
    for its own running cap, `router` and the tier behind memory that its caching names.
    """
    most = most_of_worker(space, accelerator, deployment, sending)
    _, workers = decode_layout(deployment)
    cap = deployment.max_running_requests or most * workers
    slots = cap // workers
    if not 1 <= slots <= most:
        return None
    family = family_of(space, accelerator, deployment)
    prompts = None if sending is None else family_of(space, sending, deployment)
    assert family is not None
    fitted = as_run(family, deployment, prompts).model_copy(update={"max_running_requests": slots * workers})
    if space.workload.reuse is None:
        fitted = fitted.model_copy(update={"caching": None})
        profile = profile_of(family, fitted, space.workload, slots, prompts)
    else:
        fitted, profile = _with_caches(family, space, fitted, router)
    return Candidate(
        family=with_restores(family, fitted),
        deployment=fitted,
        profile=profile,
        capacity_requests_per_s=capacity(profile, space.limits),
        sending=prompts,
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
