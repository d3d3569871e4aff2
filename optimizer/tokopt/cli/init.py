"""`tokopt init`."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import click

from tokopt.cli.help import Command
from tokopt.cli.options import debugging
from tokopt.cli.output import require_writable, say, write_whole
from tokopt.cli.shell import ExitStatus
from tokopt.errors import InputError, not_one_of

KINDS = {  # kind -> the file of its template, what to do with it
    "scenarios": ("scenarios.yaml", "tokopt compare --scenarios {file} --prices aws,gcp,lambda"),
    "workloads": ("workloads.yaml", "tokopt plan --workloads {file}"),
    "prices": ("prices.csv", "tokopt plan --power 500kW --sla 50ms --model llama-3.1-70b --prices {file}"),
}
EXAMPLES = """\b
Examples:
  tokopt init                                 # scenarios.yaml
  tokopt init ours.yaml
  tokopt init --kind workloads --out -"""


@click.command("init", cls=Command, epilog=EXAMPLES)
@click.argument("file", metavar="[FILE]", required=False)
@click.option("--out", metavar="FILE", help="The same as FILE; - prints it.")
@click.option(
    "--kind",
    metavar="scenarios|workloads|prices",
    default="scenarios",
    show_default=True,
    help="Scenarios to compare, classes of requests over a day, or a price list.",
)
@click.option("--force", is_flag=True, help="Write over a file that is there.")
@debugging
def command(file: str | None, out: str | None, kind: str, force: bool) -> int:
    """Write a file to start from, with every option in it and what it means.

    It works as it is: run what is printed, then change it.
    """
    if kind not in KINDS:
        raise not_one_of("--kind", kind, KINDS)
    if file is not None and out is not None and file != out:
        raise InputError(f"{file} and --out {out} are two files: give one of them")
    template, then = KINDS[kind]
    name = file or out or template
    text = files("tokopt.cli").joinpath("templates", template).read_text(encoding="utf-8")
    if name == "-":
        click.echo(text.replace("{file}", template), nl=False)
        return ExitStatus.ANSWERED
    path = Path(name)
    require_writable(path, option="FILE")
    if path.exists() and not force:
        raise InputError(f"{path}: is there already; --force writes over it, another name keeps it")
    write_whole(path, text.replace("{file}", name), option="FILE")
    say(f"{kind} written to {path}; now: {then.format(file=name)}")
    return ExitStatus.ANSWERED
