"""SGLang: commands that start its workers, and its router."""

from __future__ import annotations

from collections.abc import Sequence

from tokopt.domain.exporting import Rendered, Role, ServingItem, ServingWorker
from tokopt.domain.speculators import Method
from tokopt.report.exports.launching import HEAD_ADDRESS, MODEL, NODE_RANK, Engine, launch_files, prefix_of
from tokopt.report.exports.settings import KV_DTYPES, POLICIES, Setting, above_one, written
from tokopt.report.exports.shell import Raw

VERSION = "0.5.23"
ROUTER_VERSION = "0.3.2"  # of the package sglang-router
ROUTER_NOTE = f"the router is the package sglang-router ({ROUTER_VERSION}): pip install sglang-router"
OWN_KV_DTYPES = KV_DTYPES | {"fp8": "fp8_e4m3"}
QUANTISED_ON_LOAD = {"fp8": "fp8"}  # precision -> method that brings a wider checkpoint to it
ALGORITHMS = {None: "EAGLE", Method.EAGLE3: "EAGLE3", Method.DRAFT_MODEL: "STANDALONE", Method.NGRAM: "NGRAM"}
TRANSFERS = {"amd": "mori"}  # vendor -> how caches move from prefill to decode
DIST_PORT = 20000  # that the nodes of one worker meet at
EXCHANGES = {"amd": "mori"}  # vendor -> how tokens travel to experts that are spread over data-parallel ranks
TRANSFER, EXCHANGE = "nixl", "deepep"  # of all others

SETTINGS: tuple[Setting, ...] = (
    ("--quantization", lambda item, _: QUANTISED_ON_LOAD.get(item.quantised_on_load or "")),
    ("--kv-cache-dtype", lambda item, _: OWN_KV_DTYPES.get(item.kv_precision, item.kv_precision)),
    # Tensor parallelism counts all accelerators of a stage here; attention ranks and prompts are split within it.
    ("--tp-size", lambda _, worker: worker.tp * worker.dp * worker.cp),
    ("--pp-size", lambda _, worker: above_one(worker.pp)),
    ("--attn-dp-size", lambda _, worker: above_one(worker.dp)),
    ("--attn-cp-size", lambda _, worker: above_one(worker.cp)),
    ("--enable-prefill-cp", lambda _, worker: worker.cp > 1),
    ("--dcp-size", lambda _, worker: above_one(worker.dcp)),
    ("--ep-size", lambda _, worker: above_one(worker.ep) if worker.experts else None),
    ("--moe-a2a-backend", lambda _, worker: _exchange(worker)),
    ("--ep-num-redundant-experts", lambda _, worker: worker.redundant_experts or None),
    ("--enable-eplb", lambda _, worker: worker.redundant_experts > 0),
    ("--enable-two-batch-overlap", lambda _, worker: worker.two_batch_overlap),
    ("--mem-fraction-static", lambda item, _: item.memory_fraction),
    ("--context-length", lambda item, _: item.context_tokens),
    # Both are of the whole worker and divided among its attention ranks.
    ("--max-running-requests", lambda _, worker: worker.worker_cap),
    ("--chunked-prefill-size", lambda _, worker: worker.chunk_tokens * worker.dp if worker.chunked_prefill else -1),
    ("--disable-radix-cache", lambda item, _: not item.prefix_caching),
    ("--cuda-graph-backend-decode", lambda _, worker: None if worker.cuda_graphs else "disabled"),
    ("--cuda-graph-backend-prefill", lambda _, worker: None if worker.cuda_graphs else "disabled"),
    ("--disable-overlap-schedule", lambda _, worker: not worker.overlap_scheduling),
    ("--enable-hierarchical-cache", lambda item, worker: _offloads(item, worker)),
    ("--hicache-size", lambda item, worker: int(item.host_gib or 0) if _offloads(item, worker) else None),
    ("--speculative-algorithm", lambda item, _: ALGORITHMS[item.drafting.method] if item.drafting else None),
    ("--speculative-num-steps", lambda item, _: item.drafting.depth if _chained(item) and item.drafting else None),
    ("--speculative-eagle-topk", lambda item, _: 1 if _chained(item) else None),
    ("--speculative-num-draft-tokens", lambda item, _: item.drafting.depth + 1 if item.drafting else None),
)


