"""`tokopt simulate` as it is typed: its report, its JSON, its files, its exit statuses, and Ctrl-C."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tokopt.cli import app
from tokopt.cli.working import Pace
from tokopt.domain.plans import Plan
from tokopt.domain.simulations import Simulation

SHORT = ("--requests", "200", "--replications", "2")
LIMIT_S = 240.0  # after which something hangs
PERCENTILES = {"mean", "p50", "p90", "p95", "p99"}


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["simulate", *arguments], env={"COLUMNS": "80"})


def typed(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tokopt", "simulate", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False, cwd=folder)


def test_the_report_answers_in_a_sentence(chat_plan_file: str) -> None:
    plan = Path(chat_plan_file)
    done = typed(plan.name, *SHORT, "--load", "70%", folder=plan.parent)
    assert done.returncode == 0, done.stderr
    assert f"{plan.name}, made with tokopt" in done.stdout
    assert done.stderr == "" and "\x1b" not in done.stdout
    # Four hundred requests may be too few to tell.
    answers = ("Holds its limits at 70 % of the planned load: p99", "Cannot tell whether it holds its limit")
    assert done.stdout.startswith(answers)
    for words in ("To be known", "Latencies, ms", "planned", "What would be short first", "Over time", "seed 0"):
        assert words in done.stdout, words
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert all(line == line.rstrip() for line in done.stdout.splitlines())


def test_json_is_one_document_with_what_other_tools_rely_on(chat_plan_file: str, tmp_path: Path) -> None:
    out = tmp_path / "simulation.json"
    result = run(chat_plan_file, *SHORT, "--load", "0.7", "--json", "--out", str(out))
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert json.loads(out.read_text(encoding="utf-8")) == found
    assert result.stderr.splitlines() == [f"simulation written to {out}"]
    assert found["overloaded"] is False and found["interrupted"] is False
    assert 0.0 <= found["goodput"] <= 1.0 and 0.0 <= found["utilisation"] <= 1.0
    assert found["completed"] > 0 and found["rejected"] == 0
    for name in ("ttft_ms", "tpot_ms", "itl_ms", "e2e_ms"):
        latency = found[name]
        assert set(latency) >= PERCENTILES and set(latency["plus_minus"]) == PERCENTILES
        assert latency["p50"] <= latency["p90"] <= latency["p95"] <= latency["p99"]
    assert found["plan"] == chat_plan_file
    assert Simulation.model_validate_json(result.stdout).settings.load == 0.7


def test_the_same_seed_gives_the_same_bytes(chat_plan_file: str) -> None:
    first, again, other = (run(chat_plan_file, *SHORT, "--json", "--seed", seed).stdout for seed in ("7", "7", "8"))
    assert first == again != other


def test_an_overload_is_answered_as_one(chat_plan_file: str) -> None:
    result = run(chat_plan_file, *SHORT, "--load", "150%")
    assert result.exit_code == 0
    assert result.stdout.startswith("Overloaded at 150 % of the planned load: ")
    assert "under a lasting overload they have no bounds" in " ".join(result.stdout.split())
    found = json.loads(run(chat_plan_file, *SHORT, "--load", "150%", "--json").stdout)
    assert found["overloaded"] is True and found["reason"]
    assert found["ttft_ms"] is None and found["classes"][0]["e2e_ms"] is None
    assert found["requests_per_s"] < 1.4 * found["planned_requests_per_s"]
    assert found["items"][0]["overloaded"] is True


def test_every_option_at_once(chat_plan_file: str, tmp_path: Path) -> None:
    out = tmp_path / "all.json"
    options = (
        *("--arrivals", "gamma", "--burstiness", "2", "--load", "60%", "--router", "shortest_queue"),
        *("--split", "together", "--replicas", "4", "--warm-up", "2min", "--node-mtbf", "2000h", "--recovery", "1min"),
        *("--autoscale", "target=70%,least=6,delay=5s,every=1s", "--seed", "3", "--jobs", "1", "--quiet"),
    )
    result = run(chat_plan_file, *SHORT, *options, "--out", str(out))
    assert result.exit_code == 0 and result.stderr == "", result.stderr
    settings = json.loads(out.read_text(encoding="utf-8"))["settings"]
    assert settings["warm_up_s"] == 120.0 and settings["recovery_s"] == 60.0
    assert settings["node_mtbf_hours"] == 2000.0
    assert settings["autoscale_target"] == 0.7 and settings["autoscale_least"] == 6


def test_a_closed_loop_holds_its_requests(chat_plan_file: str) -> None:
    found = json.loads(run(chat_plan_file, *SHORT, "--concurrency", "48", "--json").stdout)
    assert found["settings"]["arrivals"] == "closed_loop"
    assert found["mean_in_system"] == pytest.approx(48, rel=0.05)


def test_a_trace_is_replayed(chat_plan_file: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    rows = [f"{0.5 * n},{100 + n % 50},{20 + n % 7}" for n in range(400)]
    trace.write_text("\n".join(["time_s,input_tokens,output_tokens", *rows, "201,9999999,5"]), encoding="utf-8")
    result = run(chat_plan_file, "--trace", str(trace), "--trace-speed", "2", "--warm-up", "1s", "--replications", "2")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("Holds its limits under the trace")
    assert "requests come as in" in result.stdout and "1 of them are longer than the model's context" in result.stdout


def test_pictures_are_written_where_they_are_asked_for(
    chat_plan_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr("tokopt.report.simulation_plots.pictures", lambda found: [("overview.png", b"\x89PNG")])
    plots = tmp_path / "deep" / "pictures"
    result = run(chat_plan_file, *SHORT, "--load", "70%", "--plots", str(plots))
    assert result.exit_code == 0, result.stderr
    assert result.stderr.splitlines() == [f"picture written to {plots / 'overview.png'}"]
    assert (plots / "overview.png").read_bytes() == b"\x89PNG"


# --- bad input ---

BAD = [
    ((), "missing argument 'PLAN.json'"),
    (("missing.json",), "missing.json: cannot be read: No such file or directory"),
    (("{plan}", "more"), "unexpected extra argument"),
    (("{plan}", "--load", "0"), "--load: 0.0 must be greater than 0"),
    (("{plan}", "--load", "-5%"), "--load: '-5%' is not a share"),
    (("{plan}", "--load", "nan"), "--load: 'nan' is not a share"),
    (("{plan}", "--requests", "5"), "--requests: 5 must be greater than or equal to 100"),
    (("{plan}", "--requests", "many"), "'--requests': 'many' is not a valid integer"),
    (("{plan}", "--replications", "0"), "--replications: 0 must be"),
    (("{plan}", "--seed", "-1"), "--seed: -1 must be"),
    (("{plan}", "--replicas", "0"), "--replicas: 0 must be"),
    (("{plan}", "--warm-up", "120"), "--warm-up: '120': the unit is missing; write it like 90s"),
    (
        (
            "{plan}",
            "--warm-up=-1s",
        ),
        "--warm-up: '-1s' must not be below zero",
    ),
    (("{plan}", "--period", "night"), "--period: 'night': the plan has no periods"),
    (("{plan}", "--node-mtbf", "2000"), "--node-mtbf: '2000': the unit is missing"),
    (("{plan}", "--node-mtbf", "0h"), "--node-mtbf: '0h' must be above zero"),
    (("{plan}", "--spot-interruptions", "5"), "write it like 0.05/h"),
    (("{plan}", "--spot-interruptions", "nan/h"), "write it like 0.05/h"),
    (("{plan}", "--recovery", "10min"), "--recovery goes with --node-mtbf or --spot-interruptions"),
    (("{plan}", "--autoscale", "on"), "--autoscale: 'on' is not one of target=…, least=…"),
    (("{plan}", "--autoscale", "least=2"), "lacks its target"),
    (("{plan}", "--autoscale", "target=2"), "--autoscale: target: '2' is not a share from 0 to 1"),
    (("{plan}", "--autoscale", "target=0.5,target=0.6"), "target is given twice"),
    (("{plan}", "--autoscale", "target=0.5,least=x"), "--autoscale: least: 'x' must be a valid integer"),
    (("{plan}", "--autoscale", "target=0.5,delay=5"), "--autoscale: delay: '5': the unit is missing"),
    (("{plan}", "--jobs", "0"), "'--jobs': 0 is not in the range"),
    (("{plan}", "--arrivals", "poison"), "did you mean poisson?"),
    (("{plan}", "--arrivals", "gamma"), "--arrivals gamma needs --burstiness"),
    (("{plan}", "--arrivals", "poisson", "--burstiness", "2"), "--arrivals poisson goes without --burstiness"),
    (("{plan}", "--burstiness", "-1"), "--burstiness: -1.0 must be"),
    (("{plan}", "--burstiness", "1e-310"), "--burstiness: 1e-310 must be 0, or from 1e-06 to 1000"),
    (
        ("{plan}", "--autoscale", "target=0.5,every=0.001ms"),
        "--autoscale: every: 1e-06 must be greater than or equal to 0.1",
    ),
    (("{plan}", "--burstiness", "2", "--concurrency", "3"), "contradict one another"),
    (("{plan}", "--concurrency", "0"), "--concurrency: 0 must be"),
    (("{plan}", "--concurrency", "5", "--load", "0.5"), "--load goes without --concurrency"),
    (("{plan}", "--trace", "missing.csv"), "missing.csv: cannot be read"),
    (("{plan}", "--trace-speed", "2"), "--trace-speed goes with --trace FILE"),
    (("{plan}", "--router", "rand"), "did you mean random?"),
    (("{plan}", "--split", "apart"), "--split: 'apart' is not one of plan, together"),
    (("{plan}", "--out", "/no/such/folder/x.json"), "--out /no/such/folder/x.json: there is no directory"),
    (("{plan}", "--plots", "{plan}"), "--plots {plan}: cannot be made"),
    (("{plan}", "--catalog", "/no/such/folder"), "/no/such/folder: no such directory"),
]


@pytest.mark.parametrize(
    ("arguments", "said"), BAD, ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_bad_input_is_one_line_and_status_2(arguments: tuple[str, ...], said: str, chat_plan_file: str) -> None:
    result = run(*(word.format(plan=chat_plan_file) for word in arguments))
    assert result.exit_code == 2 and result.stdout == "", result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("tokopt: error: ") and said.format(plan=chat_plan_file) in line


def changed(plan: Plan, tmp_path: Path, **fields: object) -> str:
    path = tmp_path / "other.json"
    path.write_text(json.dumps(plan.model_dump(mode="json") | fields), encoding="utf-8")
    return str(path)


def test_plans_that_cannot_be_simulated(chat_plan: Plan, tmp_path: Path) -> None:
    item = chat_plan.model_dump(mode="json")["fleet"][0]
    made = chat_plan.model_dump(mode="json")["provenance"] | {"tokopt_version": "0.0.9"}
    for fields, said in (
        ({"fleet": [], "status": "infeasible"}, "the plan has no fleet: it is infeasible"),
        ({"fleet": [item | {"requests_per_s": 0}]}, "serves nothing: there is nothing to simulate"),
        ({"fleet": [item | {"requests_per_s": -1}]}, "fleet item 1: requests_per_s -1 cannot be"),
        ({"fleet": [item | {"share_of_traffic": {"noise": 1.0}}]}, "it serves 'noise', which is not one of chat"),
        ({"fleet": [item | {"concurrency_per_replica": 10**9}]}, "a running cap of 1,000,000,000"),
        ({"colour": "blue"}, "not a plan: colour: Extra inputs are not permitted"),
        ({"colour": "blue", "provenance": made}, "it was made with 0.0.9: colour: Extra inputs"),
    ):
        path = changed(chat_plan, tmp_path, **fields)
        result = run(path, *SHORT)
        assert result.exit_code == 2, result.output
        (line,) = result.stderr.splitlines()
        assert line.startswith(f"tokopt: error: {path}: ") and said in line


def test_a_plan_of_another_version_is_simulated_and_says_so(chat_plan: Plan, tmp_path: Path) -> None:
    made = chat_plan.model_dump(mode="json")["provenance"] | {"tokopt_version": "0.0.9", "calibration": "old"}
    result = run(changed(chat_plan, tmp_path, provenance=made), *SHORT, "--json")
    assert result.exit_code == 0
    (warning,) = [said for said in json.loads(result.stdout)["warnings"] if "was made with" in said]
    assert warning.startswith("the plan was made with tokopt 0.0.9, calibration old, and is simulated with tokopt ")


# --- Ctrl-C ---

INTERRUPTED = """
import contextlib, os, signal, sys

