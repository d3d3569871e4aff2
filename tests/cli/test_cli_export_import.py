"""`tokopt export` and `tokopt import` as they are typed: files, JSON, exit statuses, and one line for every error."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

import tokopt
from result_files import Measured, aiperf, vllm_bench
from tokopt.cli import app
from tokopt.domain.exporting import Export
from tokopt.domain.plans import Plan


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_files_are_written_into_a_folder(chat_plan_file: str, tmp_path: Path) -> None:
    out = tmp_path / "new" / "deploy"
    done = run("export", chat_plan_file, "--to", "vllm", "--out", str(out))
    assert done.exit_code == 0, done.output
    assert {path.name for path in out.iterdir()} == {"serve.sh", "node.sh", "router.sh"}
    assert all(os.access(path, os.X_OK) for path in out.iterdir())
    assert "serve.sh" in done.stdout and "To know" in done.stdout
    assert done.stderr.count("written to") == 3


def test_one_file_is_printed_or_written_under_its_name(chat_plan_file: str, tmp_path: Path) -> None:
    printed = run("export", chat_plan_file, "--to", "dynamo")
    assert printed.exit_code == 0 and yaml.safe_load(printed.stdout)["kind"] == "DynamoGraphDeployment"
    assert "note: " in printed.stderr
    file = tmp_path / "mine.yaml"
    written = run("export", chat_plan_file, "--to", "dynamo", "--out", str(file), "--quiet")
    assert written.exit_code == 0 and file.read_text() == printed.stdout and written.stderr == ""


def test_json_is_one_document(chat_plan_file: str, chat_plan: Plan) -> None:
    done = run("export", chat_plan_file, "--to", "benchmark", "--tool", "guidellm", "--json")
    found = Export.model_validate_json(done.stdout)
    assert done.exit_code == 0 and found == tokopt.export_plan(chat_plan, to="benchmark", tool="guidellm")
    assert [file.name for file in found.files] == ["benchmark.sh", "scenario.json", "requests.jsonl"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--to", "skypilot"), "item 1 is owned hardware"),
        (("--to", "kubernetes"), "--to: 'kubernetes' is not one of"),
        (("--to", "vllm", "--item", "7"), "--item 7: the plan's fleet has 1"),
        (("--to", "vllm", "--tool", "guidellm"), "--tool guidellm goes with --to benchmark"),
        (("--to", "benchmark", "--tool", "wrk"), "--tool: 'wrk' is not one of aiperf, guidellm"),
        (("--to", "vllm", "--out", "PLAN"), "is a file; a folder is needed"),
    ],
)
def test_what_cannot_be_exported_is_one_line(arguments: tuple[str, ...], message: str, chat_plan_file: str) -> None:
    done = run("export", chat_plan_file, *(chat_plan_file if word == "PLAN" else word for word in arguments))
    assert done.exit_code == 2 and message in done.stderr
    assert done.stdout == "" or message.startswith("is a file")
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_plan_that_is_none_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "odd.json").write_text("{}")
    done = run("export", str(tmp_path / "odd.json"), "--to", "vllm")
    assert done.exit_code == 2 and "odd.json: not a plan" in done.stderr


def test_a_plan_without_a_fleet_is_one_line(tmp_path: Path) -> None:
    plan = tokopt.plan(model="qwen3-8b", gpus="h100_sxm", workload="chat", power="50kW", sla="tpot=0.1ms")
    (tmp_path / "none.json").write_text(plan.model_dump_json())
    done = run("export", str(tmp_path / "none.json"), "--to", "vllm")
    assert done.exit_code == 2 and "has no fleet" in done.stderr


def test_a_benchmark_of_a_plan_comes_back_as_a_row(chat_plan_file: str, chat_plan: Plan, tmp_path: Path) -> None:
    bench = tmp_path / "bench"
    assert run("export", chat_plan_file, "--to", "benchmark", "--out", str(bench)).exit_code == 0
    item = chat_plan.fleet[0]
    rate = item.requests_per_s / item.replicas
    lengths = [json.loads(line) for line in (bench / "requests.jsonl").read_text().splitlines()]
    measured = Measured(
        isl=sum(each["input_length"] for each in lengths) / len(lengths),
        osl=sum(each["output_length"] for each in lengths) / len(lengths),
        requests=len(lengths),
        concurrency=None,
        rate=rate,
        requests_per_s=rate * 0.98,
        ttft_ms=item.ttft_ms.mean,
        tpot_ms=item.tpot_ms.mean,
    )
    result = bench / "profile_export_aiperf.json"
    result.write_text(json.dumps(aiperf(measured)))
    rows = tmp_path / "rows.csv"
    done = run("import", "aiperf", str(result), "--plan", chat_plan_file, "--item", "1", "--out", str(rows))
    assert done.exit_code == 0, done.output
    assert item.accelerator in done.stdout and "1 row written to" in done.stderr
    answer = json.loads(run("validate", str(rows), "--json").stdout)
    assert answer["answered"] == answer["rows"] == 1
    assert answer["overall"]["mape"]["ttft_ms"] is not None and answer["overall"]["mape"]["tpot_ms"] is not None


def test_import_prints_one_document(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text(json.dumps(vllm_bench(Measured())))
    said = ("--gpu", "h100", "--framework", "vllm", "--precision", "fp8", "--tp", "1")
    done = run("import", "vllm-bench", str(path), *said, "--json")
    found = json.loads(done.stdout)
    assert done.exit_code == 0 and found["tool"] == "vllm-bench" and len(found["rows"]) == 1
    assert found["rows"][0]["concurrency_or_batch"] == 32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("aiperf", "RESULT"), "is no result of AIPerf"),
        (("vllm-bench", "RESULT"), "does not say the accelerator: give --accelerator"),
        (("wrk", "RESULT"), "tool: 'wrk' is not one of aiperf"),
        (("vllm-bench", "nowhere.json"), "nowhere.json: cannot be read"),
        (("vllm-bench", "RESULT", "--item", "1"), "--item goes with --plan"),
    ],
)
def test_what_cannot_be_imported_is_one_line(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text(json.dumps(vllm_bench(Measured())))
    done = run("import", *(str(path) if word == "RESULT" else word for word in arguments))
    assert done.exit_code == 2 and message in done.stderr and done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
