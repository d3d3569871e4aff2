"""Pairs of prefill and decode pools: which workers, and how many of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokopt.domain.workloads import Workload
from tokopt.perf.queueing import LOAD_LIMIT, Limits, PrefillPool, pooled_first_token
from tokopt.perf.replica import prefill_times
from tokopt.perf.serving import workload_lengths
from tokopt.search.screening import Screened, first_token_floor, fitting
from tokopt.search.setups import Setups, setups
from tokopt.search.space import Family

MOST_WORKERS = 12  # of one pool


@dataclass(frozen=True, slots=True, kw_only=True)
class PairRows:
    """Disaggregated replicas of one size: rows into both pools' set-ups, worker counts, and a bound on the rate."""

    prefill: NDArray[np.intp]
    decode: NDArray[np.intp]
    prefill_workers: NDArray[np.intp]
    decode_workers: NDArray[np.intp]
    bound_requests_per_s: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairing:
    """All pairs of a prefill and a decode pool of a family, without listing them.

    A replica of x prefill workers of s_p accelerators and y decode workers of s_d serves B ≤ min(x·r_p, y·r_d), with
    N = x·s_p + y·s_d, so B/N ≤ 1/(s_p/r_p + s_d/r_d): its kinds of workers alone bound what an accelerator serves.
    Counts are only spelled out for kinds whose bound is above what has been reached.
    """

    prefills: Setups  # those that no other of their size is better than at any load
    single_s: NDArray[np.float64]  # by prefill set-up: one prompt alone, a full batch, and prompts a second of a queue
    batch_s: NDArray[np.float64]
    prompts_per_s: NDArray[np.float64]
    prefill_rate: NDArray[np.float64]  # most requests a second of one worker
    decodes: Setups
    decode_rate: NDArray[np.float64]
    most: NDArray[np.float64]  # requests in service that a decode worker's running cap is surely not above
    kind_prefill: NDArray[np.intp]  # rows of each kind of pair
    kind_decode: NDArray[np.intp]
    ideal: NDArray[np.float64]  # of each kind, requests a second and accelerator if the counts matched
    least: NDArray[np.float64]  # accelerators of one worker of each
    highest: float  # of `ideal`
    widest: int
    considered: int
    did_not_fit: int
    missed_limits: int

    @property
    def sizes(self) -> frozenset[int]:
        """Accelerators that replicas may have in all."""
        if not self.ideal.size:
            return frozenset()
        n = np.arange(1, MOST_WORKERS + 1)
        x, y = n[:, None, None, None], n[None, :, None, None]
        p = np.unique(self.prefills.accelerators.astype(np.intp), return_index=True)[0][:, None]
        d = np.unique(self.decodes.accelerators.astype(np.intp), return_index=True)[0][None, :]
        total = x * p + y * d
        return frozenset(total[total <= self.widest].tolist())

    def of_size(self, size: int, above: float) -> PairRows:
        """Return the replicas of `size` accelerators whose bound is above `above`. [requests/s]"""
        (kinds,) = np.nonzero((self.ideal > above / size) & (self.least <= size))
        p, d = self.kind_prefill[kinds, None], self.kind_decode[kinds, None]
        x = np.arange(1, MOST_WORKERS + 1)
        left = size - x * self.prefills.accelerators[p]
        y = left / self.decodes.accelerators[d]
        bound = np.minimum(x * self.prefill_rate[p], y * self.decode_rate[d])
        kind, slot = np.nonzero((bound > above) & (y == np.floor(y)) & (y >= 1.0) & (y <= MOST_WORKERS))
        return PairRows(
            prefill=p[kind, 0],
            decode=d[kind, 0],
            prefill_workers=x[slot],
            decode_workers=y[kind, slot].astype(np.intp),
            bound_requests_per_s=bound[kind, slot],
        )

    def of_counts(self, prefill: int, decode: int, above: float) -> PairRows:
        """Return the replicas with so many accelerators in each pool whose bound is above `above`. [requests/s]"""
        x, y = prefill / self.prefills.accelerators, decode / self.decodes.accelerators
        (p,) = np.nonzero((x == np.floor(x)) & (x >= 1.0) & (x <= MOST_WORKERS) & (x * self.prefill_rate > above))
        (d,) = np.nonzero((y == np.floor(y)) & (y >= 1.0) & (y <= MOST_WORKERS) & (y * self.decode_rate > above))
        rows, columns = np.repeat(p, d.size), np.tile(d, p.size)
        return PairRows(
            prefill=rows,
            decode=columns,
            prefill_workers=x[rows].astype(np.intp),
            decode_workers=y[columns].astype(np.intp),
            bound_requests_per_s=np.minimum(x[rows] * self.prefill_rate[rows], y[columns] * self.decode_rate[columns]),
        )

    def pool(self, row: int, workers: int, transfer_s: float) -> PrefillPool:
        """Return the prefill pool of `workers` workers of one set-up."""
        return PrefillPool(
            servers=int(workers * self.prefills.dp[row] * self.prefills.pp[row]),
            prompt_s=float(self.single_s[row]),
            batch_s=float(self.batch_s[row]),
            prompts_per_s=float(self.prompts_per_s[row]),
            transfer_s=transfer_s,
        )