import tokopt.api.simulation_runs as runs
import tokopt.cli.simulate as command
from tokopt.cli.app import run

@contextlib.contextmanager
def computing(*, quiet, steady=False):
    told = []
    def tell(doing, done):
        if not told and done >= at and (at > 0.0 or doing.startswith("loading")):
            told.append(doing)
            os.kill(os.getpid(), signal.SIGINT)
    yield tell

if __name__ == "__main__":
    at, where = float(sys.argv.pop(1)), sys.argv.pop(1)
    runs.PARALLEL_FROM_REQUESTS = 0 if where == "processes" else 10**12
    command.computing = computing
    sys.exit(run())
"""


def interrupted(tmp_path: Path, at: float, where: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command, with an interrupt from the keyboard once a share of the work is done."""
    script = tmp_path / "interrupted.py"
    script.write_text(INTERRUPTED, encoding="utf-8")
    command = [sys.executable, str(script), str(at), where, "simulate", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False, env=dict(os.environ))


@pytest.mark.parametrize(("where", "replications"), [("here", 8), ("processes", 60)])
def test_an_interrupted_run_keeps_the_replications_that_ended(
    where: str, replications: int, chat_plan_file: str, tmp_path: Path
) -> None:
    many = ("--requests", "200", "--replications", str(replications), "--jobs", "2", "--load", "60%")
    done = interrupted(tmp_path, 0.3 if where == "here" else 0.05, where, chat_plan_file, *many, "--json")
    assert done.returncode == 0 and done.stderr == "", done.stderr
    found = json.loads(done.stdout)
    assert found["interrupted"] is True and 0 < found["replications"] < replications
    assert found["warnings"][0].startswith(f"interrupted: {found['replications']} of {replications} replications")
    assert found["completed"] > 0 and found["ttft_ms"]["p99"] > 0.0


