"""Step times from NVIDIA's measured operator database, in place of the model's own or next to them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np

from tokopt.domain.deployments import Deployment
from tokopt.domain.estimates import Estimate, OperatorDatabase, SecondOpinion
from tokopt.errors import InputError, unknown_name
from tokopt.perf.deployed import decode_layout
from tokopt.perf.host import exposes
from tokopt.perf.queueing import Profile
from tokopt.silicon import SiliconSteps, require_package, step_source

from .resolved import Resolved

MODEL, SILICON, BOTH = "model", "silicon", "both"
NO_DATA = "the operator database lacks some of the loads that this replica can be under"


def check_perf(perf: str, known: Iterable[str]) -> None:
    """Raise InputError where a source of step times is not known or needs an extra that is not installed."""
    if perf not in known:
        raise unknown_name("source of step times", str(perf), known)
    if perf != MODEL:
        require_package()


def database_steps(resolved: Resolved) -> SiliconSteps:
    """Return the database's step times for a resolved deployment.

    Raises:
        InputError: The extra is not installed, or the database does not know the deployment.
    """
    return step_source(
        resolved.llm, resolved.accelerator, resolved.framework, resolved.precision, resolved.kv_precision
    )


class Databases:
    """The database's step times by what is deployed, each looked up once."""

    def __init__(self) -> None:
        """Nothing is looked up yet."""
        self._known: dict[tuple[str, ...], SiliconSteps | InputError] = {}

    def steps(self, resolved: Resolved) -> SiliconSteps:
        """Return the step times for a resolved deployment.

        Raises:
            InputError: The database does not know it.
        """
        key = kind_of(resolved)
        if key not in self._known:
            try:
                self._known[key] = database_steps(resolved)
            except InputError as error:
                self._known[key] = error
        found = self._known[key]
        if isinstance(found, InputError):
            raise InputError(str(found))
        return found


def kind_of(resolved: Resolved) -> tuple[str, ...]:
    """Return what is deployed, apart from its layout: the database is asked for each of these on its own."""
    names = (resolved.accelerator.name, resolved.framework.name, resolved.llm.name, resolved.llm.source)
    return (*names, resolved.precision.name, resolved.kv_precision)


def refuse_unknown(database: SiliconSteps, deployment: Deployment) -> None:
    """Raise InputError, saying why, where the database has no answer for a deployment's layouts."""
    if deployment.speculator is not None:
        raise InputError(f"the operator database has no times of drafts by {deployment.speculator}")
    if exposes(deployment.without):
        raise InputError("the operator database has kernels' own times only, not what hosts take without a feature")
    layout, _ = decode_layout(deployment)
    reason = database.reason(layout, deployment.speculation_depth)
    if not reason and deployment.prefill is not None:
        reason = database.reason(deployment.prefill.layout)
    if reason:
        raise InputError(reason)


def has_gaps(profile: Profile) -> bool:
    """Whether the database lacks times that a replica's profile needs."""
    times = [profile.requests_per_s, profile.tpot_s, profile.prompt_s, profile.front_s]
    if profile.prefill is not None:
        times.append(np.array([profile.prefill.prompt_s, profile.prefill.batch_s]))
    return not all(np.isfinite(each).all() for each in times)


def database_used(database: SiliconSteps) -> OperatorDatabase:
    """Return where the database's step times come from."""
    return OperatorDatabase(**database.provenance)


def with_second_opinion(mine: Estimate, ask: Callable[[], Estimate]) -> Estimate:
    """Return an estimate with the one that `ask` makes next to it, or the reason why there is none."""
    try:
        theirs = ask()
    except InputError as error:
        return mine.model_copy(update={"second_opinion": SecondOpinion(source=SILICON, reason=str(error))})
    opinion = SecondOpinion(
        source=SILICON,
        reason=theirs.reason,
        overloaded=theirs.overloaded,
        ttft_ms=theirs.ttft_ms,
        tpot_ms=theirs.tpot_ms,
        e2e_ms=theirs.e2e_ms,
        requests_per_s=theirs.requests_per_s,
        output_tokens_per_s_per_gpu=theirs.output_tokens_per_s_per_gpu,
        saturation_requests_per_s=theirs.saturation_requests_per_s,
        difference_percent=_differences(mine, theirs),
        operator_database=theirs.provenance.operator_database,
    )
    return mine.model_copy(update={"second_opinion": opinion})


def _differences(mine: Estimate, theirs: Estimate) -> dict[str, float]:
    """Return how far the means of the second answer are above those of the first. [%]"""
    found = {}
    for figure in ("ttft_ms", "tpot_ms", "e2e_ms", "output_tokens_per_s_per_gpu", "saturation_requests_per_s"):
        first, second = (getattr(answer, figure) for answer in (mine, theirs))
        first, second = (getattr(value, "mean", value) for value in (first, second))
        if first and second is not None and math.isfinite(second):
            found[figure] = 100.0 * (second / first - 1.0)
    return found
