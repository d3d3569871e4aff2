"""Results of benchmarks, made up in the formats of the tools that write them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

STATISTICS = ("p50", "p75", "p90", "p95", "p99")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One run, as if it had been measured."""

    model: str = "Qwen/Qwen3-8B-FP8"
    isl: float = 1024.0
    osl: float = 512.0
    requests: int = 640
    failed: int = 0
    concurrency: int | None = 32
    rate: float | None = None
    requests_per_s: float = 6.0
    ttft_ms: float = 80.0
    tpot_ms: float = 9.5
    spread: float = 1.5  # of p99 over the mean

    @property
    def e2e_ms(self) -> float:
        return self.ttft_ms + self.tpot_ms * (self.osl - 1)

    @property
    def output_tok_per_s(self) -> float:
        return self.requests_per_s * self.osl

    def statistics(self, mean: float, scale: float = 1.0) -> dict[str, float]:
        """Return percentiles around a mean, which they lie on both sides of."""
        steps = dict(zip(STATISTICS, (0.95, 1.1, 1.2, 1.3, self.spread), strict=True))
        return {"mean": mean * scale} | {name: mean * scale * step for name, step in steps.items()}


def aiperf(run: Measured) -> dict[str, Any]:
    """Return `profile_export_aiperf.json`."""

    def metric(unit: str, mean: float, spread: bool = True) -> dict[str, Any]:
        values = run.statistics(mean)
        return {"unit": unit, "avg": values.pop("mean"), **(values if spread else {})}

    load: dict[str, Any] = {"type": "concurrency", "concurrency": run.concurrency}
    if run.rate is not None:
        load = {"type": "poisson", "rate": run.rate}
    phases = [
        {"name": "warmup", "kind": "warmup", "type": "concurrency", "concurrency": 1, "requests": 10},
        {"name": "profiling", "kind": "profiling", "requests": run.requests, **load},
    ]
    return {
        "schema_version": "1.4",
        "aiperf_version": "0.13.0",
        "request_throughput": metric("requests/sec", run.requests_per_s, False),
        "request_latency": metric("ms", run.e2e_ms),
        "request_count": metric("requests", run.requests, False),
        "error_request_count": metric("requests", run.failed, False),
        "time_to_first_token": metric("ms", run.ttft_ms),
        "inter_token_latency": metric("ms", run.tpot_ms),
        "output_token_throughput": metric("tokens/sec", run.output_tok_per_s, False),
        "total_token_throughput": metric("tokens/sec", run.requests_per_s * (run.isl + run.osl), False),
        "input_sequence_length": metric("tokens", run.isl),
        "output_sequence_length": metric("tokens", run.osl),
        "input_config": {
            "models": {"items": [{"name": run.model}]},
            "endpoint": {"urls": ["http://127.0.0.1:8000"], "type": "chat", "streaming": True},
            "datasets": [{"name": "main", "type": "synthetic", "prompts": {"isl": run.isl, "osl": run.osl}}],
            "phases": phases,
        },
        "start_time": "2026-11-29T10:15:00",
        "end_time": "2026-11-29T10:17:00",
    }


def aiperf_csv(run: Measured) -> str:
    """Return `profile_export_aiperf.csv`."""
    names = ("avg", "min", "max", "p50", "p75", "p90", "p95", "p99", "std")
    rows = [["Metric", *names]]
    for heading, mean in (
        ("Input Sequence Length (tokens)", run.isl), ("Inter Token Latency (ms)", run.tpot_ms),
        ("Output Sequence Length (tokens)", run.osl), ("Request Latency (ms)", run.e2e_ms),
        ("Time to First Token (ms)", run.ttft_ms),
    ):  # fmt: skip
        values = run.statistics(mean)
        rows.append([heading, *(f"{values.get('mean' if name == 'avg' else name, 0.0):.4f}" for name in names)])
    rows += [[], ["Metric", "Value"], ["Request Count", str(run.requests)]]
    rows += [["Output Token Throughput (tokens/sec)", f"{run.output_tok_per_s:.4f}"]]
    rows += [["Request Throughput (requests/sec)", f"{run.requests_per_s:.4f}"]]
    return "\n".join(",".join(row) for row in rows) + "\n"


def aiperf_records(run: Measured) -> str:
    """Return `profile_export.jsonl` of a closed loop: requests follow one another on each of its places."""
    lines = [json.dumps({"metadata": {"benchmark_phase": "warmup", "request_start_ns": 0, "request_end_ns": 1},
                         "metrics": {"time_to_first_token": {"value": 1e6, "unit": "ms"}}})]  # fmt: skip
    took = run.e2e_ms * 1e6
    for number in range(run.requests):
        start = 1e9 + number // (run.concurrency or 1) * took
        metrics = {
            "time_to_first_token": {"value": run.ttft_ms * 1e6, "unit": "ns"},
            "inter_token_latency": {"value": run.tpot_ms, "unit": "ms"},
            "request_latency": {"value": run.e2e_ms, "unit": "ms"},
            "input_sequence_length": {"value": run.isl, "unit": "tokens"},
            "output_sequence_length": {"value": run.osl, "unit": "tokens"},
        }
        phase = {"benchmark_phase": "profiling", "request_start_ns": start, "request_end_ns": start + took}
        lines.append(json.dumps({"metadata": phase, "metrics": metrics}))
    failed = {"benchmark_phase": "profiling", "request_start_ns": 0, "request_end_ns": 9}
    metrics = {"request_latency": {"value": 1, "unit": "ms"}}
    lines.append(json.dumps({"metadata": failed, "metrics": metrics, "error": {"code": 500}}))
    return "\n".join(lines) + "\n"


