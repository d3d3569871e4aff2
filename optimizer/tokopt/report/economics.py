"""The comparison of cost per token: as published, as computed from the catalog, and as tokopt models it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from tokopt.domain.comparisons import Basis, Economics, EconomicsComparisonRow
from tokopt.report.blocks import bullets, columns, section
from tokopt.report.deployments import letters_used, short_text
from tokopt.report.figures import number, short, signed_share, times

HEADINGS = ("", "$/GPU-hour", "PFLOPS per $", "tok/s/GPU", "tok/s/MW", "$/M tokens")
FIGURES: Mapping[str, Callable[[float], str]] = {
    "usd_per_gpu_hour": lambda value: f"${value:,.2f}",
    "pflops_per_usd": number,
    "tokens_per_s_per_gpu": lambda value: number(value, 3) if value < 1000 else f"{value:,.0f}",
    "tokens_per_s_per_mw": short,
    "usd_per_million_tokens": lambda value: f"${number(value)}",
}


def economics_report(table: Economics) -> RenderableType:
    """Return the three tables one under the other, with ratios, operating points and notes."""
    published = [row for row in table.rows if row.basis is Basis.PUBLISHED]
    tokens = "input and output tokens together" if table.token_basis == "total" else f"{table.token_basis} tokens"
    as_said = [
        *((row.accelerator, *(_as_published(name, row.published[name]) for name in FIGURES)) for row in published),
        ("ratio", *(f"{table.published_ratios[name]:g}×" for name in FIGURES)),
    ]
    computed = [*map(_cells, published), _ratios(table, Basis.PUBLISHED)]
    return Group(
        Text(f"{table.title} (tokens: {tokens})", style="bold"),
        section(f"As published {table.published_on}, with the digits given", columns(HEADINGS, as_said)),
        section("The same, computed from catalog data and the published throughput", columns(HEADINGS, computed)),
        section("tokopt's own model at the published speed per user", columns(HEADINGS, _modelled(table, Basis.MODEL))),
        section(
            "The same model, without the features that are not named for an accelerator",
            columns(HEADINGS, _modelled(table, Basis.MODEL_AS_NAMED)),
        ),
        section("Operating points", bullets(map(_point, table.rows))),
        section("Notes", bullets([*table.notes, *_ends(table)])),
    )


def _modelled(table: Economics, basis: Basis) -> list[Sequence[str]]:
    """Return the model's rows with their differences to what is published, and the ratios of the ends."""
    rows = [row for row in table.rows if row.basis is basis]
    if not rows:
        return [("no deployment is fast enough", *("" for _ in FIGURES))]
    lines = [line for row in rows for line in (_cells(row), _differences(row))]
    return [*lines, _ratios(table, basis)] if len(rows) > 1 else lines


def _as_published(name: str, value: float) -> str:
    if name.startswith("usd"):
        return f"${value:,.2f}"
    if name == "tokens_per_s_per_mw":
        return f"{value / 1e6:g}M" if value >= 1e6 else f"{value / 1e3:g}K"
    return f"{value:,.10g}"


def _cells(row: EconomicsComparisonRow) -> Sequence[str]:
    return (row.accelerator, *(write(getattr(row, name)) for name, write in FIGURES.items()))


def _differences(row: EconomicsComparisonRow) -> Sequence[str]:
    cells = (signed_share(row.difference[name]) if name in row.difference else "same" for name in FIGURES)
    return ("  against published", *cells)


def _ratios(table: Economics, basis: Basis) -> Sequence[str]:
    ratios = table.ratios.get(basis.value, {})
    return ("ratio", *(times(ratios[name]) if name in ratios else "" for name in FIGURES))


def _point(row: EconomicsComparisonRow) -> str:
    said = [f"{row.model} in {row.precision}", row.operating_point, f"PFLOPS: {row.pflops_basis}", row.source]
    if row.deployment is not None:
        said.insert(2, short_text(row.deployment))
    return f"{row.accelerator}, {row.basis.value.replace('_', ' ')}: {'; '.join(said)}"


def _ends(table: Economics) -> list[str]:
    deployments = [row.deployment for row in table.rows if row.deployment is not None]
    lines = [
        f"prices: {table.prices} as of {table.prices_as_of}",
        "ratios are the last accelerator over the first; of cost per token, the first over the last",
    ]
    if deployments:
        lines.append(f"in layouts: {letters_used(deployments)}")
    return lines
