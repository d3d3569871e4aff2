"""Rows of a trace as a file has them, to checked arrays: times from the first request on, whole tokens, hashes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tokopt.catalog.trace_formats import DEFAULT_BLOCK_TOKENS, TraceFormat
from tokopt.domain.traces import TraceChunk, taken
from tokopt.errors import CatalogError

if TYPE_CHECKING:
    import polars as pl

LEAST_TOKENS, TOO_MANY_TOKENS = 1, 1_000_000_000
LATEST_S = 1e11  # a time of more seconds is in another unit: no date that can be meant is so far from 1970
FIRST_YEAR, LAST_YEAR = 1970, 2200
MOST_CLASSES = 256
NS_PER_S = 1e9
_DAY, _CLOCK = "%Y-%m-%d", "%H:%M:%S%.f"
PLAIN_DATES = (f"{_DAY} {_CLOCK}", f"{_DAY} {_CLOCK}%#z")
DATES = (*PLAIN_DATES, f"{_DAY}T{_CLOCK}Z", f"{_DAY}T{_CLOCK}%#z", f"{_DAY}T{_CLOCK}")
TIME_HELP = "seconds from 0 on, or dates like 2023-11-16 18:17:03.98, are needed"
TOKENS_HELP = "whole tokens, at least one each way and below 1e9, are needed"
UNSORTED_HELP = (
    "requests must come in the order of their times: sort the file, or let it be sorted (--allow-unsorted, "
    "allow_unsorted=True)"
)
_ODD = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Some rows of a file, as they stand there; empty cells are null."""

    first: int  # number of the first of them in the file
    columns: dict[str, pl.Series]  # ours -> cells
    numbers: NDArray[np.int64] | None = None  # of the rows in the file, where they do not follow one another
    hashes: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None  # how many each row has, and all; or a column


