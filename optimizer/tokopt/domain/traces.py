"""Requests as they came or might come: arrays of a stretch of a trace, and what one says about a whole one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceChunk:
    """A stretch of a trace in the order of arrival, one element a request; a trace is an iterator of these.

    Prompts that start alike have the same leading block hashes: each names `block_tokens` tokens and all before them.
    Only whole blocks have one. `hashes[hash_start[i]:hash_start[i + 1]]` are those of request i.
    """

    time_s: NDArray[np.float64]  # from the first request of the trace on
    input_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    classes: NDArray[np.int64]  # number of a class; 0 where a trace has none
    hash_start: NDArray[np.int64]  # one more than there are requests; all zero where nothing is known to repeat
    hashes: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    block_tokens: int = 0  # 0 = no hashes

    @property
    def requests(self) -> int:
        """Requests of the stretch."""
        return int(self.time_s.size)


def taken(chunk: TraceChunk, rows: NDArray[np.int64]) -> TraceChunk:
    """Return the requests with these numbers, in this order, with their hashes."""
    starts = chunk.hash_start[rows]
    counts = chunk.hash_start[rows + 1] - starts
    hash_start = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts)])
    places = np.arange(hash_start[-1]) + np.repeat(starts - hash_start[:-1], counts)
    return TraceChunk(
        time_s=chunk.time_s[rows],
        input_tokens=chunk.input_tokens[rows],
        output_tokens=chunk.output_tokens[rows],
        classes=chunk.classes[rows],
        hash_start=hash_start,
        hashes=chunk.hashes[places],
        block_tokens=chunk.block_tokens,
    )


def joined(chunks: Sequence[TraceChunk]) -> TraceChunk:
    """Return stretches of one trace as one; there is at least one."""
    ends = np.cumsum([0, *(int(chunk.hash_start[-1]) for chunk in chunks)])
    starts = [chunk.hash_start[:-1] + end for chunk, end in zip(chunks, ends[:-1], strict=True)]
    return TraceChunk(
        time_s=np.concatenate([chunk.time_s for chunk in chunks]),
        input_tokens=np.concatenate([chunk.input_tokens for chunk in chunks]),
        output_tokens=np.concatenate([chunk.output_tokens for chunk in chunks]),
        classes=np.concatenate([chunk.classes for chunk in chunks]),
        hash_start=np.concatenate([*starts, ends[-1:]]).astype(np.int64),
        hashes=np.concatenate([chunk.hashes for chunk in chunks]),
        block_tokens=chunks[0].block_tokens,
    )
