"""Waiting times of simulated replicas against queues that are solved exactly.

Every figure is a mean over independent replications with an interval of 99.9 % confidence: theory has to be inside, and
what would follow from the nearest wrong formula outside. Seeds are fixed, so a test passes always or never.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from hand_made_replicas import Steps, fleet_of, kind, requests
from tokopt.domain.traces import TraceChunk
from tokopt.domain.workloads import Workload
from tokopt.perf.queueing import Profile, erlang_c, stationary
from tokopt.simulation import statistics as st
from tokopt.simulation import world as w
from tokopt.simulation.arrivals import Stream, synthesised
from tokopt.simulation.building import Fleet
from tokopt.simulation.replication import Outcome, Window, replicate

REPLICATIONS = 10
CONFIDENCE = 0.999
MEAN = 200  # tokens of a prompt that takes a second
TOKEN_S = 1.0 / MEAN
AXIS = np.array([1.0, 1e6])
STEP_S = 2e-2
SLOW_S = 0.1  # a step behind a prefill pool
ANSWER = 50.0  # steps of an answer that takes a second

Draws = Callable[[np.random.Generator, int], np.ndarray]


@dataclass(frozen=True)
class Measured:
    """A figure of several replications."""

    value: float
    half_width: float

    def meets(self, theory: float) -> bool:
        return abs(self.value - theory) <= self.half_width

    def holds(self, theory: float, wrong: float) -> bool:
        """Whether the interval has what theory says, and not what a wrong one would."""
        return self.meets(theory) and not self.meets(wrong)


def exponential(rng: np.random.Generator, size: int) -> np.ndarray:
    return rng.exponential(1.0, size)


def constant(_rng: np.random.Generator, size: int) -> np.ndarray:
    return np.ones(size)


def gamma(cv2: float) -> Draws:
    return lambda rng, size: rng.gamma(1.0 / cv2, cv2, size)


def lognormal(cv: float) -> Draws:
    sigma2 = math.log1p(cv * cv)
    return lambda rng, size: np.exp(rng.normal(-0.5 * sigma2, math.sqrt(sigma2), size))


def stretches(
    seed: int,
    rate: float,
    *,
    gaps: Draws = exponential,
    prompt: Draws | None = None,
    output: Draws | None = None,
    mean_output: float = 1.0,
) -> Iterator[TraceChunk]:
    """Return requests without end; prompts take a second on average where they take time, one token where not."""
    rng, now = np.random.default_rng(seed), 0.0
    while True:
        times = now + np.cumsum(gaps(rng, 4096)) / rate
        now = float(times[-1])
        prompts = np.ones(4096) if prompt is None else np.maximum(np.rint(MEAN * prompt(rng, 4096)), 1.0)
        outputs = np.ones(4096) if output is None else 1.0 + np.rint(mean_output * output(rng, 4096))
        yield requests(times, prompts, outputs)


def replications(
    fleet: Fleet, rate: float, chunks: Callable[[int], Iterator[TraceChunk]], count: int = 30_000, **more: int
) -> list[Outcome]:
    """Return what comes of `count` requests after as many again have warmed the system up by a fifth."""
    window = Window(start_s=0.2 * count / rate, end_s=1.2 * count / rate)
    found = [replicate(fleet, chunks(seed), window, seed=seed, **more) for seed in range(REPLICATIONS)]
    assert all(not each.broken and not each.cut_short for each in found)
    return found


def measured(outcomes: list[Outcome], figure: Callable[[Outcome], float]) -> Measured:
    values = [figure(each) for each in outcomes]
    half = st.half_width(values, CONFIDENCE)
    assert half is not None
    return Measured(float(np.mean(values)), half)


def at_most(later: float, found: Measured) -> Measured:
    """Return a figure that is up to so much above what it stands for."""
    return Measured(found.value - 0.5 * later, found.half_width + 0.5 * later)


def latency(metric: int, q: float | None = None) -> Callable[[Outcome], float]:
    def figure(outcome: Outcome) -> float:
        counts, sums = outcome.world.histogram[0, metric], outcome.world.sums[0, metric]
        return st.mean(counts, sums) if q is None else st.quantile(counts, sums, q)

    return figure


def waited(reason: int) -> Callable[[Outcome], float]:
    """Return what gives the mean wait of a request for one reason."""
    return lambda outcome: float(outcome.world.waits[0, reason] / outcome.world.per_class.finished[0])


def one_server() -> Fleet:
    """Return one replica that takes prompts one after another."""
    return fleet_of(kind(Steps(prompt=lambda tokens, _: TOKEN_S * tokens), tokens=AXIS))


# One server. Its service takes a second on average.


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_m_m_1(load: float) -> None:
    found = replications(one_server(), load, lambda seed: stretches(seed, load, prompt=exponential))
    sojourn = 1.0 / (1.0 - load)
    assert measured(found, latency(w.TTFT)).holds(sojourn, wrong=1.0 + 0.5 * load / (1.0 - load))  # M/D/1
    for q in (0.5, 0.9, 0.99):
        assert measured(found, latency(w.TTFT, q)).holds(-math.log(1.0 - q) * sojourn, wrong=sojourn * q)
    in_system = measured(found, lambda each: each.world.totals[0].area / each.world.totals[0].now)
    assert in_system.holds(load / (1.0 - load), wrong=load)


@pytest.mark.parametrize(("cv", "load"), [(0.0, 0.5), (0.0, 0.9), (0.5, 0.8), (1.0, 0.7), (1.5, 0.5)])
def test_m_g_1(cv: float, load: float) -> None:
    """Pollaczek and Khinchine, with log-normal lengths as they are made up for plans."""
    stream = Stream(workload=Workload(name="x", input_tokens=MEAN, output_tokens=1, input_cv=cv), requests_per_s=load)
    found = replications(one_server(), load, lambda seed: synthesised([stream], seed=seed))
    theory = 1.0 + load / (1.0 - load) * 0.5 * (1.0 + cv * cv)
    wrong = 1.0 + load / (1.0 - load) * 0.5 * (1.0 + (0.5 if cv == 1.0 else 1.0))
    assert measured(found, latency(w.TTFT)).holds(theory, wrong)
    assert measured(found, lambda each: float(each.world.engines.busy_s[0] / each.world.totals[0].now)).meets(load)


def root(transform: Callable[[float], float]) -> float:
    """Return the root of σ = A*(μ(1 - σ)) below 1, with μ = 1: what an arrival at G/M/1 finds is geometric with it."""
    sigma = 0.5
    for _ in range(2000):
        sigma = transform(1.0 - sigma)
    return sigma


@pytest.mark.parametrize("load", [0.6, 0.85])
def test_d_m_1(load: float) -> None:
    sigma = root(lambda s: math.exp(-s / load))
    found = replications(one_server(), load, lambda seed: stretches(seed, load, gaps=constant, prompt=exponential))
    assert measured(found, latency(w.TTFT)).holds(1.0 / (1.0 - sigma), wrong=1.0 / (1.0 - load))
    assert measured(found, latency(w.TTFT, 0.99)).holds(math.log(100.0) / (1.0 - sigma), math.log(100.0) / (1.0 - load))


@pytest.mark.parametrize("cv2", [0.25, 4.0])
def test_gamma_arrivals_before_an_exponential_server(cv2: float) -> None:
    load = 0.6
    sigma = root(lambda s: (1.0 + s * cv2 / load) ** (-1.0 / cv2))
    found = replications(one_server(), load, lambda seed: stretches(seed, load, gaps=gamma(cv2), prompt=exponential))
    assert measured(found, latency(w.TTFT)).holds(1.0 / (1.0 - sigma), wrong=1.0 / (1.0 - load))
    stream = Stream(workload=Workload(name="x", input_tokens=1, output_tokens=1), requests_per_s=load, arrival_cv2=cv2)
    gaps = np.diff(next(iter(synthesised([stream], seed=3, chunk_requests=50_000))).time_s) * load
    assert gaps.var() == pytest.approx(cv2, rel=0.05)  # the arrivals that simulations of plans are made of


@pytest.mark.parametrize(("cv2", "cv"), [(0.0, 0.5), (0.5, 0.5), (3.0, 1.0)])
def test_no_wait_is_above_what_kingman_allows(cv2: float, cv: float) -> None:
    load = 0.7
    gaps = constant if cv2 == 0.0 else gamma(cv2)
    found = replications(one_server(), load, lambda seed: stretches(seed, load, gaps=gaps, prompt=lognormal(cv)))
    wait = measured(found, lambda each: latency(w.TTFT)(each) - 1.0)
    bound = load * (cv2 / load**2 + cv * cv) / (2.0 * (1.0 - load))
    below = bound - 0.5 * (1.0 + load * (cv2 / load**2) / 1.0) / load  # Marshall's lower bound is no lower than this
    assert below <= wait.value <= bound
    assert wait.value > 0.4 * bound  # the bound is close where there is load


# Several servers.


def pool_of(servers: int) -> Fleet:
    """Return a prefill pool of a number of servers before a worker that decodes without end of slots."""
    pool = Steps(prompt=lambda tokens, _: TOKEN_S * tokens)
    decode = Steps(decode=lambda _n, _c: SLOW_S)
    return fleet_of(kind(decode, pool, servers=servers, slots=4096, tokens=AXIS))


@pytest.mark.parametrize(("servers", "load"), [(2, 0.7), (5, 0.75), (16, 0.9)])
def test_m_m_c_of_a_prefill_pool(servers: int, load: float) -> None:
    rate = load * servers
    found = replications(pool_of(servers), rate, lambda seed: stretches(seed, rate, prompt=exponential), 20_000)
    chance, drain = delayed(servers, load), servers * (1.0 - load)
    assert chance == pytest.approx(erlang_c(servers, load), rel=1e-12)
    alone = load / (1.0 - load)  # each server with a queue of its own
    assert measured(found, waited(w.FOR_PROMPTS)).holds(chance / drain, wrong=alone)
    assert measured(found, latency(w.TTFT)).holds(1.0 + chance / drain, wrong=1.0 + alone)
    for q in (0.5, 0.9, 0.99):
        assert measured(found, latency(w.TTFT, q)).holds(
            sojourn_of(servers, load, q), wrong=-math.log(1.0 - q) / (1.0 - load)
        )


def delayed(servers: int, load: float) -> float:
    """Return Erlang's C by its sum."""
    offered = servers * load
    last = offered**servers / math.factorial(servers) / (1.0 - load)
    return last / (sum(offered**k / math.factorial(k) for k in range(servers)) + last)


