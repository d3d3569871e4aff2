"""Bad input is one line and status 2, infeasible a report and status 3, a defect one line and status 1."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

import tokopt
from tokopt.cli import app
from tokopt.cli.shell import explain

SMALL = ("--model", "qwen3-8b", "--gpu", "h100_sxm", "--workload", "chat")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "80"})


def plan(*arguments: str) -> tuple[str, ...]:
    return ("plan", *SMALL, *arguments)


def estimate(*arguments: str) -> tuple[str, ...]:
    return ("estimate", "--model", "qwen3-8b", "--gpu", "h100_sxm", *arguments)


BAD_INPUT = [
    (plan(), "--power"),
    (plan("--power", "-5MW"), "above zero"),
    (plan("--power", "0MW"), "above zero"),
    (plan("--power", "10"), "unit is missing"),
    (plan("--power", "10ms"), "10MW"),
    (plan("--power", "lots"), "not a power"),
    (plan("--power", "nanMW"), "--power"),
    (plan("--power", "1MW", "--sla", "50"), "unit is missing"),
    (plan("--power", "1MW", "--sla", "foo=5ms"), "not a limit"),
    (plan("--power", "1MW", "--sla", "-5ms"), "above zero"),
    (plan("--demand", "5"), "req/s"),
    (("plan", "--power", "1MW", "--model", "qwen3-8"), "did you mean"),
    (("plan", "--power", "1MW", "--model", "missing/config.json"), "cannot be read"),
    (("plan", "--power", "1MW", "--gpu", "h100_sx"), "h100_sxm"),
    (("plan", "--power", "1MW", "--workload", "chatt"), "did you mean chat"),
    (("plan", "--power", "1MW", "--framework", "vlm"), "did you mean vllm"),
    (("plan", "--power", "1MW", "--precision", "fp9"), "did you mean fp8"),
    (plan("--power", "1MW", "--prices", "awss"), "did you mean aws"),
    (plan("--power", "1MW", "--prices", "./missing.csv"), "missing.csv"),
    (plan("--power", "1MW", "--region", "mars"), "mars"),
    (plan("--power", "1MW", "--mode", "both"), "agg, disagg"),
    (plan("--power", "1MW", "--market", "futures"), "on_demand"),
    (plan("--power", "1MW", "--objective", "fame"), "cost, throughput"),
    (plan("--power", "1MW", "--power-basis", "rack"), "utility, it"),
    (plan("--budget", "500"), "500USD"),
    (plan("--budget", "$0"), "above zero"),
    (plan("--power", "1e30MW"), "more than 1,000,000 GW"),
    (plan("--demand", "1e30req/s"), "more than 1,000 Greq/s"),
    (plan("--demand", "1e-9req/s"), "below 0.0001 req/s"),
    (plan("--budget", "1e30USD"), "up to $1,000,000,000,000"),
    (plan("--inventory", f"h100_sxm={10**24}"), "more than 1,000,000,000 accelerators"),
    (plan("--power", "1MW", "--carbon-price", "1e30USD"), "up to $1,000,000,000,000"),
    (plan("--power", "1MW", "--inventory", "h100_sxm=0"), "inventory h100_sxm=0"),
    (plan("--power", "1MW", "--isl", "1e12"), "below 1e9"),
    (plan("--power", "1MW", "--inventory", "h100_sxm"), "h200_sxm=64"),
    (plan("--power", "1MW", "--inventory", "h100_sxm=1,h100_sxm=2"), "twice"),
    (plan("--power", "1MW", "--max-types", "0"), "--max-types"),
    (plan("--power", "1MW", "--isl", "many"), "--isl"),
    (plan("--power", "1MW", "--isl", "nan"), "input length"),
    (plan("--power", "1MW", "--prefix-share", "2"), "between 0 and 1"),
    (plan("--power", "1MW", "--time-limit", "30"), "--time-limit: '30': the unit is missing"),
    (plan("--power", "1MW", "--without", ","), "--without"),
    (plan("--power", "1MW", "--catalog", "/no/such/directory"), "no such directory"),
    (plan("--powr", "1MW"), "did you mean --power"),
    (plan("--power"), "requires an argument (see tokopt plan --help)"),
    (("plan", "1MW"), "unexpected extra argument"),
    (("plna",), "did you mean plan"),
    (("catalog", "lst"), "did you mean list"),
    (("catalog", "list", "acelerators"), "did you mean accelerators"),
    (("catalog", "show", "h100_sx"), "did you mean"),
    (("catalog", "show"), "missing argument"),
    (("check", "/no/such/plan.json"), "cannot be read"),
    (("check",), "missing argument"),
    (("frontier", "--model", "nothing-like-it"), "unknown language model"),
    (("frontier", *SMALL, "--csv", "/no/such/directory/x.csv"), "no directory"),
    (("estimate", "--concurrency", "1"), "--model and --gpu"),
    (estimate(), "--concurrency"),
    (estimate("--concurrency", "8", "--rate", "1req/s"), "once"),
    (estimate("--concurrency", "0"), "at least 1"),
    (estimate("--rate", "8"), "8req/s"),
    (estimate("--concurrency", "8", "--tp", "0"), "--tp"),
    (estimate("--concurrency", "8", "--tp", "3"), "tp=3"),
    (estimate("--concurrency", "8", "--prefill", "2xtp1"), "--decode"),
    (estimate("--batch", "rows.csv"), "--out"),
    (("estimate", "--batch", "missing.csv", "--out", "out.csv"), "cannot be read"),
]


@pytest.mark.parametrize(
    ("arguments", "said"), BAD_INPUT, ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_bad_input_is_one_line(arguments: tuple[str, ...], said: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("tokopt: error: ")
    assert said in line


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "empty"),
        ("a,b\n1,2\n", "not a price list"),
        ("accelerator,usd_per_accelerator_hour\nh100_sxm,0\n", "must be above zero"),
        ("accelerator,usd_per_accelerator_hour\nh100_sxm,-1\n", "no price"),
        ("accelerator,usd_per_accelerator_hour\nh100_sxm,free\n", "free"),
    ],
)
def test_bad_price_files(content: str, said: str, tmp_path: Path) -> None:
    prices = tmp_path / "mine.csv"
    prices.write_text(content, encoding="utf-8")
    result = run(*plan("--power", "1MW", "--prices", str(prices)))
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert said in line and "mine.csv" in line


@pytest.mark.parametrize(
    ("content", "said"), [(b"", "there is nothing"), (b"\xd3\x00\xff", "no text in UTF-8"), (b"- 1", "not list")]
)
def test_bad_owned_files(content: bytes, said: str, tmp_path: Path) -> None:
    owned = tmp_path / "mine.yaml"
    owned.write_bytes(content)
    result = run(*plan("--power", "1MW", "--owned", str(owned)))
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert said in line and "mine.yaml" in line


@pytest.mark.parametrize("content", ["title: [", "- 1\n- 2\n", "x: {memory_gb: many}\n"])
def test_malformed_overlays(content: str, tmp_path: Path) -> None:
    (tmp_path / "workloads.yaml").write_text(content, encoding="utf-8")
    result = run(*plan("--power", "1MW", "--catalog", str(tmp_path)))
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert "workloads.yaml" in line
    checked = run("catalog", "check", "--catalog", str(tmp_path), "--json")
    assert checked.exit_code == 2
    assert json.loads(checked.stdout)["problems"]


@pytest.mark.parametrize("content", ["", "{}", "[]", "{", "\x00\xff"])
def test_bad_plan_files(content: str, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(content, encoding="latin-1")
    result = run("check", str(path))
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert "plan.json" in line


@pytest.mark.parametrize(
    ("limits", "constraint", "nearest"),
    [
        (("--power", "1MW", "--sla", "0.1ms"), "sla tpot", "ms"),
        (("--power", "1MW", "--sla", "tpot=50ms,ttft=1ms"), "sla ttft", "ms"),
        (("--power", "1W",), "power", "kW"),
        (("--demand", "100req/s", "--power", "14kW"), "power", "W"),
    ],
)  # fmt: skip
def test_infeasible(limits: tuple[str, ...], constraint: str, nearest: str) -> None:
    result = run(*plan(*limits))
    assert result.exit_code == 3, result.output
    assert not result.stderr
    assert "No plan" in result.stdout and constraint in result.stdout
    in_json = run(*plan(*limits), "--json")
    assert in_json.exit_code == 3
    document = json.loads(in_json.stdout)
    assert document["status"] == "infeasible"
    offered = {row["constraint"]: row["nearest"] for row in document["nearest_feasible"]}
    assert nearest in offered[constraint]


def test_infeasible_together_names_the_limits() -> None:
    result = run(*plan("--demand", "1000000req/s", "--power", "10kW", "--budget", "$3"))
    assert result.exit_code == 3
    assert "10.0 kW" in result.stdout and "$3.00/h" in result.stdout


@pytest.mark.parametrize("asked", [("--max-carbon", "1t/h"), ("--carbon-price", "$80"), ("--objective", "carbon")])
def test_carbon_of_prices_without_a_place_names_what_is_missing(asked: tuple[str, ...]) -> None:
    result = run(*plan("--demand", "10req/s", *asked, "--json"))
    assert result.exit_code == 3, result.output
    (near,) = json.loads(result.stdout)["nearest_feasible"]
    assert near["constraint"] == "carbon" and "ownership-hyperscaler names no place" in near["detail"]


# --- files that are written ---


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize(
    "arguments", [("catalog", "list", "sites"), ("catalog", "list", "sites", "--json"), ("--help",)]
)
def test_a_full_disk_behind_standard_output_is_one_line(arguments: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "tokopt", *arguments]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "tokopt: error: output cannot be written: No space left on device\n"


@pytest.mark.parametrize("target", ["no/such/directory/plan.json", "."])
def test_unwritable_out_is_refused_before_the_work(target: str, tmp_path: Path) -> None:
    result = run(*plan("--power", "100kW", "--out", str(tmp_path / target)))
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "--out" in result.stderr


def test_nothing_is_lost_when_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "plan.json"
    out.write_text("old", encoding="utf-8")

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    result = run(*plan("--power", "100kW", "--json", "--out", str(out)))
    assert result.exit_code == 2
    assert "No space left" in result.stderr
    assert json.loads(result.stdout)["status"] == "optimal", "the answer is shown all the same"
    assert out.read_text(encoding="utf-8") == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


def test_out_keeps_links_and_modes(tmp_path: Path) -> None:
    real, link = tmp_path / "real.json", tmp_path / "link.json"
    real.write_text("old", encoding="utf-8")
    real.chmod(0o640)
    link.symlink_to(real)
    assert run(*plan("--power", "100kW", "--out", str(link))).exit_code == 0
    assert link.is_symlink()
    assert json.loads(real.read_text(encoding="utf-8"))["status"] == "optimal"
    assert real.stat().st_mode & 0o777 == 0o640


# --- defects and interruptions ---


def broken(error: BaseException) -> Any:
    def raise_it(**_: Any) -> None:
        raise error

    return raise_it


def test_a_defect_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokopt, "plan", broken(ZeroDivisionError("half\nway")))
    result = run(*plan("--power", "1MW"))
    assert result.exit_code == 1
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("tokopt: internal error: ZeroDivisionError: half way")
    assert "--debug" in line


@pytest.mark.parametrize("arguments", [("--debug", *plan("--power", "1MW")), plan("--power", "1MW", "--debug")])
def test_debug_shows_the_traceback(arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokopt, "plan", broken(ZeroDivisionError("half way")))
    result = run(*arguments)
    assert result.exit_code == 1
    assert "Traceback" in result.stderr


def test_interruption(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokopt, "plan", broken(KeyboardInterrupt()))
    result = run(*plan("--power", "1MW"))
    assert result.exit_code == 130
    assert result.stderr.split() == ["tokopt:", "interrupted"]


CHATTY = """
import os, sys, tokopt
from tokopt.cli import run
answer = tokopt.plan(model="qwen3-8b", gpus="h100_sxm", workload="chat", power="100kW")
def chatty(**_):
    os.write(1, b"a solver's own words")
    return answer
tokopt.plan = chatty
sys.argv = ["tokopt", "plan", "--power", "100kW", "--json"]
sys.exit(run())
"""


def test_chatter_of_a_library_stays_off_file_descriptor_1() -> None:
    done = subprocess.run([sys.executable, "-c", CHATTY], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0
    assert json.loads(done.stdout)["status"] == "optimal"
    assert "a solver's own words" in done.stderr


def test_chatter_of_a_computation_stays_off_standard_output(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = tokopt.plan(model="qwen3-8b", gpus="h100_sxm", workload="chat", power="100kW")

    def chatty(**_: Any) -> tokopt.Plan:
        print("solving, solving")
        return answer

    monkeypatch.setattr(tokopt, "plan", chatty)
    result = run(*plan("--power", "100kW", "--json"))
    assert json.loads(result.stdout)["status"] == "optimal"
    assert "solving" in result.stderr


def test_infeasible_errors_have_their_status() -> None:
    assert explain(tokopt.InfeasibleError("no way"), ()) == (3, "infeasible: no way")
    assert explain(click.Abort(), ())[0] == 130
