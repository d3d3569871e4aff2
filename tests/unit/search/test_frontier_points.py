"""Frontiers: Pareto sets against brute force, and points against estimates of the same deployments."""

from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tokopt
from tokopt.domain.comparisons import Frontier
from tokopt.domain.workloads import Workload
from tokopt.search import pareto

GRID = st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0, 3.0])


def dominated(k: int, x: np.ndarray, y: np.ndarray) -> bool:
    return bool(((x >= x[k]) & (y >= y[k]) & ((x > x[k]) | (y > y[k]))).any())


@given(st.lists(st.tuples(GRID, GRID), min_size=1, max_size=25))
def test_pareto_against_brute_force(points: list[tuple[float, float]]) -> None:
    """On a coarse grid, so that ties are common."""
    x, y = np.array(points).T
    kept = pareto(x, y)
    best = {(x[k], y[k]) for k in range(len(points)) if not dominated(k, x, y)}
    assert {(x[k], y[k]) for k in kept} == best
    assert len(kept) == len(best)  # twins once
    assert (np.diff(x[kept]) > 0).all()
    assert (np.diff(y[kept]) < 0).all()


@given(st.lists(st.tuples(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9)), min_size=1, max_size=40))
def test_pareto_of_any_numbers(points: list[tuple[float, float]]) -> None:
    x, y = np.array(points).T
    kept = pareto(x, y)
    assert not any(dominated(int(k), x, y) for k in kept)
    rest = sorted(set(range(len(points))) - {int(k) for k in kept})
    for k in rest:
        assert ((x[kept] >= x[k]) & (y[kept] >= y[k])).any()


@lru_cache
def front(model: str, gpu: str, mode: str) -> Frontier:
    shape = Workload(name="spread", input_tokens=1024, output_tokens=512, input_cv=1.0, output_cv=0.8)
    return tokopt.frontier(model=model, gpus=[gpu], modes=mode, workload=shape)


CASES = [
    ("qwen3-8b", "l40s", "agg"),
    ("qwen3-30b-a3b", "h100_sxm", "agg"),
    ("deepseek-r1", "gb300_nvl72", "agg"),
    ("qwen3-8b", "h100_sxm", "disagg"),
    ("deepseek-r1", "gb300_nvl72", "disagg"),
    ("qwen3-30b-a3b", "h100_sxm", "agg,disagg"),
]


@pytest.mark.parametrize(("model", "gpu", "mode"), CASES)
def test_no_point_is_beaten_by_another(model: str, gpu: str, mode: str) -> None:
    points = front(model, gpu, mode).points
    x = np.array([p.tokens_per_s_per_user for p in points])
    y = np.array([p.output_tokens_per_s_per_gpu for p in points])
    assert len(points) > 3
    assert not any(dominated(k, x, y) for k in range(len(points)))
    assert all(p.on_overall_frontier for p in points)  # one accelerator: its frontier is the overall one


@pytest.mark.parametrize(("model", "gpu", "mode"), CASES)
def test_figures_of_a_point_agree_with_each_other(model: str, gpu: str, mode: str) -> None:
    for p in front(model, gpu, mode).points:
        assert p.tokens_per_s_per_user == pytest.approx(1e3 / p.tpot_ms, rel=1e-9)
        assert p.total_tokens_per_s_per_gpu == pytest.approx(3 * p.output_tokens_per_s_per_gpu, rel=1e-9)
        assert p.ttft_ms <= 60_000
        if p.usd_per_gpu_hour is not None:
            cost = p.usd_per_gpu_hour / (p.output_tokens_per_s_per_gpu * 3600) * 1e6
            assert p.usd_per_million_output_tokens == pytest.approx(cost, rel=1e-9)
        # Little's law, the front end's share left to it.
        requests = p.output_tokens_per_s_per_gpu * p.deployment.accelerators / 512
        assert requests * (p.ttft_ms + 511 * p.tpot_ms) / 1e3 == pytest.approx(p.concurrency, rel=0.1)


