"""Hostile names in exports: every name stays one word, and every document stays what it is."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import tokopt
from export_scripts import calls, flags, written
from tokopt.api.export_items import serving_item
from tokopt.api.export_points import operating_point
from tokopt.domain.exporting import BenchmarkTool, ServingItem
from tokopt.report.exports import benchmark, dynamo, llm_d, sglang, terraform, trtllm, vllm

NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), min_size=1, max_size=40)
WORST = "a b'\"`$(touch pwned)${HOME}\n--port 1; rm -rf x\\\n# é\t|&"
QUICK = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@cache
def item(apart: bool) -> ServingItem:
    mode = "disagg" if apart else "agg"
    plan = tokopt.plan(model="qwen3-8b", gpus="h100_sxm", workload="chat", power="50kW", sla="30ms", modes=mode)
    found = serving_item(tokopt.load_catalog(), plan, 1)
    return replace(found, point=operating_point(plan, plan.fleet[0], found.context_tokens), framework="vllm")


def renamed(name: str, *, apart: bool) -> ServingItem:
    found = item(apart)
    drafting = found.drafting and replace(found.drafting, checkpoint=name)
    workers = tuple(replace(worker, accelerator=name) for worker in found.workers)
    return replace(found, llm=name, title=name, checkpoint=name, drafting=drafting, workers=workers, provider=name,
                   instance_type=name, region=name)  # fmt: skip


@pytest.mark.parametrize("module", [vllm, sglang], ids=["vllm", "sglang"])
@QUICK
@given(name=NAMES)
@example(name=WORST)
def test_names_are_one_word_of_a_command(module: object, name: str) -> None:
    rendered = module.render((renamed(name, apart=False),))  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory() as place:
        folder = written(rendered.files, Path(place))
        (words,) = calls(folder, "serve.sh")
        assert flags(words)["--served-model-name"] == name or name in words
        assert name in words and words.count(name) >= 2
        assert not (folder / "pwned").exists()
        ours = [word for word in words if word not in (name,)]
        assert "--port" in ours and "rm" not in ours
    if module is vllm and item(False).drafting is not None:
        drafts = json.loads(words[words.index("--speculative-config") + 1])
        assert drafts["model"] == name


@QUICK
@given(name=NAMES)
@example(name=WORST)
@example(name="$(MODEL)")
def test_names_are_one_text_of_a_manifest(name: str) -> None:
    asked = renamed(name, apart=True)
    kept = name.replace("$(", "$$(")
    for module in (dynamo, llm_d):
        for file in module.render((asked,)).files:
            if file.name.endswith(".yaml"):
                documents = list(yaml.safe_load_all(file.content))
                assert len(documents) == 1
                words = json.dumps(documents, ensure_ascii=False)
                assert json.dumps(kept, ensure_ascii=False)[1:-1] in words or "inferencepool" in file.name
    for file in trtllm.render((asked,)).files:
        if file.name.endswith(".yaml"):
            assert isinstance(yaml.safe_load(file.content), dict)
    (values, declared) = terraform.render((asked,)).files
    (only,) = json.loads(values.content)["tokopt_fleet"]
    assert only["model"] == only["checkpoint"] == only["instance_type"] == name
    assert json.loads(declared.content)


@QUICK
@given(name=NAMES)
@example(name=WORST)
def test_names_are_one_word_of_a_benchmark(name: str) -> None:
    asked = renamed(name, apart=False)
    assert asked.point is not None
    asked = replace(asked, point=replace(asked.point, workload=name, requests=asked.point.requests[:2]))
    with tempfile.TemporaryDirectory() as place:
        folder = written(benchmark.render((asked,)).files, Path(place))
        (words,) = calls(folder, "benchmark.sh")
        said = words[words.index("--model-names") + 1], words[words.index("--tokenizer") + 1]
        assert said == (name, name)
        assert not (folder / "pwned").exists()
    scenario = benchmark.render((asked,), BenchmarkTool.GUIDELLM).files[1]
    assert json.loads(scenario.content)["spec"]["backend"]["model"] == name


@QUICK
@given(name=NAMES)
@example(name=WORST)
def test_a_drafter_that_is_not_known_is_asked_for(name: str) -> None:
    found = renamed(name, apart=False)
    assert found.drafting is not None
    asked = replace(found, drafting=replace(found.drafting, checkpoint=None))
    with tempfile.TemporaryDirectory() as place:
        folder = written(vllm.render((asked,)).files, Path(place))
        (words,) = calls(folder, "serve.sh", DRAFT_MODEL="mine/drafter")
        assert json.loads(words[words.index("--speculative-config") + 1])["model"] == "mine/drafter"
