"""`economics`: a published comparison of cost per token, from the catalog and from the model."""

from __future__ import annotations

from tokopt.catalog import Catalog, load_catalog
from tokopt.cost import pflops_per_usd, tokens_per_s_per_mw, usd_per_million_tokens
from tokopt.domain.accelerators import Accelerator, NumberFormat
from tokopt.domain.comparisons import Basis, Economics, EconomicsComparisonRow
from tokopt.domain.economics import EconomicsLine, PublishedEconomics
from tokopt.domain.features import Feature
from tokopt.domain.workloads import Sla, Statistic, Workload
from tokopt.errors import InputError
from tokopt.search import OperatingPoint, find_frontier

from .frontiers import SLOWEST_FIRST_TOKEN_MS
from .progress import Progress, silent
from .space import search_space

FIGURES = (
    "usd_per_gpu_hour",
    "pflops_per_usd",
    "tokens_per_s_per_gpu",
    "tokens_per_s_per_mw",
    "usd_per_million_tokens",
)
MODELLED = (Basis.MODEL, Basis.MODEL_AS_NAMED)


def economics(*, catalog: str | Catalog | None = None, progress: Progress = silent) -> Economics:
    """Return the published comparison of cost per token, recomputed from the catalog, and tokopt's own next to it.

    The cost side is exact arithmetic on catalog data. The throughput side comes three times: as published, from
    tokopt's model at the published operating point, and from the model without features that the published line does
    not name; both with the difference.
    """
    loaded = catalog if isinstance(catalog, Catalog) else load_catalog(catalog)
    name, published = next(iter(loaded.published_economics.items()))
    profile = loaded.ownership_profile(published.ownership)
    rows: list[EconomicsComparisonRow] = []
    for number, line in enumerate(published.lines):
        accelerator = loaded.accelerator(line.accelerator)
        price = profile.usd_per_accelerator_hour[accelerator.name]
        rows.append(_published_row(published, line, accelerator, price))
        progress(f"modelling {accelerator.title}", number / len(published.lines))
        reference = rows[-1]
        modelled = [_model_row(loaded, published, line, accelerator, reference, basis) for basis in MODELLED]
        rows.extend(row for row in modelled if row is not None)
    return Economics(
        title=published.title,
        published_on=published.published_on,
        token_basis=published.token_basis,
        rows=tuple(sorted(rows, key=lambda row: list(Basis).index(row.basis))),
        ratios={basis.value: _ratios([r for r in rows if r.basis is basis]) for basis in Basis},
        published_ratios={figure: getattr(published.ratios, figure) for figure in FIGURES},
        prices=f"ownership-{profile.name}",
        prices_as_of=profile.observed_on,
        notes=(published.note, *(line.note for line in published.lines), f"catalog entry {name}"),
    )


def _costs(accelerator: Accelerator, line: EconomicsLine, price: float, tokens_per_s: float) -> dict[str, float]:
    """Return the five figures of an accelerator, unrounded."""
    if accelerator.all_in_w is None:
        raise InputError(f"{accelerator.name}: the catalog has no all-in power, which tokens/s/MW needs")
    table = accelerator.sparse_flop_per_s if line.peak_sparse else accelerator.dense_flop_per_s
    peak = table[NumberFormat(line.peak_format)]
    return {
        "usd_per_gpu_hour": price,
        "pflops_per_usd": float(pflops_per_usd(peak, price)),
        "tokens_per_s_per_gpu": tokens_per_s,
        "tokens_per_s_per_mw": float(tokens_per_s_per_mw(tokens_per_s, accelerator.all_in_w)),
        "usd_per_million_tokens": float(usd_per_million_tokens(price, tokens_per_s)),
    }


def _peak_name(line: EconomicsLine) -> str:
    return f"{line.peak_format.value} {'sparse' if line.peak_sparse else 'dense'}"


def _published_row(
    published: PublishedEconomics, line: EconomicsLine, accelerator: Accelerator, price: float
) -> EconomicsComparisonRow:
    return EconomicsComparisonRow(
        accelerator=accelerator.name,
        basis=Basis.PUBLISHED,
        model=line.llm,
        precision=line.precision,
        operating_point=f"{line.features}; about {line.tokens_per_s_per_user:g} tok/s/user, "
        f"{line.input_tokens:,.0f} in, {line.output_tokens:,.0f} out (best reading)",
        pflops_basis=_peak_name(line),
        published={figure: getattr(line.published, figure) for figure in FIGURES},
        difference={},
        deployment=None,
        source=published.source,
        **_costs(accelerator, line, price, line.unrounded_tokens_per_s_per_gpu),
    )


def _model_row(
    catalog: Catalog,
    published: PublishedEconomics,
    line: EconomicsLine,
    accelerator: Accelerator,
    reference: EconomicsComparisonRow,
    basis: Basis,
) -> EconomicsComparisonRow | None:
    """Return tokopt's own best point at the published interactivity, or None where it finds none that fast.

    Held to the features that the line names, its fastest point instead where none is that fast.
    """
    points = _points(catalog, line, accelerator, line.not_named if basis is Basis.MODEL_AS_NAMED else ())
    fast = [p for p in points if 1.0 / p.tpot_s >= line.tokens_per_s_per_user]
    said = ""
    if not fast and points and basis is Basis.MODEL_AS_NAMED:
        fast, said = [min(points, key=lambda point: point.tpot_s)], ", its fastest"
    if not fast:
        return None
    best = max(fast, key=lambda p: p.requests_per_s_per_accelerator)
    tokens = best.requests_per_s_per_accelerator * (
        line.output_tokens if published.token_basis == "output" else line.input_tokens + line.output_tokens
    )
    costs = _costs(accelerator, line, reference.usd_per_gpu_hour, tokens)
    return EconomicsComparisonRow(
        accelerator=accelerator.name,
        basis=basis,
        model=line.llm,
        precision=line.precision,
        operating_point=f"{1.0 / best.tpot_s:.0f} tok/s/user{said}, {line.input_tokens:,.0f} in, "
        f"{line.output_tokens:,.0f} out",
        pflops_basis=_peak_name(line),
        published={},
        difference={
            figure: costs[figure] / getattr(reference, figure) - 1.0
            for figure in ("tokens_per_s_per_gpu", "tokens_per_s_per_mw", "usd_per_million_tokens")
        },
        deployment=best.deployment,
        source=f"tokopt, calibration {catalog.calibration.version}",
        **costs,
    )


def _points(
    catalog: Catalog, line: EconomicsLine, accelerator: Accelerator, without: tuple[Feature, ...]
) -> list[OperatingPoint]:
    """Return the frontier of a line's model, precision and lengths, without some features."""
    shape = Workload(name="published point", input_tokens=line.input_tokens, output_tokens=line.output_tokens)
    space = search_space(
        catalog,
        llm=catalog.llm(line.llm),
        workload=shape,
        sla=Sla(ttft_ms=SLOWEST_FIRST_TOKEN_MS, statistic=Statistic.MEAN),
        frameworks=(),
        precisions=(line.precision,),
        kv_precisions=(),
        modes=(),
        disabled=without,
    )
    return find_frontier(accelerator, space)[0]


def _ratios(rows: list[EconomicsComparisonRow]) -> dict[str, float]:
    """Return the last row over the first one; cost per token the other way round, as the sheet prints it."""
    if len(rows) < 2:
        return {}
    first, last = rows[0], rows[-1]
    ratios = {figure: getattr(last, figure) / getattr(first, figure) for figure in FIGURES[:-1]}
    ratios["usd_per_million_tokens"] = first.usd_per_million_tokens / last.usd_per_million_tokens
    return ratios
