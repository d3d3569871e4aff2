"""Items of a plan in the words of serving tools: checkpoints, caps of ranks, and where workers are placed."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from tokopt.catalog import Catalog
from tokopt.domain.accelerators import Accelerator, Framework, Precision
from tokopt.domain.caching import Offload, Router
from tokopt.domain.demand import WorkloadClass
from tokopt.domain.deployments import Deployment, Pool, ServingMode
from tokopt.domain.exporting import Drafting, Placed, Role, ServingItem, ServingWorker
from tokopt.domain.features import Feature
from tokopt.domain.llms import Llm
from tokopt.domain.plans import FleetItem, Plan
from tokopt.domain.power_settings import SEPARATOR
from tokopt.domain.speculators import Method
from tokopt.errors import InputError
from tokopt.units import GIB

CONTEXT_STEP = 1024  # tokens that a context length is a multiple of
LEAST_BUDGET = 1024  # tokens of a step of a worker that only decodes
HOST_SHARE = 0.8  # of a server's memory for caches: its system, the engine and loading of weights need the rest
ONLINE = ("fp8",)  # precisions that a wider checkpoint is brought to when it is loaded, by vLLM and SGLang
WIDE = "bf16"
VENDORS = ("nvidia", "amd", "intel", "aws", "google")  # owners of repositories that are made for their own hardware
SPELLINGS = {  # precision -> how makers of checkpoints write it in names, besides its name and aliases
    "int4": ("awq", "gptq", "w4a16", "w4a8"),
    "int8": ("w8a8", "smoothquant"),
    "nvfp4": ("fp4",),
}


def serving_item(catalog: Catalog, plan: Plan, number: int) -> ServingItem:
    """Return item `number` of a plan's fleet, from 1.

    Raises:
        InputError: It names what the catalog does not have.
    """
    item = plan.fleet[number - 1]
    deployment = item.deployment
    llm = catalog.llm(class_of(plan, item).llm)  # by its path, where it was named by one
    accelerator = catalog.accelerator(deployment.accelerator)
    framework = catalog.framework(deployment.framework)
    workers = _workers(catalog, item, llm)
    group = _group(workers, item.replicas)
    checkpoint, on_load = checkpoint_of(llm, catalog.precision(deployment.precision), accelerator.vendor)
    owners = [catalog.accelerator(name) for name in (deployment.accelerator, deployment.prefill_accelerator)]
    return ServingItem(
        number=number,
        name=slug(f"{item.model}-{item.accelerator}-{number}"),
        llm=llm.name,
        title=llm.title,
        framework=framework.name,
        framework_title=framework.title,
        checkpoint=checkpoint,
        quantised_on_load=on_load,
        precision=deployment.precision,
        kv_precision=deployment.kv_precision,
        accelerator=accelerator.name,
        accelerator_names=(accelerator.hardware, *accelerator.aliases),
        power_setting=accelerator.name.partition(SEPARATOR)[2],
        supported=tuple(
            name for name, each in catalog.frameworks.items() if all(owner.hardware in each.support for owner in owners)
        ),
        context_tokens=context_tokens(plan, item, llm, workers),
        memory_fraction=framework.memory_fraction,
        drafting=drafting_of(catalog, deployment),
        prefix_caching=_caches(plan, accelerator, framework),
        router=(deployment.caching.router if deployment.caching else Router.RANDOM).value,
        offload=(deployment.caching.offload if deployment.caching else Offload.NONE).value,
        host_gib=HOST_SHARE * accelerator.host_bytes / GIB if accelerator.host_bytes else None,
        workers=workers,
        group=group,
        group_nodes=1 + max(placed.node + placed.worker.nodes - 1 for placed in group),
        group_replicas=sum(p.role is not Role.PREFILL for p in group) // workers[-1].workers,
        replicas=item.replicas,
        provider=item.provider,
        region=item.region,
        market=item.market,
        instance_type=item.instance_type,
        units=item.units,
        accelerators_a_unit=item.gpus_per_unit,
        usd_per_unit_hour=item.usd_per_unit_hour,
    )


def slug(text: str) -> str:
    """Return a name of letters, digits and hyphens, as Kubernetes takes it."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:50].strip("-") or "item"


# --- checkpoints ---


def checkpoint_of(llm: Llm, precision: Precision, vendor: str) -> tuple[str | None, str | None]:
    """Return the repository of a model in a precision, and the precision that it is brought to on loading.

    Repositories are the aliases with an owner; those of other precisions are told by the precision's name or aliases
    in theirs, as their makers write them. Of several, one that another vendor of accelerators made comes last.
    """
    if "/" in llm.name and not llm.aliases:
        return llm.name, None
    repositories = [alias for alias in llm.aliases if alias.count("/") == 1]
    native = llm.native_precision
    if precision.name == native:
        return (repositories[0] if repositories else None), None
    spelled = {_folded(name) for name in (precision.name, *precision.aliases, *SPELLINGS.get(precision.name, ()))}
    made = [name for name in repositories if spelled & _parts(name)]
    if made:
        return min(made, key=lambda name: _foreign(name, vendor)), None
    if native == WIDE and precision.name in ONLINE and repositories:
        return repositories[0], precision.name
    return None, None


def _foreign(repository: str, vendor: str) -> int:
    owner = repository.partition("/")[0].lower()
    return 2 if owner in VENDORS and owner != vendor else 1 if owner == vendor else 0


def _folded(text: str) -> str:
    return text.lower().replace("_", "").replace("-", "")


def _parts(repository: str) -> set[str]:
    return {part.lower() for part in re.split(r"[-_.]", repository.partition("/")[2])}


