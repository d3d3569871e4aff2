"""Power of a replica: drawn under load, rated by nameplate, provisioned all-in. Three figures, never mixed."""

from __future__ import annotations

from tokopt.perf.arrays import Floats

# Shares of the span from idle to board power. Decode on an H200 draws up to 300 of 700 W (arXiv 2605.11999); prefill
# and large batches reach 660 W. With 75 W idle: (300 - 75)/625 and (660 - 75)/625.
MEMORY_BOUND_SHARE = 0.36
COMPUTE_BOUND_SHARE = 0.94
# Fans, CPUs, network cards and conversion of a server at load, as a share of nameplate minus boards: eight B200 under
# MLPerf draw 10.4 kW at the wall of a server rated 14.3 kW with 8 kW of boards (MLPerf v5.1, closed, power).
HOST_SHARE = 0.46


def drawn_w(*, idle_w: float, board_w: float, server_w: float, busy: Floats, compute_share: Floats) -> Floats:
    """Mean wall power of one accelerator and its part of the server, without cooling and distribution. [W]

    P = idle + busy · (board - idle) · (memory share · (1 - c) + compute share · c) + host share · (server - board)

    Args:
        idle_w: Board power with nothing to do. [W]
        board_w: Board power limit. [W]
        server_w: Nameplate of the server, per accelerator. [W]
        busy: Share of time that steps run.
        compute_share: Share of step time that the matrix units bound.
    """
    c = compute_share
    span = MEMORY_BOUND_SHARE * (1.0 - c) + COMPUTE_BOUND_SHARE * c
    return idle_w + busy * (board_w - idle_w) * span + HOST_SHARE * (server_w - board_w)
