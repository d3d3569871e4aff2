"""The command `tokopt` and the list of its subcommands."""

from __future__ import annotations

import click

from tokopt.cli.options import debugging
from tokopt.cli.shell import Shell
from tokopt.version import __version__

# name -> module that holds it as `command`; read when it is named, or when help lists them all
COMMANDS = {
    "plan": "tokopt.cli.plan",
    "report": "tokopt.cli.report",
    "frontier": "tokopt.cli.frontier",
    "estimate": "tokopt.cli.estimate",
    "economics": "tokopt.cli.economics",
    "ownership": "tokopt.cli.ownership",
    "compare": "tokopt.cli.compare",
    "explain": "tokopt.cli.explain",
    "simulate": "tokopt.cli.simulate",
    "audit": "tokopt.cli.audit",
    "tune": "tokopt.cli.tune",
    "validate": "tokopt.cli.validate",
    "calibrate": "tokopt.cli.calibrate",
    "check": "tokopt.cli.check",
    "export": "tokopt.cli.export",
    "import": "tokopt.cli.importing",
    "catalog": "tokopt.cli.catalog",
    "prices": "tokopt.cli.prices",
    "trace": "tokopt.cli.trace",
    "init": "tokopt.cli.init",
    "serve": "tokopt.cli.serve",
    "doctor": "tokopt.cli.doctor",
    "completion": "tokopt.cli.completion",
}
EXAMPLES = """\b
Examples:
  tokopt plan --power 10MW --sla 50ms
  tokopt estimate --model qwen3-32b --gpu h100_sxm --tp 2 --concurrency 64
  tokopt plan --help

Exit status: 0 answered, 2 bad input, 3 proven infeasible, 1 a defect in tokopt."""


@click.group("tokopt", cls=Shell, homes=COMMANDS, epilog=EXAMPLES)
@click.version_option(version=__version__, message="tokopt %(version)s")
@debugging
def app() -> None:
    """Which GPUs, where, how many, and set up how, serve a model at the lowest cost per token."""


def run() -> int:
    """Run the command line and return its exit status."""
    try:
        app.main(prog_name="tokopt")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    return 0
