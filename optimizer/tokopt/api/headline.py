"""The headline figures of a plan, each with its 80 % range, or with why it has none."""

from __future__ import annotations

from tokopt.domain.estimates import Interval
from tokopt.domain.plans import Plan, PowerMode, Status
from tokopt.domain.reporting import Certainty, HeadlineFigure

FIGURES = (
    "usd_per_million_output_tokens",
    "usd_per_million_total_tokens",
    "usd_per_hour",
    "profit_usd_per_hour",
    "output_tokens_per_s",
    "total_tokens_per_s",
    "requests_per_s",
    "power_kw",
    "tokens_per_s_per_mw",
    "carbon_kg_per_hour",
)
SERVED = ("output_tokens_per_s", "total_tokens_per_s", "requests_per_s")
FLAT = 1.0001  # ratio of the ends of a range up to which it is none


def headline_of(plan: Plan) -> tuple[HeadlineFigure, ...]:
    """Return the figures that a plan states; none where it is infeasible.

    A plan that fills its limits buys what it buys: what it serves lies in the range of its throughput. One for a given
    demand serves that, and the fleet, its cost and its power lie in the range instead.
    """
    if plan.status is Status.INFEASIBLE:
        return ()
    found = []
    for name in FIGURES:
        value = getattr(plan, name)
        if value is not None:
            certainty, interval = _sure(plan, name, value)
            found.append(HeadlineFigure(name=name, value=value, certainty=certainty, interval=interval))
    return tuple(found)


def _sure(plan: Plan, name: str, value: float) -> tuple[Certainty, Interval | None]:
    stated, output, usd = (plan.interval.get(key) for key in (name, "output_tokens_per_s", "usd_per_hour"))
    filling = output is not None
    if stated is not None and stated.high > stated.low * FLAT:
        return Certainty.PREDICTED, stated
    if name in SERVED:
        if output is None or not plan.output_tokens_per_s:
            return Certainty.GIVEN, None
        return Certainty.PREDICTED, _times(value / plan.output_tokens_per_s, output)
    if name == "usd_per_hour":
        return Certainty.FOLLOWS, None
    if name == "profit_usd_per_hour":
        return _profit(plan, value, output, usd)
    if name == "power_kw" and plan.power_mode is not PowerMode.DRAWN:
        if filling or usd is None or not plan.usd_per_hour:
            return Certainty.FOLLOWS, None
        return Certainty.PREDICTED, _times(value / plan.usd_per_hour, usd)
    return Certainty.NO_RANGE, None


def _times(ratio: float, interval: Interval) -> Interval:
    return Interval(low=interval.low * ratio, high=interval.high * ratio)


def _profit(
    plan: Plan, value: float, output: Interval | None, usd: Interval | None
) -> tuple[Certainty, Interval | None]:
    """Return the range of the profit: earnings in that of the output, or costs in theirs."""
    cost = plan.usd_per_hour or 0.0
    earned = value + cost
    if output is not None and plan.output_tokens_per_s:
        each = earned / plan.output_tokens_per_s
        return Certainty.PREDICTED, Interval(low=output.low * each - cost, high=output.high * each - cost)
    if usd is not None:
        return Certainty.PREDICTED, Interval(low=earned - usd.high, high=earned - usd.low)
    return Certainty.NO_RANGE, None
