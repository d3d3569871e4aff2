"""The event loop: what happens next, until requests, rows or time run out."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from numpy.random import Generator

from tokopt.simulation.batching import compose, end_step, enqueue
from tokopt.simulation.compiled import compiled, kept, merged, sources_hash
from tokopt.simulation.faults import come_up, fail, scale
from tokopt.simulation.flow import Events, count_in, push
from tokopt.simulation.handed import Handed, borrowed
from tokopt.simulation.pools import end_batch, end_rest, queue_prompt, reach_decoder, shortest_rank
from tokopt.simulation.recording import bin_of, sample
from tokopt.simulation.routing import choose_group, route
from tokopt.simulation.world import (
    ARRIVED,
    AT_DECODER,
    AT_ENGINE,
    AT_FRONT,
    AT_NEXT,
    AT_SAMPLE,
    AT_SCALING,
    AT_SERVER,
    AT_UP,
    NEEDS_ENTRIES,
    NEEDS_REQUESTS,
    NEEDS_ROWS,
    NEEDS_TIME,
    NONE,
    RANDOM,
    REACHED,
    Rows,
    World,
)


@compiled
def arrive(world: World, events: Events, rows: Rows, i: int, now: float, rng: Generator) -> None:
    """Let the next request into the system, or reject one that no cache of its replicas holds."""
    totals = world.totals[0]
    klass = rows.klass[i]
    totals.arrived += 1
    measured = 1 if totals.measure_from <= now < totals.measure_until else 0
    world.series[bin_of(world, now), ARRIVED] += 1.0
    world.per_class[klass].arrived += measured
    g = choose_group(world, klass, rng)
    if rows.prompt[i] + rows.output[i] > world.groups[g].most_tokens:
        totals.rejected += 1
        world.per_class[klass].rejected += measured
        if totals.closed_loop:
            push(world, events, now, AT_NEXT, 0, 0)
        return
    rid = totals.free
    request = world.requests[rid]
    totals.free = request.next
    totals.rows_left -= 1
    totals.measured_open += measured
    request.uid = totals.arrived
    request.klass, request.group, request.arrival = klass, g, now
    request.prompt, request.output, request.given = rows.prompt[i], rows.output[i], rows.given[i]
    first = rows.hash_start[i]
    request.hashes = min(rows.hash_start[i + 1] - first, world.hashes.shape[1])
    for j in range(request.hashes):
        world.hashes[rid, j] = rows.hashes[first + j]
    request.computed = request.target = request.chunk = request.emitted = request.held = request.private = 0
    request.next, request.lost, request.measured = NONE, 0, measured
    count_in(world, now, 1)
    route(world, events, rid, now, rng)


@compiled
def reach_front(world: World, events: Events, rid: int, now: float) -> None:
    """Let a request queue at its replica that the front end has passed on."""
    request = world.requests[rid]
    replica = world.replicas[request.replica]
    if world.kinds[replica.kind].disaggregated:
        queue_prompt(world, events, rid, now)
        return
    r = request.rank if request.rank != NONE else shortest_rank(world, replica)
    enqueue(world, r, rid, now)
    e = world.ranks[r].engine
    engine = world.engines[e]
    if engine.active == 0:
        engine.active = 1
        push(world, events, now + world.kinds[engine.kind].wake_s, AT_ENGINE, e, engine.generation)


@merged
def happen(world: World, events: Events, now: float, code: int, who: int, stamp: int, rng: Generator) -> None:
    """Do what an event stands for, unless it is void by now."""
    if code == AT_ENGINE:
        if world.engines[who].generation == stamp:
            end_step(world, events, who, now, rng)
            compose(world, events, who, now)
    elif code == AT_FRONT:
        if world.requests[who].stamp == stamp:
            reach_front(world, events, who, now)
    elif code == AT_DECODER:
        if world.requests[who].stamp == stamp:
            at_random = world.groups[world.requests[who].group].router == RANDOM
            reach_decoder(world, events, who, now, at_random, rng)
    elif code == AT_SERVER:
        if world.servers[who].generation == stamp // 2:
            if stamp % 2 == 0:
                end_batch(world, events, who, now)
            else:
                end_rest(world, events, who, now)
    elif code == AT_UP:
        come_up(world, events, who, stamp, now, rng)
    elif code == AT_SCALING:
        scale(world, events, who, now, rng)
    elif code == AT_SAMPLE:
        sample(world, now)
        push(world, events, now + world.totals[0].bin_s, AT_SAMPLE, 0, 0)


@merged
def run(world: World, events: Events, rows: Rows, cursor: int, until: float, rng: Generator) -> tuple[int, int]:
    """Let things happen up to a time; returns why it came back, and the next row."""
    totals = world.totals[0]
    last = rows.time_s.size
    blocks = world.hashes.shape[1]
    while True:
        if cursor == last and not totals.ended and not totals.closed_loop:
            return NEEDS_ROWS, cursor
        if totals.ended and totals.in_system == 0:
            return REACHED, cursor
        if totals.rows_left == 0:
            return NEEDS_REQUESTS, cursor
        if blocks > 0 and totals.entries_left <= blocks:
            return NEEDS_ENTRIES, cursor
        t_event = events[0][0] if len(events) > 0 else math.inf
        t_row = rows.time_s[cursor] if cursor < last and not totals.closed_loop else math.inf
        outage = totals.outage_next
        t_outage = world.outages[outage].time if outage < world.outages.size else math.inf
        now = min(t_event, t_row, t_outage)
        if now == math.inf:
            return REACHED, cursor
        if now > until:
            return NEEDS_TIME, cursor
        totals.now = now
        if t_outage <= now:
            fail(world, events, world.outages[outage].replica, now, world.outages[outage].lasts, rng)
            totals.outage_next += 1
        elif t_row <= now:
            arrive(world, events, rows, cursor, now, rng)
            cursor += 1
        elif events[0][2] == AT_NEXT and cursor == last and not totals.ended:
            return NEEDS_ROWS, cursor
        else:
            _, _, code, who, stamp = heapq.heappop(events)
            if code != AT_NEXT:
                happen(world, events, now, code, who, stamp, rng)
            elif cursor < last:
                arrive(world, events, rows, cursor, now, rng)
                cursor += 1


@lru_cache(maxsize=1)
def inner_loop() -> Callable[..., tuple[int, int, int]]:
    """Return the compiled loop: `(world, rows, cursor, until, waiting, waiting of them, rng)`.

    `waiting` has the events that are to come, one a row, and gets those that are left; it has to have room for them.
    Returns why it came back, the next row, and how many events are left.
    """
    sources = sources_hash()

    @kept
    def advance(
        world: World, rows: Rows, cursor: int, until: float, waiting: Any, count: int, rng: Generator
    ) -> tuple[int, int, int]:
        if sources == "":  # makes the hash a part of what machine code is kept under
            return REACHED, cursor, count
        events = [(0.0, 0, 0, 0, 0) for _ in range(0)]
        for i in range(count):
            event = waiting[i]
            events.append((event.time, event.number, event.code, event.who, event.stamp))
        heapq.heapify(events)
        handed = Handed(
            borrowed(world.tables),
            borrowed(world.kinds),
            borrowed(world.classes),
            borrowed(world.groups),
            borrowed(world.replicas),
            borrowed(world.servers),
            borrowed(world.engines),
            borrowed(world.ranks),
            borrowed(world.running),
            borrowed(world.requests),
            borrowed(world.hashes),
            borrowed(world.held),
            borrowed(world.entries),
            world.index,
            borrowed(world.shares),
            borrowed(world.totals),
            borrowed(world.per_class),
            borrowed(world.waits),
            borrowed(world.histogram),
            borrowed(world.sums),
            borrowed(world.series),
            borrowed(world.outages),
            borrowed(world.scaling),
        )
        why, cursor = run(handed, events, rows, cursor, until, rng)
        for i in range(min(len(events), waiting.size)):
            event = waiting[i]
            event.time, event.number, event.code, event.who, event.stamp = events[i]
        return why, cursor, len(events)

    return advance
