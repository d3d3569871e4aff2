"""`frontier`: throughput against interactivity, by accelerator."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from tokopt.catalog import Catalog, load_catalog
from tokopt.cost import tokens_per_s_per_mw, usd_per_million_tokens
from tokopt.domain.accelerators import Accelerator
from tokopt.domain.comparisons import Frontier, FrontierPoint, Reach
from tokopt.domain.deployments import Deployment, ServingMode
from tokopt.domain.expert_traffic import UNIFORM
from tokopt.domain.speculators import Speculator
from tokopt.domain.workloads import Sla, Statistic, Workload
from tokopt.errors import InputError, not_one_of
from tokopt.search import OperatingPoint, SearchSpace, find_frontier, longest_input, pareto
from tokopt.units import MS

from .asking import DEFAULT_LLM, DEFAULT_PRICES, DEFAULT_WORKLOAD
from .long_inputs import context_said, tried_said
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
    expert_traffic: str = UNIFORM,
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
        expert_traffic: How unlike experts are asked for: `benchmark` or `skewed`.
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
        expert_traffic=expert_traffic,
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
        tried_said([shape.input_tokens]),
        *context_said(shown),
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
            raise not_one_of("--mode", mode, list(ServingMode))
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
