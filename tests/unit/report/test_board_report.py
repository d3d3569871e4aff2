"""The report for a board: its record, its page, its pictures; whatever the plan is."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import tokopt
from tokopt.domain.explaining import USD
from tokopt.domain.plans import Plan
from tokopt.domain.reporting import BoardReport, Certainty, CostBasis, ReportPart
from tokopt.errors import InputError
from tokopt.report.answer import answer_sentence, headline_rows
from tokopt.report.board import board_report as board_text
from tokopt.report.board import board_sections
from tokopt.report.figures import rate, usd
from tokopt.report.plots import apart, lines_of, looks_of

HOSTILE = "<script>alert(1)</script>\"'&amp;$x^2$"
VOID = {"meta", "link", "br", "img", "hr", "input"}
QWEN = {"model": "qwen3-8b", "workload": "chat", "sla": "30ms"}


class Page(HTMLParser):
    """What a page consists of: tags in balance, ids, references, text outside of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: Counter[str] = Counter()
        self.ids: list[str] = []
        self.references: list[str] = []
        self.handlers: list[str] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.scripts: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._seen(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._seen(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if "script" in self.open:
            self.scripts.append(data)
        elif "style" not in self.open:
            self.words.append(data)

    def _seen(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name.endswith(("href", "src")) or name in ("data", "action", "poster"):
                self.references.append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def sound(text: str) -> Page:
    """Return a page after what holds of every one: in balance, complete in itself, ids once, every mark there."""
    found = Page(text)
    assert text.startswith("<!DOCTYPE html>")
    assert not found.handlers and found.tags["script"] == 2 and found.tags["img"] == 0
    assert all(reference.startswith("#") for reference in found.references), set(found.references)
    assert not re.search(r"url\((?!#)|@import|<image", text)
    twice = [name for name, times in Counter(found.ids).items() if times > 1]
    assert not twice, twice
    ids = set(found.ids)
    assert {reference[1:] for reference in found.references} <= ids
    marks = json.loads(found.scripts[0])
    assert set(marks) <= ids and all(words and all(words) for words in marks.values())
    return found


@pytest.fixture(scope="module")
def told() -> list[tuple[str, float]]:
    """What was told while the report was made."""
    return []


@pytest.fixture(scope="module")
def report(chat_plan: Plan, told: list[tuple[str, float]]) -> BoardReport:
    return tokopt.board_report(chat_plan, progress=lambda doing, done: told.append((doing, done)))


@pytest.fixture(scope="module")
def page(report: BoardReport) -> str:
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    from tokopt.report.html import page

    return page(report)


def drawn(report: BoardReport) -> dict[str, Any]:
    pytest.importorskip("matplotlib")
    from tokopt.report.board_charts import charts

    return {chart.name: chart for chart in charts(report)}


# --- the record ---


def test_every_part_is_there_and_the_record_is_json(report: BoardReport) -> None:
    assert not report.left_out
    assert report.frontiers and report.cost and report.power and report.explanation and report.comparison
    assert BoardReport.model_validate_json(report.model_dump_json()) == report
    assert report.comparison.rows[0].price_list == "ownership-hyperscaler"
    names = [entry.price_list for entry in report.comparison.price_lists]
    assert {"aws", "lambda", "ownership-neocloud"} <= {*names, *report.uncompared} and len(names) == len(set(names))


def test_headline_figures_have_a_range_or_say_why_not(report: BoardReport, chat_plan: Plan) -> None:
    found = {figure.name: figure for figure in report.headline}
    assert found["usd_per_million_output_tokens"].interval == chat_plan.interval["usd_per_million_output_tokens"]
    assert found["usd_per_hour"].certainty is found["power_kw"].certainty is Certainty.FOLLOWS
    output = chat_plan.interval["output_tokens_per_s"]
    assert chat_plan.requests_per_s is not None and chat_plan.output_tokens_per_s is not None
    requests = found["requests_per_s"].interval
    assert requests is not None
    assert requests.low / chat_plan.requests_per_s == pytest.approx(output.low / chat_plan.output_tokens_per_s)
    for figure in report.headline:
        assert (figure.interval is not None) == (figure.certainty is Certainty.PREDICTED)
        if figure.interval is not None:
            assert figure.interval.low < figure.value < figure.interval.high


def test_power_adds_up_from_the_boards_to_the_limit(report: BoardReport, chat_plan: Plan) -> None:
    found = report.power
    assert found is not None and chat_plan.power_kw is not None
    gpus = sum(item.gpus for item in chat_plan.fleet)
    parts = {part.name: part.kw for part in found.parts}
    assert math.fsum(parts.values()) == pytest.approx(chat_plan.power_kw)
    assert parts["boards"] == pytest.approx(0.700 * gpus)  # H100: 700 W of 1,275 W of 1,730 W
    assert parts["rest of the servers"] == pytest.approx(0.575 * gpus)
    assert parts["network, storage and other IT"] == pytest.approx((1.73 / 1.15 - 1.275) * gpus)
    assert parts["cooling and distribution"] == pytest.approx((1.73 - 1.73 / 1.15) * gpus)


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"power_mode": "drawn"}, {"drawn by the servers on average", "kept for what is drawn beyond the average"}),
        ({"power_mode": "rated"}, {"boards", "rest of the servers", "cooling and distribution"}),
        ({"power_basis": "it"}, {"boards", "rest of the servers"}),
    ],
    ids=["drawn", "rated", "it"],
)
def test_power_in_every_mode(options: dict[str, str], names: set[str]) -> None:
    plan = tokopt.plan(**QWEN, gpus="h100_sxm", power="50kW", **options)
    found = tokopt.board_report(plan, parts="power").power
    assert found is not None
    assert names <= {part.name for part in found.parts}
    assert all(part.kw > 0.0 for part in found.parts)
    assert math.fsum(part.kw for part in found.parts) == pytest.approx(plan.power_kw)


