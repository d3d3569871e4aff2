"""Price lists: names and files to offers, with every row that was turned down and why.

A list is a provider of the embedded snapshot, `all` of them, an ownership profile, or a user's own CSV file. Formats of
files are told by their columns; each is one entry of `FORMATS`.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from tokopt.catalog.files import read_csv
from tokopt.catalog.names import folded, name_index
from tokopt.catalog.ownership import is_owned_file, owned_file_offers, owned_offers
from tokopt.domain.accelerators import Accelerator
from tokopt.domain.offers import Market, Offer, OwnershipProfile, PriceList, RejectedRow
from tokopt.domain.sites import Site
from tokopt.errors import CatalogError, InputError, unknown_name

ALL_PROVIDERS = "all"
OWNERSHIP_PREFIX = "ownership-"
SPOT_NOT_BELOW = "spot price is not below on-demand"

_Cells = Mapping[str, str]


class Draft(NamedTuple):
    """One price as a format's row states it: text still, but in our words."""

    provider: str
    region: str
    zone: str
    instance_type: str
    accelerator: str
    accelerator_count: str
    market: str
    usd_per_hour: str
    usd_per_accelerator_hour: str
    currency: str
    as_of: str
    available_units: str
    source: str
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ListFormat:
    """One kind of price file: the columns that tell it, and how one row is read."""

    title: str
    needed: tuple[frozenset[str], ...]  # any one of these sets of columns
    columns: tuple[str, ...]
    read_row: Callable[[_Cells, str], Iterable[Draft]]  # cells, file stem -> prices, one a market


class _BadRow(ValueError):
    """Why a row is turned down."""


def read_price_lists(
    names: Sequence[str],
    *,
    directories: Sequence[Path],
    accelerators: Mapping[str, Accelerator],
    ownership: Mapping[str, OwnershipProfile],
    sites: Mapping[str, Site] | None = None,
) -> PriceList:
    """Return the offers of the named lists together; of one machine, place and market the first is kept.

    Args:
        names: Providers (`aws`), `all`, ownership profiles (`ownership-hyperscaler`, `rental-3y`; a component profile
            at a site, `ownership-mine@virginia`), or paths of CSV files (`./mine.csv`) and owned files (`./mine.yaml`).
        directories: Directories of `<provider>.csv`; a later one's file replaces an earlier one's.
        accelerators: Catalog of accelerators; names and aliases are matched regardless of case.
        ownership: Ownership profiles by name.
        sites: Sites by name, for component profiles; the first is the default.

    Raises:
        InputError: A name that is no list, with the nearest ones.
        CatalogError: A file that is missing, empty, lacks columns, or of which no row can be used.
    """
    if not names:
        raise InputError("price lists: none named; name a provider, an ownership profile or a CSV file")
    snapshot = {path.stem: path for directory in directories for path in sorted(directory.glob("*.csv"))}
    reader = _Reader(accelerators)
    wanted = [name for name in dict.fromkeys(names) if name not in snapshot or ALL_PROVIDERS not in names]
    for name in wanted:
        kept, turned_down = len(reader.offers), len(reader.rejected)
        if is_owned_file(name):
            reader.add(*owned_file_offers(name, accelerators=accelerators, sites=sites or {}))
        elif _is_path(name):
            reader.read_file(Path(name), said=name)
        elif name == ALL_PROVIDERS:
            for provider in sorted(snapshot):
                reader.read_file(snapshot[provider], said=f"{provider}.csv")
        elif name in snapshot:
            reader.read_file(snapshot[name], said=f"{name}.csv")
        else:
            profile, site = _profile_and_site(name, snapshot, ownership, sites or {})
            reader.add(*owned_offers(profile, accelerators=accelerators, sites=sites or {}, site=site))
        if len(reader.offers) == kept:
            raise _nothing_left(name, reader.rejected[turned_down:])
    dates = sorted({offer.as_of for offer in reader.offers if offer.as_of})
    return PriceList(
        name=",".join(wanted),
        offers=tuple(_flag_spot(reader.offers)),
        rejected=tuple(reader.rejected),
        as_of=dates[0] if len(dates) == 1 else " to ".join(dates[:1] + dates[-1:]),
    )


def _nothing_left(name: str, rejected: Sequence[RejectedRow]) -> CatalogError:
    if not rejected:
        return CatalogError(f"{name}: no prices")
    line = f"line {rejected[0].line}: " if rejected[0].line else ""
    return CatalogError(
        f"{name}: no price can be used, {len(rejected)} rejected; the first: {line}{rejected[0].reason}"
    )


def _is_path(name: str) -> bool:
    return name.lower().endswith(".csv") or "/" in name or "\\" in name


