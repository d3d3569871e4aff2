"""Sites: tables of states, countries and cloud regions, values by hour, and where offers stand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokopt.catalog import load_catalog
from tokopt.catalog.sites import COLUMNS, read_site_table, site_of
from tokopt.domain.offers import Market, Offer
from tokopt.domain.sites import Site
from tokopt.errors import CatalogError, InputError

# A busy machine draws slowly; no test is about time.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

ROOT = Path(__file__).parents[3]


def offer(provider: str, region: str) -> Offer:
    return Offer(
        provider=provider,
        region=region,
        zone="",
        instance_type="m",
        accelerator="h100_sxm",
        accelerator_count=8,
        market=Market.ON_DEMAND,
        usd_per_hour=1.0,
        as_of="2026",
        source="s",
    )


def site(by_hour: tuple[float, ...] = (), usd: float = 0.1) -> Site:
    return Site(
        name="s",
        title="S",
        pue=1.1,
        usd_per_kwh=usd,
        carbon_g_per_kwh=100.0,
        source="s",
        observed_on="2026",
        usd_per_kwh_by_hour=by_hour,
    )


# Spot checks of the EIA's table of 2023 and of codecarbon 3.3.2.
@pytest.mark.parametrize(
    ("name", "usd", "grams"),
    [
        ("texas", 0.066, 321.0),
        ("us-va", 0.0892, 322.0),
        ("washington", 0.0635, 369.473),
        ("alabama", 0.0711, 369.473),
        ("us-ca", 0.1864, 198.0),
        ("wisconsin", None, 369.473),
        ("germany", None, 380.95),
        ("fra", None, 56.039),
        ("uk", None, 237.589),
        ("georgia", None, 167.594),
        ("georgia-us", 0.0688, 369.473),
        ("aws-us-east-1", 0.0892, 322.0),
        ("gcp-me-central1", None, 575.0),
        ("azure-swedencentral", None, 40.695),
    ],
)
def test_figures_of_places(catalog, name, usd, grams):
    found = catalog.site(name)
    assert (found.usd_per_kwh, found.carbon_g_per_kwh) == (usd, grams)
    assert set(found.sources.values()) <= set(catalog.sources)
    assert {"pue", "carbon_g_per_kwh"} <= set(found.sources)


def test_there_are_all_states_many_countries_and_cloud_regions(catalog):
    sites = list(catalog.sites.values())
    assert sum(any(a.startswith("us-") and len(a) == 5 for a in s.aliases) for s in sites) == 51
    assert sum(bool(s.provider) for s in sites) > 150
    assert sum(not s.provider and not s.place for s in sites) > 200
    assert next(iter(catalog.sites)) == "us-average"
    for s in sites:
        if s.place:
            assert s.place in catalog.sites, s.name


def test_offers_find_their_place(catalog):
    assert catalog.site_of(offer("aws", "us-east-1")).name == "aws-us-east-1"
    assert catalog.site_of(offer("azure", "westus2")).place == "washington"
    assert catalog.site_of(offer("verda", "FIN-01")).place == "finland"
    assert catalog.site_of(offer("somebody", "Texas")).name == "texas"
    assert catalog.site_of(offer("somebody", "us-east-1")) is None  # another provider's name says nothing
    assert catalog.site_of(offer("somebody", "")) is None


def test_every_region_of_the_embedded_price_lists_is_a_place(catalog):
    unknown = {
        (o.provider, o.region)
        for o in catalog.price_list(["all"]).offers
        if o.region and o.region != "North America" and catalog.site_of(o) is None
    }
    assert not unknown


def test_an_owned_offer_stands_where_it_was_computed_for(catalog):
    with pytest.raises(CatalogError, match="usd_per_kwh is not known"):
        catalog.price_list(["components-neocloud@uk"])
    for owned in catalog.price_list(["components-neocloud@us-va"]).offers:
        assert site_of(owned, catalog.sites).name == owned.region == "virginia"


@unhurried
@given(
    prices=st.lists(st.floats(0.01, 1.0), min_size=24, max_size=24),
    start=st.floats(0.0, 48.0),
    hours=st.floats(0.01, 72.0),
)
def test_a_period_has_the_mean_of_its_hours(prices, start, hours):
    found = site(tuple(prices)).usd_per_kwh_over(start, hours)
    steps = 4_000
    middle = [start + hours * (k + 0.5) / steps for k in range(steps)]
    assert found == pytest.approx(sum(prices[int(t) % 24] for t in middle) / steps, abs=0.03)
    assert min(prices) - 1e-12 <= found <= max(prices) + 1e-12
    assert site(tuple(prices)).usd_per_kwh_over(0.0, 24.0) == pytest.approx(sum(prices) / 24)
    assert site(tuple(prices)).usd_per_kwh_over(start, 48.0) == pytest.approx(sum(prices) / 24)
    hour = int(start) % 24
    assert site(tuple(prices)).usd_per_kwh_over(float(hour), 1.0) == pytest.approx(prices[hour])


def test_without_hours_a_period_has_the_price_of_the_day():
    assert site().usd_per_kwh_over(7.0, 3.0) == 0.1
    assert site().carbon_g_per_kwh_over(7.0, 3.0) == 100.0


HOURLY = "[" + ", ".join(["0.05"] * 12 + ["0.15"] * 12) + "]"


def overlay(tmp_path: Path, keys: str) -> str:
    (tmp_path / "sites.yaml").write_text(
        f"home:\n  title: Home\n  pue: 1.2\n{keys}  source: eia-2023\n  observed_on: 2026-11-01\n"
    )
    return str(tmp_path)


def test_a_site_with_prices_by_hour(tmp_path):
    found = load_catalog(overlay(tmp_path, f"  usd_per_kwh_by_hour: {HOURLY}\n")).site("home")
    assert found.usd_per_kwh == pytest.approx(0.10)
    assert found.usd_per_kwh_over(0, 12) == pytest.approx(0.05)
    assert found.usd_per_kwh_over(18, 12) == pytest.approx(0.10)  # past midnight


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("  usd_per_kwh_by_hour: [0.1, 0.2]\n", "usd_per_kwh_by_hour: 2 values; 24 are needed"),
        (f"  usd_per_kwh: 0.1\n  usd_per_kwh_by_hour: {HOURLY}\n", "one of them is enough"),
        (f"  carbon_g_per_kwh: 1\n  carbon_g_per_kwh_by_hour: {HOURLY}\n", "one of them is enough"),
        ("  usd_per_kwh_by_hour: [a]\n", "usd_per_kwh_by_hour.0"),
        ("  usd_per_kwh: -1\n", "usd_per_kwh: "),
    ],
)
def test_faulty_hours_are_one_line(tmp_path, keys, said):
    with pytest.raises(CatalogError) as caught:
        load_catalog(overlay(tmp_path, keys)).site("home")
    assert said in str(caught.value) and "home" in str(caught.value) and "\n" not in str(caught.value)


def table(tmp_path: Path, **cells: str) -> Path:
    row = dict.fromkeys(COLUMNS, "") | {"name": "a", "pue": "1.2", "pue_source": "uptime-2023"} | cells
    path = tmp_path / "t.csv"
    path.write_text(",".join(row) + "\n" + ",".join(row.values()) + "\n")
    return path


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ({"pue": "0.9"}, "pue '0.9': a number of at least 1"),
        ({"pue": ""}, "pue and pue_source go together"),
        ({"usd_per_kwh": "0.1"}, "usd_per_kwh and usd_per_kwh_source go together"),
        ({"usd_per_kwh": "x", "usd_per_kwh_source": "eia-2023"}, "usd_per_kwh 'x' is not a number above zero"),
        ({"carbon_g_per_kwh": "-1", "carbon_g_per_kwh_source": "s"}, "is not a number above zero"),
        ({"name": "A B"}, "'A B' is no name"),
        ({"grams": "1"}, "unknown column 'grams'"),
    ],
)
def test_a_faulty_table_is_one_line(tmp_path, cells, said):
    with pytest.raises(CatalogError) as caught:
        read_site_table(table(tmp_path, **cells))
    assert said in str(caught.value) and "t.csv" in str(caught.value) and "\n" not in str(caught.value)


def test_an_entry_replaces_a_row_of_its_name(tmp_path):
    (tmp_path / "sites.yaml").write_text(
        "texas:\n  title: Ours\n  pue: 1.3\n  usd_per_kwh: 0.05\n  source: eia-2023\n  observed_on: 2026-11-01\n"
    )
    loaded = load_catalog(str(tmp_path))
    assert loaded.site("texas").pue == 1.3
    with pytest.raises(InputError, match="unknown site"):
        loaded.site("atlantis")


def test_the_tool_makes_the_tables_that_are_there(tmp_path):
    """From a small source of its own: what lies where, what is taken from the country, what is not known."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "electricity_us_2023.csv").write_text(
        "state,commercial_usd_per_kwh,industrial_usd_per_kwh,all_sectors_usd_per_kwh,year,source\n"
        "Texas,0.1,0.066,0.1,2023,EIA\n"
    )
    embedded = (ROOT / "catalogs" / "sites" / "cloud_regions.csv").read_text().splitlines()
    assert embedded[0] == ",".join(COLUMNS)
    (source / "carbon_intensity.csv").write_text(
        "scope,cloud,region,country_iso3,country_name,gco2e_per_kwh,year,source\n"
        "country,,,USA,United States,369,2023,c\n"
    )
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "build_sites.py"), str(source), str(tmp_path / "out")],
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0 and "is neither a state nor a country of the data" in done.stderr
