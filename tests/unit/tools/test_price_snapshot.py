"""The price snapshot's traps, one tiny file each."""

from __future__ import annotations

import csv
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3]
HEADER = (
    "cloud,instance_type,accelerator,accelerator_count,vcpus,memory_gib,region,availability_zone,price_usd_per_hour,"
    "spot_price_usd_per_hour,catalog_date,source,note"
)


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_price_snapshot", ROOT / "tools" / "build_price_snapshot.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def row(
    machine="m8",
    accelerator="H100",
    count="8",
    region="r1",
    zone="",
    price="80",
    spot="",
    date="2026-08-01",
    note="",
    cloud="acme",
):
    return f'{cloud},{machine},{accelerator},{count},,,{region},{zone},{price},{spot},{date},acme@1,"{note}"'


@pytest.fixture
def build(tool, tmp_path):
    def run(*rows, name="acme.csv", header=HEADER):
        (tmp_path / name).write_text("\n".join([header, *rows]) + "\n")
        return tool.build(tmp_path)

    return run


def test_one_row_a_market(build):
    kept, dropped = build(row(price="80", spot="30"))
    assert [(p.market, p.usd_per_hour) for p in kept] == [("on_demand", 80.0), ("spot", 30.0)]
    assert not dropped


def test_spot_without_on_demand_is_kept(build):
    kept, _ = build(row(price="", spot="30"))
    assert [p.market for p in kept] == ["spot"]


def test_a_row_that_says_superseded_is_dropped(build):
    kept, dropped = build(row(price="80", spot="30", note="superseded by the 2026-10-07 rows"))
    assert not kept
    assert dropped == {"superseded: the row's note says so": 2}


def test_the_latest_date_of_a_machine_wins(build):
    kept, dropped = build(row(price="80", date="2026-08-01"), row(price="90", date="2026-09-01"))
    assert [p.usd_per_hour for p in kept] == [90.0]
    assert dropped == {"superseded: a later date of the same machine": 1}


def test_a_bare_year_is_older_than_a_full_date(build):
    kept, _ = build(row(price="80", date="2026"), row(price="90", date="2025-12-31"))
    assert [p.as_of for p in kept] == ["2025-12-31"]


def test_the_zone_of_a_cheapest_spot_row_does_not_hide_a_later_on_demand_price(build):
    kept, _ = build(
        row(price="80", spot="30", date="2026", zone="r1-az1", note="cheapest-spot zone of the region"),
        row(price="82", date="2026-07-20"),
    )
    assert [(p.market, p.zone, p.usd_per_hour) for p in kept] == [
        ("on_demand", "", 82.0),
        ("spot", "r1-az1", 30.0),
    ]


def test_a_dated_price_for_every_region_supersedes_a_bare_year_of_the_same_tier(build):
    kept, dropped = build(row(price="80", date="2025"), row(machine="page H100", region="", price="90"))
    assert [p.instance_type for p in kept] == ["page H100"]
    assert dropped == {"superseded: a dated price of the same tier differs": 1}


def test_a_dated_price_that_agrees_confirms_the_older_row(build):
    kept, _ = build(row(price="80", date="2025"), row(machine="page H100", region="", price="80.1"))
    assert len(kept) == 2


def test_a_from_price_supersedes_nothing(build):
    kept, _ = build(row(price="80", date="2025"), row(machine="page H100", region="", price="70", note="from-price"))
    assert len(kept) == 2


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (row(price="0.0"), "placeholder: price 0.0"),
        (row(accelerator="TPU-v6e", price="700.0"), "placeholder: TPU price 700.0"),
        (row(price="", spot="1", note="low trust: equals the placeholder price 1.0"), "placeholder: the row's note"),
        (row(price="", spot="1.01", note="low trust: close to the placeholder price 1.0"), "placeholder: the row's"),
        (row(machine="g6f.large", count="0", price="0.2"), "a fraction of an accelerator"),
    ],
)
def test_placeholders_and_fractions_are_dropped(build, bad, reason):
    kept, dropped = build(bad, row(machine="good"))
    assert [p.instance_type for p in kept] == ["good"]
    (said,) = dropped
    assert said.startswith(reason)


def test_a_note_that_placeholders_were_removed_drops_nothing(build):
    kept, _ = build(row(accelerator="TPU-v6e", price="2.7", note="TPU VM; 700.0 placeholder prices removed"))
    assert len(kept) == 1


