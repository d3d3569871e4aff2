"""A comparison of price lists as a report: winners, how each list does, and a heat map."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tokopt.domain.comparing import CellStatus, Comparison, ComparisonRow, PriceListWins, ScenarioWinner
from tokopt.report.blocks import bullets, columns, counted, pairs, section
from tokopt.report.figures import UNKNOWN, plural, share, usd

MOST_SHOWN = 40  # scenarios in a report; a table of all of them is what files are for
LONGEST_NAME = 44
# Times the best cost, up to which a shade goes; a scale of ratios, since costs differ by factors.
SHADES = (
    (1.0, "█", "green"),
    (1.1, "▓", "yellow"),
    (1.5, "▒", "dark_orange"),
    (2.5, "░", "red"),
    (math.inf, "·", "red"),
)
INFEASIBLE = "-"
NO_ANSWER = "?"
NARROWEST, WIDEST = 5, 12  # characters of a heat map's column


def comparison_report(found: Comparison, *, columns_wide: int, everything: bool = False) -> RenderableType:
    """Return the report of a comparison.

    Args:
        found: The comparison.
        columns_wide: Characters of a line.
        everything: Show every scenario, however many.
    """
    shown = found.winners if everything else found.winners[:MOST_SHOWN]
    names = {winner.scenario for winner in shown}
    rows = [row for row in found.rows if row.scenario in names]
    more = len(found.winners) - len(shown)
    left = f"and {plural(more, 'scenario')} more: --all shows them, --out writes them"
    remark = [Text(left, style="dim")] if more else []
    return Group(
        _headline(found),
        section("Best price list of each scenario", _winners(shown), *remark),
        section("How each price list does", _lists(found.price_lists)),
        section("Cost relative to the best price list of the scenario", _heat_map(rows, found, columns_wide), *remark),
        *_trouble(found),
        section("Where the numbers come from", bullets(_ends(found))),
    )


def _headline(found: Comparison) -> RenderableType:
    count = Counter(row.status for row in found.rows)
    feasible = count[CellStatus.OPTIMAL] + count[CellStatus.FEASIBLE]
    said = f": {feasible:,} of {plural(found.cells, 'cell')} with a plan"
    if count[CellStatus.INFEASIBLE]:
        said += f", {count[CellStatus.INFEASIBLE]:,} proven infeasible"
    if count[CellStatus.ERROR]:
        said += f", {count[CellStatus.ERROR]:,} without an answer"
    title = f"{plural(len(found.winners), 'scenario')} under {plural(len(found.price_lists), 'price list')}"
    return Text.assemble((title, "bold green" if feasible else "bold red"), said)


def _winners(winners: Sequence[ScenarioWinner]) -> RenderableType:
    headings = ("scenario", "best list", "$/M out", "$/hour", "accelerator", "next best", "is worse by")
    return columns(headings, map(_winner, winners), left=(0, 1, 4, 5))


def _winner(winner: ScenarioWinner) -> Sequence[str]:
    name = winner.scenario
    if winner.price_list is None:
        return name, "none", "", "", "", "", ""
    ties = f" (= {', '.join(winner.ties)})" if winner.ties else ""
    price, hour = winner.usd_per_million_output_tokens, winner.usd_per_hour
    return (
        name,
        f"{winner.price_list}{ties}",
        UNKNOWN if price is None else usd(price),
        UNKNOWN if hour is None else usd(hour),
        winner.accelerator,
        winner.second or "",
        "" if winner.second_difference_percent is None else share(winner.second_difference_percent / 100.0),
    )


def _lists(lists: Sequence[PriceListWins]) -> RenderableType:
    headings = (
        "price list",
        "wins",
        "feasible",
        "infeasible",
        "no answer",
        "mean difference",
        "offers",
        "as of",
    )
    return columns(
        headings,
        (
            (
                entry.price_list,
                f"{entry.wins:,}",
                f"{entry.feasible:,}",
                f"{entry.infeasible:,}",
                f"{entry.errors:,}",
                "" if entry.mean_difference_percent is None else share(entry.mean_difference_percent / 100.0),
                f"{entry.offers:,}",
                entry.as_of or UNKNOWN,
            )
            for entry in sorted(lists, key=lambda entry: -entry.wins)
        ),
        left=(0, 7),
    )


# --- one request under many lists ---


def one_request_answer(found: Comparison) -> Text:
    """Return in a sentence which list is best for the first scenario, and where the first list stands."""
    winner, own = found.winners[0], found.rows[0]
    if winner.price_list is None:
        return Text(f"Under none of {plural(len(found.price_lists), 'price list')} is there a plan.")
    cost = winner.usd_per_million_output_tokens
    feasible = sum(row.usd_per_million_output_tokens is not None for row in found.rows)
    said = f"{feasible:,} of {plural(len(found.price_lists), 'price list')} have a plan; best is {winner.price_list}"
    said += "" if cost is None else f" at {usd(cost)} per M output tokens on {winner.accelerator}"
    if own.best:
        behind = winner.second_difference_percent
        said += f", the plan's own; the next, {winner.second}, is {share(behind / 100.0)} worse" if behind else ""
    elif own.difference_percent is not None:
        said += f"; the plan's own, {own.price_list}, is {share(own.difference_percent / 100.0)} above it"
    return Text(f"{said}.")


def one_request_table(found: Comparison) -> RenderableType:
    """Return the plan of one request under each list that has one, the cheapest first."""
    rows = sorted(_planned(found), key=lambda row: row.usd_per_million_output_tokens or 0.0)
    headings = ("price list", "$/M out", "80 % range", "GPUs", "accelerator", "offer")
    return columns(
        headings,
        (
            (
                row.price_list,
                usd(row.usd_per_million_output_tokens or 0.0),
                cost_range(row),
                "" if row.gpus is None else f"{row.gpus:,}",
                row.accelerator,
                ", ".join(filter(None, (row.market.replace("_", " "), row.region, row.instance_type))),
            )
            for row in rows
        ),
        left=(0, 2, 4, 5),
    )


def cost_range(row: ComparisonRow) -> str:
    """Return the 80 % range of a cell's cost, or nothing."""
    low, high = row.usd_per_million_output_tokens_low, row.usd_per_million_output_tokens_high
    return "" if low is None or high is None else f"{usd(low)} to {usd(high)}"


