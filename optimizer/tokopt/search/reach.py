"""How long a prompt an accelerator can take at all: memory and the model's own context decide."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokopt.domain.accelerators import Accelerator
from tokopt.domain.deployments import Deployment, ServingMode
from tokopt.domain.features import Feature
from tokopt.perf.memory import serving_memory
from tokopt.perf.replica import prefill_times
from tokopt.perf.serving import workload_lengths
from tokopt.search.screening import fitting
from tokopt.search.space import Family, SearchSpace, Setups, deployment_of, families_in, layout_of, setups


@dataclass(frozen=True, slots=True, kw_only=True)
class LongestInput:
    """The longest prompt that one replica holds with its output, on the set-up that takes it in the least time."""

    tokens: int
    by_model: bool  # the model's context ends there, not the memory
    prefill_s: float  # of that prompt alone
    deployment: Deployment


def longest_input(accelerator: Accelerator, space: SearchSpace) -> LongestInput | None:
    """Return the longest prompt that any set-up of an accelerator holds; None where the model does not fit at all.

    One request alone, of the workload's mean output. Of the set-ups that hold as much, the one with the shortest
    prefill is named.
    """
    most = int(space.llm.max_context_tokens - space.workload.output_tokens)
    best: LongestInput | None = None
    for family in families_in(space, accelerator):
        # Every length that is tried needs a budget of its own, where prompts are whole.
        chosen = setups(replace(family, whole_tokens=1), space.widest, role="agg")
        held = _held(family, chosen, space, most)
        if not held.size or held.max() < 1:
            continue
        found_tokens = int(held.max())
        (rows,) = np.nonzero(held == found_tokens)
        seconds = _prefill_s(family, chosen.pick(rows), space, found_tokens)
        quickest = int(np.argmin(seconds))
        found = LongestInput(
            tokens=found_tokens,
            by_model=found_tokens == most,
            prefill_s=float(seconds[quickest]),
            deployment=deployment_of(
                family,
                space,
                mode=ServingMode.AGG,
                layout=layout_of(chosen, int(rows[quickest])),
                chunk_tokens=int(_budget(family, chosen.chunk_tokens[rows[quickest]], found_tokens)),
                max_running_requests=1,
            ),
        )
        if best is None or (found.tokens, -found.prefill_s) > (best.tokens, -best.prefill_s):
            best = found
    return best


def holds(accelerator: Accelerator, space: SearchSpace) -> bool:
    """Whether any set-up of an accelerator holds one mean request of the workload."""
    for family in families_in(space, accelerator):
        if fitting(family, setups(family, space.widest, role="agg"), space.workload, role="agg")[0].any():
            return True
    return False


def _held(family: Family, chosen: Setups, space: SearchSpace, most: int) -> NDArray[np.intp]:
    """Return the longest prompt that each set-up holds, up to `most`, by halving; 0 where not even one token fits."""

    def fits(tokens: NDArray[np.intp]) -> NDArray[np.bool_]:
        use = serving_memory(
            family.model,
            family.machine,
            chosen.flat_layouts,
            role="agg",
            input_tokens=tokens.astype(float),
            output_tokens=space.workload.output_tokens,
            output_cv=0.0,
            chunk_tokens=_budget(family, chosen.chunk_tokens, tokens),
            draft_depth=chosen.depth,
        )
        return np.asarray(use.sequences) >= 1.0

    low = np.zeros(len(chosen), dtype=np.intp)
    high = np.full(len(chosen), most + 1, dtype=np.intp)
    while (high - low > 1).any():
        middle = (low + high) // 2
        good = fits(np.maximum(middle, 1)) & (middle > low)
        low, high = np.where(good, middle, low), np.where(good, high, np.maximum(middle, low + 1))
    return low


def _budget(family: Family, chunk_tokens: Any, tokens: Any) -> Any:
    """Return the token budgets of a step for prompts of so many tokens, which are whole where nothing cuts them."""
    return chunk_tokens if Feature.CHUNKED_PREFILL in family.features else np.maximum(chunk_tokens, tokens)


def _prefill_s(family: Family, chosen: Setups, space: SearchSpace, tokens: int) -> NDArray[np.float64]:
    """Return how long each set-up takes for one prompt of `tokens` tokens, nothing of it cached. [s]"""
    workload = replace(space.workload, input_tokens=float(tokens), input_cv=0.0, prefix_share=0.0)
    size = workload_lengths(workload)
    chunks = _budget(family, chosen.chunk_tokens, tokens)
    times = prefill_times(family.model, family.machine, chosen.flat_layouts, size, chunks)
    return np.broadcast_to(np.asarray(times.single_s, dtype=float), chosen.tp.shape)
