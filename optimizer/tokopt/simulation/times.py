"""How long steps take, looked up in the tables that the performance model filled (`step_tables`)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokopt.simulation.compiled import compiled
from tokopt.simulation.world import World


@compiled
def place(tables: NDArray[np.float64], at: int, size: int, x: float) -> tuple[int, float]:
    """Return the interval of an axis that x is in, and how far along; beyond the ends the outer interval goes on."""
    if size == 1:
        return 0, 0.0
    low, high = 0, size - 1
    while high - low > 1:
        middle = (low + high) // 2
        if tables[at + middle] <= x:
            low = middle
        else:
            high = middle
    start = tables[at + low]
    return low, (x - start) / (tables[at + low + 1] - start)


@compiled
def along(tables: NDArray[np.float64], at: int, size: int, low: int, share: float) -> float:
    """Return a value of a row of a table, by its place on the axis."""
    if size == 1:
        return tables[at]
    return tables[at + low] + share * (tables[at + low + 1] - tables[at + low])


@compiled
def across(tables: NDArray[np.float64], at: int, width: int, x: tuple[int, float], y: tuple[int, float]) -> float:
    """Return a value of a table of rows `width` long, by its places along and across the rows."""
    first = along(tables, at + x[0] * width, width, y[0], y[1])
    if x[1] == 0.0:
        return first
    second = along(tables, at + (x[0] + 1) * width, width, y[0], y[1])
    return first + x[1] * (second - first)


@compiled
def decode_step(world: World, kind: Any, sequences: int, context: float) -> tuple[float, float]:
    """Return the time and the energy above idling of a step in which sequences of a mean context decode. [s], [J]"""
    if sequences == 0:
        return 0.0, 0.0
    tables = world.tables
    low, share = place(tables, kind.contexts_at, kind.contexts, context)
    row = min(sequences, kind.counts - 1) * kind.contexts
    return (
        along(tables, kind.decode_at + row, kind.contexts, low, share),
        along(tables, kind.decode_j_at + row, kind.contexts, low, share),
    )


@compiled
def prompt_step(world: World, kind: Any, tokens: int, seen: float) -> tuple[float, float]:
    """Return the time and the energy above idling of a step of prompt tokens alone, which see `seen` tokens each."""
    tables = world.tables
    x = place(tables, kind.prompts_at, kind.prompts, float(tokens))
    y = place(tables, kind.seen_at, kind.seen, seen)
    return across(tables, kind.own_at, kind.seen, x, y), across(tables, kind.own_j_at, kind.seen, x, y)


@compiled
def pool_step(world: World, kind: Any, tokens: int, seen: float) -> tuple[float, float]:
    """Return the same of a worker of a prefill pool."""
    tables = world.tables
    x = place(tables, kind.pool_prompts_at, kind.pool_prompts, float(tokens))
    y = place(tables, kind.pool_seen_at, kind.pool_seen, seen)
    return across(tables, kind.pool_own_at, kind.pool_seen, x, y), across(
        tables, kind.pool_own_j_at, kind.pool_seen, x, y
    )


@compiled
def mixed_saving(world: World, kind: Any, sequences: int, tokens: int) -> float:
    """Return what a step of sequences and prompt tokens takes less than one of each. [s]"""
    if sequences == 0 or kind.mixing == 0.0:
        return 0.0
    tables = world.tables
    low, share = place(tables, kind.prompts_at, kind.prompts, float(tokens))
    row = min(sequences, kind.counts - 1) * kind.prompts
    return along(tables, kind.saving_at + row, kind.prompts, low, share)
