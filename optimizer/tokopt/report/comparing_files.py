"""A comparison as a data frame, and as pictures."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from tokopt.domain.comparing import CellStatus, Comparison, ComparisonRow
from tokopt.report.comparing import ratio_of, shortened
from tokopt.report.figures import usd
from tokopt.report.plots import Chart, blank_figure, picture

if TYPE_CHECKING:
    import polars as pl

FORMATS = (".csv", ".parquet", ".json")
SCENARIOS_A_PAGE = 50
MOST_PAGES = 20
WORST = 4.0  # times the best cost, where the colours end
DARK = 2.6  # times the best cost, from which on the colour asks for white letters
DPI = 120


def rows_frame(found: Comparison) -> pl.DataFrame:
    """Return the rows of a comparison as a data frame, a row a cell."""
    import polars as pl

    # Stated, because columns of nothing but empty cells have no type of their own.
    kinds = {bool: pl.Boolean, int: pl.Int64, float: pl.Float64}
    schema = {
        name: next((kinds[k] for k in kinds if k is field.annotation or k in get_args(field.annotation)), pl.String)
        for name, field in ComparisonRow.model_fields.items()
    }
    return pl.DataFrame([row.model_dump(mode="json") for row in found.rows], schema=schema)


def written(found: Comparison, ending: str) -> bytes:
    """Return a comparison as the content of a file with one of the endings of `FORMATS`."""
    if ending == ".json":
        return (found.model_dump_json(indent=2) + "\n").encode("utf-8")
    stream = io.BytesIO()
    frame = rows_frame(found)
    if ending == ".csv":
        frame.write_csv(stream)
    else:
        frame.write_parquet(stream)
    return stream.getvalue()


def heat_maps(found: Comparison, form: str = "png") -> Iterator[tuple[str, bytes]]:
    """Yield name and content of pictures: scenarios x price lists, cost relative to the scenario's best list."""
    each = len(found.price_lists)
    lines = [found.rows[start : start + each] for start in range(0, len(found.rows), each)]
    pages = [lines[start : start + SCENARIOS_A_PAGE] for start in range(0, len(lines), SCENARIOS_A_PAGE)][:MOST_PAGES]
    names = [entry.price_list for entry in found.price_lists]
    for number, page in enumerate(pages, 1):
        of = f" (page {number} of {len(pages)})" if len(pages) > 1 else ""
        chart = _heat_map(
            "heat_map" if number == 1 else f"heat_map_{number}",
            {line[0].scenario: [_cell(row) for row in line] for line in page},
            names,
            f"USD per million output tokens, coloured by the difference to the scenario's best price list{of}",
        )
        yield picture(chart, form)


def accelerator_map(found: Comparison) -> Chart | None:
    """Return price lists x accelerators, where each scenario is one accelerator; None where nothing has a cost.

    Colours are relative to the lowest cost of all.
    """
    costs = [row.usd_per_million_output_tokens for row in found.rows if row.usd_per_million_output_tokens is not None]
    if not costs:
        return None
    best = min(costs)
    each = len(found.price_lists)
    lines: dict[str, list[HeatCell]] = {entry.price_list: [] for entry in found.price_lists}
    for start in range(0, len(found.rows), each):
        for row in found.rows[start : start + each]:
            cost = row.usd_per_million_output_tokens
            gpus = "" if row.gpus is None else f", {row.gpus:,} GPUs"
            lines[row.price_list].append(
                HeatCell(
                    ratio=None if cost is None else cost / best,
                    said="–" if cost is None else usd(cost),
                    best=cost == best,
                    told=f"{row.price_list}, {row.scenario}: {usd(cost)} per M output tokens{gpus}" if cost else "",
                )
            )
    return _heat_map(
        "price_map",
        lines,
        [winner.scenario for winner in found.winners],
        "USD per million output tokens with one accelerator alone, coloured by the difference to the lowest of all",
        wide=8.2,
    )


