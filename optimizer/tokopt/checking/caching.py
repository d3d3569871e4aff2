"""What prefix caches find, worked out again: an LRU cache by its characteristic time, in plain numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tokopt.checking.case import TOLERANCE, Case, number, within
from tokopt.checking.evaluation import profile_for, replica_of
from tokopt.checking.replica import sequence_bytes
from tokopt.domain.caching import Caching, Offload, Router
from tokopt.domain.demand import WorkloadShape
from tokopt.units import MS

OFFLOAD_SHARE = 0.5  # of host memory or SSD, given to the cache
STEPS = 200  # halvings of the characteristic time


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """What requests have in common, a mean request. [tokens]"""

    prompt: float
    shared: float
    prefixes: float
    follow_ups: float  # share of requests
    private: float  # of a follow-up, found where its conversation is
    left: float  # by each request
    gap_s: float


def pattern(workload: WorkloadShape) -> Pattern:
    """Return what the requests of a workload with `reuse` have in common."""
    reuse = workload.reuse
    assert reuse is not None
    prompt, shared, prefixes = workload.input_tokens, reuse.shared_tokens, reuse.shared_prefixes
    if reuse.reusable_share is not None:
        shared = reuse.reusable_share * prompt
        prefixes = max((reuse.working_set_tokens or 0.0) / shared, 1.0)
    grows = reuse.turn_tokens
    if grows is None:
        grows = 2.0 * (prompt - shared) / (reuse.turns + 1.0)
    return Pattern(
        prompt=prompt,
        shared=shared,
        prefixes=prefixes,
        follow_ups=(reuse.turns - 1.0) / reuse.turns,
        private=max(prompt - shared - grows / 2.0, 0.0) if reuse.turns > 1.0 else 0.0,
        left=prompt - shared + workload.output_tokens,
        gap_s=reuse.turn_gap_s or 1.0,
    )


def hit_share(of: Pattern, *, room: float, rate: float, caches: float, router: Router) -> float:
    """Share of prompt tokens that a cache with `room` tokens finds, at `rate` requests a second.

    1 - exp(-λt/N) of each shared prefix, 1 - exp(-t/g) of conversations that come back, where t fills the cache (Che,
    Tung, Wang, IEEE JSAC 20(7), 2002). By content, a cache serves N/caches prefixes and all of its conversations come
    back; by chance all N, and one conversation in `caches`.
    """
    if room <= 0.0:
        return 0.0
    prefixes, back = of.prefixes, 1.0 / caches
    if router is Router.KV_AWARE:
        prefixes, back = max(of.prefixes / caches, 1.0), 1.0

    def there(t: float) -> tuple[float, float]:
        return -math.expm1(-rate * t / prefixes), -math.expm1(-t / of.gap_s)

    def filled(t: float) -> float:
        shared, private = there(t)
        returning = of.follow_ups * back
        own = returning * of.gap_s * private + (1.0 - returning) * t
        return prefixes * of.shared * shared + rate * of.left * own

    low, high = 1e-13, 1e13
    for _ in range(STEPS):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if filled(middle) <= room else (low, middle)
    shared, private = there(low)
    return (of.shared * shared + of.follow_ups * back * of.private * private) / of.prompt


def caches_settled(case: Case) -> list[str]:
    """Check that caches find no less than is said at saturation, and that fetching is paid for and pays.

    What is left in memory beside all requests that may run, and half of the memory behind it, holds the rest. Shares
    may be lower than recomputed, since a running cap that a limit lowers leaves more room.
    """
    caching, asked = case.item.deployment.caching, case.asked.workload
    repeats = asked.reuse is not None and "prefix_caching" not in case.request.disabled_features
    if not repeats or caching is None:
        wrong = repeats != (caching is not None)
        why = "states no caching, but prompts repeat" if repeats else "states caching, but nothing is to be found"
        return [case.fault(f"deployment {why}")] if wrong else []
    if caching.device_share > caching.hit_share:
        return [case.fault(f"device_share {number(caching.device_share)} is above hit_share")]
    if caching.hit_share == 0.0:
        return []
    device, both, restore_s, saved_s = _recomputed(case, caching)
    faults = []
    for name, says, most in (("device_share", caching.device_share, device), ("hit_share", caching.hit_share, both)):
        if not within(says, most, TOLERANCE):
            said = f"{name} is {number(says)}, but its caches find {number(most)} at saturation"
            faults.append(case.fault(said))
    stated_s = caching.restore_ms * MS
    if not within(restore_s, stated_s, TOLERANCE):
        faults.append(case.fault(f"restore_ms is {number(caching.restore_ms)}, but takes {number(restore_s / MS)}"))
    if stated_s > 0.0 and not within(stated_s, saved_s, 1e-3):
        said = f"more than the {number(saved_s / MS)} of prefill that it saves"
        faults.append(case.fault(f"restore_ms is {number(caching.restore_ms)}, {said}"))
    return faults


def _recomputed(case: Case, caching: Caching) -> tuple[float, float, float, float]:
    """Return shares found in memory and in all, seconds to fetch the rest, and seconds of prefill that this saves."""
    deployment, of = case.item.deployment, pattern(case.asked.workload)
    replica = replica_of(deployment, case.workload, case.llm, case.inputs)
    profile = profile_for(deployment, case.workload, case.llm, case.inputs)
    worker, memory, workers = replica.decoder, replica.memory, 1
    resident = (deployment.max_running_requests or 0) / worker.layout.dp
    if replica.prefiller is not None and replica.prefill_memory is not None:
        worker, memory, workers = replica.prefiller, replica.prefill_memory, replica.prefillers
        resident = worker.layout.pp * max(math.floor(worker.chunk_tokens / replica.size.computed), 1.0)
    context = replica.size.prompt + replica.size.output
    each = max(sequence_bytes(worker.sums, worker.layout, context, worker.depth) / context, 1e-9)
    room = max(memory.cache_room - resident * memory.per_sequence, 0.0) / each
    rate = profile.saturation / (workers * worker.layout.dp)
    caches = math.inf if caching.router is not Router.KV_AWARE else float(workers * worker.layout.dp)
    if caching.replicas is not None:
        caches = caching.replicas * workers * worker.layout.dp

    def found(tokens: float) -> float:
        return hit_share(of, room=tokens, rate=rate, caches=caches, router=caching.router)

    if caching.offload is Offload.NONE:
        return found(room), found(room), 0.0, math.inf
    behind, bandwidth = _behind(case, caching.offload)
    fetched_s = (caching.hit_share - caching.device_share) * of.prompt * each / bandwidth
    load = rate * fetched_s
    takes = fetched_s / (1.0 - load) if load < 1.0 else math.inf
    saved = _prompt_s(case, caching.device_share) - _prompt_s(case, caching.hit_share)
    return found(room), found(room + OFFLOAD_SHARE * behind / each), takes, saved


def _behind(case: Case, tier: Offload) -> tuple[float, float]:
    accelerator = case.inputs.accelerators[case.item.deployment.accelerator]
    known = (
        (accelerator.host_bytes, accelerator.host_bytes_per_s)
        if tier is Offload.HOST
        else (accelerator.ssd_bytes, accelerator.ssd_bytes_per_s)
    )
    if known[0] is None or known[1] is None:
        raise ValueError(f"the catalog has no {tier.value} memory for {accelerator.name}")
    return known[0], known[1]


def _prompt_s(case: Case, share: float) -> float:
    """Time of a prompt's own prefill where a share of it is found, at the running cap. [s]"""
    deployment = case.item.deployment.model_copy(update={"caching": None})
    workload = case.asked.workload.model_copy(update={"prefix_share": share, "reuse": None})
    profile = profile_for(deployment, workload, case.llm, case.inputs)
    return profile.prefill.prompt_s if profile.prefill is not None else profile.read(profile.prompt_s, profile.slots)
