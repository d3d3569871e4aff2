"""Readers of results as benchmarks write them: one module a tool, each with `read`, from a file to runs."""

from __future__ import annotations

import importlib
from pathlib import Path

from tokopt.domain.importing import MeasuredRun, ResultTool

from .reading import MOST_COUNTED, STATISTICS

__all__ = ["MOST_COUNTED", "STATISTICS", "read_results"]

MODULES = {
    ResultTool.AIPERF: "aiperf",
    ResultTool.GUIDELLM: "guidellm",
    ResultTool.VLLM_BENCH: "vllm_bench",
    ResultTool.INFERENCEX: "inferencex",
}


def read_results(tool: ResultTool, path: str | Path) -> tuple[MeasuredRun, ...]:
    """Return the runs of a result file.

    Raises:
        InputError: In one line, with file and field: it cannot be read, or it is no result of the tool.
    """
    module = importlib.import_module(f"{__name__}.{MODULES[tool]}")
    found: tuple[MeasuredRun, ...] = module.read(Path(path))
    return found
