"""The space of worker set-ups: every legal combination of layout, speculation depth and prefill chunk."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokopt.domain.accelerators import Accelerator, Framework, Precision
from tokopt.domain.calibration import Calibration
from tokopt.domain.deployments import Deployment, Layout, ServingMode
from tokopt.domain.features import Feature
from tokopt.domain.llms import Llm
from tokopt.domain.speculators import Domain, Speculator
from tokopt.domain.workloads import Workload
from tokopt.perf.arithmetic import LlmArithmetic, llm_arithmetic
from tokopt.perf.constants import acceptance_chances, each_constants, traits_of
from tokopt.perf.layouts import Layouts
from tokopt.perf.machine import Machine, machine
from tokopt.perf.queueing import Limits
from tokopt.perf.replica import Worker
from tokopt.perf.speculation import accepted_tokens, draft_chances

WIDEST_WORKER = 64  # accelerators; a scale-up domain that is larger may be filled by one worker
DEEPEST_SPECULATION = 3
MIXED_CHUNKS = (2048, 8192)  # tokens of prompts that ride in a decode step
PREFILL_CHUNKS = (2048, 8192, 16384)  # tokens of a pass in a prefill pool
SEQUENCES_PER_RANK = 1024  # most that one attention rank is allowed to run
# Sequences a rank that are tried: small numbers, then steps of about 45 %; the running cap is made exact later.
BATCH_GRID = np.concatenate(
    [np.array([1.0, 2.0, 3.0, 4.0, 6.0, 8.0]), np.rint(np.geomspace(11.0, float(SEQUENCES_PER_RANK), 13))]
)


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
    speculator: Speculator | None  # None: the modules that the checkpoint ships, or nothing drafts
    depths: tuple[int, ...]  # that are tried
    accepted: NDArray[np.float64]  # tokens a step, by depth


@dataclass(frozen=True, slots=True, kw_only=True)
class Setups:
    """Worker set-ups of one family, one element each."""

    tp: NDArray[np.float64]
    pp: NDArray[np.float64]
    ep: NDArray[np.float64]
    dp: NDArray[np.float64]
    depth: NDArray[np.float64]
    accepted: NDArray[np.float64]
    chunk_tokens: NDArray[np.float64]
    decoding: NDArray[np.intp]  # number of layout and depth: set-ups that share it decode alike

    @property
    def layouts(self) -> Layouts:
        """The parallel degrees, as columns to broadcast against a row of batches."""
        return Layouts(tp=self.tp[:, None], pp=self.pp[:, None], ep=self.ep[:, None], dp=self.dp[:, None])

    @property
    def flat_layouts(self) -> Layouts:
        """The parallel degrees, one element a set-up."""
        return Layouts(tp=self.tp, pp=self.pp, ep=self.ep, dp=self.dp)

    @property
    def accelerators(self) -> NDArray[np.float64]:
        """Accelerators of each worker."""
        return self.tp * self.pp * self.dp

    def __len__(self) -> int:
        return int(self.tp.size)

    def values(self, row: int) -> tuple[float, ...]:
        """Return the degrees and settings of one set-up."""
        return tuple(float(getattr(self, name)[row]) for name in Setups.__slots__ if name != "decoding")

    def pick(self, mask: NDArray[np.bool_] | NDArray[np.intp]) -> Setups:
        """Return the set-ups that a mask or an index selects."""
        return Setups(**{name: getattr(self, name)[mask] for name in Setups.__slots__})


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
) -> Iterator[Family]:
    """Yield the families of an accelerator: what each framework supports on it for this model.

    Unless precisions were chosen by name, only the checkpoint's own and those that published conversions for the
    vendor's accelerators exist in are tried. Each speculator makes a family of its own, of at least one draft token;
    `domain` is what texts are about.
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
        features = frozenset(support.features) - disabled
        speculates = Feature.MTP in features and llm.mtp_layers > 0
        depths = tuple(range(DEEPEST_SPECULATION + 1)) if speculates else (0,)
        rates = machine(accelerator, framework, precision, constants)
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
                speculator=None,
                depths=depths,
                accepted=np.asarray(accepted_tokens(chances, np.asarray(depths, dtype=float))),
            )
            yield plain
            for speculator in speculators:
                if speculator.method in features and speculator.drafts_for(llm.name):
                    model = llm_arithmetic(llm, precision, bits, speculator)
                    yield _speculating(plain, speculator, domain, model)


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


