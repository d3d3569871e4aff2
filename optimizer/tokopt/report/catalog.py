"""What the catalog holds: tables, entries, and one entry with the source of every value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from rich.console import Group, RenderableType
from rich.text import Text

from tokopt.report.blocks import columns, pairs, section

MOST_NAMES = 60  # of a table, in the list of tables


class Listed(Protocol):
    """One line of a list."""

    @property
    def name(self) -> str:
        """What people type."""

    @property
    def title(self) -> str:
        """Name in words."""

    @property
    def summary(self) -> str:
        """The figures that tell it from others."""


class Sourced(Protocol):
    """One value and where it comes from."""

    @property
    def field(self) -> str:
        """What it is."""

    @property
    def value(self) -> str:
        """The value with its unit."""

    @property
    def source(self) -> str:
        """Key of its source, or what it is computed from."""

    @property
    def source_title(self) -> str:
        """What the source is called."""


class Described(Protocol):
    """One entry, whole."""

    @property
    def table(self) -> str:
        """Table that it stands in."""

    @property
    def name(self) -> str:
        """What people type."""

    @property
    def title(self) -> str:
        """Name in words."""

    @property
    def facts(self) -> Sequence[Sourced]:
        """Its values."""

    @property
    def note(self) -> str:
        """What to know about it."""


def tables_report(found: Mapping[str, Sequence[Listed]]) -> RenderableType:
    """Return what tables there are, with the names of their entries."""
    rows = [(name, str(len(entries)), _names(entries)) for name, entries in found.items()]
    return columns(("table", "entries", "names"), rows, left=(0, 2))


def _names(entries: Sequence[Listed]) -> str:
    more = len(entries) - MOST_NAMES
    shown = ", ".join(entry.name for entry in entries[:MOST_NAMES])
    return f"{shown} and {more:,} more" if more > 0 else shown


def entries_report(found: Mapping[str, Sequence[Listed]]) -> RenderableType:
    """Return the entries of tables, a line each."""
    parts = []
    for entries in found.values():
        rows = [(entry.name, entry.title, entry.summary) for entry in entries]
        if any(entry.summary for entry in entries):
            parts.append(columns(("name", "title", ""), rows, left=(0, 1, 2)))
        else:
            parts.append(columns(("name", "title"), [row[:2] for row in rows], left=(0, 1)))
    return Group(*parts)


def details_report(details: Described) -> RenderableType:
    """Return one entry: each value with the number of its source, and the sources under it."""
    numbers: dict[tuple[str, str], int] = {}
    rows = []
    for fact in details.facts:
        mark = ""
        if fact.source:
            mark = f"[{numbers.setdefault((fact.source, fact.source_title), len(numbers) + 1)}]"
        rows.append((fact.field, fact.value, mark))
    sources = [
        (f"[{n}]", f"{key}: {title}" if title else key)
        for (key, title), n in sorted(numbers.items(), key=lambda p: p[1])
    ]
    parts: list[RenderableType] = [
        Text.assemble((details.name, "bold"), f": {details.title} (table {details.table})"),
        Text(""),
        columns(("value of", "", "source"), rows, left=(0, 1, 2)),
    ]
    if details.note:
        parts.append(section("Note", Text(details.note)))
    if sources:
        parts.append(section("Sources", pairs(sources)))
    return Group(*parts)
