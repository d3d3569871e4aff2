"""Where prompts repeat: bounds on what caches find, and the search against settling every set-up."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from tokopt.api.reuse import with_reuse
from tokopt.api.space import search_space
from tokopt.catalog import Catalog
from tokopt.domain.caching import Reuse
from tokopt.domain.deployments import ServingMode
from tokopt.domain.features import Feature
from tokopt.domain.workloads import Sla, Workload
from tokopt.perf.queueing import capacity
from tokopt.search import find_candidates
from tokopt.search.caching import settled
from tokopt.search.candidates import Prepared, prepare
from tokopt.search.leads import Aggregated
from tokopt.search.space import Fleet, SearchSpace

PLAIN = Workload(name="talk", input_tokens=6000.0, output_tokens=300.0)
TALK = with_reuse(PLAIN, Reuse(shared_tokens=2000.0, shared_prefixes=60.0, turns=5.0, turn_gap_s=60.0))
FLEETS = {"demand": Fleet(requests_per_s=40.0), "power": Fleet(power_w=60_000.0), "unknown": Fleet()}


def space_of(
    catalog: Catalog, modes: tuple[ServingMode, ...], fleet: Fleet, disabled: tuple[Feature, ...]
) -> SearchSpace:
    space = search_space(
        catalog,
        llm=catalog.llm("llama-3.1-8b"),
        workload=TALK,
        sla=Sla(tpot_ms=25.0, ttft_ms=2500.0),
        frameworks=("vllm",),
        precisions=("bf16",),
        kv_precisions=("bf16",),
        modes=modes,
        disabled=(*disabled, Feature.EAGLE3, Feature.DRAFT_MODEL, Feature.NGRAM),
    )
    return replace(space, fleet=fleet, widest=4)


def every_setup(prepared: Prepared, space: SearchSpace):
    """Yield (lead, row, deployment, most) of all that was screened, whatever its bound."""
    for lead in prepared.leads:
        for size in sorted(lead.sizes):
            for row in lead.of_size(size, 0.0)[0].tolist():
                yield lead, row, *lead.setup(row)


ROUTERS = {"kv-aware": (), "by chance": (Feature.KV_ROUTING,), "no offload": (Feature.KV_OFFLOAD,)}
CASES = [
    (modes, fleet, router)
    for modes, fleet, router in itertools.product((ServingMode.AGG, ServingMode.DISAGG), FLEETS, ROUTERS)
    if modes is ServingMode.AGG or fleet == "demand"
]


@pytest.mark.parametrize(("mode", "fleet", "router"), CASES)
def test_no_setup_is_above_its_bound_and_none_better_is_left_out(
    catalog: Catalog, mode: ServingMode, fleet: str, router: str
) -> None:
    space = space_of(catalog, (mode,), FLEETS[fleet], ROUTERS[router])
    accelerator = catalog.accelerator("h100_sxm")
    prepared = prepare(accelerator, space)
    best: dict[int, float] = {}
    for lead, row, deployment, most in every_setup(prepared, space):
        chosen, profile = settled(lead.family, space, deployment, most)
        rate = capacity(profile, space.limits) if profile is not None else 0.0
        size = deployment.accelerators
        best[size] = max(best.get(size, 0.0), rate)
        rows, endless = lead.of_size(size, 0.0)
        at = np.flatnonzero(rows == row)
        for share in (0.25, 0.8, 0.999):
            bound = lead.with_caches(rows[at], endless[at], share * rate)
            assert rate <= bound[0] <= endless[at][0], (chosen, share)
    assert len(best) >= 2 and any(best.values())
    found = {
        c.accelerators: c.capacity_requests_per_s for c in find_candidates(accelerator, space, (1, 2, 4)).candidates
    }
    assert found
    for size, rate in found.items():
        assert rate == pytest.approx(best[size], rel=1e-9)
    reached = max(rate / size for size, rate in found.items())
    assert reached == pytest.approx(max(rate / size for size, rate in best.items()), rel=1e-9)


def test_bounds_fall_with_the_rate_that_is_to_be_beaten_and_bite(catalog: Catalog) -> None:
    """Of prompts of many conversations a cache keeps fewer the more of them there are."""
    busy = with_reuse(PLAIN, Reuse(turns=6.0, turn_gap_s=600.0))
    space = replace(space_of(catalog, (ServingMode.AGG,), Fleet(), (Feature.KV_OFFLOAD,)), workload=busy)
    (lead, *_) = prepare(catalog.accelerator("h100_sxm"), space).leads
    assert isinstance(lead, Aggregated)
    rows, endless = lead.of_size(1, 0.0)
    bounds = [lead.with_caches(rows, endless, float(above)) for above in (0.0, 0.5, 2.0, 8.0)]
    for lower, higher in itertools.pairwise(reversed(bounds)):
        assert (lower <= higher * (1.0 + 1e-12)).all()
    assert (bounds[-1] < 0.8 * endless).any()
