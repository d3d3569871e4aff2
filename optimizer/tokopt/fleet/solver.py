"""Solving the fleet program: HiGHS through MathOpt, SCIP where HiGHS fails.

CP-SAT is never used: the program has continuous variables, and CP-SAT's adapter answers OPTIMAL with a wrong optimum.
"""

from __future__ import annotations

import datetime
import math
import time
from dataclasses import dataclass, replace
from typing import Any

from ortools.math_opt.python import mathopt

from tokopt.errors import InputError
from tokopt.fleet.formulation import Formulation, formulate
from tokopt.fleet.grouping import grouped, promising
from tokopt.fleet.problem import FleetProblem, FleetSolution, Goal, ShadowPrices, Stop

SCALED = (Goal.COST_PER_TOKEN, Goal.THROUGHPUT)
ROUNDS = 30  # of Dinkelbach's method, which gains digits superlinearly; 3 is the usual number
TIE_BREAK_S = 0.5  # at least this long is given to break ties
SAME = 1e-9  # relative difference below which two objectives are a tie
SOLVERS = ((mathopt.SolverType.HIGHS, "HiGHS"), (mathopt.SolverType.GSCIP, "SCIP"))


@dataclass(slots=True)
class _Answer:
    """What one call of a solver found."""

    stop: Stop
    objective: float
    bound: float
    result: Any
    solver: str


def solve(problem: FleetProblem, *, shadow_prices: bool = True) -> FleetSolution:
    """Return the best fleet for the problem's goal, its proven bound and gap; ties go to less power.

    Raises:
        InputError: Nothing limits the fleet, so that no plan is best.
    """
    if problem.goal in SCALED and not _limited(problem):
        raise InputError("nothing limits the fleet: give a power limit, a demand, a budget or an inventory")
    if not problem.columns:
        return _nothing(problem, "none")
    deadline = time.monotonic() + problem.time_limit_s
    if problem.goal is Goal.COST_PER_TOKEN:
        solution = _cheapest_tokens(problem, deadline)
    else:
        solution = _single_goal(problem, deadline)
    if shadow_prices and solution.stop is not Stop.INFEASIBLE:
        prices = _shadow_prices(problem)
        return replace(solution, shadow_prices=prices)
    return solution


def _limited(problem: FleetProblem) -> bool:
    return (
        problem.power_w is not None
        or problem.budget_usd_per_hour is not None
        or all(c.offer in problem.offer_units or c.accelerator in problem.accelerator_stock for c in problem.columns)
    )


def _single_goal(problem: FleetProblem, deadline: float) -> FleetSolution:
    """Make cost, power or throughput best, then break ties by power (cost, where power is the goal)."""
    groups = grouped(problem)
    if groups is None:
        return _direct(problem, deadline)
    outer = _direct(replace(groups.problem, time_limit_s=problem.time_limit_s / 2.0), deadline, ties=False)
    if outer.stop is Stop.INFEASIBLE:
        return _nothing(problem, outer.solver)
    kept = promising(problem, groups, outer.rates)
    small = replace(problem, columns=tuple(problem.columns[j] for j in kept))
    try:
        inner = _direct(small, min(deadline, time.monotonic() + problem.time_limit_s / 4.0), beyond=outer.bound)
    except InputError:
        inner = _nothing(small, outer.solver)
    found = _spread(problem, kept, inner)
    if found.stop is not Stop.INFEASIBLE:
        # What is proven over the kept columns says nothing of the others: only the groups' bound holds for all.
        found = replace(found, bound=outer.bound, gap=_gap(found.objective, outer.bound))
        if found.gap <= problem.gap_target:
            return replace(found, stop=Stop.OPTIMAL)
    try:
        whole = _direct(problem, deadline, beyond=outer.bound)
    except InputError:
        if found.stop is Stop.INFEASIBLE:
            raise
        return replace(found, stop=Stop.TIME_LIMIT)
    whole = _with_bound(whole, outer.bound) if whole.stop is not Stop.INFEASIBLE else whole
    better = whole.stop is not Stop.INFEASIBLE and whole.gap <= found.gap
    if better or found.stop is Stop.INFEASIBLE:
        return whole
    return replace(_with_bound(found, whole.bound), stop=Stop.TIME_LIMIT)


def _with_bound(solution: FleetSolution, bound: float) -> FleetSolution:
    """Return a solution with the sharper of two bounds."""
    maximised = solution.bound > solution.objective * (1.0 + SAME) or bound > solution.objective * (1.0 + SAME)
    sharper = min(solution.bound, bound) if maximised else max(min(bound, solution.objective), solution.bound)
    return replace(solution, bound=sharper, gap=_gap(solution.objective, sharper))


def _spread(problem: FleetProblem, kept: list[int], inner: FleetSolution) -> FleetSolution:
    """Return the solution over some columns as one over all."""
    blocks = [0] * len(problem.columns)
    none = tuple(0.0 for _ in problem.demand)
    rates = [none] * len(problem.columns)
    for position, j in enumerate(kept):
        blocks[j], rates[j] = inner.blocks[position], inner.rates[position]
    return replace(inner, blocks=tuple(blocks), rates=tuple(rates))


