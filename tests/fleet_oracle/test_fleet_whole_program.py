"""The whole fleet program against enumeration: every goal, limit, market, failure and period, on tiny instances.

Every combination of whole blocks is listed; limits are checked by hand, and the split of the load, before and after
each failure, is a linear program that SciPy solves. Nothing of the room's own arithmetic is used.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import linprog

from tokopt.errors import InputError
from tokopt.fleet import (
    Cap,
    Column,
    Counted,
    FleetProblem,
    FleetSolution,
    Goal,
    Period,
    Stop,
    Survive,
    engine,
    grouping,
    search,
    solve_fleet,
)

TOLERANCE = 1e-6
MOST_FLEETS = 256
Fleet = NDArray[np.int64]  # periods x columns


def examples(count: int) -> settings:
    slow = [HealthCheck.filter_too_much, HealthCheck.too_slow]
    return settings(max_examples=count, deadline=None, derandomize=True, suppress_health_check=slow)


# The oracle -----------------------------------------------------------------------------------------------------------


def demand_of(problem: FleetProblem) -> NDArray[np.float64]:
    return np.array(problem.demand_by_period or (problem.demand,) * len(problem.periods))


def weights(problem: FleetProblem) -> NDArray[np.float64]:
    hours = np.array([p.hours for p in problem.periods])
    return np.asarray(hours / hours.sum())


def by_period(problem: FleetProblem, name: str) -> NDArray[np.float64]:
    """Return periods x columns of a column's figure."""
    rows = [getattr(c, f"{name}_by_period") or (getattr(c, name),) * len(problem.periods) for c in problem.columns]
    return np.array(rows).T


def fleets(problem: FleetProblem, most: int) -> Iterator[Fleet]:
    """List every fleet: fixed columns the same in all their periods, flexible ones as they like."""
    periods = range(len(problem.periods))
    choices: list[list[tuple[int, ...]]] = []
    for c in problem.columns:
        top = most if c.most_blocks is None else min(most, c.most_blocks)
        counts = range(c.least_blocks, top + 1)
        there = [t for t in periods if t >= c.first_period]
        if c.flexible:
            ways = itertools.product(*(counts if t in there else (0,) for t in periods))
            choices.append(list(ways))
        else:
            choices.append([tuple(n if t in there else 0 for t in periods) for n in counts])
    assume(math.prod(len(c) for c in choices) <= MOST_FLEETS)
    for chosen in itertools.product(*choices):
        yield np.array(chosen).T


def within_limits(problem: FleetProblem, n: Fleet) -> bool:
    columns, eps = problem.columns, 1e-9
    cost, weight = by_period(problem, "usd_per_hour"), weights(problem)
    for t in range(len(n)):
        used = [(c, b, usd) for c, b, usd in zip(columns, n[t].tolist(), cost[t].tolist(), strict=True) if b]
        if problem.power_w is not None and sum(c.power_w * b for c, b, _ in used) > problem.power_w + eps:
            return False
        for site, limit in problem.site_power_w.items():
            if sum(c.power_w * b for c, b, _ in used if c.site == site) > limit + eps:
                return False
        for offer, units in problem.offer_units.items():
            if sum(c.units_per_block * b for c, b, _ in used if c.offer == offer) > units:
                return False
        for accelerator, stock in problem.accelerator_stock.items():
            if sum(c.accelerators_per_block * b for c, b, _ in used if c.accelerator == accelerator) > stock:
                return False
        for cap in problem.caps:
            total = sum(counted(cap, c, usd) * b for c, b, usd in used if matches(cap, c))
            if not cap.least - eps <= total <= cap.most + eps:
                return False
    if problem.budget_usd_per_hour is not None and weight @ (cost * n).sum(axis=1) > problem.budget_usd_per_hour + eps:
        return False
    if problem.carbon_g_per_hour is not None:
        grams = by_period(problem, "carbon_g_per_hour")
        if weight @ (grams * n).sum(axis=1) > problem.carbon_g_per_hour + eps:
            return False
    types = {c.accelerator for c, b in zip(columns, n.max(axis=0).tolist(), strict=True) if b}
    return problem.most_accelerator_types is None or len(types) <= problem.most_accelerator_types


