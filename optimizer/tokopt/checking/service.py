"""Rules on what a fleet item's replicas deliver: latencies, load and capacity, worked out again."""

from __future__ import annotations

from tokopt.checking.case import TOLERANCE, Case, number, same, within
from tokopt.checking.evaluation import profile_for, replica_of
from tokopt.checking.latency import Latencies, latencies
from tokopt.domain.plans import FleetItem
from tokopt.domain.workloads import Sla
from tokopt.units import MS

LOAD_LIMIT = 0.95  # of saturation


def served_within_limits(case: Case) -> list[str]:
    """Check that latencies at the item's rate are what it says, meet every limit, and no queue is near saturation."""
    item = case.item
    rate = highest_rate(item)
    found = _latencies(case, rate)
    if found is None:
        return [case.fault(f"requests_per_s: {number(rate)} req/s a replica is more than its queues can settle")]
    return [
        *_latencies_stated(case, found),
        *case.differs("load", item.load, found.load, "arrival rate over saturation"),
        *case.differs("mean_running_per_replica", item.mean_running_per_replica, found.mean_in_service, "recomputed"),
        *_limits_met(case, found, f"at {number(rate)} req/s a replica"),
    ]


def capacity_within_limits(case: Case) -> list[str]:
    """Check that a replica gets no more than its capacity, and meets every limit at that capacity too."""
    item = case.item
    rate, most = highest_rate(item), item.capacity_requests_per_s
    faults = []
    if not within(rate, most, TOLERANCE):
        said = f"a replica gets {number(rate)} req/s, more than its capacity_requests_per_s of {number(most)}"
        faults.append(case.fault(f"requests_per_s: {said}"))
    found = _latencies(case, most)
    if found is None:
        return [*faults, case.fault(f"capacity_requests_per_s is {number(most)}, which its queues never settle at")]
    return [*faults, *_limits_met(case, found, f"at capacity_requests_per_s, {number(most)}")]


def exchange_stated(case: Case) -> list[str]:
    """Check what all-to-alls are said to take of a step at the running cap; what halves hide, only to be possible."""
    stated, deployment = case.item.all_to_all, case.item.deployment
    replica = replica_of(deployment, case.workload, case.llm, case.inputs)
    decoder = replica.decoder
    each = (deployment.max_running_requests or 0) / replica.decoders / decoder.groups
    share = decoder.exchanged_share(replica.size, sequences=max(each, 1.0))
    if stated is None:
        return [case.fault("all_to_all is not stated, but experts are spread over ranks")] if share > 0.0 else []
    if stated.hidden_share > 0.0:
        possible = 0.0 <= stated.share <= 1.0 and decoder.layout.two_batch_overlap
        return [] if possible else [case.fault(f"all_to_all share {number(stated.share)} with halves is not possible")]
    return list(case.differs("all_to_all share", stated.share, share, "recomputed"))


def highest_rate(item: FleetItem) -> float:
    """Return the most requests that a replica gets, of all periods. [requests/s]"""
    if not item.by_period:
        return item.requests_per_s / item.replicas
    # Blocks hold a whole number of replicas, so replicas follow units in every period.
    each = item.replicas / item.units
    return max((p.requests_per_s / (p.units * each) for p in item.by_period if p.units), default=0.0)


def _latencies(case: Case, rate: float) -> Latencies | None:
    return latencies(profile_for(case.item.deployment, case.workload, case.llm, case.inputs), rate)


def _latencies_stated(case: Case, found: Latencies) -> list[str]:
    item = case.item
    faults = []
    for name, stated, seconds in (
        ("ttft_ms", item.ttft_ms, found.ttft_s),
        ("tpot_ms", item.tpot_ms, found.tpot_s),
        ("e2e_ms", item.e2e_ms, found.e2e_s),
    ):
        for statistic in ("mean", "p50", "p90", "p99"):
            says = getattr(stated, statistic)
            faults += case.differs(f"{name} {statistic}", says, seconds[statistic] / MS, "recomputed")
    return faults


def _limits_met(case: Case, found: Latencies, where: str) -> list[str]:
    faults = []
    sla: Sla = case.asked.sla
    statistic = sla.statistic.value
    for name, limit_ms, seconds in (
        ("ttft_ms", sla.ttft_ms, found.ttft_s),
        ("tpot_ms", sla.tpot_ms, found.tpot_s),
        ("e2e_ms", sla.e2e_ms, found.e2e_s),
    ):
        value_ms = seconds[statistic] / MS
        if limit_ms is not None and not within(value_ms, limit_ms, TOLERANCE):
            said = f"{name} {statistic} is {number(value_ms)} {where}, above the limit of {number(limit_ms)}"
            faults.append(case.fault(said))
    if not within(found.load, LOAD_LIMIT, TOLERANCE) and not same(found.load, LOAD_LIMIT):
        faults.append(case.fault(f"load is {number(found.load)} {where}, above {LOAD_LIMIT:g} of saturation"))
    return faults
