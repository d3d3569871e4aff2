"""The factors of an explanation: what each is, whether a plan uses it, and how a world is taken back to the baseline.

One row a factor. A serving feature that requests can do without (`SWITCHABLE`) is a factor without a row of its own: it
is disabled. Rows are for what takes more than that, or for better words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from tokopt.catalog import Catalog
from tokopt.domain.accelerators import Accelerator
from tokopt.domain.demand import WorkloadClass
from tokopt.domain.features import ON_BY_DEFAULT, SWITCHABLE, Feature
from tokopt.domain.llms import Llm
from tokopt.domain.plans import Plan, PowerSettings
from tokopt.errors import InputError, not_one_of

from .columns import allowed_offers, hardware_of
from .explaining_features import (
    feature_title,
    hardware_in,
    layouts_of,
    uses,
    with_prefix_share,
    without_features,
)
from .explaining_worlds import Ground, World, typical

MOST_FACTORS = 8  # 2^8 sets of factors; beyond, factors of a kind are taken together
WIDE_CACHE = "bf16"
NOTICED = 1.001  # ratio of prices from which on they differ
LINKS = ("scale_up_size", "scale_up_bytes_per_s", "scale_up_topology", "scale_out_bytes_per_s")
GBIT, GB = 1e9 / 8, 1e9

Words = tuple[str, str]  # what the baseline has, and what the plan has


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A plan, the accelerator of its baseline, and what they are made from."""

    plan: Plan
    ground: Ground
    baseline: str
    factors: frozenset[str] = frozenset()  # those that are explained

    @property
    def catalog(self) -> Catalog:
        """The catalog."""
        return self.ground.catalog

    @property
    def hardware(self) -> tuple[str, ...]:
        """Accelerators of the plan, whatever their power setting; what serves most comes first."""
        return hardware_in(self.plan)

    @property
    def old(self) -> Accelerator:
        """The baseline's accelerator."""
        return self.catalog.accelerators[self.baseline]

    @property
    def main(self) -> Accelerator:
        """The accelerator of the plan that serves most."""
        return self.catalog.accelerators[self.hardware[0]]


@dataclass(frozen=True, slots=True, kw_only=True)
class FactorRow:
    """One factor."""

    name: str
    title: str
    kind: str  # factors of one kind are taken together where there are too many
    used: Callable[[Setting], bool]  # whether the plan has what the baseline has not
    words: Callable[[Setting], Words]
    revert: Callable[[World, Setting], World]  # takes a world back to the baseline in this; rows apply in their order
    parts: tuple[str, ...] = ()


# --- serving features ---


def _feature_row(
    name: str, title: str, features: tuple[Feature, ...], words: Callable[[Setting], str], *, kind: str = "serving"
) -> FactorRow:
    return FactorRow(
        name=name,
        title=title,
        kind=kind,
        used=lambda setting: any(uses(setting.plan, feature) for feature in features),
        words=lambda setting: ("off", words(setting)),
        revert=lambda world, _: replace(world, request=without_features(world.request, features)),
    )


def _depths(setting: Setting) -> str:
    items = [item for item in setting.plan.fleet if item.deployment.speculation_depth]
    said = {(i.deployment.speculation_depth, i.features.get("tokens_per_step", 0.0)) for i in items}
    return "; ".join(f"depth {depth}, {tokens:.3g} tokens a step" for depth, tokens in sorted(said))


def _ranks(setting: Setting) -> str:
    layouts = [layout for item in setting.plan.fleet for layout in layouts_of(item)]
    ep, dp = max(layout.ep for layout in layouts), max(layout.dp for layout in layouts)
    return f"experts over {ep} GPUs" + (f", attention on {dp} ranks" if dp > 1 else "")


# --- hardware ---


def _accelerator_revert(world: World, setting: Setting) -> World:
    """Put the baseline's accelerator in the place of the plan's, with the plan's links where these are a factor."""
    old, request = setting.old, world.request
    stock = request.inventory
    if stock and old.name not in stock:
        stock = {**stock, old.name: sum(stock.get(name, 0) for name in setting.hardware)}
    excluded = tuple(name for name in request.excluded_accelerators if hardware_of(name) != old.name)
    update = {"accelerators": (old.name,), "excluded_accelerators": excluded, "inventory": stock}
    records = {**world.accelerators}
    if "interconnect" in setting.factors:
        records[old.name] = linked_like(old, setting.main)
    return replace(world, request=request.model_copy(update=update), accelerators=records)


