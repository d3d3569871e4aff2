"""Tables of deployments: no row lost, order kept, a reason for each bad row, and the same answers as one by one."""

import math
import os
from pathlib import Path

import polars as pl
import pytest

import tokopt
from tokopt import InputError
from tokopt.api import estimate_table
from tokopt.domain.workloads import Workload

GOOD = {
    "vendor_system": "h100_sxm",
    "model": "llama-3.1-8b",
    "framework": "vllm",
    "weight_precision": "bf16",
    "kv_precision": "bf16",
    "isl": 1000,
    "osl": 200,
    "tp": 1,
    "pp": 1,
    "ep": 1,
    "dp": 1,
    "concurrency_or_batch": 16,
    "scenario": "closed",
    "mtp_depth": 0,
    "prefix_share": 0.0,
}


def table(*rows: dict) -> pl.DataFrame:
    return pl.DataFrame([{**GOOD, **row} for row in rows], infer_schema_length=None, strict=False)


def predict(catalog, *rows: dict) -> list[dict]:
    return tokopt.estimate_many(table(*rows), catalog=catalog).to_dicts()


def one(catalog, row: dict):
    row = {**GOOD, **row}
    framework = catalog.framework(row["framework"])
    shape = Workload(
        name="row", input_tokens=row["isl"], output_tokens=row["osl"], prefix_share=row["prefix_share"] or 0.0
    )
    ask = {
        "model": row["model"],
        "gpu": row["vendor_system"],
        "framework": row["framework"],
        "precision": row["weight_precision"],
        "kv_precision": row["kv_precision"],
        "workload": shape,
        "concurrency": row["concurrency_or_batch"],
        "mtp": row["mtp_depth"],
        "chunk_tokens": framework.chunk_tokens,
        "catalog": catalog,
    }
    if row.get("prefill_workers"):

        def pool(kind: str) -> str:
            degrees = "".join(f"{d}{row.get(f'{kind}_{d}') or 1}" for d in ("tp", "pp", "ep", "dp"))
            return f"{row[f'{kind}_workers']}x{degrees}"

        return tokopt.estimate(**ask, prefill=pool("prefill"), decode=pool("decode"))
    return tokopt.estimate(**ask, tp=row["tp"], pp=row["pp"], ep=row["ep"], dp=row["dp"])


AGGREGATED = [
    {},
    {"concurrency_or_batch": 1},
    {"concurrency_or_batch": 3000},
    {"tp": 4},
    {"pp": 2, "isl": 3000},
    {"prefix_share": 0.5},
    {"vendor_system": "l40s", "weight_precision": "fp8", "kv_precision": "fp8"},
    {"model": "qwen3-30b-a3b", "dp": 4, "ep": 4, "osl": 777},
    {"model": "deepseek-r1", "vendor_system": "h200_sxm", "weight_precision": "fp8", "tp": 8, "mtp_depth": 2},
    {"model": "deepseek-r1", "vendor_system": "h200_sxm", "weight_precision": "fp8", "tp": 8},
    {"isl": 20_000, "osl": 1, "concurrency_or_batch": 3},
]
POOLS = [
    {"prefill_workers": 1, "prefill_tp": 1, "decode_workers": 1, "decode_tp": 1},
    {"prefill_workers": 2, "prefill_tp": 1, "decode_workers": 1, "decode_tp": 4, "concurrency_or_batch": 200},
    {"prefill_workers": 1, "prefill_tp": 2, "decode_workers": 3, "decode_tp": 2, "concurrency_or_batch": 2000},
    {
        "model": "qwen3-30b-a3b",
        "prefill_workers": 1,
        "prefill_dp": 2,
        "prefill_ep": 2,
        "decode_workers": 1,
        "decode_dp": 4,
        "decode_ep": 4,
    },
]


