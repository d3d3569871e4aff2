"""Tuning: Optuna proposes settings, a scoring function that is handed in says what they do, look by look.

A study may be worked on by many processes and machines at a time, be interrupted, and go on later. What counts as a
trial is decided from the study alone, so that all of them agree.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from tokopt.search import studies
from tokopt.search.knobs import KnobSpace, Place, Value
from tokopt.search.racing import Goal, Race, front, gap_of, why_stopped
from tokopt.search.studies import ALIVE, CONSTRAINTS, VOID, Worker, abandoned, alive_now, has_constraints

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

SEEDED = "tokopt:seeded"
REASON, RUNG, SETTINGS, REFUSED = "reason", "rung", "settings", "refused"
REFUSAL, LEAST_GAP = 10.0, 1e-3  # as constraints: settings that are refused, and those that are stopped
IDLE = 5  # proposals in a row that were tried before or are refused, after which something else is taken
LISTED = 20_000  # settings that are listed one by one to find what is untried
DRAWS = 500  # of what is untried, at random, to find something that is not refused
BEAT_S = 30.0  # between signs of life
FAILURES = 3  # in a row without one success: then it is the scoring function that fails
CHOICE_S = 5.0  # that choosing settings takes at most
WAIT_S = 0.2  # between two looks at what others are doing


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """What settings do: a figure for each goal, what limits are broken by (positive), and what is worth keeping."""

    values: tuple[float, ...]
    broken: Mapping[str, float] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)  # as JSON takes it


class Scorer(Protocol):
    """Says what settings do."""

    def refused(self, settings: Mapping[str, Value], beat: Callable[[], None], /) -> str:
        """Return why settings are not worth a look, without one; empty = they are."""

    def __call__(
        self, settings: Mapping[str, Value], rung: int, before: Scored | None, beat: Callable[[], None], /
    ) -> Scored:
        """Return what settings do in a look of a rung's length.

        Args:
            settings: A value for each knob.
            rung: Length of the look: 0 is the shortest.
            before: What the look before found.
            beat: To be called every now and then; it raises an exception that must be let through.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a process does on a study."""

    space: KnobSpace
    goals: tuple[Goal, ...]
    race: Race
    trials: int  # of the study in all
    first: tuple[Place, ...] = ()  # tried before anything else
    deadline: float | None = None  # by `time.time()`


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRow:
    """A trial as a study has it."""

    number: int
    state: str  # complete, pruned, failed, running or waiting
    place: Place | None
    reason: str
    looks: tuple[Scored, ...]
    worker: str

    @property
    def last(self) -> Scored | None:
        """What its longest look found."""
        return self.looks[-1] if self.looks else None


class _TimeIsUpError(Exception):
    """Raised out of a scoring function when the time for the search is over."""


def work(study: Study, scorer: Scorer, task: Task, worker: Worker, told: Callable[[], None] = lambda: None) -> None:
    """Make trials until the study has as many as it is to have, all settings are tried, or time is up.

    An interrupt from the keyboard ends the trial in progress, which is tried again by whoever goes on.

    Raises:
        Exception: What a scoring function raised that has never succeeded.
    """
    _Maker(study, scorer, task, worker, told).run()


class _Maker:
    """Makes one trial after another."""

    def __init__(self, study: Study, scorer: Scorer, task: Task, worker: Worker, told: Callable[[], None]) -> None:
        self._study, self._scorer, self._task, self._worker, self._told = study, scorer, task, worker, told
        self._random = random.Random(repr(worker.seed))
        self._refused: dict[Place, str] = {}  # what is known of places
        self._beaten = 0.0
        self._failures = 0

    def run(self) -> None:
        """Make trials until there is a reason to stop."""
        give_up_abandoned(self._study)
        _seed(self._study, self._task)
        idle = 0
        while not self._over() and len(counting(self._study)) < self._task.trials:
            if idle >= IDLE:
                place = self._untried()
                if place is None:
                    return
                self._study.enqueue_trial(self._task.space.params(place))
            idle = 0 if self._made(self._study.ask()) else idle + 1
            self._told()

    def _over(self) -> bool:
        return self._task.deadline is not None and time.time() >= self._task.deadline

    def _made(self, trial: Trial) -> bool:
        """Make one trial; whether it was worth a look."""
        space = self._task.space
        trial.set_user_attr(ALIVE, alive_now(self._worker.key))
        params = {name: _suggested(trial, name, distribution) for name, distribution in space.distributions().items()}
        place = space.place_of(params)
        assert place is not None
        why = _void(self._study, trial.number, place, space, self._task.trials)
        if why:
            _end(self._study, trial, "FAIL", {VOID: why})
            return False
        trial.set_user_attr(SETTINGS, space.at(place))
        self._beaten = time.monotonic()
        try:
            why = self._refusal(place, lambda: self._beat(trial))
            if why:
                _constrain(trial, REFUSAL)
                _end(self._study, trial, "PRUNED", {REASON: why, REFUSED: True})
                return False
            self._race(trial, place)
        except _TimeIsUpError:
            self._again(trial, place, "the time for the search was up")
        except KeyboardInterrupt:
            self._again(trial, place, "it was interrupted")
            raise
        except Exception as error:
            _end(self._study, trial, "FAIL", {REASON: f"{type(error).__name__}: {error}"})
            self._failures += 1
            if self._failures >= FAILURES and not any(row.state == "complete" for row in rows_of(self._study, space)):
                raise
        return True

    def _again(self, trial: Trial, place: Place, why: str) -> None:
        """End a trial that does not count, and have its settings tried by whoever goes on."""
        _end(self._study, trial, "FAIL", {VOID: why})
        self._study.enqueue_trial(self._task.space.params(place))

    def _race(self, trial: Trial, place: Place) -> None:
        """Look at settings longer and longer, as long as they are worth it."""
        task, scored = self._task, None
        for rung in range(task.race.rungs):
            found = self._scorer(task.space.at(place), rung, scored, lambda: self._beat(trial))
            scored = found
            trial.set_user_attr(f"{RUNG}{rung}", _kept(found))
            if len(task.goals) == 1:
                trial.report(found.values[0], rung)
            if rung + 1 == task.race.rungs:
                break
            others = [
                row.looks[rung].values
                for row in rows_of(self._study, task.space)
                if row.number != trial.number and len(row.looks) > rung
            ]
            why = "" if place in task.first[:1] else why_stopped(found.values, others, task.goals, task.race, rung)
            if why:
                _constrain(trial, max(_worst(found), gap_of(found.values, others, task.goals), LEAST_GAP))
                _end(self._study, trial, "PRUNED", {REASON: why})
                return
        assert scored is not None
        _constrain(trial, _worst(scored))
        _end(self._study, trial, "COMPLETE", {}, scored.values)

    def _beat(self, trial: Trial) -> None:
        """Give a sign of life, and stop where the time is up."""
        if self._over():
            raise _TimeIsUpError
        now = time.monotonic()
        if now - self._beaten >= BEAT_S:
            self._beaten = now
            trial.set_user_attr(ALIVE, alive_now(self._worker.key))

    def _untried(self) -> Place | None:
        """Return settings that nobody has tried or is trying, at random; None if none are found that are allowed."""
        space = self._task.space
        tried = tried_places(self._study, space)
        if space.size <= LISTED:
            left = [place for place in space.every() if place not in tried]
            draws = self._random.sample(left, min(DRAWS, len(left)))
        else:
            draws = [space.numbered(self._random.randrange(space.size)) for _ in range(DRAWS)]
        for place in draws:
            if self._over():
                return None
            if place not in tried and not self._refusal(place, lambda: None):
                return place
        return None

    def _refusal(self, place: Place, beat: Callable[[], None]) -> str:
        """Return why a place is refused; empty = it is not."""
        if place not in self._refused:
            allowed = place in self._task.first[:1]
            self._refused[place] = "" if allowed else self._scorer.refused(self._task.space.at(place), beat)
        return self._refused[place]


def _suggested(trial: Trial, name: str, distribution: Any) -> int:
    from optuna.distributions import IntDistribution

    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(name, distribution.low, distribution.high)
    return int(trial.suggest_categorical(name, distribution.choices))


def _seed(study: Study, task: Task) -> None:
    """Have the first settings tried, unless somebody has seen to it."""
    if study.user_attrs.get(SEEDED):
        return
    study.set_user_attr(SEEDED, True)
    for place in task.first:
        study.enqueue_trial(task.space.params(place))


def _void(study: Study, number: int, place: Place, space: KnobSpace, most: int) -> str:
    """Return why a trial does not count; empty = it does.

    Of two with the same settings, the one with the lower number counts: trials that were begun before this one are
    waited for until they have chosen theirs, as customers with lower tickets are (Lamport's bakery algorithm).
    """
    _wait_for_choices(study, number, space)
    counted = counting(study)
    if len(counted) > most and sum(trial.number < number for trial in counted) >= most:
        return "others had made all trials that were asked for"
    for trial in study.get_trials(deepcopy=False):
        same = trial.number != number and VOID not in trial.user_attrs and _chosen(trial, space) == place
        if same and (trial.number < number or trial.state.is_finished()):
            return f"the same settings as in trial {trial.number}"
    return ""


def _chosen(trial: FrozenTrial, space: KnobSpace) -> Place | None:
    """Return the settings of a trial, also of one that waits to be made; None where it has not chosen yet."""
    return space.place_of(trial.system_attrs.get("fixed_params") or trial.params)


def _wait_for_choices(study: Study, number: int, space: KnobSpace) -> None:
    """Wait until all trials in progress with lower numbers have chosen their settings, or their processes are gone."""
    deadline = time.monotonic() + CHOICE_S
    while time.monotonic() < deadline:
        if not any(
            trial.state.name == "RUNNING" and _chosen(trial, space) is None
            for trial in study.get_trials(deepcopy=False)[:number]
        ):
            return
        time.sleep(0.01)


def _end(
    study: Study, trial: Trial, state: str, said: Mapping[str, Any], values: Sequence[float] | None = None
) -> None:
    """End a trial; nothing happens where another process took this one for dead and has ended it."""
    from optuna.trial import TrialState

    try:
        for name, value in said.items():
            trial.set_user_attr(name, value)
        study.tell(trial, values, TrialState[state])
    except (ValueError, RuntimeError):
        if not study.get_trials(deepcopy=False)[trial.number].state.is_finished():
            raise


def _worst(found: Scored) -> float:
    """Return by how much the condition that is broken most is broken; negative = none is."""
    return max(found.broken.values(), default=-1.0)


def _constrain(trial: Trial, broken: float) -> None:
    """Tell the sampler how far a trial is from being of use: by a broken condition, or by how far it was behind."""
    if has_constraints():
        trial.set_constraint("broken", broken)
    else:
        trial.set_user_attr(CONSTRAINTS, [broken])


def give_up_abandoned(study: Study) -> None:
    """End the trials whose processes are gone, and have their settings tried again."""
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if not abandoned(trial):
            continue
        try:
            study._storage.set_trial_user_attr(trial._trial_id, VOID, "its process ended before it did")
            study.tell(trial.number, state=TrialState.FAIL)
        except (ValueError, RuntimeError):
            continue  # somebody else was faster
        if trial.params:
            study.enqueue_trial(dict(trial.params))


# --- reading a study ---


def _begun(study: Study) -> list[FrozenTrial]:
    """Return the trials that somebody is at or has ended, but for those that are void."""
    return [
        trial
        for trial in study.get_trials(deepcopy=False)
        if trial.state.name != "WAITING" and VOID not in trial.user_attrs
    ]


def counting(study: Study) -> list[FrozenTrial]:
    """Return the trials that count: finished ones, and those that a process is at. Nobody looked at refused ones."""
    return [trial for trial in _begun(study) if REFUSED not in trial.user_attrs]


def refusals(study: Study) -> dict[str, int]:
    """Return why proposals were refused without a look, and how often."""
    reasons = [str(trial.user_attrs[REASON]) for trial in _begun(study) if REFUSED in trial.user_attrs]
    return {why: reasons.count(why) for why in dict.fromkeys(reasons)}


def tried_places(study: Study, space: KnobSpace) -> set[Place]:
    """Return the places that were looked at or refused, or are being looked at."""
    places = (space.place_of(trial.params) for trial in _begun(study))
    return {place for place in places if place is not None}


def repeats(study: Study) -> int:
    """Return how many proposals had been tried before."""
    return sum("same settings" in trial.user_attrs.get(VOID, "") for trial in study.get_trials(deepcopy=False))


def rows_of(study: Study, space: KnobSpace) -> list[TrialRow]:
    """Return the trials that count, in the order in which they were begun."""
    found = []
    for trial in counting(study):
        looks: list[Scored] = []
        while (kept := trial.user_attrs.get(f"{RUNG}{len(looks)}")) is not None:
            looks.append(Scored(values=tuple(kept["values"]), broken=kept["broken"], notes=kept["notes"]))
        state = {"FAIL": "failed"}.get(trial.state.name, trial.state.name.lower())
        found.append(
            TrialRow(
                number=trial.number,
                state=state,
                place=space.place_of(trial.params),
                reason=str(trial.user_attrs.get(REASON, "")),
                looks=tuple(looks),
                worker=str(trial.user_attrs.get(ALIVE, [""])[0]),
            )
        )
    return found


def _kept(found: Scored) -> dict[str, Any]:
    return {"values": list(found.values), "broken": dict(found.broken), "notes": dict(found.notes)}


def on_front(rows: Sequence[TrialRow], goals: Sequence[Goal]) -> list[TrialRow]:
    """Return the complete trials that break no limit and that no other of them is better than in all goals."""
    sound = [
        row
        for row in rows
        if row.state == "complete" and row.last and max(row.last.broken.values(), default=0.0) <= 0.0
    ]
    losses = [
        [goal.loss(value) for goal, value in zip(goals, row.last.values, strict=True)] for row in sound if row.last
    ]
    return [row for row, kept in zip(sound, front(losses), strict=True) if kept]


def wait_for_others(study: Study, deadline: float | None = None, told: Callable[[int], None] | None = None) -> None:
    """Wait until no trial is in progress that its process may still end."""
    from optuna.trial import TrialState

    while deadline is None or time.time() < deadline:
        give_up_abandoned(study)
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        if not running:
            return
        if told is not None:
            told(len(running))
        time.sleep(WAIT_S)


def importances(rows: Sequence[TrialRow], space: KnobSpace, goal: Goal) -> dict[str, float]:
    """Return how much each knob explains of the first goal, from the first looks of all trials.

    PED-ANOVA (Watanabe et al., IJCAI 2023): how unlike its values are among the best trials and among all. Empty where
    there is too little to tell, or nothing differs.
    """
    import optuna

    known = [(row.place, row.looks[0].values[0]) for row in rows if row.place is not None and row.looks]
    if len(known) < max(8, 2 * len(space.knobs)) or len({value for _, value in known}) < 3:
        return {}
    with studies.quiet():
        study = optuna.create_study(direction="maximize" if goal.maximise else "minimize")
        distributions = space.distributions()
        for place, value in known:
            params = space.params(place)
            study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=value))
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: float(share) for name, share in found.items()}
