"""Looks at settings: simulations of an item at some load."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tokopt.catalog import Catalog
from tokopt.domain.plans import Plan
from tokopt.domain.simulations import SimulationSettings
from tokopt.simulation import world as w
from tokopt.simulation.recording import note
from tokopt.simulation.replication import Outcome, Window
from tokopt.simulation.statistics import mean, quantile
from tokopt.units import MS

from .simulated_fleet import SimulatedFleet, simulated_fleet
from .simulation_runs import STRETCHES, Job, Runs, conversation_s, overload_of, run
from .tuning_knobs import Setup

METRICS = {"ttft": w.TTFT, "tpot": w.TPOT, "e2e": w.E2E}
PATIENCE = 4.0  # times the limit on first tokens that may queue up, before it is clear that the limit is missed
PATIENCE_S = 60.0  # where there is no such limit
SOME = 200  # requests more than that, which chance alone may bring
LOOKS = 16  # at a run, until the end of what is measured

Counts = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Length:
    """How long a look is."""

    requests: int  # that are measured at least
    answers: float  # mean whole times of an answer that are measured at least
    warm_answers: float  # the same before
    conversations: float  # mean lengths of a conversation before, where prompts repeat
    tolerance: float  # of the highest load, relative
    whole: bool  # every measured request is answered before it ends


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What an item does at a load."""

    load: float  # of the planned rate
    worst: float  # latency over its limit at the limits' statistic; infinite = more comes than is answered
    missed: str  # which one that is
    goodput: float
    p99: float  # worst 99th percentile over its limit
    p99_ms: dict[str, float]
    joules: float  # at the servers per output token; not a number where it cannot be told
    requests: int  # simulated


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """One item of a plan with its knobs set, as it is looked at."""

    catalog: Catalog
    plan: Plan
    setup: Setup
    replicas: int
    seed: int
    beat: Callable[[], None]

    def look(self, load: float, length: Length, replication: int) -> Look:
        """Return what it does at a load."""
        item = self.setup.item
        asked = SimulationSettings(load=load, seed=self.seed, replicas=self.replicas, router=self.setup.router)
        fleet = simulated_fleet(self.catalog, self.plan.model_copy(update={"fleet": (item,)}), asked)
        window = _window(fleet, item.e2e_ms.mean * MS, length)
        asked = asked.model_copy(update={"requests": _in_stretches(fleet.requests_per_s * window.end_s)})
        ending = _Ending(fleet, window, whole=length.whole, beat=self.beat)
        done = run(Job(fleet=fleet, settings=asked, window=window, number=replication, over=ending)).outcome
        if done.broken:
            raise RuntimeError(f"the simulation does not add up: {done.broken[0]}")
        if not ending.lost:
            done = replace(done, cut_short="")
        overloaded = ending.lost or bool(
            overload_of(Runs(outcomes=(done,), window=window, interrupted=False), fleet, asked)
        )
        return _read(fleet, done, window, load, overloaded=overloaded)


def _in_stretches(requests: float) -> int:
    """Return the number of requests that a run is to be told, for as many as come to be cut into few stretches.

    A run is looked at between stretches, which takes as long as some hundred requests.
    """
    return max(math.ceil(requests / LOOKS * STRETCHES), 100)


def _window(fleet: SimulatedFleet, answer_s: float, length: Length) -> Window:
    start = max(length.warm_answers * answer_s, length.conversations * conversation_s(fleet.streams[0]))
    measured = max(length.answers * answer_s, length.requests / fleet.requests_per_s)
    return Window(start_s=start, end_s=start + measured)


