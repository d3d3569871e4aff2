"""Documents with places: every value that is missing or wrong is an error that names file and field."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tokopt.errors import InputError

MOST_BYTES: Final = 1 << 30  # of a result file: one with every request of a long run has some hundred MB
MOST_COUNTED: Final = 1_000_000  # accelerators, or degrees: more than anybody has measured
STATISTICS: Final = ("mean", "p50", "p75", "p90", "p95", "p99")
_UNITS: Final = {"ns": 1e-6, "us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3, "sec": 1e3, "seconds": 1e3}  # in ms
_SHOWN: Final = 40  # characters of a value in an error


@dataclass(frozen=True, slots=True)
class Place:
    """A value of a document, with the way to it."""

    file: str
    path: str
    value: Any

    def __str__(self) -> str:
        return f"{self.file}: {self.path}" if self.path else self.file

    def get(self, *keys: str) -> Place | None:
        """Return the value under keys, one within the other; None where one is missing or null."""
        here = self
        for key in keys:
            inner = here.value.get(key) if isinstance(here.value, Mapping) else None
            if inner is None:
                return None
            here = Place(self.file, f"{here.path}.{key}" if here.path else key, inner)
        return here

    def at(self, *keys: str) -> Place:
        """Return the value under keys.

        Raises:
            InputError: It is missing.
        """
        found = self.get(*keys)
        if found is None:
            path = ".".join([self.path, *keys] if self.path else keys)
            raise InputError(f"{self.file}: {path}: missing")
        return found

    def items(self) -> Iterator[Place]:
        """Yield the elements of a list.

        Raises:
            InputError: It is none.
        """
        if not isinstance(self.value, Sequence) or isinstance(self.value, (str, bytes)):
            raise InputError(f"{self}: a list is needed, not {_kind(self.value)}")
        for number, each in enumerate(self.value):
            yield Place(self.file, f"{self.path}[{number}]", each)

    def number(self, *keys: str) -> float:
        """Return a number of zero or more.

        Raises:
            InputError: It is missing, or no such number.
        """
        place = self.at(*keys)
        value = place.value
        found = math.nan
        if isinstance(value, (int, float, str)) and not isinstance(value, bool):
            try:
                found = float(value)
            except (ValueError, OverflowError):  # no number, or one of hundreds of digits
                found = math.nan
        if not 0.0 <= found < math.inf:
            raise InputError(f"{place}: {_shown(place.value)} is not a number of 0 or more")
        return found

    def count(self, *keys: str) -> int:
        """Return a whole number from 1, as degrees, workers and accelerators are.

        Raises:
            InputError: It is missing, or no such number.
        """
        found = self.number(*keys)
        if not (1.0 <= found <= MOST_COUNTED and found == int(found)):
            raise InputError(f"{self.at(*keys)}: 1 or more is needed, whole and up to {MOST_COUNTED:,}")
        return int(found)

    def maybe(self, *keys: str) -> float | None:
        """Return a number, None where there is none."""
        return None if self.get(*keys) is None else self.number(*keys)

    def text(self, *keys: str) -> str | None:
        """Return a text, None where there is none.

        Raises:
            InputError: It is something else.
        """
        place = self.get(*keys)
        if place is None:
            return None
        if not isinstance(place.value, str):
            raise InputError(f"{place}: a text is needed, not {_kind(place.value)}")
        return place.value.strip() or None


def read_text(path: Path) -> str:
    """Return the text of a file.

    Raises:
        InputError: It cannot be read, is too large, or is no text.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise InputError(f"{path}: is larger than 1 GiB, which no summary of a benchmark is")
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text (byte {error.start})") from None


def read_documents(path: Path) -> tuple[Place, ...]:
    """Return the documents of a JSON file: one, the elements of a list, or one a line.

    Raises:
        InputError: It is no JSON.
    """
    text = read_text(path)
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        return _lines(path, text, error)
    except RecursionError:
        raise InputError(f"{path}: not JSON: nested too deeply") from None
    except ValueError:
        raise InputError(f"{path}: has a number of thousands of digits, which no result is") from None
    if isinstance(document, list):
        return tuple(Place(str(path), f"[{number}]", each) for number, each in enumerate(document))
    return (Place(str(path), "", document),)


def _lines(path: Path, text: str, whole: json.JSONDecodeError) -> tuple[Place, ...]:
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            found.append(Place(str(path), f"line {number}", json.loads(line)))
        except (ValueError, RecursionError):  # ValueError: no JSON, or a number of thousands of digits
            told = whole if not found else None
            place = f"{told.lineno}: {told.msg}" if told else f"{number}: a JSON object a line is needed"
            raise InputError(f"{path}:{place}; JSON is needed") from None
    if not found:
        raise InputError(f"{path}: is empty")
    return tuple(found)


def require_object(place: Place, what: str) -> Place:
    """Return a place that holds an object.

    Raises:
        InputError: It holds something else.
    """
    if not isinstance(place.value, Mapping):
        raise InputError(f"{place}: {what} is needed, not {_kind(place.value)}")
    return place


def in_ms(place: Place, unit: str | None) -> float:
    """Return what one of a unit of time is, in ms; ms where no unit is stated.

    Raises:
        InputError: It is no unit of time.
    """
    if unit is None:
        return 1.0
    if unit.strip().lower() not in _UNITS:
        raise InputError(f"{place}.unit: {_shown(unit)} is no unit of time that is known: {', '.join(_UNITS)}")
    return _UNITS[unit.strip().lower()]


def latency(place: Place, name: str, *, unit: str = "_ms", scale: float = 1.0) -> dict[str, float]:
    """Return the statistics of a latency that stand side by side, like `mean_ttft_ms` and `median_ttft_ms`. [ms]

    Args:
        place: What holds them.
        name: Of the latency.
        unit: What their names end with.
        scale: ms of one of their unit.
    """
    values = {key: place.maybe(f"{key}_{name}{unit}") for key in STATISTICS}
    median = place.maybe(f"median_{name}{unit}")
    values["p50"] = values["p50"] if median is None else median
    return {key: value * scale for key, value in values.items() if value is not None}


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python writes
        return "a number of thousands of digits"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
