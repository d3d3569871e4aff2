"""An explanation as pictures (extra `report`): a waterfall of both figures, and a tornado."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tokopt.domain.explaining import PER_MW, USD, Explanation, WhatIf
from tokopt.report.figures import short, times, usd
from tokopt.report.plots import blank_figure, png

DPI = 150
# Colours of the palette of Okabe and Ito, told apart by the colour-blind; hatches keep them apart in black and white.
TOTAL, BETTER, WORSE = ("#404040", ""), ("#56b4e9", "//"), ("#e69f00", "..")
QUIET = "0.35"
SLIGHT = 5e-5  # relative differences below it are none
ROOM = 0.14  # of the widest bar, for the figures beside it


def pictures(found: Explanation) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each picture."""
    yield "waterfall.png", waterfall(found)
    if found.what_if:
        yield "tornado.png", tornado(found)


def waterfall(found: Explanation) -> bytes:
    """Return the bars from the baseline to the plan, one panel a figure."""
    panels = [(USD, "USD per million output tokens")]
    if found.baseline.tokens_per_s_per_mw is not None and found.plan.tokens_per_s_per_mw is not None:
        panels.append((PER_MW, "output tokens/s per MW"))
    high = 1.7 + 0.42 * (len(found.factors) + 2)
    figure, every = _figure(6.2 * len(panels) + 1.6, high, len(panels))
    names = [f"baseline: {found.baseline.accelerator}", *(factor.title for factor in found.factors), "plan"]
    for axes, (name, label) in zip(every, panels, strict=True):
        _waterfall(axes, found, name)
        axes.set_xlabel(label)
    every[0].set_yticks(range(len(names)), names)
    every[0].set_ylim(len(names) - 0.5, -0.5)
    _legend(figure, (("baseline and plan", TOTAL), ("better", BETTER), ("worse", WORSE)))
    figure.suptitle(f"{found.plan.model}, {found.plan.workload}: what each factor contributes", fontsize=11)
    return png(figure, DPI)


def _waterfall(axes: Any, found: Explanation, figure: str) -> None:
    start, end = getattr(found.baseline, figure), getattr(found.plan, figure)
    steps = [getattr(factor, figure) for factor in found.factors]
    most = max(start, end, *(max(step.before, step.after) for step in steps), 0.0)
    said = usd if figure == USD else short
    bars = [(0.0, start, TOTAL, said(start))]
    for step in steps:
        better = (step.share < 0) == (figure == USD)
        ratio = "" if step.times is None else f"  ({times(step.times)})"
        words = f"{'−' if step.share < 0 else '+'}{said(abs(step.share))}{ratio}"
        bars.append((step.before, step.after, BETTER if better else WORSE, words))
    bars.append((0.0, end, TOTAL, f"{said(end)}  ({times(end / start)})"))
    for place, (low, high, look, words) in enumerate(bars):
        left, width = min(low, high), abs(high - low)
        axes.barh(place, width, 0.66, left, color=look[0], hatch=look[1], edgecolor="black", linewidth=0.6)
        axes.text(left + width + most * 0.012, place, words, va="center", fontsize=8.5)
        if place + 1 < len(bars):  # the next bar begins where this one ends
            axes.plot([high, high], [place - 0.33, place + 1.33], color="0.4", linewidth=0.7, linestyle=":", zorder=0)
    axes.set_xlim(0.0, most * (1.0 + 2 * ROOM))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}" if figure == USD or not value else short(value))
    _bare(axes)


def tornado(found: Explanation) -> bytes:
    """Return a bar a case around the plan's cost, the widest spread on top."""
    rows = found.what_if
    figure, (axes,) = _figure(9.6, 1.9 + 0.46 * len(rows), 1)
    plan = found.plan.usd_per_million_output_tokens
    known = [c.usd_per_million_output_tokens or plan for asked in rows for c in asked.cases]
    low, high = min(plan, *known), max(plan, *known)
    reach = (high - low) or plan * 0.1
    for place, asked in enumerate(rows):
        _cases(axes, place, asked, plan, reach)
    axes.axvline(plan, color="black", linewidth=1.2)
    axes.set_yticks(range(len(rows)), [asked.title for asked in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)  # also a row without a bar has its place
    axes.set_xlim(low - 2.2 * ROOM * reach, high + 2.2 * ROOM * reach)
    axes.set_xlabel(f"USD per million output tokens; the plan: {usd(plan)}")
    axes.set_title(f"{found.plan.model}, {found.plan.workload}: what would change the answer", fontsize=11)
    _bare(axes)
    _legend(figure, (("cheaper", BETTER), ("dearer", WORSE)))
    return png(figure, DPI)


def _cases(axes: Any, place: int, asked: WhatIf, plan: float, reach: float) -> None:
    """Draw the cases of one question: bars to each side, words at their ends; several on one side share it."""
    words: dict[bool, list[tuple[float, str]]] = {False: [], True: []}
    beside: dict[str, list[str]] = {}
    for case in sorted(asked.cases, key=lambda c: -abs(c.usd_difference or 0.0)):
        cost = case.usd_per_million_output_tokens
        if cost is None:
            beside.setdefault("infeasible", []).append(case.change)
            continue
        if abs(cost / plan - 1.0) < SLIGHT:
            beside.setdefault("the same", []).append(case.change)
            continue
        look = WORSE if cost > plan else BETTER
        axes.barh(
            place, cost - plan, 0.62, plan, color=look[0], hatch=look[1], edgecolor="black", linewidth=0.6, zorder=2
        )
        words[cost >= plan].append((cost, f"{case.change}: {usd(cost)}"))
    for dearer, found in words.items():
        if not found:
            continue
        far = max if dearer else min
        edge = far(cost for cost, _ in found) + (1 if dearer else -1) * reach * 0.012
        said = ", ".join(change for _, change in found)
        axes.text(edge, place, said, va="center", ha="left" if dearer else "right", fontsize=8.5)
    if beside:  # on the side that is free
        taken = bool(words[True])
        edge = plan + (-1 if taken else 1) * reach * 0.012
        aligned = "right" if taken else "left"
        said = "; ".join(f"{', '.join(changes)}: {what}" for what, changes in beside.items())
        axes.text(edge, place, said, va="center", ha=aligned, fontsize=8.5, color=QUIET, zorder=3)


# --- what both pictures share ---


def _figure(wide: float, high: float, panels: int) -> tuple[Any, Sequence[Any]]:
    figure = blank_figure(wide, high)
    every = figure.subplots(1, panels, sharey=True, squeeze=False)[0]
    return figure, every


def _bare(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=8)


def _legend(figure: Any, looks: Sequence[tuple[str, tuple[str, str]]]) -> None:
    from matplotlib.patches import Patch

    patches = [Patch(facecolor=colour, hatch=hatch, edgecolor="black", label=name) for name, (colour, hatch) in looks]
    figure.legend(handles=patches, loc="outside lower center", ncols=len(patches), fontsize=8.5, frameon=False)
