"""Power of a replica: drawn under load, rated by nameplate, provisioned all-in. Three figures, never mixed."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from tokopt.perf.arrays import Floats


class PowerShares(Protocol):
    """The calibrated shares that drawn power depends on; a `Machine` has them, and so have `Constants`."""

    @property
    def memory_bound_power_share(self) -> Floats:
        """Of the span from idle to board power, while memory traffic alone fills a step. [1]"""

    @property
    def compute_bound_power_share(self) -> Floats:
        """Of the same span, while matrix units alone fill it. [1]"""

    @property
    def host_power_share(self) -> Floats:
        """Of what the server's nameplate has beyond its boards. [1]"""


def drawn_w(
    shares: PowerShares,
    *,
    idle_w: Floats,
    board_w: Floats,
    server_w: Floats,
    busy: Floats,
    compute_share: Floats,
) -> Floats:
    """Mean wall power of one accelerator and its part of the server, without cooling and distribution. [W]

        P = idle + busy · (board - idle) · min(1, memory share · √(1 - c²) + compute share · c)
            + host share · (server - board)

    In a step of which arithmetic takes the share c, memory traffic takes √(1 - c²): the parts of a step are rooflines
    with a rounded corner, (m² + c²) = 1 (`perf.step.roofline_s`), so both run at once for a while and draw together,
    up to the board's limit. Launches and collectives count as traffic. Fans, processors, network cards and conversion
    losses of the server do not follow the load.

    Args:
        shares: The calibrated shares.
        idle_w: Board power with nothing to do. [W]
        board_w: Board power limit. [W]
        server_w: Nameplate of the server, per accelerator. [W]
        busy: Share of time that steps run. [1]
        compute_share: Share c of step time that the matrix units bound. [1]
    """
    c = np.minimum(compute_share, 1.0)  # a rounding error above one draws no more than all
    traffic = np.sqrt(1.0 - np.square(c))
    span = np.minimum(shares.memory_bound_power_share * traffic + shares.compute_bound_power_share * c, 1.0)
    board = idle_w + np.minimum(busy, 1.0) * (board_w - idle_w) * span
    drawn: Floats = board + shares.host_power_share * (server_w - board_w)
    return drawn
