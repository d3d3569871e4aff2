"""What of a trace's prompts repeats, and how much has to stay cached for it to be found."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tokopt.domain.trace_summaries import CacheShare, ReuseSummary
from tokopt.domain.traces import TraceChunk

BLOCKS_AT_A_TIME = 1 << 18  # of a stretch: bounds what is set aside beyond the distinct blocks
SMALLEST = 1 << 10
OCTAVES = 44  # of distances and of gaps
NUMBER = np.int32  # of a block: two thousand million of them fill a host's memory first


class PrefixReuse:
    """An endless cache of one stream, with the stack distance of all that is found in it.

    Memory is that of the distinct blocks, 40 to 90 bytes each, whatever the length of the trace.
    """

    def __init__(self, block_tokens: int) -> None:
        from tokopt.simulation.stack_distances import DISTANCES_AN_OCTAVE, GAPS_AN_OCTAVE

        self.block_tokens = block_tokens
        self.input_tokens = 0
        self._per_octave = (DISTANCES_AN_OCTAVE, GAPS_AN_OCTAVE)
        self._distances = np.zeros(OCTAVES * DISTANCES_AN_OCTAVE, dtype=np.int64)
        self._gaps = np.zeros(OCTAVES * GAPS_AN_OCTAVE, dtype=np.int64)
        self._keys = np.zeros(SMALLEST, dtype=np.int64)
        self._slots = np.full(SMALLEST, -1, dtype=NUMBER)
        self._position = np.zeros(0, dtype=NUMBER)
        self._last_s = np.zeros(0)
        self._tree = np.zeros(1, dtype=NUMBER)
        self._state = np.zeros(2, dtype=np.int64)  # blocks, next position

    def add(self, chunk: TraceChunk) -> NDArray[np.int64]:
        """Take more requests, and return how many tokens of each are found."""
        from tokopt.simulation.stack_distances import follow

        self.input_tokens += int(chunk.input_tokens.sum())
        found = np.zeros(chunk.requests, dtype=np.int64)
        first = 0
        while first < chunk.requests:
            limit = chunk.hash_start[first] + BLOCKS_AT_A_TIME
            end = max(int(np.searchsorted(chunk.hash_start, limit, side="right")) - 1, first + 1)
            starts = chunk.hash_start[first : end + 1]
            self._make_room(int(starts[-1] - starts[0]))
            follow(
                chunk.time_s[first:end],
                starts,
                chunk.hashes,
                self._keys,
                self._slots,
                self._position,
                self._last_s,
                self._tree,
                self._state,
                self._distances,
                self._gaps,
                found[first:end],
            )
            first = end
        return found * self.block_tokens

    def _make_room(self, more: int) -> None:
        """Grow what is too small for so many more uses, and number the positions anew where they run out."""
        from tokopt.simulation.stack_distances import rehash

        blocks, clock = (int(value) for value in self._state)
        if self._slots.size < 2 * (blocks + more):
            keys = np.zeros(_power_of_two(2 * (blocks + more)), dtype=np.int64)
            slots = np.full(keys.size, -1, dtype=NUMBER)
            rehash(self._keys, self._slots, keys, slots)
            self._keys, self._slots = keys, slots
        if self._position.size < blocks + more:
            size = _power_of_two(blocks + more)
            self._position = np.concatenate([self._position[:blocks], np.zeros(size - blocks, dtype=NUMBER)])
            self._last_s = np.concatenate([self._last_s[:blocks], np.zeros(size - blocks)])
        if clock + more >= self._tree.size:
            order = np.argsort(self._position[:blocks])
            self._position[order] = np.arange(blocks)
            self._state[1] = blocks
            places = np.arange(_power_of_two(2 * blocks + more) + 1, dtype=NUMBER)
            covered = places & -places  # elements that one of the tree sums up
            self._tree = np.clip(np.minimum(places, blocks) - (places - covered), 0, None).astype(NUMBER)

    def summary(self, late_share: float | None) -> ReuseSummary:
        """Return what was found; `late_share` is that of the second half of the trace."""
        block = self.block_tokens
        blocks = np.cumsum(self._distances)
        total = float(max(self.input_tokens, 1))
        half, most, nearly = (self._cached_for(share) for share in (0.5, 0.9, 0.99))
        octaves = np.flatnonzero(self._distances.reshape(OCTAVES, -1).any(axis=1))
        curve = [
            CacheShare(
                cached_tokens=float(2 ** (n + 1) * block),
                share=float(blocks[(n + 1) * self._per_octave[0] - 1] * block / total),
            )
            for n in (range(octaves[0], octaves[-1] + 1) if octaves.size else ())
        ]
        early, middle, late = (self._gap_of(share) for share in (0.1, 0.5, 0.9))
        return ReuseSummary(
            block_tokens=block,
            reusable_share=float(blocks[-1]) * block / total,
            late_share=late_share,
            distinct_tokens=float(self._state[0]) * block,
            cached_for_half=half,
            cached_for_90=most,
            cached_for_99=nearly,
            gap_p10_s=early,
            gap_p50_s=middle,
            gap_p90_s=late,
            curve=tuple(curve),
        )

    def _cached_for(self, share: float) -> float:
        """Return the tokens that must stay cached for a share of what is reusable to be found."""
        place = _place(self._distances, share)
        return 0.0 if place is None else float(np.floor(2.0 ** ((place + 1) / self._per_octave[0]))) * self.block_tokens

    def _gap_of(self, share: float) -> float:
        from tokopt.simulation.stack_distances import GAP_UNIT_S

        place = _place(self._gaps, share)
        return 0.0 if not place else float(2.0 ** ((place - 0.5) / self._per_octave[1])) * GAP_UNIT_S


def _place(counts: NDArray[np.int64], share: float) -> int | None:
    """Return the bin that a share of the counts ends in; None where there are none."""
    sums = np.cumsum(counts)
    return int(np.searchsorted(sums, share * sums[-1])) if sums[-1] else None


def _power_of_two(least: int) -> int:
    return max(1 << (least - 1).bit_length(), SMALLEST)


def plan_working_set(reuse: ReuseSummary, input_tokens: float) -> tuple[float, float]:
    """Return the working set with which plans' caches find what the trace's LRU cache does, and how well it fits.

    A stated share r of prompts of I tokens with a working set w is w/S prefixes of S = r·I tokens, met alike (see
    `perf.caching.pattern_of`). With Che's characteristic time t, a share x of them is found where 1 - exp(-λt·S/w) = x;
    prefixes and what else comes by within t, I - S a request, then fill

        C(x) = w·(x - ln(1 - x)·(I - S)/S)

    which is solved for w at x = 0.5 and 0.9, with C(x) of the trace. The mean of both ratios is taken; the second value
    is w(0.9)/w(0.5), 1 where one working set says it all. At least what one request reuses.

    Args:
        reuse: Of the trace, where something repeats.
        input_tokens: Mean prompt, I.
    """
    shared = reuse.reusable_share * input_tokens
    half, nine = (
        cached / (share - math.log1p(-share) * (input_tokens - shared) / shared)
        for share, cached in ((0.5, reuse.cached_for_half), (0.9, reuse.cached_for_90))
    )
    return max(math.sqrt(half * nine), shared), nine / half
