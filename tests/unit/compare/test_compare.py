"""`compare`: the figures of `plan`, the same on every executor; who wins; what is wrong is said early."""

from __future__ import annotations

import sys
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click
import pytest

import tokopt
from tokopt.api import comparing_cells
from tokopt.api.comparing import prepare_comparison, run_comparison
from tokopt.api.comparing_cells import FIGURES, OF_WINNER
from tokopt.api.comparing_scenarios import words
from tokopt.catalog import Catalog
from tokopt.cli.plan import command as plan_command
from tokopt.domain.comparing import Comparison
from tokopt.errors import InputError

LISTS = "aws,lambda,aws+lambda,ownership-hyperscaler"
SCENARIOS: dict[str, Any] = {
    "small": {"model": "qwen3-8b", "workload": "chat", "sla": "40ms", "demand": "10req/s"},
    "large": {"model": "qwen3-8b", "workload": "chat", "sla": "40ms", "demand": "300req/s"},
    "power": {"model": "qwen3-8b", "workload": "chat", "sla": "40ms", "power": "1MW"},
    "most": {"model": "qwen3-8b", "workload": "chat", "sla": "40ms", "budget": "$400", "objective": "throughput"},
    "big": {"model": "llama-3.1-70b", "workload": "chat", "sla": "tpot=30ms,ttft=1s", "demand": "60req/s"},
    "stock": {
        "model": "llama-3.1-70b",
        "workload": "chat",
        "demand": "60req/s",
        "gpu": ["h100_sxm", "b200_sxm"],
        "inventory": {"h100_sxm": 800, "b200_sxm": 16},
        "max-types": 1,
    },
    "too fast": {"model": "llama-3.1-70b", "workload": "chat", "sla": "tpot=0.1ms", "demand": "60req/s"},
    "not sold": {"model": "qwen3-8b", "workload": "chat", "gpu": "gb300_nvl72", "demand": "60req/s"},
}


@pytest.fixture(scope="module")
def found(catalog: Catalog) -> Comparison:
    return tokopt.compare(SCENARIOS, LISTS, jobs=1, catalog=catalog)


def test_there_is_a_row_a_cell_in_the_order_in_which_they_were_named(found: Comparison) -> None:
    names = [(row.scenario, row.price_list) for row in found.rows]
    assert names == [(scenario, name) for scenario in SCENARIOS for name in LISTS.split(",")]
    assert (found.cells, found.solved, found.kept, found.store) == (32, 32, 0, None)


@pytest.mark.parametrize("scenario", list(SCENARIOS))
@pytest.mark.parametrize("name", ["aws", "lambda", "aws+lambda", "ownership-hyperscaler"])
def test_every_figure_is_that_of_plan(found: Comparison, catalog: Catalog, scenario: str, name: str) -> None:
    row = next(r for r in found.rows if (r.scenario, r.price_list) == (scenario, name))
    options = dict(SCENARIOS[scenario])
    renamed = {"gpu": "gpus", "budget": "budget_usd_per_hour", "max-types": "max_types"}
    request = {renamed.get(key, key): value for key, value in options.items()}
    if "budget_usd_per_hour" in request:
        request["budget_usd_per_hour"] = 400.0
    try:
        plan = tokopt.plan(catalog=catalog, prices=name.split("+"), **request)
    except InputError as error:
        plan, why = None, str(error)
    if plan is None:
        assert row.status == "error" and row.error == why
        return
    assert row.status == plan.status
    assert {f: getattr(row, f) for f in FIGURES} == {f: getattr(plan, f) for f in FIGURES}  # to the last digit
    if plan.fleet:
        most = max(plan.fleet, key=lambda item: item.output_tokens_per_s)
        assert {f: getattr(row, f) for f in OF_WINNER} == {f: str(getattr(most, f)) for f in OF_WINNER}
        assert row.gpus == sum(item.gpus for item in plan.fleet)
        known = plan.interval["usd_per_million_output_tokens"]
        assert (row.usd_per_million_output_tokens_low, row.usd_per_million_output_tokens_high) == (
            known.low,
            known.high,
        )
    else:
        assert plan.nearest_feasible[0].nearest in row.reason


def test_infeasible_and_unanswered_cells_are_rows(found: Comparison) -> None:
    by_name = {(r.scenario, r.price_list): r for r in found.rows}
    assert by_name["too fast", "aws"].status == "infeasible" and "tpot" in by_name["too fast", "aws"].reason
    sold = by_name["not sold", "aws"]
    assert sold.status == "error" and "no offer in aws is left" in sold.error and not sold.defect
    assert by_name["not sold", "ownership-hyperscaler"].best
    assert sold.difference_percent is None


