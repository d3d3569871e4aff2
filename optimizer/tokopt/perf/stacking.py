"""Records of several machines or models as one record of arrays, so that rows of all kinds are predicted at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokopt.perf.arithmetic import AttentionCost, LlmArithmetic
from tokopt.perf.machine import Peaks

# What pads models with fewer kinds of attention than others: a kind that costs nothing.
NO_ATTENTION = AttentionCost(
    layers=0,
    kv_bytes_per_token=0.0,
    kv_shards=1,
    read_limit_tokens=float("inf"),
    resident_limit_tokens=float("inf"),
    state_bytes=0.0,
    decode_flop_per_pair=0.0,
    prefill_flop_per_pair=0.0,
    index_bytes_per_token=0.0,
    index_flop_per_pair=0.0,
)


def stack_peaks(peaks: Sequence[Peaks], index: NDArray[np.int64]) -> Peaks:
    """Return peaks of one element a row: row i has those of `peaks[index[i]]`."""
    return Peaks(**_columns(Peaks, peaks, index))


def stack_models(models: Sequence[LlmArithmetic], index: NDArray[np.int64]) -> LlmArithmetic:
    """Return arithmetic of one element a row: row i has that of `models[index[i]]`."""
    kinds = max(len(model.attention) for model in models)
    attention = tuple(
        AttentionCost(
            **_columns(
                AttentionCost,
                [model.attention[k] if k < len(model.attention) else NO_ATTENTION for model in models],
                index,
            )
        )
        for k in range(kinds)
    )
    if any(model.drafter is not None for model in models):
        raise ValueError("models with drafters of their own do not stack")
    columns = _columns(LlmArithmetic, models, index, but=("attention", "drafter"))
    return LlmArithmetic(**columns, attention=attention)


def _columns(kind: Any, records: Sequence[Any], index: NDArray[np.int64], but: Sequence[str] = ()) -> dict[str, Any]:
    names = [f.name for f in fields(kind) if f.name not in but]
    return {name: np.array([float(getattr(r, name)) for r in records])[index] for name in names}
