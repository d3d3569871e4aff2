"""Build the embedded price snapshot: one CSV a provider in tokopt's own schema, one row a market.

    python tools/build_price_snapshot.py SOURCE_DIRECTORY catalogs/prices

The source is the project's table of price facts: one CSV a provider with on-demand and spot side by side, and
`reserved.csv`. Rows that are no usable price are dropped, each for a named reason, and the counts are printed.
"""

from __future__ import annotations

import csv
import re
import statistics
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

COLUMNS = (
    "provider", "region", "zone", "instance_type", "accelerator", "accelerator_count", "market", "usd_per_hour",
    "currency", "as_of", "available_units", "source", "note",
)  # fmt: skip
SPOT_NOT_BELOW = "spot price is not below on-demand"
FAR_BELOW = "under half the median of the same machine elsewhere"
SAME_PRICE = 0.005  # relative; two sources that differ by less state the same price

# Machines whose accelerator the source names too widely: provider, instance type, note, name in the source, name here.
RENAMES = (
    ("azure", r"Standard_NC\d+ads_A100_v4", r"", "A100-80GB", "A100-80GB-PCIe", "the series has PCIe cards"),
    ("hyperstack", r"A100( NVLink)?", r"PCIe", "A100-80GB", "A100-80GB-PCIe", ""),
    ("hyperstack", r"n3-A100x\d+(-NVLink)?", r"", "A100-80GB", "A100-80GB-PCIe", "priced as the page's PCIe cards"),
    ("shadeform", r"crusoe_A100-80GB(x\d+)?", r"", "A100-80GB", "A100-80GB-PCIe", "priced as Crusoe's PCIe cards"),
)

