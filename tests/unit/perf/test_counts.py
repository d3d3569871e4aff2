"""Parameters by kind: sums by hand on a small model, and known splits of large ones."""

from dataclasses import replace
from pathlib import Path

import pytest

from tokopt.catalog.llms import load_llms
from tokopt.domain.llms import Attention, AttentionKind, FeedForward, LayerGroup, Llm
from tokopt.perf.counts import parameter_counts

LLMS = load_llms(Path(__file__).parents[3] / "catalogs" / "llms")
ATTENTION = Attention(kind=AttentionKind.FULL, heads=2, kv_heads=1, head_dim=4, value_dim=4, parameters=100)
SMALL = Llm(
    name="small",
    title="Small",
    aliases=(),
    family="none",
    hidden_size=8,
    vocabulary=50,
    max_context_tokens=16,
    tied_embeddings=False,
    layers=(
        LayerGroup(count=1, attention=ATTENTION, feed_forward=FeedForward(dense_parameters=70), norm_parameters=16),
        LayerGroup(
            count=3,
            attention=ATTENTION,
            feed_forward=FeedForward(
                experts=4, active_experts=2, expert_parameters=30, shared_parameters=11, router_parameters=5
            ),
            norm_parameters=16,
        ),
    ),
    final_norm_parameters=8,
    native_precision="bf16",
    precisions=("bf16",),
    mtp_layers=1,
    mtp_parameters=10**6,
)


def test_by_hand() -> None:
    counts = parameter_counts(SMALL)
    assert (counts.attention, counts.dense_ffn, counts.shared_experts, counts.router) == (400, 70, 33, 15)
    assert (counts.routed_experts, counts.active_routed_experts) == (360, 180)
    assert (counts.norms, counts.embedding, counts.head) == (72, 400, 400)
    assert counts.total == 400 + 70 + 33 + 15 + 360 + 72 + 800
    assert counts.active == counts.total - 180


def test_a_tied_head_is_counted_once() -> None:
    tied = parameter_counts(replace(SMALL, tied_embeddings=True))
    assert tied.head == 0
    assert tied.total == parameter_counts(SMALL).total - 400


@pytest.mark.parametrize("name", sorted(LLMS))
def test_active_never_exceeds_total(name: str) -> None:
    counts = parameter_counts(LLMS[name])
    assert 0 < counts.active <= counts.total
    assert (counts.active == counts.total) == (counts.routed_experts == 0)


@pytest.mark.parametrize(
    ("name", "total"),
    [
        ("llama-3.1-8b", 8_030_261_248),
        ("llama-3.1-70b", 70_553_706_496),
        ("llama-2-7b", 6_738_415_616),
        ("llama-2-13b", 13_015_864_320),
        ("llama-2-70b", 68_976_648_192),
        ("mistral-7b", 7_241_732_096),
        ("mistral-7b-v0.3", 7_248_023_552),
        ("mixtral-8x7b", 46_702_792_704),
        ("qwen2-7b", 7_615_616_512),
    ],
)
def test_exact_sizes_of_checkpoints(name: str, total: int) -> None:
    """To the last parameter: `total` of the safetensors metadata on Hugging Face."""
    assert parameter_counts(LLMS[name]).total == total


def test_gpt_oss_table() -> None:
    """The gpt-oss model card, arXiv:2508.10925, table 1: MLP 114.71B, attention 0.96B, embed and unembed 1.16B."""
    counts = parameter_counts(LLMS["gpt-oss-120b"])
    assert counts.routed_experts + counts.router == pytest.approx(114.71e9, rel=1e-3)
    assert counts.attention == pytest.approx(0.96e9, rel=0.01)
    assert counts.embedding + counts.head == pytest.approx(1.16e9, rel=0.01)
