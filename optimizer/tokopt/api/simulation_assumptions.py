"""What a simulation takes for granted, and what is to be known before its figures are used, in sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tokopt.catalog import Catalog
from tokopt.domain.offers import Market
from tokopt.domain.plans import Plan
from tokopt.domain.simulations import Arrivals, Routing, SimulatedClass, SimulationSettings, Split
from tokopt.version import __version__

from .simulated_fleet import SimulatedFleet
from .simulated_traces import OpenTrace
from .simulation_runs import Runs, drift_of

NOTABLE_DRIFT = 0.02
FEW_ANSWERS = 1000  # measured requests of a class, below which a 99th percentile rests on less than ten
ROUTED = {
    Routing.RANDOM: "a replica chosen at random",
    Routing.ROUND_ROBIN: "replicas in turn",
    Routing.LEAST_LOADED: "the replica with fewest tokens of prompts and caches",
    Routing.SHORTEST_QUEUE: "the replica with fewest requests",
    Routing.KV_AWARE: "the cache with least to compute before the first token",
}


def warned_of_simulation(
    plan: Plan,
    catalog: Catalog,
    fleet: SimulatedFleet,
    settings: SimulationSettings,
    runs: Runs,
    classes: Sequence[SimulatedClass],
    *,
    overloaded: bool,
) -> tuple[str, ...]:
    """Return what is to be known before the figures of a simulation are used."""
    said = []
    if runs.partial:
        said.append(
            "interrupted within the first replication: what had come by then is reported, without confidence intervals"
        )
    elif runs.interrupted:
        said.append(f"interrupted: {len(runs.outcomes)} of {settings.replications} replications are reported")
    said += _of_versions(plan, catalog)
    drift = drift_of(runs, settings)
    if drift > NOTABLE_DRIFT and not overloaded:
        said.append(
            f"the requests in the system have not settled when they are measured (they rise by {drift:.0%}), so that "
            f"latencies are too low: --warm-up longer than {runs.window.start_s:,.0f}s, and more --requests, show more"
        )
    spot = any(part.item.market == Market.SPOT.value for part in fleet.parts)
    failing = settings.node_mtbf_hours is not None or (spot and settings.spot_interruptions_per_hour > 0.0)
    if settings.spot_interruptions_per_hour and not spot:
        said.append("the plan has no unit on a spot market: --spot-interruptions takes nothing away")
    elif failing and not any(outcome.world.totals[0].retried for outcome in runs.outcomes):
        seconds = sum(outcome.snapshots[-1].time_s for outcome in runs.outcomes)
        count = sum(part.simulated for part in fleet.parts)
        said.append(
            f"no request met a failure in {seconds:,.0f} s of {count:,} simulated replicas: more --requests or "
            "--replicas simulate more"
        )
    counts = any(stream.workload.reuse is not None for stream in fleet.streams)
    if settings.arrivals is Arrivals.TRACE and counts and not settings.trace_block_tokens:
        said.append(
            "the plan counts on prompts that repeat, and the trace does not say which do: all of them are computed"
        )
    more = "" if settings.arrivals is Arrivals.TRACE else " (--requests measures more)"
    for each in classes:
        name = f" of {each.name}" if len(classes) > 1 else ""
        if each.rejected:
            share = each.rejected / (each.completed + each.rejected)
            said.append(f"{each.rejected:,} requests{name} ({share:.2%}) are rejected: no cache holds so many tokens")
        if 0 < each.completed < FEW_ANSWERS and each.e2e_ms is not None:
            said.append(
                f"only {each.completed:,} requests{name} are measured: their 99th percentiles rest on "
                f"{math.ceil(each.completed / 100)} of them{more}"
            )
    if len(runs.outcomes) == 1 and not runs.partial:
        said.append("one replication says nothing of how sure its figures are: there are no confidence intervals")
    return tuple(said)


def _of_versions(plan: Plan, catalog: Catalog) -> list[str]:
    """Return that a plan was made with other versions than it is simulated with, where it was."""
    made = plan.provenance
    versions = (
        ("tokopt", made.tokopt_version, __version__),
        ("catalog", made.catalog_version, catalog.version),
        ("calibration", made.calibration, catalog.calibration.version),
    )
    other = [(what, then, now) for what, then, now in versions if then != now]
    if not other:
        return []
    before = ", ".join(f"{what} {then}" for what, then, _ in other)
    after = ", ".join(f"{what} {now}" for what, _, now in other)
    return [f"the plan was made with {before}, and is simulated with {after}: that alone may change figures"]


def said_of_simulation(
    plan: Plan, fleet: SimulatedFleet, settings: SimulationSettings, runs: Runs, trace: OpenTrace | None
) -> tuple[str, ...]:
    """Return what a simulation takes for granted."""
    said = [
        "step times are those of the performance model that made the plan, at each step's own batch and contexts; "
        "nothing is fitted to the simulator",
        *_of_arrivals(fleet, settings, trace),
        f"requests go to {ROUTED[fleet.router]}"
        + (
            ", over all replicas of their class"
            if settings.split is Split.TOGETHER
            else " of the item that the plan sends them to"
        ),
        "within a replica, to the attention rank with fewest requests; in the order of their arrival",
    ]
    sampled = [p for p in fleet.parts if p.simulated < p.replicas]
    if sampled:
        some, whole = sum(p.simulated for p in sampled), sum(p.replicas for p in sampled)
        said.append(
            f"{some} of {whole:,} alike replicas are simulated, with their part of the requests, and stand for all "
            "(--replicas simulates more)"
        )
    if runs.window.start_s:
        said.append(f"the first {runs.window.start_s:,.0f} s after an empty start are not counted")
    if plan.request.robust:
        said.append(f"steps are as much slower as the plan's margin of {plan.request.robust:.0%} asks for")
    said += _of_trouble(settings)
    return tuple(said)


def _of_arrivals(fleet: SimulatedFleet, settings: SimulationSettings, trace: OpenTrace | None) -> list[str]:
    at = "" if settings.load == 1.0 else f" at {settings.load:.0%} of the planned rate"
    if trace is not None:
        speed = "" if settings.trace_speed == 1.0 else f", {settings.trace_speed:g} times as fast"
        share = trace.requests_per_s * settings.trace_speed * settings.load / sum(p.requests_per_s for p in fleet.parts)
        said = [
            f"requests come as in {trace.path} ({trace.requests:,} over {trace.span_s:,.0f} s{speed}): {share:.0%} of "
            "the planned rate"
        ]
        if trace.too_long:
            said.append(f"{trace.too_long:,} of them are longer than the model's context, and rejected")
        if settings.replications > 1:
            said.append("replications differ in what is left to chance (routes, shares); the trace is the same in all")
        return said
    if settings.arrivals is Arrivals.CLOSED_LOOP:
        there = sum(p.simulated for p in fleet.parts) < sum(p.replicas for p in fleet.parts)
        some = f" ({fleet.in_flight:,} of them on the replicas that are simulated)" if there else ""
        return [
            f"{settings.concurrency:,} requests{some} are in flight all the time: whoever is answered sends the next"
        ]
    cv2 = sorted({round(stream.cv2, 6) for stream in fleet.streams})
    kinds = {0.0: "at an even pace", 1.0: "at random (Poisson)"}
    words = [kinds.get(value, f"in bursts: squared variation {value:g} of the times between") for value in cv2]
    said = [f"requests come {' or '.join(words)}{at}; lengths are log-normal, as in the plan"]
    if any(stream.workload.reuse is not None for stream in fleet.streams):
        said.append("prompts repeat as the workload states; caches are simulated block by block")
    return said


def _of_trouble(settings: SimulationSettings) -> list[str]:
    said = []
    back = f"it is back after {settings.recovery_s:,.0f} s, and requests start anew elsewhere"
    if settings.node_mtbf_hours is not None:
        said.append(f"a node fails every {settings.node_mtbf_hours:,.0f} hours on average; {back}")
    if settings.spot_interruptions_per_hour:
        said.append(f"a spot unit is taken away {settings.spot_interruptions_per_hour:g} times an hour; {back}")
    if settings.autoscale_target is not None:
        said.append(
            f"replicas are started and stopped for {settings.autoscale_target:.0%} of the planned load, take "
            f"{settings.autoscale_delay_s:,.0f} s to start, and finish what they have before they stop"
        )
    return said
