"""From a price per hour and a token rate to what tokens cost, and the ratios that are quoted beside it.

Every function takes floats or arrays, one element a deployment; scalars broadcast.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from tokopt.units import MILLION, MW, SECONDS_PER_HOUR

Numbers: TypeAlias = float | npt.NDArray[np.float64]

_FLOP_PER_S_PER_PFLOPS = 1e15


def usd_per_million_tokens(usd_per_hour: Numbers, tokens_per_s: Numbers) -> Numbers:
    """Price of a million tokens; infinite where no tokens are made.

    $/M = usd_per_hour / (tokens_per_s * 3600) * 10^6

    Args:
        usd_per_hour: Price of the machines, or of one accelerator. [USD/h]
        tokens_per_s: Tokens made by the same machines: total, output or input tokens, as the answer is to be. [tok/s]

    Returns:
        [USD per million tokens]
    """
    with np.errstate(divide="ignore"):
        return np.divide(usd_per_hour, np.multiply(tokens_per_s, SECONDS_PER_HOUR / MILLION))


def tokens_per_s_per_mw(tokens_per_s: Numbers, watts: Numbers) -> Numbers:
    """Token rate that a megawatt carries.

    Args:
        tokens_per_s: Token rate of some machines. [tok/s]
        watts: Power of the same machines. Published figures use provisioned all-in utility power, not draw. [W]

    Returns:
        [tok/s per MW]
    """
    return np.divide(np.multiply(tokens_per_s, MW), watts)


def pflops_per_usd(flop_per_s: Numbers, usd_per_hour: Numbers) -> Numbers:
    """Peak arithmetic rate that a dollar an hour buys.

    Args:
        flop_per_s: Peak rate of one accelerator; the number format and sparsity are the caller's to state. [FLOP/s]
        usd_per_hour: Price of one accelerator. [USD/h]

    Returns:
        [PFLOP/s per USD/h]
    """
    return np.divide(flop_per_s, np.multiply(usd_per_hour, _FLOP_PER_S_PER_PFLOPS))
