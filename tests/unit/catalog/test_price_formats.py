"""Price files as others write them: every trap that was met in them has a test."""

from __future__ import annotations

import polars as pl
import pytest

from price_files import (
    ACCELERATORS,
    CATALOGS,
    FOCUS,
    GPUHUNT,
    SKYPILOT,
    charge,
    hunt,
    only,
    prices,
    read,
    sky,
    written,
)
from tokopt.catalog.price_formats import rules
from tokopt.domain.offers import Market, PriceSelection
from tokopt.errors import CatalogError, InputError

# --- SkyPilot ---


@pytest.fixture
def skypilot(tmp_path):
    def run(*rows, cloud="acme", header=SKYPILOT, **options):
        return read(written(tmp_path / "v8" / cloud / "vms.csv", header, *rows), **options)

    return run


def test_on_demand_and_spot_stand_side_by_side(skypilot):
    found = skypilot(sky(price="80", spot="30"))
    assert prices(found) == [("m8", "h100_sxm", 8, "on_demand", 80.0), ("m8", "h100_sxm", 8, "spot", 30.0)]
    assert {(o.provider, o.region, o.zone) for o in found.offers} == {("acme", "r1", "r1-a")}
    assert found.files[0].format == "skypilot"


def test_the_provider_is_the_directory_or_the_file_by_any_of_its_names(skypilot, tmp_path):
    assert only(skypilot(sky(), cloud="lambdalabs")).provider == "lambda"
    assert only(read(written(tmp_path / "datacrunch.csv", SKYPILOT, sky()))).provider == "verda"


@pytest.mark.parametrize(
    "header",
    [
        "InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,Price,Region,GpuInfo,SpotPrice",
        "InstanceType,UpstreamCloudId,vCPUs,MemoryGiB,AcceleratorName,AcceleratorCount,GpuInfo,Region,Price,SpotPrice",
        "Region,Price,SpotPrice,AcceleratorCount,AcceleratorName,InstanceType,Arch,LocalDiskType,NVMeSupported,"
        "LocalDiskSize,LocalDiskCount,MaximumEfaInterfaces,AvailabilityZone,StorageGiB",
        "InstanceType,vCPUs,MemoryGiB,AcceleratorName,AcceleratorCount,GPUInfo,Region,AvailabilityZone,Price,SpotPrice",
    ],
    ids=["no zone", "broker", "v9", "v5"],
)
def test_columns_of_every_version_in_any_order(skypilot, header):
    cells = {"InstanceType": "m8", "AcceleratorName": "H100", "AcceleratorCount": "8.0", "Price": "80", "Region": "r1",
             "SpotPrice": "30", "UpstreamCloudId": "up-1"}  # fmt: skip
    found = skypilot(",".join(cells.get(name, "") for name in header.split(",")), header=header)
    assert prices(found) == [("m8", "h100_sxm", 8, "on_demand", 80.0), ("m8", "h100_sxm", 8, "spot", 30.0)]
    assert all(("up-1" in o.note) is ("UpstreamCloudId" in header) for o in found.offers)


def test_machines_without_accelerators_are_passed_over_and_not_rejected(skypilot):
    found = skypilot(sky(), sky(machine="cpu", name="", count="0", price="1"), sky(machine="cpu2", name="", count=""))
    assert found.files[0].passed_over == {"no accelerator": 2}
    assert found.files[0].rows == 3 and not found.rejected


@pytest.mark.parametrize(
    "info",
    [
        "{'Gpus': [{'Name': 'H100', 'Count': 8.0, 'MemoryInfo': {'SizeInMiB': 80}, 'TotalGpuMemoryInMiB': 640}]}",
        "{'Gpus': [{'Name': 'H100', 'Count': 8, 'MemoryInfo': {'SizeInMiB': 655360}}]}",
        "{'Gpus': [{'Name': 'H100', 'Count': 8, 'MemoryInfo': {'SizeInMiB': 0}}], 'TotalGpuMemoryInMiB': 0}",
        '{""Gpus"": [{""Name"": ""H100"", ""Count"": 8, ""MemoryInfo"": {""SizeInMiB"": 81559}}]}',
        "not a literal at all {",
    ],
    ids=["GB as MiB", "total", "zero", "JSON", "broken"],
)
def test_what_gpu_info_says_of_memory_changes_nothing(skypilot, info):
    assert prices(skypilot(sky(info=info))) == [("m8", "h100_sxm", 8, "on_demand", 80.0)]


def test_plain_a100_has_40_gb_here(skypilot):
    found = skypilot(sky(name="A100"), sky(machine="n8", name="A100-80GB"))
    assert {o.instance_type: o.accelerator for o in found.offers} == {"m8": "a100_40g_sxm", "n8": "a100_80g_sxm"}


