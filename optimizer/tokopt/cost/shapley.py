"""What each of several factors is worth in a total that they only make together: Shapley values.

A coalition is a set of factors, written as a number whose bit i says whether factor i is in it; values of coalitions
are arrays whose first axis has one element a coalition, 2^n of them.

[1] L. S. Shapley, "A Value for n-Person Games", Contributions to the Theory of Games II, 1953, p. 307.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray


def shapley_values(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of each factor: what it adds, averaged over all orders in which factors can be added.

    phi_i = sum over S without i of |S|! (n - |S| - 1)! / n! * (v(S + i) - v(S))                       ([1], eq. 13)

    Args:
        values: v(S) by coalition, along the first axis; further axes are further figures of the same coalitions.

    Returns:
        One element a factor along the first axis. They add up to v(all) - v(none), up to rounding.

    Raises:
        ValueError: The length is not a power of two.
    """
    coalitions = len(values)
    count = coalitions.bit_length() - 1
    if coalitions != 1 << count:
        raise ValueError(f"{coalitions} values of coalitions: a power of two is needed")
    every = np.arange(coalitions)
    sizes = np.array([int(each).bit_count() for each in every])
    orders = math.factorial(count)
    weights = np.array([math.factorial(s) * math.factorial(count - s - 1) / orders for s in range(count)])
    shares = np.empty((count, *values.shape[1:]))
    for factor in range(count):
        without = every[every >> factor & 1 == 0]
        added = values[without | 1 << factor] - values[without]
        shares[factor] = (weights[sizes[without]].reshape(-1, *[1] * (values.ndim - 1)) * added).sum(axis=0)
    return shares


def with_missing(costs: Sequence[float | None]) -> list[int]:
    """Return for each coalition the coalition that it counts as: itself, or where it has no value the dearest subset.

    A coalition without a value counts as the dearest of those that lack one of its factors, so that what is missing
    is worth nothing more than what was there before. Ties keep the lowest number.

    Args:
        costs: Cost of each coalition, None where it has none.

    Raises:
        ValueError: The empty coalition has no value.
    """
    if costs[0] is None:
        raise ValueError("the empty coalition has no value")
    stands_for = list(range(len(costs)))
    for coalition, cost in enumerate(costs):  # subsets have smaller numbers
        if cost is not None:
            continue
        smaller = [stands_for[coalition ^ bit] for bit in _bits(coalition)]
        stands_for[coalition] = max(sorted(set(smaller)), key=lambda known: costs[known] or 0.0)
    return stands_for


def _bits(coalition: int) -> list[int]:
    return [1 << k for k in range(coalition.bit_length()) if coalition >> k & 1]


def balanced(start: float, shares: Sequence[float], end: float) -> list[float]:
    """Return shares whose exact sum with `start` rounds to `end`: `math.fsum((start, *shares)) == end`.

    What rounding has lost is given back to the shares, the largest first, so that each next one takes what the one
    before could not hold. That comes out exactly unless every share is larger than `end` by far: then no numbers of 53
    bits add up to it, and the sum is off by less than the last digit of the smallest share. Where all are as large, a
    `start` exactly half way between two sums may leave a tie, which is off by half the last digit.
    """
    kept = [float(share) for share in shares]
    for place in sorted(range(len(kept)), key=lambda k: (-abs(kept[k]), k)):
        if math.fsum((start, *kept)) == end:
            break
        lost = Fraction(end) - sum(map(Fraction, kept), Fraction(start))
        kept[place] = float(Fraction(kept[place]) + lost)
    return kept
