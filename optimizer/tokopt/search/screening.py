"""Bounds on what every set-up can serve: the whole grid at once, before any queueing model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tokopt.domain.workloads import Workload
from tokopt.perf.memory import memory_use, resident_tokens
from tokopt.perf.queueing import LOAD_LIMIT, Limits, lognormal_factor, normal_quantile
from tokopt.perf.serving import Lengths, Steady, steady_state, workload_lengths
from tokopt.search.space import BATCH_GRID, SEQUENCES_PER_RANK, Family, Setups

# The bound is read off a grid by interpolation; this much is added so that it stays a bound.
INTERPOLATION_MARGIN = 1.01
CAP_MARGIN = 1.1  # the cap is where a curve crosses a limit, which is read off less exactly
BLOCK_ROWS = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Screened:
    """Set-ups that fit in memory and can meet the limits, with a bound on their request rate."""

    setups: Setups
    bound_requests_per_s: NDArray[np.float64]
    most: NDArray[np.float64]  # requests in service that the running cap is surely not above
    considered: int
    did_not_fit: int
    missed_limits: int
    fastest_tpot_s: float  # of any set-up that fits, at one sequence a rank
    fastest_first_token_s: float  # at the limits' statistic, with one request a rank, on any set-up that fits


def safety(limits: Limits) -> float:
    """Return the standard deviations of prefill stalls that the TPOT at full occupancy must leave room for."""
    return max(normal_quantile(limits.quantile), 0.0) if limits.quantile is not None else 0.0


def slot_limit(memory_slots: NDArray[np.float64], setups: Setups) -> NDArray[np.float64]:
    """Return the requests in service that memory and the cap on sequences a rank allow."""
    return np.minimum(memory_slots, SEQUENCES_PER_RANK * setups.dp * setups.pp)


def screen(family: Family, setups: Setups, workload: Workload, limits: Limits, *, prefill: bool) -> Screened:
    """Evaluate set-ups x batches and return those that can serve anything, with their bounds.

    A set-up's running cap is the largest batch that memory holds and whose TPOT, at full occupancy and at the limits'
    statistic, is within the limit; its bound is the saturation rate there times the load limit. Every rate that the
    queueing model later grants is below it.
    """
    size = workload_lengths(workload)
    considered = len(setups) * BATCH_GRID.size
    fits, slots = fitting(family, setups, workload, prefill=prefill)
    kept, slots = setups.pick(fits), slots[fits]
    none = np.zeros(0)
    missing = (len(setups) - len(kept)) * BATCH_GRID.size
    if not len(kept):
        return Screened(
            setups=kept,
            bound_requests_per_s=none,
            most=none,
            considered=considered,
            did_not_fit=missing,
            missed_limits=0,
            fastest_tpot_s=float("inf"),
            fastest_first_token_s=float("inf"),
        )
    blocks = [
        _screen_block(family, kept.pick(part), slots[part], size, limits, prefill=prefill)
        for part in np.array_split(np.arange(len(kept)), -(-len(kept) // BLOCK_ROWS))
    ]
    bound, cap, first, full, served, idle = (np.concatenate(column) for column in zip(*blocks, strict=True))
    usable = (bound > 0.0) & (first <= limits.ttft_s)
    return Screened(
        setups=kept.pick(usable),
        bound_requests_per_s=bound[usable],
        most=np.minimum(np.floor(slots), np.ceil(cap * CAP_MARGIN) + 1.0)[usable],
        considered=considered,
        did_not_fit=missing,
        missed_limits=int(served.size * BATCH_GRID.size - served[usable].sum()),
        fastest_tpot_s=float(full.min()),
        fastest_first_token_s=float(idle.min()) if prefill else float("inf"),
    )


def grid_state(family: Family, block: Setups, size: Lengths, *, prefill: bool) -> tuple[NDArray[np.float64], Steady]:
    """Return the running batches of set-ups x the batch grid, and the steady state at each."""
    running = (block.dp * block.pp)[:, None] * BATCH_GRID
    state = steady_state(
        family.model,
        family.machine,
        block.layouts,
        size,
        running=running,
        depth=block.depth[:, None],
        accepted=block.accepted[:, None],
        chunk_tokens=block.chunk_tokens[:, None],
        prefill=prefill,
    )
    return running, state


def _screen_block(
    family: Family, block: Setups, slots: NDArray[np.float64], size: Lengths, limits: Limits, *, prefill: bool
) -> tuple[NDArray[np.float64], ...]:
    """Return, by set-up: bound, running cap, least prefill, TPOT at the smallest batch, batches served, first token.

    Blocks keep the arrays of a step inside the processor's cache.
    """
    running, state = grid_state(family, block, size, prefill=prefill)
    full_tpot = state.tpot_s + safety(limits) * state.stall_s * np.sqrt(running)
    held = np.asarray(state.in_service)
    first = first_token_floor(np.asarray(state.prefill_s)[:, 0], size, limits)
    allowed = np.asarray(limits.tpot_within(first, size.decoded, size.output_cv))[:, None]
    over = np.maximum.accumulate(np.maximum(held / slots[:, None], full_tpot / np.maximum(allowed, 1e-12)), axis=1)
    # TPOT is all but linear in the batch, so it is what gets interpolated; the rate follows from it.
    (decoding, tpot, cap), within = _last_feasible(over, running, np.asarray(state.tpot_s), held)
    bound = decoding / (size.decoded * np.maximum(tpot, 1e-300))
    return (
        bound * (LOAD_LIMIT * INTERPOLATION_MARGIN),
        cap,
        first,
        np.asarray(full_tpot)[:, 0],
        within.sum(axis=1).astype(float),
        first_token_floor(_idle_first_token_s(family, state), size, limits),
    )


def _idle_first_token_s(family: Family, state: Steady) -> NDArray[np.float64]:
    """Return the time to first token of a mean prompt where hardly anything else runs: what no load can improve on."""
    prefill, step = np.asarray(state.prefill_s)[:, 0], np.asarray(state.decode_step_s)[:, 0]
    return prefill + 0.5 * step + family.machine.request_overhead_s


def fitting(
    family: Family, setups: Setups, workload: Workload, *, prefill: bool
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Return which set-ups hold at least one request a rank and stage, and how many requests each holds."""
    use = memory_use(
        family.model,
        family.machine,
        setups.flat_layouts,
        chunk_tokens=setups.chunk_tokens if prefill else 0.0,
        draft_depth=setups.depth,
        mean_resident_tokens=resident_tokens(workload.input_tokens, workload.output_tokens, workload.output_cv),
        longest_tokens=workload.input_tokens + workload.output_tokens,
    )
    slots = slot_limit(np.asarray(use.sequences), setups)
    return slots >= setups.dp * setups.pp, slots


