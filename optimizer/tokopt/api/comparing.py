"""`compare`: scenarios under price lists, in parallel, and who wins."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokopt.catalog import Catalog, load_catalog
from tokopt.domain.comparing import Comparison
from tokopt.errors import InputError
from tokopt.version import __version__

from .comparing_runs import Run, run_executor, run_here, run_processes
from .comparing_scenarios import Cell, PriceGroup, Scenario, cells_of, price_groups, scenarios_of, search_signature
from .comparing_store import Store
from .comparing_winners import rows_of, winners_of, wins_of
from .progress import Progress, silent

FEW_CELLS = 4  # up to here, processes take longer to start than the cells take


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A comparison that is checked and not yet solved."""

    catalog: Catalog
    scenarios: tuple[Scenario, ...]
    groups: tuple[PriceGroup, ...]
    cells: tuple[Cell, ...]
    searches: int  # groups of scenarios that share their search

    def remarks(self, store: str | Path | None) -> list[str]:
        """Return what to know before it is solved: how much there is to do, and what a store holds of it."""
        size = f"{len(self.cells):,} cells: {len(self.scenarios):,} scenarios x {len(self.groups):,} price lists"
        said = [f"{size}, {self.searches:,} {'search' if self.searches == 1 else 'searches'}"]
        if store is None or not Path(store).exists():
            return said
        with Store.open(Path(store), catalog_version=self.catalog.version) as kept:
            done = len(self.cells) - len(kept.missing(self.cells))
            others, again = kept.others(self.cells)
        said.append(f"{store}: {done:,} of them are finished, {len(self.cells) - done:,} are left")
        if others:
            stale = (
                f", {again:,} of these under names that are asked for again, for other options or prices"
                if again
                else ""
            )
            said.append(f"{store}: also holds {others:,} cells of other comparisons{stale}; they stay as they are")
        return said


def compare(
    scenarios: str | Path | Mapping[str, Any],
    price_lists: str | Sequence[str],
    executor: Executor | None = None,
    *,
    jobs: int | None = None,
    store: str | Path | None = None,
    cluster: str | None = None,
    rates: str | Sequence[str] | Mapping[str, float] | None = None,
    catalog: str | Path | Catalog | None = None,
    progress: Progress = silent,
) -> Comparison:
    """Solve every scenario under every price list, and say which list is best where.

    Args:
        scenarios: A scenario file, or a mapping: of names to options of `plan`, or laid out like a file.
        price_lists: Price lists, separated by commas or as a list; `aws+gcp` is both together.
        executor: Where cells are solved: any executor of `concurrent.futures`. None = processes of our own.
        jobs: Processes of our own. None = as many as there are processors; 1 = this process.
        store: SQLite file that finished cells are kept in, and taken from where they are there.
        cluster: Address of a Dask scheduler that solves the cells, like tcp://host:8786.
        rates: Currency -> US dollars for one, for prices in other currencies, or text like `EUR=1.08`.
        catalog: A catalog, or a directory that overlays the embedded one.
        progress: Told how many cells are finished.

    Returns:
        A row a cell, and the winners. Each row has the figures that `plan` gives for the same request.

    Raises:
        InputError: Scenarios or price lists that cannot be understood, before anything is solved; or a store, executor
            or cluster that fails.
    """
    prepared = prepare_comparison(scenarios, price_lists, rates=rates, catalog=catalog)
    return run_comparison(prepared, executor, jobs=jobs, store=store, cluster=cluster, progress=progress)


def prepare_comparison(
    scenarios: str | Path | Mapping[str, Any],
    price_lists: str | Sequence[str],
    *,
    rates: str | Sequence[str] | Mapping[str, float] | None = None,
    catalog: str | Path | Catalog | None = None,
) -> Prepared:
    """Return a comparison with everything read and checked; see `compare`."""
    loaded = catalog if isinstance(catalog, Catalog) else load_catalog(catalog)
    found = scenarios_of(loaded, scenarios)
    groups = price_groups(loaded, price_lists, rates)
    return Prepared(
        catalog=loaded,
        scenarios=found,
        groups=groups,
        cells=cells_of(loaded, found, groups),
        searches=len({search_signature(scenario.request) for scenario in found}),
    )


def run_comparison(
    prepared: Prepared,
    executor: Executor | None = None,
    *,
    jobs: int | None = None,
    store: str | Path | None = None,
    cluster: str | None = None,
    progress: Progress = silent,
) -> Comparison:
    """Solve what is not in the store, and return the whole comparison; see `compare`."""
    if executor is not None and (jobs is not None or cluster is not None):
        raise InputError("an executor is given: leave jobs and cluster out")
    if jobs is not None and cluster is not None:
        raise InputError("--cluster says where cells are solved: leave --jobs out")
    if jobs is not None and jobs < 1:
        raise InputError(f"--jobs: {jobs} is below 1")
    if cluster is not None:
        from .comparing_cluster import check_address

        check_address(cluster)
    with tempfile.TemporaryDirectory(prefix="tokopt-compare-") as folder:
        path = Path(folder) / "cells.sqlite" if store is None else Path(store)
        with Store.open(path, catalog_version=prepared.catalog.version) as kept:
            others, _ = kept.others(prepared.cells)
            run = Run(
                catalog=prepared.catalog,
                groups=prepared.groups,
                cells=prepared.cells,
                store=kept,
                progress=progress,
                others=others,
            )
            todo = len(run.todo())
            if todo:
                _solve(run, todo, executor, jobs, cluster)
            answers = kept.finished(prepared.cells) | run.left
    rows = rows_of(prepared.scenarios, [answers[cell.key] for cell in prepared.cells])
    return Comparison(
        rows=rows,
        winners=winners_of(prepared.scenarios, rows),
        price_lists=wins_of(prepared.groups, rows),
        cells=len(prepared.cells),
        solved=todo,
        kept=len(prepared.cells) - todo,
        store=None if store is None else str(store),
        tokopt_version=__version__,
        catalog_version=prepared.catalog.version,
    )


def _solve(run: Run, todo: int, executor: Executor | None, jobs: int | None, cluster: str | None) -> None:
    run.tell()
    if executor is not None:
        run_executor(run, executor)
    elif cluster is not None:
        from .comparing_cluster import run_cluster

        run_cluster(run, cluster)
    else:
        count = jobs or (1 if todo <= FEW_CELLS else _processors())
        if count == 1 or multiprocessing.current_process().daemon:
            run_here(run)
        else:
            run_processes(run, count)


def _processors() -> int:
    """Return how many processors we may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
