"""Rules on a whole plan: its sums, limits, demand, ranges and status."""

from __future__ import annotations

from collections.abc import Iterable

from tokopt.checking.case import TOLERANCE, different, number, same, within
from tokopt.checking.inputs import CheckInputs
from tokopt.checking.purchase import hardware_of, matching
from tokopt.domain.demand import WorkloadClass
from tokopt.domain.plans import FleetItem, ItemPart, Objective, Plan, Status
from tokopt.units import KW, MILLION, SECONDS_PER_HOUR

OPTIMAL_GAP = 1e-4  # an optimum is proven at least to this, or to what the request asks for
FIGURES = (
    "usd_per_hour",
    "output_tokens_per_s",
    "total_tokens_per_s",
    "requests_per_s",
    "usd_per_million_output_tokens",
    "usd_per_million_total_tokens",
    "power_kw",
    "it_power_kw",
    "drawn_power_kw",
    "peak_drawn_power_kw",
    "provisioned_power_kw",
    "tokens_per_s_per_mw",
)


def _sum(values: Iterable[float | None]) -> float | None:
    """Return a sum, not known as soon as one part is not."""
    total = 0.0
    for value in values:
        if value is None:
            return None
        total += value
    return total


def sums_right(plan: Plan) -> list[str]:
    """Check that totals are the sums of the fleet's items, and ratios follow from them."""
    fleet, classes = plan.fleet, classes_of(plan)
    if not fleet or not all(item.share_of_traffic.keys() <= classes.keys() for item in fleet):
        return []
    usd = sum(item.usd_per_hour for item in fleet)
    requests = sum(item.requests_per_s for item in fleet)
    lengths = [(item.requests_per_s, classes[next(iter(item.share_of_traffic))].workload) for item in fleet]
    output = sum(rate * workload.output_tokens for rate, workload in lengths)
    total = sum(rate * (workload.input_tokens + workload.output_tokens) for rate, workload in lengths)
    power = peak_kw(plan)
    expected: dict[str, tuple[float | None, str]] = {
        "usd_per_hour": (usd, "sum over the fleet"),
        "requests_per_s": (requests, "sum over the fleet"),
        "output_tokens_per_s": (output, "requests/s x tokens out"),
        "total_tokens_per_s": (total, "requests/s x tokens in and out"),
        "usd_per_million_output_tokens": (_usd_per_million(usd, output), "USD/h over output tokens/h"),
        "usd_per_million_total_tokens": (_usd_per_million(usd, total), "USD/h over all tokens/h"),
        "power_kw": (power, "sum over the fleet, of the period that needs most"),
        "it_power_kw": (_sum(item.rated_kw for item in fleet), "sum of rated_kw over the fleet"),
        "drawn_power_kw": (_sum(item.drawn_kw for item in fleet), "sum of drawn_kw over the fleet"),
        "peak_drawn_power_kw": (_sum(item.peak_drawn_kw for item in fleet), "sum of peak_drawn_kw over the fleet"),
        "provisioned_power_kw": (_sum(item.provisioned_kw for item in fleet), "sum of provisioned_kw over the fleet"),
        "tokens_per_s_per_mw": (output / (power / KW) if power else None, "output tokens/s over MW"),
    }
    return [
        different(figure, getattr(plan, figure), should, why)
        for figure, (should, why) in expected.items()
        if not same(getattr(plan, figure), should)
    ]


def _usd_per_million(usd_per_hour: float, tokens_per_s: float) -> float | None:
    return usd_per_hour / (tokens_per_s * SECONDS_PER_HOUR) * MILLION if tokens_per_s > 0.0 else None


def classes_of(plan: Plan) -> dict[str, WorkloadClass]:
    """Return the request's classes by name."""
    return {asked.name: asked for asked in plan.request.served_classes()}


def peak_kw(plan: Plan) -> float | None:
    """Return the power of the fleet in the period that needs most; not known as soon as one part is not. [kW]"""
    periods = range(len(plan.request.periods))
    if not periods:
        return _sum(item.power_kw for item in plan.fleet)
    if not plan.fleet or any(len(item.by_period) != len(periods) for item in plan.fleet):
        return None
    each = [_sum(item.by_period[t].power_kw for item in plan.fleet) for t in periods]
    return None if any(kw is None for kw in each) else max(kw or 0.0 for kw in each)


