"""MLPerf Inference v5.1, Server: audited runs at their rates of arrivals, simulated by requests (never fitted)."""

from __future__ import annotations

import polars as pl
import pytest

from tokopt.api import simulated_rows as simulated
from tokopt.catalog import Catalog

# What is reached on all 165 rows is in docs/accuracy.md; these have one row a kind of system, and room for another fit.
MOST_ERROR = 0.3  # of the highest rate within the limits
PER_KIND = {"meta-llama/Llama-2-70b-chat-hf": 2, "mistralai/Mixtral-8x7B-Instruct-v0.1": 1}


@pytest.fixture(scope="module")
def rows(catalog: Catalog) -> pl.DataFrame:
    table = catalog.measurements().filter(
        pl.col("id").str.starts_with("mlperf5.1:")
        & (pl.col("scenario") == "server")
        & pl.col("vendor_system").is_in(["h200_sxm", "mi300x"])
    )
    return pl.concat([table.filter(pl.col("model") == model).head(count) for model, count in PER_KIND.items()])


def test_rates_within_limits_and_percentiles_at_the_measured_rate(
    catalog: Catalog, rows: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulated, "REQUESTS", 1500)
    monkeypatch.setattr(simulated, "HALVINGS", 4)
    records = rows.to_dicts()
    found = simulated.simulated_rows(catalog, records)
    assert len(found) == len(records) == 3
    for row in found:
        assert row.most_requests_per_s == pytest.approx(row.requests_per_s, rel=MOST_ERROR)
        if not row.overloaded:  # who submits keeps the limits, and the simulated system mostly does at the same rate
            assert row.tpot_ms < row.tpot_p99_ms <= row.tpot_limit_ms * 1.1
            assert row.ttft_ms < row.ttft_p99_ms
    told = simulated.errors(found, records)["server"]
    assert told["rows"] == 3
    assert told["most_rate_error"] < 100.0 * MOST_ERROR


def test_errors_leave_out_what_is_overloaded() -> None:
    nothing = float("nan")
    sound = simulated.SimulatedRow(
        row=0, replicas=8, requests_per_s=10.0, overloaded=False, ttft_ms=110.0, tpot_ms=45.0, ttft_p99_ms=300.0,
        tpot_p99_ms=60.0, ttft_limit_ms=400.0, tpot_limit_ms=50.0, most_requests_per_s=12.0, planned_requests_per_s=9.0,
    )  # fmt: skip
    full = simulated.SimulatedRow(
        row=1, replicas=8, requests_per_s=10.0, overloaded=True, ttft_ms=nothing, tpot_ms=nothing, ttft_p99_ms=nothing,
        tpot_p99_ms=nothing, ttft_limit_ms=400.0, tpot_limit_ms=50.0, most_requests_per_s=8.0,
        planned_requests_per_s=9.0,
    )  # fmt: skip
    records = [{"scenario": "server", "ttft_ms": 100.0, "tpot_ms": 50.0}] * 2
    (told,) = simulated.errors([sound, full], records).values()
    assert told["overloaded"] == 1
    assert told["ttft_error"] == pytest.approx(10.0)
    assert told["tpot_error"] == pytest.approx(10.0)
    assert told["most_rate_error"] == pytest.approx(20.0)
    assert (told["ttft_p99_kept"], told["tpot_p99_kept"]) == (1.0, 0.0)
