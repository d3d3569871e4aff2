"""Power caps and clock locks as variants of accelerators: names, watts, rates, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tokopt.catalog import Catalog, load_catalog
from tokopt.domain.power_settings import SettingBasis
from tokopt.errors import CatalogError, InputError


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("h200@500w", "h200_sxm@500w"),
        ("H200 SXM@500W", "h200_sxm@500w"),
        ("h200_sxm@0.5kw", "h200_sxm@500w"),
        ("h200_sxm@500.0 W", "h200_sxm@500w"),
        ("h200_sxm@1.2GHz", "h200_sxm@1200mhz"),
        ("h100@437.5w", "h100_sxm@437.5w"),
    ],
)
def test_settings_are_found_however_they_are_written(catalog: Catalog, written: str, name: str) -> None:
    found = catalog.accelerator(written)
    assert found.name == name
    assert catalog.accelerators[name] is found  # one record: what is remembered by identity stays remembered
    assert (name in catalog.accelerators) and (name not in list(catalog.accelerators))


def test_a_cap_by_hand(catalog: Catalog) -> None:
    plain, capped = catalog.accelerator("h200_sxm"), catalog.accelerator("h200_sxm@500w")
    assert capped.throttle is not None
    assert plain.power_curve is not None
    share = ((500 - 74) / (700 - 74)) ** (1 / plain.power_curve.exponent)
    assert capped.throttle.clock_share == pytest.approx(share)
    for number_format, rate in plain.dense_flop_per_s.items():
        assert capped.dense_flop_per_s[number_format] == pytest.approx(rate * share)
    assert (capped.board_w, capped.full_board_w, capped.server_w) == (500, 700, 1275 - 200)
    assert capped.all_in_w == pytest.approx(1730 - 200 * 1730 / 1275)
    assert capped.memory_bytes_per_s == plain.memory_bytes_per_s
    assert capped.scale_up_bytes_per_s == plain.scale_up_bytes_per_s
    assert capped.hardware == plain.name == plain.hardware
    assert capped.throttle.setting.basis is SettingBasis.FITTED
    assert capped.sources["power_setting"] == "mlperf-inference-v4.1"


def test_a_lock_by_hand(catalog: Catalog) -> None:
    plain, locked = catalog.accelerator("h100_sxm"), catalog.accelerator("h100_sxm@1200mhz")
    assert locked.throttle is not None
    assert plain.power_curve is not None
    power = (1200 / 1830) ** plain.power_curve.exponent
    assert locked.throttle.clock_share == pytest.approx(1200 / 1830)
    assert locked.throttle.products_share == pytest.approx(power)
    assert locked.throttle.traffic_share == pytest.approx(1 - 0.44 * (1 - power))
    # Nothing enforces what a lock saves.
    assert (locked.board_w, locked.server_w, locked.all_in_w) == (plain.board_w, plain.server_w, plain.all_in_w)
    assert locked.throttle.setting.basis is SettingBasis.EXTRAPOLATED


def test_without_a_nameplate_the_boards_watts_alone_are_saved(tmp_path: Path) -> None:
    entry = {"power_curve": {"exponent": 2.0, "traffic_share": 0.4, "source": "tokopt-assumption"}}
    found = changed(tmp_path, "mi300x", entry).accelerator("mi300x@500w")
    assert (found.server_w, found.all_in_w) == (None, pytest.approx(1790 - 250))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("h200@turbo", "'turbo' is not a power setting; write a cap like @500w or a clock like @1200mhz (listed"),
        ("h200@", "'' is not a power setting"),
        ("h200@500", "'500' is not a power setting"),
        ("h200@-500w", "'-500w' is not a power setting"),
        ("h200@nanw", "'nanw' is not a power setting"),
        ("h200@500w@400w", "'500w@400w' is not a power setting"),
        (
            "h200@50w",
            "a cap of 50 W is not possible: it must be above the 74 W that the board draws when idle and below",
        ),
        ("h200@74w", "a cap of 74 W is not possible"),
        ("h200@700w", "a cap of 700 W is not possible"),
        ("h200@0w", "a cap of 0 W is not possible"),
        ("h200@1830mhz", "a clock of 1,830 MHz is not possible: it must be above 0 and below the 1830 MHz"),
        ("h200@0mhz", "a clock of 0 MHz is not possible"),
        ("b200_sxm@1200mhz", "the catalog has no power_curve.clock_mhz for b200_sxm, which a lock needs"),
        ("l40s@200w", "the catalog has no power_curve for l40s, which a setting needs"),
        ("h201@500w", "unknown accelerator 'h201'; did you mean"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(catalog: Catalog, name: str, said: str) -> None:
    with pytest.raises(InputError) as error:
        catalog.accelerator(name)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert name not in catalog.accelerators
    assert catalog.accelerators.get(name) is None


def changed(folder: Path, name: str, entry: dict[str, object]) -> Catalog:
    """Return a catalog in which an accelerator's file says something else."""
    embedded = load_catalog().directories[0] / "accelerators" / f"{name}.yaml"
    row = yaml.safe_load(embedded.read_text(encoding="utf-8")) | entry
    (folder / "accelerators").mkdir()
    text = yaml.safe_dump({key: value for key, value in row.items() if value is not None})
    (folder / "accelerators" / f"{name}.yaml").write_text(text, encoding="utf-8")
    return load_catalog(folder)


