"""Figures of histograms, and how sure they are after a few independent runs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64] | NDArray[np.float64]  # weighted where classes stand for more requests than others

CONFIDENCE = 0.95


def quantile(counts: Counts, sums: NDArray[np.float64], q: float) -> float:
    """Return a quantile of a histogram: the mean of what is in its bin; not a number where it is empty."""
    total = float(counts.sum())
    if total == 0.0:
        return math.nan
    at = int(np.searchsorted(np.cumsum(counts), q * total * (1.0 - 1e-12)))
    return float(sums[at] / counts[at])


def mean(counts: Counts, sums: NDArray[np.float64]) -> float:
    """Return the mean of a histogram; not a number where it is empty."""
    total = float(counts.sum())
    return float(sums.sum()) / total if total else math.nan


def half_width(values: Sequence[float], confidence: float = CONFIDENCE) -> float | None:
    """Return half the width of the confidence interval of a mean of independent values; None for fewer than two.

    Student's t (Law, Simulation Modeling and Analysis, 5th ed., §4.5).
    """
    sound = [value for value in values if math.isfinite(value)]
    if len(sound) < 2:
        return None
    from scipy.special import stdtrit

    deviation = float(np.std(sound, ddof=1))
    return float(stdtrit(len(sound) - 1, 0.5 + 0.5 * confidence)) * deviation / math.sqrt(len(sound))
