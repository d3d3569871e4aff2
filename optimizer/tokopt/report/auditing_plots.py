"""An audit as a picture (extra `report`): what all-to-alls take of a decode step, by batch."""

from __future__ import annotations

from collections.abc import Iterator

from tokopt.domain.auditing import Audit, ExchangeReach
from tokopt.report.plots import blank_figure, png

DPI = 150
# Colours of the palette of Okabe and Ito, told apart by the colour-blind.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
PICTURE = "all_to_all.png"


def pictures(found: Audit) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each picture; none where no platform spreads experts."""
    if any(True for _ in _curves(found)):
        yield PICTURE, _all_to_all(found)


def _curves(found: Audit) -> Iterator[tuple[str, str, str, ExchangeReach]]:
    for number, platform in enumerate(found.platforms):
        exchange = platform.exchange
        for reach, line in ((exchange.inside, "-"), (exchange.across, "--")) if exchange is not None else ():
            if reach is not None:
                label = f"{platform.accelerator}, ep{reach.expert_parallel}"
                yield label, COLOURS[number % len(COLOURS)], line, reach


def _all_to_all(found: Audit) -> bytes:
    figure = blank_figure(8.0, 4.6)
    axes = figure.subplots()
    for label, colour, line, reach in _curves(found):
        batches = [point.requests_per_gpu for point in reach.points]
        axes.plot(batches, [100 * point.share for point in reach.points], line, color=colour, label=label)
        binding = [point for point in reach.points if point.binds]
        axes.plot([p.requests_per_gpu for p in binding], [100 * p.share for p in binding], ".", color=colour)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_ylim(bottom=0.0)
    axes.set_xlabel("requests a GPU")
    axes.set_ylabel("all-to-alls, % of a decode step (dots: the largest part)")
    axes.set_title(f"{found.model}: dashed lines reach over two scale-up domains", fontsize=11)
    axes.grid(visible=True, color="0.9")
    axes.legend(fontsize=9, frameon=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return png(figure, DPI)