@pytest.mark.parametrize(
    ("cloud", "machine", "name", "means"),
    [
        ("azure", "Standard_NC24ads_A100_v4", "A100-80GB", "a100_80g_pcie"),
        ("azure", "Standard_ND96amsr_A100_v4", "A100-80GB", "a100_80g_sxm"),
        ("azure", "Standard_NC40ads_H100_v5", "H100", "h100_nvl"),
        ("azure", "Standard_ND96isr_H100_v5", "H100", "h100_sxm"),
        ("hyperstack", "n3-A100x8-NVLink", "A100-80GB", "a100_80g_pcie"),
        ("shadeform", "crusoe_A100-80GBx2", "A100-80GB", "a100_80g_pcie"),
        ("shadeform", "lambdalabs_A100-sxm4-80GBx8", "A100-80GB", "a100_80g_sxm"),
        ("acme", "x", "H100-80G-SXM5", "h100_sxm"),
        ("acme", "x", "RTX-PRO-6000-96GB", "rtx_pro_6000"),
    ],
)
def test_one_accelerator_has_many_names_and_one_name_may_hide_two(skypilot, cloud, machine, name, means):
    assert only(skypilot(sky(machine=machine, name=name), cloud=cloud)).accelerator == means


def test_placeholders_are_rejected(skypilot):
    found = skypilot(
        sky(machine="good"),
        sky(machine="zero", price="0.0"),
        sky(machine="", name="tpu-v6e-4", count="1", price="700.0", spot="700.0"),
        sky(machine="", name="tpu-v6e-256", count="1", price="691.2", spot="139.3"),
    )
    assert [p[0] for p in prices(found)] == ["good", "tpu-v6e-256", "tpu-v6e-256"]
    assert found.rejected_counts == {
        "price is no price: it must be above zero": 1,
        "price is a placeholder": 2,
    }
    assert {r.line for r in found.rejected} == {3, 4}


def test_700_is_no_placeholder_on_a_gpu(skypilot):
    assert only(skypilot(sky(count="8", price="700.0"))).usd_per_hour == 700.0


@pytest.mark.parametrize(
    ("name", "accelerator", "chips"),
    [
        ("tpu-v5p-8", "tpu_v5p", 4),
        ("tpu-v5p-12288", "tpu_v5p", 6144),
        ("tpu-v5litepod-4", "tpu_v5e", 4),
        ("tpu-v6e-8", "tpu_v6e", 8),
        ("tpu-v6e-1", "tpu_v6e", 1),
    ],
)
def test_a_slice_has_its_chips_in_its_name(skypilot, name, accelerator, chips):
    offer = only(skypilot(sky(machine="", name=name, count="1", price=str(4.2 * chips), info=name)))
    assert (offer.accelerator, offer.accelerator_count, offer.instance_type) == (accelerator, chips, name)
    assert offer.usd_per_accelerator_hour == pytest.approx(4.2)


@pytest.mark.parametrize("name", ["tpu-v2-8", "tpu-v3-8", "tpu-v4-8"])
def test_older_slices_are_unknown_accelerators_rather_than_something_else(skypilot, name):
    found = skypilot(sky(), sky(machine="", name=name, count="1", price="4.5"))
    assert len(found.offers) == 1
    assert list(found.rejected_counts) == [f"accelerator 'TPU-{name.split('-')[1]}' is not in the catalog"]


def test_gcp_prices_a_machine_in_two_rows_that_are_added_up(skypilot):
    found = skypilot(
        sky(machine="a3-highgpu-8g", name="", count="", price="9.46", spot="2.88", zone="r1-a"),
        sky(machine="a3-highgpu-8g", name="", count="", price="10.0", spot="", zone="r1-b"),
        sky(machine="", price="79.0", spot="21.12", zone="r1-a"),
        sky(machine="", price="79.0", spot="21.12", zone="r1-b"),
        sky(machine="n2-standard-8", name="", count="", price="0.4"),
        cloud="gcp",
    )
    assert prices(found) == [
        ("a3-highgpu-8g", "h100_sxm", 8, "on_demand", 88.46),
        ("a3-highgpu-8g", "h100_sxm", 8, "on_demand", 89.0),
        ("a3-highgpu-8g", "h100_sxm", 8, "spot", 24.0),
    ]
    assert not found.rejected
    assert found.files[0].passed_over == {"hosts of accelerators in rows of their own": 2, "no accelerator": 1}


def test_accelerators_that_fit_several_hosts_make_an_offer_with_each(skypilot):
    found = skypilot(
        sky(machine="g2-standard-4", name="", count="", price="0.15"),
        sky(machine="g2-standard-8", name="", count="", price="0.30"),
        sky(machine="g2-standard-24", name="", count="", price="0.9"),
        sky(machine="", name="L4", count="1", price="0.56"),
        cloud="gcp",
    )
    assert prices(found) == [
        ("g2-standard-4", "l4", 1, "on_demand", 0.71),
        ("g2-standard-8", "l4", 1, "on_demand", 0.86),
    ]