def test_differences_are_to_the_best_list_in_the_objective(found: Comparison) -> None:
    for scenario in SCENARIOS:
        rows = [r for r in found.rows if r.scenario == scenario and r.status in ("optimal", "feasible")]
        if not rows:
            continue
        best = next(r for r in rows if r.best)
        for row in rows:
            assert row.difference_percent is not None and row.difference_percent >= 0.0
            if scenario == "most":
                assert row.output_tokens_per_s and best.output_tokens_per_s
                ratio = best.output_tokens_per_s / row.output_tokens_per_s
            else:
                assert row.usd_per_million_output_tokens and best.usd_per_million_output_tokens
                ratio = row.usd_per_million_output_tokens / best.usd_per_million_output_tokens
            assert row.difference_percent == pytest.approx((ratio - 1.0) * 100.0, abs=1e-6)


def test_a_group_is_never_dearer_than_its_lists(found: Comparison) -> None:
    rows = {(r.scenario, r.price_list): r.usd_per_million_output_tokens for r in found.rows}
    for scenario in ("small", "large", "power", "big"):
        apart = min(rows[scenario, "aws"] or 9e9, rows[scenario, "lambda"] or 9e9)
        assert (rows[scenario, "aws+lambda"] or 9e9) <= apart * (1.0 + 1e-9)


def test_wins_add_up_and_ties_go_to_the_list_named_first(found: Comparison) -> None:
    winners = {winner.scenario: winner for winner in found.winners}
    assert winners["too fast"].price_list is None and "tpot" in winners["too fast"].reason
    assert sum(entry.wins for entry in found.price_lists) == len(SCENARIOS) - 1
    for entry in found.price_lists:
        assert entry.feasible + entry.infeasible + entry.errors == len(SCENARIOS)
    tied = tokopt.compare({"big": SCENARIOS["big"]}, "aws+gcp,aws", jobs=1).winners[0]
    again = tokopt.compare({"big": SCENARIOS["big"]}, "aws,aws+gcp", jobs=1).winners[0]
    assert (tied.price_list, tied.ties, tied.second) == ("aws+gcp", ("aws",), None)
    assert (again.price_list, again.ties, again.second) == ("aws", ("aws+gcp",), None)


@pytest.mark.parametrize("make", ["threads", "spawned", "own processes"])
def test_where_cells_are_solved_changes_nothing(found: Comparison, catalog: Catalog, make: str) -> None:
    prepared = prepare_comparison(SCENARIOS, LISTS, catalog=catalog)
    if make == "own processes":
        assert run_comparison(prepared, jobs=2) == found
        return
    executor: Executor = (
        ThreadPoolExecutor(3) if make == "threads" else ProcessPoolExecutor(2, mp_context=get_context("spawn"))
    )
    with executor:
        assert run_comparison(prepared, executor) == found


