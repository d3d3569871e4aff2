"""Rows of measurement tables, from names to arrays: what was deployed, under which load, with what machine and model.

A row that leaves out its layout becomes several entries, one a layout that would be tried; the best is its answer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokopt.catalog import Catalog
from tokopt.domain.deployments import Layout
from tokopt.domain.measurements import Load
from tokopt.domain.workloads import Benchmark
from tokopt.errors import InputError
from tokopt.perf.arithmetic import LlmArithmetic
from tokopt.perf.constants import traits_of
from tokopt.perf.layouts import DEGREES, Layouts, stacked_layouts
from tokopt.perf.machine import Peaks, peaks
from tokopt.perf.rows import Rows
from tokopt.perf.serving import lengths
from tokopt.perf.stacking import stack_models, stack_peaks

from .resolved import TOGETHER, Resolved, check_heads, check_layout, resolve

KEY = ("vendor_system", "framework", "model", "weight_precision", "kv_precision")
UNLABELLED = "unlabelled"
MANY = 1e6
UNPROVEN = ("latency_only",)  # roles of rows whose layouts nothing confirms
WIDEST_TENSOR_PARALLEL = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One layout of one row."""

    row: int
    resolved: Resolved
    load: Load
    two_pools: bool
    decode: Layout
    prefill: Layout
    decode_workers: float  # not a number: not stated
    prefill_workers: float
    input_tokens: float
    output_tokens: float
    accelerators: float  # of all replicas together; not a number: not stated
    prefix_share: float
    concurrency: float  # 0: as many as fit
    depth: int
    may_speculate: bool
    harness: str
    era: str
    month: str  # of the measurement, as in 2026-03; empty: not stated
    benchmark: Benchmark | None

    @property
    def kind(self) -> str:
        """Which prediction it takes: disagg, static or agg."""
        return "disagg" if self.two_pools else "static" if self.load is Load.STATIC_BATCH else "agg"

    @property
    def has_gaps(self) -> bool:
        """Whether it leaves out workers, or whether it speculated."""
        return self.may_speculate or not math.isfinite(self.decode_workers + self.prefill_workers)


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkRows:
    """Entries as arrays, and what cannot be predicted."""

    entries: tuple[Entry, ...]
    reasons: list[str]  # one a row of the table; empty = there is an entry
    notes: list[str] = field(default_factory=list)  # one a row

    def rows_of(self, load: Load, *, two_pools: bool = False) -> NDArray[np.int64]:
        """Return the places of the entries under a load."""
        found = [i for i, e in enumerate(self.entries) if e.load is load and e.two_pools is two_pools]
        return np.array(found, dtype=int)


def benchmark_rows(catalog: Catalog, records: Sequence[Mapping[str, Any]], *, measured: bool) -> BenchmarkRows:
    """Return the entries of a table, and for rows without one the reason.

    Args:
        catalog: Where names are looked up.
        records: Rows in the columns of measurement tables.
        measured: The rows ran: what they say of their layout may be sloppy, but they fitted.
    """
    resolver = _Resolver(catalog)
    entries: list[Entry] = []
    reasons, notes = [""] * len(records), [""] * len(records)
    for number, record in enumerate(records):
        try:
            found = list(_entries(catalog, resolver, number, record, measured))
            entries.extend(found)
            if len(found) > 1:
                notes[number] = "layout not stated: the best of those that fit"
        except InputError as error:
            reasons[number] = str(error)
    return BenchmarkRows(entries=tuple(entries), reasons=reasons, notes=notes)


