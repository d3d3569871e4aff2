"""Everything that a simulation's inner loop reads and writes: tables of records, one row a request, a rank, a replica.

Times are seconds, sizes are tokens. A row is named by its number; -1 names none. An *engine* is one batch that is
stepped together: a worker has one for each of its pipeline stages, and each has the worker's attention-data-parallel
*ranks*, with queues and caches of their own. A *server* is a rank and stage of a prefill pool. A *group* is the
replicas that a class of requests may be sent to.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

NONE = -1
BLOCK_TOKENS = 16  # tokens of a cache block, as vLLM allocates them by default

# States of a request.
FREE, FRONT, PROMPT_QUEUE, PROMPT_POOL, MOVING, WAITING, PREFILL, DECODE, LIMBO = range(9)
# Reasons to wait: columns of `waits`.
FOR_PROMPTS, FOR_SLOT, FOR_CACHE, FOR_PREFILL, FOR_MOVE, FOR_REPLICA, FOR_STEP, REASONS = range(8)
# What a replica may be doing.
DOWN, STARTING, UP, DRAINING = range(4)
# Routers.
RANDOM, ROUND_ROBIN, LEAST_LOADED, SHORTEST_QUEUE, CACHE_AWARE = range(5)
# What latencies are recorded of.
TTFT, TPOT, ITL, E2E, METRICS = range(5)
# Events.
AT_FRONT, AT_ENGINE, AT_SERVER, AT_DECODER, AT_SCALING, AT_SAMPLE, AT_NEXT, AT_UP = range(8)
# What the inner loop comes back for.
NEEDS_ROWS, NEEDS_REQUESTS, NEEDS_ENTRIES, NEEDS_TIME, REACHED = range(5)
# Columns of the series over time: sums of a bin, then gauges, which are means of their samples.
ARRIVED, FINISHED, WITHIN, TOKENS, EXTRA_J, BUSY_S, TTFT_SUM, TTFT_COUNT, TTFT_MOST, TPOT_SUM, TPOT_COUNT, TPOT_MOST = (
    range(12)
)
PREEMPTED, SAMPLES, QUEUED, RUNNING, CACHE_USED, REPLICAS_UP, SERIES = range(12, 19)

_F, _I = np.float64, np.int64


def _record(**fields: Any) -> np.dtype[np.void]:
    return np.dtype(list(fields.items()))


KIND = _record(
    # Steps: offsets into `tables`, and how long each axis is.
    counts=_I,  # decoding sequences 0 … counts - 1 of an engine, one row each
    contexts_at=_I,
    contexts=_I,
    decode_at=_I,  # [counts, contexts]
    decode_j_at=_I,
    prompts_at=_I,
    prompts=_I,
    seen_at=_I,
    seen=_I,
    own_at=_I,  # [prompts, seen]
    own_j_at=_I,
    saving_at=_I,  # [counts, prompts]
    pool_own_at=_I,  # of a prefill pool
    pool_own_j_at=_I,
    pool_prompts_at=_I,
    pool_prompts=_I,
    pool_seen_at=_I,
    pool_seen=_I,
    mixing=_F,
    rank_imbalance=_F,
    chunk_tokens=_I,
    depth=_I,
    accepted=_F,  # mean tokens of a step
    chances_at=_I,
    front_s=_F,
    wake_s=_F,
    slots=_I,  # of an engine
    rank_slots=_I,
    cache_tokens=_I,  # of a rank
    reserved_share=_F,
    pipelined=_F,  # what chunks of a lone prompt take of their time, over the stages of a pipeline
    disaggregated=_I,
    pool_efficiency=_F,
    pool_chunk_tokens=_I,
    pool_pipelined=_F,
    move_s=_F,
    move_s_per_token=_F,
    idle_w=_F,  # of the whole replica
    restore_s_per_token=_F,
)
CLASS = _record(ttft_s=_F, tpot_s=_F, e2e_s=_F)
GROUP = _record(klass=_I, first=_I, replicas=_I, router=_I, turn=_I, most_tokens=_I)
REPLICA = _record(
    kind=_I,
    group=_I,
    item=_I,
    state=_I,
    first_engine=_I,
    engines=_I,
    first_server=_I,
    servers=_I,
    queue_head=_I,
    queue_tail=_I,
    queued=_I,
    busy_servers=_I,
    in_system=_I,
    tokens=_I,  # prompts to come and caches held
    up_s=_F,  # serving, whether it takes more or not
    paid_s=_F,
    since=_F,
    turn=_I,  # engine whose turn it is, among equals
    server_turn=_I,
    ready_stamp=_I,
    failed=_I,  # and is being repaired
    weight=_F,  # planned rate over the highest of its group
)
SERVER = _record(
    replica=_I,
    busy=_I,
    head=_I,
    generation=_I,
    busy_s=_F,
    joules=_F,
    queue_head=_I,
    queue_tail=_I,
    queued_tokens=_I,
    rank=_I,  # that has its cache; -1 = it has none
)
ENGINE = _record(
    replica=_I,
    kind=_I,
    first_rank=_I,
    ranks=_I,
    active=_I,
    generation=_I,
    turn=_I,
    decoding=_I,
    in_service=_I,
    started=_F,
    busy_s=_F,
    prefill_s=_F,  # of it, what prompts add to steps
    joules=_F,  # above idling
    steps=_I,
    taken=_F,  # slots, summed over the looks of the series
)
RANK = _record(
    engine=_I,
    head=_I,  # of those that wait for admission
    tail=_I,
    waiting=_I,
    waiting_tokens=_I,
    blocked_by=_I,
    prefill_head=_I,
    prefill_tail=_I,
    prefilling=_I,
    running=_I,
    stepping=_I,  # of the running, those that take part in the step in progress
    decoding_tokens=_I,  # of the running, prompts and answers so far
    short=_I,  # whether one of them lacks cache for its next step
    chunk_tokens=_I,  # of the chunk in progress
    chunk_end=_F,
    capacity=_I,
    private=_I,  # tokens in blocks of single requests
    entries=_I,  # cached blocks in memory, in use or not
    idle_entries=_I,  # of them, in use by nobody
    newest=_I,
    oldest=_I,
    host_capacity=_I,  # blocks behind it
    host_entries=_I,
    host_newest=_I,
    host_oldest=_I,
    link_free=_F,
    entry_tokens=_I,  # of a cached block; 0 = nothing is cached
)
REQUEST = _record(
    # What every step looks at, next to each other.
    prompt=_I,
    output=_I,
    emitted=_I,
    private=_I,
    held=_I,
    measured=_I,
    last=_F,
    replica=_I,
    uid=_I,
    klass=_I,
    group=_I,
    arrival=_F,
    given=_I,
    hashes=_I,
    computed=_I,
    found=_I,  # of its prompt, when it was admitted
    target=_I,
    chunk=_I,
    first=_F,
    ready=_F,
    since=_F,
    rank=_I,
    server=_I,
    lost=_I,
    next=_I,
    state=_I,
    stamp=_I,  # of its way through the system: an event of an earlier way is void
)
ENTRY = _record(key=_I, newer=_I, older=_I, users=_I, tier=_I, rank=_I)
TOTALS = _record(
    now=_F,
    events=_I,
    free=_I,
    rows_left=_I,
    pushed=_I,
    free_entries=_I,
    entries_left=_I,
    in_system=_I,
    area=_F,  # requests in the system over time
    area_at=_F,
    sojourn_s=_F,
    arrived=_I,
    finished=_I,
    rejected=_I,
    lost_tokens=_I,  # computed and thrown away with a replica
    emitted=_I,
    delivered=_I,
    preempted=_I,
    retried=_I,
    prompt_tokens=_I,
    found_tokens=_I,
    found_behind=_I,  # memory
    stamp=_I,
    limbo_head=_I,
    limbo_tail=_I,
    limbo=_I,
    measure_from=_F,
    measure_until=_F,
    measured_open=_I,
    closed_loop=_I,  # requests in flight; 0 = they come by themselves
    bin_s=_F,
    looks=_I,  # of the series
    most_in_system=_I,
    ended=_I,  # no more requests are to come
    outage_next=_I,
)
PER_CLASS = _record(
    answered=_I,  # measured or not, and their tokens
    delivered=_I,
    arrived=_I,  # measured, as what follows
    finished=_I,
    within=_I,
    rejected=_I,
    output_tokens=_I,
    input_tokens=_I,
    within_tokens=_I,
    ttft_within=_I,
    tpot_within=_I,
    e2e_within=_I,
)
OUTAGE = _record(time=_F, replica=_I, lasts=_F)
SCALING = _record(first=_I, replicas=_I, least=_I, requests=_F, every_s=_F, delay_s=_F, patience=_I, calm=_I)
EVENT = _record(time=_F, number=_I, code=_I, who=_I, stamp=_I)


class World(NamedTuple):
    """The tables. Compiled functions take all of them as one argument."""

    tables: NDArray[np.float64]
    kinds: Any
    classes: Any
    groups: Any
    replicas: Any
    servers: Any
    engines: Any
    ranks: Any
    running: NDArray[np.int64]  # [ranks, slots of a rank]: requests that decode
    requests: Any
    hashes: NDArray[np.int64]  # [requests, most blocks]
    held: NDArray[np.int64]  # [requests, most blocks]: cached blocks in use
    entries: Any
    index: Any  # (hash, rank) -> entry
    shares: NDArray[np.float64]  # [classes, groups]: cumulative shares of a class's requests
    totals: Any
    per_class: Any
    waits: NDArray[np.float64]  # [classes, reasons]: measured requests' waits
    histogram: NDArray[np.int64]  # [classes, metrics, bins]
    sums: NDArray[np.float64]
    series: NDArray[np.float64]  # [bins, columns]
    outages: Any
    scaling: Any


class Rows(NamedTuple):
    """Requests that are to come, in the order of their arrival; the inner loop goes through them once."""

    time_s: NDArray[np.float64]
    klass: NDArray[np.int64]
    prompt: NDArray[np.int64]
    output: NDArray[np.int64]
    given: NDArray[np.int64]
    hash_start: NDArray[np.int64]
    hashes: NDArray[np.int64]
