"""plan --verify: what a simulation finds is cut, and the plan solved again until it holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import tokopt
from tokopt.api import verifying
from tokopt.api.cuts import cut_of, limits_to_plan_for
from tokopt.api.planning import solve_request
from tokopt.api.simulated_fleet import simulated_fleet
from tokopt.api.simulating import simulate_plan
from tokopt.catalog import Catalog
from tokopt.domain.demand import PlanPeriod
from tokopt.domain.plans import FleetItem, Plan, Status
from tokopt.domain.simulations import Simulation, SimulationSettings, Verdict
from tokopt.domain.verifying import CapacityCut

ASKED: dict[str, Any] = {"model": "llama-3.1-8b", "gpus": "h100_sxm", "power": "60kW", "workload": "chat"}
SLA = "tpot=20ms,ttft=500ms"
SMALL = SimulationSettings(requests=300, replications=2)


@pytest.fixture(scope="module")
def plain(catalog: Catalog) -> Plan:
    return tokopt.plan(sla=SLA, catalog=catalog, **ASKED)


@pytest.fixture(scope="module")
def seen(catalog: Catalog, plain: Plan) -> Simulation:
    """A real simulation, whose figures tests replace."""
    return simulate_plan(catalog, plain, SMALL)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifying, "LOOK", SMALL)
    monkeypatch.setattr(verifying, "_whole", lambda seed: SMALL.model_copy(update={"seed": seed + 1}))
    return


def pretending(
    monkeypatch: pytest.MonkeyPatch, seen: Simulation, ttft_over_planned: Callable[[FleetItem, float], float]
) -> list[float]:
    """Simulations in which the TTFT at p99 is a multiple of the planned one, by item and load; returns the loads."""
    loads: list[float] = []

    def simulated(catalog: Catalog, plan: Plan, settings: SimulationSettings, **rest: Any) -> Simulation:
        loads.append(settings.load)
        item = plan.fleet[0]
        ttft = item.ttft_ms.p99 * ttft_over_planned(item, settings.load)
        (each,) = seen.classes
        assert each.ttft_ms is not None and each.tpot_ms is not None
        told = each.model_copy(
            update={
                "ttft_ms": each.ttft_ms.model_copy(update={"p99": ttft}),
                "tpot_ms": each.tpot_ms.model_copy(update={"p99": item.tpot_ms.p99}),
                "planned_ms": {"ttft": item.ttft_ms.p99, "tpot": item.tpot_ms.p99},
            }
        )
        return seen.model_copy(update={"classes": (told,), "overloaded": False})

    monkeypatch.setattr(verifying, "simulate_plan", simulated)
    return loads


def test_a_plan_that_holds_stays_what_it_is(catalog: Catalog, plain: Plan, small: None) -> None:
    plan = tokopt.plan(sla=SLA, catalog=catalog, verify=True, **ASKED)
    assert plan.verification is not None and plan.verification.holds
    assert len(plan.verification.rounds) == 1
    assert plan.fleet == plain.fleet
    assert plan.request == plain.request  # nothing was cut
    (each,) = plan.verification.classes
    assert each.verdicts.keys() == {"tpot", "ttft"}
    assert Plan.model_validate_json(plan.model_dump_json()) == plan


def test_what_is_missed_is_cut_until_it_holds(
    catalog: Catalog, plain: Plan, seen: Simulation, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as a replica gets more than 90 % of what the first plan gives it, it misses its limit."""
    capacity = {item.deployment: item.capacity_requests_per_s for item in plain.fleet}

    def longer(item: FleetItem, load: float) -> float:
        rate = load * item.requests_per_s / item.replicas
        return 0.9 if rate <= 0.9 * capacity.get(item.deployment, 1e9) else 500.0

    pretending(monkeypatch, seen, longer)
    plan = tokopt.plan(sla=SLA, catalog=catalog, verify=True, **ASKED)
    found = plan.verification
    assert found is not None and found.holds
    assert [each.items[0].verdict for each in found.rounds][-1] is Verdict.KEPT
    assert found.rounds[0].items[0].verdict is Verdict.MISSED
    for item in plan.fleet:
        assert item.requests_per_s / item.replicas <= 0.9 * capacity.get(item.deployment, 1e9) * (1 + 1e-9)
    before, after = plain.usd_per_million_output_tokens, plan.usd_per_million_output_tokens
    assert before is not None and after is not None and after >= before


