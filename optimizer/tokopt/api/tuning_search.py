"""The search of a tuning: an item's study, worked on here, in processes of our own, and by others elsewhere."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from tokopt.errors import InputError
from tokopt.search.knobs import KnobSpace, Place
from tokopt.search.studies import DIGEST, StudyPlace, Worker, opened, quiet, sampler_of, sign_in, sign_out
from tokopt.search.tuning import (
    Task,
    TrialRow,
    counting,
    rows_of,
    tried_places,
    wait_for_others,
    work,
)
from tokopt.version import __version__

from .progress import Progress
from .tuning_knobs import ItemKnobs
from .tuning_scores import RACE, Context, ItemScorer

if TYPE_CHECKING:
    from optuna import Study

NEIGHBOURS = 4  # of the planned settings, the best by the closed-form model, that are tried right after them
LOOK_S = 0.5  # between two looks at what processes do
KILLED = (
    "a process of the tuning was killed: is memory short? Finished trials are kept. With --jobs 1 (jobs=1) there "
    "are none; a script has to ask for more under if __name__ == '__main__':"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """An item's study, and what is to be done on it."""

    context: Context
    knobs: ItemKnobs
    place: StudyPlace
    study: Study
    task: Task
    resumed: bool

    @property
    def space(self) -> KnobSpace:
        """The settings that are searched."""
        return self.knobs.knobs

    def rows(self) -> list[TrialRow]:
        """Return the trials that count."""
        return rows_of(self.study, self.space)


def opened_search(context: Context, knobs: ItemKnobs, place: StudyPlace, deadline: float | None) -> Search:
    """Open the study of an item.

    Raises:
        InputError: It cannot be opened, or its trials are of something else.
    """
    study = _study(context, knobs, place)
    task = Task(
        space=knobs.knobs,
        goals=context.goals,
        race=RACE,
        trials=context.settings.trials,
        first=first_places(knobs),
        deadline=deadline,
    )
    return Search(context=context, knobs=knobs, place=place, study=study, task=task, resumed=bool(counting(study)))


def _study(context: Context, knobs: ItemKnobs, place: StudyPlace) -> Study:
    directions: list[Literal["minimize", "maximize"]] = [
        "maximize" if goal.maximise else "minimize" for goal in context.goals
    ]
    with quiet():
        return opened(place, directions, identity(context, knobs))


def identity(context: Context, knobs: ItemKnobs) -> dict[str, str]:
    """Return what the trials of an item are of, part by part: trials of two studies with the same are alike."""
    settings = context.settings
    values = repr([(knob.name, knob.values) for knob in knobs.knobs.knobs])
    return {
        "plan": _digest(context.plan.model_dump_json()),
        "item": str(context.number + 1),
        "catalog": f"{context.catalog.version} {context.catalog.calibration.version}",
        "version of tokopt": __version__,
        "set of knobs": ", ".join(knob.name for knob in knobs.knobs.knobs),
        "range of knobs": _digest(values),
        "list of objectives": ", ".join(settings.objectives),
        "length of simulations": f"{settings.requests:,} requests x {settings.replications}",
        "seed": f"seed {settings.seed}",
        "rule about the model": "simulator alone" if settings.simulator_alone else "limits kept by the model too",
    }


def _digest(text: str) -> str:
    return DIGEST + hashlib.sha256(text.encode()).hexdigest()[:16]


def first_places(knobs: ItemKnobs) -> tuple[Place, ...]:
    """Return what is tried first: the planned settings, and those beside them that the closed-form model likes best.

    Of each knob the best one other value, so that no knob crowds out the rest.
    """
    space = knobs.knobs
    planned = space.place(knobs.planned)
    best: dict[int, tuple[float, Place]] = {}
    for place in space.neighbours(planned):
        knob = next(k for k, (a, b) in enumerate(zip(planned, place, strict=True)) if a != b)
        setup = knobs.setup(space.at(place))
        rate = 0.0 if isinstance(setup, str) else setup.candidate.capacity_requests_per_s
        if rate > best.get(knob, (0.0, planned))[0]:
            best[knob] = rate, place
    ranked = sorted(best.values(), key=lambda pair: -pair[0])
    return (planned, *(place for _, place in ranked[:NEIGHBOURS]))


# --- running it ---


