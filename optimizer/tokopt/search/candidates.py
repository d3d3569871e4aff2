"""The best replicas of each size on each accelerator, found by bound and prune.

Screening bounds every set-up; candidates are then evaluated with the queueing model in the order of their bounds
until no bound is above what has been reached. What is left out is therefore beaten by what is kept, at the same
number of accelerators and so at the same price, power and nodes.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from tokopt.domain.accelerators import Accelerator
from tokopt.domain.deployments import Deployment, ServingMode
from tokopt.domain.features import Feature
from tokopt.domain.workloads import Workload
from tokopt.perf.arrays import keep_freed_memory
from tokopt.perf.caching import served
from tokopt.perf.deployed import decode_layout, decode_worker
from tokopt.perf.describe import memory_slots
from tokopt.perf.queueing import Limits, Profile, capacity, capped
from tokopt.search.caching import most_found, settled, with_restores
from tokopt.search.leads import Aggregated, Disaggregated, Leads
from tokopt.search.overlapping import said_of_halves
from tokopt.search.pools import Prefills, pairing, prefills_of
from tokopt.search.screening import Screened, decode_steps, screen, without_threshold
from tokopt.search.setups import legal_layouts, most_per_rank, setups
from tokopt.search.space import Family, SearchSpace, as_run, families_in, family_of, profile_of

# Set-ups of one size that are evaluated at most where prompts repeat: settling caches takes as long as a screening, and
# bounds that take caches to be as empty as they get may leave hundreds.
MOST_SETTLED = 32
FORESEEN = 16  # set-ups of one size whose steady states are computed at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One replica set-up with its exact running cap, profile and capacity within the limits."""

    family: Family
    deployment: Deployment
    profile: Profile
    capacity_requests_per_s: float
    sending: Family | None = None  # of the prefill pool, where it is on another accelerator

    @property
    def accelerators(self) -> int:
        """Accelerators of one replica."""
        return self.deployment.accelerators


@dataclass(frozen=True, slots=True, kw_only=True)
class Apart:
    """What a family's pools can do, each by itself."""

    family: Family
    prefills: Prefills
    decodes: Screened

    @property
    def kind(self) -> Hashable:
        """What both pools of a replica have to share: the software, all precisions, and what drafts."""
        of = self.family
        drafts = of.speculator.name if of.speculator else None
        return of.framework.name, of.precision.name, of.kv_precision, drafts


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
    apart: list[Apart] = field(default_factory=list)  # what pools here can do beside pools on other accelerators

    def count(self, screened: Screened) -> None:
        """Add what a screening looked at."""
        self.considered += screened.considered
        self.did_not_fit += screened.did_not_fit
        self.missed_limits += screened.missed_limits
        self.fastest_tpot_s = min(self.fastest_tpot_s, screened.fastest_tpot_s)
        self.fastest_first_token_s = min(self.fastest_first_token_s, screened.fastest_first_token_s)


