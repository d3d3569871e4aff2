"""`tokopt audit` as it is typed: its page, its JSON, its files, its exit statuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

TOKOPT = [sys.executable, "-m", "tokopt"]
SERVICE = ("--model", "llama-3.1-8b", "--workload", "chat", "--framework", "vllm")
LIMIT_S = 240.0  # after which something hangs


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*TOKOPT, *arguments], capture_output=True, text=True, timeout=LIMIT_S, check=False)


def test_the_page_has_a_verdict_and_a_column_a_platform() -> None:
    done = run("audit", "--accelerator", "h100_sxm,h200_sxm", *SERVICE)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "" and "\x1b" not in done.stdout
    assert done.stdout.startswith("Audit for llama-3.1-8b, chat workload")
    text = " ".join(done.stdout.split())
    for words in (
        "NVIDIA H200 141GB SXM serves it at $",
        "Cheapest is h",
        "What does a token cost",
        "does not apply: llama-3.1-8b is dense",
        "$ per M output tokens [m]",
        "disaggregated prefill and decode [m]",
        "the fastest for one user [m]",
        "post-training [d] NeMo RL",
        "FP4 arithmetic [m] lacking",
        "Where the numbers come from",
    ):
        assert words in text, words
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_json_is_one_document_and_the_picture_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    out, plots = tmp_path / "audit.json", tmp_path / "pictures"
    service = ("--model", "qwen3-30b-a3b", "--workload", "chat", "--framework", "vllm")
    done = run("audit", "--accelerator", "h200_sxm", *service, "--json", "--out", str(out), "--plots", str(plots))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert json.loads(out.read_text(encoding="utf-8")) == found
    (platform,) = found["platforms"]
    assert platform["cost"]["basis"] == "model" and platform["life_cycle"]["basis"] == "documented"
    assert platform["exchange"]["inside"]["answer"]
    picture = plots / "all_to_all.png"
    assert done.stderr.splitlines() == [f"audit written to {out}", f"picture written to {picture}"]
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_platform_that_serves_nothing_is_status_3_with_its_page() -> None:
    done = run("audit", "--accelerator", "sn40l", "--model", "llama-3.1-405b", "--workload", "chat")
    assert done.returncode == 3 and done.stderr == ""
    assert "does not serve it: llama-3.1-405b" in " ".join(done.stdout.split())
    assert "training [d]" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "error: --accelerator: a name is needed"),
        (("--accelerator", "h20"), "error: unknown accelerator 'h20'; did you mean"),
        (("--accelerator", "h200_sxm", "--sla", "fast"), "error: --sla: 'fast'"),
        (("--accelerator", "h200_sxm", "--prices", "nobody"), "nobody"),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments: tuple[str, ...], said: str) -> None:
    done = run("audit", *arguments)
    assert done.returncode == 2 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and said in done.stderr, done.stderr
