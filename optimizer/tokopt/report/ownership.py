"""An owned accelerator-hour: a table of its parts, a stacked bar of letters, and the same as a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.text import Text

from tokopt.domain.ownership import OwnedHour, OwnershipBreakdown
from tokopt.report.blocks import INDENT, bullets, columns, pairs, section
from tokopt.report.figures import UNKNOWN, number

# Part -> letter, colour of the palette of Okabe and Ito (told apart by the colour-blind), hatch for black and white.
LOOKS: Mapping[str, tuple[str, str, str]] = {
    "server": ("S", "#0072b2", ""),
    "network": ("N", "#56b4e9", "//"),
    "storage": ("D", "#009e73", "xx"),
    "install": ("I", "#f0e442", ".."),
    "capital": ("C", "#0072b2", "\\\\"),
    "published": ("P", "#bbbbbb", ""),
    "prepayment": ("R", "#cc79a7", "||"),
    "facility": ("F", "#e69f00", "--"),
    "energy": ("E", "#d55e00", "++"),
    "maintenance": ("M", "#999999", "oo"),
    "idle": ("U", "#ffffff", ""),
}
WORDS = {
    "storage": "storage (disks)",
    "capital": "capital, undivided",
    "idle": "unused hours",
    "published": "published, undivided",
}
HEADINGS = {"maintenance": "maint.", "prepayment": "prepaid"}
DIGITS = 3  # of a dollar, in the table
LEAST_BAR, MOST_BAR = 20, 80


def ownership_report(breakdown: OwnershipBreakdown, *, columns_wide: int) -> RenderableType:
    """Return the whole report."""
    title = Text.assemble(
        (f"Cost of an accelerator-hour, {breakdown.profile}", "bold"), f": {breakdown.title}", overflow="fold"
    )
    parts: list[RenderableType] = [
        title,
        section("USD an hour, by part", _table(breakdown.hours)),
        section("The same as bars", bars(breakdown.hours, columns_wide=columns_wide - INDENT)),
    ]
    if any(hour.capex_usd or hour.critical_kw is not None for hour in breakdown.hours):
        parts.append(section("What it rests on", _inputs(breakdown.hours)))
    if breakdown.sites:
        parts.append(section("Sites", _sites(breakdown)))
    if breakdown.left_out:
        parts.append(section("Left out", pairs((name, Text(why)) for name, why in breakdown.left_out.items())))
    said = [*breakdown.assumptions, *([breakdown.note] if breakdown.note else [])]
    parts.append(section("Assumptions", bullets(said)))
    dated = f", {breakdown.observed_on}" if breakdown.observed_on else ""
    parts.append(section("Source", Text(f"{breakdown.source}{dated}; catalog {breakdown.catalog_version}")))
    return Group(*parts)


def label(hour: OwnedHour) -> str:
    """Return the name of an hour's accelerator, with its lot and a mark on placeholders."""
    return f"{hour.accelerator}{f' ({hour.lot})' if hour.lot else ''}{' *' if hour.placeholder else ''}"


def parts_used(hours: Sequence[OwnedHour]) -> list[str]:
    """Return the parts that any of the hours has, in the order of the bars."""
    return [part for part in LOOKS if any(hour.parts.get(part) for hour in hours)]


def shares_of(total: int, values: Sequence[float]) -> list[int]:
    """Divide a whole number in proportion, so that the parts add up to it: largest remainders are rounded up.

    What is shown then adds up to the last digit.
    """
    whole = math.fsum(values)
    if total <= 0 or whole <= 0:
        return [0] * len(values)
    exact = [value / whole * total for value in values]
    shares = [math.floor(value) for value in exact]
    by_remainder = sorted(range(len(values)), key=lambda k: (shares[k] - exact[k], k))
    for k in by_remainder[: total - sum(shares)]:
        shares[k] += 1
    return shares


