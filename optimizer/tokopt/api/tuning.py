"""`tune`: the knobs of a plan's replicas, turned against the simulator."""

from __future__ import annotations

import contextlib
import math
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tokopt.catalog import Catalog, load_catalog
from tokopt.domain.plans import Plan
from tokopt.domain.tuning import Aim, KnobName, Sampler, Tuning, TuningSettings
from tokopt.errors import InputError, not_one_of
from tokopt.search.studies import StudyPlace, quiet, study_place
from tokopt.search.tuning import TrialRow
from tokopt.units import parse_duration

from .checking import read_plan
from .processes import local_processes
from .progress import Progress, silent
from .sound_plans import require_sound
from .tuning_answer import Result, answered, states_less
from .tuning_knobs import Setup, knob_names, require_known
from .tuning_scores import Context
from .tuning_search import Search, opened_search, run_apart, run_here
from .tuning_tests import FINALISTS, Tested, Testing, is_better, low_load

SEARCHING = 0.8  # of the progress that is told: the search; the rest are tests


def tune(
    plan: Plan | str | Path | Mapping[str, Any],
    *,
    trials: int = 40,
    time_limit: str | None = None,
    study: str | Path | None = None,
    study_name: str = "tokopt",
    knobs: str | Iterable[str] | None = None,
    objectives: str | Iterable[str] = ("cost", "goodput", "p99"),
    sampler: str = Sampler.TPE.value,
    item: int | None = None,
    requests: int = 10_000,
    replications: int = 8,
    seed: int = 0,
    jobs: int = 1,
    simulator_alone: bool = False,
    catalog: str | Catalog | None = None,
    progress: Progress = silent,
) -> Tuning:
    """Turn the knobs of a plan's replicas against the simulator, under the plan's limits.

    Args:
        plan: A plan, its JSON as a mapping, or the path of a plan file.
        trials: Of the study in all, for each item of the fleet: those that it has already count.
        time_limit: For the search, like `10min`; None = as long as the trials take. Tests of what was found follow.
        study: Journal file, or URL of a database (`postgresql://…`, `mysql://…`), that keeps trials; whoever names the
            same works on the same study. None = in memory.
        study_name: Of the study there; one place holds many.
        knobs: Which to turn, by name; None = all that the plan has, power caps only where energy is an objective.
        objectives: What is made best, of `cost`, `goodput`, `p99` and `energy`; the first decides.
        sampler: `tpe`, `nsga2` or `random`.
        item: Of the fleet, counted from 1; None = each of them.
        requests: Measured in one replication of a test; trials look at fewer.
        replications: Independent runs of a test.
        seed: The same seed gives the same answer, where one process works on a study alone.
        jobs: Processes on this machine.
        simulator_alone: Accept settings whose limits the closed-form model does not see kept.
        catalog: A catalog or an overlay directory; None = what the plan's request names.
        progress: Told how far it is.

    Returns:
        The best settings, which are the plan's own unless others are better beyond chance.

    Raises:
        InputError: In one line: not a plan, settings that are not possible, or a study of something else.
    """
    read = read_plan(plan)
    loaded = catalog if isinstance(catalog, Catalog) else load_catalog(catalog or read.request.catalog)
    settings = settings_of(
        trials=trials,
        time_limit=time_limit,
        knobs=knobs,
        objectives=objectives,
        sampler=sampler,
        item=item,
        requests=requests,
        replications=replications,
        seed=seed,
        simulator_alone=simulator_alone,
    )
    if jobs < 1:
        raise InputError(f"--jobs: {jobs} is not possible; at least 1 process makes trials")
    where = str(plan) if isinstance(plan, (str, Path)) else "plan"
    with _place(study, study_name, jobs) as place:
        return tune_plan(loaded, read, settings, place, where=where, jobs=jobs, progress=progress)


def tune_plan(
    catalog: Catalog,
    plan: Plan,
    settings: TuningSettings,
    place: StudyPlace,
    *,
    where: str = "plan",
    jobs: int = 1,
    progress: Progress = silent,
) -> Tuning:
    """Tune a plan under settings, with trials kept at a place."""
    contexts = _contexts(catalog, plan, settings)
    deadline = None if settings.time_limit_s is None else time.time() + settings.time_limit_s
    searches = []
    for n, context in enumerate(contexts):
        own = StudyPlace(path=place.path, url=place.url, name=f"{place.name}-{context.number + 1}")
        until = None
        if deadline is not None and settings.time_limit_s is not None:  # each item has its part of the time
            until = deadline - settings.time_limit_s * (len(contexts) - 1 - n) / len(contexts)
        searches.append(opened_search(context, context.knobs(), own, until))
    with _pool(jobs) as pool:
        results = [
            _tuned(search, pool, jobs, _part(progress, n / len(searches), (n + 1) / len(searches)))
            for n, search in enumerate(searches)
        ]
    return answered(catalog, plan, where, settings, results)


def settings_of(**written: Any) -> TuningSettings:
    """Return settings as people write them.

    Raises:
        InputError: In one line: what is not possible, and what is.
    """
    values = {name: value for name, value in written.items() if value is not None}
    values["knobs"] = knob_names(written.get("knobs"))
    values["objectives"] = _objectives(values["objectives"])
    if values["sampler"] not in list(Sampler):
        raise not_one_of("--sampler", str(values["sampler"]), list(Sampler))
    limit = values.pop("time_limit", None)
    if limit is not None:
        values["time_limit_s"] = parse_duration(str(limit), what="--time-limit")
    try:
        return TuningSettings.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        option = str(first["loc"][0]).removesuffix("_s").replace("_", "-")
        raise InputError(f"--{option}: {first['input']!r} is not possible: {first['msg'].lower()}") from None


