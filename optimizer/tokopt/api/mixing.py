"""Columns of replicas that prefill on one accelerator and decode on another: both bought whole, at one place.

Blocks hold the smallest numbers of whole units of both offers that hold so many whole replicas; several replicas a
block fill units that one leaves partly empty. A block is only worth a column if it serves more than any mix of smaller
ones on the same machines and, where cost alone decides, at less than the cheapest of all others. Both are exact up to
rounding to whole blocks: what is left out is beaten by a mix of what is kept, there or on offers that never run out.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tokopt.domain.accelerators import Accelerator
from tokopt.domain.demand import Survive
from tokopt.domain.deployments import Pool, ServingMode
from tokopt.domain.offers import Offer
from tokopt.domain.plans import Objective, PlanRequest, PowerMode
from tokopt.fleet import Part
from tokopt.search import (
    Alone,
    Candidate,
    MixedReport,
    SearchReport,
    SearchSpace,
    Side,
    Weight,
    find_mixed,
    standing_mixed,
)

from .columns import PartOffer, PricedCandidate, column_on, hardware_of, offer_key
from .electricity import carbon_matters
from .power import counted_w
from .standing import same_setup

MOST_REPLICAS = 12  # of one block
Place = tuple[str, str, str, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Machines:
    """One accelerator on one offer of whole nodes."""

    offer: Offer
    accelerator: Accelerator
    watts: float  # of one accelerator, as counted
    carbon_g_per_hour: float  # of a unit
    alone: float  # requests a second that an accelerator serves in replicas of its own


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedSearch:
    """What pairs of one class of requests are made of.

    `alike`: it does not matter where and on what terms machines are had, so that cheaper ones replace dearer ones.
    """

    request: PlanRequest
    space: SearchSpace
    reports: Mapping[str, SearchReport]
    service: int
    services: int
    reached: float  # the least USD a request/s of all columns that never run out; infinite where cost does not decide
    alike: bool
    tally: MixedReport = field(default_factory=MixedReport)  # what was looked at


def only_cost_decides(request: PlanRequest) -> bool:
    """Whether nothing but cost tells columns apart that never run out: then a dearer one is of no use.

    Where power is limited too, it is so for cost per token alone: the cheapest column fills the limit best.
    """
    filling = all(asked.demand_requests_per_s is None for asked in request.served_classes())
    alone = request.objective is Objective.COST and not request.then
    limits = (request.most_accelerator_types, request.most_spot_share)
    return (
        alone
        and (filling if request.power_kw is not None else not filling)
        and not (filling and request.budget_usd_per_hour is not None)
        and all(limit is None for limit in limits)
        and not (request.periods or request.current or request.site_power_kw or request.spot_reserve)
        and not carbon_matters(request)
        and request.power_mode is not PowerMode.DRAWN
        and request.survive is Survive.NOTHING
        and len(request.served_classes()) == 1
    )


def endless(row: PricedCandidate, request: PlanRequest) -> bool:
    """Whether there is any number of a column to be had."""
    stocks = [part.offer.available_units for part in row.parts]
    return all(units is None for units in stocks) and not any(
        part.offer.accelerator in request.inventory for part in row.parts
    )


def cheapest_of(columns: Sequence[PricedCandidate], request: PlanRequest, service: int) -> float:
    """Return the least USD a request/s of a class's columns that never run out; infinite if more counts than cost."""
    if not only_cost_decides(request):
        return math.inf
    own = (row.column for row in columns if row.service == service and endless(row, request))
    return min((c.usd_per_hour / c.requests_per_s[service] for c in own), default=math.inf)


def machines_of(
    offers: Sequence[Offer],
    accelerators: Mapping[str, Accelerator],
    search: MixedSearch,
    carbon: Callable[[Offer, Accelerator], float],
) -> list[Machines]:
    """Return every accelerator that was searched on every offer of whole nodes: parts of nodes have no fast network."""
    variants: dict[str, list[str]] = {}
    for name in search.reports:
        variants.setdefault(hardware_of(name), []).append(name)
    found = []
    for offer in offers:
        for name in variants.get(offer.accelerator, []):
            accelerator, report = accelerators[name], search.reports[name]
            if offer.accelerator_count >= accelerator.accelerators_per_node and report.apart:
                found.append(
                    Machines(
                        offer=offer,
                        accelerator=accelerator,
                        watts=counted_w(accelerator, search.request),
                        carbon_g_per_hour=carbon(offer, accelerators[offer.accelerator]),
                        alone=_alone(report.candidates, offer.accelerator_count),
                    )
                )
    return found


