"""The store of finished cells: what it refuses, what it extends, and what is left after processes were killed."""

from __future__ import annotations

import os
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest

import tokopt
from tokopt.api import comparing_store
from tokopt.api.comparing import prepare_comparison, run_comparison
from tokopt.api.comparing_runs import Run, run_processes
from tokopt.api.comparing_store import Store
from tokopt.catalog import Catalog
from tokopt.errors import InputError

SCENARIOS: dict[str, Any] = {
    "defaults": {"model": "qwen3-8b", "workload": "chat", "gpu": "h100_sxm,l40s"},
    "matrix": {"sla": ["30ms", "50ms"], "demand": ["10req/s", "20req/s", "30req/s", "40req/s"]},
}
FEW: dict[str, Any] = {"one": {"model": "qwen3-8b", "workload": "chat", "gpu": "h100_sxm", "demand": "9req/s"}}
LISTS = "aws,lambda"


def raw(path: Path) -> list[tuple[Any, ...]]:
    with sqlite3.connect(path) as base:
        return base.execute(
            "SELECT key, scenario, price_list, answer, finished_at FROM cells ORDER BY number"
        ).fetchall()


def test_a_second_run_solves_nothing(catalog: Catalog, tmp_path: Path) -> None:
    store = tmp_path / "cells.sqlite"
    first = tokopt.compare(FEW, LISTS, store=store, jobs=1, catalog=catalog)
    before = raw(store)
    second = tokopt.compare(FEW, LISTS, store=store, jobs=1, catalog=catalog)
    assert (first.solved, first.kept, second.solved, second.kept) == (2, 0, 0, 2)
    assert second.rows == first.rows and raw(store) == before


def test_other_scenarios_are_added_and_new_names_keep_what_is_solved(catalog: Catalog, tmp_path: Path) -> None:
    store = tmp_path / "cells.sqlite"
    tokopt.compare(FEW, LISTS, store=store, jobs=1, catalog=catalog)
    renamed = {"other name": FEW["one"], "two": FEW["one"] | {"demand": "8req/s"}}
    prepared = prepare_comparison(renamed, "aws,lambda,gcp", catalog=catalog)
    remarks = prepared.remarks(store)
    assert remarks[1].endswith("2 of them are finished, 4 are left") and len(remarks) == 2
    found = run_comparison(prepared, store=store, jobs=1)
    assert (found.solved, found.kept) == (4, 2)
    assert [row.scenario for row in found.rows] == ["other name"] * 3 + ["two"] * 3


def test_changed_prices_and_options_are_solved_again_and_said(catalog: Catalog, tmp_path: Path) -> None:
    store, mine = tmp_path / "cells.sqlite", tmp_path / "mine.csv"
    mine.write_text("accelerator,accelerator_count,usd_per_hour\nh100_sxm,8,20\n", encoding="utf-8")
    first = tokopt.compare(FEW, str(mine), store=store, jobs=1, catalog=catalog)
    mine.write_text("accelerator,accelerator_count,usd_per_hour\nh100_sxm,8,40\n", encoding="utf-8")
    prepared = prepare_comparison(FEW, str(mine), catalog=catalog)
    assert "also holds 1 cells of other comparisons, 1 of these under names" in prepared.remarks(store)[2]
    second = run_comparison(prepared, store=store, jobs=1)
    assert (second.solved, second.kept) == (1, 0)
    assert second.rows[0].usd_per_hour == pytest.approx(2 * (first.rows[0].usd_per_hour or 0.0))
    assert len(raw(store)) == 2


