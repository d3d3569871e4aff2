"""Prefix caches: what repeats in a workload, how much of it stays cached, and what it takes to fetch it.

A cache is that of one attention-data-parallel rank: accelerator memory beside its running requests, and host memory or
SSD behind it. It is shared by all that is not running and drops what was not asked for longest (LRU, as vLLM, SGLang
and TensorRT LLM do).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tokopt.domain.accelerators import Accelerator
from tokopt.domain.caching import Caching, Offload, Router
from tokopt.domain.workloads import Workload
from tokopt.perf.arithmetic import LlmArithmetic
from tokopt.perf.arrays import Floats
from tokopt.perf.layouts import Layouts
from tokopt.perf.machine import Machine
from tokopt.perf.memory import MemoryUse, sequence_bytes
from tokopt.units import MS

# Of a node's memory or SSD, what is given to the cache: the rest is the operating system's and the engines' own. llm-d
# ran with 100 to 150 GiB of the 250 GB that a node of eight H200 has for each ("Serving GLM-5.2 agentic workloads").
OFFLOAD_SHARE = 0.5
# Times between which the characteristic time is looked for. [s]
SHORTEST_S, LONGEST_S, HALVINGS = 1e-12, 1e12, 44


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """What requests have in common, a mean request. [tokens]"""

    input_tokens: float
    shared_tokens: float  # prefix that it has in common with many
    prefixes: float  # distinct ones
    follow_share: float  # of requests that go on with a conversation
    private_tokens: float  # of such a request, that the turn before computed, beyond the shared prefix
    left_tokens: float  # that a request leaves in the cache, beyond the shared prefix
    gap_s: float  # mean time between turns

    @property
    def reusable_share(self) -> float:
        """Share of input tokens that an endless cache finds."""
        return (self.shared_tokens + self.follow_share * self.private_tokens) / self.input_tokens

    def working_set_tokens(self, rate: Floats) -> Floats:
        """Tokens that have to stay cached: what is between turns (Little, Oper. Res. 9(3), 1961) and all prefixes."""
        return rate * self.follow_share * self.gap_s * self.left_tokens + self.prefixes * self.shared_tokens


def pattern_of(workload: Workload) -> Pattern:
    """Return what the requests of a workload with `reuse` have in common.

    Prompts p_1 … p_T of a conversation start with the shared prefix S and grow by G a turn, with a mean of I; by
    default evenly from S: G = 2(I - S)/(T + 1). One request in T opens a conversation (renewal reward); any other finds
    the prompt before it, on average I - G/2. The answer between them is not counted on: chat templates drop the
    reasoning in it. A stated share r with a working set w is w/(r·I) shared prefixes of r·I tokens.
    """
    reuse = workload.reuse
    assert reuse is not None
    tokens = float(workload.input_tokens)
    shared, prefixes = reuse.shared_tokens, reuse.shared_prefixes
    if reuse.reusable_share is not None and reuse.working_set_tokens is not None:
        shared = reuse.reusable_share * tokens
        prefixes = max(reuse.working_set_tokens / shared, 1.0)
    own = tokens - shared
    growth = 2.0 * own / (reuse.turns + 1.0) if reuse.turn_tokens is None else reuse.turn_tokens
    talks = reuse.turns > 1.0
    return Pattern(
        input_tokens=tokens,
        shared_tokens=shared,
        prefixes=prefixes,
        follow_share=1.0 - 1.0 / reuse.turns,
        private_tokens=max(own - 0.5 * growth, 0.0) if talks else 0.0,
        left_tokens=own + workload.output_tokens,
        gap_s=reuse.turn_gap_s or 1.0,
    )


def fleet_caches(replicas: Floats | None, a_replica: Floats, router: Router) -> Floats:
    """Return how many caches the traffic is spread over; where replicas are unknown, the worst for the router.

    A router that knows what is cached does no worse with more replicas, so one; any other, endlessly many.
    """
    if replicas is None:
        return a_replica if router.returns else float("inf")
    return replicas * a_replica


def hit_share(pattern: Pattern, *, room_tokens: Floats, rate: Floats, caches: Floats, router: Router) -> Floats:
    """Share of input tokens that one of `caches` caches finds, at `rate` requests a second each.

    With t the characteristic time of the cache (`characteristic_s`), a prefix that is asked for every N/λ seconds is
    there with 1 - exp(-λ·t/N), and a conversation that comes back after an exponential gap g with 1 - exp(-t/g):

        hit = (S·(1 - exp(-λt/N)) + share of follow-ups · chance to come back · private · (1 - exp(-t/g))) / I

    A router that knows what is cached sends conversations back, and each prefix to as few caches as there are
    prefixes: N/caches of them each. Any other spreads both evenly: a cache sees all N, and a conversation finds its
    last turn in one case of `caches` (older, shorter turns elsewhere are not counted).

    Args:
        pattern: What requests have in common.
        room_tokens: Room of one cache beside what runs. [tokens]
        rate: Requests that reach one cache. [1/s]
        caches: Caches that the traffic is spread over.
        router: How.
    """
    rate = np.maximum(rate, 1e-9)
    prefixes, back = spread(pattern, caches, router)
    t = characteristic_s(pattern, room_tokens=room_tokens, rate=rate, prefixes=prefixes, back=back)
    shared = pattern.shared_tokens * -np.expm1(-rate * t / prefixes)
    private = pattern.follow_share * back * pattern.private_tokens * -np.expm1(-t / pattern.gap_s)
    return (shared + private) / pattern.input_tokens


def spread(pattern: Pattern, caches: Floats, router: Router) -> tuple[Floats, Floats]:
    """Return the prefixes that one cache is asked for, and the chance that a conversation comes back to it."""
    if router.returns:
        return np.maximum(pattern.prefixes / np.asarray(caches), 1.0), 1.0
    return pattern.prefixes, 1.0 / np.asarray(caches)


def characteristic_s(pattern: Pattern, *, room_tokens: Floats, rate: Floats, prefixes: Floats, back: Floats) -> Floats:
    """Return the time t after which an LRU cache drops what was not asked for; endless where all fits. [s]

    Che's approximation: t is the same for everything in the cache, and what has been asked for within it fills it,

        N·S·(1 - exp(-λt/N)) + λ·left·(f·g·(1 - exp(-t/g)) + (1 - f)·t) = room

    with f the share of requests whose conversation comes back to the cache; what others leave stays for the whole of t.

    Che, Tung, Wang, "Hierarchical Web Caching Systems", IEEE JSAC 20(7), 2002; Fricker, Robert, Roberts, "A versatile
    and accurate approximation for LRU cache performance", ITC 24, 2012. Reuse times that are not exponential: Fagin,
    "Asymptotic miss ratios over independent references", J. Comput. Syst. Sci. 14, 1977.
    """
    room = np.asarray(room_tokens, dtype=float)
    f = pattern.follow_share * np.asarray(back)
    weight = np.asarray(rate) * pattern.left_tokens

    def held(t: Floats) -> Floats:
        own = f * pattern.gap_s * -np.expm1(-t / pattern.gap_s) + (1.0 - f) * t
        return prefixes * pattern.shared_tokens * -np.expm1(-rate * t / prefixes) + weight * own

    shape = np.broadcast_shapes(room.shape, np.shape(rate), np.shape(prefixes), np.shape(back))
    low, high = np.full(shape, np.log(SHORTEST_S)), np.full(shape, np.log(LONGEST_S))
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        fits = held(np.exp(middle)) <= room
        low, high = np.where(fits, middle, low), np.where(fits, high, middle)
    found = np.where(held(np.full(shape, LONGEST_S)) <= room, np.inf, np.exp(low))
    # Where not even the shortest time fits, nothing stays: the search's own lower end is no answer.
    return np.where(held(np.full(shape, SHORTEST_S)) <= room, found, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiers:
    """Room of one cache beside what runs, by tier, and what a token takes to come back from behind."""

    device_tokens: Floats
    offload_tokens: Floats
    restore_s_per_token: Floats


def token_bytes(model: LlmArithmetic, layouts: Layouts, tokens: float, draft_depth: Floats = 0.0) -> Floats:
    """Return the cache of one token on each accelerator of its rank, mean over a context of `tokens`. [B]

    With that of a drafter where one drafts (`draft_depth`): what it has not cached, it would have to take in again.
    """
    return np.maximum(sequence_bytes(model, layouts, tokens, draft_depth) / tokens, 1e-9)


def offload_of(accelerator: Accelerator, tier: Offload) -> tuple[float | None, float | None]:
    """Return memory of a tier for one accelerator, and the bandwidth to it; None where not known. [B, B/s]"""
    if tier is Offload.HOST:
        return accelerator.host_bytes, accelerator.host_bytes_per_s
    if tier is Offload.SSD:
        return accelerator.ssd_bytes, accelerator.ssd_bytes_per_s
    return 0.0, float("inf")


def tiers(
    model: LlmArithmetic,
    layouts: Layouts,
    use: MemoryUse,
    *,
    running: Floats,
    context_tokens: float,
    draft_depth: Floats = 0.0,
    behind: tuple[float | None, float | None] = (0.0, float("inf")),
) -> Tiers:
    """Return the room of one cache: what is left in memory beside `running` requests of its rank, and what is behind.

    Args:
        model: Bytes of the model.
        layouts: Degrees of the worker; each accelerator keeps its own part of a cache, and fetches it by itself.
        use: Memory of the worker in its role.
        running: Requests of the rank that are in service.
        context_tokens: Prompt and answer of a mean request.
        draft_depth: Depth of speculation of the worker.
        behind: Memory behind one accelerator and the bandwidth to it. [B, B/s]
    """
    each = token_bytes(model, layouts, context_tokens, draft_depth)
    left = np.maximum(np.asarray(use.available) - running * np.asarray(use.per_sequence), 0.0)
    held, bandwidth = behind
    return Tiers(
        device_tokens=left / each,
        offload_tokens=OFFLOAD_SHARE * (held or 0.0) / each,
        restore_s_per_token=each / (bandwidth or float("inf")),
    )


def restore_s(found_tokens: Floats, s_per_token: Floats, rate: Floats) -> Floats:
    """Return what fetching a request's offloaded tokens takes, waits for the link included; endless where it is full.

    t / (1 - λ·t): processor sharing of a link (Kleinrock, Queueing Systems II, §4.4). [s]
    """
    alone = found_tokens * s_per_token
    load = np.asarray(rate) * alone
    return np.where(load < 1.0, alone / np.maximum(1.0 - load, 1e-12), np.inf)


def served(workload: Workload, caching: Caching | None) -> Workload:
    """Return a workload with the share of prompts that a deployment's caches find."""
    return workload if caching is None else replace(workload, prefix_share=caching.hit_share)


def restored(machine: Machine, caching: Caching | None) -> Machine:
    """Return a machine on which a request's first token also waits for what comes back from behind."""
    if caching is None or not caching.restore_ms:
        return machine
    return replace(machine, request_overhead_s=machine.request_overhead_s + caching.restore_ms * MS)
