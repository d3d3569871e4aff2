"""Published comparisons of cost per token, kept to be reproduced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from tokopt.domain.accelerators import NumberFormat
from tokopt.domain.features import Feature


@dataclass(frozen=True, slots=True, kw_only=True)
class EconomicsFigures:
    """The five figures of a comparison, or ratios of them (challenger over baseline, cost per token the other way)."""

    usd_per_gpu_hour: float
    pflops_per_usd: float  # 1e15 FLOP/s of peak for each USD/h
    tokens_per_s_per_gpu: float
    tokens_per_s_per_mw: float  # MW of all-in utility power
    usd_per_million_tokens: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EconomicsLine:
    """One accelerator of a published comparison, and the operating point at which a model of it is to be compared."""

    accelerator: str
    llm: str
    precision: str
    features: str
    input_tokens: float
    output_tokens: float
    tokens_per_s_per_user: float
    unrounded_tokens_per_s_per_gpu: float  # what the other published figures imply
    peak_format: NumberFormat
    peak_sparse: bool
    published: EconomicsFigures
    not_named: tuple[Feature, ...] = ()  # features that the comparison does not say that it used there
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedEconomics:
    """A published comparison: baseline first, challenger last."""

    name: str
    title: str
    published_on: str
    ownership: str  # profile that the cost of an hour comes from
    token_basis: Literal["total", "output", "input"]
    lines: tuple[EconomicsLine, ...]
    ratios: EconomicsFigures
    source: str
    observed_on: str
    sources: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
