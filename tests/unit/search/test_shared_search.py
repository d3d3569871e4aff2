"""A search that is shared between price lists gives what each would have found by itself, to the last digit."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tokopt.api.requests import limits_of
from tokopt.api.space import search_space
from tokopt.catalog import Catalog
from tokopt.domain.workloads import Sla
from tokopt.search import SearchSpace, SharedSearch, find_candidates
from tokopt.search.candidates import choose, prepare

UNITS = [(8,), (1,), (1, 2, 4, 8), (4,), (2, 12, 24), (72,), (8,), (1, 8)]


def space_of(catalog: Catalog, model: str = "llama-3.1-8b", tpot_ms: float = 30.0) -> SearchSpace:
    return search_space(
        catalog,
        llm=catalog.llm(model),
        workload=catalog.workload("chat"),
        sla=Sla(tpot_ms=tpot_ms, ttft_ms=1000.0),
        frameworks=(),
        precisions=(),
        kv_precisions=(),
        modes=(),
    )


@pytest.mark.parametrize("gpu", ["h100_sxm", "l4", "mi300x"])
@pytest.mark.parametrize("tpot_ms", [15.0, 60.0, 0.01])
def test_every_set_of_units_gets_its_own_answer(catalog: Catalog, gpu: str, tpot_ms: float) -> None:
    space, accelerator = space_of(catalog, tpot_ms=tpot_ms), catalog.accelerator(gpu)
    search = SharedSearch()
    for units in UNITS:
        shared, alone = search(accelerator, space, units), find_candidates(accelerator, space, units)
        assert shared.evaluated == alone.evaluated and shared.considered == alone.considered
        assert shared.did_not_fit == alone.did_not_fit and shared.missed_limits == alone.missed_limits
        assert [(c.deployment, c.capacity_requests_per_s) for c in shared.candidates] == [
            (c.deployment, c.capacity_requests_per_s) for c in alone.candidates
        ]
    assert search.screenings == 1


def test_units_matter_so_that_there_is_something_to_get_wrong(catalog: Catalog) -> None:
    space, accelerator = space_of(catalog, "llama-3.1-70b"), catalog.accelerator("h100_sxm")
    found = {units: find_candidates(accelerator, space, units) for units in [(8,), (1, 2, 4, 8)]}
    sizes = {units: [c.accelerators for c in report.candidates] for units, report in found.items()}
    assert sizes[8,] != sizes[1, 2, 4, 8] or found[8,].evaluated != found[1, 2, 4, 8].evaluated


@pytest.mark.parametrize("most_slots", [0, 1, 50, 10**9])
def test_how_many_profiles_are_kept_changes_nothing(catalog: Catalog, most_slots: int) -> None:
    space, accelerator = space_of(catalog), catalog.accelerator("h100_sxm")
    prepared = prepare(accelerator, space, most_slots=most_slots)
    for units in [(8,), (1, 2, 4, 8), (8,)]:
        kept, alone = choose(prepared, units), find_candidates(accelerator, space, units)
        assert [c.capacity_requests_per_s for c in kept.candidates] == [
            c.capacity_requests_per_s for c in alone.candidates
        ]
    assert prepared.kept_slots <= most_slots
    assert len(prepared.kept) <= most_slots
    assert prepared.kept or most_slots < 10**9


def test_spaces_and_accelerators_are_told_apart_by_all_that_they_say(catalog: Catalog) -> None:
    search = SharedSearch()
    accelerator = catalog.accelerator("h100_sxm")
    spaces = [space_of(catalog, tpot_ms=t) for t in (20.0, 21.0, 22.0)]
    slower = replace(spaces[0], calibration=catalog.calibration.slower(0.3))
    for space in (*spaces, slower, spaces[0]):
        shared, alone = search(accelerator, space, (8,)), find_candidates(accelerator, space, (8,))
        assert [c.capacity_requests_per_s for c in shared.candidates] == [
            c.capacity_requests_per_s for c in alone.candidates
        ]
    assert search.screenings == 5  # the first space was forgotten in between
    search(accelerator, slower, (1,))
    assert search.screenings == 5
    smaller = replace(accelerator, memory_bytes=accelerator.memory_bytes * 0.9)
    shared, alone = search(smaller, slower, (8,)), find_candidates(smaller, slower, (8,))
    assert search.screenings == 6
    assert [c.deployment for c in shared.candidates] == [c.deployment for c in alone.candidates]


def test_limits_are_in_seconds(catalog: Catalog) -> None:
    assert space_of(catalog, tpot_ms=20.0).limits == limits_of(Sla(tpot_ms=20.0, ttft_ms=1000.0))
