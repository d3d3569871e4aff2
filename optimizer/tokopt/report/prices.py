"""Price lists: what was read and what was not, and who sells an accelerator for how much, as a plot and a table."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.text import Text

from tokopt.domain.pricing import PriceCheck, PriceFileCheck, PriceSpread, PriceTable
from tokopt.report.blocks import bullets, columns, counted, pairs, section
from tokopt.report.figures import UNKNOWN, plural, usd

OWN_COLUMNS = (
    "provider", "region", "zone", "instance_type", "accelerator", "accelerator_count", "market", "usd_per_hour",
    "currency", "as_of", "available_units", "source", "note",
)  # fmt: skip
MOST_LINES = 40
MOST_REASONS = 12
MOST_ROWS_PLOTTED = 24
SIGNS = {"on_demand": "o", "spot": "s", "reserved": "r", "reserved_1y": "1", "reserved_3y": "3", "owned": "w"}
COLOURS = {"o": "cyan", "s": "magenta", "r": "green", "1": "green", "3": "green", "w": "yellow"}
LEAST_WIDTH, MOST_WIDTH = 24, 90  # of the plot's canvas
MARGIN = 9  # columns around the canvas, besides the labels
TICK_COLUMNS = 10  # between figures below the plot
EMPTY_CELL = "\u2800"  # a braille cell without dots, which looks like a blank but is none


def dates(oldest: str, newest: str, undated: int = 0) -> str:
    """Return a range of dates in words."""
    said = UNKNOWN if not oldest else oldest if oldest == newest else f"{oldest} to {newest}"
    return f"{said}, {plural(undated, 'offer')} without a date" if undated and oldest else said


def price_check_report(check: PriceCheck, *, everything: bool) -> RenderableType:
    """Return what price lists hold; `everything` lists every rejected row rather than the first of each reason."""
    title = Text.assemble(
        (f"{plural(check.offers, 'offer')}", "bold"),
        f" in {plural(check.rows, 'row')} of {plural(len(check.files), 'file')}, ",
        f"{plural(check.rejected, 'row')} rejected",
    )
    parts: list[RenderableType] = [title, section("Files", _files(check.files))]
    if check.rejected_by_reason:
        kinds = counted(check.rejected_by_reason)
        more = len(kinds) - MOST_REASONS
        lines = kinds if everything or more <= 0 else [*kinds[:MOST_REASONS], f"{plural(more, 'more reason')} (--list)"]
        parts.append(section("Rejected", bullets(lines)))
    if check.rejected_rows:
        some = "Rejected rows" if everything else "Rejected rows, the first of each reason (--list for all)"
        shown = check.rejected_rows if everything else check.rejected_rows[:MOST_REASONS]
        # Never broken, so that other programs find file and line.
        rows = [f"{row.file}{f':{row.line}' if row.line else ''}: {row.reason}" for row in shown]
        parts.append(section(some, *(Text(row, no_wrap=True, overflow="ignore") for row in rows)))
    if check.flagged:
        parts.append(section("Used, but doubtful", bullets(counted(check.flagged))))
    if check.passed_over:
        parts.append(section("Passed over", bullets(counted(check.passed_over))))
    if check.accelerators:
        said = ", ".join(f"{name} {count:,}" for name, count in check.accelerators.items())
        parts.append(section("Offers by accelerator", Text(said)))
    facts = [("dates", Text(dates(check.oldest, check.newest, check.undated)))]
    if check.rates:
        facts.append(("rates", Text(rates_text(check.rates))))
    parts.append(section("Dates and rates" if check.rates else "Dates", pairs(facts)))
    return Group(*parts)


def rates_text(rates: Mapping[str, float]) -> str:
    """Return rates of currencies in words."""
    return ", ".join(f"1 {code} = {rate:g} USD" for code, rate in rates.items())


def _files(files: Sequence[PriceFileCheck]) -> RenderableType:
    rows = [
        (
            Text(file.file),
            Text(file.format),
            f"{file.rows:,}",
            f"{file.offers:,}",
            f"{file.rejected:,}",
            f"{sum(file.flagged.values()):,}",
            Text(dates(file.oldest, file.newest)),
        )
        for file in files
    ]
    headings = ("file", "format", "rows", "offers", "rejected", "flags", "dates")
    return columns(headings, rows, left=(0, 1, 6))


def price_table_report(table: PriceTable, *, columns_wide: int, most: int | None, plot: bool) -> RenderableType:
    """Return the plot of prices by provider and the table of offers, thinned to the `most` cheapest."""
    low, high = table.lines[0].usd_per_gpu_hour, table.lines[-1].usd_per_gpu_hour
    title = Text.assemble(
        (f"Prices of {', '.join(table.accelerators)}", "bold"),
        f": {plural(len(table.lines), 'offer')}, {usd(low)} to {usd(high)} a GPU-hour",
    )
    parts: list[RenderableType] = [title]
    if plot:
        parts += [section("$ a GPU-hour by provider", price_plot(table, columns_wide=columns_wide))]
    parts.append(section("Spread, $ a GPU-hour", _spread(table.spread)))
    shown = table.lines if most is None else table.lines[:most]
    some = (
        "all" if len(shown) == len(table.lines) else f"the {len(shown)} cheapest of {len(table.lines):,}; --all for all"
    )
    parts.append(section(f"Offers ({some})", _offers(table, len(shown))))
    parts.append(section("Where the numbers come from", pairs(_provenance(table))))
    return Group(*parts)


def price_csv(table: PriceTable) -> str:
    """Return the offers as a price list in tokopt's own columns, which is read back to the same offers."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(OWN_COLUMNS)
    for line in table.lines:
        given = line.model_dump(mode="json") | {"accelerator_count": line.accelerator_count, "currency": "USD"}
        writer.writerow(["" if given[name] is None else given[name] for name in OWN_COLUMNS])
    return out.getvalue()


