"""Plans with several kinds of requests, periods, failures and today's fleet: what must hold of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tokopt
from tokopt.catalog import Catalog
from tokopt.domain.plans import Plan, Status
from tokopt.errors import InputError

PRICES = """\
provider,region,instance_type,accelerator,accelerator_count,market,usd_per_hour,available_units
north,n1,h8,h100_sxm,8,on_demand,22.0,
north,n1,h8r,h100_sxm,8,reserved_1y,15.0,
north,n1,l1,l40s,1,on_demand,1.1,
south,s1,h8,h100_sxm,8,spot,9.0,
south,s1,h8,h100_sxm,8,on_demand,21.0,
"""
NARROW = {"frameworks": "vllm", "precisions": "fp8", "kv_precisions": "fp8", "modes": "agg"}
CHAT: dict[str, Any] = {"model": "llama-3.1-8b", "workload": "chat", "demand": "150req/s", "sla": "tpot=40ms,ttft=2s"}
CODE: dict[str, Any] = {
    "model": "qwen3-8b",
    "input_tokens": 4000,
    "output_tokens": 300,
    "input_cv": 0.8,
    "demand": "40req/s",
    "sla": "tpot=30ms,ttft=3s,p90",
}
DAY = [{"name": "night", "hours": 8, "demand": 0.2}, {"name": "day", "hours": 16, "demand": 1.0}]


@pytest.fixture(scope="module")
def prices(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("prices") / "list.csv"
    path.write_text(PRICES, encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def solve(catalog: Catalog, prices: str) -> Any:
    def solved(workloads: dict[str, Any], periods: Any = None, **request: Any) -> Plan:
        content = {"workloads": workloads, **({"periods": periods} if periods else {})}
        asked = {"prices": prices, "markets": "on_demand,reserved_1y", **NARROW, **request}
        plan = tokopt.plan(catalog=catalog, workloads=content, **asked)
        if plan.status is not Status.INFEASIBLE:
            assert tokopt.check(plan, catalog=catalog) == []
        return plan

    return solved


def cost(plan: Plan) -> float:
    assert plan.status is Status.OPTIMAL and plan.usd_per_hour is not None
    return plan.usd_per_hour


def test_classes_that_share_nothing_scarce_are_planned_as_if_alone(solve: Any) -> None:
    together, chat, code = solve({"chat": CHAT, "code": CODE}), solve({"chat": CHAT}), solve({"code": CODE})
    assert cost(together) == pytest.approx(cost(chat) + cost(code), rel=1e-6)
    assert [c.name for c in together.classes] == ["chat", "code"]
    for c in together.classes:
        assert c.served_requests_per_s == pytest.approx(c.demand_requests_per_s)
        assert c.tpot_ms <= (c.tpot_limit_ms or 0.0) * (1 + 1e-9)
    assert sum(c.usd_per_hour for c in together.classes) == pytest.approx(cost(together))
    assert {item.model for item in together.fleet} == {"llama-3.1-8b", "qwen3-8b"}


def test_classes_share_power(solve: Any) -> None:
    free = solve({"chat": CHAT, "code": CODE})
    alone = solve({"chat": CHAT}).power_kw
    assert free.power_kw > alone
    tight = solve({"chat": CHAT, "code": CODE}, power=f"{free.power_kw * 0.999:.3f}kW")
    assert tight.status is Status.INFEASIBLE or cost(tight) >= cost(free) * (1 - 1e-9)
    least = solve({"chat": CHAT, "code": CODE}, objective="power").power_kw
    none = solve({"chat": CHAT, "code": CODE}, power=f"{least * 0.98:.3f}kW")
    assert none.status is Status.INFEASIBLE and {n.constraint for n in none.nearest_feasible} >= {"power", "demand"}
    there = next(n.nearest for n in none.nearest_feasible if n.constraint == "power")
    assert solve({"chat": CHAT, "code": CODE}, power=there.replace(" ", "")).status is Status.OPTIMAL


def test_periods_of_the_same_demand_are_one(solve: Any) -> None:
    same = [{"name": "a", "hours": 5}, {"name": "b", "hours": 1}]
    assert cost(solve({"chat": CHAT}, same)) == pytest.approx(cost(solve({"chat": CHAT})), rel=1e-6)


def test_what_is_on_demand_is_planned_period_by_period(solve: Any) -> None:
    plan = solve({"chat": CHAT}, DAY, markets="on_demand")
    night = cost(solve({"chat": {**CHAT, "demand": "30req/s"}}, markets="on_demand"))
    day = cost(solve({"chat": CHAT}, markets="on_demand"))
    assert cost(plan) == pytest.approx((8 * night + 16 * day) / 24, rel=1e-6)
    assert [p.usd_per_hour for p in plan.schedule] == pytest.approx([night, day], rel=1e-6)


def test_what_is_reserved_stands_all_day(solve: Any) -> None:
    plan = solve({"chat": CHAT}, DAY, markets="reserved_1y")
    assert cost(plan) == pytest.approx(cost(solve({"chat": CHAT}, markets="reserved_1y")), rel=1e-6)
    assert all(len({p.units for p in item.by_period}) == 1 for item in plan.fleet)
    mixed = solve({"chat": CHAT}, DAY)
    assert cost(mixed) <= min(cost(plan), cost(solve({"chat": CHAT}, DAY, markets="on_demand"))) * (1 + 1e-9)


def test_prices_that_fall_are_paid_when_they_have(solve: Any) -> None:
    falling = [{"name": "q1", "hours": 1}, {"name": "q2", "hours": 1, "prices": {"on_demand": 0.5}}]
    plan = solve({"chat": CHAT}, falling, markets="on_demand")
    whole = cost(solve({"chat": CHAT}, markets="on_demand"))
    assert cost(plan) == pytest.approx(0.75 * whole, rel=1e-6)


@pytest.mark.parametrize("survive", ["node", "zone"])
def test_the_demand_is_served_after_a_failure(solve: Any, catalog: Catalog, survive: str) -> None:
    plain, safe = solve({"chat": CHAT}), solve({"chat": CHAT}, survive=survive)
    assert cost(safe) >= cost(plain) * (1 - 1e-9)
    able = {}
    for item in safe.fleet:
        place = (item.provider, item.region) if survive == "zone" else (item.provider, item.instance_type)
        size = item.capacity_requests_per_s * item.replicas
        able[place] = [*able.get(place, []), (size, size / item.units)]
    whole = sum(size for rows in able.values() for size, _ in rows)
    lost = [
        sum(size for size, _ in rows) if survive == "zone" else max(each for _, each in rows) for rows in able.values()
    ]
    assert whole - max(lost) >= 150.0 * (1 - 1e-6)


def test_spot_is_limited_and_kept_in_reserve(solve: Any) -> None:
    free = solve({"chat": CHAT}, markets="on_demand,reserved_1y,spot", spot_reserve="0%")
    held = solve({"chat": CHAT}, markets="on_demand,reserved_1y,spot", spot_reserve="30%")
    some = solve({"chat": CHAT}, markets="on_demand,reserved_1y,spot", max_spot_share="25%")
    assert cost(free) <= cost(held) * (1 + 1e-9) and cost(free) <= cost(some) * (1 + 1e-9)
    for plan, reserve in ((free, 0.0), (held, 0.3)):
        for item in plan.fleet:
            if item.market == "spot":
                able = item.capacity_requests_per_s * item.replicas
                assert item.requests_per_s <= able * (1 - reserve) * (1 + 1e-6)
    on_spot = sum(i.requests_per_s for i in some.fleet if i.market == "spot")
    assert on_spot <= 0.25 * 150.0 * (1 + 1e-6)


def test_profit_serves_what_pays(solve: Any) -> None:
    rich = solve({"chat": {**CHAT, "price": {"output": "$5"}}}, objective="profit")
    assert rich.requests_per_s == pytest.approx(150.0, rel=1e-6) and rich.profit_usd_per_hour > 0
    both = solve(
        {"chat": {**CHAT, "price": {"output": "$5"}}, "code": {**CODE, "price": {"output": "$0.00001"}}},
        objective="profit",
    )
    assert both.profit_usd_per_hour >= rich.profit_usd_per_hour * (1 - 1e-6)
    assert [c.name for c in both.classes] == ["chat"]


def test_a_small_change_of_demand_leaves_the_fleet_alone(solve: Any, tmp_path: Path) -> None:
    first = solve({"chat": CHAT, "code": CODE})
    path = tmp_path / "plan.json"
    path.write_text(first.model_dump_json(), encoding="utf-8")
    again = solve({"chat": CHAT, "code": CODE}, current=str(path), change_usd_per_gpu=100.0)
    assert again.changes == () and cost(again) == pytest.approx(cost(first))
    more = solve({"chat": {**CHAT, "demand": "153req/s"}, "code": CODE}, current=str(path), change_usd_per_gpu=100.0)
    assert sum(abs(c.after - c.before) for c in more.changes) <= 2


def test_units_without_a_type_are_those_of_the_offer_that_they_may_be(solve: Any) -> None:
    """What a fleet file leaves out is not a change: not all units sold and bought again under their full name."""
    today = [{"accelerator": "l40s", "provider": "north", "market": "on_demand", "units": 2}]
    plan = solve({"chat": {**CHAT, "demand": "5req/s"}}, current=today, gpus="l40s")
    units = sum(item.units for item in plan.fleet)
    expected = [] if units == 2 else [("l40s", "n1", "l1", 2, units)]
    assert [(c.accelerator, c.region, c.instance_type, c.before, c.after) for c in plan.changes] == expected
    gone = solve({"chat": {**CHAT, "demand": "5req/s"}}, current=[{**today[0], "provider": "west"}], gpus="l40s")
    assert [(c.provider, c.before, c.after) for c in gone.changes] == [("north", 0, units), ("west", 2, 0)]


def test_where_nothing_pays_nothing_is_bought_and_the_answer_says_so(solve: Any) -> None:
    poor = {"chat": {**CHAT, "price": {"output": "$0.00001"}}}
    with pytest.raises(InputError, match=r"no part of the demand pays: to serve all of it costs \$\d.*earns \$0\.01/h"):
        solve(poor, objective="profit")
    with pytest.raises(InputError, match=r"'1e-12req/s' is below 0\.0001 req/s"):
        solve({"chat": {**CHAT, "demand": "1e-12req/s"}})


def test_what_binds_a_class_in_a_period_names_the_class(solve: Any) -> None:
    priced = {"chat": {**CHAT, "price": {"output": "$5"}}, "code": {**CODE, "price": {"output": "$5"}}}
    plan = solve(priced, DAY, objective="profit")
    said = [b.detail for b in plan.binding if b.constraint == "demand"]
    assert "40 of 40 req/s of code in day" in said and "30 of 30 req/s of chat in night" in said


def test_a_class_that_nothing_is_asked_of_is_mentioned(solve: Any) -> None:
    idle = [{"name": "day", "hours": 16, "demand": {"chat": 1.0, "code": 0.0}}]
    plan = solve({"chat": CHAT, "code": CODE}, idle)
    assert [c.name for c in plan.classes] == ["chat"]
    assert "nothing is asked of code in any period, and nothing bought for it" in plan.assumptions


def test_carbon_that_nobody_knows_is_what_stands_in_the_way(solve: Any) -> None:
    plan = solve({"chat": CHAT, "code": CODE}, objective="carbon")
    assert plan.status is Status.INFEASIBLE
    assert [near.constraint for near in plan.nearest_feasible] == ["carbon"]


def test_power_of_one_region(solve: Any) -> None:
    free = solve({"chat": CHAT}, markets="on_demand")
    south = sum(i.power_kw for i in free.fleet if i.region == "s1")
    tight = solve({"chat": CHAT}, markets="on_demand", site_power={"s1": f"{south / 2 + 1:.3f}kW"})
    assert sum(i.power_kw for i in tight.fleet if i.region == "s1") <= south / 2 + 1 + 1e-6
    with pytest.raises(InputError, match="no offer is in nowhere"):
        solve({"chat": CHAT}, site_power={"nowhere": "1MW"})


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"objective": "profit"}, "needs what tokens earn"),
        ({"objective": "cost,cost"}, "names one twice"),
        ({"objective": "joy"}, "is not one of"),
        ({"objective": "throughput"}, "leave --demand out"),
        ({"survive": "war"}, "is not one of"),
        ({"max_spot_share": "120%"}, "is not a share"),
        ({"spot_reserve": "x"}, "is not a share"),
        ({"max_carbon_kg_per_hour": -1.0}, "above zero"),
        ({"current": "nowhere.json"}, "cannot be read"),
        ({"current": [{"accelerator": "h100_sxm"}]}, "fleet[0]"),
        ({"current": {"units": 3}}, "not a fleet"),
        ({"model": "qwen3-8b"}, "give one of them"),
        ({"demand": "3req/s"}, "give one of them"),
        ({"change_usd_per_gpu": 100.0}, "give that fleet with --current"),
    ],
)
def test_what_is_refused(solve: Any, request_: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as refused:
        solve({"chat": CHAT}, **request_)
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_some_demands_and_not_others(solve: Any) -> None:
    with pytest.raises(InputError, match="code has no demand"):
        solve({"chat": CHAT, "code": {k: v for k, v in CODE.items() if k != "demand"}})


CLOUD = """\
provider,region,instance_type,accelerator,accelerator_count,market,usd_per_hour
aws,us-east-1,h8,h100_sxm,8,on_demand,20.0
aws,eu-north-1,h8,h100_sxm,8,on_demand,24.0
aws,atlantis-1,h8,h100_sxm,8,on_demand,1.0
"""


@pytest.fixture(scope="module")
def clouds(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("clouds") / "clouds.csv"
    path.write_text(CLOUD, encoding="utf-8")
    return str(path)


def test_carbon_as_goal_limit_and_price(solve: Any, clouds: str) -> None:
    """Sweden's electricity emits a ninth of Virginia's; what nobody knows the electricity of is not judged."""
    where = {"prices": clouds, "gpus": "h100_sxm"}
    cheap = solve({"chat": CHAT}, carbon_usd_per_tonne=1e-6, **where)
    assert {i.region for i in cheap.fleet} == {"us-east-1"}
    clean = solve({"chat": CHAT}, objective="carbon,cost", **where)
    assert {i.region for i in clean.fleet} == {"eu-north-1"}
    assert clean.carbon_kg_per_hour < cheap.carbon_kg_per_hour / 3
    limited = solve({"chat": CHAT}, max_carbon_kg_per_hour=clean.carbon_kg_per_hour * 1.001, **where)
    assert limited.carbon_kg_per_hour <= clean.carbon_kg_per_hour * 1.001
    dear = solve({"chat": CHAT}, carbon_usd_per_tonne=5_000.0, **where)
    assert {i.region for i in dear.fleet} == {"eu-north-1"}
    charge = dear.carbon_kg_per_hour / 1000.0 * 5_000.0
    assert cost(dear) == pytest.approx(sum(i.units * i.usd_per_unit_hour for i in dear.fleet) + charge)
    none = solve({"chat": CHAT}, max_carbon_kg_per_hour=clean.carbon_kg_per_hour / 2, **where)
    assert none.status is Status.INFEASIBLE and "carbon" in {n.constraint for n in none.nearest_feasible}


OWNED = """\
observed_on: 2026-11-24
cost_of_capital: 0.1
life_years: 4
colocation_usd_per_kw_month: 160
pue: 1.2
usd_per_kwh_by_hour: [{hours}]
carbon_g_per_kwh: 300
lots:
  - {{accelerator: h100_sxm, capex_usd: {{server: 30000, network: 4000, storage: 500, install: 500}}}}
"""


def test_electricity_by_the_hour_is_paid_by_the_hour(solve: Any, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(OWNED.format(hours=", ".join(["0.02"] * 12 + ["0.18"] * 12)), encoding="utf-8")
    halves = [{"name": "am", "hours": 12, "start_hour": 0}, {"name": "pm", "hours": 12, "start_hour": 12}]
    own = {"prices": None, "owned": str(path), "gpus": "h100_sxm", "markets": "owned"}
    plan, flat = solve({"chat": CHAT}, halves, **own), solve({"chat": CHAT}, **own)
    assert cost(plan) == pytest.approx(cost(flat), rel=1e-6)
    am, pm = plan.schedule
    assert am.usd_per_hour < flat.usd_per_hour < pm.usd_per_hour
    assert am.units == pm.units
