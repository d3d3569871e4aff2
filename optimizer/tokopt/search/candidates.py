"""The best replicas of each size on each accelerator, found by bound and prune.

Screening bounds every set-up; candidates are then evaluated with the queueing model in the order of their bounds
until no bound is above what has been reached. What is left out is therefore beaten by what is kept, at the same
number of accelerators and so at the same price, power and nodes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tokopt.domain.accelerators import Accelerator, Framework, Precision
from tokopt.domain.calibration import Calibration
from tokopt.domain.deployments import Deployment, Layout, Pool, ServingMode
from tokopt.domain.features import Feature
from tokopt.domain.llms import Llm
from tokopt.domain.speculators import Speculator
from tokopt.domain.workloads import Workload
from tokopt.perf.arrays import keep_freed_memory
from tokopt.perf.deployed import decode_layout, decode_worker, replica_profile
from tokopt.perf.describe import memory_slots
from tokopt.perf.queueing import LOAD_LIMIT, Limits, Profile, at_rate, capacity, capped, saturation
from tokopt.perf.replica import Worker, aggregated_profiles, behind_pool, decode_profiles, moved_s
from tokopt.search.pools import MOST_WORKERS, Pairing, in_time, pairing
from tokopt.search.screening import DecodeSteps, Screened, decode_steps, screen
from tokopt.search.space import SEQUENCES_PER_RANK, Family, Setups, families, setups

NO_ROWS = np.zeros(0, dtype=np.intp)
WORKER_CODES = MOST_WORKERS + 1  # worker counts in the number of a row
FORESEEN = 16  # set-ups of one size whose steady states are computed at once


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSpace:
    """What may be combined."""

    llm: Llm
    workload: Workload
    limits: Limits
    frameworks: tuple[Framework, ...]
    precisions: tuple[Precision, ...]
    kv_bits: Mapping[str, float]
    modes: tuple[ServingMode, ...]
    calibration: Calibration
    chosen_precisions: bool = False  # precisions were named: conversions that nobody publishes are tried too
    widest: int = 72  # accelerators of one replica
    disabled: frozenset[Feature] = frozenset()  # what to do without, even where it is supported
    speculators: tuple[Speculator, ...] = ()  # what may draft, besides the modules that the checkpoint ships


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One replica set-up with its exact running cap, profile and capacity within the limits."""

    family: Family
    deployment: Deployment
    profile: Profile
    capacity_requests_per_s: float

    @property
    def accelerators(self) -> int:
        """Accelerators of one replica."""
        return self.deployment.accelerators


@dataclass(slots=True, kw_only=True)
class SearchReport:
    """What the search looked at on one accelerator."""

    considered: int = 0
    did_not_fit: int = 0
    missed_limits: int = 0
    evaluated: int = 0
    fastest_tpot_s: float = float("inf")
    fastest_first_token_s: float = float("inf")
    candidates: list[Candidate] = field(default_factory=list)

    def count(self, screened: Screened) -> None:
        """Add what a screening looked at."""
        self.considered += screened.considered
        self.did_not_fit += screened.did_not_fit
        self.missed_limits += screened.missed_limits
        self.fastest_tpot_s = min(self.fastest_tpot_s, screened.fastest_tpot_s)
        self.fastest_first_token_s = min(self.fastest_first_token_s, screened.fastest_first_token_s)


