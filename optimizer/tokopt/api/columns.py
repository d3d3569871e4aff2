"""Candidates x offers to the fleet program's columns."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tokopt.domain.accelerators import Accelerator
from tokopt.domain.offers import Offer, PriceSelection
from tokopt.domain.plans import PlanRequest, PowerBasis
from tokopt.fleet import Column
from tokopt.search import Candidate


@dataclass(frozen=True, slots=True, kw_only=True)
class PricedCandidate:
    """A replica set-up on an offer, and the column that stands for it."""

    candidate: Candidate
    offer: Offer
    accelerator: Accelerator
    column: Column


def offer_key(offer: Offer) -> str:
    """Return what tells an offer from all others."""
    return "|".join(
        (offer.provider, offer.region, offer.zone, offer.instance_type, offer.accelerator, offer.market.value)
    )


def selected_prices(request: PlanRequest) -> PriceSelection:
    """Return which offers of price lists a request can use at all."""
    return PriceSelection(accelerators=request.accelerators, regions=request.regions, markets=request.markets)


def allowed_offers(offers: Iterable[Offer], request: PlanRequest) -> list[Offer]:
    """Return the offers that a request's selections of accelerators, regions and markets leave."""
    return [
        o
        for o in offers
        if (not request.accelerators or o.accelerator in request.accelerators)
        and o.accelerator not in request.excluded_accelerators
        and (not request.regions or o.region in request.regions)
        and (not request.markets or o.market.value in request.markets)
        and (o.available_units is None or o.available_units > 0)
        and request.inventory.get(o.accelerator, 1) > 0
    ]


def cheapest_offers(offers: Iterable[Offer]) -> list[Offer]:
    """Drop offers that a cheaper one with unlimited stock replaces: same accelerator, same size of unit.

    Exact: a fleet that uses the dearer one costs more and is otherwise the same. Ties keep the first by name.
    """
    groups: dict[tuple[str, int], list[Offer]] = {}
    for offer in offers:
        groups.setdefault((offer.accelerator, offer.accelerator_count), []).append(offer)
    kept = []
    for group in groups.values():
        for offer in sorted(group, key=lambda o: (o.usd_per_hour, o.available_units is not None, offer_key(o))):
            kept.append(offer)
            if offer.available_units is None:
                break
    return kept


def provisioned_w(accelerator: Accelerator, basis: PowerBasis) -> float:
    """Return the power of one accelerator on a basis, NaN where the catalog lacks it. [W]"""
    value = accelerator.all_in_w if basis is PowerBasis.UTILITY else accelerator.server_w
    return math.nan if value is None else value


def priced(
    candidates: Mapping[str, list[Candidate]],
    offers: Iterable[Offer],
    accelerators: Mapping[str, Accelerator],
    basis: PowerBasis,
) -> list[PricedCandidate]:
    """Return every candidate on every offer whose units can hold it.

    Replicas smaller than a unit share it; larger ones take several, which only whole nodes and racks allow, since
    smaller instances have no fast network between them.
    """
    rows: list[PricedCandidate] = []
    for offer in offers:
        accelerator = accelerators[offer.accelerator]
        unit = offer.accelerator_count
        for candidate in candidates.get(offer.accelerator, []):
            size = candidate.accelerators
            if size > unit and unit < accelerator.accelerators_per_node:
                continue
            replicas, units = (unit // size, 1) if size <= unit else (1, -(-size // unit))
            each_w = provisioned_w(accelerator, basis)
            column = Column(
                name=f"{len(rows)}:{offer.accelerator}x{size}",
                accelerator=offer.accelerator,
                offer=offer_key(offer),
                accelerators_per_block=units * unit,
                replicas_per_block=replicas,
                units_per_block=units,
                usd_per_hour=units * offer.usd_per_hour,
                power_w=each_w * units * unit,
                requests_per_s=(replicas * candidate.capacity_requests_per_s,),
            )
            rows.append(PricedCandidate(candidate=candidate, offer=offer, accelerator=accelerator, column=column))
    return rows
