"""`tokopt simulate`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tokopt.cli.help import Command
from tokopt.cli.options import framing
from tokopt.cli.output import answer, console, require_outputs, write_out, write_pictures
from tokopt.cli.shell import ExitStatus
from tokopt.cli.working import computing
from tokopt.errors import InputError
from tokopt.units import SECONDS_PER_HOUR, parse_duration

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tokopt.domain.simulations import Simulation

EXAMPLES = """\b
Examples:
  tokopt plan --power 10MW --sla 50ms --out plan.json && tokopt simulate plan.json
  tokopt simulate plan.json --load 110% --arrivals gamma --burstiness 4
  tokopt simulate plan.json --trace requests.csv --trace-speed 2 --plots pictures/
  tokopt simulate plan.json --node-mtbf 2000h --spot-interruptions 0.05/h --recovery 10min
  tokopt simulate plan.json --load 50% --autoscale target=0.7,least=2,delay=300s --json

Exit status 0: it was simulated, whether limits are kept, missed or overrun; 2: bad input, or a plan without a fleet.
Ctrl-C ends it with what there is by then; a second one at once."""
AUTOSCALE = {
    "target": "autoscale_target",
    "least": "autoscale_least",
    "delay": "autoscale_delay",
    "every": "autoscale_every",
}


@click.command("simulate", cls=Command, epilog=EXAMPLES)
@click.argument("plan_file", metavar="PLAN.json")
@click.option("--trace", metavar="FILE", help="Replay the requests of this file; see: tokopt trace --help.")
@click.option(
    "--arrivals",
    metavar="KIND",
    help="planned, poisson, gamma, constant, closed_loop or trace.  [default: planned: as bursty as in the plan]",
)
@click.option("--burstiness", type=float, metavar="CV²", help="Squared variation of the times between gamma arrivals.")
@click.option("--load", metavar="SHARE", help="Of the planned rate of requests, like 80% or 1.1.  [default: 100%]")
@click.option("--concurrency", type=int, metavar="N", help="Requests in flight in a closed loop, over the whole fleet.")
@click.option("--trace-speed", type=float, metavar="N", help="How many times as fast the trace goes.  [default: 1]")
@click.option(
    "--router",
    metavar="NAME",
    help="random, round_robin, least_loaded, shortest_queue or kv_aware.  [default: what the plan assumes]",
)
@click.option(
    "--split",
    metavar="plan|together",
    default="plan",
    show_default=True,
    help="Requests of a class: to the fleet's items as planned, or by the router over all their replicas.",
)
@click.option("--requests", type=int, metavar="N", default=20_000, show_default=True, help="Measured in a replication.")
@click.option("--replications", type=int, metavar="N", default=5, show_default=True, help="Independent runs.")
@click.option("--seed", type=int, metavar="N", default=0, show_default=True, help="The same seed, the same answer.")
@click.option("--replicas", type=int, metavar="N", help="Most replicas of an item to simulate.  [default: 16 or fewer]")
@click.option("--warm-up", metavar="TIME", help="What is not counted at the start, like 120s.  [default: chosen]")
@click.option("--period", metavar="NAME", help="Which of the plan's periods.  [default: the one with the highest load]")
@click.option("--node-mtbf", metavar="TIME", help="Mean time between failures of a node, like 2000h.")
@click.option("--spot-interruptions", metavar="RATE", help="How often a spot unit is taken away, like 0.05/h.")
@click.option("--recovery", metavar="TIME", help="Until what failed or was taken is back.  [default: 10min]")
@click.option(
    "--autoscale",
    metavar="RULE",
    help="Start and stop replicas: target=0.7,least=2,delay=300s,every=30s (of the planned load, replicas that always "
    "run, time to start, time between decisions).",
)
@click.option("--jobs", type=click.IntRange(min=1), metavar="N", help="Most processes.  [default: one a processor]")
@click.option("--plots", type=click.Path(path_type=Path), metavar="DIR", help="Also draw what went on over time there.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Also write the simulation, as JSON.")
@framing
def command(
    plan_file: str,
    jobs: int | None,
    plots: Path | None,
    out: Path | None,
    as_json: bool,
    quiet: bool,
    catalog: str | None,
    **options: Any,
) -> int:
    """Send requests to a plan's replicas, one by one.

    They meet queues, batches step by step, caches block by block, prefill pools, and what may go wrong. The answer is
    percentiles of all latencies with confidence intervals, goodput, cost per token within the limits, the first
    bottleneck, and whether the fleet is overloaded.
    """
    require_outputs(out, plots, "overview.png")
    keywords = _keywords(options)
    with computing(quiet=quiet, steady=True) as told:
        import tokopt

        try:
            found = tokopt.simulate(
                plan_file, catalog=catalog, processes=jobs or os.cpu_count() or 1, progress=told, **keywords
            )
        except InputError as error:
            known = [name for name in (plan_file, "--", options["trace"], catalog) if name]
            named = str(error).startswith(tuple(known))
            raise error if named else InputError(f"{plan_file}: {error}") from None
    answer(
        found,
        as_json=as_json,
        quiet=quiet,
        report=lambda: _report(found),
        write=lambda: _write(found, out, plots),
    )
    return ExitStatus.ANSWERED


def _keywords(options: dict[str, Any]) -> dict[str, Any]:
    """Return the API's keywords of the options that were given.

    Raises:
        InputError: A value is not understood, or an option has nothing to act on.
    """
    keywords = {name: value for name, value in options.items() if value is not None}
    if "load" in keywords:
        from tokopt.api.requests import parse_share

        keywords["load"] = parse_share(keywords["load"], "--load", most=100.0)
    if "node_mtbf" in keywords:
        written = keywords.pop("node_mtbf")
        keywords["node_mtbf_hours"] = parse_duration(written, what="--node-mtbf") / SECONDS_PER_HOUR
    if "spot_interruptions" in keywords:
        keywords["spot_interruptions_per_hour"] = _per_hour(keywords.pop("spot_interruptions"))
    if "recovery" in keywords and not {"node_mtbf_hours", "spot_interruptions_per_hour"} & set(keywords):
        raise InputError("--recovery goes with --node-mtbf or --spot-interruptions: nothing else takes replicas down")
    if "autoscale" in keywords:
        keywords |= _autoscale(keywords.pop("autoscale"))
    return keywords


def _per_hour(text: str) -> float:
    number, slash, unit = text.strip().partition("/")
    try:
        value = float(number)
    except ValueError:
        value = -1.0
    if not slash or unit.strip() not in ("h", "hr", "hour") or not 0.0 <= value < 1e6:
        raise InputError(f"--spot-interruptions: {text!r} is not how often an hour; write it like 0.05/h")
    return value


def _autoscale(text: str) -> dict[str, Any]:
    """Return the keywords of a rule of scaling.

    Raises:
        InputError: It is not understood.
    """
    example = "write it like target=0.7,least=2,delay=300s,every=30s"
    found: dict[str, Any] = {}
    for part in (p.strip() for p in text.split(",") if p.strip()):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not value or name not in AUTOSCALE:
            raise InputError(f"--autoscale: {part!r} is not one of {', '.join(f'{n}=…' for n in AUTOSCALE)}; {example}")
        if AUTOSCALE[name] in found:
            raise InputError(f"--autoscale: {name} is given twice")
        found[AUTOSCALE[name]] = _share_of_load(value) if name == "target" else value
    if "autoscale_target" not in found:
        raise InputError(f"--autoscale: {text!r} lacks its target, the share of the planned load to aim at; {example}")
    return found


def _share_of_load(text: str) -> float:
    from tokopt.api.requests import parse_share

    return parse_share(text, "--autoscale: target", most=1.0)


def _report(found: Simulation) -> RenderableType:
    from tokopt.report.simulation import simulation_report

    return simulation_report(found, columns_wide=console().width)


def _write(found: Simulation, out: Path | None, plots: Path | None) -> list[str]:
    """Write the files that were asked for, and return a line about each."""
    from tokopt.report.simulation_plots import pictures

    return [*write_out(out, found, "simulation"), *write_pictures(plots, lambda: pictures(found))]
