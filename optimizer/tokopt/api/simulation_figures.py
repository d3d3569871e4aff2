"""Figures of all replications of a simulation together, and how much they differ."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tokopt.domain.simulations import SimulatedMs
from tokopt.simulation import world as w
from tokopt.simulation.replication import Outcome, Snapshot
from tokopt.simulation.statistics import half_width, mean, quantile
from tokopt.units import KW, MS

from .simulated_fleet import SimulatedFleet, SimulatedPart
from .simulation_runs import Runs

Array = NDArray[np.float64]

STATISTICS = ("mean", "p50", "p90", "p95", "p99")


@dataclass(frozen=True, slots=True)
class Span:
    """The first and the last look within the measured part of one run."""

    first: Snapshot
    last: Snapshot

    @property
    def seconds(self) -> float:
        """Time between them."""
        return max(self.last.time_s - self.first.time_s, 1e-12)

    @property
    def looks(self) -> int:
        """Looks of the series between them."""
        return max(self.last.looks - self.first.looks, 1)


class Figures:
    """Figures of all replications together, and how much they differ."""

    def __init__(self, fleet: SimulatedFleet, runs: Runs, *, overloaded: bool) -> None:
        self.fleet, self.runs, self.overloaded = fleet, runs, overloaded
        self.spans = [span_of(outcome, runs) for outcome in runs.outcomes]
        self.measured_s = float(np.mean([_measured_s(outcome, runs) for outcome in runs.outcomes]))
        planned = sum(part.requests_per_s for part in fleet.parts)
        self.scale = planned / sum(part.rate * part.simulated for part in fleet.parts)
        self.overloaded_items = self._overloaded_items() if overloaded else frozenset()
        self.overloaded_classes = frozenset(self.class_of(n) for n in self.overloaded_items)
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

    def class_of(self, item: int) -> int:
        """Return the class of the simulation that an item serves."""
        if not self.fleet.fleet.together:
            return item
        return self.fleet.class_of.index(self.fleet.parts[item].klass)

    def full(self, classes: Sequence[int]) -> bool:
        """Whether one of some classes is overloaded."""
        return any(n in self.overloaded_classes for n in classes)

    def within(self, name: str) -> float:
        """Sum of a count over the measured time of all runs."""
        return float(sum(getattr(s.last, name) - getattr(s.first, name) for s in self.spans))

    def per_class(self, classes: Sequence[int], name: str) -> Array:
        """Return a sum over measured requests, one element a run, of as many as the classes stand for."""
        weights = np.array([self.fleet.weights[n] for n in classes])
        return np.array([weights @ outcome.world.per_class[name][classes] for outcome in self.runs.outcomes])

    def per_s(self, classes: Sequence[int], name: str) -> float:
        """Return measured requests a second; those that were answered in the time, where it is overloaded."""
        if self.overloaded and name == "finished":
            return self._over_time(classes, "answered")
        return float(self.per_class(classes, name).mean()) / self.measured_s

    def tokens_per_s(self, classes: Sequence[int], name: str) -> float:
        """Return output tokens a second of measured requests; those handed out in the time, where it is overloaded."""
        if self.overloaded and name == "output_tokens":
            return self._over_time(classes, "answered_tokens")
        return float(self.per_class(classes, name).mean()) / self.measured_s

    def _over_time(self, classes: Sequence[int], name: str) -> float:
        """Return what some classes got a second between the first and the last look of the measured time."""
        weights = np.array([self.fleet.weights[n] for n in classes])
        found = [weights @ (getattr(s.last, name) - getattr(s.first, name))[list(classes)] for s in self.spans]
        return float(np.mean([each / span.seconds for each, span in zip(found, self.spans, strict=True)]))

    def goodput(self, classes: Sequence[int], name: str = "within") -> float | None:
        """Share of measured requests that were answered within limits; of all that came, where it is overloaded."""
        counted = [("arrived",) if self.full([n]) else ("finished", "rejected") for n in classes]
        came = sum(self.per_class([n], what).sum() for n, each in zip(classes, counted, strict=True) for what in each)
        return float(self.per_class(classes, name).sum() / came) if came else None

    def of_item(self, number: int, part: SimulatedPart) -> float:
        """Return the requests/s that an item answers: where a router deals out a class, its planned part of them."""
        rate = self.per_s([self.class_of(number)], "finished")
        if not self.fleet.fleet.together:
            return rate
        return rate * part.requests_per_s / sum(p.requests_per_s for p in self.fleet.parts if p.klass == part.klass)

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
        if self.full(classes):
            return None
        found = {name: self.statistic(classes, metric, name) for name in STATISTICS}
        if math.isnan(found["mean"][0]):
            return None
        sure = {name: half / MS for name, (_, half) in found.items() if half is not None}
        return SimulatedMs(**{name: value / MS for name, (value, _) in found.items()}, plus_minus=sure)

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
        own = self.replica_kind == item
        up = float(np.mean([(s.last.up_s[own] - s.first.up_s[own]).sum() / s.seconds for s in self.spans]))
        watts = idle * up + float(np.mean(extra))
        return watts / part.simulated * part.replicas / KW

    def taken_slots(self, item: int, part: SimulatedPart) -> float:
        """Mean slots of a replica that are taken."""
        own = self.replica_kind[self.runs.outcomes[0].world.engines.replica] == item
        each = [
            (s.last.taken[own] - s.first.taken[own]).sum() / max(s.last.looks - s.first.looks, 1) for s in self.spans
        ]
        return float(np.mean(each)) / part.simulated

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
        outside = [w.FOR_REPLICA, w.FOR_PROMPTS, w.FOR_STEP, w.FOR_SLOT, w.FOR_CACHE]
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


def span_of(outcome: Outcome, runs: Runs) -> Span:
    """Return the first and the last look at a run within what is measured."""
    end = runs.window.end_s
    inside = [s for s in outcome.snapshots if runs.window.start_s <= s.time_s <= end]
    if len(inside) < 2:
        inside = list(outcome.snapshots)
    return Span(inside[0], inside[-1])


def _measured_s(outcome: Outcome, runs: Runs) -> float:
    now = float(outcome.world.totals[0].now)
    end = min(runs.window.end_s, now)
    if math.isinf(runs.window.end_s):  # a trace: up to its last request, not to the last answer
        end = max((s.time_s for s in outcome.snapshots[:-1]), default=now)
    return max(end - runs.window.start_s, 1e-12)
