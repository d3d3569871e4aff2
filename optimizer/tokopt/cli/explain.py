"""`tokopt explain`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tokopt.cli.help import Command
from tokopt.cli.options import framing, several
from tokopt.cli.output import answer, console, require_outputs, write_out, write_pictures
from tokopt.cli.shell import ExitStatus
from tokopt.cli.working import computing
from tokopt.errors import InputError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tokopt.domain.explaining import Explanation

EXAMPLES = """\b
Examples:
  tokopt plan --power 10MW --sla 50ms --out plan.json && tokopt explain plan.json
  tokopt explain plan.json --baseline h200_sxm --factors accelerator,precision,speculation
  tokopt explain plan.json --plots pictures/ --json

Exit status 2: the plan is infeasible, cannot be reproduced with this catalog, or nothing plain meets its request."""


@click.command("explain", cls=Command, epilog=EXAMPLES)
@click.argument("plan_file", metavar="PLAN.json")
@click.option("--baseline", metavar="GPU", help="Accelerator to compare with.  [default: the slowest that will do]")
@several("--factors", metavar="FACTOR,...", help="Which factors to explain.  [default: all that the plan uses]")
@click.option(
    "--plots", type=click.Path(path_type=Path), metavar="DIR", help="Also draw waterfall.png and tornado.png there."
)
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Also write the explanation, as JSON.")
@click.option("--jobs", type=click.IntRange(min=1), metavar="N", help="Most processes.  [default: one a processor]")
@framing
def command(
    plan_file: str,
    baseline: str | None,
    factors: str | None,
    plots: Path | None,
    out: Path | None,
    jobs: int | None,
    as_json: bool,
    quiet: bool,
    catalog: str | None,
) -> int:
    """Say why a plan costs what it does: what each feature is worth, and what would change the answer.

    From a plain baseline (an older accelerator, wide precision, no features) to the plan: the share of each factor in
    the cost per token and in tokens per MW. Then the plan again with each feature switched off, each accelerator
    forbidden, and prices, limits and rates higher and lower.
    """
    require_outputs(out, plots, "waterfall.png")
    with computing(quiet=quiet) as told:
        import tokopt

        try:
            found = tokopt.explain(
                plan_file,
                baseline=baseline,
                factors=factors,
                catalog=catalog,
                jobs=jobs or os.cpu_count() or 1,
                progress=told,
            )
        except InputError as error:
            named = str(error).startswith((plan_file, "--"))
            raise error if named else InputError(f"{plan_file}: {error}") from None
    answer(
        found,
        as_json=as_json,
        quiet=quiet,
        report=lambda: _report(found),
        write=lambda: _write(found, out, plots),
    )
    return ExitStatus.ANSWERED


def _report(found: Explanation) -> RenderableType:
    from tokopt.report.explaining import explanation_report

    return explanation_report(found, columns_wide=console().width)


def _write(found: Explanation, out: Path | None, plots: Path | None) -> list[str]:
    """Write the files that were asked for, and return a line about each."""
    from tokopt.report.explaining_plots import pictures

    return [*write_out(out, found, "explanation"), *write_pictures(plots, lambda: pictures(found))]