def sojourn_of(servers: int, load: float, q: float) -> float:
    """Return a percentile of wait and service in M/M/c, whose parts are exponential with c(1 - ρ)μ and μ = 1."""
    chance, drain = delayed(servers, load), servers * (1.0 - load)

    def beyond(t: float) -> float:
        both = (drain * math.exp(-t) - math.exp(-drain * t)) / (drain - 1.0)
        return (1.0 - chance) * math.exp(-t) + chance * both

    low, high = 0.0, 100.0
    for _ in range(100):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if beyond(middle) > 1.0 - q else (low, middle)
    return low


def batch_of(slots: int, step: Callable[[int], float]) -> Fleet:
    """Return a replica that decodes; steps take what `step` says of the number of sequences, prompts ride along."""
    return fleet_of(kind(Steps(decode=lambda n, _: step(n)), slots=slots, mixing=1.0, tokens=AXIS))


@pytest.mark.parametrize(("slots", "load"), [(1, 0.6), (4, 0.75), (32, 0.9)])
def test_m_m_c_of_the_slots_of_a_batch(slots: int, load: float) -> None:
    rate = load * slots
    found = replications(
        batch_of(slots, lambda _: STEP_S),
        rate,
        lambda seed: stretches(seed, rate, output=exponential, mean_output=ANSWER),
        count=10_000,
    )
    wait = delayed(slots, load) / (slots * (1.0 - load))
    steps = 2.0 * STEP_S  # who comes during a step waits for its end, and for that of the one that the prompt is in
    assert at_most(steps, measured(found, latency(w.TTFT))).holds(wait, wrong=0.5 * wait - steps)
    assert at_most(steps, measured(found, latency(w.E2E))).meets(1.0 + wait)
    assert measured(found, latency(w.TPOT)).value == pytest.approx(STEP_S, rel=1e-9)
    assert at_most(steps, measured(found, waited(w.FOR_SLOT))).meets(wait)
    for q in (0.9, 0.99):
        late = max(math.log(delayed(slots, load) / (1.0 - q)), 0.0) / (slots * (1.0 - load))
        alone = math.log(load / (1.0 - q)) / (1.0 - load)  # each slot with a queue of its own
        wrong = alone if slots > 1 else 0.5 * alone
        assert at_most(steps, measured(found, latency(w.TTFT, q))).holds(late, wrong)


