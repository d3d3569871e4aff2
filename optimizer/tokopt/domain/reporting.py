"""What a planner puts before a board: a plan with what explains it, what it is compared with, and how sure it is."""

from __future__ import annotations

from enum import StrEnum, unique

from pydantic import Field

from tokopt.domain.comparing import Comparison
from tokopt.domain.comparisons import Frontier
from tokopt.domain.deployments import Deployment
from tokopt.domain.estimates import Interval, Record
from tokopt.domain.explaining import Explanation
from tokopt.domain.ownership import OwnershipBreakdown
from tokopt.domain.plans import Plan


@unique
class ReportPart(StrEnum):
    """What a report has beyond the plan itself; each can be left out."""

    FRONTIER = "frontier"
    COST = "cost"
    POWER = "power"
    EXPLANATION = "explanation"
    PRICE_LISTS = "price_lists"


@unique
class Certainty(StrEnum):
    """How sure a headline figure is."""

    PREDICTED = "predicted"  # with an 80 % range
    GIVEN = "given"  # the request asks for it
    FOLLOWS = "follows"  # from what is bought, its prices and its planning figures: no prediction is in it
    NO_RANGE = "no_range"  # predicted, and no range is known


class HeadlineFigure(Record):
    """A headline figure of a plan with its 80 % range."""

    name: str  # field of the plan
    value: float
    certainty: Certainty
    interval: Interval | None


class PlanPoint(Record):
    """Where an item of a plan lies on the axes of a frontier."""

    item: int  # place in the fleet, from 1
    accelerator: str
    deployment: Deployment
    replicas: int
    gpus: int
    tokens_per_s_per_user: float  # at the mean time per output token
    output_tokens_per_s_per_gpu: float
    usd_per_million_output_tokens: float


class PlannedFrontier(Record):
    """The frontier of what a class of requests asks for, and the items that serve it."""

    of_class: str
    frontier: Frontier
    points: tuple[PlanPoint, ...]


@unique
class CostBasis(StrEnum):
    """What is known of a price."""

    COMPONENTS = "components"  # computed from its parts
    PUBLISHED = "published"  # of owning, as one figure
    RENTAL = "rental"


class CostLine(Record):
    """What one offer in the fleet costs, by part."""

    item: int  # place in the fleet, from 1
    accelerator: str
    pool: str  # as in the item's parts
    provider: str
    market: str
    region: str
    instance_type: str
    gpus: int
    usd_per_gpu_hour: float
    usd_per_hour: float
    basis: CostBasis
    parts: dict[str, float]  # USD an hour; they add up to `usd_per_hour`


class CostBreakdown(Record):
    """The cost of a fleet by part, and where a price is one published figure, what its parts come to elsewhere."""

    lines: tuple[CostLine, ...]
    usd_per_hour: float
    parts: dict[str, float]  # of all lines
    reference: OwnershipBreakdown | None  # a component profile's hours of the same accelerators
    notes: tuple[str, ...]


class PowerPart(Record):
    """A part of a fleet's power, in the order from the boards to the limit."""

    name: str
    kw: float


class PowerPerAccelerator(Record):
    """Planning figures of one accelerator of the fleet; None = not known. [W]"""

    accelerator: str
    gpus: int
    board_w: float | None
    server_w: float | None
    all_in_w: float | None


class PowerBreakdown(Record):
    """A fleet's power, from the boards to the limit."""

    parts: tuple[PowerPart, ...]  # they add up to `counted_kw`
    counted_kw: float
    limit_kw: float | None
    accelerators: tuple[PowerPerAccelerator, ...]
    notes: tuple[str, ...]


class SourceTitle(Record):
    """What a source key of the catalog stands for."""

    title: str
    publisher: str
    retrieved_on: str
    locator: str


class BoardReport(Record):
    """A plan, and everything that is shown beside it."""

    plan: Plan
    titles: dict[str, str]  # accelerators and models by their names -> as people call them
    headline: tuple[HeadlineFigure, ...]  # none where the plan is infeasible
    frontiers: tuple[PlannedFrontier, ...] = ()
    cost: CostBreakdown | None = None
    power: PowerBreakdown | None = None
    explanation: Explanation | None = None
    comparison: Comparison | None = None
    by_accelerator: Comparison | None = None  # the same lists, one scenario an accelerator that wins under any of them
    uncompared: dict[str, str] = Field(default_factory=dict)  # price list -> why it is not in the comparison
    sources: dict[str, SourceTitle]  # by the key that the provenance names
    left_out: dict[ReportPart, str]  # part -> why there is none