def matches(cap: Cap, c: Column) -> bool:
    names = ("accelerator", "offer", "provider", "region", "site", "zone")
    return all(not getattr(cap, name) or getattr(cap, name) == getattr(c, name) for name in names)


def counted(cap: Cap, c: Column, usd: float) -> float:
    return {
        Counted.UNITS: c.units_per_block,
        Counted.ACCELERATORS: c.accelerators_per_block,
        Counted.USD_PER_HOUR: usd,
        Counted.POWER_W: c.power_w,
    }[cap.counted]


def served(problem: FleetProblem, n: Fleet, worth: NDArray[np.float64] | None) -> float | None:
    """Return the largest common multiple of the demand that a fleet serves, whatever fails, or the most that it earns.

    With `worth`, USD per request by class, the demand is the most that is served. None where nothing is feasible.
    """
    demand, weight = demand_of(problem), weights(problem)
    columns, (periods, classes) = problem.columns, demand.shape
    cells = [
        (t, j, k)
        for t in range(periods)
        for j, c in enumerate(columns)
        for k in range(classes)
        if c.requests_per_s[k] > 0 and n[t, j] > 0
    ]
    cases = [(t, lost) for t in range(periods) for lost in [None, *losses(problem, n[t])]]
    index: dict[tuple[object, ...], int] = {}
    for case, (t, _) in enumerate(cases):
        for cell in cells:
            if cell[0] == t:
                index[case, cell] = len(index)
    scale = len(index)
    upper, limits, equal, values = [], [], [], []
    base = {t: case for case, (t, lost) in enumerate(cases) if lost is None}
    for case, (t, lost) in enumerate(cases):
        for k in range(classes):
            row = np.zeros(scale + 1)
            for cell in cells:
                if cell[0] == t and cell[2] == k:
                    row[index[case, cell]] = 1.0
                    if lost is not None:
                        row[index[base[t], cell]] -= 1.0
            if lost is not None:
                equal.append(row)
                values.append(0.0)
            elif worth is None:
                row[scale] = -demand[t, k]
                equal.append(row)
                values.append(0.0)
            else:
                upper.append(row)
                limits.append(demand[t, k])
            if lost is None and problem.most_spot_share is not None:
                share = np.zeros(scale + 1)
                for cell in cells:
                    if cell[0] == t and cell[2] == k:
                        spot = columns[cell[1]].spot
                        share[index[case, cell]] = (1.0 if spot else 0.0) - problem.most_spot_share
                upper.append(share)
                limits.append(0.0)
        for j, c in enumerate(columns):
            row = np.zeros(scale + 1)
            for cell in cells:
                if cell[0] == t and cell[1] == j:
                    row[index[case, cell]] = 1.0 / c.requests_per_s[cell[2]]
            upper.append(row)
            left = n[t, j] if lost is None else n[t, j] - lost[j]
            limits.append(left * (1.0 - (problem.spot_reserve if c.spot else 0.0)))
    objective = np.zeros(scale + 1)
    if worth is None:
        objective[scale] = -1.0
    else:
        for t, j, k in cells:
            objective[index[base[t], (t, j, k)]] = -3600.0 * weight[t] * worth[k]
    answer = linprog(objective, np.array(upper), limits, np.array(equal) if equal else None, values or None)
    return None if answer.status != 0 else -float(answer.fun)


def losses(problem: FleetProblem, n: Fleet) -> list[Fleet]:
    """Return what each failure takes of a period's fleet, by column."""
    if problem.survive is Survive.NODE:
        return [np.eye(len(n), dtype=np.int64)[j] for j in np.flatnonzero(n)]
    if problem.survive is Survive.ZONE:
        zones = {c.zone for c, b in zip(problem.columns, n.tolist(), strict=True) if b}
        return [
            np.array([b if c.zone == z else 0 for c, b in zip(problem.columns, n, strict=True)]) for z in sorted(zones)
        ]
    return []


