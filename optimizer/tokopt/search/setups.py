"""Set-ups of workers: every legal combination of layout, speculation depth and prefill chunk in a family."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokopt.domain.accelerators import Framework
from tokopt.domain.deployments import Layout
from tokopt.domain.features import Feature
from tokopt.perf.expert_balance import redundancies
from tokopt.perf.layouts import SETTINGS, Layouts, stacked_layouts
from tokopt.perf.replica import Worker
from tokopt.search.space import Family

Degrees = tuple[int, int, int, int, int, int]  # tp, pp, ep, dp, cp, dcp
WIDEST_WORKER = 64  # accelerators; a scale-up domain that is larger may be filled by one worker
MIXED_CHUNKS = (1024, 8192, 32768)  # tokens of prompts that ride in a decode step
PREFILL_CHUNKS = (2048, 8192, 16384)  # tokens of a pass in a prefill pool
MOST_CONTEXT_RANKS = 32  # that a prompt is split over: the most that examples of frameworks show
EXTRA_SLOTS = (1,)  # for copies of experts, an accelerator: what TensorRT LLM documents as typical
# Sequences a rank that are tried: small numbers, then steps of about 45 %; the running cap is made exact later.
BATCH_GRID = np.concatenate(
    [
        np.array([1.0, 2.0, 3.0, 4.0, 6.0, 8.0]),
        np.rint(np.geomspace(11.0, 1024.0, 13)),
        np.rint(np.geomspace(1024.0, 4096.0, 5))[1:],
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setups:
    """Worker set-ups of one family, one element each."""

    tp: NDArray[np.float64]
    pp: NDArray[np.float64]
    ep: NDArray[np.float64]
    dp: NDArray[np.float64]
    cp: NDArray[np.float64]
    dcp: NDArray[np.float64]
    depth: NDArray[np.float64]
    accepted: NDArray[np.float64]
    chunk_tokens: NDArray[np.float64]
    redundant_experts: NDArray[np.float64]
    two_batch_overlap: NDArray[np.float64]
    decoding: NDArray[np.intp]  # number of layout and depth: set-ups that share it decode alike

    @property
    def layouts(self) -> Layouts:
        """The parallel degrees, as columns to broadcast against a row of batches."""
        return stacked_layouts({name: getattr(self, name)[:, None] for name in SETTINGS})

    @property
    def flat_layouts(self) -> Layouts:
        """The parallel degrees, one element a set-up."""
        return stacked_layouts({name: getattr(self, name) for name in SETTINGS})

    @property
    def accelerators(self) -> NDArray[np.float64]:
        """Accelerators of each worker."""
        return self.tp * self.pp * self.dp * self.cp

    def __len__(self) -> int:
        return int(self.tp.size)

    def values(self, row: int) -> tuple[float, ...]:
        """Return the degrees and settings of one set-up."""
        return tuple(float(getattr(self, name)[row]) for name in Setups.__slots__ if name != "decoding")

    def pick(self, mask: NDArray[np.bool_] | NDArray[np.intp]) -> Setups:
        """Return the set-ups that a mask or an index selects."""
        return Setups(**{name: getattr(self, name)[mask] for name in Setups.__slots__})


def most_per_rank(framework: Framework) -> int:
    """Return the sequences that one attention rank runs at most: the framework's limit, as far as batches are tried."""
    return min(framework.max_running_requests, int(BATCH_GRID[-1]))


def batches_up_to(most: float) -> int:
    """Return how many batches of the grid are not above a number of sequences a rank."""
    return int(np.searchsorted(BATCH_GRID, most, side="right"))


def powers_of_two(limit: int) -> list[int]:
    """Return 1, 2, 4, … up to `limit`."""
    return [1 << k for k in range(max(limit, 1).bit_length()) if 1 << k <= limit]


def widest_worker(family: Family, widest: int) -> int:
    """Return the accelerators of the largest worker of a family."""
    domain = family.accelerator.scale_up_size
    largest = max(WIDEST_WORKER, domain) if family.machine.scale_out_bytes_per_s > 0 else domain
    return min(largest, widest)


def legal_layouts(family: Family, widest: int) -> tuple[tuple[int, int, int, int], ...]:
    """Return every legal (tp, pp, ep, dp) of a worker without context parallelism.

    tp: powers of two within the scale-up domain that divide the heads. pp: powers of two. dp: powers of two, or what
    fills the domain, for mixture-of-experts models. ep: experts tensor-parallel (1) or spread over the whole stage.
    A worker may only outgrow its scale-up domain where the scale-out bandwidth is known. A drafter of its own is split
    over tp too; what drafts decides whether pp and dp may be above one.
    """
    model, domain = family.model, family.accelerator.scale_up_size
    method = family.speculator.method if family.speculator else None
    pipelines = Feature.PIPELINE_PARALLEL in family.features and (method is None or method.pipelines)
    ranks = Feature.ATTENTION_DP in family.features and (method is None or method.ranks)
    drafted = model.drafter.heads if model.drafter else model.heads
    spreads = model.experts > 0 and Feature.EXPERT_PARALLEL in family.features
    return _layouts(
        domain=domain,
        largest=widest_worker(family, widest),
        heads=math.gcd(model.heads, drafted),
        deepest=min(8, model.layers) if pipelines else 1,
        experts=model.experts,
        spreads=spreads,
        ranks=spreads and ranks,
        expert_slices=model.max_expert_split,
    )


