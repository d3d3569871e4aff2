"""Worlds: a request with something about it or about the catalog changed, and what its best plan is.

Most worlds of an explanation share their searches: those that do are solved one after the other, by one process.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from concurrent.futures import BrokenExecutor, Future, as_completed
from dataclasses import dataclass, field, replace

from tokopt.catalog import Catalog
from tokopt.catalog.replacing import ReplacedCatalog
from tokopt.domain.accelerators import Accelerator
from tokopt.domain.estimates import Interval
from tokopt.domain.explaining import PER_MW, USD
from tokopt.domain.llms import Llm
from tokopt.domain.offers import Market, Offer, PriceList
from tokopt.domain.plans import FleetItem, Plan, PlanRequest, Status
from tokopt.errors import InputError
from tokopt.search import SharedSearch

from .columns import allowed_offers, selected_prices
from .planning import solve_request
from .progress import Progress

MOST_S = 10.0  # of the solver, in one world: there are many, and only programs of many classes take as long
MOST_NAMED = 3  # kinds of set-ups that a fleet is described by
_BROKEN = (
    "a process that solved plans was killed: is memory short? With --jobs 1 (jobs=1) there are none; a script has to "
    "ask for more under if __name__ == '__main__':"
)
PARALLEL_FROM_S = 4.0  # of work left, from which on processes pay for being started


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A request, and what is different about the catalog."""

    request: PlanRequest
    accelerators: Mapping[str, Accelerator] = field(default_factory=dict)  # records in place of the catalog's
    acceptance: Mapping[str, tuple[float, ...]] = field(default_factory=dict)  # model -> chances of draft tokens
    precisions: Mapping[str, str] = field(default_factory=dict)  # model as asked for -> its only precision
    price_factors: Mapping[str, float] = field(default_factory=dict)  # accelerator -> factor on its price
    energy_factor: float = 1.0  # on the electricity in prices, where that is known
    usd_per_kwh: float | None = None  # of electricity, in place of each site's
    typical_offers: bool = False  # only what the middle provider asks on demand

    def search_key(self) -> str:
        """Return what tells worlds apart whose searches differ, but for the accelerators that are searched."""
        request = self.request
        parts = (
            request.served_classes() if request.classes else (request.llm, request.workload, request.sla),
            (request.disabled_features, request.precisions, request.kv_precisions, request.robust),
            (sorted(self.acceptance.items()), sorted(self.precisions.items())),
        )
        return repr(parts)

    def accelerator_key(self) -> str:
        """Return what tells worlds of one search apart whose accelerators differ."""
        links = sorted((a.name, a.scale_up_size, a.scale_up_bytes_per_s) for a in self.accelerators.values())
        return repr((self.request.accelerators, links))


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The best plan of a world, as far as an explanation needs it."""

    usd: float | None  # per million output tokens; None = infeasible
    per_mw: float | None
    fleet: str
    interval: Mapping[str, Interval] = field(default_factory=dict)  # 80 % range by figure
    proven: bool = True
    infeasible: str = ""  # why there is none


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What all worlds are made from: the catalog as it is, and the price list, read once."""

    catalog: Catalog
    prices: PriceList
    llms: Mapping[str, Llm]  # by the name that the request asks for

    def catalog_of(self, world: World) -> Catalog:
        """Return the catalog of a world."""
        llms = {
            name: replace(llm, precisions=(world.precisions[name],)) if name in world.precisions else llm
            for name, llm in self.llms.items()
        }
        return ReplacedCatalog(
            self.catalog,
            prices=replace(self.prices, offers=offers_in(world, self.prices.offers)),
            accelerators=world.accelerators,
            acceptance=world.acceptance,
            llms=llms,
        )


def ground_of(request: PlanRequest, catalog: Catalog) -> Ground:
    """Return the catalog with what a request needs of it; prices of all accelerators, whatever it selects."""
    everything = request.model_copy(update={"accelerators": (), "excluded_accelerators": ()})
    return Ground(
        catalog=catalog,
        prices=catalog.price_list(request.prices, rates=request.rates, selection=selected_prices(everything)),
        llms={asked.llm: catalog.llm(asked.llm) for asked in request.served_classes()},
    )


def solved(world: World, ground: Ground, search: SharedSearch) -> Outcome:
    """Return the best plan of a world."""
    request = world.request
    request = request.model_copy(update={"time_limit_s": min(request.time_limit_s, MOST_S)})
    try:
        plan = solve_request(request, ground.catalog_of(world), search=search, extras=False)
    except InputError as error:  # such as no offer that is left: a world may be made impossible
        return Outcome(usd=None, per_mw=None, fleet="", infeasible=str(error).partition(" (")[0])
    return outcome_of(plan)


def outcome_of(plan: Plan) -> Outcome:
    """Return what an explanation needs of a plan."""
    if plan.status is Status.INFEASIBLE or plan.usd_per_million_output_tokens is None:
        return Outcome(usd=None, per_mw=None, fleet="", infeasible=_why(plan))
    return Outcome(
        usd=plan.usd_per_million_output_tokens,
        per_mw=plan.tokens_per_s_per_mw,
        fleet=fleet_words(plan.fleet),
        interval={name: plan.interval[name] for name in (USD, PER_MW) if name in plan.interval},
        proven=plan.status is Status.OPTIMAL,
    )


