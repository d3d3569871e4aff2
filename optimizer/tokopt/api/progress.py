"""How long work reports what it is doing: a callable that takes a sentence and the share that is done."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told what is being done and how much of it is."""

    def __call__(self, doing: str, done: float, /) -> None:
        """Take a sentence and a share from 0 to 1."""


def silent(doing: str, done: float, /) -> None:
    """Say nothing."""
