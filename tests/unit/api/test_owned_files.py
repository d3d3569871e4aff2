"""Owned files: what they say, what is wrong with them, and plans in which they stand beside rented machines."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from click.testing import CliRunner
from pydantic import ValidationError

import tokopt
from tokopt.cli import app
from tokopt.errors import InputError

MINE = """\
title: Our machines
site: virginia
cost_of_capital: 0.09
life_years: 5
colocation_usd_per_kw_month: 150
maintenance_fraction_per_year: 0.03
utilisation: 0.8
capex_usd:
  H200: {server: 28000, network: 3000, storage: 500, install: 700}
"""
LOTS = """\
lots:
  - {accelerator: H100, name: hall 2, sunk: true, capex_usd: 30000, accelerators: 64, site: texas}
  - {accelerator: h100_sxm, capex_usd: 25000, available_units: 4, available_from: 2027-03-01, life_years: 4}
"""


@pytest.fixture
def mine(tmp_path: Path):
    def write(text: str = MINE, name: str = "mine.yaml") -> str:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return str(tmp_path / name)

    return write


def test_parts_add_up_and_follow_from_the_file(mine):
    cost = tokopt.ownership_cost(mine())
    (hour,) = cost.hours
    assert (hour.accelerator, hour.site, hour.market) == ("h200_sxm", "virginia", "owned")
    assert math.fsum(hour.parts.values()) == hour.usd_per_accelerator_hour
    crf = 0.09 / (1 - 1.09**-5)
    critical = 1.73 / 1.15
    assert hour.parts["server"] == pytest.approx(28000 * crf / 8760)
    assert hour.parts["install"] == pytest.approx(700 * crf / 8760)
    assert hour.parts["facility"] == pytest.approx(critical * 150 / 730)
    assert hour.parts["energy"] == pytest.approx(critical * 1.15 * 0.8 * 0.0892)
    assert hour.parts["maintenance"] == pytest.approx(32200 * 0.03 / 8760)
    assert hour.parts["idle"] == pytest.approx(hour.usd_per_accelerator_hour * 0.2)
    assert hour.usd_per_unit_hour == pytest.approx(8 * hour.usd_per_accelerator_hour)
    with pytest.raises(ValidationError):
        cost.profile = "other"


def test_lots_have_stock_dates_sites_and_lives_of_their_own(mine):
    cost = tokopt.ownership_cost(mine(MINE + LOTS))
    by_lot = {(hour.accelerator, hour.lot): hour for hour in cost.hours}
    hall, new = by_lot["h100_sxm", "hall 2"], by_lot["h100_sxm", ""]
    assert (hall.available_units, hall.site, hall.sunk) == (8, "texas", True)
    assert set(hall.parts) == {"facility", "energy", "maintenance", "idle"}
    assert hall.parts["energy"] == pytest.approx(1.73 * 0.8 * 0.066)
    assert (new.available_units, new.available_from, new.site) == (4, "2027-03-01", "virginia")
    assert new.parts["capital"] == pytest.approx(25000 * 0.09 / (1 - 1.09**-4) / 8760)
    assert {site.name for site in cost.sites} == {"virginia", "texas"}


def test_prices_by_hour_and_a_site_of_ones_own(mine):
    by_hour = ", ".join(["0.04"] * 12 + ["0.08"] * 12)
    text = MINE.replace("site: virginia", f"pue: 1.3\nusd_per_kwh_by_hour: [{by_hour}]")
    cost = tokopt.ownership_cost(mine(text))
    (site,) = cost.sites
    assert (site.name, site.pue) == ("mine", 1.3)
    assert site.usd_per_kwh == pytest.approx(0.06)
    assert cost.hours[0].parts["energy"] == pytest.approx(1.73 / 1.15 * 1.3 * 0.8 * 0.06)
    offers = tokopt.load_catalog().price_list([mine(text)]).offers
    assert offers[0].site.usd_per_kwh_over(0, 12) == pytest.approx(0.04)


def test_options_of_the_breakdown(mine):
    texas = tokopt.ownership_cost("components-neocloud", gpus="h200", site="us-tx")
    assert [hour.accelerator for hour in texas.hours] == ["h200_sxm"] and texas.sites[0].name == "texas"
    dear = tokopt.ownership_cost("components-neocloud", gpus=["h200"], site="texas", cost_of_capital="20%")
    assert dear.hours[0].usd_per_accelerator_hour > texas.hours[0].usd_per_accelerator_hour
    rent = tokopt.ownership_cost("rental-3y", gpus="h200", cost_of_capital=0.10).hours[0]
    assert rent.usd_per_accelerator_hour == pytest.approx(1.6 * (0.75 + 0.75 * 0.1 / (1 - 1.1**-3)))
    assert tokopt.ownership_cost("hyperscaler", gpus="h200").hours[0].usd_per_accelerator_hour == 1.41


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"profile": "hyperscalar"}, "unknown ownership profile"),
        ({"site": "atlantis"}, "unknown site 'atlantis'"),
        ({"gpus": "l4"}, "has no l4; it has: "),
        ({"gpus": "h201"}, "unknown accelerator"),
        ({"profile": "hyperscaler", "site": "texas"}, "takes no site"),
        ({"profile": "hyperscaler", "cost_of_capital": 0.1}, "nothing of it is prepaid"),
        ({"cost_of_capital": "lots"}, "--cost-of-capital: 'lots' is not a rate"),
        ({"cost_of_capital": 10}, "write it like 0.1 or 10%"),
        ({"site": "germany"}, "usd_per_kwh is not known"),
        ({"profile": "no/such.yaml"}, "cannot be read"),
    ],
)
def test_bad_arguments_are_one_line(arguments, said):
    with pytest.raises(InputError) as caught:
        tokopt.ownership_cost(**arguments)
    assert said in str(caught.value) and "\n" not in str(caught.value)


HOSTILE = [
    ("life_years: 5", "life_year: 5", "life_year: unknown key; did you mean life_years"),
    ("utilisation: 0.8", "colour: red", "colour: unknown key"),
    ("utilisation: 0.8", "utilisation: 0", "utilisation: "),
    ("utilisation: 0.8", "utilisation: 80", "utilisation: "),
    ("utilisation: 0.8", "utilisation: 80%", "utilisation: "),
    ("life_years: 5", "life_years: -5", "life_years: "),
    ("life_years: 5", "life_years: 60", "life_years: 60 is implausible: it is in years, not months"),
    ("life_years: 5", "life_years: .nan", "life_years: "),
    ("life_years: 5\n", "", "life_years: missing, capex_usd of H200 needs it"),
    ("cost_of_capital: 0.09\n", "", "cost_of_capital: missing, capex_usd of H200 needs it"),
    ("cost_of_capital: 0.09", "cost_of_capital: 9", "cost_of_capital: "),
    ("site: virginia", "site: atlantis", "unknown site 'atlantis'"),
    ("site: virginia", "pue: 0.9", "pue: "),
    ("site: virginia", "pue: 115", "pue: 115 is implausible"),
    ("site: virginia", "usd_per_kwh: 66", "usd_per_kwh: 66 is implausible: it is in USD per kWh"),
    ("site: virginia", "usd_per_mwh: 66", "usd_per_mwh: unknown key; did you mean usd_per_kwh"),
    ("site: virginia", "usd_per_kwh_by_hour: [0.1]", "usd_per_kwh_by_hour: 1 values; 24 are needed"),
    ("site: virginia", "site: germany", "usd_per_kwh is not known"),
    (
        "colocation_usd_per_kw_month: 150",
        "colocation_usd_per_kw_month: 150000",
        "a price per MW is 1,000 times too high",
    ),
    ("colocation_usd_per_kw_month: 150", "build_usd_per_kw: 11700000", "a cost per MW goes into build_usd_per_mw"),
    (
        "colocation_usd_per_kw_month: 150",
        "build_usd_per_kw: 11700000\nbuild_life_years: 15",
        "a cost per MW goes into build_usd_per_mw",
    ),
    (
        "colocation_usd_per_kw_month: 150",
        "build_usd_per_mw: 11700\nbuild_life_years: 15",
        "a cost per kW goes into build_usd_per_kw",
    ),
    (
        "colocation_usd_per_kw_month: 150",
        "colocation_usd_per_kw_month: 150\nbuild_usd_per_mw: 11700000\nbuild_life_years: 15",
        "given: colocation_usd_per_kw_month, build_usd_per_mw",
    ),
    ("colocation_usd_per_kw_month: 150\n", "", "build_usd_per_kw is needed; none is given"),
    ("colocation_usd_per_kw_month: 150", "build_usd_per_mw: 11700000", "build_life_years: missing"),
    ("H200: {server: 28000,", "H201: {server: 28000,", "unknown accelerator 'H201'"),
    ("{server: 28000,", "{servers: 28000,", "capex_usd.H200.servers: unknown key"),
    ("{server: 28000,", "{server: -1,", "capex_usd.H200.server: "),
    ("{server: 28000, network: 3000, storage: 500, install: 700}", "$31k", "a number of USD per accelerator is needed"),
    ("  H200: {server: 28000, network: 3000, storage: 500, install: 700}", "  {}", "neither is given"),
    ("title: Our machines", "title: [", "not valid YAML"),
    ("title: Our machines", "title: A\ntitle: B", "key 'title' appears twice"),
]
HOSTILE_LOTS = [
    ("accelerators: 64", "accelerators: 63", "63 are no whole number of nodes of 8"),
    ("accelerators: 64", "accelerators: 64, available_units: 8", "one of them is enough"),
    ("accelerators: 64", "accelerators: 0", "lots.0.accelerators: "),
    ("available_units: 4", "available_units: many", "lots.1.available_units: "),
    ("available_from: 2027-03-01", "available_from: soon", "lots.1.available_from: "),
    ("capex_usd: 25000, ", "", "h100_sxm: capex_usd: missing; give it, or sunk: true"),
    ("site: texas", "site: texsa", "unknown site 'texsa'"),
    ("name: hall 2, ", "", "two of h100_sxm without a name"),
    ("sunk: true", "sunk: perhaps", "lots.0.sunk: "),
    ("accelerator: H100", "gpu: H100", "lots.0.accelerator: missing"),
]


@pytest.mark.parametrize(
    ("text", "old", "new", "said"),
    [*((MINE, *case) for case in HOSTILE), *((MINE + LOTS, *case) for case in HOSTILE_LOTS)],
)
def test_a_faulty_file_is_one_line(mine, text, old, new, said):
    assert old in text
    path = mine(text.replace(old, new, 1))
    for arguments in (("ownership", "show", path), ("plan", "--owned", path, "--power", "1MW")):
        result = CliRunner().invoke(app, [*arguments])
        assert result.exit_code == 2, result.output
        assert result.output.count("\n") == 1 and said in result.output and "mine" in result.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--owned", "hyperscaler"), "--owned: 'hyperscaler' is not the path of a YAML file"),
        (("--owned", "no/such.yaml"), "cannot be read"),
        (("--owned", ","), "names are missing"),
    ],
)
def test_bad_owned_options_are_one_line(arguments, said):
    result = CliRunner().invoke(app, ["plan", "--power", "1MW", *arguments])
    assert result.exit_code == 2 and said in result.output and "Traceback" not in result.output


PRICES = """\
provider,region,instance_type,accelerator,accelerator_count,market,usd_per_hour,available_units
cloud,aws-us-east-1,r,h200_sxm,8,reserved_3y,14,3
cloud,aws-us-east-1,s,h200_sxm,8,spot,10,2
cloud,aws-us-east-1,d,h200_sxm,8,on_demand,30,
"""
STOCK = """\
colocation_usd_per_kw_month: 150
lots:
  - {accelerator: h200_sxm, sunk: true, available_units: 2}
