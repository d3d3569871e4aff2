"""What precisions lose, in the catalog and in plans."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

import tokopt
from tokopt.catalog import Catalog
from tokopt.errors import CatalogError, InputError

CATALOGS = Path(__file__).parents[3] / "catalogs"
ASKED: dict[str, Any] = {"power": "1MW", "sla": "50ms", "gpus": "b200_sxm"}


def test_losses_are_means_of_published_scores(catalog: Catalog) -> None:
    llm = catalog.llm("deepseek-r1")
    published = [(90.7, 90.8), (96.1, 96.3), (80, 80), (69.2, 69.7), (94.2, 95.4), (70.5, 69.7), (96.0, 95.4)]
    kept = sum(score / original for score, original in published) / len(published)
    assert llm.quality_loss("nvfp4") == pytest.approx(1 - kept)
    assert llm.quality_loss("fp8") == 0.0  # the checkpoint's own


def test_weights_and_cache_lose_together_and_unknown_is_infinite(catalog: Catalog) -> None:
    llm = catalog.llm("deepseek-r1")
    both = 1 - (1 - llm.quality_loss("nvfp4")) * (1 - llm.quality_loss("fp8", "fp8"))
    assert llm.quality_loss("nvfp4", "fp8") == pytest.approx(both)
    assert llm.quality_loss("mxfp4") == math.inf
    assert llm.quality_loss("nvfp4", "nvfp4") == math.inf


def test_every_catalog_loss_is_plausible(catalog: Catalog) -> None:
    """No published conversion in the catalog loses more than a tenth: such a figure would be a slip of the pen."""
    losses = [
        loss
        for llm in catalog.llms.values()
        for loss in (*llm.quality_losses.values(), *llm.kv_quality_losses.values())
    ]
    assert len(losses) > 60
    assert all(0.0 <= loss < 0.1 for loss in losses)


def test_a_limit_is_kept_and_tighter_limits_never_cost_less(catalog: Catalog) -> None:
    costs = []
    for limit in (None, 0.01, 0.001, 0.0):
        plan = tokopt.plan(catalog=catalog, max_quality_loss=limit, **ASKED)
        assert tokopt.check(plan, catalog=catalog) == []
        if limit is not None:
            assert all(item.quality_loss is not None and item.quality_loss <= limit for item in plan.fleet)
        costs.append(plan.usd_per_million_output_tokens)
    assert costs == sorted(costs)


def test_what_nobody_published_is_said_and_can_be_refused(catalog: Catalog) -> None:
    asked = {**ASKED, "gpus": "mi355x", "precisions": "mxfp4"}
    plan = tokopt.plan(catalog=catalog, **asked)
    assert {item.quality_loss for item in plan.fleet} == {None}
    assert any("deepseek-r1 with weights in mxfp4" in line for line in plan.assumptions)
    with pytest.raises(InputError, match=r"--max-quality-loss: no precision of deepseek-r1 is known to lose at most 1"):
        tokopt.plan(catalog=catalog, max_quality_loss="100%", **asked)


def test_the_checker_knows_the_limit_and_the_figure(catalog: Catalog) -> None:
    plan = tokopt.plan(catalog=catalog, precisions="nvfp4", kv_precisions="fp8", **ASKED)
    request = plan.request.model_copy(update={"most_quality_loss": 1e-4})
    assert any(
        "is not known to lose at most 0.0001" in f for f in tokopt.check(plan.model_copy(update={"request": request}))
    )
    better = plan.fleet[0].model_copy(update={"quality_loss": 0.0})
    assert any("quality_loss is 0.0" in f for f in tokopt.check(plan.model_copy(update={"fleet": (better,)})))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("kv_quality:\n  bf16:\n    - {benchmark: A, score: 1, original_score: 1, source: s}\n", "narrower than bf16"),
        ("kept_wider:\n  mxfp4: attention\n", "kept_wider: mxfp4 is not among"),
    ],
)
def test_rows_that_make_no_sense_are_refused(tmp_path: Any, line: str, message: str) -> None:
    text = (CATALOGS / "llms" / "qwen1.5-7b.yaml").read_text(encoding="utf-8")
    folder = tmp_path / "llms"
    folder.mkdir()
    (folder / "qwen1.5-7b.yaml").write_text(
        text.replace("published_total_parameters", line + "published_total_parameters", 1)
    )
    with pytest.raises(CatalogError, match=message):
        _ = tokopt.load_catalog(tmp_path).llms
