"""One deployment under one workload, worked out once and remembered."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from tokopt.checking.arithmetic import llm_sums
from tokopt.checking.inputs import CheckInputs
from tokopt.checking.latency import Profile, knots, profile_of
from tokopt.checking.rates import constants_of, sustained_rates, tokens_per_step
from tokopt.checking.replica import (
    Lengths,
    Memory,
    Steady,
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
from tokopt.domain.deployments import Deployment, Layout
from tokopt.domain.llms import Llm
from tokopt.domain.plans import WorkloadShape

REMEMBERED = 256  # deployments; one takes up to about a megabyte


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What a deployment is found to hold and to do."""

    decoder: Worker  # the only worker where aggregated
    decoders: int
    memory: Memory  # of a worker that decodes
    prefill_memory: Memory | None  # of a worker that only prefills
    prefill_groups: int  # prompts that such a worker runs at a time
    cap: int  # requests that a decoding worker runs at a time
    profile: Profile


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Records:
    """The catalog's records that decide an evaluation, told apart by identity: they hold mappings."""

    llm: Llm
    accelerator: Accelerator
    framework: Framework
    precision: Precision
    calibration: Calibration
    kv_bits: float

    def _identity(self) -> tuple[int | float, ...]:
        records = (self.llm, self.accelerator, self.framework, self.precision, self.calibration)
        return (*map(id, records), self.kv_bits)

    def __hash__(self) -> int:
        return hash(self._identity())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Records) and self._identity() == other._identity()


def decode_workers(deployment: Deployment) -> tuple[Layout, int]:
    """Return the layout and number of the workers that decode.

    Raises:
        ValueError: The deployment lacks what its mode needs.
    """
    if deployment.layout is not None:
        return deployment.layout, 1
    if deployment.decode is None:
        raise ValueError("the deployment has neither a layout nor a decode pool")
    return deployment.decode.layout, deployment.decode.workers


def evaluate(deployment: Deployment, workload: WorkloadShape, inputs: CheckInputs) -> Evaluation:
    """Return what a legal deployment holds and does; remembered for the same records of the catalogs.

    Raises:
        InputError: The catalog lacks a rate that the deployment needs.
    """
    records = _Records(
        llm=inputs.llm,
        accelerator=inputs.accelerators[deployment.accelerator],
        framework=inputs.frameworks[deployment.framework],
        precision=inputs.precisions[deployment.precision],
        calibration=inputs.calibration,
        kv_bits=inputs.kv_bits[deployment.kv_precision],
    )
    return _evaluated(deployment, workload, records)


@lru_cache(maxsize=REMEMBERED)
def _evaluated(deployment: Deployment, workload: WorkloadShape, records: _Records) -> Evaluation:
    size = request_lengths(workload)
    layout, decoders = decode_workers(deployment)
    prefill = deployment.prefill
    decoder = _worker(deployment, layout, records, depth=deployment.speculation_depth, prefills=prefill is None)
    cap = (deployment.max_running_requests or 0) // decoders
    if prefill is None:
        states = [mixed(decoder, size, n, workload.input_cv) for n in knots(cap)]
        return _evaluation(decoder, 1, cap, size, workload, states)
    states = [decode_only(decoder, size, n) for n in knots(cap)]
    prompter = _worker(deployment, prefill.layout, records, depth=0, prefills=True)
    return _evaluation(decoder, decoders, cap, size, workload, states, prompter, prefill.workers)


def _worker(deployment: Deployment, layout: Layout, records: _Records, *, depth: int, prefills: bool) -> Worker:
    constants = constants_of(records.calibration, records.accelerator, records.framework, records.precision)
    return Worker(
        sums=llm_sums(records.llm, records.precision, records.kv_bits),
        rates=sustained_rates(records.accelerator, records.framework, records.precision, constants),
        layout=layout,
        depth=depth,
        tokens_per_step=tokens_per_step(records.calibration, records.llm.name, depth),
        chunk_tokens=float(deployment.chunk_tokens) if prefills else 0.0,
    )


def _evaluation(
    decoder: Worker,
    decoders: int,
    cap: int,
    size: Lengths,
    workload: WorkloadShape,
    states: list[Steady],
    prompter: Worker | None = None,
    prompters: int = 0,
) -> Evaluation:
    pool = None
    if prompter is not None:
        replica = prompters * prompter.layout.accelerators + decoders * decoder.layout.accelerators
        pool = prefill_pool(prompter, size, workers=prompters, receiver=decoder.layout, replica=replica)
    return Evaluation(
        decoder=decoder,
        decoders=decoders,
        memory=decode_memory(decoder, size),
        prefill_memory=prompt_memory(prompter, size) if prompter else None,
        prefill_groups=prompter.groups if prompter else 0,
        cap=cap,
        profile=profile_of(
            states,
            cap,
            decoded=size.decoded,
            input_cv=workload.input_cv,
            output_cv=workload.output_cv,
            arrival_cv2=workload.arrival_cv2,
            overhead_s=decoder.rates.constants.request_overhead_s,
            workers=decoders,
            prefill=pool,
        ),
    )