class _Leads(Protocol):
    """Set-ups worth evaluating: by size with their bounds, and how to evaluate one of them. A row is one set-up."""

    @property
    def family(self) -> Family:
        """What they share."""

    @property
    def sizes(self) -> frozenset[int]:
        """Accelerators that they have."""

    def of_size(self, size: int, above: float) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Return the rows of a size whose bound is above a rate, and the bounds. [requests/s]"""

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


@dataclass(slots=True, kw_only=True)
class Prepared:
    """The part of a search that does not depend on the units on offer: what was screened, and is worth evaluating.

    Profiles are kept for the next set of unit sizes; they are what evaluating takes longest for.
    """

    space: SearchSpace
    leads: list[_Leads]
    screened: SearchReport
    kept: dict[tuple[int, int], tuple[Deployment, Profile | None]] = field(default_factory=dict)
    kept_slots: int = 0
    most_slots: int = 0  # of profiles that are kept; an element is about 60 bytes

    def foresee(self, owner: NDArray[np.intp], row: NDArray[np.intp]) -> None:
        """Compute what is not kept of set-ups that are evaluated next."""
        for number in sorted(set(owner.tolist())):  # np.unique would load numpy.ma
            rows = [k for k in row[owner == number].tolist() if (number, k) not in self.kept]
            if rows:
                self.leads[number].foresee(rows)

    def profiled(self, owner: int, row: int) -> tuple[Deployment, Profile | None]:
        """Return a set-up with its profile under the largest running cap that meets the TPOT limit."""
        known = self.kept.get((owner, row))
        if known is not None:
            return known
        lead = self.leads[owner]
        deployment, _ = lead.setup(row)
        profile = capped(lead.profile(row), self.space.limits)
        size = profile.slots if profile else 1
        if self.kept_slots + size > self.most_slots:
            self.kept.clear()
            self.kept_slots = 0
        if size <= self.most_slots:
            self.kept[owner, row] = deployment, profile
            self.kept_slots += size
        return deployment, profile

    def candidate(self, owner: int, row: int, above: float) -> Candidate | None:
        """Return a set-up as a candidate if it can serve more than `above` within the limits. [requests/s]"""
        lead = self.leads[owner]
        if not lead.promising(row, above):
            return None
        deployment, profile = self.profiled(owner, row)
        if profile is None:
            return None
        rate = capacity(profile, self.space.limits, above=above)
        if rate <= above:
            return None
        cap = profile.slots * profile.workers
        return Candidate(
            family=lead.family,
            deployment=deployment.model_copy(update={"max_running_requests": cap}),
            profile=profile,
            capacity_requests_per_s=rate,
        )


def families_in(space: SearchSpace, accelerator: Accelerator) -> Iterator[Family]:
    """Yield the families of an accelerator within a search space."""
    return families(
        accelerator,
        space.frameworks,
        space.precisions,
        dict(space.kv_bits),
        space.llm,
        space.calibration,
        speculators=space.speculators,
        domain=space.workload.domain,
        chosen_precisions=space.chosen_precisions,
        disabled=space.disabled,
    )


def find_candidates(accelerator: Accelerator, space: SearchSpace, unit_sizes: tuple[int, ...]) -> SearchReport:
    """Return the best replica of each size on `accelerator` that a smaller one does not beat.

    Args:
        accelerator: Where to run.
        space: What may be combined, and the limits to meet.
        unit_sizes: Accelerators of the units that are on offer: whole replicas share a unit, or span several.

    Returns:
        Candidates by size, and counts of what was looked at.
    """
    return choose(prepare(accelerator, space), unit_sizes)


def prepare(accelerator: Accelerator, space: SearchSpace, *, most_slots: int = 0) -> Prepared:
    """Return what `find_candidates` does before it looks at units.

    Args:
        accelerator: Where to run.
        space: What may be combined, and the limits to meet.
        most_slots: Running requests, summed over profiles, up to which profiles are kept for further sets of units.
    """
    keep_freed_memory()
    report = SearchReport()
    leads: list[_Leads] = []
    for family in families_in(space, accelerator):
        decode = decode_steps(family, space.workload, space.widest)
        if ServingMode.AGG in space.modes:
            screened = screen(
                family,
                setups(family, space.widest, role="agg"),
                space.workload,
                space.limits,
                prefill=True,
                decode=decode,
            )
            report.count(screened)
            leads.append(_Aggregated(family, space, screened))
        if ServingMode.DISAGG in space.modes and Feature.DISAGG in family.features:
            leads.append(_paired(family, space, report, decode))
    return Prepared(space=space, leads=leads, screened=report, most_slots=most_slots)


def choose(prepared: Prepared, unit_sizes: tuple[int, ...]) -> SearchReport:
    """Evaluate leads size by size, best bound first, and keep the best of each size that earns its place."""
    report, leads = replace(prepared.screened, candidates=[]), prepared.leads
    best_per_unit = dict.fromkeys(unit_sizes, 0.0)
    for size in sorted(frozenset().union(*(lead.sizes for lead in leads))):
        # A larger replica earns its place only if it serves more from some unit than every smaller one.
        shares = {unit: replicas_per_unit(size, unit) for unit in unit_sizes}
        floor = min((best_per_unit[u] / share for u, share in shares.items() if share > 0), default=np.inf)
        found = [lead.of_size(size, floor) for lead in leads]
        owner = np.repeat(np.arange(len(leads)), [rows.size for rows, _ in found])
        row = np.concatenate([rows for rows, _ in found])
        bounds = np.concatenate([bound for _, bound in found])
        # Equal bounds keep the order of enumeration, so that runs agree to the last digit.
        order = np.argsort(-bounds, kind="stable")
        best: Candidate | None = None
        seen: set[Hashable] = set()
        for place, index in enumerate(order.tolist()):
            reached = max(floor, best.capacity_requests_per_s if best else 0.0)
            if bounds[index] <= reached:
                break
            if place % FORESEEN == 0:
                ahead = order[place : place + FORESEEN]
                ahead = ahead[bounds[ahead] > reached]
                prepared.foresee(owner[ahead], row[ahead])
            number, k = int(owner[index]), int(row[index])
            # Frameworks with the same constants offer the same set-up twice.
            key = (bounds[index], leads[number].twin(k))
            if key in seen:
                continue
            seen.add(key)
            best = prepared.candidate(number, k, reached) or best
            report.evaluated += 1
        if best is None:
            continue
        report.candidates.append(best)
        for unit, share in shares.items():
            best_per_unit[unit] = max(best_per_unit[unit], best.capacity_requests_per_s * share)
    return report


def replicas_per_unit(size: int, unit: int) -> float:
    """Replicas of `size` accelerators that one unit holds; below one if a replica spans several units."""
    return float(unit // size) if size <= unit else 1.0 / -(-size // unit)


def layout_of(chosen: Setups, row: int) -> Layout:
    """Return the layout of one set-up."""
    return Layout(tp=int(chosen.tp[row]), pp=int(chosen.pp[row]), ep=int(chosen.ep[row]), dp=int(chosen.dp[row]))


def worker_of(chosen: Setups, row: int) -> Worker:
    """Return the worker of one set-up."""
    return Worker(
        tp=int(chosen.tp[row]),
        pp=int(chosen.pp[row]),
        ep=int(chosen.ep[row]),
        dp=int(chosen.dp[row]),
        depth=int(chosen.depth[row]),
        accepted=float(chosen.accepted[row]),
        chunk_tokens=int(chosen.chunk_tokens[row]),
    )


def deployment_of(family: Family, space: SearchSpace, **settings: Any) -> Deployment:
    """Return a deployment of a family with the given layout and settings."""
    return Deployment(
        accelerator=family.accelerator.name,
        framework=family.framework.name,
        llm=space.llm.name,
        precision=family.precision.name,
        kv_precision=family.kv_precision,
        speculator=family.speculator.name if family.speculator else None,
        **settings,
    )


def _profile(family: Family, deployment: Deployment, workload: Workload, slots: int) -> Profile:
    accepted = float(family.accepted[deployment.speculation_depth])
    return replica_profile(family.model, family.machine, deployment, workload, accepted=accepted, slots=slots)


def capped_profile(
    family: Family, deployment: Deployment, workload: Workload, limits: Limits, most: int
) -> Profile | None:
    """Return the profile with the largest running cap up to `most` whose full occupancy meets the TPOT limit.

    Figures at n do not depend on the cap, so one profile tells where to cut.
    """
    return capped(_profile(family, deployment, workload, most), limits) if most >= 1 else None


def best_cap(candidate: Candidate, workload: Workload, limits: Limits) -> Profile | None:
    """Return a candidate's profile with the running cap that other limits allow: the same set-up, fuller or emptier."""
    return fullest(candidate.family, candidate.deployment, workload, limits)


