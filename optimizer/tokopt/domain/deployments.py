"""How one replica of a model is set up."""

from __future__ import annotations

from enum import StrEnum, unique
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tokopt.domain.caching import Caching
from tokopt.domain.features import Feature


@unique
class ServingMode(StrEnum):
    """Whether prefill and decode share accelerators."""

    AGG = "agg"
    DISAGG = "disagg"


class Layout(BaseModel):
    """Parallel degrees of one worker; it spans `tp * dp * pp * cp` accelerators.

    `dp` is attention data parallelism; experts are split `ep` ways over the `tp * dp * cp` accelerators of a stage, and
    each expert is tensor-parallel over what remains (`tp * dp * cp / ep`). `cp` is prefill context parallelism: the
    tokens of a prompt are split over `cp` copies of the attention ranks. `dcp` is decode context parallelism: what
    tensor parallelism would copy of the cache is split by its tokens instead, `dcp` ways, over the same accelerators.
    """

    model_config = ConfigDict(frozen=True, defer_build=True, extra="forbid")

    tp: int = Field(default=1, ge=1)
    pp: int = Field(default=1, ge=1)
    ep: int = Field(default=1, ge=1)
    dp: int = Field(default=1, ge=1)
    cp: int = Field(default=1, ge=1)
    dcp: int = Field(default=1, ge=1)
    redundant_experts: int = Field(default=0, ge=0)  # further copies of the most popular experts, a layer
    two_batch_overlap: bool = False  # steps run as two halves, one exchanging while the other computes, where that pays

    @property
    def accelerators(self) -> int:
        """Accelerators that one worker spans."""
        return self.tp * self.dp * self.pp * self.cp


class Pool(BaseModel):
    """One of the two pools of a disaggregated replica."""

    model_config = ConfigDict(frozen=True, defer_build=True, extra="forbid")

    workers: int = Field(ge=1)
    layout: Layout
    accelerator: str | None = None  # None = the deployment's; stated where the two pools run on different ones

    @property
    def accelerators(self) -> int:
        """Accelerators of all workers of the pool."""
        return self.workers * self.layout.accelerators


class Deployment(BaseModel):
    """One replica: accelerator, framework, precisions, layout and features.

    `accelerator` is the one that decodes. Only a prefill pool may run on another.
    """

    model_config = ConfigDict(frozen=True, defer_build=True, extra="forbid")

    accelerator: str
    framework: str
    llm: str
    precision: str
    kv_precision: str
    mode: ServingMode = ServingMode.AGG
    layout: Layout | None = None  # aggregated
    prefill: Pool | None = None  # disaggregated
    decode: Pool | None = None
    speculation_depth: int = Field(default=0, ge=0)  # draft tokens a step
    speculator: str | None = None  # what drafts them; None = the modules that the checkpoint ships
    chunk_tokens: int = Field(default=8192, ge=1)
    max_running_requests: int | None = Field(default=None, ge=1)  # of one replica; None = what memory allows
    caching: Caching | None = None  # None = nothing repeats, or the share that is found is given
    without: tuple[Feature, ...] = ()  # of `features.ON_BY_DEFAULT`: those that are there, and switched off

    @model_validator(mode="after")
    def _decodes_on_its_own(self) -> Self:
        stated = self.decode.accelerator if self.decode is not None else None
        if stated not in (None, self.accelerator):
            raise ValueError(f"decode pool is on {stated}, but a deployment's accelerator is the one that decodes")
        return self

    @property
    def prefill_accelerator(self) -> str:
        """The accelerator that prefills: that of the prefill pool, where it has one of its own."""
        stated = self.prefill.accelerator if self.prefill is not None else None
        return stated or self.accelerator

    @property
    def mixed(self) -> bool:
        """Whether the two pools run on different accelerators."""
        return self.prefill_accelerator != self.accelerator

    @property
    def accelerators(self) -> int:
        """Accelerators that one replica spans."""
        if self.mode is ServingMode.AGG:
            assert self.layout is not None
            return self.layout.accelerators
        assert self.prefill is not None and self.decode is not None
        return self.prefill.accelerators + self.decode.accelerators
