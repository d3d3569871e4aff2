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
    column, offer = row.column, row.offer
    charge = _carbon_charge(request, column)
    if not request.periods:
        return replace(column, usd_per_hour=column.usd_per_hour + charge) if charge else column
    units = column.units_per_block
    prices, carbon = [], []
    for period in request.periods:
        emitted = carbon_factor(period, offer.site)
        market = period.price_factors.get(offer.market.value, 1.0)
        energy = units * offer.energy_usd_per_hour * (energy_factor(period, offer.site) - 1.0)
        prices.append(column.usd_per_hour * market + energy + charge * emitted)
        carbon.append(column.carbon_g_per_hour * emitted)
    return replace(
        column,
        first_period=_first_period(request, offer),
        usd_per_hour=column.usd_per_hour + charge,
        usd_per_hour_by_period=tuple(prices),
        carbon_g_per_hour_by_period=() if math.isnan(column.carbon_g_per_hour) else tuple(carbon),
    )


def _carbon_charge(request: PlanRequest, column: Column) -> float:
    """Return what the carbon of a block costs at the price asked for. [USD/h]"""
    if not request.carbon_usd_per_tonne:
        return 0.0
    return column.carbon_g_per_hour / GRAMS_PER_TONNE * request.carbon_usd_per_tonne


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
    blocks = [0] * len(rows)
    for unit in request.current:
        own = [n for n, row in enumerate(rows) if _is_of(unit, row.offer)]
        if unit.deployment is not None:
            like = [n for n in own if same_setup(rows[n].candidate.deployment, unit.deployment)]
            own = like or own
        if own:
            best = max(own, key=lambda n: max(rows[n].column.requests_per_s) / rows[n].column.units_per_block)
            blocks[best] += unit.units // rows[best].column.units_per_block
    return blocks


def _is_of(unit: CurrentUnits, offer: Offer) -> bool:
    stated = (unit.accelerator, unit.provider, unit.market) == (offer.accelerator, offer.provider, offer.market.value)
    return stated and unit.region in ("", offer.region) and unit.instance_type in ("", offer.instance_type)


def same_setup(one: Deployment, other: Deployment) -> bool:
    """Whether two deployments differ in nothing but running caps and caches, which can be set at any time."""
    at_any_time = {"max_running_requests": None, "caching": None}
    return one.model_copy(update=at_any_time) == other.model_copy(update=at_any_time)
