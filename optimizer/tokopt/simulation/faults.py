"""Replicas that fail and come back, and replicas that are started and stopped as the load goes."""

from __future__ import annotations

import math

from numpy.random import Generator

from tokopt.simulation.batching import free_cache
from tokopt.simulation.compiled import compiled
from tokopt.simulation.flow import Events, push, set_state, vacate
from tokopt.simulation.prefixes import forget_all, release
from tokopt.simulation.routing import leave_limbo, route
from tokopt.simulation.world import (
    AT_SCALING,
    AT_UP,
    DECODE,
    DOWN,
    DRAINING,
    FREE,
    LIMBO,
    NONE,
    PREFILL,
    STARTING,
    UP,
    World,
)


@compiled
def fail(world: World, events: Events, n: int, now: float, lasts_s: float, rng: Generator) -> None:
    """Take a replica down with all that it works on, and let it come back; its requests start anew on others."""
    replica = world.replicas[n]
    if replica.state in (DOWN, STARTING):
        return
    if replica.state == DRAINING:  # it was to stop, and does
        set_state(world, n, DOWN, now)
    else:
        set_state(world, n, STARTING, now)
        replica.failed = 1
        replica.ready_stamp += 1
        push(world, events, now + lasts_s, AT_UP, n, replica.ready_stamp)
    totals = world.totals[0]
    for rid in range(world.requests.size):
        request = world.requests[rid]
        if request.state in (FREE, LIMBO) or request.replica != n:
            continue
        if request.state in (PREFILL, DECODE):
            free_cache(world, request.rank, rid)
        elif request.server != NONE and request.held > 0:
            release(world, world.servers[request.server].rank, rid)
        request.lost = 1
    clear(world, n)
    for rid in range(world.requests.size):
        request = world.requests[rid]
        if request.lost == 0:
            continue
        request.lost = 0
        vacate(world, rid, now)
        totals.lost_tokens += request.emitted
        totals.retried += 1
        request.emitted, request.computed, request.chunk, request.next = 0, 0, 0, NONE
        route(world, events, rid, now, rng)


@compiled
def clear(world: World, n: int) -> None:
    """Empty the queues, batches and caches of a replica whose requests have let go of their caches."""
    replica = world.replicas[n]
    for e in range(replica.first_engine, replica.first_engine + replica.engines):
        engine = world.engines[e]
        engine.generation += 1
        engine.active = engine.decoding = engine.in_service = 0
        for r in range(engine.first_rank, engine.first_rank + engine.ranks):
            rank = world.ranks[r]
            rank.head = rank.tail = rank.prefill_head = rank.prefill_tail = NONE
            rank.waiting = rank.waiting_tokens = rank.prefilling = 0
            rank.running = rank.stepping = rank.chunk_tokens = 0
            rank.decoding_tokens = rank.short = 0
            rank.link_free = 0.0
            forget_all(world, r)
    for s in range(replica.first_server, replica.first_server + replica.servers):
        server = world.servers[s]
        server.generation += 1
        server.busy = server.queued_tokens = 0
        server.head = server.queue_head = server.queue_tail = NONE
        if server.rank != NONE:
            forget_all(world, server.rank)
    replica.queue_head = replica.queue_tail = NONE
    replica.queued = replica.busy_servers = 0


@compiled
def come_up(world: World, events: Events, n: int, stamp: int, now: float, rng: Generator) -> None:
    """Let a replica take requests that was being started or repaired."""
    replica = world.replicas[n]
    if replica.state != STARTING or replica.ready_stamp != stamp:
        return
    replica.failed = 0
    set_state(world, n, UP, now)
    leave_limbo(world, events, now, rng)


@compiled
def scale(world: World, events: Events, number: int, now: float, rng: Generator) -> None:
    """Start or stop replicas, so that each has as many requests in it as it is meant to.

    Starting is at once, as far as the next tick; stopping waits until a number of ticks in a row would have fewer, and
    then takes the replica with fewest requests, which finishes them. What has failed is replaced by another, where
    there is one, and may be one too many when it comes back.
    """
    rule = world.scaling[number]
    push(world, events, now + rule.every_s, AT_SCALING, number, 0)
    requests, up, starting = waiting_for(world, world.replicas[rule.first].group), 0, 0
    for n in range(rule.first, rule.first + rule.replicas):
        replica = world.replicas[n]
        requests += replica.in_system
        up += 1 if replica.state == UP else 0
        starting += 1 if replica.state == STARTING and replica.failed == 0 else 0
    there = up + starting
    wanted = min(max(math.ceil(requests / rule.requests), rule.least), rule.replicas)
    if wanted < there:
        rule.calm += 1
        if rule.calm >= rule.patience and up > wanted:
            stop_one(world, number, now)
        return
    rule.calm = 0
    for n in range(rule.first, rule.first + rule.replicas):  # those that have not stopped yet serve at once
        if there < wanted and world.replicas[n].state == DRAINING:
            set_state(world, n, UP, now)
            leave_limbo(world, events, now, rng)
            there += 1
    for n in range(rule.first, rule.first + rule.replicas):
        replica = world.replicas[n]
        if there < wanted and replica.state == DOWN:
            set_state(world, n, STARTING, now)
            replica.ready_stamp += 1
            push(world, events, now + rule.delay_s, AT_UP, n, replica.ready_stamp)
            there += 1


@compiled
def waiting_for(world: World, g: int) -> int:
    """Return the requests of a group that no replica took."""
    count, rid = 0, world.totals[0].limbo_head
    while rid != NONE:
        count += 1 if world.requests[rid].group == g else 0
        rid = world.requests[rid].next
    return count


@compiled
def stop_one(world: World, number: int, now: float) -> None:
    """Let the replica with fewest requests finish them and stop."""
    rule = world.scaling[number]
    fewest, best = 0, NONE
    for n in range(rule.first, rule.first + rule.replicas):
        replica = world.replicas[n]
        if replica.state == UP and (best == NONE or replica.in_system <= fewest):
            fewest, best = replica.in_system, n
    if best != NONE:
        set_state(world, best, DRAINING if fewest > 0 else DOWN, now)