def test_costs_by_part_of_owned_and_rented_machines(report: BoardReport) -> None:
    published = report.cost
    assert published is not None and published.reference is not None
    assert [line.basis for line in published.lines] == [CostBasis.PUBLISHED]
    assert {hour.accelerator for hour in published.reference.hours} == {"h100_sxm"}
    owned = tokopt.plan(**QWEN, gpus="h100_sxm", power="50kW", prices="components-hyperscaler")
    found = tokopt.board_report(owned, parts="cost").cost
    assert found is not None and found.reference is None
    assert {"server", "facility", "energy"} <= set(found.parts)
    assert math.fsum(found.parts.values()) == pytest.approx(owned.usd_per_hour) == pytest.approx(found.usd_per_hour)
    hour = tokopt.ownership_cost("components-hyperscaler", gpus="h100_sxm").hours[0]
    assert found.parts["energy"] == pytest.approx(hour.parts["energy"] * sum(item.gpus for item in owned.fleet))


def test_parts_are_chosen_and_what_is_missing_is_said(chat_plan: Plan) -> None:
    found = tokopt.board_report(chat_plan, parts="cost")
    assert found.cost is not None and set(found.left_out) == set(ReportPart) - {ReportPart.COST}
    quick = tokopt.board_report(chat_plan, quick=True)
    assert set(quick.left_out) == {ReportPart.EXPLANATION, ReportPart.PRICE_LISTS}
    assert [each.id for each in board_sections(quick)].count("missing") == 1
    with pytest.raises(InputError, match="parts: 'weather' is not one of frontier, cost"):
        tokopt.board_report(chat_plan, parts="weather")


def test_progress_rises_and_says_what_is_done(report: BoardReport, told: list[tuple[str, float]]) -> None:
    assert report.explanation is not None
    shares = [done for _, done in told]
    assert shares == sorted(shares) and shares[0] == 0.0 and shares[-1] <= 1.0
    assert {words.split(":")[0] for words, _ in told} >= {"price lists", "why"}


# --- the page ---


def test_the_page_is_complete_in_itself(page: str, report: BoardReport) -> None:
    found = sound(page)
    assert found.tags["svg"] == len(drawn(report)) >= 6
    assert len(page.encode("utf-8")) < 2_000_000
    for each in board_sections(report):
        assert each.id in found.ids and each.title in found.text


