"""Imported results, for a terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from tokopt.domain.importing import ImportedResults
from tokopt.report.blocks import columns, section

SHOWN = (  # column -> heading, digits
    ("isl", "ISL", 0),
    ("osl", "OSL", 0),
    ("concurrency_or_batch", "in flight", 1),
    ("ttft_ms", "TTFT ms", 1),
    ("tpot_ms", "TPOT ms", 2),
    ("output_tok_s_per_gpu", "tok/s/GPU", 1),
)


def import_report(found: ImportedResults) -> RenderableType:
    """Return the rows with their measurements, and what to know about them."""
    rows = [[_name(row), *(_cell(row.get(name), digits) for name, _, digits in SHOWN)] for row in found.rows]
    count = len(found.rows)
    title = f"{count:,} {'row' if count == 1 else 'rows'} of measurements from {found.tool.value}"
    parts: list[RenderableType] = [
        Text(title),
        section("Rows", columns(("measured", *(heading for _, heading, _ in SHOWN)), rows)),
    ]
    if found.notes:
        parts.append(section("To know", *(Text(f"- {note}") for note in found.notes)))
    return Group(*parts)


def _name(row: dict[str, str | float | int | None]) -> str:
    return " ".join(str(row[name]) for name in ("vendor_system", "framework", "model") if row.get(name))


def _cell(value: str | float | int | None, digits: int) -> str:
    return f"{value:,.{digits}f}" if isinstance(value, (int, float)) else "-"