def test_two_machines_with_the_same_boards_keep_their_own_accelerator_rows(skypilot):
    found = skypilot(
        sky(machine="a3-highgpu-8g", name="", count="", price="9"),
        sky(machine="a3-megagpu-8g", name="", count="", price="12"),
        sky(machine="", name="H100", price="80"),
        sky(machine="", name="H100-MEGA", price="85"),
        cloud="gcp",
    )
    assert prices(found) == [
        ("a3-highgpu-8g", "h100_sxm", 8, "on_demand", 89.0),
        ("a3-megagpu-8g", "h100_sxm", 8, "on_demand", 97.0),
    ]


def test_a_placeholder_for_the_host_spoils_the_sum(skypilot):
    found = skypilot(
        sky(),
        sky(machine="a4-highgpu-8g", name="", count="", price="0.0"),
        sky(machine="", name="B200", price="60"),
        cloud="gcp",
    )
    assert len(found.offers) == 1
    assert found.rejected[0].reason == "the host's price 0.0 is a placeholder" and found.rejected[0].line == 4


def test_accelerators_without_their_host_are_no_machine(skypilot):
    found = skypilot(sky(), sky(machine="", name="H100", price="60", spot="20", zone="elsewhere"), cloud="gcp")
    assert len(found.offers) == 1
    assert sum(found.rejected_counts.values()) == 2
    assert "host machine" in found.rejected[0].reason


@pytest.mark.parametrize(("count", "said"), [("0", "a fraction of an accelerator"), ("0.125", "is not a whole number")])
def test_fractions_of_an_accelerator_are_rejected(skypilot, count, said):
    found = skypilot(sky(), sky(machine="g6f.large", name="L4", count=count, price="0.2"))
    assert len(found.offers) == 1 and said in found.rejected[0].reason


def test_spot_without_on_demand_is_kept_and_a_row_without_prices_is_not(skypilot):
    found = skypilot(sky(price="", spot="30"), sky(machine="none", price="", spot=""))
    assert [p[3] for p in prices(found)] == ["spot"]
    assert found.rejected[0].reason == "no price" and found.rejected[0].line == 3


@pytest.mark.parametrize(("spot", "flagged"), [("79.99", False), ("80", True), ("97", True)])
def test_spot_that_is_not_below_on_demand_is_kept_with_a_flag(skypilot, spot, flagged):
    found = skypilot(sky(price="80", spot=spot))
    flags = {o.market: o.flags for o in found.offers}
    assert flags == {Market.ON_DEMAND: (), Market.SPOT: (rules.SPOT_NOT_BELOW,) if flagged else ()}


def test_a_reduced_rate_taken_for_the_list_price_is_rejected(skypilot):
    rows = [sky(price="88.5", region=f"r{n}") for n in range(3)]
    found = skypilot(*rows, sky(price="33.6", region="us-central1"))
    assert {o.usd_per_hour for o in found.offers} == {88.5}
    assert found.rejected_counts == {rules.REDUCED_RATE: 1} and found.rejected[0].line == 5


def test_the_median_leaves_out_the_own_region_and_needs_two_others(skypilot):
    assert len(skypilot(sky(price="30"), sky(price="88", region="r2")).offers) == 2
    found = skypilot(sky(price="40"), sky(price="88", region="r2"), sky(price="90", region="r3"))
    assert sorted(o.usd_per_hour for o in found.offers) == [88.0, 90.0]  # 40 is under half of 89
    found = skypilot(sky(price="46"), sky(price="88", region="r2"), sky(price="90", region="r3"))
    assert len(found.offers) == 3


def test_spot_far_below_is_kept_with_a_flag(skypilot):
    rows = [sky(price="", spot="30", region=f"r{n}") for n in range(3)]
    found = skypilot(*rows, sky(price="", spot="10", region="x"))
    assert {o.region: o.flags for o in found.offers}["x"] == (rules.FAR_BELOW,)
    assert len(found.offers) == 4


def test_doubles_are_rejected(skypilot):
    found = skypilot(sky(), sky(), sky(price="90"))
    assert len(found.offers) == 1 and found.rejected_counts == {rules.DUPLICATE: 2}


@pytest.mark.parametrize("price", ["-5", "1e9", "0.0001", "inf", "nan", "$3", "1 000"])
def test_negative_and_absurd_prices_are_rejected(skypilot, price):
    found = skypilot(sky(), sky(machine="bad", price=price))
    assert [o.instance_type for o in found.offers] == ["m8"]
    assert found.rejected[0].line == 3 and price in found.rejected[0].reason


