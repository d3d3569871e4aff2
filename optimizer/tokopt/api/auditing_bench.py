"""One platform under test: what it does within the limits, with this or that changed, and whatever the latency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tokopt.catalog import Catalog
from tokopt.catalog.replacing import granted as with_features
from tokopt.cost import tokens_per_s_per_mw
from tokopt.domain.accelerators import Accelerator, Framework, FrameworkSupport, Precision
from tokopt.domain.auditing import Case, Gain
from tokopt.domain.deployments import Deployment
from tokopt.domain.features import Feature
from tokopt.domain.llms import Llm
from tokopt.domain.plans import FleetItem, Plan, PlanRequest, Status
from tokopt.domain.workloads import Sla, Statistic, Workload
from tokopt.errors import InputError
from tokopt.search import OperatingPoint, SearchReport, SearchSpace, SharedSearch, find_frontier
from tokopt.search.candidates import replicas_per_unit

from .asking import make_request
from .planning import solve_request
from .services import class_space, offers_for
from .space import search_space

FILLED = "1MW"
USD, PER_GPU, PER_USER = "usd_per_million_output_tokens", "output_tokens_per_s_per_gpu", "tokens_per_s_per_user"


@dataclass(slots=True, kw_only=True)
class Asked:
    """What is asked of every platform, and what has been found out already."""

    catalog: Catalog
    model: str
    llm: Llm
    workload: Workload
    sla: str | Sla
    prices: str | Sequence[str]
    rates: Mapping[str, float]
    prices_by_accelerator: Mapping[str, float]  # lowest of an accelerator-hour [USD/h]
    search: SharedSearch = field(default_factory=SharedSearch)
    known: dict[object, Any] = field(default_factory=dict)

    def request(self, catalog: Catalog, **changes: Any) -> PlanRequest:
        """Return the request that everything is measured with, with something changed."""
        given = {"model": self.model, "workload": self.workload, "sla": self.sla, "prices": self.prices}
        return make_request(catalog, **{**given, "rates": self.rates or None, **changes})


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What was found within the limits."""

    case: Case
    plan: Plan | None = None

    @property
    def item(self) -> FleetItem | None:
        """The part of the fleet that serves most."""
        fleet = self.plan.fleet if self.plan is not None else ()
        return max(fleet, key=lambda item: item.output_tokens_per_s, default=None)