def test_a_reduced_rate_sold_as_on_demand_is_dropped(build):
    prices = {"us-central1": "33.6", "us-east4": "88", "europe-west1": "88", "asia-east1": "90"}
    kept, dropped = build(*(row(region=region, price=price) for region, price in prices.items()))
    assert "us-central1" not in {p.region for p in kept}
    assert dropped == {"reduced rate: under half the median of the same machine elsewhere": 1}


def test_spot_far_below_elsewhere_is_kept_and_marked(build):
    prices = {"r1": "10", "r2": "37", "r3": "38"}
    kept, _ = build(*(row(region=region, price="88", spot=price) for region, price in prices.items()))
    marked = [p for p in kept if "under half the median" in p.note]
    assert [(p.region, p.market) for p in marked] == [("r1", "spot")]


@pytest.mark.parametrize(("spot", "marked"), [("79.99", False), ("80", True), ("81", True)])
def test_spot_that_is_not_below_on_demand_is_marked(build, spot, marked):
    kept, _ = build(row(price="80", spot=spot))
    assert [("not below on-demand" in p.note) for p in kept if p.market == "spot"] == [marked]


def test_doubles_are_dropped(build):
    kept, dropped = build(row(price="80"), row(price="80"))
    assert len(kept) == 1
    assert dropped == {"double: same machine, place and market": 1}


def test_out_of_stock_has_no_units(build):
    kept, _ = build(row(region="", note="region empty in the catalog = not in stock"), row(machine="other"))
    assert {p.instance_type: p.available_units for p in kept} == {"m8": "0", "other": ""}


def test_a_spot_price_stated_for_a_region_has_that_region(build):
    kept, _ = build(row(region="", spot="30", note="spot price stated for North America; same in October"))
    assert {p.market: p.region for p in kept} == {"on_demand": "", "spot": "North America"}


def test_pcie_cards_are_named_as_such(build):
    kept, _ = build(row(cloud="azure", machine="Standard_NC24ads_A100_v4", accelerator="A100-80GB", count="1"))
    assert kept[0].accelerator == "A100-80GB-PCIe"


def test_reserved_prices(build):
    header = (
        "cloud,accelerator,accelerator_count,commitment,price_usd_per_accelerator_hour,region,catalog_date,source,note"
    )
    kept, dropped = build(
        "acme,A100-80GB,1,reserved,1.36,,2026-08-26,acme@1,from-price; term not stated; SXM",
        "acme,A100-80GB,1,reserved,0.95,,2026-08-26,acme@1,from-price; term not stated; PCIe",
        "acme,H200,8,3y,2,,2026-08-26,acme@1,",
        "acme,H200,8,7 days,2,,2026-08-26,acme@1,",
        name="reserved.csv",
        header=header,
    )
    assert [(p.accelerator, p.market, p.usd_per_hour) for p in kept] == [
        ("A100-80GB-PCIe", "reserved", 0.95),
        ("A100-80GB", "reserved", 1.36),
        ("H200", "reserved_3y", 16.0),
    ]
    assert dropped == {"reserved for a term that tokopt has no market for": 1}


def test_files_that_are_no_price_lists_are_left_alone(build):
    kept, dropped = build("Texas,0.066", name="electricity.csv", header="state,usd_per_kwh")
    assert not kept and not dropped


def test_the_written_files_do_not_depend_on_row_order(tool, tmp_path):
    rows = [row(price="80", spot="30"), row(region="r2", price="81.25"), row(machine="m1", count="1", price="10")]
    texts = []
    for number, order in enumerate((rows, rows[::-1])):
        source, target = tmp_path / f"in{number}", tmp_path / f"out{number}"
        source.mkdir()
        (source / "acme.csv").write_text("\n".join([HEADER, *order]) + "\n")
        assert tool.main([str(source), str(target)]) == 0
        texts.append((target / "acme.csv").read_text())
    assert texts[0] == texts[1]
    with (tmp_path / "out0" / "acme.csv").open(newline="") as stream:
        cells = list(csv.DictReader(stream))
    assert tuple(cells[0]) == tool.COLUMNS
    assert {line["usd_per_hour"] for line in cells} == {"80", "30", "81.25", "10"}
    assert {line["currency"] for line in cells} == {"USD"}


def test_wrong_arguments_print_the_usage(tool, capsys):
    assert tool.main([]) == 2
    assert "SOURCE_DIRECTORY" in capsys.readouterr().err
