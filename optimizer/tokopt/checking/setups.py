"""Rules on how a fleet item's replicas are set up: legal, consistent, and fitting in memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from tokopt.checking.case import Case
from tokopt.checking.evaluation import decoding, replica_of
from tokopt.domain.accelerators import FrameworkSupport
from tokopt.domain.caching import Offload, Router
from tokopt.domain.deployments import Deployment, Layout, ServingMode
from tokopt.domain.llms import AttentionKind, Llm
from tokopt.domain.speculators import Method, Speculator
from tokopt.units import GIB

MOST_CHECKED = 1 << 20  # requests in service of one worker that a check goes through one by one


def names_known(case: Case) -> list[str]:
    """Check that every name of the deployment is in the catalogs, and one that the request allows."""
    deployment, inputs, request = case.item.deployment, case.inputs, case.request
    faults = [
        f"{what} {name!r} is not in the catalog"
        for what, name, known in (
            *_speculators_named(case),
            ("accelerator", deployment.accelerator, inputs.accelerators),
            ("prefill accelerator", deployment.prefill_accelerator, inputs.accelerators),
            ("framework", deployment.framework, inputs.frameworks),
            ("precision", deployment.precision, inputs.precisions),
            ("kv_precision", deployment.kv_precision, inputs.kv_bits),
        )
        if name not in known
    ]
    if deployment.llm != case.llm.name:
        faults.append(f"model is {deployment.llm}, but the request asks for {case.llm.name}")
    faults += [
        f"{what} {name} is not among those that the request allows: {', '.join(allowed)}"
        for what, name, allowed in (
            ("framework", deployment.framework, request.frameworks),
            ("precision", deployment.precision, request.precisions),
            ("kv_precision", deployment.kv_precision, request.kv_precisions),
            ("mode", deployment.mode.value, tuple(mode.value for mode in request.modes)),
        )
        if allowed and name not in allowed
    ]
    if request.disabled_features:
        layouts = [layout for _, layout in _layouts(deployment)]
        faults += [
            f"{setting}, which the request does without ({feature} is disabled)"
            for feature, setting in _settings_in_use(deployment, layouts, inputs.speculators)
            if feature in request.disabled_features
        ]
    limit = case.asked.most_quality_loss
    pair = (deployment.precision, deployment.kv_precision)
    if limit is not None and case.llm.quality_loss(*pair) > limit:
        faults.append(f"{' with a cache in '.join(pair)} is not known to lose at most {limit:g} of the quality")
    framework = inputs.frameworks.get(deployment.framework)
    if framework is not None and not framework.recommended and framework.name not in request.frameworks:
        faults.append(f"framework {framework.name} is not recommended: it is only for requests that name it")
    return [case.fault(text) for text in faults]


def _speculators_named(case: Case) -> list[tuple[str, str, Mapping[str, object]]]:
    name = case.item.deployment.speculator
    return [] if name is None else [("speculator", name, case.inputs.speculators)]


def mode_complete(case: Case) -> list[str]:
    """Check that an aggregated deployment has one layout, a disaggregated one has two pools, and neither has both."""
    deployment = case.item.deployment
    pools = (deployment.prefill, deployment.decode)
    if deployment.mode is ServingMode.AGG:
        whole = deployment.layout is not None and pools == (None, None)
    else:
        whole = deployment.layout is None and None not in pools
    if not whole:
        return [case.fault(f"mode is {deployment.mode.value}, which its layout and pools do not match")]
    return [case.fault(text) for text in _pools_placed(case)]


def _pools_placed(case: Case) -> list[str]:
    """Return what is wrong with where pools are: the deployment's own decodes, another prefills only if asked for."""
    deployment = case.item.deployment
    prefill, decode = deployment.prefill, deployment.decode
    if prefill is None or decode is None:
        return []
    faults = []
    if decode.accelerator not in (None, deployment.accelerator):
        faults.append(f"decode pool is on {decode.accelerator}, but the deployment's accelerator decodes")
    if not deployment.mixed:
        return faults
    if decode.accelerator is None:
        faults.append("pools are on different accelerators, but the decode pool does not state its own")
    if not case.request.mixed_pools:
        faults.append("pools are on different accelerators, which the request does not allow (mixed_pools)")
    if deployment.caching is not None:
        faults.append("deployment states caching, which is not modelled over pools on different accelerators")
    return faults