@dataclass(frozen=True)
class Truth:
    """The best value of a goal over all fleets."""

    value: float
    second: float  # the best of the second goal among those


def figures(problem: FleetProblem, n: Fleet) -> dict[Goal, float]:
    """Return the goals that blocks alone decide, to be minimised."""
    weight = weights(problem)
    cost = float(weight @ (by_period(problem, "usd_per_hour") * n).sum(axis=1))
    current = np.array([c.current_blocks for c in problem.columns])
    there = np.array([[t >= c.first_period for c in problem.columns] for t in range(len(n))])
    size = np.array([c.accelerators_per_block for c in problem.columns])
    change = float(weight @ (np.abs(n - current) * there * size).sum(axis=1)) * problem.change_usd_per_accelerator_hour
    watts = np.array([c.power_w for c in problem.columns])
    grams = float(weight @ (by_period(problem, "carbon_g_per_hour") * n).sum(axis=1))
    return {Goal.COST: cost + change, Goal.POWER: float((n @ watts).max()), Goal.CARBON: grams}


def brute_force(problem: FleetProblem, most: int) -> Truth | None:
    """Try fleets in the order of the most that each could reach, until none that is left could be better."""
    hopes = [(hope(problem, n), i, n) for i, n in enumerate(fleets(problem, most)) if within_limits(problem, n)]
    found: list[tuple[float, float]] = []
    least = math.inf
    for most_hoped, _, n in sorted(hopes, key=lambda h: h[:2]):
        allowed = least + (problem.then_tolerance * abs(least) if problem.then else 0.0) + 1e-9
        if most_hoped > allowed:
            break
        value = worth_of(problem, n)
        if value is not None:
            least = min(least, value)
            found.append((value, figures(problem, n)[problem.then[0]] if problem.then else 0.0))
    if not found:
        return None
    allowed = least + problem.then_tolerance * abs(least) + 1e-9
    return Truth(least, min(second for value, second in found if value <= allowed))


def hope(problem: FleetProblem, n: Fleet) -> float:
    """Return a bound on what a fleet can reach, whatever its split: its own cost, less all that could be earned."""
    if problem.goal is Goal.THROUGHPUT:
        rates = np.array([c.requests_per_s for c in problem.columns])
        able, wanted = n @ rates, demand_of(problem)
        return -float(min((able[wanted > 0] / wanted[wanted > 0]).tolist()))
    f = figures(problem, n)
    if problem.goal is Goal.PROFIT:
        able = np.minimum(n @ np.array([c.requests_per_s for c in problem.columns]), demand_of(problem))
        return f[Goal.COST] - 3600.0 * float(weights(problem) @ (able @ np.array(problem.usd_per_request)))
    return f[problem.goal]


def worth_of(problem: FleetProblem, n: Fleet) -> float | None:
    """Return what a fleet reaches of the goal, to be minimised, or None where it does not serve what it must."""
    f = figures(problem, n)
    if problem.goal is Goal.PROFIT:
        earned = served(problem, n, np.array(problem.usd_per_request))
        return None if earned is None else f[Goal.COST] - earned
    scale = served(problem, n, None)
    if problem.goal is Goal.THROUGHPUT:
        return None if scale is None or scale <= 1e-9 else -scale
    return None if scale is None or scale < 1.0 - 1e-9 else f[problem.goal]


# Instances ------------------------------------------------------------------------------------------------------------

LINEAR = (Goal.COST, Goal.POWER, Goal.CARBON, Goal.PROFIT, Goal.THROUGHPUT)
whole = st.integers


