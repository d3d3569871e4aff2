"""Rows of benchmarks that keep limits of latency: the replica that serves one, and the highest rate that it bears."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tokopt.domain.deployments import Deployment, Layout, ServingMode
from tokopt.domain.workloads import Benchmark, Workload
from tokopt.perf.deployed import replica_profile
from tokopt.perf.machine import Machine
from tokopt.perf.queueing import Limits, Profile, capacity, capped
from tokopt.perf.step import StepSource, worker_steps

from .benchmark_rows import Entry
from .second_opinion import has_gaps

HIGHEST_LOAD = 0.999  # of saturation, in a search for the highest rate: a queue only has to settle


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedRow:
    """One replica of a system under a benchmark's limits."""

    entry: Entry
    machine: Machine
    deployment: Deployment
    workload: Workload  # of one replica
    replicas: float
    limits: Limits
    profile: Profile | None  # up to the running cap that keeps the limit on TPOT; None = none does
    requests_per_s: float  # of a replica, the most that keeps all limits; 0 = none does
    gaps: bool  # step times have no answer somewhere


def served_row(
    entry: Entry,
    benchmark: Benchmark,
    layout: Layout,
    machine: Machine,
    *,
    slots: int,
    source: StepSource = worker_steps,
) -> ServedRow:
    """Return the replica of an entry in a layout; `slots` is what memory and the framework let it run."""
    resolved = entry.resolved
    deployment = _deployment(entry, layout)
    replicas = entry.accelerators // layout.accelerators if math.isfinite(entry.accelerators) else 1.0
    workload = _benchmark_workload(entry, benchmark, replicas)
    profile = replica_profile(
        resolved.model,
        machine,
        deployment,
        workload,
        accepted=resolved.accepted(entry.depth),
        slots=slots,
        source=source,
    )
    limits = Limits(
        tpot_s=(benchmark.tpot_ms or math.inf) / 1e3,
        ttft_s=(benchmark.ttft_ms or math.inf) / 1e3,
        e2e_s=math.inf,
        statistic=str(benchmark.statistic),
    )
    gaps = has_gaps(profile)
    full = None if gaps else capped(profile, limits)
    return ServedRow(
        entry=entry,
        machine=machine,
        deployment=deployment,
        workload=workload,
        replicas=max(replicas, 1.0),
        limits=limits,
        profile=full,
        requests_per_s=0.0 if full is None else capacity(full, limits, load_limit=HIGHEST_LOAD),
        gaps=gaps,
    )


def _deployment(entry: Entry, layout: Layout) -> Deployment:
    resolved = entry.resolved
    return Deployment(
        accelerator=resolved.accelerator.name,
        framework=resolved.framework.name,
        llm=resolved.llm.name,
        precision=resolved.precision.name,
        kv_precision=resolved.kv_precision,
        mode=ServingMode.AGG,
        layout=layout,
        speculation_depth=entry.depth,
        chunk_tokens=resolved.framework.chunk_tokens,
    )


def _benchmark_workload(entry: Entry, benchmark: Benchmark, replicas: float) -> Workload:
    """Return what a benchmark sends to each replica: lengths spread as in its data set, arrivals in turn.

    Poisson arrivals dealt out in turn to k replicas come to each as an Erlang process of k stages, whose squared
    variation is 1/k (Kleinrock, Queueing Systems I, §4.2).
    """
    return Workload(
        name=benchmark.name,
        title=benchmark.title,
        input_tokens=entry.input_tokens,
        output_tokens=entry.output_tokens,
        prefix_share=entry.prefix_share,
        input_cv=benchmark.input_cv or 0.0,
        output_cv=benchmark.output_cv or 0.0,
        arrival_cv2=1.0 / max(replicas, 1.0),
    )
