"""Token budgets of prefill steps: chunks of prompts, or prompts that are taken whole."""

from __future__ import annotations

import math

from tokopt.perf.queueing import lognormal_factor

WHOLE_PROMPTS = 0.99  # share of prompts that a budget for whole prompts has room for


def whole_prompt_tokens(input_tokens: float, input_cv: float, *, most: int) -> int:
    """Return the token budget of a step that takes prompts whole: the 99th percentile of their lengths. [tokens]

    Lengths are log-normal. What has to be computed at once is the whole prompt, whatever a cache may find of it.

    Args:
        input_tokens: Mean prompt.
        input_cv: Coefficient of variation of prompts.
        most: Tokens that the model takes at most.
    """
    return min(math.ceil(input_tokens * max(lognormal_factor(input_cv, WHOLE_PROMPTS), 1.0)), most)
