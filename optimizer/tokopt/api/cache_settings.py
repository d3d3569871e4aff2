"""Caches of a deployment that is given: what they find under its load."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from tokopt.domain.caching import Caching, Offload, Router
from tokopt.domain.deployments import Deployment
from tokopt.domain.features import Feature
from tokopt.domain.workloads import Workload
from tokopt.errors import InputError, not_one_of
from tokopt.perf.caching import offload_of, restored, served
from tokopt.perf.deployed import replica_profile
from tokopt.perf.queueing import at_rate, saturation
from tokopt.search.caching import Caches, lines
from tokopt.search.space import ContextParallel, Family, Fleet
from tokopt.units import MS

from .loads import closed_loop_figures, slots_per_worker
from .resolved import Resolved

HALVINGS = 18  # of the share that is found: to six digits
SHARES_TRIED = 9
KnobT = TypeVar("KnobT", Router, Offload)


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSettings:
    """How the caches of a deployment are used, as asked for; None = what there is."""

    router: Router | None = None
    offload: Offload = Offload.NONE
    replicas: float | None = None


def cache_settings(router: str | None, kv_offload: str | None, replicas: float | None) -> CacheSettings:
    """Return the settings that `--router`, `--kv-offload` and `--replicas` name.

    Raises:
        InputError: Not one of what there is.
    """
    if replicas is not None and not 1.0 <= replicas < 1e6:
        raise InputError(f"--replicas: {replicas:g} is not possible; at least 1 replica serves")
    return CacheSettings(
        router=None if router is None else _named("--router", router, Router),
        offload=Offload.NONE if kv_offload is None else _named("--kv-offload", kv_offload, Offload),
        replicas=replicas,
    )


def _named(what: str, value: str, kind: type[KnobT]) -> KnobT:
    try:
        return kind(value)
    except ValueError:
        raise not_one_of(what, value, kind) from None


def with_caches(
    resolved: Resolved,
    deployment: Deployment,
    workload: Workload,
    settings: CacheSettings,
    *,
    concurrency: float | None,
    arrivals: float | None,
) -> Deployment:
    """Return a deployment with what its caches find of prompts that repeat, under a load.

    The share is the one that caches find at the rate, and beside the requests, that this very share makes.

    Raises:
        InputError: The framework or the accelerator does not have what is asked for.
    """
    family = _family(resolved, deployment)
    router = _checked(resolved, family, settings)
    caches = Caches(family, workload, deployment, Fleet(replicas_known=settings.replicas or 1.0), router=router)
    if slots_per_worker(resolved, deployment, workload) < 1:
        return deployment
    shares = np.linspace(0.0, caches.pattern.reusable_share, SHARES_TRIED)

    def found(share: float) -> Caching:
        running, rate = _loaded(resolved, deployment, workload, share, concurrency, arrivals)
        cap = np.array([running])
        _, prompts = caches.loads(np.maximum(cap, 1.0), shares)
        one = np.array([share])
        yields = caches.found(settings.offload, cap, one, np.array([rate]), lines(shares, prompts))
        return Caching(
            router=router,
            offload=settings.offload if yields.restore_s[0] > 0.0 else Offload.NONE,
            replicas=settings.replicas or 1.0,
            hit_share=float(yields.hit[0]),
            device_share=float(min(yields.device[0], yields.hit[0])),
            restore_ms=float(yields.restore_s[0]) / MS,
        )

    low, high = 0.0, float(shares[-1])
    caching = found(high)
    if caching.hit_share < high * (1.0 - 1e-9):
        for _ in range(HALVINGS):
            share = 0.5 * (low + high)
            caching = found(share)
            low, high = (share, high) if caching.hit_share >= share else (low, share)
    return deployment.model_copy(update={"caching": caching})


def _loaded(
    resolved: Resolved,
    deployment: Deployment,
    workload: Workload,
    share: float,
    concurrency: float | None,
    arrivals: float | None,
) -> tuple[float, float]:
    """Return the requests in service of a replica where a share of prompts is found, and the rate that it serves."""
    met = replace(workload, prefix_share=share)
    slots = slots_per_worker(resolved, deployment, workload)
    if concurrency is not None:
        figures = closed_loop_figures(resolved, deployment, met, concurrency, slots)
        return figures.running, figures.requests_per_s
    assert arrivals is not None
    accepted = resolved.accepted(deployment.speculation_depth)
    profile = replica_profile(resolved.model, resolved.machine, deployment, met, accepted=accepted, slots=slots)
    most = saturation(profile)
    if arrivals >= most * 0.999:
        return float(slots * profile.workers), most
    return at_rate(profile, arrivals).mean_in_service, arrivals


def waiting(resolved: Resolved, deployment: Deployment) -> Resolved:
    """Return a deployment's records with first tokens that also wait for what comes back from behind."""
    return replace(resolved, machine=restored(resolved.machine, deployment.caching))


def finding(workload: Workload, deployment: Deployment) -> Workload:
    """Return a workload with the share that a deployment's caches find; nothing where it has none."""
    if deployment.caching is None:
        return replace(workload, prefix_share=0.0)
    return served(workload, deployment.caching)


def _family(resolved: Resolved, deployment: Deployment) -> Family:
    depths = tuple(range(deployment.speculation_depth + 1))
    support = resolved.framework.support.get(resolved.accelerator.hardware)
    return Family(
        accelerator=resolved.accelerator,
        framework=resolved.framework,
        precision=resolved.precision,
        kv_precision=resolved.kv_precision,
        machine=resolved.machine,
        model=resolved.model,
        features=frozenset(support.features if support is not None else ()),
        context=ContextParallel(),
        speculator=resolved.speculator,
        depths=depths,
        accepted=np.array([resolved.accepted(depth) for depth in depths]),
    )


def _checked(resolved: Resolved, family: Family, settings: CacheSettings) -> Router:
    """Return the router, after checking that what is asked for is there."""
    framework, accelerator = resolved.framework.name, resolved.accelerator
    if Feature.PREFIX_CACHING not in family.features:
        raise InputError(f"--reuse: {framework} is not known to cache prefixes on {accelerator.name}")
    if settings.offload is not Offload.NONE:
        if Feature.KV_OFFLOAD not in family.features:
            raise InputError(f"--kv-offload: {framework} is not known to offload caches on {accelerator.name}")
        if None in offload_of(accelerator, settings.offload):
            raise InputError(
                f"--kv-offload: the catalog does not know how much {settings.offload.value} memory {accelerator.name} "
                "has, or how fast it is read"
            )
    routes = Feature.KV_ROUTING in family.features
    if settings.router is Router.KV_AWARE and not routes:
        raise InputError(f"--router: no router is known that knows what {framework} has cached on {accelerator.name}")
    return settings.router or (Router.KV_AWARE if routes else Router.RANDOM)
