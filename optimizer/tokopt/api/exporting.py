"""`export`: a plan as the files that serving tools take."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tokopt.catalog import Catalog, load_catalog
from tokopt.domain.caching import Offload
from tokopt.domain.exporting import BenchmarkTool, Export, ServingItem, Target
from tokopt.domain.plans import Plan
from tokopt.errors import InputError, not_one_of

from .checking import read_plan
from .export_items import HOST_SHARE, serving_item
from .export_points import operating_point

RENDERERS = {  # what a plan is written for -> module of report.exports; each has VERSION and render(items)
    Target.VLLM: "vllm",
    Target.SGLANG: "sglang",
    Target.TRTLLM: "trtllm",
    Target.DYNAMO: "dynamo",
    Target.LLM_D: "llm_d",
    Target.SKYPILOT: "skypilot",
    Target.TERRAFORM: "terraform",
    Target.BENCHMARK: "benchmark",
}
ENGINES = {Target.VLLM: "vllm", Target.SGLANG: "sglang", Target.TRTLLM: "tensorrt-llm"}  # frameworks of the catalog


def export_plan(
    plan: Plan | str | Path | Mapping[str, Any],
    to: str,
    *,
    item: int | None = None,
    tool: str = BenchmarkTool.AIPERF.value,
    catalog: str | Catalog | None = None,
) -> Export:
    """Return a plan as the files that a serving tool takes.

    Args:
        plan: A plan, its JSON as a mapping, or the path of a plan file.
        to: `vllm`, `sglang`, `trtllm`, `dynamo`, `llm-d`, `skypilot`, `terraform` or `benchmark`.
        item: Which item of the fleet, from 1; None = all.
        tool: What runs a benchmark: `aiperf` or `guidellm`.
        catalog: A catalog or an overlay directory; None = what the plan's request names.

    Raises:
        InputError: In one line: not a plan, an item that it does not have, or one that the tool cannot run.
    """
    if to not in list(Target):
        raise not_one_of("--to", str(to), [each.value for each in Target])
    target = Target(to)
    if tool not in list(BenchmarkTool):
        raise not_one_of("--tool", str(tool), [each.value for each in BenchmarkTool])
    if tool != BenchmarkTool.AIPERF and target is not Target.BENCHMARK:
        raise InputError(f"--tool {tool} goes with --to benchmark")
    read = read_plan(plan)
    if not read.fleet:
        raise InputError("the plan has no fleet: it is infeasible, so there is nothing to export")
    numbers = range(1, len(read.fleet) + 1)
    if item is not None and item not in numbers:
        last = f"1 to {len(numbers)}" if len(numbers) > 1 else "1"
        raise InputError(f"--item {item}: the plan's fleet has {last}")
    loaded = catalog if isinstance(catalog, Catalog) else load_catalog(catalog or read.request.catalog)
    chosen = tuple(numbers) if item is None else (item,)
    found = tuple(_asked(loaded, read, number, target) for number in chosen)
    module = importlib.import_module(f"tokopt.report.exports.{RENDERERS[target]}")
    rendered = module.render(found, BenchmarkTool(tool)) if target is Target.BENCHMARK else module.render(found)
    if not rendered.files:
        raise InputError(f"--to {target.value}: nothing can be written: {'; '.join(rendered.notes)}")
    of_which = "replicas are those of the fullest of the plan's periods, loads those of the busiest"
    periods = [of_which] if read.request.periods else []
    notes = [*periods, *(note for each in found for note in _notes(each, target)), *rendered.notes]
    return Export(
        to=target,
        version=module.VERSIONS[tool] if target is Target.BENCHMARK else module.VERSION,
        items=chosen,
        files=rendered.files,
        notes=tuple(dict.fromkeys(notes)),
    )


def _asked(catalog: Catalog, plan: Plan, number: int, target: Target) -> ServingItem:
    """Return an item with its operating point where the target asks for it.

    Raises:
        InputError: The target cannot run it.
    """
    item = serving_item(catalog, plan, number)
    engine = ENGINES.get(target)
    if engine is not None and engine not in item.supported:
        title = catalog.framework(engine).title
        raise InputError(
            f"--to {target.value}: {title} is not known to run on {item.accelerator}, which item {number} is on; "
            f"--to {_named(item.framework)} is what the plan runs"
        )
    if engine is not None:
        item = replace(item, memory_fraction=catalog.framework(engine).memory_fraction)
    if target in (Target.BENCHMARK, Target.TERRAFORM):
        return replace(item, point=operating_point(plan, plan.fleet[number - 1], item.context_tokens))
    return item


def _named(framework: str) -> str:
    return next((target.value for target, name in ENGINES.items() if name == framework), "terraform")


def _notes(item: ServingItem, target: Target) -> list[str]:
    """Return what holds of an item whatever it is written for."""
    said = []
    engine = ENGINES.get(target)
    if engine is not None and engine != item.framework:
        said.append(f"item {item.number} was planned for {item.framework_title}: its figures are not this engine's")
    if item.power_setting:
        said.append(
            f"item {item.number}: accelerators are set to {item.power_setting} (nvidia-smi --power-limit or "
            "--lock-gpu-clocks, amd-smi set), which no serving tool does"
        )
    if target in (Target.TERRAFORM, Target.BENCHMARK):
        return said
    if item.checkpoint is None:
        said.append(f"no checkpoint of {item.title} in {item.precision} is known: set MODEL to one")
    elif item.quantised_on_load:
        said.append(f"{item.checkpoint} is brought to {item.quantised_on_load} while it is loaded")
    else:
        said.append(
            f"weights in {item.precision}: {item.checkpoint}, whose own settings decide how they are multiplied"
        )
    drafts = item.drafting
    if drafts is not None and drafts.method is not None and drafts.method.needs_checkpoint and not drafts.checkpoint:
        said.append(f"no repository of the drafter {drafts.name} is known: set DRAFT_MODEL to one")
    said.append(
        f"requests of up to {item.context_tokens:,} tokens are taken: what the model takes, or what the cache of a "
        "full replica holds"
    )
    if item.offload != Offload.NONE and item.host_gib:
        said.append(
            f"caches may take {HOST_SHARE:.0%} of a server's memory, where the plan counts on all of it: the system, "
            "the engine and loading of weights need the rest"
        )
    if item.apart:
        said.append("the plan states no running cap of prefill workers: the engine's default holds there")
        decode = item.workers[-1]
        said.append(
            f"steps of decode workers take up to {decode.step_tokens:,} tokens, enough for all that run and their "
            "drafts; the plan states the budget of prefill workers only"
        )
    return said
