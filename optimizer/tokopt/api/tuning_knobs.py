"""Knobs of an item of a fleet: what each may be set to, and what the item is with all of them set."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tokopt.catalog import Catalog
from tokopt.domain.caching import Offload, Router
from tokopt.domain.deployments import Deployment, Pool, ServingMode
from tokopt.domain.features import Feature
from tokopt.domain.plans import FleetItem, Plan
from tokopt.domain.simulations import Routing
from tokopt.domain.tuning import KnobName, KnobRange, TunedSettings
from tokopt.errors import InputError, not_one_of
from tokopt.perf.deployed import decode_layout
from tokopt.search import Candidate, SearchSpace
from tokopt.search.caching import offloads_of
from tokopt.search.fixed import as_given, most_of_worker
from tokopt.search.knobs import Knob, KnobSpace, Settings, Value
from tokopt.search.space import Family, family_of

from .columns import hardware_of
from .services import class_space
from .simulated_fleet import planned_router
from .sound_plans import class_of

SHARES = (0.1, 0.14, 0.2, 0.28, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # of what memory holds
AROUND = (0.6, 0.75, 0.85, 0.93, 1.08, 1.18, 1.35, 1.6)  # of the planned share
ALIKE = 0.03  # relative: of two shares that are as close as that, one is left out
CHUNKS = tuple(1 << k for k in range(9, 16))  # tokens, 512 … 32,768
SETS = {
    KnobName.MAX_BATCH: "most requests in service of a decoding worker, as a share of what memory holds",
    KnobName.CHUNK: "token budget of a step that prefills (chunk_tokens)",
    KnobName.SPECULATION: "draft tokens a step (speculation_depth)",
    KnobName.POOLS: "prefill and decode workers of a replica, on as many accelerators",
    KnobName.ROUTER: "which replica a request is sent to",
    KnobName.OFFLOAD: "where prefixes go that memory has no room for (kv_offload)",
    KnobName.POWER_CAP: "power setting of the accelerators",
}
PLAIN_ROUTERS = (Routing.RANDOM, Routing.ROUND_ROBIN, Routing.LEAST_LOADED, Routing.SHORTEST_QUEUE)
CACHE_ROUTERS = (Router.RANDOM, Router.ROUND_ROBIN, Router.LEAST_LOADED, Router.KV_AWARE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """An item with its knobs set."""

    item: FleetItem  # rates, offers and latencies as planned
    candidate: Candidate  # what the closed-form model says of a replica
    router: Routing
    settings: Settings

    @property
    def shown(self) -> TunedSettings:
        """What replica and router are set to, in words of the plan."""
        deployment = self.candidate.deployment
        caching = deployment.caching
        return TunedSettings(
            concurrency_per_replica=deployment.max_running_requests or 0,
            chunk_tokens=deployment.chunk_tokens,
            speculation_depth=deployment.speculation_depth,
            prefill_workers=deployment.prefill.workers if deployment.prefill else None,
            decode_workers=deployment.decode.workers if deployment.decode else None,
            router=self.router.value,
            kv_offload=None if caching is None else caching.offload.value,
            accelerator=deployment.accelerator,
        )


class ItemKnobs:
    """The knobs of an item, and what they make of it."""

    def __init__(self, catalog: Catalog, plan: Plan, number: int, names: Sequence[KnobName], *, chosen: bool) -> None:
        """Work out what each knob may be set to.

        Args:
            catalog: What the plan's names mean.
            plan: The plan.
            number: Of the item, from 0.
            names: Knobs to turn.
            chosen: They were asked for by name: one that the item does not have is an error.

        Raises:
            InputError: A knob that was asked for does not exist there, or there is none at all.
        """
        self.catalog, self.plan, self.number = catalog, plan, number
        self.item = plan.fleet[number]
        self.asked = asked = class_of(plan, self.item)
        self.space: SearchSpace = class_space(plan.request, catalog, asked)
        self.where = f"item {number + 1} ({self.item.accelerator})"
        deployment = self.item.deployment
        limits = (asked.sla.ttft_ms, asked.sla.tpot_ms, asked.sla.e2e_ms)
        if all(limit is None for limit in limits):
            raise InputError(f"{self.where}: there is no limit on latencies that settings could keep or miss")
        self._families: dict[tuple[str, str | None], Family | None] = {}
        self._setups: dict[tuple[Value, ...], Setup | str] = {}
        self._family = self._family_of(deployment)
        self._held = self._most(deployment)
        if not self._held:
            raise InputError(f"{self.where}: does not fit with this catalog; was the plan made with another?")
        self.router = planned_router(plan)
        self.planned: dict[str, Value] = self._planned()
        found = [self._knob(name) for name in names]
        knobs = []
        for name, knob in zip(names, found, strict=True):
            if isinstance(knob, Knob) and len(knob.values) > 1:
                knobs.append(knob)
            elif chosen:
                why = knob if isinstance(knob, str) else "nothing but what is planned is possible"
                raise InputError(f"--knobs {name.value}: {self.where}: {why}")
        if not knobs:
            raise InputError(f"{self.where}: there is nothing to tune: no knob has a second value")
        self.knobs = KnobSpace(tuple(knobs))

    def setup(self, settings: Settings) -> Setup | str:
        """Return the item with settings, or why they are not possible."""
        chosen = {**self.planned, **settings}
        key = tuple(chosen.values())
        if key not in self._setups:
            self._setups[key] = self._made(chosen)
        return self._setups[key]

    def _made(self, chosen: Mapping[str, Value]) -> Setup | str:
        deployment = self._deployment(chosen)
        most = self._most(deployment)
        if not most:
            return "does not fit in memory"
        _, workers = decode_layout(deployment)
        slots = max(min(round(float(chosen[KnobName.MAX_BATCH]) * most), most), 1)
        # An engine takes a token of each running request in a step: those of an attention rank.
        budget = math.inf if deployment.layout is None else deployment.chunk_tokens * deployment.layout.dp
        if slots > budget and chosen != self.planned:
            return "runs more requests than a step has tokens, which engines refuse"
        router = Routing(str(chosen[KnobName.ROUTER]))
        candidate = as_given(
            self.space,
            self._family_of(deployment),
            deployment.model_copy(update={"max_running_requests": slots * workers}),
            router=_cache_router(router),
            sending=self._sending(deployment),
        )
        if candidate is None:
            return "does not fit in memory"
        fitted = candidate.deployment
        item = self.item.model_copy(
            update={
                "accelerator": fitted.accelerator,
                "deployment": fitted,
                "prefill": fitted.prefill,
                "decode": fitted.decode,
                "concurrency_per_replica": fitted.max_running_requests,
            }
        )
        return Setup(item=item, candidate=candidate, router=router, settings=chosen)

    def ranges(self) -> tuple[KnobRange, ...]:
        """Return what each knob may be set to, in words."""
        return tuple(
            KnobRange(
                name=knob.name,
                sets=SETS[KnobName(knob.name)],
                values=tuple(_shown(value) for value in knob.values),
                planned=_shown(self.planned[knob.name]),
            )
            for knob in self.knobs.knobs
        )

    # --- what each knob may be ---

    def _planned(self) -> dict[str, Value]:
        deployment = self.item.deployment
        _, workers = decode_layout(deployment)
        caching = deployment.caching
        return {
            KnobName.MAX_BATCH.value: self.item.concurrency_per_replica / workers / self._held,
            KnobName.CHUNK.value: deployment.chunk_tokens,
            KnobName.SPECULATION.value: deployment.speculation_depth,
            KnobName.POOLS.value: _pools(deployment),
            KnobName.ROUTER.value: self.router.value,
            KnobName.OFFLOAD.value: Offload.NONE.value if caching is None else caching.offload.value,
            KnobName.POWER_CAP.value: deployment.accelerator,
        }

    def _knob(self, name: KnobName) -> Knob | str:
        """Return a knob, or why the item does not have it."""
        makers = {
            KnobName.MAX_BATCH: self._shares,
            KnobName.CHUNK: self._chunks,
            KnobName.SPECULATION: self._depths,
            KnobName.POOLS: self._ratios,
            KnobName.ROUTER: self._routers,
            KnobName.OFFLOAD: self._tiers,
            KnobName.POWER_CAP: self._settings_of_power,
        }
        values = makers[name]()
        if isinstance(values, str):
            return values
        return Knob(name=name.value, values=tuple(values), ordered=name not in (KnobName.ROUTER,))

    def _shares(self) -> list[Value]:
        own = float(self.planned[KnobName.MAX_BATCH])
        shares = [own]
        for share in (1.0, *(own * factor for factor in AROUND if own * factor < 1.0), *SHARES):
            if all(abs(math.log(share / other)) > ALIKE for other in shares):
                shares.append(share)
        return [*sorted(shares)]

    def _chunks(self) -> list[Value]:
        own = self.item.deployment.chunk_tokens
        prompts = self._family_of(self.item.deployment, prompts=True)
        least = 1 if Feature.CHUNKED_PREFILL in prompts.features else prompts.whole_tokens
        sizes = sorted({own, *(size for size in CHUNKS if size >= least)})
        return [size for size in sizes if size == own or self._most(self._deployment({**self.planned, "chunk": size}))]

    def _depths(self) -> list[Value] | str:
        own = self.item.deployment.speculation_depth
        family = self._family
        if not own and len(family.depths) == 1:
            return "nothing drafts for it"
        plain = self.item.deployment.model_copy(update={"speculator": None, "speculation_depth": 0})
        none = [0] if self._family_or_none(plain) is not None else []
        return sorted({*none, *family.depths, own})

    def _ratios(self) -> list[Value] | str:
        """Return pairs of pools on as many accelerators as the planned ones."""
        deployment = self.item.deployment
        prefill, decode = deployment.prefill, deployment.decode
        if deployment.mode is ServingMode.AGG or prefill is None or decode is None:
            return "it has one pool"
        if deployment.mixed:
            return "its pools are on different accelerators, which are bought apart"
        total, first, second = deployment.accelerators, prefill.layout.accelerators, decode.layout.accelerators
        return [
            _written(workers, (total - workers * first) // second)
            for workers in range(1, total // first + 1)
            if total > workers * first and (total - workers * first) % second == 0
        ]

    def _routers(self) -> list[Value] | str:
        if self.item.replicas < 2:
            return "there is one replica"
        if len(self.plan.fleet) > 1:
            return "the fleet has several items behind one router"
        if self.item.deployment.caching is None:
            return [router.value for router in PLAIN_ROUTERS]
        aware = Feature.KV_ROUTING in self._family.features
        return [router.value for router in CACHE_ROUTERS if aware or router is not Router.KV_AWARE]

    def _tiers(self) -> list[Value] | str:
        caching = self.item.deployment.caching
        if caching is None or Feature.PREFIX_CACHING not in self._family.features:
            return "nothing is cached"
        return [tier.value for tier in offloads_of(self._family_of(self.item.deployment, prompts=True))]

    def _settings_of_power(self) -> list[Value] | str:
        own = self.item.deployment.accelerator
        if self.item.deployment.mixed:
            return "its pools are on different accelerators"
        hardware = hardware_of(own)
        table = self.catalog.accelerators
        names = [hardware, *(variant.name for variant in table.listed_variants(hardware))]
        return list(dict.fromkeys([*names, own])) if len(names) > 1 else "the catalog lists no power setting of it"

    # --- what settings make of a deployment ---

    def _deployment(self, chosen: Settings) -> Deployment:
        own = self.item.deployment
        depth = int(chosen[KnobName.SPECULATION])
        update: dict[str, object] = {
            "accelerator": str(chosen[KnobName.POWER_CAP]),
            "chunk_tokens": int(chosen[KnobName.CHUNK]),
            "speculation_depth": depth,
            "speculator": own.speculator if depth else None,
            "max_running_requests": None,
        }
        if own.prefill is not None and own.decode is not None:
            prefill, decode = map(int, str(chosen[KnobName.POOLS]).split(":"))
            update["prefill"] = own.prefill.model_copy(update={"workers": prefill})
            update["decode"] = _on(own.decode, str(chosen[KnobName.POWER_CAP])).model_copy(update={"workers": decode})
        if own.caching is not None:
            offload = Offload(str(chosen[KnobName.OFFLOAD]))
            update["caching"] = own.caching.model_copy(update={"offload": offload})
        return own.model_copy(update=update)

    def _most(self, deployment: Deployment) -> int:
        family = self._family_of(deployment)
        return most_of_worker(family, self.space.workload, deployment, self._sending(deployment))

    def _sending(self, deployment: Deployment) -> Family | None:
        """Return the family of a prefill pool that is on another accelerator."""
        return self._family_of(deployment, prompts=True) if deployment.mixed else None

    def _family_or_none(self, deployment: Deployment, *, prompts: bool = False) -> Family | None:
        name = deployment.prefill_accelerator if prompts else deployment.accelerator
        key = name, deployment.speculator
        if key not in self._families:
            self._families[key] = family_of(self.space, self.catalog.accelerators[name], deployment)
        return self._families[key]

    def _family_of(self, deployment: Deployment, *, prompts: bool = False) -> Family:
        family = self._family_or_none(deployment, prompts=prompts)
        if family is None:
            raise InputError(
                f"{self.where}: the catalog has no such set-up: {deployment.framework}, {deployment.precision}, "
                f"{deployment.kv_precision} on {deployment.accelerator}; was the plan made with another?"
            )
        return family


def require_known(catalog: Catalog, plan: Plan) -> None:
    """Refuse a plan with an item that the closed-form model has nothing to say of, before any work is done.

    Raises:
        InputError: In one line: an accelerator is not named as in the catalog, or more is drafted than can be.
    """
    for number, item in enumerate(plan.fleet, start=1):
        deployment = item.deployment
        try:
            for name in (deployment.accelerator, deployment.prefill_accelerator):
                found = catalog.accelerator(name)
                if found.name != name:
                    raise InputError(f"accelerator {name!r} is {found.name} in plans")
            space = class_space(plan.request, catalog, class_of(plan, item))
            family = family_of(space, catalog.accelerators[deployment.accelerator], deployment)
        except InputError as error:
            raise InputError(f"fleet item {number}: {error}") from None
        deepest = math.inf if family is None else family.accepted.size - 1
        if deployment.speculation_depth > deepest:
            drafts = deployment.speculator or "without a speculator, the checkpoint"
            raise InputError(
                f"fleet item {number}: speculation_depth {deployment.speculation_depth} is not possible: "
                f"{drafts} drafts {deepest} tokens at most"
            )


def knob_names(written: str | Iterable[str] | None) -> tuple[KnobName, ...]:
    """Return the knobs that are named; none = all.

    Raises:
        InputError: Not a knob.
    """
    if written is None:
        return ()
    words = written.split(",") if isinstance(written, str) else list(written)
    names = [word.strip().lower().replace("-", "_") for word in words if word.strip()]
    if not names:
        raise InputError(f"--knobs: no knob is named; there are {', '.join(KnobName)}")
    for name in names:
        if name not in list(KnobName):
            raise not_one_of("--knobs", name, list(KnobName))
    return tuple(dict.fromkeys(map(KnobName, names)))


def _pools(deployment: Deployment) -> str:
    if deployment.prefill is None or deployment.decode is None:
        return ""
    return _written(deployment.prefill.workers, deployment.decode.workers)


def _written(prefill: int, decode: int) -> str:
    return f"{prefill}:{decode}"


def _on(pool: Pool, accelerator: str) -> Pool:
    """Return a decode pool that names its accelerator only where it did."""
    return pool if pool.accelerator is None else pool.model_copy(update={"accelerator": accelerator})


def _cache_router(router: Routing) -> Router | None:
    return Router(router.value) if router.value in list(Router) else None


def _shown(value: Value) -> str:
    return f"{value:.1%}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value
