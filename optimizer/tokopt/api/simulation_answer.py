"""What came of the runs of a simulation, as the record that is its answer."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tokopt.catalog import Catalog
from tokopt.domain.estimates import LatencyMs
from tokopt.domain.plans import Plan
from tokopt.domain.simulations import (
    SimulatedClass,
    SimulatedItem,
    Simulation,
    SimulationProvenance,
    SimulationSettings,
    Verdict,
)
from tokopt.domain.workloads import Statistic
from tokopt.simulation import world as w
from tokopt.units import MS
from tokopt.version import __version__

from .items import usd_per_million
from .simulated_fleet import SimulatedFleet, SimulatedPart
from .simulated_traces import OpenTrace
from .simulation_assumptions import said_of_simulation, warned_of_simulation
from .simulation_figures import Figures
from .simulation_runs import Runs, overload_of
from .simulation_series import series_of

METRICS = {"ttft": w.TTFT, "tpot": w.TPOT, "itl": w.ITL, "e2e": w.E2E}
REASONS = {
    w.FOR_REPLICA: "for a replica that is up",
    w.FOR_PROMPTS: "in the queue of the prefill pool",
    w.FOR_MOVE: "for the move of the cache",
    w.FOR_SLOT: "for a slot",
    w.FOR_CACHE: "for room in the cache",
    w.FOR_PREFILL: "for others' prompts",
    w.FOR_STEP: "for the step in progress to end",
}


def answered(
    catalog: Catalog,
    plan: Plan,
    where: str,
    fleet: SimulatedFleet,
    settings: SimulationSettings,
    runs: Runs,
    trace: OpenTrace | None,
) -> Simulation:
    """Return the answer of a simulation.

    Raises:
        RuntimeError: Something was lost or doubled, which is a defect.
    """
    wrong = [fault for outcome in runs.outcomes for fault in outcome.broken]
    if wrong:
        raise RuntimeError(f"the simulation does not add up: {wrong[0]}")
    reason = overload_of(runs, fleet, settings)
    told = Figures(fleet, runs, overloaded=bool(reason))
    classes = tuple(_class(told, number) for number in dict.fromkeys(fleet.class_of))
    items = tuple(_item(told, n, part) for n, part in enumerate(fleet.parts))
    every = list(range(len(fleet.streams)))
    usd = told.usd_per_hour()
    tokens, within = told.tokens_per_s(every, "output_tokens"), told.tokens_per_s(every, "within_tokens")
    planned = sum(part.requests_per_s for part in fleet.parts)
    bottleneck, detail = _bottleneck(told, items)
    drawn = [item.drawn_kw for item in items]
    found = told.within("found_tokens") / max(told.within("prompt_tokens"), 1.0)
    return Simulation(
        plan=where,
        overloaded=bool(reason),
        reason=reason,
        interrupted=runs.interrupted,
        completed=sum(each.completed for each in classes),
        rejected=sum(each.rejected for each in classes),
        goodput=told.goodput(every),
        utilisation=_mean([item.utilisation for item in items], [item.replicas for item in items]),
        **{f"{name}_ms": told.latency(every, metric) for name, metric in METRICS.items()},
        requests_per_s=told.per_s(every, "finished"),
        planned_requests_per_s=planned,
        output_tokens_per_s=tokens,
        usd_per_hour=usd,
        usd_per_million_output_tokens=usd_per_million(usd, tokens) if tokens > 0.0 else None,
        usd_per_million_output_tokens_within_sla=usd_per_million(usd, within) if within > 0.0 else None,
        drawn_power_kw=None if any(each is None for each in drawn) else sum(each or 0.0 for each in drawn),
        planned_drawn_power_kw=plan.drawn_power_kw,
        mean_in_system=told.mean_in_system(every),
        mean_queued=told.mean_queued(every),
        cache_used=told.gauge(w.CACHE_USED),
        prefix_hit_share=found,
        planned_prefix_hit_share=_planned_hits(fleet),
        preemptions=int(told.within("preempted")),
        retried=int(told.within("retried")),
        bottleneck=bottleneck,
        bottleneck_detail=detail,
        classes=classes,
        items=items,
        series=series_of(fleet, runs, told.scale),
        simulated_share=sum(p.simulated for p in fleet.parts) / sum(p.replicas for p in fleet.parts),
        warm_up_s=runs.window.start_s,
        measured_s=told.measured_s,
        replications=len(runs.outcomes),
        settings=settings,
        warnings=warned_of_simulation(plan, catalog, fleet, settings, runs, classes, overloaded=bool(reason)),
        assumptions=said_of_simulation(plan, fleet, settings, runs, trace),
        provenance=SimulationProvenance(
            tokopt_version=__version__,
            catalog_version=catalog.version,
            calibration=catalog.calibration.version,
            plan_version=plan.provenance.tokopt_version,
            trace_format="" if trace is None else trace.format,
        ),
    )


def _mean(values: Sequence[float], weights: Sequence[float]) -> float:
    return float(np.average(values, weights=weights))


def _planned_hits(fleet: SimulatedFleet) -> float | None:
    """Return the share of prompt tokens that the plan counts on finding; None where it counts on none."""
    tokens = sum(p.requests_per_s * p.workload.input_tokens for p in fleet.parts)
    found = sum(p.requests_per_s * p.workload.input_tokens * p.workload.prefix_share for p in fleet.parts)
    return found / tokens if found else None


def _class(told: Figures, number: int) -> SimulatedClass:
    """Return what a class of the plan met."""
    own = [n for n, klass in enumerate(told.fleet.class_of) if klass == number]
    asked = told.fleet.classes[number]
    sla = asked.sla
    limits = {"ttft": sla.ttft_ms, "tpot": sla.tpot_ms, "e2e": sla.e2e_ms}
    stated = {name: limit for name, limit in limits.items() if limit is not None}
    within = {name: told.goodput(own, f"{name}_within") for name in stated}
    finished = float(told.per_class(own, "finished").sum())
    planned = _planned([p for p in told.fleet.parts if p.klass == number])
    return SimulatedClass(
        name=asked.name,
        completed=round(sum(int(o.world.per_class.finished[own].sum()) for o in told.runs.outcomes)),
        rejected=round(sum(int(o.world.per_class.rejected[own].sum()) for o in told.runs.outcomes)),
        requests_per_s=told.per_s(own, "finished"),
        output_tokens_per_s=told.tokens_per_s(own, "output_tokens"),
        goodput=told.goodput(own),
        within={name: share for name, share in within.items() if share is not None},
        statistic=sla.statistic.value,
        limits_ms=stated,
        planned_ms={name: _at(latency, sla.statistic) for name, latency in planned.items()},
        planned=planned,
        verdicts={name: _verdict(told, own, METRICS[name], limit, sla.statistic) for name, limit in stated.items()},
        **{f"{name}_ms": told.latency(own, metric) for name, metric in METRICS.items()},
        waits_ms=_waits(told, own, finished),
    )


def _verdict(told: Figures, classes: Sequence[int], metric: int, limit_ms: float, statistic: Statistic) -> Verdict:
    if told.full(classes):
        return Verdict.MISSED
    value, half = told.statistic(classes, metric, statistic.value)
    if math.isnan(value):  # answers of one token have no time between tokens
        return Verdict.KEPT if told.per_class(classes, "finished").sum() else Verdict.UNSURE
    sure, limit = half or 0.0, limit_ms * MS
    if value + sure <= limit:
        return Verdict.KEPT
    return Verdict.MISSED if value - sure > limit else Verdict.UNSURE


def _waits(told: Figures, classes: Sequence[int], finished: float) -> dict[str, float]:
    """Mean waits of measured requests by what was waited for; what nobody waited for is left out. [ms]"""
    if not finished or told.full(classes):
        return {}
    weights = np.array([told.fleet.weights[n] for n in classes])
    total = np.sum([weights @ outcome.world.waits[classes] for outcome in told.runs.outcomes], axis=0) / finished
    return {what: float(total[n]) / MS for n, what in REASONS.items() if total[n] > 0.0}


def _planned(parts: Sequence[SimulatedPart]) -> dict[str, LatencyMs]:
    """Return what the plan says of latencies: of a class's items, the worst at each statistic."""
    latencies = {name: [getattr(part.item, f"{name}_ms") for part in parts] for name in ("ttft", "tpot", "e2e")}
    return {
        name: LatencyMs(**{figure: max(getattr(each, figure) for each in of) for figure in LatencyMs.model_fields})
        for name, of in latencies.items()
    }


