"""Rules between prices: what supersedes what, what is listed twice, and which prices are doubtful."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import polars as pl

SPOT_NOT_BELOW: Final = "spot price is not below on-demand"
FAR_BELOW: Final = "under half the median of the same machine in other regions"
REDUCED_RATE: Final = f"on-demand price {FAR_BELOW}: a reduced-rate SKU taken for the list price"
LOW_TRUST: Final = "low trust: the row's note says so"
STALE: Final = "more than a year older than the newest price"
NO_DATE: Final = "date is not understood"
SUPERSEDED: Final = "superseded: a later date of the same machine"
DUPLICATE: Final = "duplicate: the same machine, place and market already has a price"
_KEY: Final = ("provider", "region", "zone", "instance_type", "accelerator", "market")
_MACHINE: Final = ("provider", "instance_type", "accelerator", "count")
_OTHERS_NEEDED: Final = 2  # other regions with a price, below which a median says nothing
_STALE_DAYS: Final = 366


def without_doubles(prices: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return one price a machine, place and market, and what was dropped (`file`, `line`, `fault`).

    The first file wins, within it the latest date, then the first row. A bare year is older than any full date.
    """
    import polars as pl

    dated = pl.col("as_of").cast(pl.String).str.len_chars() >= len("2026-01-01")
    ranked = prices.with_row_index("order").with_columns(dated.alias("dated"))
    ranked = ranked.sort(
        ["file", "dated", "as_of", "order"], descending=[False, True, True, False], maintain_order=True
    )
    first = pl.struct(_KEY).is_first_distinct()
    same_file = pl.col("file") == pl.col("file").first().over(_KEY)
    newer = (pl.col("as_of") != pl.col("as_of").first().over(_KEY)) & (pl.col("as_of").first().over(_KEY) != "")
    ranked = ranked.with_columns(
        first.alias("first"),
        pl.when(same_file & newer).then(pl.lit(SUPERSEDED)).otherwise(pl.lit(DUPLICATE)).alias("fault"),
    )
    kept = ranked.filter(pl.col("first")).sort("order").drop("order", "dated", "first", "fault")
    return kept, ranked.filter(~pl.col("first")).sort("order").select("file", "line", "fault")


def without_reduced_rates(prices: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return prices without on-demand ones of crawled lists that are far below the same machine elsewhere.

    In a list of one's own such a price stands, with a flag: it may have been negotiated.
    """
    import polars as pl

    marked = far_below(prices)
    dropped = pl.col("far") & pl.col("crawled") & (pl.col("market") == "on_demand")
    rejected = marked.filter(dropped).select("file", "line", pl.lit(REDUCED_RATE).alias("fault"))
    return marked.filter(~dropped), rejected


def far_below(prices: pl.DataFrame) -> pl.DataFrame:
    """Return prices with `far`: whether a price is under half the median of the same machine in other regions.

    A region counts once, with its lowest price. At least two other regions are needed.
    """
    import polars as pl

    group = [*_MACHINE, "market"]
    placed = prices.filter(pl.col("region") != "")
    lowest = placed.group_by([*group, "region"]).agg(pl.col("usd_per_hour").min().alias("lowest"))
    lowest = lowest.sort([*group, "lowest", "region"])
    lowest = lowest.with_columns(pl.len().cast(pl.Int64).over(group).alias("regions"))
    lowest = lowest.filter(pl.col("regions") > _OTHERS_NEEDED)
    if not lowest.height:
        return prices.with_columns(pl.lit(False).alias("far"))
    values = lowest["lowest"]
    lowest = lowest.with_row_index("place").with_columns(pl.col("place").cast(pl.Int64))
    lowest = lowest.with_columns(pl.col("place").min().over(group).alias("start"))
    own, start, others = pl.col("place") - pl.col("start"), pl.col("start"), pl.col("regions") - 1
    middles = [(others - 1) // 2, others // 2]  # places of the middle values among the other regions
    places = lowest.select(
        (start + middle + (middle >= own).cast(pl.Int64)).alias(f"middle {n}") for n, middle in enumerate(middles)
    )
    median = (values.gather(places["middle 0"]) + values.gather(places["middle 1"])) / 2
    low = lowest.with_columns(median.alias("median")).select(*group, "region", "median")
    joined = prices.join(low, on=[*group, "region"], how="left", maintain_order="left")
    return joined.with_columns((pl.col("usd_per_hour") < pl.col("median") / 2).fill_null(False).alias("far")).drop(
        "median"
    )


def with_flags(prices: pl.DataFrame) -> pl.DataFrame:
    """Return prices with `flags`: a list of what makes each doubtful."""
    import polars as pl

    rules = (
        (SPOT_NOT_BELOW, _spot_not_below(prices)),
        (FAR_BELOW, prices["far"]),
        (LOW_TRUST, prices["note"].cast(pl.String).str.to_lowercase().str.contains("low trust", literal=True)),
        *_doubtful_dates(prices),
    )
    columns = [
        pl.select(pl.when(met.fill_null(False)).then(pl.lit(text))).to_series().alias(f"flag {n}")
        for n, (text, met) in enumerate(rules)
    ]
    return prices.with_columns(pl.concat_list(columns).list.drop_nulls().alias("flags"))


def _spot_not_below(prices: pl.DataFrame) -> pl.Series:
    """Return whether a spot price is not below the lowest on-demand price of the machine there, or everywhere."""
    import polars as pl

    listed = prices.filter(pl.col("market") == "on_demand")
    place = [*_MACHINE, "region"]
    here = listed.group_by(place).agg(pl.col("usd_per_hour").min().alias("here"))
    anywhere = (
        listed.filter(pl.col("region") == "").group_by(_MACHINE).agg(pl.col("usd_per_hour").min().alias("anywhere"))
    )
    joined = prices.join(here, on=place, how="left", maintain_order="left")
    joined = joined.join(anywhere, on=_MACHINE, how="left", maintain_order="left")
    above = pl.col("usd_per_hour") >= pl.coalesce("here", "anywhere")
    return joined.select((above & (pl.col("market") == "spot")).fill_null(False)).to_series()


def _doubtful_dates(prices: pl.DataFrame) -> list[tuple[str, pl.Series]]:
    """Return which dates are stale beside the list's newest, and which are none. A bare year means its last day."""
    import polars as pl

    said = prices["as_of"].cast(pl.String)
    whole = (
        pl.when(said.str.contains(r"^\d{4}$"))
        .then(said + "-12-31")
        .when(said.str.contains(r"^\d{4}-\d{2}$"))
        .then(said + "-28")
        .otherwise(said.str.slice(0, 10))
    )
    dates = pl.select(whole).to_series().str.to_date("%Y-%m-%d", strict=False)
    newest = dates.max()
    none = (said != "") & dates.is_null()
    if newest is None:
        return [(NO_DATE, none)]
    age = pl.select(pl.lit(newest) - dates).to_series().dt.total_days()
    return [(STALE, age > _STALE_DAYS), (NO_DATE, none)]
