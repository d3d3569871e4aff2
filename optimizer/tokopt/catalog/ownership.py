"""Ownership profiles and owned files: YAML to records, and records to offers that stand beside rented ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tokopt.catalog.files import read_yaml, validate
from tokopt.catalog.names import folded, name_index
from tokopt.catalog.ownership_rows import CapexRow, LotRow, OwnedFileRow, OwnershipRow, row_fault
from tokopt.catalog.sites import with_hours
from tokopt.cost.ownership import CostPart, OwnershipCost, ownership_cost, published_cost
from tokopt.domain.accelerators import Accelerator, PurchaseUnit
from tokopt.domain.offers import Capex, Market, Offer, OwnedLot, OwnershipProfile, RejectedRow
from tokopt.domain.sites import Site
from tokopt.errors import CatalogError, InputError, unknown_name
from tokopt.units import KW

OWNED_ENDINGS = (".yaml", ".yml")
_PROVIDERS = {Market.OWNED: "owned"}  # of a profile's offers; on other terms they are rented
_RENTED = "rented"
_SITE_FIGURES = ("pue", "usd_per_kwh", "usd_per_kwh_by_hour", "carbon_g_per_kwh", "carbon_g_per_kwh_by_hour")


def load_ownership(directory: Path) -> dict[str, OwnershipProfile]:
    """Return the profiles of a directory of YAML files, by name; none when there is no such directory.

    Raises:
        CatalogError: A file cannot be read, or a row is not a profile: one line with file and key.
    """
    return {path.stem: _profile(path, OwnershipRow) for path in sorted(directory.glob("*.yaml"))}


def is_owned_file(name: str) -> bool:
    """Whether a name is the path of an owned file."""
    return name.lower().endswith(OWNED_ENDINGS)


def read_owned_file(
    path: Path, *, accelerators: Mapping[str, Accelerator], sites: Mapping[str, Site]
) -> OwnershipProfile:
    """Return what a customer's own file says, with every name in it resolved.

    Raises:
        CatalogError: The file cannot be read or says what it may not: one line with file and key.
        InputError: An accelerator or a site that is not known, or accelerators that are no whole number of units.
    """
    profile = _profile(path, OwnedFileRow)
    index = name_index(accelerators)

    def named(spelling: str) -> str:
        found = index.get(folded(spelling), ())
        if len(found) != 1:
            raise InputError(f"{path}: {unknown_name('accelerator', spelling, accelerators)}")
        return found[0]

    lots = tuple(_counted(replace(lot, accelerator=named(lot.accelerator)), accelerators, path) for lot in profile.lots)
    seen: set[tuple[str, str]] = set()
    for lot in lots:
        if (lot.accelerator, lot.name) in seen:
            said = f" named {lot.name}" if lot.name else " without a name"
            raise InputError(f"{path}: lots: two of {lot.accelerator}{said}; give each a name of its own")
        seen.add((lot.accelerator, lot.name))
    resolved = replace(
        profile,
        lots=lots,
        usd_per_accelerator_hour={named(name): usd for name, usd in profile.usd_per_accelerator_hour.items()},
        placeholders=tuple(named(name) for name in profile.placeholders),
        critical_w={named(name): watts for name, watts in profile.critical_w.items()},
    )
    for lot in lots:  # an unknown site is told before anything is computed
        try:
            site_for(resolved, lot, sites)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
    return resolved


def _counted(lot: OwnedLot, accelerators: Mapping[str, Accelerator], path: Path) -> OwnedLot:
    """Return a lot with its stock in units that are bought whole."""
    if lot.available_accelerators is None:
        return lot
    accelerator = accelerators[lot.accelerator]
    units, rest = divmod(lot.available_accelerators, accelerator.purchase_unit_size)
    if rest or not units:
        unit = f"{accelerator.purchase_unit.value}s of {accelerator.purchase_unit_size}"
        raise InputError(
            f"{path}: lots: {lot.accelerator}: accelerators: {lot.available_accelerators} are no whole number of {unit}"
        )
    return replace(lot, available_units=units)


def site_for(
    profile: OwnershipProfile, lot: OwnedLot | None, sites: Mapping[str, Site], site: Site | None = None
) -> Site:
    """Return where a lot stands: the site asked for, its own, its profile's or the first; with the profile's figures.

    Args:
        profile: Its figures (PUE, electricity, carbon) replace those of the site, unless the lot has a site of its own.
        lot: A lot of it.
        sites: Sites by name; the first is the default.
        site: A site that was asked for: then the profile's figures are not used.

    Raises:
        InputError: A site that is not known, or none at all.
    """
    if site is not None:
        return site
    name = (lot.site if lot is not None else "") or profile.site
    if not sites:
        raise InputError(f"ownership profile {profile.name}: a site is needed for PUE and $/kWh")
    if name:
        found = name_index(sites).get(folded(name), ())
        if len(found) != 1:
            raise unknown_name("site", name, sites)
        base = sites[found[0]]
    else:
        base = next(iter(sites.values()))
    elsewhere = lot is not None and bool(lot.site)  # the profile's figures are of its own site
    return base if elsewhere else _with_figures(base, profile, named=bool(name))


def _with_figures(base: Site, profile: OwnershipProfile, *, named: bool) -> Site:
    stated = [key for key in _SITE_FIGURES if getattr(profile, key)]
    if not stated:
        return base
    changed: dict[str, Any] = {
        key: getattr(profile, key) for key in ("pue", "usd_per_kwh", "carbon_g_per_kwh") if key in stated
    }
    if "usd_per_kwh" in stated:
        changed["usd_per_kwh_by_hour"] = ()
    if "carbon_g_per_kwh" in stated:
        changed["carbon_g_per_kwh_by_hour"] = ()
    site = replace(
        base,
        name=base.name if named else profile.name,
        title=base.title if named else f"{profile.title}, otherwise as {base.name}",
        aliases=(),
        sources={**base.sources, **{key.removesuffix("_by_hour"): profile.source for key in stated}},
        **changed,
    )
    return with_hours(site, usd_per_kwh=profile.usd_per_kwh_by_hour, carbon_g_per_kwh=profile.carbon_g_per_kwh_by_hour)


def owned_offers(
    profile: OwnershipProfile,
    *,
    accelerators: Mapping[str, Accelerator],
    sites: Mapping[str, Site] | None = None,
    site: Site | None = None,
    provider: str = "",
) -> tuple[list[Offer], list[RejectedRow]]:
    """Return one offer an accelerator or lot, in the unit that is bought whole, and what had to be left out.

    Args:
        profile: Published prices per accelerator-hour, or components.
        accelerators: Catalog of accelerators by canonical name.
        sites: Sites by name, for component profiles; the first is the default.
        site: Where the machines stand, instead of where the profile says; a published price has none.
        provider: Who they are had from; empty = `owned`, or `rented` on other terms.

    Raises:
        InputError: A component profile without a site.
    """
    offers: list[Offer] = []
    rejected: list[RejectedRow] = []
    for lot in profile_lots(profile):
        try:
            offers.append(_offer(profile, lot, accelerators, sites or {}, site, provider))
        except InputError as fault:
            if profile.lots and site is None and not sites:
                raise
            rejected.append(RejectedRow(file=f"ownership/{profile.name}.yaml", line=0, reason=str(fault)))
    return offers, rejected


def owned_file_offers(
    name: str, *, accelerators: Mapping[str, Accelerator], sites: Mapping[str, Site]
) -> tuple[list[Offer], list[RejectedRow]]:
    """Return the offers of an owned file; whatever is wrong with it is an error, nothing is left out.

    Raises:
        CatalogError: See `read_owned_file`.
        InputError: Also a figure that the cost needs and neither the file nor the catalog has.
    """
    path = Path(name)
    profile = read_owned_file(path, accelerators=accelerators, sites=sites)
    offers, rejected = owned_offers(profile, accelerators=accelerators, sites=sites, provider=f"owned:{profile.name}")
    if rejected:
        raise InputError(f"{path}: {rejected[0].reason}")
    return offers, []


def profile_lots(profile: OwnershipProfile) -> tuple[OwnedLot, ...]:
    """Return the lots of a profile; of a published one, one an accelerator whose capex is not known."""
    return profile.lots or tuple(OwnedLot(accelerator=name, capex=Capex()) for name in profile.usd_per_accelerator_hour)


def lot_cost(profile: OwnershipProfile, lot: OwnedLot, accelerator: Accelerator, site: Site | None) -> OwnershipCost:
    """Return what an accelerator-hour of a lot costs, published or from components at a site.

    Raises:
        InputError: A figure that the cost needs is not known.
    """
    if not profile.lots:
        return published_cost(profile, accelerator.name)
    if site is None:
        raise InputError(f"ownership profile {profile.name}: a site is needed for PUE and $/kWh")
    return ownership_cost(profile, lot, accelerator, site)


def _offer(
    profile: OwnershipProfile,
    lot: OwnedLot,
    accelerators: Mapping[str, Accelerator],
    sites: Mapping[str, Site],
    asked: Site | None,
    provider: str,
) -> Offer:
    accelerator = accelerators.get(lot.accelerator)
    if accelerator is None:
        raise InputError(f"accelerator {lot.accelerator!r} is not in the catalog")
    site = site_for(profile, lot, sites, asked) if profile.lots else asked
    size = accelerator.purchase_unit_size
    unit = "rack" if accelerator.purchase_unit is PurchaseUnit.RACK else "node"
    placeholder = "the source marks this figure as a placeholder" if lot.accelerator in profile.placeholders else ""
    sunk = "paid for: energy, facility and maintenance only" if lot.sunk else ""
    cost = lot_cost(profile, lot, accelerator, site)
    return Offer(
        provider=provider or _PROVIDERS.get(profile.market, _RENTED),
        region=site.name if site is not None else "",
        zone="",
        instance_type=f"{unit} of {size}" + (f", {lot.name}" if lot.name else ""),
        accelerator=lot.accelerator,
        accelerator_count=size,
        market=profile.market,
        usd_per_hour=cost.usd_per_accelerator_hour * size,
        energy_usd_per_hour=cost.parts.get(CostPart.ENERGY, 0.0) * size,
        as_of=profile.observed_on,
        source=profile.source,
        available_units=lot.available_units,
        available_from=lot.available_from,
        note="; ".join(part for part in (profile.title, placeholder, sunk) if part),
        site=site,
    )


def _profile(path: Path, row_type: type[OwnershipRow]) -> OwnershipProfile:
    row = validate(row_type, read_yaml(path), where=str(path))
    fault = row_fault(row)
    if fault:
        raise CatalogError(f"{path}: {fault}")
    per_mw = row.build_usd_per_mw
    left_out = {"capex_usd", "lots", "sunk", "critical_kw", "build_usd_per_mw", "build_usd_per_kw", "site"}
    same = row.model_dump(exclude=left_out | {"title", "source", "observed_on"})
    return OwnershipProfile(
        name=path.stem,
        title=row.title or path.stem,
        source=row.source or path.name,
        observed_on="" if row.observed_on is None else row.observed_on.isoformat(),
        lots=(
            *(OwnedLot(accelerator=name, capex=_capex(capex), sunk=row.sunk) for name, capex in row.capex_usd.items()),
            *(_lot(lot, row) for lot in row.lots),
        ),
        critical_w={name: kw * KW for name, kw in row.critical_kw.items()},
        build_usd_per_kw=row.build_usd_per_kw if per_mw is None else per_mw / 1e3,
        site=row.site or "",
        **same,
    )


def _lot(lot: LotRow, row: OwnershipRow) -> OwnedLot:
    return OwnedLot(
        accelerator=lot.accelerator,
        name=lot.name,
        capex=_capex(lot.capex_usd or CapexRow()),
        sunk=lot.sunk or row.sunk,
        available_units=lot.available_units,
        available_accelerators=lot.accelerators,
        available_from="" if lot.available_from is None else lot.available_from.isoformat(),
        site=lot.site or "",
        life_years=lot.life_years,
        residual_fraction=lot.residual_fraction,
    )


def _capex(row: CapexRow) -> Capex:
    return Capex(**row.model_dump())
