"""`tokopt import`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from tokopt.cli.help import Command
from tokopt.cli.options import CommandT, framing
from tokopt.cli.output import print_json, print_report, require_writable, say
from tokopt.cli.shell import ExitStatus
from tokopt.cli.working import computing

EXAMPLES = """\b
Examples:
  tokopt import aiperf aiperf/profile_export_aiperf.json --plan plan.json --out measured.csv
  tokopt import vllm-bench result.json --accelerator h100_sxm --framework vllm --precision fp8 --tp 2
  tokopt import inferencex agg_bmk.json --stat p50 --out rows.csv && tokopt validate rows.csv

Files: AIPerf's profile_export_aiperf.json or .csv and its profile_export.jsonl; GuideLLM's benchmarks.json or .yaml;
what vllm bench serve --save-result writes; InferenceX's agg_*.json and rows of its data base."""


def _named(*names: str, kind: type | None = None, metavar: str, help: str) -> Callable[[CommandT], CommandT]:
    """Return an option that is left out unless it is given."""
    return click.option(*names, type=kind, metavar=metavar, help=help)


@click.command("import", cls=Command, epilog=EXAMPLES)
@click.argument("tool", metavar="aiperf|guidellm|vllm-bench|inferencex")
@click.argument("results", nargs=-1, required=True, metavar="RESULT...")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write the rows, as CSV or Parquet.")
@_named("--plan", metavar="PLAN.json", help="The plan of which one replica was measured.")
@_named("--item", kind=int, metavar="N", help="Which item of its fleet, from 1.  [default: the only one]")
@_named("--accelerator", "--gpu", metavar="NAME", help="What it ran on.")
@_named("--model", metavar="NAME", help="What was served, where the file calls it something else.")
@_named("--framework", metavar="NAME", help="What served it.")
@_named("--framework-version", metavar="TEXT", help="Its version, for the record.")
@_named("--precision", metavar="NAME", help="Precision of the weights.")
@_named("--kv-precision", metavar="NAME", help="Precision of the KV cache.")
@_named("--tp", kind=int, metavar="N", help="Tensor-parallel degree.")
@_named("--pp", kind=int, metavar="N", help="Pipeline stages.")
@_named("--ep", kind=int, metavar="N", help="Expert-parallel degree.")
@_named("--dp", kind=int, metavar="N", help="Attention-data-parallel ranks.")
@_named("--prefill", metavar="POOL", help="Prefill pool where it is apart, like 2xtp4.")
@_named("--decode", metavar="POOL", help="Decode pool, like 1xtp8.")
@_named("--gpus", kind=int, metavar="N", help="Accelerators of all that was measured.  [default: of the layout]")
@_named("--isl", kind=float, metavar="TOKENS", help="Mean input tokens, where the file does not say.")
@_named("--osl", kind=float, metavar="TOKENS", help="Mean output tokens, where the file does not say.")
@_named("--prefix-share", kind=float, metavar="SHARE", help="Share of input tokens that caches found.")
@_named("--concurrency", kind=float, metavar="N", help="Requests in flight, where the file does not say.")
@_named("--rate", kind=float, metavar="N", help="Requests/s that were sent, where the file does not say.")
@click.option("--stat", metavar="NAME", default="mean", show_default=True, help="mean, p50, p75, p90, p95 or p99.")
@framing
def command(
    tool: str,
    results: tuple[str, ...],
    out: Path | None,
    as_json: bool,
    quiet: bool,
    catalog: str | None,
    **options: Any,
) -> int:
    """Turn results of benchmarks into rows of measurements.

    The rows have the columns that tokopt validate and tokopt calibrate read. What a result file does not say
    (accelerator, layout, precision) is given by options, or taken from the plan that was measured.
    """
    if out is not None:
        require_writable(out, option="--out")
    with computing(quiet=quiet):
        import tokopt

        given = {name: value for name, value in options.items() if value is not None}
        found = tokopt.import_results(tool, results, out=out, catalog=catalog, **given)
    if as_json:
        print_json(found)
    else:
        from tokopt.report.importing import import_report

        print_report(import_report(found))
    if out is not None and not quiet:
        say(f"{len(found.rows):,} {'row' if len(found.rows) == 1 else 'rows'} written to {out}")
    return ExitStatus.ANSWERED
