"""`tokopt doctor`: a sound installation is fine, and what is broken is named with what to do about it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import tokopt
from tokopt.api import doctoring
from tokopt.cli import app
from tokopt.domain.checkup import Checkup, Health


def by_name(found: Checkup) -> dict[str, Any]:
    return {each.what: each for each in found.findings}


def test_this_installation_works() -> None:
    done = CliRunner().invoke(app, ["doctor", "--json"])
    assert done.exit_code == 0, done.output
    found = {each["what"]: each for each in json.loads(done.stdout)["findings"]}
    assert {"tokopt", "catalog", "prices", "solver", "simulator", "machine"} <= set(found)
    assert found["solver"]["health"] == "fine" and "holds when it is checked again" in found["solver"]["found"]
    text = CliRunner().invoke(app, ["doctor"]).stdout
    assert "tokopt works here" in text


def test_extras_that_are_missing_are_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "dask" else there(name, *more))
    monkeypatch.setitem(doctoring.EXTRAS, "cluster", (("numpy", "dask"), "comparisons"))
    extra = by_name(tokopt.doctor())["extra cluster"]
    assert extra.health is Health.MISSING and extra.mend == "pip install 'tokopt[cluster]'"


def test_extras_are_those_of_the_package() -> None:
    import importlib.metadata

    offered = set(importlib.metadata.metadata("tokopt").get_all("Provides-Extra") or ())
    assert offered - {"test", "lint", "dev", "docs", "web-test"} <= set(doctoring.EXTRAS)


def test_a_catalog_that_is_none_is_a_fault_with_its_place(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["doctor", "--catalog", str(tmp_path / "none")])
    assert done.exit_code == 2
    assert "FAULT" in done.stdout and "no such directory" in " ".join(done.stdout.split())


def test_a_broken_overlay_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "sites.yaml").write_text("sites: 3\n")
    found = tokopt.doctor(catalog=str(tmp_path))
    assert not found.works
    assert any("sites.yaml" in each.found for each in found.findings if each.health is Health.FAULT)


def test_what_breaks_while_it_is_looked_at_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise OSError("libhighs.so: cannot open shared object file")

    monkeypatch.setattr("tokopt.api.plan", broken)
    found = by_name(tokopt.doctor())
    assert found["a small plan"].health is Health.FAULT and "libhighs.so" in found["a small plan"].found
    assert found["machine"].health is Health.FINE  # the rest is looked at all the same


def test_old_prices_and_little_memory_want_care(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctoring, "OLD_PRICES_DAYS", -10_000)
    monkeypatch.setattr(doctoring, "_memory_gib", lambda: 1.0)
    found = tokopt.doctor()
    assert by_name(found)["prices"].health is Health.CARE and "days old" in by_name(found)["prices"].found
    assert by_name(found)["machine"].health is Health.CARE
    assert found.works