@pytest.mark.parametrize("rows", [AGGREGATED, POOLS, [*AGGREGATED, *POOLS]], ids=["agg", "disagg", "both"])
def test_vectorised_equals_one_by_one(catalog, rows: list[dict]) -> None:
    for row, got in zip(rows, predict(catalog, *rows), strict=True):
        alone = one(catalog, row)
        assert alone.fits
        assert got["predicted_reason"] == ""
        assert got["predicted_ttft_ms"] == pytest.approx(alone.ttft_ms.mean, rel=1e-6, abs=2e-6)
        assert got["predicted_tpot_ms"] == pytest.approx(alone.tpot_ms.mean, rel=1e-6, abs=2e-6)
        assert got["predicted_output_tok_s_per_gpu"] == pytest.approx(
            alone.output_tokens_per_s_per_gpu, rel=1e-6, abs=2e-6
        )
        assert got["predicted_running_batch"] == pytest.approx(alone.running_batch, rel=1e-6, abs=2e-6)
        interval = alone.interval["output_tokens_per_s_per_gpu"]
        assert got["predicted_output_tok_s_per_gpu_low"] == pytest.approx(interval.low, rel=1e-6, abs=2e-6)
        assert got["predicted_output_tok_s_per_gpu_high"] == pytest.approx(interval.high, rel=1e-6, abs=2e-6)


BAD = [
    ({"vendor_system": "h900"}, "unknown accelerator"),
    ({"vendor_system": None}, "unknown accelerator"),
    ({"model": "gpt-9"}, "unknown"),
    ({"model": None}, "unknown"),
    ({"framework": "triton"}, "unknown framework"),
    ({"weight_precision": "fp3"}, "unknown"),
    ({"kv_precision": "fp3"}, "unknown"),
    ({"vendor_system": "a10g", "weight_precision": "fp8"}, "does not serve"),
    ({"isl": None}, "isl"),
    ({"isl": 0}, "isl"),
    ({"osl": -4}, "osl"),
    ({"osl": "many"}, "osl"),
    ({"isl": 500_000}, "tokens are more than"),
    ({"tp": 3}, "does not divide"),
    ({"tp": 0}, "tp"),
    ({"tp": "x"}, "tp"),
    ({"tp": math.inf}, "tp"),
    ({"tp": 2.5}, "tp"),
    ({"ep": 2, "dp": 2}, "no experts"),
    ({"concurrency_or_batch": None}, "no load"),
    ({"concurrency_or_batch": "all"}, "concurrency_or_batch"),
    ({"concurrency_or_batch": -1}, "concurrency_or_batch"),
    ({"concurrency_or_batch": math.inf}, "concurrency_or_batch"),
    ({"mtp_depth": "deep"}, "mtp_depth"),
    ({"mtp_depth": -1}, "mtp_depth"),
    ({"mtp_depth": 2}, "multi-token prediction"),  # llama ships none
    ({"prefix_share": 1.5}, "prefix_share"),
    ({"prefix_share": -0.5}, "prefix_share"),
    ({"prefix_share": "half"}, "prefix_share"),
    ({"model": "llama-3.1-405b"}, "does not fit"),
    ({"prefill_workers": 1, "prefill_tp": 3, "decode_workers": 1}, "prefill"),
    ({"prefill_workers": "x", "decode_workers": 1}, "prefill_workers"),
]


@pytest.mark.parametrize(("bad", "hint"), BAD, ids=[str(b) for b, _ in BAD])
def test_a_bad_row_gets_a_reason_and_spoils_no_other(catalog, bad: dict, hint: str) -> None:
    rows = [{"isl": "900"}, bad, {"isl": "1100"}] if isinstance(bad.get("isl"), str) else [{}, bad, {"tp": 2}]
    got = predict(catalog, *rows)
    assert len(got) == 3
    assert hint in got[1]["predicted_reason"]
    assert "\n" not in got[1]["predicted_reason"]
    figures = [v for k, v in got[1].items() if k.startswith("predicted_") and k != "predicted_reason"]
    assert all(v is None for v in figures)
    for good in (got[0], got[2]):
        assert good["predicted_reason"] == ""
        assert good["predicted_tpot_ms"] > 0


def test_order_and_columns_are_kept(catalog) -> None:
    rows = [{"osl": 100 + k, "vendor_system": ("h100_sxm", "l40s", "h900")[k % 3]} for k in range(60)]
    frame = table(*rows).with_columns(pl.Series("note", [f"n{k}" for k in range(60)]))
    got = tokopt.estimate_many(frame, catalog=catalog)
    assert got.height == 60
    assert got["note"].to_list() == frame["note"].to_list()
    assert got["osl"].to_list() == frame["osl"].to_list()
    assert got.columns[: len(frame.columns)] == frame.columns
    for k, reason in enumerate(got["predicted_reason"].to_list()):
        assert bool(reason) == (k % 3 == 2)


