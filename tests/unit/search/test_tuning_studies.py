"""Studies of a tuner: racing, repeats, resuming, interrupts, several processes, and seeds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tokopt.domain.tuning import Sampler
from tokopt.errors import InputError
from tokopt.search import studies, tuning
from tokopt.search.knobs import Knob, KnobSpace, Place, Value
from tokopt.search.racing import Goal, Race, dominates, front, why_stopped
from tokopt.search.tuning import Scored, Task, rows_of, work

SPACE = KnobSpace(
    (
        Knob(name="batch", values=tuple(range(1, 13))),
        Knob(name="chunk", values=(512, 1024, 2048, 4096)),
        Knob(name="router", values=("random", "least_loaded"), ordered=False),
    )
)
GOALS = (Goal(name="cost"), Goal(name="goodput", maximise=True))
RACE = Race(noise=(0.05, 0.0))
PLANNED: Place = (3, 1, 0)


class Bowl:
    """Costs that are least at batch 8, chunk 2048 and the better router; a cheap stand-in for a simulator."""

    def __init__(self) -> None:
        self.looks: list[tuple[Place, int]] = []
        self.during: Callable[[int], None] = lambda _: None

    def refused(self, settings: Mapping[str, Value], beat: Callable[[], None], /) -> str:
        return "does not fit" if settings["batch"] == 12 else ""

    def __call__(
        self, settings: Mapping[str, Value], rung: int, before: Scored | None, beat: Callable[[], None], /
    ) -> Scored:
        place = SPACE.place(settings)
        assert (before is None) == (rung == 0)
        self.looks.append((place, rung))
        self.during(len(self.looks))
        beat()
        cost = 1.0 + 0.02 * (place[0] - 7) ** 2 + 0.05 * abs(place[1] - 2) + 0.1 * (place[2] == 0)
        return Scored(values=(cost, 1.0 / cost), broken={"limits": cost - 1.5}, notes={"cost": cost})


def task(trials: int = 20, **changes: object) -> Task:
    return Task(**{"space": SPACE, "goals": GOALS, "race": RACE, "trials": trials, "first": (PLANNED,)} | changes)  # type: ignore[arg-type]


def opened(place: studies.StudyPlace, identity: Mapping[str, str] | None = None):
    return studies.opened(place, ["minimize", "maximize"], identity or {"plan": "#one"})


def ran(
    place: studies.StudyPlace, what: Task, scorer: Bowl | None = None, seed: int = 0, sampler: Sampler = Sampler.TPE
):
    with studies.quiet():
        study = opened(place)
        worker = studies.sign_in(study, seed)
        study.sampler = studies.sampler_of(sampler, abs(hash(worker.seed)) % 2**31)
        try:
            work(study, scorer or Bowl(), what, worker)
        finally:
            studies.sign_out(study, worker)
    return study


@pytest.fixture
def journal(tmp_path: Path) -> studies.StudyPlace:
    return studies.StudyPlace(path=tmp_path / "study.journal")


MEMORY = studies.StudyPlace()


# --- spaces and races ---


def test_every_place_of_a_space_has_its_settings_and_number() -> None:
    places = list(SPACE.every())
    assert len(set(places)) == len(places) == SPACE.size == 96
    assert all(SPACE.place(SPACE.at(place)) == place for place in places)
    assert all(SPACE.place_of(SPACE.params(place)) == place for place in places)
    near = list(SPACE.neighbours(PLANNED))
    assert len(near) == 11 + 3 + 1
    assert all(sum(a != b for a, b in zip(PLANNED, place, strict=True)) == 1 for place in near)


def test_front_is_what_nothing_dominates() -> None:
    rows = [(1.0, 5.0), (2.0, 4.0), (2.0, 5.0), (3.0, 3.0), (1.0, 5.0)]
    brute = [not any(dominates(other, row) for other in rows) for row in rows]
    assert front(rows) == brute == [True, True, False, True, True]
    assert front([]) == []


@pytest.mark.parametrize(
    ("own", "stops"),
    [
        ((1.04, 0.9), False),  # within noise of the best
        ((1.10, 0.9), True),  # dominated
        ((1.10, 0.99), False),  # better in something else, and within reach
        ((1.20, 0.99), True),  # out of reach whatever else
        ((0.90, 0.1), False),
    ],
)
def test_a_race_stops_what_is_behind(own: tuple[float, float], stops: bool) -> None:
    others = [(1.0, 0.95), (1.05, 0.95)]
    assert bool(why_stopped(own, others, GOALS, RACE, 0)) == stops
    assert why_stopped(own, [], GOALS, RACE, 0) == ""


def test_what_does_the_same_as_another_is_stopped() -> None:
    assert "the same" in why_stopped((1.0, 0.9), [(1.0, 0.9), (2.0, 0.1)], GOALS, RACE, 0)


# --- one process ---


def test_the_planned_settings_are_first_and_looked_at_to_the_end() -> None:
    rows = rows_of(ran(MEMORY, task()), SPACE)
    assert rows[0].place == PLANNED
    assert rows[0].state == "complete"
    assert len(rows[0].looks) == RACE.rungs


def test_trials_are_as_many_as_asked_for_and_all_different() -> None:
    scorer = Bowl()
    rows = rows_of(ran(MEMORY, task(30), scorer), SPACE)
    assert len(rows) == 30
    assert len({row.place for row in rows}) == 30
    assert {row.state for row in rows} == {"complete", "pruned"}
    assert all(row.reason for row in rows if row.state == "pruned")
    assert len(scorer.looks) == sum(len(row.looks) for row in rows) < 60  # fewer than without pruning
    assert min(row.last.values[0] for row in rows if row.last) < 1.1


def test_what_is_refused_is_not_looked_at_and_does_not_count() -> None:
    scorer = Bowl()
    study = ran(MEMORY, task(88), scorer)
    assert not any(place[0] == 11 for place, _ in scorer.looks)
    assert len(rows_of(study, SPACE)) == 88 == SPACE.size - 8
    assert set(tuning.refusals(study)) == {"does not fit"}


def test_a_space_that_is_tried_whole_ends_the_search() -> None:
    small = KnobSpace((Knob(name="batch", values=(1, 2, 3)),))

    class Line(Bowl):
        def __call__(self, settings, rung, before, beat, /) -> Scored:
            return Scored(values=(float(settings["batch"]), 1.0))

        def refused(self, settings, beat, /) -> str:
            return ""

    study = ran(MEMORY, task(50, space=small, first=((1,),)), Line())
    assert sorted(row.place for row in rows_of(study, small) if row.place) == [(0,), (1,), (2,)]
    assert tuning.tried_places(study, small) == set(small.every())


@pytest.mark.parametrize("sampler", list(Sampler))
def test_equal_seeds_make_equal_studies(sampler: Sampler) -> None:
    def run(seed: int) -> list[Place | None]:
        return [row.place for row in rows_of(ran(MEMORY, task(25), seed=seed, sampler=sampler), SPACE)]

    assert run(1) == run(1) != run(2)


def test_one_goal_alone_is_raced_too() -> None:
    class Single(Bowl):
        def __call__(self, settings, rung, before, beat, /) -> Scored:
            found = super().__call__(settings, rung, before, beat)
            return Scored(values=found.values[:1], broken=found.broken)

    with studies.quiet():
        study = studies.opened(MEMORY, ["minimize"], {"plan": "one"})
        worker = studies.sign_in(study, 0)
        study.sampler = studies.sampler_of(Sampler.TPE, 0)
        work(study, Single(), task(20, goals=GOALS[:1]), worker)
    rows = rows_of(study, SPACE)
    assert len(rows) == 20
    assert {row.state for row in rows} == {"complete", "pruned"}


def test_the_front_leaves_out_what_breaks_a_limit() -> None:
    rows = rows_of(ran(MEMORY, task(30)), SPACE)
    found = tuning.on_front(rows, GOALS)
    assert found
    assert all(row.last and row.last.broken["limits"] <= 0.0 for row in found)


def test_importance_finds_the_knob_that_matters() -> None:
    rows = rows_of(ran(MEMORY, task(60)), SPACE)
    found = tuning.importances(rows, SPACE, GOALS[0])
    assert sum(found.values()) == pytest.approx(1.0)
    assert max(found, key=lambda name: found[name]) == "batch"
    assert tuning.importances(rows[:3], SPACE, GOALS[0]) == {}


# --- interrupted and resumed ---


def test_a_second_call_goes_on_where_the_first_ended(journal: studies.StudyPlace) -> None:
    ran(journal, task(10))
    before = {row.number: row.place for row in rows_of(opened(journal), SPACE)}
    after = {row.number: row.place for row in rows_of(ran(journal, task(25)), SPACE)}
    assert len(after) == 25
    assert before.items() <= after.items()
    assert len(set(after.values())) == 25
    again = Bowl()
    ran(journal, task(25), again)
    assert not again.looks


def test_an_interrupt_keeps_what_is_finished_and_loses_no_settings(journal: studies.StudyPlace) -> None:
    scorer = Bowl()

    def stop(looks: int) -> None:
        if looks == 9:
            raise KeyboardInterrupt

    scorer.during = stop
    with pytest.raises(KeyboardInterrupt):
        ran(journal, task(20), scorer)
    kept = rows_of(opened(journal), SPACE)
    cut = scorer.looks[-1][0]
    assert kept
    assert cut not in {row.place for row in kept}
    assert {row.state for row in kept} <= {"complete", "pruned"}
    rows = rows_of(ran(journal, task(20)), SPACE)
    assert len(rows) == 20
    assert cut in {row.place for row in rows}  # made again


def test_time_that_is_up_ends_a_trial_in_progress(journal: studies.StudyPlace) -> None:
    scorer = Bowl()

    def slow(looks: int) -> None:
        if looks == 5:
            time.sleep(0.3)

    scorer.during = slow
    rows = rows_of(ran(journal, task(20, deadline=time.time() + 0.25), scorer), SPACE)
    assert len(rows) < 20
    assert len(rows_of(ran(journal, task(20)), SPACE)) == 20


def test_a_scoring_function_that_fails_is_told_of_and_survived() -> None:
    scorer = Bowl()

    def fail(looks: int) -> None:
        if looks == 4:
            raise RuntimeError("boom")

    scorer.during = fail
    rows = rows_of(ran(MEMORY, task(15), scorer), SPACE)
    failed = [row for row in rows if row.state == "failed"]
    assert len(rows) == 15
    assert [row.reason for row in failed] == ["RuntimeError: boom"]


def test_a_scoring_function_that_always_fails_is_a_defect() -> None:
    scorer = Bowl()

    def fail(looks: int) -> None:
        raise RuntimeError("boom")

    scorer.during = fail
    with pytest.raises(RuntimeError, match="boom"):
        ran(MEMORY, task(15), scorer)


def test_a_study_of_something_else_is_refused_in_one_line(journal: studies.StudyPlace) -> None:
    ran(journal, task(3))
    with pytest.raises(InputError, match=r"study.journal: its trials are of another plan; give another file") as error:
        opened(journal, {"plan": "#two"})
    assert "\n" not in str(error.value)
    beside = studies.StudyPlace(path=journal.path, name="beside")
    studies.opened(beside, ["minimize"], {"seed": "seed 1"})
    with pytest.raises(InputError, match=r"another seed \(seed 1; asked for: seed 2\)"):
        studies.opened(beside, ["minimize"], {"seed": "seed 2"})


# --- several processes ---

WORKER = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_tuning_studies as t
scorer = t.Bowl()
def during(looks):
    if looks == int(sys.argv[3]):
        print("there", flush=True)
        time.sleep(60)
    time.sleep(0.02)
scorer.during = during
place = t.studies.study_place(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
t.ran(place, t.task(int(sys.argv[2])), scorer)
print(len(scorer.looks), flush=True)
"""


