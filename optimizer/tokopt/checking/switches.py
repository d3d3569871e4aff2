"""Rules on what a fleet item's engines have switched off: the request says so, and whole prompts have room."""

from __future__ import annotations

import math

from tokopt.checking.case import Case
from tokopt.checking.latency import lognormal_factor
from tokopt.domain.features import Feature

BY_DEFAULT = ("chunked_prefill", "cuda_graphs", "overlap_scheduling")  # on in every engine that has them
WHOLE = 0.99  # share of prompts that a step has room for where they are not cut


def switches_agree(case: Case) -> list[str]:
    """Check that what is off is what the request disables and the framework has there, and is not said to be on."""
    deployment, request = case.item.deployment, case.request
    has = _there(case, deployment.accelerator)
    off = [feature.value for feature in deployment.without]
    faults = []
    for name in off:
        if name not in BY_DEFAULT:
            faults.append(f"without names {name}; only {', '.join(BY_DEFAULT)} are on by default")
        elif name not in has:
            faults.append(f"without names {name}, which {deployment.framework} does not have there")
        elif name not in request.disabled_features:
            faults.append(f"without names {name}, which the request does not disable")
    for name in BY_DEFAULT:
        if name in request.disabled_features and name in has and name not in off:
            faults.append(f"{name} is not off, which the request does without ({name} is disabled)")
        if case.item.features.get(name, False) is not (name in has and name not in off) and name in case.item.features:
            faults.append(f"features {name} is {case.item.features[name]}, but its deployment says otherwise")
    return [case.fault(text) for text in faults]


def prompts_fit_a_step(case: Case) -> list[str]:
    """Check that a step has room for the 99th percentile of prompts where they are not cut into chunks."""
    deployment, shape = case.item.deployment, case.asked.workload
    there = _there(case, deployment.prefill_accelerator)
    if Feature.CHUNKED_PREFILL.value in there and Feature.CHUNKED_PREFILL not in deployment.without:
        return []
    longest = max(lognormal_factor(shape.input_cv, WHOLE), 1.0) * shape.input_tokens
    longest = min(longest, case.llm.max_context_tokens)
    if deployment.chunk_tokens >= longest * (1.0 - 1e-12):
        return []
    said = f"prompts are not cut there, and one in a hundred is longer than {math.ceil(longest):,}"
    return [case.fault(f"chunk_tokens is {deployment.chunk_tokens:,}, but {said}")]


def _there(case: Case, accelerator: str) -> frozenset[str]:
    """Return the features that the framework has on an accelerator."""
    framework = case.inputs.frameworks[case.item.deployment.framework]
    support = framework.support.get(case.inputs.accelerators[accelerator].hardware)
    return frozenset(support.features if support is not None else ())
