"""What came of the runs of a simulation, as the record that is its answer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tokopt.catalog import Catalog
from tokopt.domain.estimates import LatencyMs
from tokopt.domain.plans import Plan
from tokopt.domain.simulations import (
    SimulatedClass,
    SimulatedItem,
    SimulatedMs,
    Simulation,
    SimulationProvenance,
    SimulationSettings,
    Verdict,
)
from tokopt.domain.workloads import Statistic
from tokopt.simulation import world as w
from tokopt.simulation.replication import Outcome, Snapshot
from tokopt.simulation.statistics import half_width, mean, quantile
from tokopt.units import KW, MS
from tokopt.version import __version__

from .items import usd_per_million
from .simulated_fleet import SimulatedFleet, SimulatedPart
from .simulated_traces import OpenTrace
from .simulation_assumptions import said_of_simulation, warned_of_simulation
from .simulation_runs import Runs, overload_of
from .simulation_series import series_of

Array = NDArray[np.float64]

STATISTICS = ("mean", "p50", "p90", "p95", "p99")
METRICS = {"ttft": w.TTFT, "tpot": w.TPOT, "itl": w.ITL, "e2e": w.E2E}
REASONS = {
    w.FOR_REPLICA: "for a replica that is up",
    w.FOR_PROMPTS: "in the queue of the prefill pool",
    w.FOR_MOVE: "for the move of the cache",
    w.FOR_SLOT: "for a slot",
    w.FOR_CACHE: "for room in the cache",
    w.FOR_PREFILL: "for others' prompts",
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
    told = _Told(fleet, runs, overloaded=bool(reason))
    classes = tuple(told.of_class(number) for number in dict.fromkeys(fleet.class_of))
    items = tuple(_item(told, n, part) for n, part in enumerate(fleet.parts))
    every = list(range(len(fleet.streams)))
    usd = told.usd_per_hour()
    tokens, within = told.tokens_per_s(every, "output_tokens"), told.tokens_per_s(every, "within_tokens")
    planned = sum(part.requests_per_s for part in fleet.parts)
    bottleneck, detail = _bottleneck(told, items)
    drawn = [item.drawn_kw for item in items]
    found = told.total("found_tokens") / max(told.total("prompt_tokens"), 1.0)
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
        preemptions=int(told.total("preempted")),
        retried=int(told.total("retried")),
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


@dataclass(frozen=True, slots=True)
class _Span:
    """What went on in the measured part of one run."""

    first: Snapshot
    last: Snapshot

    @property
    def seconds(self) -> float:
        return max(self.last.time_s - self.first.time_s, 1e-12)


class _Told:
    """Figures of all replications together, and how much they differ."""

    def __init__(self, fleet: SimulatedFleet, runs: Runs, *, overloaded: bool) -> None:
        self.fleet, self.runs, self.overloaded = fleet, runs, overloaded
        self.spans = [_span(outcome, runs) for outcome in runs.outcomes]
        self.measured_s = float(np.mean([_measured_s(outcome, runs) for outcome in runs.outcomes]))
        planned = sum(part.requests_per_s for part in fleet.parts)
        self.scale = planned / sum(part.rate * part.simulated for part in fleet.parts)
        self.overloaded_items = self._overloaded_items() if overloaded else frozenset()
        self.replica_kind = np.asarray(runs.outcomes[0].world.replicas["item"])

    def _overloaded_items(self) -> frozenset[int]:
        """Return the items at whose replicas more requests are in the end than can be served at a time."""
        there = dict.fromkeys(range(len(self.fleet.parts)), 0.0)
        for outcome in self.runs.outcomes:
            replicas = outcome.world.replicas
            for n in there:
                there[n] += float(replicas["in_system"][replicas["item"] == n].sum()) / len(self.runs.outcomes)
        slots = {n: p.simulated * p.kind.engines * p.kind.fields["slots"] for n, p in enumerate(self.fleet.parts)}
        return frozenset(n for n in there if there[n] > slots[n]) or frozenset(there)

    def total(self, name: str) -> float:
        """Sum of a count over all runs."""
        return float(sum(getattr(outcome.world.totals[0], name) for outcome in self.runs.outcomes))

    def per_class(self, classes: Sequence[int], name: str) -> Array:
        """Return a sum over measured requests, one element a run, of as many as the classes stand for."""
        weights = np.array([self.fleet.weights[n] for n in classes])
        return np.array([weights @ outcome.world.per_class[name][classes] for outcome in self.runs.outcomes])

    def per_s(self, classes: Sequence[int], name: str) -> float:
        """Return measured requests a second; those that were answered in the time, where it is overloaded."""
        if self.overloaded and name == "finished":
            return float(np.mean([(s.last.finished - s.first.finished) / s.seconds for s in self.spans])) * self.scale
        return float(self.per_class(classes, name).mean()) / self.measured_s

    def tokens_per_s(self, classes: Sequence[int], name: str) -> float:
        """Return output tokens a second of measured requests; those handed out in the time, where it is overloaded."""
        if self.overloaded and name == "output_tokens":
            return float(np.mean([(s.last.delivered - s.first.delivered) / s.seconds for s in self.spans])) * self.scale
        return float(self.per_class(classes, name).mean()) / self.measured_s

    def goodput(self, classes: Sequence[int], name: str = "within") -> float | None:
        """Share of measured requests that were answered within limits; of all that came, where it is overloaded."""
        came = self.per_class(classes, "arrived" if self.overloaded else "finished").sum()
        if not self.overloaded:
            came += self.per_class(classes, "rejected").sum()
        return float(self.per_class(classes, name).sum() / came) if came else None

    def _histogram(self, outcomes: Sequence[Outcome], classes: Sequence[int], metric: int) -> tuple[Array, Array]:
        counts = sum(self.fleet.weights[n] * o.world.histogram[n, metric] for o in outcomes for n in classes)
        sums = sum(self.fleet.weights[n] * o.world.sums[n, metric] for o in outcomes for n in classes)
        return np.asarray(counts, dtype=float), np.asarray(sums, dtype=float)

    def statistic(self, classes: Sequence[int], metric: int, name: str) -> tuple[float, float | None]:
        """Return a statistic of a latency over all runs, and half of its confidence interval. [s]"""
        figure = _figure(name)
        whole = figure(*self._histogram(self.runs.outcomes, classes, metric))
        each = [figure(*self._histogram([outcome], classes, metric)) for outcome in self.runs.outcomes]
        return whole, half_width(each)

    def latency(self, classes: Sequence[int], metric: int) -> SimulatedMs | None:
        """Return a latency's statistics, None where it is overloaded or nothing was answered."""
        if self.overloaded:
            return None
        found = {name: self.statistic(classes, metric, name) for name in STATISTICS}
        if math.isnan(found["mean"][0]):
            return None
        sure = {name: half / MS for name, (_, half) in found.items() if half is not None}
        return SimulatedMs(**{name: value / MS for name, (value, _) in found.items()}, plus_minus=sure)

    def of_class(self, number: int) -> SimulatedClass:
        """Return what a class of the plan met."""
        own = [n for n, klass in enumerate(self.fleet.class_of) if klass == number]
        asked = self.fleet.classes[number]
        sla = asked.sla
        limits = {"ttft": sla.ttft_ms, "tpot": sla.tpot_ms, "e2e": sla.e2e_ms}
        stated = {name: limit for name, limit in limits.items() if limit is not None}
        within = {name: self.goodput(own, f"{name}_within") for name in stated}
        finished = float(self.per_class(own, "finished").sum())
        planned = _planned([p for p in self.fleet.parts if p.klass == number])
        return SimulatedClass(
            name=asked.name,
            completed=round(sum(int(o.world.per_class.finished[own].sum()) for o in self.runs.outcomes)),
            rejected=round(sum(int(o.world.per_class.rejected[own].sum()) for o in self.runs.outcomes)),
            requests_per_s=self.per_s(own, "finished"),
            output_tokens_per_s=self.tokens_per_s(own, "output_tokens"),
            goodput=self.goodput(own),
            within={name: share for name, share in within.items() if share is not None},
            statistic=sla.statistic.value,
            limits_ms=stated,
            planned_ms={name: _at(latency, sla.statistic) for name, latency in planned.items()},
            planned=planned,
            verdicts={name: self._verdict(own, METRICS[name], limit, sla.statistic) for name, limit in stated.items()},
            **{f"{name}_ms": self.latency(own, metric) for name, metric in METRICS.items()},
            waits_ms=self._waits(own, finished),
        )

    def _verdict(self, classes: Sequence[int], metric: int, limit_ms: float, statistic: Statistic) -> Verdict:
        if self.overloaded:
            return Verdict.MISSED
        value, half = self.statistic(classes, metric, statistic.value)
        if math.isnan(value):
            return Verdict.UNSURE
        sure, limit = half or 0.0, limit_ms * MS
        if value + sure <= limit:
            return Verdict.KEPT
        return Verdict.MISSED if value - sure > limit else Verdict.UNSURE

    def _waits(self, classes: Sequence[int], finished: float) -> dict[str, float]:
        """Mean waits of measured requests by what was waited for; what nobody waited for is left out. [ms]"""
        if not finished or self.overloaded:
            return {}
        weights = np.array([self.fleet.weights[n] for n in classes])
        total = np.sum([weights @ outcome.world.waits[classes] for outcome in self.runs.outcomes], axis=0) / finished
        return {what: float(total[n]) / MS for n, what in REASONS.items() if total[n] > 0.0}

    def share(self, name: str, item: int, *, servers: bool = False) -> float | None:
        """Share of measured time that engines, or servers of prefill pools, of an item spent on something."""
        world = self.runs.outcomes[0].world
        table = world.servers if servers else world.engines
        own = self.replica_kind[table.replica] == item if table.size else np.zeros(0, dtype=bool)
        if not own.any():
            return None
        spent = [(getattr(s.last, name)[own] - getattr(s.first, name)[own]).mean() / s.seconds for s in self.spans]
        return float(min(np.mean(spent), 1.0))

    def running_replicas(self, item: int) -> float:
        """Mean replicas of an item that are paid for, of those that are simulated."""
        own = self.replica_kind == item
        return float(np.mean([(s.last.paid_s[own] - s.first.paid_s[own]).sum() / s.seconds for s in self.spans]))

    def drawn_kw(self, item: int, part: SimulatedPart) -> float | None:
        """Mean power of all replicas of an item at their servers."""
        idle = part.kind.fields["idle_w"]
        if math.isnan(idle):
            return None
        world = self.runs.outcomes[0].world
        engines = self.replica_kind[world.engines.replica] == item
        servers = self.replica_kind[world.servers.replica] == item if world.servers.size else np.zeros(0, dtype=bool)
        extra = [
            (
                (s.last.engine_joules - s.first.engine_joules)[engines].sum()
                + (s.last.server_joules - s.first.server_joules)[servers].sum()
            )
            / s.seconds
            for s in self.spans
        ]
        watts = idle * self.running_replicas(item) + float(np.mean(extra))
        return watts / part.simulated * part.replicas / KW

    def usd_per_hour(self) -> float:
        """Cost of the fleet: of the replicas that run, where they are scaled."""
        scaled = bool(self.fleet.fleet.scaling)
        return sum(
            part.usd_per_hour * (self.running_replicas(n) / part.simulated if scaled else 1.0)
            for n, part in enumerate(self.fleet.parts)
        )

    def mean_in_system(self, classes: Sequence[int]) -> float:
        """Mean requests in the system: by Little's law, class by class; counted, where it is in no balance."""
        if self.overloaded:
            return float(np.mean([(s.last.area - s.first.area) / s.seconds for s in self.spans])) * self.scale
        stays = [o.world.sums[n, w.E2E].sum() * self.fleet.weights[n] for o in self.runs.outcomes for n in classes]
        return float(sum(stays)) / len(self.runs.outcomes) / self.measured_s

    def mean_queued(self, classes: Sequence[int]) -> float:
        """Mean requests that wait to be admitted, likewise."""
        if self.overloaded:
            return self.gauge(w.QUEUED) * self.scale
        outside = [w.FOR_REPLICA, w.FOR_PROMPTS, w.FOR_SLOT, w.FOR_CACHE]
        waits = [o.world.waits[n, outside].sum() * self.fleet.weights[n] for o in self.runs.outcomes for n in classes]
        return float(sum(waits)) / len(self.runs.outcomes) / self.measured_s

    def gauge(self, column: int) -> float:
        """Mean of a gauge over the measured bins of all runs."""
        values = []
        for outcome in self.runs.outcomes:
            series, bin_s = outcome.world.series, float(outcome.world.totals[0].bin_s)
            rows = np.arange(series.shape[0]) * bin_s
            end = min(self.runs.window.end_s, float(outcome.world.totals[0].now))
            inside = (rows >= self.runs.window.start_s - bin_s) & (rows < end) & (series[:, w.SAMPLES] > 0)
            if inside.any():
                values.append(float(series[inside, column].sum() / series[inside, w.SAMPLES].sum()))
        return float(np.mean(values)) if values else 0.0


