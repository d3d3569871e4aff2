"""`frontier` and `economics`: operating points side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from tokopt.catalog import Catalog, load_catalog
from tokopt.cost import pflops_per_usd, tokens_per_s_per_mw, usd_per_million_tokens
from tokopt.domain.accelerators import Accelerator, NumberFormat
from tokopt.domain.comparisons import Basis, Economics, EconomicsComparisonRow, Frontier, FrontierPoint, Reach
from tokopt.domain.deployments import Deployment, ServingMode
from tokopt.domain.economics import EconomicsLine, PublishedEconomics
from tokopt.domain.speculators import Speculator
from tokopt.domain.workloads import Sla, Statistic, Workload
from tokopt.errors import InputError
from tokopt.search import OperatingPoint, SearchSpace, find_frontier, longest_input, pareto
from tokopt.units import MS

from .asking import DEFAULT_LLM, DEFAULT_PRICES, DEFAULT_WORKLOAD
from .progress import Progress, silent
from .ranges import THROUGHPUT, clock_unsure, factors, named_traits, outside
from .rates import parse_rates
from .requests import disabled_features, names, resolve_workload
from .resolved import estimate_provenance, named, resolve
from .space import search_space, supported
from .speculating import acceptance_said, speculation_unsure
from .switched_off import host_unsure, switched_off_said

# A first token within this makes a point one that somebody would run: beyond, throughput is bought with waiting.
SLOWEST_FIRST_TOKEN_MS = 60_000.0
FIGURES = (
    "usd_per_gpu_hour",
    "pflops_per_usd",
    "tokens_per_s_per_gpu",
    "tokens_per_s_per_mw",
    "usd_per_million_tokens",
)


def cheapest_by_accelerator(
    catalog: Catalog, prices: str | Sequence[str], rates: Mapping[str, float] | None = None
) -> tuple[dict[str, float], str]:
    """Return the lowest price of an accelerator-hour in price lists, by accelerator, and the lists' date. [USD/h]"""
    lists = catalog.price_list(names(prices), rates=rates)
    lowest: dict[str, float] = {}
    for offer in lists.offers:
        price = offer.usd_per_accelerator_hour
        lowest[offer.accelerator] = min(price, lowest.get(offer.accelerator, math.inf))
    return lowest, lists.as_of