def traffic_split(plan: Plan) -> list[str]:
    """Check that every request is served once, and that items' shares and tokens are those of their rates."""
    classes = classes_of(plan)
    served = dict.fromkeys(classes, 0.0)
    faults = []
    for position, item in enumerate(plan.fleet):
        if len(item.share_of_traffic) != 1 or not item.share_of_traffic.keys() <= classes.keys():
            said = ", ".join(item.share_of_traffic) or "nothing"
            known = f"class is {', '.join(classes)}" if len(classes) == 1 else f"classes are {', '.join(classes)}"
            what = f"share_of_traffic is of {said}, but the request's {known}"
            faults.append(f"fleet[{position}] ({item.accelerator}): {what}")
        else:
            served[next(iter(item.share_of_traffic))] += item.requests_per_s
    if faults:
        return faults
    for position, item in enumerate(plan.fleet):
        label = f"fleet[{position}] ({item.accelerator})"
        ((name, stated),) = item.share_of_traffic.items()
        share = item.requests_per_s / served[name] if served[name] > 0.0 else 0.0
        if not same(stated, share):
            faults.append(f"{label}: {different('share_of_traffic', stated, share, 'of requests/s')}")
        out = classes[name].workload.output_tokens
        if not same(item.output_tokens_per_s, item.requests_per_s * out):
            why = f"{number(item.requests_per_s)} req/s x {number(out)} tokens out"
            tokens = item.requests_per_s * out
            faults.append(f"{label}: {different('output_tokens_per_s', item.output_tokens_per_s, tokens, why)}")
    return faults


def demand_met(plan: Plan) -> list[str]:
    """Check that the fleet serves what was asked for, where demands were given; for profit, no more than that."""
    served: dict[str, float] = {}
    for item in plan.fleet:
        for name in item.share_of_traffic:
            served[name] = served.get(name, 0.0) + item.requests_per_s
    faults = []
    hours = sum(period.hours for period in plan.request.periods)
    for name, asked in classes_of(plan).items() if plan.fleet else ():
        if asked.demand_requests_per_s is None:
            continue
        factor = sum(p.hours * p.factor(name) for p in plan.request.periods) / hours if hours else 1.0
        wanted, got = asked.demand_requests_per_s * factor, served.get(name, 0.0)
        enough = within(got, wanted, TOLERANCE) if plan.request.objective is Objective.PROFIT else same(got, wanted)
        if not enough:
            said = f"the fleet serves {number(got)} req/s of {name}, but {number(wanted)} was asked for"
            faults.append(f"demand_requests_per_s: {said}")
    return faults


def limits_kept(plan: Plan) -> list[str]:
    """Check that power, budget, accelerators in stock and the number of accelerator types are within the request."""
    request, fleet = plan.request, plan.fleet
    faults = []
    if plan.power_basis is not request.power_basis:
        faults.append(f"power_basis is {plan.power_basis.value}, but the request says {request.power_basis.value}")
    if plan.power_mode is not request.power_mode:
        faults.append(f"power_mode is {plan.power_mode.value}, but the request says {request.power_mode.value}")
    if not same(plan.power_limit_kw, request.power_kw):
        faults.append(different("power_limit_kw", plan.power_limit_kw, request.power_kw, "the request's power_kw"))
    power = peak_kw(plan)
    if request.power_kw is not None and power is not None and not within(power, request.power_kw):
        faults.append(f"power_kw: the fleet takes {number(power)} kW, above the limit of {number(request.power_kw)}")
    usd, budget = sum(item.usd_per_hour for item in fleet), request.budget_usd_per_hour
    if budget is not None and not within(usd, budget):
        faults.append(f"usd_per_hour: the fleet costs ${number(usd)}/h, above the budget of ${number(budget)}/h")
    used: dict[str, int] = {}
    for part in (part for item in fleet for part in item.bought):
        bought = hardware_of(part.accelerator)
        used[bought] = used.get(bought, 0) + part.gpus
    faults += [
        f"inventory: the fleet has {used[name]:,} {name}, but there are {most:,}"
        for name, most in request.inventory.items()
        if used.get(name, 0) > most
    ]
    types = request.most_accelerator_types
    if types is not None and len(used) > types:
        faults.append(f"most_accelerator_types is {types}, but the fleet has {', '.join(used)}")
    return faults


