"""The answer of a tuning: what was found of each item, the plan that follows, and what has to be said of both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tokopt.catalog import Catalog
from tokopt.checking import check_plan
from tokopt.domain.deployments import ServingMode
from tokopt.domain.plans import FleetItem, Plan
from tokopt.domain.tuning import (
    Aim,
    Importance,
    ItemTuning,
    StudyRecord,
    StudyWorker,
    TrialState,
    Tuning,
    TuningProvenance,
    TuningSettings,
    TuningTrial,
)
from tokopt.search.studies import workers_of
from tokopt.search.tuning import TrialRow, importances, on_front, refusals, repeats
from tokopt.version import __version__

from .checking import check_inputs
from .items import usd_per_million
from .requests import workload_of
from .tuned_plans import Restated, Tuned, rate_of, tuned_plan
from .tuning_knobs import Setup
from .tuning_scores import AGREEMENT, TEST_SEED, ItemFigures
from .tuning_search import Search, exhausted, why_stopped_early
from .tuning_tests import CONFIDENCE, FINALISTS, Tested, gain, low_load, stated

STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAILED}
ROUNDING = 1e-9  # relative
CHANGED = {
    "concurrency_per_replica": "running cap",
    "chunk_tokens": "chunk",
    "speculation_depth": "draft tokens",
    "prefill_workers": "prefill workers",
    "decode_workers": "decode workers",
    "router": "router",
    "kv_offload": "offload of caches",
    "accelerator": "accelerator",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of one item."""

    search: Search
    rows: Sequence[TrialRow]
    planned: Tested
    tuned: Tested  # the planned settings themselves where nothing is better
    rejected: tuple[Tested, ...]
    untested: int  # trials that looked better, but of which a plan could only state less

    @property
    def improved(self) -> bool:
        """Whether something better was found."""
        return self.tuned is not self.planned

    @property
    def item(self) -> FleetItem:
        """The item as planned."""
        return self.search.knobs.item

    @property
    def planned_rate(self) -> float:
        """Requests/s of a replica, in the period that loads it most."""
        return self.item.busiest_requests_per_s


def states_less(search: Search, planned: Tested, setup: Setup, load: float) -> bool:
    """Whether a plan with other settings would state less than the planned ones keep: it would cost more a token.

    Where a demand is given it is stated whatever the settings.

    Args:
        search: Of the item.
        planned: What its planned settings do.
        setup: The item with other settings.
        load: That they keep the limits at for sure in simulation; infinite = as much as the model lets a plan state.
    """
    if search.knobs.asked.demand_requests_per_s is not None:
        return False
    return _stated_share(search, setup, load) < min(low_load(planned), 1.0) * (1.0 - ROUNDING)


def _stated_share(search: Search, setup: Setup, load: float) -> float:
    """Return the rate that a plan with settings states, of the planned one."""
    context, item = search.context, search.knobs.item
    rate = item.busiest_requests_per_s
    tuned = Tuned(number=context.number, setup=setup, load=load, planned_rate=rate)
    return rate_of(context.plan, item, tuned, alone=context.settings.simulator_alone) / rate


def answered(catalog: Catalog, plan: Plan, where: str, settings: TuningSettings, results: Sequence[Result]) -> Tuning:
    """Return the answer of a tuning."""
    changed = [
        Tuned(
            number=result.search.context.number,
            setup=result.tuned.setup,
            load=low_load(result.tuned),
            planned_rate=result.planned_rate,
        )
        for result in results
        if result.improved
    ]
    said = [
        f"settings tuned by simulation: {_where(result)} {changes(result)}" for result in results if result.improved
    ]
    if said:
        said.append(
            "what binds, what more of it is worth and what is second best were told before tuning, and are not now"
        )
    restated = tuned_plan(catalog, plan, changed, said, alone=settings.simulator_alone)
    before, tokens_before = _fleet(results, tuned=False)
    after, tokens_after = _fleet(results, tuned=True)
    assert plan.usd_per_million_output_tokens is not None
    return Tuning(
        plan=where,
        improved=bool(changed),
        items=tuple(_item(result) for result in results),
        usd_per_million_output_tokens_planned=plan.usd_per_million_output_tokens,
        usd_per_million_output_tokens_before=before,
        usd_per_million_output_tokens=after,
        output_tokens_per_s_before=tokens_before,
        output_tokens_per_s=tokens_after,
        stopped_early="; ".join(why for each in results if (why := why_stopped_early(each.search, each.rows))),
        notes=tuple(_notes(catalog, plan, settings, results, restated)),
        tuned_plan=restated.plan,
        study=_study(results, settings),
        settings=settings,
        assumptions=_assumptions(settings, results),
        provenance=_provenance(catalog, plan),
    )


def _where(result: Result) -> str:
    return f"item {result.search.context.number + 1} ({result.item.accelerator})"


