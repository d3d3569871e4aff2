"""Power of measured rows, and of what was read elsewhere, as readings that shares of power are fitted to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tokopt.calibration.power_fitting import READING_SD, Readings, reading_sds
from tokopt.catalog import Catalog
from tokopt.domain.accelerators import Accelerator
from tokopt.domain.calibration import Calibration
from tokopt.domain.measurements import PowerMeter, PowerReading, PowerWork
from tokopt.errors import InputError
from tokopt.units import KW

from .benchmark_rows import number_of
from .row_predictions import predict_records

COLUMNS = ("idle_w", "board_w", "server_w", "busy", "compute_share", "measured_w", "sd")


def power_readings(
    catalog: Catalog,
    calibration: Calibration,
    records: Sequence[Mapping[str, Any]],
    faults: Sequence[str],
    *,
    published: bool,
) -> Readings:
    """Return what a table and, where `published`, the catalog say of drawn power.

    How busy a row keeps its accelerators, and with what, is what the calibration predicts of it. A row needs `power_kw`
    and `n_gpus`, a prediction, and an accelerator of known idle, board and server power; others are left out.
    """
    found = [(_read(catalog, reading), "") for reading in catalog.power_readings.values()] if published else []
    found += _of_rows(catalog, calibration, [r for r, fault in zip(records, faults, strict=True) if not fault])
    numbers = np.array([row for row, _ in found], dtype=float).reshape(-1, len(COLUMNS))
    columns = {name: numbers[:, place] for place, name in enumerate(COLUMNS)}
    return Readings(**columns, llms=np.array([llm for _, llm in found], dtype=str))


def _of_rows(
    catalog: Catalog, calibration: Calibration, records: Sequence[Mapping[str, Any]]
) -> list[tuple[tuple[float, ...], str]]:
    measured = [r for r in records if number_of(r, "power_kw", 0.0) > 0 and number_of(r, "n_gpus", 0.0) > 0]
    predicted = predict_records(catalog, measured, measured=True, calibration=calibration)
    usable = [place for place, power in enumerate(predicted.power_kw) if np.isfinite(power)]
    systems = [catalog.accelerator(str(measured[place]["vendor_system"])) for place in usable]
    llms = [catalog.llm(str(measured[place]["model"])).name for place in usable]
    sds = reading_sds([f"{system.name}|{llm}" for system, llm in zip(systems, llms, strict=True)])
    found: list[tuple[tuple[float, ...], str]] = []
    for place, system, llm, sd in zip(usable, systems, llms, sds, strict=True):
        row = measured[place]
        each_w = number_of(row, "power_kw", 0.0) * KW / number_of(row, "n_gpus", 1.0)
        load = (float(predicted.busy[place]), float(predicted.compute_share[place]))
        found.append(((*_watts(system), *load, each_w, float(sd)), llm))
    return found


def _read(catalog: Catalog, reading: PowerReading) -> tuple[float, ...]:
    """Return a reading of the catalog as a row of numbers; of a range, the middle, and how far its ends are."""
    idle_w, board_w, server_w = _watts(catalog.accelerator(reading.accelerator))
    host_w = server_w - board_w if reading.meter is PowerMeter.SERVER else 0.0
    if reading.work is PowerWork.CAPPED and reading.power_limit_w is not None:
        idle_w = board_w = reading.power_limit_w  # the board draws its cap, whatever runs
    share = 0.0 if reading.work is PowerWork.DECODE else 1.0
    middle = float(np.sqrt(reading.low_w * reading.high_w))
    sd = float(np.hypot(READING_SD, 0.5 * np.log(reading.high_w / reading.low_w)))
    return (idle_w, board_w, board_w + host_w, 1.0, share, middle, sd)


def _watts(accelerator: Accelerator) -> tuple[float, float, float]:
    """Return idle, board and server power. [W]

    Raises:
        InputError: The catalog lacks one of them.
    """
    idle_w, board_w, server_w = accelerator.idle_w, accelerator.board_w, accelerator.server_w
    if idle_w is None or board_w is None or server_w is None:
        raise InputError(f"{accelerator.name}: idle, board or server power is not in the catalog")
    return idle_w, board_w, server_w
