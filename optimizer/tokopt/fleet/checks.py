"""What a problem must be for its answer to mean something; each error is one line."""

from __future__ import annotations

import math
from collections.abc import Iterator

from tokopt.errors import InputError
from tokopt.fleet.problem import Column, FleetProblem, Goal, Survive


def check(problem: FleetProblem) -> None:
    """Raise what is wrong with a problem.

    Raises:
        InputError: Sizes that do not fit, values out of range, or limits on what columns do not say.
    """
    for fault in (*_horizon(problem), *_limits(problem), *_goals(problem)):
        raise InputError(fault)
    for column in problem.columns:
        for fault in _column(problem, column):
            raise InputError(f"column {column.name}: {fault}")


def _horizon(problem: FleetProblem) -> Iterator[str]:
    classes, periods = len(problem.demand), len(problem.periods)
    if not periods:
        yield "the fleet program needs one period at least"
    for period in problem.periods:
        if not (math.isfinite(period.hours) and period.hours > 0):
            yield f"period {period.name}: hours must be positive, not {period.hours:g}"
    if problem.demand_by_period and len(problem.demand_by_period) != periods:
        yield f"demand_by_period has {len(problem.demand_by_period)} rows for {periods} periods"
    for row in (problem.demand, *problem.demand_by_period):
        if len(row) != classes:
            yield f"a period's demand has {len(row)} classes where there are {classes}"
        if not all(math.isfinite(d) and d >= 0 for d in row):
            yield "demand must be zero or more requests/s in each class"
    if len(problem.tokens_per_request) != classes:
        yield f"tokens_per_request has {len(problem.tokens_per_request)} classes where demand has {classes}"
    if problem.usd_per_request and len(problem.usd_per_request) != classes:
        yield f"usd_per_request has {len(problem.usd_per_request)} classes where demand has {classes}"


def _limits(problem: FleetProblem) -> Iterator[str]:
    share, reserve = problem.most_spot_share, problem.spot_reserve
    if share is not None and not 0.0 <= share <= 1.0:
        yield f"most_spot_share must be from 0 to 1, not {share:g}"
    if not 0.0 <= reserve < 1.0:
        yield f"spot_reserve must be from 0 to below 1, not {reserve:g}"
    if problem.change_usd_per_accelerator_hour < 0:
        yield f"change_usd_per_accelerator_hour must be zero or more, not {problem.change_usd_per_accelerator_hour:g}"
    for cap in problem.caps:
        if not 0.0 <= cap.least <= cap.most:
            yield f"cap {cap.name}: at least {cap.least:g} and at most {cap.most:g} contradict each other"
    names = [cap.name for cap in problem.caps]
    if len(set(names)) < len(names):
        yield "each cap needs a name of its own"


def _goals(problem: FleetProblem) -> Iterator[str]:
    if problem.goal is Goal.PROFIT and not problem.usd_per_request:
        yield "profit needs usd_per_request: what a request of each class earns"
    if Goal.PROFIT in problem.then and not problem.usd_per_request:
        yield "profit needs usd_per_request: what a request of each class earns"
    if Goal.COST_PER_TOKEN in problem.then:
        yield "cost per token is a ratio and can only be the first goal"
    scaled = problem.goal in (Goal.COST_PER_TOKEN, Goal.THROUGHPUT)
    if Goal.THROUGHPUT in problem.then and not scaled:
        yield f"throughput cannot follow {problem.goal.value}, which serves a given demand"
    if problem.then_tolerance < 0:
        yield f"then_tolerance must be zero or more, not {problem.then_tolerance:g}"


def _column(problem: FleetProblem, column: Column) -> Iterator[str]:
    periods = len(problem.periods)
    yield from _parts(column, periods)
    if len(column.requests_per_s) != len(problem.demand):
        yield f"requests_per_s has {len(column.requests_per_s)} classes where demand has {len(problem.demand)}"
    for name in ("usd_per_hour_by_period", "carbon_g_per_hour_by_period"):
        given = getattr(column, name)
        if given and len(given) != periods:
            yield f"{name} has {len(given)} values for {periods} periods"
    if not math.isfinite(column.usd_per_hour):
        yield f"usd_per_hour must be a number, not {column.usd_per_hour:g}"
    if not column.first_period >= 0:
        yield f"first_period must be zero or more, not {column.first_period}"
    if column.most_blocks is not None and column.most_blocks < column.least_blocks:
        yield f"at least {column.least_blocks} and at most {column.most_blocks} blocks contradict each other"
    if problem.survive is Survive.ZONE and not column.zone:
        yield "its zone is needed to survive the loss of a zone"
    if _asks_for_carbon(problem) and math.isnan(_any(column.carbon_g_per_hour_by_period, column.carbon_g_per_hour)):
        yield "its carbon is needed where carbon is limited or a goal"
    if math.isnan(column.power_w) and (problem.power_w is not None or Goal.POWER in (problem.goal, *problem.then)):
        yield "its power is needed where power is limited or a goal"
    if math.isnan(column.power_w) and column.site in problem.site_power_w:
        yield f"its power is needed where that of its site {column.site} is limited"


def _parts(column: Column, periods: int) -> Iterator[str]:
    """Parts add up to the block: what is limited by offer and what is limited as a whole have to agree."""
    parts = column.parts
    if not parts:
        return
    if len({part.offer for part in parts}) < len(parts):
        yield "two of its parts are of one offer"
    if (parts[0].accelerator, parts[0].offer) != (column.accelerator, column.offer):
        yield "its accelerator and offer must be those of its first part"
    for name, whole in (("units", column.units_per_block), ("accelerators", column.accelerators_per_block)):
        if sum(getattr(part, name) for part in parts) != whole:
            yield f"the {name} of its parts do not add up to {whole}"
    if not math.isclose(sum(part.usd_per_hour for part in parts), column.usd_per_hour, rel_tol=1e-9, abs_tol=1e-12):
        yield f"the costs of its parts do not add up to {column.usd_per_hour:g} USD/h"
    if any(part.usd_per_hour_by_period and len(part.usd_per_hour_by_period) != periods for part in parts):
        yield f"a part's usd_per_hour_by_period does not have {periods} values"


def _asks_for_carbon(problem: FleetProblem) -> bool:
    return problem.carbon_g_per_hour is not None or Goal.CARBON in (problem.goal, *problem.then)


def _any(by_period: tuple[float, ...], always: float) -> float:
    return sum(by_period) if by_period else always
