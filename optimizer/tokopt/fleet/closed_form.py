"""The one case that needs no solver: filling a power limit with one class of requests and nothing else scarce.

Cost per token is a ratio of sums, so no mix is cheaper than its cheapest column:

    Σ c_j n_j / Σ t_j n_j ≥ min_j c_j / t_j

The best column alone attains that bound, and fills the limit as far as whole blocks go. Both sides meet: gap 0.
"""

from __future__ import annotations

import math

from tokopt.fleet.problem import Binding, FleetProblem, FleetSolution, Goal, GoalValue, Stop, Survive

SAME = 1e-12  # relative difference below which two ratios are a tie


def closed_form(problem: FleetProblem) -> FleetSolution | None:
    """Return the optimum where arithmetic proves it, None where a solver has to look.

    Ties in cost per token go to the column that serves most within the limit, then to the first.
    """
    if problem.goal is not Goal.COST_PER_TOKEN or len(problem.demand) != 1 or problem.power_w is None:
        return None
    if not only_power_limits(problem):
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
    column = problem.columns[chosen]
    fleet = tuple(blocks if j == chosen else 0 for j in count)
    rates = tuple((column.requests_per_s[0] * blocks if j == chosen else 0.0,) for j in count)
    used = column.power_w * blocks
    return FleetSolution(
        stop=Stop.OPTIMAL,
        blocks=fleet,
        rates=rates,
        objective=ratio,
        bound=ratio,
        gap=0.0,
        solver="closed form",
        blocks_by_period=(fleet,),
        rates_by_period=(rates,),
        goals=(GoalValue(problem.goal, ratio, ratio, 0.0),),
        usd_per_hour=column.usd_per_hour * blocks,
        revenue_usd_per_hour=sum(problem.usd_per_request) * rates[chosen][0] * 3600.0,
        power_w=used,
        carbon_g_per_hour=column.carbon_g_per_hour * blocks,
        binding=(
            Binding(
                name="power",
                period=problem.periods[0].name,
                used=used,
                limit=problem.power_w,
                slack=problem.power_w - used,
            ),
        ),
        detail="no mix is cheaper a token than its cheapest column",
    )


def only_power_limits(problem: FleetProblem) -> bool:
    """Return whether power is all that limits a fleet of one period."""
    limits = (
        problem.budget_usd_per_hour,
        problem.most_accelerator_types,
        problem.most_spot_share,
        problem.carbon_g_per_hour,
    )
    return (
        all(limit is None for limit in limits)
        and not (problem.offer_units or problem.accelerator_stock or problem.site_power_w or problem.caps)
        and not (
            problem.spot_reserve or problem.then or problem.change_usd_per_accelerator_hour or problem.demand_by_period
        )
        and problem.survive is Survive.NONE
        and len(problem.periods) == 1
        and all(
            c.least_blocks == 0
            and c.most_blocks is None
            and c.first_period == 0
            and not (c.usd_per_hour_by_period or c.carbon_g_per_hour_by_period)
            for c in problem.columns
        )
    )
