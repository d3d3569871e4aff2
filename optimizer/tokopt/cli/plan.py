"""`tokopt plan`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tokopt.cli.fleet_options import api_keywords, demands, terms
from tokopt.cli.help import Command
from tokopt.cli.options import framing, lengths, rates, seconds, several, space, stock, usd_per_hour
from tokopt.cli.output import answer, require_writable, write_out
from tokopt.cli.report import drawn, files, gathered, require_report, written
from tokopt.cli.shell import ExitStatus
from tokopt.cli.working import computing

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tokopt.domain.plans import Plan

EXAMPLES = """\b
Examples:
  tokopt plan --power 10MW --sla 50ms
  tokopt plan --model llama-3.1-70b --demand 400req/s --workload chat \\
      --sla tpot=40ms,ttft=1s,p99 --prices aws,gcp,lambda --out plan.json
  tokopt plan --power 500kW --sla tok/s/user=50 --gpu h200_sxm,b200_sxm --json
  tokopt plan --power 10MW --sla 50ms --verify
  tokopt plan --power 10MW --sla 50ms --html report.html --plots pictures/
  tokopt plan --workloads workloads.yaml --prices aws,nebius,ownership-hyperscaler --survive node

Exit status 3: proven that nothing meets the request; the report says what would have to give."""
KEYWORDS = {  # option -> keyword of the API, where they differ
    "without": "exclude",
    "region": "regions",
    "market": "markets",
    "rate": "rates",
}


@click.command("plan", cls=Command, epilog=EXAMPLES)
@click.option("--power", metavar="POWER", help="Most power, like 10MW or 500kW.")
@click.option(
    "--sla",
    metavar="LIMITS",
    default="50ms",
    show_default=True,
    help="Latency limits: 50ms (time per output token, at p99), or tpot=40ms,ttft=1s,e2e=20s,p90, or tok/s/user=20.",
)
@click.option("--demand", metavar="RATE", help="What must be served, like 400req/s or 2Mtok/s of output.")
@click.option("--model", metavar="NAME", help="Model, or path of a Hugging Face config.json.  [default: deepseek-r1]")
@click.option("--workload", metavar="NAME", help="What users send; see: tokopt catalog list.  [default: agentic]")
@lengths
@demands
@several("--prices", metavar="LIST,...", help="Price lists, files or directories.  [default: ownership-hyperscaler]")
@rates
@several("--owned", metavar="FILE,...", help="YAML files of what you own or would buy; they join --prices, if any.")
@several("--gpu", "gpus", help="Accelerators to choose from.  [default: all that have a price]")
@several("--without", help="Accelerators to leave out.")
@space
@several("--region", help="Regions to buy in.")
@several("--market", help="Terms: on_demand, spot, reserved, reserved_1y, reserved_3y, owned.")
@click.option("--power-basis", metavar="utility|it", default="utility", help="Where --power is measured.")
@click.option(
    "--power-mode",
    metavar="provisioned|rated|drawn",
    default="provisioned",
    show_default=True,
    help="Which power counts: set aside for everything, nameplate, or drawn but for a chance of more.",
)
@click.option("--exceed", metavar="CHANCE", help="Chance that more than counted is drawn (drawn mode).  [default: 1%]")
@click.option("--pue", metavar="N", help="Utility over server power, rated and drawn.  [default: the first site's]")
@click.option(
    "--power-settings",
    metavar="default|all",
    default="default",
    show_default=True,
    help="Also choose among the power caps and clock locks that the catalog lists; single ones: --gpu h200_sxm@500w.",
)
@several(
    "--objective",
    metavar="GOAL,...",
    help="What the plan makes best, the first first: cost, throughput, profit, power, carbon.  [default: cost]",
)
@click.option("--budget", metavar="MONEY", help="Most money an hour, like '$500' (quote the dollar) or 500USD.")
@several("--inventory", metavar="GPU=N,...", help="Most accelerators to be had, like h200_sxm=64.")
@click.option("--max-types", type=click.IntRange(min=1), metavar="K", help="Most kinds of accelerator in the fleet.")
@terms
@click.option(
    "--robust", metavar="SHARE", help="Keep demand and limits with throughput this much below prediction, like 0.15."
)
@click.option(
    "--verify",
    is_flag=True,
    help="Simulate what is recommended; where limits are missed, cut and solve again until they hold.",
)
@click.option("--time-limit", metavar="TIME", default="60s", show_default=True, help="Most time for the solver.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Also write the plan to a file, as JSON.")
@files
@framing
def command(as_json: bool, quiet: bool, catalog: str | None, out: Path | None, verify: bool, **options: Any) -> int:
    """Find the fleet with the lowest cost per token.

    It serves the model within latency and power. Without --demand it fills the power (or budget, or inventory) at the
    lowest cost per token. Every default that was used is in the report.
    """
    html, plots, form, quick, jobs = (options.pop(n) for n in ("html", "plots", "plot_format", "quick", "jobs"))
    if out is not None:
        require_writable(out, option="--out")
    require_report(html, plots)
    request = _request(options)
    made: dict[str, Any] = {}
    with computing(quiet=quiet) as told:
        import tokopt

        plan = tokopt.plan(catalog=catalog, progress=told, verify=verify, **request)
        if html is not None or plots is not None:
            found = gathered(plan, told, {"catalog": catalog, "quick": quick, "jobs": jobs})
            made = drawn(found, html, plots, form, told)
    answer(
        plan,
        as_json=as_json,
        quiet=quiet,
        report=lambda: _report(plan),
        write=lambda: [*write_out(out, plan, "plan"), *written(made, html, plots)],
    )
    return ExitStatus.ANSWERED if plan.status != "infeasible" else ExitStatus.INFEASIBLE


def _report(plan: Plan) -> RenderableType:
    from tokopt.report.plan import plan_report

    return plan_report(plan)


def _request(options: dict[str, Any]) -> dict[str, Any]:
    """Return the API's keywords of the options that were given."""
    request = {KEYWORDS.get(name, name): value for name, value in options.items() if value is not None}
    request["time_limit_s"] = seconds(request.pop("time_limit"), what="--time-limit")
    if "budget" in request:
        request["budget_usd_per_hour"] = usd_per_hour(request.pop("budget"))
    if "inventory" in request:
        request["inventory"] = stock(request["inventory"])
    return api_keywords(request)
