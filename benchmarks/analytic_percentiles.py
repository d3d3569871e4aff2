"""How far the queueing model's percentiles are from simulated ones: `python benchmarks/analytic_percentiles.py`.

Replicas of a few kinds, over loads, burstiness of arrivals and lengths of requests. Both use the same step times; what
differs is the queueing. Prints a table in Markdown for docs/accuracy.md.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import sys
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tokopt.api.describing import described, step_budget
from tokopt.api.loads import slots_per_worker
from tokopt.api.pools import asked_pools
from tokopt.api.resolved import resolve
from tokopt.api.simulated_fleet import setup_of
from tokopt.catalog import Catalog, load_catalog
from tokopt.domain.workloads import Workload
from tokopt.perf.deployed import replica_profile
from tokopt.perf.queueing import Profile, at_rate, saturation
from tokopt.simulation import world as w
from tokopt.simulation.arrivals import Stream, synthesised
from tokopt.simulation.building import ClassLimits, Fleet, Item
from tokopt.simulation.replicas import Kind, kind_of
from tokopt.simulation.replication import Window, replicate
from tokopt.simulation.statistics import mean, quantile

REQUESTS = 20_000
LOADS = (0.3, 0.6, 0.8, 0.9)
BURSTS = (0.25, 1.0, 4.0)  # squared variation of times between arrivals
LENGTHS = {  # input, output, variation of each
    "1k in, 1k out, alike": (1024, 1024, 0.0, 0.0),
    "1k in, 1k out": (1024, 1024, 1.0, 0.8),
    "8k in, 1k out": (8192, 1024, 1.0, 0.8),
    "1k in, 8k out": (1024, 8192, 1.0, 0.8),
    "30k in, 64 out": (30_000, 64, 0.5, 0.5),
}
SETUPS: dict[str, dict[str, Any]] = {
    "dense, tp4": {"model": "llama-3.1-70b", "gpu": "h100_sxm", "framework": "vllm", "degrees": (4, 1, 1, 1, 1, 1)},
    "experts, tp8": {"model": "deepseek-r1", "gpu": "h200_sxm", "framework": "sglang", "degrees": (8, 1, 1, 1, 1, 1)},
    "experts, dp8": {"model": "deepseek-r1", "gpu": "h200_sxm", "framework": "sglang", "degrees": (1, 1, 8, 8, 1, 1)},
    "two pools": {
        "model": "llama-3.1-70b",
        "gpu": "h100_sxm",
        "framework": "vllm",
        "degrees": (1, 1, 1, 1, 1, 1),
        "pools": ("2xtp4", "1xtp8"),
    },
}
STATISTICS = ("mean", "p50", "p90", "p99")


@dataclass(frozen=True, slots=True)
class Case:
    """One replica under one workload."""

    profile: Profile
    kind: Kind
    workload: Workload


def case(catalog: Catalog, setup: dict[str, Any], lengths: tuple[float, float, float, float]) -> Case | None:
    """Return a replica, None where requests do not fit."""
    inputs, outputs, input_cv, output_cv = lengths
    workload = Workload(name="grid", input_tokens=inputs, output_tokens=outputs, input_cv=input_cv, output_cv=output_cv)
    resolved = resolve(
        catalog,
        llm=catalog.llm(setup["model"]),
        gpu=setup["gpu"],
        framework=setup["framework"],
        precision=None,
        kv_precision=None,
    )
    budget = step_budget(resolved, workload, 8192)
    pools = asked_pools(*setup["pools"]) if "pools" in setup else None
    deployment = described(resolved, setup["degrees"], pools, 0, budget, None)
    slots = slots_per_worker(resolved, deployment, workload)
    if slots < 1:
        return None
    profile = replica_profile(resolved.model, resolved.machine, deployment, workload, accepted=1.0, slots=slots)
    kind = kind_of(setup_of(resolved, deployment, workload, cap=slots * profile.workers))
    return Case(profile, kind, workload)


def simulated(of: Case, rate: float, cv2: float, requests: int) -> dict[str, dict[str, float]]:
    """Return simulated latencies by metric and statistic, empty where it is overloaded. [s]"""
    whole = at_rate(replace(of.profile, arrival_cv2=1.0), min(rate, 0.95 * saturation(of.profile)), ("p99",))
    warm = max(2.0 * whole.e2e_s["p99"], 0.2 * requests / rate)
    window = Window(start_s=warm, end_s=warm + requests / rate)
    fleet = Fleet(items=(Item(kind=of.kind),), limits=(ClassLimits(),), router=w.RANDOM)
    stream = Stream(workload=of.workload, requests_per_s=rate, arrival_cv2=cv2, longest_tokens=of.kind.most_tokens)
    outcome = replicate(fleet, synthesised([stream], seed=7, chunk_requests=512), window, seed=7)
    inside = [s for s in outcome.snapshots if s.time_s >= 0.5 * window.end_s]
    if outcome.broken or inside[-1].in_system > 20 * of.kind.fields["slots"] * of.kind.engines:
        return {}
    counts, sums = outcome.world.histogram[0], outcome.world.sums[0]
    found: dict[str, dict[str, float]] = {}
    for name, metric in (("ttft", w.TTFT), ("tpot", w.TPOT), ("e2e", w.E2E)):
        found[name] = {"mean": mean(counts[metric], sums[metric])}
        found[name] |= {p: quantile(counts[metric], sums[metric], int(p[1:]) / 100) for p in STATISTICS[1:]}
    return found


def main() -> None:
    """Run the grid and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=REQUESTS)
    asked = parser.parse_args()
    catalog = load_catalog()
    rows: list[tuple[str, str, float, float, str, str, float]] = []
    for (name, setup), (lengths, shape) in itertools.product(SETUPS.items(), LENGTHS.items()):
        of = case(catalog, setup, shape)
        if of is None:
            continue
        most = saturation(of.profile)
        for load, cv2 in itertools.product(LOADS, BURSTS):
            planned = at_rate(replace(of.profile, arrival_cv2=cv2), load * most)
            found = simulated(of, load * most, cv2, asked.requests)
            for metric, statistic in itertools.product(("ttft", "tpot", "e2e"), STATISTICS):
                value = found.get(metric, {}).get(statistic, math.nan)
                rows.append(
                    (name, lengths, load, cv2, metric, statistic, getattr(planned, f"{metric}_s")[statistic] / value)
                )
        print(f"{name}, {lengths}: done", file=sys.stderr)
    for by, title in ((0, "replica"), (1, "requests"), (2, "load"), (3, "burstiness")):
        table(rows, by, title)


def table(rows: list[tuple[Any, ...]], by: int, title: str) -> None:
    """Print planned over simulated figures by one thing: the median, and between which values 80 % of them are."""
    print(f"\n| {title} | TTFT mean | TTFT p90 | TTFT p99 | TPOT mean | TPOT p99 | whole p99 |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    shown = (("ttft", "mean"), ("ttft", "p90"), ("ttft", "p99"), ("tpot", "mean"), ("tpot", "p99"), ("e2e", "p99"))
    for value in (*dict.fromkeys(row[by] for row in rows), None):
        cells = []
        for metric, statistic in shown:
            own = [
                r[6] for r in rows if value in (None, r[by]) and r[4:6] == (metric, statistic) and math.isfinite(r[6])
            ]
            low, middle, high = np.quantile(own, [0.1, 0.5, 0.9]) if own else (math.nan,) * 3
            cells.append(f"{middle:.2f} ({low:.2f} to {high:.2f})")
        print(f"| {'all' if value is None else value} | {' | '.join(cells)} |")


if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    main()