def changes(result: Result) -> str:
    """Return what new settings change, in words."""
    old, new = result.planned.setup.shown, result.tuned.setup.shown
    rows = [(said, getattr(old, name), getattr(new, name)) for name, said in CHANGED.items()]
    return ", ".join(f"{said} {_word(a)} to {_word(b)}" for said, a, b in rows if a != b) or "nothing"


def _word(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _fleet(results: Sequence[Result], *, tuned: bool) -> tuple[float, float]:
    """Return cost and output of the items together, at the highest rates that keep the limits. [USD/M, tokens/s]"""
    usd = tokens = 0.0
    for result in results:
        tested = result.tuned if tuned else result.planned
        load = math.fsum(tested.loads) / len(tested.loads)
        usd += result.item.usd_per_hour
        output = workload_of(result.search.knobs.asked.workload).output_tokens
        tokens += max(load, 1e-9) * result.planned_rate * result.item.replicas * output
    return usd_per_million(usd, tokens), tokens


# --- one item ---


def _item(result: Result) -> ItemTuning:
    search, rows, item = result.search, result.rows, result.item
    figures = ItemFigures(search.context, search.knobs)
    aim = search.context.settings.objectives[0]
    front = {row.number for row in on_front(rows, search.task.goals)}
    workers = [worker.key for worker in workers_of(search.study)]
    weights = importances(rows, search.space, search.task.goals[0])
    states = [row.state for row in rows]
    return ItemTuning(
        item=search.context.number + 1,
        accelerator=item.accelerator,
        offer=f"{item.provider} {item.region} {item.instance_type} {item.market}".strip(),
        setup=_setup(item),
        replicas=item.replicas,
        improved=result.improved,
        planned_requests_per_s=result.planned_rate,
        planned=stated(result.planned, figures),
        tuned=stated(result.tuned, figures),
        gain=gain(aim, result.planned, result.tuned),
        confidence=CONFIDENCE,
        units_needed=_units(result),
        knobs=search.knobs.ranges(),
        settings_possible=search.space.size,
        exhausted=exhausted(search),
        trials=tuple(_trial(search, row, workers, front=row.number in front) for row in rows if row.state in STATES),
        complete=states.count("complete"),
        pruned=states.count("pruned"),
        failed=states.count("failed"),
        repeats=repeats(search.study),
        refused=refusals(search.study),
        rejected=tuple(_rejected(aim, result, tested) for tested in result.rejected),
        importance=tuple(
            Importance(knob=name, share=share) for name, share in sorted(weights.items(), key=lambda pair: -pair[1])
        ),
    )


def _setup(item: FleetItem) -> str:
    deployment = item.deployment
    if deployment.mode is ServingMode.AGG or deployment.prefill is None or deployment.decode is None:
        return f"agg, {item.gpus_per_replica} GPUs a replica"
    return (
        f"disagg, {deployment.prefill.workers} workers of {deployment.prefill.layout.accelerators} GPUs that prefill "
        f"and {deployment.decode.workers} of {deployment.decode.layout.accelerators} that decode a replica"
    )


def _units(result: Result) -> tuple[int, int] | None:
    """Return the units that the demand needs, before and after, at the rates that are kept for sure."""
    if result.search.knobs.asked.demand_requests_per_s is None:
        return None
    each = result.item.replicas / result.item.units * result.planned_rate
    demand = result.planned_rate * result.item.replicas
    found = [max(low_load(tested), 1e-9) * each for tested in (result.planned, result.tuned)]
    return math.ceil(demand / found[0] - 1e-9), math.ceil(demand / found[1] - 1e-9)


def _rejected(aim: Aim, result: Result, tested: Tested) -> str:
    found = gain(aim, result.planned, tested)
    chance = "" if found.plus_minus is None else f" ± {found.plus_minus:.1%}"
    other = replace(result, tuned=tested, rejected=())
    said = f"{changes(other)}: {aim.value} better by {found.value:.1%}{chance}"
    if not states_less(result.search, result.planned, tested.setup, low_load(tested)):
        return said
    share = _stated_share(result.search, tested.setup, low_load(tested))
    return f"{said}, but the plan would state {share:.1%} of the planned rate"


def _trial(search: Search, row: TrialRow, workers: Sequence[str], *, front: bool) -> TuningTrial:
    setup = None if row.place is None else search.knobs.setup(search.space.at(row.place))
    last = row.last
    notes = {} if last is None else last.notes
    load = notes.get("load")
    return TuningTrial(
        number=row.number,
        state=STATES[row.state],
        reason=row.reason,
        settings=None if setup is None or isinstance(setup, str) else setup.shown,
        values={} if last is None else {str(k): float(v) for k, v in notes["figures"].items()},
        requests_per_s=None if load is None else float(load) * search.knobs.item.busiest_requests_per_s,
        rungs=len(row.looks),
        requests=int(notes.get("requests", 0)),
        worker=workers.index(row.worker) if row.worker in workers else 0,
        front=front,
    )


# --- what has to be said ---


def _notes(
    catalog: Catalog, plan: Plan, settings: TuningSettings, results: Sequence[Result], restated: Restated
) -> list[str]:
    """Return where model and simulator do not agree, and what follows for the plan."""
    notes = []
    for result in results:
        where = f"{_where(result)}: " if len(results) > 1 else ""
        low = low_load(result.planned)
        if max(result.planned.loads) == 0.0:
            notes.append(f"{where}simulated, the planned settings keep the limits at no load")
        elif low < 1.0:
            notes.append(f"{where}simulated, the planned settings keep the limits up to {low:.1%} of the planned rate")
        if result.untested:
            notes.append(f"{where}{_untested(result, alone=settings.simulator_alone)}")
        rates = restated.rates.get(result.search.context.number)
        if rates is not None:
            notes += [f"{where}{line}" for line in _rates(result, rates, alone=settings.simulator_alone)]
    if restated.rates:
        inputs = check_inputs(restated.plan, catalog)
        faults = check_plan(restated.plan, inputs)
        if faults and not check_plan(plan, check_inputs(plan, catalog)):
            more = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
            notes.append(f"tokopt check rejects the tuned plan: {faults[0]}{more}")
    return notes


def _untested(result: Result, *, alone: bool) -> str:
    """Return why settings that looked better were not tested."""
    count = result.untested
    trials, plans = (f"{count} trials", "plans with their") if count > 1 else ("1 trial", "a plan with its")
    model, other = ("", "") if alone else ("by the closed-form model ", " (--simulator-alone does without it)")
    return f"{trials} looked better, but {model}{plans} settings would state less than the planned ones keep{other}"


def _rates(result: Result, rates: tuple[float, float], *, alone: bool) -> list[str]:
    """Return what the tuned plan has a replica serve, and why."""
    before, after = rates
    simulated = low_load(result.tuned) * before
    able = result.tuned.setup.candidate.capacity_requests_per_s
    if result.search.knobs.asked.demand_requests_per_s is not None:
        lines = []
        if simulated < before:
            lines.append(f"simulated, the new settings keep the limits up to {simulated / before:.1%} of the demand")
        if able < before * (1.0 - 1e-9):
            lines.append(f"by the closed-form model they keep the limits up to {able / before:.1%} of it")
        return lines
    said = f"the tuned plan has a replica serve {after:.4g} req/s (planned: {before:.4g})"
    if alone:
        return [f"{said}, which the simulator keeps within the limits; the closed-form model up to {able:.4g}"]
    if able < simulated:
        return [
            f"{said}: the closed-form model keeps the limits up to that, the simulator up to {simulated:.4g} "
            "(--simulator-alone states the latter, which tokopt check rejects)"
        ]
    return [f"{said}: the simulator keeps the limits up to that, the closed-form model up to {able:.4g}"]


def _study(results: Sequence[Result], settings: TuningSettings) -> StudyRecord:
    first = results[0].search
    workers = [
        StudyWorker(
            number=number,
            item=result.search.context.number + 1,
            seed=worker.seed,
            trials=sum(row.worker == worker.key for row in result.rows),
        )
        for result in results
        for number, worker in enumerate(workers_of(result.search.study))
    ]
    return StudyRecord(
        location=str(first.place),
        name=first.place.name.rpartition("-")[0],
        resumed=any(result.search.resumed for result in results),
        workers=tuple(workers),
        search_seeds=(settings.seed,),
        test_seeds=(settings.seed + TEST_SEED,),
    )


def _assumptions(settings: TuningSettings, results: Sequence[Result]) -> tuple[str, ...]:
    said = [
        "cost is that of a replica over the tokens of the highest rate at which simulated latencies keep the plan's "
        "limits; goodput and p99 are at the planned rate",
        "trials see the same requests at the same seed, so that they differ by their settings; they are scaled in time "
        "to other rates",
        f"tests are {settings.replications} replications of {settings.requests:,} requests or more that no trial has "
        f"seen; settings are better where the interval of the paired difference ({CONFIDENCE:.1%}, since up to "
        f"{FINALISTS} are tested) is above nothing",
        "units, offers and accelerators of a replica stay as planned",
        "running caps are at most what memory holds of mean requests, as in plans",
    ]
    if not settings.simulator_alone:
        said.append(
            "settings that the closed-form model rules out are left out: below the demand, or where a limit is filled "
            f"below {AGREEMENT:.0%} of what the planned settings keep (--simulator-alone tries them)"
        )
    if any(len(result.search.context.plan.fleet) > 1 for result in results):
        said.append("items are tuned one by one, each with its part of the requests; the router is left as it is")
    return tuple(said)


def _provenance(catalog: Catalog, plan: Plan) -> TuningProvenance:
    import optuna

    return TuningProvenance(
        tokopt_version=__version__,
        optuna_version=optuna.__version__,
        catalog_version=catalog.version,
        calibration=catalog.calibration.version,
        plan_version=plan.provenance.tokopt_version,
    )
