"""What a page shows of plans: one with its figures in words, two with their differences, and what may be asked."""

from __future__ import annotations

from tokopt.domain.comparisons import Frontier
from tokopt.domain.estimates import Interval, Record
from tokopt.domain.plans import Plan
from tokopt.domain.reporting import Certainty, PlanPoint


class ShownFigure(Record):
    """A headline figure, as a number and as people read it."""

    name: str  # field of the plan
    title: str
    value: float
    text: str
    certainty: Certainty
    interval: Interval | None  # 80 % range
    range_text: str  # the range, or why there is none


class PlanView(Record):
    """A plan, and what a page says about it."""

    plan: Plan
    sentence: str
    headline: tuple[ShownFigure, ...]  # none where the plan is infeasible
    setups: tuple[str, ...]  # of the fleet's items, each in one line
    worth: tuple[tuple[str, str], ...]  # one more unit of a limit, and what it would bring
    points: tuple[PlanPoint, ...]  # of the items that can be placed on a frontier
    titles: dict[str, str]  # accelerators and models by their names -> as people call them


class FrontierView(Record):
    """A frontier, and its set-ups in words."""

    frontier: Frontier
    setups: tuple[str, ...]  # of its points, each in one line
    titles: dict[str, str]  # accelerators by their names -> as people call them


class FigureDifference(Record):
    """A headline figure of two plans."""

    name: str
    title: str
    first: float | None  # None = that plan does not state it
    second: float | None
    first_text: str
    second_text: str
    change_percent: float | None  # of the second against the first


class MachineDifference(Record):
    """How many accelerators of a kind two plans have on the same terms."""

    accelerator: str
    title: str
    provider: str
    market: str
    first_gpus: int
    second_gpus: int


class AskedDifference(Record):
    """A field of two requests that is not the same."""

    field: str
    first: str
    second: str


class PlansCompared(Record):
    """Two plans side by side."""

    first: PlanView
    second: PlanView
    figures: tuple[FigureDifference, ...]
    machines: tuple[MachineDifference, ...]
    asked: tuple[AskedDifference, ...]  # empty = both answer the same request


class Choice(Record):
    """Something that can be chosen by name."""

    name: str
    title: str
    summary: str = ""


class Choices(Record):
    """What the catalog offers to a question, and what is taken where it says nothing."""

    models: tuple[Choice, ...]
    workloads: tuple[Choice, ...]
    accelerators: tuple[Choice, ...]
    price_lists: tuple[Choice, ...]
    objectives: tuple[Choice, ...]
    precisions: tuple[Choice, ...]
    frameworks: tuple[Choice, ...]
    statistics: tuple[str, ...]
    exports: tuple[str, ...]
    default_model: str
    default_workload: str
    default_prices: str
    tokopt_version: str
    catalog_version: str


class UploadCheck(Record):
    """What an uploaded file holds."""

    kind: str  # prices or model
    summary: str
    notes: tuple[str, ...] = ()  # what of it is not used, and why
