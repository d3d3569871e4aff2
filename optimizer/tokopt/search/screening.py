"""Bounds on what every set-up can serve: the whole grid at once, before any queueing model."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tokopt.domain.features import Feature
from tokopt.domain.workloads import Workload
from tokopt.perf.memory import MemoryUse, serving_memory
from tokopt.perf.queueing import LOAD_LIMIT, Limits, lognormal_factor
from tokopt.perf.replica import KNOT_SHARE
from tokopt.perf.serving import Lengths, Steady, steady_state, workload_lengths
from tokopt.perf.step import StepTime
from tokopt.search.setups import BATCH_GRID, Setups, batches_up_to, most_per_rank
from tokopt.search.space import Family

# The bound is read off a grid by lines that stay below the curve; this much is added for where it bends twice.
INTERPOLATION_MARGIN = 1.025
CAP_MARGIN = 1.1  # the cap is where a curve crosses a limit, which is read off less exactly
LEAST_HALVED = 2.0  # tokens: one of each half
BLOCK_ROWS = 1024  # whose arrays of a step stay inside the processor's cache


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


def without_threshold(family: Family) -> Family:
    """Return a family whose engine halves steps from two tokens on: never slower, and without a fall at a threshold.

    Bounds are read off a grid of batches by lines, which a step that gets faster at a threshold would deceive.
    """
    if Feature.TWO_BATCH_OVERLAP not in family.features:
        return family
    return replace(family, machine=replace(family.machine, two_batch_tokens=LEAST_HALVED))


def slot_limit(family: Family, memory_slots: NDArray[np.float64], setups: Setups) -> NDArray[np.float64]:
    """Return the requests in service that memory and the framework's cap on sequences a rank allow."""
    return np.minimum(memory_slots, most_per_rank(family.framework) * setups.dp * setups.pp)


def batches_for(slots: NDArray[np.float64], setups: Setups) -> int:
    """Return how many batches of the grid to try: up to what set-ups hold, and the two points that bounds lean on."""
    most = float((slots / (setups.dp * setups.pp)).max(initial=1.0))
    return min(batches_up_to(most) + 3, BATCH_GRID.size)


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeSteps:
    """Decode steps on the batch grid of a family's set-ups that fit: what they share with and without prefill."""

    numbers: NDArray[np.intp]  # `Setups.decoding` of each row
    steps: StepTime

    def of(self, setups: Setups, batches: int) -> StepTime:
        """Return the decode steps of set-ups x the first batches of the grid."""
        rows = np.searchsorted(self.numbers, setups.decoding)
        return StepTime(**{name: np.asarray(getattr(self.steps, name))[rows, :batches] for name in StepTime.__slots__})


def decode_steps(family: Family, chosen: Setups, workload: Workload) -> DecodeSteps | None:
    """Return the decode steps of those decoding set-ups of a family that fit in memory; None if none does."""
    fits, slots = fitting(family, chosen, workload, role="decode")
    kept = chosen.pick(fits)
    if not len(kept):
        return None
    size, batches = workload_lengths(workload), batches_for(slots[fits], kept)
    blocks = [
        grid_state(family, block, size, batches, prefill=False)[1].decode for block in map(kept.pick, in_blocks(kept))
    ]
    return DecodeSteps(
        numbers=kept.decoding,
        steps=StepTime(**{name: np.concatenate([getattr(b, name) for b in blocks]) for name in StepTime.__slots__}),
    )


