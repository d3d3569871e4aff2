"""What would change the answer: the same request with one thing changed, one way or both ways."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tokopt.domain.explaining import WhatIf, WhatIfCase
from tokopt.domain.features import SWITCHABLE, Feature
from tokopt.domain.plans import PlanRequest
from tokopt.domain.workloads import Sla
from tokopt.perf.constants import acceptance_chances
from tokopt.perf.speculation import accepted_tokens

from .columns import hardware_of
from .explaining_factors import Setting
from .explaining_features import feature_title, hardware_in, uses, with_prefix_share, without_features
from .explaining_worlds import Outcome, World

BY = 0.2  # share by which prices and limits change
HIT_POINTS = 0.2
ACCEPTED = 0.3  # tokens a step
HALVINGS = 60  # of an interval of 0 to 2: beyond the last digit
BOTH = (-1.0, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One thing that is changed, with a world for each way."""

    name: str
    title: str
    worlds: tuple[tuple[str, World], ...]  # what changes, in words, and the world in which it has


def questions(setting: Setting) -> list[Question]:
    """Return what is asked of a plan."""
    return [
        *_features(setting),
        *_accelerators(setting),
        *_prices(setting),
        *_latency(setting),
        *_acceptance(setting),
        *_hits(setting),
        *_electricity(setting),
        *_sizes(setting),
    ]


def answers(asked: Sequence[Question], outcomes: Sequence[Outcome], usd: float, per_mw: float | None) -> list[WhatIf]:
    """Return the answers to questions, the widest spread first; what would leave no plan comes before all."""
    left = iter(outcomes)
    found = []
    for question in asked:
        cases = tuple(_case(change, next(left), usd, per_mw) for change, _ in question.worlds)
        costs = [case.usd_per_million_output_tokens for case in cases]
        known = [cost for cost in costs if cost is not None]
        spread = max(usd, *known) - min(usd, *known) if len(known) == len(costs) else None
        found.append(WhatIf(name=question.name, title=question.title, cases=cases, spread_usd=spread))
    return sorted(found, key=lambda each: -math.inf if each.spread_usd is None else -each.spread_usd)


def _case(change: str, outcome: Outcome, usd: float, per_mw: float | None) -> WhatIfCase:
    both = outcome.per_mw is not None and per_mw is not None
    return WhatIfCase(
        change=change,
        usd_per_million_output_tokens=outcome.usd,
        tokens_per_s_per_mw=outcome.per_mw,
        usd_difference=None if outcome.usd is None else outcome.usd - usd,
        tokens_per_s_per_mw_difference=(outcome.per_mw or 0.0) - (per_mw or 0.0) if both else None,
        relative_difference=None if outcome.usd is None else outcome.usd / usd - 1.0,
        fleet=outcome.fleet,
        interval=dict(outcome.interval),
        infeasible=outcome.infeasible,
    )


def _percent(sign: float) -> str:
    return f"{sign * BY * 100:+.0f} %"


# --- one function a kind of question ---


def _features(setting: Setting) -> Iterator[Question]:
    plan = setting.plan
    for feature in SWITCHABLE:
        if feature is not Feature.PREFIX_CACHING and uses(plan, feature):
            world = World(request=without_features(plan.request, [feature]))
            yield Question(name=feature.value, title=feature_title(feature), worlds=(("off", world),))
    if any(item.deployment.mixed for item in plan.fleet):
        world = World(request=plan.request.model_copy(update={"mixed_pools": False}))
        yield Question(name="mixed_pools", title="pools on different accelerators", worlds=(("off", world),))
    if any(asked.workload.prefix_share > 0 for asked in plan.request.served_classes()):
        world = World(request=with_prefix_share(plan.request, lambda _: 0.0))
        yield Question(name="prefix_caching", title="prefix caching", worlds=(("off", world),))


def _accelerators(setting: Setting) -> Iterator[Question]:
    request = setting.plan.request
    for name in hardware_in(setting.plan):
        excluded = (*request.excluded_accelerators, name)
        kept = tuple(n for n in request.accelerators if hardware_of(n) != name)
        if request.accelerators and not kept:
            kept = request.accelerators  # nothing else may be chosen: said as such
        world = World(request=request.model_copy(update={"excluded_accelerators": excluded, "accelerators": kept}))
        yield Question(name=f"without:{name}", title=name, worlds=(("forbidden", world),))


def _prices(setting: Setting) -> Iterator[Question]:
    for name in hardware_in(setting.plan):
        worlds = tuple(
            (_percent(sign), World(request=setting.plan.request, price_factors={name: 1.0 + sign * BY}))
            for sign in BOTH
        )
        yield Question(name=f"price:{name}", title=f"price of {name}", worlds=worlds)


