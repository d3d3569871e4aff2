"""Lists and single entries of the catalog."""

from __future__ import annotations

import pytest

from tokopt.api import load_catalog
from tokopt.api.browsing import Details, entries, entry, tables

CATALOG = load_catalog()
SOME = 12  # entries of a table that are shown: tables of sites and models are long


@pytest.mark.parametrize("table", [name for name in tables(CATALOG) if name != "prices"])
def test_what_is_listed_can_be_shown_with_its_sources(table: str) -> None:
    for listed in entries(CATALOG, table)[table][:SOME]:
        shown = entry(CATALOG, f"{table}/{listed.name}" if table == "kv_precisions" else listed.name)
        assert (shown.table, shown.name) == (table, listed.name)
        assert shown.facts
        for fact in shown.facts:
            assert bool(fact.source_title) == (fact.source in CATALOG.sources), fact


def test_a_price_list_is_shown_by_accelerator() -> None:
    shown = entry(CATALOG, "lambda")
    assert shown.table == "prices"
    assert all("an accelerator-hour" in fact.value for fact in shown.facts)


def test_a_platform_says_what_its_vendor_documents_of_each_stage() -> None:
    by_field = {fact.field: fact for fact in _shown("nvidia").facts}
    assert {"training", "post training", "inference", "listed models"} <= by_field.keys()
    assert by_field["post training"].source_title.startswith("NVIDIA NeMo")
    assert "inference" in {fact.field for fact in _shown("sambanova").facts}
    assert "training" not in {fact.field for fact in _shown("sambanova").facts}


def _shown(name: str) -> Details:
    found = entry(CATALOG, name)
    assert found.table == "platforms"
    return found
