"""Predictions of table rows, with their ranges: all machines, models and kinds of load at once.

With step times of the operator database rows are predicted one kind of deployment after another, since it is asked for
each on its own; nothing else differs, but that its figures have no ranges.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokopt.catalog import Catalog
from tokopt.domain.calibration import Calibration, Constants
from tokopt.domain.deployments import Layout
from tokopt.domain.measurements import Load
from tokopt.errors import InputError
from tokopt.perf.constants import constant_columns, interval_of, novelty_of, stacked_constants
from tokopt.perf.deployed import decode_worker
from tokopt.perf.describe import steady_at
from tokopt.perf.layouts import DEGREES, Layouts
from tokopt.perf.machine import sustained
from tokopt.perf.power import board_watts, throttled_w
from tokopt.perf.queueing import at_rate
from tokopt.perf.rows import (
    Predicted,
    Rows,
    predict_aggregated,
    predict_disaggregated,
    predict_static,
    widened,
    with_habits,
)
from tokopt.perf.step import StepSource, worker_steps
from tokopt.silicon import SiliconSteps
from tokopt.units import KW

from .benchmark_rows import BenchmarkRows, Entry, benchmark_rows, entry_traits, row_arrays, stacked
from .progress import Progress, silent
from .ranges import outside
from .second_opinion import NO_DATA, Databases, kind_of
from .served_rows import ServedRow, served_row

FIGURES = {"ttft_ms": 1e3, "tpot_ms": 1e3, "output_tok_s_per_gpu": 1.0}
STATE = ("running", "busy", "compute_share", "power_kw")
BLOCK = 4096  # rows at a time, so that arrays stay inside the processor's cache
NO_FIT = "does not fit in memory"
UNREACHED = "no rate meets the benchmark's latency limits"
WIDENED = "the stated layout cannot hold the weights: taken for a wider one"


@dataclass(frozen=True, slots=True, kw_only=True)
class RowPredictions:
    """One element a row of the table; not a number where a row has no prediction."""

    figures: dict[str, NDArray[np.float64]]  # of FIGURES, in their units
    low: dict[str, NDArray[np.float64]]
    high: dict[str, NDArray[np.float64]]
    running: NDArray[np.float64]
    busy: NDArray[np.float64]  # share of time that steps run
    compute_share: NDArray[np.float64]  # of step time that the matrix units bound
    power_kw: NDArray[np.float64]  # drawn at the wall by the row's accelerators and their servers
    extrapolated: list[bool | None]  # None also where step times are not the calibration's
    databases: list[str]  # what step times were taken from; empty = the model's own
    reasons: list[str]
    notes: list[str]


def predict_records(
    catalog: Catalog,
    records: Sequence[Mapping[str, Any]],
    *,
    measured: bool,
    progress: Progress = silent,
    databases: Databases | None = None,
    calibration: Calibration | None = None,
) -> RowPredictions:
    """Return predictions of rows in the columns of measurement tables.

    Args:
        catalog: Where names are looked up.
        records: The rows.
        measured: The rows ran as published benchmarks: gaps are filled by what such benchmarks do.
        progress: Told what is being done.
        databases: The operator database, where step times are to be its.
        calibration: The constants to use; None = the catalog's.
    """
    count, used = len(records), calibration or catalog.calibration
    found = RowPredictions(
        figures={name: np.full(count, np.nan) for name in FIGURES},
        low={name: np.full(count, np.nan) for name in FIGURES},
        high={name: np.full(count, np.nan) for name in FIGURES},
        running=np.full(count, np.nan),
        busy=np.full(count, np.nan),
        compute_share=np.full(count, np.nan),
        power_kw=np.full(count, np.nan),
        extrapolated=[None] * count,
        databases=[""] * count,
        reasons=[""] * count,
        notes=[""] * count,
    )
    for first in range(0, count, BLOCK):
        progress("predicting rows", first / count)
        block = benchmark_rows(catalog, records[first : first + BLOCK], measured=measured)
        share = min(BLOCK, count - first) / count

        def told(doing: str, done: float, begun: float = first / count, share: float = share) -> None:
            progress(doing, begun + done * share)

        answers = _unanswered(block)
        _answer(used, block.entries, answers, measured, databases, told)
        _fill(used, block, answers, found, first)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answers:
    """One element an entry; filled in a part at a time."""

    values: dict[str, NDArray[np.float64]]  # figures in their units, and those of STATE
    wide: NDArray[np.bool_]  # layouts that had to be widened
    databases: list[str]
    reasons: list[str]  # why there is no value, if there is none; empty = it does not fit
    served: dict[int, ServedRow] = field(default_factory=dict)  # by entry, of those under limits of latency


def _unanswered(block: BenchmarkRows) -> _Answers:
    return _Answers(
        values={name: np.full(len(block.entries), np.nan) for name in (*FIGURES, *STATE)},
        wide=np.zeros(len(block.entries), dtype=bool),
        databases=[""] * len(block.entries),
        reasons=["" if entry.load is not Load.LIMITED else UNREACHED for entry in block.entries],
    )


def served_records(catalog: Catalog, records: Sequence[Mapping[str, Any]]) -> dict[int, ServedRow]:
    """Return what serves the rows that keep limits of latency, by row: the layout with the highest rate within them."""
    block = benchmark_rows(catalog, records, measured=True)
    answers = _unanswered(block)
    _answer(catalog.calibration, block.entries, answers, True, None, silent)
    best = best_entries(block, answers.values["output_tok_s_per_gpu"])
    return {row: answers.served[place] for row, place in best.items() if place in answers.served}


def _fill(calibration: Calibration, table: BenchmarkRows, answers: _Answers, found: RowPredictions, first: int) -> None:
    """Give every row the best of its entries."""
    for row, reason in enumerate(table.reasons):
        found.reasons[first + row], found.notes[first + row] = reason, table.notes[row]
    traits = entry_traits(table.entries)
    values, rates = answers.values, answers.values["output_tok_s_per_gpu"]
    for row, place in best_entries(table, rates).items():
        at, entry = first + row, table.entries[place]
        if not math.isfinite(rates[place]):
            found.reasons[at] = answers.reasons[place] or NO_FIT
            continue
        if answers.wide[place]:
            found.notes[at] = "; ".join(filter(None, (found.notes[at], WIDENED)))
        found.databases[at] = answers.databases[place]
        novelty = novelty_of(calibration, traits[place])
        mode = _mode(entry)
        for name in FIGURES:
            value = found.figures[name][at] = values[name][place]
            if not answers.databases[place]:
                ends = interval_of(calibration, name, novelty, mode)
                found.low[name][at], found.high[name][at] = value * ends.low, value * ends.high
        for name in STATE:
            getattr(found, name)[at] = values[name][place]
        if not answers.databases[place]:
            found.extrapolated[at] = outside(calibration, traits[place], entry.input_tokens, entry.output_tokens)


def best_entries(table: BenchmarkRows, rates: NDArray[np.float64]) -> dict[int, int]:
    """Return for each row the place of its entry with the highest rate."""
    best: dict[int, int] = {}
    for place, entry in enumerate(table.entries):
        if entry.row not in best or _is_better(rates[place], rates[best[entry.row]]):
            best[entry.row] = place
    return best


def _is_better(rate: float, than: float) -> bool:
    return rate > than or math.isnan(than)


def _mode(entry: Entry) -> str:
    """Return the kind of row that a range is for."""
    return "gaps" if entry.has_gaps else "disagg" if entry.two_pools else "agg"


def _answer(
    calibration: Calibration,
    entries: Sequence[Entry],
    answers: _Answers,
    measured: bool,
    databases: Databases | None,
    progress: Progress,
) -> None:
    """Predict entries: all that share a kind of load at once, or with a database all that it is asked for at once."""
    if databases is None:
        _predict_entries(calibration, entries, range(len(entries)), answers, measured, None)
        return
    groups: dict[tuple[str, ...], list[int]] = {}
    for place, entry in enumerate(entries):
        groups.setdefault(kind_of(entry.resolved), []).append(place)
    # By accelerator and framework: the database reads their files once.
    for number, (key, places) in enumerate(sorted(groups.items())):
        resolved = entries[places[0]].resolved
        progress(f"{resolved.llm.name} on {key[0]} in {key[1]}: asking the operator database", number / len(groups))
        try:
            steps = databases.steps(resolved)
        except InputError as error:
            for place in places:
                answers.reasons[place] = str(error)
            continue
        _predict_entries(calibration, entries, places, answers, measured, steps)


def _predict_entries(
    calibration: Calibration,
    entries: Sequence[Entry],
    places: Sequence[int],
    answers: _Answers,
    measured: bool,
    database: SiliconSteps | None,
) -> None:
    """Fill in the answers at some places."""
    kinds: dict[str, list[int]] = {}
    for place in places:
        kinds.setdefault(_kind(entries[place]), []).append(place)
    for kind, mine in kinds.items():
        some = [entries[place] for place in mine]
        columns = constant_columns(calibration, entry_traits(some))
        constants = stacked_constants(columns, calibration.longest)
        with np.errstate(all="ignore"):
            predicted, rows, changed = _predict(kind, some, constants, measured, database or worker_steps)
        at = np.array(mine)
        answers.wide[at] = changed
        shares = np.nan if predicted.loop is None else np.asarray(predicted.loop.compute_share)
        for name, column in (
            ("ttft_ms", predicted.ttft_s),
            ("tpot_ms", predicted.tpot_s),
            ("output_tok_s_per_gpu", predicted.output_tokens_per_s),
            ("running", predicted.running),
            ("busy", np.ones(len(mine))),  # there is always a request in flight
            ("compute_share", np.broadcast_to(shares, len(mine))),
        ):
            answers.values[name][at] = np.where(predicted.fits, column * FIGURES.get(name, 1.0), np.nan)
        if database is not None:
            _say_source(database, some, rows, predicted, at, answers)
        if kind == "limited":
            with np.errstate(all="ignore"):
                _limit(some, at, columns, rows.decode, answers, database or worker_steps, calibration.longest)
        _draw(some, at, constants, predicted.accelerators, answers)


def _say_source(
    database: SiliconSteps,
    entries: Sequence[Entry],
    rows: Rows,
    predicted: Predicted,
    at: NDArray[np.int64],
    answers: _Answers,
) -> None:
    """Say for each entry which part of the database answered it, or why none did."""
    source = database.provenance
    release = f"{source['package']}, {source['system']}, {source['backend']} {source['version']}"
    for number, (entry, place) in enumerate(zip(entries, at, strict=True)):
        workers = [(_layout_of(rows.decode, number), float(rows.depth[number]))]
        workers += [(_layout_of(rows.prefill, number), 0.0)] if entry.two_pools else []
        refusals = [reason for reason in (database.reason(*worker) for worker in workers) if reason]
        if not refusals:
            # HYBRID where it is in any of them.
            answers.databases[place] = f"{release}, {min(database.mode(*worker) for worker in workers)}"
        if predicted.fits[number] and not math.isfinite(answers.values["output_tok_s_per_gpu"][place]):
            answers.reasons[place] = refusals[0] if refusals else NO_DATA


def _layout_of(layouts: Layouts, number: int) -> Layout:
    columns = {name: np.atleast_1d(np.asarray(getattr(layouts, name))) for name in DEGREES}
    # A degree that no row has is one number for all of them.
    return Layout(**{name: int(column[number if column.size > 1 else 0]) for name, column in columns.items()})


def _kind(entry: Entry) -> str:
    if entry.load is Load.LIMITED and entry.benchmark is not None and not entry.two_pools:
        return "limited"
    return entry.kind


def _predict(
    kind: str, entries: Sequence[Entry], constants: Constants, measured: bool, source: StepSource
) -> tuple[Predicted, Rows, NDArray[np.bool_]]:
    """Return predictions of entries of one kind, the rows that they were made of, and which layouts were widened."""
    peaks, model = stacked(entries)
    machine = sustained(peaks, constants)
    rows = row_arrays(entries)
    changed = np.zeros(len(entries), dtype=bool)
    if measured:
        rows, changed = widened(model, machine, rows)
        rows = with_habits(rows, constants)
    if kind == "disagg":
        habits = constants if measured else None
        predicted = predict_disaggregated(model, machine, rows, constants=habits, measured=measured, source=source)
        return predicted, rows, changed
    if kind == "static":
        return predict_static(model, machine, rows, measured=measured, source=source), rows, changed
    if kind == "limited":
        rows = replace(rows, concurrency=np.zeros(len(entries)))
    return predict_aggregated(model, machine, rows, measured=measured, source=source), rows, changed


def _limit(
    entries: Sequence[Entry],
    at: NDArray[np.int64],
    columns: Mapping[str, NDArray[np.float64]],
    layouts: Layouts,
    answers: _Answers,
    source: StepSource,
    longest: Mapping[str, float],
) -> None:
    """Replace the figures at saturation by those at the highest rate of arrivals that keeps the benchmark's limits.

    Who submits a result tries rates until the limits break, so no load is held back; the running cap is set so that a
    full replica keeps the limit on TPOT, as in a plan.

    Args:
        entries: What ran.
        at: Their places in the answers.
        columns: Constants, one element an entry.
        layouts: Layouts that hold the weights, one element an entry.
        answers: Where the figures go.
        source: What says how long a step takes.
        longest: Prompts and outputs that constants were fitted to, as `Calibration.longest` has them.
    """
    values = answers.values
    for number, (entry, place) in enumerate(zip(entries, at, strict=True)):
        slots = values["running"][place]
        benchmark = entry.benchmark
        if not math.isfinite(slots * values["output_tok_s_per_gpu"][place]) or benchmark is None:
            continue
        own: Any = {**{name: float(column[number]) for name, column in columns.items()}, **longest}
        resolved = entry.resolved
        layout = _layout_of(layouts, number)
        rates = resolved.machine_with(Constants(**own))
        served = served_row(entry, benchmark, layout, rates, slots=max(int(slots), 1), source=source)
        full, rate = served.profile, served.requests_per_s
        if served.gaps:
            answers.reasons[place] = NO_DATA
        answers.served[int(place)] = served
        if full is None or rate <= 0.0:
            for name in (*FIGURES, "compute_share"):
                values[name][place] = np.nan
            continue
        loaded = at_rate(full, rate, ("mean",))
        values["ttft_ms"][place] = loaded.ttft_s["mean"] * 1e3
        values["tpot_ms"][place] = loaded.tpot_s["mean"] * 1e3
        values["output_tok_s_per_gpu"][place] = rate * entry.output_tokens / layout.accelerators
        values["running"][place] = loaded.mean_in_service
        worker = decode_worker(served.deployment, resolved.accepted(entry.depth))
        state = steady_at(
            resolved.model, rates, worker, served.workload, running=loaded.mean_in_service, prefill=True, source=source
        )
        values["busy"][place] = loaded.busy
        values["compute_share"][place] = float(np.squeeze(state.compute_share))


def _draw(
    entries: Sequence[Entry],
    at: NDArray[np.int64],
    constants: Constants,
    accelerators: NDArray[np.float64],
    answers: _Answers,
) -> None:
    """Fill in drawn power: of all accelerators that a row states, else of one replica.

    Not a number where the catalog lacks idle, board or server power, or the prediction says no share of arithmetic.
    """
    each_w = throttled_w(
        constants,
        board_watts([entry.resolved.accelerator for entry in entries]),
        busy=answers.values["busy"][at],
        compute_share=answers.values["compute_share"][at],
    )
    stated = np.array([entry.accelerators for entry in entries])
    answers.values["power_kw"][at] = each_w * np.where(stated > 0, stated, accelerators) / KW
