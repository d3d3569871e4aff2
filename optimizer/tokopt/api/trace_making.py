"""What to make a trace up from: what people write, to the streams of `simulation.arrivals`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tokopt.catalog import Catalog
from tokopt.domain.caching import Reuse
from tokopt.domain.demand import PlanPeriod
from tokopt.domain.traces import TraceChunk
from tokopt.domain.workloads import LEAST_BURSTINESS, MOST_BURSTINESS, Workload
from tokopt.errors import InputError
from tokopt.simulation.arrivals import Stream, synthesised

from .requests import parse_demand, resolve_workload, workload_of
from .reuse import parse_reuse
from .workload_classes import read_classes

DAILY_HELP = "write it like 0.4,0.6,1.5,1.5 (factors on equal parts of a day), or swing=0.6,peak=14h"
DEFAULT_WORKLOAD = "chat"
ANY_LIMITS = "50ms"  # limits do not matter here
DIGITS_OF_S = 6  # of times that are written


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """What was asked for; see `make_trace`."""

    rate: str | None
    workload: str | Workload | None
    workloads: str | Path | Mapping[str, Any] | None
    burstiness: float | None
    daily: str | Sequence[float] | None
    isl: float | None
    osl: float | None
    reuse: str | Reuse | None
    model: str | None
    end_s: float


def streams_of(catalog: Catalog, asked: Making) -> tuple[list[str], list[Stream]]:
    """Return the classes of a trace by name, and what each sends.

    Raises:
        InputError: In one line.
    """
    if asked.burstiness is not None and not LEAST_BURSTINESS <= asked.burstiness <= MOST_BURSTINESS:
        raise InputError(f"--burstiness: {asked.burstiness:g} is not from {LEAST_BURSTINESS:g} to {MOST_BURSTINESS:g}")
    daily = daily_factors(asked.daily)
    if asked.workloads is None:
        return _one_stream(catalog, asked, daily)
    own = {"rate": asked.rate, "workload": asked.workload, "isl": asked.isl, "osl": asked.osl, "reuse": asked.reuse}
    given = [name for name, value in own.items() if value is not None]
    if given:
        raise InputError(f"--{given[0]} says what --workloads says too: give one of them")
    found = read_classes(catalog, asked.workloads, sla=ANY_LIMITS, most_quality_loss=None)
    streams = []
    for each in found.classes:
        if each.demand_requests_per_s is None:
            raise InputError(f"--workloads: {each.name} has no demand, like 5req/s")
        streams.append(
            Stream(
                workload=workload_of(each.workload),
                requests_per_s=each.demand_requests_per_s,
                arrival_cv2=asked.burstiness,
                longest_tokens=catalog.llm(asked.model or each.llm).max_context_tokens,
                daily=daily or _hours(found.periods, each.name),
            )
        )
    return [each.name for each in found.classes], streams


def _one_stream(catalog: Catalog, asked: Making, daily: tuple[float, ...]) -> tuple[list[str], list[Stream]]:
    if asked.rate is None:
        raise InputError("--rate is missing; write it like --rate 10req/s")
    shape = resolve_workload(
        catalog,
        asked.workload or DEFAULT_WORKLOAD,
        input_tokens=asked.isl,
        output_tokens=asked.osl,
        reuse=parse_reuse(asked.reuse),
    )
    try:
        rate = parse_demand(asked.rate, shape.output_tokens)
    except InputError as error:
        raise InputError(str(error).replace("--demand", "--rate")) from None
    stream = Stream(
        workload=shape,
        requests_per_s=rate,
        arrival_cv2=asked.burstiness,
        daily=daily,
    )
    if asked.model is not None:
        stream = replace(stream, longest_tokens=catalog.llm(asked.model).max_context_tokens)
    return [shape.name], [stream]


def _hours(periods: Sequence[PlanPeriod], name: str) -> tuple[float, ...]:
    """Return the factors of a class where periods are the hours of a day; nothing where there are no periods.

    Raises:
        InputError: They are something else.
    """
    if not periods:
        return ()
    if len(periods) != 24 or any(each.hours != 1.0 or each.start_hour != n for n, each in enumerate(periods)):
        raise InputError(
            "--workloads: its periods are not the 24 hours of a day: give --daily instead, or leave them out"
        )
    return tuple(each.factor(name) for each in periods)


def daily_factors(daily: str | Sequence[float] | None) -> tuple[float, ...]:
    """Return factors on the rate in equal parts of a day, with a mean of 1; nothing where it is the same all day.

    Raises:
        InputError: Not understood, or no shape.
    """
    if daily is None:
        return ()
    if isinstance(daily, str) and "=" in daily:
        return _swing(daily)
    try:
        factors = [float(part) for part in (daily.split(",") if isinstance(daily, str) else daily)]
    except ValueError:
        raise InputError(f"--daily: {daily!r} is not understood; {DAILY_HELP}") from None
    if not factors or not all(0.0 <= factor < math.inf for factor in factors) or not sum(factors) > 0.0:
        raise InputError(f"--daily: factors must be 0 or more, and not all 0; {DAILY_HELP}")
    mean = sum(factors) / len(factors)
    return tuple(factor / mean for factor in factors)


def _swing(text: str) -> tuple[float, ...]:
    """Return 24 factors 1 + swing·cos(2π(h - peak)/24), each at the middle of its hour."""
    parts = dict(part.partition("=")[::2] for part in text.replace(" ", "").split(","))
    swing, peak = parts.pop("swing", ""), parts.pop("peak", "14h").removesuffix("h")
    try:
        high, hour = float(swing), float(peak)
    except ValueError:
        raise InputError(f"--daily: {text!r} is not understood; {DAILY_HELP}") from None
    if parts or not 0.0 <= high <= 1.0 or not 0.0 <= hour <= 24.0:
        raise InputError(f"--daily: {text!r}: a swing from 0 to 1 and an hour from 0 to 24 are needed; {DAILY_HELP}")
    return tuple(1.0 + high * math.cos(2.0 * math.pi * (n + 0.5 - hour) / 24.0) for n in range(24))


def requests_of(streams: Sequence[Stream], *, seed: int, end_s: float) -> Iterator[TraceChunk]:
    """Return the requests, with times from the first on that are whole microseconds."""
    origin: float | None = None
    for chunk in synthesised(streams, seed=seed, end_s=end_s):
        if chunk.requests == 0:
            continue
        times = np.round(chunk.time_s, DIGITS_OF_S)
        origin = float(times[0]) if origin is None else origin
        yield replace(chunk, time_s=np.round(times - origin, DIGITS_OF_S))
