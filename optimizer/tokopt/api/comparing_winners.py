"""Which price list is best in each scenario, and by how much."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tokopt.domain.comparing import CellAnswer, CellStatus, ComparisonRow, PriceListWins, ScenarioWinner
from tokopt.domain.plans import Objective

from .comparing_scenarios import PriceGroup, Scenario

SOLVED = (CellStatus.OPTIMAL, CellStatus.FEASIBLE)
SAME = 1e-9  # relative difference below which two lists are a tie


def rows_of(scenarios: Sequence[Scenario], answers: Sequence[CellAnswer]) -> tuple[ComparisonRow, ...]:
    """Return answers, those of one scenario after those of the one before, with their difference to the best."""
    return tuple(
        row
        for scenario, cells in _by_scenario(scenarios, answers)
        for row in _compared(scenario.request.objective, cells)
    )


def _by_scenario(
    scenarios: Sequence[Scenario], answers: Sequence[CellAnswer]
) -> Iterator[tuple[Scenario, Sequence[CellAnswer]]]:
    each = len(answers) // len(scenarios)
    for number, scenario in enumerate(scenarios):
        yield scenario, answers[number * each : (number + 1) * each]


def _compared(objective: Objective, cells: Sequence[CellAnswer]) -> Iterator[ComparisonRow]:
    costs = [cost_of(objective, cell) for cell in cells]
    known = [cost for cost in costs if cost is not None]
    least = min(known, default=0.0)
    first = next((n for n, cost in enumerate(costs) if cost is not None and cost <= least * (1.0 + SAME)), None)
    for number, (cell, cost) in enumerate(zip(cells, costs, strict=True)):
        worse = None if cost is None else (cost / least - 1.0) * 100.0
        if worse is not None and worse <= SAME * 100.0:
            worse = 0.0
        yield ComparisonRow(**cell.model_dump(), best=number == first, difference_percent=worse)


def cost_of(objective: Objective, cell: CellAnswer) -> float | None:
    """Return what is to be small: USD per million output tokens, or seconds a token where throughput is the goal.

    At one demand the cost per token orders plans as the cost per hour does.
    """
    if cell.status not in SOLVED:
        return None
    if objective is Objective.THROUGHPUT:
        return 1.0 / cell.output_tokens_per_s if cell.output_tokens_per_s else None
    return cell.usd_per_million_output_tokens


def winners_of(scenarios: Sequence[Scenario], rows: Sequence[ComparisonRow]) -> tuple[ScenarioWinner, ...]:
    """Return the best price list of each scenario."""
    return tuple(_winner(scenario, cells) for scenario, cells in _rows_by_scenario(scenarios, rows))


def _rows_by_scenario(
    scenarios: Sequence[Scenario], rows: Sequence[ComparisonRow]
) -> Iterator[tuple[Scenario, Sequence[ComparisonRow]]]:
    each = len(rows) // len(scenarios)
    for number, scenario in enumerate(scenarios):
        yield scenario, rows[number * each : (number + 1) * each]


def _winner(scenario: Scenario, rows: Sequence[ComparisonRow]) -> ScenarioWinner:
    best = next((row for row in rows if row.best), None)
    behind = sorted((row for row in rows if row.difference_percent), key=lambda row: row.difference_percent or 0.0)
    second = behind[0] if behind else None
    standing = next((row.reason or row.error for row in rows if row.reason or row.error), "")
    return ScenarioWinner(
        scenario=scenario.name,
        objective=scenario.request.objective.value,
        price_list=best.price_list if best else None,
        ties=tuple(row.price_list for row in rows if row.difference_percent == 0.0 and not row.best),
        usd_per_million_output_tokens=best.usd_per_million_output_tokens if best else None,
        usd_per_hour=best.usd_per_hour if best else None,
        accelerator=best.accelerator if best else "",
        second=second.price_list if second else None,
        second_difference_percent=second.difference_percent if second else None,
        reason="" if best else standing,
    )


def wins_of(groups: Sequence[PriceGroup], rows: Sequence[ComparisonRow]) -> tuple[PriceListWins, ...]:
    """Return how each price list does over all scenarios."""
    return tuple(_wins(group, rows[place :: len(groups)]) for place, group in enumerate(groups))


def _wins(group: PriceGroup, rows: Sequence[ComparisonRow]) -> PriceListWins:
    differences = [row.difference_percent for row in rows if row.difference_percent is not None]
    return PriceListWins(
        price_list=group.name,
        wins=sum(row.best for row in rows),
        feasible=sum(row.status in SOLVED for row in rows),
        infeasible=sum(row.status is CellStatus.INFEASIBLE for row in rows),
        errors=sum(row.status is CellStatus.ERROR for row in rows),
        mean_difference_percent=sum(differences) / len(differences) if differences else None,
        offers=len(group.prices.offers),
        rejected_rows=len(group.prices.rejected),
        as_of=group.prices.as_of,
    )