@dataclass(slots=True, kw_only=True)
class Prepared:
    """The part of a search that does not depend on the units on offer: what was screened, and is worth evaluating.

    Profiles are kept for the next set of unit sizes; they are what evaluating takes longest for.
    """

    space: SearchSpace
    leads: list[Leads]
    screened: SearchReport
    kept: dict[tuple[int, int], tuple[Deployment, Profile | None]] = field(default_factory=dict)
    kept_slots: int = 0
    most_slots: int = 0  # of profiles that are kept; an element is about 60 bytes

    @property
    def repeats(self) -> bool:
        """Whether what caches find depends on the set-up."""
        return self.space.workload.reuse is not None

    def foresee(self, owner: NDArray[np.intp], row: NDArray[np.intp]) -> None:
        """Compute what is not kept of set-ups that are evaluated next."""
        if self.repeats:
            return
        for number in sorted(set(owner.tolist())):  # np.unique would load numpy.ma
            rows = [k for k in row[owner == number].tolist() if (number, k) not in self.kept]
            if rows:
                self.leads[number].foresee(rows)

    def bounded(
        self, owner: NDArray[np.intp], row: NDArray[np.intp], bounds: NDArray[np.float64], above: float
    ) -> NDArray[np.float64]:
        """Return bounds of set-ups that serve more than `above`: lower ones where caches hold less. [requests/s]"""
        if not self.repeats:
            return bounds
        lower = bounds.copy()
        for number in sorted(set(owner.tolist())):
            own = owner == number
            lower[own] = self.leads[number].with_caches(row[own], bounds[own], above)
        return lower

    def profiled(self, owner: int, row: int, above: float) -> tuple[Deployment, Profile | None]:
        """Return a set-up with its profile under the largest running cap that meets the TPOT limit.

        Where prompts repeat, with its caches settled; None if it then cannot serve more than `above`. [requests/s]
        """
        known = self.kept.get((owner, row))
        if known is not None:
            return known
        lead = self.leads[owner]
        deployment, most = lead.setup(row)
        if self.repeats:
            deployment, profile = settled(lead.family, self.space, deployment, most, above=above)
            if profile is None:
                return deployment, None
        else:
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
        deployment, profile = self.profiled(owner, row, above)
        if profile is None:
            return None
        rate = capacity(profile, self.space.limits, above=above)
        if rate <= above:
            return None
        cap = profile.slots * profile.workers
        return Candidate(
            family=with_restores(lead.family, deployment),
            deployment=deployment.model_copy(update={"max_running_requests": cap}),
            profile=profile,
            capacity_requests_per_s=rate,
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
    leads: list[Leads] = []
    prefills: dict[Hashable, Prefills] = {}
    for family in families_in(space, accelerator):
        workload = most_found(family, space)
        bounding = without_threshold(family)
        decoders = setups(family, space.widest, role="decode")
        decode = decode_steps(bounding, decoders, workload)
        if ServingMode.AGG in space.modes:
            screened = screen(
                bounding,
                setups(family, space.widest, role="agg"),
                workload,
                space.limits,
                prefill=True,
                decode=decode,
            )
            report.count(screened)
            leads.append(Aggregated(family, space, screened))
        if ServingMode.DISAGG in space.modes and Feature.DISAGG in family.features:
            # Families that differ in what drafts prefill alike, unless what drafts leaves them fewer layouts.
            like = (family.framework.name, family.precision.name, family.kv_precision)
            key = (*like, legal_layouts(family, space.widest))
            if key not in prefills or workload is not space.workload:
                prefills[key] = prefills_of(family, workload, space.limits, space.widest)
            screened = screen(bounding, decoders, workload, space.limits, prefill=False, decode=decode)
            leads.append(_paired(family, space, screened, report, prefills[key]))
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
        best: Candidate | None = None
        seen: set[Hashable] = set()
        left, most = np.arange(bounds.size), MOST_SETTLED if prepared.repeats else bounds.size
        while left.size and most > 0:
            reached = max(floor, best.capacity_requests_per_s if best else 0.0)
            bounds[left] = prepared.bounded(owner[left], row[left], bounds[left], reached)
            left = left[bounds[left] > reached]
            # Equal bounds keep the order of enumeration, so that runs agree to the last digit.
            left = left[np.argsort(-bounds[left], kind="stable")]
            ahead, left, most = left[:FORESEEN], left[FORESEEN:], most - FORESEEN
            prepared.foresee(owner[ahead], row[ahead])
            for index in ahead.tolist():
                reached = max(floor, best.capacity_requests_per_s if best else 0.0)
                if bounds[index] <= reached:
                    break
                number, k = int(owner[index]), int(row[index])
                # Frameworks with the same constants offer the same set-up twice.
                key = (number, k) if prepared.repeats else (bounds[index], leads[number].twin(k))
                if key in seen:
                    continue
                seen.add(key)
                best = prepared.candidate(number, k, reached) or best
                report.evaluated += 1
        if best is None:
            continue
        report.candidates.append(with_halves_said(best, prepared.space))
        for unit, share in shares.items():
            best_per_unit[unit] = max(best_per_unit[unit], best.capacity_requests_per_s * share)
    return report


def with_halves_said(candidate: Candidate, space: SearchSpace) -> Candidate:
    """Return a candidate whose deployment says which of its pools run steps as two halves."""
    workload = served(space.workload, candidate.deployment.caching)
    slots = candidate.profile.slots
    said = said_of_halves(candidate.family, candidate.deployment, workload, slots, candidate.sending)
    return candidate if said is candidate.deployment else replace(candidate, deployment=said)


def replicas_per_unit(size: int, unit: int) -> float:
    """Replicas of `size` accelerators that one unit holds; below one if a replica spans several units."""
    return float(unit // size) if size <= unit else 1.0 / -(-size // unit)


def capped_profile(
    family: Family,
    deployment: Deployment,
    workload: Workload,
    limits: Limits,
    most: int,
    *,
    sending: Family | None = None,
) -> Profile | None:
    """Return the profile with the largest running cap up to `most` whose full occupancy meets the TPOT limit.

    Figures at n do not depend on the cap, so one profile tells where to cut. `sending` is the family of a prefill pool
    that is on another accelerator.
    """
    if most < 1:
        return None
    return capped(profile_of(family, deployment, workload, most, sending), limits)


def best_cap(candidate: Candidate, workload: Workload, limits: Limits) -> Profile | None:
    """Return a candidate's profile with the running cap that other limits allow: the same set-up, fuller or emptier."""
    return fullest(candidate.family, candidate.deployment, workload, limits, sending=candidate.sending)


def fullest(
    family: Family, deployment: Deployment, workload: Workload, limits: Limits, *, sending: Family | None = None
) -> Profile | None:
    """Return the profile of a set-up with the largest running cap that memory and limits allow; None without one."""
    most = most_running(family, deployment, workload)
    found = served(workload, deployment.caching)
    return capped_profile(family, deployment, found, limits, most, sending=sending)


def most_running(family: Family, deployment: Deployment, workload: Workload) -> int:
    """Return the requests in service of a decode worker that memory and the cap on sequences a rank allow."""
    layout, _ = decode_layout(deployment)
    accepted = float(family.accepted[deployment.speculation_depth])
    held = memory_slots(
        family.model,
        family.machine,
        decode_worker(deployment, accepted),
        workload,
        prefill=deployment.mode is ServingMode.AGG,
    )
    return int(min(held, most_per_rank(family.framework) * layout.dp * layout.pp))


def evaluated(accelerator: Accelerator, space: SearchSpace, deployment: Deployment) -> Candidate | None:
    """Return a set-up that is given, with the running cap and capacity that it has within the space's limits.

    None where the space has nothing like it, or the limits allow not one request.
    """
    family = family_of(space, accelerator, deployment)
    if family is None or deployment.speculation_depth >= family.accepted.size:
        return None
    deployment = as_run(family, deployment)
    if space.workload.reuse is not None:
        most = most_running(family, deployment, space.workload)
        deployment, profile = settled(family, space, deployment, most) if most else (deployment, None)
    else:
        deployment = deployment.model_copy(update={"caching": None})
        profile = fullest(family, deployment, space.workload, space.limits)
    rate = 0.0 if profile is None else capacity(profile, space.limits)
    if profile is None or rate <= 0.0:
        return None
    cap = profile.slots * profile.workers
    fitted = deployment.model_copy(update={"max_running_requests": cap})
    return Candidate(
        family=with_restores(family, fitted), deployment=fitted, profile=profile, capacity_requests_per_s=rate
    )


def _paired(
    family: Family, space: SearchSpace, decode: Screened, report: SearchReport, prefill: Prefills
) -> Disaggregated:
    report.count(decode)
    pairs = pairing(prefill, decode, space.widest)
    if space.workload.reuse is None:
        report.apart.append(Apart(family=family, prefills=prefill, decodes=decode))
    report.considered += pairs.considered
    report.did_not_fit += pairs.did_not_fit
    report.missed_limits += pairs.missed_limits
    return Disaggregated(family, space, pairs)