def fullest(family: Family, deployment: Deployment, workload: Workload, limits: Limits) -> Profile | None:
    """Return the profile of a set-up with the largest running cap that memory and limits allow; None without one."""
    layout, _ = decode_layout(deployment)
    accepted = float(family.accepted[deployment.speculation_depth])
    held = memory_slots(
        family.model,
        family.machine,
        decode_worker(deployment, accepted),
        workload,
        prefill=deployment.mode is ServingMode.AGG,
    )
    most = int(min(held, SEQUENCES_PER_RANK * layout.dp * layout.pp))
    return capped_profile(family, deployment, workload, limits, most)


def evaluated(accelerator: Accelerator, space: SearchSpace, deployment: Deployment) -> Candidate | None:
    """Return a set-up that is given, with the running cap and capacity that it has within the space's limits.

    None where the space has nothing like it, or the limits allow not one request.
    """
    for family in families_in(space, accelerator):
        if (family.framework.name, family.precision.name, family.kv_precision) != (
            deployment.framework,
            deployment.precision,
            deployment.kv_precision,
        ):
            continue
        drafts = family.speculator.name if family.speculator else None
        if drafts != deployment.speculator or deployment.speculation_depth >= family.accepted.size:
            continue
        profile = fullest(family, deployment, space.workload, space.limits)
        rate = 0.0 if profile is None else capacity(profile, space.limits)
        if profile is None or rate <= 0.0:
            return None
        cap = profile.slots * profile.workers
        fitted = deployment.model_copy(update={"max_running_requests": cap})
        return Candidate(family=family, deployment=fitted, profile=profile, capacity_requests_per_s=rate)
    return None