def drafting_of(catalog: Catalog, deployment: Deployment) -> Drafting | None:
    """Return how a deployment drafts tokens, None where it does not."""
    if not deployment.speculation_depth:
        return None
    if deployment.speculator is None:
        return Drafting(method=None, depth=deployment.speculation_depth, name="mtp", checkpoint=None)
    found = catalog.speculator(deployment.speculator)
    names: Iterable[str] = found.aliases
    if found.method is Method.DRAFT_MODEL and found.drafter is not None:
        names = (*found.aliases, *found.drafter.aliases)
    repository = next((name for name in names if name.count("/") == 1), None)
    return Drafting(method=found.method, depth=deployment.speculation_depth, name=found.name, checkpoint=repository)


# --- workers ---


def _workers(catalog: Catalog, item: FleetItem, llm: Llm) -> tuple[ServingWorker, ...]:
    deployment = item.deployment
    cap = item.concurrency_per_replica
    if deployment.mode is ServingMode.AGG:
        assert deployment.layout is not None
        machine = catalog.accelerator(deployment.accelerator)
        return (_worker(item, machine, llm, Role.SERVE, Pool(workers=1, layout=deployment.layout), cap),)
    assert deployment.prefill is not None and deployment.decode is not None
    prefills = catalog.accelerator(deployment.prefill_accelerator)
    decodes = catalog.accelerator(deployment.accelerator)
    return (
        _worker(item, prefills, llm, Role.PREFILL, deployment.prefill, None),
        _worker(item, decodes, llm, Role.DECODE, deployment.decode, cap),
    )


def _worker(item: FleetItem, machine: Accelerator, llm: Llm, role: Role, pool: Pool, cap: int | None) -> ServingWorker:
    deployment, workers, layout = item.deployment, pool.workers, pool.layout
    a_unit = next((part.gpus_per_unit for part in item.parts if part.pool == role.value), item.gpus_per_unit)
    rank_cap = None if cap is None else math.ceil(cap / (workers * layout.dp))
    decoding = (rank_cap or 0) * (1 + deployment.speculation_depth)
    chunk = deployment.chunk_tokens
    if role is Role.DECODE:
        chunk = max(LEAST_BUDGET, 1 << (decoding - 1).bit_length())
    return ServingWorker(
        role=role,
        workers=workers,
        accelerator=machine.title,
        vendor=machine.vendor,
        per_node=min(machine.accelerators_per_node, a_unit),
        tp=layout.tp,
        pp=layout.pp,
        dp=layout.dp,
        ep=layout.ep,
        cp=layout.cp,
        dcp=layout.dcp,
        redundant_experts=layout.redundant_experts,
        two_batch_overlap=layout.two_batch_overlap,
        rank_cap=rank_cap,
        chunk_tokens=chunk,
        step_tokens=chunk if role is Role.DECODE else chunk + decoding,
        experts=any(group.feed_forward.experts for group in llm.layers),
        chunked_prefill=Feature.CHUNKED_PREFILL not in deployment.without,
        cuda_graphs=Feature.CUDA_GRAPHS not in deployment.without,
        overlap_scheduling=Feature.OVERLAP_SCHEDULING not in deployment.without,
    )


def _group(workers: tuple[ServingWorker, ...], replicas: int) -> tuple[Placed, ...]:
    """Return the workers of the fewest nodes that hold whole replicas, each within as few nodes as it takes.

    Larger workers come first, so that smaller ones fill what they leave; one of more than a node has its nodes alone.
    """
    per_node = workers[-1].per_node
    a_replica = sum(worker.workers * worker.accelerators for worker in workers)
    together = max(1, min(per_node // a_replica, replicas)) if a_replica <= per_node else 1
    placed: list[Placed] = []
    room: list[int] = []  # accelerators taken of each node
    pools: list[str] = []  # accelerator of each node
    for worker in sorted(workers, key=lambda each: -each.accelerators):
        for number in range(worker.workers * together):
            if worker.nodes > 1:
                node = len(room)
                room += [worker.per_node] * worker.nodes
                pools += [worker.accelerator] * worker.nodes
                first = 0
            else:
                fits = (
                    n
                    for n, taken in enumerate(room)
                    if pools[n] == worker.accelerator and taken + worker.accelerators <= worker.per_node
                )
                node = next(fits, len(room))
                if node == len(room):
                    room.append(0)
                    pools.append(worker.accelerator)
                first = room[node]
                room[node] += worker.accelerators
            placed.append(Placed(role=worker.role, number=number, node=node, first=first, worker=worker))
    return tuple(placed)


def context_tokens(plan: Plan, item: FleetItem, llm: Llm, workers: tuple[ServingWorker, ...]) -> int:
    """Return the longest request that is accepted: what the model takes, or what a full cache surely holds.

    A rank's cache holds as many mean requests as the running cap, and no engine starts whose cache could not hold the
    longest request.
    """
    asked = class_of(plan, item).workload
    held = (workers[-1].rank_cap or 1) * (asked.input_tokens + asked.output_tokens)
    return min(llm.max_context_tokens, math.ceil(held / CONTEXT_STEP) * CONTEXT_STEP)


def class_of(plan: Plan, item: FleetItem) -> WorkloadClass:
    """Return the class of requests that an item serves.

    Raises:
        InputError: The plan does not name it.
    """
    name = next(iter(item.share_of_traffic), "")
    found = plan.request.class_named(name)
    if found is None:
        raise InputError(f"the plan's fleet serves {name!r}, which is none of its classes of requests")
    return found


def _caches(plan: Plan, accelerator: Accelerator, framework: Framework) -> bool:
    support = framework.support.get(accelerator.hardware)
    able = support is not None and Feature.PREFIX_CACHING in support.features
    return able and Feature.PREFIX_CACHING not in plan.request.disabled_features
