"""`perf="silicon"`: other step times under the same queueing, next to the model's answer or instead of it.

Most of it is tested with made-up tables, so that it holds where the package is not installed.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner

import tokopt
from tokopt import InputError
from tokopt.api import estimate_table, second_opinion
from tokopt.cli import app
from tokopt.domain.estimates import Estimate
from tokopt.perf.layouts import Layouts
from tokopt.perf.serving import lengths, steady_state
from tokopt.silicon import SiliconSteps
from tokopt.silicon.steps import Answers
from tokopt.silicon.tables import Detail, Tables, grid, line

ASKED: dict[str, Any] = {"model": "llama-3.1-8b", "gpu": "h100_sxm", "framework": "vllm", "precision": "bf16"}
LOAD: dict[str, Any] = {"isl": 1000, "osl": 200, "concurrency": 16}
ROW = {
    "id": "mine:a",
    "vendor_system": "h100_sxm",
    "model": "llama-3.1-8b",
    "framework": "vllm",
    "weight_precision": "bf16",
    "isl": 1000.0,
    "osl": 200.0,
    "tp": 1.0,
    "concurrency_or_batch": 16.0,
    "tpot_ms": 10.0,
}
STEP_S = 4e-3
DETAIL = Detail(knots_a_doubling=1, most_misfit=0.1)
SOURCE = {"package": "made-up 1.0", "system": "h100_sxm", "backend": "vllm", "version": "9.9"}


def tables(step_s: float = STEP_S) -> Tables:
    knots, many = DETAIL.knots(512.0), DETAIL.knots(2.0**17)
    nothing = grid(lambda _load, _context: 0.0, knots, many)
    return Tables(
        decode=line(lambda _: [step_s, 0.0, 0.0, 0.0], knots, 0.1),
        decode_attention=nothing,
        prefill=line(lambda tokens: [step_s + 1e-6 * tokens, 0.0, 0.0, 0.0], many, 0.1),
        prefill_attention=nothing,
    )


def answers(key: tuple[int, ...]) -> Answers:
    tp, _, _, _, depth = key
    if tp == 4:
        return Answers(reason="no data of tp=4")
    if tp == 8:
        return Answers(tables=tables(math.nan), mode="SILICON", checkpoint="made up")
    return Answers(tables=tables(STEP_S * (1 + depth)), mode="HYBRID" if tp == 2 else "SILICON", checkpoint="made up")


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def source(llm: Any, accelerator: Any, *_: Any) -> SiliconSteps:
        if accelerator.name != "h100_sxm":
            raise InputError(f"made-up has no data of accelerator {accelerator.name}")
        return SiliconSteps(answers, SOURCE)

    monkeypatch.setattr(second_opinion, "step_source", source)
    monkeypatch.setattr(second_opinion, "require_package", lambda: None)


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiconfigurator_core", None)


def frame(*changes: dict[str, Any]) -> pl.DataFrame:
    rows = [{**ROW, "id": f"mine:{n}", **change} for n, change in enumerate(changes)]
    return pl.DataFrame(rows, infer_schema_length=None, strict=False)


# --- one deployment ---


def test_the_database_replaces_step_times_and_nothing_else(catalog: Any, made_up: None) -> None:
    own = tokopt.estimate(**ASKED, **LOAD, catalog=catalog)
    theirs = tokopt.estimate(**ASKED, **LOAD, catalog=catalog, perf="silicon")
    assert theirs.tpot_ms is not None and own.tpot_ms is not None
    assert theirs.tpot_ms.mean == pytest.approx(1e3 * STEP_S, rel=0.3)
    assert theirs.tpot_ms.mean != own.tpot_ms.mean
    assert (theirs.memory_gib, theirs.running_cap) == (own.memory_gib, own.running_cap)
    assert theirs.bottleneck_shares["launch and scheduling"] == 0.0
    assert sum(theirs.bottleneck_shares.values()) == pytest.approx(1.0)
    assert theirs.interval == {} and own.interval
    assert own.provenance.operator_database is None
    used = theirs.provenance.operator_database
    assert used is not None and (used.package, used.version, used.mode) == ("made-up 1.0", "9.9", "SILICON")
    assert theirs.second_opinion is None and own.second_opinion is None


@pytest.mark.parametrize(
    "load",
    [LOAD, {"isl": 1000, "osl": 200, "rate": "2req/s"}, {"isl": 1000, "osl": 200, "rate": "100000req/s"}],
    ids=["closed", "open", "overload"],
)
def test_both_answers_side_by_side(catalog: Any, made_up: None, load: dict[str, Any]) -> None:
    own = tokopt.estimate(**ASKED, **load, catalog=catalog)
    theirs = tokopt.estimate(**ASKED, **load, catalog=catalog, perf="silicon")
    both = tokopt.estimate(**ASKED, **load, catalog=catalog, perf="both")
    opinion = both.second_opinion
    assert opinion is not None and opinion.source == "silicon"
    assert both.model_copy(update={"second_opinion": None}) == own
    for figure in ("ttft_ms", "tpot_ms", "e2e_ms", "requests_per_s", "output_tokens_per_s_per_gpu"):
        assert getattr(opinion, figure) == getattr(theirs, figure)
    assert (opinion.overloaded, opinion.reason) == (theirs.overloaded, theirs.reason)
    assert opinion.operator_database == theirs.provenance.operator_database
    for figure, percent in opinion.difference_percent.items():
        first, second = (getattr(a, figure) for a in (own, theirs))
        first, second = (getattr(value, "mean", value) for value in (first, second))
        assert percent == pytest.approx(100 * (second - first) / first)
    assert "saturation_requests_per_s" in opinion.difference_percent
    assert Estimate.model_validate_json(both.model_dump_json()) == both


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"gpu": "mi300x"}, "accelerator mi300x"),
        ({"tp": 4}, "no data of tp=4"),
        ({"tp": 8}, "lacks some of the loads"),
        ({"prefill": "1xtp4", "decode": "1xtp1"}, "no data of tp=4"),
        ({"prefill": "1xtp8", "decode": "1xtp1"}, "lacks some of the loads"),
    ],
    ids=str,
)
def test_what_the_database_cannot_answer(catalog: Any, made_up: None, changed: dict[str, Any], says: str) -> None:
    asked = {**ASKED, **LOAD, **changed, "catalog": catalog}
    with pytest.raises(InputError, match=says):
        tokopt.estimate(**asked, perf="silicon")
    both = tokopt.estimate(**asked, perf="both")
    assert both.tpot_ms is not None and both.second_opinion is not None
    assert says in both.second_opinion.reason
    assert both.second_opinion.tpot_ms is None and both.second_opinion.difference_percent == {}


def test_what_does_not_fit_needs_no_database(catalog: Any, made_up: None) -> None:
    both = tokopt.estimate(**{**ASKED, "model": "llama-3.1-70b"}, **LOAD, catalog=catalog, perf="both")
    assert not both.fits and both.second_opinion is not None
    assert both.second_opinion.reason == both.reason


def test_report_and_json_of_both(made_up: None) -> None:
    words = "estimate --model llama-3.1-8b --gpu h100_sxm --precision bf16 --framework vllm --concurrency 8 --perf both"
    shown = CliRunner().invoke(app, words.split(), env={"COLUMNS": "120"})
    assert shown.exit_code == 0, shown.output
    assert "Second opinion" in shown.stdout and "made-up 1.0: h100_sxm, vllm 9.9, mode SILICON" in shown.stdout
    assert "difference" in shown.stdout
    silicon = CliRunner().invoke(app, [*words.split()[:-1], "silicon"], env={"COLUMNS": "120"})
    assert "step times" in silicon.stdout and "no 80 % range" in silicon.stdout


def test_an_unknown_source_is_said(catalog: Any) -> None:
    for ask in (
        lambda: tokopt.estimate(**ASKED, **LOAD, catalog=catalog, perf="silicone"),
        lambda: tokopt.estimate_many(frame({}), catalog=catalog, perf="both"),
        lambda: tokopt.validate(frame({}), catalog=catalog, perf="both"),
    ):
        with pytest.raises(InputError, match="unknown source of step times"):
            ask()


# --- tables ---


def test_rows_are_answered_by_kind_or_get_a_reason(catalog: Any, made_up: None) -> None:
    table = frame({}, {"tp": 2.0}, {"tp": 4.0}, {"tp": 8.0}, {"vendor_system": "mi300x"}, {"model": "gpt-9"}, {})
    told: list[float] = []
    got = tokopt.estimate_many(
        table, catalog=catalog, measured=True, perf="silicon", progress=lambda _, done: told.append(done)
    )
    assert got["id"].to_list() == table["id"].to_list()
    reasons = got["predicted_reason"].to_list()
    assert [bool(reason) for reason in reasons] == [False, False, True, True, True, True, False]
    assert "tp=4" in reasons[2] and "lacks" in reasons[3] and "mi300x" in reasons[4] and "gpt-9" in reasons[5]
    assert got["predicted_database"].to_list()[:2] == [
        "made-up 1.0, h100_sxm, vllm 9.9, SILICON",
        "made-up 1.0, h100_sxm, vllm 9.9, HYBRID",
    ]
    assert got["predicted_tpot_ms"].is_not_null().to_list() == [not reason for reason in reasons]
    for figure in ("ttft_ms", "tpot_ms", "output_tok_s_per_gpu"):
        assert got[f"predicted_{figure}_low"].is_null().all() and got[f"predicted_{figure}_high"].is_null().all()
    assert told == sorted(told) and min(told) >= 0.0 and max(told) <= 1.0
    alone = tokopt.estimate(**ASKED, **LOAD, catalog=catalog, perf="silicon")
    assert alone.tpot_ms is not None
    one = tokopt.estimate_many(frame({}), catalog=catalog, perf="silicon")
    assert one["predicted_tpot_ms"].item() == pytest.approx(alone.tpot_ms.mean, rel=1e-3)


def test_rows_under_latency_limits(catalog: Any, made_up: None) -> None:
    benchmark = next(b for b in catalog.benchmarks.values() if b.scenario == "server" and b.llm == "llama-3.1-8b")
    row = {"scenario": benchmark.scenario, "isl": None, "osl": None, "concurrency_or_batch": None}
    table = frame(*({**row, "tp": tp} for tp in (1.0, 4.0, 8.0)))
    got = tokopt.estimate_many(table, catalog=catalog, measured=True, perf="silicon")
    reasons = got["predicted_reason"].to_list()
    assert reasons[0] == "" and "tp=4" in reasons[1] and "lacks" in reasons[2]


def test_a_row_without_layout_takes_the_best_that_is_answered(catalog: Any, made_up: None) -> None:
    """Layouts of which nothing is known stand behind the others, whatever their order."""
    row = {"tp": None, "n_gpus": 8.0}
    got = tokopt.estimate_many(frame(row), catalog=catalog, measured=True, perf="silicon")
    assert not got["predicted_reason"].item()
    assert np.isfinite(got["predicted_output_tok_s_per_gpu"].item())


def test_the_default_has_no_column_of_the_database(catalog: Any) -> None:
    got = tokopt.estimate_many(frame({}), catalog=catalog)
    assert "predicted_database" not in got.columns
    assert got.equals(tokopt.estimate_many(frame({}), catalog=catalog, perf="model"))


def test_validation_counts_what_the_database_answers(catalog: Any, made_up: None, tmp_path: Path) -> None:
    table = frame({}, {"tp": 2.0}, {"tp": 4.0}, {"vendor_system": "mi300x"})
    out = tmp_path / "out.csv"
    got = tokopt.validate(table, catalog=catalog, perf="silicon", out=out)
    assert (got.perf, got.rows, got.answered) == ("silicon", 4, 2)
    assert sum(got.reasons.values()) == 2 and sum(got.databases.values()) == 2
    assert got.overall.interval_coverage is None
    assert got.overall.mape["tpot_ms"] is not None
    assert "predicted_database" in out.read_text(encoding="utf-8").splitlines()[0]
    by = tokopt.validate(table, catalog=catalog, perf="silicon", by="predicted_database")
    assert {group.key["predicted_database"][-6:] for group in by.groups} >= {"HYBRID", "ILICON"}
    own = tokopt.validate(table, catalog=catalog)
    assert (own.perf, own.databases) == ("model", {}) and own.overall.interval_coverage is not None


def test_the_report_of_a_validation_names_the_database(made_up: None, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    frame({}, {"tp": 2.0}, {"tp": 4.0}).write_csv(path)
    shown = CliRunner().invoke(app, ["validate", str(path), "--perf", "silicon", "--no-plot"], env={"COLUMNS": "120"})
    assert shown.exit_code == 0, shown.output
    assert "with step times of the operator database" in shown.stdout
    assert "made-up 1.0: SILICON 1 row, HYBRID 1 row" in shown.stdout
    assert "no stated range" in shown.stdout and "no data of tp=4" in shown.stdout


def test_batches_are_predicted_with_it(catalog: Any, made_up: None, tmp_path: Path) -> None:
    rows, out = tmp_path / "rows.csv", tmp_path / "out.csv"
    frame({}, {"tp": 4.0}).write_csv(rows)
    said = estimate_table(rows, out, catalog=catalog, perf="silicon")
    assert (said["rows"], said["answered"]) == (2, 1)
    shown = CliRunner().invoke(app, ["estimate", "--batch", str(rows), "--out", str(out), "--perf", "both"])
    assert shown.exit_code == 2 and "one source" in shown.stderr


# --- steps ---


def test_a_mean_depth_lies_between_whole_ones(resolved: Any) -> None:
    found, steps = resolved("llama-3.1-8b", "h100_sxm", "bf16", "bf16"), SiliconSteps(answers, SOURCE)
    one = np.ones(4)
    took = steps.step_time(
        found.model,
        found.machine,
        Layouts(tp=one, pp=one, ep=one, dp=one),
        sequences=8.0,
        width=1.0,
        context=500.0,
        prefill_tokens=0.0,
        prefill_context=0.0,
        draft_depth=np.array([0.0, 0.25, 1.0, 1.5]),
    )
    assert np.asarray(took.total) == pytest.approx(STEP_S * np.array([1.0, 1.25, 2.0, 2.5]))


def test_the_source_is_asked_for_every_step(resolved: Any) -> None:
    """One that answers as the model does changes nothing, to the last digit."""
    from tokopt.perf.step import Steps, StepTime, worker_steps

    found = resolved("llama-3.1-8b", "h100_sxm", "bf16", "bf16")
    asked = []

    def same(*arguments: Any, **settings: Any) -> Steps:
        steps = worker_steps(*arguments, **settings)

        def step(**load: Any) -> StepTime:
            asked.append(load)
            return steps(**load)

        return step

    def state(**source: Any) -> Any:
        return steady_state(
            found.model,
            found.machine,
            Layouts(tp=1.0, pp=1.0, ep=1.0, dp=1.0),
            lengths(1000.0, 200.0, 0.0, input_cv=0.0, output_cv=0.0),
            running=np.array([1.0, 16.0]),
            depth=0.0,
            accepted=1.0,
            chunk_tokens=8192.0,
            **source,
        )

    assert np.array_equal(state().tpot_s, state(source=same).tpot_s)
    assert len(asked) == 3


# --- without the package ---


@pytest.mark.parametrize("perf", ["silicon", "both"])
def test_without_the_package_an_estimate_names_the_extra(absent: None, perf: str) -> None:
    words = ["estimate", "--model", "llama-3.1-8b", "--gpu", "h100_sxm", "--concurrency", "8", "--perf", perf]
    shown = CliRunner().invoke(app, words)
    assert shown.exit_code == 2
    assert 'pip install "tokopt[silicon]"' in shown.stderr and shown.stderr.count("\n") == 1


def test_without_the_package_tables_name_the_extra(absent: None, tmp_path: Path) -> None:
    rows, out = tmp_path / "rows.csv", tmp_path / "out.csv"
    frame({}).write_csv(rows)
    for words in (
        ["validate", str(rows), "--perf", "silicon"],
        ["validate", "--perf", "silicon"],
        ["estimate", "--batch", str(rows), "--out", str(out), "--perf", "silicon"],
    ):
        shown = CliRunner().invoke(app, words)
        assert shown.exit_code == 2, shown.output
        assert 'pip install "tokopt[silicon]"' in shown.stderr and shown.stderr.count("\n") == 1
        assert not out.exists()


def test_without_the_package_the_model_answers(absent: None, catalog: Any) -> None:
    assert tokopt.estimate(**ASKED, **LOAD, catalog=catalog).fits


# --- with the package ---


def test_the_database_itself(catalog: Any) -> None:
    pytest.importorskip("aiconfigurator_core")
    both = tokopt.estimate(**ASKED, **LOAD, catalog=catalog, perf="both")
    opinion = both.second_opinion
    assert opinion is not None and opinion.operator_database is not None and not opinion.reason
    assert opinion.operator_database.package.startswith("aiconfigurator-core")
    assert abs(opinion.difference_percent["tpot_ms"]) < 60.0
    pools = {"prefill": "2xtp1", "decode": "1xtp2"}
    apart = tokopt.estimate(**ASKED, **LOAD, **pools, catalog=catalog, perf="silicon")
    assert apart.tpot_ms is not None and apart.tpot_ms.mean > 0.0
    rows = frame({}, {"tp": 2.0}, {"vendor_system": "mi300x"}, {"serving_mode": "offline"})
    got = tokopt.validate(rows, catalog=catalog, perf="silicon")
    assert (got.rows, got.answered) == (4, 3)
    assert any("mi300x" in reason for reason in got.reasons)
