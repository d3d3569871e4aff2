"""The table and the bars of an owned accelerator-hour: what is shown adds up, and needs no colours."""

from __future__ import annotations

import io
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

import tokopt
from tokopt.cost import CostPart
from tokopt.report.ownership import LOOKS, bars, ownership_report, shares_of

# A busy machine draws slowly; no test is about time.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def shown(renderable, *, width: int = 100, terminal: bool = False) -> str:
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=terminal, color_system="truecolor" if terminal else None).print(
        renderable
    )
    return out.getvalue()


@unhurried
@given(total=st.integers(0, 10_000), values=st.lists(st.floats(0.0, 100.0), min_size=1, max_size=11))
def test_shares_add_up(total, values):
    shares = shares_of(total, values)
    whole = math.fsum(values)
    assert sum(shares) == (total if whole > 0 else 0)
    if whole > 0:
        assert all(abs(share - value / whole * total) < 1.0 + 1e-6 for share, value in zip(shares, values, strict=True))


def test_every_part_has_a_letter_a_colour_and_a_hatch_of_its_own():
    assert set(LOOKS) == {part.value for part in CostPart}
    letters = [letter for letter, _, _ in LOOKS.values()]
    assert len(set(letters)) == len(letters)
    # Looks repeat only between parts that are never in one bar.
    never = {"published", "prepayment"}
    others = [(colour, hatch) for part, (_, colour, hatch) in LOOKS.items() if part not in never]
    assert len(set(others)) == len(others)
    hatches = [hatch for part, (_, _, hatch) in LOOKS.items() if part not in never]
    assert len(set(hatches)) >= len(hatches) - 1  # server and unused hours are plain: the darkest and white


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_bars_are_in_proportion_and_read_without_colours(width):
    hours = tokopt.ownership_cost().hours
    lines = shown(bars(hours, columns_wide=width), width=width).splitlines()
    by_name = {line.split()[0]: line for line in lines if "$" in line}
    longest = max(hour.usd_per_accelerator_hour for hour in hours)
    cells = {hour.accelerator: by_name[hour.accelerator].count("S") for hour in hours}
    full = max(sum(line.count(letter) for letter in "SNDFE") for line in by_name.values())
    for hour in hours:
        wanted = hour.parts["server"] / longest * full
        assert abs(cells[hour.accelerator] - wanted) <= 1.5
    assert "\x1b" not in "".join(lines)


def test_the_shown_parts_add_up_to_the_shown_total():
    breakdown = tokopt.ownership_cost("components-neocloud")
    text = shown(ownership_report(breakdown, columns_wide=100))
    rows = [line.replace(" * ", " ").split() for line in text.splitlines() if line.startswith("  ")]
    names = {hour.accelerator for hour in breakdown.hours}
    checked = 0
    for row in rows:
        if row and row[0] in names and len(row) == 7 and all("." in cell for cell in row[1:]):
            assert sum(round(float(cell) * 1000) for cell in row[1:-1]) == round(float(row[-1]) * 1000)
            checked += 1
    assert checked == len(breakdown.hours)


@pytest.mark.parametrize("width", [60, 80, 100])
def test_a_narrow_terminal_folds_tables_and_loses_nothing(width, tmp_path):
    owned = tmp_path / "mine.yaml"
    owned.write_text(
        "site: virginia\ncost_of_capital: 0.09\nlife_years: 5\nresidual_fraction: 0.1\nload_factor: 0.8\n"
        "utilisation: 0.8\nmaintenance_fraction_per_year: 0.03\ncolocation_usd_per_kw_month: 150\ncapex_usd:\n"
        "  h200_sxm: {server: 28000, network: 3000, storage: 500, install: 700}\n  b200_sxm: 43000\n"
        "lots:\n  - {accelerator: h100_sxm, name: hall 2, sunk: true, accelerators: 64}\n"
    )
    text = shown(ownership_report(tokopt.ownership_cost(str(owned)), columns_wide=width), width=width)
    assert "…" not in text
    for word in ("server", "install", "capital", "facility", "idle", "total", "kW IT", "no limit"):
        assert word in text
    assert text.count("h100_sxm (hall 2) ") >= 3


def test_a_terminal_gets_the_same_letters_on_colours():
    hours = tokopt.ownership_cost(gpus="h200,gb300_nvl72").hours
    plain = shown(bars(hours, columns_wide=80), width=80)
    coloured = shown(bars(hours, columns_wide=80), width=80, terminal=True)
    assert "\x1b[" in coloured
    import re

    stripped = re.sub(r"\x1b\[[0-9;]*m", "", coloured)
    assert [line.rstrip() for line in stripped.splitlines()] == [line.rstrip() for line in plain.splitlines()]
