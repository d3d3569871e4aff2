"""Price lists: what is read, what is turned down, and what a user is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from tokopt.catalog.ownership import load_ownership
from tokopt.catalog.price_lists import read_price_lists
from tokopt.domain.accelerators import Accelerator, PurchaseUnit, Topology
from tokopt.domain.offers import Capex, Market, OwnedLot, OwnershipProfile
from tokopt.domain.sites import Site
from tokopt.errors import CatalogError, InputError

CATALOGS = Path(__file__).parents[3] / "catalogs"
HEADER = "provider,region,zone,instance_type,accelerator,accelerator_count,market,usd_per_hour,currency,as_of,note"


def accelerator(name: str, *aliases: str) -> Accelerator:
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
    )


ACCELERATORS = {
    a.name: a
    for a in (
        accelerator("h100_sxm", "H100", "H100-SXM"),
        accelerator("h200_sxm", "H200"),
        accelerator("l40s", "L40S"),
        accelerator("tpu_v6e", "TPU-v6e"),
    )
}
PUBLISHED = OwnershipProfile(
    name="hyperscaler", title="Own", source="s", observed_on="2026-04-03", usd_per_accelerator_hour={"h200_sxm": 1.41}
)
COMPONENTS = OwnershipProfile(
    name="mine",
    title="Mine",
    source="s",
    observed_on="2026-11-23",
    lots=(OwnedLot(accelerator="h200_sxm", capex=Capex(undivided=31_000.0)),),
    cost_of_capital=0.1,
    life_years=4.0,
    colocation_usd_per_kw_month=100.0,
)
OWNERSHIP = {
    "hyperscaler": PUBLISHED,
    "rental-3y": OwnershipProfile(
        name="rental-3y", title="Rent", source="s", observed_on="2026-04-03", usd_per_accelerator_hour={"h200_sxm": 1.6}
    ),
    "mine": COMPONENTS,
}
SITES = {
    "texas": Site(
        name="texas", title="", pue=1.1, usd_per_kwh=0.066, carbon_g_per_kwh=None, source="s", observed_on="2023"
    )
}


def read(*names, directories=(), ownership=OWNERSHIP, sites=SITES):
    return read_price_lists(names, directories=directories, accelerators=ACCELERATORS, ownership=ownership, sites=sites)


@pytest.fixture
def user_file(tmp_path):
    def write(*lines, name="mine.csv"):
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return str(path)

    return write


def line(
    machine="m8",
    accelerator="H100",
    count="8",
    market="on_demand",
    usd="24",
    currency="USD",
    region="r1",
    provider="acme",
):
    return f"{provider},{region},,{machine},{accelerator},{count},{market},{usd},{currency},2026-11-01,"


def test_the_shortest_list(user_file):
    (offer,) = read(user_file("accelerator,usd_per_accelerator_hour", "h100_sxm,2.5")).offers
    assert (offer.provider, offer.accelerator, offer.accelerator_count) == ("mine", "h100_sxm", 1)
    assert (offer.market, offer.usd_per_hour, offer.region, offer.as_of) == (Market.ON_DEMAND, 2.5, "", "")
    assert offer.available_units is None


def test_price_per_accelerator_times_count(user_file):
    path = user_file("accelerator,accelerator_count,usd_per_accelerator_hour", "H100,8,2.5", "H100,4,2.5")
    offers = read(path).offers
    assert [(o.usd_per_hour, o.instance_type) for o in offers] == [(20.0, "8x h100_sxm"), (10.0, "4x h100_sxm")]


def test_aliases_case_and_stray_blanks(user_file):
    path = user_file(
        " Accelerator , accelerator_count , USD_per_hour , Market ",
        " h100-sxm , 8 , 24 , On-Demand ",
        "tpu v6e,8,20,SPOT",
        "H200, 8, 30, reserved_3y",
    )
    offers = read(path).offers
    assert [(o.accelerator, o.market) for o in offers] == [
        ("h100_sxm", Market.ON_DEMAND),
        ("tpu_v6e", Market.SPOT),
        ("h200_sxm", Market.RESERVED_3Y),
    ]


def test_columns_that_are_not_ours_are_passed_over(user_file):
    assert len(read(user_file("accelerator,usd_per_accelerator_hour,vcpus", "H100,2.5,96")).offers) == 1


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (line(usd="0"), "price 0 is no price: it must be above zero"),
        (line(usd="-3"), "must be above zero"),
        (line(usd="$3"), "'$3' is not a number"),
        (line(usd="nan"), "not a finite number"),
        (line(usd="inf"), "not a finite number"),
        (line(usd=""), "no price"),
        (line(accelerator="H10O"), "accelerator 'H10O' is not in the catalog; did you mean h100_sxm"),
        (line(accelerator="zzz"), "accelerator 'zzz' is not in the catalog"),
        (line(accelerator=""), "accelerator: empty"),
        (line(count="0"), "a fraction of an accelerator: accelerator_count 0"),
        (line(count="0.5"), "accelerator_count '0.5' is not a whole number"),
        (line(count="inf"), "not a whole number"),
        (line(count="many"), "not a whole number"),
        (line(count=""), "accelerator_count: empty"),
        (line(market="lease"), "unknown market 'lease'; known: on_demand, spot"),
        (line(currency="euro"), "usd_per_hour in currency euro: prices in other currencies stand in price_per_hour"),
    ],
)
def test_a_bad_row_is_reported_and_the_others_are_kept(user_file, bad, reason):
    path = user_file(HEADER, line(machine="good"), bad)
    prices = read(path)
    assert [o.instance_type for o in prices.offers] == ["good"]
    (rejected,) = prices.rejected
    assert (rejected.file, rejected.line) == (path, 3)
    assert reason in rejected.reason


def test_prices_that_contradict_each_other_are_turned_down(user_file):
    path = user_file(
        "accelerator,accelerator_count,usd_per_hour,usd_per_accelerator_hour", "H100,8,24,3", "H200,8,24,24"
    )
    prices = read(path)
    assert len(prices.offers) == 1
    assert "usd_per_hour 24 is not accelerator_count x usd_per_accelerator_hour" in prices.rejected[0].reason


def test_available_units(user_file):
    path = user_file(
        "accelerator,usd_per_accelerator_hour,available_units,region", "H100,2,5,a", "H100,2,,b", "H100,2,-1,c"
    )
    prices = read(path)
    assert [o.available_units for o in prices.offers] == [5, None]
    assert "available_units -1 is below 0" in prices.rejected[0].reason


def test_a_second_price_for_the_same_thing_is_turned_down(user_file):
    prices = read(user_file(HEADER, line(usd="24"), line(usd="20"), line(usd="9", market="spot")))
    assert [o.usd_per_hour for o in prices.offers] == [24.0, 9.0]
    assert prices.rejected[0].reason.startswith("duplicate: the same machine, place and market")


@pytest.mark.parametrize(("spot", "flagged"), [("23.9", False), ("24", True), ("25", True)])
def test_spot_that_is_not_below_on_demand_is_flagged(user_file, spot, flagged):
    prices = read(user_file(HEADER, line(usd=spot, market="spot"), line(usd="24")))
    assert [("spot price is not below on-demand" in o.flags) for o in prices.offers] == [flagged, False]
    assert not prices.rejected


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([""], "a header row is needed"),
        ([HEADER], "empty: a header row and at least one price are needed"),
        (["gpu,price", "H100,2"], "needed: accelerator + accelerator_count + usd_per_hour; or accelerator +"),
        (["accelerator,usd_per_hour", "H100,2"], "not a price list: columns accelerator, usd_per_hour"),
        (["accelerator,usd_per_accelerator_hour,markt", "H100,2,spot"], "unknown column 'markt'; did you mean market?"),
        ([HEADER, line(usd="0")], "no price can be used, 1 rejected; the first: line 2: price 0 is no price"),
        ([HEADER, line(accelerator="zzz"), line(usd="0")], "2 rejected; the first: line 2: accelerator 'zzz'"),
    ],
)
def test_a_useless_file_is_an_error_of_one_line(user_file, lines, said):
    path = user_file(*lines)
    with pytest.raises(CatalogError) as caught:
        read(path)
    message = str(caught.value)
    assert path in message and said in message and "\n" not in message


def test_a_missing_file(tmp_path):
    with pytest.raises(CatalogError, match="cannot be read"):
        read(str(tmp_path / "none.csv"))


def test_a_useless_file_beside_a_good_list_is_still_an_error(user_file, tmp_path):
    good = user_file(HEADER, line(), name="good.csv")
    bad = user_file(HEADER, line(usd="0"), name="bad.csv")
    with pytest.raises(CatalogError, match=r"bad\.csv: no price can be used, 1 rejected"):
        read(good, bad)


def test_providers_all_and_overlays(user_file, tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    for directory, provider, usd in ((first, "acme", "24"), (first, "beta", "26"), (second, "acme", "20")):
        directory.mkdir(exist_ok=True)
        (directory / f"{provider}.csv").write_text(f"{HEADER}\n{line(usd=usd, provider=provider)}\n")
    assert [o.usd_per_hour for o in read("acme", directories=[first]).offers] == [24.0]
    assert [o.usd_per_hour for o in read("acme", directories=[first, second]).offers] == [20.0]
    everything = read("acme", "all", directories=[first, second])
    assert [o.usd_per_hour for o in everything.offers] == [20.0, 26.0]
    assert (everything.name, everything.as_of, everything.rejected) == ("all", "2026-11-01", ())


def test_ownership_by_any_of_its_names():
    for name in ("ownership-hyperscaler", "hyperscaler"):
        (offer,) = read(name).offers
        assert (offer.provider, offer.market, offer.instance_type) == ("owned", Market.OWNED, "node of 8")
        assert offer.usd_per_accelerator_hour == pytest.approx(1.41)
    assert read("rental-3y").offers[0].usd_per_accelerator_hour == pytest.approx(1.6)


def test_a_component_profile_takes_its_site_after_an_at():
    (offer,) = read("ownership-mine@texas").offers
    assert offer.region == "texas"
    assert offer.usd_per_accelerator_hour == pytest.approx(
        1.1164 + 1.73 / 1.15 * 100 / 730 + 1.73 / 1.15 * 1.1 * 0.8 * 0.066, abs=1e-4
    )


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ownership-hyperscalar", "did you mean ownership-hyperscaler"),
        ("awz", "unknown price list 'awz'; did you mean aws"),
        ("ownership-mine@", "unknown site ''"),
        ("ownership-mine@texsa", "unknown site 'texsa'; did you mean texas?"),
        ("hyperscaler@texas", "takes no site"),
    ],
)
def test_a_name_that_is_no_list(name, said):
    with pytest.raises(InputError) as caught:
        read(name, directories=[CATALOGS / "prices"])
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_two_lists_for_the_same_thing_say_so():
    with pytest.raises(CatalogError, match="duplicate: owned node of 8"):
        read("hyperscaler", "rental-3y")


def test_the_first_site_is_the_default():
    assert read("mine").offers == read("mine@texas").offers
    with pytest.raises(InputError, match="no sites are known"):
        read("mine", sites={})


def test_no_names():
    with pytest.raises(InputError, match="none named"):
        read()


@pytest.mark.parametrize("path", sorted((CATALOGS / "prices").glob("*.csv")), ids=lambda path: path.stem)
def test_the_snapshot_has_no_row_that_is_turned_down_for_its_price(path):
    names = {cells.split(",")[4] for cells in path.read_text(encoding="utf-8").splitlines()[1:]}
    everything = {f"x{number}": accelerator(f"x{number}", name) for number, name in enumerate(sorted(names))}
    prices = read_price_lists(
        [path.stem], directories=[path.parent], accelerators=everything, ownership={}, sites=SITES
    )
    assert not prices.rejected
    assert all(0.1 < offer.usd_per_accelerator_hour < 60 for offer in prices.offers)
    assert all(offer.provider == path.stem and offer.source and offer.as_of for offer in prices.offers)


def test_the_shipped_profiles_are_price_lists():
    prices = read("ownership-hyperscaler", ownership=load_ownership(CATALOGS / "ownership"))
    assert {o.accelerator for o in prices.offers} == {"h100_sxm", "h200_sxm"}
    assert {row.reason for row in prices.rejected} >= {"accelerator 'mi300x' is not in the catalog"}
