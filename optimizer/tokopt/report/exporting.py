"""What an export is, for a terminal: its files and what they do not say."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from tokopt.domain.exporting import Export
from tokopt.report.blocks import columns, section

ONE_FILE = 1


def export_report(found: Export) -> RenderableType:
    """Return the files of an export with what each is, and its notes."""
    rows = [(file.name, Text(file.what)) for file in found.files]
    parts: list[RenderableType] = [
        Text(f"Plan for {found.to.value} {found.version}: item {', '.join(map(str, found.items))} of the fleet"),
        section("Files", columns(("file", "what it is"), rows, left=(0, 1))),
    ]
    if found.notes:
        parts.append(section("To know", *(Text(f"- {note}") for note in found.notes)))
    return Group(*parts)
