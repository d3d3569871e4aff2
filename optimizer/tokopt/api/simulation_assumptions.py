"""What a simulation takes for granted, in sentences."""

from __future__ import annotations

from tokopt.domain.plans import Plan
from tokopt.domain.simulations import Arrivals, Routing, SimulationSettings, Split

from .simulated_fleet import SimulatedFleet
from .simulated_traces import OpenTrace
from .simulation_runs import Runs

ROUTED = {
    Routing.RANDOM: "a replica chosen at random",
    Routing.ROUND_ROBIN: "replicas in turn",
    Routing.LEAST_LOADED: "the replica with fewest tokens of prompts and caches",
    Routing.SHORTEST_QUEUE: "the replica with fewest requests",
    Routing.KV_AWARE: "the cache with least to compute before the first token",
}


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
        return [f"{settings.concurrency:,} requests are in flight all the time: whoever is answered sends the next"]
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
