"""`ownership_cost`: what an hour of owned accelerators costs, by part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tokopt.catalog import Catalog, load_catalog
from tokopt.catalog.ownership import is_owned_file, lot_cost, profile_lots, read_owned_file, site_for
from tokopt.cost import CostPart, provisioned_critical_w
from tokopt.domain.accelerators import Accelerator
from tokopt.domain.offers import Capex, OwnedLot, OwnershipProfile
from tokopt.domain.ownership import OwnedHour, OwnershipBreakdown, OwnershipSite
from tokopt.domain.sites import Site
from tokopt.errors import InputError
from tokopt.units import KW
from tokopt.version import __version__

from .requests import names, parse_rate

DEFAULT_PROFILE = "components-hyperscaler"
_CAPEX_PARTS = ("server", "network", "storage", "install", "undivided")


def ownership_cost(
    profile: str | Path = DEFAULT_PROFILE,
    *,
    gpus: str | Sequence[str] | None = None,
    site: str | None = None,
    cost_of_capital: float | str | None = None,
    catalog: str | Catalog | None = None,
) -> OwnershipBreakdown:
    """Return what an hour of each accelerator of a profile costs, by part.

    Args:
        profile: An ownership profile by name, or the path of an owned file (`mine.yaml`).
        gpus: Accelerators to show; None = all of the profile.
        site: Where they stand, instead of where the profile says.
        cost_of_capital: Instead of the profile's, like 0.1 or 10%; for a published price with a prepaid part it is
            what counts the capital in that part. [1/year]
        catalog: A catalog, or a directory that overlays the embedded one.

    Returns:
        A frozen record; the parts of an hour add up to its cost.

    Raises:
        InputError: A name that is not known, a file that is faulty, or a figure that is missing: one line.
    """
    loaded = catalog if isinstance(catalog, Catalog) else load_catalog(catalog)
    found = _profile(profile, loaded)
    found = _with_cost_of_capital(found, cost_of_capital)
    asked = None if site is None else loaded.site(site)
    if asked is not None and not found.lots:
        raise InputError(f"--site: {found.name} is published per hour and takes no site")
    wanted = [loaded.accelerator(name).name for name in names(gpus)]
    priced = {lot.accelerator for lot in profile_lots(found)}
    for name in wanted:
        if name not in priced:
            raise InputError(f"{found.name} has no {name}; it has: {', '.join(sorted(priced))}")
    hours: list[OwnedHour] = []
    sites: dict[str, Site] = {}
    left_out: dict[str, str] = {}
    for lot in profile_lots(found):
        if wanted and lot.accelerator not in wanted:
            continue
        place = site_for(found, lot, loaded.sites, asked) if found.lots else None
        try:
            hours.append(_hour(found, lot, loaded, place))
        except InputError as error:
            left_out[lot.accelerator] = str(error)
            continue
        if place is not None:
            sites[place.name] = place
    if not hours:
        raise InputError(f"{profile}: {next(iter(left_out.values()))}")
    return OwnershipBreakdown(
        profile=found.name,
        title=found.title,
        hours=tuple(hours),
        sites=tuple(_site(place) for place in sites.values()),
        assumptions=tuple(_assumptions(found, hours)),
        left_out=left_out,
        source=found.source,
        observed_on=found.observed_on,
        note=found.note,
        catalog_version=loaded.version,
        tokopt_version=__version__,
    )


def _profile(profile: str | Path, catalog: Catalog) -> OwnershipProfile:
    name = str(profile)
    if is_owned_file(name):
        return read_owned_file(Path(name), accelerators=catalog.accelerators, sites=catalog.sites)
    return catalog.ownership_profile(name)


def _with_cost_of_capital(profile: OwnershipProfile, rate: float | str | None) -> OwnershipProfile:
    if rate is None:
        return profile
    if not profile.lots and not profile.prepaid_fraction:
        raise InputError(
            f"--cost-of-capital: {profile.name} is published per hour and nothing of it is prepaid, so that no capital "
            "costs anything"
        )
    return replace(profile, cost_of_capital=parse_rate(rate, "--cost-of-capital"))


def _hour(profile: OwnershipProfile, lot: OwnedLot, catalog: Catalog, site: Site | None) -> OwnedHour:
    accelerator = catalog.accelerators.get(lot.accelerator)
    if accelerator is None:
        raise InputError(f"accelerator {lot.accelerator!r} is not in the catalog")
    cost = lot_cost(profile, lot, accelerator, site)
    price = cost.usd_per_accelerator_hour
    critical, utility, drawn = _power_kw(profile, accelerator, site)
    return OwnedHour(
        accelerator=accelerator.name,
        lot=lot.name,
        market=profile.market.value,
        site=None if site is None else site.name,
        sunk=lot.sunk,
        placeholder=accelerator.name in profile.placeholders,
        capex_usd=_capex(lot.capex),
        critical_kw=critical,
        utility_kw=utility,
        drawn_kw=drawn,
        parts={part.value: cost.parts[part] for part in CostPart if part in cost.parts},
        usd_per_accelerator_hour=price,
        accelerators_per_unit=accelerator.purchase_unit_size,
        usd_per_unit_hour=price * accelerator.purchase_unit_size,
        available_units=lot.available_units,
        available_from=lot.available_from,
    )


def _power_kw(
    profile: OwnershipProfile, accelerator: Accelerator, site: Site | None
) -> tuple[float | None, float | None, float | None]:
    if site is None:
        return None, None, None
    critical = provisioned_critical_w(profile, accelerator) / KW
    return critical, critical * site.pue, critical * site.pue * profile.load_factor


def _capex(capex: Capex) -> dict[str, float]:
    return {part: getattr(capex, part) for part in _CAPEX_PARTS if getattr(capex, part)}


def _site(site: Site) -> OwnershipSite:
    return OwnershipSite(
        name=site.name,
        title=site.title,
        pue=site.pue,
        usd_per_kwh=site.usd_per_kwh,
        usd_per_kwh_by_hour=site.usd_per_kwh_by_hour,
        carbon_g_per_kwh=site.carbon_g_per_kwh,
        sources=dict(site.sources),
    )


def _assumptions(profile: OwnershipProfile, hours: Sequence[OwnedHour]) -> list[str]:
    if not profile.lots:
        said = ["published per accelerator-hour: what it consists of is not public"]
        if profile.prepaid_fraction and profile.term_years is not None:
            paid = f"{profile.prepaid_fraction * 100:g} % of {profile.term_years:g} years is paid in advance"
            rate = profile.cost_of_capital
            counted = "its capital costs nothing" if rate is None else f"its capital costs {rate * 100:g} % a year"
            said.append(f"{paid}; {counted}")
        return said
    said = []
    if any(not hour.sunk and hour.capex_usd for hour in hours) and profile.cost_of_capital is not None:
        life = "lives of their own" if profile.life_years is None else f"{profile.life_years:g} years"
        said.append(
            f"capital is paid back over {life} at {profile.cost_of_capital * 100:g} % a year; "
            f"residual value {profile.residual_fraction * 100:g} % of capex"
        )
    if profile.build_usd_per_kw is not None and profile.build_life_years is not None:
        said.append(
            f"critical power is built at ${profile.build_usd_per_kw * 1e3 / 1e6:,.3g}M a MW, paid back over "
            f"{profile.build_life_years:g} years"
        )
    else:
        said.append(f"critical power is rented at ${profile.colocation_usd_per_kw_month:,.2f} a kW and month")
    said.append(
        f"{profile.load_factor * 100:g} % of critical power is drawn on average; "
        f"maintenance {profile.maintenance_fraction_per_year * 100:g} % of capex a year"
        + (f" and ${profile.maintenance_usd_per_year:,.0f}" if profile.maintenance_usd_per_year else "")
    )
    said.append(f"{profile.utilisation * 100:g} % of hours are used; the others are charged to them as idle")
    if any(hour.sunk for hour in hours):
        said.append("what is paid for costs energy, facility and maintenance only; what it would sell for is left out")
    return said
