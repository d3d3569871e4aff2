"""Continuous batching: who is admitted to a batch, what a step does and how long it takes, and who has to make way."""

from __future__ import annotations

from typing import Any

from numpy.random import Generator

from tokopt.simulation.compiled import compiled
from tokopt.simulation.flow import Events, finish, push
from tokopt.simulation.prefixes import acquire, make_room, publish, release
from tokopt.simulation.recording import bin_of, note
from tokopt.simulation.times import decode_step, mixed_saving, prompt_step
from tokopt.simulation.world import (
    AT_ENGINE,
    BLOCK_TOKENS,
    BUSY_S,
    DECODE,
    EXTRA_J,
    FOR_CACHE,
    FOR_PREFILL,
    FOR_SLOT,
    FOR_STEP,
    ITL,
    NONE,
    PREEMPTED,
    PREFILL,
    WAITING,
    World,
)

SOON = 1e-9  # of a second: what ends that much earlier or later ends now


@compiled
def blocks(tokens: int) -> int:
    """Return tokens filled up to whole cache blocks."""
    return (tokens + BLOCK_TOKENS - 1) // BLOCK_TOKENS * BLOCK_TOKENS


@compiled
def needed(world: World, kind: Any, rid: int) -> int:
    """Return the cache that a request has to have to be admitted: what it computes, and what is set aside. [tokens]"""
    request = world.requests[rid]
    left = request.output - request.emitted
    ahead = max(int(kind.reserved_share * left), 1 + kind.depth)
    return blocks(request.prompt + request.emitted + min(ahead, left + kind.depth))


@compiled
def enqueue(world: World, r: int, rid: int, now: float) -> None:
    """Put a request at the end of a rank's queue."""
    rank, request = world.ranks[r], world.requests[rid]
    request.rank, request.next, request.state, request.since = r, NONE, WAITING, now
    request.ready = 0.0
    if rank.tail == NONE:
        rank.head = rid
        rank.blocked_by = FOR_STEP  # until it is looked at
    else:
        world.requests[rank.tail].next = rid
    rank.tail = rid
    rank.waiting += 1
    rank.waiting_tokens += request.prompt


@compiled
def admit(world: World, events: Events, r: int, now: float) -> None:
    """Admit those who wait at a rank, in their order, as long as there are slots and cache for them."""
    rank = world.ranks[r]
    engine = world.engines[rank.engine]
    kind = world.kinds[engine.kind]
    while rank.head != NONE:
        if engine.in_service >= kind.slots or rank.running + rank.prefilling >= kind.rank_slots:
            rank.blocked_by = FOR_SLOT
            return
        rid = rank.head
        request = world.requests[rid]
        fetched = acquire(world, r, rid) * rank.entry_tokens
        if fetched > 0:  # one transfer after another over the rank's link, and whether there is room or not
            rank.link_free = max(rank.link_free, now) + fetched * kind.restore_s_per_token
            request.ready = rank.link_free
            world.totals[0].found_behind += fetched if request.emitted == 0 else 0
        found = request.held * rank.entry_tokens
        tokens = needed(world, kind, rid) - found
        if not make_room(world, r, tokens):
            release(world, r, rid)
            rank.blocked_by = FOR_CACHE
            return
        rank.head = request.next
        if rank.head == NONE:
            rank.tail = NONE
        rank.waiting -= 1
        rank.waiting_tokens -= request.prompt
        rank.private += tokens
        request.private, request.next = tokens, NONE
        engine.in_service += 1
        if request.measured:
            world.waits[request.klass, rank.blocked_by] += now - request.since
        request.since = now
        if kind.disaggregated and request.emitted == 0:
            join(world, events, r, rid, now)
        else:
            start_prompt(world, r, rid, found)