def test_a_store_of_another_catalog_or_version_is_refused(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "cells.sqlite"
    tokopt.compare(FEW, "aws", store=store, jobs=1, catalog=catalog)
    with pytest.raises(InputError, match=r"solved by catalog .* they cannot stand beside new ones; name another file"):
        Store.open(store, catalog_version="another")
    monkeypatch.setattr(comparing_store, "__version__", "99.0")
    with pytest.raises(InputError, match=r"solved by tokopt .*, not 99\.0"):
        Store.open(store, catalog_version=catalog.version)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.mkdir(), "is a directory"),
        (lambda path: path.write_text("no database\n" * 200), "not a store of finished cells"),
        (lambda path: sqlite3.connect(path).execute("CREATE TABLE x (y)"), "not of finished cells"),
    ],
)
def test_what_is_no_store_is_refused_and_stays(make: Any, said: str, tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    make(path)
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(InputError, match=said) as error:
        tokopt.compare(FEW, "aws", store=path, jobs=1)
    assert "\n" not in str(error.value)
    assert (path.read_bytes() if path.is_file() else b"") == before


def test_a_store_in_no_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no directory"):
        tokopt.compare(FEW, "aws", store=tmp_path / "none" / "x.sqlite", jobs=1)


# --- processes that die ---


def children() -> set[int]:
    """Return the processes that this process has started, where the system tells."""
    path = Path(f"/proc/self/task/{os.getpid()}/children")
    if not path.exists():
        pytest.skip("the system does not list a process's children")
    return {int(pid) for pid in path.read_text().split()}


def is_worker(pid: int) -> bool:
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        return b"spawn_main" in file.read()


def test_a_worker_that_is_killed_costs_no_cell(catalog: Catalog, tmp_path: Path) -> None:
    prepared = prepare_comparison(SCENARIOS, LISTS, catalog=catalog)
    expected = run_comparison(prepared, jobs=1)
    before, killed = children(), set[int]()

    def progress(_doing: str, done: float) -> None:
        if 0.0 < done < 1.0 and not killed:
            victim = next(pid for pid in sorted(children() - before) if is_worker(pid))
            os.kill(victim, signal.SIGKILL)
            killed.add(victim)

    store = tmp_path / "cells.sqlite"
    found = run_comparison(prepared, jobs=2, store=store, progress=progress)
    assert killed, "nothing was killed, so nothing was shown"
    assert found.rows == expected.rows and len(raw(store)) == len(expected.rows)


def test_a_cell_that_kills_its_process_is_its_row_and_the_others_are_answered(catalog: Catalog, tmp_path: Path) -> None:
    """A store that says a cell was begun twice before stands for one whose processes die of it."""
    prepared = prepare_comparison(SCENARIOS, LISTS, catalog=catalog)
    with Store.open(tmp_path / "cells.sqlite", catalog_version=catalog.version) as kept:
        poison = prepared.cells[5]
        alone: list[int] = []
        begun, missing = kept.begun, kept.missing
        kept.begun = lambda key: 2 if key == poison.key else begun(key)  # type: ignore[method-assign]
        run = Run(
            catalog=catalog,
            groups=prepared.groups,
            cells=prepared.cells,
            store=kept,
            progress=lambda *_: None,
            others=0,
        )
        before = children()

        def progress(_doing: str, _done: float) -> None:
            if not run.left and len(missing(prepared.cells)) == len(prepared.cells):
                for pid in children() - before:
                    if is_worker(pid):
                        alone.append(pid)
                        os.kill(pid, signal.SIGKILL)

        run.progress = progress
        run_processes(run, 2)
        assert alone and list(run.left) == [poison.key]
        assert run.left[poison.key].defect and "was killed, 2 times" in run.left[poison.key].error
        assert kept.count() == len(prepared.cells) - 1


def test_a_run_that_another_takes_over_stops(catalog: Catalog, tmp_path: Path) -> None:
    prepared = prepare_comparison(SCENARIOS, LISTS, catalog=catalog)
    store = tmp_path / "cells.sqlite"
    with Store.open(store, catalog_version=catalog.version) as kept:
        taken: list[str] = []

        def progress(_doing: str, done: float) -> None:
            if done > 0.0 and not taken:
                with Store.join(store) as other:
                    taken.append(other.start_run())

        run = Run(
            catalog=catalog, groups=prepared.groups, cells=prepared.cells, store=kept, progress=progress, others=0
        )
        with pytest.raises(InputError, match="another run has taken over the store"):
            run_processes(run, 2)
        assert 0 < kept.count() < len(prepared.cells)
