"""The fleet program's data and its answer.

Notation, the same in formulation and docs: columns j, request classes k; integer blocks n_j (a block is the smallest
number of whole units that holds whole replicas); request rates x_jk.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, unique


@unique
class Goal(Enum):
    """What the program makes best."""

    COST = "cost"  # least USD/h that meets the demand
    COST_PER_TOKEN = "cost_per_token"  # least USD per million tokens while filling the limits
    THROUGHPUT = "throughput"  # most requests of the given mix within the limits
    POWER = "power"  # least power that meets the demand


@unique
class Stop(Enum):
    """Why the solver stopped."""

    OPTIMAL = "optimal"
    TIME_LIMIT = "time_limit"
    INFEASIBLE = "infeasible"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A replica set-up on an offer, in blocks of whole units."""

    name: str
    accelerator: str
    offer: str  # columns of one offer share its stock
    accelerators_per_block: int
    replicas_per_block: int
    units_per_block: int
    usd_per_hour: float  # of a block
    power_w: float  # of a block; NaN if not known
    requests_per_s: tuple[float, ...]  # of a block, by request class; 0 = cannot serve the class within its limits


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetProblem:
    """Columns, what is asked of them, and limits. `demand` is a mix where the goal scales it."""

    columns: tuple[Column, ...]
    demand: tuple[float, ...]  # requests/s by class
    tokens_per_request: tuple[float, ...]  # output tokens by class
    goal: Goal
    power_w: float | None = None
    budget_usd_per_hour: float | None = None
    offer_units: Mapping[str, int] = field(default_factory=dict)  # offer -> units in stock
    accelerator_stock: Mapping[str, int] = field(default_factory=dict)  # accelerator -> accelerators to be had
    most_accelerator_types: int | None = None
    time_limit_s: float = 60.0
    gap_target: float = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowPrices:
    """What one more unit of each scarce thing changes the linear relaxation's objective by."""

    power_per_w: float
    demand: tuple[float, ...]
    budget_per_usd: float
    offers: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSolution:
    """Blocks and rates, the objective and its proven bound."""

    stop: Stop
    blocks: tuple[int, ...]
    rates: tuple[tuple[float, ...], ...]  # requests/s by column and class
    objective: float  # USD/h, USD per million tokens, requests/s of the mix, or W
    bound: float
    gap: float  # |objective - bound| / |objective|
    solver: str
    shadow_prices: ShadowPrices | None = None

    @property
    def feasible(self) -> bool:
        """Whether there is a fleet at all."""
        return self.stop is not Stop.INFEASIBLE and any(self.blocks)
