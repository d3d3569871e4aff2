"""`prices check` and `prices show`: what price lists hold, and who sells an accelerator for how much."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from tokopt.catalog import Catalog, load_catalog
from tokopt.domain.offers import Market, Offer, PriceFile, PriceList, PriceSelection
from tokopt.domain.pricing import (
    PriceCheck,
    PriceFileCheck,
    PriceLine,
    PriceSpread,
    PriceTable,
    RejectedPrice,
)
from tokopt.errors import InputError, unknown_name

from .rates import parse_rates
from .requests import names

EVERY_PROVIDER = "all"
LISTED_OF_EACH = 3  # rejected rows of one reason that are shown without being asked for

Rates = str | Sequence[str] | Mapping[str, float] | None


def check_prices(
    files: str | Path | Sequence[str | Path],
    *,
    rates: Rates = None,
    list_rejected: bool = False,
    catalog: str | Catalog | None = None,
) -> PriceCheck:
    """Return what price files hold: formats, offers, dates, and how many rows were rejected for which reasons.

    Args:
        files: Paths of CSV or Parquet files or of directories of them, or names of embedded lists.
        rates: Currency -> US dollars for one, or text like `EUR=1.08`.
        list_rejected: Keep every rejected row, not only the first of each reason.
        catalog: A catalog or an overlay directory.

    Raises:
        InputError: A name that is no list, or a file that cannot be read as a price list.
    """
    loaded = catalog if isinstance(catalog, Catalog) else load_catalog(catalog)
    wanted = _lists(files)
    known = parse_rates(rates)
    most = None if list_rejected else LISTED_OF_EACH
    prices = loaded.price_list(wanted, rates=known, most_listed=most, strict=False, offers=False)
    checked = tuple(_file_check(file) for file in (*prices.files, *_ownership(prices)))
    dates = sorted(date for file in checked for date in (file.oldest, file.newest) if date)
    return PriceCheck(
        price_lists=tuple(wanted),
        files=checked,
        rows=sum(file.rows for file in checked),
        offers=sum(file.offers for file in checked),
        rejected=sum(prices.rejected_counts.values()),
        rejected_by_reason=_by_count(prices.rejected_counts),
        passed_over=_added(file.passed_over for file in checked),
        flagged=_added(file.flagged for file in checked),
        accelerators=dict(sorted(_added(file.accelerators for file in checked).items())),
        oldest=dates[0] if dates else "",
        newest=dates[-1] if dates else "",
        undated=sum(file.undated for file in checked),
        rates=known,
        rejected_rows=tuple(RejectedPrice(file=row.file, line=row.line, reason=row.reason) for row in prices.rejected),
    )


def _lists(files: str | Path | Sequence[str | Path]) -> list[str]:
    """Return names of lists; what is a path, an existing directory among them, looks like one."""
    given = [files] if isinstance(files, str | Path) else list(files)
    found = []
    for file in given:
        name = str(file)
        if "/" not in name and "\\" not in name and Path(name).exists():
            name = f"./{name}"
        found.append(name)
    if not found:
        raise InputError("no price list given; name files, directories or embedded lists")
    return found


def _ownership(prices: PriceList) -> list[PriceFile]:
    """Return ownership profiles, which have no file, as if they were one."""
    offers = [offer for offer in prices.offers if offer.market is Market.OWNED]
    rejected = Counter(row.reason for row in prices.rejected if not row.line)
    if not offers and not rejected:
        return []
    dates = sorted(offer.as_of for offer in offers)
    return [
        PriceFile(
            file="ownership profiles",
            format="ownership",
            rows=len(offers) + sum(rejected.values()),
            offers=len(offers),
            rejected=dict(rejected),
            passed_over={},
            flagged={},
            accelerators=dict(sorted(Counter(offer.accelerator for offer in offers).items())),
            oldest=dates[0] if dates else "",
            newest=dates[-1] if dates else "",
            undated=0,
        )
    ]


def _file_check(file: PriceFile) -> PriceFileCheck:
    return PriceFileCheck(
        file=file.file,
        format=file.format,
        rows=file.rows,
        offers=file.offers,
        rejected=sum(file.rejected.values()),
        rejected_by_reason=_by_count(file.rejected),
        passed_over=dict(file.passed_over),
        flagged=dict(file.flagged),
        accelerators=dict(file.accelerators),
        oldest=file.oldest,
        newest=file.newest,
        undated=file.undated,
    )


def _by_count(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def _added(many: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for counts in many:
        total.update(counts)
    return _by_count(total)


def show_prices(
    gpus: str | Sequence[str],
    *,
    prices: str | Sequence[str] = EVERY_PROVIDER,
    markets: str | Sequence[str] | None = None,
    regions: str | Sequence[str] | None = None,
    rates: Rates = None,
    catalog: str | Catalog | None = None,
) -> PriceTable:
    """Return who sells accelerators where and for how much, the cheapest accelerator-hour first.

    Args:
        gpus: Accelerators.
        prices: Price lists; `all` = the whole embedded snapshot.
        markets: Only these: `on_demand`, `spot`, `reserved`, `reserved_1y`, `reserved_3y`, `owned`.
        regions: Only these.
        rates: Currency -> US dollars for one, or text like `EUR=1.08`.
        catalog: A catalog or an overlay directory.

    Raises:
        InputError: An unknown name, or nothing for sale.
    """
    loaded = catalog if isinstance(catalog, Catalog) else load_catalog(catalog)
    wanted = tuple(loaded.accelerator(name).name for name in names(gpus))
    if not wanted:
        raise InputError("--gpu: no accelerator named")
    terms, places, known = names(markets), names(regions), parse_rates(rates)
    for market in terms:
        if market not in tuple(Market):
            raise unknown_name("market", market, tuple(Market))
    lists = [name.strip() for name in names(prices)]
    found = loaded.price_list(
        lists,
        rates=known,
        selection=PriceSelection(accelerators=wanted, regions=places, markets=terms),
    )
    offers = [o for o in found.offers if _selected(o, wanted, terms, places)]
    if not offers:
        said = "; ".join(
            f"{what} {', '.join(values)}" for what, values in (("markets", terms), ("regions", places)) if values
        )
        raise InputError(f"no price of {', '.join(wanted)} in {', '.join(lists)}{f' ({said})' if said else ''}")
    lines = sorted((_line(offer) for offer in offers), key=_order)
    dates = sorted({line.as_of for line in lines if line.as_of})
    return PriceTable(
        accelerators=wanted,
        price_lists=tuple(lists),
        prices_as_of=dates[0] if len(dates) == 1 else " to ".join(dates[:1] + dates[-1:]),
        rates=known,
        lines=tuple(lines),
        spread=tuple(_spreads(lines)),
        rejected_price_rows=_by_count(found.rejected_counts),
    )


def _selected(offer: Offer, wanted: Sequence[str], markets: Sequence[str], regions: Sequence[str]) -> bool:
    return (
        offer.accelerator in wanted
        and (not markets or offer.market.value in markets)
        and (not regions or offer.region in regions)
    )


def _line(offer: Offer) -> PriceLine:
    return PriceLine(
        accelerator=offer.accelerator,
        usd_per_gpu_hour=offer.usd_per_accelerator_hour,
        usd_per_hour=offer.usd_per_hour,
        provider=offer.provider,
        region=offer.region,
        zone=offer.zone,
        market=offer.market.value,
        instance_type=offer.instance_type,
        accelerator_count=offer.accelerator_count,
        as_of=offer.as_of,
        available_units=offer.available_units,
        source=offer.source,
        note=offer.note,
        flags=offer.flags,
    )


def _order(line: PriceLine) -> tuple[float | str, ...]:
    price = round(line.usd_per_gpu_hour, 9)
    return price, line.provider, line.region, line.zone, line.market, line.instance_type, line.accelerator


def _spreads(lines: Sequence[PriceLine]) -> list[PriceSpread]:
    """Return the spread of every provider's prices in every market, the lowest median first."""
    groups: dict[tuple[str, str], list[float]] = {}
    for line in lines:
        groups.setdefault((line.provider, line.market), []).append(line.usd_per_gpu_hour)
    spreads = []
    for (provider, market), values in groups.items():
        low, lower, middle, upper, high = (float(v) for v in np.quantile(values, (0.0, 0.25, 0.5, 0.75, 1.0)))
        spreads.append(
            PriceSpread(
                provider=provider,
                market=market,
                offers=len(values),
                lowest=low,
                lower_quartile=lower,
                median=middle,
                upper_quartile=upper,
                highest=high,
            )
        )
    return sorted(spreads, key=lambda s: (s.median, s.provider, s.market))
