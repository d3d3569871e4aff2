"""`tokopt tune` as it is typed: its report, its JSON, its files, its exit statuses, and several of it at a time."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from tokopt.cli import app

TOKOPT = [sys.executable, "-m", "tokopt"]
LIMIT_S = 240.0  # after which something hangs
SHORT = ("--trials", "3", "--requests", "200", "--replications", "2", "--knobs", "chunk,max_batch")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*TOKOPT, *arguments], capture_output=True, text=True, timeout=LIMIT_S, check=False)


@pytest.fixture(scope="module")
def plan_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tune") / "plan.json"
    service = ("--model", "llama-3.1-70b", "--workload", "chat", "--sla", "tpot=15ms,ttft=2s", "--power", "60kW")
    narrow = ("--gpu", "h100_sxm", "--mode", "agg", "--precision", "fp8", "--framework", "vllm")
    done = run("plan", *service, *narrow, "--out", str(path), "--quiet")
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture(scope="module")
def tuned(plan_file: Path) -> subprocess.CompletedProcess[str]:
    """The first tuning of the plan; the others of this file go on from its study."""
    return run("tune", str(plan_file), *SHORT)


def test_the_report_says_what_to_change_what_it_does_and_what_was_tried(
    tuned: subprocess.CompletedProcess[str], plan_file: Path
) -> None:
    assert tuned.returncode == 0, tuned.stderr
    assert tuned.stderr == "" and "\x1b" not in tuned.stdout
    for words in (
        "In simulation",
        "req/s a replica within limits",
        "goodput at the planned rate",
        "closed-form model: req/s within limits",
        "What was tried",
        "complete,",
        "token budget of a step that prefills",
        "Where the numbers come from",
        "seeds simulations of trials 0, of tests 1000003; samplers [0, 0, 0]",
    ):
        assert words in " ".join(tuned.stdout.split()), words
    assert max(map(len, tuned.stdout.splitlines())) <= 100
    assert plan_file.with_suffix(".tune.journal").is_file()


def test_json_is_one_document_and_the_same_study_answers_at_once(
    tuned: subprocess.CompletedProcess[str], plan_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "tuned.json"
    done = run("tune", str(plan_file), *SHORT, "--json", "--out", str(out))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["study"]["resumed"]
    assert len(found["items"][0]["trials"]) == 3
    assert json.loads(out.read_text(encoding="utf-8")) == found["tuned_plan"]
    assert [line.rpartition(" ")[2] for line in done.stderr.splitlines()] == [str(out)]
    checked = run("check", str(out))
    assert checked.returncode == 0, checked.stderr


def test_pictures_of_a_study_are_written_and_named(
    tuned: subprocess.CompletedProcess[str], plan_file: Path, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    plots = tmp_path / "pictures"
    done = run("tune", str(plan_file), *SHORT, "--plots", str(plots))
    assert done.returncode == 0, done.stderr
    names = [Path(line.rpartition(" ")[2]) for line in done.stderr.splitlines() if line.endswith(".png")]
    assert {name.name for name in names} == {"history.png", "front.png"}
    assert all(name.read_bytes().startswith(b"\x89PNG") for name in names)


def test_processes_share_the_trials_of_one_study(plan_file: Path, tmp_path: Path) -> None:
    study = str(tmp_path / "shared.journal")
    words = [*TOKOPT, "tune", str(plan_file), *SHORT, "--trials", "5", "--study", study, "--json", "-q"]
    both = [subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    answers = []
    for process in both:
        out, err = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 0, err
        answers.append(json.loads(out))
    one, other = answers
    assert one["items"][0]["trials"] == other["items"][0]["trials"]
    assert len(one["items"][0]["trials"]) == 5
    settings = [json.dumps(trial["settings"], sort_keys=True) for trial in one["items"][0]["trials"]]
    assert len(set(settings)) == 5
    assert one["tuned_plan"] == other["tuned_plan"]
    seeds = [tuple(worker["seed"]) for worker in one["study"]["workers"]]
    assert len(set(seeds)) == len(seeds) == 2


def test_an_interrupt_keeps_the_study_and_says_so(plan_file: Path, tmp_path: Path) -> None:
    study = tmp_path / "cut.journal"
    words = [*TOKOPT, "tune", str(plan_file), "--trials", "500", "--requests", "2000", "--study", str(study)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline and "rung" not in (study.read_text() if study.exists() else ""):
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 130
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("tokopt: interrupted at trial ") and f"kept in {study}" in line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("",), "error: '': cannot be read: Is a directory"),
        (("/",), "error: /: cannot be read: Is a directory"),
        ((".",), "error: .: cannot be read: Is a directory"),
        (("missing.json",), "error: missing.json: cannot be read: No such file or directory"),
        ((), "error: missing argument 'PLAN.json' (see tokopt tune --help)"),
        (("{plan}", "--knobs", "luck"), "error: --knobs: 'luck' is not one of max_batch, chunk, speculation"),
        (("{plan}", "--knobs", "pools"), "error: --knobs pools: item 1 (h100_sxm): it has one pool"),
        (("{plan}", "--objectives", "joy"), "error: --objectives: 'joy' is not one of cost, goodput, p99, energy"),
        (("{plan}", "--trials", "0"), "error: --trials: 0 is not possible"),
        (("{plan}", "--time-limit", "10"), "error: --time-limit"),
        (("{plan}", "--sampler", "luck"), "error: --sampler: 'luck' is not one of tpe, nsga2, random"),
        (("{plan}", "--item", "3"), "error: --item: 3 is not possible: the fleet has 1 item"),
        (("{plan}", "--jobs", "0"), "jobs"),
        (("{plan}", "--study", "{plan}"), "is not the journal of a study; give a file of its own"),
        (("{plan}", "--study", "mysql://me:secret@h/d"), "mysql://me:***@h/d: no driver for mysql"),
        (("{plan}", "--out", "/nowhere/at/all.json"), "error: --out /nowhere/at/all.json: there is no directory"),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments: tuple[str, ...], said: str, plan_file: Path) -> None:
    before = plan_file.read_bytes()
    done = CliRunner().invoke(app, ["tune", *(word.format(plan=plan_file) for word in arguments)])
    assert done.exit_code == 2 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and said in done.stderr, done.stderr
    assert "secret" not in done.stderr
    assert plan_file.read_bytes() == before


def test_another_plan_is_told_from_the_one_that_a_study_is_of(
    tuned: subprocess.CompletedProcess[str], plan_file: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.json"
    plan = json.loads(plan_file.read_text(encoding="utf-8"))
    plan["assumptions"] = []
    other.write_text(json.dumps(plan), encoding="utf-8")
    done = run("tune", str(other), *SHORT, "--study", str(plan_file.with_suffix(".tune.journal")))
    assert done.returncode == 2
    assert "its trials are of another plan" in done.stderr