def first_token_floor(prefill_s: NDArray[np.float64], size: Lengths, limits: Limits) -> NDArray[np.float64]:
    """Return the least time to first token at the limits' statistic: the prefill alone, for a prompt of its length."""
    q = limits.quantile
    return prefill_s if q is None else prefill_s * lognormal_factor(size.input_cv, q)


def _last_feasible(
    over: NDArray[np.float64], *columns: NDArray[np.float64]
) -> tuple[list[NDArray[np.float64]], NDArray[np.bool_]]:
    """Return each column where `over`, which never falls along a row, reaches 1, and which grid points are below.

    A row that is above 1 from the start gets 0.
    """
    within = over <= 1.0
    count = within.sum(axis=1)
    rows = np.arange(over.shape[0])
    low = np.clip(count - 1, 0, over.shape[1] - 1)
    high = np.clip(count, 0, over.shape[1] - 1)
    step = over[rows, high] - over[rows, low]
    part = np.where(step > 0, (1.0 - over[rows, low]) / np.where(step > 0, step, 1.0), 0.0)
    part = np.clip(part, 0.0, 1.0)
    read = []
    for column in columns:
        value = column[rows, low] + part * (column[rows, high] - column[rows, low])
        read.append(np.where(count > 0, value, 0.0))
    return read, within
