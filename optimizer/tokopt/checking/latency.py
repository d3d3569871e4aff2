"""Latencies of a replica under open traffic: the birth-death chain over requests in service, state by state."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate, pairwise
from statistics import NormalDist

from tokopt.checking.replica import PrefillPool, Steady

NEGLIGIBLE = 1e-30  # weight of a state, relative to the likeliest
PERCENTILES = {"p50": 0.50, "p75": 0.75, "p90": 0.90, "p95": 0.95, "p99": 0.99}


def knots(slots: int) -> list[float]:
    """Return occupancies from 1 up to the first that is not below `slots`, each 3/20 above the last, rounded down."""
    reached = [1]
    while reached[-1] < slots:
        reached.append(reached[-1] + max(1, reached[-1] * 3 // 20))
    return [float(n) for n in reached]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Profile:
    """A replica for n = 1 … slots requests in service: figures at knots, and where each n lies between them."""

    states: tuple[Steady, ...]
    requests_per_s: array[float]  # by n
    position: array[float]  # by n: knot and fraction of the way to the next
    rising: bool  # whether the rate never falls as n grows
    prompt_s: tuple[float, ...]  # by knot: own prefill of a prompt of mean length
    front_s: tuple[float, ...]  # by knot: front end and the step in progress
    decoded: float
    input_cv: float
    output_cv: float
    arrival_cv2: float
    workers: int
    prefill: PrefillPool | None

    @property
    def slots(self) -> int:
        """Requests that can be in service."""
        return len(self.requests_per_s)

    def read(self, column: Sequence[float], n: int) -> float:
        """Return a figure at n requests in service, by straight lines between knots."""
        knot = int(self.position[n - 1])
        part = self.position[n - 1] - knot
        return column[knot] if part == 0.0 else column[knot] * (1.0 - part) + column[knot + 1] * part

    def tpot_s(self, n: int) -> float:
        """Time per output token with n requests in service. [s]"""
        return self.read([state.tpot_s for state in self.states], n)

    def stall_s(self, n: int) -> float:
        """Extra time per token from one prompt's prefill with n requests in service. [s]"""
        return self.read([state.stall_s for state in self.states], n)

    @property
    def saturation(self) -> float:
        """Arrival rate at which a queue stops settling. [requests/s]"""
        decode = self.workers * self.requests_per_s[-1]
        return decode if self.prefill is None else min(decode, self.prefill.servers * self.prefill.prompts_per_s)


def place(slots: int, held: Sequence[float]) -> array[float]:
    """Return where each of n = 1 … slots lies among knots that hold `held` requests; ends hold beyond the ends."""
    rising = list(accumulate(held, max))
    positions = array("d")
    for n in range(1, slots + 1):
        knot = bisect_right(rising, n) - 1
        if knot < 0:
            positions.append(0.0)
        elif knot >= len(rising) - 1:
            positions.append(len(rising) - 1.0)
        else:
            positions.append(knot + (n - rising[knot]) / (rising[knot + 1] - rising[knot]))
    return positions


def profile_of(
    states: Sequence[Steady],
    slots: int,
    *,
    decoded: float,
    input_cv: float,
    output_cv: float,
    arrival_cv2: float,
    overhead_s: float = 0.0,
    workers: int = 1,
    prefill: PrefillPool | None = None,
) -> Profile:
    """Return the profile of a replica from its steady states at the knots of `slots`.

    Requests in prefill hold slots too, so figures are placed at the requests in service; below the first knot the
    rate is proportional to them.
    """
    if slots == 1 and not prefill:
        states = [_alone(states[0], decoded)]
    position = place(slots, [state.in_service for state in states])
    rates = array("d")
    least = states[0].in_service
    for n in range(1, slots + 1):
        knot = int(position[n - 1])
        part = position[n - 1] - knot
        if n < least:
            rates.append(n * states[0].requests_per_s / least)
        elif part == 0.0:
            rates.append(states[knot].requests_per_s)
        else:
            low, high = states[knot].requests_per_s, states[knot + 1].requests_per_s
            rates.append(low + part * (high - low))
    return Profile(
        states=tuple(states),
        requests_per_s=rates,
        position=position,
        rising=all(a <= b for a, b in pairwise(rates)),
        prompt_s=tuple(0.0 if prefill else s.prefill_s for s in states),
        front_s=tuple(0.0 if prefill else overhead_s + 0.5 * s.decode_step_s for s in states),
        decoded=decoded,
        input_cv=input_cv,
        output_cv=output_cv,
        arrival_cv2=arrival_cv2,
        workers=workers,
        prefill=prefill,
    )


