"""Every request's times in the compiled loop against those of a plain simulation that was written from the rules."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

import plain_simulation as plain
from hand_made_replicas import Steps, each_request, fleet_of, kind, requests
from tokopt.simulation import world as w
from tokopt.simulation.replication import Outcome

CLOSE = {"rtol": 1e-9, "atol": 1e-9, "equal_nan": True}
ROUTERS = {"turn": w.ROUND_ROBIN, "least tokens": w.LEAST_LOADED, "fewest requests": w.SHORTEST_QUEUE}


@dataclass(frozen=True)
class Case:
    """Whole numbers of a small case; whatever takes time is drawn with its seed, so that nothing happens at once."""

    seed: int = 0
    requests: int = 12
    spacing_s: float = 0.02
    slots: int = 4
    rank_slots: int = 4
    ranks: int = 1
    engines: int = 1
    chunk: int = 24
    spare_blocks: int = 2  # of a cache, beyond the longest request
    depth: int = 0
    accepted: bool = True
    reserved: float = 0.0
    replicas: int = 1
    router: str = "fewest requests"
    servers: int = 0  # 0 = prompts and answers on the same engines
    pool_chunk: int = 40
    longest: int = 1 << 40
    given: float = 0.0
    concurrency: int = 0
    mixing: float | None = None
    pipelined: float = 1.0


cases = some.builds(
    Case,
    seed=some.integers(0, 1 << 30),
    requests=some.integers(1, 30),
    spacing_s=some.sampled_from([0.0, 0.001, 0.02, 0.2]),
    slots=some.integers(1, 6),
    rank_slots=some.integers(1, 6),
    ranks=some.integers(1, 3),
    engines=some.integers(1, 3),
    chunk=some.integers(3, 64),
    spare_blocks=some.integers(0, 8),
    depth=some.sampled_from([0, 0, 1, 3]),
    accepted=some.booleans(),
    reserved=some.sampled_from([0.0, 0.5, 1.0]),
    replicas=some.integers(1, 2),
    router=some.sampled_from(list(ROUTERS)),
    servers=some.sampled_from([0, 0, 0, 1, 2, 3]),
    pool_chunk=some.integers(3, 100),
    longest=some.sampled_from([1 << 40, 70]),
    given=some.sampled_from([0.0, 0.3]),
    concurrency=some.sampled_from([0, 0, 1, 4]),
    mixing=some.sampled_from([None, 0.0, 1.0]),
    pipelined=some.sampled_from([1.0, 0.6]),
)


@dataclass
class Drawn:
    """A case with its times and lengths."""

    case: Case
    told: plain.Told = field(init=False)
    times: Any = field(init=False)
    prompts: Any = field(init=False)
    outputs: Any = field(init=False)

    def __post_init__(self) -> None:
        case, rng = self.case, np.random.default_rng(self.case.seed)
        n = case.requests
        self.times = np.cumsum(rng.exponential(1.0, n)) * case.spacing_s
        self.prompts, self.outputs = rng.integers(1, 60, n), rng.integers(1, 40, n)
        base, each = rng.uniform(0.001, 0.02, 20).cumsum(), rng.uniform(0.0, 1e-4, 20)
        fixed, token, seen = rng.uniform(0.0, 0.01), rng.uniform(1e-4, 1e-3), rng.uniform(0.0, 1e-4)
        saved = rng.random() * token
        most = min(int((self.prompts + self.outputs).max()), case.longest)
        mixing, front = rng.random(), rng.random() * 0.01
        self.told = plain.Told(
            decode=lambda sequences, context: base[sequences] + each[sequences] * context,
            prompt=lambda tokens, context: fixed + token * tokens + seen * context,
            saving=lambda sequences, tokens: saved * tokens * sequences / (sequences + 1),
            slots=case.slots,
            rank_slots=min(case.rank_slots, case.slots),
            chunk=case.chunk,
            cache=plain.whole(most + case.depth) + plain.BLOCK * case.spare_blocks,
            ranks=case.ranks,
            engines=case.engines,
            depth=case.depth,
            all_accepted=case.accepted,
            accepted=1.0 + case.depth * case.accepted,
            mixing=mixing if case.mixing is None else case.mixing,
            imbalance=rng.random(),
            reserved=case.reserved,
            front=front,
            wake=0.0 if case.servers else rng.random() * 0.01,
            pipelined=case.pipelined,
            longest=case.longest,
            pool=None if not case.servers else lambda tokens, context: fixed + 2.0 * token * tokens + seen * context,
            servers=case.servers,
            pool_chunk=case.pool_chunk,
            efficiency=rng.uniform(0.5, 1.0),
            move=rng.random() * 0.01,
            move_token=rng.random() * 1e-3,
        )

    def plainly(self) -> tuple[np.ndarray, int]:
        """Return latencies of the plain simulation, as `each_request` does, and how many lost their cache."""
        simulation = plain.Simulation(self.told, self.case.replicas, self.case.router)
        asked = [
            plain.Asked(i, self.times[i], int(prompt), int(output), given=int(self.case.given * prompt))
            for i, (prompt, output) in enumerate(zip(self.prompts, self.outputs, strict=True))
        ]
        simulation.run(asked, self.case.concurrency)
        rows = [
            (one.first - one.arrival, (one.end - one.first) / max(one.output - 1, 1), one.end - one.arrival)
            for one in asked
        ]
        return np.array(rows).T, simulation.preempted

    def compiled(self) -> tuple[Outcome, np.ndarray]:
        """Return what the compiled loop makes of it."""
        case, told = self.case, self.told
        made = kind(
            Steps(decode=told.decode, prompt=told.prompt, saving=told.saving),
            None if told.pool is None else Steps(prompt=told.pool),
            slots=told.slots,
            rank_slots=told.rank_slots,
            ranks=told.ranks,
            engines=told.engines,
            depth=told.depth,
            chances=(1.0 if case.accepted else 0.0,) * told.depth,
            accepted=told.accepted,
            chunk_tokens=told.chunk,
            cache_tokens=told.cache,
            mixing=told.mixing,
            rank_imbalance=told.imbalance,
            front_s=told.front,
            wake_s=told.wake,
            pipelined=told.pipelined,
            reserved_share=told.reserved,
            most_tokens=told.longest,
            servers=told.servers,
            pool_chunk_tokens=told.pool_chunk,
            pool_efficiency=told.efficiency,
            move_s=told.move,
            move_s_per_token=told.move_token,
        )
        return each_request(
            fleet_of(made, replicas=case.replicas, router=ROUTERS[case.router]),
            requests(self.times, self.prompts, self.outputs),
            given_share=(case.given,) * case.requests,
            concurrency=case.concurrency,
        )


def same(case: Case) -> int:
    """Compare both; return how many requests lost their cache."""
    drawn = Drawn(case)
    outcome, found = drawn.compiled()
    expected, preempted = drawn.plainly()
    assert outcome.broken == ()
    np.testing.assert_allclose(found, expected, **CLOSE)
    assert outcome.world.totals[0].preempted == preempted
    return preempted


@settings(max_examples=150, deadline=None)
@given(cases)
def test_each_request_takes_as_long_as_the_rules_say(case: Case) -> None:
    same(case)


@pytest.mark.parametrize("servers", [0, 2])
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("depth", [0, 3])
def test_the_rules_hold_where_caches_are_far_too_small(servers: int, ranks: int, depth: int) -> None:
    lost = 0
    for seed in range(8):
        tight = Case(seed=seed, requests=30, spacing_s=0.001, slots=6, rank_slots=6, spare_blocks=1, depth=depth)
        lost += same(replace(tight, ranks=ranks, servers=servers, chunk=64))
    assert lost > 10


def test_a_request_alone_takes_its_front_its_prompt_and_its_steps() -> None:
    steps = Steps(
        decode=lambda _, context: 0.01 + 1e-5 * context, prompt=lambda tokens, seen: 1e-3 * tokens + 1e-4 * seen
    )
    made = kind(steps, slots=4, front_s=0.5, wake_s=0.25, chunk_tokens=100)
    _, found = each_request(fleet_of(made), requests([1.0], [250], [5]))
    prompt = 0.25 + 1e-4 * (50.0 + 150.0 + 225.0)  # three chunks that see as much on average
    assert found[0, 0] == pytest.approx(0.75 + prompt, rel=1e-12)
    assert found[1, 0] == pytest.approx(0.01 + 1e-5 * 252.0, rel=1e-12)  # contexts of 250.5 … 253.5 on average
    assert found[2, 0] == pytest.approx(found[0, 0] + 4.0 * found[1, 0], rel=1e-12)


def test_a_batch_shares_its_steps() -> None:
    steps = Steps(decode=lambda sequences, _: 0.01 * sequences, prompt=lambda *_: 0.0)
    _, found = each_request(fleet_of(kind(steps, slots=3)), requests([0.0] * 4, [1] * 4, [11] * 4))
    np.testing.assert_allclose(found[2, :3], 0.3, rtol=1e-12)
    assert found[0, 3] == pytest.approx(0.3, rel=1e-12)  # the fourth waits for a slot
    assert found[2, 3] == pytest.approx(0.4, rel=1e-12)


def test_drafts_that_are_accepted_make_answers_shorter() -> None:
    steps = Steps(decode=lambda *_: 0.01)
    for chance, count in ((0.0, 12), (1.0, 4)):
        made = kind(steps, depth=2, chances=(chance, chance), accepted=1.0 + 2.0 * chance)
        _, found = each_request(fleet_of(made), requests([0.0], [8], [13]))
        assert found[2, 0] == pytest.approx(0.01 * count, rel=1e-12)


def test_a_request_that_no_cache_holds_is_rejected() -> None:
    made = kind(Steps(decode=lambda *_: 0.01), slots=2, most_tokens=100)
    outcome, found = each_request(fleet_of(made), requests([0.0, 0.1], [90, 90], [10, 11]))
    assert np.isnan(found[:, 1]).all() and not np.isnan(found[:, 0]).any()
    assert outcome.world.totals[0].rejected == 1


def test_gaps_between_tokens_are_counted_once_each() -> None:
    steps = Steps(decode=lambda sequences, _: 0.01 * sequences, prompt=lambda tokens, _: 1e-3 * tokens)
    outcome, found = each_request(fleet_of(kind(steps, slots=4)), requests([0.0, 0.013, 0.04], [5, 9, 7], [7, 6, 9]))
    counts, sums = outcome.world.histogram[:, w.ITL], outcome.world.sums[:, w.ITL]
    assert counts.sum() == 6 + 5 + 8
    assert sums.sum() == pytest.approx((found[2] - found[0]).sum(), rel=1e-12)
