"""What one can rent or own, and at what price."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum, unique

from tokopt.domain.sites import Site


@unique
class Market(StrEnum):
    """Terms under which an accelerator is had."""

    ON_DEMAND = "on_demand"
    SPOT = "spot"
    RESERVED_1Y = "reserved_1y"
    RESERVED_3Y = "reserved_3y"
    RESERVED = "reserved"  # reserved for a term that the price list does not state
    OWNED = "owned"


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One line of a price list: a machine that can be had whole, and its price."""

    provider: str
    region: str
    zone: str
    instance_type: str
    accelerator: str
    accelerator_count: int  # in the smallest unit that is had whole
    market: Market
    usd_per_hour: float  # of the whole unit
    as_of: str
    source: str
    available_units: int | None = None  # None: no limit stated
    available_from: str = ""  # ISO date from which it can be had; empty = at once
    note: str = ""
    flags: tuple[str, ...] = ()  # doubts about the price that do not keep it from being used
    energy_usd_per_hour: float = 0.0  # part of `usd_per_hour` that is electricity, as far as it is known
    site: Site | None = field(default=None, compare=False)  # where it stands, where the price depends on that

    @property
    def usd_per_accelerator_hour(self) -> float:
        """Price of one accelerator for one hour. [USD/h]"""
        return self.usd_per_hour / self.accelerator_count


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedRow:
    """A price-list row that was not used, and why."""

    file: str
    line: int
    reason: str
    kind: str = ""  # the reason without the row's own cell, by which rows are counted; empty = the reason


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceFile:
    """What one price file holds."""

    file: str  # as its user knows it
    format: str
    rows: int
    offers: int
    rejected: Mapping[str, int]  # kind of reason -> rows
    passed_over: Mapping[str, int]  # rows that are about something else -> how many
    flagged: Mapping[str, int]  # doubt -> offers
    accelerators: Mapping[str, int]  # name -> offers
    oldest: str
    newest: str
    undated: int  # offers


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceSelection:
    """Which offers of price lists are wanted; what is empty selects nothing away."""

    accelerators: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    markets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceList:
    """Offers read from one or several lists, with the rows that were turned down."""

    name: str
    offers: tuple[Offer, ...]
    rejected: tuple[RejectedRow, ...] = ()  # of a large list only the first of each kind
    rejected_counts: Mapping[str, int] = field(default_factory=dict)  # kind of reason -> all of its rows
    files: tuple[PriceFile, ...] = ()
    as_of: str = ""  # oldest to newest date


@dataclass(frozen=True, slots=True, kw_only=True)
class Capex:
    """What one accelerator costs to put up, by part. [USD per accelerator]"""

    server: float = 0.0
    network: float = 0.0
    storage: float = 0.0
    install: float = 0.0
    undivided: float = 0.0  # of which only the sum is known

    @property
    def total(self) -> float:
        """The sum of the parts. [USD per accelerator]"""
        return math.fsum((self.server, self.network, self.storage, self.install, self.undivided))


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnedLot:
    """Accelerators of one kind that are owned or would be bought on the same terms."""

    accelerator: str
    name: str = ""  # tells it from other lots of the same accelerator
    capex: Capex
    sunk: bool = False  # paid for already: capital costs nothing any more
    available_units: int | None = None  # nodes or racks; None: as many as one likes
    available_accelerators: int | None = None  # the same in accelerators
    available_from: str = ""  # ISO date; empty = at once
    site: str = ""  # name of a site; empty = the profile's
    life_years: float | None = None  # None = the profile's
    residual_fraction: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnershipProfile:
    """Cost of owning, either published per accelerator-hour or computed from components.

    Published profiles fill `usd_per_accelerator_hour`; component profiles have `lots` and fill the rest.
    """

    name: str
    title: str
    source: str
    observed_on: str
    market: Market = Market.OWNED
    usd_per_accelerator_hour: Mapping[str, float] = field(default_factory=dict)
    placeholders: tuple[str, ...] = ()  # accelerators whose published figure is marked as a placeholder
    prepaid_fraction: float = 0.0  # of the published price over the term, paid when the term begins
    term_years: float | None = None
    lots: tuple[OwnedLot, ...] = ()
    cost_of_capital: float | None = None
    life_years: float | None = None
    residual_fraction: float = 0.0
    colocation_usd_per_kw_month: float | None = None
    build_usd_per_kw: float | None = None  # instead of rent
    build_life_years: float | None = None
    maintenance_fraction_per_year: float = 0.0  # of capex
    maintenance_usd_per_year: float = 0.0  # an accelerator, on top of it
    load_factor: float = 0.8  # energy drawn over critical power provisioned
    utilisation: float = 1.0
    all_in_pue: float = 1.15  # PUE that the all-in power of accelerators contains
    critical_w: Mapping[str, float] = field(default_factory=dict)  # by accelerator, instead of its all-in power
    site: str = ""  # name of the site that it is meant for
    pue: float | None = None  # this and the following replace figures of the site
    usd_per_kwh: float | None = None
    usd_per_kwh_by_hour: tuple[float, ...] = ()
    carbon_g_per_kwh: float | None = None
    carbon_g_per_kwh_by_hour: tuple[float, ...] = ()
    note: str = ""
    sources: Mapping[str, str] = field(default_factory=dict)  # key of the file -> source key
