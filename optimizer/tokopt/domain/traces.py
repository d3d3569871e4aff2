"""Requests as they came or might come: arrays of a stretch of a trace, and what one says about a whole one."""

from __future__ import annotations

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


def plain_chunk(
    time_s: NDArray[np.float64], input_tokens: NDArray[np.int64], output_tokens: NDArray[np.int64]
) -> TraceChunk:
    """Return a stretch of one class in which nothing is known to repeat."""
    n = int(time_s.size)
    return TraceChunk(
        time_s=time_s,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        classes=np.zeros(n, dtype=np.int64),
        hash_start=np.zeros(n + 1, dtype=np.int64),
    )
