"""Programs of middle size: two solvers agree, failures are survived, plans are stable, break-even prices break even."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import linprog

from tokopt.errors import InputError
from tokopt.fleet import (
    Cap,
    Column,
    FleetProblem,
    Goal,
    Period,
    Stop,
    Survive,
    break_even_prices,
    engine,
    solve_fleet,
)

GAP = 1e-4


def instance(seed: int, *, periods: int = 3, classes: int = 4, requests_per_s: float = 60.0) -> FleetProblem:
    """Return four accelerators with two set-ups each at two providers, on demand, reserved and spot."""
    rng = np.random.default_rng(seed)
    columns: list[Column] = []
    for g in range(4):
        price, speed = float(rng.uniform(2, 10)), float(rng.uniform(0.8, 1.3))
        menu = [tuple((price * speed * rng.uniform(0.2, 1.0, classes)).tolist()) for _ in range(2)]
        for p in range(2):
            for kind, factor in (("on_demand", 1.0), ("reserved", 0.7), ("spot", 0.45)):
                for c, rates in enumerate(menu):
                    columns.append(
                        Column(
                            name=f"gpu{g}|p{p}|{kind}|{c}",
                            accelerator=f"gpu{g}",
                            offer=f"gpu{g}|p{p}|{kind}",
                            accelerators_per_block=4,
                            replicas_per_block=1,
                            units_per_block=1,
                            usd_per_hour=price * factor * (1.0 + 0.1 * p),
                            power_w=500.0 + 150.0 * price,
                            requests_per_s=rates,
                            provider=f"p{p}",
                            zone=f"p{p}",
                            spot=kind == "spot",
                            flexible=kind != "reserved",
                            carbon_g_per_hour=100.0 * price * (1.0 + p),
                        )
                    )
    mix = rng.dirichlet(np.full(classes, 2.0)) * requests_per_s
    rows = [(mix * (1.0 + 0.4 * np.sin(t + rng.uniform(0, 1, classes)))).tolist() for t in range(periods)]
    return FleetProblem(
        columns=tuple(columns),
        demand=tuple(mix.tolist()),
        tokens_per_request=(300.0,) * classes,
        goal=Goal.COST,
        periods=tuple(Period(name=f"t{t}", hours=8.0) for t in range(periods)),
        demand_by_period=tuple(map(tuple, rows)),
        most_spot_share=0.4,
        spot_reserve=0.1,
        gap_target=GAP,
        time_limit_s=600.0,
    )


CASES = {
    "plain": {},
    "types": {"most_accelerator_types": 2},
    "stock": {"accelerator_stock": {"gpu0": 8, "gpu1": 8, "gpu2": 12}},
    "caps": {"caps": (Cap(name="p0", provider="p0", most=40.0), Cap(name="contract", provider="p1", least=8.0))},
    "node": {"survive": Survive.NODE},
}


@pytest.mark.parametrize("case", list(CASES))
def test_both_solvers_reach_the_same_objective(case: str) -> None:
    for seed in range(1 if case in ("node", "caps") else 2):
        small = instance(seed, periods=2 if case in ("plain", "caps") else 1, classes=3, requests_per_s=40.0)
        # A time limit leaves a bound and a fleet, which have to agree as well; failures need all their rounds.
        problem = replace(small, gap_target=1e-3, time_limit_s=300.0 if case == "node" else 10.0, **CASES[case])  # type: ignore[arg-type]
        first = solve_fleet(problem, shadow_prices=False)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(engine, "SOLVERS", (("SCIP", engine.with_scip),))
            second = solve_fleet(problem, shadow_prices=False)
        assert first.stop is not Stop.INFEASIBLE and second.stop is not Stop.INFEASIBLE
        lower, upper = max(first.bound, second.bound), min(first.objective, second.objective)
        assert lower <= upper * (1 + 1e-7)
        for answer in (first, second):
            assert answer.objective <= upper * (1 + answer.gap + 1e-9)


def _serves(problem: FleetProblem, blocks: np.ndarray, demand: np.ndarray) -> bool:
    """Return whether blocks can serve a demand, by SciPy."""
    used = np.flatnonzero(blocks > 1e-9)
    rates = np.array([problem.columns[j].requests_per_s for j in used.tolist()])
    count, classes = rates.shape
    equal = np.tile(np.eye(classes), count)
    load = np.zeros((count, count * classes))
    for i in range(count):
        load[i, i * classes : (i + 1) * classes] = 1.0 / rates[i]
    limits = [float(blocks[j]) * (1.0 - problem.spot_reserve * problem.columns[j].spot) + 1e-6 for j in used.tolist()]
    return bool(linprog(np.zeros(count * classes), load, limits, equal, demand).status == 0)


@pytest.mark.parametrize("survive", [Survive.NODE, Survive.ZONE])
def test_whatever_fails_everything_is_served(survive: Survive) -> None:
    problem = replace(instance(3, periods=1, classes=3), survive=survive, gap_target=2e-3)
    answer = solve_fleet(problem, shadow_prices=False)
    without = solve_fleet(replace(problem, survive=Survive.NONE), shadow_prices=False)
    assert answer.objective > without.objective
    failed = 0
    for t, blocks in enumerate(np.array(answer.blocks_by_period)):
        lost = [np.eye(len(blocks))[j] for j in np.flatnonzero(blocks)]
        if survive is Survive.ZONE:
            zones = {c.zone for c in problem.columns}
            lost = [blocks * np.array([c.zone == z for c in problem.columns]) for z in sorted(zones)]
        for gone in lost:
            failed += 1
            assert _serves(problem, blocks - gone, np.array(problem.demand_by_period[t]))
    assert failed >= 2


def test_a_small_change_of_demand_changes_few_blocks() -> None:
    problem = replace(instance(5, periods=1), gap_target=1e-6)
    before = solve_fleet(problem, shadow_prices=False)
    grown = replace(problem, demand_by_period=tuple(tuple(1.02 * d for d in r) for r in problem.demand_by_period))
    today = tuple(replace(c, current_blocks=n) for c, n in zip(problem.columns, before.blocks, strict=True))
    stable = replace(grown, columns=today, change_usd_per_accelerator_hour=0.2)
    kept, free = solve_fleet(stable, shadow_prices=False), solve_fleet(grown, shadow_prices=False)
    moved = sum(abs(a - b) for a, b in zip(kept.blocks, before.blocks, strict=True))
    assert moved == kept.changed_blocks
    size = [c.accelerators_per_block for c in problem.columns]
    steps = [abs(a - b) * s for a, b, s in zip(kept.blocks, before.blocks, size, strict=True)]
    assert kept.change_usd_per_hour == pytest.approx(0.2 * sum(steps))
    assert moved <= max(2, 0.1 * sum(before.blocks))
    assert moved <= sum(abs(a - b) for a, b in zip(free.blocks, before.blocks, strict=True))
    assert free.objective - 1e-6 <= kept.usd_per_hour <= free.objective * 1.05
    assert kept.objective == pytest.approx(kept.usd_per_hour + kept.change_usd_per_hour)


def test_owned_capacity_is_fixed_and_rented_capacity_follows_the_day() -> None:
    answer = solve_fleet(replace(instance(1), gap_target=1e-3), shadow_prices=False)
    blocks = np.array(answer.blocks_by_period)
    fixed = np.array([not c.flexible for c in instance(1).columns])
    assert (blocks[:, fixed] == blocks[0, fixed]).all() and blocks[:, fixed].any()
    assert (blocks[:, ~fixed].max(axis=0) > blocks[:, ~fixed].min(axis=0)).any()


def test_what_arrives_later_and_gets_cheaper_is_bought_later() -> None:
    old = replace(instance(1).columns[0], requests_per_s=(1.0,), usd_per_hour=4.0, spot=False, name="old", zone="")
    new = replace(
        old, name="new", accelerator="new", offer="new", first_period=1, usd_per_hour_by_period=(9.0, 9.0, 1.0)
    )
    problem = replace(
        instance(1),
        columns=(old, new),
        demand=(3.0,),
        tokens_per_request=(1.0,),
        demand_by_period=((3.0,),) * 3,
    )
    answer = solve_fleet(problem)
    assert answer.blocks_by_period == ((3, 0), (3, 0), (0, 3))
    assert answer.usd_per_hour == pytest.approx((12.0 + 12.0 + 3.0) / 3)


def test_a_time_limit_returns_a_plan_with_its_gap() -> None:
    problem = replace(instance(2, periods=3, requests_per_s=25.0), gap_target=1e-9, time_limit_s=2.0)
    answer = solve_fleet(problem, shadow_prices=False)
    assert answer.stop in (Stop.OPTIMAL, Stop.TIME_LIMIT)
    assert answer.bound <= answer.objective
    assert answer.gap == pytest.approx((answer.objective - answer.bound) / answer.objective, abs=1e-9)


def priced(problem: FleetProblem, accelerator: str, usd_per_accelerator_hour: float) -> FleetProblem:
    """Return the problem with all columns of an accelerator at one price."""
    return replace(
        problem,
        columns=tuple(
            replace(c, usd_per_hour=usd_per_accelerator_hour * c.accelerators_per_block, usd_per_hour_by_period=())
            if c.accelerator == accelerator
            else c
            for c in problem.columns
        ),
    )


@pytest.mark.parametrize("goal", [Goal.COST, Goal.COST_PER_TOKEN])
def test_just_below_its_break_even_price_an_accelerator_enters_the_plan(goal: Goal) -> None:
    checked = 0
    for seed in range(3):
        one = instance(seed, periods=1, classes=2, requests_per_s=30.0)
        limit = {"power_w": 20e3} if goal is Goal.COST_PER_TOKEN else {}
        problem = replace(one, goal=goal, gap_target=1e-6, most_spot_share=None, spot_reserve=0.0, **limit)
        answer = solve_fleet(problem, shadow_prices=False)
        used = {c.accelerator for c, n in zip(problem.columns, answer.blocks, strict=True) if n}
        for accelerator, price in break_even_prices(problem, answer, time_limit_s=60.0).items():
            assert accelerator not in used and price.exact
            p = price.usd_per_accelerator_hour
            below = solve_fleet(priced(problem, accelerator, p * (1 - 1e-3)), shadow_prices=False)
            above = solve_fleet(priced(problem, accelerator, p * (1 + 1e-3)), shadow_prices=False)
            enters = {c.accelerator for c, n in zip(problem.columns, below.blocks, strict=True) if n}
            stays = {c.accelerator for c, n in zip(problem.columns, above.blocks, strict=True) if n}
            assert accelerator in enters and accelerator not in stays
            checked += 1
    assert checked >= 3


def test_break_even_of_the_filled_limit_is_arithmetic() -> None:
    """With power alone the price is that at which a token costs the same as the plan's."""
    base = replace(instance(0).columns[0], requests_per_s=(10.0,), power_w=1000.0, usd_per_hour=8.0, spot=False)
    other = replace(base, name="other", accelerator="other", requests_per_s=(15.0,), usd_per_hour=20.0)
    problem = FleetProblem(
        columns=(base, other), demand=(1.0,), tokens_per_request=(100.0,), goal=Goal.COST_PER_TOKEN, power_w=5000.0
    )
    price = break_even_prices(problem, solve_fleet(problem))["other"]
    assert price.exact and price.column == "other"
    assert price.usd_per_accelerator_hour == pytest.approx(8.0 / 10.0 * 15.0 / 4)