def test_the_request_of_a_verified_plan_gives_it_again_without_simulating(
    catalog: Catalog, plain: Plan, seen: Simulation, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretending(monkeypatch, seen, lambda item, load: 0.9 if load * item.load <= 0.8 * plain.fleet[0].load else 500.0)
    plan = tokopt.plan(sla=SLA, catalog=catalog, verify=True, **ASKED)
    assert plan.request.capacity_cuts
    again = solve_request(plan.request, catalog)
    assert again.fleet == plan.fleet
    assert again.usd_per_hour == plan.usd_per_hour
    assert tokopt.check(plan, catalog=catalog) == []


def test_nothing_is_left_where_no_load_holds(
    catalog: Catalog, seen: Simulation, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = pretending(monkeypatch, seen, lambda item, load: 500.0)
    monkeypatch.setattr(verifying, "MOST_ROUNDS", 4)
    plan = tokopt.plan(sla=SLA, catalog=catalog, verify=True, **ASKED)
    assert min(loads) == min(verifying.SHARES)
    if plan.status is Status.INFEASIBLE:
        assert plan.verification is not None and not plan.verification.holds
    else:  # rounds ran out
        assert plan.verification is not None and not plan.verification.holds
        assert "no fixed point" in plan.verification.note


def test_where_less_load_does_not_help_set_ups_are_searched_with_a_margin(
    catalog: Catalog, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first set-up takes a fifth longer than its limit at any load: only quicker ones will do."""
    tight = "tpot=20ms,ttft=160ms"
    plain = tokopt.plan(sla=tight, catalog=catalog, **ASKED)
    first, limit = plain.fleet[0].deployment, 160.0
    seen = simulate_plan(catalog, plain, SMALL)

    def longer(item: FleetItem, load: float) -> float:
        return 1.2 * limit / item.ttft_ms.p99 if item.deployment == first else 0.5

    pretending(monkeypatch, seen, longer)
    plan = tokopt.plan(sla=tight, catalog=catalog, verify=True, **ASKED)
    assert plan.verification is not None and plan.verification.holds
    assert all(item.deployment != first for item in plan.fleet)
    margins = plan.request.limit_margins
    assert 0.0 < margins["chat"]["ttft"] <= 1.0 - verifying.LEAST_MARGIN
    assert "tpot" not in margins["chat"]
    (asked,) = plan.request.served_classes()
    assert limits_to_plan_for(plan.request, asked).ttft_ms == pytest.approx(limit * margins["chat"]["ttft"])
    assert tokopt.check(plan, catalog=catalog) == []


def test_a_cut_of_its_own_comes_before_that_of_its_kind(plain: Plan) -> None:
    deployment = plain.fleet[0].deployment
    kind = {"of_class": "chat", "accelerator": deployment.accelerator, "mode": deployment.mode}
    other = deployment.model_copy(update={"chunk_tokens": 1234})
    request = plain.request.model_copy(
        update={
            "capacity_cuts": (
                CapacityCut(**kind, factor=0.8),
                CapacityCut(**kind, deployment=deployment, factor=0.9),
            )
        }
    )
    assert cut_of(request, "chat", deployment) == 0.9
    assert cut_of(request, "chat", other) == 0.8
    assert cut_of(request, "another", deployment) == 1.0
    assert cut_of(plain.request, "chat", deployment) == 1.0


def test_a_cut_is_of_the_rate_that_was_simulated_the_busiest_period_s(
    catalog: Catalog, seen: Simulation, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replicas bear nine tenths of the rate of the day, which is far above the mean of day and night."""
    day = [{"name": "night", "hours": 12, "demand": 0.4}, {"name": "day", "hours": 12, "demand": 1.6}]
    chat = {"model": "llama-3.1-8b", "workload": "chat", "demand": "60req/s", "sla": SLA}
    plan = tokopt.plan(catalog=catalog, workloads={"workloads": {"chat": chat}, "periods": day}, gpus="h100_sxm")
    pretending(monkeypatch, seen, lambda item, load: 0.5 if load <= 0.9 else 500.0)
    known = verifying._Known(catalog, 0)
    looks = known.looked_at(plan, lambda doing, done: None)
    for item, look in zip(plan.fleet, looks, strict=True):
        assert look.factor == 0.9
        assert look.requests_per_s == item.busiest_requests_per_s
        borne = 0.9 * item.busiest_requests_per_s / item.capacity_requests_per_s
        assert known.factors["chat", item.deployment] == pytest.approx(borne)
    assert any(
        look.requests_per_s > 1.05 * i.requests_per_s / i.replicas for i, look in zip(plan.fleet, looks, strict=True)
    )


def test_replicas_alike_that_serve_another_class_are_simulated_by_tables_of_their_own(
    catalog: Catalog, small: None
) -> None:
    service = {"model": "llama-3.1-8b", "sla": "tpot=60ms,ttft=2s"}
    short = service | {"input_tokens": 100, "output_tokens": 50, "demand": "100req/s"}
    long = service | {"input_tokens": 4000, "output_tokens": 800, "demand": "20req/s"}
    plan = tokopt.plan(catalog=catalog, workloads={"workloads": {"short": short, "long": long}}, gpus="h100_sxm")
    item = next(each for each in plan.fleet if each.of_class == "long")
    same = plan.model_copy(update={"fleet": (item.model_copy(update={"share_of_traffic": {"short": 1.0}}), item)})
    known = verifying._Known(catalog, 0)
    known.looked_at(same, lambda doing, done: None)
    of_their_own = simulated_fleet(catalog, same, SMALL)
    used = simulated_fleet(catalog, same, SMALL, known.kinds)
    tokens = [part.kind.most_tokens for part in of_their_own.parts]
    held = [part.kind.fields for part in of_their_own.parts]
    assert held[0] != held[1]
    assert [part.kind.fields for part in used.parts] == held
    assert [part.kind.most_tokens for part in used.parts] == tokens


def test_the_report_shows_both(catalog: Catalog, plain: Plan, small: None) -> None:
    from rich.console import Console

    from tokopt.report import verification
    from tokopt.report.plan import plan_report

    plan = tokopt.plan(sla=SLA, catalog=catalog, verify=True, **ASKED)
    assert plan.verification is not None
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(plan_report(plan))
    text = console.export_text()
    assert "Simulated before it was recommended" in text
    assert "planned" in text and "simulated" in text and "Holds in simulation" in text
    assert "in no other" not in text
    night = PlanPeriod(name="night", hours=8)
    asked = plan.request.model_copy(update={"periods": (night, night.model_copy(update={"name": "day"}))})
    lines = verification._said(plan.model_copy(update={"request": asked}), plan.verification)
    assert "then the whole fleet in the period with the highest load, and in no other" in lines[-1]
