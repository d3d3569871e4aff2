"""Tables as people have them: every oddity is read, or becomes one clear line or one row's reason."""

from __future__ import annotations

import math
from pathlib import Path

import polars as pl
import pytest

from tokopt.catalog.measurements import as_frame, checked_measurements, read_measurements
from tokopt.errors import InputError

HEADER = "id,vendor_system,model,framework,isl,osl,concurrency_or_batch,ttft_ms,tpot_ms,output_tok_s_per_gpu"
ROW = "a,h100_sxm,qwen3-8b,vllm,1000,100,8,50,10,400"
GOOD = dict(zip(HEADER.split(","), ("a", "h100_sxm", "qwen3-8b", "vllm", 1000, 100, 8, 50.0, 10.0, 400.0), strict=True))


def written(tmp_path: Path, content: str | bytes, name: str = "in.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def faults(*rows: dict) -> tuple[str, ...]:
    return checked_measurements(as_frame([{**GOOD, **row} for row in rows])).faults


@pytest.mark.parametrize(
    "content",
    [
        f"{HEADER}\n{ROW}\n",
        f"\ufeff{HEADER}\n{ROW}\n",
        f"{HEADER}\r\n{ROW}\r\n",
        f"{HEADER}\r{ROW}\r",
        f"{HEADER}\n{ROW}".replace(",", ";"),
        f"{HEADER}\n{ROW}\n".replace(",", "\t"),
        f"\n{HEADER}\n\n{ROW}\n\n",
        f"{HEADER}\n{ROW}\n".replace(",", " , "),
        f"\ufeff{HEADER}\r\n{ROW}\r\n".replace(",", ";"),
        f"{HEADER},,\n{ROW},,\n",
        f" , \n{HEADER}\n{ROW}\n",
        f'"{HEADER}"\n"{ROW}"\n'.replace(",", '","'),
    ],
    ids=[
        "plain",
        "bom",
        "crlf",
        "cr",
        "semicolons",
        "tabs",
        "blank lines",
        "blanks",
        "excel",
        "spare columns",
        "spare row",
        "quoted",
    ],
)
def test_ways_to_write_a_csv(tmp_path: Path, content: str) -> None:
    table = checked_measurements(read_measurements(written(tmp_path, content)))
    assert table.faults == ("",)
    assert table.parsed.to_dicts() == [GOOD]


@pytest.mark.parametrize("name", ["in.parquet", "in.pq", "no-suffix"])
def test_parquet(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    pl.DataFrame([GOOD]).write_parquet(path)
    assert checked_measurements(read_measurements(path)).parsed.to_dicts() == [GOOD]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        (b"\x89PNG\r\n\x1a\n\x00\xff", "is not UTF-8 text"),
        (b"a\x00b,c\n1,2\n", "is no text"),
        (HEADER.encode("utf-16"), "is not UTF-8 text"),
        (f"{HEADER},isl\n{ROW},5\n", "column named twice: 'isl'"),
        (f'{HEADER}\n"{ROW}\n', "not well-formed CSV"),
    ],
    ids=["empty", "blank", "png", "nul", "utf-16", "twice", "open quote"],
)
def test_unreadable(tmp_path: Path, content: str | bytes, said: str) -> None:
    with pytest.raises(InputError, match=said) as error:
        read_measurements(written(tmp_path, content))
    assert "in.csv" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"PAR1", b"not parquet", b""])
