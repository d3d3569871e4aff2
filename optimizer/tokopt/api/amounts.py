"""Amounts that a request takes as text: money an hour, stocks of accelerators."""

from __future__ import annotations

from typing import Final

from tokopt.errors import InputError
from tokopt.units import MONEY, parse_quantity

MOST_ACCELERATORS: Final = 10**9


def usd_per_hour(text: str) -> float:
    """Return the value of `--budget`: `$500`, `500USD`, with or without `/h`.

    Raises:
        InputError: Not an amount of money above zero.
    """
    written = text.strip()
    for ending in ("/hour", "/hr", "/h"):
        written = written.removesuffix(ending)
    return amount(written, what="--budget", said=text)


def amount(text: str, *, what: str, said: str | None = None) -> float:
    """Return the dollars of an option: `$500` or `500USD`.

    Raises:
        InputError: Not an amount of money above zero.
    """
    try:
        return parse_quantity(text.strip().replace(",", ""), MONEY, what=what)
    except InputError:
        raise InputError(
            f"{what}: {(said or text)!r} is not an amount above zero and up to ${MONEY.most:,.0f}; "
            "write it like '$500' (in quotes, for the shell) or 500USD"
        ) from None


def stock(text: str) -> dict[str, int]:
    """Return the value of `--inventory`: `h200_sxm=64,l40s=8`.

    Raises:
        InputError: Not understood, or an accelerator twice.
    """
    found: dict[str, int] = {}
    for part in (p.strip() for p in text.split(",") if p.strip()):
        name, _, count = (piece.strip() for piece in part.partition("="))
        if not name or not count.isdecimal():
            raise InputError(f"--inventory: {part!r} is not a number of accelerators; write it like h200_sxm=64,l40s=8")
        if name in found:
            raise InputError(f"--inventory: {name} is given twice")
        if int(count) > MOST_ACCELERATORS:
            raise InputError(f"--inventory: {part!r} is more than {MOST_ACCELERATORS:,} accelerators")
        found[name] = int(count)
    return found


def kg_per_hour(text: str) -> float:
    """Return the value of `--max-carbon`: `200kg/h`, `0.2t/h`, `500g/h`.

    Raises:
        InputError: Not understood.
    """
    for unit, kilograms in (("kg/h", 1.0), ("t/h", 1000.0), ("g/h", 1e-3)):
        if text.strip().endswith(unit):
            try:
                return float(text.strip().removesuffix(unit)) * kilograms
            except ValueError:
                break
    raise InputError(f"--max-carbon: {text!r} is not a rate of carbon; write it like 200kg/h")


def power_of_sites(text: str) -> dict[str, str]:
    """Return the value of `--site-power`: `us-east-1=2MW,eu-north-1=500kW`; powers stay text.

    Raises:
        InputError: Not understood, or a region twice.
    """
    found: dict[str, str] = {}
    for part in (p.strip() for p in text.split(",") if p.strip()):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not value:
            raise InputError(f"--site-power: {part!r} is not a region's power; write it like us-east-1=2MW")
        if name in found:
            raise InputError(f"--site-power: {name} is given twice")
        found[name] = value
    return found
