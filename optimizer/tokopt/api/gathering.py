"""Tables of measurements as observations that constants are fitted to."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokopt.calibration.fitting import Fit
from tokopt.calibration.observations import FIGURES, Observations
from tokopt.calibration.power_fitting import Readings
from tokopt.catalog import Catalog
from tokopt.domain.calibration import Calibration
from tokopt.domain.deployments import Layout
from tokopt.domain.measurements import Load
from tokopt.errors import InputError
from tokopt.perf.constants import constant_columns, stacked_constants
from tokopt.perf.machine import sustained
from tokopt.perf.rows import widened

from .benchmark_rows import BenchmarkRows, Entry, benchmark_rows, entry_traits, number_of, row_arrays, stacked

# How far a row is believed whose role says that something about it is unproven.
ROLE_WEIGHTS = {"maybe_mtp": 0.3, "ambiguous": 0.3, "repaired_unproven": 0.7, "latency_only": 0.6}
FIGURE_WEIGHTS = {"output_tok_s_per_gpu": 1.0, "tpot_ms": 1.0, "ttft_ms": 0.5}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A table ready to be fitted: observations, and which row each is."""

    observations: Observations
    rows: NDArray[np.int64]
    families: NDArray[np.str_]
    of_today: NDArray[np.bool_]
    gaps: NDArray[np.bool_]
    reasons: Counter[str]


def gather(
    catalog: Catalog, start: Calibration, records: Sequence[Mapping[str, Any]], faults: Sequence[str]
) -> Measured:
    """Return the observations of a table; rows that cannot be used are counted by reason.

    Raises:
        InputError: No row can be used.
    """
    sound = [number for number, fault in enumerate(faults) if not fault]
    reasons = Counter(fault for fault in faults if fault)
    table = benchmark_rows(catalog, [records[number] for number in sound], measured=True)
    reasons.update(reason for reason in table.reasons if reason)
    if not table.entries:
        why = f": most often, {reasons.most_common(1)[0][0]}" if reasons else ""
        raise InputError(f"no row can be fitted{why}")
    observations, places = _observations(start, table, [records[number] for number in sound])
    chosen = _chosen(start, table, observations, places, reasons)
    entries = [table.entries[place] for place in chosen]
    rows = np.array([sound[entry.row] for entry in entries], dtype=int)
    families = np.array([str(records[row].get("id") or "").partition(":")[0] for row in rows])
    known = catalog.measurement_families
    kept = observations.take(chosen)
    trust = np.array([known[f].weight if f in known else 1.0 for f in families])
    trust = trust * np.array([ROLE_WEIGHTS.get(str(records[row].get("role") or ""), 1.0) for row in rows])
    trust = np.where(np.isin(families, list(known)), trust, trust / np.sqrt(_repeats(kept)))
    figures = np.array([FIGURE_WEIGHTS[figure] for figure in FIGURES])
    return Measured(
        observations=replace(kept, weights=figures[:, None] * trust),
        rows=rows,
        families=families,
        of_today=np.array([known[f].of_today if f in known else True for f in families]),
        gaps=np.array([entry.has_gaps for entry in entries]),
        reasons=reasons,
    )


def _observations(
    start: Calibration, table: BenchmarkRows, records: Sequence[Mapping[str, Any]]
) -> tuple[Observations, NDArray[np.int64]]:
    """Return every entry of a table as an observation, and the row that each is of."""
    entries = table.entries
    traits = entry_traits(entries)
    peaks, model = stacked(entries)
    machine = sustained(peaks, stacked_constants(constant_columns(start, traits)))
    rows, _ = widened(model, machine, row_arrays(entries))
    measured = np.full((len(FIGURES), len(entries)), np.nan)
    for place, entry in enumerate(entries):
        record = records[entry.row]
        throughput = number_of(record, "output_tok_s_per_gpu", np.nan)
        if not np.isfinite(throughput):
            throughput = number_of(record, "derived_output_tok_s_per_gpu", np.nan)
        latencies = [number_of(record, name, np.nan) for name in FIGURES[1:]]
        measured[:, place] = [throughput, *latencies]
    groups = [_group(entry, own) for entry, own in zip(entries, traits, strict=True)]
    observations = Observations(
        peaks=peaks,
        model=model,
        rows=rows,
        kinds=np.array([entry.kind for entry in entries]),
        traits=tuple(traits),
        measured=measured,
        weights=np.ones_like(measured),
        groups=np.array(groups),
    )
    return observations, np.array([entry.row for entry in entries])


