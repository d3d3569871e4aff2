"""The fleet program against enumeration of every fleet, on instances small enough for that.

For blocks n the largest multiple s of the demand that they serve is a linear program over the split x:

    max s   with   Σ_j x_jk = s·d_k,   Σ_k x_jk / r_jk ≤ n_j,   x ≥ 0

Its dual is   min Σ_j n_j · max_k r_jk y_k   over prices y ≥ 0 with Σ_k d_k y_k = 1.   The corners of the dual do not
depend on n: at each of them the classes of positive price hang together in a tree of equations r_jk y_k = r_jl y_l.
So the corners are listed once, and s(n) = min over corners of z·n for all fleets at once. No solver is involved.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from ortools.math_opt.python import mathopt

from tokopt.errors import InputError
from tokopt.fleet import Column, FleetProblem, FleetSolution, Goal, Stop, best_possible, engine, grouping, solve_fleet

Array = NDArray[np.float64]
TOLERANCE = 1e-6  # relative, of the objective
ROUNDING = 1e-9  # instances have small whole numbers: two different fleets are further apart than that
MOST_FLEETS = 3000
SCALED = (Goal.COST_PER_TOKEN, Goal.THROUGHPUT)
ONE_PERIOD = (Goal.COST, Goal.COST_PER_TOKEN, Goal.THROUGHPUT, Goal.POWER)  # the others: test_fleet_whole_program.py
TREES = {1: [()], 2: [((0, 1),)], 3: [((0, 1), (0, 2)), ((0, 1), (1, 2)), ((0, 2), (1, 2))]}


def examples(count: int) -> settings:
    """Return the settings of a test over so many instances: the same ones on every run."""
    slow = [HealthCheck.filter_too_much, HealthCheck.too_slow]
    return settings(max_examples=count, deadline=None, derandomize=True, suppress_health_check=slow)


# The oracle -----------------------------------------------------------------------------------------------------------


def price_corners(rates: Array, demand: Array) -> Array:
    """Return z of every corner of the dual, one a row: what a block of each column is worth in multiples of the demand.

    Points that are no corner may be among them: all are feasible in the dual, so none undercuts the minimum.
    """
    wanted = [k for k in range(len(demand)) if demand[k] > 0]
    corners = []
    for size in range(1, len(wanted) + 1):
        for classes in itertools.combinations(wanted, size):
            for tree in TREES[size]:
                for owners in itertools.product(range(len(rates)), repeat=len(tree)):
                    prices = _prices(rates, classes, tree, owners)
                    if prices is not None:
                        corners.append((rates * prices).max(axis=1) / (demand @ prices))
    return np.array(corners)


def _prices(
    rates: Array, classes: tuple[int, ...], tree: tuple[tuple[int, int], ...], owners: tuple[int, ...]
) -> Array | None:
    """Return y of a tree of equations r_jk y_k = r_jl y_l, or None where a column does not serve both classes."""
    prices = np.zeros(rates.shape[1])
    prices[classes[0]] = 1.0
    for _ in tree:  # an edge may come before the one that reaches it
        for (a, b), j in zip(tree, owners, strict=True):
            k, m = classes[a], classes[b]
            if rates[j, k] == 0 or rates[j, m] == 0:
                return None
            if prices[k] > 0 and prices[m] == 0:
                prices[m] = prices[k] * rates[j, k] / rates[j, m]
            elif prices[m] > 0 and prices[k] == 0:
                prices[k] = prices[m] * rates[j, m] / rates[j, k]
    return prices if all(prices[k] > 0 for k in classes) else None


@dataclass(frozen=True)
class Fleets:
    """Every fleet within the limits: blocks, one fleet a row, and what each costs, takes and serves."""

    blocks: NDArray[np.int64]
    cost: Array
    power: Array
    scale: Array  # largest multiple of the demand


def most_blocks(problem: FleetProblem, j: int) -> int:
    """Return the most blocks of a column that can be of use: what limits allow, or what serves all alone."""
    column = problem.columns[j]
    most = math.inf
    if problem.power_w is not None:
        most = min(most, problem.power_w // column.power_w)
    if problem.budget_usd_per_hour is not None:
        most = min(most, problem.budget_usd_per_hour // column.usd_per_hour)
    if column.offer in problem.offer_units:
        most = min(most, problem.offer_units[column.offer] // column.units_per_block)
    if column.accelerator in problem.accelerator_stock:
        most = min(most, problem.accelerator_stock[column.accelerator] // column.accelerators_per_block)
    if problem.goal not in SCALED:
        alone = sum(d / r for d, r in zip(problem.demand, column.requests_per_s, strict=True) if r > 0)
        most = min(most, math.ceil(alone - ROUNDING))
    return int(most)


def all_fleets(problem: FleetProblem) -> Fleets | None:
    """Return every fleet that keeps the limits on power, money, stock and types; None where there are too many."""
    columns = problem.columns
    ranges = [range(most_blocks(problem, j) + 1) for j in range(len(columns))]
    if math.prod(len(r) for r in ranges) > MOST_FLEETS:
        return None
    blocks = np.array(list(itertools.product(*ranges)))
    rates = np.array([c.requests_per_s for c in columns])
    cost = blocks @ np.array([c.usd_per_hour for c in columns])
    power = blocks @ np.array([c.power_w for c in columns])
    kept = np.array([not faults(problem, tuple(n)) for n in blocks.tolist()])
    corners = price_corners(rates, np.array(problem.demand))
    return Fleets(blocks[kept], cost[kept], power[kept], (blocks[kept] @ corners.T).min(axis=1))


def faults(problem: FleetProblem, blocks: tuple[int, ...]) -> list[str]:
    """Return the limits that a fleet breaks: power, budget, stock of offers and of accelerators, number of types."""
    bought = [(c, n) for c, n in zip(problem.columns, blocks, strict=True) if n]
    found = []
    if problem.power_w is not None and sum(c.power_w * n for c, n in bought) > problem.power_w * (1 + ROUNDING):
        found.append("power")
    if problem.budget_usd_per_hour is not None:
        spent = sum(c.usd_per_hour * n for c, n in bought)
        if spent > problem.budget_usd_per_hour * (1 + ROUNDING):
            found.append("budget")
    for offer, units in problem.offer_units.items():
        if sum(c.units_per_block * n for c, n in bought if c.offer == offer) > units:
            found.append(f"units of {offer}")
    for accelerator, stock in problem.accelerator_stock.items():
        if sum(c.accelerators_per_block * n for c, n in bought if c.accelerator == accelerator) > stock:
            found.append(f"stock of {accelerator}")
    types = problem.most_accelerator_types
    if types is not None and len({c.accelerator for c, _ in bought}) > types:
        found.append("types")
    return found


def million_tokens_per_hour(problem: FleetProblem) -> float:
    """Return the tokens of the demand served once."""
    mix = sum(d * o for d, o in zip(problem.demand, problem.tokens_per_request, strict=True))
    return mix * 3600.0 / 1e6


def full(problem: FleetProblem, fleets: Fleets) -> NDArray[np.bool_]:
    """Return which fleets fill the limits, by the rule that `ratio.fill` documents.

    With a power limit: what is left of the most power that can be used holds no further block of the largest. Without:
    tokens are within what one block makes at most of the most tokens.
    """
    if problem.power_w is not None:
        biggest = max(c.power_w for c in problem.columns)
        return fleets.power >= fleets.power.max() - biggest - ROUNDING
    tokens = fleets.scale * million_tokens_per_hour(problem)
    biggest = max(
        max(r * o for r, o in zip(c.requests_per_s, problem.tokens_per_request, strict=True)) * 3600.0 / 1e6
        for c in problem.columns
    )
    return tokens >= tokens.max() - biggest - ROUNDING


@dataclass(frozen=True)
class Best:
    """The true optimum, and the best value of the tie-break among optimal fleets."""

    objective: float
    tie: float


def brute_force(problem: FleetProblem, fleets: Fleets) -> Best | None:
    """Return the true optimum, or None where no fleet does."""
    if problem.goal in SCALED:
        able = fleets.scale > ROUNDING
        if not able.any():
            return None
        if problem.goal is Goal.THROUGHPUT:
            values, ties = -fleets.scale, fleets.cost
        else:
            able &= full(problem, fleets)
            # Fleets that take the most power may serve no whole mix; the rule does not say what is full then.
            assume(able.any())
            tokens = np.where(able, fleets.scale, 1.0) * million_tokens_per_hour(problem)
            values, ties = fleets.cost / tokens, -tokens
    else:
        able = fleets.scale >= 1.0 - ROUNDING
        if not able.any():
            return None
        values, ties = (fleets.cost, fleets.power) if problem.goal is Goal.COST else (fleets.power, fleets.cost)
    values, ties = values[able], ties[able]
    best = values.min()
    same = values <= best + ROUNDING * abs(best)
    return Best(float(abs(best)), float(ties[same].min()))


# Instances ------------------------------------------------------------------------------------------------------------

GOALS = st.sampled_from(ONE_PERIOD)


@st.composite
def problems(draw: st.DrawFn, goals: st.SearchStrategy[Goal] = GOALS) -> FleetProblem:
    """Two or three columns of one or two accelerators, one to three classes, and any of the limits."""
    whole = st.integers
    goal = draw(goals)
    classes = draw(whole(1, 3))
    columns: list[Column] = []
    for j in range(draw(whole(2, 3))):
        rates = tuple(float(r) for r in draw(st.lists(whole(0, 4), min_size=classes, max_size=classes)))
        twin = columns and draw(st.booleans())  # same offer, price and power as the one before, another set-up
        columns.append(
            replace(columns[-1], name=f"c{j}", requests_per_s=rates)
            if twin
            else Column(
                name=f"c{j}",
                accelerator=draw(st.sampled_from("ab")),
                offer=draw(st.sampled_from(("x", "y"))),
                accelerators_per_block=draw(whole(1, 3)),
                replicas_per_block=1,
                units_per_block=draw(whole(1, 2)),
                usd_per_hour=float(draw(whole(1, 9))),
                power_w=float(draw(whole(1, 9)) * 100),
                requests_per_s=rates,
            )
        )
    assume(all(any(c.requests_per_s) for c in columns))
    problem = FleetProblem(
        columns=tuple(columns),
        demand=tuple(draw(st.lists(whole(1, 6), min_size=classes, max_size=classes).map(lambda v: map(float, v)))),
        tokens_per_request=tuple(float(draw(whole(1, 3)) * 100) for _ in range(classes)),
        goal=goal,
        power_w=draw(st.none() | whole(3, 30).map(lambda v: v * 100.0)),
        budget_usd_per_hour=draw(st.none() | whole(3, 30).map(float)),
        offer_units=draw(st.dictionaries(st.sampled_from(("x", "y")), whole(0, 6))),
        accelerator_stock=draw(st.dictionaries(st.sampled_from("ab"), whole(0, 8))),
        most_accelerator_types=draw(st.none() | whole(1, 2)),
    )
    if goal in SCALED:
        stocked = all(c.offer in problem.offer_units or c.accelerator in problem.accelerator_stock for c in columns)
        assume(problem.power_w is not None or problem.budget_usd_per_hour is not None or stocked)
    return problem


def checked(problem: FleetProblem, *, ties: bool = True) -> FleetSolution | None:
    """Solve, compare with the truth and its tie-break, and check every constraint of the answer by hand."""
    fleets = all_fleets(problem)
    assume(fleets is not None)
    assert fleets is not None
    truth = brute_force(problem, fleets)
    answer = solve_fleet(problem)
    if truth is None:
        assert not answer.feasible and not any(answer.blocks)
        return None
    assert answer.stop is Stop.OPTIMAL
    assert answer.objective == pytest.approx(truth.objective, rel=TOLERANCE)
    if problem.goal is Goal.THROUGHPUT:
        assert answer.bound >= truth.objective * (1 - ROUNDING)
    else:
        assert answer.bound <= truth.objective * (1 + ROUNDING)
    assert answer.gap <= TOLERANCE
    keeps_every_constraint(problem, answer)
    costs, watts = ([getattr(c, f) for c in problem.columns] for f in ("usd_per_hour", "power_w"))
    cost, power = float(np.dot(costs, answer.blocks)), float(np.dot(watts, answer.blocks))
    tokens = float(np.sum(np.array(answer.rates) @ np.array(problem.tokens_per_request))) * 3600.0 / 1e6
    stated = {Goal.COST: cost, Goal.POWER: power}.get(problem.goal)
    if stated is not None:
        assert stated == pytest.approx(answer.objective, rel=TOLERANCE)
    tie = {Goal.COST: power, Goal.POWER: cost, Goal.THROUGHPUT: cost, Goal.COST_PER_TOKEN: -tokens}[problem.goal]
    assert not ties or tie == pytest.approx(truth.tie, rel=1e-5)
    return answer


def keeps_every_constraint(problem: FleetProblem, answer: FleetSolution) -> None:
    """Check the fleet and the split that were returned, each constraint by hand."""
    assert len(answer.blocks) == len(answer.rates) == len(problem.columns)
    assert all(isinstance(n, int) and n >= 0 for n in answer.blocks)
    assert faults(problem, answer.blocks) == []
    for column, n, rates in zip(problem.columns, answer.blocks, answer.rates, strict=True):
        assert all(x >= 0.0 for x in rates)
        assert all(x <= TOLERANCE or r > 0 for x, r in zip(rates, column.requests_per_s, strict=True))
        load = sum(x / r for x, r in zip(rates, column.requests_per_s, strict=True) if r > 0)
        assert load <= n + 1e-5
    served = np.sum(answer.rates, axis=0)
    scale = served[0] / problem.demand[0]
    assert served == pytest.approx(scale * np.array(problem.demand), rel=1e-5, abs=1e-5)
    if problem.goal not in SCALED:
        assert scale == pytest.approx(1.0, abs=1e-5)
    elif problem.goal is Goal.THROUGHPUT:
        assert scale == pytest.approx(answer.objective, rel=1e-5)


EIGHT = Column(
    name="c",
    accelerator="a",
    offer="x",
    accelerators_per_block=8,
    replicas_per_block=1,
    units_per_block=1,
    usd_per_hour=1.0,
    power_w=100.0,
    requests_per_s=(1.0,),
)


def lone(goal: Goal, *columns: Column, **limits: object) -> FleetProblem:
    return FleetProblem(
        columns=columns or (EIGHT,),
        demand=(1.0,),
        tokens_per_request=(100.0,),
        goal=goal,
        **limits,  # type: ignore[arg-type]
    )


# Tests ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("goal", ONE_PERIOD)
def test_optimum_is_that_of_brute_force(goal: Goal) -> None:
    @examples(60)
    @given(problems(st.just(goal)))
    def run(problem: FleetProblem) -> None:
        checked(problem)

    run()


@pytest.mark.parametrize("goal", [Goal.COST, Goal.POWER, Goal.THROUGHPUT])
def test_grouping_columns_of_like_cost_changes_nothing(goal: Goal) -> None:
    """Large programs are bounded by a rolled-up one first; here the small ones are forced through the same path."""

    @examples(60)
    @given(problems(st.just(goal)))
    def run(problem: FleetProblem) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(grouping, "WORTH_GROUPING", 0)
            checked(problem, ties=False)

    run()


@pytest.mark.parametrize(("goal", "best"), [(Goal.COST, 3.0), (Goal.POWER, 300.0)])
def test_a_bound_over_the_promising_columns_is_none_over_all(goal: Goal, best: float) -> None:
    """The cheapest fleet has a column of a group that the rolled-up program does not use."""
    pair = replace(EIGHT, usd_per_hour=2.0, power_w=200.0)
    columns = (
        replace(pair, name="c0", requests_per_s=(0.0, 2.0)),
        replace(pair, name="c1", requests_per_s=(2.0, 0.0)),
        replace(EIGHT, name="c2", requests_per_s=(0.0, 1.0)),
    )
    problem = replace(lone(goal, *columns), demand=(1.0, 1.0), tokens_per_request=(1.0, 1.0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grouping, "WORTH_GROUPING", 0)
        answer = solve_fleet(problem)
    assert answer.objective == pytest.approx(best)
    assert answer.bound <= best * (1 + ROUNDING)


@examples(40)
@given(problems(st.sampled_from((Goal.COST, Goal.POWER, Goal.THROUGHPUT))))
def test_grouping_breaks_ties_as_the_whole_program_does(problem: FleetProblem) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grouping, "WORTH_GROUPING", 0)
        checked(problem)


@examples(50)
@given(problems())
def test_the_second_solver_agrees(problem: FleetProblem) -> None:
    assume(all_fleets(problem) is not None)
    first = solve_fleet(problem)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "SOLVERS", (("SCIP", engine.with_scip),))
        second = checked(problem)
    if second is None:
        assert not first.feasible
        return
    assert (first.solver, second.solver) == ("HiGHS", "SCIP")
    assert second.objective == pytest.approx(first.objective, rel=TOLERANCE)


@examples(40)
@given(problems(st.just(Goal.COST)))
def test_what_would_be_possible_is_possible(problem: FleetProblem) -> None:
    """The least power and money, and the most demand, that a refused request is told, are enough when asked for."""
    assume(all_fleets(problem) is not None)
    assume(solve_fleet(problem, shadow_prices=False).stop is Stop.INFEASIBLE)
    for goal, field in ((Goal.POWER, "power_w"), (Goal.COST, "budget_usd_per_hour")):
        if getattr(problem, field) is not None:
            least = best_possible(problem, goal)
            if least.feasible:
                assert solve_fleet(replace(problem, **{field: least.objective})).stop is Stop.OPTIMAL
    most = best_possible(problem, Goal.THROUGHPUT) if problem.power_w or problem.budget_usd_per_hour else None
    if most is not None and most.feasible:
        assert most.objective < 1.0
        less = tuple(d * most.objective * (1 - TOLERANCE) for d in problem.demand)
        assert solve_fleet(replace(problem, demand=less)).stop is Stop.OPTIMAL


@examples(40)
@given(problems(), st.sampled_from(("power_w", "budget_usd_per_hour", "most_accelerator_types")))
def test_lifting_a_limit_never_hurts(problem: FleetProblem, field: str) -> None:
    assume(problem.goal is not Goal.COST_PER_TOKEN and getattr(problem, field) is not None)
    assume(all_fleets(problem) is not None)
    before = solve_fleet(problem, shadow_prices=False)
    assume(before.stop is Stop.OPTIMAL)
    more = replace(problem, **{field: getattr(problem, field) * 2})
    after = solve_fleet(more, shadow_prices=False)
    assert after.stop is Stop.OPTIMAL
    sense = -1.0 if problem.goal is Goal.THROUGHPUT else 1.0
    assert sense * after.objective <= sense * before.objective + TOLERANCE * abs(before.objective)


@examples(40)
@given(problems(), st.randoms(use_true_random=False))
def test_the_order_of_columns_does_not_matter(problem: FleetProblem, random: object) -> None:
    assume(all_fleets(problem) is not None)
    columns = list(problem.columns)
    random.shuffle(columns)  # type: ignore[attr-defined]
    one, other = solve_fleet(problem), solve_fleet(replace(problem, columns=tuple(columns)))
    assert one.stop is other.stop
    if one.stop is Stop.OPTIMAL:
        assert other.objective == pytest.approx(one.objective, rel=TOLERANCE)


def test_the_oracle_agrees_with_a_linear_solver() -> None:
    """The corners of the dual give what GLOP gives for the split."""
    random = np.random.default_rng(5)
    for _ in range(40):
        columns, classes = int(random.integers(1, 4)), int(random.integers(1, 4))
        rates = random.integers(0, 5, (columns, classes)).astype(float)
        demand = random.integers(1, 7, classes).astype(float)
        blocks = random.integers(0, 5, columns)
        assert (price_corners(rates, demand) @ blocks).min() == pytest.approx(_glop(rates, demand, blocks), abs=1e-7)


def _glop(rates: Array, demand: Array, blocks: NDArray[np.int64]) -> float:
    model = mathopt.Model()
    scale = model.add_variable(lb=0.0)
    x = {jk: model.add_variable(lb=0.0) for jk in np.ndindex(rates.shape) if rates[jk] > 0}
    for k in range(len(demand)):
        model.add_linear_constraint(sum((x[j, m] for j, m in x if m == k), start=0.0 * scale) == demand[k] * scale)
    for j, n in enumerate(blocks.tolist()):
        model.add_linear_constraint(sum((x[i, k] / rates[i, k] for i, k in x if i == j), start=0.0 * scale) <= n)
    model.maximize(scale)
    return float(mathopt.solve(model, mathopt.SolverType.GLOP).objective_value())


def test_a_fleet_that_nothing_limits_is_an_error() -> None:
    with pytest.raises(InputError, match="nothing limits the fleet"):
        solve_fleet(lone(Goal.THROUGHPUT))
    with pytest.raises(InputError, match=r"or an inventory \(of \w+, too\)"):
        solve_fleet(replace(lone(Goal.THROUGHPUT), accelerator_stock={"another": 8}))


@pytest.mark.parametrize("goal", ONE_PERIOD)
def test_a_column_that_serves_nothing_is_not_bought(goal: Goal) -> None:
    idle = replace(EIGHT, name="idle", usd_per_hour=0.5, requests_per_s=(0.0,))
    answer = solve_fleet(lone(goal, idle, EIGHT, budget_usd_per_hour=2.0))
    assert answer.blocks[0] == 0 and answer.blocks[1] > 0


@pytest.mark.parametrize("goal", [Goal.COST, Goal.POWER])
def test_a_class_of_hardly_any_requests_gets_a_block_of_its_own(goal: Goal) -> None:
    little = 1e-4  # of a block that serves 5,000 requests a second: within what solvers round to nothing
    columns = (
        replace(EIGHT, requests_per_s=(10.0, 0.0)),
        replace(EIGHT, name="other", offer="y", requests_per_s=(0.0, 5000.0)),
    )
    problem = FleetProblem(columns=columns, demand=(25.0, little), tokens_per_request=(100.0, 100.0), goal=goal)
    answer = solve_fleet(problem)
    assert np.ravel(answer.blocks).tolist() == [3, 1]


def _limits() -> Iterator[dict[str, object]]:
    yield {"power_w": 99.0}
    yield {"budget_usd_per_hour": 0.5}
    yield {"offer_units": {"x": 0}}
    yield {"accelerator_stock": {"a": 7}}


@pytest.mark.parametrize("limits", list(_limits()), ids=lambda limits: next(iter(limits)))
@pytest.mark.parametrize("goal", ONE_PERIOD)
def test_a_limit_below_one_block_is_infeasible(goal: Goal, limits: dict[str, object]) -> None:
    assert not solve_fleet(lone(goal, **limits)).feasible