def in_time(pool: PrefillPool, rate: float, workload: Workload, limits: Limits) -> bool:
    """Whether a prefill pool, nothing else waited for, is in time at `rate` requests a second."""
    if rate >= pool.servers * pool.prompts_per_s:
        return False
    first = pooled_first_token(pool, rate, arrival_cv2=workload.arrival_cv2, input_cv=workload.input_cv)
    q = limits.quantile
    return (first.mean() if q is None else first.quantile(q, workload.input_cv)) <= limits.ttft_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefills:
    """The prefill workers of a family that fit and are in time; whatever drafts for decoding, they are the same."""

    setups: Setups  # those that no other of their size is better than at any load
    single_s: NDArray[np.float64]
    batch_s: NDArray[np.float64]
    prompts_per_s: NDArray[np.float64]  # of one queue
    held_sizes: NDArray[np.float64]  # accelerators of all that fit
    chosen: int
    in_time: int

    @property
    def most_requests_per_s(self) -> NDArray[np.float64]:
        """What one worker of each set-up keeps up at most."""
        return self.prompts_per_s * self.setups.dp * self.setups.pp * LOAD_LIMIT


def prefills_of(family: Family, workload: Workload, limits: Limits, widest: int) -> Prefills:
    """Return the prefill workers of a family that are worth pairing."""
    chosen = setups(family, widest, role="prefill")
    held = chosen.pick(fitting(family, chosen, workload, role="prefill")[0])
    size = workload_lengths(workload)
    times = prefill_times(family.model, family.machine, held.flat_layouts, size, held.chunk_tokens)
    shape = held.tp.shape
    single, batch, queue = (
        np.broadcast_to(column, shape) for column in (times.single_s, times.batch_s, times.requests_per_s)
    )
    (prompt,) = np.nonzero(first_token_floor(single, size, limits) <= limits.ttft_s)
    servers = held.dp * held.pp
    # Where prompts repeat, what is slower may still hold more of them.
    kept = prompt
    if workload.reuse is None:
        kept = prompt[_undominated(held.accelerators, single, batch, -queue * servers, -servers, prompt)]
    return Prefills(
        setups=held.pick(kept),
        single_s=single[kept],
        batch_s=batch[kept],
        prompts_per_s=queue[kept],
        held_sizes=held.accelerators,
        chosen=len(chosen),
        in_time=prompt.size,
    )


def pairing(prefill: Prefills, decode: Screened, widest: int) -> Pairing:
    """Return all pairs of a prefill worker and a decode worker of a screening."""
    prefills, decodes = prefill.setups, decode.setups
    rate = prefill.most_requests_per_s
    with np.errstate(divide="ignore"):
        ideal = 1.0 / (
            (prefills.accelerators / rate)[:, None] + (decodes.accelerators / decode.bound_requests_per_s)[None, :]
        )
    least = prefills.accelerators[:, None] + decodes.accelerators[None, :]
    p, d = np.nonzero(least <= widest)
    return Pairing(
        prefills=prefills,
        single_s=prefill.single_s,
        batch_s=prefill.batch_s,
        prompts_per_s=prefill.prompts_per_s,
        prefill_rate=rate,
        decodes=decodes,
        decode_rate=decode.bound_requests_per_s,
        most=decode.most,
        kind_prefill=p,
        kind_decode=d,
        ideal=ideal[p, d],
        least=least[p, d],
        highest=float(ideal[p, d].max(initial=0.0)),
        widest=widest,
        considered=prefill.chosen + _pairs(prefill.held_sizes, decodes.accelerators, widest),
        did_not_fit=prefill.chosen - len(prefill.held_sizes),
        missed_limits=len(prefill.held_sizes) - prefill.in_time,
    )


def _undominated(sizes: NDArray[np.float64], *columns: NDArray[Any]) -> NDArray[np.intp]:
    """Return the places in the last column's rows whose figures no other row of the same size is below in all.

    A pool whose workers take less time for a prompt and for a batch, take no fewer prompts a second in all and have no
    fewer queues is faster at every rate: M/M/c waits fall with the servers at an equal load (Erlang C).
    """
    *figures, rows = columns
    best: list[NDArray[np.intp]] = []
    for size in np.unique(sizes[rows], return_index=True)[0]:
        (own,) = np.nonzero(sizes[rows] == size)
        no_worse = np.ones((own.size, own.size), dtype=bool)  # row i against row j
        for figure in figures:
            each = np.asarray(figure)[rows[own]]
            no_worse &= each[:, None] <= each[None, :]
        # Of rows that are the same the first is kept: beaten by an earlier one, or by one that it is not as good as.
        beaten = np.triu(no_worse, 1).any(axis=0) | np.tril(no_worse & ~no_worse.T, -1).any(axis=0)
        best.append(own[~beaten])
    return np.sort(np.concatenate(best)) if best else np.zeros(0, dtype=np.intp)


def _pairs(prefill_sizes: NDArray[np.float64], decode_sizes: NDArray[np.float64], widest: int) -> int:
    """Return how many replicas there are: pairs of set-ups times the worker counts that `widest` allows."""
    p, p_each = np.unique(prefill_sizes, return_counts=True)
    d, d_each = np.unique(decode_sizes, return_counts=True)
    n = np.arange(1, MOST_WORKERS + 1)
    most = np.clip((widest - n[:, None, None] * p[:, None]) // d, 0, MOST_WORKERS).sum(axis=0)
    return int(p_each @ most @ d_each)


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
