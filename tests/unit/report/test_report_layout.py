"""Deployments in words, bars, thinning and plots."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console, RenderableType

import tokopt
from tokopt.domain.comparisons import Frontier
from tokopt.domain.deployments import Deployment, Layout, Pool, ServingMode
from tokopt.domain.features import Feature
from tokopt.domain.plans import FleetItem, Plan, Status
from tokopt.report.blocks import columns
from tokopt.report.deployments import layout_text, letters_used, shape_text, short_text
from tokopt.report.estimate import BAR_WIDTH, _widths
from tokopt.report.frontier import frontier_csv, frontier_report, thinned
from tokopt.report.plan import plan_report

NAMES = {"accelerator": "a", "framework": "f", "llm": "m", "precision": "fp8", "kv_precision": "fp8"}
TOGETHER = Deployment(**NAMES, layout=Layout(tp=2, dp=4, ep=8))
APART = Deployment(
    **NAMES | {"kv_precision": "bf16"},
    mode=ServingMode.DISAGG,
    prefill=Pool(workers=10, layout=Layout(pp=4)),
    decode=Pool(workers=1, layout=Layout(dp=16, ep=16)),
    speculation_depth=1,
)


def printed(report: RenderableType, width: int = 80, *, terminal: bool = False) -> str:
    console = Console(
        width=width, force_terminal=terminal, highlight=False, color_system="truecolor" if terminal else None
    )
    with console.capture() as captured:
        console.print(report)
    return captured.get()


@pytest.fixture(scope="module")
def frontier() -> Frontier:
    from tokopt.api import frontier

    return frontier(model="qwen3-8b", gpus="h100_sxm,l40s", workload="chat")


@pytest.fixture(scope="module")
def plan() -> Plan:
    return tokopt.plan(model="qwen3-8b", gpus="h100_sxm", workload="chat", power="100kW")


def test_layouts() -> None:
    assert layout_text(Layout()) == "tp1"
    assert shape_text(TOGETHER) == "agg tp2 dp4 ep8"
    assert shape_text(APART) == "disagg 10×(tp1 pp4) + 1×(tp1 dp16 ep16)"
    assert short_text(TOGETHER) == "agg tp2 dp4 ep8, fp8, f"
    assert short_text(APART).endswith("fp8/bf16, f, MTP 1")


def test_only_letters_in_use_are_explained() -> None:
    assert "pipeline" not in letters_used([TOGETHER])
    assert "disagg" not in letters_used([TOGETHER])
    assert all(word in letters_used([APART]) for word in ("disagg", "pipeline", "experts", "attention"))


@given(st.lists(st.floats(min_value=0, max_value=1e4), min_size=4, max_size=4).filter(any))
def test_parts_of_a_bar_fill_it(values: list[float]) -> None:
    widths = _widths(values)
    assert sum(widths) == BAR_WIDTH
    assert all(abs(w - v / sum(values) * BAR_WIDTH) <= 1 for w, v in zip(widths, values, strict=True))


@given(st.integers(1, 300), st.integers(2, 40))
def test_thinning_keeps_ends_and_order(count: int, most: int) -> None:
    points = list(range(count))
    kept = thinned(points, most)  # type: ignore[arg-type, type-var]
    assert len(kept) == min(count, most)
    assert (kept[0], kept[-1]) == (0, count - 1)
    assert kept == sorted(set(kept))


@pytest.mark.parametrize("width", [80, 120, 200])
def test_frontier_fits_the_width(frontier: Frontier, width: int) -> None:
    report = printed(frontier_report(frontier, columns_wide=width, lines_high=40), width)
    lines = report.splitlines()
    assert all(len(line) <= width for line in lines)
    assert any(line.rstrip().endswith("(tok/s/user)") for line in lines), "the axis is cut off"
    assert "A h100_sxm  B l40s" in report
    assert "⠀" not in report and "\x1b" not in report


def test_frontier_table_is_thinned_on_request(frontier: Frontier) -> None:
    most = frontier_report(frontier, columns_wide=80, lines_high=40, most_points=10)
    assert f"10 of {len(frontier.points)} points" in printed(most)


def test_markers_are_coloured_on_a_terminal(frontier: Frontier) -> None:
    assert "\x1b[36mA" in printed(frontier_report(frontier, columns_wide=80, lines_high=40), terminal=True)


def test_csv_of_nothing_is_empty(frontier: Frontier) -> None:
    assert frontier_csv(frontier.model_copy(update={"points": ()})) == ""
    assert frontier_csv(frontier).startswith("accelerator,concurrency,")


def test_csv_states_all_that_a_set_up_is(frontier: Frontier) -> None:
    point = frontier.points[0]
    layout = Layout(dp=8, ep=8, redundant_experts=16, two_batch_overlap=True)
    graphless = point.deployment.model_copy(update={"layout": layout, "without": (Feature.CUDA_GRAPHS,)})
    stated = frontier.model_copy(update={"points": (point.model_copy(update={"deployment": graphless}),)})
    (row,) = csv.DictReader(io.StringIO(frontier_csv(stated)))
    assert {name: row[name] for name in Layout.model_fields} == {k: str(v) for k, v in layout.model_dump().items()}
    assert row["without"] == "cuda_graphs"


@pytest.mark.parametrize("width", [60, 80, 200])
def test_plan_fits_the_width(plan: Plan, width: int) -> None:
    assert all(len(line) <= width for line in printed(plan_report(plan), width).splitlines())


def test_items_with_one_set_up_share_a_section(plan: Plan) -> None:
    item = plan.fleet[0]
    other = item.model_copy(update={"provider": "elsewhere"})
    report = printed(plan_report(plan.model_copy(update={"fleet": (item, other)})), 200)
    assert "1, 2. h100_sxm: how each replica is set up" in report
    assert report.count("how each replica is set up") == 1
    assert f"{2 * item.replicas:,}, " in report


def test_speculation_and_unknown_power_are_said(plan: Plan) -> None:
    item: FleetItem = plan.fleet[0].model_copy(
        update={"features": plan.fleet[0].features | {"mtp_depth": 1, "tokens_per_step": 1.85}, "power_kw": None}
    )
    report = printed(plan_report(plan.model_copy(update={"fleet": (item,), "power_kw": None})), 200)
    assert "MTP 1 → 1.85 tokens a step" in report
    assert "not known" in report


def test_a_plan_that_was_cut_short_says_how_far_off_it_may_be(plan: Plan) -> None:
    report = printed(plan_report(plan.model_copy(update={"status": Status.FEASIBLE, "gap": 0.021})), 200)
    assert "Feasible plan" in report and "2.1 % better" in report


WORDS = ("rtx_pro_6000", "asia-northeast-1, gpu_1x_b200_sxm6, as of 2026-09-20", "56.1 ktok/s", "not known")


@pytest.mark.parametrize("width", [80, 60, 46])
def test_tables_wrap_at_spaces_and_lose_nothing(width: int) -> None:
    """A column of names beside figures is not squeezed to nothing, and no figure is cut off."""
    said = printed(columns(("accelerator", "offer", "output", "power in all"), [WORDS], left=(0, 1)), width)
    assert "…" not in said and all(len(line) <= width for line in said.splitlines())
    assert all(word in said.split() for cell in WORDS for word in cell.split())


def test_tables_are_as_wide_as_their_cells_where_there_is_room() -> None:
    head, row = printed(columns(("name", "offer", "", ""), [WORDS], left=(0, 1)), 200).splitlines()
    assert [cell.strip() for cell in row.split("  ") if cell.strip()] == list(WORDS) and "offer" in head


def test_tables_without_room_for_their_words_keep_within_the_width() -> None:
    assert all(len(line) <= 20 for line in printed(columns(("a", "b", "c", "d"), [WORDS]), 20).splitlines())


def test_of_many_classes_the_first_line_names_the_first() -> None:
    chat = {"model": "qwen3-8b", "workload": "chat", "demand": "1req/s"}
    many = {"workloads": {f"class{n}": chat for n in range(12)}}
    found = tokopt.plan(workloads=many, gpus="h100_sxm", prices="runpod")
    first = " ".join(printed(plan_report(found)).split())
    assert "for 12 kinds of requests (class0, class1," in first and "class7 and 4 more)" in first
