"""From a plan and the settings of a simulation to the replicas and the streams of requests that are simulated."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from tokopt.catalog import Catalog
from tokopt.domain.caching import Router
from tokopt.domain.demand import WorkloadClass
from tokopt.domain.deployments import Deployment
from tokopt.domain.features import Feature
from tokopt.domain.plans import FleetItem, Plan
from tokopt.domain.simulations import Arrivals, Routing, SimulationSettings, Split
from tokopt.domain.workloads import Workload
from tokopt.errors import InputError, not_one_of
from tokopt.perf.caching import served
from tokopt.perf.deployed import decode_layout
from tokopt.perf.power import board_watts
from tokopt.simulation import world as w
from tokopt.simulation.arrivals import BLOCK_TOKENS, Stream
from tokopt.simulation.building import ClassLimits, Fleet, Item, ScalingRule
from tokopt.simulation.replicas import Kind, ReplicaSetup, kind_of
from tokopt.units import MS

from .expert_traffic import popularity_spread
from .requests import workload_of
from .resolved import Resolved, resolve
from .sound_plans import class_of, require_sound

MOST_REPLICAS = 16  # of an item that are simulated by default
FEWEST_ROUTED = 8  # by default, where the router chooses by what replicas have to do: chance is less with more
ANSWERS = 6.0  # mean whole times of an answer that the measured time takes at least, which bounds how many there are
MOST_REPLICAS_OF_TRACE = 256  # a trace is replayed on the whole fleet up to this size; so do closed loops run
ROUTER = "router"  # among an item's features, where a plan names it
AUTOSCALE_PATIENCE = 4  # ticks in a row before a replica is stopped

# By name of the class, too: what a replica holds depends on the requests that it is sent.
Kinds = Mapping[tuple[str, Deployment], Kind]

ROUTERS = {
    Routing.RANDOM: w.RANDOM,
    Routing.ROUND_ROBIN: w.ROUND_ROBIN,
    Routing.LEAST_LOADED: w.LEAST_LOADED,
    Routing.SHORTEST_QUEUE: w.SHORTEST_QUEUE,
    Routing.KV_AWARE: w.CACHE_AWARE,
}
AS_PLANNED = {
    Router.RANDOM: Routing.RANDOM,
    Router.ROUND_ROBIN: Routing.ROUND_ROBIN,
    Router.LEAST_LOADED: Routing.LEAST_LOADED,
    Router.KV_AWARE: Routing.KV_AWARE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedPart:
    """An item of a plan as it is simulated."""

    item: FleetItem
    asked: WorkloadClass
    klass: int  # of the plan
    replicas: int  # in the plan, in the period that is simulated
    simulated: int
    requests_per_s: float  # of all replicas, as planned
    usd_per_hour: float
    workload: Workload  # as the plan has it, with the share that caches find
    kind: Kind
    blocks: int  # tokens of a block that its caches find prompts by; 0 = they find none

    def least_running(self, settings: SimulationSettings) -> int:
        """Of the replicas that are simulated, how many always run where they are scaled."""
        return max(min(math.ceil(settings.autoscale_least * self.simulated / self.replicas), self.simulated), 1)

    @property
    def rate(self) -> float:
        """Planned requests/s of one replica."""
        return self.requests_per_s / self.replicas


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedFleet:
    """What a simulation of a plan works on. Items are its classes, unless replicas of a class are one group."""

    parts: tuple[SimulatedPart, ...]
    classes: tuple[WorkloadClass, ...]
    fleet: Fleet
    streams: tuple[Stream, ...]  # one a class of the simulation
    class_of: tuple[int, ...]  # class of the simulation -> class of the plan
    weights: tuple[float, ...]  # class of the simulation -> planned over simulated requests
    router: Routing
    concurrency: int | None = None  # of a closed loop

    @property
    def requests_per_s(self) -> float:
        """Requests/s of all streams."""
        return sum(stream.requests_per_s for stream in self.streams)

    @property
    def first_replicas(self) -> tuple[int, ...]:
        """Number of the first replica of each item: they count class by class where those of a class are one group."""
        order = sorted(range(len(self.parts)), key=lambda n: self.parts[n].klass if self.fleet.together else n)
        found, first = [0] * len(self.parts), 0
        for n in order:
            found[n] = first
            first += self.parts[n].simulated
        return tuple(found)

    @property
    def in_flight(self) -> int:
        """Requests in flight of a closed loop over the whole fleet: what falls to the replicas that are simulated."""
        share = sum(p.simulated for p in self.parts) / sum(p.replicas for p in self.parts)
        return max(round((self.concurrency or 0) * share), 1)

    @property
    def slots(self) -> float:
        """Requests that can be in service at a time."""
        return sum(p.simulated * p.kind.engines * p.kind.fields["slots"] for p in self.parts)


def simulated_fleet(
    catalog: Catalog,
    plan: Plan,
    settings: SimulationSettings,
    kinds: Kinds | None = None,
    *,
    longest_tokens: int | None = None,
) -> SimulatedFleet:
    """Return what a simulation of a plan works on.

    Args:
        catalog: What the plan's names mean.
        plan: A plan with a fleet.
        settings: Of the simulation.
        kinds: Replicas that are known already, by class and deployment.
        longest_tokens: In and out, of the longest request that comes; None = what the models take.

    Raises:
        InputError: The plan names what the catalog does not have, or there is nothing to simulate.
    """
    if not plan.fleet:
        raise InputError("the plan has no fleet: it is infeasible, so there is nothing to simulate")
    classes = plan.request.served_classes()
    require_sound(plan)
    period = _period(plan, settings)
    router = settings.router or planned_router(plan)
    found = [_part(catalog, plan, item, settings, classes, period, router, kinds or {}) for item in plan.fleet]
    parts = tuple(part for part in found if part is not None)
    if not parts:
        when = "" if period is None else f" in period {plan.request.periods[period].name}"
        raise InputError(f"the plan's fleet serves nothing{when}: there is nothing to simulate")
    together = settings.split is Split.TOGETHER
    streams, class_of, weights = _streams(parts, classes, settings, together=together)
    klass = {number: n for n, number in enumerate(class_of)} if together else None
    items = tuple(
        Item(
            kind=part.kind,
            number=n,
            klass=n if klass is None else klass[part.klass],
            replicas=part.simulated,
            requests_per_s=part.rate,
        )
        for n, part in enumerate(parts)
    )
    fleet = Fleet(
        items=items,
        limits=tuple(_limits(classes[number]) for number in class_of),
        router=ROUTERS[router],
        together=together,
        scaling=_scaling(parts, settings),
        most_blocks=_most_blocks(parts, longest_tokens),
    )
    return SimulatedFleet(
        parts=parts,
        classes=classes,
        fleet=fleet,
        streams=streams,
        class_of=class_of,
        weights=weights,
        router=router,
        concurrency=settings.concurrency,
    )


def _period(plan: Plan, settings: SimulationSettings) -> int | None:
    """Return the number of the period that is simulated, None where the plan has one only."""
    names = [period.name for period in plan.request.periods]
    if settings.period and not names:
        raise InputError(f"--period: {settings.period!r}: the plan has no periods, it is the same all the time")
    if settings.period and settings.period not in names:
        raise not_one_of("--period", settings.period, names)
    if not names:
        return None
    if settings.period:
        return names.index(settings.period)
    loads = [
        max((item.by_period[t].load for item in plan.fleet if item.by_period), default=0.0) for t in range(len(names))
    ]
    return max(range(len(names)), key=lambda t: loads[t])


def planned_router(plan: Plan) -> Routing:
    """Return the router that a plan names or assumes: what its caches were worked out with, or chance."""
    named = next((str(item.features[ROUTER]) for item in plan.fleet if ROUTER in item.features), "")
    if named in list(Routing):
        return Routing(named)
    caching = next((item.deployment.caching for item in plan.fleet if item.deployment.caching is not None), None)
    return Routing.RANDOM if caching is None else AS_PLANNED[caching.router]


def _part(
    catalog: Catalog,
    plan: Plan,
    item: FleetItem,
    settings: SimulationSettings,
    classes: tuple[WorkloadClass, ...],
    period: int | None,
    router: Routing,
    kinds: Kinds,
) -> SimulatedPart | None:
    """Return an item as it is simulated, None where it does nothing in the period."""
    number = next(n for n, asked in enumerate(classes) if asked.name == item.of_class)
    asked = classes[number]
    replicas, rate, usd = item.replicas, item.requests_per_s, item.usd_per_hour
    if period is not None and item.by_period:
        during = item.by_period[period]
        replicas = item.replicas_with(during.units)
        rate, usd = during.requests_per_s, during.usd_per_hour
    if not replicas or not rate:
        return None
    own = workload_of(asked.workload)
    met = served(own, item.deployment.caching)
    blocks = _repeats(asked, settings) if _caches_prompts(catalog, plan, item) else 0
    kind = kinds.get((item.of_class, item.deployment))
    if kind is None:
        kind = kind_of(replica_setup(catalog, plan, item, met, blocks=blocks))
    return SimulatedPart(
        item=item,
        asked=asked,
        klass=number,
        replicas=replicas,
        simulated=min(replicas, settings.replicas or _simulated(item, rate / replicas, settings, router)),
        requests_per_s=rate,
        usd_per_hour=usd,
        workload=met,
        kind=kind,
        blocks=blocks,
    )


def _simulated(item: FleetItem, rate: float, settings: SimulationSettings, router: Routing) -> int:
    """Return how many replicas of an item stand for all: so few that what is measured lasts some answers long.

    Replicas that get requests by chance do not know of one another. Of the same requests, fewer replicas see more time.
    """
    if settings.arrivals in (Arrivals.TRACE, Arrivals.CLOSED_LOOP):
        return MOST_REPLICAS_OF_TRACE
    enough = round(settings.requests / (rate * settings.load * ANSWERS * item.e2e_ms.mean * MS))
    fewest = 1 if router is Routing.RANDOM and item.deployment.caching is None else FEWEST_ROUTED
    return min(max(enough, fewest), MOST_REPLICAS)


def _caches_prompts(catalog: Catalog, plan: Plan, item: FleetItem) -> bool:
    """Return whether an item's engines keep prompts for others that begin alike."""
    deployment = item.deployment
    ends = (deployment.accelerator, *([deployment.prefill_accelerator] if deployment.mixed else []))
    support = catalog.framework(deployment.framework).support
    there = [support.get(catalog.accelerator(name).hardware) for name in ends if name]
    able = all(each is not None and Feature.PREFIX_CACHING in each.features for each in there)
    return able and Feature.PREFIX_CACHING not in plan.request.disabled_features


