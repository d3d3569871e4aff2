"""Pictures of reports: where they can be made, on what, and as which bytes."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from tokopt.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def require_plots() -> None:
    """Raise InputError where pictures cannot be made."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise InputError("--plots needs the extra 'report': pip install 'tokopt[report]'") from None


def blank_figure(wide: float, high: float) -> Figure:
    """Return an empty figure of a size in inches that belongs to no window."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(wide, high), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def png(figure: Figure, dpi: float) -> bytes:
    """Return a figure as PNG; equal figures are equal bytes, whatever made them."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=dpi, metadata={"Software": None})
    return stream.getvalue()
