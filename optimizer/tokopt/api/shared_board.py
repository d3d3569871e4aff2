"""What processes of our own tell us while they work, and we them: a few figures in memory that all of them see."""

from __future__ import annotations

from multiprocessing.shared_memory import SharedMemory

import numpy as np
from numpy.typing import NDArray


class Board:
    """How far each of several works is, and whether they are to stop.

    Args:
        works: How many there are; 0 = look at a board that there is.
        name: Of that board.
    """

    def __init__(self, works: int, name: str | None = None) -> None:
        size = (works + 1) * 8
        self._memory = SharedMemory(name=name, create=name is None, size=size if name is None else 0)
        self._cells: NDArray[np.float64] = np.ndarray((self._memory.size // 8,), np.float64, self._memory.buf)
        if name is None:
            self._cells[:] = 0.0

    @property
    def name(self) -> str:
        """What another process finds it by."""
        return self._memory.name

    def tell(self, work: int, done: float) -> None:
        """Say how far a work is."""
        self._cells[work + 1] = done

    def done(self, works: int) -> float:
        """Return how far all of them are together, as a share."""
        return float(self._cells[1 : works + 1].sum()) / works

    def furthest(self, works: int) -> float:
        """Return how far the one is that came furthest."""
        return float(self._cells[1 : works + 1].max())

    def stop(self) -> None:
        """Ask all to stop."""
        self._cells[0] = 1.0

    def stopped(self) -> bool:
        """Return whether they are asked to."""
        return bool(self._cells[0])

    def close(self, *, remove: bool = False) -> None:
        """Let go of the memory; whoever made it removes it."""
        del self._cells
        self._memory.close()
        if remove:
            self._memory.unlink()
