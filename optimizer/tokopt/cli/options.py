"""Options that several commands share, and how their values are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

CommandT = TypeVar("CommandT", bound=Callable[..., Any])

debugging = click.option("--debug", is_flag=True, expose_value=False, help="Show a traceback with every error.")


def output(command: CommandT) -> CommandT:
    """Add how a command tells its answer: JSON, quiet, debug."""
    command = debugging(command)
    command = click.option("--quiet", "-q", is_flag=True, help="No progress bar and no remarks.")(command)
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")(command)


def framing(command: CommandT) -> CommandT:
    """Add what every command takes that asks the catalog: the catalog, JSON, quiet, debug."""
    command = output(command)
    return click.option("--catalog", metavar="DIR", help="Directory laid over the embedded catalog.")(command)


def rates(command: CommandT) -> CommandT:
    """Add the option for prices in other currencies than US dollars."""
    text = "US dollars for one unit of a currency that prices are in."
    return several("--rate", metavar="EUR=1.08,...", help=text)(command)


def lengths(command: CommandT) -> CommandT:
    """Add the options that replace single figures of a workload."""
    text = "What repeats in prompts, like prefix=6000x150, or turns=8,gap=30s: caches then decide what is found."
    command = click.option("--reuse", metavar="PATTERN", help=text)(command)
    for name, metavar, text in (
        ("--prefix-share", "SHARE", "Share of input tokens found in the prefix cache, 0 to 1."),
        ("--osl", "TOKENS", "Mean output tokens a request, instead of the workload's."),
        ("--isl", "TOKENS", "Mean input tokens a request, instead of the workload's."),
    ):
        command = click.option(name, type=float, metavar=metavar, help=text)(command)
    return command


def several(*names: str, metavar: str = "NAME,...", help: str) -> Callable[[CommandT], CommandT]:
    """Return an option that takes names separated by commas, and may be given more than once."""
    return click.option(*names, multiple=True, metavar=metavar, callback=_joined, help=help)


def _joined(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> str | None:
    if not values:
        return None
    joined = ",".join(values)
    if not joined.replace(",", "").strip():
        raise click.BadParameter("names are missing; write them like a,b", context, parameter)
    return joined


def expert_traffic(command: CommandT) -> CommandT:
    """Add the option for how unlike experts are asked for."""
    text = "How unlike experts are asked for: random prompts, or a data set of real texts.  [default: benchmark]"
    return click.option("--expert-traffic", metavar="benchmark|skewed", help=text)(command)


def space(command: CommandT) -> CommandT:
    """Add the options that narrow which deployments are searched."""
    for option in (
        expert_traffic,
        several("--disable", metavar="FEATURE,...", help="Features to do without, like mtp, eagle3 or disagg."),
        several("--mode", "modes", metavar="agg|disagg", help="Prefill and decode together, or in pools of their own."),
        several("--kv-precision", "kv_precisions", help="Precisions of the KV cache to choose from."),
        several("--precision", "precisions", help="Weight precisions to choose from."),
        several("--framework", "frameworks", help="Serving frameworks to choose from."),
    ):
        command = option(command)
    return command


def usd_per_hour(text: str) -> float:
    """Return the value of `--budget`; see `tokopt.api.amounts`."""
    from tokopt.api import amounts

    return amounts.usd_per_hour(text)


def seconds(text: str, *, what: str) -> float:
    """Return the seconds of a time such as `30s` or `10min`."""
    from tokopt.units import parse_duration

    return parse_duration(text, what=what)


def stock(text: str) -> dict[str, int]:
    """Return the value of `--inventory`; see `tokopt.api.amounts`."""
    from tokopt.api import amounts

    return amounts.stock(text)
