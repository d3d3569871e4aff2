"""InferenceX: the rows of its aggregated results (`agg_*.json`), and of its data base (`metrics` apart).

Times are in seconds. In rows of two pools, output throughput is by accelerator that decodes; it is brought to all of
them here. Degrees of tensor parallelism with attention data parallelism count all accelerators of a worker.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from tokopt.domain.importing import MeasuredRun
from tokopt.errors import InputError

from .reading import Place, latency, read_documents, require_object

_MS_PER_S: Final = 1000.0
_FRAMEWORKS: Final = {"trt": "tensorrt-llm", "trtllm": "tensorrt-llm", "dynamo-trt": "tensorrt-llm"}
_NOTHING: Final = ("", "none", "off", "false")


def read(path: Path) -> tuple[MeasuredRun, ...]:
    """Return the runs of a result file.

    Raises:
        InputError: It is none of InferenceX.
    """
    return tuple(_run(require_object(place, "a row of InferenceX")) for place in read_documents(path))


def _run(place: Place) -> MeasuredRun:
    metrics = place.get("metrics") or place
    facts, accelerators, decoding = _facts(place)
    output = metrics.number("output_tput_per_gpu")
    if decoding and facts["serving_mode"] == "disagg":
        output *= decoding / accelerators
    return MeasuredRun(
        where=str(place),
        model=place.text("model"),
        input_tokens=place.maybe("isl"),
        output_tokens=place.maybe("osl"),
        concurrency=place.number("conc"),
        output_tok_per_s_per_gpu=output,
        total_tok_per_s_per_gpu=metrics.maybe("tput_per_gpu"),
        ttft_ms=latency(metrics, "ttft", unit="", scale=_MS_PER_S),
        tpot_ms=latency(metrics, "tpot", unit="", scale=_MS_PER_S),
        e2e_ms=latency(metrics, "e2el", unit="", scale=_MS_PER_S),
        measured_on=(place.text("date") or "")[:10] or None,
        facts=facts,
    )


def _facts(place: Place) -> tuple[dict[str, Any], int, int]:
    """Return what a row says of its deployment, its accelerators, and those of them that decode where that is apart."""
    framework = (place.text("framework") or "").lower()
    hardware = place.text("hw") or place.text("hardware")
    speculation = place.text("spec_method") or place.text("spec_decoding") or place.text("mtp") or ""
    facts: dict[str, Any] = {
        "vendor_system": hardware.split("-")[0] if hardware else None,
        "framework": _FRAMEWORKS.get(framework, framework.removeprefix("dynamo-")) or None,
        "weight_precision": place.text("precision"),
        "speculative": None if speculation.lower() in _NOTHING else speculation,
    }
    if _truth(place, "disagg"):
        facts["serving_mode"] = "disagg"
        for pool in ("prefill", "decode"):
            facts |= _layout(place, f"{pool}_")
            facts[f"{pool}_workers"] = place.count(f"{pool}_num_workers")
        prefills, decodes = place.count("num_prefill_gpu"), place.count("num_decode_gpu")
        return facts | {"n_gpus": prefills + decodes}, prefills + decodes, decodes
    facts["serving_mode"] = "agg"
    prefix = "" if place.get("tp") is not None else "decode_"
    layout = {name.removeprefix(prefix): value for name, value in _layout(place, prefix).items()}
    # Rows of several nodes state their workers; those of one node state none, or zero.
    workers = place.count("decode_num_workers") if place.maybe("decode_num_workers") else 1
    accelerators = layout["tp"] * layout["dp"] * workers
    return facts | layout | {"n_gpus": accelerators}, accelerators, 0


def _layout(place: Place, prefix: str) -> dict[str, int]:
    wide = place.count(f"{prefix}tp")
    ranks = wide if _truth(place, f"{prefix}dp_attention") else 1
    ep = place.count(f"{prefix}ep") if place.maybe(f"{prefix}ep") else 1
    return {f"{prefix}tp": wide // ranks, f"{prefix}ep": ep, f"{prefix}dp": ranks}


def _truth(place: Place, key: str) -> bool:
    """Return a flag that may be written as a text."""
    found = place.get(key)
    if found is None or isinstance(found.value, bool):
        return found is not None and bool(found.value)
    if isinstance(found.value, str) and found.value.lower() in ("true", "false", ""):
        return found.value.lower() == "true"
    raise InputError(f"{found}: true or false is needed")