def test_every_headline_number_is_on_the_page_with_its_range(page: str, report: BoardReport, chat_plan: Plan) -> None:
    words = Page(page).text
    for name, value, around in headline_rows(report):
        assert f"{name} {value} {around}" in words
    cost = chat_plan.interval[USD]
    for value in (chat_plan.usd_per_million_output_tokens, cost.low, cost.high, chat_plan.usd_per_hour):
        assert value is not None and usd(value) in words
    output = chat_plan.interval["output_tokens_per_s"]
    for value in (chat_plan.output_tokens_per_s, output.low, output.high):
        assert value is not None and rate(value, "tok/s") in words
    assert answer_sentence(report) in words
    for line in (*chat_plan.assumptions, chat_plan.provenance.catalog_version, chat_plan.provenance.calibration):
        assert " ".join(line.split()) in words


def test_terminal_and_page_say_the_same(page: str, report: BoardReport) -> None:
    console = Console(width=4000, highlight=False, emoji=False, markup=False)
    with console.capture() as captured:
        for each in board_sections(report):
            for part in (*each.opening, *each.content):
                console.print(part)
    words = Page(page).text.split()
    said = Counter(word for word in captured.get().split() if word not in ("-", "="))
    missing = said - Counter(words)
    assert not missing, missing


def test_the_same_plan_is_the_same_bytes(page: str, chat_plan: Plan) -> None:
    again = tokopt.report_html(Plan.model_validate_json(chat_plan.model_dump_json()))
    assert again == page


def test_the_text_fits_a_terminal(report: BoardReport) -> None:
    console = Console(width=100, highlight=False, emoji=False, markup=False)
    with console.capture() as captured:
        console.print(board_text(report, columns_wide=100, lines_high=40))
    said = captured.get()
    assert max(map(len, said.splitlines())) <= 100
    for words in ("From the baseline to the plan", "What if: $ per M output tokens", "price list", "80 % range"):
        assert words in said


def test_hostile_names_stay_names(report: BoardReport) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    from tokopt.report.html import page

    hostile = json.dumps(HOSTILE)[1:-1]
    text = report.model_dump_json()
    for name in ("ownership-hyperscaler", "Qwen3 8B", '"aws"', "h100_sxm", "vllm"):
        text = text.replace(name, f'"{hostile}"' if name.startswith('"') else hostile)
    for key in ("name", "of_class", "workload"):
        text = text.replace(f'"{key}":"chat"', f'"{key}":"{hostile}"')
    found = sound(page(BoardReport.model_validate_json(text)))
    assert " ".join(HOSTILE.split()) in found.text
    assert "alert(1)" not in found.scripts[1]
    assert "<" not in found.scripts[0]


# --- plans of every kind ---


def chat_and_code() -> dict[str, Any]:
    chat = {"model": "qwen3-8b", "workload": "chat", "demand": "40req/s", "sla": "40ms", "price": {"output": "$0.5"}}
    code = {"model": "qwen3-8b", "input_tokens": 4000, "output_tokens": 300, "demand": "5req/s", "sla": "tpot=40ms"}
    return {"chat": chat, "code": code}


