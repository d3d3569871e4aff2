"""A server in a process of its own, as `tokopt serve` starts it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

ENDS_WITHIN_S = 30


@dataclass
class Served:
    """Where a server is, and its process."""

    link: str
    process: subprocess.Popen[str]

    def interrupt(self) -> tuple[int, str]:
        """Press Ctrl-C; return its exit status and what it said."""
        self.process.send_signal(signal.SIGINT)
        _, said = self.process.communicate(timeout=ENDS_WITHIN_S)
        return self.process.returncode, said


@contextlib.contextmanager
def served(*options: str) -> Iterator[Served]:
    """Start a server on a free port; it ends with the block."""
    command = [sys.executable, "-m", "tokopt", "serve", "--port", "0", *options]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://\S+", line)
        assert found, f"{line!r}, {process.communicate(timeout=ENDS_WITHIN_S)}"
        yield Served(found[0], process)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.communicate(timeout=ENDS_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                raise
