"""What of a plan fails together, and how often."""

from __future__ import annotations

from tokopt.domain.offers import Market
from tokopt.domain.simulations import SimulationSettings
from tokopt.simulation.outages import Outages
from tokopt.units import SECONDS_PER_HOUR

from .simulated_fleet import SimulatedFleet, SimulatedPart


def outages_of(fleet: SimulatedFleet, settings: SimulationSettings, *, seed: int) -> Outages:
    """Return the failures of all simulated replicas: a unit that is bought whole fails with all replicas on it.

    Times between failures of a node are exponential with the stated mean, and so are those of a spot unit's
    interruptions. Every one takes the same time to come back.
    """
    rates: list[float] = []
    replicas: list[range] = []
    for part, first in zip(fleet.parts, fleet.first_replicas, strict=True):
        together, rate = _units(part, settings)
        for start in range(0, part.simulated, together):
            replicas.append(range(first + start, first + min(start + together, part.simulated)))
            rates.append(rate)
    return Outages(rates, replicas, lasts_s=settings.recovery_s, seed=seed)


def _units(part: SimulatedPart, settings: SimulationSettings) -> tuple[int, float]:
    """Return how many replicas go down together, and how often. [1/s]

    Each unit that a replica spans takes it down, and one that several share all of them.
    """
    each = part.item.units / max(part.item.replicas, 1)
    nodes = part.item.nodes / max(part.item.units, 1)
    rate = 0.0 if settings.node_mtbf_hours is None else nodes / (settings.node_mtbf_hours * SECONDS_PER_HOUR)
    if part.item.market == Market.SPOT.value:
        rate += settings.spot_interruptions_per_hour / SECONDS_PER_HOUR
    together = max(round(1.0 / each), 1) if each < 1.0 else 1
    return together, rate * max(each, 1.0)
