"""Traces: files with a row a request, read stretch by stretch so that their length costs no memory, and written so."""

from __future__ import annotations

import contextlib
import gzip
import zlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from tokopt.catalog.trace_formats import TraceFormat, format_of
from tokopt.catalog.trace_lines import blocks, cell_rows, first_names, header, line_rows, why_unreadable
from tokopt.catalog.trace_rows import RowChecker, Rows
from tokopt.domain.traces import TraceChunk, joined, taken
from tokopt.errors import CatalogError, InputError

if TYPE_CHECKING:
    import polars as pl

REQUESTS = 65_536  # of a stretch
PARQUET, GZIP = b"PAR1", b"\x1f\x8b"
PACKED = {b"PK\x03\x04": "zip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"\xfd7zXZ": "xz"}
UNREADABLE = (OSError, EOFError, zlib.error)


class TraceFile:
    """A trace, told apart and ready to be read; made by `open_trace`.

    Attributes:
        path: The file.
        format: How it is written.
    """

    def __init__(self, path: Path, form: TraceFormat, chosen: dict[str, str], kind: str, allow_unsorted: bool) -> None:
        self.path = path
        self.format = form
        self._chosen = chosen
        self._kind = kind
        self._allow_unsorted = allow_unsorted
        self._checker = self._new_checker()
        self._share_read = 0.0

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of classes by number, as far as read; empty where a trace has none."""
        return tuple(self._checker.class_names)

    @property
    def requests(self) -> int:
        """Requests, as far as read."""
        return self._checker.requests

    @property
    def failures(self) -> int:
        """Rows that were left out because the request had no answer, as far as read."""
        return self._checker.failures

    @property
    def starts_at(self) -> datetime | None:
        """Date of the first request in UTC, where the trace has dates; after the first stretch."""
        return self._checker.starts_at

    @property
    def share_read(self) -> float:
        """Share of the file that has been read."""
        return self._share_read

    def chunks(self, requests: int = REQUESTS) -> Iterator[TraceChunk]:
        """Read the trace from its start, in stretches of at most `requests`.

        Only with `allow_unsorted` is all of it in memory at once, to be sorted.

        Raises:
            CatalogError: In one line with the row: not a request, or not in order. What was yielded before is sound.
        """
        self._checker, self._share_read = self._new_checker(), 0.0
        rows = self._parquet_rows() if self._kind == "parquet" else self._text_rows()
        checked = (self._checker.checked(each) for each in rows)
        for chunk in self._sorted(checked) if self._allow_unsorted else checked:
            for start in range(0, chunk.requests, requests):
                whole = start == 0 and chunk.requests <= requests
                yield chunk if whole else taken(chunk, np.arange(start, min(start + requests, chunk.requests)))
        if not self.requests:
            failed = f": all {self.failures:,} rows are requests without an answer" if self.failures else ""
            raise CatalogError(f"{self.path}: no rows{failed}")

    def _new_checker(self) -> RowChecker:
        return RowChecker(self.path, self.format, allow_unsorted=self._allow_unsorted)

    def _sorted(self, chunks: Iterable[TraceChunk]) -> Iterator[TraceChunk]:
        every = [chunk for chunk in chunks if chunk.requests]
        if not every:
            return
        whole = joined(every)
        ordered = taken(whole, np.argsort(whole.time_s, kind="stable"))
        earlier = float(ordered.time_s[0])
        ordered.time_s[:] -= earlier
        if self._checker.starts_at is not None:
            self._checker.starts_at += timedelta(seconds=earlier)
        yield ordered

    def _text_rows(self) -> Iterator[Rows]:
        """Yield the rows of lines, a block of the file at a time."""
        size = max(self.path.stat().st_size, 1)
        try:
            with self.path.open("rb") as raw, _unpacked(raw, self._kind) as stream:
                first = 1
                if not self._as_lines:
                    names, first = header(self.path, stream)
                for block in blocks(self.path, stream):
                    self._share_read = min(raw.tell() / size, 1.0)
                    lines = block.count(b"\n")
                    if self._as_lines:
                        yield line_rows(self.path, block, first, self._chosen)
                    else:
                        yield cell_rows(self.path, block, first, names, self._chosen)
                    first += lines
        except UNREADABLE as error:
            raise CatalogError(f"{self.path}: cannot be read: {why_unreadable(error)}") from None

    @property
    def _as_lines(self) -> bool:
        return self._kind.startswith("json")

    def _parquet_rows(self) -> Iterator[Rows]:
        import polars as pl

        first = 1
        try:
            table = pl.scan_parquet(self.path, glob=False)
            total = max(int(table.select(pl.len()).collect().item()), 1)
            chosen = table.select([pl.col(theirs).alias(ours) for ours, theirs in self._chosen.items()])
            for frame in chosen.collect_batches(chunk_size=REQUESTS, maintain_order=True, lazy=True):
                yield Rows(first=first, columns={name: frame[name] for name in frame.columns})
                first += frame.height
                self._share_read = min(first / total, 1.0)
        except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
            raise CatalogError(f"{self.path}: cannot be read: {why_unreadable(error)}") from None


def open_trace(path: str | Path, *, allow_unsorted: bool = False) -> TraceFile:
    """Return a trace whose format is told by its columns or keys: Azure's, Mooncake's, BurstGPT's, ours and others.

    CSV or JSON lines, also packed with gzip, or Parquet.

    Args:
        path: The file.
        allow_unsorted: Sort requests by their times, with all of them in memory, instead of refusing what goes back.

    Raises:
        CatalogError: It cannot be read, or is no table of requests.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise CatalogError(f"{path}: is a directory; a file is needed")
        if path.exists() and not path.is_file():
            raise CatalogError(f"{path}: is no regular file, which is needed to be read more than once")
        with path.open("rb") as raw:
            head = raw.read(8)
            if head.startswith(PARQUET):
                names, kind = _parquet_names(path), "parquet"
            else:
                packed = next((how for mark, how in PACKED.items() if head.startswith(mark)), None)
                if packed is not None:
                    raise CatalogError(f"{path}: packed with {packed}: unpack it, or pack it with gzip")
                raw.seek(0)
                kind = "gzip" if head.startswith(GZIP) else "plain"
                with _unpacked(raw, kind) as stream:
                    names, is_json = first_names(path, stream)
                kind = f"json {kind}" if is_json else kind
    except (*UNREADABLE, ValueError) as error:
        raise CatalogError(f"{path}: cannot be read: {why_unreadable(error)}") from None
    form, chosen = format_of(path, names, as_lines=kind.startswith("json"))
    return TraceFile(path, form, chosen, kind, allow_unsorted)


def _unpacked(raw: IO[bytes], kind: str) -> IO[bytes]:
    """Return a stream of the text; closing it is as good as closing the file."""
    return gzip.GzipFile(fileobj=raw) if kind.endswith("gzip") else raw  # type: ignore[return-value]


def _parquet_names(path: Path) -> list[str]:
    import polars as pl

    try:
        return pl.scan_parquet(path, glob=False).collect_schema().names()
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise CatalogError(f"{path}: cannot be read: {why_unreadable(error)}") from None


def write_trace(path: str | Path, chunks: Iterable[TraceChunk], *, class_names: Sequence[str] = ()) -> int:
    """Write a trace in tokopt's own columns, stretch by stretch; until it is done, the old file stays.

    Args:
        path: CSV, packed with gzip where it ends in `.gz`.
        chunks: The trace. Its first stretch says whether there are hashes.
        class_names: Names of classes by number; none = no column of them.

    Returns:
        How many requests were written.

    Raises:
        InputError: It cannot be written.
    """
    target = Path(path).resolve()
    if not target.name.lower().endswith((".csv", ".csv.gz")):
        raise InputError(f"{path}: traces are written as CSV: a name that ends in .csv or .csv.gz is needed")
    partial = target.with_name(f"{target.name}.partial")
    written = 0
    try:
        with partial.open("wb") as raw, _packed(raw, target) as stream:
            hashed = False
            for number, chunk in enumerate(chunks):
                hashed = hashed or (number == 0 and chunk.block_tokens > 0)
                frame = _own_columns(chunk, class_names, hashed=hashed)
                frame.write_csv(stream, include_header=number == 0)
                written += chunk.requests
        if not written:
            raise InputError(f"{path}: a trace without requests is not written")
        partial.replace(target)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from None
    finally:  # whatever stops it, an interrupt too: no part of a file stays
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
    return written


def _packed(raw: IO[bytes], target: Path) -> IO[bytes]:
    if target.suffix.lower() != ".gz":
        return raw
    return gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0)  # type: ignore[return-value]


def _own_columns(chunk: TraceChunk, class_names: Sequence[str], *, hashed: bool) -> pl.DataFrame:
    """Return a stretch as a table in tokopt's own columns."""
    import polars as pl

    frame = pl.DataFrame(
        {"time_s": chunk.time_s, "input_tokens": chunk.input_tokens, "output_tokens": chunk.output_tokens}
    )
    if class_names:
        names = pl.Series("class", class_names, dtype=pl.String)
        frame = frame.with_columns(names.gather(chunk.classes).alias("class"))
    if not hashed:
        return frame
    row = np.repeat(np.arange(chunk.requests), np.diff(chunk.hash_start))
    texts = pl.DataFrame({"row": row, "hash_ids": chunk.hashes}).group_by("row", maintain_order=True)
    joined_up = texts.agg(pl.col("hash_ids").cast(pl.String).str.join(" "))
    numbered = frame.with_row_index("row").with_columns(pl.col("row").cast(pl.Int64))
    found = numbered.join(joined_up, on="row", how="left", maintain_order="left").drop("row")
    return found.with_columns(pl.lit(chunk.block_tokens).alias("block_tokens"))
