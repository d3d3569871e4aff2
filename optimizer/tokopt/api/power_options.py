"""What people write about power: chances, PUE, and stock that knows no power settings."""

from __future__ import annotations

from tokopt.catalog import Catalog
from tokopt.errors import InputError

DEFAULT_EXCEED = 0.01
MOST_EXCEED = 0.5  # above it, less than the median would be counted
MOST_PUE = 3.0


def _number(text: str, divisor_of_percent: float = 100.0) -> float:
    try:
        return float(text.removesuffix("%")) / (divisor_of_percent if text.endswith("%") else 1.0)
    except ValueError:
        return float("nan")


def parse_exceed(chance: float | str | None) -> float:
    """Return the chance that a fleet draws more than is counted, written like 0.01 or 1%.

    Raises:
        InputError: Not a chance above 0 and below 0.5: drawn power that is never exceeded is rated power.
    """
    if chance is None:
        return DEFAULT_EXCEED
    text = str(chance).strip()
    value = _number(text)
    if not 1e-12 <= value < MOST_EXCEED:
        raise InputError(
            f"--exceed: {text!r} is not a chance above 0 and below {MOST_EXCEED:g}; write it like 0.01 or 1% "
            "(power that is never exceeded is --power-mode rated)"
        )
    return value


def parse_pue(pue: float | str | None, catalog: Catalog) -> float:
    """Return utility over server power: as given, else that of the catalog's default site.

    Raises:
        InputError: Not a number from 1 to 3.
    """
    if pue is None:
        return next(iter(catalog.sites.values())).pue
    value = _number(str(pue).strip().replace("%", " "))
    if not 1.0 <= value <= MOST_PUE:
        raise InputError(f"--pue: {pue!r} is not utility over server power; it lies between 1 and {MOST_PUE:g}")
    return value


def stocked(catalog: Catalog, name: str) -> str:
    """Return the accelerator that stock is of.

    Raises:
        InputError: Unknown, or a power setting of one: stock is of accelerators, whatever they are set to.
    """
    accelerator = catalog.accelerator(name)
    if accelerator.throttle is not None:
        raise InputError(
            f"--inventory: {name} is a power setting; stock is of accelerators, whatever they are set to: "
            f"{accelerator.hardware}"
        )
    return accelerator.name
