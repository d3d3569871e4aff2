"""Load of the fullest accelerator over the mean where experts are not asked for alike, with and without copies of them.

Popularities of a layer's experts are taken as log-normal with one spread σ, the standard deviation of their logarithm;
σ = 0 is the uniform traffic of benchmarks with random prompts.
"""

from __future__ import annotations

import heapq
import math
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from tokopt.perf.arrays import Floats

BLOM = 0.375  # plotting position of normal order statistics (Blom, Statistical Estimates, 1958)


def largest_of(group: float) -> float:
    """Mean of the largest of `group` standard normal variables: Φ⁻¹((g - 3/8)/(g + 1/4)) (Blom, 1958)."""
    return NormalDist().inv_cdf((group - BLOM) / (group + 1.0 - 2.0 * BLOM)) if group > 1.0 else 0.0


def as_placed(experts: int, group: int, spread: float) -> float:
    """Load of the fullest of `group` accelerators over the mean, experts placed without regard to their popularity.

    A sum of m = E/g log-normal popularities is taken as log-normal with s² = ln(1 + (exp(σ²) - 1)/m) (Fenton, IRE
    Trans. Commun. Syst. 8(1), 1960); the largest of g of them is exp(z·s - s²/2) of the mean, z from `largest_of`.
    """
    each = math.sqrt(math.log1p(math.expm1(spread**2) * group / experts))
    return min(max(math.exp(largest_of(group) * each - 0.5 * each**2), 1.0), float(group))


def spread_of(load: float, *, experts: int, group: int) -> float:
    """Return the spread σ of popularities under which `as_placed` is `load`.

    Raises:
        ValueError: No spread makes the fullest of so few accelerators that full.
    """
    z = largest_of(group)
    if not 1.0 <= load <= math.exp(0.5 * z**2):
        raise ValueError(f"no popularity of {experts} experts over {group} accelerators has a load of {load:g}")
    each = z - math.sqrt(z**2 - 2.0 * math.log(load))
    return math.sqrt(math.log1p(math.expm1(each**2) * experts / group))


def popularity(experts: int, spread: float) -> NDArray[np.float64]:
    """Return the loads of experts over their mean, falling: log-normal quantiles at (i - 1/2)/E."""
    normal = NormalDist()
    loads = np.exp([spread * normal.inv_cdf((experts - i - 0.5) / experts) for i in range(experts)])
    return np.asarray(loads / loads.mean(), dtype=float)


@lru_cache(maxsize=1024)
def balanced(experts: int, group: int, redundant: int, spread: float) -> float:
    """Load of the fullest accelerator over the mean with `redundant` copies, placed by popularity.

    As DeepSeek's EPLB does it without groups of experts (github.com/deepseek-ai/EPLB): each copy goes to the expert
    with most load a copy; copies, fullest first, go to the accelerator with the least load that has a slot left. Copies
    that would not help are left out, so that more of them never make it worse; 0 is `as_placed`: nothing is moved.

    Raises:
        ValueError: The slots do not divide evenly.
    """
    if redundant <= 0:
        return as_placed(experts, group, spread)
    slots, rest = divmod(experts + redundant, group)
    if rest:
        raise ValueError(f"{experts} experts and {redundant} copies do not divide over {group} accelerators")
    fewer = redundant - group
    least = balanced(experts, group, max(fewer, 0), spread)
    loads = popularity(experts, spread)
    parts = [(-float(load), 1) for load in loads]  # of one copy, negative; number of copies
    heapq.heapify(parts)
    for _ in range(redundant):
        each, count = parts[0]
        heapq.heapreplace(parts, (each * count / (count + 1), count + 1))
    copies = sorted((-each for each, count in parts for _ in range(count)), reverse=True)
    groups = [(0.0, number, 0) for number in range(group)]
    fullest = 0.0
    for each in copies:
        load, number, held = heapq.heappop(groups)
        fullest = max(fullest, load + each)
        if held + 1 < slots:
            heapq.heappush(groups, (load + each, number, held + 1))
    return min(fullest * group / experts, least)


def traffic_imbalance(experts: int, group: Floats, redundant: Floats, spread: float) -> Floats:
    """Return `balanced` of each layout: 1 where the spread is zero, or experts are not spread."""
    if not spread or not experts:
        return 1.0
    groups, copies = np.broadcast_arrays(np.asarray(group, dtype=float), np.asarray(redundant, dtype=float))
    loads = [
        1.0 if each <= 1 else balanced(experts, int(each), int(more), spread)
        for each, more in zip(groups.ravel().tolist(), copies.ravel().tolist(), strict=True)
    ]
    return np.array(loads).reshape(groups.shape)


def redundancies(experts: int, group: int, more: tuple[int, ...]) -> tuple[int, ...]:
    """Return the numbers of copies that fill slots evenly: the fewest, and `more` further slots an accelerator."""
    if group <= 1 or experts < group:
        return ()
    fill = -experts % group
    return tuple(sorted({n for extra in (0, *more) if (n := fill + extra * group) > 0}))