@st.composite
def columns(draw: st.DrawFn, name: str, classes: int, periods: int, *, current: bool) -> Column:
    prices = st.lists(whole(1, 9).map(float), min_size=periods, max_size=periods).map(tuple)
    least = draw(st.sampled_from((0, 0, 0, 1)))
    return Column(
        name=name,
        accelerator=draw(st.sampled_from("ab")),
        offer=draw(st.sampled_from("xy")),
        accelerators_per_block=draw(whole(1, 3)),
        replicas_per_block=1,
        units_per_block=draw(whole(1, 2)),
        usd_per_hour=float(draw(whole(1, 9))),
        power_w=draw(whole(1, 9)) * 100.0,
        requests_per_s=tuple(float(r) for r in draw(st.lists(whole(0, 4), min_size=classes, max_size=classes))),
        provider=draw(st.sampled_from(("p", "q"))),
        site=draw(st.sampled_from(("here", "there"))),
        zone=draw(st.sampled_from(("z1", "z2", "z3"))),
        spot=draw(st.booleans()),
        flexible=draw(st.booleans()),
        first_period=draw(whole(0, periods - 1)),
        usd_per_hour_by_period=draw(st.just(()) | prices),
        carbon_g_per_hour=float(draw(whole(0, 9))),
        current_blocks=draw(whole(0, 2)) if current else 0,
        least_blocks=least,
        most_blocks=draw(st.none() | whole(least, 3)),
    )


@st.composite
def problems(draw: st.DrawFn, goals: tuple[Goal, ...] = LINEAR, survive: Survive | None = None) -> FleetProblem:
    """One to three columns, one or two classes and periods, and any of the limits; at most three blocks of a column."""
    goal = draw(st.sampled_from(goals))
    classes, periods = draw(whole(1, 2)), draw(whole(1, 2))
    penalty = draw(st.sampled_from((0.0, 0.0, 0.5, 3.0)))
    made = [
        draw(columns(f"c{j}", classes, periods, current=penalty > 0))
        for j in range(draw(whole(1, 3 if periods == 1 else 2)))
    ]
    if survive is not None and len(made) < 3:
        made.append(replace(made[0], name="twin", zone="z2" if made[0].zone == "z1" else "z1"))
    demand = st.lists(whole(0, 5).map(float), min_size=classes, max_size=classes).map(tuple)
    rows = tuple(draw(demand) for _ in range(periods))
    assume(all(any(row) for row in rows))
    cap = Cap(
        name="cap",
        most=float(draw(whole(2, 12))),
        least=float(draw(st.sampled_from((0, 0, 1)))),
        counted=draw(st.sampled_from(list(Counted)[:3])),
        provider=draw(st.sampled_from(("", "p"))),
        accelerator=draw(st.sampled_from(("", "a"))),
    )
    then = draw(st.sampled_from(((), (Goal.COST,), (Goal.POWER,), (Goal.CARBON,))))
    return FleetProblem(
        columns=tuple(replace(c, most_blocks=min(3, 3 if c.most_blocks is None else c.most_blocks)) for c in made),
        demand=rows[0],
        tokens_per_request=(100.0,) * classes,
        goal=goal,
        power_w=draw(st.none() | whole(3, 40).map(lambda v: v * 100.0)),
        budget_usd_per_hour=draw(st.none() | whole(3, 40).map(float)),
        offer_units=draw(st.dictionaries(st.sampled_from("xy"), whole(0, 6), max_size=1)),
        accelerator_stock=draw(st.dictionaries(st.sampled_from("ab"), whole(0, 8), max_size=1)),
        most_accelerator_types=draw(st.sampled_from((None, None, 1))),
        periods=tuple(Period(name=f"t{t}", hours=float(draw(whole(1, 3)))) for t in range(periods)),
        demand_by_period=rows,
        usd_per_request=tuple(draw(whole(1, 9)) / 3600.0 for _ in range(classes)),
        site_power_w=draw(st.dictionaries(st.just("here"), whole(3, 30).map(lambda v: v * 100.0))),
        caps=draw(st.sampled_from(((), (cap,)))),
        most_spot_share=draw(st.sampled_from((None, None, 0.5, 0.0))),
        spot_reserve=draw(st.sampled_from((0.0, 0.0, 0.25))),
        survive=draw(st.sampled_from(list(Survive))) if survive is None else survive,
        carbon_g_per_hour=draw(st.none() | whole(3, 30).map(float)),
        change_usd_per_accelerator_hour=penalty,
        then=then if goal in (Goal.COST, Goal.POWER, Goal.CARBON) and goal not in then else (),
        then_tolerance=draw(st.sampled_from((0.0, 0.2))),
    )


