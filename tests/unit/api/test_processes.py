"""Processes of our own."""

from __future__ import annotations

import multiprocessing
import os
import threading

import pytest

from tokopt.api.processes import THREADS, local_processes


def test_nothing_outlives_work_that_is_given_up() -> None:
    processes, threads = set(multiprocessing.active_children()), set(threading.enumerate())

    def given_up() -> None:
        with local_processes(2) as pool:
            assert pool.submit(sum, range(3)).result() == 3
            for _ in range(50):
                pool.submit(sum, range(10**7))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        given_up()
    assert set(threading.enumerate()) <= threads  # the pool's own thread has closed its pipes
    for child in set(multiprocessing.active_children()) - processes:
        child.join(10)
    assert set(multiprocessing.active_children()) <= processes


def test_each_has_one_thread_and_our_environment_is_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(THREADS[0], "7")
    monkeypatch.delenv(THREADS[1], raising=False)
    with local_processes(1) as pool:
        assert [pool.submit(os.getenv, name).result() for name in THREADS] == ["1"] * len(THREADS)
    assert os.environ[THREADS[0]] == "7" and THREADS[1] not in os.environ
