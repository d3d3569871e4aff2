"""Sites: entries of sites.yaml, and tables of states, countries and cloud regions in sites/*.csv."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import fsum
from pathlib import Path
from typing import Any, Final

from tokopt.catalog.files import read_csv
from tokopt.catalog.names import checked_name, folded
from tokopt.catalog.rows import SiteRow
from tokopt.domain.offers import Offer
from tokopt.domain.sites import HOURS_PER_DAY, Site
from tokopt.errors import CatalogError

COLUMNS: Final = (
    "name",
    "title",
    "aliases",
    "provider",
    "region",
    "place",
    "pue",
    "pue_source",
    "usd_per_kwh",
    "usd_per_kwh_source",
    "carbon_g_per_kwh",
    "carbon_g_per_kwh_source",
    "observed_on",
    "note",
)
FIGURES: Final = ("pue", "usd_per_kwh", "carbon_g_per_kwh")
_BY_HOUR: Final = ("usd_per_kwh", "carbon_g_per_kwh")


def site_record(name: str, row: SiteRow) -> Site:
    """Return the record of one entry of sites.yaml.

    Raises:
        CatalogError: Hourly values that are not 24, or stand beside a value for the whole day.
    """
    fault = hourly_fault(row)
    if fault:
        raise CatalogError(fault)
    sources = {field: row.source for field in row.model_fields_set if field not in ("source", "sources")}
    return with_hours(
        Site(
            name=name,
            title=row.title,
            aliases=row.aliases,
            pue=row.pue,
            usd_per_kwh=row.usd_per_kwh,
            carbon_g_per_kwh=row.carbon_g_per_kwh,
            source=row.source,
            sources={**{field: sources[field] for field in FIGURES if field in sources}, **row.sources},
            observed_on=row.observed_on.isoformat(),
            note=row.note,
        ),
        usd_per_kwh=row.usd_per_kwh_by_hour,
        carbon_g_per_kwh=row.carbon_g_per_kwh_by_hour,
    )


def with_hours(site: Site, *, usd_per_kwh: tuple[float, ...], carbon_g_per_kwh: tuple[float, ...]) -> Site:
    """Return a site with values by hour where there are any, and their means of the day."""
    if usd_per_kwh:
        site = replace(site, usd_per_kwh_by_hour=usd_per_kwh, usd_per_kwh=_mean(usd_per_kwh))
    if carbon_g_per_kwh:
        site = replace(site, carbon_g_per_kwh_by_hour=carbon_g_per_kwh, carbon_g_per_kwh=_mean(carbon_g_per_kwh))
    return site


def _mean(values: tuple[float, ...]) -> float:
    return fsum(values) / len(values)


def hourly_fault(row: Any) -> str:
    """Return what is wrong with a row's prices and carbon by hour, or nothing."""
    for key in _BY_HOUR:
        by_hour = getattr(row, f"{key}_by_hour")
        if by_hour and len(by_hour) != HOURS_PER_DAY:
            return f"{key}_by_hour: {len(by_hour)} values; 24 are needed, one a local hour from midnight on"
        if by_hour and getattr(row, key) is not None:
            return f"{key} and {key}_by_hour: one of them is enough; the mean of the day is computed"
    return ""


def read_site_table(path: Path) -> dict[str, Site]:
    """Return the sites of one CSV file by name.

    Raises:
        CatalogError: A column that is unknown or missing, a cell that is no number, a name twice: with file and line.
    """
    sites: dict[str, Site] = {}
    for line, cells in read_csv(path):
        where = f"{path}:{line}"
        if set(cells) != set(COLUMNS):
            missing, extra = sorted(set(COLUMNS) - set(cells)), sorted(set(cells) - set(COLUMNS))
            fault = f"column {missing[0]!r} is missing" if missing else f"unknown column {extra[0]!r}"
            raise CatalogError(f"{path}: {fault}; needed: {', '.join(COLUMNS)}")
        name = checked_name(cells["name"], where)
        if name in sites:
            raise CatalogError(f"{where}: {name} appears twice")
        sites[name] = _from_cells(name, cells, where)
    return sites


def _from_cells(name: str, cells: Mapping[str, str], where: str) -> Site:
    values = {figure: _number(cells, figure, where) for figure in FIGURES}
    sources = {figure: cells[f"{figure}_source"] for figure in FIGURES if cells[f"{figure}_source"]}
    for figure, value in values.items():
        if (value is None) != (figure not in sources):
            raise CatalogError(f"{where}: {figure} and {figure}_source go together")
    pue = values["pue"]
    if pue is None or pue < 1.0:
        raise CatalogError(f"{where}: pue {cells['pue']!r}: a number of at least 1 is needed")
    return Site(
        name=name,
        title=cells["title"] or name,
        aliases=tuple(alias for alias in cells["aliases"].split(";") if alias),
        pue=pue,
        usd_per_kwh=values["usd_per_kwh"],
        carbon_g_per_kwh=values["carbon_g_per_kwh"],
        source=sources.get("carbon_g_per_kwh") or sources.get("usd_per_kwh") or sources["pue"],
        sources=sources,
        observed_on=cells["observed_on"],
        note=cells["note"],
        provider=cells["provider"],
        region=cells["region"],
        place=cells["place"],
    )


def _number(cells: Mapping[str, str], column: str, where: str) -> float | None:
    text = cells[column].strip()
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0.0 < value < float("inf"):
        raise CatalogError(f"{where}: {column} {text!r} is not a number above zero")
    return value


def site_of(offer: Offer, sites: Mapping[str, Site]) -> Site | None:
    """Return the site of an offer: its own, its provider's region, or a site or alias that its region names.

    None where the place is not known. Providers that write a state or country as their region need no entry of their
    own.

    Args:
        offer: A rented or owned offer.
        sites: Sites by name.
    """
    if offer.site is not None:
        return offer.site
    region = folded(offer.region)
    if not region:
        return None
    exact = sites.get(f"{folded(offer.provider)}-{region}")
    if exact is not None:
        return exact
    named = [site for site in sites.values() if region == folded(site.name) or region in map(folded, site.aliases)]
    return named[0] if len(named) == 1 else None