DAY = [{"name": "night", "hours": 12, "demand": 0.25}, {"name": "day", "hours": 12, "demand": 1.0}]
KINDS: dict[str, dict[str, Any]] = {
    "cloud": {**QWEN, "demand": "60req/s", "prices": "lambda,aws", "gpus": "h100_sxm,a10g"},
    "classes": {"workloads": {"workloads": chat_and_code()}, "gpus": "h100_sxm,l40s", "prices": "aws"},
    "periods": {"workloads": {"workloads": chat_and_code(), "periods": DAY}, "gpus": "h100_sxm", "prices": "lambda"},
    "too fast": {**QWEN, "sla": "tpot=0.1ms", "demand": "10req/s", "gpus": "h100_sxm"},
    "too much": {**QWEN, "demand": "5000req/s", "power": "50kW", "gpus": "h100_sxm"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_plan_has_a_page(kind: str) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    plan = tokopt.plan(**KINDS[kind])
    words = sound(tokopt.report_html(plan, quick=True)).text
    if kind.startswith("too"):
        assert plan.status == "infeasible" and "No fleet serves Qwen3 8B" in words
        for nearest in plan.nearest_feasible:
            assert f"{nearest.constraint} {nearest.nearest} instead of {nearest.requested}" in words
        assert "there is no fleet to take apart" in words
        return
    assert all(item.instance_type in words for item in plan.fleet)
    for each in (*plan.classes, *plan.schedule):
        assert each.name in words
    if kind == "cloud":
        assert "as asked" in words and "rented" in words


def test_a_plan_of_a_demand_has_its_range_in_cost_and_power() -> None:
    plan = tokopt.plan(**KINDS["cloud"])
    found = {figure.name: figure for figure in tokopt.board_report(plan, parts="cost").headline}
    assert found["output_tokens_per_s"].certainty is Certainty.GIVEN
    cost, power = found["usd_per_hour"], found["power_kw"]
    assert cost.interval == plan.interval["usd_per_hour"] and power.interval is not None
    assert power.interval.high / power.value == pytest.approx(cost.interval.high / cost.value)


def test_a_price_list_that_is_gone_leaves_its_sections_out(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    prices = tmp_path / "prices.csv"
    prices.write_text("accelerator,accelerator_count,usd_per_hour\nh100_sxm,8,20\n")
    plan = tokopt.plan(**QWEN, demand="20req/s", prices=str(prices))
    prices.unlink()
    found = tokopt.board_report(plan)
    assert set(found.left_out) == {ReportPart.FRONTIER, ReportPart.EXPLANATION, ReportPart.PRICE_LISTS}
    assert all("prices.csv" in why for why in found.left_out.values())
    words = sound(tokopt.report_html(plan)).text
    assert "Not in this report" in words and "Where the power goes" in words


def test_power_settings_and_more_classes_than_are_drawn() -> None:
    capped = tokopt.plan(**QWEN, gpus="h100_sxm", power="100kW", power_mode="rated", power_settings="all")
    found = tokopt.board_report(capped, parts="frontier,cost,power")
    assert not set(found.left_out) & {ReportPart.FRONTIER, ReportPart.COST, ReportPart.POWER}
    assert found.power is not None and math.fsum(p.kw for p in found.power.parts) == pytest.approx(capped.power_kw)
    chat = {"model": "qwen3-8b", "workload": "chat", "sla": "40ms"}
    many = {f"c{n}": {**chat, "demand": f"{n + 1}req/s"} for n in range(6)}
    plan = tokopt.plan(workloads={"workloads": many}, gpus="h100_sxm", prices="aws")
    found = tokopt.board_report(plan, parts="frontier")
    assert [each.of_class for each in found.frontiers] == ["c5", "c4", "c3", "c2"]
    names = [name for name in drawn(found) if name.startswith("frontier")]
    assert names == ["frontier-1-c5", "frontier-2-c4", "frontier-3-c3", "frontier-4-c2"]
    lead = next(each.lead for each in board_sections(found) if each.id == "frontier")
    assert "Of 6 kinds of requests, the 4 with the most output are drawn." in lead


def test_pools_on_two_accelerators(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    prices = tmp_path / "prices.csv"
    prices.write_text(
        "provider,region,instance_type,accelerator,accelerator_count,market,usd_per_hour\n"
        "acme,north,h100x8,h100_sxm,8,on_demand,16.0\n"
        "acme,north,h200x8,h200_sxm,8,on_demand,20.0\n"
    )
    plan = tokopt.plan(
        model="llama-3.1-70b", demand="60req/s", frameworks="vllm", precisions="fp8", prices=str(prices),
        mixed_pools=True,
    )  # fmt: skip
    if not any(item.parts for item in plan.fleet):
        pytest.fail("these prices no longer make mixed pools worth it: choose others")
    found = tokopt.board_report(plan, quick=True)
    assert found.cost is not None and {line.pool for line in found.cost.lines} >= {"prefill", "decode"}
    assert math.fsum(line.usd_per_hour for line in found.cost.lines) == pytest.approx(plan.usd_per_hour)
    words = sound(tokopt.report_html(plan, quick=True)).text
    assert "h100_sxm (prefill)" in words and "h200_sxm (decode)" in words


# --- the pictures ---


def test_the_frontier_is_its_record(report: BoardReport) -> None:
    chart = drawn(report)["frontier"]
    planned = report.frontiers[0]
    lines = {line.get_gid(): line for line in chart.figure.axes[0].lines}
    curve = [p for p in planned.frontier.points if p.accelerator == "h100_sxm"]
    assert list(lines["frontier-0"].get_xdata()) == [p.tokens_per_s_per_user for p in curve]
    assert list(lines["frontier-0"].get_ydata()) == [p.output_tokens_per_s_per_gpu for p in curve]
    assert len(chart.marks["frontier-0"]) == len(curve)
    item = report.plan.fleet[0]
    star = lines["frontier-plan-1"]
    assert list(star.get_xdata()) == [1e3 / item.tpot_ms.mean]
    assert list(star.get_ydata()) == [pytest.approx(item.output_tokens_per_s / item.gpus)]
    told = chart.marks["frontier-plan-1"][0]
    assert item.framework in told and item.precision in told and f"{item.replicas:,} replicas" in told


def test_bars_are_their_records(report: BoardReport) -> None:
    charts = drawn(report)

    def bars(name: str) -> dict[str, Any]:
        patches = (patch for axes in charts[name].figure.axes for patch in axes.patches)
        return {patch.get_gid(): (patch.get_x(), patch.get_width()) for patch in patches if patch.get_gid()}

    why, compared, power = report.explanation, report.comparison, report.power
    assert why is not None and compared is not None and power is not None
    for place, factor in enumerate(why.factors, start=1):
        step = factor.usd_per_million_output_tokens
        left, wide = bars("waterfall")[f"waterfall-usd-{place}"]
        assert (left, left + wide) == pytest.approx((min(step.before, step.after), max(step.before, step.after)))
    costs = sorted(row.usd_per_million_output_tokens for row in compared.rows if row.usd_per_million_output_tokens)
    ends = [left + wide for left, wide in bars("price_lists").values()]
    assert ends == pytest.approx(costs)
    assert [wide for _, wide in bars("power").values()][: len(power.parts)] == pytest.approx(
        [part.kw for part in power.parts]
    )
    assert set(bars("tornado")) == set(charts["tornado"].marks)
    assert all(charts[name].rows and len(set(map(len, (charts[name].headings, *charts[name].rows)))) == 1
               for name in charts)  # fmt: skip


def test_bars_of_cost_are_prices_also_where_machines_come_and_go() -> None:
    found = tokopt.board_report(tokopt.plan(**KINDS["periods"]), parts="cost")
    assert found.cost is not None
    idle = [line for line in found.cost.lines if line.usd_per_hour < 0.99 * line.gpus * line.usd_per_gpu_hour]
    assert idle, "no unit is off at night: the prices no longer make this test say anything"
    chart = drawn(found)["cost"]
    ends = {round(patch.get_x() + patch.get_width(), 9) for patch in chart.figure.axes[0].patches}
    assert ends == {round(line.usd_per_gpu_hour, 9) for line in found.cost.lines}


@pytest.mark.parametrize("form", ["png", "svg"])
def test_pictures_are_files_of_their_form(form: str, chat_plan: Plan) -> None:
    pytest.importorskip("matplotlib")
    found = tokopt.plots(chat_plan, form=form, quick=True)
    assert set(found) == {f"frontier.{form}", f"cost.{form}", f"power.{form}"}
    again = tokopt.plots(chat_plan, form=form, quick=True)
    assert found == again
    for content in found.values():
        if form == "png":
            assert content.startswith(b"\x89PNG")
        else:
            text = content.decode("utf-8")
            assert 'role="img" aria-label="' in text and "<metadata" not in text and "<image" not in text


def test_a_form_that_is_not_known(chat_plan: Plan) -> None:
    with pytest.raises(InputError, match="'gif' is not one of png, svg"):
        tokopt.plots(chat_plan, form="gif")


def test_names_stand_apart_in_their_order() -> None:
    places = apart([0.5, 0.5, 0.5, 0.9, 0.1], 0.1)
    assert sorted(places) == [pytest.approx(v) for v in (0.1, 0.4, 0.5, 0.6, 0.9)]
    assert places[3] == pytest.approx(0.9) and places[4] == pytest.approx(0.1)
    assert apart([], 0.1) == []


def test_looks_differ() -> None:
    names = [f"n{k}" for k in range(40)]
    assert len(set(looks_of(names).values())) == len(names)
    assert len({look[:2] for look in lines_of(names).values()}) == len(names)