def again(point, model: str, gpu: str):
    d = point.deployment
    ask = {
        "model": model,
        "gpu": gpu,
        "framework": d.framework,
        "precision": d.precision,
        "kv_precision": d.kv_precision,
        "speculator": d.speculator or "mtp",
        "depth": d.speculation_depth,
        "chunk_tokens": d.chunk_tokens,
        "workload": Workload(name="spread", input_tokens=1024, output_tokens=512, input_cv=1.0, output_cv=0.8),
        "concurrency": max(point.concurrency, 1.0),
        "max_running": d.max_running_requests,
    }
    if d.layout is not None:
        return tokopt.estimate(**ask, tp=d.layout.tp, pp=d.layout.pp, ep=d.layout.ep, dp=d.layout.dp)

    def written(pool) -> str:
        of = pool.layout
        return f"{pool.workers}xtp{of.tp}pp{of.pp}ep{of.ep}dp{of.dp}"

    return tokopt.estimate(**ask, prefill=written(d.prefill), decode=written(d.decode))


@pytest.mark.parametrize(("model", "gpu", "mode"), CASES[:3])
def test_points_reproduce_as_estimates(model: str, gpu: str, mode: str) -> None:
    points = front(model, gpu, mode).points
    for p in points[:: max(len(points) // 8, 1)]:
        e = again(p, model, gpu)
        assert e.fits
        assert e.output_tokens_per_s_per_gpu == pytest.approx(p.output_tokens_per_s_per_gpu, rel=0.03)
        assert e.e2e_ms.mean == pytest.approx(p.ttft_ms + 511 * p.tpot_ms, rel=0.03)


@pytest.mark.parametrize(("model", "gpu", "mode"), CASES[:3])
def test_interactivity_of_points_reproduces_as_estimates(model: str, gpu: str, mode: str) -> None:
    points = front(model, gpu, mode).points
    for p in points[:: max(len(points) // 8, 1)]:
        assert again(p, model, gpu).tpot_ms.mean == pytest.approx(p.tpot_ms, rel=0.08)


@pytest.mark.parametrize(("model", "gpu", "mode"), CASES[3:5])
def test_points_of_two_pools_reproduce_as_estimates(model: str, gpu: str, mode: str) -> None:
    points = front(model, gpu, mode).points
    for p in points[:: max(len(points) // 8, 1)]:
        e = again(p, model, gpu)
        assert e.fits
        assert e.output_tokens_per_s_per_gpu == pytest.approx(p.output_tokens_per_s_per_gpu, rel=0.08)
        assert e.tpot_ms.mean == pytest.approx(p.tpot_ms, rel=0.08)


def test_two_accelerators_share_one_overall_frontier() -> None:
    both = tokopt.frontier(model="qwen3-8b", gpus=["l40s", "h100_sxm"], modes="agg", isl=1024, osl=512)
    x = np.array([p.tokens_per_s_per_user for p in both.points])
    y = np.array([p.output_tokens_per_s_per_gpu for p in both.points])
    for k, p in enumerate(both.points):
        assert p.on_overall_frontier == (not dominated(k, x, y))
    assert {p.accelerator for p in both.points} == {"l40s", "h100_sxm"}


def test_wrong_requests_are_refused() -> None:
    for bad in ({"modes": "both"}, {"gpus": "h900"}, {"model": "gpt-9"}, {"workload": "nap"}, {"precisions": "fp3"}):
        with pytest.raises(tokopt.InputError):
            tokopt.frontier(**{"model": "qwen3-8b", "gpus": "h100_sxm", **bad})


def test_what_is_not_served_is_said() -> None:
    with pytest.raises(tokopt.InputError, match="a10g: not served there"):
        tokopt.frontier(model="deepseek-r1", gpus=["a10g"], precisions="fp8")
