"""Power drawn: ends of the range, measured points, and what the catalog does not know."""

from dataclasses import replace

import numpy as np
import pytest

from tokopt.perf.constants import constants_for
from tokopt.perf.describe import replica_drawn_w
from tokopt.perf.power import drawn_w

H200 = {"idle_w": 75.0, "board_w": 700.0, "server_w": 1275.0}


@pytest.fixture(scope="module")
def shares(catalog):
    """The embedded constants of a kind of deployment, which all have the same shares of power."""
    return constants_for(
        catalog.calibration,
        catalog.accelerator("h200_sxm"),
        catalog.framework("vllm"),
        catalog.precision("bf16"),
        "llama-3.1-8b",
    )


def test_on_paper(ideal) -> None:
    """Shares of 0.4, 0.9 and 0.5: at c = 0.6, traffic takes 0.8 of a step, and 0.4 · 0.8 + 0.9 · 0.6 = 0.86."""
    assert drawn_w(ideal, **H200, busy=0.0, compute_share=0.5) == pytest.approx(75 + 0.5 * 575)
    assert drawn_w(ideal, **H200, busy=1.0, compute_share=0.0) == pytest.approx(75 + 625 * 0.4 + 0.5 * 575)
    assert drawn_w(ideal, **H200, busy=1.0, compute_share=1.0) == pytest.approx(75 + 625 * 0.9 + 0.5 * 575)
    assert drawn_w(ideal, **H200, busy=0.5, compute_share=0.6) == pytest.approx(75 + 0.5 * 625 * 0.86 + 0.5 * 575)


def test_a_board_never_draws_more_than_its_limit(ideal) -> None:
    """At c = 0.9 the shares add up to more than one: 0.4 · 0.436 + 0.9 · 0.9 = 0.98; with 0.6 to 1.07."""
    greedy = replace(ideal, memory_bound_power_share=0.6)
    assert drawn_w(greedy, **H200, busy=1.0, compute_share=0.9) == pytest.approx(700 + 0.5 * 575)


def test_measured_boards(shares) -> None:
    """Decode on an H200 draws 137 to 300 W of 700 (arXiv 2605.11999), large batches reach 660 W; boards alone."""
    board = {"idle_w": 75.0, "board_w": 700.0, "server_w": 700.0}
    # The range is over batches; with its memory never idle a board is near its upper end.
    assert 250.0 < drawn_w(shares, **board, busy=1.0, compute_share=0.0) < 300.0
    assert drawn_w(shares, **board, busy=1.0, compute_share=1.0) == pytest.approx(660.0, rel=0.05)


def test_a_capped_h200_server_under_mlperf(shares) -> None:
    """Eight H200 capped to 500 W draw 6.15 to 6.28 kW at the wall (MLPerf v4.1)."""
    each = drawn_w(shares, idle_w=500.0, board_w=500.0, server_w=500.0 + 575.0, busy=1.0, compute_share=0.7)
    assert 8 * each == pytest.approx(6_216, rel=0.03)


@pytest.mark.parametrize("busy", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("share", [0.0, 0.4, 0.7])
def test_between_idle_and_nameplate(shares, busy: float, share: float) -> None:
    drawn = drawn_w(shares, **H200, busy=busy, compute_share=share)
    assert 75 <= drawn <= 1275
    assert drawn <= drawn_w(shares, **H200, busy=1.0, compute_share=share)
    assert drawn <= drawn_w(shares, **H200, busy=busy, compute_share=0.8)


def test_arrays_are_rows(shares) -> None:
    busy, share = np.array([0.2, 1.0]), np.array([0.9, 0.1])
    rows = drawn_w(shares, **H200, busy=busy, compute_share=share)
    for row in range(2):
        assert rows[row] == drawn_w(shares, **H200, busy=busy[row], compute_share=share[row])


def test_a_replica_is_its_accelerators(catalog, ideal) -> None:
    h100 = catalog.accelerator("h100_sxm")
    one = replica_drawn_w(h100, ideal, accelerators=1, busy=0.5, compute_share=0.5)
    assert one is not None
    assert replica_drawn_w(h100, ideal, accelerators=8, busy=0.5, compute_share=0.5) == pytest.approx(8 * one)
    # Shares are capped: a rounding error above one draws no more than all.
    assert replica_drawn_w(h100, ideal, accelerators=1, busy=1.0001, compute_share=1.1) == replica_drawn_w(
        h100, ideal, accelerators=1, busy=1.0, compute_share=1.0
    )


def test_unknown_power_stays_unknown(catalog, ideal) -> None:
    h100 = catalog.accelerator("h100_sxm")
    for field in ("idle_w", "board_w", "server_w"):
        unknown = replace(h100, **{field: None})
        assert replica_drawn_w(unknown, ideal, accelerators=1, busy=0.5, compute_share=0.5) is None


def test_the_catalog_orders_its_powers(catalog) -> None:
    for accelerator in catalog.accelerators.values():
        known = [accelerator.idle_w, accelerator.board_w, accelerator.server_w, accelerator.all_in_w]
        watts = [w for w in known if w is not None]
        assert watts == sorted(watts), accelerator.name
