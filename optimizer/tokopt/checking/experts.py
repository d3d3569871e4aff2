"""Load of the fullest accelerator where texts ask for some experts more than for others, worked out one by one.

Popularities are log-normal. Nothing balanced: sums of them are (Fenton, IRE Trans. Commun. Syst. 8(1), 1960), and the
largest of g lies at the quantile (g - 3/8)/(g + 1/4) (Blom, 1958). Balanced: copies go where most load a copy is, and
the fullest copies first to the emptiest accelerators (github.com/deepseek-ai/EPLB).
"""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

from tokopt.domain.expert_traffic import ExpertTraffic


def popularity_sigma(traffic: ExpertTraffic | None) -> float:
    """Return the standard deviation of the logarithm of popularity that the traffic's stated load comes from.

    With v = s² of one accelerator's sum: ln(load) = z·s - s²/2, and v = ln(1 + (exp(σ²) - 1)·g/E).
    """
    if traffic is None or traffic.fullest is None or traffic.experts is None or traffic.expert_parallel is None:
        return 0.0
    z = _highest(traffic.expert_parallel)
    s = z - math.sqrt(z * z - 2.0 * math.log(traffic.fullest))
    held = traffic.experts / traffic.expert_parallel
    return math.sqrt(math.log(1.0 + held * (math.exp(s * s) - 1.0)))


def _highest(count: int) -> float:
    return NormalDist().inv_cdf((count - 0.375) / (count + 0.25)) if count > 1 else 0.0


@lru_cache(maxsize=256)
def fullest_load(experts: int, accelerators: int, copies: int, sigma: float) -> float:
    """Return the load of the fullest accelerator over the mean; more copies than help are left unused."""
    if accelerators <= 1 or not experts or not sigma:
        return 1.0
    s2 = math.log(1.0 + (math.exp(sigma * sigma) - 1.0) * accelerators / experts)
    plain = math.exp(_highest(accelerators) * math.sqrt(s2) - s2 / 2.0)
    best = min(max(plain, 1.0), float(accelerators))
    used = copies
    while used > 0:
        best = min(best, _packed(experts, accelerators, used, sigma))
        used -= accelerators
    return best


def _packed(experts: int, accelerators: int, copies: int, sigma: float) -> float:
    normal = NormalDist()
    weights = [math.exp(sigma * normal.inv_cdf(1.0 - (i + 0.5) / experts)) for i in range(experts)]
    counts = [1] * experts
    for _ in range(copies):
        most = max(range(experts), key=lambda i: weights[i] / counts[i])
        counts[most] += 1
    parts = sorted((w / c for w, c in zip(weights, counts, strict=True) for _ in range(c)), reverse=True)
    room = (experts + copies) // accelerators
    loads, held = [0.0] * accelerators, [0] * accelerators
    for part in parts:
        emptiest = min((a for a in range(accelerators) if held[a] < room), key=lambda a: loads[a])
        loads[emptiest] += part
        held[emptiest] += 1
    return max(loads) * accelerators / sum(weights)
