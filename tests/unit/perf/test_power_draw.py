"""Power drawn: ends of the range, measured points, and what the catalog does not know."""

from dataclasses import replace

import pytest

from tokopt.perf.describe import replica_drawn_w
from tokopt.perf.power import drawn_w

H200 = {"idle_w": 75.0, "board_w": 700.0, "server_w": 1275.0}


def test_idle_draws_idle_and_the_hosts_part() -> None:
    assert drawn_w(**H200, busy=0.0, compute_share=0.5) == pytest.approx(75 + 0.46 * 575)


def test_measured_boards() -> None:
    """Decode on an H200 draws up to 300 W of 700 (arXiv 2605.11999), large batches reach 660 W; boards alone."""
    board = {"idle_w": 75.0, "board_w": 700.0, "server_w": 700.0}
    assert drawn_w(**board, busy=1.0, compute_share=0.0) == pytest.approx(300.0, rel=0.02)
    assert drawn_w(**board, busy=1.0, compute_share=1.0) == pytest.approx(660.0, rel=0.02)


def test_a_b200_server_under_mlperf() -> None:
    """Eight B200 draw 10.4 kW at the wall (MLPerf v5.1) of a server rated 14.3 kW with 8 kW of boards."""
    each = drawn_w(idle_w=100.0, board_w=1000.0, server_w=14300 / 8, busy=1.0, compute_share=1.0)
    assert 8 * each == pytest.approx(10_400, rel=0.02)


@pytest.mark.parametrize("busy", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_between_idle_and_nameplate(busy: float, share: float) -> None:
    drawn = drawn_w(**H200, busy=busy, compute_share=share)
    assert 75 <= drawn <= 1275
    assert drawn <= drawn_w(**H200, busy=1.0, compute_share=share)
    assert drawn <= drawn_w(**H200, busy=busy, compute_share=1.0)


def test_a_replica_is_its_accelerators(catalog) -> None:
    h100 = catalog.accelerator("h100_sxm")
    one = replica_drawn_w(h100, accelerators=1, busy=0.5, compute_share=0.5)
    assert one is not None
    assert replica_drawn_w(h100, accelerators=8, busy=0.5, compute_share=0.5) == pytest.approx(8 * one)
    # Shares are capped: a rounding error above one draws no more than all.
    assert replica_drawn_w(h100, accelerators=1, busy=1.0001, compute_share=1.1) == replica_drawn_w(
        h100, accelerators=1, busy=1.0, compute_share=1.0
    )


def test_unknown_power_stays_unknown(catalog) -> None:
    h100 = catalog.accelerator("h100_sxm")
    for field in ("idle_w", "board_w", "server_w"):
        assert replica_drawn_w(replace(h100, **{field: None}), accelerators=1, busy=0.5, compute_share=0.5) is None


def test_the_catalog_orders_its_powers(catalog) -> None:
    for accelerator in catalog.accelerators.values():
        known = [accelerator.idle_w, accelerator.board_w, accelerator.server_w, accelerator.all_in_w]
        watts = [w for w in known if w is not None]
        assert watts == sorted(watts), accelerator.name