def _profile_and_site(
    name: str, snapshot: Iterable[str], ownership: Mapping[str, OwnershipProfile], sites: Mapping[str, Site]
) -> tuple[OwnershipProfile, Site | None]:
    stem, at, place = name.partition("@")
    profile = ownership.get(stem.removeprefix(OWNERSHIP_PREFIX)) or ownership.get(stem)
    if profile is None:
        owned = (f"{OWNERSHIP_PREFIX}{other}" for other in ownership)
        error = unknown_name("price list", name, {*snapshot, *ownership, *owned, ALL_PROVIDERS})
        raise InputError(f"{error} (a file needs a path that ends in .csv)")
    if not profile.lots:
        if at:
            raise InputError(f"price list {name!r}: {stem} is published per hour and takes no site; write {stem}")
        return profile, None
    if not sites:
        raise InputError(f"price list {name!r}: computed from components, which need a site, and no sites are known")
    if not at:
        return profile, None
    found = name_index(sites).get(folded(place), ())
    if len(found) != 1:
        raise unknown_name("site", place, sites)
    return profile, sites[found[0]]


class _Reader:
    """Collects offers and rejected rows over several lists."""

    def __init__(self, accelerators: Mapping[str, Accelerator]) -> None:
        self.offers: list[Offer] = []
        self.rejected: list[RejectedRow] = []
        self._keys: set[tuple[object, ...]] = set()
        self._names = _name_index(accelerators)
        self._per_package = {name: accelerator.per_package for name, accelerator in accelerators.items()}
        self._canonical: dict[str, str] = {}  # spelling -> name
        self._unknown: dict[str, str] = {}  # spelling -> reason

    def read_file(self, path: Path, *, said: str) -> None:
        """Read one file; `said` is how the user knows it."""
        rows = read_csv(path)
        first = next(rows, None)
        if first is None:
            raise CatalogError(f"{said}: empty: a header row and at least one price are needed")
        columns = {name.strip().lower(): name for name in first[1]}
        layout = _detect(columns, said)
        plain = all(name == key for key, name in columns.items())
        for line, row in chain([first], rows):
            cells = row if plain else {key: row[name].strip() for key, name in columns.items()}
            for draft in layout.read_row(cells, path.stem):
                try:
                    self._keep(self._offer(draft))
                except _BadRow as fault:
                    self.rejected.append(RejectedRow(file=said, line=line, reason=str(fault)))

    def add(self, offers: Iterable[Offer], rejected: Iterable[RejectedRow]) -> None:
        """Take offers that were not read from a price file."""
        self.rejected.extend(rejected)
        for offer in offers:
            try:
                self._keep(offer)
            except _BadRow as fault:
                self.rejected.append(RejectedRow(file=offer.source, line=0, reason=str(fault)))

    def _keep(self, offer: Offer) -> None:
        key = (offer.provider, offer.region, offer.zone, offer.instance_type, offer.accelerator, offer.market)
        if key in self._keys:
            raise _BadRow(
                f"duplicate: {offer.provider} {offer.instance_type} {offer.region} {offer.market} already has a price"
            )
        self._keys.add(key)
        self.offers.append(offer)

    def _offer(self, draft: Draft) -> Offer:
        accelerator = self._accelerator(draft.accelerator)
        count = _whole(draft.accelerator_count or "1", "accelerator_count", least=1)
        if draft.currency and draft.currency.strip().upper() != "USD":
            raise _BadRow(f"currency {draft.currency!r}: only USD is read")
        market = _MARKETS.get(draft.market.strip().lower().replace("-", "_").replace(" ", "_"))
        if market is None:
            raise _BadRow(f"unknown market {draft.market!r}; known: {', '.join(Market)}")
        available = draft.available_units
        return Offer(
            provider=draft.provider,
            region=draft.region,
            zone=draft.zone,
            instance_type=draft.instance_type or f"{count}x {accelerator}",
            accelerator=accelerator,
            accelerator_count=count * self._per_package[accelerator],
            market=market,
            usd_per_hour=_usd_per_hour(draft, count),
            as_of=draft.as_of,
            source=draft.source,
            available_units=_whole(available, "available_units", least=0) if available else None,
            note=draft.note,
        )

    def _accelerator(self, text: str) -> str:
        name = self._canonical.get(text)
        if name is not None:
            return name
        if text not in self._unknown:
            name = self._names.get(_folded(text)) or self._names.get(_squashed(text))
            if name is not None:
                self._canonical[text] = name
                return name
            near = difflib.get_close_matches(_folded(text), self._names, n=3, cutoff=0.6)
            close = sorted({self._names[spelling] for spelling in near})
            hint = f"; did you mean {' or '.join(close)}?" if close else ""
            said = f"accelerator {text!r} is not in the catalog" if text.strip() else "accelerator: empty"
            self._unknown[text] = said + (hint if text.strip() else "")
        raise _BadRow(self._unknown[text])


def _name_index(accelerators: Mapping[str, Accelerator]) -> dict[str, str]:
    index = {_folded(name): name for name in accelerators}
    for name, accelerator in accelerators.items():
        for alias in accelerator.aliases:
            index.setdefault(_folded(alias), name)
    for spelling, name in list(index.items()):
        index.setdefault(_squashed(spelling), name)
    return index


