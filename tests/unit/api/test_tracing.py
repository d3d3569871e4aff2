"""Traces, the workloads that are like them, and traces made up from workloads: each is found in the other."""

from __future__ import annotations

import gzip
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tokopt
from tokopt.api.trace_making import daily_factors
from tokopt.api.workload_classes import read_classes
from tokopt.catalog import Catalog
from tokopt.catalog.trace_files import open_trace
from tokopt.domain.caching import Reuse, Router
from tokopt.domain.trace_summaries import ReuseSummary
from tokopt.domain.workloads import Workload
from tokopt.errors import InputError
from tokopt.perf.caching import hit_share, pattern_of
from tokopt.simulation.trace_reuse import plan_working_set

SAMPLES = sorted((Path(__file__).parents[3] / "examples" / "traces").iterdir())
REUSE = Reuse(shared_tokens=2048, shared_prefixes=30, turns=4, turn_gap_s=40)


def made(path: Path, **asked: Any) -> Path:
    tokopt.make_trace(path, **{"duration": "1h", "rate": "6req/s", "model": "llama-3.1-8b", **asked})
    return path


# --- samples in every format ---


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_samples_are_small_and_come_to_a_plan(catalog: Catalog, path: Path) -> None:
    assert path.stat().st_size < 12_000
    fit = tokopt.fit_trace(path, model="llama-3.1-8b", sla="tpot=40ms,ttft=2s", split=2, catalog=catalog)
    asked = read_classes(catalog, fit.workloads, sla="50ms", most_quality_loss=None)
    streams = fit.summary.classes or (fit.summary,)
    assert len(asked.classes) > len(streams) - 1
    for each in asked.classes:
        assert each.sla.tpot_ms == 40 and each.llm == "llama-3.1-8b"
    demand = sum(each.demand_requests_per_s or 0.0 for each in asked.classes)
    assert demand == pytest.approx(fit.summary.arrivals.requests_per_s, rel=0.03)


def test_there_is_a_sample_of_every_format() -> None:
    formats = {open_trace(path).format.name for path in SAMPLES}
    assert formats == {"azure", "bailian", "burstgpt", "mooncake", "tokopt"}
    assert {path.suffix for path in SAMPLES} == {".csv", ".jsonl", ".parquet"}


def test_a_sample_in_parquet_says_the_same() -> None:
    one, other = (tokopt.trace_summary(SAMPLES[0].parent / f"requests.{kind}") for kind in ("csv", "parquet"))
    assert one.model_copy(update={"file": ""}) == other.model_copy(update={"file": ""})
    assert one.reuse is not None and one.reuse.reusable_share > 0.1 and len(one.classes) == 2


# --- what was put in is found again ---


def test_a_fit_recovers_lengths_rate_and_burstiness(tmp_path: Path) -> None:
    path = made(tmp_path / "t.csv", workload="chat", burstiness=3.0, duration="2h")
    (found,) = tokopt.fit_trace(path, model="llama-3.1-8b").workloads["workloads"].values()
    arrivals = tokopt.trace_summary(path).arrivals
    assert found["burstiness"] == pytest.approx(3.0, abs=4 * arrivals.burstiness_sd)
    assert arrivals.burstiness_sd < 0.5
    requests = 6 * 7200
    assert float(found["demand"].removesuffix("req/s")) == pytest.approx(6.0, rel=4 * (3.0 / requests) ** 0.5)
    for which, cv in (("input", 1.0), ("output", 0.8)):
        assert found[f"{which}_tokens"] == pytest.approx(1024, rel=4 * cv / requests**0.5)
        assert found[f"{which}_cv"] == pytest.approx(cv, rel=0.05)
    assert "reuse" not in found


