"""What plans say of all-to-alls: whether links carry them, and from what batch on they bind."""

from __future__ import annotations

import pytest

import tokopt
from tokopt.catalog import Catalog
from tokopt.domain.plans import AllToAll, Plan


@pytest.fixture(scope="module")
def plan(catalog: Catalog) -> Plan:
    return tokopt.plan(power="1MW", sla="50ms", gpus="h100_sxm", disable="two_batch_overlap", catalog=catalog)


def stated(plan: Plan) -> AllToAll:
    found = plan.fleet[0].all_to_all
    assert found is not None
    return found


def test_a_plan_says_what_they_take_of_a_step(catalog: Catalog, plan: Plan) -> None:
    found = stated(plan)
    assert 0.0 < found.share < 1.0 and found.hidden_share == 0.0
    # Of the rest of the step nearly all is computing: what else links carry is small in this layout.
    assert found.headroom == pytest.approx((1.0 - found.share) / found.share, rel=0.1)
    assert found.binds_from is None and found.answer.startswith("carries it: at most")
    assert tokopt.check(plan, catalog=catalog) == []


def test_the_checker_works_it_out_by_itself(catalog: Catalog, plan: Plan) -> None:
    item = plan.fleet[0]
    for forged, why in ((stated(plan).model_copy(update={"share": 0.5}), "all_to_all share"), (None, "not stated")):
        other = item.model_copy(update={"all_to_all": forged})
        faults = tokopt.check(plan.model_copy(update={"fleet": (other, *plan.fleet[1:])}), catalog=catalog)
        assert any(why in fault for fault in faults), faults


def test_halves_hide_part_of_them(catalog: Catalog) -> None:
    plan = tokopt.plan(
        power="1MW", sla="100ms", gpus="h100_sxm", frameworks="sglang", precisions="fp8", catalog=catalog,
        exclude="", modes="disagg", model="deepseek-r1", isl=2048, osl=2048,
    )  # fmt: skip
    found = plan.fleet[0].all_to_all
    decode = plan.fleet[0].deployment.decode
    assert found is not None and decode is not None
    assert (found.hidden_share > 0.0) == decode.layout.two_batch_overlap
    assert tokopt.check(plan, catalog=catalog) == []


def test_dense_models_have_none(catalog: Catalog) -> None:
    plan = tokopt.plan(power="100kW", sla="50ms", gpus="h100_sxm", model="llama-3.1-8b", catalog=catalog)
    assert all(item.all_to_all is None for item in plan.fleet)
