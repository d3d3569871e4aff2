"""Build the tables of sites: US states, countries and cloud regions, with electricity, carbon and PUE.

    python tools/build_sites.py SOURCE_DIRECTORY catalogs/sites

The source directory has `electricity_us_2023.csv` (EIA, industrial price by state) and `carbon_intensity.csv`
(codecarbon, mix by country and intensity by cloud region). Where a region lies is in `PLACES`: a provider's own page
names its regions' states and countries. A state or region whose carbon intensity is not in the data has that of its
country, and a cloud region the price of electricity of its state; the note says so.
"""

from __future__ import annotations

import csv
import re
import sys
import unicodedata
from pathlib import Path

from tokopt.catalog.sites import COLUMNS

READ_ON = "2026-11-23"
EIA, MIX, PUES, COLOCATION = "eia-2023", "codecarbon-3.3.2", "dcd-pue-2024", "uptime-2023"
FLEET_PUE = {"aws": 1.15, "gcp": 1.10, "azure": 1.18, "oci": 1.15}  # reported for 2024; AWS' stands for any place
INDUSTRY_PUE = 1.58  # of buildings of which nothing is known
HOME = "us-average"  # the hand-written site of the United States, which `USA` is
STATE_CODES = {
    "Alabama": "al", "Alaska": "ak", "Arizona": "az", "Arkansas": "ar", "California": "ca", "Colorado": "co",
    "Connecticut": "ct", "Delaware": "de", "District of Columbia": "dc", "Florida": "fl", "Georgia": "ga",
    "Hawaii": "hi", "Idaho": "id", "Illinois": "il", "Indiana": "in", "Iowa": "ia", "Kansas": "ks", "Kentucky": "ky",
    "Louisiana": "la", "Maine": "me", "Maryland": "md", "Massachusetts": "ma", "Michigan": "mi", "Minnesota": "mn",
    "Mississippi": "ms", "Missouri": "mo", "Montana": "mt", "Nebraska": "ne", "Nevada": "nv", "New Hampshire": "nh",
    "New Jersey": "nj", "New Mexico": "nm", "New York": "ny", "North Carolina": "nc", "North Dakota": "nd",
    "Ohio": "oh", "Oklahoma": "ok", "Oregon": "or", "Pennsylvania": "pa", "Rhode Island": "ri",
    "South Carolina": "sc", "South Dakota": "sd", "Tennessee": "tn", "Texas": "tx", "Utah": "ut", "Vermont": "vt",
    "Virginia": "va", "Washington": "wa", "West Virginia": "wv", "Wisconsin": "wi", "Wyoming": "wy",
}  # fmt: skip
RENAMED = {"Georgia": "georgia-us"}  # a state that is called as a country is
COUNTRY_ALIASES = {"GBR": ("uk",)}
MISSPELT = {"me-cenrtal1": "me-central1"}
# Provider -> region -> state (as named above) or ISO 3166 code of the country.
PLACES: dict[str, dict[str, str]] = {
    "aws": {
        "us-east-1": "Virginia", "us-east-2": "Ohio", "us-west-1": "California", "us-west-2": "Oregon",
        "us-gov-east-1": "Ohio", "us-gov-west-1": "Oregon", "ca-central-1": "CAN", "ca-west-1": "CAN",
        "mx-central-1": "MEX", "sa-east-1": "BRA", "eu-central-1": "DEU", "eu-central-2": "CHE", "eu-north-1": "SWE",
        "eu-south-1": "ITA", "eu-south-2": "ESP", "eu-west-1": "IRL", "eu-west-2": "GBR", "eu-west-3": "FRA",
        "af-south-1": "ZAF", "ap-east-1": "HKG", "ap-northeast-1": "JPN", "ap-northeast-2": "KOR",
        "ap-northeast-3": "JPN", "ap-south-1": "IND", "ap-south-2": "IND", "ap-southeast-1": "SGP",
        "ap-southeast-2": "AUS", "ap-southeast-3": "IDN", "ap-southeast-4": "AUS", "ap-southeast-5": "MYS",
        "ap-southeast-7": "THA", "il-central-1": "ISR", "me-central-1": "ARE", "me-south-1": "BHR",
    },
    "azure": {
        "australiacentral": "AUS", "australiaeast": "AUS", "australiasoutheast": "AUS", "austriaeast": "AUT",
        "brazilsouth": "BRA", "canadacentral": "CAN", "canadaeast": "CAN", "centralindia": "IND", "centralus": "Iowa",
        "eastasia": "HKG", "eastus": "Virginia", "eastus2": "Virginia", "francecentral": "FRA", "francesouth": "FRA",
        "germanynorth": "DEU", "germanywestcentral": "DEU", "indonesiacentral": "IDN", "israelcentral": "ISR",
        "italynorth": "ITA", "japaneast": "JPN", "japanwest": "JPN", "jioindiacentral": "IND", "jioindiawest": "IND",
        "koreacentral": "KOR", "koreasouth": "KOR", "malaysiawest": "MYS", "mexicocentral": "MEX",
        "newzealandnorth": "NZL", "northcentralus": "Illinois", "northeurope": "IRL", "norwayeast": "NOR",
        "norwaywest": "NOR", "polandcentral": "POL", "qatarcentral": "QAT", "southafricanorth": "ZAF",
        "southafricawest": "ZAF", "southcentralus": "Texas", "southeastasia": "SGP", "southindia": "IND",
        "spaincentral": "ESP", "swedencentral": "SWE", "switzerlandnorth": "CHE", "switzerlandwest": "CHE",
        "uaecentral": "ARE", "uaenorth": "ARE", "uksouth": "GBR", "ukwest": "GBR", "westcentralus": "Wyoming",
        "westeurope": "NLD", "westindia": "IND", "westus": "California", "westus2": "Washington", "westus3": "Arizona",
    },
    "gcp": {
        "us-central1": "Iowa", "us-east1": "South Carolina", "us-east4": "Virginia", "us-east5": "Ohio",
        "us-south1": "Texas", "us-west1": "Oregon", "us-west2": "California", "us-west3": "Utah",
        "us-west4": "Nevada",
    },
    "oci": {"eu-amsterdam-1": "NLD", "eu-stockholm-1": "SWE", "us-ashburn-1": "Virginia", "us-phoenix-1": "Arizona",
            "us-chicago-1": "Illinois", "us-sanjose-1": "California", "eu-frankfurt-1": "DEU", "uk-london-1": "GBR"},
    "lambda": {
        "us-east-1": "Virginia", "us-west-1": "California", "us-west-2": "Arizona", "us-west-3": "Utah",
        "us-south-1": "Texas", "us-south-2": "Texas", "us-south-3": "Texas", "us-midwest-1": "Illinois",
        "us-east-2": "USA", "us-east-3": "USA", "europe-central-1": "DEU", "europe-south-1": "ITA",
        "asia-northeast-1": "JPN", "asia-northeast-2": "JPN", "asia-south-1": "IND", "australia-east-1": "AUS",
        "me-west-1": "ISR",
    },
    "nebius": {"eu-north1": "FIN", "eu-west1": "FRA", "us-central1": "Missouri", "me-west1": "ISR"},
    "verda": {"FIN-01": "FIN", "FIN-02": "FIN", "FIN-03": "FIN", "ICE-01": "ISL"},
    "seeweb": {"it-fr2": "ITA"},
    "do": {"tor1": "CAN"},
    "hyperstack": {"CANADA-1": "CAN", "US-1": "USA", "NORWAY-1": "NOR"},
    "runpod": {"US": "USA"},
    "primeintellect": {"DE": "DEU", "FI": "FIN", "IS": "ISL", "US": "USA"},
    "shadeform": {
        "austin-usa-1": "Texas", "calgary-canada-1": "CAN", "chicago-usa-2": "Illinois",
        "culpeper-usa-1": "Virginia", "dallas-usa-3": "Texas", "desmoines-usa-1": "Iowa", "houston-usa-2": "Texas",
        "montreal-canada-2": "CAN", "newyork-usa-1": "New York", "paris-france-1": "FRA", "paris-france-5": "FRA",
        "phoenix-usa-2": "Arizona", "saltlakecity-usa-1": "Utah", "sanjose-usa-2": "California",
        "tokyo-japan-5": "JPN", "warsaw-poland-1": "POL",
    },
}  # fmt: skip
Row = dict[str, str]


