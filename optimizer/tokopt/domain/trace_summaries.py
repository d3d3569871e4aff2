"""What a trace looks like as a whole: how requests come, how long they are, and what of their prompts repeats."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from tokopt.domain.estimates import Record


class LengthShare(Record):
    """Share of requests whose length is at least `low` and below `high`. [tokens]"""

    low: float
    high: float
    share: float


class LengthSummary(Record):
    """Lengths of prompts or of answers. Percentiles are within 1 %. [tokens]"""

    mean: float
    cv: float  # standard deviation over mean
    least: int
    p5: float
    p25: float
    p50: float
    p75: float
    p90: float
    p95: float
    p99: float
    most: int
    histogram: tuple[LengthShare, ...]


class LengthBin(Record):
    """Requests of about the same lengths: their mean lengths, and their share."""

    input_tokens: float
    output_tokens: float
    share: float


class WindowSummary(Record):
    """Numbers of requests in windows of one length, one after the other."""

    window_s: float
    windows: int
    mean_requests: float
    dispersion: float  # variance over mean: 1 = Poisson arrivals of a constant rate
    steady_dispersion: float  # the same between neighbouring windows, so without what changes slowly
    peak_to_mean: float


class ArrivalSummary(Record):
    """How requests come."""

    requests_per_s: float
    gap_cv2: float  # squared variation of the times between requests, slow changes of the rate included
    short_gap_cv2: float  # the same within stretches of a few requests
    simultaneous_share: float  # of requests at the very time of the one before: clocks are coarse, or batches are sent
    burstiness: float  # what `burstiness` of a workload means: without slow changes
    burstiness_sd: float  # standard error of it
    burstiness_from: Literal["windows", "gaps", "nothing"]  # what it was counted from; nothing: Poisson is assumed
    burstiness_window_s: float | None  # over which bursts are counted
    windows: tuple[WindowSummary, ...]
    hourly: tuple[float, ...]  # 24 factors on the mean rate, hours of the day; empty where less than 20 h are known
    hours_guessed: tuple[int, ...]  # of these, what the trace does not reach: between its neighbours
    daily_requests_per_s: float | None  # mean rate of such a day


class CacheShare(Record):
    """What an LRU cache of a size finds of all input tokens."""

    cached_tokens: float
    share: float


class ReuseSummary(Record):
    """What of prompts repeats, as far as whole blocks of them are alike."""

    block_tokens: int
    reusable_share: float  # of input tokens, found in an endless cache that was empty at first
    late_share: float | None  # the same of the second half of the trace, when the cache has filled
    distinct_tokens: float  # in all blocks that were ever asked for
    cached_for_half: float  # tokens that an LRU cache must hold to find half of what is reusable
    cached_for_90: float
    cached_for_99: float
    gap_p10_s: float  # times between uses of a block, of what is reused
    gap_p50_s: float
    gap_p90_s: float
    curve: tuple[CacheShare, ...]


class StreamSummary(Record):
    """All requests of a trace, or those of one class."""

    name: str
    requests: int
    input_tokens: LengthSummary
    output_tokens: LengthSummary
    correlation: float  # of input and output lengths
    log_correlation: float  # of their logarithms
    longest_tokens: int  # prompt and answer together
    lengths: tuple[LengthBin, ...]
    arrivals: ArrivalSummary
    reuse: ReuseSummary | None


class Timeline(Record):
    """Rates over the trace, in equal steps."""

    step_s: float
    requests_per_s: tuple[float, ...]
    input_tokens_per_s: tuple[float, ...]
    output_tokens_per_s: tuple[float, ...]


class TraceSummary(StreamSummary):
    """A whole trace."""

    file: str
    format: str
    format_title: str
    failures: int  # rows that were left out because the request had no answer
    starts_at: datetime | None  # in UTC; None = times have no date
    span_s: float
    timeline: Timeline
    classes: tuple[StreamSummary, ...]  # empty where a trace has one


class TraceFit(Record):
    """A workload that is like a trace: what `plan` takes as `workloads`."""

    workloads: dict[str, Any]  # the mapping of a workloads file
    summary: TraceSummary
    left_out: int  # requests that are longer than the context of the model
    notes: tuple[str, ...]  # what was assumed, and what the mapping cannot say


class MadeTrace(Record):
    """A trace that was written."""

    file: str
    requests: int
    span_s: float
    seed: int
    summary: TraceSummary
