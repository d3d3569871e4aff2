"""Arrays of parallel layouts and what follows from their degrees alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tokopt.perf.arrays import Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Layouts:
    """Parallel degrees of workers, one element a worker; see `domain.deployments.Layout` for their meaning."""

    tp: Floats
    pp: Floats
    ep: Floats
    dp: Floats
    redundant_experts: Floats = 0.0  # further copies of experts, a layer
    two_batch_overlap: Floats = 0.0  # 1 where a step may run as two halves, one exchanging while the other computes

    @property
    def stage(self) -> Floats:
        """Accelerators of one pipeline stage."""
        return self.tp * self.dp

    @property
    def accelerators(self) -> Floats:
        """Accelerators of one worker."""
        return self.tp * self.dp * self.pp

    @property
    def expert_split(self) -> Floats:
        """Tensor-parallel slices of one expert."""
        return self.tp * self.dp / self.ep

    @property
    def has_all_to_all(self) -> Floats:
        """1 where tokens travel to their experts (attention data parallel and experts spread), else 0."""
        return np.where((np.asarray(self.dp) > 1) & (np.asarray(self.ep) > 1), 1.0, 0.0)

    @property
    def queues(self) -> Floats:
        """Groups of accelerators that take different requests at a time (ranks x pipeline stages)."""
        return self.dp * self.pp
