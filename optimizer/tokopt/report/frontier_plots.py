"""Throughput against interactivity as a picture (extra `report`), with the set-ups of a plan marked on it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tokopt.domain.comparisons import FrontierPoint
from tokopt.domain.plans import Plan
from tokopt.domain.reporting import PlannedFrontier, PlanPoint
from tokopt.report.deployments import full_text, short_text
from tokopt.report.figures import milliseconds, number, short, usd
from tokopt.report.plots import Chart, apart, bare, blank_figure, lines_of

WIDE, HIGH = 8.2, 5.6  # inches
LINE = 0.036  # of the axes, that a line of names takes
STAR, NEAR = "*", 0.05  # stars closer than this share of the axes are named together


def frontier_chart(found: PlannedFrontier, plan: Plan, titles: Mapping[str, str], *, number_of_class: int) -> Chart:
    """Return one curve an accelerator, tokens/s/GPU over tokens/s/user, and the plan's items as stars."""
    curve = found.frontier
    groups: dict[str, list[FrontierPoint]] = {}
    for point in curve.points:
        groups.setdefault(point.accelerator, []).append(point)
    several = len(plan.request.served_classes()) > 1
    name = f"frontier-{number_of_class}-{_slug(found.of_class)}" if several else "frontier"
    figure = blank_figure(WIDE, HIGH)
    axes = figure.add_subplot()
    axes.set_xscale("log")
    axes.set_yscale("log")
    bought = {point.accelerator for point in found.points}
    looks = lines_of(sorted(groups, key=lambda accelerator: accelerator not in bought))
    marks: dict[str, tuple[str, ...]] = {}
    for number_of, (accelerator, points) in enumerate(groups.items()):
        colour, marker, dashes = looks[accelerator]
        mark = f"{name}-{number_of}"
        axes.plot(
            [p.tokens_per_s_per_user for p in points], [p.output_tokens_per_s_per_gpu for p in points],
            color=colour, marker=marker, linestyle=dashes, markersize=4.5,
            linewidth=2.2 if accelerator in bought else 1.2,
            markeredgecolor="white", markeredgewidth=0.4, gid=mark,
        )  # fmt: skip
        marks[mark] = tuple(point_text(p, titles) for p in points)
    marks |= dict(_stars(axes, name, found, titles))
    _finish(axes, found, plan, groups, looks)
    rows = [*_plan_rows(found), *(_row(p) for p in curve.points)]
    whose = f" for {found.of_class}" if several else ""
    return Chart(
        name=name,
        label=f"Frontier{whose}: output tokens a second a GPU against tokens a second a user, one curve for each of "
        f"{', '.join(titles.get(a, a) for a in groups)}; {len(found.points)} set-ups of the plan are marked",
        figure=figure,
        headings=("accelerator", "tok/s/user", "tok/s/GPU", "$/M out", "tok/s/MW", "set-up"),
        rows=tuple(rows),
        marks=marks,
    )


def point_text(point: FrontierPoint, titles: Mapping[str, str]) -> str:
    """Return an operating point with its whole deployment, for who points at it."""
    cost = point.usd_per_million_output_tokens
    efficiency = point.tokens_per_s_per_mw
    words = [
        f"{number(point.tokens_per_s_per_user)} tok/s/user",
        f"{number(point.output_tokens_per_s_per_gpu)} tok/s/GPU",
        *([] if cost is None else [f"{usd(cost)} per M output tokens"]),
        *([] if efficiency is None else [f"{short(efficiency)} tok/s/MW"]),
        f"TTFT {milliseconds(point.ttft_ms)} ms on average",
        f"{number(point.concurrency)} requests in flight a replica",
    ]
    title = titles.get(point.accelerator, point.accelerator)
    return f"{title}: {', '.join(words)}. {full_text(point.deployment)}"


def plan_point_text(point: PlanPoint, titles: Mapping[str, str]) -> str:
    """Return an item of the plan with its whole deployment."""
    words = [
        f"{number(point.tokens_per_s_per_user)} tok/s/user on average",
        f"{number(point.output_tokens_per_s_per_gpu)} tok/s/GPU",
        f"{usd(point.usd_per_million_output_tokens)} per M output tokens",
        f"{point.replicas:,} replicas on {point.gpus:,} GPUs",
    ]
    title = titles.get(point.accelerator, point.accelerator)
    return f"Plan, item {point.item}, {title}: {', '.join(words)}. {full_text(point.deployment)}"


def _stars(
    axes: Any, name: str, found: PlannedFrontier, titles: Mapping[str, str]
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Mark the plan's items; yields what the marks say."""
    for point in found.points:
        mark = f"{name}-plan-{point.item}"
        axes.plot(
            [point.tokens_per_s_per_user], [point.output_tokens_per_s_per_gpu], marker=STAR, markersize=17,
            color="black", markerfacecolor="#f0e442", markeredgewidth=1.1, linestyle="none", zorder=5, gid=mark,
        )  # fmt: skip
        yield mark, (plan_point_text(point, titles),)


def _name_stars(axes: Any, points: Sequence[PlanPoint]) -> None:
    """Write which items the stars are: once for those that stand on each other."""
    to_axes = axes.transData + axes.transAxes.inverted()
    groups: list[tuple[Any, list[int]]] = []
    for point in points:
        place = to_axes.transform((point.tokens_per_s_per_user, point.output_tokens_per_s_per_gpu))
        near = next((each for each in groups if max(abs(each[0] - place)) < NEAR), None)
        if near is None:
            groups.append((place, [point.item]))
        else:
            near[1].append(point.item)
    for place, items in groups:
        words = "plan" if len(points) == 1 else f"plan {', '.join(map(str, items))}"
        axes.annotate(
            words, place, xycoords="axes fraction", xytext=(9, 8), textcoords="offset points", fontsize=9,
            fontweight="bold", zorder=6, bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.0},
        )  # fmt: skip


