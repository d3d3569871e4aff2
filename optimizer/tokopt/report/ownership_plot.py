"""Accelerator-hours as stacked bars (extra `report`): owned ones by part, and those that a plan pays for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tokopt.domain.ownership import OwnershipBreakdown
from tokopt.domain.reporting import CostBreakdown, CostLine
from tokopt.errors import InputError
from tokopt.report.breakdowns import PART_LOOKS, line_text
from tokopt.report.ownership import WORDS, label, parts_used
from tokopt.report.plots import Chart, bare, blank_figure, legend_below, png, require_plots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEAST_LABELLED = 0.06  # of the longest bar; narrower parts have no room for their figure

Bar = tuple[str, Mapping[str, float]]  # what it is of, and USD per accelerator-hour by part


def ownership_png(breakdown: OwnershipBreakdown) -> bytes:
    """Return the picture; colours of the colour-blind's palette, with hatches that black and white keep apart.

    Raises:
        InputError: The extra `report` is not installed.
    """
    try:
        require_plots()
    except InputError:
        raise InputError("--plots: matplotlib is missing: pip install 'tokopt[report]'") from None
    return png(ownership_chart(breakdown).figure)


def ownership_chart(breakdown: OwnershipBreakdown) -> Chart:
    """Return the hours of a profile as bars."""
    where = ", ".join(site.name for site in breakdown.sites)
    bars = [(label(hour), hour.parts) for hour in breakdown.hours]
    axis = "USD per accelerator-hour" + (" (* placeholder)" if any(h.placeholder for h in breakdown.hours) else "")
    title = f"{breakdown.title}{f' — {where}' if where else ''}"
    return _chart("ownership", bars, parts_used(breakdown.hours), axis, title)


def cost_chart(cost: CostBreakdown) -> Chart:
    """Return what the offers of a fleet cost an accelerator-hour, and the parts of what is published as one figure."""
    alike: dict[tuple[str, str, float], list[CostLine]] = {}  # lines of one accelerator, offer and price
    for line in cost.lines:
        if line.usd_per_hour > 0.0:
            alike.setdefault((line.accelerator, line_text(line), line.usd_per_gpu_hour), []).append(line)
    bars: list[Bar] = []
    for (accelerator, offer, price), lines in alike.items():
        first = lines[0]
        each = {name: price * usd / first.usd_per_hour for name, usd in first.parts.items()}
        which = ", ".join(dict.fromkeys(str(line.item) for line in lines))
        name = f"{which}. {accelerator}" if len(cost.lines) > 1 else accelerator
        bars.append((f"{name}{f' ({first.pool})' if first.pool else ''}\n{offer}", each))
    if cost.reference is not None:
        bars += [(f"{label(hour)}\nby part: {cost.reference.profile}", hour.parts) for hour in cost.reference.hours]
    used = [part for part in PART_LOOKS if any(parts.get(part) for _, parts in bars)]
    return _chart("cost", bars, used, "USD per accelerator-hour", "What an accelerator-hour costs, by part", wide=8.2)


def _chart(name: str, bars: Sequence[Bar], used: Sequence[str], axis: str, title: str, *, wide: float = 9.5) -> Chart:
    figure = blank_figure(wide, 1.9 + (0.6 if any("\n" in text for text, _ in bars) else 0.44) * len(bars))
    marks = _stack(figure, name, bars, used)
    figure.axes[0].set_xlabel(axis)
    figure.axes[0].set_title(title, fontsize=10, loc="left")
    said = ", ".join(f"{text.replace(chr(10), ', ')} ${sum(parts.values()):.3f}" for text, parts in bars)
    return Chart(
        name=name,
        label=f"Stacked bars of USD per accelerator-hour by part: {said}",
        figure=figure,
        headings=("", *(WORDS.get(part, part) for part in used), "total"),
        rows=tuple(
            (
                text.replace("\n", ", "),
                *(f"{parts[part]:.3f}" if parts.get(part) else "-" for part in used),
                f"{sum(parts.values()):.3f}",
            )
            for text, parts in bars
        ),
        marks=marks,
    )


def _stack(figure: Figure, name: str, bars: Sequence[Bar], used: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Draw the bars and their legend, and return what their parts say."""
    axes = figure.add_subplot()
    totals = [sum(parts.values()) for _, parts in bars]
    most = max(totals)
    places = range(len(bars))
    left = [0.0] * len(bars)
    marks: dict[str, tuple[str, ...]] = {}
    for part in used:
        colour, hatch = PART_LOOKS[part]
        for place, (text, parts) in enumerate(bars):
            width = parts.get(part, 0.0)
            if not width:
                continue
            mark = f"{name}-{place}-{part}"
            axes.barh(
                place, width, 0.68, left[place], color=colour, hatch=hatch, edgecolor="black", linewidth=0.6, gid=mark
            )
            told = text.replace("\n", ", ")
            marks[mark] = (f"{told}: {WORDS.get(part, part)} ${width:.3f} an hour, {width / totals[place]:.0%}",)
            if width >= LEAST_LABELLED * most:
                axes.text(
                    left[place] + width / 2, place, f"{width:.2f}", ha="center", va="center", fontsize=8,
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.2},
                )  # fmt: skip
            left[place] += width
    for place, total in zip(places, totals, strict=True):
        axes.text(total + most * 0.01, place, f"${total:.2f}", va="center", fontsize=9)
    axes.set_yticks(list(places), [text for text, _ in bars])
    axes.invert_yaxis()
    axes.set_xlim(0.0, most * 1.1)
    bare(axes)
    legend_below(figure, [(WORDS.get(part, part), *PART_LOOKS[part]) for part in used])
    return marks
