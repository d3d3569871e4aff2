"""Heavy libraries are imported where they are used: `import tokopt` and `--help` must not wait for them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {
    "dask",
    "jinja2",
    "distributed",
    "highspy",
    "matplotlib",
    "numba",
    "ortools",
    "optuna",
    "polars",
    "plotille",
    "aiconfigurator_core",
    "pandas",
    "scipy",
}
HELP = """
import contextlib, io, json, runpy, sys
sys.argv = ["tokopt", *{arguments!r}]
said = io.StringIO()
try:
    with contextlib.redirect_stdout(said):
        runpy.run_module("tokopt", run_name="__main__", alter_sys=True)
except SystemExit as end:
    assert not end.code, end.code
assert "Usage" in said.getvalue(), said.getvalue()
print(json.dumps(sorted(sys.modules)))
"""


def modules_after(code: str) -> set[str]:
    """Top-level names of what a fresh interpreter has imported after running the code."""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr
    return {name.split(".")[0] for name in json.loads(run.stdout.splitlines()[-1])}


@pytest.mark.parametrize("module", ["tokopt", "tokopt.cli", "tokopt.__main__"])
def test_importing_is_light(module: str) -> None:
    loaded = modules_after(f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))")
    assert "tokopt" in loaded
    assert not loaded & HEAVY


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["plan", "--help"],
        ["report", "--help"],
        ["validate", "--help"],
        ["calibrate", "--help"],
        ["compare", "--help"],
        ["simulate", "--help"],
        ["tune", "--help"],
        ["trace", "fit", "--help"],
    ],
    ids=" ".join,
)
def test_help_is_light(arguments: list[str]) -> None:
    loaded = modules_after(HELP.format(arguments=arguments))
    assert not loaded & (HEAVY | {"numpy"})


def test_planning_needs_no_scipy() -> None:
    asked = 'power="100kW", model="qwen3-8b", gpus="h100_sxm", workload="chat"'
    loaded = modules_after(f"import json, sys, tokopt; tokopt.plan({asked}); print(json.dumps(sorted(sys.modules)))")
    assert "ortools" in loaded or "numpy" in loaded
    assert "scipy" not in loaded