def _finish(
    axes: Any,
    found: PlannedFrontier,
    plan: Plan,
    groups: Mapping[str, Sequence[FrontierPoint]],
    looks: Mapping[str, tuple[str, str, Any]],
) -> None:
    """Set limits and labels."""
    every = [p for points in groups.values() for p in points]
    xs = [p.tokens_per_s_per_user for p in every] + [p.tokens_per_s_per_user for p in found.points]
    ys = [p.output_tokens_per_s_per_gpu for p in every] + [p.output_tokens_per_s_per_gpu for p in found.points]
    axes.set_ylim(*_widened(ys, 0.06, 0.06))
    axes.set_xlim(*_widened(xs, 0.03, 0.03))
    limit = plan.request.sla.tpot_ms if not plan.request.classes else _limit(plan, found.of_class)
    if limit is not None and 1e3 / limit < max(xs):
        axes.axvline(1e3 / limit, color="black", linewidth=1.0, linestyle=(0, (2, 2)), zorder=1)
        axes.annotate(
            f"limit: {number(1e3 / limit)} tok/s/user", (1e3 / limit, 1.0), xycoords=("data", "axes fraction"),
            xytext=(0, 3), textcoords="offset points", ha="center", va="bottom", fontsize=8.5,
        )  # fmt: skip
    _name_curves(axes, groups, looks, found.points)
    _name_stars(axes, found.points)
    axes.set_xlabel("output tokens/s for each user (mean)")
    axes.set_ylabel("output tokens/s for each GPU")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:,.10g}")
        axis.set_minor_formatter(lambda value, _: f"{value:,.10g}" if f"{value:e}"[0] in "25" else "")
    axes.grid(visible=True, which="major", color="0.85")
    axes.grid(visible=True, which="minor", color="0.94", linewidth=0.6)
    axes.set_axisbelow(True)
    bare(axes)
    axes.tick_params(which="minor", labelsize=8.5)


def _widened(values: Sequence[float], below: float, above: float) -> tuple[float, float]:
    """Return ends of a logarithmic axis with room on both sides, as shares of what lies between."""
    low, high = math.log10(min(values)), math.log10(max(values))
    reach = max(high - low, 0.3)
    return 10.0 ** (low - below * reach), 10.0 ** (high + above * reach)


def _name_curves(
    axes: Any,
    groups: Mapping[str, Sequence[FrontierPoint]],
    looks: Mapping[str, tuple[str, str, Any]],
    stars: Sequence[PlanPoint],
) -> None:
    """Write names and markers on the right, in the order of the curves' fast ends, with a line to each."""
    to_axes = axes.transData + axes.transAxes.inverted()
    bought = {star.accelerator for star in stars}
    ends = {name: (p[-1].tokens_per_s_per_user, p[-1].output_tokens_per_s_per_gpu) for name, p in groups.items()}
    wanted = [float(to_axes.transform(end)[1]) for end in ends.values()]
    for (name, end), place in zip(ends.items(), apart(wanted, LINE), strict=True):
        colour, marker, _ = looks[name]
        axes.annotate(
            name, end, xytext=(1.025, place), textcoords="axes fraction", fontsize=8.5, va="center",
            color=_ink(colour), fontweight="bold" if name in bought else "normal",
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6, "alpha": 0.7, "shrinkB": 3},
            annotation_clip=False,
        )  # fmt: skip
        axes.plot(
            [1.014], [place], marker=marker, color=colour, markersize=4.5, transform=axes.transAxes, clip_on=False
        )


def _limit(plan: Plan, of_class: str) -> float | None:
    asked = plan.request.class_named(of_class)
    return None if asked is None else asked.sla.tpot_ms


def _ink(colour: str) -> str:
    """Return a colour dark enough for letters."""
    red, green, blue = (int(colour[k : k + 2], 16) for k in (1, 3, 5))
    light = (0.299 * red + 0.587 * green + 0.114 * blue) / 255.0
    factor = min(1.0, 0.42 / light) if light else 1.0
    return "#" + "".join(f"{int(part * factor):02x}" for part in (red, green, blue))


def _slug(name: str) -> str:
    """Return a name as a part of a file's name: letters and digits, joined by hyphens."""
    kept = "".join(sign if sign.isascii() and sign.isalnum() else "-" for sign in name.lower())
    return "-".join(part for part in kept.split("-") if part)[:40] or "class"


def _row(point: FrontierPoint) -> tuple[str, ...]:
    cost, efficiency = point.usd_per_million_output_tokens, point.tokens_per_s_per_mw
    return (
        point.accelerator,
        number(point.tokens_per_s_per_user),
        number(point.output_tokens_per_s_per_gpu),
        "-" if cost is None else usd(cost),
        "-" if efficiency is None else short(efficiency),
        f"{short_text(point.deployment)}, at most {point.deployment.max_running_requests or 0:,} running",
    )


def _plan_rows(found: PlannedFrontier) -> Iterator[tuple[str, ...]]:
    for point in found.points:
        yield (
            f"plan, item {point.item}: {point.accelerator}",
            number(point.tokens_per_s_per_user),
            number(point.output_tokens_per_s_per_gpu),
            usd(point.usd_per_million_output_tokens),
            "",
            full_text(point.deployment),
        )
