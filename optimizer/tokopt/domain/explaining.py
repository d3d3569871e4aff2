"""Why a plan costs what it does: what each factor contributes, and what would change the answer."""

from __future__ import annotations

from typing import Final

from tokopt.domain.estimates import Interval, Record

USD: Final = "usd_per_million_output_tokens"
PER_MW: Final = "tokens_per_s_per_mw"


class Step(Record):
    """What a factor contributes to one figure: a bar of the waterfall from the baseline to the plan."""

    share: float  # Shapley value, in the figure's unit; baseline + shares = plan
    times: float | None  # the same as a ratio: Shapley value of the logarithm; None = something costs nothing at all
    before: float  # where the bar begins: the baseline and the factors before it
    after: float  # where it ends


class Figures(Record):
    """The two figures that are explained."""

    usd_per_million_output_tokens: float
    tokens_per_s_per_mw: float | None  # None = the power of an accelerator is not known


class Factor(Record):
    """One thing that the plan has and the baseline does not."""

    name: str
    title: str
    parts: tuple[str, ...] = ()  # factors that it stands for, where several were taken together
    baseline: str  # what the baseline has in its place
    plan: str  # what the plan has
    usd_per_million_output_tokens: Step
    tokens_per_s_per_mw: Step | None
    added_alone: Figures | None  # the baseline with this alone; None = nothing meets the request like that
    left_out: Figures | None  # the plan without this alone


class Baseline(Record):
    """The plain set-up that the plan is compared with: solved for the same request."""

    accelerator: str
    title: str
    why: str  # how it was chosen
    fleet: str
    usd_per_million_output_tokens: float
    tokens_per_s_per_mw: float | None
    interval: dict[str, Interval]  # 80 % range by figure; the errors of set-ups that are alike go the same way


class ExplainedPlan(Record):
    """The plan, as its file states it."""

    model: str
    workload: str
    fleet: str
    usd_per_million_output_tokens: float
    tokens_per_s_per_mw: float | None
    interval: dict[str, Interval]  # 80 % range by figure, as the plan states it


class WhatIfCase(Record):
    """The plan of the same request with one thing changed."""

    change: str  # `off`, `forbidden`, `-20 %` …
    usd_per_million_output_tokens: float | None  # None = infeasible
    tokens_per_s_per_mw: float | None
    usd_difference: float | None  # to the plan, per million output tokens
    tokens_per_s_per_mw_difference: float | None
    relative_difference: float | None  # of the cost; 0.1 = 10 % dearer
    fleet: str  # what it becomes, in a few words
    interval: dict[str, Interval]  # 80 % range by figure
    infeasible: str = ""  # why there is no plan


class WhatIf(Record):
    """One thing that is changed, one way or both ways."""

    name: str
    title: str
    cases: tuple[WhatIfCase, ...]
    spread_usd: float | None  # from the lowest to the highest cost, the plan's included; None = a case is infeasible


class ExplanationProvenance(Record):
    """What the explanation was made with, and the plan before it."""

    tokopt_version: str
    catalog_version: str
    calibration: str
    plan_tokopt_version: str
    plan_catalog_version: str
    plan_calibration: str


class Explanation(Record):
    """A waterfall from a plain baseline to the plan, and a tornado of what would change the answer."""

    baseline: Baseline
    plan: ExplainedPlan
    factors: tuple[Factor, ...]  # the largest saving first, in the order of the bars
    what_if: tuple[WhatIf, ...]  # the widest spread first
    coalitions: int  # sets of factors that were solved
    infeasible_coalitions: int  # of them; each counts as the dearest with one factor fewer
    unproven: int  # plans among all that were solved, whose search was cut short
    warnings: tuple[str, ...]
    assumptions: tuple[str, ...]
    provenance: ExplanationProvenance