CURVE = {"exponent": 2.0, "clock_mhz": 1830, "traffic_share": 0.4, "source": "tokopt-assumption"}
LISTED = {"basis": "extrapolated", "source": "tokopt-assumption"}


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"power_settings": [{"cap_w": 50} | LISTED]}, "power_settings: h100_sxm@50w: a cap of 50 W is not possible"),
        ({"power_settings": [{"cap_w": 500, "clock_mhz": 900} | LISTED]}, "exactly one of cap_w and clock_mhz"),
        ({"power_settings": [LISTED]}, "exactly one of cap_w and clock_mhz"),
        ({"power_settings": [{"cap_w": 500} | LISTED, {"cap_w": 500.0} | LISTED]}, "500w is there twice"),
        ({"power_settings": [{"cap_w": "500w"} | LISTED]}, "power_settings.0.cap_w"),
        ({"power_settings": [{"cap_w": 500, "basis": "guess", "source": "x"}]}, "power_settings.0.basis"),
        ({"power_curve": None, "power_settings": [{"cap_w": 500} | LISTED]}, "has no power_curve for h100_sxm"),
        ({"idle_w": None, "sources": {}, "power_settings": [{"cap_w": 500} | LISTED]}, "has no idle_w for h100_sxm"),
        ({"power_curve": CURVE | {"exponent": 0}}, "power_curve.exponent"),
        ({"power_curve": CURVE | {"traffic_share": 1.5}}, "power_curve.traffic_share"),
        ({"power_curve": CURVE | {"clock_ghz": 1.8}}, "power_curve.clock_ghz: unknown key"),
    ],
)
def test_a_wrong_file_is_one_clear_line(tmp_path: Path, entry: dict[str, object], said: str) -> None:
    with pytest.raises(CatalogError) as error:
        _ = changed(tmp_path, "h100_sxm", entry).accelerators
    assert said in str(error.value)
    assert "h100_sxm.yaml" in str(error.value)
    assert "\n" not in str(error.value)


def test_sources_of_curves_and_settings_are_checked(tmp_path: Path) -> None:
    entry = {
        "power_curve": CURVE | {"source": "nowhere"},
        "power_settings": [{"cap_w": 500} | LISTED | {"source": "no"}],
    }
    problems = changed(tmp_path, "h100_sxm", entry).check()
    assert [p for p in problems if "power_curve: source 'nowhere'" in p]
    assert [p for p in problems if "power_settings 500w: source 'no'" in p]


def test_every_listed_setting_is_between_its_accelerators_own_limits(catalog: Catalog) -> None:
    listed = [v for name in catalog.accelerators for v in catalog.accelerators.listed_variants(name)]
    assert len(listed) >= 15
    for each in listed:
        plain = catalog.accelerators[each.hardware]
        assert each.throttle is not None
        assert 0.3 < each.throttle.clock_share < 1.0
        for inside, outside in ((each.idle_w, each.board_w), (each.board_w, each.server_w)):
            assert inside is not None
            assert outside is not None
            assert inside < outside
        assert each.all_in_w is None or each.server_w <= each.all_in_w <= plain.all_in_w  # type: ignore[operator]
        assert catalog.accelerator(each.name) is each


@settings(deadline=None)
@given(low=st.floats(75.0, 699.0), high=st.floats(75.0, 699.0))
def test_a_lower_cap_is_never_faster_and_never_provisioned_higher(catalog: Catalog, low: float, high: float) -> None:
    lower, higher = (catalog.accelerator(f"h200_sxm@{cap:.3f}w") for cap in sorted((low, high)))
    for number_format, rate in lower.dense_flop_per_s.items():
        assert rate <= higher.dense_flop_per_s[number_format]
    assert lower.server_w <= higher.server_w  # type: ignore[operator]
    assert lower.all_in_w <= higher.all_in_w  # type: ignore[operator]
