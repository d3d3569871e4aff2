"""Price files as lazy tables: CSV in the shapes that people have it, Parquet, and directories of both."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from tokopt.catalog.price_formats.drafts import LINE
from tokopt.errors import CatalogError

if TYPE_CHECKING:
    import polars as pl

SUFFIXES: Final = (".csv", ".parquet", ".pq")
OVERFLOW: Final = "\0overflow"  # cells beyond the header's last column; no file has a column of this name
_PARQUET: Final = b"PAR1"
_PACKED: Final = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2"}
_UTF16: Final = (b"\xff\xfe", b"\xfe\xff")
_SEPARATORS: Final = ",;\t|"
_HEAD_BYTES: Final = 1 << 20
_BLOCK_BYTES: Final = 1 << 22
_SMALL_BYTES: Final = 1 << 23


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceTable:
    """A price file, not read yet."""

    said: str  # how the user knows it
    path: Path
    frame: pl.LazyFrame  # columns as the file names them, LINE, and OVERFLOW for CSV
    names: tuple[str, ...]  # of columns, as the file writes them
    columns: dict[str, str]  # name without case, blanks and underscores -> column of `frame`
    ragged: bool  # rows may have more cells than the header
    small: bool  # read at once rather than in batches
    decimal_comma: bool = False  # `1,5` is one and a half: never where commas separate cells


def is_price_path(name: str) -> bool:
    """Return whether a name of a price list is a path."""
    return name.lower().endswith(SUFFIXES) or "/" in name or "\\" in name


def price_files(path: Path, said: str) -> list[tuple[Path, str]]:
    """Return the files of a path with how the user knows them: itself, or a directory's, one or more a provider.

    Raises:
        CatalogError: There is nothing, or a directory without price files.
    """
    try:
        if not path.is_dir():
            return [(path, said)]
        found = [p for p in sorted(path.iterdir()) if p.suffix.lower() in SUFFIXES and p.is_file()]
        found += [p for p in sorted(path.glob("*/vms.*")) if p.suffix.lower() in SUFFIXES and p.is_file()]
    except OSError as error:
        raise CatalogError(f"{said}: cannot be read: {error.strerror or error}") from None
    if not found:
        raise CatalogError(
            f"{said}: no price files in this directory; files that end in {', '.join(SUFFIXES)} are read"
        )
    return [(p, f"{said.rstrip('/')}/{p.relative_to(path).as_posix()}") for p in found]


@contextmanager
def readable(said: str) -> Iterator[None]:
    """Turn what polars and the system say of a file that cannot be read into one line."""
    import polars as pl

    try:
        yield
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError, OverflowError) as error:
        said_why = (str(getattr(error, "strerror", None) or error).strip().splitlines() or ["no reason given"])[0]
        raise CatalogError(f"{said}: cannot be read: {said_why[:200]}") from None


def open_table(path: Path, said: str) -> PriceTable:
    """Return a price file as a lazy table.

    Raises:
        CatalogError: It cannot be read, is no text in UTF-8, has no header, or names a column twice.
    """
    with readable(said):
        with path.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
        if head.startswith(_PARQUET) or path.suffix.lower() in (".parquet", ".pq"):
            return _parquet(path, said)
        _refuse_what_is_no_text(head, said)
        _refuse_open_quotes(path, said)
        return _csv(path, said, head)


def _parquet(path: Path, said: str) -> PriceTable:
    import polars as pl

    frame = pl.scan_parquet(path, glob=False, row_index_name=LINE, row_index_offset=1)
    names = [name for name in frame.collect_schema().names() if name != LINE]
    columns = _folded(names, said)
    return PriceTable(
        said=said, path=path, frame=frame, names=tuple(names), columns=columns, ragged=False, small=_is_small(path)
    )


def _refuse_what_is_no_text(head: bytes, said: str) -> None:
    if not head.strip():
        raise CatalogError(f"{said}: empty: a header row is needed")
    for start, name in _PACKED.items():
        if head.startswith(start):
            raise CatalogError(f"{said}: is packed with {name}; unpack it first")
    if head.startswith(_UTF16) or b"\0" in head:
        raise CatalogError(f"{said}: is no text in UTF-8; save it as CSV in UTF-8, or give Parquet")


def _refuse_open_quotes(path: Path, said: str) -> None:
    """Raise for a quotation mark that is not closed: it would make one cell of the rest of the file."""
    marks = 0
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            marks += block.count(b'"')
    if marks % 2:
        raise CatalogError(f'{said}: not well-formed CSV: a quotation mark (") is not closed')


def _csv(path: Path, said: str, head: bytes) -> PriceTable:
    import polars as pl

    text = head.decode("utf-8-sig", errors="replace")
    old_mac = "\n" not in text and "\r" in text
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    blank = next((n for n, line in enumerate(lines) if line.strip()), 0)
    header_text = "\n".join(lines[blank:])
    separator = max(_SEPARATORS, key=lines[blank].count)
    reader = csv.reader(io.StringIO(header_text), delimiter=separator)
    try:
        names = [name.strip() for name in next(reader)]
    except (csv.Error, StopIteration) as error:
        raise CatalogError(f"{said}: the header cannot be read: {error}") from None
    header_lines = blank + reader.line_num
    places = {f"column {n}": name for n, name in enumerate(names)}
    frame = pl.scan_csv(
        path,
        has_header=False,
        skip_lines=header_lines,
        separator=separator,
        schema={**dict.fromkeys(places, pl.String()), OVERFLOW: pl.String()},
        missing_columns="insert",
        extra_columns="ignore",
        truncate_ragged_lines=True,
        raise_if_empty=False,
        encoding="utf8-lossy",
        eol_char="\r" if old_mac else "\n",
        row_index_name=LINE,
        row_index_offset=header_lines + 1,
        glob=False,
    )
    # A column without a name, as spreadsheets append them, keeps its place as its name and is asked for by nobody.
    columns = {key: place for place, name in places.items() if (key := fold(name))}
    _refuse_doubles([name for name in names if name], said)
    return PriceTable(
        said=said,
        path=path,
        frame=frame,
        names=tuple(names),
        columns=columns,
        ragged=True,
        small=_is_small(path),
        decimal_comma=separator != ",",
    )


def _is_small(path: Path) -> bool:
    return path.stat().st_size < _SMALL_BYTES


def fold(column: str) -> str:
    """Return the spelling that columns are told by: no case, blanks or underscores."""
    return column.strip().lower().replace("_", "").replace(" ", "")


def _folded(names: list[str], said: str) -> dict[str, str]:
    _refuse_doubles(names, said)
    return {fold(name): name for name in names}


def _refuse_doubles(names: list[str], said: str) -> None:
    folded = [fold(name) for name in names]
    doubles = sorted({name for name in names if folded.count(fold(name)) > 1})
    if doubles:
        raise CatalogError(f"{said}: column named twice: {', '.join(doubles)}")


def size(table: PriceTable) -> tuple[int, list[int]]:
    """Return how many rows a table has, blank lines among them, and the lines with more cells than the header."""
    import polars as pl

    if not table.ragged:
        return int(table.frame.select(pl.len()).collect(engine=_engine(table)).item()), []
    overfull = pl.col(LINE).filter(pl.col(OVERFLOW).is_not_null()).cast(pl.Int64).implode()
    rows, lines = table.frame.select(pl.len().alias("rows"), overfull).collect(engine=_engine(table)).row(0)
    return int(rows), list(lines)


def _engine(table: PriceTable) -> Literal["in-memory", "streaming"]:
    return "in-memory" if table.small else "streaming"
