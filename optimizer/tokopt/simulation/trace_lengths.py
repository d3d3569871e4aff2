"""How long the requests of a trace are: moments, percentiles and a histogram, without keeping the requests."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tokopt.domain.trace_summaries import LengthBin, LengthShare, LengthSummary

OCTAVES = 31  # of lengths below 2^31
FINE = 64  # bins an octave: 1.1 % wide
SHOWN = 4  # bins an octave of histograms
COARSE = 2  # bins an octave of lengths of prompts and answers together
SUMS_LIMIT = 1e-12  # of a variance, below which it is rounding
PERCENTILES = {"p5": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p90": 0.9, "p95": 0.95, "p99": 0.99}

Tokens = NDArray[np.int64]


class PairMoments:
    """Means, variances and covariance of two figures of each request, updated stretch by stretch (Chan et al. 1983)."""

    def __init__(self) -> None:
        self.count = 0
        self.means = np.zeros(2)
        self.products = np.zeros((2, 2))

    def add(self, values: NDArray[np.float64]) -> None:
        """Take more pairs, one a column."""
        number = values.shape[1]
        means = values.mean(axis=1)
        own = values - means[:, None]
        apart, count = means - self.means, self.count + number
        self.products += own @ own.T + np.outer(apart, apart) * self.count * number / count
        self.means += apart * number / count
        self.count = count

    def variances(self) -> NDArray[np.float64]:
        """Return both variances."""
        found: NDArray[np.float64] = np.diag(self.products) / max(self.count, 1)
        return np.where(found > SUMS_LIMIT * np.square(self.means), found, 0.0)

    def correlation(self) -> float:
        """Return the coefficient of correlation; 0 where one of both never changes."""
        spread = np.sqrt(self.variances())
        if not spread.all():
            return 0.0
        return float(np.clip(self.products[0, 1] / self.count / spread.prod(), -1.0, 1.0))


class LogHistogram:
    """Counts in bins of equal ratio."""

    def __init__(self, per_octave: int = FINE, octaves: int = OCTAVES) -> None:
        self.per_octave = per_octave
        self.counts = np.zeros(octaves * per_octave, dtype=np.int64)

    def add(self, values: NDArray[np.float64] | Tokens) -> None:
        """Take more values, from 1 on."""
        self.counts += np.bincount(bin_of(values, self.per_octave), minlength=self.counts.size)

    def quantile(self, share: float) -> float:
        """Return the value that a share of the values does not exceed: the middle of its bin."""
        place = int(np.searchsorted(np.cumsum(self.counts), share * self.counts.sum()))
        return float(2.0 ** ((min(place, self.counts.size - 1) + 0.5) / self.per_octave))

    def coarser(self, per_octave: int) -> list[LengthShare]:
        """Return shares in fewer bins, from the first to the last that is not empty."""
        counts = self.counts.reshape(-1, self.per_octave // per_octave).sum(axis=1)
        there = np.flatnonzero(counts)
        total = float(counts.sum())
        return [
            LengthShare(low=edge_of(n, per_octave), high=edge_of(n + 1, per_octave), share=float(counts[n]) / total)
            for n in range(there[0], there[-1] + 1)
            if edge_of(n, per_octave) < edge_of(n + 1, per_octave)  # small bins may hold no whole number
        ]


def bin_of(values: NDArray[np.float64] | Tokens, per_octave: int) -> NDArray[np.int64]:
    """Return the bin of equal ratio that each value lies in, from 1 on."""
    bins: NDArray[np.int64] = np.floor(np.log2(values) * per_octave).astype(np.int64)
    return bins


def edge_of(number: int, per_octave: int) -> float:
    """Return the least whole number of tokens of a bin."""
    return float(np.ceil(2.0 ** (number / per_octave) - 1e-9))


class Lengths:
    """Everything about the lengths of one stream."""

    def __init__(self) -> None:
        self.moments, self.log_moments = PairMoments(), PairMoments()
        self.histograms = (LogHistogram(), LogHistogram())
        self.least = np.full(2, np.iinfo(np.int64).max)
        self.most = np.zeros(2, dtype=np.int64)
        self.longest = 0
        self._cells = np.zeros((3, (OCTAVES * COARSE) ** 2))  # requests, their input and output tokens

    def add(self, inputs: Tokens, outputs: Tokens) -> None:
        """Take more requests."""
        both = np.stack([inputs, outputs])
        self.moments.add(both.astype(float))
        self.log_moments.add(np.log(both))
        for histogram, values in zip(self.histograms, both, strict=True):
            histogram.add(values)
        self.least = np.minimum(self.least, both.min(axis=1))
        self.most = np.maximum(self.most, both.max(axis=1))
        self.longest = max(self.longest, int((inputs + outputs).max()))
        cells = bin_of(inputs, COARSE) * (OCTAVES * COARSE) + bin_of(outputs, COARSE)
        for row, weights in enumerate((None, inputs, outputs)):
            self._cells[row] += np.bincount(cells, weights=weights, minlength=self._cells.shape[1])

    def summaries(self) -> tuple[LengthSummary, LengthSummary]:
        """Return what input and output lengths come to."""
        spread = np.sqrt(self.moments.variances())
        inputs, outputs = (self._summary(which, float(spread[which])) for which in (0, 1))
        return inputs, outputs

    def _summary(self, which: int, spread: float) -> LengthSummary:
        histogram, mean = self.histograms[which], float(self.moments.means[which])
        least, most = int(self.least[which]), int(self.most[which])
        return LengthSummary(
            mean=mean,
            cv=spread / mean,
            least=least,
            **{name: _whole(histogram.quantile(share), least, most) for name, share in PERCENTILES.items()},
            most=most,
            histogram=tuple(histogram.coarser(SHOWN)),
        )

    def bins(self) -> tuple[LengthBin, ...]:
        """Return prompts and answers together, shortest prompts first; their means are those of all requests."""
        requests, inputs, outputs = self._cells
        return tuple(
            LengthBin(
                input_tokens=float(inputs[cell] / requests[cell]),
                output_tokens=float(outputs[cell] / requests[cell]),
                share=float(requests[cell] / self.moments.count),
            )
            for cell in np.flatnonzero(requests)
        )


def _whole(value: float, least: int, most: int) -> float:
    return float(min(max(round(value), least), most))
