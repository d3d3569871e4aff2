"""AIPerf: `profile_export_aiperf.json` and `.csv`, and its records of single requests, `profile_export.jsonl`.

Its inter-token latency of a request is the time from the first token to the last over the tokens between them, which is
what tokopt calls TPOT.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from tokopt.domain.importing import MeasuredRun
from tokopt.errors import InputError

from .reading import STATISTICS, Place, in_ms, read_documents, read_text, require_object

TTFT: Final = "time_to_first_token"
TPOT: Final = "inter_token_latency"
E2E: Final = "request_latency"
INPUT: Final = "input_sequence_length"
OUTPUT: Final = "output_sequence_length"
OUTPUT_RATE: Final = "output_token_throughput"
TOTAL_RATE: Final = "total_token_throughput"
REQUEST_RATE: Final = "request_throughput"
_NS_PER_S: Final = 1e9
_HEADINGS: Final = {  # of the CSV -> metric
    "time to first token": TTFT,
    "inter token latency": TPOT,
    "request latency": E2E,
    "input sequence length": INPUT,
    "output sequence length": OUTPUT,
    "output token throughput": OUTPUT_RATE,
    "total token throughput": TOTAL_RATE,
    "request throughput": REQUEST_RATE,
    "request count": "request_count",
    "error request count": "error_request_count",
}


def read(path: Path) -> tuple[MeasuredRun, ...]:
    """Return the runs of a result file.

    Raises:
        InputError: It is none of AIPerf's.
    """
    if path.is_dir():
        path = path / "profile_export_aiperf.json"
    if path.suffix.lower() == ".csv":
        return (_summary(_from_csv(path)),)
    documents = [require_object(place, "a result of AIPerf") for place in read_documents(path)]
    if all(place.get("metadata") and place.get("metrics") for place in documents):
        return (_records(path, documents),)
    return tuple(_summary(place) for place in documents)


def _summary(place: Place) -> MeasuredRun:
    """Return a run of which statistics are given."""
    if place.get("input_config") is None and place.get(OUTPUT_RATE) is None and place.get(TTFT) is None:
        raise InputError(f"{place}: is no result of AIPerf: {TTFT} and {OUTPUT_RATE} are missing")
    concurrency, rate = _load(place)
    requests, failed = place.maybe("request_count", "avg"), place.maybe("error_request_count", "avg")
    started = place.text("start_time")
    return MeasuredRun(
        where=str(place),
        model=_model(place),
        input_tokens=place.maybe(INPUT, "avg"),
        output_tokens=place.maybe(OUTPUT, "avg"),
        requests=None if requests is None else round(requests),
        failed=None if failed is None else round(failed),
        concurrency=concurrency,
        rate=rate,
        requests_per_s=place.maybe(REQUEST_RATE, "avg"),
        output_tok_per_s=place.maybe(OUTPUT_RATE, "avg"),
        total_tok_per_s=place.maybe(TOTAL_RATE, "avg"),
        ttft_ms=_latency(place, TTFT),
        tpot_ms=_latency(place, TPOT),
        e2e_ms=_latency(place, E2E),
        measured_on=started[:10] if started else None,
        cut_short=_flag(place, "was_cancelled") is True or _flag(place, "is_complete") is False,
    )


def _flag(place: Place, key: str) -> bool | None:
    found = place.get(key)
    return found.value if found is not None and isinstance(found.value, bool) else None


def _latency(place: Place, metric: str) -> dict[str, float]:
    found = place.get(metric)
    if found is None:
        return {}
    scale = in_ms(found, found.text("unit"))
    values = {name: found.maybe("avg" if name == "mean" else name) for name in STATISTICS}
    return {name: value * scale for name, value in values.items() if value is not None}


def _model(place: Place) -> str | None:
    """Return the model that was asked for; older versions state it with the endpoint."""
    for keys in (("input_config", "models", "items"), ("input_config", "endpoint", "model_names")):
        names = place.get(*keys)
        if names is not None:
            first = next(names.items(), None)
            if first is not None:
                return first.text("name") if isinstance(first.value, Mapping) else str(first.value)
    return None


def _load(place: Place) -> tuple[float | None, float | None]:
    """Return the requests in flight and the requests/s that were asked for; older versions state them apart."""
    phases = place.get("input_config", "phases")
    if phases is not None:
        for phase in phases.items():
            if (phase.text("kind") or phase.text("name")) in ("profiling", None):
                rate = phase.maybe("rate")
                return (None if rate else phase.maybe("concurrency")), rate or None
    loadgen = place.get("input_config", "loadgen")
    if loadgen is not None:
        rate = loadgen.maybe("request_rate")
        return (None if rate else loadgen.maybe("concurrency")), rate or None
    return None, None


def _from_csv(path: Path) -> Place:
    """Return the CSV export as the document that the JSON export would be.

    Raises:
        InputError: It is no CSV.
    """
    document: dict[str, dict[str, object]] = {}
    header: list[str] = []
    try:
        rows = list(csv.reader(io.StringIO(read_text(path))))
    except csv.Error as error:
        raise InputError(f"{path}: not CSV: {error}") from None
    for row in rows:
        if not row or not any(cell.strip() for cell in row):
            continue
        if row[0].strip() == "Metric":
            header = [cell.strip().lower() for cell in row[1:]]
            continue
        name, unit = _heading(row[0])
        if name in _HEADINGS:
            cells = dict(zip(header, (cell.strip() for cell in row[1:]), strict=False))
            entry: dict[str, object] = {key: value for key, value in cells.items() if value}
            if "value" in entry:
                entry["avg"] = entry.pop("value")
            document[_HEADINGS[name]] = entry | ({"unit": unit} if unit else {})
    return Place(str(path), "", document)


def _heading(text: str) -> tuple[str, str | None]:
    found = re.fullmatch(r"\s*(.*?)\s*(?:\(([^)]*)\))?\s*", text)
    assert found is not None
    return found[1].lower(), found[2]


def _records(path: Path, documents: Sequence[Place]) -> MeasuredRun:
    """Return a run of which every request is given."""
    measured = [
        place
        for place in documents
        if place.text("metadata", "benchmark_phase") in (None, "profiling") and place.get("error") is None
    ]
    failed = sum(place.get("error") is not None for place in documents)
    if not measured:
        raise InputError(f"{path}: no request was answered")
    starts = [place.number("metadata", "request_start_ns") for place in measured]
    ends = [place.number("metadata", "request_end_ns") for place in measured]
    took = (max(ends) - min(starts)) / _NS_PER_S
    inputs, outputs = _values(measured, INPUT), _values(measured, OUTPUT)
    if took <= 0 or not outputs.size:
        raise InputError(f"{path}: metrics.{OUTPUT}: missing, or all requests took no time")
    return MeasuredRun(
        where=str(path),
        input_tokens=float(inputs.mean()) if inputs.size else None,
        output_tokens=float(outputs.mean()),
        requests=len(measured),
        failed=failed,
        in_flight=float(np.sum(np.array(ends) - np.array(starts)) / _NS_PER_S / took),
        requests_per_s=len(measured) / took,
        output_tok_per_s=float(outputs.sum()) / took,
        total_tok_per_s=float(outputs.sum() + inputs.sum()) / took if inputs.size else None,
        ttft_ms=_statistics(_values(measured, TTFT)),
        tpot_ms=_statistics(_values(measured, TPOT)),
        e2e_ms=_statistics(_values(measured, E2E)),
    )


def _values(records: Sequence[Place], metric: str) -> np.ndarray:
    """Return a metric of all requests that have it, times in ms."""
    found = []
    for record in records:
        place = record.get("metrics", metric)
        if place is not None:
            scale = in_ms(place, place.text("unit")) if metric in (TTFT, TPOT, E2E) else 1.0
            found.append(place.number("value") * scale)
    return np.array(found, dtype=float)


def _statistics(values: np.ndarray) -> dict[str, float]:
    if not values.size:
        return {}
    quantiles = {name: float(np.percentile(values, int(name[1:]))) for name in STATISTICS if name != "mean"}
    return {"mean": float(values.mean()), **quantiles}
