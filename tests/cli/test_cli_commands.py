"""Every command answers: a report for people, one JSON document for programs, exit status 0."""

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
from tokopt.domain.plans import Plan

SMALL = ("--model", "qwen3-8b", "--gpu", "h100_sxm,l40s", "--workload", "chat")
PLAN = ("plan", *SMALL, "--power", "100kW")
ESTIMATE = ("estimate", "--model", "qwen3-8b", "--gpu", "h100_sxm", "--concurrency", "16")
FRONTIER = ("frontier", *SMALL)
ROWS = """vendor_system,model,framework,isl,osl,concurrency_or_batch
h100_sxm,qwen3-8b,vllm,1024,512,16
h100_sxm,no-such-model,vllm,1024,512,16
"""
ANSWERED = [
    PLAN,
    FRONTIER,
    ESTIMATE,
    ("economics",),
    ("catalog", "list"),
    ("catalog", "list", "workloads"),
    ("catalog", "show", "h100_sxm"),
    ("catalog", "check"),
]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "80"})


def answer(*arguments: str) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def process(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tokopt", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=cwd,
        env={**os.environ, **environment},
    )


@pytest.fixture(scope="module")
def plan_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    result = run(*PLAN, "--out", str(path))
    assert result.exit_code == 0, result.output
    return path


@pytest.mark.parametrize("arguments", ANSWERED, ids=" ".join)
def test_report(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert result.stdout.strip()
    assert "\x1b" not in result.stdout
    assert not result.stderr
    assert all(len(line) <= 80 for line in result.stdout.splitlines() if not line.startswith("ok: "))


@pytest.mark.parametrize("arguments", ANSWERED, ids=" ".join)
def test_json_is_one_document(arguments: tuple[str, ...]) -> None:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    assert isinstance(json.loads(result.stdout), dict)
    assert not result.stderr


def test_plan_json_is_the_record() -> None:
    plan = Plan.model_validate(answer(*PLAN))
    assert plan.status == "optimal" and plan.fleet


def test_plan_report_says_what_is_promised() -> None:
    report = " ".join(run(*PLAN).stdout.split())
    for said in ("per M output tokens", "80 % range", "What to buy", "limit", "What holds it back", "Assumptions"):
        assert said in report
    for said in ("50.0 at p99", "l40s", "no price for it", "calibration", "as of", "100 kW", "TPOT = time per output"):
        assert said in report


def test_plan_file_is_what_json_prints(plan_file: Path) -> None:
    assert json.loads(plan_file.read_text(encoding="utf-8")) == answer(*PLAN)
    assert [path.name for path in plan_file.parent.iterdir()] == [plan_file.name], "a temporary file is left"


def test_plan_options_reach_the_request(tmp_path: Path) -> None:
    prices = tmp_path / "mine.csv"
    prices.write_text("accelerator,usd_per_accelerator_hour\nh100_sxm,2\nl40s,1\nl4,0.5\n", encoding="utf-8")
    options = (
        *("--demand", "5req/s", "--sla", "tpot=60ms,ttft=4s,p90", "--prices", str(prices), "--without", "l4"),
        *("--framework", "vllm", "--precision", "fp8", "--kv-precision", "fp8", "--mode", "agg", "--max-types", "1"),
        *("--budget", "$500/h", "--inventory", "h100_sxm=16,l40s=64", "--isl", "500", "--osl", "200"),
        *("--prefix-share", "0.5", "--time-limit", "30s", "--objective", "cost"),
    )
    request = answer("plan", "--model", "qwen3-8b", "--workload", "chat", *options)["request"]
    expected = {
        "demand_requests_per_s": 5.0,
        "prices": [str(prices)],
        "excluded_accelerators": ["l4"],
        "frameworks": ["vllm"],
        "precisions": ["fp8"],
        "kv_precisions": ["fp8"],
        "modes": ["agg"],
        "most_accelerator_types": 1,
        "budget_usd_per_hour": 500.0,
        "inventory": {"h100_sxm": 16, "l40s": 64},
        "time_limit_s": 30.0,
    }
    assert {name: request[name] for name in expected} == expected
    assert request["sla"] == {"tpot_ms": 60.0, "ttft_ms": 4000.0, "e2e_ms": None, "statistic": "p90"}
    assert (request["workload"]["input_tokens"], request["workload"]["prefix_share"]) == (500.0, 0.5)


def test_names_may_be_given_one_option_each() -> None:
    split = ("--model", "qwen3-8b", "--workload", "chat", "--gpu", "h100_sxm", "--gpu", "l40s")
    assert answer("plan", *split, "--power", "100kW") == answer(*PLAN)


def test_check_finds_nothing_wrong(plan_file: Path) -> None:
    result = run("check", str(plan_file))
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("ok: ")
    assert answer("check", str(plan_file)) == {"ok": True, "faults": []}


def test_check_lists_faults(plan_file: Path, tmp_path: Path) -> None:
    plan = json.loads(plan_file.read_text(encoding="utf-8"))
    plan["usd_per_hour"] *= 2
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps(plan), encoding="utf-8")
    result = run("check", str(wrong))
    assert result.exit_code == 2
    assert "usd_per_hour" in result.stdout or "$" in result.stdout
    in_json = run("check", str(wrong), "--json")
    assert in_json.exit_code == 2
    document = json.loads(in_json.stdout)
    assert document["ok"] is False and document["faults"]


