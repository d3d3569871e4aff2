"""What settings are worth: figures of an item by simulation, in looks of several lengths and in independent tests."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tokopt.catalog import Catalog
from tokopt.domain.plans import Plan
from tokopt.domain.simulations import Routing
from tokopt.domain.tuning import Aim, KnobName, TuningSettings
from tokopt.errors import InputError
from tokopt.perf.power import board_watts
from tokopt.search.highest_load import LEAST_LOAD, highest_load
from tokopt.search.knobs import Settings
from tokopt.search.racing import Goal, Race
from tokopt.search.tuning import Scored
from tokopt.units import MS

from .items import usd_per_million
from .requests import workload_of
from .tuning_knobs import ItemKnobs, Setup
from .tuning_looks import Length, Look, Sight

# Looks of the search: how much of the requests of a test each measures.
RUNGS = (
    (1 / 8, Length(requests=0, answers=3.0, warm_answers=2.0, conversations=0.3, tolerance=0.03, whole=False)),
    (1 / 3, Length(requests=0, answers=4.0, warm_answers=3.0, conversations=0.6, tolerance=0.015, whole=False)),
    (2 / 3, Length(requests=0, answers=6.0, warm_answers=4.0, conversations=1.0, tolerance=0.01, whole=False)),
)
TEST = Length(requests=0, answers=6.0, warm_answers=4.0, conversations=1.0, tolerance=0.01, whole=True)
RACE = Race(noise=(0.04, 0.02, 0.0))
FEWEST_ROUTED, MOST_ROUTED = 2, 4  # replicas that are simulated where it matters which one requests are sent to
HIGHEST = 100.0  # that a tail over its limit is counted as
HIGHEST_JOULES = 1e6  # that an output token is counted as where no load keeps the limits, so that there is no figure
AGREEMENT = 0.9  # of what the planned settings keep, that the closed-form model has to allow others at least
TEST_SEED = 1_000_003  # added to the seed: no trial has seen the requests of a test


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """An item of a plan, and how it is tuned: all that another process needs."""

    catalog: Catalog
    plan: Plan
    number: int  # of the item, from 0
    names: tuple[KnobName, ...]
    chosen: bool
    settings: TuningSettings

    def knobs(self) -> ItemKnobs:
        """Return the item's knobs.

        Raises:
            InputError: A knob or an objective that the item does not have.
        """
        knobs = ItemKnobs(self.catalog, self.plan, self.number, self.names, chosen=self.chosen)
        deployment = knobs.item.deployment
        for name in (deployment.accelerator, deployment.prefill_accelerator):
            watts = board_watts(self.catalog.accelerators[name])
            unknown = math.isnan(float(watts.idle_w) + float(watts.board_w) + float(watts.server_w))
            if Aim.ENERGY in self.settings.objectives and unknown:
                raise InputError(f"--objectives energy: {knobs.where}: the catalog does not know what {name} draws")
        return knobs

    @property
    def goals(self) -> tuple[Goal, ...]:
        """What is made best."""
        return tuple(Goal(name=aim.value, maximise=aim.maximised) for aim in self.settings.objectives)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What settings do, of which a trial's figures are some."""

    load: float  # highest that keeps the limits, of the planned rate; 0 = none does
    values: Mapping[Aim, float]  # not a number = not known, or there is none at any load that keeps the limits
    p99_ms: Mapping[str, float]  # at the planned rate; empty = overloaded there
    requests: int
    missed: str  # of the limits, at the lowest load that was looked at


