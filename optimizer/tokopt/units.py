"""SI constants and the only converters between what people write and SI.

Inside the engine every quantity is SI (s, B, FLOP, W) plus USD/h and tok/s; people write `10MW`, `50ms`, `$0.5`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

from tokopt.errors import InputError

GIB: Final = 2.0**30
GB: Final = 1e9
TFLOP: Final = 1e12
US: Final = 1e-6
MS: Final = 1e-3
KW: Final = 1e3
MW: Final = 1e6
HOURS_PER_YEAR: Final = 8760.0
HOURS_PER_MONTH: Final = 730.0
SECONDS_PER_HOUR: Final = 3600.0
SECONDS_PER_DAY: Final = 86400.0
MILLION: Final = 1e6


@dataclass(frozen=True, slots=True)
class QuantityKind:
    """A kind of quantity that people type: what it is called, its units, an example, and the most that can be meant.

    Far above `most`, rounding and the tolerances of solvers are larger than one machine, and answers mean nothing.
    """

    label: str
    units: tuple[str, ...]
    example: str
    prefixes: str
    most: float


POWER = QuantityKind("power", ("W",), "10MW", "kMG", 1e15)
TIME = QuantityKind("time", ("s",), "50ms or 1.5s", "mu", 1e9)
REQUEST_RATE = QuantityKind("request rate", ("req/s",), "8req/s", "kM", 1e12)
TOKEN_RATE = QuantityKind("token rate", ("tok/s",), "2Mtok/s", "kMG", 1e15)
MONEY = QuantityKind("price", ("$", "USD"), "$0.5", "", 1e12)

_NUMBER: Final = r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d*)?(?:e[-+]?\d+)?"


def parse_quantity(text: str | float, kind: QuantityKind, *, what: str, positive: bool = True) -> float:
    """Return the SI value of a quantity such as `10MW`.

    Args:
        text: What the user wrote; it must carry a unit of `kind`.
        kind: The kind of quantity expected.
        what: Name of the option or field, for the error message.
        positive: Whether zero and negative values are refused.

    Returns:
        The value in SI units (W, s, req/s, tok/s, USD).

    Raises:
        InputError: The text is no number, lacks its unit, has a foreign unit, or is out of range.
    """
    from quantiphy import InvalidNumber, Quantity

    class Reader(Quantity):
        """A private subclass: quantiphy keeps preferences on the class, and ours must not leak to the caller's."""

    written = str(text).strip()
    # The library also reads `name = value`, comments and odd commas, where a slip of the pen would pass unseen.
    shape = re.fullmatch(rf"(\$)?({_NUMBER})\s*([^\W\d_]*(?:/[^\W\d_]+)?)", written, flags=re.IGNORECASE)
    if shape is None or not any(ch.isdigit() for ch in shape.group(2)):
        raise InputError(f"{what}: {written!r} is not a {kind.label}; write it like {kind.example}")
    unit = _known_unit(shape.group(1) or shape.group(3), kind)
    if unit is None:
        said = shape.group(1) or shape.group(3)
        missing = not said or said in kind.prefixes
        fault = "the unit is missing" if missing else f"{said!r} is not a unit of a {kind.label}"
        raise InputError(f"{what}: {written!r}: {fault}; write it like {kind.example}")
    prefix = "" if shape.group(1) else shape.group(3).removesuffix(unit).replace("µ", "u").replace("μ", "u")
    try:
        Reader.set_prefs(input_sf=kind.prefixes or "k")
        value = float(Reader(f"{shape.group(2).replace(',', '')}{prefix}", ignore_sf=False).real)
    except InvalidNumber:
        raise InputError(f"{what}: {written!r} is not a {kind.label}; write it like {kind.example}") from None
    if not math.isfinite(value):
        raise InputError(f"{what}: {written!r} is not finite; write it like {kind.example}")
    if positive and value <= 0:
        raise InputError(f"{what}: {written!r} must be above zero; write it like {kind.example}")
    if abs(value) > kind.most:
        raise InputError(f"{what}: {written!r} is more than {format_si(kind.most, kind.units[0])}; is the unit right?")
    return value


def _known_unit(said: str, kind: QuantityKind) -> str | None:
    """Return the unit of `kind` that `said` is, alone or behind a prefix that people use with it."""
    prefixes = {"", *kind.prefixes, *("µμ" if "u" in kind.prefixes else "")}
    return next((unit for unit in kind.units if said.endswith(unit) and said.removesuffix(unit) in prefixes), None)


def format_si(value: float, unit: str, digits: int = 3) -> str:
    """Return `value` with an SI prefix and `digits` significant digits: 2.76e6 tok/s -> `2.76 Mtok/s`."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g} {unit}".rstrip()
    # Rounded first: what rounds up to the next power of ten is written with it.
    rounded = float(f"{value:.{digits - 1}e}")
    scales = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"))
    factor, prefix = next((s for s in scales if abs(rounded) >= s[0] * (1.0 - 1e-9)), scales[-1])
    scaled = rounded / factor
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(scaled)) + 1e-9))
    return f"{scaled:,.{decimals}f} {prefix}{unit}".rstrip()


_CLOCK: Final = {"ms": MS, "s": 1.0, "min": 60.0, "h": SECONDS_PER_HOUR, "d": SECONDS_PER_DAY}


def parse_duration(text: str | float, *, what: str, positive: bool = True) -> float:
    """Return the seconds of a length of time such as `90s`, `10min`, `2000h` or `7d`.

    Args:
        text: What the user wrote; it must carry its unit.
        what: Name of the option or field, for the error message.
        positive: Whether zero is refused.

    Raises:
        InputError: The text is no length of time, lacks its unit, or is out of range.
    """
    written = str(text).strip()
    shape = re.fullmatch(rf"({_NUMBER})\s*([^\W\d_]*)", written, flags=re.IGNORECASE)
    if shape is None or not any(ch.isdigit() for ch in shape.group(1)) or shape.group(2) not in _CLOCK:
        missing = shape is not None and any(ch.isdigit() for ch in shape.group(1)) and not shape.group(2)
        fault = "the unit is missing" if missing else "not a length of time"
        raise InputError(f"{what}: {written!r}: {fault}; write it like 90s, 10min, 2000h or 7d")
    value = float(shape.group(1).replace(",", "")) * _CLOCK[shape.group(2)]
    if value < 0.0 or (positive and value == 0.0):
        raise InputError(f"{what}: {written!r} must {'be above zero' if positive else 'not be below zero'}")
    if value > TIME.most:
        raise InputError(
            f"{what}: {written!r} is more than {TIME.most / SECONDS_PER_DAY:,.0f} days; is the unit right?"
        )
    return value
