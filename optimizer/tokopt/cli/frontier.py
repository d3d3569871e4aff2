"""`tokopt frontier`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tokopt.cli.help import Command
from tokopt.cli.options import framing, lengths, rates, several, space
from tokopt.cli.output import console, print_json, print_report, require_writable, say, write_whole
from tokopt.cli.shell import ExitStatus
from tokopt.cli.working import computing

EXAMPLES = """\b
Examples:
  tokopt frontier --model deepseek-r1 --gpu gb300_nvl72,h200_sxm
  tokopt frontier --model qwen3-32b --workload chat --csv points.csv"""
POINTS_ON_A_TERMINAL = 20


@click.command("frontier", cls=Command, epilog=EXAMPLES)
@click.option("--model", metavar="NAME", help="Model, or path of a Hugging Face config.json.  [default: deepseek-r1]")
@several("--gpu", "gpus", help="Accelerators to compare.  [default: all that have a price]")
@click.option("--workload", metavar="NAME", help="What users send; see: tokopt catalog list.  [default: agentic]")
@lengths
@several("--prices", metavar="LIST,...", help="Price lists, files or directories.  [default: ownership-hyperscaler]")
@rates
@space
@click.option("--csv", "table", type=click.Path(path_type=Path), metavar="FILE", help="Also write all points as CSV.")
@framing
def command(as_json: bool, quiet: bool, catalog: str | None, table: Path | None, **options: Any) -> int:
    """Compare output per GPU with speed per user.

    Shows the operating points of each accelerator that no other of its points beats on both axes, and the cost of a
    token at each.
    """
    if table is not None:
        require_writable(table, option="--csv")
    request = {{"rate": "rates"}.get(name, name): value for name, value in options.items() if value is not None}
    with computing(quiet=quiet) as told:
        from tokopt.api import frontier

        found = frontier(catalog=catalog, progress=told, **request)
    if table is not None:
        from tokopt.report.frontier import frontier_csv

        write_whole(table, frontier_csv(found), option="--csv")
    if as_json:
        print_json(found)
    else:
        from tokopt.report.frontier import frontier_report

        out = console()
        most = POINTS_ON_A_TERMINAL if out.is_terminal else None
        print_report(frontier_report(found, columns_wide=out.width, lines_high=out.height, most_points=most))
    if table is not None and not quiet:
        from tokopt.report.figures import plural

        say(f"{plural(len(found.points), 'point')} written to {table}")
    return ExitStatus.ANSWERED
