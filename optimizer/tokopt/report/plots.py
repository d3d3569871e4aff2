"""Pictures of reports: where they can be made, on what, as which bytes, and what is behind them."""

from __future__ import annotations

import io
import itertools
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

from tokopt.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMS = ("png", "svg")
DPI = 150
# The palette of Okabe and Ito, told apart by the colour-blind; markers, dashes and hatches do it in black and white.
OKABE_ITO = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#b8a800")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h")
DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)))
HATCHES = ("", "//", "..", "xx", "\\\\", "++", "oo", "--")
FONTS = ["DejaVu Sans", "Verdana", "Arial"]  # letters of SVG files are letters: the first comes with Matplotlib
SALT = "tokopt"  # of the names that SVG files give to what they reuse: the same picture is the same bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A picture, what it shows in words, what each of its marks says, and the figures that it is drawn from."""

    name: str  # of its file, without the ending
    label: str  # what it shows, for those who do not see it
    figure: Figure
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    marks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # id of an artist -> what its marks say
    dpi: int = DPI


def require_plots() -> None:
    """Raise InputError where pictures cannot be made."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise InputError("--plots needs the extra 'report': pip install 'tokopt[report]'") from None


def require_form(form: str) -> None:
    """Raise InputError where a form of pictures is not known."""
    if form not in FORMS:
        raise InputError(f"pictures: {form!r} is not one of {', '.join(FORMS)}")


def blank_figure(wide: float, high: float) -> Figure:
    """Return an empty figure of a size in inches that belongs to no window."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(wide, high), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def png(figure: Figure, dpi: float = DPI) -> bytes:
    """Return a figure as PNG; equal figures are equal bytes, whatever made them."""
    return _saved(figure, format="png", dpi=dpi, metadata={"Software": None})


def svg(chart: Chart) -> str:
    """Return a chart as SVG with a name for those who do not see it; equal charts are equal texts."""
    metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
    text = _saved(chart.figure, format="svg", metadata=metadata).decode("utf-8")
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, count=1, flags=re.DOTALL)
    return text.replace("<svg ", f'<svg role="img" aria-label="{escape(chart.label)}" ', 1)


def picture(chart: Chart, form: str) -> tuple[str, bytes]:
    """Return the name of a chart's file and its content."""
    content = svg(chart).encode("utf-8") if form == "svg" else png(chart.figure, chart.dpi)
    return f"{chart.name}.{form}", content


def pictures_of(charts: Iterable[Chart], form: str = "png") -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each chart's file."""
    return (picture(chart, form) for chart in charts)


def _saved(figure: Figure, **settings: Any) -> bytes:
    """Return a figure as a file; dollars and carets in names and prices are not taken for mathematics."""
    import matplotlib
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_parse_math(False)
    stream = io.BytesIO()
    plain = {"svg.hashsalt": SALT, "svg.fonttype": "none", "text.parse_math": False, "font.sans-serif": FONTS}
    with warnings.catch_warnings(), matplotlib.rc_context(plain):
        warnings.filterwarnings("ignore", message="Glyph")  # a user's name in letters that the font lacks
        figure.savefig(stream, **settings)
    return stream.getvalue()


def bare(axes: Any) -> None:
    """Take away from axes what carries no figure."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8.5)


def legend_below(figure: Any, looks: Sequence[tuple[str, str, str]], *, columns: int = 6) -> None:
    """Say below a figure what colours and hatches mean: name, colour, hatch."""
    from matplotlib.patches import Patch

    patches = [Patch(facecolor=colour, hatch=hatch, edgecolor="black", label=name) for name, colour, hatch in looks]
    figure.legend(
        handles=patches, loc="outside lower center", ncols=min(len(patches), columns), fontsize=8.5, frameon=False,
        handleheight=1.4, handlelength=2.4,
    )  # fmt: skip


def looks_of(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Return a colour and a hatch for each name, unlike any other's as long as they last."""
    pairs = zip(itertools.cycle(OKABE_ITO), _turned(HATCHES, len(OKABE_ITO)), strict=False)
    return dict(zip(dict.fromkeys(names), pairs, strict=False))


def lines_of(names: Iterable[str]) -> dict[str, tuple[str, str, Any]]:
    """Return colour, marker and dashes for each name, unlike any other's in at least two of them."""
    every = zip(itertools.cycle(OKABE_ITO), itertools.cycle(MARKERS), itertools.cycle(DASHES), strict=False)
    return dict(zip(dict.fromkeys(names), every, strict=False))


def _turned(values: Sequence[str], each: int) -> Iterator[str]:
    """Yield values in a cycle that is moved on by one after each round of `each`."""
    for number in itertools.count():
        yield values[(number + number // each) % len(values)]


def apart(wanted: Sequence[float], least: float) -> list[float]:
    """Return places as near as may be to those wanted, in their order, no two of them closer than `least`."""
    order = sorted(range(len(wanted)), key=lambda k: (wanted[k], k))
    groups: list[tuple[list[int], float]] = []  # neighbours that stand as close as they may, and their middle
    for k in order:
        members, middle = [k], wanted[k]
        while groups and middle - groups[-1][1] < (len(members) + len(groups[-1][0])) / 2.0 * least:
            others, centre = groups.pop()
            middle = (centre * len(others) + middle * len(members)) / (len(others) + len(members))
            members = others + members
        groups.append((members, middle))
    places = [0.0] * len(wanted)
    for members, middle in groups:
        for n, k in enumerate(members):
            places[k] = middle + (n - (len(members) - 1) / 2.0) * least
    return places
