"""Serving features: what a framework may have on an accelerator, and which of them a request can do without."""

from __future__ import annotations

from enum import StrEnum, unique


@unique
class Feature(StrEnum):
    """What a framework supports beyond running a model at all."""

    MTP = "mtp"  # speculation with the draft modules of the checkpoint
    EAGLE3 = "eagle3"  # speculation with a head trained for the model
    DRAFT_MODEL = "draft_model"  # speculation with a small model
    NGRAM = "ngram"  # speculation with what stood in the text before
    DISAGG = "disagg"  # prefill and decode in pools of their own
    EXPERT_PARALLEL = "expert_parallel"  # experts spread over accelerators
    ATTENTION_DP = "attention_dp"  # attention-data-parallel ranks in front of shared experts
    PIPELINE_PARALLEL = "pipeline_parallel"
    CHUNKED_PIPELINE = "chunked_pipeline"  # chunks of one prompt are on several pipeline stages at a time
    PREFILL_CONTEXT_PARALLEL = "prefill_context_parallel"  # a prompt's tokens split over copies of attention ranks
    DECODE_CONTEXT_PARALLEL = "decode_context_parallel"  # the cache's tokens split where tp would copy it
    PREFIX_CACHING = "prefix_caching"
    CHUNKED_PREFILL = "chunked_prefill"
    CUDA_GRAPHS = "cuda_graphs"  # launches of a decode step captured once and replayed as one
    OVERLAP_SCHEDULING = "overlap_scheduling"  # the next step is scheduled while this one runs
    KV_ROUTING = "kv_routing"  # a router that sends requests to where their prefix is cached
    KV_OFFLOAD = "kv_offload"  # caches that continue in host memory or on SSD
    TWO_BATCH_OVERLAP = "two_batch_overlap"  # one half of a step exchanges while the other computes
    EXPERT_REDUNDANCY = "expert_redundancy"  # copies of popular experts, placed by their load
    HEAD_PADDING = "head_padding"  # tensor parallelism that does not divide the heads


# Those that the search decides about, so that a request can be told to do without.
SWITCHABLE = (
    Feature.MTP,
    Feature.EAGLE3,
    Feature.DRAFT_MODEL,
    Feature.NGRAM,
    Feature.DISAGG,
    Feature.EXPERT_PARALLEL,
    Feature.ATTENTION_DP,
    Feature.PIPELINE_PARALLEL,
    Feature.PREFILL_CONTEXT_PARALLEL,
    Feature.DECODE_CONTEXT_PARALLEL,
    Feature.TWO_BATCH_OVERLAP,
    Feature.EXPERT_REDUNDANCY,
    Feature.PREFIX_CACHING,
    Feature.KV_ROUTING,
    Feature.KV_OFFLOAD,
    Feature.CHUNKED_PREFILL,
    Feature.CUDA_GRAPHS,
    Feature.OVERLAP_SCHEDULING,
)

# Those that every engine that has them runs with, so that what was measured had them: a deployment says which it lacks.
ON_BY_DEFAULT = (Feature.CHUNKED_PREFILL, Feature.CUDA_GRAPHS, Feature.OVERLAP_SCHEDULING)
# Those of them that spare the accelerator a wait for its host.
HIDING_THE_HOST = (Feature.CUDA_GRAPHS, Feature.OVERLAP_SCHEDULING)
