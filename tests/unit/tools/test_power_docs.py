"""docs/power.md says what the model says."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tokopt.catalog import Catalog

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_power_docs", ROOT / "tools" / "build_power_docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_tool_makes(tool: ModuleType) -> None:
    assert tool.main(["--check"]) == 0, "run: python tools/build_power_docs.py"


def test_the_catalogs_exponent_is_the_fitted_one(tool: ModuleType, catalog: Catalog) -> None:
    fitted = tool.fitted_exponent(catalog)
    curves = {record.power_curve for record in catalog.accelerators.values() if record.power_curve}
    assert {curve.exponent for curve in curves} == {round(fitted, 1)}
    for published, predicted in tool.speeds(catalog):
        assert predicted == pytest.approx(published, rel=0.05)