@lru_cache(maxsize=256)
def _layouts(
    *,
    domain: int,
    largest: int,
    heads: int,
    deepest: int,
    experts: int,
    spreads: bool,
    ranks: bool,
    expert_slices: int,
) -> tuple[tuple[int, int, int, int], ...]:
    tps = [tp for tp in powers_of_two(min(domain, largest)) if heads % tp == 0]
    pps = powers_of_two(deepest)
    wide = {*powers_of_two(largest), domain} if domain <= largest else {*powers_of_two(largest)}
    layouts: list[tuple[int, int, int, int]] = []
    for tp in tps:
        for dp in sorted(wide) if ranks else [1]:
            stage = tp * dp
            eps = {1} if dp == 1 else set()
            if spreads and 1 < stage <= experts:
                eps.add(stage)
            for ep in sorted(eps):
                if stage // ep > expert_slices and experts:
                    continue
                layouts.extend((tp, pp, ep, dp) for pp in pps if stage * pp <= largest)
    return tuple(layouts)


def context_layouts(family: Family, widest: int, *, role: str) -> tuple[Degrees, ...]:
    """Return the layouts (tp, pp, ep, dp, cp, dcp) with context parallelism that workers of a role may have besides.

    cp, in prefill pools without attention data parallelism: powers of two; experts are spread over the whole stage.
    dcp, in workers that decode: powers of two that divide the copies which tensor parallelism makes of the cache.
    """
    plain, context = legal_layouts(family, widest), family.context
    found: list[Degrees] = []
    if role == "prefill" and context.prompts:
        experts, largest = family.model.experts, widest_worker(family, widest)
        # Experts that are spread with dp = 1 are a layout of their own; over cp they have to be.
        for tp, pp in sorted({(tp, pp) for tp, pp, _, dp in plain if dp == 1}):
            for cp in powers_of_two(min(MOST_CONTEXT_RANKS, largest // (tp * pp)))[1:]:
                if not experts:
                    found.append((tp, pp, 1, 1, cp, 1))
                elif Feature.EXPERT_PARALLEL in family.features and tp * cp <= experts:
                    found.append((tp, pp, tp * cp, 1, cp, 1))
    if context.splits_cache(role):
        for tp, pp, ep, dp in plain:
            copies = tp // min(tp, context.kv_shards)
            found.extend((tp, pp, ep, dp, 1, dcp) for dcp in powers_of_two(copies)[1:] if copies % dcp == 0)
    return tuple(found)


def legal_settings(family: Family, widest: int, *, role: str) -> NDArray[np.float64]:
    """Return every legal setting of a worker in the order of `SETTINGS`: a row each.

    Copies of experts are tried where those are not asked for alike: none, what fills the slots of every accelerator,
    and one more slot. Halves are documented for attention ranks in front of spread experts, without pipelines; steps
    that they do not shorten run whole, so there is no choice to make.
    """
    copies = Feature.EXPERT_REDUNDANCY in family.features and family.machine.popularity_spread > 0.0
    overlaps = Feature.TWO_BATCH_OVERLAP in family.features
    plain, context = legal_layouts(family, widest), context_layouts(family, widest, role=role)
    return _settings(plain, context, family.model.experts if copies else 0, overlaps=overlaps)


@lru_cache(maxsize=256)
def _settings(
    plain: tuple[tuple[int, int, int, int], ...], context: tuple[Degrees, ...], experts: int, *, overlaps: bool
) -> NDArray[np.float64]:
    found: list[tuple[int, ...]] = []
    for layout in [*((*degrees, 1, 1) for degrees in plain), *context]:
        _, pp, ep, dp, _, _ = layout
        two_batch = int(overlaps and min(dp, ep) > 1 and pp == 1)
        found.extend((*layout, more, two_batch) for more in (0, *redundancies(experts, ep, EXTRA_SLOTS)))
    return np.array(found, dtype=float).reshape(-1, len(SETTINGS))


def setups(family: Family, widest: int, *, role: str) -> Setups:
    """Return all set-ups of a family for a `role`: `agg`, `prefill` or `decode`.

    Chunks only matter where prefill runs, speculation only where decode does. Those with context parallelism come
    last, so that set-ups which decode alike have the same number in roles that differ in it.
    """
    layouts = legal_settings(family, widest, role=role)
    depths = np.array(family.depths if role != "prefill" else (0,), dtype=float)
    chunks = np.array(_chunks(family, role), dtype=float)
    decoding = np.repeat(np.arange(len(layouts) * depths.size), chunks.size)
    chosen, depth = layouts[decoding // depths.size], depths[decoding % depths.size]
    return Setups(
        **{name: chosen[:, place] for place, name in enumerate(SETTINGS)},
        depth=depth,
        accepted=family.accepted[depth.astype(int)] if role != "prefill" else np.ones_like(depth),
        chunk_tokens=np.tile(chunks, len(layouts) * depths.size),
        decoding=decoding,
    )


def _chunks(family: Family, role: str) -> tuple[int, ...]:
    """Return the token budgets of a prefill step that are tried for a role, rising; whole prompts need no less."""
    choices = {"agg": MIXED_CHUNKS, "prefill": PREFILL_CHUNKS, "decode": MIXED_CHUNKS[:1]}[role]
    if role == "decode" or Feature.CHUNKED_PREFILL in family.features:
        return choices
    return tuple(sorted({max(chunk, family.whole_tokens) for chunk in choices}))


def layout_of(chosen: Setups, row: int) -> Layout:
    """Return the layout of one set-up."""
    degrees = {name: int(getattr(chosen, name)[row]) for name in SETTINGS}
    return Layout(**degrees | {"two_batch_overlap": bool(degrees["two_batch_overlap"])})


def worker_of(chosen: Setups, row: int) -> Worker:
    """Return the worker of one set-up."""
    settings: dict[str, Any] = {name: int(getattr(chosen, name)[row]) for name in SETTINGS}
    return Worker(
        **settings,
        depth=int(chosen.depth[row]),
        accepted=float(chosen.accepted[row]),
        chunk_tokens=int(chosen.chunk_tokens[row]),
    )
