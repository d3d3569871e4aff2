"""Precisions and serving features of a platform: supported, used, and what each is worth; and what it lacks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from tokopt.catalog import Catalog
from tokopt.domain.accelerators import NumberFormat
from tokopt.domain.auditing import Case, FeatureAnswer, Gain, MissingAnswer, PrecisionAnswer
from tokopt.domain.features import HIDING_THE_HOST, SWITCHABLE, Feature
from tokopt.domain.llms import Llm
from tokopt.domain.plans import Plan, Status
from tokopt.errors import InputError
from tokopt.perf.machine import compute_format
from tokopt.search import OperatingPoint

from .auditing_bench import FILLED, PER_GPU, PER_USER, Bench, Found, cost_gain, frameworks_on, is_published, speed_gain
from .explaining_features import FEATURE_TITLES, item_uses
from .long_inputs import AUDITED
from .planning import solve_request

TITLES: Mapping[str, str] = {
    **{feature.value: title for feature, title in FEATURE_TITLES.items()},
    "mtp": "speculative decoding (MTP)",
    "eagle3": "speculative decoding (EAGLE-3)",
    "draft_model": "speculative decoding (draft model)",
    "ngram": "speculative decoding (n-grams)",
    "disagg": "disaggregated prefill and decode",
    "chunked_pipeline": "chunks of a prompt on several pipeline stages",
    "fp8": "FP8 arithmetic",
    "fp4": "FP4 arithmetic",
}
REPEATED = (Feature.KV_ROUTING, Feature.KV_OFFLOAD)
DRAFTED = (Feature.EAGLE3, Feature.DRAFT_MODEL, Feature.NGRAM)
OF_LONG_INPUTS = (Feature.PREFILL_CONTEXT_PARALLEL, Feature.DECODE_CONTEXT_PARALLEL)
NEED_EACH_OTHER = (Feature.EXPERT_PARALLEL, Feature.ATTENTION_DP)
LONGER = 4  # times the input, at which disaggregation is looked at again
HITS = 0.5  # share of prompts in the cache, at which prefix caching is looked at
WITHIN = "within the limits"
SKEWED = "skewed"  # expert traffic in which copies of experts are looked at
NEED_EXPERTS = (*NEED_EACH_OTHER, Feature.TWO_BATCH_OVERLAP, Feature.EXPERT_REDUNDANCY)
NARROW = (NumberFormat.FP8, NumberFormat.FP4)
FROM_WIDE = (NumberFormat.BF16, NumberFormat.INT8, NumberFormat.FP8, NumberFormat.FP4)


def title_of(name: str) -> str:
    """Return a feature's name in words."""
    return TITLES.get(name, name.replace("_", " "))


# --- precisions ---


def precision_answers(bench: Bench) -> tuple[PrecisionAnswer, ...]:
    """Return the precisions that the platform serves the model in by default, the widest first."""
    catalog, llm = bench.asked.catalog, bench.asked.llm
    frameworks: dict[str, list[str]] = {}
    for name, support in bench.supports().items():
        for served in support.precisions:
            if served in llm.precisions and is_published(catalog.precisions[served], llm, bench.accelerator.vendor):
                frameworks.setdefault(served, []).append(name)
    order = sorted(frameworks, key=lambda name: -catalog.precisions[name].ffn_bits)
    found = {name: bench.within(f"weights in {name}", precisions=name).case for name in order}
    answers = []
    for name in order:
        precision, loss = catalog.precisions[name], llm.quality_loss(name)
        gain = cost_gain("", found[name], found[order[0]])
        saved = None if gain.worth is None else 1.0 - 1.0 / (1.0 + gain.worth)
        answers.append(
            PrecisionAnswer(
                precision=name,
                native=name == llm.native_precision,
                multiplies_in=compute_format(bench.accelerator, precision.ffn_compute, precision).value,
                dequantised=precision.weight_only or precision.ffn_compute not in bench.accelerator.dense_flop_per_s,
                frameworks=tuple(frameworks[name]),
                case=found[name],
                saving=saved if name != order[0] else None,
                quality_loss=loss if loss < math.inf else None,
                kept_wider=llm.kept_wider.get(name, ""),
                sources=_support_sources(bench, frameworks[name]),
            )
        )
    return tuple(answers)


