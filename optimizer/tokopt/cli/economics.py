"""`tokopt economics`."""

from __future__ import annotations

import click

from tokopt.cli.help import Command
from tokopt.cli.options import framing
from tokopt.cli.output import print_json, print_report
from tokopt.cli.shell import ExitStatus
from tokopt.cli.working import computing

EXAMPLES = """\b
Examples:
  tokopt economics
  tokopt economics --json"""


@click.command("economics", cls=Command, epilog=EXAMPLES)
@framing
def command(as_json: bool, quiet: bool, catalog: str | None) -> int:
    """Set cost per GPU-hour and cost per token side by side.

    The published comparison, the same figures computed from the catalog, and tokopt's own model at the same operating
    point with the difference.
    """
    with computing(quiet=quiet) as told:
        from tokopt.api import economics

        table = economics(catalog=catalog, progress=told)
    if as_json:
        print_json(table)
    else:
        from tokopt.report.economics import economics_report

        print_report(economics_report(table))
    return ExitStatus.ANSWERED
