"""Processes that solve: so many at a time, each for so long, with so much memory."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import sys
import threading
import traceback
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tokopt.api.processes import begin_apart, one_thread_each
from tokopt.errors import InfeasibleError, TokoptError

from .problems import Problem, of_input

CONTEXT = multiprocessing.get_context("spawn")
STARTING = threading.Lock()  # what a process is started with is set for all of ours
ENDING_S = 2.0  # that a process gets to end by itself
ENDING = "the server is ending"
SUBJECTS = 2  # whose searches a process remembers, as `SharedSearch` does


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A question for a process; questions of one `about` are best answered by one that has just answered another."""

    kind: str
    asked: dict[str, Any]
    about: str = ""
    limit_s: float


class Worker:
    """One process. Not for several threads at a time."""

    def __init__(self, folder: Path, catalog: str | None, most_bytes: int) -> None:
        self._start = folder, catalog, most_bytes
        self._process: Any = None
        self._line: Connection | None = None
        self.about: deque[str] = deque(maxlen=SUBJECTS)
        self.started = 0  # how often a process was started

    def begin(self) -> None:
        """Start the process, unless there is one."""
        if self._process is not None and self._process.is_alive():
            return
        self.end()
        ours, theirs = CONTEXT.Pipe()
        with STARTING, one_thread_each():
            self._process = CONTEXT.Process(target=_serve, args=(theirs, *self._start), daemon=True)
            self._process.start()
        theirs.close()
        self._line = ours
        self.started += 1

    def ask(self, work: Work) -> bytes:
        """Return the answer to a question.

        Raises:
            Problem: Bad input (422), it took too long (504), or a defect (500).
        """
        self.begin()
        assert self._line is not None
        try:
            self._line.send((work.kind, work.asked))
            if not self._line.poll(work.limit_s):
                self.end()
                raise Problem(504, f"no answer within {work.limit_s:g} s: ask for less at a time")
            outcome, answer = self._line.recv()
        except (EOFError, OSError):
            self.end()
            raise Problem(500, "the process that worked on this ended: it may have run out of memory") from None
        if outcome == "input":
            raise of_input(answer, work.asked.get("prices", ()))
        if outcome == "defect":
            raise Problem(500, f"internal error: {answer}")
        assert isinstance(answer, bytes)
        return answer

    def kill(self) -> None:
        """End the process while another thread may wait for it: that one finds out."""
        if self._process is not None:
            self._process.kill()

    def end(self) -> None:
        """End the process, whatever it does; nobody may wait for it."""
        if self._line is not None:
            self._line.close()
        if self._process is not None:
            self._process.kill()
            self._process.join(ENDING_S)
        self._process = self._line = None


class Workers:
    """A number of processes, and the questions that wait for one."""

    def __init__(
        self, count: int, *, most_waiting: int, longest_wait_s: float, folder: Path, catalog: str | None, memory: int
    ) -> None:
        self._idle = [Worker(folder, catalog, memory) for _ in range(count)]
        self._all = tuple(self._idle)
        self._most_waiting = most_waiting
        self._longest_wait_s = longest_wait_s
        self._free = asyncio.Semaphore(count)
        self._threads = ThreadPoolExecutor(max_workers=count, thread_name_prefix="solve")
        self.present = 0  # questions that wait or are worked on
        self.ending = False

    async def ask(self, work: Work) -> bytes:
        """Return the answer of a process that is free, or becomes free soon enough.

        Raises:
            Problem: As `Worker.ask`, or too many wait already (503).
        """
        if self.present >= len(self._all) + self._most_waiting:
            raise Problem(503, f"{self._most_waiting} questions are waiting: ask again in a moment", retry_after_s=2)
        self.present += 1
        try:
            await self._turn()
            try:
                return await self._by_one(work)
            finally:
                self._free.release()
        finally:
            self.present -= 1

    async def _turn(self) -> None:
        """Wait until a process is free.

        Raises:
            Problem: None is, for too long.
        """
        try:
            await asyncio.wait_for(self._free.acquire(), self._longest_wait_s)
        except TimeoutError:
            raise Problem(503, "other questions are being worked on: ask again in a moment", retry_after_s=5) from None

    async def _by_one(self, work: Work) -> bytes:
        """Return the answer of one of the processes that are idle."""
        if self.ending:
            raise Problem(503, ENDING)
        worker = self._choose(work.about)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, worker.ask, work)
        except Problem:
            if self.ending:
                raise Problem(503, ENDING) from None
            raise
        finally:
            if work.about and work.about not in worker.about:
                worker.about.append(work.about)
            self._idle.append(worker)

    @property
    def at_leisure(self) -> bool:
        """Whether all processes are idle, and one would still be if another question came."""
        return len(self._idle) == len(self._all) > 1

    def _choose(self, about: str) -> Worker:
        """Take the idle process that knows a subject, or else the one that was idle longest."""
        known = next((worker for worker in self._idle if about in worker.about), self._idle[0])
        self._idle.remove(known)
        return known

    def begin(self) -> None:
        """Start all processes, so that first answers do not wait for that."""
        for worker in self._all:
            worker.begin()

    def stop(self) -> None:
        """Give up what is worked on, and take no more questions."""
        self.ending = True
        for worker in self._all:
            worker.kill()

    def close(self) -> None:
        """End all processes; no question may be worked on."""
        for worker in self._all:
            worker.end()
        self._threads.shutdown(wait=False, cancel_futures=True)


def _serve(line: Connection, folder: Path, catalog: str | None, most_bytes: int) -> None:
    """Answer questions one by one, in a folder that holds nothing but uploads, until nobody asks any more."""
    begin_apart()
    os.chdir(folder)
    _limit_memory(most_bytes)
    from .work import Desk

    desk = Desk(catalog)
    with contextlib.suppress(EOFError, OSError):
        while True:
            kind, asked = line.recv()
            try:
                answer: tuple[str, str | bytes] = "answer", desk.do(kind, asked)
            except InfeasibleError as error:
                answer = "input", desk.without_place(str(error))
            except TokoptError as error:
                answer = "input", desk.without_place(str(error))
            except Exception as error:  # noqa: BLE001  # the client gets one line, whoever runs the server the rest
                traceback.print_exc(file=sys.stderr)
                answer = "defect", type(error).__name__
            line.send(answer)


def _limit_memory(most_bytes: int) -> None:
    """Have the process end where it wants more memory, for example for a small file that unpacks to a huge one."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (most_bytes, most_bytes))