def test_a_fit_recovers_the_shape_of_the_day(tmp_path: Path) -> None:
    path = made(tmp_path / "t.csv.gz", duration="2d", rate="1req/s", daily="swing=0.7,peak=15h")
    fit = tokopt.fit_trace(path, model="llama-3.1-8b")
    expected = daily_factors("swing=0.7,peak=15h")
    assert fit.workloads["hourly_demand"] == pytest.approx(expected, abs=4 * (1.7 / 7200) ** 0.5)
    assert np.argmax(fit.workloads["hourly_demand"]) in (13, 14, 15, 16)
    (found,) = fit.workloads["workloads"].values()
    assert float(found["demand"].removesuffix("req/s")) == pytest.approx(1.0, abs=0.02)
    assert any("hours count from the start" in note for note in fit.notes)


def test_a_fit_recovers_a_share_and_its_working_set(tmp_path: Path) -> None:
    path = made(tmp_path / "t.csv", isl=8000, reuse="share=0.6,set=400k", duration="20min")
    (found,) = tokopt.fit_trace(path, model="llama-3.1-8b").workloads["workloads"].values()
    share, held = (float(part.partition("=")[2]) for part in found["reuse"].split(","))
    assert share == pytest.approx(0.6, abs=0.05)  # the first prompts find nothing, and blocks are whole
    assert held == pytest.approx(400_000, rel=0.25)


@pytest.mark.parametrize(("share", "prefixes", "mean"), [(0.1, 900, 900.0), (0.5, 60, 6000.0), (0.9, 4000, 25_000.0)])
def test_the_working_set_of_a_fit_finds_in_plans_what_the_trace_does(
    share: float, prefixes: float, mean: float
) -> None:
    shape = Workload(name="x", input_tokens=mean, output_tokens=1e-9)
    shape = replace(shape, reuse=Reuse(reusable_share=share, working_set_tokens=prefixes * share * mean))
    pattern = pattern_of(shape)

    def cached(part: float) -> float:
        low, high = 1.0, 1e12
        for _ in range(50):
            middle = (low * high) ** 0.5
            there = hit_share(pattern, room_tokens=middle, rate=3.0, caches=1.0, router=Router.KV_AWARE)
            low, high = (middle, high) if float(there) < part * share else (low, middle)
        return high

    sizes = {"cached_for_half": cached(0.5), "cached_for_90": cached(0.9), "cached_for_99": 0.0}
    rest = {
        "late_share": None,
        "distinct_tokens": 0.0,
        "gap_p10_s": 0.0,
        "gap_p50_s": 0.0,
        "gap_p90_s": 0.0,
        "curve": (),
    }
    found, apart = plan_working_set(ReuseSummary(block_tokens=16, reusable_share=share, **sizes, **rest), mean)
    assert apart == pytest.approx(1.0, rel=0.01)
    assert found == pytest.approx(prefixes * share * mean, rel=0.01)


def test_a_trace_of_a_fit_is_like_the_first(tmp_path: Path) -> None:
    classes = {
        "chat": {"model": "llama-3.1-8b", "workload": "chat", "demand": "1.5req/s", "burstiness": 2},
        "code": {"model": "llama-3.1-8b", "input_tokens": 6000, "output_tokens": 200, "demand": "0.5req/s"},
    }
    hours = [0.25] * 8 + [1.5] * 12 + [1.0] * 4
    first = tmp_path / "first.csv"
    tokopt.make_trace(first, duration="1d", workloads={"workloads": classes, "hourly_demand": hours})
    fit = tokopt.fit_trace(first, model={"chat": "llama-3.1-8b", "code": "qwen3-8b"})
    assert {name: each["model"] for name, each in fit.workloads["workloads"].items()} == {
        "chat": "llama-3.1-8b",
        "code": "qwen3-8b",
    }
    assert len(fit.workloads["periods"]) == 24
    assert [each["demand"]["chat"] for each in fit.workloads["periods"]] == pytest.approx(hours, abs=0.12)
    again = tokopt.make_trace(tmp_path / "again.csv", duration="1d", workloads=fit.workloads, seed=2).summary
    for one, other in zip(fit.summary.classes, again.classes, strict=True):
        assert one.name == other.name
        assert other.arrivals.requests_per_s == pytest.approx(one.arrivals.requests_per_s, rel=0.05)
        assert other.input_tokens.mean == pytest.approx(one.input_tokens.mean, rel=0.05)
        assert other.arrivals.hourly == pytest.approx(one.arrivals.hourly, abs=0.2)


