"""Benchmarks that measure what a plan promises of a replica: AIPerf, or GuideLLM."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tokopt.domain.exporting import BenchmarkTool, ExportFile, OperatingPoint, Rendered, ScheduledRequest, ServingItem
from tokopt.report.exports.launching import prefix_of
from tokopt.report.exports.shell import Raw, command, remark, script, word

VERSIONS = {"aiperf": "0.13.0", "guidellm": "0.8.1"}
OWN_BLOCKS = 1 << 44  # names of blocks that no other prompt has
ADDRESS = Raw('"${URL:-http://127.0.0.1:8000}"')
PATTERNS = {0.0: "constant", 1.0: "poisson"}  # squared variation of the times between arrivals -> AIPerf's word
MS_PER_S = 1000.0
UNMEASURED = 0.1  # share of requests at each end of a run that GuideLLM leaves out


def render(items: Sequence[ServingItem], tool: BenchmarkTool = BenchmarkTool.AIPERF) -> Rendered:
    """Return a script and the requests that it sends for each item."""
    files: list[ExportFile] = []
    notes: list[str] = []
    for item in items:
        assert item.point is not None
        prefix = prefix_of(item, items)
        files += [*_WRITERS[tool](item, item.point, prefix)]
        notes += _notes(item, item.point, tool)
    return Rendered(files=tuple(files), notes=tuple(dict.fromkeys(notes)))


def _head(item: ServingItem, point: OperatingPoint, tool: str) -> list[str]:
    """Return comments that say what is measured and promised."""
    ttft = ", ".join(f"{name} {value:,.0f}" for name, value in point.ttft_ms.items())
    tpot = ", ".join(f"{name} {value:,.2f}" for name, value in point.tpot_ms.items())
    return [
        remark(
            f"{tool} {VERSIONS[tool]}: a replica of item {item.number} of the plan, {item.title} on {item.accelerator}."
        ),
        remark(f"Load: {point.requests_per_s:.4g} requests/s of {point.workload}; {len(point.requests):,} requests."),
        remark(f"Promised: TTFT {ttft} ms; TPOT {tpot} ms; {point.output_tokens_per_s:,.0f} output tokens/s."),
        remark("URL is the address of one replica, TOKENIZER a repository or folder with its tokenizer."),
        "set -euo pipefail",
        'here="$(cd "$(dirname "$0")" && pwd)"',
        _tokenizer_line(item),
    ]


def _tokenizer_line(item: ServingItem) -> str:
    if item.checkpoint is None:
        return 'tokenizer="${TOKENIZER:?set TOKENIZER to a repository or folder with the tokenizer of the model}"'
    return f'model={word(item.checkpoint)}; tokenizer="${{TOKENIZER:-$model}}"'


# --- AIPerf ---


def _aiperf(item: ServingItem, point: OperatingPoint, prefix: str) -> list[ExportFile]:
    requests = f"{prefix}requests.jsonl"
    groups: list[Sequence[object]] = [
        ("exec", "aiperf", "profile"),
        ("--model-names", item.llm),
        ("--tokenizer", Raw('"$tokenizer"')),
        ("--url", ADDRESS),
        ("--endpoint-type", "chat"),
        ("--streaming",),
        ("--use-server-token-count",),
        ("--extra-inputs", "ignore_eos:true"),
        ("--input-file", Raw(f'"$here/{requests}"')),
        ("--custom-dataset-type", "mooncake_trace"),
        *([("--prompt-input-tokens-block-size", point.block_tokens)] if point.block_tokens else []),
        ("--request-count", len(point.requests)),
        ("--random-seed", point.seed),
        ("--output-artifact-dir", Raw(f'"${{OUT:-$here/{prefix}aiperf}}"')),
        (Raw('"${load[@]}"'), Raw('"$@"')),
    ]
    lines = [*_head(item, point, "aiperf"), *_aiperf_load(point), *command(groups)]
    result = f"{prefix}aiperf/profile_export_aiperf.json"
    return [
        ExportFile(
            name=f"{prefix}benchmark.sh",
            content=script(*lines),
            executable=True,
            what=f"measures one replica; then: tokopt import aiperf {result} --plan PLAN.json --item {item.number}",
        ),
        ExportFile(
            name=requests,
            content=_trace(point, per_s=MS_PER_S if point.timed else None),
            executable=False,
            what="requests of the benchmark, a line each, in Mooncake's format",
        ),
    ]


def _aiperf_load(point: OperatingPoint) -> list[str]:
    """Return lines that put the flags of the load into an array: a rate, or what CONCURRENCY says."""
    if point.timed:
        return [
            remark("Requests come at their own times: turns of conversations follow one another."),
            "load=(--fixed-schedule)",
        ]
    pattern = PATTERNS.get(point.arrival_cv2, "gamma")
    stated: list[object] = ["--request-rate", f"{point.requests_per_s:.6g}", "--arrival-pattern", pattern]
    if pattern == "gamma":
        stated += ["--arrival-smoothness", f"{1.0 / point.arrival_cv2:.6g}"]
    stated += ["--warmup-request-count", point.warm_up]
    said = " ".join(word(each) for each in stated)
    return [
        remark("CONCURRENCY=N keeps N requests in flight instead: a closed loop."),
        'if [ -n "${CONCURRENCY:-}" ]; then load=(--concurrency "$CONCURRENCY");',
        f"else load=({said}); fi",
    ]


def _trace(point: OperatingPoint, *, per_s: float | None) -> str:
    """Return the requests as lines of JSON, with their times where those are to be followed."""
    return "".join(f"{json.dumps(_line(point, n, request, per_s))}\n" for n, request in enumerate(point.requests))


def _line(point: OperatingPoint, number: int, request: ScheduledRequest, per_s: float | None) -> dict[str, Any]:
    line: dict[str, Any] = {} if per_s is None else {"timestamp": round(request.time_s * per_s, 3)}
    line |= {"input_length": request.input_tokens, "output_length": request.output_tokens}
    if point.block_tokens:
        whole = -(-request.input_tokens // point.block_tokens)
        own = [OWN_BLOCKS + (number << 16) + n for n in range(whole - len(request.blocks))]
        line["hash_ids"] = [*request.blocks[:whole], *own]
    return line


# --- GuideLLM ---


def _guidellm(item: ServingItem, point: OperatingPoint, prefix: str) -> list[ExportFile]:
    requests, scenario = f"{prefix}requests.jsonl", f"{prefix}scenario.json"
    lines = [
        *_head(item, point, "guidellm"),
        remark("The scenario names the server, the model and files; what this script knows better is put into a copy."),
        'out="${OUT:-$here/' + f'{prefix}guidellm}}"',
        'mkdir -p "$out"',
        *command([
            ("python3", "-c", _FILL),
            (Raw(f'"$here/{scenario}"'), Raw('"$out/scenario.json"'), ADDRESS, Raw('"$tokenizer"')),
            (Raw(f'"$here/{requests}"'), Raw('"$out/benchmarks.json"')),
        ]),
        *command([("exec", "guidellm", "run"), ("--config", Raw('"$out/scenario.json"')), (Raw('"$@"'),)]),
    ]  # fmt: skip
    return [
        ExportFile(
            name=f"{prefix}benchmark.sh",
            content=script(*lines),
            executable=True,
            what=(
                f"measures one replica; then: tokopt import guidellm {prefix}guidellm/benchmarks.json --plan PLAN.json "
                f"--item {item.number}"
            ),
        ),
        ExportFile(
            name=scenario,
            content=json.dumps(guidellm_scenario(item, point, prefix), indent=2) + "\n",
            executable=False,
            what="scenario of the benchmark",
        ),
        ExportFile(
            name=requests,
            content=_guidellm_trace(point),
            executable=False,
            what="requests of the benchmark, a line each",
        ),
    ]


_FILL = (
    "import json, sys; source, target, url, tokenizer, data, out = sys.argv[1:]; s = json.load(open(source)); "
    "spec = s['spec']; spec['backend']['target'] = url; spec['tokenizer']['model'] = tokenizer; "
    "spec['data'][0]['source']['path'] = data; spec['outputs'][0]['path'] = out; json.dump(s, open(target, 'w'))"
)


def guidellm_scenario(item: ServingItem, point: OperatingPoint, prefix: str) -> dict[str, Any]:
    """Return the scenario of a benchmark: the plan's requests at their times."""
    shared = bool(point.block_tokens)
    data: dict[str, Any] = {
        "kind": "mooncake" if shared else "trace_synthetic",
        "source": {"kind": "json_file", "path": f"{prefix}requests.jsonl"},
    }
    if shared:
        data |= {"hash_id_block_size": point.block_tokens, "conversation_id_column": "conversation_id"}
    return {
        "metadata": {"name": item.name, "description": f"One replica of item {item.number} of a tokopt plan"},
        "spec": {
            "backend": {
                "kind": "openai_http",
                "target": "http://127.0.0.1:8000",
                "model": item.llm,
                "request_format": "/v1/chat/completions",
                "extras": {"body": {"ignore_eos": True}},
            },
            "profile": {
                "kind": "replay",
                "schedule_turn": "timestamp",
                "warmup": {"percent": UNMEASURED, "mode": "prefer_requests"},
                "cooldown": {"percent": UNMEASURED, "mode": "prefer_requests"},
            },
            "tokenizer": {"kind": "huggingface_auto", "model": item.checkpoint or item.llm},
            "data": [data],
            "seed": {"kind": "static", "value": point.seed},
            "constraints": [{"kind": "max_requests", "count": len(point.requests)}],
            "outputs": [{"kind": "json", "path": f"{prefix}benchmarks.json"}],
        },
    }


