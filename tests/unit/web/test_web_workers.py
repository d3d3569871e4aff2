"""Processes that solve: what takes too long or ends is said, and others wait for so long only."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tokopt.web.problems import Problem
from tokopt.web.workers import Work, Worker, Workers

MEMORY = 4096 * 2**20
SMALL: dict[str, Any] = {"model": "qwen3-8b", "gpus": ["h100_sxm"], "workload": "chat", "power": "30kW"}


def question(limit_s: float = 60.0, **asked: Any) -> Work:
    return Work(kind="plan", asked=SMALL | asked, limit_s=limit_s)


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    made = Worker(tmp_path_factory.mktemp("uploads"), None, MEMORY)
    yield made
    made.end()


def test_what_takes_too_long_is_ended_and_the_next_question_answered(worker: Worker) -> None:
    with pytest.raises(Problem, match=r"no answer within 0\.001 s") as raised:
        worker.ask(question(limit_s=0.001))
    assert raised.value.status == 504
    assert worker.ask(question()).startswith(b'{"plan"')
    assert worker.started == 2


def test_a_process_that_dies_is_said_and_replaced(worker: Worker) -> None:
    worker.begin()
    process = worker._process
    killer = threading.Timer(0.2, os.kill, (process.pid, signal.SIGKILL))
    killer.start()
    long = Work(kind="frontier", asked={"prices": ["all"]}, limit_s=60.0)
    with pytest.raises(Problem, match="the process that worked on this ended"):
        worker.ask(long)
    assert worker.ask(question()).startswith(b'{"plan"')


def test_bad_input_keeps_the_process(worker: Worker) -> None:
    worker.ask(question())
    before = worker.started
    with pytest.raises(Problem) as raised:
        worker.ask(question(power="x"))
    assert (raised.value.status, raised.value.field) == (422, "power")
    assert worker.started == before


def test_a_defect_is_one_line(worker: Worker) -> None:
    with pytest.raises(Problem, match="internal error: TypeError") as raised:
        worker.ask(question(no_such_keyword=1))
    assert raised.value.status == 500


class Slow(Workers):
    """Workers whose processes only wait."""

    def __init__(self, count: int, *, most_waiting: int, longest_wait_s: float) -> None:
        super().__init__(
            count,
            most_waiting=most_waiting,
            longest_wait_s=longest_wait_s,
            folder=Path("."),
            catalog=None,
            memory=MEMORY,
        )
        self.at_once = self.most_at_once = 0
        for each in self._all:
            each.ask = self.wait  # type: ignore[method-assign]

    def wait(self, work: Work) -> bytes:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        time.sleep(work.limit_s)
        self.at_once -= 1
        return b"done"


def outcomes(questions: int, asked_s: float, **settings: Any) -> tuple[list[str], Slow]:
    """Ask questions at once; return what came of each."""

    async def all_of_them() -> tuple[list[Any], Slow]:
        workers = Slow(**settings)
        asked = [workers.ask(Work(kind="plan", asked={}, limit_s=asked_s)) for _ in range(questions)]
        return await asyncio.gather(*asked, return_exceptions=True), workers

    found, workers = asyncio.run(all_of_them())
    return [each.decode() if isinstance(each, bytes) else str(each.status) for each in found], workers


def test_so_many_at_a_time() -> None:
    found, workers = outcomes(6, 0.05, count=2, most_waiting=9, longest_wait_s=9.0)
    assert found == ["done"] * 6 and workers.most_at_once == 2 and workers.present == 0


def test_who_finds_too_many_waiting_is_told_to_come_back() -> None:
    found, workers = outcomes(6, 0.2, count=1, most_waiting=2, longest_wait_s=9.0)
    assert sorted(found) == ["503"] * 3 + ["done"] * 3
    assert workers.at_leisure is False  # one process is never at leisure


def test_who_waits_too_long_is_told_to_come_back() -> None:
    found, _ = outcomes(2, 0.5, count=1, most_waiting=9, longest_wait_s=0.1)
    assert found == ["done", "503"]


def test_questions_about_one_thing_go_to_the_process_that_knows_it() -> None:
    async def asked() -> list[int]:
        workers = Slow(2, most_waiting=9, longest_wait_s=9.0)
        order = []
        for each, worker in enumerate(workers._all):
            worker.ask = lambda work, each=each: order.append(each) or b""  # type: ignore[method-assign, func-returns-value]
        for about in ("a", "b", "a", "b", "b", "a", "c"):
            await workers.ask(Work(kind="plan", asked={}, about=about, limit_s=1.0))
        return order

    found = asyncio.run(asked())
    assert found == [0, 1, 0, 1, 1, 0, 1]  # c: to the one that was idle longest
