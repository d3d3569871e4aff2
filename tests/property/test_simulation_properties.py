"""Whatever is simulated, and whatever fails: nothing is lost, doubled or forgotten, and nothing depends on chance."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import given as over
from hypothesis import strategies as some

from hand_made_replicas import Steps, each_request, fleet_of, given, kind, requests, run
from tokopt.domain.traces import TraceChunk, taken
from tokopt.simulation import world as w
from tokopt.simulation.building import ClassLimits, Fleet, Item, ScalingRule
from tokopt.simulation.replicas import Kind
from tokopt.simulation.replication import Outcome, Window, replicate

BLOCK = 32  # tokens of a block that prompts have in common
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@dataclass(frozen=True)
class Part:
    """A kind of replica, in whole numbers."""

    replicas: int = 2
    slots: int = 3
    ranks: int = 1
    engines: int = 1
    chunk: int = 48
    blocks: int = 14  # of cache, a rank
    host: int = 0  # blocks behind it
    depth: int = 0
    servers: int = 0
    reserved: float = 0.0
    cached: bool = True

    def kind(self, rng: np.random.Generator) -> Kind:
        """Return it with step times."""
        base, token, one = rng.uniform(0.001, 0.02), rng.uniform(1e-5, 1e-3), rng.uniform(1e-4, 1e-2)
        steps = Steps(
            decode=lambda sequences, context: base + one * sequences + 1e-6 * context,
            prompt=lambda tokens, seen: base + token * tokens + 1e-7 * seen,
            saving=lambda sequences, tokens: min(base, one) * 0.5,
        )
        cache = self.blocks * BLOCK
        return kind(
            steps,
            steps if self.servers else None,
            slots=self.slots,
            rank_slots=-(-self.slots // self.ranks),
            ranks=self.ranks,
            engines=self.engines,
            depth=self.depth,
            chances=tuple(rng.uniform(0.2, 0.9, self.depth)),
            accepted=1.0 + 0.5 * self.depth,
            chunk_tokens=self.chunk,
            cache_tokens=cache,
            mixing=rng.random(),
            rank_imbalance=rng.random(),
            reserved_share=self.reserved,
            front_s=rng.choice([0.0, 0.01]),
            wake_s=rng.choice([0.0, 0.005]),
            restore_s_per_token=1e-4,
            pipelined=0.7 if self.engines > 1 else 1.0,
            most_tokens=cache - 2 * (1 + self.depth) - 16,
            block_tokens=BLOCK if self.cached else 0,
            host_tokens=self.host * BLOCK,
            servers=self.servers,
            server_cache_tokens=cache,
            pool_chunk_tokens=2 * self.chunk,
            pool_efficiency=rng.uniform(0.5, 1.0),
            move_s=0.01,
            move_s_per_token=1e-5,
        )


parts = some.builds(
    Part,
    replicas=some.integers(1, 3),
    slots=some.integers(1, 12),
    ranks=some.integers(1, 3),
    engines=some.integers(1, 2),
    chunk=some.integers(5, 200),
    blocks=some.integers(6, 18),
    host=some.sampled_from([0, 3, 50]),
    depth=some.sampled_from([0, 0, 1, 3]),
    servers=some.sampled_from([0, 0, 1, 3]),
    reserved=some.sampled_from([0.0, 0.0, 1.0]),
    cached=some.sampled_from([True, True, False]),
)


@dataclass(frozen=True)
class Story:
    """A fleet, its requests, and what happens to it."""

    seed: int
    parts: tuple[Part, ...]
    router: int
    together: bool
    classes: int
    requests: int
    rate: float
    repeats: bool
    concurrency: int
    outages: tuple[tuple[float, int, float], ...]
    scaled: bool
    least: int
    target: float
    bursts: bool

    def fleet(self) -> Fleet:
        rng = np.random.default_rng(self.seed)
        items = tuple(
            Item(
                kind=part.kind(rng),
                number=n,
                klass=n % self.classes,
                replicas=part.replicas,
                requests_per_s=float(rng.uniform(0.5, 2.0)),
            )
            for n, part in enumerate(self.parts)
        )
        rules = tuple(
            ScalingRule(
                item=n,
                least=min(self.least, part.replicas),
                requests=self.target * items[n].kind.engines * items[n].kind.fields["slots"],
                every_s=0.3,
                delay_s=0.5,
                patience=2,
            )
            for n, part in enumerate(self.parts)
        )
        return Fleet(
            items=items,
            limits=(ClassLimits(ttft_s=0.5, tpot_s=0.05, e2e_s=2.0),) * self.classes,
            router=self.router,
            together=self.together,
            scaling=rules if self.scaled else (),
            bins=20,
            bin_s=0.1,
            most_blocks=40 if self.repeats else 0,
        )

    def chunk(self) -> TraceChunk:
        """Return the requests: log-normal lengths, and prompts that start like some others."""
        rng = np.random.default_rng(self.seed + 1)
        n = self.requests
        gaps = rng.exponential(1.0, n) * (rng.random(n) < 0.3 if self.bursts else 1.0)
        prompts = np.maximum(np.exp(rng.normal(4.0, 0.9, n)).astype(int), 1)
        outputs = np.maximum(np.exp(rng.normal(3.3, 0.8, n)).astype(int), 1)
        hashes = [self._hashes(rng, int(prompt)) for prompt in prompts] if self.repeats else []
        return requests(
            np.cumsum(gaps) / self.rate,
            prompts,
            outputs,
            classes=rng.integers(0, self.classes, n),
            hashes=hashes,
            block=BLOCK if self.repeats else 0,
        )

    @staticmethod
    def _hashes(rng: np.random.Generator, prompt: int) -> np.ndarray:
        """Return hashes of a prompt that follows one of four texts for a while and then is its own."""
        blocks, common = prompt // BLOCK, int(rng.integers(0, 8))
        text, own = int(rng.integers(0, 4)), int(rng.integers(1 << 20, 1 << 50))
        return np.array([1000 * text + j if j < common else own + j for j in range(blocks)], dtype=np.int64)

    def play(self, chunks: list[TraceChunk] | None = None) -> Outcome:
        count = sum(part.replicas for part in self.parts)
        failures = [(time, replica % count, lasts) for time, replica, lasts in self.outages]
        return replicate(
            self.fleet(),
            chunks or [self.chunk()],
            Window(start_s=0.2),
            seed=self.seed,
            given_share=(0.0, 0.3)[: self.classes],
            concurrency=self.concurrency,
            outages=given(*failures) if failures else None,
            active=dict.fromkeys(range(len(self.parts)), 1) if self.scaled else None,
        )


@some.composite
def stories(draw: Any) -> Story:
    own = draw(some.lists(parts, min_size=1, max_size=3))
    classes = draw(some.integers(1, min(2, len(own))))
    times = some.floats(0.0, 6.0, allow_subnormal=False)
    return Story(
        seed=draw(some.integers(0, 1 << 30)),
        parts=tuple(own),
        router=draw(some.sampled_from([w.RANDOM, w.ROUND_ROBIN, w.LEAST_LOADED, w.SHORTEST_QUEUE, w.CACHE_AWARE])),
        together=draw(some.booleans()),
        classes=classes,
        requests=draw(some.integers(1, 120)),
        rate=draw(some.sampled_from([3.0, 30.0, 100.0, 300.0])),
        repeats=draw(some.booleans()),
        concurrency=draw(some.sampled_from([0, 0, 0, 1, 7, 40])),
        outages=tuple(
            draw(
                some.lists(
                    some.tuples(times, some.integers(0, 8), some.floats(0.0, 3.0, allow_subnormal=False)), max_size=6
                )
            )
        ),
        scaled=draw(some.booleans()),
        least=draw(some.integers(1, 2)),
        target=draw(some.sampled_from([0.3, 0.9])),
        bursts=draw(some.booleans()),
    )


ARRAYS = ("per_class", "waits", "histogram", "sums", "series", "totals", "requests", "replicas", "engines", "ranks")


def alike(one: Outcome, other: Outcome) -> bool:
    """Whether two runs ended the same, byte for byte, in all that they count."""
    return all(getattr(one.world, name).tobytes() == getattr(other.world, name).tobytes() for name in ARRAYS)


@QUICK
@over(stories())
def test_no_request_is_lost_or_doubled_whatever_fails(story: Story) -> None:
    outcome = story.play()
    assert outcome.broken == () and outcome.cut_short == ""
    totals = outcome.world.totals[0]
    assert totals.arrived == story.requests and totals.in_system == 0
    assert totals.finished + totals.rejected == story.requests
    assert totals.measured_open == 0
    chunk = story.chunk()
    most = min(item.kind.most_tokens for item in story.fleet().items)
    if (chunk.input_tokens + chunk.output_tokens).max() <= most:
        assert totals.delivered == chunk.output_tokens.sum()
    assert np.all(outcome.world.series >= 0.0) and np.isfinite(outcome.world.series).all()
    assert outcome.world.series[:, w.FINISHED].sum() == totals.finished
    assert outcome.world.series[:, w.ARRIVED].sum() == story.requests


@QUICK
@over(stories(), some.integers(1, 12))
def test_the_same_seed_gives_the_same_bytes_however_requests_come(story: Story, pieces: int) -> None:
    whole = story.play()
    assert alike(whole, story.play())
    chunk = story.chunk()
    cuts = np.array_split(np.arange(chunk.requests), pieces)
    assert alike(whole, story.play([taken(chunk, rows) for rows in cuts]))


lengths = some.lists(
    some.tuples(some.floats(0.0, 1.0, allow_subnormal=False), some.integers(1, 40), some.integers(1, 30)),
    min_size=1,
    max_size=25,
)


def arranged(rows: list[tuple[float, int, int]]) -> TraceChunk:
    gaps, prompts, outputs = zip(*rows, strict=True)
    return requests(np.cumsum(gaps), prompts, outputs)


@QUICK
@over(lengths, some.integers(1, 5))
def test_another_slot_makes_nobody_wait_longer_where_steps_do_not_grow(
    rows: list[tuple[float, int, int]], slots: int
) -> None:
    """First come, first served by more servers of the same pace: no request starts or ends later."""
    chunk = arranged(rows)
    steps = Steps(decode=lambda *_: 0.05)
    _, few = each_request(fleet_of(kind(steps, slots=slots, mixing=1.0)), chunk)
    _, more = each_request(fleet_of(kind(steps, slots=slots + 1, mixing=1.0)), chunk)
    # Steps of a batch begin when its first request comes, so that another phase may cost a step.
    assert np.all(more[2] <= few[2] + 2 * 0.05 + 1e-9)
    assert more[0].sum() <= few[0].sum() + 2 * 0.05 * chunk.requests


@QUICK
@over(lengths, some.floats(1.0, 3.0))
def test_a_faster_server_of_prompts_makes_nobody_wait_longer(rows: list[tuple[float, int, int]], pace: float) -> None:
    chunk = arranged([(gap, prompt, 1) for gap, prompt, _ in rows])
    slow = Steps(prompt=lambda tokens, _: 0.02 * tokens)
    fast = Steps(prompt=lambda tokens, _: 0.02 / pace * tokens)
    _, late = each_request(fleet_of(kind(slow)), chunk)
    _, soon = each_request(fleet_of(kind(fast)), chunk)
    assert np.all(soon[0] <= late[0] + 1e-9)
    _, pooled = each_request(fleet_of(kind(Steps(), slow, servers=1, slots=50)), chunk)
    _, twice = each_request(fleet_of(kind(Steps(), slow, servers=2, slots=50)), chunk)
    np.testing.assert_allclose(pooled[0], late[0], rtol=1e-9, atol=1e-9)
    assert np.all(twice[0] <= pooled[0] + 1e-9)


@QUICK
@over(lengths, some.floats(1.1, 4.0))
def test_time_has_no_unit(rows: list[tuple[float, int, int]], factor: float) -> None:
    """Twice as slow a machine with twice as slow arrivals gives twice the latencies."""
    chunk = arranged(rows)
    scaled = arranged([(gap * factor, prompt, output) for gap, prompt, output in rows])
    found = []
    for times, unit in ((chunk, 1.0), (scaled, factor)):
        steps = Steps(
            decode=lambda n, context, unit=unit: unit * (0.017 + 0.0031 * n + 1e-5 * context),
            prompt=lambda tokens, seen, unit=unit: unit * (0.0123 + 0.00171 * tokens + 1e-5 * seen),
        )
        found.append(each_request(fleet_of(kind(steps, slots=3, chunk_tokens=16)), times)[1])
    # Whether something comes just before or just after a step may be decided by rounding.
    close = np.isclose(found[1], factor * found[0], rtol=1e-9, atol=1e-9).all(axis=0)
    assert close.mean() > 0.9 or chunk.requests < 3 or np.unique(chunk.time_s).size < chunk.requests


@QUICK
@over(some.integers(0, 1 << 20), some.integers(1, 6))
def test_replicas_in_turn_are_replicas_of_their_own(seed: int, replicas: int) -> None:
    """Round robin over k replicas is k replicas that get every k-th request."""
    rng = np.random.default_rng(seed)
    times, prompts, outputs = rng.exponential(0.05, 40).cumsum(), rng.integers(1, 50, 40), rng.integers(1, 30, 40)
    steps = Steps(decode=lambda n, _: 0.01 + 0.003 * n, prompt=lambda tokens, _: 0.001 * tokens)
    made = kind(steps, slots=3, chunk_tokens=20, cache_tokens=400, most_tokens=200)
    _, together = each_request(
        fleet_of(made, replicas=replicas, router=w.ROUND_ROBIN), requests(times, prompts, outputs)
    )
    for n in range(replicas):
        own = slice(n, None, replicas)
        _, alone = each_request(fleet_of(made), requests(times[own], prompts[own], outputs[own]))
        np.testing.assert_array_equal(together[:, own], alone)


def test_a_request_that_loses_its_replica_on_the_way_comes_once() -> None:
    """The only replica fails while requests are at its front end, in its pool and on their way to decode."""
    steps = Steps(decode=lambda *_: 0.02, prompt=lambda tokens, _: 0.01 * tokens)
    for servers in (0, 2):
        made = kind(steps, steps if servers else None, slots=2, servers=servers, front_s=0.05, move_s=0.1)
        chunk = requests(np.arange(40) * 0.021, [7] * 40, [9] * 40)
        for time in np.linspace(0.0, 1.0, 60):
            outcome = run(fleet_of(made), chunk, outages=given((float(time), 0, 0.05)))
            assert outcome.broken == () and outcome.world.totals[0].finished == 40


def test_failures_reach_closed_loops_and_what_is_left_when_the_last_request_has_come() -> None:
    steps = Steps(decode=lambda *_: 0.02)
    times = [(float(t), 0, 0.3) for t in np.arange(0.5, 20.0, 1.0)]
    closed = run(
        fleet_of(kind(steps)), requests(np.zeros(30), [1] * 30, [26] * 30), concurrency=2, outages=given(*times)
    )
    assert closed.broken == () and closed.world.totals[0].retried >= 10
    late = run(fleet_of(kind(steps)), requests(np.zeros(10), [1] * 10, [26] * 10), outages=given(*times))
    assert late.broken == () and late.world.totals[0].retried >= 4


def test_what_is_lost_with_a_replica_is_made_again() -> None:
    steps = Steps(decode=lambda *_: 0.1)
    outcome, found = each_request(
        fleet_of(kind(steps, slots=2, mixing=1.0)), requests([0.0], [1], [11]), outages=given((0.55, 0, 0.25))
    )
    assert found[2, 0] == pytest.approx(0.8 + 1.0, rel=1e-9)  # anew once it is up again
    assert found[0, 0] == pytest.approx(0.8, rel=1e-9)
    totals = outcome.world.totals[0]
    assert totals.lost_tokens == 6 and totals.emitted == 17 and totals.retried == 1


def test_the_last_replica_that_is_up_is_not_stopped_while_another_is_repaired() -> None:
    steps = Steps(decode=lambda *_: 0.02)
    rule = ScalingRule(item=0, least=1, requests=0.9 * 4, every_s=0.1, delay_s=0.2, patience=1)
    fleet = fleet_of(kind(steps, slots=4), replicas=2, scaling=(rule,))
    chunk = requests(np.arange(100) * 0.5, [1] * 100, [3] * 100)
    outcome = run(fleet, chunk, outages=given((5.0, 0, 30.0), (6.0, 1, 1.0)))
    assert outcome.broken == ()
    # The first failure takes the one that runs, and the other is started; the second takes that, until it comes back.
    assert outcome.world.waits[0, w.FOR_REPLICA] == pytest.approx(0.2 + 1.0 + 0.5, abs=0.3)
    assert outcome.world.totals[0].retried <= 2


def test_replicas_start_and_stop_with_the_load() -> None:
    steps = Steps(decode=lambda *_: 0.05)
    rule = ScalingRule(item=0, least=1, requests=0.7 * 2, every_s=0.5, delay_s=1.0, patience=4)
    fleet = fleet_of(kind(steps, slots=2), replicas=8, scaling=(rule,))
    busy = np.arange(400) * 0.06
    chunk = requests(np.concatenate([busy, busy[-1] + np.arange(1, 60) * 1.0]), [1] * 459, [12] * 459)
    outcome = run(fleet, chunk, active={0: 1})
    assert outcome.broken == ()
    paid = [float(each.paid_s.sum()) for each in outcome.snapshots]
    assert 60.0 < paid[-1] < 8 * outcome.world.totals[0].now * 0.6
    assert (outcome.world.replicas.state == w.UP).sum() <= 2


def test_the_least_loaded_replica_is_that_with_fewest_tokens_however_many_it_has_served() -> None:
    """Tokens that are counted of a replica are those of the requests at it, or who served more would get ever more."""
    steps = Steps(decode=lambda *_: 0.01, prompt=lambda tokens, _: 1e-4 * tokens)
    fleet = fleet_of(kind(steps, slots=4), replicas=3, router=w.LEAST_LOADED)
    rng = np.random.default_rng(5)
    chunk = requests(rng.exponential(0.02, 3000).cumsum(), rng.integers(1, 90, 3000), rng.integers(1, 30, 3000))
    outcome = run(fleet, chunk)
    assert outcome.broken == () and not outcome.world.replicas["tokens"].any()
    busy = outcome.world.engines.busy_s
    assert busy.min() > 0.85 * busy.max()


@pytest.mark.parametrize("router", [w.CACHE_AWARE, w.SHORTEST_QUEUE])
def test_what_is_cached_is_found_and_what_is_too_much_is_dropped(router: int) -> None:
    steps = Steps(decode=lambda *_: 0.01, prompt=lambda tokens, _: 1e-3 * tokens)
    texts = [np.arange(8) + 100 * text for text in (0, 1)]
    chunk = requests(
        np.arange(40) * 1.0, [8 * BLOCK + 1] * 40, [5] * 40, hashes=[texts[n % 2] for n in range(40)], block=BLOCK
    )
    for blocks, found in ((20, 8), (12, 3)):  # of eight; the last blocks of a prompt are dropped first
        made = kind(steps, slots=1, cache_tokens=blocks * BLOCK, block_tokens=BLOCK)
        outcome = run(fleet_of(made, router=router, most_blocks=8), chunk)
        assert outcome.broken == ()
        assert outcome.world.totals[0].found_tokens == 38 * found * BLOCK
    behind = kind(
        steps, slots=1, cache_tokens=12 * BLOCK, block_tokens=BLOCK, host_tokens=16 * BLOCK, restore_s_per_token=1e-5
    )
    outcome = run(fleet_of(behind, router=router, most_blocks=8), chunk)
    assert outcome.broken == () and outcome.world.totals[0].found_tokens == 38 * 8 * BLOCK
    assert 0 < outcome.world.totals[0].found_behind <= outcome.world.totals[0].found_tokens


def test_a_transfer_from_behind_memory_takes_its_time() -> None:
    steps = Steps(decode=lambda *_: 0.01, prompt=lambda tokens, _: 1e-3 * tokens)
    texts = [np.arange(8) + 100 * text for text in (0, 1)]
    chunk = requests(
        np.arange(6) * 2.0, [8 * BLOCK + 1] * 6, [5] * 6, hashes=[texts[n % 2] for n in range(6)], block=BLOCK
    )
    made = kind(
        steps, slots=1, cache_tokens=12 * BLOCK, block_tokens=BLOCK, host_tokens=16 * BLOCK, restore_s_per_token=1e-4
    )
    fleet = replace(fleet_of(made, most_blocks=8), limits=(ClassLimits(),) * 6)
    outcome = run(fleet, replace(chunk, classes=np.arange(6)))
    first = outcome.world.sums[:, w.TTFT].sum(axis=1)
    fetched = outcome.world.totals[0].found_behind
    assert outcome.broken == () and fetched > 0
    assert first[2:].sum() == pytest.approx(4 * 1e-3 + fetched * 1e-4, rel=1e-9)


def test_the_series_has_all_of_it_however_wide_its_bins_become() -> None:
    steps = Steps(decode=lambda *_: 0.05)
    chunk = requests(np.arange(500) * 0.7, [1] * 500, [3] * 500)
    for bins in (6, 7, 240):
        outcome = run(fleet_of(kind(steps, slots=2), bins=bins, bin_s=0.5), chunk)
        series = outcome.world.series
        assert outcome.broken == () and series[:, w.FINISHED].sum() == 500
        assert series[:, w.TOKENS].sum() == 1500
        assert series[:, w.BUSY_S].sum() == pytest.approx(outcome.world.engines.busy_s.sum(), rel=1e-9)


def test_requests_of_a_class_go_to_its_replicas_in_the_shares_of_the_plan() -> None:
    quick, slow = kind(Steps(decode=lambda *_: 1e-3), slots=50), kind(Steps(decode=lambda *_: 2e-3), slots=50)
    items = (
        Item(kind=quick, number=0, klass=0, replicas=1, requests_per_s=3.0),
        Item(kind=slow, number=1, klass=0, replicas=2, requests_per_s=0.5),
        Item(kind=quick, number=2, klass=1, replicas=1, requests_per_s=1.0),
    )
    rng = np.random.default_rng(2)
    chunk = requests(np.arange(20_000) * 1.0, [1] * 20_000, [3] * 20_000, classes=rng.integers(0, 2, 20_000))
    for together in (False, True):
        fleet = Fleet(items=items, limits=(ClassLimits(),) * 2, router=w.RANDOM, together=together)
        outcome = run(fleet, chunk)
        steps = outcome.world.engines.steps / 3  # of each request, one for its prompt
        assert outcome.broken == ()
        assert steps[3] == outcome.world.per_class.finished[1]
        assert steps[0] / steps[:3].sum() == pytest.approx(0.75, abs=0.02)
        assert steps[1] / steps[:3].sum() == pytest.approx(0.125, abs=0.02)