def test_an_unknown_accelerator_gets_the_nearest_names(skypilot):
    found = skypilot(sky(), sky(machine="x", name="H10O"))
    assert found.rejected[0].reason.startswith("accelerator 'H10O' is not in the catalog; did you mean h100_")
    assert list(found.rejected_counts) == ["accelerator 'H10O' is not in the catalog"]


def test_accelerators_with_several_parts_in_a_package_are_counted_in_parts(skypilot):
    assert only(skypilot(sky(name="Trainium", count="16", price="21.5"))).accelerator_count == 32


def test_the_real_names_of_the_catalog_resolve_everywhere(tmp_path):
    import tokopt

    host, part = sky(machine="a2-highgpu-1g", name="", count="", price="0.9"), sky(machine="", name="A100", count="1")
    found = tokopt.check_prices(written(tmp_path / "gcp.csv", SKYPILOT, host, part))
    assert found.accelerators == {"a100_40g_sxm": 1}


# --- gpuhunt ---


@pytest.fixture
def gpuhunt(tmp_path):
    def run(*rows, name="aws.csv", header=GPUHUNT):
        return read(written(tmp_path / name, header, *rows))

    return run


def test_spot_is_a_row_of_its_own(gpuhunt):
    found = gpuhunt(hunt(price="80"), hunt(price="30", spot="True"), hunt(machine="n", price="20", spot="true"))
    assert prices(found) == [
        ("m8", "h100_sxm", 8, "on_demand", 80.0),
        ("m8", "h100_sxm", 8, "spot", 30.0),
        ("n", "h100_sxm", 8, "spot", 20.0),
    ]
    assert {o.provider for o in found.offers} == {"aws"} and found.files[0].format == "gpuhunt"


@pytest.mark.parametrize(
    ("name", "memory", "means"),
    [
        ("A100", "40.0", "a100_40g_sxm"),
        ("A100", "80.0", "a100_80g_sxm"),
        ("A100", "81920", "a100_80g_sxm"),
        ("A100", "79.6", "a100_80g_sxm"),
        ("H100", "80", "h100_sxm"),
        ("H100", "94", "h100_nvl"),
        ("H100NVL", "94", "h100_nvl"),
        ("H200", "140", "h200_sxm"),
        ("B200", "180", "b200_sxm"),
        ("v5litepod", "16", "tpu_v5e"),
    ],
)
def test_memory_tells_variants_of_one_name(gpuhunt, name, memory, means):
    assert only(gpuhunt(hunt(name=name, memory=memory))).accelerator == means


def test_plain_a100_without_its_memory_cannot_be_told(gpuhunt):
    found = gpuhunt(hunt(), hunt(machine="x", name="A100", memory=""))
    assert [o.instance_type for o in found.offers] == ["m8"]
    assert "accelerator 'A100' is not in the catalog" in found.rejected[0].reason


def test_the_first_version_of_the_columns(gpuhunt):
    header = "instance_name,location,price,cpu,memory,gpu_count,gpu_name,gpu_memory,spot"
    assert len(gpuhunt("m8,r1,80,96,1000,8,H100,80,False", "cpu,r1,1,4,16,0,,,False", header=header).offers) == 1


def test_machines_without_gpus_are_passed_over_here_too(gpuhunt):
    found = gpuhunt(hunt(), hunt(machine="cpu", name="", count="0", memory=""))
    assert found.files[0].passed_over == {"no accelerator": 1} and not found.rejected


def test_what_is_neither_spot_nor_not_is_an_unknown_market(gpuhunt):
    found = gpuhunt(hunt(), hunt(machine="x", spot="maybe"))
    assert "unknown market 'maybe'" in found.rejected[0].reason


# --- FOCUS ---


@pytest.fixture
def focus(tmp_path):
    def run(*rows, header=FOCUS, **options):
        return read(written(tmp_path / "export.csv", header, *rows), **options)

    return run


def test_the_contracted_price_of_a_machine_with_its_date(focus):
    offer = only(focus(charge()))
    assert (offer.provider, offer.region, offer.instance_type) == ("aws", "us-east-1", "p5.48xlarge")
    assert (offer.accelerator, offer.accelerator_count, offer.usd_per_hour) == ("h100_sxm", 8, 60.0)
    assert offer.as_of == "2026-09-01" and "contracted" in offer.note and offer.market is Market.ON_DEMAND


