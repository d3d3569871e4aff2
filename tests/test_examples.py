"""The examples run from anywhere and answer their question."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
WORDS = {
    "plan_ten_megawatts.py": (
        "optimal",
        "deepseek-r1",
        "per million output tokens",
        "TPOT p99",
        "power:",
        "one more MW of power",
        "Runner-up",
        "Assumed:",
    ),
    "compare_clouds_for_a_chat_service.py": (
        "aws",
        "gcp",
        "lambda",
        "nebius",
        "$/hour",
        "Winner:",
        "All lists together",
        "break even",
    ),
    "estimate_a_table.py": ("h100_sxm", "mi300x", "TTFT ms", "tok/s/GPU", "does not fit", "Most tokens a GPU"),
}


def test_every_example_is_tested() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(WORDS)


@pytest.mark.parametrize("name", list(WORDS))
def test_example_answers_its_question(name: str, tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, str(EXAMPLES / name)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    for word in WORDS[name]:
        assert word in run.stdout
    assert "nan" not in run.stdout.lower() and "None" not in run.stdout


@pytest.mark.parametrize("name", list(WORDS))
def test_example_is_short_and_says_what_it_answers(name: str) -> None:
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    assert text.startswith('"""')
    assert "?" in text.split('"""')[1]
    assert len(text.splitlines()) < 60


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda path: path.name)
def test_notebooks_run_from_top_to_bottom(path: Path, tmp_path: Path) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert all(not cell["outputs"] for cell in cells if cell["cell_type"] == "code"), "clear the outputs"
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    for word in ("per million output tokens", "80 % range", "b200_sxm", "tok/s/user", "within limits"):
        assert word in run.stdout