def without_a_plan(found: Comparison, uncompared: Mapping[str, str]) -> Iterator[RenderableType]:
    """Yield the lists under which one request has no plan, and why."""
    rows = [
        (row.price_list, Text(row.error or row.reason or "nothing meets the request"))
        for row in found.rows
        if row.usd_per_million_output_tokens is None
    ]
    rows += [(name, Text(why)) for name, why in uncompared.items()]
    if rows:
        yield section("Price lists without a plan", pairs(rows))


def _planned(found: Comparison) -> list[ComparisonRow]:
    return [row for row in found.rows if row.usd_per_million_output_tokens is not None]


# --- the heat map ---


def shortened(name: str) -> str:
    """Return a name that leaves room for what stands beside it."""
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def ratio_of(row: ComparisonRow) -> float | None:
    """Return how many times the best cost a cell has; None where it has no plan."""
    return None if row.difference_percent is None else 1.0 + row.difference_percent / 100.0


def _heat_map(rows: Sequence[ComparisonRow], found: Comparison, columns_wide: int) -> RenderableType:
    names = [entry.price_list for entry in found.price_lists]
    longest = max(len(shortened(row.scenario)) for row in rows)
    room = (columns_wide - 4 - longest) // len(names) - 1
    widest = min(WIDEST, max(NARROWEST, *map(len, names)))
    table = Table(box=None, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("", no_wrap=True)
    numbered = room < widest  # names would not fit: numbers stand for them
    for number, name in enumerate(names, 1):
        heading = str(number) if numbered else name if len(name) <= WIDEST else f"{name[: WIDEST - 1]}…"
        table.add_column(heading, no_wrap=True, justify="right")
    bare = room < NARROWEST
    for start in range(0, len(rows), len(names)):
        line = rows[start : start + len(names)]
        table.add_row(shortened(line[0].scenario), *(_block(row, bare=bare) for row in line))
    return Group(table, *([_numbers(names)] if numbered else []), _legend())


def _block(row: ComparisonRow, *, bare: bool) -> Text:
    ratio = ratio_of(row)
    if ratio is None:
        return Text(NO_ANSWER if row.status is CellStatus.ERROR else INFEASIBLE, style="dim")
    _, block, colour = next(shade for shade in SHADES if ratio <= shade[0] * (1.0 + 1e-9))
    figure = f"{ratio:.2f}" if ratio < 9.995 else f"{ratio:.0f}"
    return Text(block if bare else f"{block}{figure}", style=colour)


def _numbers(names: Sequence[str]) -> Text:
    return Text(", ".join(f"{number} {name}" for number, name in enumerate(names, 1)), style="dim")


def _legend() -> Text:
    text = Text("times the best cost: ", style="dim")
    for limit, block, colour in SHADES:
        text.append(block, style=colour)
        said = "best" if limit == 1.0 else "more" if math.isinf(limit) else f"to {limit:g}"
        text.append(f" {said}  ", style="dim")
    text.append(f"{INFEASIBLE} infeasible  {NO_ANSWER} no answer", style="dim")
    return text


# --- what went wrong, and where figures come from ---


def _trouble(found: Comparison) -> Iterator[RenderableType]:
    reasons = Counter(row.reason for row in found.rows if row.status is CellStatus.INFEASIBLE)
    if reasons:
        yield section("What stands in the way where nothing is feasible", bullets(_most(reasons)))
    errors = Counter(row.error for row in found.rows if row.status is CellStatus.ERROR)
    if errors:
        yield section("Cells without an answer", bullets(_most(errors)))


def _most(reasons: Counter[str], most: int = 8) -> list[str]:
    lines = counted(reasons)
    return lines if len(lines) <= most else [*lines[:most], f"and {plural(len(lines) - most, 'other reason')}"]


def _ends(found: Comparison) -> list[str]:
    lines = [
        f"tokopt {found.tokopt_version}, catalog {found.catalog_version}",
        "each cell is the plan that tokopt plan makes of the same request; $/M out = USD per million output tokens",
        "differences are in cost per output token, or in output where throughput is the objective",
    ]
    if found.store is not None:
        lines.append(f"{found.solved:,} cells solved now, {found.kept:,} taken from {found.store}")
    rejected = {entry.price_list: entry.rejected_rows for entry in found.price_lists if entry.rejected_rows}
    if rejected:
        said = ", ".join(f"{name} {count:,}" for name, count in rejected.items())
        lines.append(f"price rows not used: {said}")
    return lines
