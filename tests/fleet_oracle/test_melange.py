"""The two-GPU example of Mélange, whose published answer is $6.70/h, and what mixing types is worth.

Source: `melange/config/example.json` of the Mélange repository (Griggs et al., 2024): an A10G at $1.01/h and an A100 at
$3.67/h, requests/s of each by size of request, 30 requests/s. Whole slices of a class on one GPU cost $6.70; a class
that may be split over GPUs costs $4.68.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokopt.fleet import Column, FleetProblem, Goal, Stop, solve_fleet

REQUESTS_PER_S = 30.0
SHARES = ((0.2, 0.1), (0.5, 0.2))
THROUGHPUT = {"a10g": ((2.0, 1.0), (5.0, 2.0)), "a100": ((20.0, 20.0), (40.0, 20.0))}
USD_PER_HOUR = {"a10g": 1.01, "a100": 3.67}
PUBLISHED_USD_PER_HOUR = 6.70


def column(name: str, usd_per_hour: float, requests_per_s: tuple[float, ...]) -> Column:
    return Column(
        name=name,
        accelerator=name,
        offer=name,
        accelerators_per_block=1,
        replicas_per_block=1,
        units_per_block=1,
        usd_per_hour=usd_per_hour,
        power_w=math.nan,
        requests_per_s=requests_per_s,
    )


@pytest.fixture
def example() -> FleetProblem:
    def flat(table: tuple[tuple[float, ...], ...]) -> tuple[float, ...]:
        return tuple(value for row in table for value in row)

    return FleetProblem(
        columns=tuple(column(name, USD_PER_HOUR[name], flat(table)) for name, table in THROUGHPUT.items()),
        demand=tuple(REQUESTS_PER_S * share for share in flat(SHARES)),
        tokens_per_request=(1.0,) * 4,
        goal=Goal.COST,
    )


def alone(problem: FleetProblem, name: str) -> FleetProblem:
    return replace(problem, columns=tuple(c for c in problem.columns if c.accelerator == name))


def test_one_of_each_is_proven_best(example: FleetProblem) -> None:
    answer = solve_fleet(example)
    assert answer.blocks == (1, 1)
    assert answer.objective == pytest.approx(4.68, abs=1e-9)
    assert answer.stop is Stop.OPTIMAL
    assert answer.gap == 0.0
    assert answer.bound == pytest.approx(4.68, abs=1e-6)
    assert answer.objective < PUBLISHED_USD_PER_HOUR


def test_the_split_serves_every_class_within_capacity(example: FleetProblem) -> None:
    answer = solve_fleet(example)
    for k, wanted in enumerate(example.demand):
        assert sum(rates[k] for rates in answer.rates) == pytest.approx(wanted)
    for c, n, rates in zip(example.columns, answer.blocks, answer.rates, strict=True):
        assert sum(x / r for x, r in zip(rates, c.requests_per_s, strict=True)) <= n + 1e-6


# Loads by hand: A10G 6/2 + 3/1 + 15/5 + 6/2 = 12 GPUs; A100 6/20 + 3/20 + 15/40 + 6/20 = 1.125, so 2.
@pytest.mark.parametrize(("name", "gpus"), [("a10g", 12), ("a100", 2)])
def test_one_type_alone_costs_more(example: FleetProblem, name: str, gpus: int) -> None:
    answer = solve_fleet(alone(example, name))
    assert answer.blocks == (gpus,)
    assert answer.objective == pytest.approx(gpus * USD_PER_HOUR[name])
    assert answer.objective > solve_fleet(example).objective


def test_at_most_one_type_takes_the_better_one(example: FleetProblem) -> None:
    answer = solve_fleet(replace(example, most_accelerator_types=1))
    assert answer.blocks == (0, 2)
    assert answer.objective == pytest.approx(7.34)


def test_one_more_request_is_worth_what_it_loads(example: FleetProblem) -> None:
    """Shadow prices are the relaxation's: Σ price x demand is its optimum, which bounds the program's."""
    answer = solve_fleet(example)
    assert answer.shadow_prices is not None
    relaxed = sum(p * d for p, d in zip(answer.shadow_prices.demand, example.demand, strict=True))
    assert all(p > 0 for p in answer.shadow_prices.demand)
    assert 0 < relaxed <= answer.objective + 1e-9


RATE = st.integers(1, 40).map(float)
PRICE = st.integers(50, 900).map(lambda cents: cents / 100.0)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(PRICE, st.lists(RATE, min_size=3, max_size=3)), min_size=2, max_size=4),
    st.lists(st.integers(1, 60).map(float), min_size=3, max_size=3),
)
def test_a_mix_is_never_dearer_than_the_best_single_type(
    machines: list[tuple[float, list[float]]], demand: list[float]
) -> None:
    problem = FleetProblem(
        columns=tuple(column(f"gpu{j}", usd, tuple(rates)) for j, (usd, rates) in enumerate(machines)),
        demand=tuple(demand),
        tokens_per_request=(1.0,) * 3,
        goal=Goal.COST,
    )
    mixed = solve_fleet(problem, shadow_prices=False)
    by_hand = [c.usd_per_hour * _gpus_alone(c, demand) for c in problem.columns]
    assert mixed.stop is Stop.OPTIMAL
    assert mixed.objective <= min(by_hand) * (1 + 1e-6)
    assert mixed.bound <= mixed.objective * (1 + 1e-9)
    # A load that no rounding touches is a lower bound: each class on its best column.
    cheapest = sum(min(c.usd_per_hour / c.requests_per_s[k] for c in problem.columns) * d for k, d in enumerate(demand))
    assert mixed.objective >= cheapest * (1 - 1e-6)


def _gpus_alone(c: Column, demand: list[float]) -> int:
    load = sum(d / r for d, r in zip(demand, c.requests_per_s, strict=True))
    return math.ceil(load - 1e-9)
