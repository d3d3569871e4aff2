"""Requests on their way into the system and out of it, and the events that are to come."""

from __future__ import annotations

import heapq
from typing import TypeAlias

from tokopt.simulation.compiled import compiled
from tokopt.simulation.recording import record
from tokopt.simulation.world import AT_NEXT, DOWN, DRAINING, FREE, LIMBO, NONE, UP, World

# When, a number that tells what was put in first, what, whose, and a stamp that says whether it still counts.
Events: TypeAlias = list[tuple[float, int, int, int, int]]


@compiled
def push(world: World, events: Events, at: float, code: int, who: int, stamp: int) -> None:
    """Let something happen at a time; of what happens at the same time, what was put in first comes first."""
    totals = world.totals[0]
    totals.pushed += 1
    heapq.heappush(events, (at, totals.pushed, code, who, stamp))


@compiled
def count_in(world: World, now: float, more: int) -> None:
    """Keep count of the requests in the system, and of their sum over time."""
    totals = world.totals[0]
    totals.area += totals.in_system * (now - totals.area_at)
    totals.area_at = now
    totals.in_system += more
    totals.most_in_system = max(totals.most_in_system, totals.in_system)


@compiled
def finish(world: World, events: Events, rid: int, at: float) -> None:
    """Let a request go that was answered by `at`."""
    request, totals = world.requests[rid], world.totals[0]
    record(world, rid, at)
    totals.finished += 1
    totals.delivered += request.output
    vacate(world, rid, totals.now)
    if totals.closed_loop:
        push(world, events, max(at, totals.now), AT_NEXT, 0, 0)
    discard(world, rid)


@compiled
def vacate(world: World, rid: int, now: float) -> None:
    """Take a request off its replica, which rests when it was the last of one that drains."""
    request = world.requests[rid]
    replica = world.replicas[request.replica]
    replica.in_system -= 1
    replica.tokens -= request.prompt + request.emitted
    if replica.state == DRAINING and replica.in_system == 0:
        set_state(world, request.replica, DOWN, now)
    request.replica = NONE


@compiled
def discard(world: World, rid: int) -> None:
    """Count a request out and free its row."""
    request, totals = world.requests[rid], world.totals[0]
    totals.sojourn_s += totals.now - request.arrival
    totals.measured_open -= request.measured
    count_in(world, totals.now, -1)
    request.state = FREE
    request.next = totals.free
    totals.free = rid
    totals.rows_left += 1


@compiled
def set_state(world: World, n: int, state: int, now: float) -> None:
    """Change what a replica does; time that it is not down is what it is paid for."""
    replica = world.replicas[n]
    if replica.state != DOWN:
        replica.paid_s += now - replica.since
    if replica.state in (UP, DRAINING):
        replica.up_s += now - replica.since
    replica.since = now
    replica.state = state


@compiled
def into_limbo(world: World, rid: int, now: float) -> None:
    """Keep a request that no replica takes until one does."""
    request, totals = world.requests[rid], world.totals[0]
    totals.stamp += 1  # what was on its way to the replica that it was taken from is void
    request.stamp = totals.stamp
    request.state, request.replica, request.next, request.since = LIMBO, NONE, NONE, now
    if totals.limbo_tail == NONE:
        totals.limbo_head = rid
    else:
        world.requests[totals.limbo_tail].next = rid
    totals.limbo_tail = rid
    totals.limbo += 1
