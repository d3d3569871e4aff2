"""What drafts tokens for a model to verify: heads, small models and look-ups, and how often drafts are accepted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum, unique

from tokopt.domain.accelerators import Precision
from tokopt.domain.llms import Llm

OWN_MODULES = "mtp"  # reserved name: the multi-token-prediction modules that a checkpoint ships


@unique
class Method(StrEnum):
    """How tokens are drafted; a method is called like the feature that a framework needs for it."""

    EAGLE3 = "eagle3"  # a head of one layer that reads the model's hidden states
    DRAFT_MODEL = "draft_model"  # a small model of its own
    NGRAM = "ngram"  # what followed the last tokens where they stood before in the text

    @property
    def pipelines(self) -> bool:
        """Whether it goes with pipeline parallelism: vLLM's documentation says no, the others' say nothing."""
        return False

    @property
    def needs_checkpoint(self) -> bool:
        """Whether what drafts is a checkpoint of its own."""
        return self is not Method.NGRAM

    @property
    def ranks(self) -> bool:
        """Whether it goes with attention data parallelism: SGLang's documentation says no of n-grams."""
        return self is not Method.NGRAM


@unique
class Domain(StrEnum):
    """What a text is about, as far as it decides how well it can be foreseen."""

    CHAT = "chat"
    CODE = "code"
    MATH = "math"
    AGENTIC = "agentic"
    SUMMARISATION = "summarisation"
    TRANSLATION = "translation"
    EDITING = "editing"  # of code or text that stands in the prompt


@unique
class AcceptanceBasis(StrEnum):
    """What chances of acceptance rest on."""

    PUBLISHED = "published"  # of each position, as published
    DERIVED = "derived"  # solved from published tokens a step
    ASSUMED = "assumed"  # the published figure is of another pair, or does not say how many tokens were drafted


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """Chances that draft token i is accepted, given that all before it were."""

    chances: tuple[float, ...]
    basis: AcceptanceBasis
    source: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Speculator:
    """One way to draft for some models.

    `drafter` is what runs once a draft token, as a language model of its own: its head is over the draft vocabulary.
    """

    name: str
    title: str
    aliases: tuple[str, ...]
    method: Method
    llms: tuple[str, ...]  # empty = any
    drafter: Llm | None
    precision: Precision | None  # of the drafter
    deepest: int  # most draft tokens a step
    acceptance: Mapping[Domain, Acceptance]
    spread: float  # share by which tokens beyond the first may differ from what was published
    searched_for: tuple[Domain, ...]  # searches try it for these domains only; empty = for all
    recommended: bool  # False: only where it is named
    source: str
    observed_on: str
    sources: Mapping[str, str] = field(default_factory=dict)  # field name -> source key
    note: str = ""

    def drafts_for(self, llm_name: str) -> bool:
        """Whether it can draft for a model."""
        return not self.llms or llm_name in self.llms

    def searched(self, domain: Domain | None) -> bool:
        """Whether searches try it for texts of a domain without being told to."""
        return self.recommended and (not self.searched_for or domain in self.searched_for)