def _folded(text: str) -> str:
    return text.strip().lower()


def _squashed(text: str) -> str:
    return _folded(text).replace("-", "").replace("_", "").replace(" ", "")


def _usd_per_hour(draft: Draft, count: int) -> float:
    whole = _price(draft.usd_per_hour, "usd_per_hour") if draft.usd_per_hour else None
    each = (
        _price(draft.usd_per_accelerator_hour, "usd_per_accelerator_hour") if draft.usd_per_accelerator_hour else None
    )
    if whole is None and each is None:
        raise _BadRow("no price: usd_per_hour or usd_per_accelerator_hour is needed")
    if whole is None and each is not None:
        return each * count
    if whole is not None and each is not None and not math.isclose(whole, each * count, rel_tol=_ROUNDING):
        raise _BadRow(f"usd_per_hour {whole:g} is not {count} x usd_per_accelerator_hour {each:g}")
    if whole is not None and not draft.accelerator_count:
        raise _BadRow("accelerator_count: empty, and usd_per_hour is of the whole machine")
    return whole or 0.0


def _price(text: str, column: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise _BadRow(f"{column} {text!r} is not a number") from None
    if not math.isfinite(value):
        raise _BadRow(f"{column} {text!r} is not a finite number")
    if value <= 0:
        raise _BadRow(f"{column} {text} is no price: it must be above zero")
    return value


def _whole(text: str, column: str, *, least: int) -> int:
    try:
        value = float(text)
    except ValueError:
        raise _BadRow(f"{column} {text!r} is not a whole number") from None
    if not value.is_integer():
        raise _BadRow(f"{column} {text!r} is not a whole number")
    if value < least:
        raise _BadRow(f"{column} {text} is below {least}")
    return int(value)


def _flag_spot(offers: Sequence[Offer]) -> Iterator[Offer]:
    """Yield the offers, with a remark on spot prices that are not below the same machine's on-demand price."""
    listed: dict[tuple[str, str, str, str, int], float] = {}
    for offer in offers:
        if offer.market is Market.ON_DEMAND:
            place = _place(offer)
            listed[place] = min(offer.usd_per_hour, listed.get(place, math.inf))
    for offer in offers:
        above = offer.market is Market.SPOT and offer.usd_per_hour >= listed.get(_place(offer), math.inf)
        if above and SPOT_NOT_BELOW not in offer.note:
            yield replace(offer, note="; ".join(part for part in (offer.note, SPOT_NOT_BELOW) if part))
        else:
            yield offer


def _place(offer: Offer) -> tuple[str, str, str, str, int]:
    return offer.provider, offer.region, offer.instance_type, offer.accelerator, offer.accelerator_count


# Formats --------------------------------------------------------------------------------------------------------


def _own_row(cells: _Cells, stem: str) -> Iterable[Draft]:
    """Read a row of tokopt's own schema: one price in one market."""
    get = cells.get
    yield Draft(
        get("provider") or stem,
        get("region", ""),
        get("zone", ""),
        get("instance_type", ""),
        cells["accelerator"],
        get("accelerator_count", ""),
        get("market", ""),
        get("usd_per_hour", ""),
        get("usd_per_accelerator_hour", ""),
        get("currency", ""),
        get("as_of", ""),
        get("available_units", ""),
        get("source") or f"{stem}.csv",
        get("note", ""),
    )


FORMATS: tuple[ListFormat, ...] = (
    ListFormat(
        title="tokopt",
        needed=(
            frozenset({"accelerator", "accelerator_count", "usd_per_hour"}),
            frozenset({"accelerator", "usd_per_accelerator_hour"}),
        ),
        columns=Draft._fields,
        read_row=_own_row,
    ),
)


def _detect(columns: Iterable[str], said: str) -> ListFormat:
    """Return the format that a file's columns tell.

    Raises:
        CatalogError: No format has these columns, or one of them looks like a misspelt column.
    """
    names = set(columns)
    for layout in FORMATS:
        if not any(needed <= names for needed in layout.needed):
            continue
        for name in sorted(names - set(layout.columns)):
            near = difflib.get_close_matches(name, layout.columns, n=1, cutoff=0.8)
            if near and near[0] not in names:
                raise CatalogError(f"{said}: unknown column {name!r}; did you mean {near[0]}?")
        return layout
    needed = "; or ".join(" + ".join(sorted(some)) for layout in FORMATS for some in layout.needed)
    optional = ", ".join(name for name in Draft._fields if name not in frozenset().union(*FORMATS[0].needed))
    raise CatalogError(
        f"{said}: not a price list: columns {', '.join(sorted(names))}; needed: {needed}; optional: {optional}"
    )


_MARKETS = {"": Market.ON_DEMAND, **{market.value: market for market in Market}}
_ROUNDING = 0.01  # relative difference between a machine's price and its accelerators' that rounding explains
