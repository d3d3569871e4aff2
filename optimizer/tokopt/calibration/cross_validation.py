"""How far a fit is from what it has not seen: grouped cross-validation, and the ranges that follow from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tokopt.calibration.fitting import Fit
from tokopt.calibration.observations import FIGURES
from tokopt.domain.calibration import Interval, Novelty
from tokopt.perf.constants import JOIN

COVERAGE = 0.8
MONTH = "month"  # the trait that says when a row was measured
FEWEST = 20  # residuals that a range of its own stands on
WORST = 1.0  # an absolute relative error counts as at most 100 %: a few published rows are broken runs
ROUNDS = 10  # of a fit without one fold: what is left after them is far below the error itself
Report = Callable[[str, float], None]


def folds(groups: Sequence[str] | NDArray[np.str_], count: int) -> NDArray[np.int64]:
    """Return the fold of each row: groups are dealt out in the order of their names.

    Names begin with system, framework and model, so that each fold has some of each (stratified by what is alike).
    """
    fold = {name: place % count for place, name in enumerate(sorted(set(groups)))}
    return np.array([fold[name] for name in groups], dtype=int)


@dataclass(frozen=True, slots=True)
class _Task:
    """One fit without the rows of one fold."""

    fit: Fit
    held_out: NDArray[np.bool_]
    rounds: int

    def __call__(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        fit = self.fit
        values = fit.solve(~self.held_out, rounds=self.rounds, sure=False).values
        undated = np.where([MONTH in p.trait.split(JOIN) for p in fit.parameters], 0.0, values)
        figures, figures_undated = (fit.predict(fit.scaled(each))[0] for each in (values, undated))
        return fit.residuals(figures)[:, self.held_out], fit.residuals(figures_undated)[:, self.held_out]


def _run(task: _Task) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return task()


@dataclass(frozen=True, slots=True)
class HeldOut:
    """ln(predicted / measured) of every row by a fit that has not seen its group, figures x rows."""

    residuals: NDArray[np.float64]
    undated: NDArray[np.float64]  # as if nobody knew when the row was measured, which is what a deployment is like


def held_out_residuals(
    fit: Fit,
    splits: Mapping[str, tuple[NDArray[np.str_], int]],
    *,
    executor: Executor | None = None,
    rounds: int = ROUNDS,
    report: Report | None = None,
) -> dict[str, HeldOut]:
    """Return how far fits are from what they have not seen, for each way of splitting.

    Args:
        fit: What is fitted.
        splits: Name -> (group of each row, number of folds).
        executor: What runs the fits; None = they run here. Each is computed alike in one process or another.
        rounds: Of each fit, at most.
        report: Told how far it is.
    """
    tasks: list[tuple[str, NDArray[np.bool_]]] = []
    for name, (groups, count) in splits.items():
        fold = folds(groups, min(count, len(set(groups))))
        tasks += [(name, fold == k) for k in range(int(fold.max()) + 1)]
    work = [_Task(fit, held_out, rounds) for _, held_out in tasks]
    shape = (len(FIGURES), fit.observations.count)
    found = {name: HeldOut(np.full(shape, np.nan), np.full(shape, np.nan)) for name in splits}
    answers = executor.map(_run, work) if executor else map(_run, work)
    for done, ((name, held_out), (residuals, undated)) in enumerate(zip(tasks, answers, strict=True), 1):
        found[name].residuals[:, held_out] = residuals
        found[name].undated[:, held_out] = undated
        if report:
            report(f"cross-validation by {name}", done / len(tasks))
    return found


def error_rows(
    residuals: NDArray[np.float64], sets: Mapping[str, NDArray[np.bool_]], split: str
) -> list[dict[str, str | float]]:
    """Return mean and median absolute percentage errors of sets of rows, one mapping a set."""
    rows: list[dict[str, str | float]] = []
    for name, mask in sets.items():
        row: dict[str, str | float] = {"split": split, "rows_of": name, "rows": int(mask.sum())}
        for figure, values in zip(FIGURES, residuals, strict=True):
            errors = np.abs(np.expm1(values[mask]))
            errors = errors[np.isfinite(errors)]
            if errors.size:
                row[f"{figure}_mape"] = round(100.0 * float(np.minimum(errors, WORST).mean()), 1)
                row[f"{figure}_median_ape"] = round(100.0 * float(np.median(errors)), 1)
        rows.append(row)
    return rows


def intervals_from(
    by_novelty: Mapping[Novelty, NDArray[np.float64]],
    modes: NDArray[np.str_],
    believed: NDArray[np.bool_],
    otherwise: Sequence[Interval],
) -> list[Interval]:
    """Return ranges that hold 80 % of held-out measurements: split-conformal quantiles of ln(measured / predicted).

    With n residuals in order, the ends are those of rank ⌈(n + 1)·0.9⌉ and ⌊(n + 1)·0.1⌋ (Vovk, Gammerman & Shafer,
    Algorithmic Learning in a Random World, 2005; Mondrian: by figure, novelty and mode, where enough residuals are).
    The weakest novelty's range also serves for whatever is not covered.

    Args:
        by_novelty: Residuals ln(predicted / measured), figures x rows, of fits that had not seen what is novel.
        modes: Of each row: agg, disagg, gaps.
        believed: Rows that are evidence for deployments of today.
        otherwise: Ranges of figures of which too few were measured.
    """
    found = []
    for number, figure in enumerate(FIGURES):
        widest: tuple[float, float, int] | None = None
        for novelty, residuals in by_novelty.items():
            for mode in ("any", *sorted(set(modes))):
                chosen = believed & ((modes == mode) if mode != "any" else (modes != "gaps"))
                off = -residuals[number][chosen]
                off = off[np.isfinite(off)]
                if off.size < FEWEST:
                    continue
                low, high = _ends(off)
                found.append(
                    Interval(figure=figure, novelty=novelty, mode=str(mode), low=low, high=high, rows=off.size)
                )
                if mode == "any" and (widest is None or high / low >= widest[1] / widest[0]):
                    widest = (low, high, off.size)
        if widest is None:
            found += [interval for interval in otherwise if interval.figure == figure]
            continue
        found.append(Interval(figure=figure, novelty=None, mode="any", low=widest[0], high=widest[1], rows=widest[2]))
    return found


def _ends(off: NDArray[np.float64]) -> tuple[float, float]:
    ordered = np.sort(off)
    count = len(ordered)
    tail = (1.0 - COVERAGE) / 2.0
    upper = min(int(np.ceil((count + 1) * (1.0 - tail))), count) - 1
    lower = max(int(np.floor((count + 1) * tail)), 1) - 1
    # A prediction lies inside its own range, even where a whole group is off to one side.
    return float(min(np.exp(ordered[lower]), 1.0)), float(max(np.exp(ordered[upper]), 1.0))
