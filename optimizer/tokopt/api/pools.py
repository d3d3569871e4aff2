"""Replicas whose prefill and decode pools are on different accelerators: what each pool holds, takes and keeps up."""

from __future__ import annotations

from collections.abc import Sequence

from tokopt.catalog import Catalog
from tokopt.domain.deployments import Deployment, Pool
from tokopt.domain.estimates import MemoryGib, PoolEstimate, PowerKw
from tokopt.domain.workloads import Workload
from tokopt.errors import InputError
from tokopt.perf.deployed import decode_worker, prefill_worker
from tokopt.perf.describe import MemoryShares, memory_shares, prompt_memory_shares, replica_drawn_w
from tokopt.perf.fluctuation import prefill_compute_share
from tokopt.perf.queueing import Profile
from tokopt.units import GIB, KW

from .resolved import Resolved, parse_pool


def asked_pools(prefill: str | None, decode: str | None) -> tuple[Pool, Pool] | None:
    """Return the two pools that were written, None where there are none.

    Raises:
        InputError: Not understood, or one without the other.
    """
    if prefill is None and decode is None:
        return None
    if prefill is None or decode is None:
        raise InputError("--prefill and --decode go together: two pools, like --prefill 2xtp4 --decode 1xtp8")
    return parse_pool(prefill, "--prefill"), parse_pool(decode, "--decode")


def gpus_of(catalog: Catalog, gpu: str | None, pools: tuple[Pool, Pool] | None) -> tuple[str, str | None]:
    """Return the accelerator that decodes, and the one that prefills where pools name one.

    A pool that names none is on `gpu`.

    Raises:
        InputError: An unknown name, or none where one is needed.
    """
    prefill, decode = (None, None) if pools is None else (pool.accelerator for pool in pools)
    main = decode or gpu
    if main is None or (prefill is None and gpu is None):
        raise InputError("--gpu is missing: which accelerator? (or name one in each pool: --prefill 2xtp4@h100_sxm)")
    for name, what in ((prefill, "--prefill"), (decode, "--decode")):
        if name is not None:
            try:
                catalog.accelerator(name)
            except InputError as error:
                raise InputError(f"{what}: {error}") from None
    return main, prefill or gpu


def gib(shares: MemoryShares) -> MemoryGib:
    """Return shares of memory in GiB."""
    return MemoryGib(weights=shares.weights / GIB, kv=shares.kv / GIB, other=shares.other / GIB, free=shares.free / GIB)


def pool_power(resolved: Resolved, gpus: int, busy: float, compute_share: float) -> PowerKw:
    """Return drawn, rated and provisioned power of accelerators of one kind that are busy for a share of the time."""
    accelerator = resolved.accelerator
    drawn = replica_drawn_w(accelerator, resolved.machine, accelerators=gpus, busy=busy, compute_share=compute_share)
    return PowerKw(
        drawn=None if drawn is None else drawn / KW,
        rated=None if accelerator.server_w is None else accelerator.server_w * gpus / KW,
        provisioned=None if accelerator.all_in_w is None else accelerator.all_in_w * gpus / KW,
    )


def pool_estimates(
    resolved: Resolved,
    deployment: Deployment,
    workload: Workload,
    profile: Profile,
    *,
    rate: float,
    busy: float,
    compute_share: float,
) -> tuple[PoolEstimate, ...]:
    """Return what each pool of a replica holds, takes and keeps up; nothing where both are on one accelerator.

    Args:
        resolved: Both accelerators.
        deployment: The replica.
        workload: Lengths.
        profile: The replica's, up to its running cap.
        rate: Requests a second that it serves.
        busy: Share of time that decode workers run steps.
        compute_share: Share of a decode step that arithmetic bounds.
    """
    prompts = resolved.prefill
    if prompts is None or deployment.prefill is None or deployment.decode is None or profile.prefill is None:
        return ()
    first, second = (
        prefill_worker(deployment),
        decode_worker(deployment, resolved.accepted(deployment.speculation_depth)),
    )
    keeps_up = profile.prefill.servers * profile.prefill.prompts_per_s
    decodes = profile.workers * float(profile.requests_per_s[-1])
    share = prefill_compute_share(prompts.model, prompts.machine, first, workload)
    load = min(rate / keeps_up, 1.0)
    held = memory_shares(resolved.model, resolved.machine, second, workload, slots=profile.slots, prefill=False)
    return (
        PoolEstimate(
            pool="prefill",
            accelerator=prompts.accelerator.name,
            accelerators=deployment.prefill.accelerators,
            load=load,
            saturation_requests_per_s=keeps_up,
            memory_gib=gib(prompt_memory_shares(prompts.model, prompts.machine, first, workload)),
            power_kw=pool_power(prompts, deployment.prefill.accelerators, load, share),
        ),
        PoolEstimate(
            pool="decode",
            accelerator=resolved.accelerator.name,
            accelerators=deployment.decode.accelerators,
            load=min(rate / decodes, 1.0),
            saturation_requests_per_s=decodes,
            memory_gib=gib(held),
            power_kw=pool_power(resolved, deployment.decode.accelerators, busy, compute_share),
        ),
    )


def sum_kw(each: Sequence[PowerKw]) -> PowerKw:
    """Return the power of several together; what is not known of one is not known of all."""

    def total(name: str) -> float | None:
        parts = [getattr(power, name) for power in each]
        return None if None in parts else sum(parts)

    return PowerKw(drawn=total("drawn"), rated=total("rated"), provisioned=total("provisioned"))
