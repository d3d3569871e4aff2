"""`tokopt catalog list|show|check`."""

from __future__ import annotations

from typing import Any

import click

from tokopt.cli.help import Command
from tokopt.cli.options import framing
from tokopt.cli.output import print_json, print_report
from tokopt.cli.shell import ExitStatus, LazyGroup, one_line
from tokopt.cli.working import computing

EXAMPLES = """\b
Examples:
  tokopt catalog list accelerators
  tokopt catalog show h200_sxm
  tokopt catalog check --catalog my_catalogs/"""


@click.group("catalog", cls=LazyGroup, epilog=EXAMPLES)
def command() -> None:
    """Show what is known, with sources."""


@command.command("list", cls=Command, epilog="\b\nExample:\n  tokopt catalog list models")
@click.argument("table", required=False)
@framing
def list_command(table: str | None, as_json: bool, quiet: bool, catalog: str | None) -> int:
    """List the entries of one table, or what tables there are."""
    with computing(quiet=quiet):
        from tokopt.api import load_catalog
        from tokopt.api.browsing import entries

        found = entries(load_catalog(catalog), table)
    if as_json:
        print_json({name: [row.model_dump(mode="json") for row in rows] for name, rows in found.items()})
        return ExitStatus.ANSWERED
    from tokopt.report.catalog import entries_report, tables_report

    print_report(tables_report(found) if table is None else entries_report(found))
    return ExitStatus.ANSWERED


@command.command(
    "show", cls=Command, epilog="\b\nExamples:\n  tokopt catalog show gb300_nvl72\n  tokopt catalog show aws"
)
@click.argument("name")
@framing
def show_command(name: str, as_json: bool, quiet: bool, catalog: str | None) -> int:
    """Show one entry: every value with its unit and its source."""
    with computing(quiet=quiet):
        from tokopt.api import load_catalog
        from tokopt.api.browsing import entry

        found = entry(load_catalog(catalog), name)
    if as_json:
        print_json(found)
    else:
        from tokopt.report.catalog import details_report

        print_report(details_report(found))
    return ExitStatus.ANSWERED


@command.command("check", cls=Command, epilog="\b\nExample:\n  tokopt catalog check --catalog my_catalogs/")
@framing
def check_command(as_json: bool, quiet: bool, catalog: str | None) -> int:
    """Load everything and print what is wrong with it; exit status 2 if anything is."""
    with computing(quiet=quiet):
        from tokopt.api import load_catalog

        loaded = load_catalog(catalog)
        problems = loaded.check()
        counts = {} if problems else _counts(loaded)
    if as_json:
        print_json({"ok": not problems, "problems": problems, "entries": counts, "version": loaded.version})
    elif problems:
        for problem in problems:
            click.echo(one_line(problem))
        click.echo(f"{len(problems)} {'problem' if len(problems) == 1 else 'problems'}")
    else:
        said = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items())
        click.echo(f"ok: catalog {loaded.version}: {said}")
    return ExitStatus.BAD_INPUT if problems else ExitStatus.ANSWERED


def _counts(loaded: Any) -> dict[str, int]:
    from tokopt.api.browsing import tables

    return {name: len(rows) for name, rows in tables(loaded).items()}