def _at(latency: LatencyMs, statistic: Statistic) -> float:
    """Return a planned latency at a statistic, at the 99th percentile where plans do not state it."""
    return float(getattr(latency, statistic.value, latency.p99))


def _item(told: Figures, number: int, part: SimulatedPart) -> SimulatedItem:
    running = told.running_replicas(number)
    busy = told.share("engine_busy_s", number) or 0.0
    return SimulatedItem(
        accelerator=part.item.accelerator,
        provider=part.item.provider,
        instance_type=part.item.instance_type,
        classes=(part.asked.name,),
        replicas=part.replicas,
        simulated_replicas=part.simulated,
        requests_per_s=told.of_item(number, part),
        overloaded=number in told.overloaded_items,
        utilisation=busy,
        prefill_utilisation=told.share("server_busy_s", number, servers=True),
        running=told.taken_slots(number, part),
        slots=int(part.kind.engines * part.kind.fields["slots"]),
        drawn_kw=told.drawn_kw(number, part),
        running_replicas=running / part.simulated * part.replicas,
    )


def _bottleneck(told: Figures, items: Sequence[SimulatedItem]) -> tuple[str, str]:
    """Return what would be short first if more came, and how far it and the rest are used."""
    uses: dict[str, float] = {"room in the cache": told.gauge(w.CACHE_USED)}
    where: dict[str, str] = {}
    for number, item in enumerate(items):
        found = {
            "slots": item.running / item.slots if item.slots else 0.0,
            "prefill on the accelerators that decode": told.share("engine_prefill_s", number) or 0.0,
            "the prefill pool": item.prefill_utilisation or 0.0,
        }
        for what, use in found.items():
            if use >= uses.get(what, 0.0):
                uses[what], where[what] = use, f" of item {number + 1} ({item.accelerator})" if len(items) > 1 else ""
    order = sorted((what for what, use in uses.items() if use), key=lambda what: -uses[what])
    name = order[0] if order else "slots"
    said = [f"{what}{where.get(what, '')} {uses[what]:.0%}{' used' if what == name else ''}" for what in order]
    detail = "; ".join([said[0], ", ".join(said[1:])]) if len(said) > 1 else "".join(said)
    return name, detail