def _support_sources(bench: Bench, frameworks: list[str] | tuple[str, ...]) -> tuple[str, ...]:
    supports = bench.supports()
    return tuple(dict.fromkeys(supports[name].source for name in frameworks))


# --- features ---


def unsuited(feature: Feature, llm: Llm, catalog: Catalog) -> str:
    """Return why a feature does nothing for a model; empty where it may."""
    if feature is Feature.MTP and llm.mtp_layers == 0:
        return "the model ships no draft modules"
    if feature in DRAFTED and not any(
        each.method.value == feature.value and each.drafts_for(llm.name) for each in catalog.speculators.values()
    ):
        return "the catalog knows nothing that drafts for the model"
    if feature in NEED_EXPERTS and not any(group.feed_forward.experts for group in llm.layers):
        return "the model has no experts"
    supports = [support for f in catalog.frameworks.values() if f.recommended for support in f.support.values()]
    if any(feature in support.features for support in supports) and not any(
        support.has(feature, llm, apart=True) for support in supports
    ):
        return "no framework is documented to have it for the model's attention"
    return ""


def feature_answers(bench: Bench) -> tuple[FeatureAnswer, ...]:
    """Return every feature that requests can do without, compared with doing without, and prefix caching."""
    answers = []
    for feature in SWITCHABLE:
        if feature is Feature.PREFIX_CACHING:
            continue  # compared at a share of hits, below
        having, why = bench.having(feature), unsuited(feature, bench.asked.llm, bench.asked.catalog)
        suits = not why
        item = bench.within().item
        gains = tuple(_gains(bench, feature)) if having and suits else ()
        answers.append(
            FeatureAnswer(
                feature=feature.value,
                title=title_of(feature.value),
                supported=bool(having),
                frameworks=having,
                applies=suits,
                used=None if item is None else item_uses(item, feature),
                gains=gains,
                note=why,
                sources=_support_sources(bench, having),
            )
        )
    return (*answers, _caching(bench))


def _gains(bench: Bench, feature: Feature) -> Iterator[Gain]:
    def compared(condition: str, isl: float | None = None, **changes: Any) -> Gain:
        changes |= {} if isl is None else {"isl": isl}
        with_it = bench.within(condition, **changes).case
        return cost_gain(condition, with_it, bench.within(condition, disable=feature.value, **changes).case)

    if feature in REPEATED and bench.asked.workload.reuse is None:
        repeating = next((name for name, each in bench.asked.catalog.workloads.items() if each.reuse), None)
        if repeating is not None:
            yield compared(f"with prompts that repeat as in the {repeating} workload", workload=repeating)
        return
    if feature in OF_LONG_INPUTS:
        yield compared(*_at_length(bench))
        return
    if feature is Feature.EXPERT_REDUNDANCY:
        yield compared(f"with {SKEWED} expert traffic", expert_traffic=SKEWED)
        return
    yield compared(WITHIN)
    if feature is Feature.MTP:
        ours, plain = bench.points()[0], bench.points(feature)[0]
        if ours and plain:
            fastest = (max(1.0 / point.tpot_s for point in points) for points in (ours, plain))
            yield speed_gain("at low batch: the fastest for one user", PER_USER, *fastest)
            yield speed_gain("at saturation, whatever the latency", PER_GPU, _most(bench, ours), _most(bench, plain))
    if feature is Feature.DISAGG:
        tokens = LONGER * bench.asked.workload.input_tokens
        if tokens + bench.asked.workload.output_tokens <= bench.asked.llm.max_context_tokens:
            yield compared(f"at {LONGER} times the input ({tokens:,.0f} tokens)", isl=tokens)