def frontier(
    *,
    model: str = DEFAULT_LLM,
    gpus: str | Sequence[str] | None = None,
    workload: str | Workload = DEFAULT_WORKLOAD,
    prices: str | Sequence[str] = DEFAULT_PRICES,
    rates: str | Sequence[str] | Mapping[str, float] | None = None,
    frameworks: str | Sequence[str] | None = None,
    precisions: str | Sequence[str] | None = None,
    kv_precisions: str | Sequence[str] | None = None,
    modes: str | Sequence[str] | None = None,
    disable: str | Sequence[str] | None = None,
    isl: float | None = None,
    osl: float | None = None,
    prefix_share: float | None = None,
    reuse: str | None = None,
    catalog: str | Catalog | None = None,
    progress: Progress = silent,
) -> Frontier:
    """Return throughput an accelerator against tokens a second a user, with the cost of a token at each point.

    Points are means in a steady state: every layout, precision, feature and batch of every accelerator, down to those
    that no other of the same accelerator beats on both axes.

    Args:
        model: Name, alias or path of a config.json.
        gpus: Accelerators; None = all that have a price.
        workload: Name or record; `isl`, `osl`, `prefix_share` replace single figures.
        prices: Price lists; the lowest price of each accelerator is used.
        rates: Currency -> US dollars for one, for prices in other currencies, or text like `EUR=1.08`.
        frameworks: Frameworks; None = all. Likewise `precisions`, `kv_precisions`, `modes`.
        precisions: Weight precisions.
        kv_precisions: Cache precisions.
        modes: `agg`, `disagg`.
        disable: Features to do without, like `mtp`.
        isl: Mean input tokens.
        osl: Mean output tokens.
        prefix_share: Share of input tokens found in the prefix cache.
        reuse: What repeats in prompts; an endless cache finds it.
        catalog: A catalog or an overlay directory.
        progress: Told what is being done.

    Raises:
        InputError: An unknown name, or nothing to compare.
    """
    loaded = catalog if isinstance(catalog, Catalog) else load_catalog(catalog)
    llm = named(loaded, model)
    shape = resolve_workload(
        loaded, workload, input_tokens=isl, output_tokens=osl, prefix_share=prefix_share, reuse=reuse
    )
    space = search_space(
        loaded,
        llm=llm,
        workload=shape,
        sla=Sla(ttft_ms=SLOWEST_FIRST_TOKEN_MS, statistic=Statistic.MEAN),
        frameworks=names(frameworks),
        precisions=names(precisions),
        kv_precisions=names(kv_precisions),
        modes=tuple(ServingMode(m) for m in _modes(modes)),
        disabled=disabled_features(disable),
    )
    lowest, as_of = cheapest_by_accelerator(loaded, prices, parse_rates(rates))
    chosen = [loaded.accelerator(n) for n in names(gpus)] or [loaded.accelerators[n] for n in lowest]
    excluded: dict[str, str] = {}
    found: list[tuple[Accelerator, OperatingPoint]] = []
    reach: list[Reach] = []
    considered = 0
    for number, accelerator in enumerate(chosen):
        progress(f"searching {accelerator.title}", number / len(chosen))
        points, looked_at, why = _points_of(accelerator, space)
        considered += looked_at
        if points:
            found.extend((accelerator, p) for p in points)
            reach.append(_reach(accelerator, points, space))
        else:
            excluded[accelerator.name] = why
    if not found:
        raise InputError("no operating point: " + "; ".join(f"{n}: {why}" for n, why in excluded.items()))
    x = np.array([1.0 / p.tpot_s for _, p in found])
    y = np.array([p.requests_per_s_per_accelerator for _, p in found])
    overall = set(pareto(x, y).tolist())
    first = found[0][1].deployment
    resolved = resolve(
        loaded, llm=llm, gpu=first.accelerator, framework=first.framework, precision=first.precision, kv_precision=None
    )
    drafters = {each.name: each for each in space.speculators}
    traits = [named_traits(loaded, p.deployment, llm.name) for _, p in found]
    ranges = (
        factors(loaded.calibration, t, p.deployment.mode, THROUGHPUT)
        .widened(clock_unsure(a))
        .widened(speculation_unsure(p.deployment, drafters, shape.domain))
        .widened(host_unsure(loaded, llm, p.deployment, shape, running=p.deployment.max_running_requests or 1))
        for t, (a, p) in zip(traits, found, strict=True)
    )
    widest = max(ranges, key=lambda f: f.high / f.low)
    return Frontier(
        model=llm.name,
        workload=shape.name,
        input_tokens=shape.input_tokens,
        output_tokens=shape.output_tokens,
        points=tuple(
            _point(a, p, shape, lowest.get(a.hardware), number in overall) for number, (a, p) in enumerate(found)
        ),
        reach=tuple(reach),
        deployments_considered=considered,
        excluded=excluded,
        price_lists=names(prices),
        prices_as_of=as_of,
        interval={"output_tokens_per_s_per_gpu": widest.around(1.0)},
        extrapolated=any(outside(loaded.calibration, t, shape.input_tokens, shape.output_tokens) for t in traits),
        assumptions=_said(shape, [point.deployment for _, point in found], drafters, loaded),
        provenance=estimate_provenance(loaded, resolved),
    )


def _said(
    shape: Workload, shown: Sequence[Deployment], drafters: Mapping[str, Speculator], catalog: Catalog
) -> tuple[str, ...]:
    """Return what the points take for granted."""
    drafting = sorted({each.speculator for each in shown if each.speculator})
    return (
        f"{shape.input_tokens:,.0f} tokens in, {shape.output_tokens:,.0f} out; means in a steady state; first "
        f"token within {SLOWEST_FIRST_TOKEN_MS / 1e3:g} s",
        *(line for name in drafting for line in acceptance_said(drafters[name], shape.domain)),
        *([f"an endless prefix cache: {shape.prefix_share:.0%} of prompts are found"] if shape.reuse else []),
        *switched_off_said(catalog, shown),
    )


