"""The checker's scalar model against the vectorised one: two ways to the same numbers."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokopt.api.expert_traffic import popularity_spread
from tokopt.catalog import load_catalog
from tokopt.checking import CheckInputs
from tokopt.checking import latency as scalar_latency
from tokopt.checking import replica as scalar_replica
from tokopt.checking.evaluation import Replica, profile_for, replica_of
from tokopt.checking.rates import constants_of, shifted
from tokopt.domain.accelerators import Accelerator, Framework, Precision
from tokopt.domain.calibration import Calibration, Effect, Link
from tokopt.domain.demand import WorkloadShape
from tokopt.domain.deployments import Deployment, Layout, Pool, ServingMode
from tokopt.domain.features import ON_BY_DEFAULT
from tokopt.domain.llms import AttentionKind, Llm
from tokopt.domain.provenance import Origin
from tokopt.domain.speculators import Domain, Speculator
from tokopt.domain.workloads import Workload
from tokopt.perf.arithmetic import LlmArithmetic, llm_arithmetic
from tokopt.perf.constants import acceptance_chances, constants_for
from tokopt.perf.deployed import decode_layout, decode_worker, replica_profile
from tokopt.perf.describe import memory_shares, memory_slots, steady_at
from tokopt.perf.expert_balance import redundancies
from tokopt.perf.host import exposed, host_times
from tokopt.perf.machine import Machine, machine
from tokopt.perf.memory import memory_use
from tokopt.perf.queueing import Profile, at_rate, saturation
from tokopt.perf.replica import Worker, knots
from tokopt.perf.serving import workload_lengths
from tokopt.perf.speculation import accepted_tokens, draft_chances
from tokopt.perf.step import step_time

SAME = 1e-9
CATALOG = load_catalog()
ACCELERATORS = sorted(CATALOG.accelerators)
LLMS = sorted(CATALOG.llms)
COMBINATIONS = sorted(
    (name, framework.name, precision)
    for framework in CATALOG.frameworks.values()
    for name, support in framework.support.items()
    for precision in support.precisions
)


def a_calibration() -> Calibration:
    """The embedded calibration with effects of every trait on every constant, and some that no deployment has."""
    choose = random.Random(7)
    levels = {
        "accelerator": ACCELERATORS,
        "generation": sorted({a.generation for a in CATALOG.accelerators.values()}),
        "vendor": sorted({a.vendor for a in CATALOG.accelerators.values()}),
        "framework": sorted(CATALOG.frameworks),
        "precision": sorted(CATALOG.precisions),
        "llm": LLMS,
        "harness": ["sweep", "vllm"],
        "mode": ["agg", "disagg"],
    }
    traits = [*levels, "framework+llm", "accelerator+framework", "precision+vendor", "framework+harness"]
    effects = [
        Effect(
            constant=constant,
            trait=trait,
            level="+".join(choose.choice(levels[part]) for part in trait.split("+")),
            shift=choose.uniform(-0.3, 0.3),
            sd=0.1,
            rows=1,
            origin=Origin.FITTED,
            source="tokopt-assumption",
        )
        for constant in CATALOG.calibration.entries
        for trait in traits
        for _ in range(3)
    ]
    distinct = {(e.constant, e.trait, e.level): e for e in effects}  # a file states a level once
    return replace(CATALOG.calibration, effects=tuple(distinct.values()))


CALIBRATION = a_calibration()


def llm_of(*kinds: AttentionKind, experts: bool) -> str:
    """A model of the catalog with exactly these kinds of attention."""
    for name, llm in sorted(CATALOG.llms.items()):
        moe = any(group.feed_forward.experts for group in llm.layers)
        if {group.attention.kind for group in llm.layers} == set(kinds) and moe is experts:
            return name
    raise LookupError(f"no model with {kinds}")


@dataclass(frozen=True)
class Pair:
    """One deployment as both models see it."""

    deployment: Deployment
    workload: Workload
    shape: WorkloadShape
    inputs: CheckInputs
    accelerator: Accelerator
    framework: Framework
    precision: Precision
    llm: Llm
    skewed: bool  # experts are not asked for alike

    @property
    def speculator(self) -> Speculator | None:
        name = self.deployment.speculator
        return None if name is None else CATALOG.speculators[name]

    @property
    def model(self) -> LlmArithmetic:
        bits = CATALOG.kv_precisions[self.deployment.kv_precision].bits
        return llm_arithmetic(self.llm, self.precision, bits, self.speculator)

    @property
    def machine(self) -> Machine:
        constants = constants_for(CALIBRATION, self.accelerator, self.framework, self.precision, self.llm.name)
        spread = popularity_spread(CATALOG, "skewed") if self.skewed else 0.0
        rates = machine(self.accelerator, self.framework, self.precision, constants)
        rates = exposed(rates, self.deployment.without, host_times(CATALOG.host_times))
        return replace(rates, popularity_spread=spread)

    @property
    def accepted(self) -> float:
        chances = acceptance_chances(CALIBRATION, self.llm.name)
        if self.speculator is not None:
            chances = draft_chances(self.speculator, self.workload.domain)
        return float(accepted_tokens(chances, np.array([self.deployment.speculation_depth]))[0])

    @property
    def worker(self) -> Worker:
        return decode_worker(self.deployment, self.accepted)

    @property
    def slots(self) -> int:
        _, workers = decode_layout(self.deployment)
        assert self.deployment.max_running_requests is not None
        return self.deployment.max_running_requests // workers

    @property
    def profile(self) -> Profile:
        return replica_profile(
            self.model, self.machine, self.deployment, self.workload, accepted=self.accepted, slots=self.slots
        )

    @property
    def replica(self) -> Replica:
        return replica_of(self.deployment, self.shape, CATALOG.llms[self.deployment.llm], self.inputs)

    @property
    def checked(self) -> scalar_latency.Profile:
        return profile_for(self.deployment, self.shape, CATALOG.llms[self.deployment.llm], self.inputs)


@cache
def inputs_for(llm: str, *, skewed: bool = False) -> CheckInputs:
    return CheckInputs(
        llms={llm: CATALOG.llms[llm]},
        accelerators=CATALOG.accelerators,
        frameworks=CATALOG.frameworks,
        precisions=CATALOG.precisions,
        kv_bits={name: kv.bits for name, kv in CATALOG.kv_precisions.items()},
        calibration=CALIBRATION,
        offers=(),
        speculators=CATALOG.speculators,
        expert_traffic=CATALOG.expert_traffic["skewed"] if skewed else None,
        host_times=CATALOG.host_times,
    )


def a_layout(choose: random.Random, accelerator: Accelerator, llm: Llm) -> Layout:
    known = bool(accelerator.scale_out_bytes_per_s)
    tp = choose.choice([n for n in (1, 2, 4, 8, 16) if n <= accelerator.scale_up_size])
    dp = choose.choice([1, 1, 2, 4, 8, 16, 72]) if known else 1
    pp = choose.choice([1, 1, 2, 4]) if known else 1
    experts = max(group.feed_forward.experts for group in llm.layers)
    ep = choose.choice([1, tp * dp]) if 1 < tp * dp <= experts else 1
    layout = Layout(tp=tp, dp=dp, pp=pp, ep=ep)
    # Whatever a framework has and the model's heads allow: the arithmetic has to agree all the same.
    cp = choose.choice([1, 1, 2, 3, 8]) if known else 1
    if cp > 1 and experts:
        layout = layout.model_copy(update={"ep": tp * dp * cp} if tp * dp * cp <= experts else {"ep": cp})
    dcp = choose.choice([1, 1, *(n for n in (2, 4, 8) if tp % n == 0)])
    copies = choose.choice([0, *redundancies(experts, layout.ep, (1, 2))])
    halved = choose.choice([True, False]) and min(dp, layout.ep) > 1
    more = {"cp": cp, "dcp": dcp, "redundant_experts": copies, "two_batch_overlap": halved}
    return layout.model_copy(update=more)


def _on_one_stage(pool: object) -> object:
    """A layout or pool without pipeline parallelism, which drafters of their own do not go with."""
    if isinstance(pool, Pool):
        return pool.model_copy(update={"layout": _on_one_stage(pool.layout)})
    assert isinstance(pool, Layout)
    return pool.model_copy(update={"pp": 1})


def a_pair(seed: int, llm_name: str | None = None, mode: ServingMode | None = None) -> Pair:
    """A random deployment: legal in its degrees, but not necessarily one that fits or that anybody would choose."""
    choose = random.Random(seed)
    llm = CATALOG.llms[llm_name or choose.choice(LLMS)]
    accelerator_name, framework, precision = choose.choice(COMBINATIONS)
    accelerator = CATALOG.accelerators[accelerator_name]
    workload = Workload(
        name="random",
        input_tokens=float(choose.choice([1, 37, 512, 1024, 4096, 8192.5, 100_000])),
        output_tokens=float(choose.choice([1, 2, 128.5, 1024, 8192])),
        input_cv=choose.choice([0.0, 0.3, 1.5]),
        output_cv=choose.choice([0.0, 0.5, 2.0]),
        prefix_share=choose.choice([0.0, 0.4, 0.9, 1.0]),
        arrival_cv2=choose.choice([0.0, 0.5, 1.0, 4.0, 20.0]),
        domain=choose.choice([None, *Domain]),
    )
    mode = mode or choose.choice(list(ServingMode))
    if mode is ServingMode.DISAGG and not accelerator.scale_out_bytes_per_s:
        mode = ServingMode.AGG
    pools: dict[str, object] = {"layout": a_layout(choose, accelerator, llm)}
    decoders = 1
    if mode is ServingMode.DISAGG:
        decoders = choose.randint(1, 5)
        pools = {
            "prefill": Pool(workers=choose.randint(1, 5), layout=a_layout(choose, accelerator, llm)),
            "decode": Pool(workers=decoders, layout=a_layout(choose, accelerator, llm)),
        }
    drafts = choose.choice([None, None, *CATALOG.speculators])  # whatever model it was made for
    slots = choose.choice([1, 2, 7, 47, 48, 49, 50, 100, 333, 1024, 2999])
    deepest = 4 if llm.mtp_layers else 0
    skewed = choose.choice([True, False])
    if drafts is not None:
        deepest = CATALOG.speculators[drafts].deepest
        pools = {name: _on_one_stage(pool) for name, pool in pools.items()}
    deployment = Deployment(
        accelerator=accelerator.name,
        framework=framework,
        llm=llm.name,
        precision=precision,
        kv_precision=choose.choice(sorted(CATALOG.kv_precisions)),
        mode=mode,
        speculation_depth=choose.randint(0, deepest),
        speculator=drafts,
        chunk_tokens=choose.choice([512, 2048, 8192, 16384]),
        max_running_requests=slots * decoders,
        without=choose.choice([(), (), ON_BY_DEFAULT, *((feature,) for feature in ON_BY_DEFAULT)]),
        **pools,
    )
    names = WorkloadShape.model_fields
    shape = WorkloadShape(**{name: getattr(workload, name) for name in names})
    return Pair(
        deployment=deployment,
        workload=workload,
        shape=shape,
        inputs=inputs_for(llm.name, skewed=skewed),
        accelerator=accelerator,
        framework=CATALOG.frameworks[framework],
        precision=CATALOG.precisions[precision],
        llm=llm,
        skewed=skewed,
    )


def close(scalar: object, vectorised: object) -> None:
    np.testing.assert_allclose(np.asarray(scalar, float), np.asarray(vectorised, float), rtol=SAME, atol=1e-15)


def compare_memory(pair: Pair) -> None:
    found = pair.replica
    prefills = pair.deployment.mode is ServingMode.AGG
    held = memory_slots(pair.model, pair.machine, pair.worker, pair.workload, prefill=prefills)
    assert found.memory.sequences == held
    shares = memory_shares(pair.model, pair.machine, pair.worker, pair.workload, slots=pair.slots, prefill=prefills)
    close(found.memory.weights, shares.weights)
    close(pair.slots / pair.worker.dp * found.memory.per_sequence, shares.kv)
    close(found.memory.working + found.decoder.rates.memory_bytes - found.decoder.rates.usable_bytes, shares.other)
    if pair.deployment.prefill is None:
        assert found.prefill_memory is None
        return
    layout = pair.deployment.prefill.layout
    worker = Worker(**layout.model_dump(), depth=0, accepted=1.0, chunk_tokens=pair.deployment.chunk_tokens)
    use = memory_use(
        pair.model,
        pair.machine,
        worker.layouts,
        chunk_tokens=float(worker.chunk_tokens),
        draft_depth=0.0,
        mean_resident_tokens=pair.workload.input_tokens,
        longest_tokens=pair.workload.input_tokens,
    )
    assert found.prefill_memory is not None
    assert found.prefill_memory.sequences == float(use.sequences)
    close(found.prefill_memory.weights, use.weights)


def compare_steps(pair: Pair) -> None:
    size, worker, found = workload_lengths(pair.workload), pair.worker, pair.replica
    for sequences, prompt in ((0.02, 0.0), (1.0, 0.0), (37.5, 0.0), (900.0, 0.0), (0.0, 511.0), (3.0, 8192.0)):
        step = step_time(
            pair.model,
            pair.machine,
            worker.layouts,
            sequences=sequences,
            width=1.0 + worker.depth,
            context=size.decode_context,
            prefill_tokens=prompt,
            prefill_context=size.prefill_context,
            draft_depth=float(worker.depth),
        )
        close(found.decoder.time_s(found.size, sequences=sequences, prompt=prompt), step.total)


def compare_steady(pair: Pair) -> None:
    prefills = pair.deployment.mode is ServingMode.AGG
    names = ("in_service", "requests_per_s", "decode_step_s", "tpot_s", "stall_s", "prefill_s")
    for running in (0.3, 1.0, 17.0, 640.0):
        state = steady_at(pair.model, pair.machine, pair.worker, pair.workload, running=running, prefill=prefills)
        replica = pair.replica
        if prefills:
            found = scalar_replica.mixed(replica.decoder, replica.size, running, pair.workload.input_cv)
        else:
            found = scalar_replica.decode_only(replica.decoder, replica.size, running)
        for name in (*names, "prefill_share", "prefill_wait_s"):
            close(getattr(found, name), np.squeeze(getattr(state, name)))


def compare_profile(pair: Pair) -> None:
    found, profile = pair.checked, pair.profile
    assert found.slots == profile.slots
    close(found.requests_per_s, profile.requests_per_s)
    inside = [int(n) for n in knots(found.slots) if n <= found.slots]
    occupancies = sorted({1, found.slots // 3 + 1, *inside, found.slots})
    columns = {
        "tpot_s": [state.tpot_s for state in found.states],
        "stall_s": [state.stall_s for state in found.states],
        "prompt_s": found.prompt_s,
        "front_s": found.front_s,
    }
    for name, column in columns.items():
        values = [found.read(column, n) for n in occupancies]
        close(values, getattr(profile, name)[np.array(occupancies) - 1])
    close(found.saturation, saturation(profile))


def compare_latencies(pair: Pair) -> None:
    found, profile = pair.checked, pair.profile
    for load in (0.0, 1e-40, 1e-6, 0.2, 0.7, 0.9, 0.95, 0.999):
        rate = load * saturation(profile)
        loaded, latencies = at_rate(profile, rate), scalar_latency.latencies(found, rate)
        assert latencies is not None
        for name in ("ttft_s", "tpot_s", "e2e_s"):
            ours, theirs = getattr(latencies, name), getattr(loaded, name)
            assert ours.keys() == theirs.keys()
            close([ours[s] for s in theirs], list(theirs.values()))
        close((latencies.load, latencies.mean_in_service), (loaded.load, loaded.mean_in_service))


COMPARISONS = (compare_memory, compare_steps, compare_steady, compare_profile, compare_latencies)


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_constants_agree(seed: int) -> None:
    pair = a_pair(seed)
    records = (pair.accelerator, pair.framework, pair.precision, pair.llm.name)
    ours, theirs = constants_of(CALIBRATION, *records), constants_for(CALIBRATION, *records)
    for name in CALIBRATION.entries:
        close(getattr(ours, name), getattr(theirs, name))


def test_shifts_on_paper() -> None:
    assert shifted(4.0, Link.LOG, math.log(2.0)) == pytest.approx(8.0, rel=1e-15)
    assert shifted(0.5, Link.LOGIT, math.log(3.0)) == pytest.approx(0.75, rel=1e-15)
    assert shifted(1.25, Link.EXCESS, -math.log(5.0)) == pytest.approx(1.05, rel=1e-15)
    assert all(shifted(1.5, link, 0.0) == 1.5 for link in (Link.LOG, Link.EXCESS))


def test_effects_reach_some_deployments_and_not_others() -> None:
    """The comparison above is no comparison of base values."""
    base = {name: entry.value for name, entry in CALIBRATION.entries.items()}
    moved = [
        getattr(constants_of(CALIBRATION, p.accelerator, p.framework, p.precision, p.llm.name), name) != value
        for p in map(a_pair, range(20))
        for name, value in base.items()
    ]
    assert 0.1 < sum(moved) / len(moved) < 0.95


def test_knots_agree() -> None:
    for slots in (*range(1, 400), 1023, 1024, 2500, 4096, 8192, 65_536, 73_728):
        assert scalar_latency.knots(slots) == knots(slots).tolist(), slots


@pytest.mark.parametrize("compare", COMPARISONS, ids=lambda compare: compare.__name__)
@settings(max_examples=120, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_any_deployment(compare: object, seed: int) -> None:
    compare(a_pair(seed))  # type: ignore[operator]


KINDS = {
    "dense, full attention": ((AttentionKind.FULL,), False),
    "experts, full attention": ((AttentionKind.FULL,), True),
    "experts, latent attention": ((AttentionKind.LATENT,), True),
    "experts, sparse latent attention": ((AttentionKind.LATENT_SPARSE,), True),
    "experts, sliding window and full": ((AttentionKind.WINDOW, AttentionKind.FULL), True),
    "experts, linear and full": ((AttentionKind.LINEAR, AttentionKind.FULL), True),
    "dense, sliding window": ((AttentionKind.WINDOW,), False),
}


@pytest.mark.parametrize("mode", list(ServingMode))
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model(kind: str, mode: ServingMode) -> None:
    kinds, experts = KINDS[kind]
    name = llm_of(*kinds, experts=experts)
    for seed in range(6):
        for compare in COMPARISONS:
            compare(a_pair(seed, name, mode))


@pytest.mark.parametrize("accelerator", ACCELERATORS)
def test_every_accelerator(accelerator: str) -> None:
    seeds = list(islice((seed for seed in range(2000) if a_pair(seed).accelerator.name == accelerator), 3))
    assert seeds
    for seed in seeds:
        for compare in COMPARISONS:
            compare(a_pair(seed))


def test_rates_that_dip_are_walked_whole() -> None:
    """A rate that falls as the batch grows leaves two likely occupancies; both count."""
    pair = next(p for p in map(a_pair, range(50)) if p.slots >= 300 and p.deployment.mode is ServingMode.AGG)
    found, profile = pair.checked, pair.profile
    rates = profile.requests_per_s.copy()
    rates[100:150] *= 0.8
    dipped = replace(found, requests_per_s=type(found.requests_per_s)("d", rates), rising=False)
    numpy_dipped = replace(profile, requests_per_s=rates)
    rate = 0.9 * float(rates[90])
    latencies, loaded = scalar_latency.latencies(dipped, rate), at_rate(numpy_dipped, rate)
    assert latencies is not None
    close(latencies.mean_in_service, loaded.mean_in_service)
    close(list(latencies.ttft_s.values()), [loaded.ttft_s[s] for s in latencies.ttft_s])


def test_above_saturation_there_are_no_latencies() -> None:
    found = a_pair(1).checked
    assert scalar_latency.latencies(found, found.saturation) is None
    assert scalar_latency.latencies(found, -1.0) is None
    assert scalar_latency.latencies(found, float("nan")) is None
