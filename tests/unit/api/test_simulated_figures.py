"""Figures of simulations of plans: each class's and item's own, of the measured time, with what caches keep."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

import tokopt
from tokopt.catalog import Catalog
from tokopt.domain.plans import Plan
from tokopt.domain.simulations import Simulation, Verdict
from tokopt.errors import InputError

BLOCK = 256


def planned(catalog: Catalog, **asked: Any) -> Plan:
    request = {"model": "qwen3-8b", "workload": "chat", "gpus": "h100_sxm", "sla": "tpot=30ms,ttft=2s"} | asked
    if "power" not in request and "workloads" not in request:
        request["power"] = "30kW"
    if "workloads" in request:
        for name in ("model", "workload", "sla"):
            request.pop(name)
    return tokopt.plan(catalog=catalog, **request)


def simulated(catalog: Catalog, plan: Plan | dict[str, Any], **asked: Any) -> Simulation:
    return tokopt.simulate(plan, catalog=catalog, **({"requests": 1000, "replications": 2} | asked))


def two_classes(**of_b: Any) -> dict[str, Any]:
    a = {"model": "qwen3-8b", "input_tokens": 1000, "output_tokens": 200, "demand": "20req/s", "sla": "50ms"}
    return {"workloads": {"a": a, "b": a | of_b}}


def edited(plan: Plan) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(plan.model_dump_json())
    return found


@pytest.fixture(scope="module")
def plan(catalog: Catalog) -> Plan:
    return planned(catalog)


@pytest.fixture(scope="module")
def classes(catalog: Catalog) -> Plan:
    return planned(catalog, workloads=two_classes())


def traced(path: Path, rows: int, hashes: Any = None, output: int = 64) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["time_s", "input_tokens", "output_tokens", *(["hash_ids", "block_tokens"] if hashes else [])])
        for n in range(rows):
            more = [" ".join(map(str, hashes(n))), BLOCK] if hashes else []
            writer.writerow([f"{n * 0.1:.3f}", 1030, output, *more])
    return path


def test_beside_an_overloaded_class_others_keep_their_figures(catalog: Catalog, classes: Plan) -> None:
    throttled = edited(classes)
    throttled["fleet"][1]["concurrency_per_replica"] = 1
    found = simulated(catalog, throttled)
    a, b = found.classes
    assert found.overloaded and [item.overloaded for item in found.items] == [False, True]
    assert a.requests_per_s == pytest.approx(20.0, rel=0.1) and b.requests_per_s < 15.0
    assert found.items[0].requests_per_s == pytest.approx(a.requests_per_s)
    assert found.requests_per_s == pytest.approx(a.requests_per_s + b.requests_per_s)
    assert a.ttft_ms is not None and b.ttft_ms is None and found.ttft_ms is None
    assert set(a.verdicts.values()) == {Verdict.KEPT} and set(b.verdicts.values()) == {Verdict.MISSED}
    assert a.goodput == pytest.approx(1.0, abs=0.05) and (b.goodput or 0.0) < 0.9


def test_items_of_a_class_that_is_dealt_out_together_have_their_part_of_what_is_answered(
    catalog: Catalog, plan: Plan
) -> None:
    apart, together = (simulated(catalog, plan, load=0.5, split=split) for split in ("plan", "together"))
    for found in (apart, together):
        (item,) = found.items
        assert item.requests_per_s == pytest.approx(found.requests_per_s)
        assert item.running * item.replicas == pytest.approx(found.mean_in_system, rel=0.15)
    assert apart.bottleneck == together.bottleneck


def test_slots_of_replicas_with_prefill_pools_are_those_that_decode(catalog: Catalog) -> None:
    found = simulated(catalog, planned(catalog, modes="disagg", isl=8000, osl=100, sla="tpot=25ms,ttft=3s"), load=0.5)
    (item,) = found.items
    running = [n for n, t in zip(found.series.running, found.series.time_s, strict=True) if n and t > found.warm_up_s]
    assert item.running == pytest.approx(sum(running) / len(running) / item.replicas, rel=0.15)
    assert item.running * item.replicas < 0.9 * found.mean_in_system


def test_a_router_that_a_plan_names_is_simulated_as_one_that_is_asked_for(catalog: Catalog, plan: Plan) -> None:
    named = edited(plan)
    named["fleet"][0]["features"]["router"] = "shortest_queue"
    one, other = simulated(catalog, named), simulated(catalog, plan, router="shortest_queue")
    assert one.items == other.items and one.ttft_ms == other.ttft_ms


def test_a_trace_of_a_class_that_nothing_serves_is_refused(catalog: Catalog, classes: Plan, tmp_path: Path) -> None:
    path = tmp_path / "both.csv"
    tokopt.make_trace(path, workloads=two_classes(), duration="20s", catalog=catalog)
    one = edited(classes)
    del one["fleet"][1]
    with pytest.raises(InputError, match="class 'b' is served by no item"):
        simulated(catalog, one, trace=path, replications=1)


def test_without_prefix_caching_nothing_of_a_trace_is_found(catalog: Catalog, tmp_path: Path) -> None:
    path = traced(tmp_path / "same.csv", 300, lambda _: (1, 2, 3, 4))
    asked = {"trace": path, "replications": 1, "warm_up": "0s"}
    assert (simulated(catalog, planned(catalog), **asked).prefix_hit_share or 0.0) > 0.9
    assert simulated(catalog, planned(catalog, disable="prefix_caching"), **asked).prefix_hit_share == 0.0


def test_what_a_trace_says_of_prompts_stands_above_the_plans_share(catalog: Catalog, tmp_path: Path) -> None:
    path = traced(tmp_path / "distinct.csv", 300, lambda n: range(4 * n, 4 * n + 4))
    found = simulated(catalog, planned(catalog, prefix_share=0.5), trace=path, replications=1, warm_up="0s")
    assert found.prefix_hit_share == 0.0


def test_a_trace_without_hashes_is_said_to_find_nothing(catalog: Catalog, tmp_path: Path) -> None:
    plan = planned(catalog, reuse="turns=5,gap=20s", isl=4000)
    found = simulated(catalog, plan, trace=traced(tmp_path / "plain.csv", 300), replications=1, warm_up="0s")
    assert found.prefix_hit_share == 0.0
    assert any("the trace does not say which" in line for line in found.warnings)
    assert found.provenance.trace_format == "tokopt"


def test_room_for_hashes_is_that_of_the_traces_longest_request(catalog: Catalog, plan: Plan, tmp_path: Path) -> None:
    from tokopt.api.simulated_fleet import simulated_fleet
    from tokopt.domain.simulations import Arrivals, SimulationSettings

    settings = SimulationSettings(arrivals=Arrivals.TRACE, trace="t.csv", trace_block_tokens=16)
    whole = simulated_fleet(catalog, plan, settings).fleet.most_blocks
    assert simulated_fleet(catalog, plan, settings, longest_tokens=1094).fleet.most_blocks == 1094 // 16 + 1 < whole


def test_classes_of_a_made_up_trace_have_nothing_in_common(catalog: Catalog, tmp_path: Path) -> None:
    reuse = {"reuse": "prefix=2000x10", "input_tokens": 4000}
    asked = two_classes(**reuse)
    asked["workloads"]["a"] |= reuse
    made = tokopt.make_trace(tmp_path / "t.csv", workloads=asked, duration="2min", catalog=catalog)
    both = made.summary.reuse
    assert both is not None
    assert both.distinct_tokens == sum(each.reuse.distinct_tokens for each in made.summary.classes if each.reuse)


def test_what_is_counted_is_that_of_the_measured_time(catalog: Catalog) -> None:
    plan = planned(catalog, reuse="turns=5,gap=20s", isl=4000)
    late, all_of_it = (simulated(catalog, plan, warm_up=time, replications=1) for time in ("200s", "0s"))
    assert (late.prefix_hit_share or 0.0) > (all_of_it.prefix_hit_share or 0.0) + 0.02  # caches are empty at first


def test_replicas_that_are_down_draw_nothing(catalog: Catalog, plan: Plan) -> None:
    asked = {"load": 0.2, "requests": 4000, "replicas": 4, "warm_up": "0s"}
    failing = simulated(catalog, plan, node_mtbf_hours=0.02, recovery="72s", **asked)
    up = [n for n in failing.series.replicas_up if n is not None]
    sound = simulated(catalog, plan, **asked)
    assert 0.2 < sum(up) / len(up) / failing.items[0].replicas < 0.9
    assert (failing.drawn_power_kw or 0.0) < 0.95 * (sound.drawn_power_kw or 0.0)


def test_answers_of_one_token_keep_a_limit_on_the_time_between_tokens(
    catalog: Catalog, plan: Plan, tmp_path: Path
) -> None:
    found = simulated(catalog, plan, trace=traced(tmp_path / "short.csv", 300, output=1), warm_up="0s")
    assert found.classes[0].verdicts["tpot"] is Verdict.KEPT
    assert found.tpot_ms is None


def test_waiting_for_a_step_to_end_is_no_wait_for_a_slot(catalog: Catalog, plan: Plan) -> None:
    waits = simulated(catalog, plan, load=0.1).classes[0].waits_ms
    assert "for a slot" not in waits and waits["for the step in progress to end"] > 0.0


def test_plans_of_a_model_that_was_named_by_its_config_are_simulated(catalog: Catalog, tmp_path: Path) -> None:
    config = {
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 4096, "intermediate_size": 12288,
        "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
        "vocab_size": 151936, "max_position_embeddings": 40960, "torch_dtype": "bfloat16",
        "tie_word_embeddings": False,
    }  # fmt: skip
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    found = simulated(catalog, planned(catalog, model=str(path)), load=0.5)
    assert not found.overloaded and found.goodput == pytest.approx(1.0, abs=0.01)
