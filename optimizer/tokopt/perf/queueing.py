"""Latency percentiles of a replica under open traffic: a birth-death chain with state-dependent service rates.

State n is the number of requests in a replica. Up to `slots` of them are in service, at a rate that grows with n as
the steady-state model says; the others wait. Poisson arrivals see time averages, so the stationary distribution is
what a request finds. Exact for exponential service; burstiness and the spread of lengths enter by the two-moment
correction of Allen and Cunneen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from tokopt.perf.arrays import Floats

CLOSE_ENOUGH = 1e-9  # of a rate
MOST_STEPS = 100
LOAD_LIMIT = 0.95  # of saturation: beyond it no queue settles in any useful time
STATISTICS = ("mean", "p50", "p75", "p90", "p95", "p99")


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillPool:
    """The prefill pool of a disaggregated replica: servers that take prompts from one queue."""

    servers: int  # workers x groups that prefill at a time
    prompt_s: float  # of one prompt alone, from start to end
    batch_s: float  # of a full batch of prompts
    prompts_per_s: float  # of one server
    transfer_s: float  # of one request's cache to its decode worker


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A replica's behaviour for n = 1 … slots requests in service. Arrays have `slots` elements."""

    requests_per_s: NDArray[np.float64]
    tpot_s: NDArray[np.float64]
    stall_s: NDArray[np.float64]  # of one prefill among n, a token
    prompt_s: NDArray[np.float64]  # own prefill, of a prompt of mean length
    front_s: NDArray[np.float64]  # front end and the step in progress, whatever the prompt's length
    decoded: float
    input_cv: float
    output_cv: float
    arrival_cv2: float
    workers: int = 1  # decode workers that share the arrivals evenly at random
    prefill: PrefillPool | None = None  # a pool of its own for prefill

    @property
    def slots(self) -> int:
        """Requests that can be in service."""
        return int(self.requests_per_s.size)

    def cut(self, slots: int) -> Profile:
        """Return the profile of the same replica with fewer slots."""
        columns = ("requests_per_s", "tpot_s", "stall_s", "prompt_s", "front_s")
        return replace(self, **{name: getattr(self, name)[:slots] for name in columns})


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """Latencies of a replica at an arrival rate, keyed by statistic. [s]"""

    ttft_s: dict[str, float]
    tpot_s: dict[str, float]
    e2e_s: dict[str, float]
    load: float  # of saturation
    busy: float  # share of time in which a decode worker has a request
    mean_in_service: float
    wait_chance: float


@lru_cache(maxsize=256)
def normal_quantile(quantile: float) -> float:
    """Quantile of the standard normal distribution."""
    return NormalDist().inv_cdf(quantile)


@lru_cache(maxsize=1024)
def lognormal_factor(cv: float, quantile: float) -> float:
    """Quantile of a log-normal variable over its mean: exp(z·σ - σ²/2) with σ² = ln(1 + cv²)."""
    sigma = math.sqrt(math.log1p(cv * cv))
    return math.exp(normal_quantile(quantile) * sigma - 0.5 * sigma * sigma)


def stationary(profile: Profile, rate: float) -> tuple[NDArray[np.float64], float]:
    """Return P(n = 0 … slots) and the probability of more than `slots`, for Poisson arrivals of `rate` a second.

    π(n) ∝ Π λ/μ(i); beyond the slots it falls by λ/μ(slots) a request (Kleinrock, Queueing Systems I, §3.2).

    Raises:
        ValueError: The rate is not below saturation.
    """
    last = float(profile.requests_per_s[-1])
    load = rate / last
    if not 0.0 <= load < 1.0:
        raise ValueError("the arrival rate is not below saturation")
    if rate == 0.0:
        return np.concatenate([[1.0], np.zeros(profile.slots)]), 0.0
    weights = np.concatenate([[0.0], np.cumsum(math.log(rate) - np.log(profile.requests_per_s))])
    weights = np.exp(weights - weights.max())
    tail = float(weights[-1]) * load / (1.0 - load)
    total = float(weights.sum()) + tail
    return weights / total, tail / total