def render(items: Sequence[ServingItem]) -> Rendered:
    """Return scripts that start the items of a plan with SGLang."""
    files = [file for item in items for file in launch_files(item, ENGINE, prefix_of(item, items))]
    return Rendered(files=tuple(files), notes=tuple(note for item in items for note in (ROUTER_NOTE, *not_said(item))))


def engine_flags(item: ServingItem, worker: ServingWorker) -> list[tuple[object, ...]]:
    """Return the flags of the engine of a worker, without those of its address and nodes."""
    groups = list(written(SETTINGS, item, worker))
    drafting = item.drafting
    if drafting is not None and drafting.method is not None and drafting.method.needs_checkpoint:
        drafter = drafting.checkpoint or Raw('"${DRAFT_MODEL:?set DRAFT_MODEL to the drafter}"')
        groups.append(("--speculative-draft-model-path", drafter))
    if item.apart:
        mode = {Role.PREFILL: "prefill", Role.DECODE: "decode"}[worker.role]
        groups += [
            ("--disaggregation-mode", mode),
            ("--disaggregation-transfer-backend", _transfer(item)),
        ]
    return groups


def _chained(item: ServingItem) -> bool:
    """Whether drafts come one after another, rather than from a look-up."""
    return item.drafting is not None and item.drafting.method is not Method.NGRAM


def _exchange(worker: ServingWorker) -> str | None:
    spread = worker.experts and worker.ep > 1 and worker.dp > 1
    return EXCHANGES.get(worker.vendor, EXCHANGE) if spread else None


def _transfer(item: ServingItem) -> str:
    """Both pools have to agree."""
    return TRANSFERS.get(item.workers[-1].vendor, TRANSFER)


def _offloads(item: ServingItem, worker: ServingWorker) -> bool:
    return item.offload != "none" and bool(item.host_gib) and worker.role is not Role.DECODE


def _command(item: ServingItem, worker: ServingWorker) -> list[tuple[object, ...]]:
    groups: list[tuple[object, ...]] = [
        ("exec", "python3", "-m", "sglang.launch_server"),
        ("--model-path", MODEL),
        ("--served-model-name", item.llm),
        ("--host", "0.0.0.0"),
        ("--port", Raw('"${PORT:-8000}"')),
        *engine_flags(item, worker),
    ]
    if worker.role is Role.PREFILL:
        groups.append(("--disaggregation-bootstrap-port", Raw('"${SIDE_PORT:-8998}"')))
    if worker.nodes > 1:
        address = Raw(f"{HEAD_ADDRESS}:{DIST_PORT}")
        groups += [("--nnodes", worker.nodes), ("--node-rank", NODE_RANK), ("--dist-init-addr", address)]
    return groups


def _environment(item: ServingItem, worker: ServingWorker) -> list[str]:  # noqa: ARG001
    return []


def _router(item: ServingItem) -> list[tuple[object, ...]]:
    policy = ("--policy", POLICIES.get(item.router, "round_robin"))
    first: list[tuple[object, ...]] = [("exec", "python3", "-m", "sglang_router.launch_router"), policy]
    return [*first, ("--pd-disaggregation",)] if item.apart else first


def not_said(item: ServingItem) -> list[str]:
    """Return what of an item SGLang's settings do not say, and what was taken for granted."""
    said = []
    for way in sorted({_exchange(worker) for worker in item.workers} - {None}, key=str):
        said.append(f"tokens travel to their experts by {way}, which has to be installed")
    if item.apart:
        said.append(
            f"caches move by {_transfer(item)}, which has to be installed; prefill and decode workers draft alike"
        )
    if item.offload == "ssd":
        said.append("caches continue in host memory only: storage behind it takes --hicache-storage-backend")
    return said


ENGINE = Engine(
    title="SGLang",
    version=VERSION,
    worker=_command,
    environment=_environment,
    router=_router,
    together="--worker-urls",
    bootstrap=True,
)
