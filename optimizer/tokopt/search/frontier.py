"""Throughput against interactivity: every set-up at every batch, down to the points that no other beats."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tokopt.domain.accelerators import Accelerator
from tokopt.domain.deployments import Deployment, Pool, ServingMode
from tokopt.perf.arrays import keep_freed_memory
from tokopt.perf.deployed import decode_layout
from tokopt.perf.replica import prefill_times, transfer_s
from tokopt.perf.serving import workload_lengths
from tokopt.search.candidates import SearchReport
from tokopt.search.overlapping import said_of_halves
from tokopt.search.pools import worker_counts
from tokopt.search.screening import (
    DecodeSteps,
    batches_for,
    decode_steps,
    fitting,
    grid_state,
    in_blocks,
    needless,
)
from tokopt.search.setups import Setups, batches_up_to, layout_of, most_per_rank, setups
from tokopt.search.space import Family, SearchSpace, deployment_of, families_in


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingPoint:
    """A deployment with a number of requests in flight: mean figures."""

    family: Family
    deployment: Deployment
    concurrency: float
    tpot_s: float
    ttft_s: float
    requests_per_s: float
    accelerators: int

    @property
    def requests_per_s_per_accelerator(self) -> float:
        """Throughput that the vertical axis shows."""
        return self.requests_per_s / self.accelerators


def pareto(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the indices of points that no other point matches on one axis and beats on the other, by rising x."""
    order = np.lexsort((-y, -x))
    highest = np.maximum.accumulate(y[order])
    kept = np.concatenate([[True], highest[1:] > highest[:-1]])
    return np.asarray(order[kept][::-1], dtype=np.intp)


def find_frontier(accelerator: Accelerator, space: SearchSpace) -> tuple[list[OperatingPoint], SearchReport]:
    """Return the operating points of an accelerator that no other one of it beats on both axes."""
    keep_freed_memory()
    report = SearchReport()
    points: list[OperatingPoint] = []
    for family in families_in(space, accelerator):
        decode = decode_steps(family, setups(family, space.widest, role="decode"), space.workload)
        if ServingMode.AGG in space.modes:
            points.extend(_aggregated_points(family, space, report, decode))
        if ServingMode.DISAGG in space.modes and "disagg" in family.features:
            points.extend(_disaggregated_points(family, space, report, decode))
    if not points:
        return [], report
    x = np.array([1.0 / p.tpot_s for p in points])
    y = np.array([p.requests_per_s_per_accelerator for p in points])
    return [_said(points[k], space) for k in pareto(x, y)], report


