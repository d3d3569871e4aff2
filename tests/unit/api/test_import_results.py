"""Results of benchmarks as rows of measurements: every tool, what it does not say, and what `validate` says of them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

import tokopt
from result_files import Measured, aiperf, aiperf_csv, aiperf_records, guidellm, inferencex, vllm_bench
from tokopt.api.importing import _stated
from tokopt.domain.plans import ItemPeriod, Plan

RUN = Measured()
SAID: dict[str, Any] = {"accelerator": "h100", "framework": "vllm", "precision": "fp8", "tp": 1}
WRITERS: dict[str, tuple[str, Callable[[Measured], str]]] = {
    "aiperf": ("profile_export_aiperf.json", lambda run: json.dumps(aiperf(run))),
    "guidellm": ("benchmarks.json", lambda run: json.dumps(guidellm(run))),
    "vllm-bench": ("result.json", lambda run: json.dumps(vllm_bench(run))),
    "inferencex": ("agg_bmk.json", lambda run: json.dumps([inferencex(run)])),
}
OPEN = [tool for tool in WRITERS if tool != "inferencex"]


def result(tool: str, run: Measured, folder: Path) -> Path:
    name, written = WRITERS[tool]
    path = folder / name
    path.write_text(written(run), encoding="utf-8")
    return path


@pytest.mark.parametrize("tool", WRITERS)
def test_rows_say_what_was_measured(tool: str, tmp_path: Path) -> None:
    (row,) = tokopt.import_results(tool, result(tool, RUN, tmp_path), **SAID).rows
    assert row["vendor_system"] == "h100_sxm" and row["model"] == "qwen3-8b" and row["framework"] == "vllm"
    assert row["weight_precision"] == "fp8" and row["n_gpus"] == 1 and row["tp"] == 1
    assert (row["isl"], row["osl"], row["concurrency_or_batch"]) == (RUN.isl, RUN.osl, RUN.concurrency)
    assert row["ttft_ms"] == pytest.approx(RUN.ttft_ms) and row["tpot_ms"] == pytest.approx(RUN.tpot_ms)
    assert row["output_tok_s_per_gpu"] == pytest.approx(RUN.output_tok_per_s)
    assert row["tok_s_user"] == pytest.approx(1000.0 / RUN.tpot_ms)
    assert row["stat"] == "mean" and row["id"].startswith(f"{tool}:")  # type: ignore[union-attr]
    assert tool == "inferencex" or row["measured_date"] == "2026-11-29"


@pytest.mark.parametrize("tool", WRITERS)
@pytest.mark.parametrize(("stat", "factor"), [("p50", 0.95), ("p99", 1.5)])
def test_another_statistic_is_taken_where_it_is_asked_for(tool: str, stat: str, factor: float, tmp_path: Path) -> None:
    (row,) = tokopt.import_results(tool, result(tool, RUN, tmp_path), stat=stat, **SAID).rows
    assert row["ttft_ms"] == pytest.approx(RUN.ttft_ms * factor)
    assert row["tpot_ms"] == pytest.approx(RUN.tpot_ms * factor)
    assert row["stat"] == stat


@pytest.mark.parametrize("tool", WRITERS)
def test_validate_answers_what_was_imported(tool: str, tmp_path: Path) -> None:
    asked = {"vendor_system": "h100_sxm", "model": "qwen3-8b", "framework": "vllm", "weight_precision": "fp8", "tp": 1,
             "isl": RUN.isl, "osl": RUN.osl, "concurrency_or_batch": 32}  # fmt: skip
    (told,) = tokopt.estimate_many(pl.DataFrame([asked])).rows(named=True)
    run = Measured(
        ttft_ms=told["predicted_ttft_ms"],
        tpot_ms=told["predicted_tpot_ms"],
        requests_per_s=told["predicted_output_tok_s_per_gpu"] / RUN.osl,
    )
    out = tmp_path / "rows.csv"
    tokopt.import_results(tool, result(tool, run, tmp_path), out=out, **SAID)
    found = tokopt.validate(out)
    assert found.answered == found.rows == 1
    errors = {figure: error for figure, error in found.overall.mape.items() if error is not None}
    assert set(errors) >= {"output_tok_s_per_gpu", "ttft_ms", "tpot_ms"}
    assert all(error < 1.0 for error in errors.values()), errors
    table = pl.read_csv(tmp_path / "rows.csv")
    assert table.height == 1 and table["ttft_ms"][0] == pytest.approx(run.ttft_ms)


@pytest.mark.parametrize("tool", OPEN)
def test_an_open_loop_counts_by_what_was_in_flight(tool: str, tmp_path: Path) -> None:
    run = Measured(concurrency=None, rate=6.0, requests_per_s=5.9)
    found = tokopt.import_results(tool, result(tool, run, tmp_path), **SAID)
    (row,) = found.rows
    assert row["request_rate"] == 6.0
    assert row["concurrency_or_batch"] == pytest.approx(6.0 * run.e2e_ms / 1e3, rel=0.03)
    assert row["output_tok_s_per_gpu"] == pytest.approx(run.output_tok_per_s)
    assert "in flight on average" in found.notes[0]


@pytest.mark.parametrize("tool", OPEN)
def test_throughput_that_tells_of_start_and_end_is_left_out(tool: str, tmp_path: Path) -> None:
    run = Measured(concurrency=None, rate=6.0, requests_per_s=4.0)
    found = tokopt.import_results(tool, result(tool, run, tmp_path), **SAID)
    assert found.rows[0].get("output_tok_s_per_gpu") is None and found.rows[0]["tpot_ms"] == pytest.approx(run.tpot_ms)
    assert any("its throughput is left out" in note for note in found.notes)


def test_aiperf_is_read_as_csv_and_as_records_too(tmp_path: Path) -> None:
    (tmp_path / "profile_export_aiperf.csv").write_text(aiperf_csv(RUN))
    (tmp_path / "profile_export.jsonl").write_text(aiperf_records(RUN))
    (row,) = tokopt.import_results(
        "aiperf", tmp_path / "profile_export_aiperf.csv", model="qwen3-8b", concurrency=32, **SAID
    ).rows
    assert row["tpot_ms"] == pytest.approx(RUN.tpot_ms) and row["concurrency_or_batch"] == 32
    found = tokopt.import_results("aiperf", tmp_path / "profile_export.jsonl", model="qwen3-8b", **SAID)
    (row,) = found.rows
    assert row["ttft_ms"] == pytest.approx(RUN.ttft_ms) and row["isl"] == RUN.isl
    assert row["concurrency_or_batch"] == pytest.approx(32, rel=1e-3)
    rate = 32 / (RUN.e2e_ms / 1e3)
    assert row["output_tok_s_per_gpu"] == pytest.approx(rate * RUN.osl, rel=1e-6)
    assert any("1 of 641 requests failed" in note for note in found.notes)


def test_a_run_that_was_cut_short_or_failed_in_part_is_told(tmp_path: Path) -> None:
    path = tmp_path / "profile_export_aiperf.json"
    path.write_text(json.dumps(aiperf(Measured(failed=7)) | {"is_complete": False}))
    notes = tokopt.import_results("aiperf", path, **SAID).notes
    assert any("was cut short" in note for note in notes) and any("7 of 647 requests failed" in note for note in notes)


def test_guidellm_is_read_as_yaml_with_a_row_a_load(tmp_path: Path) -> None:
    path = tmp_path / "benchmarks.yaml"
    path.write_text(yaml.safe_dump(guidellm(RUN, Measured(concurrency=64, tpot_ms=14.0))))
    rows = tokopt.import_results("guidellm", path, **SAID).rows
    assert [row["concurrency_or_batch"] for row in rows] == [32, 64]
    assert [row["tpot_ms"] for row in rows] == [RUN.tpot_ms, 14.0]


def test_appended_results_of_vllm_are_rows(tmp_path: Path) -> None:
    path = tmp_path / "appended.json"
    path.write_text("\n".join(json.dumps(vllm_bench(Measured(concurrency=c))) for c in (8, 16, 32)))
    rows = tokopt.import_results("vllm-bench", [path, path], **SAID).rows
    assert [row["concurrency_or_batch"] for row in rows] == [8, 16, 32, 8, 16, 32]


def test_inferencex_rows_of_two_pools_are_by_all_accelerators(tmp_path: Path) -> None:
    pools = {
        "disagg": True, "is_multinode": True, "framework": "dynamo-trt", "hw": "gb200", "precision": "fp4",
        "model": "nvidia/DeepSeek-R1-0528-FP4-v2", "spec_decoding": "mtp", "tp": None,
        "prefill_tp": 4, "prefill_ep": 4, "prefill_dp_attention": "true", "prefill_num_workers": 3,
        "decode_tp": 8, "decode_ep": 8, "decode_dp_attention": True, "decode_num_workers": 1,
        "num_prefill_gpu": 12, "num_decode_gpu": 8,
    }  # fmt: skip
    path = tmp_path / "agg.json"
    path.write_text(json.dumps([inferencex(RUN, **pools)]))
    (row,) = tokopt.import_results("inferencex", path, model="deepseek-r1").rows
    assert row["output_tok_s_per_gpu"] == pytest.approx(RUN.output_tok_per_s / 20)
    assert (row["prefill_workers"], row["prefill_dp"], row["prefill_tp"], row["decode_ep"]) == (3, 4, 1, 8)
    assert row["framework"] == "tensorrt-llm" and row["weight_precision"] == "nvfp4" and row["n_gpus"] == 20
    assert tokopt.validate(pl.DataFrame([row])).answered == 1


def test_rows_of_inferencex_s_data_base_are_read(tmp_path: Path) -> None:
    flat = inferencex(RUN)
    metrics = {
        name: flat.pop(name) for name in list(flat) if name.startswith(("mean", "median", "p99", "tput", "output"))
    }
    row = {**flat, "hardware": flat.pop("hw"), "metrics": metrics, "date": "2026-03-01"}
    row |= {"decode_tp": 1, "decode_ep": 1, "decode_dp_attention": False, "tp": None}
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([row]))
    (found,) = tokopt.import_results("inferencex", path, stat="p50").rows
    assert found["ttft_ms"] == pytest.approx(RUN.ttft_ms * 0.95) and found["measured_date"] == "2026-03-01"


def test_a_plan_says_what_its_replica_was(chat_plan: Plan, tmp_path: Path) -> None:
    item = chat_plan.fleet[0]
    run = Measured(model="anything", concurrency=None, rate=item.requests_per_s / item.replicas)
    found = tokopt.import_results("aiperf", result("aiperf", run, tmp_path), plan=chat_plan)
    (row,) = found.rows
    assert row["model"] == item.model and row["vendor_system"] == item.accelerator
    assert row["weight_precision"] == item.precision and row["kv_precision"] == item.kv_precision
    assert row["n_gpus"] == item.gpus_per_replica and row["tp"] == item.tp
    assert row["speculative"] == (item.deployment.speculator or "mtp" if item.deployment.speculation_depth else "none")
    (other,) = tokopt.import_results("aiperf", result("aiperf", run, tmp_path), plan=chat_plan, tp=2, dp=2).rows
    assert other["n_gpus"] == 4 and other["tp"] == 2


def test_requests_at_stated_times_came_at_the_planned_rate(chat_plan: Plan, tmp_path: Path) -> None:
    document = aiperf(Measured(concurrency=None, rate=1.0, requests_per_s=1.0))
    document["input_config"]["phases"] = [{"name": "profiling", "kind": "profiling", "type": "fixed_schedule"}]
    path = tmp_path / "profile_export_aiperf.json"
    path.write_text(json.dumps(document))
    (row,) = tokopt.import_results("aiperf", path, plan=chat_plan).rows
    assert row["request_rate"] == chat_plan.fleet[0].requests_per_s / chat_plan.fleet[0].replicas


def test_a_plan_of_two_pools_says_both(tmp_path: Path) -> None:
    plan = tokopt.plan(power="2MW", sla="50ms", frameworks="vllm", modes="disagg")
    item = plan.fleet[0]
    (row,) = tokopt.import_results("guidellm", result("guidellm", RUN, tmp_path), plan=plan).rows
    assert item.deployment.prefill is not None and item.deployment.decode is not None
    assert row["serving_mode"] == "disagg" and row["prefill_workers"] == item.deployment.prefill.workers
    assert row["decode_ep"] == item.deployment.decode.layout.ep
    assert row["mtp_depth"] == item.deployment.speculation_depth
    assert row["output_tok_s_per_gpu"] == pytest.approx(RUN.output_tok_per_s / item.gpus_per_replica)
    assert tokopt.validate(pl.DataFrame([row])).answered == 1


BROKEN: list[tuple[str, Any, str]] = [
    ("aiperf", {}, "is no result of AIPerf: time_to_first_token and output_token_throughput are missing"),
    ("aiperf", [1], r"\[0\]: a result of AIPerf is needed, not a number"),
    ("aiperf", aiperf(RUN) | {"time_to_first_token": {"unit": "parsec", "avg": 1}}, "token.unit: 'parsec' is no"),
    ("aiperf", aiperf(RUN) | {"inter_token_latency": {"unit": "ms", "avg": -1}}, "latency.avg: -1 is not a"),
    ("guidellm", {"metadata": {}}, "benchmarks: missing"),
    ("guidellm", guidellm(RUN) | {"benchmarks": []}, "benchmarks: is empty"),
    ("guidellm", guidellm(RUN) | {"benchmarks": [{}]}, r"benchmarks\[0\].metrics: missing"),
    ("guidellm", guidellm(RUN) | {"benchmarks": "x"}, "benchmarks: a list is needed, not a text"),
    ("vllm-bench", {"completed": 0}, "completed: no request was answered"),
    ("vllm-bench", vllm_bench(RUN) | {"completed": "many"}, "completed: 'many' is not a number"),
    ("vllm-bench", {k: v for k, v in vllm_bench(RUN).items() if k != "output_throughput"}, "put: missing"),
    ("inferencex", [inferencex(RUN) | {"tp": 0}], "tp: 1 or more is needed"),
    ("inferencex", [inferencex(RUN, dp_attention="maybe")], "dp_attention: true or false is needed"),
    ("inferencex", [inferencex(RUN) | {"tp": 1e300}], "tp: 1 or more is needed, whole and up to"),
    ("inferencex", [inferencex(RUN) | {"tp": 1.5}], "tp: 1 or more is needed, whole"),
    ("vllm-bench", vllm_bench(RUN) | {"completed": 10**400}, "completed: 1000.* is not a number of 0 or more"),
    ("inferencex", [inferencex(RUN) | {"hw": "abacus"}], "vendor_system: unknown accelerator 'abacus'"),
]  # fmt: skip


@pytest.mark.parametrize(("tool", "document", "message"), BROKEN)
def test_errors_name_file_and_field(tool: str, document: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.json"
    path.write_text(json.dumps(document))
    said = SAID if tool != "inferencex" else {}
    with pytest.raises(tokopt.InputError, match=message) as error:
        tokopt.import_results(tool, path, **said)
    assert "broken.json" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({}, "does not say the accelerator: give --accelerator"),
        ({"accelerator": "h100"}, "does not say the framework: give --framework"),
        (SAID | {"stat": "p42"}, "--stat: 'p42' is not one of mean"),
        (SAID | {"tp": 0}, "--tp: 0 is not 1 or more"),
        (SAID | {"tp": 10**6, "pp": 2}, "the layout has more than 1,000,000 accelerators"),
        (SAID | {"gpus": 10**30}, "--gpus: 1000.* is not 1 or more, up to 1,000,000"),
        (SAID | {"concurrency": -7.0}, "--concurrency: -7 is not a number above 0"),
        (SAID | {"rate": math.nan}, "--rate: nan is not a number above 0"),
        (SAID | {"isl": math.inf}, "--isl: inf is not a number above 0"),
        (SAID | {"prefix_share": 7.0}, "--prefix-share: 7 is not a share between 0 and 1"),
        (SAID | {"prefill": "2xtp4", "decode": "1xtp8"}, "--tp is of one pool"),
        (SAID | {"model": "nobodys"}, "model: unknown model|model: .*nobodys"),
        (SAID | {"item": 1}, "--item goes with --plan"),
    ],
)
def test_what_nobody_says_is_asked_for(said: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(tokopt.InputError, match=message) as error:
        tokopt.import_results("aiperf", result("aiperf", RUN, tmp_path), **said)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["", "{", "[" * 100_000, "\x00\x01", '{"a": NaN}', "null", "3"])
@pytest.mark.parametrize("tool", WRITERS)
def test_files_that_are_no_results_are_one_line(tool: str, content: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.json"
    path.write_text(content)
    with pytest.raises(tokopt.InputError, match=r"odd\.json") as error:
        tokopt.import_results(tool, path, **SAID)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("tool", "name", "content"),
    [
        ("vllm-bench", "digits.json", '{"completed": ' + "9" * 5000 + "}"),
        ("vllm-bench", "digits.jsonl", '{"a": 1}\n{"completed": ' + "9" * 5000 + "}"),
        ("guidellm", "date.yaml", "benchmarks: 2026-99-99"),
        ("guidellm", "deep.yaml", "[" * 3000),
        ("guidellm", "digits.yaml", "benchmarks: " + "9" * 5000),
        ("guidellm", "hex.yaml", "benchmarks: [{metrics: {request_totals: {successful: 0x" + "9" * 5000 + "}}}]"),
        ("guidellm", "types.yaml", "benchmarks: !!bool perhaps"),
        ("guidellm", "empty.yaml", "benchmarks: !!int ''"),
        ("guidellm", "time.yaml", "benchmarks: !!timestamp soon"),
        ("aiperf", "field.csv", "Metric,avg\n" + "x" * 200_000 + ",1\n"),
    ],
)
def test_hostile_files_are_one_line(tool: str, name: str, content: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(tokopt.InputError, match=name.replace(".", r"\.")) as error:
        tokopt.import_results(tool, path, **SAID)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_lengths_and_load_are_the_file_s_where_it_says_them(tmp_path: Path) -> None:
    given = {"concurrency": 7.0, "isl": 5.0, "osl": 6.0}
    (row,) = tokopt.import_results("vllm-bench", result("vllm-bench", RUN, tmp_path), rate=3.0, **given, **SAID).rows
    assert (row["concurrency_or_batch"], row["isl"], row["osl"]) == (RUN.concurrency, RUN.isl, RUN.osl)
    assert row.get("request_rate") is None
    run = Measured(concurrency=None, rate=6.0, requests_per_s=5.9)
    (row,) = tokopt.import_results("vllm-bench", result("vllm-bench", run, tmp_path), rate=3.0, **given, **SAID).rows
    assert row["request_rate"] == 6.0 and row["concurrency_or_batch"] == 7.0
    run = Measured(concurrency=None, rate=None)
    (row,) = tokopt.import_results("vllm-bench", result("vllm-bench", run, tmp_path), rate=3.0, **given, **SAID).rows
    assert row["request_rate"] == 3.0 and row["concurrency_or_batch"] == 7.0


def test_a_plan_with_periods_is_imported_at_its_busiest(chat_plan: Plan, tmp_path: Path) -> None:
    day = ItemPeriod.model_construct(units=chat_plan.fleet[0].units, load=0.9, requests_per_s=77.0)
    item = chat_plan.fleet[0].model_copy(update={"by_period": (day,)})
    stated = _stated(tokopt.load_catalog(), {}, None, chat_plan.model_copy(update={"fleet": (item,)}), 1)
    assert stated.rate == 77.0 / item.replicas != item.requests_per_s / item.replicas


def test_inferencex_rows_count_all_workers(tmp_path: Path) -> None:
    several = {"tp": None, "decode_tp": 8, "decode_ep": 1, "decode_num_workers": 2, "num_decode_gpu": 16}
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([inferencex(RUN, **several)]))
    (row,) = tokopt.import_results("inferencex", path).rows
    assert row["n_gpus"] == 16 and row["tp"] == 8


@pytest.mark.parametrize("wrong", [{"num_decode_gpu": 0}, {"prefill_num_workers": 0.5}, {"decode_num_workers": 0}])
def test_inferencex_pools_have_workers_and_accelerators(wrong: dict[str, float], tmp_path: Path) -> None:
    pools = {"disagg": True, "num_prefill_gpu": 8, "num_decode_gpu": 8}
    for pool in ("prefill", "decode"):
        pools |= {f"{pool}_tp": 8, f"{pool}_ep": 1, f"{pool}_num_workers": 1}
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([inferencex(RUN, **pools, tp=None) | wrong]))
    with pytest.raises(tokopt.InputError, match=f"{next(iter(wrong))}: 1 or more is needed"):
        tokopt.import_results("inferencex", path)
