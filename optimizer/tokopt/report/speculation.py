"""What speculation is worth to a deployment, batch by batch: gains by draft tokens a step, best depth, losses."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from tokopt.domain.speculation import SpeculationCell, SpeculationRow, SpeculationTable
from tokopt.report.blocks import QUIET, bullets, columns, section
from tokopt.report.deployments import machines_text, short_text
from tokopt.report.figures import milliseconds, short

BAR = 8  # characters of the longest bar
GAIN, LOSS = "green", "red"


def speculation_report(table: SpeculationTable) -> RenderableType:
    """Return the report of a table."""
    deployment = table.deployment
    depths = [cell.depth for cell in table.rows[0].cells[1:]]
    tokens = ", ".join(f"{cell.tokens_per_step:.2f}" for cell in table.rows[0].cells[1:])
    headings = ["batch", "without", *(str(depth) for depth in depths), "best", "TPOT, ms", ""]
    most = max(cell.gain for row in table.rows for cell in row.cells)
    return Group(
        Text(f"{deployment.llm} on {machines_text(deployment)}: speculation by batch"),
        section(
            "Set-up",
            Text(short_text(deployment)),
            Text(f"{table.speculator} ({table.method}), {table.workload}: {tokens} tokens a step"),
        ),
        section(
            "Output tokens a second and GPU: without speculation, and times that with 1, 2, ... draft tokens a step",
            columns(headings, (_row(row, most) for row in table.rows), left=(len(headings) - 1,)),
            Text("* = best of what fits in memory; (…) = does not fit; below 1 speculation loses", style=QUIET),
        ),
        section("Where it loses", Text(_losses(table))),
        section("Assumptions", bullets(table.assumptions)),
    )


def _row(row: SpeculationRow, most: float) -> list[RenderableType]:
    without, *drafted = row.cells
    best = next((cell for cell in row.cells if cell.depth == row.best_depth), None)
    tpot = milliseconds(without.tpot_ms)
    if best is not None and best.depth:
        tpot += f" → {milliseconds(best.tpot_ms)}"
    plain = short(without.output_tokens_per_s_per_gpu)
    return [
        Text(f"{row.batch:,}"),
        Text(plain if without.fits else f"({plain})", style="" if without.fits else QUIET),
        *(_gain(cell, cell is best) for cell in drafted),
        Text("-" if best is None else str(best.depth)),
        Text(tpot),
        Text("" if best is None else "█" * round(BAR * best.gain / most), style=GAIN),
    ]


def _gain(cell: SpeculationCell, is_best: bool) -> Text:
    said = f"{cell.gain:.2f}"
    if not cell.fits:
        return Text(f"({said})", style=QUIET)
    return Text(f"*{said}" if is_best else said, style=LOSS if cell.gain < 1.0 else GAIN if is_best else "")


def _losses(table: SpeculationTable) -> str:
    if table.loses_from is not None:
        return f"from batch {table.loses_from:,} on, no number of draft tokens serves more than none"
    losing = [row for row in table.rows if row.loses]
    if not losing:
        return f"nowhere up to batch {table.rows[-1].batch:,}"
    first = losing[0]
    depths = ", ".join(str(depth) for depth in first.loses)
    return f"from batch {first.batch:,} on, some depths lose ({depths} first); the best one still gains everywhere"
