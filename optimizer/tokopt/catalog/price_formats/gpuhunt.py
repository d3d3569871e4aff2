"""gpuhunt's catalogs: one row a machine, place and market; spot prices are rows of their own."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Final

from tokopt.catalog.price_formats.drafts import MEMORY_GB, Reading, batches, column_or_empty, draft, figures, number

if TYPE_CHECKING:
    import polars as pl

    from tokopt.catalog.price_formats.tables import PriceTable

TITLE: Final = "gpuhunt"
NEEDED: Final = frozenset({"instance_name", "location", "price", "gpu_count", "gpu_name", "spot"})
_MOST_GB: Final = 2000.0  # of one accelerator; more is MiB under the wrong name
_MIB_PER_GB: Final = 1024.0


def matches(columns: Collection[str]) -> bool:
    """Return whether folded names of columns are those of this format."""
    return {name.replace("_", "") for name in NEEDED} <= set(columns)


def drafts(table: PriceTable, reading: Reading) -> Iterator[pl.DataFrame]:
    """Yield the rows with accelerators as drafts."""
    import polars as pl

    memory = number(figures(table, column_or_empty(table, "gpumemory")))
    provider = column_or_empty(table, "provider")
    spot = column_or_empty(table, "spot").str.to_lowercase()
    is_spot = spot.is_in(["true", "1", "yes"])
    flags = column_or_empty(table, "flags")
    count, name = figures(table, column_or_empty(table, "gpucount")), column_or_empty(table, "gpuname")
    known = spot.is_in(["true", "1", "yes", "false", "0", "no", ""])
    market = pl.when(is_spot).then(pl.lit("spot")).when(known).then(pl.lit("on_demand")).otherwise(spot)
    cells: dict[str, pl.Expr | str] = {
        "provider": pl.when(provider == "").then(pl.lit(reading.provider)).otherwise(provider),
        "region": column_or_empty(table, "location"),
        "instance_type": column_or_empty(table, "instancename"),
        "name": name,
        "count": count,
        "market": market,
        "whole": figures(table, column_or_empty(table, "price")),
        "currency": "USD",
        "source": f"{table.path.name} (gpuhunt)",
        "note": pl.when(flags.is_in(["", "[]"])).then(pl.lit("")).otherwise("flags " + flags),
        MEMORY_GB: pl.when(memory > _MOST_GB).then(memory / _MIB_PER_GB).otherwise(memory),
    }
    with_accelerators = (name != "") & ~(number(count) == 0).fill_null(False)
    wanted = table.frame.filter(with_accelerators).select(draft(cells))
    for batch in batches(table, wanted):
        reading.seen += batch.height
        yield batch