def _said(point: OperatingPoint, space: SearchSpace) -> OperatingPoint:
    """Return a point whose deployment says which of its pools run steps as two halves."""
    _, workers = decode_layout(point.deployment)
    slots = max((point.deployment.max_running_requests or 1) // workers, 1)
    said = said_of_halves(point.family, point.deployment, space.workload, slots)
    return point if said is point.deployment else replace(point, deployment=said)


@dataclass(frozen=True, slots=True)
class _Grid:
    """Points of a family: rows into set-ups, batches and figures, already down to their own Pareto set."""

    setups: Setups
    row: NDArray[np.intp]
    running: NDArray[np.float64]
    tpot_s: NDArray[np.float64]
    ttft_s: NDArray[np.float64]
    held: NDArray[np.float64]
    rate: NDArray[np.float64]


def _grid(
    family: Family, space: SearchSpace, report: SearchReport, decode: DecodeSteps | None, *, prefill: bool
) -> _Grid | None:
    role = "agg" if prefill else "decode"
    chosen = setups(family, space.widest, role=role)
    tried = batches_up_to(most_per_rank(family.framework))
    report.considered += len(chosen) * tried
    fits, slots = fitting(family, chosen, space.workload, role=role)
    report.did_not_fit += int((~fits).sum()) * tried
    if prefill:
        fits = fits & ~needless(chosen, slots, space.workload)
    chosen, slots = chosen.pick(fits), slots[fits]
    if not len(chosen):
        return None
    size, batches = workload_lengths(space.workload), batches_for(slots, chosen)
    columns: list[tuple[NDArray[np.float64], ...]] = []
    for part in in_blocks(chosen):
        block = chosen.pick(part)
        running, state = grid_state(family, block, size, batches, prefill=prefill, decode=decode)
        first = state.prefill_s + state.prefill_wait_s + 0.5 * state.decode_step_s + family.machine.request_overhead_s
        tpot, first, rate = (np.asarray(column) for column in (state.tpot_s, first, state.requests_per_s))
        held = np.asarray(state.in_service)
        inside = (held <= slots[part][:, None]) & (first <= space.limits.ttft_s)
        rows = np.broadcast_to(part[:, None], running.shape)
        each = rate / block.accelerators[:, None]
        index = np.flatnonzero(inside)
        if not index.size:
            continue
        best = index[pareto(1.0 / tpot.ravel()[index], each.ravel()[index])]
        flat = (rows, running, tpot, first, held, rate)
        columns.append(tuple(np.asarray(a, dtype=float).ravel()[best] for a in flat))
    if not columns:
        return None
    row, running, tpot, first, held, rate = (np.concatenate(c) for c in zip(*columns, strict=True))
    return _Grid(chosen, row.astype(np.intp), running, tpot, first, held, rate)


def _aggregated_points(
    family: Family, space: SearchSpace, report: SearchReport, steps: DecodeSteps | None
) -> list[OperatingPoint]:
    grid = _grid(family, space, report, steps, prefill=True)
    if grid is None:
        return []
    sizes = grid.setups.accelerators[grid.row]
    points = []
    for k in pareto(1.0 / grid.tpot_s, grid.rate / sizes):
        row = int(grid.row[k])
        deployment = deployment_of(
            family,
            space,
            mode=ServingMode.AGG,
            layout=layout_of(grid.setups, row),
            speculation_depth=int(grid.setups.depth[row]),
            chunk_tokens=int(grid.setups.chunk_tokens[row]),
            max_running_requests=max(math.ceil(grid.running[k] + grid.rate[k] * grid.ttft_s[k]), 1),
        )
        points.append(
            OperatingPoint(
                family=family,
                deployment=deployment,
                concurrency=float(grid.running[k] + grid.rate[k] * grid.ttft_s[k]),
                tpot_s=float(grid.tpot_s[k]),
                ttft_s=float(grid.ttft_s[k]),
                requests_per_s=float(grid.rate[k]),
                accelerators=int(sizes[k]),
            )
        )
    return points


def _disaggregated_points(
    family: Family, space: SearchSpace, report: SearchReport, steps: DecodeSteps | None
) -> list[OperatingPoint]:
    """Match each good decode point with the prefill pool that keeps up with it at the fewest accelerators a request."""
    grid = _grid(family, space, report, steps, prefill=False)
    every = setups(family, space.widest, role="prefill")
    prefills = every.pick(fitting(family, every, space.workload, role="prefill")[0])
    if grid is None or not len(prefills):
        return []
    size = workload_lengths(space.workload)
    times = prefill_times(family.model, family.machine, prefills.flat_layouts, size, prefills.chunk_tokens)
    in_time = np.asarray(times.batch_s) <= space.limits.ttft_s
    rates = np.where(in_time, np.asarray(times.requests_per_s) * prefills.dp * prefills.pp, 0.0)
    if not in_time.any():
        return []
    best = int(np.argmax(rates / prefills.accelerators))
    worker = int(prefills.accelerators[best])
    points = []
    for k in pareto(1.0 / grid.tpot_s, grid.rate / grid.setups.accelerators[grid.row]):
        row = int(grid.row[k])
        decode = int(grid.setups.accelerators[row])
        _, xs, ys = worker_counts(
            np.array([float(worker)]), np.array([float(decode)]), rates[[best]], grid.rate[[k]], space.widest
        )
        report.considered += xs.size
        # Only pairs whose prefill keeps up: otherwise fewer would decode than this point says.
        keeps_up = xs * rates[best] >= ys * grid.rate[k]
        xs, ys = xs[keeps_up], ys[keeps_up]
        if not xs.size:
            continue
        each = ys * grid.rate[k] / (xs * worker + ys * decode)
        x, y = int(xs[np.argmax(each)]), int(ys[np.argmax(each)])
        replica = x * worker + y * decode
        served = y * float(grid.rate[k])
        move = transfer_s(
            family.model,
            family.machine,
            input_tokens=space.workload.input_tokens,
            sender=worker,
            receiver=decode,
            replica=replica,
        )
        ttft = float(np.asarray(times.batch_s)[best]) + float(move + family.machine.request_overhead_s)
        deployment = deployment_of(
            family,
            space,
            mode=ServingMode.DISAGG,
            prefill=Pool(workers=x, layout=layout_of(prefills, best)),
            decode=Pool(workers=y, layout=layout_of(grid.setups, row)),
            speculation_depth=int(grid.setups.depth[row]),
            chunk_tokens=int(prefills.chunk_tokens[best]),
            max_running_requests=max(round(float(grid.running[k])), 1) * y,
        )
        points.append(
            OperatingPoint(
                family=family,
                deployment=deployment,
                concurrency=float(grid.running[k]) * y + served * ttft,
                tpot_s=float(grid.tpot_s[k]),
                ttft_s=ttft,
                requests_per_s=served,
                accelerators=replica,
            )
        )
    return points
