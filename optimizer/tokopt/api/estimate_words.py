"""What an estimate says in any case: its power, what it takes for granted, and why a deployment does not fit."""

from __future__ import annotations

from tokopt.catalog import Catalog
from tokopt.domain.caching import Offload
from tokopt.domain.deployments import Deployment, ServingMode
from tokopt.domain.estimates import Estimate, MemoryGib, PowerKw
from tokopt.domain.workloads import Workload
from tokopt.perf.deployed import decode_worker, prefill_worker
from tokopt.perf.describe import memory_shares, replica_drawn_w
from tokopt.units import GIB, KW

from .long_inputs import context_said
from .ranges import outside, resolved_traits
from .resolved import Resolved, estimate_provenance
from .speculating import acceptance_said


def power_of(resolved: Resolved, gpus: int, busy: float, compute_share: float) -> PowerKw:
    """Return drawn, rated and provisioned power of a replica that is busy for a share of the time."""
    accelerator = resolved.accelerator
    drawn = replica_drawn_w(accelerator, resolved.machine, accelerators=gpus, busy=busy, compute_share=compute_share)
    return PowerKw(
        drawn=None if drawn is None else drawn / KW,
        rated=None if accelerator.server_w is None else accelerator.server_w * gpus / KW,
        provisioned=None if accelerator.all_in_w is None else accelerator.all_in_w * gpus / KW,
    )


def said_of(resolved: Resolved, deployment: Deployment, workload: Workload) -> tuple[str, ...]:
    """Return what an estimate takes for granted, in sentences."""
    said = [
        f"{resolved.framework.name}, weights {resolved.precision.name}, cache {resolved.kv_precision}",
        f"{workload.input_tokens:,.0f} tokens in, {workload.output_tokens:,.0f} out on average, "
        f"{workload.prefix_share:.0%} of prompts cached",
    ]
    said += context_said([deployment])
    if deployment.caching is not None:
        caching = deployment.caching
        where = "all in GPU memory"
        if caching.offload is not Offload.NONE:
            fetched = f"fetched from {caching.offload.value} in {caching.restore_ms:,.3g} ms a request"
            where = f"{caching.hit_share - caching.device_share:.1%} {fetched}"
        said.append(
            f"prefix caches of {caching.replicas or 1:g} replicas, routed {caching.router.value.replace('_', ' ')}, "
            f"find {caching.hit_share:.1%} of prompt tokens, {where} (LRU; published constants, not fitted)"
        )
    if deployment.speculation_depth:
        accepted = resolved.accepted(deployment.speculation_depth)
        drafts = resolved.speculator.title if resolved.speculator else "multi-token prediction"
        said.append(f"{drafts} yields {accepted:.2f} tokens a step at depth {deployment.speculation_depth}")
        if resolved.speculator is not None:
            said += acceptance_said(resolved.speculator, workload.domain)
    return tuple(said)


def unfit(catalog: Catalog, resolved: Resolved, deployment: Deployment, workload: Workload, said: str) -> Estimate:
    """Return the estimate of a deployment that does not fit: what is missing, and by how much; `said` is the load."""
    agg = deployment.mode is ServingMode.AGG
    worker = decode_worker(deployment, resolved.accepted(deployment.speculation_depth))
    memory = memory_shares(resolved.model, resolved.machine, worker, workload, slots=1, prefill=agg)
    pool = "" if agg else "decode pool: "
    if memory.free >= 0 and deployment.prefill is not None:
        # Decode workers hold a request: it is the prefill workers that cannot.
        pool = "prefill pool: "
        prompts = prefill_worker(deployment)
        memory = memory_shares(resolved.model, resolved.machine, prompts, workload, slots=1, prefill=True)
    reason = (
        f"{pool}does not fit: weights of {memory.weights / GIB:,.1f} GiB, {memory.other / GIB:,.1f} GiB of working "
        f"memory and {memory.kv / GIB:,.1f} GiB of cache for one request on a device of "
        f"{resolved.machine.memory_bytes / GIB:,.1f} GiB; spread the model wider, or use a narrower precision"
    )
    return Estimate(
        deployment=deployment,
        workload=workload.name,
        input_tokens=workload.input_tokens,
        output_tokens=workload.output_tokens,
        load=said,
        fits=False,
        overloaded=False,
        reason=reason,
        ttft_ms=None,
        tpot_ms=None,
        e2e_ms=None,
        tokens_per_s_per_user=None,
        requests_per_s=None,
        output_tokens_per_s_per_gpu=None,
        total_tokens_per_s_per_gpu=None,
        running_batch=None,
        running_cap=None,
        saturation_requests_per_s=None,
        memory_gib=MemoryGib(
            weights=memory.weights / GIB, kv=memory.kv / GIB, other=memory.other / GIB, free=memory.free / GIB
        ),
        bottleneck=None,
        bottleneck_shares={},
        power_kw=power_of(resolved, deployment.accelerators, 0.0, 0.0),
        accelerators=deployment.accelerators,
        interval={},
        extrapolated=outside(
            catalog.calibration, resolved_traits(resolved), workload.input_tokens, workload.output_tokens
        ),
        assumptions=said_of(resolved, deployment, workload),
        provenance=estimate_provenance(catalog, resolved),
    )
