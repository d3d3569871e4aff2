"""SkyPilot's `vms.csv`, schemas v5 to v9: on-demand and spot side by side, one row a machine and zone.

Lists of GCP price a machine in two rows, the host (no accelerator named) and its accelerators (no machine named), which
are added up here; slices of TPUs are one row with the whole price, and their size is in the name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Final

from tokopt.catalog.price_formats.drafts import (
    LINE,
    Reading,
    batches,
    column_or_empty,
    draft,
    figures,
    first_fault,
    machine_expression,
    number,
    squashed_expression,
)
from tokopt.catalog.price_names import machine_key, squashed

if TYPE_CHECKING:
    import polars as pl

    from tokopt.catalog.price_formats.tables import PriceTable

TITLE: Final = "skypilot"
NEEDED: Final = frozenset({"InstanceType", "AcceleratorName", "AcceleratorCount", "Price", "Region"})
_MARKETS: Final = (("on_demand", "price"), ("spot", "spot"))
_NO_HOST: Final = "accelerators without a row of their host machine in the zone: not the price of a machine"
_PARTS: Final = "the host's price {} is a placeholder"


def matches(columns: Collection[str]) -> bool:
    """Return whether folded names of columns are those of this format."""
    return {name.lower() for name in NEEDED} <= set(columns)


def drafts(table: PriceTable, reading: Reading) -> Iterator[pl.DataFrame]:
    """Yield the rows with accelerators as drafts, hosts added to their accelerators."""
    import polars as pl

    hosts = _hosts(reading)
    named = {
        "instance_type": column_or_empty(table, "instancetype"),
        "name": column_or_empty(table, "acceleratorname"),
        "count": figures(table, column_or_empty(table, "acceleratorcount")),
        "region": column_or_empty(table, "region"),
        "zone": column_or_empty(table, "availabilityzone"),
        "price": figures(table, column_or_empty(table, "price")),
        "spot": figures(table, column_or_empty(table, "spotprice")),
        "upstream": column_or_empty(table, "upstreamcloudid"),
    }
    rows = table.frame.select(pl.col(LINE), *(column.alias(name) for name, column in named.items()))
    rows = rows.with_columns(machine_expression(pl.col("instance_type")).alias("machine"))
    is_host = (pl.col("name") == "") & pl.col("machine").is_in(hosts["machine"].to_list())
    kept_hosts, kept_parts = [], []
    for batch in batches(table, rows.filter((pl.col("name") != "") | is_host)):
        reading.seen += batch.filter(pl.col("name") != "").height
        reading.pass_over("hosts of accelerators in rows of their own", batch.filter(pl.col("name") == "").height)
        batch = _with_slices(batch, reading)
        part = (pl.col("instance_type") == "") & (pl.col("name") != "")
        kept_hosts.append(batch.filter(pl.col("name") == "").drop("slice", "placeholder", "upstream"))
        kept_parts.append(batch.filter(part))
        yield from _both_markets(batch.filter((pl.col("name") != "") & ~part), reading)
    if not kept_parts:
        return
    parts, host_rows = pl.concat(kept_parts), pl.concat(kept_hosts)
    yield from _both_markets(_added_up(parts, host_rows, hosts), reading)


def _hosts(reading: Reading) -> pl.DataFrame:
    """Return the machines whose hosts are priced apart, with the accelerators that belong to them."""
    import polars as pl

    hosts = [m for m in reading.names.machines if m.host]
    return pl.DataFrame(
        {
            "machine": [machine_key(m.name) for m in hosts],
            "key": [squashed(m.host) for m in hosts],
            "number": [float(m.count) for m in hosts],
        },
        schema={"machine": pl.String, "key": pl.String, "number": pl.Float64},
    )


def _with_slices(batch: pl.DataFrame, reading: Reading) -> pl.DataFrame:
    """Give slices of TPUs their name as machine and their chips as count."""
    import polars as pl

    name = pl.col("name").str.to_lowercase()
    stem = name.str.extract(r"^(?:tpu-)?([a-z0-9]+?)-\d+$", 1)
    size = name.str.extract(r"-(\d+)$", 1).cast(pl.Float64, strict=False)
    rules = {rule.name.lower(): rule for rule in reversed(reading.names.slices)}
    known = list(rules)
    per_chip = stem.replace_strict(known, [float(r.per_chip) for r in rules.values()], default=None)
    means = stem.replace_strict(known, [r.means for r in rules.values()], default=None, return_dtype=pl.String)
    placeholder = stem.replace_strict(
        known, [r.placeholder_usd_per_hour for r in rules.values()], default=None, return_dtype=pl.Float64
    )
    is_slice = means.is_not_null()
    chips = size / per_chip * number(pl.col("count")).fill_null(1.0)
    return batch.with_columns(
        is_slice.alias("slice"),
        placeholder.alias("placeholder"),
        pl.when(is_slice).then(name).otherwise(pl.col("instance_type")).alias("instance_type"),
        pl.when(is_slice).then(means).otherwise(pl.col("name")).alias("name"),
        pl.when(is_slice).then(chips.cast(pl.String)).otherwise(pl.col("count")).alias("count"),
    )


def _added_up(parts: pl.DataFrame, host_rows: pl.DataFrame, hosts: pl.DataFrame) -> pl.DataFrame:
    """Return one row a host machine: its price and that of its accelerators in the same zone, added up."""
    import polars as pl

    place = ["region", "zone", "key", "number"]
    machines = host_rows.join(hosts, on="machine").select(
        *place, pl.col("instance_type").alias("host"), pl.col("price").alias("host_price"), host_spot="spot"
    )
    keyed = parts.with_columns(
        squashed_expression(pl.col("name")).alias("key"), number(pl.col("count")).alias("number")
    )
    joined = keyed.join(machines, on=place, how="left")
    columns = {}
    for cell, host in (("price", "host_price"), ("spot", "host_spot")):
        total = number(pl.col(cell)) + number(pl.col(host))
        whole = (pl.col(cell) != "") & (pl.col(host) != "") & total.is_not_null()
        good = whole & (number(pl.col(cell)) > 0)
        columns[cell] = pl.when(good).then(total.cast(pl.String)).when(whole).then(pl.col(cell)).otherwise(pl.lit(""))
    missing = pl.col("host").is_null()
    return joined.with_columns(
        pl.col("host").fill_null("").alias("instance_type"),
        pl.when(missing).then(pl.col("price")).otherwise(columns["price"]).alias("price"),
        pl.when(missing).then(pl.col("spot")).otherwise(columns["spot"]).alias("spot"),
        missing.alias("alone"),
    )


def _both_markets(rows: pl.DataFrame, reading: Reading) -> Iterator[pl.DataFrame]:
    """Yield a draft for every price of every row, and one for a row that has none."""
    import polars as pl

    if not rows.height:
        return
    alone = pl.col("alone") if "alone" in rows.columns else pl.lit(False)
    host = {"price": pl.col("host_price"), "spot": pl.col("host_spot")} if "alone" in rows.columns else {}
    note = pl.when(pl.col("upstream") != "").then("upstream id " + pl.col("upstream")).otherwise(pl.lit(""))
    for market, price in _MARKETS:
        priceless = (pl.col("price") == "") & (pl.col("spot") == "")
        wanted = (pl.col(price) != "") | (priceless if market == "on_demand" else pl.lit(False))
        faults: list[tuple[pl.Expr, str, pl.Expr | None]] = [
            (alone, _NO_HOST, None),
            (
                pl.col("slice") & (number(pl.col(price)) == pl.col("placeholder")),
                "price {} is a placeholder",
                pl.col(price),
            ),
        ]
        if host:
            faults.append((number(host[price]) <= 0, _PARTS, host[price]))
        fault, cell = first_fault(faults)
        taken = rows.filter(wanted)
        yield taken.select(
            draft(
                {
                    **{name: pl.col(name) for name in ("region", "zone", "instance_type", "name", "count")},
                    "provider": reading.provider,
                    "market": market,
                    "whole": pl.col(price),
                    "currency": "USD",
                    "source": f"{reading.provider} vms list",
                    "note": note,
                    "fault": fault,
                    "cell": cell,
                }
            )
        )