class ItemFigures:
    """Works out the figures of an item's settings."""

    def __init__(self, context: Context, knobs: ItemKnobs) -> None:
        self.context, self.knobs = context, knobs
        item = knobs.item
        routed = item.deployment.caching is not None or any(
            knob.name == KnobName.ROUTER.value for knob in knobs.knobs.knobs
        )
        self.planned_rate = item.busiest_requests_per_s
        self._replicas = 1
        if routed or knobs.router is not Routing.RANDOM:
            each = self.planned_rate * TEST.answers * item.e2e_ms.mean * MS  # requests in the least that is measured
            enough = math.ceil(context.settings.requests / each)
            self._replicas = min(max(enough, FEWEST_ROUTED), MOST_ROUTED, item.replicas)
        self._usd = item.usd_per_hour / item.replicas
        if item.by_period:
            most = max(item.by_period, key=lambda each: each.units)
            self._usd = most.usd_per_hour / item.replicas
        self._tokens = workload_of(knobs.asked.workload).output_tokens

    def of(
        self, setup: Setup, length: Length, *, seed: int, replication: int, start: float, beat: Callable[[], None]
    ) -> Figures:
        """Return the figures of a set-up.

        Args:
            setup: The item with its knobs set.
            length: Of each simulation.
            seed: Of the requests.
            replication: Which of the independent runs.
            start: A load to begin with, near the highest that keeps the limits.
            beat: Called every now and then.
        """
        sight = Sight(
            catalog=self.context.catalog,
            plan=self.context.plan,
            setup=setup,
            replicas=self._replicas,
            seed=seed,
            beat=beat,
        )
        known: dict[float, Look] = {}

        def look(load: float) -> Look:
            if load not in known:
                known[load] = sight.look(load, length, replication)
            return known[load]

        planned = look(1.0)
        if abs(start - 1.0) < length.tolerance:
            start = 1.0
        load, _ = highest_load(look, start, length.tolerance)
        looks = list(known.values())
        kept = [each for each in looks if each.worst <= 1.0 and each.load <= load]
        top = max(kept, key=lambda each: each.load) if kept else planned
        cost = self.usd_per_million(load)
        return Figures(
            load=load,
            values={
                Aim.COST: cost,
                Aim.GOODPUT: planned.goodput,
                Aim.P99: min(planned.p99, HIGHEST),
                Aim.ENERGY: top.joules if kept else math.nan,
            },
            p99_ms=planned.p99_ms,
            requests=sum(each.requests for each in looks),
            missed=min(looks, key=lambda each: each.load).missed,
        )

    def usd_per_million(self, load: float) -> float:
        """Return the cost of a million output tokens at a load. [USD]"""
        return usd_per_million(self._usd, max(load, LEAST_LOAD) * self.planned_rate * self._tokens)


def counted(aim: Aim, value: float) -> float:
    """Return a figure as settings are compared by it: one that is not known is as bad as can be."""
    return value if math.isfinite(value) else {Aim.GOODPUT: 0.0, Aim.ENERGY: HIGHEST_JOULES}.get(aim, HIGHEST)


class ItemScorer:
    """Scores settings of an item for the search."""

    def __init__(self, context: Context, knobs: ItemKnobs) -> None:
        self.context, self.knobs = context, knobs
        self.figures = ItemFigures(context, knobs)
        self._fixed = knobs.asked.demand_requests_per_s is not None
        self._planned: Figures | None = None

    def refused(self, settings: Settings, beat: Callable[[], None], /) -> str:
        """Return why settings are not possible, or ruled out by the closed-form model; empty = they are allowed."""
        setup = self.knobs.setup(settings)
        if isinstance(setup, str):
            return setup
        if self.context.settings.simulator_alone:
            return ""
        allowed = setup.candidate.capacity_requests_per_s >= self._needed(beat) * (1.0 - 1e-9)
        return "" if allowed else "the closed-form model rules it out"

    def __call__(self, settings: Settings, rung: int, before: Scored | None, beat: Callable[[], None], /) -> Scored:
        """Return what settings do in a look of a rung's length."""
        setup = self.knobs.setup(settings)
        assert not isinstance(setup, str)
        start = 1.0 if before is None else float(before.notes["load"])
        found = self._figures(setup, rung, start, beat)
        broken = 1.0 / max(found.load, LEAST_LOAD) - 1.0 if self._fixed else float(not found.load)
        return Scored(
            values=tuple(counted(aim, found.values[aim]) for aim in self.context.settings.objectives),
            broken={"limits": broken},
            notes={
                "load": found.load,
                "requests": found.requests + (0 if before is None else int(before.notes["requests"])),
                "figures": {aim.value: value for aim, value in found.values.items() if math.isfinite(value)},
            },
        )

    def _figures(self, setup: Setup, rung: int, start: float, beat: Callable[[], None]) -> Figures:
        return self.figures.of(
            setup,
            length_of(self.context.settings, rung),
            seed=self.context.settings.seed,
            replication=0,
            start=start,
            beat=beat,
        )

    def _needed(self, beat: Callable[[], None]) -> float:
        """Return the rate of a replica that the closed-form model has to allow. [requests/s]

        All that was asked for; where the fleet fills a limit, most of what the planned settings keep in simulation.
        """
        if self._fixed:
            return self.figures.planned_rate
        if self._planned is None:
            planned = self.knobs.setup(self.knobs.planned)
            assert not isinstance(planned, str)
            self._planned = self._figures(planned, 0, 1.0, beat)
        return AGREEMENT * min(self._planned.load, 1.0) * self.figures.planned_rate


def length_of(settings: TuningSettings, rung: int) -> Length:
    """Return the length of a look of the search."""
    share, length = RUNGS[rung]
    return _with_requests(length, settings.requests * share)


def test_length(settings: TuningSettings) -> Length:
    """Return the length of a test."""
    return _with_requests(TEST, settings.requests)


def _with_requests(length: Length, requests: float) -> Length:
    return Length(
        requests=math.ceil(requests),
        answers=length.answers,
        warm_answers=length.warm_answers,
        conversations=length.conversations,
        tolerance=length.tolerance,
        whole=length.whole,
    )