def test_estimate_two_pools() -> None:
    pools = ("--model", "qwen3-8b", "--gpu", "h100_sxm", "--prefill", "2xtp1", "--decode", "1xtp2", "--rate", "1req/s")
    assert answer("estimate", *pools)["deployment"]["mode"] == "disagg"
    assert "disagg 2×(tp1) + 1×(tp2)" in run("estimate", *pools).stdout


def test_estimate_answers_what_does_not_fit() -> None:
    result = run("estimate", "--model", "llama-3.1-405b", "--gpu", "l4", "--concurrency", "1")
    assert result.exit_code == 0
    assert "does not fit" in result.stdout.splitlines()[0]


def test_estimate_answers_overload() -> None:
    result = run(*ESTIMATE[:-2], "--rate", "1000req/s")
    assert result.exit_code == 0
    assert "overloaded" in result.stdout.splitlines()[0]


def test_estimate_batch(tmp_path: Path) -> None:
    rows, out = tmp_path / "rows.csv", tmp_path / "predictions.csv"
    rows.write_text(ROWS, encoding="utf-8")
    summary = answer("estimate", "--batch", str(rows), "--out", str(out))
    assert (summary["rows"], summary["answered"]) == (2, 1)
    assert len(list(csv.DictReader(out.open(encoding="utf-8")))) == 2
    assert "1 of 2 rows predicted" in run("estimate", "--batch", str(rows), "--out", str(out)).stdout


def test_frontier_csv_holds_all_points(tmp_path: Path) -> None:
    path = tmp_path / "points.csv"
    result = run(*FRONTIER, "--csv", str(path))
    assert result.exit_code == 0, result.output
    rows = list(csv.DictReader(path.open(encoding="utf-8")))
    points = answer(*FRONTIER)["points"]
    assert len(rows) == len(points)
    assert float(rows[0]["tokens_per_s_per_user"]) == points[0]["tokens_per_s_per_user"]
    assert f"{len(points)} points written" in result.stderr


def test_economics_shows_the_published_digits() -> None:
    report = run("economics").stdout
    for digits in ("$1.41", "2.8 ", "90 ", "54K", "$4.20", "$2.65", "5.6 ", "6,000", "2.8M", "$0.12", "65×", "35×"):
        assert digits in report


def test_catalog_overlay_is_read(tmp_path: Path) -> None:
    (tmp_path / "workloads.yaml").write_text(
        "tiny:\n  title: Tiny\n  input_tokens: 10\n  output_tokens: 10\n  input_cv: 0\n  output_cv: 0\n"
        "  prefix_share: 0\n  source: inferencemax-v1\n  observed_on: 2026-11-23\n",
        encoding="utf-8",
    )
    listed = answer("catalog", "list", "workloads", "--catalog", str(tmp_path))
    assert "tiny" in {row["name"] for row in listed["workloads"]}
    plan = answer("plan", "--model", "qwen3-8b", "--gpu", "h100_sxm", "--workload", "tiny", "--power", "100kW",
                  "--catalog", str(tmp_path))  # fmt: skip
    assert plan["request"]["workload"]["name"] == "tiny"


def test_full_default_run_in_a_process_from_another_folder(tmp_path: Path) -> None:
    arguments = ("plan", "--power", "10MW", "--sla", "50ms")
    done = process(*arguments, "--json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    plan = Plan.model_validate_json(done.stdout)
    assert plan.status == "optimal" and plan.power_kw is not None and plan.power_kw <= 10_000
    report = process(*arguments, cwd=tmp_path)
    assert report.returncode == 0
    assert "\x1b" not in report.stdout
    assert not list(tmp_path.iterdir())


def test_piped_into_head() -> None:
    done = subprocess.run(
        f"{sys.executable} -m tokopt frontier {' '.join(SMALL)} | head -n 1",
        shell=True,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.startswith("Frontier of qwen3-8b")
    assert not done.stderr


def test_output_that_cannot_carry_every_character() -> None:
    done = process(*ESTIMATE, PYTHONIOENCODING="ascii", PYTHONUTF8="0", LC_ALL="C")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("arguments", [["plan"], ["catalog"], []], ids=str)
def test_help_shows_an_example(arguments: list[str]) -> None:
    result = run(*arguments, "--help")
    assert result.exit_code == 0
    assert "  tokopt " in result.stdout


@pytest.mark.parametrize("name", ["plan", "frontier", "estimate", "economics", "check", "catalog list"])
def test_every_command_takes_the_common_options(name: str) -> None:
    text = run(*name.split(), "--help").stdout
    assert "Example" in text
    assert all(option in text for option in ("--catalog", "--json", "--quiet", "--debug"))


def test_without_arguments_help_is_shown() -> None:
    assert run().exit_code == 0
    assert "Commands:" in run().stdout


def test_version() -> None:
    result = run("--version")
    assert result.exit_code == 0
    assert result.stdout.startswith("tokopt 0.")


def test_an_interrupt_within_an_exec_ends_with_its_status_too(tmp_path: Path) -> None:
    """CPython takes an interrupt that passes an `exec` of text for unhandled, and would die of the signal."""
    (tmp_path / "struck.py").write_text(
        "import sys, tokopt.cli\n"
        "from tokopt.__main__ import main\n"
        "tokopt.cli.run = lambda: exec('raise KeyboardInterrupt')\n"
        "sys.exit(main())\n",
        encoding="utf-8",
    )
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-m", "struck"], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path}
    )
    assert (done.returncode, done.stderr) == (130, "tokopt: interrupted\n")
