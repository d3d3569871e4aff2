"""What one can rent or own, at what price, and where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum, unique


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
    note: str = ""
    flags: tuple[str, ...] = ()  # doubts about the price that do not keep it from being used

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
class OwnershipProfile:
    """Cost of owning, either published per accelerator-hour or computed from components.

    Published profiles fill `usd_per_accelerator_hour`; component profiles fill the rest.
    """

    name: str
    title: str
    source: str
    observed_on: str
    usd_per_accelerator_hour: Mapping[str, float] = field(default_factory=dict)
    placeholders: tuple[str, ...] = ()  # accelerators whose published figure is marked as a placeholder
    capex_usd: Mapping[str, float] = field(default_factory=dict)  # server, network, storage, install; per accelerator
    cost_of_capital: float | None = None
    life_years: float | None = None
    residual_fraction: float = 0.0
    colocation_usd_per_kw_month: float | None = None
    maintenance_fraction_per_year: float = 0.0
    load_factor: float = 0.8  # energy drawn over critical power provisioned
    utilisation: float = 1.0
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A place that machines stand in."""

    name: str
    title: str
    pue: float
    usd_per_kwh: float | None
    carbon_g_per_kwh: float | None
    source: str
    observed_on: str
    note: str = ""
    aliases: tuple[str, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)  # field name -> source key
