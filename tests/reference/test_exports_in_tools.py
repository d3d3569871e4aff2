"""Exports and results as the tools' own packages take them. Each test needs its package, and is skipped without it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import tokopt
from export_scripts import calls, written
from result_files import Measured, aiperf, aiperf_records, guidellm
from tokopt.domain.plans import Plan
from tokopt.report.exports import benchmark, skypilot


@pytest.fixture(scope="module")
def busy() -> Plan:
    """A plan of requests that have a prefix in common and come in bursts."""
    return tokopt.plan(
        model="llama-3.1-8b", gpus="h100_sxm", power="30kW", sla="tpot=40ms", workload="chat", reuse="prefix=512x4"
    )


def bench(plan: Plan, folder: Path, tool: str = "aiperf") -> list[str]:
    """Write a benchmark into a folder and return the words of the tool's call."""
    export = tokopt.export_plan(plan, to="benchmark", tool=tool)
    assert export.version == benchmark.VERSIONS[tool]
    return calls(written(export.files, folder), "benchmark.sh")[-1]


@pytest.mark.parametrize("which", ["chat_plan", "busy"])
def test_aiperf_takes_its_command_and_requests(which: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    pytest.importorskip("aiperf")
    from aiperf.cli_commands import profile
    from aiperf.config.flags.converter import convert_cli_to_aiperf
    from aiperf.dataset.loader.models import MooncakeTrace

    plan = request.getfixturevalue(which)
    item = plan.fleet[0]
    words = bench(plan, tmp_path)
    _, bound, *_ = profile.app.parse_args(words[2:], print_error=False, exit_on_error=False)
    config = convert_cli_to_aiperf(bound.arguments["cli_config"]).model_dump(mode="json", exclude_none=True)[
        "benchmark"
    ]
    measured = next(phase for phase in config["phases"] if phase.get("kind") == "profiling")
    assert measured["type"] == "poisson" and measured["rate"] == pytest.approx(
        item.requests_per_s / item.replicas, rel=1e-5
    )
    assert config["endpoint"]["streaming"] and config["endpoint"]["extra"] == {"ignore_eos": True}
    lines = (tmp_path / "requests.jsonl").read_text().splitlines()
    assert measured["requests"] == len(lines)
    for line in lines:
        MooncakeTrace.model_validate_json(line)


@pytest.mark.parametrize("which", ["chat_plan", "busy"])
def test_guidellm_takes_its_scenario(which: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    pytest.importorskip("guidellm")
    from guidellm.schemas.benchmark import BenchmarkScenario

    bench(request.getfixturevalue(which), tmp_path, "guidellm")
    scenario = BenchmarkScenario.model_validate_json((tmp_path / "scenario.json").read_text())
    spec = scenario.spec.model_dump(mode="json")
    assert spec["profile"]["kind"] == "replay" and spec["profile"]["schedule_turn"] == "timestamp"
    assert spec["data"][0]["source"]["path"] == "requests.jsonl"
    assert spec["outputs"][0]["kind"] == "json"


def test_skypilot_takes_its_tasks(tmp_path: Path) -> None:
    pytest.importorskip("sky")
    from sky.skylet import constants
    from sky.utils import common_utils, schemas

    asked = {"model": "llama-3.1-8b", "demand": "50req/s", "workload": "chat", "sla": "tpot=40ms"}
    plan = tokopt.plan(prices="aws,gcp,lambda", **asked)
    for file in tokopt.export_plan(plan, to="skypilot").files:
        if file.name.endswith(".yaml") and "skypilot" in file.name:
            task = yaml.safe_load(file.content)
            common_utils.validate_schema(task, schemas.get_task_schema(), "task: ")
            common_utils.validate_schema(task["resources"], schemas.get_resources_schema(), "resources: ")
            common_utils.validate_schema(task["service"], schemas.get_service_schema(), "service: ")
    assert set(skypilot.CLOUDS) <= set(constants.ALL_CLOUDS)


def test_results_of_aiperf_are_as_it_writes_them(tmp_path: Path) -> None:
    pytest.importorskip("aiperf")
    from aiperf.common.models.export_models import JsonExportData
    from aiperf.config.config import BenchmarkConfig

    document = aiperf(Measured(concurrency=16))
    config = document["input_config"]
    checked = BenchmarkConfig.model_validate(config).model_dump(mode="json", exclude_unset=True, exclude_none=True)
    own = JsonExportData.model_validate({**document, "input_config": checked})
    path = tmp_path / "profile_export_aiperf.json"
    path.write_text(json.dumps(own.model_dump(mode="json", exclude_unset=True, exclude_none=True)))
    (row,) = tokopt.import_results("aiperf", path, accelerator="h100", framework="vllm", precision="fp8").rows
    assert row["concurrency_or_batch"] == 16 and row["tpot_ms"] == pytest.approx(9.5) and row["model"] == "qwen3-8b"


def test_records_of_aiperf_are_as_it_writes_them() -> None:
    pytest.importorskip("aiperf")
    from aiperf.common.models.record_models import MetricRecordMetadata, MetricValue

    for line in aiperf_records(Measured(requests=3)).splitlines():
        record = json.loads(line)
        assert set(record["metadata"]) <= set(MetricRecordMetadata.model_fields)
        for value in record["metrics"].values():
            MetricValue.model_validate(value)


def test_reports_of_guidellm_have_its_fields() -> None:
    pytest.importorskip("guidellm")
    from guidellm.benchmark.schemas.metrics import GenerativeMetrics
    from guidellm.schemas.base.statistics import DistributionSummary, Percentiles

    (made,) = guidellm(Measured())["benchmarks"]
    assert set(made["metrics"]) <= set(GenerativeMetrics.model_fields)
    for summary in (value["successful"] for name, value in made["metrics"].items() if name != "request_totals"):
        assert set(summary) <= set(DistributionSummary.model_fields)
        assert set(summary["percentiles"]) <= set(Percentiles.model_fields)


def test_strategies_of_guidellm_state_their_load() -> None:
    pytest.importorskip("guidellm")
    from guidellm.scheduler import strategies

    stated: dict[str, Any] = {
        "concurrent": strategies.ConcurrentStrategy(streams=8).model_dump(mode="json"),
        "poisson": strategies.AsyncPoissonStrategy(rate=2.5).model_dump(mode="json"),
    }
    assert stated["concurrent"]["streams"] == 8 and stated["poisson"]["rate"] == 2.5
    assert {load["type_"] for load in stated.values()} == {"concurrent", "poisson"}
