"""`calibrate`: constants fitted to a table of measurements, on top of the embedded ones or of priors."""

from __future__ import annotations

import datetime
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokopt.calibration.composing import composed
from tokopt.calibration.cross_validation import HeldOut, error_rows, held_out_residuals, intervals_from
from tokopt.calibration.fitting import Fit, Solution
from tokopt.calibration.observations import Observations
from tokopt.calibration.power_fitting import fit_power, power_errors, with_power
from tokopt.catalog import Catalog, load_catalog
from tokopt.catalog.calibration_files import calibration_text, load_calibration
from tokopt.catalog.measurements import MeasurementTable, checked_measurements
from tokopt.catalog.names import checked_name
from tokopt.domain.calibrating import CalibrationReport, Errors, MovedConstant, MovedEffect
from tokopt.domain.calibration import Calibration, Interval, Novelty
from tokopt.errors import InputError
from tokopt.perf.constants import linked

from .gathering import Measured, data_hash, gather
from .power_readings import power_readings
from .processes import local_processes
from .progress import Progress, silent
from .validating import frame_of, keep_input, said_of
from .written import write_text

OWN_SOURCE = "own-measurements"
MEASUREMENTS = "tokopt-measurements"
FOLDS = {"layout": 5, "llm": 3, "system": 3}
FEWEST_GROUPS = 10  # below it, a table is too small to say how wrong a fit to it is
MANY_ROWS = 1000  # below them, processes take longer to start than the fits take
STARTS = ("default", "priors")
MOVED_SHOWN = 12
NOTABLE = 0.02  # on the scale of a link: smaller shifts are not worth showing
FAR_OFF = 3.0  # predicted over measured, or the other way round: a row that hardly counts
MOST_FAR = 0.25  # of the rows of a refit: more are not broken runs
WEIGHT_OF_FAR = 0.1
SHARE_OF_FIT = 0.25  # of the time, where it is followed by cross-validation


def calibrate(
    table_or_path: Any = None,
    *,
    out: str | Path | None = None,
    base: str = "default",
    name: str | None = None,
    validated: bool = True,
    made_on: str | None = None,
    catalog: str | Catalog | None = None,
    processes: int = 1,
    progress: Progress = silent,
) -> CalibrationReport:
    """Fit the constants to measurements and return what came of it.

    Args:
        table_or_path: A CSV or Parquet file, or anything that `polars.DataFrame` takes, in the columns of measurement
            tables; None = the measurements of the catalog.
        out: File for the calibration; put it as `calibration/default.yaml` into an overlay directory to use it.
        base: What the fit starts from and is shrunk towards: `default` (the catalog's), `priors`, or a file.
        name: Of the calibration; None = the file's stem.
        validated: Whether to cross-validate, which takes most of the time; otherwise ranges are those of the base.
        made_on: Date that is written down, as YYYY-MM-DD; None = today.
        catalog: A catalog or an overlay directory.
        processes: How many run the fits of cross-validation. More than one are started afresh, so a script that asks
            for them has to stand under `if __name__ == "__main__"`; the result is the same.
        progress: Told what is being done.

    Raises:
        InputError: The table cannot be read or used, or the file not be written.
    """
    began = time.monotonic()
    day, called = _day(made_on), _name(name, out)
    keep_input(table_or_path, out)
    loaded = catalog if isinstance(catalog, Catalog) else load_catalog(catalog)
    start = _start(loaded, base)
    said = said_of(table_or_path)
    progress(f"reading {said}", 0.0)
    try:
        table = checked_measurements(frame_of(loaded, table_or_path))
        records = table.parsed.to_dicts()
        measured = gather(loaded, start, records, table.faults)
    except InputError as error:
        raise InputError(f"{said}: {error}") from None
    share = SHARE_OF_FIT if validated else 1.0
    fit, solution = _fitted(start, measured.observations, lambda what, done: progress(f"fitting, {what}", share * done))
    intervals, errors, notes = _judged(fit, solution, measured, validated, processes, progress)
    embedded = table_or_path is None
    source = MEASUREMENTS if embedded else OWN_SOURCE
    made = composed(
        fit,
        solution,
        name=called,
        version=f"fitted-{day}-{measured.observations.count}",
        made_on=day,
        data_hash=data_hash(measured),
        source=source,
        summary=_summary(start, measured, embedded),
        intervals=intervals,
        errors=errors,
    )
    made = _with_power(loaded, start, made, measured, table, source)
    if out is not None:
        words = ["tokopt calibrate", *([] if embedded else [Path(said).name]), f"--base {Path(base).name}"]
        write_text(calibration_text(made, " ".join(words)), out)
    before, _ = fit.predict(fit.start)
    return CalibrationReport(
        name=made.name,
        version=made.version,
        made_on=made.made_on,
        data_hash=made.data_hash,
        base=f"{start.name} {start.version}",
        table=said,
        out=None if out is None else str(out),
        rows=len(records),
        used=measured.observations.count,
        reasons=dict(measured.reasons.most_common()),
        parameters=len(fit.parameters),
        effects=len(made.effects),
        rounds=solution.rounds,
        seconds=round(time.monotonic() - began, 1),
        cross_validated=any(row["split"] == "layout" for row in errors),
        errors=tuple(dict(row) for row in made.errors),
        errors_before=tuple(error_rows(fit.residuals(before), _sets(measured), "before")),
        moved=_moved(start, made),
        moved_effects=_moved_effects(start, made),
        notes=(*table.notes, *notes),
    )


