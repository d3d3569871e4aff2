"""Fits find what they should: known constants, through noise and broken runs, and no more than rows tell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from tokopt.calibration.fitting import Fit, Solution, _Problem
from tokopt.calibration.observations import Observations
from tokopt.domain.calibration import Calibration

World = Callable[..., Observations]
TRUTH = {
    ("memory_efficiency", "", ""): 0.5,
    ("bf16_efficiency", "", ""): -0.4,
    ("layer_overhead_s", "", ""): 0.5,
    ("request_overhead_s", "", ""): 0.6,
    ("slowdown", "accelerator", "h100_sxm"): 0.08,
}
# A whole number of sequences fits in memory; workers that are not stated and full pools bring kinks.
WITH_JUMPS = {"reserved_bytes", "unstated_prefill_share", "unstated_decode_workers", "prefill_pool_efficiency"}
STEADY = {"memory_efficiency", "bf16_efficiency", "layer_overhead_s", "slowdown"}  # what whole figures hang on
BY_BROKEN_ROWS = 0.35  # of a prior's standard deviation: as far as a tenth of broken rows may move a base value


def value_of(solution: Solution, constant: str, trait: str = "", level: str = "") -> tuple[float, float]:
    """The fitted shift and its standard deviation."""
    names = [(p.constant, p.trait, p.level) for p in solution.parameters]
    place = names.index((constant, trait, level))
    return float(solution.values[place]), float(solution.sd[place])


def test_known_constants_are_found(priors: Calibration, world: World) -> None:
    observations = world(TRUTH)
    fit = Fit(priors, observations)
    solution = fit.solve()
    figures, _ = fit.predict(fit.scaled(solution.values))
    errors = np.abs(fit.residuals(figures))
    assert np.nanmedian(errors) < 0.02  # the noise is 0.02, of which the median is two thirds
    before, _ = fit.predict(fit.start)
    assert np.nanmedian(np.abs(fit.residuals(before))) > 0.06
    for key, shift in TRUTH.items():
        found, sd = value_of(solution, *key)
        assert abs(found - shift) < 2.5 * sd + 0.02, key
        assert found * shift > 0, key
    for constant in ("memory_efficiency", "layer_overhead_s", "request_overhead_s"):
        found, _ = value_of(solution, constant)
        assert found == pytest.approx(TRUTH[constant, "", ""], abs=0.3), constant


def test_levels_with_few_rows_stay_near_their_parents(priors: Calibration, world: World) -> None:
    """The same deviation of one accelerator, told by one row and by half of its rows: what do the others expect?"""
    observations = world()
    of_level = np.array([t["accelerator"] == "h200_sxm" for t in observations.traits])
    assert of_level.sum() >= 20
    told, others = np.flatnonzero(of_level)[::2], np.flatnonzero(of_level)[1::2]
    slower = np.ones(observations.count)
    slower[told] = 1.3
    fit = Fit(priors, replace(observations, measured=observations.measured * np.stack([1.0 / slower, slower, slower])))
    before, _ = fit.predict(fit.start)

    def moved(rows: np.ndarray) -> tuple[float, float]:
        """By how much of the deviation fall the rows that told of it, and those that did not."""
        chosen = ~of_level
        chosen[rows] = True
        after, _ = fit.predict(fit.scaled(fit.solve(chosen).values))
        share = (before - after)[0] / np.log(1.3)
        return float(np.nanmean(share[rows])), float(np.nanmean(share[others]))

    one, unsaid_one = moved(told[np.isfinite(before[0, told])][:1])
    every, unsaid_every = moved(told)
    assert every > 0.8 and unsaid_every > 0.5
    assert 0.0 < one < every
    assert abs(unsaid_one) < 0.5 * unsaid_every


def test_broken_rows_hardly_count(priors: Calibration, world: World) -> None:
    observations = world(TRUTH)
    broken = np.random.default_rng(5).random(observations.count) < 0.1
    spoilt = np.where(broken, 10.0, 1.0) * observations.measured
    clean = Fit(priors, observations).solve()
    fit = Fit(priors, replace(observations, measured=spoilt))
    found = fit.solve()
    bases = [number for number, p in enumerate(found.parameters) if not p.trait]
    moved = np.abs(found.values - clean.values)[bases] / fit.spread[bases]
    assert np.median(moved) < 0.1
    figures, _ = fit.predict(fit.scaled(found.values))
    sound = figures - np.log(observations.measured)
    assert np.nanmedian(np.abs(sound[:, ~broken])) < 0.05
    names = [found.parameters[number].constant for number in bases]
    worst = {n: float(m) for n, m in zip(names, moved, strict=True) if n in STEADY}
    assert max(worst.values()) < BY_BROKEN_ROWS, worst


def test_gradient_is_that_of_the_loss(priors: Calibration, world: World) -> None:
    problem = _Problem(Fit(priors, world(TRUTH, noise=0.1)), None, None, 1)
    at = np.random.default_rng(3).normal(0.0, 0.2, len(problem.unknowns))
    problem.loss(at)
    slope = problem.slopes(at).copy()
    step = 1e-3
    for constant in problem.fit.by_constant:
        numbers = [number for number, unknown in enumerate(problem.unknowns) if unknown.constant == constant]
        if constant in WITH_JUMPS:
            continue
        number = np.random.default_rng(0).choice(numbers)
        for place in {numbers[0], int(number)}:
            way = np.zeros_like(at)
            way[place] = step
            ahead, behind = problem.loss(at + way), problem.loss(at - way)
            found = (ahead - behind) / (2.0 * step)
            assert found == pytest.approx(slope[place], rel=0.05, abs=0.2), (constant, place)
    # Where a constant does not act, its rows are left out: the next gradient is the same.
    problem.slopes_at = b""
    np.testing.assert_allclose(problem.slopes(at), slope, rtol=1e-3, atol=1e-2)


def test_effects_that_act_on_the_same_rows_share_what_they_explain(priors: Calibration, world: World) -> None:
    """One unknown of them: its variance is the sum of theirs, and each has its part of the shift."""
    fit = Fit(priors, world(TRUTH, noise=0.1))
    problem = _Problem(fit, None, None, 1)
    assert sorted(n for unknown in problem.unknowns for n in unknown.parameters) == list(range(len(fit.parameters)))
    together = [(number, unknown) for number, unknown in enumerate(problem.unknowns) if len(unknown.parameters) > 1]
    assert together
    at = np.random.default_rng(3).normal(0.0, 1.0, len(problem.unknowns))
    shifts = problem.shifts(at)
    for number, unknown in together:
        own = list(unknown.parameters)
        assert unknown.spread == pytest.approx(np.sqrt(np.square(fit.spread[own]).sum()))
        assert shifts[own].sum() == pytest.approx(at[number] * unknown.spread)
        np.testing.assert_allclose(shifts[own] / np.square(fit.spread[own]), at[number] / unknown.spread)
    # As if each had been an unknown of its own: the same penalty, and columns that act the same.
    columns, own = fit.scaled(shifts), problem._columns(at)
    for name, column in columns.items():
        np.testing.assert_allclose(column, own[name], atol=1e-12)
    assert np.square(shifts / fit.spread).sum() == pytest.approx(np.square(at).sum())


def test_figures_that_were_not_measured_say_nothing(priors: Calibration, world: World) -> None:
    observations = world()
    throughput = np.array([1.0, np.nan, np.nan])[:, None] * observations.measured
    alone = replace(observations, measured=throughput)
    chosen = np.isfinite(throughput[0])

    def curvature(rows: Observations) -> np.ndarray:
        problem = _Problem(Fit(priors, rows), chosen, None, 1)
        return problem.curvature(np.zeros(len(problem.unknowns)))

    matrix = curvature(alone)
    huge = replace(alone, weights=np.where(np.isfinite(throughput), alone.weights, 1e3))
    np.testing.assert_array_equal(matrix, curvature(huge))
    all_three = np.diag(curvature(observations))
    assert (all_three >= np.diag(matrix) - 1e-9).all()
    assert all_three.sum() > 1.5 * np.diag(matrix).sum()


def test_rows_that_are_not_chosen_do_not_matter(priors: Calibration, world: World) -> None:
    observations = world(TRUTH)
    chosen = np.arange(observations.count) % 3 != 0
    spoilt = np.where(chosen, 1.0, 7.0) * observations.measured
    one = Fit(priors, observations).solve(chosen, rounds=6)
    other = Fit(priors, replace(observations, measured=spoilt)).solve(chosen, rounds=6)
    np.testing.assert_array_equal(one.values, other.values)
    np.testing.assert_array_equal(one.sd, other.sd)
