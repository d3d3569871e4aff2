"""Solving the fleet program: goals in turn, failures added until all are survived, ties broken."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from tokopt.errors import InputError
from tokopt.fleet.answer import answer_of, no_answer
from tokopt.fleet.bounds import SCALED, most_blocks
from tokopt.fleet.checks import check
from tokopt.fleet.duals import shadow_prices_of
from tokopt.fleet.engine import minimise
from tokopt.fleet.failures import not_survived
from tokopt.fleet.formulation import Failure, Formulation, formulate, splits
from tokopt.fleet.outcome import SAME, Outcome, nothing, objective_of, read, stated
from tokopt.fleet.problem import FleetProblem, FleetSolution, Goal, GoalValue, Stop
from tokopt.fleet.program import Floats
from tokopt.fleet.ratio import cheapest_tokens
from tokopt.fleet.reductions import reduce
from tokopt.fleet.search import Search, start_of
from tokopt.fleet.table import Table, tabulate
from tokopt.fleet.type_limit import best_of_few_types

TIE_BREAK_S = 0.5  # at least this long is given to break ties
TIE_BREAK_NODES = 500  # of the search: ties are broken the same way on slow machines, too
FINE = 1e-5  # ties are only broken where the gap asked for is below: else fleets are not told apart anyway


def solve(problem: FleetProblem, *, shadow_prices: bool = True) -> FleetSolution:
    """Return the best fleet for the problem's goals, its proven bound and gap; ties go to less power.

    Raises:
        InputError: The problem contradicts itself, nothing limits the fleet, or no fleet was found in time.
    """
    check(problem)
    if not problem.columns:
        return no_answer(problem, "none", "there are no columns")
    deadline = time.monotonic() + problem.time_limit_s
    whole = tabulate(problem)
    table = reduce(whole)
    if table.count == 0 and (problem.goal is Goal.PROFIT or not (problem.goal in SCALED or table.demand.any())):
        none = nothing(table, "none", "there is nothing to serve")
        empty = replace(none, stop=Stop.OPTIMAL, objective=0.0, bound=0.0)
        return answer_of(problem, whole, empty, (_stated(problem.goal, empty),))
    if table.count == 0:
        return no_answer(problem, "none", "no column serves anything within the limits")
    if problem.goal in SCALED and not (limited := np.isfinite(most_blocks(table)).all(axis=1)).all():
        numbers = set(table.labels["accelerator"][~limited].tolist()) if problem.accelerator_stock else set()
        free = sorted(table.values["accelerator"][number] for number in numbers)
        also = f" (of {', '.join(free)}, too)" if free else ""
        raise InputError(f"nothing limits the fleet: give a power limit, a demand, a budget or an inventory{also}")
    table = replace(table, family=splits(table)[0])
    failures: tuple[Failure, ...] = ()
    while True:
        search = Search(failures, deadline, problem.gap_target)
        outcome, goals = _goals(table, search)
        broken = not_survived(outcome, failures)
        if not broken:
            break
        if time.monotonic() > deadline:
            raise InputError(
                f"no fleet that survives the loss of any {problem.survive.value} was found within "
                f"{problem.time_limit_s:g} s; allow more"
            )
        failures += broken
    if not outcome.found:
        return no_answer(problem, outcome.solver, outcome.detail)
    solution = answer_of(problem, whole, outcome, goals)
    if shadow_prices:
        return replace(solution, shadow_prices=shadow_prices_of(problem, table, failures))
    return solution


def _goals(table: Table, search: Search) -> tuple[Outcome, tuple[GoalValue, ...]]:
    """Return the best fleet for the goal, then for each of those that follow, then of equally good ones."""
    problem = table.problem
    started = time.monotonic()
    form: Formulation | None = None
    if problem.goal is Goal.COST_PER_TOKEN:
        found = cheapest_tokens(table, search)
        outcome, form = found.outcome, found.form
        if outcome.found:
            allowed = outcome.objective * (1.0 + max(SAME, problem.then_tolerance if problem.then else 0.0))
            form.program.at_most(form.cost() + form.change() - allowed * form.tokens(), 0.0)
    else:
        outcome = best_of_few_types(table, problem.goal, search)
    if not outcome.found or (problem.goal is Goal.THROUGHPUT and outcome.objective >= 0.0):
        return replace(outcome, stop=Stop.INFEASIBLE), ()
    goals = [_stated(problem.goal, outcome)]
    if problem.then or (search.gap <= FINE and outcome.stop is Stop.OPTIMAL):
        form = form or _kept(table, search, problem.goal, outcome, problem.then_tolerance if problem.then else 0.0)
        for goal in problem.then:
            following = _next(form, goal, search, outcome)
            if following is None:
                break
            goals.append(_stated(goal, following))
            _keep(form, goal, following, problem.then_tolerance)
            outcome = replace(following, objective=outcome.objective, bound=outcome.bound, stop=outcome.stop)
        outcome = _tied(form, search, outcome, time.monotonic() - started)
    return outcome, tuple(goals)


def _stated(goal: Goal, outcome: Outcome) -> GoalValue:
    return GoalValue(goal, stated(goal, outcome.objective), stated(goal, outcome.bound), outcome.gap)


def _kept(table: Table, search: Search, goal: Goal, outcome: Outcome, tolerance: float) -> Formulation:
    """Return the program of fleets that are as good as the one that was found, within a tolerance."""
    form = formulate(table, search.failures, keep=frozenset({goal}))
    _keep(form, goal, outcome, tolerance)
    return form


def _keep(form: Formulation, goal: Goal, outcome: Outcome, tolerance: float) -> None:
    """Require a goal to be within a tolerance of what was reached."""
    worst = outcome.objective + max(SAME, tolerance) * abs(outcome.objective)
    form.program.at_most(objective_of(form, goal), worst)


def _next(form: Formulation, goal: Goal, search: Search, before: Outcome) -> Outcome | None:
    """Return the best fleet for a goal among those that the goals before leave, or None if time runs out."""
    try:
        answer = minimise(form.program, objective_of(form, goal), search.effort(), start_of(form, before))
    except InputError:
        return None
    outcome = read(form, answer)
    return outcome if outcome.found else None


def _tied(form: Formulation, search: Search, outcome: Outcome, took: float) -> Outcome:
    """Return the best of equally good fleets, or the one at hand where that takes longer than finding it did."""
    seconds = max(took, TIE_BREAK_S)
    effort = replace(search.effort(), deadline=time.monotonic() + seconds, nodes=TIE_BREAK_NODES)
    try:
        answer = minimise(form.program, _tie(form), effort, start_of(form, outcome))
    except InputError:
        return outcome
    tied = read(form, answer)
    if not tied.found or tied.stop is not Stop.OPTIMAL:
        return outcome
    return replace(tied, objective=outcome.objective, bound=outcome.bound, stop=outcome.stop, detail=outcome.detail)


def _tie(form: Formulation) -> Floats:
    """Return what is preferred among equally good fleets: less power, lower cost, or more tokens."""
    goals = (form.table.problem.goal, *form.table.problem.then)
    if goals[0] is Goal.COST_PER_TOKEN:
        return -form.tokens()
    if Goal.COST in goals or Goal.PROFIT in goals:
        return form.energy()
    return form.cost()
