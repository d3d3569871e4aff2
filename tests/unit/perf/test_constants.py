"""Calibrated constants: links and their inverses, effects of traits that add up, pedigree, ranges."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokopt.catalog import load_catalog
from tokopt.domain.calibration import Calibration, Constants, Effect, Interval, Link, MeasuredRange, Novelty
from tokopt.domain.provenance import Origin
from tokopt.perf.constants import (
    constant_columns,
    constants_for,
    interval_of,
    level_of,
    linked,
    novelty_of,
    scaled_columns,
    stacked_constants,
    traits_of,
    unlinked,
    weakest_origin,
)

CATALOG = load_catalog()
H100, MI300X = CATALOG.accelerators["h100_sxm"], CATALOG.accelerators["mi300x"]
VLLM, SGLANG = CATALOG.frameworks["vllm"], CATALOG.frameworks["sglang"]
FP8 = CATALOG.precisions["fp8"]
LLAMA = "llama-3.1-8b"
ROUND = {"memory_efficiency": 0.5, "step_overhead_s": 1e-3, "expert_imbalance": 1.25}


def effect(constant: str, trait: str, level: str, shift: float) -> Effect:
    return Effect(
        constant=constant, trait=trait, level=level, shift=shift, sd=0.1, rows=3, origin=Origin.FITTED, source="here"
    )


def calibration(*effects: Effect) -> Calibration:
    """The embedded entries with three of round numbers, and these effects alone."""
    entries = dict(CATALOG.calibration.entries)
    entries |= {name: replace(entries[name], value=value) for name, value in ROUND.items()}
    return replace(CATALOG.calibration, entries=entries, effects=effects)


def found(*effects: Effect, accelerator=H100, framework=VLLM, llm: str = LLAMA) -> Constants:
    return constants_for(calibration(*effects), accelerator, framework, FP8, llm)


def test_links_on_paper() -> None:
    assert linked(math.e**2, Link.LOG) == pytest.approx(2.0, rel=1e-15)
    assert linked(0.5, Link.LOGIT) == pytest.approx(0.0, abs=1e-15)
    assert linked(0.75, Link.LOGIT) == pytest.approx(math.log(3.0), rel=1e-15)  # odds of three to one
    assert linked(1.25, Link.EXCESS) == pytest.approx(-2.0 * math.log(2.0), rel=1e-15)
    assert unlinked(math.log(3.0), Link.LOGIT) == pytest.approx(0.75, rel=1e-15)
    assert unlinked(0.0, Link.EXCESS) == 2.0
    assert unlinked(np.array([0.0, math.log(2.0)]), Link.LOG) == pytest.approx([1.0, 2.0], rel=1e-15)


@given(st.sampled_from(list(Link)), st.floats(-30.0, 30.0))
def test_links_there_and_back(link: Link, scaled: float) -> None:
    value = float(unlinked(scaled, link))
    low, high = {Link.LOG: (0.0, math.inf), Link.LOGIT: (0.0, 1.0), Link.EXCESS: (1.0, math.inf)}[link]
    assert low < value < high
    # A share next to one, or a ratio next to it, has few digits left.
    room = abs(1.0 - value) if link is not Link.LOG else 1.0
    assert float(linked(value, link)) == pytest.approx(scaled, rel=1e-9, abs=1e-15 + 1e-15 / room)


@given(st.floats(1e-9, 1e12), st.floats(1e-6, 1 - 1e-6), st.floats(1e-6, 1e6))
def test_values_there_and_back(positive: float, share: float, excess: float) -> None:
    for value, link in ((positive, Link.LOG), (share, Link.LOGIT), (1.0 + excess, Link.EXCESS)):
        assert float(unlinked(linked(value, link), link)) == pytest.approx(value, rel=1e-12)


def test_without_effects_every_constant_is_its_base_value() -> None:
    constants = found()
    for name, entry in calibration().entries.items():
        assert getattr(constants, name) == pytest.approx(entry.value, rel=1e-14), name
        assert constants.origins[name] is entry.origin
        assert constants.sources[name] == entry.source


def test_an_effect_shifts_on_the_scale_of_the_link() -> None:
    three = math.log(3.0)
    constants = found(
        effect("memory_efficiency", "accelerator", "h100_sxm", three),
        effect("step_overhead_s", "framework", "vllm", three),
        effect("expert_imbalance", "llm", LLAMA, three),
    )
    assert constants.memory_efficiency == pytest.approx(0.75, rel=1e-14)  # odds of 1 become 3
    assert constants.step_overhead_s == pytest.approx(3e-3, rel=1e-14)
    assert constants.expert_imbalance == pytest.approx(1.75, rel=1e-14)  # 1 + 3 · 0.25


@pytest.mark.parametrize(
    ("trait", "level"),
    [
        ("accelerator", "h100_sxm"),
        ("generation", "hopper"),
        ("vendor", "nvidia"),
        ("framework", "vllm"),
        ("precision", "fp8"),
        ("llm", LLAMA),
        ("framework+llm", f"vllm+{LLAMA}"),
        ("llm+framework", f"{LLAMA}+vllm"),
        ("accelerator+framework+llm", f"h100_sxm+vllm+{LLAMA}"),
    ],
)
def test_every_trait_and_combination_reaches_its_level(trait: str, level: str) -> None:
    shifted = effect("step_overhead_s", trait, level, math.log(2.0))
    assert found(shifted).step_overhead_s == pytest.approx(2e-3, rel=1e-14)


@pytest.mark.parametrize(
    ("trait", "level"),
    [
        ("accelerator", "mi300x"),
        ("llm", "of-tomorrow"),
        ("framework+llm", f"sglang+{LLAMA}"),
        ("framework+llm", "vllm+llama-3.1-70b"),
        ("framework+llm", f"{LLAMA}+vllm"),  # in another order than the trait's
        ("framework", "vllm+llama-3.1-8b"),
        ("harness", "sweep"),
        ("mode", "agg"),
        ("framework+harness", "vllm+sweep"),
        ("framework+mode", "vllm+agg"),
    ],
)
def test_levels_of_others_leave_a_deployment_alone(trait: str, level: str) -> None:
    assert found(effect("step_overhead_s", trait, level, 5.0)) == found()


def test_effects_of_several_traits_add_up() -> None:
    effects = (
        effect("step_overhead_s", "vendor", "nvidia", math.log(2.0)),
        effect("step_overhead_s", "framework", "vllm", math.log(3.0)),
        effect("step_overhead_s", "framework+llm", f"vllm+{LLAMA}", math.log(5.0)),
        effect("step_overhead_s", "framework", "sglang", math.log(7.0)),
        effect("step_overhead_s", "harness", "sweep", math.log(11.0)),
    )
    assert found(*effects).step_overhead_s == pytest.approx(30e-3, rel=1e-14)
    assert found(*effects, accelerator=MI300X).step_overhead_s == pytest.approx(15e-3, rel=1e-14)
    assert found(*effects, framework=SGLANG).step_overhead_s == pytest.approx(14e-3, rel=1e-14)
    assert found(*effects, llm="of-tomorrow").step_overhead_s == pytest.approx(6e-3, rel=1e-14)
    assert found(*effects).memory_efficiency == pytest.approx(0.5, rel=1e-14)


def test_rows_of_tables_have_traits_that_deployments_lack() -> None:
    traits = traits_of(H100, VLLM, FP8, LLAMA)
    rows = [traits, {**traits, "harness": "sweep"}, {**traits, "harness": "sweep", "mode": "agg"}]
    effects = (
        effect("step_overhead_s", "harness", "sweep", math.log(2.0)),
        effect("step_overhead_s", "framework+mode", "vllm+agg", math.log(3.0)),
    )
    columns = constant_columns(calibration(*effects), rows)
    assert columns["step_overhead_s"] == pytest.approx([1e-3, 2e-3, 6e-3], rel=1e-14)
    scaled = scaled_columns(calibration(*effects), rows)["step_overhead_s"]
    assert np.diff(scaled) == pytest.approx([math.log(2.0), math.log(3.0)], rel=1e-12)
    stacked = stacked_constants(columns)
    assert stacked.memory_efficiency == pytest.approx([0.5] * 3, rel=1e-14)
    assert weakest_origin(stacked.origins.values()) is Origin.PRIOR  # no pedigree travels with rows


def test_levels_of_combinations() -> None:
    traits = {"framework": "vllm", "llm": LLAMA}
    assert level_of(traits, "framework") == "vllm"
    assert level_of(traits, "llm+framework") == f"{LLAMA}+vllm"
    assert level_of(traits, "framework+harness") is None
    assert level_of(traits, "mode") is None


def test_what_was_never_measured() -> None:
    names = {"accelerator+framework": ("h100_sxm+vllm", "other+sglang"), "llm": (LLAMA,)}
    known = replace(calibration(), measured=MeasuredRange(names=names))
    traits = {"accelerator": "h100_sxm", "framework": "vllm", "llm": LLAMA}
    assert novelty_of(known, traits) is Novelty.MEASURED
    assert novelty_of(known, {**traits, "llm": "other"}) is Novelty.NEW_LLM
    assert novelty_of(known, {**traits, "framework": "other"}) is Novelty.NEW_SYSTEM
    assert novelty_of(known, {**traits, "accelerator": "other", "llm": "other"}) is Novelty.NEW_SYSTEM
    # Measured apart is not measured together.
    assert novelty_of(known, {**traits, "framework": "sglang"}) is Novelty.NEW_SYSTEM
    assert novelty_of(replace(known, measured=MeasuredRange()), traits) is Novelty.NEW_SYSTEM


def test_the_most_specific_range_is_taken() -> None:
    def interval(novelty: Novelty | None, mode: str, low: float) -> Interval:
        return Interval(figure="tpot_ms", novelty=novelty, mode=mode, low=low, high=2.0, rows=0)

    ranges = (
        interval(None, "any", 0.1),
        interval(None, "disagg", 0.2),
        interval(Novelty.NEW_LLM, "any", 0.3),
        interval(Novelty.NEW_LLM, "disagg", 0.4),
        replace(interval(Novelty.MEASURED, "agg", 0.9), figure="ttft_ms"),
    )
    known = replace(calibration(), intervals=ranges)
    for novelty, mode, low in (
        (Novelty.MEASURED, "agg", 0.1),
        (Novelty.MEASURED, "disagg", 0.2),
        (Novelty.NEW_LLM, "agg", 0.3),
        (Novelty.NEW_LLM, "disagg", 0.4),
        (Novelty.NEW_SYSTEM, "disagg", 0.2),
    ):
        assert interval_of(known, "tpot_ms", novelty, mode).low == low


def test_the_embedded_calibration_covers_every_figure() -> None:
    for figure in ("output_tok_s_per_gpu", "tpot_ms", "ttft_ms"):
        for novelty in Novelty:
            for mode in ("agg", "disagg"):
                ends = interval_of(CATALOG.calibration, figure, novelty, mode)
                assert 0.0 < ends.low <= 1.0 <= ends.high