def _day(made_on: str | None) -> str:
    if made_on is None:
        return datetime.date.today().isoformat()
    try:
        return datetime.datetime.strptime(made_on, "%Y-%m-%d").date().isoformat()
    except (TypeError, ValueError):
        raise InputError(f"--date: {made_on!r} is not a date like 2026-11-24") from None


def _name(name: str | None, out: str | Path | None) -> str:
    if name is None:
        return Path(out).stem if out is not None else "mine"
    return checked_name(name, "--name")


def _start(catalog: Catalog, base: str) -> Calibration:
    if base in STARTS:
        return catalog.calibration if base == "default" else catalog.priors
    path = Path(base)
    if not path.is_file():
        raise InputError(f"--base: {base!r} is neither {' nor '.join(STARTS)} nor a file")
    return load_calibration(path)


def _fitted(start: Calibration, observations: Observations, progress: Progress) -> tuple[Fit, Solution]:
    """Return the fit; on a fitted base, a few rows that stay far off are fitted again with next to no weight.

    A base that was fitted is rarely wrong by a factor of three, and of ten measurements a broken one would weigh much.
    Where many are that far off it is the base that is wrong, and they count as they are.
    """
    fit = Fit(start, observations)
    solution = fit.solve(report=progress)
    if not start.fitted:
        return fit, solution
    far = _is_far(fit.residuals(fit.predict(fit.scaled(solution.values))[0]))
    if not 0 < far.sum() <= MOST_FAR * observations.count:
        return fit, solution
    weights = observations.weights * np.where(far, WEIGHT_OF_FAR, 1.0)
    again = Fit(start, replace(observations, weights=weights))
    return again, again.solve(report=progress)


def _with_power(
    catalog: Catalog,
    start: Calibration,
    made: Calibration,
    measured: Measured,
    table: MeasurementTable,
    source: str,
) -> Calibration:
    """Return a calibration with the shares of drawn power fitted to rows with power, where there are any.

    What was read elsewhere counts where the start knows nothing yet; a fitted start has learnt from it.
    """
    records = table.parsed.to_dicts()
    readings = power_readings(catalog, made, records, table.faults, published=not start.fitted)
    if not readings.count:
        return made
    fit = fit_power(start, readings)
    return replace(
        with_power(made, fit, source),
        data_hash=data_hash(measured, readings),
        errors=(*made.errors, *power_errors(start, readings, fit)),
    )


# --- how wrong it is ---


def _judged(
    fit: Fit, solution: Solution, measured: Measured, validated: bool, processes: int, progress: Progress
) -> tuple[list[Interval], list[Errors], list[str]]:
    """Return ranges, errors and what is to be said about them: of cross-validation, where there is enough for it."""
    start, sets = fit.base, _sets(measured)
    groups = len(set(measured.observations.groups))
    figures, _ = fit.predict(fit.scaled(solution.values))
    residuals = fit.residuals(figures)
    notes = _far_off(residuals)
    if not validated or groups < FEWEST_GROUPS:
        few = f"fewer than {FEWEST_GROUPS} groups of measurements (system, framework, model, precision, layout)"
        why = f"{few} are too few to cross-validate" if validated else "cross-validation was left out"
        notes.append(f"errors are in-sample: {why}; ranges are those of the base")
        return list(start.intervals), error_rows(residuals, sets, "in-sample"), notes

    def told(what: str, done: float) -> None:
        progress(what, SHARE_OF_FIT + (1.0 - SHARE_OF_FIT) * done)

    processes = processes if measured.observations.count >= MANY_ROWS else 1
    splits = _splits(measured.observations)
    if start.fitted:
        splits = {"layout": splits["layout"]}
    processes = min(processes, sum(count for _, count in splits.values()))  # no more than there are fits
    with local_processes(processes) if processes > 1 else nullcontext() as executor:
        held_out = held_out_residuals(fit, splits, executor=executor, report=told)
    errors = error_rows(held_out["layout"].residuals, sets, "layout")
    if start.fitted:
        notes.append("ranges are those of the base: its residuals are of many more deployments")
        return list(start.intervals), errors, notes
    for split in ("llm", "system"):
        if split in held_out:
            errors += error_rows(held_out[split].residuals, {"all of today": measured.of_today}, split)
    return _intervals(start, measured, held_out), errors, notes


