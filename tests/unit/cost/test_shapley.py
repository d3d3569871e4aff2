"""Shares of factors: what defines a Shapley value, and the same from the definition by brute force."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tokopt.cost import balanced, shapley_values, with_missing

FIGURES = st.floats(min_value=-1e6, max_value=1e6, allow_nan=False)
POSITIVE = st.floats(min_value=1e-3, max_value=1e6)
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def games(draw: st.DrawFn, most: int = 5) -> NDArray[np.float64]:
    count = draw(st.integers(min_value=0, max_value=most))
    return np.array(draw(st.lists(FIGURES, min_size=1 << count, max_size=1 << count)))


def players(game: NDArray[np.float64]) -> int:
    return len(game).bit_length() - 1


def over_all_orders(game: NDArray[np.float64]) -> list[float]:
    """The definition in words: what each adds when it comes, averaged over all orders of coming."""
    count = players(game)
    added: list[list[float]] = [[] for _ in range(count)]
    for order in itertools.permutations(range(count)):
        there = 0
        for player in order:
            added[player].append(float(game[there | 1 << player] - game[there]))
            there |= 1 << player
    return [math.fsum(each) / len(each) for each in added]


@unhurried
@given(games())
def test_shares_are_means_over_all_orders(game: NDArray[np.float64]) -> None:
    assert shapley_values(game) == pytest.approx(over_all_orders(game), rel=1e-9, abs=1e-6)


@unhurried
@given(games())
def test_shares_add_up_to_the_whole(game: NDArray[np.float64]) -> None:
    assert math.fsum(shapley_values(game)) == pytest.approx(game[-1] - game[0], rel=1e-9, abs=1e-5)


@unhurried
@given(games(), st.data())
def test_what_adds_the_same_gets_the_same(game: NDArray[np.float64], data: st.DataObject) -> None:
    count = players(game)
    if count < 2:
        return
    one, other = data.draw(st.permutations(range(count)))[:2]
    twins = game.copy()
    for coalition in range(len(game)):
        if coalition >> one & 1 and not coalition >> other & 1:
            twins[coalition ^ (1 << one | 1 << other)] = twins[coalition]
    shares = shapley_values(twins)
    assert shares[one] == pytest.approx(shares[other], rel=1e-9, abs=1e-6)


@unhurried
@given(games(most=4), FIGURES)
def test_what_adds_nothing_but_itself_gets_just_that(game: NDArray[np.float64], own: float) -> None:
    shares = shapley_values(np.concatenate([game, game + own]))
    assert shares[-1] == pytest.approx(own, rel=1e-9, abs=1e-6)
    assert shares[:-1] == pytest.approx(shapley_values(game), rel=1e-9, abs=1e-6)


@unhurried
@given(st.integers(0, 5), st.integers(0, 2**32 - 1), st.floats(-10, 10))
def test_shares_of_sums_are_sums_of_shares(count: int, seed: int, factor: float) -> None:
    one, other = np.random.default_rng(seed).normal(size=(2, 1 << count))
    together = shapley_values(one + factor * other)
    assert together == pytest.approx(shapley_values(one) + factor * shapley_values(other), abs=1e-9)


def test_several_figures_at_once_are_each_by_itself() -> None:
    both = np.random.default_rng(0).normal(size=(16, 2))
    apart = [shapley_values(both[:, k]) for k in range(2)]
    assert shapley_values(both) == pytest.approx(np.stack(apart, axis=1), rel=1e-12)


def test_the_glove_game() -> None:
    """One left glove and two right ones, a pair is worth 1: 2/3, 1/6, 1/6 (a textbook's example)."""
    game = np.array([float(c & 1 and c & 6 > 0) for c in range(8)])
    assert shapley_values(game) == pytest.approx([2 / 3, 1 / 6, 1 / 6])


def test_only_whole_sets_of_coalitions() -> None:
    with pytest.raises(ValueError, match="power of two"):
        shapley_values(np.zeros(6))


# --- coalitions without a value ---


def test_what_has_no_value_counts_as_the_dearest_with_one_fewer() -> None:
    assert with_missing([5.0, 4.0, 3.0, None]) == [0, 1, 2, 1]
    assert with_missing([5.0, None, 3.0, 2.0]) == [0, 0, 2, 3]
    assert with_missing([5.0, None, None, None, 1.0, None, None, 0.5]) == [0, 0, 0, 0, 4, 0, 0, 7]


def test_the_empty_coalition_must_have_one() -> None:
    with pytest.raises(ValueError, match="empty"):
        with_missing([None, 1.0])


# --- sums to the last digit ---


@unhurried
@given(POSITIVE, POSITIVE, st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=7), st.floats(-1.0, 1.0))
def test_shares_are_balanced_to_the_last_digit(start: float, end: float, others: list[float], small: float) -> None:
    """Exact wherever one share is small enough to hold the last digit of the end: unless all are far larger.

    Nor where all are as large and the start lies half way between two sums: such a tie may round away from the end.
    """
    shares = [*others, end - start - math.fsum(others) - small * end, small * end]
    kept = balanced(start, shares, end)
    assert kept == pytest.approx(shares, rel=1e-9, abs=1e-6)
    off = abs(sum(map(Fraction, kept), Fraction(start)) - Fraction(end))
    assert math.fsum((start, *kept)) == end or off == Fraction(math.ulp(end)) / 2


@unhurried
@given(POSITIVE, POSITIVE)
def test_one_share_alone_is_the_difference(start: float, end: float) -> None:
    (share,) = balanced(start, [0.0], end)
    assert abs(math.fsum((start, share)) - end) <= math.ulp(share)
