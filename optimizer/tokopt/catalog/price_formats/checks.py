"""Drafts to prices in USD an hour, or to the reason why a row is none: rules that look at one row."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from tokopt.catalog.price_formats.drafts import MEMORY_GB, first_fault, machine_expression, number, squashed_expression
from tokopt.catalog.price_names import AcceleratorNameRow, PriceNames, squashed
from tokopt.domain.accelerators import Accelerator
from tokopt.domain.offers import Market

if TYPE_CHECKING:
    import polars as pl

OVERFULL: Final = "more cells than the header has columns"
NEEDS_RATE: Final = "currency {} needs a rate: --rate {}=<US dollars for one>"
UNKNOWN: Final = "accelerator '{}' is not in the catalog"
# No accelerator is let for less or more; such a price is a placeholder or in another unit. [USD/h]
LEAST_USD: Final = 0.01
MOST_USD: Final = 1000.0
MOST_COUNT: Final = 100_000
_OF_FORMAT: Final = "{format}"  # stands for the fault that the format itself found
_ROUNDING: Final = 0.01  # relative difference between a machine's price and its accelerators' that rounding explains
_MARKETS: Final = {"": "on_demand", "ondemand": "on_demand"} | {
    squashed(market.value): market.value for market in Market
}
_MEMORY_SLACK: Final = 0.08  # GB and GiB of one accelerator, and what drivers report, differ by up to this
_CURRENCY: Final = r"^[A-Z]{3}$"


def is_missing_rate(kind: str) -> bool:
    """Return whether a kind of reason is that a currency has no rate."""
    code = kind.removeprefix("currency ")[:3]
    return kind == NEEDS_RATE.replace("{}", code)


class AcceleratorNames:
    """Finds accelerators by the names that price lists use."""

    def __init__(self, accelerators: Mapping[str, Accelerator], names: PriceNames) -> None:
        self.per_package = {name: float(accelerator.per_package) for name, accelerator in accelerators.items()}
        self._rules = names.accelerators
        self._index = {squashed(name): name for name in accelerators}
        for name, accelerator in accelerators.items():
            for alias in accelerator.aliases:
                self._index.setdefault(squashed(alias), name)

    def find(self, name: str) -> str | None:
        """Return the accelerator of a name, or None."""
        return self._index.get(squashed(name))

    def nearest(self, name: str) -> str:
        """Return a hint at accelerators of similar names, or nothing."""
        near = difflib.get_close_matches(squashed(name), self._index, n=3, cutoff=0.6)
        close = sorted({self._index[spelling] for spelling in near})
        return f"; did you mean {' or '.join(close)}?" if close else ""

    def resolved(self, rows: pl.DataFrame, title: str) -> pl.DataFrame:
        """Return drafts with `accelerator`: a name of the catalog, or null."""
        import polars as pl

        rules = [rule for rule in self._rules if rule.format in ("", title)]
        meant = _meant(rules)
        rows = rows.with_columns(meant.alias("meant"))
        spellings = rows["meant"].unique().to_list()
        found = [self.find(spelling) for spelling in spellings]
        return rows.with_columns(
            pl.col("meant").replace_strict(spellings, found, default=None, return_dtype=pl.String).alias("accelerator")
            if spellings
            else pl.lit(None, dtype=pl.String).alias("accelerator")
        )


def _meant(rules: Sequence[AcceleratorNameRow]) -> pl.Expr:
    """Return the name that each row's accelerator is to be looked up by: the first rule's that fits, or its own."""
    import polars as pl

    name, machine = squashed_expression(pl.col("name")), machine_expression(pl.col("instance_type"))
    meant = pl.col("name")
    for rule in reversed(rules):
        fits = name == squashed(rule.name)
        if rule.provider:
            fits &= pl.col("provider") == rule.provider
        if rule.memory_gb is not None:
            fits &= ((pl.col(MEMORY_GB) / rule.memory_gb - 1).abs() <= _MEMORY_SLACK).fill_null(False)
        if rule.instance_type:
            # Names of machines are matched without Azure's prefix.
            pattern = rule.instance_type.lower().removeprefix("standard_")
            fits &= machine.str.contains(f"^(?:{pattern})$")
        meant = pl.when(fits).then(pl.lit(rule.means)).otherwise(meant)
    return meant


def checked(
    rows: pl.DataFrame, title: str, names: AcceleratorNames, rates: Mapping[str, float]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return prices (columns of an offer, `file` and `line`) and rejected rows (`file`, `line`, `fault`, `cell`)."""
    import polars as pl

    rows = names.resolved(rows, title)
    known = list(names.per_package)
    per_package = pl.col("accelerator").replace_strict(known, list(names.per_package.values()), default=None)
    code = pl.col("currency").str.to_uppercase()
    code = pl.when(code == "").then(pl.lit("USD")).otherwise(code)
    rate_names = ["USD", *rates]
    rate = code.replace_strict(rate_names, [1.0, *rates.values()], default=None, return_dtype=pl.Float64)
    market = squashed_expression(pl.col("market")).replace_strict(
        list(_MARKETS), list(_MARKETS.values()), default=None, return_dtype=pl.String
    )
    count = pl.when(pl.col("count") == "").then(1.0).otherwise(number(pl.col("count")))
    whole, each = number(pl.col("whole")), number(pl.col("each"))
    computed = rows.with_columns(
        per_package.alias("per_package"), code.alias("code"), rate.alias("rate"), market.alias("term"),
        count.alias("number"), whole.alias("whole_price"), each.alias("each_price"),
        number(pl.col("available")).alias("units"),
    )  # fmt: skip
    machine_price = pl.coalesce("whole_price", pl.col("each_price") * pl.col("number")) * pl.col("rate")
    computed = computed.with_columns(machine_price.alias("usd_per_hour"))
    fault, cell = first_fault(_faults())
    computed = computed.with_columns(fault.alias("found"), cell.alias("about"))
    of_format = pl.col("found") == _OF_FORMAT
    computed = computed.with_columns(
        pl.when(of_format).then(pl.col("fault")).otherwise(pl.col("found")).alias("fault"),
        pl.when(of_format).then(pl.col("cell")).otherwise(pl.col("about")).alias("cell"),
    )
    good = computed.filter(pl.col("fault") == "").select(_prices())
    return good, computed.filter(pl.col("fault") != "").select("file", "line", "fault", "cell")


