"""The one type of perf functions' arguments, numbers or arrays of them, broadcast like NumPy; and their memory."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = float | NDArray[np.float64]

ROOMY = 1 << 20  # elements: more than all arrays of a step together, less than the most that glibc believes (32 MiB)


def keep_freed_memory() -> None:
    """Have the C library keep the memory of arrays that are freed, for those that come next.

    By default glibc hands free memory at the end of its heap back to the system, and every page of the next array is
    faulted in again: half of the time of evaluating thousands of set-ups. It keeps as much as twice the largest block
    that it has ever seen freed (mallopt(3), M_MMAP_THRESHOLD), so one such block, never touched, is shown to it.
    """
    np.empty(ROOMY)
