"""Set-ups worth evaluating, by size and bound: of one pool, and of a prefill and a decode pool."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from tokopt.domain.deployments import Deployment, Pool, ServingMode
from tokopt.perf.queueing import LOAD_LIMIT, Profile, at_rate, capped, saturation
from tokopt.perf.replica import aggregated_profiles, behind_pool, decode_profiles, moved_s
from tokopt.search.cache_bounds import CachesApart, CachesTogether
from tokopt.search.pools import MOST_WORKERS, Pairing, PairRows, in_time
from tokopt.search.screening import Screened
from tokopt.search.setups import Setups, layout_of, worker_of
from tokopt.search.space import Family, SearchSpace, deployment_of

NO_ROWS, NO_BOUNDS = np.zeros(0, dtype=np.intp), np.zeros(0)
Code = TypeVar("Code", int, NDArray[np.intp])
WORKER_CODES = MOST_WORKERS + 1  # worker counts in the number of a row


class Leads(Protocol):
    """Set-ups worth evaluating: by size with their bounds, and how to evaluate one of them. A row is one set-up."""

    @property
    def family(self) -> Family:
        """What they share."""

    @property
    def sizes(self) -> frozenset[int]:
        """Accelerators that they have."""

    def of_size(self, size: int, above: float) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Return the rows of a size whose bound is above a rate, and the bounds. [requests/s]"""

    def with_caches(self, rows: NDArray[np.intp], bounds: NDArray[np.float64], above: float) -> NDArray[np.float64]:
        """Return bounds of rows that serve more than `above` with no more found than caches hold. [requests/s]"""

    def promising(self, row: int, above: float) -> bool:
        """Whether a row may serve more than `above` within the limits, as far as is seen at once."""

    def setup(self, row: int) -> tuple[Deployment, int]:
        """Return a row's deployment, and the most requests in service."""

    def foresee(self, rows: Sequence[int]) -> None:
        """Be told the rows that are profiled next, to compute them at once."""

    def profile(self, row: int) -> Profile:
        """Return a row's profile up to the most requests in service."""

    def twin(self, row: int) -> Hashable:
        """Return what is equal for rows that serve exactly the same."""


class Aggregated:
    """Set-ups that prefill and decode on the same accelerators."""

    def __init__(self, family: Family, space: SearchSpace, screened: Screened) -> None:
        self.family = family
        self._space, self._setups, self._most = space, screened.setups, screened.most
        self._bounds = screened.bound_requests_per_s
        self._of_size: dict[int, NDArray[np.intp]] = {}
        accelerators = screened.setups.accelerators.astype(np.intp)
        for size in set(accelerators.tolist()):
            self._of_size[size] = np.flatnonzero(accelerators == size)
        self._foreseen: dict[int, Callable[[], Profile]] = {}

    @cached_property
    def _like(self) -> Hashable:
        return _alike(self.family)

    @property
    def sizes(self) -> frozenset[int]:
        """See `Leads.sizes`."""
        return frozenset(self._of_size)

    def of_size(self, size: int, above: float) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """See `Leads.of_size`."""
        rows = self._of_size.get(size, NO_ROWS)
        bounds = self._bounds[rows]
        return rows[bounds > above], bounds[bounds > above]

    def with_caches(self, rows: NDArray[np.intp], bounds: NDArray[np.float64], above: float) -> NDArray[np.float64]:
        """See `Leads.with_caches`."""
        return self._cached.of(rows, bounds, above)

    @cached_property
    def _cached(self) -> CachesTogether:
        return CachesTogether(self.family, self._space, self._setups)

    def promising(self, _row: int, _above: float) -> bool:
        """See `Leads.promising`."""
        return True  # screening has seen to it

    def setup(self, row: int) -> tuple[Deployment, int]:
        """See `Leads.setup`."""
        deployment = deployment_of(
            self.family,
            self._space,
            mode=ServingMode.AGG,
            layout=layout_of(self._setups, row),
            speculation_depth=int(self._setups.depth[row]),
            chunk_tokens=int(self._setups.chunk_tokens[row]),
        )
        return deployment, int(self._most[row])

    def foresee(self, rows: Sequence[int]) -> None:
        """See `Leads.foresee`."""
        workers = [worker_of(self._setups, row) for row in rows]
        slots = [int(self._most[row]) for row in rows]
        workload = self._space.workload
        profile_of = aggregated_profiles(self.family.model, self.family.machine, workers, workload, slots=slots)
        self._foreseen.update({row: partial(profile_of, number) for number, row in enumerate(rows)})

    def profile(self, row: int) -> Profile:
        """See `Leads.profile`."""
        if row not in self._foreseen:
            self.foresee([row])
        return self._foreseen.pop(row)()

    def twin(self, row: int) -> Hashable:
        """See `Leads.twin`."""
        return self._like, _pipelined(self.family, self._setups, row), self._setups.values(row), int(self._most[row])


