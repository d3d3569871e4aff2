"""Hit rates of prefix caches: exact limits, properties, an LRU cache simulated, and published shapes."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokopt.catalog import Catalog
from tokopt.domain.caching import Offload, Reuse, Router
from tokopt.domain.workloads import Workload
from tokopt.perf.caching import (
    Pattern,
    fleet_caches,
    hit_share,
    kept_share,
    pattern_of,
    restore_s,
    writable_bytes_per_s,
)

TALK = Workload(
    name="talk",
    input_tokens=8000.0,
    output_tokens=500.0,
    reuse=Reuse(shared_tokens=1000.0, shared_prefixes=20.0, turns=5.0, turn_gap_s=30.0),
)


def share(
    pattern: Pattern, room: float, rate: float = 2.0, caches: float = 1.0, router: Router = Router.RANDOM
) -> float:
    return float(hit_share(pattern, room_tokens=room, rate=rate, caches=caches, router=router))


def test_a_conversation_reuses_what_its_turns_have_in_common() -> None:
    # Prompts of 2,000 to 10,000 tokens in five equal steps: 2,000 new ones each, the first beyond the prefix.
    pattern = pattern_of(replace(TALK, input_tokens=6000.0, reuse=Reuse(turns=5.0, turn_gap_s=30.0)))
    assert pattern.reusable_share == pytest.approx(1.0 - 5 * 2000.0 / (5 * 6000.0))
    assert pattern.follow_share == pytest.approx(0.8)
    # With a prefix of its own in front of it, and growth as stated.
    shared = pattern_of(replace(TALK, reuse=Reuse(shared_tokens=1000.0, turns=5.0, turn_gap_s=30.0, turn_tokens=600.0)))
    first = 8000.0 - 2 * 600.0
    assert shared.reusable_share * 5 * 8000.0 == pytest.approx(5 * 8000.0 - (first - 1000.0) - 4 * 600.0)


def test_working_set_is_littles_law() -> None:
    pattern = pattern_of(TALK)
    # 3 requests/s, 4 of 5 go on, each gone for 30 s: 72 conversations of 7,000 own tokens and an answer of 500.
    assert pattern.working_set_tokens(3.0) == pytest.approx(72 * 7500.0 + 20 * 1000.0)


@pytest.mark.parametrize("router", list(Router))
def test_an_endless_cache_finds_all_that_can_be_reused_and_none_finds_nothing(router: Router) -> None:
    pattern = pattern_of(TALK)
    assert share(pattern, 1e18, router=router) == pytest.approx(pattern.reusable_share, rel=1e-9)
    assert share(pattern, 0.0, router=router) == 0.0
    assert share(pattern, 1e5, router=router) < pattern.reusable_share


def test_a_stated_working_set_is_found_to_the_share_that_fits() -> None:
    """What is asked for alike is found in proportion to the room, once one-off tokens do not matter."""
    reuse = Reuse(reusable_share=0.999, working_set_tokens=1e8)
    pattern = pattern_of(replace(TALK, output_tokens=1.0, reuse=reuse))
    assert share(pattern, 2.5e7) == pytest.approx(0.25 * 0.999, rel=0.01)


def test_chance_meets_one_cache_in_so_many() -> None:
    """First-touch arithmetic: over eight caches 7/8 of what only one of them holds is missed (animesh.cloud, 2025)."""
    pattern = pattern_of(replace(TALK, reuse=Reuse(turns=5.0, turn_gap_s=30.0)))
    for router in (Router.RANDOM, Router.ROUND_ROBIN, Router.LEAST_LOADED):
        assert share(pattern, 1e18, caches=8.0, router=router) == pytest.approx(pattern.reusable_share / 8.0)
    assert share(pattern, 1e18, caches=8.0, router=Router.KV_AWARE) == pytest.approx(pattern.reusable_share)


def test_one_cache_makes_all_routers_alike() -> None:
    pattern = pattern_of(TALK)
    assert len({share(pattern, 2e5, router=router) for router in Router}) == 1


def test_unknown_fleets_are_taken_at_their_worst() -> None:
    pattern = pattern_of(TALK)
    for router in Router:
        unknown = share(pattern, 2e5, caches=fleet_caches(None, 1.0, router), router=router)
        assert all(unknown <= share(pattern, 2e5, caches=n, router=router) + 1e-12 for n in (1.0, 3.0, 50.0))


patterns = st.builds(
    lambda shared, prefixes, turns, gap, output: pattern_of(
        Workload(
            name="any",
            input_tokens=8000.0,
            output_tokens=output,
            reuse=Reuse(shared_tokens=shared, shared_prefixes=prefixes, turns=turns, turn_gap_s=gap),
        )
    ),
    st.floats(1.0, 7900.0),
    st.floats(1.0, 1e4),
    st.floats(1.0, 200.0),
    st.floats(0.1, 1e4),
    st.floats(1.0, 1e4),
)
positive = st.floats(1e-3, 1e3)


@given(patterns, st.floats(0.0, 1e9), st.floats(1.0, 1e3), positive, st.floats(1.0, 1e3), st.sampled_from(list(Router)))
def test_more_cache_never_lowers_the_hit_rate(
    pattern: Pattern, room: float, more: float, rate: float, caches: float, router: Router
) -> None:
    less = share(pattern, room, rate, caches, router)
    assert 0.0 <= less <= share(pattern, room * more, rate, caches, router) + 1e-12
    assert less <= pattern.reusable_share * (1.0 + 1e-12)


@given(patterns, st.floats(0.0, 1e9), positive, st.floats(1.0, 1e3), st.floats(1.0, 10.0))
def test_chance_never_beats_a_router_that_knows_and_load_never_helps(
    pattern: Pattern, room: float, rate: float, caches: float, more: float
) -> None:
    knows = share(pattern, room, rate, caches, Router.KV_AWARE)
    assert share(pattern, room, rate, caches, Router.RANDOM) <= knows + 1e-9
    assert share(pattern, room, rate * more, caches, Router.KV_AWARE) <= knows + 1e-9
    assert share(pattern, room, rate, caches * more, Router.RANDOM) <= share(pattern, room, rate, caches) + 1e-9


def lru(pattern: Pattern, room: float, rate: float, requests: int, seed: int) -> float:
    """Hit share of a cache that is simulated: whole prefixes and contexts, least recently used ones dropped first."""
    draw = np.random.default_rng(seed)
    cache: OrderedDict[tuple[str, int], float] = OrderedDict()
    held = found = 0.0
    due: list[tuple[float, int]] = []  # conversations that come back
    now, counted, opened = 0.0, 0, 0
    turns = 1.0 / (1.0 - pattern.follow_share)

    def keep(key: tuple[str, int], tokens: float) -> bool:
        nonlocal held
        hit = key in cache
        held += tokens - cache.pop(key, 0.0)
        cache[key] = tokens
        while held > room:
            held -= cache.popitem(last=False)[1]
        return hit

    # Conversations open at 1/T of the rate and go on with 1 - 1/T: geometric turns, as many requests in the mean.
    opens = draw.exponential(turns / rate)
    while counted < requests:
        if due and due[0][0] < opens:
            now, talk = due.pop(0)
            follows = True
        else:
            now, talk, follows = opens, opened, False
            opened += 1
            opens = now + draw.exponential(turns / rate)
        counted += 1
        late = counted > requests // 4
        hit = keep(("prefix", int(draw.integers(int(pattern.prefixes)))), pattern.shared_tokens)
        found += late * hit * pattern.shared_tokens
        hit = keep(("talk", talk), pattern.left_tokens)
        found += late * (hit and follows) * pattern.private_tokens
        if draw.random() < pattern.follow_share:
            due.append((now + draw.exponential(pattern.gap_s), talk))
            due.sort()
    return found / ((requests - requests // 4) * pattern.input_tokens)


@pytest.mark.parametrize("room", [0.1, 0.3, 1.0, 3.0])
@pytest.mark.parametrize("turns", [1.0, 5.0])
def test_hit_share_is_that_of_a_simulated_lru_cache(room: float, turns: float) -> None:
    reuse = Reuse(shared_tokens=3000.0, shared_prefixes=50.0, turns=turns, turn_gap_s=20.0)
    pattern = pattern_of(replace(TALK, reuse=reuse))
    tokens = room * float(pattern.working_set_tokens(4.0))
    simulated = lru(pattern, tokens, 4.0, requests=24_000, seed=1)
    assert share(pattern, tokens, rate=4.0) == pytest.approx(simulated, abs=0.02)


def test_past_a_cliff_conversations_that_do_not_fit_are_computed_again() -> None:
    """NVIDIA, TensorRT LLM tech blog 27: agents' hit rate falls from 0.97 to 0.73 once their caches overflow."""
    coder = Workload(
        name="coder",
        input_tokens=14_400.0,
        output_tokens=110.0,
        reuse=Reuse(turns=60.0, turn_gap_s=2.0, turn_tokens=450.0),
    )
    pattern = pattern_of(coder)
    assert pattern.reusable_share == pytest.approx(0.965, abs=0.02)
    fits = float(pattern.working_set_tokens(2.0))
    assert share(pattern, 4.0 * fits) > 0.93
    assert share(pattern, 0.8 * fits) < 0.75
    assert share(pattern, 0.2 * fits) < 0.3


