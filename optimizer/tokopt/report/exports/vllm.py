"""vLLM: commands that start its workers, and its router."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokopt.domain.exporting import Rendered, Role, ServingItem, ServingWorker
from tokopt.domain.speculators import Method
from tokopt.report.exports.launching import HEAD_ADDRESS, MODEL, NODE_RANK, Engine, launch_files, prefix_of
from tokopt.report.exports.settings import KV_DTYPES, POLICIES, Setting, above_one, written
from tokopt.report.exports.shell import Raw, compact, expanding, word

VERSION = "0.33.0"
ROUTER_VERSION = "0.1.17"  # of the package vllm-router
ROUTER_NOTE = f"the router is the package vllm-router ({ROUTER_VERSION}): pip install vllm-router"
QUANTISED_ON_LOAD = {"fp8": "fp8_per_tensor"}  # precision -> method that brings a wider checkpoint to it
METHODS = {None: "mtp", Method.EAGLE3: "eagle3", Method.DRAFT_MODEL: "draft_model", Method.NGRAM: "ngram"}
LOOKED_UP = 4  # tokens that n-grams are looked up by at most; the plan states the drafts only
CONNECTOR = {"kv_connector": "NixlConnector", "kv_role": "kv_both"}
EXCHANGES = {  # role -> kernels that exchange tokens while the other half of a step computes
    Role.SERVE: "deepep_high_throughput",
    Role.PREFILL: "deepep_high_throughput",
    Role.DECODE: "deepep_low_latency",
}
RPC_PORT = 13345  # of data-parallel ranks over several nodes

SETTINGS: tuple[Setting, ...] = (
    ("--quantization", lambda item, _: QUANTISED_ON_LOAD.get(item.quantised_on_load or "")),
    ("--kv-cache-dtype", lambda item, _: KV_DTYPES.get(item.kv_precision, item.kv_precision)),
    ("--tensor-parallel-size", lambda _, worker: worker.tp),
    ("--pipeline-parallel-size", lambda _, worker: above_one(worker.pp)),
    ("--data-parallel-size", lambda _, worker: above_one(worker.dp)),
    ("--prefill-context-parallel-size", lambda _, worker: above_one(worker.cp)),
    ("--decode-context-parallel-size", lambda _, worker: above_one(worker.dcp)),
    ("--enable-expert-parallel", lambda _, worker: worker.experts and worker.ep > 1),
    ("--enable-eplb", lambda _, worker: worker.redundant_experts > 0),
    ("--enable-dbo", lambda _, worker: worker.two_batch_overlap),
    ("--all2all-backend", lambda _, worker: EXCHANGES[worker.role] if worker.two_batch_overlap else None),
    ("--gpu-memory-utilization", lambda item, _: item.memory_fraction),
    ("--max-model-len", lambda item, _: item.context_tokens),
    ("--max-num-seqs", lambda _, worker: worker.rank_cap),
    ("--max-num-batched-tokens", lambda item, worker: _step_tokens(item, worker)),
    ("--enable-chunked-prefill", lambda _, worker: worker.chunked_prefill),
    ("--no-enable-chunked-prefill", lambda _, worker: not worker.chunked_prefill),
    ("--enable-prefix-caching", lambda item, _: item.prefix_caching),
    ("--no-enable-prefix-caching", lambda item, _: not item.prefix_caching),
    ("--enforce-eager", lambda _, worker: not worker.cuda_graphs),
    ("--no-async-scheduling", lambda _, worker: not worker.overlap_scheduling),
    ("--kv-offloading-size", lambda item, worker: _offloaded_gib(item, worker)),
)


def render(items: Sequence[ServingItem]) -> Rendered:
    """Return scripts that start the items of a plan with vLLM."""
    files = [file for item in items for file in launch_files(item, ENGINE, prefix_of(item, items))]
    return Rendered(files=tuple(files), notes=tuple(note for item in items for note in (ROUTER_NOTE, *not_said(item))))


def engine_flags(item: ServingItem, worker: ServingWorker) -> list[tuple[object, ...]]:
    """Return the flags of the engine of a worker, without those of its address and nodes."""
    groups = list(written(SETTINGS, item, worker))
    if worker.redundant_experts:
        groups.append(("--eplb-config", compact({"num_redundant_experts": worker.redundant_experts})))
    drafts = speculation(item)
    if drafts is not None:
        groups.append(("--speculative-config", drafts))
    if item.apart:
        groups.append(("--kv-transfer-config", compact(CONNECTOR)))
    return groups


def speculation(item: ServingItem) -> str | None:
    """Return how drafts are made, as JSON; the drafter is a shell variable where its repository is not known."""
    drafting = item.drafting
    if drafting is None:
        return None
    said: dict[str, Any] = {"method": METHODS[drafting.method], "num_speculative_tokens": drafting.depth}
    if drafting.method is Method.NGRAM:
        said["prompt_lookup_max"] = LOOKED_UP
    elif drafting.method is not None and drafting.checkpoint is None:
        return expanding(said, "model", "DRAFT_MODEL")
    elif drafting.method is not None:
        said["model"] = drafting.checkpoint
    return compact(said)


def _step_tokens(item: ServingItem, worker: ServingWorker) -> int:
    """Whole prompts go into a step where they are not cut."""
    return worker.step_tokens if worker.chunked_prefill else max(worker.step_tokens, item.context_tokens)


def _offloaded_gib(item: ServingItem, worker: ServingWorker) -> int | None:
    if item.offload != "host" or not item.host_gib or worker.role is Role.DECODE:
        return None
    return int(item.host_gib * worker.tp * worker.pp * worker.cp)  # each data-parallel rank is an engine of its own


def _command(item: ServingItem, worker: ServingWorker) -> list[tuple[object, ...]]:
    first: list[tuple[object, ...]] = [
        ("exec", "vllm", "serve", MODEL),
        ("--served-model-name", item.llm),
        ("--host", "0.0.0.0"),
        ("--port", Raw('"${PORT:-8000}"')),
    ]
    return [*first, *engine_flags(item, worker), *_on_each_node(worker)]


def _on_each_node(worker: ServingWorker) -> list[tuple[object, ...]]:
    """Return the flags of a worker that spans several nodes; what is not its first node has no address of its own."""
    if worker.nodes == 1:
        return []
    flags = over_nodes(worker, HEAD_ADDRESS, NODE_RANK)
    if worker.dp > 1:
        local = max(1, worker.ranks_per_node)
        flags.append(("--data-parallel-start-rank", Raw(f'"$(( NODE_RANK * {local} ))"')))
    return [*flags, (Raw('${headless[@]+"${headless[@]}"}'),)]


def over_nodes(worker: ServingWorker, head: object, node_rank: object) -> list[tuple[object, ...]]:
    """Return the flags by which the nodes of a worker find one another, but for the first rank of a node.

    Args:
        worker: The worker.
        head: Address of its first node.
        node_rank: Place of a node among its nodes, from 0.
    """
    if worker.nodes == 1:
        return []
    if worker.dp > 1:
        return [
            ("--data-parallel-size-local", max(1, worker.ranks_per_node)),
            ("--data-parallel-address", head),
            ("--data-parallel-rpc-port", RPC_PORT),
        ]
    return [("--nnodes", worker.nodes), ("--node-rank", node_rank), ("--master-addr", head)]


def _environment(item: ServingItem, worker: ServingWorker) -> list[str]:
    lines = []
    if item.apart:
        lines += [
            'export VLLM_NIXL_SIDE_CHANNEL_HOST="${HOST_ADDRESS:-127.0.0.1}"',
            'export VLLM_NIXL_SIDE_CHANNEL_PORT="${SIDE_PORT:-5600}"',
        ]
    if worker.nodes > 1:
        lines += [
            'headless=()',
            f'if [ {word(NODE_RANK)} -gt 0 ]; then headless=(--headless); fi',
        ]  # fmt: skip
    return lines


def _router(item: ServingItem) -> list[tuple[object, ...]]:
    """Return the command of vllm-router, which is a package of its own."""
    first: list[tuple[object, ...]] = [("exec", "vllm-router"), ("--policy", POLICIES.get(item.router, "round_robin"))]
    return [*first, ("--vllm-pd-disaggregation",)] if item.apart else first


def not_said(item: ServingItem) -> list[str]:
    """Return what of an item vLLM's settings do not say, and what was taken for granted."""
    said = []
    for worker in item.workers:
        spread = worker.tp * worker.dp * worker.cp
        if worker.experts and 1 < worker.ep < spread:
            said.append(
                f"vLLM spreads experts over all {spread} ranks of a {worker.role.value} worker, not {worker.ep}"
            )
        if worker.step_tokens > worker.chunk_tokens:
            said.append(
                f"a step takes up to {worker.step_tokens:,} tokens: the planned chunk of {worker.chunk_tokens:,}, and "
                "room for all that decodes beside it, which vLLM counts in the same budget"
            )
        if not worker.divides_over_nodes:
            said.append(f"{worker.dp} data-parallel ranks do not divide over {worker.nodes} nodes evenly")
    if any(worker.two_batch_overlap for worker in item.workers):
        said.append("two-batch overlap takes the kernels of DeepEP, which have to be installed")
    if item.apart:
        said.append("caches move by NIXL, which has to be installed; prefill and decode workers draft alike")
    if item.offload == "ssd":
        said.append("caches on SSD are not written: they take a connector such as LMCache")
    if item.drafting is not None and item.drafting.method is Method.NGRAM:
        said.append(f"n-grams of up to {LOOKED_UP} tokens are looked up; the plan does not state that")
    return said


ENGINE = Engine(
    title="vLLM",
    version=VERSION,
    worker=_command,
    environment=_environment,
    router=_router,
    together="--worker-urls",
    bootstrap=False,
)
