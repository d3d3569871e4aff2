"""`simulate`: requests sent to the replicas of a plan, one by one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tokopt.catalog import Catalog, load_catalog
from tokopt.domain.plans import Plan
from tokopt.domain.simulations import Arrivals, Routing, Simulation, SimulationSettings, Split
from tokopt.errors import InputError, not_one_of
from tokopt.units import parse_duration

from .checking import read_plan
from .progress import Progress, silent
from .simulated_fleet import Kinds, simulated_fleet
from .simulated_traces import OpenTrace, looked_through, require_served
from .simulation_answer import answered
from .simulation_runs import run_all

TIMES = {  # keyword -> field, of what people write as a time
    "warm_up": "warm_up_s",
    "recovery": "recovery_s",
    "autoscale_delay": "autoscale_delay_s",
    "autoscale_every": "autoscale_every_s",
}
OPTIONS = {  # field -> option, where they differ by more than the unit of a time
    "node_mtbf_hours": "--node-mtbf",
    "spot_interruptions_per_hour": "--spot-interruptions",
    "autoscale_target": "--autoscale: target",
    "autoscale_least": "--autoscale: least",
    "autoscale_delay_s": "--autoscale: delay",
    "autoscale_every_s": "--autoscale: every",
}


def simulate(
    plan: Plan | str | Path | Mapping[str, Any],
    *,
    trace: str | Path | None = None,
    arrivals: str | None = None,
    burstiness: float | None = None,
    load: float = 1.0,
    concurrency: int | None = None,
    trace_speed: float = 1.0,
    router: str | None = None,
    split: str = Split.PLAN.value,
    requests: int = 20_000,
    replications: int = 5,
    seed: int = 0,
    replicas: int | None = None,
    warm_up: str | None = None,
    period: str = "",
    node_mtbf_hours: float | None = None,
    spot_interruptions_per_hour: float = 0.0,
    recovery: str = "600s",
    autoscale_target: float | None = None,
    autoscale_least: int = 1,
    autoscale_delay: str = "300s",
    autoscale_every: str = "30s",
    catalog: str | Catalog | None = None,
    processes: int = 1,
    progress: Progress = silent,
) -> Simulation:
    """Simulate a plan request by request: queues, batches, caches, pools, and what may go wrong.

    Args:
        plan: A plan, its JSON as a mapping, or the path of a plan file.
        trace: File of requests that are replayed; None = made up from the plan's workloads.
        arrivals: `planned` (each workload's own variation), `poisson`, `gamma` (with `burstiness`), `constant`,
            `closed_loop` (with `concurrency`) or `trace`; None = as the other arguments say.
        burstiness: Squared coefficient of variation of the times between arrivals.
        load: Share of the planned rates.
        concurrency: Requests in flight in a closed loop, over the whole fleet.
        trace_speed: How many times as fast as it was a trace is replayed.
        router: `random`, `round_robin`, `least_loaded`, `shortest_queue` or `kv_aware`; None = what the plan assumes.
        split: `plan`: a class's requests go to the fleet's items in the plan's proportions; `together`: the router
            chooses among all replicas of the class.
        requests: Measured in one replication.
        replications: Independent runs, which the confidence intervals come from.
        seed: The same seed gives the same answer, byte for byte.
        replicas: Most replicas of an item that are simulated, with their part of the requests; None = 16, or 256 of
            them for a trace.
        warm_up: What is not counted after an empty start, like `120s`; None = twice the planned 99th percentile of
            answers, and at least a fifth of what is measured.
        period: Which of a plan's periods; empty = the one with the highest load.
        node_mtbf_hours: Mean time between failures of a node; None = they do not fail.
        spot_interruptions_per_hour: How often a unit on a spot market is taken away.
        recovery: Until a failed or taken unit is back, like `10min`.
        autoscale_target: Load that replicas are started and stopped for, as a share of the planned one, told by the
            requests in them; None = all run.
        autoscale_least: Replicas of an item that always run.
        autoscale_delay: Until a started replica serves.
        autoscale_every: Between two decisions.
        catalog: A catalog or an overlay directory; None = what the plan's request names.
        processes: Most processes for the replications of a long simulation.
        progress: Told how far it is.

    Raises:
        InputError: In one line: not a plan, not a trace, or settings that are not possible.
    """
    read = read_plan(plan)
    loaded = catalog if isinstance(catalog, Catalog) else load_catalog(catalog or read.request.catalog)
    settings = settings_of(
        trace=None if trace is None else str(trace),
        arrivals=arrivals,
        burstiness=burstiness,
        load=load,
        concurrency=concurrency,
        trace_speed=trace_speed,
        router=router,
        split=split,
        requests=requests,
        replications=replications,
        seed=seed,
        replicas=replicas,
        warm_up=warm_up,
        period=period,
        node_mtbf_hours=node_mtbf_hours,
        spot_interruptions_per_hour=spot_interruptions_per_hour,
        recovery=recovery,
        autoscale_target=autoscale_target,
        autoscale_least=autoscale_least,
        autoscale_delay=autoscale_delay,
        autoscale_every=autoscale_every,
    )
    where = str(plan) if isinstance(plan, (str, Path)) else "plan"
    return simulate_plan(loaded, read, settings, where=where, processes=processes, progress=progress, partly=True)


def simulate_plan(
    catalog: Catalog,
    plan: Plan,
    settings: SimulationSettings,
    *,
    where: str = "plan",
    processes: int = 1,
    progress: Progress = silent,
    kinds: Kinds | None = None,
    partly: bool = False,
) -> Simulation:
    """Simulate a plan under settings; `kinds` are replicas whose tables are known already.

    Raises:
        KeyboardInterrupt: It was interrupted, and a part is not wanted (`partly`) or there is none.
    """
    trace: OpenTrace | None = None
    if settings.arrivals is Arrivals.TRACE:
        classes = plan.request.served_classes()
        contexts = {asked.name: catalog.llm(asked.llm).max_context_tokens for asked in classes}
        trace = looked_through(str(settings.trace), classes, contexts, progress)
        settings = settings.model_copy(update={"trace_block_tokens": trace.block_tokens})
    progress("timing steps", 0.0)
    fleet = simulated_fleet(catalog, plan, settings, kinds, longest_tokens=trace.longest_tokens if trace else None)
    if trace is not None:
        require_served(trace, fleet, settings.period)
    runs = run_all(fleet, settings, trace=trace, processes=processes, progress=progress)
    if runs.interrupted and not partly:
        raise KeyboardInterrupt
    return answered(catalog, plan, where, fleet, settings, runs, trace)


def settings_of(**written: Any) -> SimulationSettings:
    """Return settings as people write them.

    Raises:
        InputError: In one line: what is not possible, and what is.
    """
    values = {TIMES.get(name, name): value for name, value in written.items() if value is not None}
    for field in TIMES.values():
        if field in values and isinstance(values[field], str):
            positive = field not in ("warm_up_s", "autoscale_delay_s")
            values[field] = parse_duration(values[field], what=_option(field), positive=positive)
    values["arrivals"] = _arrivals(written)
    for name, kind in (("router", Routing), ("split", Split)):
        if values.get(name) is not None and values[name] not in list(kind):
            raise not_one_of(f"--{name}", str(values[name]), [each.value for each in kind])
    try:
        return _agreeing(SimulationSettings.model_validate(values))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        said = first["msg"].removeprefix("Input should be ")
        raise InputError(f"{_option(str(first['loc'][0]))}: {first['input']!r} must be {said}") from None


def _option(field: str) -> str:
    return OPTIONS.get(field, f"--{field.removesuffix('_s').replace('_', '-')}")


def _arrivals(written: Mapping[str, Any]) -> Arrivals:
    """Return how requests come, as stated or as the other settings say.

    Raises:
        InputError: Settings that contradict one another.
    """
    given = {
        Arrivals.TRACE: written.get("trace"),
        Arrivals.GAMMA: written.get("burstiness"),
        Arrivals.CLOSED_LOOP: written.get("concurrency"),
    }
    implied = [kind for kind, value in given.items() if value is not None]
    options = {Arrivals.TRACE: "--trace FILE", Arrivals.GAMMA: "--burstiness", Arrivals.CLOSED_LOOP: "--concurrency"}
    if len(implied) > 1:
        raise InputError(f"{' and '.join(options[kind] for kind in implied)} contradict one another: give one of them")
    stated = written.get("arrivals")
    if stated is None:
        return implied[0] if implied else Arrivals.PLANNED
    if stated not in list(Arrivals):
        raise not_one_of("--arrivals", str(stated), [each.value for each in Arrivals])
    kind = Arrivals(stated)
    if kind in options and kind not in implied:
        raise InputError(f"--arrivals {kind.value} needs {options[kind]}")
    if implied and implied[0] is not kind:
        raise InputError(f"--arrivals {kind.value} goes without {options[implied[0]]}")
    return kind


def _agreeing(settings: SimulationSettings) -> SimulationSettings:
    """Return settings of which each has something to act on.

    Raises:
        InputError: One has not, so that it would be passed over.
    """
    if settings.trace_speed != 1.0 and settings.arrivals is not Arrivals.TRACE:
        raise InputError("--trace-speed goes with --trace FILE; --load changes the rate of requests that are made up")
    if settings.load != 1.0 and settings.arrivals is Arrivals.CLOSED_LOOP:
        raise InputError("--load goes without --concurrency: in a closed loop, answers decide how fast requests come")
    return settings