@dataclass(slots=True, kw_only=True)
class Bench:
    """A platform: an accelerator with frameworks."""

    asked: Asked
    accelerator: Accelerator
    frameworks: tuple[str, ...]
    price_note: str = ""
    _known: dict[object, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Find out whether the price lists have the accelerator at all."""
        try:
            request = self.request(self.asked.catalog)
            offers_for(self.asked.catalog, self.asked.catalog.price_list(request.prices, rates=request.rates), request)
        except InputError as error:
            self.price_note = str(error)

    # --- what runs there ---

    @property
    def filled(self) -> str:
        """What plans fill."""
        if self.accelerator.all_in_w is not None and not self.price_note:
            return "1 MW of utility power"
        return f"one unit of {self.accelerator.purchase_unit_size}"

    @property
    def usd_per_hour(self) -> float | None:
        """The lowest price of an accelerator-hour. [USD/h]"""
        return None if self.price_note else self.asked.prices_by_accelerator.get(self.accelerator.hardware)

    def supports(self) -> dict[str, FrameworkSupport]:
        """Return what each framework supports there."""
        table = self.asked.catalog.frameworks
        return {name: table[name].support[self.accelerator.hardware] for name in self.frameworks}

    def having(self, feature: Feature) -> tuple[str, ...]:
        """Return the frameworks that have a feature there for the model."""
        llm = self.asked.llm
        return tuple(name for name, support in self.supports().items() if support.has(feature, llm, apart=True))

    # --- within the limits ---

    def request(self, catalog: Catalog, **changes: Any) -> PlanRequest:
        """Return the request that fills a megawatt with the accelerator; a unit of it where its power is not known."""
        filling: dict[str, Any] = {"power": FILLED}
        if self.accelerator.all_in_w is None:
            filling = {"inventory": {self.accelerator.hardware: self.accelerator.purchase_unit_size}}
        where = {"gpus": self.accelerator.name, "frameworks": self.frameworks}
        return self.asked.request(catalog, **filling, **where, **changes)

    def within(self, condition: str = "", *, granted: tuple[Feature, ...] = (), **changes: Any) -> Found:
        """Return the best that it does within the limits, with something about the request changed.

        `granted` are features that its frameworks are taken to have.
        """
        key = (granted, tuple(sorted((name, str(value)) for name, value in changes.items())))
        if key not in self._known:
            catalog = self.asked.catalog
            if granted:
                catalog = with_features(catalog, self.accelerator.hardware, granted)
            self._known[key] = self._within(catalog, changes)
        found: Found = self._known[key]
        return replace(found, case=found.case.model_copy(update={"condition": condition}))

    def _within(self, catalog: Catalog, changes: Mapping[str, Any]) -> Found:
        try:
            request = self.request(catalog, **changes)
            if self.price_note:
                return self._without_prices(catalog, request)
            plan = solve_request(request, catalog, search=self.asked.search, extras=False)
        except InputError as error:
            return Found(case=Case(condition="", why_not=str(error)))
        if plan.status is Status.INFEASIBLE or plan.output_tokens_per_s is None:
            return Found(case=Case(condition="", why_not=_obstacle(plan)))
        gpus = sum(item.gpus for item in plan.fleet)
        main = max(plan.fleet, key=lambda item: item.output_tokens_per_s)
        case = Case(
            condition="",
            usd_per_million_output_tokens=plan.usd_per_million_output_tokens,
            usd_per_million_total_tokens=plan.usd_per_million_total_tokens,
            output_tokens_per_s_per_gpu=plan.output_tokens_per_s / gpus,
            tokens_per_s_per_mw=plan.tokens_per_s_per_mw,
            deployment=main.deployment,
        )
        return Found(case=case, plan=plan)

    def _without_prices(self, catalog: Catalog, request: PlanRequest) -> Found:
        """Return the best replica of one unit: speed without cost."""
        space = class_space(request, catalog, request.served_classes()[0])
        unit = self.accelerator.purchase_unit_size
        report = self.asked.search(self.accelerator, space, (unit,))
        best: tuple[float, Deployment] | None = None
        for candidate in report.candidates:
            served = candidate.capacity_requests_per_s * replicas_per_unit(candidate.accelerators, unit) / unit
            if best is None or served > best[0]:
                best = served, candidate.deployment
        if best is None:
            return Found(case=Case(condition="", why_not=_why_nothing(report, space)))
        each = best[0] * space.workload.output_tokens
        watts = self.accelerator.all_in_w
        per_mw = None if watts is None else float(tokens_per_s_per_mw(each, watts))
        return Found(
            case=Case(condition="", output_tokens_per_s_per_gpu=each, tokens_per_s_per_mw=per_mw, deployment=best[1])
        )

    # --- whatever the latency ---

    def space(self, disabled: tuple[Feature, ...] = ()) -> SearchSpace:
        """Return the space without limits of latency."""
        return search_space(
            self.asked.catalog,
            llm=self.asked.llm,
            workload=self.asked.workload,
            sla=Sla(statistic=Statistic.MEAN),
            frameworks=self.frameworks,
            precisions=(),
            kv_precisions=(),
            modes=(),
            disabled=disabled,
        )

    def limited_space(self) -> SearchSpace:
        """Return the space within the limits."""
        request = self.request(self.asked.catalog)
        return class_space(request, self.asked.catalog, request.served_classes()[0])

    def points(self, *disabled: Feature) -> tuple[list[OperatingPoint], SearchReport]:
        """Return the operating points that no other beats, whatever the latency."""
        if disabled not in self._known:
            self._known[disabled] = find_frontier(self.accelerator, self.space(disabled))
        found: tuple[list[OperatingPoint], SearchReport] = self._known[disabled]
        return found


def frameworks_on(catalog: Catalog, accelerator: Accelerator, chosen: Sequence[str]) -> tuple[Framework, ...]:
    """Return the frameworks of a platform: those named, or those that one would deploy there, or else any."""
    runs = [f for f in catalog.frameworks.values() if accelerator.hardware in f.support]
    if chosen:
        return tuple(f for f in runs if f.name in chosen)
    return tuple(f for f in runs if f.recommended) or tuple(runs)


def is_published(precision: Precision, llm: Llm, vendor: str) -> bool:
    """Whether plans consider a precision of a model by default: its own, or a conversion published for the vendor."""
    return precision.name == llm.native_precision or vendor in precision.converted_for


def cost_gain(condition: str, with_it: Case, without: Case) -> Gain:
    """Return what a token costs with something and without it; speed instead where there are no prices."""
    costs = with_it.usd_per_million_output_tokens, without.usd_per_million_output_tokens
    if costs[0] is not None and costs[1] is not None:
        worth = costs[1] / costs[0] - 1.0 if costs[0] > 0.0 else None
        return Gain(condition=condition, figure=USD, with_it=costs[0], without=costs[1], worth=worth)
    speeds = with_it.output_tokens_per_s_per_gpu, without.output_tokens_per_s_per_gpu
    if speeds[0] is not None and speeds[1] is not None and costs == (None, None):
        return speed_gain(condition, PER_GPU, speeds[0], speeds[1])
    why = with_it.why_not or without.why_not
    priced = costs != (None, None)
    known = costs if priced else speeds
    return Gain(
        condition=condition,
        figure=USD if priced else PER_GPU,
        with_it=known[0],
        without=known[1],
        worth=None,
        why_not=why,
    )


def speed_gain(condition: str, figure: str, with_it: float, without: float) -> Gain:
    """Return a speed with something and without it."""
    return Gain(condition=condition, figure=figure, with_it=with_it, without=without, worth=with_it / without - 1.0)


def _obstacle(plan: Plan) -> str:
    said = [f"{each.constraint}: nearest is {each.nearest}" for each in plan.nearest_feasible]
    return "; ".join([*plan.excluded.values(), *said]) or "nothing meets the limits"


def _why_nothing(report: SearchReport, space: SearchSpace) -> str:
    if report.considered == 0:
        return "no framework serves the model there in these precisions"
    if report.fastest_tpot_s == float("inf"):
        return "the model does not fit in any layout"
    if report.fastest_tpot_s > space.limits.tpot_s:
        return f"its fastest TPOT is {report.fastest_tpot_s * 1e3:.1f} ms"
    return "no set-up meets the limits"
