"""The power settings of an accelerator as facts: watts, and how fast and how hungry each phase is under them."""

from __future__ import annotations

from tokopt.catalog import Catalog
from tokopt.catalog.power_settings import MHZ
from tokopt.domain.accelerators import Accelerator
from tokopt.domain.calibration import Calibration, Constants
from tokopt.perf.power import BoardWatts, board_watts, throttled_w
from tokopt.units import KW


def base_constants(calibration: Calibration) -> Constants:
    """Return the constants of a calibration without effects of any trait."""
    return Constants(**{name: entry.value for name, entry in calibration.entries.items()}, origins={}, sources={})


def board_draw_w(watts: BoardWatts, constants: Constants, compute_share: float) -> float:
    """Return what a busy board draws whose steps are bound by arithmetic for a share of their time. [W]"""
    host_w = float(constants.host_power_share) * (float(watts.server_w) - float(watts.board_w))
    return float(throttled_w(constants, watts, busy=1.0, compute_share=compute_share)) - host_w


def setting_lines(catalog: Catalog, accelerator: Accelerator) -> list[tuple[str, str, str]]:
    """Return (name, what it does, source) of the power curve, of the board's own state and of each listed setting.

    Speeds are relative to the accelerator without a setting: prefill is bound by arithmetic, decode by memory traffic;
    what a deployment loses lies between them. Boards draw what the calibration's base values say of a busy one.
    """
    curve = accelerator.power_curve
    if curve is None:
        return []
    clock = "" if curve.clock_hz is None else f", peak rates at {curve.clock_hz / MHZ:,.0f} MHz"
    lines = [("power_curve", f"above idle, core clock to the power of {curve.exponent:g}{clock}", curve.source)]
    variants = catalog.accelerators.listed_variants(accelerator.name) if accelerator.throttle is None else ()
    for each in (accelerator, *variants):
        throttle = each.throttle
        name = f"@{throttle.setting.name}" if throttle else "no setting"
        speed = 1.0 if throttle is None else throttle.clock_share
        basis = f"; {throttle.setting.basis.value}" if throttle else ""
        said = [f"prefill {speed:.2f} x, decode 1.00 x", *_watts(catalog, each)]
        lines.append((name, ", ".join(said) + basis, throttle.setting.source if throttle else ""))
    return lines


def _watts(catalog: Catalog, accelerator: Accelerator) -> list[str]:
    said = []
    if None not in (accelerator.idle_w, accelerator.board_w, accelerator.server_w):
        constants, watts = base_constants(catalog.calibration), board_watts(accelerator)
        prefill_w, decode_w = (board_draw_w(watts, constants, share) for share in (1.0, 0.0))
        said.append(f"board draws {prefill_w:,.0f} and {decode_w:,.0f} W")
    if accelerator.server_w is not None:
        said.append(f"server {accelerator.server_w:,.0f} W")
    if accelerator.all_in_w is not None:
        said.append(f"all-in {accelerator.all_in_w / KW:.2f} kW")
    return said
