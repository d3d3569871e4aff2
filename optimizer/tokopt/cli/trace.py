"""`tokopt trace summary|fit|make`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tokopt.cli.help import Command
from tokopt.cli.options import framing, output, several
from tokopt.cli.output import (
    answer,
    console,
    print_json,
    print_report,
    require_outputs,
    require_writable,
    write_pictures,
    write_whole,
)
from tokopt.cli.shell import ExitStatus, LazyGroup
from tokopt.cli.working import computing

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tokopt.domain.trace_summaries import TraceSummary

EXAMPLES = """\b
Examples:
  tokopt trace summary azure.csv --plots pictures/
  tokopt trace fit azure.csv --model llama-3.1-70b --sla tpot=40ms,ttft=2s --out workloads.yaml
  tokopt plan --workloads workloads.yaml
  tokopt trace make --workload chat --rate 10req/s --duration 1h --out trace.csv

Formats, told by their columns: Azure's LLM inference traces, Mooncake's JSON lines, BurstGPT's and Qwen-Bailian's, and
tokopt's own columns; CSV, JSON lines or Parquet, also packed with gzip. See docs/traces.md."""
unsorted = click.option(
    "--allow-unsorted", is_flag=True, help="Sort requests by their times first, with all of them in memory."
)


@click.group("trace", cls=LazyGroup, epilog=EXAMPLES)
def command() -> None:
    """See what a trace of requests looks like, make a workload of it, or make one up."""


@command.command("summary", cls=Command, epilog="\b\nExample:\n  tokopt trace summary trace.csv --plots pictures/")
@click.argument("file", metavar="FILE")
@click.option("--plots", type=click.Path(path_type=Path), metavar="DIR", help="Also draw pictures there.")
@unsorted
@output
def summary_command(as_json: bool, quiet: bool, file: str, plots: Path | None, allow_unsorted: bool) -> int:
    """Say how the requests of a trace come, how long they are and what of their prompts repeats."""
    require_outputs(None, plots, "arrivals.png")
    with computing(quiet=quiet) as told:
        from tokopt.api import trace_summary

        found = trace_summary(file, allow_unsorted=allow_unsorted, progress=told)
    answer(
        found,
        as_json=as_json,
        quiet=quiet,
        report=lambda: _summary_report(found),
        write=lambda: _draw(found, plots),
    )
    return ExitStatus.ANSWERED


def _summary_report(found: TraceSummary) -> RenderableType:
    from tokopt.report.traces import trace_report

    return trace_report(found, columns_wide=console().width)


def _draw(found: TraceSummary, plots: Path | None) -> list[str]:
    """Write the pictures that were asked for, and return a line about each."""
    from tokopt.report.trace_plots import pictures

    return write_pictures(plots, lambda: pictures(found))


@command.command(
    "fit",
    cls=Command,
    epilog="\b\nExample:\n  tokopt trace fit trace.csv --model qwen3-32b --sla 50ms --out workloads.yaml",
)
@click.argument("file", metavar="FILE")
@several("--model", metavar="NAME|CLASS=NAME,...", help="Model, or one for each class.  [default: deepseek-r1]")
@click.option("--sla", metavar="LIMITS", help="Latency limits of all classes, as in tokopt plan.")
@click.option("--split", type=int, default=1, metavar="N", help="So many classes by length, each on its own replicas.")
@click.option("--periods", type=int, default=0, metavar="N", help="Of a trace below a day: so many equal parts of it.")
@click.option("--name", metavar="NAME", help="What the class is called, where there is one.  [default: the file's]")
@click.option("--drop-long", is_flag=True, help="Leave out requests that are longer than the model's context.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write it there, with a report instead.")
@unsorted
@framing
def fit_command(
    as_json: bool, quiet: bool, catalog: str | None, file: str, out: Path | None, model: str | None, **options: Any
) -> int:
    """Make the workload that is like a trace: a file that `tokopt plan --workloads` takes.

    Lengths, burstiness, what repeats in prompts, demand and the shape of the day. Without --out, it is printed.
    """
    if out is not None:
        require_writable(out, option="--out")
    with computing(quiet=quiet) as told:
        from tokopt.api import fit_trace

        found = fit_trace(file, model=_models(model), catalog=catalog, progress=told, **options)
    from tokopt.report.traces import fit_report, workloads_yaml

    text = workloads_yaml(found)
    if out is None:
        if as_json:
            print_json(found)
        else:
            click.echo(text, nl=False)
        return ExitStatus.ANSWERED

    def write() -> list[str]:
        write_whole(out, text, option="--out")
        return [f"workload written to {out}"]

    answer(found, as_json=as_json, quiet=quiet, report=lambda: fit_report(found), write=write)
    return ExitStatus.ANSWERED


def _models(text: str | None) -> str | dict[str, str] | None:
    """Return one model, or one for each class."""
    if text is None or "=" not in text:
        return text
    found: dict[str, str] = {}
    for part in text.split(","):
        name, equals, model = (piece.strip() for piece in part.partition("="))
        if not (name and equals and model):
            raise click.UsageError(
                f"--model: {part!r} is not understood; write it like chat=llama-3.1-70b,code=qwen3-32b"
            )
        if name in found:
            raise click.UsageError(f"--model: class {name} is given twice")
        found[name] = model
    return found


@command.command(
    "make",
    cls=Command,
    epilog="\b\nExamples:\n"
    "  tokopt trace make --workload chat --rate 10req/s --duration 1h --burstiness 4 --out trace.csv\n"
    "  tokopt trace make --rate 2req/s --duration 3d --daily swing=0.6,peak=14h --out trace.csv.gz\n"
    "  tokopt trace make --workloads workloads.yaml --duration 1d --out trace.csv",
)
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="A .csv or .csv.gz.  [needed]")
@click.option("--duration", metavar="TIME", help="How long it lasts: 90s, 30min, 1h, 7d.  [needed]")
@click.option("--rate", metavar="RATE", help="Requests, like 10req/s: the mean over a day.")
@click.option("--workload", metavar="NAME", help="What users send; see: tokopt catalog list.  [default: chat]")
@click.option("--workloads", metavar="FILE", help="Instead of both: classes, demand and shape of the day.")
@click.option("--burstiness", type=float, metavar="CV²", help="Squared variation of the times between requests.")
@click.option("--daily", metavar="SHAPE", help="0.4,0.6,1.5,1.5 (equal parts of a day), or swing=0.6,peak=14h.")
@click.option("--isl", type=float, metavar="TOKENS", help="Mean input tokens, instead of the workload's.")
@click.option("--osl", type=float, metavar="TOKENS", help="Mean output tokens, instead of the workload's.")
@click.option("--reuse", metavar="PATTERN", help="What repeats in prompts, as in tokopt plan.")
@click.option("--model", metavar="NAME", help="Cut requests to its context.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=1, show_default=True, metavar="N", help="Of the random numbers."
)
@framing
def make_command(
    as_json: bool, quiet: bool, catalog: str | None, out: Path | None, duration: str | None, **options: Any
) -> int:
    """Write a trace whose requests are those of a workload: the same options write the same file."""
    if out is None:
        raise click.UsageError("missing option '--out'; write it like --out trace.csv")
    if duration is None:
        raise click.UsageError("missing option '--duration'; write it like --duration 1h")
    require_writable(out, option="--out")
    with computing(quiet=quiet) as told:
        from tokopt.api import make_trace

        made = make_trace(out, duration=duration, catalog=catalog, progress=told, **options)
    if as_json:
        print_json(made)
    else:
        from tokopt.report.traces import made_report

        print_report(made_report(made))
    return ExitStatus.ANSWERED
