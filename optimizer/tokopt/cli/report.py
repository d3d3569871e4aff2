"""`tokopt report`, and what `tokopt plan --html` shares with it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tokopt.cli.help import Command
from tokopt.cli.options import CommandT, framing, several
from tokopt.cli.output import answer, console, require_outputs, require_writable, write_pictures, write_whole
from tokopt.cli.shell import ExitStatus
from tokopt.cli.working import computing

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tokopt.cli.working import Told
    from tokopt.domain.plans import Plan
    from tokopt.domain.reporting import BoardReport

EXAMPLES = """\b
Examples:
  tokopt plan --power 10MW --sla 50ms --out plan.json && tokopt report plan.json
  tokopt report plan.json --html report.html
  tokopt report plan.json --plots pictures/ --plot-format svg
  tokopt report plan.json --quick --text
  tokopt report plan.json --parts frontier,power --json

Exit status 3: the plan is infeasible; its report says what stands in the way."""
FIRST_PICTURE = "frontier.png"
DRAWING = 0.9  # of the work, when it begins


def files(command: CommandT) -> CommandT:
    """Add the options for what a report is written to."""
    for option in (
        click.option("--jobs", type=click.IntRange(min=1), metavar="N",
                     help="Most processes for the report.  [default: one a processor]"),
        click.option("--quick", is_flag=True, help="A report without what takes long: why, and other price lists."),
        click.option("--plot-format", type=click.Choice(("png", "svg")), default="png", show_default=True,
                     help="What --plots writes."),
        click.option("--plots", type=click.Path(path_type=Path), metavar="DIR",
                     help="Write the report's charts as pictures there."),
        click.option("--html", type=click.Path(path_type=Path), metavar="FILE",
                     help="Write the report as one HTML page that needs nothing else."),
    ):  # fmt: skip
        command = option(command)
    return command


@click.command("report", cls=Command, epilog=EXAMPLES)
@click.argument("plan_file", metavar="PLAN.json")
@files
@several(
    "--parts",
    metavar="PART,...",
    help="Of frontier, cost, power, explanation, price_lists.  [default: all, or with --quick the first three]",
)
@click.option("--text", is_flag=True, help="Print the report as text instead.")
@framing
def command(plan_file: str, html: Path | None, plots: Path | None, plot_format: str, text: bool, **options: Any) -> int:
    """Put a plan before a board: the answer, its ranges, the frontier, cost, power, why, and other price lists.

    One page that works offline and prints well, next to the plan unless --html names a file; --plots writes its charts
    as pictures, and --text prints the same instead.
    """
    if not (html or plots or text or options["as_json"]):
        html = Path(plan_file).parent / f"{Path(plan_file).stem or 'report'}.html"
    require_report(html, plots)
    with computing(quiet=options["quiet"]) as told:
        found = gathered(plan_file, told, {name: options[name] for name in ("catalog", "parts", "quick", "jobs")})
        pictures = drawn(found, html, plots, plot_format, told)
    answer(
        found,
        as_json=options["as_json"],
        quiet=options["quiet"],
        report=lambda: _shown(found, whole=html is None and plots is None),
        write=lambda: written(pictures, html, plots),
    )
    return ExitStatus.ANSWERED if found.plan.status != "infeasible" else ExitStatus.INFEASIBLE


def require_report(html: Path | None, plots: Path | None) -> None:
    """Refuse what could not be written in the end, before any work is put into it.

    Raises:
        InputError: A place cannot be written, or the extra `report` is missing.
    """
    if html is not None:
        from tokopt.report.html import require_pages

        require_writable(html, option="--html")
        require_pages()
    require_outputs(None, plots, FIRST_PICTURE)


def gathered(plan: Plan | str, told: Told, options: dict[str, Any]) -> BoardReport:
    """Return everything that the report of a plan shows."""
    from tokopt.api.reporting import board_report

    jobs = options.pop("jobs") or os.cpu_count() or 1
    return board_report(plan, progress=told, jobs=jobs, **options)


def drawn(found: BoardReport, html: Path | None, plots: Path | None, form: str, told: Told) -> dict[str, Any]:
    """Return the page and the pictures that were asked for; drawing takes a moment, too."""
    told("drawing", DRAWING)
    made: dict[str, Any] = {"pictures": []}
    if html is not None:
        from tokopt.report.html import page

        made["page"] = page(found)
    if plots is not None:
        from tokopt.report.board_charts import pictures

        made["pictures"] = list(pictures(found, form))
    return made


def written(made: dict[str, Any], html: Path | None, plots: Path | None) -> list[str]:
    """Write what was drawn, and return a line about each file."""
    said = []
    if html is not None:
        write_whole(html, made["page"], option="--html")
        said.append(f"report written to {html}")
    return [*said, *write_pictures(plots, lambda: made["pictures"])]


def _shown(found: BoardReport, *, whole: bool) -> RenderableType:
    """Return the report as text; in a sentence where it was written to files."""
    from rich.text import Text

    from tokopt.report.answer import answer_sentence
    from tokopt.report.board import board_report

    if not whole:
        return Text(answer_sentence(found))
    out = console()
    return board_report(found, columns_wide=out.width, lines_high=out.height)
