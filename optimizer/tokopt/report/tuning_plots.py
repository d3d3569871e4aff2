"""A tuning as pictures (extra `report`): the front, how the best came about, and which knobs matter."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tokopt.domain.tuning import Aim, ItemTuning, TrialState, Tuning, TuningTrial
from tokopt.report.figures import share
from tokopt.report.plots import blank_figure, png
from tokopt.report.tuning import AIMS

DPI = 150
# Colours of the palette of Okabe and Ito; shapes and edges keep them apart in black and white.
COMPLETE, STOPPED, FRONT, PLANNED = "#0072b2", "0.75", "#d55e00", "black"
HIGHEST = 10.0  # figures over their limit beyond it are off the picture


def pictures(found: Tuning) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each picture."""
    for item in found.items:
        mark = f"_item_{item.item}" if len(found.items) > 1 else ""
        yield f"history{mark}.png", history(item, found.settings.objectives[0])
        if len(found.settings.objectives) > 1:
            yield f"front{mark}.png", pareto(item, found.settings.objectives)
        if item.importance:
            yield f"importance{mark}.png", importance(item, found.settings.objectives[0])


def history(item: ItemTuning, aim: Aim) -> bytes:
    """Return the first objective of every trial, and the best of the complete ones so far."""
    figure = blank_figure(8.0, 4.2)
    axes = figure.add_subplot()
    rows = [trial for trial in item.trials if aim.value in trial.values]
    complete = [trial for trial in rows if trial.state is TrialState.COMPLETE]
    stopped = [trial for trial in rows if trial.state is TrialState.PRUNED]
    place = {trial.number: n for n, trial in enumerate(item.trials, 1)}
    for some, colour, name in (
        (stopped, STOPPED, "stopped early, after shorter looks"),
        (complete, COMPLETE, "complete"),
    ):
        xs, ys = [place[t.number] for t in some], [t.values[aim.value] for t in some]
        axes.scatter(xs, ys, s=26, color=colour, edgecolor="0.3", linewidth=0.5, label=name, zorder=3)
    best: list[float] = []
    for trial in complete:
        value = trial.values[aim.value]
        best.append(value if not best else (max if aim.maximised else min)(best[-1], value))
    axes.step([place[t.number] for t in complete], best, where="post", color=FRONT, label="best complete so far")
    planned = next((t.values[aim.value] for t in rows if t.settings == item.planned.settings), None)
    if planned is not None:
        axes.axhline(planned, color=PLANNED, linewidth=0.9, linestyle=":", label="planned")
    axes.set_xlabel("trial")
    axes.set_ylabel(AIMS[aim])
    _finished(axes, f"item {item.item}, {item.accelerator}: how the best came about")
    return png(figure, DPI)


def pareto(item: ItemTuning, aims: tuple[Aim, ...]) -> bytes:
    """Return the first objective against each other one."""
    others = aims[1:]
    figure = blank_figure(5.2 * len(others) + 0.6, 4.4)
    for number, aim in enumerate(others, 1):
        axes = figure.add_subplot(1, len(others), number)
        _scatter(axes, item, aims[0], aim)
        _finished(axes, f"{aims[0].value} and {aim.value}")
    return png(figure, DPI)


def _scatter(axes: Any, item: ItemTuning, first: Aim, second: Aim) -> None:
    rows = [t for t in item.trials if first.value in t.values and t.values.get(second.value, HIGHEST) < HIGHEST]
    kinds: tuple[tuple[str, str, str, list[TuningTrial]], ...] = (
        ("stopped early, by shorter looks", STOPPED, "o", [t for t in rows if t.state is TrialState.PRUNED]),
        ("complete", COMPLETE, "o", [t for t in rows if t.state is TrialState.COMPLETE and not t.front]),
        ("nothing is better in all", FRONT, "D", [t for t in rows if t.front]),
    )
    for name, colour, mark, some in kinds:
        xs, ys = [t.values[second.value] for t in some], [t.values[first.value] for t in some]
        axes.scatter(xs, ys, s=30, color=colour, marker=mark, edgecolor="0.3", linewidth=0.5, label=name, zorder=3)
    own = next((t for t in rows if t.settings == item.planned.settings), None)
    if own is not None:
        at = [own.values[second.value]], [own.values[first.value]]
        axes.scatter(*at, s=120, facecolor="none", edgecolor=PLANNED, linewidth=1.4, label="planned", zorder=4)
    axes.set_xlabel(AIMS[second])
    axes.set_ylabel(AIMS[first])


def importance(item: ItemTuning, aim: Aim) -> bytes:
    """Return how much each knob explains of the first objective."""
    rows = list(reversed(item.importance))
    figure = blank_figure(6.4, 1.3 + 0.42 * len(rows))
    axes = figure.add_subplot()
    axes.barh([row.knob for row in rows], [row.share for row in rows], color=COMPLETE, edgecolor="black", linewidth=0.6)
    for place, row in enumerate(rows):
        axes.text(row.share + 0.01, place, share(row.share), va="center", fontsize=8.5)
    axes.set_xlim(0.0, max(row.share for row in rows) * 1.18)
    axes.set_xlabel(f"share of what trials differ by in {aim.value}")
    _finished(axes, f"item {item.item}, {item.accelerator}: which knobs matter", legend=False)
    return png(figure, DPI)


def _finished(axes: Any, title: str, *, legend: bool = True) -> None:
    axes.set_title(title, fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    if legend:
        axes.legend(fontsize=8, frameon=False)
