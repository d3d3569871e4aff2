"""The one type of perf functions' arguments: numbers or arrays of them, broadcast like NumPy."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = float | NDArray[np.float64]
