"""SkyPilot: a task with a service for each item that runs on a cloud that SkyPilot has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokopt.domain.exporting import ExportFile, Rendered, ServingItem
from tokopt.errors import InputError
from tokopt.report.exports import sglang, trtllm, vllm
from tokopt.report.exports.launching import prefix_of
from tokopt.report.exports.manifests import as_yaml
from tokopt.report.exports.shell import remark

VERSION = "0.14.1"
# Clouds of SkyPilot that price lists of tokopt are of, by the same names.
CLOUDS = (
    "aws", "azure", "cudo", "do", "fluidstack", "gcp", "hyperbolic", "ibm", "lambda", "mithril", "nebius", "oci",
    "paperspace", "primeintellect", "runpod", "scp", "seeweb", "shadeform", "vast", "verda", "yotta",
)  # fmt: skip
# What SkyPilot's catalogs call accelerators. An accelerator of a plan is found among these by its own names.
ACCELERATORS = (
    "A10", "A100", "A100-80GB", "A100-80GB-SXM", "A10G", "B200", "B300", "GB200", "GB300", "GH200", "H100", "H100-SXM",
    "H200", "H200-SXM", "Inferentia2", "L4", "L40S", "MI300X", "MI325X", "MI355X", "RTXPRO6000", "Trainium2", "V100",
    "tpu-v5e", "tpu-v6e",
)  # fmt: skip
ENGINES = {"vllm": vllm, "sglang": sglang, "tensorrt-llm": trtllm}
PACKAGES = {  # framework -> what is installed on each node
    "vllm": (f"vllm=={vllm.VERSION}", f"vllm-router=={vllm.ROUTER_VERSION}"),
    "sglang": (f"sglang[all]=={sglang.VERSION}", f"sglang-router=={sglang.ROUTER_VERSION}"),
    "tensorrt-llm": ("tensorrt-llm",),
}
HEALTH = {"vllm": "/health", "sglang": "/health", "tensorrt-llm": "/health"}
LOADING_S = 3600  # until a replica has loaded its weights
SPOT = "spot"
RESERVED = ("reserved_1y", "reserved_3y", "reserved")
PORT = 8000


def render(items: Sequence[ServingItem]) -> Rendered:
    """Return a task and the scripts that it runs for each item.

    Raises:
        InputError: An item is owned, on a provider that SkyPilot has not, or of a framework that is not written.
    """
    files: list[ExportFile] = []
    notes: list[str] = []
    for item in items:
        _require_cloud(item)
        prefix = prefix_of(item, items)
        engine = ENGINES[item.framework].render((item,))
        scripts = [file.model_copy(update={"name": f"{prefix}{file.name}"}) for file in engine.files]
        scripts = [
            file.model_copy(update={"content": _renamed(file.content, engine.files, prefix)}) for file in scripts
        ]
        routed = any(file.name == f"{prefix}router.sh" for file in scripts)
        files.append(_task_file(item, prefix, routed=routed))
        files += scripts
        notes += [*engine.notes, *_notes(item, routed=routed)]
    return Rendered(files=tuple(files), notes=tuple(dict.fromkeys(notes)))


def _renamed(content: str, files: Sequence[ExportFile], prefix: str) -> str:
    """Return a script that calls its neighbours by their names with a prefix."""
    for file in files if prefix else ():
        content = content.replace(f" {file.name} ", f" {prefix}{file.name} ")
        content = content.replace(f"$here/{file.name}", f"$here/{prefix}{file.name}")
    return content


def _require_cloud(item: ServingItem) -> None:
    what = f"--to skypilot: item {item.number}"
    if item.market == "owned":
        raise InputError(f"{what} is owned hardware, which SkyPilot does not rent: --to terraform or {item.framework}")
    if item.provider not in CLOUDS:
        raise InputError(
            f"{what} is of {item.provider}, which SkyPilot {VERSION} does not have; it has {', '.join(CLOUDS)}"
        )
    if item.framework not in ENGINES:
        raise InputError(f"{what} runs {item.framework_title}; tasks are written for {', '.join(ENGINES)}")
    if len({worker.accelerator for worker in item.workers}) > 1:
        raise InputError(f"{what} has pools on two accelerators, which one task cannot ask for")


def accelerator_of(item: ServingItem) -> str:
    """Return what SkyPilot calls an item's accelerator.

    Raises:
        InputError: It has no name for it.
    """
    known = {name.lower(): name for name in ACCELERATORS}
    for name in item.accelerator_names:
        if name.lower() in known:
            return known[name.lower()]
    raise InputError(
        f"--to skypilot: item {item.number}: SkyPilot {VERSION} has no {item.accelerator}; "
        f"it has {', '.join(ACCELERATORS)}"
    )


def _task_file(item: ServingItem, prefix: str, *, routed: bool) -> ExportFile:
    head = remark(
        f"SkyPilot {VERSION}: item {item.number} of the plan, {item.title} in {item.precision} with "
        f"{item.framework_title}. sky serve up {prefix}skypilot.yaml"
    )
    return ExportFile(
        name=f"{prefix}skypilot.yaml",
        content=f"{head}\n{as_yaml(task(item, prefix, routed=routed))}",
        executable=False,
        what=f"task with a service of {_services(item, routed=routed)} replicas: sky serve up",
    )


def task(item: ServingItem, prefix: str = "", *, routed: bool = True) -> dict[str, Any]:
    """Return the task of an item: one group of nodes is one replica of SkyPilot's service.

    Without a router, it is one replica of the plan, on no more accelerators than that takes.
    """
    place = f"{item.provider}/{item.region}" if item.region else item.provider
    resources: dict[str, Any] = {
        "infra": place,
        "accelerators": f"{accelerator_of(item)}:{_a_node(item, routed=routed)}",
        "ports": PORT,
        "disk_size": 1024 if item.workers[-1].experts else 512,
    }
    if _names_instance(item) and _a_node(item, routed=routed) == item.accelerators_a_unit:
        resources["instance_type"] = item.instance_type
    if item.market == SPOT:
        resources["use_spot"] = True
    envs = {"MODEL": item.checkpoint or "", "HF_TOKEN": ""}
    run = [
        "set -euo pipefail",
        'export NODE="$SKYPILOT_NODE_RANK"',
        "export HOSTS=\"$(echo \"$SKYPILOT_NODE_IPS\" | tr '\\n' ' ')\"",
    ]
    if routed:
        run.append(f'if [ "$NODE" = 0 ]; then ./{prefix}router.sh > router.log 2>&1 & fi')
        run.append(f"./{prefix}node.sh")
    else:
        run.append(f"PORT={PORT} exec ./{prefix}serve.sh")
    return {
        "name": item.name,
        "workdir": ".",
        "num_nodes": item.group_nodes if routed else item.workers[-1].nodes,
        "resources": resources,
        "envs": envs,
        "service": {
            "readiness_probe": {
                "path": HEALTH[item.framework],
                "initial_delay_seconds": LOADING_S,
            },
            "replicas": _services(item, routed=routed),
        },
        "setup": "pip install " + " ".join(f"'{package}'" for package in PACKAGES[item.framework]),
        "run": "\n".join(run) + "\n",
    }


def _services(item: ServingItem, *, routed: bool) -> int:
    return -(-item.replicas // item.group_replicas) if routed else item.replicas


def _a_node(item: ServingItem, *, routed: bool) -> int:
    """Return the accelerators that are asked for on each node."""
    whole = min(item.workers[-1].per_node, item.accelerators_a_unit)
    return whole if routed else min(whole, item.workers[-1].accelerators)


def _names_instance(item: ServingItem) -> bool:
    """Whether a type of instance is stated that can be one of a cloud's."""
    return bool(item.instance_type) and not set(item.instance_type) & set(" \t\n\r")


def _notes(item: ServingItem, *, routed: bool) -> list[str]:
    said = [
        f"a replica of the service is {item.group_nodes} {'nodes' if item.group_nodes > 1 else 'node'} with "
        f"{item.group_replicas} of the plan's {item.replicas} replicas, one router in front",
        "scripts have to be executable and in the folder of the task: tokopt export --out DIR writes them so",
    ]
    if not routed:
        said[0] = f"a replica of the service is one of the plan's {item.replicas} replicas: there is no router"
        a_node = _a_node(item, routed=False)
        if a_node < item.accelerators_a_unit:
            said.append(
                f"the plan has {item.accelerators_a_unit // a_node} replicas on {item.instance_type or 'an instance'}; "
                f"each asks for an instance of {a_node} x {accelerator_of(item)}, at a price of its own"
            )
    if item.market in RESERVED:
        said.append("capacity that is reserved is stated in SkyPilot's configuration, not in a task")
    if item.instance_type and not _names_instance(item):
        said.append(f"{item.instance_type} is no type of instance that SkyPilot knows: accelerators alone decide")
    said.append("HF_TOKEN may be given: sky serve up --env HF_TOKEN")
    return said
