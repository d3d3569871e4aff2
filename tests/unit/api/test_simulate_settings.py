"""Settings of simulations as people write them, interrupts, and what a simulation says of itself."""

from __future__ import annotations

import os
import signal
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tokopt
from tokopt.api import simulation_runs
from tokopt.api.interrupts import noted_interrupts
from tokopt.api.shared_board import Board
from tokopt.api.simulated_fleet import SimulatedFleet
from tokopt.api.simulating import settings_of, simulate_plan
from tokopt.catalog import Catalog
from tokopt.domain.plans import Plan
from tokopt.domain.simulations import Arrivals, Simulation
from tokopt.errors import InputError
from tokopt.simulation.replication import Window
from tokopt.units import parse_duration

CLOCK = {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}


@given(st.floats(min_value=1e-6, max_value=1e4), st.sampled_from(sorted(CLOCK)))
def test_times_are_read_with_their_units(value: float, unit: str) -> None:
    assert parse_duration(f"{value!r}{unit}", what="x") == pytest.approx(value * CLOCK[unit])
    assert parse_duration(f" {value!r} {unit} ", what="x") == pytest.approx(value * CLOCK[unit])


@pytest.mark.parametrize(
    "text", ["", "5", "h", "1e", "nan s", "infs", "-1s", "0s", "5 weeks", "1e30d", "5m", "1,5s", "1s2s", "5 S"]
)
def test_what_is_no_time_is_one_line(text: str) -> None:
    with pytest.raises(InputError, match=r"^--x: ") as caught:
        parse_duration(text, what="--x")
    assert "\n" not in str(caught.value)


def test_zero_is_a_time_where_it_may_be() -> None:
    assert parse_duration("0s", what="x", positive=False) == 0.0
    assert settings_of(warm_up="0s", autoscale_delay="0s").warm_up_s == 0.0


