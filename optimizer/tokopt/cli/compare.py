"""`tokopt compare`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from tokopt.cli.help import Command
from tokopt.cli.options import framing, rates, several
from tokopt.cli.output import console, print_json, print_report, require_outputs, say, write_pictures, write_whole
from tokopt.cli.shell import ExitStatus
from tokopt.cli.working import computing
from tokopt.errors import InputError

EXAMPLES = """\b
Examples:
  tokopt compare --scenarios scenarios.yaml --prices aws,gcp,azure,./mine.csv
  tokopt compare --scenarios scenarios.yaml --prices aws,gcp,aws+gcp --store cells.sqlite --out table.csv
  tokopt compare --scenarios scenarios.yaml --prices all --cluster tcp://127.0.0.1:8786

A scenario is a set of options of tokopt plan; docs/compare.md shows the file. Run again with the same --store after an
interruption: finished cells are not solved again.

Exit status 3: nothing is feasible in any scenario under any list. 1: a cell failed by a defect of tokopt or because its
process was killed; the others are answered."""


@click.command("compare", cls=Command, epilog=EXAMPLES)
@click.option("--scenarios", type=click.Path(path_type=Path), metavar="FILE", required=True, help="Scenario file.")
@several("--prices", metavar="LIST,...", help="Price lists to compare; aws+gcp is both as one list.")
@rates
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE", help="Write the table as .csv, .parquet, .json."
)
@click.option("--store", type=click.Path(path_type=Path), metavar="FILE", help="Keep finished cells here, as SQLite.")
@click.option("--jobs", type=click.IntRange(min=1), metavar="N", help="Processes.  [default: one a processor]")
@click.option("--cluster", metavar="ADDRESS", help="Dask scheduler that solves the cells, like tcp://host:8786.")
@click.option("--plots", type=click.Path(path_type=Path), metavar="DIR", help="Write heat maps here, as PNG.")
@click.option("--all", "everything", is_flag=True, help="Show every scenario, however many.")
@framing
def command(
    as_json: bool,
    quiet: bool,
    catalog: str | None,
    scenarios: Path,
    prices: str | None,
    rate: str | None,
    out: Path | None,
    plots: Path | None,
    everything: bool,
    store: Path | None,
    **where: Any,
) -> int:
    """Compare price lists over scenarios.

    Solves every scenario under every price list, in parallel, and says which list is best where and by how much.
    """
    if prices is None:
        raise click.UsageError("--prices missing: which price lists are compared? write them like aws,gcp,./mine.csv")
    _check(out, plots)
    seen = _Seen()
    try:
        with computing(quiet=True):
            from tokopt.api.comparing import prepare_comparison, run_comparison

            prepared = prepare_comparison(scenarios, prices, rates=rate, catalog=catalog)
            for remark in () if quiet else prepared.remarks(store):
                say(remark)
            with _bar(quiet=quiet) as told:
                found = run_comparison(prepared, store=store, progress=seen.and_then(told), **where)
    except KeyboardInterrupt:
        say(_interrupted(seen, store))
        return ExitStatus.INTERRUPTED
    _write(found, out, plots, quiet=quiet)
    if as_json:
        print_json(found)
    else:
        from tokopt.report.comparing import comparison_report

        print_report(comparison_report(found, columns_wide=console().width, everything=everything))
    if any(row.defect for row in found.rows):
        return ExitStatus.DEFECT
    return ExitStatus.ANSWERED if found.feasible else ExitStatus.INFEASIBLE


def _check(out: Path | None, plots: Path | None) -> None:
    """Refuse what could not be written in the end."""
    from tokopt.report.comparing_files import FORMATS

    if out is not None and out.suffix.lower() not in FORMATS:
        raise InputError(f"--out {out}: its ending says how it is written: {', '.join(FORMATS)}")
    require_outputs(out, plots, "heat_map.png")


def _write(found: Any, out: Path | None, plots: Path | None, *, quiet: bool) -> None:
    from tokopt.report.comparing_files import heat_maps, written

    if out is not None:
        write_whole(out, written(found, out.suffix.lower()), option="--out")
        if not quiet:
            say(f"{found.cells:,} rows written to {out}")
    for line in write_pictures(plots, lambda: heat_maps(found)):
        if not quiet:
            say(line)


class _Seen:
    """The last that was told of a comparison."""

    def __init__(self) -> None:
        self.doing = ""

    def and_then(self, told: Callable[[str, float], None]) -> Callable[[str, float], None]:
        """Return a listener that remembers what it hears, and passes it on."""

        def tell(doing: str, done: float) -> None:
            self.doing = doing
            told(doing, done)

        return tell


def _interrupted(seen: _Seen, store: Path | None) -> str:
    if not seen.doing:
        return "tokopt: interrupted before any cell was solved"
    if store is None:
        return f"tokopt: interrupted after {seen.doing}; with --store FILE, finished cells are kept for the next run"
    return f"tokopt: interrupted after {seen.doing}; they are kept in {store}: the same command goes on from there"


@contextlib.contextmanager
def _bar(*, quiet: bool) -> Iterator[Callable[[str, float], None]]:
    """Show a bar with the time that is left, on a terminal."""
    if quiet or sys.stderr is None or not sys.stderr.isatty():
        yield lambda _doing, _done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    ) as bar:
        task = bar.add_task("starting", total=1.0)
        yield lambda doing, done: bar.update(task, description=doing, completed=done)
