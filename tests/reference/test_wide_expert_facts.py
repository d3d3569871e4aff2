"""Published facts about wide expert parallelism as tests of shape: two-batch overlap and balanced experts.

LMSYS, "Deploying DeepSeek with PD Disaggregation and Large-scale Expert Parallelism on 96 H100 GPUs" (2025-05-05), with
overlap switched on whatever the batch. Nothing was fitted to these gains.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tokopt.api.expert_traffic import popularity_spread
from tokopt.api.resolved import Resolved
from tokopt.catalog import Catalog
from tokopt.perf.layouts import Layouts
from tokopt.perf.step import expert_exchange_s, worker_steps
from tokopt.perf.two_batch import two_batch_steps


@pytest.fixture(scope="module")
def h100(resolved: Callable[..., Resolved]) -> Resolved:
    return resolved("deepseek-r1", "h100_sxm", "fp8", "fp8", framework="sglang")


def gain(found: Resolved, ranks: float, *, sequences: float = 0.0, prompt: float = 0.0, context: float = 0.0) -> float:
    """Throughput that halves gain, forced on: 0.25 = a quarter more."""
    where = Layouts(tp=1.0, pp=1.0, ep=ranks, dp=ranks)
    whole = worker_steps(found.model, found.machine, where, width=1.0, context=context, prefill_context=context)
    exchanges = expert_exchange_s(found.model, found.machine, where, 0.0)
    halves = two_batch_steps(whole, exchanges, found.model, found.machine, where, width=1.0, modules=0.0)
    one, two = (steps(sequences=sequences, prefill_tokens=prompt) for steps in (whole, halves))
    return float(one.total / two.total) - 1.0


@pytest.mark.parametrize("tokens", [4096.0, 8192.0, 16384.0])
def test_prefill_gains_27_to_35_percent(h100: Resolved, tokens: float) -> None:
    """32 H100: 27 to 35 % more at the same tokens a device."""
    assert 0.24 < gain(h100, 32.0, prompt=tokens, context=2000.0) < 0.38


def test_decode_gains_a_quarter_at_256_tokens(h100: Resolved) -> None:
    """72 H100, 2,000 tokens of context: +25.5 % at 256 tokens a device."""
    assert gain(h100, 72.0, sequences=256.0, context=2000.0) == pytest.approx(0.255, abs=0.06)


def test_it_gains_less_in_small_batches_and_loses_in_the_smallest(h100: Resolved) -> None:
    """Published: a loss of 27 % at 32 tokens a device, and break-even between 64 and 128.

    The model breaks even at a dozen tokens: docs/accuracy.md says so. Engines' thresholds keep plans out of there.
    """
    found = [gain(h100, 72.0, sequences=n, context=2000.0) for n in (4.0, 32.0, 64.0, 128.0, 256.0)]
    assert found == sorted(found)
    assert found[0] < 0.0 < found[2]


def test_longer_attention_hides_as_much(h100: Resolved) -> None:
    """128 sequences of two tokens a step with slow attention: +35 %; the model has the same sign and half the size."""
    assert 0.12 < gain(h100, 72.0, sequences=128.0, context=4000.0) < 0.36


def test_balanced_experts_are_worth_half_as_much_again_and_more(h100: Resolved, catalog: Catalog) -> None:
    """EPLB: 1.49 times the throughput in prefill on 32 GPUs, 2.54 times in decode on 72."""
    skewed = replace(h100.machine, popularity_spread=popularity_spread(catalog, "skewed"))

    def times(ranks: float, sequences: float, prompt: float) -> float:
        both = []
        for copies in (0.0, 32.0):
            where = Layouts(tp=1.0, pp=1.0, ep=ranks, dp=ranks, redundant_experts=copies)
            steps = worker_steps(h100.model, skewed, where, width=1.0, context=2000.0, prefill_context=1000.0)
            both.append(float(steps(sequences=sequences, prefill_tokens=prompt).total))
        return both[0] / both[1]

    assert 1.3 < times(32.0, 0.0, 8192.0) < 2.4
    assert 1.9 < times(72.0, 256.0, 0.0) < 3.2
