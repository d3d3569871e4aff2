"""`audit`: the questions that a buyer should ask of a platform, answered with numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from tokopt.catalog import Catalog, load_catalog
from tokopt.cost import usd_per_million_tokens
from tokopt.domain.accelerators import Accelerator
from tokopt.domain.auditing import (
    Audit,
    AuditProvenance,
    AuditSource,
    BehaviourAnswer,
    CostAnswer,
    LongInput,
    PlatformAudit,
    PublishedCost,
)
from tokopt.domain.workloads import Sla, Workload
from tokopt.errors import InputError
from tokopt.search import OperatingPoint, longest_input
from tokopt.units import MS
from tokopt.version import __version__

from .asking import DEFAULT_LLM, DEFAULT_PRICES, DEFAULT_WORKLOAD
from .auditing_bench import USD, Asked, Bench, frameworks_on
from .auditing_documented import architectures, life_cycle
from .auditing_exchange import exchange_answer, too_large
from .auditing_features import feature_answers, missing_answers, precision_answers
from .frontiers import cheapest_by_accelerator
from .long_inputs import AUDITED
from .progress import Progress, silent
from .rates import parse_rates
from .requests import names, parse_sla, resolve_workload, with_default_ttft
from .space import check_context


def audit(
    accelerators: str | Sequence[str],
    *,
    frameworks: str | Sequence[str] | None = None,
    model: str = DEFAULT_LLM,
    workload: str | Workload = DEFAULT_WORKLOAD,
    sla: str | Sla = "50ms",
    prices: str | Sequence[str] = DEFAULT_PRICES,
    rates: str | Sequence[str] | Mapping[str, float] | None = None,
    isl: float | None = None,
    osl: float | None = None,
    prefix_share: float | None = None,
    catalog: str | Catalog | None = None,
    progress: Progress = silent,
) -> Audit:
    """Return what a buyer should know of one platform, or of several side by side.

    Args:
        accelerators: Accelerators to audit.
        frameworks: Serving frameworks; None = all that one would deploy there.
        model: Name, alias or path of a config.json.
        workload: Name or record; `isl`, `osl`, `prefix_share` replace single figures.
        sla: Latency limits, as `plan` takes them.
        prices: Price lists.
        rates: Currency -> US dollars for one, for prices in other currencies, or text like `EUR=1.08`.
        isl: Mean input tokens.
        osl: Mean output tokens.
        prefix_share: Share of input tokens found in the prefix cache.
        catalog: A catalog or an overlay directory.
        progress: Told what is being done.

    Raises:
        InputError: An unknown name, nothing to audit, or a framework that runs on none of the accelerators.
    """
    loaded = catalog if isinstance(catalog, Catalog) else load_catalog(catalog)
    chosen = [loaded.accelerator(name) for name in dict.fromkeys(names(accelerators))]
    if not chosen:
        raise InputError("--accelerator: a name is needed, like --accelerator h200_sxm")
    wanted = tuple(loaded.framework(name).name for name in names(frameworks))
    if wanted and not any(frameworks_on(loaded, accelerator, wanted) for accelerator in chosen):
        raise InputError(_nowhere(loaded, chosen, wanted))
    shape = resolve_workload(loaded, workload, input_tokens=isl, output_tokens=osl, prefix_share=prefix_share)
    llm = loaded.llm(model)
    check_context(llm, shape)
    lowest, as_of = cheapest_by_accelerator(loaded, prices, parse_rates(rates))
    asked = Asked(
        catalog=loaded,
        model=model,
        llm=llm,
        workload=shape,
        sla=sla,
        prices=names(prices),
        rates=parse_rates(rates),
        prices_by_accelerator=lowest,
    )
    limits, by_default = with_default_ttft(*parse_sla(sla), shape)
    platforms = []
    for number, accelerator in enumerate(dict.fromkeys(a.name for a in chosen)):
        share = (number / len(chosen), (number + 1) / len(chosen))
        platforms.append(_platform(asked, loaded.accelerator(accelerator), wanted, _part(progress, *share)))
    return Audit(
        model=llm.name,
        workload=shape.name,
        input_tokens=shape.input_tokens,
        output_tokens=shape.output_tokens,
        limits=_limits(limits, by_default=by_default),
        platforms=tuple(platforms),
        assumptions=_assumptions(platforms),
        sources=tuple(_sources(loaded, platforms)),
        provenance=AuditProvenance(
            tokopt_version=__version__,
            catalog_version=loaded.version,
            calibration=loaded.calibration.version,
            price_lists=names(prices),
            prices_as_of=as_of,
        ),
    )


def _nowhere(catalog: Catalog, chosen: Sequence[Accelerator], wanted: Sequence[str]) -> str:
    runs = {a.name: ", ".join(f.name for f in frameworks_on(catalog, a, ())) or "none" for a in chosen}
    there = "; ".join(f"on {name}: {which}" for name, which in runs.items())
    return f"--framework: {', '.join(wanted)} does not run on {', '.join(runs)}; what does: {there}"


def _part(progress: Progress, start: float, end: float) -> Progress:
    return lambda what, done: progress(what, start + (end - start) * done)


def _platform(asked: Asked, accelerator: Accelerator, wanted: tuple[str, ...], progress: Progress) -> PlatformAudit:
    """Return the answers of one platform."""
    running = tuple(f.name for f in frameworks_on(asked.catalog, accelerator, wanted))
    if not running:
        why = f"{', '.join(wanted)} does not run on it" if wanted else "no framework in the catalog runs on it"
        return _unserved(Bench(asked=asked, accelerator=accelerator, frameworks=()), why)
    bench = Bench(asked=asked, accelerator=accelerator, frameworks=running)
    about = accelerator.title
    progress(f"{about}: frontier", 0.0)
    points, _ = bench.points()
    if not points:
        return _unserved(bench, too_large(bench))
    progress(f"{about}: cost within the limits", 0.05)
    cost = _cost(bench)
    progress(f"{about}: all-to-alls", 0.1)
    exchange = exchange_answer(bench)
    progress(f"{about}: precisions", 0.15)
    precisions = precision_answers(bench)
    progress(f"{about}: features", 0.25)
    features = feature_answers(bench)
    progress(f"{about}: long inputs", 0.5)
    behaviour = _behaviour(bench, points)
    progress(f"{about}: what it lacks", 0.7)
    missing = missing_answers(bench)
    progress(f"{about}: architectures", 0.9)
    item = bench.within().item
    return PlatformAudit(
        accelerator=accelerator.name,
        title=accelerator.title,
        frameworks=running,
        best_framework=None if item is None else item.framework,
        serves=True,
        why_not="",
        cost=cost,
        exchange=exchange,
        precisions=precisions,
        features=features,
        behaviour=behaviour,
        life_cycle=life_cycle(bench),
        architectures=architectures(bench),
        missing=missing,
        notes=_notes(bench),
    )


def _unserved(bench: Bench, why: str) -> PlatformAudit:
    """Return what is known of a platform that does not serve the model at all."""
    return PlatformAudit(
        accelerator=bench.accelerator.name,
        title=bench.accelerator.title,
        frameworks=bench.frameworks,
        best_framework=None,
        serves=False,
        why_not=why,
        cost=None,
        exchange=None,
        precisions=(),
        features=(),
        behaviour=None,
        life_cycle=life_cycle(bench),
        architectures=architectures(bench) if bench.frameworks else (),
        missing=missing_answers(bench, measured=False) if bench.frameworks else (),
        notes=_notes(bench),
    )


def _notes(bench: Bench) -> tuple[str, ...]:
    supports = bench.supports()
    said = [f"{name}: {support.note}" for name, support in supports.items() if support.note]
    if bench.frameworks and not any(bench.asked.catalog.frameworks[name].recommended for name in bench.frameworks):
        said.append(f"{', '.join(bench.frameworks)}: measured in the past, not proposed by plans unless named")
    if bench.accelerator.note:
        said.append(bench.accelerator.note)
    return tuple(said)


def _cost(bench: Bench) -> CostAnswer:
    found = bench.within("within the limits")
    watts, accelerator = bench.accelerator.all_in_w, bench.accelerator
    interval = found.plan.interval.get(USD) if found.plan is not None else None
    item = found.item
    keys = [accelerator.sources["all_in_kw"]] if watts is not None and "all_in_kw" in accelerator.sources else []
    return CostAnswer(
        filled=bench.filled,
        best=found.case,
        interval=interval,
        usd_per_gpu_hour=item.usd_per_unit_hour / item.gpus_per_unit if item is not None else bench.usd_per_hour,
        price_note=bench.price_note,
        utility_kw_per_gpu=None if watts is None else watts / 1e3,
        extrapolated=found.plan.extrapolated if found.plan is not None else False,
        published=tuple(published_costs(bench)),
        sources=(*keys, *([item.price_source] if item is not None else [])),
    )


def published_costs(bench: Bench) -> Iterable[PublishedCost]:
    """Yield what the catalog has of published costs of the same model on the same accelerator."""
    for table in bench.asked.catalog.published_economics.values():
        for line in table.lines:
            if (line.accelerator, line.llm) == (bench.accelerator.name, bench.asked.llm.name):
                yield PublishedCost(
                    title=table.title,
                    operating_point=f"{line.features}; about {line.tokens_per_s_per_user:g} tok/s/user, "
                    f"{line.input_tokens:,.0f} in, {line.output_tokens:,.0f} out",
                    token_basis=table.token_basis,
                    usd_per_million_tokens=line.published.usd_per_million_tokens,
                    tokens_per_s_per_gpu=line.published.tokens_per_s_per_gpu,
                    tokens_per_s_per_mw=line.published.tokens_per_s_per_mw,
                    sources=(table.source,),
                )


def _behaviour(bench: Bench, points: Sequence[OperatingPoint]) -> BehaviourAnswer:
    output = bench.asked.workload.output_tokens
    fastest = min(points, key=lambda point: point.tpot_s)
    most = max(points, key=lambda point: point.requests_per_s_per_accelerator)
    longest = longest_input(bench.accelerator, bench.space())
    assert longest is not None  # there are operating points: it holds something

    def usd(point: OperatingPoint) -> float | None:
        price = bench.usd_per_hour
        speed = point.requests_per_s_per_accelerator * output
        return None if price is None else float(usd_per_million_tokens(price, speed))

    return BehaviourAnswer(
        fastest_tokens_per_s_per_user=1.0 / fastest.tpot_s,
        fastest=fastest.deployment,
        fastest_usd_per_million_output_tokens=usd(fastest),
        most_output_tokens_per_s_per_gpu=most.requests_per_s_per_accelerator * output,
        most=most.deployment,
        most_tokens_per_s_per_user=1.0 / most.tpot_s,
        most_usd_per_million_output_tokens=usd(most),
        longest_input_tokens=longest.tokens,
        longest_input_by_model=longest.by_model,
        longest_input_ttft_ms=longest.prefill_s / MS,
        longest=longest.deployment,
        long_inputs=tuple(_long_inputs(bench)),
    )


def _long_inputs(bench: Bench) -> Iterable[LongInput]:
    for tokens in AUDITED:
        if tokens + bench.asked.workload.output_tokens > bench.asked.llm.max_context_tokens:
            continue
        found = bench.within(f"{tokens:,} tokens in", isl=float(tokens))
        item = found.item
        yield LongInput(input_tokens=tokens, case=found.case, ttft_ms=None if item is None else item.ttft_ms.mean)


# --- what it rests on ---


def _limits(sla: Sla, *, by_default: bool) -> str:
    """Return latency limits in words."""
    given = (("TPOT", sla.tpot_ms, ""), ("TTFT", sla.ttft_ms, " (tokopt's default)" if by_default else ""))
    said = [f"{name} at most {value:,.6g} ms{note}" for name, value, note in (*given, ("E2E", sla.e2e_ms, "")) if value]
    return f"{', '.join(said)}, {sla.statistic.value}" if said else "none"


def _assumptions(platforms: Sequence[PlatformAudit]) -> tuple[str, ...]:
    said = [
        "each platform alone fills the stated power, or one unit where its power is not known, at the lowest cost per "
        "token within the limits; with a feature off everything else is chosen anew",
        "worth: how much dearer a token is without it, or how much faster with it where speed is compared",
        "the fastest for one user and the most per GPU are means in a steady state, whatever the other latencies",
    ]
    if any(p.exchange is not None and p.exchange.applies for p in platforms):
        said.append(
            "all-to-alls: decode only, at the workload's mean context, in the layout that decodes most within the TPOT "
            "limit, without what two-batch overlap hides of them; headroom is the time that GPUs compute over that of "
            "the all-to-alls, hidden or not; they bind where they are the largest part of a step"
        )
    if any(p.missing for p in platforms):
        said.append(
            "what is lacking is what frameworks or formats of other accelerators in the catalog have; its cost is the "
            "model's, where a feature is granted as well"
        )
    return tuple(said)


def _sources(catalog: Catalog, platforms: Sequence[PlatformAudit]) -> Iterable[AuditSource]:
    """Yield what the source keys in answers stand for, in the order in which they are met."""
    keys = dict.fromkeys(key for platform in platforms for key in _keys(platform))
    for key in keys:
        source = catalog.sources.get(key)
        if source is not None:
            yield AuditSource(key=key, title=source.title, publisher=source.publisher, retrieved_on=source.retrieved_on)


def _keys(record: Any) -> Iterable[str]:
    if isinstance(record, BaseModel):
        yield from getattr(record, "sources", ())
        for name in type(record).model_fields:
            yield from _keys(getattr(record, name))
    elif isinstance(record, tuple):
        for each in record:
            yield from _keys(each)
