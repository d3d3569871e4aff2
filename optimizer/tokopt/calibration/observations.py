"""Measurements as arrays, and their predictions under any set of constants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokopt.perf.arithmetic import AttentionCost, LlmArithmetic
from tokopt.perf.closed_loop import MOST_STEPS
from tokopt.perf.constants import stacked_constants
from tokopt.perf.machine import Peaks, sustained
from tokopt.perf.rows import Predicted, Rows, predict_aggregated, predict_disaggregated, predict_static, with_habits

FIGURES = ("output_tok_s_per_gpu", "tpot_ms", "ttft_ms")
KINDS = ("agg", "disagg", "static")
STEEPER = 4  # times as many steps of the search where pools are apart: waits in front of a full pool rise steeply


@dataclass(frozen=True, slots=True, kw_only=True)
class Observations:
    """Measured deployments, one element a row."""

    peaks: Peaks
    model: LlmArithmetic
    rows: Rows
    kinds: NDArray[np.str_]  # of KINDS
    traits: tuple[Mapping[str, str], ...]
    measured: NDArray[np.float64]  # figures x rows; not a number where not measured
    weights: NDArray[np.float64]  # figures x rows: how far to believe each
    groups: NDArray[np.str_]  # rows of a group stay together in cross-validation

    @property
    def count(self) -> int:
        """Number of rows."""
        return len(self.traits)

    def take(self, index: NDArray[np.int64]) -> Observations:
        """Return some of the rows."""
        return Observations(
            peaks=_taken(self.peaks, index),
            model=_taken(self.model, index),
            rows=self.rows.take(index),
            kinds=self.kinds[index],
            traits=tuple(self.traits[i] for i in index),
            measured=self.measured[:, index],
            weights=self.weights[:, index],
            groups=self.groups[index],
        )


def _taken(record: Any, index: NDArray[np.int64]) -> Any:
    """Return a record of arrays with some of their elements."""
    values: dict[str, Any] = {}
    for f in fields(record):
        value = getattr(record, f.name)
        if f.name == "attention":
            values[f.name] = tuple(_taken(part, index) for part in value)
        elif value is not None:  # stacked models have no drafters of their own
            values[f.name] = np.asarray(value, dtype=float)[index]
    kind: type[Peaks | LlmArithmetic | AttentionCost] = type(record)
    return kind(**values)


class Predictor:
    """Predicts observations under constants; splits them by kind once."""

    def __init__(self, observations: Observations) -> None:
        self.count = observations.count
        self.parts: list[tuple[str, NDArray[np.int64], Observations]] = []
        for kind in KINDS:
            index = np.flatnonzero(observations.kinds == kind)
            if index.size:
                self.parts.append((kind, index, observations.take(index)))

    def __call__(
        self,
        columns: Mapping[str, NDArray[np.float64]],
        *,
        start: NDArray[np.float64] | None = None,
        steps: int = MOST_STEPS,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return ln of the predicted figures (figures x rows, in their units) and the running batch."""
        figures = np.full((len(FIGURES), self.count), np.nan)
        running = np.ones(self.count)
        with np.errstate(all="ignore"):
            for kind, index, part in self.parts:
                own = {name: column[index] for name, column in columns.items()}
                begin = None if start is None else start[index]
                predicted = _predict(kind, part, own, begin, steps)
                seconds = (predicted.tpot_s * 1e3, predicted.ttft_s * 1e3)
                figures[:, index] = np.log(np.stack([predicted.output_tokens_per_s, *seconds]))
                running[index] = predicted.running
        return figures, running


def _predict(
    kind: str, part: Observations, columns: Mapping[str, NDArray[np.float64]], start: Any, steps: int
) -> Predicted:
    constants = stacked_constants(columns)
    machine = sustained(part.peaks, constants)
    rows = with_habits(part.rows, constants)
    if kind == "static":
        return predict_static(part.model, machine, rows, measured=True)
    if kind == "agg":
        return predict_aggregated(part.model, machine, rows, measured=True, start=start, steps=steps)
    return predict_disaggregated(
        part.model, machine, rows, constants=constants, measured=True, start=start, steps=STEEPER * steps
    )
