"""Replicas that prefill on one accelerator and decode on another.

Workers of both are those that the search of each accelerator has screened already; only their pairs are new. A replica
of n_a accelerators that prefill and n_b that decode serves at most

    B(n_a, n_b) = min( max over prefill workers of x·r_p,  max over decode workers of y·r_d )

so whole sizes of replicas are ruled out before any pair is looked at: where the same accelerators serve no less by
themselves, or where each request would weigh (cost, draw) no less than it does elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tokopt.domain.deployments import Deployment
from tokopt.perf.queueing import Profile, capacity, capped
from tokopt.search.candidates import FORESEEN, Apart, Candidate, fullest, with_halves_said
from tokopt.search.leads import Disaggregated
from tokopt.search.pools import MOST_WORKERS, pairing
from tokopt.search.space import Family, SearchSpace, as_run


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """What an accelerator of each pool weighs in something that a fleet has too little of, such as money.

    Several of them are alternatives: of places with prices of their own, any may do.
    """

    prefill: float
    decode: float
    reached: float  # the least weight of a request a second elsewhere; infinite = nothing is known


@dataclass(frozen=True, slots=True, kw_only=True)
class Alone:
    """Requests a second that an accelerator of each pool serves by itself, in whole replicas of its own."""

    prefill: float = 0.0
    decode: float = 0.0


@dataclass(slots=True, kw_only=True)
class MixedReport:
    """What a search of one pair of accelerators found and looked at."""

    considered: int = 0  # sizes of replicas
    evaluated: int = 0
    candidates: list[Candidate] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Side:
    """A family's pools, and the most that each size of either keeps up, by accelerators: 0 … widest. [requests/s]"""

    apart: Apart
    prefill: NDArray[np.float64]
    decode: NDArray[np.float64]


class Side:
    """What one accelerator's pools keep up beside pools on others, by the kind of software."""

    def __init__(self, apart: Sequence[Apart], widest: int) -> None:
        """Add up whole workers; families whose caches cannot leave the node have no pools for others."""
        self.kinds: dict[Hashable, _Side] = {}
        self.name = apart[0].family.accelerator.name if apart else ""
        for each in apart:
            if each.family.machine.scale_out_bytes_per_s:
                prefills, decodes = each.prefills, each.decodes
                self.kinds[each.kind] = _Side(
                    each,
                    _most(prefills.setups.accelerators, prefills.most_requests_per_s, widest),
                    _most(decodes.setups.accelerators, decodes.bound_requests_per_s, widest),
                )


def find_mixed(
    prefill: Side,
    decode: Side,
    space: SearchSpace,
    *,
    alone: Alone | None = None,
    weights: Sequence[Weight] = (),
) -> MixedReport:
    """Return the best replica for each number of prefill and decode accelerators that earns its place.

    A size earns it that serves more than its accelerators would by themselves and, where weights are given, at less
    than what is reached elsewhere by one of them at least.

    Args:
        prefill: What prefills.
        decode: What decodes.
        space: What may be combined, and the limits to meet.
        alone: What accelerators serve by themselves.
        weights: What they weigh.
    """
    report = MixedReport()
    both = [(prefill.kinds[kind], side) for kind, side in decode.kinds.items() if kind in prefill.kinds]
    sizes = _sizes(both, space.widest, alone or Alone(), weights)
    if not sizes:
        return report
    leads = [_paired(sender.apart, receiver.apart, space) for sender, receiver in both]
    for first, second, needed in sizes:
        report.considered += 1
        found = _best(leads, first, second, needed, space, report)
        if found is not None:
            report.candidates.append(with_halves_said(found, space))
    return report


def standing_mixed(prefill: Side, decode: Side, space: SearchSpace, deployment: Deployment) -> Candidate | None:
    """Return a set-up that is given, with the running cap and capacity that it has within the space's limits.

    None where the space has nothing like it, or the limits allow not one request.
    """
    kind = deployment.framework, deployment.precision, deployment.kv_precision, deployment.speculator
    if kind not in prefill.kinds or kind not in decode.kinds:
        return None
    family, sending = decode.kinds[kind].apart.family, prefill.kinds[kind].apart.family
    if deployment.speculation_depth >= family.accepted.size:
        return None
    deployment = as_run(family, deployment, sending)
    profile = fullest(family, deployment, space.workload, space.limits, sending=sending)
    rate = 0.0 if profile is None else capacity(profile, space.limits)
    if profile is None or rate <= 0.0:
        return None
    return _candidate(family, sending, deployment, profile, rate)


