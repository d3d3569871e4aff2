"""Plans that were edited by hand: simulated and tuned as they are, or refused in one line before any work is done."""

from __future__ import annotations

import json
from typing import Any

import pytest

import tokopt
from tokopt.api.planning import solve_request
from tokopt.catalog import Catalog
from tokopt.domain.plans import FleetItem, Plan
from tokopt.errors import InputError

NAN = float("nan")
DAY = [{"name": "night", "hours": 8, "demand": 0.4}, {"name": "day", "hours": 16, "demand": 1.6}]
CHAT = {
    "model": "qwen3-8b",
    "input_tokens": 1000,
    "output_tokens": 200,
    "demand": "400req/s",
    "sla": "tpot=30ms,ttft=1s",
}
ITEM = r"^fleet item 1: "


@pytest.fixture(scope="module")
def plan(catalog: Catalog) -> Plan:
    asked = {"workloads": {"chat": CHAT}, "periods": DAY}
    return tokopt.plan(catalog=catalog, workloads=asked, gpus="h100_sxm", modes="agg")


def edited(plan: Plan, path: str, value: Any) -> dict[str, Any]:
    """Return a plan's document with a value replaced; `*` stands for all elements of a list."""
    document: dict[str, Any] = json.loads(plan.model_dump_json())
    places: list[Any] = [document]
    *inner, last = path.split(".")
    for key in inner:
        places = [each for place in places for each in (place if key == "*" else [place[_key(key)]])]
    for place in places:
        place[_key(last)] = value
    return document


def _key(text: str) -> str | int:
    return int(text) if text.isdigit() else text


EDITS = [
    ("fleet.0.share_of_traffic", {}, ITEM + "it serves '', which is not one of chat"),
    ("fleet.0.share_of_traffic", {"zzz": 1.0}, ITEM + "it serves 'zzz', which is not one of chat"),
    ("fleet.0.replicas", 0, ITEM + "replicas 0 cannot be: at least 1 can"),
    ("fleet.0.units", 0, ITEM + "units 0 cannot be"),
    ("fleet.0.concurrency_per_replica", 0, ITEM + "a running cap of 0 is not from 1 to 1,000,000"),
    ("fleet.0.usd_per_hour", NAN, ITEM + "usd_per_hour nan cannot be: a number from 0 can"),
    ("fleet.0.e2e_ms.mean", 0.0, ITEM + r"e2e_ms\.mean 0 is not above 0 and at most 1e\+09"),
    ("fleet.0.e2e_ms.p99", 1e308, ITEM + r"e2e_ms\.p99 1e\+308 is not above 0 and at most 1e\+09"),
    ("fleet.0.by_period.*.units", 0, ITEM + "by_period has no units in any period"),
    ("fleet.0.by_period.0.units", -1, ITEM + r"by_period\[0\]\.units -1 cannot be: at least 0 can"),
    ("fleet.0.by_period", [], ITEM + "by_period has 0 elements, but the plan has 2 periods"),
    ("fleet.0.by_period.1.requests_per_s", NAN, ITEM + r"by_period\[1\]\.requests_per_s nan cannot be"),
    ("fleet.0.by_period.*.load", NAN, ITEM + r"by_period\[0\]\.load nan cannot be"),
    ("fleet.0.deployment.layout", None, ITEM + r"deployment\.layout is missing"),
    ("fleet.0.deployment.accelerator", "", "unknown accelerator ''"),
    ("request.limit_margins", {"chat": {"zzz": 0.5}}, "limit_margins.chat.zzz.*'ttft', 'tpot' or 'e2e'"),
    ("request.limit_margins", {"chat": {"ttft": 0.0}}, "limit_margins.chat.ttft: Input should be greater than 0"),
    (
        "request.limit_margins",
        {"chat": {"ttft": 1.5}},
        "limit_margins.chat.ttft: Input should be less than or equal to 1",
    ),
    ("request.classes.0.workload.arrival_cv2", 1e-310, "arrival_cv2: 0, or from 1e-06 to 1000"),
]
ONLY_TUNED = [
    ("usd_per_million_output_tokens", None, "^usd_per_million_output_tokens: the plan states no price"),
    ("fleet.0.deployment.accelerator", "h100", ITEM + "accelerator 'h100' is h100_sxm in plans"),
    ("fleet.0.deployment.speculation_depth", 2, ITEM + "speculation_depth 2 is not possible"),
    ("fleet.0.by_period.*.requests_per_s", 0.0, "^the fleet serves no requests, so there is nothing to tune"),
]


@pytest.mark.parametrize(("path", "value", "said"), EDITS)
def test_what_no_plan_has_is_one_line(catalog: Catalog, plan: Plan, path: str, value: Any, said: str) -> None:
    document = edited(plan, path, value)
    for attempt in (
        lambda: tokopt.simulate(document, catalog=catalog, requests=100, replications=1, node_mtbf_hours=1000.0),
        lambda: tokopt.tune(document, catalog=catalog, trials=1, requests=200, replications=2),
    ):
        with pytest.raises(InputError, match=said) as error:
            attempt()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(("path", "value", "said"), ONLY_TUNED)
def test_what_cannot_be_tuned_is_one_line(catalog: Catalog, plan: Plan, path: str, value: Any, said: str) -> None:
    document = edited(plan, path, value)
    if path.endswith("depth"):
        document["fleet"][0]["deployment"]["speculator"] = None
    with pytest.raises(InputError, match=said) as error:
        tokopt.tune(document, catalog=catalog, trials=1, requests=200, replications=2)
    assert "\n" not in str(error.value)


def test_a_margin_of_a_limit_that_there_is_not_changes_nothing(catalog: Catalog, plan: Plan) -> None:
    spare = Plan.model_validate_json(json.dumps(edited(plan, "request.limit_margins", {"chat": {"e2e": 0.5}})))
    few: dict[str, Any] = {"catalog": catalog, "requests": 100, "replications": 1}
    assert tokopt.simulate(spare, **few) == tokopt.simulate(plan, **few)
    assert solve_request(spare.request, catalog).fleet == plan.fleet


def test_the_busiest_period_is_what_a_replica_is_judged_by(plan: Plan) -> None:
    (item,) = plan.fleet
    night, day = item.by_period
    assert item.busiest in (night, day) and item.busiest is not None
    assert item.busiest.load == max(night.load, day.load) == pytest.approx(item.load)
    running = item.replicas_with(item.busiest.units)
    assert item.busiest_requests_per_s == pytest.approx(item.busiest.requests_per_s / running)
    assert item.replicas_with(max(night.units, day.units)) == item.replicas > item.replicas_with(0) == 0
    alone = FleetItem.model_validate(item.model_dump() | {"by_period": ()})
    assert alone.busiest is None and alone.busiest_requests_per_s == item.requests_per_s / item.replicas