def _objectives(written: str | Iterable[str]) -> tuple[Aim, ...]:
    words = written.split(",") if isinstance(written, str) else [str(each) for each in written]
    names = [word.strip().lower() for word in words if word.strip()]
    if not names:
        raise InputError(f"--objectives: none is named; there are {', '.join(Aim)}")
    for name in names:
        if name not in list(Aim):
            raise not_one_of("--objectives", name, list(Aim))
    if len(set(names)) < len(names):
        raise InputError(f"--objectives: {', '.join(names)}: one is named twice")
    return tuple(map(Aim, names))


def _contexts(catalog: Catalog, plan: Plan, settings: TuningSettings) -> list[Context]:
    """Return the items that are tuned.

    Raises:
        InputError: There is no such item, or none at all; or the plan was edited to what cannot be.
    """
    count = len(plan.fleet)
    if not count:
        raise InputError("the plan has no fleet: it is infeasible, so there is nothing to tune")
    if settings.item is not None and settings.item > count:
        raise InputError(f"--item: {settings.item} is not possible: the fleet has {count} item{'s' * (count > 1)}")
    require_sound(plan)
    require_known(catalog, plan)
    if plan.usd_per_million_output_tokens is None:
        raise InputError(
            "usd_per_million_output_tokens: the plan states no price, which tuned settings are held against"
        )
    names = settings.knobs or tuple(
        name for name in KnobName if name is not KnobName.POWER_CAP or Aim.ENERGY in settings.objectives
    )
    asked = range(count) if settings.item is None else [settings.item - 1]
    numbers = [number for number in asked if plan.fleet[number].busiest_requests_per_s > 0.0]
    if not numbers:
        which = "the fleet" if settings.item is None else f"item {settings.item}"
        raise InputError(f"{which} serves no requests, so there is nothing to tune")
    return [
        Context(
            catalog=catalog,
            plan=plan,
            number=number,
            names=names,
            chosen=bool(settings.knobs),
            settings=settings,
        )
        for number in numbers
    ]


@contextlib.contextmanager
def _place(study: str | Path | None, name: str, jobs: int) -> Iterator[StudyPlace]:
    """Yield where trials are kept: for processes without a study, in a file for the time being."""
    if study is not None:
        yield study_place(str(study), name)
    elif jobs == 1:
        yield StudyPlace(name=name)
    else:
        with tempfile.TemporaryDirectory(prefix="tokopt-tune-") as folder:
            yield StudyPlace(path=Path(folder) / "study.journal", name=name)


@contextlib.contextmanager
def _pool(jobs: int) -> Iterator[Executor | None]:
    if jobs == 1:
        yield None
    else:
        with local_processes(jobs) as pool:
            yield pool


def _part(progress: Progress, start: float, end: float) -> Progress:
    return lambda doing, done: progress(doing, start + (end - start) * done)


# --- one item ---


def _tuned(search: Search, pool: Executor | None, jobs: int, progress: Progress) -> Result:
    """Search the settings of an item, and test what looks better than the planned ones."""
    first = _part(progress, 0.0, SEARCHING)
    if pool is None:
        run_here(search, first)
    else:
        run_apart(search, pool, jobs, first)
    rows = search.rows()
    aim = search.context.settings.objectives[0]
    with quiet():
        testing = Testing(search.context, search.knobs, search.study, pool)
        shares = iter(range(1 + FINALISTS))

        def told() -> Progress:
            n = next(shares)
            whole = 1.0 - SEARCHING
            return _part(
                progress, SEARCHING + whole * n / (1 + FINALISTS), SEARCHING + whole * (n + 1) / (1 + FINALISTS)
            )

        planned = testing.test(search.knobs.planned, _load(search, rows), "testing the planned settings", told())
        finalists, untested = _finalists(search, rows, planned)
        found, rejected = planned, list[Tested]()
        for number, row in enumerate(finalists, 1):
            assert row.place is not None and row.last is not None
            tested = testing.test(
                search.space.at(row.place),
                float(row.last.notes["load"]),
                f"testing settings {number} of {len(finalists)}",
                told(),
            )
            if is_better(aim, planned, tested) and not states_less(search, planned, tested.setup, low_load(tested)):
                found = tested
                break
            rejected.append(tested)
    return Result(search=search, rows=rows, planned=planned, tuned=found, rejected=tuple(rejected), untested=untested)


def _finalists(search: Search, rows: Sequence[TrialRow], tested: Tested) -> tuple[list[TrialRow], int]:
    """Return complete trials that were better than the planned settings, the best first, and how many are left out.

    Those are the ones of which a plan could only state less than the planned settings keep for sure.
    """
    goal, planned = search.task.goals[0], search.task.first[0]
    own = next((row.last.values[0] for row in rows if row.place == planned and row.last is not None), None)
    better = [
        row
        for row in rows
        if row.state == "complete"
        and row.place != planned
        and row.last is not None
        and row.last.notes["load"]
        and (own is None or goal.loss(row.last.values[0]) < goal.loss(own))
    ]
    allowed = []
    for row in better:
        setup = None if row.place is None else search.knobs.setup(search.space.at(row.place))
        if isinstance(setup, Setup) and not states_less(search, tested, setup, math.inf):
            allowed.append(row)
    best = sorted(allowed, key=lambda row: goal.loss(row.last.values[0]) if row.last else 0.0)[:FINALISTS]
    return best, len(better) - len(allowed)


def _load(search: Search, rows: Sequence[TrialRow]) -> float:
    """Return the highest load that the planned settings kept the limits at in the search."""
    planned = search.task.first[0]
    return next((float(row.last.notes["load"]) for row in rows if row.place == planned and row.last), 1.0)
