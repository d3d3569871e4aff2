"""Context parallelism as people write it: options, pools, tables and plans."""

from __future__ import annotations

import pytest

import tokopt
from tokopt.api.resolved import parse_pool
from tokopt.catalog import Catalog
from tokopt.domain.deployments import Layout, Pool
from tokopt.errors import InputError

LONG = {"isl": 100_000, "osl": 500, "rate": "0.01req/s"}


def test_pools_take_context_parallel_degrees() -> None:
    assert parse_pool("1xtp8cp4", "x") == Pool(workers=1, layout=Layout(tp=8, cp=4))
    assert parse_pool("2xtp16dcp8dp2", "x") == Pool(workers=2, layout=Layout(tp=16, dcp=8, dp=2))
    assert parse_pool("2xtp4", "x") == Pool(workers=2, layout=Layout(tp=4))
    for wrong in ("1xtp8cp", "1xcp0tp2", "1xtp8cp2cp2", "1xtp8dc2"):
        with pytest.raises(InputError):
            parse_pool(wrong, "x")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"framework": "vllm", "tp": 8, "dcp": 3}, "dcp=3 does not divide tp=8"),
        ({"framework": "vllm", "tp": 8, "cp": 2}, "vllm is not documented to have prefill_context_parallel"),
        ({"framework": "tensorrt-llm", "tp": 8, "dcp": 2}, "tensorrt-llm is not documented"),
        ({"framework": "sglang", "tp": 4, "cp": 2}, "ep=1 is no multiple of cp=2"),
        ({"framework": "sglang", "tp": 4, "cp": 2, "ep": 3}, "ep=3 does not divide tp x dp x cp = 8"),
        (
            {"framework": "vllm", "prefill": "1xtp8dcp2", "decode": "1xtp8"},
            "--prefill: dcp=2 is for workers that decode",
        ),
        ({"framework": "sglang", "prefill": "1xtp8", "decode": "1xtp4cp2ep8"}, "--decode: cp=2 is for workers that"),
        ({"cp": 0}, "degrees, chunk and running cap start at 1"),
        ({"cp": 2, "prefill": "1xtp8", "decode": "1xtp8"}, "are of one pool"),
    ],
)
def test_what_cannot_be_is_refused(catalog: Catalog, asked: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        tokopt.estimate(model="deepseek-r1", gpu="h200_sxm", catalog=catalog, **asked, **LONG)  # type: ignore[arg-type]


def test_what_is_refused_says_what_would_do(catalog: Catalog) -> None:
    with pytest.raises(InputError, match="but in a decode pool of its own"):
        tokopt.estimate(
            model="deepseek-r1", gpu="b200_sxm", framework="tensorrt-llm", tp=8, dcp=2, catalog=catalog, **LONG
        )
    with pytest.raises(InputError, match="dcp=2 has nothing to split: tp=8 makes no copies of a cache of 8 key-value"):
        tokopt.estimate(model="llama-3.1-70b", gpu="h200_sxm", framework="vllm", tp=8, dcp=2, catalog=catalog, **LONG)


def test_an_estimate_states_both_degrees_and_what_they_rest_on(catalog: Catalog) -> None:
    found = tokopt.estimate(
        model="deepseek-r1",
        gpu="h200_sxm",
        framework="sglang",
        prefill="1xtp4cp4ep16",
        decode="1xtp8dcp8",
        catalog=catalog,
        **LONG,
    )
    stated = found.model_dump()["deployment"]
    assert stated["prefill"]["layout"]["cp"] == 4
    assert stated["decode"]["layout"]["dcp"] == 8
    assert found.accelerators == 24
    assert any("context parallelism" in line for line in found.assumptions)
    whole = tokopt.estimate(
        model="deepseek-r1",
        gpu="h200_sxm",
        framework="sglang",
        prefill="1xtp8",
        decode="1xtp8",
        catalog=catalog,
        **LONG,
    )
    assert found.ttft_ms is not None and whole.ttft_ms is not None
    assert found.ttft_ms.mean < 0.6 * whole.ttft_ms.mean
    assert found.running_cap is not None and whole.running_cap is not None
    assert found.running_cap > 3 * whole.running_cap
    assert not any("context parallelism" in line for line in whole.assumptions)


def test_tables_have_columns_for_both(catalog: Catalog) -> None:
    pl = pytest.importorskip("polars")
    row = {
        "vendor_system": "h200_sxm",
        "model": "deepseek-r1",
        "framework": "vllm",
        "isl": 100_000,
        "osl": 500,
        "concurrency_or_batch": 4,
        "tp": 8,
    }
    rows = [row, row | {"dcp": 8}, row | {"dcp": 3}, row | {"framework": "sglang", "tp": 2, "cp": 4, "ep": 8}]
    got = tokopt.estimate_many(pl.DataFrame(rows), catalog=catalog).to_dicts()
    speeds = [each["predicted_output_tok_s_per_gpu"] for each in got]
    assert speeds[1] > speeds[0] > 0
    assert "dcp=3 does not divide tp=8" in got[2]["predicted_reason"]
    assert speeds[3] > 0
    alone = tokopt.estimate(
        model="deepseek-r1",
        gpu="h200_sxm",
        framework="vllm",
        tp=8,
        dcp=8,
        isl=100_000,
        osl=500,
        concurrency=4,
        workload=tokopt.Workload(name="row", input_tokens=1, output_tokens=1),
        catalog=catalog,
    )
    assert speeds[1] == pytest.approx(alone.output_tokens_per_s_per_gpu, rel=1e-6)


@pytest.mark.parametrize(
    ("asked", "degree"),
    [
        ({"model": "deepseek-v3.2", "gpus": "h200_sxm", "sla": "tpot=50ms,ttft=10s"}, "cp"),
        ({"model": "deepseek-r1", "gpus": "h200_sxm", "frameworks": "vllm", "sla": "tpot=40ms,ttft=200s",
          "disable": "attention_dp,pipeline_parallel"}, "dcp"),
    ],
)  # fmt: skip
def test_plans_for_long_inputs_split_them_and_pass_the_check(
    catalog: Catalog, asked: dict[str, str], degree: str
) -> None:
    plan = tokopt.plan(power="1MW", isl=131_072, osl=2048, catalog=catalog, **asked)  # type: ignore[arg-type]
    assert tokopt.check(plan, catalog=catalog) == []
    item = plan.fleet[0]
    assert getattr(item, degree) > 1
    names = {"cp": "prefill_context_parallel", "dcp": "decode_context_parallel"}
    assert item.features[names[degree]] == getattr(item, degree)
    assert any("context parallelism" in line for line in plan.assumptions)
    assert tokopt.Plan.model_validate_json(plan.model_dump_json()) == plan
    wrong = item.model_copy(update={degree: 1})
    assert tokopt.check(plan.model_copy(update={"fleet": (wrong, *plan.fleet[1:])}), catalog=catalog)


def test_a_million_tokens(catalog: Catalog) -> None:
    plan = tokopt.plan(
        model="llama-4-maverick",
        gpus="b200_sxm",
        isl=1_000_000,
        osl=1000,
        power="2MW",
        sla="tpot=100ms,ttft=300s",
        catalog=catalog,
    )
    assert plan.status.value == "optimal"
    assert tokopt.check(plan, catalog=catalog) == []
