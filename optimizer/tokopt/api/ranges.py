"""The 80 % ranges that figures are stated with, and whether a deployment lies outside what was measured."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tokopt.catalog import Catalog
from tokopt.domain.accelerators import Accelerator, Framework, Precision
from tokopt.domain.calibration import Calibration
from tokopt.domain.deployments import Deployment, ServingMode
from tokopt.domain.estimates import Interval
from tokopt.domain.plans import FleetItem
from tokopt.domain.power_settings import SettingBasis
from tokopt.perf.constants import SYSTEM, interval_of, level_of, novelty_of, traits_of

from .resolved import Resolved

THROUGHPUT, TPOT, TTFT = "output_tok_s_per_gpu", "tpot_ms", "ttft_ms"
NAMED = (SYSTEM, "precision", "llm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Factors:
    """Ends of a range over the figure itself."""

    low: float
    high: float

    def around(self, value: float) -> Interval:
        """Return the range of a figure that grows with throughput, or is a latency."""
        return Interval(low=value * self.low, high=value * self.high)

    def widened(self, share: float) -> Factors:
        """Return the range with an independent error more: a factor from `share`, at most one, to one over it.

        Independent errors of logarithms add up in squares.
        """
        error = -math.log(share)
        low, high = abs(math.log(self.low)), abs(math.log(self.high))
        return Factors(
            low=self.low * math.exp(low - math.hypot(low, error)),
            high=self.high * math.exp(math.hypot(high, error) - high),
        )

    def over(self, share: float) -> Factors:
        """Return the range of figures stated at a share of the prediction; they stay inside it."""
        return Factors(low=min(self.low / share, 1.0), high=self.high / share)

    def against(self, value: float) -> Interval:
        """Return the range of a figure that falls as throughput grows: what a token costs."""
        return Interval(low=value / self.high, high=value / self.low)


def named_traits(catalog: Catalog, deployed: Deployment | FleetItem, llm_name: str) -> dict[str, str]:
    """Return the traits of what is deployed, from the names of its accelerator, framework and precision."""
    return _measured_traits(
        catalog.accelerators[deployed.accelerator],
        catalog.frameworks[deployed.framework],
        catalog.precisions[deployed.precision],
        llm_name,
    )


def resolved_traits(resolved: Resolved) -> dict[str, str]:
    """Return the traits of a resolved deployment."""
    return _measured_traits(resolved.accelerator, resolved.framework, resolved.precision, resolved.llm.name)


def _measured_traits(
    accelerator: Accelerator, framework: Framework, precision: Precision, llm_name: str
) -> dict[str, str]:
    """Return traits as ranges see them: a power setting that nobody measured makes an accelerator of its own."""
    traits = traits_of(accelerator, framework, precision, llm_name)
    return traits | {"accelerator": accelerator.name} if clock_unsure(accelerator) < 1.0 else traits


def clock_unsure(accelerator: Accelerator) -> float:
    """Return the share by which speed under a power setting may be off: one where it was measured, or there is none.

    Where nobody ran it, everything may slow down as arithmetic does, or arithmetic not at all: the share of the clock.
    """
    throttle = accelerator.throttle
    unsure = throttle is not None and throttle.setting.basis is SettingBasis.EXTRAPOLATED
    return throttle.clock_share if throttle is not None and unsure else 1.0


def factors(calibration: Calibration, traits: Mapping[str, str], mode: ServingMode | str, figure: str) -> Factors:
    """Return the range of one figure of a deployment: wider for what was never measured."""
    interval = interval_of(calibration, figure, novelty_of(calibration, traits), str(mode))
    return Factors(low=interval.low, high=interval.high)


def widest(parts: Iterable[Factors]) -> Factors:
    """Return the range that holds several, any of which may be the one that matters."""
    known = list(parts)
    return Factors(low=min(f.low for f in known), high=max(f.high for f in known))


def together(parts: Iterable[tuple[float, Factors]]) -> Factors:
    """Return the range of a sum whose parts, with these shares, all err to the same side: no error averages out."""
    known = list(parts)
    total = sum(share for share, _ in known)
    return Factors(
        low=sum(share * f.low for share, f in known) / total, high=sum(share * f.high for share, f in known) / total
    )


def outside(calibration: Calibration, traits: Mapping[str, str], input_tokens: float, output_tokens: float) -> bool:
    """Return whether a deployment lies outside what the calibration was fitted to."""
    names, numbers = calibration.measured.names, calibration.measured.numbers
    if any(level_of(traits, trait) not in names.get(trait, ()) for trait in NAMED):
        return True
    lengths = {"input_tokens": input_tokens, "output_tokens": output_tokens}
    return any(not numbers[name][0] <= value <= numbers[name][1] for name, value in lengths.items())
