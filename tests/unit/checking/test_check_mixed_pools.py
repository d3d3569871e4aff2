"""What the checker says of replicas on two accelerators: nothing of sound ones, and each figure that is changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tokopt
from tokopt.catalog import Catalog
from tokopt.domain.plans import FleetItem, Plan

PRICES = """\
provider,region,instance_type,accelerator,accelerator_count,market,usd_per_hour,available_units
acme,north,h100x8,h100_sxm,8,on_demand,16.0,40
acme,north,h200x8,h200_sxm,8,on_demand,20.0,
acme,north,h100x4,h100_sxm,4,on_demand,8.0,
"""
Edit = Callable[[FleetItem], dict[str, Any]]


@pytest.fixture(scope="module")
def plan(catalog: Catalog, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    path = tmp_path_factory.mktemp("prices") / "list.csv"
    path.write_text(PRICES, encoding="utf-8")
    request: dict[str, Any] = {"model": "llama-3.1-70b", "workload": "agentic", "demand": "60req/s", "sla": "50ms"}
    narrow = {"frameworks": "vllm", "precisions": "bf16,fp8", "kv_precisions": "fp8", "power": "2MW"}
    found = tokopt.plan(catalog=catalog, prices=str(path), mixed_pools=True, **request, **narrow)
    assert found.fleet[0].parts
    return found


def tampered(plan: Plan, edit: Edit) -> Plan:
    first, *rest = plan.fleet
    return plan.model_copy(update={"fleet": (first.model_copy(update=edit(first)), *rest)})


def part(number: int, **update: Any) -> Edit:
    """Return an edit of one part of an item."""

    def edit(item: FleetItem) -> dict[str, Any]:
        parts = list(item.parts)
        known = {name: value(parts[number]) if callable(value) else value for name, value in update.items()}
        parts[number] = parts[number].model_copy(update=known)
        return {"parts": tuple(parts)}

    return edit


def deployed(item: FleetItem, **update: Any) -> dict[str, Any]:
    return {"deployment": item.deployment.model_copy(update=update)}


def test_a_sound_plan_has_no_fault(plan: Plan, catalog: Catalog) -> None:
    assert not tokopt.check(plan, catalog=catalog)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda item: {"parts": ()}, "parts are []"),
        (lambda item: {"parts": item.parts[::-1]}, "parts are"),
        (part(1, accelerator="h200_sxm"), "parts are"),
        (part(1, units=lambda p: p.units + 1), "units of 8 hold"),
        (part(1, units=lambda p: p.units - 1, gpus=lambda p: p.gpus - 8), "prefill workers of"),
        (part(0, units=lambda p: p.units - 1, gpus=lambda p: p.gpus - 8), "decode workers of"),
        (part(1, usd_per_unit_hour=15.0), "usd_per_unit_hour is 15"),
        (part(1, usd_per_hour=lambda p: p.usd_per_hour * 0.9), "sum over its parts"),
        (part(0, nodes=1), "nodes is 1"),
        (part(1, rated_kw=1.0), "rated_kw"),
        (part(1, provisioned_kw=1.0), "provisioned_kw"),
        (part(1, instance_type="h100x9"), "no offer of"),
        (
            part(1, gpus_per_unit=4, units=lambda p: 2 * p.units, instance_type="h100x4", usd_per_unit_hour=8.0),
            "no fast network",
        ),
        (lambda item: {"gpus": item.gpus + 8}, "gpus is"),
        (lambda item: {"power_kw": (item.power_kw or 0.0) * 0.5}, "power_kw is"),
        (lambda item: {"drawn_kw": 0.1}, "drawn_kw is"),
        (lambda item: {"usd_per_hour": item.usd_per_hour - 16.0}, "usd_per_hour is"),
        (lambda item: {"gpus_per_unit": 4}, "its part that decodes says"),
        (lambda item: {"features": {**item.features, "prefill_accelerator": "h200_sxm"}}, "features is"),
        (lambda item: {"ttft_ms": item.ttft_ms.model_copy(update={"p99": 1.0})}, "ttft_ms p99 is 1"),
        (
            lambda item: deployed(item, decode=item.deployment.decode.model_copy(update={"accelerator": "h100_sxm"})),
            "decode pool is on h100_sxm",
        ),
        (
            lambda item: deployed(item, decode=item.deployment.decode.model_copy(update={"accelerator": None})),
            "does not state its own",
        ),
        (
            lambda item: deployed(item, prefill=item.deployment.prefill.model_copy(update={"accelerator": "h300"})),
            "'h300' is not in the catalog",
        ),
        (
            lambda item: deployed(item, prefill=item.deployment.prefill.model_copy(update={"accelerator": "l40s"})),
            "parts are",
        ),
    ],
)
def test_what_is_tampered_with_is_named(plan: Plan, catalog: Catalog, edit: Edit, said: str) -> None:
    faults = tokopt.check(tampered(plan, edit), catalog=catalog)
    assert any(said in fault for fault in faults), faults


def test_each_pool_needs_its_own_accelerators_features_only(catalog: Catalog, tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    header = PRICES.splitlines()[0]
    path.write_text(
        f"{header}\nacme,north,h200x8,h200_sxm,8,on_demand,20.0,\nacme,north,l40sx8,l40s,8,on_demand,5.0,40\n",
        encoding="utf-8",
    )
    request: dict[str, Any] = {"model": "gpt-oss-120b", "demand": "20req/s", "sla": "tpot=50ms,ttft=2s"}
    lengths: dict[str, Any] = {"isl": 65536, "osl": 128, "prefix_share": 0.5}
    found = tokopt.plan(catalog=catalog, prices=str(path), mixed_pools=True, **request, **lengths)
    item = found.fleet[0]
    prefill, decode = item.deployment.prefill, item.deployment.decode
    assert prefill is not None and decode is not None
    # The framework runs steps as halves on one of the two only.
    assert item.accelerator == "l40s" and prefill.layout.two_batch_overlap and not decode.layout.two_batch_overlap
    assert not tokopt.check(found, catalog=catalog)
    halved = decode.model_copy(update={"layout": decode.layout.model_copy(update={"two_batch_overlap": True})})
    faults = tokopt.check(tampered(found, lambda item: deployed(item, decode=halved)), catalog=catalog)
    assert any("two_batch_overlap, which vllm does not support there" in str(fault) for fault in faults)


def test_stock_power_and_types_are_of_both_parts(plan: Plan, catalog: Catalog) -> None:
    prefill = sum(p.gpus for item in plan.fleet for p in item.bought if p.accelerator == "h100_sxm")
    for update, said in (
        ({"inventory": {"h100_sxm": prefill - 8}}, "inventory"),
        ({"most_accelerator_types": 1}, "most_accelerator_types"),
        ({"accelerators": ("h200_sxm",)}, "accelerator h100_sxm is not among those"),
        ({"excluded_accelerators": ("h100_sxm",)}, "accelerator h100_sxm is excluded"),
        ({"power_kw": 1.0}, "above the limit"),
        ({"mixed_pools": False}, "does not allow"),
    ):
        asked = plan.model_copy(update={"request": plan.request.model_copy(update=update)})
        faults = tokopt.check(asked, catalog=catalog)
        assert any(said in fault for fault in faults), (said, faults)


def test_the_move_is_worked_out_again(plan: Plan, catalog: Catalog) -> None:
    """With the prefill pool said to be on what decodes, first tokens come at another time."""
    first = plan.fleet[0]
    same = first.deployment.model_copy(
        update={
            name: pool.model_copy(update={"accelerator": None})
            for name in ("prefill", "decode")
            if (pool := getattr(first.deployment, name)) is not None
        }
    )
    features = {name: value for name, value in first.features.items() if name != "prefill_accelerator"}
    moved = {"deployment": same, "prefill": same.prefill, "decode": same.decode, "features": features}
    faults = tokopt.check(tampered(plan, lambda item: moved), catalog=catalog)
    assert any("ttft_ms" in fault for fault in faults)