def _at_length(bench: Bench) -> tuple[str, float]:
    """Return the condition, and the tokens in, at which features of long inputs are looked at."""
    room = bench.asked.llm.max_context_tokens - bench.asked.workload.output_tokens
    tokens = float(min(max(AUDITED), math.floor(room)))
    return f"with {tokens:,.0f} tokens in", tokens


def _most(bench: Bench, points: list[OperatingPoint]) -> float:
    return max(point.requests_per_s_per_accelerator for point in points) * bench.asked.workload.output_tokens


def _caching(bench: Bench) -> FeatureAnswer:
    having = bench.having(Feature.PREFIX_CACHING)
    return FeatureAnswer(
        feature=Feature.PREFIX_CACHING.value,
        title=title_of(Feature.PREFIX_CACHING.value),
        supported=bool(having),
        frameworks=having,
        applies=True,
        used=bench.asked.workload.prefix_share > 0 if having else None,
        gains=(_hits(bench),) if having else (),
        sources=_support_sources(bench, having),
    )


def _hits(bench: Bench) -> Gain:
    condition = f"where {HITS * 100:.0f} % of prompt tokens are in the cache"
    with_it = bench.within(condition, prefix_share=HITS).case
    return cost_gain(condition, with_it, bench.within(condition, prefix_share=0.0).case)


# --- what is lacking ---


def missing_answers(bench: Bench, *, measured: bool = True) -> tuple[MissingAnswer, ...]:
    """Return what other platforms of the catalog have and this one lacks, each with the cost of doing without.

    Unless it is `measured`, as on a platform that does not serve the model at all, it is only named.
    """
    catalog, hardware = bench.asked.catalog, bench.accelerator.hardware
    answers = []
    for feature in Feature:
        platforms = tuple(name for name in platforms_with(catalog, feature) if name != hardware)
        alone = feature is Feature.ATTENTION_DP and not bench.having(Feature.EXPERT_PARALLEL)
        if platforms and not bench.having(feature) and not alone:
            named = _lacking(feature.value, platforms, _sources_of(catalog, feature, platforms))
            answers.append(_without_feature(bench, feature, named) if measured else named)
    for number_format in NARROW:
        others = [a for a in catalog.accelerators.values() if number_format in a.dense_flop_per_s]
        if others and number_format not in bench.accelerator.dense_flop_per_s:
            sources = dict.fromkeys(a.sources.get("dense_tflops", "") for a in others)
            named = _lacking(number_format.value, tuple(a.name for a in others), tuple(sources))
            answers.append(_without_format(bench, number_format, named) if measured else named)
    return tuple(answers)


def platforms_with(catalog: Catalog, feature: Feature) -> tuple[str, ...]:
    """Return the accelerators on which a framework that one would deploy has a feature."""
    return tuple(
        dict.fromkeys(
            name
            for framework in catalog.frameworks.values()
            if framework.recommended
            for name, support in framework.support.items()
            if feature in support.features
        )
    )


def _lacking(name: str, platforms: tuple[str, ...], sources: tuple[str, ...]) -> MissingAnswer:
    return MissingAnswer(
        name=name, title=title_of(name), platforms=platforms, measured="", measured_on="", gain=None, sources=sources
    )


