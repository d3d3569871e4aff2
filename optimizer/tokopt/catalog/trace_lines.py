"""Lines of a trace to rows: blocks of a file, CSV cells and JSON objects, and which line is none of these."""

from __future__ import annotations

import csv
import json
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tokopt.catalog.trace_rows import Rows
from tokopt.errors import CatalogError

if TYPE_CHECKING:
    import polars as pl

BLOCK_BYTES = 1 << 22  # that are read at a time
LONGEST_LINE = 1 << 26


def first_names(path: Path, stream: IO[bytes]) -> tuple[list[str], bool]:
    """Return the columns of a table or the keys of a first line, and which of the two it is."""
    line = b""
    while not line.strip():
        line = stream.readline(LONGEST_LINE)
        if not line:
            raise CatalogError(f"{path}: cannot be read: empty")
        line = line.removeprefix(b"\xef\xbb\xbf")
    if line.lstrip().startswith(b"{"):
        return list(_object(path, line, 1)), True
    if line.lstrip().startswith(b"["):
        raise CatalogError(f"{path}: a list in JSON; a JSON object a line is needed, or CSV")
    return _split_header(path, line), False


def header(path: Path, stream: IO[bytes]) -> tuple[list[str], int]:
    """Read the header of a table, and return its columns and the number of the first row below it."""
    number = 1
    while True:
        line = stream.readline(LONGEST_LINE).removeprefix(b"\xef\xbb\xbf")
        number += 1
        if line.strip() or not line:
            return _split_header(path, line), number


def _split_header(path: Path, line: bytes) -> list[str]:
    if b"\0" in line:
        raise CatalogError(f"{path}: not a table: no text")
    try:
        return [name.strip() for name in next(csv.reader([line.decode("utf-8").strip("\r\n")]), [])]
    except UnicodeDecodeError:
        raise CatalogError(f"{path}: not a table: no text in UTF-8") from None
    except csv.Error as error:
        raise CatalogError(f"{path}: not a table: {error}") from None


def blocks(path: Path, stream: IO[bytes]) -> Iterator[bytes]:
    """Yield the rest of a file in blocks of whole lines; the last may lack its end."""
    rest = b""
    while True:
        read = stream.read(BLOCK_BYTES)
        end = read.rfind(b"\n") + 1
        if not read:
            break
        if end:
            yield rest + read[:end]
            rest = read[end:]
        else:
            rest += read
            if len(rest) > LONGEST_LINE:
                raise CatalogError(f"{path}: a line is longer than {LONGEST_LINE >> 20} MiB: not a table of requests")
    if rest.strip():
        yield rest + b"\n"


def cell_rows(path: Path, block: bytes, first: int, names: Sequence[str], chosen: dict[str, str]) -> Rows:
    """Return the cells of a block of lines of CSV, as text."""
    import polars as pl

    if b"\0" in block:
        raise CatalogError(f"{path}: row {first + _lines_before(block, block.index(0))}: no text")
    numbers = None
    if block[:1] in (b"\n", b"\r") or b"\n\n" in block or b"\n\r\n" in block:
        lines = block.split(b"\n")
        kept = [place for place, line in enumerate(lines) if line.strip()]
        numbers = np.array(kept, dtype=np.int64) + first
        block = b"".join(lines[place] + b"\n" for place in kept)
    try:
        frame = pl.read_csv(
            block,
            has_header=False,
            schema={str(number): pl.String for number in range(len(names))},
            columns=sorted({names.index(theirs) for theirs in chosen.values()}),
        )
    except (pl.exceptions.PolarsError, ValueError) as error:
        raise _bad_block(path, block, first, numbers, len(names), error) from None
    if frame.height != block.count(b"\n"):
        raise CatalogError(f"{path}: rows from {first} on: a cell goes on in the next line; a line is one row")
    columns = {ours: frame[str(names.index(theirs))] for ours, theirs in chosen.items()}
    return Rows(first=first, columns=columns, numbers=numbers)


