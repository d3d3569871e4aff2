"""The highest load that keeps limits, where a look at a load says how far the worst latency is from its limit."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol, TypeVar

LEAST_LOAD, MOST_LOAD = 0.02, 8.0  # of the planned rate, between which loads are tried
FIRST_STEP = 1.12  # from the first load to the next; each further step is the last one's power
FASTER = 1.9
MOST_STEP = 2.5
INSIDE = 0.15  # of a bracket's width: how far from its ends a load is tried at least


class AtLoad(Protocol):
    """What was seen at a load."""

    @property
    def load(self) -> float:
        """Of the planned rate."""

    @property
    def worst(self) -> float:
        """Latency over its limit; infinite = more comes than is answered."""


LookT = TypeVar("LookT", bound=AtLoad)


def highest_load(look: Callable[[float], LookT], start: float, tolerance: float) -> tuple[float, list[LookT]]:
    """Return the highest load that keeps the limits, to a relative tolerance, and all looks that it took.

    Latencies grow with the load, steeply near the end: the logarithm of the worst over its limit is taken as a straight
    line of the logarithm of the load between a load that keeps the limits and one that does not. 0 = none keeps them.

    Args:
        look: Looks at a load.
        start: Where to begin.
        tolerance: Width of the last bracket, relative.
    """
    kept: LookT | None = None
    missed: LookT | None = None
    seen: list[LookT] = []
    load, step = min(max(start, LEAST_LOAD), MOST_LOAD), min(FIRST_STEP, (1.0 + tolerance) ** 2)
    while True:
        found = look(load)
        seen.append(found)
        if found.worst <= 1.0:
            kept = found
        else:
            missed = found
        if kept is not None and missed is not None:
            break
        step = max(step, FIRST_STEP) if math.isinf(found.worst) else step
        if kept is not None:
            if load >= MOST_LOAD:
                return load, seen
            load = min(load * step, MOST_LOAD)
        else:
            if load <= LEAST_LOAD:
                return 0.0, seen
            load = max(load / step, LEAST_LOAD)
        step = min(step**FASTER, MOST_STEP)
    while missed.load / kept.load > 1.0 + tolerance:
        found = look(_between(kept, missed))
        seen.append(found)
        if found.worst <= 1.0:
            kept = found
        else:
            missed = found
    return _crossing(kept, missed), seen


def _between(kept: AtLoad, missed: AtLoad) -> float:
    low, high = math.log(kept.load), math.log(missed.load)
    at = math.log(_crossing(kept, missed)) if math.isfinite(missed.worst) else 0.5 * (low + high)
    room = INSIDE * (high - low)
    return math.exp(float(min(max(at, low + room), high - room)))


def _crossing(kept: AtLoad, missed: AtLoad) -> float:
    """Return where a straight line between two looks meets the limit."""
    if not math.isfinite(missed.worst):
        return kept.load
    below, above = -math.log(max(kept.worst, 1e-9)), math.log(missed.worst)
    share = below / (below + above) if below + above > 0.0 else 0.0
    return float(kept.load * (missed.load / kept.load) ** share)
