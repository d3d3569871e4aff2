"""Places that machines stand in: efficiency of the building, price and carbon of its electricity, by hour if known."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

HOURS_PER_DAY = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A place that machines stand in.

    Where a price is known by hour of the day, `usd_per_kwh` is the mean of the day; the same for carbon.
    """

    name: str
    title: str
    pue: float
    usd_per_kwh: float | None
    carbon_g_per_kwh: float | None
    source: str
    observed_on: str
    note: str = ""
    aliases: tuple[str, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)  # field name -> source key
    usd_per_kwh_by_hour: tuple[float, ...] = ()  # local hours of a day from midnight on; empty = the same all day
    carbon_g_per_kwh_by_hour: tuple[float, ...] = ()
    provider: str = ""  # of a cloud region
    region: str = ""  # the provider's name of it
    place: str = ""  # name of the state or country that it lies in

    def usd_per_kwh_over(self, start_hour: float, hours: float) -> float | None:
        """Return the mean price of electricity over a period of the day. [USD/kWh]

        Args:
            start_hour: Local time at which the period begins; past 24 it is the next day's. [h]
            hours: Length of the period, above zero. [h]
        """
        return _mean_over(self.usd_per_kwh_by_hour, self.usd_per_kwh, start_hour, hours)

    def carbon_g_per_kwh_over(self, start_hour: float, hours: float) -> float | None:
        """Return the mean carbon intensity of electricity over a period of the day; see `usd_per_kwh_over`. [g/kWh]"""
        return _mean_over(self.carbon_g_per_kwh_by_hour, self.carbon_g_per_kwh, start_hour, hours)


def _mean_over(by_hour: Sequence[float], mean: float | None, start_hour: float, hours: float) -> float | None:
    """Return the mean of hourly values over a period that may begin and end within hours, and pass midnight."""
    if not by_hour:
        return mean
    end = start_hour + hours
    parts = []
    for hour in range(math.floor(start_hour), math.ceil(end)):
        overlap = min(end, hour + 1.0) - max(start_hour, float(hour))
        parts.append(by_hour[hour % HOURS_PER_DAY] * overlap)
    return math.fsum(parts) / hours
