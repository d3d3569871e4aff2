"""What must be true of every run, whatever was simulated: nothing is lost, doubled or left behind."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokopt.simulation import world as w

CLOSE = 1e-6  # relative, of sums over time

Ints = NDArray[np.int64]


def broken(world: w.World, events: Any) -> list[str]:
    """Return what does not add up in a simulation that has stopped, one line each; empty = all does.

    Args:
        world: Its tables.
        events: Rows of what is to come.
    """
    there = np.flatnonzero(world.requests.state != w.FREE)
    faults = _counts(world, there) + _places(world, there) + _queues(world) + _rests(world, there)
    return faults + _caches(world, there) + _entries(world, there) + _events(world, events)


def _counts(world: w.World, rows: Ints) -> list[str]:
    """Count requests and tokens: as many came as went or are there."""
    totals, there = world.totals[0], world.requests[rows]
    faults = []
    if totals.arrived != totals.finished + totals.rejected + there.size:
        faults.append(
            f"{totals.arrived} requests came, but {totals.finished} were answered, {totals.rejected} rejected and "
            f"{there.size} are there"
        )
    if totals.in_system != there.size:
        faults.append(f"{totals.in_system} requests are counted in the system, and {there.size} are there")
    if np.unique(there.uid).size != there.size:
        faults.append("a request is there twice")
    emitted = int(totals.delivered + totals.lost_tokens + there.emitted.sum())
    if totals.emitted != emitted:
        faults.append(f"{totals.emitted} tokens were made, and {emitted} are accounted for")
    area = totals.area + totals.in_system * (totals.now - totals.area_at)
    sojourn = totals.sojourn_s + float((totals.now - there.arrival).sum())
    if abs(area - sojourn) > CLOSE * max(area, sojourn, 1e-9):  # Little's law, as an identity
        faults.append(f"requests over time come to {area:.9g} s, their stays to {sojourn:.9g} s")
    seen = world.histogram.sum(axis=2)
    open_ = np.bincount(there.klass, weights=there.measured, minlength=world.per_class.size).astype(np.int64)
    for n, row in enumerate(world.per_class):
        if row.arrived != row.finished + row.rejected + open_[n]:
            faults.append(f"class {n}: {row.arrived} measured requests came, {row.finished} were answered")
        if seen[n, w.TTFT] != row.finished or seen[n, w.E2E] != row.finished:
            faults.append(f"class {n}: {row.finished} were answered, latencies are those of {seen[n, w.TTFT]}")
    return faults


def _places(world: w.World, rows: Ints) -> list[str]:
    """Compare what queues, batches and replicas count with the requests that say they are there."""
    there, ranks, engines, replicas = world.requests[rows], world.ranks, world.engines, world.replicas

    def held(what: str, size: int, at: Any, weights: Any, counted: Any) -> list[str]:
        found = np.bincount(at, weights=weights, minlength=size).astype(np.int64)
        wrong = np.flatnonzero(found != counted)
        return [f"{what} {n}: {counted[n]} are counted, and {found[n]} are there" for n in wrong]

    def ranked(what: str, state: int, counted: Any, tokens: bool = False) -> list[str]:
        each = there[there.state == state]
        return held(what, ranks.size, each["rank"], each.prompt if tokens else None, counted)

    faults = ranked("requests waiting at rank", w.WAITING, ranks.waiting)
    faults += ranked("tokens waiting at rank", w.WAITING, ranks.waiting_tokens, tokens=True)
    faults += ranked("requests prefilling at rank", w.PREFILL, ranks.prefilling)
    faults += ranked("requests decoding at rank", w.DECODE, ranks.running)
    decoded = there[there.state == w.DECODE]
    faults += held(
        "tokens decoding at rank", ranks.size, decoded["rank"], decoded.prompt + decoded.emitted, ranks.decoding_tokens
    )
    columns = np.arange(world.running.shape[1]) < ranks.running[:, None]
    decoding = rows[there.state == w.DECODE]
    if not np.array_equal(np.sort(world.running[columns]), decoding):
        faults.append("batches are not those that decode")
    elif np.any(world.requests["rank"][world.running[columns]] != np.nonzero(columns)[0]):
        faults.append("a request decodes in the batch of another rank")
    own = ranks[ranks.engine >= 0]
    faults += held("decoding in engine", engines.size, own.engine, own.running, engines.decoding)
    faults += held("in service of engine", engines.size, own.engine, own.running + own.prefilling, engines.in_service)
    kinds = world.kinds[engines.kind]
    if np.any(engines.in_service > kinds.slots):
        faults.append("an engine serves more requests than it has slots")
    if np.any(own.running + own.prefilling > kinds.rank_slots[own.engine]):
        faults.append("a rank serves more requests than it has slots")
    placed = there[there.state != w.LIMBO]
    faults += held("requests of replica", replicas.size, placed.replica, None, replicas.in_system)
    faults += held(
        "tokens of replica", replicas.size, placed.replica, placed.prompt + placed.emitted, replicas["tokens"]
    )
    queued = there[there.state == w.PROMPT_QUEUE]
    faults += held("queued at replica", replicas.size, queued.replica, None, replicas.queued)
    busy = world.servers.replica[world.servers.busy == 1]
    faults += held("busy servers of replica", replicas.size, busy, None, replicas.busy_servers)
    direct = queued[queued.server != w.NONE]
    faults += held(
        "tokens queued at server", world.servers.size, direct.server, direct.prompt, world.servers.queued_tokens
    )
    served = there[np.isin(there.state, (w.WAITING, w.PREFILL, w.DECODE))]
    if np.any(engines.replica[ranks.engine[served["rank"]]] != served.replica):
        faults.append("a request is served by a replica that it was not sent to")
    if int((there.state == w.LIMBO).sum()) != world.totals[0].limbo:
        faults.append(f"{world.totals[0].limbo} requests are counted without a replica")
    return faults


def _queues(world: w.World) -> list[str]:
    """Follow linked lists: all that belong to one are in it, once, and nothing else."""
    requests, totals, ranks, servers = world.requests, world.totals[0], world.ranks, world.servers
    nobody = np.full(requests.size, -1)
    queue = np.where(requests.server != w.NONE, requests.server, servers.size + requests.replica)
    limbo, free = np.array([totals.limbo_head]), np.array([totals.free])
    lists = (
        ("waiting", w.WAITING, ranks.head, ranks.tail, requests["rank"]),
        ("prefills", w.PREFILL, ranks.prefill_head, ranks.prefill_tail, requests["rank"]),
        (
            "prompts",
            w.PROMPT_QUEUE,
            np.concatenate([servers.queue_head, world.replicas.queue_head]),
            np.concatenate([servers.queue_tail, world.replicas.queue_tail]),
            queue,
        ),
        ("batches", w.PROMPT_POOL, servers["head"], None, requests.server),
        ("limbo", w.LIMBO, limbo, np.array([totals.limbo_tail]), np.zeros(requests.size, dtype=np.int64)),
        ("free rows", w.FREE, free, None, nobody + 1),
    )
    faults = []
    for name, state, heads, tails, owner in lists:
        rows = np.flatnonzero(requests.state == state)
        faults += _chained(name, rows, requests.next, heads, tails, owner)
    if int((requests.state == w.FREE).sum()) != totals.rows_left:
        faults.append(f"{totals.rows_left} rows of requests are counted as free")
    return faults


def _chained(name: str, rows: Ints, following: Ints, heads: Ints, tails: Ints | None, owner: Ints) -> list[str]:
    """Return what is wrong with lists of rows, one for each owner, from its head over what follows to its tail."""
    begin = np.flatnonzero(heads != w.NONE)
    after = following[rows]
    inner = after != w.NONE
    reached = np.concatenate([heads[begin], after[inner]])
    if not np.array_equal(np.sort(reached), rows):
        return [f"{name}: {rows.size} belong to lists, and {reached.size} are in them"]
    if np.any(owner[heads[begin]] != begin) or np.any(owner[after[inner]] != owner[rows[inner]]):
        return [f"{name}: something is in the list of another"]
    ends = np.full(heads.size, w.NONE)
    ends[owner[rows[~inner]]] = rows[~inner]
    if (~inner).sum() != begin.size or (tails is not None and not np.array_equal(ends, tails)):
        return [f"{name}: a list does not end at its tail"]
    ahead = np.where(np.isin(np.arange(following.size), rows), following, w.NONE)
    for _ in range(int(rows.size).bit_length()):  # each time twice as far: nothing is left of what is no circle
        ahead = np.where(ahead != w.NONE, ahead[ahead], w.NONE)
    return [f"{name}: a list goes round in a circle"] if np.any(ahead != w.NONE) else []


def _rests(world: w.World, rows: Ints) -> list[str]:
    """Find what rests with something to do, and requests where nothing is done."""
    ranks, engines, replicas = world.ranks, world.engines, world.replicas
    faults = []
    at_work = ranks.waiting + ranks.running + ranks.prefilling
    asleep = (ranks.engine >= 0) & (at_work > 0) & (engines.active[ranks.engine] == 0)
    faults += [f"rank {r}: {at_work[r]} requests are there, and its engine rests" for r in np.flatnonzero(asleep)]
    idle = (replicas.queued > 0) & (replicas.busy_servers == 0)
    faults += [f"replica {n}: {replicas.queued[n]} prompts wait for servers that rest" for n in np.flatnonzero(idle)]
    off = (replicas.in_system > 0) & ((replicas.state == w.DOWN) | (replicas.state == w.STARTING))
    faults += [f"replica {n} is down, and has {replicas.in_system[n]} requests" for n in np.flatnonzero(off)]
    there = world.requests[rows]
    lost = there.group[there.state == w.LIMBO]
    up = np.bincount(replicas.group[replicas.state == w.UP], minlength=world.groups.size)
    if np.any(up[lost] > 0):
        faults.append("requests wait for a replica where one is up")
    return faults


def _caches(world: w.World, rows: Ints) -> list[str]:
    """Compare what requests hold of caches with what is counted, and with the room."""
    faults = []
    ranks, there = world.ranks, world.requests[rows]
    served = there[(there.state == w.PREFILL) | (there.state == w.DECODE)]
    private = np.bincount(served["rank"], weights=served.private, minlength=ranks.size).astype(np.int64)
    for r in np.flatnonzero(private != ranks.private):
        faults.append(f"rank {r}: requests hold {private[r]} tokens of cache, {ranks.private[r]} are counted")
    if served.private.sum() != there.private.sum():
        faults.append("a request has cache that is not in service")
    used = ranks.private + ranks.entries * ranks.entry_tokens
    for r in np.flatnonzero(used > ranks.capacity):
        faults.append(f"rank {r}: {used[r]} tokens are cached where there is room for {ranks.capacity[r]}")
    for r in np.flatnonzero((ranks.private < 0) | (ranks.entries < 0) | (ranks.idle_entries < 0)):
        faults.append(f"rank {r}: less than nothing is cached")
    decoding = there[there.state == w.DECODE]
    room = decoding.private + decoding.held * ranks.entry_tokens[decoding["rank"]]
    if np.any(room < decoding.prompt + decoding.emitted):
        faults.append("a request decodes with less cache than it has tokens")
    return faults


def _entries(world: w.World, rows: Ints) -> list[str]:
    """Compare cached blocks with who uses them, with what is counted, and with the lists that they belong to."""
    entries, ranks, totals = world.entries, world.ranks, world.totals[0]
    if not entries.size:
        return []
    live = np.flatnonzero(entries.users >= 0)
    faults = []
    if live.size != entries.size - totals.entries_left or live.size != len(world.index):
        faults.append(f"{live.size} blocks are kept, {len(world.index)} can be found")
    if np.unique(entries.key[live]).size != live.size:
        faults.append("a block is cached twice")
    holders = rows[world.requests.held[rows] > 0]
    inside = np.arange(world.held.shape[1]) < world.requests.held[holders][:, None]
    users = np.bincount(world.held[holders][inside], minlength=entries.size)
    if np.any(users[live] != entries.users[live]) or users.sum() != users[live].sum():
        faults.append("a block is used by more or by fewer than hold it")
    behind, idle = entries.tier[live] == 1, entries.users[live] == 0
    if np.any(behind & ~idle):
        faults.append("a block is in use that is not in memory")
    lists = (
        ("idle blocks", live[~behind & idle], ranks.idle_entries, ranks.newest, ranks.oldest),
        ("blocks behind", live[behind], ranks.host_entries, ranks.host_newest, ranks.host_oldest),
    )
    for name, own, counted, newest, oldest in lists:
        faults += _chained(name, own, entries.older, newest, oldest, entries["rank"])
        faults += _chained(name, own, entries.newer, oldest, newest, entries["rank"])
        if np.any(np.bincount(entries["rank"][own], minlength=ranks.size) != counted):
            faults.append(f"{name} are not as many as are counted")
    if np.any(np.bincount(entries["rank"][live[~behind]], minlength=ranks.size) != ranks.entries):
        faults.append("blocks in memory are not as many as are counted")
    if np.any(ranks.host_entries > np.maximum(ranks.host_capacity, 0)):
        faults.append("more blocks are behind memory than there is room for")
    return faults


def _events(world: w.World, events: Any) -> list[str]:
    """Find what goes on without an event that ends it, or with more than one."""
    requests, servers, totals = world.requests, world.servers, world.totals[0]
    faults = []
    if events.size and events.time.min() < totals.now:
        faults.append("something is still to happen that should have happened")

    def expected(what: str, code: int, size: int, stamps: Any, wanted: Any) -> list[str]:
        own = events[events.code == code]
        own = own[own.stamp == stamps[own.who]] if size else own
        found = np.bincount(own.who, minlength=size)
        return [
            f"{what} {n}: {found[n]} events are to come, not {int(wanted[n])}" for n in np.flatnonzero(found != wanted)
        ]

    faults += expected("engine", w.AT_ENGINE, world.engines.size, world.engines.generation, world.engines.active)
    faults += expected("front end of", w.AT_FRONT, requests.size, requests.stamp, requests.state == w.FRONT)
    faults += expected("move of", w.AT_DECODER, requests.size, requests.stamp, requests.state == w.MOVING)
    full = servers["head"] != w.NONE
    faults += expected("batch of server", w.AT_SERVER, servers.size, 2 * servers.generation, full)
    faults += expected("server", w.AT_SERVER, servers.size, 2 * servers.generation + 1, servers.busy)
    starting = world.replicas.state == w.STARTING
    faults += expected("replica", w.AT_UP, world.replicas.size, world.replicas.ready_stamp, starting)
    if totals.closed_loop and not totals.ended:
        flying = int((events.code == w.AT_NEXT).sum()) + totals.in_system
        if flying != totals.closed_loop:
            faults.append(f"{flying} requests are in flight, not {totals.closed_loop}")
    return faults
