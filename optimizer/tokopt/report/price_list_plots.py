"""A plan's request under every price list as a picture (extra `report`)."""

from __future__ import annotations

from tokopt.domain.comparing import Comparison, ComparisonRow
from tokopt.report.comparing import cost_range, shortened
from tokopt.report.figures import share, usd
from tokopt.report.plots import Chart, bare, blank_figure, legend_below, looks_of

FAR = 25.0  # times the lowest cost, from which on costs are drawn on a scale of ratios


def price_list_chart(found: Comparison) -> Chart | None:
    """Return a bar a price list, the cheapest on top, with its 80 % range; None where nothing is feasible."""
    rows = sorted(
        (row for row in found.rows if row.usd_per_million_output_tokens is not None),
        key=lambda row: row.usd_per_million_output_tokens or 0.0,
    )
    if not rows:
        return None
    costs = [row.usd_per_million_output_tokens or 0.0 for row in rows]
    own = found.price_lists[0].price_list
    looks = looks_of(row.accelerator for row in rows)
    figure = blank_figure(8.2, 1.6 + 0.36 * len(rows))
    axes = figure.add_subplot()
    ends = [row.usd_per_million_output_tokens_high or cost for row, cost in zip(rows, costs, strict=True)]
    most, wide = max(ends), max(costs) / max(min(costs), 1e-12) > FAR
    marks = {}
    if wide:
        axes.set_xscale("log")
    start = min(costs) * 0.5 if wide else 0.0
    for place, (row, cost) in enumerate(zip(rows, costs, strict=True)):
        colour, hatch = looks[row.accelerator]
        mark = f"price-lists-{place}"
        axes.barh(
            place, cost - start, 0.68, start, color=colour, hatch=hatch, edgecolor="black", linewidth=0.6, gid=mark
        )
        low, high = row.usd_per_million_output_tokens_low, row.usd_per_million_output_tokens_high
        if low is not None and high is not None:
            axes.plot([low, high], [place, place], color="black", linewidth=3.2, solid_capstyle="butt", zorder=3)
            axes.plot([low, high], [place, place], color="white", linewidth=1.6, solid_capstyle="butt", zorder=3)
        end = max(cost, high or cost)
        axes.text(
            end * 1.08 if wide else end + most * 0.012, place, f"{usd(cost)}  {_offer(row)}", va="center", fontsize=8,
            fontweight="bold" if row.price_list == own else "normal",
        )  # fmt: skip
        marks[mark] = (_told(row),)
    names = [f"{shortened(row.price_list)}{' (the plan)' if row.price_list == own else ''}" for row in rows]
    axes.set_yticks(range(len(rows)), names)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(start, most * (6.0 if wide else 1.45))
    axes.set_xlabel("USD per million output tokens; white lines: 80 % range")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    bare(axes)
    axes.tick_params(axis="y", length=0)
    legend_below(figure, [(name, *look) for name, look in looks.items()])
    return Chart(
        name="price_lists",
        label="USD per million output tokens of the best plan under each price list: "
        f"{', '.join(f'{row.price_list} {usd(cost)}' for row, cost in zip(rows, costs, strict=True))}",
        figure=figure,
        headings=("price list", "$/M out", "80 % range", "above the best", "accelerator", "offer"),
        rows=tuple(_row(row, cost) for row, cost in zip(rows, costs, strict=True)),
        marks=marks,
    )


def _offer(row: ComparisonRow) -> str:
    return f"{row.accelerator}, {row.market.replace('_', ' ')}"


def _told(row: ComparisonRow) -> str:
    where = " ".join(filter(None, (row.provider, row.region, row.instance_type)))
    gpus = "" if row.gpus is None else f"{row.gpus:,} "
    cost = usd(row.usd_per_million_output_tokens or 0.0)
    known = cost_range(row)
    around = f" (80 %: {known})" if known else ""
    return (
        f"{row.price_list}: {cost} per M output tokens{around}; {gpus}{_offer(row)}; {where}; "
        f"{row.framework}, {row.precision}, {row.mode}"
    )


def _row(row: ComparisonRow, cost: float) -> tuple[str, ...]:
    worse = row.difference_percent
    return (
        row.price_list,
        usd(cost),
        cost_range(row),
        "best" if row.best else "" if worse is None else f"+{share(worse / 100.0)}" if worse else "the same",
        row.accelerator,
        ", ".join(filter(None, (row.provider, row.market.replace("_", " "), row.region, row.instance_type))),
    )