def erlang_c(servers: int, load: float) -> float:
    """Chance that an arrival waits in M/M/c at `load` = λ/(cμ) < 1 (Erlang C, by the stable recursion of Erlang B)."""
    offered = servers * load
    blocked = 1.0
    for k in range(1, servers + 1):
        blocked = offered * blocked / (k + offered * blocked)
    return blocked / (1.0 - load * (1.0 - blocked))


def exponential_tail(chance: float, mean_s: float, quantile: float) -> float:
    """Quantile of a wait that happens with `chance` and is then exponential with `mean_s`. [s]"""
    return mean_s * math.log(chance / (1.0 - quantile)) if chance > 1.0 - quantile else 0.0


def saturation(profile: Profile) -> float:
    """Arrival rate of the whole replica at which one of its queues stops settling. [requests/s]"""
    decode = profile.workers * float(profile.requests_per_s[-1])
    return decode if profile.prefill is None else min(decode, profile.prefill.servers * profile.prefill.prompts_per_s)


@dataclass(frozen=True, slots=True)
class FirstToken:
    """Parts of the time to first token before any wait for a slot. [s]"""

    prompt_s: float  # own prefill, of a prompt of mean length
    others_chance: float
    others_s: float  # mean, given that there is a wait
    fixed_s: float  # the same for every request

    def mean(self) -> float:
        """Return the mean. [s]"""
        return self.prompt_s + self.others_chance * self.others_s + self.fixed_s

    def quantile(self, q: float, input_cv: float, slot_s: float = 0.0) -> float:
        """Return a quantile over prompts whose lengths vary by `input_cv`; `slot_s` is that of the wait for a slot. [s]

        A prompt's length has nothing to do with the load that it finds, so its spread around the mean and the waits
        make up for each other:

            quantile = fixed + prompt + hypot(prompt · (log-normal quantile - 1), waits)

        the root-sum-square rule for independent deviations, exact for normal ones and wherever one of the two is
        negligible. Below the mean length both are added up, as for parts that move together; so are the two waits,
        which are long at the same times.
        """
        waits = exponential_tail(self.others_chance, self.others_s, q) + slot_s
        spread = self.prompt_s * (lognormal_factor(input_cv, q) - 1.0)
        return self.fixed_s + self.prompt_s + (math.hypot(spread, waits) if spread > 0.0 else spread + waits)


def _first_token(profile: Profile, rate: float, served: NDArray[np.float64]) -> FirstToken:
    """Return the first token at `rate` requests a second, which find others in service in the proportions `served`.

    Where prompts share the accelerators with decoding, they queue for them one after another as in G/G/1, busy for the
    share of time that prefills take: rate · time that one adds. The wait, where there is one, is (c_a² + c_s²)/2 times
    that of M/M/1, P/(1 - busy) (Allen and Cunneen, as in Bolch et al., Queueing Networks and Markov Chains, §6.3;
    Pollaczek and Khinchine's with Poisson arrivals). Arrivals do not slow down as the batch fills, so the load is that
    of the arrivals, not of any one occupancy.
    """
    pool = profile.prefill
    if pool is None:
        prompt, front = float(served @ profile.prompt_s), float(served @ profile.front_s)
        busy = min(rate * profile.decoded * float(served @ profile.stall_s), 1.0 - 1e-9)
        spread = 0.5 * (profile.arrival_cv2 + profile.input_cv**2)
        return FirstToken(prompt, busy, spread * prompt / (1.0 - busy), front)
    return pooled_first_token(pool, rate, arrival_cv2=profile.arrival_cv2, input_cv=profile.input_cv)


