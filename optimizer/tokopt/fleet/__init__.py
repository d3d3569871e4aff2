"""How many of which replicas to buy: an integer program over priced columns, solved to a proven gap."""

from dataclasses import replace

from tokopt.fleet.break_even import break_even_prices
from tokopt.fleet.closed_form import closed_form
from tokopt.fleet.problem import (
    Binding,
    BreakEven,
    Cap,
    Column,
    Counted,
    FleetProblem,
    FleetSolution,
    Goal,
    GoalValue,
    Part,
    Period,
    ShadowPrices,
    Stop,
    Survive,
)

__all__ = [
    "Binding",
    "BreakEven",
    "Cap",
    "Column",
    "Counted",
    "FleetProblem",
    "FleetSolution",
    "Goal",
    "GoalValue",
    "Part",
    "Period",
    "ShadowPrices",
    "Stop",
    "Survive",
    "best_possible",
    "break_even_prices",
    "solve_fleet",
]


def solve_fleet(problem: FleetProblem, *, shadow_prices: bool = True) -> FleetSolution:
    """Return the best fleet for the problem's goal, its proven bound and gap; ties go to less power.

    OR-Tools is only imported where arithmetic does not settle it.

    Raises:
        InputError: Nothing limits the fleet, so that no plan is best, or no fleet was found in time.
    """
    settled = closed_form(problem)
    if settled is not None:
        return settled
    from tokopt.fleet.solver import solve

    return solve(problem, shadow_prices=shadow_prices)


def best_possible(problem: FleetProblem, goal: Goal) -> FleetSolution:
    """Return the solution for another goal over the same columns: how little power or money would do, how much fits."""
    freed = replace(problem, goal=goal)
    if goal is Goal.POWER:
        freed = replace(freed, power_w=None)
    elif goal is Goal.COST:
        freed = replace(freed, budget_usd_per_hour=None)
    return solve_fleet(freed, shadow_prices=False)
