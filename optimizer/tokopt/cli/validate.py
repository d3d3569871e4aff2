"""`tokopt validate`."""

from __future__ import annotations

from pathlib import Path

import click

from tokopt.cli.help import Command
from tokopt.cli.options import framing, several
from tokopt.cli.output import console, print_json, print_report, require_writable, say
from tokopt.cli.shell import ExitStatus
from tokopt.cli.working import computing

EXAMPLES = """\b
Examples:
  tokopt validate
  tokopt validate measurements.csv --out compared.csv
  tokopt validate --prefix aic: --by vendor_system,framework --all
  tokopt validate --prefix aic: --perf silicon

Needed columns: vendor_system, model, framework, isl, osl, and one of ttft_ms, tpot_ms, output_tok_s_per_gpu;
docs/accuracy.md lists the others. A row that cannot be used gets a reason, and the others are answered."""


@click.command("validate", cls=Command, epilog=EXAMPLES)
@click.argument("table", metavar="[FILE]", required=False, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write the table with predictions.")
@several("--by", metavar="COLUMN,...", help="Group by these columns.  [default: system to serving mode]")
@click.option("--prefix", metavar="TEXT", default="", help="Only rows whose id begins with this, like aic:.")
@click.option(
    "--perf",
    type=click.Choice(["model", "silicon"]),
    default="model",
    show_default=True,
    help="Step times: the model's, or NVIDIA's measured operator database's (extra silicon).",
)
@click.option(
    "--min-rows", type=click.IntRange(min=1), metavar="N", help="Fold smaller groups.  [default: 30, if many]"
)
@click.option("--all", "everything", is_flag=True, help="Show every group and every reason.")
@click.option("--plot/--no-plot", default=None, help="Predicted over measured.  [default: on a terminal]")
@framing
def command(
    as_json: bool,
    quiet: bool,
    catalog: str | None,
    table: Path | None,
    out: Path | None,
    by: str | None,
    prefix: str,
    perf: str,
    min_rows: int | None,
    everything: bool,
    plot: bool | None,
) -> int:
    """Compare predictions with measurements.

    Predicts every row of a table (CSV or Parquet; without FILE, the published measurements of the catalog) and shows
    how far predictions are from what was measured.
    """
    if out is not None:
        require_writable(out, option="--out")
    with computing(quiet=quiet) as told:
        from tokopt.api import validate

        found = validate(table, out=out, by=by, prefix=prefix, perf=perf, catalog=catalog, progress=told)
    if as_json:
        print_json(found)
    else:
        from tokopt.report.validation import validation_report

        shown = console()
        report = validation_report(
            found,
            columns_wide=shown.width,
            lines_high=shown.height,
            plot=shown.is_terminal if plot is None else plot,
            least_rows=min_rows,
            everything=everything,
        )
        print_report(report)
    if out is not None and not quiet:
        say(f"{found.answered:,} of {found.rows:,} rows predicted, written to {out}")
    return ExitStatus.ANSWERED
