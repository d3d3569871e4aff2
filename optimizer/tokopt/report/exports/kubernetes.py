"""What manifests of several tools have in common: names of resources, words of arguments, models to be set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from tokopt.domain.exporting import ServingItem, ServingWorker
from tokopt.report.exports import sglang, vllm

RESOURCES = {"amd": "amd.com/gpu", "intel": "habana.ai/gaudi"}  # vendor -> resource of a pod
EVERYONE_ELSE = "nvidia.com/gpu"
MODEL, DRAFT_MODEL = "MODEL", "DRAFT_MODEL"
TOKEN_SECRET = "hf-token-secret"  # the name of a secret, not one
ENGINE_FLAGS = {"vllm": vllm.engine_flags, "sglang": sglang.engine_flags}


def resource_of(worker: ServingWorker) -> str:
    """Return what a pod asks for to have accelerators."""
    return RESOURCES.get(worker.vendor, EVERYONE_ELSE)


def here(worker: ServingWorker) -> int:
    """Return the accelerators of a worker on each of its nodes."""
    return -(-worker.accelerators // worker.nodes)


def settled(item: ServingItem) -> ServingItem:
    """Return an item whose unknown checkpoints are variables that Kubernetes fills in, and whose names are not."""
    drafting = item.drafting
    if drafting is not None:
        known = literal(drafting.checkpoint) if drafting.checkpoint else f"$({DRAFT_MODEL})"
        drafting = replace(drafting, checkpoint=known)
    checkpoint = literal(item.checkpoint) if item.checkpoint else f"$({MODEL})"
    return replace(item, checkpoint=checkpoint, llm=literal(item.llm), drafting=drafting)


def literal(text: str) -> str:
    """Return a text in which Kubernetes fills in nothing."""
    return text.replace("$(", "$$(")


def asked_variables(item: ServingItem) -> list[dict[str, Any]]:
    """Return variables of a container for checkpoints that are not known: a pod waits until they are set."""
    names = [] if item.checkpoint else [MODEL]
    drafting = item.drafting
    asked = drafting and drafting.method and drafting.method.needs_checkpoint and not drafting.checkpoint
    if asked and item.framework in ENGINE_FLAGS:  # TensorRT LLM reads its drafter from a file, not from arguments
        names.append(DRAFT_MODEL)
    source = f"{item.name}-models"
    return [{"name": n, "valueFrom": {"configMapKeyRef": {"name": source, "key": n}}} for n in names]


def cluster_notes(item: ServingItem) -> list[str]:
    """Return notes on what the cluster has to have first, whichever tool runs an item there."""
    said = _unset_notes(item)
    said.append(f"first: kubectl create secret generic {TOKEN_SECRET} --from-literal=HF_TOKEN=...")
    if item.apart:
        said.append("RDMA between nodes takes a resource of the cluster's network (rdma/ib or the like), to be added")
    return said


def _unset_notes(item: ServingItem) -> list[str]:
    names = [each["name"] for each in asked_variables(item)]
    keys = " ".join(f"--from-literal={name}=..." for name in names)
    return [f"first: kubectl create configmap {item.name}-models {keys}"] if names else []


def arguments(groups: Iterable[Sequence[object]]) -> list[str]:
    """Return flags as the list of words that a container takes."""
    return [f"{each:g}" if isinstance(each, float) else str(each) for group in groups for each in group]
