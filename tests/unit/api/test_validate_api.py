"""`tokopt.validate`: rows in are rows out, figures are those of the statistics, groups add up."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tokopt
from tokopt import InputError
from tokopt.domain.validation import COMPARED, ErrorGroup, Validation

GOOD = {
    "id": "mine:a",
    "vendor_system": "h100_sxm",
    "model": "qwen3-8b",
    "framework": "vllm",
    "weight_precision": "bf16",
    "serving_mode": "agg",
    "scenario": "fixed_concurrency",
    "isl": 1000.0,
    "osl": 200.0,
    "tp": 1.0,
    "concurrency_or_batch": 16.0,
    "ttft_ms": 100.0,
    "tpot_ms": 10.0,
    "output_tok_s_per_gpu": 1200.0,
    "derived_output_tok_s_per_gpu": None,
}


def rows(*changes: dict) -> list[dict]:
    return [{**GOOD, "id": f"mine:{n}", **change} for n, change in enumerate(changes)]


def frame(*changes: dict) -> pl.DataFrame:
    return pl.DataFrame(rows(*changes), infer_schema_length=None, strict=False)


def same(one: float | None, other: float) -> bool:
    return one is None if math.isnan(other) else one == pytest.approx(other)


def test_figures_are_those_of_the_predictions(catalog) -> None:
    table = frame({}, {"osl": 500.0, "power_kw": 0.9}, {"tp": 2.0, "ttft_ms": None}, {"concurrency_or_batch": 64.0})
    predicted = tokopt.estimate_many(table, catalog=catalog)
    got = tokopt.validate(table, catalog=catalog)
    assert (got.rows, got.answered, got.compared) == (4, 4, 4)
    assert got.overall.compared == {"output_tok_s_per_gpu": 4, "tpot_ms": 4, "ttft_ms": 3, "power_kw": 1}
    for figure in COMPARED:
        errors = (predicted[f"predicted_{figure}"] / table[figure] - 1).drop_nulls().to_numpy()
        assert got.overall.mape[figure] == pytest.approx(100 * np.abs(errors).mean())
        assert got.overall.median_ape[figure] == pytest.approx(100 * np.median(np.abs(errors)))
        assert got.overall.bias[figure] == pytest.approx(100 * np.clip(errors, -1, 1).mean())
        if figure == "power_kw":
            assert got.overall.interval_coverage_by_figure[figure] is None
            continue
        inside = (table[figure] >= predicted[f"predicted_{figure}_low"]) & (
            table[figure] <= predicted[f"predicted_{figure}_high"]
        )
        assert got.overall.interval_coverage_by_figure[figure] == pytest.approx(100 * inside.drop_nulls().mean())


def test_derived_throughput_stands_in_where_none_is_published(catalog) -> None:
    derived = {"output_tok_s_per_gpu": None, "derived_output_tok_s_per_gpu": 1200.0}
    one, other = (
        tokopt.validate(frame(change), catalog=catalog) for change in (derived, {"derived_output_tok_s_per_gpu": 7.0})
    )
    assert one.overall.mape["output_tok_s_per_gpu"] == other.overall.mape["output_tok_s_per_gpu"]


def test_a_figure_that_was_not_measured_is_not_compared(catalog) -> None:
    got = tokopt.validate(frame({"ttft_ms": None, "output_tok_s_per_gpu": None}), catalog=catalog)
    assert got.overall.compared == {"output_tok_s_per_gpu": 0, "tpot_ms": 1, "ttft_ms": 0, "power_kw": 0}
    assert got.overall.mape["ttft_ms"] is None
    assert got.points == ()


def test_a_null_prediction_is_counted(catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    from tokopt.api import validating

    def partly(table, **_):
        return tokopt.estimate_many(table, catalog=catalog).with_columns(
            pl.lit(None, dtype=pl.Float64).alias("predicted_ttft_ms"), pl.lit(True).alias("predicted_extrapolated")
        )

    monkeypatch.setattr(validating, "estimate_many", partly)
    got = tokopt.validate(frame({}, {}), by="predicted_extrapolated", catalog=catalog)
    assert [g.key for g in got.groups] == [{"predicted_extrapolated": "True"}]
    assert any("2 rows of 2 predicted are outside the calibrated range" in note for note in got.notes)
    assert got.answered == 2
    assert got.overall.compared["ttft_ms"] == 0
    assert got.overall.not_predicted["ttft_ms"] == 2


def test_groups_add_up(catalog) -> None:
    table = frame(
        {},
        {"vendor_system": "l40s"},
        {"vendor_system": "h900"},
        {"id": "yours:1", "scenario": "offline", "serving_mode": "offline"},
        {"id": None, "isl": "1k"},
    )
    got = tokopt.validate(table, catalog=catalog)
    assert got.answered == 3
    for groups in (got.groups, got.by_prefix, got.by_scenario, got.by_role):
        assert sum(g.rows for g in groups) == got.rows == 5
        assert sum(g.answered for g in groups) == got.answered
        assert [g.rows for g in groups] == sorted((g.rows for g in groups), reverse=True)
        for figure in COMPARED:
            assert sum(g.compared[figure] for g in groups) == got.overall.compared[figure]
    assert sum(got.reasons.values()) == 2
    assert any("isl is '1k'" in reason for reason in got.reasons)
    assert any("unknown accelerator 'h900'" in reason for reason in got.reasons)
    assert any("1 row names accelerators" in note for note in got.notes)
    assert {g.key["id prefix"] for g in got.by_prefix} == {"mine", "yours", "not stated"}


def test_groups_use_the_catalogs_words(catalog) -> None:
    table = frame({}, {"model": "Qwen/Qwen3-8B", "framework": "vLLM", "weight_precision": "fp16"})
    (group,) = tokopt.validate(table, catalog=catalog).groups
    assert group.key == {
        "vendor_system": "h100_sxm",
        "framework": "vllm",
        "model": "qwen3-8b",
        "weight_precision": "bf16",
        "serving_mode": "agg",
    }


@pytest.mark.parametrize("by", ["tp, serving_mode", ["tp", "serving_mode"], ("tp", "serving_mode")])
def test_groups_by_any_column(catalog, by) -> None:
    got = tokopt.validate(frame({}, {"tp": 2.0}, {"tp": 2.0}), by=by, catalog=catalog)
    assert [g.key for g in got.groups] == [{"tp": "2", "serving_mode": "agg"}, {"tp": "1", "serving_mode": "agg"}]


@pytest.mark.parametrize(
    ("by", "said"),
    [
        ("vendor_sistem", "did you mean vendor_system"),
        ("predicted_tpot", "did you mean predicted_tpot_ms"),
        (",", "no column to group"),
    ],
)
def test_groups_by_no_column(catalog, by: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        tokopt.validate(frame({}), by=by, catalog=catalog)


def test_only_rows_with_a_prefix(catalog, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    got = tokopt.validate(frame({}, {"id": "yours:1"}, {"id": "yours:2"}), prefix="yours:", out=out, catalog=catalog)
    assert (got.rows, got.answered) == (2, 2)
    assert got.left_out == {"id does not begin with 'yours:'": 1}
    assert pl.read_csv(out)["predicted_reason"].to_list() == ["id does not begin with 'yours:'", "", ""]
    with pytest.raises(InputError, match=r"no id begins with 'their:'; ids begin with mine:"):
        tokopt.validate(frame({}), prefix="their:", catalog=catalog)
    with pytest.raises(InputError, match="no column id"):
        tokopt.validate(frame({}).drop("id"), prefix="x", catalog=catalog)


def test_nothing_can_be_predicted(catalog, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    table = frame({"vendor_system": "h900"}, {"vendor_system": "h900"}, {"tpot_ms": -1.0})
    with pytest.raises(InputError, match=r"no row of 3 can be predicted: most often, in 2: unknown accelerator"):
        tokopt.validate(table, out=out, catalog=catalog)
    assert pl.read_csv(out)["predicted_reason"].null_count() == 0


def test_out_has_every_row_and_column(catalog, tmp_path: Path) -> None:
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    table = frame({}, {"vendor_system": "h900"}, {"tpot_ms": "12 ms"}).with_columns(pl.lit("a, b").alias("comment"))
    table.write_csv(source)
    tokopt.validate(source, out=out, catalog=catalog)
    written = pl.read_csv(out)
    assert written.columns[: table.width] == table.columns
    assert written.height == 3
    assert written["tpot_ms"].to_list() == ["10", "10", "12 ms"]
    for figure in COMPARED:
        for end in ("", "_low", "_high") if figure != "power_kw" else ("",):
            assert written[f"predicted_{figure}{end}"].is_null().to_list() == [False, True, True]
    assert [bool(r) for r in written["predicted_reason"].to_list()] == [False, True, True]
    again = tokopt.validate(out, catalog=catalog)  # an own answer is a table like any other
    assert again.overall == tokopt.validate(source, catalog=catalog).overall


def test_parquet_in_and_out(catalog, tmp_path: Path) -> None:
    source, out = tmp_path / "in.parquet", tmp_path / "out.parquet"
    frame({}, {"tp": 2.0}).write_parquet(source)
    assert tokopt.validate(source, out=out, catalog=catalog).answered == 2
    assert pl.read_parquet(out)["predicted_tpot_ms"].null_count() == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.parquet", "out.parquet"]


@pytest.mark.parametrize("name", ["in.csv", "./in.csv", "link.csv"])
def test_the_input_is_never_replaced(catalog, tmp_path: Path, name: str) -> None:
    source = tmp_path / "in.csv"
    frame({}).write_csv(source)
    (tmp_path / "link.csv").symlink_to(source)
    before = source.read_bytes()
    with pytest.raises(InputError, match="is the table that is read"):
        tokopt.validate(source, out=f"{tmp_path}/{name}", catalog=catalog)
    assert source.read_bytes() == before


def test_what_csv_cannot_hold_goes_into_parquet(catalog, tmp_path: Path) -> None:
    table = frame({}).with_columns(pl.Series("tags", [["a", "b"]]))
    with pytest.raises(InputError, match="cannot be written"):
        tokopt.validate(table, out=tmp_path / "out.csv", catalog=catalog)
    assert not list(tmp_path.iterdir())
    tokopt.validate(table, out=tmp_path / "out.parquet", catalog=catalog)
    assert pl.read_parquet(tmp_path / "out.parquet")["tags"].to_list() == [["a", "b"]]


def test_a_failed_write_leaves_the_old_file(catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out.csv"
    out.write_text("old")

    def fail(self: pl.DataFrame, file: Path) -> None:
        Path(file).write_text("half a fi")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pl.DataFrame, "write_csv", fail)
    with pytest.raises(InputError, match="cannot be written: No space left"):
        tokopt.validate(frame({}), out=out, catalog=catalog)
    assert out.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["out.csv"]


def test_the_record_survives_json(catalog) -> None:
    got = tokopt.validate(frame({}, {"model": "none-like-it"}), catalog=catalog)
    again = Validation.model_validate_json(got.model_dump_json())
    assert again.model_copy(update={"points": got.points}) == got
    assert "points" not in got.model_dump()
    assert got.calibration.version == catalog.calibration.version
    assert got.catalog_version == catalog.version


changes = st.fixed_dictionaries(
    {},
    optional={
        "vendor_system": st.sampled_from(["h100_sxm", "l40s", "h900", "", None]),
        "model": st.sampled_from(["qwen3-8b", "llama-3.1-8b", "gpt-9", None]),
        "isl": st.sampled_from(["1000", "1k", "-5", "", "NaN", None, "1e400"]),
        "tp": st.sampled_from(["1", "2", "3", "x", None]),
        "ttft_ms": st.sampled_from(["100", "0", "1.2s", "inf", None]),
        "tpot_ms": st.sampled_from(["10", "-1", "1e9", "0.01", None]),
        "id": st.sampled_from(["mine:1", "b", "", None]),
    },
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(changes, min_size=1, max_size=8), st.randoms())
def test_rows_in_are_rows_out(catalog, tmp_path: Path, given_changes, random) -> None:
    given_rows = [{k: None if v is None else str(v) for k, v in row.items()} for row in rows({}, *given_changes)]
    out = tmp_path / "out.parquet"
    got = tokopt.validate(pl.DataFrame(given_rows), out=out, catalog=catalog)
    written = pl.read_parquet(out)
    assert written.height == got.rows == len(given_rows)
    assert written["isl"].to_list() == [row["isl"] for row in given_rows]
    answered = [not reason for reason in written["predicted_reason"].to_list()]
    assert sum(answered) == got.answered == got.rows - sum(got.reasons.values())
    assert written["predicted_tpot_ms"].is_not_null().to_list() == answered
    random.shuffle(given_rows)
    mixed = tokopt.validate(pl.DataFrame(given_rows), catalog=catalog)
    assert without_order(mixed.groups) == without_order(got.groups)
    assert mixed.overall == got.overall


def without_order(groups: tuple[ErrorGroup, ...]) -> list[str]:
    return sorted(group.model_dump_json() for group in groups)
