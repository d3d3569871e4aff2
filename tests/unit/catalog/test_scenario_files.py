"""Scenario files: what they mean, and that whatever is wrong with one is one line."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokopt.api.comparing_scenarios import scenarios_of, words
from tokopt.catalog import Catalog
from tokopt.catalog.scenario_files import read_scenarios
from tokopt.errors import InputError


def word(written: str) -> str:
    if written not in ("model", "sla", "demand", "gpus", "isl", "budget_usd_per_hour"):
        raise InputError(f"unknown option {written!r}")
    return written


def read(text: str, tmp_path: Path) -> dict[str, dict[str, Any]]:
    path = tmp_path / "s.yaml"
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return {s.name: s.options for s in read_scenarios(path, word)}


def test_defaults_are_what_scenarios_start_from(tmp_path: Path) -> None:
    found = read(
        """
        defaults: {model: a, sla: 50ms}
        scenarios:
          one: {demand: 1req/s}
          two: {sla: 30ms}
          three: {sla: null}
          four:
        """,
        tmp_path,
    )
    assert found == {
        "one": {"model": "a", "sla": "50ms", "demand": "1req/s"},
        "two": {"model": "a", "sla": "30ms"},
        "three": {"model": "a"},
        "four": {"model": "a", "sla": "50ms"},
    }


def test_a_matrix_is_the_product_of_its_lists(tmp_path: Path) -> None:
    found = read("matrix: {model: [a, b], sla: [1ms, 2ms, 3ms], isl: [10, 20]}", tmp_path)
    assert len(found) == 12
    assert found["b / 3ms / isl=20"] == {"model": "b", "sla": "3ms", "isl": 20}
    assert list(found)[:2] == ["a / 1ms / isl=10", "a / 1ms / isl=20"]


@pytest.mark.parametrize("written", ["yes", "'yes'", "true", "on"])
def test_switches_are_written_as_yaml_has_them(written: str, tmp_path: Path) -> None:
    def switch(key: str) -> str:
        return {"mixed-pools": "mixed_pools", "sla": "sla"}[key]

    path = tmp_path / "s.yaml"
    path.write_text(
        f"scenarios: {{one: {{mixed-pools: {written}}}}}\nmatrix: {{sla: [1ms], mixed-pools: [{written}, no]}}\n"
        if written != "on"
        else "scenarios: {one: {mixed-pools: on}}\nmatrix: {sla: [1ms], mixed-pools: [on, off]}\n",
        encoding="utf-8",
    )
    found = {s.name: s.options["mixed_pools"] for s in read_scenarios(path, switch)}
    assert found == {"one": "yes", "1ms / mixed-pools=yes": "yes", "1ms / mixed-pools=no": "no"}


def test_exclude_drops_what_agrees(tmp_path: Path) -> None:
    found = read("matrix: {model: [a, b], sla: [1ms, 2ms], exclude: [{model: a, sla: 1ms}]}", tmp_path)
    assert list(found) == ["a / 2ms", "b / 1ms", "b / 2ms"]
    assert list(read("matrix: {model: [a, b], sla: [1ms, 2ms], exclude: [{model: a}]}", tmp_path)) == [
        "b / 1ms",
        "b / 2ms",
    ]


def test_include_adds_keys_to_what_agrees_and_scenarios_where_nothing_does(tmp_path: Path) -> None:
    found = read(
        """
        matrix:
          model: [a, b]
          sla: [1ms, 2ms]
          include:
            - {model: a, demand: 5req/s}
            - {isl: 99}
            - {model: c, sla: 9ms}
            - {model: a, sla: 1ms, demand: 7req/s, name: by itself}
        """,
        tmp_path,
    )
    assert found["a / 1ms / 5req/s / isl=99"] == {"model": "a", "sla": "1ms", "demand": "5req/s", "isl": 99}
    assert found["b / 2ms / isl=99"] == {"model": "b", "sla": "2ms", "isl": 99}
    assert found["c / 9ms"] == {"model": "c", "sla": "9ms"}
    assert found["by itself"] == {"model": "a", "sla": "1ms", "demand": "7req/s"}
    assert len(found) == 6


def test_lists_and_mappings_are_values(tmp_path: Path) -> None:
    found = read("matrix: {gpus: [[x, y], z]}\nscenarios: {s: {gpus: {x: 4}}}", tmp_path)
    assert found == {"s": {"gpus": {"x": 4}}, "x,y": {"gpus": ["x", "y"]}, "z": {"gpus": "z"}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not nothing"),
        ("[]", "not nothing"),
        ("- a", "not a list"),
        ("7", "not a number"),
        ("scenarios: {}", "no scenario in it"),
        ("scenario: {a: {}}", "unknown section 'scenario'; did you mean scenarios"),
        ("scenarios: [a]", "scenarios: a mapping of names to options is needed, not a list"),
        ("scenarios: {a: 5}", "scenario 'a': a mapping of options to values is needed, not a number"),
        ("scenarios: {a: {modell: x}}", "scenario 'a': unknown option 'modell'"),
        ("scenarios: {a: {3: x}}", "scenario 'a': '3' is not an option"),
        ("scenarios: {a: {model: true}}", "scenario 'a': model: true is neither text nor a number"),
        ("scenarios: {a: {isl: .nan}}", "isl: nan is not a finite number"),
        ("scenarios: {a: {gpus: [[x]]}}", "gpus: a list of names is meant"),
        ("scenarios: {a: {gpus: [x, x]}}", "gpus: the same name twice"),
        ("scenarios: {a: {gpus: {x: y}}}", "gpus: a mapping of names to whole numbers is meant"),
        ("scenarios: {a: {model: 2026-01-01}}", "neither text nor a number; put it in quotes"),
        ("scenarios: {'': {model: x}}", "is no name"),
        ("scenarios: {a: {}, a: {}}", "key 'a' appears twice"),
        ("scenarios: {'1': {}, 1: {}}", "two scenarios are called '1'"),
        ("matrix: {model: []}", "matrix: model: the list is empty"),
        ("matrix: {model: x}", "matrix: model: a list of values is needed, not text"),
        ("matrix: {model: [x, x]}", "x is in the list twice"),
        ("matrix: {model: [1, '1']}", "1 is in the list twice"),
        ("matrix: {modell: [x]}", "matrix: unknown option 'modell'"),
        ("matrix: {model: [x], exclude: [{model: y}]}", "exclude: y: no combination agrees with it"),
        ("matrix: {model: [x], exclude: [{sla: 1ms}]}", "sla is not one of the matrix's lists: model"),
        ("matrix: {model: [x], exclude: {model: x}}", "exclude: a list of mappings is needed, not a mapping"),
        ("matrix: {model: [x], exclude: [{model: x}]}", "no scenario in it"),
        ("matrix: {model: [x], include: [x]}", "include: entry 1: a mapping of options to values is needed"),
        ("matrix: {model: [x], include: [{model: x, isl: 1}, {model: x, isl: 2}]}", "contradicts an entry before it"),
        ("scenarios: {x: {}}\nmatrix: {model: [x]}", "two scenarios are called 'x'"),
        ("a: [", "not valid YAML"),
        ("scenarios: {a: {isl: 2001-99-99}}", "not valid YAML"),
    ],
)
def test_what_is_wrong_is_one_line(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        read(text, tmp_path)
    assert said in str(error.value) and "\n" not in str(error.value)
    assert "s.yaml" in str(error.value)


def test_a_product_that_nobody_can_mean_is_refused_before_it_is_built(tmp_path: Path) -> None:
    lists = {name: [f"{name}{n}" for n in range(2000)] for name in ("model", "sla", "demand")}
    with pytest.raises(InputError, match="8,000,000,000 combinations; at most 100,000"):
        read_scenarios({"matrix": lists}, word)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.yaml: cannot be read"):
        read_scenarios(tmp_path / "none.yaml", word)


def test_billion_laughs_are_not_told(tmp_path: Path) -> None:
    lines = ["a: &a0 [x, x]"] + [f"b{n}: &a{n + 1} [{', '.join([f'*a{n}'] * 9)}]" for n in range(30)]
    with pytest.raises(InputError) as error:
        read("\n".join([*lines, "scenarios: {s: {gpus: *a30}}"]), tmp_path)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("loop", ["scenarios: &a {s: *a}", "scenarios: {s: {gpus: &a [*a]}}", "matrix: &a {model: *a}"])
def test_files_that_contain_themselves(loop: str, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        read(loop, tmp_path)


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.dates(),
    st.binary(max_size=4),
    st.sampled_from(["50ms", "10MW", "chat", "qwen3-8b", "h100_sxm", "400req/s", "$5", "-1", "1e999", "fp8"]),
)
KEYS = st.one_of(st.sampled_from([*words(), "include", "exclude", "name", "prices"]), SCALARS)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=8,
)
SECTION = st.dictionaries(KEYS, VALUES, max_size=4)
FILES = st.dictionaries(
    st.sampled_from(["defaults", "scenarios", "matrix", "other"]),
    st.one_of(VALUES, SECTION, st.dictionaries(st.text(max_size=5), SECTION, max_size=3)),
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=FILES)
def test_hostile_content_gives_scenarios_or_one_line(catalog: Catalog, content: dict[str, Any]) -> None:
    said = ""
    try:
        found = scenarios_of(catalog, content)
    except InputError as error:
        said = str(error)
        found = ()
    assert bool(found) != bool(said) and len(said) < 2000
    assert len({s.name for s in found}) == len(found)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(alphabet=st.sampled_from("scenariomtxdful: {}[],&*!|>-'\"\n\t %@#?~01.x"), max_size=80))
def test_hostile_text_gives_scenarios_or_one_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(text, encoding="utf-8")
    said, found = "", ()
    try:
        found = read_scenarios(path, word)
    except InputError as error:
        said = str(error)
    assert found or "s.yaml" in said


ONE = st.fixed_dictionaries(
    {},
    optional={
        key: st.one_of(
            SCALARS, st.lists(st.text(max_size=6), max_size=3), st.dictionaries(st.text(max_size=4), st.integers())
        )
        for key in words()
    },
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(options=ONE)
def test_hostile_values_of_every_option(catalog: Catalog, options: dict[str, Any]) -> None:
    said, found = "", ()
    try:
        found = scenarios_of(catalog, {"scenarios": {"s": options}})
    except InputError as error:
        said = str(error)
    assert found or said.startswith("scenarios: scenario 's': ")