def _direct(problem: FleetProblem, deadline: float, *, beyond: float | None = None, ties: bool = True) -> FleetSolution:
    """Solve the program as it is; `beyond` is a bound that is known already, which ends the search early."""
    started = time.monotonic()
    form = formulate(problem, scaled=problem.goal in SCALED)
    sense = 1.0
    objective: Any = {Goal.COST: form.cost, Goal.POWER: form.power}.get(problem.goal)
    if problem.goal is Goal.THROUGHPUT:
        # `scale` is free: the mix is served to the largest multiple.
        objective, sense = form.scale, -1.0
    if beyond is not None:
        form.model.add_linear_constraint(objective * sense >= beyond * sense * (1.0 - sense * SAME), name="beyond")
    first = _solve(form, objective * sense, problem, deadline)
    if first.stop is Stop.INFEASIBLE or (problem.goal is Goal.THROUGHPUT and sense * first.objective <= 0.0):
        return _nothing(problem, first.solver)
    best = first
    if ties:
        second = objective * sense
        form.model.add_linear_constraint(second <= first.objective + SAME * abs(first.objective), name="keep")
        tie = form.cost if problem.goal is not Goal.COST else form.power * 1e-3
        best = _tied(form, tie, problem, first, started, deadline)
    return _solution(problem, form, best.result, first, sense * first.objective, sense * first.bound)


def _tied(
    form: Formulation, tie: Any, problem: FleetProblem, first: _Answer, started: float, deadline: float
) -> _Answer:
    """Return the best of equally good fleets, or the first one where looking for it takes longer than finding that."""
    took = time.monotonic() - started
    try:
        until = max(deadline, time.monotonic() + TIE_BREAK_S)
        tied = _solve(form, tie, problem, min(until, time.monotonic() + max(took, TIE_BREAK_S)))
    except InputError:
        return first
    return first if tied.stop is Stop.INFEASIBLE else tied


def _cheapest_tokens(problem: FleetProblem, deadline: float) -> FleetSolution:
    """Least cost per token, a ratio, by Dinkelbach's method; then the most tokens at that ratio.

    min cost(n)/tokens(x) over fleets that fill the limits. For a guess q, F(q) = min cost - q·tokens; F(q) = 0 exactly
    at the optimum, and the minimiser's own ratio is the next guess (Dinkelbach, Management Science 13(7), 1967). With a
    proven bound b ≤ F(q) every fleet's ratio is at least q + b/(most tokens), which is the bound reported.
    """
    started = time.monotonic()
    form = formulate(problem, scaled=True)
    most_tokens = _fill(form, problem, deadline)
    if most_tokens is None:
        return _nothing(problem, "HiGHS")
    # From a fleet that serves something on, every guess is reached or beaten: none that serves nothing can win.
    start = _solve(form, -form.tokens, problem, deadline)
    if start.stop is Stop.INFEASIBLE or _value(form.tokens, start.result) <= 0.0:
        return _nothing(problem, start.solver)
    ratio = _value(form.cost, start.result) / _value(form.tokens, start.result)
    answer: _Answer | None = None
    for _ in range(ROUNDS):
        answer = _solve(form, form.cost - ratio * form.tokens, problem, deadline)
        if answer.stop is Stop.INFEASIBLE:
            return _nothing(problem, answer.solver)
        cost, tokens = _value(form.cost, answer.result), _value(form.tokens, answer.result)
        found = cost / tokens if tokens > 0.0 else ratio
        if abs(found - ratio) <= SAME * ratio:
            ratio = min(ratio, found)
            break
        ratio = found
        if answer.stop is Stop.TIME_LIMIT:
            break
    assert answer is not None
    slack = max(0.0, -(answer.bound - min(answer.objective, 0.0)))
    bound = ratio - slack / most_tokens
    # Dinkelbach's last objective is zero up to rounding: a bound as close as rounding allows is exact.
    bound = ratio if ratio - bound <= SAME * ratio else bound
    form.model.add_linear_constraint(form.cost - ratio * (1.0 + SAME) * form.tokens <= 0.0, name="keep")
    best = _tied(form, -form.tokens, problem, answer, started, deadline)
    return _solution(problem, form, best.result, answer, ratio, bound)


def _fill(form: Formulation, problem: FleetProblem, deadline: float) -> float | None:
    """Require that the fleet fills its limits, and return the most million tokens an hour that they allow.

    Without this the cheapest token might come from one lone machine. A fleet is full when the power that is left could
    not take one more of the largest block:  Σ w_j n_j ≥ (most power that can be used) - max_j w_j.
    """
    most = _solve(form, -form.tokens, problem, deadline)
    if most.stop is Stop.INFEASIBLE or _value(form.tokens, most.result) <= 0.0:
        return None
    known = [c for c in problem.columns if math.isfinite(c.power_w)]
    if problem.power_w is None or not known:
        # No power to fill: fill what money or stock allows, by tokens.
        tokens = _value(form.tokens, most.result)
        biggest = max(_tokens_per_hour(problem, j) for j in range(len(problem.columns)))
        form.model.add_linear_constraint(form.tokens >= max(tokens - biggest, 0.0), name="fill")
        return -most.bound
    if (
        problem.offer_units
        or problem.accelerator_stock
        or problem.budget_usd_per_hour
        or problem.most_accelerator_types
    ):
        used = _solve(form, form.power * -1e-3, problem, deadline)
        usable = _value(form.power, used.result)
    else:
        usable = max(math.floor(problem.power_w / c.power_w * (1 + 1e-12)) * c.power_w for c in known)
    biggest = max(c.power_w for c in known)
    form.model.add_linear_constraint(form.power * 1e-3 >= max(usable - biggest, 0.0) * 1e-3, name="fill")
    return -most.bound


