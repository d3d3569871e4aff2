"""`tokopt export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tokopt.cli.help import Command
from tokopt.cli.options import framing
from tokopt.cli.output import console, print_json, print_report, require_folder, require_writable, say, write_whole
from tokopt.cli.shell import ExitStatus
from tokopt.cli.working import computing
from tokopt.errors import InputError

if TYPE_CHECKING:
    from tokopt.domain.exporting import Export

EXAMPLES = """\b
Examples:
  tokopt plan --power 10MW --sla 50ms --out plan.json
  tokopt export plan.json --to vllm --out deploy/
  tokopt export plan.json --to dynamo | kubectl apply -f -
  tokopt export plan.json --to benchmark --tool guidellm --item 1 --out bench/

Without --out, an export of one file is printed as it is, and one of several is listed. docs/exports.md says what each
tool gets and what cannot be expressed. Exit status 2: the tool cannot run what the plan says."""
EXECUTABLE = 0o755


@click.command("export", cls=Command, epilog=EXAMPLES)
@click.argument("plan_file", metavar="PLAN.json")
@click.option(
    "--to",
    required=True,
    metavar="TOOL",
    help="vllm, sglang, trtllm, dynamo, llm-d, skypilot, terraform or benchmark.",
)
@click.option("--item", type=int, metavar="N", help="Which item of the plan's fleet, from 1.  [default: all]")
@click.option("--tool", metavar="aiperf|guidellm", help="What a benchmark runs.  [default: aiperf]")
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR|FILE", help="Where to write; FILE for one file.")
@framing
def command(
    plan_file: str,
    to: str,
    item: int | None,
    tool: str | None,
    out: Path | None,
    as_json: bool,
    quiet: bool,
    catalog: str | None,
) -> int:
    """Write a plan as the files of a serving tool, ready to run.

    Launch scripts, options, manifests, tasks and variables with the plan's precisions, layouts, caps and features, and
    benchmarks that measure what it promises. What a tool's settings cannot say is said in notes.
    """
    with computing(quiet=quiet):
        import tokopt

        keywords = {} if tool is None else {"tool": tool}
        found = tokopt.export_plan(plan_file, to=to, item=item, catalog=catalog, **keywords)
    written = [] if out is None else _write(found, out)
    if as_json:
        print_json(found)
    elif out is None and len(found.files) == 1:
        click.echo(found.files[0].content, nl=False)
    else:
        from tokopt.report.exporting import export_report

        print_report(export_report(found))
    if quiet:
        return ExitStatus.ANSWERED
    if not as_json and out is None and len(found.files) == 1:
        for note in found.notes:
            say(f"note: {note}")
    for path in written:
        say(f"written to {path}")
    if out is None and not as_json and len(found.files) > 1 and console().is_terminal:
        say("--out DIR writes them")
    return ExitStatus.ANSWERED


def _write(found: Export, out: Path) -> list[Path]:
    """Write the files into a folder, or the only one to a file with the name that was given.

    Raises:
        InputError: They cannot be written.
    """
    single = len(found.files) == 1 and not out.is_dir() and bool(out.suffix)
    if single:
        require_writable(out, option="--out")
    else:
        if out.exists() and not out.is_dir():
            raise InputError(f"--out {out}: is a file; a folder is needed for {len(found.files)} files")
        require_folder(out, found.files[0].name, option="--out")
    written = []
    for file in found.files:
        path = out if single else out / file.name
        write_whole(path, file.content, option="--out")
        if file.executable:
            path.chmod(EXECUTABLE)
        written.append(path)
    return written
