"""Blocks that buy units of two offers, against enumeration of every fleet: what each part counts against has to hold.

One class of requests: blocks n serve Σ r_j n_j, so a fleet is judged by sums alone and no solver is involved.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokopt.errors import InputError
from tokopt.fleet import (
    Cap,
    Column,
    Counted,
    FleetProblem,
    Goal,
    Part,
    Period,
    Stop,
    Survive,
    break_even_prices,
    solve_fleet,
)

MOST_DEMAND = 12
MOST_RATE = 9  # of a block, 1 at least
MOST_BLOCKS = MOST_DEMAND + MOST_RATE + 1  # no best fleet has more, not even one that is to survive a loss
TOLERANCE = 1e-6


def part(kind: str, units: int = 1, *, usd: float, watts: float, size: int = 8) -> Part:
    return Part(
        accelerator=kind,
        offer=f"node of {kind}",
        units=units,
        accelerators=units * size,
        usd_per_hour=usd * units,
        power_w=watts * units,
    )


def column(name: str, rate: float, *parts: Part, zone: str = "here") -> Column:
    """Return a column of one part or of several, as the API makes them."""
    first = parts[0]
    return Column(
        name=name,
        accelerator=first.accelerator,
        offer=first.offer,
        accelerators_per_block=sum(p.accelerators for p in parts),
        replicas_per_block=1,
        units_per_block=sum(p.units for p in parts),
        usd_per_hour=sum(p.usd_per_hour for p in parts),
        power_w=sum(p.power_w for p in parts),
        requests_per_s=(rate,),
        zone=zone,
        site=zone,
        parts=parts if len(parts) > 1 else (),
    )


A, B = part("a", usd=10.0, watts=8.0), part("b", usd=30.0, watts=12.0)
ALONE = (column("a", 1.0, A), column("b", 4.0, B))
MIXED = column("a+b", 8.0, A, B)  # 5 USD/h a request a second, where both alone take 10 and 7.5


def problem(*columns: Column, goal: Goal = Goal.COST, demand: float = 16.0, **limits: object) -> FleetProblem:
    return FleetProblem(columns=columns, demand=(demand,), tokens_per_request=(100.0,), goal=goal, **limits)


def test_a_mixed_column_that_is_cheaper_than_either_is_bought() -> None:
    found = solve_fleet(problem(*ALONE, MIXED))
    assert found.blocks == (0, 0, 2)
    assert found.usd_per_hour == pytest.approx(80.0)


def test_one_that_is_dearer_is_not() -> None:
    dear = replace(MIXED, requests_per_s=(5.0,))
    assert solve_fleet(problem(*ALONE, dear)).blocks == (0, 4, 0)


@pytest.mark.parametrize("kind", ["a", "b"])
def test_stock_of_either_part_binds(kind: str) -> None:
    for limits in ({"offer_units": {f"node of {kind}": 1}}, {"accelerator_stock": {kind: 15}}):
        found = solve_fleet(problem(*ALONE, MIXED, **limits))
        assert found.blocks[2] == 1
        one_left = found.blocks[1] if kind == "b" else found.blocks[0]
        assert one_left == 0  # the only unit is in the mixed block


def test_units_that_mixed_blocks_take_are_not_there_for_others() -> None:
    # Two cheap nodes of b, then dear ones: mixed blocks want the cheap ones, and so do plain ones.
    dear = replace(B, offer="dear node of b", usd_per_hour=40.0)
    columns = (column("b", 4.0, B), column("dear b", 4.0, dear), MIXED)
    found = solve_fleet(problem(*columns, demand=20.0, offer_units={"node of b": 2}))
    assert found.blocks == (0, 1, 2)


def test_types_count_both_parts() -> None:
    assert solve_fleet(problem(*ALONE, MIXED, most_accelerator_types=1)).blocks == (0, 4, 0)
    assert solve_fleet(problem(*ALONE, MIXED, most_accelerator_types=2)).blocks == (0, 0, 2)


def test_power_counts_both_parts() -> None:
    filled = solve_fleet(problem(*ALONE, MIXED, goal=Goal.THROUGHPUT, power_w=45.0))
    assert filled.blocks[2] == 2 and filled.power_w <= 45.0
    assert filled.power_w >= 40.0


def test_caps_on_money_of_one_accelerator_count_its_part() -> None:
    cap = Cap(name="b", accelerator="b", counted=Counted.USD_PER_HOUR, most=30.0)
    found = solve_fleet(problem(*ALONE, MIXED, caps=(cap,)))
    assert found.blocks == (8, 0, 1)


def test_the_break_even_price_is_of_its_own_part() -> None:
    """A fleet of b costs 120 USD/h for 16 requests a second; two blocks a+b cost 60 for b, so 60 are left for 16 a."""
    dear = replace(A, usd_per_hour=60.0)
    columns = (column("b", 4.0, B), column("a+b", 8.0, dear, B))
    asked = problem(*columns)
    plan = solve_fleet(asked)
    assert plan.blocks == (4, 0)
    assert break_even_prices(asked, plan)["a"].usd_per_accelerator_hour == pytest.approx(60.0 / 16.0)
    filling = problem(*columns, goal=Goal.COST_PER_TOKEN, power_w=1000.0)
    closed = solve_fleet(filling)
    price = break_even_prices(filling, closed)["a"].usd_per_accelerator_hour
    assert price == pytest.approx((8.0 * 30.0 / 4.0 - 30.0) / 8.0)


def test_parts_have_to_add_up() -> None:
    for wrong in (
        replace(MIXED, units_per_block=3),
        replace(MIXED, usd_per_hour=41.0),
        replace(MIXED, accelerator="b"),
        replace(MIXED, parts=(A, A)),
    ):
        with pytest.raises(InputError, match="part"):
            solve_fleet(problem(*ALONE, wrong))


# Any small instance ---------------------------------------------------------------------------------------------------

KINDS = "abc"
NUMBERS = st.integers(min_value=1, max_value=MOST_RATE)


@st.composite
def problems(draw: st.DrawFn) -> FleetProblem:
    """Return a problem of up to four columns over three accelerators, at least one of them of two parts."""
    prices = {kind: draw(NUMBERS) for kind in KINDS}
    watts = {kind: draw(NUMBERS) for kind in KINDS}

    def of(kind: str) -> Part:
        units = draw(st.integers(min_value=1, max_value=2))
        return part(kind, units, usd=float(prices[kind]), watts=float(watts[kind]))

    pairs = draw(st.lists(st.sampled_from(list(itertools.permutations(KINDS, 2))), min_size=1, max_size=2))
    singles = draw(st.lists(st.sampled_from(KINDS), max_size=2))
    columns = [column(f"{n}", float(draw(NUMBERS)), *map(of, pair)) for n, pair in enumerate(pairs)]
    columns += [column(f"{n} alone", float(draw(NUMBERS)), of(kind)) for n, kind in enumerate(singles)]
    limits: dict[str, object] = {}
    if draw(st.booleans()):
        limits["offer_units"] = {f"node of {draw(st.sampled_from(KINDS))}": draw(st.integers(0, 5))}
    if draw(st.booleans()):
        limits["accelerator_stock"] = {draw(st.sampled_from(KINDS)): 8 * draw(st.integers(0, 5))}
    if draw(st.booleans()):
        limits["most_accelerator_types"] = draw(st.integers(1, 2))
    if draw(st.booleans()):
        counted = draw(st.sampled_from(list(Counted)))
        selector = draw(st.sampled_from(["accelerator", "offer"]))
        kind = draw(st.sampled_from(KINDS))
        value = kind if selector == "accelerator" else f"node of {kind}"
        limits["caps"] = (Cap(name="cap", counted=counted, most=float(draw(st.integers(0, 30))), **{selector: value}),)
    if draw(st.booleans()):
        limits["survive"] = Survive.NODE
    goal = draw(st.sampled_from([Goal.COST, Goal.POWER, Goal.THROUGHPUT, Goal.COST_PER_TOKEN]))
    if goal in (Goal.THROUGHPUT, Goal.COST_PER_TOKEN) or draw(st.booleans()):
        limits["power_w"] = float(draw(st.integers(5, 25)))
    several = draw(st.booleans()) and goal is Goal.COST
    if several:
        limits["periods"] = (Period(name="day"), Period(name="night"))
    return problem(*columns, goal=goal, demand=float(draw(st.integers(1, MOST_DEMAND))), **limits)


def fleets(asked: FleetProblem) -> Iterator[tuple[tuple[int, ...], float]]:
    """Yield every fleet that keeps the limits, and what it serves: all that there is, or what a failure leaves."""
    for blocks in itertools.product(range(MOST_BLOCKS + 1), repeat=len(asked.columns)):
        if sum(blocks) > MOST_BLOCKS:
            continue
        bought = [(c, n) for c, n in zip(asked.columns, blocks, strict=True) if n]
        held = [(p, n) for c, n in bought for p in c.held]
        if asked.power_w is not None and sum(p.power_w * n for p, n in held) > asked.power_w + 1e-9:
            continue
        stocks = [(p.units * n, asked.offer_units.get(p.offer), p.offer) for p, n in held]
        stocks += [(p.accelerators * n, asked.accelerator_stock.get(p.accelerator), p.accelerator) for p, n in held]
        limited = {name: most for _, most, name in stocks if most is not None}
        if any(sum(used for used, _, of in stocks if of == name) > most for name, most in limited.items()):
            continue
        types = {p.accelerator for p, _ in held}
        if asked.most_accelerator_types is not None and len(types) > asked.most_accelerator_types:
            continue
        if any(_counted(cap, held) > cap.most + 1e-9 for cap in asked.caps):
            continue
        rates = [c.requests_per_s[0] for c, _ in bought]
        served = sum(c.requests_per_s[0] * n for c, n in bought)
        yield blocks, served - (max(rates, default=0.0) if asked.survive is Survive.NODE else 0.0)


def _counted(cap: Cap, held: list[tuple[Part, int]]) -> float:
    each = {
        Counted.UNITS: lambda p: p.units,
        Counted.ACCELERATORS: lambda p: p.accelerators,
        Counted.USD_PER_HOUR: lambda p: p.usd_per_hour,
        Counted.POWER_W: lambda p: p.power_w,
    }[cap.counted]
    return sum(each(p) * n for p, n in held if cap.accelerator in ("", p.accelerator) and cap.offer in ("", p.offer))


def best(asked: FleetProblem) -> float | None:
    """Return the best objective of all fleets, None where none serves anything or what is asked."""
    values = []
    for blocks, served in fleets(asked):
        usd = sum(c.usd_per_hour * n for c, n in zip(asked.columns, blocks, strict=True))
        watts = sum(c.power_w * n for c, n in zip(asked.columns, blocks, strict=True))
        if asked.goal in (Goal.COST, Goal.POWER):
            if served >= asked.demand[0] - 1e-9:
                values.append(usd if asked.goal is Goal.COST else watts)
        elif served > 0.0:
            tokens = served * asked.tokens_per_request[0] * 3600.0 / 1e6
            values.append(-served / asked.demand[0] if asked.goal is Goal.THROUGHPUT else usd / tokens)
    return abs(min(values)) if values else None


@settings(max_examples=250, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(problems())
def test_no_fleet_is_better(asked: FleetProblem) -> None:
    if len(asked.columns) > 3:
        asked = replace(asked, columns=asked.columns[:3])
    found = solve_fleet(asked, shadow_prices=False)
    expected = best(asked)
    if expected is None:
        assert found.stop is Stop.INFEASIBLE or not any(found.blocks)
        return
    assert found.objective == pytest.approx(expected, rel=TOLERANCE)
    assert found.bound == pytest.approx(expected, rel=1e-5)