class _Resolver:
    """Resolves names once for each combination."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.known: dict[tuple[str, ...], Resolved | InputError] = {}

    def __call__(self, record: Mapping[str, Any]) -> Resolved:
        key = tuple(str(record.get(name) or "").strip() for name in KEY)
        if key not in self.known:
            system, framework, model, precision, kv_precision = key
            try:
                self.known[key] = resolve(
                    self.catalog,
                    llm=self.catalog.llm(model),
                    gpu=system,
                    framework=framework or None,
                    precision=precision or None,
                    kv_precision=kv_precision or None,
                )
            except InputError as error:
                self.known[key] = error
        found = self.known[key]
        if isinstance(found, InputError):
            raise InputError(str(found))
        return found


def number_of(record: Mapping[str, Any], name: str, default: float) -> float:
    """Return a cell as a number; not a number where it is none."""
    value = record.get(name)
    if value is None or value == "":
        return default
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


def _entries(
    catalog: Catalog, resolver: _Resolver, number: int, record: Mapping[str, Any], measured: bool
) -> Iterator[Entry]:
    resolved = resolver(record)
    two = str(record.get("serving_mode") or "") == "disagg" or number_of(record, "prefill_workers", 0.0) != 0
    load = _load(catalog, record, two)
    benchmark = _benchmark(catalog, resolved, record) if measured else None
    fill = benchmark or _Lengths(math.nan, math.nan)
    isl = number_of(record, "isl", fill.input_tokens)
    osl = number_of(record, "osl", fill.output_tokens)
    _check_numbers(resolved, record, isl=isl, osl=osl, load=load, measured=measured)
    workers = [number_of(record, f"{pool}_workers", math.nan) for pool in ("decode", "prefill")] if two else [1.0, 1.0]
    if two and not measured and not all(map(math.isfinite, workers)):
        raise InputError("prefill_workers and decode_workers are needed for two pools")
    depth = number_of(record, "mtp_depth", 0.0)
    family = _family(catalog, record)
    may = measured and str(record.get("speculative") or "") == UNLABELLED and resolved.llm.mtp_layers > 0
    for decode, prefill in _layouts(resolved, record, two, measured):
        yield Entry(
            row=number,
            resolved=resolved,
            load=load,
            two_pools=two,
            decode=decode,
            prefill=prefill,
            decode_workers=workers[0],
            prefill_workers=workers[1],
            input_tokens=isl,
            output_tokens=osl,
            prefix_share=number_of(record, "prefix_share", 0.0),
            concurrency=number_of(record, "concurrency_or_batch", 0.0) if load is not Load.SATURATION else 0.0,
            accelerators=number_of(record, "n_gpus", math.nan),
            depth=int(depth),
            may_speculate=may and depth == 0,
            harness=_harness(catalog, record),
            era=family.era if family is not None else "",
            month=_month(record),
            benchmark=benchmark,
        )


@dataclass(frozen=True, slots=True)
class _Lengths:
    input_tokens: float
    output_tokens: float


def _family(catalog: Catalog, record: Mapping[str, Any]) -> Any:
    prefix = str(record.get("id") or "").partition(":")[0]
    return catalog.measurement_families.get(prefix)


def _load(catalog: Catalog, record: Mapping[str, Any], two: bool) -> Load:
    scenario = str(record.get("scenario") or "")
    if scenario in ("max_throughput", "offline"):
        return Load.SATURATION
    if scenario in ("server", "interactive"):
        return Load.LIMITED
    if two:
        return Load.CLOSED_LOOP
    family = _family(catalog, record)
    if family is not None and family.load is not None:
        return Load(family.load)
    return Load.STATIC_BATCH if str(record.get("serving_mode") or "") == "offline" else Load.CLOSED_LOOP


def _harness(catalog: Catalog, record: Mapping[str, Any]) -> str:
    family = _family(catalog, record)
    source = str(record.get("source") or "")
    harnesses = family.harnesses if family is not None else {}
    return next((how for part, how in harnesses.items() if part in source), "")


def _month(record: Mapping[str, Any]) -> str:
    found = re.match(r"\d{4}-\d{2}(?!\d)", str(record.get("measured_date") or "").strip())
    return found[0] if found else ""


def _benchmark(catalog: Catalog, resolved: Resolved, record: Mapping[str, Any]) -> Benchmark | None:
    scenario = str(record.get("scenario") or "")
    return next((b for b in catalog.benchmarks.values() if b.llm == resolved.llm.name and b.scenario == scenario), None)


def _check_numbers(
    resolved: Resolved, record: Mapping[str, Any], *, isl: float, osl: float, load: Load, measured: bool
) -> None:
    """Raise InputError where a row's numbers make no sense."""
    for name, value in (("isl", isl), ("osl", osl)):
        if not 1 <= value < math.inf:
            raise InputError(f"{name} is missing or below 1")
    requests = number_of(record, "concurrency_or_batch", 0.0)
    if not 0 <= requests < math.inf:
        raise InputError("concurrency_or_batch is not a number of requests")
    if requests == 0 and load in (Load.CLOSED_LOOP, Load.STATIC_BATCH):
        raise InputError("no load: concurrency_or_batch is missing")
    if not 0.0 <= number_of(record, "prefix_share", 0.0) <= 1.0:
        raise InputError("prefix_share is not a share between 0 and 1")
    depth = number_of(record, "mtp_depth", 0.0)
    if not (0 <= depth < 100 and depth == int(depth)):
        raise InputError("mtp_depth is not a whole number from 0")
    if depth and not resolved.llm.mtp_layers:
        raise InputError(f"{resolved.llm.name} ships no multi-token prediction")
    if not measured and isl + osl > resolved.llm.max_context_tokens * 1.01:
        most = f"{resolved.llm.max_context_tokens:,} of {resolved.llm.name}"
        raise InputError(f"{isl + osl:,.0f} tokens are more than the {most}")


