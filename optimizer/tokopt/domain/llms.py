"""Large language models: the architecture facts that decide bytes and FLOPs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum, unique

WIDE_CACHE = "bf16"  # the cache that others are held against


@unique
class AttentionKind(StrEnum):
    """How a layer attends."""

    FULL = "full"  # multi-head, grouped-query or multi-query over the whole context
    WINDOW = "window"  # sliding window or fixed chunks of `window` tokens
    LATENT = "latent"  # multi-head latent attention (MLA): one compressed vector a token
    LATENT_SPARSE = "latent_sparse"  # MLA that reads only `index_topk` tokens chosen by an indexer (DSA)
    LINEAR = "linear"  # recurrent state of fixed size (gated delta net and kin)


LATENT_KINDS = frozenset({AttentionKind.LATENT, AttentionKind.LATENT_SPARSE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """The attention of one kind of layer. Elements, not bytes; parameters include biases and norms of the block."""

    kind: AttentionKind
    heads: int
    kv_heads: int
    head_dim: int  # query/key dimension a head (MLA: nope + rope)
    value_dim: int  # value dimension a head
    parameters: int  # of the attention block of one layer
    window: int = 0  # tokens, WINDOW only
    latent_dim: int = 0  # elements cached a token, MLA only: kv_lora_rank + rope dimension
    latent_rank: int = 0  # kv_lora_rank, MLA only (absorbed attention multiplies in this rank)
    index_topk: int = 0  # tokens read, LATENT_SPARSE only
    index_heads: int = 0
    index_dim: int = 0
    state_elements: int = 0  # recurrent and convolution state a sequence and layer, LINEAR only


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedForward:
    """The feed-forward part of one kind of layer. `experts == 0` means dense."""

    dense_parameters: int = 0  # of the dense block of one layer (also parallel to experts where a model has both)
    experts: int = 0
    active_experts: int = 0
    expert_parameters: int = 0  # of one routed expert
    shared_parameters: int = 0  # of all shared experts of one layer
    router_parameters: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerGroup:
    """`count` layers that are alike."""

    count: int
    attention: Attention
    feed_forward: FeedForward
    norm_parameters: int = 0  # norms outside the attention block, of one layer


@dataclass(frozen=True, slots=True, kw_only=True)
class Llm:
    """A language model as its config.json describes it."""

    name: str
    title: str
    aliases: tuple[str, ...]
    family: str  # Hugging Face `model_type`
    hidden_size: int
    vocabulary: int
    max_context_tokens: int
    tied_embeddings: bool
    layers: tuple[LayerGroup, ...]
    final_norm_parameters: int  # and what old models have beside it: learned positions, norm of the embedding
    native_precision: str  # of the published checkpoint
    precisions: tuple[str, ...]  # published or commonly served precisions
    precision_aliases: Mapping[str, str] = field(default_factory=dict)  # what people call a precision -> what it is
    quality_losses: Mapping[str, float] = field(default_factory=dict)  # precision -> share of the score that it loses
    kv_quality_losses: Mapping[str, float] = field(default_factory=dict)  # the same of cache precisions
    kept_wider: Mapping[str, str] = field(default_factory=dict)  # precision -> what published checkpoints of it leave
    mtp_layers: int = 0  # multi-token-prediction modules shipped with the checkpoint
    mtp_parameters: int = 0  # of one module, without the embedding and head that it shares with the model
    published_total_parameters: float | None = None
    published_active_parameters: float | None = None
    published_note: str = ""  # what the published counts leave out
    source: str = ""
    observed_on: str = ""
    note: str = ""

    @property
    def layer_count(self) -> int:
        """Number of transformer layers, multi-token-prediction modules not counted."""
        return sum(group.count for group in self.layers)

    @property
    def kv_shards(self) -> int:
        """Ways that tensor parallelism can split the cache before it copies it: key-value heads, 1 if it is latent."""
        return max(1 if group.attention.kind in LATENT_KINDS else group.attention.kv_heads for group in self.layers)

    def quality_loss(self, precision: str, kv_precision: str = WIDE_CACHE) -> float:
        """Return the share of a benchmark's score that weights and cache lose against the published checkpoint.

        1 - (1 - loss of the weights)(1 - loss of the cache): they were published one at a time. The checkpoint's own
        precision and a cache in 16 bits lose nothing; infinite where nobody published a figure.
        """
        weights = 0.0 if precision == self.native_precision else self.quality_losses.get(precision, math.inf)
        cache = 0.0 if kv_precision == WIDE_CACHE else self.kv_quality_losses.get(kv_precision, math.inf)
        return 1.0 - (1.0 - weights) * (1.0 - cache) if weights + cache < math.inf else math.inf