def _guidellm_trace(point: OperatingPoint) -> str:
    lines = []
    for number, request in enumerate(point.requests):
        line = _line(point, number, request, 1.0)
        if point.block_tokens:
            line["conversation_id"] = str(number)
        lines.append(f"{json.dumps(line)}\n")
    return "".join(lines)


def _notes(item: ServingItem, point: OperatingPoint, tool: BenchmarkTool) -> list[str]:
    said = [
        f"item {item.number}: one replica gets {point.requests_per_s:.4g} requests/s, {point.mean_in_flight:,.0f} in "
        f"flight on average; lengths vary as planned (variation {point.input_cv:g} in, {point.output_cv:g} out)",
        "outputs have their planned lengths by ignore_eos, which vLLM, SGLang and TensorRT LLM take",
    ]
    if item.apart:
        said.append("prefill and decode pools are measured together, at the address of the replica's router")
    if point.prefix_share > 0.0:
        said.append(f"{point.prefix_share:.0%} of each prompt, in whole blocks, is the same in all: caches find it")
    if tool is BenchmarkTool.AIPERF:
        said.append(
            "the run starts and ends empty, so that its throughput is below the planned one; latencies are not, and "
            "tokopt import leaves such throughput out"
        )
    else:
        said.append(f"GuideLLM replays the times of the requests; the first and last {UNMEASURED:.0%} are not measured")
    return said


_WRITERS = {BenchmarkTool.AIPERF: _aiperf, BenchmarkTool.GUIDELLM: _guidellm}