def test_routing_by_content_is_worth_most_where_no_cache_holds_all_prefixes() -> None:
    """llm-d, "KV-Cache wins you can see": 150 prefixes of 6,000 tokens, 8 replicas with room for 307,328 tokens each.

    All prefixes take three times one replica's cache and 37 % of all caches: a router that knows where they are finds
    nearly all of them; published throughput was about twice that of random routing.
    """
    customers = Workload(
        name="customers",
        input_tokens=7200.0,
        output_tokens=1000.0,
        reuse=Reuse(shared_tokens=6000.0, shared_prefixes=150.0),
    )
    pattern = pattern_of(customers)
    knows = share(pattern, 300_000.0, 2.0, 8.0, Router.KV_AWARE)
    chance = share(pattern, 300_000.0, 2.0, 8.0, Router.RANDOM)
    assert knows > 0.7 * pattern.reusable_share
    assert chance < 0.5 * knows


def test_fetching_takes_longer_the_fuller_the_link() -> None:
    assert float(restore_s(1000.0, 1e-6, 0.0)) == pytest.approx(1e-3)
    assert float(restore_s(1000.0, 1e-6, 500.0)) == pytest.approx(2e-3)
    assert math.isinf(float(restore_s(1000.0, 1e-6, 1000.0)))


def test_a_drive_is_written_over_as_often_as_it_bears(catalog: Catalog) -> None:
    """3.84 TB once a day are 44.4 MB/s; memory takes what comes."""
    chip = catalog.accelerator("h200_sxm")
    assert writable_bytes_per_s(chip, Offload.SSD) == pytest.approx(44.44e6, rel=1e-3)
    assert writable_bytes_per_s(chip, Offload.HOST) == math.inf
    pattern = pattern_of(TALK)
    # 8,000 tokens a prompt of which a quarter is found, and 500 a answer: 6,500 to be written, twice a second.
    assert float(kept_share(0.25, pattern, 500.0, 2.0, math.inf)) == 1.0
    assert float(kept_share(0.25, pattern, 500.0, 2.0, 13_000.0)) == 1.0
    assert float(kept_share(0.25, pattern, 500.0, 2.0, 3_250.0)) == pytest.approx(0.25)
    assert float(kept_share(0.75, pattern, 500.0, 2.0, 3_250.0)) == pytest.approx(0.65)
