"""From a request's names to the space that the search walks."""

from __future__ import annotations

from tokopt.catalog import Catalog
from tokopt.domain.accelerators import Accelerator
from tokopt.domain.deployments import ServingMode
from tokopt.domain.expert_traffic import UNIFORM
from tokopt.domain.features import Feature
from tokopt.domain.host_times import slower
from tokopt.domain.llms import Llm
from tokopt.domain.workloads import Sla, Workload
from tokopt.errors import InputError
from tokopt.perf.host import exposes
from tokopt.search import SearchSpace

from .expert_traffic import popularity_spread
from .requests import limits_of
from .reuse import without_caches

KV_BY_DEFAULT = ("bf16", "fp8")  # wider caches and the one that checkpoints ask for; FP4 caches only by name


def search_space(
    catalog: Catalog,
    *,
    llm: Llm,
    workload: Workload,
    sla: Sla,
    frameworks: tuple[str, ...],
    precisions: tuple[str, ...],
    kv_precisions: tuple[str, ...],
    modes: tuple[ServingMode, ...],
    disabled: tuple[Feature, ...] = (),
    robust: float = 0.0,
    expert_traffic: str = UNIFORM,
) -> SearchSpace:
    """Return the space of a request; empty selections mean everything that is served by default.

    `robust` is the share by which throughput stays behind what the catalog's constants say.

    Raises:
        InputError: An unknown name, a precision that the model is not published in, or a context that is too long.
    """
    chosen = tuple(catalog.precision(name) for name in precisions) or tuple(catalog.precisions.values())
    if precisions and not any(p.name in llm.precisions for p in chosen):
        wanted, served = ", ".join(p.name for p in chosen), ", ".join(llm.precisions)
        raise InputError(f"{llm.name} is not served in {wanted}; it is in {served}")
    check_context(llm, workload)
    recommended = tuple(f for f in catalog.frameworks.values() if f.recommended)
    return SearchSpace(
        llm=llm,
        workload=without_caches(workload) if Feature.PREFIX_CACHING in disabled else workload,
        limits=limits_of(sla),
        frameworks=tuple(catalog.framework(n) for n in frameworks) or recommended,
        precisions=chosen,
        kv_bits={name: catalog.kv_precision(name).bits for name in kv_precisions or KV_BY_DEFAULT},
        modes=modes or tuple(ServingMode),
        calibration=catalog.calibration.slower(robust),
        chosen_precisions=bool(precisions),
        disabled=frozenset(disabled),
        popularity_spread=popularity_spread(catalog, expert_traffic),
        speculators=catalog.speculators_for(llm.name, workload.domain),
        host_times=slower(catalog.host_times, robust) if exposes(disabled) else {},
    )


def check_context(llm: Llm, workload: Workload) -> None:
    """Raise InputError where a mean request is longer than the model's context."""
    length = workload.input_tokens + workload.output_tokens
    if length > llm.max_context_tokens:
        raise InputError(
            f"{llm.name} takes {llm.max_context_tokens:,} tokens at most; "
            f"workload {workload.name} has {length:,.0f} in and out"
        )


def supported(accelerator: Accelerator, space: SearchSpace) -> bool:
    """Whether any framework in the space runs on the accelerator."""
    return any(accelerator.hardware in framework.support for framework in space.frameworks)
