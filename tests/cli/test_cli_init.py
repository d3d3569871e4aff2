"""Files to start from: they work as they are, and each option in them works once it is used."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

import tokopt
from tokopt.api.comparing_scenarios import scenarios_of, words
from tokopt.catalog import Catalog
from tokopt.cli import app
from tokopt.cli.init import KINDS

SCENARIOS = files("tokopt.cli").joinpath("templates", "scenarios.yaml").read_text(encoding="utf-8")
UNUSED = re.compile(r"^  # (?P<word>[a-z-]+): (?P<value>.*?)(?: # .*)?$", re.MULTILINE)
WITH = {  # options that need another one
    "osl": {"isl": 2048},
    "exceed": {"power-mode": "drawn", "power": "1MW"},
    "pue": {"power": "1MW"},
    "power-basis": {"power": "1MW"},
    "power-mode": {"power": "1MW"},
    "spot-reserve": {"market": "on_demand,spot"},
    "max-spot-share": {"market": "on_demand,spot"},
    "change-cost": {"current": None},
}


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_every_option_of_scenarios_is_in_the_file() -> None:
    defaults = set(yaml.safe_load(SCENARIOS)["defaults"])
    used = {word for each in yaml.safe_load(SCENARIOS)["scenarios"].values() for word in each}
    mentioned = defaults | used | {match["word"] for match in UNUSED.finditer(SCENARIOS)} | {"workloads"}
    assert mentioned == set(words())


@pytest.mark.parametrize("match", list(UNUSED.finditer(SCENARIOS)), ids=lambda match: match["word"])
def test_options_that_are_not_used_yet_work_once_they_are(
    catalog: Catalog, match: re.Match[str], tmp_path: Path
) -> None:
    word, value = match["word"], yaml.safe_load(match["value"])
    asked: dict[str, Any] = {"model": "llama-3.1-70b", "workload": "chat", "sla": "40ms", "demand": "40req/s"}
    fleet = tmp_path / "fleet.yaml"
    fleet.write_text("fleet:\n  - {accelerator: h100_sxm, provider: aws, market: on_demand, units: 2}\n")
    more = WITH.get(word, {})
    if word == "current":
        value = str(fleet)
    asked |= {name: str(fleet) if name == "current" else each for name, each in more.items()} | {word: value}
    if "power" in more:
        del asked["demand"]
    (found,) = scenarios_of(catalog, {"scenarios": {"one": asked}})
    plain = {name: each for name, each in asked.items() if name != word}
    (without,) = scenarios_of(catalog, {"scenarios": {"one": plain}})
    as_by_default = {"objective", "time-limit", "power-basis", "spot-reserve", "exceed", "max-spot-share"}
    assert found.request != without.request or word in as_by_default


def test_scenarios_work_as_they_are(catalog: Catalog, tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    assert run("init", str(path)).exit_code == 0
    found = scenarios_of(catalog, path)
    assert len(found) == 7
    assert f"--scenarios {path}" in path.read_text()


def test_workloads_and_prices_work_as_they_are(catalog: Catalog, tmp_path: Path) -> None:
    workloads, prices = tmp_path / "w.yaml", tmp_path / "p.csv"
    assert run("init", str(workloads), "--kind", "workloads").exit_code == 0
    assert run("init", "--out", str(prices), "--kind", "prices").exit_code == 0
    plan = tokopt.plan(workloads=str(workloads), prices=str(prices), catalog=catalog)
    assert plan.status == "optimal" and len(plan.request.periods) == 3
    assert tokopt.check_prices([str(prices)]).rejected == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_dash_prints_the_file(kind: str) -> None:
    done = run("init", "--kind", kind, "--out", "-")
    assert done.exit_code == 0 and "{file}" not in done.stdout and len(done.stdout.splitlines()) >= 5


def test_a_file_that_is_there_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("mine")
    done = run("init", str(path))
    assert done.exit_code == 2 and "--force" in done.stderr and path.read_text() == "mine"
    assert run("init", str(path), "--force").exit_code == 0 and "scenarios:" in path.read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--kind", "scenario"), "did you mean scenarios"),
        (("/no/such/folder/x.yaml",), "there is no directory"),
        (("a.yaml", "--out", "b.yaml"), "two files"),
    ],
)
def test_what_cannot_be_is_one_line(arguments: tuple[str, ...], said: str) -> None:
    done = run("init", *arguments)
    assert done.exit_code == 2 and said in done.stderr and done.stderr.count("\n") == 1