@dataclass(frozen=True, slots=True)
class HeatCell:
    """A cell of a heat map."""

    ratio: float | None  # times the best cost; None = no plan
    said: str
    best: bool
    told: str = ""  # to who points at it


def _cell(row: ComparisonRow) -> HeatCell:
    cost = row.usd_per_million_output_tokens
    if cost is None:
        return HeatCell(None, "no answer" if row.status is CellStatus.ERROR else "infeasible", row.best)
    return HeatCell(ratio_of(row), usd(cost), row.best)


def _heat_map(
    name: str, lines: Mapping[str, Sequence[HeatCell]], names: Sequence[str], title: str, *, wide: float | None = None
) -> Chart:
    """Draw rows of cells by the names of rows and columns."""
    import numpy as np
    from matplotlib.colors import LogNorm

    ratios = np.array([[cell.ratio or np.nan for cell in line] for line in lines.values()])
    across, high = len(names), len(lines)
    figure = blank_figure(wide or min(5.5 + 0.85 * across, 60.0), 2.2 + 0.3 * high)
    axes = figure.add_subplot()
    norm = LogNorm(vmin=1.0, vmax=WORST)
    edges = np.arange(across + 1) - 0.5, np.arange(high + 1) - 0.5
    image = axes.pcolormesh(*edges, np.ma.masked_invalid(ratios), norm=norm, cmap="YlOrRd")
    axes.invert_yaxis()
    axes.set_facecolor("0.88")
    axes.set_xticks(range(across), [shortened(each) for each in names], rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(high), [shortened(each) for each in lines])
    axes.set_xticks(edges[0], minor=True)
    axes.set_yticks(edges[1], minor=True)
    axes.grid(which="minor", color="white", linewidth=1.0)
    axes.tick_params(which="both", length=0, labelsize=8)
    marks = _label(axes, name, list(lines.values()))
    if wide:
        figure.suptitle(title, fontsize=9.5, x=0.01, ha="left")
    else:
        axes.set_title(title, fontsize=10, loc="left")
    ticks = [1.0, 1.25, 1.5, 2.0, 3.0, WORST]
    bar = figure.colorbar(image, ax=axes, extend="max", ticks=ticks, shrink=min(1.0, 8.0 / high))
    bar.ax.set_yticklabels(["best", *(f"{tick:g}×" for tick in ticks[1:])])
    bar.ax.minorticks_off()
    bar.ax.tick_params(labelsize=8)
    return Chart(
        name=name,
        label=f"Heat map: {title}",
        figure=figure,
        headings=("", *names),
        rows=tuple((row, *(cell.said for cell in line)) for row, line in lines.items()),
        marks=marks,
        dpi=DPI,
    )


def _label(axes: Any, name: str, lines: Sequence[Sequence[HeatCell]]) -> dict[str, tuple[str, ...]]:
    """Write the cost into each cell; the winner's in bold and framed, what has no plan in grey.

    Returns what the cells say.
    """
    from matplotlib.patches import Rectangle

    marks: dict[str, tuple[str, ...]] = {}
    for y, line in enumerate(lines):
        for x, cell in enumerate(line):
            if cell.ratio is None:
                axes.text(x, y, cell.said, ha="center", va="center", fontsize=6.5, color="0.45")
            else:
                colour = "white" if cell.ratio > DARK else "black"
                weight = "bold" if cell.best else "normal"
                axes.text(x, y, cell.said, ha="center", va="center", fontsize=7.5, color=colour, weight=weight)
            if cell.best or cell.told:
                mark = f"{name}-{y}-{x}"
                line_width = 1.3 if cell.best else 0.0
                frame = Rectangle((x - 0.47, y - 0.45), 0.94, 0.9, fill=False, edgecolor="black", linewidth=line_width)
                if cell.told:
                    frame.set(gid=mark, facecolor="none", fill=True)
                    marks[mark] = (cell.told,)
                axes.add_patch(frame)
    return marks