def test_the_relaxation_prices_what_takes_too_long() -> None:
    problem = instance(0, periods=2)
    answer = solve_fleet(problem, shadow_prices=False)
    for price in break_even_prices(problem, answer, time_limit_s=0.0).values():
        assert not price.exact and price.usd_per_accelerator_hour > 0


BAD = {
    "periods": ({"periods": ()}, "one period at least"),
    "hours": ({"periods": (Period(name="x", hours=0.0),), "demand_by_period": ()}, "hours must be positive"),
    "rows": ({"demand_by_period": ((1.0,) * 4,)}, "1 rows for 3 periods"),
    "demand": ({"demand": (-1.0,) * 4}, "zero or more requests/s"),
    "share": ({"most_spot_share": 1.5}, "from 0 to 1"),
    "reserve": ({"spot_reserve": 1.0}, "below 1"),
    "cap": ({"caps": (Cap(name="x", most=1.0, least=2.0),)}, "contradict each other"),
    "profit": ({"goal": Goal.PROFIT}, "usd_per_request"),
    "then": ({"then": (Goal.COST_PER_TOKEN,)}, "only be the first goal"),
    "unlimited": ({"goal": Goal.THROUGHPUT}, "nothing limits the fleet"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_bad_input_is_one_line(case: str) -> None:
    changes, message = BAD[case]
    with pytest.raises(InputError, match=message) as caught:
        solve_fleet(replace(instance(0), **changes))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "limits", "message"),
    [
        ({"zone": ""}, {"survive": Survive.ZONE}, "its zone is needed"),
        ({"carbon_g_per_hour": float("nan")}, {"carbon_g_per_hour": 1.0}, "its carbon is needed"),
        ({"power_w": float("nan")}, {"power_w": 1.0}, "its power is needed"),
        ({"least_blocks": 3, "most_blocks": 2}, {}, "contradict each other"),
        ({"requests_per_s": (1.0,)}, {}, "1 classes where demand has 4"),
    ],
)
def test_a_column_that_says_too_little_is_named(
    changes: dict[str, object], limits: dict[str, object], message: str
) -> None:
    problem = instance(0)
    spoilt = (replace(problem.columns[0], **changes), *problem.columns[1:])  # type: ignore[arg-type]
    with pytest.raises(InputError, match=message) as caught:
        solve_fleet(replace(problem, columns=spoilt, **limits))  # type: ignore[arg-type]
    assert problem.columns[0].name in str(caught.value)
