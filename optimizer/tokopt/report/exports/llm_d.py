"""llm-d: values of its Helm charts for model servers and for the inference pool before them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokopt.domain.exporting import ExportFile, Rendered, Role, ServingItem, ServingWorker
from tokopt.report.exports import vllm
from tokopt.report.exports.kubernetes import (
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
from tokopt.report.exports.shell import remark, script, word

VERSION = "0.5.0"  # of llm-d and its scheduler; values of the charts llm-d-modelservice and inferencepool
IMAGES = {"nvidia": "llm-d-cuda", "amd": "llm-d-rocm", "intel": "llm-d-xpu"}
CHART = "llm-d-modelservice/llm-d-modelservice"
CHART_SOURCE = "https://llm-d-incubation.github.io/llm-d-modelservice/"
POOL_CHART = "oci://registry.k8s.io/gateway-api-inference-extension/charts/inferencepool"
TYPES = {"nvidia": "nvidia", "amd": "amd", "intel": "intel-gaudi", "google": "google"}  # vendor -> of accelerators
PORT, BEHIND_PROXY, SIDE_PORT = 8000, 8200, 5600
SCORERS = {  # router that the plan assumes -> plugins that choose a replica, with their weights
    "random": (),
    "round_robin": (),
    "least_loaded": (("queue-scorer", 1.0),),
    "kv_aware": (("prefix-cache-scorer", 2.0), ("queue-scorer", 1.0)),
}


def render(items: Sequence[ServingItem]) -> Rendered:
    """Return values for each item.

    Items of other frameworks than vLLM, or of ranks that nodes cannot share evenly, are left out with a note.
    """
    files: list[ExportFile] = []
    notes: list[str] = []
    for item in items:
        if item.framework != "vllm":
            notes.append(
                f"item {item.number} is left out: llm-d serves vLLM, and it was planned for {item.framework_title}"
            )
            continue
        uneven = next((worker for worker in item.workers if not worker.divides_over_nodes), None)
        if uneven is not None:
            notes.append(
                f"item {item.number} is left out: {uneven.dp} data-parallel ranks do not divide over {uneven.nodes} "
                "nodes, and pods of a worker are all alike"
            )
            continue
        prefix = prefix_of(item, items)
        files += _files(item, prefix)
        notes += _notes(item)
    return Rendered(files=tuple(files), notes=tuple(notes))


def _files(item: ServingItem, prefix: str) -> list[ExportFile]:
    head = remark(f"llm-d {VERSION}: item {item.number} of the plan, {item.title} in {item.precision}.")
    server, pool = f"{prefix}modelservice.yaml", f"{prefix}inferencepool.yaml"
    install = [
        remark(f"Installs item {item.number} of the plan with Helm, in the namespace of NAMESPACE."),
        "set -euo pipefail",
        'here="$(cd "$(dirname "$0")" && pwd)"',
        f"helm repo add llm-d-modelservice {word(CHART_SOURCE)}",
        f'helm upgrade --install {word(item.name)} {CHART} --namespace "${{NAMESPACE:-default}}" '
        f'--values "$here/{server}"',
        f'helm upgrade --install {word(item.name)}-pool {POOL_CHART} --namespace "${{NAMESPACE:-default}}" '
        f'--values "$here/{pool}"',
    ]
    return [
        ExportFile(
            name=server,
            content=f"{head}\n{as_yaml(_servers(item))}",
            executable=False,
            what="values of the chart llm-d-modelservice",
        ),
        ExportFile(
            name=pool,
            content=f"{head}\n{as_yaml(_pool(item))}",
            executable=False,
            what="values of the chart inferencepool",
        ),
        ExportFile(
            name=f"{prefix}install.sh", content=script(*install), executable=True, what="installs both with Helm"
        ),
    ]


def _labels(item: ServingItem) -> dict[str, str]:
    return {"llm-d.ai/inference-serving": "true", "llm-d.ai/model": item.name}


def _servers(item: ServingItem) -> dict[str, Any]:
    known = settled(item)
    values: dict[str, Any] = {
        "multinode": any(worker.nodes > 1 for worker in item.workers),
        "modelArtifacts": {
            "name": item.llm,
            "uri": f"hf://{item.checkpoint}" if item.checkpoint else "hf://to/be-set",
            "size": "2Ti" if any(worker.experts for worker in item.workers) else "500Gi",
            "authSecretName": TOKEN_SECRET,
            "labels": _labels(item),
        },
        "accelerator": {"type": TYPES.get(item.workers[-1].vendor, "nvidia")},
        "routing": {"servicePort": PORT, "proxy": {"enabled": item.apart, "connector": "nixlv2", "secure": False}},
    }
    if item.apart:
        values["routing"]["proxy"]["targetPort"] = BEHIND_PROXY
    for worker in item.workers:
        key = "prefill" if worker.role is Role.PREFILL else "decode"
        values[key] = _pods(item, known, worker)
    if not item.apart:
        values["prefill"] = {"create": False}
    return values


def _pods(item: ServingItem, known: ServingItem, worker: ServingWorker) -> dict[str, Any]:
    port = BEHIND_PROXY if worker.role is Role.DECODE else PORT
    resource = {resource_of(worker): str(here(worker))}
    side = {"name": "VLLM_NIXL_SIDE_CHANNEL_HOST", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
    args = [
        ("serve", known.checkpoint),
        ("--served-model-name", known.llm),
        ("--host", "0.0.0.0"),
        ("--port", port),
        *vllm.engine_flags(known, worker),
        *_over_nodes(worker),
    ]
    variables = [*([side] if item.apart else []), *asked_variables(item)]
    probe = {"path": "/health", "port": port}
    container: dict[str, Any] = {
        "name": "vllm",
        "image": f"ghcr.io/llm-d/{IMAGES.get(worker.vendor, IMAGES['nvidia'])}:v{VERSION}",
        "modelCommand": "custom",
        "command": _program(worker),
        "args": arguments(args),
        **({"env": variables} if variables else {}),
        "ports": [{"containerPort": port, "name": "http"}, {"containerPort": SIDE_PORT, "name": "nixl"}],
        "resources": {"limits": resource, "requests": resource},
        "mountModelVolume": True,
        "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}],
        "startupProbe": {"httpGet": probe, "periodSeconds": 30, "failureThreshold": 120},
        "readinessProbe": {"httpGet": probe, "periodSeconds": 10, "failureThreshold": 3},
    }
    return {
        "create": True,
        "replicas": worker.workers * item.replicas,
        # What the chart counts accelerators by: those of a rank, and the ranks of all nodes and of one.
        "parallelism": {
            "tensor": here(worker) // max(1, worker.ranks_per_node),
            "data": worker.dp,
            "dataLocal": max(1, worker.ranks_per_node),
            "workers": worker.nodes,
        },
        "containers": [container],
        "volumes": [{"name": "shm", "emptyDir": {"medium": "Memory"}}],
    }


def _over_nodes(worker: ServingWorker) -> list[tuple[object, ...]]:
    """Return flags of a worker over several nodes, from what LeaderWorkerSet and the chart tell a pod."""
    flags = vllm.over_nodes(worker, "$(LWS_LEADER_ADDRESS)", "$(LWS_WORKER_INDEX)")
    return [*flags, ("--data-parallel-hybrid-lb",)] if worker.nodes > 1 and worker.dp > 1 else flags


def _program(worker: ServingWorker) -> list[str]:
    """Return what a container runs with its arguments.

    Data-parallel ranks count on from node to node, which takes a shell: Kubernetes fills in variables, but cannot
    multiply. Arguments stay words of their own.
    """
    if worker.nodes == 1 or worker.dp == 1:
        return ["vllm"]
    # Kubernetes leaves `$((` as it is: no variable has such a name.
    first = f"START_RANK=$((LWS_WORKER_INDEX * {worker.ranks_per_node}))"
    return ["bash", "-c", f'{first}; exec vllm "$@" --data-parallel-start-rank "$START_RANK"', "vllm"]


def _pool(item: ServingItem) -> dict[str, Any]:
    name = "plan-plugins.yaml"
    return {
        "inferenceExtension": {
            "replicas": 1,
            "image": {"name": "llm-d-inference-scheduler", "hub": "ghcr.io/llm-d", "tag": f"v{VERSION}"},
            "extProcPort": 9002,
            "pluginsConfigFile": name,
            "pluginsCustomConfig": {name: as_yaml(_picker(item))},
        },
        "inferencePool": {
            "targetPorts": [{"number": PORT}],
            "modelServerType": "vllm",
            "modelServers": {"matchLabels": _labels(item)},
        },
    }


def _picker(item: ServingItem) -> dict[str, Any]:
    """Return how a request's workers are chosen: a profile for each pool."""
    scorers = SCORERS.get(item.router, ())
    chosen = [{"type": name} for name, _ in scorers]
    weighed = [{"pluginRef": name, "weight": weight} for name, weight in scorers]
    config: dict[str, Any] = {"apiVersion": "inference.networking.x-k8s.io/v1alpha1", "kind": "EndpointPickerConfig"}
    picker = {"type": "random-picker" if not scorers else "max-score-picker"}
    last = [{"pluginRef": picker["type"]}]
    if not item.apart:
        profiles = [{"name": "default", "plugins": [*weighed, *last]}]
        return config | {
            "plugins": [{"type": "single-profile-handler"}, *chosen, picker],
            "schedulingProfiles": profiles,
        }
    always = {"type": "pd-profile-handler", "parameters": {"threshold": 0}}
    filters = [{"type": "prefill-header-handler"}, {"type": "prefill-filter"}, {"type": "decode-filter"}]
    profiles = [
        {"name": role, "plugins": [{"pluginRef": f"{role}-filter"}, *weighed, *last]} for role in ("prefill", "decode")
    ]
    return config | {"plugins": [*filters, *chosen, picker, always], "schedulingProfiles": profiles}


def _notes(item: ServingItem) -> list[str]:
    said = [*vllm.not_said(item), *cluster_notes(item)]
    if not item.checkpoint:
        said.append("modelArtifacts.uri has to be set to the same checkpoint")
    said.append("a gateway with an HTTPRoute to the inference pool is taken to be there, as llm-d's guides install it")
    if any(worker.nodes > 1 for worker in item.workers):
        said.append("workers of several nodes take LeaderWorkerSet in the cluster")
    if len({worker.vendor for worker in item.workers}) > 1:
        said.append("the chart takes one type of accelerators: split the pools over two releases")
    return said
