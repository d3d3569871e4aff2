"""Set-ups whose prompts repeat: what their caches find, with which running cap, router and offload.

What a cache finds depends on the load, and the load that a set-up bears on what its caches find. Both are settled
together, at saturation, where caches find least.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tokopt.domain.caching import Caching, Offload, Router
from tokopt.domain.deployments import Deployment, ServingMode
from tokopt.domain.features import Feature
from tokopt.domain.workloads import Workload
from tokopt.perf.caching import (
    Pattern,
    fleet_caches,
    hit_share,
    kept_share,
    offload_of,
    pattern_of,
    restore_s,
    restored,
    served,
    tiers,
    writable_bytes_per_s,
)
from tokopt.perf.deployed import decode_layout, decode_worker, prefill_worker
from tokopt.perf.memory import MemoryUse, serving_memory
from tokopt.perf.queueing import LOAD_LIMIT, Profile, capped, saturation
from tokopt.perf.replica import Worker, knots, prefill_times, prompts_a_batch
from tokopt.perf.serving import Lengths, lengths, steady_state
from tokopt.search.space import Family, Fleet, SearchSpace, profile_of
from tokopt.units import MS

# Running caps that are tried, of the largest that limits and memory allow: a lower one leaves the cache more room.
CAP_SHARES = (1.0, 0.85, 0.7, 0.55, 0.4, 0.25)
SHARES_TRIED = 9  # of prompts found, between which figures are smooth and interpolated
OFFLOADS = (Offload.NONE, Offload.HOST, Offload.SSD)

Array = NDArray[np.float64]


def router_of(family: Family) -> Router:
    """Return the router in front of a family's replicas: one that knows what is cached where there is one."""
    return Router.KV_AWARE if Feature.KV_ROUTING in family.features else Router.RANDOM


def offloads_of(family: Family) -> tuple[Offload, ...]:
    """Return where a family's caches may go: where memory and bandwidth are in the catalog."""
    if Feature.KV_OFFLOAD not in family.features:
        return (Offload.NONE,)
    return tuple(tier for tier in OFFLOADS if None not in offload_of(family.accelerator, tier))


