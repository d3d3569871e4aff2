"""`explain`: why a plan costs what it does. A waterfall from a plain baseline, and what would change the answer."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokopt.catalog import Catalog, load_catalog
from tokopt.cost import balanced, shapley_values, with_missing
from tokopt.domain.explaining import (
    PER_MW,
    USD,
    Baseline,
    ExplainedPlan,
    Explanation,
    ExplanationProvenance,
    Factor,
    Figures,
    Step,
)
from tokopt.domain.plans import Plan, Status
from tokopt.errors import InputError
from tokopt.search import SharedSearch
from tokopt.version import __version__

from .checking import read_plan
from .explaining_baseline import choose_baseline, coalition_world
from .explaining_factors import FactorRow, Setting
from .explaining_what_if import answers, questions
from .explaining_worlds import Outcome, World, all_solved, fleet_words, ground_of, outcome_of
from .planning import solve_request
from .progress import Progress, silent
from .requests import names

REPRODUCED = 1e-3  # relative difference up to which a plan that is solved again is the same one
AGAIN, CHOSEN = 0.05, 0.1  # of the whole work, when the plan is solved again, and when the baseline is chosen


def explain(
    plan: Plan | str | Path | Mapping[str, Any],
    *,
    baseline: str | None = None,
    factors: str | Sequence[str] | None = None,
    catalog: str | Catalog | None = None,
    jobs: int = 1,
    progress: Progress = silent,
) -> Explanation:
    """Return what each factor of a plan is worth, and what would change the answer.

    Args:
        plan: A plan, its JSON as a mapping, or the path of a plan file.
        baseline: The accelerator to compare with; None = the slowest of the price list that meets the request.
        factors: Names of the factors to explain; None = all that the plan uses.
        catalog: A catalog or an overlay directory; None = what the plan's request names.
        jobs: Most processes; more than one has to be asked for under `if __name__ == "__main__":`.
        progress: Told what is being done.

    Raises:
        InputError: The plan cannot be read, is infeasible or cannot be reproduced; a name is unknown; or nothing plain
            meets the request. In one line.
    """
    read = read_plan(plan)
    if read.status is Status.INFEASIBLE or read.usd_per_million_output_tokens is None:
        raise InputError("the plan is infeasible: there is nothing to explain; its report says what stands in the way")
    if read.usd_per_million_output_tokens <= 0.0:
        raise InputError("the plan costs nothing: there is nothing to explain")
    loaded = catalog if isinstance(catalog, Catalog) else load_catalog(catalog or read.request.catalog)
    ground = ground_of(read.request, loaded)
    search = SharedSearch()
    progress("solving the plan again", 0.0)
    started = time.perf_counter()
    again = solve_request(read.request, ground.catalog_of(World(request=read.request)), search=search, extras=False)
    each_s = (time.perf_counter() - started) / 2.0  # a world searches half as much, or less
    warnings = _reproduced(read, again, loaded)
    progress("choosing a baseline", AGAIN)
    setting, rows, why = choose_baseline(read, ground, baseline, names(factors), search)
    asked = questions(setting)
    sets = [coalition_world(setting, rows, number) for number in range((1 << len(rows)) - 1)]
    worlds = [*sets, *(world for question in asked for _, world in question.worlds)]
    outcomes = all_solved(worlds, ground, jobs=jobs, each_s=each_s, progress=_after(progress, CHOSEN))
    stated = replace(outcome_of(read), proven=True)
    coalitions = [*outcomes[: len(sets)], stated]
    usd, per_mw = stated.usd or 0.0, stated.per_mw
    unproven = sum(not outcome.proven for outcome in outcomes)
    return Explanation(
        baseline=_baseline(setting, coalitions[0], why),
        plan=_explained(read, stated),
        factors=_factors(setting, rows, coalitions),
        what_if=tuple(answers(asked, outcomes[len(sets) :], usd, per_mw)),
        coalitions=len(coalitions),
        infeasible_coalitions=sum(outcome.usd is None for outcome in coalitions),
        unproven=unproven,
        warnings=(*warnings, *_doubts(read, unproven)),
        assumptions=_assumptions(setting, rows, narrowed=bool(names(factors))),
        provenance=_provenance(read, loaded),
    )


def _after(progress: Progress, start: float) -> Progress:
    return lambda doing, done: progress(doing, start + (1.0 - start) * done)


def _reproduced(plan: Plan, again: Plan, catalog: Catalog) -> list[str]:
    """Return what to know about versions.

    Raises:
        InputError: Solved again, the plan is another one.
    """
    made, here = plan.provenance, _provenance(plan, catalog)
    differences = [
        f"{what} {then} then, {now} now"
        for what, then, now in (
            ("tokopt", made.tokopt_version, here.tokopt_version),
            ("catalog", made.catalog_version, here.catalog_version),
            ("calibration", made.calibration, here.calibration),
        )
        if then != now
    ]
    because = f" ({'; '.join(differences)})" if differences else ""
    allowed = REPRODUCED + (plan.gap or 0.0)
    if again.usd_per_million_output_tokens is None:
        raise InputError(f"the plan cannot be reproduced: solved again it is infeasible{because}; make it again")
    for name, unit in (
        (USD, "USD per M output tokens"),
        (PER_MW, "tok/s/MW"),
    ):
        stated, found = getattr(plan, name), getattr(again, name)
        if stated is not None and (found is None or abs(found / stated - 1.0) > allowed):
            raise InputError(
                f"the plan cannot be reproduced: it states {stated:.6g} {unit}, solved again it is "
                f"{found if found is None else format(found, '.6g')}{because}; make it again"
            )
    if not differences:
        return []
    return [f"the plan was made with other versions{because}; solved again it comes out the same"]


def _doubts(plan: Plan, unproven: int) -> list[str]:
    said = []
    if plan.status is Status.FEASIBLE:
        said.append("the plan itself is not proven to be optimal")
    if unproven:
        said.append(f"{unproven:,} of the plans behind these figures are the best that was found, not proven optimal")
    if plan.request.current:
        said.append("today's fleet and the cost of changing it are left out of the sets of factors")
    return said


def _baseline(setting: Setting, outcome: Outcome, why: str) -> Baseline:
    own = "accelerator" not in setting.factors  # then it has the plan's
    table = setting.catalog.accelerators
    return Baseline(
        accelerator=" and ".join(setting.hardware) if own else setting.baseline,
        title=" and ".join(table[name].title for name in setting.hardware) if own else setting.old.title,
        why="the plan's own: accelerators are not among the factors" if own else why,
        fleet=outcome.fleet,
        usd_per_million_output_tokens=outcome.usd or 0.0,
        tokens_per_s_per_mw=outcome.per_mw,
        interval=dict(outcome.interval),
    )


def _explained(plan: Plan, stated: Outcome) -> ExplainedPlan:
    classes = plan.request.served_classes()
    return ExplainedPlan(
        model=" and ".join(dict.fromkeys(item.model for item in plan.fleet)),
        workload=" and ".join(dict.fromkeys(asked.name for asked in classes)),
        fleet=fleet_words(plan.fleet),
        usd_per_million_output_tokens=stated.usd or 0.0,
        tokens_per_s_per_mw=stated.per_mw,
        interval=dict(stated.interval),
    )


# --- shares ---


def _factors(setting: Setting, rows: Sequence[FactorRow], coalitions: Sequence[Outcome]) -> tuple[Factor, ...]:
    """Return the share of each factor in both figures, the largest saving first."""
    if not rows:
        return ()
    counted = [coalitions[number] for number in with_missing([outcome.usd for outcome in coalitions])]
    costs = np.array([outcome.usd for outcome in counted], dtype=float)
    shares = shapley_values(costs)
    order = sorted(range(len(rows)), key=lambda k: (shares[k], k))
    usd = _steps(costs, order)
    per_mw: list[Step | None] = [None] * len(rows)
    if all(outcome.per_mw for outcome in counted):
        per_mw = [*_steps(np.array([outcome.per_mw for outcome in counted], dtype=float), order)]
    full = len(coalitions) - 1
    found = []
    for place, k in enumerate(order):
        before, after = rows[k].words(setting)
        found.append(
            Factor(
                name=rows[k].name,
                title=rows[k].title,
                parts=rows[k].parts,
                baseline=before,
                plan=after,
                usd_per_million_output_tokens=usd[place],
                tokens_per_s_per_mw=per_mw[place],
                added_alone=_figures(coalitions[1 << k]),
                left_out=_figures(coalitions[full ^ 1 << k]),
            )
        )
    return tuple(found)


def _figures(outcome: Outcome) -> Figures | None:
    if outcome.usd is None:
        return None
    return Figures(usd_per_million_output_tokens=outcome.usd, tokens_per_s_per_mw=outcome.per_mw)


def _steps(values: NDArray[np.float64], order: Sequence[int]) -> list[Step]:
    """Return the bars of one figure in the order of the factors: they add up to the last digit."""
    start, end = float(values[0]), float(values[-1])
    shares = balanced(start, [float(share) for share in shapley_values(values)[list(order)]], end)
    ratios: list[float | None] = [None] * len(order)
    if values.min() > 0.0:
        ratios = [float(ratio) for ratio in np.exp(shapley_values(np.log(values)))[list(order)]]
    edges = [start, *(math.fsum((start, *shares[:n])) for n in range(1, len(shares))), end]
    return [
        Step(share=share, times=ratio, before=edges[n], after=edges[n + 1])
        for n, (share, ratio) in enumerate(zip(shares, ratios, strict=True))
    ]


# --- what it rests on ---


def _assumptions(setting: Setting, rows: Sequence[FactorRow], *, narrowed: bool) -> tuple[str, ...]:
    names_used = {part for row in rows for part in (row.parts or (row.name,))}
    said = [
        "a factor's share is its Shapley value: what it adds to the best plan of the same request, averaged over all "
        "orders in which the plan's factors can be added to the baseline",
        "every set of factors is planned anew, within the same limits, for the same demand or power; with a factor, "
        "everything that the request allows may be chosen, without it only what the baseline has",
        "ratios are the same of logarithms: multiplied, they make the whole",
        "tensor and pipeline parallelism and every serving framework of the request are there from the start",
    ]
    if "accelerator" in names_used:
        said.append("accelerators come at their prices in the price list: a share holds speed and price together")
    if "interconnect" in names_used:
        said.append(
            "interconnect is the size, wiring and bandwidth of the scale-up domain and the network beyond it; "
            f"efficiencies stay those of the accelerator, and {setting.baseline} is bought in its own nodes"
        )
    if narrowed:
        said.append("only the factors that were asked for are explained: in all others the baseline is like the plan")
    together = [row.title for row in rows if row.parts]
    if together:
        said.append(f"taken together, because the plan uses more than eight factors: {'; '.join(together)}")
    said.append("what if: everything else stays free, so the fleet may change to another accelerator")
    return tuple(said)


def _provenance(plan: Plan, catalog: Catalog) -> ExplanationProvenance:
    made = plan.provenance
    return ExplanationProvenance(
        tokopt_version=__version__,
        catalog_version=catalog.version,
        calibration=catalog.calibration.version,
        plan_tokopt_version=made.tokopt_version,
        plan_catalog_version=made.catalog_version,
        plan_calibration=made.calibration,
    )
