"""The birth-death chain against closed forms: M/M/1, M/M/c, Erlang C, exponential waits; and `capacity`."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from tokopt.perf.queueing import (
    LOAD_LIMIT,
    STATISTICS,
    FirstToken,
    Limits,
    PrefillPool,
    Profile,
    at_rate,
    capacity,
    capped,
    erlang_c,
    exponential_tail,
    lognormal_factor,
    normal_quantile,
    saturation,
    stationary,
)

MU = 0.7  # requests/s of one server
INF = math.inf


def mmc(servers: int, **changes: object) -> Profile:
    """A chain of `servers` equal servers with exponential service, and no time to first token but the wait."""
    zero = np.zeros(servers)
    base = Profile(
        requests_per_s=MU * np.arange(1.0, servers + 1.0),
        tpot_s=np.full(servers, 0.01),
        stall_s=zero,
        prompt_s=zero,
        front_s=zero,
        decoded=1.0 / (MU * 0.01),
        input_cv=0.0,
        output_cv=1.0,
        arrival_cv2=1.0,
    )
    return replace(base, **changes)


def rising(slots: int = 40) -> Profile:
    """A replica as the model makes them: its TPOT rises with the batch, and so falls the rate of each request."""
    n = np.arange(1.0, slots + 1.0)
    tpot = 0.01 + 0.0005 * n
    return mmc(
        slots,
        requests_per_s=n / (200 * tpot),
        tpot_s=tpot,
        stall_s=np.full(slots, 1e-4),
        prompt_s=0.08 + 0.001 * n,
        front_s=0.02 + 0.001 * n,
        decoded=200.0,
        input_cv=0.5,
        output_cv=0.7,
    )


def erlang_by_definition(servers: int, offered: float) -> float:
    def term(k: int) -> float:
        return math.exp(k * math.log(offered) - math.lgamma(k + 1))

    top = term(servers) * servers / (servers - offered)
    return top / (sum(term(k) for k in range(servers)) + top)


@pytest.mark.parametrize("load", [0.05, 0.5, 0.9, 0.99])
def test_mm1(load: float) -> None:
    rate = load * MU
    chances, tail = stationary(mmc(1), rate)
    assert chances == pytest.approx([1 - load, load * (1 - load)], rel=1e-9)
    assert tail == pytest.approx(load**2, rel=1e-9)
    loaded = at_rate(mmc(1), rate)
    assert loaded.wait_chance == pytest.approx(load, rel=1e-9)
    assert loaded.ttft_s["mean"] == pytest.approx(load / (MU - rate), rel=1e-9)
    assert loaded.mean_in_service == pytest.approx(load, rel=1e-9)
    assert loaded.load == pytest.approx(load, rel=1e-12)


@pytest.mark.parametrize("servers", [2, 5, 30, 150])
@pytest.mark.parametrize("load", [0.2, 0.8, 0.95])
def test_mmc(servers: int, load: float) -> None:
    rate = load * servers * MU
    offered = rate / MU
    waits = erlang_by_definition(servers, offered)
    assert erlang_c(servers, load) == pytest.approx(waits, rel=1e-9)
    chances, tail = stationary(mmc(servers), rate)
    assert float(chances.sum()) + tail == pytest.approx(1.0, rel=1e-12)
    assert float(chances[-1]) + tail == pytest.approx(waits, rel=1e-9)
    loaded = at_rate(mmc(servers), rate)
    assert loaded.ttft_s["mean"] == pytest.approx(waits / (servers * MU - rate), rel=1e-9)
    assert loaded.mean_in_service == pytest.approx(offered, rel=1e-9)


def test_erlang_c_of_textbooks() -> None:
    assert erlang_c(1, 0.5) == pytest.approx(0.5, rel=1e-12)
    assert erlang_c(2, 0.5) == pytest.approx(1 / 3, rel=1e-12)
    assert erlang_c(10, 0.0) == 0.0


@pytest.mark.parametrize(("name", "q"), [("p50", 0.5), ("p75", 0.75), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99)])
def test_waits_are_exponential_beyond_the_chance_of_none(name: str, q: float) -> None:
    servers, rate = 5, 0.8 * 5 * MU
    waits = erlang_by_definition(servers, rate / MU)
    t = at_rate(mmc(servers), rate).ttft_s[name]
    # P(W > t) = C exp(-(c mu - lambda) t)
    assert waits * math.exp(-(servers * MU - rate) * t) == pytest.approx(min(waits, 1 - q), rel=1e-9)


def test_exponential_tail() -> None:
    assert exponential_tail(0.3, 2.0, 0.9) == pytest.approx(2.0 * math.log(3.0))
    assert exponential_tail(0.05, 2.0, 0.9) == 0.0
    assert exponential_tail(0.1, 2.0, 0.9) == pytest.approx(0.0, abs=1e-12)


def test_lognormal_factor() -> None:
    rng = np.random.default_rng(3)
    sigma = math.sqrt(math.log(1 + 0.8**2))
    draws = np.exp(rng.normal(-0.5 * sigma**2, sigma, 400_000))
    assert float(np.std(draws)) == pytest.approx(0.8, rel=0.02)
    for q in (0.5, 0.9, 0.99):
        assert lognormal_factor(0.8, q) == pytest.approx(float(np.quantile(draws, q)), rel=0.02)
    assert lognormal_factor(0.0, 0.99) == 1.0
    assert normal_quantile(0.5) == pytest.approx(0.0, abs=1e-12)


def test_the_chain_against_events_drawn_at_random() -> None:
    """A state-dependent chain, simulated jump by jump."""
    profile, rate = rising(6), 0.0
    rate = 0.7 * float(profile.requests_per_s[-1])
    rng = np.random.default_rng(5)
    spent = np.zeros(400)
    n = 0
    for _ in range(120_000):
        leave = float(profile.requests_per_s[min(n, 6) - 1]) if n else 0.0
        spent[n] += 1.0 / (rate + leave)  # mean stay, which is less noisy than a drawn one
        n += 1 if rng.random() < rate / (rate + leave) else -1
    spent /= spent.sum()
    chances, tail = stationary(profile, rate)
    assert chances == pytest.approx(spent[:7], abs=0.012)
    assert tail == pytest.approx(float(spent[7:].sum()), abs=0.02)


def test_even_arrivals_and_even_service_halve_the_wait() -> None:
    """Allen and Cunneen: the wait scales with (ca^2 + cs^2) / 2."""
    plain = at_rate(mmc(3), 1.8).ttft_s["mean"]
    assert at_rate(mmc(3, output_cv=0.0), 1.8).ttft_s["mean"] == pytest.approx(plain / 2)
    assert at_rate(mmc(3, arrival_cv2=0.0), 1.8).ttft_s["mean"] == pytest.approx(plain / 2)
    assert at_rate(mmc(3, arrival_cv2=4.0), 1.8).ttft_s["mean"] == pytest.approx(plain * 2.5)


def prefilling(**changes: object) -> Profile:
    """Hundreds of slots, prompts of 0.4 s that keep the replica busy for 0.2 s each, and a front end of 0.05 s."""
    slots, decoded = 400, 100.0
    return mmc(
        slots,
        requests_per_s=np.arange(1.0, slots + 1.0) / 50.0,
        prompt_s=np.full(slots, 0.4),
        front_s=np.full(slots, 0.05),
        stall_s=np.full(slots, 0.2 / decoded),
        decoded=decoded,
        input_cv=0.6,
        **changes,
    )


@pytest.mark.parametrize("rate", [0.5, 2.0, 3.5])
def test_waits_for_prefills_are_those_of_pollaczek_and_khinchine(rate: float) -> None:
    busy = 0.2 * rate
    wait = busy / (1 - busy) * 0.4 * (1 + 0.6**2) / 2
    assert at_rate(prefilling(), rate).ttft_s["mean"] == pytest.approx(0.4 + 0.05 + wait, rel=1e-9)


def test_prompts_in_turn_wait_less_and_prompts_in_bursts_more() -> None:
    """Allen and Cunneen: the wait scales with the mean of both squared variations, here of arrivals and prompts."""
    waits = {cv2: at_rate(prefilling(arrival_cv2=cv2), 3.0).ttft_s["mean"] - 0.45 for cv2 in (0.125, 1.0, 4.0)}
    assert waits[0.125] / waits[1.0] == pytest.approx((0.125 + 0.36) / 1.36)
    assert waits[4.0] / waits[1.0] == pytest.approx((4.0 + 0.36) / 1.36)


def test_only_prompts_are_longer_at_a_percentile() -> None:
    """The front end and the step in progress take as long for a long prompt as for a short one."""
    idle = at_rate(prefilling(), 0.0).ttft_s
    assert idle["mean"] == pytest.approx(0.45)
    for name in STATISTICS[1:]:
        assert idle[name] == pytest.approx(0.05 + 0.4 * lognormal_factor(0.6, int(name[1:]) / 100), rel=1e-12)


def test_an_idle_replica_serves_whoever_comes_alone() -> None:
    idle, hardly = at_rate(rising(), 0.0), at_rate(rising(), 1e-9)
    for kind in ("ttft_s", "tpot_s"):
        assert getattr(idle, kind) == pytest.approx(getattr(hardly, kind), rel=1e-6)
    assert at_rate(rising(), 1e-320).tpot_s == pytest.approx(idle.tpot_s, rel=1e-9)


@pytest.mark.parametrize("cv", [0.3, 0.6, 1.0, 1.5])
def test_percentiles_of_independent_parts(cv: float) -> None:
    """Prompt and wait, drawn apart from each other: far below the sum of their 99th percentiles, within 7 %."""
    rng, draws, q = np.random.default_rng(11), 400_000, 0.99
    sigma = math.sqrt(math.log1p(cv * cv))
    prompts = np.exp(rng.normal(-0.5 * sigma**2, sigma, draws))
    unit, luck = rng.exponential(1.0, draws), rng.random(draws)
    for chance in (0.02, 0.1, 0.5, 0.95):
        for mean in (0.1, 0.7, 3.0):
            exact = float(np.quantile(prompts + np.where(luck < chance, mean * unit, 0.0), q))
            ours = FirstToken(1.0, chance, mean, 0.0).quantile(q, cv)
            assert ours == pytest.approx(exact, rel=0.07)
            added = lognormal_factor(cv, q) + exponential_tail(chance, mean, q)
            assert ours <= added * (1 + 1e-12)


def test_waits_alone_and_prompts_alone_are_exact() -> None:
    wait = exponential_tail(0.4, 2.0, 0.99)
    assert FirstToken(0.5, 0.4, 2.0, 0.1).quantile(0.99, 0.0) == pytest.approx(0.6 + wait, rel=1e-12)
    assert FirstToken(0.5, 0.0, 0.0, 0.1).quantile(0.99, 0.8) == pytest.approx(0.1 + 0.5 * lognormal_factor(0.8, 0.99))
    # Both waits are long at the same times: they add up.
    assert FirstToken(0.0, 0.4, 2.0, 0.0).quantile(0.99, 0.5, 3.0) == pytest.approx(wait + 3.0, rel=1e-12)


def test_arrivals_at_saturation_are_refused() -> None:
    for rate in (MU * 2, MU * 3, -0.1, math.nan):
        with pytest.raises(ValueError, match="saturation"):
            stationary(mmc(2), rate)


def test_no_arrivals_find_nobody() -> None:
    chances, tail = stationary(mmc(3), 0.0)
    assert chances.tolist() == [1.0, 0.0, 0.0, 0.0]
    assert tail == 0.0


def test_tiny_and_huge_chains_stay_finite() -> None:
    big = mmc(5000)
    for rate in (1e-9, 0.5 * saturation(big), 0.9999 * saturation(big)):
        chances, tail = stationary(big, rate)
        assert np.isfinite(chances).all()
        assert float(chances.sum()) + tail == pytest.approx(1.0, rel=1e-9)


def test_workers_share_the_arrivals() -> None:
    one, three = mmc(4), mmc(4, workers=3)
    assert saturation(three) == pytest.approx(3 * saturation(one))
    a, b = at_rate(one, 2.0), at_rate(three, 6.0)
    assert b.ttft_s == pytest.approx(a.ttft_s)
    assert b.mean_in_service == pytest.approx(3 * a.mean_in_service)


def pooled(servers: int = 3) -> Profile:
    pool = PrefillPool(servers=servers, prompt_s=0.5, batch_s=0.5, prompts_per_s=2.0, transfer_s=0.03)
    return mmc(50, prefill=pool, input_cv=1.0)


def test_a_prefill_pool_is_an_mmc_of_its_own() -> None:
    rate = 4.8
    loaded = at_rate(pooled(), rate)
    wait = erlang_by_definition(3, 2.4) / (6.0 - rate)
    decode_wait = erlang_by_definition(50, rate / MU) / (50 * MU - rate)
    assert loaded.ttft_s["mean"] == pytest.approx(0.5 + 0.03 + wait + decode_wait, rel=1e-9)
    assert loaded.load == pytest.approx(0.8)


def test_the_slower_pool_saturates_first() -> None:
    assert saturation(pooled(3)) == pytest.approx(6.0)
    assert saturation(pooled(1000)) == pytest.approx(50 * MU)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.7, 0.94])
@pytest.mark.parametrize("profile", [rising(), pooled(), mmc(9)], ids=["agg", "disagg", "mmc"])
def test_percentiles_are_ordered_and_finite(profile: Profile, share: float) -> None:
    loaded = at_rate(profile, share * saturation(profile))
    for latency in (loaded.ttft_s, loaded.tpot_s, loaded.e2e_s):
        ordered = [latency[s] for s in STATISTICS[1:]]
        assert ordered == sorted(ordered)
        assert all(math.isfinite(v) and v >= 0 for v in latency.values())


@pytest.mark.parametrize("profile", [rising(), pooled()], ids=["agg", "disagg"])
def test_latencies_grow_with_the_rate(profile: Profile) -> None:
    top = saturation(profile)
    last: dict[tuple[str, str], float] = {}
    for share in np.linspace(0.02, 0.98, 60):
        loaded = at_rate(profile, share * top)
        for kind in ("ttft_s", "tpot_s", "e2e_s"):
            for name, value in getattr(loaded, kind).items():
                assert value >= last.get((kind, name), 0.0) - 1e-12
                last[kind, name] = value


def limits(tpot: float = INF, ttft: float = INF, e2e: float = INF, statistic: str = "p99") -> Limits:
    return Limits(tpot_s=tpot, ttft_s=ttft, e2e_s=e2e, statistic=statistic)


CASES = [
    (tpot, ttft, e2e, s)
    for s in STATISTICS
    for tpot, ttft, e2e in ((0.025, INF, INF), (INF, 0.6, INF), (INF, INF, 6.0), (0.028, 1.0, 9.0), (INF, INF, INF))
]


@pytest.mark.parametrize("case", CASES)
def test_capacity_is_the_edge_of_the_limits(case: tuple[float, float, float, str]) -> None:
    profile, asked = rising(), limits(*case)
    rate = capacity(profile, asked)
    top = LOAD_LIMIT * saturation(profile)
    if rate == 0.0:
        assert not asked.met_by(at_rate(profile, top * 2e-6))
        return
    assert rate <= top
    assert asked.met_by(at_rate(profile, rate))
    if rate < top:
        assert not asked.met_by(at_rate(profile, min(rate * 1.001, top)))


def test_no_limits_give_the_load_limit() -> None:
    assert capacity(rising(), limits()) == LOAD_LIMIT * saturation(rising())


def test_impossible_limits_give_nothing() -> None:
    assert capacity(rising(), limits(tpot=0.001)) == 0.0
    assert capacity(rising(), limits(ttft=0.05)) == 0.0


def test_capacity_grows_with_every_limit() -> None:
    for make in (
        lambda v: limits(tpot=0.01 + 0.02 * v),
        lambda v: limits(ttft=0.1 + v),
        lambda v: limits(e2e=2.0 + 10 * v),
    ):
        found = [capacity(rising(), make(v)) for v in np.linspace(0.0, 1.0, 21)]
        assert all(b >= a * (1 - 1e-4) for a, b in itertools.pairwise(found))
        assert found[-1] > found[0]


def test_capacity_above_what_is_reached_already() -> None:
    asked = limits(tpot=0.028, ttft=1.0)
    exact = capacity(rising(), asked)
    assert capacity(rising(), asked, above=exact * 1.001) == 0.0
    assert capacity(rising(), asked, above=exact * 0.9) == pytest.approx(exact, rel=2e-4)
    assert capacity(rising(), asked, above=saturation(rising())) == 0.0


def test_the_running_cap_is_the_fullest_that_keeps_tpot() -> None:
    asked = limits(tpot=0.025)
    found = capped(rising(), asked)
    assert found is not None
    full = rising().tpot_s + normal_quantile(0.99) * rising().stall_s * np.sqrt(np.arange(1.0, 41.0))
    assert full[found.slots - 1] <= 0.025 < full[found.slots]
    whole = rising()
    assert capped(whole, limits(tpot=1.0)) is whole
    assert capped(rising(), limits(tpot=0.001)) is None
    # The end-to-end limit leaves to decoding what an idle replica's first token leaves of it.
    first = at_rate(rising(), 0.0).ttft_s["p99"]
    tpot = (12.0 - first) / (200 * lognormal_factor(0.7, 0.99))
    by_end = capped(rising(), limits(e2e=12.0))
    assert by_end is not None
    assert full[by_end.slots - 1] <= tpot < full[by_end.slots]


def test_a_cap_serves_more_than_a_lighter_load() -> None:
    """With a cap, load may come close to saturation; without one, TPOT sets the rate long before."""
    asked = limits(tpot=0.025, ttft=3.0)
    found = capped(rising(), asked)
    assert found is not None
    assert capacity(found, asked, load_limit=0.999) > capacity(rising(), asked, load_limit=0.999)


def test_the_load_limit_is_the_callers() -> None:
    assert capacity(rising(), limits(), load_limit=0.99) == 0.99 * saturation(rising())
