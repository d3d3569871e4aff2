"""Bytes and FLOPs of a language model under a precision: the numbers that the step times are made of.

Sums over all layers of a model are kept whole here; `step` divides them by the parallel layout.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tokopt.domain.accelerators import Precision
from tokopt.domain.llms import Attention, AttentionKind, Llm
from tokopt.domain.speculators import Speculator
from tokopt.perf.arrays import Floats

BITS_PER_BYTE = 8.0
INDEX_KEY_BYTES = 1.0  # the sparse-attention indexer caches its keys in FP8 (DeepSeek-V3.2 report, 2025)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionCost:
    """Cost of the cache and the score-value products of all layers of one attention kind."""

    layers: int
    kv_bytes_per_token: float  # cached, all layers of the kind [B/token]
    kv_shards: int  # ways that tensor parallelism can split the cache before it has to copy it
    read_limit_tokens: float  # at most this many cached tokens are read a step
    resident_limit_tokens: float  # at most this many tokens stay cached a sequence
    state_bytes: float  # fixed state a sequence, all layers [B]
    decode_flop_per_pair: float  # a query token against one cached token, all layers [FLOP]
    prefill_flop_per_pair: float
    index_bytes_per_token: float  # indexer keys, all layers: read over the whole context [B/token]
    index_flop_per_pair: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LlmArithmetic:
    """A model's weights in bytes and parameters, by what reads or multiplies them, under one precision.

    Fields are numbers, or arrays of one element a row where models are stacked (`perf.stacking`).
    """

    layers: int
    moe_layers: int
    linear_layers: int  # with recurrent attention
    sparse_layers: int  # that choose the tokens they attend to
    hidden_size: int
    heads: int
    projection_parameters: float  # attention projections, all layers but those of latent attention
    latent_projection_parameters: float  # of latent attention, whose checkpoints may keep a wider format
    projection_bytes: float  # of both
    dense_parameters: float  # dense feed-forward, shared experts and routers, all layers
    dense_bytes: float
    experts: int  # routed experts a layer; 0 = dense model
    active_experts: int
    expert_parameters: float  # one routed expert of one layer
    expert_bytes: float
    embedding_bytes: float
    head_parameters: float
    head_bytes: float
    draft_modules: float  # 1: drafts pass a module like one of the layers, and the head; 0: something else drafts
    draft_parameters: float  # dense and projection parameters of one multi-token-prediction module
    draft_bytes: float  # all bytes that one module adds to memory
    max_expert_split: int  # no expert can be cut into more tensor-parallel slices than this
    attention: tuple[AttentionCost, ...]
    drafter: LlmArithmetic | None = None  # what drafts besides the model: a head or a model of its own

    @property
    def expert_total_bytes(self) -> float:
        """Bytes of all routed experts of all layers. [B]"""
        return self.moe_layers * self.experts * self.expert_bytes

    @property
    def weight_bytes(self) -> float:
        """Bytes of all weights, multi-token-prediction modules left out. [B]"""
        return (
            self.projection_bytes + self.dense_bytes + self.expert_total_bytes + self.embedding_bytes + self.head_bytes
        )


def llm_arithmetic(
    llm: Llm, precision: Precision, kv_bits: float, speculator: Speculator | None = None
) -> LlmArithmetic:
    """Return the arithmetic of `llm` with weights in `precision` and a cache of `kv_bits` bits an element.

    Tokens are drafted by `speculator`, or by the modules that the checkpoint ships where it is None.

    FLOPs a token follow the usual count of two per parameter that multiplies (Kaplan et al., arXiv 2001.08361, §2.1);
    cache bytes a token follow the attention kind (grouped-query: 2 x kv heads x head dimension; latent: rank + rope
    dimension, DeepSeek-V2, arXiv 2405.04434, §2.1).

    Raises:
        ValueError: Layers disagree about the size of a routed expert.
    """
    latent = {AttentionKind.LATENT, AttentionKind.LATENT_SPARSE}
    projection = latent_projection = projection_bytes = dense = dense_bytes = 0.0
    moe_layers = experts = active = expert = 0
    for group in llm.layers:
        is_latent = group.attention.kind in latent
        bits = precision.latent_attention_bits if is_latent else precision.attention_bits
        if is_latent:
            latent_projection += group.count * group.attention.parameters
        else:
            projection += group.count * group.attention.parameters
        projection_bytes += group.count * group.attention.parameters * bits / BITS_PER_BYTE
        ffn = group.feed_forward
        quantised = group.count * (ffn.dense_parameters + ffn.shared_parameters)
        wide = group.count * (ffn.router_parameters + group.norm_parameters)
        dense += quantised + wide
        dense_bytes += (quantised * precision.ffn_bits + wide * precision.other_bits) / BITS_PER_BYTE
        if ffn.experts:
            if expert and (ffn.expert_parameters, ffn.experts) != (expert, experts):
                raise ValueError(f"{llm.name}: routed experts differ between layers")
            moe_layers += group.count
            experts, active, expert = ffn.experts, ffn.active_experts, ffn.expert_parameters
    embedding = float(llm.vocabulary * llm.hidden_size)
    wide_bytes = precision.other_bits / BITS_PER_BYTE
    own_modules = llm.mtp_layers > 0 and speculator is None
    return LlmArithmetic(
        layers=llm.layer_count,
        moe_layers=moe_layers,
        linear_layers=_layers_of(llm, AttentionKind.LINEAR),
        sparse_layers=_layers_of(llm, AttentionKind.LATENT_SPARSE),
        hidden_size=llm.hidden_size,
        heads=max(group.attention.heads for group in llm.layers),
        projection_parameters=projection,
        latent_projection_parameters=latent_projection,
        projection_bytes=projection_bytes,
        dense_parameters=dense,
        dense_bytes=dense_bytes,
        experts=experts,
        active_experts=active,
        expert_parameters=float(expert),
        expert_bytes=expert * precision.ffn_bits / BITS_PER_BYTE,
        embedding_bytes=0.0 if llm.tied_embeddings else embedding * wide_bytes,
        head_parameters=embedding,
        head_bytes=embedding * wide_bytes,
        draft_modules=0.0 if speculator else 1.0,
        draft_parameters=float(max(llm.mtp_parameters - experts * expert, 0)) if own_modules else 0.0,
        draft_bytes=llm.mtp_parameters * precision.ffn_bits / BITS_PER_BYTE if own_modules else 0.0,
        max_expert_split=max(1, expert // (3 * llm.hidden_size * 64)) if expert else 1,
        attention=_attention_costs(llm, kv_bits),
        drafter=_drafter(speculator, kv_bits),
    )


def _drafter(speculator: Speculator | None, kv_bits: float) -> LlmArithmetic | None:
    if speculator is None or speculator.drafter is None or speculator.precision is None:
        return None
    return llm_arithmetic(speculator.drafter, speculator.precision, kv_bits)


def _layers_of(llm: Llm, kind: AttentionKind) -> int:
    return sum(group.count for group in llm.layers if group.attention.kind is kind)


def _attention_costs(llm: Llm, kv_bits: float) -> tuple[AttentionCost, ...]:
    by_shape: dict[Attention, int] = {}
    for group in llm.layers:
        # Layers that differ only in their projections cache and read alike.
        by_shape[group.attention] = by_shape.get(group.attention, 0) + group.count
    return tuple(_attention_cost(shape, count, kv_bits / BITS_PER_BYTE) for shape, count in by_shape.items())


def _attention_cost(shape: Attention, layers: int, kv_bytes: float) -> AttentionCost:
    infinite = float("inf")
    scores = 2.0 * layers * shape.heads * (shape.head_dim + shape.value_dim)
    if shape.kind is AttentionKind.LINEAR:
        return AttentionCost(
            layers=layers,
            kv_bytes_per_token=0.0,
            kv_shards=shape.kv_heads,
            read_limit_tokens=0.0,
            resident_limit_tokens=0.0,
            state_bytes=layers * shape.state_elements * 4.0,  # recurrent state is kept in FP32
            decode_flop_per_pair=0.0,
            prefill_flop_per_pair=0.0,
            index_bytes_per_token=0.0,
            index_flop_per_pair=0.0,
        )
    if shape.kind in (AttentionKind.LATENT, AttentionKind.LATENT_SPARSE):
        sparse = shape.kind is AttentionKind.LATENT_SPARSE
        return AttentionCost(
            layers=layers,
            kv_bytes_per_token=layers * shape.latent_dim * kv_bytes,
            kv_shards=1,
            read_limit_tokens=float(shape.index_topk) if sparse else infinite,
            resident_limit_tokens=infinite,
            state_bytes=0.0,
            decode_flop_per_pair=2.0 * layers * shape.heads * (shape.latent_dim + shape.latent_rank),
            prefill_flop_per_pair=scores,
            index_bytes_per_token=layers * shape.index_dim * INDEX_KEY_BYTES if sparse else 0.0,
            index_flop_per_pair=2.0 * layers * shape.index_heads * shape.index_dim if sparse else 0.0,
        )
    window = float(shape.window) if shape.kind is AttentionKind.WINDOW else infinite
    return AttentionCost(
        layers=layers,
        kv_bytes_per_token=layers * shape.kv_heads * (shape.head_dim + shape.value_dim) * kv_bytes,
        kv_shards=shape.kv_heads,
        read_limit_tokens=window,
        resident_limit_tokens=window,
        state_bytes=0.0,
        decode_flop_per_pair=scores,
        prefill_flop_per_pair=scores,
        index_bytes_per_token=0.0,
        index_flop_per_pair=0.0,
    )


def resident_kv_bytes(model: LlmArithmetic, tokens: Floats) -> Floats:
    """Cache of one sequence of `tokens` tokens, all layers, before any copying by tensor parallelism. [B]"""
    total: Floats = 0.0
    for part in model.attention:
        cached = part.kv_bytes_per_token * np.minimum(tokens, part.resident_limit_tokens)
        total = total + cached + part.index_bytes_per_token * tokens + part.state_bytes
    return total