@compiled
def start_prompt(world: World, r: int, rid: int, found: int) -> None:
    """Begin with the prompt of an admitted request, behind those that were admitted before it."""
    rank, request, totals = world.ranks[r], world.requests[rid], world.totals[0]
    request.state = PREFILL
    request.target = request.prompt + request.emitted
    request.computed = max(found, min(request.given, request.prompt - 1))
    request.chunk, request.found = 0, request.computed
    if request.emitted == 0:
        totals.prompt_tokens += request.prompt
        totals.found_tokens += request.computed
    if rank.prefill_tail == NONE:
        rank.prefill_head = rid
    else:
        world.requests[rank.prefill_tail].next = rid
    rank.prefill_tail = rid
    rank.prefilling += 1


@compiled
def join(world: World, events: Events, r: int, rid: int, at: float) -> None:
    """Let a request decode that has its first token, unless that was the only one."""
    rank, request = world.ranks[r], world.requests[rid]
    if request.emitted == 0:
        request.first = at
        yield_tokens(world, rid, 1)
    request.last = at
    if request.emitted >= request.output:
        leave(world, events, r, rid, at)
        return
    request.state = DECODE
    world.running[r, rank.running] = rid
    rank.running += 1
    rank.decoding_tokens += request.prompt + request.emitted
    world.engines[rank.engine].decoding += 1


@compiled
def yield_tokens(world: World, rid: int, tokens: int) -> None:
    """Count tokens of an answer, each of which takes cache from then on."""
    request = world.requests[rid]
    request.emitted += tokens
    world.replicas[request.replica].tokens += tokens
    world.totals[0].emitted += tokens


@compiled
def leave(world: World, events: Events, r: int, rid: int, at: float) -> None:
    """End the service of a request that has all its tokens."""
    rank = world.ranks[r]
    free_cache(world, r, rid)
    world.engines[rank.engine].in_service -= 1
    finish(world, events, rid, at)


@compiled
def free_cache(world: World, r: int, rid: int) -> None:
    """Give back the cache of a request; what others may ask for stays cached."""
    rank, request = world.ranks[r], world.requests[rid]
    release(world, r, rid)
    rank.private -= request.private
    request.private = 0


@compiled
def accepted(world: World, kind: Any, rng: Generator) -> int:
    """Return the tokens that a step yields: one, and drafts up to the first that is not accepted."""
    tokens = 1
    for position in range(kind.depth):
        if rng.random() >= world.tables[kind.chances_at + position]:
            break
        tokens += 1
    return tokens


@compiled
def end_step(world: World, events: Events, e: int, now: float, rng: Generator) -> None:
    """Hand out the tokens of a step that ends, and what the chunks of prompts in it lead to."""
    engine = world.engines[e]
    kind = world.kinds[engine.kind]
    made, common = 0, 0
    for r in range(engine.first_rank, engine.first_rank + engine.ranks):
        rank = world.ranks[r]
        if rank.running > 0:
            tokens, alike = hand_out(world, events, kind, r, engine.started, now, rng)
            made += tokens
            common += alike
        if rank.chunk_tokens > 0 and rank.chunk_end <= now + SOON:
            end_chunk(world, events, r, now if rank.chunk_end > now - SOON else rank.chunk_end)
    world.totals[0].emitted += made
    world.replicas[engine.replica].tokens += made
    if common > 0:
        note(world, world.groups[world.replicas[engine.replica].group].klass, ITL, now - engine.started, common)


@compiled
def hand_out(
    world: World, events: Events, kind: Any, r: int, started: float, now: float, rng: Generator
) -> tuple[int, int]:
    """Give the sequences of a rank their tokens of a step, and cache for the next, in their order, until one has none.

    Returns how many tokens that are, and how many sequences that are measured had their last ones as it started.
    """
    rank, requests, running = world.ranks[r], world.requests, world.running
    depth, block = kind.depth, rank.entry_tokens
    kept, made, common = 0, 0, 0
    for i in range(rank.running):
        rid = running[r, i]
        if i < rank.stepping:
            request = requests[rid]
            tokens = min(accepted(world, kind, rng) if depth > 0 else 1, request.output - request.emitted)
            request.emitted += tokens
            made += tokens
            if request.measured == 0:
                pass
            elif request.last == started:
                common += 1
            else:
                note(world, request.klass, ITL, now - request.last, 1)
            request.last = now
            if request.emitted >= request.output:
                world.engines[rank.engine].decoding -= 1
                rank.decoding_tokens -= request.prompt + request.emitted
                leave(world, events, r, rid, now)
                continue
            lacks = request.prompt + request.emitted + depth > request.held * block + request.private
            if lacks and (rank.short == 1 or not grow(world, r, rid, depth)):
                rank.short = 1
        running[r, kept] = rid
        kept += 1
    rank.running, rank.stepping = kept, 0
    rank.decoding_tokens += made
    return made, common