def _far_off(residuals: NDArray[np.float64]) -> list[str]:
    """Return what to say of rows that are so far from the fit that they hardly count."""
    far = int(_is_far(residuals).sum())
    if not far:
        return []
    said = f"{far:,} of {residuals.shape[1]:,} rows {'is' if far == 1 else 'are'} more than {FAR_OFF:g} times off"
    return [f"{said} and hardly {'counts' if far == 1 else 'count'}: broken runs, or not what they say"]


def _is_far(residuals: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which rows have a figure that is far off; a figure that was not measured is not."""
    with np.errstate(invalid="ignore"):
        return np.asarray((np.abs(residuals) > np.log(FAR_OFF)).any(axis=0))


def _splits(observations: Observations) -> dict[str, tuple[NDArray[np.str_], int]]:
    """Return the ways of splitting: by layout, and by model and accelerator where there are several."""
    llm = np.array([traits["llm"] for traits in observations.traits])
    system = np.array([traits["accelerator"] for traits in observations.traits])
    splits = {
        "layout": (observations.groups, FOLDS["layout"]),
        "llm": (llm, FOLDS["llm"]),
        "system": (system, FOLDS["system"]),
    }
    return {name: split for name, split in splits.items() if len(set(split[0])) > 1}


def _intervals(start: Calibration, measured: Measured, held_out: Mapping[str, HeldOut]) -> list[Interval]:
    modes = np.where(measured.gaps, "gaps", np.where(measured.observations.kinds == "disagg", "disagg", "agg"))
    splits = {Novelty.MEASURED: "layout", Novelty.NEW_LLM: "llm", Novelty.NEW_SYSTEM: "system"}
    by_novelty = {novelty: held_out[split].undated for novelty, split in splits.items() if split in held_out}
    return intervals_from(by_novelty, modes, measured.of_today, start.intervals)


def _sets(measured: Measured) -> dict[str, NDArray[np.bool_]]:
    """Return the sets of rows that errors are reported of: each family, and all."""
    named = {family: measured.families == family for family in sorted(set(measured.families)) if family}
    return {**named, "all": np.ones(len(measured.rows), dtype=bool)}


# --- what came of it ---


def _summary(start: Calibration, measured: Measured, embedded: bool) -> str:
    what = "published measurements of the catalog" if embedded else "measurements of one's own"
    observations = measured.observations
    systems = len({traits["accelerator"] for traits in observations.traits})
    llms = len({traits["llm"] for traits in observations.traits})
    return (
        f"Fitted to {observations.count:,} {what}: {systems} systems, {llms} models; started from {start.name} "
        f"{start.version}. cross_validation holds the errors on rows that a fit had not seen."
    )


def _moved(start: Calibration, made: Calibration) -> tuple[MovedConstant, ...]:
    """Return the base values that moved most, in standard deviations of their priors."""
    moved = []
    for name, before in start.entries.items():
        after = made.entries[name]
        step = abs(float(linked(after.value, after.link)) - float(linked(before.value, before.link)))
        if step >= NOTABLE:
            sds = round(step / before.spread, 2)
            moved.append(MovedConstant(constant=name, before=before.value, after=after.value, prior_sds=sds))
    return tuple(sorted(moved, key=lambda m: -m.prior_sds)[:MOVED_SHOWN])


def _moved_effects(start: Calibration, made: Calibration) -> tuple[MovedEffect, ...]:
    """Return the effects that moved most, on the scales of their links."""
    known = {(e.constant, e.trait, e.level): e.shift for e in start.effects}
    moved = []
    for effect in made.effects:
        before = known.get((effect.constant, effect.trait, effect.level), 0.0)
        if abs(effect.shift - before) >= NOTABLE:
            moved.append(
                MovedEffect(
                    constant=effect.constant,
                    trait=effect.trait,
                    level=effect.level,
                    before=before,
                    after=effect.shift,
                    sd=effect.sd,
                    rows=effect.rows,
                    scale=made.entries[effect.constant].link.value,
                )
            )
    return tuple(sorted(moved, key=lambda m: -abs(m.after - m.before))[:MOVED_SHOWN])
