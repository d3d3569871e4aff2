"""Waterfalls and tornadoes as text and pictures, from a record made by hand."""

from __future__ import annotations

import pytest
from rich.console import Console

from tokopt.domain.estimates import Interval
from tokopt.domain.explaining import (
    USD,
    Baseline,
    ExplainedPlan,
    Explanation,
    ExplanationProvenance,
    Factor,
    Step,
    WhatIf,
    WhatIfCase,
)
from tokopt.report.explaining import diverging, explanation_report, floating
from tokopt.report.explaining_plots import pictures


def factor(name: str, before: float, after: float, *, times: float | None) -> Factor:
    step = Step(share=after - before, times=times, before=before, after=after)
    return Factor(
        name=name, title=name, baseline="none", plan="some", usd_per_million_output_tokens=step,
        tokens_per_s_per_mw=None, added_alone=None, left_out=None,
    )  # fmt: skip


def case(change: str, usd: float | None, why: str = "") -> WhatIfCase:
    return WhatIfCase(
        change=change, usd_per_million_output_tokens=usd, tokens_per_s_per_mw=None,
        usd_difference=None if usd is None else usd - 1.0, tokens_per_s_per_mw_difference=None,
        relative_difference=None if usd is None else usd - 1.0, fleet="" if usd is None else "8 chip_b agg fp8",
        interval={}, infeasible=why,
    )  # fmt: skip


@pytest.fixture
def found() -> Explanation:
    return Explanation(
        baseline=Baseline(
            accelerator="chip_a", title="Chip A", why="asked for", fleet="16 chip_a agg bf16",
            usd_per_million_output_tokens=4.0, tokens_per_s_per_mw=None, interval={USD: Interval(low=3.5, high=5.0)},
        ),
        plan=ExplainedPlan(
            model="model", workload="chat", fleet="8 chip_b agg fp8", usd_per_million_output_tokens=1.0,
            tokens_per_s_per_mw=None, interval={},
        ),
        factors=(factor("chip", 4.0, 0.5, times=0.2), factor("links", 0.5, 1.0, times=None)),
        what_if=(
            WhatIf(name="without:b", title="chip_b", cases=(case("forbidden", None, "nothing else"),), spread_usd=None),
            WhatIf(name="sla", title="limits", cases=(case("-20 %", 1.5), case("+20 %", 1.0)), spread_usd=0.5),
        ),
        coalitions=4,
        infeasible_coalitions=1,
        unproven=0,
        warnings=("made with other versions",),
        assumptions=("something",),
        provenance=ExplanationProvenance(
            tokopt_version="1", catalog_version="c", calibration="k", plan_tokopt_version="1",
            plan_catalog_version="d", plan_calibration="k",
        ),
    )  # fmt: skip


def shown(found: Explanation, wide: int) -> str:
    console = Console(width=wide, highlight=False)
    with console.capture() as captured:
        console.print(explanation_report(found, columns_wide=wide))
    return captured.get()


def test_bars_hang_where_the_ones_before_have_left_off(found: Explanation) -> None:
    lines = [line for line in shown(found, 100).splitlines() if any(mark in line for mark in "█▒▓") and "┼" not in line]
    baseline, chip, links, plan = lines
    assert chip.rstrip().endswith("▒") and len(chip.rstrip()) == len(baseline.rstrip())
    assert len(links.rstrip()) == len(plan.rstrip())
    assert "-$3.50" in chip and "0.200×" in chip
    assert "+$0.500" in links and "×" not in links


def test_what_is_infeasible_or_unknown_is_said(found: Explanation) -> None:
    text = shown(found, 100)
    assert "chip_b forbidden: nothing else" in text and "made with other versions" in text
    assert "1 of the 4 sets of factors meet the request in no way" in text
    assert "per MW" not in text.split("What if")[0]  # power is not known
    assert "costs $4.00 (80 %: $3.50 to $5.00), 4.00×" in " ".join(text.split())


@pytest.mark.parametrize("wide", [60, 70, 96, 140])
def test_the_report_fits_its_terminal(found: Explanation, wide: int) -> None:
    text = shown(found, wide)
    assert max(map(len, text.splitlines())) <= wide
    assert "$1.50" in text and "…" not in text


def test_bars_of_text() -> None:
    assert floating(0.0, 4.0, 4.0, 8, "█") == "█" * 8
    assert floating(4.0, 2.0, 4.0, 8, "▒") == "    ▒▒▒▒"
    assert floating(4.0, 3.99, 4.0, 8, "▒") == "       ▒"
    assert floating(1.0, 1.0, 4.0, 8, "▒") == "  "
    assert diverging(-1.0, 1.0) == "▒▒▒▒▒▒▒┼" and diverging(1.0, 1.0) == "       ┼▓▓▓▓▓▓▓"
    assert diverging(0.0, 0.0) == "       ┼"


def test_pictures_are_the_same_every_time(found: Explanation) -> None:
    pytest.importorskip("matplotlib")
    first, second = dict(pictures(found)), dict(pictures(found))
    assert list(first) == ["waterfall.png", "tornado.png"] and first == second
    assert all(content.startswith(b"\x89PNG") for content in first.values())
