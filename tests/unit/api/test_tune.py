"""`tokopt.tune` from end to end: with a stand-in for the simulator, whose truth is known, and with the simulator."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest

import tokopt
from tokopt.api import tuning, tuning_scores
from tokopt.api.tuning import settings_of
from tokopt.api.tuning_looks import Length
from tokopt.api.tuning_scores import Figures, ItemFigures
from tokopt.catalog import Catalog
from tokopt.domain.plans import Plan
from tokopt.domain.tuning import Aim, Tuning
from tokopt.errors import InputError

SMALL: dict[str, Any] = {
    "model": "llama-3.1-70b",
    "gpus": "h100_sxm",
    "sla": "tpot=15ms,ttft=2s",
    "workload": "chat",
    "frameworks": "vllm",
    "modes": "agg",
    "precisions": "fp8",
    "kv_precisions": "fp8",
}
Truth = Callable[[dict[str, Any]], float]
FAST: dict[str, Any] = {"trials": 12, "requests": 200, "replications": 4, "simulator_alone": True}


@pytest.fixture(scope="module")
def plan(catalog: Catalog) -> Plan:
    return tokopt.plan(catalog=catalog, power="60kW", **SMALL)


@pytest.fixture(scope="module")
def demand(catalog: Catalog) -> Plan:
    return tokopt.plan(catalog=catalog, demand="12req/s", **SMALL)


def stand_in(monkeypatch: pytest.MonkeyPatch, truth: Truth, noise: float = 0.0) -> list[Any]:
    """Make up figures instead of simulating: the load that settings keep, off by chance; returns what was asked for."""
    asked: list[Any] = []

    def of(self: ItemFigures, setup: Any, length: Length, *, seed: int, replication: int, beat: Any, **_: Any) -> Any:
        beat()
        asked.append((setup.settings, seed, replication))
        own = random.Random(f"{seed} {replication} {sorted(setup.settings.items())}")
        load = truth(dict(setup.settings)) * (1.0 + noise * own.gauss(0.0, 1.0))
        values = {
            Aim.COST: self.usd_per_million(load),
            Aim.GOODPUT: min(load, 1.0),
            Aim.P99: 1.0 / load,
            Aim.ENERGY: 2.0 - load,
        }
        return Figures(load=load, values=values, p99_ms={"ttft": 900.0, "tpot": 12.0}, requests=100, missed="")

    monkeypatch.setattr(ItemFigures, "of", of)
    return asked


def planned_chunk(plan: Plan) -> int:
    return plan.fleet[0].deployment.chunk_tokens


# --- never worse ---


def test_what_is_better_is_found_and_how_much(monkeypatch: pytest.MonkeyPatch, catalog: Catalog, plan: Plan) -> None:
    own = planned_chunk(plan)
    stand_in(monkeypatch, lambda s: 0.9 if s["chunk"] == own else 0.99, noise=0.01)
    found = tokopt.tune(plan, catalog=catalog, knobs="chunk", **FAST)
    (item,) = found.items
    assert found.improved and item.improved
    assert item.gain.value == pytest.approx(0.1, abs=0.03)
    assert item.gain.plus_minus is not None and 0.0 < item.gain.plus_minus < item.gain.value
    assert found.usd_per_million_output_tokens < found.usd_per_million_output_tokens_before
    assert found.tuned_plan.fleet[0].deployment.chunk_tokens == item.tuned.settings.chunk_tokens != own
    assert item.exhausted and "were tried" in found.stopped_early


def test_nothing_that_is_worse_is_returned(monkeypatch: pytest.MonkeyPatch, catalog: Catalog, plan: Plan) -> None:
    own = planned_chunk(plan)
    stand_in(monkeypatch, lambda s: 1.0 if s["chunk"] == own else 0.8)
    found = tokopt.tune(plan, catalog=catalog, **FAST)
    assert not found.improved
    assert found.tuned_plan == plan
    assert found.items[0].tuned == found.items[0].planned
    assert found.items[0].gain.value == 0.0


def test_what_is_better_by_chance_is_not_returned(
    monkeypatch: pytest.MonkeyPatch, catalog: Catalog, plan: Plan
) -> None:
    stand_in(monkeypatch, lambda _: 1.0, noise=0.05)
    wrong = 0
    for seed in range(12):
        found = tokopt.tune(plan, catalog=catalog, knobs="chunk,router", seed=seed, **FAST)
        wrong += found.improved
        # The search had something that looked better.
        assert found.improved or found.items[0].rejected
    assert wrong <= 2  # one of twenty may be wrong


def test_tests_are_on_requests_that_no_trial_has_seen(
    monkeypatch: pytest.MonkeyPatch, catalog: Catalog, plan: Plan
) -> None:
    asked = stand_in(monkeypatch, lambda s: 1.0 + s["chunk"] / 1e6, noise=0.0)
    found = tokopt.tune(plan, catalog=catalog, knobs="chunk", seed=5, **FAST)
    searched = {seed for _, seed, _ in asked} - set(found.study.test_seeds)
    assert searched == set(found.study.search_seeds) == {5}
    assert {replication for _, seed, replication in asked if seed in found.study.test_seeds} == {0, 1, 2, 3}


def test_another_first_objective_decides(monkeypatch: pytest.MonkeyPatch, catalog: Catalog, plan: Plan) -> None:
    own = planned_chunk(plan)
    stand_in(monkeypatch, lambda s: 1.3 if s["chunk"] == own else 1.5, noise=0.01)
    found = tokopt.tune(plan, catalog=catalog, knobs="chunk", objectives="p99,cost", **FAST)
    assert found.improved
    assert found.items[0].gain.value == pytest.approx(1.0 - 1.3 / 1.5, abs=0.03)
    assert set(found.items[0].trials[0].values) >= {"p99", "cost"}


def test_limits_that_are_kept_are_not_given_up_for_another_objective(
    monkeypatch: pytest.MonkeyPatch, catalog: Catalog, plan: Plan
) -> None:
    own = planned_chunk(plan)
    stand_in(monkeypatch, lambda s: 1.0 if s["chunk"] == own else 0.5)  # less energy, by the stand-in, with more load
    monkeypatch.setattr(tuning_scores, "HIGHEST", 100.0)
    found = tokopt.tune(plan, catalog=catalog, knobs="chunk", objectives="energy", **FAST)
    assert not found.improved


@pytest.mark.parametrize("aim", ["cost", "p99", "energy"])
def test_a_plan_never_states_less_than_the_planned_settings_keep(
    monkeypatch: pytest.MonkeyPatch, catalog: Catalog, plan: Plan, aim: str
) -> None:
    """Small running caps do much better in simulation, but the closed-form model allows them less than is planned."""
    monkeypatch.setattr(tuning_scores, "AGREEMENT", 0.01)
    stand_in(monkeypatch, lambda s: 1.5 - s["max_batch"] if s["max_batch"] < 0.3 else 0.98, noise=0.001)
    asked = FAST | {"simulator_alone": False, "trials": 30, "knobs": "max_batch", "objectives": aim}
    found = tokopt.tune(plan, catalog=catalog, **asked)
    best = min(found.items[0].trials, key=lambda trial: trial.values["cost"])
    assert best.requests_per_s is not None and best.requests_per_s > 1.1 * found.items[0].planned_requests_per_s
    before, after = plan.usd_per_million_output_tokens, found.tuned_plan.usd_per_million_output_tokens
    assert before is not None and after is not None and after <= before / 0.97
    if not found.improved:
        assert any("looked better, but" in note and "--simulator-alone" in note for note in found.notes)
    alone = tokopt.tune(plan, catalog=catalog, **(asked | {"simulator_alone": True}))
    assert alone.improved
    stated = alone.tuned_plan.usd_per_million_output_tokens
    assert stated is not None and stated <= before / 0.97


# --- plans that follow ---


def test_a_fleet_that_fills_a_limit_serves_what_both_models_keep(
    monkeypatch: pytest.MonkeyPatch, catalog: Catalog, plan: Plan
) -> None:
    own = planned_chunk(plan)
    stand_in(monkeypatch, lambda s: 0.6 if s["chunk"] == own else 0.8, noise=0.01)
    found = tokopt.tune(plan, catalog=catalog, knobs="chunk", **(FAST | {"simulator_alone": False}))
    item, before = found.tuned_plan.fleet[0], plan.fleet[0]
    assert found.improved
    assert 0.75 * before.requests_per_s < item.requests_per_s <= 0.82 * before.requests_per_s
    assert tokopt.check(found.tuned_plan, catalog=catalog) == []
    assert any("the tuned plan has a replica serve" in note for note in found.notes)
    assert any("planned settings keep the limits up to" in note for note in found.notes)


def test_a_demand_stays_what_it_is(monkeypatch: pytest.MonkeyPatch, catalog: Catalog, demand: Plan) -> None:
    stand_in(monkeypatch, lambda s: {"random": 1.0}.get(s["router"], 1.2), noise=0.01)
    found = tokopt.tune(demand, catalog=catalog, knobs="router", **(FAST | {"simulator_alone": False}))
    assert found.improved
    assert found.tuned_plan.requests_per_s == pytest.approx(demand.requests_per_s)
    assert found.tuned_plan.fleet[0].features["router"] == found.items[0].tuned.settings.router != "random"
    assert tokopt.check(found.tuned_plan, catalog=catalog) == []
    before, after = found.items[0].units_needed or (0, 0)
    assert 0 < after <= before


def test_what_the_checker_would_reject_is_said_to_be(
    monkeypatch: pytest.MonkeyPatch, catalog: Catalog, demand: Plan
) -> None:
    own = demand.fleet[0].concurrency_per_replica
    stand_in(monkeypatch, lambda s: 2.0 if s["max_batch"] < 0.05 else 1.0, noise=0.01)
    found = tokopt.tune(demand, catalog=catalog, knobs="max_batch", **FAST)
    assert found.improved and found.items[0].tuned.settings.concurrency_per_replica < own
    faults = tokopt.check(found.tuned_plan, catalog=catalog)
    assert bool(faults) == any("tokopt check rejects the tuned plan" in note for note in found.notes)
    strict = tokopt.tune(demand, catalog=catalog, knobs="max_batch", **(FAST | {"simulator_alone": False}))
    assert tokopt.check(strict.tuned_plan, catalog=catalog) == []
    assert set(strict.items[0].refused) == {"the closed-form model rules it out"}


def test_items_are_tuned_one_by_one(monkeypatch: pytest.MonkeyPatch, catalog: Catalog) -> None:
    two = {
        "chat": {"model": "llama-3.1-8b", "workload": "chat", "demand": "300req/s", "sla": "tpot=40ms,ttft=2s"},
        "code": {"model": "qwen3-8b", "input_tokens": 4000, "output_tokens": 300, "demand": "40req/s", "sla": "30ms"},
    }
    both = tokopt.plan(catalog=catalog, workloads={"workloads": two}, gpus="h100_sxm", modes="agg")
    assert len(both.fleet) >= 2
    stand_in(monkeypatch, lambda _: 1.0)
    found = tokopt.tune(both, catalog=catalog, **(FAST | {"trials": 3}))
    assert [item.item for item in found.items] == list(range(1, len(both.fleet) + 1))
    assert all(len(item.trials) == 3 for item in found.items)
    (second,) = tokopt.tune(both, catalog=catalog, item=2, **(FAST | {"trials": 3})).items
    assert second.item == 2


# --- the same again, and on from there ---


def test_equal_seeds_give_equal_answers(monkeypatch: pytest.MonkeyPatch, catalog: Catalog, plan: Plan) -> None:
    stand_in(monkeypatch, lambda s: 1.0 + s["chunk"] / 1e6, noise=0.02)

    def answer(seed: int) -> str:
        return tokopt.tune(plan, catalog=catalog, seed=seed, **FAST).model_dump_json()

    assert answer(1) == answer(1) != answer(2)


def test_a_second_call_goes_on_and_tests_nothing_twice(
    monkeypatch: pytest.MonkeyPatch, catalog: Catalog, plan: Plan, tmp_path: Path
) -> None:
    asked = stand_in(monkeypatch, lambda s: 0.9 + s["chunk"] / 1e6, noise=0.001)
    where = tmp_path / "a.journal"
    first = tokopt.tune(plan, catalog=catalog, study=where, **(FAST | {"trials": 6}))
    count = len(asked)
    same = tokopt.tune(plan, catalog=catalog, study=where, **(FAST | {"trials": 6}))
    assert len(asked) == count
    assert same.items == first.items
    assert same.study.resumed and not first.study.resumed
    more = tokopt.tune(plan, catalog=catalog, study=where, **(FAST | {"trials": 9}))
    assert [t.settings for t in more.items[0].trials[:6]] == [t.settings for t in first.items[0].trials]
    assert len(more.items[0].trials) == 9
    assert [worker.trials for worker in more.study.workers] == [6, 0, 3]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": 3}, r"another seed \(seed 0; asked for: seed 3\)"),
        ({"knobs": "chunk,router"}, r"another set of knobs \(chunk; asked for: chunk, router\)"),
        ({"objectives": "cost"}, r"another list of objectives"),
        ({"requests": 300}, r"another length of simulations"),
        ({"simulator_alone": False}, r"another rule about the model"),
    ],
)
def test_a_study_of_something_else_is_one_clear_line(
    monkeypatch: pytest.MonkeyPatch, catalog: Catalog, plan: Plan, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    stand_in(monkeypatch, lambda _: 1.0)
    asked = FAST | {"trials": 2, "knobs": "chunk", "study": tmp_path / "a.journal"}
    tokopt.tune(plan, catalog=catalog, **asked)
    with pytest.raises(InputError, match=said):
        tokopt.tune(plan, catalog=catalog, **(asked | changes))


def test_another_plan_is_refused_unless_its_study_has_another_name(
    monkeypatch: pytest.MonkeyPatch, catalog: Catalog, plan: Plan, demand: Plan, tmp_path: Path
) -> None:
    stand_in(monkeypatch, lambda _: 1.0)
    asked = FAST | {"trials": 2, "knobs": "chunk", "study": tmp_path / "a.journal"}
    tokopt.tune(plan, catalog=catalog, **asked)
    with pytest.raises(InputError, match=r"its trials are of another plan.*give another file or --study-name"):
        tokopt.tune(demand, catalog=catalog, **asked)
    assert tokopt.tune(demand, catalog=catalog, study_name="other", **asked).study.name == "other"


# --- what goes wrong on the way ---


class Killed(Executor):
    """Processes of which one has been killed."""

    def submit(self, *_: Any, **__: Any) -> Any:
        done: Future[Any] = Future()
        done.set_exception(BrokenProcessPool("a process was terminated abruptly"))
        return done


def test_a_process_that_is_killed_during_a_test_is_one_line(
    monkeypatch: pytest.MonkeyPatch, catalog: Catalog, plan: Plan
) -> None:
    stand_in(monkeypatch, lambda _: 1.0)
    monkeypatch.setattr(tuning, "_pool", lambda jobs: contextlib.nullcontext(Killed()))
    monkeypatch.setattr(tuning, "run_apart", lambda search, pool, jobs, told: tuning.run_here(search, told))
    with pytest.raises(InputError, match=r"^a process of the tuning was killed: is memory short\?"):
        tokopt.tune(plan, catalog=catalog, jobs=2, knobs="chunk", **(FAST | {"trials": 1}))


def test_where_no_load_keeps_the_limits_energy_is_counted_as_high(catalog: Catalog, plan: Plan) -> None:
    """There is no load that a figure of energy could be at; trials are not failures for that."""
    classes = plan.request.model_copy(update={"sla": plan.request.sla.model_copy(update={"ttft_ms": 1.0})})
    tight = plan.model_copy(update={"request": classes})
    few: dict[str, Any] = {"trials": 2, "requests": 200, "replications": 2, "simulator_alone": True}
    found = tokopt.tune(tight, catalog=catalog, knobs="chunk", objectives="energy", **few)
    (item,) = found.items
    assert item.failed == 0 and item.complete + item.pruned == 2
    assert item.planned.load.value == 0.0 and item.planned.joules_per_output_token is None
    assert not found.improved and all("energy" not in trial.values for trial in item.trials)


# --- bad input ---


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"trials": 0}, r"--trials: 0 is not possible"),
        ({"time_limit": "10"}, r"--time-limit"),
        ({"time_limit": "0s"}, r"--time-limit"),
        ({"knobs": "batch"}, r"--knobs: 'batch' is not one of max_batch, chunk.*did you mean max_batch"),
        ({"knobs": ","}, r"--knobs: no knob is named"),
        ({"knobs": "pools"}, r"--knobs pools: item 1 \(h100_sxm\): it has one pool"),
        ({"objectives": "price"}, r"--objectives: 'price' is not one of cost, goodput, p99, energy"),
        ({"objectives": ""}, r"--objectives: none is named"),
        ({"objectives": "cost,cost"}, r"one is named twice"),
        ({"sampler": "grid"}, r"--sampler: 'grid' is not one of tpe, nsga2, random"),
        ({"item": 2}, r"--item: 2 is not possible: the fleet has 1 item"),
        ({"item": 0}, r"--item: 0 is not possible"),
        ({"requests": 5}, r"--requests: 5 is not possible"),
        ({"replications": 1}, r"--replications: 1 is not possible"),
        ({"seed": -1}, r"--seed: -1 is not possible"),
        ({"jobs": 0}, r"--jobs: 0 is not possible"),
        ({"study": "/nowhere/at/all.journal"}, r"--study /nowhere/at/all.journal: there is no directory"),
    ],
)
def test_bad_input_is_one_clear_line(catalog: Catalog, plan: Plan, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as error:
        tokopt.tune(plan, catalog=catalog, **changes)
    assert "\n" not in str(error.value)


def test_energy_needs_to_be_known(catalog: Catalog) -> None:
    dark = tokopt.plan(catalog=catalog, power="60kW", **(SMALL | {"gpus": "mi325x", "sla": "40ms"}))
    with pytest.raises(InputError, match=r"--objectives energy: item 1 .*does not know what mi325x draws"):
        tokopt.tune(dark, catalog=catalog, objectives="cost,energy")


def test_a_plan_without_a_fleet_is_refused(catalog: Catalog) -> None:
    none = tokopt.plan(catalog=catalog, power="1kW", **SMALL)
    with pytest.raises(InputError, match="nothing to tune"):
        tokopt.tune(none, catalog=catalog)


# --- with the simulator ---


def test_a_small_plan_is_tuned_with_the_simulator(catalog: Catalog, plan: Plan) -> None:
    def tuned() -> Tuning:
        return tokopt.tune(plan, catalog=catalog, trials=3, requests=200, replications=2, knobs="max_batch,router")

    found = tuned()
    (item,) = found.items
    assert len(item.trials) == 3
    assert item.trials[0].settings == item.planned.settings
    assert item.trials[0].requests > 200
    assert 0.5 < item.planned.load.value < 2.0
    assert item.planned.ttft_p99_ms is not None and item.planned.joules_per_output_token is not None
    assert tokopt.check(found.tuned_plan, catalog=catalog) == []
    assert tuned() == found


def test_a_time_limit_is_written_as_other_lengths_of_time() -> None:
    settings = settings_of(trials=1, objectives="cost", sampler="tpe", time_limit="20min")
    assert settings.time_limit_s == 1200.0