class RowChecker:
    """Checks the rows of one file in their order, and counts them.

    Attributes:
        class_names: Names of classes by number, as far as read.
        requests: Requests so far.
        failures: Rows that were left out, as requests without an answer, so far.
        starts_at: Date of the first request, where the trace has dates.
        block_tokens: Tokens of a hashed block; 0 = no hashes.
    """

    def __init__(self, path: Path, form: TraceFormat, *, allow_unsorted: bool) -> None:
        self.class_names: list[str] = []
        self.requests = 0
        self.failures = 0
        self.starts_at: datetime | None = None
        self.block_tokens = 0
        self._path = path
        self._form = form
        self._allow_unsorted = allow_unsorted
        self._class_numbers: dict[str, int] = {}
        self._origin: float | int | None = None
        self._last: float | int | None = None
        self._dates: bool | None = None
        self._pattern = DATES[0]

    def checked(self, rows: Rows) -> TraceChunk:
        """Return the rows as arrays.

        Raises:
            CatalogError: The first row that cannot be right, with its number and what is allowed.
        """
        import polars as pl

        try:
            return self._arrays(rows)
        except pl.exceptions.PolarsError as error:  # columns of types that hold no numbers, dates or lists of them
            why = str(error).partition("\n")[0]
            raise CatalogError(f"{self._path}: rows from {rows.first} on: not a table of requests: {why}") from None

    def _arrays(self, rows: Rows) -> TraceChunk:
        cells = rows.columns
        times = self._times(rows)
        inputs, outputs = (self._numbers(rows, name) for name in ("input_tokens", "output_tokens"))
        failed = (outputs == 0) & (inputs >= 0) & (inputs < TOO_MANY_TOKENS) & self._form.drops_unanswered
        self._refuse_tokens(rows, inputs, outputs, failed)
        hash_start, hashes = self._hashes(rows, inputs)
        chunk = TraceChunk(
            time_s=np.zeros(times.size),
            input_tokens=inputs.astype(np.int64),
            output_tokens=outputs.astype(np.int64),
            classes=self._classes(cells["class"], ~failed)
            if "class" in cells
            else np.zeros(times.size, dtype=np.int64),
            hash_start=hash_start,
            hashes=hashes,
            block_tokens=self.block_tokens,
        )
        kept = np.flatnonzero(~failed)
        self.failures += times.size - kept.size
        self.requests += kept.size
        if kept.size < times.size:
            chunk = taken(chunk, kept)
        chunk.time_s[:] = self._seconds(rows, times[kept], kept)
        return chunk

    def wrong(self, rows: Rows, place: int, what: str) -> CatalogError:
        """Return the error of a row."""
        number = rows.first + place if rows.numbers is None else int(rows.numbers[place])
        return CatalogError(f"{self._path}: row {number}: {what}")

    def _times(self, rows: Rows) -> NDArray[np.float64] | NDArray[np.int64]:
        """Return times in ticks, or dates in nanoseconds."""
        import polars as pl

        cells = rows.columns["time"]
        if self._dates is None:
            self._dates = cells.dtype.is_temporal() or (cells.dtype == pl.String and _is_date(cells))
        if not self._dates:
            ticks = self._numbers(rows, "time")
            sound = (ticks >= 0.0) & (ticks < LATEST_S * self._form.ticks_per_s)
            if not sound.all():
                place = int(np.argmin(sound))
                late = ": that is too late to be in seconds" if ticks[place] > 0 and np.isfinite(ticks[place]) else ""
                raise self.wrong(rows, place, f"time {ticks[place]:g}{late}: {TIME_HELP}")
            return ticks
        moments, self._pattern = _moments(cells, self._pattern)
        if moments.null_count():
            place = int(moments.is_null().arg_max() or 0)
            if cells[place] is None:
                raise self.wrong(rows, place, f"time nan: {TIME_HELP}")
            raise self.wrong(rows, place, f"not a table of numbers: time is {_shown(cells[place])}; {TIME_HELP}")
        return moments.to_numpy()

    def _numbers(self, rows: Rows, name: str) -> NDArray[np.float64]:
        """Return cells as numbers, NaN where there is none."""
        import polars as pl

        cells = rows.columns[name]
        if cells.dtype == pl.String:
            values = cells.str.strip_chars().cast(pl.Float64, strict=False)
        elif cells.dtype.is_numeric():
            values = cells.cast(pl.Float64)
        else:
            raise CatalogError(f"{self._path}: not a table of numbers: {name} is {cells.dtype}")
        strange = (values.is_null() & cells.is_not_null()).arg_max()
        if strange is not None and values[strange] is None and cells[strange] is not None:
            raise self.wrong(rows, strange, f"not a table of numbers: {name} is {_shown(cells[strange])}")
        return values.fill_null(float("nan")).to_numpy()

    def _refuse_tokens(
        self, rows: Rows, inputs: NDArray[np.float64], outputs: NDArray[np.float64], failed: NDArray[np.bool_]
    ) -> None:
        sound = failed | (_whole(inputs) & _whole(outputs))
        if not sound.all():
            place = int(np.argmin(sound))
            raise self.wrong(rows, place, f"{inputs[place]:g} tokens in, {outputs[place]:g} out: {TOKENS_HELP}")

    def _seconds(
        self, rows: Rows, times: NDArray[np.float64] | NDArray[np.int64], places: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Return times from the first request on; unless allowed, they must not go back."""
        if times.size == 0:
            return np.zeros(0)
        per_s = NS_PER_S if self._dates else self._form.ticks_per_s
        if not self._allow_unsorted:
            steps = np.diff(times, prepend=times[:1] if self._last is None else np.array([self._last], times.dtype))
            if (steps < 0).any():
                place = int(np.argmax(steps < 0))
                back = f"{-float(steps[place]) / per_s:g} s before the request above it"
                raise self.wrong(rows, int(places[place]), f"{back}: {UNSORTED_HELP}")
            self._last = times[-1].item()
        if self._origin is None:
            self._origin = times[0].item()
            if self._dates:
                self.starts_at = datetime.fromtimestamp(times[0].item() / NS_PER_S, tz=UTC)
        return np.asarray((times - self._origin) / per_s, dtype=float)

    def _classes(self, cells: pl.Series, kept: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Return the numbers of classes, in the order in which they were first met."""
        import polars as pl

        names = cells.cast(pl.String).fill_null("").str.strip_chars()
        for name in names.filter(pl.Series(kept)).unique(maintain_order=True):
            if name not in self._class_numbers:
                if len(self.class_names) == MOST_CLASSES:
                    raise CatalogError(f"{self._path}: more than {MOST_CLASSES} classes: is {name!r} one?")
                self._class_numbers[name] = len(self.class_names)
                self.class_names.append(name or "none")
        numbers = names.replace_strict(self._class_numbers, default=0, return_dtype=pl.Int64)
        return numbers.to_numpy().copy()

    def _hashes(self, rows: Rows, inputs: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return where each request's hashes start, and those of whole blocks."""
        none = np.zeros(inputs.size + 1, dtype=np.int64), np.zeros(0, dtype=np.int64)
        if rows.hashes is None and "hash_ids" not in rows.columns:
            return none
        self._settle_block(rows)
        counts, hashes = rows.hashes or self._lists(rows)
        longer = (counts - 1) * self.block_tokens >= np.nan_to_num(inputs, nan=np.inf)
        if (longer & (counts > 0)).any():
            place = int(np.argmax(longer & (counts > 0)))
            raise self.wrong(
                rows,
                place,
                f"{counts[place]:,} hashes of {self.block_tokens} tokens are more than {inputs[place]:,.0f} tokens in; "
                "a column block_tokens says how many tokens a hash is of",
            )
        start = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts)])
        place_in = np.arange(hashes.size) - np.repeat(start[:-1], counts)
        if not self._form.chained:
            hashes = _chained(hashes, start, place_in)
        whole = np.minimum(counts, np.nan_to_num(inputs).astype(np.int64) // self.block_tokens)
        kept = place_in < np.repeat(whole, counts)  # the last, partial block may be filled otherwise by another request
        return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(whole)]), hashes[kept]

    def _settle_block(self, rows: Rows) -> None:
        """Find how many tokens a hash is of: one number for the whole trace."""
        if "block_tokens" not in rows.columns:
            self.block_tokens = self._form.block_tokens
            return
        sizes = self._numbers(rows, "block_tokens")
        first = self.block_tokens or (sizes[0] if sizes.size and sizes[0] > 0 else DEFAULT_BLOCK_TOKENS)
        sound = _whole(sizes) & (sizes == first)
        if not sound.all():
            place = int(np.argmin(sound))
            raise self.wrong(rows, place, f"block_tokens {sizes[place]:g}: one whole number for all rows is needed")
        self.block_tokens = int(first)

    def _lists(self, rows: Rows) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return how many hashes each row has, and all of them."""
        import polars as pl

        cells = rows.columns["hash_ids"]
        if cells.dtype == pl.String:  # numbers with blanks between them, or a list as JSON has it
            pieces = cells.fill_null("").str.replace_all(r"[\[\],\s]+", " ").str.strip_chars().str.split(" ")
            pieces = pieces.list.eval(pl.element().filter(pl.element() != ""))
        elif isinstance(cells.dtype, pl.List):
            pieces = cells.fill_null([])
        else:
            raise CatalogError(f"{self._path}: hash_ids is {cells.dtype}: lists of whole numbers are needed")
        counts = pieces.list.len().to_numpy().astype(np.int64)
        if not counts.any():
            return counts, np.zeros(0, dtype=np.int64)
        flat = pieces.filter(pieces.list.len() > 0).explode()
        values = flat.cast(pl.Int64, strict=False)
        if values.null_count():
            strange = int(values.is_null().arg_max() or 0)
            place = int(np.searchsorted(np.cumsum(counts), strange, side="right"))
            raise self.wrong(rows, place, f"hash_ids has {_shown(flat[strange])}: whole numbers are needed")
        return counts, values.to_numpy().copy()


def _whole(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return where values are possible numbers of tokens."""
    sound: NDArray[np.bool_] = (values >= LEAST_TOKENS) & (values < TOO_MANY_TOKENS) & (values == np.floor(values))
    return sound


