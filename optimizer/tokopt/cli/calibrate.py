"""`tokopt calibrate`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from tokopt.cli.help import Command
from tokopt.cli.options import framing
from tokopt.cli.output import console, print_json, print_report, require_writable, say
from tokopt.cli.shell import ExitStatus
from tokopt.cli.working import computing

EXAMPLES = """\b
Examples:
  mkdir -p mine/calibration
  tokopt calibrate measurements.csv -o mine/calibration/default.yaml
  tokopt plan --power 10MW --catalog mine
  tokopt calibrate more.csv --base mine/calibration/default.yaml -o newer.yaml

A file named calibration/default.yaml in a directory is used wherever that directory is given as --catalog. On top of
the default constants a handful of measurements is enough: what they say of the engines, hosts and links of one's own
moves, what many published measurements say stays.

Needed columns: vendor_system, model, framework, isl, osl, and one of ttft_ms, tpot_ms, output_tok_s_per_gpu;
docs/accuracy.md lists the others. A row that cannot be used gets a reason, and the others are fitted."""


@click.command("calibrate", cls=Command, epilog=EXAMPLES)
@click.argument("table", metavar="[FILE]", required=False, type=click.Path(path_type=Path))
@click.option("--out", "-o", type=click.Path(path_type=Path), metavar="FILE", help="Write the constants, as YAML.")
@click.option(
    "--base",
    default="default",
    show_default=True,
    metavar="default|priors|FILE",
    help="Constants to start from, and to stay near where little was measured.",
)
@click.option("--name", metavar="TEXT", help="Name of the calibration.  [default: the file's]")
@click.option("--date", metavar="YYYY-MM-DD", help="Date to write down.  [default: today]")
@click.option("--validate/--no-validate", "validated", default=True, help="Cross-validate, which takes longest.")
@framing
def command(
    as_json: bool,
    quiet: bool,
    catalog: str | None,
    table: Path | None,
    out: Path | None,
    base: str,
    name: str | None,
    date: str | None,
    validated: bool,
) -> int:
    """Fit the model's constants to measurements.

    Takes a table (CSV or Parquet; without FILE, the published measurements of the catalog), fits efficiencies and
    overheads by accelerator, framework, precision and model, and says how wrong the result is on rows that a fit had
    not seen.
    """
    if out is not None:
        require_writable(out, option="--out")
    with computing(quiet=quiet) as told:
        from tokopt.api import calibrate

        found = calibrate(
            table,
            out=out,
            base=base,
            name=name,
            validated=validated,
            made_on=date,
            catalog=catalog,
            processes=_processors(),
            progress=told,
        )
    if as_json:
        print_json(found)
    else:
        from tokopt.report.calibration import calibration_report

        print_report(calibration_report(found, columns_wide=console().width))
    if out is not None and not quiet:
        say(f"{found.used:,} of {found.rows:,} rows fitted, constants written to {out}")
    return ExitStatus.ANSWERED


def _processors() -> int:
    """Return how many processors we may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