@pytest.mark.parametrize(
    ("given", "market", "usd", "basis"),
    [
        ({"category": "Dynamic", "contracted": "20"}, "spot", 20.0, "contracted"),
        ({"category": "Committed", "cost": "400"}, "reserved", 40.0, "effective"),
        ({"contracted": "", "cost": "550"}, "on_demand", 55.0, "effective"),
        ({"contracted": "", "cost": ""}, "on_demand", 98.32, "list"),
        ({"contracted": "", "cost": "550", "quantity": "0"}, "on_demand", 98.32, "list"),
    ],
)
def test_which_price_is_taken(focus, given, market, usd, basis):
    offer = only(focus(charge(**given)))
    assert (offer.market.value, offer.usd_per_hour) == (market, pytest.approx(usd))
    assert basis in offer.note


@pytest.mark.parametrize(
    ("term", "market"), [("3 Year No Upfront", "reserved_3y"), ("1-year plan", "reserved_1y"), ("Plan", "reserved")]
)
def test_the_term_of_a_commitment_is_in_its_name(focus, term, market):
    found = focus(
        charge(category="Committed") + f",{term},Used",
        header=FOCUS + ",CommitmentDiscountName,CommitmentDiscountStatus",
    )
    assert only(found).market.value == market


@pytest.mark.parametrize(
    ("unit", "usd"),
    [("Hours", 60.0), ("Hour", 60.0), ("Hrs", 60.0), ("1 Hour", 60.0), ("100 Hours", 0.6), ("Minutes", 3600.0),
     ("Instance-Hours", 60.0), ("GPU-Hours", 480.0), ("Days", 2.5)],
)  # fmt: skip
def test_units_of_time(focus, unit, usd):
    assert only(focus(charge(unit=unit))).usd_per_hour == pytest.approx(usd)


@pytest.mark.parametrize("unit", ["GB-Months", "Requests", "", "fortnight"])
def test_other_units_are_rejected(focus, unit):
    found = focus(charge(), charge(region="x", unit=unit))
    assert len(found.offers) == 1
    assert found.rejected[0].reason == f"priced per {unit}, not per hour"


@pytest.mark.parametrize(
    "details",
    [
        '{""F_InstanceType"":""p5.48xlarge"",""F_GpuCount"":8}',
        '{""x_Tenancy"":""shared"", ""InstanceType"" : ""P5.48xlarge"", ""GpuCount"": ""8""}',
        '{""InstanceType"":""p5.48xlarge""}',
    ],
)
def test_details_of_drafts_and_of_1_2(focus, details):
    assert only(focus(charge(details=details))).accelerator == "h100_sxm"


@pytest.mark.parametrize("name", ["NC24ads_A100_v4", "Standard_NC24ads_A100_v4", "standard nc24ads a100 v4"])
def test_machines_of_azure_by_any_spelling(focus, name):
    offer = only(focus(charge(provider="Microsoft Azure", details=f'{{""InstanceType"":""{name}""}}')))
    assert (offer.provider, offer.accelerator, offer.accelerator_count) == ("azure", "a100_80g_pcie", 1)


def test_1_0_has_no_details_and_names_the_machine_elsewhere(focus):
    header = FOCUS.removesuffix(",SkuPriceDetails") + ",ChargeDescription,x_UsageType"
    row = charge(details="").removesuffix(',""')
    assert (
        only(focus(row + ",$60 per On Demand Linux p5.48xlarge Instance Hour,", header=header)).accelerator_count == 8
    )
    assert only(focus(row + ",compute,BoxUsage:p5.48xlarge", header=header)).accelerator == "h100_sxm"
    with pytest.raises(CatalogError, match="no prices of accelerators in it: 1 rows with no accelerator"):
        focus(row + ",an xp5.48xlargest thing,", header=header)


def test_charges_are_gathered_and_the_latest_day_counts(focus):
    found = focus(
        charge(period="2026-08-01T00:00:00Z", contracted="70"),
        charge(period="2026-09-02T00:00:00Z", contracted="50", quantity="30"),
        charge(period="2026-09-02T05:00:00Z", contracted="60", quantity="10"),
    )
    offer = only(found)
    assert (offer.usd_per_hour, offer.as_of) == (pytest.approx(52.5), "2026-09-02")
    assert found.files[0].passed_over == {"further charges at a price that is known": 2}
    assert found.files[0].rows == 3 and not found.rejected


def test_what_is_no_use_of_a_machine_is_passed_over(focus):
    found = focus(
        charge(),
        charge(kind="Purchase"),
        charge(kind="Tax"),
        charge(correction="Correction"),
        charge(details='{""StorageClass"":""Archive""}'),
        charge(details=""),
    )
    assert len(found.offers) == 1 and not found.rejected
    assert found.files[0].passed_over == {
        "purchases, taxes, credits and adjustments": 2,
        "corrections": 1,
        "no accelerator": 2,
    }


