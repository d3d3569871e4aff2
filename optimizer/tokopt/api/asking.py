"""What people ask of `plan`, to a request in which every name is the catalog's and every figure has its unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokopt.catalog import Catalog
from tokopt.catalog.ownership import is_owned_file
from tokopt.catalog.price_lists import is_price_path
from tokopt.domain.caching import Reuse
from tokopt.domain.demand import Survive, WorkloadClass
from tokopt.domain.deployments import ServingMode
from tokopt.domain.expert_traffic import UNIFORM
from tokopt.domain.offers import Market
from tokopt.domain.plans import Objective, PlanRequest, PowerBasis, PowerMode, PowerSettings
from tokopt.domain.workloads import Sla, Workload
from tokopt.errors import InputError, not_one_of
from tokopt.units import KW, POWER, parse_quantity

from .expert_traffic import traffic_named
from .fleets import current_units
from .power_options import parse_exceed, parse_pue, stocked
from .rates import parse_rates
from .requests import (
    disabled_features,
    names,
    parse_demand,
    parse_share,
    parse_sla,
    resolve_workload,
    shape_of,
    with_default_ttft,
)
from .workload_classes import Asked, read_classes

DEFAULT_LLM = "deepseek-r1"
DEFAULT_WORKLOAD = "agentic"
DEFAULT_PRICES = "ownership-hyperscaler"
# Spot machines can be taken away: they are used only where they are asked for.
BY_DEFAULT = tuple(market.value for market in Market if market is not Market.SPOT)
# Where classes, periods and failures multiply the program: proving the last digits takes longest and changes least.
GAP_OF_MANY = 1e-4
DEFAULT_SPOT_RESERVE = 0.1  # of spot capacity, idle for interruptions: an assumption, printed in the plan


def make_request(
    catalog: Catalog,
    *,
    power: str | None = None,
    sla: str | Sla = "50ms",
    model: str | None = None,
    workload: str | Workload | None = None,
    workloads: str | Path | Mapping[str, Any] | None = None,
    demand: str | None = None,
    prices: str | Sequence[str] | None = None,
    owned: str | Path | Sequence[str | Path] | None = None,
    rates: str | Sequence[str] | Mapping[str, float] | None = None,
    gpus: str | Sequence[str] | None = None,
    exclude: str | Sequence[str] | None = None,
    frameworks: str | Sequence[str] | None = None,
    precisions: str | Sequence[str] | None = None,
    kv_precisions: str | Sequence[str] | None = None,
    modes: str | Sequence[str] | None = None,
    disable: str | Sequence[str] | None = None,
    expert_traffic: str = UNIFORM,
    regions: str | Sequence[str] | None = None,
    markets: str | Sequence[str] | None = None,
    power_basis: str = "utility",
    power_mode: str = "provisioned",
    exceed: float | str | None = None,
    pue: float | str | None = None,
    power_settings: str = "default",
    site_power: Mapping[str, str] | None = None,
    objective: str = "cost",
    budget_usd_per_hour: float | None = None,
    inventory: dict[str, int] | None = None,
    max_types: int | None = None,
    max_spot_share: float | str | None = None,
    spot_reserve: float | str | None = None,
    survive: str = "none",
    max_carbon_kg_per_hour: float | None = None,
    carbon_usd_per_tonne: float | None = None,
    max_quality_loss: float | str | None = None,
    mixed_pools: bool = False,
    current: Any = None,
    change_usd_per_gpu: float | None = None,
    robust: float | str | None = None,
    isl: float | None = None,
    osl: float | None = None,
    prefix_share: float | None = None,
    reuse: str | Reuse | None = None,
    time_limit_s: float = 60.0,
    catalog_directory: str | Path | None = None,
) -> PlanRequest:
    """Return a request with every name resolved to the catalog's; see `plan` for the arguments.

    Raises:
        InputError: Whatever is wrong, in one line.
    """
    if budget_usd_per_hour is not None and not 0 < budget_usd_per_hour < float("inf"):
        raise InputError(f"--budget: {budget_usd_per_hour:g} must be above zero; write it like $500")
    loss = None if max_quality_loss is None else parse_share(max_quality_loss, "--max-quality-loss", most=1.0)
    if workloads is not None:
        asked = read_classes(catalog, workloads, sla=sla, most_quality_loss=loss)
        _no_doubles(model=model, workload=workload, demand=demand, isl=isl, osl=osl)
        _no_doubles(prefix_share=prefix_share, reuse=reuse)
    else:
        model, workload = model or DEFAULT_LLM, workload or DEFAULT_WORKLOAD
        shape = resolve_workload(
            catalog, workload, input_tokens=isl, output_tokens=osl, prefix_share=prefix_share, reuse=reuse
        )
        asked = Asked(classes=(_only_class(catalog, model, shape, sla, demand, loss),), periods=())
    first = asked.classes[0]
    objectives = tuple(Objective(_choice("--objective", o, tuple(Objective))) for o in names(objective)) or (
        Objective.COST,
    )
    _check_size(asked, objectives, power or site_power, budget_usd_per_hour, inventory)
    if change_usd_per_gpu and current is None:
        raise InputError("--change-cost is what moving away from today's fleet costs: give that fleet with --current")
    chosen = tuple(_choice("--market", m, tuple(Market)) for m in names(markets)) or BY_DEFAULT
    reserve = DEFAULT_SPOT_RESERVE if Market.SPOT.value in chosen else 0.0
    return PlanRequest(
        llm=first.llm,
        workload=first.workload,
        sla=first.sla,
        ttft_by_default=first.ttft_by_default,
        demand_requests_per_s=first.demand_requests_per_s,
        classes=asked.classes if workloads is not None else (),
        periods=asked.periods,
        power_kw=None if power is None else parse_quantity(power, POWER, what="--power") / KW,
        power_basis=PowerBasis(_choice("--power-basis", power_basis, tuple(PowerBasis))),
        power_mode=PowerMode(_choice("--power-mode", power_mode, tuple(PowerMode))),
        exceed=parse_exceed(exceed),
        pue=parse_pue(pue, catalog),
        power_settings=PowerSettings(_choice("--power-settings", power_settings, tuple(PowerSettings))),
        site_power_kw=_site_power_kw(site_power or {}),
        budget_usd_per_hour=budget_usd_per_hour,
        objective=objectives[0],
        then=objectives[1:],
        prices=_price_lists(prices, owned),
        rates=parse_rates(rates),
        regions=names(regions),
        markets=chosen,
        accelerators=tuple(catalog.accelerator(n).name for n in names(gpus)),
        excluded_accelerators=tuple(catalog.accelerator(n).name for n in names(exclude)),
        frameworks=tuple(catalog.framework(n).name for n in names(frameworks)),
        precisions=tuple(catalog.precision(n).name for n in names(precisions)),
        kv_precisions=tuple(catalog.kv_precision(n).name for n in names(kv_precisions)),
        modes=tuple(ServingMode(_choice("--mode", m, tuple(ServingMode))) for m in names(modes)),
        disabled_features=disabled_features(disable),
        expert_traffic=UNIFORM if expert_traffic == UNIFORM else traffic_named(catalog, expert_traffic).name,
        most_accelerator_types=max_types,
        most_spot_share=None if max_spot_share is None else parse_share(max_spot_share, "--max-spot-share", most=1.0),
        spot_reserve=reserve if spot_reserve is None else parse_share(spot_reserve, "--spot-reserve"),
        survive=Survive(_choice("--survive", survive, tuple(Survive))),
        most_carbon_kg_per_hour=_above_zero(max_carbon_kg_per_hour, "--max-carbon", "kg/h"),
        carbon_usd_per_tonne=_above_zero(carbon_usd_per_tonne, "--carbon-price", "USD a tonne") or 0.0,
        most_quality_loss=loss,
        mixed_pools=mixed_pools,
        current=current_units(catalog, current),
        change_usd_per_gpu=change_usd_per_gpu or 0.0,
        robust=parse_share(robust, "--robust"),
        inventory={stocked(catalog, k): v for k, v in (inventory or {}).items()},
        time_limit_s=time_limit_s,
        **({"gap_target": GAP_OF_MANY} if workloads is not None or survive != "none" else {}),
        catalog=None if catalog_directory is None else str(Path(catalog_directory).resolve()),
    )


def _site_power_kw(site_power: Mapping[str, str]) -> dict[str, float]:
    return {site: parse_quantity(text, POWER, what=f"--site-power {site}") / KW for site, text in site_power.items()}


def _only_class(
    catalog: Catalog, model: str, shape: Workload, sla: str | Sla, demand: str | None, loss: float | None
) -> WorkloadClass:
    llm = catalog.llm(model)
    limits, by_default = with_default_ttft(*parse_sla(sla), shape)
    return WorkloadClass(
        name=shape.name,
        llm=str(Path(model).resolve()) if _is_path(model) else llm.name,
        workload=shape_of(shape),
        sla=limits,
        ttft_by_default=by_default,
        demand_requests_per_s=None if demand is None else parse_demand(demand, shape.output_tokens),
        most_quality_loss=loss,
    )


def _check_size(
    asked: Asked,
    objectives: tuple[Objective, ...],
    power: Any,
    budget: float | None,
    inventory: Mapping[str, int] | None,
) -> None:
    """Raise InputError where nothing says how large the fleet is, or two things do."""
    stated = [c.demand_requests_per_s is not None for c in asked.classes]
    if not any(stated) and power is None and budget is None and not inventory:
        raise InputError("nothing says how large the fleet is: give --power (10MW), --demand (400req/s) or --budget")
    if any(stated) and not all(stated):
        missing = asked.classes[stated.index(False)].name
        raise InputError(f"--workloads: {missing} has no demand, but others do: give all of them one, or none")
    if len(set(objectives)) < len(objectives):
        raise InputError(f"--objective: {', '.join(objectives)} names one twice")
    if Objective.THROUGHPUT in objectives and all(stated):
        raise InputError("--objective throughput makes the demand the answer: leave --demand out")
    needing = [o for o in objectives if o in (Objective.POWER, Objective.CARBON, Objective.PROFIT)]
    if needing and not all(stated):
        raise InputError(f"--objective {needing[0]} needs a demand: give --demand (400req/s)")
    if Objective.PROFIT in objectives and not any(c.usd_per_request > 0 for c in asked.classes):
        raise InputError("--objective profit needs what tokens earn: give each of --workloads a price, like output: $2")


def _no_doubles(**options: Any) -> None:
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise InputError(f"--{given[0].replace('_', '-')} says what --workloads says too: give one of them")


def _price_lists(
    prices: str | Sequence[str] | None, owned: str | Path | Sequence[str | Path] | None
) -> tuple[str, ...]:
    """Return the price lists of a request: those named, and what is owned; the default where neither is given."""
    own = tuple(_price_list(str(name)) for name in names(str(owned) if isinstance(owned, Path) else owned))
    for name in own:
        if not is_owned_file(name):
            raise InputError(
                f"--owned: {name!r} is not the path of a YAML file; price lists and profiles go in --prices"
            )
    stems = [Path(name).stem for name in own]
    for stem in stems:
        if stems.count(stem) > 1:
            raise InputError(f"--owned: two files named {stem}; plans tell them by their names, so rename one")
    listed = names(DEFAULT_PRICES if prices is None and not own else prices)
    return tuple(dict.fromkeys((*(_price_list(name) for name in listed), *own)))


def _price_list(name: str) -> str:
    """Return a price list's name, or the whole path of a file: a plan file is read from other folders too."""
    return str(Path(name).resolve()) if is_price_path(name) or is_owned_file(name) else name


def _is_path(model: str) -> bool:
    return model.endswith(".json") or Path(model).is_file()


def _choice(what: str, value: str, allowed: Sequence[str]) -> str:
    if value not in allowed:
        raise not_one_of(what, value, allowed)
    return value


def _above_zero(value: float | None, what: str, unit: str) -> float | None:
    if value is not None and not 0.0 < value < float("inf"):
        raise InputError(f"{what}: {value:g} {unit} must be above zero")
    return value
