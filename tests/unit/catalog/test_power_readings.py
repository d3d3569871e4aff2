"""Readings of power: what the embedded ones say, and rows that are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tokopt.catalog import load_catalog
from tokopt.errors import CatalogError

ROW = {
    "title": "Mine",
    "accelerator": "h100_sxm",
    "work": "decode",
    "meter": "board",
    "low_w": 150,
    "high_w": 320,
    "source": "tokopt-assumption",
    "observed_on": "2026-11-24",
}


def written(folder: Path, **changes: object) -> Path:
    row = {key: value for key, value in {**ROW, **changes}.items() if value is not None}
    row["observed_on"] = yaml.safe_load(str(row["observed_on"]))
    (folder / "power_readings.yaml").write_text(yaml.safe_dump({"mine": row}), encoding="utf-8")
    return folder


def test_every_embedded_reading_can_be_traced(catalog) -> None:
    assert catalog.power_readings
    for reading in catalog.power_readings.values():
        assert set(reading.sources.values()) <= set(catalog.sources), reading.name
        accelerator = catalog.accelerator(reading.accelerator)
        assert accelerator.idle_w < reading.low_w <= reading.high_w < accelerator.server_w


def test_a_reading_of_ones_own_is_added(tmp_path: Path) -> None:
    catalog = load_catalog(written(tmp_path))
    assert catalog.check() == []
    assert catalog.power_readings["mine"].high_w == 320 and len(catalog.power_readings) > 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"low_w": 400}, "low_w of 400 is above high_w of 320"),
        ({"power_limit_w": 300}, "power_limit_w is for readings under a cap, which need it"),
        ({"work": "capped"}, "power_limit_w is for readings under a cap, which need it"),
        ({"accelerator": "nonsense"}, "'nonsense' is not in the catalog"),
        ({"accelerator": "mi300x"}, "server_w of mi300x is not known"),
        ({"source": "hearsay"}, "source 'hearsay' is not in sources.yaml"),
    ],
)
def test_readings_that_say_nothing(tmp_path: Path, changes: dict, said: str) -> None:
    problems = load_catalog(written(tmp_path, **changes)).check()
    assert any("power_readings: mine" in problem and said in problem for problem in problems)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"low_w": -150}, "low_w"),
        ({"high_w": 0}, "high_w"),
        ({"work": "sleeping"}, "work"),
        ({"meter": "building"}, "meter"),
        ({"high_w": None}, "high_w: missing"),
    ],
)
def test_rows_that_are_refused(tmp_path: Path, changes: dict, said: str) -> None:
    with pytest.raises(CatalogError, match=said):
        _ = load_catalog(written(tmp_path, **changes)).power_readings