def linked_like(accelerator: Accelerator, model: Accelerator) -> Accelerator:
    """Return an accelerator with the links of another one."""
    return replace(accelerator, **{name: getattr(model, name) for name in LINKS})


def _links_revert(world: World, setting: Setting) -> World:
    table = setting.catalog.accelerators
    names = dict.fromkeys(map(hardware_of, world.request.accelerators))
    records = {name: linked_like(world.accelerators.get(name, table[name]), setting.old) for name in names}
    return replace(world, accelerators={**world.accelerators, **records})


def _links(accelerator: Accelerator) -> str:
    out = accelerator.scale_out_bytes_per_s
    beyond = "no network beyond known" if out is None else f"{out / GBIT:,.0f} Gbit/s beyond"
    wired = f"{accelerator.scale_up_topology.value} of {accelerator.scale_up_size}"
    return f"{wired}, {accelerator.scale_up_bytes_per_s / GB:,.0f} GB/s; {beyond}"


def _titles(setting: Setting) -> str:
    return ", ".join(setting.catalog.accelerators[name].title for name in setting.hardware)


# --- precision ---


def widest_precisions(setting: Setting) -> dict[str, str]:
    """Return the widest precision of each model that the baseline and the plan's accelerators run."""
    return {asked.llm: _widest(setting, asked.llm, asked.most_quality_loss) for asked in _classes(setting)}


def _widest(setting: Setting, name: str, most_loss: float | None) -> str:
    llm, request = setting.ground.llms[name], setting.plan.request
    known = setting.catalog.precisions
    fitting = [
        p
        for p in llm.precisions
        if all(p in _supported(setting, hardware, "precisions") for hardware in (setting.baseline, *setting.hardware))
        and (not request.precisions or p in request.precisions)
        and (most_loss is None or llm.quality_loss(p) <= most_loss)
    ]
    own = [i.precision for i in setting.plan.fleet if i.model == llm.name]
    return max(fitting or own or [llm.native_precision], key=lambda p: (known[p].ffn_bits, p == llm.native_precision))


def _supported(setting: Setting, hardware: str, what: str) -> set[str]:
    chosen = setting.plan.request.frameworks
    frameworks = [f for f in setting.catalog.frameworks.values() if (f.name in chosen if chosen else f.recommended)]
    found = [f.support[hardware] for f in frameworks if hardware in f.support]
    return {each for support in found for each in getattr(support, what)}


def _wide_cache(setting: Setting) -> bool:
    """Whether the 16-bit cache can be had on the baseline and on the plan's accelerators, and may be."""
    everywhere = (setting.baseline, *setting.hardware)
    chosen = setting.plan.request.kv_precisions
    allowed = not chosen or WIDE_CACHE in chosen
    return allowed and all(WIDE_CACHE in _supported(setting, hardware, "kv_precisions") for hardware in everywhere)


def _precision_words(setting: Setting) -> Words:
    llms: Mapping[str, Llm] = setting.ground.llms
    wide = sorted({p for name, p in widest_precisions(setting).items() if name in llms})
    cache = f", KV cache {WIDE_CACHE}" if _wide_cache(setting) else ""
    own = sorted({f"{item.precision}, KV cache {item.kv_precision}" for item in setting.plan.fleet})
    return f"{' and '.join(wide)}{cache}", "; ".join(own)


def _precision_used(setting: Setting) -> bool:
    wide = {setting.ground.llms[name].name: p for name, p in widest_precisions(setting).items()}
    return any(
        item.precision != wide.get(item.model) or (item.kv_precision != WIDE_CACHE and _wide_cache(setting))
        for item in setting.plan.fleet
    )


def _precision_revert(world: World, setting: Setting) -> World:
    wide = widest_precisions(setting)
    update: dict[str, tuple[str, ...]] = {"precisions": tuple(dict.fromkeys(wide.values()))}
    if _wide_cache(setting):
        update["kv_precisions"] = (WIDE_CACHE,)
    return replace(world, request=world.request.model_copy(update=update), precisions=wide)


# --- caching ---


def _classes(setting: Setting) -> Sequence[WorkloadClass]:
    return setting.plan.request.served_classes()


