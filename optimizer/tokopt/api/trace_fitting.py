"""A trace's statistics as the mapping of a workloads file, in the words of `tokopt plan`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tokopt.catalog.workload_files import MOST_SPLIT, Lengths, split_by_length
from tokopt.domain.trace_summaries import ReuseSummary, StreamSummary, TraceFit, TraceSummary
from tokopt.errors import InputError
from tokopt.simulation.trace_reuse import plan_working_set

from .requests import LEAST_DEMAND_PER_S

LEAST_REUSE, MOST_REUSE = 0.005, 0.999  # shares that are worth a cache, and that can be stated
MOST_CV = 10.0  # of lengths that plans take
MOST_PERIODS = 48
FAR = 2.0  # a factor from which one working set is said not to do
LEAST_GAIN = 0.02  # of a cache that has filled, from which it is told


def fitted(
    summary: TraceSummary,
    *,
    models: Mapping[str, str],
    default_model: bool,
    only_name: str,
    sla: str | None,
    split: int,
    periods: int,
    left_out: int,
) -> TraceFit:
    """Return the workload that is like a trace.

    Args:
        summary: What the trace looks like.
        models: Model by class.
        default_model: Whether they are an assumption.
        only_name: What the class is called where there is one.
        sla: Limits of all classes.
        split: Classes by length to make of each.
        periods: Equal parts of the trace to make periods of.
        left_out: Requests that are longer than a context.

    Raises:
        InputError: The trace tells no rate, or a number is out of range.
    """
    _refuse(summary, split, periods)
    notes = [f"model: {', '.join(sorted(set(models.values())))} is an assumption (--model)"] if default_model else []
    if left_out:
        notes.append(f"{left_out:,} of {summary.requests + left_out:,} requests are longer than the context: left out")
    streams = {each.name: each for each in summary.classes} or {only_name: summary}
    rates = {name: _rate(each) for name, each in streams.items()}
    few = [name for name, rate in rates.items() if rate < LEAST_DEMAND_PER_S]
    if len(few) == len(streams):
        raise InputError(f"{summary.file}: below {LEAST_DEMAND_PER_S:g} req/s, one request in three hours: no fleet")
    notes += [f"class {name} is left out: {streams[name].requests:,} requests, too few for a fleet" for name in few]
    classes = {
        name: _class(each, models[each.name], rates[name], sla, split, notes, name)
        for name, each in streams.items()
        if name not in few
    }
    shape = _shape(summary, {name: streams[name] for name in classes}, split, periods, notes)
    return TraceFit(workloads={"workloads": classes, **shape}, summary=summary, left_out=left_out, notes=tuple(notes))


def _refuse(summary: TraceSummary, split: int, periods: int) -> None:
    if not 1 <= split <= MOST_SPLIT:
        raise InputError(f"--split: {split} is not between 1 and {MOST_SPLIT}")
    if not 0 <= periods <= MOST_PERIODS:
        raise InputError(f"--periods: {periods} is not between 0 and {MOST_PERIODS}")
    if summary.arrivals.requests_per_s <= 0.0:
        raise InputError(f"{summary.file}: at least two requests at different times are needed to tell a rate")
    if periods and summary.arrivals.hourly:
        raise InputError("--periods: the trace covers a day, whose hours are its periods: leave it out")


def _rate(stream: StreamSummary) -> float:
    return stream.arrivals.daily_requests_per_s or stream.arrivals.requests_per_s


def _class(
    stream: StreamSummary, model: str, rate: float, sla: str | None, split: int, notes: list[str], name: str
) -> dict[str, Any]:
    """Return the entry of a class in a workloads file."""
    found: dict[str, Any] = {"model": model}
    if split > 1:
        found["histogram"] = [
            {
                "input_tokens": _rounded(each.input_tokens, 4),
                "output_tokens": _rounded(each.output_tokens, 4),
                "share": _rounded(each.share, 4),
            }
            for each in stream.lengths
        ]
        found["split"] = split
    else:
        found |= {
            "input_tokens": _rounded(stream.input_tokens.mean, 5),
            "output_tokens": _rounded(stream.output_tokens.mean, 5),
            "input_cv": _rounded(min(stream.input_tokens.cv, MOST_CV), 4),
            "output_cv": _rounded(min(stream.output_tokens.cv, MOST_CV), 4),
        }
    found["burstiness"] = _rounded(stream.arrivals.burstiness, 3)
    if stream.reuse is not None and stream.reuse.reusable_share >= LEAST_REUSE:
        found["reuse"] = _reuse(stream, stream.reuse, split, notes, name)
    found["demand"] = f"{_rounded(rate, 5):g}req/s"
    if sla is not None:
        found["sla"] = sla
    return found


def _reuse(stream: StreamSummary, reuse: ReuseSummary, split: int, notes: list[str], name: str) -> str:
    """Return what repeats, as `--reuse` takes it."""
    share = min(reuse.reusable_share, MOST_REUSE)
    held, apart = plan_working_set(reuse, stream.input_tokens.mean)
    if not 1.0 / FAR <= apart <= FAR:
        notes.append(
            f"reuse of {name}: one working set does not say it all: to find half of what is reusable, the trace needs "
            f"{reuse.cached_for_half:,.0f} cached tokens, and {reuse.cached_for_90:,.0f} to find 90 %, which is "
            f"{apart:.1f} times what plans take it to be against the half"
        )
    if reuse.late_share is not None and reuse.late_share > share + LEAST_GAIN:
        notes.append(
            f"reuse of {name}: an endless cache finds {100 * share:.0f} % of input tokens, but "
            f"{100 * reuse.late_share:.0f} % in the second half: the trace starts with an empty one"
        )
    if split > 1:
        notes.append(f"reuse of {name}: all parts are taken to repeat alike, each with the whole working set")
        held = max(held, share * max(each.input_tokens for each in stream.lengths))
    return f"share={_rounded(share, 4):g},set={_rounded(held, 4):.0f}"


def _shape(
    summary: TraceSummary, streams: Mapping[str, StreamSummary], split: int, periods: int, notes: list[str]
) -> dict[str, Any]:
    """Return the hours of a day, or parts of the trace."""
    arrivals = summary.arrivals
    if not arrivals.hourly:
        return _parts(summary, periods, notes)
    if summary.starts_at is None:
        notes.append("hours count from the start of the trace, whose times have no date")
    if arrivals.hours_guessed:
        hours = ", ".join(f"{hour:02d}:00" for hour in arrivals.hours_guessed)
        notes.append(f"the trace does not reach {hours}: taken to lie between the hours around")
    if len(streams) == 1:
        (only,) = streams.values()
        return {"hourly_demand": [_rounded(factor, 4) for factor in only.arrivals.hourly]}
    named = {name: _part_names(name, each, split) for name, each in streams.items()}
    return {
        "periods": [
            {
                "name": f"{hour:02d}:00",
                "hours": 1,
                "start_hour": hour,
                "demand": {
                    part: _rounded(each.arrivals.hourly[hour], 4)
                    for name, each in streams.items()
                    for part in named[name]
                },
            }
            for hour in range(24)
        ]
    }


def _parts(summary: TraceSummary, periods: int, notes: list[str]) -> dict[str, Any]:
    """Return equal parts of a trace that is shorter than a day as periods, of all classes alike."""
    if not periods:
        most = max((each for each in summary.arrivals.windows), key=lambda each: each.window_s, default=None)
        peak = f"; the busiest {most.window_s:g} s have {most.peak_to_mean:.2f} times as many" if most else ""
        notes.append(f"the trace is shorter than a day: demand is its mean rate{peak}")
        return {}
    line = summary.timeline
    sums = np.concatenate([[0.0], np.cumsum(line.requests_per_s)])
    edges = np.linspace(0.0, sums.size - 1.0, periods + 1)
    shares = np.diff(np.interp(edges, np.arange(sums.size), sums)) / sums[-1]
    hours = summary.span_s / periods / 3600.0
    return {
        "periods": [
            {"name": f"part {number}", "hours": _rounded(hours, 5), "demand": _rounded(float(share) * periods, 4)}
            for number, share in enumerate(shares, start=1)
        ]
    }


def _part_names(name: str, stream: StreamSummary, split: int) -> list[str]:
    """Return what `plan` calls the parts of a class that is split by length."""
    if split == 1:
        return [name]
    bins = np.array([(each.input_tokens, each.output_tokens, each.share) for each in stream.lengths]).T
    lengths = Lengths(input_tokens=bins[0], output_tokens=bins[1], weight=bins[2])
    parts = len(split_by_length(lengths, split))
    return [name] if parts == 1 else [f"{name}/{number}" for number in range(1, parts + 1)]


def _rounded(value: float, digits: int) -> float:
    """Return a figure with so many significant digits; whole ones without a point."""
    found = float(f"{value:.{digits}g}")
    return int(found) if found.is_integer() else found
