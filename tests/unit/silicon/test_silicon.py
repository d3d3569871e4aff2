"""The second opinion: it says what NVIDIA's operator database says, for arrays."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tokopt.api.resolved import Resolved
from tokopt.catalog import Catalog
from tokopt.domain.deployments import Layout
from tokopt.errors import InputError
from tokopt.perf.closed_loop import aggregated_closed_loop
from tokopt.perf.layouts import Layouts
from tokopt.perf.serving import lengths
from tokopt.perf.step import StepTime
from tokopt.silicon import SiliconSteps, adapter, step_source
from tokopt.silicon.tables import ATTENTION, Detail, Tables, grid, line

Finder = Callable[..., Resolved]

CASES = {
    "dense-fp8": ("llama-3.1-70b", "h200_sxm", "fp8", "fp8", "vllm", Layout(tp=4)),
    "dense-one-gpu": ("qwen3-32b", "h100_sxm", "fp8", "fp8", "tensorrt-llm", Layout(tp=1)),
    "own-config": ("llama-2-70b", "h100_sxm", "bf16", "bf16", "vllm", Layout(tp=4)),
    "stages": ("qwen3-32b", "h100_sxm", "bf16", "bf16", "vllm", Layout(tp=2, pp=2)),
    "experts-sglang": ("deepseek-r1", "h200_sxm", "fp8", "fp8", "sglang", Layout(tp=8)),
    "experts-trtllm": ("deepseek-r1", "h200_sxm", "fp8", "fp8", "tensorrt-llm", Layout(tp=8, ep=8)),
    "ranks": ("deepseek-r1", "gb200_nvl72", "nvfp4", "fp8", "tensorrt-llm", Layout(ep=8, dp=8)),
}


@pytest.fixture(scope="module")
def core() -> Any:
    return pytest.importorskip("aiconfigurator_core")


@pytest.fixture(scope="module")
def source(core: Any, catalog: Catalog) -> Callable[..., SiliconSteps]:
    known: dict[tuple[str, ...], SiliconSteps] = {}

    def find(model: str, gpu: str, precision: str, kv: str, framework: str) -> SiliconSteps:
        key = (model, gpu, precision, kv, framework)
        if key not in known:
            known[key] = ask(catalog, *key)
        return known[key]

    return find


def ask(catalog: Catalog, model: str, gpu: str, precision: str, kv: str, framework: str) -> SiliconSteps:
    return step_source(
        catalog.llm(model), catalog.accelerator(gpu), catalog.framework(framework), catalog.precision(precision), kv
    )


def layouts(layout: Layout) -> Layouts:
    return Layouts(tp=float(layout.tp), pp=float(layout.pp), ep=float(layout.ep), dp=float(layout.dp))


def step(steps: SiliconSteps, found: Resolved, layout: Layout | Layouts, **load: Any) -> StepTime:
    idle = {"sequences": 0.0, "width": 1.0, "context": 0.0, "prefill_tokens": 0.0, "prefill_context": 0.0}
    degrees = layouts(layout) if isinstance(layout, Layout) else layout
    return steps.step_time(found.model, found.machine, degrees, **{**idle, **load})


def own_engine(catalog: Catalog, case: tuple[Any, ...], depth: int = 0) -> Any:
    """The package's own engine for a case, compiled by the package's own front door with what the adapter chose."""
    database = step_source(
        catalog.llm(case[0]),
        catalog.accelerator(case[1]),
        catalog.framework(case[4]),
        catalog.precision(case[2]),
        case[3],
    )._ask.__self__  # type: ignore[attr-defined]
    layout = case[5]
    key = (layout.tp, layout.pp, layout.ep, layout.dp, depth)
    return database._engine(database.attempts[0], key, "SILICON").handle


# --- it agrees with the package's own answers ---


@pytest.mark.parametrize("name", CASES)
def test_agrees_with_static_answers(name: str, source: Any, resolved: Finder, catalog: Catalog) -> None:
    """Between knots, decode steps and prefill passes are within 3 % of what the package says for the single point."""
    case = CASES[name]
    steps, found, layout = source(*case[:5]), resolved(*case[:4], framework=case[4]), case[5]
    assert not steps.reason(layout)
    assert steps.mode(layout) == "SILICON"
    engine = own_engine(catalog, case)
    sequences, context = np.array([1.0, 5, 23, 47, 130, 270, 700]), np.array([300.0, 2500, 901, 3001, 1100, 777, 1500])
    got = np.asarray(step(steps, found, layout, sequences=sequences, context=context).total)
    own = [
        engine.run_static(batch_size=int(b), isl=int(s) - 1, osl=2, mode="static_gen")[1] * 1e-3
        for b, s in zip(sequences, context, strict=True)
    ]
    assert got == pytest.approx(own, rel=0.03)
    new, cached = np.array([70.0, 333, 1500, 2000, 5000, 8000]), np.array([0.0, 150, 0, 1700, 0, 900])
    got = np.asarray(step(steps, found, layout, prefill_tokens=new, prefill_context=cached + new / 2).total)
    own = [
        engine.run_static(batch_size=1, isl=int(n + c), prefix=int(c), osl=1, mode="static_ctx")[0] * 1e-3
        for n, c in zip(new, cached, strict=True)
    ]
    assert np.median(np.abs(got / own - 1.0)) < 0.01
    # Measured blocks of latent attention jump between their own knots.
    assert got == pytest.approx(own, rel=0.05 if name.startswith("experts") else 0.03)


def test_several_prompts_in_a_pass(source: Any, resolved: Finder, catalog: Catalog) -> None:
    """A mean context below half of the tokens means several prompts, as a batch in the package."""
    case = CASES["dense-fp8"]
    steps, found = source(*case[:5]), resolved(*case[:4], framework=case[4])
    own = own_engine(catalog, case).run_static(batch_size=8, isl=500, osl=1, mode="static_ctx")[0] * 1e-3
    got = step(steps, found, case[5], prefill_tokens=4000.0, prefill_context=250.0).total
    assert float(got) == pytest.approx(own, rel=0.03)


def test_mixed_steps_are_composed_as_the_package_composes_them(source: Any, resolved: Finder, catalog: Catalog) -> None:
    case = CASES["dense-fp8"]
    steps, found = source(*case[:5]), resolved(*case[:4], framework=case[4])
    engine = own_engine(catalog, case)
    for prompt, decoding in ((1000, 20), (2048, 64), (4000, 200)):
        own = engine.mixed_step_latency(prompt, decoding, prompt, 2) * 1e-3
        load = {"sequences": float(decoding), "context": prompt + 2.0}
        got = step(steps, found, case[5], **load, prefill_tokens=float(prompt), prefill_context=prompt / 2).total
        assert float(got) == pytest.approx(own, rel=0.03)


def test_speculation_takes_the_engine_of_its_depth(source: Any, resolved: Finder, catalog: Catalog) -> None:
    case = CASES["experts-sglang"]
    steps, found = source(*case[:5]), resolved(*case[:4], framework=case[4])
    own = own_engine(catalog, case, depth=1).decode_step_latency(32, 2047, 0) * 1e-3
    load = {"sequences": 32.0, "context": 2048.0, "width": 2.0, "draft_depth": 1.0}
    assert float(step(steps, found, case[5], **load).total) == pytest.approx(own, rel=0.03)


# --- its answers are arrays of parts ---


def test_elements_are_answered_one_by_one(source: Any, resolved: Finder) -> None:
    case = CASES["dense-fp8"]
    steps, found = source(*case[:5]), resolved(*case[:4], framework=case[4])
    one = np.ones(4)
    degrees = Layouts(tp=np.array([4.0, 8.0, 3.0, 4.0]), pp=one, ep=one, dp=one)
    sequences = np.array([16.0, 16.0, 16.0, 0.0])
    prompt = np.array([0.0, 0.0, 0.0, 512.0])
    with np.errstate(invalid="ignore", divide="ignore"):
        got = step(
            steps, found, degrees, sequences=sequences, context=800.0, prefill_tokens=prompt, prefill_context=256.0
        )
    total = np.asarray(got.total)
    assert total.shape == (4,)
    assert np.isnan(total).tolist() == [False, False, True, False]  # 64 heads do not divide by 3
    assert steps.reason(Layout(tp=3)) and "\n" not in steps.reason(Layout(tp=3)) and not steps.mode(Layout(tp=3))
    assert total[1] < total[0]
    assert total[0] == step(steps, found, case[5], sequences=16.0, context=800.0).total
    assert np.asarray(got.overhead).tolist() == [0.0] * 4
    for part in (got.attention, got.dense, got.collectives):
        assert (np.asarray(part)[:2] > 0.0).all()


def test_parts_are_told_apart(source: Any, resolved: Finder) -> None:
    case = CASES["ranks"]
    steps, found = source(*case[:5]), resolved(*case[:4], framework=case[4])
    near, far = (step(steps, found, case[5], sequences=64.0, context=context) for context in (1000.0, 8000.0))
    assert float(far.attention) > 2.0 * float(near.attention)
    assert (far.dense, far.experts, far.collectives) == (near.dense, near.experts, near.collectives)
    assert float(near.experts) > float(near.dense) > 0.0


def test_a_closed_loop_can_be_solved_with_it(source: Any, resolved: Finder) -> None:
    case = CASES["dense-fp8"]
    steps, found = source(*case[:5]), resolved(*case[:4], framework=case[4])
    loop = aggregated_closed_loop(
        found.model,
        found.machine,
        layouts(case[5]),
        lengths(1024.0, 256.0, 0.0, input_cv=0.0, output_cv=0.0),
        concurrency=np.array([1.0, 16.0, 64.0, 256.0]),
        slots=np.full(4, 256.0),
        depth=0.0,
        accepted=1.0,
        chunk_tokens=8192.0,
        source=steps,
    )
    assert (np.diff(np.asarray(loop.requests_per_s)) > 0.0).all()
    assert np.isfinite(loop.ttft_s).all() and np.isfinite(loop.tpot_s).all()


def test_provenance(source: Any, resolved: Finder) -> None:
    case = CASES["dense-fp8"]
    steps = source(*case[:5])
    steps.reason(case[5])
    said = steps.provenance
    assert said["package"].startswith("aiconfigurator-core 0.")
    assert (said["system"], said["backend"], said["mode"]) == ("h200_sxm", "vllm", "SILICON")
    assert said["version"] and "Llama-3.1-70B" in said["checkpoint"]


def test_estimates_are_called_so(source: Any) -> None:
    """Where kernels were not measured, the database's own estimates are used, and named."""
    steps = source("gpt-oss-120b", "b200_sxm", "mxfp4", "bf16", "tensorrt-llm")
    assert steps.mode(Layout(tp=4)) == "HYBRID"
    assert steps.provenance["mode"] == "HYBRID"


