"""Pairs of prefill and decode pools: which workers, and how many of each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tokopt.domain.workloads import Workload
from tokopt.perf.memory import memory_use
from tokopt.perf.queueing import LOAD_LIMIT, Limits
from tokopt.perf.replica import prefill_times
from tokopt.perf.serving import workload_lengths
from tokopt.search.screening import Screened, first_token_floor
from tokopt.search.space import Family, Setups, setups

MOST_WORKERS = 12  # of one pool


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Disaggregated replicas: rows into both pools' set-ups, worker counts, and a bound on the request rate."""

    prefills: Setups
    prefill_row: NDArray[np.intp]
    decode_row: NDArray[np.intp]
    prefill_workers: NDArray[np.intp]
    decode_workers: NDArray[np.intp]
    accelerators: NDArray[np.intp]
    bound_requests_per_s: NDArray[np.float64]
    considered: int
    did_not_fit: int
    missed_limits: int


def disaggregated_pairs(family: Family, decode: Screened, workload: Workload, limits: Limits, widest: int) -> Pairs:
    """Return replicas of a prefill and a decode pool worth evaluating.

    Of each size the prefill worker that takes the most prompts a second in time, and the decode worker with the
    highest bound: a pool's requests a second are what its workers add up to, so no other of the same size can make a
    better pair as long as limits on waiting do not bind.
    """
    chosen = setups(family, widest, role="prefill")
    fitting = fitting_prefills(family, workload, widest)
    size = workload_lengths(workload)
    times = prefill_times(family.model, family.machine, fitting.flat_layouts, size, fitting.chunk_tokens)
    in_time = first_token_floor(np.asarray(times.batch_s), size, limits) <= limits.ttft_s
    prefills = fitting.pick(in_time)
    rates = (np.asarray(times.requests_per_s) * fitting.dp * fitting.pp)[in_time] * LOAD_LIMIT
    best_prefill = _best_by_size(prefills.accelerators, rates)
    best_decode = _best_by_size(decode.setups.accelerators, decode.bound_requests_per_s)
    rows = [
        (p, d, x, y, x * p_size + y * d_size, min(x * rates[p], y * decode.bound_requests_per_s[d]))
        for p_size, p in best_prefill.items()
        for d_size, d in best_decode.items()
        for x, y in worker_counts(p_size, d_size, float(rates[p] / decode.bound_requests_per_s[d]), widest)
    ]
    columns = np.array(rows, dtype=float).reshape(-1, 6)
    whole = columns[:, :5].astype(np.intp)
    return Pairs(
        prefills=prefills,
        prefill_row=whole[:, 0],
        decode_row=whole[:, 1],
        prefill_workers=whole[:, 2],
        decode_workers=whole[:, 3],
        accelerators=whole[:, 4],
        bound_requests_per_s=columns[:, 5],
        considered=len(chosen) + len(rows),
        did_not_fit=len(chosen) - len(fitting),
        missed_limits=len(fitting) - len(prefills),
    )


def fitting_prefills(family: Family, workload: Workload, widest: int) -> Setups:
    """Return the prefill workers that hold at least one prompt a rank and stage."""
    chosen = setups(family, widest, role="prefill")
    use = memory_use(
        family.model,
        family.machine,
        chosen.flat_layouts,
        chunk_tokens=chosen.chunk_tokens,
        draft_depth=0.0,
        mean_resident_tokens=workload.input_tokens,
        longest_tokens=workload.input_tokens,
    )
    return chosen.pick(np.asarray(use.sequences) >= chosen.dp * chosen.pp)


def _best_by_size(sizes: NDArray[np.float64], rates: NDArray[np.float64]) -> dict[int, int]:
    best: dict[int, int] = {}
    for row in np.argsort(-rates, kind="stable"):
        best.setdefault(int(sizes[row]), int(row))
    return best


def worker_counts(prefill_size: int, decode_size: int, prefill_per_decode: float, widest: int) -> list[tuple[int, int]]:
    """Return worker counts (prefill, decode) within `widest` accelerators that are worth pairing.

    For each number of one kind only the neighbours of the matching number of the other: any further worker idles.
    """
    counts = set()
    for n in range(1, MOST_WORKERS + 1):
        for ratio, swap in ((prefill_per_decode, False), (1.0 / prefill_per_decode, True)):
            other = int(n * ratio)
            for m in (max(1, other), other + 1):
                counts.add((m, n) if swap else (n, m))
    return sorted(
        (x, y) for x, y in counts if max(x, y) <= MOST_WORKERS and x * prefill_size + y * decode_size <= widest
    )
