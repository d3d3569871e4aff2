"""What a fleet costs and draws, by part, as text."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType

from tokopt.domain.plans import Plan
from tokopt.domain.reporting import CostBasis, CostBreakdown, CostLine, PowerBreakdown
from tokopt.report.blocks import Section, bullets, columns, section
from tokopt.report.figures import UNKNOWN, power, share, usd
from tokopt.report.ownership import LOOKS, WORDS
from tokopt.report.power import counted_name

MARGIN = "left below the limit"
# Part -> colour and hatch: those of an owned hour, and one for what is rented.
PART_LOOKS = {part: look[1:] for part, look in LOOKS.items()} | {"rental": ("#bbbbbb", "\\\\")}


def line_text(line: CostLine) -> str:
    """Return who an offer is of and on which terms."""
    words = [line.provider]
    if line.market != line.provider:
        words.append(line.market.replace("_", " "))
    return ", ".join(word for word in (*words, line.region) if word)


def cost_section(cost: CostBreakdown, plan: Plan) -> Section:
    """Return what each offer costs by part."""
    used = [part for part in PART_LOOKS if cost.parts.get(part)]
    per_million = plan.usd_per_million_output_tokens or 0.0
    rows: list[tuple[RenderableType, ...]] = [
        (
            f"{line.item}. {line.accelerator}{f' ({line.pool})' if line.pool else ''}",
            f"{line_text(line)}: {_basis(line)}",
            f"{line.gpus:,}",
            usd(line.usd_per_gpu_hour),
            usd(line.usd_per_hour),
        )
        for line in cost.lines
    ]
    parts = [
        (
            WORDS.get(name, name),
            f"{usd(cost.parts[name])}/h",
            share(cost.parts[name] / cost.usd_per_hour) if cost.usd_per_hour else "",
            usd(per_million * cost.parts[name] / cost.usd_per_hour) if cost.usd_per_hour else "",
        )
        for name in used
    ]
    return section(
        "What it costs, by part",
        columns(("", "offer", "GPUs", "$/GPU-hour", "$/h"), rows, left=(0, 1)),
        columns(("part", "of the fleet", "share", "$/M output tokens"), parts),
        bullets(cost.notes),
    )


def _basis(line: CostLine) -> str:
    return {
        CostBasis.COMPONENTS: "computed from parts",
        CostBasis.PUBLISHED: "one published figure",
        CostBasis.RENTAL: "rented",
    }[line.basis]


def power_rows(found: PowerBreakdown) -> Iterator[tuple[str, float, float]]:
    """Yield the parts from the boards to the limit: name, kW, and kW up to and with it."""
    so_far = 0.0
    for part in found.parts:
        so_far += part.kw
        yield part.name, part.kw, so_far
    if found.limit_kw is not None and found.limit_kw > found.counted_kw:
        yield MARGIN, found.limit_kw - found.counted_kw, found.limit_kw


def power_table(found: PowerBreakdown) -> RenderableType:
    """Return the parts from the boards to the limit."""
    whole = found.limit_kw or found.counted_kw
    rows = [(name, power(kw), power(total), share(kw / whole)) for name, kw, total in power_rows(found)]
    of = "the limit" if found.limit_kw else "all"
    return columns(("", "power", "up to here", f"of {of}"), rows)


def power_section(found: PowerBreakdown, plan: Plan) -> Section:
    """Return which power counts, and the planning figures of its accelerators."""
    each = [
        (
            a.accelerator,
            f"{a.gpus:,}",
            *(UNKNOWN if w is None else f"{w:,.0f} W" for w in (a.board_w, a.server_w, a.all_in_w)),
        )
        for a in found.accelerators
    ]
    return section(
        f"What counts: {counted_name(plan)}",
        columns(("each accelerator", "GPUs", "board", "server", "all-in"), each),
        *([bullets(found.notes)] if found.notes else []),
    )