def slug(text: str) -> str:
    """Return a name as tables have it: lower-case letters, digits and hyphens."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")


def state_name(state: str) -> str:
    """Return the name of a state's site."""
    return RENAMED.get(state, slug(state))


def row(**cells: object) -> Row:
    """Return a row of a table, empty where nothing is said."""
    full = dict.fromkeys(COLUMNS, "")
    full["observed_on"] = READ_ON
    return full | {key: str(value) for key, value in cells.items()}


def read(path: Path) -> list[Row]:
    """Return the rows of a CSV file."""
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def countries(carbon: list[Row]) -> list[Row]:
    """Return the sites of countries; the United States have an entry of their own."""
    found = []
    for entry in carbon:
        iso = entry["country_iso3"]
        if entry["scope"] != "country" or iso == "USA" or not float(entry["gco2e_per_kwh"]) > 0:
            continue
        found.append(
            row(
                name=slug(entry["country_name"]),
                title=entry["country_name"],
                aliases=";".join((iso.lower(), *COUNTRY_ALIASES.get(iso, ()))),
                pue=FLEET_PUE["aws"],
                pue_source=PUES,
                carbon_g_per_kwh=entry["gco2e_per_kwh"],
                carbon_g_per_kwh_source=MIX,
                note=f"Mix of {entry['year']}. No price of electricity for data centers that may be re-used was found.",
            )
        )
    return sorted(found, key=lambda r: r["name"])


