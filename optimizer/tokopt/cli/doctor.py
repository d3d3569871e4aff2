"""`tokopt doctor`."""

from __future__ import annotations

import click

from tokopt.cli.help import Command
from tokopt.cli.options import framing
from tokopt.cli.output import print_json, print_report
from tokopt.cli.shell import ExitStatus
from tokopt.cli.working import computing

EXAMPLES = """\b
Examples:
  tokopt doctor
  tokopt doctor --catalog my_catalogs/ --json

Exit status 2: something does not work; what to do about it is said."""


@click.command("doctor", cls=Command, epilog=EXAMPLES)
@framing
def command(as_json: bool, quiet: bool, catalog: str | None) -> int:
    """Look whether this installation works, and what is missing from it.

    Python, libraries, extras, catalogs, price dates, a small plan that is solved and checked, the simulator, the
    machine.
    """
    with computing(quiet=quiet) as told:
        from tokopt.api import doctor

        found = doctor(catalog=catalog, progress=told)
    if as_json:
        print_json(found)
    else:
        from tokopt.report.checkup import checkup_report

        print_report(checkup_report(found))
    return ExitStatus.ANSWERED if found.works else ExitStatus.BAD_INPUT
