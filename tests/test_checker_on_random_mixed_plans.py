"""Random plans whose pools may be on different accelerators, and some that have to be: the checker finds no fault.

Accelerators are searched once per combination; then prices, stock, markets and limits vary.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from tokopt.api.answer import assemble
from tokopt.api.asking import make_request
from tokopt.api.columns import allowed_offers, cheapest_offers, priced
from tokopt.api.found import Found
from tokopt.api.power import Counting, count_drawn, counted_w, missing_power
from tokopt.api.program import fleet_problem
from tokopt.api.services import gather, mixed_services
from tokopt.catalog import Catalog
from tokopt.checking import CheckInputs, check_plan
from tokopt.domain.offers import Market, Offer
from tokopt.domain.plans import Objective, Plan, PowerBasis, PowerMode
from tokopt.fleet import solve_fleet
from tokopt.search import MixedReport

PLANS = 30  # of each combination
SEED = 20261128
COMBINATIONS: tuple[dict[str, Any], ...] = (
    {"model": "llama-3.1-70b", "workload": "agentic", "sla": "50ms", "gpus": "h100_sxm,h200_sxm,b200_sxm"},
    {"model": "qwen3-30b-a3b", "workload": "chat", "sla": "tpot=25ms,mean", "gpus": "h100_sxm,h200_sxm"},
    {"model": "qwen3-8b", "workload": "agentic", "sla": "tpot=30ms,ttft=3s,p90", "gpus": "mi300x,mi325x,mi355x"},
    {"model": "llama-3.1-70b", "workload": "chat", "sla": "60ms", "gpus": "h200_sxm@500w,b200_sxm,h100_sxm"},
)


def market(chance: random.Random, found: Found) -> tuple[Offer, ...]:
    """Return a random price list in which accelerators often are at one place."""
    offers: list[Offer] = []
    for offer in found.prices.offers:
        for kind in chance.sample((Market.ON_DEMAND, Market.OWNED, Market.SPOT), 2):
            offers.append(
                replace(
                    offer,
                    provider=chance.choice(("north", "north", "south")),
                    instance_type=f"{offer.instance_type}-{len(offers)}",
                    market=kind,
                    usd_per_hour=round(offer.usd_per_hour * chance.uniform(0.3, 3.0), 4),
                    available_units=chance.choice((None, None, 2, 9, 60)),
                )
            )
    return tuple(offers)


def size(chance: random.Random) -> dict[str, Any]:
    goal = chance.choice(("fill", "demand", "demand", "throughput"))
    return {
        "mixed_pools": True,
        "power_kw": round(10 ** chance.uniform(2.0, 3.5), 1) if goal != "demand" or chance.random() < 0.5 else None,
        "power_basis": chance.choice(list(PowerBasis)),
        "power_mode": chance.choice((PowerMode.PROVISIONED, *PowerMode)),
        "pue": round(chance.uniform(1.0, 1.6), 3),
        "demand_requests_per_s": round(10 ** chance.uniform(0.0, 2.0), 3) if goal == "demand" else None,
        "objective": Objective.THROUGHPUT if goal == "throughput" else Objective.COST,
        "inventory": {"h100_sxm": 64} if chance.random() < 0.2 else {},
        "most_accelerator_types": chance.choice((None, None, None, 1, 2)),
    }


def random_plan(chance: random.Random, found: Found) -> tuple[Plan, tuple[Offer, ...]] | None:
    """Return a plan of a random market, one in two of mixed replicas alone."""
    request = found.request.model_copy(update=size(chance))
    offers, catalog = market(chance, found), found.catalog
    allowed = allowed_offers(offers, request)
    known = {n: r for n, r in found.reports.items() if not missing_power(catalog.accelerators[n], request)}
    service = replace(found.services[0], reports=known)
    usable = {name: report.candidates for name, report in known.items()}
    columns = priced(usable, cheapest_offers(allowed), catalog.accelerators, lambda a: counted_w(a, request))
    mixed = mixed_services(request, catalog, [service], allowed, columns, MixedReport())
    columns, counting = mixed if chance.random() < 0.5 else [*columns, *mixed], Counting()
    if columns and request.power_mode is PowerMode.DRAWN:
        columns, counting = count_drawn(columns, request, catalog, [found.workload])
    if not columns:
        return None
    prices = replace(found.prices, offers=offers)
    varied = replace(found, request=request, prices=prices, columns=columns, counting=counting)
    problem = fleet_problem(varied)
    solution = solve_fleet(replace(problem, time_limit_s=10.0), shadow_prices=False)
    return (assemble(varied, problem, solution, None, margins=False), offers) if solution.feasible else None


@pytest.mark.parametrize("combination", COMBINATIONS, ids=[f"{c['model']}-{c['workload']}" for c in COMBINATIONS])
def test_nothing_is_wrong_with_random_plans(catalog: Catalog, combination: dict[str, Any]) -> None:
    chance = random.Random(SEED)
    found = gather(make_request(catalog, power="1MW", prices="ownership-hyperscaler", **combination), catalog)
    inputs = CheckInputs(
        llms={found.llm.name: found.llm},
        accelerators=catalog.accelerators,
        frameworks=catalog.frameworks,
        precisions=catalog.precisions,
        kv_bits={name: kv.bits for name, kv in catalog.kv_precisions.items()},
        calibration=catalog.calibration,
        offers=(),
        speculators=catalog.speculators,
    )
    seen = Counter[str]()
    for _ in range(PLANS):
        made = random_plan(chance, found)
        if made is None:
            seen["no fleet"] += 1
            continue
        plan, offers = made
        assert check_plan(plan, replace(inputs, offers=offers)) == []
        seen["mixed" if any(item.parts for item in plan.fleet) else "plain"] += 1
        seen[plan.power_mode.value] += any(bool(item.parts) for item in plan.fleet)
    assert seen["mixed"] > 1, seen