def _repeats(asked: WorkloadClass, settings: SimulationSettings) -> int:
    """Return the tokens of a block that prompts repeat by; 0 where nothing is known to repeat."""
    if settings.arrivals is Arrivals.TRACE:
        return settings.trace_block_tokens
    return BLOCK_TOKENS if asked.workload.reuse is not None else 0


def resolved_item(catalog: Catalog, plan: Plan, item: FleetItem) -> Resolved:
    """Return the records and rates of an item, as slow as the plan's margin asks for."""
    deployment = item.deployment
    asked = class_of(plan, item)
    found = resolve(
        catalog,
        llm=catalog.llm(asked.llm),  # which may be the path of a config
        gpu=deployment.accelerator,
        framework=deployment.framework,
        precision=deployment.precision,
        kv_precision=deployment.kv_precision,
        speculator=deployment.speculator,
        domain=asked.workload.domain,
        disabled=deployment.without,
        prefill_gpu=deployment.prefill_accelerator if deployment.mixed else None,
        robust=plan.request.robust,
    )
    return found.in_traffic(popularity_spread(catalog, plan.request.expert_traffic))


def replica_setup(catalog: Catalog, plan: Plan, item: FleetItem, workload: Workload, *, blocks: int) -> ReplicaSetup:
    """Return the replicas of an item in the terms of the performance model."""
    resolved = resolved_item(catalog, plan, item)
    return setup_of(resolved, item.deployment, workload, cap=item.concurrency_per_replica, blocks=blocks)


