"""Classes of requests and periods of a `--workloads` file, resolved against the catalog."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tokopt.catalog import Catalog
from tokopt.catalog.workload_files import (
    ClassRow,
    Lengths,
    PeriodRow,
    lengths_of,
    mean_and_cv,
    read_workloads,
    split_by_length,
)
from tokopt.domain.demand import PlanPeriod, TokenPrices, WorkloadClass
from tokopt.domain.offers import Market
from tokopt.domain.workloads import Sla, Workload
from tokopt.errors import InputError, not_one_of
from tokopt.units import MONEY, parse_quantity

from .requests import parse_demand, parse_share, parse_sla, resolve_workload, shape_of, with_default_ttft
from .reuse import parse_reuse, with_reuse

NO_MONEY = ("", "0", "0.0", "$0", "$0.0", "$0.00")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What has to be served, and when."""

    classes: tuple[WorkloadClass, ...]
    periods: tuple[PlanPeriod, ...]


def read_classes(
    catalog: Catalog,
    source: str | Path | Mapping[str, Any],
    *,
    sla: str | Sla,
    most_quality_loss: float | None,
) -> Asked:
    """Return the classes and periods of a workloads file.

    Args:
        catalog: Where names are looked up.
        source: A YAML file, or what one says.
        sla: Limits of classes that state none.
        most_quality_loss: The same for losses of quality.

    Raises:
        InputError: In one line with file and class.
    """
    row, folder = read_workloads(source)
    where = str(source) if isinstance(source, (str, Path)) else "workloads"
    classes: list[WorkloadClass] = []
    for name, each in row.workloads.items():
        try:
            classes += _classes(catalog, name, each, folder, sla, most_quality_loss)
        except InputError as error:
            raise InputError(f"{where}: workloads.{name}: {error}") from None
    names = {each.name for each in classes}
    periods = tuple(_period(where, each, names) for each in row.periods)
    if row.hourly_demand:
        periods = tuple(
            PlanPeriod(name=f"{hour:02d}:00", hours=1.0, start_hour=float(hour), demand_factor=factor)
            for hour, factor in enumerate(row.hourly_demand)
        )
    if periods and not any(period.factor(name) for period in periods for name in names):
        raise InputError(f"{where}: no class asks for anything in any period: a demand factor above 0 is needed")
    return Asked(classes=tuple(classes), periods=periods)


def _classes(
    catalog: Catalog, name: str, row: ClassRow, folder: Path, sla: str | Sla, loss: float | None
) -> list[WorkloadClass]:
    if not row.model:
        raise InputError("model is missing")
    llm = catalog.llm(row.model)
    lengths = lengths_of(row, folder)
    parts = split_by_length(lengths, row.split) if lengths is not None else [None]
    found = []
    for number, part in enumerate(parts, start=1):
        called = name if len(parts) == 1 else f"{name}/{number}"
        shape = _shape(catalog, called, row, part)
        limits, by_default = with_default_ttft(*parse_sla(row.sla or sla), shape)
        share = 1.0 if part is None or lengths is None else float(part.weight.sum() / lengths.weight.sum())
        demand = None if row.demand is None else parse_demand(row.demand, _mean_output(lengths, shape)) * share
        if demand is None and part is not None:
            demand = part.requests_per_s
        own_loss = (
            None if row.max_quality_loss is None else parse_share(row.max_quality_loss, "max_quality_loss", most=1.0)
        )
        found.append(
            WorkloadClass(
                name=called,
                llm=row.model if row.model.endswith(".json") else llm.name,
                workload=shape_of(shape),
                sla=limits,
                ttft_by_default=by_default,
                demand_requests_per_s=demand,
                earns=TokenPrices(
                    usd_per_million_input_tokens=_money(row.price.input, "price.input"),
                    usd_per_million_output_tokens=_money(row.price.output, "price.output"),
                ),
                most_quality_loss=loss if own_loss is None else own_loss,
            )
        )
    return found


def _mean_output(lengths: Lengths | None, shape: Workload) -> float:
    return shape.output_tokens if lengths is None else mean_and_cv(lengths.output_tokens, lengths.weight)[0]


def _shape(catalog: Catalog, name: str, row: ClassRow, lengths: Lengths | None) -> Workload:
    if lengths is not None:
        isl, input_cv = mean_and_cv(lengths.input_tokens, lengths.weight)
        osl, output_cv = mean_and_cv(lengths.output_tokens, lengths.weight)
        base = Workload(
            name=name,
            input_tokens=isl,
            output_tokens=osl,
            input_cv=input_cv,
            output_cv=output_cv,
            arrival_cv2=lengths.arrival_cv2 or 1.0,
        )
    elif row.workload:
        base = resolve_workload(catalog, row.workload, input_tokens=row.input_tokens, output_tokens=row.output_tokens)
    else:
        base = Workload(name=name, input_tokens=row.input_tokens or 1.0, output_tokens=row.output_tokens or 1.0)
    stated: dict[str, Any] = {
        "input_cv": row.input_cv,
        "output_cv": row.output_cv,
        "prefix_share": row.prefix_share,
        "arrival_cv2": row.burstiness,
        "domain": row.domain,
    }
    shape = replace(base, name=name, **{key: value for key, value in stated.items() if value is not None})
    if row.reuse is not None and row.prefix_share is not None:
        raise InputError("reuse and prefix_share both say what is found in prefix caches: give one of them")
    if row.prefix_share is not None or (base.reuse is None and row.reuse is None):
        return replace(shape, reuse=None)
    return with_reuse(replace(shape, prefix_share=0.0), parse_reuse(row.reuse, "reuse") if row.reuse else base.reuse)


def _money(value: str | float, what: str) -> float:
    """Return dollars written like $0.5; nothing, or $0, is 0."""
    if str(value).strip() in NO_MONEY:
        return 0.0
    return parse_quantity(str(value), MONEY, what=what)


def _period(where: str, row: PeriodRow, names: set[str]) -> PlanPeriod:
    by_class = row.demand if isinstance(row.demand, dict) else {}
    unknown = sorted(by_class.keys() - names)
    if unknown:
        raise InputError(f"{where}: periods: {row.name}: no class {unknown[0]!r}; there are {', '.join(sorted(names))}")
    markets = [m.value for m in Market]
    strange = sorted(row.prices.keys() - set(markets))
    if strange:
        raise not_one_of(f"{where}: periods: {row.name}", strange[0], markets)
    factors = [*by_class.values(), *row.prices.values(), *([] if by_class else [row.demand])]
    if any(not isinstance(f, (int, float)) or not 0.0 <= f < 1e6 for f in factors):
        raise InputError(f"{where}: periods: {row.name}: factors must be 0 or more")
    return PlanPeriod(
        name=row.name,
        hours=row.hours,
        demand_factor=1.0 if isinstance(row.demand, dict) else row.demand,
        demand_factors=by_class,
        price_factors=row.prices,
        start_hour=row.start_hour,
        starts_on=row.starts_on,
        usd_per_kwh_factor=row.electricity,
        carbon_factor=row.carbon,
    )
