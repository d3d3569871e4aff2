"""What an hour of owned accelerators costs, by part: the records that `tokopt.ownership_cost` returns."""

from __future__ import annotations

from tokopt.domain.estimates import Record


class OwnedHour(Record):
    """One accelerator for one useful hour, on the terms of one lot."""

    accelerator: str
    lot: str  # empty where the profile has one lot of the accelerator
    market: str
    site: str | None  # None: a published price has no site
    sunk: bool
    placeholder: bool  # the source marks the figure as one
    capex_usd: dict[str, float]  # an accelerator, by part; parts that there are
    critical_kw: float | None  # provisioned (IT) power of an accelerator
    utility_kw: float | None  # the same times the site's PUE
    drawn_kw: float | None  # average utility power
    parts: dict[str, float]  # USD an hour by part; they add up to the next field
    usd_per_accelerator_hour: float
    accelerators_per_unit: int  # in a node or rack, which is bought whole
    usd_per_unit_hour: float
    available_units: int | None
    available_from: str  # ISO date; empty = at once


class OwnershipSite(Record):
    """Figures of a site that the cost rests on."""

    name: str
    title: str
    pue: float
    usd_per_kwh: float | None
    usd_per_kwh_by_hour: tuple[float, ...]
    carbon_g_per_kwh: float | None
    sources: dict[str, str]


class OwnershipBreakdown(Record):
    """Hours of a profile's accelerators, and what they were computed with."""

    profile: str
    title: str
    hours: tuple[OwnedHour, ...]
    sites: tuple[OwnershipSite, ...]
    assumptions: tuple[str, ...]
    left_out: dict[str, str]  # accelerator -> why its cost could not be computed
    source: str
    observed_on: str
    note: str
    catalog_version: str
    tokopt_version: str