def _tokens_per_hour(problem: FleetProblem, j: int) -> float:
    column = problem.columns[j]
    rates = [r * o for r, o in zip(column.requests_per_s, problem.tokens_per_request, strict=True)]
    return max(rates, default=0.0) * 3600.0 / 1e6


def _solve(form: Formulation, objective: Any, problem: FleetProblem, deadline: float) -> _Answer:
    form.model.minimize(objective)
    failure = ""
    for solver, name in SOLVERS:
        parameters = mathopt.SolveParameters(
            time_limit=datetime.timedelta(seconds=max(deadline - time.monotonic(), 0.05)),
            relative_gap_tolerance=problem.gap_target,
            absolute_gap_tolerance=1e-9,
            enable_output=False,
        )
        try:
            result = mathopt.solve(form.model, solver, params=parameters)
        except Exception as error:  # noqa: BLE001 - the binding raises types of its own, even AttributeError
            failure = f"{name}: {error}"
            continue
        reason = result.termination.reason
        if reason in (mathopt.TerminationReason.INFEASIBLE, mathopt.TerminationReason.INFEASIBLE_OR_UNBOUNDED):
            return _Answer(Stop.INFEASIBLE, math.inf, math.inf, result, name)
        if result.has_primal_feasible_solution():
            stop = Stop.OPTIMAL if reason is mathopt.TerminationReason.OPTIMAL else Stop.TIME_LIMIT
            bound = result.termination.objective_bounds.dual_bound
            return _Answer(stop, result.objective_value(), bound, result, name)
        failure = f"{name}: {result.termination.detail or reason}"
    raise InputError(f"no fleet found within the time limit of {problem.time_limit_s:g} s; allow more ({failure})")


def _value(expression: Any, result: Any) -> float:
    return float(mathopt.evaluate_expression(expression, result.variable_values()))


def _solution(
    problem: FleetProblem, form: Formulation, result: Any, proof: _Answer, objective: float, bound: float
) -> FleetSolution:
    values = result.variable_values()
    blocks = tuple(round(values[n]) for n in form.blocks)
    classes = range(len(problem.demand))
    rates = tuple(
        tuple(max(values[row[k]], 0.0) if k in row and count else 0.0 for k in classes)
        for row, count in zip(form.rates, blocks, strict=True)
    )
    return FleetSolution(
        stop=proof.stop,
        blocks=blocks,
        rates=rates,
        objective=objective,
        bound=bound,
        gap=_gap(objective, bound),
        solver=proof.solver,
    )


def _gap(objective: float, bound: float) -> float:
    gap = abs(objective - bound) / max(abs(objective), 1e-12)
    return 0.0 if gap <= SAME else gap


def _nothing(problem: FleetProblem, solver: str) -> FleetSolution:
    empty = tuple(0.0 for _ in problem.demand)
    return FleetSolution(
        stop=Stop.INFEASIBLE,
        blocks=tuple(0 for _ in problem.columns),
        rates=tuple(empty for _ in problem.columns),
        objective=math.inf,
        bound=math.inf,
        gap=0.0,
        solver=solver,
    )


def _shadow_prices(problem: FleetProblem) -> ShadowPrices | None:
    """Return the linear relaxation's dual values: in USD/h for cost, in million tokens/h when filling."""
    scaled = problem.goal in SCALED
    form = formulate(replace(problem, most_accelerator_types=None), scaled=scaled, relaxed=True)
    objective = {Goal.COST: form.cost, Goal.POWER: form.power}.get(problem.goal)
    form.model.minimize(-form.tokens if objective is None else objective)
    try:
        result = mathopt.solve(form.model, mathopt.SolverType.GLOP)
        duals = result.dual_values()
    except Exception:  # noqa: BLE001 - marginal values are extra; a plan without them is still a plan
        return None
    sign = -1.0 if scaled else 1.0
    return ShadowPrices(
        power_per_w=sign * duals[form.rows["power"]] * 1e-3 if "power" in form.rows else 0.0,
        demand=tuple(sign * duals[form.rows[f"demand[{k}]"]] for k in range(len(problem.demand))),
        budget_per_usd=sign * duals[form.rows["budget"]] if "budget" in form.rows else 0.0,
        offers={name: sign * duals[row] for name, row in form.rows.items() if name.startswith(("offer", "stock"))},
    )