def test_gpus_that_cannot_be_told_are_rejected(focus):
    found = focus(
        charge(),
        charge(details='{""InstanceType"":""q9.48xlarge"",""GpuCount"":8}'),
        charge(details='{""GpuCount"":8}'),
        charge(details='{""InstanceType"":""p5.48xlarge"",""GpuCount"":4}'),
    )
    assert len(found.offers) == 1
    reasons = " ".join(r.reason for r in found.rejected)
    assert "accelerator: empty" in reasons or "which accelerator" in reasons
    assert "q9.48xlarge" in reasons and "GpuCount 4" in reasons
    assert sum(found.rejected_counts.values()) == 3


def test_prices_are_in_the_billing_currency_and_another_needs_a_rate(focus):
    with pytest.raises(InputError, match=r"line 2: currency EUR needs a rate: --rate EUR="):
        focus(charge(currency="EUR"))
    offer = only(focus(charge(currency="EUR"), rates={"EUR": 1.1}))
    assert offer.usd_per_hour == pytest.approx(66.0)
    assert "converted from EUR at 1.1" in offer.note


def test_a_price_in_the_pricing_currency_needs_no_rate_where_that_is_usd(focus):
    header = FOCUS + ",PricingCurrency,PricingCurrencyContractedUnitPrice"
    offer = only(focus(charge(currency="EUR") + ",USD,64", header=header))
    assert offer.usd_per_hour == 64.0 and "converted" not in offer.note


# --- files ---


OWN = "accelerator,accelerator_count,usd_per_hour,region"


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_separators_line_endings_and_byte_order_marks(tmp_path, separator, ending, encoding):
    lines = [line.replace(",", separator) for line in (OWN, "H100,8,24,r1", "H200,8,30,r2")]
    path = written(tmp_path / "x.csv", *lines, ending=ending, encoding=encoding)
    assert sorted(o.usd_per_hour for o in read(path).offers) == [24.0, 30.0]


def test_decimal_commas_and_latin_letters(tmp_path):
    path = written(tmp_path / "x.csv", OWN.replace(",", ";"), "H100;8;24,5;Zürich", encoding="latin-1")
    assert only(read(path)).usd_per_hour == 24.5


def test_a_row_with_more_cells_than_the_header_is_rejected_and_a_short_one_is_read(tmp_path):
    found = read(written(tmp_path / "x.csv", OWN, "H100,8,24,r1,oops", "H200,8,30", "", "L4,1,1,r1"))
    assert sorted(o.accelerator for o in found.offers) == ["h200_sxm", "l4"]
    assert (found.rejected[0].line, found.rejected[0].reason) == (2, "more cells than the header has columns")
    assert found.files[0].passed_over == {"empty": 1}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b" \n\n", "empty"),
        ("accelerator,usd_per_accelerator_hour\nH100,2\n".encode("utf-16"), "no text in UTF-8"),
        (b"\x1f\x8b\x08\x00rest", "packed with gzip"),
        (b"PK\x03\x04rest", "packed with zip"),
        (b"PAR1 but no more", "cannot be read"),
        (b'accelerator,usd_per_accelerator_hour\n"H100,2\n', "quotation mark"),
        (b"accelerator,accelerator,usd_per_accelerator_hour\nH100,H100,2\n", "column named twice: accelerator"),
        (b"a,b\n1,2\n", "not a price list: columns a, b; needed: accelerator"),
        (b"accelerator,usd_per_accelerator_hour\n", "empty: a header row and at least one price"),
    ],
)
def test_files_that_are_no_price_lists(tmp_path, content, said):
    path = tmp_path / "x.csv"
    path.write_bytes(content)
    with pytest.raises(CatalogError) as caught:
        read(path)
    assert said in str(caught.value) and "\n" not in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("header", "row"),
    [(SKYPILOT, sky(price="80", spot="30")), (GPUHUNT, hunt()), (FOCUS, charge()), (OWN, "H100,8,24,r")],
)
def test_parquet_says_the_same_as_csv(tmp_path, header, row):
    text = written(tmp_path / "aws.csv", header, row)
    frame = pl.read_csv(text)
    frame.write_parquet(tmp_path / "aws.parquet")
    frame.cast(pl.String).write_parquet(tmp_path / "texts.parquet")
    assert prices(read(text)) == prices(read(tmp_path / "aws.parquet")) == prices(read(tmp_path / "texts.parquet"))


@pytest.mark.parametrize("kind", ["struct", "pairs"])
def test_parquet_may_nest_details(tmp_path, kind):
    frame = pl.read_csv(written(tmp_path / "x.csv", FOCUS, charge()))
    details = {"InstanceType": "p5.48xlarge", "GpuCount": "8"}
    nested = details if kind == "struct" else [{"key": k, "value": v} for k, v in details.items()]
    frame.with_columns(pl.Series("SkuPriceDetails", [nested])).write_parquet(tmp_path / "x.parquet")
    assert only(read(tmp_path / "x.parquet")).accelerator == "h100_sxm"


