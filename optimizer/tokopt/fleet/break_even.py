"""At what price an accelerator that is not in the plan would enter it.

Let v be the plan's optimum, which uses nothing of accelerator g. A fleet with A_g(n) of them, mean over the horizon, at
p USD per accelerator-hour is no dearer than the plan where  rest(n) + p·A_g(n) ≤ v.  The highest such price over all
fleets

    p* = max over fleets with A_g ≥ 1 block of (v - rest(n)) / A_g(n)

is a ratio, and Dinkelbach's method gives it exactly in whole blocks: price g at p, find the cheapest fleet that uses
it, and take the price at which that one would break even as the next. Where limits are filled at the least cost per
token, the plan's q takes the place of v:  rest - q·tokens + p·A_g ≤ 0.

Where that takes too long, the linear relaxation gives p* by its duals: a column's blocks are worth what its classes
pay.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from tokopt.errors import InputError
from tokopt.fleet.closed_form import closed_form
from tokopt.fleet.problem import BreakEven, FleetProblem, FleetSolution, Goal, Stop, Survive

ROUNDS = 12
LEAST_S = 0.5  # for the relaxation of one accelerator, however many there are
SAME = 1e-9
PRICED = (Goal.COST, Goal.PROFIT, Goal.COST_PER_TOKEN)


def break_even_prices(
    problem: FleetProblem, solution: FleetSolution, *, time_limit_s: float = 10.0
) -> Mapping[str, BreakEven]:
    """Return the break-even price of each accelerator that is not in a plan, where there is one.

    Prices are those at which all of an accelerator's columns cost the same per accelerator-hour. Accelerators that no
    price brings into the plan, since they do not fit or serve nothing, are left out. Goals that prices do not change
    (throughput, power, carbon) have no break-even prices.

    Args:
        problem: What the plan solves.
        solution: The plan.
        time_limit_s: For all accelerators together; the relaxation answers for those that are not done by then.
    """
    if problem.goal not in PRICED or not solution.feasible:
        return {}
    used = {kind for c, n in zip(problem.columns, solution.blocks, strict=True) if n for kind in c.kinds}
    others = [a for a in dict.fromkeys(kind for c in problem.columns for kind in c.kinds) if a not in used]
    if closed_form(problem) is not None:
        return {a: found for a in others if (found := _by_ratio(problem, solution, a)) is not None}
    deadline = time.monotonic() + time_limit_s
    prices: dict[str, BreakEven] = {}
    for position, accelerator in enumerate(others):
        share = max((deadline - time.monotonic()) / (len(others) - position), 0.0)
        found = _in_blocks(problem, solution, accelerator, share) if share > 0.05 else None
        if found is None or not found.exact:
            found = _relaxed(problem, solution, accelerator, max(share, LEAST_S)) or found
        if found is not None and math.isfinite(found.usd_per_accelerator_hour):
            prices[accelerator] = found
    return prices


def _by_ratio(problem: FleetProblem, solution: FleetSolution, accelerator: str) -> BreakEven | None:
    """Return the price at which the best column's cost per token is the plan's: exact where only power limits."""
    best: BreakEven | None = None
    for column in problem.columns:
        fits = problem.power_w is not None and column.power_w <= problem.power_w * (1 + 1e-12)
        own = column.accelerators_of(accelerator)
        if not own or not fits or column.requests_per_s[0] <= 0:
            continue
        tokens = column.requests_per_s[0] * problem.tokens_per_request[0] * 3600.0 / 1e6
        rest = sum(part.usd_per_hour for part in column.held if part.accelerator != accelerator)
        price = (solution.objective * tokens - rest) / own
        if best is None or price > best.usd_per_accelerator_hour:
            best = BreakEven(usd_per_accelerator_hour=price, exact=True, column=column.name)
    return best


def _in_blocks(problem: FleetProblem, solution: FleetSolution, accelerator: str, seconds: float) -> BreakEven | None:
    """Return the break-even price of whole blocks by Dinkelbach's method; not exact if time ends it."""
    from tokopt.fleet.engine import minimise
    from tokopt.fleet.formulation import formulate
    from tokopt.fleet.outcome import objective_of, read
    from tokopt.fleet.ratio import fill
    from tokopt.fleet.search import Search, start_of
    from tokopt.fleet.table import tabulate

    if problem.survive is not Survive.NONE or problem.gap_target > 1e-4 or problem.budget_usd_per_hour is not None:
        return None
    # Columns that are dear now are not once their price falls: none is left out.
    table = tabulate(problem)
    search = Search((), time.monotonic() + seconds, min(problem.gap_target, 1e-7))
    form = formulate(table)
    try:
        if problem.goal is Goal.COST_PER_TOKEN:
            if fill(form, search) is None:
                return None
            base = form.cost() + form.change() - solution.objective * form.tokens()
            reached = 0.0
        else:
            base = objective_of(form, problem.goal)
            reached = -solution.objective if problem.goal is Goal.PROFIT else solution.objective
        parts = table.matching_parts(accelerator=accelerator)
        of = np.asarray(parts.any(axis=1))
        amount = form.program.vector((form.n[of], table.accelerators_in(parts)[of][:, None] * table.weight))
        priced = form.program.vector((form.n[of], table.cost_of(parts)[of] * table.weight))
        rest = base - priced
        (some,) = np.nonzero(amount)
        form.program.add_rows(1, (np.zeros(len(some)), some, 1.0), lower=1.0)
        price, before = 0.0, None
        exact = False
        for _ in range(ROUNDS):
            answer = minimise(form.program, rest + price * amount, search.effort(), before)
            if not answer.found:
                return None
            following = (reached - float(rest @ answer.values)) / float(amount @ answer.values)
            before = start_of(form, read(form, answer))
            proven = answer.stop is Stop.OPTIMAL
            if abs(following - price) <= SAME * max(abs(price), 1.0):
                exact = proven
                break
            price = following
            if not proven:
                break
        blocks = np.where(of[:, None], read(form, answer).blocks, 0)
    except InputError:
        return None
    name = problem.columns[int(table.source[int(np.argmax(blocks.max(axis=1)))])].name
    return BreakEven(usd_per_accelerator_hour=price, exact=exact, column=name)


