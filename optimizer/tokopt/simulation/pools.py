"""Prefill pools: servers that take prompts in batches, and the move of a prompt's cache to a worker that decodes."""

from __future__ import annotations

from typing import Any

from numpy.random import Generator

from tokopt.simulation.batching import admit, enqueue
from tokopt.simulation.compiled import compiled
from tokopt.simulation.flow import Events, push
from tokopt.simulation.prefixes import acquire, found_blocks, make_room, publish, release
from tokopt.simulation.recording import bin_of
from tokopt.simulation.times import pool_step
from tokopt.simulation.world import (
    AT_DECODER,
    AT_ENGINE,
    AT_SERVER,
    EXTRA_J,
    FOR_MOVE,
    FOR_PROMPTS,
    MOVING,
    NONE,
    PROMPT_POOL,
    PROMPT_QUEUE,
    World,
)


@compiled
def queue_prompt(world: World, events: Events, rid: int, now: float) -> None:
    """Put a request into the queue of its server where it has one, else into that of the pool."""
    request = world.requests[rid]
    replica = world.replicas[request.replica]
    request.state, request.next, request.since = PROMPT_QUEUE, NONE, now
    if request.server != NONE:
        server = world.servers[request.server]
        if server.queue_tail == NONE:
            server.queue_head = rid
        else:
            world.requests[server.queue_tail].next = rid
        server.queue_tail = rid
        server.queued_tokens += request.prompt
    else:
        if replica.queue_tail == NONE:
            replica.queue_head = rid
        else:
            world.requests[replica.queue_tail].next = rid
        replica.queue_tail = rid
    replica.queued += 1
    if request.server != NONE:
        if world.servers[request.server].busy == 0:
            start_batch(world, events, request.server, now)
    elif replica.busy_servers < replica.servers:
        for n in range(replica.servers):
            s = replica.first_server + (replica.server_turn + n) % replica.servers
            if world.servers[s].busy == 0:
                replica.server_turn = (replica.server_turn + n + 1) % replica.servers
                start_batch(world, events, s, now)
                break


@compiled
def next_prompt(world: World, s: int) -> int:
    """Return the prompt that a server takes next, its own first; NONE where nobody waits."""
    server = world.servers[s]
    return server.queue_head if server.queue_head != NONE else world.replicas[server.replica].queue_head


@compiled
def take_prompt(world: World, s: int, rid: int) -> None:
    """Take the prompt that is next out of its queue."""
    server, request = world.servers[s], world.requests[rid]
    replica = world.replicas[server.replica]
    if server.queue_head == rid:
        server.queue_head = request.next
        if server.queue_head == NONE:
            server.queue_tail = NONE
        server.queued_tokens -= request.prompt
    else:
        replica.queue_head = request.next
        if replica.queue_head == NONE:
            replica.queue_tail = NONE
    replica.queued -= 1
    request.next = NONE


@compiled
def start_batch(world: World, events: Events, s: int, now: float) -> None:
    """Let an idle server prefill the next prompts: as many as fill its chunk, or one that is longer."""
    server = world.servers[s]
    replica = world.replicas[server.replica]
    kind = world.kinds[replica.kind]
    tail, prompts, tokens, seen, fetched = NONE, 0, 0, 0.0, 0
    rid = next_prompt(world, s)
    while rid != NONE:
        request = world.requests[rid]
        # What is behind memory is fetched for those only that are taken.
        if tail != NONE and tokens + request.prompt - expected(world, server.rank, rid) > kind.pool_chunk_tokens:
            break
        behind, found = known_prompt(world, server.rank, rid)
        new = request.prompt - found
        take_prompt(world, s, rid)
        request.state, request.server, request.computed = PROMPT_POOL, s, found
        if request.measured:
            world.waits[request.klass, FOR_PROMPTS] += now - request.since
        request.since = now
        totals = world.totals[0]
        totals.prompt_tokens += request.prompt
        totals.found_tokens += found
        totals.found_behind += behind
        fetched += behind
        if tail == NONE:
            server.head = rid
        else:
            world.requests[tail].next = rid
        tail = rid
        prompts += 1
        tokens += new
        seen += new * (found + 0.5 * new)
        rid = next_prompt(world, s)
    replica.busy_servers += 1
    server.busy = 1
    seconds, joules = prompt_time(world, kind, tokens, seen / max(tokens, 1), prompts, replica)
    seconds += fetched * kind.restore_s_per_token
    server.busy_s += seconds
    server.joules += joules
    world.series[bin_of(world, now), EXTRA_J] += joules
    push(world, events, now + seconds, AT_SERVER, s, 2 * server.generation)
    push(world, events, now + seconds / kind.pool_efficiency, AT_SERVER, s, 2 * server.generation + 1)


@compiled
def expected(world: World, r: int, rid: int) -> int:
    """Return the tokens of a prompt that need not be computed, as far as a look into the cache tells."""
    request = world.requests[rid]
    given = min(request.given, request.prompt - 1)
    if r == NONE or request.hashes == 0:
        return given
    return max(found_blocks(world, r, rid) * world.ranks[r].entry_tokens, given)


