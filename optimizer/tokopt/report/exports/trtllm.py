"""TensorRT LLM: commands that start `trtllm-serve`, and the options that it reads from YAML."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokopt.domain.exporting import ExportFile, Rendered, Role, ServingItem, ServingWorker
from tokopt.domain.speculators import Method
from tokopt.report.exports.launching import MODEL, Engine, gathered, launch_files, prefix_of
from tokopt.report.exports.manifests import as_yaml
from tokopt.report.exports.settings import KV_DTYPES, in_words
from tokopt.report.exports.shell import Raw, remark, script

VERSION = "1.3"  # of NVIDIA/TensorRT-LLM, read on 2026-11-29: the manifest of its options and `trtllm-serve`
DECODING = {None: "MTP", Method.EAGLE3: "Eagle3", Method.DRAFT_MODEL: "Draft_Target", Method.NGRAM: "NGram"}
TRANSFERS = "DEFAULT"
GIB = 1 << 30
OPTIONS = {Role.SERVE: "serve.yaml", Role.PREFILL: "prefill.yaml", Role.DECODE: "decode.yaml"}
DRAFTER = "DRAFT_MODEL"  # what stands for a drafter whose repository is not known


def render(items: Sequence[ServingItem]) -> Rendered:
    """Return scripts and options that start the items of a plan with TensorRT LLM."""
    files: list[ExportFile] = []
    for item in items:
        prefix = prefix_of(item, items)
        engine = Engine(
            title="TensorRT LLM",
            version=VERSION,
            worker=lambda one, worker, prefix=prefix: _command(one, worker, prefix),  # type: ignore[misc]
            environment=lambda _one, _worker: ['here="$(cd "$(dirname "$0")" && pwd)"'],
            router=None,
            together="",
            bootstrap=False,
        )
        files += launch_files(item, engine, prefix)
        files += [_options_file(item, worker, prefix) for worker in item.workers]
        if item.apart:
            files.append(_router_file(item, prefix))
    return Rendered(files=tuple(files), notes=tuple(note for item in items for note in not_said(item)))


def options(item: ServingItem, worker: ServingWorker) -> dict[str, Any]:
    """Return the options of a worker, as `--extra_llm_api_options` takes them."""
    spread = worker.tp * worker.dp
    said: dict[str, Any] = {
        "backend": "pytorch",
        "tensor_parallel_size": spread,
        "pipeline_parallel_size": worker.pp,
        "max_num_tokens": worker.step_tokens,
        "max_seq_len": item.context_tokens,
        "enable_chunked_prefill": worker.chunked_prefill,
        "enable_attention_dp": worker.dp > 1,
        "disable_overlap_scheduler": not worker.overlap_scheduling or worker.role is Role.PREFILL,
        "kv_cache_config": _cache(item, worker),
    }
    if worker.cp > 1:
        said["context_parallel_size"] = worker.cp
    if worker.experts:
        said["moe_expert_parallel_size"] = worker.ep
        said["moe_tensor_parallel_size"] = spread // worker.ep if worker.ep else spread
    if worker.rank_cap is not None:
        said["max_batch_size"] = worker.rank_cap
    if not worker.cuda_graphs:
        said["cuda_graph_config"] = None
    elif worker.rank_cap is not None:
        said["cuda_graph_config"] = {"enable_padding": True, "max_batch_size": worker.rank_cap}
    if item.apart:
        said["cache_transceiver_config"] = {"backend": TRANSFERS, "max_tokens_in_buffer": item.context_tokens}
    if item.drafting is not None:  # both pools: caches have to be alike
        said["speculative_config"] = _speculation(item)
    return said


def _cache(item: ServingItem, worker: ServingWorker) -> dict[str, Any]:
    cache: dict[str, Any] = {
        "dtype": KV_DTYPES.get(item.kv_precision, item.kv_precision),
        "enable_block_reuse": item.prefix_caching,
        "free_gpu_memory_fraction": item.memory_fraction,
    }
    if item.offload != "none" and item.host_gib and worker.role is not Role.DECODE:
        cache["host_cache_size"] = int(item.host_gib) * GIB
    return cache


def _speculation(item: ServingItem) -> dict[str, Any]:
    assert item.drafting is not None
    method = item.drafting.method
    said: dict[str, Any] = {"decoding_type": DECODING[method], "max_draft_len": item.drafting.depth}
    if method is not None and method.needs_checkpoint:
        said["speculative_model"] = item.drafting.checkpoint or DRAFTER
    return said


def _options_file(item: ServingItem, worker: ServingWorker, prefix: str) -> ExportFile:
    head = remark(f"Options of trtllm-serve ({VERSION}) for one {in_words(worker)}; item {item.number} of the plan.")
    return ExportFile(
        name=f"{prefix}{OPTIONS[worker.role]}",
        content=f"{head}\n{as_yaml(options(item, worker))}",
        executable=False,
        what=f"options of one {in_words(worker)}",
    )


def _command(item: ServingItem, worker: ServingWorker, prefix: str) -> list[tuple[object, ...]]:  # noqa: ARG001
    launcher: tuple[object, ...] = ("exec", "trtllm-serve", MODEL)
    if worker.nodes > 1:
        launcher = ("exec", "trtllm-llmapi-launch", "trtllm-serve", MODEL)
    return [
        launcher,
        ("--host", "0.0.0.0"),
        ("--port", Raw('"${PORT:-8000}"')),
        ("--extra_llm_api_options", Raw(f'"$here/{prefix}{OPTIONS[worker.role]}"')),
    ]


def _router_file(item: ServingItem, prefix: str) -> ExportFile:
    """Return the script of the server before both pools: it takes their addresses from a file, which it writes."""
    body = [
        remark(f"TensorRT LLM: the server before the prefill and decode workers of item {item.number}, on port 8000."),
        *gathered(item, "prefill", "decode"),
        "prefill=() decode=()",
        "for ((n = 0; n < ${#workers[@]}; n += 2)); do",
        '  address="${workers[n + 1]#http://}"',
        '  if [ "${workers[n]}" = prefill ]; then prefill+=("$address"); else decode+=("$address"); fi',
        "done",
        'config="$(mktemp --suffix=.yaml)"',
        "{",
        "  printf 'hostname: 0.0.0.0\\nport: %s\\nbackend: pytorch\\n' \"${PORT:-8000}\"",
        "  printf 'context_servers:\\n  num_instances: %s\\n  urls:\\n' \"${#prefill[@]}\"",
        '  printf \'    - "%s"\\n\' "${prefill[@]}"',
        "  printf 'generation_servers:\\n  num_instances: %s\\n  urls:\\n' \"${#decode[@]}\"",
        '  printf \'    - "%s"\\n\' "${decode[@]}"',
        '} > "$config"',
        'exec trtllm-serve disaggregated -c "$config"',
    ]
    return ExportFile(
        name=f"{prefix}router.sh",
        content=script(*body),
        executable=True,
        what="routes requests to prefill and decode workers",
    )


def not_said(item: ServingItem) -> list[str]:
    """Return what of an item TensorRT LLM's options do not say, and what was taken for granted."""
    said = []
    for worker in item.workers:
        if worker.dp > 1 and worker.tp > 1:
            said.append(
                f"attention is data-parallel over all {worker.tp * worker.dp} ranks or over none: "
                f"{worker.dp} ranks of {worker.tp} accelerators each are not expressible"
            )
        if worker.two_batch_overlap:
            said.append("two-batch overlap is not a setting of TensorRT LLM")
        if worker.redundant_experts:
            said.append(
                "copies of experts take a load balancer's file (moe_config.load_balancer), which is not written"
            )
        if worker.nodes > 1:
            said.append(
                "workers of several nodes are started by srun or mpirun: trtllm-llmapi-launch needs their ranks"
            )
    if item.apart and item.drafting is not None:
        said.append("prefill workers are told of drafts too, so that the caches of both pools are alike")
    if not item.apart and item.replicas > 1:
        said.append("TensorRT LLM has no router before whole replicas: put any HTTP load balancer before their ports")
    drafting = item.drafting
    if drafting and drafting.method and drafting.method.needs_checkpoint and not drafting.checkpoint:
        said.append(f"{DRAFTER} in the options stands for the drafter's repository or folder")
    return said
