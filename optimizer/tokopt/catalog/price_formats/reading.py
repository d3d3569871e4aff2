"""Files to offers: tells formats by columns, and walks drafts through the rules."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tokopt.catalog.price_formats import checks, focus, gpuhunt, own, rules, skypilot
from tokopt.catalog.price_formats.drafts import BATCH_ROWS, NO_ACCELERATOR, Reading
from tokopt.catalog.price_formats.tables import PriceTable, open_table, price_files, readable, size
from tokopt.catalog.price_lists import is_price_path, nothing_left
from tokopt.catalog.price_names import PriceNames
from tokopt.domain.accelerators import Accelerator
from tokopt.domain.offers import Market, Offer, PriceFile, PriceSelection, RejectedRow
from tokopt.errors import CatalogError, InputError

if TYPE_CHECKING:
    import polars as pl

_GENERIC_STEMS: Final = frozenset({"vms"})  # files that are named after their provider by their directory
_SHOW_CELL: Final = frozenset({checks.UNKNOWN, checks.NEEDS_RATE})  # kinds that are counted by their cell
_MOST_KINDS: Final = 500  # beyond, rows are counted without their cell
_SLICE_ROWS: Final = 50_000
_TEXTS: Final = ("provider", "region", "zone", "instance_type", "accelerator", "as_of", "source", "note")
_MARKETS: Final = {market.value: market for market in Market}
_NOT_READ: Final = "not read: "


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceFormat:
    """One kind of price file."""

    title: str
    matches: Callable[[Collection[str]], bool]  # folded names of columns
    drafts: Callable[[PriceTable, Reading], Iterator[pl.DataFrame]]
    needed: str  # columns, in words
    crawled: bool = False  # lists that programs gather from clouds' price pages, with the faults of those


FORMATS: Final = (
    PriceFormat(
        title=own.TITLE,
        matches=own.matches,
        drafts=own.drafts,
        needed="; or ".join(" + ".join(sorted(some)) for some in own.NEEDED[:2]),
    ),
    PriceFormat(
        title=skypilot.TITLE,
        matches=skypilot.matches,
        drafts=skypilot.drafts,
        needed=" + ".join(sorted(skypilot.NEEDED)),
        crawled=True,
    ),
    PriceFormat(
        title=gpuhunt.TITLE,
        matches=gpuhunt.matches,
        drafts=gpuhunt.drafts,
        needed=" + ".join(sorted(gpuhunt.NEEDED)),
        crawled=True,
    ),
    PriceFormat(
        title=focus.TITLE,
        matches=focus.matches,
        drafts=focus.drafts,
        needed=" + ".join(sorted(focus.NEEDED)) + f" + one of {', '.join(sorted(focus.PRICES))}",
    ),
)


_TITLES: Final = frozenset(layout.title for layout in FORMATS)


def detected(table: PriceTable) -> PriceFormat:
    """Return the format that a file's columns tell.

    Raises:
        CatalogError: No format has these columns.
    """
    for layout in FORMATS:
        if layout.matches(table.columns):
            return layout
    shown = ", ".join(sorted(name for name in table.names if name)[:20])
    needed = "; or ".join(f"{layout.needed} ({layout.title})" for layout in FORMATS)
    raise CatalogError(f"{table.said}: not a price list: columns {shown[:400]}; needed: {needed}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What was read."""

    offers: tuple[Offer, ...]
    rejected: tuple[RejectedRow, ...]
    rejected_counts: dict[str, int]
    files: tuple[PriceFile, ...]


@dataclass(slots=True, kw_only=True)
class _File:
    """Counts of one file while it is read."""

    said: str
    title: str
    rows: int
    passed_over: dict[str, int]
    rejected: dict[str, int] = field(default_factory=dict)
    listed: dict[str, list[RejectedRow]] = field(default_factory=dict)


