"""What shells are told when Tab is pressed, through the variable that completion scripts of click use."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

from tokopt.catalog import Catalog
from tokopt.cli import app


def offered(line: str) -> list[tuple[str, str]]:
    """Return (kind, value) of what is offered for the last word of a line."""
    words = line.split(" ")
    variables = {"_TOKOPT_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    done = subprocess.run(
        [sys.executable, "-c", "from tokopt.__main__ import main; main()"],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return [tuple(each.split(",", 1)) for each in done.stdout.split("\n") if each]  # type: ignore[misc]


def test_names_of_the_catalog_are_offered(catalog: Catalog) -> None:
    found = [value for _, value in offered("tokopt plan --model qwen3-")]
    assert found == [name for name in sorted(catalog.llms) if name.startswith("qwen3-")]


@pytest.mark.parametrize(
    ("line", "among"),
    [
        ("tokopt pl", "plan"),
        ("tokopt trace s", "summary"),
        ("tokopt plan --power-m", "--power-mode"),
        ("tokopt plan --gpu h100_sxm,h2", "h100_sxm,h200_sxm"),
        ("tokopt plan --prices owner", "ownership-hyperscaler"),
        ("tokopt plan --power-mode ", "drawn"),
        ("tokopt plan --objective cost,ca", "cost,carbon"),
        ("tokopt plan --disable mt", "mtp"),
        ("tokopt simulate plan.json --router kv", "kv_aware"),
        ("tokopt tune plan.json --knobs ch", "chunk"),
    ],
)
def test_words_are_offered(line: str, among: str) -> None:
    assert ("plain", among) in offered(line)


def test_what_was_named_is_not_offered_again() -> None:
    assert ("plain", "h100_sxm,h100_sxm") not in offered("tokopt plan --gpu h100_sxm,h100_s")


@pytest.mark.parametrize("line", ["tokopt simulate ", "tokopt compare --scenarios sc", "tokopt plan --owned my"])
def test_files_are_left_to_the_shell(line: str) -> None:
    assert [kind for kind, _ in offered(line)] == ["file"]


def test_a_catalog_that_is_none_offers_nothing() -> None:
    assert offered("tokopt plan --catalog /no/such/place --model qwen3-") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_name_the_command_and_the_variable(shell: str) -> None:
    script = CliRunner().invoke(app, ["completion", shell]).stdout
    assert f"_TOKOPT_COMPLETE={shell}_complete" in script and "tokopt" in script


def test_the_shell_at_hand_is_told_from_the_environment() -> None:
    done = CliRunner().invoke(app, ["completion"], env={"SHELL": "/usr/bin/fish"})
    assert "fish_complete" in done.stdout
    assert CliRunner().invoke(app, ["completion"], env={"SHELL": ""}).exit_code == 2
    strange = CliRunner().invoke(app, ["completion", "powershel"])
    assert strange.exit_code == 2 and "not one of bash, zsh, fish" in strange.stderr
