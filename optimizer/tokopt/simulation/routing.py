"""Where a request goes: which group of replicas, which replica, and which rank or server where a cache decides."""

from __future__ import annotations

from numpy.random import Generator

from tokopt.simulation.compiled import compiled
from tokopt.simulation.flow import Events, into_limbo, push
from tokopt.simulation.prefixes import found_blocks
from tokopt.simulation.world import (
    AT_FRONT,
    CACHE_AWARE,
    FOR_REPLICA,
    FRONT,
    LEAST_LOADED,
    NONE,
    RANDOM,
    ROUND_ROBIN,
    UP,
    World,
)

TRIES = 8  # of a random choice, before those that are up are counted


@compiled
def choose_group(world: World, klass: int, rng: Generator) -> int:
    """Return a group of replicas for a request of a class, in the proportions of the plan."""
    u = rng.random()
    groups = world.shares.shape[1]
    for g in range(groups):
        if u < world.shares[klass, g]:
            return g
    return groups - 1  # the last share is 1


@compiled
def route(world: World, events: Events, rid: int, now: float, rng: Generator) -> None:
    """Send a request to a replica of its group, or keep it where none is up."""
    request = world.requests[rid]
    group = world.groups[request.group]
    request.rank, request.server = NONE, NONE
    if group.router == RANDOM:
        n = random_replica(world, request.group, rng)
    elif group.router == ROUND_ROBIN:
        n = next_replica(world, request.group)
    elif group.router == CACHE_AWARE and request.hashes > 0:
        n = best_cache(world, rid)
    else:
        n = least_replica(world, request.group, group.router == LEAST_LOADED)
    if n == NONE:
        into_limbo(world, rid, now)
        return
    totals, replica = world.totals[0], world.replicas[n]
    totals.stamp += 1
    request.stamp = totals.stamp
    request.replica, request.state = n, FRONT
    replica.in_system += 1
    replica.tokens += request.prompt + request.emitted
    push(world, events, now + world.kinds[replica.kind].front_s, AT_FRONT, rid, request.stamp)


@compiled
def random_replica(world: World, g: int, rng: Generator) -> int:
    """Return any replica that is up, by its planned rate where they differ."""
    group = world.groups[g]
    for _ in range(TRIES):
        n = group.first + int(rng.random() * group.replicas)
        if world.replicas[n].state == UP and rng.random() < world.replicas[n].weight:
            return n
    total = 0.0
    for n in range(group.first, group.first + group.replicas):
        if world.replicas[n].state == UP:
            total += world.replicas[n].weight
    left, found = rng.random() * total, NONE
    for n in range(group.first, group.first + group.replicas):
        if world.replicas[n].state == UP:
            found = n
            left -= world.replicas[n].weight
            if left <= 0.0:
                break
    return found


@compiled
def next_replica(world: World, g: int) -> int:
    """Return the next replica in turn that is up."""
    group = world.groups[g]
    for _ in range(group.replicas):
        n = group.first + group.turn
        group.turn = (group.turn + 1) % group.replicas
        if world.replicas[n].state == UP:
            return n
    return NONE


@compiled
def least_replica(world: World, g: int, by_tokens: bool) -> int:
    """Return the replica with least, for what it can do: fewest requests, or fewest tokens of prompts and caches."""
    group = world.groups[g]
    best, least = NONE, 0.0
    for i in range(group.replicas):
        n = group.first + (group.turn + i) % group.replicas
        replica = world.replicas[n]
        if replica.state != UP:
            continue
        load = (replica.tokens if by_tokens else replica.in_system) / replica.weight
        if best == NONE or load < least:
            best, least = n, load
    if best != NONE:
        group.turn = (best - group.first + 1) % group.replicas
    return best


@compiled
def best_cache(world: World, rid: int) -> int:
    """Return the replica whose rank or server has least to do before the request's first token; chooses that, too.

    What counts are tokens: of its own prompt those that are not cached there, of the queue those of the prompts in it,
    and the requests in service for a share of a chunk each, since every step is theirs as well.
    """
    request = world.requests[rid]
    group = world.groups[request.group]
    best, least = NONE, 0.0
    for i in range(group.replicas):
        n = group.first + (group.turn + i) % group.replicas
        replica = world.replicas[n]
        if replica.state != UP:
            continue
        kind = world.kinds[replica.kind]
        if kind.disaggregated:
            for s in range(replica.first_server, replica.first_server + replica.servers):
                server = world.servers[s]
                found = 0
                if server.rank != NONE:
                    found = found_blocks(world, server.rank, rid) * world.ranks[server.rank].entry_tokens
                todo = request.prompt - found + server.queued_tokens + server.busy * kind.pool_chunk_tokens * 0.5
                if best == NONE or todo < least:
                    best, least = n, todo
                    request.server = s
            continue
        for e in range(replica.first_engine, replica.first_engine + replica.engines):
            engine = world.engines[e]
            for r in range(engine.first_rank, engine.first_rank + engine.ranks):
                rank = world.ranks[r]
                found = found_blocks(world, r, rid) * rank.entry_tokens
                served = (rank.running + rank.prefilling + rank.waiting) / kind.rank_slots
                todo = request.prompt - found + rank.waiting_tokens + served * kind.chunk_tokens
                if best == NONE or todo < least:
                    best, least = n, todo
                    request.rank = r
    if best != NONE:
        group.turn = (best - group.first + 1) % group.replicas
    return best


@compiled
def leave_limbo(world: World, events: Events, now: float, rng: Generator) -> None:
    """Route all that waited for a replica; who finds none waits on, in the same order."""
    totals = world.totals[0]
    rid = totals.limbo_head
    totals.limbo_head = totals.limbo_tail = NONE
    totals.limbo = 0
    while rid != NONE:
        request = world.requests[rid]
        following, since = request.next, request.since
        request.next = NONE
        route(world, events, rid, now, rng)
        if request.replica == NONE:
            request.since = since
        elif request.measured:
            world.waits[request.klass, FOR_REPLICA] += now - since
        rid = following
