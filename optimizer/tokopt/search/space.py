"""What may be combined, and the families of set-ups that share framework, precisions and machine."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokopt.domain.accelerators import Accelerator, Framework, FrameworkSupport, Precision
from tokopt.domain.calibration import Calibration
from tokopt.domain.deployments import Deployment, ServingMode
from tokopt.domain.features import ON_BY_DEFAULT, Feature
from tokopt.domain.host_times import HostTime
from tokopt.domain.llms import Llm
from tokopt.domain.speculators import Domain, Speculator
from tokopt.domain.workloads import Workload
from tokopt.perf.arithmetic import LlmArithmetic, llm_arithmetic
from tokopt.perf.chunks import whole_prompt_tokens
from tokopt.perf.constants import acceptance_chances, each_constants, traits_of
from tokopt.perf.deployed import replica_profile
from tokopt.perf.host import exposed, exposes, host_times
from tokopt.perf.machine import Machine, machine
from tokopt.perf.queueing import Limits, Profile
from tokopt.perf.speculation import accepted_tokens, draft_chances

DEEPEST_SPECULATION = 3
LONG_INPUT_TOKENS = 16384  # mean prompts from which on context parallelism is tried


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """How large a fleet is meant to be, as far as that is known."""

    requests_per_s: float | None = None
    power_w: float | None = None
    replicas_known: float | None = None

    def replicas(
        self, rate: NDArray[np.float64], watts: float | NDArray[np.float64] | None
    ) -> NDArray[np.float64] | None:
        """Return the replicas of a fleet of one kind, each serving `rate` and counting `watts`; None = unknown."""
        if self.replicas_known is not None:
            return self.replicas_known + 0.0 * rate
        if self.requests_per_s is not None:
            return np.maximum(self.requests_per_s / np.maximum(rate, 1e-300), 1.0)
        if self.power_w is not None and watts is not None:
            return np.maximum(self.power_w / watts + 0.0 * rate, 1.0)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSpace:
    """What may be combined."""

    llm: Llm
    workload: Workload
    limits: Limits
    frameworks: tuple[Framework, ...]
    precisions: tuple[Precision, ...]
    kv_bits: Mapping[str, float]
    modes: tuple[ServingMode, ...]
    calibration: Calibration
    chosen_precisions: bool = False  # precisions were named: conversions that nobody publishes are tried too
    widest: int = 72  # accelerators of one replica
    disabled: frozenset[Feature] = frozenset()  # what to do without, even where it is supported
    speculators: tuple[Speculator, ...] = ()  # what may draft, besides the modules that the checkpoint ships
    fleet: Fleet = Fleet()  # for how many caches the traffic is spread over, where prompts repeat
    most_quality_loss: float = math.inf  # of weights and cache together; infinite = unknown losses are fine
    popularity_spread: float = 0.0  # of experts in the traffic; 0 = all are asked for alike
    host_times: Mapping[str, HostTime] = field(default_factory=dict)  # needed where `disabled` exposes the host


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextParallel:
    """Which workers of a family may have context parallelism, and what of the cache tensor parallelism splits."""

    prompts: bool = False  # those of prefill pools
    caches: bool = False  # those of decode pools ...
    mixed_caches: bool = False  # ... and those that prefill too
    kv_shards: int = 1  # key-value heads of the model, or 1 for a latent cache

    def splits_cache(self, role: str) -> bool:
        """Whether workers of a role may split a cache by its tokens."""
        return self.caches if role == "decode" else role == "agg" and self.mixed_caches


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What set-ups on one accelerator share: framework, precisions, and so the machine and the model's arithmetic."""

    accelerator: Accelerator
    framework: Framework
    precision: Precision
    kv_precision: str
    machine: Machine
    model: LlmArithmetic
    features: frozenset[str]
    context: ContextParallel
    speculator: Speculator | None  # None: the modules that the checkpoint ships, or nothing drafts
    depths: tuple[int, ...]  # that are tried
    accepted: NDArray[np.float64]  # tokens a step, by depth
    without: tuple[Feature, ...] = ()  # what the framework has on by default there, and is switched off
    whole_tokens: int = 1  # budget that prompts need which are not cut into chunks