def pooled_first_token(pool: PrefillPool, rate: float, *, arrival_cv2: float, input_cv: float) -> FirstToken:
    """Return the first token of a prefill pool that takes `rate` requests a second, which it must be able to."""
    total = pool.servers * pool.prompts_per_s
    load = rate / total
    # Batches fill up as the load grows: alone when idle, in full ones at saturation.
    own = pool.prompt_s + load * (pool.batch_s - pool.prompt_s)
    spread = 0.5 * (arrival_cv2 + input_cv**2)
    return FirstToken(own, erlang_c(pool.servers, load), spread / (total - rate), pool.transfer_s)


def at_rate(profile: Profile, rate: float, statistics: tuple[str, ...] = STATISTICS) -> Loaded:
    """Return the latencies of a replica that requests reach at `rate` a second.

    TTFT at a percentile is that of own prefill and waits (`FirstToken.quantile`). TPOT is taken at the percentile of
    the occupancy, plus the spread of the number of prefills that a request's tokens meet (Poisson: n of them on average
    in its lifetime, by Little's law): on the safe side, since a request lives through several occupancies. End to end
    it is the sum of the percentiles, exact for parts that move together. `statistics` are those to work out beyond the
    mean.
    """
    decode_rate = rate / profile.workers
    chances, tail = stationary(profile, decode_rate)
    last = float(profile.requests_per_s[-1])
    mean_n = float(np.arange(profile.slots + 1) @ chances) + profile.slots * tail
    cumulative = np.cumsum(chances)
    wait_chance = float(chances[-1]) + tail
    # Allen and Cunneen: waits scale with the mean of both squared variations; decode times vary as output lengths do.
    drain_s = 0.5 * (profile.arrival_cv2 + profile.output_cv**2) / (last - decode_rate)
    served = chances[1:] * profile.requests_per_s
    served[-1] += tail * last
    total = float(served.sum())
    # Whoever comes to an idle replica is alone in it.
    served = served / total if total > 0.0 else (np.arange(profile.slots) == 0).astype(float)
    first = _first_token(profile, rate, served)
    burst = math.sqrt(0.5 * (1.0 + max(profile.arrival_cv2, 1.0)))
    ttft = {"mean": first.mean() + wait_chance * drain_s}
    tpot = {"mean": float(served @ profile.tpot_s)}
    e2e = {"mean": ttft["mean"] + profile.decoded * tpot["mean"]}
    for name in statistics:
        if name == "mean":
            continue
        q = int(name[1:]) / 100.0
        ttft[name] = first.quantile(q, profile.input_cv, exponential_tail(wait_chance, drain_s, q))
        seen = int(np.searchsorted(cumulative, q))
        seen = min(math.ceil(seen + (seen - mean_n) * (burst - 1.0)), profile.slots)
        index = max(seen, 1) - 1
        z = max(normal_quantile(q), 0.0)
        tpot[name] = float(profile.tpot_s[index]) + z * float(profile.stall_s[index]) * math.sqrt(index + 1)
        e2e[name] = ttft[name] + profile.decoded * lognormal_factor(profile.output_cv, q) * tpot[name]
    return Loaded(
        ttft_s=ttft,
        tpot_s=tpot,
        e2e_s=e2e,
        load=rate / saturation(profile),
        busy=1.0 - float(chances[0]),
        mean_in_service=mean_n * profile.workers,
        wait_chance=wait_chance,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Latency limits in seconds at one statistic; infinite where there is none."""

    tpot_s: float
    ttft_s: float
    e2e_s: float
    statistic: str

    @property
    def quantile(self) -> float | None:
        """Probability of the percentile; None for the mean."""
        return None if self.statistic == "mean" else int(self.statistic[1:]) / 100.0

    @property
    def safety(self) -> float:
        """Standard deviations of prefill stalls that the TPOT at full occupancy must leave room for."""
        return max(normal_quantile(self.quantile), 0.0) if self.quantile is not None else 0.0

    def tpot_within(self, first_token_s: Floats, decoded: Floats, output_cv: float) -> Floats:
        """Return the TPOT that the limits leave: its own, or what the end-to-end limit leaves after the first token.

        min(TPOT limit, (end-to-end limit - first token) / (decoded · percentile of the output's length))   [s]
        """
        q = self.quantile
        longest = decoded * (1.0 if q is None else lognormal_factor(output_cv, q))
        return np.minimum(self.tpot_s, np.maximum(self.e2e_s - first_token_s, 0.0) / longest)

    def excess(self, loaded: Loaded) -> float:
        """Return by how much the worst latency is above its limit, relative to it; 0 or less = all are met."""
        worst = max(
            loaded.tpot_s[self.statistic] / self.tpot_s,
            loaded.ttft_s[self.statistic] / self.ttft_s,
            loaded.e2e_s[self.statistic] / self.e2e_s,
        )
        return worst - 1.0

    def met_by(self, loaded: Loaded) -> bool:
        """Whether latencies are within the limits."""
        return self.excess(loaded) <= 0.0


def capped(profile: Profile, limits: Limits) -> Profile | None:
    """Return a profile cut to the largest running cap at which a full replica meets the TPOT limit; None without one.

        TPOT(S) + z·stall(S)·√S ≤ min(TPOT limit, what the end-to-end limit leaves when idle)

    With it TPOT holds whatever the queue does, and overload shows up as TTFT. A larger cap serves hardly more within
    the limits, since occupancies above S would have to be as rare as the statistic asks.
    """
    n = np.arange(1.0, profile.slots + 1.0)
    full = profile.tpot_s + limits.safety * profile.stall_s * np.sqrt(n)
    idle = _first_token(profile, 0.0, (n == 1.0).astype(float))  # whoever comes to an idle replica is alone in it
    q = limits.quantile
    first = idle.mean() if q is None else idle.quantile(q, profile.input_cv)
    allowed = float(limits.tpot_within(first, profile.decoded, profile.output_cv))
    slots = int(np.searchsorted(np.maximum.accumulate(full), allowed, side="right"))
    if slots < 1:
        return None
    return profile if slots == profile.slots else profile.cut(slots)


def capacity(profile: Profile, limits: Limits, *, above: float = 0.0, load_limit: float = LOAD_LIMIT) -> float:
    """Return the largest arrival rate that meets the limits, to the last digits and from below. [requests/s]

    Latencies grow with the arrival rate, so a bracketed secant with halvings finds it (regula falsi, Illinois variant);
    the returned rate itself has been checked. 0 if no rate meets the limits, or none above `above`, which saves the
    search for replicas that are no better than that. `load_limit` is the highest load of saturation, below 1.
    """

    def excess(rate: float) -> float:
        return limits.excess(at_rate(profile, rate, (limits.statistic,)))

    high = load_limit * saturation(profile)
    # Replicas that the same pool limits tie, to the digits that a rate is found to: a tie is seen at once.
    low = above * (1.0 + CLOSE_ENOUGH) if above > 0.0 else high * 1e-6
    if high <= low:
        return 0.0
    under = excess(low)  # first, since most replicas of a search do not get beyond it
    if under > 0.0:
        return 0.0
    over = excess(high)
    if over <= 0.0:
        return high
    kept = 0  # which end the last step left in place
    for step in range(MOST_STEPS):
        if high - low <= CLOSE_ENOUGH * high:
            break
        middle = high - over * (high - low) / (over - under) if over > under else low
        # Percentiles of the occupancy are whole numbers, so latencies also jump: every third step just halves.
        if step % 3 == 2 or not low < middle < high:
            middle = 0.5 * (low + high)
        value = excess(middle)
        if value <= 0.0:
            low, under, over, kept = middle, value, over * (0.5 if kept == 1 else 1.0), 1
        else:
            high, over, under, kept = middle, value, under * (0.5 if kept == -1 else 1.0), -1
    return low
