"""Running cells: in this process, in processes of our own, or on an executor that somebody else made."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from dataclasses import dataclass, field

from tokopt.catalog import Catalog
from tokopt.domain.comparing import CellAnswer
from tokopt.errors import InputError

from .comparing_cells import Answers, Task, failed, solutions, solve_task, tasks_of
from .comparing_scenarios import Cell, PriceGroup, search_signature
from .comparing_store import Store
from .processes import local_processes
from .progress import Progress

LOOK_S = 0.2  # between two looks at what is finished
LARGEST_UNSTORED = 25  # cells of a task that hands its answers back only at its end
SUSPECT = 2  # times that a cell was being solved when a process died, from which on it is solved alone
UNSTARTED = 2  # times that processes may die before any cell was begun


@dataclass(slots=True, kw_only=True)
class Run:
    """What a comparison is to solve, where answers go, and what could not be kept."""

    catalog: Catalog
    groups: Sequence[PriceGroup]
    cells: Sequence[Cell]
    store: Store
    progress: Progress
    others: int  # cells of other questions in the store
    left: dict[str, CellAnswer] = field(default_factory=dict)  # answers that the store does not keep

    def todo(self) -> list[Cell]:
        """Return the cells that have no answer yet."""
        missing = self.store.missing(self.cells) - set(self.left)
        return [cell for cell in self.cells if cell.key in missing]

    def take(self, answers: Answers) -> None:
        """Keep answers that came back from a worker."""
        named = {cell.key: cell for cell in self.cells}
        for key, answer in answers:
            if not self.store.add([(named[key], answer)]):
                self.left[key] = answer

    def tell(self) -> None:
        """Say how far the run is."""
        done = self.store.count() - self.others + len(self.left)
        self.progress(f"{done:,} of {len(self.cells):,} cells", done / len(self.cells))

    def tasks(self, cells: Sequence[Cell], largest: int, run: str = "") -> list[Task]:
        """Return cells as tasks; those of a run write to the store themselves."""
        path = self.store.path.resolve() if run else None
        return tasks_of(self.catalog, cells, self.groups, largest=largest, store=path, run=run)


def run_here(run: Run) -> None:
    """Solve all cells in this process, one after the other."""
    named = {cell.key: cell for cell in run.cells}
    for task in run.tasks(run.todo(), len(run.cells)):
        for key, answer in solutions(task):
            if not run.store.add([(named[key], answer)]):
                run.left[key] = answer
            run.tell()


# --- processes of our own ---


def run_processes(run: Run, jobs: int) -> None:
    """Solve all cells in `jobs` processes, which write answers as they find them; one that dies is replaced.

    Raises:
        InputError: Processes cannot be started, or another run took over the store.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise _unguarded()
    name = run.store.start_run()
    unstarted = 0
    try:
        while todo := run.todo():
            begun = {cell.key: run.store.begun(cell.key) for cell in todo}
            if any(count >= SUSPECT for count in begun.values()):
                for cell in (c for c in todo if begun[c.key] >= SUSPECT):
                    _alone(run, cell, name)
                continue
            largest = largest_task(todo, jobs)
            broken = _pool_run(run, run.tasks(todo, largest, name), jobs)
            if not broken and run.todo():
                raise InputError(
                    f"another run has taken over the store {run.store.path}; wait for its end, then run again"
                )
            started = any(run.store.begun(cell.key) > begun[cell.key] for cell in todo)
            unstarted = 0 if started else unstarted + broken
            if unstarted >= UNSTARTED:
                raise _unguarded()
    finally:
        run.store.end_run()


def largest_task(cells: Sequence[Cell], workers: int) -> int:
    """Return the most cells of a task: cells that share a search stay together as long as that leaves none idle."""
    searches = len({search_signature(cell.request) for cell in cells})
    return max(1, -(-len(cells) // (workers if searches >= 2 * workers else 2 * workers)))


def _alone(run: Run, cell: Cell, name: str) -> None:
    """Solve a cell that processes died of in a process of its own; if that dies too, that is its answer."""
    if _pool_run(run, run.tasks([cell], 1, name), 1) and run.store.missing([cell]):
        times = run.store.begun(cell.key)
        why = f"the process that solved it was killed, {times} times (is memory short?)"
        run.left[cell.key] = failed(cell, why, defect=True)


def _unguarded() -> InputError:
    return InputError(
        "worker processes end as soon as they start; a script has to call compare under "
        "if __name__ == '__main__': (or pass jobs=1)"
    )


def _pool_run(run: Run, tasks: Sequence[Task], jobs: int) -> bool:
    """Run tasks in a pool; whether a process died."""
    broken = False
    with local_processes(min(jobs, len(tasks))) as pool:
        futures: set[Future[Answers]] = set()
        try:
            futures |= {pool.submit(solve_task, task) for task in tasks}
        except BrokenExecutor:
            broken = True
        for future in _as_they_end(futures, run.tell):
            try:
                run.left.update(future.result())
            except BrokenExecutor:
                broken = True
    run.tell()
    return broken


def _as_they_end(futures: set[Future[Answers]], look: Callable[[], None]) -> Iterator[Future[Answers]]:
    """Yield futures as they end, looking around in between."""
    while futures:
        ended, futures = wait(futures, timeout=LOOK_S, return_when=FIRST_COMPLETED)
        yield from ended
        look()


# --- somebody else's executor ---


def run_executor(run: Run, executor: Executor) -> None:
    """Solve all cells on an executor; answers come back a task at a time.

    Raises:
        InputError: The executor broke down.
    """
    workers = getattr(executor, "_max_workers", None) or os.cpu_count() or 1
    todo = run.todo()
    largest = min(LARGEST_UNSTORED, largest_task(todo, workers))
    futures: set[Future[Answers]] = set()
    try:
        futures = {executor.submit(solve_task, task) for task in run.tasks(todo, largest)}
        for future in _as_they_end(set(futures), run.tell):
            run.take(future.result())
    except BrokenExecutor as error:
        done = len(run.cells) - len(run.todo())
        raise InputError(
            f"the executor broke down: {error}; {done:,} of {len(run.cells):,} cells are finished"
        ) from None
    finally:
        for future in futures:
            future.cancel()
    run.tell()
