"""Fitting the constants: hierarchical, robust, shrunk towards parents and towards what was believed before.

Every constant is a base value plus effects of traits, added up on the scale of its link. With z the vector of all base
shifts and effects, and r the residuals ln(predicted / measured), the fit minimises

    sum over rows and figures of w² ρ(r / s)  +  sum over parameters of (z / spread)²,    ρ(x) = 2 (√(1 + x) - 1)

where ρ is the soft L1 loss of SciPy's least_squares (outliers count linearly), and the second sum is the logarithm of a
normal prior: an effect with few rows stays near zero, so the deployment keeps its parent's value (partial pooling;
Gelman & Hill, Data Analysis Using Regression and Multilevel/Hierarchical Models, 2007, ch. 12).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tokopt.calibration.observations import FIGURES, Observations, Predictor
from tokopt.calibration.refitting import between_clusters, held, traits_to_fit
from tokopt.calibration.threads import one_thread
from tokopt.domain.calibration import POWER_SHARES, Calibration
from tokopt.perf.closed_loop import MOST_STEPS
from tokopt.perf.constants import level_of, scaled_columns, unlinked

RESIDUAL_SCALE = 0.12  # of ln(predicted / measured): beyond it a row counts as an outlier, more and more
NUDGE = 1e-3  # of a constant on the scale of its link, for derivatives
ROUNDS = 30
PATIENCE = 4  # rounds
TOLERANCE = 2e-3  # of the loss, over that many rounds
STEPS_OF_DERIVATIVE = 2  # of the search for the running batch, which starts from the solution
STEPS_OF_VALUE = 8
LOOK_AGAIN = 8  # rounds, after which a constant may have come to act on other rows
UNFELT = 1e-7  # derivative below which a constant does not act on a row
FIRST_RADIUS = 4.0  # of the trust region, in standard deviations of the prior
Report = Callable[[str, float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One unknown: the shift of a base value (no trait), or the effect of one level of a trait."""

    constant: str
    trait: str
    level: str
    spread: float  # standard deviation of its prior
    known: float | None  # standard deviation that an earlier fit left of it; None = it was not fitted before
    rows: NDArray[np.int64]  # that it acts on


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """Fitted parameters, one element a parameter."""

    parameters: tuple[Parameter, ...]
    values: NDArray[np.float64]
    sd: NDArray[np.float64]  # standard deviations, from the curvature at the optimum
    loss: float
    rounds: int


def parameters_of(base: Calibration, observations: Observations) -> tuple[Parameter, ...]:
    """Return the unknowns: one a constant, and one a level that the rows have of each trait it may differ by.

    Where the base was fitted, what it learnt is held, and clusters may differ: see `refitting`.
    """
    everything = np.arange(observations.count)
    known = {(e.constant, e.trait, e.level): e.sd for e in base.effects}
    found: list[Parameter] = []
    levels: dict[str, dict[str, NDArray[np.int64]]] = {}
    for name, entry in base.entries.items():
        if name in POWER_SHARES:
            continue  # fitted to power, afterwards
        sd = entry.sd if base.fitted else None
        spread = held(sd, entry.spread)
        found.append(Parameter(constant=name, trait="", level="", spread=spread, known=sd, rows=everything))
        for trait in traits_to_fit(name, entry.effects) if base.fitted else entry.effects:
            if trait not in levels:
                levels[trait] = _levels(observations, trait)
            for level, rows in levels[trait].items():
                sd = known.get((name, trait, level))
                spread = entry.effects.get(trait, 0.0)
                if base.fitted:
                    spread = float(np.hypot(held(sd, spread or sd or 0.0), between_clusters(name, trait)))
                elif sd is not None:
                    spread = sd
                found.append(Parameter(constant=name, trait=trait, level=level, spread=spread, known=sd, rows=rows))
    return tuple(found)


