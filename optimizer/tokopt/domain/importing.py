"""Results of benchmarks as other tools write them, and the rows of measurements that they become."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum, unique
from typing import Any

from tokopt.domain.estimates import Record


@unique
class ResultTool(StrEnum):
    """Who wrote a result."""

    AIPERF = "aiperf"
    GUIDELLM = "guidellm"
    VLLM_BENCH = "vllm-bench"
    INFERENCEX = "inferencex"


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredRun:
    """One run of a benchmark as its file states it. None = the file does not say.

    Latencies are by statistic (`mean`, `p50`, ...); TPOT leaves the first token out, as tokopt's does.
    """

    where: str  # file, and place in it
    model: str | None = None
    input_tokens: float | None = None
    output_tokens: float | None = None
    requests: int | None = None
    failed: int | None = None
    concurrency: float | None = None  # stated: requests in flight of a closed loop
    rate: float | None = None  # stated: requests/s of an open one
    in_flight: float | None = None  # measured: mean requests in flight
    requests_per_s: float | None = None  # measured
    output_tok_per_s: float | None = None  # measured, of the whole deployment
    total_tok_per_s: float | None = None
    output_tok_per_s_per_gpu: float | None = None  # where the file states it by accelerator
    total_tok_per_s_per_gpu: float | None = None
    ttft_ms: Mapping[str, float] = field(default_factory=dict)
    tpot_ms: Mapping[str, float] = field(default_factory=dict)
    e2e_ms: Mapping[str, float] = field(default_factory=dict)
    measured_on: str | None = None  # ISO date
    cut_short: bool = False  # the run ended before it was complete
    facts: Mapping[str, Any] = field(default_factory=dict)  # columns of measurement tables that the file states


class ImportedResults(Record):
    """Rows in the columns of measurement tables."""

    tool: ResultTool
    files: tuple[str, ...]
    rows: tuple[dict[str, str | float | int | None], ...]  # all with the same columns
    notes: tuple[str, ...]
