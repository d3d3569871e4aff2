"""Plans that people have edited: what no plan of tokopt has is refused before anything is worked out from it."""

from __future__ import annotations

import math
from collections.abc import Iterator

from tokopt.domain.demand import WorkloadClass
from tokopt.domain.deployments import ServingMode
from tokopt.domain.plans import FleetItem, ItemPeriod, Plan
from tokopt.errors import InputError

MOST_SLOTS = 1_000_000  # of a replica
LONGEST_ANSWER_MS = 1e9  # eleven days: no model writes that long, and a simulation takes as long as some answers


def class_of(plan: Plan, item: FleetItem) -> WorkloadClass:
    """Return the class that an item serves.

    Raises:
        InputError: The plan has no such class.
    """
    asked = plan.request.class_named(item.of_class)
    if asked is None:
        names = ", ".join(each.name for each in plan.request.served_classes())
        raise InputError(f"it serves {item.of_class!r}, which is not one of {names}")
    return asked


def require_sound(plan: Plan) -> None:
    """Refuse a plan with an item that no plan of tokopt has.

    Raises:
        InputError: In one line: the item, what is wrong with it, and what is allowed.
    """
    for number, item in enumerate(plan.fleet, start=1):
        try:
            class_of(plan, item)
            fault = next(_faults(plan, item), "")
        except InputError as error:
            fault = str(error)
        if fault:
            raise InputError(f"fleet item {number}: {fault}")


def _faults(plan: Plan, item: FleetItem) -> Iterator[str]:
    """Yield what is wrong with an item."""
    yield from _too_few({"replicas": item.replicas, "units": item.units}, least=1)
    yield from _not_counts({"requests_per_s": item.requests_per_s, "usd_per_hour": item.usd_per_hour})
    for what, value in {"e2e_ms.mean": item.e2e_ms.mean, "e2e_ms.p99": item.e2e_ms.p99}.items():
        if not 0.0 < value <= LONGEST_ANSWER_MS:
            yield f"{what} {value:g} is not above 0 and at most {LONGEST_ANSWER_MS:g}"
    if not 1 <= item.concurrency_per_replica <= MOST_SLOTS:
        yield f"a running cap of {item.concurrency_per_replica:,} is not from 1 to {MOST_SLOTS:,}"
    deployment = item.deployment
    if deployment.mode is ServingMode.AGG and deployment.layout is None:
        yield "deployment.layout is missing, which a replica with one pool has"
    if deployment.mode is ServingMode.DISAGG and (deployment.prefill is None or deployment.decode is None):
        yield "deployment.prefill or deployment.decode is missing; a replica with separate pools has both"
    yield from _faults_of_periods(plan, item)


def _faults_of_periods(plan: Plan, item: FleetItem) -> Iterator[str]:
    periods = plan.request.periods
    if len(item.by_period) != len(periods):
        yield f"by_period has {len(item.by_period)} elements, but the plan has {len(periods)} periods"
    for number, each in enumerate(item.by_period):
        yield from (f"by_period[{number}].{fault}" for fault in _faults_of_period(each))
    if item.by_period and not any(each.units for each in item.by_period):
        yield "by_period has no units in any period; it runs at least 1 in one of them"


def _faults_of_period(each: ItemPeriod) -> Iterator[str]:
    yield from _too_few({"units": each.units}, least=0)
    yield from _not_counts(
        {"requests_per_s": each.requests_per_s, "load": each.load, "usd_per_hour": each.usd_per_hour}
    )


def _too_few(counts: dict[str, int], *, least: int) -> Iterator[str]:
    yield from (f"{what} {value:,} cannot be: at least {least} can" for what, value in counts.items() if value < least)


def _not_counts(figures: dict[str, float]) -> Iterator[str]:
    """Yield which figures are not numbers from 0."""
    for what, value in figures.items():
        if not 0.0 <= value < math.inf:
            yield f"{what} {value:g} cannot be: a number from 0 can"
