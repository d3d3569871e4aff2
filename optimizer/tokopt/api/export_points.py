"""The operating point of an item: what one replica is asked for, as a benchmark sends it."""

from __future__ import annotations

import math
from collections.abc import Iterator

from tokopt.domain.exporting import OperatingPoint, ScheduledRequest
from tokopt.domain.plans import FleetItem, Plan
from tokopt.domain.workloads import Workload
from tokopt.simulation.arrivals import BLOCK_TOKENS, Stream, synthesised
from tokopt.units import MS

from .export_items import class_of
from .requests import workload_of

FEWEST_REQUESTS = 1_000  # so that ten lie beyond the 99th percentile
MOST_REQUESTS = 20_000
TIMES_IN_FLIGHT = 10  # requests measured for each that is in flight: what the start and the end take of a run
FEWEST_WARM_UP = 10
SEED = 0


def operating_point(plan: Plan, item: FleetItem, longest_tokens: int) -> OperatingPoint:
    """Return what one replica of an item is asked for, with the requests of a benchmark.

    Of a plan with periods, it is that of the busiest one, which latencies are promised for.

    Args:
        plan: The plan.
        item: One of its fleet.
        longest_tokens: In and out, that a request may have.
    """
    shape = class_of(plan, item).workload
    rate = item.busiest_requests_per_s
    in_flight = rate * item.e2e_ms.mean * MS
    count = min(max(FEWEST_REQUESTS, math.ceil(TIMES_IN_FLIGHT * in_flight)), MOST_REQUESTS)
    workload = workload_of(shape)
    requests = tuple(_requests(workload, rate, count, longest_tokens))
    return OperatingPoint(
        workload=shape.name,
        requests_per_s=rate,
        arrival_cv2=shape.arrival_cv2,
        input_tokens=shape.input_tokens,
        output_tokens=shape.output_tokens,
        input_cv=shape.input_cv,
        output_cv=shape.output_cv,
        prefix_share=shape.prefix_share if shape.reuse is None else 0.0,
        timed=shape.reuse is not None and shape.reuse.turns > 1.0,
        mean_in_flight=in_flight,
        requests=requests,
        block_tokens=BLOCK_TOKENS if any(request.blocks for request in requests) else 0,
        warm_up=max(FEWEST_WARM_UP, math.ceil(in_flight)),
        seed=SEED,
        ttft_ms=item.ttft_ms.model_dump(),
        tpot_ms=item.tpot_ms.model_dump(),
        output_tokens_per_s=rate * shape.output_tokens,
    )


def _requests(workload: Workload, rate: float, count: int, longest_tokens: int) -> Iterator[ScheduledRequest]:
    """Yield so many requests as the simulator makes them up, whole blocks of prompts that repeat named alike."""
    stream = Stream(workload=workload, requests_per_s=rate, longest_tokens=longest_tokens)
    left, start = count, None
    for chunk in synthesised([stream], seed=SEED):
        for n in range(min(left, chunk.requests)):
            time, prompt = float(chunk.time_s[n]), int(chunk.input_tokens[n])
            start = time if start is None else start
            blocks = tuple(int(b) for b in chunk.hashes[chunk.hash_start[n] : chunk.hash_start[n + 1]])
            if workload.reuse is None and workload.prefix_share > 0.0:
                blocks = tuple(range(int(workload.prefix_share * prompt / BLOCK_TOKENS)))
            yield ScheduledRequest(
                time_s=time - start,
                input_tokens=prompt,
                output_tokens=int(chunk.output_tokens[n]),
                blocks=blocks,
            )
        left -= chunk.requests
        if left <= 0:
            return
