"""What surrounds a computation: standard output kept clean, and a progress bar on a terminal."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

Told = Callable[[str, float], None]
BAR_AFTER_S = 1.0  # shorter work shows no bar


@contextlib.contextmanager
def computing(*, quiet: bool) -> Iterator[Told]:
    """Run a computation with all that it prints on standard error; yields what its progress is told to."""
    with _output_on_stderr():
        if quiet or sys.stderr is None or not sys.stderr.isatty():
            yield _silent
        else:
            with _bar() as told:
                yield told


@contextlib.contextmanager
def _output_on_stderr() -> Iterator[None]:
    """Send Python's standard output and file descriptor 1, which solvers print to, to standard error."""
    if sys.stdout is not None:
        sys.stdout.flush()
    try:
        kept = os.dup(1)
    except OSError:  # closed by whoever started us
        kept = -1
    try:
        if kept >= 0:
            os.dup2(2, 1)
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        if kept >= 0:
            os.dup2(kept, 1)
            os.close(kept)


@contextlib.contextmanager
def _bar() -> Iterator[Told]:
    """Show a bar once the work has taken a while; it leaves nothing behind."""
    import threading

    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    task = bar.add_task("starting", total=1.0)
    timer = threading.Timer(BAR_AFTER_S, bar.start)
    timer.daemon = True
    timer.start()
    try:
        yield _teller(bar, task)
    finally:
        timer.cancel()
        timer.join()
        bar.stop()


def _silent(doing: str, done: float) -> None:
    """Say nothing."""


def _teller(bar: Bar, task: TaskID) -> Told:
    def told(doing: str, done: float) -> None:
        bar.update(task, description=doing, completed=done)

    return told
