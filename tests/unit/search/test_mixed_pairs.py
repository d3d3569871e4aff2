"""Pairs of pools on two accelerators: nothing better of any size exists, and what is ruled out is beaten."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tokopt.catalog import Catalog
from tokopt.domain.deployments import Pool, ServingMode
from tokopt.domain.features import Feature
from tokopt.domain.workloads import Workload
from tokopt.perf.queueing import Limits, capacity
from tokopt.search import Alone, SearchReport, SearchSpace, Side, Weight, find_candidates, find_mixed, standing_mixed
from tokopt.search.candidates import Apart, capped_profile
from tokopt.search.pools import MOST_WORKERS
from tokopt.search.screening import fitting, screen
from tokopt.search.setups import layout_of, setups
from tokopt.search.space import deployment_of

LONG = Workload(name="long", input_tokens=4000.0, output_tokens=300.0, input_cv=0.6, output_cv=0.8)
WIDEST = 4
Sizes = dict[tuple[int, int], float]


def space_of(catalog: Catalog, **limits: float | str) -> SearchSpace:
    return SearchSpace(
        llm=catalog.llms["qwen3-8b"],
        workload=LONG,
        limits=Limits(**{"tpot_s": 0.05, "ttft_s": 3.0, "e2e_s": math.inf, "statistic": "p99", **limits}),
        frameworks=(catalog.frameworks["vllm"], catalog.frameworks["sglang"]),
        precisions=(catalog.precisions["bf16"],),
        kv_bits={"bf16": catalog.kv_precisions["bf16"].bits},
        modes=(ServingMode.DISAGG,),
        calibration=catalog.calibration,
        widest=WIDEST,
    )


def reports(catalog: Catalog, space: SearchSpace) -> dict[str, SearchReport]:
    return {name: find_candidates(catalog.accelerators[name], space, (8,)) for name in ("h100_sxm", "h200_sxm")}


def every_pair(prefill: Apart, decode: Apart, space: SearchSpace) -> Iterator[tuple[tuple[int, int], float]]:
    """Yield the capacity of every pair of pools that could be made, by accelerators of each: no bound, no short cut."""
    family, sending = decode.family, prefill.family
    decodes = screen(family, setups(family, WIDEST, role="decode"), LONG, space.limits, prefill=False)
    chosen = setups(sending, WIDEST, role="prefill")
    prefills = chosen.pick(fitting(sending, chosen, LONG, role="prefill")[0])
    for p, d in itertools.product(range(len(prefills)), range(len(decodes.setups))):
        sizes = int(prefills.accelerators[p]), int(decodes.setups.accelerators[d])
        for x, y in itertools.product(range(1, MOST_WORKERS + 1), repeat=2):
            if x * sizes[0] + y * sizes[1] > WIDEST:
                continue
            deployment = deployment_of(
                family,
                space,
                mode=ServingMode.DISAGG,
                prefill=Pool(workers=x, layout=layout_of(prefills, p), accelerator=sending.accelerator.name),
                decode=Pool(workers=y, layout=layout_of(decodes.setups, d), accelerator=family.accelerator.name),
                speculation_depth=int(decodes.setups.depth[d]),
                chunk_tokens=int(prefills.chunk_tokens[p]),
            )
            most = int(decodes.most[d])
            profile = capped_profile(family, deployment, LONG, space.limits, most, sending=sending)
            yield (x * sizes[0], y * sizes[1]), 0.0 if profile is None else capacity(profile, space.limits)


def truth(prefill: SearchReport, decode: SearchReport, space: SearchSpace) -> Sizes:
    best: Sizes = {}
    for first, second in itertools.product(prefill.apart, decode.apart):
        if first.kind == second.kind:
            for size, rate in every_pair(first, second, space):
                best[size] = max(best.get(size, 0.0), rate)
    return {size: rate for size, rate in best.items() if rate > 0.0}


@pytest.mark.parametrize(
    "limits", [{}, {"ttft_s": 0.6}, {"e2e_s": 15.0}, {"statistic": "mean"}], ids=["p99", "tight", "e2e", "mean"]
)
@pytest.mark.parametrize(("a", "b"), [("h100_sxm", "h200_sxm"), ("h200_sxm", "h100_sxm")])
def test_no_better_pair_exists(catalog: Catalog, limits: dict[str, float | str], a: str, b: str) -> None:
    space = space_of(catalog, **limits)
    found = reports(catalog, space)
    best = truth(found[a], found[b], space)
    mixed = find_mixed(Side(found[a].apart, WIDEST), Side(found[b].apart, WIDEST), space)
    rates = {
        (c.deployment.prefill.accelerators, c.deployment.decode.accelerators): c.capacity_requests_per_s
        for c in mixed.candidates
        if c.deployment.prefill is not None and c.deployment.decode is not None
    }
    assert rates == pytest.approx(best, rel=1e-6)
    for c in mixed.candidates:
        assert (c.deployment.prefill_accelerator, c.deployment.accelerator) == (a, b)


def test_what_is_left_out_is_beaten(catalog: Catalog) -> None:
    """By the same accelerators apart, or by what costs no more a request elsewhere."""
    space = space_of(catalog)
    found = reports(catalog, space)
    a, b = (Side(found[name].apart, WIDEST) for name in ("h100_sxm", "h200_sxm"))
    every = {_size(c): c.capacity_requests_per_s for c in find_mixed(a, b, space).candidates}
    rate = sorted(r / (2 * x + 3 * y) for (x, y), r in every.items())[len(every) // 2]
    weight = Weight(prefill=2.0, decode=3.0, reached=1.0 / rate)
    light = {_size(c) for c in find_mixed(a, b, space, weights=[weight]).candidates}
    assert light == {size for size, r in every.items() if (2 * size[0] + 3 * size[1]) / r < weight.reached}
    alone = Alone(prefill=rate * 2, decode=rate * 3)
    better = {_size(c) for c in find_mixed(a, b, space, alone=alone).candidates}
    assert better == {(x, y) for (x, y), r in every.items() if r > alone.prefill * x + alone.decode * y}
    assert 0 < len(light) < len(every)


def _size(candidate) -> tuple[int, int]:
    return candidate.deployment.prefill.accelerators, candidate.deployment.decode.accelerators


def test_a_set_up_that_is_given_is_evaluated_alike(catalog: Catalog) -> None:
    space = space_of(catalog)
    found = reports(catalog, space)
    a, b = (Side(found[name].apart, WIDEST) for name in ("h100_sxm", "h200_sxm"))
    for candidate in find_mixed(a, b, space).candidates:
        again = standing_mixed(a, b, space, candidate.deployment)
        assert again is not None
        assert again.capacity_requests_per_s == pytest.approx(candidate.capacity_requests_per_s, rel=1e-6)


def test_what_runs_today_does_without_what_the_request_disables(catalog: Catalog) -> None:
    """A fleet's file knows nothing of it: prompts are whole, and the deployment says so."""
    space = replace(space_of(catalog), disabled=frozenset({Feature.CHUNKED_PREFILL}))
    found = reports(catalog, space)
    a, b = (Side(found[name].apart, WIDEST) for name in ("h100_sxm", "h200_sxm"))
    candidate = find_mixed(a, b, space).candidates[0]
    stale = candidate.deployment.model_copy(update={"without": (), "chunk_tokens": 2048})
    again = standing_mixed(a, b, space, stale)
    assert again is not None and again.deployment.without == (Feature.CHUNKED_PREFILL,)
    assert again.deployment.chunk_tokens >= LONG.input_tokens


def test_pools_without_links_or_software_in_common_are_not_paired(catalog: Catalog) -> None:
    space = space_of(catalog)
    found = reports(catalog, space)
    a, b = found["h100_sxm"].apart, found["h200_sxm"].apart
    cut = [
        replace(each, family=replace(each.family, machine=replace(each.family.machine, scale_out_bytes_per_s=0.0)))
        for each in a
    ]
    assert not find_mixed(Side(cut, WIDEST), Side(b, WIDEST), space).candidates
    one = [each for each in a if each.family.framework.name == "vllm"]
    other = [each for each in b if each.family.framework.name == "sglang"]
    assert one and other
    assert not find_mixed(Side(one, WIDEST), Side(other, WIDEST), space).candidates
