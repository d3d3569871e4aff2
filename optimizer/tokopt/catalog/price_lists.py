"""Price lists: names and files to offers, with every row that was turned down and why.

A list is a provider of the embedded snapshot, `all` of them, an ownership profile, or a user's own file or directory of
files. Formats of files are told by their columns; `price_formats/` reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from tokopt.catalog.names import folded, name_index
from tokopt.catalog.ownership import is_owned_file, owned_file_offers, owned_offers
from tokopt.catalog.price_names import PriceNames
from tokopt.domain.accelerators import Accelerator
from tokopt.domain.offers import Offer, OwnershipProfile, PriceList, PriceSelection, RejectedRow
from tokopt.domain.sites import Site
from tokopt.errors import CatalogError, InputError, unknown_name

ALL_PROVIDERS = "all"
OWNERSHIP_PREFIX = "ownership-"
PRICE_SUFFIXES = (".csv", ".parquet", ".pq")
MOST_LISTED = 100  # rejected rows of one kind that are kept one by one, unless all are asked for
_EVERYTHING = PriceSelection()


def is_price_path(name: str) -> bool:
    """Return whether a name of a price list is a path of a file or directory."""
    return name.lower().endswith(PRICE_SUFFIXES) or "/" in name or "\\" in name


def read_price_lists(
    names: Sequence[str],
    *,
    directories: Sequence[Path],
    accelerators: Mapping[str, Accelerator],
    ownership: Mapping[str, OwnershipProfile],
    sites: Mapping[str, Site] | None = None,
    vocabulary: Callable[[], PriceNames] = PriceNames,
    rates: Mapping[str, float] | None = None,
    selection: PriceSelection = _EVERYTHING,
    most_listed: int | None = MOST_LISTED,
    strict: bool = True,
    offers: bool = True,
) -> PriceList:
    """Return the offers of the named lists together; of one machine, place and market the first is kept.

    Args:
        names: Providers (`aws`), `all`, ownership profiles (`ownership-hyperscaler`, `rental-3y`; a component profile
            at a site, `ownership-mine@virginia`), or paths of CSV or Parquet files, of directories of
            them, and of owned files (`./mine.yaml`).
        directories: Directories of `<provider>.csv`; a later one's file replaces an earlier one's.
        accelerators: Catalog of accelerators; names and aliases are matched regardless of case.
        ownership: Ownership profiles by name.
        sites: Sites by name, for component profiles; the first is the default.
        vocabulary: Called for what price lists call things, once a file is read.
        rates: Currency -> US dollars for one. [USD]
        selection: Which offers are wanted; rules that compare prices see the others too.
        most_listed: Most rejected rows of one kind that are kept one by one; None = all.
        strict: Raise where a list has no usable price, or a currency without a rate.
        offers: Make a record of every offer of a file; without, they are only counted, in `files`.

    Raises:
        InputError: A name that is no list, with the nearest ones; a currency that needs a rate.
        CatalogError: A file that is missing, empty, lacks columns, or of which no row can be used.
    """
    if not names:
        raise InputError("price lists: none named; name a provider, an ownership profile, a file or a directory")
    snapshot = {path.stem: path for directory in directories for path in sorted(directory.glob("*.csv"))}
    wanted = [name for name in dict.fromkeys(names) if name not in snapshot or ALL_PROVIDERS not in names]
    files: list[tuple[str, list[tuple[Path, str]]]] = []
    owned = _Owned(selection)
    for name in wanted:
        if is_owned_file(name):
            owned.add(name, *owned_file_offers(name, accelerators=accelerators, sites=sites or {}))
        elif is_price_path(name):
            files.append((name, []))
        elif name == ALL_PROVIDERS:
            files.append((name, [(snapshot[provider], f"{provider}.csv") for provider in sorted(snapshot)]))
        elif name in snapshot:
            files.append((name, [(snapshot[name], f"{name}.csv")]))
        else:
            profile, site = _profile_and_site(name, snapshot, ownership, sites or {})
            owned.add(name, *owned_offers(profile, accelerators=accelerators, sites=sites or {}, site=site))
    if not files:
        return PriceList(
            name=",".join(wanted),
            offers=tuple(owned.offers),
            rejected=tuple(owned.rejected),
            rejected_counts=_counts(owned.rejected),
            as_of=date_range(owned.offers),
        )
    from tokopt.catalog.price_formats.reading import PriceReader

    reader = PriceReader(
        accelerators, vocabulary(), rates=rates or {}, selection=selection, most_listed=most_listed, strict=strict
    )
    for name, paths in files:
        reader.read(name, paths)
    found = reader.found(offers=offers)
    together = (*found.offers, *owned.offers)
    return PriceList(
        name=",".join(wanted),
        offers=together,
        rejected=(*found.rejected, *owned.rejected),
        rejected_counts=found.rejected_counts | _counts(owned.rejected),
        files=found.files,
        as_of=date_range(together),
    )


def date_range(offers: Iterable[Offer]) -> str:
    """Return the oldest and the newest date of offers: `2026` or `2026-06-18 to 2026-08-03`."""
    dates = sorted({offer.as_of for offer in offers if offer.as_of})
    return dates[0] if len(dates) == 1 else " to ".join(dates[:1] + dates[-1:])


def _counts(rejected: Iterable[RejectedRow]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for row in rejected:
        counts[row.kind or row.reason] = counts.get(row.kind or row.reason, 0) + 1
    return counts


class _Owned:
    """Collects offers of ownership profiles, which are not read from price files."""

    def __init__(self, selection: PriceSelection) -> None:
        self.offers: list[Offer] = []
        self.rejected: list[RejectedRow] = []
        self._keys: set[tuple[object, ...]] = set()
        self._selection = selection

    def add(self, name: str, offers: Sequence[Offer], rejected: Sequence[RejectedRow]) -> None:
        """Take the offers of one profile; of one machine, place and market the first is kept."""
        doubles = []
        for offer in offers:
            key = (offer.provider, offer.region, offer.zone, offer.instance_type, offer.accelerator, offer.market)
            if key in self._keys:
                where = " ".join(filter(None, (offer.provider, offer.instance_type, offer.region, offer.market)))
                doubles.append(RejectedRow(file=offer.source, line=0, reason=f"duplicate: {where} already has a price"))
                continue
            self._keys.add(key)
            self.offers.append(offer)
        self.rejected += [*rejected, *doubles]
        if len(doubles) == len(offers):
            turned_down = [*rejected, *doubles]
            raise nothing_left(name, len(turned_down), turned_down[0] if turned_down else None)
        self.offers = [o for o in self.offers if not self._selection.accelerators or self._wanted(o)]

    def _wanted(self, offer: Offer) -> bool:
        return offer.accelerator in self._selection.accelerators


def nothing_left(name: str, rejected: int, first: RejectedRow | None) -> CatalogError:
    """Return the error for a list of which no price can be used."""
    if first is None:
        return CatalogError(f"{name}: no prices")
    line = f"line {first.line}: " if first.line else ""
    return CatalogError(f"{name}: no price can be used, {rejected} rejected; the first: {line}{first.reason}")


def _profile_and_site(
    name: str, snapshot: Iterable[str], ownership: Mapping[str, OwnershipProfile], sites: Mapping[str, Site]
) -> tuple[OwnershipProfile, Site | None]:
    stem, at, place = name.partition("@")
    profile = ownership.get(stem.removeprefix(OWNERSHIP_PREFIX)) or ownership.get(stem)
    if profile is None:
        owned = (f"{OWNERSHIP_PREFIX}{other}" for other in ownership)
        error = unknown_name("price list", name, {*snapshot, *ownership, *owned, ALL_PROVIDERS})
        raise InputError(f"{error} (a file needs a path that ends in .csv or .parquet; a directory, one with a /)")
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