def test_a_directory_has_one_file_a_provider_and_may_have_others(tmp_path):
    written(tmp_path / "d" / "aws.csv", GPUHUNT, hunt())
    written(tmp_path / "d" / "gcp" / "vms.csv", SKYPILOT, sky())
    written(tmp_path / "d" / "images.csv", "Tag,Region", "x,y")
    written(tmp_path / "d" / "README.md", "no list")
    found = read(tmp_path / "d")
    assert {(o.provider, o.accelerator) for o in found.offers} == {("aws", "h100_sxm"), ("gcp", "h100_sxm")}
    assert [f.format[:9] for f in found.files] == ["gpuhunt", "not read:", "skypilot"]


@pytest.mark.parametrize("content", [None, {"notes.txt": "x"}, {"images.csv": "Tag,Region"}])
def test_a_directory_without_price_lists(tmp_path, content):
    folder = tmp_path / "d"
    folder.mkdir()
    for name, text in (content or {}).items():
        written(folder / name, text)
    with pytest.raises(CatalogError, match=r"no price file"):
        read(f"{folder}/")


# --- rules over lists ---


DATED = "provider,region,instance_type,accelerator,accelerator_count,usd_per_hour,as_of,market,note"


def dated(usd="24", as_of="2026-09-01", market="on_demand", note="", region="r1", machine="m8"):
    return f"acme,{region},{machine},H100,8,{usd},{as_of},{market},{note}"


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [("2026-08-01", "2026-09-01", 20.0), ("2026-09-01", "2026-08-01", 24.0), ("2026", "2025-12-31", 20.0),
     ("2025-12-31", "2026", 24.0), ("", "2026-08-01", 20.0)],
)  # fmt: skip
def test_the_latest_date_wins_and_a_bare_year_is_older_than_any_date(tmp_path, first, second, kept):
    found = read(written(tmp_path / "x.csv", DATED, dated("24", first), dated("20", second)))
    assert only(found).usd_per_hour == kept
    assert found.rejected_counts == {rules.SUPERSEDED: 1}


def test_a_row_that_says_superseded_is_rejected(tmp_path):
    found = read(written(tmp_path / "x.csv", DATED, dated(), dated(region="r2", note="superseded by the page")))
    assert len(found.offers) == 1 and found.rejected[0].reason == "superseded: the row's note says so"


def test_low_trust_and_stale_dates_are_flagged(tmp_path):
    found = read(
        written(
            tmp_path / "x.csv",
            DATED,
            dated(as_of="2026-09-01"),
            dated(as_of="2025-06-01", region="old"),
            dated(as_of="2025", region="bare"),
            dated(as_of="2024", region="older"),
            dated(as_of="soon", region="none"),
            dated(region="low", note="low trust: one observation"),
        )
    )
    flags = {o.region: o.flags for o in found.offers}
    assert flags["r1"] == flags["bare"] == ()
    assert flags["old"] == flags["older"] == (rules.STALE,)
    assert flags["none"] == (rules.NO_DATE,) and flags["low"] == (rules.LOW_TRUST,)
    assert found.files[0].flagged == {rules.STALE: 2, rules.NO_DATE: 1, rules.LOW_TRUST: 1}


def test_in_a_list_of_ones_own_a_price_far_below_stands(tmp_path):
    rows = [dated("88", region=f"r{n}") for n in range(3)]
    found = read(written(tmp_path / "x.csv", DATED, *rows, dated("30", region="mine")))
    assert {o.region: o.flags for o in found.offers}["mine"] == (rules.FAR_BELOW,)


def test_the_first_list_wins_over_later_ones(tmp_path):
    first = written(tmp_path / "a.csv", DATED, dated("24", "2025-01-01"))
    second = written(tmp_path / "b.csv", DATED, dated("20", "2026-09-01"), dated("9", region="r2"))
    found = read(first, second)
    assert sorted(o.usd_per_hour for o in found.offers) == [9.0, 24.0]
    assert [(r.file, r.reason) for r in found.rejected] == [(str(second), rules.DUPLICATE)]


def test_a_selection_leaves_out_offers_but_not_what_they_say_of_others(skypilot):
    rows = [sky(price="80", spot="90"), sky(machine="l", name="L4", count="1", price="1"), sky(region="r2", price="70")]
    chosen = PriceSelection(accelerators=("h100_sxm",), regions=("r1",), markets=("spot",))
    offer = only(skypilot(*rows, selection=chosen))
    assert (offer.market, offer.flags) == (Market.SPOT, (rules.SPOT_NOT_BELOW,))


