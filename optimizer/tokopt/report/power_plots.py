"""A fleet's power as a picture (extra `report`): from the boards to the limit."""

from __future__ import annotations

from tokopt.domain.plans import Plan
from tokopt.domain.reporting import PowerBreakdown
from tokopt.report.breakdowns import MARGIN, power_rows
from tokopt.report.figures import power, share
from tokopt.report.plots import HATCHES, OKABE_ITO, Chart, bare, blank_figure
from tokopt.report.power import counted_name

TOTAL, SPARE = "#404040", "white"
ROOM = 0.2  # of the longest bar, for the words beside it


def power_chart(found: PowerBreakdown, plan: Plan) -> Chart:
    """Return the parts one after the other, what they come to, and the limit."""
    rows = list(power_rows(found))
    parts = [row for row in rows if row[0] != MARGIN]
    bars = [(name, total - kw, kw, n) for n, (name, kw, total) in enumerate(parts)]
    whole = found.limit_kw or found.counted_kw
    most = max(found.counted_kw, whole)
    scale, unit = (1e3, "MW") if most >= 1e3 else (1.0, "kW")
    names = [*(name for name, *_ in bars), "counted", *(name for name, *_ in rows[len(parts) :])]
    figure = blank_figure(8.2, 1.3 + 0.46 * len(names))
    axes = figure.add_subplot()
    marks = {}
    drawn = [(left, kw, OKABE_ITO[n % len(OKABE_ITO)], HATCHES[n % len(HATCHES)]) for _, left, kw, n in bars]
    drawn.append((0.0, found.counted_kw, TOTAL, ""))
    drawn += [(total - kw, kw, SPARE, "..") for _, kw, total in rows[len(parts) :]]
    for place, (name, (left, kw, colour, hatch)) in enumerate(zip(names, drawn, strict=True)):
        mark = f"power-{place}"
        axes.barh(
            place, kw / scale, 0.66, left / scale, color=colour, hatch=hatch, edgecolor="black", linewidth=0.6, gid=mark
        )
        words = f"{power(kw)} ({share(kw / whole)})"
        marks[mark] = (f"{name}: {words}",)
        axes.text(
            (left + kw + most * 0.012) / scale, place, words, va="center", fontsize=8.5, zorder=4,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0},
        )  # fmt: skip
        if place + 1 < len(bars):
            edge = (left + kw) / scale
            axes.plot([edge, edge], [place - 0.33, place + 1.33], color="0.4", linewidth=0.7, linestyle=":", zorder=0)
    if found.limit_kw is not None:
        axes.axvline(found.limit_kw / scale, color="black", linewidth=1.2, linestyle="--")
        axes.annotate(
            f"limit {power(found.limit_kw)}", (found.limit_kw / scale, 1.0), xycoords=("data", "axes fraction"),
            xytext=(0, 3), textcoords="offset points", ha="center", va="bottom", fontsize=8.5,
        )  # fmt: skip
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(0.0, most * (1.0 + ROOM) / scale)
    axes.set_xlabel(f"{unit}, {counted_name(plan)}")
    bare(axes)
    axes.tick_params(axis="y", length=0)
    return Chart(
        name="power",
        label=f"Power from the boards to the limit: {', '.join(f'{name} {power(kw)}' for name, kw, _ in rows)}",
        figure=figure,
        headings=("part", "power", "up to here", "share"),
        rows=tuple((name, power(kw), power(total), share(kw / whole)) for name, kw, total in rows),
        marks=marks,
    )
