"""The best replicas of each size on each accelerator, found by bound and prune.

Screening bounds every set-up; candidates are then evaluated with the queueing model in the order of their bounds
until no bound is above what has been reached. What is left out is therefore beaten by what is kept, at the same
number of accelerators and so at the same price, power and nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokopt.domain.accelerators import Accelerator, Framework, Precision
from tokopt.domain.calibration import Calibration
from tokopt.domain.deployments import Deployment, Layout, Pool, ServingMode
from tokopt.domain.features import Feature
from tokopt.domain.llms import Llm
from tokopt.domain.workloads import Workload
from tokopt.perf.arrays import keep_freed_memory
from tokopt.perf.deployed import decode_layout, decode_worker, replica_profile
from tokopt.perf.describe import memory_slots
from tokopt.perf.queueing import Limits, Profile, capacity, capped
from tokopt.perf.replica import Worker, aggregated_profiles
from tokopt.search.pools import disaggregated_pairs
from tokopt.search.screening import DecodeSteps, Screened, decode_steps, screen
from tokopt.search.space import SEQUENCES_PER_RANK, Family, Setups, families, setups

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


@dataclass(frozen=True, slots=True)
class _Leads:
    """Set-ups worth evaluating: sizes and bounds as arrays, and how to evaluate one of them."""

    family: Family
    sizes: NDArray[np.intp]
    bounds: NDArray[np.float64]
    in_time: Callable[[int, float], bool]  # of a row: it can meet the limits at a rate, as far as is seen at once
    setup: Callable[[int], tuple[Deployment, int]]  # of a row: its deployment, and the most requests in service
    foresee: Callable[[NDArray[np.intp]], None]  # told the rows that are profiled next, to compute them at once
    foreseen: dict[int, Callable[[], Profile]]  # row -> its profile, computed with others
    twin: Callable[[int], Hashable]  # of a row: rows with equal keys serve exactly the same


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
            rows = [k for k in row[owner == number].tolist() if (int(number), k) not in self.kept]
            if rows:
                self.leads[number].foresee(np.array(rows, dtype=np.intp))

    def profiled(self, owner: int, row: int) -> tuple[Deployment, Profile | None]:
        """Return a set-up with its profile under the largest running cap that meets the TPOT limit."""
        known = self.kept.get((owner, row))
        if known is not None:
            return known
        lead = self.leads[owner]
        deployment, slots = lead.setup(row)
        computed = lead.foreseen.pop(row, None)
        full = _profile(lead.family, deployment, self.space.workload, slots) if computed is None else computed()
        profile = capped(full, self.space.limits)
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
        if not lead.in_time(row, above):
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
            leads.append(_aggregated(family, space, report, decode))
        if ServingMode.DISAGG in space.modes and Feature.DISAGG in family.features:
            leads.append(_disaggregated(family, space, report, decode))
    return Prepared(space=space, leads=leads, screened=report, most_slots=most_slots)


def choose(prepared: Prepared, unit_sizes: tuple[int, ...]) -> SearchReport:
    """Evaluate leads size by size, best bound first, and keep the best of each size that earns its place."""
    report, leads = replace(prepared.screened, candidates=[]), prepared.leads
    if not any(lead.sizes.size for lead in leads):
        return report
    sizes = np.concatenate([lead.sizes for lead in leads])
    bounds = np.concatenate([lead.bounds for lead in leads])
    owner = np.concatenate([np.full(lead.sizes.size, k) for k, lead in enumerate(leads)])
    row = np.concatenate([np.arange(lead.sizes.size) for lead in leads])
    best_per_unit = dict.fromkeys(unit_sizes, 0.0)
    # Equal bounds keep the order of enumeration, so that runs agree to the last digit.
    order = np.lexsort((np.arange(sizes.size), -bounds, sizes))
    starts = np.flatnonzero(np.diff(sizes[order], prepend=-1))
    for start, end in zip(starts, [*starts[1:], sizes.size], strict=True):
        size = int(sizes[order[start]])
        # A larger replica earns its place only if it serves more from some unit than every smaller one.
        shares = {unit: replicas_per_unit(size, unit) for unit in unit_sizes}
        floor = min((best_per_unit[u] / share for u, share in shares.items() if share > 0), default=np.inf)
        best: Candidate | None = None
        seen: set[Hashable] = set()
        for place in range(start, end):
            index = order[place]
            reached = max(floor, best.capacity_requests_per_s if best else 0.0)
            if bounds[index] <= reached:
                break
            if (place - start) % FORESEEN == 0:
                ahead = order[place : min(place + FORESEEN, end)]
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
        profile = fullest(family, deployment, space.workload, space.limits)
        rate = 0.0 if profile is None else capacity(profile, space.limits)
        if profile is None or rate <= 0.0:
            return None
        cap = profile.slots * profile.workers
        fitted = deployment.model_copy(update={"max_running_requests": cap})
        return Candidate(family=family, deployment=fitted, profile=profile, capacity_requests_per_s=rate)
    return None


def _aggregated(family: Family, space: SearchSpace, report: SearchReport, steps: DecodeSteps | None) -> _Leads:
    every = setups(family, space.widest, role="agg")
    screened = screen(family, every, space.workload, space.limits, prefill=True, decode=steps)
    report.count(screened)
    chosen = screened.setups
    profiles: dict[int, Callable[[], Profile]] = {}

    def foresee(rows: NDArray[np.intp]) -> None:
        workers = [worker_of(chosen, row) for row in rows]
        slots = [int(most) for most in screened.most[rows]]
        profile_of = aggregated_profiles(family.model, family.machine, workers, space.workload, slots=slots)
        profiles.update({int(row): partial(profile_of, number) for number, row in enumerate(rows)})

    def setup(row: int) -> tuple[Deployment, int]:
        deployment = deployment_of(
            family,
            space,
            mode=ServingMode.AGG,
            layout=layout_of(chosen, row),
            speculation_depth=int(chosen.depth[row]),
            chunk_tokens=int(chosen.chunk_tokens[row]),
        )
        return deployment, int(screened.most[row])

    def in_time(_row: int, _above: float) -> bool:
        return True  # screening has seen to it

    like = _alike(family)

    def twin(row: int) -> Hashable:
        return like, chosen.values(row), int(screened.most[row])

    sizes = chosen.accelerators.astype(np.intp)
    return _Leads(family, sizes, screened.bound_requests_per_s, in_time, setup, foresee, profiles, twin)


def _disaggregated(family: Family, space: SearchSpace, report: SearchReport, steps: DecodeSteps | None) -> _Leads:
    every = setups(family, space.widest, role="decode")
    decode = screen(family, every, space.workload, space.limits, prefill=False, decode=steps)
    report.count(decode)
    pairs = disaggregated_pairs(family, decode, space.workload, space.limits, space.widest)
    report.considered += pairs.considered
    report.did_not_fit += pairs.did_not_fit
    report.missed_limits += pairs.missed_limits

    def in_time(row: int, above: float) -> bool:
        return pairs.in_time(row, above, space.workload, space.limits)

    def setup(row: int) -> tuple[Deployment, int]:
        p, d = int(pairs.prefill_row[row]), int(pairs.decode_row[row])
        deployment = deployment_of(
            family,
            space,
            mode=ServingMode.DISAGG,
            prefill=Pool(workers=int(pairs.prefill_workers[row]), layout=layout_of(pairs.prefills, p)),
            decode=Pool(workers=int(pairs.decode_workers[row]), layout=layout_of(decode.setups, d)),
            speculation_depth=int(decode.setups.depth[d]),
            chunk_tokens=int(pairs.prefills.chunk_tokens[p]),
        )
        return deployment, int(decode.most[d])

    like = _alike(family)

    def twin(row: int) -> Hashable:
        p, d = int(pairs.prefill_row[row]), int(pairs.decode_row[row])
        counts = int(pairs.prefill_workers[row]), int(pairs.decode_workers[row])
        return like, pairs.prefills.values(p), decode.setups.values(d), counts, int(decode.most[d])

    # Most pairs are not in time and never evaluated: nothing is computed ahead for them.
    return _Leads(family, pairs.accelerators, pairs.bound_requests_per_s, in_time, setup, lambda _: None, {}, twin)


def _alike(family: Family) -> Hashable:
    """Return what tells how set-ups of a family perform, but for how many requests fit in memory."""
    return hash(replace(family.machine, memory_bytes=0.0, usable_memory_bytes=0.0)), hash(family.model)