def _layouts(
    resolved: Resolved, record: Mapping[str, Any], two: bool, measured: bool
) -> Iterator[tuple[Layout, Layout]]:
    """Yield the layouts of decode and prefill workers: the stated ones, or all that would be tried."""
    for prefix in ("prefill_", "decode_") if two else ("",):
        for name in (*(prefix + degree for degree in DEGREES), *((prefix + "workers",) if prefix else ())):
            value = number_of(record, name, 1.0)
            if not (1 <= value < MANY and value == int(value)):
                raise InputError(f"{name} is not a whole number from 1")
    if measured and not two and record.get("tp") is None and number_of(record, "n_gpus", 1.0) > 1:
        yield from ((layout, layout) for layout in _tried(resolved, int(number_of(record, "n_gpus", 1.0))))
        return
    found = []
    for prefix in ("decode_", "prefill_") if two else ("",):
        layout = _layout(record, prefix)
        if measured:
            layout = _mended(resolved, layout, unproven=str(record.get("role") or "") in UNPROVEN)
            check_heads(resolved, layout, prefix.rstrip("_") or "layout")
        else:
            role = prefix.rstrip("_")
            check_layout(resolved, layout, role or "layout", role=role or TOGETHER)
        found.append(layout)
    yield found[0], found[-1]


def _layout(record: Mapping[str, Any], prefix: str) -> Layout:
    return Layout(**{name: int(number_of(record, prefix + name, 1.0)) for name in DEGREES})


def _mended(resolved: Resolved, layout: Layout, *, unproven: bool) -> Layout:
    """Return a layout that ran, with degrees that its stage and model can have.

    Tables write the size of a worker with wide expert parallelism down as its tensor-parallel degree: a degree that
    cannot split the heads, or one of an unproven layout that is wider than any node, is of attention data parallelism.
    """
    if layout.cp > 1 or layout.dcp > 1:
        return layout  # who writes these down writes the others down too
    spread = bool(resolved.model.experts) and layout.dp == 1
    wide = WIDEST_TENSOR_PARALLEL < layout.tp <= resolved.accelerator.scale_up_size
    if spread and (resolved.model.heads % layout.tp or (unproven and wide)):
        return Layout(tp=1, pp=layout.pp, ep=min(layout.tp, int(resolved.model.experts)), dp=layout.tp)
    ep = math.gcd(layout.ep, layout.tp * layout.dp) if resolved.model.experts else 1
    return Layout(tp=layout.tp, pp=layout.pp, ep=min(ep, max(resolved.model.experts, 1)), dp=layout.dp)


def _tried(resolved: Resolved, accelerators: int) -> Iterator[Layout]:
    """Yield replicas that `accelerators` accelerators can be cut into: tensor parallel in powers of two."""
    widest = min(accelerators, resolved.accelerator.scale_up_size)
    for tp in (1 << k for k in range(widest.bit_length())):
        if tp <= widest and resolved.model.heads % tp == 0:
            yield Layout(tp=tp)


# --- arrays ---


def stacked(entries: Sequence[Entry]) -> tuple[Peaks, LlmArithmetic]:
    """Return machine and model of entries, one element an entry."""
    kinds: dict[int, int] = {}
    records: list[Resolved] = []
    index: list[int] = []
    for entry in entries:
        key = id(entry.resolved)
        if key not in kinds:
            kinds[key] = len(records)
            records.append(entry.resolved)
        index.append(kinds[key])
    places = np.array(index, dtype=int)
    rates = [peaks(r.accelerator, r.framework, r.precision) for r in records]
    return stack_peaks(rates, places), stack_models([r.model for r in records], places)


def entry_traits(entries: Sequence[Entry]) -> list[dict[str, str]]:
    """Return the traits of entries by which constants may differ."""
    traits = []
    for entry in entries:
        resolved = entry.resolved
        own = traits_of(resolved.accelerator, resolved.framework, resolved.precision, resolved.llm.name)
        own["mode"] = "disagg" if entry.two_pools else "agg"
        stated = (("harness", entry.harness), ("era", entry.era), ("month", entry.month))
        own |= {name: level for name, level in stated if level}
        traits.append(own)
    return traits


def row_arrays(entries: Sequence[Entry]) -> Rows:
    """Return entries as rows of the performance model."""

    def column(values: Iterator[float]) -> NDArray[np.float64]:
        return np.fromiter(values, dtype=float, count=len(entries))

    def layouts(of: Sequence[Layout]) -> Layouts:
        return stacked_layouts({d: np.array([getattr(each, d) for each in of], dtype=float) for d in DEGREES})

    isl = column(e.input_tokens for e in entries)
    osl = column(e.output_tokens for e in entries)
    decode = layouts([e.decode for e in entries])
    limits = column(float(e.resolved.framework.max_running_requests) for e in entries)
    return Rows(
        decode=decode,
        decode_workers=column(e.decode_workers for e in entries),
        prefill=layouts([e.prefill for e in entries]),
        prefill_workers=column(e.prefill_workers for e in entries),
        size=lengths(isl, osl, column(e.prefix_share for e in entries), input_cv=0.0, output_cv=0.0),
        input_tokens=isl,
        output_tokens=osl,
        concurrency=column(e.concurrency for e in entries),
        running_cap=np.asarray(limits * decode.dp, dtype=float),
        depth=column(float(e.depth) for e in entries),
        accepted=column(e.resolved.accepted(e.depth) for e in entries),
        may_speculate=column(float(e.may_speculate) for e in entries),
        chunk_tokens=column(float(e.resolved.framework.chunk_tokens) for e in entries),
    )
