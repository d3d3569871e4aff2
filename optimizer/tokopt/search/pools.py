"""Pairs of prefill and decode pools: which workers, and how many of each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tokopt.domain.workloads import Workload
from tokopt.perf.queueing import LOAD_LIMIT, Limits, PrefillPool, pooled_first_token
from tokopt.perf.replica import prefill_times
from tokopt.perf.serving import workload_lengths
from tokopt.search.screening import Screened, first_token_floor, fitting
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
    single_s: NDArray[np.float64]  # by prefill set-up: one prompt alone, a full batch, and prompts a second of a queue
    batch_s: NDArray[np.float64]
    prompts_per_s: NDArray[np.float64]
    considered: int
    did_not_fit: int
    missed_limits: int

    def in_time(self, row: int, rate: float, workload: Workload, limits: Limits) -> bool:
        """Whether the prefill pool of a pair alone, nothing else waited for, is in time at `rate` requests a second."""
        p = self.prefill_row[row]
        queues = int(self.prefill_workers[row] * self.prefills.dp[p] * self.prefills.pp[p])
        pool = PrefillPool(
            servers=queues,
            prompt_s=float(self.single_s[p]),
            batch_s=float(self.batch_s[p]),
            prompts_per_s=float(self.prompts_per_s[p]),
            transfer_s=0.0,
        )
        if rate >= pool.servers * pool.prompts_per_s:
            return False
        first = pooled_first_token(pool, rate, arrival_cv2=workload.arrival_cv2, input_cv=workload.input_cv)
        q = limits.quantile
        return (first.mean() if q is None else first.quantile(q, workload.input_cv)) <= limits.ttft_s


def disaggregated_pairs(family: Family, decode: Screened, workload: Workload, limits: Limits, widest: int) -> Pairs:
    """Return replicas of a prefill and a decode pool worth evaluating.

    Of each size the prefill worker that takes the most prompts a second in time, and the decode worker with the
    highest bound: a pool's requests a second are what its workers add up to, so no other of the same size can make a
    better pair as long as limits on waiting do not bind.
    """
    chosen = setups(family, widest, role="prefill")
    held = chosen.pick(fitting(family, chosen, workload, role="prefill")[0])
    size = workload_lengths(workload)
    times = prefill_times(family.model, family.machine, held.flat_layouts, size, held.chunk_tokens)
    in_time = first_token_floor(np.asarray(times.single_s), size, limits) <= limits.ttft_s
    prefills = held.pick(in_time)
    rates = (np.asarray(times.requests_per_s) * held.dp * held.pp)[in_time] * LOAD_LIMIT
    p = _best_by_size(prefills.accelerators, rates)
    d = _best_by_size(decode.setups.accelerators, decode.bound_requests_per_s)
    pair, x, y = worker_counts(
        prefills.accelerators[p], decode.setups.accelerators[d], rates[p], decode.bound_requests_per_s[d], widest
    )
    prefill_row, decode_row = p[pair[0]], d[pair[1]]
    return Pairs(
        prefills=prefills,
        prefill_row=prefill_row,
        decode_row=decode_row,
        prefill_workers=x,
        decode_workers=y,
        accelerators=(x * prefills.accelerators[prefill_row] + y * decode.setups.accelerators[decode_row]).astype(
            np.intp
        ),
        bound_requests_per_s=np.minimum(x * rates[prefill_row], y * decode.bound_requests_per_s[decode_row]),
        single_s=np.broadcast_to(times.single_s, in_time.shape)[in_time],
        batch_s=np.broadcast_to(times.batch_s, in_time.shape)[in_time],
        prompts_per_s=np.broadcast_to(times.requests_per_s, in_time.shape)[in_time],
        considered=len(chosen) + x.size,
        did_not_fit=len(chosen) - len(held),
        missed_limits=len(held) - len(prefills),
    )


def _best_by_size(sizes: NDArray[np.float64], rates: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the row of the highest rate of each size, by falling rate."""
    order = np.argsort(-rates, kind="stable")
    first = np.unique(sizes[order], return_index=True)[1]
    return np.asarray(order[np.sort(first)], dtype=np.intp)


def worker_counts(
    prefill_sizes: NDArray[np.float64],
    decode_sizes: NDArray[np.float64],
    prefill_rates: NDArray[np.float64],
    decode_rates: NDArray[np.float64],
    widest: int,
) -> tuple[tuple[NDArray[np.intp], NDArray[np.intp]], NDArray[np.intp], NDArray[np.intp]]:
    """Return pairs of pools and worker counts within `widest` accelerators that are worth evaluating.

    For each number of one kind only the neighbours of the matching number of the other: any further worker idles.

    Args:
        prefill_sizes: Accelerators of each prefill worker.
        decode_sizes: Accelerators of each decode worker.
        prefill_rates: Requests a second of each prefill worker.
        decode_rates: Requests a second of each decode worker.
        widest: Accelerators of the largest replica.

    Returns:
        Indices into both kinds, prefill workers and decode workers; one element a pair.
    """
    if not prefill_sizes.size or not decode_sizes.size:
        none = np.zeros(0, dtype=np.intp)
        return (none, none), none, none
    ratio = prefill_rates[:, None, None] / decode_rates[None, :, None]
    n = np.arange(1, MOST_WORKERS + 1, dtype=float)
    shape = np.broadcast_shapes(ratio.shape, n.shape)
    xs, ys = [], []
    for matching, given in ((n * ratio, "x"), (n / ratio, "y")):
        low = np.clip(np.floor(matching), 1, MOST_WORKERS + 1)
        for other in (low, np.minimum(np.floor(matching) + 1, MOST_WORKERS + 1)):
            counts = np.broadcast_to(n, shape)
            xs.append(counts if given == "x" else other)
            ys.append(other if given == "x" else counts)
    x, y = np.concatenate(xs, axis=2).astype(np.intp), np.concatenate(ys, axis=2).astype(np.intp)
    replica = x * prefill_sizes[:, None, None] + y * decode_sizes[None, :, None]
    keep = (np.maximum(x, y) <= MOST_WORKERS) & (replica <= widest)
    p, d, slot = np.nonzero(keep)
    code = ((p * decode_sizes.size + d) * 64 + x[p, d, slot]) * 64 + y[p, d, slot]
    first = np.unique(code, return_index=True)[1]
    p, d, slot = p[first], d[first], slot[first]
    return (p, d), x[p, d, slot], y[p, d, slot]
