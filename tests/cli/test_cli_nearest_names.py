"""A name that is nearly one gets the one that it nearly is, whatever option it stands at."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from tokopt.cli import app


@pytest.mark.parametrize(
    ("words", "near"),
    [
        ("--model lama-3.1-70b", "llama-3.1-70b"),
        ("--workload agntic", "agentic"),
        ("--gpu h10_sxm", "h100_sxm"),
        ("--without h20_sxm", "h200_sxm"),
        ("--framework vlm", "vllm"),
        ("--precision fp9", "fp8"),
        ("--kv-precision fp9", "fp8"),
        ("--mode disag", "disagg"),
        ("--disable mpt", "mtp"),
        ("--expert-traffic skwed", "skewed"),
        ("--prices asw", "aws"),
        ("--prices aws --region us-est-1", "us-east-1"),
        ("--market on-demand", "on_demand"),
        ("--power-basis utilty", "utility"),
        ("--power-mode drwan", "drawn"),
        ("--power-settings al", "all"),
        ("--objective costs", "cost"),
        ("--survive nod", "node"),
        ("--powr-mode drawn", "--power-mode"),
    ],
)
def test_the_nearest_name_is_suggested(words: str, near: str) -> None:
    model = [] if "--model" in words else ["--model", "qwen3-8b"]
    done = CliRunner().invoke(app, ["plan", "--power", "100kW", "--sla", "50ms", *model, *words.split()])
    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1
    assert near in done.stderr.partition("did you mean ")[2]