def run_here(search: Search, progress: Progress) -> None:
    """Make all trials in this process, and wait for those that others are making."""
    scorer = ItemScorer(search.context, search.knobs)
    with quiet():
        worker = sign_in(search.study, search.context.settings.seed)
        search.study.sampler = sampler_of(search.context.settings.sampler, seed_of(worker))
        teller = _Teller(search, progress)
        try:
            while True:
                work(search.study, scorer, search.task, worker, teller.tell)
                wait_for_others(search.study, search.task.deadline, teller.wait)
                if not _goes_on(search):
                    return
        finally:
            sign_out(search.study, worker)


def run_apart(search: Search, pool: Executor, jobs: int, progress: Progress) -> None:
    """Make all trials in processes, each with its own sampler.

    Raises:
        InputError: A process was killed.
    """
    with quiet():
        teller = _Teller(search, progress)
        while True:
            futures: set[Future[None]] = {
                pool.submit(_child, search.context, search.place, search.task, n) for n in range(jobs)
            }
            try:
                while futures:
                    done, futures = wait(futures, timeout=LOOK_S)
                    for future in done:
                        future.result()
                    teller.tell()
            except BrokenExecutor:
                raise InputError(KILLED) from None
            wait_for_others(search.study, search.task.deadline, teller.wait)
            if not _goes_on(search):
                return


def _child(context: Context, place: StudyPlace, task: Task, number: int) -> None:
    """Make trials in a process of its own."""
    knobs = context.knobs()
    study = _study(context, knobs, place)
    with quiet():
        worker = sign_in(study, context.settings.seed, child=number)
        study.sampler = sampler_of(context.settings.sampler, seed_of(worker))
        try:
            work(study, ItemScorer(context, knobs), task, worker)
        finally:
            sign_out(study, worker)


def _goes_on(search: Search) -> bool:
    """Whether trials are left to make: those of processes that died, and were to be made again."""
    over = search.task.deadline is not None and time.time() >= search.task.deadline
    waiting = any(trial.state.name == "WAITING" for trial in search.study.get_trials(deepcopy=False))
    return waiting and not over and len(counting(search.study)) < search.task.trials


def seed_of(worker: Worker) -> int:
    """Return the seed of a worker's sampler."""
    return int(np.random.SeedSequence(list(worker.seed)).generate_state(1)[0])


def why_stopped_early(search: Search, rows: Sequence[TrialRow]) -> str:
    """Return why there are fewer trials than were asked for; empty = there are not."""
    if len(rows) >= search.task.trials:
        return ""
    if exhausted(search):
        return f"all {search.space.size:,} settings of item {search.context.number + 1} were tried"
    if search.task.deadline is not None and time.time() >= search.task.deadline:
        return f"the time was up after {len(rows):,} of {search.task.trials:,} trials"
    return f"{len(rows):,} of {search.task.trials:,} trials were made: no other settings were found that are allowed"


def exhausted(search: Search) -> bool:
    """Whether every setting was tried."""
    return len(tried_places(search.study, search.space)) >= search.space.size


class _Teller:
    """Tells how far a search is, how long the rest takes, and what is best so far."""

    def __init__(self, search: Search, progress: Progress) -> None:
        self._search, self._progress = search, progress
        self._began, self._before = time.monotonic(), len(counting(search.study))
        self.tell()

    def tell(self) -> None:
        """Tell what has changed."""
        rows = self._search.rows()
        done, most = len(rows), self._search.task.trials
        spent, made = time.monotonic() - self._began, done - self._before
        left = f", {spent / made * (most - done):,.0f} s left" if made > 0 and done < most else ""
        self._progress(f"trial {min(done + 1, most)} of {most}{self._best(rows)}{left}", min(done / most, 1.0))

    def wait(self, others: int) -> None:
        """Tell that others are still at it."""
        self._progress(f"waiting for {others} trial{'s' * (others > 1)} of other processes", 1.0)

    def _best(self, rows: Sequence[TrialRow]) -> str:
        goal, planned = self._search.task.goals[0], self._search.task.first[0]
        known = [(row.last.values[0], row.place) for row in rows if row.last is not None and row.state == "complete"]
        own = next((value for value, place in known if place == planned), None)
        if not known:
            return ""
        best = (max if goal.maximise else min)(value for value, _ in known)
        said = f": best {goal.name} {best:.4g}"
        return f"{said} (planned {own:.4g})" if own is not None else said
