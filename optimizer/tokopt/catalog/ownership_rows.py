"""What an ownership profile's file may say: keys with their units, and the rules between them."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from tokopt.catalog.files import Row
from tokopt.catalog.rows import Given, NotNegative, OptionalCount, OptionalPositive, Positive, SourcedRow, Text
from tokopt.catalog.sites import hourly_fault
from tokopt.domain.offers import Market

Fraction = Annotated[float, Field(ge=0, lt=1, strict=True)]
PositiveShare = Annotated[float, Field(gt=0, le=1, strict=True)]
Pue = Annotated[float, Field(ge=1, strict=True)]
HourlyPrices = tuple[Positive, ...]


class CapexRow(Row):
    """What one accelerator costs to put up: a sum, or its parts.

    A number by itself is the sum of parts that are not known.
    """

    server: NotNegative = Field(default=0.0, description="Server or rack with its accelerators [USD per accelerator]")
    network: NotNegative = Field(
        default=0.0, description="Switches, cables and optics between servers [USD per accelerator]"
    )
    storage: NotNegative = Field(default=0.0, description="Shared storage [USD per accelerator]")
    install: NotNegative = Field(default=0.0, description="Delivery, cabling and commissioning [USD per accelerator]")
    undivided: NotNegative = Field(default=0.0, description="What only a sum is known of [USD per accelerator]")

    @model_validator(mode="before")
    @classmethod
    def _from_a_number(cls, value: Any) -> Any:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return {"undivided": float(value)}
        if not isinstance(value, Mapping):
            raise PydanticCustomError(
                "capex", "a number of USD per accelerator is needed, or a mapping of server, network, storage, install"
            )
        return value

    @property
    def total(self) -> float:
        """The sum of the parts. [USD]"""
        return math.fsum(getattr(self, part) for part in CapexRow.model_fields)


class LotRow(Row):
    """Accelerators of one kind that are owned already, or would be bought on terms of their own.

    At most one of `accelerators` and `available_units` says how many there are.
    """

    accelerator: Text = Field(description="Name or alias of the accelerator")
    name: str = Field(default="", description="Tells it from other lots of the same accelerator")
    capex_usd: CapexRow | None = Field(default=None, description="What one costs; needed unless it is sunk")
    sunk: Annotated[bool, Field(strict=True)] = Field(
        default=False, description="Paid for: only energy, facility and maintenance count"
    )
    accelerators: OptionalCount = Field(default=None, description="How many there are, a whole number of units")
    available_units: OptionalCount = Field(default=None, description="How many nodes or racks there are")
    available_from: Annotated[datetime.date | None, Given] = Field(
        default=None, description="Day from which they can be had"
    )
    site: Text | None = Field(default=None, description="Name of the site that they stand at")
    life_years: OptionalPositive = Field(default=None, description="Economic life of the machines [year]")
    residual_fraction: Annotated[Fraction | None, Given] = Field(
        default=None, description="Value at the end of life, share of capex"
    )


class OwnershipRow(SourcedRow):
    """What an accelerator-hour costs to own (ownership/<name>.yaml).

    Either `usd_per_accelerator_hour` is published, or `capex_usd` or `lots` and what goes with them is given. A
    site is rented (`colocation_usd_per_kw_month`) or built (`build_usd_per_mw` or `build_usd_per_kw` over
    `build_life_years`, at the same cost of capital).
    """

    title: Text = Field(description="Name in words")
    market: Market = Field(default=Market.OWNED, description="Terms that its offers are on")
    usd_per_accelerator_hour: dict[str, Positive] = Field(
        default_factory=dict, description="Published cost of an hour by accelerator [USD/h]"
    )
    placeholders: tuple[str, ...] = Field(default=(), description="Accelerators whose figure is a placeholder")
    prepaid_fraction: Fraction = Field(
        default=0.0, description="Share of a published price that is paid when the term begins"
    )
    term_years: OptionalPositive = Field(default=None, description="Term of a published price [year]")
    capex_usd: dict[str, CapexRow] = Field(
        default_factory=dict, description="Server, network, storage and install, or their sum, by accelerator [USD]"
    )
    sunk: Annotated[bool, Field(strict=True)] = Field(
        default=False, description="All is paid for: only energy, facility and maintenance count"
    )
    lots: tuple[LotRow, ...] = Field(default=(), description="Stocks of accelerators on terms of their own")
    cost_of_capital: Annotated[Fraction | None, Given] = Field(
        default=None, description="Cost of capital; with a published price, that of what is prepaid [1/year]"
    )
    life_years: OptionalPositive = Field(default=None, description="Economic life of the machines [year]")
    residual_fraction: Fraction = Field(default=0.0, description="Value at the end of life, share of capex")
    colocation_usd_per_kw_month: Annotated[NotNegative | None, Given] = Field(
        default=None, description="Rent of critical power [USD per kW and month]"
    )
    build_usd_per_mw: OptionalPositive = Field(default=None, description="Construction cost of critical power [USD/MW]")
    build_usd_per_kw: OptionalPositive = Field(default=None, description="The same a kW [USD/kW]")
    build_life_years: OptionalPositive = Field(default=None, description="Life of what was built [year]")
    maintenance_fraction_per_year: Fraction = Field(
        default=0.0, description="Spares, support and staff, share of capex [1/year]"
    )
    maintenance_usd_per_year: NotNegative = Field(
        default=0.0, description="Spares, support and staff besides that [USD per accelerator and year]"
    )
    load_factor: PositiveShare = Field(default=0.8, description="Energy drawn over critical power provisioned")
    utilisation: PositiveShare = Field(default=1.0, description="Share of hours that are used")
    all_in_pue: Pue = Field(
        default=1.15,
        description="PUE that the all-in power of accelerators contains: 132 kW of a GB200 NVL72 are 2.1 kW at 1.15",
    )
    critical_kw: dict[str, Positive] = Field(
        default_factory=dict, description="Critical power to provision, where it is not all-in power over PUE [kW]"
    )
    site: Text | None = Field(default=None, description="Name of a site, instead of the first of sites.yaml")
    pue: Annotated[Pue | None, Given] = Field(default=None, description="PUE, instead of the site's")
    usd_per_kwh: OptionalPositive = Field(
        default=None, description="Price of electricity, instead of the site's [USD/kWh]"
    )
    usd_per_kwh_by_hour: HourlyPrices = Field(
        default=(), description="The same by local hour of the day, 24 values [USD/kWh]"
    )
    carbon_g_per_kwh: OptionalPositive = Field(
        default=None, description="Carbon intensity of electricity, instead of the site's [g/kWh]"
    )
    carbon_g_per_kwh_by_hour: HourlyPrices = Field(
        default=(), description="The same by local hour of the day, 24 values [g/kWh]"
    )


class OwnedFileRow(OwnershipRow):
    """A customer's own file: as a profile, but it need not say where its figures come from."""

    title: str = Field(default="", description="Name in words; empty = that of the file")
    source: str = Field(default="", description="Where the figures come from; empty = the file")
    observed_on: datetime.date | None = Field(default=None, description="Date of the figures")  # type: ignore