# The source says that its plain name means the smaller card; people also mean the larger one by it.
PLAIN = {"A100": "A100-40GB"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """One price of one machine in one market."""

    provider: str
    region: str
    zone: str
    instance_type: str
    accelerator: str
    accelerator_count: int
    market: str
    usd_per_hour: float
    as_of: str
    available_units: str
    source: str
    note: str

    @property
    def machine(self) -> tuple[str, str, str, int]:
        return self.provider, self.instance_type, self.accelerator, self.accelerator_count

    @property
    def key(self) -> tuple[str, str, str, str, str, str]:
        return self.provider, self.region, self.zone, self.instance_type, self.accelerator, self.market

    @property
    def tier(self) -> tuple[str, str, int, str]:
        return self.provider, self.accelerator, self.accelerator_count, self.market

    def noted(self, remark: str) -> Price:
        return replace(self, note="; ".join(part for part in (self.note, remark) if part))


Dropped = Counter[str]


def main(arguments: list[str]) -> int:
    if len(arguments) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    source, target = Path(arguments[0]), Path(arguments[1])
    kept, dropped = build(source)
    write(kept, target)
    for provider, count in sorted(Counter(price.provider for price in kept).items()):
        print(f"{provider:16s} {count:5d} rows")
    print(f"{'kept':16s} {len(kept):5d} rows; dropped:")
    for reason, count in sorted(dropped.items()):
        print(f"{count:6d}  {reason}")
    return 0


def build(source: Path) -> tuple[list[Price], Dropped]:
    """Return the usable prices, sorted, and how many were dropped by reason."""
    dropped: Dropped = Counter()
    prices = [price for path in sorted(source.glob("*.csv")) for price in read_prices(path, dropped)]
    for rule in (drop_placeholders, drop_superseded_by_date, drop_superseded_by_page, drop_reduced_rate, drop_doubles):
        prices = rule(prices, dropped)
    prices = flag_far_below(flag_spot_not_below(prices))
    return sorted(prices, key=lambda price: (*price.key, price.accelerator_count)), dropped


def write(prices: Iterable[Price], target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    by_provider: dict[str, list[Price]] = defaultdict(list)
    for price in prices:
        by_provider[price.provider].append(price)
    for provider, rows in by_provider.items():
        with (target / f"{provider}.csv").open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(COLUMNS)
            for row in rows:
                cells = {**{name: getattr(row, name) for name in Price.__slots__}, "currency": "USD"}
                cells["usd_per_hour"] = f"{row.usd_per_hour:.6f}".rstrip("0").rstrip(".")
                writer.writerow([cells[name] for name in COLUMNS])


# Reading --------------------------------------------------------------------------------------------------------


def read_prices(path: Path, dropped: Dropped) -> list[Price]:
    """Return the prices of one file: none when it is not a price file."""
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream)
        names = set(reader.fieldnames or ())
        read: Callable[[dict[str, str], Dropped], list[Price]]
        if {"cloud", "instance_type", "price_usd_per_hour"} <= names:
            read = read_cloud_row
        elif {"cloud", "commitment", "price_usd_per_accelerator_hour"} <= names:
            read = read_reserved_row
        else:
            return []
        return [renamed(price) for row in reader for price in read(row, dropped)]


def read_cloud_row(row: dict[str, str], dropped: Dropped) -> list[Price]:
    """Return the on-demand and the spot price of one row."""
    count = whole_number(row["accelerator_count"])
    if count < 1:
        dropped["a fraction of an accelerator (count 0)"] += 1
        return []
    prices = []
    for market, column in (("on_demand", "price_usd_per_hour"), ("spot", "spot_price_usd_per_hour")):
        if not row[column]:
            continue
        if row["note"].startswith("superseded"):
            dropped["superseded: the row's note says so"] += 1
            continue
        # On-demand prices hold for the region; the zone of such rows only says where spot was cheapest.
        regional = market == "on_demand" and "cheapest-spot zone" in row["note"]
        prices.append(
            Price(
                provider=row["cloud"],
                region=_region(row, market),
                zone="" if regional else row["availability_zone"],
                instance_type=row["instance_type"],
                accelerator=row["accelerator"],
                accelerator_count=count,
                market=market,
                usd_per_hour=float(row[column]),
                as_of=row["catalog_date"],
                available_units="0" if "not in stock" in row["note"] else "",
                source=row["source"],
                note="" if regional else row["note"],
            )
        )
    return prices


def _region(row: dict[str, str], market: str) -> str:
    stated = re.search(r"spot price stated for ([^;]+)", row["note"])
    return stated[1].strip() if stated and market == "spot" and not row["region"] else row["region"]


def read_reserved_row(row: dict[str, str], dropped: Dropped) -> list[Price]:
    """Return the price of one row of `reserved.csv`, which prices one accelerator."""
    markets = {"reserved": "reserved", "1y": "reserved_1y", "3y": "reserved_3y"}
    market = markets.get(row["commitment"].removeprefix("reserved_").replace(" ", ""))
    count = whole_number(row["accelerator_count"])
    if market is None or count < 1:
        dropped["reserved for a term that tokopt has no market for"] += 1
        return []
    # The note ends in what tells several cards of one name apart, such as "PCIe with NVLink bridge".
    detail = row["note"].partition("term not stated")[2].strip("; ")
    pcie = row["accelerator"] == "A100-80GB" and "PCIe" in detail
    price = Price(
        provider=row["cloud"],
        region=row["region"],
        zone="",
        instance_type=f"{row['accelerator']} {detail}".strip(),
        accelerator="A100-80GB-PCIe" if pcie else row["accelerator"],
        accelerator_count=count,
        market=market,
        usd_per_hour=float(row["price_usd_per_accelerator_hour"]) * count,
        as_of=row["catalog_date"],
        available_units="",
        source=row["source"],
        note=row["note"],
    )
    return [price]


def renamed(price: Price) -> Price:
    for provider, machine, note, old, new, remark in RENAMES:
        if (
            (price.provider, price.accelerator) == (provider, old)
            and re.fullmatch(machine, price.instance_type)
            and re.search(note, price.note)
        ):
            return replace(price, accelerator=new).noted(remark)
    return replace(price, accelerator=PLAIN.get(price.accelerator, price.accelerator))


def whole_number(text: str) -> int:
    return int(float(text)) if text else 0


# Rules: each returns what stays -----------------------------------------------------------------------------------


def drop_placeholders(prices: list[Price], dropped: Dropped) -> list[Price]:
    """Drop 0.0, the 700.0 that stands in TPU rows, and prices that their own note calls a placeholder."""

    def reason(price: Price) -> str:
        if price.usd_per_hour <= 0:
            return "placeholder: price 0.0"
        if price.accelerator.startswith("TPU") and price.usd_per_hour == 700.0:
            return "placeholder: TPU price 700.0"
        if re.search(r"(equals|close to) the placeholder price", price.note):
            return "placeholder: the row's note says so"
        return ""

    return _without(prices, reason, dropped)


def drop_superseded_by_date(prices: list[Price], dropped: Dropped) -> list[Price]:
    """Of one machine, place and market keep the latest date; a bare year is older than any full date."""
    latest: dict[tuple[str, ...], tuple[bool, str]] = {}
    for price in prices:
        latest[price.key] = max(latest.get(price.key, (False, "")), _age(price.as_of))
    return _without(
        prices,
        lambda price: "superseded: a later date of the same machine" if _age(price.as_of) < latest[price.key] else "",
        dropped,
    )


def drop_superseded_by_page(prices: list[Price], dropped: Dropped) -> list[Price]:
    """Drop bare-year prices that a dated price of the same tier for every region contradicts.

    A dated price that agrees confirms the older row, which adds region and machine; a from-price contradicts nothing.
    """
    dated: dict[tuple[str, str, int, str], list[float]] = defaultdict(list)
    for price in prices:
        if _age(price.as_of)[0] and not price.region and "from-price" not in price.note:
            dated[price.tier].append(price.usd_per_hour)

    def reason(price: Price) -> str:
        newer = dated.get(price.tier, [])
        agrees = any(abs(price.usd_per_hour / other - 1) <= SAME_PRICE for other in newer)
        stale = newer and not _age(price.as_of)[0] and not agrees
        return "superseded: a dated price of the same tier differs" if stale else ""

    return _without(prices, reason, dropped)


def drop_reduced_rate(prices: list[Price], dropped: Dropped) -> list[Price]:
    """Drop on-demand prices far below the same machine elsewhere: a reduced-rate SKU was picked up as list price."""
    low = _far_below(prices, "on_demand")
    return _without(prices, lambda price: f"reduced rate: {FAR_BELOW}" if price in low else "", dropped)


def drop_doubles(prices: list[Price], dropped: Dropped) -> list[Price]:
    seen: set[tuple[str, ...]] = set()
    kept = []
    for price in sorted(prices, key=lambda price: (*price.key, price.usd_per_hour, price.source)):
        if price.key in seen:
            dropped["double: same machine, place and market"] += 1
            continue
        seen.add(price.key)
        kept.append(price)
    return kept


def flag_spot_not_below(prices: list[Price]) -> list[Price]:
    on_demand: dict[tuple[object, ...], float] = {}
    for price in prices:
        if price.market == "on_demand":
            place = (*price.machine, price.region)
            on_demand[place] = min(price.usd_per_hour, on_demand.get(place, price.usd_per_hour))

    def flagged(price: Price) -> Price:
        if price.market != "spot":
            return price
        listed = on_demand.get((*price.machine, price.region), on_demand.get((*price.machine, "")))
        above = listed is not None and price.usd_per_hour >= listed
        return price.noted(SPOT_NOT_BELOW) if above else price

    return [flagged(price) for price in prices]


def flag_far_below(prices: list[Price]) -> list[Price]:
    """Mark spot prices far below the same machine elsewhere: spot does swing that far, so they stay."""
    low = _far_below(prices, "spot")
    return [price.noted(FAR_BELOW) if price in low else price for price in prices]


def _far_below(prices: list[Price], market: str) -> set[Price]:
    machines: dict[tuple[str, str, str, int], list[Price]] = defaultdict(list)
    for price in prices:
        if price.market == market and price.region:
            machines[price.machine].append(price)
    low = set()
    for rows in machines.values():
        for row in rows:
            others = [other.usd_per_hour for other in rows if other.region != row.region]
            if len(others) >= 2 and row.usd_per_hour < statistics.median(others) / 2:
                low.add(row)
    return low


def _age(date: str) -> tuple[bool, str]:
    return len(date) == len("2026-01-01"), date


def _without(prices: list[Price], reason: Callable[[Price], str], dropped: Dropped) -> list[Price]:
    kept = []
    for price in prices:
        why = reason(price)
        if why:
            dropped[why] += 1
        else:
            kept.append(price)
    return kept


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
