"""Replicas whose steps are formulas, requests of given times and lengths, and what the inner loop makes of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tokopt.domain.traces import TraceChunk
from tokopt.simulation import world as w
from tokopt.simulation.building import ClassLimits, Fleet, Item
from tokopt.simulation.replicas import Kind
from tokopt.simulation.replication import Outage, Outcome, Window, replicate
from tokopt.simulation.step_tables import StepTables

TOKENS = np.array([1.0, 4096.0])  # the ends of every axis: formulas are straight lines in lengths

FIELDS: dict[str, float] = {
    "mixing": 0.0,
    "rank_imbalance": 0.0,
    "chunk_tokens": 1 << 30,
    "depth": 0,
    "accepted": 1.0,
    "slots": 1,
    "cache_tokens": 1 << 40,
    "reserved_share": 0.0,
    "front_s": 0.0,
    "wake_s": 0.0,
    "pipelined": 1.0,
    "disaggregated": 0,
    "pool_efficiency": 1.0,
    "pool_chunk_tokens": 1,
    "pool_pipelined": 1.0,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """Times of steps: of sequences that decode, of prompt tokens alone, and what both save in one step. [s]"""

    decode: Callable[[int, float], float] = lambda sequences, context: 0.0
    prompt: Callable[[float, float], float] = lambda tokens, seen: 0.0
    saving: Callable[[int, float], float] = lambda sequences, tokens: 0.0

    def tables(self, sequences: int, tokens: Any = TOKENS) -> StepTables:
        """Return the tables that the formulas fill, each straight between the ends of an axis."""
        counts = range(sequences + 1)
        decode = np.array([[self.decode(n, c) if n else 0.0 for c in tokens] for n in counts])
        own = np.array([[self.prompt(t, c) for c in tokens] for t in tokens])
        saving = np.array([[self.saving(n, t) if n else 0.0 for t in tokens] for n in counts])
        return StepTables(
            contexts=tokens,
            decode_s=decode,
            decode_j=decode * 0.0,
            prompts=tokens,
            seen=tokens,
            own_s=own,
            own_j=own * 0.0,
            saving_s=saving,
        )


def kind(
    steps: Steps = Steps(), pool: Steps | None = None, *, slots: int = 1, tokens: Any = TOKENS, **more: Any
) -> Kind:
    """Return a kind of replica; what is not a column of the kinds' table is an attribute of `Kind`."""
    own = {name: more.pop(name) for name in list(more) if name not in FIELDS and name not in w.KIND.names}
    fields = FIELDS | {"slots": slots, "rank_slots": slots, "disaggregated": 0 if pool is None else 1} | more
    return Kind(
        steps=steps.tables(slots, tokens), pool=None if pool is None else pool.tables(0, tokens), fields=fields, **own
    )


def fleet_of(*kinds: Kind, replicas: int = 1, router: int = w.SHORTEST_QUEUE, **more: Any) -> Fleet:
    """Return replicas of some kinds that serve one class together."""
    items = tuple(Item(kind=each, number=n, replicas=replicas) for n, each in enumerate(kinds))
    return Fleet(**({"items": items, "limits": (ClassLimits(),), "router": router, "together": True} | more))


def requests(
    times: Any, prompts: Any, outputs: Any, *, classes: Any = None, hashes: Sequence[Any] = (), block: int = 0
) -> TraceChunk:
    """Return a stretch of requests."""
    count = len(times)
    starts = np.concatenate([[0], np.cumsum([len(each) for each in hashes])]) if hashes else np.zeros(count + 1)
    return TraceChunk(
        time_s=np.asarray(times, dtype=float),
        input_tokens=np.asarray(prompts, dtype=np.int64),
        output_tokens=np.asarray(outputs, dtype=np.int64),
        classes=np.zeros(count, dtype=np.int64) if classes is None else np.asarray(classes, dtype=np.int64),
        hash_start=starts.astype(np.int64),
        hashes=np.concatenate([np.zeros(0, dtype=np.int64), *hashes]).astype(np.int64),
        block_tokens=block,
    )


def given(*outages: tuple[float, int, float]) -> Callable[[float, float], list[Outage]]:
    """Return what gives these failures: when, of which replica, for how long."""
    found = [Outage(time_s=time, replica=replica, lasts_s=lasts) for time, replica, lasts in outages]
    return lambda start, end: [each for each in found if start <= each.time_s < end]


def run(fleet: Fleet, chunk: TraceChunk, *, seed: int = 1, **more: Any) -> Outcome:
    """Return what comes of requests, all of which are measured."""
    return replicate(fleet, [chunk], Window(start_s=0.0), seed=seed, **more)


def each_request(fleet: Fleet, chunk: TraceChunk, **more: Any) -> tuple[Outcome, np.ndarray]:
    """Return what comes of requests that are a class each, and its latencies: rows TTFT, TPOT and end to end. [s]

    A request that was not answered has not a number there. Classes without replicas of their own go to the last group.
    """
    count = chunk.requests
    alone = requests(chunk.time_s, chunk.input_tokens, chunk.output_tokens, classes=np.arange(count))
    apart = Fleet(
        items=fleet.items,
        limits=fleet.limits * count,
        router=fleet.router,
        together=True,
        scaling=fleet.scaling,
    )
    outcome = run(apart, alone, **more)
    answered = outcome.world.histogram[:, w.E2E].sum(axis=1) == 1
    sums = outcome.world.sums[:, [w.TTFT, w.TPOT, w.E2E]].sum(axis=2).T
    return outcome, np.where(answered, sums, np.nan)
