"""Power of a replica: drawn under load, rated by nameplate, provisioned all-in. Three figures, never mixed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tokopt.domain.accelerators import Accelerator
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


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardWatts:
    """What drawn power needs to know of an accelerator, as numbers or as arrays of one element a row. [W], [1]"""

    idle_w: Floats
    board_w: Floats
    server_w: Floats
    full_board_w: Floats  # the board's own limit, whatever it is capped to
    products_share: Floats = 1.0
    traffic_share: Floats = 1.0
    cap_clock: Floats = 1.0


def board_watts(accelerators: Accelerator | Sequence[Accelerator]) -> BoardWatts:
    """Return the watts of one accelerator, or of one a row; what the catalog lacks is not a number."""

    def each(value: Callable[[Accelerator], float | None]) -> Floats:
        if isinstance(accelerators, Accelerator):
            found = value(accelerators)
            return math.nan if found is None else found
        return np.array([value(a) for a in accelerators], dtype=float)  # None becomes not a number

    return BoardWatts(
        idle_w=each(lambda a: a.idle_w),
        board_w=each(lambda a: a.board_w),
        server_w=each(lambda a: a.server_w),
        full_board_w=each(lambda a: a.full_board_w),
        products_share=each(lambda a: 1.0 if a.throttle is None else a.throttle.products_share),
        traffic_share=each(lambda a: 1.0 if a.throttle is None else a.throttle.traffic_share),
        cap_clock=each(_cap_clock),
    )


def _cap_clock(accelerator: Accelerator) -> float:
    throttle = accelerator.throttle
    return 1.0 if throttle is None or throttle.setting.cap_w is None else throttle.clock_share


def throttled_w(shares: PowerShares, watts: BoardWatts, *, busy: Floats, compute_share: Floats) -> Floats:
    """Return `drawn_w` of accelerators whose boards may be capped or whose clocks may be locked. [W]"""
    return drawn_w(
        shares,
        idle_w=watts.idle_w,
        board_w=watts.full_board_w,
        server_w=watts.server_w + (np.asarray(watts.full_board_w) - watts.board_w),
        busy=busy,
        compute_share=compute_share,
        cap_w=watts.board_w,
        products_share=watts.products_share,
        traffic_share=watts.traffic_share,
        cap_clock=watts.cap_clock,
    )


def drawn_w(
    shares: PowerShares,
    *,
    idle_w: Floats,
    board_w: Floats,
    server_w: Floats,
    busy: Floats,
    compute_share: Floats,
    cap_w: Floats | None = None,
    products_share: Floats = 1.0,
    traffic_share: Floats = 1.0,
    cap_clock: Floats = 1.0,
) -> Floats:
    """Mean wall power of one accelerator and its part of the server, without cooling and distribution. [W]

        P = idle + busy · (board - idle) · min(1, memory share · √(1 - c²) + compute share · c)
            + host share · (server - board)

    In a step of which arithmetic takes the share c, memory traffic takes √(1 - c²): the parts of a step are rooflines
    with a rounded corner, (m² + c²) = 1 (`perf.step.roofline_s`), so both run at once for a while and draw together,
    up to the board's limit. Launches and collectives count as traffic. Fans, processors, network cards and conversion
    losses of the server do not follow the load.

    A cap cuts the board off at its watts: it never binds while memory traffic alone draws less, as in decoding, and the
    clock is not lowered then. Steps are timed as if it always were, on the safe side, so c is first taken back to the
    full clock, where arithmetic takes f times as long: c' = f·c / √(1 - c² + f²c²). A locked clock scales what
    arithmetic and what memory traffic draw. The mean over phases is cut off, not each phase, which errs to the high
    side: the least of two numbers is concave.

    Args:
        shares: The calibrated shares.
        idle_w: Board power with nothing to do. [W]
        board_w: Board power limit. [W]
        server_w: Nameplate of the server, per accelerator. [W]
        busy: Share of time that steps run. [1]
        compute_share: Share c of step time that the matrix units bound. [1]
        cap_w: What the board is capped to, below its limit. None = to nothing. [W]
        products_share: Of the power of arithmetic, what is left under a locked clock. [1]
        traffic_share: The same of memory traffic. [1]
        cap_clock: Clock f that a cap leaves full arithmetic, over the clock without it. [1]
    """

    def span(c: Floats) -> Floats:
        traffic = shares.memory_bound_power_share * traffic_share * np.sqrt(1.0 - np.square(c))
        return np.minimum(traffic + shares.compute_bound_power_share * products_share * c, 1.0)

    c = np.minimum(compute_share, 1.0)  # a rounding error above one draws no more than all
    drawn_share = span(c)
    if cap_w is not None:
        slowed = cap_clock * c
        # Next to c = 1 a board draws less the less traffic it has: no cap makes it draw more.
        drawn_share = np.minimum(drawn_share, span(slowed / np.sqrt(1.0 - np.square(c) + np.square(slowed))))
        drawn_share = np.minimum(drawn_share, (np.asarray(cap_w) - idle_w) / (np.asarray(board_w) - idle_w))
    board = idle_w + np.minimum(busy, 1.0) * (board_w - idle_w) * drawn_share
    drawn: Floats = board + shares.host_power_share * (server_w - board_w)
    return drawn
