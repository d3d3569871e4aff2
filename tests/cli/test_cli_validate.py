"""`tokopt validate`: a report, one JSON document, a table; and one clear line for every table that is none."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tokopt.cli import app
from tokopt.domain.validation import COMPARED, Validation

HEADER = (
    "id,vendor_system,model,framework,weight_precision,serving_mode,isl,osl,tp,concurrency_or_batch,ttft_ms,tpot_ms,"
    "output_tok_s_per_gpu"
)
GOOD = "a:{n},h100_sxm,qwen3-8b,vllm,bf16,agg,1024,256,{tp},{load},90,9.5,1500"
BAD = (
    "b:1,h900,qwen3-8b,vllm,bf16,agg,1024,256,1,16,90,9.5,1500",
    "b:2,h100_sxm,gpt-9,vllm,bf16,agg,1024,256,1,16,90,9.5,1500",
    "b:3,h100_sxm,qwen3-8b,vllm,bf16,agg,1024,256,1,16,90,12 ms,1500",
    "b:4,h100_sxm,qwen3-8b,vllm,bf16,agg,1024,256,1,16,90,9.5,-1500",
    "b:5,h100_sxm,qwen3-8b,vllm,bf16,agg,1024,256,1,16,90,1e9,",
    "b:6,h100_sxm,qwen3-8b,vllm,bf16,agg,1024,256,3,16,90,9.5,1500",
)
STATISTICS = ("mape", "mape_capped", "median_ape", "p90_ape", "bias")


def run(*arguments: str, columns: int = 80) -> Result:
    return CliRunner().invoke(app, ["validate", *arguments], env={"COLUMNS": str(columns)})


def answer(*arguments: str) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def lines(count: int) -> list[str]:
    return [GOOD.format(n=n, tp=1 + n % 2, load=8 + n) for n in range(count)]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "measured.csv"
    path.write_text("\n".join([HEADER, *lines(12), *BAD]) + "\n", encoding="utf-8")
    return path


def test_json_contract(table: Path) -> None:
    found = answer(str(table))
    Validation.model_validate(found)
    assert (found["rows"], found["answered"], found["compared"]) == (18, 12, 12)
    assert sum(found["reasons"].values()) == 6
    for group in (found["overall"], *found["groups"], *found["by_prefix"], *found["by_scenario"]):
        assert {"key", "rows", "answered", "interval_coverage", *STATISTICS} <= set(group)
        assert all(set(group[name]) == set(COMPARED) for name in STATISTICS)
    assert set(found["groups"][0]["key"]) == {"vendor_system", "framework", "model", "weight_precision", "serving_mode"}
    assert found["calibration"]["version"] and found["error_unit"] == "%"


@pytest.mark.parametrize("columns", [60, 80, 100, 160])
def test_report(table: Path, columns: int) -> None:
    result = run(str(table), "--plot", columns=columns)
    assert result.exit_code == 0, result.output
    assert not result.stderr
    assert "\x1b" not in result.stdout
    assert all(len(line) <= columns for line in result.stdout.splitlines()[1:])
    said = " ".join(result.stdout.split())
    for part in (
        "12 of 18 rows predicted",
        "tok/s/GPU",
        "TPOT",
        "TTFT",
        "h100_sxm vllm qwen3-8b bf16 agg" if columns != 100 else "h100_sxm vllm",
        "each counted as at most 100 %",
        "in range",
        "(measured)",
        "unknown accelerator 'h900'",
        "tpot_ms is '12 ms'; a plain number is needed, in ms",
        "output_tok_s_per_gpu is not a positive number",
        "names accelerators that the catalog does not have: h900",
        "calibration",
    ):
        assert part in said, part


def test_no_plot_where_piped(table: Path) -> None:
    assert "(measured)" not in run(str(table)).stdout
    assert "(measured)" not in run(str(table), "--no-plot").stdout


def test_small_groups_are_folded(table: Path) -> None:
    folded = " ".join(run(str(table), "--by", "id", "--min-rows", "2").stdout.split())
    assert "12 groups of fewer than 2 rows" in folded
    assert "6 groups of which no row is predicted, 6 rows in all (--all)" in folded
    everything = " ".join(run(str(table), "--by", "id", "--min-rows", "2", "--all").stdout.split())
    assert "(--all)" not in everything
    assert "a:11" in everything and "b:6" in everything
    assert len(answer(str(table), "--by", "id", "--min-rows", "2")["groups"]) == 18


def test_by_and_prefix(table: Path) -> None:
    found = answer(str(table), "--by", "tp,framework", "--prefix", "a:")
    assert [g["key"] for g in found["groups"]] == [{"tp": t, "framework": "vllm"} for t in ("1", "2")]
    assert found["left_out"] == {"id does not begin with 'a:'": 6}
    assert "6 × id does not begin with 'a:'" in run(str(table), "--prefix", "a:").stdout


def test_out_from_another_folder(table: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "tokopt", "validate", "../measured.csv", "--out", "compared.csv"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=elsewhere,
        env=dict(os.environ),
    )
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    assert done.stderr == "12 of 18 rows predicted, written to compared.csv\n"
    with (elsewhere / "compared.csv").open(encoding="utf-8") as file:
        written = list(csv.DictReader(file))
    assert [row["id"] for row in written] == [line.split(",")[0] for line in (*lines(12), *BAD)]
    for row in written:
        assert bool(row["predicted_reason"]) == row["id"].startswith("b:")
        for figure in COMPARED:
            for end in ("", "_low", "_high") if figure != "power_kw" else ("",):  # power has no range
                assert bool(row[f"predicted_{figure}{end}"]) == row["id"].startswith("a:")
    assert [path.name for path in elsewhere.iterdir()] == ["compared.csv"]


def test_piped_in_and_out(table: Path) -> None:
    done = subprocess.run(
        f"cat {table} | {sys.executable} -m tokopt validate /dev/stdin | head -n 1",
        shell=True,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.startswith("Predictions against /dev/stdin: 12 of 18 rows predicted")
    assert not done.stderr


FAULTY = [
    ("", "is empty"),
    (f"{HEADER}\n", "has no rows"),
    ("id,model\na,b\n", "missing column vendor_system, framework, isl, osl"),
    ("vendor_system,model,framework,isl,osl,tpot\na,b,c,1,1,1\n", "nothing to compare with"),
    (f"{HEADER}\na,h100_sxm,qwen3-8b,vllm,bf16,agg,1024,256,1,8,,,\n", "nothing was measured"),
    (f"{HEADER},isl\n", "column named twice"),
    (f"{HEADER}\n{BAD[0]}\n{BAD[0]}\n{BAD[3]}\n", "no row of 3 can be predicted: most often, in 2: unknown acc"),
    (f"{HEADER}\n{BAD[2]}\n", "no row of 1 can be predicted: tpot_ms is '12 ms'"),
    (b"\x89PNG\r\n\x1a\n\x00\xff", "is not UTF-8 text"),
    (b"PAR1 and no more", "cannot be read as Parquet"),
    (b"a\x00b,c\n", "is no text"),
]


@pytest.mark.parametrize(("content", "said"), FAULTY, ids=[said for _, said in FAULTY])
def test_bad_tables_are_one_line(content: str | bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "measured.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    for extra in ((), ("--json",)):
        result = run(str(path), *extra)
        assert result.exit_code == 2, result.output
        assert result.stdout == ""
        (line,) = result.stderr.splitlines()
        assert line.startswith(f"tokopt: error: {path}: ")
        assert said in line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("no/such.csv",), "no/such.csv: cannot be read"),
        (("{folder}",), "cannot be read: Is a directory"),
        (("{table}", "--out", "{table}"), "is the table that is read"),
        (("{table}", "--out", "{folder}"), "is a directory"),
        (("{table}", "--out", "{folder}/no/such/out.csv"), "there is no directory"),
        (("{table}", "--by", "modell"), "did you mean model"),
        (("{table}", "--prefix", "c:"), "no id begins with 'c:'; ids begin with a:, b:"),
        (("{table}", "--min-rows", "0"), "--min-rows"),
        (("{table}", "{table}"), "unexpected extra argument"),
        (("{table}", "--catalog", "/no/such/directory"), "no such directory"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_arguments_are_one_line(arguments: tuple[str, ...], said: str, table: Path) -> None:
    before = table.read_bytes()
    result = run(*(word.format(table=table, folder=table.parent) for word in arguments))
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert said in line
    assert table.read_bytes() == before


def test_the_embedded_measurements() -> None:
    found = answer()
    assert found["rows"] == 7794
    assert found["answered"] + sum(found["reasons"].values()) == found["rows"]
    assert sum(group["rows"] for group in found["groups"]) == found["rows"]
    assert {"aic", "anl", "mlperf5.1"} <= {group["key"]["id prefix"] for group in found["by_prefix"]}
    assert found["overall"]["compared"]["output_tok_s_per_gpu"] > 2000
    assert found["notes"]


def test_the_catalog_lists_and_shows_the_families() -> None:
    listed = CliRunner().invoke(app, ["catalog", "list", "measurements"], env={"COLUMNS": "80"})
    assert listed.exit_code == 0 and "mlperf5.1" in listed.stdout
    shown = CliRunner().invoke(app, ["catalog", "show", "splitwise"], env={"COLUMNS": "80"})
    assert shown.exit_code == 0 and "splitwise-sim" in shown.stdout


def test_help_shows_an_example() -> None:
    said = run("--help").stdout
    assert "tokopt validate measurements.csv --out" in said
    assert all(option in said for option in ("--catalog", "--json", "--quiet", "--debug"))