class Disaggregated:
    """Pairs of a prefill and a decode pool. A row is prefill and decode set-up and both worker counts in one number.

    `family` is what decodes; `sending` is what prefills, where that is another accelerator.
    """

    def __init__(self, family: Family, space: SearchSpace, pairs: Pairing, sending: Family | None = None) -> None:
        self.family, self.sending = family, sending
        self.sizes = pairs.sizes
        self._space, self._pairs = space, pairs
        self._decoding: dict[int, Profile] = {}  # by decode set-up: of one worker
        self._capped: dict[int, Profile | None] = {}  # the same within the TPOT limit
        self._foreseen: dict[int, Callable[[], Profile]] = {}
        self._prefills_in_time: dict[tuple[int, int], tuple[float, float]] = {}
        self._decodes_in_time: dict[int, tuple[float, float]] = {}

    @cached_property
    def _like(self) -> Hashable:
        return _alike(self.family) if self.sending is None else (_alike(self.family), _alike(self.sending))

    def of_size(self, size: int, above: float) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """See `Leads.of_size`."""
        if self._pairs.highest * size <= above:  # most families, most of the time
            return NO_ROWS, NO_BOUNDS
        return self._coded(self._pairs.of_size(size, above))

    def of_counts(self, prefill: int, decode: int, above: float) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Return the rows with so many accelerators in each pool whose bound is above a rate, and the bounds."""
        return self._coded(self._pairs.of_counts(prefill, decode, above))

    def _coded(self, rows: PairRows) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        codes = (rows.prefill * max(len(self._pairs.decodes), 1) + rows.decode) * WORKER_CODES + rows.prefill_workers
        return codes * WORKER_CODES + rows.decode_workers, rows.bound_requests_per_s

    def with_caches(self, rows: NDArray[np.intp], bounds: NDArray[np.float64], above: float) -> NDArray[np.float64]:
        """See `Leads.with_caches`."""
        p, d, x, y = self._row(rows)
        pairs = PairRows(prefill=p, decode=d, prefill_workers=x, decode_workers=y, bound_requests_per_s=bounds)
        return self._cached.of(pairs, above)

    @cached_property
    def _cached(self) -> CachesApart:
        return CachesApart(self.family, self._space, self._pairs)

    def _row(self, code: Code) -> tuple[Code, Code, Code, Code]:
        """Return prefill and decode set-up, and the workers of each, of one row or of many."""
        code, y = divmod(code, WORKER_CODES)
        code, x = divmod(code, WORKER_CODES)
        p, d = divmod(code, max(len(self._pairs.decodes), 1))
        return p, d, x, y

    def promising(self, row: int, above: float) -> bool:
        """Look at each pool by itself: what is known of it answers for all its pairs, as latencies grow with rates."""
        p, d, x, y = self._row(row)
        limits, workload = self._space.limits, self._space.workload

        def prefills(rate: float) -> bool:
            ends = [self.family] if self.sending is None else [self.family, self.sending]
            least_s = max(end.machine.handover_s for end in ends) + max(end.machine.request_overhead_s for end in ends)
            return in_time(self._pairs.pool(p, x, float(least_s)), rate, workload, limits)

        if not _holds(self._prefills_in_time, (p, x), above, prefills):
            return False
        # An end-to-end limit sets the running cap, which then depends on the pair.
        return math.isfinite(limits.e2e_s) or _holds(self._decodes_in_time, d, above / y, partial(self._decodes, d))

    def _decodes(self, d: int, rate: float) -> bool:
        if d not in self._capped:
            self._capped[d] = capped(self._decode_profile(d), self._space.limits)
        profile = self._capped[d]
        if profile is None or rate >= LOAD_LIMIT * saturation(profile):
            return False
        limits = self._space.limits
        return limits.met_by(at_rate(profile, rate, (limits.statistic,)))

    def setup(self, row: int) -> tuple[Deployment, int]:
        """See `Leads.setup`."""
        p, d, x, y = self._row(row)
        first, second = (None, None) if self.sending is None else (self.sending.accelerator, self.family.accelerator)
        deployment = deployment_of(
            self.family,
            self._space,
            mode=ServingMode.DISAGG,
            prefill=Pool(workers=x, layout=layout_of(self._pairs.prefills, p), accelerator=first and first.name),
            decode=Pool(workers=y, layout=layout_of(self._pairs.decodes, d), accelerator=second and second.name),
            speculation_depth=int(self._pairs.decodes.depth[d]),
            chunk_tokens=int(self._pairs.prefills.chunk_tokens[p]),
        )
        return deployment, int(self._pairs.most[d])

    def foresee(self, rows: Sequence[int]) -> None:
        """See `Leads.foresee`."""
        decodes = {self._row(row)[1] for row in rows}
        new = sorted(decodes - self._decoding.keys() - self._foreseen.keys())
        if not new:
            return
        profile_of = decode_profiles(
            self.family.model,
            self.family.machine,
            [worker_of(self._pairs.decodes, d) for d in new],
            self._space.workload,
            slots=[int(self._pairs.most[d]) for d in new],
        )
        self._foreseen.update({d: partial(profile_of, number) for number, d in enumerate(new)})

    def _decode_profile(self, d: int) -> Profile:
        if d not in self._decoding:
            if d not in self._foreseen:
                self.foresee([d * WORKER_CODES**2])
            self._decoding[d] = self._foreseen.pop(d)()
        return self._decoding[d]

    def profile(self, row: int) -> Profile:
        """See `Leads.profile`."""
        p, d, x, y = self._row(row)
        sender = int(self._pairs.prefills.accelerators[p])
        receiver = int(self._pairs.decodes.accelerators[d])
        move_s = moved_s(
            self.family.model,
            self.family.machine,
            input_tokens=self._space.workload.input_tokens,
            sender=sender,
            receiver=receiver,
            replica=sender * x + receiver * y,
            sending=None if self.sending is None else self.sending.machine,
        )
        return behind_pool(self._decode_profile(d), self._pairs.pool(p, x, move_s), y)

    def twin(self, row: int) -> Hashable:
        """See `Leads.twin`."""
        p, d, x, y = self._row(row)
        pools = self._pairs.prefills.values(p), self._pairs.decodes.values(d)
        return self._like, _pipelined(self.family, self._pairs.prefills, p), *pools, x, y, int(self._pairs.most[d])


def _holds(known: dict[Any, tuple[float, float]], key: Hashable, rate: float, test: Callable[[float], bool]) -> bool:
    """Return whether a test holds at a rate: one that holds at a rate holds below it, one that fails fails above."""
    good, bad = known.get(key, (0.0, math.inf))
    if rate <= good or rate >= bad:
        return rate <= good
    holds = test(rate)
    known[key] = (rate, bad) if holds else (good, rate)
    return holds


def _alike(family: Family) -> Hashable:
    """Return what tells how set-ups of a family perform, but for the requests that fit in memory and for pipelines."""
    plain = replace(family.machine, memory_bytes=0.0, usable_memory_bytes=0.0, chunked_pipeline=0.0)
    return hash(plain), hash(family.model)


def _pipelined(family: Family, chosen: Setups, row: int) -> bool:
    """Whether chunks of a prompt are on several pipeline stages of a set-up at a time."""
    return bool(family.machine.chunked_pipeline and chosen.pp[row] > 1.0)
