"""The stacked bar of an owned accelerator-hour as a PNG (extra `report`)."""

from __future__ import annotations

import io

from tokopt.domain.ownership import OwnershipBreakdown
from tokopt.errors import InputError
from tokopt.report.ownership import LOOKS, WORDS, label, parts_used

DOTS_PER_INCH = 150
LEAST_LABELLED = 0.06  # of the longest bar; narrower parts have no room for their figure


def ownership_png(breakdown: OwnershipBreakdown) -> bytes:
    """Return the picture; colours of the colour-blind's palette, with hatches that black and white keep apart.

    Raises:
        InputError: The extra `report` is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError("--plots: matplotlib is missing: pip install 'tokopt[report]'") from None
    hours = breakdown.hours
    figure = Figure(figsize=(9.5, 1.9 + 0.44 * len(hours)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    most = max(hour.usd_per_accelerator_hour for hour in hours)
    places = range(len(hours))
    left = [0.0] * len(hours)
    for part in parts_used(hours):
        _, colour, hatch = LOOKS[part]
        widths = [hour.parts.get(part, 0.0) for hour in hours]
        axes.barh(
            places, widths, 0.68, left, color=colour, hatch=hatch, edgecolor="black", linewidth=0.6,
            label=WORDS.get(part, part),
        )  # fmt: skip
        for place, width in zip(places, widths, strict=True):
            if width >= LEAST_LABELLED * most:
                axes.text(
                    left[place] + width / 2, place, f"{width:.2f}", ha="center", va="center", fontsize=8,
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.2},
                )  # fmt: skip
        left = [start + width for start, width in zip(left, widths, strict=True)]
    for place, hour in zip(places, hours, strict=True):
        axes.text(
            hour.usd_per_accelerator_hour + most * 0.01, place, f"${hour.usd_per_accelerator_hour:.2f}", va="center"
        )
    axes.set_yticks(list(places), [label(hour) for hour in hours])
    axes.invert_yaxis()
    axes.set_xlim(0.0, most * 1.1)
    axes.set_xlabel("USD per accelerator-hour" + (" (* placeholder)" if any(h.placeholder for h in hours) else ""))
    where = ", ".join(site.name for site in breakdown.sites)
    axes.set_title(f"{breakdown.title}{f' — {where}' if where else ''}", fontsize=10, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=6, fontsize=8, frameon=False, handleheight=1.4, handlelength=2.4)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    return out.getvalue()