def _paired(family: Family, space: SearchSpace, report: SearchReport, steps: DecodeSteps | None) -> _Disaggregated:
    every = setups(family, space.widest, role="decode")
    decode = screen(family, every, space.workload, space.limits, prefill=False, decode=steps)
    report.count(decode)
    pairs = pairing(family, decode, space.workload, space.limits, space.widest)
    report.considered += pairs.considered
    report.did_not_fit += pairs.did_not_fit
    report.missed_limits += pairs.missed_limits
    return _Disaggregated(family, space, pairs)


class _Aggregated:
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
        self._like = _alike(family)

    @property
    def sizes(self) -> frozenset[int]:
        return frozenset(self._of_size)

    def of_size(self, size: int, above: float) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        rows = self._of_size.get(size, NO_ROWS)
        bounds = self._bounds[rows]
        return rows[bounds > above], bounds[bounds > above]

    def promising(self, _row: int, _above: float) -> bool:
        return True  # screening has seen to it

    def setup(self, row: int) -> tuple[Deployment, int]:
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
        workers = [worker_of(self._setups, row) for row in rows]
        slots = [int(self._most[row]) for row in rows]
        workload = self._space.workload
        profile_of = aggregated_profiles(self.family.model, self.family.machine, workers, workload, slots=slots)
        self._foreseen.update({row: partial(profile_of, number) for number, row in enumerate(rows)})

    def profile(self, row: int) -> Profile:
        if row not in self._foreseen:
            self.foresee([row])
        return self._foreseen.pop(row)()

    def twin(self, row: int) -> Hashable:
        return self._like, self._setups.values(row), int(self._most[row])


