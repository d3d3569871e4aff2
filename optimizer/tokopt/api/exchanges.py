"""What the all-to-alls of expert parallelism take of decode steps, and from what batch on they bind."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tokopt.domain.auditing import ExchangePoint
from tokopt.domain.deployments import Deployment
from tokopt.domain.plans import AllToAll
from tokopt.domain.workloads import Workload
from tokopt.perf.deployed import decode_layout, decode_worker
from tokopt.perf.exchange import Exchange, exchange
from tokopt.perf.serving import workload_lengths
from tokopt.search.space import Family
from tokopt.units import MS

BATCHES = 32  # of a curve, from one sequence a rank to the running cap


def all_to_all(family: Family, deployment: Deployment, workload: Workload) -> AllToAll | None:
    """Return what all-to-alls take of a set-up's decode steps up to its running cap; None where it has none."""
    layout, workers = decode_layout(deployment)
    worker = decode_worker(deployment, float(family.accepted[deployment.speculation_depth]))
    if not worker.layouts.has_all_to_all:
        return None
    queues = workers * layout.dp * layout.pp
    most = max((deployment.max_running_requests or 1) / queues, 1.0)
    sequences = np.unique(np.append(np.floor(np.geomspace(1.0, most, BATCHES)), most))
    found = exchange(
        family.model,
        family.machine,
        worker.layouts,
        sequences=sequences,
        width=1.0 + deployment.speculation_depth,
        context=workload_lengths(workload).decode_context,
        draft_depth=float(deployment.speculation_depth),
    )
    points = exchange_points(sequences / layout.tp, found)
    start, end = binding_batches(points)
    full = points[-1]
    return AllToAll(
        share=full.share,
        hidden_share=full.hidden_ms / full.step_ms,
        headroom=full.headroom,
        binds_from=start,
        binds_up_to=end,
        answer=in_words(points),
    )


def exchange_points(requests_per_gpu: NDArray[np.float64], found: Exchange) -> tuple[ExchangePoint, ...]:
    """Return the points of a curve by rising batch."""
    columns = (found.exchange_s, found.hidden_s, found.step_s, found.share, found.headroom, found.binds)
    rows = zip(requests_per_gpu, *(np.broadcast_to(each, requests_per_gpu.shape) for each in columns), strict=True)
    return tuple(
        ExchangePoint(
            requests_per_gpu=float(batch),
            exchange_ms=float(seconds) / MS,
            hidden_ms=float(hidden) / MS,
            step_ms=float(step) / MS,
            share=float(share),
            headroom=float(room),
            binds=bool(binds),
        )
        for batch, seconds, hidden, step, share, room, binds in rows
    )


def binding_batches(points: tuple[ExchangePoint, ...]) -> tuple[float | None, float | None]:
    """Return the requests a GPU from which on all-to-alls bind, and up to which; None = not at all, or to the end."""
    binding = [point for point in points if point.binds]
    if not binding:
        return None, None
    return binding[0].requests_per_gpu, None if points[-1].binds else binding[-1].requests_per_gpu


def in_words(points: tuple[ExchangePoint, ...]) -> str:
    """Return the answer in words: whether the links carry the all-to-alls, or from what batch on they bind."""
    start, end = binding_batches(points)
    top = max(points, key=lambda point: point.share)
    most = f"at most {top.share * 100:.2g} % of a decode step, at {_requests(top.requests_per_gpu)}"
    hiding = [point for point in points if point.hidden_ms > 0.0]
    if hiding:
        best = max(hiding, key=lambda point: point.hidden_ms / point.step_ms)
        most += (
            f"; two-batch overlap hides {best.hidden_ms / best.step_ms * 100:.2g} % of a step at "
            f"{_requests(best.requests_per_gpu)}"
        )
    if start is None:
        return f"carries it: {most}"
    if start == points[0].requests_per_gpu and end is None:
        return f"binds at every batch: {most}"
    if end is None:
        return f"binds from {_requests(start)} on: {most}"
    if start == points[0].requests_per_gpu:
        return f"binds up to {_requests(end)}, by its latency, and carries more: {most}"
    return f"binds from {start:,.3g} to {_requests(end)}: {most}"


def _requests(count: float) -> str:
    return f"{count:,.3g} request{'' if count == 1 else 's'} a GPU"
