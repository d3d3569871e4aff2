"""What an estimate says in any case: its power, what it takes for granted, and why a deployment does not fit."""

from __future__ import annotations

from tokopt.catalog import Catalog
from tokopt.domain.caching import Offload
from tokopt.domain.deployments import Deployment, ServingMode
from tokopt.domain.estimates import Estimate, PowerKw
from tokopt.domain.workloads import Workload
from tokopt.perf.deployed import decode_worker, prefill_worker
from tokopt.perf.describe import memory_shares
from tokopt.units import GIB

from .long_inputs import context_said
from .pools import gib, pool_power, sum_kw
from .ranges import outside, resolved_traits
from .resolved import Resolved, estimate_provenance
from .speculating import acceptance_said


def extrapolates(catalog: Catalog, resolved: Resolved, workload: Workload) -> bool:
    """Return whether any part of a deployment lies outside what the calibration was fitted to."""
    lengths = workload.input_tokens, workload.output_tokens
    return any(outside(catalog.calibration, resolved_traits(end), *lengths) for end in resolved.ends)


def said_of(resolved: Resolved, deployment: Deployment, workload: Workload) -> tuple[str, ...]:
    """Return what an estimate takes for granted, in sentences."""
    said = [
        f"{resolved.framework.name}, weights {resolved.precision.name}, cache {resolved.kv_precision}",
        f"{workload.input_tokens:,.0f} tokens in, {workload.output_tokens:,.0f} out on average, "
        f"{workload.prefix_share:.0%} of prompts cached",
    ]
    said += context_said([deployment])
    if deployment.mixed:
        said.append(
            f"prefills on {deployment.prefill_accelerator}, decodes on {deployment.accelerator}: caches move over "
            "links between nodes, as fast as the slower end; that the framework can do so is taken for granted"
        )
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
    pool, end = "" if agg else "decode pool: ", resolved
    if memory.free >= 0 and deployment.prefill is not None:
        # Decode workers hold a request: it is the prefill workers that cannot.
        pool, end = "prefill pool: ", resolved.prefill or resolved
        prompts = prefill_worker(deployment)
        memory = memory_shares(resolved.model, end.machine, prompts, workload, slots=1, prefill=True)
    reason = (
        f"{pool}does not fit: weights of {memory.weights / GIB:,.1f} GiB, {memory.other / GIB:,.1f} GiB of working "
        f"memory and {memory.kv / GIB:,.1f} GiB of cache for one request on a device of "
        f"{end.machine.memory_bytes / GIB:,.1f} GiB; spread the model wider, or use a narrower precision"
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
        memory_gib=gib(memory),
        bottleneck=None,
        bottleneck_shares={},
        power_kw=_idle(resolved, deployment),
        accelerators=deployment.accelerators,
        interval={},
        extrapolated=extrapolates(catalog, resolved, workload),
        assumptions=said_of(resolved, deployment, workload),
        provenance=estimate_provenance(catalog, resolved),
    )


def _idle(resolved: Resolved, deployment: Deployment) -> PowerKw:
    """Return the power of a replica that does nothing."""
    counts = [deployment.accelerators]
    if resolved.prefill is not None and deployment.prefill is not None and deployment.decode is not None:
        counts = [deployment.decode.accelerators, deployment.prefill.accelerators]
    return sum_kw([pool_power(end, count, 0.0, 0.0) for end, count in zip(resolved.ends, counts, strict=True)])