def states(electricity: list[Row], carbon: list[Row]) -> list[Row]:
    """Return the sites of US states."""
    prices = {entry["state"]: entry for entry in electricity}
    regions = {entry["region"]: entry for entry in carbon if entry["cloud"] == "gcp"}
    inside = {state: region for region, state in PLACES["gcp"].items() if region in regions}
    country = next(e["gco2e_per_kwh"] for e in carbon if e["scope"] == "country" and e["country_iso3"] == "USA")
    found = []
    for state, code in STATE_CODES.items():
        price = prices.get(state, {}).get("industrial_usd_per_kwh", "")
        region = inside.get(state)
        said = [f"Industrial retail average of {prices[state]['year']}." if price else "The price could not be read."]
        said.append(
            f"Carbon is that of Google Cloud's {region}."
            if region
            else "Carbon is the country's; the state's is not known."
        )
        found.append(
            row(
                name=state_name(state),
                title=f"{state}, United States",
                aliases=f"us-{code}",
                place=HOME,
                pue=FLEET_PUE["aws"],
                pue_source=PUES,
                usd_per_kwh=price,
                usd_per_kwh_source=EIA if price else "",
                carbon_g_per_kwh=regions[region]["gco2e_per_kwh"] if region else country,
                carbon_g_per_kwh_source=MIX,
                note=" ".join(said),
            )
        )
    return found


def cloud_regions(carbon: list[Row], known_states: list[Row], known_countries: list[Row]) -> list[Row]:
    """Return the sites of cloud regions."""
    by_name = {entry["name"]: entry for entry in (*known_states, *known_countries)}
    iso = {e["country_iso3"]: slug(e["country_name"]) for e in carbon if e["scope"] == "country"}
    country = next(e["gco2e_per_kwh"] for e in carbon if e["scope"] == "country" and e["country_iso3"] == "USA")
    measured = {
        MISSPELT.get(e["region"], e["region"]): (e["gco2e_per_kwh"], e["country_iso3"], e["region"])
        for e in carbon
        if e["cloud"] == "gcp"
    }
    found = []
    for provider, places in PLACES.items():
        everywhere = dict(places)
        if provider == "gcp":
            everywhere = {region: code for region, (_, code, _) in measured.items()} | places
        for region, where in everywhere.items():
            place = HOME if where == "USA" else iso.get(where) or state_name(where)
            if place not in by_name and place != HOME:
                raise SystemExit(f"{provider} {region}: {where} is neither a state nor a country of the data")
            site = by_name.get(place, {})
            own = measured.get(region) if provider == "gcp" else None
            said = [] if own else [f"Carbon is that of {site.get('title', 'the United States')}."]
            if own and own[2] != region:
                said.append(f"The source spells it {own[2]}.")
            if not site.get("usd_per_kwh"):
                said.append("The price of electricity is not known.")
            found.append(
                row(
                    name=f"{provider}-{region.lower()}",
                    title=f"{provider} {region} ({site.get('title', 'United States')})",
                    provider=provider,
                    region=region,
                    place=place,
                    pue=FLEET_PUE.get(provider, INDUSTRY_PUE),
                    pue_source=PUES if provider in FLEET_PUE else COLOCATION,
                    usd_per_kwh=site.get("usd_per_kwh", ""),
                    usd_per_kwh_source=site.get("usd_per_kwh_source", ""),
                    carbon_g_per_kwh=own[0] if own else site.get("carbon_g_per_kwh", country),
                    carbon_g_per_kwh_source=MIX,
                    note=" ".join(said),
                )
            )
    return found


def main(source: Path, target: Path) -> None:
    """Write the three tables."""
    carbon = read(source / "carbon_intensity.csv")
    nations = countries(carbon)
    inside = states(read(source / "electricity_us_2023.csv"), carbon)
    target.mkdir(exist_ok=True)
    tables = {"us_states": inside, "countries": nations, "cloud_regions": cloud_regions(carbon, inside, nations)}
    for name, table in tables.items():
        with (target / f"{name}.csv").open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(table)
        print(f"{name}: {len(table)} sites")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