def test_a_finetune_is_known_by_its_shape(source: Any) -> None:
    steps = source("llama-3.3-70b", "h200_sxm", "bf16", "bf16", "vllm")
    assert not steps.reason(Layout(tp=4))
    assert steps.provenance["checkpoint"] == "meta-llama/Meta-Llama-3.1-70B"


def test_tables_of_the_vocabulary_name_what_exists(core: Any, catalog: Catalog) -> None:
    common = importlib.import_module("aiconfigurator_core.sdk.common")
    databases = importlib.import_module("aiconfigurator_core.sdk.perf_database")
    assert set(adapter.SYSTEMS) <= set(catalog.accelerators)
    assert set(adapter.BACKENDS) <= set(catalog.frameworks)
    assert set(adapter.FORMATS) <= set(catalog.precisions)
    assert set(adapter.CACHES) <= set(catalog.kv_precisions)
    for system in adapter.SYSTEMS.values():
        for backend in adapter.BACKENDS.values():
            assert databases.get_version_slots(system, backend), (system, backend)
    for words in adapter.FORMATS.values():
        for dense, experts, attention in words.modes:
            assert dense in common.GEMMQuantMode.__members__
            assert experts is None or experts in common.MoEQuantMode.__members__
            assert attention is None or attention in common.FMHAQuantMode.__members__


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"gpu": "mi300x"}, "accelerator mi300x"),
        ({"kv": "nvfp4"}, "KV cache precision nvfp4"),
        ({"model": "glm-4.5-air"}, "does not know glm-4.5-air"),
        ({"model": "mixtral-8x7b", "precision": "int8"}, "experts in int8"),
    ],
    ids=str,
)
def test_what_it_does_not_know_is_said_in_one_line(core: Any, catalog: Catalog, changed: Any, says: str) -> None:
    plain = {"model": "llama-3.1-8b", "gpu": "h100_sxm", "precision": "bf16", "kv": "bf16", "framework": "vllm"}
    with pytest.raises(InputError, match=says) as error:
        ask(catalog, **{**plain, **changed})
    assert "\n" not in str(error.value)


