"""FOCUS exports of charges, 1.0 to 1.2, for the unit prices that a customer really pays.

A row is a charge, not a price: charges of one machine, place and market are gathered, and the price is that of the
latest day, weighted by quantity. There is no key for the model of an accelerator; it follows from the machine's name.
FOCUS states contracted, list and effective prices in the billing currency.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any, Final

from tokopt.catalog.price_formats.drafts import (
    LINE,
    NO_ACCELERATOR,
    Reading,
    batches,
    coalesced,
    draft,
    figures,
    first_fault,
    machine_expression,
    number,
)
from tokopt.catalog.price_names import machine_key

if TYPE_CHECKING:
    import polars as pl

    from tokopt.catalog.price_formats.tables import PriceTable

TITLE: Final = "focus"
NEEDED: Final = frozenset({"PricingUnit", "PricingQuantity"})
PRICES: Final = frozenset({"ContractedUnitPrice", "ListUnitPrice", "EffectiveCost"})
_NAMED: Final = {  # our word -> columns, the first that says something
    "provider": ("serviceprovidername", "providername", "hostprovidername", "publishername", "publisher"),
    "region": ("regionid", "regionname"),
    "zone": ("availabilityzone",),
    "category": ("pricingcategory",),
    "charge": ("chargecategory",),
    "class": ("chargeclass",),
    "unit": ("pricingunit",),
    "period": ("chargeperiodstart", "billingperiodstart"),
    "billing": ("billingcurrency",),
    "pricing": ("pricingcurrency", "billingcurrency"),
    "contracted": ("contractedunitprice",),
    "listed": ("listunitprice",),
    "cost": ("effectivecost",),
    "quantity": ("pricingquantity",),
    "contracted_pricing": ("pricingcurrencycontractedunitprice",),
    "listed_pricing": ("pricingcurrencylistunitprice",),
    "status": ("commitmentdiscountstatus",),
    "term": ("commitmentdiscountname", "commitmentdiscounttype"),
}
# Where a machine's name stands when SkuPriceDetails (since 1.1) does not say it.
_MACHINE_COLUMNS: Final = (
    "xinstancetype", "xusagetype", "xskudetails", "xskumetername", "skumeter", "chargedescription", "resourcetype",
)  # fmt: skip
_FIGURES: Final = ("contracted", "listed", "cost", "quantity", "contracted_pricing", "listed_pricing")
_MARKETS: Final = {"standard": "on_demand", "": "on_demand", "dynamic": "spot", "committed": "reserved"}
_HOURS: Final = {"second": 1 / 3600, "sec": 1 / 3600, "minute": 1 / 60, "min": 1 / 60, "hour": 1.0, "hr": 1.0, "h": 1.0,
                 "day": 24.0}  # fmt: skip
_UNIT: Final = r"^(?:(\d+(?:\.\d+)?)\s*)?(?:(gpu|accelerator|instance|vm|node)[\s-]+)?([a-z]+?)s?$"
_KEY: Final = ("provider", "region", "zone", "instance_type", "market", "currency", "basis", "fault", "cell")


def matches(columns: Collection[str]) -> bool:
    """Return whether folded names of columns are those of this format."""
    there = set(columns)
    return {name.lower() for name in NEEDED} <= there and bool(there & {name.lower() for name in PRICES})


def drafts(table: PriceTable, reading: Reading) -> Iterator[pl.DataFrame]:
    """Yield one draft a machine, place, market and basis of its price."""
    import polars as pl

    gathered = []
    for batch in batches(table, _charges(table, reading)):
        kept = batch.filter(pl.col("passed") == "")
        for what, rows in batch.filter(pl.col("passed") != "")["passed"].value_counts().iter_rows():
            reading.pass_over(what, rows)
        reading.seen += kept.height
        gathered.append(_latest(_priced(kept, reading)))
    if not gathered:
        return
    found = _latest(pl.concat(gathered))
    further = int((found["rows"] - 1).sum())
    reading.seen -= further  # they were counted as drafts
    reading.pass_over("further charges at a price that is known", further)
    note = (
        pl.col("basis")
        + " unit price"
        + pl.when(pl.col("rows") > 1)
        .then(", over " + pl.col("rows").cast(pl.String) + " charges")
        .otherwise(pl.lit(""))
    )
    each = pl.col("per_accelerator")
    price = pl.when(pl.col("amount") > 0).then(pl.col("paid") / pl.col("amount")).cast(pl.String)
    yield found.sort(LINE).select(
        draft(
            {
                **{
                    name: pl.col(name) for name in ("provider", "region", "zone", "market", "currency", "fault", "cell")
                },
                "instance_type": pl.col("instance_type"),
                "name": pl.col("accelerator"),
                "count": pl.col("number").cast(pl.String),
                "whole": pl.when(each).then(pl.lit("")).otherwise(price.fill_null("")),
                "each": pl.when(each).then(price.fill_null("")).otherwise(pl.lit("")),
                "as_of": pl.col("day"),
                "source": f"{table.path.name} (FOCUS)",
                "note": note,
            }
        )
    )


def _charges(table: PriceTable, reading: Reading) -> pl.LazyFrame:
    """Return the charges with the machine that each is about, and why others are passed over."""
    import polars as pl

    words = {name: coalesced(table, *columns) for name, columns in _NAMED.items()}
    words |= {name: figures(table, words[name]) for name in _FIGURES}
    machines = reading.names.machines
    known = [machine_key(m.name) for m in machines]
    details = _details(table)
    stated = _property(details, "InstanceType")
    elsewhere = pl.lit("", dtype=pl.String)
    if known:
        pattern = (
            r"(?i)(?:^|[^\w.-])((?:standard_)?(?:"
            + "|".join(re.escape(name).replace("_", "[_ ]") for name in sorted(known, key=len, reverse=True))
            + r"))(?:$|[^\w.-])"
        )
        for column in reversed([table.columns[name] for name in _MACHINE_COLUMNS if name in table.columns]):
            here = pl.col(column).cast(pl.String, strict=False).str.extract(pattern, 1)
            elsewhere = pl.coalesce(here, elsewhere)
    instance = pl.when(stated != "").then(stated).otherwise(elsewhere)
    accelerators = {key: m.accelerator for key, m in zip(known, machines, strict=True)}
    counts = {key: float(m.count) for key, m in zip(known, machines, strict=True)}
    frame = table.frame.select(
        pl.col(LINE),
        *(expression.alias(name) for name, expression in words.items()),
        instance.alias("instance_type"),
        number(_property(details, "GpuCount")).alias("stated_number"),
        coalesced(table, "commitmentdiscountid").alias("commitment"),
    )
    key = machine_expression(pl.col("instance_type"))
    charge, category = pl.col("charge").str.to_lowercase(), pl.col("class").str.to_lowercase()
    passed = (
        pl.when(~charge.is_in(["usage", ""]))
        .then(pl.lit("purchases, taxes, credits and adjustments"))
        .when(category == "correction")
        .then(pl.lit("corrections"))
        .when(pl.col("status").str.to_lowercase() == "unused")
        .then(pl.lit("unused commitments"))
        .when(pl.col("accelerator").is_null() & ~(pl.col("stated_number") > 0).fill_null(False))
        .then(pl.lit(NO_ACCELERATOR))
        .otherwise(pl.lit(""))
    )
    return frame.with_columns(
        key.replace_strict(list(accelerators), list(accelerators.values()), default=None, return_dtype=pl.String).alias(
            "accelerator"
        ),
        key.replace_strict(list(counts), list(counts.values()), default=None, return_dtype=pl.Float64).alias("known"),
    ).with_columns(passed.alias("passed"))


def _details(table: PriceTable) -> pl.Expr:
    """Return SkuPriceDetails as JSON text; Parquet may have it as a struct or as a list of keys and values."""
    import polars as pl

    name = table.columns.get("skupricedetails")
    if name is None:
        return pl.lit("", dtype=pl.String)
    kind = table.frame.collect_schema()[name]
    if isinstance(kind, pl.Struct):
        return pl.col(name).struct.json_encode().fill_null("")
    if isinstance(kind, pl.List) and isinstance(kind.inner, pl.Struct) and len(kind.inner.fields) == 2:
        first, second = (field.name for field in kind.inner.fields)
        pair = pl.format(
            '"{}":"{}"',
            pl.element().struct.field(first).cast(pl.String).fill_null(""),
            pl.element().struct.field(second).cast(pl.String).fill_null(""),
        )
        return pl.col(name).list.eval(pair).list.join(",").fill_null("")
    return pl.col(name).cast(pl.String, strict=False).fill_null("")


def _property(details: pl.Expr, key: str) -> pl.Expr:
    """Return a property of SkuPriceDetails; drafts of 1.1 prefix the keys with `F_`."""
    return details.str.extract(rf'"(?:F_|x_)?{key}"\s*:\s*"?([^",}}]*)', 1).str.strip_chars().fill_null("")


def _priced(rows: pl.DataFrame, reading: Reading) -> pl.DataFrame:
    """Return charges with their price an hour, its basis and currency, or what is wrong with them."""
    import polars as pl

    unit = pl.col("unit").str.to_lowercase().str.strip_chars()
    amount = unit.str.extract(_UNIT, 1).cast(pl.Float64, strict=False).fill_null(1.0)
    per = unit.str.extract(_UNIT, 2).fill_null("")
    hours = amount * unit.str.extract(_UNIT, 3).replace_strict(list(_HOURS), list(_HOURS.values()), default=None)
    committed = pl.col("category").str.to_lowercase() == "committed"
    quantity = number(pl.col("quantity"))
    effective = number(pl.col("cost")) / pl.when(quantity > 0).then(quantity)
    has_rate = pl.col("billing").str.to_uppercase().is_in(["", "USD", *reading.rates])
    choices: tuple[tuple[str, pl.Expr, str], ...] = (
        ("effective", pl.when(committed).then(effective), "billing"),
        ("contracted", pl.when(~committed & has_rate).then(number(pl.col("contracted"))), "billing"),
        ("contracted", pl.when(~committed).then(number(pl.col("contracted_pricing"))), "pricing"),
        ("contracted", pl.when(~committed).then(number(pl.col("contracted"))), "billing"),
        ("effective", effective, "billing"),
        ("list", number(pl.col("listed")), "billing"),
        ("list", number(pl.col("listed_pricing")), "pricing"),
    )
    price: pl.Expr = pl.lit(None, dtype=pl.Float64)
    basis, currency = pl.lit("", dtype=pl.String), pl.col("billing")
    for name, value, of in reversed(choices):
        given = value.is_not_null()
        price = pl.when(given).then(value).otherwise(price)
        basis = pl.when(given).then(pl.lit(name)).otherwise(basis)
        currency = pl.when(given).then(pl.col(of)).otherwise(currency)
    market = (
        pl.col("category")
        .str.to_lowercase()
        .replace_strict(list(_MARKETS), list(_MARKETS.values()), default=pl.col("category"), return_dtype=pl.String)
    )
    years = pl.col("term").str.to_lowercase().str.extract(r"\b(1|3|one|three)[\s_-]*y", 1)
    term = years.replace_strict(
        ["1", "one", "3", "three"], ["reserved_1y", "reserved_1y", "reserved_3y", "reserved_3y"], default="reserved"
    )
    differs = (pl.col("stated_number") != pl.col("known")).fill_null(False)
    fault, cell = first_fault(_faults(hours, differs))
    return rows.select(
        pl.col(LINE),
        pl.col("provider").replace_strict(
            (names := rows["provider"].unique().to_list()), [reading.names.provider(n) for n in names] or [],
            default="", return_dtype=pl.String,
        ).alias("provider") if rows.height else pl.col("provider"),
        "region", "zone", "instance_type", "accelerator",
        pl.coalesce("known", "stated_number").alias("number"),
        pl.when(market == "reserved").then(term).otherwise(market).alias("market"),
        currency.str.to_uppercase().alias("currency"), basis.alias("basis"), fault.alias("fault"), cell.alias("cell"),
        pl.col("period").str.slice(0, 10).alias("day"), per.is_in(["gpu", "accelerator"]).alias("per_accelerator"),
        (price / hours * pl.when(quantity > 0).then(quantity).otherwise(1.0)).alias("paid"),
        pl.when(price.is_null()).then(0.0).when(quantity > 0).then(quantity).otherwise(1.0).alias("amount"),
        pl.lit(1, dtype=pl.Int64).alias("rows"),
    )  # fmt: skip


def _faults(hours: pl.Expr, differs: pl.Expr) -> list[tuple[pl.Expr, str, Any]]:
    """Return what can be wrong with a charge of a machine with accelerators."""
    import polars as pl

    named = pl.col("instance_type") != ""
    return [
        (~named, "GpuCount without an InstanceType: which accelerator it is cannot be told", None),
        (
            pl.col("accelerator").is_null(),
            "machine {} is not in price_names.yaml: which accelerator it has is not known",
            pl.col("instance_type"),
        ),
        (
            differs,
            "GpuCount {} is not what price_names.yaml says of the machine",
            pl.col("stated_number").cast(pl.Int64, strict=False),
        ),
        (hours.is_null(), "priced per {}, not per hour", pl.col("unit")),
    ]


def _latest(rows: pl.DataFrame) -> pl.DataFrame:
    """Return one row a machine, place, market and basis: its latest day, prices weighted by quantity."""
    import polars as pl

    last = pl.col("day") == pl.col("day").max()
    return rows.group_by(_KEY, maintain_order=True).agg(
        pl.col(LINE).filter(last).min(),
        pl.col("paid").filter(last).sum(),
        pl.col("amount").filter(last).sum(),
        pl.col("rows").sum(),
        pl.col("day").max(),
        pl.col("accelerator", "number", "per_accelerator").first(),
    )