def families(
    accelerator: Accelerator,
    frameworks: tuple[Framework, ...],
    precisions: tuple[Precision, ...],
    kv_bits: dict[str, float],
    llm: Llm,
    calibration: Calibration,
    *,
    speculators: tuple[Speculator, ...] = (),
    domain: Domain | None = None,
    chosen_precisions: bool = False,
    disabled: frozenset[Feature] = frozenset(),
    most_quality_loss: float = math.inf,
    long_inputs: bool = False,
    popularity_spread: float = 0.0,
    published: Mapping[str, HostTime] | None = None,
    whole_tokens: int = 1,
) -> Iterator[Family]:
    """Yield the families of an accelerator: what each framework supports on it for this model.

    Unless precisions were chosen by name, only the checkpoint's own and those that published conversions for the
    vendor's accelerators exist in are tried. Each speculator makes a family of its own, of at least one draft token;
    `domain` is what texts are about, `popularity_spread` how unlike their experts are asked for, `published` what hosts
    take where nothing hides them, `whole_tokens` the budget of a step where prompts are not cut into chunks. Context
    parallelism is tried with `long_inputs`.
    """
    chances = acceptance_chances(calibration, llm.name)
    kinds = [
        (framework, support, precision)
        for framework in frameworks
        if (support := framework.support.get(accelerator.hardware)) is not None
        for precision in precisions
        if precision.name in support.precisions and precision.name in llm.precisions
        if chosen_precisions or precision.name == llm.native_precision or accelerator.vendor in precision.converted_for
    ]
    traits = [traits_of(accelerator, framework, precision, llm.name) for framework, _, precision in kinds]
    for (framework, support, precision), constants in zip(kinds, each_constants(calibration, traits), strict=True):
        features = frozenset(f for f in support.features if support.has(f, llm, apart=True)) - disabled
        without = tuple(f for f in ON_BY_DEFAULT if f in disabled and f in support.features)
        speculates = Feature.MTP in features and llm.mtp_layers > 0
        depths = tuple(range(DEEPEST_SPECULATION + 1)) if speculates else (0,)
        rates = replace(machine(accelerator, framework, precision, constants), popularity_spread=popularity_spread)
        if exposes(without):
            rates = exposed(rates, without, host_times(published or {}))
        for kv_precision, bits in kv_bits.items():
            if kv_precision not in support.kv_precisions:
                continue
            if llm.quality_loss(precision.name, kv_precision) > most_quality_loss:
                continue
            plain = Family(
                accelerator=accelerator,
                framework=framework,
                precision=precision,
                kv_precision=kv_precision,
                machine=rates,
                model=llm_arithmetic(llm, precision, bits),
                features=features,
                context=_context(support, llm, features) if long_inputs else ContextParallel(),
                speculator=None,
                depths=depths,
                accepted=np.asarray(accepted_tokens(chances, np.asarray(depths, dtype=float))),
                without=without,
                whole_tokens=whole_tokens,
            )
            yield plain
            for speculator in speculators:
                if speculator.method in features and speculator.drafts_for(llm.name):
                    model = llm_arithmetic(llm, precision, bits, speculator)
                    yield _speculating(plain, speculator, domain, model)


def _context(support: FrameworkSupport, llm: Llm, features: frozenset[str]) -> ContextParallel:
    """Return the context parallelism that a framework is documented to have for a model."""

    def has(feature: Feature, *, apart: bool) -> bool:
        return feature in features and support.has(feature, llm, apart=apart)

    return ContextParallel(
        prompts=has(Feature.PREFILL_CONTEXT_PARALLEL, apart=True),
        caches=has(Feature.DECODE_CONTEXT_PARALLEL, apart=True),
        mixed_caches=has(Feature.DECODE_CONTEXT_PARALLEL, apart=False),
        kv_shards=llm.kv_shards,
    )


def _speculating(family: Family, speculator: Speculator, domain: Domain | None, model: LlmArithmetic) -> Family:
    """Return a family like another whose tokens a speculator drafts."""
    every = np.arange(speculator.deepest + 1.0)
    return replace(
        family,
        model=model,
        speculator=speculator,
        depths=tuple(range(1, speculator.deepest + 1)),
        accepted=accepted_tokens(draft_chances(speculator, domain), every),
    )


def families_in(space: SearchSpace, accelerator: Accelerator) -> Iterator[Family]:
    """Yield the families of an accelerator within a search space."""
    return families(
        accelerator,
        space.frameworks,
        space.precisions,
        dict(space.kv_bits),
        space.llm,
        space.calibration,
        speculators=space.speculators,
        domain=space.workload.domain,
        chosen_precisions=space.chosen_precisions,
        disabled=space.disabled,
        most_quality_loss=space.most_quality_loss,
        long_inputs=space.workload.input_tokens >= LONG_INPUT_TOKENS,
        popularity_spread=space.popularity_spread,
        published=space.host_times,
        whole_tokens=whole_prompt_tokens(
            space.workload.input_tokens, space.workload.input_cv, most=space.llm.max_context_tokens
        ),
    )


def family_of(space: SearchSpace, accelerator: Accelerator, deployment: Deployment) -> Family | None:
    """Return the family that a deployment belongs to on an accelerator; None where the space has nothing like it."""
    wanted = (deployment.framework, deployment.precision, deployment.kv_precision, deployment.speculator)
    for family in families_in(space, accelerator):
        drafts = family.speculator.name if family.speculator else None
        if (family.framework.name, family.precision.name, family.kv_precision, drafts) == wanted:
            return family
    return None


def as_run(family: Family, deployment: Deployment, sending: Family | None = None) -> Deployment:
    """Return a deployment as a family runs it: without what is switched off, and with prompts whole where they are.

    `sending` is the family of a prefill pool that is on another accelerator.
    """
    prompts = sending or family
    least = 1 if Feature.CHUNKED_PREFILL in prompts.features else prompts.whole_tokens
    tokens = max(deployment.chunk_tokens, least)
    return deployment.model_copy(update={"without": family.without, "chunk_tokens": tokens})


def profile_of(
    family: Family, deployment: Deployment, workload: Workload, slots: int, sending: Family | None = None
) -> Profile:
    """Return the profile of a family's deployment; `slots` of a decode worker.

    `sending` is the family of a prefill pool that is on another accelerator.
    """
    return replica_profile(
        family.model,
        family.machine,
        deployment,
        workload,
        accepted=float(family.accepted[deployment.speculation_depth]),
        slots=slots,
        sending=None if sending is None else sending.machine,
    )


def deployment_of(family: Family, space: SearchSpace, **settings: Any) -> Deployment:
    """Return a deployment of a family with the given layout and settings."""
    return Deployment(
        accelerator=family.accelerator.name,
        framework=family.framework.name,
        llm=space.llm.name,
        precision=family.precision.name,
        kv_precision=family.kv_precision,
        speculator=family.speculator.name if family.speculator else None,
        without=family.without,
        **settings,
    )
