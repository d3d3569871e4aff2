"""Which calibrated constants apply to an accelerator, a framework, a precision and a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokopt.domain.accelerators import Accelerator, Framework, Precision
from tokopt.domain.calibration import Calibration, Constants, Interval, Link, Novelty
from tokopt.domain.provenance import Origin
from tokopt.perf.arrays import Floats

SYSTEM = "accelerator+framework"  # trait: what has to have been measured together
JOIN = "+"  # between the traits of a combination, and between the levels of one


def linked(value: Floats, link: Link) -> Floats:
    """Return a constant on the scale on which effects add up."""
    scaled: Floats
    if link is Link.LOG:
        scaled = np.log(value)
    elif link is Link.LOGIT:
        scaled = np.log(value) - np.log1p(-np.asarray(value))
    else:
        scaled = np.log(np.asarray(value) - 1.0)
    return scaled


def unlinked(scaled: Floats, link: Link) -> Floats:
    """Return a constant from the scale on which effects add up."""
    value: Floats
    if link is Link.LOG:
        value = np.exp(scaled)
    elif link is Link.LOGIT:
        value = 1.0 / (1.0 + np.exp(-np.asarray(scaled)))
    else:
        value = 1.0 + np.exp(scaled)
    return value


def traits_of(accelerator: Accelerator, framework: Framework, precision: Precision, llm_name: str) -> dict[str, str]:
    """Return the traits by which constants may differ."""
    return {
        "accelerator": accelerator.hardware,
        "generation": accelerator.generation,
        "vendor": accelerator.vendor,
        "framework": framework.name,
        "precision": precision.name,
        "llm": llm_name,
    }


def level_of(traits: Mapping[str, str], trait: str) -> str | None:
    """Return the level of a trait or of a combination of traits; None where one of them is not stated."""
    parts = [traits.get(name) for name in trait.split(JOIN)]
    return JOIN.join(part for part in parts if part is not None) if None not in parts else None


def constants_for(
    calibration: Calibration, accelerator: Accelerator, framework: Framework, precision: Precision, llm_name: str
) -> Constants:
    """Return the constants of one kind of deployment: base values, shifted by the effects of its traits.

    The pedigree travels along: each constant keeps the origin and source of its base value.
    """
    return each_constants(calibration, [traits_of(accelerator, framework, precision, llm_name)])[0]


def each_constants(calibration: Calibration, traits: Sequence[Mapping[str, str]]) -> list[Constants]:
    """Return the constants of each of several kinds of deployments with these traits."""
    columns = constant_columns(calibration, traits)
    origins = {name: entry.origin for name, entry in calibration.entries.items()}
    sources = {name: entry.source for name, entry in calibration.entries.items()}
    return [
        Constants(
            **{name: float(column[row]) for name, column in columns.items()},
            **calibration.longest,
            margin=calibration.margin,
            origins=origins,
            sources=sources,
        )
        for row in range(len(traits))
    ]


def constant_columns(calibration: Calibration, traits: Sequence[Mapping[str, str]]) -> dict[str, NDArray[np.float64]]:
    """Return every constant for rows with these traits, one element a row."""
    columns = scaled_columns(calibration, traits)
    return {
        name: np.asarray(unlinked(columns[name], entry.link), dtype=float)
        for name, entry in calibration.entries.items()
    }


def scaled_columns(calibration: Calibration, traits: Sequence[Mapping[str, str]]) -> dict[str, NDArray[np.float64]]:
    """Return every constant on the scale of its link, base value and effects added up, one element a row."""
    levels: dict[str, list[str | None]] = {}
    columns = {}
    for name, entry in calibration.entries.items():
        column = np.full(len(traits), float(linked(entry.value, entry.link)))
        for trait, shifts in calibration.shifts.get(name, {}).items():
            if trait not in levels:
                levels[trait] = [level_of(row, trait) for row in traits]
            column += [shifts.get(level, 0.0) if level else 0.0 for level in levels[trait]]
        columns[name] = column
    return columns


def stacked_constants(
    values: Mapping[str, NDArray[np.float64]], longest: Mapping[str, float] | None = None
) -> Constants:
    """Return constants of one element a row; `longest` as a calibration has it, None where it is being fitted."""
    stacked: Any = {**values, **(longest or {})}
    return Constants(**stacked)


def weakest_origin(origins: Iterable[Origin]) -> Origin:
    """Return the weakest of the origins of constants: a sum is only as good as its worst ingredient."""
    order = list(Origin)
    return max(origins, key=order.index, default=Origin.PRIOR)


def acceptance_chances(calibration: Calibration, llm_name: str) -> tuple[float, ...]:
    """Return the chance of each draft token of a model, or the default where none is published for it."""
    return tuple(calibration.acceptance.get(llm_name, calibration.acceptance["default"]))


def novelty_of(calibration: Calibration, traits: Mapping[str, str]) -> Novelty:
    """Return what of a deployment no measurement covers."""
    known = calibration.measured.names

    def new(trait: str) -> bool:
        return level_of(traits, trait) not in known.get(trait, ())

    if new(SYSTEM):
        return Novelty.NEW_SYSTEM
    return Novelty.NEW_LLM if new("llm") else Novelty.MEASURED


def interval_of(calibration: Calibration, figure: str, novelty: Novelty, mode: str) -> Interval:
    """Return the most specific range of a figure that the calibration has."""
    fitting = [
        interval
        for interval in calibration.intervals
        if interval.figure == figure and interval.novelty in (novelty, None) and interval.mode in (mode, "any")
    ]
    return max(fitting, key=lambda interval: (interval.novelty is not None, interval.mode != "any"))
