"""`tokopt estimate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tokopt.cli.help import Command
from tokopt.cli.options import expert_traffic, framing, lengths, several
from tokopt.cli.output import print_json, print_report, require_writable
from tokopt.cli.shell import ExitStatus
from tokopt.cli.working import computing

EXAMPLES = """\b
Examples:
  tokopt estimate --model qwen3-32b --gpu h100_sxm --precision fp8 --tp 2 \\
      --isl 1024 --osl 512 --concurrency 64
  tokopt estimate --model deepseek-r1 --gpu h200_sxm --prefill 2xtp8 --decode 1xtp1dp16ep16 --rate 4req/s
  tokopt estimate --model llama-3.1-70b --prefill 2xtp4@h100_sxm --decode 1xtp8@h200_sxm --rate 2req/s
  tokopt estimate --model llama-3.1-70b --gpu h200_sxm --tp 4 --concurrency 64 --perf both
  tokopt estimate --model llama-3.1-8b --gpu h100_sxm --speculator eagle3-llama-3.1-8b --speculation-table
  tokopt estimate --batch rows.csv --out predictions.csv

A deployment that does not fit, or is overloaded, is an answer: exit status 0, and the report says so."""
DEGREE = click.IntRange(min=1)


@click.command("estimate", cls=Command, epilog=EXAMPLES)
@click.option("--model", metavar="NAME", help="Model, or path of a Hugging Face config.json.")
@click.option("--gpu", metavar="NAME", help="Accelerator; pools may name others.")
@click.option("--framework", metavar="NAME", help="Serving framework.  [default: the first that runs there]")
@click.option("--precision", metavar="NAME", help="Of the weights.  [default: the checkpoint's own]")
@click.option("--kv-precision", metavar="NAME", help="Of the KV cache.  [default: what the precision asks for]")
@click.option("--tp", type=DEGREE, metavar="N", help="Tensor-parallel degree.  [default: 1]")
@click.option("--pp", type=DEGREE, metavar="N", help="Pipeline-parallel degree.  [default: 1]")
@click.option("--ep", type=DEGREE, metavar="N", help="Expert-parallel degree.  [default: 1]")
@click.option("--dp", type=DEGREE, metavar="N", help="Attention-data-parallel degree.  [default: 1]")
@click.option("--cp", type=DEGREE, metavar="N", help="Prefill-context-parallel degree: prompts split.  [default: 1]")
@click.option("--dcp", type=DEGREE, metavar="N", help="Decode-context-parallel degree: caches split.  [default: 1]")
@click.option(
    "--redundant-experts",
    type=click.IntRange(min=0),
    metavar="N",
    help="Further copies of experts, a layer.  [default: 0]",
)
@click.option("--two-batch-overlap", is_flag=True, help="Steps may run as halves: one exchanges while one computes.")
@click.option("--prefill", metavar="POOL", help="Prefill pool of two, like 2xtp4, 1xtp8cp4 or 2xtp4@h100_sxm.")
@click.option("--decode", metavar="POOL", help="Decode pool of two, like 1xtp8 or 1xtp1dp8ep8.")
@click.option("--mtp", type=click.IntRange(min=0), metavar="N", help="Draft tokens a step (multi-token prediction).")
@click.option("--speculator", metavar="NAME", help="What drafts tokens: mtp, or see: tokopt catalog list speculators.")
@click.option("--depth", type=click.IntRange(min=0), metavar="N", help="Draft tokens a step.  [default: 1]")
@click.option("--chunk-tokens", type=DEGREE, metavar="N", help="Token budget of a prefill chunk.  [default: 8192]")
@click.option("--max-running", type=DEGREE, metavar="N", help="Most requests in service.  [default: what fits]")
@click.option("--workload", metavar="NAME", help="What users send; see: tokopt catalog list.  [default: chat]")
@lengths
@expert_traffic
@click.option(
    "--router",
    metavar="kv_aware|random|round_robin|least_loaded",
    help="How requests reach one of several replicas, where prompts repeat.  [default: kv_aware where there is one]",
)
@click.option("--kv-offload", metavar="none|host|ssd", help="Where caches go beyond GPU memory.  [default: none]")
@click.option(
    "--replicas", type=float, metavar="N", help="Replicas that share the traffic, for --router.  [default: 1]"
)
@several("--disable", metavar="FEATURE,...", help="To do without: chunked_prefill, cuda_graphs or overlap_scheduling.")
@click.option("--concurrency", type=float, metavar="N", help="Load: requests in flight, as benchmarks run.")
@click.option("--rate", metavar="RATE", help="Load: open traffic, like 8req/s.")
@click.option(
    "--perf",
    type=click.Choice(["model", "silicon", "both"]),
    default="model",
    show_default=True,
    help="Step times: the model's, NVIDIA's measured operator database's (extra silicon), or both side by side.",
)
@click.option("--speculation-table", is_flag=True, help="Batch by batch, the best number of draft tokens a step.")
@click.option("--batch", type=click.Path(path_type=Path), metavar="FILE", help="CSV with one deployment a row.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="CSV that --batch writes.")
@framing
def command(
    as_json: bool,
    quiet: bool,
    catalog: str | None,
    perf: str,
    batch: Path | None,
    out: Path | None,
    speculation_table: bool,
    **options: Any,
) -> int:
    """Estimate one deployment under a load.

    Says whether it fits, and its latency, throughput, memory and power. The load is --concurrency (a closed loop) or
    --rate (open traffic). --speculation-table needs no load: it shows, batch by batch, what each number of draft tokens
    a step is worth, and where speculation loses.
    """
    request = {name: value for name, value in options.items() if value is not None and value is not False}
    if batch is not None or out is not None:
        if speculation_table:
            raise click.UsageError("--speculation-table is of one deployment: leave out --batch and --out")
        return _table(batch, out, request, perf=perf, as_json=as_json, quiet=quiet, catalog=catalog)
    named = [name for name in ("prefill", "decode") if "@" in request.get(name, "")]  # pools that say where they run
    missing = [f"--{name}" for name in ("model", "gpu") if name not in request and (name == "model" or not named)]
    if missing:
        raise click.UsageError(f"{' and '.join(missing)} missing: which model, on which accelerator?")
    if speculation_table:
        return _speculation(request, perf=perf, as_json=as_json, quiet=quiet, catalog=catalog)
    with computing(quiet=quiet):
        from tokopt.api import estimate

        answer = estimate(catalog=catalog, perf=perf, **request)
    if as_json:
        print_json(answer)
    else:
        from tokopt.report.estimate import estimate_report

        print_report(estimate_report(answer))
    return ExitStatus.ANSWERED


def _speculation(request: dict[str, Any], *, perf: str, as_json: bool, quiet: bool, catalog: str | None) -> int:
    """Show what speculation is worth by batch."""
    loads = [name for name in ("concurrency", "rate", "mtp", "depth", "max_running") if name in request]
    if loads or perf != "model":
        extra = ", ".join(f"--{name.replace('_', '-')}" for name in (*loads, *(["perf"] if perf != "model" else [])))
        raise click.UsageError(f"--speculation-table goes through batches and depths by itself: leave out {extra}")
    with computing(quiet=quiet):
        from tokopt.api import speculation_table

        answer = speculation_table(catalog=catalog, **request)
    if as_json:
        print_json(answer)
    else:
        from tokopt.report.speculation import speculation_report

        print_report(speculation_report(answer))
    return ExitStatus.ANSWERED


def _table(
    batch: Path | None,
    out: Path | None,
    request: dict[str, Any],
    *,
    perf: str,
    as_json: bool,
    quiet: bool,
    catalog: str | None,
) -> int:
    """Predict every row of a file."""
    if batch is None or out is None:
        raise click.UsageError("--batch and --out go together: --batch rows.csv --out predictions.csv")
    if request:
        extra = ", ".join(f"--{name.replace('_', '-')}" for name in request)
        raise click.UsageError(f"with --batch each row says what to estimate: leave out {extra}")
    if perf == "both":
        raise click.UsageError("--batch takes one source of step times: --perf model or --perf silicon")
    require_writable(out, option="--out")
    with computing(quiet=quiet) as told:
        from tokopt.api import estimate_table

        summary = estimate_table(batch, out, catalog=catalog, perf=perf, progress=told)
    if as_json:
        print_json(summary)
        return ExitStatus.ANSWERED
    click.echo(f"{summary['answered']:,} of {summary['rows']:,} rows predicted, written to {summary['out']}")
    for reason, count in summary["reasons"].items():
        click.echo(f"  {count:,} without: {reason}")
    return ExitStatus.ANSWERED