def test_a_fit_is_planned_as_it_is(tmp_path: Path) -> None:
    path = made(tmp_path / "t.csv", duration="1d", rate="0.2req/s", daily=[0.5, 1.5], reuse="share=0.3,set=100k")
    fit = tokopt.fit_trace(path, model="qwen3-8b", sla="tpot=40ms,ttft=3s", drop_long=True)
    plan = tokopt.plan(workloads=fit.workloads, gpus="h100_sxm", prices="aws")
    assert plan.status == "optimal" and len(plan.schedule) == 24
    request = plan.request.classes[0]
    assert request.name == "t" and request.workload.reuse is not None
    assert request.workload.arrival_cv2 == fit.workloads["workloads"]["t"]["burstiness"]


def test_parts_of_a_fit_keep_its_means(tmp_path: Path, catalog: Catalog) -> None:
    path = made(tmp_path / "t.csv", reuse=REUSE, isl=6000, duration="10min")
    fit = tokopt.fit_trace(path, model="llama-3.1-8b", split=3, periods=4, name="talks")
    asked = read_classes(catalog, fit.workloads, sla="50ms", most_quality_loss=None)
    assert [each.name for each in asked.classes] == ["talks/1", "talks/2", "talks/3"]
    assert [period.hours for period in asked.periods] == pytest.approx([1 / 24] * 4, rel=0.01)
    assert sum(period.demand_factor for period in asked.periods) == pytest.approx(4.0, abs=1e-3)
    rates = np.array([each.demand_requests_per_s for each in asked.classes], dtype=float)
    inputs = np.array([each.workload.input_tokens for each in asked.classes])
    assert rates.sum() == pytest.approx(fit.summary.arrivals.requests_per_s, rel=1e-3)
    assert (rates * inputs).sum() / rates.sum() == pytest.approx(fit.summary.input_tokens.mean, rel=1e-3)
    assert all(each.workload.reuse is not None for each in asked.classes)


def test_classes_of_a_day_that_are_split_are_named_in_its_periods(tmp_path: Path, catalog: Catalog) -> None:
    fit = tokopt.fit_trace(SAMPLES[0].parent / "requests.csv", model="llama-3.1-8b", split=2)
    assert set(fit.workloads["periods"][0]["demand"]) == {"batch/1", "batch/2", "chat/1", "chat/2"}
    asked = read_classes(catalog, fit.workloads, sla="50ms", most_quality_loss=None)
    assert asked.periods[12].factor("chat/1") > 1.5 > asked.periods[0].factor("chat/1")


# --- context and models ---


def csv(tmp_path: Path, rows: list[str], columns: str = "time_s,input_tokens,output_tokens") -> Path:
    path = tmp_path / "t.csv"
    path.write_text("\n".join([columns, *rows]) + "\n", encoding="utf-8")
    return path


def test_requests_longer_than_the_context_are_refused_or_left_out(tmp_path: Path) -> None:
    path = csv(tmp_path, ["0,10,10", "5,40000,961", "6,39999,961", "9,7,7"])
    with pytest.raises(InputError) as refused:
        tokopt.fit_trace(path, model="qwen3-8b")
    assert "request 2: 40,000 tokens in and 961 out are longer than the context of qwen3-8b, 40,960" in str(
        refused.value
    )
    assert "--drop-long" in str(refused.value)
    fit = tokopt.fit_trace(path, model="qwen3-8b", drop_long=True)
    assert fit.left_out == 1 and fit.summary.requests == 3 and fit.summary.longest_tokens == 40_960
    assert "1 of 4 requests are longer than the context: left out" in fit.notes
    with pytest.raises(InputError, match="no requests are left"):
        tokopt.fit_trace(csv(tmp_path, ["0,50000,10", "5,50000,10"]), model="qwen3-8b", drop_long=True)


