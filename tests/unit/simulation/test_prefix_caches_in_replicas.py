"""Blocks found in simulated caches, against a plain cache of least recent use and against Che's approximation."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from hand_made_replicas import Steps, fleet_of, kind, requests, run
from tokopt.domain.caching import Reuse, Router
from tokopt.domain.workloads import Workload
from tokopt.perf.caching import hit_share, pattern_of
from tokopt.simulation import world as w
from tokopt.simulation.arrivals import Stream, synthesised
from tokopt.simulation.replication import Window, replicate

BLOCK = 32
QUICK = Steps(prompt=lambda tokens, _: 1e-7 * tokens)


def plainly_found(prompts: list[tuple[int, list[int]]], room: int) -> int:
    """Return the tokens that are found by requests one after another, in a cache of so many tokens."""
    idle: OrderedDict[int, None] = OrderedDict()  # least recently used first
    found = 0
    for tokens, blocks in prompts:
        known = 0
        while known < min(len(blocks), (tokens - 1) // BLOCK) and blocks[known] in idle:
            known += 1
        found += known * BLOCK
        for block in blocks[:known]:
            del idle[block]
        needed = -(-(tokens + 1) // 16) * 16
        while room - len(idle) * BLOCK < needed:
            idle.popitem(last=False)
        for block in blocks[known:]:
            idle.pop(block, None)  # a copy of what is there is given back
        for block in reversed(blocks):
            idle[block] = None
    return found


@settings(max_examples=60, deadline=None)
@given(
    some.lists(some.tuples(some.integers(0, 5), some.integers(0, 10), some.integers(0, 40)), min_size=1, max_size=80),
    some.integers(0, 60),
)
def test_blocks_are_dropped_least_recently_used_first(asked: list[tuple[int, int, int]], spare: int) -> None:
    """Prompts follow one of six texts, which branch every other block, for some blocks and a rest."""
    prompts = []
    for n, (text, blocks, rest) in enumerate(asked):
        named = [100 * text + j if j < 4 or text % 2 else 1000 * (1 + n) + j for j in range(blocks + rest // BLOCK)]
        prompts.append((max(blocks * BLOCK + rest, 1), named))
    room = max(-(-(tokens + 1) // 16) * 16 for tokens, _ in prompts) + 16 * spare
    made = kind(QUICK, cache_tokens=room, block_tokens=BLOCK)
    chunk = requests(
        np.arange(len(prompts)) * 1.0,
        [tokens for tokens, _ in prompts],
        [1] * len(prompts),
        hashes=[np.array(named, dtype=np.int64) for _, named in prompts],
        block=BLOCK,
    )
    outcome = run(fleet_of(made, most_blocks=12), chunk)
    assert outcome.broken == ()
    assert outcome.world.totals[0].found_tokens == plainly_found(prompts, room)


TURNS = Reuse(turns=6.0, turn_gap_s=20.0)
PREFIXES = Reuse(shared_tokens=6000, shared_prefixes=40)


def simulated(reuse: Reuse, room: int, replicas: int, router: int, **more: Any) -> tuple[float, Workload]:
    workload = Workload(name="x", input_tokens=8000, output_tokens=1, input_cv=0.0, reuse=reuse)
    made = kind(
        Steps(prompt=lambda tokens, _: 1e-7 * tokens),
        slots=8,
        cache_tokens=room,
        block_tokens=256,
        tokens=np.array([1.0, 1e6]),
        **more,
    )
    stream = Stream(workload=workload, requests_per_s=10.0 * replicas)
    outcome = replicate(
        fleet_of(made, replicas=replicas, router=router, most_blocks=400),
        synthesised([stream], seed=1),
        Window(start_s=0.0, end_s=12_000 / stream.requests_per_s),
        seed=1,
    )
    assert outcome.broken == ()
    totals = outcome.world.totals[0]
    return float(totals.found_tokens / totals.prompt_tokens), workload


@pytest.mark.parametrize("room", [100_000, 300_000, 1_000_000])
@pytest.mark.parametrize("reuse", [TURNS, PREFIXES])
@pytest.mark.parametrize(("replicas", "router"), [(1, w.RANDOM), (4, w.RANDOM), (4, w.CACHE_AWARE)])
def test_caches_find_what_plans_count_on(reuse: Reuse, room: int, replicas: int, router: int) -> None:
    found, workload = simulated(reuse, room, replicas, router)
    expected = hit_share(
        pattern_of(workload),
        room_tokens=room,
        rate=10.0,
        caches=float(replicas),
        router=Router.KV_AWARE if router == w.CACHE_AWARE else Router.RANDOM,
    )
    assert found == pytest.approx(float(expected), abs=0.04)


def test_memory_behind_a_cache_continues_it() -> None:
    alone, _ = simulated(TURNS, 100_000, 1, w.RANDOM)
    behind, _ = simulated(TURNS, 100_000, 1, w.RANDOM, host_tokens=900_000)
    larger, _ = simulated(TURNS, 1_000_000, 1, w.RANDOM)
    assert alone < 0.2 * behind
    assert behind == pytest.approx(larger, abs=0.02)


def test_a_router_that_knows_what_is_cached_sends_conversations_back() -> None:
    chance, _ = simulated(TURNS, 3_000_000, 4, w.RANDOM)
    knows, workload = simulated(TURNS, 3_000_000, 4, w.CACHE_AWARE)
    assert knows == pytest.approx(pattern_of(workload).reusable_share, abs=0.09)  # it starts empty
    assert chance < 0.5 * knows


def test_prompts_that_wait_for_the_next_batch_are_not_fetched_before_they_are_taken() -> None:
    pool = kind(
        Steps(decode=lambda *_: 0.01),
        Steps(prompt=lambda tokens, _: 1e-3 * tokens),
        slots=8, pool_chunk_tokens=150, restore_s_per_token=1.0, servers=1, block_tokens=100, server_cache_tokens=2500,
        host_tokens=100_000, cache_tokens=1 << 30,
    )  # fmt: skip

    def fetched(times: list[float]) -> tuple[int, float]:
        """Four prompts of their own, which do not all fit in memory, and each of them once more."""
        hashes = [np.arange(9) + 100 * (n % 4) for n in range(8)]
        chunk = requests(times, [900] * 8, [1] * 8, hashes=hashes, block=100)
        outcome = run(fleet_of(pool, router=w.CACHE_AWARE, most_blocks=10, together=False, bin_s=1e5), chunk)
        assert outcome.broken == ()
        return int(outcome.world.totals[0].found_behind), float(outcome.world.servers[0].busy_s)

    first = [n * 1e5 for n in range(4)]
    assert fetched([*first, *[5e6] * 4]) == fetched([*first, *[5e6 + n * 1e5 for n in range(4)]])
