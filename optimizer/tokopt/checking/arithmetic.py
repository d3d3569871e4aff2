"""Bytes and FLOPs of a language model, added up layer group by layer group in plain numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tokopt.domain.accelerators import Precision
from tokopt.domain.llms import Attention, AttentionKind, LayerGroup, Llm
from tokopt.domain.speculators import Speculator

LATENT_KINDS = (AttentionKind.LATENT, AttentionKind.LATENT_SPARSE)
STATE_ELEMENT_BYTES = 4.0  # recurrent state of linear attention is kept in FP32
INDEX_ELEMENT_BYTES = 1.0  # keys of a sparse-attention indexer are cached in FP8


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionGroup:
    """Cache and score-value products of one group of layers, all layers of the group together."""

    layers: int
    cache_bytes_per_token: float  # [B/token]
    cache_shards: int  # ways that tensor parallelism splits the cache; wider, it copies
    window_tokens: float  # tokens that stay cached
    read_tokens: float  # tokens that a step reads at most
    state_bytes: float  # a sequence [B]
    decode_flop_per_pair: float  # a query token against a cached token [FLOP]
    prefill_flop_per_pair: float
    index_bytes_per_token: float
    index_flop_per_pair: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LlmSums:
    """Parameters and bytes of a whole model under one weight and one cache precision."""

    layers: int
    recurrent_layers: int  # with linear attention
    choosing_layers: int  # with sparse attention: they choose what they attend to
    hidden_size: int
    heads: int  # of attention, in the layer that has most
    plain_projection_parameters: float
    latent_projection_parameters: float
    projection_bytes: float
    dense_parameters: float  # dense and shared feed-forward, routers, norms
    dense_bytes: float
    expert_layers: int
    experts: int  # routed, a layer
    active_experts: int
    expert_parameters: float  # of one
    expert_bytes: float
    embedding_bytes: float  # 0 where the head is the embedding again
    head_parameters: float
    head_bytes: float
    draft_modules: (
        float  # passes through a module like a layer, and the head, a draft token: 1, or 0 where something else drafts
    )
    draft_parameters: float  # of one multi-token-prediction module, its experts left out
    draft_bytes: float
    attention: tuple[AttentionGroup, ...]
    drafter: LlmSums | None = None  # of what drafts besides the model

    @property
    def dense_weight_bytes(self) -> float:
        """All weights of a model without experts. [B]"""
        return self.projection_bytes + self.dense_bytes + self.embedding_bytes + self.head_bytes

    def cache_bytes(self, tokens: float) -> float:
        """Cache of one sequence of `tokens` tokens before any copying. [B]"""
        return sum(group_cache_bytes(group, tokens) for group in self.attention)


def group_cache_bytes(group: AttentionGroup, tokens: float) -> float:
    """Cache of one sequence in one group of layers: kept tokens, indexer keys of all tokens, and fixed state. [B]"""
    kept = group.cache_bytes_per_token * min(tokens, group.window_tokens)
    return kept + group.index_bytes_per_token * tokens + group.state_bytes


def llm_sums(llm: Llm, precision: Precision, kv_bits: float, speculator: Speculator | None = None) -> LlmSums:
    """Return a model's sums with weights in `precision` and a cache of `kv_bits` bits an element.

    What drafts is `speculator`, or the checkpoint's own modules where it is None.

    Bytes = parameters · stored bits / 8; one FLOP pair a parameter and token (Kaplan et al., arXiv 2001.08361, §2.1).
    """
    plain = latent = projection_bytes = dense = dense_bytes = 0.0
    for group in llm.layers:
        parameters = float(group.count * group.attention.parameters)
        if group.attention.kind in LATENT_KINDS:
            latent += parameters
            projection_bytes += parameters * precision.latent_attention_bits / 8.0
        else:
            plain += parameters
            projection_bytes += parameters * precision.attention_bits / 8.0
        ffn = group.feed_forward
        narrow = group.count * (ffn.dense_parameters + ffn.shared_parameters)
        wide = group.count * (ffn.router_parameters + group.norm_parameters)
        dense += narrow + wide
        dense_bytes += (narrow * precision.ffn_bits + wide * precision.other_bits) / 8.0
    routed = [group for group in llm.layers if group.feed_forward.experts]
    expert = routed[0].feed_forward if routed else None
    table = float(llm.vocabulary * llm.hidden_size)
    expert_parameters = float(expert.expert_parameters) if expert else 0.0
    drafts = llm.mtp_layers > 0 and speculator is None
    drafter = None
    if speculator is not None and speculator.drafter is not None and speculator.precision is not None:
        drafter = llm_sums(speculator.drafter, speculator.precision, kv_bits)
    module_experts = expert.experts * expert_parameters if expert else 0.0
    return LlmSums(
        layers=llm.layer_count,
        recurrent_layers=_count(llm, AttentionKind.LINEAR),
        choosing_layers=_count(llm, AttentionKind.LATENT_SPARSE),
        hidden_size=llm.hidden_size,
        heads=max(group.attention.heads for group in llm.layers),
        plain_projection_parameters=plain,
        latent_projection_parameters=latent,
        projection_bytes=projection_bytes,
        dense_parameters=dense,
        dense_bytes=dense_bytes,
        expert_layers=sum(group.count for group in routed),
        experts=expert.experts if expert else 0,
        active_experts=expert.active_experts if expert else 0,
        expert_parameters=expert_parameters,
        expert_bytes=expert_parameters * precision.ffn_bits / 8.0,
        embedding_bytes=0.0 if llm.tied_embeddings else table * precision.other_bits / 8.0,
        head_parameters=table,
        head_bytes=table * precision.other_bits / 8.0,
        draft_modules=1.0 if speculator is None else 0.0,
        draft_parameters=max(llm.mtp_parameters - module_experts, 0.0) if drafts else 0.0,
        draft_bytes=llm.mtp_parameters * precision.ffn_bits / 8.0 if drafts else 0.0,
        attention=tuple(attention_group(group, kv_bits / 8.0) for group in llm.layers),
        drafter=drafter,
    )


def _count(llm: Llm, kind: AttentionKind) -> int:
    return sum(group.count for group in llm.layers if group.attention.kind is kind)


def attention_group(group: LayerGroup, element_bytes: float) -> AttentionGroup:
    """Return the cache and products of a group of layers by its kind of attention."""
    kind = group.attention.kind
    if kind is AttentionKind.LINEAR:
        return _linear(group.attention, group.count)
    if kind in LATENT_KINDS:
        return _latent(group.attention, group.count, element_bytes)
    return _multi_head(group.attention, group.count, element_bytes)


def _linear(shape: Attention, count: int) -> AttentionGroup:
    """Linear attention: a state of fixed size, no cache that grows."""
    return AttentionGroup(
        layers=count,
        cache_bytes_per_token=0.0,
        cache_shards=shape.kv_heads,
        window_tokens=0.0,
        read_tokens=0.0,
        state_bytes=count * shape.state_elements * STATE_ELEMENT_BYTES,
        decode_flop_per_pair=0.0,
        prefill_flop_per_pair=0.0,
        index_bytes_per_token=0.0,
        index_flop_per_pair=0.0,
    )


def _latent(shape: Attention, count: int, element_bytes: float) -> AttentionGroup:
    """Latent attention: one vector a token for all heads (DeepSeek-V2, arXiv 2405.04434, §2.1); sparse: of few tokens.

    Decoding multiplies in the latent space (rank + rope for scores, rank for values), prefill head by head.
    """
    sparse = shape.kind is AttentionKind.LATENT_SPARSE
    return AttentionGroup(
        layers=count,
        cache_bytes_per_token=count * shape.latent_dim * element_bytes,
        cache_shards=1,
        window_tokens=math.inf,
        read_tokens=float(shape.index_topk) if sparse else math.inf,
        state_bytes=0.0,
        decode_flop_per_pair=2.0 * count * shape.heads * (shape.latent_dim + shape.latent_rank),
        prefill_flop_per_pair=2.0 * count * shape.heads * (shape.head_dim + shape.value_dim),
        index_bytes_per_token=count * shape.index_dim * INDEX_ELEMENT_BYTES if sparse else 0.0,
        index_flop_per_pair=2.0 * count * shape.index_heads * shape.index_dim if sparse else 0.0,
    )


def _multi_head(shape: Attention, count: int, element_bytes: float) -> AttentionGroup:
    """Multi-head and grouped-query attention: keys and values of each key-value head, of a window or of all tokens."""
    window = float(shape.window) if shape.kind is AttentionKind.WINDOW else math.inf
    products = 2.0 * count * shape.heads * (shape.head_dim + shape.value_dim)
    return AttentionGroup(
        layers=count,
        cache_bytes_per_token=count * shape.kv_heads * (shape.head_dim + shape.value_dim) * element_bytes,
        cache_shards=shape.kv_heads,
        window_tokens=window,
        read_tokens=window,
        state_bytes=0.0,
        decode_flop_per_pair=products,
        prefill_flop_per_pair=products,
        index_bytes_per_token=0.0,
        index_flop_per_pair=0.0,
    )