def fields_agree(case: Case) -> list[str]:
    """Check that fields of the item repeat what its deployment says."""
    item, deployment = case.item, case.item.deployment
    layout, _ = decoding(deployment)
    loss = case.llm.quality_loss(deployment.precision, deployment.kv_precision)
    expected: dict[str, object] = {
        "accelerator": deployment.accelerator,
        "model": deployment.llm,
        "precision": deployment.precision,
        "kv_precision": deployment.kv_precision,
        "framework": deployment.framework,
        "mode": deployment.mode,
        "tp": layout.tp,
        "pp": layout.pp,
        "ep": layout.ep,
        "dp": layout.dp,
        "cp": _prompting(deployment).cp,
        "dcp": layout.dcp,
        "prefill": deployment.prefill,
        "decode": deployment.decode,
        "concurrency_per_replica": deployment.max_running_requests,
        "gpus_per_replica": deployment.accelerators,
        "quality_loss": loss if math.isfinite(loss) else None,
    }
    where = deployment.prefill_accelerator if deployment.mixed else None
    if item.features.get("prefill_accelerator") != where:
        expected["features"] = {**item.features, "prefill_accelerator": where}
    settings: dict[str, object] = {
        "chunk_tokens": deployment.chunk_tokens,
        "kv_precision": deployment.kv_precision,
        "mtp_depth": deployment.speculation_depth if deployment.speculator is None else None,
        "speculation_depth": deployment.speculation_depth,
        "speculator": deployment.speculator,
        "speculation": _method(case),
        "disaggregated": deployment.mode is ServingMode.DISAGG,
        "expert_parallel": layout.ep,
        "attention_data_parallel": layout.dp,
        "prefill_context_parallel": _prompting(deployment).cp,
        "decode_context_parallel": layout.dcp,
        "redundant_experts": max(each.redundant_experts for _, each in _layouts(deployment)),
        "two_batch_overlap": _overlapping(deployment),
    }
    if deployment.caching is not None:
        caching = deployment.caching
        settings |= {"prefix_hit_share": caching.hit_share, "device_hit_share": caching.device_share}
        settings |= {"router": caching.router.value, "kv_offload": caching.offload.value}
    pairs = [(name, getattr(item, name), value) for name, value in expected.items()]
    pairs += [(f"features {name}", item.features[name], v) for name, v in settings.items() if name in item.features]
    return [
        case.fault(f"{name} is {says}, but its deployment says {should}")
        for name, says, should in pairs
        if says != should
    ]


def _prompting(deployment: Deployment) -> Layout:
    """Return the layout of the workers that take prompts."""
    return decoding(deployment)[0] if deployment.prefill is None else deployment.prefill.layout


def _method(case: Case) -> str | None:
    """Return how the deployment drafts."""
    deployment = case.item.deployment
    if not deployment.speculation_depth:
        return None
    named = case.inputs.speculators.get(deployment.speculator) if deployment.speculator is not None else None
    return "mtp" if named is None else named.method.value


def supported(case: Case) -> list[str]:
    """Check that the framework runs the precisions and all features in use there, and the model comes in them."""
    deployment, llm = case.item.deployment, case.llm
    framework = case.inputs.frameworks[deployment.framework]
    faults: list[str] = []
    for name in dict.fromkeys((deployment.accelerator, deployment.prefill_accelerator)):
        support = framework.support.get(case.inputs.accelerators[name].hardware)
        if support is None:
            return [case.fault(f"framework {deployment.framework} does not run on {name}")]
        there = [layout for _, layout, own in _placed(deployment) if own == name]
        faults += _unsupported(case, framework.name, support, there)
    if deployment.precision not in llm.precisions:
        served = ", ".join(llm.precisions)
        faults.append(f"precision {deployment.precision}: {llm.name} is not served in it; it is in {served}")
    if deployment.speculator is not None:
        faults += _draftable(case)
    elif deployment.speculation_depth > 0 and llm.mtp_layers == 0:
        faults.append(f"speculation_depth is {deployment.speculation_depth}, but {llm.name} ships no draft module")
    return [case.fault(text) for text in faults]


