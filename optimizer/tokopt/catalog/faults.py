"""What pydantic found wrong with a file's content, in one line in the words of the file."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

MANY_KEYS = 25  # of a row; more are no help in one line
LONGEST_VALUE = 60  # characters of a value that is quoted
SAID = {  # type of pydantic's error -> what it means; others speak for themselves
    "missing": "missing",
    "extra_forbidden": "unknown key",
    "dict_type": "a mapping of keys to values is needed",
    "model_type": "a mapping of keys to values is needed",
    "too_short": "empty, at least one entry is needed",
}
Fault = tuple[tuple[str | int, ...], Any]  # where in the file; pydantic's error


def fault_in_words(row: type[BaseModel], data: Any, error: ValidationError) -> str:
    """Return the first fault with its key, and how many more there are; beside a missing key, one that nobody knows.

    Args:
        row: The model that the content does not fit.
        data: The content.
        error: What pydantic says of it.
    """
    faults = _by_place(row, data, error)
    place, first = faults[0]
    said = [f"{'.'.join(map(str, place))}: {_said(row, place, first)}"]
    if first["type"] == "missing":
        beside = next((f for f in faults if f[1]["type"] == "extra_forbidden" and f[0][:-1] == place[:-1]), None)
        if beside is not None:  # most likely the same key, misspelt
            said.append(f"{'.'.join(map(str, beside[0]))}: {_said(row, *beside)}")
    left = len(faults) - len(said)
    return "; ".join(said) + (f" (and {left} more)" if left else "")


def _said(row: type[BaseModel], place: tuple[str | int, ...], error: Any) -> str:
    """Return what is wrong with a value, or with its key."""
    said: str = SAID.get(error["type"], error["msg"].removeprefix("Value error, "))
    if error["type"] == "extra_forbidden":
        return said + _allowed(row, place)
    return said if error["type"] in ("missing", "too_short") else f"{said}, not {_shown(error['input'])}"


def kind_of(value: Any) -> str:
    """Return what a value is, in words."""
    if value is None or value in ({}, []):
        return "nothing"
    kinds = {str: "text", bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "a mapping"}
    return kinds.get(type(value), type(value).__name__)


def _by_place(row: type[BaseModel], data: Any, error: ValidationError) -> list[Fault]:
    """Return one fault a place of the file: of a value that may be several things, the one of what it comes closest to.

    Pydantic names the branches of a union beside the keys of the file, and has a fault for each of them.
    """
    kept: list[Fault] = []
    union: tuple[str | int, ...] | None = None  # place of the value that the branches before were of
    for each in error.errors(include_url=False):
        place, branched = _place(row, data, each["loc"])
        if branched is not None and branched == union:
            kept[-1] = max(kept[-1], (place, each), key=_closeness)
            continue
        union = branched
        kept.append((place, each))
    return kept


def _closeness(fault: Fault) -> tuple[int, bool, bool]:
    """Return what ranks the faults of one value: how deep they are, then how much they say."""
    place, error = fault
    return len(place), error["type"] == "extra_forbidden", error["type"] != "string_type"


def _place(
    row: type[BaseModel], data: Any, loc: tuple[str | int, ...]
) -> tuple[tuple[str | int, ...], tuple[str | int, ...] | None]:
    """Return the keys of a fault's place that are the file's own, and the place of the first union on the way."""
    place: list[str | int] = []
    union = None
    for part in loc:
        is_list = isinstance(data, Sequence) and not isinstance(data, str)
        if (isinstance(data, Mapping) and part in data) or (is_list and isinstance(part, int) and part < len(data)):
            data = data[part]
        elif part != "[key]":
            inner = _row_at(row, (*place, part))
            if inner is None or part not in inner.model_fields:
                union = tuple(place) if union is None else union
                continue
        place.append(part)
    return tuple(place), union


def _allowed(row: type[BaseModel], place: tuple[str | int, ...]) -> str:
    """Return what may stand in place of an unknown key: of many keys only those that look alike, if any do."""
    inner = _row_at(row, place)
    if inner is None:
        return ""
    if len(inner.model_fields) > MANY_KEYS or len(place) > 1:
        near = difflib.get_close_matches(str(place[-1]), inner.model_fields, n=3, cutoff=0.6)
        if near:
            return f"; did you mean {' or '.join(near)}?"
    return f" (allowed: {', '.join(inner.model_fields)})"


def _row_at(row: type[BaseModel], place: tuple[str | int, ...]) -> type[BaseModel] | None:
    """Return the model of the mapping that the last key of a place stands in."""
    for part in place[:-1]:
        field = row.model_fields.get(part) if isinstance(part, str) else None
        if field is not None:
            inner = next(_rows_in(field.annotation), None)
            if inner is None:
                return None
            row = inner
    return row


def _rows_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in typing.get_args(annotation):
        yield from _rows_in(inner)


def _shown(value: Any) -> str:
    """Return a value as it is quoted: of lists and mappings only what they are."""
    if isinstance(value, (list, tuple, dict, BaseModel)):
        return kind_of(value)
    text = repr(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."
