"""A simulation as text and as pictures, whatever came of it."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from tokopt.domain.simulations import (
    Arrivals,
    SimulatedClass,
    SimulatedItem,
    SimulatedMs,
    Simulation,
    SimulationSettings,
    Verdict,
)
from tokopt.report.simulation import simulation_report
from tokopt.report.simulation_timeline import axis_label, unit_of_time, written_time


def printed(found: Simulation, width: int = 80) -> str:
    console = Console(width=width, highlight=False)
    with console.capture() as captured:
        console.print(simulation_report(found, columns_wide=width))
    return captured.get()


def words(found: Simulation, width: int = 80) -> str:
    return " ".join(printed(found, width).split())


def with_class(found: Simulation, **changes: Any) -> Simulation:
    return found.model_copy(update={"classes": (found.classes[0].model_copy(update=changes),)})


def overloaded(found: Simulation) -> Simulation:
    nothing = dict.fromkeys(("ttft_ms", "tpot_ms", "itl_ms", "e2e_ms"))
    told = {"overloaded": True, "reason": "requests in the system grow", "goodput": 0.1, **nothing}
    return with_class(found, **nothing, verdicts={}, waits_ms={}).model_copy(update=told)


def many_classes(found: Simulation, count: int) -> Simulation:
    classes = tuple(found.classes[0].model_copy(update={"name": f"class-{n}"}) for n in range(count))
    items = tuple(found.items[0].model_copy(update={"classes": (f"class-{n}",)}) for n in range(count))
    return found.model_copy(update={"classes": classes, "items": items})


def emptied(found: Simulation) -> Simulation:
    series = found.series.model_copy(
        update={name: () for name in type(found.series).model_fields if name != "bin_s"} | {"drawn_kw": None}
    )
    nothing = dict.fromkeys(("ttft_ms", "tpot_ms", "itl_ms", "e2e_ms", "goodput", "drawn_power_kw"))
    none = with_class(found, **{k: v for k, v in nothing.items() if k != "drawn_power_kw"}, waits_ms={})
    return none.model_copy(update={**nothing, "series": series, "completed": 0})


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_it_fits_the_page(simulation: Simulation, width: int) -> None:
    for found in (simulation, overloaded(simulation), many_classes(simulation, 9), emptied(simulation)):
        report = printed(found, width)
        assert max(map(len, report.splitlines())) <= width
        assert "None" not in report and "nan" not in report.split() and "\u2800" not in report


def test_the_first_line_is_the_answer(simulation: Simulation) -> None:
    latency = simulation.classes[0].ttft_ms
    assert isinstance(latency, SimulatedMs)
    held = with_class(simulation, verdicts={"tpot": Verdict.KEPT, "ttft": Verdict.KEPT})
    assert printed(held).startswith("Holds its limits at 70 % of the planned load: p99 TPOT ")
    missed = with_class(simulation, verdicts={"ttft": Verdict.MISSED, "tpot": Verdict.UNSURE})
    assert printed(missed).startswith(f"Misses its limit at 70 % of the planned load: p99 TTFT {latency.p99:,.0f} ± ")
    unsure = with_class(simulation, verdicts={"ttft": Verdict.KEPT, "tpot": Verdict.UNSURE})
    assert words(unsure).startswith("Cannot tell whether it holds its limit at 70 % of the planned load: p99 TPOT ")
    assert "narrow the intervals" in words(unsure)
    assert printed(with_class(simulation, verdicts={}, limits_ms={})).startswith("No limits: ")
    assert words(overloaded(simulation)).startswith(
        "Overloaded at 70 % of the planned load: requests in the system grow; "
    )


def test_how_requests_come_is_in_the_first_line(simulation: Simulation) -> None:
    simulation = with_class(simulation, verdicts={"tpot": Verdict.KEPT, "ttft": Verdict.KEPT})
    for settings, said in (
        (SimulationSettings(arrivals=Arrivals.CLOSED_LOOP, concurrency=1), "with 1 request in flight"),
        (SimulationSettings(arrivals=Arrivals.TRACE, trace="a.csv"), "under the trace"),
        (SimulationSettings(), "Holds its limits: p99"),
    ):
        assert said in words(simulation.model_copy(update={"settings": settings}))[:120]


def test_limits_at_a_statistic_that_is_not_simulated(simulation: Simulation) -> None:
    found = with_class(simulation, statistic="p75", within={"ttft": 0.8, "tpot": 1.0})
    assert "p75 TTFT kept by 80 % of requests, of 3,024" in words(found)


def test_planned_and_simulated_stand_beside_each_other(simulation: Simulation) -> None:
    of: SimulatedClass = simulation.classes[0]
    lines = printed(simulation).splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith("  TTFT "))
    assert of.ttft_ms is not None
    assert f"{of.ttft_ms.p99:,.0f}" in lines[at] and "3,024 at p99" in lines[at]
    assert lines[at + 1].split()[0] == "±" and lines[at + 2].split()[0] == "planned"
    assert f"{of.planned['ttft'].p99:,.0f}" in lines[at + 2]


def test_one_replication_has_no_intervals(simulation: Simulation) -> None:
    ttft = simulation.classes[0].ttft_ms
    assert ttft is not None
    bare = with_class(simulation, ttft_ms=ttft.model_copy(update={"plus_minus": {}}))
    assert "p99 TTFT" in words(bare) and f"p99 TTFT {ttft.p99:,.0f} ms of" in words(bare)


def test_goodput_that_is_not_all_is_not_rounded_to_it(simulation: Simulation) -> None:
    assert "99.99 % of requests within" in words(simulation.model_copy(update={"goodput": 0.99999}))
    assert "100 % of requests within" in words(simulation.model_copy(update={"goodput": 1.0}))


def test_what_failed_and_what_was_scaled_is_said(simulation: Simulation) -> None:
    item: SimulatedItem = simulation.items[0].model_copy(update={"running_replicas": 12.5})
    told = {"items": (item,), "retried": 17, "rejected": 3, "preemptions": 5, "warnings": ("be careful",)}
    text = words(simulation.model_copy(update=told))
    for said in (
        "12.5 of them running on average",
        "17 requests started anew on another replica",
        "3 requests rejected",
        "5 requests sent back for lack of room",
        "To be known - be careful",
    ):
        assert said in text, said


def test_which_items_are_overloaded_is_said_where_others_are_not(simulation: Simulation) -> None:
    found = many_classes(overloaded(simulation), 3)
    items = tuple(item.model_copy(update={"overloaded": n == 1}) for n, item in enumerate(found.items))
    assert "overloaded: item 2 (h100_sxm, class-1)" in words(found.model_copy(update={"items": items}))


def test_times_and_figures_at_axes() -> None:
    assert [written_time(t) for t in (0.5, 90.0, 282.0, 8000.0, 90_000.0, 400_000.0)] == [
        *("0.500 s", "90.0 s", "4.70 min", "133 min", "25.0 h", "4.63 d"),
    ]
    assert unit_of_time(0.0) == (1.0, "s")
    assert [axis_label(v) for v in (0.5, 2500.0, 60_000.0, 1.5e6)] == ["0.5", "2,500", "60k", "1.5M"]


# --- pictures ---


def test_there_is_a_picture_of_each_series(simulation: Simulation) -> None:
    pytest.importorskip("matplotlib")
    from tokopt.report.simulation_plots import pictures

    drawn = dict(pictures(simulation))
    assert next(iter(drawn)) == "overview.png"
    each = {"ttft", "tpot", "requests", "throughput", "goodput", "queue", "running", "cache", "utilisation", "power"}
    assert {name.removesuffix(".png") for name in drawn} == each | {"overview"}
    assert all(content.startswith(b"\x89PNG") and len(content) < 500_000 for content in drawn.values())


def test_pictures_of_failures_of_several_classes_and_of_nothing(simulation: Simulation) -> None:
    pytest.importorskip("matplotlib")
    from tokopt.report.simulation_plots import pictures

    count = len(simulation.series.time_s)
    series = simulation.series.model_copy(
        update={
            "replicas_up": tuple(float(n % 3) for n in range(count)),
            "preemptions": tuple(float(n % 2) for n in range(count)),
            "drawn_kw": None,
            "ttft_mean_ms": (None,) * (count - 1) + (5.0,),
            "ttft_max_ms": (None,) * count,
        }
    )
    found = many_classes(simulation, 3).model_copy(update={"series": series})
    names = [name for name, _ in pictures(found)]
    assert "replicas.png" in names and "preemptions.png" in names
    assert "power.png" not in names and "ttft.png" not in names
    assert list(pictures(emptied(simulation))) == []
