"""Arrays of parallel layouts and what follows from their degrees alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tokopt.perf.arrays import Floats

DEGREES = ("tp", "pp", "ep", "dp", "cp", "dcp")
SETTINGS = (*DEGREES, "redundant_experts", "two_batch_overlap")
PLAIN = {"cp": 1.0, "dcp": 1.0, "redundant_experts": 0.0, "two_batch_overlap": 0.0}  # of workers without any of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Layouts:
    """Parallel degrees of workers, one element a worker; see `domain.deployments.Layout` for their meaning."""

    tp: Floats
    pp: Floats
    ep: Floats
    dp: Floats
    cp: Floats = 1.0
    dcp: Floats = 1.0
    redundant_experts: Floats = 0.0  # further copies of experts, a layer
    two_batch_overlap: Floats = 0.0  # 1 where a step may run as two halves, one exchanging while the other computes

    @property
    def ranks(self) -> Floats:
        """Copies of the attention weights in one pipeline stage: attention-data-parallel and context-parallel ranks."""
        return self.dp * self.cp

    @property
    def stage(self) -> Floats:
        """Accelerators of one pipeline stage."""
        return self.tp * self.dp * self.cp

    @property
    def accelerators(self) -> Floats:
        """Accelerators of one worker."""
        return self.tp * self.dp * self.pp * self.cp

    @property
    def expert_split(self) -> Floats:
        """Tensor-parallel slices of one expert."""
        return self.stage / self.ep

    @property
    def has_all_to_all(self) -> Floats:
        """1 where tokens travel to their experts (several ranks with tokens of their own, experts spread), else 0."""
        return np.where((np.asarray(self.ranks) > 1) & (np.asarray(self.ep) > 1), 1.0, 0.0)

    @property
    def queues(self) -> Floats:
        """Groups of accelerators that take different requests at a time (ranks x pipeline stages)."""
        return self.dp * self.pp

    @property
    def splits_cache(self) -> bool:
        """Whether any worker has decode context parallelism."""
        return self.dcp > 1.0 if isinstance(self.dcp, float) else bool(np.any(np.asarray(self.dcp) > 1))

    @property
    def splits_prompts(self) -> bool:
        """Whether any worker has prefill context parallelism."""
        return self.cp > 1.0 if isinstance(self.cp, float) else bool(np.any(np.asarray(self.cp) > 1))

    def cache_shards(self, kv_shards: Floats, state_bytes: Floats = 0.0) -> Floats:
        """Ways that the cache of a sequence is split inside a rank: min(tp, kv heads · dcp), copied beyond.

        Args:
            kv_shards: Key-value heads, or 1 for a latent cache: what tensor parallelism can split.
            state_bytes: Recurrent state; a cache that is such a state has no tokens to split by. [B]
        """
        if not self.splits_cache:
            return np.minimum(self.tp, kv_shards)
        by_token = np.where(np.asarray(state_bytes) > 0, 1.0, self.dcp)
        return np.minimum(self.tp, kv_shards * by_token)


def stacked_layouts(columns: Mapping[str, NDArray[np.float64]]) -> Layouts:
    """Return layouts of arrays by setting; what no worker has stays a plain number, which costs nothing.

    Args:
        columns: An array a name of `SETTINGS`; those of `PLAIN` may be left out.
    """
    used = {name: of for name, of in columns.items() if name not in PLAIN or bool((of != PLAIN[name]).any())}
    return Layouts(**used)