def _candidate(
    family: Family, sending: Family | None, deployment: Deployment, profile: Profile, rate: float
) -> Candidate:
    cap = profile.slots * profile.workers
    return Candidate(
        family=family,
        sending=sending,
        deployment=deployment.model_copy(update={"max_running_requests": cap}),
        profile=profile,
        capacity_requests_per_s=rate,
    )


def _paired(sender: Apart, receiver: Apart, space: SearchSpace) -> Disaggregated:
    pairs = pairing(sender.prefills, receiver.decodes, space.widest)
    return Disaggregated(receiver.family, space, pairs, sender.family)


def _most(sizes: NDArray[np.float64], rates: NDArray[np.float64], widest: int) -> NDArray[np.float64]:
    """Return the most that whole workers of one kind keep up, by the accelerators that they fill exactly."""
    most = np.zeros(widest + 1)
    if not sizes.size:
        return most
    best = np.zeros(int(sizes.max()) + 1)
    np.maximum.at(best, sizes.astype(np.intp), rates)
    for size in np.flatnonzero(best).tolist():
        workers = np.arange(1, min(MOST_WORKERS, widest // size) + 1)
        most[workers * size] = np.maximum(most[workers * size], workers * best[size])
    return most


def _sizes(
    both: Sequence[tuple[_Side, _Side]], widest: int, alone: Alone, weights: Sequence[Weight]
) -> list[tuple[int, int, float]]:
    """Return the accelerators of both pools that may earn their place, smaller replicas first, and what they need.

    That is the rate above which they do: what they serve by themselves, and what makes them light enough.
    """
    if not both:
        return []
    total = np.zeros((widest + 1, widest + 1))
    for sender, receiver in both:
        np.maximum(total, np.minimum(sender.prefill[:, None], receiver.decode[None, :]), out=total)
    first, second = np.arange(widest + 1.0)[:, None], np.arange(widest + 1.0)[None, :]
    needed = alone.prefill * first + alone.decode * second
    if weights:
        light = [(w.prefill * first + w.decode * second) / w.reached for w in weights]
        needed = np.maximum(needed, np.minimum.reduce(light))
    a, b = np.nonzero((total > needed) & (first + second <= widest))
    by_size = np.lexsort((a, a + b))
    a, b = a[by_size], b[by_size]
    return list(zip(a.tolist(), b.tolist(), needed[a, b].tolist(), strict=True))


def _best(
    leads: Sequence[Disaggregated], first: int, second: int, needed: float, space: SearchSpace, report: MixedReport
) -> Candidate | None:
    """Return the replica of one size that serves most, if it is above what is needed: best bound first."""
    found = [lead.of_counts(first, second, needed) for lead in leads]
    owner = np.repeat(np.arange(len(leads)), [rows.size for rows, _ in found])
    row, bounds = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.argsort(-bounds, kind="stable")
    best: Candidate | None = None
    seen: set[Hashable] = set()
    for place, index in enumerate(order.tolist()):
        reached = max(needed, best.capacity_requests_per_s if best else 0.0)
        if bounds[index] <= reached:
            break
        if place % FORESEEN == 0:
            ahead = order[place : place + FORESEEN]
            for number in sorted(set(owner[ahead].tolist())):
                leads[number].foresee(row[ahead[owner[ahead] == number]].tolist())
        pairs, k = leads[int(owner[index])], int(row[index])
        key = bounds[index], pairs.twin(k)
        if key in seen:
            continue
        seen.add(key)
        report.evaluated += 1
        best = _evaluated(pairs, k, reached, space) or best
    return best


def _evaluated(pairs: Disaggregated, row: int, above: float, space: SearchSpace) -> Candidate | None:
    """Return a pair as a candidate if it can serve more than `above` within the limits. [requests/s]"""
    if not pairs.promising(row, above):
        return None
    profile = capped(pairs.profile(row), space.limits)
    rate = 0.0 if profile is None else capacity(profile, space.limits, above=above)
    if profile is None or not above < rate < math.inf:
        return None
    return _candidate(pairs.family, pairs.sending, pairs.setup(row)[0], profile, rate)
