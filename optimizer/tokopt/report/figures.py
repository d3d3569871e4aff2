"""Figures as people read them: sensible digits, units, ranges."""

from __future__ import annotations

import math

from tokopt.domain.estimates import Interval
from tokopt.units import KW, format_si

UNKNOWN = "not known"


def number(value: float, digits: int = 3) -> str:
    """Return a number with `digits` significant digits, never in exponents: 1234.5 -> `1,234`."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value)) + 1e-9))
    return f"{value:,.{decimals}f}"


def usd(value: float) -> str:
    """Return an amount of money: three digits below 100 dollars, whole dollars above: $0.465, $12.3, $5,541."""
    if abs(value) >= 100:
        return f"${value:,.0f}"
    if abs(value) >= 1 or value == 0:
        return f"${value:.2f}"
    return f"${number(value)}"


def usd_range(interval: Interval) -> str:
    """Return both ends of a range of money."""
    return f"{usd(interval.low)} to {usd(interval.high)}"


def rate(value: float, unit: str) -> str:
    """Return a rate with an SI prefix, and none on small figures: 3.31 Mtok/s, 0.42 tok/s."""
    return f"{number(value)} {unit}" if 1e-3 <= abs(value) < 1e3 else format_si(value, unit)


def power(kw: float, digits: int = 4) -> str:
    """Return a power given in kW, without zeros at its end: 10 MW, 9.922 MW."""
    figure, _, unit = format_si(kw * KW, "W", digits).partition(" ")
    return f"{figure.rstrip('0').rstrip('.') if '.' in figure else figure} {unit}"


def short(value: float) -> str:
    """Return a figure with its SI prefix right behind it, for tables: 53.9k, 2.86M."""
    return format_si(value, "").replace(" ", "")


def milliseconds(value: float) -> str:
    """Return a latency without its unit: one decimal below 100 ms, none above."""
    return f"{value:,.1f}" if abs(value) < 100 else f"{value:,.0f}"


def share(value: float) -> str:
    """Return a share as a percentage."""
    percent = value * 100
    return f"{percent:,.0f} %" if abs(percent) >= 10 or percent == 0 else f"{percent:.2g} %"


def signed_share(value: float) -> str:
    """Return a relative difference: +32 %, -4.1 %."""
    return f"+{share(value)}" if value > 0 else share(value)


def times(value: float) -> str:
    """Return a ratio: 64.3x with a multiplication sign."""
    return f"{number(value)}×"


def plural(count: int, noun: str) -> str:
    """Return a count with its noun: 1 node, 468 nodes."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def spread(interval: Interval, unit: str = "") -> str:
    """Return both ends of a range with an SI prefix."""
    return f"{rate(interval.low, unit).strip()} to {rate(interval.high, unit).strip()}"
