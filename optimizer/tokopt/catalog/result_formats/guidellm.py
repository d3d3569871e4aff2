"""GuideLLM: `benchmarks.json` and `.yaml`, with one benchmark for each load.

Its inter-token latency of a request leaves the first token out, which is what tokopt calls TPOT; its "time per output
token" does not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import yaml

from tokopt.domain.importing import MeasuredRun
from tokopt.errors import InputError

from .reading import STATISTICS, Place, read_documents, read_text, require_object

_MS_PER_S: Final = 1000.0


def read(path: Path) -> tuple[MeasuredRun, ...]:
    """Return the runs of a report.

    Raises:
        InputError: It is no report of GuideLLM.
    """
    if path.is_dir():
        path = path / "benchmarks.json"
    if path.suffix.lower() == ".csv":
        raise InputError(f"{path}: GuideLLM's CSV is not read; its JSON is: --output kind=json,path=benchmarks.json")
    runs: list[MeasuredRun] = []
    for place in _documents(path):
        report = require_object(place, "a report of GuideLLM")
        found = [_run(report, benchmark) for benchmark in report.at("benchmarks").items()]
        if not found:
            raise InputError(f"{report.at('benchmarks')}: is empty: no load was measured")
        runs += found
    return tuple(runs)


def _documents(path: Path) -> tuple[Place, ...]:
    if path.suffix.lower() not in (".yaml", ".yml"):
        return read_documents(path)
    try:
        return (Place(str(path), "", yaml.safe_load(read_text(path))),)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark is not None else ""
        raise InputError(f"{path}{line}: not YAML: {getattr(error, 'problem', None) or error}") from None
    except RecursionError:
        raise InputError(f"{path}: not YAML: nested too deeply") from None
    except (ValueError, LookupError, AttributeError):  # what the reader says of scalars that are not of their type
        raise InputError(
            f"{path}: not YAML: has a value that is not of its type, such as a day that no month has, or a number of "
            "thousands of digits"
        ) from None


def _run(report: Place, benchmark: Place) -> MeasuredRun:
    metrics = require_object(benchmark, "a benchmark").at("metrics")
    concurrency, rate = _load(benchmark)
    totals = metrics.get("request_totals")
    started = benchmark.maybe("start_time")
    return MeasuredRun(
        where=str(benchmark),
        model=report.text("config", "spec", "backend", "model") or benchmark.text("config", "backend", "model"),
        input_tokens=_mean(metrics, "prompt_token_count"),
        output_tokens=_mean(metrics, "output_token_count"),
        requests=_count(totals, "successful"),
        failed=_count(totals, "errored"),
        concurrency=concurrency,
        rate=rate,
        in_flight=_mean(metrics, "request_concurrency"),
        requests_per_s=_mean(metrics, "requests_per_second"),
        output_tok_per_s=_mean(metrics, "output_tokens_per_second"),
        total_tok_per_s=_mean(metrics, "tokens_per_second"),
        ttft_ms=_latency(metrics, "time_to_first_token_ms"),
        tpot_ms=_latency(metrics, "inter_token_latency_ms"),
        e2e_ms=_latency(metrics, "request_latency", _MS_PER_S),
        measured_on=_day(started),
    )


def _load(benchmark: Place) -> tuple[float | None, float | None]:
    """Return the requests in flight and the requests/s that were asked for, whichever it is."""
    strategy = benchmark.get("config", "strategy")
    if strategy is None:
        return None, None
    rate = strategy.maybe("rate")
    if rate:
        return None, rate
    return strategy.maybe("streams") or (1.0 if strategy.text("type_") == "synchronous" else None), None


def _count(totals: Place | None, status: str) -> int | None:
    value = None if totals is None else totals.maybe(status)
    return None if value is None else round(value)


def _mean(metrics: Place, name: str) -> float | None:
    return metrics.maybe(name, "successful", "mean")


def _latency(metrics: Place, name: str, scale: float = 1.0) -> dict[str, float]:
    found = metrics.get(name, "successful")
    if found is None:
        return {}
    values = {key: found.maybe("mean") if key == "mean" else found.maybe("percentiles", key) for key in STATISTICS}
    return {key: value * scale for key, value in values.items() if value is not None}


def _day(seconds: float | None) -> str | None:
    """Return the day of a time in seconds since 1970."""
    if not seconds:
        return None
    import datetime

    try:
        return datetime.datetime.fromtimestamp(seconds, datetime.UTC).date().isoformat()
    except (OverflowError, ValueError, OSError):
        return None
