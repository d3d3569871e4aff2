"""Workloads files, histograms and traces: what they say, and what is refused."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokopt.api.workload_classes import read_classes
from tokopt.catalog import Catalog
from tokopt.catalog.workload_files import Lengths, mean_and_cv, read_histogram, read_trace, split_by_length
from tokopt.errors import InputError

AZURE = """\
TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:47.6805900,396,109
2023-11-16 18:15:49.6805900,879,55
2023-11-16 18:15:50.6805900,91,16
"""
BINS = [{"input_tokens": 5, "output_tokens": 5, "shares": 3}]
ONE: dict[str, Any] = {"model": "qwen3-8b", "workload": "chat", "demand": "5req/s"}


def asked(catalog: Catalog, content: Any) -> Any:
    return read_classes(catalog, content, sla="50ms", most_quality_loss=None)


def test_a_trace_is_its_rate_and_the_moments_of_its_lengths(tmp_path: Path) -> None:
    path = tmp_path / "azure.csv"
    path.write_text(AZURE, encoding="utf-8")
    trace = read_trace(path)
    assert trace.requests_per_s == pytest.approx(3 / 4)
    gaps = np.array([1.0, 2.0, 1.0])
    assert trace.arrival_cv2 == pytest.approx(gaps.var() / gaps.mean() ** 2)
    mean, cv = mean_and_cv(trace.input_tokens, trace.weight)
    assert mean == pytest.approx(435.0) and cv == pytest.approx(np.std([374, 396, 879, 91]) / 435.0)


@pytest.mark.parametrize(
    ("head", "rows"),
    [
        ("timestamp,input_length,output_length", "0,10,5\n4,20,6\n"),
        ("time;input_tokens;output_tokens".replace(";", ","), "7,10,5\n3,20,6\n"),
        ("Timestamp,Model,Request tokens,Response tokens", "1,x,10,5\n5,x,20,6\n"),
    ],
)
def test_column_names_of_published_traces(tmp_path: Path, head: str, rows: str) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(f"{head}\n{rows}", encoding="utf-8")
    assert read_trace(path).requests_per_s == pytest.approx(0.25)


def test_a_histogram_file(tmp_path: Path) -> None:
    path = tmp_path / "h.csv"
    path.write_text("input_tokens,output_tokens,count\n100,10,3\n500,50,1\n", encoding="utf-8")
    lengths = read_histogram(path)
    assert mean_and_cv(lengths.input_tokens, lengths.weight)[0] == pytest.approx(200.0)


@given(
    st.lists(st.tuples(st.integers(1, 5000), st.integers(1, 900), st.floats(0.1, 9.0)), min_size=1, max_size=40),
    st.integers(1, 6),
)
def test_parts_are_the_whole(bins: list[tuple[int, int, float]], parts: int) -> None:
    inputs, outputs, weights = np.array(bins, dtype=float).T
    whole = Lengths(input_tokens=inputs, output_tokens=outputs, weight=weights, requests_per_s=8.0)
    cut = split_by_length(whole, parts)
    assert 1 <= len(cut) <= parts
    assert sum(part.weight.sum() for part in cut) == pytest.approx(weights.sum())
    assert sum(part.requests_per_s or 0.0 for part in cut) == pytest.approx(8.0)
    for shorter, longer in itertools.pairwise(cut):
        assert shorter.input_tokens.max() < longer.input_tokens.min()


def test_classes_and_periods(catalog: Catalog) -> None:
    found = asked(
        catalog,
        {
            "workloads": {
                "chat": {**ONE, "sla": "tpot=40ms,ttft=1s,p90", "price": {"input": "$0.5", "output": "$2"}},
                "code": {
                    "model": "qwen3-32b",
                    "histogram": [
                        {"input_tokens": 1000, "output_tokens": 100, "share": 3},
                        {"input_tokens": 9000, "output_tokens": 300, "share": 1},
                    ],
                    "split": 2,
                    "demand": "8req/s",
                },
            },
            "periods": [
                {"name": "night", "hours": 8, "demand": 0.25},
                {"name": "day", "hours": 16, "demand": {"chat": 2.0}, "prices": {"spot": 0.5}},
            ],
        },
    )
    chat, short, long = found.classes
    assert (chat.name, short.name, long.name) == ("chat", "code/1", "code/2")
    assert chat.usd_per_request == pytest.approx((1024 * 0.5 + 1024 * 2.0) / 1e6)
    assert chat.sla.ttft_ms == 1000 and not chat.ttft_by_default and short.ttft_by_default
    assert short.demand_requests_per_s == pytest.approx(6.0) and long.demand_requests_per_s == pytest.approx(2.0)
    assert long.workload.input_tokens == 9000 and long.workload.input_cv == 0.0
    night, day = found.periods
    assert night.factor("chat") == 0.25 and day.factor("chat") == 2.0 and day.factor("code/1") == 1.0
    assert day.price_factors == {"spot": 0.5}


def test_hours_of_a_day(catalog: Catalog) -> None:
    found = asked(catalog, {"workloads": {"chat": ONE}, "hourly_demand": [0.5] * 12 + [1.5] * 12})
    assert len(found.periods) == 24 and found.periods[13].demand_factor == 1.5


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({}, "workloads: missing"),
        ({"workloads": {}}, "workloads"),
        ({"workloads": {"chat": {"workload": "chat"}}}, "workloads.chat: model is missing"),
        ({"workloads": {"chat": {"model": "qwen3-8b"}}}, "no lengths"),
        ({"workloads": {"chat": {**ONE, "colour": "red"}}}, "unknown key"),
        ({"workloads": {"chat": {**ONE, "model": "qwen3-8c"}}}, "qwen3-8b"),
        ({"workloads": {"chat": {**ONE, "demand": "5"}}}, "req/s"),
        ({"workloads": {"chat": {**ONE, "trace": "t.csv"}}}, "both give lengths"),
        ({"workloads": {"chat": {**ONE, "split": 2}}}, "split needs a histogram"),
        ({"workloads": {"chat": {**ONE, "price": {"output": "2"}}}}, "price.output"),
        ({"workloads": {"chat": {**ONE, "max_quality_loss": "2"}}}, "max_quality_loss"),
        ({"workloads": {"chat": ONE}, "hourly_demand": [1.0]}, "24 factors"),
        ({"workloads": {"chat": ONE}, "hourly_demand": [-1.0] * 24}, "0 or more"),
        ({"workloads": {"chat": ONE}, "periods": [{"name": "a", "hours": 0}]}, "hours"),
        ({"workloads": {"chat": ONE}, "periods": [{"name": "a", "hours": 1}] * 2}, "appears twice"),
        ({"workloads": {"chat": ONE}, "periods": [{"name": "a", "hours": 1, "demand": {"x": 1}}]}, "no class 'x'"),
        ({"workloads": {"chat": ONE}, "periods": [{"name": "a", "hours": 1, "prices": {"x": 1}}]}, "is not one of"),
        ({"workloads": {"chat": ONE}, "periods": [{"name": "a", "hours": 1, "starts_on": "soon"}]}, "starts_on"),
        (
            {"workloads": {"chat": ONE}, "periods": [{"name": "a", "hours": 1, "starts_on": "soon"}]},
            "periods.0.starts_on: a date is needed, like 2027-03-01, not 'soon'",
        ),
        ({"workloads": {"chat": ONE}, "periods": [{"name": "a", "hours": 1, "demand": 0}]}, "no class asks for"),
        ({"workloads": {"chat": {**ONE, "demand": "1e30req/s"}}}, "is more than 1,000 Greq/s; is the unit right?"),
        (
            {"workload": {"chat": ONE}},
            "workloads: missing; workload: unknown key (allowed: workloads, periods, hourly_demand)",
        ),
        ({"workloads": {"chat": {**ONE, "modle": "x"}}}, "workloads.chat.modle: unknown key; did you mean model?"),
        ({"workloads": []}, "workloads: a mapping of keys to values is needed, not nothing"),
        ({"workloads": {"chat": {**ONE, "price": 0.9}}}, "price: a mapping of keys to values is needed, not 0.9"),
        ({"workloads": {"chat": {**ONE, "demand": float("nan")}}}, "chat.demand: Input should be a finite number"),
        (
            {"workloads": {"chat": {**ONE, "histogram": BINS}}},
            "workloads.chat.histogram.0.shares: unknown key; did you",
        ),
        (None, "a mapping of keys to values is needed; there is nothing"),
    ],
)
def test_what_is_refused(catalog: Catalog, content: Any, said: str) -> None:
    with pytest.raises(InputError) as refused:
        asked(catalog, content)
    assert said in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "cannot be read"),
        ("a,b\n1,2\n", "no column of time"),
        ("time,input_tokens,output_tokens\n", "no rows"),
        ("time,input_tokens,output_tokens\n0,5,5\n", "at least two requests"),
        ("time,input_tokens,output_tokens\n0,5,5\n0,5,5\n", "different times"),
        ("time,input_tokens,output_tokens\n0,5,5\n1,-5,5\n", "row 3"),
        ("time,input_tokens,output_tokens\n0,5,5\n-1,5,5\n", "row 3: time -1: seconds from 0 on, or dates"),
        ("time,input_tokens,output_tokens\n0,5,5\n,5,5\n1,5,5\n", "row 3: time nan"),
        ("time,input_tokens,output_tokens\n0,5,5\n1,x,5\n", "not a table of numbers"),
        ("time,input_tokens,output_tokens\nsoon,5,5\nlater,5,5\n", "not a table of numbers"),
    ],
)
def test_traces_that_are_refused(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError) as refused:
        read_trace(path)
    assert said in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", ": a mapping of keys to values is needed; there is nothing"),
        ("workloads:\n  ? [a, b]\n  : {}\n", ":2: not valid YAML: a key is text or a number, no list or mapping"),
        ("periods: [{starts_on: 2027-13-45}]\n", ": not valid YAML: month must be in 1..12"),
        ("workloads:\n  a: {}\n  a: {}\n", ":3: not valid YAML: key 'a' appears twice"),
        ("[" * 100_000, "not valid YAML"),
    ],
)
def test_files_that_are_refused(catalog: Catalog, tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "workloads.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError) as refused:
        asked(catalog, str(path))
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_tokens_that_earn_nothing_may_be_said_to_cost_nothing(catalog: Catalog) -> None:
    (chat,) = asked(catalog, {"workloads": {"chat": {**ONE, "price": {"input": "$0", "output": "$2"}}}}).classes
    assert chat.earns.usd_per_million_input_tokens == 0.0 and chat.earns.usd_per_million_output_tokens == 2.0
