"""Small price files of every format, and a catalog of a few accelerators, for the tests of price lists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokopt.catalog.price_lists import read_price_lists
from tokopt.catalog.price_names import load_price_names
from tokopt.domain.accelerators import Accelerator, PurchaseUnit, Topology
from tokopt.domain.offers import Offer, PriceList

CATALOGS = Path(__file__).parents[3] / "catalogs"
NAMES = load_price_names([CATALOGS])

SKYPILOT = (
    "InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,GpuInfo,Price,SpotPrice,Region,AvailabilityZone"
)
GPUHUNT = (
    "instance_name,location,price,cpu,memory,gpu_count,gpu_name,gpu_memory,spot,disk_size,gpu_vendor,flags,cpu_arch,"
    "provider_data"
)
FOCUS = (
    "ProviderName,RegionId,AvailabilityZone,ChargeCategory,ChargeClass,PricingCategory,PricingUnit,PricingQuantity,"
    "ListUnitPrice,ContractedUnitPrice,EffectiveCost,BillingCurrency,ChargePeriodStart,SkuPriceDetails"
)


def accelerator(name: str, *aliases: str, per_package: int = 1) -> Accelerator:
    """Return an accelerator of which only names matter."""
    return Accelerator(
        name=name,
        title=name,
        vendor="v",
        generation="g",
        aliases=aliases,
        memory_bytes=1.0,
        memory_bytes_per_s=1.0,
        dense_flop_per_s={},
        sparse_flop_per_s={},
        scale_up_size=8,
        scale_up_bytes_per_s=1.0,
        scale_up_topology=Topology.SWITCH,
        scale_out_bytes_per_s=None,
        accelerators_per_node=8,
        nodes_per_rack=None,
        purchase_unit=PurchaseUnit.NODE,
        board_w=None,
        server_w=None,
        all_in_w=1730.0,
        idle_w=None,
        per_package=per_package,
    )


ACCELERATORS = {
    a.name: a
    for a in (
        accelerator("h100_sxm", "H100", "H100-SXM", "H100-80G-SXM5"),
        accelerator("h100_nvl", "H100-NVL"),
        accelerator("h200_sxm", "H200"),
        accelerator("b200_sxm", "B200"),
        accelerator("a100_40g_sxm", "A100-40GB"),
        accelerator("a100_80g_sxm", "A100-80GB"),
        accelerator("a100_80g_pcie", "A100-80GB-PCIe"),
        accelerator("l4", "L4"),
        accelerator("l40s", "L40S"),
        accelerator("rtx_pro_6000", "RTXPRO6000", "RTX PRO 6000 96GB"),
        accelerator("tpu_v5e", "TPU-v5e"),
        accelerator("tpu_v5p", "TPU-v5p"),
        accelerator("tpu_v6e", "TPU-v6e"),
        accelerator("trainium1", "Trainium", per_package=2),
    )
}


def read(*names: Any, **options: Any) -> PriceList:
    """Read price lists by themselves: without embedded providers and ownership."""
    return read_price_lists(
        [str(name) for name in names],
        directories=(),
        accelerators=ACCELERATORS,
        ownership={},
        vocabulary=lambda: NAMES,
        **options,
    )


def written(path: Path, *lines: str, ending: str = "\n", encoding: str = "utf-8") -> Path:
    """Write lines to a file and return it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((ending.join(lines) + ending).encode(encoding))
    return path


def sky(
    machine: str = "m8",
    name: str = "H100",
    count: str = "8",
    price: str = "80",
    spot: str = "",
    region: str = "r1",
    zone: str = "",
    info: str = "",
) -> str:
    """Return a row of SkyPilot's list."""
    return f'{machine},{name},{count},96,1000,"{info}",{price},{spot},{region},{zone or region + "-a"}'


def hunt(
    machine: str = "m8",
    name: str = "H100",
    count: str = "8",
    memory: str = "80.0",
    price: str = "80",
    spot: str = "False",
    region: str = "r1",
    flags: str = "",
) -> str:
    """Return a row of a gpuhunt catalog."""
    return f"{machine},{region},{price},96,1000.0,{count},{name},{memory},{spot},,nvidia,{flags},x86,"


def charge(
    provider: str = "AWS",
    region: str = "us-east-1",
    zone: str = "",
    kind: str = "Usage",
    correction: str = "",
    category: str = "Standard",
    unit: str = "Hours",
    quantity: str = "10",
    listed: str = "98.32",
    contracted: str = "60",
    cost: str = "600",
    currency: str = "USD",
    period: str = "2026-09-01T00:00:00Z",
    details: str = '{""InstanceType"":""p5.48xlarge"",""GpuCount"":8}',
) -> str:
    """Return a row of a FOCUS export."""
    return (
        f"{provider},{region},{zone},{kind},{correction},{category},{unit},{quantity},{listed},{contracted},{cost},"
        f'{currency},{period},"{details}"'
    )


def prices(found: PriceList) -> list[tuple[str, str, int, str, float]]:
    """Return the gist of offers, sorted."""
    return sorted(
        (o.instance_type, o.accelerator, o.accelerator_count, o.market.value, round(o.usd_per_hour, 6))
        for o in found.offers
    )


def only(found: PriceList) -> Offer:
    """Return the one offer that there is."""
    (offer,) = found.offers
    return offer
