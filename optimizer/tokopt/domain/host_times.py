"""What the host needs to feed an accelerator: hidden behind the accelerator's work unless a feature is switched off."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum, unique


@unique
class HostWork(StrEnum):
    """What a host does for a step."""

    LAYER = "eager_layer"  # launching the kernels of a layer one by one
    EXPERT_LAYER = "eager_expert_layer"  # on top of it, where the layer routes to experts
    STEP = "exposed_step"  # scheduling a step, whatever is in it
    SEQUENCE = "exposed_sequence"  # scheduling and sampling of a running sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class HostTime:
    """How long one piece of host work takes, as published. [s]"""

    name: str
    title: str
    value_s: float
    low_s: float  # of the published figures, the least ...
    high_s: float  # ... and the most
    source: str
    observed_on: str
    sources: Mapping[str, str] = field(default_factory=dict)  # field name -> source key
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostTimes:
    """What an accelerator waits for where nothing hides the host. [s]"""

    layer_s: float
    expert_layer_s: float
    step_s: float
    sequence_s: float


def slower(times: Mapping[str, HostTime], share: float) -> dict[str, HostTime]:
    """Return what hosts take where everything takes so long that throughput falls by a share of it."""
    each = 1.0 / (1.0 - share)
    return {name: replace(time, value_s=time.value_s * each) for name, time in times.items()}