def _offers(table: PriceTable, most: int) -> RenderableType:
    several = len(table.accelerators) > 1
    rows: list[list[RenderableType]] = []
    for line in table.lines[:most]:
        doubt = f"{line.as_of or UNKNOWN}{' !' if line.flags else ''}"
        machine = f"{line.instance_type} ({line.accelerator_count})"
        cells: list[RenderableType] = [
            f"{line.usd_per_gpu_hour:,.3f}",
            Text(line.provider),
            Text(line.region or "-"),
            line.market,
        ]
        cells += [Text(machine), Text(doubt), Text(line.source.partition(" ")[0].rstrip(";"))]
        rows.append([line.accelerator, *cells] if several else cells)
    headings = ["$/GPU-h", "provider", "region", "market", "instance (GPUs)", "date", "source"]
    left = range(1, len(headings))
    if several:
        return columns(["accelerator", *headings], rows, left=(0, *(n + 1 for n in left)))
    return columns(headings, rows, left=left)


def _spread(spreads: Sequence[PriceSpread]) -> RenderableType:
    rows: list[tuple[RenderableType, ...]] = [
        (
            Text(s.provider),
            s.market,
            f"{s.offers:,}",
            *(f"{v:,.2f}" for v in (s.lowest, s.lower_quartile, s.median, s.upper_quartile, s.highest)),
        )
        for s in spreads
    ]
    return columns(("provider", "market", "offers", "lowest", "25 %", "median", "75 %", "highest"), rows, left=(0, 1))


def _provenance(table: PriceTable) -> Iterator[tuple[str, RenderableType]]:
    yield "prices", Text(f"{', '.join(table.price_lists)} as of {table.prices_as_of or UNKNOWN}")
    if table.rates:
        yield "rates", Text(rates_text(table.rates))
    flags: dict[str, int] = {}
    for line in table.lines:
        for flag in line.flags:
            flags[flag] = flags.get(flag, 0) + 1
    if flags:
        yield "! marks", Text("; ".join(counted(flags)))
    if table.rejected_price_rows:
        rejected = sum(table.rejected_price_rows.values())
        said = "; ".join(counted(table.rejected_price_rows)[:6])
        yield "price rows", Text(f"{plural(rejected, 'row')} of these lists not used: {said}")


def price_plot(table: PriceTable, *, columns_wide: int) -> RenderableType:
    """Return one row a provider and market: a line from the lowest to the highest price, and a letter at each offer."""
    import plotille

    spreads = table.spread[:MOST_ROWS_PLOTTED]
    labels = [f"{s.provider} {s.market.replace('_', ' ')}" for s in spreads]
    room = max(len(label) for label in labels)
    left, right = _ends(min(s.lowest for s in spreads), max(s.highest for s in spreads))
    width = min(max(columns_wide - room - MARGIN, LEAST_WIDTH), MOST_WIDTH)
    canvas = plotille.Canvas(
        width=width,
        height=len(spreads),
        xmin=math.log10(left),
        xmax=math.log10(right),
        ymin=0.0,
        ymax=float(len(spreads)),
    )
    for number, spread in enumerate(spreads):
        height = len(spreads) - number - 0.5  # canvases count upwards; the cheapest stands on top
        canvas.line(math.log10(spread.lowest), height, math.log10(spread.highest), height)
        for line in table.lines:
            if (line.provider, line.market) == (spread.provider, spread.market):
                canvas.point(math.log10(line.usd_per_gpu_hour), height, marker=SIGNS.get(spread.market, "x"))
        canvas.point(math.log10(spread.median), height, marker="M")
    rows = canvas.plot().replace(EMPTY_CELL, " ").splitlines()
    text = Text(no_wrap=True, overflow="crop")
    for label, row in zip(labels, rows, strict=True):
        text.append(f"{label:>{room}} │ ", style="")
        for sign in row:
            text.append(sign, style="bold" if sign == "M" else COLOURS.get(sign, ""))
        text.append("\n")
    text.append(_axis(left, right, width, room))
    there = dict.fromkeys(SIGNS.get(s.market, "x") for s in spreads)
    words = {sign: market.replace("_", " ") for market, sign in SIGNS.items()}
    legend = [Text(f"{sign} {words.get(sign, '')}", style=COLOURS.get(sign, "")) for sign in there]
    legend.append(Text("M median", style="bold"))
    parts: list[RenderableType] = [text, Columns(legend, padding=(0, 2))]
    left_out = len(table.spread) - len(spreads)
    if left_out:
        parts.append(Text(f"{plural(left_out, 'dearer row')} not plotted"))
    return Group(*parts)


def _ends(low: float, high: float) -> tuple[float, float]:
    """Return the ends of the axis: a little room around the prices."""
    ratio = max((high / low) ** 0.03, 1.02)
    return low / ratio, high * ratio


def _axis(left: float, right: float, width: int, room: int) -> str:
    """Return the axis below a plot, which is logarithmic, and prices along it. [USD/h]"""
    steps = max(width // TICK_COLUMNS, 1)
    ticks = [(round(n * (width - 1) / steps), left * (right / left) ** (n / steps)) for n in range(steps + 1)]
    rule, figures = ["─"] * width, [" "] * (width + TICK_COLUMNS)
    for place, price in ticks:
        rule[place] = "┬"
        figures[place : place + len(f"{price:.2f}")] = f"{price:.2f}"
    return f"{'':>{room}} └─{''.join(rule)}\n{'':>{room}}   {''.join(figures).rstrip()}"
