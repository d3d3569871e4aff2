"""An explanation as pictures (extra `report`): a waterfall of both figures, and a tornado."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tokopt.domain.explaining import PER_MW, USD, Explanation, WhatIf, WhatIfCase
from tokopt.report.figures import short, signed_share, times, usd
from tokopt.report.plots import Chart, bare, blank_figure, legend_below, pictures_of

# Colours of the palette of Okabe and Ito, told apart by the colour-blind; hatches keep them apart in black and white.
TOTAL, BETTER, WORSE = ("#404040", ""), ("#56b4e9", "//"), ("#e69f00", "..")
QUIET = "0.35"
SLIGHT = 5e-5  # relative differences below it are none
ROOM = 0.14  # of the widest bar, for the figures beside it


def pictures(found: Explanation, form: str = "png") -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each picture."""
    return pictures_of(charts(found), form)


def charts(found: Explanation, *, stacked: bool = False) -> Iterator[Chart]:
    """Yield the waterfall and, where anything was asked, the tornado; `stacked` puts panels below each other."""
    yield waterfall(found, stacked=stacked)
    if found.what_if:
        yield tornado(found)


def waterfall(found: Explanation, *, stacked: bool = False) -> Chart:
    """Return the bars from the baseline to the plan, one panel a figure."""
    panels = [(USD, "USD per million output tokens")]
    if found.baseline.tokens_per_s_per_mw is not None and found.plan.tokens_per_s_per_mw is not None:
        panels.append((PER_MW, "output tokens/s per MW"))
    high = 0.42 * (len(found.factors) + 2)
    if stacked:
        figure, every = _figure(8.2, 1.2 + (high + 0.7) * len(panels), len(panels), stacked=True)
    else:
        figure, every = _figure(6.2 * len(panels) + 1.6, 1.7 + high, len(panels))
    names = [f"baseline: {found.baseline.accelerator}", *(factor.title for factor in found.factors), "plan"]
    marks: dict[str, tuple[str, ...]] = {}
    for axes, (name, label) in zip(every, panels, strict=True):
        marks |= _waterfall(axes, found, name)
        axes.set_xlabel(label)
        if stacked or axes is every[0]:
            axes.set_yticks(range(len(names)), names)
            axes.set_ylim(len(names) - 0.5, -0.5)
    legend_below(figure, [("baseline and plan", *TOTAL), ("better", *BETTER), ("worse", *WORSE)])
    figure.suptitle(f"{found.plan.model}, {found.plan.workload}: what each factor contributes", fontsize=11)
    return Chart(
        name="waterfall",
        label=f"Waterfall: from {usd(found.baseline.usd_per_million_output_tokens)} per million output tokens of the "
        f"baseline to {usd(found.plan.usd_per_million_output_tokens)} of the plan, by factor",
        figure=figure,
        headings=("", "baseline", "plan", "share, $/M", "ratio", "share, tok/s/MW", "ratio"),
        rows=tuple(_waterfall_rows(found)),
        marks=marks,
    )


def _waterfall_rows(found: Explanation) -> Iterator[tuple[str, ...]]:
    for name, end in (("baseline", found.baseline), ("plan", found.plan)):
        per_mw = "" if end.tokens_per_s_per_mw is None else short(end.tokens_per_s_per_mw)
        if name == "plan":
            for factor in found.factors:
                one, other = factor.usd_per_million_output_tokens, factor.tokens_per_s_per_mw
                yield (
                    factor.title,
                    factor.baseline,
                    factor.plan,
                    _signed(one.share, usd),
                    "" if one.times is None else times(one.times),
                    "" if other is None else _signed(other.share, short),
                    "" if other is None or other.times is None else times(other.times),
                )
        yield name, end.fleet, "", usd(end.usd_per_million_output_tokens), "", per_mw, ""


def _signed(value: float, said: Any) -> str:
    return f"{'−' if value < 0 else '+'}{said(abs(value))}"