"""


@pytest.fixture
def four_markets(mine, tmp_path):
    (tmp_path / "prices.csv").write_text(PRICES)
    request = {
        "model": "llama-3.1-70b",
        "workload": "chat",
        "sla": "tpot=50ms,ttft=2s,p99",
        "prices": str(tmp_path / "prices.csv"),
        "owned": mine(STOCK),
        "markets": "owned,reserved_3y,spot,on_demand",
    }

    def solve(demand: str):
        return tokopt.plan(demand=demand, **request)

    return solve


def units_by_market(plan) -> dict[str, int]:
    counts: dict[str, int] = {}
    for item in plan.fleet:
        counts[item.market] = counts.get(item.market, 0) + item.units
    return counts


def test_own_reserve_spot_and_rent_stand_in_one_plan(four_markets):
    small = four_markets("1req/s")
    assert units_by_market(small) == {"owned": 1}  # what is paid for comes first
    capacity = max(item.capacity_requests_per_s * item.replicas / item.units for item in small.fleet)
    large = four_markets(f"{capacity * 8.5:.3f}req/s")
    counts = units_by_market(large)
    assert set(counts) == {"owned", "spot", "reserved_3y", "on_demand"}
    assert (counts["owned"], counts["spot"], counts["reserved_3y"]) == (2, 2, 3)
    assert large.status == "optimal" and tokopt.check(large) == []
    owned = next(item for item in large.fleet if item.market == "owned")
    assert owned.provider == "owned:mine" and owned.region == "us-average"


def test_an_owned_file_joins_price_lists_and_stands_alone(mine):
    request = {"power": "200kW", "gpus": "h200", "sla": "50ms", "model": "llama-3.1-70b", "workload": "chat"}
    alone = tokopt.plan(owned=mine(), **request)
    assert [Path(name).name for name in alone.request.prices] == ["mine.yaml"]
    assert {item.provider for item in alone.fleet} == {"owned:mine"}
    joined = tokopt.plan(owned=Path(mine()), prices="hyperscaler", **request)
    assert joined.request.prices[0] == "hyperscaler" and len(joined.request.prices) == 2
    assert {item.provider for item in joined.fleet} == {"owned"}  # cheaper an hour
    assert tokopt.check(alone) == [] and tokopt.check(joined) == []
    again = tokopt.solve_request(alone.request)
    assert again.usd_per_hour == alone.usd_per_hour


def test_two_owned_files_stand_side_by_side_unless_their_names_are_alike(mine, tmp_path):
    (tmp_path / "other").mkdir()
    request = {"power": "200kW", "gpus": "h200", "sla": "50ms", "model": "llama-3.1-70b", "workload": "chat"}
    first, cheaper = mine(), mine(STOCK, name="paid.yaml")
    plan = tokopt.plan(owned=[first, cheaper], **request)
    assert {item.provider for item in plan.fleet} >= {"owned:paid"} and tokopt.check(plan) == []
    with pytest.raises(InputError, match="two files named mine"):
        tokopt.plan(owned=[first, mine(STOCK, name="other/mine.yaml")], **request)


def test_a_plan_says_from_when_its_machines_can_be_had(mine):
    text = MINE.split("capex_usd")[0] + LOTS
    asked = {"model": "llama-3.1-70b", "workload": "chat", "gpus": "h100", "objective": "throughput"}
    plan = tokopt.plan(owned=mine(text), power="300kW", sla="50ms", **asked)
    assert any("can be had from 2027-03-01" in said for said in plan.assumptions)


def test_json_is_one_document_and_text_has_the_figures(mine, tmp_path):
    path = mine(MINE + LOTS)
    result = CliRunner().invoke(app, ["ownership", "show", path, "--json"])
    document = json.loads(result.output)
    assert result.exit_code == 0 and len(document["hours"]) == 3
    for hour in document["hours"]:
        assert math.fsum(hour["parts"].values()) == hour["usd_per_accelerator_hour"]
    text = CliRunner().invoke(app, ["ownership", "show", path]).output
    assert "\x1b" not in text and "S server" in text and "U unused hours" in text and "2027-03-01" in text


def test_the_picture_is_drawn(mine, tmp_path):
    pytest.importorskip("matplotlib")
    folder = tmp_path / "pictures"
    refused = CliRunner().invoke(app, ["ownership", "show", "--plots", str(folder)])
    assert refused.exit_code == 2 and "no such directory" in refused.output
    folder.mkdir()
    result = CliRunner().invoke(app, ["ownership", "show", mine(MINE + LOTS), "--plots", str(folder), "-q"])
    assert result.exit_code == 0, result.output
    content = (folder / "ownership.png").read_bytes()
    assert content.startswith(b"\x89PNG") and len(content) > 10_000
    assert [file.name for file in folder.iterdir()] == ["ownership.png"]
