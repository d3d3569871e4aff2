"""Scripts that start workers: one a role, one that starts those of a node, and one for the router before them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tokopt.domain.exporting import ExportFile, Placed, Role, ServingItem, ServingWorker
from tokopt.report.exports.settings import in_words
from tokopt.report.exports.shell import Raw, command, remark, script, word

SCRIPTS = {Role.SERVE: "serve.sh", Role.PREFILL: "prefill.sh", Role.DECODE: "decode.sh"}
PORTS = {Role.SERVE: 8001, Role.PREFILL: 8101, Role.DECODE: 8201}  # of the first worker of a role
SIDE_PORTS = {Role.SERVE: 5600, Role.PREFILL: 5600, Role.DECODE: 7600}  # for transfers of caches
SIDE_STEP = 32  # ranks of a worker count on from its side port
VISIBLE = {"amd": "HIP_VISIBLE_DEVICES"}  # vendor -> variable that says which accelerators a process sees
EVERYONE_ELSE = "CUDA_VISIBLE_DEVICES"
MODEL = Raw('"${MODEL:-$model}"')
HEAD_ADDRESS = Raw('"${HEAD_ADDRESS:?set HEAD_ADDRESS to the first node of this worker}"')
NODE_RANK = Raw('"${NODE_RANK:?set NODE_RANK to the place of this node among those of the worker, from 0}"')


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """What differs between engines."""

    title: str
    version: str
    worker: Callable[[ServingItem, ServingWorker], list[tuple[object, ...]]]  # words of the command, in groups
    environment: Callable[[ServingItem, ServingWorker], list[str]]  # lines before it
    router: Callable[[ServingItem], list[tuple[object, ...]]] | None  # words before the workers' addresses
    together: str  # flag before the addresses of workers that do both
    bootstrap: bool  # whether a prefill worker's address is followed by the port that caches are asked for at


def launch_files(item: ServingItem, engine: Engine, prefix: str) -> tuple[ExportFile, ...]:
    """Return the scripts of an item."""
    files = [_worker_file(item, worker, engine, prefix) for worker in item.workers]
    files.append(_group_file(item, engine, prefix))
    if engine.router is not None:
        files.append(_router_file(item, engine, engine.router(item), prefix))
    return tuple(files)


def model_line(item: ServingItem) -> str:
    """Return the line of a script that names the checkpoint."""
    if item.checkpoint is None:
        return 'model="${MODEL:?set MODEL to a repository or folder of a checkpoint}"'
    return f"model={word(item.checkpoint)}"


def _worker_file(item: ServingItem, worker: ServingWorker, engine: Engine, prefix: str) -> ExportFile:
    lines = [
        remark(f"{engine.title} {engine.version}: one {in_words(worker)}."),
        remark(f"Item {item.number} of the plan: {item.title} in {item.precision}, cache in {item.kv_precision}."),
        remark("PORT, MODEL and further flags of the engine may be given: PORT=8001 MODEL=/models/mine ./serve.sh"),
    ]
    if worker.nodes > 1:
        lines.append(remark(f"Run it on each of {worker.nodes} nodes with NODE_RANK and HEAD_ADDRESS set."))
    lines += ["set -euo pipefail", model_line(item), *engine.environment(item, worker)]
    groups = [*engine.worker(item, worker), (Raw('"$@"'),)]
    name = f"{prefix}{SCRIPTS[worker.role]}"
    return ExportFile(
        name=name, content=script(*lines, *command(groups)), executable=True, what=f"starts one {in_words(worker)}"
    )


def _group_file(item: ServingItem, engine: Engine, prefix: str) -> ExportFile:
    """Return the script that starts what runs on one node of a group."""
    several = item.group_nodes > 1
    groups = -(-item.replicas // item.group_replicas)
    held = f"{item.group_replicas} of {item.replicas} replicas"
    nodes = f"{item.group_nodes} nodes hold" if several else "a node holds"
    lines = [
        remark(f"{engine.title} {engine.version}: starts the workers of one node, in the background."),
        remark(f"Item {item.number}: {nodes} {held}; {groups} of these are planned."),
    ]
    if several:
        lines.append(remark("NODE is the place of this node in its group, HOSTS are the addresses of all, in order."))
    lines += ["set -euo pipefail", 'here="$(cd "$(dirname "$0")" && pwd)"']
    if several:
        lines += [
            f'node="${{NODE:?set NODE to the place of this node in its group, 0 to {item.group_nodes - 1}}}"',
            'read -r -a hosts <<< "${HOSTS:?set HOSTS to the addresses of the nodes of the group, in order}"',
            f'if [ "${{#hosts[@]}}" -ne {item.group_nodes} ]; then',
            f'  echo "HOSTS: {item.group_nodes} addresses are needed" >&2; exit 2',
            "fi",
        ]
    else:
        lines += ["node=0", "hosts=(127.0.0.1)"]
    lines += [
        "start() {  # name, script, its accelerators, port, side port, place among its nodes, first of them",
        '  env "$3" PORT="$4" SIDE_PORT="$5" NODE_RANK="$6" HEAD_ADDRESS="${hosts[$7]}" \\',
        '    HOST_ADDRESS="${hosts[$node]}" "$here/$2" > "$1.log" 2>&1 &',
        '  echo "$1: process $!, log in $1.log"',
        "}",
        'case "$node" in',
    ]
    for node in range(item.group_nodes):
        lines.append(f"  {node})")
        lines += [f"    {_start(placed, node, prefix)}" for placed in item.group if _runs_on(placed, node)]
        lines.append("    ;;")
    lines += ['  *) echo "NODE: no such node: $node" >&2; exit 2 ;;', "esac", "wait"]
    return ExportFile(
        name=f"{prefix}node.sh", content=script(*lines), executable=True, what="starts all workers of one node"
    )


def _runs_on(placed: Placed, node: int) -> bool:
    return placed.node <= node < placed.node + placed.worker.nodes


def _start(placed: Placed, node: int, prefix: str) -> str:
    """Return the call that starts a worker, or its part on a node."""
    worker, rank = placed.worker, node - placed.node
    here = min(worker.accelerators - rank * worker.per_node, worker.per_node)
    visible = VISIBLE.get(worker.vendor, EVERYONE_ELSE)
    devices = f"{visible}={','.join(str(placed.first + n) for n in range(here))}"
    name = f"{placed.role.value}-{placed.number}"
    script_name = f"{prefix}{SCRIPTS[placed.role]}"
    return f"start {name} {script_name} {devices} {_port(placed)} {_side_port(placed)} {rank} {placed.node}"


def _port(placed: Placed) -> int:
    return PORTS[placed.role] + placed.number


def _side_port(placed: Placed) -> int:
    return SIDE_PORTS[placed.role] + SIDE_STEP * placed.number


def _router_file(item: ServingItem, engine: Engine, router: Sequence[Sequence[object]], prefix: str) -> ExportFile:
    pools = "prefill and decode workers" if item.apart else "all replicas"
    lines = [
        remark(f"{engine.title}: a router before {pools} of item {item.number}, on port 8000."),
        *gathered(item, f"--{Role.PREFILL.value}", f"--{Role.DECODE.value}", bootstrap=engine.bootstrap),
    ]
    addresses = [] if item.apart else [(engine.together, Raw('"${workers[@]}"'))]
    last = [(Raw('"${workers[@]}"'),)] if item.apart else []
    groups: Sequence[Sequence[object]] = [
        *router, ("--host", "0.0.0.0"), ("--port", Raw('"${PORT:-8000}"')), *addresses, *last,
    ]  # fmt: skip
    return ExportFile(
        name=f"{prefix}router.sh",
        content=script(*lines, *command(groups)),
        executable=True,
        what=f"routes requests to {pools}",
    )


def gathered(item: ServingItem, prefill: str, decode: str, *, bootstrap: bool = False) -> list[str]:
    """Return lines that gather the addresses of all workers in the array `workers`.

    Args:
        item: The item.
        prefill: What stands before the address of a prefill worker.
        decode: The same of a decode worker.
        bootstrap: Whether a prefill worker's address is followed by the port that caches are asked for at.
    """
    lines = [
        remark(f"HOSTS are the addresses of all nodes, {item.group_nodes} a group, in the order of the groups."),
        "set -euo pipefail",
        'read -r -a hosts <<< "${HOSTS:-127.0.0.1}"',
    ]
    if item.group_nodes > 1:
        lines += [
            f"if (( ${{#hosts[@]}} % {item.group_nodes} )); then",
            f'  echo "HOSTS: a multiple of {item.group_nodes} addresses is needed" >&2; exit 2',
            "fi",
        ]
    lines += ["workers=()", f"for ((first = 0; first < ${{#hosts[@]}}; first += {item.group_nodes})); do"]
    before = {Role.SERVE: "", Role.PREFILL: f"{prefill} ", Role.DECODE: f"{decode} "}
    for placed in sorted(item.group, key=lambda p: (p.role is Role.DECODE, p.number)):
        boot = f" {_side_port(placed)}" if bootstrap and placed.role is Role.PREFILL else ""
        address = f'"http://${{hosts[first + {placed.node}]}}:{_port(placed)}"'
        lines.append(f"  workers+=({before[placed.role]}{address}{boot})")
    return [*lines, "done"]


def prefix_of(item: ServingItem, items: Sequence[ServingItem]) -> str:
    """Return what the names of an item's files begin with: nothing where it is the only one."""
    return f"item{item.number}-" if len(items) > 1 else ""
