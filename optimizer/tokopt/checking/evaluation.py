"""One deployment under one workload, worked out once and remembered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from tokopt.checking.arithmetic import llm_sums
from tokopt.checking.experts import popularity_sigma
from tokopt.checking.inputs import CheckInputs
from tokopt.checking.latency import Profile, knots, profile_of
from tokopt.checking.rates import (
    constants_of,
    drafted_tokens_per_step,
    sustained_rates,
    tokens_per_step,
    with_host_exposed,
)
from tokopt.checking.replica import (
    Lengths,
    Memory,
    Worker,
    decode_memory,
    decode_only,
    mixed,
    prefill_pool,
    prompt_memory,
    request_lengths,
)
from tokopt.domain.accelerators import Accelerator, Framework, Precision
from tokopt.domain.calibration import Calibration
from tokopt.domain.demand import WorkloadShape
from tokopt.domain.deployments import Deployment, Layout
from tokopt.domain.host_times import HostTime
from tokopt.domain.llms import Llm
from tokopt.domain.speculators import Speculator
from tokopt.units import MS

REMEMBERED = 256  # deployments; one takes 16 bytes a request that it can run, and seldom more than a megabyte


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """The workers of a replica and what they hold. `prefill_*` are of a prefill pool, None and 0 without one."""

    size: Lengths
    decoder: Worker  # the only worker where aggregated
    decoders: int
    memory: Memory  # of one that decodes
    prefiller: Worker | None
    prefillers: int
    prefill_memory: Memory | None

    @property
    def accelerators(self) -> int:
        """Accelerators of all workers."""
        prompts = self.prefillers * self.prefiller.layout.accelerators if self.prefiller else 0
        return prompts + self.decoders * self.decoder.layout.accelerators


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Records:
    """The catalog's records that decide an evaluation, told apart by identity: they hold mappings."""

    llm: Llm
    accelerator: Accelerator
    prefills: Accelerator  # the same but for a prefill pool on another
    framework: Framework
    precision: Precision
    calibration: Calibration
    speculator: Speculator | None
    host_times: Mapping[str, HostTime]
    kv_bits: float
    popularity_sigma: float

    def _identity(self) -> tuple[int | float, ...]:
        records = (
            self.llm,
            self.accelerator,
            self.prefills,
            self.framework,
            self.precision,
            self.calibration,
            self.speculator,
            self.host_times,
        )
        return (*map(id, records), self.kv_bits, self.popularity_sigma)

    def __hash__(self) -> int:
        return hash(self._identity())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Records) and self._identity() == other._identity()


def _records(deployment: Deployment, llm: Llm, inputs: CheckInputs) -> _Records:
    return _Records(
        llm=llm,
        accelerator=inputs.accelerators[deployment.accelerator],
        prefills=inputs.accelerators[deployment.prefill_accelerator],
        framework=inputs.frameworks[deployment.framework],
        precision=inputs.precisions[deployment.precision],
        calibration=inputs.calibration,
        speculator=inputs.speculators[deployment.speculator] if deployment.speculator is not None else None,
        host_times=inputs.host_times,
        kv_bits=inputs.kv_bits[deployment.kv_precision],
        popularity_sigma=popularity_sigma(inputs.expert_traffic),
    )


def decoding(deployment: Deployment) -> tuple[Layout, int]:
    """Return the layout and the number of the workers that decode.

    Raises:
        ValueError: The deployment has neither a layout nor a decode pool.
    """
    if deployment.layout is not None:
        return deployment.layout, 1
    if deployment.decode is None:
        raise ValueError("the deployment has neither a layout nor a decode pool")
    return deployment.decode.layout, deployment.decode.workers


def replica_of(deployment: Deployment, workload: WorkloadShape, llm: Llm, inputs: CheckInputs) -> Replica:
    """Return the workers of a legal deployment and their memory; remembered for the same records of the catalogs.

    Raises:
        InputError: The catalog lacks a rate that the deployment needs.
    """
    return _replica(deployment, workload, _records(deployment, llm, inputs))


def profile_for(deployment: Deployment, workload: WorkloadShape, llm: Llm, inputs: CheckInputs) -> Profile:
    """Return the profile of a legal deployment up to its running cap; remembered as `replica_of` is.

    Raises:
        InputError: The catalog lacks a rate that the deployment needs.
    """
    return _profile(deployment, workload, _records(deployment, llm, inputs))


@lru_cache(maxsize=REMEMBERED)
def _replica(deployment: Deployment, workload: WorkloadShape, records: _Records) -> Replica:
    size = request_lengths(workload)
    layout, decoders = decoding(deployment)
    pool = deployment.prefill
    decoder = _worker(deployment, layout, records, workload, depth=deployment.speculation_depth, prefills=pool is None)
    prefiller = _worker(deployment, pool.layout, records, workload, depth=0, prefills=True) if pool else None
    return Replica(
        size=size,
        decoder=decoder,
        decoders=decoders,
        memory=decode_memory(decoder, size),
        prefiller=prefiller,
        prefillers=pool.workers if pool else 0,
        prefill_memory=prompt_memory(prefiller, size) if prefiller else None,
    )


def _worker(
    deployment: Deployment,
    layout: Layout,
    records: _Records,
    workload: WorkloadShape,
    *,
    depth: int,
    prefills: bool,
) -> Worker:
    if records.speculator is None:
        yields = tokens_per_step(records.calibration, records.llm.name, depth)
    else:
        yields = drafted_tokens_per_step(records.speculator, workload.domain, depth)
    # What only prefills is a prefill pool's where there is a decode pool too.
    accelerator = records.prefills if prefills and deployment.decode is not None else records.accelerator
    constants = constants_of(records.calibration, accelerator, records.framework, records.precision, records.llm.name)
    if deployment.caching is not None and deployment.caching.restore_ms:
        waits_s = deployment.caching.restore_ms * MS
        constants = replace(constants, request_overhead_s=constants.request_overhead_s + waits_s)
    rates = sustained_rates(accelerator, records.framework, records.precision, constants)
    return Worker(
        sums=llm_sums(records.llm, records.precision, records.kv_bits, records.speculator),
        rates=replace(
            with_host_exposed(rates, deployment.without, records.host_times),
            popularity_sigma=records.popularity_sigma,
            halved_from=float(records.framework.two_batch_tokens),
        ),
        layout=layout,
        depth=depth,
        tokens_per_step=yields,
        chunk_tokens=float(deployment.chunk_tokens) if prefills else 0.0,
    )


@lru_cache(maxsize=REMEMBERED)
def _profile(deployment: Deployment, workload: WorkloadShape, records: _Records) -> Profile:
    replica = _replica(deployment, workload, records)
    size, decoder = replica.size, replica.decoder
    cap = (deployment.max_running_requests or 0) // replica.decoders
    pool = None
    if replica.prefiller is None:
        states = [mixed(decoder, size, n, workload.input_cv) for n in knots(cap)]
    else:
        states = [decode_only(decoder, size, n) for n in knots(cap)]
        pool = prefill_pool(
            replica.prefiller,
            size,
            workers=replica.prefillers,
            receiver=decoder,
            replica=None if deployment.mixed else replica.accelerators,
        )
    return profile_of(
        states,
        cap,
        decoded=size.decoded,
        input_cv=workload.input_cv,
        output_cv=workload.output_cv,
        arrival_cv2=workload.arrival_cv2,
        overhead_s=decoder.rates.constants.request_overhead_s,
        workers=replica.decoders,
        prefill=pool,
    )
