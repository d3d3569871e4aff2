"""Plans that hold in simulation: solved, simulated, cut where limits are missed, and solved again."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from tokopt.catalog import Catalog
from tokopt.domain.deployments import Deployment, ServingMode
from tokopt.domain.plans import FleetItem, Plan, PlanRequest, Status
from tokopt.domain.simulations import SimulatedClass, SimulatedMs, Simulation, SimulationSettings, Verdict
from tokopt.domain.verifying import CapacityCut, Verification, VerificationRound, VerifiedItem
from tokopt.domain.workloads import Limited
from tokopt.search import SharedSearch
from tokopt.simulation.replicas import Kind

from .cuts import cut_of
from .planning import solve_request
from .progress import Progress, silent
from .simulated_fleet import simulated_fleet
from .simulating import simulate_plan

MOST_ROUNDS = 8
# Loads that are tried where the planned one is too much, as shares of it.
SHARES = (0.98, 0.96, 0.94, 0.92, 0.9, 0.87, 0.84, 0.8, 0.75, 0.7, 0.6, 0.5, 0.35, 0.2)
LOOK = SimulationSettings(requests=10_000, replications=4)  # of one item at one load
# Of a limit, what set-ups are searched for: where latencies are not known for an overload, at most, and at least once.
UNKNOWN_MARGIN, LEAST_MARGIN, TIGHTEST = 0.8, 0.05, 0.4
SAME_RATE = 1.0 + 1e-9
MissedBy = tuple[str, str, ServingMode]


def verified_plan(request: PlanRequest, catalog: Catalog, progress: Progress = silent, *, seed: int = 0) -> Plan:
    """Return the best plan whose limits hold in simulation, as far as a few rounds find one.

    Each round solves the request, and simulates every item of the plan at its rate, in the period that loads it most,
    unless the same replicas have been found to bear it. Where an item misses its limits, the highest rate of a few that
    keeps them is looked for by halving, and becomes the capacity of its column; columns alike (accelerator, mode,
    class) that were not simulated are cut by the least that any of them needed. Where not even a small rate keeps a
    limit, set-ups are searched anew for a limit as much tighter as the simulated latency is longer than the planned
    one. All of it is part of the plan's request: solving it again gives the same plan without simulating.
    """
    known = _Known(catalog, seed)
    search = SharedSearch()
    rounds: list[VerificationRound] = []
    for number in range(MOST_ROUNDS):

        def told(what: str, done: float, number: int = number) -> None:
            progress(f"round {number + 1}: {what}", (number + done) / (number + 2))

        asked = request.model_copy(update={"capacity_cuts": known.cuts(), "limit_margins": known.margins})
        plan = solve_request(asked, catalog, told, search=search, extras=False)
        if plan.status is Status.INFEASIBLE and known.margins:  # a margin of one set-up need not be needed by others
            asked = asked.model_copy(update={"limit_margins": {}})
            plan = solve_request(asked, catalog, told, search=search, extras=False)
        if plan.status is Status.INFEASIBLE:
            return plan.model_copy(update={"verification": _nothing(rounds, known)})
        items = known.looked_at(plan, told)
        rounds.append(
            VerificationRound(
                usd_per_million_output_tokens=plan.usd_per_million_output_tokens,
                usd_per_hour=plan.usd_per_hour,
                output_tokens_per_s=plan.output_tokens_per_s,
                items=items,
            )
        )
        if all(item.factor == 1.0 for item in items):
            break
    plan = solve_request(asked, catalog, progress, search=search)
    whole = simulate_plan(catalog, plan, _whole(seed), kinds=known.kinds, progress=progress)
    return plan.model_copy(update={"verification": _verification(whole, rounds)})


def _whole(seed: int) -> SimulationSettings:
    """Return the settings of the simulation that a plan is judged by: other random numbers than the looks at items."""
    return SimulationSettings(seed=seed + 1)


@dataclass(slots=True)
class _Known:
    """What simulations have said of replicas so far."""

    catalog: Catalog
    seed: int
    kinds: dict[tuple[str, Deployment], Kind] = field(default_factory=dict)  # by class, too
    factors: dict[tuple[str, Deployment], float] = field(default_factory=dict)  # of the capacity
    looks: dict[tuple[str, Deployment], VerifiedItem] = field(default_factory=dict)
    margins: dict[str, dict[Limited, float]] = field(default_factory=dict)  # class -> limit -> share of it

    def cuts(self) -> tuple[CapacityCut, ...]:
        """Return the cuts that follow: those of deployments that were simulated, and the least of each kind."""
        own = [
            CapacityCut(of_class=name, accelerator=of.accelerator, mode=of.mode, deployment=of, factor=min(factor, 1.0))
            for (name, of), factor in self.factors.items()
        ]
        kinds: dict[MissedBy, float] = {}
        for cut in own:
            kind = (cut.of_class, cut.accelerator, cut.mode)
            kinds[kind] = max(kinds.get(kind, 0.0), cut.factor)
        others = [
            CapacityCut(of_class=name, accelerator=accelerator, mode=mode, factor=factor)
            for (name, accelerator, mode), factor in kinds.items()
            if 0.0 < factor < 1.0
        ]
        return (*(cut for cut in own if cut.factor < 1.0), *others)

    def looked_at(self, plan: Plan, progress: Progress) -> tuple[VerifiedItem, ...]:
        """Return what simulation says of every item of a plan."""
        found = []
        for number, item in enumerate(plan.fleet):
            key, rate = (item.of_class, item.deployment), item.busiest_requests_per_s
            before = self.looks.get(key)
            if before is None or before.factor < 1.0 or rate > before.requests_per_s * SAME_RATE:
                progress(f"simulating {item.accelerator}", 0.5 + 0.5 * number / len(plan.fleet))
                look = self.looks[key] = self._look(plan, item)
                applied = cut_of(plan.request, *key)
                borne = look.factor * rate / item.capacity_requests_per_s if look.factor < 1.0 else 1.0
                self.factors[key] = applied * borne
                if look.factor == 0.0:
                    self._keep_away(look)
            found.append(self.looks[key].model_copy(update={"replicas": item.replicas}))
        return tuple(found)

    def _keep_away(self, look: VerifiedItem) -> None:
        """Plan for tighter limits where less load does not help."""
        own = dict(self.margins.get(look.of_class, {}))
        for name, limit in look.limits_ms.items():
            simulated = look.simulated_ms.get(name, math.inf)
            if simulated > limit:
                share = look.planned_ms[name] / simulated if math.isfinite(simulated) else UNKNOWN_MARGIN
                limited = Limited(name)
                own[limited] = own.get(limited, 1.0) * max(min(share, 1.0 - LEAST_MARGIN), TIGHTEST)
        self.margins = {**self.margins, look.of_class: own}

    def _look(self, plan: Plan, item: FleetItem) -> VerifiedItem:
        """Simulate an item at its rate and, where that is too much, find out what is not."""
        alone = plan.model_copy(update={"fleet": (item,)})

        def at(share: float) -> Simulation:
            settings = LOOK.model_copy(update={"load": share, "seed": self.seed})
            key = (item.of_class, item.deployment)
            if key not in self.kinds:
                self.kinds[key] = simulated_fleet(self.catalog, alone, settings).parts[0].kind
            return simulate_plan(self.catalog, alone, settings, kinds=self.kinds)

        planned = at(1.0)
        factor = 1.0 if keeps(planned) else self._bearable(at)
        return _said(planned, item, factor)

    def _bearable(self, at: Callable[[float], Simulation]) -> float:
        """Return the largest of a few shares of a rate at which limits are kept; 0 where none is."""
        low, high = 0, len(SHARES)  # SHARES[low:] may be kept
        while low < high:
            middle = (low + high) // 2
            if keeps(at(SHARES[middle])):
                high = middle
            else:
                low = middle + 1
        return SHARES[low] if low < len(SHARES) else 0.0


def keeps(simulation: Simulation) -> bool:
    """Whether all limits are kept, as far as the runs tell: their mean is what counts, not the ends of its range."""
    if simulation.overloaded:
        return False
    return all(
        _at(simulated, each.statistic) <= each.limits_ms[name]
        for each in simulation.classes
        for name, simulated in _limited(each).items()
    )


def _limited(each: SimulatedClass) -> dict[str, SimulatedMs]:
    """Return the latencies of a class that have a limit."""
    found = {name: getattr(each, f"{name}_ms") for name in each.limits_ms}
    return {name: simulated for name, simulated in found.items() if simulated is not None}


def _at(simulated: SimulatedMs, statistic: str) -> float:
    """Return a statistic; one that is not stated is below the next higher one that is."""
    return float(getattr(simulated, statistic if statistic != "p75" else "p90"))


def _said(simulation: Simulation, item: FleetItem, factor: float) -> VerifiedItem:
    (each,) = simulation.classes
    limited = {} if simulation.overloaded else _limited(each)
    verdict = Verdict.KEPT if factor == 1.0 else Verdict.MISSED
    return VerifiedItem(
        of_class=each.name,
        accelerator=item.accelerator,
        mode=item.mode,
        replicas=item.replicas,
        requests_per_s=item.busiest_requests_per_s,
        statistic=each.statistic,
        limits_ms=each.limits_ms,
        planned_ms={name: each.planned_ms[name] for name in each.limits_ms},
        simulated_ms={name: _at(ms, each.statistic) for name, ms in limited.items()},
        plus_minus_ms={name: ms.plus_minus.get(each.statistic, 0.0) for name, ms in limited.items()},
        verdict=verdict,
        factor=factor,
    )


def _verification(whole: Simulation, rounds: list[VerificationRound]) -> Verification:
    holds = keeps(whole)
    settled = all(item.factor == 1.0 for item in rounds[-1].items)
    note = f"simulated in {len(rounds)} round{'s' * (len(rounds) > 1)}"
    if not settled:
        note += f"; the last plan still misses limits in simulation: no fixed point within {MOST_ROUNDS} rounds"
    elif not holds:
        note += "; in a second simulation with other random numbers a limit is missed: it is at its very edge"
    return Verification(
        holds=holds and settled,
        goodput=whole.goodput,
        classes=whole.classes,
        rounds=tuple(rounds),
        settings=whole.settings,
        note=note,
    )


def _nothing(rounds: list[VerificationRound], known: _Known) -> Verification | None:
    """Return what is said where no plan is left once capacities are cut; None where there was none to begin with."""
    if not rounds:
        return None
    return Verification(
        holds=False,
        goodput=None,
        classes=(),
        rounds=tuple(rounds),
        settings=_whole(known.seed),
        note="no plan meets the request with the capacities that simulation leaves",
    )