def checked(problem: FleetProblem) -> FleetSolution:
    """Solve, compare with the truth, and check the answer's own split and figures by hand."""
    truth = brute_force(problem, 3)
    answer = solve_fleet(problem)
    if truth is None:
        assert answer.stop is Stop.INFEASIBLE
        assert not any(answer.blocks)
        return answer
    assert answer.stop is Stop.OPTIMAL
    sense = -1.0 if problem.goal in (Goal.PROFIT, Goal.THROUGHPUT) else 1.0
    assert sense * answer.objective == pytest.approx(truth.value, rel=TOLERANCE, abs=TOLERANCE)
    assert sense * answer.bound <= truth.value + TOLERANCE * max(abs(truth.value), 1.0)
    n = np.array(answer.blocks_by_period)
    assert within_limits(problem, n)
    if problem.then:
        first, second = (figures(problem, n)[goal] for goal in (problem.goal, problem.then[0]))
        assert first <= truth.value * (1 + problem.then_tolerance) + TOLERANCE
        assert second == pytest.approx(truth.second, rel=1e-5, abs=1e-5)
        assert [g.goal for g in answer.goals] == [problem.goal, *problem.then]
    keeps_its_word(problem, answer, n)
    return answer


def keeps_its_word(problem: FleetProblem, answer: FleetSolution, n: Fleet) -> None:
    demand, weight = demand_of(problem), weights(problem)
    x = np.array(answer.rates_by_period)  # periods x columns x classes
    assert x.min() >= 0.0
    rates = np.array([c.requests_per_s for c in problem.columns])
    load = np.divide(x, rates, out=np.zeros_like(x), where=rates > 0).sum(axis=2)
    usable = np.array([1.0 - (problem.spot_reserve if c.spot else 0.0) for c in problem.columns])
    assert (load <= n * usable + 1e-5).all()
    total = x.sum(axis=1)
    if problem.goal is Goal.THROUGHPUT:
        assert total == pytest.approx(demand * answer.objective, rel=1e-5, abs=1e-5)
    elif problem.goal is Goal.PROFIT:
        assert (total <= demand + 1e-5).all()
    else:
        assert total == pytest.approx(demand, rel=1e-5, abs=1e-5)
    if problem.most_spot_share is not None:
        spot = np.array([c.spot for c in problem.columns])
        assert (x[:, spot].sum(axis=1) <= problem.most_spot_share * total + 1e-5).all()
    f = figures(problem, n)
    assert answer.usd_per_hour + answer.change_usd_per_hour == pytest.approx(f[Goal.COST])
    assert answer.power_w == pytest.approx(f[Goal.POWER])
    assert answer.carbon_g_per_hour == pytest.approx(f[Goal.CARBON])
    earned = float(weight @ (total @ np.array(problem.usd_per_request))) * 3600.0
    assert answer.revenue_usd_per_hour == pytest.approx(earned, abs=1e-9)
    assert tuple(n.max(axis=0).tolist()) == answer.blocks
    assert np.einsum("t,tjk->jk", weight, x) == pytest.approx(np.array(answer.rates), abs=1e-9)
    for t in range(len(n)):
        for lost in losses(problem, n[t]):
            one = replace(
                problem, survive=Survive.NONE, periods=problem.periods[t : t + 1], demand_by_period=(tuple(total[t]),)
            )
            left = served(replace(one, most_spot_share=None), (n[t] - lost)[None], None)
            assert not total[t].any() or (left is not None and left >= 1.0 - 1e-5)


