"""Runs of the inner loop: what is kept of them, and how they end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from hand_made_replicas import Steps, fleet_of, given, kind, requests, run
from tokopt.domain.traces import TraceChunk
from tokopt.simulation import replication
from tokopt.simulation import world as w
from tokopt.simulation.building import built
from tokopt.simulation.invariants import broken
from tokopt.simulation.replication import Window, replicate

STEPS = Steps(decode=lambda *_: 0.01, prompt=lambda tokens, _: 1e-3 * tokens)


def pieces(count: int, each: int = 5) -> Iterator[TraceChunk]:
    for n in range(count):
        yield requests((np.arange(each) + each * n) * 0.1, [10] * each, [4] * each)


def test_snapshots_are_few_and_even_however_long_a_run_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replication, "MOST_SNAPSHOTS", 20)
    outcome = replicate(fleet_of(kind(STEPS)), pieces(700), Window(start_s=0.0), seed=1)
    times = [snapshot.time_s for snapshot in outcome.snapshots]
    assert 10 <= len(times) <= 22
    assert times[0] == 0.0 and times[-1] == outcome.world.totals[0].now
    assert np.diff(times).max() < 0.15 * times[-1]
    assert outcome.snapshots[-1].finished == 3500
    assert [s.arrived for s in outcome.snapshots] == sorted(s.arrived for s in outcome.snapshots)


def test_a_run_ends_when_all_that_is_measured_is_answered() -> None:
    outcome = replicate(fleet_of(kind(STEPS)), pieces(1000), Window(start_s=5.0, end_s=20.0), seed=1)
    assert outcome.world.per_class.arrived[0] == outcome.world.per_class.finished[0] == 150
    assert 20.0 <= outcome.world.totals[0].now < 30.0


def test_nothing_to_do_is_done_at_once() -> None:
    outcome = replicate(fleet_of(kind(STEPS)), [], Window(start_s=0.0), seed=1)
    assert outcome.broken == () and outcome.world.totals[0].arrived == 0


def test_a_stretch_without_requests_changes_nothing() -> None:
    some = list(pieces(4))
    empty = requests([], [], [])
    plain = replicate(fleet_of(kind(STEPS)), some, Window(start_s=0.0), seed=1)
    mixed = replicate(fleet_of(kind(STEPS)), [empty, *some[:2], empty, empty, *some[2:]], Window(start_s=0.0), seed=1)
    assert plain.world.sums.tobytes() == mixed.world.sums.tobytes()


def test_more_requests_at_a_time_than_there_was_room_for() -> None:
    outcome = run(fleet_of(kind(STEPS, slots=8)), requests(np.zeros(5000), [1] * 5000, [2] * 5000))
    assert outcome.broken == () and outcome.world.totals[0].finished == 5000
    assert outcome.world.requests.size > 4096


def test_an_overload_is_cut_short_before_memory_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replication, "MOST_REQUESTS", 300)
    slow = Steps(decode=lambda *_: 1.0)
    outcome = replicate(fleet_of(kind(slow)), pieces(1000), Window(start_s=0.0), seed=1)
    assert "more than 300 requests were in the system" in outcome.cut_short
    assert outcome.world.totals[0].in_system < 320 and outcome.broken == ()


DEFECTS = {
    "a request is gone": ("came, but", lambda world: world.totals.__setitem__("arrived", world.totals.arrived + 1)),
    "a token is gone": (
        "tokens were made",
        lambda world: world.totals.__setitem__("emitted", world.totals.emitted + 1),
    ),
    "time is gone": ("requests over time", lambda world: world.totals.__setitem__("area", world.totals.area * 1.01)),
    "cache is gone": ("hold", lambda world: world.ranks.__setitem__("private", world.ranks.private + 16)),
    "a queue is cut": ("belong to lists", lambda world: world.ranks.__setitem__("head", w.NONE)),
    "a queue is miscounted": ("waiting at rank", lambda world: world.ranks.__setitem__("waiting", 1)),
    "a replica is miscounted": ("of replica", lambda world: world.replicas.__setitem__("in_system", 0)),
    "an engine rests": ("rests", lambda world: world.engines.__setitem__("active", 0)),
    "an event is void": ("events are to come", lambda world: world.engines.__setitem__("generation", 9)),
    "a row is lost": ("free", lambda world: world.totals.__setitem__("free", w.NONE)),
}


@pytest.mark.parametrize("name", list(DEFECTS))
def test_what_is_broken_is_found(name: str) -> None:
    said, spoil = DEFECTS[name]
    world, events = stopped()
    assert broken(world, events) == []
    spoil(world)
    assert any(said in fault for fault in broken(world, events))


def stopped() -> tuple[w.World, Any]:
    """Return the tables of a run that was stopped in the middle, and what was still to happen."""
    found: list[tuple[w.World, Any]] = []

    class Kept(replication._Waiting):
        def advance(self, world: w.World, rows: w.Rows, rng: np.random.Generator) -> w.World:
            after = super().advance(world, rows, rng)
            found.append((after, self.events.copy()))
            return after

    original, replication._Waiting = replication._Waiting, Kept  # type: ignore[misc]
    try:
        made = kind(STEPS, slots=2, cache_tokens=400)
        replicate(
            fleet_of(made),
            [requests(np.arange(40) * 1e-3, [50] * 40, [30] * 40)],
            Window(start_s=0.0),
            seed=1,
            overloaded=lambda _: True,
            outages=given(),
        )
    finally:
        replication._Waiting = original  # type: ignore[misc]
    return found[0]


def test_tables_of_a_fleet_start_empty() -> None:
    assert broken(built(fleet_of(kind(STEPS), replicas=3)), np.zeros(0, dtype=w.EVENT).view(np.recarray)) == []
