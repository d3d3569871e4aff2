"""`tokopt ownership show`."""

from __future__ import annotations

from pathlib import Path

import click

from tokopt.cli.help import Command
from tokopt.cli.options import framing, several
from tokopt.cli.output import console, print_json, print_report, say
from tokopt.cli.shell import ExitStatus, LazyGroup
from tokopt.cli.working import computing
from tokopt.errors import InputError

EXAMPLES = """\b
Examples:
  tokopt ownership show
  tokopt ownership show components-neocloud --gpu h200_sxm,mi355x --site texas
  tokopt ownership show mine.yaml --plots pictures/
  tokopt ownership show rental-3y --cost-of-capital 10%"""
PICTURE = "ownership.png"


@click.group("ownership", cls=LazyGroup, epilog=EXAMPLES)
def command() -> None:
    """Take the cost of an owned accelerator-hour apart."""


@command.command("show", cls=Command, epilog=EXAMPLES)
@click.argument("profile", required=False)
@several("--gpu", "gpus", help="Accelerators to show.  [default: all of the profile]")
@click.option("--site", metavar="NAME", help="Where they stand, instead of where the profile says.")
@click.option("--cost-of-capital", metavar="RATE", help="Instead of the profile's, like 0.1 or 10%.")
@click.option("--plots", type=click.Path(path_type=Path), metavar="DIR", help=f"Also draw {PICTURE} in a directory.")
@framing
def show_command(
    profile: str | None,
    gpus: str | None,
    site: str | None,
    cost_of_capital: str | None,
    plots: Path | None,
    as_json: bool,
    quiet: bool,
    catalog: str | None,
) -> int:
    """Show the parts of an owned accelerator-hour: capital, facility, energy, maintenance, idle hours.

    PROFILE is an ownership profile of the catalog (tokopt catalog list ownership) or an owned YAML file of one's own.
    """
    if plots is not None and not plots.is_dir():
        raise InputError(f"--plots {plots}: no such directory")
    with computing(quiet=quiet):
        import tokopt
        from tokopt.api.owning import DEFAULT_PROFILE

        found = tokopt.ownership_cost(
            profile or DEFAULT_PROFILE, gpus=gpus, site=site, cost_of_capital=cost_of_capital, catalog=catalog
        )
        picture = None
        if plots is not None:
            from tokopt.report.ownership_plot import ownership_png

            picture = ownership_png(found)
    if as_json:
        print_json(found)
    else:
        from tokopt.report.ownership import ownership_report

        print_report(ownership_report(found, columns_wide=console().width))
    if plots is not None and picture is not None:
        _write(plots / PICTURE, picture)
        if not quiet:
            say(f"picture written to {plots / PICTURE}")
    return ExitStatus.ANSWERED


def _write(path: Path, content: bytes) -> None:
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise InputError(f"--plots {path}: cannot be written: {error.strerror or error}") from None
