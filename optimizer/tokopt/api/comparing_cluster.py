"""Running cells on a Dask cluster (extra `cluster`). Answers come back a task at a time; the store stays with us."""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tokopt.errors import InputError

from .comparing_cells import Task, failed, solve_task
from .comparing_runs import LARGEST_UNSTORED, Run, largest_task

ADDRESS = re.compile(r"(tcp|tls|ucx|ws|wss|inproc)://\S+")
CONNECT_S = 10.0
LOOK_S = 0.5
NO_WORKER_S = 60.0  # a cluster without workers may be growing; longer than this, nobody is coming


def check_address(address: str) -> None:
    """Raise InputError where an address is not one of a scheduler, or the extra is missing."""
    if not ADDRESS.fullmatch(address):
        raise InputError(f"--cluster: {address!r} is not an address of a Dask scheduler; write it like tcp://host:8786")
    try:
        import distributed  # noqa: F401
    except ImportError:
        raise InputError("--cluster needs the extra 'cluster': pip install 'tokopt[cluster]'") from None


def run_cluster(run: Run, address: str, *, no_worker_s: float = NO_WORKER_S) -> None:
    """Solve all cells on the workers of a Dask scheduler. Tasks of a worker that dies go to another one.

    Raises:
        InputError: No scheduler answers, it went away, or it has no workers.
    """
    check_address(address)
    with _client(address) as client:
        _wait_for_workers(client, address, no_worker_s)
        alone: set[str] = set()  # cells of tasks that workers died of: by itself, each shows whether it was the one
        while todo := run.todo():
            threads = sum(worker["nthreads"] for worker in client.scheduler_info(n_workers=-1)["workers"].values())
            largest = min(LARGEST_UNSTORED, largest_task(todo, max(threads, 1)))
            tasks = run.tasks([c for c in todo if c.key not in alone], largest)
            tasks += run.tasks([c for c in todo if c.key in alone], 1)
            alone |= _run_tasks(run, client, tasks, address, no_worker_s)
            run.tell()


@contextmanager
def _client(address: str) -> Iterator[Any]:
    from distributed import Client

    log = logging.getLogger("distributed")
    level = log.level
    log.setLevel(logging.CRITICAL)  # what goes wrong is said by us, in a line
    try:
        try:
            client = Client(address, timeout=CONNECT_S, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            said = " ".join(str(error).split())[:200]
            raise InputError(f"--cluster {address}: no Dask scheduler answers: {said}") from None
        with client, client.as_current():
            yield client
    finally:
        log.setLevel(level)


def _wait_for_workers(client: Any, address: str, no_worker_s: float) -> None:
    try:
        client.wait_for_workers(1, timeout=no_worker_s)
    except TimeoutError:
        raise InputError(f"--cluster {address}: the scheduler has no workers") from None


def _run_tasks(run: Run, client: Any, tasks: list[Task], address: str, no_worker_s: float) -> set[str]:
    """Run tasks and keep what comes back; return the cells of tasks of several that workers died of.

    What the cluster lost is left to the next round.
    """
    from distributed import wait

    name = uuid.uuid4().hex[:8]  # two comparisons on one cluster are apart
    running = {
        client.submit(solve_task, task, key=f"tokopt-compare-{name}-{number}", pure=False): task
        for number, task in enumerate(tasks)
    }
    seen, deadly = time.monotonic(), set[str]()
    try:
        while running:
            try:
                ended = set(wait(list(running), timeout=LOOK_S, return_when="FIRST_COMPLETED").done)
            except TimeoutError:
                ended = set()
            for future in ended:
                deadly |= _collect(run, future, running.pop(future))
            run.tell()
            if ended or _has_workers(client):
                seen = time.monotonic()
            elif time.monotonic() - seen > no_worker_s:
                raise _gone(run, address)
    finally:
        client.cancel(list(running))
    return deadly


def _collect(run: Run, future: Any, task: Task) -> set[str]:
    """Keep the answers of a task that has ended; return its cells where workers died of it, and there are several."""
    from distributed import KilledWorker

    if future.status == "finished":
        run.take(future.result())
    elif future.status == "error":
        error = future.exception()
        if isinstance(error, InputError):
            raise error
        if not isinstance(error, KilledWorker):
            why = f"internal error: {type(error).__name__}: {error}"
        elif len(task.cells) > 1:
            return {cell.key for cell in task.cells}
        else:
            why = "the workers that solved it were killed (is memory short?)"
        for cell in task.cells:
            run.left[cell.key] = failed(cell, " ".join(why.split())[:300], defect=True)
    return set()


def _has_workers(client: Any) -> bool:
    return client.status == "running" and bool(client.scheduler_info(n_workers=-1)["workers"])


def _gone(run: Run, address: str) -> InputError:
    done = len(run.cells) - len(run.todo())
    return InputError(
        f"--cluster {address}: no scheduler or no workers any more; {done:,} of {len(run.cells):,} cells are finished"
    )