def _faults() -> list[tuple[pl.Expr, str, pl.Expr | None]]:
    """Return everything that keeps a draft from being a price, what is told first standing first."""
    import polars as pl

    each_usd = pl.col("usd_per_hour") / (pl.col("number") * pl.col("per_package"))
    own = pl.col("fault")
    return [
        (own == OVERFULL, OVERFULL, None),
        ((pl.col("name") == "") & (own != ""), _OF_FORMAT, None),
        (pl.col("name") == "", "accelerator: empty", None),
        (pl.col("accelerator").is_null(), UNKNOWN, pl.col("name")),
        (own != "", _OF_FORMAT, None),
        *_count_faults(),
        (~pl.col("code").str.contains(_CURRENCY), "currency '{}' is no code of three letters", pl.col("currency")),
        (pl.col("rate").is_null(), NEEDS_RATE, pl.col("code")),
        (pl.col("term").is_null(), f"unknown market '{{}}'; known: {', '.join(Market)}", pl.col("market")),
        *_price_faults(),
        (
            each_usd < LEAST_USD,
            f"price {{}} is below ${LEAST_USD:g} an accelerator-hour: no price",
            pl.coalesce(pl.col("whole").replace("", None), pl.col("each")),
        ),
        (
            each_usd > MOST_USD,
            f"price {{}} is above ${MOST_USD:,.0f} an accelerator-hour: no price",
            pl.coalesce(pl.col("whole").replace("", None), pl.col("each")),
        ),
        *_available_faults(),
    ]


def _count_faults() -> list[tuple[pl.Expr, str, pl.Expr | None]]:
    import polars as pl

    count, said = pl.col("number"), pl.col("count")
    return [
        (~count.is_finite().fill_null(False), "accelerator_count '{}' is not a whole number", said),
        ((count == 0), "a fraction of an accelerator: accelerator_count {} is below 1", said),
        (count != count.floor(), "accelerator_count '{}' is not a whole number", said),
        (count < 1, "accelerator_count {} is below 1", said),
        (count > MOST_COUNT, f"accelerator_count {{}} is above {MOST_COUNT:,}", said),
    ]


def _price_faults() -> list[tuple[pl.Expr, str, pl.Expr | None]]:
    import polars as pl

    faults: list[tuple[pl.Expr, str, pl.Expr | None]] = [
        (
            (pl.col("whole") == "") & (pl.col("each") == ""),
            "no price",
            None,
        )
    ]
    for said, value in ((pl.col("whole"), pl.col("whole_price")), (pl.col("each"), pl.col("each_price"))):
        given = said != ""
        faults += [
            (given & value.is_null(), "price '{}' is not a number", said),
            (given & ~value.is_finite(), "price '{}' is not a finite number", said),
            (given & (value <= 0), "price {} is no price: it must be above zero", said),
        ]
    both = (pl.col("whole") != "") & (pl.col("each") != "")
    apart = (pl.col("whole_price") / (pl.col("each_price") * pl.col("number")) - 1).abs() > _ROUNDING
    faults.append(
        (both & apart, "usd_per_hour {} is not accelerator_count x usd_per_accelerator_hour", pl.col("whole"))
    )
    empty = (pl.col("whole") != "") & (pl.col("each") == "") & (pl.col("count") == "")
    faults.append((empty, "accelerator_count: empty, and the price is of the whole machine", None))
    return faults


def _available_faults() -> list[tuple[pl.Expr, str, pl.Expr | None]]:
    import polars as pl

    said, units = pl.col("available"), pl.col("units")
    given = said != ""
    whole = units.is_finite().fill_null(False) & (units == units.floor()).fill_null(False)
    return [
        (given & ~whole, "available_units '{}' is not a whole number", said),
        (given & (units < 0), "available_units {} is below 0", said),
    ]


def _prices() -> list[pl.Expr]:
    """Return the selection that makes prices of drafts without faults."""
    import polars as pl

    accelerators = pl.col("number") * pl.col("per_package")
    named = pl.format("{}x {}", pl.col("number").cast(pl.Int64), pl.col("accelerator"))
    converted = pl.format("converted from {} at {} USD", pl.col("code"), pl.col("rate"))
    noted = pl.when(pl.col("note") == "").then(converted).otherwise(pl.col("note") + "; " + converted)
    note = pl.when(pl.col("code") == "USD").then(pl.col("note")).otherwise(noted)
    texts = ("provider", "region", "zone", "accelerator", "as_of", "source")
    return [
        pl.col("file"),
        pl.col("line").cast(pl.Int64),
        *(pl.col(name) for name in texts),
        pl.when(pl.col("instance_type") == "").then(named).otherwise(pl.col("instance_type")).alias("instance_type"),
        pl.col("term").alias("market"),
        accelerators.cast(pl.Int64).alias("count"),
        pl.col("usd_per_hour"),
        pl.col("units").clip(0, 2**53).cast(pl.Int64).alias("available"),
        note.alias("note"),
    ]
