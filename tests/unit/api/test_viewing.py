"""Plans as a page shows them: what is said agrees with the plans."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import tokopt
from tokopt.api.viewing import check_model, check_price_file, choices, compare_plans, published_model, view_plan
from tokopt.catalog import Catalog
from tokopt.domain.plans import Plan
from tokopt.errors import InputError


@pytest.fixture(scope="module")
def plans(catalog: Catalog) -> tuple[Plan, Plan]:
    asked = {"model": "qwen3-8b", "workload": "chat", "sla": "50ms", "catalog": catalog}
    return (
        tokopt.plan(power="30kW", gpus="h100_sxm", **asked),
        tokopt.plan(power="60kW", gpus="h200_sxm", **asked),
    )


def test_a_view_is_of_its_plan(catalog: Catalog, plans: tuple[Plan, Plan]) -> None:
    view = view_plan(plans[0], catalog)
    assert view.plan is plans[0] and len(view.setups) == len(plans[0].fleet)
    assert f"{sum(item.gpus for item in plans[0].fleet):,} {view.titles['h100_sxm']}" in view.sentence
    for figure in view.headline:
        assert figure.value == getattr(plans[0], figure.name) and figure.text and figure.range_text
        assert figure.interval is None or figure.interval.low <= figure.value <= figure.interval.high
    assert [name for name, _ in view.worth] == [
        f"one more {each.unit} of {each.of}"
        for each in plans[0].marginal
        if each.output_tokens_per_s is not None or each.usd_per_hour is not None
    ]


def test_comparing_is_the_same_either_way_round(catalog: Catalog, plans: tuple[Plan, Plan]) -> None:
    there, back = compare_plans(*plans, catalog), compare_plans(*reversed(plans), catalog)
    for one, other in zip(there.figures, back.figures, strict=True):
        assert (one.first, one.second) == (other.second, other.first)
        assert one.change_percent is not None and other.change_percent is not None
        assert (1 + one.change_percent / 100) * (1 + other.change_percent / 100) == pytest.approx(1.0)
    bought = {each.accelerator: (each.first_gpus, each.second_gpus) for each in there.machines}
    assert bought == {
        "h100_sxm": (sum(item.gpus for item in plans[0].fleet), 0),
        "h200_sxm": (0, sum(item.gpus for item in plans[1].fleet)),
    }
    asked = {each.field: (each.first, each.second) for each in there.asked}
    assert asked == {"power_kw": ("30", "60"), "accelerators": ("h100_sxm", "h200_sxm")}


def test_an_infeasible_plan_is_compared_too(catalog: Catalog, plans: tuple[Plan, Plan]) -> None:
    none = tokopt.plan(model="qwen3-8b", workload="chat", sla="0.1ms", power="30kW", gpus="h100_sxm", catalog=catalog)
    found = compare_plans(plans[0], none, catalog)
    assert found.second.headline == () and found.second.setups == ()
    assert all(each.second is None and each.change_percent is None for each in found.figures)
    assert [(each.first_gpus > 0, each.second_gpus) for each in found.machines] == [(True, 0)]


def test_every_price_list_that_is_offered_can_be_read(catalog: Catalog) -> None:
    for each in choices(catalog).price_lists:
        assert catalog.price_list([each.name], strict=False).name == each.name


def test_published_names_find_their_model(catalog: Catalog) -> None:
    for llm in catalog.llms.values():
        for alias in llm.aliases:
            assert published_model(catalog, alias.upper()) == llm.name
    with pytest.raises(InputError, match="unknown language model 'etc/passwd'"):
        published_model(catalog, "etc/passwd")


def test_files_are_summed_up(catalog: Catalog, tmp_path: Path) -> None:
    prices = tmp_path / "mine.csv"
    prices.write_text("accelerator,accelerator_count,usd_per_hour\nh100_sxm,8,16\nh200_sxm,8,x\n")
    found = check_price_file(str(prices), catalog)
    assert found.summary == "1 offer of 1 kind of accelerator" and len(found.notes) == 1
    assert found.notes[0].startswith("1 row not used: ")
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(InputError, match="hidden_size"):
        check_model(str(config), catalog)
