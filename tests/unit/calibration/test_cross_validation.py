"""Held-out errors and the ranges that follow from them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokopt.api.processes import local_processes
from tokopt.calibration.cross_validation import error_rows, folds, held_out_residuals, intervals_from
from tokopt.calibration.fitting import Fit
from tokopt.calibration.observations import FIGURES, Observations
from tokopt.domain.calibration import Calibration, Interval, Novelty

World = Callable[..., Observations]
BASE = tuple(Interval(figure=f, novelty=None, mode="any", low=0.5, high=2.0, rows=0) for f in FIGURES)


@given(st.lists(st.sampled_from("abcdefghij"), min_size=1, max_size=60), st.integers(1, 6))
def test_folds_never_split_a_group(groups: list[str], count: int) -> None:
    found = folds(groups, count)
    assert {*found.tolist()} <= set(range(count))
    for name in set(groups):
        assert len({int(f) for f, g in zip(found, groups, strict=True) if g == name}) == 1
    backwards = folds(groups[::-1], count)[::-1]
    assert found.tolist() == backwards.tolist()
    sizes = np.bincount([int(folds(groups, count)[groups.index(g)]) for g in sorted(set(groups))], minlength=count)
    assert sizes.max() - sizes.min() <= 1


def test_ranges_hold_four_fifths_of_what_comes_next() -> None:
    """Exchangeable residuals: on average over calibration sets, the range holds (n + 1) · 0.8 of n + 1, or more."""
    rng = np.random.default_rng(11)
    held = []
    for _ in range(300):
        off = rng.standard_t(4, size=(len(FIGURES), 60)) * 0.2 + 0.03
        modes = np.array(["agg"] * 60)
        found = intervals_from({Novelty.MEASURED: off}, modes, np.ones(60, dtype=bool), BASE)
        ends = next(i for i in found if i.figure == FIGURES[0] and i.novelty is None)
        after = np.exp(-(rng.standard_t(4, size=4000) * 0.2 + 0.03))
        held.append(float(((after >= ends.low) & (after <= ends.high)).mean()))
    assert np.mean(held) == pytest.approx(0.8, abs=0.015)


def test_ranges_by_what_is_new_and_how_it_runs() -> None:
    rng = np.random.default_rng(2)
    narrow, wide = rng.normal(0.0, 0.1, (3, 200)), rng.normal(0.0, 0.4, (3, 200))
    wide[2] = np.nan  # too few of this figure
    narrow[2] = np.nan
    modes = np.where(np.arange(200) < 190, "agg", "gaps")
    found = intervals_from({Novelty.MEASURED: narrow, Novelty.NEW_LLM: wide}, modes, np.ones(200, bool), BASE)
    ends = {(i.figure, i.novelty, i.mode): i for i in found}
    assert ends[FIGURES[0], Novelty.MEASURED, "any"].high < ends[FIGURES[0], Novelty.NEW_LLM, "any"].high
    assert (FIGURES[0], Novelty.MEASURED, "gaps") not in ends  # ten residuals are too few
    assert ends[FIGURES[0], None, "any"].high == ends[FIGURES[0], Novelty.NEW_LLM, "any"].high
    assert ends[FIGURES[2], None, "any"] == BASE[2]  # nothing was measured: the base's range, not one of no width
    assert all(i.low <= 1.0 <= i.high for i in found)


def test_error_rows() -> None:
    off = np.log(np.array([[1.1, 0.9, 5.0], [np.nan] * 3, [np.nan] * 3]))
    (row,) = error_rows(off, {"all": np.ones(3, dtype=bool)}, "layout")
    assert row == {
        "split": "layout",
        "rows_of": "all",
        "rows": 3,
        "output_tok_s_per_gpu_mape": 40.0,
        "output_tok_s_per_gpu_median_ape": 10.0,
    }


def test_held_out_rows_are_predicted_without_their_group(priors: Calibration, world: World) -> None:
    observations = world(noise=0.3)
    some = observations.take(np.arange(0, observations.count, 3))
    fit = Fit(priors, some)
    splits = {"layout": (some.groups, 2)}
    held_out = held_out_residuals(fit, splits, rounds=4)["layout"]
    found = held_out.residuals
    assert (np.isfinite(found) == np.isfinite(some.measured)).all()
    inside, _ = fit.predict(fit.scaled(fit.solve(rounds=4).values))
    assert np.nanmean(np.abs(found)) > np.nanmean(np.abs(fit.residuals(inside)))
    dated = np.array(["month" in traits for traits in some.traits])
    assert 0 < dated.sum() < some.count
    # Months shift base values a little, so rows without one differ in the last digits of their own sums only.
    np.testing.assert_array_equal(held_out.undated[:, ~dated], found[:, ~dated])
    assert (held_out.undated != found)[np.isfinite(found)].any()
    with local_processes(2) as executor:
        apart = held_out_residuals(fit, splits, rounds=4, executor=executor)["layout"]
    np.testing.assert_allclose(apart.residuals, found, atol=1e-9)
