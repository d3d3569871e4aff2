"""Replicas that prefill on one accelerator and decode on another: estimates by hand, plans against plans without."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

import tokopt
from tokopt.api.mixing import _height, _raised, units_for
from tokopt.api.resolved import _linked, resolve
from tokopt.catalog import Catalog
from tokopt.domain.deployments import Deployment, Layout, Pool
from tokopt.domain.estimates import Estimate
from tokopt.domain.plans import Plan
from tokopt.errors import InputError
from tokopt.report.plan import plan_report

POOLS = {"prefill": "2xtp2@h100_sxm", "decode": "1xtp4@h200_sxm"}
MODEL = {"model": "llama-3.1-8b", "framework": "vllm", "precision": "fp8", "kv_precision": "fp8"}
# Prompts cost most where they are long, so that an accelerator that is fast at them may be worth a place of its own.
PRICES = """\
provider,region,instance_type,accelerator,accelerator_count,market,usd_per_hour,available_units
acme,north,h100x8,h100_sxm,8,on_demand,{h100},{h100_units}
acme,north,h200x8,h200_sxm,8,on_demand,{h200},{h200_units}
acme,south,b200x8,b200_sxm,8,on_demand,{b200},
"""
USUAL = {"h100": 16.0, "h200": 20.0, "b200": 60.0, "h100_units": "", "h200_units": ""}
NARROW = {"frameworks": "vllm", "precisions": "bf16,fp8", "kv_precisions": "fp8", "workload": "agentic"}
Ask = Callable[..., Estimate]
Solve = Callable[..., Plan]


@pytest.fixture(scope="module")
def ask(catalog: Catalog) -> Ask:
    return lambda **options: tokopt.estimate(catalog=catalog, **(MODEL | options))


@pytest.fixture(scope="module")
def solve(catalog: Catalog, tmp_path_factory: pytest.TempPathFactory) -> Solve:
    folder = tmp_path_factory.mktemp("prices")
    known: dict[str, Plan] = {}

    def solved(prices: dict[str, Any] | None = None, **options: Any) -> Plan:
        text = PRICES.format(**(USUAL | (prices or {})))
        path = folder / f"{abs(hash(text))}.csv"
        path.write_text(text, encoding="utf-8")
        request = {"model": "llama-3.1-70b", "demand": "60req/s", "sla": "50ms", **NARROW, **options}
        key = json.dumps([text, request], default=str)
        if key not in known:
            known[key] = tokopt.plan(catalog=catalog, prices=str(path), **request)
        return known[key]

    return solved


# Estimates ------------------------------------------------------------------------------------------------------------


def test_on_one_accelerator_nothing_changes(ask: Ask) -> None:
    named = ask(prefill="2xtp2@h200_sxm", decode="1xtp4@h200_sxm", rate="2req/s")
    plain = ask(gpu="h200_sxm", prefill="2xtp2", decode="1xtp4", rate="2req/s")
    assert named == plain
    assert plain.deployment.prefill == Pool(workers=2, layout=Layout(tp=2))
    assert not plain.pools


def test_each_pool_is_timed_by_its_own_machine(ask: Ask) -> None:
    mixed = ask(**POOLS, rate="2req/s")
    decode = ask(gpu="h200_sxm", prefill="2xtp2", decode="1xtp4", rate="2req/s")
    prefill = ask(gpu="h100_sxm", prefill="2xtp2", decode="1xtp4", rate="2req/s")
    assert mixed.tpot_ms == decode.tpot_ms
    assert mixed.memory_gib == decode.memory_gib
    assert mixed.tpot_ms != prefill.tpot_ms
    first, second = mixed.pools
    assert (first.pool, first.accelerator, first.accelerators) == ("prefill", "h100_sxm", 4)
    assert (second.pool, second.accelerator, second.accelerators) == ("decode", "h200_sxm", 4)
    assert second.saturation_requests_per_s is not None and mixed.saturation_requests_per_s is not None
    assert mixed.saturation_requests_per_s == min(
        pool.saturation_requests_per_s for pool in mixed.pools if pool.saturation_requests_per_s
    )


def test_the_first_token_differs_by_the_move_alone(catalog: Catalog, ask: Ask) -> None:
    """Bytes over min(n·rate) of both ends beyond their scale-up domains, by hand from the catalog and calibration."""
    load = {"rate": "0.000001req/s"}  # nothing waits: the whole difference is the move
    inside = ask(gpu="h100_sxm", prefill="2xtp2", decode="1xtp4", **load)
    mixed = ask(**POOLS, **load)
    h100, h200 = (catalog.accelerators[name] for name in ("h100_sxm", "h200_sxm"))
    ends = [
        resolve(
            catalog, llm=catalog.llms["llama-3.1-8b"], gpu=a.name, framework="vllm", precision="fp8", kv_precision="fp8"
        ).constants
        for a in (h100, h200)
    ]
    prompt = 1024.0
    cache = 32 * 8 * 2 * 128 * prompt  # layers x key-value heads x (key and value) x head size, one byte each
    up = cache / (h100.scale_up_bytes_per_s * ends[0].scale_up_efficiency * 2) + ends[0].scale_up_latency_s
    assert h100.scale_out_bytes_per_s is not None and h200.scale_out_bytes_per_s is not None
    slower = min(
        2 * h100.scale_out_bytes_per_s * ends[0].scale_out_efficiency,
        4 * h200.scale_out_bytes_per_s * ends[1].scale_out_efficiency,
    )
    out = cache / slower + max(end.scale_out_latency_s for end in ends)
    fixed = [
        max(getattr(end, name) for end in ends) - getattr(ends[0], name)
        for name in ("handover_s", "request_overhead_s")
    ]
    assert inside.ttft_ms is not None and mixed.ttft_ms is not None
    assert mixed.ttft_ms.mean - inside.ttft_ms.mean == pytest.approx((out - up + sum(fixed)) * 1e3, rel=1e-6)


def test_the_closed_loop_takes_each_pool_from_its_own_machine(ask: Ask) -> None:
    """With one request in flight: the prefill of one machine, the decode steps of the other, and a longer move."""
    load = {"concurrency": 1.0}
    mixed = ask(**POOLS, **load)
    h100, h200 = (ask(gpu=gpu, prefill="2xtp2", decode="1xtp4", **load) for gpu in ("h100_sxm", "h200_sxm"))
    assert mixed.tpot_ms is not None and h200.tpot_ms is not None
    assert mixed.tpot_ms.mean == pytest.approx(h200.tpot_ms.mean, rel=1e-3)
    assert mixed.ttft_ms is not None and h100.ttft_ms is not None
    assert mixed.ttft_ms.mean > h100.ttft_ms.mean


def test_power_is_of_both_pools(catalog: Catalog, ask: Ask) -> None:
    mixed = ask(**POOLS, rate="2req/s")
    h100, h200 = (catalog.accelerators[name] for name in ("h100_sxm", "h200_sxm"))
    assert mixed.power_kw is not None
    assert h100.server_w and h200.server_w and h100.all_in_w and h200.all_in_w
    assert mixed.power_kw.rated == pytest.approx(4 * (h100.server_w + h200.server_w) / 1e3)
    assert mixed.power_kw.provisioned == pytest.approx(4 * (h100.all_in_w + h200.all_in_w) / 1e3)
    assert mixed.power_kw.drawn == pytest.approx(sum(pool.power_kw.drawn or math.nan for pool in mixed.pools))


def test_what_does_not_fit_names_its_pool(ask: Ask) -> None:
    tight = ask(model="llama-3.1-70b", precision="fp8", prefill="1xtp1@l40s", decode="1xtp4@h200_sxm", rate="1req/s")
    assert not tight.fits and tight.reason.startswith("prefill pool: does not fit")
    assert "44" in tight.reason or "45" in tight.reason  # GiB of an L40S, not of an H200


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"prefill": "2xtp2@nope", "decode": "1xtp4@h200_sxm"}, "--prefill: unknown accelerator 'nope'"),
        ({"prefill": "2xtp2@", "decode": "1xtp4@h200_sxm"}, "is not a pool"),
        ({"prefill": f"{10**20}xtp2@h100_sxm", "decode": "1xtp4@h200_sxm"}, "workers are too many; at most"),
        ({"prefill": "2xtp2@h100_sxm", "decode": "1xtp4"}, "--gpu is missing"),
        ({"prefill": "2xtp2", "decode": "1xtp4@h200_sxm"}, "--gpu is missing"),
        (
            {"prefill": "2xtp2@mi300x", "decode": "1xtp4@h200_sxm", "framework": "tensorrt-llm"},
            "does not run on mi300x",
        ),
        ({"prefill": "2xtp2@a100_80g_sxm", "decode": "1xtp4@b200_sxm", "precision": "nvfp4"}, "nvfp4"),
        ({**POOLS, "reuse": "turns=4,gap=30s"}, "prefix caches"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(ask: Ask, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=r"^[^\n]*$") as error:
        ask(**options, rate="1req/s")
    assert said in str(error.value)


def test_links_between_nodes_have_to_be_known(catalog: Catalog) -> None:
    found = resolve(
        catalog,
        llm=catalog.llms["llama-3.1-8b"],
        gpu="h100_sxm",
        framework="vllm",
        precision="fp8",
        kv_precision="fp8",
    )
    unknown = replace(found.accelerator, scale_out_bytes_per_s=None)
    for prefill, decode in ((replace(found, accelerator=unknown), found.accelerator), (found, unknown)):
        with pytest.raises(InputError, match="no scale-out bandwidth for h100_sxm"):
            _linked(decode, prefill)


def test_only_a_prefill_pool_may_be_elsewhere() -> None:
    with pytest.raises(ValueError, match="decodes"):
        Deployment(
            accelerator="h100_sxm",
            framework="vllm",
            llm="llama-3.1-8b",
            precision="fp8",
            kv_precision="fp8",
            mode="disagg",
            prefill=Pool(workers=1, layout=Layout()),
            decode=Pool(workers=1, layout=Layout(), accelerator="h200_sxm"),
        )


# Plans ----------------------------------------------------------------------------------------------------------------


def test_mixed_replicas_win_where_they_are_cheaper(solve: Solve, catalog: Catalog) -> None:
    mixed, plain = solve(mixed_pools=True), solve()
    assert mixed.usd_per_hour is not None and plain.usd_per_hour is not None
    assert mixed.usd_per_hour < plain.usd_per_hour
    item = next(item for item in mixed.fleet if item.parts)
    assert [part.pool for part in item.parts] == ["decode", "prefill"]
    assert item.deployment.prefill is not None and item.deployment.decode is not None
    assert item.deployment.prefill.accelerator == item.parts[1].accelerator
    assert item.deployment.decode.accelerator == item.parts[0].accelerator == item.accelerator
    assert item.gpus == sum(part.units * part.gpus_per_unit for part in item.parts)
    assert item.usd_per_hour == pytest.approx(sum(part.units * part.usd_per_unit_hour for part in item.parts))
    assert mixed.request.mixed_pools
    assert any("different accelerators" in line for line in mixed.assumptions)
    assert not tokopt.check(mixed, catalog=catalog)


def test_aggregated_wins_where_it_is_better(solve: Solve) -> None:
    agg = solve(prices={"b200": 8.0}, mixed_pools=True)
    assert not any(item.parts for item in agg.fleet)


@pytest.mark.parametrize("without", [{"modes": "agg"}, {"disable": "disagg"}])
def test_without_pools_none_are_said_to_be_mixed(solve: Solve, without: dict[str, Any]) -> None:
    agg = solve(mixed_pools=True, **without)
    assert not any("may be on different accelerators" in line for line in agg.assumptions)
    assert any("none are on different accelerators" in line for line in agg.assumptions)


def test_what_a_millisecond_is_worth_is_no_rounding(solve: Solve) -> None:
    for more in ({}, {"mixed_pools": True}, {"isl": 32768}, {"mixed_pools": True, "isl": 32768}):
        for row in solve(**more).marginal:
            if row.of == "sla tpot" and row.output_tokens_per_s:
                assert row.output_tokens_per_s > 1e-6


def test_reports_say_whose_price_each_is(solve: Solve) -> None:
    plan = solve(mixed_pools=True)
    console = Console(width=100)
    with console.capture() as captured:
        console.print(plan_report(plan))
    item = next(item for item in plan.fleet if item.parts)
    for part in item.parts:
        assert f"/h for {part.gpus_per_unit} {part.accelerator} (" in captured.get()


def test_pools_of_two_places_are_not_paired(solve: Solve) -> None:
    mixed = solve(mixed_pools=True)
    for item in mixed.fleet:
        assert {"b200_sxm"} >= {part.accelerator for part in item.parts} or "b200_sxm" not in {
            part.accelerator for part in item.parts
        }


@pytest.mark.parametrize("limited", ["h100_units", "h200_units"])
def test_stock_of_either_offer_is_kept(solve: Solve, catalog: Catalog, limited: str) -> None:
    plan = solve(prices={limited: 2}, mixed_pools=True)
    kind = limited.removesuffix("_units") + "_sxm"
    taken = sum(part.units for item in plan.fleet for part in item.bought if part.accelerator == kind)
    assert taken <= 2
    assert not tokopt.check(plan, catalog=catalog)


@pytest.mark.parametrize(
    "limits",
    [
        {"max_types": 1},
        {"inventory": {"h100_sxm": 16}},
        {"survive": "node"},
        {"power": "200kW"},
        {"power": "150kW", "power_mode": "drawn"},
        {"power": "250kW", "power_mode": "rated"},
        {"objective": "power"},
    ],
)
def test_limits_count_both_parts(solve: Solve, catalog: Catalog, limits: dict[str, Any]) -> None:
    plan, plain = solve(mixed_pools=True, **limits), solve(**limits)
    assert not tokopt.check(plan, catalog=catalog)
    if plain.fleet:
        figure = "power_kw" if limits.get("objective") == "power" else "usd_per_hour"
        assert getattr(plan, figure) <= getattr(plain, figure) * (1 + 1e-6)
    if "max_types" in limits:
        assert len({part.accelerator for item in plan.fleet for part in item.bought}) == 1


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    h100=st.floats(min_value=4.0, max_value=40.0),
    h200=st.floats(min_value=4.0, max_value=40.0),
    demand=st.integers(min_value=5, max_value=200),
)
def test_pairs_never_raise_the_cost(solve: Solve, catalog: Catalog, h100: float, h200: float, demand: int) -> None:
    prices = {"h100": round(h100, 2), "h200": round(h200, 2)}
    asked = {"prices": prices, "demand": f"{demand}req/s"}
    mixed, plain = solve(mixed_pools=True, **asked), solve(**asked)
    assert mixed.usd_per_hour is not None and plain.usd_per_hour is not None
    assert mixed.usd_per_hour <= plain.usd_per_hour * (1 + 1e-6)
    assert not tokopt.check(mixed, catalog=catalog)


def test_todays_fleet_of_two_accelerators_may_stay(solve: Solve, tmp_path: Path) -> None:
    before = solve(mixed_pools=True)
    path = tmp_path / "today.json"
    path.write_text(before.model_dump_json(), encoding="utf-8")
    after = solve(mixed_pools=True, current=str(path), change_usd_per_gpu=1000.0)
    assert not after.changes
    assert after.usd_per_hour == pytest.approx(before.usd_per_hour)
    more = solve(mixed_pools=True, current=str(path), demand="120req/s")
    grown = {(change.accelerator, change.after - change.before) for change in more.changes}
    units = {part.accelerator: 0 for item in more.fleet for part in item.bought}
    for plan, sign in ((more, 1), (before, -1)):
        for item in plan.fleet:
            for part in item.bought:
                units[part.accelerator] = units.get(part.accelerator, 0) + sign * part.units
    assert grown == {(name, n) for name, n in units.items() if n}


@pytest.mark.parametrize(
    ("pool", "replicas", "unit", "units"),
    [
        (Pool(workers=3, layout=Layout(tp=2)), 1, 8, 1),
        (Pool(workers=3, layout=Layout(tp=2)), 4, 8, 3),  # twelve workers, four a unit
        (Pool(workers=5, layout=Layout(tp=3)), 1, 8, 3),  # two a unit: none is split
        (Pool(workers=2, layout=Layout(tp=4, dp=4)), 1, 8, 4),  # a worker fills two units
        (Pool(workers=1, layout=Layout(tp=4, pp=3)), 2, 8, 4),  # a worker of twelve takes two
    ],
)
def test_workers_are_whole_in_units(pool: Pool, replicas: int, unit: int, units: int) -> None:
    assert units_for(pool, replicas, unit) == units


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    points=st.lists(
        st.tuples(st.integers(1, 15).map(lambda n: n / 16), st.floats(min_value=0.1, max_value=9.0)), max_size=12
    )
)
def test_the_chain_of_blocks_is_above_all_of_them_and_bends_down(points: list[tuple[float, float]]) -> None:
    chain = [(0.0, 2.0), (1.0, 1.0)]
    for share, each in points:
        if each > _height(chain, share):
            chain = _raised(chain, (share, each))
    places = [place for place, _ in chain]
    assert places == sorted(set(places)) and places[0] == 0.0 and places[-1] == 1.0
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in itertools.pairwise(chain)]
    assert all(after < before + 1e-9 for before, after in itertools.pairwise(slopes))
    assert all(each <= _height(chain, share) + 1e-9 for share, each in points)
    assert set(chain) <= {(0.0, 2.0), (1.0, 1.0), *points}
