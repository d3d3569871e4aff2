"""`vllm bench serve`: the JSON of `--save-result`, with `--append-result` one a line. SGLang's older ones are alike."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tokopt.domain.importing import MeasuredRun
from tokopt.errors import InputError

from .reading import Place, latency, read_documents, require_object

_ENDLESS: Final = ("inf", "infinity")


def read(path: Path) -> tuple[MeasuredRun, ...]:
    """Return the runs of a result file.

    Raises:
        InputError: It is none of `vllm bench serve`.
    """
    return tuple(_run(require_object(place, "a result of vllm bench serve")) for place in read_documents(path))


def _run(place: Place) -> MeasuredRun:
    completed = place.number("completed")
    if completed < 1:
        raise InputError(f"{place.at('completed')}: no request was answered")
    failed = place.maybe("failed")
    return MeasuredRun(
        where=str(place),
        model=place.text("model_id"),
        input_tokens=place.number("total_input_tokens") / completed,
        output_tokens=place.number("total_output_tokens") / completed,
        requests=round(completed),
        failed=None if failed is None else round(failed),
        concurrency=place.maybe("max_concurrency"),
        rate=_rate(place),
        requests_per_s=place.maybe("request_throughput"),
        output_tok_per_s=place.number("output_throughput"),
        total_tok_per_s=place.maybe("total_token_throughput"),
        ttft_ms=latency(place, "ttft"),
        tpot_ms=latency(place, "tpot"),
        e2e_ms=latency(place, "e2el"),
        measured_on=_day(place.text("date")),
    )


def _rate(place: Place) -> float | None:
    """Return the rate that was asked for; none where all came at once, or as fast as others were answered."""
    stated = place.get("request_rate")
    if stated is None or (isinstance(stated.value, str) and stated.value.lower() in _ENDLESS):
        return None
    if isinstance(stated.value, float) and stated.value == float("inf"):
        return None
    return place.number("request_rate") or None


def _day(text: str | None) -> str | None:
    """Return the day of a date as it is written there: 20261129-101500."""
    digits = (text or "")[:8]
    return f"{digits[:4]}-{digits[4:6]}-{digits[6:]}" if len(digits) == 8 and digits.isdigit() else None