_CONTRACT_KEYS = frozenset({"market", "prepaid_fraction", "term_years", "cost_of_capital"})
_COMPONENT_KEYS = (
    frozenset(OwnershipRow.model_fields)
    - frozenset(SourcedRow.model_fields)
    - {"title", "usd_per_accelerator_hour", "placeholders", "capex_usd", "lots"}
    - _CONTRACT_KEYS
)
# Figures beyond these are right in another unit: value, what to write instead.
_MOST = {
    "colocation_usd_per_kw_month": (2_000.0, "USD per kW and month; a price per MW is 1,000 times too high"),
    "build_usd_per_kw": (100_000.0, "USD per kW; a cost per MW goes into build_usd_per_mw"),
    "usd_per_kwh": (2.0, "USD per kWh; a price per MWh is 1,000 times too high"),
    "usd_per_kwh_by_hour": (2.0, "USD per kWh; a price per MWh is 1,000 times too high"),
    "carbon_g_per_kwh": (2_000.0, "g per kWh"),
    "carbon_g_per_kwh_by_hour": (2_000.0, "g per kWh"),
    "life_years": (50.0, "years, not months"),
    "build_life_years": (100.0, "years, not months"),
    "term_years": (20.0, "years, not months"),
    "pue": (3.0, "utility over critical power, like 1.15; a percentage is 100 times too high"),
    "all_in_pue": (3.0, "utility over critical power, like 1.15"),
}
_LEAST_BUILD_USD_PER_MW = 500_000.0


