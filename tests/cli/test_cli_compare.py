"""`tokopt compare` as it is typed: what it prints and writes, its exit statuses, and what a kill leaves behind."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest

SCENARIOS = """
defaults: {model: qwen3-8b, workload: chat, gpu: [h100_sxm, l40s]}
matrix:
  sla: [30ms, 50ms]
  demand: [10req/s, 40req/s]
"""
MANY = """
defaults: {model: qwen3-8b, workload: chat, gpu: [h100_sxm, l40s]}
matrix:
  sla: [20ms, 30ms, 40ms, 50ms]
  demand: [10req/s, 20req/s, 30req/s, 40req/s, 50req/s, 60req/s, 70req/s, 80req/s]
"""
COMPARE = [sys.executable, "-m", "tokopt", "compare"]
LIMIT_S = 240.0  # after which something hangs


@pytest.fixture
def scenarios(tmp_path: Path) -> str:
    path = tmp_path / "scenarios.yaml"
    path.write_text(SCENARIOS, encoding="utf-8")
    return str(path)


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMPARE, *arguments], capture_output=True, text=True, timeout=LIMIT_S, check=False, cwd=cwd)


def test_the_report_names_winners_lists_and_the_map(scenarios: str) -> None:
    done = run("--scenarios", scenarios, "--prices", "aws,lambda", "--jobs", "1")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == ["8 cells: 4 scenarios x 2 price lists, 2 searches"]
    for words in ("4 scenarios under 2 price lists", "Best price list of each scenario", "30ms / 10req/s", "█1.00"):
        assert words in done.stdout
    assert "\x1b" not in done.stdout


def test_json_is_one_document_and_files_say_the_same(scenarios: str, tmp_path: Path) -> None:
    store, outs = tmp_path / "s.sqlite", [tmp_path / f"t{ending}" for ending in (".csv", ".parquet", ".json")]
    common = ("--scenarios", scenarios, "--prices", "aws,lambda", "--store", str(store))
    done = [run(*common, "--jobs", "2", "--json", "--out", str(out)) for out in outs]
    assert [d.returncode for d in done] == [0, 0, 0]
    rows = json.loads(done[0].stdout)["rows"]
    assert len(rows) == 8 and {"scenario", "price_list", "status", "gap", "accelerator"} <= set(rows[0])
    assert all(json.loads(d.stdout)["rows"] == rows for d in done)
    assert json.loads(done[1].stdout)["kept"] == 8 and "8 of them are finished, 0 are left" in done[1].stderr
    assert json.loads(outs[2].read_text(encoding="utf-8"))["rows"] == rows
    parquet, csv = pl.read_parquet(outs[1]), pl.read_csv(outs[0])
    assert parquet.to_dicts() == rows
    assert csv.columns == parquet.columns
    assert csv["usd_per_million_output_tokens"].to_list() == parquet["usd_per_million_output_tokens"].to_list()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".t")]


def test_heat_maps_are_pictures(scenarios: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    done = run("--scenarios", scenarios, "--prices", "aws,nebius", "--plots", str(tmp_path / "new" / "plots"), "-q")
    assert done.returncode == 0 and done.stderr == ""
    content = (tmp_path / "new" / "plots" / "heat_map.png").read_bytes()
    assert content.startswith(b"\x89PNG") and len(content) > 10_000


def test_where_nothing_is_feasible_the_status_is_3(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("scenarios: {s: {model: qwen3-8b, sla: tpot=0.01ms, demand: 5req/s}}", encoding="utf-8")
    done = run("--scenarios", str(path), "--prices", "lambda", "-q")
    assert done.returncode == 3
    assert "What stands in the way" in done.stdout and "sla tpot" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--prices", "aws"), "missing option '--scenarios'"),
        (("--scenarios", "scenarios.yaml"), "--prices missing"),
        (("--scenarios", "none.yaml", "--prices", "aws"), "none.yaml: cannot be read"),
        (("--scenarios", "scenarios.yaml", "--prices", "amazon"), "unknown price list 'amazon'"),
        (("--scenarios", "scenarios.yaml", "--prices", "aws", "--out", "t.xls"), ".csv, .parquet, .json"),
        (("--scenarios", "scenarios.yaml", "--prices", "aws", "--out", "no/t.csv"), "there is no directory"),
        (("--scenarios", "scenarios.yaml", "--prices", "aws", "--store", "."), "is a directory"),
        (("--scenarios", "scenarios.yaml", "--prices", "aws", "--store", "scenarios.yaml"), "not a store"),
        (("--scenarios", "scenarios.yaml", "--prices", "aws", "--jobs", "0"), "--jobs"),
        (("--scenarios", "scenarios.yaml", "--prices", "aws", "--plots", "scenarios.yaml"), "cannot be made"),
        (("--scenarios", "scenarios.yaml", "--prices", "aws", "--cluster", "here"), "tcp://host:8786"),
        (("--scenarios", "bad.yaml", "--prices", "aws"), "unknown option 'modle'; did you mean mode"),
    ],
)
def test_bad_input_is_one_line(arguments: tuple[str, ...], said: str, scenarios: str, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("scenarios: {a: {modle: x}}", encoding="utf-8")
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    errors = [line for line in done.stderr.splitlines() if "error" in line]
    assert len(errors) == 1 and said in errors[0] and "Traceback" not in done.stderr


# --- interrupted runs ---


def finished(store: Path) -> list[tuple[Any, ...]]:
    if not store.exists():
        return []
    with sqlite3.connect(store, timeout=30.0) as base:
        try:
            return base.execute("SELECT key, answer, finished_at FROM cells ORDER BY number").fetchall()
        except sqlite3.OperationalError:  # not laid out yet
            return []


def half_way(scenarios: Path, store: Path, signal_number: int) -> tuple[subprocess.Popen[str], set[int]]:
    """Start a comparison, and send it a signal when some cells are finished; return it and its workers."""
    process = subprocess.Popen(
        [
            *COMPARE,
            "--scenarios",
            str(scenarios),
            "--prices",
            "aws,lambda,nebius",
            "--store",
            str(store),
            "--jobs",
            "2",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + LIMIT_S
    while len(finished(store)) < 5:
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.02)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    workers = {int(pid) for pid in children.read_text().split()} if children.exists() else set()
    process.send_signal(signal_number)
    return process, workers


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGINT], ids=["SIGKILL", "SIGINT"])
def test_an_interrupted_run_goes_on_where_it_was(tmp_path: Path, signal_number: int) -> None:
    scenarios, store = tmp_path / "many.yaml", tmp_path / "cells.sqlite"
    scenarios.write_text(MANY, encoding="utf-8")
    process, workers = half_way(scenarios, store, signal_number)
    out, err = process.communicate(timeout=LIMIT_S)
    if signal_number == signal.SIGINT:
        assert process.returncode == 130 and out == ""
        assert "they are kept in" in err.splitlines()[-1] and "the same command goes on from there" in err
        assert "Traceback" not in err
    until = time.monotonic() + LIMIT_S
    while any(map(is_alive, workers)):  # nobody works on after the one who asked is gone
        assert time.monotonic() < until
        time.sleep(0.05)
    kept = finished(store)
    assert 5 <= len(kept) < 96
    common = ("--scenarios", str(scenarios), "--prices", "aws,lambda,nebius", "--json")
    rest = run(*common, "--store", str(store), "--jobs", "2")
    found = json.loads(rest.stdout)
    assert (found["kept"], found["solved"]) == (len(kept), 96 - len(kept))
    assert finished(store)[: len(kept)] == kept, "what was finished is not solved again"
    assert len({key for key, *_ in finished(store)}) == len(finished(store)) == 96
    assert json.loads(run(*common, "--jobs", "1").stdout)["rows"] == found["rows"]


def test_an_interrupt_without_a_store_says_what_would_have_kept_it(tmp_path: Path) -> None:
    scenarios = tmp_path / "many.yaml"
    scenarios.write_text(MANY, encoding="utf-8")
    process = subprocess.Popen(
        [*COMPARE, "--scenarios", str(scenarios), "--prices", "aws,lambda", "--jobs", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    assert process.stderr is not None and "64 cells" in process.stderr.readline()
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 130
    assert "interrupted" in err and "Traceback" not in err


def test_the_scenarios_of_example_and_documentation_are_fine() -> None:
    """The example is solved; the documentation's file is read, and means what the page says."""
    import re

    import yaml

    from tokopt.api import load_catalog
    from tokopt.api.comparing_scenarios import scenarios_of

    root = Path(__file__).resolve().parents[2]
    page = (root / "docs" / "compare.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    names = [s.name for s in scenarios_of(load_catalog(), yaml.safe_load(block))]
    assert names == [
        "evening peak",
        "our park",
        "llama-3.1-8b / 20req/s / $90",
        "llama-3.1-8b / 200req/s / $90",
        "qwen3-32b / 20req/s",
        "the new one",
    ]
    done = run(
        "--scenarios", str(root / "examples" / "compare_price_lists.yaml"), "--prices", "aws,lambda", "--json", "-q"
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["cells"] == 20 and len(found["winners"]) == 10
    assert all(row["status"] == "optimal" for row in found["rows"])
    assert "one kind of machine" in {winner["scenario"] for winner in found["winners"]}
