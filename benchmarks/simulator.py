"""The simulator in processes of its own: `python benchmarks/simulator.py fleet`, or another part, prints a JSON record.

`run.py` measures with it: how many requests and tokens of a fleet go through a minute of one core, what memory a long
stream takes, how long the first simulation of a process waits for machine code, and how long that takes to compile.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
from typing import Any

REPLICAS = 100
LOAD = 0.7  # of saturation


def fleet(replicas: int, router: int, **workload: Any) -> tuple[Any, Any, float]:
    """Return replicas of Llama 3.1 70B on four H100, requests for them, and their rate."""
    import tokopt
    from tokopt.api.describing import described, step_budget
    from tokopt.api.loads import slots_per_worker
    from tokopt.api.resolved import resolve
    from tokopt.api.simulated_fleet import setup_of
    from tokopt.domain.workloads import Workload
    from tokopt.perf.deployed import replica_profile
    from tokopt.perf.queueing import saturation
    from tokopt.simulation.arrivals import Stream
    from tokopt.simulation.building import ClassLimits, Fleet, Item
    from tokopt.simulation.replicas import kind_of

    catalog = tokopt.load_catalog()
    resolved = resolve(
        catalog,
        llm=catalog.llm("llama-3.1-70b"),
        gpu="h100_sxm",
        framework="vllm",
        precision=None,
        kv_precision=None,
    )
    asked = Workload(
        **({"name": "x", "input_tokens": 1024, "output_tokens": 1024, "input_cv": 1.0, "output_cv": 0.8} | workload)
    )
    deployment = described(resolved, (4, 1, 1, 1, 1, 1), None, 0, step_budget(resolved, asked, 8192), None)
    slots = slots_per_worker(resolved, deployment, asked)
    profile = replica_profile(
        resolved.model, resolved.machine, deployment, asked, accepted=resolved.accepted(0), slots=slots
    )
    rate = LOAD * saturation(profile) * replicas
    blocks = 256 if asked.reuse is not None else 0
    kind = kind_of(setup_of(resolved, deployment, asked, cap=slots, blocks=blocks))
    made = Fleet(
        items=(Item(kind=kind, replicas=replicas),),
        limits=(ClassLimits(ttft_s=1.0, tpot_s=0.05),),
        router=router,
        most_blocks=256 if blocks else 0,
    )
    return made, Stream(workload=asked, requests_per_s=rate), rate


def simulate(requests: int, replicas: int, router: int, **workload: Any) -> dict[str, float]:
    """Run a fleet for so many requests; return what went through, and the time and memory of this process."""
    from tokopt.simulation.arrivals import synthesised
    from tokopt.simulation.replication import Window, replicate

    made, stream, rate = fleet(replicas, router, **workload)
    replicate(
        made, synthesised([stream], seed=1), Window(start_s=0.0, end_s=100.0 / rate), seed=1
    )  # loads machine code
    before = time.process_time()
    outcome = replicate(made, synthesised([stream], seed=1), Window(start_s=0.0, end_s=requests / rate), seed=1)
    seconds = time.process_time() - before
    totals = outcome.world.totals[0]
    assert not outcome.broken and not outcome.cut_short
    return {
        "seconds": seconds,
        "requests": float(totals.finished),
        "tokens": float(totals.emitted),
        "steps": float(outcome.world.engines.steps.sum()),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0,
    }


def machine_code() -> dict[str, float]:
    """Return how long it takes to have the inner loop, in a process that just started."""
    from tokopt.simulation.replication import Window, replicate

    made, _, _ = fleet(1, 0)
    before, processor = time.perf_counter(), time.process_time()
    replicate(made, [], Window(start_s=0.0), seed=1)
    return {"seconds": time.perf_counter() - before, "processor": time.process_time() - processor}


def main() -> None:
    """Measure the part that is named, and print it."""
    from tokopt.domain.caching import Reuse

    part = sys.argv[1]
    if part == "compiling":
        with tempfile.TemporaryDirectory() as folder:
            os.environ["NUMBA_CACHE_DIR"] = folder
            found = machine_code()
    elif part == "loading":
        found = machine_code()
    elif part == "router":
        found = simulate(100_000, REPLICAS, 3)
    elif part == "caches":
        reuse = Reuse(turns=5.0, turn_gap_s=20.0, shared_tokens=1000, shared_prefixes=100)
        found = simulate(50_000, 16, 4, input_tokens=4000, output_tokens=400, reuse=reuse)
    elif part.isdigit():
        found = simulate(int(part), 8, 0, input_tokens=500, output_tokens=60)
    else:
        found = simulate(100_000, REPLICAS, 0)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