def _unsupported(case: Case, framework: str, support: FrameworkSupport, layouts: Sequence[Layout]) -> list[str]:
    """Return what a framework does not run on one accelerator of those in use; `layouts` are of the workers there."""
    deployment = case.item.deployment
    faults = []
    if deployment.precision not in support.precisions:
        faults.append(f"precision {deployment.precision}: {framework} does not run it there")
    if deployment.kv_precision not in support.kv_precisions:
        faults.append(f"kv_precision {deployment.kv_precision}: {framework} does not run it there")
    return [*faults, *(f"{why}, which {framework} does not support there" for why in _missing(case, support, layouts))]


def _layouts(deployment: Deployment) -> Iterator[tuple[str, Layout]]:
    if deployment.layout is not None:
        yield "", deployment.layout
    if deployment.prefill is not None:
        yield "prefill ", deployment.prefill.layout
    if deployment.decode is not None:
        yield "decode ", deployment.decode.layout


def _placed(deployment: Deployment) -> Iterator[tuple[str, Layout, str]]:
    """Yield each layout with its pool and the accelerator that it is on."""
    for pool, layout in _layouts(deployment):
        own = deployment.prefill_accelerator if pool == "prefill " else deployment.accelerator
        yield pool, layout, own


def _overlapping(deployment: Deployment) -> str:
    """Return the pools whose steps run as halves, in words."""
    return " and ".join(name.strip() or "agg" for name, layout in _layouts(deployment) if layout.two_batch_overlap)


def _missing(case: Case, support: FrameworkSupport, layouts: Sequence[Layout]) -> list[str]:
    """Return the settings that need a feature that is not supported."""
    used = _settings_in_use(case.item.deployment, layouts, case.inputs.speculators)
    return [setting for feature, setting in used if feature not in support.features or _limited(case, support, feature)]


def _limited(case: Case, support: FrameworkSupport, feature: str) -> bool:
    """Whether a feature that is there is not there for the model, or for the way that it is served."""
    limit = support.feature_limits.get(feature)
    if limit is None:
        return False
    kinds = {group.attention.kind for group in case.llm.layers}
    dense = all(group.feed_forward.experts == 0 for group in case.llm.layers)
    together = case.item.deployment.mode is ServingMode.AGG
    other_kind = bool(limit.attention and kinds - set(limit.attention))
    return other_kind or (limit.experts and dense) or (limit.apart and together)


def _draftable(case: Case) -> list[str]:
    """Return why a speculator cannot draft as the deployment says."""
    deployment = case.item.deployment
    speculator = case.inputs.speculators[deployment.speculator or ""]
    faults = []
    if not speculator.drafts_for(case.llm.name):
        faults.append(f"speculator {speculator.name} does not draft for {case.llm.name}")
    if not 0 < deployment.speculation_depth <= speculator.deepest:
        said = f"{speculator.name} drafts 1 to {speculator.deepest} tokens a step"
        faults.append(f"speculation_depth is {deployment.speculation_depth}, but {said}")
    layout, _ = decoding(deployment)
    if layout.pp > 1 and not speculator.method.pipelines:
        faults.append(f"pp is {layout.pp}, but {speculator.name} drafts on one pipeline stage only")
    if layout.dp > 1 and not speculator.method.ranks:
        faults.append(f"dp is {layout.dp}, but {speculator.name} drafts without attention data parallelism only")
    return faults


