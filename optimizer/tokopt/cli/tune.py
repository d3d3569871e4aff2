"""`tokopt tune`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tokopt.cli.help import Command
from tokopt.cli.options import framing, several
from tokopt.cli.output import answer, require_outputs, say, write_out, write_pictures
from tokopt.cli.shell import ExitStatus
from tokopt.cli.working import Told, computing
from tokopt.errors import InputError

if TYPE_CHECKING:
    from tokopt.domain.tuning import Tuning

EXAMPLES = """\b
Examples:
  tokopt plan --power 10MW --sla 50ms --out plan.json && tokopt tune plan.json --out tuned.json
  tokopt tune plan.json --trials 100 --time-limit 20min --plots pictures/
  tokopt tune plan.json --knobs max_batch,chunk,router --objectives cost,p99
  tokopt tune plan.json --study postgresql://me@db/tuning --trials 400

Trials are kept next to the plan, or where --study says. The same command goes on where it ended, and so does whoever
else names the same study, at the same time and on other machines: --trials counts all of them together.

The answer is the plan's own settings unless others are better beyond chance, on requests that no trial has seen."""


@click.command("tune", cls=Command, epilog=EXAMPLES)
@click.argument("plan_file", metavar="PLAN.json")
@click.option("--trials", type=int, default=40, metavar="N", help="Of the study in all, of each item.  [default: 40]")
@click.option("--time-limit", metavar="TIME", help="For the search, like 10min.  [default: none]")
@click.option("--study", metavar="FILE|URL", help="Journal or database of trials.  [default: PLAN.tune.journal]")
@click.option("--study-name", default="tokopt", metavar="NAME", help="Of the study there.  [default: tokopt]")
@several("--knobs", metavar="KNOB,...", help="max_batch, chunk, speculation, pools, router, offload, power_cap.")
@several("--objectives", metavar="AIM,...", help="Of cost, goodput, p99, energy; the first decides.")
@click.option("--sampler", default="tpe", metavar="NAME", help="tpe, nsga2 or random.  [default: tpe]")
@click.option("--item", type=int, metavar="N", help="Of the fleet, from 1.  [default: each]")
@click.option("--requests", type=int, default=10_000, metavar="N", help="Of a test's replication.  [default: 10000]")
@click.option("--replications", type=int, default=8, metavar="N", help="Of a test.  [default: 8]")
@click.option("--seed", type=int, default=0, metavar="N", help="Of samplers and simulations.  [default: 0]")
@click.option("--jobs", type=click.IntRange(min=1), default=1, metavar="N", help="Processes here.  [default: 1]")
@click.option("--simulator-alone", is_flag=True, help="Also what the closed-form model puts outside the limits.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write the plan with tuned settings.")
@click.option(
    "--plots", type=click.Path(path_type=Path), metavar="DIR", help="Draw front, history and importance there, as PNG."
)
@framing
def command(
    plan_file: str,
    study: str | None,
    objectives: str | None,
    out: Path | None,
    plots: Path | None,
    as_json: bool,
    quiet: bool,
    **asked: Any,
) -> int:
    """Tune a plan's batches, chunks, drafts, pools, router, caches and power caps against the simulator.

    Optuna proposes settings; each is simulated on the same requests, longer the better it looks, for the highest rate
    at which the plan's limits hold. What looks best is then tested beside the plan's own settings.
    """
    require_outputs(out, plots, "history.png")
    kept = study or _journal(plan_file)
    seen = _Seen()
    try:
        with computing(quiet=quiet) as told:
            import tokopt

            try:
                found = tokopt.tune(
                    plan_file,
                    study=kept,
                    objectives=objectives or ("cost", "goodput", "p99"),
                    progress=seen.and_then(told),
                    **asked,
                )
            except InputError as error:
                named = str(error).startswith((plan_file, "--"))
                raise error if named else InputError(f"{plan_file}: {error}") from None
    except KeyboardInterrupt:
        say(_interrupted(seen, kept))
        return ExitStatus.INTERRUPTED
    answer(found, as_json=as_json, quiet=quiet, report=lambda: _report(found), write=lambda: _write(found, out, plots))
    return ExitStatus.ANSWERED


def _journal(plan_file: str) -> str:
    """Return the file beside a plan that keeps its trials; of a path without a name, like `/`, it is never made."""
    path = Path(plan_file)
    return str(path.with_suffix(".tune.journal")) if path.name else f"{plan_file}.tune.journal"


def _report(found: Tuning) -> Any:
    from tokopt.report.tuning import tuning_report

    return tuning_report(found)


def _write(found: Tuning, out: Path | None, plots: Path | None) -> list[str]:
    """Write the files that were asked for, and return a line about each."""
    from tokopt.report.tuning_plots import pictures

    what = "plan with tuned settings" if found.improved else "plan as it was, since nothing better was found,"
    return [*write_out(out, found.tuned_plan, what), *write_pictures(plots, lambda: pictures(found))]


class _Seen:
    """The last that was told of a tuning."""

    def __init__(self) -> None:
        self.doing = ""

    def and_then(self, told: Told) -> Told:
        """Return a listener that remembers what it hears, and passes it on."""

        def tell(doing: str, done: float) -> None:
            self.doing = doing
            told(doing, done)

        return tell


def _interrupted(seen: _Seen, kept: str) -> str:
    if not seen.doing:
        return "tokopt: interrupted before any trial was made"
    from tokopt.search.studies import study_place

    return (
        f"tokopt: interrupted at {seen.doing.partition(',')[0]}; finished trials are kept in {study_place(kept)}: "
        "the same command goes on from there"
    )
