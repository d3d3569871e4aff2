"""Comparisons of price lists over scenarios: one answer a cell, and who wins."""

from __future__ import annotations

from enum import StrEnum, unique

from tokopt.domain.estimates import Record


@unique
class CellStatus(StrEnum):
    """What is known of one scenario under one price list."""

    OPTIMAL = "optimal"
    FEASIBLE = "feasible"
    INFEASIBLE = "infeasible"
    ERROR = "error"  # no answer: the row says why


class CellAnswer(Record):
    """The headline figures and the winner of one plan."""

    scenario: str
    price_list: str
    status: CellStatus
    gap: float | None = None
    usd_per_million_output_tokens: float | None = None
    usd_per_million_output_tokens_low: float | None = None  # ends of the 80 % range
    usd_per_million_output_tokens_high: float | None = None
    usd_per_million_total_tokens: float | None = None
    usd_per_hour: float | None = None
    output_tokens_per_s: float | None = None
    total_tokens_per_s: float | None = None
    power_kw: float | None = None
    tokens_per_s_per_mw: float | None = None
    model: str = ""
    workload: str = ""
    # of the item of the fleet that serves most
    accelerator: str = ""
    provider: str = ""
    region: str = ""
    market: str = ""
    instance_type: str = ""
    framework: str = ""
    precision: str = ""
    mode: str = ""
    gpus: int | None = None  # of the whole fleet
    kinds: int | None = None  # items of the fleet
    reason: str = ""  # what stands in the way where nothing is feasible
    error: str = ""
    defect: bool = False  # the error is tokopt's own, or of the machine: a second run tries again


class ComparisonRow(CellAnswer):
    """An answer beside the others of its scenario."""

    best: bool = False
    difference_percent: float | None = None  # how much worse than the scenario's best price list, in the objective


class ScenarioWinner(Record):
    """The best price list of a scenario."""

    scenario: str
    objective: str  # cost or throughput
    price_list: str | None  # None: nothing is feasible under any
    ties: tuple[str, ...]  # lists that come to the same; the winner is the one that was named first
    usd_per_million_output_tokens: float | None
    usd_per_hour: float | None
    accelerator: str
    second: str | None  # the best list that is worse
    second_difference_percent: float | None
    reason: str  # what stands in the way where nothing is feasible


class PriceListWins(Record):
    """How one price list does over all scenarios."""

    price_list: str
    wins: int  # a tie counts for the list that was named first
    feasible: int
    infeasible: int
    errors: int
    mean_difference_percent: float | None  # over scenarios that it can serve
    offers: int
    rejected_rows: int
    as_of: str


class Comparison(Record):
    """Scenarios under price lists: a row a cell, the winners, and where the figures come from."""

    rows: tuple[ComparisonRow, ...]  # by scenario, then by price list, in the order in which they were named
    winners: tuple[ScenarioWinner, ...]
    price_lists: tuple[PriceListWins, ...]
    cells: int
    solved: int  # in this run
    kept: int  # taken from the store
    store: str | None
    tokopt_version: str
    catalog_version: str

    @property
    def feasible(self) -> bool:
        """Whether any cell has a plan."""
        return any(row.status in (CellStatus.OPTIMAL, CellStatus.FEASIBLE) for row in self.rows)
