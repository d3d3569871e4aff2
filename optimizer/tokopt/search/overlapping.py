"""Whether the steps of a set-up run as two halves within its running cap: what an engine is told to switch on."""

from __future__ import annotations

from typing import Any

import numpy as np

from tokopt.domain.deployments import Deployment, Layout, Pool
from tokopt.domain.workloads import Workload
from tokopt.perf.deployed import decode_layout, prefill_worker
from tokopt.perf.queueing import Profile
from tokopt.perf.replica import prefill_times
from tokopt.perf.serving import workload_lengths
from tokopt.search.space import Family, profile_of


def said_of_halves(
    family: Family, deployment: Deployment, workload: Workload, slots: int, sending: Family | None = None
) -> Deployment:
    """Return a deployment whose `two_batch_overlap` is switched off, pool by pool, where no step of it runs as halves.

    A pool of decode workers is asked about every occupancy up to `slots`, a prefill pool about one prompt and about
    full batches. Nothing that is predicted of the deployment changes.

    Args:
        family: What the set-up belongs to.
        deployment: With what may be switched on.
        workload: With the share of prompts that its caches find.
        slots: Requests in service of a decode worker.
        sending: What a prefill pool on another accelerator belongs to.
    """
    changed = deployment
    if decode_layout(deployment)[0].two_batch_overlap:
        whole = _decoding(deployment, two_batch=False)
        profiles = (profile_of(family, each, workload, slots, sending) for each in (deployment, whole))
        if _same(*profiles):
            changed = whole
    pool = changed.prefill
    if pool is not None and pool.layout.two_batch_overlap:
        whole = changed.model_copy(update={"prefill": _pool(pool, two_batch=False)})
        prompts = sending or family
        if _prompt_times(prompts, changed, workload) == _prompt_times(prompts, whole, workload):
            changed = whole
    return changed


def _switched(layout: Layout, *, two_batch: bool) -> Layout:
    return layout.model_copy(update={"two_batch_overlap": two_batch})


def _pool(pool: Pool, *, two_batch: bool) -> Pool:
    return pool.model_copy(update={"layout": _switched(pool.layout, two_batch=two_batch)})


def _decoding(deployment: Deployment, *, two_batch: bool) -> Deployment:
    """Return a deployment whose decoding workers run halves, or do not."""
    if deployment.layout is not None:
        return deployment.model_copy(update={"layout": _switched(deployment.layout, two_batch=two_batch)})
    assert deployment.decode is not None
    return deployment.model_copy(update={"decode": _pool(deployment.decode, two_batch=two_batch)})


def _same(one: Profile, other: Profile) -> bool:
    columns = ("requests_per_s", "tpot_s", "stall_s", "prompt_s", "front_s")
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in columns)


def _prompt_times(family: Family, deployment: Deployment, workload: Workload) -> tuple[Any, ...]:
    worker = prefill_worker(deployment)
    size = workload_lengths(workload)
    times = prefill_times(family.model, family.machine, worker.layouts, size, float(worker.chunk_tokens))
    return float(times.batch_s), float(times.single_s)
