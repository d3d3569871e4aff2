"""Accelerators, number formats, precisions and frameworks, in SI."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum, unique

from tokopt.domain.llms import AttentionKind, Llm
from tokopt.domain.power_settings import PowerCurve, PowerSetting, Throttle


@unique
class NumberFormat(StrEnum):
    """A number format that tensor cores multiply in."""

    BF16 = "bf16"
    FP8 = "fp8"
    FP4 = "fp4"
    INT8 = "int8"


@unique
class Topology(StrEnum):
    """How the accelerators of one scale-up domain are wired."""

    SWITCH = "switch"
    MESH = "mesh"
    TORUS = "torus"
    PCIE = "pcie"


@unique
class PurchaseUnit(StrEnum):
    """What is bought or powered as a whole."""

    NODE = "node"
    RACK = "rack"


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """One accelerator and the node and rack it comes in.

    Rates are peak, dense and per accelerator; link bandwidths are one way and per accelerator.
    A value that is not known is None, and whatever needs it says so.
    """

    name: str
    title: str
    vendor: str
    generation: str
    aliases: tuple[str, ...]
    memory_bytes: float
    memory_bytes_per_s: float
    dense_flop_per_s: Mapping[NumberFormat, float]
    sparse_flop_per_s: Mapping[NumberFormat, float]
    scale_up_size: int
    scale_up_bytes_per_s: float
    scale_up_topology: Topology
    scale_out_bytes_per_s: float | None
    accelerators_per_node: int
    nodes_per_rack: int | None
    purchase_unit: PurchaseUnit
    board_w: float | None
    server_w: float | None  # nameplate of the whole server, per accelerator
    all_in_w: float | None  # utility power provisioned for everything, per accelerator
    idle_w: float | None
    host_bytes: float | None = None  # memory of the node, per accelerator
    host_bytes_per_s: float | None = None  # copies from it to the accelerator, one way, as sustained
    ssd_bytes: float | None = None  # local storage of the node, per accelerator
    ssd_bytes_per_s: float | None = None  # reads
    ssd_writes_per_day: float | None = None  # times that drives bear being written over
    per_package: int = 1  # accelerators in what price lists count as one (cores of a chip)
    power_curve: PowerCurve | None = None
    power_settings: tuple[PowerSetting, ...] = ()  # those that plans may choose from
    throttle: Throttle | None = None  # of a variant; rates and watts of the record are those under it
    sources: Mapping[str, str] = field(default_factory=dict)  # field name -> source key
    observed_on: str = ""
    note: str = ""

    @property
    def hardware(self) -> str:
        """Name of the accelerator itself, whatever its power setting: what is bought, supported and was fitted to."""
        return self.name if self.throttle is None else self.throttle.hardware

    @property
    def full_board_w(self) -> float | None:
        """The board's own power limit, whatever it is capped to. [W]"""
        return self.board_w if self.throttle is None else self.throttle.full_board_w

    @property
    def purchase_unit_size(self) -> int:
        """Accelerators in the smallest unit that is bought whole (a node, or a rack of nodes)."""
        if self.purchase_unit is PurchaseUnit.RACK:
            return self.accelerators_per_node * (self.nodes_per_rack or 1)
        return self.accelerators_per_node


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """How a checkpoint stores and multiplies its weights.

    `*_bits` are stored bits an element, scales included; `*_compute` is the format the matrix units multiply in where
    the accelerator has it, with `fallback_compute` otherwise (weight-only dequantisation).
    """

    name: str
    title: str
    aliases: tuple[str, ...]
    ffn_bits: float
    attention_bits: float  # projections of full, sliding and linear attention
    latent_attention_bits: float  # projections of latent (MLA) attention, which some checkpoints keep wider
    other_bits: float  # embeddings, output head, router, norms
    ffn_compute: NumberFormat
    attention_compute: NumberFormat
    latent_attention_compute: NumberFormat
    fallback_compute: NumberFormat
    converted_for: tuple[str, ...]  # vendors for whose accelerators published checkpoints are converted to it
    weight_only: bool  # True: multiplies in `ffn_compute` after dequantising, on any accelerator that has that format
    default_kv_precision: str
    source: str
    observed_on: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class KvPrecision:
    """How a KV cache is stored; `bits` an element, scales included."""

    name: str
    title: str
    aliases: tuple[str, ...]
    bits: float
    source: str
    observed_on: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureLimit:
    """Where a framework is documented to have a feature, if not with every model and in every mode."""

    attention: tuple[AttentionKind, ...] = ()  # kinds that a model's layers may have; empty = any
    experts: bool = False  # mixture-of-experts models only
    apart: bool = False  # only where prefill and decode have pools of their own

    def allows(self, llm: Llm, *, apart: bool) -> bool:
        """Whether the feature is there for a model, with prefill and decode apart or together."""
        if self.apart and not apart:
            return False
        if self.experts and not any(group.feed_forward.experts for group in llm.layers):
            return False
        return not self.attention or all(group.attention.kind in self.attention for group in llm.layers)


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameworkSupport:
    """What one framework supports on one accelerator."""

    precisions: tuple[str, ...]
    kv_precisions: tuple[str, ...]
    features: tuple[str, ...]
    source: str
    feature_sources: Mapping[str, str] = field(default_factory=dict)  # feature -> source key, where it differs
    feature_limits: Mapping[str, FeatureLimit] = field(default_factory=dict)  # feature -> where alone it is
    note: str = ""

    def has(self, feature: str, llm: Llm, *, apart: bool) -> bool:
        """Whether a feature is supported for a model, with prefill and decode apart or together."""
        limit = self.feature_limits.get(feature)
        return feature in self.features and (limit is None or limit.allows(llm, apart=apart))


@dataclass(frozen=True, slots=True, kw_only=True)
class Framework:
    """A serving framework: limits, defaults and where it runs."""

    name: str
    title: str
    aliases: tuple[str, ...]
    memory_fraction: float  # share of device memory that it fills by default
    reserved_output: float  # share of an output's cache that is set aside when a request is admitted
    max_running_requests: int  # per attention-data-parallel rank, by default
    chunk_tokens: int  # default token budget of a prefill chunk
    two_batch_tokens: int  # of an attention rank, from which on a step may run as two halves
    support: Mapping[str, FrameworkSupport]  # accelerator name -> support
    source: str
    observed_on: str
    recommended: bool = True  # False: measured in the past, served only where it is named
    sources: Mapping[str, str] = field(default_factory=dict)  # field name -> source key
    note: str = ""
