"""Measured rows with arrival rates, simulated: latencies at the rate, and the highest rate within the limits.

What a row leaves open is what `validate` takes it for: the layout with the highest rate within the benchmark's limits,
arrivals dealt out to its replicas in turn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tokopt.catalog import Catalog
from tokopt.simulation import world as w
from tokopt.simulation.arrivals import Stream, synthesised
from tokopt.simulation.building import ClassLimits, Fleet, Item
from tokopt.simulation.replicas import Kind, ReplicaSetup, kind_of
from tokopt.simulation.replication import Outcome, Window, replicate
from tokopt.simulation.statistics import mean, quantile

from .benchmark_rows import number_of
from .progress import Progress, silent
from .row_predictions import served_records
from .served_rows import ServedRow

REQUESTS = 6_000  # that are measured
HALVINGS = 7  # of the search for the highest rate, from half of what the queueing model says to half as much again
STALLED = 0.02  # of the requests that came, by which those in the system grew: an overload


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedRow:
    """A measured row as simulated; latencies are not a number where it is overloaded."""

    row: int
    replicas: int
    requests_per_s: float  # measured, of the whole system
    overloaded: bool
    ttft_ms: float  # mean
    tpot_ms: float
    ttft_p99_ms: float
    tpot_p99_ms: float
    ttft_limit_ms: float
    tpot_limit_ms: float
    most_requests_per_s: float  # within both limits at p99
    planned_requests_per_s: float  # the same by the queueing model


def simulated_rows(
    catalog: Catalog, records: Sequence[Mapping[str, Any]], progress: Progress = silent
) -> list[SimulatedRow]:
    """Return rows of benchmarks under limits of latency as simulated at the rates that were measured."""
    served = served_records(catalog, records)
    found = []
    for number, (row, each) in enumerate(sorted(served.items())):
        progress(f"simulating row {number + 1} of {len(served)}", number / len(served))
        rate = number_of(records[row], "request_rate", math.nan)
        if math.isfinite(rate) and each.profile is not None:
            found.append(_simulated(row, each, rate))
    return found


def _simulated(row: int, served: ServedRow, rate: float) -> SimulatedRow:
    kind = _kind(served)
    at_rate = _run(kind, served, rate)
    overloaded = _stalls(at_rate)
    figures = [math.nan] * 4 if overloaded else [each * 1e3 for each in _figures(at_rate)]
    return SimulatedRow(
        row=row,
        replicas=int(served.replicas),
        requests_per_s=rate,
        overloaded=overloaded,
        ttft_ms=figures[0],
        tpot_ms=figures[1],
        ttft_p99_ms=figures[2],
        tpot_p99_ms=figures[3],
        ttft_limit_ms=served.limits.ttft_s * 1e3,
        tpot_limit_ms=served.limits.tpot_s * 1e3,
        most_requests_per_s=_most(kind, served),
        planned_requests_per_s=served.requests_per_s * served.replicas,
    )


def _kind(served: ServedRow) -> Kind:
    resolved, entry = served.entry.resolved, served.entry
    assert served.profile is not None
    return kind_of(
        ReplicaSetup(
            model=resolved.model,
            machine=served.machine,
            deployment=served.deployment,
            workload=served.workload,
            slots=served.profile.slots,
            accepted=resolved.accepted(entry.depth),
            chances=resolved.chances,
            longest_tokens=resolved.llm.max_context_tokens,
        )
    )


def _run(kind: Kind, served: ServedRow, rate: float) -> Outcome:
    """Return what comes of a rate of arrivals, dealt out in turn."""
    workload = replace(served.workload, arrival_cv2=1.0)  # of all arrivals; a replica gets every k-th
    fleet = Fleet(
        items=(Item(kind=kind, replicas=int(served.replicas)),), limits=(ClassLimits(),), router=w.ROUND_ROBIN
    )
    answer_s = served.limits.tpot_s * workload.output_tokens  # of a mean answer, at the limit
    warm = max(0.3 * REQUESTS / rate, answer_s if math.isfinite(answer_s) else 0.0)
    window = Window(start_s=warm, end_s=warm + REQUESTS / rate)
    longest = kind.most_tokens
    if served.entry.benchmark is not None:
        stated = served.entry.benchmark.max_input_tokens, served.entry.benchmark.max_output_tokens
        longest = min(longest, sum(stated)) if None not in stated else longest  # type: ignore[arg-type]
    stream = Stream(workload=workload, requests_per_s=rate, longest_tokens=longest)
    return replicate(
        fleet,
        synthesised([stream], seed=0, chunk_requests=512),
        window,
        seed=0,
        given_share=(workload.prefix_share,),
        overloaded=lambda world: bool(world.totals[0].in_system > 4.0 * kind.fields["slots"] * served.replicas + 2000),
    )


def _stalls(outcome: Outcome) -> bool:
    """Whether requests came faster than they were answered."""
    if outcome.cut_short:
        return True
    inside = [s for s in outcome.snapshots if s.time_s >= 0.5 * outcome.snapshots[-1].time_s]
    came = inside[-1].arrived - inside[0].arrived
    return inside[-1].in_system - inside[0].in_system > STALLED * came + 4.0 * math.sqrt(came)


def _figures(outcome: Outcome) -> tuple[float, float, float, float]:
    """Return mean TTFT and TPOT, and their 99th percentiles. [s]"""
    counts, sums = outcome.world.histogram[0], outcome.world.sums[0]
    means = [mean(counts[m], sums[m]) for m in (w.TTFT, w.TPOT)]
    p99 = [quantile(counts[m], sums[m], 0.99) for m in (w.TTFT, w.TPOT)]
    return means[0], means[1], p99[0], p99[1]


def _most(kind: Kind, served: ServedRow) -> float:
    """Return the highest rate at which both limits are kept at p99, by halving around what the queueing model says."""

    def keeps(rate: float) -> bool:
        outcome = _run(kind, served, rate)
        if _stalls(outcome):
            return False
        _, _, ttft, tpot = _figures(outcome)
        return ttft <= served.limits.ttft_s and tpot <= served.limits.tpot_s

    guess = served.requests_per_s * served.replicas
    if not guess:
        return 0.0
    low, high = 0.5 * guess, 1.5 * guess
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if keeps(middle) else (low, middle)
    return low


def errors(rows: Sequence[SimulatedRow], records: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Return how wrong the simulation is by scenario: of rates within limits, and of latencies at the measured rate.

    Errors are relative, in percent, none counted as more than 100. 99th percentiles were not published, only that they
    kept the limits: how many simulated ones do is what can be said of them.
    """
    found: dict[str, dict[str, float]] = {}
    scenarios = [str(records[row.row].get("scenario")) for row in rows]
    for scenario in dict.fromkeys(scenarios):
        own = [row for row, its in zip(rows, scenarios, strict=True) if its == scenario]
        sound = [row for row in own if not row.overloaded]
        found[scenario] = {
            "rows": len(own),
            "overloaded": len(own) - len(sound),
            "most_rate_error": _error([(r.most_requests_per_s, r.requests_per_s) for r in own]),
            "planned_rate_error": _error([(r.planned_requests_per_s, r.requests_per_s) for r in own]),
            "ttft_error": _error([(r.ttft_ms, number_of(records[r.row], "ttft_ms", math.nan)) for r in sound]),
            "tpot_error": _error([(r.tpot_ms, number_of(records[r.row], "tpot_ms", math.nan)) for r in sound]),
            "ttft_p99_kept": float(np.mean([r.ttft_p99_ms <= r.ttft_limit_ms for r in sound])) if sound else math.nan,
            "tpot_p99_kept": float(np.mean([r.tpot_p99_ms <= r.tpot_limit_ms for r in sound])) if sound else math.nan,
        }
    return found


def _error(pairs: Sequence[tuple[float, float]]) -> float:
    """Mean capped error in percent."""
    each = [min(abs(p / m - 1.0), 1.0) for p, m in pairs if math.isfinite(p) and m > 0.0]
    return 100.0 * float(np.mean(each)) if each else math.nan