@compiled
def end_chunk(world: World, events: Events, r: int, at: float) -> None:
    """Count a chunk of prompts as computed; whoever has all of its prompt gets a token and goes on to decode."""
    rank = world.ranks[r]
    rank.chunk_tokens = 0
    before, rid = NONE, rank.prefill_head
    while rid != NONE:
        request = world.requests[rid]
        following = request.next
        request.computed += request.chunk
        request.chunk = 0
        if request.computed < request.target:
            before, rid = rid, following
            continue
        if before == NONE:
            rank.prefill_head = following
        else:
            world.requests[before].next = following
        if rank.prefill_tail == rid:
            rank.prefill_tail = before
        rank.prefilling -= 1
        request.next = NONE
        publish(world, r, rid)
        if request.emitted > 0:  # it was computed a second time, which also yields its next token
            yield_tokens(world, rid, 1)
            if request.measured:
                note(world, request.klass, ITL, at - request.last, 1)
        elif request.measured:
            kind = world.kinds[world.engines[rank.engine].kind]
            new = request.target - request.found
            alone_s, _ = prompt_step(world, kind, new, request.found + 0.5 * new)
            world.waits[request.klass, FOR_PREFILL] += max(at - request.since - alone_s, 0.0)
        join(world, events, r, rid, at)
        rid = following


@compiled
def grow(world: World, r: int, rid: int, depth: int) -> bool:
    """Give a request cache for what its next step may write; False where there is none."""
    rank, request = world.ranks[r], world.requests[rid]
    more = blocks(request.prompt + request.emitted + depth) - request.held * rank.entry_tokens - request.private
    if more <= 0:
        return True
    if not make_room(world, r, more):
        return False
    rank.private += more
    request.private += more
    return True


@compiled
def make_up(world: World, r: int, depth: int, now: float) -> None:
    """Give all sequences of a rank cache for their next step, even if others have to make way."""
    rank, i = world.ranks[r], 0
    rank.short = 0
    while i < rank.running:
        rid = world.running[r, i]
        while not grow(world, r, rid, depth):
            if make_way(world, r, now) == rid:
                break
        i += 1


@compiled
def make_way(world: World, r: int, now: float) -> int:
    """Send whoever was admitted last back to the head of the queue, to be computed again; return who that was."""
    rank = world.ranks[r]
    engine = world.engines[rank.engine]
    if rank.prefilling > 0 and rank.chunk_tokens == 0:
        rid, before = rank.prefill_head, NONE
        while world.requests[rid].next != NONE:
            before, rid = rid, world.requests[rid].next
        rank.prefill_tail = before
        if before == NONE:
            rank.prefill_head = NONE
        else:
            world.requests[before].next = NONE
        rank.prefilling -= 1
    else:
        rank.running -= 1
        rid = world.running[r, rank.running]
        engine.decoding -= 1
        rank.decoding_tokens -= world.requests[rid].prompt + world.requests[rid].emitted
    world.totals[0].preempted += 1
    world.series[bin_of(world, now), PREEMPTED] += 1.0
    request = world.requests[rid]
    free_cache(world, r, rid)
    engine.in_service -= 1
    request.state, request.since, request.computed, request.ready = WAITING, now, 0, 0.0
    request.next = rank.head
    rank.head = rid
    if rank.tail == NONE:
        rank.tail = rid
    rank.waiting += 1
    rank.waiting_tokens += request.prompt
    rank.blocked_by = FOR_CACHE
    return rid


