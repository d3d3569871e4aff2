"""What is said of context parallelism: where it is tried, and what its figures rest on."""

from __future__ import annotations

from collections.abc import Iterable

from tokopt.domain.deployments import Deployment, Layout
from tokopt.search.space import LONG_INPUT_TOKENS

AUDITED = (32_000, 128_000)  # tokens in; with an output beside them they fit a context of 131,072


def tried_said(input_tokens: Iterable[float]) -> str:
    """Return from which prompts on the search tries context parallelism, for classes of these mean prompts."""
    tried = any(tokens >= LONG_INPUT_TOKENS for tokens in input_tokens)
    where = f"for prompts of {LONG_INPUT_TOKENS:,} tokens and more on average"
    return f"context parallelism is tried {where}" + ("" if tried else ": not here")


def context_said(deployments: Iterable[Deployment]) -> list[str]:
    """Return what the figures of deployments with context parallelism rest on."""
    layouts = [layout for deployment in deployments for layout in _layouts(deployment)]
    said = []
    if any(layout.cp > 1 for layout in layouts):
        said.append(
            "prefill context parallelism: keys and values are all-gathered each layer, which nothing overlaps, and "
            "every rank keeps the whole cache; worked out, not measured"
        )
    if any(layout.dcp > 1 for layout in layouts):
        said.append(
            "decode context parallelism: queries, sums and outputs are exchanged each layer, which nothing overlaps; "
            "worked out, not measured"
        )
    return said


def _layouts(deployment: Deployment) -> list[Layout]:
    pools = [pool.layout for pool in (deployment.prefill, deployment.decode) if pool is not None]
    return pools if deployment.layout is None else [deployment.layout]