def _latency(setting: Setting) -> Iterator[Question]:
    request = setting.plan.request

    def looser(sla: Sla, factor: float) -> Sla:
        limits = {"tpot_ms": sla.tpot_ms, "ttft_ms": sla.ttft_ms, "e2e_ms": sla.e2e_ms}
        return sla.model_copy(update={name: limit and limit * factor for name, limit in limits.items()})

    def world(sign: float) -> World:
        factor = 1.0 + sign * BY
        classes = tuple(c.model_copy(update={"sla": looser(c.sla, factor)}) for c in request.classes)
        return World(request=request.model_copy(update={"sla": looser(request.sla, factor), "classes": classes}))

    if any((c.sla.tpot_ms, c.sla.ttft_ms, c.sla.e2e_ms) != (None,) * 3 for c in request.served_classes()):
        yield Question(name="sla", title="latency limits", worlds=tuple((_percent(sign), world(sign)) for sign in BOTH))


def _acceptance(setting: Setting) -> Iterator[Question]:
    depths: dict[str, int] = {}
    for item in setting.plan.fleet:
        depths[item.model] = max(depths.get(item.model, 0), item.deployment.speculation_depth)
    speculating = {name: depth for name, depth in depths.items() if depth}
    if not speculating:
        return
    calibration = setting.catalog.calibration

    def world(sign: float) -> World:
        chances = {
            name: scaled_chances(acceptance_chances(calibration, name), depth, sign * ACCEPTED)
            for name, depth in speculating.items()
        }
        return World(request=setting.plan.request, acceptance=chances)

    yield Question(
        name="acceptance",
        title="accepted tokens a step",
        worlds=tuple((f"{sign * ACCEPTED:+.1f}", world(sign)) for sign in BOTH),
    )


def scaled_chances(chances: tuple[float, ...], depth: int, more: float) -> tuple[float, ...]:
    """Return chances in proportion that yield so many more tokens a step at a depth, as far as chances can.

    Args:
        chances: Chance of each draft token.
        depth: Draft tokens a step.
        more: Tokens a step. Between none of the drafts accepted and all of them.
    """

    def scaled(factor: float) -> tuple[float, ...]:
        return tuple(min(1.0, factor * chance) for chance in chances)

    def tokens(factor: float) -> float:
        return float(accepted_tokens(scaled(factor), depth))

    target = tokens(1.0) + more
    low, high = 0.0, max(2.0, 1.0 / max(min(chances), 1e-9))
    if target >= tokens(high):
        return scaled(high)
    for _ in range(HALVINGS):
        middle = (low + high) / 2.0
        low, high = (middle, high) if tokens(middle) < target else (low, middle)
    return scaled((low + high) / 2.0)


def _hits(setting: Setting) -> Iterator[Question]:
    request = setting.plan.request
    cached = any(asked.workload.prefix_share > 0 for asked in request.served_classes())

    def world(sign: float) -> World:
        return World(request=with_prefix_share(request, lambda share: min(1.0, max(0.0, share + sign * HIT_POINTS))))

    ways = BOTH if cached else BOTH[1:]
    yield Question(
        name="hit_rate",
        title="prefix hit rate",
        worlds=tuple((f"{sign * HIT_POINTS * 100:+.0f} points", world(sign)) for sign in ways),
    )


def _electricity(setting: Setting) -> Iterator[Question]:
    known = {o.accelerator for o in setting.ground.prices.offers if o.energy_usd_per_hour > 0}
    if known & set(hardware_in(setting.plan)):
        worlds = tuple(
            (_percent(sign), World(request=setting.plan.request, energy_factor=1.0 + sign * BY)) for sign in BOTH
        )
        yield Question(name="power_price", title="price of electricity", worlds=worlds)


def _sizes(setting: Setting) -> Iterator[Question]:
    request = setting.plan.request

    def question(name: str, title: str, change: dict[float, PlanRequest]) -> Question:
        worlds = tuple((_percent(sign), World(request=changed)) for sign, changed in change.items())
        return Question(name=name, title=title, worlds=worlds)

    if any(asked.demand_requests_per_s is not None for asked in request.served_classes()):
        yield question("demand", "demand", {sign: _with_demand(request, 1.0 + sign * BY) for sign in BOTH})
    for name, title in (("power_kw", "power limit"), ("budget_usd_per_hour", "budget")):
        limit = getattr(request, name)
        if limit is not None:
            changed = {sign: request.model_copy(update={name: limit * (1.0 + sign * BY)}) for sign in BOTH}
            yield question(name.partition("_")[0], title, changed)


def _with_demand(request: PlanRequest, factor: float) -> PlanRequest:
    def scaled(rate: float | None) -> float | None:
        return None if rate is None else rate * factor

    classes = tuple(
        c.model_copy(update={"demand_requests_per_s": scaled(c.demand_requests_per_s)}) for c in request.classes
    )
    return request.model_copy(
        update={"demand_requests_per_s": scaled(request.demand_requests_per_s), "classes": classes}
    )
