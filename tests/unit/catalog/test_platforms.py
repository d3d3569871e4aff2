"""What vendors document: every accelerator finds its platform, and rows that fit nothing are found."""

from __future__ import annotations

from pathlib import Path

import pytest

from tokopt.catalog import Catalog, load_catalog
from tokopt.domain.platforms import Stage, platform_of

ROW = """\
mine:
  title: Mine
  vendor: {vendor}
  generations: [{generation}]
  stages: {{{stage}: {{tools: something, source: {source}}}}}
  source: maxtext
  observed_on: 2026-11-25
"""


def test_every_accelerator_has_a_platform_that_documents_inference(catalog: Catalog) -> None:
    for accelerator in catalog.accelerators.values():
        platform = platform_of(accelerator, catalog.platforms.values())
        assert platform is not None, accelerator.name
        assert platform.vendor == accelerator.vendor
        assert Stage.INFERENCE in platform.stages


def test_rows_of_a_generation_come_before_those_of_a_vendor(catalog: Catalog, tmp_path: Path) -> None:
    text = ROW.format(vendor="nvidia", generation="blackwell", stage="training", source="maxtext")
    (tmp_path / "platforms.yaml").write_text(text)
    mine = load_catalog(tmp_path)
    found = platform_of(mine.accelerator("gb300_nvl72"), mine.platforms.values())
    assert found is not None and found.name == "mine" and found.stages[Stage.TRAINING].words == "something"
    other = platform_of(mine.accelerator("h200_sxm"), mine.platforms.values())
    assert other is not None and other.name == "nvidia"


def test_unknown_stays_unknown(catalog: Catalog) -> None:
    arc = platform_of(catalog.accelerator("arc_pro_b60"), catalog.platforms.values())
    assert arc is not None and Stage.TRAINING not in arc.stages


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"vendor": "acme"}, "no accelerator is of 'acme'"),
        ({"generation": "volta"}, "no accelerator of nvidia is 'volta'"),
        ({"source": "hearsay"}, "stages training: source 'hearsay' is not in sources.yaml"),
        ({"stage": "dreaming"}, "Input should be"),
    ],
)
def test_rows_that_fit_nothing_are_found(changed: dict[str, str], said: str, tmp_path: Path) -> None:
    values = {"vendor": "nvidia", "generation": "hopper", "stage": "training", "source": "maxtext"}
    (tmp_path / "platforms.yaml").write_text(ROW.format(**values | changed))
    problems = load_catalog(tmp_path).check()
    assert len(problems) == 1 and said in problems[0], problems
