"""What surrounds a computation: standard output kept clean, and a progress bar on a terminal."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

Told = Callable[[str, float], None]
BAR_AFTER_S = 1.0  # shorter work shows no bar
PACE_OVER_S = 30.0  # of the latest work, which says how long the rest takes
LEAST_PACE_S = 2.0  # before which nothing is said of it


@contextlib.contextmanager
def computing(*, quiet: bool, steady: bool = False) -> Iterator[Told]:
    """Run a computation with all that it prints on standard error; yields what its progress is told to.

    Args:
        quiet: Show no bar.
        steady: The share that is done grows evenly, so that the bar can say how long the rest takes.
    """
    with _output_on_stderr():
        if quiet or sys.stderr is None or not sys.stderr.isatty():
            yield _silent
        else:
            with _bar(steady=steady) as told:
                yield told


class Pace:
    """How long the rest of some work takes, as fast as it went lately."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float]] = deque()

    def left(self, done: float, now: float) -> float | None:
        """Take the share that is done by a time, and return the seconds that the rest takes; None = not known yet."""
        seen = self._seen
        if seen and done < seen[-1][1]:  # other work has begun
            seen.clear()
        if done > 0.0:
            seen.append((now, done))
        while len(seen) > 2 and now - seen[0][0] > PACE_OVER_S:
            seen.popleft()
        if not seen:
            return None
        spent, more = now - seen[0][0], done - seen[0][1]
        return (1.0 - done) * spent / more if spent >= LEAST_PACE_S and more > 0.0 else None


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
def _bar(*, steady: bool) -> Iterator[Told]:
    """Show a bar once the work has taken a while; it leaves nothing behind."""
    import threading

    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    left = [TextColumn("{task.fields[left]}")] if steady else []
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        *left,
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    task = bar.add_task("starting", total=1.0, left="")
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
    pace = Pace()

    def told(doing: str, done: float) -> None:
        left = pace.left(done, time.monotonic())
        said = "" if left is None else f"{int(left + 0.5):,} s left"
        bar.update(task, description=doing, completed=done, left=said)

    return told