def _relaxed(problem: FleetProblem, solution: FleetSolution, accelerator: str, seconds: float) -> BreakEven | None:
    """Return the price at which a column's reduced cost in the relaxation is zero, the highest of the accelerator's."""
    from tokopt.fleet.duals import relaxation
    from tokopt.fleet.pricing import worth_of_blocks
    from tokopt.fleet.reductions import reduce
    from tokopt.fleet.table import tabulate

    table = tabulate(problem)
    (own,) = np.nonzero(table.matches("accelerator", accelerator))
    others = reduce(table.take(~table.matches("accelerator", accelerator)))
    # The accelerator's own columns have to stay out, and are priced at what the others leave.
    both = table.take(np.sort(np.concatenate([others.source, own])))
    parts = both.matching_parts(accelerator=accelerator)
    out = np.asarray(parts.any(axis=1))
    both = replace(both, most=np.where(out, 0.0, both.most))
    try:
        form, objective, answer = relaxation(both, (), ratio=solution.objective, seconds=seconds)
    except InputError:
        return None
    if not answer.found or not len(answer.duals):
        return None
    worth = worth_of_blocks(form, objective, answer)  # USD/h, mean over the horizon
    kept = np.where(both.flexible[:, None], both.weight, (both.bought * both.weight).sum(axis=1)[:, None])
    with np.errstate(divide="ignore", invalid="ignore"):
        other = both.cost - both.cost_of(parts)
        paid = both.bought * both.weight
        rest = np.where(both.flexible[:, None], other, ((other * paid).sum(axis=1) / paid.sum(axis=1))[:, None])
        each = np.where(form.n >= 0, worth / kept - rest, -math.inf) / both.accelerators_in(parts)[:, None]
    best = each.max(axis=1)
    best[~out] = -math.inf
    if not (best > 0).any():
        return None
    j = int(np.argmax(best))
    name = problem.columns[int(both.source[j])].name
    return BreakEven(usd_per_accelerator_hour=float(best[j]), exact=False, column=name)
