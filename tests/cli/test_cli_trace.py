"""`tokopt trace`: reports, pictures, files that plans take, one JSON document, and one clear line for bad input."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from tokopt.cli import app
from tokopt.domain.trace_summaries import MadeTrace, TraceFit, TraceSummary

TRACES = Path(__file__).resolve().parents[2] / "examples" / "traces"
DAY = str(TRACES / "requests.csv")
HOUR = str(TRACES / "azure.csv")


def run(*arguments: str, columns: int = 100) -> Result:
    return CliRunner().invoke(app, ["trace", *arguments], env={"COLUMNS": str(columns)})


def answer(*arguments: str) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("trace") / "talk.csv")
    asked = ("--rate", "30req/s", "--duration", "11min", "--reuse", "prefix=2000x9,turns=3,gap=20s", "--isl", "5000")
    result = run("make", *asked, "--burstiness", "2", "--model", "llama-3.1-8b", "--out", path, "--quiet")
    assert result.exit_code == 0, result.output
    assert "requests in 11 min" in result.stdout and "reusable" in result.stdout
    return path


# --- summary ---


def test_a_summary_says_how_requests_come_and_how_long_they_are(talk: str) -> None:
    said = run("summary", talk).stdout
    for words in (
        "requests in 11 min",
        "tokopt trace",
        "Arrivals",
        "burstiness",
        "between neighbouring windows of",
        "variance / mean",
        "Lengths, tokens",
        "(req/s)",
        "█",
        "Prefix reuse",
        "an endless cache finds",
        "cached for 50, 90, 99 % of it",
    ):
        assert words in said, words
    assert "\x1b" not in said and "nan" not in said and "None" not in said
    assert not any(line.endswith(" ") for line in said.splitlines())


def test_a_summary_of_a_day_has_its_shape_and_its_classes() -> None:
    said = run("summary", DAY).stdout
    for words in ("Shape of the day", "hours counted from the start", "Classes", "batch", "chat", "▇"):
        assert words in said, words


@pytest.mark.parametrize("path", sorted(TRACES.iterdir()), ids=lambda path: path.name)
@pytest.mark.parametrize("columns", [60, 100, 200])
def test_every_format_has_a_report_that_fits_the_page(path: Path, columns: int) -> None:
    result = run("summary", str(path), columns=columns)
    assert result.exit_code == 0, result.output
    assert all(len(line) <= columns for line in result.stdout.splitlines())


def test_summary_json_contract(talk: str) -> None:
    found = TraceSummary.model_validate(answer("summary", talk))
    assert found.requests > 15_000 and found.format == "tokopt" and found.classes == ()
    assert found.arrivals.burstiness_from == "windows"
    assert found.reuse is not None and 0.3 < found.reuse.reusable_share < 0.9


def test_pictures_are_drawn_and_named(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for trace, names in (
        (DAY, {"arrivals.png", "bursts.png", "lengths.png", "reuse.png", "day.png"}),
        (HOUR, {"arrivals.png", "bursts.png", "lengths.png"}),
    ):
        folder = tmp_path / Path(trace).stem
        result = run("summary", trace, "--plots", str(folder))
        assert result.exit_code == 0, result.output
        assert {path.name for path in folder.iterdir()} == names
        for path in folder.iterdir():
            assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size < 150_000
            assert f"picture written to {path}" in result.stderr


@pytest.mark.parametrize("rows", ["0,5,5", "0,5,5\n0,7,9", "0,5,5\n1e-9,7,9", "0,999999999,1\n3e9,1,999999999"])
def test_odd_traces_have_reports_and_pictures(tmp_path: Path, rows: str) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "t.csv"
    path.write_text(f"time_s,input_tokens,output_tokens\n{rows}\n", encoding="utf-8")
    for more in ((), ("--json",), ("--plots", str(tmp_path))):
        result = run("summary", str(path), *more)
        assert result.exit_code == 0, result.output
        assert "nan" not in result.stdout.lower() and "inf" not in result.stdout.lower().replace("inference", "")


# --- fit ---


def test_a_fit_is_printed_as_a_file_that_plans_take(tmp_path: Path, talk: str) -> None:
    result = run("fit", talk, "--model", "qwen3-8b", "--sla", "tpot=40ms,ttft=2s", "--drop-long", "--name", "talks")
    assert result.exit_code == 0 and result.stderr == ""
    assert result.stdout.startswith(f"# From {talk}: ")
    path = tmp_path / "workloads.yaml"
    path.write_text(result.stdout, encoding="utf-8")
    fitted = yaml.safe_load(result.stdout)["workloads"]["talks"]
    assert fitted["model"] == "qwen3-8b" and fitted["reuse"].startswith("share=")
    planned = CliRunner().invoke(
        app, ["plan", "--workloads", str(path), "--gpu", "h100_sxm", "--prices", "aws", "--json"]
    )
    assert planned.exit_code == 0, planned.output
    assert json.loads(planned.stdout)["request"]["classes"][0]["name"] == "talks"


def test_a_fit_is_written_with_a_report(tmp_path: Path) -> None:
    path = tmp_path / "w.yaml"
    result = run("fit", DAY, "--model", "batch=llama-3.1-8b,chat=llama-3.1-70b", "--split", "2", "--out", str(path))
    assert result.exit_code == 0, result.output
    assert (
        f"workload written to {path}" in result.stderr and "Classes" in result.stdout and "24 periods" in result.stdout
    )
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert found["workloads"]["chat"]["model"] == "llama-3.1-70b" and found["workloads"]["chat"]["split"] == 2
    assert len(found["periods"]) == 24
    assert all(line.startswith("- {") for line in path.read_text().split("periods:\n")[1].splitlines())
    printed = TraceFit.model_validate(answer("fit", DAY, "--model", "llama-3.1-8b"))
    assert set(printed.workloads["workloads"]) == {"batch", "chat"}


def test_what_is_printed_and_what_json_says_are_the_same() -> None:
    asked = ("fit", HOUR, "--model", "llama-3.1-8b", "--split", "3", "--periods", "5")
    assert yaml.safe_load(run(*asked).stdout) == answer(*asked)["workloads"]


# --- make ---


def test_make_json_contract(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    found = MadeTrace.model_validate(answer("make", "--rate", "5req/s", "--duration", "100s", "--out", str(path)))
    assert found.requests == len(path.read_text(encoding="utf-8").splitlines()) - 1
    assert found.file == str(path) and found.seed == 1


def test_a_trace_is_made_of_a_fit(tmp_path: Path) -> None:
    fitted, made = tmp_path / "w.yaml", tmp_path / "t.csv.gz"
    assert run("fit", DAY, "--model", "llama-3.1-8b", "--out", str(fitted), "-q").exit_code == 0
    result = run("make", "--workloads", str(fitted), "--duration", "2d", "--out", str(made), "-q")
    assert result.exit_code == 0 and result.stderr == "", result.output
    assert {each["name"] for each in answer("summary", str(made))["classes"]} == {"batch", "chat"}


# --- bad input ---


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("summary",), "missing argument 'FILE'"),
        (("summary", "none.csv"), "none.csv: cannot be read: No such file"),
        (("summary", str(TRACES)), "is a directory; a file is needed"),
        (("summary", str(TRACES / "mooncake.jsonl"), "--plots", str(TRACES / "azure.csv")), "--plots"),
        (("summary", str(Path(__file__))), "no column of time"),
        (("fit", "none.csv"), "none.csv: cannot be read"),
        (("fit", HOUR, "--model", "qwen3-8c"), "did you mean"),
        (("fit", HOUR, "--model", "a=qwen3-8b,b"), "'b' is not understood; write it like chat="),
        (("fit", HOUR, "--model", "a=qwen3-8b,a=qwen3-8b"), "class a is given twice"),
        (("fit", HOUR, "--model", "a=qwen3-8b"), "--model: class"),
        (("fit", HOUR, "--split", "99"), "--split: 99 is not between 1 and 20"),
        (("fit", HOUR, "--split", "x"), "not a valid integer"),
        (("fit", HOUR, "--sla", "fast"), "--sla"),
        (("fit", HOUR, "--out", "none/w.yaml"), "there is no directory"),
        (("fit", DAY, "--periods", "4"), "--periods: the trace covers a day"),
        (("make",), "missing option '--out'"),
        (("make", "--out", "t.csv"), "missing option '--duration'"),
        (("make", "--out", "t.csv", "--duration", "1h"), "--rate is missing"),
        (("make", "--out", "none/t.csv", "--duration", "1h", "--rate", "1req/s"), "there is no directory"),
        (("make", "--out", "t.txt", "--duration", "1h", "--rate", "1req/s"), "ends in .csv or .csv.gz"),
        (("make", "--out", "t.csv", "--duration", "1y", "--rate", "1req/s"), "write it like 90s"),
        (("make", "--out", "t.csv", "--duration", "1h", "--rate", "1req"), "--rate: '1req'"),
        (("make", "--out", "t.csv", "--duration", "1h", "--workloads", "none.yaml"), "none.yaml: cannot be read"),
        (("make", "--out", "t.csv", "--duration", "1h", "--rate", "1req/s", "--seed", "-1"), "--seed"),
        (("mak",), "did you mean make?"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for more in ((), ("--json",)) if "mak" not in arguments else ((),):
        result = run(*arguments, *more)
        assert result.exit_code == 2, result.output
        assert said in result.stderr and result.stderr.count("\n") == 1 and result.stdout == ""
    assert not list(tmp_path.iterdir())


def test_disorder_is_refused_in_the_process_too(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("time_s,input_tokens,output_tokens\n5,5,5\n4,5,5\n", encoding="utf-8")
    command = [sys.executable, "-m", "tokopt", "trace", "summary", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("tokopt: error: ") and "row 3: 1 s before the request above it" in done.stderr
    done = subprocess.run([*command, "--allow-unsorted", "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and json.loads(done.stdout)["requests"] == 2 and done.stderr == ""
