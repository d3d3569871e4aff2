"""What a plan uses, and requests that do without some of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tokopt.domain.caching import Offload, Router
from tokopt.domain.demand import WorkloadShape
from tokopt.domain.deployments import Layout, ServingMode
from tokopt.domain.features import SWITCHABLE, Feature
from tokopt.domain.plans import FleetItem, Plan, PlanRequest

from .columns import hardware_of


def hardware_in(plan: Plan) -> tuple[str, ...]:
    """Return the accelerators of a plan, whatever their power setting; what serves most comes first."""
    served: dict[str, float] = {}
    for item, part in ((each, part) for each in plan.fleet for part in each.bought):
        name = hardware_of(part.accelerator)
        served[name] = served.get(name, 0.0) + item.output_tokens_per_s
    return tuple(sorted(served, key=lambda name: (-served[name], name)))


def layouts_of(item: FleetItem) -> list[Layout]:
    """Return the layouts of an item's workers."""
    pools = [pool.layout for pool in (item.prefill, item.decode) if pool is not None]
    return pools if item.deployment.layout is None else [item.deployment.layout]


IN_USE: Mapping[Feature, Callable[[FleetItem], bool]] = {
    Feature.MTP: lambda item: item.features.get("speculation") == Feature.MTP,
    Feature.EAGLE3: lambda item: item.features.get("speculation") == Feature.EAGLE3,
    Feature.DRAFT_MODEL: lambda item: item.features.get("speculation") == Feature.DRAFT_MODEL,
    Feature.NGRAM: lambda item: item.features.get("speculation") == Feature.NGRAM,
    Feature.DISAGG: lambda item: item.mode is ServingMode.DISAGG,
    Feature.EXPERT_PARALLEL: lambda item: any(layout.ep > 1 for layout in layouts_of(item)),
    Feature.ATTENTION_DP: lambda item: any(layout.dp > 1 for layout in layouts_of(item)),
    Feature.PIPELINE_PARALLEL: lambda item: any(layout.pp > 1 for layout in layouts_of(item)),
    Feature.PREFILL_CONTEXT_PARALLEL: lambda item: any(layout.cp > 1 for layout in layouts_of(item)),
    Feature.DECODE_CONTEXT_PARALLEL: lambda item: any(layout.dcp > 1 for layout in layouts_of(item)),
    Feature.TWO_BATCH_OVERLAP: lambda item: any(layout.two_batch_overlap for layout in layouts_of(item)),
    Feature.EXPERT_REDUNDANCY: lambda item: any(layout.redundant_experts for layout in layouts_of(item)),
    Feature.PREFIX_CACHING: lambda item: item.deployment.caching is not None,
    Feature.KV_ROUTING: lambda item: item.features.get("router") == Router.KV_AWARE,
    Feature.KV_OFFLOAD: lambda item: item.features.get("kv_offload", Offload.NONE) != Offload.NONE,
}
FEATURE_TITLES: Mapping[Feature, str] = {
    Feature.MTP: "multi-token prediction",
    Feature.EAGLE3: "EAGLE-3 drafts",
    Feature.DRAFT_MODEL: "drafts by a small model",
    Feature.NGRAM: "n-gram drafts",
    Feature.DISAGG: "disaggregation",
    Feature.EXPERT_PARALLEL: "expert parallelism",
    Feature.ATTENTION_DP: "attention data parallelism",
    Feature.PIPELINE_PARALLEL: "pipeline parallelism",
    Feature.PREFILL_CONTEXT_PARALLEL: "prefill context parallelism",
    Feature.DECODE_CONTEXT_PARALLEL: "decode context parallelism",
    Feature.TWO_BATCH_OVERLAP: "two-batch overlap",
    Feature.EXPERT_REDUNDANCY: "redundant experts",
    Feature.KV_ROUTING: "KV-aware routing",
    Feature.KV_OFFLOAD: "KV offload",
    Feature.CHUNKED_PREFILL: "chunked prefill",
    Feature.CUDA_GRAPHS: "captured graphs",
    Feature.OVERLAP_SCHEDULING: "overlap scheduling",
}


def feature_title(feature: Feature) -> str:
    """Return a feature's name in words."""
    return FEATURE_TITLES.get(feature, feature.value.replace("_", " "))


def item_uses(item: FleetItem, feature: Feature) -> bool:
    """Whether an item has a feature: by its set-up, or by what it says is switched on."""
    known = IN_USE.get(feature)
    return bool(item.features.get(feature.value)) if known is None else known(item)


def uses(plan: Plan, feature: Feature) -> bool:
    """Whether any item of a plan has a feature."""
    return any(item_uses(item, feature) for item in plan.fleet)


def without_features(request: PlanRequest, features: Sequence[Feature]) -> PlanRequest:
    """Return a request that also does without some features."""
    gone = {*request.disabled_features, *features}
    return request.model_copy(update={"disabled_features": tuple(f for f in SWITCHABLE if f in gone)})


def with_prefix_share(request: PlanRequest, change: Callable[[float], float]) -> PlanRequest:
    """Return a request with other shares of prompts found in the prefix cache, whatever it holds."""

    def changed(shape: WorkloadShape) -> WorkloadShape:
        return shape.model_copy(update={"prefix_share": change(shape.prefix_share), "reuse": None})

    classes = tuple(c.model_copy(update={"workload": changed(c.workload)}) for c in request.classes)
    return request.model_copy(update={"workload": changed(request.workload), "classes": classes})
