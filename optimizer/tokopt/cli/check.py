"""`tokopt check`."""

from __future__ import annotations

import click

from tokopt.cli.help import Command
from tokopt.cli.options import framing
from tokopt.cli.output import print_json
from tokopt.cli.shell import ExitStatus, one_line
from tokopt.cli.working import computing

EXAMPLES = """\b
Example:
  tokopt plan --power 10MW --sla 50ms --out plan.json && tokopt check plan.json

Exit status 2: something is wrong with the plan; each fault is printed."""


@click.command("check", cls=Command, epilog=EXAMPLES)
@click.argument("plan_file", metavar="PLAN.json")
@framing
def command(plan_file: str, as_json: bool, quiet: bool, catalog: str | None) -> int:
    """Verify a plan file, independently of the solver.

    Everything is computed again from the plan's request and the catalogs, by code that shares nothing with what made
    the plan.
    """
    with computing(quiet=quiet):
        from tokopt.api import check, read_plan

        plan = read_plan(plan_file)
        faults = check(plan, catalog=catalog)
    if as_json:
        print_json({"ok": not faults, "faults": faults})
    elif faults:
        for fault in faults:
            click.echo(f"{plan_file}: {one_line(fault)}")
        click.echo(f"{len(faults)} {'fault' if len(faults) == 1 else 'faults'}")
    else:
        from tokopt.report.checking import checked_line

        click.echo(f"ok: {plan_file}: {checked_line(plan)}")
    return ExitStatus.BAD_INPUT if faults else ExitStatus.ANSWERED
