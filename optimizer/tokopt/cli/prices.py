"""`tokopt prices check|show`."""

from __future__ import annotations

from pathlib import Path

import click

from tokopt.cli.help import Command
from tokopt.cli.options import framing, rates, several
from tokopt.cli.output import console, print_json, print_report, require_writable, say, write_whole
from tokopt.cli.shell import ExitStatus, LazyGroup
from tokopt.cli.working import computing
from tokopt.errors import InputError

EXAMPLES = """\b
Examples:
  tokopt prices show --gpu h200
  tokopt prices check vms.csv --list
  tokopt prices check my_prices/ --rate EUR=1.08

Formats, told by their columns: SkyPilot vms.csv, gpuhunt catalogs, FOCUS exports, and tokopt's own columns; CSV or
Parquet, one file or a directory with one a provider. See docs/prices.md."""


@click.group("prices", cls=LazyGroup, epilog=EXAMPLES)
def command() -> None:
    """Check price lists, and see who sells an accelerator for how much."""


@command.command(
    "check", cls=Command, epilog="\b\nExample:\n  tokopt prices check vms.csv mine.csv --list --rate EUR=1.08"
)
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option("--list", "list_rejected", is_flag=True, help="List every rejected row with file and line.")
@rates
@framing
def check_command(
    as_json: bool, quiet: bool, catalog: str | None, files: tuple[str, ...], list_rejected: bool, rate: str | None
) -> int:
    """Read price lists and say what is in them.

    Formats, offers, dates, doubts, and how many rows were rejected for which reasons. Exit status 2 if no price can be
    used.
    """
    with computing(quiet=quiet):
        from tokopt.api import check_prices

        found = check_prices(files, rates=rate, list_rejected=list_rejected, catalog=catalog)
    if as_json:
        print_json(found)
    else:
        from tokopt.report.prices import price_check_report

        print_report(price_check_report(found, everything=list_rejected))
    if not found.offers:
        raise InputError(
            f"{', '.join(files)}: no price that can be used; rows: {found.rows:,}, rejected: {found.rejected:,}"
        )
    return ExitStatus.ANSWERED


@command.command(
    "show",
    cls=Command,
    epilog="\b\nExample:\n  tokopt prices show --gpu h200 --market on_demand,spot --region us-east-1",
)
@several("--gpu", "gpus", help="Accelerators.")
@several("--prices", metavar="LIST,...", help="Price lists, files or directories.  [default: all]")
@several("--market", "markets", help="Terms: on_demand, spot, reserved, reserved_1y, reserved_3y, owned.")
@several("--region", "regions", help="Regions.")
@click.option("--most", type=click.IntRange(min=1), metavar="N", help="Most offers to list.  [default: 40]")
@click.option("--all", "everything", is_flag=True, help="List every offer.")
@click.option(
    "--csv", "target", type=click.Path(path_type=Path), metavar="FILE", help="Also write them as a price list."
)
@click.option("--plot/--no-plot", default=True, help="Prices by provider, as a plot.")
@rates
@framing
def show_command(
    as_json: bool,
    quiet: bool,
    catalog: str | None,
    gpus: str | None,
    prices: str | None,
    markets: str | None,
    regions: str | None,
    most: int | None,
    everything: bool,
    target: Path | None,
    plot: bool,
    rate: str | None,
) -> int:
    """Show who sells an accelerator where and for how much, the cheapest first."""
    if gpus is None:
        raise click.UsageError("missing option '--gpu'; write it like --gpu h200")
    if target is not None:
        require_writable(target, option="--csv")
    with computing(quiet=quiet):
        from tokopt.api import show_prices

        given = {"prices": prices} if prices is not None else {}
        found = show_prices(gpus, markets=markets, regions=regions, rates=rate, catalog=catalog, **given)
    if target is not None:
        from tokopt.report.prices import price_csv

        write_whole(target, price_csv(found), option="--csv")
    if as_json:
        print_json(found)
    else:
        from tokopt.report.prices import MOST_LINES, price_table_report

        wide = console().width
        listed = None if everything else most or MOST_LINES
        print_report(price_table_report(found, columns_wide=wide, most=listed, plot=plot))
    if target is not None and not quiet:
        say(f"{len(found.lines):,} offers written to {target}")
    return ExitStatus.ANSWERED
