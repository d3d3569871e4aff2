"""Pools on different accelerators, from the shell."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tokopt.cli import app

ESTIMATE = ("estimate", "--model", "llama-3.1-8b", "--framework", "vllm", "--precision", "fp8", "--rate", "1req/s")
PRICES = """\
provider,region,instance_type,accelerator,accelerator_count,market,usd_per_hour
acme,north,h100x8,h100_sxm,8,on_demand,16.0
acme,north,h200x8,h200_sxm,8,on_demand,20.0
"""


def run(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(words), env={"COLUMNS": "160"})
    return result.exit_code, result.stdout, result.stderr


def test_estimate_states_each_pool() -> None:
    pools = ("--prefill", "2xtp2@h100_sxm", "--decode", "1xtp4@h200_sxm")
    code, text, _ = run(*ESTIMATE, *pools)
    assert code == 0
    assert "4 × h100_sxm (prefill) + 4 × h200_sxm (decode)" in text
    assert "Each pool on its own accelerators" in text
    code, text, _ = run(*ESTIMATE, *pools, "--json")
    answer = json.loads(text)
    assert answer["deployment"]["accelerator"] == "h200_sxm"
    assert answer["deployment"]["prefill"]["accelerator"] == "h100_sxm"
    assert answer["deployment"]["decode"]["accelerator"] == "h200_sxm"
    assert [pool["accelerator"] for pool in answer["pools"]] == ["h100_sxm", "h200_sxm"]


def test_gpu_is_where_a_pool_names_none() -> None:
    code, text, _ = run(*ESTIMATE, "--gpu", "h200_sxm", "--prefill", "2xtp2@h100_sxm", "--decode", "1xtp4", "--json")
    assert code == 0
    assert json.loads(text)["deployment"]["decode"]["accelerator"] == "h200_sxm"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--prefill", "2xtp2@h100_sxm"), "--decode"),
        (("--prefill", "2xtp2@h100_sxm", "--decode", "1xtp4"), "--gpu"),
        (("--prefill", "2xtp2@h999", "--decode", "1xtp4@h200_sxm"), "h999"),
        (("--prefill", "2xtp2@@", "--decode", "1xtp4@h200_sxm"), "unknown accelerator"),
        (("--prefill", "2xtp16@h100_sxm", "--decode", "1xtp4@h200_sxm"), "--prefill: tp=16 is wider"),
    ],
)
def test_bad_pools_are_one_line(options: tuple[str, ...], said: str) -> None:
    code, text, error = run(*ESTIMATE, *options)
    assert code == 2 and not text
    assert said in error and len(error.strip().splitlines()) == 1


def test_plan_lists_both_parts_and_is_checked(tmp_path: Path) -> None:
    prices, out = tmp_path / "prices.csv", tmp_path / "plan.json"
    prices.write_text(PRICES, encoding="utf-8")
    request = ("--model", "llama-3.1-70b", "--demand", "60req/s", "--framework", "vllm", "--precision", "fp8")
    code, text, _ = run("plan", *request, "--prices", str(prices), "--mixed-pools", "--out", str(out))
    assert code == 0
    assert "h200_sxm (decode)" in text and "h100_sxm (prefill)" in text
    assert run("check", str(out))[0] == 0
    code, text, _ = run("plan", *request, "--prices", str(prices), "--json")
    assert code == 0 and not any(item["parts"] for item in json.loads(text)["fleet"])
