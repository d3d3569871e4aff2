"""From set-ups, classes and rules to the tables that the inner loop works on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokopt.simulation import world as w
from tokopt.simulation.compiled import new_index
from tokopt.simulation.recording import BINS
from tokopt.simulation.replicas import Kind

FIRST_REQUESTS = 1024  # rows of the table of requests to begin with; it grows as it is needed
FIRST_ENTRIES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassLimits:
    """What a class of requests is promised; infinite where nothing is. [s]"""

    ttft_s: float = math.inf
    tpot_s: float = math.inf
    e2e_s: float = math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingRule:
    """How many of an item's replicas run."""

    item: int
    least: int
    requests: float  # that a replica is meant to have in it
    every_s: float
    delay_s: float
    patience: int  # ticks in a row that would do with fewer, before one is stopped


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """Replicas of one kind that serve one class."""

    kind: Kind
    number: int = 0
    klass: int = 0
    replicas: int = 1
    requests_per_s: float = 1.0  # that one replica is meant for


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Everything about a simulation that does not change from one replication to the next."""

    items: tuple[Item, ...]
    limits: tuple[ClassLimits, ...]
    router: int
    together: bool = False  # replicas of a class are one group; else each item is one, with the share of the plan
    scaling: tuple[ScalingRule, ...] = ()
    bins: int = 240
    bin_s: float = 1.0
    most_blocks: int = 0  # hashes of a request


def _empty(kind: np.dtype[np.void], rows: int) -> Any:
    return np.zeros(rows, dtype=kind).view(np.recarray)


def built(fleet: Fleet) -> w.World:
    """Return the tables of a fleet that has nothing to do yet."""
    tables, kinds = _tables([item.kind for item in fleet.items])
    groups, members, shares = _groups(fleet)
    replicas, servers, engines, ranks = _machines(fleet, members)
    widest = max(int(item.kind.fields["rank_slots"]) for item in fleet.items)
    rows = len(fleet.limits)
    classes = _empty(w.CLASS, rows)
    for n, limits in enumerate(fleet.limits):
        classes[n] = (limits.ttft_s, limits.tpot_s, limits.e2e_s)
    entries = FIRST_ENTRIES if fleet.most_blocks else 0
    made = w.World(
        tables=tables,
        kinds=kinds,
        classes=classes,
        groups=groups,
        replicas=replicas,
        servers=servers,
        engines=engines,
        ranks=ranks,
        running=np.zeros((ranks.size, widest), dtype=np.int64),
        requests=_empty(w.REQUEST, 0),
        hashes=np.zeros((0, fleet.most_blocks), dtype=np.int64),
        held=np.zeros((0, fleet.most_blocks), dtype=np.int64),
        entries=_empty(w.ENTRY, 0),
        index=new_index(),
        shares=shares,
        totals=_empty(w.TOTALS, 1),
        per_class=_empty(w.PER_CLASS, rows),
        waits=np.zeros((rows, w.REASONS)),
        histogram=np.zeros((rows, w.METRICS, BINS), dtype=np.int64),
        sums=np.zeros((rows, w.METRICS, BINS)),
        series=np.zeros((fleet.bins + fleet.bins % 2, w.SERIES)),  # pairs of bins become one where time is longer
        outages=_empty(w.OUTAGE, 0),
        scaling=_scaling(fleet, members),
    )
    totals = made.totals[0]
    totals.free = totals.free_entries = totals.limbo_head = totals.limbo_tail = w.NONE
    totals.bin_s = fleet.bin_s
    return with_entries(with_requests(made, FIRST_REQUESTS), entries)


def with_requests(made: w.World, more: int) -> w.World:
    """Return the tables with room for more requests at a time."""
    before = made.requests.size
    requests = _empty(w.REQUEST, before + more)
    requests[:before] = made.requests
    totals = made.totals[0]
    requests.next[before:] = np.arange(before + 1, before + more + 1)
    requests.next[-1] = totals.free
    totals.free = before
    totals.rows_left += more
    blocks = made.hashes.shape[1]
    room = np.zeros((more, blocks), dtype=np.int64)
    return made._replace(
        requests=requests, hashes=np.concatenate([made.hashes, room]), held=np.concatenate([made.held, room])
    )


def with_entries(made: w.World, more: int) -> w.World:
    """Return the tables with room for more cached blocks."""
    if not more:
        return made
    before = made.entries.size
    entries = _empty(w.ENTRY, before + more)
    entries[:before] = made.entries
    entries.users[before:] = w.NONE  # of a row that is free
    totals = made.totals[0]
    entries.older[before:] = np.arange(before + 1, before + more + 1)
    entries.older[-1] = totals.free_entries
    totals.free_entries = before
    totals.entries_left += more
    return made._replace(entries=entries)


def _tables(kinds: Sequence[Kind]) -> tuple[NDArray[np.float64], Any]:
    """Return all tables one after another, and a row for each kind that says where its own begin."""
    parts: list[NDArray[np.float64]] = []
    rows = _empty(w.KIND, len(kinds))
    at = 0

    def put(values: NDArray[np.float64]) -> int:
        nonlocal at
        parts.append(np.ascontiguousarray(values, dtype=float).ravel())
        at += parts[-1].size
        return at - parts[-1].size

    for n, kind in enumerate(kinds):
        steps, row = kind.steps, rows[n]
        row.counts, row.contexts = steps.decode_s.shape
        row.prompts, row.seen = steps.own_s.shape
        row.contexts_at, row.decode_at, row.decode_j_at = put(steps.contexts), put(steps.decode_s), put(steps.decode_j)
        row.prompts_at, row.seen_at = put(steps.prompts), put(steps.seen)
        row.own_at, row.own_j_at, row.saving_at = put(steps.own_s), put(steps.own_j), put(steps.saving_s)
        row.chances_at = put(np.array([*kind.chances, 0.0]))
        if kind.pool is not None:
            row.pool_prompts, row.pool_seen = kind.pool.own_s.shape
            row.pool_prompts_at, row.pool_seen_at = put(kind.pool.prompts), put(kind.pool.seen)
            row.pool_own_at, row.pool_own_j_at = put(kind.pool.own_s), put(kind.pool.own_j)
        for name, value in kind.fields.items():
            row[name] = value
    return np.concatenate(parts), rows


def _groups(fleet: Fleet) -> tuple[Any, list[list[int]], NDArray[np.float64]]:
    """Return groups, the kinds of each, and the cumulative shares of each class's requests that they get."""
    members: list[list[int]] = []
    klass: list[int] = []
    for number in range(len(fleet.limits)):
        own = [k for k, item in enumerate(fleet.items) if item.klass == number]
        found = [own] * bool(own) if fleet.together else [[k] for k in own]
        members += found
        klass += [number] * len(found)
    groups = _empty(w.GROUP, len(members))
    wanted = np.zeros((len(fleet.limits), len(members)))
    first = 0
    for g, of in enumerate(members):
        count = sum(fleet.items[k].replicas for k in of)
        most = min(fleet.items[k].kind.most_tokens for k in of)
        groups[g] = (klass[g], first, count, fleet.router, 0, most)
        wanted[klass[g], g] = sum(fleet.items[k].requests_per_s * fleet.items[k].replicas for k in of)
        first += count
    total = np.maximum(wanted.sum(axis=1, keepdims=True), 1e-300)
    shares = np.cumsum(wanted / total, axis=1)
    for number in range(len(fleet.limits)):  # rounding leaves nothing for the groups of other classes
        shares[number, max((g for g, of in enumerate(klass) if of == number), default=-1) :] = 1.0
    return groups, members, shares


