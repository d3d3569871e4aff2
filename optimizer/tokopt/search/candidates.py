"""The best replicas of each size on each accelerator, found by bound and prune.

Screening bounds every set-up; candidates are then evaluated with the queueing model in the order of their bounds
until no bound is above what has been reached. What is left out is therefore beaten by what is kept, at the same
number of accelerators and so at the same price, power and nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from tokopt.domain.accelerators import Accelerator, Framework, Precision
from tokopt.domain.calibration import Calibration
from tokopt.domain.deployments import Deployment, Layout, Pool, ServingMode
from tokopt.domain.llms import Llm
from tokopt.domain.workloads import Workload
from tokopt.perf.layouts import Layouts
from tokopt.perf.queueing import Limits, Profile, capacity
from tokopt.perf.replica import Worker, aggregated_profile, disaggregated_profile, prompts_a_batch
from tokopt.perf.serving import lengths
from tokopt.perf.step import step_time
from tokopt.search.screening import Screened, safety, screen
from tokopt.search.space import Family, Setups, families, setups

MOST_WORKERS = 12  # of one pool of a disaggregated replica


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
    widest: int = 72  # accelerators of one replica


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
    candidates: list[Candidate] = field(default_factory=list)

    def count(self, screened: Screened) -> None:
        """Add what a screening looked at."""
        self.considered += screened.considered
        self.did_not_fit += screened.did_not_fit
        self.missed_limits += screened.missed_limits
        self.fastest_tpot_s = min(self.fastest_tpot_s, screened.fastest_tpot_s)


@dataclass(frozen=True, slots=True)
class _Lead:
    """A set-up worth evaluating: its size, its bound, and how to evaluate it."""

    accelerators: int
    bound: float
    order: int  # ties are broken by the order of enumeration, so that runs agree to the last digit
    build: Callable[[], Candidate | None]


def find_candidates(accelerator: Accelerator, space: SearchSpace, unit_sizes: tuple[int, ...]) -> SearchReport:
    """Return the best replica of each size on `accelerator` that another size does not beat.

    Args:
        accelerator: Where to run.
        space: What may be combined, and the limits to meet.
        unit_sizes: Accelerators of the units that are on offer: whole replicas share a unit, or span several.

    Returns:
        Candidates by size, and counts of what was looked at.
    """
    report = SearchReport()
    leads: list[_Lead] = []
    for family in families(
        accelerator, space.frameworks, space.precisions, dict(space.kv_bits), space.llm, space.calibration
    ):
        if ServingMode.AGG in space.modes:
            leads.extend(_aggregated_leads(family, space, report, len(leads)))
        if ServingMode.DISAGG in space.modes and "disagg" in family.features:
            leads.extend(_disaggregated_leads(family, space, report, len(leads)))
    by_size: dict[int, list[_Lead]] = {}
    for lead in leads:
        by_size.setdefault(lead.accelerators, []).append(lead)
    best_per_unit = dict.fromkeys(unit_sizes, 0.0)
    for size in sorted(by_size):
        ranked = sorted(by_size[size], key=lambda lead: (-lead.bound, lead.order))
        # A larger replica earns its place only if it serves more from some unit than every smaller one.
        floor = min((best_per_unit[u] / _share(size, u) for u in unit_sizes), default=0.0)
        best: Candidate | None = None
        for lead in ranked:
            if lead.bound <= max(floor, best.capacity_requests_per_s if best else 0.0):
                break
            candidate = lead.build()
            report.evaluated += 1
            if candidate and (best is None or candidate.capacity_requests_per_s > best.capacity_requests_per_s):
                best = candidate
        if best is None or best.capacity_requests_per_s <= floor:
            continue
        report.candidates.append(best)
        for unit in unit_sizes:
            best_per_unit[unit] = max(best_per_unit[unit], best.capacity_requests_per_s * _share(size, unit))
    return report


def _share(size: int, unit: int) -> float:
    """Replicas of `size` accelerators in one unit; below one if a replica spans several units."""
    return float(unit // size) if size <= unit else 1.0 / -(-size // unit)


def _worker(chosen: Setups, row: int) -> Worker:
    return Worker(
        tp=int(chosen.tp[row]),
        pp=int(chosen.pp[row]),
        ep=int(chosen.ep[row]),
        dp=int(chosen.dp[row]),
        depth=int(chosen.depth[row]),
        accepted=float(chosen.accepted[row]),
        chunk_tokens=int(chosen.chunk_tokens[row]),
    )


def _layout(worker: Worker) -> Layout:
    return Layout(tp=worker.tp, pp=worker.pp, ep=worker.ep, dp=worker.dp)


def _capped(build: Callable[[int], Profile], slots: int, limits: Limits) -> tuple[Profile, int] | None:
    """Return the profile with the largest running cap up to `slots` whose full occupancy meets the TPOT limit."""
    z = safety(limits)
    while slots >= 1:
        profile = build(slots)
        full = float(profile.tpot_s[-1]) + z * float(profile.stall_s[-1]) * slots**0.5
        if full <= limits.tpot_s:
            return profile, slots
        slots = min(slots - 1, int(slots * 0.998))
    return None


def _aggregated_leads(family: Family, space: SearchSpace, report: SearchReport, start: int) -> Iterator[_Lead]:
    screened = screen(family, setups(family, space.widest, role="agg"), space.workload, space.limits, prefill=True)
    report.count(screened)
    sizes = screened.setups.accelerators.astype(int)
    for row in range(len(screened.setups)):

        def build(row: int = row) -> Candidate | None:
            worker = _worker(screened.setups, row)
            capped = _capped(
                lambda slots: aggregated_profile(
                    family.model, family.machine, worker, space.workload, slots=slots
                ),
                int(screened.slots[row]),
                space.limits,
            )
            if capped is None:
                return None
            profile, slots = capped
            deployment = Deployment(
                accelerator=family.accelerator.name,
                framework=family.framework.name,
                llm=space.llm.name,
                precision=family.precision.name,
                kv_precision=family.kv_precision,
                mode=ServingMode.AGG,
                layout=_layout(worker),
                speculation_depth=worker.depth,
                chunk_tokens=worker.chunk_tokens,
                max_running_requests=slots,
            )
            return _candidate(family, deployment, profile, space.limits)

        yield _Lead(int(sizes[row]), float(screened.bound_requests_per_s[row]), start + row, build)


def _candidate(family: Family, deployment: Deployment, profile: Profile, limits: Limits) -> Candidate | None:
    rate = capacity(profile, limits)
    if rate <= 0.0:
        return None
    return Candidate(family=family, deployment=deployment, profile=profile, capacity_requests_per_s=rate)


@dataclass(frozen=True, slots=True)
class _PrefillChoice:
    worker: Worker
    prompts_per_s: float  # of one worker, below the load limit


def _prefill_choices(family: Family, space: SearchSpace, report: SearchReport) -> dict[int, _PrefillChoice]:
    """Return, by number of accelerators, the prefill worker that takes the most prompts a second in time."""
    chosen = setups(family, space.widest, role="prefill")
    size = lengths(space.workload)
    model, machine = family.model, family.machine
    fits = _prefill_fits(family, chosen, space)
    report.considered += len(chosen)
    report.did_not_fit += int((~fits).sum())
    chosen = chosen.pick(fits)
    if not len(chosen):
        return {}
    batch = np.array([prompts_a_batch(size, float(c)) for c in chosen.chunk_tokens])
    chunk = np.minimum(size.new * batch, chosen.chunk_tokens)
    layouts = Layouts(tp=chosen.tp, pp=chosen.pp, ep=chosen.ep, dp=chosen.dp)
    step = step_time(
        model,
        machine,
        layouts,
        sequences=0.0,
        width=1.0,
        context=0.0,
        prefill_tokens=chunk,
        prefill_context=size.prefill_context,
    )
    prompt_s = np.asarray(step.total) * size.new * batch / chunk
    rate = batch / prompt_s * chosen.dp * chosen.pp
    in_time = prompt_s <= space.limits.ttft_s
    report.missed_limits += int((~in_time).sum())
    choices: dict[int, _PrefillChoice] = {}
    for row in np.argsort(-rate, kind="stable"):
        size_here = int(chosen.accelerators[row])
        if in_time[row] and size_here not in choices:
            choices[size_here] = _PrefillChoice(_worker(chosen, int(row)), float(rate[row]))
    return choices


def _prefill_fits(family: Family, chosen: Setups, space: SearchSpace) -> np.ndarray:
    from tokopt.perf.memory import memory_use

    use = memory_use(
        family.model,
        family.machine,
        chosen.flat_layouts,
        chunk_tokens=chosen.chunk_tokens,
        draft_depth=0.0,
        mean_resident_tokens=space.workload.input_tokens,
        longest_tokens=space.workload.input_tokens,
    )
    return np.asarray(use.sequences) >= chosen.dp * chosen.pp


def _disaggregated_leads(family: Family, space: SearchSpace, report: SearchReport, start: int) -> Iterator[_Lead]:
    prefills = _prefill_choices(family, space, report)
    decoded = screen(family, setups(family, space.widest, role="decode"), space.workload, space.limits, prefill=False)
    report.count(decoded)
    if not prefills or not len(decoded.setups):
        return
    sizes = decoded.setups.accelerators.astype(int)
    best_decode: dict[int, int] = {}
    for row in np.argsort(-decoded.bound_requests_per_s, kind="stable"):
        best_decode.setdefault(int(sizes[row]), int(row))
    order = start
    for prefill_size, prefill in prefills.items():
        for decode_size, row in best_decode.items():
            decode_bound = float(decoded.bound_requests_per_s[row])
            for x, y in _ratios(prefill_size, decode_size, prefill.prompts_per_s / decode_bound, space.widest):
                report.considered += 1
                order += 1
                bound = min(x * prefill.prompts_per_s, y * decode_bound)

                def build(x: int = x, y: int = y, row: int = row, prefill: _PrefillChoice = prefill) -> Candidate | None:
                    return _pair(family, space, prefill.worker, x, _worker(decoded.setups, row), y, decoded.slots[row])

                yield _Lead(x * prefill_size + y * decode_size, bound, order, build)


def _ratios(prefill_size: int, decode_size: int, prefill_per_decode: float, widest: int) -> Iterator[tuple[int, int]]:
    """Yield worker counts (prefill, decode) within `widest` accelerators that are worth pairing.

    For each number of one kind only the neighbours of the matching number of the other: any further worker idles.
    """
    seen = set()
    for x in range(1, MOST_WORKERS + 1):
        matching = x * prefill_per_decode
        for y in {max(1, int(matching)), int(matching) + 1}:
            seen.add((x, y))
    for y in range(1, MOST_WORKERS + 1):
        matching = y / prefill_per_decode
        for x in {max(1, int(matching)), int(matching) + 1}:
            seen.add((x, y))
    for x, y in sorted(seen):
        if x <= MOST_WORKERS and y <= MOST_WORKERS and x * prefill_size + y * decode_size <= widest:
            yield x, y


def _pair(
    family: Family, space: SearchSpace, prefill: Worker, x: int, decode: Worker, y: int, slots: float
) -> Candidate | None:
    capped = _capped(
        lambda cap: disaggregated_profile(
            family.model,
            family.machine,
            prefill=prefill,
            prefill_workers=x,
            decode=decode,
            decode_workers=y,
            workload=space.workload,
            slots=cap,
        ),
        int(slots),
        space.limits,
    )
    if capped is None:
        return None
    profile, cap = capped
    deployment = Deployment(
        accelerator=family.accelerator.name,
        framework=family.framework.name,
        llm=space.llm.name,
        precision=family.precision.name,
        kv_precision=family.kv_precision,
        mode=ServingMode.DISAGG,
        prefill=Pool(workers=x, layout=_layout(prefill)),
        decode=Pool(workers=y, layout=_layout(decode)),
        speculation_depth=decode.depth,
        chunk_tokens=prefill.chunk_tokens,
        max_running_requests=cap * y,
    )
    return _candidate(family, deployment, profile, space.limits)