def _table(hours: Sequence[OwnedHour]) -> RenderableType:
    used = parts_used(hours)
    scale = 10**DIGITS
    rows = []
    for hour in hours:
        total = round(hour.usd_per_accelerator_hour * scale)
        shown = shares_of(total, [hour.parts.get(part, 0.0) for part in used])
        rows.append(
            (
                label(hour),
                *(f"{s / scale:.{DIGITS}f}" if s else "-" for s in shown),
                f"{total / scale:.{DIGITS}f}",
            )
        )
    table = columns(("", *(HEADINGS.get(part, part) for part in used), "total"), rows)
    if any(hour.placeholder for hour in hours):
        return Group(table, Text("* the source marks the figure as a placeholder"))
    return table


def bars(hours: Sequence[OwnedHour], *, columns_wide: int) -> RenderableType:
    """Return one bar an hour, of letters; in a terminal they stand on colours, which add nothing to them."""
    names = [label(hour) for hour in hours]
    room = columns_wide - max(len(name) for name in names) - len("  $99.99 ")
    width = min(max(room, LEAST_BAR), MOST_BAR)
    most = max(hour.usd_per_accelerator_hour for hour in hours)
    used = parts_used(hours)
    lines = []
    for name, hour in zip(names, hours, strict=True):
        bar = Text()
        cells = max(round(hour.usd_per_accelerator_hour / most * width), 1)
        for part, count in zip(used, shares_of(cells, [hour.parts.get(p, 0.0) for p in used]), strict=True):
            letter, colour, _ = LOOKS[part]
            bar.append(letter * count, style=f"{_ink(colour)} on {colour}")
        lines.append((name, Text.assemble(bar, f" ${hour.usd_per_accelerator_hour:.2f}")))
    legend = [
        Text.assemble((LOOKS[part][0], f"{_ink(LOOKS[part][1])} on {LOOKS[part][1]}"), f" {WORDS.get(part, part)}")
        for part in used
    ]
    return Group(columns(("", ""), lines, left=(0, 1)), Text(""), Columns(legend, padding=(0, 2)))


def _ink(colour: str) -> str:
    """Return black or white, whichever is read better on a colour."""
    red, green, blue = (int(colour[k : k + 2], 16) for k in (1, 3, 5))
    return "#000000" if 0.299 * red + 0.587 * green + 0.114 * blue > 110 else "#ffffff"


def _inputs(hours: Sequence[OwnedHour]) -> RenderableType:
    optional = {
        "from": [hour.available_from or "-" for hour in hours],
        "site": [hour.site or "-" for hour in hours],
    }
    several = {name: cells for name, cells in optional.items() if len(set(cells)) > 1 or name == "from"}
    shown = {name: cells for name, cells in several.items() if set(cells) != {"-"}}
    rows = []
    for number_, hour in enumerate(hours):
        capex = math.fsum(hour.capex_usd.values())
        rows.append(
            (
                label(hour),
                "paid for" if hour.sunk else f"{capex:,.0f}",
                *("-" if kw is None else number(kw) for kw in (hour.critical_kw, hour.utility_kw, hour.drawn_kw)),
                str(hour.accelerators_per_unit),
                f"{hour.usd_per_unit_hour:,.2f}",
                "no limit" if hour.available_units is None else f"{hour.available_units:,}",
                *(cells[number_] for cells in shown.values()),
            )
        )
    headings = ("", "capex $", "kW IT", "utility", "drawn", "unit of", "$/h a unit", "units", *shown)
    table = columns(headings, rows)
    return Group(table, Text("kW IT: critical power provisioned; utility: times PUE; drawn: its average"))


def _sites(breakdown: OwnershipBreakdown) -> RenderableType:
    rows = []
    for site in breakdown.sites:
        price = UNKNOWN if site.usd_per_kwh is None else f"{site.usd_per_kwh:.4f}"
        if site.usd_per_kwh_by_hour:
            price += f" ({min(site.usd_per_kwh_by_hour):.4f} to {max(site.usd_per_kwh_by_hour):.4f})"
        carbon = UNKNOWN if site.carbon_g_per_kwh is None else f"{site.carbon_g_per_kwh:,.0f}"
        rows.append((site.name, site.title, f"{site.pue:g}", price, carbon))
    return columns(("", "", "PUE", "$/kWh", "g/kWh"), rows, left=(0, 1))