def _chained(hashes: NDArray[np.int64], start: NDArray[np.int64], place_in: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return hashes that name their block and all before it: h'_j = Σ_{i ≤ j} mix(h_i)·c^i modulo 2^64."""
    if hashes.size == 0:
        return hashes
    powers = np.cumprod(np.full(int(place_in.max()) + 1, _ODD, dtype=np.uint64))
    mixed = hashes.astype(np.uint64) + np.uint64(1)
    mixed = (mixed ^ (mixed >> np.uint64(31))) * np.uint64(0xD6E8FEB86659FD93)
    mixed ^= mixed >> np.uint64(32)
    sums = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(mixed * powers[place_in], dtype=np.uint64)])
    chained: NDArray[np.int64] = (sums[1:] - np.repeat(sums[start[:-1]], np.diff(start))).view(np.int64)
    return chained


def _is_date(cells: pl.Series) -> bool:
    """Return whether the first cell of a column of times is no number."""
    import polars as pl

    first = cells.drop_nulls().head(1).str.strip_chars()
    return first.len() == 1 and first.cast(pl.Float64, strict=False)[0] is None


def _moments(cells: pl.Series, likely: str) -> tuple[pl.Series, str]:
    """Return dates in nanoseconds since 1970, null where there is none, and the pattern that they follow.

    Without a zone, they are taken for UTC.

    Args:
        cells: Dates, or texts.
        likely: Pattern to be tried first.
    """
    import polars as pl

    if cells.dtype.is_temporal():
        years = cells.cast(pl.Datetime("us"), strict=False).dt.year()
        return _in_range(years, cells.cast(pl.Datetime("ns"), strict=False)), likely
    if cells.dtype != pl.String:
        return pl.Series([None] * cells.len(), dtype=pl.Int64), likely
    for pattern in dict.fromkeys((likely, *DATES)):
        read = cells.str.to_datetime(pattern, time_unit="ns", strict=False)
        if not read.null_count():
            return _in_range(cells.str.slice(0, 4).cast(pl.Int32, strict=False), read), pattern
    plain = cells.str.strip_chars().str.replace("T", " ", literal=True).str.replace(r" ?(?:UTC|Z)$", "+00:00")
    years = plain.str.extract(r"(\d{4,})").cast(pl.Int32, strict=False)
    local, zoned = (plain.str.to_datetime(pattern, time_unit="ns", strict=False) for pattern in PLAIN_DATES)
    found = local.fill_null(zoned.dt.replace_time_zone(None))
    return _in_range(years, found.fill_null(_inferred(plain)) if found.null_count() else found), likely


def _inferred(texts: pl.Series) -> pl.Series:
    """Return dates in whichever pattern the library takes the first for."""
    import polars as pl

    try:
        return texts.str.to_datetime(strict=False, time_unit="ns").dt.replace_time_zone(None)
    except pl.exceptions.PolarsError:
        return pl.Series([None] * texts.len(), dtype=pl.Datetime("ns"))


def _in_range(years: pl.Series, moments: pl.Series) -> pl.Series:
    """Return moments in nanoseconds, without those of years that 64 bits cannot hold."""
    import polars as pl

    sound = ((years >= FIRST_YEAR) & (years <= LAST_YEAR)).fill_null(value=False)
    ticks = moments.dt.timestamp("ns")
    return ticks if sound.all() else pl.select(pl.when(sound).then(ticks)).to_series()


def _shown(cell: object) -> str:
    text = str(cell)
    return repr(text if len(text) <= 40 else f"{text[:40]}…")
