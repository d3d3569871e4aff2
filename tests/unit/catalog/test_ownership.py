"""Ownership profiles: the shipped ones against the published table, and what a faulty file is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from tokopt.catalog.ownership import load_ownership, lot_cost, owned_offers, site_for
from tokopt.cost import rent_usd_per_kw_month
from tokopt.domain.accelerators import Accelerator, PurchaseUnit, Topology
from tokopt.domain.offers import Market
from tokopt.domain.sites import Site
from tokopt.errors import CatalogError, InputError

SHIPPED = Path(__file__).parents[3] / "catalogs" / "ownership"
# SemiAnalysis InferenceX application constants, 2026-04-03: hyperscaler, neocloud, 3-year rental, all-in W.
PUBLISHED = {
    "h100_sxm": (1.30, 1.69, 1.30, 1730.0),
    "h200_sxm": (1.41, 1.74, 1.60, 1730.0),
    "b200_sxm": (1.95, 2.34, 2.90, 2170.0),
    "b300_sxm": (2.34, 2.808, 3.48, 2170.0),
    "gb200_nvl72": (2.21, 2.75, 3.30, 2100.0),
    "gb300_nvl72": (2.652, 3.30, 3.96, 2100.0),
    "mi300x": (1.12, 1.40, 1.55, 1790.0),
    "mi325x": (1.28, 1.59, 1.80, 2180.0),
    "mi355x": (1.48, 1.90, 2.10, 2650.0),
}
COMPONENTS = """
title: Mine
source: test
observed_on: "2026-11-23"
capex_usd: {h200_sxm: 31000}
cost_of_capital: 0.1
life_years: 4
colocation_usd_per_kw_month: 100
"""


def accelerator(name: str, all_in_w: float | None) -> Accelerator:
    rack = name.endswith("nvl72")
    return Accelerator(
        name=name,
        title=name,
        vendor="v",
        generation="g",
        aliases=(),
        memory_bytes=1.0,
        memory_bytes_per_s=1.0,
        dense_flop_per_s={},
        sparse_flop_per_s={},
        scale_up_size=72 if rack else 8,
        scale_up_bytes_per_s=1.0,
        scale_up_topology=Topology.SWITCH,
        scale_out_bytes_per_s=None,
        accelerators_per_node=4 if rack else 8,
        nodes_per_rack=18 if rack else None,
        purchase_unit=PurchaseUnit.RACK if rack else PurchaseUnit.NODE,
        board_w=None,
        server_w=None,
        all_in_w=all_in_w,
        idle_w=None,
    )


ACCELERATORS = {name: accelerator(name, row[3]) for name, row in PUBLISHED.items()}
TEXAS = Site(
    name="texas", title="Texas", pue=1.15, usd_per_kwh=0.066, carbon_g_per_kwh=None, source="eia", observed_on="2023"
)


@pytest.fixture(scope="module")
def shipped():
    return load_ownership(SHIPPED)


@pytest.mark.parametrize(("name", "column"), [("hyperscaler", 0), ("neocloud", 1), ("rental-3y", 2)])
def test_published_profiles_repeat_the_published_table(shipped, name, column):
    profile = shipped[name]
    assert profile.usd_per_accelerator_hour == {key: row[column] for key, row in PUBLISHED.items()}
    assert profile.placeholders == ("b300_sxm", "gb300_nvl72")
    assert profile.observed_on == "2026-04-03"
    offers, rejected = owned_offers(profile, accelerators=ACCELERATORS)
    assert not rejected
    by_name = {offer.accelerator: offer for offer in offers}
    for key, row in PUBLISHED.items():
        assert by_name[key].usd_per_accelerator_hour == pytest.approx(row[column], rel=1e-12)
        assert ("placeholder" in by_name[key].note) == (key in profile.placeholders)
    terms = ("rented", Market.RESERVED_3Y) if name == "rental-3y" else ("owned", Market.OWNED)
    assert {(o.provider, o.market) for o in offers} == {terms}
    assert (by_name["gb300_nvl72"].instance_type, by_name["gb300_nvl72"].accelerator_count) == ("rack of 72", 72)
    assert (by_name["h200_sxm"].instance_type, by_name["h200_sxm"].accelerator_count) == ("node of 8", 8)


@pytest.mark.parametrize("gpu", PUBLISHED)
@pytest.mark.parametrize(("name", "column"), [("hyperscaler", 0), ("neocloud", 1), ("rental-3y", 2)])
def test_components_land_near_the_published_cost(catalog, name, column, gpu):
    profile = catalog.ownership[f"components-{name}"]
    offers, rejected = owned_offers(profile, accelerators=catalog.accelerators, sites=catalog.sites)
    assert not rejected
    assert {offer.accelerator for offer in offers} == set(PUBLISHED)
    (offer,) = (offer for offer in offers if offer.accelerator == gpu)
    assert offer.usd_per_accelerator_hour == pytest.approx(PUBLISHED[gpu][column], rel=0.15)


def test_the_table_of_the_page_is_what_comes_out(catalog):
    page = (SHIPPED.parents[1] / "docs" / "ownership.md").read_text(encoding="utf-8")
    for gpu in PUBLISHED:
        cells = []
        for name in ("hyperscaler", "neocloud", "rental-3y"):
            published = catalog.ownership[name].usd_per_accelerator_hour[gpu]
            (lot,) = (lot for lot in catalog.ownership[f"components-{name}"].lots if lot.accelerator == gpu)
            profile = catalog.ownership[f"components-{name}"]
            site = site_for(profile, lot, catalog.sites)
            cost = lot_cost(profile, lot, catalog.accelerators[gpu], site).usd_per_accelerator_hour
            cells += [f"{published:g}", f"{cost:.2f}", f"{cost / published - 1:+.1%}".replace("%", " %")]
        assert f"| `{gpu}` | {' | '.join(cells)} |" in page


def test_every_input_of_a_component_profile_has_a_source(catalog):
    for name, profile in catalog.ownership.items():
        assert profile.source in catalog.sources, name
        assert set(profile.sources.values()) <= set(catalog.sources), name


def test_the_financed_rental_is_the_published_one_with_its_capital(catalog):
    plain, financed = catalog.ownership["rental-3y"], catalog.ownership["rental-3y-financed"]
    assert plain.usd_per_accelerator_hour == financed.usd_per_accelerator_hour
    assert (plain.prepaid_fraction, plain.term_years, plain.cost_of_capital) == (0.25, 3.0, None)
    factor = 0.75 + 0.25 * 3 * 0.1 / (1 - 1.1**-3)
    offers, _ = owned_offers(financed, accelerators=catalog.accelerators)
    for offer in offers:
        published = plain.usd_per_accelerator_hour[offer.accelerator]
        assert offer.usd_per_accelerator_hour == pytest.approx(published * factor, rel=1e-12)


def test_capex_follows_from_the_stated_inference(shipped):
    factor = 0.1 / (1 - 1.1**-4)
    for lot in shipped["components-hyperscaler"].lots:
        assert lot.capex.total == pytest.approx(0.8 * PUBLISHED[lot.accelerator][0] * 8760 / factor, abs=500)
        assert lot.capex.network / lot.capex.total == pytest.approx(13 / 56.25, abs=0.002)
    neocloud = {lot.accelerator: lot.capex for lot in shipped["components-neocloud"].lots}
    assert neocloud == {lot.accelerator: lot.capex for lot in shipped["components-hyperscaler"].lots}


def test_a_component_profile_needs_a_site(shipped):
    with pytest.raises(InputError, match="site is needed"):
        owned_offers(shipped["components-hyperscaler"], accelerators=ACCELERATORS)


def test_what_cannot_be_priced_is_reported(shipped):
    known = {"h200_sxm": ACCELERATORS["h200_sxm"], "mi300x": accelerator("mi300x", None)}
    offers, rejected = owned_offers(shipped["components-hyperscaler"], accelerators=known, site=TEXAS)
    assert [offer.accelerator for offer in offers] == ["h200_sxm"]
    reasons = " | ".join(row.reason for row in rejected)
    assert "mi300x: all_in_w is not known" in reasons
    assert "'b200_sxm' is not in the catalog" in reasons


def test_no_directory_no_profiles(tmp_path):
    assert load_ownership(tmp_path / "none") == {}


def test_a_built_shell_becomes_a_monthly_rent(tmp_path):
    text = COMPONENTS.replace("colocation_usd_per_kw_month: 100", "build_usd_per_kw: 12000\nbuild_life_years: 20")
    (tmp_path / "mine.yaml").write_text(text)
    rent = rent_usd_per_kw_month(load_ownership(tmp_path)["mine"])
    assert rent == pytest.approx(12000 * 0.1 / (1 - 1.1**-20) / 12)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("title: Mine", "", "title: missing"),
        ("life_years: 4", "", "life_years: missing"),
        ("life_years: 4", "life_years: 0", "life_years: "),
        ("life_years: 4", "life_year: 4", "life_year: unknown key"),
        ("cost_of_capital: 0.1", "cost_of_capital: 10", "cost_of_capital: "),
        ("{h200_sxm: 31000}", "{h200_sxm: -1}", "capex_usd.h200_sxm.undivided: "),
        (
            "capex_usd: {h200_sxm: 31000}",
            "",
            "either usd_per_accelerator_hour, or capex_usd or lots is needed; neither",
        ),
        ("life_years: 4", "life_years: 4\nplaceholders: [l4]", "placeholders: l4 has no figure"),
        (
            "colocation_usd_per_kw_month: 100",
            "",
            "one of colocation_usd_per_kw_month, build_usd_per_mw and build_usd_per_kw is needed; none",
        ),
        (
            "colocation_usd_per_kw_month: 100",
            "build_usd_per_kw: 1",
            "build_life_years: missing, build_usd_per_kw needs it",
        ),
        ("capex_usd: {h200_sxm: 31000}", "usd_per_accelerator_hour: {h200_sxm: 1}", "goes with capex_usd"),
    ],
)
def test_a_fault_is_one_line_with_file_and_key(tmp_path, old, new, said):
    assert old in COMPONENTS
    (tmp_path / "mine.yaml").write_text(COMPONENTS.replace(old, new))
    with pytest.raises(CatalogError) as caught:
        load_ownership(tmp_path)
    message = str(caught.value)
    assert "mine.yaml: " in message and said in message and "\n" not in message
