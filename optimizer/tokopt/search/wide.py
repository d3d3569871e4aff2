"""Wide expert parallelism: the best layout over a number of accelerators, and what its all-to-alls take."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from tokopt.domain.accelerators import Accelerator
from tokopt.domain.deployments import Layout
from tokopt.domain.features import Feature
from tokopt.perf.exchange import Exchange, bytes_per_token, exchange
from tokopt.perf.expert_balance import redundancies
from tokopt.perf.layouts import Layouts
from tokopt.perf.memory import serving_memory
from tokopt.perf.serving import workload_lengths
from tokopt.search.setups import EXTRA_SLOTS, most_per_rank, powers_of_two
from tokopt.search.space import Family, SearchSpace, families_in

BATCHES = 48  # of a curve, from one sequence a rank to what memory holds


@dataclass(frozen=True, slots=True, kw_only=True)
class WideLayout:
    """Experts spread over `layout.ep` accelerators, with the decode step at every batch that memory holds."""

    family: Family
    layout: Layout
    depth: int
    requests_per_accelerator: NDArray[np.float64]  # by rising batch
    tpot_s: NDArray[np.float64]
    exchange: Exchange
    bytes_per_token: float  # of a layer, there and back [B]
    bytes_out_of_domain: float  # of them, out of the scale-up domain [B]


def spreads(accelerator: Accelerator, space: SearchSpace) -> bool:
    """Whether any framework spreads experts over attention ranks there."""
    wanted = {Feature.EXPERT_PARALLEL, Feature.ATTENTION_DP}
    return any(wanted <= family.features for family in families_in(space, accelerator))


def expert_group(experts: int, most: int) -> int:
    """Return the most accelerators up to `most` that experts are spread over: all of them, or a power of two."""
    return most if most <= experts else powers_of_two(experts)[-1]


def best_wide_layout(accelerator: Accelerator, space: SearchSpace, group: int) -> WideLayout | None:
    """Return the layout with experts over `group` accelerators that decodes most tokens; None where none fits.

    Its batch is the largest that memory holds and the TPOT limit allows on average; where the limit allows none, the
    limit is left out.
    """
    found = [wide for family in families_in(space, accelerator) for wide in _layouts(family, space, group)]
    if not found:
        return None

    def most(wide: WideLayout) -> tuple[bool, float]:
        rates = wide.requests_per_accelerator / wide.tpot_s
        inside = wide.tpot_s <= space.limits.tpot_s
        return bool(inside.any()), float(rates[inside].max() if inside.any() else rates.max())

    return max(found, key=most)


def _layouts(family: Family, space: SearchSpace, group: int) -> Iterator[WideLayout]:
    if not {Feature.EXPERT_PARALLEL, Feature.ATTENTION_DP} <= family.features:
        return
    domain = family.accelerator.scale_up_size
    if group > domain and not family.machine.scale_out_bytes_per_s > 0:
        return
    for tp in powers_of_two(min(domain, group // 2)):
        if group % tp or family.model.heads % tp:
            continue
        halved = Feature.TWO_BATCH_OVERLAP in family.features
        copies: tuple[int, ...] = (0,)
        if Feature.EXPERT_REDUNDANCY in family.features and family.machine.popularity_spread > 0.0:
            copies = (0, *redundancies(family.model.experts, group, EXTRA_SLOTS))
        for depth, more in product(family.depths, copies):
            layout = Layout(tp=tp, ep=group, dp=group // tp, redundant_experts=more, two_batch_overlap=halved)
            wide = _decoding(family, space, layout, depth)
            if wide is not None:
                yield wide if np.any(wide.exchange.hidden_s) else replace(wide, layout=_whole(wide.layout))


def _whole(layout: Layout) -> Layout:
    """Return a layout whose steps never run as halves."""
    return layout.model_copy(update={"two_batch_overlap": False})


def _decoding(family: Family, space: SearchSpace, layout: Layout, depth: int) -> WideLayout | None:
    """Return the decode steps of a layout at every batch that its memory holds."""
    layouts = Layouts(
        tp=float(layout.tp),
        pp=1.0,
        ep=float(layout.ep),
        dp=float(layout.dp),
        redundant_experts=float(layout.redundant_experts),
        two_batch_overlap=float(layout.two_batch_overlap),
    )
    use = serving_memory(
        family.model,
        family.machine,
        layouts,
        role="decode",
        input_tokens=space.workload.input_tokens,
        output_tokens=space.workload.output_tokens,
        output_cv=space.workload.output_cv,
        chunk_tokens=0.0,
        draft_depth=float(depth),
    )
    held = min(float(use.sequences) / layout.dp, float(most_per_rank(family.framework)))
    if held < 1.0:
        return None
    sequences = np.unique(np.rint(np.geomspace(1.0, np.floor(held), BATCHES)))
    step = exchange(
        family.model,
        family.machine,
        layouts,
        sequences=sequences,
        width=1.0 + depth,
        context=workload_lengths(space.workload).decode_context,
        draft_depth=float(depth),
    )
    near, far = bytes_per_token(family.model, family.machine, layouts)
    return WideLayout(
        family=family,
        layout=layout,
        depth=depth,
        requests_per_accelerator=sequences / layout.tp,
        tpot_s=np.asarray(step.step_s) / float(family.accepted[depth]),
        exchange=step,
        bytes_per_token=float(near),
        bytes_out_of_domain=float(far),
    )