def test_broken_parquet(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(InputError, match=r"in\.parquet: cannot be read as Parquet") as error:
        read_measurements(written(tmp_path, content, "in.parquet"))
    assert "\n" not in str(error.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_measurements(tmp_path / "nowhere.csv")
    with pytest.raises(InputError, match="cannot be read"):
        read_measurements(tmp_path)


BAD = [
    ({"tpot_ms": 0.0}, "tpot_ms is not a positive number: 0"),
    ({"ttft_ms": -5.0}, "ttft_ms is not a positive number: -5"),
    ({"output_tok_s_per_gpu": -1.0}, "output_tok_s_per_gpu is not a positive number"),
    ({"tpot_ms": 1e9}, "tpot_ms of 1e+09 is above 60,000 ms, which is absurd"),
    ({"output_tok_s_per_gpu": 1e8}, "is above 1e+06 tokens/s/GPU, which is absurd"),
    ({"ttft_ms": 0.05}, "is it in seconds?"),
    ({"ttft_ms": 1.5, "tpot_ms": 30.0}, "ttft_ms of 1.5 is under half of tpot_ms, 30: is it in seconds?"),
    ({"tpot_ms": 0.03}, "is it in seconds?"),
    ({"tpot_ms": "12 ms"}, "tpot_ms is '12 ms'; a plain number is needed, in ms"),
    ({"ttft_ms": "1.2s"}, "ttft_ms is '1.2s'; a plain number is needed, in ms"),
    ({"output_tok_s_per_gpu": "1,024"}, "output_tok_s_per_gpu is '1,024'; a plain number with a decimal point"),
    ({"isl": "1k"}, "isl is '1k'; a plain number is needed, in tokens"),
    ({"tp": "eight"}, "tp is 'eight'; a plain number is needed"),
    ({"prefix_share": "50 %"}, "prefix_share is '50 %'; a plain number is needed as a share"),
    ({"tpot_ms": math.inf}, "tpot_ms is 'inf'"),
    ({"model": "x" * 5000}, "model is a text of 5,000 characters"),
    (dict.fromkeys(GOOD), "empty row"),
]


@pytest.mark.parametrize(("bad", "said"), BAD, ids=[said for _, said in BAD])
def test_a_bad_row_gets_a_reason_and_spoils_no_other(bad: dict, said: str) -> None:
    first, wrong, last = faults({}, bad, {"id": "b"})
    assert said in wrong and "\n" not in wrong
    assert first == last == ""


@pytest.mark.parametrize("nothing", [None, math.nan, "", " ", "-", "NaN", "n/a", "None", "null"])
def test_ways_to_say_nothing(nothing: object) -> None:
    rows = as_frame({**{k: [v, v] for k, v in GOOD.items()}, "ttft_ms": [nothing, "50"]})
    table = checked_measurements(rows)
    assert table.faults == ("", "")
    assert table.parsed["ttft_ms"].to_list() == [None, 50.0]


def test_columns_that_nothing_depends_on_may_hold_anything() -> None:
    assert faults({"tok_s_user": "about ten", "comment": "fast!"}) == ("",)


def test_several_faults_are_one_reason() -> None:
    (said,) = faults({"isl": "1k", "tpot_ms": -1.0})
    assert said.count(";") >= 1 and "isl" in said and "tpot_ms" in said


def test_a_column_without_a_name_keeps_what_it_holds(tmp_path: Path) -> None:
    path = written(tmp_path, f"{HEADER},,\n{ROW},,fast\n")
    assert read_measurements(path)["column 12"].to_list() == ["fast"]


def test_lists_in_a_parquet_file(tmp_path: Path) -> None:
    pl.DataFrame([{**GOOD, "tpot_ms": [1.0, 2.0], "tags": ["a"]}]).write_parquet(tmp_path / "in.parquet")
    (said,) = checked_measurements(read_measurements(tmp_path / "in.parquet")).faults
    assert "tpot_ms is '[1.0, 2.0]'" in said


def test_ragged_rows_get_a_reason(tmp_path: Path) -> None:
    path = written(tmp_path, f"{HEADER}\n{ROW}\n{ROW},more\nb,h100_sxm\n{ROW}\n")
    table = checked_measurements(read_measurements(path))
    assert table.frame.height == 4
    assert table.frame.columns == HEADER.split(",")
    assert table.faults[0] == table.faults[3] == ""
    assert table.faults[1] == "11 cells where the header has 10 columns"
    assert table.faults[2] == "2 cells where the header has 10 columns"


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (["model", "framework", "tpot_ms"], "missing column vendor_system, isl, osl; needed are"),
        (
            ["vendor_system", "model", "framework", "isl", "osl", "tpot_s"],
            "nothing to compare with: .*found are .*tpot_s",
        ),
    ],
)
def test_missing_columns(columns: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        checked_measurements(pl.DataFrame({name: ["1"] for name in columns}))


def test_no_rows_and_nothing_measured() -> None:
    with pytest.raises(InputError, match="has no rows"):
        checked_measurements(pl.DataFrame([GOOD]).clear())
    empty = {"ttft_ms": None, "tpot_ms": None, "output_tok_s_per_gpu": None}
    with pytest.raises(InputError, match="nothing was measured"):
        faults(empty, empty)


def test_what_is_no_table() -> None:
    with pytest.raises(InputError, match="not a table"):
        as_frame(object())


def test_notes() -> None:
    rows = [{**GOOD, "predicted_tpot_ms": 3.0, "ttft_s": 1.0}, GOOD, {**GOOD, "id": "b"}]
    table = checked_measurements(as_frame(rows))
    said = "\n".join(table.notes)
    assert "predictions that stood in the table were replaced" in said
    assert "not read: 'ttft_s'" in said
    assert "1 id on more than one row: a" in said
    assert "predicted_tpot_ms" not in table.frame.columns