def _why(plan: Plan) -> str:
    if plan.nearest_feasible:
        near = plan.nearest_feasible[0]
        if near.constraint == "memory" and len(plan.excluded) == 1:
            return next(f"{name}: {why}" for name, why in plan.excluded.items())
        return f"{near.constraint}: {near.requested} asked, the nearest that works is {near.nearest}"
    return "nothing meets every limit"


def fleet_words(fleet: Sequence[FleetItem]) -> str:
    """Return a fleet in a few words: `3,744 mi355x disagg`."""
    kinds: dict[str, int] = {}
    for item in fleet:
        depth = f" MTP {item.deployment.speculation_depth}" if item.deployment.speculation_depth else ""
        where = "+".join(dict.fromkeys((item.deployment.prefill_accelerator, item.accelerator)))
        kind = f"{where} {item.mode.value} {item.precision}{depth}"
        kinds[kind] = kinds.get(kind, 0) + item.gpus
    largest = sorted(kinds.items(), key=lambda pair: (-pair[1], pair[0]))
    said = [f"{count:,} {kind}" for kind, count in largest[:MOST_NAMED]]
    more = len(largest) - MOST_NAMED
    return " + ".join(said) + (f" + {more} more kinds" if more > 0 else "")


# --- offers ---


def offers_in(world: World, offers: Sequence[Offer]) -> tuple[Offer, ...]:
    """Return the offers of a world."""
    if world.typical_offers:
        offers = typical(allowed_offers(offers, world.request))
    return tuple(_priced(world, offer) for offer in offers)


def typical(offers: Sequence[Offer]) -> list[Offer]:
    """Return what the middle provider of each accelerator offers on demand, by its cheapest price; of two the dearer.

    Accelerators that nobody has on demand keep all markets.
    """
    cheapest: dict[str, dict[str, float]] = {}
    kept_markets = {o.accelerator for o in offers if o.market is Market.ON_DEMAND}
    asked = [o for o in offers if o.market is Market.ON_DEMAND or o.accelerator not in kept_markets]
    for offer in asked:
        known = cheapest.setdefault(offer.accelerator, {})
        known[offer.provider] = min(known.get(offer.provider, offer.usd_per_accelerator_hour), _each(offer))
    middle = {}
    for accelerator, known in cheapest.items():
        by_price = sorted(known, key=lambda provider: (known[provider], provider))
        middle[accelerator] = by_price[len(by_price) // 2]
    return [o for o in asked if middle[o.accelerator] == o.provider]


def _each(offer: Offer) -> float:
    return offer.usd_per_accelerator_hour


def _priced(world: World, offer: Offer) -> Offer:
    factor = world.energy_factor
    if world.usd_per_kwh is not None and offer.site is not None and offer.site.usd_per_kwh:
        factor = world.usd_per_kwh / offer.site.usd_per_kwh
    energy = offer.energy_usd_per_hour
    price = world.price_factors.get(offer.accelerator, 1.0)
    if factor == 1.0 and price == 1.0:
        return offer
    usd = (offer.usd_per_hour + (factor - 1.0) * energy) * price
    return replace(offer, usd_per_hour=usd, energy_usd_per_hour=energy * factor * price)


# --- many worlds ---


def all_solved(
    worlds: Sequence[World], ground: Ground, *, jobs: int, each_s: float, progress: Progress
) -> list[Outcome]:
    """Return the outcome of each world, in their order; in several processes where that pays.

    Args:
        worlds: What to solve.
        ground: What they are made from.
        jobs: Most processes.
        each_s: What a world is expected to take.
        progress: Told how many are done.

    Raises:
        InputError: A process was killed.
    """
    groups: dict[str, list[int]] = {}
    for number, world in enumerate(worlds):
        groups.setdefault(world.search_key(), []).append(number)
    tasks = [sorted(numbers, key=lambda n: (worlds[n].accelerator_key(), n)) for numbers in groups.values()]
    outcomes: dict[int, Outcome] = {}

    def keep(numbers: Sequence[int], found: Sequence[Outcome]) -> None:
        outcomes.update(zip(numbers, found, strict=True))
        progress(f"{len(outcomes):,} of {len(worlds):,} plans", len(outcomes) / len(worlds))

    if min(jobs, len(tasks)) < 2 or each_s * len(worlds) < PARALLEL_FROM_S:
        for numbers in tasks:
            search = SharedSearch()
            for number in numbers:
                keep([number], [solved(worlds[number], ground, search)])
    else:
        from .processes import local_processes

        packed = pickle.dumps(ground, protocol=pickle.HIGHEST_PROTOCOL)
        longest = sorted(tasks, key=lambda numbers: -sum(_weight(worlds[n]) for n in numbers))
        with local_processes(min(jobs, len(tasks))) as pool:
            asked: dict[Future[list[Outcome]], list[int]] = {
                pool.submit(solved_there, packed, [worlds[n] for n in numbers]): numbers for numbers in longest
            }
            for future in as_completed(asked):
                try:
                    keep(asked[future], future.result())
                except BrokenExecutor:
                    raise InputError(_BROKEN) from None
    return [outcomes[number] for number in range(len(worlds))]


def solved_there(packed: bytes, worlds: Sequence[World]) -> list[Outcome]:
    """Return the outcomes of worlds that share a search, in a process of its own."""
    ground: Ground = pickle.loads(packed)
    search = SharedSearch()
    return [solved(world, ground, search) for world in worlds]


def _weight(world: World) -> float:
    """Return what a world takes, roughly: those that may choose any accelerator search them all."""
    return float(len(world.request.accelerators) or 8)
