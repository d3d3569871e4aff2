"""Continuous batching as it is documented, in plain Python: slow, small, and without a line of what it is to check.

The rules. A request is sent to a replica and reaches its queue after the time of the front end. An engine that rests
starts after `wake`. Between two steps, rank by rank: sequences get cache for the next step in the order in which they
began to decode, and where there is none, the last prompt that is not being computed goes back to the head of the queue
and loses all that was computed, or else the last sequence; requests are admitted in their order as long as there are
slots, and cache for all that they compute and a step. Then each rank without a chunk takes its next prompt tokens,
first come, first served. A step lasts as long as its sequences and its prompt tokens take. At its end every sequence
in it has its tokens; prompts whose last token is computed have their first at the end of their chunk, and decode from
the next step on. What lost its cache is computed again, answer and all, which yields its next token.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

BLOCK = 16
SOON = 1e-9


@dataclass(kw_only=True)
class Told:
    """What a replica is like."""

    decode: Callable[[int, float], float]
    prompt: Callable[[float, float], float]
    saving: Callable[[int, float], float]
    slots: int
    rank_slots: int
    chunk: int
    cache: int
    ranks: int = 1
    engines: int = 1
    depth: int = 0
    all_accepted: bool = False
    accepted: float = 1.0
    mixing: float = 0.0
    imbalance: float = 0.0
    reserved: float = 0.0
    front: float = 0.0
    wake: float = 0.0
    pipelined: float = 1.0
    longest: int = 1 << 40
    pool: Callable[[float, float], float] | None = None  # time of prompt tokens in a prefill pool
    servers: int = 0
    pool_chunk: int = 1
    efficiency: float = 1.0
    move: float = 0.0
    move_token: float = 0.0


@dataclass(eq=False)
class Asked:
    """A request."""

    number: int
    arrival: float
    prompt: int
    output: int
    given: int = 0
    emitted: int = 0
    computed: int = 0
    part: int = 0
    cache: int = 0
    first: float = math.nan
    end: float = math.nan

    @property
    def tokens(self) -> int:
        return self.prompt + self.emitted


@dataclass(eq=False)
class Rank:
    queue: list[Asked] = field(default_factory=list)
    prefills: list[Asked] = field(default_factory=list)
    running: list[Asked] = field(default_factory=list)
    stepping: list[Asked] = field(default_factory=list)
    chunk_end: float | None = None

    @property
    def requests(self) -> int:
        return len(self.queue) + len(self.prefills) + len(self.running)

    @property
    def used(self) -> int:
        return sum(each.cache for each in self.prefills + self.running)


@dataclass(eq=False)
class Engine:
    ranks: list[Rank]
    awake: bool = False
    turn: int = 0

    @property
    def in_service(self) -> int:
        return sum(len(rank.prefills) + len(rank.running) for rank in self.ranks)


@dataclass(eq=False)
class Replica:
    told: Told
    engines: list[Engine]
    inside: list[Asked] = field(default_factory=list)
    prompts: list[Asked] = field(default_factory=list)
    busy: int = 0
    turn: int = 0


def whole(tokens: int) -> int:
    return math.ceil(tokens / BLOCK) * BLOCK


class Simulation:
    """All of it."""

    def __init__(self, told: Told, replicas: int, router: str) -> None:
        self.told = told
        self.replicas = [
            Replica(told, [Engine([Rank() for _ in range(told.ranks)]) for _ in range(told.engines)])
            for _ in range(replicas)
        ]
        self.router, self.turn, self.count = router, 0, 0
        self.events: list[Any] = []
        self.preempted = 0
        self.more: list[Asked] = []
        self.closed = False

    def at(self, time: float, do: Callable[[float], None]) -> None:
        self.count += 1
        heapq.heappush(self.events, (time, self.count, do))

    def run(self, asked: Sequence[Asked], concurrency: int = 0) -> None:
        self.closed = concurrency > 0
        self.more = list(asked)
        if self.closed:
            for _ in range(concurrency):
                self.at(0.0, self.next_one)
        while self.events or (self.more and not self.closed):
            if not self.closed and self.more and (not self.events or self.more[0].arrival <= self.events[0][0]):
                request = self.more.pop(0)
                self.arrive(request, request.arrival)
            else:
                time, _, do = heapq.heappop(self.events)
                do(time)

    def next_one(self, now: float) -> None:
        if self.more:
            request = self.more.pop(0)
            request.arrival = now
            self.arrive(request, now)

    def arrive(self, request: Asked, now: float) -> None:
        if request.prompt + request.output > self.told.longest:
            if self.closed:
                self.at(now, self.next_one)
            return
        replica = self.choose()
        replica.inside.append(request)
        self.at(now + self.told.front, lambda time: self.reach(replica, request, time))

    def choose(self) -> Replica:
        def load(number: int) -> float:
            replica = self.replicas[number]
            if self.router == "least tokens":
                return sum(each.tokens for each in replica.inside)
            return len(replica.inside) if self.router == "fewest requests" else 0.0

        order = [(self.turn + i) % len(self.replicas) for i in range(len(self.replicas))]
        best = min(order, key=load)
        self.turn = (best + 1) % len(self.replicas)
        return self.replicas[best]

    def reach(self, replica: Replica, request: Asked, now: float) -> None:
        if self.told.pool is not None:
            replica.prompts.append(request)
            if replica.busy < self.told.servers:
                self.prefill(replica, now)
            return
        engine, rank = self.shortest(replica)
        rank.queue.append(request)
        if not engine.awake:
            engine.awake = True
            self.at(now + self.told.wake, lambda time: self.step(replica, engine, time))

    def shortest(self, replica: Replica) -> tuple[Engine, Rank]:
        engines = replica.engines
        order = [(replica.turn + i) % len(engines) for i in range(len(engines))]
        best = min(order, key=lambda i: sum(rank.requests for rank in engines[i].ranks))
        replica.turn = (best + 1) % len(engines)
        engine = engines[best]
        order = [(engine.turn + i) % len(engine.ranks) for i in range(len(engine.ranks))]
        chosen = min(order, key=lambda i: engine.ranks[i].requests)
        engine.turn = (chosen + 1) % len(engine.ranks)
        return engine, engine.ranks[chosen]

    # Prefill pools.

    def prefill(self, replica: Replica, now: float) -> None:
        told = self.told
        assert told.pool is not None
        batch, tokens, seen = [], 0, 0.0
        while replica.prompts:
            request = replica.prompts[0]
            found = min(request.given, request.prompt - 1)
            new = request.prompt - found
            if batch and tokens + new > told.pool_chunk:
                break
            batch.append(replica.prompts.pop(0))
            tokens += new
            seen += new * (found + 0.5 * new)
        replica.busy += 1
        mean, lasts, done = seen / tokens, 0.0, 0
        if tokens <= told.pool_chunk:
            lasts = told.pool(tokens, mean)
        else:
            while done < tokens:
                part = min(told.pool_chunk, tokens - done)
                lasts += told.pool(part, mean - 0.5 * tokens + done + 0.5 * part)
                done += part

        def moved(time: float) -> None:
            for each in batch:
                each.computed = each.prompt
                self.at(time + told.move + told.move_token * each.prompt, self.decoder(replica, each))

        def free(time: float) -> None:
            replica.busy -= 1
            if replica.prompts:
                self.prefill(replica, time)

        self.at(now + lasts, moved)
        self.at(now + lasts / told.efficiency, free)

    def decoder(self, replica: Replica, request: Asked) -> Callable[[float], None]:
        def reach(now: float) -> None:
            engine, rank = self.shortest(replica)
            rank.queue.append(request)
            self.admit(replica, engine, rank, now)
            if not engine.awake and rank.running + rank.prefills:
                engine.awake = True
                self.at(now, lambda time: self.step(replica, engine, time))

        return reach

    # Engines.

    def step(self, replica: Replica, engine: Engine, now: float) -> None:
        told = self.told
        for rank in engine.ranks:
            self.make_up(engine, rank)
            self.admit(replica, engine, rank, now)
        running = [each for rank in engine.ranks for each in rank.running]
        base = 0.0
        if running:
            context = sum(each.tokens for each in running) / len(running) + 0.5 * told.accepted - 1.0
            base = told.decode(len(running), context)
        added, ends = [], []
        for rank in engine.ranks:
            rank.stepping = list(rank.running)
            if rank.chunk_end is None and rank.prefills:
                own, extra = self.take(replica, engine, rank, len(running))
                added.append(extra)
                rank.chunk_end = now + own + told.mixing * (base - self.saved(len(running), rank))
            if rank.chunk_end is not None:
                ends.append(rank.chunk_end)
        if not running and not ends:
            engine.awake = False
            return
        share = sum(added) / told.ranks
        lasts = base + share + told.imbalance * (max(added, default=0.0) - share)
        end = now + lasts if running else max(min(ends), now)
        self.at(end, lambda time: self.end(replica, engine, now, time))

    def saved(self, sequences: int, rank: Rank) -> float:
        tokens = sum(each.part for each in rank.prefills)
        return self.told.saving(sequences, tokens) if sequences else 0.0

    def take(self, replica: Replica, engine: Engine, rank: Rank, sequences: int) -> tuple[float, float]:
        """Choose a chunk; return how long it takes alone, and what it adds to the step."""
        told, left, seen, tokens = self.told, self.told.chunk, 0.0, 0
        for each in rank.prefills:
            each.part = min(each.tokens - each.computed, left)
            left -= each.part
            tokens += each.part
            seen += each.part * (each.computed + 0.5 * each.part)
        own = told.prompt(tokens, seen / tokens)
        if told.pipelined < 1.0:
            others = [e for e in replica.engines if e is not engine and any(r.prefills for r in e.ranks)]
            share = min(len(others) / max(told.engines - 1, 1), 1.0)
            own *= told.pipelined + (1.0 - told.pipelined) * share
        return own, max(own - told.mixing * self.saved(sequences, rank), 0.0)

    def end(self, replica: Replica, engine: Engine, started: float, now: float) -> None:
        told = self.told
        for rank in engine.ranks:
            for each in rank.stepping:
                tokens = 1 + (told.depth if told.all_accepted else 0)
                each.emitted = min(each.emitted + tokens, each.output)
                if each.emitted == each.output:
                    rank.running.remove(each)
                    self.leave(replica, each, now, now)
            rank.stepping = []
            if rank.chunk_end is not None and rank.chunk_end <= now + SOON:
                at, rank.chunk_end = rank.chunk_end if rank.chunk_end <= now - SOON else now, None
                for each in list(rank.prefills):
                    each.computed += each.part
                    each.part = 0
                    if each.computed == each.tokens:
                        rank.prefills.remove(each)
                        self.join(replica, rank, each, at, now)
        self.step(replica, engine, now)

    def join(self, replica: Replica, rank: Rank, request: Asked, at: float, now: float) -> None:
        if request.emitted == 0:
            request.first = at
        request.emitted += 1
        if request.emitted == request.output:
            self.leave(replica, request, at, now)
        else:
            rank.running.append(request)

    def leave(self, replica: Replica, request: Asked, at: float, now: float) -> None:
        request.end, request.cache = at, 0
        replica.inside.remove(request)
        if self.closed:
            self.at(max(at, now), self.next_one)

    # Cache.

    def make_up(self, engine: Engine, rank: Rank) -> None:
        i = 0
        while i < len(rank.running):
            request = rank.running[i]
            wanted = whole(request.tokens + self.told.depth)
            more = max(wanted - request.cache, 0)
            if rank.used + more <= self.told.cache:
                request.cache += more
                i += 1
                continue
            last = (rank.prefills if rank.prefills and rank.chunk_end is None else rank.running).pop()
            self.preempted += 1
            last.cache = last.computed = 0
            rank.queue.insert(0, last)

    def admit(self, replica: Replica, engine: Engine, rank: Rank, now: float) -> None:
        told = self.told
        while rank.queue:
            request = rank.queue[0]
            if engine.in_service >= told.slots or len(rank.running) + len(rank.prefills) >= told.rank_slots:
                return
            left = request.output - request.emitted
            ahead = max(int(told.reserved * left), 1 + told.depth)
            wanted = whole(request.tokens + min(ahead, left + told.depth))
            if rank.used + wanted > told.cache:
                return
            rank.queue.pop(0)
            request.cache = wanted
            if told.pool is not None and request.emitted == 0:
                self.join(replica, rank, request, now, now)
                continue
            request.computed = min(request.given, request.prompt - 1)
            rank.prefills.append(request)
