"""A plan checked from its request and the catalogs: one rule after another, none of them the solver's."""

from __future__ import annotations

from collections.abc import Callable

from tokopt.checking.caching import caches_settled
from tokopt.checking.case import Case
from tokopt.checking.inputs import CheckInputs
from tokopt.checking.parts import parts_agree
from tokopt.checking.periods import (
    demand_met_in_periods,
    periods_complete,
    prices_over_periods,
    rates_over_periods,
    schedule_agrees,
    units_over_periods,
)
from tokopt.checking.purchase import (
    counts_possible,
    nodes_counted,
    offer_allowed,
    offer_exists,
    power_counted,
    power_drawn,
    replicas_fit,
    units_paid,
    whole_units,
)
from tokopt.checking.service import capacity_within_limits, exchange_stated, served_within_limits
from tokopt.checking.setups import (
    cap_legal,
    fields_agree,
    fits_in_memory,
    layout_legal,
    memory_stated,
    mode_complete,
    names_known,
    supported,
)
from tokopt.checking.switches import prompts_fit_a_step, switches_agree
from tokopt.checking.totals import (
    context_fits,
    demand_met,
    limits_kept,
    ranges_hold_figures,
    status_consistent,
    stock_kept,
    sums_right,
    traffic_split,
)
from tokopt.domain.plans import Plan
from tokopt.errors import InputError

Rule = Callable[[Case], list[str]]

# Each group of rules needs that those before it found nothing.
DEPLOYMENT_RULES: tuple[tuple[Rule, ...], ...] = (
    (names_known, mode_complete),
    (fields_agree, supported, switches_agree, prompts_fit_a_step, layout_legal, cap_legal),
    (fits_in_memory, memory_stated, caches_settled, served_within_limits, capacity_within_limits, exchange_stated),
)
PURCHASE_RULES: tuple[Rule, ...] = (
    parts_agree,
    whole_units,
    replicas_fit,
    nodes_counted,
    offer_exists,
    offer_allowed,
    units_paid,
    power_counted,
    power_drawn,
    periods_complete,
    units_over_periods,
    rates_over_periods,
    prices_over_periods,
)


def check_plan(plan: Plan, inputs: CheckInputs) -> list[str]:
    """Return what is wrong with a plan, one line a fault; empty = every rule holds.

    Args:
        plan: The plan, with the request that it answers.
        inputs: Records of the catalogs and the offers of the request's price lists.

    Returns:
        Which item and which figure, what it says and what it should be. A bad plan never raises.
    """
    faults = status_consistent(plan)
    for number, item in enumerate(plan.fleet):
        faults += _item_faults(Case(number=number, item=item, request=plan.request, inputs=inputs))
    return [
        *faults,
        *sums_right(plan),
        *traffic_split(plan),
        *demand_met(plan),
        *demand_met_in_periods(plan),
        *schedule_agrees(plan),
        *limits_kept(plan),
        *stock_kept(plan, inputs),
        *context_fits(plan, inputs),
        *ranges_hold_figures(plan),
    ]


def _item_faults(case: Case) -> list[str]:
    faults = counts_possible(case)
    for rules in () if faults else (PURCHASE_RULES, *DEPLOYMENT_RULES):
        try:
            found = [fault for rule in rules for fault in rule(case)]
        except (InputError, ArithmeticError, ValueError) as error:
            return [*faults, case.fault(f"cannot be worked out: {error}")]
        faults += found
        if found and rules is not PURCHASE_RULES:
            break
    return faults
