"""Traces: what one looks like, the workload that is like it, and one made up from a workload."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tokopt.catalog import Catalog, load_catalog
from tokopt.catalog.trace_files import TraceFile, open_trace, write_trace
from tokopt.domain.caching import Reuse
from tokopt.domain.llms import Llm
from tokopt.domain.trace_summaries import MadeTrace, TraceFit, TraceSummary
from tokopt.domain.traces import TraceChunk, taken
from tokopt.domain.workloads import Workload
from tokopt.errors import InputError
from tokopt.simulation.trace_statistics import TraceStatistics
from tokopt.units import parse_duration

from .asking import DEFAULT_LLM
from .progress import Progress, silent
from .requests import parse_sla
from .trace_fitting import fitted
from .trace_making import Making, requests_of, streams_of

DEFAULT_SEED = 1
MOST_REQUESTS = 100_000_000  # of a trace that is made up: some gigabytes


def trace_summary(path: str | Path, *, allow_unsorted: bool = False, progress: Progress = silent) -> TraceSummary:
    """Return what a trace looks like: how requests come, how long they are, what of their prompts repeats.

    It is read in one pass, in memory that does not grow with its length.

    Args:
        path: A trace in any format that is known: Azure's, Mooncake's, BurstGPT's, Qwen-Bailian's, tokopt's own.
        allow_unsorted: Sort requests by their times first, with all of them in memory.
        progress: Told what is being done.

    Raises:
        InputError: In one line with the row: not a trace, or not in order.
    """
    trace = open_trace(path, allow_unsorted=allow_unsorted)
    return _summed_up(trace, _told(trace, progress))


def fit_trace(
    path: str | Path,
    *,
    model: str | Mapping[str, str] | None = None,
    sla: str | None = None,
    split: int = 1,
    periods: int = 0,
    name: str | None = None,
    drop_long: bool = False,
    allow_unsorted: bool = False,
    catalog: str | Catalog | None = None,
    progress: Progress = silent,
) -> TraceFit:
    """Return the workload that is like a trace: `plan(workloads=fit.workloads)` takes it as it is.

    Args:
        path: The trace.
        model: What it asks for, or one model for each of its classes.  [default: deepseek-r1]
        sla: Limits of all classes; without it, those that `plan` is given.
        split: So many classes by length, each on replicas of its own.
        periods: Of traces that are shorter than a day: so many equal parts as periods of the plan; 0 = the mean alone.
        name: Of the class, where the trace has only one.  [default: the file's name]
        drop_long: Leave out requests that are longer than the model's context, instead of refusing the trace.
        allow_unsorted: Sort requests by their times first, with all of them in memory.
        catalog: A catalog, or a directory that overlays the embedded one.
        progress: Told what is being done.

    Raises:
        InputError: Not a trace, an unknown model, or requests that are longer than its context.
    """
    if sla is not None:
        parse_sla(sla)
    loaded = catalog if isinstance(catalog, Catalog) else load_catalog(catalog)
    trace = open_trace(path, allow_unsorted=allow_unsorted)
    models = _Models(loaded, model)
    context = _Context(trace, models, drop=drop_long)
    summary = _summed_up(trace, context.kept(_told(trace, progress)))
    models.refuse_strangers(trace.class_names)
    return fitted(
        summary,
        models={each.name: models.name_of(each.name) for each in summary.classes or (summary,)},
        default_model=model is None,
        only_name=name or Path(path).name.partition(".")[0] or "trace",
        sla=sla,
        split=split,
        periods=periods,
        left_out=context.left_out,
    )


def make_trace(
    out: str | Path,
    *,
    duration: str,
    rate: str | None = None,
    workload: str | Workload | None = None,
    workloads: str | Path | Mapping[str, Any] | None = None,
    burstiness: float | None = None,
    daily: str | Sequence[float] | None = None,
    isl: float | None = None,
    osl: float | None = None,
    reuse: str | Reuse | None = None,
    model: str | None = None,
    seed: int = DEFAULT_SEED,
    catalog: str | Catalog | None = None,
    progress: Progress = silent,
) -> MadeTrace:
    """Write a trace in tokopt's own columns whose requests are those of a workload; equal calls write equal files.

    Args:
        out: CSV, packed with gzip where it ends in `.gz`.
        duration: How long it lasts, like `1h`.
        rate: How many requests come, like `10req/s`: the mean over a day where there is a shape.
        workload: What users send, from the catalog.  [default: chat]
        workloads: Instead of rate and workload, a workloads file or what one says: classes, demand and the day's shape.
        burstiness: Squared variation of the times between requests.  [default: the workload's]
        daily: Factors on the rate in equal parts of a day, like `0.4,0.6,1.5,1.5`, or `swing=0.6,peak=14h`.
        isl: Mean input tokens, instead of the workload's.
        osl: Mean output tokens, instead of the workload's.
        reuse: What repeats in prompts, as in plans.
        model: Requests are no longer than its context.
        seed: Of the random numbers.
        catalog: A catalog, or a directory that overlays the embedded one.
        progress: Told what is being done.

    Raises:
        InputError: Something is not understood, or the file cannot be written.
    """
    loaded = catalog if isinstance(catalog, Catalog) else load_catalog(catalog)
    end_s = parse_duration(duration, what="--duration")
    making = Making(
        rate=rate, workload=workload, workloads=workloads, burstiness=burstiness, daily=daily, isl=isl, osl=osl,
        reuse=reuse, model=model, end_s=end_s,
    )  # fmt: skip
    names, streams = streams_of(loaded, making)
    expected = sum(stream.requests_per_s for stream in streams) * end_s
    if expected > MOST_REQUESTS:
        raise InputError(f"--duration: {expected:,.0f} requests are more than {MOST_REQUESTS:,}: make it shorter")
    statistics = TraceStatistics()

    def counted() -> Iterator[TraceChunk]:
        for chunk in requests_of(streams, seed=seed, end_s=end_s):
            statistics.add(chunk)
            yield chunk
            progress(f"writing {statistics.requests:,} requests", min(statistics.requests / max(expected, 1.0), 1.0))

    written = write_trace(out, counted(), class_names=names if len(names) > 1 else ())
    summary = statistics.summary(file=str(out), form="tokopt", title="tokopt trace", class_names=names)
    return MadeTrace(file=str(out), requests=written, span_s=summary.span_s, seed=seed, summary=summary)


class _Models:
    """Which model each class of a trace asks for."""

    def __init__(self, catalog: Catalog, asked: str | Mapping[str, str] | None) -> None:
        self._catalog = catalog
        self._by_class = dict(asked) if isinstance(asked, Mapping) else {}
        self._all = None if isinstance(asked, Mapping) else asked or DEFAULT_LLM
        self._found: dict[str, Llm] = {}
        for each in (*self._by_class.values(), *((self._all,) if self._all else ())):
            self._found[each] = catalog.llm(each)

    def of(self, name: str) -> Llm:
        """Return the model of a class; `name` is empty where a trace has no classes."""
        asked = self._all or self._by_class.get(name)
        if asked is None:
            raise InputError(f"--model: class {name!r} of the trace has none; there are {', '.join(self._by_class)}")
        return self._found[asked]

    def name_of(self, name: str) -> str:
        """Return what a workloads file calls the model of a class: its name, or the whole path of its file."""
        asked = self._all or self._by_class.get(name) or ""
        return str(Path(asked).resolve()) if Path(asked).is_file() else self._found[asked].name

    def refuse_strangers(self, names: Sequence[str]) -> None:
        """Raise InputError where a class is named that the trace does not have."""
        strange = sorted(self._by_class.keys() - set(names))
        if strange:
            has = f"has {', '.join(names)}" if names else "has no classes: give one model"
            raise InputError(f"--model: no class {strange[0]!r} in the trace, which {has}")


class _Context:
    """Refuses, or leaves out, requests that are longer than the context of the model of their class."""

    def __init__(self, trace: TraceFile, models: _Models, *, drop: bool) -> None:
        self._trace, self._models, self._drop = trace, models, drop
        self._limits = np.zeros(0, dtype=np.int64)
        self.left_out = 0

    def kept(self, chunks: Iterator[TraceChunk]) -> Iterator[TraceChunk]:
        """Yield what is short enough; the clock still starts with the first request of the trace."""
        before = 0
        for chunk in chunks:
            names = self._trace.class_names or ("",)
            new = [self._models.of(name).max_context_tokens for name in names[self._limits.size :]]
            self._limits = np.append(self._limits, np.array(new, dtype=np.int64))
            long = chunk.input_tokens + chunk.output_tokens > self._limits[chunk.classes]
            if long.any() and not self._drop:
                first = int(np.argmax(long))
                llm = self._models.of(names[chunk.classes[first]])
                raise InputError(
                    f"{self._trace.path}: request {before + first + 1:,}: {chunk.input_tokens[first]:,} tokens in and "
                    f"{chunk.output_tokens[first]:,} out are longer than the context of {llm.name}, "
                    f"{llm.max_context_tokens:,}: choose another model, or leave such requests out (--drop-long)"
                )
            before += chunk.requests
            self.left_out += int(np.count_nonzero(long))
            yield taken(chunk, np.flatnonzero(~long)) if long.any() else chunk


def _told(trace: TraceFile, progress: Progress) -> Iterator[TraceChunk]:
    """Yield the stretches of a trace, and tell how far it is read."""
    progress(f"reading {trace.path.name}", 0.0)
    for chunk in trace.chunks():
        yield chunk
        progress(f"reading {trace.path.name}: {trace.requests:,} requests", trace.share_read)


def _summed_up(trace: TraceFile, chunks: Iterator[TraceChunk]) -> TraceSummary:
    statistics = None
    for chunk in chunks:
        statistics = statistics or TraceStatistics(trace.starts_at)
        statistics.add(chunk)
    if statistics is None or not statistics.requests:
        raise InputError(f"{trace.path}: no requests are left")
    return statistics.summary(
        file=str(trace.path),
        form=trace.format.name,
        title=trace.format.title,
        failures=trace.failures,
        class_names=trace.class_names,
    )