def in_blocks(setups: Setups) -> list[NDArray[np.intp]]:
    """Return the rows of set-ups in blocks that are evaluated at once."""
    return np.array_split(np.arange(len(setups)), -(-len(setups) // BLOCK_ROWS))


def screen(
    family: Family,
    chosen: Setups,
    workload: Workload,
    limits: Limits,
    *,
    prefill: bool,
    decode: DecodeSteps | None = None,
) -> Screened:
    """Evaluate set-ups x batches and return those that can serve anything, with their bounds.

    A set-up's running cap is the largest batch that memory holds and whose TPOT, at full occupancy and at the limits'
    statistic, is within the limit; its bound is the saturation rate there times the load limit. Every rate that the
    queueing model later grants is below it. `decode` spares decode steps that are known already.
    """
    size = workload_lengths(workload)
    tried = batches_up_to(most_per_rank(family.framework))
    considered = len(chosen) * tried
    fits, slots = fitting(family, chosen, workload, role="agg" if prefill else "decode")
    missing = int(len(chosen) - fits.sum()) * tried
    if prefill:
        fits = fits & ~needless(chosen, slots, workload)
    kept, slots = chosen.pick(fits), slots[fits]
    none = np.zeros(0)
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
    batches = batches_for(slots, kept)
    blocks = [
        _screen_block(family, kept.pick(part), slots[part], size, limits, batches, prefill=prefill, decode=decode)
        for part in in_blocks(kept)
    ]
    bound, cap, first, full, served, idle = (np.concatenate(column) for column in zip(*blocks, strict=True))
    usable = (bound > 0.0) & (first <= limits.ttft_s)
    return Screened(
        setups=kept.pick(usable),
        bound_requests_per_s=bound[usable],
        most=np.minimum(np.floor(slots), np.ceil(cap * CAP_MARGIN) + 1.0)[usable],
        considered=considered,
        did_not_fit=missing,
        missed_limits=int(served.size * tried - served[usable].sum()),
        fastest_tpot_s=float(full.min()),
        fastest_first_token_s=float(idle.min()) if prefill else float("inf"),
    )


def saturation_bounds(family: Family, chosen: Setups, workload: Workload, limits: Limits) -> NDArray[np.float64]:
    """Return the bound of `screen` on the request rate of set-ups that prefill and decode; 0 where they serve nothing.

    For set-ups that are known to fit: nothing is left out.
    """
    if not len(chosen):
        return np.zeros(0)
    size = workload_lengths(workload)
    slots = fitting(family, chosen, workload, role="agg")[1]
    batches = batches_for(slots, chosen)
    blocks = [
        _screen_block(family, chosen.pick(part), slots[part], size, limits, batches, prefill=True, decode=None)
        for part in in_blocks(chosen)
    ]
    bound, _, first, *_ = (np.concatenate(column) for column in zip(*blocks, strict=True))
    return np.where(first <= limits.ttft_s, bound, 0.0)


def needless(chosen: Setups, slots: NDArray[np.float64], workload: Workload) -> NDArray[np.bool_]:
    """Return which set-ups have a larger token budget than their prompts ever fill, and a smaller one beside them.

    A step holds at most the prompts that follow `slots` requests, or one prompt, whichever is longer: the twin whose
    budget is no less serves exactly the same, and has more room for caches. Cached prefixes only shorten prompts.
    """
    decoded = float(workload_lengths(workload).decoded)
    # Profiles are interpolated up to the first knot that is not below `slots`.
    running = np.maximum(slots * (1.0 + KNOT_SHARE[0] / KNOT_SHARE[1]), slots + 1.0)
    each = running / (chosen.dp * chosen.pp) * chosen.accepted / decoded  # prompts a step, a rank
    most = np.maximum(each, 1.0) * workload.input_tokens
    # Budgets rise within a set-up, so its twin with the next smaller one stands before it.
    twin = np.concatenate([[False], chosen.decoding[1:] == chosen.decoding[:-1]])
    smaller = np.concatenate([[0.0], chosen.chunk_tokens[:-1]])
    full: NDArray[np.bool_] = twin & (smaller >= most)
    return full


def grid_state(
    family: Family, block: Setups, size: Lengths, batches: int, *, prefill: bool, decode: DecodeSteps | None = None
) -> tuple[NDArray[np.float64], Steady]:
    """Return the running batches of set-ups x the first batches of the grid, and the steady state at each."""
    running = (block.dp * block.pp)[:, None] * BATCH_GRID[:batches]
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
        decode=None if decode is None else decode.of(block, batches),
    )
    return running, state


def _screen_block(
    family: Family,
    block: Setups,
    slots: NDArray[np.float64],
    size: Lengths,
    limits: Limits,
    batches: int,
    *,
    prefill: bool,
    decode: DecodeSteps | None,
) -> tuple[NDArray[np.float64], ...]:
    """Return, by set-up: bound, running cap, least prefill, TPOT at the smallest batch, batches served, first token."""
    running, state = grid_state(family, block, size, batches, prefill=prefill, decode=decode)
    full_tpot = state.tpot_s + limits.safety * state.stall_s * np.sqrt(running)
    held = np.asarray(state.in_service)
    first = first_token_floor(np.asarray(state.prefill_s)[:, 0], size, limits)
    allowed = np.asarray(limits.tpot_within(first, size.decoded, float(size.output_cv)))[:, None]
    over = np.maximum.accumulate(np.maximum(held / slots[:, None], full_tpot / np.maximum(allowed, 1e-12)), axis=1)
    # TPOT is nearly linear in the batch, so it is what gets interpolated; the rate follows from it.
    found = Crossing(over)
    decoding, tpot, cap = found.between(running), found.below(np.asarray(state.tpot_s)), found.between(held)
    bound = decoding / (size.decoded * np.maximum(tpot, 1e-300))
    return (
        bound * (LOAD_LIMIT * INTERPOLATION_MARGIN),
        cap,
        first,
        np.asarray(full_tpot)[:, 0],
        found.count.astype(float),
        first + _idle_front_s(family, state),
    )


def _idle_front_s(family: Family, state: Steady) -> NDArray[np.float64]:
    """Return what the first token takes beside its prefill where hardly anything else runs. [s]"""
    return 0.5 * np.asarray(state.decode_step_s)[:, 0] + family.machine.request_overhead_s


def fitting(
    family: Family, setups: Setups, workload: Workload, *, role: str
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Return which set-ups hold at least one request a rank and stage, and how many requests each holds."""
    use = memory_of(family, setups, workload, role=role)
    slots = slot_limit(family, np.asarray(use.sequences), setups)
    return slots >= setups.dp * setups.pp, slots


def memory_of(family: Family, setups: Setups, workload: Workload, *, role: str) -> MemoryUse:
    """Return what set-ups keep in memory, as workers of a role."""
    return serving_memory(
        family.model,
        family.machine,
        setups.flat_layouts,
        role=role,
        input_tokens=workload.input_tokens,
        output_tokens=workload.output_tokens,
        output_cv=workload.output_cv,
        chunk_tokens=setups.chunk_tokens,
        draft_depth=setups.depth,
    )


def first_token_floor(prefill_s: NDArray[np.float64], size: Lengths, limits: Limits) -> NDArray[np.float64]:
    """Return the least time to first token at the limits' statistic: the prefill alone, for a prompt of its length."""
    q = limits.quantile
    return prefill_s if q is None else prefill_s * lognormal_factor(float(size.input_cv), q)


class Crossing:
    """Where rows over the batch grid, which never fall, reach 1; a row that is above it from the start gets 0.

    Between two points of the grid a curve that bends one way lies above min(chord, max(left, right)): the chord where
    it bends down, and, where it bends up, the neighbouring chords drawn on. Prompts that fill more than one chunk a
    step bend TPOT up sharply; the chord alone is up to 4 % above it there.
    """

    def __init__(self, over: NDArray[np.float64]) -> None:
        """Find the interval of the grid in which each row reaches 1, and the latest place in it."""
        last = over.shape[1] - 1
        self.rows = np.arange(over.shape[0])
        self.count = (over <= 1.0).sum(axis=1)
        self.low, self.high = np.clip(self.count - 1, 0, last), np.clip(self.count, 0, last)
        self.before, self.after = np.maximum(self.low - 1, 0), np.minimum(self.high + 1, last)
        self.part = np.zeros(over.shape[0])
        start, end, left, right = self._lines(over)
        with np.errstate(divide="ignore", invalid="ignore"):
            by_chord = (1.0 - start) / (end - start)
            by_left = np.where(left > 0.0, (1.0 - start) / left, np.inf)
            by_right = np.where(right > 0.0, 1.0 - (end - 1.0) / right, 0.0)
        latest = np.maximum(by_chord, np.minimum(by_left, np.where(np.isfinite(right), by_right, np.inf)))
        self.part = np.where(end > start, np.clip(latest, 0.0, 1.0), 0.0)

    def _lines(self, column: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
        """Return a column at both ends of the interval, and the rise over it of the chords to the left and right."""
        points = [column[self.rows, at] for at in (self.before, self.low, self.high, self.after)]
        width = BATCH_GRID[self.high] - BATCH_GRID[self.low]
        with np.errstate(divide="ignore", invalid="ignore"):
            left = width * (points[1] - points[0]) / (BATCH_GRID[self.low] - BATCH_GRID[self.before])
            right = width * (points[3] - points[2]) / (BATCH_GRID[self.after] - BATCH_GRID[self.high])
        # At an end of the grid only the other neighbour says something.
        left = np.where(self.before < self.low, left, -np.inf)
        return points[1], points[2], left, np.where(self.after > self.high, right, np.inf)

    def between(self, column: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return a column there, by a straight line."""
        start, end = column[self.rows, self.low], column[self.rows, self.high]
        return np.where(self.count > 0, start + self.part * (end - start), 0.0)

    def below(self, column: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what a column is at least there."""
        start, end, left, right = self._lines(column)
        with np.errstate(invalid="ignore"):
            drawn = np.maximum(
                np.where(self.part > 0.0, start + self.part * left, start),
                np.where(self.part < 1.0, end - (1.0 - self.part) * right, end),
            )
        return np.where(self.count > 0, np.minimum(self.between(column), drawn), 0.0)
