"""NVIDIA Dynamo: a DynamoGraphDeployment for each item, with pools of their own for prefill and decode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokopt.domain.exporting import ExportFile, Rendered, Role, ServingItem, ServingWorker
from tokopt.report.exports import sglang, trtllm, vllm
from tokopt.report.exports.kubernetes import (
    ENGINE_FLAGS,
    TOKEN_SECRET,
    arguments,
    asked_variables,
    cluster_notes,
    here,
    resource_of,
    settled,
)
from tokopt.report.exports.launching import prefix_of
from tokopt.report.exports.manifests import as_yaml
from tokopt.report.exports.shell import compact, remark

VERSION = "1.6.1"
API = "nvidia.com/v1beta1"
BACKENDS = {"vllm": "vllm", "sglang": "sglang", "tensorrt-llm": "trtllm"}  # framework -> what Dynamo calls it
IMAGES = {"vllm": "vllm-runtime", "sglang": "sglang-runtime", "trtllm": "tensorrtllm-runtime"}
REGISTRY = "nvcr.io/nvidia/ai-dynamo"  # images for NVIDIA accelerators
ROUTERS = {"random": "random", "round_robin": "round-robin", "least_loaded": "least-loaded", "kv_aware": "kv"}
COMPONENTS = {Role.SERVE: ("Worker", "worker"), Role.PREFILL: ("Prefill", "prefill"), Role.DECODE: ("Decode", "decode")}
NOT_SAID = {"vllm": vllm.not_said, "sglang": sglang.not_said, "trtllm": trtllm.not_said}
SHARED_MEMORY = "80Gi"
KV_AWARE = "kv_aware"
KV_EVENTS = {  # how workers tell a router that knows caches what they hold
    "publisher": "zmq",
    "topic": "kv-events",
    "endpoint": "tcp://*:5557",
    "enable_kv_cache_events": True,
}
CONFIG = "/config"  # where options of TensorRT LLM are mounted


def render(items: Sequence[ServingItem]) -> Rendered:
    """Return a manifest for each item.

    Items whose framework Dynamo does not run are left out, with a note.
    """
    files, notes = [], []
    for item in items:
        backend = BACKENDS.get(item.framework)
        if backend is None:
            notes.append(f"item {item.number} is left out: Dynamo does not run {item.framework_title}")
            continue
        documents = [_deployment(item, backend)]
        if backend == "trtllm":
            documents.insert(0, _options(item))
        head = remark(f"Dynamo {VERSION}: item {item.number} of the plan, {item.title} in {item.precision}.")
        files.append(
            ExportFile(
                name=f"{prefix_of(item, items)}dynamo.yaml",
                content=f"{head}\n" + "---\n".join(as_yaml(document) for document in documents),
                executable=False,
                what=f"DynamoGraphDeployment of all {item.replicas} replicas: kubectl apply -f",
            )
        )
        notes += _notes(item, backend)
    return Rendered(files=tuple(files), notes=tuple(notes))


def _deployment(item: ServingItem, backend: str) -> dict[str, Any]:
    """Return the graph: a frontend that routes, and the workers of all replicas in one pool a role."""
    route = ["-m", "dynamo.frontend", "--http-port", "8000", "--router-mode", ROUTERS.get(item.router, "round-robin")]
    frontend = {
        "name": "Frontend",
        "type": "frontend",
        "replicas": 1,
        "podTemplate": _pod({"image": _image(item, backend), "command": ["python3"], "args": route}),
    }
    return {
        "apiVersion": API,
        "kind": "DynamoGraphDeployment",
        "metadata": {"name": item.name},
        "spec": {
            "backendFramework": backend,
            "components": [frontend, *(_component(item, worker, backend) for worker in item.workers)],
        },
    }


def _pod(main: dict[str, Any], **more: Any) -> dict[str, Any]:
    container = {"name": "main", **main, "envFrom": [{"secretRef": {"name": TOKEN_SECRET}}]}
    return {"spec": {"containers": [container], **more}}


def _image(item: ServingItem, backend: str) -> str:
    vendor = item.workers[-1].vendor
    name = IMAGES[backend]
    return f"{REGISTRY}/{name}:{VERSION}" if vendor == "nvidia" else f"{name}-{vendor}:{VERSION}"


def _component(item: ServingItem, worker: ServingWorker, backend: str) -> dict[str, Any]:
    name, kind = COMPONENTS[worker.role]
    resource = {resource_of(worker): str(here(worker))}
    main: dict[str, Any] = {
        "image": _image(item, backend),
        "command": ["python3", "-m", f"dynamo.{backend}"],
        "args": _arguments(item, worker, backend),
        "resources": {"limits": resource, "requests": resource},
    }
    variables = asked_variables(item)
    if variables:
        main["env"] = variables
    more: dict[str, Any] = {}
    if backend == "trtllm":
        main["volumeMounts"] = [{"name": "options", "mountPath": CONFIG, "readOnly": True}]
        more["volumes"] = [{"name": "options", "configMap": {"name": f"{item.name}-options"}}]
    component = {
        "name": name,
        "type": kind,
        "replicas": worker.workers * item.replicas,
        "sharedMemorySize": SHARED_MEMORY,
        "podTemplate": _pod(main, **more),
    }
    return component | ({"multinode": {"nodeCount": worker.nodes}} if worker.nodes > 1 else {})


def _arguments(item: ServingItem, worker: ServingWorker, backend: str) -> list[str]:
    known = settled(item)
    model = [("--model" if backend == "vllm" else "--model-path", known.checkpoint), ("--served-model-name", known.llm)]
    apart = [] if worker.role is Role.SERVE else [("--disaggregation-mode", worker.role.value)]
    if backend == "trtllm":
        told: list[tuple[object, ...]] = [("--publish-kv-events",)] if item.router == KV_AWARE else []
        options = ("--extra-engine-args", f"{CONFIG}/{trtllm.OPTIONS[worker.role]}")
        return arguments([*model, *apart, options, *told])
    if item.router == KV_AWARE:
        apart = [*apart, ("--kv-events-config", compact(KV_EVENTS))]
    flags = [group for group in ENGINE_FLAGS[backend](known, worker) if group[0] != "--disaggregation-mode"]
    return arguments([*model, *flags, *apart])


def _options(item: ServingItem) -> dict[str, Any]:
    """Return the options of all workers; Kubernetes fills nothing into a ConfigMap, so that names stay as they are."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": f"{item.name}-options"},
        "data": {trtllm.OPTIONS[w.role]: as_yaml(trtllm.options(item, w)) for w in item.workers},
    }


def _notes(item: ServingItem, backend: str) -> list[str]:
    said = [*NOT_SAID[backend](item), *cluster_notes(item)]
    said.append(
        f"item {item.number}: workers of all {item.replicas} replicas share one pool a role behind one frontend; for a "
        "frontend a replica, divide replicas and apply the manifest under several names"
    )
    if item.workers[-1].vendor != "nvidia":
        said.append(
            f"images of Dynamo are published for NVIDIA accelerators only: build {_image(item, backend)} for "
            f"{item.workers[-1].accelerator}"
        )
    if item.workers[0].vendor != item.workers[-1].vendor:
        said.append("both pools name the decode pool's image: give the prefill pool one for its accelerator")
    return said