def setup_of(
    resolved: Resolved, deployment: Deployment, workload: Workload, *, cap: int, blocks: int = 0
) -> ReplicaSetup:
    """Return replicas of a deployment that runs `cap` requests at most."""
    _, workers = decode_layout(deployment)
    prefill = resolved.prefill
    return ReplicaSetup(
        model=resolved.model,
        machine=resolved.machine,
        deployment=deployment,
        workload=workload,
        slots=max(cap // workers, 1),
        accepted=resolved.accepted(deployment.speculation_depth),
        chances=resolved.chances,
        longest_tokens=resolved.llm.max_context_tokens,
        watts=board_watts(resolved.accelerator),
        sending=None if prefill is None else (prefill.machine, board_watts(prefill.accelerator)),
        accelerator=resolved.accelerator,
        block_tokens=blocks,
    )


def _streams(
    parts: tuple[SimulatedPart, ...],
    classes: tuple[WorkloadClass, ...],
    settings: SimulationSettings,
    *,
    together: bool,
) -> tuple[tuple[Stream, ...], tuple[int, ...], tuple[float, ...]]:
    """Return the streams of requests, the plan's class of each, and how many planned requests one stands for."""
    groups = (
        [[p for p in parts if p.klass == number] for number in range(len(classes))]
        if together
        else [[p] for p in parts]
    )
    streams, class_of, weights = [], [], []
    for group in (group for group in groups if group):
        simulated = settings.load * sum(p.rate * p.simulated for p in group)
        planned = settings.load * sum(p.requests_per_s for p in group)
        workload = workload_of(group[0].asked.workload)
        answer = sum(p.item.e2e_ms.mean * p.requests_per_s for p in group) / sum(p.requests_per_s for p in group)
        streams.append(
            Stream(
                workload=workload,
                requests_per_s=simulated,
                arrival_cv2=_burstiness(settings),
                longest_tokens=min(p.kind.most_tokens for p in group),
                answer_s=answer * MS,
            )
        )
        class_of.append(group[0].klass)
        weights.append(planned / simulated)
    return tuple(streams), tuple(class_of), tuple(weights)


def _burstiness(settings: SimulationSettings) -> float | None:
    """Return the squared variation of times between arrivals, None for the workload's own."""
    if settings.burstiness is not None:
        return settings.burstiness
    return {Arrivals.CONSTANT: 0.0, Arrivals.POISSON: 1.0}.get(settings.arrivals)


def _limits(asked: WorkloadClass) -> ClassLimits:
    def seconds(limit_ms: float | None) -> float:
        return math.inf if limit_ms is None else limit_ms * MS

    sla = asked.sla
    return ClassLimits(ttft_s=seconds(sla.ttft_ms), tpot_s=seconds(sla.tpot_ms), e2e_s=seconds(sla.e2e_ms))


def _scaling(parts: tuple[SimulatedPart, ...], settings: SimulationSettings) -> tuple[ScalingRule, ...]:
    if settings.autoscale_target is None:
        return ()
    return tuple(
        ScalingRule(
            item=n,
            least=part.least_running(settings),
            requests=settings.autoscale_target * part.rate * part.item.e2e_ms.mean * MS,
            every_s=settings.autoscale_every_s,
            delay_s=settings.autoscale_delay_s,
            patience=AUTOSCALE_PATIENCE,
        )
        for n, part in enumerate(parts)
    )


def _most_blocks(parts: tuple[SimulatedPart, ...], longest_tokens: int | None) -> int:
    """Return the most hashes that a request may have."""
    longest = math.inf if longest_tokens is None else longest_tokens
    blocks = [(p.blocks, int(min(p.kind.most_tokens, longest))) for p in parts]
    return max((tokens // size + 1 for size, tokens in blocks if size), default=0)