def _cached(setting: Setting) -> str:
    shares = sorted({f"{asked.workload.prefix_share:.0%}" for asked in _classes(setting)})
    return f"{' and '.join(shares)} of prompts found in the cache"


# --- prices ---


def _offer_prices(setting: Setting) -> list[tuple[str, float, float]]:
    """Return (accelerator, typical price, price paid) of the plan's accelerators. [USD an accelerator-hour]"""
    free = setting.plan.request.model_copy(update={"accelerators": (), "excluded_accelerators": ()})
    usual = typical(allowed_offers(setting.ground.prices.offers, free))
    found = []
    for part in (part for item in setting.plan.fleet for part in item.bought):
        name = hardware_of(part.accelerator)
        asked = min((o.usd_per_accelerator_hour for o in usual if o.accelerator == name), default=0.0)
        found.append((name, asked, part.usd_per_unit_hour / part.gpus_per_unit))
    return found


def _offer_words(setting: Setting) -> Words:
    usual = {name: f"{name} ${asked:.2f}/h" for name, asked, _ in _offer_prices(setting)}
    paid: dict[str, list[float]] = {}
    for item, part in ((each, part) for each in setting.plan.fleet for part in each.bought):
        where = f"{item.provider} {item.market.replace('_', ' ')}, {part.accelerator}"
        paid.setdefault(where, []).append(part.usd_per_unit_hour / part.gpus_per_unit)
    said = [f"{where} {_range(prices)}/h" for where, prices in paid.items()]
    return f"the middle provider on demand, {', '.join(usual.values())}", "; ".join(said)


def _range(prices: Sequence[float]) -> str:
    low, high = f"${min(prices):.2f}", f"${max(prices):.2f}"
    return low if low == high else f"{low} to {high}"


def _offer_used(setting: Setting) -> bool:
    return any(asked > paid * NOTICED for _, asked, paid in _offer_prices(setting))


def usual_usd_per_kwh(catalog: Catalog) -> float | None:
    """Return the price of electricity at the catalog's default site."""
    first = next(iter(catalog.sites.values()), None)
    return None if first is None else first.usd_per_kwh


def _electricity(setting: Setting) -> list[float]:
    """Return the prices of electricity that the plan's offers contain, where that is known. [USD/kWh]"""
    used = {(i.provider, i.region, i.instance_type) for i in setting.plan.fleet}
    return sorted(
        {
            o.site.usd_per_kwh
            for o in setting.ground.prices.offers
            if o.energy_usd_per_hour > 0 and o.site is not None and o.site.usd_per_kwh
            if (o.provider, o.region, o.instance_type) in used
        }
    )


def _power_price_used(setting: Setting) -> bool:
    usual = usual_usd_per_kwh(setting.catalog)
    return usual is not None and any(abs(price / usual - 1.0) > NOTICED - 1.0 for price in _electricity(setting))


def _power_price_words(setting: Setting) -> Words:
    usual = usual_usd_per_kwh(setting.catalog) or 0.0
    return f"${usual:.3f}/kWh", ", ".join(f"${price:.3f}/kWh" for price in _electricity(setting))


# --- the table ---

SPECULATION = (Feature.MTP, Feature.EAGLE3, Feature.DRAFT_MODEL, Feature.NGRAM)