def largest_tier(family: Family) -> tuple[float | None, float | None]:
    """Return memory and bandwidth of the largest tier behind an accelerator; zero and endless without one. [B, B/s]"""
    behind = [offload_of(family.accelerator, tier) for tier in offloads_of(family)]
    return max(behind, key=lambda each: each[0] or 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What caches find and what that takes; arrays of one shape."""

    hit: Array
    device: Array
    restore_s: Array
    replicas: Array | None


class Caches:
    """The caches of one set-up: what they find at any rate and running cap."""

    def __init__(
        self, family: Family, workload: Workload, deployment: Deployment, fleet: Fleet, router: Router | None = None
    ) -> None:
        self.family, self.workload, self.deployment = family, workload, deployment
        self.pattern: Pattern = pattern_of(workload)
        self.router = router or router_of(family)
        self._fleet = fleet
        self._apart = deployment.mode is ServingMode.DISAGG
        accepted = float(family.accepted[deployment.speculation_depth])
        self._decoder = decode_worker(deployment, accepted)
        self._worker = prefill_worker(deployment) if self._apart else self._decoder
        workers = deployment.prefill.workers if deployment.prefill is not None else 1
        self.a_replica = float(workers * self._worker.dp)  # caches
        self._use = _memory(family, self._worker, workload, role="prefill" if self._apart else "agg")
        watts = family.accelerator.all_in_w
        self._watts = None if watts is None else watts * deployment.accelerators

    def resident(self, caps: Array, shares: Array) -> Array:
        """Return the requests of a rank that are in service beside the cache: running, or in a prefill pool's work."""
        if not self._apart:
            return caps / self._worker.dp + 0.0 * shares
        batch = prompts_a_batch(lengths_with(self.workload, shares), float(self._worker.chunk_tokens))
        return np.asarray(self._worker.pp * batch + 0.0 * caps, dtype=float)

    def found(
        self, tier: Offload, caps: Array, shares: Array, rates: Array, prompt_s: Callable[[Array], Array]
    ) -> Found:
        """Return what caches find at a replica's rates, where prompts are computed but for `shares` of them.

        `prompt_s` is the time of a prefill by the share that is found. What takes longer to fetch than to compute, or
        fills the link, is computed.
        """
        context = self.workload.input_tokens + self.workload.output_tokens
        room = tiers(
            self.family.model,
            self._worker.layouts,
            self._use,
            running=self.resident(caps, shares),
            context_tokens=context,
            draft_depth=float(self._worker.depth),
            behind=offload_of(self.family.accelerator, tier),
        )
        replicas = self._fleet.replicas(rates, self._watts)
        caches = fleet_caches(None, self.a_replica, self.router) if replicas is None else replicas * self.a_replica
        each = rates / self.a_replica

        def hits(tokens: Array) -> Array:
            return np.asarray(
                hit_share(self.pattern, room_tokens=tokens, rate=each, caches=caches, router=self.router), dtype=float
            )

        device = hits(np.asarray(room.device_tokens, dtype=float))
        if tier is Offload.NONE:
            return Found(hit=device, device=device, restore_s=0.0 * device, replicas=replicas)
        both = hits(np.asarray(room.device_tokens + room.offload_tokens, dtype=float))
        writable = writable_bytes_per_s(self.family.accelerator, tier) / room.bytes_per_token
        both = device + kept_share(device, self.pattern, self.workload.output_tokens, each, writable) * (both - device)
        fetched = (both - device) * self.pattern.input_tokens
        takes = np.asarray(restore_s(fetched, room.restore_s_per_token, each), dtype=float)
        pays = (takes < prompt_s(device) - prompt_s(both)) & (each * fetched * room.restore_s_per_token < LOAD_LIMIT)
        return Found(
            hit=np.where(pays, both, device), device=device, restore_s=np.where(pays, takes, 0.0), replicas=replicas
        )

    def by_chance(self, cap: int, rate: float, settled: Caching) -> float:
        """Return the share that the same caches would find at a replica's rate if requests were routed at random."""
        others = Caches(self.family, self.workload, self.deployment, self._fleet, router=Router.RANDOM)
        one = np.array([settled.hit_share])
        rates = np.array([rate])
        found = others.found(settled.offload, np.array([float(cap)]), one, rates, lambda share: 1e9 * (1.0 - share))
        return float(min(found.hit[0], settled.hit_share))

    def loads(self, caps: Array, shares: Array) -> tuple[Array, Array]:
        """Return saturation rates of a replica and times of a prefill, shares x caps."""
        size = lengths_with(self.workload, shares[:, None])
        machine, model = self.family.machine, self.family.model
        decoder, (_, decoders) = self._decoder, decode_layout(self.deployment)
        running = knots(int(caps.max() // decoders))
        state = steady_state(
            model,
            machine,
            decoder.layouts,
            size,
            running=running,
            depth=float(decoder.depth),
            accepted=decoder.accepted,
            chunk_tokens=float(decoder.chunk_tokens),
            prefill=not self._apart,
        )

        def at(values: object) -> Array:
            grid = np.broadcast_to(np.asarray(values, dtype=float), (shares.size, running.size))
            held = np.broadcast_to(np.asarray(state.in_service, dtype=float), grid.shape)
            each = caps / decoders
            return np.stack([np.interp(each, np.maximum.accumulate(h), g) for h, g in zip(held, grid, strict=True)])

        rates = at(state.requests_per_s) * decoders
        if not self._apart:
            return rates, at(state.prefill_s)
        times = prefill_times(model, machine, self._worker.layouts, size, float(self._worker.chunk_tokens))
        pool = self.a_replica * self._worker.pp * np.asarray(times.requests_per_s)
        return np.minimum(rates, pool), np.asarray(times.single_s) + 0.0 * rates


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A running cap and a tier, with what caches find there and the rate that they bear."""

    cap: int
    caching: Caching
    rate: float


def choices(caches: Caches, caps: Array, tiers: Sequence[Offload] | None = None) -> list[Choice]:
    """Return every cap and tier with what is found at the rate that it makes possible, best first.

    `tiers` are those to choose from; None = all that there are.
    """
    ceiling = caches.pattern.reusable_share
    shares = np.linspace(0.0, ceiling, SHARES_TRIED)
    rates, prompts = caches.loads(caps, shares)
    made: list[Choice] = []
    for tier in offloads_of(caches.family) if tiers is None else tiers:
        prompt_s = lines(shares, prompts)
        found = caches.found(tier, caps + 0.0 * rates, shares[:, None] + 0.0 * rates, rates, prompt_s)
        share = np.array([crossing(shares, hit) for hit in found.hit.T])
        rate = np.array([np.interp(at, shares, column) for at, column in zip(share, rates.T, strict=True)])
        settled_at = caches.found(tier, caps, share, rate, prompt_s)
        for n, cap in enumerate(caps.tolist()):
            caching = _caching(caches, tier, settled_at, float(share[n]), n)
            made.append(Choice(cap=int(cap), caching=caching, rate=float(rate[n])))
    return sorted(made, key=lambda choice: -choice.rate)


def lines(shares: Array, prompts: Array) -> Callable[[Array], Array]:
    """Return prefill times by share, for arrays whose last axis is that of the running caps."""

    def at(share: Array) -> Array:
        columns = [np.interp(share[..., n], shares, prompts[:, n]) for n in range(prompts.shape[1])]
        return np.stack(columns, axis=-1)

    return at


def _caching(caches: Caches, tier: Offload, found: Found, most: float, n: int = 0) -> Caching:
    hit = float(min(found.hit[n], most))
    used = tier if found.restore_s[n] > 0.0 else Offload.NONE
    replicas = None if found.replicas is None else float(found.replicas[n])
    return Caching(
        router=caches.router,
        offload=used,
        replicas=replicas,
        hit_share=hit,
        device_share=min(float(found.device[n]), hit),
        restore_ms=float(found.restore_s[n]) / MS,
    )


def crossing(shares: Array, hits: Array) -> float:
    """Return where what is found falls below what was taken to be found."""
    over = hits - shares
    below = np.flatnonzero(over < 0.0)
    if not below.size:
        return float(shares[-1])
    k = int(below[0])
    if k == 0:
        return 0.0
    part = over[k - 1] / (over[k - 1] - over[k])
    return float(shares[k - 1] + part * (shares[k] - shares[k - 1]))


def most_found(family: Family, space: SearchSpace) -> Workload:
    """Return the workload with the most that any set-up of a family can find: in endless caches.

    Where conversations come back by chance, over as many replicas as there are at least.
    """
    workload = space.workload
    if workload.reuse is None:
        return workload
    if Feature.PREFIX_CACHING not in family.features:
        return replace(workload, prefix_share=0.0)
    if router_of(family).returns:
        return workload
    pattern, watts = pattern_of(workload), family.accelerator.all_in_w
    fewest = 1.0
    if space.fleet.requests_per_s is None and space.fleet.power_w is not None and watts:
        fewest = max(space.fleet.power_w / (watts * space.widest), 1.0)
    back = pattern.follow_share * pattern.private_tokens / fewest
    return replace(workload, prefix_share=(pattern.shared_tokens + back) / pattern.input_tokens)


def settled(
    family: Family, space: SearchSpace, deployment: Deployment, most: int, *, above: float = 0.0
) -> tuple[Deployment, Profile | None]:
    """Return a set-up with its caches settled, and its profile under a running cap that meets the TPOT limit.

    None where it cannot serve more than `above` requests a second. Of several caps and tiers the one with the highest
    saturation rate is taken, so the result is the best of those tried.
    """
    _, workers = decode_layout(deployment)
    if Feature.PREFIX_CACHING not in family.features:
        none = Caching(router=Router.RANDOM, hit_share=0.0, device_share=0.0)
        bare = deployment.model_copy(update={"caching": none})
        return bare, capped(profile_with(family, space.workload, bare, most), space.limits)
    caches = Caches(family, space.workload, deployment, space.fleet)
    caps = np.unique(np.maximum(np.floor(most * np.array(CAP_SHARES)), 1.0)) * workers
    best = choices(caches, caps[::-1])[0]
    if best.rate * LOAD_LIMIT * 1.01 <= above:
        return deployment, None
    chosen, whole = exact(caches, best)
    profile = capped(whole, space.limits)
    if profile is not None and profile.slots * workers < best.cap:
        # A TPOT limit that lowers the cap leaves the cache more room.
        again = choices(caches, np.array([float(profile.slots * workers)]))[0]
        chosen, whole = exact(caches, again)
        profile = capped(whole, space.limits)
    return chosen, profile


def exact(caches: Caches, choice: Choice) -> tuple[Deployment, Profile]:
    """Return the profile of a choice with a share that the profile's own saturation rate bears out."""
    _, workers = decode_layout(caches.deployment)
    caching, slots = choice.caching, choice.cap // workers
    for _ in range(3):
        chosen = caches.deployment.model_copy(update={"caching": caching})
        profile = profile_with(caches.family, caches.workload, chosen, slots)
        cap, share = np.array([float(choice.cap)]), np.array([caching.hit_share])
        shares = np.array([0.0, caching.device_share, caching.hit_share])
        _, prompts = caches.loads(cap, shares)
        found = caches.found(caching.offload, cap, share, np.array([saturation(profile)]), lines(shares, prompts))
        slower = found.restore_s[0] > caching.restore_ms * MS * (1.0 + 1e-9)
        if not slower and found.hit[0] >= caching.hit_share * (1.0 - 1e-12):
            break
        caching = _caching(caches, caching.offload, found, caching.hit_share)
    return chosen, profile


def profile_with(family: Family, workload: Workload, deployment: Deployment, slots: int) -> Profile:
    """Return the profile of a set-up with what its caches find; `slots` of a decode worker."""
    workload = served(workload, deployment.caching)
    return profile_of(with_restores(family, deployment), deployment, workload, slots)


def with_restores(family: Family, deployment: Deployment) -> Family:
    """Return a family on whose machine first tokens also wait for what comes back from behind."""
    machine = restored(family.machine, deployment.caching)
    return family if machine is family.machine else replace(family, machine=machine)


def _memory(family: Family, worker: Worker, workload: Workload, *, role: str) -> MemoryUse:
    return serving_memory(
        family.model,
        family.machine,
        worker.layouts,
        role=role,
        input_tokens=workload.input_tokens,
        output_tokens=workload.output_tokens,
        output_cv=workload.output_cv,
        chunk_tokens=float(worker.chunk_tokens),
        draft_depth=float(worker.depth),
    )


def lengths_with(workload: Workload, shares: Array) -> Lengths:
    """Return the lengths of requests where `shares` of prompts are found."""
    return lengths(
        workload.input_tokens,
        workload.output_tokens,
        shares,
        input_cv=workload.input_cv,
        output_cv=workload.output_cv,
    )
