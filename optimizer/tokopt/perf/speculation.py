"""Speculation: how many tokens a verified step yields."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tokopt.domain.speculators import Domain, Speculator
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


def draft_chances(speculator: Speculator, domain: Domain | None) -> tuple[float, ...]:
    """Chances of a speculator's draft tokens for texts of a domain.

    Without a domain, or with one that nothing was published for, tokens a step are the mean over the domains:
    p_i = Σ_k c_k,i / Σ_k c_k,i-1, with c_k,i the chance in domain k that draft token i and all before it are accepted.
    """
    known = speculator.acceptance.get(domain) if domain is not None else None
    if known is not None:
        return known.chances
    chains = np.mean([np.cumprod(each.chances) for each in speculator.acceptance.values()], axis=0)
    before = np.concatenate([[1.0], chains[:-1]])
    return tuple((chains / before).tolist())


def acceptance_unsure(speculator: Speculator, domain: Domain | None, depth: int) -> float:
    """Share of a step's tokens that is left where drafts are accepted as seldom as they may be, at 80 %.

    The tokens beyond the first may be `spread` fewer than published; where the domain is not known, also as few as in
    the domain with the fewest. The two are independent and add up in squares.
    """
    mean = float(accepted_tokens(draft_chances(speculator, domain), np.array([depth]))[0])
    least = mean
    if domain not in speculator.acceptance:
        each = (accepted_tokens(known.chances, np.array([depth])) for known in speculator.acceptance.values())
        least = min(float(tokens[0]) for tokens in each)
    missing = np.hypot(speculator.spread * (mean - 1.0), mean - least)
    return float(max(mean - missing, 1.0) / mean)
