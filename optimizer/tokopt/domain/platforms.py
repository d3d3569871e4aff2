"""What vendors document about their accelerators beyond serving."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum, unique

from tokopt.domain.accelerators import Accelerator


@unique
class Stage(StrEnum):
    """A stage of a model's life."""

    TRAINING = "training"
    POST_TRAINING = "post_training"  # fine-tuning, preference and reinforcement learning
    INFERENCE = "inference"


@dataclass(frozen=True, slots=True, kw_only=True)
class Documented:
    """Something that a vendor documents, in a few words, and where."""

    words: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """A vendor's accelerators, or some generations of them; what is left out is not documented in the sources read."""

    name: str
    title: str
    vendor: str
    generations: tuple[str, ...]  # empty = all of the vendor's
    stages: Mapping[Stage, Documented]
    listed_models: Documented | None  # families of models that the vendor lists as supported
    source: str
    sources: Mapping[str, str] = field(default_factory=dict)  # field name -> source key
    observed_on: str = ""
    note: str = ""


def platform_of(accelerator: Accelerator, platforms: Iterable[Platform]) -> Platform | None:
    """Return what is documented about an accelerator: of its generation, or else of its vendor's accelerators."""
    of_vendor = [p for p in platforms if p.vendor == accelerator.vendor]
    fitting = [p for p in of_vendor if not p.generations or accelerator.generation in p.generations]
    return max(fitting, key=lambda platform: bool(platform.generations), default=None)
