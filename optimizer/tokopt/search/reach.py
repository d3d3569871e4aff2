"""How long a prompt an accelerator can take at all: memory and the model's own context decide."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokopt.domain.accelerators import Accelerator
from tokopt.domain.deployments import Deployment, Pool, ServingMode
from tokopt.domain.features import Feature
from tokopt.perf.memory import serving_memory
from tokopt.perf.replica import prefill_times, transfer_s
from tokopt.perf.serving import workload_lengths
from tokopt.search.screening import fitting
from tokopt.search.setups import Setups, layout_of, setups
from tokopt.search.space import LONG_INPUT_TOKENS, Family, SearchSpace, deployment_of, families_in


@dataclass(frozen=True, slots=True, kw_only=True)
class LongestInput:
    """The longest prompt that one replica holds with its output, on the set-up that takes it in the least time."""

    tokens: int
    by_model: bool  # the model's context ends there, not the memory
    prefill_s: float  # of that prompt alone, and the move of its cache where another pool decodes
    deployment: Deployment


def longest_input(accelerator: Accelerator, space: SearchSpace) -> LongestInput | None:
    """Return the longest prompt that any set-up of an accelerator holds; None where the model does not fit at all.

    One request alone, of the workload's mean output, on one worker or on one of each pool, with whatever splits long
    prompts and their caches. Of the set-ups that hold as much, the one with the shortest prefill is named.
    """
    most = int(space.llm.max_context_tokens - space.workload.output_tokens)
    long = replace(space, workload=replace(space.workload, input_tokens=float(max(most, LONG_INPUT_TOKENS))))
    best: LongestInput | None = None
    for family in families_in(long, accelerator):
        # Every length that is tried needs a budget of its own, where prompts are whole.
        tried = replace(family, whole_tokens=1)
        for found in (_together(tried, space, most), _apart(tried, space, most)):
            if found is not None and (best is None or _rank(found) > _rank(best)):
                best = found
    return best


def _rank(found: LongestInput) -> tuple[int, float, int]:
    return found.tokens, -found.prefill_s, -found.deployment.accelerators


def _together(family: Family, space: SearchSpace, most: int) -> LongestInput | None:
    """Return the longest prompt of a family's workers that prefill and decode."""
    if ServingMode.AGG not in space.modes:
        return None
    chosen = setups(family, space.widest, role="agg")
    held = _held(family, chosen, space, most, role="agg")
    if not held.size or held.max() < 1:
        return None
    tokens = int(held.max())
    (rows,) = np.nonzero(held == tokens)
    seconds = _prefill_s(family, chosen.pick(rows), space, tokens)
    quickest = int(np.argmin(seconds))
    row = int(rows[quickest])
    deployment = deployment_of(
        family,
        space,
        mode=ServingMode.AGG,
        layout=layout_of(chosen, row),
        chunk_tokens=int(_budget(family, chosen.chunk_tokens[row], tokens)),
        max_running_requests=1,
    )
    return LongestInput(
        tokens=tokens, by_model=tokens == most, prefill_s=float(seconds[quickest]), deployment=deployment
    )


def _apart(family: Family, space: SearchSpace, most: int) -> LongestInput | None:
    """Return the longest prompt of a family's pairs of a prefill and a decode worker: what both of them hold."""
    if ServingMode.DISAGG not in space.modes or Feature.DISAGG not in family.features:
        return None
    prefills, decodes = (setups(family, space.widest, role=role) for role in ("prefill", "decode"))
    prompts = _held(family, prefills, space, most, role="prefill")
    caches = _held(family, decodes, space, most, role="decode")
    if not prompts.size or not caches.size:
        return None
    sizes = prefills.accelerators[:, None] + decodes.accelerators[None, :]
    both = np.where(sizes <= space.widest, np.minimum(prompts[:, None], caches[None, :]), 0)
    tokens = int(both.max())
    if tokens < 1:
        return None
    (rows,) = np.nonzero((both == tokens).any(axis=1))
    seconds = _prefill_s(family, prefills.pick(rows), space, tokens)
    quickest = int(np.argmin(seconds))
    row = int(rows[quickest])
    # The smallest decode worker that will do: the prompt waits for its prefill, not for it.
    (columns,) = np.nonzero(both[row] == tokens)
    column = int(columns[np.argmin(decodes.accelerators[columns])])
    sender, receiver = prefills.accelerators[row], decodes.accelerators[column]
    move_s = transfer_s(
        family.model,
        family.machine,
        input_tokens=float(tokens),
        sender=sender,
        receiver=receiver,
        replica=sender + receiver,
    )
    deployment = deployment_of(
        family,
        space,
        mode=ServingMode.DISAGG,
        prefill=Pool(workers=1, layout=layout_of(prefills, row)),
        decode=Pool(workers=1, layout=layout_of(decodes, column)),
        chunk_tokens=int(_budget(family, prefills.chunk_tokens[row], tokens)),
        max_running_requests=1,
    )
    return LongestInput(
        tokens=tokens,
        by_model=tokens == most,
        prefill_s=float(seconds[quickest] + move_s),
        deployment=deployment,
    )


def holds(accelerator: Accelerator, space: SearchSpace) -> bool:
    """Whether any set-up of an accelerator holds one mean request of the workload."""
    for family in families_in(space, accelerator):
        if fitting(family, setups(family, space.widest, role="agg"), space.workload, role="agg")[0].any():
            return True
    return False


def _held(family: Family, chosen: Setups, space: SearchSpace, most: int, *, role: str) -> NDArray[np.intp]:
    """Return the longest prompt that each set-up holds in a role, up to `most`, by halving; 0 where none fits."""

    def fits(tokens: NDArray[np.intp]) -> NDArray[np.bool_]:
        use = serving_memory(
            family.model,
            family.machine,
            chosen.flat_layouts,
            role=role,
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
