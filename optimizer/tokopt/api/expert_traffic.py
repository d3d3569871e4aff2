"""How unlike experts are asked for: names, what follows from them, and what is said of it."""

from __future__ import annotations

from tokopt.catalog import Catalog
from tokopt.catalog.names import folded, name_index
from tokopt.domain.deployments import Deployment, Layout, Pool
from tokopt.domain.expert_traffic import UNIFORM, ExpertTraffic
from tokopt.domain.features import Feature
from tokopt.errors import InputError, not_one_of
from tokopt.perf.expert_balance import spread_of

from .resolved import Resolved


def traffic_named(catalog: Catalog, name: str) -> ExpertTraffic:
    """Return traffic by name or alias.

    Raises:
        InputError: There is none of that name.
    """
    found = name_index(catalog.expert_traffic).get(folded(name), ())
    if len(found) != 1:
        raise not_one_of("--expert-traffic", name, catalog.expert_traffic)
    return catalog.expert_traffic[found[0]]


def popularity_spread(catalog: Catalog, name: str) -> float:
    """Return the spread of experts' popularity in traffic of a name; 0 where all are asked for alike.

    Raises:
        InputError: There is no such traffic, or its load is not possible.
    """
    if name == UNIFORM:
        return 0.0  # what everything was fitted to, whatever a catalog lacks
    traffic = traffic_named(catalog, name)
    if traffic.experts is None or traffic.expert_parallel is None or traffic.fullest is None:
        return 0.0
    try:
        return spread_of(traffic.fullest, experts=traffic.experts, group=traffic.expert_parallel)
    except ValueError as error:
        raise InputError(f"expert_traffic: {traffic.name}: {error}") from None


def said_of_traffic(catalog: Catalog, name: str) -> str:
    """Return what is taken for granted of the traffic of experts, in a sentence."""
    traffic = None if name == UNIFORM else traffic_named(catalog, name)
    if traffic is None or traffic.fullest is None:
        return "experts are asked for alike, as by the random prompts of benchmarks (--expert-traffic skewed: by texts)"
    measured = (
        f"the fullest of {traffic.expert_parallel} GPUs with {traffic.experts} experts gets {traffic.fullest:.3g} "
        "times the mean unless copies balance it"
    )
    return f"experts are asked for as in {traffic.title[0].lower()}{traffic.title[1:]} ({traffic.kind}): {measured}"


def layouts_by_role(deployment: Deployment) -> dict[str, Layout]:
    """Return the layouts of a deployment's workers: `agg`, or `prefill` and `decode`."""
    if deployment.layout is not None:
        return {"agg": deployment.layout}
    pools = {"prefill": deployment.prefill, "decode": deployment.decode}
    return {role: pool.layout for role, pool in pools.items() if pool is not None}


def spreads_experts(deployment: Deployment) -> bool:
    """Whether any worker of a deployment spreads experts over accelerators."""
    return any(layout.ep > 1 for layout in layouts_by_role(deployment).values())


def with_spread_experts(resolved: Resolved, deployment: Deployment, *, redundant: int, two_batch: bool) -> Deployment:
    """Return a deployment with copies of experts in every pool that spreads them, and halves where that is possible.

    Raises:
        InputError: No pool can have it, the slots do not divide, or the framework is not documented to do it there.
    """
    if not redundant and not two_batch:
        return deployment
    supports = [end.framework.support[end.accelerator.hardware] for end in resolved.ends]
    for wanted, feature, option in (
        (redundant, Feature.EXPERT_REDUNDANCY, "--redundant-experts"),
        (two_batch, Feature.TWO_BATCH_OVERLAP, "--two-batch-overlap"),
    ):
        if wanted and any(feature not in support.features for support in supports):
            raise InputError(f"{option}: {resolved.framework.name} is not documented to do that there")
    found: list[Layout] = []

    def spread(layout: Layout) -> Layout:
        update: dict[str, int | bool] = {}
        if redundant and layout.ep > 1:
            if redundant < 0 or (resolved.model.experts + redundant) % layout.ep:
                fill, each = -int(resolved.model.experts) % layout.ep, layout.ep
                said = f"{fill}, {fill + each}, {fill + 2 * each} … do" if fill else f"multiples of {each} do"
                raise InputError(f"--redundant-experts: {redundant} leave slots of {each} accelerators uneven; {said}")
            update["redundant_experts"] = redundant
        if two_batch and min(layout.ep, layout.dp) > 1 and layout.pp == 1:
            update["two_batch_overlap"] = True
        found.append(layout.model_copy(update=update))
        return found[-1]

    changed: dict[str, Layout | Pool] = {}
    if deployment.layout is not None:
        changed["layout"] = spread(deployment.layout)
    for name in ("prefill", "decode"):
        pool = getattr(deployment, name)
        if pool is not None:
            changed[name] = pool.model_copy(update={"layout": spread(pool.layout)})
    if redundant and not any(layout.redundant_experts for layout in found):
        raise InputError("--redundant-experts: no layout spreads experts: give ep above 1")
    if two_batch and not any(layout.two_batch_overlap for layout in found):
        raise InputError("--two-batch-overlap: no layout exchanges tokens: give ep and dp above 1, and pp of 1")
    return deployment.model_copy(update=changed)
