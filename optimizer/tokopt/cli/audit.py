"""`tokopt audit`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tokopt.cli.help import Command
from tokopt.cli.options import framing, lengths, rates, several
from tokopt.cli.output import answer, require_outputs, write_out, write_pictures
from tokopt.cli.shell import ExitStatus
from tokopt.cli.working import computing

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tokopt.domain.auditing import Audit

EXAMPLES = """\b
Examples:
  tokopt audit --accelerator gb300_nvl72
  tokopt audit --accelerator gb300_nvl72,h200_sxm,mi355x --sla 50ms --plots pictures/
  tokopt audit --accelerator h100_sxm --framework vllm --model qwen3-32b --workload chat --json

Exit status 3: none of the accelerators serves the model at all; the page says why, and what is documented."""


@click.command("audit", cls=Command, epilog=EXAMPLES)
@several("--accelerator", "accelerators", help="Accelerators to audit, side by side.  [needed]")
@several("--framework", "frameworks", help="Serving frameworks.  [default: all that one would deploy there]")
@click.option("--model", metavar="NAME", help="Model, or path of a Hugging Face config.json.  [default: deepseek-r1]")
@click.option("--workload", metavar="NAME", help="What users send; see: tokopt catalog list.  [default: agentic]")
@lengths
@click.option(
    "--sla",
    metavar="LIMITS",
    default="50ms",
    show_default=True,
    help="Latency limits: 50ms (time per output token, at p99), or tpot=40ms,ttft=1s,e2e=20s,p90, or tok/s/user=20.",
)
@several("--prices", metavar="LIST,...", help="Price lists, files or directories.  [default: ownership-hyperscaler]")
@rates
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Also write the audit, as JSON.")
@click.option("--plots", type=click.Path(path_type=Path), metavar="DIR", help="Also draw all_to_all.png there.")
@framing
def command(
    as_json: bool,
    quiet: bool,
    catalog: str | None,
    accelerators: str | None,
    out: Path | None,
    plots: Path | None,
    **options: Any,
) -> int:
    """Answer what a buyer should ask of a platform, with numbers.

    Cost per token and tokens per MW, whether the interconnect carries the all-to-alls of expert parallelism, which
    precisions and features are supported and what each is worth, speed at the ends, what the vendor documents, and what
    is lacking and costs. One page for one accelerator, side by side for several.
    """
    require_outputs(out, plots, "all_to_all.png")
    request = {{"rate": "rates"}.get(name, name): value for name, value in options.items() if value is not None}
    with computing(quiet=quiet) as told:
        from tokopt.api import audit

        found = audit(accelerators or "", catalog=catalog, progress=told, **request)
    answer(
        found,
        as_json=as_json,
        quiet=quiet,
        report=lambda: _report(found),
        write=lambda: _write(found, out, plots),
    )
    return ExitStatus.ANSWERED if found.answered else ExitStatus.INFEASIBLE


def _report(found: Audit) -> RenderableType:
    from tokopt.report.auditing import audit_report

    return audit_report(found)


def _write(found: Audit, out: Path | None, plots: Path | None) -> list[str]:
    """Write the files that were asked for, and return a line about each."""
    from tokopt.report.auditing_plots import pictures

    drawn = write_pictures(plots, lambda: pictures(found))
    if plots is not None and not drawn:
        drawn = ["no picture: no platform spreads the model's experts"]
    return [*write_out(out, found, "audit"), *drawn]
