"""What price lists hold, for people who check or compare them."""

from __future__ import annotations

from tokopt.domain.estimates import Record


class PriceFileCheck(Record):
    """What one price file holds."""

    file: str
    format: str  # or why it could not be read
    rows: int
    offers: int
    rejected: int
    rejected_by_reason: dict[str, int]
    passed_over: dict[str, int]  # rows that are about something else, such as machines without accelerators
    flagged: dict[str, int]  # doubt -> offers
    accelerators: dict[str, int]  # name -> offers
    oldest: str
    newest: str
    undated: int  # offers


class RejectedPrice(Record):
    """A row that was turned down."""

    file: str
    line: int
    reason: str


class PriceCheck(Record):
    """What price lists hold, together."""

    price_lists: tuple[str, ...]
    files: tuple[PriceFileCheck, ...]
    rows: int
    offers: int
    rejected: int
    rejected_by_reason: dict[str, int]
    passed_over: dict[str, int]
    flagged: dict[str, int]
    accelerators: dict[str, int]
    oldest: str
    newest: str
    undated: int
    rates: dict[str, float]  # currency -> USD for one
    rejected_rows: tuple[RejectedPrice, ...]  # all where a list was asked for, else the first of each reason


class PriceLine(Record):
    """One offer."""

    accelerator: str
    usd_per_gpu_hour: float
    usd_per_hour: float
    provider: str
    region: str
    zone: str
    market: str
    instance_type: str
    accelerator_count: int
    as_of: str
    available_units: int | None
    source: str
    note: str
    flags: tuple[str, ...]


class PriceSpread(Record):
    """How far a provider's prices of an accelerator-hour in one market are apart. [USD/h]"""

    provider: str
    market: str
    offers: int
    lowest: float
    lower_quartile: float
    median: float
    upper_quartile: float
    highest: float


class PriceTable(Record):
    """Offers of some accelerators, the cheapest accelerator-hour first."""

    accelerators: tuple[str, ...]
    price_lists: tuple[str, ...]
    prices_as_of: str  # oldest to newest date of these offers
    rates: dict[str, float]
    lines: tuple[PriceLine, ...]
    spread: tuple[PriceSpread, ...]
    rejected_price_rows: dict[str, int]
