"""Published facts about speculation as tests of shape: where it helps, and where it stops helping.

Nothing was fitted to gains. Bands are wide where another version of an engine, another checkpoint or temperature was
measured.
"""

from __future__ import annotations

import pytest

import tokopt
from tokopt.catalog import Catalog
from tokopt.domain.speculation import SpeculationTable
from tokopt.domain.workloads import Workload

CHAT = Workload(name="MT-bench", input_tokens=128, output_tokens=512, domain="chat")  # type: ignore[arg-type]


def gains(table: SpeculationTable, depth: int) -> dict[int, float]:
    return {row.batch: row.cells[depth].gain for row in table.rows}


def test_eagle3_gain_falls_with_the_batch_and_stays(catalog: Catalog) -> None:
    """EAGLE-3, arXiv 2503.01840, table 3: Llama 3.1 8B, H100, SGLang, chains of 3: 1.81x at batch 2, 1.38x at 64."""
    table = tokopt.speculation_table(
        model="llama-3.1-8b", gpu="h100_sxm", framework="sglang", workload=CHAT, batches=[2, 8, 16, 64], catalog=catalog
    )
    found = gains(table, 3)
    assert found[2] > found[8] > found[16] > found[64] > 1.0
    assert found[2] == pytest.approx(1.81, rel=0.25)
    assert found[64] == pytest.approx(1.38, rel=0.35)


def test_the_best_depth_of_a_chain_is_a_few_tokens_and_falls_with_the_batch(catalog: Catalog) -> None:
    """vLLM issue 20780: EAGLE-3 on Llama 3.1 8B at batch 1 is fastest with 4 of 2 to 7 tokens."""
    table = tokopt.speculation_table(
        model="llama-3.1-8b", gpu="h100_sxm", workload=CHAT, batches=[1, 32, 128], catalog=catalog
    )
    best = [row.best_depth for row in table.rows]
    assert best[0] in (3, 4, 5)
    assert best[0] >= best[1] >= best[2]  # type: ignore[operator]


def test_a_draft_model_gains_at_low_load_and_loses_at_high(catalog: Catalog) -> None:
    """vLLM blog, 2024-10-17: a draft model on 4 H100 is up to 1.5x faster at low load, and 1.4x slower at high load."""
    table = tokopt.speculation_table(
        model="qwen3-32b", gpu="h100_sxm", tp=4, speculator="draft-qwen3-1.7b", workload=CHAT, catalog=catalog
    )
    found = gains(table, 3)
    assert 1.1 < found[1] < 1.8
    assert found[1024] < 1.0
    assert table.rows[-1].loses == (1, 2, 3)


def test_ngrams_gain_at_low_load_and_lose_at_high(catalog: Catalog) -> None:
    """The same: n-grams for summaries with Llama 3 70B, up to 2.8x at low load, 1.8x slower at high load."""
    table = tokopt.speculation_table(
        model="llama-3-70b",
        gpu="h100_sxm",
        tp=4,
        speculator="ngram",
        workload="summarise",
        isl=1000,
        osl=100,
        batches=[1, 512],
        catalog=catalog,
    )
    assert gains(table, 5)[1] > 1.5
    assert gains(table, 7)[512] < gains(table, 5)[512] < 0.85 * gains(table, 5)[1]


def test_heads_that_accept_little_lose_at_serving_load(catalog: Catalog) -> None:
    """TensorRT LLM's blog 7: n-grams accept 1.37 to 1.66 tokens in chats; in large batches a wide step costs more."""
    table = tokopt.speculation_table(
        model="llama-3.1-8b", gpu="h100_sxm", speculator="ngram", workload=CHAT, batches=[1, 256], catalog=catalog
    )
    assert gains(table, 5)[1] > 1.2
    assert gains(table, 5)[256] < 1.0


def test_mtp_helps_less_as_the_batch_grows(catalog: Catalog) -> None:
    """SGLang, 2025-07-17: DeepSeek V3 gains 1.35x with few requests a rank, 1.14x with 128 a rank (one draft)."""
    few = tokopt.speculation_table(
        model="deepseek-v3",
        gpu="h200_sxm",
        prefill="1xtp8",
        decode="1xtp1dp16ep16",
        isl=2000,
        osl=1000,
        batches=[32, 2048],
        catalog=catalog,
    )
    found = gains(few, 1)
    assert found[32] > found[2048]
    assert 1.0 < found[2048] < 1.45


def test_published_lengths_are_what_steps_yield(catalog: Catalog) -> None:
    """Acceptance of the catalog against cards: Nebius, K = 7; TensorRT LLM's blog 7, v = 7, translation."""
    for name, domain, depth, published in (
        ("eagle3-llama-3.3-70b", "chat", 7, 3.89),
        ("eagle3-llama-3.3-70b", "code", 7, 5.08),
        ("eagle3-gpt-oss-20b", "math", 7, 3.65),
        ("ngram", "translation", 7, 3.44),
    ):
        speculator = catalog.speculators[name]
        llm = (speculator.llms or ("llama-3.1-8b",))[0]
        shape = Workload(name="any", input_tokens=100, output_tokens=100, domain=domain)  # type: ignore[arg-type]
        table = tokopt.speculation_table(
            model=llm, gpu="b200_sxm", tp=8, speculator=name, workload=shape, batches=[1], catalog=catalog
        )
        assert table.rows[0].cells[depth].tokens_per_step == pytest.approx(published, abs=1e-6)
