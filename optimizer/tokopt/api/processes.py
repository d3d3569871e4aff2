"""Processes of our own that work for one question, and end with it."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@contextlib.contextmanager
def local_processes(count: int) -> Iterator[Executor]:
    """Yield processes of one thread each, started afresh; they end with us, and at once where the work is given up."""
    before = set(multiprocessing.active_children())
    with one_thread_each():
        pool = ProcessPoolExecutor(
            max_workers=count, mp_context=multiprocessing.get_context("spawn"), initializer=begin_apart
        )
        try:
            yield pool
        except BaseException:
            for child in set(multiprocessing.active_children()) - before:
                child.terminate()
            # Not without waiting: the end of the interpreter would wake the pool's thread up while it closes its pipe.
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    pool.shutdown()


@contextlib.contextmanager
def one_thread_each() -> Iterator[None]:
    """Have the linear algebra of processes that start within keep to one thread."""
    kept = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))  # read by a process when it starts
    try:
        yield
    finally:
        for name, value in kept.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def begin_apart() -> None:
    """Leave an interrupt from the keyboard to the process that gave the work, and do not outlive it.

    What solvers print goes nowhere: standard output is not ours.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    giver = multiprocessing.parent_process()
    if giver is not None:
        threading.Thread(target=_end_with, args=(giver,), daemon=True).start()


def _end_with(giver: multiprocessing.process.BaseProcess) -> None:
    giver.join()
    os._exit(1)
