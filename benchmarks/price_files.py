"""Synthetic price files of a million rows, one a format, in the proportions of real ones.

python benchmarks/price_files.py DIRECTORY [ROWS]
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import polars as pl

ROWS = 1_000_000
SEED = 20261124
MACHINES = (
    ("p5.48xlarge", "H100", 8, 80, 55.0), ("p5en.48xlarge", "H200", 8, 141, 63.0), ("g6.48xlarge", "L4", 8, 24, 13.4),
    ("p4de.24xlarge", "A100-80GB", 8, 80, 27.4), ("p4d.24xlarge", "A100", 8, 40, 22.0),
    ("p6-b200.48xlarge", "B200", 8, 180, 114.0), ("g6e.12xlarge", "L40S", 4, 48, 10.5),
    ("g4dn.xlarge", "T4", 1, 16, 0.53),
)  # fmt: skip
ACCELERATED = 0.3  # share of rows with accelerators


def columns(rows: int) -> pl.DataFrame:
    """Return what every format is made from: a machine in a zone, with prices; one of three has accelerators."""
    draw = random.Random(SEED)
    chosen = [draw.randrange(len(MACHINES)) if draw.random() < ACCELERATED else -1 for _ in range(rows)]
    place = pl.int_range(rows, eager=True)
    region = pl.Series("region", ["region-" + str(n) for n in range(40)]).gather(place // 7 % 40)
    base = pl.DataFrame(
        {
            "machine": [MACHINES[n][0] if n >= 0 else "m7i.xlarge" for n in chosen],
            "name": [MACHINES[n][1] if n >= 0 else None for n in chosen],
            "count": [float(MACHINES[n][2]) if n >= 0 else None for n in chosen],
            "memory": [float(MACHINES[n][3]) if n >= 0 else None for n in chosen],
            "price": [MACHINES[n][4] * draw.uniform(0.8, 1.25) if n >= 0 else 0.2 for n in chosen],
        }
    )
    zone = region + "-" + (place // 280).cast(pl.String)
    return base.with_columns(region.alias("region"), zone.alias("zone"), (pl.col("price") * 0.4).alias("spot"))


def skypilot(base: pl.DataFrame) -> pl.DataFrame:
    info = "{'Gpus': [{'Name': '" + pl.col("name") + "', 'Manufacturer': 'NVIDIA', 'Count': 8, 'MemoryInfo': {}}]}"
    return base.select(
        InstanceType="machine", AcceleratorName="name", AcceleratorCount="count", vCPUs=pl.lit(96.0),
        MemoryGiB=pl.lit(1024.0), GpuInfo=info, Price=pl.col("price").round(4), SpotPrice=pl.col("spot").round(4),
        Region="region", AvailabilityZone="zone", Arch=pl.lit("x86_64"),
    )  # fmt: skip


def gpuhunt(base: pl.DataFrame) -> pl.DataFrame:
    spot = pl.int_range(pl.len()) % 2 == 0
    plain = pl.col("name").str.replace("-80GB", "", literal=True)
    return base.select(
        instance_name="machine", location="zone", price=pl.when(spot).then("spot").otherwise("price").round(4),
        cpu=pl.lit(96), memory=pl.lit(1024.0), gpu_count=pl.col("count").fill_null(0).cast(pl.Int64), gpu_name=plain,
        gpu_memory="memory", spot=spot, disk_size=pl.lit(None, dtype=pl.Float64), gpu_vendor=pl.lit("nvidia"),
        flags=pl.lit(""), cpu_arch=pl.lit("x86"), provider_data=pl.lit(""),
    )  # fmt: skip


def focus(base: pl.DataFrame) -> pl.DataFrame:
    day = "2026-09-" + (pl.int_range(pl.len()) % 28 + 1).cast(pl.String).str.zfill(2) + "T00:00:00Z"
    count = (
        pl.when(pl.col("count") > 0)
        .then(',"GpuCount":' + pl.col("count").cast(pl.Int64).cast(pl.String))
        .otherwise(pl.lit(""))
    )
    return base.select(
        BilledCost=pl.col("price"), BillingCurrency=pl.lit("USD"), ChargeCategory=pl.lit("Usage"),
        ChargePeriodStart=day, ContractedUnitPrice=pl.col("price").round(4), EffectiveCost=pl.col("price").round(4),
        ListUnitPrice=pl.col("price") * 1.2, PricingCategory=pl.lit("Standard"), PricingQuantity=pl.lit(1.0),
        PricingUnit=pl.lit("Hours"), ProviderName=pl.lit("AWS"), RegionId="region", AvailabilityZone=pl.lit(""),
        ServiceName=pl.lit("Amazon Elastic Compute Cloud"), SkuId=pl.lit("SKU"), ChargeDescription=pl.lit("a charge"),
        SkuPriceDetails='{"InstanceType":"' + pl.col("machine") + '"' + count + "}",
    )  # fmt: skip


def own(base: pl.DataFrame) -> pl.DataFrame:
    """Every row is an offer here: nothing can be left out, so this one needs the most memory."""
    known = pl.col("name").is_not_null() & (pl.col("name") != "T4") & (pl.col("name") != "A100")
    return base.select(
        provider=pl.lit("acme"), region="region", zone="zone",
        instance_type=pl.col("machine") + "-" + (pl.int_range(pl.len()) % 7).cast(pl.String),
        accelerator=pl.when(known).then("name").otherwise(pl.lit("H100")), accelerator_count=pl.lit(8),
        market=pl.lit("on_demand"), usd_per_hour=(pl.col("price") + 20).round(4), as_of=pl.lit("2026-09-01"),
    )  # fmt: skip


FORMATS = {"skypilot": skypilot, "gpuhunt": gpuhunt, "focus": focus, "own": own}


def write(directory: Path, rows: int = ROWS) -> dict[str, list[Path]]:
    """Write a CSV and a Parquet file of every format and return their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    base = columns(rows)
    found = {}
    for name, make in FORMATS.items():
        frame = make(base)
        paths = [directory / f"aws-{name}.csv", directory / f"aws-{name}.parquet"]
        frame.write_csv(paths[0])
        frame.write_parquet(paths[1])
        found[name] = paths
    return found


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        raise SystemExit(__doc__)
    for name, paths in write(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) == 3 else ROWS).items():
        print(name, *(f"{path} {path.stat().st_size / 1e6:,.0f} MB" for path in paths))
