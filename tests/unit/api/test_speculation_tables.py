"""The table of speculation by batch, and what estimates say of speculation."""

from __future__ import annotations

import json

import pytest

import tokopt
from tokopt.catalog import Catalog
from tokopt.domain.speculation import SpeculationTable
from tokopt.domain.workloads import Workload
from tokopt.errors import InputError
from tokopt.report.speculation import speculation_report

FIXED = {"isl": 1024, "osl": 1024}


@pytest.fixture(scope="module")
def eagle(catalog: Catalog) -> SpeculationTable:
    return tokopt.speculation_table(model="llama-3.1-8b", gpu="h100_sxm", catalog=catalog)


def test_a_table_goes_from_none_to_the_deepest_at_every_batch(eagle: SpeculationTable, catalog: Catalog) -> None:
    assert eagle.speculator == "eagle3-llama-3.1-8b" and eagle.method == "eagle3" and eagle.domain == "chat"
    deepest = catalog.speculators[eagle.speculator].deepest
    assert [row.batch for row in eagle.rows] == [2**k for k in range(11)]
    for row in eagle.rows:
        assert [cell.depth for cell in row.cells] == list(range(deepest + 1))
        assert row.cells[0].gain == 1.0 and row.cells[0].tokens_per_step == 1.0
        fitting = [cell for cell in row.cells if cell.fits]
        most = max((cell.output_tokens_per_s_per_gpu for cell in fitting), default=None)
        best = next((cell for cell in fitting if cell.output_tokens_per_s_per_gpu == most), None)
        assert row.best_depth == (None if best is None else best.depth)
        assert row.loses == tuple(cell.depth for cell in row.cells[1:] if cell.gain < 1.0)
    assert SpeculationTable.model_validate_json(eagle.model_dump_json()) == eagle


def test_a_cell_is_what_the_deployment_does_at_that_batch(eagle: SpeculationTable, catalog: Catalog) -> None:
    """An estimate with that many requests in flight, next to none of them in prefill."""
    shape = Workload(name="long answers", input_tokens=16, output_tokens=4096, domain=None)
    ask = {"model": "llama-3.1-8b", "gpu": "h100_sxm", "catalog": catalog, "workload": shape}
    table = tokopt.speculation_table(batches=[8], **ask)
    for depth in (0, 3, 7):
        found = tokopt.estimate(speculator=table.speculator, depth=depth, concurrency=8, **ask)
        assert found.tpot_ms is not None
        assert found.tpot_ms.mean == pytest.approx(table.rows[0].cells[depth].tpot_ms, rel=0.01)
        assert found.deployment.speculator == (table.speculator if depth else None)


def test_what_does_not_fit_is_never_best(eagle: SpeculationTable) -> None:
    full = eagle.rows[-1]
    assert not any(cell.fits for cell in full.cells) and full.best_depth is None


def test_a_report_marks_the_best_and_says_where_it_loses(catalog: Catalog) -> None:
    from rich.console import Console

    table = tokopt.speculation_table(
        model="qwen3-32b", gpu="h100_sxm", tp=4, speculator="draft-qwen3-1.7b", catalog=catalog
    )
    console = Console(width=100, record=True, file=None, force_terminal=False)
    with console.capture() as shown:
        console.print(speculation_report(table))
    text = shown.get()
    assert table.loses_from is not None
    assert f"from batch {table.loses_from:,} on" in text
    assert text.count("*") >= sum(bool(row.best_depth) for row in table.rows)
    assert "never fitted" in text and "assumed" in text
    json.loads(table.model_dump_json())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": "llama-3.1-405b"}, "nothing in the catalog is recommended"),
        ({"speculator": "mtp"}, "ships no multi-token prediction"),
        ({"batches": []}, "batches"),
        ({"speculator": "eagle3-qwen3-8b"}, "does not draft for llama-3.1-8b"),
    ],
)
def test_tables_that_cannot_be_made_are_refused(catalog: Catalog, change: dict[str, object], said: str) -> None:
    ask: dict[str, object] = {"model": "llama-3.1-8b", "gpu": "h100_sxm", "catalog": catalog}
    with pytest.raises(InputError, match=said):
        tokopt.speculation_table(**(ask | change))  # type: ignore[arg-type]


def test_the_domain_of_a_workload_picks_acceptance(catalog: Catalog) -> None:
    ask = {"model": "llama-3.1-8b", "gpu": "h100_sxm", "catalog": catalog, "batches": [1]}

    def tokens(domain: str | None) -> float:
        shape = Workload(name="mine", input_tokens=1024, output_tokens=512, domain=domain)  # type: ignore[arg-type]
        table = tokopt.speculation_table(workload=shape, **ask)  # type: ignore[arg-type]
        return table.rows[0].cells[7].tokens_per_step

    chat, code, math, unknown, translation = map(tokens, ("chat", "code", "math", None, "translation"))
    assert (chat, code, math) == pytest.approx((2.77, 3.49, 3.34), abs=1e-6)
    assert unknown == translation == pytest.approx((chat + code + math) / 3)


def test_ranges_are_wider_with_drafts_that_were_never_fitted(catalog: Catalog) -> None:
    ask = {"model": "llama-3.1-8b", "gpu": "h100_sxm", "concurrency": 8, "catalog": catalog}
    plain = tokopt.estimate(**ask)
    drafted = tokopt.estimate(speculator="eagle3-llama-3.1-8b", depth=3, **ask)
    for figure in ("tpot_ms", "output_tokens_per_s_per_gpu"):
        wide, narrow = drafted.interval[figure], plain.interval[figure]
        assert wide.high / wide.low > narrow.high / narrow.low
    # A mean over domains is less sure than a domain.
    vague = tokopt.estimate(speculator="eagle3-llama-3.1-8b", depth=3, workload="agentic", **FIXED, **ask)
    wide, narrow = vague.interval["tpot_ms"], drafted.interval["tpot_ms"]
    assert wide.high / wide.low > narrow.high / narrow.low
    assert any("the mean over chat, code, math" in line for line in vague.assumptions)


def test_memory_holds_the_drafter_and_its_cache(catalog: Catalog) -> None:
    ask = {"model": "qwen3-32b", "gpu": "h100_sxm", "tp": 4, "concurrency": 4, "catalog": catalog, **FIXED}
    plain, drafted = (
        tokopt.estimate(speculator=name, depth=n, **ask) for name, n in (("mtp", 0), ("draft-qwen3-1.7b", 2))
    )
    assert drafted.memory_gib.weights - plain.memory_gib.weights == pytest.approx(1.7206e9 * 2 / 2**30 / 4, rel=0.01)
    assert drafted.running_cap is not None and plain.running_cap is not None
    assert drafted.running_cap < plain.running_cap