def _alone(candidates: Sequence[Candidate], unit: int) -> float:
    """Return the most requests a second that an accelerator of whole units serves in replicas of one kind."""
    rates = [
        (unit // c.accelerators) * c.capacity_requests_per_s / unit
        if c.accelerators <= unit
        else c.capacity_requests_per_s / (-(-c.accelerators // unit) * unit)
        for c in candidates
    ]
    return max(rates, default=0.0)


def mixed_candidates(search: MixedSearch, machines: Sequence[Machines]) -> Iterator[PricedCandidate]:
    """Yield the columns of all pairs of accelerators of one vendor, wherever both are at one place.

    How a cache is laid out in memory is up to kernels that vendors write: nothing says that it can move between them.
    """
    if ServingMode.DISAGG not in search.space.modes or search.space.workload.reuse is not None:
        return
    places: dict[Place, list[Machines]] = {}
    for each in machines:
        o = each.offer
        places.setdefault((o.provider, o.region, o.zone, o.market.value, o.available_from or ""), []).append(each)
    pairs: dict[tuple[str, str], list[tuple[Machines, Machines]]] = {}
    for there in places.values():
        for first, second in itertools.permutations(there, 2):
            one, other = first.accelerator, second.accelerator
            if one.name != other.name and one.vendor == other.vendor and first.offer != second.offer:
                pairs.setdefault((one.name, other.name), []).append((first, second))
    sides = {
        name: Side(search.reports[name].apart, search.space.widest) for name in {n for pair in pairs for n in pair}
    }
    for (first_name, second_name), every in pairs.items():
        options = _cheapest(every) if search.alike else every
        weights = {(a.offer.usd_per_accelerator_hour, b.offer.usd_per_accelerator_hour) for a, b in options}
        report = find_mixed(
            sides[first_name],
            sides[second_name],
            search.space,
            alone=Alone(
                prefill=min(a.alone for a, _ in options),
                decode=min(b.alone for _, b in options),
            ),
            weights=[Weight(prefill=a, decode=b, reached=search.reached) for a, b in sorted(weights)]
            if math.isfinite(search.reached)
            else (),
        )
        search.tally.considered += report.considered
        search.tally.evaluated += report.evaluated
        for first, second in options:
            rows = [row for candidate in report.candidates for row in _blocks(search, candidate, first, second)]
            yield from _worth_having(search, rows, first, second)
        # What runs today may stay as it is, wherever it is.
        for candidate in _standing(search, sides[first_name], sides[second_name], report.candidates):
            for first, second in every:
                yield from _blocks(search, candidate, first, second)


def _standing(search: MixedSearch, prefill: Side, decode: Side, found: Sequence[Candidate]) -> Iterator[Candidate]:
    """Yield the set-ups of today's fleet on one pair of accelerators that were not found anyway."""
    known = [candidate.deployment for candidate in found]
    for unit in search.request.current:
        stated = unit.deployment
        if stated is None or not stated.mixed or any(same_setup(stated, each) for each in known):
            continue
        if stated.llm == search.space.llm.name and (stated.prefill_accelerator, stated.accelerator) == (
            prefill.name,
            decode.name,
        ):
            known.append(stated)
            candidate = standing_mixed(prefill, decode, search.space, stated)
            if candidate is not None:
                yield candidate


def _cheapest(options: Sequence[tuple[Machines, Machines]]) -> list[tuple[Machines, Machines]]:
    """Return the places that no other with endless stock and units of the same sizes is cheaper than, or as cheap."""
    kept: list[tuple[Machines, Machines]] = []
    by_price = sorted(options, key=lambda pair: sum(m.offer.usd_per_accelerator_hour for m in pair))
    for pair in by_price:
        sizes = [m.offer.accelerator_count for m in pair]
        if not any(
            sizes == [m.offer.accelerator_count for m in other]
            and all(m.offer.available_units is None for m in other)
            and all(m.offer.usd_per_hour <= own.offer.usd_per_hour for m, own in zip(other, pair, strict=True))
            for other in kept
        ):
            kept.append(pair)
    return kept


def _worth_having(
    search: MixedSearch, rows: Sequence[PricedCandidate], first: Machines, second: Machines
) -> Iterator[PricedCandidate]:
    """Yield the blocks on two offers that serve more than any mix of smaller ones on the same machines, or than none.

    Over the share of accelerators that prefill, what an accelerator serves in mixes of blocks is a chain of straight
    lines that bends down: from the decoding machines alone (0) to the prefilling ones alone (1). A block on or below
    the chain of those that are kept is beaten at the same price, power, stock and place, and by smaller blocks.
    """
    chain = [(0.0, second.alone), (1.0, first.alone)]
    for row in sorted(rows, key=lambda row: row.column.accelerators_per_block):
        column = row.column
        rate, total = column.requests_per_s[search.service], column.accelerators_per_block
        share, each = column.parts[1].accelerators / total, rate / total
        if each > _height(chain, share) and column.usd_per_hour < search.reached * rate:
            chain = _raised(chain, (share, each))
            yield row


def _height(chain: Sequence[tuple[float, float]], at: float) -> float:
    """Return the height of a chain of points, in the order of their places, at a place from its first to its last."""
    right = max(bisect.bisect_left(chain, (at, -math.inf)), 1)
    (x0, y0), (x1, y1) = chain[right - 1], chain[right]
    return y0 + (y1 - y0) * (at - x0) / (x1 - x0)


def _raised(chain: Sequence[tuple[float, float]], point: tuple[float, float]) -> list[tuple[float, float]]:
    """Return the chain that bends down over a point above it: points that are then below a line drop out."""
    kept: list[tuple[float, float]] = []
    for x, y in sorted([*(p for p in chain if p[0] != point[0]), point]):
        while len(kept) > 1 and _turns_up(kept[-2], kept[-1], (x, y)):
            kept.pop()
        kept.append((x, y))
    return kept


def _turns_up(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> bool:
    return (b[1] - a[1]) * (c[0] - a[0]) <= (c[1] - a[1]) * (b[0] - a[0])


def _blocks(search: MixedSearch, candidate: Candidate, first: Machines, second: Machines) -> Iterator[PricedCandidate]:
    """Yield the columns of a replica on two offers, by the number of replicas in a block.

    Of numbers of replicas those count that leave less of either kind of unit empty than all smaller ones.
    """
    deployment = candidate.deployment
    assert deployment.prefill is not None and deployment.decode is not None
    best = math.inf, math.inf
    for replicas in range(1, MOST_REPLICAS + 1):
        prompts = units_for(deployment.prefill, replicas, first.offer.accelerator_count)
        decodes = units_for(deployment.decode, replicas, second.offer.accelerator_count)
        each = prompts / replicas, decodes / replicas
        if replicas > 1 and (each[0] > best[0] or each[1] > best[1] or each == best):
            continue
        best = each
        yield _column(search, candidate, (first, prompts), (second, decodes), replicas)


def units_for(pool: Pool, replicas: int, unit: int) -> int:
    """Return the whole units that hold the workers of one pool of some replicas: a worker is in one, or fills several.

    Workers of a pool need not be side by side: what passes between pools goes over links between nodes anyway.
    """
    worker, workers = pool.layout.accelerators, pool.workers * replicas
    return -(-workers // (unit // worker)) if worker <= unit else workers * -(-worker // unit)


def _column(
    search: MixedSearch,
    candidate: Candidate,
    prompts: tuple[Machines, int],
    decodes: tuple[Machines, int],
    replicas: int,
) -> PricedCandidate:
    """Return the column of one block: so many units of both, the decoding ones first."""
    parts = [
        PartOffer(
            offer=machines.offer,
            accelerator=machines.accelerator,
            units=units,
            carbon_g_per_hour=machines.carbon_g_per_hour * units,
        )
        for machines, units in (decodes, prompts)
    ]
    counted = [
        Part(
            accelerator=part.offer.accelerator,
            offer=offer_key(part.offer),
            units=part.units,
            accelerators=part.accelerators,
            usd_per_hour=part.units * part.offer.usd_per_hour,
            power_w=machines.watts * part.accelerators,
        )
        for part, (machines, _) in zip(parts, (decodes, prompts), strict=True)
    ]
    offer = decodes[0].offer
    rate = replicas * candidate.capacity_requests_per_s
    sizes = "+".join(str(part.accelerators) for part in counted)
    column = column_on(
        offer,
        name=f"{prompts[0].accelerator.name}+{decodes[0].accelerator.name}x{sizes}",
        accelerators_per_block=sum(part.accelerators for part in counted),
        replicas_per_block=replicas,
        units_per_block=sum(part.units for part in counted),
        usd_per_hour=sum(part.usd_per_hour for part in counted),
        power_w=sum(part.power_w for part in counted),
        carbon_g_per_hour=sum(part.carbon_g_per_hour for part in parts),
        requests_per_s=tuple(rate if k == search.service else 0.0 for k in range(search.services)),
        parts=tuple(counted),
    )
    return PricedCandidate(
        candidate=candidate,
        offer=offer,
        accelerator=decodes[0].accelerator,
        column=column,
        service=search.service,
        beside=parts[1],
    )
