"""What a column's offer is worth in each period, and how many of its blocks stand today."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from tokopt.domain.demand import CurrentUnits
from tokopt.domain.deployments import Deployment
from tokopt.domain.offers import Offer
from tokopt.domain.plans import PlanRequest
from tokopt.fleet import Column

from .columns import PricedCandidate
from .electricity import carbon_factor, energy_factor

GRAMS_PER_TONNE = 1e6


def over_time(request: PlanRequest, row: PricedCandidate) -> Column:
    """Return a column with what it costs and emits in each period, and the period from which it can be had."""
    if row.beside is not None:
        return _parts_over_time(request, row)
    column, offer = row.column, row.offer
    charge = _carbon_charge(request, column.carbon_g_per_hour)
    if not request.periods:
        return replace(column, usd_per_hour=column.usd_per_hour + charge) if charge else column
    prices, carbon = _over_time(request, offer, column.units_per_block, column.usd_per_hour, column.carbon_g_per_hour)
    return replace(
        column,
        first_period=_first_period(request, offer),
        usd_per_hour=column.usd_per_hour + charge,
        usd_per_hour_by_period=prices,
        carbon_g_per_hour_by_period=() if math.isnan(column.carbon_g_per_hour) else carbon,
    )


def _parts_over_time(request: PlanRequest, row: PricedCandidate) -> Column:
    """Return the same of a column that buys units of several offers: the sum over its parts."""
    parts, carbon = [], []
    for part, bought in zip(row.column.parts, row.parts, strict=True):
        charge = _carbon_charge(request, bought.carbon_g_per_hour)
        prices, emitted = _over_time(request, bought.offer, part.units, part.usd_per_hour, bought.carbon_g_per_hour)
        parts.append(replace(part, usd_per_hour=part.usd_per_hour + charge, usd_per_hour_by_period=prices))
        carbon.append(emitted)
    known = bool(request.periods) and not math.isnan(row.column.carbon_g_per_hour)
    return replace(
        row.column,
        parts=tuple(parts),
        first_period=max(_first_period(request, bought.offer) for bought in row.parts) if request.periods else 0,
        usd_per_hour=sum(part.usd_per_hour for part in parts),
        usd_per_hour_by_period=tuple(map(sum, zip(*(part.usd_per_hour_by_period for part in parts), strict=True))),
        carbon_g_per_hour_by_period=tuple(map(sum, zip(*carbon, strict=True))) if known else (),
    )


def _over_time(
    request: PlanRequest, offer: Offer, units: int, usd_per_hour: float, carbon_g_per_hour: float
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return what units of an offer cost, carbon included, and emit in each period. [USD/h], [g/h]"""
    charge = _carbon_charge(request, carbon_g_per_hour)
    prices, carbon = [], []
    for period in request.periods:
        emitted = carbon_factor(period, offer.site)
        market = period.price_factors.get(offer.market.value, 1.0)
        energy = units * offer.energy_usd_per_hour * (energy_factor(period, offer.site) - 1.0)
        prices.append(usd_per_hour * market + energy + charge * emitted)
        carbon.append(carbon_g_per_hour * emitted)
    return tuple(prices), tuple(carbon)


def _carbon_charge(request: PlanRequest, carbon_g_per_hour: float) -> float:
    """Return what carbon costs at the price asked for. [USD/h]"""
    if not request.carbon_usd_per_tonne:
        return 0.0
    return carbon_g_per_hour / GRAMS_PER_TONNE * request.carbon_usd_per_tonne


def _first_period(request: PlanRequest, offer: Offer) -> int:
    """Return the period from which an offer can be had: the first that starts on its day or later."""
    if not offer.available_from:
        return 0
    starts = [n for n, period in enumerate(request.periods) if period.starts_on >= offer.available_from]
    return starts[0] if starts else len(request.periods)


def standing_blocks(request: PlanRequest, rows: Sequence[PricedCandidate]) -> list[int]:
    """Return how many blocks of each column stand today.

    Units with a stated set-up stand in the column of that set-up; others in the column of their offer that serves most.
    """
    blocks = _standing_mixed(request, rows)
    for unit in request.current:
        if _stands_mixed(unit, rows):
            continue
        own = [n for n, row in enumerate(rows) if row.beside is None and _is_of(unit, row.offer)]
        if unit.deployment is not None:
            like = [n for n in own if same_setup(rows[n].candidate.deployment, unit.deployment)]
            own = like or own
        if own:
            best = max(own, key=lambda n: max(rows[n].column.requests_per_s) / rows[n].column.units_per_block)
            blocks[best] += unit.units // rows[best].column.units_per_block
    return blocks


def _stands_mixed(unit: CurrentUnits, rows: Sequence[PricedCandidate]) -> bool:
    """Whether units are a part of a set-up of several offers that there is a column of."""
    stated = unit.deployment
    return stated is not None and stated.mixed and any(_is_part(unit, row) for row in rows)


def _is_part(unit: CurrentUnits, row: PricedCandidate) -> bool:
    return (
        row.beside is not None
        and unit.deployment is not None
        and same_setup(row.candidate.deployment, unit.deployment)
        and any(_is_of(unit, part.offer) for part in row.parts)
    )


def _standing_mixed(request: PlanRequest, rows: Sequence[PricedCandidate]) -> list[int]:
    """Return how many blocks of several offers stand today: as many as units of each of their offers make."""
    blocks = [0] * len(rows)
    left = [unit.units for unit in request.current]
    # Blocks of many replicas fill units best: what was bought as such is not read as blocks of fewer.
    for n in sorted(range(len(rows)), key=lambda n: -rows[n].column.replicas_per_block):
        row = rows[n]
        own = [k for k, unit in enumerate(request.current) if _is_part(unit, row)]
        if not own:
            continue
        of = [[k for k in own if _is_of(request.current[k], part.offer)] for part in row.parts]
        blocks[n] = min(sum(left[k] for k in each) // part.units for each, part in zip(of, row.parts, strict=True))
        for each, part in zip(of, row.parts, strict=True):
            taken = blocks[n] * part.units
            for k in each:
                used = min(taken, left[k])
                left[k] -= used
                taken -= used
    return blocks


def _is_of(unit: CurrentUnits, offer: Offer) -> bool:
    stated = (unit.accelerator, unit.provider, unit.market) == (offer.accelerator, offer.provider, offer.market.value)
    return stated and unit.region in ("", offer.region) and unit.instance_type in ("", offer.instance_type)


def same_setup(one: Deployment, other: Deployment) -> bool:
    """Whether two deployments differ in nothing but running caps and caches, which can be set at any time."""
    at_any_time = {"max_running_requests": None, "caching": None}
    return one.model_copy(update=at_any_time) == other.model_copy(update=at_any_time)