def _bad_block(
    path: Path, block: bytes, first: int, numbers: NDArray[np.int64] | None, width: int, error: Exception
) -> CatalogError:
    """Return what is wrong with lines that are no table, with the first row that shows it."""

    def row(place: int) -> str:
        return f"{path}: row {first + place if numbers is None else numbers[place]}"

    try:
        text = block.decode("utf-8")
    except UnicodeDecodeError as fault:
        return CatalogError(f"{row(_lines_before(block, fault.start))}: no text in UTF-8")
    for place, line in enumerate(text.split("\n")[:-1]):
        try:
            cells = next(csv.reader([line], strict=True), [])
        except csv.Error as fault:
            return CatalogError(f"{row(place)}: not a table: {fault}")
        if len(cells) != width:
            return CatalogError(f"{row(place)}: {len(cells)} cells; the header has {width} columns")
    return CatalogError(f"{path}: rows from {first} on: not a table: {why_unreadable(error)}")


def _lines_before(block: bytes, place: int) -> int:
    return block.count(b"\n", 0, place)


def line_rows(path: Path, block: bytes, first: int, chosen: dict[str, str]) -> Rows:
    """Return the values of a block of JSON lines; blank lines hold no request."""
    numbers: list[int] = []
    values: dict[str, list[Any]] = {ours: [] for ours in chosen if ours != "hash_ids"}
    hashes, counts = array("q"), array("q")
    as_text = False
    for number, line in enumerate(block.split(b"\n"), start=first):
        if not line.strip():
            continue
        row = _object(path, line, number)
        numbers.append(number)
        for ours, found in values.items():
            value = row.get(chosen[ours])
            if ours == "time" and isinstance(value, str):
                as_text = True
            elif ours != "class" and not _is_number(value):
                said = "is missing" if value is None else f"is {str(value)[:40]!r}, not a number"
                raise CatalogError(f"{path}: row {number}: {chosen[ours]} {said}")
            found.append(value)
        if "hash_ids" in chosen:
            counts.append(_take_hashes(path, row.get(chosen["hash_ids"]), number, hashes))
    return Rows(
        first=first,
        columns={name: _series(name, found, as_text) for name, found in values.items()},
        numbers=np.array(numbers, dtype=np.int64),
        hashes=(_whole_numbers(counts), _whole_numbers(hashes)) if "hash_ids" in chosen else None,
    )


def _whole_numbers(values: array[int]) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


def _series(name: str, values: list[Any], as_text: bool) -> pl.Series:
    """Return values of JSON as a column: numbers, but for classes and dates."""
    import polars as pl

    if name == "class":
        return pl.Series([None if value is None else str(value) for value in values], dtype=pl.String)
    if name == "time" and as_text:
        return pl.Series([str(value) for value in values], dtype=pl.String)
    return pl.Series([_real(value) for value in values], dtype=pl.Float64)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _real(value: int | float) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf")


def _take_hashes(path: Path, found: Any, number: int, into: array[int]) -> int:
    """Append the hashes of a line and return how many there are."""
    if found is None:
        return 0
    before = len(into)
    try:
        if not isinstance(found, list):
            raise TypeError
        into.extend(found)
    except (TypeError, OverflowError):
        raise CatalogError(f"{path}: row {number}: hash_ids: a list of whole numbers below 2^63 is needed") from None
    return len(into) - before


def _object(path: Path, line: bytes, number: int) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except UnicodeDecodeError:
        raise CatalogError(f"{path}: row {number}: no text in UTF-8") from None
    except ValueError as error:
        raise CatalogError(f"{path}: row {number}: not JSON: {str(error).partition(':')[0]}") from None
    except RecursionError:
        raise CatalogError(f"{path}: row {number}: not JSON of a request: too deep") from None
    if not isinstance(found, dict):
        raise CatalogError(f'{path}: row {number}: a JSON object is needed, like {{"timestamp": 0, …}}')
    return found


def why_unreadable(error: BaseException) -> str:
    """Return what an error of a file says, in one line."""
    said = getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]
    return str(said)[:200]