FACTORS: tuple[FactorRow, ...] = (
    FactorRow(
        name="accelerator",
        title="accelerator",
        kind="hardware",
        used=lambda s: s.hardware != (s.baseline,),
        words=lambda s: (s.old.title, _titles(s)),
        revert=_accelerator_revert,
    ),
    FactorRow(
        name="interconnect",
        title="interconnect",
        kind="hardware",
        used=lambda s: any(linked_like(a, s.old) != a for a in map(s.catalog.accelerators.__getitem__, s.hardware)),
        words=lambda s: (_links(s.old), _links(s.main)),
        revert=_links_revert,
    ),
    FactorRow(
        name="power_settings",
        title="power settings",
        kind="hardware",
        used=lambda s: any(hardware_of(p.accelerator) != p.accelerator for i in s.plan.fleet for p in i.bought),
        words=lambda s: ("none", ", ".join(sorted({p.accelerator for i in s.plan.fleet for p in i.bought}))),
        revert=lambda world, _: replace(
            world,
            request=world.request.model_copy(
                update={
                    "accelerators": tuple(dict.fromkeys(map(hardware_of, world.request.accelerators))),
                    "power_settings": PowerSettings.DEFAULT,
                }
            ),
        ),
    ),
    FactorRow(
        name="precision",
        title="precision",
        kind="precision",
        used=_precision_used,
        words=_precision_words,
        revert=_precision_revert,
    ),
    _feature_row("speculation", "speculative decoding", SPECULATION, _depths),
    _feature_row("disaggregation", "disaggregation", (Feature.DISAGG,), lambda _: "pools for prefill and decode"),
    _feature_row("expert_parallelism", "expert parallelism", (Feature.EXPERT_PARALLEL, Feature.ATTENTION_DP), _ranks),
    FactorRow(
        name="caching",
        title="prefix caching",
        kind="caching",
        used=lambda s: any(asked.workload.prefix_share > 0 for asked in _classes(s)),
        words=lambda s: ("none", _cached(s)),
        revert=lambda world, _: replace(world, request=with_prefix_share(world.request, lambda _: 0.0)),
    ),
    FactorRow(
        name="offer",
        title="offer and terms",
        kind="price",
        used=_offer_used,
        words=_offer_words,
        revert=lambda world, _: replace(world, typical_offers=True),
    ),
    FactorRow(
        name="power_price",
        title="power price",
        kind="price",
        used=_power_price_used,
        words=_power_price_words,
        revert=lambda world, s: replace(world, usd_per_kwh=usual_usd_per_kwh(s.catalog)),
    ),
)
# Features that a row above takes care of, and those that a baseline has too: without pipelines no large model fits, and
# what engines have on by default is no step from one fleet to another.
_COVERED = (
    *SPECULATION,
    Feature.DISAGG,
    Feature.EXPERT_PARALLEL,
    Feature.ATTENTION_DP,
    Feature.PIPELINE_PARALLEL,
    Feature.PREFIX_CACHING,
    *ON_BY_DEFAULT,
)


def all_factors() -> tuple[FactorRow, ...]:
    """Return the rows of the table, and one for each feature that no row takes care of."""
    others = (feature for feature in SWITCHABLE if feature not in _COVERED)
    return FACTORS + tuple(_feature_row(f.value, feature_title(f), (f,), lambda _: "on") for f in others)


def chosen_factors(setting: Setting, wanted: Sequence[str]) -> tuple[FactorRow, ...]:
    """Return the factors that a plan uses, or those of them that are wanted; at most eight.

    Raises:
        InputError: A factor that there is not, or that the plan does not use.
    """
    rows = all_factors()
    known = [row.name for row in rows]
    for name in wanted:
        if name not in known:
            raise not_one_of("--factors", name, known)
    used = [row for row in rows if row.used(setting)]
    there = [row.name for row in used]
    for name in wanted:
        if name not in there:
            raise InputError(f"--factors: the plan does not use {name}; it uses {', '.join(there) or 'none of them'}")
    return merged([row for row in used if row.name in wanted] if wanted else used)


def merged(rows: Sequence[FactorRow], most: int = MOST_FACTORS) -> tuple[FactorRow, ...]:
    """Return rows, those of one kind taken together from the end on until there are few enough."""
    kept = list(rows)
    while len(kept) > most:
        last = next((k for k in reversed(range(len(kept))) if _of_kind(kept, k) is not None), len(kept) - 1)
        mate = _of_kind(kept, last)
        mate = last - 1 if mate is None else mate
        kept[mate] = _together(kept[mate], kept[last])
        del kept[last]
    return tuple(kept)


def _of_kind(rows: Sequence[FactorRow], place: int) -> int | None:
    """Return the last row before a place that is of the same kind."""
    return next((k for k in reversed(range(place)) if rows[k].kind == rows[place].kind), None)


def _together(first: FactorRow, second: FactorRow) -> FactorRow:
    def words(setting: Setting) -> Words:
        (old, new), (more_old, more_new) = first.words(setting), second.words(setting)
        return f"{old}; {more_old}", f"{new}; {more_new}"

    return FactorRow(
        name=f"{first.name}+{second.name}",
        title=f"{first.title} and {second.title}",
        kind=first.kind,
        used=lambda setting: first.used(setting) or second.used(setting),
        words=words,
        revert=lambda world, setting: second.revert(first.revert(world, setting), setting),
        parts=(*(first.parts or (first.name,)), *(second.parts or (second.name,))),
    )