@compiled
def known_prompt(world: World, r: int, rid: int) -> tuple[int, int]:
    """Return the tokens of a prompt that come from behind memory, and all that need not be computed."""
    request = world.requests[rid]
    given = min(request.given, request.prompt - 1)
    if r == NONE or request.hashes == 0:
        return 0, given
    rank = world.ranks[r]
    fetched = acquire(world, r, rid) * rank.entry_tokens
    return fetched, max(request.held * rank.entry_tokens, given)


@compiled
def prompt_time(world: World, kind: Any, tokens: int, seen: float, prompts: int, replica: Any) -> tuple[float, float]:
    """Return what a batch takes, passes over chunks one after another, and its energy above idling. [s], [J]"""
    chunk = kind.pool_chunk_tokens
    if tokens <= chunk:
        return pool_step(world, kind, tokens, seen)
    # Each pass sees more of the prompt than the one before; `seen` is the mean of all.
    passes = (tokens + chunk - 1) // chunk
    before = seen - 0.5 * tokens
    seconds, joules = 0.0, 0.0
    for i in range(passes):
        part = min(chunk, tokens - i * chunk)
        step_s, step_j = pool_step(world, kind, part, before + i * chunk + 0.5 * part)
        seconds += step_s
        joules += step_j
    if prompts == 1 and kind.pool_pipelined < 1.0:
        others = (replica.busy_servers - 1) / max(replica.servers - 1, 1)
        seconds *= kind.pool_pipelined + (1.0 - kind.pool_pipelined) * min(others, 1.0)
    return seconds, joules


@compiled
def end_batch(world: World, events: Events, s: int, now: float) -> None:
    """Send the caches of a batch to workers that decode."""
    server = world.servers[s]
    kind = world.kinds[world.replicas[server.replica].kind]
    rid = server.head
    while rid != NONE:
        request = world.requests[rid]
        following = request.next
        request.computed, request.next, request.state, request.since = request.prompt, NONE, MOVING, now
        if server.rank != NONE and request.hashes > 0:
            keep_prompt(world, server.rank, rid)
        push(world, events, now + kind.move_s + kind.move_s_per_token * request.prompt, AT_DECODER, rid, request.stamp)
        rid = following
    server.head = NONE


@compiled
def keep_prompt(world: World, r: int, rid: int) -> None:
    """Leave a prompt in the cache of the worker that computed it, as far as there is room beside what is in use."""
    rank, request = world.ranks[r], world.requests[rid]
    wanted = (request.hashes - request.held) * rank.entry_tokens
    while wanted > 0 and not make_room(world, r, wanted):
        wanted -= rank.entry_tokens
    if wanted > 0:
        request.private = wanted
        rank.private += wanted
        publish(world, r, rid)
        rank.private -= request.private  # what found no row
        request.private = 0
    release(world, r, rid)


@compiled
def end_rest(world: World, events: Events, s: int, now: float) -> None:
    """Let a server go on that has made up for what the pool's efficiency costs."""
    server = world.servers[s]
    server.busy = 0
    world.replicas[server.replica].busy_servers -= 1
    if next_prompt(world, s) != NONE:
        start_batch(world, events, s, now)


@compiled
def reach_decoder(world: World, events: Events, rid: int, now: float, at_random: bool, rng: Generator) -> None:
    """Let a moved request wait at a worker that decodes: any, as plans assume, or the one with fewest requests."""
    request = world.requests[rid]
    replica = world.replicas[request.replica]
    if request.measured:
        world.waits[request.klass, FOR_MOVE] += now - request.since
    r = random_rank(world, replica, rng) if at_random else shortest_rank(world, replica)
    enqueue(world, r, rid, now)
    admit(world, events, r, now)
    rank = world.ranks[r]
    engine = world.engines[rank.engine]
    if engine.active == 0 and rank.running + rank.prefilling > 0:
        engine.active = 1
        push(world, events, now, AT_ENGINE, rank.engine, engine.generation)


@compiled
def random_rank(world: World, replica: Any, rng: Generator) -> int:
    """Return the rank of one of a replica's engines, any one, that has fewest requests."""
    e = replica.first_engine + int(rng.random() * replica.engines)
    return least_of(world, e)


@compiled
def least_of(world: World, e: int) -> int:
    """Return the rank of an engine that has fewest requests; among equals, the one after the last."""
    engine = world.engines[e]
    best, fewest = NONE, 0
    for n in range(engine.ranks):
        r = engine.first_rank + (engine.turn + n) % engine.ranks
        rank = world.ranks[r]
        requests = rank.waiting + rank.running + rank.prefilling
        if best == NONE or requests < fewest:
            best, fewest = r, requests
    engine.turn = (best - engine.first_rank + 1) % engine.ranks
    return best


@compiled
def shortest_rank(world: World, replica: Any) -> int:
    """Return the rank of a replica that has fewest requests."""
    best, fewest = NONE, 0
    for n in range(replica.engines):
        e = replica.first_engine + (replica.turn + n) % replica.engines
        engine = world.engines[e]
        waiting = 0
        for r in range(engine.first_rank, engine.first_rank + engine.ranks):
            waiting += world.ranks[r].waiting
        requests = engine.in_service + waiting
        if best == NONE or requests < fewest:
            best, fewest = e, requests
    replica.turn = (best - replica.first_engine + 1) % replica.engines
    return least_of(world, best)