def _without_feature(bench: Bench, feature: Feature, named: MissingAnswer) -> MissingAnswer:
    """Return what a feature would save if the frameworks had it there; else what it saves where it is best used."""
    here = bench.accelerator.name
    why = unsuited(feature, bench.asked.llm, bench.asked.catalog)
    if why:
        return named.model_copy(update={"note": why})
    if feature is Feature.PREFIX_CACHING:
        found: dict[str, Any] = {"measured": "if prompts were cached there", "measured_on": here, "gain": _hits(bench)}
        return named.model_copy(update=found)
    if feature not in SWITCHABLE:
        return named.model_copy(update={"note": "what doing without costs is not modelled"})
    if feature in HIDING_THE_HOST:
        # An engine that lacks it was measured as it is: what its host takes is in its own constants.
        return _elsewhere(bench, named, {}, {"disable": feature.value})
    granted = NEED_EACH_OTHER if feature in NEED_EACH_OTHER else (feature,)
    condition: str = WITHIN
    changes: dict[str, Any] = {}
    if feature in OF_LONG_INPUTS:
        condition, tokens = _at_length(bench)
        changes = {"isl": tokens}
    if feature is Feature.EXPERT_REDUNDANCY:
        condition, changes = f"with {SKEWED} expert traffic", {"expert_traffic": SKEWED}
    with_it = bench.within(condition, granted=granted, **changes).case
    gain = cost_gain(condition, with_it, bench.within(condition, **changes).case)
    if gain.worth is not None:
        found = {"measured": "if the frameworks had it there", "measured_on": here, "gain": gain}
        return named.model_copy(update=found)
    return _elsewhere(bench, named, changes, {"disable": feature.value, **changes})


def _sources_of(catalog: Catalog, feature: Feature, platforms: tuple[str, ...]) -> tuple[str, ...]:
    rows = (f.support[name] for f in catalog.frameworks.values() for name in platforms if name in f.support)
    return tuple(dict.fromkeys(row.source for row in rows if feature in row.features))


def _without_format(bench: Bench, number_format: NumberFormat, named: MissingAnswer) -> MissingAnswer:
    """Return what arithmetic in a format saves where it is best used: it cannot be granted to an accelerator."""
    catalog, llm = bench.asked.catalog, bench.asked.llm
    # Formats narrower still would hide what this one saves.
    places = {n: FROM_WIDE.index(catalog.precisions[n].ffn_compute) for n in llm.precisions}
    place = FROM_WIDE.index(number_format)
    up_to = tuple(n for n in places if places[n] <= place)
    wider = tuple(n for n in places if places[n] < place)
    if up_to == wider or not wider:
        return named.model_copy(update={"note": f"{llm.name} is published in {', '.join(llm.precisions)}"})
    return _elsewhere(bench, named, {"precisions": up_to}, {"precisions": wider})


def _elsewhere(
    bench: Bench, named: MissingAnswer, having: Mapping[str, Any], without: Mapping[str, Any]
) -> MissingAnswer:
    """Return what a token costs with something and without it on the cheapest of the platforms that have it."""
    asked = bench.asked
    key = (named.platforms, tuple(having.items()), tuple(without.items()))
    if key not in asked.known:
        asked.known[key] = _cheapest(bench, named.platforms, having, without)
    best, gain = asked.known[key]
    measured = "on the cheapest platform that has it" if best else ""
    return named.model_copy(update={"measured": measured, "measured_on": best, "gain": gain})


def _cheapest(
    bench: Bench, platforms: tuple[str, ...], having: Mapping[str, Any], without: Mapping[str, Any]
) -> tuple[str, Gain | None]:
    asked = bench.asked
    priced = [name for name in platforms if name in asked.prices_by_accelerator]
    powered = [name for name in priced if asked.catalog.accelerators[name].all_in_w is not None]
    plan = _plan_of(bench, powered, having) if powered else None
    item = Found(case=Case(condition=WITHIN), plan=plan).item
    if item is None:
        return "", None
    accelerator = asked.catalog.accelerators[item.accelerator]
    running = tuple(f.name for f in frameworks_on(asked.catalog, accelerator, ()))
    other = Bench(asked=asked, accelerator=accelerator, frameworks=running)
    gain = cost_gain(WITHIN, other.within(WITHIN, **having).case, other.within(WITHIN, **without).case)
    return item.accelerator, gain


def _plan_of(bench: Bench, accelerators: list[str], having: Mapping[str, Any]) -> Plan | None:
    asked = bench.asked
    try:
        request = asked.request(asked.catalog, gpus=tuple(accelerators), power=FILLED, **having)
        plan = solve_request(request, asked.catalog, search=asked.search, extras=False)
    except InputError:
        return None
    return None if plan.status is Status.INFEASIBLE else plan
