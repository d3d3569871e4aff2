"""A comparison as a data frame, and as pictures."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, get_args

from tokopt.domain.comparing import CellStatus, Comparison, ComparisonRow
from tokopt.report.comparing import ratio_of, shortened
from tokopt.report.figures import usd

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


def heat_maps(found: Comparison) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of PNG files: scenarios x price lists, cost relative to the scenario's best list."""
    each = len(found.price_lists)
    lines = [found.rows[start : start + each] for start in range(0, len(found.rows), each)]
    pages = [lines[start : start + SCENARIOS_A_PAGE] for start in range(0, len(lines), SCENARIOS_A_PAGE)][:MOST_PAGES]
    for number, page in enumerate(pages, 1):
        name = "heat_map.png" if number == 1 else f"heat_map_{number}.png"
        of = f" (page {number} of {len(pages)})" if len(pages) > 1 else ""
        yield name, _page(page, [entry.price_list for entry in found.price_lists], of)


def _page(lines: Sequence[Sequence[ComparisonRow]], names: Sequence[str], of: str) -> bytes:
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    ratios = np.array([[ratio_of(row) or np.nan for row in line] for line in lines])
    wide, high = len(names), len(lines)
    figure = Figure(figsize=(min(5.5 + 0.85 * wide, 60.0), 2.2 + 0.3 * high), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    norm = LogNorm(vmin=1.0, vmax=WORST)
    image = axes.imshow(np.ma.masked_invalid(ratios), norm=norm, cmap="YlOrRd", aspect="auto")
    axes.set_facecolor("0.88")
    axes.set_xticks(range(wide), [shortened(name) for name in names], rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(high), [shortened(line[0].scenario) for line in lines])
    axes.set_xticks(np.arange(wide + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(high + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.0)
    axes.tick_params(which="both", length=0, labelsize=8)
    _label(axes, lines)
    title = f"USD per million output tokens, coloured by the difference to the scenario's best price list{of}"
    axes.set_title(title, fontsize=10, loc="left")
    marks = [1.0, 1.25, 1.5, 2.0, 3.0, WORST]
    bar = figure.colorbar(image, ax=axes, extend="max", ticks=marks, shrink=min(1.0, 8.0 / high))
    bar.ax.set_yticklabels(["best", *(f"{mark:g}×" for mark in marks[1:])])
    bar.ax.minorticks_off()
    bar.ax.tick_params(labelsize=8)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=DPI)
    return stream.getvalue()


def _label(axes: Any, lines: Sequence[Sequence[ComparisonRow]]) -> None:
    """Write the cost into each cell; the winner's in bold and framed, what has no plan in grey."""
    from matplotlib.patches import Rectangle

    for y, line in enumerate(lines):
        for x, row in enumerate(line):
            cost = row.usd_per_million_output_tokens
            if cost is None:
                said = "no answer" if row.status is CellStatus.ERROR else "infeasible"
                axes.text(x, y, said, ha="center", va="center", fontsize=6.5, color="0.45")
            else:
                colour = "white" if (ratio_of(row) or 1.0) > DARK else "black"
                weight = "bold" if row.best else "normal"
                axes.text(x, y, usd(cost), ha="center", va="center", fontsize=7.5, color=colour, weight=weight)
            if row.best:
                axes.add_patch(Rectangle((x - 0.47, y - 0.45), 0.94, 0.9, fill=False, edgecolor="black", linewidth=1.3))