def _levels(observations: Observations, trait: str) -> dict[str, NDArray[np.int64]]:
    """Return the levels that rows have of a trait, in alphabetical order, with their rows."""
    rows_of: dict[str, list[int]] = {}
    for row, traits in enumerate(observations.traits):
        level = level_of(traits, trait)
        if level is not None:
            rows_of.setdefault(level, []).append(row)
    return {level: np.array(rows) for level, rows in sorted(rows_of.items())}


class Fit:
    """Constants of a base calibration, moved towards measurements."""

    def __init__(self, base: Calibration, observations: Observations) -> None:
        self.base = base
        self.observations = observations
        self.predictor = Predictor(observations)
        self.parameters = parameters_of(base, observations)
        self.start = scaled_columns(base, observations.traits)
        self.spread = np.array([p.spread for p in self.parameters])
        self.by_constant = {
            name: [i for i, p in enumerate(self.parameters) if p.constant == name]
            for name in base.entries
            if name not in POWER_SHARES
        }

    def scaled(self, values: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Return every constant on the scale of its link under parameter values, one element a row."""
        columns = {name: column.copy() for name, column in self.start.items()}
        for parameter, value in zip(self.parameters, values, strict=True):
            if value:
                columns[parameter.constant][parameter.rows] += value
        return columns

    def predict(
        self,
        columns: Mapping[str, NDArray[np.float64]],
        *,
        start: NDArray[np.float64] | None = None,
        steps: int = MOST_STEPS,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return ln of predicted figures and running batches for constants on the scale of their links."""
        return self.predictor(self.unlinked(columns), start=start, steps=steps)

    def unlinked(self, columns: Mapping[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
        """Return constants from the scales of their links."""
        return {
            name: np.asarray(unlinked(column, self.base.entries[name].link), dtype=float)
            for name, column in columns.items()
        }

    def residuals(self, figures: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return ln(predicted / measured), figures x rows."""
        return np.asarray(figures - np.log(self.observations.measured), dtype=float)

    def solve(
        self,
        chosen: NDArray[np.bool_] | None = None,
        *,
        report: Report | None = None,
        rounds: int = ROUNDS,
        sure: bool = True,
    ) -> Solution:
        """Return the parameters that fit the chosen rows best.

        A trust region around Gauss-Newton steps on reweighted squares (`scipy.optimize.minimize`, method trust-exact);
        parameters are measured in units of their spreads. `sure`: with standard deviations, which take a while.

        Effects of one constant that act on the same rows (a model that ran on one system only) are one unknown whose
        variance is the sum of theirs: the most likely share of each in it is its share of the variance.
        """
        with one_thread():
            return self._solved(_Problem(self, chosen, report, rounds), sure)

    def _solved(self, problem: _Problem, sure: bool) -> Solution:
        from scipy.optimize import minimize

        found = minimize(
            problem.loss,
            np.zeros(len(problem.unknowns)),
            method="trust-exact",
            jac=problem.slopes,
            hess=problem.curvature,
            callback=lambda intermediate_result: problem.tell(intermediate_result.x),
            options={
                "initial_trust_radius": FIRST_RADIUS,
                "max_trust_radius": 1e3,
                "gtol": 1e-3,
                "maxiter": problem.rounds,
            },
        )
        sd = np.full(len(self.parameters), np.nan)
        if sure:
            sd = problem.standard_deviations(np.diag(np.linalg.inv(problem.curvature(found.x))))
        return Solution(
            parameters=self.parameters,
            values=problem.shifts(found.x),
            sd=sd,
            loss=float(found.fun),
            rounds=problem.done,
        )


@dataclass(frozen=True, slots=True)
class _Unknown:
    """Parameters of one constant that act on the same of the chosen rows."""

    constant: str
    rows: NDArray[np.int64]  # places among the chosen rows
    parameters: tuple[int, ...]
    spread: float


def _unknowns(fit: Fit, place: NDArray[np.int64]) -> list[_Unknown]:
    """Return what there is to find out, by constant; `place` says where each row is, -1 where it was not chosen."""
    found: list[_Unknown] = []
    for name, numbers in fit.by_constant.items():
        alike: dict[bytes, list[int]] = {}
        parts: dict[bytes, NDArray[np.int64]] = {}
        for number in numbers:
            rows = place[fit.parameters[number].rows]
            rows = rows[rows >= 0]
            if rows.size:
                parts[rows.tobytes()] = rows
                alike.setdefault(rows.tobytes(), []).append(number)
        for key, together in alike.items():
            spread = float(np.sqrt(np.square(fit.spread[together]).sum()))
            found.append(_Unknown(name, parts[key], tuple(together), spread))
    return found


class _Problem:
    """Loss, gradient and curvature over unknowns in units of their spreads; keeps what was computed last.

    Only the chosen rows are predicted; figures that were not measured weigh nothing.
    """

    def __init__(self, fit: Fit, chosen: NDArray[np.bool_] | None, report: Report | None, rounds: int) -> None:
        self.fit = fit
        self.report = report
        self.rounds = rounds
        self.done = 0
        self.losses: list[float] = []
        count = fit.observations.count
        rows = np.flatnonzero(chosen) if chosen is not None else np.arange(count)
        place = np.full(count, -1)
        place[rows] = np.arange(len(rows))
        self.unknowns = _unknowns(fit, place)
        self.spread = np.array([unknown.spread for unknown in self.unknowns])
        self.touched = {}
        for name in fit.by_constant:
            own = [(number, u.rows) for number, u in enumerate(self.unknowns) if u.constant == name]
            numbers = [np.full(len(rows), number) for number, rows in own]
            self.touched[name] = (np.concatenate([rows for _, rows in own]), np.concatenate(numbers))
        self.start = {name: column[rows] for name, column in fit.start.items()}
        self.observations = fit.observations if chosen is None else fit.observations.take(rows)
        self.predictor = Predictor(self.observations)
        self.measured = np.log(self.observations.measured)
        self.weights = np.where(np.isfinite(self.measured), self.observations.weights, 0.0) / RESIDUAL_SCALE
        self.acting: dict[str, tuple[NDArray[np.int64], Predictor]] = {}
        self.derivatives = 0
        self.running: NDArray[np.float64] | None = None
        self.at: bytes = b""
        self.figures = np.empty(0)
        self.slopes_at: bytes = b""
        self.gradient = np.empty(0)
        self.matrix = np.empty((0, 0))

    def _columns(self, scaled: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        columns = {name: column.copy() for name, column in self.start.items()}
        for unknown, value in zip(self.unknowns, scaled * self.spread, strict=True):
            if value:
                columns[unknown.constant][unknown.rows] += value
        return columns

    def shifts(self, scaled: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the shift of each parameter; those without a row stay where they were."""
        shifts = np.zeros(len(self.fit.parameters))
        for unknown, value in zip(self.unknowns, scaled, strict=True):
            own = list(unknown.parameters)
            shifts[own] = value * np.square(self.fit.spread[own]) / unknown.spread
        return shifts

    def standard_deviations(self, variances: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return those of the parameters, from the variances of the unknowns in units of their spreads' squares."""
        left = np.array(self.fit.spread)
        for unknown, variance in zip(self.unknowns, variances, strict=True):
            own = list(unknown.parameters)
            share = np.square(self.fit.spread[own] / unknown.spread)
            left[own] *= np.sqrt(1.0 - share * (1.0 - variance))
        return left

    def _evaluate(self, scaled: NDArray[np.float64]) -> None:
        if scaled.tobytes() != self.at:
            steps = STEPS_OF_VALUE if self.running is not None else 4 * STEPS_OF_VALUE
            values = self.fit.unlinked(self._columns(scaled))
            self.figures, self.running = self.predictor(values, start=self.running, steps=steps)
            self.at = scaled.tobytes()

    def _weighted(self) -> NDArray[np.float64]:
        x = (self.figures - self.measured) * self.weights
        return np.where(np.isfinite(x), x, 0.0)

    def loss(self, scaled: NDArray[np.float64]) -> float:
        """Return what is minimised."""
        self._evaluate(scaled)
        x = self._weighted()
        return float(np.sum(np.sqrt(1.0 + x * x) - 1.0) + 0.5 * np.sum(np.square(scaled)))

    def slopes(self, scaled: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the gradient; the Gauss-Newton matrix is computed with it."""
        if scaled.tobytes() != self.slopes_at:
            self._differentiate(scaled)
            self.slopes_at = scaled.tobytes()
        return self.gradient

    def curvature(self, scaled: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the Gauss-Newton matrix."""
        self.slopes(scaled)
        return self.matrix

    def _differentiate(self, scaled: NDArray[np.float64]) -> None:
        """Nudge each constant once, for all of its effects together: rows of one level move on their own."""
        from scipy.sparse import csr_array

        chosen = self.observations.count
        self._evaluate(scaled)
        x = self._weighted()
        pull = 1.0 / np.sqrt(np.sqrt(1.0 + x * x))  # square root of the weight of the soft L1 loss
        weights = self.weights * pull
        columns_of, rows_of, values = [], [], []
        for name, change in self._changes(self._columns(scaled)):
            rows, numbers = self.touched[name]
            felt = np.where(np.isfinite(change), change * weights, 0.0)[:, rows] * self.spread[numbers]
            figure, place = np.nonzero(felt)
            rows_of.append(rows[place] + figure * chosen)
            columns_of.append(numbers[place])
            values.append(felt[figure, place])
        # A row has one level of each trait: nearly all of the matrix is zeros.
        places = (np.concatenate(rows_of), np.concatenate(columns_of))
        shape = (len(FIGURES) * chosen, len(self.unknowns))
        jacobian = csr_array((np.concatenate(values), places), shape=shape)
        self.gradient = jacobian.T @ (x * pull).reshape(-1) + scaled
        self.matrix = (jacobian.T @ jacobian).toarray()
        np.einsum("ii->i", self.matrix)[:] += 1.0

    def _changes(self, columns: Mapping[str, NDArray[np.float64]]) -> Iterator[tuple[str, NDArray[np.float64]]]:
        """Yield each constant with the derivatives of the figures by it, figures x rows.

        Most constants act on some rows only (experts', pools'): between looks at all rows, the others are left out.
        """
        values = self.fit.unlinked(columns)
        # The same few steps as the nudged ones take, so that what is left of the search cancels.
        still, _ = self.predictor(values, start=self.running, steps=STEPS_OF_DERIVATIVE)
        everything = np.arange(self.observations.count)
        look = self.derivatives % LOOK_AGAIN == 0
        known: dict[bytes, tuple[NDArray[np.int64], Predictor]] = {}
        self.derivatives += 1
        for name in self.touched:
            column, change = columns[name], np.zeros_like(still)
            rows, predictor = (everything, self.predictor) if look else self.acting[name]
            if rows.size:
                nudged = self.fit.unlinked({name: column[rows] + NUDGE})
                own = {**{other: value[rows] for other, value in values.items()}, **nudged}
                begin = None if self.running is None else self.running[rows]
                shifted, _ = predictor(own, start=begin, steps=STEPS_OF_DERIVATIVE)
                change[:, rows] = (shifted - still[:, rows]) / NUDGE
            if look:
                feel = np.flatnonzero((np.abs(change) > UNFELT).any(axis=0))
                key = feel.tobytes()
                if key not in known:
                    known[key] = (feel, Predictor(self.observations.take(feel)))
                self.acting[name] = known[key]
            yield name, change

    def tell(self, scaled: NDArray[np.float64]) -> None:
        """Report an accepted step; stop where the last ones together gained next to nothing."""
        self.done += 1
        self.losses.append(self.loss(scaled))
        if self.report:
            self.report(f"round {self.done}: loss {self.losses[-1]:,.0f}", min(self.done / self.rounds, 1.0))
        if len(self.losses) > PATIENCE and self.losses[-1 - PATIENCE] - self.losses[-1] < TOLERANCE * self.losses[-1]:
            raise StopIteration
