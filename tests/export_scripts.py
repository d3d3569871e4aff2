"""Runs exported scripts with programs in their places that write down how they were called."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tokopt.domain.exporting import ExportFile

END = "<end of a call>"
PROGRAMS = ("vllm", "vllm-router", "python3", "trtllm-serve", "aiperf", "guidellm", "helm")
STUB = '#!/bin/sh\nprintf \'%s\\0\' "$(basename "$0")" "$@" >> "$CALLS"\nprintf \'<end of a call>\\0\' >> "$CALLS"\n'


def written(files: Sequence[ExportFile], folder: Path) -> Path:
    """Write files into a folder as the command does."""
    for file in files:
        path = folder / file.name
        path.write_bytes(file.content.encode("utf-8"))
        if file.executable:
            path.chmod(0o755)
    return folder


def calls(folder: Path, script: str, **environment: str) -> list[list[str]]:
    """Return the words of every program that a script calls."""
    stubs = folder / ".stubs"
    stubs.mkdir(exist_ok=True)
    for name in PROGRAMS:
        (stubs / name).write_text(STUB)
        (stubs / name).chmod(0o755)
    record = folder / ".calls"
    record.unlink(missing_ok=True)
    own = {"PATH": f"{stubs}:{os.environ['PATH']}", "CALLS": str(record), "HOME": str(folder), **environment}
    done = subprocess.run(
        ["bash", str(folder / script)], env=own, cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    words = record.read_bytes().decode("utf-8").split("\0")
    found: list[list[str]] = [[]]
    for each in words[:-1]:
        if each == END:
            found.append([])
        else:
            found[-1].append(each)
    return found[:-1]


def flags(words: Sequence[str]) -> dict[str, str | None]:
    """Return the flags of a call with the word after each, None where another flag follows."""
    found: dict[str, str | None] = {}
    for place, each in enumerate(words):
        if each.startswith("--"):
            following = words[place + 1] if place + 1 < len(words) else None
            found[each] = following if following is not None and not following.startswith("--") else None
    return found