def guidellm(*runs: Measured) -> dict[str, Any]:
    """Return `benchmarks.json`, with one benchmark a run."""
    return {
        "metadata": {"version": 2, "guidellm_version": "0.8.1"},
        "config": {"spec": {"backend": {"kind": "openai_http", "model": runs[0].model}}},
        "benchmarks": [_benchmark(run) for run in runs],
    }


def _benchmark(run: Measured) -> dict[str, Any]:
    def summed(mean: float, scale: float = 1.0) -> dict[str, Any]:
        values = run.statistics(mean, scale)
        return {"successful": {"mean": values.pop("mean"), "median": values["p50"], "percentiles": values}}

    load = {"type_": "concurrent", "streams": run.concurrency}
    if run.rate is not None:
        load = {"type_": "poisson", "rate": run.rate}
    return {
        "config": {"strategy": load, "backend": {"model": run.model}},
        "start_time": 1_795_946_100.0,
        "metrics": {
            "request_totals": {"successful": run.requests, "errored": run.failed, "incomplete": 0},
            "requests_per_second": summed(run.requests_per_s),
            "request_concurrency": summed(run.requests_per_s * run.e2e_ms / 1e3),
            "request_latency": summed(run.e2e_ms, 1e-3),
            "prompt_token_count": summed(run.isl),
            "output_token_count": summed(run.osl),
            "time_to_first_token_ms": summed(run.ttft_ms),
            "time_per_output_token_ms": summed(run.e2e_ms / run.osl),
            "inter_token_latency_ms": summed(run.tpot_ms),
            "output_tokens_per_second": summed(run.output_tok_per_s),
            "tokens_per_second": summed(run.requests_per_s * (run.isl + run.osl)),
        },
    }


def vllm_bench(run: Measured) -> dict[str, Any]:
    """Return what `vllm bench serve --save-result` writes."""
    result: dict[str, Any] = {
        "date": "20261129-101500",
        "backend": "openai-chat",
        "model_id": run.model,
        "num_prompts": run.requests + run.failed,
        "request_rate": "inf" if run.rate is None else run.rate,
        "burstiness": 1.0,
        "max_concurrency": run.concurrency if run.rate is None else None,
        "duration": run.requests / run.requests_per_s,
        "completed": run.requests,
        "failed": run.failed,
        "total_input_tokens": round(run.requests * run.isl),
        "total_output_tokens": round(run.requests * run.osl),
        "request_throughput": run.requests_per_s,
        "output_throughput": run.output_tok_per_s,
        "total_token_throughput": run.requests_per_s * (run.isl + run.osl),
    }
    for name, mean in (("ttft", run.ttft_ms), ("tpot", run.tpot_ms), ("itl", run.tpot_ms)):
        values = run.statistics(mean)
        result |= {
            f"mean_{name}_ms": values["mean"],
            f"median_{name}_ms": values["p50"],
            f"p99_{name}_ms": values["p99"],
        }
    return result


def inferencex(run: Measured, **facts: Any) -> dict[str, Any]:
    """Return a row of `agg_*.json`, of one worker unless the facts are of two pools."""
    deployment: Mapping[str, Any] = {"tp": 1, "ep": 1, "dp_attention": "false", "is_multinode": False} | facts
    gpus = deployment.get("num_prefill_gpu", 0) + deployment.get("num_decode_gpu", deployment.get("tp") or 1)
    decoding = deployment.get("num_decode_gpu", gpus)
    row: dict[str, Any] = {
        "hw": "h100-cw",
        "conc": run.concurrency,
        "model": run.model,
        "framework": "vllm",
        "precision": "fp8",
        "spec_decoding": "none",
        "isl": run.isl,
        "osl": run.osl,
        **deployment,
        "tput_per_gpu": run.requests_per_s * (run.isl + run.osl) / gpus,
        "output_tput_per_gpu": run.output_tok_per_s / decoding,
    }
    for name, mean in (("ttft", run.ttft_ms), ("tpot", run.tpot_ms), ("e2el", run.e2e_ms)):
        values = run.statistics(mean, 1e-3)
        row |= {f"mean_{name}": values["mean"], f"median_{name}": values["p50"], f"p99_{name}": values["p99"]}
    return row
