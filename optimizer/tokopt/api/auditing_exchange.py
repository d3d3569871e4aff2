"""Can the interconnect carry the all-to-all traffic of the model, and from what batch on does it bind?"""

from __future__ import annotations

from tokopt.domain.auditing import ExchangeAnswer, ExchangeReach
from tokopt.perf.arithmetic import llm_arithmetic
from tokopt.search import SearchSpace, best_wide_layout, expert_group, spreads
from tokopt.units import GB

from .auditing_bench import Bench, is_published
from .exchanges import binding_batches, exchange_points, in_words

WIDE_BITS = 16.0  # of a cache, which weights do not depend on


def exchange_answer(bench: Bench) -> ExchangeAnswer:
    """Return the answer for one scale-up domain and for two."""
    accelerator, llm = bench.accelerator, bench.asked.llm
    out = accelerator.scale_out_bytes_per_s
    keys = ("scale_up_gb_per_s", "scale_up_size", "scale_out_gbit_per_s")
    facts = {
        "scale_up_gb_per_s": accelerator.scale_up_bytes_per_s / GB,
        "scale_up_size": accelerator.scale_up_size,
        "scale_out_gb_per_s": None if out is None else out / GB,
        "sources": tuple(dict.fromkeys(accelerator.sources[key] for key in keys if key in accelerator.sources)),
    }
    space = bench.limited_space()
    experts = max((group.feed_forward.experts for group in llm.layers), default=0)
    if not experts:
        return ExchangeAnswer(applies=False, why_not=f"{llm.name} is dense: there are no experts to reach", **facts)
    if not spreads(accelerator, space):
        none = "no framework there spreads experts over attention ranks"
        return ExchangeAnswer(applies=False, why_not=none, **facts)
    answers: dict[str, ExchangeReach | str] = {}
    domain = accelerator.scale_up_size
    for name, most in (("inside", domain), ("across", 2 * domain)):
        group = expert_group(experts, most)
        if group < 2:
            answers[name] = "a scale-up domain is one accelerator"
        elif name == "across" and group <= domain:
            answers[name] = f"the {experts} experts need no second domain"
        elif name == "across" and out is None:
            answers[name] = "the bandwidth between domains is not known"
        else:
            answers[name] = _reach(bench, space, group)
    inside, across = answers["inside"], answers["across"]
    return ExchangeAnswer(
        applies=True,
        inside=inside if isinstance(inside, ExchangeReach) else None,
        inside_why_not=inside if isinstance(inside, str) else "",
        across=across if isinstance(across, ExchangeReach) else None,
        across_why_not=across if isinstance(across, str) else "",
        **facts,
    )


def _reach(bench: Bench, space: SearchSpace, group: int) -> ExchangeReach | str:
    wide = best_wide_layout(bench.accelerator, space, group)
    if wide is None:
        return f"no layout over {group} accelerators fits"
    points = exchange_points(wide.requests_per_accelerator, wide.exchange)
    top = max(points, key=lambda point: point.share)
    inside = [p for p, tpot in zip(points, wide.tpot_s, strict=True) if tpot <= space.limits.tpot_s]
    start, end = binding_batches(points)
    return ExchangeReach(
        expert_parallel=group,
        scale_up_domains=-(-group // bench.accelerator.scale_up_size),
        framework=wide.family.framework.name,
        precision=wide.family.precision.name,
        layout=wide.layout,
        speculation_depth=wide.depth,
        bytes_per_token_and_layer=wide.bytes_per_token,
        bytes_out_of_domain=wide.bytes_out_of_domain,
        points=points,
        most_share=top.share,
        most_share_at=top.requests_per_gpu,
        least_headroom=min(point.headroom for point in points),
        share_within_limit=inside[-1].share if inside else None,
        within_limit_at=inside[-1].requests_per_gpu if inside else None,
        binds_from=start,
        binds_up_to=end,
        answer=in_words(points),
    )


def too_large(bench: Bench) -> str:
    """Return why the model runs in no layout: no precision for it, or its weights against the largest replica."""
    catalog, llm, accelerator = bench.asked.catalog, bench.asked.llm, bench.accelerator
    there = tuple(dict.fromkeys(p for support in bench.supports().values() for p in support.precisions))
    served = [p for p in there if p in llm.precisions and is_published(catalog.precisions[p], llm, accelerator.vendor)]
    if not served:
        return (
            f"{llm.name} is published in {', '.join(llm.precisions)}; none of them is served there by default, only "
            f"{', '.join(there) or 'nothing'}"
        )
    sizes = {name: llm_arithmetic(llm, catalog.precisions[name], WIDE_BITS).weight_bytes for name in served}
    least = min(sizes, key=lambda name: sizes[name])
    return (
        f"{llm.name} fits in no layout: its weights are {sizes[least] / GB:,.0f} GB in {least}, and a scale-up domain "
        f"of {accelerator.scale_up_size} has {accelerator.scale_up_size * accelerator.memory_bytes / GB:,.0f} GB"
    )