def _points_of(accelerator: Accelerator, space: SearchSpace) -> tuple[list[OperatingPoint], int, str]:
    """Return an accelerator's points, how many deployments were looked at, and why there are none."""
    if not supported(accelerator, space):
        return [], 0, "no framework in the catalog runs on it"
    points, report = find_frontier(accelerator, space)
    return points, report.considered, "nothing fits" if report.considered else "not served there"


def _reach(accelerator: Accelerator, points: Sequence[OperatingPoint], space: SearchSpace) -> Reach:
    """Return how fast and how far an accelerator with operating points goes."""
    fastest = min(points, key=lambda point: point.tpot_s)
    longest = longest_input(accelerator, space)
    assert longest is not None  # something fits: it has operating points
    return Reach(
        accelerator=accelerator.name,
        fastest_tokens_per_s_per_user=1.0 / fastest.tpot_s,
        fastest=fastest.deployment,
        longest_input_tokens=longest.tokens,
        longest_input_by_model=longest.by_model,
        longest_input_ttft_ms=longest.prefill_s / MS,
        longest=longest.deployment,
    )


def _modes(modes: str | Sequence[str] | None) -> tuple[str, ...]:
    chosen = names(modes)
    for mode in chosen:
        if mode not in {m.value for m in ServingMode}:
            raise InputError(f"--mode: {mode!r} is not one of agg, disagg")
    return chosen


def _point(
    accelerator: Accelerator, point: OperatingPoint, workload: Workload, price: float | None, overall: bool
) -> FrontierPoint:
    output = point.requests_per_s_per_accelerator * workload.output_tokens
    watts = accelerator.all_in_w
    return FrontierPoint(
        accelerator=accelerator.name,
        deployment=point.deployment,
        concurrency=point.concurrency,
        tokens_per_s_per_user=1.0 / point.tpot_s,
        output_tokens_per_s_per_gpu=output,
        total_tokens_per_s_per_gpu=output * (1.0 + workload.input_tokens / workload.output_tokens),
        ttft_ms=point.ttft_s * 1e3,
        tpot_ms=point.tpot_s * 1e3,
        usd_per_gpu_hour=price,
        usd_per_million_output_tokens=None if price is None else float(usd_per_million_tokens(price, output)),
        tokens_per_s_per_mw=None if watts is None else float(tokens_per_s_per_mw(output, watts)),
        on_overall_frontier=overall,
    )


def economics(*, catalog: str | Catalog | None = None, progress: Progress = silent) -> Economics:
    """Return the published comparison of cost per token, recomputed from the catalog, and tokopt's own next to it.

    The cost side is exact arithmetic on catalog data. The throughput side comes twice: as published, and from tokopt's
    model at the published operating point, with the difference.
    """
    loaded = catalog if isinstance(catalog, Catalog) else load_catalog(catalog)
    name, published = next(iter(loaded.published_economics.items()))
    profile = loaded.ownership_profile(published.ownership)
    rows: list[EconomicsComparisonRow] = []
    for number, line in enumerate(published.lines):
        accelerator = loaded.accelerator(line.accelerator)
        price = profile.usd_per_accelerator_hour[accelerator.name]
        rows.append(_published_row(published, line, accelerator, price))
        progress(f"modelling {accelerator.title}", number / len(published.lines))
        modelled = _model_row(loaded, published, line, accelerator, price, rows[-1])
        if modelled is not None:
            rows.append(modelled)
    return Economics(
        title=published.title,
        published_on=published.published_on,
        token_basis=published.token_basis,
        rows=tuple(sorted(rows, key=lambda r: r.basis is Basis.MODEL)),
        ratios={basis.value: _ratios([r for r in rows if r.basis is basis]) for basis in Basis},
        published_ratios={figure: getattr(published.ratios, figure) for figure in FIGURES},
        prices=f"ownership-{profile.name}",
        prices_as_of=profile.observed_on,
        notes=(published.note, *(line.note for line in published.lines), f"catalog entry {name}"),
    )


