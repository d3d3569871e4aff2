"""Help as it is read: long lists of options under headings, and every default with its reason."""

from __future__ import annotations

import json

import click
import pytest
from click.testing import CliRunner

from tokopt.cli import app
from tokopt.cli.defaults import WHY
from tokopt.cli.help import LAST, MANY_OPTIONS, OTHER, SECTION_OF, Command, default_of, explained, section_of

# Commands whose defaults decide figures, so that each of them has to have a reason.
REASONED = ("plan", "simulate", "tune")


def commands(group: click.Group = app, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], click.Command]]:
    found: list[tuple[tuple[str, ...], click.Command]] = []
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        here = (*path, name)
        found += commands(command, here) if isinstance(command, click.Group) else [(here, command)]
    return found


COMMANDS = commands()
NAMED = pytest.mark.parametrize(("path", "command"), COMMANDS, ids=[" ".join(path) for path, _ in COMMANDS])


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result.stdout


@NAMED
def test_every_command_explains_its_defaults(path: tuple[str, ...], command: click.Command) -> None:
    assert isinstance(command, Command)
    if not any(p.name == "as_json" for p in command.params):
        assert "Defaults of" in run(*path, "--explain-defaults")
        return
    found = json.loads(run(*path, "--explain-defaults", "--json"))
    options = {p.opts[0] for p in command.params if isinstance(p, click.Option) and p.expose_value}
    named = {row["option"] for row in found["defaults"]}
    assert options - named <= {f"--{name}" for name, title in SECTION_OF.items() if title == LAST} | {"--json", "--out"}
    text = run(*path, "--explain-defaults")
    assert all(row["option"] in text for row in found["defaults"])


@NAMED
def test_long_lists_of_options_are_under_headings(path: tuple[str, ...], command: click.Command) -> None:
    context = click.Context(command)
    options = [p for p in command.get_params(context) if isinstance(p, click.Option)]
    text = run(*path, "--help")
    assert "--explain-defaults" in text
    if len(options) >= MANY_OPTIONS:
        assert not [p.opts for p in options if section_of(p) == OTHER], "give the option its heading in cli/help.py"
        assert text.index(f"{LAST}:") > max(text.index(f"  {p.opts[0]}") for p in options if section_of(p) != LAST)
    for option in options:
        assert max(option.opts, key=len) in text


@pytest.mark.parametrize("name", REASONED)
def test_defaults_that_decide_figures_have_their_reasons(name: str) -> None:
    command = {path[0]: each for path, each in COMMANDS if len(path) == 1}[name]
    rows = list(explained(command, click.Context(command, info_name=name)))
    assert [row["option"] for row in rows if not row["why"]] == []


def test_reasons_are_of_options_that_there_are() -> None:
    options = {opt for _, each in COMMANDS for p in each.params if isinstance(p, click.Option) for opt in p.opts}
    assert {key.split()[-1] for key in WHY} <= options


def test_what_is_given_stands_beside_the_default() -> None:
    found = json.loads(run("plan", "--model", "llama-3.1-8b", "--explain-defaults", "--sla", "30ms", "--json"))
    rows = {row["option"]: row for row in found["defaults"]}
    assert rows["--model"]["default"] == "deepseek-r1" and rows["--model"]["given"] == "llama-3.1-8b"
    assert rows["--sla"]["default"] == "50ms" and rows["--sla"]["given"] == "30ms"
    assert rows["--power"]["given"] is None and rows["TTFT limit"]["default"].startswith("2 s")


def test_defaults_are_explained_whatever_else_is_wrong() -> None:
    assert "Defaults of" in run("simulate", "--explain-defaults")
    assert "Defaults of" in run("plan", "--max-types", "many", "--explain-defaults")


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (click.Option(["--a"], help="X.  [default: seven]"), "seven"),
        (click.Option(["--a"], help="X.  [default with spot: 10%]"), "with spot: 10%"),
        (click.Option(["--a"], type=int, default=20_000), "20,000"),
        (click.Option(["--a"], is_flag=True), "off"),
        (click.Option(["--a"]), "none"),
    ],
)
def test_defaults_in_words(option: click.Option, said: str) -> None:
    assert default_of(option) == said
