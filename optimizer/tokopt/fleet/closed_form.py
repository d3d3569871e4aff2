"""The one case that needs no solver: filling a power limit with one class of requests and nothing else scarce.

Cost per token is a ratio of sums, so no mix is cheaper than its cheapest column:

    Σ c_j n_j / Σ t_j n_j ≥ min_j c_j / t_j

The best column alone attains that bound, and fills the limit as far as whole blocks go. Both sides meet: gap 0.
"""

from __future__ import annotations

import math

from tokopt.fleet.problem import FleetProblem, FleetSolution, Goal, Stop

SAME = 1e-12  # relative difference below which two ratios are a tie


def closed_form(problem: FleetProblem) -> FleetSolution | None:
    """Return the optimum where arithmetic proves it, None where a solver has to look.

    Ties in cost per token go to the column that serves most within the limit, then to the first.
    """
    free = not (
        problem.offer_units
        or problem.accelerator_stock
        or problem.budget_usd_per_hour is not None
        or problem.most_accelerator_types is not None
    )
    if problem.goal is not Goal.COST_PER_TOKEN or len(problem.demand) != 1 or problem.power_w is None or not free:
        return None
    if not all(c.power_w > 0.0 and c.usd_per_hour > 0.0 for c in problem.columns):
        return None
    best: tuple[float, float, int, int] | None = None
    for j, column in enumerate(problem.columns):
        blocks = math.floor(problem.power_w / column.power_w * (1.0 + 1e-12))
        tokens = column.requests_per_s[0] * problem.tokens_per_request[0] * 3600.0 / 1e6
        if blocks < 1 or tokens <= 0.0:
            continue
        ratio, served = column.usd_per_hour / tokens, tokens * blocks
        tie = best is not None and abs(ratio - best[0]) <= SAME * ratio
        if best is None or (served > best[1] if tie else ratio < best[0]):
            best = (ratio, served, j, blocks)
    if best is None:
        return None
    ratio, _, chosen, blocks = best
    count = range(len(problem.columns))
    return FleetSolution(
        stop=Stop.OPTIMAL,
        blocks=tuple(blocks if j == chosen else 0 for j in count),
        rates=tuple((problem.columns[j].requests_per_s[0] * blocks if j == chosen else 0.0,) for j in count),
        objective=ratio,
        bound=ratio,
        gap=0.0,
        solver="closed form",
    )
