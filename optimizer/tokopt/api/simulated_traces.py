"""Traces that are replayed against a plan: looked through once, then dealt out to what is simulated."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from tokopt.catalog.trace_files import open_trace
from tokopt.domain.demand import WorkloadClass
from tokopt.domain.simulations import SimulationSettings, Split
from tokopt.domain.traces import TraceChunk, taken
from tokopt.errors import InputError

from .progress import Progress
from .simulated_fleet import SimulatedFleet

STRETCH = 4096  # requests between two looks at a run


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenTrace:
    """A trace that can be replayed: every row of it was read once and is sound."""

    path: str
    format: str
    requests: int
    span_s: float
    longest_tokens: int  # in and out
    too_long: int  # requests that are longer than the model's context
    block_tokens: int
    class_numbers: tuple[int, ...]  # class of the trace -> class of the plan; empty = it has none

    @property
    def requests_per_s(self) -> float:
        """Mean rate at its own speed."""
        return self.requests / max(self.span_s, 1e-9)


def looked_through(
    path: str, classes: tuple[WorkloadClass, ...], contexts: dict[str, int], progress: Progress
) -> OpenTrace:
    """Read a trace once.

    Args:
        path: The file.
        classes: Of the plan.
        contexts: Longest context of each class's model.
        progress: Told how far it is.

    Raises:
        InputError: It cannot be read, is not sound, or has classes that the plan does not have.
    """
    file = open_trace(path)
    count, last, longest, shortest, blocks = 0, 0.0, 0, sys.maxsize, 0
    most = max(contexts.values())
    too_long = 0
    for chunk in file.chunks():
        count += chunk.requests
        last = float(chunk.time_s[-1])
        whole = chunk.input_tokens + chunk.output_tokens
        longest, shortest = max(longest, int(whole.max())), min(shortest, int(whole.min()))
        too_long += int((whole > most).sum())
        blocks = max(blocks, chunk.block_tokens)
        progress(f"reading {path}, {count:,} requests", min(file.share_read, 1.0) * 0.05)
    if too_long == count:
        raise InputError(
            f"{path}: all {count:,} requests are longer than the {most:,} tokens that the model takes "
            f"(the shortest has {shortest:,})"
        )
    return OpenTrace(
        path=path,
        format=file.format.name,
        requests=count,
        span_s=last,
        longest_tokens=longest,
        too_long=too_long,
        block_tokens=blocks,
        class_numbers=_numbers(path, file.class_names, classes),
    )


def _numbers(path: str, names: tuple[str, ...], classes: tuple[WorkloadClass, ...]) -> tuple[int, ...]:
    known = {asked.name: number for number, asked in enumerate(classes)}
    if len(classes) == 1:
        return ()
    strange = [name for name in names if name not in known]
    if strange:
        raise InputError(f"{path}: class {strange[0]!r} is not one of the plan's: {', '.join(known)}")
    return tuple(known[name] for name in names)


def require_served(trace: OpenTrace, fleet: SimulatedFleet, period: str) -> None:
    """Refuse a trace with requests that nothing in the fleet serves.

    Raises:
        InputError: A class of the trace has no item in the period that is simulated.
    """
    for number in trace.class_numbers:
        if number not in fleet.class_of:
            when = f" in period {period}" if period else ""
            raise InputError(f"{trace.path}: class {fleet.classes[number].name!r} is served by no item{when}")


def trace_chunks(
    trace: OpenTrace, fleet: SimulatedFleet, settings: SimulationSettings, seed: int
) -> Iterator[TraceChunk]:
    """Return a trace as the simulation takes it: at the speed asked for, dealt out to items, thinned where they are.

    Requests without a class go to the plan's classes in the proportions of their planned rates, and those of a class to
    its items likewise. Where not all replicas of an item are simulated, as large a share of its requests is, each kept
    or left out by chance.
    """
    rng = np.random.default_rng(seed)
    share_of, target, kept = _dealing(fleet, settings)
    for chunk in open_trace(trace.path).chunks(STRETCH):
        classes = _classes(chunk, trace, share_of, rng)
        u = rng.random(chunk.requests)
        chosen = np.zeros(chunk.requests, dtype=np.int64)
        for number, (parts, cumulative) in target.items():
            rows = classes == number
            chosen[rows] = np.asarray(parts)[np.searchsorted(cumulative, u[rows] * cumulative[-1], side="right")]
        keep = rng.random(chunk.requests) < kept[chosen]
        moved = replace(chunk, time_s=chunk.time_s / (settings.trace_speed * settings.load), classes=chosen)
        yield moved if bool(keep.all()) else taken(moved, np.flatnonzero(keep))


def _dealing(
    fleet: SimulatedFleet, settings: SimulationSettings
) -> tuple[np.ndarray, dict[int, tuple[list[int], np.ndarray]], np.ndarray]:
    """Return cumulative shares of the plan's classes, the simulation's classes of each, and what is kept of these."""
    together = settings.split is Split.TOGETHER
    rates = np.zeros(len(fleet.classes))
    target: dict[int, tuple[list[int], np.ndarray]] = {}
    for number in range(len(fleet.classes)):
        own = [n for n, klass in enumerate(fleet.class_of) if klass == number]
        if not own:
            continue
        planned = [
            sum(p.requests_per_s for p in fleet.parts if p.klass == number)
            if together
            else fleet.parts[n].requests_per_s
            for n in own
        ]
        rates[number] = sum(planned)
        target[number] = (own, np.cumsum(planned) * (1.0 - 1e-12))
    kept = np.array([1.0 / weight for weight in fleet.weights])
    return np.cumsum(rates / rates.sum()), target, kept


def _classes(chunk: TraceChunk, trace: OpenTrace, share_of: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the plan's class of each request."""
    if trace.class_numbers:
        return np.asarray(trace.class_numbers, dtype=np.int64)[chunk.classes]
    if share_of.size == 1:
        return np.zeros(chunk.requests, dtype=np.int64)
    return np.searchsorted(share_of * (1.0 - 1e-12), rng.random(chunk.requests), side="right").astype(np.int64)