def test_currencies(tmp_path):
    header = "accelerator,price_per_accelerator_hour,currency,region"
    path = written(tmp_path / "x.csv", header, "H100,2,EUR,a", "H100,3,usd,b", "H100,300,JPY,c")
    with pytest.raises(InputError, match=r"x\.csv: line 2: currency EUR needs a rate: --rate EUR=<US dollars for one>"):
        read(path)
    with pytest.raises(InputError, match="currency JPY needs a rate"):
        read(path, rates={"EUR": 1.08})
    found = read(path, rates={"EUR": 1.08, "JPY": 0.0067})
    assert sorted(round(o.usd_per_hour, 4) for o in found.offers) == [2.01, 2.16, 3.0]
    found = read(path, strict=False)
    assert len(found.offers) == 1 and len(found.rejected_counts) == 2


@pytest.mark.parametrize(("cell", "said"), [("euro", "no code of three letters"), ("€", "no code of three letters")])
def test_what_is_no_currency(tmp_path, cell, said):
    header = "accelerator,price_per_accelerator_hour,currency,region"
    found = read(written(tmp_path / "x.csv", header, "H100,2,USD,a", f"H100,2,{cell},b"))
    assert len(found.offers) == 1 and said in found.rejected[0].reason


def test_a_comma_between_digits_is_no_point_where_commas_separate(tmp_path):
    path = written(tmp_path / "x.csv", OWN, "H100,8,24,a", 'H100,8,"1,234",b')
    found = read(path)
    assert [o.usd_per_hour for o in found.offers] == [24.0]
    assert "'1,234' is not a number" in found.rejected[0].reason


def test_rejected_rows_are_counted_whole_and_listed_in_part(tmp_path):
    rows = [f"zzz,1,{n}" for n in range(1, 301)]
    path = written(tmp_path / "x.csv", "accelerator,accelerator_count,usd_per_hour", "H100,8,24", *rows)
    some, every = read(path, most_listed=5), read(path, most_listed=None)
    assert [r.line for r in some.rejected] == [3, 4, 5, 6, 7]
    assert len(every.rejected) == 300
    assert some.rejected_counts == every.rejected_counts == {"accelerator 'zzz' is not in the catalog": 300}


def test_every_row_is_accounted_for(tmp_path):
    rows = [sky(region=f"r{n}", price=str(n * 10 - 20), name=("H100", "", "zzz")[n % 3]) for n in range(50)]
    (file,) = read(written(tmp_path / "x.csv", SKYPILOT, *rows)).files
    assert file.rows == 50
    assert file.offers + sum(file.rejected.values()) + sum(file.passed_over.values()) == 50


@pytest.mark.parametrize(("header", "row"), [(SKYPILOT, sky), (GPUHUNT, hunt), (FOCUS, charge)])
def test_large_files_in_batches_say_the_same_as_small_ones_at_once(tmp_path, monkeypatch, header, row):
    rows = [row(region=f"r{n % 11}", **({"zone": f"z{n}"} if row is sky else {})) for n in range(400)]
    path = written(tmp_path / "aws.csv", header, *rows)
    small = read(path)
    monkeypatch.setattr("tokopt.catalog.price_formats.tables._SMALL_BYTES", 0)
    monkeypatch.setattr("tokopt.catalog.price_formats.drafts.BATCH_ROWS", 64)
    monkeypatch.setattr("tokopt.catalog.price_formats.reading.BATCH_ROWS", 64)
    large = read(path)
    assert large.files == small.files and large.rejected == small.rejected
    assert sorted(map(repr, large.offers)) == sorted(map(repr, small.offers))


def test_the_snapshot_has_every_provider_with_a_published_price():
    there = {path.stem for path in (CATALOGS / "prices").glob("*.csv")}
    assert {"coreweave", "nebius", "together", "hyperstack", "runpod", "lambda", "aws", "azure", "gcp", "oci"} <= there
    assert "nscale" not in there  # its page states no price
    import tokopt

    catalog = tokopt.load_catalog()
    for provider in there:
        assert catalog.price_list([provider]).offers, provider
    terms = {offer.market for offer in catalog.price_list(["hyperstack"]).offers}
    assert Market.RESERVED in terms


def test_every_machine_and_name_of_the_catalog_has_a_source_and_leads_somewhere():
    import tokopt

    catalog = tokopt.load_catalog()
    assert not catalog.check()
    from tokopt.catalog.price_formats.checks import AcceleratorNames

    found = AcceleratorNames(catalog.accelerators, catalog.price_names)
    unknown = {m.accelerator for m in catalog.price_names.machines if found.find(m.accelerator) is None}
    assert unknown <= {"H100-NVL"}
    assert (CATALOGS / "price_names.yaml").is_file() and ACCELERATORS
