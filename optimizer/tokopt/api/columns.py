"""Candidates x offers to the fleet program's columns."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tokopt.catalog.power_settings import AcceleratorTable
from tokopt.domain.accelerators import Accelerator
from tokopt.domain.offers import Market, Offer, PriceSelection
from tokopt.domain.plans import PlanRequest, PowerBasis, PowerSettings
from tokopt.domain.power_settings import SEPARATOR
from tokopt.fleet import Column
from tokopt.search import Candidate


@dataclass(frozen=True, slots=True, kw_only=True)
class PartOffer:
    """Units of one offer in a block, and what is in them."""

    offer: Offer
    accelerator: Accelerator
    units: int
    carbon_g_per_hour: float  # NaN where not known

    @property
    def accelerators(self) -> int:
        """Accelerators of all units."""
        return self.units * self.offer.accelerator_count


@dataclass(frozen=True, slots=True, kw_only=True)
class PricedCandidate:
    """A replica set-up on an offer, and the column that stands for it.

    Where its pools are on different accelerators, offer and accelerator are those that decode.
    """

    candidate: Candidate
    offer: Offer
    accelerator: Accelerator
    column: Column
    service: int = 0  # number of the class of requests that it was found for
    beside: PartOffer | None = None  # what prefills, where that is bought apart

    @property
    def parts(self) -> tuple[PartOffer, ...]:
        """What a block buys, offer by offer: what decodes first."""
        column, beside = self.column, self.beside
        own = PartOffer(
            offer=self.offer,
            accelerator=self.accelerator,
            units=column.units_per_block - (beside.units if beside else 0),
            carbon_g_per_hour=column.carbon_g_per_hour - (beside.carbon_g_per_hour if beside else 0.0),
        )
        return (own,) if beside is None else (own, beside)


def offer_key(offer: Offer) -> str:
    """Return what tells an offer from all others."""
    return "|".join(
        (offer.provider, offer.region, offer.zone, offer.instance_type, offer.accelerator, offer.market.value)
    )


def selected_prices(request: PlanRequest) -> PriceSelection:
    """Return which offers of price lists a request can use at all."""
    hardware = tuple(dict.fromkeys(map(hardware_of, request.accelerators)))
    return PriceSelection(accelerators=hardware, regions=request.regions, markets=request.markets)


def allowed_offers(offers: Iterable[Offer], request: PlanRequest) -> list[Offer]:
    """Return the offers that a request's selections of accelerators, regions and markets leave."""
    return [
        o
        for o in offers
        if (not request.accelerators or o.accelerator in {hardware_of(name) for name in request.accelerators})
        and o.accelerator not in request.excluded_accelerators
        and (not request.regions or o.region in request.regions)
        and (not request.markets or o.market.value in request.markets)
        and (o.available_units is None or o.available_units > 0)
        and request.inventory.get(o.accelerator, 1) > 0
    ]


def hardware_of(name: str) -> str:
    """Return the accelerator that a canonical name is of, whatever its power setting: that is what offers sell."""
    return name.partition(SEPARATOR)[0]


def variants_of(hardware: str, request: PlanRequest, table: AcceleratorTable) -> list[Accelerator]:
    """Return an accelerator and its power settings that a request may choose from, itself first where it may be."""
    named = [name for name in request.accelerators if hardware_of(name) == hardware] or [hardware]
    found = {name: table[name] for name in named}
    if request.power_settings is PowerSettings.ALL and hardware in found:
        found |= {variant.name: variant for variant in table.listed_variants(hardware)}
    kept = [a for name, a in found.items() if name not in request.excluded_accelerators]
    return sorted(kept, key=lambda a: a.throttle is not None)


def cheapest_offers(offers: Iterable[Offer], *, places: bool = False, terms: bool = False) -> list[Offer]:
    """Drop offers that a cheaper one with unlimited stock replaces: same accelerator, same size of unit.

    Exact: a fleet that uses the dearer one costs more and is otherwise the same. Ties keep the first by name.

    Args:
        offers: What can be had.
        places: Only offers of one place replace each other, since it matters where machines are.
        terms: Only offers of one market, date and price of electricity do, since terms matter.
    """
    groups: dict[tuple[object, ...], list[Offer]] = {}
    for offer in offers:
        key: tuple[object, ...] = (offer.accelerator, offer.accelerator_count)
        if places:
            key += (offer.provider, offer.region, offer.zone)
        if terms:
            key += (offer.market, offer.available_from, offer.energy_usd_per_hour, offer.site and offer.site.name)
        groups.setdefault(key, []).append(offer)
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


def column_on(offer: Offer, **figures: Any) -> Column:
    """Return a column of blocks on an offer's terms, at its place."""
    return Column(
        accelerator=offer.accelerator,
        offer=offer_key(offer),
        provider=offer.provider,
        site=offer.region,
        zone="|".join((offer.provider, offer.region, offer.zone)),
        spot=offer.market is Market.SPOT,
        flexible=offer.market in (Market.SPOT, Market.ON_DEMAND),
        **figures,
    )


def priced(
    candidates: Mapping[str, list[Candidate]],
    offers: Iterable[Offer],
    accelerators: Mapping[str, Accelerator],
    each_w: Callable[[Accelerator], float],
    *,
    service: int = 0,
    services: int = 1,
    first: int = 0,
    carbon: Callable[[Offer, Accelerator], float] | None = None,
) -> list[PricedCandidate]:
    """Return every candidate on every offer whose units can hold it.

    Replicas smaller than a unit share it; larger ones take several, which only whole nodes and racks allow, since
    smaller instances have no fast network between them.

    Args:
        candidates: Set-ups of replicas, by accelerator.
        offers: What can be had.
        accelerators: Those of the catalog.
        each_w: What an accelerator counts against a power limit. [W]
        service: Number of the class of requests that the candidates were found for.
        services: How many classes there are.
        first: Number of the first column.
        carbon: Carbon of one unit of an offer, NaN where it is not known. [g/h]
    """
    rows: list[PricedCandidate] = []
    by_hardware: dict[str, list[Candidate]] = {}
    for name, found in candidates.items():
        by_hardware.setdefault(hardware_of(name), []).extend(found)
    for offer in offers:
        unit = offer.accelerator_count
        unit_g_per_hour = math.nan if carbon is None else carbon(offer, accelerators[offer.accelerator])
        for candidate in by_hardware.get(offer.accelerator, []):
            accelerator = accelerators[candidate.deployment.accelerator]
            size = candidate.accelerators
            if size > unit and unit < accelerator.accelerators_per_node:
                continue
            replicas, units = (unit // size, 1) if size <= unit else (1, -(-size // unit))
            rate = replicas * candidate.capacity_requests_per_s
            column = column_on(
                offer,
                name=f"{first + len(rows)}:{accelerator.name}x{size}",
                accelerators_per_block=units * unit,
                replicas_per_block=replicas,
                units_per_block=units,
                usd_per_hour=units * offer.usd_per_hour,
                power_w=each_w(accelerator) * units * unit,
                carbon_g_per_hour=unit_g_per_hour * units,
                requests_per_s=tuple(rate if k == service else 0.0 for k in range(services)),
            )
            rows.append(
                PricedCandidate(
                    candidate=candidate, offer=offer, accelerator=accelerator, column=column, service=service
                )
            )
    return rows
