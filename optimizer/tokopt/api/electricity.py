"""Electricity of an offer: what it emits, and what it costs in one period against the mean."""

from __future__ import annotations

import math

from tokopt.catalog import Catalog
from tokopt.domain.accelerators import Accelerator
from tokopt.domain.demand import PlanPeriod
from tokopt.domain.offers import Offer
from tokopt.domain.plans import Objective, PlanRequest
from tokopt.domain.sites import Site
from tokopt.units import KW

# Energy drawn over all-in power provisioned: the load factor of the ownership profiles, for carbon as for bills.
LOAD_FACTOR = 0.8


def carbon_matters(request: PlanRequest) -> bool:
    """Whether a plan cannot do without knowing what its electricity emits."""
    return bool(
        request.most_carbon_kg_per_hour is not None
        or request.carbon_usd_per_tonne
        or Objective.CARBON in (request.objective, *request.then)
    )


def carbon_g_per_hour(catalog: Catalog, offer: Offer, accelerator: Accelerator, *, look_up: bool) -> float:
    """Return the carbon of one unit of an offer, NaN where its place or its power is not known. [g/h]

    all-in power · load factor · carbon intensity of the place's electricity

    Args:
        catalog: Sites.
        offer: The offer.
        accelerator: Its accelerator.
        look_up: Whether places are looked up by region; otherwise only offers that carry their site are known.
    """
    site = offer.site or (catalog.site_of(offer) if look_up else None)
    if site is None or site.carbon_g_per_kwh is None or accelerator.all_in_w is None:
        return math.nan
    return accelerator.all_in_w / KW * LOAD_FACTOR * site.carbon_g_per_kwh * offer.accelerator_count


def energy_factor(period: PlanPeriod, site: Site | None) -> float:
    """Return the price of electricity in a period over its mean: by the hours of the day where both are known."""
    if site is not None and site.usd_per_kwh and site.usd_per_kwh_by_hour and period.start_hour is not None:
        price = site.usd_per_kwh_over(period.start_hour, period.hours)
        return (price or 0.0) / site.usd_per_kwh
    return period.usd_per_kwh_factor


def carbon_factor(period: PlanPeriod, site: Site | None) -> float:
    """Return the carbon intensity in a period over its mean: by the hours of the day where both are known."""
    if site is not None and site.carbon_g_per_kwh and site.carbon_g_per_kwh_by_hour and period.start_hour is not None:
        grams = site.carbon_g_per_kwh_over(period.start_hour, period.hours)
        return (grams or 0.0) / site.carbon_g_per_kwh
    return period.carbon_factor