def test_an_unknown_framework_is_said(core: Any, catalog: Catalog) -> None:
    other = replace(catalog.framework("vllm"), name="mine")
    with pytest.raises(InputError, match="framework mine"):
        step_source(
            catalog.llm("llama-3.1-8b"), catalog.accelerator("h100_sxm"), other, catalog.precision("bf16"), "bf16"
        )


# --- without the package ---


def test_without_the_package_the_extra_is_named(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiconfigurator_core", None)
    with pytest.raises(InputError, match=r'pip install "tokopt\[silicon\]"') as error:
        ask(catalog, "llama-3.1-8b", "h100_sxm", "bf16", "bf16", "vllm")
    assert "\n" not in str(error.value)


FINE = Detail(knots_a_doubling=4, most_misfit=0.005)


def test_knots_follow_jumps() -> None:
    """A kernel that takes ever larger tiles: lines between knots still say what it takes."""

    def tiles(tokens: int) -> list[float]:
        tile = 2 ** max(tokens - 1, 0).bit_length()
        return [1e-3 * tile, 0.0, 5e-3, 0.0]

    table = line(tiles, FINE.knots(2**12), FINE.most_misfit)
    tokens = np.arange(1.0, 4097.0)
    exact = np.array([tiles(int(n))[0] for n in tokens])  # attention has a table of its own
    assert table.at(tokens).sum(axis=0) == pytest.approx(exact, rel=0.005)
    assert len(table.tokens) < 400


def test_a_grid_is_exact_for_bytes() -> None:
    table = grid(lambda n, c: 1e-6 + 1e-9 * n * c, FINE.knots(256.0), FINE.knots(32768.0, first=16.0))
    load, context = np.array([1.0, 7.5, 200.0, 1000.0]), np.array([16.0, 333.3, 20000.0, 100000.0])
    assert table.at(load, context) == pytest.approx(1e-6 + 1e-9 * load * context)


def test_steps_of_tables() -> None:
    """Decode and prefill have their own kernels; a mixed step takes the prefill's, and both attentions."""
    few, many = FINE.knots(64.0), FINE.knots(4096.0)
    tables = Tables(
        decode=line(lambda n: [1e-3 * n, 0.0, 0.0, 0.0], few, FINE.most_misfit),
        decode_attention=grid(lambda n, c: 1e-6 * n * c, few, many),
        prefill=line(lambda n: [2e-3 * n, 0.0, 0.0, 0.0], few, FINE.most_misfit),
        prefill_attention=grid(lambda n, c: 3e-6 * n * c, few, many),
    )
    got = tables.step(
        sequences=np.array([8.0, 0.0, 8.0]),
        width=np.ones(3),
        context=np.full(3, 100.0),
        tokens=np.array([0.0, 16.0, 16.0]),
        prompt_context=np.full(3, 10.0),
    )
    assert got[0] == pytest.approx([8e-3, 32e-3, 48e-3])
    assert got[ATTENTION] == pytest.approx([8e-4, 4.8e-4, 12.8e-4])