def test_the_context_is_that_of_the_model_of_the_class(tmp_path: Path) -> None:
    path = csv(tmp_path, ["0,50000,10,big", "5,50,10,small"], "time_s,input_tokens,output_tokens,class")
    fit = tokopt.fit_trace(path, model={"big": "llama-3.1-8b", "small": "qwen3-8b"})
    assert fit.left_out == 0
    with pytest.raises(InputError, match=r"request 1: .* context of qwen3-8b"):
        tokopt.fit_trace(path, model={"big": "qwen3-8b", "small": "llama-3.1-8b"})
    for models, said in (
        ({"big": "llama-3.1-8b"}, "class 'small' of the trace has none"),
        (
            {"big": "llama-3.1-8b", "small": "qwen3-8b", "x": "qwen3-8b"},
            "no class 'x' in the trace, which has big, small",
        ),
        ("qwen3-8c", "did you mean"),
    ):
        with pytest.raises(InputError, match=said):
            tokopt.fit_trace(path, model=models)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="which has no classes: give one model"):
        tokopt.fit_trace(csv(tmp_path, ["0,5,5", "1,5,5"]), model={"": "qwen3-8b", "x": "qwen3-8b"})


def test_a_class_that_hardly_comes_is_left_out(tmp_path: Path) -> None:
    rows = [f"{n * 60},50,10,{'rare' if n == 500 else 'often'}" for n in range(3000)]
    fit = tokopt.fit_trace(csv(tmp_path, rows, "time_s,input_tokens,output_tokens,class"), model="qwen3-8b")
    assert list(fit.workloads["workloads"]) == ["often"] and any("class rare is left out" in n for n in fit.notes)
    assert len(fit.workloads["hourly_demand"]) == 24
    sparse = csv(tmp_path, ["0,5,5", "90000,5,5", "180000,5,5"])
    with pytest.raises(InputError, match=r"below 0\.0001 req/s"):
        tokopt.fit_trace(sparse, model="qwen3-8b")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"split": 0}, "--split: 0 is not between 1 and 20"),
        ({"split": 21}, "--split"),
        ({"periods": -1}, "--periods: -1 is not between 0 and 48"),
        ({"periods": 49}, "--periods"),
        ({"sla": "50"}, "unit is missing"),
        ({"model": "qwen3-8c"}, "did you mean"),
    ],
)
def test_fits_that_are_refused(tmp_path: Path, asked: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        tokopt.fit_trace(csv(tmp_path, ["0,5,5", "1,5,5"]), **{"model": "qwen3-8b", **asked})


def test_traces_that_tell_no_rate(tmp_path: Path) -> None:
    for rows in (["0,5,5"], ["3,5,5", "3,6,6"]):
        path = csv(tmp_path, rows)
        assert tokopt.trace_summary(path).arrivals.requests_per_s == 0.0
        with pytest.raises(InputError, match="at least two requests at different times"):
            tokopt.fit_trace(path, model="qwen3-8b")
    with pytest.raises(InputError, match="--periods: the trace covers a day"):
        tokopt.fit_trace(SAMPLES[0].parent / "requests.csv", model="llama-3.1-8b", periods=3)


# --- making ---


def test_equal_calls_make_equal_files(tmp_path: Path) -> None:
    one, other, seeded = (made(tmp_path / f"{n}.csv", duration="60s", seed=seed) for n, seed in enumerate((1, 1, 2)))
    assert one.read_bytes() == other.read_bytes() != seeded.read_bytes()
    packed = made(tmp_path / "t.csv.gz", duration="60s")
    assert gzip.decompress(packed.read_bytes()) == one.read_bytes()


def test_a_trace_that_was_made_is_what_it_says(tmp_path: Path) -> None:
    told: list[tuple[str, float]] = []
    found = tokopt.make_trace(
        tmp_path / "t.csv",
        duration="300s",
        rate="20req/s",
        reuse=REUSE,
        isl=5000,
        osl=50,
        progress=lambda *what: told.append(what),
    )
    read = tokopt.trace_summary(tmp_path / "t.csv")
    assert found.requests == read.requests == pytest.approx(6000, rel=0.15)
    assert found.summary.lengths == read.lengths and found.summary.reuse == read.reuse
    assert found.summary.arrivals.windows == read.arrivals.windows and found.span_s == read.span_s
    assert read.reuse is not None and 0.4 < read.reuse.reusable_share < 0.9
    assert read.output_tokens.mean == pytest.approx(50, rel=0.1)
    assert told and all(0.0 <= share <= 1.0 for _, share in told)


def test_requests_are_cut_to_the_context(tmp_path: Path) -> None:
    path = made(tmp_path / "t.csv", isl=30_000, model="qwen3-8b", duration="5min")
    assert tokopt.trace_summary(path).longest_tokens == 40_960
    assert tokopt.fit_trace(path, model="qwen3-8b").left_out == 0


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"rate": None}, "--rate is missing"),
        ({"rate": "6"}, "unit is missing"),
        ({"rate": "-6req/s"}, "above zero"),
        ({"duration": "1"}, "unit is missing; write it like 90s"),
        ({"duration": "-1h"}, "must be above zero"),
        ({"duration": "0h"}, "must be above zero"),
        ({"duration": "900000d"}, "is the unit right"),
        ({"duration": "300d", "rate": "1kreq/s"}, "requests are more than"),
        ({"burstiness": 0.0}, "--burstiness: 0 is not from 1e-06 to 1000"),
        ({"burstiness": 1e-310}, "--burstiness: 1e-310 is not from 1e-06 to 1000"),
        ({"burstiness": float("nan")}, "--burstiness: nan"),
        ({"daily": "soon"}, "--daily: 'soon' is not understood"),
        ({"daily": [0.0, 0.0]}, "not all 0"),
        ({"daily": [-1.0, 2.0]}, "0 or more"),
        ({"daily": []}, "--daily"),
        ({"daily": "swing=2"}, "a swing from 0 to 1"),
        ({"daily": "swing=x"}, "--daily"),
        ({"daily": "peak=14h"}, "--daily"),
        ({"daily": "swing=0.5,depth=3"}, "--daily"),
        ({"workload": "chatt"}, "did you mean chat"),
        ({"reuse": "share=2,set=5"}, "--reuse"),
        ({"isl": 0}, "input length"),
        ({"model": "nobody"}, "unknown"),
        ({"workloads": {"workloads": {}}}, "--rate says what --workloads says too"),
    ],
)
def test_traces_that_are_not_made(tmp_path: Path, asked: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        made(tmp_path / "t.csv", **asked)
    assert not list(tmp_path.iterdir())


def test_workloads_that_no_trace_is_made_from(tmp_path: Path) -> None:
    one = {"model": "qwen3-8b", "workload": "chat"}
    for source, said in (
        ({"workloads": {"a": one}}, "a has no demand"),
        (
            {"workloads": {"a": {**one, "demand": "1req/s"}}, "periods": [{"name": "x", "hours": 5}]},
            "24 hours of a day",
        ),
        ({"workloads": {}}, "workloads"),
    ):
        with pytest.raises(InputError, match=said):
            tokopt.make_trace(tmp_path / "t.csv", duration="1h", workloads=source)


@given(st.lists(st.floats(0.01, 9.0), min_size=1, max_size=48))
@settings(deadline=None)
def test_factors_have_a_mean_of_one(factors: list[float]) -> None:
    assert np.mean(daily_factors(factors)) == pytest.approx(1.0)
    assert daily_factors(",".join(map(str, factors))) == daily_factors(factors)


def test_memory_does_not_grow_with_the_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokopt.catalog.trace_lines.BLOCK_BYTES", 1 << 16)
    peaks = []
    for duration in ("1000s", "20000s"):
        path = made(tmp_path / "t.csv", duration=duration, rate="10req/s")
        tracemalloc.start()
        tokopt.trace_summary(path)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]