def test_a_run_that_is_interrupted_early_keeps_what_had_come(chat_plan_file: str, tmp_path: Path) -> None:
    one = ("--requests", "20000", "--replications", "1", "--load", "60%", "--warm-up", "10s")
    done = interrupted(tmp_path, 0.3, "here", chat_plan_file, *one)
    assert done.returncode == 0, done.stderr
    assert "- interrupted within the first replication: what had come by then" in done.stdout


def test_an_interrupt_with_nothing_to_keep_is_one_line(chat_plan_file: str, tmp_path: Path) -> None:
    done = interrupted(tmp_path, 0.0, "processes", chat_plan_file, *SHORT, "--jobs", "2", "--json")
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.split() == ["tokopt:", "interrupted"]


# --- how long it takes ---


def test_a_pace_says_how_long_the_rest_takes() -> None:
    pace = Pace()
    assert pace.left(0.0, 0.0) is None
    assert pace.left(0.1, 10.0) is None  # what came before the first step is not its pace
    assert pace.left(0.15, 11.0) is None
    assert pace.left(0.3, 14.0) == pytest.approx(0.7 / 0.05)
    assert pace.left(0.9, 60.0) == pytest.approx(0.1 * 46.0 / 0.6)  # the last half minute, and the look before it
    assert pace.left(0.05, 61.0) is None  # other work