# Tests ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("goal", LINEAR, ids=lambda goal: goal.value)
def test_optimum_is_that_of_brute_force(goal: Goal) -> None:
    @examples(60)
    @given(problems((goal,)))
    def run(problem: FleetProblem) -> None:
        checked(problem)

    run()


@pytest.mark.parametrize("survive", [Survive.NODE, Survive.ZONE], ids=lambda survive: survive.value)
def test_every_failure_is_survived_at_least_cost(survive: Survive) -> None:
    @examples(60)
    @given(problems((Goal.COST, Goal.PROFIT, Goal.THROUGHPUT), survive))
    def run(problem: FleetProblem) -> None:
        checked(problem)

    run()


def test_the_ways_for_large_programs_change_nothing() -> None:
    """Groups, diving, pricing and the search by period, forced on small programs."""

    @examples(80)
    @given(problems())
    def run(problem: FleetProblem) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(grouping, "WORTH_GROUPING", 0)
            patch.setattr(search, "LARGE", 0)
            patch.setattr("tokopt.fleet.type_limit.LARGE_FLEET", 0.0)
            checked(problem)

    run()


def test_the_second_solver_agrees_on_small_programs() -> None:
    @examples(40)
    @given(problems())
    def run(problem: FleetProblem) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(engine, "SOLVERS", (("SCIP", engine.with_scip),))
            checked(problem)

    run()


RELAXED: dict[str, Callable[[FleetProblem], FleetProblem]] = {
    "power": lambda p: replace(p, power_w=None if p.power_w is None else p.power_w * 2),
    "site power": lambda p: replace(p, site_power_w={}),
    "budget": lambda p: replace(
        p, budget_usd_per_hour=None if p.budget_usd_per_hour is None else p.budget_usd_per_hour * 2
    ),
    "stock": lambda p: replace(p, offer_units={}, accelerator_stock={}),
    "caps": lambda p: replace(p, caps=()),
    "types": lambda p: replace(p, most_accelerator_types=None),
    "spot": lambda p: replace(p, most_spot_share=None, spot_reserve=0.0),
    "failures": lambda p: replace(p, survive=Survive.NONE),
    "carbon": lambda p: replace(p, carbon_g_per_hour=None),
    "commitments": lambda p: replace(p, columns=tuple(replace(c, least_blocks=0) for c in p.columns)),
    "flexibility": lambda p: replace(p, columns=tuple(replace(c, flexible=True) for c in p.columns)),
    "availability": lambda p: replace(p, columns=tuple(replace(c, first_period=0, least_blocks=0) for c in p.columns)),
}


@pytest.mark.parametrize("limit", list(RELAXED))
def test_relaxing_a_limit_never_hurts(limit: str) -> None:
    @examples(25)
    @given(problems(tuple(goal for goal in LINEAR if goal is not Goal.THROUGHPUT)))
    def run(problem: FleetProblem) -> None:
        free = replace(problem, then=(), change_usd_per_accelerator_hour=0.0)
        before, after = (solve_fleet(p, shadow_prices=False) for p in (free, RELAXED[limit](free)))
        assume(before.stop is Stop.OPTIMAL)
        assert after.stop is Stop.OPTIMAL
        sense = -1.0 if problem.goal is Goal.PROFIT else 1.0
        assert sense * after.objective <= sense * before.objective + TOLERANCE * max(abs(before.objective), 1.0)

    run()


def test_the_same_problem_has_the_same_answer() -> None:
    @examples(20)
    @given(problems())
    def run(problem: FleetProblem) -> None:
        try:
            one = solve_fleet(problem)
        except InputError as error:
            with pytest.raises(InputError, match=str(error)[:20]):
                solve_fleet(problem)
            return
        assert repr(one) == repr(solve_fleet(problem))

    run()
