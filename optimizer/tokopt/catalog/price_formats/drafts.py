"""Drafts of prices: what every format turns its rows into, and the small expressions that formats share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from tokopt.catalog.price_names import PriceNames

if TYPE_CHECKING:
    import polars as pl

    from tokopt.catalog.price_formats.tables import PriceTable

# One price of one machine in one market, still in the file's text. `fault` is why it is none already, with `{}` where
# `cell` belongs. An empty text is a cell that was empty or missing.
TEXTS: Final = (
    "provider", "region", "zone", "instance_type", "name", "count", "market", "whole", "each", "currency", "as_of",
    "available", "source", "note", "fault", "cell",
)  # fmt: skip
LINE: Final = "line"
MEMORY_GB: Final = "memory_gb"
BATCH_ROWS: Final = 100_000
NO_ACCELERATOR: Final = "no accelerator"


@dataclass(slots=True, kw_only=True)
class Reading:
    """What a format needs to know besides the table, and where it counts what it passes over."""

    provider: str  # that the file's name stands for
    names: PriceNames
    rates: Mapping[str, float]  # currency -> USD
    passed_over: dict[str, int] = field(default_factory=dict)
    seen: int = 0  # rows that became drafts or were passed over by name; the others have no accelerator

    def pass_over(self, what: str, rows: int) -> None:
        """Count rows that are about something else."""
        if rows > 0:
            self.seen += rows
            self.passed_over[what] = self.passed_over.get(what, 0) + rows


def text(column: Any) -> pl.Expr:
    """Return a column as stripped text, empty where nothing stands; takes a name or an expression."""
    import polars as pl

    expression = pl.col(column) if isinstance(column, str) else column
    return expression.cast(pl.String, strict=False).str.strip_chars().fill_null("")


def number(expression: pl.Expr) -> pl.Expr:
    """Return text as numbers, null where it is none."""
    import polars as pl

    return expression.cast(pl.Float64, strict=False)


def figures(table: PriceTable, expression: pl.Expr) -> pl.Expr:
    """Return a table's texts of numbers with a decimal point where the table writes a comma."""
    return expression.str.replace(r"^([+-]?\d+),(\d+)$", "${1}.${2}") if table.decimal_comma else expression


def squashed_expression(expression: pl.Expr) -> pl.Expr:
    """Return names in the spelling that `price_names.squashed` gives them."""
    return expression.str.to_lowercase().str.replace_all(r"[\s._-]+", "")


def machine_expression(expression: pl.Expr) -> pl.Expr:
    """Return names of machines in the spelling that `price_names.machine_key` gives them."""
    return expression.str.strip_chars().str.to_lowercase().str.replace_all(" ", "_").str.strip_prefix("standard_")


def draft(columns: Mapping[str, pl.Expr | str]) -> list[pl.Expr]:
    """Return the selection that makes drafts: given columns as they are, constants as such, others empty."""
    import polars as pl

    given: dict[str, pl.Expr] = {
        name: value if not isinstance(value, str) else pl.lit(value, dtype=pl.String) for name, value in columns.items()
    }
    selected = [pl.col(LINE)]
    selected += [
        given.get(name, pl.lit("", dtype=pl.String)).cast(pl.String).fill_null("").alias(name) for name in TEXTS
    ]
    memory = given.get(MEMORY_GB, pl.lit(None, dtype=pl.Float64))
    return [*selected, memory.cast(pl.Float64).alias(MEMORY_GB)]


def first_fault(faults: Sequence[tuple[pl.Expr, str, pl.Expr | None]]) -> tuple[pl.Expr, pl.Expr]:
    """Return the first fault of each row, empty for none, and the cell that it is about.

    Args:
        faults: Condition, reason with `{}` where the cell belongs, and the cell.
    """
    import polars as pl

    if not faults:
        return pl.lit(""), pl.lit("")
    empty = pl.lit("", dtype=pl.String)
    fault, cell = empty, empty
    for condition, reason, about in reversed(faults):
        met = condition.fill_null(False)
        fault = pl.when(met).then(pl.lit(reason, dtype=pl.String)).otherwise(fault)
        shown = empty if about is None else about.cast(pl.String).fill_null("").str.slice(0, 80)
        cell = pl.when(met).then(shown).otherwise(cell)
    return fault, cell


def batches(table: PriceTable, frame: pl.LazyFrame) -> Iterator[pl.DataFrame]:
    """Yield the rows of a lazy frame over a table in order, some at a time, or all of them where the file is small."""
    if table.small:
        yield frame.collect()
    else:
        yield from frame.collect_batches(chunk_size=BATCH_ROWS, maintain_order=True, engine="streaming")


def column_or_empty(table: PriceTable, *folded: str) -> pl.Expr:
    """Return the first of some columns that a table has, as text; empty text where it has none."""
    import polars as pl

    names = [table.columns[name] for name in folded if name in table.columns]
    return text(names[0]) if names else pl.lit("", dtype=pl.String)


def coalesced(table: PriceTable, *folded: str) -> pl.Expr:
    """Return the first of some columns that says something, row by row."""
    import polars as pl

    found = pl.lit("", dtype=pl.String)
    for name in reversed([table.columns[name] for name in folded if name in table.columns]):
        here = text(name)
        found = pl.when(here != "").then(here).otherwise(found)
    return found