def _group(entry: Entry, traits: Mapping[str, str]) -> str:
    """Return the group of an observation: system, framework, model, precision and layout."""
    names = [traits[trait] for trait in ("accelerator", "framework", "llm", "precision", "mode")]
    workers = [f"{entry.decode_workers:g}", f"{entry.prefill_workers:g}"]
    return "|".join([*names, _degrees(entry.decode), _degrees(entry.prefill), *workers])


def _degrees(layout: Layout) -> str:
    """Return what measurements state of a layout: degrees that few rows have only where they are above one."""
    degrees = ((name, getattr(layout, name)) for name in ("tp", "pp", "ep", "dp", "cp", "dcp"))
    return " ".join(f"{name}={degree}" for name, degree in degrees if degree > 1 or name not in ("cp", "dcp"))


def _chosen(
    start: Calibration,
    table: BenchmarkRows,
    observations: Observations,
    places: NDArray[np.int64],
    reasons: Counter[str],
) -> NDArray[np.int64]:
    """Return one entry a row: of layouts that are not stated, the one that is best under the start.

    Rows under latency limits are left out: what binds them is the queueing model, which has no constants to fit.
    """
    fit = Fit(start, observations)
    figures, _ = fit.predict(fit.start)
    usable = np.asarray(np.isfinite(fit.residuals(figures)).any(axis=0))
    best: dict[int, int] = {}
    for place, entry in enumerate(table.entries):
        row = int(places[place])
        if entry.load is Load.LIMITED:
            best.setdefault(row, -1)
        elif usable[place] and (best.get(row, -1) < 0 or figures[0, place] > figures[0, best[row]]):
            best[row] = place
        else:
            best.setdefault(row, -1)
    limited = {int(places[p]) for p, e in enumerate(table.entries) if e.load is Load.LIMITED}
    reasons["under latency limits: predicted, not fitted"] += len(limited)
    reasons["nothing to compare, or does not fit in memory"] += sum(p < 0 for r, p in best.items() if r not in limited)
    for reason in [reason for reason, count in reasons.items() if not count]:
        del reasons[reason]
    chosen = sorted(place for place in best.values() if place >= 0)
    if not chosen:
        raise InputError("no row can be fitted: none has a throughput or a latency that the model predicts")
    return np.array(chosen, dtype=int)


def _repeats(observations: Observations) -> NDArray[np.float64]:
    """Return how many rows measured the same as each: a run again repeats what the model gets wrong of the first."""
    rows = observations.rows
    loads = zip(rows.input_tokens, rows.output_tokens, rows.concurrency, strict=True)
    keys = [(group, *load) for group, load in zip(observations.groups, loads, strict=True)]
    count = Counter(keys)
    return np.array([float(count[key]) for key in keys])


def data_hash(measured: Measured, power: Readings | None = None) -> str:
    """Return a hash of what was fitted: groups, loads, figures and weights, and readings of power."""
    observations = measured.observations
    digest = hashlib.sha256()
    digest.update("\n".join(observations.groups).encode())
    rows = observations.rows
    for column in (
        rows.input_tokens,
        rows.output_tokens,
        rows.concurrency,
        observations.measured,
        observations.weights,
    ):
        digest.update(np.ascontiguousarray(column, dtype=float).tobytes())
    if power is not None:
        digest.update(power.measured_w.tobytes())
    return digest.hexdigest()[:16]
