"""Options that several commands share, and how their values are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from tokopt.errors import InputError

CommandT = TypeVar("CommandT", bound=Callable[..., Any])


def framing(command: CommandT) -> CommandT:
    """Add what every command takes: catalog, JSON, quiet, debug."""
    for option in (
        click.option("--debug", is_flag=True, expose_value=False, help="Show a traceback with every error."),
        click.option("--quiet", "-q", is_flag=True, help="No progress bar and no remarks on standard error."),
        click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else."),
        click.option("--catalog", metavar="DIR", help="Directory laid over the embedded catalog."),
    ):
        command = option(command)
    return command


def lengths(command: CommandT) -> CommandT:
    """Add the options that replace single figures of a workload."""
    for option in (
        click.option("--prefix-share", type=float, metavar="SHARE", help="Share of prompt tokens in the prefix cache."),
        click.option("--osl", type=float, metavar="TOKENS", help="Mean output length, instead of the workload's."),
        click.option("--isl", type=float, metavar="TOKENS", help="Mean input length, instead of the workload's."),
    ):
        command = option(command)
    return command


def several(*names: str, metavar: str = "NAME,...", help: str) -> Callable[[CommandT], CommandT]:
    """Return an option that takes names separated by commas, and may be given more than once."""
    return click.option(*names, multiple=True, metavar=metavar, callback=_joined, help=help)


def _joined(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> str | None:
    if not values:
        return None
    joined = ",".join(values)
    if not joined.replace(",", "").strip():
        raise click.BadParameter("names are missing; write them like a,b")
    return joined


def usd_per_hour(text: str | None) -> float | None:
    """Return the value of `--budget`: `$500`, `500USD`, with or without `/h`."""
    if text is None:
        return None
    from tokopt.units import MONEY, parse_quantity

    written = text.strip()
    for ending in ("/hour", "/hr", "/h"):
        written = written.removesuffix(ending)
    try:
        return parse_quantity(written.replace(",", ""), MONEY, what="--budget")
    except InputError:
        raise InputError(
            f"--budget: {text!r} is not an amount above zero; write it like '$500' (in quotes, for the shell) or 500USD"
        ) from None


def seconds(text: str, *, what: str) -> float:
    """Return the seconds of a time such as `30s`."""
    from tokopt.units import TIME, parse_quantity

    return parse_quantity(text, TIME, what=what)


def stock(text: str | None) -> dict[str, int]:
    """Return the value of `--inventory`: `h200_sxm=64,l40s=8`."""
    found: dict[str, int] = {}
    for part in (p.strip() for p in (text or "").split(",") if p.strip()):
        name, equals, number = (piece.strip() for piece in part.partition("="))
        count = number.replace("_", "")
        if not equals or not name or not count.isdecimal():
            raise InputError(f"--inventory: {part!r} is not a number of accelerators; write it like h200_sxm=64,l40s=8")
        if name in found:
            raise InputError(f"--inventory: {name} is given twice")
        found[name] = int(count)
    return found
