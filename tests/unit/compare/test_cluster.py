"""The same comparison on a real Dask scheduler with two worker processes on this machine."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tokopt
from tokopt.api.comparing import prepare_comparison
from tokopt.api.comparing_cluster import check_address, run_cluster
from tokopt.api.comparing_runs import Run
from tokopt.api.comparing_store import Store
from tokopt.errors import InputError

pytest.importorskip("distributed", reason="the extra 'cluster' is not installed")

LISTS = "aws,lambda"
STARTED_S = 60.0
SCENARIOS = {
    "defaults": {"model": "qwen3-8b", "workload": "chat", "gpu": "h100_sxm,l40s"},
    "matrix": {"sla": ["30ms", "40ms", "60ms"], "demand": ["10req/s", "20req/s", "30req/s", "40req/s", "50req/s"]},
}


class Cluster:
    """A scheduler and its workers, each a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen[str]] = []
        self.address = ""

    def start(self, module: str, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.{module}", *arguments],
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"DASK_DISTRIBUTED__WORKER__DAEMON": "False"},
        )
        self.processes.append(process)
        return process

    def scheduler(self) -> None:
        process = self.start(
            "dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--no-show", "--no-jupyter"
        )
        assert process.stderr is not None
        lines: list[str] = []
        found = threading.Event()

        def read() -> None:
            for line in process.stderr or ():
                lines.append(line)
                match = re.search(r"Scheduler at:\s+(tcp://127\.0\.0\.1:\d+)", line)
                if match:
                    self.address = match[1]
                    found.set()

        threading.Thread(target=read, daemon=True).start()
        assert found.wait(STARTED_S), "".join(lines)

    def worker(self) -> subprocess.Popen[str]:
        """Start a worker without a nanny: once killed, it stays dead."""
        process = self.start(
            "dask_worker", self.address, "--nthreads", "1", "--no-nanny", "--no-dashboard", "--host", "127.0.0.1"
        )
        threading.Thread(target=lambda: list(process.stderr or ()), daemon=True).start()
        return process

    def stop(self) -> None:
        for process in reversed(self.processes):
            process.kill()
        for process in self.processes:
            process.wait(20)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    (tmp_path / "dask").mkdir()
    found = Cluster(tmp_path / "dask")
    try:
        found.scheduler()
        yield found
    finally:
        found.stop()


def rows(found: tokopt.Comparison) -> list[dict[str, Any]]:
    return [row.model_dump() for row in found.rows]


@pytest.fixture(scope="module")
def expected() -> list[dict[str, Any]]:
    return rows(tokopt.compare(SCENARIOS, LISTS, jobs=1))


def test_two_workers_give_what_one_process_gives(cluster: Cluster, expected: list[dict[str, Any]]) -> None:
    cluster.worker()
    cluster.worker()
    assert rows(tokopt.compare(SCENARIOS, LISTS, cluster=cluster.address)) == expected


def test_a_price_file_and_a_store_need_not_be_where_the_workers_are(cluster: Cluster, tmp_path: Path) -> None:
    cluster.worker()
    mine = tmp_path / "mine.csv"
    mine.write_text("accelerator,accelerator_count,usd_per_hour\nh100_sxm,8,2.5\n", encoding="utf-8")
    store = tmp_path / "cells.sqlite"
    found = tokopt.compare(SCENARIOS, ["aws", str(mine)], cluster=cluster.address, store=store)
    assert {winner.price_list for winner in found.winners} == {str(mine)}
    again = tokopt.compare(SCENARIOS, ["aws", str(mine)], jobs=1, store=store)
    assert (again.solved, again.kept) == (0, 30) and rows(again) == rows(found)


def test_a_worker_killed_half_way_costs_nothing(
    cluster: Cluster, expected: list[dict[str, Any]], tmp_path: Path
) -> None:
    first, _ = cluster.worker(), cluster.worker()
    store = tmp_path / "cells.sqlite"
    told: list[float] = []

    def progress(_doing: str, done: float) -> None:
        told.append(done)
        if done > 0.0 and first.poll() is None:
            first.send_signal(signal.SIGKILL)

    found = tokopt.compare(SCENARIOS, LISTS, cluster=cluster.address, store=store, progress=progress)
    assert first.wait(20) == -signal.SIGKILL, "it was still at work when it was killed"
    assert min(done for done in told if done > 0.0) < 1.0
    assert rows(found) == expected
    prepared = prepare_comparison(SCENARIOS, LISTS)
    with Store.open(store, catalog_version=prepared.catalog.version) as kept:
        assert kept.count() == len(expected)  # none missing, none twice
        assert not kept.missing(prepared.cells)


def test_a_cluster_that_loses_its_last_worker_says_so_and_keeps_what_is_finished(
    cluster: Cluster, expected: list[dict[str, Any]], tmp_path: Path
) -> None:
    only = cluster.worker()
    prepared = prepare_comparison(SCENARIOS, LISTS)
    store = tmp_path / "cells.sqlite"

    def progress(_doing: str, done: float) -> None:
        if done > 0.0 and only.poll() is None:
            only.kill()

    with Store.open(store, catalog_version=prepared.catalog.version) as kept:
        run = Run(
            catalog=prepared.catalog,
            groups=prepared.groups,
            cells=prepared.cells,
            store=kept,
            progress=progress,
            others=0,
        )
        with pytest.raises(InputError, match=r"no workers any more; \d+ of 30 cells are finished"):
            run_cluster(run, cluster.address, no_worker_s=3.0)
        done = kept.count()
    assert 0 < done < 30
    rest = tokopt.compare(SCENARIOS, LISTS, jobs=1, store=store)
    assert (rest.kept, rest.solved) == (done, 30 - done) and rows(rest) == expected


def test_a_scheduler_without_workers_is_one_line(cluster: Cluster) -> None:
    prepared = prepare_comparison(SCENARIOS, LISTS)
    with Store.open(cluster.folder / "x.sqlite", catalog_version=prepared.catalog.version) as kept:
        run = Run(
            catalog=prepared.catalog,
            groups=prepared.groups,
            cells=prepared.cells,
            store=kept,
            progress=lambda _doing, _done: None,
            others=0,
        )
        with pytest.raises(InputError, match="has no workers"):
            run_cluster(run, cluster.address, no_worker_s=0.5)


@pytest.mark.parametrize("address", ["", "127.0.0.1:8786", "tcp://", "http://host:1", "tcp://a b:1"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(InputError, match="write it like tcp://host:8786"):
        check_address(address)


def test_nobody_at_the_address_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokopt.api.comparing_cluster.CONNECT_S", 0.5)
    with pytest.raises(InputError, match="no Dask scheduler answers"):
        tokopt.compare(SCENARIOS, LISTS, cluster="tcp://127.0.0.1:9")
