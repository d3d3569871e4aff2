"""The checker on thousands of random plans: nothing is wrong with any of them, and something with each spoilt one.

The search runs once per combination of model, workload and limits; then sizes, prices, stock and selections vary, and
only the fleet program and the assembly of the plan run again.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

import tokopt
from tokopt.api import answer
from tokopt.api.answer import assemble
from tokopt.api.asking import make_request
from tokopt.api.columns import allowed_offers, cheapest_offers, hardware_of, offer_key, priced
from tokopt.api.found import Found
from tokopt.api.infeasible import infeasible
from tokopt.api.power import Counting, count_drawn, counted_w, missing_power
from tokopt.api.program import fleet_problem
from tokopt.api.services import gather
from tokopt.catalog import Catalog
from tokopt.checking import CheckInputs, check_plan
from tokopt.domain.offers import Market, Offer
from tokopt.domain.plans import Objective, Plan, PowerBasis, PowerMode, Status
from tokopt.fleet import FleetProblem, FleetSolution, Goal, Stop, solve_fleet

PLANS = 2_100
SPOILT = 600
SEED = 20261123
COMBINATIONS: tuple[dict[str, Any], ...] = (
    {"model": "qwen3-8b", "workload": "chat", "sla": "40ms", "gpus": "h100_sxm,a100_80g_sxm,mi300x"},
    {"model": "qwen3-8b", "workload": "agentic", "sla": "tpot=30ms,ttft=3s,p90", "gpus": "h100_sxm,mi325x"},
    {"model": "llama-3.1-8b", "workload": "chat", "sla": "tpot=60ms,ttft=1s", "gpus": "h200_sxm,h100_sxm,b200_sxm"},
    {"model": "llama-3.1-8b", "workload": "reasoning", "sla": "50ms", "gpus": "h100_sxm,mi300x", "modes": "agg"},
    {"model": "llama-3.1-8b", "workload": "chat", "sla": "tok/s/user=50", "gpus": "b200_sxm", "modes": "disagg"},
    {"model": "qwen3-30b-a3b", "workload": "chat", "sla": "tpot=25ms,mean", "gpus": "h100_sxm,h200_sxm"},
    {"model": "qwen3-30b-a3b", "workload": "agentic", "sla": "e2e=60s,p50", "gpus": "h200_sxm,mi355x"},
    {"model": "qwen3-32b", "workload": "chat", "sla": "tpot=50ms,ttft=4s", "gpus": "h100_sxm,b200_sxm"},
    {"model": "gpt-oss-20b", "workload": "chat", "sla": "30ms", "gpus": "h100_sxm,b200_sxm"},
    {"model": "qwen3-8b", "workload": "chat", "sla": "40ms", "gpus": "h100_sxm", "power_settings": "all"},
    {"model": "qwen3-32b", "workload": "chat", "sla": "60ms", "gpus": "h200_sxm@500w,b200_sxm,b200_sxm@700w"},
    {"model": "llama-3.1-70b", "workload": "chat", "sla": "tpot=80ms,ttft=5s,p95", "gpus": "h200_sxm,mi325x"},
    {"model": "deepseek-r1", "workload": "agentic", "sla": "50ms", "gpus": "h200_sxm,b200_sxm"},
    {"model": "deepseek-r1", "workload": "chat", "sla": "30ms", "gpus": "gb200_nvl72"},
)


@dataclass(frozen=True)
class Case:
    """A random plan, and the records to check it against."""

    plan: Plan
    inputs: CheckInputs


def searched(catalog: Catalog, combination: dict[str, Any]) -> Found:
    request = make_request(catalog, power="1MW", prices="ownership-hyperscaler", **combination)
    return gather(request, catalog)


def market(chance: random.Random, found: Found) -> tuple[Offer, ...]:
    """Return a random price list: for each accelerator, machines of sizes that the search knows, some in stock."""
    offers = []
    for offer in found.prices.offers:
        if offer.accelerator not in {hardware_of(name) for name in found.reports}:
            continue
        for kind in chance.sample(list(Market), chance.randint(1, 3)):
            offers.append(
                replace(
                    offer,
                    provider=chance.choice(("north", "south")),
                    instance_type=f"{offer.instance_type}-{len(offers)}",
                    market=kind,
                    usd_per_hour=round(offer.usd_per_hour * chance.uniform(0.3, 3.0), 4),
                    available_units=chance.choice((None, None, 1, 7, 60)),
                )
            )
    return tuple(offers)


def size(chance: random.Random, found: Found) -> dict[str, Any]:
    """Return random sizes and selections of a request."""
    names = sorted({hardware_of(name) for name in found.reports})
    goal = chance.choice(("fill", "demand", "demand", "throughput"))
    power_kw = chance.choice((None, round(10 ** chance.uniform(1.2, 4.0), 1)))
    budget = chance.choice((None, None, round(10 ** chance.uniform(1.5, 4.0), 2)))
    if goal != "demand" and power_kw is None and budget is None:
        power_kw = 2_000.0
    return {
        "power_kw": power_kw,
        "power_basis": chance.choice(list(PowerBasis)),
        "power_mode": chance.choice((PowerMode.PROVISIONED, PowerMode.PROVISIONED, *PowerMode)),
        "exceed": chance.choice((0.01, 0.2, 1e-6)),
        "pue": round(chance.uniform(1.0, 1.6), 3),
        "budget_usd_per_hour": budget,
        "demand_requests_per_s": round(10 ** chance.uniform(-0.5, 2.5), 3) if goal == "demand" else None,
        "objective": Objective.THROUGHPUT if goal == "throughput" else Objective.COST,
        "inventory": {name: chance.choice((8, 100, 5_000)) for name in names if chance.random() < 0.2},
        "most_accelerator_types": chance.choice((None, None, 1, 2)),
        "markets": () if chance.random() < 0.8 else (chance.choice(list(Market)).value,),
        "excluded_accelerators": (chance.choice(names),) if len(names) > 1 and chance.random() < 0.1 else (),
    }


def random_plans(chance: random.Random, found: Found, inputs: CheckInputs) -> list[Case]:
    """Return the plans of a random market and size: the best one, and two more uses of its fleet."""
    request = found.request.model_copy(update=size(chance, found))
    offers = market(chance, found)
    catalog = found.catalog
    known = {n: not missing_power(catalog.accelerators[n], request) for n in found.reports}
    usable = {n: r.candidates for n, r in found.reports.items() if request.power_kw is None or known[n]}
    left = cheapest_offers(allowed_offers(offers, request))
    columns, counting = priced(usable, left, catalog.accelerators, lambda a: counted_w(a, request)), Counting()
    if columns and request.power_mode is PowerMode.DRAWN:
        columns, counting = count_drawn(columns, request, catalog, [found.workload])
    varied = replace(
        found, request=request, prices=replace(found.prices, offers=offers), columns=columns, counting=counting
    )
    against = replace(inputs, offers=offers)
    if not columns:
        return []
    problem = fleet_problem(varied)
    solution = solve_fleet(problem, shadow_prices=False)
    if not solution.feasible:
        return [Case(infeasible(varied, problem), against)]
    best = assemble(varied, problem, solution, None)
    others = (at_its_limits(varied, problem, solution, best), at_less_demand(chance, varied, problem, solution, best))
    return [Case(plan, against) for plan in (best, *others)]


def at_its_limits(found: Found, problem: FleetProblem, solution: FleetSolution, best: Plan) -> Plan:
    """Return the same fleet for a request whose every limit it uses up to the last bit."""
    used = Counter[str]()
    for item in best.fleet:
        used[hardware_of(item.accelerator)] += item.gpus
    exact = {"power_kw": best.power_kw, "budget_usd_per_hour": best.usd_per_hour, "inventory": dict(used)}
    exact["most_accelerator_types"] = len(used)
    request = found.request.model_copy(update=exact)
    return assemble(replace(found, request=request), problem, solution, None)


def at_less_demand(
    chance: random.Random, found: Found, problem: FleetProblem, solution: FleetSolution, best: Plan
) -> Plan:
    """Return the same fleet for a demand that it serves at less than full load: a plan, if not the best one."""
    assert best.requests_per_s is not None
    demand = best.requests_per_s * chance.choice((1.0, chance.uniform(0.01, 1.0)))
    request = found.request.model_copy(update={"demand_requests_per_s": demand, "objective": Objective.COST})
    quieter = replace(problem, goal=Goal.COST, demand=(demand,))
    return assemble(replace(found, request=request), quieter, replace(solution, stop=Stop.TIME_LIMIT), None)


@pytest.fixture(scope="module")
def cases(catalog: Catalog) -> list[Case]:
    """Random plans over all combinations, in turn."""
    chance = random.Random(SEED)
    sources = []
    for combination in COMBINATIONS:
        found = searched(catalog, combination)
        assert found.columns, combination
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
        sources.append((found, inputs))
    made: list[Case] = []
    with pytest.MonkeyPatch.context() as patch:
        # What binds and what more would be worth is not checked, and takes most of the time of an assembly.
        patch.setattr(answer, "binding_constraints", lambda *_: ())
        patch.setattr(answer, "marginal_values", lambda *_: ())
        for turn in itertools.count():
            if len(made) >= PLANS:
                break
            made += random_plans(chance, *sources[turn % len(sources)])
    return made


@pytest.fixture(scope="module")
def fleets(cases: list[Case]) -> list[Case]:
    return [case for case in cases if case.plan.status is not Status.INFEASIBLE]


def test_random_plans_are_of_every_kind(cases: list[Case]) -> None:
    status = Counter(case.plan.status for case in cases)
    assert len(cases) >= 2_000
    assert status[Status.OPTIMAL] > 0.5 * len(cases)
    assert status[Status.INFEASIBLE] > 0.01 * len(cases)
    assert {item.mode.value for case in cases for item in case.plan.fleet} == {"agg", "disagg"}
    assert {len({i.accelerator for i in case.plan.fleet}) for case in cases} >= {0, 1, 2}
    assert {case.plan.request.llm for case in cases} == {combination["model"] for combination in COMBINATIONS}


def test_nothing_is_wrong_with_any_random_plan(cases: list[Case]) -> None:
    wrong = {number: faults for number, case in enumerate(cases) if (faults := check_plan(case.plan, case.inputs))}
    assert wrong == {}


def test_the_public_check_agrees(catalog: Catalog) -> None:
    plan = tokopt.plan(catalog=catalog, model="qwen3-8b", workload="chat", demand="40req/s", prices="aws,gcp")
    assert tokopt.check(plan, catalog=catalog) == []
    spoilt = plan.model_copy(update={"usd_per_hour": plan.usd_per_hour * 1.01})  # type: ignore[operator]
    assert tokopt.check(spoilt, catalog=catalog) != []


# Spoilt plans ---------------------------------------------------------------------------------------------------------

Mutation = Callable[[Plan], Plan | None]  # None: the plan has nothing there to spoil


def of_plan(**changes: Callable[[Any], Any]) -> Mutation:
    def spoil(plan: Plan) -> Plan | None:
        values = {name: getattr(plan, name) for name in changes}
        if any(value is None for value in values.values()):
            return None
        return plan.model_copy(update={name: change(values[name]) for name, change in changes.items()})

    return spoil


def of_item(**changes: Callable[[Any], Any]) -> Mutation:
    def spoil(plan: Plan) -> Plan | None:
        item = plan.fleet[0]
        values = {name: getattr(item, name) for name in changes}
        if any(value is None for value in values.values()):
            return None
        spoilt = item.model_copy(update={name: change(values[name]) for name, change in changes.items()})
        return plan.model_copy(update={"fleet": (spoilt, *plan.fleet[1:])})

    return spoil


def of_request(**changes: Callable[[Plan], Any]) -> Mutation:
    def spoil(plan: Plan) -> Plan | None:
        values = {name: change(plan) for name, change in changes.items()}
        return plan.model_copy(update={"request": plan.request.model_copy(update=values)})

    return spoil


def with_deployment(**changes: Any) -> Mutation:
    def spoil(plan: Plan) -> Plan | None:
        item = plan.fleet[0]
        deployment = item.deployment.model_copy(update=changes)
        if deployment == item.deployment:
            return None
        return plan.model_copy(update={"fleet": (item.model_copy(update={"deployment": deployment}), *plan.fleet[1:])})

    return spoil


def faster_than_promised(plan: Plan) -> Plan | None:
    """Ask for half the latency that the plan has; its figures then miss the limits."""
    sla = plan.request.sla
    tighter = {
        name: getattr(sla, name) / 40.0 for name in ("tpot_ms", "ttft_ms", "e2e_ms") if getattr(sla, name) is not None
    }
    request = plan.request.model_copy(update={"sla": sla.model_copy(update=tighter)})
    return plan.model_copy(update={"request": request})


def one_item_twice(plan: Plan) -> Plan | None:
    return plan.model_copy(update={"fleet": (plan.fleet[0], *plan.fleet)})


def latency(name: str, factor: float) -> Mutation:
    def slower(value: Any) -> Any:
        return value.model_copy(update={"p99": value.p99 * factor, "mean": value.mean * factor})

    return of_item(**{name: slower})


MUTATIONS: dict[str, Mutation] = {
    "cheaper plan": of_plan(usd_per_hour=lambda v: v * 0.99),
    "cheaper tokens": of_plan(usd_per_million_output_tokens=lambda v: v * 0.99),
    "cheaper total tokens": of_plan(usd_per_million_total_tokens=lambda v: v * 1.01),
    "more tokens": of_plan(output_tokens_per_s=lambda v: v * 1.01),
    "more total tokens": of_plan(total_tokens_per_s=lambda v: v * 1.01),
    "more requests": of_plan(requests_per_s=lambda v: v * 1.01),
    "less power": of_plan(power_kw=lambda v: v * 0.99),
    "less IT power": of_plan(it_power_kw=lambda v: v * 0.99),
    "less drawn power": of_plan(drawn_power_kw=lambda v: v * 0.99),
    "better efficiency": of_plan(tokens_per_s_per_mw=lambda v: v * 1.01),
    "other power limit": of_plan(power_limit_kw=lambda v: v * 2.0),
    "infeasible with a fleet": of_plan(status=lambda _: Status.INFEASIBLE),
    "optimal with a gap": of_plan(status=lambda _: Status.OPTIMAL, gap=lambda _: 0.05),
    "negative gap": of_plan(gap=lambda _: -1e-3),
    "no fleet": of_plan(fleet=lambda _: ()),
    "an item twice": one_item_twice,
    "half the power asked": of_request(power_kw=lambda p: p.power_kw / 2.0 if p.power_kw else 1e-3),
    "half the budget asked": of_request(budget_usd_per_hour=lambda p: p.usd_per_hour / 2.0),
    "more demand asked": of_request(demand_requests_per_s=lambda p: p.requests_per_s * 1.1),
    "no stock": of_request(inventory=lambda p: {hardware_of(p.fleet[0].accelerator): 0}),
    "accelerator excluded": of_request(excluded_accelerators=lambda p: (p.fleet[0].accelerator,)),
    "other accelerators asked": of_request(accelerators=lambda _: ("l4",)),
    "other region asked": of_request(regions=lambda _: ("nowhere",)),
    "tighter limits asked": faster_than_promised,
    "one unit less": of_item(units=lambda v: v - 1),
    "one more accelerator": of_item(gpus=lambda v: v + 1),
    "twice the replicas": of_item(replicas=lambda v: v * 2),
    "one more node": of_item(nodes=lambda v: v + 1),
    "smaller replicas": of_item(gpus_per_replica=lambda v: v + 1),
    "larger units": of_item(gpus_per_unit=lambda v: v * 2),
    "cheaper unit": of_item(usd_per_unit_hour=lambda v: v * 0.9),
    "cheaper item": of_item(usd_per_hour=lambda v: v * 0.9),
    "item with less power": of_item(power_kw=lambda v: v * 0.9),
    "item with less provisioned power": of_item(provisioned_kw=lambda v: v * 0.9),
    "item with less rated power": of_item(rated_kw=lambda v: v * 0.9),
    "item that draws nothing": of_item(drawn_kw=lambda _: 0.0),
    "item with more requests": of_item(requests_per_s=lambda v: v * 1.2),
    "item with more tokens": of_item(output_tokens_per_s=lambda v: v * 1.2),
    "item with more capacity": of_item(capacity_requests_per_s=lambda v: v * 3.0),
    "item with another share": of_item(share_of_traffic=lambda v: {name: share * 0.5 for name, share in v.items()}),
    "slower first token": latency("ttft_ms", 1.5),
    "faster first token": latency("ttft_ms", 0.5),
    "slower tokens": latency("tpot_ms", 1.5),
    "faster tokens": latency("tpot_ms", 0.5),
    "slower answers": latency("e2e_ms", 1.5),
    "lower load": of_item(load=lambda v: v * 0.5),
    "more in service": of_item(mean_running_per_replica=lambda v: v * 2.0),
    "lighter weights": of_item(memory_gib=lambda v: v.model_copy(update={"weights": v.weights * 0.5})),
    "more free memory": of_item(memory_gib=lambda v: v.model_copy(update={"free": v.free + 5.0})),
    "higher cap": of_item(concurrency_per_replica=lambda v: v * 8),
    "unknown offer": of_item(instance_type=lambda _: "imaginary"),
    "other market": of_item(market=lambda v: "spot" if v != "spot" else "owned"),
    "other provider": of_item(provider=lambda _: "west"),
    "other accelerator": of_item(accelerator=lambda v: "l4" if v != "l4" else "h100_sxm"),
    "other precision": of_item(precision=lambda v: "int8" if v != "int8" else "bf16"),
    "other framework": of_item(framework=lambda v: "sglang" if v != "sglang" else "vllm"),
    "other model": of_item(model=lambda _: "llama-2-7b"),
    "other tp": of_item(tp=lambda v: v * 2),
    "other dp": of_item(dp=lambda v: v + 1),
    "deployment with another cap": with_deployment(max_running_requests=100_000),
    "deployment of another model": with_deployment(llm="llama-2-7b"),
    "deployment elsewhere": with_deployment(accelerator="l4"),
    "deployment with a draft too deep": with_deployment(speculation_depth=9),
    "narrow range": of_plan(
        interval=lambda v: {name: ends.model_copy(update={"high": ends.low * 0.5}) for name, ends in v.items()}
    ),
}


@pytest.mark.parametrize("name", list(MUTATIONS))
def test_a_spoilt_plan_is_caught(fleets: list[Case], name: str) -> None:
    chance = random.Random(f"{SEED} {name}")
    tried = 0
    for case in chance.sample(fleets, 4 * SPOILT // len(MUTATIONS)):
        spoilt = MUTATIONS[name](case.plan)
        if spoilt is None or spoilt == case.plan:
            continue
        assert check_plan(spoilt, case.inputs) != [], (case.plan.request, case.plan.fleet)
        tried += 1
        if tried >= SPOILT / len(MUTATIONS):
            return
    assert tried, "no plan had anything to spoil"


def test_offers_of_a_market_are_told_apart(catalog: Catalog) -> None:
    found = searched(catalog, COMBINATIONS[0])
    offers = market(random.Random(1), found)
    assert len({offer_key(offer) for offer in offers}) == len(offers)
