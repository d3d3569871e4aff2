"""`tokopt explain` as it is typed: its report, its JSON, its files, its exit statuses."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

TOKOPT = [sys.executable, "-m", "tokopt"]
LIMIT_S = 240.0  # after which something hangs


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*TOKOPT, *arguments], capture_output=True, text=True, timeout=LIMIT_S, check=False)


@pytest.fixture(scope="module")
def plan_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("explain") / "plan.json"
    service = ("--model", "qwen3-8b", "--workload", "chat", "--sla", "30ms", "--power", "200kW")
    done = run("plan", *service, "--gpu", "h100_sxm,h200_sxm", "--out", str(path), "--quiet")
    assert done.returncode == 0, done.stderr
    return str(path)


def test_the_report_answers_in_a_sentence_and_shows_both_waterfalls_and_the_tornado(plan_file: str) -> None:
    done = run("explain", plan_file)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "" and "\x1b" not in done.stdout
    assert done.stdout.startswith("qwen3-8b, chat: $0.")
    for words in (
        "the baseline, on NVIDIA H100 80GB SXM, costs $",
        "From the baseline to the plan, $ per M output tokens",
        "The same in output tokens/s per MW",
        "baseline: h100_sxm",
        "bf16, KV cache bf16 → ",
        "What if: $ per M output tokens, the widest spread first",
        "less ┼ more",
        "latency limits",
        "Shapley value",
        "Where the numbers come from",
    ):
        assert words in " ".join(done.stdout.split()), words
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_json_is_one_document_with_what_other_tools_rely_on(plan_file: str, tmp_path: Path) -> None:
    out = tmp_path / "why.json"
    done = run("explain", plan_file, "--json", "--out", str(out))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert json.loads(out.read_text(encoding="utf-8")) == found
    assert {"baseline", "plan", "factors", "what_if"} <= set(found)
    for figure in ("usd_per_million_output_tokens", "tokens_per_s_per_mw"):
        shares = [factor[figure]["share"] for factor in found["factors"]]
        assert math.fsum((found["baseline"][figure], *shares)) == found["plan"][figure]
        assert all({"share", "times", "before", "after"} == set(factor[figure]) for factor in found["factors"])
    assert found["what_if"][0]["cases"][0]["change"]
    assert done.stderr.splitlines() == [f"explanation written to {out}"]


def test_pictures_are_written_where_they_are_asked_for(plan_file: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plots = tmp_path / "pictures"
    done = run("explain", plan_file, "--factors", "precision", "--plots", str(plots))
    assert done.returncode == 0, done.stderr
    told = [f"picture written to {plots / name}" for name in ("waterfall.png", "tornado.png")]
    assert done.stderr.splitlines() == told
    for name in ("waterfall.png", "tornado.png"):
        assert (plots / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("{plan}", "--factors", "luck"), "error: --factors: 'luck' is not one of accelerator, interconnect"),
        (("{plan}", "--baseline", "h10"), "error: --baseline: unknown accelerator 'h10'; did you mean"),
        (("missing.json",), "error: missing.json: cannot be read: No such file or directory"),
        ((), "error: missing argument 'PLAN.json' (see tokopt explain --help)"),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments: tuple[str, ...], said: str, plan_file: str) -> None:
    done = run("explain", *(word.format(plan=plan_file) for word in arguments))
    assert done.returncode == 2 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and said in done.stderr, done.stderr


def test_a_plan_that_cannot_be_reproduced_is_refused(plan_file: str, tmp_path: Path) -> None:
    plan = json.loads(Path(plan_file).read_text(encoding="utf-8"))
    plan["usd_per_million_output_tokens"] *= 2
    other = tmp_path / "other.json"
    other.write_text(json.dumps(plan), encoding="utf-8")
    done = run("explain", str(other))
    assert done.returncode == 2
    assert f"{other}: the plan cannot be reproduced: it states" in done.stderr and "make it again" in done.stderr
