"""Statistics of a trace in one pass, in memory that does not grow with its length."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from tokopt.domain.trace_summaries import StreamSummary, Timeline, TraceSummary
from tokopt.domain.traces import TraceChunk, taken
from tokopt.simulation.trace_arrivals import SHORTEST_S, Arrivals
from tokopt.simulation.trace_lengths import Lengths
from tokopt.simulation.trace_reuse import PrefixReuse
from tokopt.units import SECONDS_PER_DAY

FIRST_STEP_S = 2.0**-6
MOST_STEPS = 4096
SHOWN_STEPS = 240
TOTAL = "all requests"
REQUESTS, INPUT, OUTPUT, FOUND = range(4)


class Steps:
    """Sums over the trace in equal steps of time, which are doubled whenever there come to be too many."""

    def __init__(self) -> None:
        self.step_s = FIRST_STEP_S
        self.sums = np.zeros((4, MOST_STEPS))

    def add(self, times: NDArray[np.float64], weights: Sequence[NDArray[np.int64] | None]) -> None:
        """Take more requests: what each adds to each sum."""
        while times[-1] >= self.step_s * MOST_STEPS:
            pairs = self.sums.reshape(4, -1, 2).sum(axis=2)
            self.sums = np.concatenate([pairs, np.zeros_like(pairs)], axis=1)
            self.step_s *= 2.0
        places = np.floor(times / self.step_s).astype(np.int64)
        for row, each in enumerate(weights):
            self.sums[row] += np.bincount(places, weights=each, minlength=MOST_STEPS)

    def late_share(self, end_s: float) -> float | None:
        """Return what is found of the input tokens of the second half."""
        late = self.sums[:, int(0.5 * end_s / self.step_s) + 1 :].sum(axis=1)
        return float(late[FOUND] / late[INPUT]) if late[INPUT] else None

    def timeline(self, end_s: float) -> Timeline:
        """Return rates in at most `SHOWN_STEPS` equal steps over the trace."""
        used = min(int(end_s / self.step_s) + 1, MOST_STEPS)
        shown = min(used, SHOWN_STEPS)
        # Steps that lie across two of those shown are shared out between them.
        edges = np.append(np.linspace(0.0, end_s / self.step_s, shown + 1)[:-1], used)
        sums = np.concatenate([np.zeros((4, 1)), np.cumsum(self.sums, axis=1)], axis=1)
        places = np.arange(MOST_STEPS + 1)
        step_s = max(end_s / shown, 1e-9)
        rates = [np.diff(np.interp(edges, places, row)) / step_s for row in sums[: FOUND + 1]]
        return Timeline(
            step_s=step_s,
            requests_per_s=tuple(rates[REQUESTS].tolist()),
            input_tokens_per_s=tuple(rates[INPUT].tolist()),
            output_tokens_per_s=tuple(rates[OUTPUT].tolist()),
        )


class StreamStatistics:
    """Statistics of all requests, or of one class."""

    def __init__(self, offset_s: float) -> None:
        self.arrivals = Arrivals(offset_s)
        self.lengths = Lengths()
        self.reuse: PrefixReuse | None = None
        self.steps = Steps()

    def add(self, chunk: TraceChunk) -> None:
        """Take more requests."""
        self.arrivals.add(chunk.time_s)
        self.lengths.add(chunk.input_tokens, chunk.output_tokens)
        found = None
        if chunk.block_tokens:
            if self.reuse is None:
                self.reuse = PrefixReuse(chunk.block_tokens)
            found = self.reuse.add(chunk)
        none = np.zeros(chunk.requests, dtype=np.int64)
        self.steps.add(chunk.time_s, (None, chunk.input_tokens, chunk.output_tokens, none if found is None else found))

    def summary(self, name: str, end_s: float, rate_per_request: float) -> StreamSummary:
        """Return what they come to."""
        inputs, outputs = self.lengths.summaries()
        return StreamSummary(
            name=name,
            requests=self.arrivals.count,
            input_tokens=inputs,
            output_tokens=outputs,
            correlation=self.lengths.moments.correlation(),
            log_correlation=self.lengths.log_moments.correlation(),
            longest_tokens=self.lengths.longest,
            lengths=self.lengths.bins(),
            arrivals=self.arrivals.summary(end_s, rate_per_request),
            reuse=self.reuse.summary(self.steps.late_share(end_s)) if self.reuse is not None else None,
        )


class TraceStatistics:
    """Statistics of a trace that is handed over stretch by stretch.

    Args:
        starts_at: Date of the first request, so that hours are those of the day; without it, they count from there.
    """

    def __init__(self, starts_at: datetime | None = None) -> None:
        self.starts_at = starts_at
        midnight = None if starts_at is None else starts_at.replace(hour=0, minute=0, second=0, microsecond=0)
        offset_s = 0.0 if starts_at is None or midnight is None else (starts_at - midnight).total_seconds()
        self._offset_s = offset_s % SECONDS_PER_DAY
        self._total = StreamStatistics(self._offset_s)
        self._classes: dict[int, StreamStatistics] = {}  # empty as long as there is only one
        self._only: int | None = None
        self._end_s = 0.0

    def add(self, chunk: TraceChunk) -> None:
        """Take the next stretch."""
        if chunk.requests == 0:
            return
        there = np.unique(chunk.classes)
        if not self._classes and (there.size > 1 or there[0] != self._only) and self._only is not None:
            # All requests so far were of one class: what is known of them is known of it.
            self._classes = {self._only: copy.deepcopy(self._total)}
        if self._classes or there.size > 1:
            for number in there.tolist():
                stream = self._classes.setdefault(number, StreamStatistics(self._offset_s))
                stream.add(taken(chunk, np.flatnonzero(chunk.classes == number)))
        self._only = int(there[0])
        self._total.add(chunk)
        self._end_s = float(chunk.time_s[-1])

    @property
    def requests(self) -> int:
        """Requests so far."""
        return self._total.arrivals.count

    def summary(
        self,
        *,
        file: str = "",
        form: str = "",
        title: str = "",
        failures: int = 0,
        class_names: Sequence[str] = (),
    ) -> TraceSummary:
        """Return what the trace comes to; there must have been a request.

        Args:
            file: Where it is from.
            form: Its format.
            title: What that is called.
            failures: Rows that were left out.
            class_names: Names of classes by number.
        """
        count, end_s = self.requests, self._end_s
        rate_per_request = (count - 1) / count / end_s if end_s > SHORTEST_S else 0.0
        total = self._total.summary(TOTAL, end_s, rate_per_request)
        named = {number: class_names[number] if class_names else f"class {number}" for number in sorted(self._classes)}
        return TraceSummary(
            **{name: getattr(total, name) for name in StreamSummary.model_fields},
            file=file,
            format=form,
            format_title=title,
            failures=failures,
            starts_at=self.starts_at,
            span_s=end_s,
            timeline=self._total.steps.timeline(end_s),
            classes=tuple(
                stream.summary(named[number], end_s, rate_per_request)
                for number, stream in sorted(self._classes.items())
            ),
        )