@pytest.mark.parametrize("spread", [exponential, lognormal(1.5), constant])
def test_a_batch_whose_steps_grow_with_it_is_processor_sharing(spread: Draws) -> None:
    """The mean stay is that of M/M/1 whatever the lengths are distributed like (Kleinrock, Queueing Systems II)."""
    load = 0.6
    found = replications(
        batch_of(256, lambda n: n * STEP_S),
        load,
        lambda seed: stretches(seed, load, output=spread, mean_output=ANSWER),
        count=12_000,
    )
    stay = at_most(4.0 * STEP_S, measured(found, latency(w.E2E)))
    assert stay.holds(1.0 / (1.0 - load), wrong=1.0 + 0.5 * load / (1.0 - load))


def test_a_batch_of_any_pace_is_the_birth_death_chain_that_plans_use() -> None:
    slots = 8
    pace = [n / (1.0 + 0.25 * (n - 1) ** 1.2) for n in range(1, slots + 1)]  # completions a second of n
    profile = Profile(
        requests_per_s=np.array(pace),
        tpot_s=np.ones(slots),
        stall_s=np.zeros(slots),
        prompt_s=np.zeros(slots),
        front_s=np.zeros(slots),
        decoded=1.0,
        input_cv=0.0,
        output_cv=1.0,
        arrival_cv2=1.0,
    )
    rate = 0.8 * pace[-1]
    chances, tail = stationary(profile, rate)
    load = rate / pace[-1]
    expected = float(np.arange(slots + 1) @ chances) + tail * (slots + 1.0 / (1.0 - load))
    found = replications(
        batch_of(slots, lambda n: STEP_S * n / pace[n - 1]),
        rate,
        lambda seed: stretches(seed, rate, output=exponential, mean_output=ANSWER),
        count=12_000,
    )
    in_system = measured(found, lambda each: each.world.totals[0].area / each.world.totals[0].now)
    assert at_most(4.0 * STEP_S * rate, in_system).holds(expected, wrong=load / (1.0 - load))


