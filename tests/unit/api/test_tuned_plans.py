"""Knobs of items, and plans with them turned: what may be set, what the model says of it, and what is checked."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

import tokopt
from tokopt.api.tuned_plans import Tuned, tuned_plan
from tokopt.api.tuning_knobs import ItemKnobs, Setup
from tokopt.api.tuning_search import first_places
from tokopt.catalog import Catalog
from tokopt.domain.plans import Plan
from tokopt.domain.tuning import KnobName
from tokopt.errors import InputError

MIXED = """\
provider,region,instance_type,accelerator,accelerator_count,market,usd_per_hour,available_units
here,r1,h100,h100_sxm,8,on_demand,16.0,
here,r1,h200,h200_sxm,8,on_demand,20.0,
"""
DAY = [{"name": "night", "hours": 8, "demand": 0.2}, {"name": "day", "hours": 16, "demand": 1.0}]
TWO = {
    "chat": {"model": "llama-3.1-8b", "workload": "chat", "demand": "300req/s", "sla": "tpot=40ms,ttft=2s"},
    "code": {"model": "qwen3-8b", "input_tokens": 4000, "output_tokens": 300, "demand": "40req/s", "sla": "30ms"},
}
AGG: dict[str, Any] = {"model": "llama-3.1-70b", "gpus": "h100_sxm", "modes": "agg", "sla": "50ms"}
REQUESTS: dict[str, dict[str, Any]] = {
    "two pools": {"model": "llama-3.1-70b", "gpus": "h100_sxm", "power": "300kW", "sla": "50ms", "modes": "disagg"},
    "one pool for a demand": {"model": "qwen3-32b", "gpus": "h200_sxm", "demand": "90req/s", "sla": "40ms"},
    "prompts that repeat": AGG | {"power": "200kW", "reuse": "turns=8,gap=30s"},
    "drawn power": AGG | {"power": "200kW", "power_mode": "drawn"},
    "classes and periods": {"workloads": {"workloads": TWO, "periods": DAY}, "gpus": "h100_sxm", "modes": "agg"},
    "modules that draft": {"model": "deepseek-r1", "gpus": "h200_sxm", "power": "400kW", "sla": "60ms"},
}


class Plans(dict[str, Plan]):
    """Plans that are made when they are first asked for."""

    def __init__(self, catalog: Catalog, folder: Path) -> None:
        super().__init__()
        self.catalog, self.prices = catalog, folder / "mixed.csv"
        self.prices.write_text(MIXED, encoding="utf-8")

    def __missing__(self, name: str) -> Plan:
        asked = REQUESTS.get(name) or AGG | {
            "gpus": None,
            "modes": None,
            "demand": "60req/s",
            "frameworks": "vllm",
            "precisions": "bf16,fp8",
            "kv_precisions": "fp8",
            "prices": str(self.prices),
            "mixed_pools": True,
        }
        self[name] = tokopt.plan(catalog=self.catalog, **asked)
        return self[name]


@pytest.fixture(scope="module")
def plans(catalog: Catalog, tmp_path_factory: pytest.TempPathFactory) -> Plans:
    return Plans(catalog, tmp_path_factory.mktemp("prices"))


def knobs_of(catalog: Catalog, plan: Plan, number: int = 0) -> ItemKnobs:
    return ItemKnobs(catalog, plan, number, list(KnobName), chosen=False)


ALL = (*REQUESTS, "pools on two accelerators")


def test_one_of_the_plans_has_pools_on_two_accelerators(plans: Plans) -> None:
    assert any(item.parts for item in plans["pools on two accelerators"].fleet)


@pytest.mark.parametrize("name", ALL)
def test_the_planned_settings_are_those_of_the_plan(catalog: Catalog, plans: Plans, name: str) -> None:
    plan = plans[name]
    for number, item in enumerate(plan.fleet):
        knobs = knobs_of(catalog, plan, number)
        setup = knobs.setup(knobs.planned)
        assert isinstance(setup, Setup)
        assert setup.item.deployment == item.deployment
        assert setup.item.concurrency_per_replica == item.concurrency_per_replica
        # A running cap that was cut while other caches were settled is settled anew.
        assert setup.candidate.capacity_requests_per_s == pytest.approx(item.capacity_requests_per_s, rel=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_other_settings_use_as_many_accelerators_and_fit(catalog: Catalog, plans: Plans, name: str) -> None:
    plan, rng = plans[name], random.Random(0)
    knobs = knobs_of(catalog, plan)
    for _ in range(15):
        setup = knobs.setup(knobs.knobs.at(knobs.knobs.numbered(rng.randrange(knobs.knobs.size))))
        if isinstance(setup, str):
            assert setup in (
                "does not fit in memory",
                "runs more requests than a step has tokens, which engines refuse",
            )
            continue
        assert setup.item.deployment.accelerators == plan.fleet[0].deployment.accelerators
        assert setup.item.concurrency_per_replica >= 1


@pytest.mark.parametrize("name", ALL)
def test_plans_with_other_settings_pass_the_check(catalog: Catalog, plans: Plans, name: str) -> None:
    plan, rng = plans[name], random.Random(1)
    assert tokopt.check(plan, catalog=catalog) == []
    tried = 0
    for number in range(len(plan.fleet)):
        knobs = knobs_of(catalog, plan, number)
        rate, fixed = knobs.item.busiest_requests_per_s, knobs.asked.demand_requests_per_s is not None
        near = list(knobs.knobs.neighbours(knobs.knobs.place(knobs.planned)))
        for place in rng.sample(near, len(near)):
            setup = knobs.setup(knobs.knobs.at(place))
            if isinstance(setup, str) or setup.candidate.capacity_requests_per_s < (rate if fixed else 0.6 * rate):
                continue
            changed = Tuned(number=number, setup=setup, load=0.93, planned_rate=rate)
            found = tuned_plan(catalog, plan, [changed], ["tuned"], alone=False)
            assert tokopt.check(found.plan, catalog=catalog) == [], knobs.knobs.at(place)
            assert found.plan.fleet[number].deployment == setup.item.deployment
            assert found.plan.usd_per_hour == pytest.approx(plan.usd_per_hour)
            before, after = found.rates[number]
            assert after == before if fixed else after <= before * 0.93 * (1 + 1e-12)
            assert Plan.model_validate_json(found.plan.model_dump_json()) == found.plan
            tried += 1
            if tried % 3 == 0:
                break
    assert tried


def test_nothing_changed_is_the_same_plan(catalog: Catalog, plans: Plans) -> None:
    plan = plans["two pools"]
    assert tuned_plan(catalog, plan, [], [], alone=False).plan is plan


def test_which_knobs_there_are_follows_from_the_set_up(catalog: Catalog, plans: Plans) -> None:
    def names(name: str) -> set[str]:
        return {knob.name for knob in knobs_of(catalog, plans[name]).knobs.knobs}

    assert "pools" in names("two pools")
    assert {"offload", "router"} <= names("prompts that repeat")
    assert "pools" not in names("prompts that repeat")
    assert "offload" not in names("two pools")
    assert "router" not in names("classes and periods")
    assert "speculation" in names("modules that draft")
    assert not {"pools", "power_cap"} & names("pools on two accelerators")


@pytest.mark.parametrize(
    ("name", "knob", "why"),
    [
        ("prompts that repeat", KnobName.POOLS, "has one pool"),
        ("two pools", KnobName.OFFLOAD, "nothing is cached"),
        ("two pools", KnobName.SPECULATION, "nothing drafts"),
        ("classes and periods", KnobName.ROUTER, "several items"),
        ("pools on two accelerators", KnobName.POOLS, "bought apart"),
    ],
)
def test_a_knob_that_is_not_there_is_said_to_be(
    catalog: Catalog, plans: Plans, name: str, knob: KnobName, why: str
) -> None:
    with pytest.raises(InputError, match=rf"--knobs {knob.value}: item 1 .*{why}"):
        ItemKnobs(catalog, plans[name], 0, [knob], chosen=True)


def test_the_first_places_are_the_plan_and_its_best_neighbours(catalog: Catalog, plans: Plans) -> None:
    knobs = knobs_of(catalog, plans["two pools"])
    first, *rest = first_places(knobs)
    assert knobs.knobs.at(first) == {name: knobs.planned[name] for name in knobs.knobs.at(first)}
    turned = [[k for k, (a, b) in enumerate(zip(first, place, strict=True)) if a != b] for place in rest]
    assert all(len(each) == 1 for each in turned)
    assert len({each[0] for each in turned}) == len(turned) == 4


def test_a_power_cap_is_a_setting_that_the_tuned_plan_allows(catalog: Catalog, plans: Plans) -> None:
    plan = plans["two pools"]
    knobs = knobs_of(catalog, plan)
    cap = next(
        str(v) for knob in knobs.knobs.knobs if knob.name == "power_cap" for v in knob.values if "w" in str(v)[-1]
    )
    setup = knobs.setup(knobs.planned | {"power_cap": cap})
    assert isinstance(setup, Setup)
    found = tuned_plan(
        catalog,
        plan,
        [Tuned(number=0, setup=setup, load=1.0, planned_rate=knobs.item.busiest_requests_per_s)],
        [],
        alone=False,
    )
    assert found.plan.fleet[0].accelerator == cap
    assert found.plan.drawn_power_kw is not None and plan.drawn_power_kw is not None
    assert found.plan.drawn_power_kw < plan.drawn_power_kw
    assert tokopt.check(found.plan, catalog=catalog) == []


def test_the_router_of_a_tuned_plan_is_what_simulations_use(catalog: Catalog, plans: Plans, tmp_path: Path) -> None:
    from tokopt.api.simulated_fleet import planned_router

    plan = plans["two pools"]
    knobs = knobs_of(catalog, plan)
    setup = knobs.setup(knobs.planned | {"router": "least_loaded"})
    assert isinstance(setup, Setup)
    assert planned_router(plan).value == "random"
    tuned = Tuned(number=0, setup=setup, load=1.0, planned_rate=knobs.item.busiest_requests_per_s)
    assert planned_router(tuned_plan(catalog, plan, [tuned], [], alone=False).plan).value == "least_loaded"
