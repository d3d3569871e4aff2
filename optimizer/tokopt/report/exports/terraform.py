"""Terraform: a plan as plain variables, with their declarations."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tokopt.domain.exporting import ExportFile, Rendered, ServingItem

VERSION = "1.0"  # of Terraform's JSON syntax, and of OpenTofu's
VARIABLE = "tokopt_fleet"
# Attribute -> its type, what it is, and what of an item it takes.
ATTRIBUTES: dict[str, tuple[str, str, Any]] = {
    "name": ("string", "Name of the item: letters, digits and hyphens", lambda i: i.name),
    "provider": ("string", "Provider, as the price list calls it; owned = own hardware", lambda i: i.provider),
    "region": ("string", "Region; empty where the price list states none", lambda i: i.region),
    "market": ("string", "on_demand, spot, reserved, reserved_1y, reserved_3y or owned", lambda i: i.market),
    "spot": ("bool", "Whether it is spot capacity", lambda i: i.market == "spot"),
    "instance_type": ("string", "What is rented or bought whole", lambda i: i.instance_type),
    "instances": ("number", "How many of it", lambda i: i.units),
    "accelerator": ("string", "Accelerator, by tokopt's name", lambda i: i.accelerator),
    "accelerators_per_instance": ("number", "Accelerators of one instance", lambda i: i.accelerators_a_unit),
    "usd_per_instance_hour": ("number", "Price of one instance for an hour", lambda i: i.usd_per_unit_hour),
    "model": ("string", "Model, by tokopt's name", lambda i: i.llm),
    "checkpoint": ("string", "Repository of the weights; empty where none is known", lambda i: i.checkpoint or ""),
    "precision": ("string", "Precision of the weights", lambda i: i.precision),
    "kv_precision": ("string", "Precision of the KV cache", lambda i: i.kv_precision),
    "framework": ("string", "Serving framework", lambda i: i.framework),
    "mode": ("string", "agg, or disagg: prefill and decode apart", lambda i: "disagg" if i.apart else "agg"),
    "replicas": ("number", "Replicas of the set-up", lambda i: i.replicas),
    "replicas_per_group": ("number", "Replicas that a group of nodes holds", lambda i: i.group_replicas),
    "nodes_per_group": ("number", "Nodes of a group, which should be near one another", lambda i: i.group_nodes),
    "requests_per_s_per_replica": (
        "number",
        "Planned load of one replica, in the busiest period",
        lambda i: i.requests_per_s,
    ),
    "pools": (
        "list(object({role = string, workers = number, accelerators = number, tp = number, pp = number, "
        "dp = number, ep = number}))",
        "Workers of one replica by role, with the parallel degrees of each",
        lambda i: [_pool(worker) for worker in i.workers],
    ),
}


def render(items: Sequence[ServingItem]) -> Rendered:
    """Return the values of one variable, and its declaration."""
    values = {VARIABLE: [{name: of(item) for name, (_, _, of) in ATTRIBUTES.items()} for item in items]}
    types = ", ".join(f"{name} = {kind}" for name, (kind, _, _) in ATTRIBUTES.items())
    said = "; ".join(f"{name}: {what}" for name, (_, what, _) in ATTRIBUTES.items())
    declared = {
        "variable": {
            VARIABLE: {
                "type": f"list(object({{{types}}}))",
                "description": f"The fleet of a tokopt plan, an object an item. {said}.",
                "default": [],
            }
        }
    }
    files = (
        ExportFile(
            name="tokopt.auto.tfvars.json",
            content=_json(values),
            executable=False,
            what=f"values of the variable {VARIABLE}, which Terraform reads by itself",
        ),
        ExportFile(
            name="tokopt.variables.tf.json",
            content=_json(declared),
            executable=False,
            what=f"declaration of the variable {VARIABLE}, with what each attribute is",
        ),
    )
    return Rendered(files=files, notes=("resources are yours to write: the variable says how many of what, and where",))


def _pool(worker: Any) -> dict[str, Any]:
    return {
        "role": worker.role.value,
        "workers": worker.workers,
        "accelerators": worker.accelerators,
        "tp": worker.tp,
        "pp": worker.pp,
        "dp": worker.dp,
        "ep": worker.ep,
    }


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