def powers_of_two(limit: int) -> list[int]:
    """Return 1, 2, 4, … up to `limit`."""
    return [1 << k for k in range(max(limit, 1).bit_length()) if 1 << k <= limit]


def legal_layouts(family: Family, widest: int) -> tuple[tuple[int, int, int, int], ...]:
    """Return every legal (tp, pp, ep, dp) of a worker.

    tp: powers of two within the scale-up domain that divide the heads. pp: powers of two. dp: powers of two, or what
    fills the domain, for mixture-of-experts models. ep: experts tensor-parallel (1) or spread over the whole stage.
    A worker may only outgrow its scale-up domain where the scale-out bandwidth is known. A drafter of its own is split
    over tp too; what drafts decides whether pp and dp may be above one.
    """
    model, domain = family.model, family.accelerator.scale_up_size
    method = family.speculator.method if family.speculator else None
    pipelines = Feature.PIPELINE_PARALLEL in family.features and (method is None or method.pipelines)
    ranks = Feature.ATTENTION_DP in family.features and (method is None or method.ranks)
    drafted = model.drafter.heads if model.drafter else model.heads
    largest = max(WIDEST_WORKER, domain) if family.machine.scale_out_bytes_per_s > 0 else domain
    spreads = model.experts > 0 and Feature.EXPERT_PARALLEL in family.features
    return _layouts(
        domain=domain,
        largest=min(largest, widest),
        heads=math.gcd(model.heads, drafted),
        deepest=min(8, model.layers) if pipelines else 1,
        experts=model.experts,
        spreads=spreads,
        ranks=spreads and ranks,
        expert_slices=model.max_expert_split,
    )


@lru_cache(maxsize=256)
def _layouts(
    *,
    domain: int,
    largest: int,
    heads: int,
    deepest: int,
    experts: int,
    spreads: bool,
    ranks: bool,
    expert_slices: int,
) -> tuple[tuple[int, int, int, int], ...]:
    tps = [tp for tp in powers_of_two(min(domain, largest)) if heads % tp == 0]
    pps = powers_of_two(deepest)
    wide = {*powers_of_two(largest), domain} if domain <= largest else {*powers_of_two(largest)}
    layouts: list[tuple[int, int, int, int]] = []
    for tp in tps:
        for dp in sorted(wide) if ranks else [1]:
            stage = tp * dp
            eps = {1} if dp == 1 else set()
            if spreads and 1 < stage <= experts:
                eps.add(stage)
            for ep in sorted(eps):
                if stage // ep > expert_slices and experts:
                    continue
                layouts.extend((tp, pp, ep, dp) for pp in pps if stage * pp <= largest)
    return tuple(layouts)


def setups(family: Family, widest: int, *, role: str) -> Setups:
    """Return all set-ups of a family for a `role`: `agg`, `prefill` or `decode`.

    Chunks only matter where prefill runs, speculation only where decode does.
    """
    layouts = np.array(legal_layouts(family, widest), dtype=float).reshape(-1, 4)
    depths = np.array(family.depths if role != "prefill" else (0,), dtype=float)
    choices = {"agg": MIXED_CHUNKS, "prefill": PREFILL_CHUNKS, "decode": MIXED_CHUNKS[:1]}[role]
    chunks = np.array(choices, dtype=float)
    decoding = np.repeat(np.arange(len(layouts) * depths.size), chunks.size)
    chosen, depth = layouts[decoding // depths.size], depths[decoding % depths.size]
    return Setups(
        tp=chosen[:, 0],
        pp=chosen[:, 1],
        ep=chosen[:, 2],
        dp=chosen[:, 3],
        depth=depth,
        accepted=family.accepted[depth.astype(int)] if role != "prefill" else np.ones_like(depth),
        chunk_tokens=np.tile(chunks, len(layouts) * depths.size),
        decoding=decoding,
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
    )


def layout_of(chosen: Setups, row: int) -> Layout:
    """Return the layout of one set-up."""
    return Layout(tp=int(chosen.tp[row]), pp=int(chosen.pp[row]), ep=int(chosen.ep[row]), dp=int(chosen.dp[row]))


def worker_of(chosen: Setups, row: int) -> Worker:
    """Return the worker of one set-up."""
    return Worker(
        tp=int(chosen.tp[row]),
        pp=int(chosen.pp[row]),
        ep=int(chosen.ep[row]),
        dp=int(chosen.dp[row]),
        depth=int(chosen.depth[row]),
        accepted=float(chosen.accepted[row]),
        chunk_tokens=int(chosen.chunk_tokens[row]),
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
        **settings,
    )
