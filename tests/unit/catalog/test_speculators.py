"""Speculators: what the catalog says of them, and chances worked out from published figures."""

from __future__ import annotations

from itertools import accumulate
from operator import mul

import pytest

from tokopt.catalog import load_catalog
from tokopt.catalog.speculators import DraftAcceptanceRow, acceptance_record
from tokopt.domain.speculators import AcceptanceBasis, Domain, Method
from tokopt.errors import CatalogError, InputError
from tokopt.perf.counts import parameter_counts

CATALOG = load_catalog()


def tokens(chances: tuple[float, ...], depth: int) -> float:
    return 1.0 + sum(accumulate(chances[:depth], mul))


def row(**figures: object) -> DraftAcceptanceRow:
    return DraftAcceptanceRow.model_validate({"source": "here", **figures})


def test_a_published_mean_is_met_by_equal_chances() -> None:
    """Nebius' card: 2.77 tokens a step with 7 drafts on MT-bench."""
    found = acceptance_record(row(tokens_per_step=2.77, depth=7), 7)
    assert found.basis is AcceptanceBasis.DERIVED
    assert len(set(found.chances)) == 1
    assert tokens(found.chances, 7) == pytest.approx(2.77, abs=1e-9)


def test_means_by_depth_are_met_at_every_depth() -> None:
    """vLLM issue 20780: EAGLE-3 on Llama 3.1 8B, MT-bench."""
    published = {2: 2.36, 3: 2.79, 4: 3.08, 5: 3.32, 6: 3.46, 7: 3.54}
    found = acceptance_record(row(tokens_by_depth=published), 7)
    for depth, mean in published.items():
        assert tokens(found.chances, depth) == pytest.approx(mean, abs=1e-9)
    assert found.chances[0] == found.chances[1]


def test_cumulative_chances_are_taken_as_published() -> None:
    """A user's run of gpt-oss-120b: 1 + 0.58 + 0.31 + ... tokens a step."""
    found = acceptance_record(row(cumulative=[0.58, 0.31, 0.16]), 5)
    assert found.basis is AcceptanceBasis.PUBLISHED
    assert tokens(found.chances, 3) == pytest.approx(1 + 0.58 + 0.31 + 0.16)
    assert len(found.chances) == 5 and found.chances[4] == found.chances[2]


def test_what_is_of_another_pair_is_called_assumed() -> None:
    assert acceptance_record(row(tokens_per_step=2.0, depth=2, assumed=True), 3).basis is AcceptanceBasis.ASSUMED


@pytest.mark.parametrize(
    "figures",
    [
        {},
        {"tokens_per_step": 2.0},
        {"depth": 2},
        {"tokens_per_step": 2.0, "depth": 2, "cumulative": [0.5]},
        {"tokens_per_step": 4.0, "depth": 3},  # all accepted, and more
        {"tokens_by_depth": {2: 2.5, 3: 2.4}},
        {"cumulative": [0.5, 0.6]},
    ],
)
def test_figures_that_say_nothing_are_refused(figures: dict[str, object]) -> None:
    with pytest.raises(CatalogError):
        acceptance_record(row(**figures), 3)


def test_every_speculator_of_the_catalog_is_whole() -> None:
    for name, found in CATALOG.speculators.items():
        assert found.acceptance, name
        assert (found.drafter is None) is (found.method is Method.NGRAM), name
        for domain, each in found.acceptance.items():
            assert len(each.chances) == found.deepest, (name, domain)
            assert all(0.0 < chance < 1.0 for chance in each.chances), (name, domain)
            assert each.source in CATALOG.sources


@pytest.mark.parametrize(
    ("name", "mib", "rel"),
    [
        ("eagle3-llama-3.1-8b", 811, 0.005),  # file of yuhuili/EAGLE3-LLaMA3.1-Instruct-8B
        ("eagle3-qwen3-30b-a3b", 350, 0.01),  # JinnP/SGLang-EAGLE3-Qwen3-Coder-30B-A3B-Instruct
    ],
)
def test_heads_are_as_large_as_the_published_files(name: str, mib: float, rel: float) -> None:
    drafter = CATALOG.speculators[name].drafter
    assert drafter is not None
    counts = parameter_counts(drafter)
    # The embedding is the model's: only the head over the draft vocabulary is the drafter's own.
    assert counts.total * 2 / 2**20 == pytest.approx(mib, rel=rel)


def test_searches_look_at_what_concerns_the_model_only() -> None:
    assert [s.name for s in CATALOG.speculators_for("llama-3.1-8b", Domain.CHAT)] == ["eagle3-llama-3.1-8b"]
    assert CATALOG.speculators_for("deepseek-r1", Domain.AGENTIC) == ()
    assert [s.name for s in CATALOG.speculators_for("deepseek-r1", Domain.EDITING)] == ["ngram"]


def test_names_are_matched_and_the_nearest_are_told() -> None:
    assert CATALOG.speculator("yuhuili/EAGLE3-LLaMA3.1-Instruct-8B").name == "eagle3-llama-3.1-8b"
    with pytest.raises(InputError, match="eagle3-qwen3-8b"):
        CATALOG.speculator("eagle3-qwen3-8")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mtp: {method: ngram}", "stands for the modules"),
        ("mine: {method: eagle3}", "head: missing"),
        ("mine: {method: ngram, precision: bf16}", "precision: does not go"),
        ("mine: {method: draft_model, llm: nosuch, precision: bf16}", "nosuch"),
        ("mine: {method: draft_model, llm: qwen3-0.6b, precision: fp7}", "fp7"),
    ],
)
def test_entries_that_do_not_go_together_are_refused(tmp_path: object, text: str, said: str) -> None:
    import pathlib

    import yaml

    name, entry = next(iter(yaml.safe_load(text).items()))
    entry |= {
        "title": "Mine",
        "deepest": 2,
        "spread": 0.2,
        "acceptance": {"chat": {"tokens_per_step": 2.0, "depth": 2, "source": "tokopt-assumption"}},
        "source": "tokopt-assumption",
        "observed_on": "2026-11-25",
    }
    folder = pathlib.Path(str(tmp_path))
    (folder / "speculators.yaml").write_text(yaml.safe_dump({name: entry}).replace("'2026-11-25'", "2026-11-25"))
    with pytest.raises(InputError, match=said):
        _ = load_catalog(folder).speculators