class PriceReader:
    """Reads price files, and compares what is in them once all are read."""

    def __init__(
        self,
        accelerators: Mapping[str, Accelerator],
        names: PriceNames,
        *,
        rates: Mapping[str, float],
        selection: PriceSelection,
        most_listed: int | None,
        strict: bool,
    ) -> None:
        self._names = names
        self._accelerators = checks.AcceleratorNames(accelerators, names)
        self._rates = rates
        self._selection = selection
        self._most_listed = most_listed
        self._strict = strict
        self._files: list[_File] = []
        self._prices: list[pl.DataFrame] = []
        self._pending: dict[PriceFormat, list[pl.DataFrame]] = {}
        self._kept = 0  # prices, before they are compared with each other
        self._hints: dict[str, str] = {}

    def read(self, name: str, paths: Sequence[tuple[Path, str]]) -> None:
        """Read the files of one list; without paths, the name is a path.

        Raises:
            CatalogError: A file that cannot be read, or nothing that can be used.
            InputError: A currency that needs a rate.
        """
        of_user = is_price_path(name)
        directory = of_user and Path(name).is_dir()
        first, kept = len(self._files), self._kept
        for path, said in paths or price_files(Path(name), name):
            try:
                self._read_file(path, said)
            except CatalogError as error:
                if not directory:
                    raise
                self._files.append(_File(said=said, title=f"{_NOT_READ}{error}", rows=0, passed_over={}))
        self._check_pending()
        self._raise_if_useless(name, self._files[first:], self._kept - kept)

    def _raise_if_useless(self, name: str, files: Sequence[_File], kept: int) -> None:
        listed = [row for file in files for rows in file.listed.values() for row in rows]
        needing = [row for row in listed if checks.is_missing_rate(row.kind)]
        if needing and self._strict:
            row = min(needing, key=lambda row: row.line)
            raise InputError(f"{row.file}: line {row.line}: {row.reason}")
        if not kept and self._strict:
            if not listed and len(files) == 1 and not files[0].rows and files[0].title in _TITLES:
                raise CatalogError(f"{name}: empty: a header row and at least one price are needed")
            if not listed and files and all(file.title.startswith(_NOT_READ) for file in files):
                raise CatalogError(f"{name}: no price file in it: {files[0].title.removeprefix(_NOT_READ)}")
            about = {what: rows for file in files for what, rows in file.passed_over.items()}
            if not listed and about:
                said = ", ".join(f"{rows:,} rows with {what}" for what, rows in about.items())
                raise CatalogError(f"{name}: no prices of accelerators in it: {said}")
            first = min(listed, key=lambda row: row.line) if listed else None
            raise nothing_left(name, sum(sum(file.rejected.values()) for file in files), first)

    def _read_file(self, path: Path, said: str) -> None:
        import polars as pl

        table = open_table(path, said)
        layout = detected(table)
        reading = Reading(provider=self._provider(path), names=self._names, rates=self._rates)
        number = len(self._files)
        with readable(said):
            rows, overfull = size(table)
            file = _File(said=said, title=layout.title, rows=rows, passed_over=reading.passed_over)
            self._files.append(file)
            for batch in layout.drafts(table, reading):
                drafts = batch.filter(~pl.col("line").is_in(overfull)) if overfull else batch
                self._take(drafts.with_columns(pl.lit(number, dtype=pl.Int32).alias("file")), layout)
            if overfull:
                lines = pl.DataFrame({"line": overfull}, schema={"line": pl.Int64})
                self._turn_down(file, lines.with_columns(fault=pl.lit(checks.OVERFULL), cell=pl.lit("")))
        reading.pass_over(NO_ACCELERATOR, rows - reading.seen)

    def _take(self, drafts: pl.DataFrame, layout: PriceFormat) -> None:
        """Take drafts, and check them once there are many: small files are checked together."""
        self._pending.setdefault(layout, []).append(drafts)
        if sum(frame.height for frame in self._pending[layout]) >= BATCH_ROWS:
            self._check_pending()

    def _check_pending(self) -> None:
        import polars as pl

        for layout, drafts in self._pending.items():
            good, bad = checks.checked(pl.concat(drafts), layout.title, self._accelerators, self._rates)
            for rows in bad.partition_by("file", maintain_order=True):
                self._turn_down(self._files[rows["file"][0]], rows)
            self._kept += good.height
            if self._selection.accelerators:
                good = good.filter(pl.col("accelerator").is_in(self._selection.accelerators))
            # Texts repeat: as categories a price takes a tenth of the memory.
            texts = pl.col(*_TEXTS, "market").cast(pl.Categorical)
            self._prices.append(good.with_columns(texts, pl.lit(layout.crawled).alias("crawled")))
        self._pending = {}

    def _provider(self, path: Path) -> str:
        """Return the provider that a file is named after, by itself or by its directory."""
        stem = path.stem.lower()
        return self._names.provider(path.resolve().parent.name if stem in _GENERIC_STEMS else stem)

    def _turn_down(self, file: _File, rows: pl.DataFrame) -> None:
        """Count rejected rows by kind, and keep some of each one by one."""
        import polars as pl

        if not rows.height:
            return
        shown = pl.when(pl.col("fault").is_in(_SHOW_CELL)).then(pl.col("cell")).otherwise(pl.lit("")).alias("about")
        most = rows.height if self._most_listed is None else self._most_listed
        groups = rows.group_by("fault", shown, maintain_order=True).agg(
            pl.len().alias("rows"), pl.col("line").head(most), pl.col("cell").head(most)
        )
        for fault, about, count, lines, cells in groups.iter_rows():
            kind = fault.replace("{}", about) if about else re.sub(r" *'?\{\}'?", "", fault)
            if kind not in file.rejected and len(file.rejected) >= _MOST_KINDS:
                kind = re.sub(r" *'?\{\}'?", "", fault)
            file.rejected[kind] = file.rejected.get(kind, 0) + count
            listed = file.listed.setdefault(kind, [])
            room = len(lines) if self._most_listed is None else self._most_listed - len(listed)
            for line, cell in list(zip(lines, cells, strict=True))[: max(room, 0)]:
                reason = fault.replace("{}", cell)
                if fault == checks.UNKNOWN:
                    reason += self._hint(cell)
                listed.append(RejectedRow(file=file.said, line=line, reason=reason, kind=kind))

    def _hint(self, name: str) -> str:
        if name not in self._hints:
            self._hints[name] = self._accelerators.nearest(name) if len(self._hints) < _MOST_KINDS else ""
        return self._hints[name]

    def found(self, *, offers: bool = True) -> Found:
        """Return the offers of everything that was read, each machine, place and market once.

        Args:
            offers: Make a record of every offer; without, they are only counted.
        """
        import polars as pl

        prices = pl.concat(self._prices) if self._prices else None
        self._prices = []  # what is left of them is in the offers
        flagged: dict[int, dict[str, int]] = {}
        if prices is not None and prices.height:
            prices, doubles = rules.without_doubles(prices)
            prices, reduced = rules.without_reduced_rates(prices)
            for rows in (doubles, reduced):
                for some in rows.with_columns(cell=pl.lit("")).partition_by("file", maintain_order=True):
                    self._turn_down(self._files[some["file"][0]], some)
            prices = rules.with_flags(prices)
            counted = prices.select("file", "flags").explode("flags").drop_nulls().group_by("file", "flags").len()
            for number, flag, count in counted.sort("file", "flags").iter_rows():
                flagged.setdefault(number, {})[flag] = count
        files = tuple(self._summary(n, file, prices, flagged.get(n, {})) for n, file in enumerate(self._files))
        counts: dict[str, int] = {}
        for file in self._files:
            for kind, rejected in file.rejected.items():
                counts[kind] = counts.get(kind, 0) + rejected
        listed = [row for file in self._files for rows in file.listed.values() for row in rows]
        place = {file.said: n for n, file in enumerate(self._files)}
        return Found(
            offers=tuple(self._offers(prices)) if offers and prices is not None else (),
            rejected=tuple(sorted(listed, key=lambda row: (place[row.file], row.line))),
            rejected_counts=counts,
            files=files,
        )

    def _summary(self, number: int, file: _File, prices: pl.DataFrame | None, flagged: dict[str, int]) -> PriceFile:
        import polars as pl

        dates: list[str] = []
        accelerators: dict[str, int] = {}
        offers = undated = 0
        if prices is not None:
            mine = prices.filter(pl.col("file") == number)
            offers, undated = mine.height, int((mine["as_of"] == "").sum())
            dates = mine.filter(pl.col("as_of") != "")["as_of"].cast(pl.String).unique().sort().to_list()
            accelerators = dict(
                mine.group_by(pl.col("accelerator").cast(pl.String)).len().sort("accelerator").iter_rows()
            )
        return PriceFile(
            file=file.said,
            format=file.title,
            rows=file.rows,
            offers=offers,
            rejected=dict(file.rejected),
            passed_over=dict(file.passed_over),
            flagged=flagged,
            accelerators=accelerators,
            oldest=dates[0] if dates else "",
            newest=dates[-1] if dates else "",
            undated=undated,
        )

    def _offers(self, prices: pl.DataFrame) -> Iterator[Offer]:
        """Yield offers, with one text object for all cells that are alike."""
        import polars as pl

        wanted = prices
        for column, values in (("region", self._selection.regions), ("market", self._selection.markets)):
            if values:
                wanted = wanted.filter(pl.col(column).is_in(values))
        same: dict[str, str] = {}
        lists: dict[tuple[str, ...], tuple[str, ...]] = {(): ()}
        for start in range(0, wanted.height, _SLICE_ROWS):
            some = wanted.slice(start, _SLICE_ROWS)
            texts = ([same.setdefault(cell, cell) for cell in some[name].to_list()] for name in _TEXTS)
            flags = [lists.setdefault(found, found) for found in map(tuple, some["flags"].to_list())]
            others = (some[name].to_list() for name in ("count", "market", "usd_per_hour", "available"))
            for cells in zip(*texts, *others, flags, strict=True):
                yield _offer(*cells)


def _offer(
    provider: str, region: str, zone: str, machine: str, accelerator: str, as_of: str, source: str, note: str,
    count: int, market: str, usd_per_hour: float, available: int | None, flags: tuple[str, ...],
) -> Offer:  # fmt: skip
    return Offer(
        provider=provider,
        region=region,
        zone=zone,
        instance_type=machine,
        accelerator=accelerator,
        accelerator_count=count,
        market=_MARKETS[market],
        usd_per_hour=usd_per_hour,
        as_of=as_of,
        source=source,
        available_units=available,
        note=note,
        flags=flags,
    )
