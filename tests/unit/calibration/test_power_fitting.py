"""Fitting shares of power: known ones are found, few readings hardly move them, and errors are of models not seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tokopt.calibration.fitting import Fit
from tokopt.calibration.observations import Observations
from tokopt.calibration.power_fitting import (
    READING_SD,
    PowerFit,
    Readings,
    Shares,
    fit_power,
    held_out_errors,
    power_errors,
    reading_sds,
    with_power,
)
from tokopt.catalog import Catalog
from tokopt.catalog.calibration_files import calibration_text, load_calibration
from tokopt.domain.calibration import POWER_SHARES, Calibration
from tokopt.domain.provenance import Origin
from tokopt.perf.power import drawn_w

TRUTH = Shares(0.25, 0.85, 0.6)
LLMS = ("a", "b", "c")


def readings(count: int, *, sd: float = READING_SD, noise: float = 0.0, llms: tuple[str, ...] = LLMS) -> Readings:
    """Return readings of servers of three kinds under many loads, with power that follows from TRUTH."""
    chance = np.random.default_rng(7)
    server = chance.integers(3, size=count)
    columns = {
        "idle_w": np.array([60.0, 75.0, 140.0])[server],
        "board_w": np.array([400.0, 700.0, 1000.0])[server],
        "server_w": np.array([800.0, 1275.0, 1790.0])[server],
        "busy": chance.uniform(0.2, 1.0, count),
        "compute_share": chance.uniform(0.0, 1.0, count),
    }
    measured = drawn_w(TRUTH, **columns) * np.exp(chance.normal(0.0, noise, count))
    names = np.array([llms[number % len(llms)] for number in range(count)], dtype=str)
    return Readings(**columns, measured_w=measured, sd=np.full(count, sd), llms=names)


def test_known_shares_are_found(priors: Calibration) -> None:
    fit = fit_power(priors, readings(60, sd=0.001))
    assert fit.values == pytest.approx((0.25, 0.85, 0.6), rel=2e-3)
    assert fit.readings == 60 and max(fit.sd) < 0.02


def test_known_shares_are_found_under_noise(priors: Calibration) -> None:
    fit = fit_power(priors, readings(400, sd=0.05, noise=0.05))
    for value, truth, sd in zip(fit.values, (0.25, 0.85, 0.6), fit.sd, strict=True):
        assert abs(np.log(value / (1 - value)) - np.log(truth / (1 - truth))) < 3 * sd


def test_no_readings_say_nothing(priors: Calibration) -> None:
    fit = fit_power(priors, readings(6).take(np.zeros(6, dtype=bool)))
    entries = [priors.entries[name] for name in POWER_SHARES]
    assert fit.values == pytest.approx([entry.value for entry in entries])
    assert fit.sd == pytest.approx([entry.spread for entry in entries])


def test_few_readings_move_less_than_many(priors: Calibration) -> None:
    few, many = fit_power(priors, readings(3)), fit_power(priors, readings(90))
    start = priors.entries["host_power_share"].value
    assert start < few.values[2] < many.values[2] <= 0.61
    assert all(less > more for less, more in zip(few.sd, many.sd, strict=True))


def test_the_same_readings_give_the_same_digits(priors: Calibration) -> None:
    assert fit_power(priors, readings(11)) == fit_power(priors, readings(11))


def test_readings_of_one_deployment_count_as_one() -> None:
    assert reading_sds(["x", "y", "x", "x", "x"]) == pytest.approx(READING_SD * np.array([2.0, 1.0, 2.0, 2.0, 2.0]))
    assert reading_sds([]).size == 0


def test_a_refit_holds_what_was_learnt_but_for_the_host(priors: Calibration) -> None:
    """A server of one's own may differ from those that were measured, its boards hardly."""
    learnt = with_power(replace(priors, data_hash="0"), fit_power(priors, readings(400)), "own-measurements")
    again = fit_power(learnt, replace(readings(12), measured_w=1.1 * readings(12).measured_w))
    moved = [np.log(v / (1 - v)) - np.log(t / (1 - t)) for v, t in zip(again.values, (0.25, 0.85, 0.6), strict=True)]
    assert moved[2] > 0.2 and moved[2] > 2 * max(abs(moved[0]), abs(moved[1]))


def test_errors_are_of_models_that_were_not_seen(priors: Calibration) -> None:
    some = readings(9)
    odd = np.where(some.llms == "a", 1.3, 1.0) * some.measured_w
    some = replace(some, measured_w=odd)
    held_out = held_out_errors(priors, some)
    seen = np.expm1(some.residuals(fit_power(priors, some).shares))
    assert np.abs(held_out[some.llms == "a"]).mean() > np.abs(seen[some.llms == "a"]).mean()
    (error,) = power_errors(priors, some, fit_power(priors, some))
    assert error["split"] == "llm" and error["rows"] == 9
    assert error["power_kw_mape"] == pytest.approx(100 * np.abs(held_out).mean(), abs=0.05)
    assert error["power_kw_median_ape"] == pytest.approx(100 * np.median(np.abs(held_out)), abs=0.05)


def test_errors_of_one_model_are_in_sample_and_of_none_are_none(priors: Calibration) -> None:
    one = readings(5, llms=("a",))
    (error,) = power_errors(priors, one, fit_power(priors, one))
    assert error["split"] == "in-sample" and error["rows"] == 5
    none = readings(5, llms=("",))  # read elsewhere: never held out
    assert power_errors(priors, none, fit_power(priors, none)) == []


def test_fitted_shares_are_written_with_their_pedigree(catalog: Catalog, tmp_path: Path) -> None:
    fit = PowerFit(values=(0.31, 0.9, 0.5), sd=(0.2, 0.3, 0.1), readings=4)
    base = catalog.calibration
    made = with_power(base, fit, "own-measurements")
    assert {name for name in base.entries if made.entries[name] != base.entries[name]} == set(POWER_SHARES)
    path = tmp_path / "mine.yaml"
    path.write_text(calibration_text(made, "tokopt calibrate"), encoding="utf-8")
    read = load_calibration(path).entries["host_power_share"]
    assert (read.value, read.sd, read.origin, read.source) == (0.5, 0.1, Origin.FITTED, "own-measurements")
    assert all(base.entries[name].origin is Origin.FITTED for name in POWER_SHARES)


def test_throughput_does_not_ask_for_shares_of_power(priors: Calibration, world: Callable[..., Observations]) -> None:
    fit = Fit(priors, world().take(np.arange(0, 240, 8)))
    assert not {parameter.constant for parameter in fit.parameters} & set(POWER_SHARES)
    solution = fit.solve(rounds=1)
    assert np.isfinite(solution.sd).all()