def _machines(fleet: Fleet, members: list[list[int]]) -> tuple[Any, ...]:
    """Return the rows of replicas, in the order of their groups, and of their servers, engines and ranks."""
    order = [(g, k) for g, of in enumerate(members) for k in of for _ in range(fleet.items[k].replicas)]
    cached = fleet.most_blocks > 0
    replicas = _empty(w.REPLICA, len(order))
    engines = _empty(w.ENGINE, sum(fleet.items[k].kind.engines for _, k in order))
    servers = _empty(w.SERVER, sum(fleet.items[k].kind.servers for _, k in order))
    own = sum(fleet.items[k].kind.engines * fleet.items[k].kind.ranks for _, k in order)
    ranks = _empty(w.RANK, own + (servers.size if cached else 0))
    for name in ("head", "tail", "prefill_head", "prefill_tail", "newest", "oldest", "host_newest", "host_oldest"):
        ranks[name] = w.NONE
    servers["head"] = servers["queue_head"] = servers["queue_tail"] = servers["rank"] = w.NONE
    e = s = r = 0
    for n, (g, k) in enumerate(order):
        item, kind, row = fleet.items[k], fleet.items[k].kind, replicas[n]
        best = max(fleet.items[other].requests_per_s for other in members[g])
        row.kind, row.group, row.item, row.state = k, g, item.number, w.UP
        row.first_engine, row.engines, row.first_server, row.servers = e, kind.engines, s, kind.servers
        row.queue_head = row.queue_tail = w.NONE
        row.weight = item.requests_per_s / best if best > 0.0 else 1.0
        block = kind.block_tokens if cached else 0
        for _ in range(kind.engines):
            engines[e].replica, engines[e].kind, engines[e].first_rank, engines[e].ranks = n, k, r, kind.ranks
            for _ in range(kind.ranks):
                agg = kind.servers == 0
                _set_rank(ranks[r], e, int(kind.fields["cache_tokens"]), block if agg else 0, kind.host_tokens)
                r += 1
            e += 1
        for _ in range(kind.servers):
            servers[s].replica = n
            if block:
                servers[s].rank = own + s
                _set_rank(ranks[own + s], w.NONE, kind.server_cache_tokens, block, kind.host_tokens)
            s += 1
    return replicas, servers, engines, ranks


def _set_rank(rank: np.void, engine: int, tokens: int, block: int, host: int) -> None:
    rank["engine"], rank["capacity"], rank["entry_tokens"] = engine, tokens, block
    rank["host_capacity"] = host // block if block else 0


def _scaling(fleet: Fleet, members: list[list[int]]) -> Any:
    """Return the rules of items that are scaled, by the replicas that they are about."""
    rows = _empty(w.SCALING, len(fleet.scaling))
    firsts: dict[int, tuple[int, int]] = {}
    first = 0
    for of in members:
        for k in of:
            item = fleet.items[k]
            firsts[item.number] = (first, item.replicas)
            first += item.replicas
    for n, rule in enumerate(fleet.scaling):
        start, count = firsts[rule.item]
        rows[n] = (start, count, rule.least, rule.requests, rule.every_s, rule.delay_s, rule.patience, 0)
    return rows
