"""`estimate`: what one deployment does under a load."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tokopt.catalog import Catalog, load_catalog
from tokopt.domain.caching import Reuse
from tokopt.domain.deployments import Deployment, ServingMode
from tokopt.domain.estimates import Estimate, Interval
from tokopt.domain.expert_traffic import UNIFORM
from tokopt.domain.features import ON_BY_DEFAULT
from tokopt.domain.workloads import Workload
from tokopt.errors import InputError
from tokopt.perf.deployed import decode_worker, replica_profile
from tokopt.perf.describe import memory_shares, steady_at, time_shares
from tokopt.perf.queueing import LOAD_LIMIT, Profile, at_rate, saturation
from tokopt.perf.serving import Steady
from tokopt.perf.speculation import acceptance_unsure
from tokopt.perf.step import worker_steps
from tokopt.silicon import SiliconSteps
from tokopt.units import REQUEST_RATE, parse_quantity

from .cache_settings import CacheSettings, cache_settings, finding, waiting, with_caches
from .describing import described, step_budget
from .estimate_words import extrapolates, said_of, unfit
from .expert_traffic import popularity_spread, said_of_traffic, spreads_experts, with_spread_experts
from .items import latency_ms
from .loads import Figures, closed_loop_figures, prefill_fits, slots_per_worker
from .pools import asked_pools, gib, gpus_of, pool_estimates, pool_power, sum_kw
from .ranges import THROUGHPUT, TPOT, TTFT, clock_unsure, factors, resolved_traits, widest
from .requests import disabled_features, resolve_workload
from .resolved import Resolved, estimate_provenance, named, resolve
from .second_opinion import (
    BOTH,
    MODEL,
    NO_DATA,
    SILICON,
    check_perf,
    database_steps,
    database_used,
    has_gaps,
    refuse_unknown,
    with_second_opinion,
)
from .space import check_context
from .speculating import asked_drafts
from .switched_off import host_unsure, switched_off_said, whole_prompts_said

UNCALIBRATED = (
    "a step takes what its kernels took alone: nothing between kernels, nothing fitted to serving, so no 80 % range"
)


def estimate(
    *,
    model: str,
    gpu: str | None = None,
    framework: str | None = None,
    precision: str | None = None,
    kv_precision: str | None = None,
    tp: int = 1,
    pp: int = 1,
    ep: int = 1,
    dp: int = 1,
    cp: int = 1,
    dcp: int = 1,
    redundant_experts: int = 0,
    two_batch_overlap: bool = False,
    prefill: str | None = None,
    decode: str | None = None,
    mtp: int = 0,
    speculator: str | None = None,
    depth: int | None = None,
    chunk_tokens: int = 8192,
    max_running: int | None = None,
    workload: str | Workload = "chat",
    isl: float | None = None,
    osl: float | None = None,
    prefix_share: float | None = None,
    reuse: str | Reuse | None = None,
    expert_traffic: str = UNIFORM,
    router: str | None = None,
    kv_offload: str | None = None,
    replicas: float | None = None,
    concurrency: float | None = None,
    rate: str | None = None,
    disable: str | Sequence[str] | None = None,
    perf: str = MODEL,
    catalog: str | Catalog | None = None,
) -> Estimate:
    """Return latency, throughput, memory and power of one deployment.

    Args:
        model: Name, alias or path of a Hugging Face config.json.
        gpu: Accelerator; None where both pools name their own.
        framework: Serving framework; None = the catalog's first that runs there.
        precision: Of the weights; None = the checkpoint's own.
        kv_precision: Of the cache; None = what the precision asks for.
        tp: Tensor-parallel degree; `pp`, `ep`, `dp` (attention data parallel) likewise.
        pp: Pipeline-parallel degree.
        ep: Expert-parallel degree.
        dp: Attention-data-parallel degree.
        cp: Prefill-context-parallel degree: a prompt's tokens are split over `cp` copies of the attention ranks.
        dcp: Decode-context-parallel degree: the cache's tokens are split where tensor parallelism would copy it.
        redundant_experts: Further copies of popular experts, a layer, of every pool that spreads experts.
        two_batch_overlap: Whether steps may run as two halves, one exchanging while the other computes.
        prefill: Prefill pool of a disaggregated deployment, like `2xtp4`, or `2xtp4@h100_sxm` where it is not on
            `gpu`; goes with `decode`.
        decode: Decode pool, written the same way.
        mtp: Draft tokens a step by multi-token prediction: `speculator="mtp"` with that `depth`.
        speculator: What drafts tokens, by name; `mtp` = the modules that the checkpoint ships.
        depth: Draft tokens a step; None = 1 where a speculator is named, else none.
        chunk_tokens: Token budget of a prefill chunk.
        max_running: Most requests in service; None = the framework's default and what memory holds.
        workload: Name or record; `isl`, `osl` and `prefix_share` replace single figures.
        isl: Mean input tokens.
        osl: Mean output tokens.
        prefix_share: Share of input tokens found in the prefix cache.
        reuse: What repeats in prompts, like `turns=8,gap=30s`: what is found then follows from the caches.
        expert_traffic: How unlike experts are asked for: `benchmark` or `skewed`.
        router: How requests reach one of `replicas` replicas: `kv_aware`, `random`, `round_robin` or `least_loaded`;
            None = the first where the framework has it.
        kv_offload: Where caches go that accelerator memory has no room for: `none`, `host` or `ssd`.
        replicas: Replicas like this one that share the traffic.
        concurrency: Requests in flight: a closed loop, as benchmarks run.
        rate: Requests a second, like `8req/s`: open traffic.
        disable: What engines have on by default, to do without: `chunked_prefill`, `cuda_graphs`,
            `overlap_scheduling`. Nothing where the framework does not have it there.
        perf: Where step times come from: `model`; `silicon`, NVIDIA's measured operator database (needs the extra
            `silicon`); or `both`: the model's answer, with the other one next to it in `second_opinion`.
        catalog: A catalog or an overlay directory.

    Raises:
        InputError: A request that cannot be understood or that the catalog says is not supported; with
            `perf="silicon"` also one that the database has no answer to.
    """
    check_perf(perf, (MODEL, SILICON, BOTH))
    pools = asked_pools(prefill, decode)
    loaded = catalog if isinstance(catalog, Catalog) else load_catalog(catalog)
    llm = named(loaded, model)
    drafts = asked_drafts(mtp, speculator, depth)
    shape = resolve_workload(
        loaded, workload, input_tokens=isl, output_tokens=osl, prefix_share=prefix_share, reuse=reuse
    )
    main, prompts_on = gpus_of(loaded, gpu, pools)
    resolved = resolve(
        loaded,
        llm=llm,
        gpu=main,
        prefill_gpu=prompts_on,
        framework=framework,
        precision=precision,
        kv_precision=kv_precision,
        speculator=speculator,
        domain=shape.domain,
        disabled=disabled_features(disable, ON_BY_DEFAULT),
    ).in_traffic(popularity_spread(loaded, expert_traffic))
    check_context(llm, shape)
    budget = step_budget(resolved, shape, chunk_tokens)
    deployment = described(resolved, (tp, pp, ep, dp, cp, dcp), pools, drafts, budget, max_running)
    deployment = with_spread_experts(resolved, deployment, redundant=redundant_experts, two_batch=two_batch_overlap)
    if (concurrency is None) == (rate is None):
        raise InputError("give the load once: --concurrency 64 (closed loop) or --rate 8req/s (open traffic)")
    if concurrency is not None and not 1 <= concurrency < 1e9:
        raise InputError(f"--concurrency: {concurrency:g} is not possible; at least 1 request is in flight")
    arrivals = None if rate is None else parse_quantity(rate, REQUEST_RATE, what="--rate")
    settings = cache_settings(router, kv_offload, replicas)
    if shape.reuse is not None:
        if deployment.mixed:
            raise InputError("--reuse: prefix caches are not modelled yet where pools are on different accelerators")
        load = {"concurrency": concurrency, "arrivals": arrivals}
        deployment = with_caches(resolved, deployment, shape, settings, **load)
        resolved, shape = waiting(resolved, deployment), finding(shape, deployment)
    elif settings != CacheSettings():
        raise InputError("--router, --kv-offload and --replicas are about prompts that repeat: give --reuse too")

    def from_database() -> Estimate:
        if deployment.mixed:
            raise InputError("the operator database answers for one accelerator: both pools have to be on the same")
        database = database_steps(resolved)
        return estimate_deployment(
            loaded, resolved, deployment, shape, concurrency=concurrency, arrivals=arrivals, database=database
        )

    if perf != MODEL and (redundant_experts or two_batch_overlap or expert_traffic != UNIFORM):
        raise InputError(
            "--redundant-experts, --two-batch-overlap, --expert-traffic: not in the database; use --perf model"
        )
    if perf == SILICON:
        return from_database()
    traffic = said_of_traffic(loaded, expert_traffic)
    own = estimate_deployment(loaded, resolved, deployment, shape, concurrency=concurrency, arrivals=arrivals)
    if spreads_experts(deployment):
        own = own.model_copy(update={"assumptions": (*own.assumptions, traffic)})
    return with_second_opinion(own, from_database) if perf == BOTH else own


def estimate_deployment(
    catalog: Catalog,
    resolved: Resolved,
    deployment: Deployment,
    workload: Workload,
    *,
    concurrency: float | None,
    arrivals: float | None,
    database: SiliconSteps | None = None,
) -> Estimate:
    """Return the estimate of a deployment under a closed loop or open arrivals (exactly one of them).

    Step times are the model's own, or those of a database.

    Raises:
        InputError: The database has no answer for the deployment.
    """
    slots = slots_per_worker(resolved, deployment, workload)
    said = f"concurrency {concurrency:g}" if concurrency is not None else f"{arrivals:g} req/s"
    if slots < 1 or not prefill_fits(resolved, deployment, workload):
        return unfit(catalog, resolved, deployment, workload, said)
    if database is not None:
        refuse_unknown(database, deployment)
    source = database or worker_steps
    profile = replica_profile(
        resolved.model,
        resolved.machine,
        deployment,
        workload,
        accepted=resolved.accepted(deployment.speculation_depth),
        slots=slots,
        source=source,
        sending=resolved.sending,
    )
    if database is not None and has_gaps(profile):
        raise InputError(NO_DATA)
    most = saturation(profile)
    if concurrency is not None:
        figures = closed_loop_figures(resolved, deployment, workload, concurrency, slots, source=source)
    elif arrivals is not None and arrivals < most * 0.999:
        loaded = at_rate(profile, arrivals)
        late = arrivals > LOAD_LIMIT * most
        reason = f"above {LOAD_LIMIT:.0%} of saturation ({most:.4g} req/s): queues hardly settle" if late else ""
        figures = Figures(
            ttft_s=loaded.ttft_s,
            tpot_s=loaded.tpot_s,
            e2e_s=loaded.e2e_s,
            requests_per_s=arrivals,
            running=loaded.mean_in_service,
            busy=loaded.busy,
            overloaded=False,
            reason=reason,
        )
    else:
        figures = Figures(
            ttft_s=None,
            tpot_s=None,
            e2e_s=None,
            requests_per_s=most,
            running=float(slots * profile.workers),
            busy=1.0,
            overloaded=True,
            reason=f"overloaded: saturates at {most:.4g} req/s, so the queue grows without end",
        )
    return _estimate(catalog, resolved, deployment, workload, said, figures, profile, database)


def _estimate(
    catalog: Catalog,
    resolved: Resolved,
    deployment: Deployment,
    workload: Workload,
    said: str,
    figures: Figures,
    profile: Profile,
    database: SiliconSteps | None,
) -> Estimate:
    slots, workers = profile.slots, profile.workers
    gpus = deployment.accelerators
    agg = deployment.mode is ServingMode.AGG
    worker = decode_worker(deployment, resolved.accepted(deployment.speculation_depth))
    state = steady_at(
        resolved.model,
        resolved.machine,
        worker,
        workload,
        running=figures.running / workers,
        prefill=agg,
        source=database or worker_steps,
    )
    shares = time_shares(state)
    memory = memory_shares(resolved.model, resolved.machine, worker, workload, slots=slots, prefill=agg)
    load = {
        "rate": figures.requests_per_s,
        "busy": figures.busy,
        "compute_share": float(np.squeeze(state.compute_share)),
    }
    pools = pool_estimates(resolved, deployment, workload, profile, **load)
    output = figures.requests_per_s * workload.output_tokens / gpus
    total = figures.requests_per_s * (workload.input_tokens + workload.output_tokens) / gpus
    tpot = None if figures.tpot_s is None else latency_ms(figures.tpot_s)
    used = None if database is None else database_used(database)
    return Estimate(
        deployment=deployment.model_copy(update={"max_running_requests": slots * workers}),
        workload=workload.name,
        input_tokens=workload.input_tokens,
        output_tokens=workload.output_tokens,
        load=said,
        fits=True,
        overloaded=figures.overloaded,
        reason=figures.reason,
        ttft_ms=None if figures.ttft_s is None else latency_ms(figures.ttft_s),
        tpot_ms=tpot,
        e2e_ms=None if figures.e2e_s is None else latency_ms(figures.e2e_s),
        tokens_per_s_per_user=None if tpot is None else 1e3 / tpot.mean,
        requests_per_s=figures.requests_per_s,
        output_tokens_per_s_per_gpu=output,
        total_tokens_per_s_per_gpu=total,
        running_batch=figures.running,
        running_cap=slots * workers,
        saturation_requests_per_s=saturation(profile),
        memory_gib=gib(memory),
        bottleneck=max(shares, key=lambda name: shares[name]),
        bottleneck_shares=shares,
        power_kw=sum_kw([pool.power_kw for pool in pools])
        if pools
        else pool_power(resolved, gpus, figures.busy, load["compute_share"]),
        accelerators=gpus,
        interval={}
        if database is not None
        else _ranges(catalog, resolved, deployment, figures, output, total, workload),
        extrapolated=extrapolates(catalog, resolved, workload),
        assumptions=(
            *said_of(resolved, deployment, workload),
            *_said_of_host(catalog, resolved, deployment, workload, state),
            *([] if used is None else [UNCALIBRATED]),
        ),
        provenance=estimate_provenance(catalog, resolved, used),
        pools=pools,
    )


def _said_of_host(
    catalog: Catalog, resolved: Resolved, deployment: Deployment, workload: Workload, state: Steady
) -> list[str]:
    said = switched_off_said(catalog, [deployment])
    if not resolved.cuts_prompts:
        said.append(whole_prompts_said(deployment, workload.input_tokens, float(np.squeeze(state.prefill_s))))
    return said


def _ranges(
    catalog: Catalog,
    resolved: Resolved,
    deployment: Deployment,
    figures: Figures,
    output: float,
    total: float,
    workload: Workload,
) -> dict[str, Interval]:
    """Return the 80 % ranges of what the model says with its own step times."""
    mode = deployment.mode
    hosts = host_unsure(catalog, resolved.llm, deployment, workload, running=figures.running)
    unsure = 1.0
    if resolved.speculator is not None and deployment.speculation_depth:
        unsure = acceptance_unsure(resolved.speculator, workload.domain, deployment.speculation_depth)

    def around(figure: str, value: float) -> Interval:
        # Decoding alone decides the time per output token; of all else the range is that of the less certain pool.
        ends = (resolved,) if figure == TPOT else resolved.ends
        known = widest(
            factors(catalog.calibration, resolved_traits(end), mode, figure).widened(clock_unsure(end.accelerator))
            for end in ends
        )
        return (known if figure == TTFT else known.widened(unsure).widened(hosts)).around(value)

    interval = {
        "output_tokens_per_s_per_gpu": around(THROUGHPUT, output),
        "total_tokens_per_s_per_gpu": around(THROUGHPUT, total),
    }
    if figures.tpot_s is not None and figures.ttft_s is not None:
        interval["tpot_ms"] = around(TPOT, latency_ms(figures.tpot_s).mean)
        interval["ttft_ms"] = around(TTFT, figures.ttft_s["mean"] * 1e3)
    return interval