@compiled
def take_chunk(world: World, kind: Any, r: int, now: float) -> tuple[int, float, float]:
    """Choose the prompt tokens of a rank's next step: how many, what they see on average, when there are any at all."""
    rank = world.ranks[r]
    left, tokens, seen, later = kind.chunk_tokens, 0, 0.0, -1.0
    rid = rank.prefill_head
    while rid != NONE and left > 0:
        request = world.requests[rid]
        if request.ready > now + SOON:
            later = request.ready if later < 0.0 else min(later, request.ready)
        else:
            part = min(request.target - request.computed, left)
            request.chunk = part
            left -= part
            tokens += part
            seen += part * (request.computed + 0.5 * part)
        rid = request.next
    return tokens, seen / max(tokens, 1), later


@compiled
def compose(world: World, events: Events, e: int, now: float) -> None:
    """Start the next step of an engine, or let it rest."""
    engine = world.engines[e]
    kind = world.kinds[engine.kind]
    last = engine.first_rank + engine.ranks
    for r in range(engine.first_rank, last):
        if world.ranks[r].short == 1:
            make_up(world, r, kind.depth, now)
        admit(world, events, r, now)
    tokens = 0.0
    for r in range(engine.first_rank, last):
        rank = world.ranks[r]
        rank.stepping = rank.running
        tokens += rank.decoding_tokens
    sequences = engine.decoding
    context = tokens / max(sequences, 1) + 0.5 * kind.accepted - 1.0
    base_s, joules = decode_step(world, kind, sequences, context)
    total, longest, until = 0.0, 0.0, -1.0
    for r in range(engine.first_rank, last):
        rank = world.ranks[r]
        if rank.chunk_tokens == 0:
            chunk, seen, later = take_chunk(world, kind, r, now)
            if chunk > 0:
                own_s, own_j = prompt_step(world, kind, chunk, seen)
                saving = mixed_saving(world, kind, sequences, chunk)
                if kind.pipelined < 1.0:
                    own_s *= lone_share(world, e, kind)
                added = max(own_s - kind.mixing * saving, 0.0)
                rank.chunk_tokens = chunk
                rank.chunk_end = now + own_s + kind.mixing * (base_s - saving)
                total += added
                longest = max(longest, added)
                joules += own_j / engine.ranks
            elif later >= 0.0:
                until = later if until < 0.0 else min(until, later)
        if rank.chunk_tokens > 0 and (until < 0.0 or rank.chunk_end < until):
            until = rank.chunk_end
    share = total / engine.ranks
    engine.prefill_s += share + kind.rank_imbalance * (longest - share)
    start(world, events, e, now, base_s + share + kind.rank_imbalance * (longest - share), until, joules)


@compiled
def start(world: World, events: Events, e: int, now: float, step_s: float, until: float, joules: float) -> None:
    """Let a step run that was composed. Where nothing decodes, the engine wakes up when a chunk ends (`until`)."""
    engine = world.engines[e]
    engine.started = now
    if step_s <= 0.0 and until < 0.0:
        engine.active = 0
        return
    end = now + step_s
    if engine.decoding == 0 and until >= 0.0:
        end = max(until, now)
    engine.active = 1
    engine.busy_s += end - now
    engine.steps += 1
    engine.joules += joules
    row = world.series[bin_of(world, now)]
    row[BUSY_S] += end - now
    row[EXTRA_J] += joules
    push(world, events, end, AT_ENGINE, e, engine.generation)


@compiled
def lone_share(world: World, e: int, kind: Any) -> float:
    """Return what a chunk takes of its time, as its prompt's chunks are on several pipeline stages at a time.

    All the less is gained the more of the worker's other engines have prompts of their own.
    """
    engine = world.engines[e]
    replica = world.replicas[engine.replica]
    others = 0
    for n in range(replica.first_engine, replica.first_engine + replica.engines):
        if n != e:
            for r in range(world.engines[n].first_rank, world.engines[n].first_rank + world.engines[n].ranks):
                if world.ranks[r].prefilling > 0:
                    others += 1
                    break
    most = max(replica.engines - 1, 1)
    return kind.pipelined + (1.0 - kind.pipelined) * min(others / most, 1.0)