def _settings_in_use(
    deployment: Deployment, layouts: Sequence[Layout], speculators: Mapping[str, Speculator]
) -> list[tuple[str, str]]:
    """Return the features that a deployment uses with some of its layouts, and the setting that does."""
    drafts = speculators.get(deployment.speculator) if deployment.speculator is not None else None
    caching = deployment.caching
    needs = {
        "mtp": ("speculation_depth above 0", deployment.speculation_depth > 0 and deployment.speculator is None),
        **{
            method.value: (f"speculator {deployment.speculator}", drafts is not None and drafts.method is method)
            for method in Method
        },
        "disagg": ("mode disagg", deployment.mode is ServingMode.DISAGG),
        "attention_dp": ("dp above 1", any(layout.dp > 1 for layout in layouts)),
        "expert_parallel": ("ep above 1", any(layout.ep > 1 for layout in layouts)),
        "prefix_caching": ("hit_share above 0", caching is not None and caching.hit_share > 0.0),
        "kv_routing": ("router kv_aware", caching is not None and caching.router is Router.KV_AWARE),
        "kv_offload": ("offload of its caches", caching is not None and caching.offload is not Offload.NONE),
        "two_batch_overlap": ("two_batch_overlap", any(layout.two_batch_overlap for layout in layouts)),
        "expert_redundancy": ("redundant_experts above 0", any(layout.redundant_experts for layout in layouts)),
        "pipeline_parallel": ("pp above 1", any(layout.pp > 1 for layout in layouts)),
        "prefill_context_parallel": ("cp above 1", any(layout.cp > 1 for layout in layouts)),
        "decode_context_parallel": ("dcp above 1", any(layout.dcp > 1 for layout in layouts)),
    }
    return [(feature, setting) for feature, (setting, used) in needs.items() if used]


def layout_legal(case: Case) -> list[str]:
    """Check that degrees divide what they split, and links beyond the scale-up domain are known where used."""
    deployment, llm = case.item.deployment, case.llm
    experts = max(group.feed_forward.experts for group in llm.layers)
    faults = []
    for pool, layout, own in _placed(deployment):
        accelerator = case.inputs.accelerators[own]
        domain = accelerator.scale_up_size
        stage = layout.tp * layout.dp * layout.cp
        faults += [pool + text for text in _context_faults(pool, layout, llm, experts)]
        if layout.tp > domain:
            faults.append(f"{pool}tp is {layout.tp}, but a scale-up domain has {domain} accelerators")
        if stage % layout.ep:
            spread = "tp x dp" if layout.cp == 1 else "tp x dp x cp"
            faults.append(f"{pool}ep is {layout.ep}, which does not divide {spread} = {stage}")
        if layout.ep > 1 and layout.ep > experts:
            faults.append(f"{pool}ep is {layout.ep}, but {llm.name} has {experts} experts a layer")
        if layout.redundant_experts and (layout.ep == 1 or (experts + layout.redundant_experts) % layout.ep):
            faults.append(f"{pool}redundant_experts is {layout.redundant_experts}: slots of ep {layout.ep} are uneven")
        if layout.two_batch_overlap and (min(layout.dp, layout.ep) == 1 or layout.pp > 1):
            faults.append(f"{pool}two_batch_overlap needs dp and ep above 1, and pp of 1")
        if layout.pp > llm.layer_count:
            faults.append(f"{pool}pp is {layout.pp}, but {llm.name} has {llm.layer_count} layers")
        if layout.accelerators > domain and not accelerator.scale_out_bytes_per_s:
            size = f"{layout.accelerators:,} accelerators, more than the {domain} of a scale-up domain"
            faults.append(f"{pool}worker spans {size}, and the catalog has no bandwidth beyond it")
    faults += _unlinked(case)
    return [case.fault(text) for text in faults]


def _unlinked(case: Case) -> list[str]:
    """Return why caches cannot get from one pool to the other."""
    deployment, known = case.item.deployment, case.inputs.accelerators
    accelerator = known[deployment.accelerator]
    domain = accelerator.scale_up_size
    faults = []
    if deployment.mixed:
        ends = (deployment.prefill_accelerator, deployment.accelerator)
        lacking = [name for name in ends if not known[name].scale_out_bytes_per_s]
        faults += [f"pools on different accelerators need a bandwidth between nodes of {name}" for name in lacking]
    disaggregated = deployment.mode is ServingMode.DISAGG
    if disaggregated and deployment.accelerators > domain and not accelerator.scale_out_bytes_per_s:
        size = f"{deployment.accelerators:,} accelerators, more than the {domain} of a scale-up domain"
        faults.append(f"mode is disagg over {size}, and the catalog has no bandwidth beyond it")
    return faults


