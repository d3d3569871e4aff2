"""tokopt's own price lists: one row a machine, place and market, with the columns that the documentation lists."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Final

from tokopt.catalog.price_formats.drafts import (
    Reading,
    batches,
    coalesced,
    column_or_empty,
    draft,
    figures,
    first_fault,
)
from tokopt.catalog.price_formats.tables import fold
from tokopt.errors import CatalogError

if TYPE_CHECKING:
    import polars as pl

    from tokopt.catalog.price_formats.tables import PriceTable

TITLE: Final = "tokopt"
NEEDED: Final = (  # any one of these sets of columns
    frozenset({"accelerator", "accelerator_count", "usd_per_hour"}),
    frozenset({"accelerator", "usd_per_accelerator_hour"}),
    frozenset({"accelerator", "accelerator_count", "price_per_hour", "currency"}),
    frozenset({"accelerator", "price_per_accelerator_hour", "currency"}),
)
COLUMNS: Final = (
    "provider", "region", "zone", "instance_type", "accelerator", "accelerator_count", "market", "usd_per_hour",
    "usd_per_accelerator_hour", "price_per_hour", "price_per_accelerator_hour", "currency", "as_of", "available_units",
    "source", "note",
)  # fmt: skip

_CONTRADICTS: Final = "usd_per_hour in currency {}: prices in other currencies stand in price_per_hour"


def matches(columns: Collection[str]) -> bool:
    """Return whether folded names of columns are those of this format."""
    return any({fold(name) for name in needed} <= set(columns) for needed in NEEDED)


def drafts(table: PriceTable, reading: Reading) -> Iterator[pl.DataFrame]:
    """Yield the rows as drafts.

    Raises:
        CatalogError: A column looks like a misspelt one.
    """
    import polars as pl

    _refuse_misspelt(table)
    given = {
        name: column_or_empty(table, fold(name))
        for name in ("region", "zone", "market", "currency", "as_of", "source", "note")
    }
    cells = {
        **given,
        "instance_type": column_or_empty(table, "instancetype"),
        "name": column_or_empty(table, "accelerator"),
        "count": figures(table, column_or_empty(table, "acceleratorcount")),
        "available": figures(table, column_or_empty(table, "availableunits")),
        "whole": figures(table, coalesced(table, "usdperhour", "priceperhour")),
        "each": figures(table, coalesced(table, "usdperacceleratorhour", "priceperacceleratorhour")),
    }
    stem = table.path.stem
    provider = column_or_empty(table, "provider")
    cells["provider"] = pl.when(provider == "").then(pl.lit(stem)).otherwise(provider)
    cells["source"] = pl.when(given["source"] == "").then(pl.lit(table.path.name)).otherwise(given["source"])
    empty = pl.all_horizontal(*(cells[name] == "" for name in ("name", "count", "whole", "each", "market", "region")))
    superseded = given["note"].str.to_lowercase().str.starts_with("superseded")
    in_usd = coalesced(table, "usdperhour", "usdperacceleratorhour") != ""
    contradicts = in_usd & ~given["currency"].str.to_uppercase().is_in(["", "USD"])
    fault, cell = first_fault(
        [(superseded, "superseded: the row's note says so", None), (contradicts, _CONTRADICTS, given["currency"])]
    )
    selected = draft({**cells, "fault": fault, "cell": cell})
    for batch in batches(table, table.frame.select(*selected, empty.alias("blank"))):
        reading.seen += batch.height - int(batch["blank"].sum())
        yield batch.filter(~pl.col("blank")).drop("blank")
        reading.pass_over("empty", int(batch["blank"].sum()))


def _refuse_misspelt(table: PriceTable) -> None:
    for name in sorted(name.strip().lower() for name in table.names):
        if name in COLUMNS or fold(name) in map(fold, COLUMNS):
            continue
        near = difflib.get_close_matches(name, COLUMNS, n=1, cutoff=0.8)
        if near and fold(near[0]) not in table.columns:
            raise CatalogError(f"{table.said}: unknown column {name!r}; did you mean {near[0]}?")
