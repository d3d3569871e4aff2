"""`plan`: from a request to a fleet."""

from __future__ import annotations

from dataclasses import replace

from tokopt.catalog import Catalog, load_catalog
from tokopt.domain.plans import Plan, PlanRequest
from tokopt.fleet import FleetProblem, FleetSolution, Stop, solve_fleet
from tokopt.search import Search, find_candidates
from tokopt.search.sharing import SharedSearch as SharedSearch

from .answer import assemble
from .cuts import with_cuts
from .infeasible import infeasible, why_nothing
from .program import fleet_problem
from .progress import Progress, silent
from .services import gather

RUNNER_UP_S = 10.0  # the second-best plan is an extra: it does not get as long as the plan itself


def solve_request(
    request: PlanRequest,
    catalog: Catalog | None = None,
    progress: Progress = silent,
    *,
    search: Search = find_candidates,
    extras: bool = True,
) -> Plan:
    """Solve a request, for instance one out of a plan file.

    Args:
        request: The request.
        catalog: The catalog; None = the embedded one with the request's overlay.
        progress: Told what is being done.
        search: Finds candidates; `SharedSearch` remembers them for many requests of one kind.
        extras: Also say what binds, what more of it is worth, which prices would matter, and what is best without the
            winner's accelerator.

    Returns:
        The plan; its status says whether anything meets the request.

    Raises:
        InputError: A name that the catalog does not know, a request that nothing limits, or one that is best served
            by buying nothing.
    """
    catalog = catalog or load_catalog(request.catalog)
    found = with_cuts(gather(request, catalog, progress, search))
    if any(not any(c.service == number for c in found.columns) for number in range(len(found.services))):
        return infeasible(found, None)
    problem = fleet_problem(found)
    progress("solving the fleet program", 1.0)
    solution = solve_fleet(problem, shadow_prices=extras)
    if solution.stop is Stop.INFEASIBLE:
        return infeasible(found, problem)
    if not any(solution.blocks):
        raise why_nothing(found, problem)
    second = _without_winner(problem, solution) if extras else None
    return assemble(found, problem, solution, second, margins=extras)


def _without_winner(problem: FleetProblem, solution: FleetSolution) -> tuple[str, FleetProblem, FleetSolution] | None:
    """Return the best plan without the accelerator that serves most, or None if nothing else serves."""
    served: dict[str, float] = {}
    for column, rates in zip(problem.columns, solution.rates, strict=True):
        tokens = sum(rate * o for rate, o in zip(rates, problem.tokens_per_request, strict=True))
        served[column.accelerator] = served.get(column.accelerator, 0.0) + tokens
    winner = max(served, key=lambda name: served[name])
    kept = tuple(c for c in problem.columns if winner not in c.kinds)
    if not kept:
        return None
    rest = replace(problem, columns=kept, time_limit_s=min(problem.time_limit_s, RUNNER_UP_S))
    second = solve_fleet(rest, shadow_prices=False)
    return None if second.stop is Stop.INFEASIBLE else (winner, rest, second)