def test_searches_are_shared(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = comparing_cells._Desk()
    monkeypatch.setattr(comparing_cells, "_DESK", desk)
    several = {name: SCENARIOS[name] for name in ("small", "large", "power", "most")}
    prepared = prepare_comparison(several, LISTS, catalog=catalog)
    assert prepared.searches == 1 and "16 cells: 4 scenarios x 4 price lists, 1 search" in prepared.remarks(None)[0]
    run_comparison(prepared, jobs=1)
    sold = {offer.accelerator for group in prepared.groups for offer in group.prices.offers}
    assert 0 < desk.search.screenings <= len(sold)


def test_a_defect_in_one_cell_is_its_row_and_is_tried_again(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    solve = comparing_cells.solve_request

    def broken(request: Any, *arguments: Any, **settings: Any) -> Any:
        if request.demand_requests_per_s == 300.0 and request.prices == ("lambda",):
            raise ZeroDivisionError("of\nsomething")
        return solve(request, *arguments, **settings)

    two = {name: SCENARIOS[name] for name in ("small", "large")}
    with monkeypatch.context() as patch:
        patch.setattr(comparing_cells, "solve_request", broken)
        first = tokopt.compare(two, "aws,lambda", jobs=1, store=tmp_path / "s", catalog=catalog)
    bad = first.rows[3]
    assert bad.status == "error" and bad.defect and bad.error == "internal error: ZeroDivisionError: of something"
    assert [row.status for row in first.rows[:3]] == ["optimal"] * 3
    second = tokopt.compare(two, "aws,lambda", jobs=1, store=tmp_path / "s", catalog=catalog)
    assert (second.solved, second.kept) == (1, 3) and second.rows[3].status == "optimal"


# --- what is wrong is found before anything is solved ---


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"power": "10"}, "power: '10': the unit is missing; write it like 10MW"),
        ({"power": 10}, "power: '10': the unit is missing; write it like 10MW"),
        ({"power": "-5MW"}, "power"),
        ({"power": "1MW", "sla": "fast"}, "sla: 'fast' is not understood"),
        ({"power": "1MW", "model": "llama-9"}, "unknown language model 'llama-9'"),
        ({"power": "1MW", "gpu": "h1000"}, "unknown accelerator 'h1000'"),
        ({"power": "1MW", "market": "monthly"}, "market: 'monthly' is not one of"),
        ({"power": "1MW", "objectiv": "cost"}, "unknown option 'objectiv'; did you mean objective"),
        ({"power": "1MW", "prices": "aws"}, "price lists are compared: name them once, with --prices"),
        ({"power": "1MW", "max-types": 0}, "max-types: 0 is below 1"),
        ({"power": "1MW", "isl": -5}, "input length: -5 tokens is not possible"),
        ({"power": "1MW", "isl": "many"}, "isl: 'many' is not a number"),
        ({"power": "1MW", "isl": [1, 2]}, "a list of names is meant"),
        ({"power": ["1MW"]}, "power: one value is needed, not a list; a matrix takes lists"),
        ({"power": "1MW", "model": {"a": 1}}, "model: a mapping says nothing here"),
        ({"power": "1MW", "prefix-share": 2}, "prefix share: 2 is not a share"),
        ({"power": "1MW", "budget": 500}, "budget: '500' is not an amount"),
        ({"power": "1MW", "inventory": {"h100_sxm": -1}}, "cannot be below zero"),
        ({"power": "1MW", "inventory": "h100_sxm"}, "inventory: 'h100_sxm' is not a number of accelerators"),
        ({"power": "1MW", "precision": "int3"}, "unknown precision"),
        ({"power": "1MW", "model": "qwen3-8b", "isl": 10_000_000}, "takes 40,960 tokens at most"),
        ({"model": "qwen3-8b"}, "nothing says how large the fleet is"),
        ({"demand": "5req/s", "objective": "throughput"}, "leave demand out"),
    ],
)
def test_values_that_cannot_be_are_one_line(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], said: str
) -> None:
    monkeypatch.setattr(comparing_cells, "solve_request", lambda *_: pytest.fail("something was solved"))
    with pytest.raises(InputError) as error:
        tokopt.compare({"fine": {"power": "2MW"}, "s": options}, "aws", catalog=catalog)
    assert said in str(error.value) and "scenario 's'" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("lists", "said"),
    [
        ("", "none named"),
        (" , ", "none named"),
        ("aws,aws", "'aws' and 'aws' are the same"),
        ("aws+gcp,gcp+aws", "'aws+gcp' and 'gcp+aws' are the same"),
        ("aws+aws", "the same list twice"),
        ("aws+", "a name is missing"),
        ("aws,amazon", "unknown price list 'amazon'"),
        ("aws,./none.csv", "cannot be read"),
    ],
)
def test_price_lists_that_cannot_be_are_one_line(catalog: Catalog, lists: str, said: str) -> None:
    with pytest.raises(InputError) as error:
        tokopt.compare({"s": {"power": "2MW"}}, lists, catalog=catalog)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_scenarios_that_ask_the_same_are_refused(catalog: Catalog) -> None:
    same = {"a": {"power": "1MW"}, "b": {"power": "1000kW", "sla": "50ms"}}
    with pytest.raises(InputError, match="scenario 'b': asks the same as 'a'"):
        tokopt.compare(same, "aws", catalog=catalog)


def test_ways_to_solve_exclude_each_other(catalog: Catalog) -> None:
    one = {"a": {"power": "1MW"}}
    with ThreadPoolExecutor(1) as executor, pytest.raises(InputError, match="leave jobs and cluster out"):
        tokopt.compare(one, "aws", executor, jobs=2, catalog=catalog)
    with pytest.raises(InputError, match="leave --jobs out"):
        tokopt.compare(one, "aws", jobs=2, cluster="tcp://127.0.0.1:8786", catalog=catalog)
    with pytest.raises(InputError, match="0 is below 1"):
        tokopt.compare(one, "aws", jobs=0, catalog=catalog)


def test_a_file_with_a_plus_in_its_name_is_one_list(catalog: Catalog, tmp_path: Path) -> None:
    path = tmp_path / "a+b.csv"
    path.write_text("accelerator,accelerator_count,usd_per_hour\nh100_sxm,8,20\n", encoding="utf-8")
    found = tokopt.compare({"s": SCENARIOS["small"]}, [str(path)], jobs=1, catalog=catalog)
    assert found.rows[0].status == "optimal" and found.rows[0].price_list == str(path)


def test_every_option_of_plan_is_a_word_of_scenarios() -> None:
    elsewhere = {"prices", "owned", "rate", "catalog", "as_json", "quiet", "debug", "out", "verify"}
    elsewhere |= {"html", "plots", "plot_format", "quick", "jobs"}
    options = {
        option.removeprefix("--")
        for parameter in plan_command.params
        if isinstance(parameter, click.Option) and parameter.name not in elsewhere
        for option in parameter.opts
        if option.startswith("--")
    }
    assert options <= set(words()), "give the new option its word in api/comparing_scenarios.py"


@pytest.mark.parametrize(("module", "extra"), [("distributed", "cluster"), ("matplotlib", "report")])
def test_a_missing_extra_is_one_line_that_says_which(monkeypatch: pytest.MonkeyPatch, module: str, extra: str) -> None:
    from tokopt.api.comparing_cluster import check_address
    from tokopt.report.plots import require_plots

    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=rf"pip install 'tokopt\[{extra}\]'"):
        check_address("tcp://127.0.0.1:8786") if extra == "cluster" else require_plots()