def _waterfall(axes: Any, found: Explanation, figure: str) -> dict[str, tuple[str, ...]]:
    """Draw one panel, and return what its bars say."""
    start, end = getattr(found.baseline, figure), getattr(found.plan, figure)
    steps = [getattr(factor, figure) for factor in found.factors]
    most = max(start, end, *(max(step.before, step.after) for step in steps), 0.0)
    said = usd if figure == USD else short
    unit = "per M output tokens" if figure == USD else "tok/s per MW"
    bars = [(0.0, start, TOTAL, said(start), f"baseline, {found.baseline.title}: {said(start)} {unit}")]
    for factor, step in zip(found.factors, steps, strict=True):
        better = (step.share < 0) == (figure == USD)
        ratio = "" if step.times is None else f"  ({times(step.times)})"
        words = f"{_signed(step.share, said)}{ratio}"
        told = f"{factor.title}: {words} {unit}; {factor.baseline} → {factor.plan}"
        bars.append((step.before, step.after, BETTER if better else WORSE, words, told))
    bars.append((0.0, end, TOTAL, f"{said(end)}  ({times(end / start)})", f"the plan: {said(end)} {unit}"))
    marks: dict[str, tuple[str, ...]] = {}
    for place, (low, high, look, words, told) in enumerate(bars):
        left, width = min(low, high), abs(high - low)
        mark = f"waterfall-{'usd' if figure == USD else 'mw'}-{place}"
        axes.barh(place, width, 0.66, left, color=look[0], hatch=look[1], edgecolor="black", linewidth=0.6, gid=mark)
        marks[mark] = (told,)
        axes.text(left + width + most * 0.012, place, words, va="center", fontsize=8.5)
        if place + 1 < len(bars):  # the next bar begins where this one ends
            axes.plot([high, high], [place - 0.33, place + 1.33], color="0.4", linewidth=0.7, linestyle=":", zorder=0)
    axes.set_xlim(0.0, most * (1.0 + 2 * ROOM))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}" if figure == USD or not value else short(value))
    _bare(axes)
    return marks


def tornado(found: Explanation) -> Chart:
    """Return a bar a case around the plan's cost, the widest spread on top."""
    rows = found.what_if
    figure, (axes,) = _figure(9.6, 1.9 + 0.46 * len(rows), 1)
    plan = found.plan.usd_per_million_output_tokens
    known = [c.usd_per_million_output_tokens or plan for asked in rows for c in asked.cases]
    low, high = min(plan, *known), max(plan, *known)
    reach = (high - low) or plan * 0.1
    marks: dict[str, tuple[str, ...]] = {}
    for place, asked in enumerate(rows):
        marks |= _cases(axes, place, asked, plan, reach)
    axes.axvline(plan, color="black", linewidth=1.2)
    axes.set_yticks(range(len(rows)), [asked.title for asked in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)  # also a row without a bar has its place
    axes.set_xlim(low - 2.2 * ROOM * reach, high + 2.2 * ROOM * reach)
    axes.set_xlabel(f"USD per million output tokens; the plan: {usd(plan)}")
    axes.set_title(f"{found.plan.model}, {found.plan.workload}: what would change the answer", fontsize=11)
    _bare(axes)
    legend_below(figure, [("cheaper", *BETTER), ("dearer", *WORSE)])
    return Chart(
        name="tornado",
        label=f"Tornado: how far the plan's {usd(plan)} per million output tokens moves when one thing changes",
        figure=figure,
        headings=("", "change", "$/M", "difference", "tok/s/MW", "fleet"),
        rows=tuple(_case_row(asked, case) for asked in rows for case in asked.cases),
        marks=marks,
    )


def _case_row(asked: WhatIf, case: WhatIfCase) -> tuple[str, ...]:
    cost, change, per_mw = case.usd_per_million_output_tokens, case.relative_difference, case.tokens_per_s_per_mw
    return (
        asked.title,
        case.change,
        "infeasible" if cost is None else usd(cost),
        "" if change is None else "0 %" if abs(change) < SLIGHT else signed_share(change),
        "" if per_mw is None else short(per_mw),
        case.fleet or case.infeasible,
    )


def _cases(axes: Any, place: int, asked: WhatIf, plan: float, reach: float) -> dict[str, tuple[str, ...]]:
    """Draw the cases of one question: bars to each side, words at their ends; several on one side share it.

    Returns what the bars say.
    """
    marks: dict[str, tuple[str, ...]] = {}
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
        mark = f"tornado-{place}-{len(marks)}"
        axes.barh(
            place, cost - plan, 0.62, plan, color=look[0], hatch=look[1], edgecolor="black", linewidth=0.6, zorder=2,
            gid=mark,
        )  # fmt: skip
        marks[mark] = (f"{asked.title}, {case.change}: {usd(cost)} per M output tokens; {case.fleet}",)
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
    return marks


# --- what both pictures share ---


def _figure(wide: float, high: float, panels: int, *, stacked: bool = False) -> tuple[Any, Sequence[Any]]:
    figure = blank_figure(wide, high)
    if stacked:
        return figure, list(figure.subplots(panels, 1, squeeze=False)[:, 0])
    return figure, list(figure.subplots(1, panels, sharey=True, squeeze=False)[0])


def _bare(axes: Any) -> None:
    bare(axes)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=8)