def stock_kept(plan: Plan, inputs: CheckInputs) -> list[str]:
    """Check that no more units of an offer are taken than it has, added up over the items on it.

    Offers that differ in nothing but their zone and stock count together.
    """
    taken: dict[tuple[str, str, str, str, str, int, float], list[tuple[FleetItem, ItemPart]]] = {}
    for item, part in ((each, part) for each in plan.fleet for part in each.bought):
        place = (item.provider, item.region, item.market, part.instance_type, hardware_of(part.accelerator))
        taken.setdefault((*place, part.gpus_per_unit, part.usd_per_unit_hour), []).append((item, part))
    faults = []
    for bought in taken.values():
        item, first = bought[0]
        stock = [
            offer.available_units
            for offer in matching(item, first, inputs.offers)
            if offer.accelerator_count == first.gpus_per_unit and same(offer.usd_per_hour, first.usd_per_unit_hour)
        ]
        units, known = sum(part.units for _, part in bought), [units for units in stock if units is not None]
        if stock and len(known) == len(stock) and units > sum(known):
            what = f"{first.instance_type} of {item.provider} in {item.region}, {item.market}"
            faults.append(f"units: the fleet takes {units:,} of {what}, but {sum(known):,} are available")
    return faults


def context_fits(plan: Plan, inputs: CheckInputs) -> list[str]:
    """Check that no class's request is longer than its model's context."""
    faults = []
    for asked in plan.request.served_classes():
        workload, llm = asked.workload, inputs.llms[asked.llm]
        length, most = workload.input_tokens + workload.output_tokens, llm.max_context_tokens
        if length > most:
            faults.append(
                f"workload {workload.name} has {number(length)} tokens in and out, but {llm.name} takes {most:,}"
            )
    return faults


def ranges_hold_figures(plan: Plan) -> list[str]:
    """Check that the ends of every range are in order and hold the figure that the range is of."""
    faults = []
    for figure, ends in plan.interval.items():
        if not ends.low <= ends.high:
            faults.append(f"interval {figure} runs from {number(ends.low)} to {number(ends.high)}")
        value = getattr(plan, figure) if figure in FIGURES else None
        if value is None:
            faults.append(f"interval {figure} is of a figure that the plan does not state")
        elif not (within(ends.low, value, TOLERANCE) and within(value, ends.high, TOLERANCE)):
            faults.append(
                f"interval {figure}, {number(ends.low)} to {number(ends.high)}, does not hold {number(value)}"
            )
    return faults


def status_consistent(plan: Plan) -> list[str]:
    """Check that an infeasible plan is empty and says why; any other has a fleet and a gap that its status allows."""
    if plan.status is Status.INFEASIBLE:
        faults = [f"{f} is stated, but status is infeasible" for f in FIGURES if getattr(plan, f) is not None]
        if plan.fleet:
            faults.append("status is infeasible, but there is a fleet")
        if not plan.nearest_feasible and not plan.excluded:
            faults.append("status is infeasible, but nothing says why (nearest_feasible, excluded)")
        return faults
    faults = [] if plan.fleet else [f"status is {plan.status.value}, but the fleet is empty"]
    if plan.gap is None or not plan.gap >= 0.0:
        faults.append(f"gap is {number(plan.gap)}, but must be 0 or more")
    most = max(OPTIMAL_GAP, plan.request.gap_target * 1.01)
    if plan.status is Status.OPTIMAL and plan.gap is not None and plan.gap > most:
        faults.append(f"status is optimal, but gap is {number(plan.gap)}, above {number(most)}")
    return faults
