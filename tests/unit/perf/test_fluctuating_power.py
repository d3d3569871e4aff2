"""What boards draw under settings, and the bound on what many replicas draw together."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokopt.api.setting_facts import base_constants
from tokopt.catalog import Catalog
from tokopt.perf.fluctuation import Draw, Part, best_theta, bound_w, reserve_w
from tokopt.perf.power import board_watts, throttled_w

SHARES = st.floats(0.0, 1.0)


def each_w(catalog: Catalog, name: str, busy: float, share: float) -> float:
    constants = base_constants(catalog.calibration)
    return float(throttled_w(constants, board_watts(catalog.accelerator(name)), busy=busy, compute_share=share))


@settings(deadline=None)
@given(busy=SHARES, share=SHARES, low=st.floats(75.0, 699.0), high=st.floats(75.0, 699.0))
def test_a_lower_cap_never_draws_more(catalog: Catalog, busy: float, share: float, low: float, high: float) -> None:
    names = [f"h200_sxm@{cap:.3f}w" for cap in sorted((low, high))]
    lower, higher, plain = (each_w(catalog, name, busy, share) for name in (*names, "h200_sxm"))
    assert lower <= higher * (1 + 1e-12)
    assert higher <= plain * (1 + 1e-12)
    assert lower <= catalog.accelerator(names[0]).server_w  # type: ignore[operator]


@settings(deadline=None)
@given(busy=SHARES, share=SHARES, low=st.floats(200.0, 1829.0), high=st.floats(200.0, 1829.0))
def test_a_lower_clock_never_draws_more(catalog: Catalog, busy: float, share: float, low: float, high: float) -> None:
    lower, higher = (each_w(catalog, f"h200_sxm@{clock:.3f}mhz", busy, share) for clock in sorted((low, high)))
    assert lower <= higher * (1 + 1e-12)
    assert higher <= each_w(catalog, "h200_sxm", busy, share) * (1 + 1e-12)


def test_caps_do_not_bind_while_memory_traffic_alone_runs(catalog: Catalog) -> None:
    # arXiv 2605.11999: decode draws 137 to 300 W of 700, and no cap in use binds; clock locks save up to 32 %.
    host = 1275 - 700
    plain = each_w(catalog, "h200_sxm", 1.0, 0.0)
    assert each_w(catalog, "h200_sxm@400w", 1.0, 0.0) == pytest.approx(plain)
    constants = base_constants(catalog.calibration)
    board = plain - float(constants.host_power_share) * host
    for clock in (1500, 1200, 600, 200):
        saved = plain - each_w(catalog, f"h200_sxm@{clock}mhz", 1.0, 0.0)
        assert 0.0 < saved <= 0.325 * board
    # A hot board draws its cap, whatever it would like to.
    assert each_w(catalog, "h200_sxm@400w", 1.0, 1.0) == pytest.approx(400 + float(constants.host_power_share) * host)


def part(watts: list[float], chances: list[float], count: int = 1, limit: float = 2000.0) -> Part:
    return Part(count=count, watts=np.array(watts), chances=np.array(chances), limit_w=limit)


POINTS = st.lists(st.tuples(st.floats(100.0, 1900.0), st.floats(0.01, 1.0)), min_size=1, max_size=4)


def draw_of(points: list[tuple[float, float]]) -> Draw:
    total = sum(chance for _, chance in points)
    return Draw(parts=(part([w for w, _ in points], [chance / total for _, chance in points]),))


@settings(deadline=None)
@given(points=POINTS, low=st.floats(1e-6, 1.0), high=st.floats(1e-6, 1.0))
def test_effective_power_lies_between_mean_and_most_and_grows(
    points: list[tuple[float, float]], low: float, high: float
) -> None:
    draw = draw_of(points)
    small, large = sorted((low, high))
    most = max(watts for watts, _ in points)
    values = [draw.mean_w, draw.effective_w(small), draw.effective_w(large), draw.effective_w(math.inf)]
    assert all(a <= b * (1 + 1e-9) for a, b in itertools.pairwise(values))
    assert values[-1] == pytest.approx(most)


def exact_chance(draw: Draw, count: int, limit_w: float) -> float:
    """Chance that `count` independent replicas draw more than a limit, by going through all that may happen."""
    (one,) = draw.parts
    states = list(zip(one.watts.tolist(), one.chances.tolist(), strict=True))
    return sum(
        math.prod(chance for _, chance in chosen)
        for chosen in itertools.product(states, repeat=count)
        if sum(watts for watts, _ in chosen) > limit_w * (1 + 1e-12)
    )


@settings(deadline=None)
@given(points=POINTS, count=st.integers(1, 5), chance=st.sampled_from([0.3, 0.05, 0.01]), theta=st.floats(1e-5, 0.1))
def test_the_bound_holds_for_few_replicas_and_any_theta(
    points: list[tuple[float, float]], count: int, chance: float, theta: float
) -> None:
    draw = draw_of(points)
    assert exact_chance(draw, count, bound_w([(count, draw)], theta, chance)) <= chance
    best = bound_w([(count, draw)], best_theta([(count, draw)], chance), chance)
    assert exact_chance(draw, count, best) <= chance
    assert best <= bound_w([(count, draw)], math.inf, chance)


def test_the_bound_holds_for_a_mixed_fleet_and_is_not_far_above_the_quantile() -> None:
    chance, rng = 0.01, np.random.default_rng(7)
    bursty = Draw(parts=(part([2_000.0, 5_200.0, 9_000.0], [0.1, 0.8, 0.1]),))
    steady = Draw(parts=(part([1_000.0, 1_300.0], [0.3, 0.7]),))
    counted = [(150, bursty), (60, steady)]
    samples = sum(rng.choice(d.parts[0].watts, size=(20_000, n), p=d.parts[0].chances).sum(axis=1) for n, d in counted)
    theta = best_theta(counted, chance)
    bound = bound_w(counted, theta, chance)
    assert float(np.mean(samples > bound)) <= chance
    mean = sum(n * d.mean_w for n, d in counted)
    quantile = float(np.quantile(samples, 1.0 - chance))
    # Chernoff's exponent asks for √(2 ln 100) = 3.03 standard deviations where the normal quantile is 2.33.
    assert quantile < bound < mean + 1.45 * (quantile - mean)
    assert reserve_w(theta, chance) < 0.05 * bound


def test_many_replicas_are_pooled() -> None:
    draw = draw_of([(1_000.0, 0.5), (2_000.0, 0.5)])

    def over_mean(count: int) -> float:
        counted = [(count, draw)]
        return bound_w(counted, best_theta(counted, 0.01), 0.01) / (count * draw.mean_w) - 1.0

    assert over_mean(1) == pytest.approx(2_000 / 1_500 - 1)
    assert over_mean(400) == pytest.approx(3.03 * 500 / 1_500 / 20, rel=0.02)


def test_a_model_error_raises_all_draws_up_to_their_nameplate() -> None:
    draw = Draw(parts=(part([500.0, 1_500.0], [0.5, 0.5], count=3, limit=1_600.0),), spare_w=100.0, spare_limit_w=110.0)
    raised = draw.raised(1.2)
    assert raised.parts[0].watts.tolist() == [600.0, 1_600.0]
    assert raised.spare_w == pytest.approx(110.0)
    assert raised.limit_w == draw.limit_w == 3 * 1_600.0 + 110.0
    assert raised.times(2).mean_w == pytest.approx(2 * raised.mean_w)
