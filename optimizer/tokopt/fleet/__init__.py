"""How many of which replicas to buy: an integer program over priced columns, solved to a proven gap."""

from tokopt.fleet.problem import Column, FleetProblem, FleetSolution, Goal, ShadowPrices, Stop
from tokopt.fleet.solver import best_possible, solve_fleet

__all__ = [
    "Column",
    "FleetProblem",
    "FleetSolution",
    "Goal",
    "ShadowPrices",
    "Stop",
    "best_possible",
    "solve_fleet",
]