class _Ending:
    """Ends a run as soon as it is clear what comes of it."""

    def __init__(self, fleet: SimulatedFleet, window: Window, *, whole: bool, beat: Callable[[], None]) -> None:
        limits = fleet.fleet.limits[0]
        limit_s = min(limits.ttft_s, limits.e2e_s)
        patience_s = PATIENCE * limit_s if math.isfinite(limit_s) else PATIENCE_S
        self._most = fleet.slots + fleet.requests_per_s * patience_s + SOME
        self._end = window.end_s
        # What the last tokens of long answers take is no news, unless whole answers have a limit.
        self._early = not whole and math.isinf(limits.e2e_s)
        self._beat = beat
        self.lost = False

    def __call__(self, world: w.World) -> bool:
        """Whether to end: queues have outgrown what limits allow, or all measured requests have first tokens."""
        self._beat()
        totals = world.totals[0]
        self.lost = bool(totals.in_system > self._most)
        if self.lost or not self._early or totals.now < self._end:
            return self.lost
        return bool(_answering(world).sum() == totals.measured_open)


def _answering(world: w.World) -> NDArray[np.bool_]:
    """Return which requests are measured and have had their first tokens."""
    requests = world.requests
    found: NDArray[np.bool_] = (requests.measured == 1) & (requests.state == w.DECODE) & (requests.emitted > 1)
    return found


def _read(fleet: SimulatedFleet, done: Outcome, window: Window, load: float, *, overloaded: bool) -> Look:
    """Return what a run shows, requests in progress counted by what they have had so far."""
    limits = fleet.fleet.limits[0]
    limit_s = {"ttft": limits.ttft_s, "tpot": limits.tpot_s, "e2e": limits.e2e_s}
    limited = [name for name, limit in limit_s.items() if math.isfinite(limit)]
    world = done.world
    arrived = int(world.totals[0].arrived)
    per_class = world.per_class[0]
    if overloaded:
        share = float(per_class.within) / max(float(per_class.arrived), 1.0)
        return Look(
            load=load,
            worst=math.inf,
            missed="more comes than is answered",
            goodput=share,
            p99=math.inf,
            p99_ms={},
            joules=math.nan,
            requests=arrived,
        )
    statistic = fleet.parts[0].asked.sla.statistic
    q = statistic.quantile
    open_ = world.requests[_answering(world)]
    first = open_.first - open_.arrival
    each = (open_.last - open_.first) / np.maximum(open_.emitted - 1, 1)
    told = _with(world, {w.TTFT: first, w.TPOT: each})
    ratios = {name: (mean(*told[name]) if q is None else quantile(*told[name], q)) / limit_s[name] for name in limited}
    tails = {name: quantile(*told[name], 0.99) for name in limit_s}
    within = float(per_class.within) + float(((first <= limits.ttft_s) & (each <= limits.tpot_s)).sum())
    came = float(per_class.finished + per_class.rejected) + open_.size
    worst = max(limited, key=lambda name: ratios[name])
    return Look(
        load=load,
        worst=ratios[worst],
        missed=f"{worst.upper()} {statistic.value}",
        goodput=within / max(came, 1.0),
        p99=max(tails[name] / limit_s[name] for name in limited),
        p99_ms={name: value / MS for name, value in tails.items()},
        joules=_joules(fleet, done, window),
        requests=arrived,
    )


def _with(world: w.World, more: Mapping[int, NDArray[np.float64]]) -> dict[str, tuple[Counts, Counts]]:
    """Return the histogram and the sums of each latency, with those of requests that are not recorded yet."""
    told = world._replace(histogram=world.histogram.copy(), sums=world.sums.copy())
    for metric, latencies in more.items():
        for seconds in latencies:
            note(told, 0, metric, float(seconds), 1)
    return {name: (told.histogram[0, metric].astype(float), told.sums[0, metric]) for name, metric in METRICS.items()}


def _joules(fleet: SimulatedFleet, done: Outcome, window: Window) -> float:
    """Return the energy at the servers per output token in what is measured. [J]"""
    part = fleet.parts[0]
    inside = [s for s in done.snapshots if window.start_s <= s.time_s <= window.end_s]
    if len(inside) < 2:
        return math.nan
    a, b = inside[0], inside[-1]
    extra = float((b.engine_joules - a.engine_joules).sum() + (b.server_joules - a.server_joules).sum())
    idle = part.kind.fields["idle_w"] * part.simulated * (b.time_s - a.time_s)
    tokens = b.delivered - a.delivered
    return (idle + extra) / tokens if tokens > 0 else math.nan