def test_a_row_without_load_runs_full_where_its_scenario_says_so(catalog) -> None:
    full, none = predict(
        catalog,
        {"concurrency_or_batch": None, "scenario": "offline"},
        {"concurrency_or_batch": None, "scenario": "closed"},
    )
    assert full["predicted_running_batch"] > 16
    assert "no load" in none["predicted_reason"]


def test_optional_columns_may_be_missing(catalog) -> None:
    bare = pl.DataFrame([{k: GOOD[k] for k in ("vendor_system", "model", "framework", "isl", "osl")}])
    got = tokopt.estimate_many(bare.with_columns(pl.lit(8).alias("concurrency_or_batch")), catalog=catalog)
    assert got["predicted_reason"].to_list() == [""]
    assert "no load" in tokopt.estimate_many(bare, catalog=catalog)["predicted_reason"].item()


def test_frames_of_plain_python(catalog) -> None:
    got = tokopt.estimate_many([GOOD, {**GOOD, "tp": 2}], catalog=catalog)
    assert got.height == 2
    assert tokopt.estimate_many({k: [v] for k, v in GOOD.items()}, catalog=catalog).height == 1


def test_an_empty_frame_stays_empty(catalog) -> None:
    got = tokopt.estimate_many(table({}).clear(), catalog=catalog)
    assert got.height == 0
    assert "predicted_reason" in got.columns


def test_missing_columns_are_named(catalog) -> None:
    with pytest.raises(InputError, match="missing column isl, osl"):
        tokopt.estimate_many(table({}).drop("isl", "osl"), catalog=catalog)


# --- files ---


def test_a_file_is_answered_whole(catalog, tmp_path: Path) -> None:
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    table({}, {"vendor_system": "h900"}, {"tp": 2}, {"tp": 3}).write_csv(source)
    said = estimate_table(source, out, catalog=catalog)
    assert (said["rows"], said["answered"]) == (4, 2)
    assert sum(said["reasons"].values()) == 2
    written = pl.read_csv(out)
    assert written.height == 4
    assert written["vendor_system"].to_list() == ["h100_sxm", "h900", "h100_sxm", "h100_sxm"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.csv", "out.csv"]


def test_a_failed_write_leaves_the_old_file(catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    table({}).write_csv(source)
    out.write_text("old")

    def fail(self: pl.DataFrame, file: Path) -> None:
        Path(file).write_text("half a fi")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pl.DataFrame, "write_csv", fail)
    with pytest.raises(InputError, match="cannot be written"):
        estimate_table(source, out, catalog=catalog)
    assert out.read_text() == "old"


def test_a_table_may_replace_itself(catalog, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    table({}).write_csv(path)
    estimate_table(path, path, catalog=catalog)
    assert "predicted_reason" in pl.read_csv(path).columns
    assert estimate_table(path, path, catalog=catalog)["rows"] == 1  # and be answered once more


@pytest.mark.parametrize(
    "content",
    [None, b"", b"\xff\xfe\x00\x01binary\x00", b"isl,osl\n1,2\n1,2,3,4\n"],
    ids=["absent", "empty", "binary", "ragged"],
)
def test_unreadable_files(catalog, tmp_path: Path, content: bytes | None) -> None:
    source = tmp_path / "in.csv"
    if content is not None:
        source.write_bytes(content)
    with pytest.raises(InputError) as error:
        estimate_table(source, tmp_path / "out.csv", catalog=catalog)
    assert "in.csv" in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out.csv").exists()


def test_directories_are_no_files(catalog, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        estimate_table(tmp_path, tmp_path / "out.csv", catalog=catalog)


def test_an_output_that_cannot_be_written(catalog, tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    table({}).write_csv(source)
    with pytest.raises(InputError, match="cannot be written"):
        estimate_table(source, tmp_path / "nowhere" / "out.csv", catalog=catalog)
    if os.geteuid() != 0:
        (tmp_path / "locked").mkdir(mode=0o500)
        with pytest.raises(InputError, match="cannot be written"):
            estimate_table(source, tmp_path / "locked" / "out.csv", catalog=catalog)
    with pytest.raises(InputError, match="cannot be written"):
        estimate_table(source, tmp_path, catalog=catalog)  # a directory


def test_a_missing_column_names_the_file(catalog, tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("model,framework\nx,y\n")
    with pytest.raises(InputError, match=r"in\.csv: missing column vendor_system, isl, osl"):
        estimate_table(source, tmp_path / "out.csv", catalog=catalog)
