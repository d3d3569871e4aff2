"""Bounds where prompts repeat: what caches can find at most while a set-up serves more than a given rate.

Caches are taken to be as empty as they get: one request of a rank in service, the largest tier behind, and nothing lost
by fetching. More load only finds less, so what is found at the rate that has to be beaten is found at no rate above it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tokopt.perf.caching import fleet_caches, hit_share, pattern_of, tiers
from tokopt.perf.queueing import LOAD_LIMIT
from tokopt.perf.replica import prefill_times
from tokopt.search.caching import largest_tier, lengths_with, most_found, router_of
from tokopt.search.pools import Pairing, PairRows
from tokopt.search.screening import memory_of, saturation_bounds, without_threshold
from tokopt.search.setups import Setups
from tokopt.search.space import Family, SearchSpace

SHARES = 9  # of prompts found at which rates are bounded; between two the upper one counts

Array = NDArray[np.float64]
Rows = NDArray[np.intp]


class CachesTogether:
    """Bounds of set-ups that prefill and decode on the same accelerators."""

    def __init__(self, family: Family, space: SearchSpace, setups: Setups) -> None:
        self._family, self._space, self._setups = family, space, setups
        self._shares = _shares(family, space)
        finding = [replace(space.workload, prefix_share=float(share)) for share in self._shares]
        bounding = without_threshold(family)
        self._rates = np.stack([saturation_bounds(bounding, setups, each, space.limits) for each in finding])

    def of(self, rows: Rows, bounds: Array, above: float) -> Array:
        """Return bounds on the rates of rows that serve more than `above`. [requests/s]"""
        chosen = self._setups.pick(rows)
        share = _most_share(
            self._family, self._space, chosen, caches=chosen.dp, sizes=chosen.accelerators, bounds=bounds, above=above
        )
        return np.minimum(bounds, self._rates[_grid_above(self._shares, share), rows])


class CachesApart:
    """Bounds of pairs of pools, whose caches are those of the prefill pool."""

    def __init__(self, family: Family, space: SearchSpace, pairs: Pairing) -> None:
        self._family, self._space, self._pairs = family, space, pairs
        self._shares = _shares(family, space)
        # Prompts of which more is found fill smaller batches, which a threshold would make slower.
        held, bounding = pairs.prefills, without_threshold(family)
        rates = [
            prefill_times(
                family.model,
                bounding.machine,
                held.flat_layouts,
                lengths_with(space.workload, share),
                held.chunk_tokens,
            ).requests_per_s
            for share in self._shares
        ]
        self._rates = np.stack([np.broadcast_to(rate, held.tp.shape) for rate in rates]) * held.dp * held.pp

    def of(self, rows: PairRows, above: float) -> Array:
        """Return bounds on the rates of replicas that serve more than `above`. [requests/s]"""
        pairs, workers = self._pairs, rows.prefill_workers
        chosen = pairs.prefills.pick(rows.prefill)
        share = _most_share(
            self._family,
            self._space,
            chosen,
            caches=workers * chosen.dp,
            sizes=workers * chosen.accelerators + rows.decode_workers * pairs.decodes.accelerators[rows.decode],
            bounds=rows.bound_requests_per_s,
            above=above,
            role="prefill",
        )
        rate = workers * self._rates[_grid_above(self._shares, share), rows.prefill] * LOAD_LIMIT
        return np.minimum(rows.bound_requests_per_s, rate)


def _shares(family: Family, space: SearchSpace) -> Array:
    return np.linspace(0.0, most_found(family, space).prefix_share, SHARES)


def _grid_above(shares: Array, share: Array) -> Rows:
    return np.minimum(np.searchsorted(shares, share * (1.0 - 1e-12)), shares.size - 1)


def _most_share(
    family: Family,
    space: SearchSpace,
    setups: Setups,
    *,
    caches: Array,
    sizes: Array,
    bounds: Array,
    above: float,
    role: str = "agg",
) -> Array:
    """Return the most that caches find while a replica of `sizes` accelerators with so many caches serves `above`."""
    workload, router = space.workload, router_of(family)
    room = tiers(
        family.model,
        setups.flat_layouts,
        memory_of(family, setups, workload, role=role),
        running=1.0,
        context_tokens=workload.input_tokens + workload.output_tokens,
        draft_depth=setups.depth,
        behind=largest_tier(family),
    )
    # A router that returns finds less in fewer caches, one that leaves it to chance in more: the better end of each.
    watts = family.accelerator.all_in_w
    rate = np.full(len(setups), above) if router.returns else bounds
    replicas = space.fleet.replicas(rate, None if watts is None else watts * sizes)
    spread = fleet_caches(None, caches, router) if replicas is None else replicas * caches
    return np.asarray(
        hit_share(
            pattern_of(workload),
            room_tokens=np.asarray(room.device_tokens + room.offload_tokens),
            rate=above / caches,
            caches=spread,
            router=router,
        ),
        dtype=float,
    )
