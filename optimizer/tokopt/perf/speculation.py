"""Multi-token prediction: how many tokens a verified step yields."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tokopt.perf.arrays import Floats


def accepted_tokens(chances: Sequence[float], depth: Floats) -> NDArray[np.float64]:
    """Mean tokens that a step yields with `depth` draft tokens.

    1 + p₁ + p₁p₂ + … + p₁…p_d: draft token i counts only if all before it were accepted
    (Leviathan, Kalman & Matias, arXiv 2211.17192, §3.1, with a chance of its own for each position).

    Args:
        chances: Chance that draft token i is accepted given that all before it were; the last one holds beyond.
        depth: Draft tokens a step.
    """
    wanted = np.asarray(depth, dtype=int)
    deepest = int(wanted.max(initial=0))
    ladder = [chances[min(i, len(chances) - 1)] for i in range(deepest)] if deepest else []
    yields = np.concatenate([[1.0], 1.0 + np.cumsum(np.cumprod(ladder))]) if ladder else np.ones(1)
    return np.asarray(yields[wanted], dtype=float)
