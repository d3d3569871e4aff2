"""The search against an oracle that evaluates every set-up without bounds, and against what it promises."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from tokopt.api.space import search_space
from tokopt.domain.deployments import Pool, ServingMode
from tokopt.domain.workloads import Sla, Workload
from tokopt.perf.deployed import replica_profile
from tokopt.perf.describe import memory_slots
from tokopt.perf.queueing import at_rate, capacity
from tokopt.perf.replica import Worker, aggregated_profile
from tokopt.perf.serving import workload_lengths
from tokopt.search import find_candidates
from tokopt.search.candidates import capped_profile, replicas_per_unit
from tokopt.search.pools import MOST_WORKERS, pairing, prefills_of
from tokopt.search.screening import Crossing, batches_for, decode_steps, fitting, grid_state, needless, screen
from tokopt.search.setups import BATCH_GRID, batches_up_to, layout_of, setups, worker_of
from tokopt.search.space import deployment_of, families

AGG, DISAGG = (ServingMode.AGG,), (ServingMode.DISAGG,)
CHAT = Workload(name="chat", input_tokens=1024, output_tokens=512, input_cv=1.0, output_cv=0.8)
LONG = Workload(name="long", input_tokens=8192, output_tokens=256, input_cv=0.5, output_cv=0.5)


def space_of(catalog, model, workload, modes, *, frameworks=("vllm",), precisions=(), kv=("bf16",), widest=None, **sla):
    space = search_space(
        catalog,
        llm=catalog.llm(model),
        workload=workload,
        sla=Sla(**sla),
        frameworks=frameworks,
        precisions=precisions,
        kv_precisions=kv,
        modes=modes,
    )
    if widest is None:
        return space
    return replace(space, widest=widest)


def families_of(accelerator, space):
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
        popularity_spread=space.popularity_spread,
    )


def exact_capacity(family, space, deployment, most):
    """The capacity of one deployment with the largest running cap up to `most`, found by halving; no bounds."""
    z = space.limits.safety

    def profile(slots):
        return replica_profile(
            family.model,
            family.machine,
            deployment,
            space.workload,
            accepted=float(family.accepted[deployment.speculation_depth]),
            slots=slots,
        )

    def meets(slots):
        p = profile(slots)
        return p.tpot_s[-1] + z * p.stall_s[-1] * math.sqrt(slots) <= space.limits.tpot_s

    if most < 1 or not meets(1):
        return 0.0
    low, high = 1, most + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if meets(middle) else (low, middle)
    capped = capped_profile(family, deployment, space.workload, space.limits, low)
    return capacity(capped, space.limits) if capped is not None else 0.0


def oracle(accelerator, space):
    """Best capacity by size over every legal aggregated set-up."""
    best: dict[int, float] = {}
    for family in families_of(accelerator, space):
        chosen = setups(family, space.widest, role="agg")
        for row in range(len(chosen)):
            layout = layout_of(chosen, row)
            depth, chunk = int(chosen.depth[row]), int(chosen.chunk_tokens[row])
            worker = Worker(
                tp=layout.tp,
                pp=layout.pp,
                ep=layout.ep,
                dp=layout.dp,
                depth=depth,
                accepted=float(family.accepted[depth]),
                chunk_tokens=chunk,
                redundant_experts=layout.redundant_experts,
                two_batch_overlap=layout.two_batch_overlap,
            )
            held = memory_slots(family.model, family.machine, worker, space.workload, prefill=True)
            most = int(min(held, family.framework.max_running_requests * layout.dp * layout.pp))
            if most < layout.dp * layout.pp:
                continue
            deployment = deployment_of(
                family, space, mode=ServingMode.AGG, layout=layout, speculation_depth=depth, chunk_tokens=chunk
            )
            rate = exact_capacity(family, space, deployment, most)
            best[layout.accelerators] = max(best.get(layout.accelerators, 0.0), rate)
    return best


SLAS = [
    {"tpot_ms": 40.0, "ttft_ms": 3000.0},
    {"tpot_ms": 60.0, "ttft_ms": 800.0, "statistic": "p90"},
    {"e2e_ms": 40_000.0},
    {"tpot_ms": 15.0, "statistic": "mean"},
]


@pytest.mark.parametrize("sla", SLAS[:2], ids=["p99", "ttft"])
def test_nothing_better_is_pruned_where_experts_are_spread_wide(catalog, sla) -> None:
    """Halves that begin at a threshold, and copies of popular experts, over domains of two accelerators."""
    space = space_of(catalog, "qwen3-30b-a3b", CHAT, AGG, precisions=("bf16",), widest=16, **sla)
    space = replace(space, popularity_spread=1.1)
    accelerator = replace(catalog.accelerator("h100_sxm"), scale_up_size=2)
    truth = oracle(accelerator, space)
    report = find_candidates(accelerator, space, (16,))
    for candidate in report.candidates:
        assert candidate.capacity_requests_per_s == pytest.approx(truth[candidate.accelerators], rel=1e-6)
    served = [c.capacity_requests_per_s * replicas_per_unit(c.accelerators, 16) for c in report.candidates]
    assert max(served) >= max(rate * replicas_per_unit(size, 16) for size, rate in truth.items()) * (1 - 1e-6)


@pytest.mark.parametrize("sla", SLAS, ids=["p99", "ttft", "e2e", "mean"])
@pytest.mark.parametrize(
    ("model", "gpu", "workload", "precisions"),
    [
        ("qwen3-8b", "l40s", CHAT, ("bf16", "fp8")),
        ("qwen3-8b", "h100_sxm", LONG, ("bf16",)),
        ("qwen3-30b-a3b", "h100_sxm", CHAT, ("bf16",)),
    ],
    ids=["dense-l40s", "dense-h100", "moe"],
)
def test_nothing_better_is_pruned(catalog, model, gpu, workload, precisions, sla) -> None:
    space = space_of(catalog, model, workload, AGG, precisions=precisions, widest=8, **sla)
    accelerator = catalog.accelerator(gpu)
    truth = oracle(accelerator, space)
    found = {c.accelerators: c.capacity_requests_per_s for c in find_candidates(accelerator, space, (8,)).candidates}
    assert (max(truth.values(), default=0.0) > 0) == bool(found)
    for size, rate in found.items():
        assert rate == pytest.approx(truth[size], rel=1e-3), f"{size} accelerators"
    best = max((rate * replicas_per_unit(size, 8) for size, rate in found.items()), default=0.0)
    for size, rate in truth.items():
        # What was left out does not beat what was kept, on the unit that is on offer.
        assert rate * replicas_per_unit(size, 8) <= best * 1.001, f"{size} accelerators"
        smaller = [r * replicas_per_unit(s, 8) for s, r in found.items() if s < size]
        if size not in found and rate > 0:
            assert rate * replicas_per_unit(size, 8) <= max(smaller, default=0.0) * 1.001, f"{size} accelerators"


@pytest.mark.parametrize("sla", SLAS, ids=["p99", "ttft", "e2e", "mean"])
@pytest.mark.parametrize(
    ("model", "gpu", "precision", "workload"),
    [
        ("qwen3-8b", "l40s", "fp8", CHAT),
        ("deepseek-r1", "gb300_nvl72", "fp8", CHAT),
        ("gpt-oss-120b", "b200_sxm", "mxfp4", LONG),  # prompts of four chunks of 2,048: TPOT bends at a chunk a step
    ],
    ids=["dense", "latent", "long"],
)
def test_bounds_are_bounds(catalog, model, gpu, precision, workload, sla) -> None:
    """No capacity that the queueing model grants is above the screening's bound."""
    space = space_of(catalog, model, workload, AGG, precisions=(precision,), widest=16, **sla)
    for family in families_of(catalog.accelerator(gpu), space):
        screened = screen(family, setups(family, 16, role="agg"), workload, space.limits, prefill=True)
        chosen = screened.setups
        for row in range(0, len(chosen), max(len(chosen) // 25, 1)):
            deployment = deployment_of(
                family,
                space,
                layout=layout_of(chosen, row),
                speculation_depth=int(chosen.depth[row]),
                chunk_tokens=int(chosen.chunk_tokens[row]),
            )
            profile = capped_profile(family, deployment, workload, space.limits, int(screened.most[row]))
            if profile is not None:
                assert capacity(profile, space.limits) <= screened.bound_requests_per_s[row] * (1 + 1e-9)


@pytest.mark.parametrize(("model", "gpu"), [("deepseek-r1", "h200_sxm"), ("llama-3.1-70b", "h100_sxm")])
@pytest.mark.parametrize("role", ["agg", "decode"])
def test_sharing_decode_steps_changes_nothing(catalog, model, gpu, role) -> None:
    """Also where some set-ups do not fit, so that rows of the shared steps are not those of the set-ups."""
    space = space_of(catalog, model, CHAT, (*AGG, *DISAGG), widest=16, tpot_ms=50, ttft_ms=3000, statistic="p90")
    missing = 0
    for family in families_of(catalog.accelerator(gpu), space):
        chosen, ask = setups(family, 16, role=role), {"prefill": role == "agg"}
        decoders = setups(family, 16, role="decode")
        alone = screen(family, chosen, CHAT, space.limits, **ask)
        shared = screen(family, chosen, CHAT, space.limits, **ask, decode=decode_steps(family, decoders, CHAT))
        missing += alone.did_not_fit
        assert np.array_equal(alone.bound_requests_per_s, shared.bound_requests_per_s)
        assert np.array_equal(alone.most, shared.most)
        assert np.array_equal(alone.setups.chunk_tokens, shared.setups.chunk_tokens)
        assert alone.missed_limits == shared.missed_limits
    assert missing > 0


# Curves over the batch whose crossing of 1 is known on paper, and how they bend.
CURVES = {
    "straight": (lambda g: g / 50.0, 50.0),
    "down": (lambda g: np.sqrt(g / 50.0), 50.0),
    "up": (lambda g: np.hypot(0.6, g / 75.0), 60.0),  # 0.36 + (60/75)^2 = 1
    "corner": (lambda g: 0.8 + g / 250.0 + np.maximum(g - 40.0, 0.0) / 50.0, 1000.0 / 24.0),  # 1.2·g/50 = 1
    "at once": (lambda g: 0.2 + 0.0 * g + np.maximum(g - 1.0, 0.0), 1.8),
    "at the end": (lambda g: g / 1000.0, 1000.0),
}


@pytest.mark.parametrize("bend", CURVES)
def test_a_crossing_is_never_too_early(bend: str) -> None:
    curve, true = CURVES[bend]
    found = Crossing(curve(BATCH_GRID)[None, :])
    crossed = float(found.between(BATCH_GRID[None, :])[0])
    next_point = BATCH_GRID[np.searchsorted(BATCH_GRID, true)]
    assert true * (1 - 1e-12) <= crossed <= next_point
    assert float(found.below(curve(BATCH_GRID)[None, :])[0]) <= curve(crossed) * (1 + 1e-12)
    assert int(found.count[0]) == (true >= BATCH_GRID).sum()
    if bend in ("straight", "corner", "at the end"):
        assert crossed == pytest.approx(true, rel=1e-9)  # one of the lines is the curve there


def test_rows_that_never_or_always_cross() -> None:
    size = BATCH_GRID.size
    found = Crossing(np.stack([np.full(size, 2.0), np.full(size, 0.5)]))
    assert found.between(np.stack([BATCH_GRID] * 2)).tolist() == [0.0, BATCH_GRID[-1]]
    assert found.below(np.stack([BATCH_GRID] * 2)).tolist() == [0.0, BATCH_GRID[-1]]
    assert found.count.tolist() == [0, size]


CASES = [
    ("qwen3-8b", "l40s", CHAT, AGG),
    ("qwen3-8b", "h100_sxm", LONG, DISAGG),
    ("qwen3-30b-a3b", "h100_sxm", CHAT, (*AGG, *DISAGG)),
    ("deepseek-r1", "gb300_nvl72", LONG, (*AGG, *DISAGG)),
    ("llama-3.1-70b", "mi300x", CHAT, AGG),
]


@pytest.mark.parametrize("sla", SLAS[:3], ids=["p99", "ttft", "e2e"])
@pytest.mark.parametrize(("model", "gpu", "workload", "modes"), CASES)
def test_every_candidate_keeps_its_promises(catalog, model, gpu, workload, modes, sla) -> None:
    space = space_of(catalog, model, workload, modes, kv=("bf16", "fp8"), **sla)
    accelerator = catalog.accelerator(gpu)
    report = find_candidates(accelerator, space, (accelerator.purchase_unit_size,))
    sizes = [c.accelerators for c in report.candidates]
    assert sizes == sorted(set(sizes))
    for c in report.candidates:
        d, family = c.deployment, c.family
        assert d.mode in modes
        # Limits hold at the capacity, and the load is at most 95 % of saturation.
        loaded = at_rate(c.profile, c.capacity_requests_per_s)
        assert space.limits.met_by(loaded)
        assert loaded.load <= 0.95 + 1e-9
        pools = [d.layout] if d.layout is not None else [d.prefill.layout, d.decode.layout]
        for layout in pools:
            assert family.model.heads % layout.tp == 0
            assert layout.tp <= accelerator.scale_up_size
            assert (layout.tp * layout.dp) % layout.ep == 0
            assert layout.ep <= max(family.model.experts, 1)
            assert layout.pp <= family.model.layers
        # Memory holds the running cap.
        layout, workers = (d.layout, 1) if d.layout is not None else (d.decode.layout, d.decode.workers)
        worker = Worker(
            tp=layout.tp,
            pp=layout.pp,
            ep=layout.ep,
            dp=layout.dp,
            depth=d.speculation_depth,
            accepted=float(family.accepted[d.speculation_depth]),
            chunk_tokens=d.chunk_tokens,
        )
        held = memory_slots(family.model, family.machine, worker, workload, prefill=d.layout is not None)
        assert d.max_running_requests <= held * workers
        assert d.max_running_requests == c.profile.slots * c.profile.workers
        # A full replica is still within the limit on TPOT.
        p = c.profile
        full = p.tpot_s[-1] + space.limits.safety * p.stall_s[-1] * math.sqrt(p.slots)
        assert full <= space.limits.tpot_s


def best_for_unit(report, unit: int) -> float:
    rates = (c.capacity_requests_per_s * replicas_per_unit(c.accelerators, unit) for c in report.candidates)
    return max(rates, default=0.0)


@pytest.mark.parametrize("limit", ["tpot_ms", "ttft_ms", "e2e_ms"])
@pytest.mark.parametrize(("model", "gpu", "workload", "modes"), CASES[:4])
def test_looser_limits_never_serve_less(catalog, model, gpu, workload, modes, limit) -> None:
    accelerator = catalog.accelerator(gpu)
    unit = accelerator.purchase_unit_size
    base = {"tpot_ms": 40.0, "ttft_ms": 4000.0, "e2e_ms": 60_000.0}
    last = 0.0
    for factor in (0.5, 0.8, 1.0, 1.3, 2.0, 4.0):
        space = space_of(catalog, model, workload, modes, **{**base, limit: base[limit] * factor})
        best = best_for_unit(find_candidates(accelerator, space, (unit,)), unit)
        assert best >= last * (1 - 1e-3), f"{limit} x {factor}"
        last = best
    assert last > 0


def every_pair(family, space, widest):
    """Capacity and bound of every pair of pools that could be made, by size: no bounds, no dominance."""
    decode = screen(family, setups(family, widest, role="decode"), space.workload, space.limits, prefill=False)
    chosen = setups(family, widest, role="prefill")
    prefills = chosen.pick(fitting(family, chosen, space.workload, role="prefill")[0])
    for p, d in itertools.product(range(len(prefills)), range(len(decode.setups))):
        sizes = int(prefills.accelerators[p]), int(decode.setups.accelerators[d])
        for x, y in itertools.product(range(1, MOST_WORKERS + 1), repeat=2):
            size = x * sizes[0] + y * sizes[1]
            if size > widest:
                continue
            deployment = deployment_of(
                family,
                space,
                mode=ServingMode.DISAGG,
                prefill=Pool(workers=x, layout=layout_of(prefills, p)),
                decode=Pool(workers=y, layout=layout_of(decode.setups, d)),
                speculation_depth=int(decode.setups.depth[d]),
                chunk_tokens=int(prefills.chunk_tokens[p]),
            )
            profile = capped_profile(family, deployment, space.workload, space.limits, int(decode.most[d]))
            yield size, deployment, 0.0 if profile is None else capacity(profile, space.limits)


@pytest.mark.parametrize(
    "sla", [*SLAS, {"tpot_ms": 60.0, "ttft_ms": 450.0}], ids=["p99", "ttft", "e2e", "mean", "tight"]
)
@pytest.mark.parametrize(
    ("model", "gpu", "workload", "widest"),
    [("qwen3-8b", "h100_sxm", LONG, 5), ("qwen3-8b", "l40s", CHAT, 4), ("qwen3-30b-a3b", "h100_sxm", LONG, 3)],
)
def test_no_better_pair_of_pools_exists(catalog, model, gpu, workload, widest, sla) -> None:
    """Every prefill worker with every decode worker in every number, evaluated; nothing of a size may serve more."""
    space = space_of(catalog, model, workload, DISAGG, precisions=("bf16",), widest=widest, **sla)
    accelerator = catalog.accelerator(gpu)
    truth: dict[int, float] = {}
    for family in families_of(accelerator, space):
        for size, _, rate in every_pair(family, space, widest):
            truth[size] = max(truth.get(size, 0.0), rate)
    found = {c.accelerators: c.capacity_requests_per_s for c in find_candidates(accelerator, space, (8,)).candidates}
    for size, rate in found.items():
        assert rate == pytest.approx(truth[size], rel=1e-6), f"{size} accelerators"
    for size, rate in truth.items():
        smaller = max((r * replicas_per_unit(n, 8) for n, r in found.items() if n <= size), default=0.0)
        assert rate * replicas_per_unit(size, 8) <= smaller * (1 + 1e-6), f"{size} accelerators"


@pytest.mark.parametrize("sla", SLAS, ids=["p99", "ttft", "e2e", "mean"])
def test_bounds_of_pairs_hold(catalog, sla) -> None:
    space = space_of(catalog, "qwen3-8b", LONG, DISAGG, precisions=("bf16",), widest=6, **sla)
    for family in families_of(catalog.accelerator("h100_sxm"), space):
        pair_bounds_hold(family, space)


def pair_bounds_hold(family, space) -> None:
    decode = screen(family, setups(family, 6, role="decode"), LONG, space.limits, prefill=False)
    pairs = pairing(prefills_of(family, LONG, space.limits, 6), decode, 6)
    seen = 0
    for size in sorted(pairs.sizes):
        rows = pairs.of_size(size, 0.0)
        for k in range(rows.bound_requests_per_s.size):
            p, d, x, y = (int(c[k]) for c in (rows.prefill, rows.decode, rows.prefill_workers, rows.decode_workers))
            assert x * pairs.prefills.accelerators[p] + y * pairs.decodes.accelerators[d] == size
            deployment = deployment_of(
                family,
                space,
                mode=ServingMode.DISAGG,
                prefill=Pool(workers=x, layout=layout_of(pairs.prefills, p)),
                decode=Pool(workers=y, layout=layout_of(pairs.decodes, d)),
                speculation_depth=int(pairs.decodes.depth[d]),
                chunk_tokens=int(pairs.prefills.chunk_tokens[p]),
            )
            profile = capped_profile(family, deployment, LONG, space.limits, int(decode.most[d]))
            rate = capacity(profile, space.limits) if profile is not None else 0.0
            assert rate <= rows.bound_requests_per_s[k] * (1 + 1e-9)
            seen += 1
        above = float(np.median(rows.bound_requests_per_s)) if seen else 0.0
        assert (pairs.of_size(size, above).bound_requests_per_s > above).all()
    assert seen > 0


def test_the_same_search_answers_the_same(catalog) -> None:
    space = space_of(catalog, "qwen3-30b-a3b", CHAT, (*AGG, *DISAGG), tpot_ms=40.0, ttft_ms=3000.0)
    accelerator = catalog.accelerator("h100_sxm")
    one, two = (find_candidates(accelerator, space, (8,)) for _ in range(2))
    assert [(c.deployment, c.capacity_requests_per_s) for c in one.candidates] == [
        (c.deployment, c.capacity_requests_per_s) for c in two.candidates
    ]


def test_impossible_limits_find_nothing_and_say_what_was_fastest(catalog) -> None:
    accelerator = catalog.accelerator("l40s")
    report = find_candidates(accelerator, space_of(catalog, "qwen3-8b", CHAT, AGG, tpot_ms=0.5), (8,))
    assert report.candidates == []
    assert 0.0005 < report.fastest_tpot_s < math.inf
    report = find_candidates(accelerator, space_of(catalog, "qwen3-8b", CHAT, AGG, ttft_ms=0.5), (8,))
    assert report.candidates == []
    assert 0.0005 < report.fastest_first_token_s < math.inf


def test_what_does_not_fit_is_counted(catalog) -> None:
    report = find_candidates(
        catalog.accelerator("l4"), space_of(catalog, "deepseek-r1", CHAT, AGG, widest=8, tpot_ms=1e6), (8,)
    )
    assert report.candidates == []
    assert report.did_not_fit == report.considered > 0


@pytest.mark.parametrize(
    ("size", "unit", "share"), [(1, 8, 8.0), (3, 8, 2.0), (8, 8, 1.0), (16, 8, 0.5), (9, 8, 0.5), (72, 72, 1.0)]
)
def test_replicas_a_unit(size: int, unit: int, share: float) -> None:
    assert replicas_per_unit(size, unit) == share
    assert np.isfinite(share)


@pytest.mark.parametrize(
    ("model", "gpu", "workload"),
    [("qwen3-8b", "h100_sxm", CHAT), ("qwen3-30b-a3b", "h100_sxm", LONG), ("deepseek-r1", "h200_sxm", CHAT)],
)
def test_budgets_that_prompts_never_fill_have_a_twin_that_serves_the_same(catalog, model, gpu, workload) -> None:
    space = space_of(catalog, model, workload, AGG, widest=8, tpot_ms=50, ttft_ms=3000)
    dropped = 0
    for family in families_of(catalog.accelerator(gpu), space):
        chosen = setups(family, 8, role="agg")
        fits, slots = fitting(family, chosen, workload, role="agg")
        (rows,) = np.nonzero(needless(chosen, slots, workload) & fits)
        dropped += rows.size
        for row in rows[:: max(rows.size // 6, 1)]:
            same, twin = (worker_of(chosen, each) for each in (row, row - 1))
            assert replace(same, chunk_tokens=twin.chunk_tokens) == twin and twin.chunk_tokens < same.chunk_tokens
            assert slots[row - 1] >= slots[row]
            profiles = [
                aggregated_profile(family.model, family.machine, each, workload, slots=int(slots[row]))
                for each in (same, twin)
            ]
            for figure in ("requests_per_s", "tpot_s", "stall_s", "prompt_s"):
                np.testing.assert_allclose(*(getattr(each, figure) for each in profiles), rtol=1e-12)
    assert dropped > 0


def test_batches_beyond_what_set_ups_hold_are_not_tried(catalog) -> None:
    """Nor does leaving them out change a bound, a cap or what is found."""
    space = space_of(catalog, "deepseek-r1", LONG, AGG, widest=8, tpot_ms=50, ttft_ms=3000)
    (family, *_) = families_of(catalog.accelerator("h200_sxm"), space)
    chosen = setups(family, 8, role="agg")
    fits, slots = fitting(family, chosen, LONG, role="agg")
    kept, held = chosen.pick(fits), slots[fits]
    few = batches_for(held, kept)
    assert few < batches_up_to(family.framework.max_running_requests)
    assert BATCH_GRID[few - 3] >= (held / (kept.dp * kept.pp)).max()
    _, state = grid_state(family, kept, workload_lengths(LONG), BATCH_GRID.size, prefill=True)
    assert (np.asarray(state.in_service)[:, few - 2 :] > held[:, None]).all()


def test_frameworks_run_as_many_sequences_as_they_say(catalog) -> None:
    short = Workload(name="short", input_tokens=64, output_tokens=64, input_cv=0.0, output_cv=0.0)
    names = ("vllm", "tensorrt-llm", "sglang")
    space = space_of(catalog, "qwen3-0.6b", short, AGG, frameworks=names, widest=1, tpot_ms=1000, ttft_ms=60_000)
    limits = set()
    for family in families_of(catalog.accelerator("h200_sxm"), space):
        chosen = setups(family, 1, role="agg")
        _, slots = fitting(family, chosen, short, role="agg")
        assert slots.max() <= family.framework.max_running_requests
        limits.add(slots.max())
    assert limits == {1024.0, 2048.0, 4096.0}