def row_fault(row: OwnershipRow) -> str:
    """Return what is wrong between the keys of a row, or nothing."""
    return next((fault for rule in _RULES if (fault := rule(row))), "")


def _one_kind(row: OwnershipRow) -> str:
    owned = bool(row.capex_usd) or bool(row.lots)
    if bool(row.usd_per_accelerator_hour) == owned:
        said = "both are given" if owned else "neither is given"
        return f"either usd_per_accelerator_hour, or capex_usd or lots is needed; {said}"
    named = {*row.usd_per_accelerator_hour, *row.capex_usd, *(lot.accelerator for lot in row.lots)}
    for key in ("placeholders", "critical_kw"):
        unknown = set(getattr(row, key)) - named
        if unknown:
            return f"{key}: {', '.join(sorted(unknown))} has no figure in this profile"
    return ""


def _published_goes_alone(row: OwnershipRow) -> str:
    if not row.usd_per_accelerator_hour:
        for key in ("prepaid_fraction", "term_years"):
            if key in row.model_fields_set:
                return f"{key}: goes with usd_per_accelerator_hour, not with capex_usd"
        return ""
    extra = sorted(row.model_fields_set & _COMPONENT_KEYS)
    if extra:
        return f"{extra[0]}: goes with capex_usd, not with published figures"
    if (row.prepaid_fraction > 0) != (row.term_years is not None):
        return "prepaid_fraction and term_years go together"
    if row.cost_of_capital is not None and not row.prepaid_fraction:
        return "cost_of_capital: a published price needs it for what is prepaid only, and prepaid_fraction is not given"
    return ""


def _capital_is_priced(row: OwnershipRow) -> str:
    lots = [*((name, capex, row.sunk, row.life_years) for name, capex in row.capex_usd.items())]
    for lot in row.lots:
        if lot.accelerators is not None and lot.available_units is not None:
            return f"lots: {lot.accelerator}: accelerators and available_units: one of them is enough"
        sunk = lot.sunk or row.sunk
        if lot.capex_usd is None and not sunk:
            return f"lots: {lot.accelerator}: capex_usd: missing; give it, or sunk: true for what is paid for"
        lots.append((lot.accelerator, lot.capex_usd or CapexRow(), sunk, lot.life_years or row.life_years))
    for name, capex, sunk, years in lots:
        if capex.total and not sunk:
            if row.cost_of_capital is None:
                return f"cost_of_capital: missing, capex_usd of {name} needs it"
            if years is None:
                return f"life_years: missing, capex_usd of {name} needs it"
    return ""


def _one_building(row: OwnershipRow) -> str:
    if row.usd_per_accelerator_hour:
        return ""
    ways = [
        key
        for key in ("colocation_usd_per_kw_month", "build_usd_per_mw", "build_usd_per_kw")
        if getattr(row, key) is not None
    ]
    if len(ways) != 1:
        said = f"given: {', '.join(ways)}" if ways else "none is given"
        return f"one of colocation_usd_per_kw_month, build_usd_per_mw and build_usd_per_kw is needed; {said}"
    built = ways[0] != "colocation_usd_per_kw_month"
    if built and row.build_life_years is None:
        return f"build_life_years: missing, {ways[0]} needs it"
    if built and row.cost_of_capital is None:
        return f"cost_of_capital: missing, {ways[0]} needs it"
    if not built and row.build_life_years is not None:
        return "build_life_years: goes with build_usd_per_mw or build_usd_per_kw"
    if row.build_usd_per_mw is not None and row.build_usd_per_mw < _LEAST_BUILD_USD_PER_MW:
        return (
            f"build_usd_per_mw: {row.build_usd_per_mw:,g} is implausible: it is in USD per MW; "
            "a cost per kW goes into build_usd_per_kw"
        )
    return ""


def _plausible(row: OwnershipRow) -> str:
    for key, (most, unit) in _MOST.items():
        value = getattr(row, key)
        largest = max(value, default=None) if isinstance(value, tuple) else value
        if largest is not None and largest > most:
            return f"{key}: {largest:,g} is implausible: it is in {unit}"
    return ""


_RULES: tuple[Callable[[OwnershipRow], str], ...] = (
    _plausible,
    hourly_fault,
    _one_kind,
    _published_goes_alone,
    _capital_is_priced,
    _one_building,
)