def _costs(accelerator: Accelerator, line: EconomicsLine, price: float, tokens_per_s: float) -> dict[str, float]:
    """Return the five figures of an accelerator, unrounded."""
    if accelerator.all_in_w is None:
        raise InputError(f"{accelerator.name}: the catalog has no all-in power, which tokens/s/MW needs")
    table = accelerator.sparse_flop_per_s if line.peak_sparse else accelerator.dense_flop_per_s
    peak = table[NumberFormat(line.peak_format)]
    return {
        "usd_per_gpu_hour": price,
        "pflops_per_usd": float(pflops_per_usd(peak, price)),
        "tokens_per_s_per_gpu": tokens_per_s,
        "tokens_per_s_per_mw": float(tokens_per_s_per_mw(tokens_per_s, accelerator.all_in_w)),
        "usd_per_million_tokens": float(usd_per_million_tokens(price, tokens_per_s)),
    }


def _peak_name(line: EconomicsLine) -> str:
    return f"{line.peak_format.value} {'sparse' if line.peak_sparse else 'dense'}"


def _published_row(
    published: PublishedEconomics, line: EconomicsLine, accelerator: Accelerator, price: float
) -> EconomicsComparisonRow:
    return EconomicsComparisonRow(
        accelerator=accelerator.name,
        basis=Basis.PUBLISHED,
        model=line.llm,
        precision=line.precision,
        operating_point=f"{line.features}; about {line.tokens_per_s_per_user:g} tok/s/user, "
        f"{line.input_tokens:,.0f} in, {line.output_tokens:,.0f} out (best reading)",
        pflops_basis=_peak_name(line),
        published={figure: getattr(line.published, figure) for figure in FIGURES},
        difference={},
        deployment=None,
        source=published.source,
        **_costs(accelerator, line, price, line.unrounded_tokens_per_s_per_gpu),
    )


def _model_row(
    catalog: Catalog,
    published: PublishedEconomics,
    line: EconomicsLine,
    accelerator: Accelerator,
    price: float,
    reference: EconomicsComparisonRow,
) -> EconomicsComparisonRow | None:
    """Return tokopt's own best point at the published interactivity, or None where it finds none that fast."""
    llm = catalog.llm(line.llm)
    shape = Workload(name="published point", input_tokens=line.input_tokens, output_tokens=line.output_tokens)
    space = search_space(
        catalog,
        llm=llm,
        workload=shape,
        sla=Sla(ttft_ms=SLOWEST_FIRST_TOKEN_MS, statistic=Statistic.MEAN),
        frameworks=(),
        precisions=(line.precision,),
        kv_precisions=(),
        modes=(),
    )
    points, _ = find_frontier(accelerator, space)
    fast = [p for p in points if 1.0 / p.tpot_s >= line.tokens_per_s_per_user]
    if not fast:
        return None
    best = max(fast, key=lambda p: p.requests_per_s_per_accelerator)
    tokens = best.requests_per_s_per_accelerator * (
        line.output_tokens if published.token_basis == "output" else line.input_tokens + line.output_tokens
    )
    costs = _costs(accelerator, line, price, tokens)
    return EconomicsComparisonRow(
        accelerator=accelerator.name,
        basis=Basis.MODEL,
        model=line.llm,
        precision=line.precision,
        operating_point=f"{1.0 / best.tpot_s:.0f} tok/s/user, {line.input_tokens:,.0f} in, "
        f"{line.output_tokens:,.0f} out",
        pflops_basis=_peak_name(line),
        published={},
        difference={
            figure: costs[figure] / getattr(reference, figure) - 1.0
            for figure in ("tokens_per_s_per_gpu", "tokens_per_s_per_mw", "usd_per_million_tokens")
        },
        deployment=best.deployment,
        source=f"tokopt, calibration {catalog.calibration.version}",
        **costs,
    )


def _ratios(rows: list[EconomicsComparisonRow]) -> dict[str, float]:
    """Return the last row over the first one; cost per token the other way round, as the sheet prints it."""
    if len(rows) < 2:
        return {}
    first, last = rows[0], rows[-1]
    ratios = {figure: getattr(last, figure) / getattr(first, figure) for figure in FIGURES[:-1]}
    ratios["usd_per_million_tokens"] = first.usd_per_million_tokens / last.usd_per_million_tokens
    return ratios