def test_arrivals_follow_from_what_is_given() -> None:
    assert settings_of().arrivals is Arrivals.PLANNED
    assert settings_of(burstiness=2.0).arrivals is Arrivals.GAMMA
    assert settings_of(concurrency=4).arrivals is Arrivals.CLOSED_LOOP
    assert settings_of(trace="t.csv").arrivals is Arrivals.TRACE
    assert settings_of(arrivals="constant").arrivals is Arrivals.CONSTANT


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(("load", "requests", "replications", "seed", "trace_speed")), st.floats()))
def test_any_numbers_are_settings_or_one_line(written: dict[str, float]) -> None:
    said, found = "--", None
    try:
        found = settings_of(**written)
    except InputError as error:
        said = str(error)
    assert said.startswith("--") and "\n" not in said
    assert found is None or all(getattr(found, name) == value for name, value in written.items())


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ({"burstiness": 1e-310}, r"^--burstiness: 1e-310 must be 0, or from 1e-06 to 1000"),
        ({"burstiness": -1.0}, r"^--burstiness: -1.0 must be 0, or from 1e-06 to 1000"),
        ({"burstiness": float("nan")}, r"^--burstiness: nan must be a finite number"),
        (
            {"autoscale_target": 0.7, "autoscale_every": "0.001ms"},
            r"^--autoscale: every: 1e-06 must be .* equal to 0\.1",
        ),
    ],
)
def test_numbers_that_a_run_would_not_end_with_are_refused(written: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        settings_of(**written)


def test_the_least_burstiness_and_the_shortest_tick_are_simulated(chat_plan: Plan) -> None:
    least: dict[str, Any] = {"burstiness": 1e-6, "autoscale_target": 0.9, "autoscale_every": "0.1s"}
    found = tokopt.simulate(chat_plan, load=0.5, requests=200, replications=1, **least)
    assert found.completed > 0
    even = tokopt.simulate(chat_plan, load=0.5, requests=200, replications=1, burstiness=0.0)
    assert even.settings.burstiness == 0.0 and even.completed > 0


# --- interrupts ---


def test_the_first_interrupt_is_noted_and_the_second_is_raised() -> None:
    before = signal.getsignal(signal.SIGINT)
    with noted_interrupts() as noted:
        assert not noted()
        os.kill(os.getpid(), signal.SIGINT)
        assert noted()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_interrupts_of_somebody_else_are_left_alone() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with noted_interrupts() as noted:
            os.kill(os.getpid(), signal.SIGINT)
            assert not noted() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_notes_nothing() -> None:
    found: list[bool] = []

    def work() -> None:
        with noted_interrupts() as noted:
            found.append(noted())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [False]


def test_a_board_is_seen_from_elsewhere() -> None:
    board = Board(3)
    other = Board(0, board.name)
    other.tell(1, 0.6)
    assert board.done(3) == pytest.approx(0.2) and board.furthest(3) == 0.6
    assert not other.stopped()
    board.stop()
    assert other.stopped()
    other.close()
    board.close(remove=True)


def test_a_part_is_kept_only_where_it_is_wanted(chat_plan: Plan, catalog: Catalog) -> None:
    def interrupt(doing: str, done: float) -> None:
        if done > 0.6:
            os.kill(os.getpid(), signal.SIGINT)

    short = settings_of(load=0.5, requests=200, replications=2)
    with pytest.raises(KeyboardInterrupt):
        simulate_plan(catalog, chat_plan, short, progress=interrupt)


# --- what is simulated ---


def test_processes_do_not_change_the_answer(
    chat_plan: Plan, simulation: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulation_runs, "PARALLEL_FROM_REQUESTS", 0)
    shares: list[float] = []
    apart = tokopt.simulate(
        chat_plan, load=0.7, requests=200, replications=2, processes=2, progress=lambda _, done: shares.append(done)
    )
    assert apart.model_dump_json() == simulation.model_dump_json()
    assert shares[-1] == 1.0


@pytest.mark.parametrize("concurrency", [1, 30])
def test_a_closed_loop_holds_as_many_requests_as_asked(chat_plan: Plan, concurrency: int) -> None:
    found = tokopt.simulate(chat_plan, concurrency=concurrency, requests=400, replications=3)
    assert not found.overloaded and found.simulated_share == 1.0
    assert found.mean_in_system == pytest.approx(concurrency, rel=0.15)
    assert found.ttft_ms is not None and found.e2e_ms is not None
    # Little's law: as many a second as are in flight over how long each takes.
    assert found.requests_per_s == pytest.approx(1e3 * concurrency / found.e2e_ms.mean, rel=0.15)


def test_more_in_flight_than_can_be_simulated_is_refused(chat_plan: Plan) -> None:
    with pytest.raises(InputError, match=r"^--concurrency: 9,000,000 are .* at most 2,097,152 can be"):
        tokopt.simulate(chat_plan, concurrency=9_000_000, requests=100, replications=1)


def test_a_slight_overload_is_seen_with_few_requests(chat_plan: Plan) -> None:
    found = tokopt.simulate(chat_plan, load=1.25, requests=1000, replications=3)
    assert found.overloaded and found.ttft_ms is None
    assert found.requests_per_s < 1.2 * found.planned_requests_per_s
    assert found.items[0].running <= found.items[0].slots


def test_figures_agree_with_one_another(simulation: Simulation, chat_plan: Plan) -> None:
    (of,), (item,) = simulation.classes, simulation.items
    assert of.planned["tpot"] == chat_plan.fleet[0].tpot_ms and of.planned_ms["tpot"] == of.planned["tpot"].p99
    assert simulation.e2e_ms is not None
    little = simulation.requests_per_s * simulation.e2e_ms.mean / 1e3
    assert simulation.mean_in_system == pytest.approx(little, rel=1e-6)
    assert simulation.mean_queued <= simulation.mean_in_system
    assert item.replicas == chat_plan.fleet[0].replicas >= item.simulated_replicas
    assert simulation.usd_per_hour == pytest.approx(chat_plan.usd_per_hour)
    series = simulation.series
    lengths = {len(getattr(series, name)) for name in type(series).model_fields if name != "bin_s"}
    assert len(lengths) == 1
    assert all(value is not None for value in series.queued) and max(series.utilisation) <= 1.0


def test_few_requests_and_a_single_replication_are_warned_of(chat_plan: Plan, simulation: Simulation) -> None:
    assert any("99th percentiles rest on" in said for said in simulation.warnings)
    alone = tokopt.simulate(chat_plan, load=0.5, requests=200, replications=1)
    assert any("no confidence intervals" in said for said in alone.warnings)
    assert alone.ttft_ms is not None and alone.ttft_ms.plus_minus == {}


def test_failures_that_do_not_come_are_warned_of(chat_plan: Plan) -> None:
    few = {"load": 0.5, "requests": 200, "replications": 2}
    rare = tokopt.simulate(chat_plan, node_mtbf_hours=1e6, **few)  # type: ignore[arg-type]
    assert any(said.startswith("no request met a failure in") for said in rare.warnings)
    owned = tokopt.simulate(chat_plan, spot_interruptions_per_hour=1.0, **few)  # type: ignore[arg-type]
    assert any("no unit on a spot market" in said for said in owned.warnings)


# --- on paper ---


def runs_of(*areas: tuple[float, float, float]) -> Any:
    """Runs that were looked at three times, 100 s apart: requests in the system over time by then."""
    looks = [[SimpleNamespace(time_s=100.0 * (n + 1), area=area) for n, area in enumerate(each)] for each in areas]
    outcomes = [SimpleNamespace(snapshots=each) for each in looks]
    return SimpleNamespace(outcomes=outcomes, window=Window(start_s=100.0, end_s=200.0), partial=False)


def test_a_rise_that_replications_agree_on_is_drift() -> None:
    usual = settings_of()
    # 10 requests in the first 100 s, then 12: a fifth more.
    rising = runs_of(*((0.0, 1000.0 + n, 2200.0 + n) for n in range(5)))
    assert simulation_runs.drift_of(rising, usual) == pytest.approx(0.2, rel=0.02)
    either = runs_of((0.0, 1000.0, 2200.0), (0.0, 1000.0, 1800.0), (0.0, 1000.0, 2000.0))
    assert simulation_runs.drift_of(either, usual) == 0.0
    assert simulation_runs.drift_of(runs_of((0.0, 1000.0, 2200.0)), usual) == 0.0  # nobody to agree with
    assert simulation_runs.drift_of(rising, settings_of(concurrency=5)) == 0.0


def test_replicas_count_class_by_class_where_a_class_is_one_group() -> None:
    parts = tuple(SimpleNamespace(klass=klass, simulated=count) for klass, count in ((0, 4), (1, 2), (0, 3)))
    of = dict.fromkeys(("classes", "streams", "class_of", "weights", "router"))
    for together, firsts in ((False, (0, 4, 6)), (True, (0, 7, 4))):
        fleet: Any = SimulatedFleet(parts=parts, fleet=SimpleNamespace(together=together), **of)  # type: ignore[arg-type]
        assert fleet.first_replicas == firsts