def _figure(name: str) -> Callable[[Array, Array], float]:
    if name == "mean":
        return mean
    return lambda counts, sums: quantile(counts, sums, int(name[1:]) / 100.0)


def _span(outcome: Outcome, runs: Runs) -> _Span:
    """Return the first and the last look at a run within what is measured."""
    end = runs.window.end_s
    inside = [s for s in outcome.snapshots if runs.window.start_s <= s.time_s <= end]
    if len(inside) < 2:
        inside = list(outcome.snapshots)
    return _Span(inside[0], inside[-1])


def _measured_s(outcome: Outcome, runs: Runs) -> float:
    now = float(outcome.world.totals[0].now)
    end = min(runs.window.end_s, now)
    if math.isinf(runs.window.end_s):  # a trace: up to its last request, not to the last answer
        end = max((s.time_s for s in outcome.snapshots[:-1]), default=now)
    return max(end - runs.window.start_s, 1e-12)


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


def _item(told: _Told, number: int, part: SimulatedPart) -> SimulatedItem:
    klass = [number] if not told.fleet.fleet.together else []
    running = told.running_replicas(number)
    busy = told.share("engine_busy_s", number) or 0.0
    rate = told.per_s(klass, "finished") if klass else part.requests_per_s
    slots = int(part.kind.engines * part.kind.fields["slots"])
    in_service = min(rate / part.replicas * _service_s(told, number, part), slots)
    return SimulatedItem(
        accelerator=part.item.accelerator,
        provider=part.item.provider,
        instance_type=part.item.instance_type,
        classes=(part.asked.name,),
        replicas=part.replicas,
        simulated_replicas=part.simulated,
        requests_per_s=rate,
        overloaded=number in told.overloaded_items,
        utilisation=busy,
        prefill_utilisation=told.share("server_busy_s", number, servers=True),
        running=in_service,
        slots=slots,
        drawn_kw=told.drawn_kw(number, part),
        running_replicas=running / part.simulated * part.replicas,
    )


def _service_s(told: _Told, number: int, part: SimulatedPart) -> float:
    """Return the mean time that a request is in service: all of it but its waits for admission. [s]"""
    klass = (
        number
        if not told.fleet.fleet.together
        else next(n for n, of in enumerate(told.fleet.class_of) if of == part.klass)
    )
    value, _ = told.statistic([klass], w.E2E, "mean")
    if math.isnan(value):
        return 0.0
    finished = sum(int(o.world.per_class.finished[klass]) for o in told.runs.outcomes)
    outside = [w.FOR_REPLICA, w.FOR_PROMPTS, w.FOR_MOVE, w.FOR_SLOT, w.FOR_CACHE]
    waits = sum(float(o.world.waits[klass, outside].sum()) for o in told.runs.outcomes) / max(finished, 1)
    return max(value - waits, 0.0)


def _bottleneck(told: _Told, items: Sequence[SimulatedItem]) -> tuple[str, str]:
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
