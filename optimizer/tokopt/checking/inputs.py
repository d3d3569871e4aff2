"""What a plan is checked against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tokopt.domain.accelerators import Accelerator, Framework, Precision
from tokopt.domain.calibration import Calibration
from tokopt.domain.expert_traffic import ExpertTraffic
from tokopt.domain.host_times import HostTime
from tokopt.domain.llms import Llm
from tokopt.domain.offers import Offer
from tokopt.domain.speculators import Speculator


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckInputs:
    """Records of the catalogs and the offers of the request's price lists, before any selection.

    Evaluations are remembered by the identity of these records: pass the same ones for plans over the same catalog.
    """

    llms: Mapping[str, Llm]  # by the name that the request's classes give them
    accelerators: Mapping[str, Accelerator]
    frameworks: Mapping[str, Framework]
    precisions: Mapping[str, Precision]
    kv_bits: Mapping[str, float]  # stored bits a cache element, by name
    calibration: Calibration
    offers: Sequence[Offer]
    speculators: Mapping[str, Speculator] = field(default_factory=dict)  # empty where no deployment names one
    expert_traffic: ExpertTraffic | None = None  # of the request; None = experts are asked for alike
    host_times: Mapping[str, HostTime] = field(default_factory=dict)  # empty where no deployment exposes its host