class _Disaggregated:
    """Pairs of a prefill and a decode pool. A row is prefill and decode set-up and both worker counts in one number."""

    def __init__(self, family: Family, space: SearchSpace, pairs: Pairing) -> None:
        self.family = family
        self.sizes = pairs.sizes
        self._space, self._pairs = space, pairs
        self._decoding: dict[int, Profile] = {}  # by decode set-up: of one worker
        self._foreseen: dict[int, Callable[[], Profile]] = {}
        self._prefills_in_time: dict[tuple[int, int], tuple[float, float]] = {}
        self._decodes_in_time: dict[int, tuple[float, float]] = {}
        self._like = _alike(family)

    def of_size(self, size: int, above: float) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        rows = self._pairs.of_size(size, above)
        codes = (rows.prefill * max(len(self._pairs.decodes), 1) + rows.decode) * WORKER_CODES + rows.prefill_workers
        return codes * WORKER_CODES + rows.decode_workers, rows.bound_requests_per_s

    def _row(self, code: int) -> tuple[int, int, int, int]:
        code, y = divmod(code, WORKER_CODES)
        code, x = divmod(code, WORKER_CODES)
        p, d = divmod(code, max(len(self._pairs.decodes), 1))
        return p, d, x, y

    def promising(self, row: int, above: float) -> bool:
        """Look at each pool by itself: what is known of it answers for all its pairs, as latencies grow with rates."""
        p, d, x, y = self._row(row)
        limits, workload = self._space.limits, self._space.workload

        def prefills(rate: float) -> bool:
            least_s = self.family.machine.handover_s + self.family.machine.request_overhead_s
            return in_time(self._pairs.pool(p, x, float(least_s)), rate, workload, limits)

        if not _holds(self._prefills_in_time, (p, x), above, prefills):
            return False
        # An end-to-end limit sets the running cap, which then depends on the pair.
        return math.isfinite(limits.e2e_s) or _holds(self._decodes_in_time, d, above / y, partial(self._decodes, d))

    def _decodes(self, d: int, rate: float) -> bool:
        profile = capped(self._decode_profile(d), self._space.limits)
        if profile is None or rate >= LOAD_LIMIT * saturation(profile):
            return False
        limits = self._space.limits
        return limits.met_by(at_rate(profile, rate, (limits.statistic,)))

    def setup(self, row: int) -> tuple[Deployment, int]:
        p, d, x, y = self._row(row)
        deployment = deployment_of(
            self.family,
            self._space,
            mode=ServingMode.DISAGG,
            prefill=Pool(workers=x, layout=layout_of(self._pairs.prefills, p)),
            decode=Pool(workers=y, layout=layout_of(self._pairs.decodes, d)),
            speculation_depth=int(self._pairs.decodes.depth[d]),
            chunk_tokens=int(self._pairs.prefills.chunk_tokens[p]),
        )
        return deployment, int(self._pairs.most[d])

    def foresee(self, rows: Sequence[int]) -> None:
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
        )
        return behind_pool(self._decode_profile(d), self._pairs.pool(p, x, move_s), y)

    def twin(self, row: int) -> Hashable:
        p, d, x, y = self._row(row)
        pools = self._pairs.prefills.values(p), self._pairs.decodes.values(d)
        return self._like, *pools, x, y, int(self._pairs.most[d])


def _holds(known: dict[Any, tuple[float, float]], key: Hashable, rate: float, test: Callable[[float], bool]) -> bool:
    """Return whether a test holds at a rate: one that holds at a rate holds below it, one that fails fails above."""
    good, bad = known.get(key, (0.0, math.inf))
    if rate <= good or rate >= bad:
        return rate <= good
    holds = test(rate)
    known[key] = (rate, bad) if holds else (good, rate)
    return holds


def _alike(family: Family) -> Hashable:
    """Return what tells how set-ups of a family perform, but for how many requests fit in memory."""
    return hash(replace(family.machine, memory_bytes=0.0, usable_memory_bytes=0.0)), hash(family.model)
