"""Fitting the shares that drawn power depends on: few readings, so strongly shrunk towards what was believed before.

With z the shares on the scale of their links, the fit minimises

    sum over readings of (ln(drawn / measured) / sd)²  +  sum over shares of ((z - prior) / spread)²

by least squares (`scipy.optimize.least_squares`); standard deviations follow from the curvature there. It comes after
the fit of throughput and latency, whose predictions say how busy a deployment is, and with what. Readings of one model
on one system share what the prediction gets wrong of them, so together they count as one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from tokopt.calibration.composing import rounded
from tokopt.calibration.refitting import held
from tokopt.calibration.threads import one_thread
from tokopt.domain.calibration import POWER_SHARES, Calibration, Entry
from tokopt.domain.provenance import Origin
from tokopt.perf.arrays import Floats
from tokopt.perf.constants import linked, unlinked
from tokopt.perf.power import drawn_w

READING_SD = 0.05  # of ln(drawn / measured): servers of one nameplate differ in fans, processors and power supplies
# Between servers, on the scale of the link: what a refit to a server of one's own may find different anew.
BETWEEN_SERVERS: Mapping[str, float] = {
    "memory_bound_power_share": 0.1,
    "compute_bound_power_share": 0.1,
    "host_power_share": 0.3,
}
CAPPED = 1.0  # an absolute relative error counts as at most 100 %, as in other errors


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """Measured power with what drew it, an accelerator; one element a reading."""

    idle_w: NDArray[np.float64]
    board_w: NDArray[np.float64]
    server_w: NDArray[np.float64]  # that of the board, where a meter saw the board alone
    busy: NDArray[np.float64]
    compute_share: NDArray[np.float64]
    measured_w: NDArray[np.float64]
    sd: NDArray[np.float64]  # of ln(drawn / measured)
    llms: NDArray[np.str_]  # whose rows are held out together; empty = never held out

    @property
    def count(self) -> int:
        """Number of readings."""
        return len(self.measured_w)

    def take(self, chosen: NDArray[np.bool_]) -> Readings:
        """Return some of the readings."""
        return Readings(**{f.name: getattr(self, f.name)[chosen] for f in fields(self)})

    def residuals(self, shares: Shares) -> NDArray[np.float64]:
        """Return ln(drawn / measured) of every reading under shares."""
        drawn = drawn_w(
            shares,
            idle_w=self.idle_w,
            board_w=self.board_w,
            server_w=self.server_w,
            busy=self.busy,
            compute_share=self.compute_share,
        )
        return np.asarray(np.log(drawn / self.measured_w), dtype=float)


@dataclass(frozen=True, slots=True)
class Shares:
    """Shares of power by themselves, in the order of `POWER_SHARES`."""

    memory_bound_power_share: Floats
    compute_bound_power_share: Floats
    host_power_share: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerFit:
    """Fitted shares, and their standard deviations on the scale of their links; in the order of `POWER_SHARES`."""

    values: tuple[float, ...]
    sd: tuple[float, ...]
    readings: int

    @property
    def shares(self) -> Shares:
        """The shares as `drawn_w` takes them."""
        return Shares(*self.values)


def reading_sds(deployments: Sequence[str]) -> NDArray[np.float64]:
    """Return the standard deviation of each reading of ln(drawn / measured): those of one deployment count as one."""
    count = Counter(deployments)
    return np.array([READING_SD * np.sqrt(count[name]) for name in deployments], dtype=float)


def fit_power(base: Calibration, readings: Readings) -> PowerFit:
    """Return the shares that fit readings best, starting from those of a base and shrunk towards them."""
    from scipy.optimize import least_squares

    entries = [base.entries[name] for name in POWER_SHARES]
    spreads = np.array([_spread(base, name) for name in POWER_SHARES])
    start = np.array([float(linked(entry.value, entry.link)) for entry in entries])

    def misfit(z: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.concatenate([readings.residuals(_shares(entries, z)) / readings.sd, (z - start) / spreads])

    with one_thread():
        found = least_squares(misfit, start, x_scale=spreads)
        slopes = np.asarray(found.jac, dtype=float)
        covariance = np.linalg.inv(slopes.T @ slopes)
    return PowerFit(
        values=tuple(float(unlinked(z, entry.link)) for z, entry in zip(found.x, entries, strict=True)),
        sd=tuple(float(sd) for sd in np.sqrt(np.diag(covariance))),
        readings=readings.count,
    )


def _spread(base: Calibration, name: str) -> float:
    """Return the prior's standard deviation: of the base, with what servers differ by where the base was fitted."""
    entry = base.entries[name]
    if not base.fitted:
        return entry.spread
    return float(np.hypot(held(entry.sd, entry.spread), BETWEEN_SERVERS[name]))


def _shares(entries: Iterable[Entry], scaled: NDArray[np.float64]) -> Shares:
    return Shares(*(unlinked(z, entry.link) for z, entry in zip(scaled, entries, strict=True)))


def with_power(calibration: Calibration, fit: PowerFit, source: str) -> Calibration:
    """Return a calibration with fitted shares of power."""
    entries = dict(calibration.entries)
    for name, value, sd in zip(POWER_SHARES, fit.values, fit.sd, strict=True):
        entries[name] = replace(
            entries[name], value=rounded(value), sd=rounded(sd, 3), origin=Origin.FITTED, source=source
        )
    return replace(calibration, entries=entries)


def held_out_errors(base: Calibration, readings: Readings) -> NDArray[np.float64]:
    """Return drawn / measured - 1 of every reading of a model, by a fit that has not seen the model."""
    errors = np.full(readings.count, np.nan)
    for llm in sorted(set(readings.llms) - {""}):
        mine = readings.llms == llm
        fit = fit_power(base, readings.take(~mine))
        errors[mine] = np.expm1(readings.take(mine).residuals(fit.shares))
    return errors


def power_errors(base: Calibration, readings: Readings, fit: PowerFit) -> list[dict[str, str | float]]:
    """Return mean and median absolute percentage errors of rows with power, as a calibration lists its errors.

    Models are held out one after another; of one model alone the errors are those of the fit that saw it.
    """
    rows = readings.llms != ""
    if not rows.any():
        return []
    several = len(set(readings.llms[rows])) > 1
    found = held_out_errors(base, readings)[rows] if several else np.expm1(readings.take(rows).residuals(fit.shares))
    errors = np.abs(found)
    return [
        {
            "split": "llm" if several else "in-sample",
            "rows_of": "rows with power",
            "rows": int(rows.sum()),
            "power_kw_mape": round(100.0 * float(np.minimum(errors, CAPPED).mean()), 1),
            "power_kw_median_ape": round(100.0 * float(np.median(errors)), 1),
        }
    ]
