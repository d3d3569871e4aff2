"""Ownership profiles: YAML files to records, and records to offers that stand beside rented ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field

from tokopt.catalog.files import read_yaml, validate
from tokopt.catalog.rows import Given, OptionalPositive, Positive, SourcedRow, Text
from tokopt.cost.ownership import ownership_cost, shell_usd_per_kw_month
from tokopt.domain.accelerators import Accelerator, PurchaseUnit
from tokopt.domain.offers import Market, Offer, OwnershipProfile, RejectedRow, Site
from tokopt.errors import CatalogError, InputError

_Fraction = Annotated[float, Field(ge=0, lt=1, strict=True)]
_PositiveShare = Annotated[float, Field(gt=0, le=1, strict=True)]


class OwnershipRow(SourcedRow):
    """What an accelerator-hour costs to own (ownership/<name>.yaml).

    Either `usd_per_accelerator_hour` is published, or `capex_usd` and what goes with it is given. A site is rented
    (`colocation_usd_per_kw_month`) or built (`build_usd_per_kw` over `build_life_years`, at the same cost of capital).
    """

    title: Text = Field(description="Name in words")
    usd_per_accelerator_hour: dict[str, Positive] = Field(
        default_factory=dict, description="Published cost of an hour by accelerator [USD/h]"
    )
    placeholders: tuple[str, ...] = Field(default=(), description="Accelerators whose figure is a placeholder")
    capex_usd: dict[str, Positive] = Field(
        default_factory=dict, description="Server, network, storage and install by accelerator [USD]"
    )
    cost_of_capital: Annotated[_Fraction | None, Given] = Field(default=None, description="Cost of capital [1/year]")
    life_years: OptionalPositive = Field(default=None, description="Economic life of the machines [year]")
    residual_fraction: _Fraction = Field(default=0.0, description="Value at the end of life, share of capex")
    colocation_usd_per_kw_month: OptionalPositive = Field(
        default=None, description="Rent of critical power [USD per kW and month]"
    )
    build_usd_per_kw: OptionalPositive = Field(default=None, description="Construction cost of critical power [USD/kW]")
    build_life_years: OptionalPositive = Field(default=None, description="Life of what was built [year]")
    maintenance_fraction_per_year: _Fraction = Field(
        default=0.0, description="Spares, support and staff, share of capex [1/year]"
    )
    load_factor: _PositiveShare = Field(default=0.8, description="Energy drawn over critical power provisioned")
    utilisation: _PositiveShare = Field(default=1.0, description="Share of hours that are used")


def load_ownership(directory: Path) -> dict[str, OwnershipProfile]:
    """Return the profiles of a directory of YAML files, by name; none when there is no such directory.

    Raises:
        CatalogError: A file cannot be read, or a row is not a profile: one line with file and key.
    """
    return {path.stem: _profile(path) for path in sorted(directory.glob("*.yaml"))}


def owned_offers(
    profile: OwnershipProfile, *, accelerators: Mapping[str, Accelerator], site: Site | None = None
) -> tuple[list[Offer], list[RejectedRow]]:
    """Return one offer an accelerator, in the unit that is bought whole, and what had to be left out.

    Args:
        profile: Published prices per accelerator-hour, or components.
        accelerators: Catalog of accelerators by canonical name.
        site: Where the machines stand; a component profile needs it, a published one has its own.

    Raises:
        InputError: A component profile without a site.
    """
    offers: list[Offer] = []
    rejected: list[RejectedRow] = []
    if profile.capex_usd and site is None:
        raise InputError(f"ownership profile {profile.name}: a site is needed for PUE and $/kWh")
    for name in profile.capex_usd or profile.usd_per_accelerator_hour:
        try:
            offers.append(_owned_offer(profile, name, accelerators, site))
        except InputError as fault:
            rejected.append(RejectedRow(file=f"ownership/{profile.name}.yaml", line=0, reason=str(fault)))
    return offers, rejected


def _owned_offer(
    profile: OwnershipProfile, name: str, accelerators: Mapping[str, Accelerator], site: Site | None
) -> Offer:
    accelerator = accelerators.get(name)
    if accelerator is None:
        raise InputError(f"accelerator {name!r} is not in the catalog")
    if site is not None and profile.capex_usd:
        usd_per_hour = ownership_cost(profile, accelerator, site).usd_per_accelerator_hour
    else:
        usd_per_hour = profile.usd_per_accelerator_hour[name]
    size = accelerator.purchase_unit_size
    unit = "rack" if accelerator.purchase_unit is PurchaseUnit.RACK else "node"
    placeholder = "the source marks this figure as a placeholder" if name in profile.placeholders else ""
    return Offer(
        provider="owned",
        region=site.name if site is not None else "",
        zone="",
        instance_type=f"{unit} of {size}",
        accelerator=name,
        accelerator_count=size,
        market=Market.OWNED,
        usd_per_hour=usd_per_hour * size,
        as_of=profile.observed_on,
        source=profile.source,
        note="; ".join(part for part in (profile.title, placeholder) if part),
    )


def _profile(path: Path) -> OwnershipProfile:
    row = validate(OwnershipRow, read_yaml(path), where=str(path))
    fault = _fault(row)
    if fault:
        raise CatalogError(f"{path}: {fault}")
    rent = row.colocation_usd_per_kw_month
    if row.build_usd_per_kw is not None and row.cost_of_capital is not None and row.build_life_years is not None:
        rent = float(
            shell_usd_per_kw_month(
                row.build_usd_per_kw, cost_of_capital=row.cost_of_capital, life_years=row.build_life_years
            )
        )
    same = row.model_dump(
        exclude={"colocation_usd_per_kw_month", "build_usd_per_kw", "build_life_years", "sources", "observed_on"}
    )
    observed_on = row.observed_on.isoformat()
    return OwnershipProfile(name=path.stem, colocation_usd_per_kw_month=rent, observed_on=observed_on, **same)


def _fault(row: OwnershipRow) -> str:
    """Return what is wrong between the keys of a row, or nothing."""
    published, built = bool(row.usd_per_accelerator_hour), row.build_usd_per_kw is not None
    if published == bool(row.capex_usd):
        return "exactly one of usd_per_accelerator_hour and capex_usd is needed"
    unknown = set(row.placeholders) - set(row.usd_per_accelerator_hour) - set(row.capex_usd)
    if unknown:
        return f"placeholders: {', '.join(sorted(unknown))} has no figure in this profile"
    if published:
        extra = sorted(row.model_fields_set & _COMPONENT_KEYS)
        return f"{extra[0]}: goes with capex_usd, not with published figures" if extra else ""
    missing = [key for key in ("cost_of_capital", "life_years") if getattr(row, key) is None]
    if missing:
        return f"{missing[0]}: missing, capex_usd needs it"
    if built == (row.colocation_usd_per_kw_month is not None):
        return "exactly one of colocation_usd_per_kw_month and build_usd_per_kw is needed"
    if built != (row.build_life_years is not None):
        return "build_usd_per_kw and build_life_years go together"
    return ""


_COMPONENT_KEYS = (
    frozenset(OwnershipRow.model_fields)
    - frozenset(SourcedRow.model_fields)
    - {"title", "usd_per_accelerator_hour", "placeholders", "capex_usd"}
)