# Networks.


def test_a_prefill_pool_before_a_batch_is_a_tandem() -> None:
    """What leaves M/M/2 is Poisson (Burke), so that as many decode as in M/G/∞: λ times the time of an answer."""
    rate, load = 1.4, 0.7
    found = replications(
        pool_of(2),
        rate,
        lambda seed: stretches(seed, rate, prompt=exponential, output=lognormal(0.5), mean_output=3.0 / SLOW_S),
        count=12_000,
    )
    first = 1.0 + delayed(2, load) / (2.0 * (1.0 - load))
    assert measured(found, latency(w.TTFT)).holds(first, wrong=1.0 / (1.0 - load))
    assert measured(found, latency(w.E2E)).holds(first + 3.0, wrong=first)
    in_system = measured(found, lambda each: each.world.totals[0].area / each.world.totals[0].now)
    assert in_system.holds(rate * (first + 3.0), wrong=rate * first)


@pytest.mark.parametrize("concurrency", [1, 4, 8])
def test_a_closed_loop_is_the_repair_of_machines(concurrency: int) -> None:
    """Mean value analysis of one server and a delay, exact whatever the delay is like (Reiser & Lavenberg, 1980)."""
    delay, queue = 5.0, 0.0
    for n in range(1, concurrency + 1):
        rate = n / (delay + 1.0 + queue)
        queue = rate * (1.0 + queue)
    found = replications(
        pool_of(1),
        rate,
        lambda seed: stretches(seed, rate, prompt=exponential, output=lognormal(0.3), mean_output=delay / SLOW_S),
        count=5_000,
        concurrency=concurrency,
    )
    lasts = 5_000 / rate
    completed = measured(found, lambda each: float(each.world.per_class.finished[0]) / lasts)
    assert completed.holds(rate, wrong=0.8 * min(concurrency / (delay + 1.0), 1.0))
    assert measured(found, latency(w.TTFT)).holds(queue / rate, wrong=0.8 * queue / rate)


def test_little_s_law_by_measurement() -> None:
    load = 0.75
    found = replications(one_server(), load, lambda seed: stretches(seed, load, prompt=lognormal(1.0)))
    for outcome in found:
        start, end = outcome.snapshots[2], outcome.snapshots[-1]
        lasted = end.time_s - start.time_s
        in_system = (end.area - start.area) / lasted
        arrivals = (end.arrived - start.arrived) / lasted
        assert in_system == pytest.approx(arrivals * latency(w.E2E)(outcome), rel=0.15)


def test_more_than_a_queue_can_take_is_cut_short() -> None:
    def grown(world: w.World) -> bool:
        return bool(world.totals[0].in_system > 500)

    for load, over in ((0.7, False), (1.1, True)):
        chunks = stretches(1, load, prompt=exponential)
        outcome = replicate(one_server(), chunks, Window(start_s=0.0, end_s=20_000.0), seed=1, overloaded=grown)
        assert (outcome.cut_short == "overloaded") is over
        assert not outcome.broken
        if over:  # as many stay behind as come too many
            last = outcome.snapshots[-1]
            assert last.finished / last.time_s == pytest.approx(1.0, rel=0.05)
            assert last.in_system / last.time_s == pytest.approx(load - 1.0, rel=0.3)
