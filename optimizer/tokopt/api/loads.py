"""What a closed loop of requests makes of one replica, and how many requests it may run."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tokopt.domain.deployments import Deployment, Layout, Pool, ServingMode
from tokopt.domain.workloads import Workload
from tokopt.perf.deployed import decode_layout, decode_worker
from tokopt.perf.describe import memory_slots
from tokopt.perf.layouts import SETTINGS, Layouts, stacked_layouts
from tokopt.perf.queueing import FirstToken, lognormal_factor, normal_quantile
from tokopt.perf.rows import Predicted, Rows, predict_aggregated, predict_disaggregated, worker_memory
from tokopt.perf.serving import lengths
from tokopt.perf.step import StepSource, worker_steps

from .resolved import Resolved

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a load makes of a replica; latencies in seconds by statistic, None where it is overloaded."""

    ttft_s: dict[str, float] | None
    tpot_s: dict[str, float] | None
    e2e_s: dict[str, float] | None
    requests_per_s: float
    running: float
    busy: float  # share of time that steps run
    overloaded: bool
    reason: str = ""


def slots_per_worker(resolved: Resolved, deployment: Deployment, workload: Workload) -> int:
    """Return the requests that one decoding worker runs at most: memory, the framework's default, or the cap given."""
    layout, workers = decode_layout(deployment)
    held = memory_slots(
        resolved.model,
        resolved.machine,
        decode_worker(deployment, resolved.accepted(deployment.speculation_depth)),
        workload,
        prefill=deployment.mode is ServingMode.AGG,
    )
    allowed = float(resolved.framework.max_running_requests * layout.dp * layout.pp)
    if deployment.max_running_requests is not None:
        allowed = deployment.max_running_requests / workers
    return int(min(held, max(allowed, 1.0)))


def prefill_fits(resolved: Resolved, deployment: Deployment, workload: Workload) -> bool:
    """Whether the prefill workers of a disaggregated deployment hold a prompt; true where there are none."""
    if deployment.prefill is None:
        return True
    rows = _one_row(resolved, deployment, workload, 1.0, 1)
    use = worker_memory(
        resolved.model, resolved.sending or resolved.machine, rows.prefill, rows, role="prefill", depth=0.0
    )
    return bool(np.all(np.asarray(use.sequences) >= 1.0))


def _one_row(resolved: Resolved, deployment: Deployment, workload: Workload, concurrency: float, slots: int) -> Rows:
    layout, workers = decode_layout(deployment)
    pool = deployment.prefill or Pool(workers=1, layout=Layout())

    def one(value: float) -> np.ndarray:
        return np.array([float(value)])

    def layouts(of: Layout) -> Layouts:
        return stacked_layouts({name: one(getattr(of, name)) for name in SETTINGS})

    depth = deployment.speculation_depth
    return Rows(
        decode=layouts(layout),
        decode_workers=one(workers),
        prefill=layouts(pool.layout),
        prefill_workers=one(pool.workers),
        size=lengths(
            one(workload.input_tokens),
            one(workload.output_tokens),
            workload.prefix_share,
            input_cv=workload.input_cv,
            output_cv=workload.output_cv,
        ),
        input_tokens=one(workload.input_tokens),
        output_tokens=one(workload.output_tokens),
        concurrency=one(concurrency),
        running_cap=one(slots),
        depth=one(depth),
        accepted=one(resolved.accepted(depth)),
        may_speculate=one(0.0),
        chunk_tokens=one(deployment.chunk_tokens),
    )


def closed_loop_figures(
    resolved: Resolved,
    deployment: Deployment,
    workload: Workload,
    concurrency: float,
    slots: int,
    *,
    source: StepSource = worker_steps,
) -> Figures:
    """Return means and percentiles with `concurrency` requests in flight; `slots` of a decoding worker."""
    rows = _one_row(resolved, deployment, workload, concurrency, slots)
    predicted: Predicted
    if deployment.mode is ServingMode.AGG:
        predicted = predict_aggregated(resolved.model, resolved.machine, rows, source=source)
    else:
        predicted = predict_disaggregated(
            resolved.model, resolved.machine, rows, source=source, sending=resolved.sending
        )
    loop = predicted.loop
    assert loop is not None

    def number(value: object) -> float:
        return float(np.squeeze(np.asarray(value, dtype=float)))

    ttft, tpot = number(loop.ttft_s), number(loop.tpot_s)
    contention, wait = number(loop.contention_s), number(loop.slot_wait_s)
    if deployment.mode is ServingMode.DISAGG:
        # What a closed loop piles up before the slower pool is there for every request alike.
        contention, wait = 0.0, contention + wait
    busy = min(max(number(loop.steady.prefill_share), 1e-9), 1.0 - 1e-9)
    own = max(ttft - contention - wait, 0.0)
    # With two pools the move of the cache counts as prefill: it grows with the prompt too.
    prompt = min(number(loop.steady.prefill_s), own) if deployment.mode is ServingMode.AGG else own
    first = FirstToken(prompt, busy, contention / busy, own - prompt + wait)
    stall = number(loop.stall_s) * math.sqrt(max(number(loop.running), 0.0))
    decoded = max(workload.output_tokens - 1.0, 1.0)
    ttfts, tpots, e2es = {"mean": ttft}, {"mean": tpot}, {"mean": ttft + decoded * tpot}
    for name, q in PERCENTILES.items():
        ttfts[name] = first.quantile(q, workload.input_cv)
        tpots[name] = tpot + max(normal_quantile(q), 0.0) * stall
        e2es[name] = ttfts[name] + decoded * lognormal_factor(workload.output_cv, q) * tpots[name]
    return Figures(
        ttft_s=ttfts,
        tpot_s=tpots,
        e2e_s=e2es,
        requests_per_s=number(loop.requests_per_s),
        running=number(loop.running),
        busy=1.0,  # whoever finishes sends the next request at once
        overloaded=False,
    )