def begun(place: str, trials: int, until: int = 0) -> subprocess.Popen[str]:
    code = WORKER.format(tests=str(Path(__file__).parent))
    return subprocess.Popen(
        [sys.executable, "-c", code, place, str(trials), str(until)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def go(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()


@pytest.mark.parametrize(("where", "trials"), [("{}/study.journal", 24), ("sqlite:///{}/study.db", 12)])
def test_two_processes_share_a_study(tmp_path: Path, where: str, trials: int) -> None:
    place = where.format(tmp_path)
    processes = begun(place, trials), begun(place, trials)
    go(*processes)
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert int(out) > 0  # each has made some
    study = opened(studies.study_place(place))
    rows = rows_of(study, SPACE)
    assert len(rows) == trials  # none lost, none too many
    assert len({row.place for row in rows}) == trials  # none doubled
    assert {row.state for row in rows} <= {"complete", "pruned"}
    workers = studies.workers_of(study)
    assert len(workers) == 2
    assert len({worker.seed for worker in workers}) == 2
    assert {row.worker for row in rows} == {worker.key for worker in workers}


def test_trials_of_a_process_that_was_killed_are_made_again(tmp_path: Path) -> None:
    place = f"{tmp_path}/study.journal"
    victim = begun(place, 30, until=9)
    go(victim)
    assert victim.stdout is not None
    assert victim.stdout.readline() == "there\n"
    os.kill(victim.pid, signal.SIGKILL)
    victim.wait()
    before = rows_of(opened(studies.study_place(place)), SPACE)
    (cut,) = (row for row in before if row.state == "running")
    finished = len(before) - 1
    rows = rows_of(ran(studies.study_place(place), task(finished + 5)), SPACE)
    assert len(rows) == finished + 5
    assert not any(row.state == "running" for row in rows)
    assert cut.place in {row.place for row in rows}
    assert len({row.place for row in rows}) == len(rows)


# --- places that will not do ---


def test_passwords_are_not_shown() -> None:
    place = studies.study_place("postgresql://me:secret@db.example:5432/tune")
    assert str(place) == "postgresql://me:***@db.example:5432/tune"
    assert studies.hidden("sqlite:///a.db") == "sqlite:///a.db"


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("{}", "is a directory"),
        ("{}/none/study.journal", "there is no directory"),
        ("{}/plan.json", "is not the journal of a study"),
        ("{}/flat.json", "is not the journal of a study"),
        ("nonsense://host/db", "nonsense"),
        ("postgresql://me:secret@localhost:1/db", "pip install psycopg2-binary"),
        ("mysql://me:secret@localhost:1/db", "pip install mysqlclient"),
        ("sqlite:////nowhere/at/all.db", "unable to open"),
    ],
)
def test_a_place_that_will_not_do_is_one_clear_line(tmp_path: Path, where: str, said: str) -> None:
    (tmp_path / "plan.json").write_text(json.dumps({"status": "optimal", "fleet": []}, indent=2))
    (tmp_path / "flat.json").write_text('{"a": 1}\n')
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(InputError) as error, studies.quiet():
        opened(studies.study_place(where.format(tmp_path)))
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert "secret" not in str(error.value)
    assert before == {file.name: file.read_bytes() for file in tmp_path.iterdir()}
