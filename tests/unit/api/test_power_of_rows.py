"""Power of measured rows: predicted, compared, refused where it cannot be right, and fitted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import tokopt
from tokopt.api.calibrating import calibrate
from tokopt.api.power_readings import power_readings
from tokopt.api.tables import estimate_many
from tokopt.catalog import Catalog, load_catalog
from tokopt.catalog.calibration_files import load_calibration
from tokopt.catalog.measurements import checked_measurements
from tokopt.domain.calibration import POWER_SHARES
from tokopt.errors import InputError

Row = dict[str, Any]
OWN: Row = {
    "vendor_system": "h100_sxm",
    "framework": "vllm",
    "model": "llama-3.1-8b",
    "weight_precision": "bf16",
    "tp": 1,
    "n_gpus": 8,
    "isl": 1024,
    "osl": 256,
    "concurrency_or_batch": 32,
}


@pytest.fixture(scope="module")
def embedded(catalog: Catalog) -> pl.DataFrame:
    table = catalog.measurements()
    return table.filter(table["power_kw"].is_not_null())


def predicted(catalog: Catalog, *rows: Row) -> pl.DataFrame:
    frame = pl.DataFrame(list(rows), infer_schema_length=None)
    return estimate_many(frame, catalog=catalog, measured=True)


def test_published_rows_within_an_eighth(catalog: Catalog, embedded: pl.DataFrame) -> None:
    """Eight B200 under MLPerf v5.1: 9.0 to 10.4 kW; in the mean within 6 %."""
    found = estimate_many(embedded, catalog=catalog, measured=True)
    off = (found["predicted_power_kw"] / found["power_kw"] - 1.0).to_numpy()
    assert len(off) == 7
    assert np.abs(off).max() < 0.125 and np.abs(off).mean() < 0.06


def test_the_calibration_says_how_wrong_power_is(catalog: Catalog) -> None:
    (error,) = (e for e in catalog.calibration.errors if "power_kw_mape" in e)
    assert error["split"] == "llm" and error["rows"] == 7
    assert 0 < float(error["power_kw_median_ape"]) <= float(error["power_kw_mape"]) < 10


def test_readings_are_rows_and_what_was_read_elsewhere(catalog: Catalog, embedded: pl.DataFrame) -> None:
    table = checked_measurements(embedded)
    records = table.parsed.to_dicts()
    found = power_readings(catalog, catalog.calibration, records, table.faults, published=True)
    own = power_readings(catalog, catalog.calibration, records, table.faults, published=False)
    assert found.count == 7 + len(catalog.power_readings) and own.count == 7
    assert set(own.llms) == {"llama-2-70b", "llama-3.1-405b", "llama-3.1-8b"}
    assert ((found.busy > 0) & (found.busy <= 1)).all() and (
        (found.compute_share >= 0) & (found.compute_share <= 1)
    ).all()
    assert own.measured_w * 8e-3 == pytest.approx(embedded["power_kw"].to_numpy())
    # The meter of a board sees none of its server; a capped board draws its cap.
    decode, batch, *capped = (found.take(np.arange(found.count) == i) for i in range(len(catalog.power_readings)))
    assert decode.server_w == decode.board_w == 700 and (decode.compute_share, batch.compute_share) == (0, 1)
    assert decode.sd > 5 * batch.sd
    assert all(one.idle_w == one.board_w == 500 and one.server_w == 1075 for one in capped)


def test_a_row_draws_for_all_of_its_accelerators(catalog: Catalog) -> None:
    both = predicted(catalog, OWN, {**OWN, "n_gpus": 16}, {**OWN, "n_gpus": None}, {**OWN, "n_gpus": -3})
    eight, sixteen, unstated, wrong = both["predicted_power_kw"].to_list()
    assert sixteen == pytest.approx(2 * eight) and unstated == wrong == pytest.approx(eight / 8)
    assert 8 * 0.07 < eight < 10.2


def test_power_follows_the_load(catalog: Catalog) -> None:
    rows = [{**OWN, "concurrency_or_batch": load} for load in (1, 8, 64, 512)]
    power = predicted(catalog, *rows)["predicted_power_kw"].to_list()
    assert power == sorted(power) and power[-1] > 1.1 * power[0]


def test_an_estimate_and_a_row_draw_alike(catalog: Catalog) -> None:
    estimate = tokopt.estimate(
        model="llama-3.1-8b", gpu="h100_sxm", framework="vllm", precision="bf16", isl=1024, osl=256, concurrency=32,
        catalog=catalog,
    )  # fmt: skip
    row = estimate_many(pl.DataFrame([{**OWN, "n_gpus": 1}]), catalog=catalog)
    assert estimate.power_kw is not None
    # Outputs of an estimate vary in length, those of a row do not.
    assert row["predicted_power_kw"][0] == pytest.approx(estimate.power_kw.drawn, rel=0.02)


def test_idle_replicas_draw_less(catalog: Catalog) -> None:
    def drawn(rate: str) -> float:
        kw = tokopt.estimate(
            model="llama-3.1-8b", gpu="h100_sxm", isl=1024, osl=256, rate=rate, catalog=catalog
        ).power_kw
        assert kw is not None and kw.drawn is not None and kw.rated is not None and kw.drawn < kw.rated
        return kw.drawn

    h100 = catalog.accelerator("h100_sxm")
    share = catalog.calibration.entries["host_power_share"].value
    assert None not in (h100.idle_w, h100.board_w, h100.server_w)
    idle_kw = (h100.idle_w + share * (h100.server_w - h100.board_w)) / 1e3
    assert idle_kw < drawn("0.001req/s") < 1.02 * idle_kw < drawn("1req/s") < drawn("10req/s")


def test_power_that_the_catalog_cannot_say(catalog: Catalog) -> None:
    unknown = predicted(catalog, {**OWN, "vendor_system": "mi300x"}, {**OWN, "vendor_system": "nonsense"})
    assert unknown["predicted_power_kw"].to_list() == [None, None]
    assert unknown["predicted_output_tok_s_per_gpu"][0] > 0


def test_validate_compares_power(catalog: Catalog, tmp_path: Path) -> None:
    rows = [{**OWN, "tpot_ms": 10.0, "power_kw": 6.0}, {**OWN, "tpot_ms": 10.0, "power_kw": None},
            {**OWN, "vendor_system": "mi300x", "tpot_ms": 10.0, "power_kw": 7.0}]  # fmt: skip
    out = tmp_path / "out.csv"
    got = tokopt.validate(pl.DataFrame(rows, infer_schema_length=None), catalog=catalog, out=out)
    power = pl.read_csv(out)["predicted_power_kw"]
    assert (got.overall.compared["power_kw"], got.overall.not_predicted["power_kw"]) == (1, 1)
    assert got.overall.mape["power_kw"] == pytest.approx(100 * abs(power[0] / 6.0 - 1))
    assert got.overall.interval_coverage_by_figure["power_kw"] is None  # power has no range
    assert '"power_kw"' in got.model_dump_json()


@pytest.mark.parametrize(
    ("power", "said"),
    [
        (-6.0, "power_kw is not a positive number: -6"),
        (0.0, "power_kw is not a positive number: 0"),
        ("about ten", "power_kw is 'about ten'; a plain number is needed, in kW"),
        (9_436.0, "power_kw of 9436 is above 2,000 kW: is it in watts?"),
    ],
)
def test_power_that_cannot_be_right(catalog: Catalog, power: object, said: str) -> None:
    table = pl.DataFrame([{**OWN, "tpot_ms": 10.0, "power_kw": power}], strict=False)
    assert checked_measurements(table).faults == (said,)
    with pytest.raises(InputError, match="no row"):
        tokopt.validate(table, catalog=catalog)


def test_own_rows_with_power_refit_the_shares(catalog: Catalog, tmp_path: Path) -> None:
    rows = [{**OWN, "concurrency_or_batch": load} for load in (1, 4, 16, 64, 256)]
    found = predicted(catalog, *rows)
    own = found.with_columns(
        tpot_ms=found["predicted_tpot_ms"], power_kw=found["predicted_power_kw"] + 8 * 0.1  # a hungrier server
    )  # fmt: skip
    out = tmp_path / "calibration" / "default.yaml"
    out.parent.mkdir()
    report = calibrate(own, out=out, catalog=catalog, made_on="2026-11-24")
    assert any(row.get("power_kw_mape") is not None and row["split"] == "in-sample" for row in report.errors)
    mine = load_catalog(str(tmp_path))
    before = catalog.calibration.entries["host_power_share"].value
    after = mine.calibration.entries["host_power_share"]
    assert after.value > before + 0.05 and after.source == "own-measurements"
    off = np.abs(predicted(mine, *rows)["predicted_power_kw"] / own["power_kw"] - 1).mean()
    assert off < 0.6 * np.abs(found["predicted_power_kw"] / own["power_kw"] - 1).mean()
    # The hash is of power too.
    again = calibrate(own.with_columns(pl.col("power_kw") * 1.01), catalog=catalog, made_on="2026-11-24")
    assert again.data_hash != report.data_hash
    # Without power the shares stay what they were.
    plain = calibrate(own.drop("power_kw"), out=tmp_path / "plain.yaml", catalog=catalog, made_on="2026-11-24")
    assert not any("power_kw_mape" in row for row in plain.errors)
    assert load_calibration(tmp_path / "plain.yaml").entries["host_power_share"].value == before


def test_drawn_power_of_rows_is_the_formula(catalog: Catalog, embedded: pl.DataFrame) -> None:
    table = checked_measurements(embedded)
    found = power_readings(catalog, catalog.calibration, table.parsed.to_dicts(), table.faults, published=False)
    shares = [catalog.calibration.entries[name].value for name in POWER_SHARES]
    b200 = catalog.accelerator("b200_sxm")
    by_hand = [
        b200.idle_w
        + busy * (b200.board_w - b200.idle_w) * min(shares[0] * (1 - c * c) ** 0.5 + shares[1] * c, 1.0)
        + shares[2] * (b200.server_w - b200.board_w)
        for busy, c in zip(found.busy, found.compute_share, strict=True)
    ]
    predicted_kw = estimate_many(embedded, catalog=catalog, measured=True)["predicted_power_kw"].to_numpy()
    assert predicted_kw == pytest.approx(8e-3 * np.array(by_hand), rel=1e-6)
