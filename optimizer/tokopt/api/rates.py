"""Rates of currencies, as people write them: `EUR=1.08,GBP=1.27`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from tokopt.errors import InputError

HELP = "write it like EUR=1.08: US dollars for one"


def parse_rates(rates: str | Sequence[str] | Mapping[str, float] | None) -> dict[str, float]:
    """Return currency -> US dollars for one, sorted by currency.

    Raises:
        InputError: Not understood, a currency twice, or a rate that is not above zero.
    """
    if rates is None:
        return {}
    pairs: list[tuple[str, str | float]]
    if isinstance(rates, Mapping):
        pairs = [(str(code), value) for code, value in rates.items()]
    else:
        parts = rates.split(",") if isinstance(rates, str) else [p for text in rates for p in text.split(",")]
        pairs = [(code, value) for part in parts if part.strip() for code, _, value in [part.partition("=")]]
    found: dict[str, float] = {}
    for code, value in pairs:
        name = code.strip().upper()
        if not re.fullmatch("[A-Z]{3}", name):
            raise InputError(f"--rate: {code.strip()!r} is no currency of three letters; {HELP}")
        if name in found:
            raise InputError(f"--rate: {name} is given twice")
        try:
            rate = float(value)
        except (TypeError, ValueError):
            raise InputError(f"--rate: {name}={value} is not a number; {HELP}") from None
        if not (math.isfinite(rate) and rate > 0):
            raise InputError(f"--rate: {name}={value} must be above zero and finite; {HELP}")
        if name == "USD" and rate != 1.0:
            raise InputError(f"--rate: USD={value}: prices are given in US dollars, so that rate is 1")
        found[name] = rate
    return {name: found[name] for name in sorted(found) if name != "USD"}
