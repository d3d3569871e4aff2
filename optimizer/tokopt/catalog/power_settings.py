"""Variants of accelerators: `NAME@500w` is one under a cap of its board, `NAME@1200mhz` under a lock of its clock.

A variant is an accelerator's record with the rates and watts that it has under the setting, so whatever takes an
accelerator takes a variant. With P(f) = idle + (board - idle)·(f / clock)^exponent for a board that works as hard as it
can (DVFS: dynamic power is C·V²·f, and the voltage follows the clock):

- a cap leaves full arithmetic the clock f = clock·((cap - idle) / (board - idle))^(1 / exponent);
- a lock leaves it the clock that it says.

Arithmetic slows down with the clock; memory and links do not. A cap lowers what has to be provisioned by what the board
can no longer draw; a lock does not, since nothing but the board's own limit enforces it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

from tokopt.catalog.rows import PowerCurveRow, PowerSettingRow
from tokopt.domain.accelerators import Accelerator
from tokopt.domain.power_settings import SEPARATOR, PowerCurve, PowerSetting, SettingBasis, Throttle
from tokopt.errors import CatalogError, InputError

MHZ: Final = 1e6
_WRITTEN: Final = re.compile(r"(\d{1,6}(?:\.\d{1,3})?)\s*(w|kw|mhz|ghz)")
_UNITS: Final = {"w": 1.0, "kw": 1e3, "mhz": MHZ, "ghz": 1e9}


class AcceleratorTable(Mapping[str, Accelerator]):
    """Accelerators by name. It lists those of the catalog, and finds every variant of them too."""

    def __init__(self, records: Mapping[str, Accelerator]) -> None:
        self._records = dict(records)
        self._variants: dict[str, Accelerator] = {}

    def __getitem__(self, name: str) -> Accelerator:
        base, at, setting = name.partition(SEPARATOR)
        if not at:
            return self._records[name]
        try:
            found = self.variant(base, setting)
        except InputError:
            raise KeyError(name) from None
        if found.name != name:  # a table has one spelling of a name
            raise KeyError(name)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)

    def variant(self, name: str, setting: str) -> Accelerator:
        """Return an accelerator under a setting as people write it, the same record every time.

        Raises:
            InputError: No such setting, or the catalog lacks what it needs.
            KeyError: No such accelerator.
        """
        accelerator = self._records[name]
        chosen = parse_setting(accelerator, setting)
        key = f"{name}{SEPARATOR}{chosen.name}"
        if key not in self._variants:
            self._variants[key] = variant_of(accelerator, chosen)
        return self._variants[key]

    def listed_variants(self, name: str) -> tuple[Accelerator, ...]:
        """Return the variants of an accelerator that the catalog lists, in its order."""
        return tuple(self.variant(name, setting.name) for setting in self._records[name].power_settings)


def setting_name(cap_w: float | None, clock_hz: float | None) -> str:
    """Return the one spelling of a setting: `500w` or `1200mhz`."""
    return f"{cap_w:.10g}w" if cap_w is not None else f"{(clock_hz or 0.0) / MHZ:.10g}mhz"


def parse_setting(accelerator: Accelerator, text: str) -> PowerSetting:
    """Return a setting of an accelerator: the catalog's where it lists it, else one that the curve alone speaks for.

    Raises:
        InputError: Not a setting; what it may be is said.
    """
    written = _WRITTEN.fullmatch(text.strip().lower().replace("_", "").replace(" ", ""))
    if not written:
        listed = ", ".join(f"{SEPARATOR}{s.name}" for s in accelerator.power_settings) or "none"
        raise InputError(
            f"{accelerator.name}{SEPARATOR}{text}: {text!r} is not a power setting; write a cap like {SEPARATOR}500w "
            f"or a clock like {SEPARATOR}1200mhz (listed in the catalog: {listed})"
        )
    value = float(written.group(1)) * _UNITS[written.group(2)]
    capped = written.group(2).endswith("w")
    cap_w, clock_hz = (value if capped else None), (None if capped else value)
    name = setting_name(cap_w, clock_hz)
    known = next((s for s in accelerator.power_settings if s.name == name), None)
    source = accelerator.power_curve.source if accelerator.power_curve else ""
    return known or PowerSetting(
        name=name, cap_w=cap_w, clock_hz=clock_hz, basis=SettingBasis.EXTRAPOLATED, source=source
    )


def variant_of(accelerator: Accelerator, setting: PowerSetting) -> Accelerator:
    """Return the record of an accelerator under a setting.

    Raises:
        InputError: The catalog lacks what it needs, or the board cannot be set like that.
    """
    name = f"{accelerator.name}{SEPARATOR}{setting.name}"
    curve = accelerator.power_curve
    if curve is None:
        raise InputError(f"{name}: the catalog has no power_curve for {accelerator.name}, which a setting needs")
    board_w = accelerator.board_w
    if setting.cap_w is not None:
        throttle, board_w = _capped(accelerator, curve, setting, setting.cap_w, name), setting.cap_w
        said = f"capped at {setting.cap_w:,.5g} W"
    else:
        throttle = _locked(accelerator, curve, setting, setting.clock_hz or 0.0, name)
        said = f"clock locked at {(setting.clock_hz or 0.0) / MHZ:,.5g} MHz"
    saved_w = (accelerator.board_w or 0.0) - (board_w or 0.0)
    share = throttle.clock_share
    note = f"{said}: {setting.basis.value}. {setting.note}".strip()
    return replace(
        accelerator,
        name=name,
        title=f"{accelerator.title}, {said}",
        aliases=(),
        dense_flop_per_s={number_format: rate * share for number_format, rate in accelerator.dense_flop_per_s.items()},
        sparse_flop_per_s={f: rate * share for f, rate in accelerator.sparse_flop_per_s.items()},
        board_w=board_w,
        server_w=None if accelerator.server_w is None else accelerator.server_w - saved_w,
        all_in_w=provisioned_under_cap_w(accelerator, saved_w),
        power_settings=(),
        throttle=throttle,
        sources={**accelerator.sources, "power_curve": curve.source, "power_setting": setting.source},
        note=" ".join(part for part in (note, accelerator.note) if part),
    )


def provisioned_under_cap_w(accelerator: Accelerator, saved_w: float) -> float | None:
    """Return all-in power of an accelerator whose board draws `saved_w` less: less in the same ratio. [W]

        all-in - saved · all-in / server

    What cooling, distribution and network take of a server's watt is taken of a saved one too. Where the catalog has
    no nameplate of the server, the board's watts alone count.
    """
    if accelerator.all_in_w is None:
        return None
    ratio = accelerator.all_in_w / accelerator.server_w if accelerator.server_w else 1.0
    return accelerator.all_in_w - saved_w * ratio


def _capped(accelerator: Accelerator, curve: PowerCurve, setting: PowerSetting, cap_w: float, name: str) -> Throttle:
    idle_w, board_w = accelerator.idle_w, accelerator.board_w
    if idle_w is None or board_w is None:
        lacks = "idle_w" if idle_w is None else "board_w"
        raise InputError(f"{name}: the catalog has no {lacks} for {accelerator.name}, which a power cap needs")
    if not idle_w < cap_w < board_w:
        raise InputError(
            f"{name}: a cap of {cap_w:,.5g} W is not possible: it must be above the {idle_w:g} W that the board draws "
            f"when idle and below the {board_w:g} W that it is limited to without one"
        )
    left = (cap_w - idle_w) / (board_w - idle_w)
    return Throttle(
        setting=setting,
        hardware=accelerator.name,
        full_board_w=board_w,
        clock_share=left ** (1.0 / curve.exponent),
    )


def _locked(accelerator: Accelerator, curve: PowerCurve, setting: PowerSetting, clock_hz: float, name: str) -> Throttle:
    if curve.clock_hz is None:
        raise InputError(f"{name}: the catalog has no power_curve.clock_mhz for {accelerator.name}, which a lock needs")
    if not 0.0 < clock_hz < curve.clock_hz:
        raise InputError(
            f"{name}: a clock of {clock_hz / MHZ:,.5g} MHz is not possible: it must be above 0 and below the "
            f"{curve.clock_hz / MHZ:g} MHz that peak rates are quoted at"
        )
    share = clock_hz / curve.clock_hz
    power = share**curve.exponent
    return Throttle(
        setting=setting,
        hardware=accelerator.name,
        full_board_w=accelerator.board_w,
        clock_share=share,
        products_share=power,
        traffic_share=1.0 - curve.traffic_share * (1.0 - power),
    )


def curve_record(row: PowerCurveRow) -> PowerCurve:
    """Return the record of a power curve."""
    return PowerCurve(
        exponent=row.exponent,
        clock_hz=None if row.clock_mhz is None else row.clock_mhz * MHZ,
        traffic_share=row.traffic_share,
        source=row.source,
    )


def setting_record(row: PowerSettingRow) -> PowerSetting:
    """Return the record of a power setting.

    Raises:
        CatalogError: It is neither a cap nor a lock, or both.
    """
    if (row.cap_w is None) == (row.clock_mhz is None):
        raise CatalogError("power_settings: exactly one of cap_w and clock_mhz is needed")
    clock_hz = None if row.clock_mhz is None else row.clock_mhz * MHZ
    return PowerSetting(
        name=setting_name(row.cap_w, clock_hz),
        cap_w=row.cap_w,
        clock_hz=clock_hz,
        basis=row.basis,
        source=row.source,
        note=row.note,
    )


def check_settings(accelerator: Accelerator) -> None:
    """Raise CatalogError where a listed setting is not possible, or is there twice."""
    seen: set[str] = set()
    for setting in accelerator.power_settings:
        if setting.name in seen:
            raise CatalogError(f"power_settings: {setting.name} is there twice")
        seen.add(setting.name)
        try:
            variant_of(accelerator, setting)
        except InputError as error:
            raise CatalogError(f"power_settings: {error}") from None
