"""Collectives: the ring formula, copies of a token against random draws, and what leaves the domain."""

from dataclasses import replace

import numpy as np
import pytest

from tokopt.perf.collectives import all_reduce_s, all_to_all_s, point_to_point_s, scale_up_share


def test_ring_all_reduce(ideal) -> None:
    assert float(all_reduce_s(ideal, 8.0)(1e6)) == pytest.approx(2 * 7 / 8 * 1e6 / 4e11 + 1.4e-5, rel=1e-12)
    assert float(all_reduce_s(ideal, 2.0)(1e6)) == pytest.approx(1e6 / 4e11 + 1e-5, rel=1e-12)


def test_latency_grows_with_every_doubling_inside_the_domain(ideal) -> None:
    # A fifth of it for 4, two fifths for 8; links outside have a latency of their own, whatever the group.
    groups = np.array([1.0, 2.0, 4.0, 8.0, 16.0, 64.0])
    assert all_reduce_s(ideal, groups)(0.0) == pytest.approx([0.0, 1e-5, 1.2e-5, 1.4e-5, 3e-5, 3e-5], rel=1e-12)
    wide = replace(ideal, scale_up_size=72)
    assert float(all_reduce_s(wide, 64.0)(0.0)) == pytest.approx(2e-5, rel=1e-12)
    assert float(all_reduce_s(replace(wide, latency_growth=0.0), 64.0)(0.0)) == pytest.approx(1e-5, rel=1e-12)


def test_an_exchange_has_its_own_latency_inside_the_domain(ideal) -> None:
    ask = {"choices": 8.0, "bytes_per_token": 1e4, "slices": 1.0}
    assert float(all_to_all_s(ideal, group=8.0, **ask)(0.0)) == pytest.approx(2 * 2e-5, rel=1e-12)
    assert float(all_to_all_s(ideal, group=16.0, **ask)(0.0)) == pytest.approx(2 * 3e-5, rel=1e-12)


def test_a_group_of_one_has_nothing_to_reduce(ideal) -> None:
    assert float(all_reduce_s(ideal, 1.0)(1e9)) == 0.0
    assert float(all_to_all_s(ideal, group=1.0, choices=8.0, bytes_per_token=1e4, slices=1.0)(5.0)) == 0.0


def test_a_group_beyond_the_domain_runs_at_its_slow_links(ideal) -> None:
    assert float(all_reduce_s(ideal, 16.0)(1e6)) == pytest.approx(2 * 15 / 16 * 1e6 / 5e10 + 3e-5, rel=1e-12)


def test_unknown_scale_out_is_not_a_number(ideal) -> None:
    lonely = replace(ideal, scale_out_bytes_per_s=0.0)
    assert np.isnan(all_reduce_s(lonely, 16.0)(1e6))
    assert np.isfinite(all_reduce_s(lonely, 8.0)(1e6))


def test_a_mesh_only_has_the_links_to_its_members(ideal) -> None:
    mesh = replace(ideal, scale_up_mesh=1.0)
    assert [float(scale_up_share(mesh, g)) for g in (2.0, 4.0, 8.0)] == pytest.approx([1 / 7, 3 / 7, 1.0])
    assert scale_up_share(ideal, 2.0) == 1.0
    assert float(all_reduce_s(mesh, 2.0)(1e6)) == pytest.approx(1e6 / (4e11 / 7) + 1e-5, rel=1e-12)
    assert float(all_reduce_s(mesh, 8.0)(1e6)) == pytest.approx(float(all_reduce_s(ideal, 8.0)(1e6)), rel=1e-12)


def copies_by_draws(group: int, domain: int, choices: int) -> tuple[float, float]:
    """Distinct other accelerators, and distinct other domains, that a token of accelerator 0 goes to."""
    rng = np.random.default_rng(11)
    drawn = rng.integers(group, size=(40_000, choices))
    drawn.sort(axis=1)
    new = np.concatenate([np.ones((len(drawn), 1), dtype=bool), np.diff(drawn, axis=1) > 0], axis=1)
    near = (new & (drawn != 0)).sum(axis=1).mean()
    homes = drawn // domain
    fresh = np.concatenate([np.ones((len(drawn), 1), dtype=bool), np.diff(homes, axis=1) > 0], axis=1)
    return float(near), float((fresh & (homes != 0)).sum(axis=1).mean())


@pytest.mark.parametrize(("group", "choices"), [(2, 8), (4, 2), (8, 8), (8, 1)])
def test_copies_inside_the_domain_against_draws(ideal, group: int, choices: int) -> None:
    silent = replace(ideal, exchange_latency_s=0.0, scale_out_latency_s=0.0)
    seconds = all_to_all_s(silent, group=float(group), choices=float(choices), bytes_per_token=2e4, slices=1.0)(10.0)
    near, _ = copies_by_draws(group, 8, choices)
    assert float(seconds) * 4e11 / (10 * 2e4) == pytest.approx(near, rel=0.02)


@pytest.mark.parametrize(("group", "choices"), [(16, 8), (32, 8), (64, 8), (32, 2)])
def test_copies_across_domains_against_draws(ideal, group: int, choices: int) -> None:
    # Slow links outside: they bound the time.
    slow = replace(ideal, exchange_latency_s=0.0, scale_out_latency_s=0.0, scale_out_bytes_per_s=1e9)
    seconds = all_to_all_s(slow, group=float(group), choices=float(choices), bytes_per_token=2e4, slices=1.0)(10.0)
    _, far = copies_by_draws(group, 8, choices)
    assert float(seconds) * 1e9 / (10 * 2e4) == pytest.approx(far, rel=0.02)


def test_every_slice_of_an_expert_needs_its_copy_and_latency_is_paid_twice(ideal) -> None:
    def seconds(tokens: float, slices: float) -> float:
        return float(all_to_all_s(ideal, group=4.0, choices=8.0, bytes_per_token=1e4, slices=slices)(tokens))

    assert seconds(0.0, 1.0) == pytest.approx(4e-5)
    assert seconds(100.0, 2.0) - 4e-5 == pytest.approx(2 * (seconds(100.0, 1.0) - 4e-5))


def test_a_larger_domain_beats_a_smaller_one(ideal) -> None:
    """This is what an NVL72 buys: the same 64-way exchange without scale-out links."""
    wide = replace(ideal, scale_up_size=72)
    ask = {"group": 64.0, "choices": 8.0, "bytes_per_token": 2e4, "slices": 1.0}
    assert float(all_to_all_s(wide, **ask)(64.0)) < float(all_to_all_s(ideal, **ask)(64.0)) / 2


def test_hand_over_to_the_next_stage(ideal) -> None:
    assert float(point_to_point_s(ideal, worker=8.0)(1e6)) == pytest.approx(1e-5 + 1e6 / 4e11)
    assert float(point_to_point_s(ideal, worker=16.0)(1e6)) == pytest.approx(3e-5 + 1e6 / 5e10)
