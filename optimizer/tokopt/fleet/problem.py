"""The fleet program's data and its answer.

Notation, the same in formulation and docs: columns j, request classes k, periods t of h_t hours; integer blocks n_jt (a
block is the smallest number of whole units that holds whole replicas); request rates x_jkt.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, unique


@unique
class Goal(Enum):
    """What the program makes best."""

    COST = "cost"  # least USD/h that meets the demand
    COST_PER_TOKEN = "cost_per_token"  # least USD per million tokens while filling the limits
    THROUGHPUT = "throughput"  # largest multiple of the given mix within the limits
    POWER = "power"  # least power that meets the demand, in the period that needs most
    PROFIT = "profit"  # most USD/h of requests' revenue less cost; the demand is the most that can be sold
    CARBON = "carbon"  # least g/h of carbon dioxide that meets the demand, mean over the horizon


@unique
class Stop(Enum):
    """Why the solver stopped."""

    OPTIMAL = "optimal"
    TIME_LIMIT = "time_limit"
    INFEASIBLE = "infeasible"


@unique
class Survive(Enum):
    """What may fail while everything is still served, once the load is split anew."""

    NONE = "none"
    NODE = "node"  # any one block in use
    ZONE = "zone"  # all blocks of any one zone


@unique
class Counted(Enum):
    """What a cap counts."""

    UNITS = "units"
    ACCELERATORS = "accelerators"
    USD_PER_HOUR = "usd_per_hour"
    POWER_W = "power_w"


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """A part of the horizon with a demand and prices of its own, such as an hour of the day or a quarter."""

    name: str
    hours: float = 1.0  # of the horizon that it stands for: its weight in every mean


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Units of one offer in a block: what counts against the offer's stock and as its accelerators."""

    accelerator: str
    offer: str
    units: int
    accelerators: int
    usd_per_hour: float
    power_w: float  # NaN if not known
    usd_per_hour_by_period: tuple[float, ...] = ()  # empty = `usd_per_hour` always


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A replica set-up on an offer, in blocks of whole units; or on several, whose units a block then buys together."""

    name: str
    accelerator: str  # of the first part, where there are several
    offer: str  # columns of one offer share its stock; of the first part, where there are several
    accelerators_per_block: int  # of all parts
    replicas_per_block: int
    units_per_block: int  # of all parts
    usd_per_hour: float  # of a block
    power_w: float  # of a block; NaN if not known
    requests_per_s: tuple[float, ...]  # of a block, by request class; 0 = cannot serve the class within its limits
    provider: str = ""
    region: str = ""
    site: str = ""  # whose power limit it counts against
    zone: str = ""  # what fails together, such as provider/region/zone
    spot: bool = False  # may be taken away: counts for the spot share and keeps the reserve idle
    flexible: bool = False  # blocks may differ by period (on demand, spot); else one number for the whole horizon
    first_period: int = 0  # position of the period from which it can be had; nothing is paid before
    usd_per_hour_by_period: tuple[float, ...] = ()  # of a block; empty = `usd_per_hour` always
    carbon_g_per_hour: float = math.nan  # of a block; NaN if not known
    carbon_g_per_hour_by_period: tuple[float, ...] = ()  # empty = `carbon_g_per_hour` always
    current_blocks: int = 0  # of today's fleet
    least_blocks: int = 0  # from `first_period` on: owned or committed to already
    most_blocks: int | None = None
    parts: tuple[Part, ...] = ()  # of different offers at one place, in every block; empty = all is of one offer

    @property
    def held(self) -> tuple[Part, ...]:
        """What a block buys, offer by offer."""
        return self.parts or (
            Part(
                accelerator=self.accelerator,
                offer=self.offer,
                units=self.units_per_block,
                accelerators=self.accelerators_per_block,
                usd_per_hour=self.usd_per_hour,
                power_w=self.power_w,
                usd_per_hour_by_period=self.usd_per_hour_by_period,
            ),
        )

    @property
    def kinds(self) -> tuple[str, ...]:
        """The accelerators that a block has of."""
        return tuple(dict.fromkeys(part.accelerator for part in self.parts)) or (self.accelerator,)

    def units_of(self, offer: str) -> int:
        """Return the units of an offer in a block."""
        if not self.parts:
            return self.units_per_block if offer == self.offer else 0
        return sum(part.units for part in self.parts if part.offer == offer)

    def accelerators_of(self, accelerator: str) -> int:
        """Return the accelerators of one kind in a block."""
        if not self.parts:
            return self.accelerators_per_block if accelerator == self.accelerator else 0
        return sum(part.accelerators for part in self.parts if part.accelerator == accelerator)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cap:
    """A limit on what is bought in each period of the columns that match every selector that is not empty.

    Of blocks of several parts, those parts count that match.
    """

    name: str
    most: float = math.inf
    least: float = 0.0
    counted: Counted = Counted.ACCELERATORS
    accelerator: str = ""
    offer: str = ""
    provider: str = ""
    region: str = ""
    site: str = ""
    zone: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetProblem:
    """Columns, what is asked of them, and limits. `demand` is a mix where the goal scales it.

    Limits on power, stock and spot share hold in every period; budget and carbon are means over the horizon; the limit
    on types counts each accelerator that is used in any period.
    """

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
    periods: tuple[Period, ...] = (Period(name="all"),)
    demand_by_period: tuple[tuple[float, ...], ...] = ()  # periods x classes; empty = `demand` in each
    usd_per_request: tuple[float, ...] = ()  # what a request of a class earns
    site_power_w: Mapping[str, float] = field(default_factory=dict)  # site -> its power limit
    caps: tuple[Cap, ...] = ()  # inventories and quotas of providers, regions, sites; minimum commitments
    most_spot_share: float | None = None  # of each class's requests in each period
    spot_reserve: float = 0.0  # share of spot capacity that stays idle, since it may be taken away
    survive: Survive = Survive.NONE
    carbon_g_per_hour: float | None = None  # limit on the mean over the horizon
    change_usd_per_accelerator_hour: float = 0.0  # on accelerators of |blocks - current blocks|; reported apart
    then: tuple[Goal, ...] = ()  # made best in turn among fleets that are within the tolerance in all goals before
    then_tolerance: float = 0.0  # relative: what may be given up of each goal for those that follow


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowPrices:
    """What one more unit of each scarce thing changes the linear relaxation's objective by.

    A unit of power, demand or stock is one in every period. All are zero where the thing is not scarce.
    """

    power_per_w: float
    demand: tuple[float, ...]  # by class
    budget_per_usd: float
    offers: Mapping[str, float]  # "offer[name]", "stock[accelerator]", "cap[name]"
    site_power_per_w: Mapping[str, float] = field(default_factory=dict)
    demand_by_period: tuple[tuple[float, ...], ...] = ()  # periods x classes
    power_per_w_by_period: tuple[float, ...] = ()
    spot_share: float = 0.0  # one more unit of share, 0 to 1
    carbon_per_g: float = 0.0  # one more g/h


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """A limit that leaves no room for one more of the smallest block in use that counts against it."""

    name: str  # "power", "power[site]", "budget", "offer[...]", "stock[...]", "cap[...]", "types", "spot[class]", ...
    period: str  # name of the period; empty where it holds over the horizon
    used: float
    limit: float
    slack: float


@dataclass(frozen=True, slots=True)
class GoalValue:
    """What was reached of one goal, with its proven bound over the fleets that the goals before it leave."""

    goal: Goal
    value: float
    bound: float
    gap: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakEven:
    """The price at which an accelerator that is not in the plan would enter it."""

    usd_per_accelerator_hour: float  # mean over the horizon
    exact: bool  # of the program in whole blocks; else of its linear relaxation
    column: str  # name of the column that would enter; of several the one with most blocks


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSolution:
    """Blocks and rates, the objective and its proven bound."""

    stop: Stop
    blocks: tuple[int, ...]  # the most of any period
    rates: tuple[tuple[float, ...], ...]  # requests/s by column and class, mean over the horizon
    objective: float  # USD/h, USD per million tokens, multiple of the mix, W, or g/h
    bound: float
    gap: float  # |objective - bound| / |objective|
    solver: str
    shadow_prices: ShadowPrices | None = None
    blocks_by_period: tuple[tuple[int, ...], ...] = ()  # periods x columns
    rates_by_period: tuple[tuple[tuple[float, ...], ...], ...] = ()  # periods x columns x classes
    goals: tuple[GoalValue, ...] = ()  # the goal and those of `then`
    usd_per_hour: float = 0.0  # mean over the horizon, without the penalty on changes
    revenue_usd_per_hour: float = 0.0
    change_usd_per_hour: float = 0.0  # the penalty on changes from today's fleet
    changed_blocks: float = 0.0  # mean over the horizon
    power_w: float = 0.0  # of the period that needs most; columns of unknown power left out
    carbon_g_per_hour: float = math.nan  # mean over the horizon; NaN where a used column's is not known
    binding: tuple[Binding, ...] = ()
    detail: str = ""  # how the bound was proven, and what stopped the solver

    @property
    def feasible(self) -> bool:
        """Whether there is a fleet at all."""
        return self.stop is not Stop.INFEASIBLE and any(self.blocks)