def _context_faults(pool: str, layout: Layout, llm: Llm, experts: int) -> list[str]:
    """Return what is wrong with the degrees of context parallelism of one worker."""
    faults = []
    if layout.cp > 1 and pool == "decode ":
        faults.append(f"cp is {layout.cp}, but the pool has no prompts to split")
    if layout.dcp > 1 and pool == "prefill ":
        faults.append(f"dcp is {layout.dcp}, but the pool does not decode")
    if layout.cp > 1 and experts and layout.ep % layout.cp:
        faults.append(f"ep is {layout.ep}, which does not spread experts over cp = {layout.cp} ranks")
    latent = (AttentionKind.LATENT, AttentionKind.LATENT_SPARSE)
    heads = max(1 if g.attention.kind in latent else g.attention.kv_heads for g in llm.layers)
    copies = layout.tp // min(layout.tp, heads)
    if layout.tp % layout.dcp or copies % layout.dcp:
        faults.append(f"dcp is {layout.dcp}, but tp = {layout.tp} makes {copies} copies of {heads} key-value heads")
    return faults


def cap_legal(case: Case) -> list[str]:
    """Check that the running cap is stated, splits evenly over decode workers, and is what an engine can run."""
    deployment = case.item.deployment
    layout, workers = decoding(deployment)
    cap = deployment.max_running_requests
    if cap is None:
        return [case.fault("concurrency_per_replica is not stated in the deployment (max_running_requests)")]
    each = case.inputs.frameworks[deployment.framework].max_running_requests  # of an attention rank and pipeline stage
    most = min(each * layout.dp * layout.pp, MOST_CHECKED)
    if cap % workers:
        return [case.fault(f"concurrency_per_replica {cap:,} does not split over {workers} decode workers")]
    if cap // workers > most:
        return [case.fault(f"concurrency_per_replica is {cap // workers:,} a worker; at most {most:,} run at a time")]
    return []


def fits_in_memory(case: Case) -> list[str]:
    """Check that weights, working memory and a cache for the whole running cap fit on every worker."""
    deployment = case.item.deployment
    replica = replica_of(deployment, case.workload, case.llm, case.inputs)
    _, workers = decoding(deployment)
    cap = (deployment.max_running_requests or 0) // workers
    faults = []
    if cap > replica.memory.sequences:
        held = f"{replica.memory.sequences:,} requests fit in the memory of a worker"
        faults.append(f"concurrency_per_replica is {cap:,} a worker, but only {held}")
    if replica.prefiller is not None and replica.prefill_memory is not None:
        held_prompts, needed = replica.prefill_memory.sequences, replica.prefiller.groups
        if held_prompts < needed:
            faults.append(f"prefill worker holds {held_prompts:,} prompts, but runs {needed:,} at a time")
    return [case.fault(text) for text in faults]


def memory_stated(case: Case) -> list[str]:
    """Check that `memory_gib` is that of the fullest accelerator of a decoding worker at its running cap.

    kv = cap / dp · cache of a mean sequence; other = activations of a prefill chunk (none in a decode pool) + what the
    framework leaves unused (memory - usable memory); free = memory - weights - kv - other. [GiB]
    """
    deployment, says = case.item.deployment, case.item.memory_gib
    replica = replica_of(deployment, case.workload, case.llm, case.inputs)
    memory, rates = replica.memory, replica.decoder.rates
    cap = (deployment.max_running_requests or 0) // replica.decoders
    kv = cap / replica.decoder.layout.dp * memory.per_sequence
    other = memory.working + rates.memory_bytes - rates.usable_bytes
    free = rates.memory_bytes - memory.weights - kv - other
    why = "of the fullest accelerator at the running cap, in GiB"
    faults = []
    for figure, value in (("weights", memory.weights), ("kv", kv), ("other", other), ("free", free)):
        stated = getattr(says, figure)
        # What is free is a small difference of large figures.
        if not abs(stated - value / GIB) <= 1e-9 * rates.memory_bytes / GIB:
            faults += case.differs(f"memory_gib {figure}", stated, value / GIB, why)
    return faults