def _alone(state: Steady, decoded: float) -> Steady:
    """Return the state of a replica that runs one request at a time, from that of one sequence that decodes for ever.

    Its prompt meets no step of others, and its steps no prompt; a worker that never prefills is like that anyway.
    """
    tpot = state.tpot_s - state.stall_s
    return replace(
        state,
        in_service=1.0,
        requests_per_s=1.0 / (state.alone_prefill_s + decoded * tpot),
        tpot_s=tpot,
        stall_s=0.0,
        prefill_s=state.alone_prefill_s,
        prefill_wait_s=0.0,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Occupancy:
    """Chances of n requests in a decode worker for n = start, start + 1, …; all other chances are negligible."""

    start: int
    chances: list[float]
    beyond: float  # chance of more requests than slots

    def mean(self, slots: int) -> float:
        """Mean requests in service."""
        held = sum(n * chance for n, chance in enumerate(self.chances, self.start))
        return held + slots * self.beyond

    def quantile(self, q: float, slots: int) -> int:
        """Return the least n with P(N ≤ n) ≥ q; slots + 1 where that lies in the queue."""
        index = bisect_left(list(accumulate(self.chances)), q)
        return self.start + index if index < len(self.chances) else slots + 1


def occupancy(profile: Profile, rate: float) -> Occupancy:
    """Return the stationary chances for Poisson arrivals of `rate` a second at one decode worker.

    π(n) = π(n - 1) · rate/μ(n), and beyond the slots a geometric tail (Kleinrock, Queueing Systems I, §3.2); walked
    from the likeliest state outwards.
    """
    service = profile.requests_per_s
    slots = profile.slots
    if rate <= 0.0:
        return Occupancy(start=0, chances=[1.0], beyond=0.0)
    if profile.rising:
        likeliest, least = bisect_left(service, rate), NEGLIGIBLE
    else:
        logs = list(accumulate((math.log(rate / s) for s in service), initial=0.0))
        likeliest, least = logs.index(max(logs)), 0.0
    below, weight = [], 1.0
    for n in range(likeliest, 0, -1):
        weight *= service[n - 1] / rate
        if weight < least:
            break
        below.append(weight)
    above, weight = [1.0], 1.0
    for n in range(likeliest + 1, slots + 1):
        weight *= rate / service[n - 1]
        if weight < least:
            break
        above.append(weight)
    load = rate / service[-1]
    full = likeliest + len(above) - 1 == slots
    tail = above[-1] * load / (1.0 - load) if full else 0.0
    weights = [*reversed(below), *above]
    total = sum(weights) + tail
    return Occupancy(start=likeliest - len(below), chances=[w / total for w in weights], beyond=tail / total)


def served_shares(profile: Profile, found: Occupancy) -> list[float]:
    """Return, by knot, the share of requests that are served there: P(n) · μ(n), spread over the knots around n.

    With no arrivals to speak of it is where a single request would be served.
    """
    shares = [0.0] * len(profile.states)
    total = 0.0
    if found.start == 0 and len(found.chances) == 1:
        found = Occupancy(start=1, chances=[1.0], beyond=0.0)
    for n, chance in enumerate(found.chances, found.start):
        if n == 0:
            continue
        chance += found.beyond if n == profile.slots else 0.0
        served = chance * profile.requests_per_s[n - 1]
        knot = int(profile.position[n - 1])
        part = profile.position[n - 1] - knot
        shares[knot] += served * (1.0 - part)
        if part:
            shares[knot + 1] += served * part
        total += served
    return [share / total for share in shares]


def normal_quantile(q: float) -> float:
    """Quantile of the standard normal distribution."""
    return NormalDist().inv_cdf(q)


def lognormal_factor(cv: float, q: float) -> float:
    """Quantile of a log-normal length over its mean: exp(z·σ - σ²/2), σ² = ln(1 + cv²)."""
    sigma = math.sqrt(math.log1p(cv**2))
    return math.exp(normal_quantile(q) * sigma - 0.5 * sigma**2)


def erlang_c(servers: int, load: float) -> float:
    """Chance that an arrival waits in M/M/c at `load` of all servers (Erlang C from Erlang B's recursion)."""
    blocked = 1.0
    for k in range(1, servers + 1):
        blocked = servers * load * blocked / (k + servers * load * blocked)
    return blocked / (1.0 - load * (1.0 - blocked))


def wait_quantile(chance: float, mean_s: float, q: float) -> float:
    """Quantile of a wait that is exponential with `mean_s` where there is one at all. [s]"""
    return mean_s * math.log(chance / (1.0 - q)) if chance > 1.0 - q else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstToken:
    """Parts of the time to first token before any wait for a slot. [s]"""

    prompt_s: float  # own prefill, for a prompt of mean length
    wait_chance: float
    wait_s: float  # given that there is one
    fixed_s: float

    def quantile(self, q: float, input_cv: float, slot_s: float) -> float:
        """Return the quantile with a wait for a slot of `slot_s`: prompt lengths are independent of the waits. [s]

        Deviations of independent parts add up as squares; below the mean length they are just added.
        """
        waits = wait_quantile(self.wait_chance, self.wait_s, q) + slot_s
        longer_s = self.prompt_s * (lognormal_factor(input_cv, q) - 1.0)
        spread_s = math.sqrt(longer_s**2 + waits**2) if longer_s > 0.0 else longer_s + waits
        return self.fixed_s + self.prompt_s + spread_s


def first_token(profile: Profile, rate: float, shares: Sequence[float]) -> FirstToken:
    """Return the parts of the time to first token: behind others' prefills, or queueing for the prefill pool.

    Waits follow Allen and Cunneen: those of M/M/1 or M/M/c times the mean of both squared variations.
    """
    pool = profile.prefill
    spread = 0.5 * (profile.arrival_cv2 + profile.input_cv**2)
    if pool is None:
        stall_s = sum(share * state.stall_s for share, state in zip(shares, profile.states, strict=True))
        chance = min(rate * profile.decoded * stall_s, 1.0 - 1e-9)
        prompt = sum(share * own for share, own in zip(shares, profile.prompt_s, strict=True))
        front = sum(share * each for share, each in zip(shares, profile.front_s, strict=True))
        return FirstToken(prompt_s=prompt, wait_chance=chance, wait_s=spread * prompt / (1.0 - chance), fixed_s=front)
    total = pool.servers * pool.prompts_per_s
    chance = erlang_c(pool.servers, rate / total)
    prompt_s = pool.prompt_s + rate / total * (pool.batch_s - pool.prompt_s)
    return FirstToken(prompt_s=prompt_s, wait_chance=chance, wait_s=spread / (total - rate), fixed_s=pool.fixed_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Latencies:
    """Latencies at an arrival rate, by statistic. [s]"""

    ttft_s: dict[str, float]
    tpot_s: dict[str, float]
    e2e_s: dict[str, float]
    load: float
    mean_in_service: float


@lru_cache(maxsize=1024)
def latencies(profile: Profile, rate: float) -> Latencies | None:
    """Return the latencies of a replica that requests reach at `rate` a second; None where its queues never settle.

    TPOT is that of the percentile of the occupancy plus z standard deviations of the prefills that a request meets
    (Poisson, n of them); end to end, percentiles add up part by part.
    """
    load = rate / profile.saturation
    if not 0.0 <= load < 1.0:
        return None
    each = rate / profile.workers
    found = occupancy(profile, each)
    shares = served_shares(profile, found)
    mean_n = found.mean(profile.slots)
    full = found.chances[-1] if found.start + len(found.chances) - 1 == profile.slots else 0.0
    wait_chance = full + found.beyond
    drain_s = 0.5 * (profile.arrival_cv2 + profile.output_cv**2) / (profile.requests_per_s[-1] - each)
    first = first_token(profile, rate, shares)
    burst = math.sqrt(0.5 * (1.0 + max(profile.arrival_cv2, 1.0)))
    ttft = {"mean": first.prompt_s + first.wait_chance * first.wait_s + first.fixed_s + wait_chance * drain_s}
    tpot = {"mean": sum(share * state.tpot_s for share, state in zip(shares, profile.states, strict=True))}
    e2e = {"mean": ttft["mean"] + profile.decoded * tpot["mean"]}
    for name, q in PERCENTILES.items():
        ttft[name] = first.quantile(q, profile.input_cv, wait_quantile(wait_chance, drain_s, q))
        seen = found.quantile(q, profile.slots)
        # Bursts spread the occupancy around its mean: mean + (seen - mean) · burst, exact where burst is 1.
        n = max(min(math.ceil(seen + (seen - mean_n) * (burst - 1.0)), profile.slots), 1)
        tpot[name] = profile.tpot_s(n) + max(normal_quantile(q), 0.0) * profile.stall_s(n) * math.sqrt(n)
        e2e[name] = ttft[name] + profile.decoded * lognormal_factor(profile.output_cv, q) * tpot[name]
    return Latencies(ttft_s=ttft, tpot_s=tpot, e2e_s=e2e, load=load, mean_in_service=mean_n * profile.workers)
